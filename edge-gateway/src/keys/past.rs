//! What a grant of the past needs: which generation of a chain's keys sealed in which epochs.
//!
//! ```text
//! generations  patient 16 ‖ class 1 ‖ generation 4 → first epoch; 0 where it is not known
//! ```
//! A generation is written down before the first segment of it is appended, so what is known is never less than what was sealed.

use std::collections::BTreeMap;

use caregate_protocol::id::{DataClass, PatientId};
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use super::{KeyStoreError, failed};

const GENERATIONS: TableDefinition<'_, &[u8], u32> = TableDefinition::new("generations");
/// Generations kept of one chain: one for each loss of access, years of them. Of what the oldest sealed no past can be given any more.
pub(super) const GENERATIONS_MAX: usize = 1024;
/// Generations before the present one that are taken for used where nothing was written down: the gateway's software was older then.
const ADOPTED_MAX: u32 = 64;

pub(super) type Key = (PatientId, DataClass);

/// All of it, as it is on disk.
#[derive(Debug, Default)]
pub(super) struct Past {
    generations: BTreeMap<Key, BTreeMap<u32, u32>>,
}

/// Patient 16 ‖ class 1 ‖ generation 4.
pub(super) fn row((patient, class): Key, generation: u32) -> Vec<u8> {
    [patient.0.as_slice(), &[class as u8], &generation.to_be_bytes()].concat()
}

/// What such a row is of.
pub(super) fn of_row(row: &[u8]) -> Option<(Key, u32)> {
    let (patient, rest) = row.split_first_chunk::<16>()?;
    let (class, generation) = rest.split_first_chunk::<1>()?;
    let generation = u32::from_be_bytes(generation.try_into().ok()?);
    Some(((PatientId(*patient), DataClass::from_u8(class[0])?), generation))
}

impl Past {
    pub(super) fn read(txn: &WriteTransaction) -> Result<Self, KeyStoreError> {
        let mut past = Self::default();
        let table = txn.open_table(GENERATIONS).map_err(failed("open generations"))?;
        for entry in table.iter().map_err(failed("read generations"))? {
            let (row, epoch) = entry.map_err(failed("read generations"))?;
            let (key, generation) = of_row(row.value()).ok_or(KeyStoreError::Shape("generation"))?;
            past.generations.entry(key).or_default().insert(generation, epoch.value());
        }
        Ok(past)
    }

    /// Of a chain, the lowest first: each generation, and the first epoch in which it may have sealed.
    pub(super) fn generations(&self, key: Key) -> Vec<(u32, u32)> {
        let chain = self.generations.get(&key).into_iter().flatten();
        chain.map(|(generation, epoch)| (*generation, *epoch)).collect()
    }

    pub(super) fn knows(&self, key: Key, generation: u32) -> bool {
        self.generations.get(&key).is_some_and(|chain| chain.contains_key(&generation))
    }

    /// Writes down that a generation seals from `epoch` on.
    pub(super) fn note(
        &mut self,
        db: &Database,
        key: Key,
        generations: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<(), KeyStoreError> {
        let chain = self.generations.entry(key).or_default();
        let txn = db.begin_write().map_err(failed("begin"))?;
        {
            let mut table = txn.open_table(GENERATIONS).map_err(failed("open generations"))?;
            for (generation, epoch) in generations {
                table.insert(row(key, generation).as_slice(), epoch).map_err(failed("write a generation"))?;
                chain.insert(generation, epoch);
            }
            while chain.len() > GENERATIONS_MAX
                && let Some((generation, _)) = chain.pop_first()
            {
                table.remove(row(key, generation).as_slice()).map_err(failed("remove a generation"))?;
            }
        }
        txn.commit().map_err(failed("commit"))
    }

    /// What a chain has sealed before anything was written down: every generation from `base`, or the newest of them.
    pub(super) fn adopt(
        &mut self,
        db: &Database,
        key: Key,
        base: u32,
        generation: u32,
    ) -> Result<(), KeyStoreError> {
        if self.generations.contains_key(&key) {
            return Ok(());
        }
        let first = base.max(generation.saturating_sub(ADOPTED_MAX));
        self.note(db, key, (first..=generation).map(|generation| (generation, 0)))
    }

    /// The same, of what is in memory.
    pub(super) fn forget(&mut self, patient: PatientId) {
        self.generations.retain(|(of, _), _| *of != patient);
    }

    /// Forgets a patient's chains.
    pub(super) fn erase(txn: &WriteTransaction, patient: PatientId) -> Result<(), KeyStoreError> {
        let mut table = txn.open_table(GENERATIONS).map_err(failed("open generations"))?;
        table.retain(|row, _| !row.starts_with(&patient.0)).map_err(failed("remove a patient's generations"))
    }
}
