//! A record: what the spool keeps, the uplink carries and the core stores — a segment, its search tokens, a wrap, a head or a gap, told apart
//! by their magic.

use thiserror::Error;

use crate::gap::{self, GapError, SignedGap};
use crate::head::{self, HeadError, SignedHead};
use crate::id::{DataClass, PatientId, SignerId};
use crate::search::{self, SignedTokens, TokensError};
use crate::segment::{self, Segment, SegmentError};
use crate::wrap::{self, Wrap, WrapError};

/// Most bytes of one record.
pub const RECORD_BYTES_MAX: usize = segment::SEGMENT_BYTES_MAX;

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No such magic.
    #[error("record: neither a segment, tokens, a wrap, a head nor a gap")]
    Magic,
    /// A segment that does not parse or verify.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A wrap that does not parse or verify.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// A head that does not parse or verify.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A gap that does not parse or verify.
    #[error(transparent)]
    Gap(#[from] GapError),
    /// Tokens that do not parse or verify.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

impl RecordError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Magic => "magic",
            Self::Segment(e) => e.reason(),
            Self::Wrap(e) => e.reason(),
            Self::Head(e) => e.reason(),
            Self::Gap(e) => e.reason(),
            Self::Tokens(e) => e.reason(),
        }
    }
}

/// A segment, a wrap, a head, a gap or tokens.
#[derive(Debug, Clone)]
pub enum Record<'a> {
    /// Sealed readings.
    Segment(Segment<'a>),
    /// A key for one recipient.
    Wrap(Wrap),
    /// How far a chain goes.
    Head(SignedHead),
    /// What may be missing in a chain.
    Gap(SignedGap),
    /// What a segment can be found by.
    Tokens(SignedTokens),
}

impl<'a> Record<'a> {
    /// Parses exactly one record.
    ///
    /// # Errors
    /// [`RecordError`]; nothing is verified yet.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        if bytes.starts_with(&segment::MAGIC) {
            Ok(Self::Segment(Segment::decode(bytes)?))
        } else if bytes.starts_with(&wrap::MAGIC) {
            Ok(Self::Wrap(Wrap::decode(bytes)?))
        } else if bytes.starts_with(&head::MAGIC) {
            Ok(Self::Head(SignedHead::decode(bytes)?))
        } else if bytes.starts_with(&gap::MAGIC) {
            Ok(Self::Gap(SignedGap::decode(bytes)?))
        } else if bytes.starts_with(&search::MAGIC) {
            Ok(Self::Tokens(SignedTokens::decode(bytes)?))
        } else {
            Err(RecordError::Magic)
        }
    }

    /// Whose readings.
    #[must_use]
    pub fn patient(&self) -> PatientId {
        match self {
            Self::Segment(s) => s.header.patient,
            Self::Wrap(w) => w.patient,
            Self::Head(h) => h.head.patient,
            Self::Gap(g) => g.gap.patient,
            Self::Tokens(t) => t.tokens.patient,
        }
    }

    /// The data class.
    #[must_use]
    pub fn class(&self) -> DataClass {
        match self {
            Self::Segment(s) => s.header.class,
            Self::Wrap(w) => w.class,
            Self::Head(h) => h.head.class,
            Self::Gap(g) => g.gap.class,
            Self::Tokens(t) => t.tokens.class,
        }
    }

    /// Whose device key signed.
    #[must_use]
    pub fn signer(&self) -> SignerId {
        match self {
            Self::Segment(s) => s.header.signer,
            Self::Wrap(w) => w.signer,
            Self::Head(h) => h.signer,
            Self::Gap(g) => g.signer,
            Self::Tokens(t) => t.signer,
        }
    }
}
