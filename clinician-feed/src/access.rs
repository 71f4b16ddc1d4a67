//! What access to each patient's readings rests on: by the ledger a grant, an emergency, or nothing any more; and emergencies that gateways
//! have said are in force. Pure.
//!
//! It is said to people and decides nothing: what can be opened was decided at the gateway, by the keys that it wrapped. The
//! ledger names relationships and pseudonyms, segments name patients, and on purpose nothing links the two; so a bed says
//! which relationship its patient's is, and a patient without a bed is known by the time of its readings.

use std::collections::BTreeMap;

use caregate_protocol::policy::{Emergency, Pseudonym, RelationshipId};
use serde::Serialize;

/// The gateway's clock and the ledger's may differ by so many seconds: a reading that is this much younger than the end of a
/// grant can't have come by it.
const SKEW_S: u64 = 5;

/// One relationship, as the ledger has it for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consent {
    /// First second, Unix time, at which it holds.
    pub from: u64,
    /// First second at which it holds no more.
    pub until: u64,
    /// Of the newest grant.
    pub version: u64,
    /// Whether and why it was ended before its time.
    pub ended: Option<(u64, Why)>,
}

/// One emergency of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmergencyAccess {
    /// Whose.
    pub pseudonym: Pseudonym,
    /// First second, Unix time.
    pub from: u64,
    /// First second at which it holds no more.
    pub until: u64,
    /// Of this pseudonym.
    pub number: u64,
}

impl From<&Emergency> for EmergencyAccess {
    fn from(emergency: &Emergency) -> Self {
        let Emergency { pseudonym, from, until, number, .. } = *emergency;
        Self { pseudonym, from, until, number }
    }
}

/// Why access ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// By the patient.
    Revoked,
    /// The patient's newest grant is to somebody else.
    Replaced,
    /// Its time was over.
    Expired,
    /// The emergency's time was over.
    EmergencyOver,
    /// The governors have suspended this domain.
    Suspended,
}

/// What the ledger says about this domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The relationships that beds name, as far as they are on the ledger.
    pub consents: BTreeMap<RelationshipId, Consent>,
    /// The newest emergency of each pseudonym, on the ledger or straight at a gateway.
    pub emergencies: Vec<EmergencyAccess>,
    /// Since when we are suspended, if we are.
    pub suspended: Option<u64>,
    /// Whether we may break the glass.
    pub may_break_glass: bool,
}

/// What one patient's access rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "basis", rename_all = "snake_case")]
pub enum Basis {
    /// Not known: the bed names no relationship.
    Unknown,
    /// The relationship that the bed names was never granted.
    None,
    /// A grant that begins later.
    Pending {
        /// When.
        from: u64,
    },
    /// The patient's grant.
    Consent {
        /// First second, Unix time, at which it holds no more.
        until: u64,
    },
    /// Break-glass.
    Emergency {
        /// First second, Unix time, at which it holds no more.
        until: u64,
    },
    /// None any more.
    Ended {
        /// Since when.
        at: u64,
        /// Why.
        why: Why,
    },
}

/// Who is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A patient with a bed, and the relationship that it names.
    Bed(Option<&'a RelationshipId>),
    /// A patient whom no bed names.
    Stranger,
}

impl View {
    /// What access rests on at `now`. `last` is the time of the newest reading by the gateway's clock. All in seconds.
    #[must_use]
    pub fn basis(&self, subject: Subject<'_>, last: Option<u64>, now: u64) -> Basis {
        if let Some(at) = self.suspended {
            return Basis::Ended { at, why: Why::Suspended };
        }
        match subject {
            Subject::Bed(None) => Basis::Unknown,
            Subject::Bed(Some(relationship)) => self.of_relationship(relationship, last, now),
            Subject::Stranger => self.of_emergency(last, 0, now).unwrap_or(Basis::Unknown),
        }
    }

    /// With emergencies that gateways have said are in force: of each pseudonym the newest, as a gateway holds it.
    #[must_use]
    pub fn with(mut self, handed: &[EmergencyAccess]) -> Self {
        for emergency in handed {
            match self.emergencies.iter_mut().find(|known| known.pseudonym == emergency.pseudonym) {
                Some(known) if known.number < emergency.number => *known = *emergency,
                Some(_) => {}
                None => self.emergencies.push(*emergency),
            }
        }
        self
    }

    fn of_relationship(&self, relationship: &RelationshipId, last: Option<u64>, now: u64) -> Basis {
        let Some(consent) = self.consents.get(relationship) else {
            return self.of_emergency(last, 0, now).unwrap_or(Basis::None);
        };
        let ended = match consent.ended {
            Some(ended) => Some(ended),
            None if now >= consent.until => Some((consent.until, Why::Expired)),
            None => None,
        };
        match ended {
            Some((at, why)) => {
                self.of_emergency(last, at.saturating_add(SKEW_S), now).unwrap_or(Basis::Ended { at, why })
            }
            None if now < consent.from => Basis::Pending { from: consent.from },
            None => Basis::Consent { until: consent.until },
        }
    }

    /// The emergency by which a reading of `last` may have come. Of several the one that ends first: nobody is told of more
    /// time than there is.
    fn of_emergency(&self, last: Option<u64>, after: u64, now: u64) -> Option<Basis> {
        let last = last.filter(|last| *last >= after)?;
        let covers = |e: &&EmergencyAccess| {
            (e.from.saturating_sub(SKEW_S)..e.until.saturating_add(SKEW_S)).contains(&last)
        };
        let covering = || self.emergencies.iter().filter(covers).map(|emergency| emergency.until);
        match covering().filter(|until| *until > now).min() {
            Some(until) => Some(Basis::Emergency { until }),
            None => covering().max().map(|at| Basis::Ended { at, why: Why::EmergencyOver }),
        }
    }
}

/// What is new on the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A grant, the first or a new one.
    Granted {
        /// Which relationship.
        relationship: RelationshipId,
        /// Until when.
        until: u64,
    },
    /// A grant has ended before its time.
    Ended {
        /// Which relationship.
        relationship: RelationshipId,
        /// Why.
        why: Why,
    },
    /// An emergency of ours.
    Emergency(EmergencyAccess),
    /// We were suspended.
    Suspended,
    /// We are no longer.
    Reinstated,
}

/// What has changed from one view to the next.
#[must_use]
pub fn changes(before: &View, after: &View) -> Vec<Change> {
    let mut changes = Vec::new();
    for (relationship, consent) in &after.consents {
        let known = before.consents.get(relationship);
        let newer = known.is_none_or(|known| known.version < consent.version);
        if newer {
            changes.push(Change::Granted { relationship: *relationship, until: consent.until });
        }
        if let Some((_, why)) = consent.ended
            && (newer || known.is_some_and(|known| known.ended.is_none()))
        {
            changes.push(Change::Ended { relationship: *relationship, why });
        }
    }
    for emergency in &after.emergencies {
        let known = before.emergencies.iter().find(|known| known.pseudonym == emergency.pseudonym);
        if known.is_none_or(|known| known.number < emergency.number) {
            changes.push(Change::Emergency(*emergency));
        }
    }
    match (before.suspended, after.suspended) {
        (None, Some(_)) => changes.push(Change::Suspended),
        (Some(_), None) => changes.push(Change::Reinstated),
        (None, None) | (Some(_), Some(_)) => {}
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: RelationshipId = RelationshipId([7; 32]);
    const BED: Subject<'_> = Subject::Bed(Some(&R));

    fn granted(ended: Option<(u64, Why)>) -> View {
        let consent = Consent { from: 1_000, until: 5_000, version: 1, ended };
        View { consents: BTreeMap::from([(R, consent)]), ..View::default() }
    }

    fn emergency(pseudonym: u8, from: u64, until: u64) -> EmergencyAccess {
        EmergencyAccess { pseudonym: Pseudonym([pseudonym; 32]), from, until, number: 1 }
    }

    #[test]
    fn a_grant_holds_from_its_beginning_to_its_end() {
        let view = granted(None);
        let cases = [
            (999, Basis::Pending { from: 1_000 }),
            (1_000, Basis::Consent { until: 5_000 }),
            (4_999, Basis::Consent { until: 5_000 }),
            (5_000, Basis::Ended { at: 5_000, why: Why::Expired }),
        ];
        for (now, expected) in cases {
            assert_eq!(view.basis(BED, Some(now), now), expected, "at {now}");
        }
        assert_eq!(View::default().basis(BED, Some(3_000), 3_000), Basis::None);
        assert_eq!(view.basis(Subject::Bed(None), Some(3_000), 3_000), Basis::Unknown);
        assert_eq!(view.basis(Subject::Stranger, Some(3_000), 3_000), Basis::Unknown);
    }

    #[test]
    fn what_is_ended_says_when_and_by_whom() {
        for why in [Why::Revoked, Why::Replaced] {
            let view = granted(Some((2_000, why)));
            assert_eq!(view.basis(BED, Some(1_999), 3_000), Basis::Ended { at: 2_000, why });
        }
        let view = View { suspended: Some(2_500), ..granted(None) };
        let suspended = Basis::Ended { at: 2_500, why: Why::Suspended };
        for subject in [BED, Subject::Bed(None), Subject::Stranger] {
            assert_eq!(view.basis(subject, Some(3_000), 3_000), suspended);
        }
    }

    #[test]
    fn a_patient_without_a_bed_is_known_by_the_time_of_its_readings() {
        let view = View { emergencies: vec![emergency(1, 1_000, 2_800)], ..View::default() };
        let basis = |last, now| view.basis(Subject::Stranger, last, now);
        assert_eq!(basis(Some(1_500), 1_500), Basis::Emergency { until: 2_800 });
        assert_eq!(basis(Some(996), 1_000), Basis::Emergency { until: 2_800 }, "clocks differ");
        assert_eq!(basis(Some(900), 1_500), Basis::Unknown, "it came before");
        assert_eq!(basis(None, 1_500), Basis::Unknown);
        assert_eq!(basis(Some(2_799), 2_800), Basis::Ended { at: 2_800, why: Why::EmergencyOver });
        assert_eq!(basis(Some(9_000), 9_000), Basis::Unknown);
    }

    #[test]
    fn of_two_emergencies_the_shorter_time_is_told() {
        let view = View {
            emergencies: vec![emergency(1, 1_000, 9_000), emergency(2, 1_200, 3_000)],
            ..View::default()
        };
        assert_eq!(view.basis(Subject::Stranger, Some(1_300), 1_300), Basis::Emergency { until: 3_000 });
        assert_eq!(view.basis(Subject::Stranger, Some(1_100), 1_300), Basis::Emergency { until: 9_000 });
        assert_eq!(view.basis(Subject::Stranger, Some(2_000), 4_000), Basis::Emergency { until: 9_000 });
    }

    #[test]
    fn readings_after_a_revocation_come_by_the_emergency_and_those_before_do_not() {
        let revoked = granted(Some((2_000, Why::Revoked)));
        let view = View { emergencies: vec![emergency(1, 1_990, 3_000)], ..revoked };
        let ended = Basis::Ended { at: 2_000, why: Why::Revoked };
        assert_eq!(view.basis(BED, Some(2_000), 2_001), ended);
        assert_eq!(view.basis(BED, Some(2_006), 2_006), Basis::Emergency { until: 3_000 });
        assert_eq!(view.basis(BED, Some(2_999), 3_000), Basis::Ended { at: 3_000, why: Why::EmergencyOver });
        let consented = View { emergencies: view.emergencies.clone(), ..granted(None) };
        assert_eq!(
            consented.basis(BED, Some(2_006), 2_006),
            Basis::Consent { until: 5_000 },
            "consent first"
        );
        let never = View { emergencies: view.emergencies, ..View::default() };
        assert_eq!(never.basis(BED, Some(2_006), 2_006), Basis::Emergency { until: 3_000 });
    }

    #[test]
    fn an_emergency_straight_at_a_gateway_counts_before_the_ledger_has_it() {
        let emergencies = vec![emergency(1, 100, 200), emergency(2, 100, 900)];
        let ledger = View { emergencies, ..View::default() };
        let newer = EmergencyAccess { number: 500, ..emergency(1, 500, 800) };
        let view = ledger.with(&[emergency(1, 100, 200), newer, emergency(3, 450, 460)]);
        assert_eq!(view.emergencies, [newer, emergency(2, 100, 900), emergency(3, 450, 460)]);
        assert_eq!(view.basis(Subject::Stranger, Some(470), 480), Basis::Emergency { until: 900 });
        assert_eq!(view.basis(Subject::Stranger, Some(600), 610), Basis::Emergency { until: 800 });
        // The ledger has it by now, or a newer one.
        let newest = EmergencyAccess { number: 501, ..newer };
        for emergency in [newer, newest] {
            let ledger = View { emergencies: vec![emergency], ..View::default() };
            assert_eq!(ledger.clone().with(&[newer]), ledger);
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let (none, new, over) = (View::default(), granted(None), granted(Some((2_000, Why::Revoked))));
        let granted_now = Change::Granted { relationship: R, until: 5_000 };
        let revoked_now = Change::Ended { relationship: R, why: Why::Revoked };
        assert_eq!(changes(&none, &new), [granted_now]);
        assert_eq!(changes(&new, &new), []);
        assert_eq!(changes(&new, &over), [revoked_now]);
        assert_eq!(changes(&none, &over), [granted_now, revoked_now]);
        assert_eq!(changes(&over, &over), []);
        let mut again = granted(None);
        again.consents.insert(R, Consent { from: 1_000, until: 6_000, version: 2, ended: None });
        assert_eq!(changes(&over, &again), [Change::Granted { relationship: R, until: 6_000 }]);
        let first = View { emergencies: vec![emergency(1, 1, 2)], ..View::default() };
        let second = View {
            emergencies: vec![EmergencyAccess { number: 2, ..emergency(1, 5, 6) }],
            ..View::default()
        };
        assert_eq!(changes(&none, &first), [Change::Emergency(first.emergencies[0])]);
        assert_eq!(changes(&first, &second), [Change::Emergency(second.emergencies[0])]);
        assert_eq!(changes(&second, &first), []);
        let suspended = View { suspended: Some(3), ..View::default() };
        assert_eq!(changes(&none, &suspended), [Change::Suspended]);
        assert_eq!(changes(&suspended, &suspended), []);
        assert_eq!(changes(&suspended, &none), [Change::Reinstated]);
    }
}
