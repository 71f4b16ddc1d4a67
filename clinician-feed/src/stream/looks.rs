//! What of a stream's looks is noted: each where it begins, and where it ends or access rests on something else from there on.

use std::collections::BTreeMap;

use caregate_protocol::id::{DataClass, PatientId};

use crate::journal::What;
use crate::look::{Look, Span};

/// At whom, at which class, and on which basis.
type Key = (PatientId, DataClass, u8);

#[derive(Debug)]
struct Shown {
    look: Look,
    /// What was noted when it ended. It may go on after that, as where old readings come between new ones: then it ends once more.
    ended: Option<Span>,
}

/// What one reader was sent.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<Key, Shown>);

impl Looks {
    /// What is to be noted before these are sent.
    pub(super) fn begin(&mut self, user: &str, sent: Vec<Look>) -> Vec<What> {
        let mut due = Vec::new();
        for look in sent {
            let key = (look.patient, look.class, look.basis as u8);
            if let Some(shown) = self.0.get_mut(&key) {
                shown.look.span = shown.look.span.and(look.span);
                continue;
            }
            let others = self.0.values_mut();
            due.extend(ends(user, others.filter(|other| is_of_the_same(&other.look, &look))));
            due.push(look.noted(user, None));
            self.0.insert(key, Shown { look, ended: None });
        }
        due
    }

    /// What is to be noted at the stream's end.
    pub(super) fn end(&mut self, user: &str) -> Vec<What> {
        ends(user, self.0.values_mut())
    }
}

fn is_of_the_same(one: &Look, other: &Look) -> bool {
    (one.patient, one.class) == (other.patient, other.class)
}

/// The ends of those that go on.
fn ends<'a>(user: &str, shown: impl Iterator<Item = &'a mut Shown>) -> Vec<What> {
    let going_on = shown.filter(|shown| shown.ended != Some(shown.look.span));
    going_on
        .map(|shown| {
            shown.ended = Some(shown.look.span);
            shown.look.ended(user)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::AccessBasis;

    fn look(basis: AccessBasis, from_us: i64, until_us: i64) -> Look {
        let (patient, class) = (PatientId([1; 16]), DataClass::Vitals);
        Look { patient, class, span: Span { from_us, until_us }, basis }
    }

    #[test]
    fn another_basis_ends_a_look_and_begins_one() {
        let mut looks = Looks::default();
        let consent = |from_us, until_us| look(AccessBasis::Consent, from_us, until_us);
        let broken = |from_us, until_us| look(AccessBasis::Emergency, from_us, until_us);
        let begun = |look: Look| look.noted("nurse", None);
        let ended = |look: Look| look.ended("nurse");
        let alarms = Look { class: DataClass::Alarm, ..consent(10, 10) };
        let first = looks.begin("nurse", vec![consent(10, 15), alarms]);
        assert_eq!(first, [begun(consent(10, 15)), begun(alarms)]);
        assert_eq!(looks.begin("nurse", vec![consent(16, 20)]), []);
        let changed = looks.begin("nurse", vec![broken(21, 22)]);
        assert_eq!(changed, [ended(consent(10, 20)), begun(broken(21, 22))]);
        // Old readings and new ones in turns add no entry each.
        for at_us in 23..40 {
            assert_eq!(looks.begin("nurse", vec![broken(at_us, at_us)]), []);
            assert_eq!(looks.begin("nurse", vec![consent(9, 9)]), []);
        }
        let all = looks.end("nurse");
        assert_eq!(all.len(), 3);
        for end in [consent(9, 20), broken(21, 39), alarms].map(ended) {
            assert!(all.contains(&end), "{end:?}");
        }
        assert_eq!(looks.end("nurse"), []);
    }
}
