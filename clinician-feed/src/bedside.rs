//! What gateways' watches say: each patient's newest standing, and whether the gateway that signed it is heard.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use caregate_protocol::alarm::Standing;
use caregate_protocol::beat::{Beat, BeatError, PolicyState};
use caregate_protocol::id::{PatientId, SignerId};
use caregate_protocol::segment::signer_id;
use ed25519_dalek::VerifyingKey;
use tokio::sync::watch;

use crate::contact::Contact;
use crate::opener::Opened;

/// What is known of one patient.
#[derive(Debug, Clone)]
struct Known {
    /// Who signed the newest segment, and when it was sealed.
    signer: (i64, SignerId),
    /// With its segment's sequence, which orders them: a gateway's clock may go back.
    standing: Option<(u64, Arc<Standing>)>,
    /// The same, of a segment that is not durable at the core.
    provisional: Option<(u64, Arc<Standing>)>,
}

impl Known {
    /// What is provisional and newer.
    fn provisional(&self) -> Option<&Arc<Standing>> {
        let durable = self.standing.as_ref().map(|(sequence, _)| *sequence);
        let newer =
            self.provisional.as_ref().filter(|(sequence, _)| durable.is_none_or(|known| known < *sequence));
        newer.map(|(_, standing)| standing)
    }
}

/// What a patient's gateway says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// A heartbeat came a moment ago.
    pub heard: bool,
    /// By its newest heartbeat; none before the first.
    pub policy: Option<PolicyState>,
}

#[derive(Debug, Default)]
struct Inner {
    gateways: HashMap<SignerId, (VerifyingKey, Contact)>,
    patients: BTreeMap<PatientId, Known>,
}

/// All patients', for all readers.
#[derive(Debug, Default)]
pub struct Bedside {
    inner: RwLock<Inner>,
    changed: watch::Sender<u64>,
}

impl Bedside {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gateways whose heartbeats count.
    pub fn know(&self, keys: impl IntoIterator<Item = VerifyingKey>) {
        let gateways = keys.into_iter().map(|key| (signer_id(&key), (key, Contact::default())));
        self.write().gateways.extend(gateways);
    }

    /// Takes what a segment says, where nothing newer is known.
    pub fn opened(&self, segment: &Opened) {
        let mut inner = self.write();
        let signer = (segment.sealed_us, segment.signer);
        let known = inner.patients.entry(segment.patient).or_insert(Known {
            signer,
            standing: None,
            provisional: None,
        });
        if signer.0 >= known.signer.0 {
            known.signer = signer;
        }
        let mut is_news = false;
        for standing in &segment.standings {
            if known.standing.as_ref().is_none_or(|(sequence, _)| *sequence < segment.sequence) {
                known.standing = Some((segment.sequence, Arc::new(standing.clone())));
                is_news = true;
            }
        }
        drop(inner);
        if is_news {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// Takes what a segment says that is not durable at the core, of a patient who is known, where nothing newer is known.
    pub fn provisional(&self, segment: &Opened) {
        let Some(standing) = segment.standings.last() else { return };
        let mut inner = self.write();
        let Some(known) = inner.patients.get_mut(&segment.patient) else { return };
        if known.provisional.as_ref().is_none_or(|(sequence, _)| *sequence < segment.sequence) {
            known.provisional = Some((segment.sequence, Arc::new(standing.clone())));
            drop(inner);
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// What was provisional never was.
    pub fn withdraw(&self) {
        self.write().patients.values_mut().for_each(|known| known.provisional = None);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Drops what is known of a patient.
    pub fn forget(&self, patient: PatientId) {
        self.write().patients.remove(&patient);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Takes a heartbeat from a core that may be anybody. Returns whether it counts: of other hospitals' gateways there are many.
    pub fn beat(&self, bytes: &[u8], now: Instant) -> bool {
        self.try_beat(bytes, now).unwrap_or(false)
    }

    fn try_beat(&self, bytes: &[u8], now: Instant) -> Result<bool, BeatError> {
        let beat = Beat::decode(bytes)?;
        let key = self.read().gateways.get(&beat.signer).map(|(key, _)| *key);
        beat.verify(&key.ok_or(BeatError::Signer)?)?;
        let mut inner = self.write();
        let contact = inner.gateways.get_mut(&beat.signer).map(|(_, contact)| contact);
        Ok(contact.is_some_and(|contact| contact.take(&beat, now)))
    }

    /// Each patient's newest standing, and whether it is provisional.
    #[must_use]
    pub fn standings(&self) -> BTreeMap<PatientId, (Arc<Standing>, bool)> {
        let known = &self.read().patients;
        let standing = |known: &Known| {
            let durable = || known.standing.as_ref().map(|(_, standing)| (Arc::clone(standing), false));
            known.provisional().map(|standing| (Arc::clone(standing), true)).or_else(durable)
        };
        known.iter().filter_map(|(patient, known)| Some((*patient, standing(known)?))).collect()
    }

    /// One patient's newest standing.
    #[must_use]
    pub fn standing(&self, patient: &PatientId) -> Option<Arc<Standing>> {
        self.read().patients.get(patient)?.standing.as_ref().map(|(_, standing)| Arc::clone(standing))
    }

    /// Whether each patient's gateway is heard, and what it said of its policy last.
    #[must_use]
    pub fn contacts(&self, now: Instant) -> BTreeMap<PatientId, Told> {
        let inner = self.read();
        let told = |known: &Known| {
            let contact =
                inner.gateways.get(&known.signer.1).map(|(_, contact)| *contact).unwrap_or_default();
            Told { heard: contact.is_heard(now), policy: contact.policy() }
        };
        inner.patients.iter().map(|(patient, known)| (*patient, told(known))).collect()
    }

    /// How the policy stood by which a patient's gateway seals, when that was heard last.
    #[must_use]
    pub fn policy(&self, patient: &PatientId) -> Option<PolicyState> {
        let inner = self.read();
        let contact = inner.patients.get(patient).and_then(|known| inner.gateways.get(&known.signer.1));
        contact.and_then(|(_, contact)| contact.policy())
    }

    /// The key of the gateway that watches a patient.
    #[must_use]
    pub fn gateway(&self, patient: &PatientId) -> Option<VerifyingKey> {
        let inner = self.read();
        let signer = inner.patients.get(patient)?.signer.1;
        inner.gateways.get(&signer).map(|(key, _)| *key)
    }

    /// Raised with each new standing.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
