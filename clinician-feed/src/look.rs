//! What somebody is shown, as the journal notes it: whose readings, of which class, of what time, and on what access rests.

use std::collections::BTreeMap;

use caregate_host::clock;
use caregate_protocol::id::{DataClass, PatientId};

use crate::access::{Basis, Subject};
use crate::journal::{AccessBasis, What};
use crate::ledger::Known;
use crate::message::Bed;
use crate::ring::Entry;
use crate::server::App;

/// From the oldest reading to the newest, Unix microseconds by the gateway's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The oldest.
    pub from_us: i64,
    /// The newest.
    pub until_us: i64,
}

impl Span {
    /// Both, and what lies between.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { from_us: self.from_us.min(other.from_us), until_us: self.until_us.max(other.until_us) }
    }
}

/// What was shown, by patient and class.
pub type Spans = BTreeMap<(PatientId, DataClass), Span>;

/// One patient's class, for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whose.
    pub patient: PatientId,
    /// Of which class.
    pub class: DataClass,
    /// Of what time.
    pub span: Span,
    /// On what it rests.
    pub basis: AccessBasis,
}

impl Look {
    /// For the journal; a look that goes on has no end yet.
    #[must_use]
    pub fn noted(&self, user: &str, until_us: Option<i64>) -> What {
        let Self { patient, class, span, basis } = *self;
        What::Look { user: user.to_owned(), patient, class, from_us: span.from_us, until_us, basis }
    }

    /// For the journal, where it is written out by an account's command; one that goes on has no end yet.
    #[must_use]
    pub fn exported(&self, uid: u32, until_us: Option<i64>) -> What {
        let Self { patient, class, span, basis } = *self;
        What::Exported { uid, patient, class, from_us: span.from_us, until_us, basis }
    }

    /// For the journal, when it has ended.
    #[must_use]
    pub fn ended(&self, user: &str) -> What {
        let Self { patient, class, span: Span { from_us, until_us }, .. } = *self;
        What::LookEnded { user: user.to_owned(), patient, class, from_us, until_us }
    }
}

/// What access to a patient's readings, the newest of them of `until_us`, rests on at this moment; it is not known where the ledger was
/// not read.
#[must_use]
pub fn basis(known: Option<&Known>, beds: &[Bed], patient: PatientId, until_us: i64) -> AccessBasis {
    let Some(Known { view, .. }) = known.filter(|known| known.read) else { return AccessBasis::Unknown };
    let now = u64::try_from(clock::now_ms().div_euclid(1000)).unwrap_or_default();
    let bed = beds.iter().find(|bed| bed.patient == patient);
    let subject = bed.map_or(Subject::Stranger, |bed| Subject::Bed(bed.relationship.as_ref()));
    match view.basis(subject, u64::try_from(until_us / 1_000_000).ok(), now) {
        Basis::Consent { .. } => AccessBasis::Consent,
        Basis::Emergency { .. } => AccessBasis::Emergency,
        Basis::Ended { .. } => AccessBasis::Ended,
        Basis::Unknown | Basis::None | Basis::Pending { .. } => AccessBasis::Unknown,
    }
}

/// What these readings are of.
pub fn spans_of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Spans {
    let mut spans = Spans::new();
    for entry in entries {
        let at = entry.reading.gateway_time_us;
        widen(&mut spans, (entry.patient, entry.class), Span { from_us: at, until_us: at });
    }
    spans
}

/// With this as well.
pub fn widen(spans: &mut Spans, of: (PatientId, DataClass), span: Span) {
    spans.entry(of).and_modify(|known| *known = known.and(span)).or_insert(span);
}

/// With what access to each rests on at this moment.
#[must_use]
pub fn looks(app: &App, spans: &Spans) -> Vec<Look> {
    let known = app.oversight.ledger.as_ref().map(|ledger| ledger.borrow());
    let look = |((patient, class), span): (&(PatientId, DataClass), &Span)| Look {
        patient: *patient,
        class: *class,
        span: *span,
        basis: basis(known.as_deref(), &app.beds, *patient, span.until_us),
    };
    spans.iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_grow_both_ways() {
        let span = |from_us, until_us| Span { from_us, until_us };
        assert_eq!(span(5, 7).and(span(6, 9)).and(span(1, 2)), span(1, 9));
        let look = Look {
            patient: PatientId([1; 16]),
            class: DataClass::Alarm,
            span: span(1, 9),
            basis: AccessBasis::Emergency,
        };
        assert!(matches!(look.noted("a", None), What::Look { from_us: 1, until_us: None, .. }));
        assert!(matches!(look.ended("a"), What::LookEnded { from_us: 1, until_us: 9, .. }));
    }
}
