//! Frames on the QUIC streams: gateway to core, and core to feed.
//!
//! ```text
//!   0        4    5
//!   +--------+----+--------------------+      length: bytes after it, 1 ..= FRAME_BYTES_MAX
//!   | length |type| body               |      all numbers big-endian
//!   +--------+----+--------------------+
//! ```
//! | type | frame | way | stream |
//! |---|---|---|---|
//! | 1 | [`Frame::Hello`] | gateway → core | control |
//! | 2 | [`Frame::Welcome`] | core → gateway | control |
//! | 3 | [`Frame::Lane`] | gateway → core | first on each lane's stream |
//! | 4 | [`Frame::Data`] | gateway → core | lane |
//! | 5 | [`Frame::Ack`] | core → gateway | control |
//! | 6 | [`Frame::Refuse`] | core → gateway | control |
//! | 7 | [`Frame::Beat`] | gateway → core → feed | control of the alarm lane; following |
//! | 8 | [`Frame::Command`] | feed → core → gateway | following; control of the alarm lane |
//! | 9 | [`Frame::Erase`] | gateway → core | control |
//! | 10 | [`Frame::Erased`] | core → gateway | control |
//! | 11 | [`Frame::EraseRefused`] | core → gateway | control |
//! | 16 | [`Frame::Subscribe`] | feed → core | subscription |
//! | 17 | [`Frame::Subscribed`] | core → feed | subscription |
//! | 18 | [`Frame::Delivery`] | core → feed | subscription |
//! | 19 | [`Frame::Follow`] | feed → core | first on a following |

use thiserror::Error;

use crate::beat::BEAT_BYTES;
use crate::command::COMMAND_BYTES_MAX;
use crate::erasure::{ERASURE_BYTES, RECEIPT_BYTES, RequestHash};
use crate::id::{Lane, RecipientId};
use crate::record::RECORD_BYTES_MAX;
use crate::wire::{Reader, WireError};

/// ALPN of both hops.
pub const ALPN: &[u8] = b"caregate/1";
/// Version in [`Frame::Hello`], [`Frame::Welcome`] and [`Frame::Subscribe`].
pub const VERSION: u16 = 1;
/// Most bytes after the length: a record, its position and the type.
pub const FRAME_BYTES_MAX: usize = RECORD_BYTES_MAX + 16;
/// Most ranges in one [`Frame::Ack`]: a frame of 16 kB; a sender with more sends a second frame.
pub const ACK_RANGES_MAX: usize = 1024;

/// Why the core did not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Does not parse.
    Malformed = 1,
    /// Signed by a key that the core does not know for this gateway, or the signature does not hold.
    Signature = 2,
    /// Another segment with this (patient, class, sequence) is stored already.
    Fork = 3,
    /// The pseudonym was erased here, for good.
    Erased = 4,
}

/// Why the core did not erase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EraseRefusal {
    /// Not a request by its form.
    Malformed = 1,
    /// Signed by a key that the core does not know for this gateway, or the signature does not hold.
    Signature = 2,
    /// What the core holds of this pseudonym came from other gateways alone.
    Stranger = 3,
    /// More requests than a gateway may make; ask again later.
    TooOften = 4,
}

impl EraseRefusal {
    /// The refusal with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        [Self::Malformed, Self::Signature, Self::Stranger, Self::TooOften]
            .into_iter()
            .find(|r| *r as u8 == number)
    }

    /// A label for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Stranger => "stranger",
            Self::TooOften => "too_often",
        }
    }
}

impl Refusal {
    /// The refusal with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        [Self::Malformed, Self::Signature, Self::Fork, Self::Erased].into_iter().find(|r| *r as u8 == number)
    }

    /// A label for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Fork => "fork",
            Self::Erased => "erased",
        }
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A field is missing or bytes follow the end.
    #[error("frame: {0}")]
    Wire(#[from] WireError),
    /// Zero, or more than [`FRAME_BYTES_MAX`].
    #[error("frame: length {0} is out of bounds")]
    Length(usize),
    /// No such type.
    #[error("frame: type {0} is not known")]
    Type(u8),
    /// A field holds a value that has no meaning.
    #[error("frame: {field} of value {value} is not known")]
    Value {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A range whose last position is before its first, or too many ranges.
    #[error("frame: acknowledged ranges are malformed")]
    Ranges,
}

impl FrameError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Length(_) => "length",
            Self::Type(_) => "type",
            Self::Value { .. } => "value",
            Self::Ranges => "ranges",
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The gateway's first word on the control stream.
    Hello {
        /// [`VERSION`].
        version: u16,
    },
    /// The core's answer.
    Welcome {
        /// [`VERSION`].
        version: u16,
    },
    /// What the stream carries.
    Lane {
        /// Its priority.
        lane: Lane,
        /// Left from before this connection.
        backlog: bool,
    },
    /// One record.
    Data {
        /// Its position in the gateway's spool.
        position: u64,
        /// A segment or a wrap (`crate::record`).
        record: Vec<u8>,
    },
    /// Durable at the core: inclusive ranges of positions.
    Ack {
        /// At most [`ACK_RANGES_MAX`].
        ranges: Vec<(u64, u64)>,
    },
    /// Not taken, and never will be as it is.
    Refuse {
        /// The record's position.
        position: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A gateway's heartbeat (`crate::beat`).
    Beat {
        /// [`BEAT_BYTES`] of them; not yet looked at.
        bytes: Vec<u8>,
    },
    /// What staff send to a gateway (`crate::command`).
    Command {
        /// At most [`COMMAND_BYTES_MAX`]; sealed.
        bytes: Vec<u8>,
    },
    /// Erase a pseudonym (`crate::erasure`). The gateway says it again on each connection until it has the receipts that it wants.
    Erase {
        /// [`ERASURE_BYTES`] of them: the request.
        request: Vec<u8>,
    },
    /// It is erased, durably: the core's receipt.
    Erased {
        /// [`RECEIPT_BYTES`] of them.
        receipt: Vec<u8>,
    },
    /// It is not.
    EraseRefused {
        /// Which request.
        request: RequestHash,
        /// Why.
        refusal: EraseRefusal,
    },
    /// The feed's first word where it wants heartbeats and sends commands.
    Follow {
        /// [`VERSION`].
        version: u16,
    },
    /// The feed's first word.
    Subscribe {
        /// [`VERSION`].
        version: u16,
        /// Whose queue.
        recipient: RecipientId,
        /// First number wanted; `u64::MAX` for what comes from now on.
        from: u64,
        /// One past the last number wanted; `u64::MAX` to follow for ever.
        until: u64,
    },
    /// The core's answer.
    Subscribed {
        /// [`VERSION`].
        version: u16,
        /// One past the newest number in the queue at this moment.
        next: u64,
    },
    /// One record of the queue.
    Delivery {
        /// Its number in the recipient's queue.
        number: u64,
        /// A segment or a wrap.
        record: Vec<u8>,
    },
}

impl Frame {
    /// The frame with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        match self {
            Self::Hello { version } => put(&mut out, 1, &[&version.to_be_bytes()]),
            Self::Welcome { version } => put(&mut out, 2, &[&version.to_be_bytes()]),
            Self::Lane { lane, backlog } => put(&mut out, 3, &[&[*lane as u8, u8::from(*backlog)]]),
            Self::Data { position, record } => put(&mut out, 4, &[&position.to_be_bytes(), record]),
            Self::Ack { ranges } => {
                put(&mut out, 5, &[]);
                for (first, last) in ranges {
                    out.extend_from_slice(&first.to_be_bytes());
                    out.extend_from_slice(&last.to_be_bytes());
                }
            }
            Self::Refuse { position, refusal } => {
                put(&mut out, 6, &[&position.to_be_bytes(), &[*refusal as u8]]);
            }
            Self::Beat { bytes } => put(&mut out, 7, &[bytes]),
            Self::Command { bytes } => put(&mut out, 8, &[bytes]),
            Self::Erase { request } => put(&mut out, 9, &[request]),
            Self::Erased { receipt } => put(&mut out, 10, &[receipt]),
            Self::EraseRefused { request, refusal } => put(&mut out, 11, &[&request.0, &[*refusal as u8]]),
            Self::Follow { version } => put(&mut out, 19, &[&version.to_be_bytes()]),
            Self::Subscribe { version, recipient, from, until } => put(
                &mut out,
                16,
                &[&version.to_be_bytes(), &recipient.0, &from.to_be_bytes(), &until.to_be_bytes()],
            ),
            Self::Subscribed { version, next } => {
                put(&mut out, 17, &[&version.to_be_bytes(), &next.to_be_bytes()]);
            }
            Self::Delivery { number, record } => put(&mut out, 18, &[&number.to_be_bytes(), record]),
        }
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
        out
    }

    /// Parses what follows the length.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        if body.is_empty() || body.len() > FRAME_BYTES_MAX {
            return Err(FrameError::Length(body.len()));
        }
        let mut r = Reader::new(body);
        let frame = match r.u8("type")? {
            1 => Self::Hello { version: r.u16("version")? },
            2 => Self::Welcome { version: r.u16("version")? },
            3 => {
                let (lane, backlog) = (r.u8("lane")?, r.u8("backlog")?);
                let bad = |field, value: u8| FrameError::Value { field, value: u64::from(value) };
                Self::Lane {
                    lane: Lane::from_u8(lane).ok_or_else(|| bad("lane", lane))?,
                    backlog: match backlog {
                        0 => false,
                        1 => true,
                        _ => return Err(bad("backlog", backlog)),
                    },
                }
            }
            4 => Self::Data { position: r.u64("position")?, record: r.rest().to_vec() },
            5 => Self::Ack { ranges: decode_ranges(r.rest())? },
            6 => {
                let (position, number) = (r.u64("position")?, r.u8("refusal")?);
                let refusal = Refusal::from_u8(number)
                    .ok_or_else(|| FrameError::Value { field: "refusal", value: u64::from(number) })?;
                Self::Refuse { position, refusal }
            }
            7 => Self::Beat { bytes: r.take("heartbeat", BEAT_BYTES)?.to_vec() },
            8 => {
                let bytes = r.rest().to_vec();
                if bytes.len() > COMMAND_BYTES_MAX {
                    return Err(FrameError::Length(bytes.len()));
                }
                Self::Command { bytes }
            }
            9 => Self::Erase { request: r.take("request", ERASURE_BYTES)?.to_vec() },
            10 => Self::Erased { receipt: r.take("receipt", RECEIPT_BYTES)?.to_vec() },
            11 => {
                let (request, number) = (RequestHash(r.array("request")?), r.u8("refusal")?);
                let refusal = EraseRefusal::from_u8(number)
                    .ok_or_else(|| FrameError::Value { field: "refusal", value: u64::from(number) })?;
                Self::EraseRefused { request, refusal }
            }
            19 => Self::Follow { version: r.u16("version")? },
            16 => Self::Subscribe {
                version: r.u16("version")?,
                recipient: RecipientId(r.array("recipient")?),
                from: r.u64("from")?,
                until: r.u64("until")?,
            },
            17 => Self::Subscribed { version: r.u16("version")?, next: r.u64("next")? },
            18 => Self::Delivery { number: r.u64("number")?, record: r.rest().to_vec() },
            other => return Err(FrameError::Type(other)),
        };
        r.finish()?;
        Ok(frame)
    }
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    out.push(kind);
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn decode_ranges(bytes: &[u8]) -> Result<Vec<(u64, u64)>, FrameError> {
    if !bytes.len().is_multiple_of(16) || bytes.len() / 16 > ACK_RANGES_MAX {
        return Err(FrameError::Ranges);
    }
    let mut r = Reader::new(bytes);
    let mut ranges = Vec::with_capacity(bytes.len() / 16);
    for _ in 0..bytes.len() / 16 {
        let (first, last) = (r.u64("first")?, r.u64("last")?);
        if last < first {
            return Err(FrameError::Ranges);
        }
        ranges.push((first, last));
    }
    Ok(ranges)
}

/// Joins sorted positions to inclusive ranges, at most [`ACK_RANGES_MAX`] a frame.
#[must_use]
pub fn ack_frames(positions: &mut Vec<u64>) -> Vec<Frame> {
    positions.sort_unstable();
    positions.dedup();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for position in positions.drain(..) {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(position) => *last = position,
            _ => ranges.push((position, position)),
        }
    }
    ranges.chunks(ACK_RANGES_MAX).map(|part| Frame::Ack { ranges: part.to_vec() }).collect()
}

/// Cuts a byte stream into frames; holds at most one frame and what was pushed last.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    at: usize,
}

impl Framer {
    /// An empty framer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]; the stream can't be used any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let left = self.buffer.get(self.at..).unwrap_or_default();
        let Some((head, rest)) = left.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(FrameError::Length(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::decode(body)?;
        self.at += 4 + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let record = proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            any::<u16>().prop_map(|version| Frame::Hello { version }),
            any::<u16>().prop_map(|version| Frame::Welcome { version }),
            (0_u8..4, any::<bool>())
                .prop_map(|(lane, backlog)| Frame::Lane { lane: Lane::from_u8(lane).unwrap(), backlog }),
            (any::<u64>(), record.clone()).prop_map(|(position, record)| Frame::Data { position, record }),
            proptest::collection::vec((any::<u32>(), any::<u32>()), 0..20).prop_map(|r| Frame::Ack {
                ranges: r.into_iter().map(|(a, b)| (u64::from(a), u64::from(a) + u64::from(b))).collect()
            }),
            (any::<u64>(), 1_u8..5)
                .prop_map(|(position, r)| Frame::Refuse { position, refusal: Refusal::from_u8(r).unwrap() }),
            (any::<[u8; 20]>(), any::<u64>(), any::<u64>()).prop_map(|(id, from, until)| Frame::Subscribe {
                version: 1,
                recipient: RecipientId(id),
                from,
                until
            }),
            any::<u64>().prop_map(|next| Frame::Subscribed { version: 1, next }),
            any::<u8>().prop_map(|byte| Frame::Beat { bytes: vec![byte; BEAT_BYTES] }),
            record.clone().prop_map(|bytes| Frame::Command { bytes }),
            any::<u8>().prop_map(|byte| Frame::Erase { request: vec![byte; ERASURE_BYTES] }),
            any::<u8>().prop_map(|byte| Frame::Erased { receipt: vec![byte; RECEIPT_BYTES] }),
            (any::<[u8; 32]>(), 1_u8..5).prop_map(|(request, r)| Frame::EraseRefused {
                request: RequestHash(request),
                refusal: EraseRefusal::from_u8(r).unwrap(),
            }),
            any::<u16>().prop_map(|version| Frame::Follow { version }),
            (any::<u64>(), record).prop_map(|(number, record)| Frame::Delivery { number, record }),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_back_whole_whatever_the_cuts(
            frames in proptest::collection::vec(frame(), 0..6),
            cut in 1_usize..50,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let mut framer = Framer::new();
            let mut got = Vec::new();
            for part in bytes.chunks(cut) {
                framer.push(part);
                while let Some(frame) = framer.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framer = Framer::new();
            framer.push(&bytes);
            while let Ok(Some(_)) = framer.next_frame() {}
        }

        #[test]
        fn acknowledged_ranges_hold_just_the_positions(mut positions in proptest::collection::vec(0_u64..60, 0..50)) {
            let mut want = positions.clone();
            want.sort_unstable();
            want.dedup();
            let mut got = Vec::new();
            for frame in ack_frames(&mut positions) {
                if let Frame::Ack { ranges } = frame {
                    got.extend(ranges.into_iter().flat_map(|(a, b)| a..=b));
                }
            }
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn golden_bytes() {
        let hello = Frame::Hello { version: 1 }.encode();
        assert_eq!(hex::encode(hello), "00000003010001");
        let data = Frame::Data { position: 258, record: vec![0xab] }.encode();
        assert_eq!(hex::encode(data), "0000000a040000000000000102ab");
        let ack = Frame::Ack { ranges: vec![(1, 2)] }.encode();
        assert_eq!(hex::encode(ack), "000000110500000000000000010000000000000002");
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_it_is_buffered() {
        let mut framer = Framer::new();
        framer.push(&[0xff; 4]);
        assert_eq!(framer.next_frame(), Err(FrameError::Length(0xffff_ffff)));
        framer = Framer::new();
        framer.push(&[0; 4]);
        assert_eq!(framer.next_frame(), Err(FrameError::Length(0)));
    }

    #[test]
    fn a_range_that_goes_back_is_refused() {
        let mut bytes = vec![5];
        bytes.extend_from_slice(&9_u64.to_be_bytes());
        bytes.extend_from_slice(&8_u64.to_be_bytes());
        assert_eq!(Frame::decode(&bytes), Err(FrameError::Ranges));
    }
}
