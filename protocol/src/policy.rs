//! Policy: who may open what, as patients signed it and as a gateway evaluates it.
//!
//! [`PolicyDocument`] is what arrives: a file today, values proven against a ledger header tomorrow, in the same
//! format. Nothing in it counts by itself. `ledger-client`'s `verify` checks each patient's signature and makes
//! the [`VerifiedPolicy`], which answers the two questions of the data path: whose sensor is this, and who may
//! open this patient's readings of this class now. Evaluation is pure: the caller gives the time.

mod bundle;
pub mod delivery;
mod device;
mod document;
mod grant;
mod verified;

pub use bundle::{
    BUNDLE_BYTES_MAX, BUNDLE_VERSION, BundleError, CLAIMS_MAX, Claims, Commitment, EMERGENCIES_MAX,
    Emergency, HEADER_BYTES_MAX, NODE_BYTES_MAX, NODES_MAX, ParticipantClaim, PolicyBundle, Pseudonym,
    SignedBinding, SignedEmergency,
};
pub use delivery::{WATCHED_MAX, Watch};
pub use device::{BoundDevice, Mac, MacError, Station};
pub use document::{
    DEVICES_MAX, DOCUMENT_BYTES_MAX, DeviceBinding, GRANTS_MAX, PATIENTS_MAX, POLICY_VERSION, PatientPolicy,
    PolicyDocument, PolicyError, RECIPIENTS_MAX, REVOCATIONS_MAX, RecipientEntry, RecipientKind,
    RecipientStatus,
};
pub use grant::{
    EcdsaSignature, Grant, Purpose, RelationshipId, Revocation, SignedGrant, SignedRevocation, class_bit,
};
pub use verified::{
    AdmissionError, Authentic, EmergencyAccess, FLOORS_MAX, Floor, Floors, Freshness, HeaderFloor, Recipient,
    STALE_BOUND_TREATING_MAX_S, VerifiedPolicy,
};

#[cfg(test)]
mod tests;
