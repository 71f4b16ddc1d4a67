//! A patient who was erased is nobody here any more, at once: not enrolled, of no policy, with nothing on its way to the ledger.

use std::sync::Arc;

use caregate_protocol::id::{DeviceId, PatientId};
use ledger_client::verify::Pins;

use super::{Changes, Decider};
use crate::keys::{KeyStore, KeyStoreError};

/// The pins without those of whom the key store knows that they were erased, where the enrolment could not be written.
pub(super) fn without_erased(pins: &Arc<Pins>, keys: &KeyStore) -> Arc<Pins> {
    let mut erased = pins.patients.keys().filter(|patient| keys.is_erased(**patient)).peekable();
    if erased.peek().is_none() {
        return Arc::clone(pins);
    }
    Arc::new(erased.fold(Pins::clone(pins), |pins, patient| pins.without(patient)))
}

impl Decider {
    /// A patient's devices, bound or not.
    #[must_use]
    pub fn devices_of(&self, patient: &PatientId) -> Vec<DeviceId> {
        let pinned = self.pins.iter().flat_map(|pins| pins.devices.values());
        pinned.filter(|pin| pin.patient == *patient).map(|pin| pin.device.clone()).collect()
    }

    /// Forgets a patient whose root was destroyed. It holds in memory whether or not what is on its way can be taken out of the store, where
    /// the next start finds that it is of nobody here. The bundle on disk stays until the next one: it has public values alone.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn erase(&mut self, patient: &PatientId) -> Result<(), KeyStoreError> {
        let Some(before) = self.pins.take() else { return Ok(()) };
        let pins = before.without(patient);
        let anchored: Vec<_> =
            self.anchors.keys().filter(|of| !pins.relationships.contains_key(of)).copied().collect();
        let shown: Vec<_> =
            self.direct.keys().filter(|(of, _)| !pins.pseudonyms.contains_key(of)).copied().collect();
        self.anchors.retain(|of, _| pins.relationships.contains_key(of));
        self.direct.retain(|(of, _), _| pins.pseudonyms.contains_key(of));
        self.shown.retain(|of, _| pins.relationships.contains_key(of));
        Arc::make_mut(&mut self.keys).retain(|of| pins.relationships.contains_key(of));
        self.policy = self.policy.take().map(|policy| Arc::new(policy.without(patient)));
        self.snapshot.forget(patient);
        // What is on disk says more than what is in force, so the next bundle is written.
        self.kept = None;
        self.pins = Some(Arc::new(pins));
        self.publish();
        if anchored.is_empty() && shown.is_empty() {
            return Ok(());
        }
        self.store.keep(&Changes { anchored: &anchored, shown: &shown, ..Changes::default() })
    }
}
