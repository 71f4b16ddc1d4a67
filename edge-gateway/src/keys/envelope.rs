//! How roots lie in the store: as they are where the gateway has no TPM, else encrypted under a key that its TPM has sealed (ADR 28).
//!
//! ```text
//! plain    root 32
//! sealed   key id 8 ‖ nonce 12 ‖ AES-256-GCM(key, root) 48, the patient as associated data
//! ```
//! The key id is the beginning of SHA-256 over the sealed key, so that a root under another TPM's key is told from a damaged one. Nonces
//! are random: a key encrypts a few hundred roots in its life.

use std::sync::Arc;

use caregate_protocol::id::PatientId;
use caregate_protocol::key::PatientRoot;
use caregate_protocol::tpm::Sealed;
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::KeyStoreError;
use super::at_rest::{AtRest, OVERHEAD};

const ID_BYTES: usize = 8;
const PLAIN_BYTES: usize = 32;
const SEALED_BYTES: usize = ID_BYTES + PLAIN_BYTES + OVERHEAD;

/// The key under which roots are encrypted, as long as the process runs.
pub(crate) struct RootKey {
    id: [u8; ID_BYTES],
    at_rest: AtRest,
}

/// What a stored root is.
pub(super) enum Stored {
    Root(PatientRoot),
    /// Under a key that this gateway's TPM does not open.
    Elsewhere,
}

impl RootKey {
    pub(super) fn new(secret: &[u8], sealed: &Sealed) -> Result<Self, KeyStoreError> {
        let secret = secret.try_into().map_err(|_length| KeyStoreError::Shape("root key"))?;
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&digest(&SHA256, &sealed.encode()).as_ref()[..ID_BYTES]);
        Ok(Self { id, at_rest: AtRest::new(secret) })
    }
}

/// What is stored of a root.
pub(super) fn seal(
    key: Option<&RootKey>,
    patient: PatientId,
    root: &PatientRoot,
) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let Some(key) = key else { return Ok(Zeroizing::new(root.as_bytes().to_vec())) };
    let sealed =
        key.at_rest.seal(&patient.0, root.as_bytes()).map_err(|_unspecified| KeyStoreError::Random)?;
    Ok(Zeroizing::new([&key.id[..], &sealed].concat()))
}

/// Keeps keys of one patient as roots are kept; for what is kept of a patient beside the root.
#[derive(Clone)]
pub(crate) struct Vault(pub(super) Option<Arc<RootKey>>);

impl Vault {
    /// What is stored of a key.
    pub(crate) fn seal(
        &self,
        patient: PatientId,
        key: &[u8; 32],
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        seal(self.0.as_deref(), beside(patient), &PatientRoot::from_bytes(*key))
    }

    /// The key; none where another TPM has it.
    pub(crate) fn open(
        &self,
        patient: PatientId,
        stored: &[u8],
    ) -> Result<Option<Zeroizing<[u8; 32]>>, KeyStoreError> {
        match open(self.0.as_deref(), beside(patient), stored)? {
            Stored::Root(key) => Ok(Some(Zeroizing::new(*key.as_bytes()))),
            Stored::Elsewhere => Ok(None),
        }
    }
}

impl std::fmt::Debug for Vault {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Vault").field(&self.0.is_some()).finish()
    }
}

/// Another place than the patient's root has, so that neither is taken for the other.
fn beside(patient: PatientId) -> PatientId {
    let mut place = PatientId([0; 16]);
    place.0.copy_from_slice(&digest(&SHA256, &[b"beside the root", &patient.0[..]].concat()).as_ref()[..16]);
    place
}

/// Whether a stored root is as it is without a TPM.
pub(crate) fn is_plain(stored: &[u8]) -> bool {
    stored.len() == PLAIN_BYTES
}

pub(super) fn open(
    key: Option<&RootKey>,
    patient: PatientId,
    stored: &[u8],
) -> Result<Stored, KeyStoreError> {
    let shape = || KeyStoreError::Shape("root");
    if let Ok(plain) = <[u8; PLAIN_BYTES]>::try_from(stored) {
        return Ok(Stored::Root(PatientRoot::from_bytes(plain)));
    }
    if stored.len() != SEALED_BYTES {
        return Err(shape());
    }
    let (id, rest) = stored.split_at(ID_BYTES);
    let Some(key) = key.filter(|key| key.id == *id) else { return Ok(Stored::Elsewhere) };
    let opened = key.at_rest.open(&patient.0, rest).ok_or_else(shape)?;
    Ok(Stored::Root(PatientRoot::from_bytes(opened.as_slice().try_into().map_err(|_length| shape())?)))
}
