//! Where each record lies and whether it is acknowledged, in memory. Pure but for the open files that it keeps.
//!
//! A record takes 8 bytes here ([`Entry`]); a growing vector may hold twice that for the newest file, closed files are
//! shrunk. So a budget of 256 MiB filled with records of 400 bytes costs 5 MiB of memory.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use caregate_protocol::id::Lane;

use super::frame::{Acked, Listed, State};
use super::scan::Found;

const LEN_BITS: u32 = 24;
const LANE_SHIFT: u32 = LEN_BITS;
const ACKED: u32 = 1 << 31;

/// A record's place: offset in its file (0: lost), then length of its frame (24 bits), lane (2 bits), acknowledged (1 bit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    offset: u32,
    bits: u32,
}

const _: () = assert!(size_of::<Entry>() == 8, "the bound in the module's text");

impl Entry {
    /// A position whose record is gone; counts as acknowledged, since nobody can send it.
    pub(super) const LOST: Self = Self { offset: 0, bits: ACKED };

    pub(super) fn new(found: &Found) -> Self {
        debug_assert!(found.frame_len >> LEN_BITS == 0, "RECORD_BYTES_MAX is far below");
        Self { offset: found.offset, bits: found.frame_len | (found.lane as u32) << LANE_SHIFT }
    }

    pub(super) fn is_lost(self) -> bool {
        self.offset == 0
    }

    pub(super) fn is_acked(self) -> bool {
        self.bits & ACKED != 0
    }

    pub(super) fn offset(self) -> u32 {
        self.offset
    }

    pub(super) fn frame_len(self) -> u32 {
        self.bits & ((1 << LEN_BITS) - 1)
    }

    fn lane_number(self) -> usize {
        (self.bits >> LANE_SHIFT & 3) as usize
    }
}

/// One file's records. Its positions end where the next file's begin.
#[derive(Debug)]
pub(super) struct FileIndex {
    pub(super) serial: u64,
    pub(super) first: u64,
    pub(super) state: State,
    pub(super) file: Arc<File>,
    /// Bytes that it takes on disk, without preallocated room.
    pub(super) bytes: u64,
    /// Entry `i` is position `first + i`.
    pub(super) entries: Vec<Entry>,
    /// Per lane, how many entries are neither acknowledged nor lost.
    pub(super) unacked: [u64; 4],
}

impl FileIndex {
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn is_done(&self) -> bool {
        self.unacked == [0; 4]
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if !entry.is_acked() {
            self.unacked[entry.lane_number()] += 1;
        }
        self.entries.push(entry);
    }

    /// Marks those of `positions` that lie here; true if any was not yet.
    pub(super) fn ack(&mut self, positions: &Range<u64>) -> bool {
        let mut any = false;
        for i in self.slots(positions) {
            let entry = &mut self.entries[i];
            if !entry.is_acked() {
                entry.bits |= ACKED;
                self.unacked[entry.lane_number()] -= 1;
                any = true;
            }
        }
        any
    }

    /// The acknowledged positions from `position` on.
    pub(super) fn acked_from(&self, position: u64) -> Vec<u64> {
        let from = self.slots(&(0..position)).end;
        let acked = self.entries.iter().enumerate().skip(from).filter(|(_, e)| e.is_acked());
        acked.map(|(i, _)| self.first + i as u64).collect()
    }

    /// Forgets the positions from `position` on: a newer file holds them.
    pub(super) fn cut(&mut self, position: u64) {
        let keep = self.slots(&(0..position)).end;
        for entry in self.entries.drain(keep..) {
            if !entry.is_acked() {
                self.unacked[entry.lane_number()] -= 1;
            }
        }
    }

    /// `positions`, clipped to this file, as indices into `entries`.
    fn slots(&self, positions: &Range<u64>) -> Range<usize> {
        let clip = |p: u64| usize::try_from(p.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let end = clip(positions.end).min(self.entries.len());
        clip(positions.start).min(end)..end
    }

    /// For the manifest: this file's positions below `end`.
    pub(super) fn listed(&self, end: u64) -> Listed {
        let entries = &self.entries[self.slots(&(0..end))];
        let acked = if entries.iter().all(|e| e.is_acked()) {
            Acked::All
        } else if entries.iter().all(|e| !e.is_acked()) {
            Acked::None
        } else {
            let byte = |c: &[Entry]| c.iter().rev().fold(0_u8, |byte, e| byte << 1 | u8::from(e.is_acked()));
            Acked::Bitmap(entries.chunks(8).map(byte).collect())
        };
        Listed { serial: self.serial, positions: self.first..self.first + entries.len() as u64, acked }
    }
}

/// All files that are retained, oldest first.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) files: Vec<FileIndex>,
}

/// Where to read a record.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) serial: u64,
    pub(super) file: Arc<File>,
    pub(super) offset: u32,
    pub(super) frame_len: u32,
}

impl Index {
    /// The file in which `position` would lie. Where a file was replaced by one that begins at the same position, the newer.
    fn slot(&self, position: u64) -> Option<usize> {
        self.files.partition_point(|f| f.first <= position).checked_sub(1)
    }

    pub(super) fn place(&self, position: u64) -> Option<Place> {
        let file = &self.files[self.slot(position)?];
        let entry = file.entries.get(usize::try_from(position - file.first).ok()?)?;
        (!entry.is_lost()).then(|| Place {
            serial: file.serial,
            file: Arc::clone(&file.file),
            offset: entry.offset(),
            frame_len: entry.frame_len(),
        })
    }

    /// Marks positions; returns the ranges, clipped to what is retained, in which something was new.
    pub(super) fn ack(&mut self, positions: Range<u64>) -> Vec<Range<u64>> {
        let from = self.slot(positions.start).unwrap_or(0);
        let mut new = Vec::new();
        for file in self.files.iter_mut().skip(from).take_while(|f| f.first < positions.end) {
            if file.ack(&positions) {
                new.push(positions.start.max(file.first)..positions.end.min(file.end()));
            }
        }
        new
    }

    /// The lowest position at or after `from` in `lane` that is not acknowledged.
    pub(super) fn next_unacked(&self, lane: Lane, from: u64) -> Option<u64> {
        let lane = lane as usize;
        self.files.iter().skip(self.slot(from).unwrap_or(0)).filter(|f| f.unacked[lane] > 0).find_map(
            |file| {
                let skip = usize::try_from(from.saturating_sub(file.first)).unwrap_or(usize::MAX);
                let mut rest = file.entries.iter().enumerate().skip(skip);
                let (i, _) = rest.find(|(_, e)| !e.is_acked() && e.lane_number() == lane)?;
                Some(file.first + i as u64)
            },
        )
    }

    /// From the second newest file that holds the caller's state on, all files stay: should the newest checkpoint turn out
    /// to be damaged, the one before it and the records since restore the same state.
    pub(super) fn pinned_from(&self) -> u64 {
        let mut states = self.files.iter().rev().filter(|f| f.state != State::Continued).map(|f| f.serial);
        let newest = states.next();
        states.next().or(newest).unwrap_or(0)
    }

    /// The positions of the files that may be deleted; files without any count with an empty range.
    pub(super) fn done(&self) -> Vec<Range<u64>> {
        let pinned = self.pinned_from();
        self.files.iter().filter(|f| f.serial < pinned && f.is_done()).map(|f| f.first..f.end()).collect()
    }

    /// Takes out the files that may be deleted; returns their numbers.
    pub(super) fn take_done(&mut self) -> Vec<u64> {
        let pinned = self.pinned_from();
        let done = |f: &FileIndex| f.serial < pinned && f.is_done();
        let serials = self.files.iter().filter(|f| done(f)).map(|f| f.serial).collect();
        self.files.retain(|f| !done(f));
        serials
    }

    pub(super) fn unacked(&self) -> [u64; 4] {
        self.files.iter().fold([0; 4], |sum, f| std::array::from_fn(|lane| sum[lane] + f.unacked[lane]))
    }

    pub(super) fn oldest_unacked(&self) -> Option<u64> {
        let file = self.files.iter().find(|f| !f.is_done())?;
        let i = file.entries.iter().position(|e| !e.is_acked())?;
        Some(file.first + i as u64)
    }
}
