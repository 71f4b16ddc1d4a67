//! The log: append, sync, rotate, let go.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caregate_protocol::id::Lane;

use super::disk::{Created, Disk};
use super::file::{Current, Head, Pending};
use super::frame::{FRAME_HEADER, Header, Kind, Listed, State, encode_acks};
use super::index::{Entry, FileIndex, Index};
use super::keeper::{Keeper, Task};
use super::limits::Limits;
use super::reader::{Reader, lock};
use super::syncer::Syncer;
use super::{Position, Recovery, SpoolError, recover};

/// Most ack ranges that wait for a group commit; then they get one of their own. 64 KiB as a frame.
const ACK_RANGES_MAX: usize = 4000;
/// After the disk was full, try to make a file again after so many refusals (no clock here); or at once when a file went.
const REFUSALS_PER_TRY: u32 = 1024;

/// Figures for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all files, without preallocated room.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Records that are retained.
    pub records: u64,
    /// Of them not acknowledged by the core, per lane.
    pub unacked: [u64; 4],
    /// The oldest of those.
    pub oldest_unacked: Option<Position>,
    /// Number of the next record.
    pub next: Position,
    /// Bytes of payload synced since open.
    pub payload_bytes: u64,
    /// Bytes of frames synced since open, acks among them.
    pub framed_bytes: u64,
    /// Bytes handed to the file system since open: frames, heads, acks. Over `framed_bytes` it is the log's own write amplification.
    pub written_bytes: u64,
    /// Group commits since open.
    pub syncs: u64,
    /// Syncs that failed since open; each made a new file, or stopped the log.
    pub syncs_failed: u64,
    /// Whether room on disk is physically reserved. False on file systems without `fallocate`.
    pub reserved: bool,
}

/// As in [`Stats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// [`Stats::framed_bytes`].
    pub framed_bytes: u64,
    /// [`Stats::written_bytes`].
    pub written_bytes: u64,
}

impl Default for Position {
    /// The first position of a new log.
    fn default() -> Self {
        Self(1)
    }
}

/// The spool, owned by one thread. All calls block.
#[derive(Debug)]
pub struct Log {
    pub(super) disk: Arc<Disk>,
    pub(super) keeper: Keeper,
    pub(super) limits: Limits,
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) current: Current,
    pub(super) pending: Pending,
    pub(super) syncer: Syncer,
    /// Bytes of the group that is being synced, behind which the pending one will lie, and its first position.
    pub(super) flying: Option<(u64, u64)>,
    pub(super) sync_took: Duration,
    /// Memory of a group that is through, for the next one.
    pub(super) idle: Pending,
    /// Ranges marked in the index that no frame holds yet.
    pub(super) acks: Vec<Range<u64>>,
    /// Position of the next record, with those pending.
    pub(super) next: u64,
    /// Bytes of all files but the newest.
    pub(super) closed_bytes: u64,
    /// The newest file has no checkpoint, because it was begun after a failed sync.
    pub(super) continued: bool,
    /// A spare was asked for since the newest file began.
    pub(super) spare_asked: bool,
    /// The disk was full when a file was to be made: refusals until the next try.
    pub(super) full_for: u32,
    pub(super) stopped: bool,
    pub(super) counted: Stats,
}

impl Log {
    /// Opens or creates the spool in `dir` and recovers what is there.
    ///
    /// # Errors
    /// [`SpoolError::Locked`], [`SpoolError::Limits`], [`SpoolError::Version`], [`SpoolError::FileTooLarge`], [`SpoolError::Io`]
    /// and [`SpoolError::NoSpace`]. Torn and damaged files are no errors; [`Recovery`] tells of them.
    pub fn open(dir: &Path, limits: Limits) -> Result<(Self, Recovery), SpoolError> {
        limits.check()?;
        recover::open(Disk::open(dir)?, limits)
    }

    /// The same on a disk of the tests.
    #[cfg(test)]
    pub(crate) fn open_with(
        dir: &Path,
        limits: Limits,
        faults: Arc<crate::faults::Faults>,
    ) -> Result<(Self, Recovery), SpoolError> {
        recover::open(Disk::open_with(dir, faults)?, limits)
    }

    /// With its syncs on a thread of their own, which tests don't have else; and what can be made of their disk.
    #[cfg(test)]
    pub(crate) fn on_thread(&mut self) -> Arc<crate::faults::Faults> {
        self.syncer = Syncer::start(Arc::clone(&self.disk)).on_thread();
        Arc::clone(&self.disk.faults)
    }

    /// Takes a record for the next sync. On an error nothing was taken.
    ///
    /// # Errors
    /// [`SpoolError::Full`] is the refusal; [`SpoolError::BatchFull`] wants [`Self::sync`] and [`Self::rotate`] first and can't
    /// occur while batches keep to [`Limits::batch_bytes_max`]; [`SpoolError::Oversized`]; [`SpoolError::Stopped`].
    pub fn append(&mut self, lane: Lane, payload: &[u8]) -> Result<Position, SpoolError> {
        self.append_below(lane, payload, (lane, self.limits.lane_bytes_max[lane as usize]), 0)
    }

    /// The same for a record that is only said again, which never uses the room that is kept for alarms.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_unreserved(&mut self, lane: Lane, payload: &[u8]) -> Result<Position, SpoolError> {
        let like = lane.max(Lane::Vitals);
        self.append_below(lane, payload, (like, self.limits.lane_bytes_max[like as usize]), 0)
    }

    /// The same for a record that tells what is to be let go: where the spool is full it may use half of the room for acks, else
    /// nothing could ever be let go.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_telling(&mut self, lane: Lane, payload: &[u8]) -> Result<Position, SpoolError> {
        let extra = if self.is_blocked() { self.limits.telling_end(self.current.capacity) } else { 0 };
        self.append_below(lane, payload, (lane, u64::MAX), extra)
    }

    /// Appends below `bytes_max` in all, and below the end in the file of what is `like` it, or `end_min`, whichever is further.
    fn append_below(
        &mut self,
        lane: Lane,
        payload: &[u8],
        (like, bytes_max): (Lane, u64),
        end_min: u64,
    ) -> Result<Position, SpoolError> {
        if self.stopped {
            return Err(SpoolError::Stopped);
        }
        let max = self.limits.record_bytes_max();
        if payload.len() > max {
            return Err(SpoolError::Oversized { what: "record", len: payload.len(), max });
        }
        let frame = (FRAME_HEADER + payload.len()) as u64;
        let end = self.base() + self.pending.len() + frame;
        let blocked = self.is_blocked();
        let file_end = self.limits.file_end(like, self.current.capacity, blocked).max(end_min);
        if end > file_end && !blocked {
            return Err(SpoolError::BatchFull);
        }
        if end > file_end || self.closed_bytes + end > bytes_max {
            self.full_for = self.full_for.saturating_sub(1);
            return Err(SpoolError::Full { lane });
        }
        let position = self.next;
        self.pending.record(self.current.serial, self.base(), position, lane, payload);
        self.next += 1;
        Ok(Position(position))
    }

    /// Whether [`Self::rotate`] should be called before the next batch. False while no further file can be made.
    #[must_use]
    pub fn rotation_due(&self) -> bool {
        let end = self.base() + self.pending.len();
        let wanted = self.continued || end >= self.limits.rotate_from(self.current.capacity);
        wanted && !self.stopped && !self.is_blocked()
    }

    /// Begins a new file with `checkpoint`: the caller's state after all records appended so far. Syncs those first.
    ///
    /// # Errors
    /// [`SpoolError::NoSpace`]: the present file goes on, until it refuses; no need to act. [`SpoolError::Oversized`]. After any
    /// other error as after a failed [`Self::sync`].
    pub fn rotate(&mut self, checkpoint: &[u8]) -> Result<(), SpoolError> {
        self.sync()?;
        let max = self.limits.checkpoint_bytes_max();
        if checkpoint.len() > max {
            return Err(SpoolError::Oversized { what: "checkpoint", len: checkpoint.len(), max });
        }
        if self.is_over_budget() {
            let path = self.disk.path(self.current.serial + 1);
            let source = io::Error::new(io::ErrorKind::StorageFull, "the spool's budget is used");
            return Err(SpoolError::NoSpace { path, source });
        }
        let header = Header { serial: self.current.serial + 1, first: self.next, state: State::Checkpoint };
        let head = Head::new(header, &self.listed(self.next), Some(checkpoint), &[]);
        let mut begun = self.begin(&head);
        if matches!(begun, Err(SpoolError::NoSpace { .. })) {
            // What is being let go may be the room that it wants.
            self.keeper.wait();
            begun = self.begin(&head);
        }
        match begun {
            Ok(begun) => {
                self.close();
                self.switch(begun, &head);
                self.sweep()
            }
            Err(error @ SpoolError::NoSpace { .. }) => {
                self.full_for = REFUSALS_PER_TRY;
                Err(error)
            }
            Err(error) => {
                self.stopped = true;
                Err(error)
            }
        }
    }

    /// The core has these: their files may go. Positions that are unknown, not synced or acknowledged before change nothing.
    ///
    /// # Errors
    /// As [`Self::sync`]: when whole files can go, the acks are synced first (with what is appended).
    pub fn ack(&mut self, positions: RangeInclusive<u64>) -> Result<(), SpoolError> {
        let range = *positions.start()..positions.end().saturating_add(1);
        let new = lock(&self.index).ack(range);
        for range in new {
            match self.acks.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => self.acks.push(range),
            }
        }
        if self.stopped {
            return Err(SpoolError::Stopped);
        }
        self.let_go()
    }

    /// A handle for reading, for any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { index: Arc::clone(&self.index) }
    }

    /// The limits it was opened with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of all files, without preallocated room.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.closed_bytes + self.current.end
    }

    /// What has been written since open.
    #[must_use]
    pub fn written(&self) -> Written {
        let written_bytes = self.counted.written_bytes + self.keeper.written();
        Written { framed_bytes: self.counted.framed_bytes, written_bytes }
    }

    /// Figures for metrics. Walks through the index: not for each commit.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let index = lock(&self.index);
        Stats {
            bytes: self.bytes(),
            files: index.files.len() as u64,
            records: index.files.iter().map(|f| f.entries.len() as u64).sum(),
            unacked: index.unacked(),
            oldest_unacked: index.oldest_unacked().map(Position),
            next: Position(self.next),
            reserved: self.current.reserved,
            written_bytes: self.written().written_bytes,
            ..self.counted
        }
    }

    /// Where the pending group will begin in the file.
    pub(super) fn base(&self) -> u64 {
        self.current.end + self.flying.map_or(0, |(bytes, _)| bytes)
    }

    /// No further file can be made: the budget forbids it, or the disk was full.
    fn is_blocked(&self) -> bool {
        self.is_over_budget() || self.full_for > 0
    }

    fn is_over_budget(&self) -> bool {
        self.closed_bytes + self.current.end + self.limits.capacity() > self.limits.bytes_max
    }

    /// Adds the waiting acks to the pending frames, if they end before `limit` in the file.
    pub(super) fn add_acks(&mut self, limit: u64) {
        let payload = encode_acks(&self.acks);
        let end = self.current.end + self.pending.len() + (FRAME_HEADER + payload.len()) as u64;
        if !self.acks.is_empty() && end <= limit {
            // A frame of the log's own carries the position of the next record.
            self.pending.frame(self.current.serial, self.current.end, self.next, Kind::Acks, &payload);
            self.pending.acks = self.acks.len();
        }
    }

    /// Deletes what is acknowledged in whole, after making durable that it is, so that no restart calls it missing.
    fn let_go(&mut self) -> Result<(), SpoolError> {
        let done = lock(&self.index).done();
        self.acks.retain(|r| !done.iter().any(|d| d.start <= r.start && r.end <= d.end));
        if !done.is_empty() {
            // What is being synced would lie where these acks are to go.
            self.finish_sync()?;
            let payload = encode_acks(&done);
            let end = self.current.end + self.pending.len() + (FRAME_HEADER + payload.len()) as u64;
            // Should even the acks' room be used up, then space counts for more than a clean report.
            if end <= self.limits.acks_end(self.current.capacity) {
                self.pending.frame(self.current.serial, self.current.end, self.next, Kind::Acks, &payload);
                self.add_acks(self.limits.soft_end(self.current.capacity));
                self.commit()?;
            }
            self.sweep()?;
        }
        if self.acks.len() >= ACK_RANGES_MAX {
            self.finish_sync()?;
            self.add_acks(self.limits.soft_end(self.current.capacity));
            if self.pending.acks > 0 {
                self.commit()?;
            }
            // Where they don't fit, the next manifest holds them; a kill before that sends some records twice.
            self.acks.clear();
        }
        Ok(())
    }

    /// The manifest for a file that begins with position `first`.
    pub(super) fn listed(&self, first: u64) -> Vec<Listed> {
        lock(&self.index).files.iter().map(|f| f.listed(first)).collect()
    }

    /// Makes a file with `head` on disk.
    pub(super) fn begin(&mut self, head: &Head) -> Result<Current, SpoolError> {
        let begun = begin(&self.disk, &self.limits, head)?;
        self.counted.written_bytes += begun.end;
        Ok(begun)
    }

    /// Leaves the newest file in good order. Only hints and room: recovery does without, so errors are not the caller's.
    fn close(&mut self) {
        let Current { serial, ref file, end, .. } = self.current;
        let mut closed = Pending::default();
        closed.frame(serial, end, self.next, Kind::Closed, &[]);
        let written = self.disk.write(serial, file, end, &closed.bytes);
        let (len, file) = (end + closed.len(), Arc::clone(file));
        self.current.end = len;
        match written {
            Ok(()) => self.keeper.give(Task::Cut { serial, file, len }),
            Err(error) => tracing::warn!(%error, "spool file could not be closed in good order"),
        }
    }

    /// Goes on in the file that was begun.
    pub(super) fn switch(&mut self, begun: Current, head: &Head) {
        let mut file = indexed(&begun, head);
        let mut index = lock(&self.index);
        if let Some(old) = index.files.last_mut() {
            // Acknowledged already, those that are carried over.
            for position in old.acked_from(file.first) {
                file.ack(&(position..position + 1));
            }
            old.cut(file.first);
            old.bytes = self.current.end;
            old.entries.shrink_to_fit();
        }
        index.files.push(file);
        self.closed_bytes = index.files.iter().rev().skip(1).map(|f| f.bytes).sum();
        self.continued = head.header.state == State::Continued;
        self.acks.clear();
        self.spare_asked = false;
        self.current = begun;
    }

    /// Has the files deleted that nobody needs any more.
    pub(super) fn sweep(&mut self) -> Result<(), SpoolError> {
        let mut index = lock(&self.index);
        let done = index.take_done();
        self.closed_bytes = index.files.iter().rev().skip(1).map(|f| f.bytes).sum();
        drop(index);
        if !done.is_empty() {
            self.full_for = 0;
        }
        let capacity = self.limits.capacity();
        for serial in done {
            self.keeper.give(Task::Recycle { serial, capacity });
        }
        self.keeper.check()
    }

    /// Asks for a spare when half of the newest file is full, if one more file may be made.
    pub(super) fn ask_for_spare(&mut self) {
        if !self.spare_asked && self.current.end >= self.limits.capacity() / 2 && !self.is_blocked() {
            self.spare_asked = true;
            self.keeper.give(Task::Spare { capacity: self.limits.capacity() });
        }
    }
}

/// How many zeroes follow a group that ends at `end`: a frame's header of them, so that what a recycled file held before is not
/// taken for a torn write; or up to the end of the file.
pub(super) fn terminator(end: u64, capacity: u64) -> usize {
    usize::try_from(capacity.saturating_sub(end)).map_or(FRAME_HEADER, |room| room.min(FRAME_HEADER))
}

/// Makes a file with `head` on disk, synced with its name.
pub(super) fn begin(disk: &Disk, limits: &Limits, head: &Head) -> Result<Current, SpoolError> {
    let end = head.bytes.len() as u64;
    let capacity = limits.capacity().max(end);
    let bytes = [&head.bytes[..], &[0; FRAME_HEADER]].concat();
    let Created { file, reserved, written } = disk.create(head.header.serial, &bytes, capacity)?;
    let serial = head.header.serial;
    let direct = disk.direct(serial, &file, end, reserved);
    Ok(Current { serial, file: Arc::new(file), end, capacity, reserved, written, tail: Vec::new(), direct })
}

/// The index of a file that was just begun.
pub(super) fn indexed(begun: &Current, head: &Head) -> FileIndex {
    let mut file = FileIndex {
        serial: begun.serial,
        first: head.header.first,
        state: head.header.state,
        file: Arc::clone(&begun.file),
        bytes: begun.end,
        entries: Vec::new(),
        unacked: [0; 4],
    };
    for found in &head.records {
        while file.end() < found.position {
            file.push(Entry::LOST);
        }
        file.push(Entry::new(found));
    }
    file
}
