//! `core-cloud`: stores sealed segments and relays them. `core-cloud --help` says how to run it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use caregate_host::admin::Condition;
use caregate_host::identity::Identity;
use caregate_host::journal::Journal;
use caregate_host::{admin, config, dir, exit, key_file, kill_point, log, net, shutdown};
use clap::Parser;
use core_cloud::config::{ConfigFile, Peers};
use core_cloud::erase;
use core_cloud::metrics::Metrics;
use core_cloud::owners::Owners;
use core_cloud::preview::Previews;
use core_cloud::retention::{self, Retention};
use core_cloud::search::SearchIndex;
use core_cloud::server::{self, Shared};
#[cfg(feature = "nats")]
use core_cloud::store::jetstream::JetStream;
use core_cloud::store::{Embedded, Store};
use core_cloud::tcp::TcpDoor;
use core_cloud::tenants::Tenants;
use core_cloud::writer::{self, Stores, WriteError};
use ledger_chain::{Chain, Follower, GatewaySalt, RevokedGateways};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often certificate files are looked at for rotation.
const ROTATION_INTERVAL: Duration = Duration::from_secs(2);

/// The version; of a build that can be told to die it says so, so that it can be refused by name.
const VERSION: &str = if kill_point::ARMABLE {
    concat!(env!("CARGO_PKG_VERSION"), "+kill-points")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Stores sealed segments from gateways and delivers them to the recipients that hold their keys. It holds no key that
/// opens any of them.
#[derive(Debug, Parser)]
#[command(version = VERSION, about, long_about = None)]
struct Arguments {
    /// Configuration file (TOML); see deploy/examples/core-cloud.toml
    #[arg(long, default_value = "/etc/caregate/core-cloud.toml")]
    config: PathBuf,
    /// Check the configuration, the identity and the store, then exit
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(run(Arguments::parse()).await)
}

/// What gateways' names are salted with on the ledger; none where there is no ledger.
fn gateway_salt(file: &ConfigFile) -> anyhow::Result<Option<GatewaySalt>> {
    let path = file.gateway_salt().context("ledger")?;
    Ok(path.map(key_file::read_hex).transpose()?.map(GatewaySalt::new))
}

/// Gateways that the ledger has revoked; none where there is no ledger.
fn revoked(
    file: &ConfigFile,
    salt: Option<GatewaySalt>,
    identity: &Identity,
    stop: &CancellationToken,
) -> anyhow::Result<RevokedGateways> {
    let (Some(config), Some(salt)) = (&file.ledger, salt) else { return Ok(RevokedGateways::none()) };
    let follower = Follower::start(Chain::new(config.clone()).context("ledger")?, stop.clone());
    RevokedGateways::follow(follower, identity.id().domain(), salt, &file.data, stop.clone())
        .with_context(|| file.data.display().to_string())
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file: ConfigFile = config::load(&arguments.config)?;
    log::init(file.log)?;
    if kill_point::ARMABLE {
        warn!("THIS BUILD DIES WHEN TOLD TO (cargo feature `kill-points`): it is for tests alone");
    }
    let peers = Peers::try_from((file.gateways.as_slice(), file.feeds.as_slice()))
        .with_context(|| arguments.config.display().to_string())?;
    let identity = Identity::load(&file.identity)?;
    dir::create_private(&file.data)?;
    let health = admin::Health::new();
    let storing = health.condition("store");
    let store = open_store(&file, &storing).await?;
    let (journal, _) = Journal::open(&file.data.join("journal.jsonl"))?;
    let registry = admin::registry()?;
    let metrics = Metrics::register(&registry)?;
    let (tenants, retention) =
        file.shares(&peers, &metrics).with_context(|| arguments.config.display().to_string())?;
    let search = Arc::new(SearchIndex::open(&file.data).with_context(|| file.data.display().to_string())?);
    let salt = gateway_salt(&file).with_context(|| arguments.config.display().to_string())?;
    if arguments.check {
        return Ok(());
    }
    let stop = shutdown::token()?;
    identity.register(&registry)?;
    identity.watch(ROTATION_INTERVAL, stop.clone())?;
    let endpoint = server::bind(file.listen, &identity)?;
    let door = file.listen_tcp.as_deref().map(net::listen).transpose()?;
    let door = door.map(|listener| TcpDoor::new(listener, &identity));
    let admin_listener = net::listen(&file.admin)?;
    info!(quic = %endpoint.local_addr()?, admin = %admin_listener.local_addr()?, "listening");
    let (revoked, journal) = (revoked(&file, salt, &identity, &stop)?, Arc::new(journal));
    let (owners, previews) = known(&*store, &peers, &revoked, &metrics)?;
    let (writer, incoming) = writer::queue(&metrics);
    let (stored_out, stored) = watch::channel(0);
    let thread = {
        let (store, search) = (Arc::clone(&store), Arc::clone(&search));
        let stores = Stores { owners: owners.clone(), store, search };
        let metrics = metrics.clone();
        let write = move || writer::run(&stores, incoming, &stored_out, &metrics);
        start_writer(write, storing.clone(), stop.clone())?
    };
    tokio::spawn(admin::serve(admin_listener, registry, health, axum::Router::new(), stop.clone()));
    keep(&store, retention, &tenants, &metrics, &stop)?;
    let shared = Shared {
        peers: Arc::new(peers),
        revoked,
        owners,
        store,
        search,
        writer,
        stored,
        journal,
        receipt_key: erase::receipt_key(&file.data)?,
        previews,
        tenants,
        metrics,
    };
    server::serve(endpoint, door, shared, stop).await;
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_panic| anyhow::anyhow!("the writer panicked"))?
        .context("nothing more can be stored")?;
    info!("stopped");
    Ok(())
}

/// Writes in a thread of its own, at whose end everything stops, also where it panics: a core that takes records and never acknowledges
/// one helps nobody.
fn start_writer(
    write: impl FnOnce() -> Result<(), WriteError> + Send + 'static,
    storing: Condition,
    stop: CancellationToken,
) -> std::io::Result<JoinHandle<Result<(), WriteError>>> {
    std::thread::Builder::new().name("store".into()).spawn(move || {
        let _guard = stop.drop_guard();
        storing.set(true);
        let ended = write();
        storing.set(false);
        ended
    })
}

/// What of the store is kept in memory: whose which pseudonym is, and of whom nothing is shown.
fn known(
    store: &dyn Store,
    peers: &Peers,
    revoked: &RevokedGateways,
    metrics: &Metrics,
) -> anyhow::Result<(Owners, Previews)> {
    let owners = Owners::new(store.owners()?, peers, revoked.clone());
    Ok((owners, Previews::new(store.erased()?, metrics.clone())))
}

/// Starts the thread that counts what is stored and takes out what is too old, where anybody asked for either.
fn keep(
    store: &Arc<dyn Store>,
    retention: Retention,
    tenants: &Tenants,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if retention.is_none() && tenants.is_empty() {
        return Ok(());
    }
    let (store, tenants, metrics, stop) = (Arc::clone(store), tenants.clone(), metrics.clone(), stop.clone());
    let run = move || retention::run_or_say(&store, &retention, &tenants, &metrics, &stop);
    std::thread::Builder::new().name("retention".into()).spawn(run)?;
    Ok(())
}

/// The store that the configuration names.
async fn open_store(file: &ConfigFile, storing: &Condition) -> anyhow::Result<Arc<dyn Store>> {
    let data = file.data.clone();
    let Some(nats) = &file.nats else {
        let store = tokio::task::spawn_blocking(move || {
            Embedded::open(&data).with_context(|| data.display().to_string())
        });
        return Ok(Arc::new(store.await??));
    };
    #[cfg(feature = "nats")]
    {
        let settings = nats.settings()?;
        let store = tokio::task::spawn_blocking(move || {
            JetStream::open(&data, &settings).with_context(|| settings.url)
        });
        Ok(Arc::new(store.await??.telling(storing.clone())))
    }
    #[cfg(not(feature = "nats"))]
    let _unused = storing;
    #[cfg(not(feature = "nats"))]
    anyhow::bail!("nats: this build has no NATS; build core-cloud with `--features nats` to use {}", nats.url)
}
