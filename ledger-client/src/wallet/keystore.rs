//! The keystore file: a wallet's secrets under a passphrase.
//!
//! ```text
//!   0         8        9       10          14       18     19       35       47
//!   +---------+--------+-------+-----------+--------+------+--------+--------+----------------------------+
//!   | CGWALLET| version| kdf   | memory KiB| passes | lanes| salt   | nonce  | sealed, 16 bytes of tag    |
//!   | 8       | 1      | 1     | 4         | 4      | 1    | 16     | 12     |                            |
//!   +---------+--------+-------+-----------+--------+------+--------+--------+----------------------------+
//! ```
//! Numbers are big-endian. The key is Argon2id's (RFC 9106), the seal ChaCha20-Poly1305 (RFC 8439) with all that stands before it as
//! associated data. Salt and nonce are new with each writing. The costs in the file are bounded both ways: a changed file can
//! neither ask for all memory nor for none.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"CGWALLET";
const VERSION: u8 = 1;
/// Argon2id, version 0x13.
const KDF_ARGON2ID: u8 = 1;
const SALT_BYTES: usize = 16;
const HEADER_BYTES: usize = 8 + 1 + 1 + 4 + 4 + 1 + SALT_BYTES + NONCE_LEN;
const TAG_BYTES: usize = 16;

/// Largest keystore: 64 relationships and 1,024 devices take 100 kB.
pub const KEYSTORE_BYTES_MAX: usize = 1 << 20;
/// Least and most memory of a file's key derivation: RFC 9106's floor for memory-constrained machines is 64 MiB; 8 MiB leaves
/// room for the smallest boards, 1 GiB for the most careful.
pub const MEMORY_KIB: (u32, u32) = (8 * 1024, 1024 * 1024);
/// Fewest and most passes.
pub const PASSES: (u32, u32) = (1, 64);
/// Fewest and most lanes.
pub const LANES: (u8, u8) = (1, 16);
/// Shortest passphrase, in bytes: below it the cost of a guess is no protection.
pub const PASSPHRASE_BYTES_MIN: usize = 8;
/// Longest passphrase, in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

/// What a guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Within [`MEMORY_KIB`].
    pub memory_kib: u32,
    /// Within [`PASSES`].
    pub passes: u32,
    /// Within [`LANES`].
    pub lanes: u8,
}

impl Default for Cost {
    /// RFC 9106's second recommendation: 64 MiB, 3 passes, 4 lanes.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

/// Why a keystore was not opened or not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeystoreError {
    /// Shorter than a header and a tag, or longer than [`KEYSTORE_BYTES_MAX`].
    #[error("a keystore has {min} to {KEYSTORE_BYTES_MAX} bytes, this has {0}", min = HEADER_BYTES + TAG_BYTES)]
    Length(usize),
    /// Another kind of file.
    #[error("not a keystore")]
    Magic,
    /// Of another release.
    #[error("keystore version {0} is not {VERSION}")]
    Version(u8),
    /// A key derivation that this release doesn't know.
    #[error("key derivation {0} is not known")]
    Kdf(u8),
    /// Out of bounds.
    #[error("keystore: {what} {value} is out of bounds")]
    Cost {
        /// Which.
        what: &'static str,
        /// Its value.
        value: u32,
    },
    /// Too short or too long.
    #[error("a passphrase has {PASSPHRASE_BYTES_MIN} to {PASSPHRASE_BYTES_MAX} bytes, this has {0}")]
    Passphrase(usize),
    /// One or the other; nobody can tell which.
    #[error("wrong passphrase, or the keystore is damaged")]
    Sealed,
    /// The operating system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// Not enough memory for the derivation.
    #[error("the key can't be derived: not enough memory")]
    Derivation,
}

impl Cost {
    fn check(self) -> Result<Self, KeystoreError> {
        let cost = |what, value| Err(KeystoreError::Cost { what, value });
        if !(MEMORY_KIB.0..=MEMORY_KIB.1).contains(&self.memory_kib) {
            cost("memory", self.memory_kib)
        } else if !(PASSES.0..=PASSES.1).contains(&self.passes) {
            cost("passes", self.passes)
        } else if !(LANES.0..=LANES.1).contains(&self.lanes) {
            cost("lanes", self.lanes.into())
        } else {
            Ok(self)
        }
    }

    fn key(self, passphrase: &[u8], salt: &[u8]) -> Result<LessSafeKey, KeystoreError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes.into(), Some(32))
            .map_err(|_source| KeystoreError::Derivation)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, salt, key.as_mut_slice())
            .map_err(|_source| KeystoreError::Derivation)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice())
            .map_err(|_source| KeystoreError::Derivation)?;
        Ok(LessSafeKey::new(key))
    }
}

fn checked(passphrase: &[u8]) -> Result<&[u8], KeystoreError> {
    match passphrase.len() {
        PASSPHRASE_BYTES_MIN..=PASSPHRASE_BYTES_MAX => Ok(passphrase),
        len => Err(KeystoreError::Passphrase(len)),
    }
}

/// Seals `secret` under `passphrase`. The file's bytes.
///
/// # Errors
/// [`KeystoreError`]: cost or passphrase out of bounds, too much to seal, or no random bytes.
pub fn seal(secret: &[u8], passphrase: &[u8], cost: Cost) -> Result<Vec<u8>, KeystoreError> {
    let (passphrase, cost) = (checked(passphrase)?, cost.check()?);
    if secret.len() > KEYSTORE_BYTES_MAX - HEADER_BYTES - TAG_BYTES {
        return Err(KeystoreError::Length(secret.len()));
    }
    let mut random = [0; SALT_BYTES + NONCE_LEN];
    SystemRandom::new().fill(&mut random).map_err(|_source| KeystoreError::Random)?;
    let (salt, nonce) = random.split_at(SALT_BYTES);
    let mut out = Vec::with_capacity(HEADER_BYTES + secret.len() + TAG_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, KDF_ARGON2ID]);
    out.extend_from_slice(&cost.memory_kib.to_be_bytes());
    out.extend_from_slice(&cost.passes.to_be_bytes());
    out.push(cost.lanes);
    out.extend_from_slice(&random);
    let key = cost.key(passphrase, salt)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_source| KeystoreError::Random)?;
    let mut sealed = Zeroizing::new(secret.to_vec());
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(&out), &mut sealed)
        .map_err(|_source| KeystoreError::Sealed)?;
    out.extend_from_slice(&sealed);
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

/// What can be told of a keystore without its passphrase.
///
/// # Errors
/// [`KeystoreError`] where the header is none, or asks for what is out of bounds.
pub fn cost(bytes: &[u8]) -> Result<Cost, KeystoreError> {
    if !(HEADER_BYTES + TAG_BYTES..=KEYSTORE_BYTES_MAX).contains(&bytes.len()) {
        return Err(KeystoreError::Length(bytes.len()));
    }
    let (magic, rest) = bytes.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(KeystoreError::Magic);
    }
    match rest {
        [VERSION, KDF_ARGON2ID, a, b, c, d, e, f, g, h, lanes, ..] => {
            let memory_kib = u32::from_be_bytes([*a, *b, *c, *d]);
            Cost { memory_kib, passes: u32::from_be_bytes([*e, *f, *g, *h]), lanes: *lanes }.check()
        }
        [VERSION, kdf, ..] => Err(KeystoreError::Kdf(*kdf)),
        [version, ..] => Err(KeystoreError::Version(*version)),
        [] => Err(KeystoreError::Length(bytes.len())),
    }
}

/// Opens a keystore.
///
/// # Errors
/// [`KeystoreError`].
pub fn open(bytes: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let cost = cost(bytes)?;
    let passphrase = checked(passphrase)?;
    let (header, sealed) = bytes.split_at(HEADER_BYTES);
    let (salt, nonce) = header[HEADER_BYTES - SALT_BYTES - NONCE_LEN..].split_at(SALT_BYTES);
    let key = cost.key(passphrase, salt)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_source| KeystoreError::Sealed)?;
    let mut opened = Zeroizing::new(sealed.to_vec());
    let len = key
        .open_in_place(nonce, Aad::from(header), &mut opened)
        .map_err(|_source| KeystoreError::Sealed)?
        .len();
    opened.truncate(len);
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that is allowed: a guess takes some milliseconds.
    const CHEAP: Cost = Cost { memory_kib: MEMORY_KIB.0, passes: 1, lanes: 1 };
    const PASSPHRASE: &[u8] = b"correct horse battery";

    fn sealed() -> Vec<u8> {
        seal(b"the seed", PASSPHRASE, CHEAP).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_passphrase_alone() {
        let file = sealed();
        assert_eq!(open(&file, PASSPHRASE).unwrap().as_slice(), b"the seed");
        assert_eq!(open(&file, b"correct horse batterz"), Err(KeystoreError::Sealed));
        assert_eq!(open(&file, b"short"), Err(KeystoreError::Passphrase(5)));
        assert_eq!(cost(&file), Ok(CHEAP));
        assert_ne!(file, sealed(), "salt and nonce are new with each writing");
    }

    #[test]
    fn every_truncated_length_is_refused() {
        let file = sealed();
        for len in 0..file.len() {
            let refused = open(&file[..len], PASSPHRASE);
            let expected = if len < HEADER_BYTES + TAG_BYTES {
                KeystoreError::Length(len)
            } else {
                KeystoreError::Sealed
            };
            assert_eq!(refused, Err(expected), "{len}");
        }
        let mut longer = file;
        longer.push(0);
        assert_eq!(open(&longer, PASSPHRASE), Err(KeystoreError::Sealed));
        assert_eq!(
            cost(&vec![0; KEYSTORE_BYTES_MAX + 1]),
            Err(KeystoreError::Length(KEYSTORE_BYTES_MAX + 1))
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let file = sealed();
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let refused = open(&changed, PASSPHRASE).unwrap_err();
            let expected = match at {
                0..8 => KeystoreError::Magic,
                8 => KeystoreError::Version(0),
                9 => KeystoreError::Kdf(0),
                // Memory and passes are read from the file, and are part of what is sealed.
                10..18 => match cost(&changed) {
                    Err(out_of_bounds) => out_of_bounds,
                    Ok(_) => KeystoreError::Sealed,
                },
                18 => KeystoreError::Cost { what: "lanes", value: 0 },
                _ => KeystoreError::Sealed,
            };
            assert_eq!(refused, expected, "byte {at}");
        }
    }

    #[test]
    fn costs_are_bounded_both_ways() {
        for (cost, what, value) in [
            (Cost { memory_kib: 8, ..CHEAP }, "memory", 8),
            (Cost { memory_kib: u32::MAX, ..CHEAP }, "memory", u32::MAX),
            (Cost { passes: 0, ..CHEAP }, "passes", 0),
            (Cost { passes: 65, ..CHEAP }, "passes", 65),
            (Cost { lanes: 17, ..CHEAP }, "lanes", 17),
        ] {
            assert_eq!(seal(b"x", PASSPHRASE, cost), Err(KeystoreError::Cost { what, value }));
        }
        let long = vec![b'x'; PASSPHRASE_BYTES_MAX + 1];
        assert_eq!(seal(b"x", &long, CHEAP), Err(KeystoreError::Passphrase(long.len())));
        assert_eq!(
            seal(&vec![0; KEYSTORE_BYTES_MAX], PASSPHRASE, CHEAP),
            Err(KeystoreError::Length(KEYSTORE_BYTES_MAX))
        );
    }

    #[test]
    fn a_file_that_others_made_is_opened() {
        // Made with Python: argon2-cffi 25.1.0 (hash_secret_raw) and cryptography 50.0.2 (ChaCha20Poly1305).
        let file = hex::decode(concat!(
            "434757414c4c45540101000020000000000202000102030405060708090a0b0c0d0e0f6465666768696a6b6c6d6e6ff7",
            "1a8b95aadb9c4984a7ce5a04021f8895aa78c93885edade57d35a5e9834ff1",
        )).unwrap();
        assert_eq!(open(&file, PASSPHRASE).unwrap().as_slice(), b"sealed elsewhere");
    }
}
