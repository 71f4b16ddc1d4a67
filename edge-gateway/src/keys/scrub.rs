//! Takes bytes that nothing refers to any more out of a file: redb frees pages, and leaves what was in them.
//!
//! What is to go is written down by its hash, in the transaction in which it leaves its table: after a kill in between, the next start finds
//! it by that. It is a random key or ciphertext of one, so its hash says nothing.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::{KeyStoreError, failed};

/// SHA-256 of what is to go → its length.
const SCRUBS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("scrubs");
/// Read at once; a store of keys has some hundred kilobytes.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// What is to go, by length and SHA-256.
pub(super) type Scrubs = BTreeSet<(usize, [u8; 32])>;

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// What was written down of these.
pub(super) fn of(needles: &[Zeroizing<Vec<u8>>]) -> Scrubs {
    needles.iter().map(|needle| (needle.len(), hash(needle))).collect()
}

/// Writes down that these bytes are to go.
pub(super) fn note(txn: &WriteTransaction, bytes: &[u8]) -> Result<(), KeyStoreError> {
    let mut table = txn.open_table(SCRUBS).map_err(failed("open scrubs"))?;
    table.insert(hash(bytes).as_slice(), bytes.len() as u64).map_err(failed("write a scrub"))?;
    Ok(())
}

/// What is to go still.
pub(super) fn left(txn: &WriteTransaction) -> Result<Scrubs, KeyStoreError> {
    let table = txn.open_table(SCRUBS).map_err(failed("open scrubs"))?;
    let mut left = Scrubs::new();
    for entry in table.iter().map_err(failed("read scrubs"))? {
        let (hash, length) = entry.map_err(failed("read scrubs"))?;
        let shape = || KeyStoreError::Shape("scrub");
        let hash = hash.value().try_into().map_err(|_length| shape())?;
        let length = usize::try_from(length.value()).ok().filter(|length| (1..=CHUNK_BYTES).contains(length));
        left.insert((length.ok_or_else(shape)?, hash));
    }
    Ok(left)
}

/// It is gone.
pub(super) fn done(txn: &WriteTransaction, scrubs: &Scrubs) -> Result<(), KeyStoreError> {
    let mut table = txn.open_table(SCRUBS).map_err(failed("open scrubs"))?;
    for (_, hash) in scrubs {
        table.remove(hash.as_slice()).map_err(failed("remove a scrub"))?;
    }
    Ok(())
}

/// What is searched for in a file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Needles<'a> {
    /// Known bytes, none of them empty.
    Bytes(&'a [Zeroizing<Vec<u8>>]),
    /// What a start found written down. Each place of the file is hashed: a second for some megabytes.
    Hashes(&'a Scrubs),
}

/// Overwrites every place where one of these stands with zeroes, synced. Nobody may write to the file meanwhile. What a flash keeps of blocks
/// that it has replaced is beyond reach.
pub(super) fn scrub(path: &Path, needles: Needles<'_>) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    for (at, length) in all(&mut file, needles)? {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&vec![0; length])?;
    }
    file.sync_all()?;
    if all(&mut file, needles)?.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other("what was overwritten is still there"))
    }
}

fn all(file: &mut File, needles: Needles<'_>) -> io::Result<Vec<(u64, usize)>> {
    let mut found = Vec::new();
    match needles {
        Needles::Bytes(needles) => {
            for needle in needles {
                found.extend(places(file, needle.len(), |bytes| bytes == needle.as_slice())?);
            }
        }
        Needles::Hashes(scrubs) => {
            let lengths: BTreeSet<_> = scrubs.iter().map(|(length, _)| *length).collect();
            for length in lengths {
                found.extend(places(file, length, |bytes| scrubs.contains(&(length, hash(bytes))))?);
            }
        }
    }
    Ok(found)
}

fn places(file: &mut File, length: usize, is_it: impl Fn(&[u8]) -> bool) -> io::Result<Vec<(u64, usize)>> {
    file.seek(SeekFrom::Start(0))?;
    let (mut found, mut begins) = (Vec::new(), 0_u64);
    // The end of the chunk before stays, so that a place across two is seen.
    let mut window = Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + length));
    loop {
        let kept = window.len();
        window.resize(kept + CHUNK_BYTES, 0);
        let read = file.read(&mut window[kept..])?;
        window.truncate(kept + read);
        if read == 0 {
            return Ok(found);
        }
        let at = window.windows(length).enumerate().filter(|(_, bytes)| is_it(bytes));
        found.extend(at.map(|(at, _)| (begins + at as u64, length)));
        let done = (window.len() + 1).saturating_sub(length);
        window.drain(..done);
        begins += done as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_found_also_across_chunks_by_its_bytes_or_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let needle = [7_u8, 8, 9, 7];
        let scrubs = Scrubs::from([(4, hash(&needle)), (5, hash(&[1, 2, 3, 4, 5])), (4, hash(&[6; 4]))]);
        let bytes_of = [Zeroizing::new(needle.to_vec())];
        for needles in [Needles::Bytes(&bytes_of), Needles::Hashes(&scrubs)] {
            let mut bytes = vec![1_u8; 3 * CHUNK_BYTES + 5];
            for at in [0, CHUNK_BYTES - 2, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 1] {
                bytes[at..at + 4].copy_from_slice(&needle);
            }
            std::fs::write(&path, &bytes).unwrap();
            scrub(&path, needles).unwrap();
            let after = std::fs::read(&path).unwrap();
            assert_eq!(after.len(), bytes.len());
            assert_eq!(after.iter().filter(|byte| **byte == 0).count(), 16);
            assert!(!after.contains(&7));
        }
    }
}
