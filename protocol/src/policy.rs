//! Policy: who may open what, as patients signed it and as a gateway evaluates it.
//!
//! [`PolicyBundle`] is what arrives: values proven against a ledger header, with the messages that patients and domains signed. Nothing in
//! it counts by itself. `ledger-client`'s `verify` checks proofs and signatures and makes the [`VerifiedPolicy`], which answers the two
//! questions of the data path: whose sensor is this, and who may open this patient's readings of this class now. Evaluation
//! is pure: the caller gives the time.

mod bundle;
pub mod classes;
pub mod delivery;
mod device;
mod grant;
mod recipient;
mod succession;
mod verified;

pub use bundle::{
    BUNDLE_BYTES_MAX, BUNDLE_VERSION, BUNDLE_VERSION_HANDED_ON, BundleError, CLAIMS_MAX, Claims, Commitment,
    EMERGENCIES_MAX, Emergency, HANDOVERS_MAX, HEADER_BYTES_MAX, NODE_BYTES_MAX, NODES_MAX, ParticipantClaim,
    PolicyBundle, Pseudonym, SignedBinding, SignedEmergency,
};
pub use classes::{Classes, ClassesError};
pub use delivery::{WATCHED_MAX, Watch};
pub use device::{BoundDevice, Mac, MacError, Station};
pub use grant::{
    EcdsaSignature, Grant, Purpose, RelationshipId, Revocation, SignedGrant, SignedRevocation, class_bit,
};
pub use recipient::{DEVICES_MAX, GRANTS_MAX, PATIENTS_MAX, RecipientEntry, RecipientKind, RecipientStatus};
pub use succession::{CUSTODIANS_MAX, CustodianWord, SUCCESSIONS_MAX, Succession, SuccessionAuthority};
pub use verified::{
    AdmissionError, Authentic, CLOCK_BEHIND_MAX_S, ClockOffset, EmergencyAccess, FLOORS_MAX, Floor, Floors,
    Freshness, HeaderFloor, Recipient, STALE_BOUND_TREATING_MAX_S, Validator, ValidatorFloor, VerifiedPolicy,
};

#[cfg(test)]
mod tests;
