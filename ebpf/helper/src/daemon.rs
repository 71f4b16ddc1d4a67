//! Puts the parts together and serves until it is told to stop. What is in the kernel stays there.

use std::io;
use std::time::Duration;

use anyhow::Context;
use aya::maps::{MapData, RingBuf};
use caregate_host::{admin, net, shutdown};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::ConfigFile;
use crate::error::DatapathError;
use crate::links::Snapshot;
use crate::metrics::{KernelMetrics, Metrics};
use crate::shared::Shared;
use crate::{GUARDED, VERSION, connection, links, object, pin, privilege, socket, stages, watch};

/// Daemons at once: the gateway, the one that takes its place, and somebody who looks.
const CONNECTIONS_MAX: usize = 4;
/// How often ports are looked at, should no change of an interface ask for it before: one may take a program now, or a driver not send
/// any more what XDP redirects.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Checks what can be checked without changing anything: configuration, user, interfaces, file system, and that the kernel takes
/// the programs.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(file: &ConfigFile) -> anyhow::Result<()> {
    file.check()?;
    socket::user(&file.user)?;
    pin::check(&file.pin)?;
    let snapshot = Snapshot::read()?;
    for name in file.interfaces() {
        snapshot.named(name).with_context(|| format!("there is no network interface `{name}`"))?;
    }
    privilege::allow_locked_memory();
    let mut ebpf = object::load(None)?;
    object::load_sensor(&mut ebpf)?;
    object::load_uplink(&mut ebpf)?;
    drop(stages::load(&mut ebpf)?);
    info!("configuration, interfaces and programs are good");
    Ok(())
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be started.
pub async fn run(file: &ConfigFile) -> anyhow::Result<()> {
    file.check()?;
    let user = socket::user(&file.user)?;
    privilege::allow_locked_memory();
    let stop = shutdown::token()?;
    let listener = socket::listen(&file.socket, user)?;
    let admin_listener = net::listen(&file.admin)?;
    privilege::reduce().context("giving up capabilities")?;
    if !GUARDED {
        warn!(
            version = VERSION,
            "THIS BUILD HAS NO GUARD: all tables are the controller's. It is for conformance suites, and for no network"
        );
    }
    let (shared, rings) = Shared::open(file)?;
    let registry = admin::registry()?;
    let metrics = Metrics::register(&registry)?;
    registry.register(Box::new(KernelMetrics::new(shared.clone())?))?;
    let health = admin::Health::new();
    let attached = health.condition("ports");
    attached.set(shared.is_complete());
    info!(socket = file.socket, admin = %admin_listener.local_addr()?, "listening");
    tokio::spawn(admin::serve(admin_listener, registry, health, axum::Router::new(), stop.clone()));
    tokio::spawn(watch_packets(rings.packets, shared.clone(), stop.clone()));
    tokio::spawn(watch_punts(rings.punts, shared.clone(), stop.clone()));
    let changes = watch::readiness(links::changes()?)?;
    let watching = {
        let (shared, stop) = (shared.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(REFRESH_INTERVAL) => {}
                    ready = changes.readable() => match ready {
                        Ok(mut ready) => {
                            links::drain(changes.get_ref());
                            ready.clear_ready();
                        }
                        Err(failure) => return error!(%failure, "changes of interfaces are not seen any more"),
                    },
                }
                if let Err(failure) = shared.refresh() {
                    error!(%failure, "ports could not be looked at");
                }
                attached.set(shared.is_complete());
            }
        })
    };
    accept(listener, user, shared, metrics, stop).await;
    watching.await?;
    info!("stopped; what is pinned goes on filtering");
    Ok(())
}

async fn watch_packets(ring: RingBuf<MapData>, shared: Shared, stop: CancellationToken) {
    let mut ring = match watch::readiness(ring) {
        Ok(ring) => ring,
        Err(failure) => return error!(%failure, "no frames for the controller"),
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            ready = ring.readable_mut() => match ready {
                Ok(mut ready) => {
                    shared.read_packets(ready.get_inner_mut());
                    ready.clear_ready();
                }
                Err(failure) => return error!(%failure, "no more frames for the controller"),
            },
        }
    }
}

async fn watch_punts(ring: RingBuf<MapData>, shared: Shared, stop: CancellationToken) {
    let mut ring = match watch::readiness(ring) {
        Ok(ring) => ring,
        Err(failure) => return error!(%failure, "no frames for the slow path"),
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            ready = ring.readable_mut() => match ready {
                Ok(mut ready) => {
                    if shared.read_punts(ready.get_inner_mut()) {
                        ready.clear_ready();
                    }
                }
                Err(failure) => return error!(%failure, "no more frames for the slow path"),
            },
        }
        // A flood of them must not keep connections waiting.
        tokio::task::yield_now().await;
    }
}

async fn accept(
    listener: UnixListener,
    user: u32,
    shared: Shared,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        match accepted.and_then(|(stream, _)| Ok((peer(&stream)?, stream))) {
            Ok((uid, stream)) if uid == user => {
                let (shared, metrics, stop) = (shared.clone(), metrics.clone(), stop.clone());
                connections.spawn(async move {
                    info!("a daemon has connected");
                    match connection::serve(stream, shared, metrics, stop).await {
                        Ok(()) => info!("a daemon has gone; what it set stays in force"),
                        Err(reason) => {
                            warn!(%reason, "a daemon's connection ended; what it set stays in force")
                        }
                    }
                });
            }
            Ok((uid, _stranger)) => {
                metrics.stranger();
                warn!(uid, "a user who may not connect was refused");
            }
            Err(failure) => {
                warn!(%failure, "a connection could not be taken");
                // Out of descriptors, say: it will be so again at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

fn peer(stream: &UnixStream) -> io::Result<u32> {
    Ok(stream.peer_cred()?.uid())
}

/// Takes the programs off and removes the pins.
///
/// # Errors
/// [`DatapathError`].
pub fn detach(file: &ConfigFile) -> Result<(), DatapathError> {
    crate::shared::detach(&file.pin)?;
    warn!("detached: frames reach the gateway unfiltered");
    Ok(())
}
