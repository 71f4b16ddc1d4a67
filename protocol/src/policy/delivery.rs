//! How a bundle reaches a gateway over QUIC: the gateway says what it watches, the controller sends bundles, the gateway says
//! what it thinks of each.
//!
//! ```text
//!   0        4
//!   +--------+--------------------+   length: bytes after it, 1 ..= FRAME_BYTES_MAX, big-endian
//!   | length | CBOR [type, …]     |
//!   +--------+--------------------+
//! ```
//! One bidirectional stream that the gateway opens: [`Frame::Watch`] first, once; then [`Frame::Bundle`] and
//! [`Frame::Revocation`] one way, [`Frame::Verdict`] and [`Frame::Anchor`] the other, and [`Frame::Emergency`] both ways.

use minicbor::Encoder;
use thiserror::Error;

use super::bundle::{BUNDLE_BYTES_MAX, Commitment, Pseudonym, SignedEmergency};
use super::grant::{EcdsaSignature, RelationshipId, Revocation, SignedRevocation};
use crate::cbor::{CborError, Cursor};

/// ALPN of the connection.
pub const ALPN: &[u8] = b"caregate-policy/1";
/// Most bytes after the length: a bundle and what is around it.
pub const FRAME_BYTES_MAX: usize = BUNDLE_BYTES_MAX + 64;
/// Most relationships, bindings or pseudonyms that one gateway watches: a ward's, as in a bundle.
pub const WATCHED_MAX: usize = 1024;
/// Longest reason of a refusal: one word of the list in docs/control-path.md.
pub const REASON_BYTES_MAX: usize = 64;

/// What a gateway wants to know. It says nothing about which of them belong together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watch {
    /// Consents.
    pub relationships: Vec<RelationshipId>,
    /// Keys of device bindings in the contract: `keccak256(abi.encode(home key, commitment))`.
    pub bindings: Vec<Commitment>,
    /// Pseudonyms for break-glass.
    pub pseudonyms: Vec<Pseudonym>,
}

/// What a gateway thinks of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The header's block number; 0 where it could not be read.
    pub number: u64,
    /// The policy epoch that is in force now.
    pub epoch: u64,
    /// Why it was refused; none where it is in force.
    pub refused: Option<String>,
}

/// A revocation on its way to the ledger. The contract knows a relationship by the hash of its two keys, so whoever relays it needs
/// the one that did not sign; with it anybody can check the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// What the patient signed.
    pub revocation: SignedRevocation,
    /// Address of the relationship's other key: of the revoke-only key where the grant key signed, and the other way round.
    pub other_key: [u8; 20],
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Gateway to controller, first.
    Watch(Watch),
    /// Controller to gateway: an encoded [`super::PolicyBundle`].
    Bundle(Vec<u8>),
    /// Gateway to controller, for each bundle.
    Verdict(Verdict),
    /// Gateway to controller: for the ledger. Repeated until a bundle shows it.
    Anchor(Anchor),
    /// Controller to gateway: one that it watches, ahead of the bundle that will show it. It carries its own authority.
    Revocation(SignedRevocation),
    /// Controller to gateway: one that no header shows yet. Gateway to controller: one that was handed to it, for the ledger; repeated
    /// until a bundle shows it. It carries its own authority.
    Emergency(SignedEmergency),
}

/// Longest emergency, as CBOR: its fields take 260 bytes at most.
pub const EMERGENCY_BYTES_MAX: usize = 320;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Zero, or more than [`FRAME_BYTES_MAX`].
    #[error("frame: length {0} is out of bounds")]
    Length(usize),
    /// No such type.
    #[error("frame: type {0} is not known")]
    Type(u8),
    /// Malformed.
    #[error("frame: {0}")]
    Cbor(#[from] CborError),
}

impl FrameError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Length(_) => "length",
            Self::Type(_) => "type",
            Self::Cbor(source) => source.reason(),
        }
    }
}

/// The length that a frame's first four bytes announce.
///
/// # Errors
/// [`FrameError::Length`].
pub fn frame_length(head: [u8; 4]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if (1..=FRAME_BYTES_MAX).contains(&length) { Ok(length) } else { Err(FrameError::Length(length)) }
}

fn put_revocation(
    out: &mut Encoder<&mut Vec<u8>>,
    signed: &SignedRevocation,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    let Revocation { relationship, version } = &signed.revocation;
    out.bytes(&relationship.0)?.u64(*version)?.bytes(&signed.signature.0)?;
    Ok(())
}

fn take_revocation(cursor: &mut Cursor<'_>) -> Result<SignedRevocation, CborError> {
    let relationship = RelationshipId(cursor.fixed("relationship")?);
    let revocation = Revocation { relationship, version: cursor.u64("version")? };
    Ok(SignedRevocation { revocation, signature: EcdsaSignature(cursor.fixed("signature")?) })
}

impl Frame {
    /// The frame with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        // Writing to memory can't fail.
        drop(self.put(&mut Encoder::new(&mut out)));
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
        out
    }

    fn put(
        &self,
        out: &mut Encoder<&mut Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        match self {
            Self::Watch(watch) => {
                out.array(4)?.u8(1)?;
                let lists: [Vec<[u8; 32]>; 3] = [
                    watch.relationships.iter().map(|id| id.0).collect(),
                    watch.bindings.iter().map(|id| id.0).collect(),
                    watch.pseudonyms.iter().map(|id| id.0).collect(),
                ];
                for list in lists {
                    out.array(list.len() as u64)?;
                    for id in list {
                        out.bytes(&id)?;
                    }
                }
            }
            Self::Bundle(bytes) => {
                out.array(2)?.u8(2)?.bytes(bytes)?;
            }
            Self::Verdict(verdict) => {
                out.array(4)?.u8(3)?.u64(verdict.number)?.u64(verdict.epoch)?;
                out.str(verdict.refused.as_deref().unwrap_or_default())?;
            }
            Self::Anchor(Anchor { revocation, other_key }) => {
                put_revocation(out.array(5)?.u8(4)?, revocation)?;
                out.bytes(other_key)?;
            }
            Self::Revocation(revocation) => put_revocation(out.array(4)?.u8(5)?, revocation)?,
            Self::Emergency(emergency) => {
                out.array(2)?.u8(6)?.bytes(&emergency.encode())?;
            }
        }
        Ok(())
    }

    /// Reads what follows a frame's length.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        if body.is_empty() || body.len() > FRAME_BYTES_MAX {
            return Err(FrameError::Length(body.len()));
        }
        let mut cursor = Cursor::new(body);
        let elements = cursor.array("frame", 5)?;
        let kind = cursor.u8("type")?;
        let frame = match (kind, elements) {
            (1, 4) => Self::Watch(Watch {
                relationships: cursor
                    .list("relationships", WATCHED_MAX, |c| Ok(RelationshipId(c.fixed("relationship")?)))?,
                bindings: cursor.list("bindings", WATCHED_MAX, |c| Ok(Commitment(c.fixed("binding")?)))?,
                pseudonyms: cursor
                    .list("pseudonyms", WATCHED_MAX, |c| Ok(Pseudonym(c.fixed("pseudonym")?)))?,
            }),
            (2, 2) => Self::Bundle(cursor.bytes("bundle", BUNDLE_BYTES_MAX)?.to_vec()),
            (3, 4) => Self::Verdict(Verdict {
                number: cursor.u64("number")?,
                epoch: cursor.u64("epoch")?,
                refused: Some(cursor.text("refused", REASON_BYTES_MAX)?)
                    .filter(|reason| !reason.is_empty())
                    .map(str::to_owned),
            }),
            (4, 5) => Self::Anchor(Anchor {
                revocation: take_revocation(&mut cursor)?,
                other_key: cursor.fixed("other_key")?,
            }),
            (5, 4) => Self::Revocation(take_revocation(&mut cursor)?),
            (6, 2) => {
                Self::Emergency(SignedEmergency::decode(cursor.bytes("emergency", EMERGENCY_BYTES_MAX)?)?)
            }
            _ => return Err(FrameError::Type(kind)),
        };
        cursor.finish()?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bundle::Emergency;
    use super::*;
    use crate::id::RecipientId;

    fn whole(frame: &Frame) -> Result<Frame, FrameError> {
        let bytes = frame.encode();
        let length = frame_length(*bytes.first_chunk().unwrap())?;
        assert_eq!(length, bytes.len() - 4);
        Frame::decode(&bytes[4..])
    }

    fn revocation() -> SignedRevocation {
        let revocation = Revocation { relationship: RelationshipId([4; 32]), version: 300 };
        SignedRevocation { revocation, signature: EcdsaSignature([5; 65]) }
    }

    fn emergency(number: u64) -> SignedEmergency {
        let emergency = Emergency {
            pseudonym: Pseudonym([0xe1; 32]),
            domain: RecipientId([0xb2; 20]),
            clinician: Commitment([1; 32]),
            reason: Commitment([2; 32]),
            from: number,
            until: number,
            number,
        };
        SignedEmergency { emergency, signature: EcdsaSignature([5; 65]) }
    }

    #[test]
    fn the_longest_emergency_fits() {
        assert!(emergency(u64::MAX).encode().len() <= EMERGENCY_BYTES_MAX);
        let body = [&[0x82, 6, 0x59, 1, 0x41][..], &[0; 0x141]].concat();
        assert_eq!(Frame::decode(&body).unwrap_err().reason(), "too_many");
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let watch = Watch {
            relationships: vec![RelationshipId([1; 32]), RelationshipId([2; 32])],
            bindings: vec![Commitment([3; 32])],
            pseudonyms: vec![],
        };
        let verdict = |refused: Option<&str>| {
            Frame::Verdict(Verdict { number: 9, epoch: 3, refused: refused.map(str::to_owned) })
        };
        let anchor = Frame::Anchor(Anchor { revocation: revocation(), other_key: [6; 20] });
        for frame in [
            Frame::Watch(watch),
            Frame::Bundle(vec![7; 300]),
            verdict(None),
            verdict(Some("quorum")),
            anchor,
            Frame::Revocation(revocation()),
            Frame::Emergency(emergency(u64::MAX)),
        ] {
            assert_eq!(whole(&frame), Ok(frame.clone()));
        }
    }

    #[test]
    fn golden_bytes() {
        let verdict = Frame::Verdict(Verdict { number: 300, epoch: 2, refused: Some("quorum".into()) });
        assert_eq!(hex::encode(verdict.encode()), "0000000d840319012c0266 71756f72756d".replace(' ', ""));
        let (signed, other) = (format!("{}19012c5841{}", "04".repeat(32), "05".repeat(65)), "06".repeat(20));
        let anchor = Frame::Anchor(Anchor { revocation: revocation(), other_key: [6; 20] });
        assert_eq!(hex::encode(anchor.encode()), format!("0000007f85045820{signed}54{other}"));
        let pushed = Frame::Revocation(revocation());
        assert_eq!(hex::encode(pushed.encode()), format!("0000006a84055820{signed}"));
    }

    #[test]
    fn bounds_and_types() {
        assert_eq!(frame_length([0; 4]), Err(FrameError::Length(0)));
        assert_eq!(frame_length([0, 0x20, 0, 0]), Err(FrameError::Length(0x20_0000)));
        assert_eq!(Frame::decode(&[0x82, 7, 0x40]), Err(FrameError::Type(7)));
        assert_eq!(Frame::decode(&[0x84, 4, 0x40]), Err(FrameError::Type(4)));
        assert_eq!(Frame::decode(&[0x82, 1, 0x40]), Err(FrameError::Type(1)));
        assert_eq!(
            Frame::decode(&[0x82, 2, 0x40, 0]),
            Err(FrameError::Cbor(CborError::Trailing { extra: 1 }))
        );
        let many =
            Watch { relationships: vec![RelationshipId([0; 32]); WATCHED_MAX + 1], ..Watch::default() };
        assert_eq!(whole(&Frame::Watch(many)).unwrap_err().reason(), "too_many");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(whole(&frame), Ok(frame));
            }
        }
    }
}
