//! Which of what programs read is to be noted, and when: at once where it begins, and what they read on from there in one entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use caregate_protocol::id::{DataClass, PatientId};

use super::is_recent;
use crate::journal::What;
use crate::look::{Look, Span};

/// By whom, at whom, at which class, and on which basis.
type Key = (Arc<str>, PatientId, DataClass, u8);

/// What was noted, and what was read since that no entry has yet.
pub(super) type Looks = BTreeMap<Key, Noted>;

/// One look that was noted. All that was read after it lies within it, within an entry before it, or within the rest.
#[derive(Debug)]
pub(super) struct Noted {
    /// When this user, patient and class were first noted.
    since_ms: i64,
    look: Look,
    rest: Option<Span>,
}

impl Noted {
    /// Adds what is read beyond the look; false where it begins before it, and so is a look of its own.
    fn goes_on(&mut self, span: Span) -> bool {
        let noted = self.look.span;
        if span.from_us < noted.from_us {
            return false;
        }
        if span.until_us > noted.until_us {
            let more = Span { from_us: span.from_us.max(noted.until_us), ..span };
            self.rest = Some(self.rest.map_or(more, |rest| rest.and(more)));
        }
        true
    }

    /// The look further back is what is noted now; the time of the rest goes on.
    fn begins_at(&mut self, look: Look) {
        self.rest = self.rest.filter(|rest| rest.until_us > look.span.until_us);
        self.look = look;
    }

    fn rest(&self, user: &Arc<str>) -> Option<Due> {
        self.rest.map(|span| Due { user: Arc::clone(user), look: Look { span, ..self.look } })
    }
}

/// A look that is to be noted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    user: Arc<str>,
    look: Look,
}

impl Due {
    /// For the journal.
    pub(super) fn noted(&self) -> What {
        self.look.noted(&self.user, Some(self.look.span.until_us))
    }

    fn key(&self) -> Key {
        key(&self.user, &self.look)
    }
}

fn key(user: &Arc<str>, look: &Look) -> Key {
    (Arc::clone(user), look.patient, look.class, look.basis as u8)
}

/// Forgets what was noted a while ago; answers with the rests of it, which are to be noted now.
pub(super) fn settle(looks: &mut Looks, now_ms: i64) -> Vec<Due> {
    let mut rests = Vec::new();
    looks.retain(|(user, ..), noted| {
        let stays = is_recent(noted.since_ms, now_ms);
        if !stays {
            rests.extend(noted.rest(user));
        }
        stays
    });
    rests
}

/// Forgets all; answers with the rests, which are to be noted now.
pub(super) fn settle_all(looks: &mut Looks) -> Vec<Due> {
    std::mem::take(looks).iter().filter_map(|((user, ..), noted)| noted.rest(user)).collect()
}

/// Takes back what could not be noted: it is due at once, with what was read on. What there is no room for is lost.
pub(super) fn failed(looks: &mut Looks, due: Vec<Due>, looks_max: usize) {
    for due in due {
        let key = due.key();
        let rest = match looks.remove(&key) {
            Some(known) => known.rest.map_or(due.look.span, |rest| rest.and(due.look.span)),
            None if looks.len() >= looks_max => continue,
            None => due.look.span,
        };
        looks.insert(key, Noted { since_ms: i64::MIN, look: due.look, rest: Some(rest) });
    }
}

/// What is to be noted now that a user's program is about to be given these.
pub(super) fn due(
    looks: &mut Looks,
    user: &Arc<str>,
    given: Vec<Look>,
    now_ms: i64,
    looks_max: usize,
) -> Vec<Due> {
    let mut due = settle(looks, now_ms);
    for look in given {
        let key = key(user, &look);
        if let Some(noted) = looks.get_mut(&key) {
            if noted.goes_on(look.span) {
                continue;
            }
            noted.begins_at(look);
        } else {
            if looks.len() >= looks_max {
                due.extend(settle_all(looks));
            }
            looks.insert(key, Noted { since_ms: now_ms, look, rest: None });
        }
        due.push(Due { user: Arc::clone(user), look });
    }
    due
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{LOOK_AGAIN_MS, LOOKS_MAX};
    use super::*;
    use crate::journal::AccessBasis;

    fn look(patient: u8, from_us: i64, until_us: i64) -> Look {
        let (patient, class) = (PatientId([patient; 16]), DataClass::Vitals);
        Look { patient, class, span: Span { from_us, until_us }, basis: AccessBasis::Consent }
    }

    fn by_nurse(looks: &[Look]) -> Vec<Due> {
        looks.iter().map(|look| Due { user: "nurse".into(), look: *look }).collect()
    }

    fn due(looks: &mut Looks, user: &Arc<str>, given: Vec<Look>, now_ms: i64) -> Vec<Due> {
        super::due(looks, user, given, now_ms, LOOKS_MAX)
    }

    #[test]
    fn a_program_that_polls_is_noted_once_in_a_while_for_each_patient_and_class() {
        let mut looks = Looks::new();
        let (nurse, doctor): (Arc<str>, Arc<str>) = ("nurse".into(), "doctor".into());
        let both = || vec![look(1, 10, 15), look(2, 10, 15)];
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 10, 15)], 0), by_nurse(&[look(1, 10, 15)]));
        assert_eq!(due(&mut looks, &nurse, both(), 1), by_nurse(&[look(2, 10, 15)]));
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 11, 15)], 2), [], "that was noted");
        let back = vec![look(1, 9, 14)];
        assert_eq!(due(&mut looks, &nurse, back, 2), by_nurse(&[look(1, 9, 14)]), "who looks further back");
        let alarms = Look { class: DataClass::Alarm, ..look(1, 10, 15) };
        assert_eq!(due(&mut looks, &nurse, vec![alarms], 2), by_nurse(&[alarms]));
        assert_eq!(due(&mut looks, &doctor, both(), 2).len(), 2);
        // The first one's time is over, and the second's is not.
        assert_eq!(due(&mut looks, &nurse, both(), LOOK_AGAIN_MS), by_nurse(&[look(1, 10, 15)]));
    }

    #[test]
    fn what_is_read_on_is_noted_when_the_time_of_the_look_is_over() {
        let mut looks = Looks::new();
        let nurse: Arc<str> = "nurse".into();
        due(&mut looks, &nurse, vec![look(1, 10, 15), look(2, 10, 15)], 0);
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 12, 20)], 1), []);
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 30, 40)], 2), []);
        // A look further back puts nothing off.
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 5, 18)], LOOK_AGAIN_MS - 1).len(), 1);
        assert_eq!(settle(&mut looks, LOOK_AGAIN_MS - 1), []);
        assert_eq!(settle(&mut looks, LOOK_AGAIN_MS), by_nurse(&[look(1, 15, 40)]));
        assert!(looks.is_empty(), "nobody read on of the other");
        let again = due(&mut looks, &nurse, vec![look(1, 30, 40)], LOOK_AGAIN_MS);
        assert_eq!(again, by_nurse(&[look(1, 30, 40)]), "and it begins anew");
        due(&mut looks, &nurse, vec![look(1, 30, 50)], LOOK_AGAIN_MS + 1);
        // Without a look at the time between, before the next entry.
        let next = due(&mut looks, &nurse, vec![look(1, 45, 60)], 2 * LOOK_AGAIN_MS);
        assert_eq!(next, by_nurse(&[look(1, 40, 50), look(1, 45, 60)]));
        due(&mut looks, &nurse, vec![look(1, 60, 70)], 2 * LOOK_AGAIN_MS);
        assert_eq!(settle(&mut looks, 0), by_nurse(&[look(1, 60, 70)]), "a clock that is set back");
    }

    #[test]
    fn another_basis_is_noted_at_once_and_each_rest_has_its_own() {
        let mut looks = Looks::new();
        let nurse: Arc<str> = "nurse".into();
        let broken = |from_us, until_us| Look { basis: AccessBasis::Emergency, ..look(1, from_us, until_us) };
        due(&mut looks, &nurse, vec![look(1, 10, 15)], 0);
        due(&mut looks, &nurse, vec![look(1, 10, 20)], 1);
        assert_eq!(due(&mut looks, &nurse, vec![broken(10, 25)], 2), by_nurse(&[broken(10, 25)]));
        assert_eq!(due(&mut looks, &nurse, vec![broken(20, 30)], 3), []);
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 20, 35)], 4), []);
        assert_eq!(settle_all(&mut looks), by_nurse(&[look(1, 15, 35), broken(25, 30)]));
    }

    #[test]
    fn what_is_forgotten_for_want_of_room_is_noted_first() {
        let mut looks = Looks::new();
        let nurse: Arc<str> = "nurse".into();
        let nth = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            Look { patient: PatientId(id), ..look(0, 10, 15) }
        };
        for n in 0..LOOKS_MAX {
            assert_eq!(due(&mut looks, &nurse, vec![nth(n)], 0).len(), 1);
        }
        let more = Look { span: Span { from_us: 15, until_us: 20 }, ..nth(7) };
        assert_eq!(due(&mut looks, &nurse, vec![more], 1), []);
        assert_eq!(due(&mut looks, &nurse, vec![nth(LOOKS_MAX)], 2), by_nurse(&[more, nth(LOOKS_MAX)]));
        assert_eq!(looks.len(), 1);
    }

    #[test]
    fn what_could_not_be_noted_is_due_at_once_with_what_was_read_on() {
        let mut looks = Looks::new();
        let nurse: Arc<str> = "nurse".into();
        let first = due(&mut looks, &nurse, vec![look(1, 10, 15), look(2, 10, 15)], 0);
        // Somebody reads on before the append fails.
        assert_eq!(due(&mut looks, &nurse, vec![look(1, 12, 20)], 1), []);
        failed(&mut looks, first, LOOKS_MAX);
        let again = due(&mut looks, &nurse, vec![look(1, 20, 25)], 2);
        assert_eq!(again, by_nurse(&[look(1, 10, 20), look(2, 10, 15), look(1, 20, 25)]));
        failed(&mut looks, again, LOOKS_MAX);
        assert_eq!(settle(&mut looks, 3), by_nurse(&[look(1, 10, 25), look(2, 10, 15)]));
        assert!(looks.is_empty());
        failed(&mut looks, by_nurse(&[look(1, 1, 2), look(2, 1, 2), look(1, 3, 4)]), 1);
        assert_eq!(settle(&mut looks, 4), by_nurse(&[look(1, 1, 4)]), "as far as there is room");
    }

    /// What a program does, what becomes of the entries that are due then, and how long it waits.
    #[derive(Debug, Clone)]
    struct Step {
        by_doctor: bool,
        look: Look,
        fails: bool,
        pause_ms: i64,
    }

    prop_compose! {
        fn step()(
            by_doctor: bool, broken: bool, patient in 1..4_u8, from_us in 0..40_i64, length in 0..10_i64,
            fails in prop::bool::weighted(0.2), pause_ms in 0..LOOK_AGAIN_MS / 2,
        ) -> Step {
            let basis = if broken { AccessBasis::Emergency } else { AccessBasis::Consent };
            Step { by_doctor, look: Look { basis, ..look(patient, from_us, from_us + length) }, fails, pause_ms }
        }
    }

    /// More than can be owed here at once: two users, three patients, two bases.
    const OWED_MAX: usize = 12;

    proptest! {
        /// Each reading that was read lies within an entry of its reader and with its basis, and none waits for one any longer
        /// than may be, also where there is room for few and where some appends fail.
        #[test]
        fn whatever_is_read_is_in_an_entry(
            steps in prop::collection::vec(step(), 1..40), looks_max in 1..OWED_MAX,
        ) {
            let (mut looks, mut now_ms) = (Looks::new(), 0);
            let (nurse, doctor): (Arc<str>, Arc<str>) = ("nurse".into(), "doctor".into());
            let (mut read, mut entries) = (Vec::new(), Vec::new());
            for Step { by_doctor, look, fails, pause_ms } in steps {
                let user = if by_doctor { &doctor } else { &nurse };
                let due = super::due(&mut looks, user, vec![look], now_ms, looks_max);
                if fails { failed(&mut looks, due, OWED_MAX) } else { entries.extend(due) }
                read.push((now_ms, Due { user: Arc::clone(user), look }));
                now_ms += pause_ms;
                entries.extend(settle(&mut looks, now_ms));
                for (_, read) in read.iter().filter(|(at_ms, _)| now_ms - at_ms >= LOOK_AGAIN_MS) {
                    prop_assert!(is_within(read, &entries), "{:?} {:?}", read, entries);
                }
            }
            entries.extend(settle_all(&mut looks));
            for (_, read) in &read {
                prop_assert!(is_within(read, &entries), "{:?} {:?}", read, entries);
            }
        }
    }

    fn is_within(read: &Due, entries: &[Due]) -> bool {
        let has = |at_us: i64| {
            let of_it = |entry: &&Due| entry.key() == read.key();
            entries.iter().filter(of_it).any(|entry| {
                let Span { from_us, until_us } = entry.look.span;
                (from_us..=until_us).contains(&at_us)
            })
        };
        (read.look.span.from_us..=read.look.span.until_us).all(has)
    }
}
