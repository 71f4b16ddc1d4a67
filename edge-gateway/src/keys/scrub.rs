//! Takes bytes that nothing refers to any more out of a file: redb frees pages, and leaves what was in them.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

/// Read at once; a store of keys has some hundred kilobytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Overwrites every place where `needle` stands with zeroes, synced. The file must not be in use. What a flash keeps of blocks that it
/// has replaced is beyond reach.
pub(super) fn scrub(path: &Path, needle: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    for at in places(&mut file, needle)? {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&vec![0; needle.len()])?;
    }
    file.sync_all()?;
    if places(&mut file, needle)?.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other("what was overwritten is still there"))
    }
}

fn places(file: &mut std::fs::File, needle: &[u8]) -> io::Result<Vec<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let (mut found, mut begins) = (Vec::new(), 0_u64);
    // The end of the chunk before stays, so that a place across two is seen.
    let mut window = Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + needle.len()));
    loop {
        let kept = window.len();
        window.resize(kept + CHUNK_BYTES, 0);
        let read = file.read(&mut window[kept..])?;
        window.truncate(kept + read);
        if read == 0 {
            return Ok(found);
        }
        let at = window.windows(needle.len()).enumerate().filter(|(_, bytes)| *bytes == needle);
        found.extend(at.map(|(at, _)| begins + at as u64));
        let done = (window.len() + 1).saturating_sub(needle.len());
        window.drain(..done);
        begins += done as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_found_also_across_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let needle = [7_u8, 8, 9, 7];
        let mut bytes = vec![1_u8; 3 * CHUNK_BYTES + 5];
        for at in [0, CHUNK_BYTES - 2, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 1] {
            bytes[at..at + 4].copy_from_slice(&needle);
        }
        std::fs::write(&path, &bytes).unwrap();
        scrub(&path, &needle).unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!(after.len(), bytes.len());
        assert_eq!(after.iter().filter(|byte| **byte == 0).count(), 16);
        assert!(!after.contains(&7));
    }
}
