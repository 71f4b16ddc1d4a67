//! From a signature to the address that made it.

use caregate_protocol::policy::EcdsaSignature;
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use thiserror::Error;

use super::address::Address;
use super::eip712::keccak256;

/// Why no signer can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The last byte is neither 27 nor 28.
    #[error("v is neither 27 nor 28")]
    V,
    /// s is in the upper half of the group order (EIP-2): the second spelling of a valid signature.
    #[error("s is in the upper half")]
    HighS,
    /// r or s is out of range, or no curve point fits.
    #[error("no public key fits")]
    NoKey,
}

pub(crate) fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    // SEC 1 §2.3.3: the first byte of an uncompressed point is its form, 0x04.
    let hash = keccak256(&[&point.as_bytes()[1..]]);
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&hash[12..]);
    Address(bytes)
}

/// The address whose key signed `digest`. A wrong signature gives another address or none.
///
/// # Errors
/// [`SignatureError`] where the signature isn't in its one allowed form.
pub fn signer(digest: &[u8; 32], signature: &EcdsaSignature) -> Result<Address, SignatureError> {
    let [rs @ .., v] = &signature.0;
    let y_is_odd = match v {
        27 => false,
        28 => true,
        _ => return Err(SignatureError::V),
    };
    let rs = Signature::from_slice(rs).map_err(|_source| SignatureError::NoKey)?;
    if rs.normalize_s() != rs {
        return Err(SignatureError::HighS);
    }
    let key = VerifyingKey::recover_from_prehash(digest, &rs, RecoveryId::new(y_is_odd, false))
        .map_err(|_source| SignatureError::NoKey)?;
    Ok(address_of(&key))
}
