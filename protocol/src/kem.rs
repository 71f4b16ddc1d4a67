//! A gateway's device key as a key of DHKEM(X25519, HKDF-SHA256) (RFC 9180 §7.1): by the birational map of RFC 7748 §4.1, so that a gateway
//! has one long-term key, and whoever knows it to check signatures knows it for HPKE. That Ed25519 and this KEM may share a key is shown by
//! Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM" (IACR ePrint 2021/509).

use ed25519_dalek::{SigningKey, VerifyingKey};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, HpkeError, Kem};
use zeroize::Zeroizing;

pub(crate) type Suite = X25519HkdfSha256;
pub(crate) type PublicKey = <Suite as Kem>::PublicKey;
pub(crate) type PrivateKey = <Suite as Kem>::PrivateKey;

/// # Errors
/// Where the point is of small order.
pub(crate) fn public(device: &VerifyingKey) -> Result<PublicKey, HpkeError> {
    PublicKey::from_bytes(&device.to_montgomery().to_bytes())
}

/// # Errors
/// None for a key that dalek took.
pub(crate) fn private(device: &SigningKey) -> Result<PrivateKey, HpkeError> {
    PrivateKey::from_bytes(&*Zeroizing::new(device.to_scalar_bytes()))
}

#[cfg(test)]
mod tests {
    use hpke::Serializable as _;

    use super::*;

    #[test]
    fn the_two_halves_belong_together() {
        for seed in 0..32 {
            let device = SigningKey::from_bytes(&[seed; 32]);
            let derived = Suite::sk_to_pk(&private(&device).unwrap());
            assert_eq!(derived.to_bytes(), public(&device.verifying_key()).unwrap().to_bytes());
        }
    }
}
