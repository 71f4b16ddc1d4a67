//! The decoders of `edge-gateway`. Included by `tests/tests/fuzz_regressions.rs` as well.

use std::path::Path;

use bytes::BytesMut;
use caregate_protocol::policy::Mac;
use edge_gateway::config::ConfigFile;
use edge_gateway::inventory::oui::{Vendor, Vendors};
use edge_gateway::inventory::{frame as inventory, table::Inventory};
use edge_gateway::mqtt::codec;
use edge_gateway::pipeline::chains::State;
use edge_gateway::spool::frame;

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] = &[
    ("mqtt", mqtt),
    ("spool_frame", spool_frame),
    ("checkpoint", checkpoint),
    ("config", config),
    ("inventory_frame", inventory_frame),
    ("oui", oui),
];

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

/// A frame from a sensor port, as the device inventory reads it.
pub fn inventory_frame(data: &[u8]) {
    match inventory::read(data) {
        Ok(sighting) => {
            assert!(sighting.mac.is_unicast());
            for said in [&sighting.name, &sighting.about].into_iter().flatten() {
                assert!((1..=96).contains(&said.len()) && !said.contains(char::is_control));
            }
            let mut table = Inventory::default();
            table.note(1, &sighting, 0);
            assert_eq!(table.len(), 1);
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

/// A registry of vendors.
pub fn oui(data: &[u8]) {
    match Vendors::read(data) {
        Ok(vendors) => {
            assert!(!vendors.is_empty());
            if let Some(mac) = data.first_chunk::<6>()
                && let Vendor::Named(name) = vendors.of(Mac(*mac))
            {
                assert!(!name.is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
