//! What staff send down to a gateway's watch: signed by their domain, sealed to the gateway, so that the core can only carry it.
//!
//! An envelope ([`crate::envelope`]) with magic "CGCM" and info "caregate command 1"; in it, as CBOR:
//! ```text
//! [patient(16), domain(20), sequence, issued ms, expires ms, content: bytes, signature(65)]
//! content = [clinician: text, action]
//! ```
//! The signature is EIP-712's (`ledger-client`, `StaffCommand`), over the content's bytes as they stand.

use ed25519_dalek::{SigningKey, VerifyingKey};
use minicbor::{Decode, Encode, Encoder};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::alarm::{ALARMS_MAX, Category, Consciousness, Limits, LimitsError, Scale};
use crate::cbor::{CborError, Cursor};
use crate::envelope::{EnvelopeError, Kind};
use crate::id::{PatientId, RecipientId, SignerId};
use crate::policy::EcdsaSignature;

/// First bytes of every command.
pub const MAGIC: [u8; 4] = *b"CGCM";
/// Longest command: 64 alarms that are acknowledged one by one take some 800 bytes.
pub const COMMAND_BYTES_MAX: usize = 2048;
/// Longest name of a clinician, in bytes, as the feed's users'.
pub const CLINICIAN_BYTES_MAX: usize = 64;
/// Longest life of a command: staff who act on what they see act on what is so.
pub const LIFE_MS_MAX: u64 = 5 * 60 * 1000;
/// Longest pause of the tones: ten minutes; a longer one is asked for again.
pub const PAUSE_S_MAX: u16 = 600;
const ENVELOPE: Kind = Kind { magic: MAGIC, info: b"caregate command 1" };

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Other limits for a numeric.
    #[n(1)]
    Limits {
        /// Its row in the code table.
        #[n(0)]
        quantity: u16,
        /// None for those that hold by default.
        #[n(1)]
        limits: Option<Limits>,
    },
    /// Somebody has seen alarms.
    #[n(2)]
    Acknowledge {
        /// Which; all that are there where none is named.
        #[n(0)]
        alarms: Vec<u64>,
    },
    /// No tones for a while.
    #[n(3)]
    Pause {
        /// For so long, at most [`PAUSE_S_MAX`]; 0 ends a pause.
        #[n(0)]
        seconds: u16,
    },
    /// Whether oxygen is given.
    #[n(4)]
    Oxygen {
        /// Given.
        #[n(0)]
        given: bool,
    },
    /// Consciousness as found.
    #[n(5)]
    Consciousness {
        /// ACVPU.
        #[n(0)]
        found: Consciousness,
    },
    /// Whom limits and scores are for.
    #[n(6)]
    Profile {
        /// By age.
        #[n(0)]
        category: Category,
        /// In pregnancy there is no score.
        #[n(1)]
        pregnant: bool,
        /// For SpO2.
        #[n(2)]
        scale: Scale,
    },
}

impl Action {
    /// Its name in counters and trails.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Limits { .. } => "limits",
            Self::Acknowledge { .. } => "acknowledge",
            Self::Pause { .. } => "pause",
            Self::Oxygen { .. } => "oxygen",
            Self::Consciousness { .. } => "consciousness",
            Self::Profile { .. } => "profile",
        }
    }

    /// Whether its values are in range.
    ///
    /// # Errors
    /// [`ActionError`].
    pub fn check(&self) -> Result<(), ActionError> {
        match self {
            Self::Limits { quantity, limits } => Ok(limits.unwrap_or_default().check(*quantity)?),
            Self::Acknowledge { alarms } if alarms.len() > ALARMS_MAX => Err(ActionError::Alarms),
            Self::Pause { seconds } if *seconds > PAUSE_S_MAX => Err(ActionError::Pause),
            Self::Acknowledge { .. }
            | Self::Pause { .. }
            | Self::Oxygen { .. }
            | Self::Consciousness { .. }
            | Self::Profile { .. } => Ok(()),
        }
    }
}

/// A value out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ActionError {
    /// Limits.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// More alarms than there can be.
    #[error("more than {ALARMS_MAX} alarms")]
    Alarms,
    /// Longer than [`PAUSE_S_MAX`].
    #[error("a pause has at most {PAUSE_S_MAX} s")]
    Pause,
}

impl ActionError {
    /// A word for counters and confirmations.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Limits(source) => source.reason(),
            Self::Alarms => "alarms",
            Self::Pause => "pause",
        }
    }
}

/// What the signature is over, but for who and what, which are [`Content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Whose watch.
    pub patient: PatientId,
    /// Who signs.
    pub domain: RecipientId,
    /// Rises with each command of this domain to this patient's watch.
    pub sequence: u64,
    /// Unix milliseconds by the domain's clock.
    pub issued_ms: u64,
    /// Unix milliseconds; from then on it does nothing. At most [`LIFE_MS_MAX`] later.
    pub expires_ms: u64,
    /// [`Content`], encoded.
    pub content: Vec<u8>,
}

/// Who does what.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Content {
    /// Who, as the domain knows them; at most [`CLINICIAN_BYTES_MAX`].
    #[n(0)]
    pub clinician: String,
    /// What.
    #[n(1)]
    pub action: Action,
}

impl Content {
    /// As CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Ok(bytes) = minicbor::to_vec(self).map_err(|_source| unreachable!("a Vec takes every byte"));
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`CommandError::Content`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let content: Self = decoder.decode().map_err(|_source| CommandError::Content)?;
        let is_whole = decoder.position() == bytes.len();
        let is_named = (1..=CLINICIAN_BYTES_MAX).contains(&content.clinician.len());
        if is_whole && is_named { Ok(content) } else { Err(CommandError::Content) }
    }
}

/// Why bytes are no command for this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Longer than [`COMMAND_BYTES_MAX`].
    #[error("command has {0} bytes, allowed are {COMMAND_BYTES_MAX}")]
    TooLong(usize),
    /// Not sealed to this gateway, or not whole.
    #[error("command: {0}")]
    Envelope(#[from] EnvelopeError),
    /// What was sealed is not what belongs there.
    #[error("command: {0}")]
    Cbor(#[from] CborError),
    /// Clinician or action are not what belongs there.
    #[error("command: content is malformed")]
    Content,
}

impl CommandError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "too_long",
            Self::Envelope(source) => source.reason(),
            Self::Cbor(source) => source.reason(),
            Self::Content => "content",
        }
    }
}

/// A command and the domain's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCommand {
    /// What was signed.
    pub command: Command,
    /// By [`Command::domain`].
    pub signature: EcdsaSignature,
}

/// The gateway that a sealed command is for.
///
/// # Errors
/// [`CommandError`] of form.
pub fn addressee(bytes: &[u8]) -> Result<SignerId, CommandError> {
    if bytes.len() > COMMAND_BYTES_MAX {
        return Err(CommandError::TooLong(bytes.len()));
    }
    Ok(ENVELOPE.addressee(bytes)?)
}

impl SignedCommand {
    /// Seals it to a gateway.
    ///
    /// # Errors
    /// [`CommandError::Envelope`] where the device key is none; [`CommandError::TooLong`].
    pub fn seal(&self, gateway: &VerifyingKey) -> Result<Vec<u8>, CommandError> {
        let out = ENVELOPE.seal(&self.plain(), gateway)?;
        if out.len() > COMMAND_BYTES_MAX { Err(CommandError::TooLong(out.len())) } else { Ok(out) }
    }

    fn plain(&self) -> Vec<u8> {
        let Command { patient, domain, sequence, issued_ms, expires_ms, content } = &self.command;
        let mut e = Encoder::new(Vec::with_capacity(256));
        let written = e.array(7).and_then(|e| e.bytes(&patient.0)).and_then(|e| e.bytes(&domain.0));
        let written = written.and_then(|e| e.u64(*sequence)).and_then(|e| e.u64(*issued_ms));
        let written = written.and_then(|e| e.u64(*expires_ms)).and_then(|e| e.bytes(content));
        let Ok(_) = written
            .and_then(|e| e.bytes(&self.signature.0))
            .map_err(|_source| unreachable!("a Vec takes every byte"));
        e.into_writer()
    }

    /// Opens one that is for this gateway. Nothing is verified yet but that it came whole.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn open(bytes: &[u8], device: &SigningKey) -> Result<Self, CommandError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(CommandError::TooLong(bytes.len()));
        }
        let plain = ENVELOPE.open(bytes, device)?;
        Self::decode_plain(&plain)
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// [`CommandError::Cbor`].
    pub fn decode_plain(plain: &[u8]) -> Result<Self, CommandError> {
        let mut cursor = Cursor::new(plain);
        cursor.array_of("command", 7)?;
        let command = Command {
            patient: PatientId(cursor.fixed("command.patient")?),
            domain: RecipientId(cursor.fixed("command.domain")?),
            sequence: cursor.u64("command.sequence")?,
            issued_ms: cursor.u64("command.issued")?,
            expires_ms: cursor.u64("command.expires")?,
            content: cursor.bytes("command.content", COMMAND_BYTES_MAX)?.to_vec(),
        };
        let signature = EcdsaSignature(cursor.fixed("command.signature")?);
        cursor.finish()?;
        Ok(Self { command, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::signer_id;

    fn signed() -> SignedCommand {
        let action = Action::Limits {
            quantity: 3,
            limits: Some(Limits { low: Some(88.0), delay_s: 10, ..Limits::default() }),
        };
        let content = Content { clinician: "nurse".into(), action }.encode();
        let (patient, domain) = (PatientId([1; 16]), RecipientId([2; 20]));
        let command = Command {
            patient,
            domain,
            sequence: 9,
            issued_ms: 1_790_000_000_000,
            expires_ms: 1_790_000_060_000,
            content,
        };
        SignedCommand { command, signature: EcdsaSignature([7; 65]) }
    }

    #[test]
    fn only_the_gateway_that_it_is_for_opens_it_and_only_whole() {
        let device = SigningKey::from_bytes(&[3; 32]);
        let sealed = signed().seal(&device.verifying_key()).unwrap();
        assert_eq!(addressee(&sealed), Ok(signer_id(&device.verifying_key())));
        assert_eq!(SignedCommand::open(&sealed, &device), Ok(signed()));
        let other = SigningKey::from_bytes(&[4; 32]);
        assert_eq!(SignedCommand::open(&sealed, &other), Err(CommandError::Envelope(EnvelopeError::Signer)));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(SignedCommand::open(&changed, &device).is_err(), "byte {at}");
            assert!(SignedCommand::open(&sealed[..at], &device).is_err(), "length {at}");
        }
        assert_eq!(addressee(&[0; COMMAND_BYTES_MAX + 1]), Err(CommandError::TooLong(COMMAND_BYTES_MAX + 1)));
        let content = Content::decode(&signed().command.content).unwrap();
        assert_eq!((content.clinician.as_str(), content.action.as_str()), ("nurse", "limits"));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let limits = |quantity, change: &dyn Fn(&mut Limits)| {
            let mut limits = Limits { low: Some(50.0), high: Some(120.0), delay_s: 5, ..Limits::default() };
            change(&mut limits);
            Action::Limits { quantity, limits: Some(limits) }.check().map_err(|error| error.reason())
        };
        assert_eq!(limits(1, &|_| ()), Ok(()));
        assert_eq!(limits(999, &|_| ()), Err("limits_quantity"));
        assert_eq!(limits(258, &|_| ()), Err("limits_quantity"), "a waveform");
        assert_eq!(limits(1, &|l| l.high = Some(400.0)), Err("limits_range"));
        assert_eq!(limits(1, &|l| l.high = Some(f64::NAN)), Err("limits_range"));
        assert_eq!(limits(1, &|l| l.hysteresis = -1.0), Err("limits_range"));
        assert_eq!(limits(1, &|l| l.hysteresis = 36.0), Err("limits_range"));
        assert_eq!(limits(1, &|l| l.low = Some(120.0)), Err("limits_order"));
        assert_eq!(limits(1, &|l| l.extreme_low = Some(60.0)), Err("limits_order"));
        assert_eq!(limits(1, &|l| l.delay_s = 121), Err("limits_delay"));
        let reason = |action: Action| action.check().map_err(|error| error.reason());
        assert_eq!(reason(Action::Pause { seconds: 600 }), Ok(()));
        assert_eq!(reason(Action::Pause { seconds: 601 }), Err("pause"));
        assert_eq!(reason(Action::Acknowledge { alarms: vec![1; 65] }), Err("alarms"));
        let long = Content { clinician: "n".repeat(65), action: Action::Pause { seconds: 1 } };
        assert_eq!(Content::decode(&long.encode()), Err(CommandError::Content));
    }
}
