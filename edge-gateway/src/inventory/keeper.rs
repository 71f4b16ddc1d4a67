//! Carries the inventory over restarts: what changed goes to the rebuildable state now and then. And tells it who is bound.

use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::policy::BoundDevice;
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::InventoryMetrics;
use super::table::Inventory;
use super::tap::Shared;
use crate::hints::Hints;

/// How often changes are written: a crash forgets at most so much of who was seen.
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes what changed, until `stop`, and then once more.
pub async fn keep(shared: Shared, hints: Hints, stop: CancellationToken) {
    loop {
        let stopping = tokio::select! {
            () = tokio::time::sleep(INTERVAL) => false,
            () = stop.cancelled() => true,
        };
        let changes = shared.lock().changes();
        let hints = hints.clone();
        // sled may wait for the disk.
        let written = tokio::task::spawn_blocking(move || {
            for (mac, seen) in changes {
                hints.keep_seen(mac, seen.as_ref());
            }
        });
        if written.await.is_err() || stopping {
            return;
        }
    }
}

/// Tells the inventory which devices are bound, until `stop`.
pub async fn follow(
    shared: Shared,
    mut devices: watch::Receiver<Arc<Vec<BoundDevice>>>,
    stop: CancellationToken,
) {
    loop {
        let bound = devices.borrow_and_update().clone();
        let stations = bound.iter().filter_map(|one| Some((one.station?.mac, one.device.clone())));
        shared.lock().bind(stations.collect());
        tokio::select! {
            changed = devices.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// The inventory as it was kept, and what keeps it and follows who is bound until `stop`. Must be called inside a tokio runtime.
///
/// # Errors
/// If a metric is registered already.
pub fn start(
    hints: &Hints,
    registry: &Registry,
    devices: watch::Receiver<Arc<Vec<BoundDevice>>>,
    stop: &CancellationToken,
) -> Result<Shared, prometheus::Error> {
    let shared = Shared::new(Inventory::restored(hints.seen()), InventoryMetrics::register(registry)?);
    tokio::spawn(keep(shared.clone(), hints.clone(), stop.clone()));
    tokio::spawn(follow(shared.clone(), devices, stop.clone()));
    Ok(shared)
}
