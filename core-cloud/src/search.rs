//! What segments can be found by: blind tokens of alarms (`caregate_protocol::search`), in a redb file of their own.
//!
//! ```text
//! tokens    patient 16 ‖ class 1 ‖ token 16 ‖ sequence 8   → ()
//! segments  patient 16 ‖ class 1 ‖ sequence 8              → tokens 16 × 16    what to remove
//! ```
//! The core makes nothing of a token but equality. Whoever can ask for one holds the key of its minute.

use std::path::Path;

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::search::{TOKENS, Token, Tokens};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use thiserror::Error;

const BY_TOKEN: TableDefinition<'_, &[u8], ()> = TableDefinition::new("tokens");
const BY_SEGMENT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("segments");

/// Numbers of one chain that stay findable: a standing comes each minute and at each change, so some two months, in 50 MB. What is older
/// is still there, and is read as all history is.
pub const NUMBERS_KEPT: u64 = 100_000;
/// Hits of one search: the alarms of a kind in a bad month. The newest are found first.
pub const HITS_MAX: usize = 1024;
/// redb's page cache: what is written in a minute.
const CACHE_BYTES: usize = 4 << 20;

/// The index failed.
#[derive(Debug, Error)]
#[error("search index: {doing}: {source}")]
pub struct SearchError {
    doing: &'static str,
    source: Box<redb::Error>,
}

fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> SearchError {
    move |source| SearchError { doing, source: Box::new(source.into()) }
}

/// The index.
#[derive(Debug)]
pub struct SearchIndex {
    db: Database,
}

fn chain_key(patient: PatientId, class: DataClass) -> Vec<u8> {
    [patient.0.as_slice(), &[class as u8]].concat()
}

fn joined(chain: &[u8], rest: &[u8]) -> Vec<u8> {
    [chain, rest].concat()
}

impl SearchIndex {
    /// Opens or makes `search.redb` in `dir`.
    ///
    /// # Errors
    /// [`SearchError`].
    pub fn open(dir: &Path) -> Result<Self, SearchError> {
        let mut builder = redb::Builder::new();
        let db = builder.set_cache_size(CACHE_BYTES).create(dir.join("search.redb"));
        let db = db.map_err(failed("open search.redb"))?;
        let txn = db.begin_write().map_err(failed("begin"))?;
        txn.open_table(BY_TOKEN).map_err(failed("open tokens"))?;
        txn.open_table(BY_SEGMENT).map_err(failed("open segments"))?;
        txn.commit().map_err(failed("commit"))?;
        Ok(Self { db })
    }

    /// Notes tokens, durably; their signatures have been checked. What comes again changes nothing.
    ///
    /// # Errors
    /// [`SearchError`]; then none of them may be acknowledged.
    pub fn put(&self, batch: &[Tokens]) -> Result<(), SearchError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut by_token = txn.open_table(BY_TOKEN).map_err(failed("open tokens"))?;
            let mut by_segment = txn.open_table(BY_SEGMENT).map_err(failed("open segments"))?;
            for Tokens { patient, class, sequence, tokens, .. } in batch {
                let chain = chain_key(*patient, *class);
                let number = sequence.to_be_bytes();
                let key = joined(&chain, &number);
                if by_segment.get(key.as_slice()).map_err(failed("read segments"))?.is_some() {
                    continue;
                }
                for token in tokens {
                    let key = [chain.as_slice(), &token.0, &number].concat();
                    by_token.insert(key.as_slice(), ()).map_err(failed("write tokens"))?;
                }
                let all: Vec<u8> = tokens.iter().flat_map(|token| token.0).collect();
                by_segment.insert(key.as_slice(), all.as_slice()).map_err(failed("write segments"))?;
                let below = sequence.saturating_sub(NUMBERS_KEPT).to_be_bytes();
                let range = (joined(&chain, &[0; 8]), joined(&chain, &below));
                // A restored chain begins far beyond: then many go at once, and in the next searches the rest.
                remove(&mut by_token, &mut by_segment, &chain, range, TOKENS)?;
            }
        }
        txn.commit().map_err(failed("commit"))
    }

    /// The numbers of segments with any of these tokens, the newest first, at most [`HITS_MAX`].
    ///
    /// # Errors
    /// [`SearchError`].
    pub fn find(
        &self,
        patient: PatientId,
        class: DataClass,
        tokens: &[Token],
    ) -> Result<Vec<u64>, SearchError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let by_token = txn.open_table(BY_TOKEN).map_err(failed("open tokens"))?;
        let chain = chain_key(patient, class);
        let mut found = Vec::new();
        for token in tokens {
            let prefix = joined(&chain, &token.0);
            let range = (joined(&prefix, &[0; 8]), joined(&prefix, &[0xff; 8]));
            let entries = by_token.range(range.0.as_slice()..=range.1.as_slice());
            for entry in entries.map_err(failed("read tokens"))?.rev().take(HITS_MAX) {
                let (key, _) = entry.map_err(failed("read tokens"))?;
                found.extend(key.value().last_chunk::<8>().map(|number| u64::from_be_bytes(*number)));
            }
            // Twice as many are kept at most while it goes on.
            if found.len() > HITS_MAX {
                newest(&mut found);
            }
        }
        newest(&mut found);
        Ok(found)
    }

    /// Forgets a patient, durably; how many segments it was.
    ///
    /// # Errors
    /// [`SearchError`].
    pub fn forget(&self, patient: PatientId) -> Result<u64, SearchError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        let removed = {
            let mut by_token = txn.open_table(BY_TOKEN).map_err(failed("open tokens"))?;
            let mut by_segment = txn.open_table(BY_SEGMENT).map_err(failed("open segments"))?;
            let mut removed = 0;
            for class in DataClass::ALL {
                let chain = chain_key(patient, class);
                let range = (joined(&chain, &[0; 8]), joined(&chain, &[0xff; 8]));
                removed += remove(&mut by_token, &mut by_segment, &chain, range, usize::MAX)?;
            }
            removed
        };
        txn.commit().map_err(failed("commit"))?;
        Ok(removed)
    }
}

fn newest(found: &mut Vec<u64>) {
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    found.truncate(HITS_MAX);
}

/// Removes the first `most` segments of a range, and their tokens; how many.
fn remove(
    by_token: &mut Table<'_, &'static [u8], ()>,
    by_segment: &mut Table<'_, &'static [u8], &'static [u8]>,
    chain: &[u8],
    (first, end): (Vec<u8>, Vec<u8>),
    most: usize,
) -> Result<u64, SearchError> {
    let mut old = Vec::new();
    for entry in
        by_segment.range(first.as_slice()..end.as_slice()).map_err(failed("read segments"))?.take(most)
    {
        let (key, tokens) = entry.map_err(failed("read segments"))?;
        old.push((key.value().to_vec(), tokens.value().to_vec()));
    }
    for (key, tokens) in &old {
        let number = key.get(chain.len()..).unwrap_or_default();
        for token in tokens.chunks(16) {
            by_token.remove([chain, token, number].concat().as_slice()).map_err(failed("remove tokens"))?;
        }
        by_segment.remove(key.as_slice()).map_err(failed("remove segments"))?;
    }
    Ok(old.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: PatientId = PatientId([1; 16]);

    fn tokens(patient: PatientId, sequence: u64, first: u8) -> Tokens {
        let token = |n: usize| Token([first + u8::try_from(n).unwrap(); 16]);
        let tokens = std::array::from_fn(token);
        Tokens { class: DataClass::Alarm, patient, generation: 0, epoch: 7, sequence, tokens }
    }

    fn find(index: &SearchIndex, patient: PatientId, tokens: &[u8]) -> Vec<u64> {
        let tokens: Vec<_> = tokens.iter().map(|byte| Token([*byte; 16])).collect();
        index.find(patient, DataClass::Alarm, &tokens).unwrap()
    }

    #[test]
    fn tokens_find_their_segments_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let index = SearchIndex::open(dir.path()).unwrap();
        index.put(&[tokens(PATIENT, 3, 0), tokens(PATIENT, 4, 8), tokens(PatientId([2; 16]), 5, 0)]).unwrap();
        index.put(&[tokens(PATIENT, 3, 0)]).unwrap();
        drop(index);
        let index = SearchIndex::open(dir.path()).unwrap();
        assert_eq!(find(&index, PATIENT, &[9]), [4, 3]);
        assert_eq!(find(&index, PATIENT, &[0, 1]), [3]);
        assert_eq!(find(&index, PATIENT, &[200]), [0_u64; 0]);
        assert_eq!(index.find(PATIENT, DataClass::Vitals, &[Token([0; 16])]).unwrap(), [0_u64; 0]);
        assert_eq!(index.forget(PATIENT).unwrap(), 2);
        assert_eq!(
            (find(&index, PATIENT, &[0, 9]), find(&index, PatientId([2; 16]), &[0])),
            (vec![], vec![5])
        );
    }

    #[test]
    fn it_is_bounded_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let index = SearchIndex::open(dir.path()).unwrap();
        index.put(&[tokens(PATIENT, 0, 0), tokens(PATIENT, NUMBERS_KEPT, 0)]).unwrap();
        assert_eq!(find(&index, PATIENT, &[0]), [NUMBERS_KEPT, 0]);
        index.put(&[tokens(PATIENT, NUMBERS_KEPT + 1, 0)]).unwrap();
        assert_eq!(find(&index, PATIENT, &[0]), [NUMBERS_KEPT + 1, NUMBERS_KEPT]);
        let many: Vec<_> =
            (0..HITS_MAX as u64 + 9).map(|n| tokens(PATIENT, NUMBERS_KEPT + 2 + n, 0)).collect();
        index.put(&many).unwrap();
        let found = find(&index, PATIENT, &[0, 1]);
        assert_eq!((found.len(), found[0]), (HITS_MAX, NUMBERS_KEPT + 2 + HITS_MAX as u64 + 8));
    }
}
