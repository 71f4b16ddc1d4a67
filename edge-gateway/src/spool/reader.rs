//! Reading records back, from any thread.

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caregate_protocol::id::Lane;

use super::frame::{FRAME_HEADER, FrameError, Kind, decode_record};
use super::index::{Index, Place};
use super::{Position, SpoolError};

/// The index is only changed in whole steps, so a thread that panicked elsewhere leaves it good.
pub(super) fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads synced records by position. Cheap to clone; shares the log's index and open files.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) index: Arc<Mutex<Index>>,
}

impl Reader {
    /// The record at `position`; `None` if it was never synced, is lost, or its file is gone because all in it is acknowledged.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; [`SpoolError::Damaged`] if the bytes are not what was written. Such a record can't be sent: count it and
    /// `ack` it, else its file is kept for ever.
    pub fn read(&self, position: Position) -> Result<Option<(Lane, Vec<u8>)>, SpoolError> {
        let mut place = lock(&self.index).place(position.0);
        while let Some(here) = place {
            match fetch(&here, position.0) {
                Ok(record) => return Ok(Some(record)),
                Err(error) => {
                    // Its file may have been let go and recycled meanwhile, or replaced after a failed sync.
                    place = lock(&self.index).place(position.0).filter(|p| p.serial != here.serial);
                    if place.is_none() && lock(&self.index).place(position.0).is_some() {
                        return Err(error);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The lowest position that may still be read.
    #[must_use]
    pub fn oldest(&self) -> Option<Position> {
        lock(&self.index).files.first().map(|file| Position(file.first))
    }

    /// The lowest position at or after `from` in `lane` that the core has not acknowledged. A sender keeps one cursor per lane.
    #[must_use]
    pub fn next_unacked(&self, lane: Lane, from: Position) -> Option<Position> {
        lock(&self.index).next_unacked(lane, from.0).map(Position)
    }
}

fn fetch(place: &Place, position: u64) -> Result<(Lane, Vec<u8>), SpoolError> {
    let mut bytes = vec![0; place.frame_len as usize];
    place.file.read_exact_at(&mut bytes, u64::from(place.offset)).map_err(|source| SpoolError::Io {
        op: "read",
        path: format!("{:016x}.log", place.serial).into(),
        source,
    })?;
    let damaged = |source| SpoolError::Damaged { position, file: place.serial, source };
    let frame = decode_record(&bytes, place.serial).map_err(damaged)?;
    let lane = match frame.kind {
        Kind::Record(lane) if frame.position == position => lane,
        Kind::Record(_) | Kind::Checkpoint | Kind::Manifest | Kind::Acks | Kind::Hole | Kind::Closed => {
            return Err(damaged(FrameError::Payload("position or kind")));
        }
    };
    bytes.drain(..FRAME_HEADER);
    Ok((lane, bytes))
}
