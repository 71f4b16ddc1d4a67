//! A patient's order that nothing of their pseudonym is to stay at a gateway.

use caregate_protocol::erasure::SignedOrder;
use thiserror::Error;

use super::address::Address;
use super::eip712::{Domain, erasure_digest};
use super::refusal::SignerError;
use super::signature::signer;

/// How old an order may be, in seconds: a bad link, and a wallet's clock that nobody keeps. Each try signs a new one.
pub const ORDER_AGE_MAX_S: i64 = 900;
/// How far ahead of the gateway's clock it may be, in seconds.
pub const ORDER_AHEAD_MAX_S: i64 = 300;

/// Why an order of erasure does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ErasureRefusal {
    /// No patient here.
    #[error("the patient was not pinned here")]
    NotPinned,
    /// Not by the patient's home key.
    #[error(transparent)]
    Signature(#[from] SignerError),
    /// Signed longer ago than an order takes.
    #[error("the order was signed too long ago, by this clock")]
    Old,
    /// Signed in the future.
    #[error("the order was signed in the future, by this clock")]
    Ahead,
    /// Handed in before, or older than one that was.
    #[error("the order was handed in before")]
    Replayed,
}

impl ErasureRefusal {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotPinned => "not_pinned",
            Self::Signature(_) => "erasure_signature",
            Self::Old => "erasure_old",
            Self::Ahead => "erasure_ahead",
            Self::Replayed => "erasure_replayed",
        }
    }
}

/// Checks a patient's order that nothing of their pseudonym is to stay here: signed with this home key, and of this time. `now_us` is Unix
/// time in microseconds. Whether it was handed in before is for whoever keeps orders to say.
///
/// # Errors
/// [`ErasureRefusal`].
pub fn verify_erasure(
    order: &SignedOrder,
    home_key: &Address,
    domain: &Domain,
    now_us: i64,
) -> Result<(), ErasureRefusal> {
    let digest = erasure_digest(&order.patient, order.made_us, domain);
    let by = signer(&digest, &order.signature).map_err(SignerError::Form)?;
    if by != *home_key {
        return Err(SignerError::Other.into());
    }
    let age_us = now_us.saturating_sub(order.made_us);
    if order.made_us < 0 || age_us > ORDER_AGE_MAX_S * 1_000_000 {
        Err(ErasureRefusal::Old)
    } else if age_us < -ORDER_AHEAD_MAX_S * 1_000_000 {
        Err(ErasureRefusal::Ahead)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::PatientId;
    use caregate_protocol::policy::EcdsaSignature;

    use super::*;
    use crate::wallet::PatientKey;

    const PATIENT: PatientId = PatientId([4; 16]);
    const NOW_US: i64 = 1_790_000_000_000_000;

    fn domain(chain_id: u64) -> Domain {
        Domain { chain_id, verifying_contract: Address([0xcc; 20]) }
    }

    #[test]
    fn only_the_home_keys_word_of_now_for_this_ledger_counts() {
        let (home, other) = (PatientKey::generate(), PatientKey::generate());
        let order = |made_us| home.sign_erasure(PATIENT, made_us, &domain(1));
        let judged = |order: &SignedOrder| verify_erasure(order, &home.address(), &domain(1), NOW_US);
        assert_eq!(judged(&order(NOW_US)), Ok(()));
        assert_eq!(judged(&order(NOW_US - ORDER_AGE_MAX_S * 1_000_000)), Ok(()));
        assert_eq!(judged(&order(NOW_US + ORDER_AHEAD_MAX_S * 1_000_000)), Ok(()));
        assert_eq!(judged(&order(NOW_US - ORDER_AGE_MAX_S * 1_000_000 - 1)), Err(ErasureRefusal::Old));
        assert_eq!(judged(&order(NOW_US + ORDER_AHEAD_MAX_S * 1_000_000 + 1)), Err(ErasureRefusal::Ahead));
        assert_eq!(judged(&order(-1)), Err(ErasureRefusal::Old));
        let stranger = Err(ErasureRefusal::Signature(SignerError::Other));
        assert_eq!(judged(&other.sign_erasure(PATIENT, NOW_US, &domain(1))), stranger);
        assert_eq!(judged(&home.sign_erasure(PATIENT, NOW_US, &domain(2))), stranger, "another ledger");
        for changed in [
            SignedOrder { made_us: NOW_US + 1, ..order(NOW_US) },
            SignedOrder { patient: PatientId([5; 16]), ..order(NOW_US) },
        ] {
            assert_eq!(judged(&changed), stranger);
        }
        let none = SignedOrder { signature: EcdsaSignature([0; 65]), ..order(NOW_US) };
        assert!(matches!(judged(&none), Err(ErasureRefusal::Signature(SignerError::Form(_)))));
        assert_eq!(judged(&none).unwrap_err().reason(), "erasure_signature");
    }
}
