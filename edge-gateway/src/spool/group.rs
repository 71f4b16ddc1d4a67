//! A group's way to the disk: here and now, or on the syncing thread while the next one is appended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::SpoolError;
use super::file::{Current, Head, Kept, Pending};
use super::frame::{Header, State};
use super::index::Entry;
use super::log::{Log, terminator};
use super::reader::lock;
use super::syncer::Flight;

/// Memory kept for the next group: that of a usual one, and not that of zeroes ahead.
const IDLE_BYTES_MAX: usize = 64 << 10;

impl Log {
    /// Makes all that was appended durable: one write, one fdatasync. Only after `Ok` may anybody acknowledge it, and only then
    /// can a [`super::Reader`] see it. Without anything appended it does nothing.
    ///
    /// # Errors
    /// [`SpoolError::SyncFailed`], [`SpoolError::Stopped`]: nothing of the batch may be acknowledged. Drop the log and open it
    /// again; its [`super::Recovery`] is the truth about what the batch left behind.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        self.finish_sync()?;
        if self.pending.records.is_empty() {
            return Ok(());
        }
        self.add_acks(self.limits.soft_end(self.current.capacity));
        self.commit()
    }

    /// Begins to make durable what was appended, on another thread; [`Self::landed`] tells when [`Self::finish_sync`] will not have to
    /// wait. Until then more may be appended, for the next sync. Does nothing while one is under way, or where nothing was appended.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn begin_sync(&mut self) -> Result<(), SpoolError> {
        if self.stopped {
            return Err(SpoolError::Stopped);
        }
        let Some(first) = self.pending.records.first().map(|record| record.position) else { return Ok(()) };
        if self.flying.is_none() {
            self.add_acks(self.limits.soft_end(self.current.capacity));
            let flight = self.take_off();
            self.flying = Some((flight.len as u64, first));
            self.syncer.send(flight).inspect_err(|_gone| self.stopped = true)?;
        }
        Ok(())
    }

    /// Waits for the sync that is under way, if there is one.
    ///
    /// # Errors
    /// As [`Self::sync`], of what was appended before [`Self::begin_sync`].
    pub fn finish_sync(&mut self) -> Result<(), SpoolError> {
        if self.stopped {
            return Err(SpoolError::Stopped);
        }
        if self.flying.is_none() {
            return Ok(());
        }
        let (flight, written, took) = self.syncer.wait().inspect_err(|_gone| self.stopped = true)?;
        self.flying = None;
        self.sync_took = took;
        self.land(flight, written)
    }

    /// Whether a sync is under way.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.flying.is_some()
    }

    /// Bytes that were appended and are not on their way to the disk yet.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.pending.len()
    }

    /// Told once for each sync on the other thread that has come to its end.
    #[must_use]
    pub fn landed(&self) -> Arc<Notify> {
        Arc::clone(&self.syncer.landed)
    }

    /// How long the newest group took to be written and synced; nothing before the first.
    #[must_use]
    pub fn sync_took(&self) -> Duration {
        self.sync_took
    }

    /// Position of the next record.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// All records below this position are on stable storage.
    #[must_use]
    pub fn durable(&self) -> u64 {
        let pending = self.pending.records.first().map(|record| record.position);
        self.flying.map(|(_, first)| first).or(pending).unwrap_or(self.next)
    }

    /// Writes and syncs what is pending, here and now. Nothing may be under way.
    pub(super) fn commit(&mut self) -> Result<(), SpoolError> {
        let (flight, written, took) = self.take_off().run(&self.disk);
        self.sync_took = took;
        self.land(flight, written)
    }

    /// The pending group, with what is written behind it.
    fn take_off(&mut self) -> Flight {
        let Current { serial, ref file, end: at, capacity, .. } = self.current;
        let file = Arc::clone(file);
        let mut group = std::mem::replace(&mut self.pending, std::mem::take(&mut self.idle));
        let len = group.bytes.len();
        let terminated = len + terminator(at + len as u64, capacity);
        let ahead = self.current.ahead(at + terminated as u64);
        group.bytes.resize(terminated + ahead, 0);
        self.acks.drain(..group.acks);
        self.counted.syncs += 1;
        self.current.written = self.current.written.max(at + group.len());
        let room = capacity.saturating_sub(at);
        let direct =
            self.current.direct.as_ref().filter(|direct| direct.ends(group.bytes.len()) <= room).cloned();
        self.counted.written_bytes +=
            direct.as_ref().map_or(group.bytes.len(), |direct| direct.touched(group.bytes.len())) as u64;
        if let Some(direct) = &mut self.current.direct {
            direct.advance(at, &group.bytes[..len]);
        }
        Flight { serial, file, at, direct, group, len }
    }

    /// A group is written and synced, or not.
    fn land(&mut self, flight: Flight, written: Result<(), SpoolError>) -> Result<(), SpoolError> {
        let mut group = flight.group;
        self.counted.payload_bytes += group.payload_bytes;
        if let Err(first) = written {
            self.counted.syncs_failed += 1;
            if let Err(second) = self.replace(&group) {
                self.stopped = true;
                return Err(SpoolError::SyncFailed { first: Box::new(first), second: Box::new(second) });
            }
        } else {
            self.counted.framed_bytes += flight.len as u64;
            self.current.advance(&group);
            let mut index = lock(&self.index);
            if let Some(newest) = index.files.last_mut() {
                newest.bytes = self.current.end;
                group.records.iter().for_each(|found| newest.push(Entry::new(found)));
            }
        }
        group.clear();
        if group.bytes.capacity() <= IDLE_BYTES_MAX {
            self.idle = group;
        }
        self.ask_for_spare();
        Ok(())
    }

    /// After a failed sync: what was not synced, and the records whose block was written again, go to a new file, durably.
    fn replace(&mut self, failed: &Pending) -> Result<(), SpoolError> {
        let mut carried = self.current.tail.clone();
        carried.extend(failed.keep(self.current.end, 0));
        // What was appended meanwhile would lie behind it.
        let pending = std::mem::take(&mut self.pending);
        carried.extend(pending.keep(self.current.end + failed.len(), 0));
        self.counted.payload_bytes += pending.payload_bytes;
        let first = carried.first().map_or(self.next, |r| r.position);
        let header = Header { serial: self.current.serial + 1, first, state: State::Continued };
        let head = Head::new(header, &self.listed(first), None, &carried);
        let begun = self.begin(&head)?;
        self.switch(begun, &head);
        self.current.tail = carried_tail(&head, carried, self.current.end);
        Ok(())
    }
}

/// Of the carried records, those that share the block at the new file's `end`.
fn carried_tail(head: &Head, carried: Vec<Kept>, end: u64) -> Vec<Kept> {
    let placed = carried
        .into_iter()
        .zip(&head.records)
        .map(|(kept, found)| Kept { offset: found.offset.into(), ..kept });
    placed.filter(|kept| kept.reaches(Current::block(end))).collect()
}
