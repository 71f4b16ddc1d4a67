//! Puts the parts of replies together again.

use std::collections::BTreeMap;

use thiserror::Error;

use super::super::experimenter::Experimenter;
use super::{MultipartReply, ReplyBody};

/// Replies of which a part is still to come: one of each kind that a controller asks for, and some room.
pub const PENDING_MAX: usize = 8;
/// Parts of one reply: 64 longest messages are 4 MiB, some 40,000 flows.
pub const REPLY_PARTS_MAX: usize = 64;

/// A reply can't be put together. What there was of it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AssemblyError {
    /// A part of another kind than those before it.
    #[error("a part of another kind than those before it")]
    Kind,
    /// More than [`REPLY_PARTS_MAX`] parts.
    #[error("more than {REPLY_PARTS_MAX} parts of one reply")]
    TooLong,
    /// More than [`PENDING_MAX`] replies without their last part.
    #[error("more than {PENDING_MAX} replies without their last part")]
    TooMany,
}

/// The parts that have come, by transaction id.
#[derive(Debug, Default)]
pub struct Assembler {
    /// At most [`PENDING_MAX`], each of at most [`REPLY_PARTS_MAX`] parts.
    pub(super) pending: BTreeMap<u32, (ReplyBody, usize)>,
}

impl Assembler {
    /// With nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next part; the whole reply once its last part is there. Whether the reply was asked for is the caller's to
    /// check first.
    ///
    /// # Errors
    /// [`AssemblyError`].
    pub fn accept(&mut self, xid: u32, part: MultipartReply) -> Result<Option<ReplyBody>, AssemblyError> {
        let MultipartReply { more, body } = part;
        let (whole, parts) = match self.pending.remove(&xid) {
            None => (body, 1),
            Some((_, parts)) if parts >= REPLY_PARTS_MAX => return Err(AssemblyError::TooLong),
            Some((before, parts)) => (join(before, body)?, parts + 1),
        };
        if !more {
            return Ok(Some(whole));
        }
        if self.pending.len() >= PENDING_MAX {
            return Err(AssemblyError::TooMany);
        }
        self.pending.insert(xid, (whole, parts));
        Ok(None)
    }

    /// Forgets a reply that nobody waits for any more.
    pub fn forget(&mut self, xid: u32) {
        self.pending.remove(&xid);
    }
}

fn join(before: ReplyBody, part: ReplyBody) -> Result<ReplyBody, AssemblyError> {
    fn and<T>(mut before: Vec<T>, part: Vec<T>) -> Vec<T> {
        before.extend(part);
        before
    }
    macro_rules! join_lists {
        ($($kind:ident),*) => {
            match (before, part) {
                $((ReplyBody::$kind(before), ReplyBody::$kind(part)) => Ok(ReplyBody::$kind(and(before, part))),)*
                (
                    ReplyBody::Other { multipart_type, body: before },
                    ReplyBody::Other { multipart_type: other, body: part },
                ) if multipart_type == other => {
                    Ok(ReplyBody::Other { multipart_type, body: and(before, part) })
                }
                (ReplyBody::Experimenter(before), ReplyBody::Experimenter(part))
                    if (before.experimenter, before.exp_type) == (part.experimenter, part.exp_type) =>
                {
                    Ok(ReplyBody::Experimenter(Experimenter { data: and(before.data, part.data), ..part }))
                }
                (
                    $(ReplyBody::$kind(_) |)*
                    ReplyBody::Desc(_)
                    | ReplyBody::Aggregate(_)
                    | ReplyBody::GroupFeatures(_)
                    | ReplyBody::MeterFeatures(_)
                    | ReplyBody::Experimenter(_)
                    | ReplyBody::Other { .. },
                    _,
                ) => Err(AssemblyError::Kind),
            }
        };
    }
    join_lists!(Flow, Table, PortStats, Queue, Group, GroupDesc, Meter, MeterConfig, TableFeatures, PortDesc)
}
