//! Consent on the ledger: what a gateway verifies, and what a wallet signs.
//!
//! [`verify`] holds each grant against the patient key that the gateway pinned at enrolment; it has no key of its
//! own, no I/O and no clock. `wallet` (feature `wallet`) signs, for a patient's device, for tests and for evaluation
//! deployments. They are apart so that a gateway's binary can't sign a grant.

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
#[cfg(any(test, feature = "revoke"))]
pub mod revoke;
#[cfg(any(test, feature = "shares"))]
pub mod shares;
pub mod verify;
#[cfg(any(test, feature = "wallet"))]
pub mod wallet;
