//! What the commit thread hands over: every admitted reading, before it is stored.

use caregate_protocol::id::{DeviceId, PatientId};
use caregate_protocol::reading::Reading;
use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::engine::Observation;

/// Observations waiting for the watch: four group commits at their largest. It takes a microsecond for each.
pub const SEEN_MAX: usize = 2048;

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

/// The commit thread's end. It never waits.
#[derive(Debug, Clone)]
pub struct Tap {
    out: mpsc::Sender<Seen>,
    dropped: IntCounter,
}

impl Tap {
    /// A tap and what comes out of it; what does not fit is counted in `dropped`.
    #[must_use]
    pub fn new(dropped: IntCounter) -> (Self, mpsc::Receiver<Seen>) {
        let (out, seen) = mpsc::channel(SEEN_MAX);
        (Self { out, dropped }, seen)
    }

    /// Shows a reading to the watch.
    pub fn reading(&self, patient: PatientId, reading: &Reading) {
        if let Some(observation) = Observation::of(patient, reading) {
            self.show(Seen::Reading(observation));
        }
    }

    /// Shows that a device sent what nobody can have.
    pub fn implausible(&self, patient: PatientId, device: &DeviceId) {
        self.show(Seen::Implausible { patient, device: device.clone() });
    }

    fn show(&self, seen: Seen) {
        // A gateway without a watch has no receiver; nothing is missed there.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.out.try_send(seen) {
            self.dropped.inc();
        }
    }
}
