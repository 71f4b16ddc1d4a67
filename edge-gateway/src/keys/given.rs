//! Of which grants the past was given, and where in the spool its wraps lie.
//!
//! ```text
//! given  relationship 32 → patient 16 ‖ version 8 ‖ revision 8 ‖ when, Unix µs 8 ‖ first position 8 ‖ last position 8
//! ```
//! A row is written when the wraps are durable in the spool: what a kill before that leaves is given again, and delivered once more.
//! As long as they wait for the core they can get lost, by damage, by the age limit, or with the spool. Then the row goes first, and the
//! past is given anew.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use caregate_protocol::id::PatientId;
use caregate_protocol::policy::{RelationshipId, WATCHED_MAX};
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use super::{KeyStoreError, failed};

const GIVEN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("given");
/// Rows kept: four times as many relationships as a gateway has at once, for patients who came and went. The one that was given longest ago
/// makes room; should its grant stand still, its past is given once more.
const GIVEN_MAX: usize = 4 * WATCHED_MAX;

/// A past that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Whose.
    pub patient: PatientId,
    /// Of the grant.
    pub version: u64,
    /// Of what was known of other gateways' generations.
    pub revision: u64,
    /// When, Unix microseconds.
    pub given_us: i64,
    /// Where in the spool its wraps are, among other records; [`Self::NOWHERE`] where it took none.
    pub positions: RangeInclusive<u64>,
}

impl Given {
    /// No position: they begin at 1.
    pub const NOWHERE: RangeInclusive<u64> = 0..=0;

    /// Its row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (given_us, positions) = (self.given_us.cast_unsigned(), &self.positions);
        let numbers = [self.version, self.revision, given_us, *positions.start(), *positions.end()];
        let mut out = self.patient.0.to_vec();
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
        out
    }

    /// From its row; none where that is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (patient, rest) = bytes.split_first_chunk::<16>()?;
        let (numbers, []) = rest.as_chunks::<8>() else { return None };
        let [version, revision, given_us, first, last] = *<&[_; 5]>::try_from(numbers).ok()?;
        Some(Self {
            patient: PatientId(*patient),
            version: u64::from_be_bytes(version),
            revision: u64::from_be_bytes(revision),
            given_us: i64::from_be_bytes(given_us),
            positions: u64::from_be_bytes(first)..=u64::from_be_bytes(last),
        })
    }
}

/// All of it, as it is on disk.
#[derive(Debug, Default)]
pub(super) struct Pasts {
    rows: BTreeMap<RelationshipId, Given>,
}

impl Pasts {
    pub(super) fn read(txn: &WriteTransaction) -> Result<Self, KeyStoreError> {
        let mut pasts = Self::default();
        let table = txn.open_table(GIVEN).map_err(failed("open given"))?;
        for entry in table.iter().map_err(failed("read given"))? {
            let (relationship, row) = entry.map_err(failed("read given"))?;
            let shape = || KeyStoreError::Shape("given past");
            let relationship = relationship.value().try_into().map_err(|_length| shape())?;
            let given = Given::decode(row.value()).ok_or_else(shape)?;
            pasts.rows.insert(RelationshipId(relationship), given);
        }
        Ok(pasts)
    }

    pub(super) fn of(&self, relationship: &RelationshipId) -> Option<&Given> {
        self.rows.get(relationship)
    }

    /// Of which grant the wrap at a position is, if it is one of a past.
    pub(super) fn at(&self, position: u64) -> Option<(RelationshipId, &Given)> {
        let mut rows = self.rows.iter();
        rows.find(|(_, given)| given.positions.contains(&position)).map(|(of, given)| (*of, given))
    }

    /// Writes down that a past was given.
    pub(super) fn note(
        &mut self,
        db: &Database,
        relationship: RelationshipId,
        given: Given,
    ) -> Result<(), KeyStoreError> {
        let oldest = || self.rows.iter().min_by_key(|(_, given)| given.given_us).map(|(of, _)| *of);
        let is_full = self.rows.len() >= GIVEN_MAX && !self.rows.contains_key(&relationship);
        let gone = if is_full { oldest() } else { None };
        let txn = db.begin_write().map_err(failed("begin"))?;
        {
            let mut table = txn.open_table(GIVEN).map_err(failed("open given"))?;
            let row = given.encode();
            table.insert(relationship.0.as_slice(), row.as_slice()).map_err(failed("write a given past"))?;
            if let Some(gone) = gone {
                table.remove(gone.0.as_slice()).map_err(failed("remove a given past"))?;
            }
        }
        txn.commit().map_err(failed("commit"))?;
        self.rows.insert(relationship, given);
        gone.map(|gone| self.rows.remove(&gone));
        Ok(())
    }

    /// Forgets those that `is_lost` says, so that they are given anew. Returns how many.
    pub(super) fn lose(
        &mut self,
        db: &Database,
        is_lost: impl Fn(&RelationshipId, &Given) -> bool,
    ) -> Result<usize, KeyStoreError> {
        let lost: Vec<_> =
            self.rows.iter().filter(|(of, given)| is_lost(of, given)).map(|(of, _)| *of).collect();
        if lost.is_empty() {
            return Ok(0);
        }
        let txn = db.begin_write().map_err(failed("begin"))?;
        {
            let mut table = txn.open_table(GIVEN).map_err(failed("open given"))?;
            for relationship in &lost {
                table.remove(relationship.0.as_slice()).map_err(failed("remove a given past"))?;
            }
        }
        txn.commit().map_err(failed("commit"))?;
        self.rows.retain(|relationship, _| !lost.contains(relationship));
        Ok(lost.len())
    }

    /// Forgets a patient's, on disk.
    pub(super) fn erase(txn: &WriteTransaction, patient: PatientId) -> Result<(), KeyStoreError> {
        let mut table = txn.open_table(GIVEN).map_err(failed("open given"))?;
        table.retain(|_, row| !row.starts_with(&patient.0)).map_err(failed("remove a patient's given pasts"))
    }

    /// The same, of what is in memory.
    pub(super) fn forget(&mut self, patient: PatientId) {
        self.rows.retain(|_, given| given.patient != patient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyStore;

    fn given(patient: u8, given_us: i64, positions: RangeInclusive<u64>) -> Given {
        Given { patient: PatientId([patient; 16]), version: 3, revision: 4, given_us, positions }
    }

    #[test]
    fn what_was_given_is_known_after_a_restart_until_it_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = KeyStore::open(dir.path()).unwrap();
        let (one, two) = (RelationshipId([1; 32]), RelationshipId([2; 32]));
        keys.note_past_given(one, given(7, -1, 5..=9)).unwrap();
        keys.note_past_given(two, given(8, 2, Given::NOWHERE)).unwrap();
        drop(keys);
        let mut keys = KeyStore::open(dir.path()).unwrap();
        assert_eq!(keys.past_given(&two), Some(&given(8, 2, Given::NOWHERE)));
        let at = |keys: &KeyStore, position| keys.past_at(position).map(|(of, _)| of);
        assert_eq!([4, 5, 9, 10].map(|position| at(&keys, position)), [None, Some(one), Some(one), None]);
        let lost = |_: &RelationshipId, given: &Given| given.positions.contains(&6);
        assert_eq!((keys.lose_pasts(lost).unwrap(), keys.lose_pasts(lost).unwrap()), (1, 0));
        drop(keys);
        let keys = KeyStore::open(dir.path()).unwrap();
        assert_eq!((keys.past_given(&one), at(&keys, 5)), (None, None));
        assert_eq!(keys.past_given(&two).map(|given| given.version), Some(3));
    }

    #[test]
    fn rows_are_bounded_and_the_oldest_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyStore::open(dir.path()).unwrap();
        let relationship = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            RelationshipId(id)
        };
        let mut pasts = Pasts::default();
        for n in 0..GIVEN_MAX {
            pasts
                .rows
                .insert(relationship(n), given(1, i64::try_from(GIVEN_MAX - n).unwrap(), Given::NOWHERE));
        }
        pasts.note(&keys.db, relationship(0), given(1, 0, 1..=1)).unwrap();
        assert_eq!(pasts.rows.len(), GIVEN_MAX, "one that is known takes no room");
        pasts.note(&keys.db, relationship(GIVEN_MAX), given(2, i64::MAX, 2..=2)).unwrap();
        assert_eq!((pasts.rows.len(), pasts.of(&relationship(0))), (GIVEN_MAX, None));
    }

    #[test]
    fn no_other_length_is_a_row() {
        let row = given(1, 2, 3..=4).encode();
        assert_eq!(Given::decode(&row), Some(given(1, 2, 3..=4)));
        for bytes in [&row[..55], &row[..48], &[&row[..], &[0; 8]].concat(), &[]] {
            assert_eq!(Given::decode(bytes), None);
        }
    }
}
