//! Carries the inventory over restarts: what changed goes to the rebuildable state now and then.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

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
