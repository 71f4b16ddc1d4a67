//! What staff send down, held against policy: whose signature, whose patient, which moment. Pure.

use caregate_protocol::command::{Action, CommandError, Content, LIFE_MS_MAX, SignedCommand};
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::policy::{RecipientKind, VerifiedPolicy};
use ed25519_dalek::SigningKey;
use ledger_client::verify::{Address, Domain, command_digest, signer};
use thiserror::Error;

/// By how much a domain's clock may be ahead of the gateway's.
const AHEAD_MS_MAX: u64 = 60_000;

/// Nobody whom policy lets command said this, so nobody is told: it is counted, and noted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unheard {
    /// Not for this gateway, or changed on its way.
    #[error(transparent)]
    Form(#[from] CommandError),
    /// Not the named domain's signature.
    #[error("signed by another than the domain that it names")]
    Signature,
    /// Policy in force does not let the domain open this patient's alarms.
    #[error("the domain may not see this patient's alarms")]
    NotGranted,
    /// It may see, but it treats nobody.
    #[error("the domain is neither treating nor in an emergency")]
    NotTreating,
}

impl Unheard {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Form(source) => source.reason(),
            Self::Signature => "signature",
            Self::NotGranted => "not_granted",
            Self::NotTreating => "not_treating",
        }
    }
}

/// A command that its domain signed and policy lets it give.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Whose watch.
    pub patient: PatientId,
    /// Which domain.
    pub domain: RecipientId,
    /// Its number.
    pub sequence: u64,
    /// Who, by the domain's word.
    pub clinician: String,
    /// What.
    pub action: Action,
    /// Why it is not done all the same: too old, or not yet.
    pub refused: Option<&'static str>,
}

/// Opens a command and holds it against `policy` at `now_ms` (Unix milliseconds). `ledger` is where the domain is registered.
///
/// # Errors
/// [`Unheard`].
pub fn hear(
    bytes: &[u8],
    device: &SigningKey,
    policy: &VerifiedPolicy,
    ledger: &Domain,
    now_ms: u64,
) -> Result<Heard, Unheard> {
    let SignedCommand { command, signature } = SignedCommand::open(bytes, device)?;
    let domain = command.domain;
    if signer(&command_digest(&command, ledger), &signature) != Ok(Address(domain.0)) {
        return Err(Unheard::Signature);
    }
    let (patient, now_s) = (command.patient, now_ms / 1000);
    if !policy.recipients(&patient, DataClass::Alarm, now_s).any(|recipient| recipient.id == domain) {
        return Err(Unheard::NotGranted);
    }
    let treats = policy.recipient_entry(&domain).is_some_and(|entry| entry.kind == RecipientKind::Treating);
    let in_emergency = policy.emergencies().iter().any(|access| {
        access.patient == patient
            && access.emergency.domain == domain
            && policy.emergency_holds(access, now_s)
    });
    if !treats && !in_emergency {
        return Err(Unheard::NotTreating);
    }
    let Content { clinician, action } = Content::decode(&command.content)?;
    // By the time that access is judged by: a clock that a header found to be behind is corrected here too.
    let behind_s = policy.time(now_s).unwrap_or(now_s).saturating_sub(now_s);
    let now_ms = now_ms.saturating_add(behind_s.saturating_mul(1000));
    let refused = if command.issued_ms > now_ms.saturating_add(AHEAD_MS_MAX) {
        Some("not_yet")
    } else if command.expires_ms.saturating_sub(command.issued_ms) > LIFE_MS_MAX {
        Some("lives_too_long")
    } else if now_ms >= command.expires_ms {
        Some("expired")
    } else {
        None
    };
    Ok(Heard { patient, domain, sequence: command.sequence, clinician, action, refused })
}
