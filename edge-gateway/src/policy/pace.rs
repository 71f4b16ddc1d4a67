//! How often a path is listened to.

use std::time::Duration;

use tokio::time::Instant;

/// Bundles and revocations taken at once, and then one in [`OFFER_EVERY`]: more changes of a ledger than come together, and few
/// enough that a controller or a core that sends without end costs half a core at most, and the disk two writes a second.
const OFFER_BURST: u32 = 32;
/// See [`OFFER_BURST`].
const OFFER_EVERY: Duration = Duration::from_millis(500);

/// How often something is taken by one path, over all its connections.
pub(super) struct Pace {
    /// When the next would be due, were there no burst.
    due: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { due: Instant::now() }
    }

    pub(super) async fn wait(&mut self) {
        self.due = self.due.max(Instant::now()) + OFFER_EVERY;
        if let Some(at) = self.due.checked_sub(OFFER_EVERY * OFFER_BURST) {
            tokio::time::sleep_until(at).await;
        }
    }
}
