//! A frame whose headers are read and edited: by the same code as in the kernel, and where that has too few bytes, here.

use caregate_ebpf_common::switch::edit::{Edited, FRAME_BYTES_MIN, Headers};
use caregate_ebpf_common::switch::op::{Op, code, effect, layer};
use caregate_ebpf_common::switch::parse::{Layers, Parsed, parse};
use caregate_ebpf_common::switch::{KEY_WORDS, Key};

/// Where the tunnel's id is in a key.
const TUNNEL: usize = KEY_WORDS - 1;
/// Where metadata is.
const METADATA: usize = 1;
/// An SCTP packet's checksum, behind its ports and tag (RFC 9260 §3.1).
const SCTP_SUM_AT: usize = 8;

/// Why an action ends a frame's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A TTL is at its end (§5.12.1).
    InvalidTtl,
    /// The header is further behind than is looked.
    Headers,
}

/// A frame on its way.
#[derive(Debug, Clone)]
pub(super) struct Packet<'a> {
    headers: Headers,
    /// What is behind them.
    rest: &'a [u8],
    /// Bytes of it as it came.
    came: usize,
    /// By which it goes out; 0 for none.
    pub(super) queue: u32,
    parsed: Parsed,
    is_key_stale: bool,
}

impl<'a> Packet<'a> {
    pub(super) fn new(in_port: u32, frame: &'a [u8]) -> Self {
        let headers = Headers::new(frame);
        let rest = frame.get(headers.bytes().len()..).unwrap_or_default();
        let mut parsed = Parsed::default();
        parsed.key[0] = u64::from(in_port) << 32;
        let mut packet = Self { headers, rest, came: frame.len(), queue: 0, parsed, is_key_stale: true };
        packet.read();
        packet
    }

    fn read(&mut self) {
        parse(&self.headers, &mut self.parsed);
        self.headers.layers = self.parsed.layers;
        self.headers.is_stale = 0;
        self.is_key_stale = false;
    }

    /// As it is now.
    pub(super) fn key(&mut self) -> &Key {
        if self.is_key_stale {
            self.read();
        }
        &self.parsed.key
    }

    pub(super) fn metadata_and_tunnel(&self) -> (u64, u64) {
        (self.parsed.key[METADATA], self.parsed.key[TUNNEL])
    }

    pub(super) fn write_metadata(&mut self, value: u64, mask: u64) {
        let metadata = &mut self.parsed.key[METADATA];
        *metadata = *metadata & !mask | value & mask;
    }

    /// What a meter adds to its drop precedence.
    pub(super) fn remark(&mut self, steps: u8) {
        if self.is_key_stale {
            self.read();
        }
        // What has no such class stays as it is, here and in the kernel.
        let _ = self.headers.remark(steps);
        self.is_key_stale = true;
    }

    pub(super) fn edit(&mut self, op: &Op) -> Result<(), Unfit> {
        if op.code() == code::SET_TUNNEL {
            self.parsed.key[TUNNEL] = op.0[3];
            return Ok(());
        }
        let mut edited = self.headers.edit(op);
        if edited == Edited::Stale {
            self.read();
            edited = self.headers.edit(op);
        }
        self.is_key_stale = true;
        match edited {
            Edited::Done => Ok(()),
            Edited::InvalidTtl => Err(Unfit::InvalidTtl),
            Edited::Beyond if op.effects() & effect::SCTP_SUM != 0 => self.mend_sctp(),
            Edited::Beyond | Edited::Stale => Err(Unfit::Headers),
        }
    }

    /// Its checksum is over all of it, which the kernel does not walk.
    fn mend_sctp(&mut self) -> Result<(), Unfit> {
        let Layers { has, network_at, transport_at, .. } = self.headers.layers;
        let place = |at: u32| usize::try_from(at).map_err(|_wide| Unfit::Headers);
        let (network_at, from) = (place(network_at)?, place(transport_at)?);
        let mut frame = self.finish();
        let length =
            |at: usize| frame.get(at..at + 2).map(|bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
        let end = if has & u32::from(layer::IPV4) != 0 {
            length(network_at + 2).map(|total| network_at + total)
        } else {
            length(network_at + 4).map(|payload| network_at + 40 + payload)
        };
        let end = end.ok_or(Unfit::Headers)?;
        // Where the frame was cut it is sent nowhere, and its checksum is nobody's.
        let Some(packet) = frame.get_mut(from..end) else { return Ok(()) };
        packet.get_mut(SCTP_SUM_AT..SCTP_SUM_AT + 4).ok_or(Unfit::Headers)?.fill(0);
        let sum = crc32c::crc32c(packet).to_le_bytes();
        let start = place(self.headers.start)? + from + SCTP_SUM_AT;
        let target = self.headers.buffer.0.get_mut(start..start + 4).ok_or(Unfit::Headers)?;
        target.copy_from_slice(&sum);
        Ok(())
    }

    /// The whole frame, as it is now. What tags off made too short for Ethernet gets zeroes at its end, as in the kernel.
    pub(super) fn finish(&self) -> Vec<u8> {
        let mut frame = [self.headers.bytes(), self.rest].concat();
        let least = usize::try_from(FRAME_BYTES_MIN).unwrap_or_default();
        if frame.len() < least.min(self.came) {
            frame.resize(least, 0);
        }
        frame
    }

    /// For groups that pick one bucket: the same for all frames that belong together. The kernel's own
    /// (`ebpf/program/src/switch/choose.rs`, `spread`), so that it makes no difference who chooses.
    pub(super) fn hash(&mut self) -> u32 {
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
        let fold = |hash: u64, (_, word): (usize, &u64)| {
            let hash = (hash ^ word).wrapping_mul(MULTIPLIER);
            hash ^ hash >> 32
        };
        let words = self.key().iter().enumerate().filter(|(at, _)| *at != METADATA && *at != TUNNEL);
        let hash = words.fold(0, fold).wrapping_mul(MULTIPLIER);
        u32::try_from(hash >> 32).unwrap_or_default()
    }
}
