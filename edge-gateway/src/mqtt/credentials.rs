//! Who may connect: user name and secret per device.
//!
//! A credential is SHA-256 over salt ‖ secret. A fast hash is sound here because enrolment *generates* the secrets, at least
//! 128 random bits each: there is nothing to guess, so nothing to slow down. Argon2 protects secrets that people choose, and
//! its memory (19 MiB and more per attempt) would hand every stranger on the LAN a way to starve a 48 MiB gateway.

use std::collections::HashMap;

use caregate_protocol::id::DeviceId;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Least salt: as much as makes two devices' salts differ for certain.
pub const SALT_BYTES_MIN: usize = 8;

/// One device's credential as the configuration holds it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Whom it admits.
    pub device: DeviceId,
    /// The MQTT user name; each may stand only once.
    pub username: String,
    /// At least [`SALT_BYTES_MIN`] random bytes in hexadecimal.
    pub salt: String,
    /// SHA-256 over salt ‖ secret (as the text that is sent as MQTT password), in hexadecimal.
    pub sha256: String,
}

impl Credential {
    /// The credential for a secret that the caller drew from the system's random source (≥ 128 bits).
    #[must_use]
    pub fn new(device: DeviceId, username: &str, salt: &[u8], secret: &str) -> Self {
        let sha256 = hex::encode(salted_hash(salt, secret));
        Self { device, username: username.to_owned(), salt: hex::encode(salt), sha256 }
    }
}

/// Why a list of credentials was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// The salt of a device.
    #[error("credential of device {device}: salt must be at least {SALT_BYTES_MIN} bytes in hexadecimal")]
    Salt {
        /// Whose.
        device: DeviceId,
    },
    /// The hash of a device.
    #[error("credential of device {device}: sha256 must be {SHA256_OUTPUT_LEN} bytes in hexadecimal")]
    Hash {
        /// Whose.
        device: DeviceId,
    },
    /// An empty user name.
    #[error("credential of device {device}: empty username")]
    EmptyUsername {
        /// Whose.
        device: DeviceId,
    },
    /// A user name that stands twice.
    #[error("credential of device {device}: username {username:?} stands twice")]
    Twice {
        /// Whose.
        device: DeviceId,
        /// The name.
        username: String,
    },
}

struct Entry {
    device: DeviceId,
    salt: Vec<u8>,
    hash: [u8; SHA256_OUTPUT_LEN],
}

/// All credentials, by user name.
pub struct Credentials(HashMap<String, Entry>);

impl Credentials {
    /// Takes the configured list.
    ///
    /// # Errors
    /// [`CredentialError`] names the device whose entry is wrong.
    pub fn new(list: impl IntoIterator<Item = Credential>) -> Result<Self, CredentialError> {
        let mut entries = HashMap::new();
        for Credential { device, username, salt, sha256 } in list {
            let Some(salt) = hex::decode(salt).ok().filter(|salt| salt.len() >= SALT_BYTES_MIN) else {
                return Err(CredentialError::Salt { device });
            };
            let mut hash = [0; SHA256_OUTPUT_LEN];
            if hex::decode_to_slice(sha256, &mut hash).is_err() {
                return Err(CredentialError::Hash { device });
            }
            if username.is_empty() {
                return Err(CredentialError::EmptyUsername { device });
            }
            if entries.contains_key(&username) {
                return Err(CredentialError::Twice { device, username });
            }
            entries.insert(username, Entry { device, salt, hash });
        }
        Ok(Self(entries))
    }

    /// The device that this pair admits. An unknown name costs the same hash as a wrong secret.
    #[must_use]
    pub fn device(&self, username: &str, secret: &str) -> Option<&DeviceId> {
        let entry = self.0.get(username);
        let salt = entry.map_or(&[0; SALT_BYTES_MIN][..], |entry| &entry.salt);
        let hash = salted_hash(salt, secret);
        entry.filter(|entry| bool::from(entry.hash.ct_eq(&hash))).map(|entry| &entry.device)
    }
}

fn salted_hash(salt: &[u8], secret: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(secret.as_bytes());
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(device: &str, username: &str) -> Credential {
        Credential::new(DeviceId::new(device).unwrap(), username, b"salt-of-8", "secret")
    }

    #[test]
    fn only_the_right_pair_admits() {
        let credentials = Credentials::new([credential("a", "user-a"), credential("b", "user-b")]).unwrap();
        assert_eq!(credentials.device("user-a", "secret").unwrap().as_str(), "a");
        assert_eq!(credentials.device("user-b", "secret").unwrap().as_str(), "b");
        assert_eq!(credentials.device("user-a", "secret "), None);
        assert_eq!(credentials.device("user-a", ""), None);
        assert_eq!(credentials.device("nobody", "secret"), None);
    }

    #[test]
    fn the_hash_is_over_salt_then_secret() {
        // printf 'salt-of-8secret' | sha256sum
        let expected = ring::digest::digest(&SHA256, b"salt-of-8secret");
        assert_eq!(credential("a", "u").sha256, hex::encode(expected));
    }

    #[test]
    fn a_wrong_entry_is_named() {
        let device = DeviceId::new("a").unwrap();
        let with = |change: fn(&mut Credential)| {
            let mut credential = credential("a", "u");
            change(&mut credential);
            Credentials::new([credential]).err()
        };
        assert_eq!(
            with(|c| c.salt = "00".to_owned()),
            Some(CredentialError::Salt { device: device.clone() })
        );
        assert_eq!(with(|c| c.salt = "zz".repeat(9)), Some(CredentialError::Salt { device: device.clone() }));
        assert_eq!(with(|c| c.sha256.truncate(62)), Some(CredentialError::Hash { device: device.clone() }));
        assert_eq!(
            with(|c| c.username.clear()),
            Some(CredentialError::EmptyUsername { device: device.clone() })
        );
        let twice = Credentials::new([credential("a", "u"), credential("a", "u")]).err();
        assert_eq!(twice, Some(CredentialError::Twice { device, username: "u".to_owned() }));
    }
}
