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
//! | 12 | [`Frame::Early`] | gateway → core | lane, live, by QUIC |
//! | 13 | [`Frame::Durable`] | gateway → core | the same |
//! | 14 | [`Frame::TakesOffers`] | gateway → core | control of the backlog's connection |
//! | 15 | [`Frame::Offer`] | feed → core → gateway | first on a stream of its own; control of the backlog's |
//! | 16 | [`Frame::Subscribe`] | feed → core | subscription |
//! | 17 | [`Frame::Subscribed`] | core → feed | subscription |
//! | 18 | [`Frame::Delivery`] | core → feed | subscription |
//! | 19 | [`Frame::Follow`] | feed → core | first on a following |
//! | 20 | [`Frame::Preview`] | feed → core | first on a preview |
//! | 21 | [`Frame::Provisional`] | core → feed | preview |
//! | 22 | [`Frame::History`] | feed → core | first on a stream of its own |
//! | 23 | [`Frame::Past`] | core → feed | history |
//! | 24 | [`Frame::PastEnd`] | core → feed | history, last |
//! | 25 | [`Frame::Search`] | feed → core | search |
//! | 26 | [`Frame::Found`] | core → feed | search |
//! | 27 | [`Frame::Passed`] | core → feed | subscription |
//! | 28 | [`Frame::Verdict`] | gateway → core → feed | control of the backlog's; offer |
//! | 29 | [`Frame::NotOffered`] | core → feed | offer |
//!
//! A record is **provisional** while the core has not synced it. What comes as [`Frame::Provisional`] may be lost by a power cut at the
//! core, may come out of order, and may be missing; the same record comes as [`Frame::Delivery`] once it is durable, and only that
//! counts as received. What has not come so when the connection is made anew never was.

use thiserror::Error;

use crate::beat::BEAT_BYTES;
use crate::command::COMMAND_BYTES_MAX;
use crate::erasure::{ERASURE_BYTES, RECEIPT_BYTES, RequestHash};
use crate::id::{DataClass, Lane, PatientId, RecipientId};
use crate::offer::{OFFER_BYTES_MAX, Refusal as OfferRefusal, VERDICT_BYTES};
use crate::record::RECORD_BYTES_MAX;
use crate::search::Token;
use crate::wire::{Reader, WireError};

/// ALPN of both hops.
pub const ALPN: &[u8] = b"caregate/1";
/// Version in [`Frame::Hello`], [`Frame::Welcome`] and [`Frame::Subscribe`].
pub const VERSION: u16 = 1;
/// Most records of [`Frame::Early`] that a core holds for one stream: more than the group commits under way have of one lane, but for
/// a house full of patients, whose other records wait for their sync.
pub const EARLY_RECORDS_MAX: usize = 256;
/// Most bytes of them. Two group commits of the largest size, sealed.
pub const EARLY_BYTES_MAX: usize = 1 << 20;
/// Most bytes after the length: an offer with a bundle in it, or a record, its position and the type.
pub const FRAME_BYTES_MAX: usize = OFFER_BYTES_MAX + 16;
const _: () = assert!(RECORD_BYTES_MAX + 16 <= FRAME_BYTES_MAX, "a record fits");
/// Most ranges in one [`Frame::Ack`]: a frame of 16 kB; a sender with more sends a second frame.
pub const ACK_RANGES_MAX: usize = 1024;

/// A set of data classes: a bit for each, at its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classes(u8);

impl Classes {
    /// These.
    #[must_use]
    pub fn of(classes: &[DataClass]) -> Self {
        Self(classes.iter().fold(0, |bits, class| bits | 1 << (*class as u8)))
    }

    /// The set with these bits, if each is a class.
    #[must_use]
    pub fn from_u8(bits: u8) -> Option<Self> {
        (bits & !Self::of(&DataClass::ALL).0 == 0).then_some(Self(bits))
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(self, class: DataClass) -> bool {
        self.0 & 1 << (class as u8) != 0
    }
}

/// When a record came to the core: as the present, or from before. Each has a subscription of its own, so that the past never stands
/// before the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Timing {
    /// On a live lane; and each wrap, without which nothing live can be opened.
    Live = 1,
    /// On a lane of backlog, or brought into the queue by a wrap of a past.
    Backlog = 2,
}

impl Timing {
    /// A label for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backlog => "backlog",
        }
    }
}

/// A place in a patient's history of one class: generations one after the other, epochs in them, segments in those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryPlace {
    /// Of the class key.
    pub generation: u32,
    /// Minutes since 1970 by the gateway's clock.
    pub epoch: u32,
    /// In the chain.
    pub sequence: u64,
}

impl HistoryPlace {
    /// The first that there is.
    pub const FIRST: Self = Self { generation: 0, epoch: 0, sequence: 0 };

    fn encode(self) -> [u8; 16] {
        let high = u128::from(self.generation) << 96 | u128::from(self.epoch) << 64;
        (high | u128::from(self.sequence)).to_be_bytes()
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { generation: r.u32("generation")?, epoch: r.u32("epoch")?, sequence: r.u64("sequence")? })
    }
}

/// What part of a patient's history a feed asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Who can open it; nothing else is answered.
    pub recipient: RecipientId,
    /// Whose.
    pub patient: PatientId,
    /// Of which class.
    pub class: DataClass,
    /// First epoch wanted.
    pub from: u32,
    /// One past the last epoch wanted.
    pub until: u32,
    /// Where to go on: [`HistoryPlace::FIRST`], then what the answer's [`Frame::PastEnd`] said.
    pub at: HistoryPlace,
}
/// Most tokens in one [`Frame::Search`]: of almost three days' minutes, in 64 KiB; a reader that wants more asks again.
pub const TOKENS_ASKED_MAX: usize = 4096;

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
    /// No tokens, too many, or a part of one.
    #[error("frame: tokens are malformed")]
    Tokens,
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
            Self::Tokens => "tokens",
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
    /// One record that is not yet on the gateway's disk. The core holds it and neither stores nor acknowledges it until [`Self::Durable`]
    /// comes on the same stream; with the stream it is gone, and the gateway may give its position and its number to another.
    Early {
        /// Its position in the gateway's spool; ascends on a stream.
        position: u64,
        /// As of [`Self::Data`].
        record: Vec<u8>,
    },
    /// What came early on this stream is on the gateway's disk, as far as its position is lower: from now on it is as [`Self::Data`].
    Durable {
        /// One past the last position.
        below: u64,
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
        /// Of which timing; all where none is named.
        of: Option<Timing>,
    },
    /// The core's answer.
    Subscribed {
        /// [`VERSION`].
        version: u16,
        /// One past the newest number in the queue at this moment.
        next: u64,
    },
    /// Asks for segments with any of these tokens (`crate::search`).
    Search {
        /// [`VERSION`].
        version: u16,
        /// As whom; one of the feed's.
        recipient: RecipientId,
        /// Whose segments.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// At most [`TOKENS_ASKED_MAX`].
        tokens: Vec<Token>,
    },
    /// One segment that has one. The stream ends after the last.
    Found {
        /// The segment.
        record: Vec<u8>,
    },
    /// One record of the queue.
    Delivery {
        /// Its number in the recipient's queue.
        number: u64,
        /// A segment or a wrap.
        record: Vec<u8>,
    },
    /// Of what the subscription is of, all below this number has been delivered. Said now and then where numbers of the other timing were
    /// passed over, so that a feed that comes again need not begin far behind them.
    Passed {
        /// One past the last number that was looked at.
        below: u64,
    },
    /// The feed's first word where it wants live records before they are durable.
    Preview {
        /// [`VERSION`].
        version: u16,
        /// Who can open them.
        recipient: RecipientId,
        /// Of which classes.
        classes: Classes,
    },
    /// One record that is not durable yet.
    Provisional {
        /// A segment or a wrap.
        record: Vec<u8>,
    },
    /// The feed's first word where it wants a time of a patient's history.
    History {
        /// [`VERSION`].
        version: u16,
        /// Which.
        question: Question,
    },
    /// One record of the history; a wrap before what it opens.
    Past {
        /// A segment, a gap or a wrap.
        record: Vec<u8>,
    },
    /// The answer's end.
    PastEnd {
        /// Where there is more: to be asked from there. None where that was all.
        next: Option<HistoryPlace>,
    },
    /// From now on the gateway takes offers on this connection.
    TakesOffers,
    /// Policy for a gateway (`crate::offer`), and the feed's first word where it has some.
    Offer {
        /// [`VERSION`].
        version: u16,
        /// At most [`OFFER_BYTES_MAX`]; sealed.
        sealed: Vec<u8>,
    },
    /// The gateway's word on an offer; from the core to the feed, the last one of the stream.
    Verdict {
        /// [`VERDICT_BYTES`] of them; not yet looked at.
        bytes: Vec<u8>,
    },
    /// No gateway's word; the last one of the stream.
    NotOffered {
        /// Why.
        refusal: OfferRefusal,
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
            Self::Early { position, record } => put(&mut out, 12, &[&position.to_be_bytes(), record]),
            Self::Durable { below } => put(&mut out, 13, &[&below.to_be_bytes()]),
            Self::Search { version, recipient, patient, class, tokens } => {
                let head = [version.to_be_bytes().as_slice(), &recipient.0, &patient.0].concat();
                put(&mut out, 25, &[&head, &[*class as u8]]);
                tokens.iter().for_each(|token| out.extend_from_slice(&token.0));
            }
            Self::Found { record } => put(&mut out, 26, &[record]),
            Self::TakesOffers => put(&mut out, 14, &[]),
            Self::Offer { version, sealed } => put(&mut out, 15, &[&version.to_be_bytes(), sealed]),
            Self::Verdict { bytes } => put(&mut out, 28, &[bytes]),
            Self::NotOffered { refusal } => put(&mut out, 29, &[&[*refusal as u8]]),
            Self::Follow { version } => put(&mut out, 19, &[&version.to_be_bytes()]),
            Self::Subscribe { version, recipient, from, until, of } => {
                let (from, until) = (from.to_be_bytes(), until.to_be_bytes());
                let of = [of.map_or(0, |timing| timing as u8)];
                put(&mut out, 16, &[&version.to_be_bytes(), &recipient.0, &from, &until, &of]);
            }
            Self::Subscribed { version, next } => {
                put(&mut out, 17, &[&version.to_be_bytes(), &next.to_be_bytes()]);
            }
            Self::Delivery { number, record } => put(&mut out, 18, &[&number.to_be_bytes(), record]),
            Self::Preview { version, recipient, classes } => {
                put(&mut out, 20, &[&version.to_be_bytes(), &recipient.0, &[classes.0]]);
            }
            Self::Provisional { record } => put(&mut out, 21, &[record]),
            Self::History { version, question } => put_question(&mut out, *version, question),
            Self::Past { record } => put(&mut out, 23, &[record]),
            Self::PastEnd { next: None } => put(&mut out, 24, &[&[0]]),
            Self::PastEnd { next: Some(next) } => put(&mut out, 24, &[&[1], &next.encode()]),
            Self::Passed { below } => put(&mut out, 27, &[&below.to_be_bytes()]),
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
            12 => Self::Early { position: r.u64("position")?, record: r.rest().to_vec() },
            13 => Self::Durable { below: r.u64("below")? },
            19 => Self::Follow { version: r.u16("version")? },
            16 => Self::Subscribe {
                version: r.u16("version")?,
                recipient: RecipientId(r.array("recipient")?),
                from: r.u64("from")?,
                until: r.u64("until")?,
                of: decode_timing(r.u8("timing")?)?,
            },
            17 => Self::Subscribed { version: r.u16("version")?, next: r.u64("next")? },
            18 => Self::Delivery { number: r.u64("number")?, record: r.rest().to_vec() },
            14 | 15 | 28 | 29 => decode_offer(body[0], &mut r)?,
            20..=27 => decode_later(body[0], &mut r)?,
            other => return Err(FrameError::Type(other)),
        };
        r.finish()?;
        Ok(frame)
    }
}

fn put_question(out: &mut Vec<u8>, version: u16, question: &Question) {
    let Question { recipient, patient, class, from, until, at } = question;
    let (from, until) = (from.to_be_bytes(), until.to_be_bytes());
    let parts: [&[u8]; 7] =
        [&version.to_be_bytes(), &recipient.0, &patient.0, &[*class as u8], &from, &until, &at.encode()];
    put(out, 22, &parts);
}

/// Types 20 to 27.
fn decode_later(kind: u8, r: &mut Reader<'_>) -> Result<Frame, FrameError> {
    let bad = |field, value: u8| FrameError::Value { field, value: u64::from(value) };
    Ok(match kind {
        20 => {
            let (version, recipient) = (r.u16("version")?, RecipientId(r.array("recipient")?));
            let bits = r.u8("classes")?;
            let classes = Classes::from_u8(bits).ok_or_else(|| bad("classes", bits))?;
            Frame::Preview { version, recipient, classes }
        }
        21 => Frame::Provisional { record: r.rest().to_vec() },
        22 => {
            let version = r.u16("version")?;
            let (recipient, patient) = (RecipientId(r.array("recipient")?), PatientId(r.array("patient")?));
            let class = r.u8("class")?;
            let class = DataClass::from_u8(class).ok_or_else(|| bad("class", class))?;
            let (from, until) = (r.u32("from")?, r.u32("until")?);
            let at = HistoryPlace::decode(r)?;
            Frame::History { version, question: Question { recipient, patient, class, from, until, at } }
        }
        23 => Frame::Past { record: r.rest().to_vec() },
        24 => match r.u8("more")? {
            0 => Frame::PastEnd { next: None },
            1 => Frame::PastEnd { next: Some(HistoryPlace::decode(r)?) },
            other => return Err(bad("more", other)),
        },
        25 => decode_search(r)?,
        26 => Frame::Found { record: r.rest().to_vec() },
        27 => Frame::Passed { below: r.u64("below")? },
        other => return Err(FrameError::Type(other)),
    })
}

fn decode_timing(number: u8) -> Result<Option<Timing>, FrameError> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(Timing::Live)),
        2 => Ok(Some(Timing::Backlog)),
        _ => Err(FrameError::Value { field: "timing", value: u64::from(number) }),
    }
}

/// Types 14, 15, 28 and 29.
fn decode_offer(kind: u8, r: &mut Reader<'_>) -> Result<Frame, FrameError> {
    Ok(match kind {
        14 => Frame::TakesOffers,
        15 => {
            let (version, sealed) = (r.u16("version")?, r.rest().to_vec());
            if sealed.len() > OFFER_BYTES_MAX {
                return Err(FrameError::Length(sealed.len()));
            }
            Frame::Offer { version, sealed }
        }
        28 => Frame::Verdict { bytes: r.take("verdict", VERDICT_BYTES)?.to_vec() },
        29 => {
            let number = r.u8("refusal")?;
            let refusal = OfferRefusal::from_u8(number)
                .ok_or_else(|| FrameError::Value { field: "refusal", value: u64::from(number) })?;
            Frame::NotOffered { refusal }
        }
        other => return Err(FrameError::Type(other)),
    })
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    out.push(kind);
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn decode_search(r: &mut Reader<'_>) -> Result<Frame, FrameError> {
    let (version, recipient) = (r.u16("version")?, RecipientId(r.array("recipient")?));
    let (patient, class) = (PatientId(r.array("patient")?), r.u8("class")?);
    let class = DataClass::from_u8(class)
        .ok_or_else(|| FrameError::Value { field: "class", value: u64::from(class) })?;
    let (tokens, []) = r.rest().as_chunks::<16>() else { return Err(FrameError::Tokens) };
    if tokens.is_empty() || tokens.len() > TOKENS_ASKED_MAX {
        return Err(FrameError::Tokens);
    }
    let tokens = tokens.iter().map(|token| Token(*token)).collect();
    Ok(Frame::Search { version, recipient, patient, class, tokens })
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
mod tests;
