//! Recipients, and how many of each thing one gateway deals with.

use serde::{Deserialize, Serialize};

use crate::id::RecipientId;

/// Most patients of one gateway: a large ward; a home has one or two.
pub const PATIENTS_MAX: usize = 256;
/// Most relationships of one patient: more hospital domains than any patient deals with.
pub const GRANTS_MAX: usize = 64;
/// Most device bindings: four sensors on each of [`PATIENTS_MAX`] patients.
pub const DEVICES_MAX: usize = 1024;

/// Whether a recipient takes part at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientStatus {
    /// It receives what patients grant to it.
    Active,
    /// It receives nothing, whatever patients granted.
    Suspended,
}

/// What a recipient is to its patients; it decides how long a grant may outlive a fresh policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientKind {
    /// Clinicians who treat: a grant goes on as far as its own stale bound, at most a day.
    Treating,
    /// All others: with a stale policy they get nothing.
    Other,
}

/// One hospital domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientEntry {
    /// Its ledger address.
    pub id: RecipientId,
    /// Its X25519 public key, to which epoch keys are wrapped (RFC 9180, DHKEM(X25519, HKDF-SHA256)).
    pub hpke_public_key: [u8; 32],
    /// Whether it takes part.
    pub status: RecipientStatus,
    /// What it is to its patients.
    pub kind: RecipientKind,
    /// Whether it may break the glass.
    pub emergency: bool,
}
