//! How much the spool may hold, and who is refused first.

use caregate_protocol::id::Lane;

use super::SpoolError;
use super::frame::{FRAME_HEADER, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX};

/// Room at a file's end that only acks of whole files may use, so that letting go never needs room that is not there: 1,600
/// files of 40 bytes each, before another file is begun.
const ACKS_ROOM: u64 = 64 << 10;
/// Room for the frame that closes a file and the zeroes that follow a group.
const CLOSED_ROOM: u64 = 2 * FRAME_HEADER as u64;
/// Offsets are 32 bits, and recovery reads a file at once.
const FILE_BYTES_MAX: u64 = 256 << 20;
const FILE_BYTES_MIN: u64 = 4 << 10;

/// How much the spool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Where a file ends for all lanes but alarm, in bytes. Small files are given back sooner, large ones carry fewer
    /// checkpoints.
    pub file_bytes_max: u64,
    /// All files together, in bytes.
    pub bytes_max: u64,
    /// Room in each file that only alarms may use, in bytes; it is allocated with the file.
    pub reserve_bytes: u64,
    /// Per lane (alarm, vitals, waveform, activity): beyond how many bytes in all its records are refused.
    pub lane_bytes_max: [u64; 4],
}

impl Limits {
    /// Files of 8 MiB with a reserve of 256 KiB (about 600 alarm records); activity is refused beyond 70 % of the budget, waveforms
    /// beyond 85 %, vitals when only the reserve is left.
    #[must_use]
    pub fn with_budget(bytes_max: u64) -> Self {
        Self::new(8 << 20, bytes_max, 256 << 10)
    }

    /// The same shares with other sizes.
    #[must_use]
    pub fn new(file_bytes_max: u64, bytes_max: u64, reserve_bytes: u64) -> Self {
        let percent = |share: u64| bytes_max / 100 * share;
        let lane_bytes_max = [bytes_max, bytes_max.saturating_sub(reserve_bytes), percent(85), percent(70)];
        Self { file_bytes_max, bytes_max, reserve_bytes, lane_bytes_max }
    }

    /// # Errors
    /// [`SpoolError::Limits`] with what contradicts.
    pub(super) fn check(&self) -> Result<(), SpoolError> {
        let wrong = if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&self.file_bytes_max) {
            "file_bytes_max must be 4 KiB to 256 MiB"
        } else if self.reserve_bytes > self.file_bytes_max {
            "reserve_bytes must not exceed file_bytes_max"
        } else if self.bytes_max / 4 < self.capacity() {
            "bytes_max must hold four files with their reserve and 64 KiB for acks each"
        } else if !self.lane_bytes_max.is_sorted_by(|higher, lower| higher >= lower) {
            "lane_bytes_max must not grow from a higher lane to a lower one"
        } else if self.lane_bytes_max[0] > self.bytes_max {
            "lane_bytes_max of alarm must not exceed bytes_max"
        } else {
            return Ok(());
        };
        Err(SpoolError::Limits(wrong))
    }

    /// Bytes allocated for a file.
    pub(super) fn capacity(&self) -> u64 {
        self.file_bytes_max + self.reserve_bytes + ACKS_ROOM + CLOSED_ROOM
    }

    /// Where a file of `capacity` bytes ends for all lanes but alarm.
    pub(super) fn soft_end(&self, capacity: u64) -> u64 {
        capacity.min(self.capacity()).saturating_sub(self.reserve_bytes + ACKS_ROOM + CLOSED_ROOM)
    }

    /// Where a file ends for `lane`. While no further file can be made (`blocked`), the room of the last batch is divided: none for
    /// activity, half for waveforms, all for vitals.
    pub(super) fn file_end(&self, lane: Lane, capacity: u64, blocked: bool) -> u64 {
        let soft = self.soft_end(capacity);
        match lane {
            Lane::Alarm => soft + self.reserve_bytes,
            Lane::Vitals => soft,
            Lane::Waveform if blocked => soft.saturating_sub(self.batch_room() / 2),
            Lane::Activity if blocked => soft.saturating_sub(self.batch_room()),
            Lane::Waveform | Lane::Activity => soft,
        }
    }

    /// Where a file of `capacity` bytes ends for acks of whole files.
    pub(super) fn acks_end(&self, capacity: u64) -> u64 {
        self.soft_end(capacity) + self.reserve_bytes + ACKS_ROOM
    }

    /// Where a file of `capacity` bytes ends for what tells of segments that are let go: half of the acks' room, which is more than
    /// the acks of 800 files.
    pub(super) fn telling_end(&self, capacity: u64) -> u64 {
        self.soft_end(capacity) + self.reserve_bytes + ACKS_ROOM / 2
    }

    /// From where on a file is to be rotated.
    pub(super) fn rotate_from(&self, capacity: u64) -> u64 {
        self.soft_end(capacity).saturating_sub(self.batch_room())
    }

    fn batch_room(&self) -> u64 {
        self.file_bytes_max / 8
    }

    /// A batch whose payloads and 24 bytes per record stay below this always fits after a rotation that was due: one eighth of a
    /// file.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        usize::try_from(self.batch_room()).unwrap_or(usize::MAX)
    }

    /// Longest payload of a record: 1 MiB, or what a batch holds if that is less.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX.min(self.batch_bytes_max() - FRAME_HEADER)
    }

    /// Longest checkpoint: half a file, and no more than 8 MiB.
    #[must_use]
    pub fn checkpoint_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX.min(usize::try_from(self.file_bytes_max / 2).unwrap_or(usize::MAX))
    }
}
