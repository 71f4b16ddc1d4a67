//! Opens the watch with what is on disk, and starts it.

use std::sync::Arc;

use anyhow::Context;
use caregate_protocol::alarm::Standing;
use caregate_protocol::beat::BEAT_BYTES;
use caregate_protocol::id::PatientId;
use ed25519_dalek::SigningKey;
use prometheus::{IntCounter, Registry};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Standings;
use super::config::WatchEntry;
use super::engine::{Engine, Observation, Site};
use super::metrics::WatchMetrics;
use super::store::WatchStore;
use super::tap::{Batch, Tap};
use super::thread::{COMMANDS_MAX, Inputs, Outputs, Parts, STANDINGS_MAX, Shell};
use super::topic::Publish;
use super::webhook::{Target, Webhook};
use crate::policy::{PolicyHandle, PolicyStore};

/// What lies in the spool and is in nothing that the watch kept: the process ended between the sync and that.
#[derive(Debug, Default)]
pub struct Unheard {
    /// Events, one of a device and kind.
    pub events: Vec<Observation>,
    /// All of them lie below this position.
    pub below: u64,
}

/// What is on disk, opened and found good.
#[derive(Debug)]
pub struct Material {
    engine: Engine,
    store: WatchStore,
    device: SigningKey,
    seen: mpsc::Receiver<Batch>,
    unheard: Unheard,
    target: Option<Target>,
    metrics: WatchMetrics,
}

/// Reads what the entry names and what was kept. The tap is for the commit thread.
///
/// # Errors
/// The first thing that is wrong, with its key.
pub fn open(
    entry: &WatchEntry,
    store: WatchStore,
    unheard: Unheard,
    device: SigningKey,
    registry: &Registry,
) -> anyhow::Result<(Tap, Material)> {
    let site = Site::try_from(entry)?;
    let target = entry.webhook.as_ref().map(Target::open).transpose()?;
    let engine = Engine::new(site, store.all().context("keys")?);
    let metrics = WatchMetrics::register(registry)?;
    let (tap, seen) = Tap::new(metrics.dropped.clone());
    Ok((tap, Material { engine, store, device, seen, unheard, target, metrics }))
}

/// What the others get of a watch that runs.
#[derive(Debug)]
pub struct Started {
    /// For the commit thread: to be sealed.
    pub standings: mpsc::Receiver<(PatientId, Standing)>,
    /// For the uplink: where sealed commands go.
    pub commands: mpsc::Sender<Vec<u8>>,
    /// For the uplink: the newest heartbeat.
    pub beats: watch::Receiver<Option<[u8; BEAT_BYTES]>>,
    /// For the local page.
    pub views: watch::Receiver<Arc<Standings>>,
    /// For a lookout: what it shows.
    pub early: IntCounter,
}

/// Starts the watch on a thread of its own, and the webhook where there is one. Must be called inside a tokio runtime.
///
/// # Errors
/// If no thread can be had.
pub fn start(
    material: Material,
    policy: &PolicyHandle,
    trail: PolicyStore,
    publisher: Option<Arc<dyn Publish>>,
    stop: &CancellationToken,
) -> anyhow::Result<Started> {
    let Material { engine, store, device, seen, unheard, target, metrics } = material;
    let (standings, standings_in) = mpsc::channel(STANDINGS_MAX);
    let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
    let (beats, beats_in) = watch::channel(None);
    let (views, views_in) = watch::channel(Arc::default());
    let webhook = target.map(|target| {
        let webhook = Webhook::new(metrics.clone());
        tokio::spawn(webhook.clone().run(target, stop.clone()));
        webhook
    });
    let early = metrics.early.clone();
    let outputs = Outputs { views, publisher, webhook, standings, beats };
    let pins = policy.enrolled();
    let heard = unheard.below;
    let mut shell = Shell::new(Parts { engine, store, trail, device, pins, metrics, outputs, heard });
    shell.hear(&unheard.events);
    let devices = policy.bound_devices();
    let (handle, policy, erased) = (policy.clone(), policy.subscribe(), policy.erased());
    let inputs = Inputs { seen, commands: commands_in, policy, handle, devices, erased };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let stop = stop.clone();
    std::thread::Builder::new().name("watch".into()).spawn(move || {
        // A gateway whose watch has failed would look as if all were well: it ends, and is started again.
        let _guard = stop.clone().drop_guard();
        runtime.block_on(shell.run(inputs, stop));
    })?;
    Ok(Started { standings: standings_in, commands, beats: beats_in, views: views_in, early })
}
