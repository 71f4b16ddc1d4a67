//! Which entries of the audit log are to be noted as read, and when: at once where somebody begins to read, and what they read on from there
//! in one entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Extent, is_recent};
use crate::journal::What;

/// What each user was noted to read, and what they read since that no entry has yet.
pub(super) type Readers = BTreeMap<Arc<str>, Reader>;

/// One user. All that they were shown since lies within what was noted or within the rest.
#[derive(Debug)]
pub(super) struct Reader {
    /// When they were first noted.
    since_ms: i64,
    noted: Extent,
    rest: Option<Span>,
}

/// Entries from the oldest to the newest, and why they were read, by the newest word on it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
    reason: Option<String>,
}

impl Span {
    fn and(self, other: Self) -> Self {
        let (first, last) = (self.first.min(other.first), self.last.max(other.last));
        Self { first, last, reason: other.reason.or(self.reason) }
    }
}

impl Reader {
    /// Adds what came since the entries that were noted; false where it was there and is none of them.
    fn goes_on(&mut self, asked: Extent, reason: Option<&str>) -> bool {
        let Extent { first, last, newest, .. } = self.noted;
        if (first..=last).contains(&asked.first) && asked.last <= last {
            return true;
        }
        let came_since = asked.first > newest || asked.first >= first && last == newest;
        if came_since {
            let first = asked.first.max(last.saturating_add(1));
            self.reads_on(Span { first, last: asked.last, reason: reason.map(str::to_owned) });
        }
        came_since
    }

    fn reads_on(&mut self, more: Span) {
        self.rest = Some(match self.rest.take() {
            Some(rest) => rest.and(more),
            None => more,
        });
    }
}

/// A reading that is to be noted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    user: Arc<str>,
    span: Span,
    /// Whether it was shown already.
    is_rest: bool,
}

impl Due {
    /// For the journal.
    pub(super) fn noted(&self) -> What {
        let Span { first, last, reason } = self.span.clone();
        What::LogRead { user: self.user.to_string(), first, last, reason }
    }

    fn rest(user: &Arc<str>, reader: &Reader) -> Option<Self> {
        let span = reader.rest.clone()?;
        Some(Self { user: Arc::clone(user), span, is_rest: true })
    }
}

/// Forgets what was noted a while ago; answers with the rests of it, which are to be noted now.
pub(super) fn settle(readers: &mut Readers, now_ms: i64) -> Vec<Due> {
    let mut rests = Vec::new();
    readers.retain(|user, reader| {
        let stays = is_recent(reader.since_ms, now_ms);
        if !stays {
            rests.extend(Due::rest(user, reader));
        }
        stays
    });
    rests
}

/// Forgets all; answers with the rests, which are to be noted now.
pub(super) fn settle_all(readers: &mut Readers) -> Vec<Due> {
    std::mem::take(readers).iter().filter_map(|(user, reader)| Due::rest(user, reader)).collect()
}

/// Takes back what could not be noted: a rest is due at once, and what was not shown for that is as if nobody had asked.
pub(super) fn failed(readers: &mut Readers, due: Vec<Due>) {
    for Due { user, span, is_rest } in due {
        let Span { first, last, .. } = span;
        let noted = Extent { first, last, oldest: first, newest: last };
        let reader = readers.entry(user).or_insert(Reader { since_ms: i64::MIN, noted, rest: None });
        reader.since_ms = i64::MIN;
        if is_rest {
            reader.reads_on(span);
        }
    }
    readers.retain(|_, reader| reader.since_ms != i64::MIN || reader.rest.is_some());
}

/// What is to be noted now that a user is about to be shown entries. The first reading is noted as it is, with all of its pages; one of
/// what was there then and is beyond it as a reading of all that is served; and what came since in one entry when its time is over. So
/// reading makes the log grow by three entries of each user in that time, however it is done.
pub(super) fn due(
    readers: &mut Readers,
    user: &Arc<str>,
    asked: Extent,
    reason: Option<String>,
    now_ms: i64,
    readers_max: usize,
) -> Vec<Due> {
    let mut due = settle(readers, now_ms);
    let noted = match readers.get_mut(user) {
        Some(reader) => {
            if reader.goes_on(asked, reason.as_deref()) {
                return due;
            }
            reader.noted = Extent { first: asked.oldest, last: asked.newest, ..asked };
            reader.noted
        }
        None => {
            if readers.len() >= readers_max {
                due.extend(settle_all(readers));
            }
            readers.insert(Arc::clone(user), Reader { since_ms: now_ms, noted: asked, rest: None });
            asked
        }
    };
    let span = Span { first: noted.first, last: noted.last, reason };
    due.push(Due { user: Arc::clone(user), span, is_rest: false });
    due
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{LOOK_AGAIN_MS, READERS_MAX};
    use super::*;

    const OLDEST: u64 = 5;

    fn of(first: u64, last: u64, newest: u64) -> Extent {
        Extent { first, last, oldest: OLDEST, newest }
    }

    fn spans(due: &[Due]) -> Vec<(u64, u64)> {
        due.iter().map(|due| (due.span.first, due.span.last)).collect()
    }

    #[test]
    fn who_reads_the_log_is_noted_at_once_and_then_as_far_as_they_read_on() {
        let mut readers = Readers::new();
        let (nurse, doctor): (Arc<str>, Arc<str>) = ("nurse".into(), "doctor".into());
        let mut due = |user: &Arc<str>, asked, now_ms| {
            spans(&due(&mut readers, user, asked, None, now_ms, READERS_MAX))
        };
        assert_eq!(due(&nurse, of(50, 60, 60), 0), [(50, 60)]);
        assert_eq!(due(&nurse, of(50, 60, 60), 1), [], "the next page");
        assert_eq!(due(&nurse, of(55, 70, 70), 1), [], "what came since waits");
        assert_eq!(due(&doctor, of(50, 60, 60), 1), [(50, 60)]);
        assert_eq!(due(&nurse, of(49, 60, 70), 2), [(5, 70)], "further back: all of it");
        for n in 5..200 {
            assert_eq!(due(&nurse, of(n, n, 200), 3), [], "one by one");
        }
        // What was there and not asked for is not what came since.
        let later = LOOK_AGAIN_MS + 1;
        assert_eq!(due(&doctor, of(20, 20, 60), later), [(61, 199), (20, 20)], "with the nurse's rest");
        assert_eq!(due(&doctor, of(21, 21, 60), later + 1), [(5, 60)]);
        assert_eq!(due(&nurse, of(100, 200, 200), later + 1), [(100, 200)]);
        assert_eq!(due(&nurse, of(201, 201, 201), later + 2), []);
        assert_eq!(spans(&settle(&mut readers, later + 2)), []);
        assert_eq!(spans(&settle(&mut readers, later + 1 + LOOK_AGAIN_MS)), [(201, 201)]);
        assert!(readers.is_empty(), "the doctor read on of nothing");
    }

    #[test]
    fn the_rest_says_the_newest_reason() {
        let (mut readers, nurse) = (Readers::new(), Arc::<str>::from("nurse"));
        let mut due = |n, reason: Option<&str>| {
            due(&mut readers, &nurse, of(n, n, n), reason.map(str::to_owned), 0, READERS_MAX)
        };
        let first = due(10, Some("complaint"));
        let read = |first, last, reason: Option<&str>| {
            let (user, reason) = ("nurse".to_owned(), reason.map(str::to_owned));
            What::LogRead { user, first, last, reason }
        };
        assert_eq!(first.iter().map(Due::noted).collect::<Vec<_>>(), [read(10, 10, Some("complaint"))]);
        for (n, reason) in [(11, None), (12, Some("audit")), (13, Some("review")), (14, None)] {
            assert_eq!(due(n, reason), []);
        }
        let rest: Vec<_> = settle_all(&mut readers).iter().map(Due::noted).collect();
        assert_eq!(rest, [read(11, 14, Some("review"))]);
    }

    #[test]
    fn users_are_bounded_and_none_is_forgotten_before_the_rest_is_noted() {
        let mut readers = Readers::new();
        let mut due = |n: usize, asked| due(&mut readers, &n.to_string().into(), asked, None, 0, 3);
        for n in 0..3 {
            assert_eq!(spans(&due(n, of(5, 5, 5))), [(5, 5)]);
        }
        assert_eq!(due(1, of(6, 6, 6)), []);
        assert_eq!(spans(&due(3, of(5, 6, 6))), [(6, 6), (5, 6)]);
        assert_eq!(readers.len(), 1);
    }

    /// What somebody asks for, what becomes of the entries that are due then, and how the log grows and time passes.
    #[derive(Debug, Clone)]
    struct Step {
        by_doctor: bool,
        back: u64,
        length: u64,
        fails: bool,
        grows: u64,
        pause_ms: i64,
    }

    prop_compose! {
        fn step()(
            by_doctor: bool, back in 0..12_u64, length in 0..12_u64, fails in prop::bool::weighted(0.2), grows in 0..4_u64,
            pause_ms in 0..LOOK_AGAIN_MS / 2,
        ) -> Step {
            Step { by_doctor, back, length, fails, grows, pause_ms }
        }
    }

    proptest! {
        /// Each entry that was shown lies within a reading of whom it was shown, and none waits for one any longer than may be, also where
        /// there is room for one user and where some appends fail.
        #[test]
        fn whatever_is_shown_of_the_log_is_in_a_reading(
            steps in prop::collection::vec(step(), 1..40), readers_max in 1..3_usize,
        ) {
            let (mut readers, mut now_ms, mut newest) = (Readers::new(), 0, OLDEST + 8);
            let (nurse, doctor): (Arc<str>, Arc<str>) = ("nurse".into(), "doctor".into());
            let (mut shown, mut noted) = (Vec::new(), Vec::new());
            for Step { by_doctor, back, length, fails, grows, pause_ms } in steps {
                let user = if by_doctor { &doctor } else { &nurse };
                let first = newest.saturating_sub(back).max(OLDEST);
                let last = newest.min(first + length);
                let due = due(&mut readers, user, of(first, last, newest), None, now_ms, readers_max);
                if fails && !due.is_empty() {
                    failed(&mut readers, due);
                } else {
                    noted.extend(due);
                    shown.push((now_ms, Arc::clone(user), first..=last));
                }
                prop_assert!(readers.len() <= readers_max);
                (newest, now_ms) = (newest + grows, now_ms + pause_ms);
                noted.extend(settle(&mut readers, now_ms));
                for (_, user, entries) in shown.iter().filter(|(at_ms, ..)| now_ms - at_ms >= LOOK_AGAIN_MS) {
                    prop_assert!(entries.clone().all(|n| is_noted(&noted, user, n)), "{:?} {:?}", entries, noted);
                }
            }
            noted.extend(settle_all(&mut readers));
            for (_, user, entries) in &shown {
                prop_assert!(entries.clone().all(|n| is_noted(&noted, user, n)), "{:?} {:?}", entries, noted);
            }
        }
    }

    fn is_noted(noted: &[Due], user: &Arc<str>, n: u64) -> bool {
        noted.iter().any(|due| due.user == *user && (due.span.first..=due.span.last).contains(&n))
    }
}
