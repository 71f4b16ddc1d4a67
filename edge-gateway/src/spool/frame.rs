//! The bytes of a spool file: header, frames, and the payloads of the log's own frames. Pure, for the fuzzer too.

use std::ops::Range;

use caregate_protocol::id::Lane;
use thiserror::Error;

/// Bytes of a file's header.
pub const FILE_HEADER: usize = 32;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER: usize = 24;
/// Most bytes of a record's payload: a group commit's segment of one patient and class is far below; it bounds what one
/// flipped bit can hide and what a reader must hold.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Most bytes of any payload; checkpoints are the largest. With the frame's header it stays below 2²⁴.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// Positions end here, so that arithmetic on them can't overflow; at a million a second, for 290,000 years.
pub const POSITION_MAX: u64 = 1 << 63;
/// The only version of the format so far.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"CGspool\n";

/// Why bytes are no frame or header.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A position beyond [`POSITION_MAX`].
    #[error("position {0} is out of range")]
    Position(u64),
    /// Fewer bytes than the frame claims, or than a header has.
    #[error("{have} bytes, the frame needs {need}")]
    Short {
        /// How many there are.
        have: usize,
        /// How many it needs.
        need: usize,
    },
    /// A length above the limit of its kind.
    #[error("payload of {len} bytes, allowed are {max}")]
    Length {
        /// The length claimed.
        len: u32,
        /// The limit.
        max: usize,
    },
    /// An unknown kind, or reserved bytes that are not zero.
    #[error("unknown kind {0:#04x}, or reserved bytes set")]
    Kind(u8),
    /// The checksum does not fit the bytes.
    #[error("checksum mismatch")]
    Checksum,
    /// Not a spool file.
    #[error("no spool file")]
    Magic,
    /// A later format.
    #[error("spool format {0}, this program knows {VERSION}")]
    Version(u16),
    /// A frame of the log's own whose payload does not decode.
    #[error("malformed {0}")]
    Payload(&'static str),
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A record of the caller. Only these take a position.
    Record(Lane),
    /// The caller's state before this file's first record.
    Checkpoint,
    /// The older files and what of them is acknowledged, at the head of each file.
    Manifest,
    /// Position ranges that the core acknowledged.
    Acks,
    /// Stands where a group commit was torn, so that the hole is not taken for damage later; its position is the next record's.
    Hole,
    /// The last frame of a file that was left in good order; its position is the next file's first.
    Closed,
}

impl Kind {
    fn to_u8(self) -> u8 {
        match self {
            Self::Record(lane) => lane as u8,
            Self::Checkpoint => 0x81,
            Self::Manifest => 0x82,
            Self::Acks => 0x83,
            Self::Hole => 0x84,
            Self::Closed => 0x85,
        }
    }

    fn from_u8(number: u8) -> Option<Self> {
        match number {
            0x81 => Some(Self::Checkpoint),
            0x82 => Some(Self::Manifest),
            0x83 => Some(Self::Acks),
            0x84 => Some(Self::Hole),
            0x85 => Some(Self::Closed),
            lane => Lane::from_u8(lane).map(Self::Record),
        }
    }

    fn payload_bytes_max(self) -> usize {
        match self {
            Self::Record(_) => RECORD_BYTES_MAX,
            Self::Checkpoint | Self::Manifest | Self::Acks | Self::Hole => PAYLOAD_BYTES_MAX,
            Self::Closed => 0,
        }
    }
}

/// One decoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: Kind,
    /// The record's number; for the log's own frames that of the next record.
    pub position: u64,
    /// Offset in the file at which the frame's group commit began. All before it had been synced.
    pub group: u32,
    /// The payload.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of header and payload.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        FRAME_HEADER + self.payload.len()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn checksum(serial: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&serial.to_le_bytes()), body)
}

/// Decodes the frame that `bytes` begin with; what follows it is not looked at.
///
/// `serial` is the file's number, which the checksum covers.
///
/// # Errors
/// [`FrameError`], cheapest check first; the checksum is only computed when all else fits.
pub fn decode_record(bytes: &[u8], serial: u64) -> Result<Frame<'_>, FrameError> {
    if bytes.len() < FRAME_HEADER {
        return Err(FrameError::Short { have: bytes.len(), need: FRAME_HEADER });
    }
    let (len, number) = (u32_at(bytes, 4), bytes[20]);
    let kind = Kind::from_u8(number).filter(|_| bytes[21..24] == [0; 3]).ok_or(FrameError::Kind(number))?;
    let need = len as usize + FRAME_HEADER;
    if len as usize > kind.payload_bytes_max() {
        return Err(FrameError::Length { len, max: kind.payload_bytes_max() });
    }
    let body = bytes.get(4..need).ok_or(FrameError::Short { have: bytes.len(), need })?;
    if u32_at(bytes, 0) != checksum(serial, body) {
        return Err(FrameError::Checksum);
    }
    let (payload, position) = (&bytes[FRAME_HEADER..need], u64_at(bytes, 8));
    if position > POSITION_MAX {
        return Err(FrameError::Position(position));
    }
    Ok(Frame { kind, position, group: u32_at(bytes, 16), payload })
}

/// Appends a frame to `out`. The caller has checked the payload's length against the limit of its kind.
pub(super) fn encode(out: &mut Vec<u8>, serial: u64, frame: &Frame<'_>) {
    let start = out.len();
    let len = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&frame.position.to_le_bytes());
    out.extend_from_slice(&frame.group.to_le_bytes());
    out.extend_from_slice(&[frame.kind.to_u8(), 0, 0, 0]);
    out.extend_from_slice(frame.payload);
    let crc = checksum(serial, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Where the caller's state before a file's first record is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nowhere: this is the log's first file, the state is empty.
    Genesis,
    /// In the checkpoint at this file's head.
    Checkpoint,
    /// In an older file: this one was begun because a sync had failed.
    Continued,
}

/// The first [`FILE_HEADER`] bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The file's number; grows, never reused.
    pub serial: u64,
    /// Position of its first record.
    pub first: u64,
    /// Where the state before that record is found.
    pub state: State,
}

impl Header {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let state: u16 = match self.state {
            State::Genesis => 0,
            State::Checkpoint => 1,
            State::Continued => 2,
        };
        out.extend_from_slice(&state.to_le_bytes());
        out.extend_from_slice(&self.serial.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Decodes a file's header.
    ///
    /// # Errors
    /// [`FrameError::Short`], [`FrameError::Magic`], [`FrameError::Checksum`], [`FrameError::Version`],
    /// [`FrameError::Payload`], [`FrameError::Position`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some(bytes) = bytes.get(..FILE_HEADER) else {
            return Err(FrameError::Short { have: bytes.len(), need: FILE_HEADER });
        };
        if bytes[..8] != MAGIC {
            return Err(FrameError::Magic);
        }
        if u32_at(bytes, 28) != crc32c::crc32c(&bytes[..28]) {
            return Err(FrameError::Checksum);
        }
        if u16_at(bytes, 8) != VERSION {
            return Err(FrameError::Version(u16_at(bytes, 8)));
        }
        let state = match u16_at(bytes, 10) {
            0 => State::Genesis,
            1 => State::Checkpoint,
            2 => State::Continued,
            _ => return Err(FrameError::Payload("state of the header")),
        };
        let (serial, first) = (u64_at(bytes, 12), u64_at(bytes, 20));
        if first > POSITION_MAX {
            return Err(FrameError::Position(first));
        }
        Ok(Self { serial, first, state })
    }
}

/// One file in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The file's number.
    pub serial: u64,
    /// The positions in it.
    pub positions: Range<u64>,
    /// Which of them are acknowledged.
    pub acked: Acked,
}

/// Which positions of a listed file are acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acked {
    /// None of them.
    None,
    /// All of them.
    All,
    /// Bit `i` of byte `i / 8` (lowest first) stands for position `first + i`.
    Bitmap(Vec<u8>),
}

impl Listed {
    /// Whether the manifest calls `position` acknowledged.
    pub(super) fn is_acked(&self, position: u64) -> bool {
        match &self.acked {
            Acked::None => false,
            Acked::All => true,
            Acked::Bitmap(bits) => position
                .checked_sub(self.positions.start)
                .and_then(|i| Some((bits.get(usize::try_from(i / 8).ok()?)?, i % 8)))
                .is_some_and(|(byte, bit)| byte >> bit & 1 == 1),
        }
    }
}

/// Payload of [`Kind::Manifest`]: per file serial (8 bytes), first position (8), count (4), tag (1), bitmap if the tag is 2.
pub(super) fn encode_manifest<'a>(files: impl Iterator<Item = &'a Listed>) -> Vec<u8> {
    let mut out = Vec::new();
    for file in files {
        out.extend_from_slice(&file.serial.to_le_bytes());
        out.extend_from_slice(&file.positions.start.to_le_bytes());
        let count = u32::try_from(file.positions.end - file.positions.start).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        match &file.acked {
            Acked::None => out.push(0),
            Acked::All => out.push(1),
            Acked::Bitmap(bits) => {
                out.push(2);
                out.extend_from_slice(bits);
            }
        }
    }
    out
}

/// Decodes the payload of a manifest.
///
/// # Errors
/// [`FrameError::Payload`].
pub fn decode_manifest(mut bytes: &[u8]) -> Result<Vec<Listed>, FrameError> {
    const WRONG: FrameError = FrameError::Payload("manifest");
    let mut files = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(21).ok_or(WRONG)?;
        let (first, count) = (u64_at(head, 8), u32_at(head, 16));
        // No file holds more frames than that, and nobody should count further.
        let fits = count as usize <= (1 << 30) / FRAME_HEADER && first <= POSITION_MAX;
        let end = fits.then(|| first + u64::from(count)).ok_or(WRONG)?;
        let bitmap_len = if head[20] == 2 { (count as usize).div_ceil(8) } else { 0 };
        let (bitmap, rest) = rest.split_at_checked(bitmap_len).ok_or(WRONG)?;
        let acked = match head[20] {
            0 => Acked::None,
            1 => Acked::All,
            2 => Acked::Bitmap(bitmap.to_vec()),
            _ => return Err(WRONG),
        };
        files.push(Listed { serial: u64_at(head, 0), positions: first..end, acked });
        bytes = rest;
    }
    Ok(files)
}

/// Payload of [`Kind::Acks`]: per range its first and its end (exclusive), 8 bytes each.
pub(super) fn encode_acks(ranges: &[Range<u64>]) -> Vec<u8> {
    ranges.iter().flat_map(|r| [r.start.to_le_bytes(), r.end.to_le_bytes()]).flatten().collect()
}

/// Decodes the payload of an acks frame.
///
/// # Errors
/// [`FrameError::Payload`].
pub fn decode_acks(bytes: &[u8]) -> Result<Vec<Range<u64>>, FrameError> {
    if !bytes.len().is_multiple_of(16) {
        return Err(FrameError::Payload("acks"));
    }
    bytes
        .chunks_exact(16)
        .map(|c| u64_at(c, 0)..u64_at(c, 8))
        .map(|r| if r.start <= r.end { Ok(r) } else { Err(FrameError::Payload("acks")) })
        .collect()
}
