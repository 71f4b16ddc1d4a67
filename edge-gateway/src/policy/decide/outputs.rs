//! What others see of the decisions, from now on.

use std::sync::Arc;
use std::time::Instant;

use caregate_protocol::policy::delivery::Anchor;
use caregate_protocol::policy::{BoundDevice, Floors, SignedEmergency, VerifiedPolicy};
use ledger_client::verify::{NewestKeys, Pins};
use tokio::sync::watch;

use super::Decider;

/// What others see of the decisions.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// The policy in force; [`VerifiedPolicy::none`] before the first.
    pub policy: watch::Receiver<Arc<VerifiedPolicy>>,
    /// What a bundle is verified against.
    pub floors: watch::Receiver<Arc<Floors>>,
    /// What a header's time is held against ([`PolicyClock::reference`](crate::policy::clock::PolicyClock::reference)).
    pub reference: watch::Receiver<Option<(u64, Instant)>>,
    /// Revocations that the ledger has yet to get.
    pub anchors: watch::Receiver<Arc<Vec<Anchor>>>,
    /// Emergencies that the ledger has yet to get.
    pub emergencies: watch::Receiver<Arc<Vec<SignedEmergency>>>,
    /// Newest keys of relationships that have handed on.
    pub keys: watch::Receiver<Arc<NewestKeys>>,
    /// Bound devices; changes only when the set does.
    pub devices: watch::Receiver<Arc<Vec<BoundDevice>>>,
    /// Who and what is enrolled; changes when a patient is erased. None where the decider has no pins.
    pub pins: Option<watch::Receiver<Arc<Pins>>>,
}

/// The other ends.
#[derive(Debug)]
pub(super) struct Senders {
    policy: watch::Sender<Arc<VerifiedPolicy>>,
    floors: watch::Sender<Arc<Floors>>,
    reference: watch::Sender<Option<(u64, Instant)>>,
    anchors: watch::Sender<Arc<Vec<Anchor>>>,
    emergencies: watch::Sender<Arc<Vec<SignedEmergency>>>,
    keys: watch::Sender<Arc<NewestKeys>>,
    devices: watch::Sender<Arc<Vec<BoundDevice>>>,
    pins: Option<watch::Sender<Arc<Pins>>>,
}

impl Senders {
    pub(super) fn new(pins: Option<Arc<Pins>>, floors: Arc<Floors>) -> Self {
        Self {
            policy: watch::Sender::new(Arc::new(VerifiedPolicy::none())),
            floors: watch::Sender::new(floors),
            reference: watch::Sender::new(None),
            anchors: watch::Sender::new(Arc::default()),
            emergencies: watch::Sender::new(Arc::default()),
            keys: watch::Sender::new(Arc::default()),
            devices: watch::Sender::new(Arc::default()),
            pins: pins.map(watch::Sender::new),
        }
    }
}

impl Senders {
    pub(super) fn refer(&self, reference: Option<(u64, Instant)>) {
        self.reference.send_replace(reference);
    }
}

impl Decider {
    /// What others see.
    #[must_use]
    pub fn outputs(&self) -> Outputs {
        Outputs {
            policy: self.senders.policy.subscribe(),
            floors: self.senders.floors.subscribe(),
            reference: self.senders.reference.subscribe(),
            anchors: self.senders.anchors.subscribe(),
            emergencies: self.senders.emergencies.subscribe(),
            keys: self.senders.keys.subscribe(),
            devices: self.senders.devices.subscribe(),
            pins: self.senders.pins.as_ref().map(watch::Sender::subscribe),
        }
    }

    pub(super) fn publish(&self) {
        if let (Some(sender), Some(pins)) = (&self.senders.pins, &self.pins) {
            sender.send_if_modified(|known| {
                let changed = !Arc::ptr_eq(known, pins);
                if changed {
                    *known = Arc::clone(pins);
                }
                changed
            });
        }
        let policy = self.policy.clone().unwrap_or_else(|| Arc::new(VerifiedPolicy::none()));
        let devices: Vec<_> = policy.devices().cloned().collect();
        self.senders.devices.send_if_modified(|known| {
            let changed = **known != devices;
            if changed {
                *known = Arc::new(devices);
            }
            changed
        });
        let anchors: Vec<_> = self.anchors.values().cloned().collect();
        self.senders.anchors.send_if_modified(|known| {
            let changed = **known != anchors;
            if changed {
                *known = Arc::new(anchors);
            }
            changed
        });
        let emergencies: Vec<_> = self.direct.values().cloned().collect();
        self.senders.emergencies.send_if_modified(|known| {
            let changed = **known != emergencies;
            if changed {
                *known = Arc::new(emergencies);
            }
            changed
        });
        self.senders.keys.send_replace(Arc::clone(&self.keys));
        self.senders.floors.send_replace(Arc::clone(&self.floors));
        self.senders.policy.send_replace(policy);
    }
}
