//! Puts the parts together.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use caregate_host::identity::Identity;
use caregate_host::{admin, config, dir, http, key_file, log, net, shutdown};
use caregate_protocol::openflow::session::Timing;
use ledger_chain::{GatewaySalt, RevokedGateways};
use prometheus::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{ConfigFile, bindings};
use crate::connection::Shared;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::policy::{Followed, Policy, Waiting};
use crate::rest::App;
use crate::store::Store;
use crate::switches::Switches;
use crate::{dashboard, policy, rest, server};

/// How often certificate files are looked at for rotation.
const ROTATION_INTERVAL: Duration = Duration::from_secs(2);

struct Loaded {
    file: ConfigFile,
    timing: Timing,
    switches: Switches,
    identity: Arc<Identity>,
    store: Arc<Store>,
    /// What gateways' names are salted with on the ledger.
    salt: Option<GatewaySalt>,
}

fn load(path: &Path) -> anyhow::Result<Loaded> {
    let file: ConfigFile = config::load(path)?;
    log::init(file.log)?;
    let named = || path.display().to_string();
    let timing = Timing::try_from(file.timing).with_context(named)?;
    let switches = Switches::new(bindings(&file.switches).with_context(named)?);
    file.check().with_context(named)?;
    let identity = Identity::load(&file.identity)?;
    dir::create_private(&file.data)?;
    let store = Store::open(&file.data).with_context(|| file.data.display().to_string())?;
    let salt = match &file.ledger {
        Some(ledger) => Some(GatewaySalt::new(key_file::read_hex(ledger.gateway_salt()?)?)),
        None => None,
    };
    Ok(Loaded { file, timing, switches, identity, store: Arc::new(store), salt })
}

/// Checks the configuration, the identity and the store.
///
/// # Errors
/// What is wrong with them.
pub fn check(path: &Path) -> anyhow::Result<()> {
    load(path).map(drop)
}

/// Runs until it is told to stop.
///
/// # Errors
/// What is wrong with the configuration, the identity, the store or a listener.
pub async fn run(path: &Path) -> anyhow::Result<()> {
    let Loaded { file, timing, switches, identity, store, salt } = load(path)?;
    let stop = shutdown::token()?;
    let registry = admin::registry()?;
    let metrics = Metrics::register(&registry)?;
    identity.register(&registry)?;
    identity.watch(ROTATION_INTERVAL, stop.clone())?;
    metrics.intents.set(i64::try_from(store.desired().entries.len()).unwrap_or(i64::MAX));
    let shared = Shared {
        timing,
        switches: Arc::new(Mutex::new(switches)),
        metrics,
        events: Events::default(),
        desired: store.subscribe(),
        lane_ports: file.lanes.ports,
        found: Arc::default(),
    };
    let mut revoked = RevokedGateways::none();
    let policy = match (&file.ledger, salt) {
        (Some(config), Some(salt)) => {
            let ledger = Followed::start(config.clone(), &stop)?;
            let id = identity.id();
            let follower = ledger.follower();
            revoked = RevokedGateways::follow(follower, id.domain(), salt, &file.data, stop.clone())
                .with_context(|| file.data.display().to_string())?;
            let waiting = Waiting::open(&file.data).with_context(|| file.data.display().to_string())?;
            Some(Policy::start(ledger, waiting, shared.metrics.clone(), shared.events.clone(), &stop))
        }
        (None, _) | (_, None) => None,
    };
    let app = App { shared, store, policy };
    serve(&file, &identity, app, revoked, registry, stop).await?;
    info!("stopped");
    Ok(())
}

/// Opens every listener before any is served, so that what can't be opened is said at start.
async fn serve(
    file: &ConfigFile,
    identity: &Identity,
    app: App,
    revoked: RevokedGateways,
    registry: Registry,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let health = admin::Health::new();
    let listening = health.condition("listener");
    let switches = net::listen(&file.listen)?;
    let admin_listener = net::listen(&file.admin)?;
    let listen = |entry: &Option<crate::config::ListenEntry>| {
        entry.as_ref().map(|entry| net::listen(&entry.listen)).transpose()
    };
    let (operators, page) = (listen(&file.rest)?, listen(&file.dashboard)?);
    let endpoint = file.policy.as_ref().map(|entry| policy::bind(&entry.listen, identity)).transpose()?;
    let address = |listener: Option<&tokio::net::TcpListener>| {
        listener.and_then(|listener| listener.local_addr().ok()).map(|address| address.to_string())
    };
    info!(
        openflow = %switches.local_addr()?,
        admin = %admin_listener.local_addr()?,
        rest = address(operators.as_ref()),
        dashboard = address(page.as_ref()),
        policy = endpoint.as_ref().and_then(|endpoint| endpoint.local_addr().ok()).map(|a| a.to_string()),
        "listening"
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve(admin_listener, registry, health, axum::Router::new(), stop.clone()));
    if let Some(listener) = operators {
        let options =
            http::Options { connections_max: rest::CONNECTIONS_MAX, tls: Some(rest::tls_config(identity)) };
        tasks.spawn(http::serve(listener, rest::router(app.clone()), options, stop.clone()));
    }
    if let Some(listener) = page {
        let options = http::Options { connections_max: dashboard::CONNECTIONS_MAX, tls: None };
        tasks.spawn(http::serve(listener, dashboard::router(app.clone()), options, stop.clone()));
    }
    if let (Some(endpoint), Some(policy)) = (endpoint, app.policy.clone()) {
        tasks.spawn(policy::serve(endpoint, policy, revoked.clone(), stop.clone()));
    }
    listening.set(true);
    server::serve(switches, identity, app.shared.clone(), revoked, stop.clone()).await;
    // A part that ended by itself would have ended the others too.
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
