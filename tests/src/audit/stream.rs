//! A core's records in the files of a NATS server that has ended: its message blocks, as nats-server 2.10 and newer write them.
//!
//! ```text
//!  | length 4 | sequence 8 | time 8 | subject's length 2 | subject | [headers' length 4 | headers] | payload | checksum 8 |
//! ```
//! All numbers are little-endian. The length counts all of it; its highest bit says that there are headers. A sequence with one of its two
//! highest bits says that a message was deleted.

use std::path::{Path, PathBuf};

use caregate_protocol::entry;

use super::AuditError;

const HEAD_BYTES: usize = 22;
const CHECKSUM_BYTES: usize = 8;
const HAS_HEADERS: u32 = 1 << 31;
const DELETED: u64 = 0b11 << 62;

/// (index, record) of each entry of the stream.
pub(super) fn read(store: &Path) -> Result<Vec<(u64, Vec<u8>)>, AuditError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: std::io::Error| AuditError::Store { path, source: Box::new(redb::Error::Io(source)) }
    };
    let dir = store.join("jetstream/CORE/streams/CAREGATE/msgs");
    let mut blocks: Vec<(u64, PathBuf)> = Vec::new();
    for file in std::fs::read_dir(&dir).map_err(failed(&dir))? {
        let path = file.map_err(failed(&dir))?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), Some("blk")) = (number, path.extension().and_then(|end| end.to_str())) {
            blocks.push((number, path));
        }
    }
    blocks.sort_unstable();
    let mut records = Vec::new();
    for (_, path) in blocks {
        let bytes = std::fs::read(&path).map_err(failed(&path))?;
        for payload in payloads(&bytes) {
            let payload = payload.ok_or_else(|| AuditError::Record {
                index: records.len() as u64,
                problem: format!("{}: a message is cut off", path.display()),
            })?;
            let entries = entry::decode(payload).map_err(|error| AuditError::Record {
                index: records.len() as u64,
                problem: format!("{}: {error}", path.display()),
            })?;
            let whole = entries.iter().filter(|entry| !entry.record.is_empty());
            records.extend(whole.map(|entry| (entry.index, entry.record.to_vec())));
        }
    }
    Ok(records)
}

/// The messages of a block; `None` for one that is cut off, which ends it.
fn payloads(mut bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        loop {
            if bytes.is_empty() {
                return None;
            }
            let Some((is_message, payload, rest)) = message(bytes) else {
                bytes = &[];
                return Some(None);
            };
            bytes = rest;
            if is_message {
                return Some(Some(payload));
            }
        }
    })
}

/// Whether it is a message and no deletion, its payload, and what follows.
fn message(bytes: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let number = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    let length = number(0)?;
    let sequence = u64::from_le_bytes(*bytes.get(4..)?.first_chunk::<8>()?);
    let subject = usize::from(u16::from_le_bytes(*bytes.get(20..)?.first_chunk::<2>()?));
    let whole = bytes.get(..usize::try_from(length & !HAS_HEADERS).ok()?)?;
    let mut at = HEAD_BYTES + subject;
    if length & HAS_HEADERS != 0 {
        at += 4 + usize::try_from(number(at)?).ok()?;
    }
    let payload = whole.get(at..whole.len().checked_sub(CHECKSUM_BYTES)?)?;
    Some((sequence & DELETED == 0 && sequence != 0, payload, bytes.get(whole.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequence: u64, headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let subject = b"CAREGATE.records.vitals.01";
        let mut rest = subject.to_vec();
        if !headers.is_empty() {
            rest.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_le_bytes());
            rest.extend_from_slice(headers);
        }
        rest.extend_from_slice(payload);
        rest.extend_from_slice(&[0xcc; CHECKSUM_BYTES]);
        let length = u32::try_from(HEAD_BYTES + rest.len()).unwrap()
            | if headers.is_empty() { 0 } else { HAS_HEADERS };
        let head = [length.to_le_bytes().as_slice(), &sequence.to_le_bytes(), &[7; 8]].concat();
        [head.as_slice(), &u16::try_from(subject.len()).unwrap().to_le_bytes(), &rest].concat()
    }

    #[test]
    fn messages_are_found_with_headers_and_without_and_deleted_ones_are_not() {
        let block = [
            stored(1, b"NATS/1.0\r\n\r\n", b"one"),
            stored(2 | 1 << 63, b"", b"gone"),
            stored(3 | 1 << 62, b"", b""),
            stored(4, b"", b"four"),
        ]
        .concat();
        let found: Vec<_> = payloads(&block).collect();
        assert_eq!(found, [Some(b"one".as_slice()), Some(b"four".as_slice())]);
        for cut in 1..stored(1, b"h", b"one").len() {
            assert_eq!(payloads(&stored(1, b"h", b"one")[..cut]).collect::<Vec<_>>(), [None], "{cut}");
        }
    }
}
