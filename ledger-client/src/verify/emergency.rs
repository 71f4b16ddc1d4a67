//! Break-glass that was handed straight to a gateway: a request that no header shows yet, held against the policy in force
//! (docs/adr/0027-policy-by-any-path.md).
//!
//! It carries its own authority: the domain's signature. Whether the domain may break the glass is what the newest verified header said,
//! however old that is; so a ledger or a controller that is away keeps nobody from a patient, and lets nobody in who was never proven.

use caregate_protocol::policy::{EmergencyAccess, RecipientStatus, SignedEmergency, VerifiedPolicy};
use thiserror::Error;

use super::address::Address;
use super::bundle::EMERGENCY_MAX_S;
use super::eip712::emergency_digest;
use super::pins::Pins;
use super::refusal::SignerError;
use super::signature::signer;

/// How far ahead of the gateway's time an emergency may begin, as in the contract.
pub const EMERGENCY_AHEAD_MAX_S: u64 = 300;

/// Why an emergency that was handed over alone does not count. In the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EmergencyRefusal {
    /// No pseudonym of a patient here.
    #[error("the pseudonym was not pinned here")]
    NotPinned,
    /// Not proven to be a domain that may, or suspended.
    #[error("the domain may not break the glass")]
    Stranger,
    /// The commitment to a clinician or to a reason is zero.
    #[error("it does not say who breaks the glass and why")]
    Unnamed,
    /// Longer than [`EMERGENCY_MAX_S`].
    #[error("it lasts longer than four hours")]
    TooLong,
    /// It ends before it begins, is over, or begins later.
    #[error("it is not now")]
    NotNow,
    /// There is no time to hold it against: the clock is behind the newest header.
    #[error("this clock is behind the ledger's newest header")]
    Clock,
    /// Another one with this number or a higher one is known.
    #[error("another emergency of this domain has this number or a higher one")]
    Number,
    /// Not the domain's word.
    #[error(transparent)]
    Signature(#[from] SignerError),
}

impl EmergencyRefusal {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotPinned => "not_pinned",
            Self::Stranger => "emergency_stranger",
            Self::Unnamed => "emergency_unnamed",
            Self::TooLong => "emergency_too_long",
            Self::NotNow => "emergency_not_now",
            Self::Clock => "clock_behind",
            Self::Number => "emergency_number",
            Self::Signature(_) => "emergency_signature",
        }
    }
}

/// Checks an emergency that came alone, by whatever path, against the pins and the policy in force. `now_s` is the gateway's clock, Unix
/// seconds. The same one again is good.
///
/// # Errors
/// [`EmergencyRefusal`], the first check that fails.
pub fn verify_emergency(
    signed: &SignedEmergency,
    pins: &Pins,
    policy: &VerifiedPolicy,
    now_s: u64,
) -> Result<EmergencyAccess, EmergencyRefusal> {
    let emergency = &signed.emergency;
    let patient = *pins.pseudonyms.get(&emergency.pseudonym).ok_or(EmergencyRefusal::NotPinned)?;
    let may = policy
        .recipient_entry(&emergency.domain)
        .is_some_and(|entry| entry.emergency && entry.status == RecipientStatus::Active);
    if !may {
        return Err(EmergencyRefusal::Stranger);
    }
    if !emergency.is_named() {
        return Err(EmergencyRefusal::Unnamed);
    }
    if emergency.until.saturating_sub(emergency.from) > EMERGENCY_MAX_S {
        return Err(EmergencyRefusal::TooLong);
    }
    let is_over = policy.is_over(emergency.until, now_s);
    let now_s = policy.time(now_s).ok_or(EmergencyRefusal::Clock)?;
    if emergency.from >= emergency.until
        || is_over
        || emergency.from > now_s.saturating_add(EMERGENCY_AHEAD_MAX_S)
    {
        return Err(EmergencyRefusal::NotNow);
    }
    let access = EmergencyAccess { patient, emergency: emergency.clone(), is_direct: true };
    let same = |known: &&EmergencyAccess| {
        (known.emergency.pseudonym, known.emergency.domain) == (emergency.pseudonym, emergency.domain)
    };
    if policy
        .emergencies()
        .iter()
        .filter(same)
        .any(|known| known.emergency.number >= emergency.number && known.emergency != *emergency)
    {
        return Err(EmergencyRefusal::Number);
    }
    let by =
        signer(&emergency_digest(emergency, &pins.domain), &signed.signature).map_err(SignerError::Form)?;
    if by == Address(emergency.domain.0) { Ok(access) } else { Err(SignerError::Other.into()) }
}

#[cfg(test)]
mod tests;
