//! Patients of whom nothing is watched for now: what must be known of them once something comes again. Pure.

use std::collections::BTreeMap;

use caregate_protocol::id::PatientId;
use caregate_protocol::policy::PATIENTS_MAX;

use super::Kept;

/// How many: sixteen times those that are watched, which is more than a gateway is enrolled with over the years. Some hundred bytes each.
pub(super) const AWAY_MAX: usize = 16 * PATIENTS_MAX;

/// Who made room for others.
#[derive(Debug, Default)]
pub(super) struct Away {
    kept: BTreeMap<PatientId, Kept>,
    /// The greatest number that an alarm of somebody had who is forgotten here too. Whoever is new goes on from it: it may be one of them.
    numbered: u64,
}

impl Away {
    /// Remembers what is kept of a patient. Returns whether another had to be forgotten for it.
    pub(super) fn put(&mut self, id: PatientId, kept: Kept) -> bool {
        self.kept.insert(id, kept);
        if self.kept.len() <= AWAY_MAX {
            return false;
        }
        let least = self.kept.iter().min_by_key(|(_, kept)| kept.weight()).map(|(id, _)| *id);
        if let Some(forgotten) = least.and_then(|id| self.kept.remove(&id)) {
            self.numbered = self.numbered.max(forgotten.next_alarm);
        }
        true
    }

    /// What was kept of a patient, who is watched again.
    pub(super) fn take(&mut self, id: &PatientId) -> Kept {
        let new = || Kept { next_alarm: self.numbered, ..Kept::default() };
        self.kept.remove(id).unwrap_or_else(new)
    }

    /// The same, who stays away.
    #[must_use]
    pub(super) fn kept(&self, id: &PatientId) -> Option<&Kept> {
        self.kept.get(id)
    }

    /// Of an erased patient nothing stays.
    pub(super) fn forget(&mut self, id: &PatientId) {
        self.kept.remove(id);
    }
}
