//! Flows, groups and meters on disk, so that a sensor that was quarantined is so after a restart without a controller.
//!
//! ```text
//!   +----------------------+--------+-----------------------------------------------------------------------+
//!   | "caregate flows 1\n" | CRC32C | meter-mods, group-mods and flow-mods that add them, as on the wire    |
//!   +----------------------+--------+-----------------------------------------------------------------------+
//! ```
//! The file is replaced in one step, synced with its folder. A flow's durations and counters are not kept: its timeouts begin
//! anew with the process.

use std::path::{Path, PathBuf};

use caregate_host::key_file::{self, Existing, KeyFileError};
use caregate_protocol::openflow::{Framer, Message};
pub use caregate_switch::kept::Kept;
use thiserror::Error;

/// Of the file's first bytes.
const MAGIC: &[u8] = b"caregate flows 1\n";
/// Longest file: 4,096 flows of 64 actions each have 8 MB, 256 groups of 32 buckets as much.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The flows can't be read or kept.
#[derive(Debug, Error)]
pub enum FlowStoreError {
    /// The file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// What it holds is no table: the disk failed, or somebody changed it. Which sensors were quarantined is not known.
    #[error("{path}: not a flow table; remove it to start without flows", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The file.
#[derive(Debug)]
pub struct FlowStore {
    path: PathBuf,
    /// As on disk; empty where there is no file.
    kept: Vec<u8>,
}

impl FlowStore {
    /// What is in `flows.of` in `dir`; nothing where there is no such file.
    ///
    /// # Errors
    /// [`FlowStoreError`].
    pub fn open(dir: &Path) -> Result<(Self, Kept), FlowStoreError> {
        let path = dir.join("flows.of");
        if !path.exists() {
            return Ok((Self { path, kept: Vec::new() }, Kept::default()));
        }
        let kept = key_file::read_up_to(&path, BYTES_MAX)?.to_vec();
        let flows = decode(&kept).ok_or_else(|| FlowStoreError::Damaged { path: path.clone() })?;
        Ok((Self { path, kept }, flows))
    }

    /// Makes an [`encode`]d file durable, in place of the one that was.
    ///
    /// # Errors
    /// [`FlowStoreError::File`]; the file is as it was.
    pub fn keep(&mut self, bytes: Vec<u8>) -> Result<(), FlowStoreError> {
        key_file::write(&self.path, &bytes, Existing::Replace)?;
        self.kept = bytes;
        Ok(())
    }

    /// Whether the file holds this already.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.kept == bytes
    }
}

/// The file that holds this.
#[must_use]
pub fn encode(kept: &Kept) -> Vec<u8> {
    let mut bytes = [MAGIC, &[0; 4]].concat();
    let meters = kept.meters.iter().cloned().map(Message::MeterMod);
    let groups = kept.groups.iter().cloned().map(Message::GroupMod);
    let flows = kept.flows.iter().cloned().map(Message::FlowMod);
    for message in meters.chain(groups).chain(flows) {
        // Each came in a message and is no longer than it.
        bytes.extend(message.encode(0).unwrap_or_default());
    }
    let sum = crc32c::crc32c(&bytes[MAGIC.len() + 4..]);
    bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// What a file holds; none where it is damaged.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Kept> {
    let (sum, messages) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    if crc32c::crc32c(messages) != u32::from_be_bytes(*sum) {
        return None;
    }
    let (mut framer, mut rest, mut kept) = (Framer::new(), messages, Kept::default());
    loop {
        let taken = framer.accept(rest);
        rest = &rest[taken..];
        while let Some(frame) = framer.next_frame().ok()? {
            let (_, message) = Message::decode(frame).ok()?;
            if let Message::FlowMod(flow) = message {
                kept.flows.push(flow);
            } else if let Message::GroupMod(group) = message {
                kept.groups.push(group);
            } else if let Message::MeterMod(meter) = message {
                kept.meters.push(meter);
            } else {
                return None;
            }
        }
        if taken == 0 {
            return rest.is_empty().then_some(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use caregate_protocol::openflow::{
        Action, Band, BandAction, Bucket, Command, FlowMod, GroupCommand, GroupMod, GroupType, Match,
        MeterCommand, MeterMod,
    };

    use super::*;

    fn flow(cookie: u64) -> FlowMod {
        FlowMod { cookie, pattern: Match::any().in_port(1), ..FlowMod::new(Command::Add, 1, 7) }
    }

    #[test]
    fn flows_survive_and_the_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, kept) = FlowStore::open(dir.path()).unwrap();
        assert_eq!((kept, store.holds(&encode(&Kept::default()))), (Kept::default(), false));
        // More than one longest message.
        let many: Vec<_> = (0..1200).map(flow).collect();
        let bands = vec![Band { rate: 1000, burst_size: 7, action: BandAction::Drop }];
        let meter = MeterMod { command: MeterCommand::Add, flags: 1, meter_id: 3, bands };
        let buckets = vec![Bucket::new(vec![Action::output(2)]); 2];
        let group = GroupMod { command: GroupCommand::Add, group_type: GroupType::All, group_id: 0, buckets };
        let all = Kept { meters: vec![meter], groups: vec![group], flows: vec![flow(5)] };
        for kept in [vec![flow(1), flow(2)].into(), Kept::default(), many.into(), all] {
            store.keep(encode(&kept)).unwrap();
            assert!(store.holds(&encode(&kept)) && !store.holds(&encode(&vec![flow(9)].into())));
            assert_eq!(FlowStore::open(dir.path()).unwrap().1, kept);
        }
        let mode = std::fs::metadata(dir.path().join("flows.of")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn each_damaged_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        FlowStore::open(dir.path()).unwrap().0.keep(encode(&vec![flow(1)].into())).unwrap();
        let path = dir.path().join("flows.of");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(FlowStore::open(dir.path()), Err(FlowStoreError::Damaged { .. })), "{at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(FlowStore::open(dir.path()).is_err(), "cut to {at}");
        }
    }
}
