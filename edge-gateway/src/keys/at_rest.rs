//! What the gateway keeps for itself lies on the flash as ciphertext: one of its files, or one row of a table, roots under a TPM's key among
//! them.
//!
//! ```text
//!   0        12
//!   +--------+---------------------------------+
//!   | nonce  | AES-256-GCM of the plaintext    |
//!   +--------+---------------------------------+
//! ```
//! Keys are [`super::KeyStore::file_key`]'s, or the TPM's. Nonces are random: of 2³² under one key two are the same with a chance of 2⁻³³ (NIST SP
//! 800-38D §8.3 stops there). A flood of what is quarantined gets there in ten days at the 5,000 PUBLISHes a second that are the default; after a
//! year of it the chance is 2⁻²³.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Bytes by which what is sealed is longer.
pub(super) const OVERHEAD: usize = NONCE_LEN + MAX_TAG_LEN;

/// Seals and opens with one key.
#[derive(Debug)]
pub struct AtRest {
    key: LessSafeKey,
    random: SystemRandom,
}

impl AtRest {
    /// With this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let Ok(key) = UnboundKey::new(&AES_256_GCM, key) else { unreachable!("a key of this length") };
        Self { key: LessSafeKey::new(key), random: SystemRandom::new() }
    }

    /// The plaintext, sealed to its place.
    ///
    /// # Errors
    /// If the system gives no random bytes, or it is longer than the cipher takes (64 GiB).
    pub fn seal(&self, place: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce)?;
        let mut sealed = [&nonce[..], plaintext].concat();
        let body = sealed.get_mut(NONCE_LEN..).unwrap_or_default();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(place), body)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The plaintext of what was sealed to this place with this key; none of anything else.
    #[must_use]
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = self.key.open_in_place(nonce, Aad::from(place), &mut bytes).ok()?.len();
        bytes.truncate(len);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_at_its_place_with_its_key_and_nothing_else_does() {
        let at_rest = AtRest::new(&[7; 32]);
        let sealed = at_rest.seal(b"here", b"heart-rate 72").unwrap();
        assert_eq!(at_rest.open(b"here", &sealed).unwrap().as_slice(), b"heart-rate 72");
        assert_ne!(sealed, at_rest.seal(b"here", b"heart-rate 72").unwrap());
        assert_eq!(at_rest.open(b"there", &sealed), None);
        assert_eq!(AtRest::new(&[8; 32]).open(b"here", &sealed), None);
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(at_rest.open(b"here", &flipped), None, "byte {at}");
            assert_eq!(at_rest.open(b"here", &sealed[..at]), None, "length {at}");
        }
    }
}
