//! What a spool file's bytes hold: every frame that checks out, and what lies between them that does not. Pure.

use std::ops::Range;

use caregate_protocol::id::Lane;

use super::frame::{
    FILE_HEADER, FRAME_HEADER, Frame, FrameError, Header, Kind, Listed, decode_acks, decode_manifest,
    decode_record,
};

/// A record that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) position: u64,
    pub(super) offset: u32,
    pub(super) frame_len: u32,
    pub(super) lane: Lane,
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) bytes: Range<usize>,
    /// The next record expected there.
    pub(super) first: u64,
    /// The next record found after it, if any; the same as `first` where only a frame of the log's own was hit.
    pub(super) end: Option<u64>,
}

/// One file, scanned.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) header: Result<Header, FrameError>,
    /// The file's first position: by its header, else by its first good frame.
    pub(super) first: Option<u64>,
    pub(super) records: Vec<Found>,
    /// Where the checkpoint's payload lies.
    pub(super) checkpoint: Option<Range<usize>>,
    pub(super) manifest: Option<Vec<Listed>>,
    pub(super) acks: Vec<Range<u64>>,
    /// Positions that an earlier recovery found torn.
    pub(super) holes: Vec<Range<u64>>,
    /// The next file's first position, if this one was closed in good order.
    pub(super) closed: Option<u64>,
    pub(super) bad: Vec<Bad>,
    /// Where the last good frame ends.
    pub(super) end: usize,
    /// Where the last byte lies that is not zero, plus one.
    pub(super) written: usize,
    /// The position after all that good frames tell of. More than the last record's where of a torn group only the acks behind its
    /// records have come to the disk: recovery puts a hole in their place, and no later record may have a position in it.
    pub(super) expected: u64,
    /// Where the youngest group commit began: what lies before it had been synced.
    pub(super) group: usize,
}

/// Scans a whole file; `serial` comes from its name.
pub(super) fn scan(bytes: &[u8], serial: u64) -> Scan {
    let header = Header::decode(bytes).and_then(|h| {
        if h.serial == serial { Ok(h) } else { Err(FrameError::Payload("serial of the header")) }
    });
    let mut scan = Scan {
        first: header.as_ref().ok().map(|h| h.first),
        header,
        records: Vec::new(),
        checkpoint: None,
        manifest: None,
        acks: Vec::new(),
        holes: Vec::new(),
        closed: None,
        bad: Vec::new(),
        end: FILE_HEADER.min(bytes.len()),
        // Room that was never written is zeroes, and no good frame is all zeroes.
        written: bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1),
        expected: 1,
        group: 0,
    };
    // Positions begin with 1, so zeroes never look like a frame.
    let mut expected = scan.first.unwrap_or(1).max(1);
    let mut at = FILE_HEADER;
    loop {
        scan.expected = expected;
        if let Some(frame) = scan.good(bytes, at, serial, expected) {
            expected = scan.take(at, &frame, expected);
            at = scan.end;
            continue;
        }
        if at >= scan.written {
            return scan;
        }
        let next = (at + 1..scan.written)
            .find_map(|o| scan.good(bytes, o, serial, expected).map(|frame| (o, frame.position)));
        // Each group is followed by a header's worth of zeroes; behind them a recycled file has old bytes.
        let terminated = bytes[at..].iter().take(FRAME_HEADER).all(|b| *b == 0);
        if next.is_none() && terminated {
            return scan;
        }
        let (until, end) = next.map_or((scan.written, None), |(o, position)| (o, Some(position)));
        scan.bad.push(Bad { bytes: at..until, first: expected, end });
        at = until;
    }
}

impl Scan {
    /// The good frame at `at`, if there is one that can stand there: its position is not behind, nor further ahead than
    /// frames fit into the file so far; its group began before it.
    fn good<'a>(&self, bytes: &'a [u8], at: usize, serial: u64, expected: u64) -> Option<Frame<'a>> {
        let head = bytes.get(at..at + FRAME_HEADER)?;
        let position = u64::from_le_bytes(head[8..16].try_into().ok()?);
        let group = u32::from_le_bytes(head[16..20].try_into().ok()?) as usize;
        if position < expected || group > at || group < FILE_HEADER {
            return None;
        }
        let frame = decode_record(&bytes[at..], serial).ok()?;
        let room = ((at + frame.frame_len()) / FRAME_HEADER) as u64;
        self.first.is_none_or(|first| position - first <= room).then_some(frame)
    }

    /// Takes in the good frame at `at`; returns the position expected after it.
    fn take(&mut self, at: usize, frame: &Frame<'_>, expected: u64) -> u64 {
        let whole = at..at + frame.frame_len();
        self.group = self.group.max(frame.group as usize);
        self.end = whole.end;
        let expected = if self.first.is_none() { frame.position } else { expected };
        self.first.get_or_insert(frame.position);
        match frame.kind {
            Kind::Record(lane) => {
                let (Ok(offset), Ok(frame_len)) = (u32::try_from(at), u32::try_from(whole.len())) else {
                    return expected; // a file of 4 GiB is refused before it is read
                };
                self.records.push(Found { position: frame.position, offset, frame_len, lane });
                return frame.position + 1;
            }
            Kind::Checkpoint => self.checkpoint = Some(at + FRAME_HEADER..whole.end),
            Kind::Manifest => match decode_manifest(frame.payload) {
                Ok(manifest) => self.manifest = Some(manifest),
                Err(_) => self.bad.push(Bad { bytes: whole, first: expected, end: Some(frame.position) }),
            },
            Kind::Acks => match decode_acks(frame.payload) {
                Ok(mut acks) => self.acks.append(&mut acks),
                Err(_) => self.bad.push(Bad { bytes: whole, first: expected, end: Some(frame.position) }),
            },
            Kind::Hole => self.holes.push(expected..frame.position),
            Kind::Closed => self.closed = Some(frame.position),
        }
        frame.position
    }

    /// Position after the last record found (or known to be torn), or the file's first.
    pub(super) fn next(&self) -> u64 {
        let found = self.records.last().map_or(0, |r| r.position + 1);
        let torn = self.holes.last().map_or(0, |h| h.end);
        found.max(torn).max(self.first.unwrap_or(1)).max(self.expected)
    }
}
