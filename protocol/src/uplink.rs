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
//! | 30 | [`Frame::AskGenerations`] | gateway → core | control of the alarm lane |
//! | 31 | [`Frame::Generations`] | core → gateway | control of the alarm lane |
//!
//! A record is **provisional** while the core has not synced it. What comes as [`Frame::Provisional`] may be lost by a power cut at the
//! core, may come out of order, and may be missing; the same record comes as [`Frame::Delivery`] once it is durable, and only that
//! counts as received. What has not come so when the connection is made anew never was.

mod codec;
mod framer;

use thiserror::Error;

use crate::erasure::RequestHash;
use crate::id::{DataClass, Lane, PatientId, RecipientId};
use crate::offer::{OFFER_BYTES_MAX, Refusal as OfferRefusal};
use crate::record::RECORD_BYTES_MAX;
use crate::search::Token;
use crate::wire::{Reader, WireError};

pub use framer::{Framer, ack_frames};

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

/// A generation of a chain's keys of which the core has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Which.
    pub generation: u32,
    /// First epoch.
    pub first: u32,
    /// Last epoch.
    pub last: u32,
}

/// Most generations in one [`Frame::Generations`]: one for each loss of access, years of them, in 12 KiB; a gateway that wants more asks
/// again.
pub const GENERATIONS_TOLD_MAX: usize = 1024;
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
    /// Another gateway's records of this pseudonym are here, and that gateway is neither revoked nor removed.
    Stranger = 5,
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
        [Self::Malformed, Self::Signature, Self::Fork, Self::Erased, Self::Stranger]
            .into_iter()
            .find(|r| *r as u8 == number)
    }

    /// A label for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Fork => "fork",
            Self::Erased => "erased",
            Self::Stranger => "stranger",
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
    /// Too many generations, a part of one, one that ends before it begins, or not in ascending order.
    #[error("frame: generations are malformed")]
    Generations,
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
            Self::Generations => "generations",
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
        /// [`BEAT_BYTES`](crate::beat::BEAT_BYTES) of them; not yet looked at.
        bytes: Vec<u8>,
    },
    /// What staff send to a gateway (`crate::command`).
    Command {
        /// At most [`COMMAND_BYTES_MAX`](crate::command::COMMAND_BYTES_MAX); sealed.
        bytes: Vec<u8>,
    },
    /// Erase a pseudonym (`crate::erasure`). The gateway says it again on each connection until it has the receipts that it wants.
    Erase {
        /// [`ERASURE_BYTES`](crate::erasure::ERASURE_BYTES) of them: the request.
        request: Vec<u8>,
    },
    /// It is erased, durably: the core's receipt.
    Erased {
        /// [`RECEIPT_BYTES`](crate::erasure::RECEIPT_BYTES) of them.
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
        /// [`VERDICT_BYTES`](crate::offer::VERDICT_BYTES) of them; not yet looked at.
        bytes: Vec<u8>,
    },
    /// No gateway's word; the last one of the stream.
    NotOffered {
        /// Why.
        refusal: OfferRefusal,
    },
    /// Under which generations was sealed what the core has of a chain? For a gateway to which a patient's root came from another.
    AskGenerations {
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// The lowest one wanted.
        from: u32,
    },
    /// The core's answer. It is the core's word alone.
    Generations {
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// Ascending; at most [`GENERATIONS_TOLD_MAX`].
        used: Vec<Used>,
        /// Whether there are more beyond the last.
        more: bool,
    },
}

#[cfg(test)]
mod tests;
