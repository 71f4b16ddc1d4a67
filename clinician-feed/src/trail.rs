//! What the page shows of the journal and of the ledger: who looked, and what changed. In memory, the newest lines.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caregate_protocol::id::PatientId;
use caregate_protocol::policy::{Pseudonym, RelationshipId};
use serde::Serialize;
use tokio::sync::watch;

use crate::access::{Change, Why};
use crate::journal::{Entry, What};
use crate::message::Bed;

/// Lines kept: some days of a ward's changes. The journal has the rest.
pub const LINES_MAX: usize = 200;

/// One line of the page's list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number, growing by one.
    pub id: u64,
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// What happened: `login`, `look`, `export`, `log_read`, `emergency`, `emergency_opened`, `emergency_failed`, `frequent`, `granted`,
    /// `ended`, `emergency_seen`, `suspended`, `reinstated`, `command`, `command_done`, `command_failed`, `offer`, `offer_done`, `offer_failed`.
    pub what: &'static str,
    /// Who did it, where it was one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whose it is, where a bed says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patient: Option<PatientId>,
    /// The beginning of a pseudonym or a relationship.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// A reason, or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// First second, Unix time, at which it holds no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// How many patients or emergencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// The newest lines, for all pages.
#[derive(Debug)]
pub struct Trail {
    lines: Mutex<VecDeque<Arc<Line>>>,
    next: watch::Sender<u64>,
}

impl Default for Trail {
    fn default() -> Self {
        Self { lines: Mutex::default(), next: watch::Sender::new(0) }
    }
}

impl Trail {
    fn lines(&self) -> MutexGuard<'_, VecDeque<Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line and gives it its number; looks of one moment by one user are one line.
    pub fn add(&self, mut line: Line) {
        let mut lines = self.lines();
        line.id = *self.next.borrow();
        lines.push_back(Arc::new(line));
        if lines.len() > LINES_MAX {
            lines.pop_front();
        }
        self.next.send_modify(|next| *next += 1);
    }

    /// Adds what the journal has.
    pub fn add_entries(&self, entries: &[Entry]) {
        let mut at = 0;
        while let Some(entry) = entries.get(at) {
            let together = entries[at..].iter().take_while(|other| looks_together(entry, other)).count();
            let patients: BTreeSet<_> = entries[at..at + together].iter().filter_map(looked_at).collect();
            if let Some(mut line) = line_of(entry) {
                if patients.len() > 1 {
                    (line.patient, line.count) = (None, u64::try_from(patients.len()).ok());
                }
                self.add(line);
            }
            at += together.max(1);
        }
    }

    /// Follows the number of the next line.
    #[must_use]
    pub fn next(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// The lines from this number on that are still kept.
    #[must_use]
    pub fn since(&self, id: u64) -> Vec<Arc<Line>> {
        self.lines().iter().filter(|line| line.id >= id).cloned().collect()
    }
}

fn looks_together(one: &Entry, other: &Entry) -> bool {
    match (&one.what, &other.what) {
        (What::Look { user, .. }, What::Look { user: by, .. }) => user == by && one.at_ms == other.at_ms,
        _ => false,
    }
}

fn looked_at(entry: &Entry) -> Option<PatientId> {
    if let What::Look { patient, .. } = &entry.what { Some(*patient) } else { None }
}

/// Enough of a pseudonym or relationship to tell one from another, and too little to use.
#[must_use]
pub fn beginning(bytes: &[u8; 32]) -> String {
    hex::encode(&bytes[..4])
}

/// None of what pages don't tell: it is for who reads the journal.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "gateways' and the core's entries, and what feed and core exchanged"
)]
fn line_of(entry: &Entry) -> Option<Line> {
    let line =
        |what, user: &str| Line { at_ms: entry.at_ms, what, user: Some(user.to_owned()), ..Line::default() };
    let about = |pseudonym: &Pseudonym| Some(beginning(&pseudonym.0));
    Some(match &entry.what {
        What::Login { user } => line("login", user),
        What::Look { user, patient, .. } => Line { patient: Some(*patient), ..line("look", user) },
        What::Export { uid, of } => Line {
            patient: of.map(|part| part.patient),
            text: of.map(|part| part.class.as_str().to_owned()),
            ..line("export", &format!("uid {uid}"))
        },
        What::LogRead { user, reason, .. } => Line { text: reason.clone(), ..line("log_read", user) },
        What::Emergency { user, pseudonym, reason, until, .. } => Line {
            about: about(pseudonym),
            text: Some(reason.clone()),
            until: Some(*until),
            ..line("emergency", user)
        },
        What::EmergencyOpened { user, pseudonym, until, .. } => {
            Line { about: about(pseudonym), until: Some(*until), ..line("emergency_opened", user) }
        }
        What::EmergencyFailed { user, pseudonym, why, .. } => {
            Line { about: about(pseudonym), text: Some(why.clone()), ..line("emergency_failed", user) }
        }
        What::Command { user, patient, action, .. } => {
            Line { patient: Some(*patient), text: Some(action.clone()), ..line("command", user) }
        }
        What::CommandDone { user, patient, action, why, .. } => {
            let what = if why.is_none() { "command_done" } else { "command_failed" };
            let text = why.as_ref().map_or_else(|| action.clone(), |why| format!("{action}: {why}"));
            Line { patient: Some(*patient), text: Some(text), ..line(what, user) }
        }
        What::Offered { user, gateway, kind } => {
            Line { text: Some(format!("{kind} to {gateway}")), ..line("offer", user) }
        }
        What::OfferDone { user, gateway, kind, why } => {
            let what = if why.is_none() { "offer_done" } else { "offer_failed" };
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            Line { text: Some(format!("{kind} to {gateway}{why}")), ..line(what, user) }
        }
        What::Frequent { user, count } => Line { count: Some(*count), ..line("frequent", user) },
        _ => return None,
    })
}

/// A line about a change on the ledger.
#[must_use]
pub fn line_of_change(change: &Change, at_ms: i64, beds: &[Bed]) -> Line {
    let patient = |relationship: &RelationshipId| {
        beds.iter().find(|bed| bed.relationship.as_ref() == Some(relationship)).map(|bed| bed.patient)
    };
    let line = |what| Line { at_ms, what, ..Line::default() };
    match change {
        Change::Granted { relationship, until } => Line {
            patient: patient(relationship),
            about: Some(beginning(&relationship.0)),
            until: Some(*until),
            ..line("granted")
        },
        Change::Ended { relationship, why } => Line {
            patient: patient(relationship),
            about: Some(beginning(&relationship.0)),
            text: Some(
                match why {
                    Why::Revoked => "revoked",
                    Why::Replaced => "replaced",
                    Why::Expired | Why::EmergencyOver => "expired",
                    Why::Suspended => "suspended",
                }
                .to_owned(),
            ),
            ..line("ended")
        },
        Change::Emergency(emergency) => Line {
            about: Some(beginning(&emergency.pseudonym.0)),
            until: Some(emergency.until),
            count: Some(emergency.number),
            ..line("emergency_seen")
        },
        Change::Suspended => line("suspended"),
        Change::Reinstated => line("reinstated"),
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::DataClass;

    use super::*;
    use crate::journal::{AccessBasis, Part};
    use crate::message::Category;

    fn look(at_ms: i64, user: &str, patient: u8) -> Entry {
        look_of(at_ms, user, patient, DataClass::Vitals)
    }

    fn look_of(at_ms: i64, user: &str, patient: u8, class: DataClass) -> Entry {
        let (user, patient) = (user.to_owned(), PatientId([patient; 16]));
        let basis = AccessBasis::Unknown;
        Entry { at_ms, what: What::Look { user, patient, class, from_us: 0, until_us: None, basis } }
    }

    #[test]
    fn looks_of_one_moment_are_one_line_and_all_else_is_one_each() {
        let trail = Trail::default();
        let login = Entry { at_ms: 1, what: What::Login { user: "a".into() } };
        let entries =
            [login.clone(), look(2, "a", 1), look(2, "a", 2), look(2, "b", 1), look(3, "b", 1), login];
        let classes = [look_of(4, "a", 1, DataClass::Alarm), look_of(4, "a", 1, DataClass::Vitals)];
        let unseen = Entry { at_ms: 5, what: What::PolicyFresh };
        trail.add_entries(&[&entries[..], &classes, &[unseen]].concat());
        let told: Vec<_> = trail.since(0).iter().map(|line| (line.id, line.what, line.count)).collect();
        let expected = [
            (0, "login", None),
            (1, "look", Some(2)),
            (2, "look", None),
            (3, "look", None),
            (4, "login", None),
            (5, "look", None),
        ];
        assert_eq!(told, expected);
        assert_eq!(trail.since(2)[0].patient, Some(PatientId([1; 16])));
        assert_eq!(*trail.next().borrow(), 6);
    }

    #[test]
    fn an_export_says_of_which_patients_class_it_is_unless_of_all() {
        let trail = Trail::default();
        let (patient, class) = (PatientId([1; 16]), DataClass::Waveform);
        let of = Some(Part { patient, class, from_us: 0, until_us: 60_000_000 });
        let basis = AccessBasis::Consent;
        let written = What::Exported { uid: 5, patient, class, from_us: 1, until_us: None, basis };
        let whats = [What::Export { uid: 5, of: None }, What::Export { uid: 5, of }, written];
        trail.add_entries(&whats.map(|what| Entry { at_ms: 1, what }));
        let told: Vec<_> =
            trail.since(0).iter().map(|line| (line.what, line.patient, line.text.clone())).collect();
        assert_eq!(told, [("export", None, None), ("export", Some(patient), Some("waveform".to_owned()))]);
        assert_eq!(trail.since(1)[0].user.as_deref(), Some("uid 5"));
    }

    #[test]
    fn the_oldest_go() {
        let trail = Trail::default();
        for at_ms in 0..2 * i64::try_from(LINES_MAX).unwrap() {
            trail.add(Line { at_ms, what: "login", ..Line::default() });
        }
        let kept = trail.since(0);
        assert_eq!((kept.len(), kept[0].id), (LINES_MAX, LINES_MAX as u64));
    }

    #[test]
    fn a_line_names_no_whole_pseudonym_and_the_patient_whose_bed_it_is() {
        let relationship = RelationshipId([0xab; 32]);
        let bed = Bed {
            bed: "Bed 1".into(),
            patient: PatientId([1; 16]),
            category: Category::Adult,
            relationship: Some(relationship),
        };
        let change = Change::Ended { relationship, why: Why::Revoked };
        let line = line_of_change(&change, 5, &[bed]);
        assert_eq!(
            (line.what, line.patient, line.text.as_deref()),
            ("ended", Some(PatientId([1; 16])), Some("revoked"))
        );
        assert_eq!(line.about.as_deref(), Some("abababab"));
        let json = serde_json::to_string(&line).unwrap();
        assert!(!json.contains(&"ab".repeat(5)), "{json}");
    }
}
