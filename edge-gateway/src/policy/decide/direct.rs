//! Emergencies that were handed over here: in force before any header shows them, and kept until one does.

use std::sync::Arc;

use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Emergency, EmergencyAccess, Pseudonym, SignedEmergency, VerifiedPolicy};
use ledger_client::verify::{EmergencyRefusal, Pins, VerifiedBundle, emergency_numbers};
use tracing::{info, warn};

use super::{Changes, DIRECT_MAX, Decider, DecisionError, stamped};
use crate::keys::KeyStoreError;

impl Decider {
    /// They were verified when they came, and this file is nobody else's to write.
    pub(super) fn take_up_emergencies(&mut self, pins: &Pins) -> Result<(), KeyStoreError> {
        for signed in self.store.emergencies()? {
            let Emergency { pseudonym, domain, .. } = signed.emergency;
            if pins.pseudonyms.contains_key(&pseudonym) {
                self.direct.insert((pseudonym, domain), signed);
            } else {
                warn!("an emergency on its way to the ledger is not of a patient here any more");
            }
        }
        Ok(())
    }

    /// What was handed over here and no header has shown, as access.
    pub(super) fn direct_access(&self, pins: &Pins) -> Vec<EmergencyAccess> {
        let access = |signed: &SignedEmergency| {
            let patient = *pins.pseudonyms.get(&signed.emergency.pseudonym)?;
            Some(EmergencyAccess { patient, emergency: signed.emergency.clone(), is_direct: true })
        };
        self.direct.values().filter_map(access).collect()
    }

    /// Which of the emergencies that wait the ledger has.
    pub(super) fn shown_emergencies(
        &self,
        bundle: &VerifiedBundle,
        bytes: &[u8],
    ) -> Vec<(Pseudonym, RecipientId)> {
        let Some(pins) = self.pins.as_ref().filter(|_| !self.direct.is_empty()) else { return Vec::new() };
        let numbers = emergency_numbers(bytes, &bundle.header, pins, self.direct.keys().copied());
        let has = |key: &(Pseudonym, RecipientId), signed: &SignedEmergency| {
            numbers.get(key).is_some_and(|number| *number >= signed.emergency.number)
        };
        self.direct.iter().filter(|(key, signed)| has(key, signed)).map(|(key, _)| *key).collect()
    }

    /// As with a revocation, a disk that can't keep it is its sender's answer and no reason not to act.
    pub(super) fn emergency(
        &mut self,
        signed: &SignedEmergency,
        access: EmergencyAccess,
        now_s: u64,
    ) -> Result<(), DecisionError> {
        let Some(policy) = self.policy.clone() else { return Err(EmergencyRefusal::Stranger.into()) };
        let key = (signed.emergency.pseudonym, signed.emergency.domain);
        if self.pins.as_ref().is_some_and(|pins| !pins.pseudonyms.contains_key(&key.0)) {
            return Err(EmergencyRefusal::NotPinned.into());
        }
        let same = |known: &&EmergencyAccess| (known.emergency.pseudonym, known.emergency.domain) == key;
        let known = policy.emergencies().iter().find(same).map(|known| &known.emergency);
        if known == Some(&signed.emergency) {
            return Ok(());
        }
        if known.is_some_and(|known| known.number >= signed.emergency.number) {
            return Err(EmergencyRefusal::Number.into());
        }
        if self.direct.len() >= DIRECT_MAX && !self.direct.contains_key(&key) {
            return Err(DecisionError::TooMany);
        }
        let policy = VerifiedPolicy::clone(&policy).with_direct([access]);
        let (next, events) = self.happened(&policy, &self.floors, now_s);
        (self.policy, self.snapshot) = (Some(Arc::new(policy)), next);
        self.direct.insert(key, signed.clone());
        info!("an emergency that was handed over alone is in force");
        self.store.keep(&Changes {
            emergency: Some(signed),
            events: &stamped(events, now_s),
            ..Changes::default()
        })?;
        Ok(())
    }
}
