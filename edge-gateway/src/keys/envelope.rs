//! How roots lie in the store: as they are where the gateway has no TPM, else encrypted under a key that its TPM has sealed (ADR 28).
//!
//! ```text
//! plain    root 32
//! sealed   key id 8 ‖ nonce 12 ‖ AES-256-GCM(key, root) 48, the patient as associated data
//! ```
//! The key id is the beginning of SHA-256 over the sealed key, so that a root under another TPM's key is told from a damaged one. Nonces
//! are random: a key encrypts a few hundred roots in its life.

use caregate_protocol::id::PatientId;
use caregate_protocol::key::PatientRoot;
use caregate_protocol::tpm::Sealed;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::KeyStoreError;

const ID_BYTES: usize = 8;
const PLAIN_BYTES: usize = 32;
const SEALED_BYTES: usize = ID_BYTES + NONCE_LEN + PLAIN_BYTES + 16;

/// The key under which roots are encrypted, as long as the process runs.
pub(super) struct RootKey {
    id: [u8; ID_BYTES],
    key: LessSafeKey,
}

/// What a stored root is.
pub(super) enum Stored {
    Root(PatientRoot),
    /// Under a key that this gateway's TPM does not open.
    Elsewhere,
}

impl RootKey {
    pub(super) fn new(secret: &[u8], sealed: &Sealed) -> Result<Self, KeyStoreError> {
        let key =
            UnboundKey::new(&AES_256_GCM, secret).map_err(|_length| KeyStoreError::Shape("root key"))?;
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&digest(&SHA256, &sealed.encode()).as_ref()[..ID_BYTES]);
        Ok(Self { id, key: LessSafeKey::new(key) })
    }
}

/// What is stored of a root.
pub(super) fn seal(
    key: Option<&RootKey>,
    patient: PatientId,
    root: &PatientRoot,
    random: &SystemRandom,
) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let mut out = Zeroizing::new(Vec::with_capacity(SEALED_BYTES));
    let Some(key) = key else {
        out.extend_from_slice(root.as_bytes());
        return Ok(out);
    };
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce).map_err(|_unspecified| KeyStoreError::Random)?;
    out.extend_from_slice(&key.id);
    out.extend_from_slice(&nonce);
    let mut sealed = Zeroizing::new(*root.as_bytes());
    let tag = key
        .key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(patient.0),
            sealed.as_mut_slice(),
        )
        .map_err(|_unspecified| KeyStoreError::Shape("root key"))?;
    out.extend_from_slice(sealed.as_slice());
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

/// Whether a stored root is as it is without a TPM.
pub(super) fn is_plain(stored: &[u8]) -> bool {
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
    let (nonce, sealed) = rest.split_at(NONCE_LEN);
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_length| shape())?;
    let opened =
        key.key.open_in_place(nonce, Aad::from(patient.0), &mut sealed).map_err(|_unspecified| shape())?;
    Ok(Stored::Root(PatientRoot::from_bytes((&*opened).try_into().map_err(|_length| shape())?)))
}
