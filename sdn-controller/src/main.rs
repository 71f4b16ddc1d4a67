//! `sdn-controller`: sessions with OpenFlow switches. `sdn-controller --help` says how to run it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use caregate_host::identity::Identity;
use caregate_host::{admin, config, dir, exit, log, net, shutdown};
use caregate_protocol::openflow::session::Timing;
use clap::Parser;
use sdn_controller::config::{ConfigFile, bindings};
use sdn_controller::connection::Shared;
use sdn_controller::events::Events;
use sdn_controller::metrics::Metrics;
use sdn_controller::store::Store;
use sdn_controller::switches::Switches;
use sdn_controller::{api, server};
use tracing::info;

/// How often certificate files are looked at for rotation.
const ROTATION_INTERVAL: Duration = Duration::from_secs(2);

/// Holds OpenFlow 1.3 sessions with gateways and switches over mutual TLS and lists them at /switches.
///
/// It installs no flows yet: a switch under it forwards as it would without it.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file (TOML); see deploy/examples/sdn-controller.toml
    #[arg(long, default_value = "/etc/caregate/sdn-controller.toml")]
    config: PathBuf,
    /// Check the configuration and the identity, then exit
    #[arg(long, visible_alias = "check-config")]
    check: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    exit::code(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file: ConfigFile = config::load(&arguments.config)?;
    log::init(file.log)?;
    let named = || arguments.config.display().to_string();
    let timing = Timing::try_from(file.timing).with_context(named)?;
    let switches = Switches::new(bindings(&file.switches).with_context(named)?);
    file.check().with_context(named)?;
    let identity = Identity::load(&file.identity)?;
    dir::create_private(&file.data)?;
    let store = Store::open(&file.data).with_context(|| file.data.display().to_string())?;
    if arguments.check {
        return Ok(());
    }
    let stop = shutdown::token()?;
    let registry = admin::registry()?;
    let metrics = Metrics::register(&registry)?;
    identity.register(&registry)?;
    identity.watch(ROTATION_INTERVAL, stop.clone())?;
    let health = admin::Health::new();
    let listening = health.condition("listener");
    let listener = net::listen(&file.listen)?;
    let admin_listener = net::listen(&file.admin)?;
    info!(openflow = %listener.local_addr()?, admin = %admin_listener.local_addr()?, "listening; no flows are installed");
    let shared = Shared {
        timing,
        switches: Arc::new(Mutex::new(switches)),
        metrics,
        events: Events::default(),
        desired: store.subscribe(),
        lane_ports: file.lanes.ports,
        found: Arc::default(),
    };
    let page = api::router(shared.clone());
    let operator = tokio::spawn(admin::serve(admin_listener, registry, health, page, stop.clone()));
    listening.set(true);
    server::serve(listener, &identity, shared, stop).await;
    operator.await?;
    info!("stopped");
    Ok(())
}
