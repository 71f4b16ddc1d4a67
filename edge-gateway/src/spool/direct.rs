//! Writes past the page cache, in the device's own blocks. The page cache writes 4 KiB for each group, however small; most devices take
//! 512 bytes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

/// What devices take, least first: sectors of most, and those of disks that show their 4 KiB ones.
const BLOCKS: [usize; 2] = [512, 4096];
/// Where a buffer must begin in memory, for all of them (open(2), `O_DIRECT`).
const ALIGNMENT: usize = 4096;

/// A file that is open a second time, for direct writes.
#[derive(Debug)]
struct Direct {
    file: File,
    /// Bytes of a block of the device, as this file system takes them.
    block: usize,
}

/// Bytes that begin at [`ALIGNMENT`] in memory.
pub(super) struct Aligned {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGNMENT];
        let from = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, from, len }
    }

    pub(super) fn slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.len]
    }
}

impl Direct {
    /// Opens the file at `path`. `None` where its file system has no direct writes, or wants larger blocks.
    fn open(path: &Path) -> Option<Self> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).ok()?;
        // Not every kernel tells the size (statx(2), `STATX_DIOALIGN`, is of 6.1): a read is taken or not.
        let block = BLOCKS.into_iter().find(|block| file.read_at(Aligned::new(*block).slice(), 0).is_ok())?;
        Some(Self { file, block })
    }

    /// Of the bytes before `end`, those that share its block.
    fn shared(&self, end: u64) -> usize {
        usize::try_from(end % self.block as u64).unwrap_or(0)
    }
}

/// A place in such a file, with what stands before it in its block: a write there writes that again.
#[derive(Debug, Clone)]
pub(super) struct Led {
    direct: Arc<Direct>,
    lead: Vec<u8>,
}

impl Led {
    /// Opens the file at `path`, which is `file` as well, to go on at `end`.
    pub(super) fn open(path: &Path, file: &File, end: u64) -> Option<Self> {
        let direct = Direct::open(path)?;
        let mut lead = vec![0; direct.shared(end)];
        let from = end - lead.len() as u64;
        file.read_exact_at(&mut lead, from).ok()?;
        Some(Self { direct: Arc::new(direct), lead })
    }

    /// Bytes that are written where so many are to be.
    pub(super) fn touched(&self, len: usize) -> usize {
        (self.lead.len() + len).next_multiple_of(self.direct.block)
    }

    /// Where the blocks end that so many bytes touch, counted from the place.
    pub(super) fn ends(&self, len: usize) -> u64 {
        (self.touched(len) - self.lead.len()) as u64
    }

    /// What stands before `at`, and `bytes` there, as whole blocks with zeroes behind; and where these go.
    pub(super) fn blocks(&self, at: u64, bytes: &[u8]) -> (u64, Aligned) {
        let mut blocks = Aligned::new(self.touched(bytes.len()));
        let (lead, rest) = blocks.slice().split_at_mut(self.lead.len());
        lead.copy_from_slice(&self.lead);
        rest[..bytes.len()].copy_from_slice(bytes);
        (at - self.lead.len() as u64, blocks)
    }

    /// Moves behind `bytes`, which stand at `at`.
    pub(super) fn advance(&mut self, at: u64, bytes: &[u8]) {
        let shared = self.direct.shared(at + bytes.len() as u64);
        match bytes.len().checked_sub(shared) {
            Some(from) => self.lead = bytes[from..].to_vec(),
            None => self.lead.extend_from_slice(bytes),
        }
    }

    /// The file, for what [`Self::blocks`] made.
    pub(super) fn file(&self) -> &File {
        &self.direct.file
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use caregate_protocol::id::Lane;

    use super::super::disk::Disk;
    use super::super::recover;
    use super::super::tests::{files, limits, put};
    use super::*;
    use crate::faults::Faults;

    /// A file of 40 groups, and what was handed to the file system for them.
    fn written(buffered: bool) -> (Vec<u8>, u64) {
        // Beside what is built, so on a disk: a file system in memory has direct writes in newer kernels alone.
        let built = std::env::current_exe().unwrap();
        let dir = tempfile::TempDir::new_in(built.parent().unwrap()).unwrap();
        let faults = Arc::new(Faults::default());
        faults.buffered.store(buffered, Ordering::SeqCst);
        let disk = Disk::open_with(dir.path(), faults).unwrap();
        let (mut log, _) = recover::open(disk, limits()).unwrap();
        assert_eq!(log.current.direct.is_none(), buffered, "direct writes at {}", dir.path().display());
        let before = log.stats().written_bytes;
        for n in 0..40_u8 {
            put(&mut log, Lane::Vitals, &vec![n; usize::from(n) * 17]);
        }
        let written = log.stats().written_bytes - before;
        let end = usize::try_from(log.stats().bytes).unwrap();
        let bytes = std::fs::read(files(dir.path()).remove(0)).unwrap();
        (bytes[..end].to_vec(), written)
    }

    #[test]
    fn a_file_is_the_same_by_either_way() {
        let ((buffered, frames), (direct, blocks)) = (written(true), written(false));
        assert_eq!(buffered, direct);
        // Whole blocks: more than the frames, by less than two blocks for each group.
        assert!(blocks > frames && blocks < frames + 40 * 2 * 512, "{blocks} {frames}");
    }
}
