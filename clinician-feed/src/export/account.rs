//! What an export says of itself in the audit log: what it received, and whose readings of which class and time it wrote out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::sync::Arc;
use std::time::Instant;

use caregate_protocol::audit::Tally;
use caregate_protocol::id::{DataClass, PatientId, RecipientId};

use crate::journal::{AccessBasis, Entry, Journal, JournalError};
use crate::look::{Look, Span, Spans};
use crate::receipts::{self, NOTE_INTERVAL};

/// Keeps account of one export. An entry is on disk before the first readings of a patient's class, and what was received each minute.
pub struct Account<B> {
    journal: Arc<Journal>,
    recipient: RecipientId,
    uid: u32,
    /// What access to a patient's readings rests on, the newest of them of this time.
    basis: B,
    received: Tally,
    /// When that is to be noted.
    due: Instant,
    /// By patient, class and basis.
    written: BTreeMap<(PatientId, DataClass, u8), Look>,
}

impl<B: Fn(PatientId, i64) -> AccessBasis> Account<B> {
    /// Of an export for this recipient by this account, which begins now.
    pub fn new(journal: Arc<Journal>, recipient: RecipientId, uid: u32, basis: B, now: Instant) -> Self {
        let (received, written) = (Tally::default(), BTreeMap::new());
        Self { journal, recipient, uid, basis, received, due: now + NOTE_INTERVAL, written }
    }

    /// Counts a record in, and notes what was received where a minute is over.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn receive(&mut self, record: &[u8], at_ms: i64, now: Instant) -> Result<(), JournalError> {
        // That it has grown is no matter: it is noted by time, as the core does at the latest.
        self.received.add(record);
        if now < self.due {
            return Ok(());
        }
        self.due = now + NOTE_INTERVAL;
        self.journal.append(&receipts::of_export(self.recipient, &mut self.received, at_ms))
    }

    /// Notes that readings are about to be written out, where that has not begun.
    ///
    /// # Errors
    /// [`JournalError`]: then they are not to be.
    pub fn write(&mut self, spans: Spans, at_ms: i64) -> Result<(), JournalError> {
        let mut begun = Vec::new();
        for ((patient, class), span) in spans {
            let basis = (self.basis)(patient, span.until_us);
            match self.written.entry((patient, class, basis as u8)) {
                Place::Occupied(mut known) => {
                    let known: &mut Span = &mut known.get_mut().span;
                    *known = known.and(span);
                }
                Place::Vacant(place) => {
                    let look = place.insert(Look { patient, class, span, basis });
                    begun.push(Entry { at_ms, what: look.exported(self.uid, None) });
                }
            }
        }
        if begun.is_empty() { Ok(()) } else { self.journal.append(&begun) }
    }

    /// Notes what was received, and from when to when what was written out is.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn close(&mut self, at_ms: i64) -> Result<(), JournalError> {
        let mut entries = receipts::of_export(self.recipient, &mut self.received, at_ms);
        let ended = |look: &Look| look.exported(self.uid, Some(look.span.until_us));
        entries.extend(self.written.values().map(|look| Entry { at_ms, what: ended(look) }));
        self.journal.append(&entries)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use caregate_host::clock;

    use super::*;
    use crate::journal::What;
    use crate::opener::tests::segment_of as segment;

    pub(in crate::export) const PATIENT: PatientId = PatientId([1; 16]);
    pub(in crate::export) const UID: u32 = 1000;

    /// One for which access rests on an emergency from the time 100 on.
    pub(in crate::export) fn account(path: &Path) -> Account<impl Fn(PatientId, i64) -> AccessBasis> {
        let basis = |_, until_us| if until_us < 100 { AccessBasis::Consent } else { AccessBasis::Emergency };
        let journal = Arc::new(Journal::open(path).unwrap().0);
        Account::new(journal, RecipientId([5; 20]), UID, basis, clock::monotonic())
    }

    pub(in crate::export) fn noted(path: &Path) -> Vec<What> {
        Journal::open(path).unwrap().1.into_iter().map(|entry| entry.what).collect()
    }

    #[test]
    fn whose_readings_of_which_time_are_written_out_and_why_is_noted_before_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut account = account(&path);
        let spans = |class, from_us, until_us| Spans::from([((PATIENT, class), Span { from_us, until_us })]);
        let exported = |class, basis, from_us, until_us| What::Exported {
            uid: UID,
            patient: PATIENT,
            class,
            from_us,
            until_us,
            basis,
        };
        let (consent, emergency) = (AccessBasis::Consent, AccessBasis::Emergency);
        account.write(spans(DataClass::Vitals, 10, 20), 1).unwrap();
        let mut expected = vec![exported(DataClass::Vitals, consent, 10, None)];
        assert_eq!(noted(&path), expected);
        account.write(spans(DataClass::Vitals, 5, 15), 2).unwrap();
        account.write(spans(DataClass::Vitals, 20, 30), 3).unwrap();
        assert_eq!(noted(&path), expected, "it goes on");
        account.write(spans(DataClass::Vitals, 90, 110), 4).unwrap();
        account.write(spans(DataClass::Alarm, 7, 7), 5).unwrap();
        expected.push(exported(DataClass::Vitals, emergency, 90, None));
        expected.push(exported(DataClass::Alarm, consent, 7, None));
        assert_eq!(noted(&path), expected, "another basis, another class");
        account.close(6).unwrap();
        expected.extend([
            exported(DataClass::Alarm, consent, 7, Some(7)),
            exported(DataClass::Vitals, consent, 5, Some(30)),
            exported(DataClass::Vitals, emergency, 90, Some(110)),
        ]);
        assert_eq!(noted(&path), expected);
    }

    #[test]
    fn what_is_received_is_noted_each_minute_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut account = account(&path);
        let begin = account.due - NOTE_INTERVAL;
        account.receive(&segment(0), 1, begin).unwrap();
        account.receive(&segment(1), 2, begin + NOTE_INTERVAL / 2).unwrap();
        assert_eq!(noted(&path), []);
        account.receive(&segment(2), 3, begin + NOTE_INTERVAL).unwrap();
        account.receive(&segment(3), 4, begin + NOTE_INTERVAL).unwrap();
        let runs = || {
            let runs = |what: What| {
                let What::Received { delivered, .. } = what else { panic!("{what:?}") };
                delivered.segments.iter().map(|run| (run.0, run.1)).collect::<Vec<_>>()
            };
            noted(&path).into_iter().map(runs).collect::<Vec<_>>()
        };
        assert_eq!(runs(), [[(0, 2)]]);
        account.close(5).unwrap();
        assert_eq!(runs(), [[(0, 2)], [(3, 3)]]);
    }
}
