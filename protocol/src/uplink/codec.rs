//! Frames to bytes and back.

use super::{
    ACK_RANGES_MAX, Classes, EraseRefusal, FRAME_BYTES_MAX, Frame, FrameError, GENERATIONS_TOLD_MAX,
    HistoryPlace, Question, Refusal, TOKENS_ASKED_MAX, Timing, Used,
};
use crate::beat::BEAT_BYTES;
use crate::command::COMMAND_BYTES_MAX;
use crate::erasure::{ERASURE_BYTES, RECEIPT_BYTES, RequestHash};
use crate::id::{DataClass, Lane, PatientId, RecipientId};
use crate::offer::{OFFER_BYTES_MAX, Refusal as OfferRefusal, VERDICT_BYTES};
use crate::search::Token;
use crate::wire::Reader;

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
            Self::AskGenerations { patient, class, from } => {
                put(&mut out, 30, &[&patient.0, &[*class as u8], &from.to_be_bytes()]);
            }
            Self::Generations { patient, class, used, more } => {
                put(&mut out, 31, &[&patient.0, &[*class as u8, u8::from(*more)]]);
                let numbers = used.iter().flat_map(|used| [used.generation, used.first, used.last]);
                numbers.for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
            }
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
            30 | 31 => decode_generations(body[0], &mut r)?,
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

pub(super) fn decode_timing(number: u8) -> Result<Option<Timing>, FrameError> {
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

/// Types 30 and 31.
fn decode_generations(kind: u8, r: &mut Reader<'_>) -> Result<Frame, FrameError> {
    let bad = |field, value: u8| FrameError::Value { field, value: u64::from(value) };
    let (patient, class) = (PatientId(r.array("patient")?), r.u8("class")?);
    let class = DataClass::from_u8(class).ok_or_else(|| bad("class", class))?;
    if kind == 30 {
        return Ok(Frame::AskGenerations { patient, class, from: r.u32("from")? });
    }
    let more = match r.u8("more")? {
        0 => false,
        1 => true,
        other => return Err(bad("more", other)),
    };
    let (told, []) = r.rest().as_chunks::<12>() else { return Err(FrameError::Generations) };
    let number = |bytes: &[u8; 12], at: usize| {
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let used: Vec<_> = told
        .iter()
        .map(|told| Used { generation: number(told, 0), first: number(told, 4), last: number(told, 8) })
        .collect();
    let is_good = used.len() <= GENERATIONS_TOLD_MAX
        && used.iter().all(|used| used.first <= used.last)
        && used.is_sorted_by(|one, next| one.generation < next.generation);
    if is_good { Ok(Frame::Generations { patient, class, used, more }) } else { Err(FrameError::Generations) }
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
