//! The audit log: who saw what, who could, what was granted and refused. One format for gateway, core and feed.
//!
//! ```text
//! {"n":7,"prev":"<SHA-256 of line 6, in hexadecimal>","at_ms":1790000000000,"what":"look","user":"nurse","patient":…}\n
//! ```
//! Entries are numbered from 1, one JSON object a line. `prev` is the leaf hash (RFC 9162 §2.1.1: SHA-256 of 0x00 ‖ line) of the line
//! before, zeroes in the first; so each entry vouches for all before it. Batches of entries are anchored on the ledger by
//! the root of the Merkle tree over the same leaves ([`merkle`]); what can be wrong with a log is in [`verify`].

mod compare;
mod event;
pub mod merkle;
mod tally;
pub mod verify;

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use event::{AccessBasis, Ending, Entry, Part, What};
pub use tally::{Delivered, RUNS_MAX, Run, Tally, WrapRun};

/// Longest line: a wrap's entry with 64 recipients has 3 kB, an emergency's reason 6 kB with each byte escaped.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// SHA-256 over a line or over two nodes of a Merkle tree.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first entry names as the one before.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_source| serde::de::Error::custom("a hash is 32 bytes in hexadecimal"))?;
        Ok(Self(bytes))
    }
}

/// Why a line is no entry, or none can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// More than [`LINE_BYTES_MAX`].
    #[error("has {0} bytes, allowed are {LINE_BYTES_MAX}")]
    Long(usize),
    /// Not JSON, or not an entry.
    #[error("is no entry: {0}")]
    Shape(String),
    /// Entries have one form; spaces, other orders and unknown keys are not theirs.
    #[error("is not written as entries are")]
    Form,
    /// No number is left.
    #[error("no number is left for another entry")]
    Full,
}

/// Where a log stands: its newest entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The newest entry's number; 0 in an empty log.
    pub n: u64,
    /// Its leaf hash.
    pub hash: Hash,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number.
    pub n: u64,
    /// Leaf hash of the line before.
    pub prev: Hash,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Line {
    /// The bytes, without the line's end.
    ///
    /// # Errors
    /// [`LineError::Long`].
    pub fn encode(&self) -> Result<Vec<u8>, LineError> {
        let bytes = serde_json::to_vec(self).map_err(|error| LineError::Shape(error.to_string()))?;
        if bytes.len() > LINE_BYTES_MAX { Err(LineError::Long(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads exactly one line, without its end.
    ///
    /// # Errors
    /// [`LineError`]; a line that would be encoded otherwise is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, LineError> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(LineError::Long(bytes.len()));
        }
        let line: Self =
            serde_json::from_slice(bytes).map_err(|error| LineError::Shape(error.to_string()))?;
        if line.encode()? == bytes { Ok(line) } else { Err(LineError::Form) }
    }
}

impl Head {
    /// Appends `entry` to what is to be written, with the line's end; the log's head is that entry then.
    ///
    /// # Errors
    /// [`LineError`]; then nothing was appended and the head is as before.
    pub fn append(&mut self, entry: &Entry, out: &mut Vec<u8>) -> Result<(), LineError> {
        let n = self.n.checked_add(1).ok_or(LineError::Full)?;
        let bytes = Line { n, prev: self.hash, entry: entry.clone() }.encode()?;
        *self = Self { n, hash: leaf_hash(&bytes) };
        out.extend_from_slice(&bytes);
        out.push(b'\n');
        Ok(())
    }
}

/// Of a line without its end (RFC 9162 §2.1.1).
#[must_use]
pub fn leaf_hash(line: &[u8]) -> Hash {
    hash(&[&[0], line])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Hash(bytes)
}

#[cfg(test)]
mod tests;
