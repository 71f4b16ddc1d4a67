//! What the commit thread hands over: every admitted reading, before it is stored.

use caregate_protocol::id::{DataClass, DeviceId, PatientId};
use caregate_protocol::reading::Reading;
use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::engine::Observation;

/// Observations handed over at once: a group commit of PUBLISHes with one reading each.
const BATCH_MAX: usize = 512;
/// Batches waiting for the watch: some 8,000 observations, a megabyte. It takes microseconds for each.
pub const BATCHES_MAX: usize = 16;

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A reading.
    Reading(Observation),
    /// A value that nobody can have.
    Implausible {
        /// Whose device.
        patient: PatientId,
        /// Which.
        device: DeviceId,
    },
}

/// The commit thread's end. It never waits, and wakes the watch once a group commit.
#[derive(Debug)]
pub struct Tap {
    out: mpsc::Sender<Vec<Seen>>,
    pending: Vec<Seen>,
    dropped: IntCounter,
}

impl Tap {
    /// A tap and what comes out of it; what does not fit is counted in `dropped`.
    #[must_use]
    pub fn new(dropped: IntCounter) -> (Self, mpsc::Receiver<Vec<Seen>>) {
        let (out, seen) = mpsc::channel(BATCHES_MAX);
        (Self { out, pending: Vec::new(), dropped }, seen)
    }

    /// Shows a reading to the watch.
    pub fn reading(&mut self, patient: PatientId, class: DataClass, reading: &Reading) {
        if let Some(observation) = Observation::of(patient, class, reading) {
            self.show(Seen::Reading(observation));
        }
    }

    /// Shows that a device sent what nobody can have.
    pub fn implausible(&mut self, patient: PatientId, device: &DeviceId) {
        self.show(Seen::Implausible { patient, device: device.clone() });
    }

    fn show(&mut self, seen: Seen) {
        self.pending.push(seen);
        if self.pending.len() >= BATCH_MAX {
            self.flush();
        }
    }

    /// Hands over what was shown. Call before a commit's sync.
    pub fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.pending);
        // A gateway without a watch has no receiver; nothing is missed there.
        if let Err(mpsc::error::TrySendError::Full(batch)) = self.out.try_send(batch) {
            self.dropped.inc_by(batch.len() as u64);
        }
    }
}
