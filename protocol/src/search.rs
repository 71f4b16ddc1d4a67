//! Search without telling the word: a gateway signs blind **tokens** beside a segment of alarms; who holds the epoch's key makes the same
//! token of a word, and asks the core for it.
//!
//! ```text
//!   token = first 16 bytes of HKDF(epoch key, "caregate search 1" ‖ patient ‖ class ‖ word)
//!
//!   0        4  5  6   8               24      32   36   40        48                     304            368
//!   +--------+--+--+---+---------------+-------+----+----+---------+----------------------+--------------+
//!   | "CGTK" |v |cl|0 0| patient       |signer |gen |epo | sequence| 16 tokens, ascending | signature    |
//!   +--------+--+--+---+---------------+-------+----+----+---------+----------------------+--------------+
//! v: version 1   cl, gen, epo, sequence: of the segment   signature: Ed25519 over "caregate tokens 1\0" ‖ bytes 0..304
//! ```
//! All numbers are big-endian. There are always sixteen, random ones where there are fewer words, in ascending order: neither their number
//! nor their place says anything. A token is of one epoch, class, generation and patient: those of two minutes have nothing in common.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use thiserror::Error;

use crate::alarm::{Kind, Priority, Standing, State};
use crate::id::{DataClass, PatientId, SignerId};
use crate::key::EpochKey;
use crate::segment::signer_id;
use crate::signed::{self, Unsigned};
use crate::wire::{Reader, WireError};

/// Length of a record of tokens.
pub const TOKENS_BYTES: usize = 368;
/// First bytes of it.
pub const MAGIC: [u8; 4] = *b"CGTK";
/// Tokens of a segment: each of twelve kinds of alarms and three priorities, and one to spare.
pub const TOKENS: usize = 16;
const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 304;
const SIGNED_PREFIX: &[u8] = b"caregate tokens 1\0";

/// What stands for a word in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub [u8; 16]);

/// What can be searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Word {
    /// An alarm of this kind is active or latched.
    Kind(Kind),
    /// One of this priority is.
    Priority(Priority),
}

impl Word {
    /// Those of a standing. Acknowledged alarms have been seen; they are not searched for.
    #[must_use]
    pub fn of(standing: &Standing) -> Vec<Self> {
        let unseen = standing.alarms.iter().filter(|alarm| alarm.state != State::Acknowledged);
        let mut words: Vec<_> =
            unseen.flat_map(|alarm| [Self::Kind(alarm.kind), Self::Priority(alarm.priority)]).collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    /// The word that is written so: a kind's or a priority's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let priority =
            Priority::ALL.into_iter().find(|priority| text == format!("priority:{}", priority.as_str()));
        let kind = || Kind::ALL.into_iter().find(|kind| kind.as_str() == text).map(Self::Kind);
        priority.map(Self::Priority).or_else(kind)
    }

    fn text(self) -> String {
        match self {
            Self::Kind(kind) => format!("alarm:{}", kind.as_str()),
            Self::Priority(priority) => format!("priority:{}", priority.as_str()),
        }
    }

    /// What stands for it in the epoch of this key.
    #[must_use]
    pub fn token(self, key: &EpochKey, patient: PatientId, class: DataClass) -> Token {
        Token(key.search_token(patient, class, self.text().as_bytes()))
    }
}

/// Why bytes are no record of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokensError {
    /// A field is missing or bytes follow the end.
    #[error("tokens: {0}")]
    Wire(#[from] WireError),
    /// Does not begin with [`MAGIC`] and version 1.
    #[error("tokens: magic or version is not known")]
    Version,
    /// No such data class.
    #[error("tokens: class {0} is not known")]
    Class(u8),
    /// A reserved byte is not zero.
    #[error("tokens: reserved bytes must be 0")]
    Reserved,
    /// Not in ascending order, or one twice.
    #[error("tokens: not in ascending order")]
    Order,
    /// The signer is another key than the one given.
    #[error("tokens: signed by another key")]
    Signer,
    /// The signature does not hold.
    #[error("tokens: signature does not verify")]
    Signature,
}

impl TokensError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wire(_) => "truncated",
            Self::Version => "version",
            Self::Class(_) => "class",
            Self::Reserved => "reserved",
            Self::Order => "order",
            Self::Signer => "signer",
            Self::Signature => "signature",
        }
    }
}

/// The tokens of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// The segment's class.
    pub class: DataClass,
    /// Its patient.
    pub patient: PatientId,
    /// Its generation.
    pub generation: u32,
    /// Its epoch.
    pub epoch: u32,
    /// Its number.
    pub sequence: u64,
    /// In ascending order, each once.
    pub tokens: [Token; TOKENS],
}

impl Tokens {
    /// The tokens of a segment's words, filled up with `random`. Beyond [`TOKENS`] words the rest is left out.
    #[must_use]
    pub fn fill(words: impl Iterator<Item = Token>, random: [Token; TOKENS]) -> [Token; TOKENS] {
        let mut tokens = random;
        for (place, token) in tokens.iter_mut().zip(words) {
            *place = token;
        }
        tokens.sort_unstable();
        tokens
    }

    /// The signed bytes.
    #[must_use]
    pub fn sign(&self, device: &SigningKey) -> [u8; TOKENS_BYTES] {
        let mut out = [0; TOKENS_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&[VERSION, self.class as u8]);
        out[8..24].copy_from_slice(&self.patient.0);
        out[24..32].copy_from_slice(&signer_id(&device.verifying_key()).0);
        out[32..36].copy_from_slice(&self.generation.to_be_bytes());
        out[36..40].copy_from_slice(&self.epoch.to_be_bytes());
        out[40..48].copy_from_slice(&self.sequence.to_be_bytes());
        for (place, token) in out[48..SIGNED_BYTES].chunks_exact_mut(16).zip(&self.tokens) {
            place.copy_from_slice(&token.0);
        }
        let signature = device.sign(&[SIGNED_PREFIX, &out[..SIGNED_BYTES]].concat());
        out[SIGNED_BYTES..].copy_from_slice(&signature.to_bytes());
        out
    }
}

/// A record of tokens as received: parsed, not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTokens {
    /// What it says.
    pub tokens: Tokens,
    /// Whose device key signed.
    pub signer: SignerId,
    bytes: Box<[u8; TOKENS_BYTES]>,
}

impl SignedTokens {
    /// Parses exactly one record.
    ///
    /// # Errors
    /// Any [`TokensError`] of form; nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, TokensError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != MAGIC || r.u8("version")? != VERSION {
            return Err(TokensError::Version);
        }
        let (class, reserved) = (r.u8("class")?, r.u16("reserved")?);
        let patient = PatientId(r.array("patient")?);
        let signer = SignerId(r.array("signer")?);
        let (generation, epoch, sequence) = (r.u32("generation")?, r.u32("epoch")?, r.u64("sequence")?);
        let mut tokens = [Token([0; 16]); TOKENS];
        for token in &mut tokens {
            token.0 = r.array("token")?;
        }
        r.take("signature", TOKENS_BYTES - SIGNED_BYTES)?;
        r.finish()?;
        if reserved != 0 {
            return Err(TokensError::Reserved);
        }
        if !tokens.is_sorted_by(|before, after| before < after) {
            return Err(TokensError::Order);
        }
        let class = DataClass::from_u8(class).ok_or(TokensError::Class(class))?;
        let mut copy = Box::new([0; TOKENS_BYTES]);
        copy.copy_from_slice(bytes);
        let tokens = Tokens { class, patient, generation, epoch, sequence, tokens };
        Ok(Self { tokens, signer, bytes: copy })
    }

    /// Checks that `device` signed it (RFC 8032, strict).
    ///
    /// # Errors
    /// [`TokensError::Signer`] or [`TokensError::Signature`].
    pub fn verify(&self, device: &VerifyingKey) -> Result<(), TokensError> {
        signed::verify(&self.bytes[..], SIGNED_PREFIX, self.signer, device).map_err(|why| match why {
            Unsigned::Signer => TokensError::Signer,
            Unsigned::Signature => TokensError::Signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PatientRoot;

    const EPOCH: u32 = 29_000_000;

    fn key(generation: u32, epoch: u32) -> EpochKey {
        PatientRoot::from_bytes([7; 32]).class_key(DataClass::Alarm, generation).epoch_key(epoch).unwrap()
    }

    fn token(word: &str, generation: u32, epoch: u32) -> Token {
        Word::parse(word).unwrap().token(&key(generation, epoch), PatientId([1; 16]), DataClass::Alarm)
    }

    fn random() -> [Token; TOKENS] {
        std::array::from_fn(|n| Token([u8::try_from(n).unwrap() * 16 + 3; 16]))
    }

    fn tokens() -> Tokens {
        let words = ["asystole", "priority:high"].map(|word| token(word, 2, EPOCH));
        let tokens = Tokens::fill(words.into_iter(), random());
        let patient = PatientId([1; 16]);
        Tokens { class: DataClass::Alarm, patient, generation: 2, epoch: EPOCH, sequence: 9, tokens }
    }

    #[test]
    fn words_are_kinds_and_priorities_and_their_tokens_are_of_one_epoch() {
        for kind in Kind::ALL {
            assert_eq!(Word::parse(kind.as_str()), Some(Word::Kind(kind)));
        }
        assert_eq!(Word::parse("priority:low"), Some(Word::Priority(Priority::Low)));
        assert_eq!((Word::parse("low"), Word::parse("tachycardia")), (Some(Word::Kind(Kind::Low)), None));
        let all = [
            token("asystole", 2, EPOCH),
            token("apnoea", 2, EPOCH),
            token("asystole", 3, EPOCH),
            token("asystole", 2, EPOCH + 1),
            token("low", 2, EPOCH),
            token("priority:low", 2, EPOCH),
        ];
        let distinct: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
        // Golden, computed apart from this code with Python's hmac: what is written today must be found for ever.
        assert_eq!(hex::encode(token("asystole", 2, EPOCH).0), GOLDEN);
    }
    const GOLDEN: &str = "4bcf33d318a5c5bf4e3630ca338c7c40";

    #[test]
    fn a_record_comes_back_and_nothing_that_was_changed_does() {
        let device = SigningKey::from_bytes(&[3; 32]);
        let bytes = tokens().sign(&device);
        let signed = SignedTokens::decode(&bytes).unwrap();
        assert_eq!((signed.tokens, signed.verify(&device.verifying_key())), (tokens(), Ok(())));
        assert!(signed.tokens.tokens.contains(&token("asystole", 2, EPOCH)));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key();
        assert_eq!(signed.verify(&other), Err(TokensError::Signer));
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1;
            let verified =
                SignedTokens::decode(&changed).and_then(|signed| signed.verify(&device.verifying_key()));
            assert!(verified.is_err(), "a flip at byte {at} went unnoticed");
            assert!(SignedTokens::decode(&bytes[..at]).is_err());
        }
        let mut swapped = tokens();
        swapped.tokens.swap(3, 4);
        assert_eq!(SignedTokens::decode(&swapped.sign(&device)), Err(TokensError::Order));
    }

    #[test]
    fn there_are_always_as_many() {
        assert_eq!(Tokens::fill(std::iter::empty(), random()), random());
        let many = (0..40).map(|n| Token([n; 16]));
        assert_eq!(
            Tokens::fill(many, random()),
            std::array::from_fn(|n| Token([u8::try_from(n).unwrap(); 16]))
        );
    }
}
