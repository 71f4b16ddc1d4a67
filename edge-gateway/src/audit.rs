//! The gateway's audit log: for whom keys were wrapped, what came into force and what was refused. It is what the trail on the patient's
//! page is made of, chained, and without labels; the file's format is `caregate_protocol::audit`.

mod displays;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use caregate_host::journal::Journal;
use caregate_protocol::audit::{Entry, What};
use caregate_protocol::wrap::Wrap;
use prometheus::{IntCounter, Registry};
use tracing::error;

use crate::policy::trail::Event;
pub use displays::Displays;

/// Bytes of the log before it is renamed, and of the one before that is kept: two weeks each of a patient with five busy classes.
pub const LOG_BYTES_MAX: u64 = 32 << 20;
/// Its name in the gateway's folder.
pub const LOG_NAME: &str = "journal.jsonl";

/// The log; cheap to clone. That something can't be noted is logged and counted, and holds up neither readings nor revocations; it shows
/// when the log is held against the core's.
#[derive(Debug, Clone)]
pub struct Audit {
    journal: Arc<Journal>,
    /// Wraps of the commit that is being made.
    wrapped: Arc<Mutex<Vec<What>>>,
    failures: IntCounter,
}

impl Audit {
    pub(crate) fn new(folder: &Path) -> Result<Self, prometheus::Error> {
        let failures = IntCounter::new(
            "caregate_gateway_journal_failures_total",
            "Times that something could not be written to the audit log",
        )?;
        let journal = Journal::at(&folder.join(LOG_NAME)).bounded(LOG_BYTES_MAX);
        Ok(Self { journal: Arc::new(journal), wrapped: Arc::default(), failures })
    }

    /// Publishes how often it failed.
    ///
    /// # Errors
    /// If it is registered already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.failures.clone()))
    }

    /// Keeps in mind that a key was wrapped, until [`Self::note_wraps`].
    pub(crate) fn wrapped(&self, wrap: &Wrap) {
        let mut pending = self.wrapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(What::Wrapped { patient, class, generation, epoch, depth, recipients }) =
            pending.last_mut()
            && (*patient, *class, *generation) == (wrap.patient, wrap.class, wrap.generation)
            && (*epoch, *depth) == (wrap.epoch, wrap.depth)
        {
            recipients.push(wrap.recipient);
            return;
        }
        pending.push(What::Wrapped {
            patient: wrap.patient,
            class: wrap.class,
            generation: wrap.generation,
            epoch: wrap.epoch,
            depth: wrap.depth,
            recipients: vec![wrap.recipient],
        });
    }

    /// Keeps in mind what a commit tells, until [`Self::note_wraps`].
    pub(crate) fn told(&self, what: What) {
        self.wrapped.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Notes the wraps of this commit, and the gaps that it tells; call before they leave the gateway. Blocks where there are any.
    pub(crate) fn note_wraps(&self, now_us: i64) {
        let wraps = std::mem::take(&mut *self.wrapped.lock().unwrap_or_else(PoisonError::into_inner));
        let at_ms = now_us.div_euclid(1000);
        self.append(&wraps.into_iter().map(|what| Entry { at_ms, what }).collect::<Vec<_>>());
    }

    /// Notes what the trail gets, with the time of each in Unix seconds. Blocks.
    pub(crate) fn note_events(&self, events: &[(u64, Event)]) {
        let at_ms = |time_s: u64| i64::try_from(time_s).unwrap_or(i64::MAX).saturating_mul(1000);
        let entries = events.iter().map(|(time_s, event)| Entry { at_ms: at_ms(*time_s), what: what(event) });
        self.append(&entries.collect::<Vec<_>>());
    }

    /// Who tells it of displays.
    #[must_use]
    pub fn displays(&self) -> Displays {
        Displays::of(self)
    }

    fn append(&self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        if let Err(failure) = self.journal.append(entries) {
            self.failures.inc();
            error!(%failure, "something could not be written to the audit log");
        }
    }
}

/// What the log says of an event of the trail: no label, which is the patient's own word for somebody.
fn what(event: &Event) -> What {
    match event {
        Event::EpochInForce { epoch, header, origin } => {
            What::PolicyInForce { epoch: *epoch, header: *header, origin: origin.as_str().into() }
        }
        Event::GrantBegan(access) => What::GrantBegan {
            patient: access.patient,
            recipient: access.recipient,
            version: access.version,
            until: access.until,
        },
        Event::GrantEnded { access, why } => What::GrantEnded {
            patient: access.patient,
            recipient: access.recipient,
            version: access.version,
            why: *why,
        },
        Event::Revoked { patient, version, by, .. } => {
            What::Revoked { patient: *patient, version: *version, by: by.as_str().into() }
        }
        Event::Anchored { patient, .. } => What::RevocationAnchored { patient: *patient },
        Event::EmergencyBegan(access) => What::EmergencyBegan {
            patient: access.patient,
            recipient: access.recipient,
            number: access.version,
            until: access.until,
        },
        Event::EmergencyEnded(access) => What::EmergencyEnded {
            patient: access.patient,
            recipient: access.recipient,
            number: access.version,
        },
        Event::Refused { reason, origin, times } => {
            What::PolicyRefused { reason: reason.clone(), origin: origin.as_str().into(), times: *times }
        }
        Event::Commanded { patient, domain, clinician, action, refused, .. } => What::Commanded {
            patient: *patient,
            recipient: *domain,
            clinician: clinician.clone(),
            action: action.clone(),
            refused: refused.clone(),
        },
        Event::RootShared { patient, threshold, shares } => {
            What::RootShared { patient: *patient, threshold: *threshold, shares: *shares }
        }
        Event::RootRestored { patient } => What::RootRestored { patient: *patient },
        Event::ErasureOrdered { patient } => What::ErasureOrdered { patient: *patient },
        Event::RootErased { patient } => What::RootErased { patient: *patient },
        Event::StalenessEntered { as_of } => What::PolicyStale { as_of: *as_of },
        Event::StalenessLeft => What::PolicyFresh,
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::audit::verify;
    use caregate_protocol::id::{DataClass, PatientId, RecipientId};
    use caregate_protocol::key::{PatientRoot, TREE_DEPTH};
    use caregate_protocol::wrap::{WrapScope, generate_keypair};
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::policy::trail::{Origin, RevokedBy};

    fn wrap(class: DataClass, epoch: u32, recipient: u8) -> Wrap {
        let root = PatientRoot::from_bytes([7; 32]).class_key(class, 0);
        let (patient, recipient) = (PatientId([1; 16]), RecipientId([recipient; 20]));
        let scope = WrapScope { class, patient, generation: 0, recipient };
        let leaf = root.descend(epoch, TREE_DEPTH).unwrap();
        let bytes = scope.seal(&leaf, &generate_keypair().1, &SigningKey::from_bytes(&[3; 32])).unwrap();
        Wrap::decode(&bytes).unwrap()
    }

    #[test]
    fn the_wraps_of_a_commit_are_one_entry_for_each_key_and_a_label_is_nobodys_business() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::new(dir.path()).unwrap();
        audit.note_wraps(1);
        assert!(!dir.path().join(LOG_NAME).exists(), "nothing is written for nothing");
        for recipient in [1, 2] {
            audit.wrapped(&wrap(DataClass::Vitals, 7, recipient));
        }
        audit.wrapped(&wrap(DataClass::Alarm, 7, 1));
        audit.note_wraps(2_000);
        let (patient, label) = (PatientId([1; 16]), "My cousin's clinic".to_owned());
        let revoked = Event::Revoked { patient, label, version: 3, by: RevokedBy::Button };
        let refused = Event::Refused { reason: "quorum".into(), origin: Origin::Door, times: 2 };
        audit.note_events(&[(5, revoked), (6, refused)]);
        let text = std::fs::read(dir.path().join(LOG_NAME)).unwrap();
        let log = verify::log(&text, &[]).unwrap();
        let whats: Vec<_> = log.lines.iter().map(|line| line.entry.what.clone()).collect();
        let wrapped = |class, recipients: &[u8]| What::Wrapped {
            patient,
            class,
            generation: 0,
            epoch: 7,
            depth: TREE_DEPTH,
            recipients: recipients.iter().map(|n| RecipientId([*n; 20])).collect(),
        };
        let expected = [
            wrapped(DataClass::Vitals, &[1, 2]),
            wrapped(DataClass::Alarm, &[1]),
            What::Revoked { patient, version: 3, by: "button".into() },
            What::PolicyRefused { reason: "quorum".into(), origin: "door".into(), times: 2 },
        ];
        assert_eq!(whats, expected);
        assert_eq!(log.lines[2].entry.at_ms, 5_000);
        assert!(!String::from_utf8(text).unwrap().contains("cousin"));
    }

    #[test]
    fn a_disk_that_takes_nothing_is_counted_and_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(LOG_NAME)).unwrap();
        let audit = Audit::new(dir.path()).unwrap();
        audit.note_events(&[(1, Event::StalenessLeft)]);
        assert_eq!(audit.failures.get(), 1);
    }
}
