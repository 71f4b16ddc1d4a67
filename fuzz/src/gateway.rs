//! The decoders of `edge-gateway`. Included by `tests/tests/fuzz_regressions.rs` as well.

use std::path::Path;

use bytes::BytesMut;
use edge_gateway::config::ConfigFile;
use edge_gateway::mqtt::codec;
use edge_gateway::pipeline::chains::State;
use edge_gateway::spool::frame;

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] =
    &[("mqtt", mqtt), ("spool_frame", spool_frame), ("checkpoint", checkpoint), ("config", config)];

/// The default of the door's packet limit.
const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Of the spool file whose frames are read.
const SERIAL: u64 = 7;

fn packets<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut buffer = BytesMut::new();
    let mut packets = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match codec::decode(&mut buffer, PACKET_BYTES_MAX) {
                Ok(Some(packet)) => packets.push(format!("{packet:?}")),
                Ok(None) => {
                    assert_eq!(buffer.len(), before);
                    break;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty() && !error.label().is_empty());
                    return packets;
                }
            }
            assert!(buffer.len() < before);
        }
    }
    packets
}

/// What a client sends, whole and in small pieces.
pub fn mqtt(data: &[u8]) {
    assert_eq!(packets(data.chunks(7)), packets([data]));
}

/// A spool file: its header, then frames, then what the log's own frames carry.
pub fn spool_frame(data: &[u8]) {
    if let Err(error) = frame::Header::decode(data) {
        assert!(!error.to_string().is_empty());
    }
    let mut left = data;
    while let Ok(frame) = frame::decode_record(left, SERIAL) {
        assert!(frame.frame_len() <= left.len());
        left = &left[frame.frame_len()..];
        payloads(frame.payload);
    }
    payloads(data);
}

fn payloads(data: &[u8]) {
    if let Ok(ranges) = frame::decode_acks(data) {
        assert!(ranges.iter().all(|range| range.start <= range.end));
    }
    if let Ok(files) = frame::decode_manifest(data) {
        assert!(files.iter().all(|file| file.positions.start <= file.positions.end));
    }
}

/// The pipeline's state at the head of a spool file. What is written back reads the same.
pub fn checkpoint(data: &[u8]) {
    match State::decode(data) {
        Ok(state) => {
            let bytes = state.encode();
            let again = State::decode(&bytes).map(|state| state.encode());
            assert!(matches!(again, Ok(again) if again == bytes));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A configuration file; the other daemons' are read by the same code.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = caregate_host::config::parse::<ConfigFile>(Path::new("x.toml"), text) {
        assert!(!error.to_string().is_empty());
    }
}
