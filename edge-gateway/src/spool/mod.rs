//! The spool: where sealed records lie on disk between the sensor's PUBACK and the core's ack.
//!
//! A segmented append-only log. One thread owns the [`Log`]: it appends a batch, calls [`Log::sync`] once, and only then may
//! anybody acknowledge what is in the batch (group commit); or it has the batch synced by another thread ([`Log::begin_sync`]) and
//! appends the next one meanwhile. Senders read through [`Reader`]s. Why a log of our own and no
//! database: `docs/adr/0002-spool.md`, with figures.
//!
//! ```text
//! spool/                       one directory, locked
//!   lock
//!   0000000000000007.log       a file, named by its serial number in hexadecimal; the newest is appended to,
//!   0000000000000008.log       the others are whole
//!   spare                      a file that was let go; the next one is made of it
//!
//! file     ┌────────┬──────────┬────────────┬────────┬────────┬─────┬────────┬────────┬────────┐
//!          │ header │ manifest │ checkpoint │ record │ record │ acks│ record │ zeroes │ room … │
//!          └────────┴──────────┴────────────┴────────┴────────┴─────┴────────┴────────┴────────┘
//!
//! header   0        8         10        12        20        28        32      all numbers little-endian
//!          │ magic  │ version │ state   │ serial  │ first   │ CRC-32C │       CRC over bytes 0..28
//!          │CGspool\n   u16   │   u16   │   u64   │   u64   │   u32   │       state: 0 genesis, 1 checkpoint, 2 continued
//!
//! frame    0         4         8         16        20     21     24
//!          │ CRC-32C │ length  │ position│ group   │ kind │ zero │ payload …
//!          │   u32   │   u32   │   u64   │   u32   │  u8  │ 3 B  │ `length` bytes
//!          CRC over the file's serial (u64) and bytes 4..24 + length; group: the file offset where the frame's group
//!          commit began; kind: 0–3 record by lane, 0x81 checkpoint, 0x82 manifest, 0x83 acks, 0x84 hole, 0x85 closed
//! ```
//!
//! * The **checkpoint** is the caller's state (chain heads, duplicate filter) before the file's first record; with the records
//!   after it the log alone restores that state. The **manifest** lists the older files that are retained and what of them is
//!   acknowledged; **acks** frames add to it, riding on the next group commit. So a file that is missing is told apart from one
//!   that was deleted, and a restart sends again only what was acknowledged in the last moments.
//! * A file is deleted when all its records are acknowledged, wherever it stands, except those from the second newest checkpoint
//!   on: if the newest checkpoint is damaged, the one before and the records since restore the same state. One deleted file
//!   stays as the spare, since to write over its blocks takes no journal commit: half the wear; where none was deleted in time, a spare is
//!   made beside the commits (`keeper`). The serial in each checksum
//!   keeps its old frames from being taken for new ones.
//! * **Torn or damaged.** Bytes that don't check out in the newest file, at or after the start of its youngest group, were not
//!   known to be synced: that is a torn write, and it is cut off. Good records in the same group are kept whatever precedes
//!   them, since they may have been acknowledged. Bad bytes anywhere else are damage: reported with the positions lost, and
//!   the scan goes on with the next good frame.
//! * **Positions** grow by one and are never reused, but for those of records that were torn: no sync covered them, so nobody
//!   ever saw their numbers.
//! * **A failed sync** proves nothing about what is on disk, and the next one would lie. All that was not synced, and the records that
//!   share the last block with it, goes to a new file, whose sync counts. If that fails as well, the log stops.
//! * **Room** for a whole file, the alarm reserve and the acks is allocated when the file is made, so the disk
//!   can't be full at a commit. When no further file can be made, the lowest lane is refused first and alarms go into the reserve.

mod direct;
mod disk;
mod file;
pub mod frame;
mod group;
mod index;
mod keeper;
mod limits;
mod log;
mod reader;
mod recover;
mod scan;
mod syncer;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use caregate_protocol::id::Lane;
use thiserror::Error;

pub use limits::Limits;
pub use log::{Log, Stats, Written};
pub use reader::Reader;

/// The number of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

/// What [`Log::open`] found.
#[derive(Debug)]
pub struct Recovery {
    /// The newest readable checkpoint; `None` in a new log.
    pub checkpoint: Option<Vec<u8>>,
    /// All records since that checkpoint, acknowledged or not, ascending. Bounded by the file size (twice that when the
    /// newest checkpoint was damaged).
    pub records: Vec<Recovered>,
    /// The last group commit that was cut off; nobody had been told that it was there.
    pub torn: Option<Torn>,
    /// What can't be read any more. Empty on a healthy disk, also after a power cut.
    pub damaged: Vec<Damage>,
}

/// A record that [`Log::open`] hands back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its number.
    pub position: Position,
    /// Its lane.
    pub lane: Lane,
    /// As appended.
    pub payload: Vec<u8>,
}

/// Bytes of a group commit that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub file: PathBuf,
    /// The bytes that made no frame.
    pub bytes: Range<u64>,
}

/// Bytes that had been synced and can't be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What was hit.
    pub what: Damaged,
    /// The file.
    pub file: PathBuf,
    /// The bytes that made no frame; empty for what is missing altogether.
    pub bytes: Range<u64>,
    /// The records that were there. For a missing newest file, the numbers that are skipped because it may have held them.
    pub positions: Range<u64>,
    /// How many of them were not known to be acknowledged by the core: these readings are lost.
    pub lost: u64,
}

/// What damage hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// The header of a file.
    Header,
    /// Records, or a frame of the log's own if there are no positions.
    Frames,
    /// A checkpoint; an older one was used.
    Checkpoint,
    /// A whole file is not there.
    FileMissing,
    /// The file after this one, the newest, is not there.
    NewestMissing,
}

/// Why the spool failed or refused.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Another process has it open.
    #[error("spool {} is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The limits contradict each other.
    #[error("spool limits: {0}")]
    Limits(&'static str),
    /// The lane's share of the budget is used, or the disk is full. Before anything was acknowledged.
    #[error("spool has no room for lane {}", lane.as_str())]
    Full {
        /// The lane that was refused.
        lane: Lane,
    },
    /// The batch has outgrown the file: sync, rotate, and append again.
    #[error("batch does not fit the file, sync and rotate first")]
    BatchFull,
    /// A payload or checkpoint above its limit.
    #[error("{what} has {len} bytes, allowed are {max}")]
    Oversized {
        /// Which of the two.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// No room on disk, or in the budget, for another file; the present one goes on.
    #[error("no room for another spool file at {}: {source}", path.display())]
    NoSpace {
        /// What was to be made.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A call to the file system failed.
    #[error("can't {op} {}: {source}", path.display())]
    Io {
        /// Which call.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A sync failed and so did writing the same to a new file. Nothing of the batch may be acknowledged; open the log again.
    #[error("sync failed ({first}), and writing to a new file too")]
    SyncFailed {
        /// Why the sync failed.
        first: Box<Self>,
        /// Why the new file failed.
        #[source]
        second: Box<Self>,
    },
    /// An earlier error left the log in doubt; open it again.
    #[error("the spool stopped at an earlier error and must be opened again")]
    Stopped,
    /// A file of a later version of this program. Nothing was changed.
    #[error("{}: {source}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Which version.
        source: frame::FrameError,
    },
    /// A file longer than any that this program makes.
    #[error("{} has {len} bytes, allowed are {max}", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// A record that was good when the log was opened can't be read any more.
    #[error("record {position} in {file:016x}.log is damaged: {source}")]
    Damaged {
        /// Which record.
        position: u64,
        /// The file's number.
        file: u64,
        /// What is wrong with it.
        source: frame::FrameError,
    },
}
