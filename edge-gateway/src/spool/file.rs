//! The file that is appended to: what its head is made of, and what is buffered for it.

use std::fs::File;
use std::sync::Arc;

use caregate_protocol::id::Lane;

use super::direct::Led;
use super::frame::{FILE_HEADER, FRAME_HEADER, Frame, Header, Kind, Listed, encode, encode_manifest};
use super::scan::Found;

/// Unit in which the page cache writes: a write that ends inside a block writes again what stands before it in that block.
const BLOCK: u64 = 4096;

/// Zeroes written ahead of the records in a file whose blocks are new: one journal commit for so many bytes in place of one for each
/// group, whose blocks alone would be many times what a small group writes. A journal commit waits for what others write to the same
/// file system, so they should be few; a sync with the zeroes takes some 50 ms on flash at 20 MB/s.
const AHEAD_BYTES: u64 = 1 << 20;

/// The newest file.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) serial: u64,
    pub(super) file: Arc<File>,
    /// Where the next group goes. All before it is synced.
    pub(super) end: u64,
    /// Bytes allocated.
    pub(super) capacity: u64,
    /// False where the file system can't reserve room.
    pub(super) reserved: bool,
    /// Up to here blocks have been written before, by us or in an earlier life of the file. A sync of a block that is only allocated
    /// takes a commit of the file system's journal.
    pub(super) written: u64,
    /// The synced records that share the block at `end`: the next write writes that block again, so should its sync fail, they are
    /// in doubt too. Less than a block of frames, plus one record that reaches into it.
    pub(super) tail: Vec<Kept>,
    /// Writes past the page cache, where the file system has them.
    pub(super) direct: Option<Led>,
}

/// A record in memory.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) position: u64,
    pub(super) lane: Lane,
    /// Where its frame begins in the file.
    pub(super) offset: u64,
    pub(super) payload: Vec<u8>,
}

impl Kept {
    pub(super) fn reaches(&self, offset: u64) -> bool {
        self.offset + (FRAME_HEADER + self.payload.len()) as u64 > offset
    }
}

/// Frames since the last sync.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<Found>,
    pub(super) payload_bytes: u64,
    /// The acks among them.
    pub(super) acks: usize,
}

impl Pending {
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Adds a record that will lie in the file from `end + self.len()` on.
    pub(super) fn record(&mut self, serial: u64, end: u64, position: u64, lane: Lane, payload: &[u8]) {
        let before = self.bytes.len();
        let offset = u32::try_from(end + self.len()).unwrap_or(u32::MAX);
        self.frame(serial, end, position, Kind::Record(lane), payload);
        let frame_len = u32::try_from(self.bytes.len() - before).unwrap_or(u32::MAX);
        self.records.push(Found { position, offset, frame_len, lane });
        self.payload_bytes += payload.len() as u64;
    }

    pub(super) fn frame(&mut self, serial: u64, end: u64, position: u64, kind: Kind, payload: &[u8]) {
        // A file ends below 2³² (`Limits::check`), so neither conversion here ever saturates.
        let group = u32::try_from(end).unwrap_or(u32::MAX);
        encode(&mut self.bytes, serial, &Frame { kind, position, group, payload });
    }

    /// The records, as they are to be written again elsewhere. `end` is where the group begins in the file.
    pub(super) fn keep(&self, end: u64, reaching: u64) -> impl Iterator<Item = Kept> {
        self.records.iter().filter_map(move |r| {
            let offset = u64::from(r.offset);
            let start = usize::try_from(offset - end).ok()?;
            let kept = Kept { position: r.position, lane: r.lane, offset, payload: Vec::new() };
            let frame = self.bytes.get(start..start + r.frame_len as usize)?;
            (offset + frame.len() as u64 > reaching)
                .then(|| Kept { payload: frame[FRAME_HEADER..].to_vec(), ..kept })
        })
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.payload_bytes = 0;
        self.acks = 0;
    }
}

impl Current {
    /// The group that `pending` holds is synced: move on.
    pub(super) fn advance(&mut self, pending: &Pending) {
        let end = self.end + pending.len();
        let block = Self::block(end);
        self.tail.retain(|r| r.reaches(block));
        self.tail.extend(pending.keep(self.end, block));
        self.end = end;
    }

    /// How many zeroes more are to be written where a group ends at `end`. None where room is not reserved: they might take what a
    /// group needs.
    pub(super) fn ahead(&self, end: u64) -> usize {
        let wanted = self.reserved && end > self.written;
        let zeroes = if wanted { AHEAD_BYTES.min(self.capacity.saturating_sub(end)) } else { 0 };
        usize::try_from(zeroes).unwrap_or(0)
    }

    /// Where the block begins that the next write writes again.
    pub(super) fn block(end: u64) -> u64 {
        end - end % BLOCK
    }
}

/// The first bytes of a file, and the records in them.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) header: Header,
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<Found>,
}

impl Head {
    pub(super) fn new(header: Header, older: &[Listed], checkpoint: Option<&[u8]>, carried: &[Kept]) -> Self {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let mut group = Pending { bytes, ..Pending::default() };
        let end = FILE_HEADER as u64;
        let (serial, first) = (header.serial, header.first);
        group.frame(serial, end, first, Kind::Manifest, &encode_manifest(older.iter()));
        if let Some(checkpoint) = checkpoint {
            group.frame(serial, end, first, Kind::Checkpoint, checkpoint);
        }
        let mut expected = first;
        for record in carried {
            // A torn write had left a hole among them. As long as its records were at least, as where it was: a reader takes no
            // position that is further on than frames fit.
            if let Some(torn) = record.position.checked_sub(expected).filter(|torn| *torn > 0) {
                let zeroes = usize::try_from(torn - 1).unwrap_or(0) * FRAME_HEADER;
                group.frame(serial, end, record.position, Kind::Hole, &vec![0; zeroes]);
            }
            expected = record.position + 1;
            let offset = u32::try_from(group.len()).unwrap_or(u32::MAX);
            let kind = Kind::Record(record.lane);
            group.frame(serial, end, record.position, kind, &record.payload);
            let frame_len = u32::try_from(FRAME_HEADER + record.payload.len()).unwrap_or(u32::MAX);
            group.records.push(Found { position: record.position, offset, frame_len, lane: record.lane });
        }
        Self { header, bytes: group.bytes, records: group.records }
    }
}
