//! What a stream tells beside readings: what access rests on, the ledger, and the list of who looked and what changed.

use std::collections::BTreeMap;

use caregate_protocol::id::PatientId;
use tokio::sync::watch;

use crate::access::{Basis, Subject, View, Why};
use crate::feed::Newest;
use crate::ledger::Known;
use crate::message::{Bed, Message};
use crate::server::{App, Oversight};

/// What a reader was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    access: BTreeMap<PatientId, Basis>,
    ledger: Option<String>,
    /// The first line of the list that it has not been told.
    next: u64,
}

impl Told {
    /// What the reader does not know yet, as JSON.
    pub(super) fn news(&mut self, app: &App, now_ms: i64) -> Vec<String> {
        let Oversight { recorder, ledger, break_glass, .. } = &app.oversight;
        let mut news = Vec::new();
        if let Some(known) = ledger {
            let known = known.borrow().clone();
            let ledger = Message::ledger(&known, break_glass.is_some()).json();
            if self.ledger.as_ref() != Some(&ledger) {
                news.push(ledger.clone());
                self.ledger = Some(ledger);
            }
            self.tell_access(&known, app, now_ms, &mut news);
        }
        for line in recorder.trail().since(self.next) {
            self.next = line.id + 1;
            news.push(Message::Audit(&line).json());
        }
        news
    }

    fn tell_access(&mut self, known: &Known, app: &App, now_ms: i64, news: &mut Vec<String>) {
        for (patient, basis) in access(&known.view, &app.beds, &app.feed.newest(), now_ms) {
            let is_known = known.read || is_known_unread(&patient, &basis, &app.beds);
            if (is_known || self.access.contains_key(&patient))
                && self.access.insert(patient, basis) != Some(basis)
            {
                news.push(Message::Access { patient, basis }.json());
            }
        }
    }
}

/// Whether a basis can be told before the ledger was read. Then that it says nothing is nothing to tell; and who has a bed may have granted.
fn is_known_unread(patient: &PatientId, basis: &Basis, beds: &[Bed]) -> bool {
    let is_emergency =
        matches!(basis, Basis::Emergency { .. } | Basis::Ended { why: Why::EmergencyOver, .. });
    is_emergency && beds.iter().all(|bed| bed.patient != *patient)
}

/// What access to each patient rests on, for those with a bed and those of whom something was opened.
fn access(view: &View, beds: &[Bed], newest: &Newest, now_ms: i64) -> BTreeMap<PatientId, Basis> {
    let seconds = |ms: i64| u64::try_from(ms.div_euclid(1000)).unwrap_or_default();
    let now = seconds(now_ms);
    let last = |patient: &PatientId| newest.get(patient).map(|us| seconds(us.div_euclid(1000)));
    let in_beds = beds.iter().map(|bed| {
        let subject = Subject::Bed(bed.relationship.as_ref());
        (bed.patient, view.basis(subject, last(&bed.patient), now))
    });
    let strangers =
        newest.keys().map(|patient| (*patient, view.basis(Subject::Stranger, last(patient), now)));
    // A bed's word comes last, and counts.
    strangers.chain(in_beds).collect()
}

/// Says when there may be something to tell.
pub(super) struct News {
    ledger: Option<watch::Receiver<Known>>,
    trail: watch::Receiver<u64>,
}

impl News {
    pub(super) fn of(oversight: &Oversight) -> Self {
        Self { ledger: oversight.ledger.clone(), trail: oversight.recorder.trail().next() }
    }

    /// Until something has changed. Cancel-safe.
    pub(super) async fn come(&mut self) {
        let ledger = async {
            let changed = match &mut self.ledger {
                Some(ledger) => ledger.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = ledger => {}
            changed = self.trail.changed() => if changed.is_err() { std::future::pending().await },
        }
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::policy::{Pseudonym, RelationshipId};

    use super::*;
    use crate::access::{Consent, EmergencyAccess};
    use crate::message::Category;

    #[test]
    fn beds_and_strangers_each_have_their_basis() {
        let (relationship, bed, stranger) = (RelationshipId([7; 32]), PatientId([1; 16]), PatientId([2; 16]));
        let consent = Consent { from: 0, until: 5_000, version: 1, ended: None };
        let emergency = EmergencyAccess { pseudonym: Pseudonym([3; 32]), from: 900, until: 2_000, number: 1 };
        let view = View {
            consents: BTreeMap::from([(relationship, consent)]),
            emergencies: vec![emergency],
            ..View::default()
        };
        let beds = [Bed {
            bed: "Bed 1".into(),
            patient: bed,
            category: Category::Adult,
            relationship: Some(relationship),
        }];
        let newest = Newest::from([(bed, 1_000_000_000), (stranger, 1_000_000_000)]);
        let told = access(&view, &beds, &newest, 1_000_999);
        assert_eq!(told[&bed], Basis::Consent { until: 5_000 });
        assert_eq!(told[&stranger], Basis::Emergency { until: 2_000 });
        assert_eq!(access(&view, &beds, &Newest::new(), 1_000_999).len(), 1);
        // Of a ledger that was not read yet an emergency is told, and not of who may have granted.
        let (over, until) =
            (Basis::Ended { at: 2_000, why: Why::EmergencyOver }, Basis::Emergency { until: 2_000 });
        for (patient, basis, is_told) in [
            (stranger, until, true),
            (stranger, over, true),
            (stranger, Basis::Unknown, false),
            (bed, until, false),
            (bed, Basis::None, false),
        ] {
            assert_eq!(is_known_unread(&patient, &basis, &beds), is_told, "{basis:?}");
        }
    }
}
