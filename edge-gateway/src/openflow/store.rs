//! The flows of table 1 on disk, so that a sensor that was quarantined is so after a restart without a controller.
//!
//! ```text
//!   +----------------------+--------+------------------------------------------+
//!   | "caregate flows 1\n" | CRC32C | flow-mods that add them, as on the wire  |
//!   +----------------------+--------+------------------------------------------+
//! ```
//! The file is replaced in one step, synced with its folder. A flow's durations and counters are not kept: its timeouts begin
//! anew with the process.

use std::path::{Path, PathBuf};

use caregate_host::key_file::{self, Existing, KeyFileError};
use caregate_protocol::openflow::{FlowMod, Framer, Message};
use thiserror::Error;

/// Of the file's first bytes.
const MAGIC: &[u8] = b"caregate flows 1\n";
/// Longest file: 64 flows of at most 16 actions each have 40 kB.
const BYTES_MAX: u64 = 256 * 1024;

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
    /// The flows of `flows.of` in `dir`; none where there is no such file.
    ///
    /// # Errors
    /// [`FlowStoreError`].
    pub fn open(dir: &Path) -> Result<(Self, Vec<FlowMod>), FlowStoreError> {
        let path = dir.join("flows.of");
        if !path.exists() {
            return Ok((Self { path, kept: Vec::new() }, Vec::new()));
        }
        let kept = key_file::read_up_to(&path, BYTES_MAX)?.to_vec();
        let flows = decode(&kept).ok_or_else(|| FlowStoreError::Damaged { path: path.clone() })?;
        Ok((Self { path, kept }, flows))
    }

    /// Whether the file holds these flows already.
    #[must_use]
    pub fn holds(&self, flows: &[FlowMod]) -> bool {
        self.kept == encode(flows)
    }

    /// Makes them durable, in place of those that were.
    ///
    /// # Errors
    /// [`FlowStoreError::File`]; the file is as it was.
    pub fn keep(&mut self, flows: &[FlowMod]) -> Result<(), FlowStoreError> {
        let bytes = encode(flows);
        key_file::write(&self.path, &bytes, Existing::Replace)?;
        self.kept = bytes;
        Ok(())
    }
}

/// The file that holds these flows.
#[must_use]
pub fn encode(flows: &[FlowMod]) -> Vec<u8> {
    // Each came in a message and is no longer than it.
    let messages: Vec<u8> =
        flows.iter().filter_map(|flow| Message::FlowMod(flow.clone()).encode(0).ok()).flatten().collect();
    [MAGIC, &crc32c::crc32c(&messages).to_be_bytes(), &messages].concat()
}

/// The flows of a file; none where it is damaged.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<FlowMod>> {
    let (sum, messages) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    if crc32c::crc32c(messages) != u32::from_be_bytes(*sum) {
        return None;
    }
    let (mut framer, mut rest, mut flows) = (Framer::new(), messages, Vec::new());
    loop {
        let taken = framer.accept(rest);
        rest = &rest[taken..];
        while let Some(frame) = framer.next_frame().ok()? {
            let Ok((_, Message::FlowMod(flow))) = Message::decode(frame) else { return None };
            flows.push(flow);
        }
        if taken == 0 {
            return rest.is_empty().then_some(flows);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use caregate_protocol::openflow::{Command, Match};

    use super::*;

    fn flow(cookie: u64) -> FlowMod {
        FlowMod { cookie, pattern: Match::any().in_port(1), ..FlowMod::new(Command::Add, 1, 7) }
    }

    #[test]
    fn flows_survive_and_the_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, flows) = FlowStore::open(dir.path()).unwrap();
        assert_eq!((flows, store.holds(&[])), (vec![], false));
        // More than one longest message.
        let many: Vec<_> = (0..1200).map(flow).collect();
        for flows in [vec![flow(1), flow(2)], vec![], many] {
            store.keep(&flows).unwrap();
            assert!(store.holds(&flows) && !store.holds(&[flow(9)]));
            assert_eq!(FlowStore::open(dir.path()).unwrap().1, flows);
        }
        let mode = std::fs::metadata(dir.path().join("flows.of")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn each_damaged_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        FlowStore::open(dir.path()).unwrap().0.keep(&[flow(1)]).unwrap();
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
