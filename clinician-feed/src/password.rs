//! Passwords as Argon2id (RFC 9106) in PHC strings. Each check takes some 20 ms and 19 MiB, so callers bound how many run.

use std::io::Read;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use thiserror::Error;

/// Longest password in bytes: a passphrase of a hundred words.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Shortest new password in characters (NIST SP 800-63B §5.1.1.2).
const PASSWORD_CHARS_MIN: usize = 8;
/// Most memory that a hash in the configuration may ask for, in KiB: two checks at once must fit a small server.
const MEMORY_KIB_MAX: u32 = 256 << 10;
/// Most passes that it may ask for: a login should take less than a second.
const PASSES_MAX: u32 = 16;

/// Why a password or a hash is unfit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PasswordError {
    /// Not a PHC string of Argon2id with a salt and a hash.
    #[error("is no Argon2id hash; make one with `clinician-feed hash-password`")]
    Hash,
    /// It would take too much memory or time.
    #[error("asks for more than {MEMORY_KIB_MAX} KiB or {PASSES_MAX} passes")]
    Costs,
    /// Too short or too long.
    #[error("a password has {PASSWORD_CHARS_MIN} characters to {PASSWORD_BYTES_MAX} bytes of UTF-8")]
    Length,
    /// Standard input can't be read.
    #[error("standard input: {0}")]
    Input(String),
    /// The system gave no random salt.
    #[error("can't hash: {0}")]
    Hashing(String),
}

/// A hash that can be checked.
#[derive(Debug, Clone)]
pub struct Hashed(PasswordHash);

impl Hashed {
    /// Takes a PHC string: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    ///
    /// # Errors
    /// [`PasswordError::Hash`] or [`PasswordError::Costs`].
    pub fn new(phc: &str) -> Result<Self, PasswordError> {
        let hash = PasswordHash::new(phc).map_err(|_source| PasswordError::Hash)?;
        let params = Params::try_from(&hash).map_err(|_source| PasswordError::Hash)?;
        if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
            return Err(PasswordError::Hash);
        }
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
            return Err(PasswordError::Costs);
        }
        Ok(Self(hash))
    }

    /// Whether this is the password. Takes long on purpose.
    #[must_use]
    pub fn verify(&self, password: &str) -> bool {
        password.len() <= PASSWORD_BYTES_MAX
            && Argon2::default().verify_password(password.as_bytes(), &self.0).is_ok()
    }
}

/// The PHC string of a new password, with the crate's present costs (19 MiB, two passes).
///
/// # Errors
/// [`PasswordError::Length`], or when the system has no random bytes.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::Length);
    }
    let hashed = Argon2::default().hash_password(password.as_bytes());
    Ok(hashed.map_err(|error| PasswordError::Hashing(error.to_string()))?.to_string())
}

/// A password from `input`, without the line's end.
///
/// # Errors
/// [`PasswordError`].
pub fn read(input: impl Read) -> Result<String, PasswordError> {
    let mut text = String::new();
    // Two more for the line's end, one more to see that it is too long.
    let limit = u64::try_from(PASSWORD_BYTES_MAX + 3).unwrap_or(u64::MAX);
    input.take(limit).read_to_string(&mut text).map_err(|error| PasswordError::Input(error.to_string()))?;
    let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password() {
        let phc = hash("correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        let hashed = Hashed::new(&phc).unwrap();
        assert!(hashed.verify("correct horse") && !hashed.verify("correct horsf") && !hashed.verify(""));
        assert_ne!(phc, hash("correct horse").unwrap(), "salted");
    }

    #[test]
    fn what_is_no_argon2id_hash_is_refused() {
        let good = hash("correct horse").unwrap();
        for text in
            ["", "secret", &good.replace("argon2id", "argon2i"), &good[..good.len() / 2], "$2b$12$abc"]
        {
            assert_eq!(Hashed::new(text).unwrap_err(), PasswordError::Hash, "{text}");
        }
        let heavy = good.replace("m=19456", "m=4194304");
        assert_eq!(Hashed::new(&heavy).unwrap_err(), PasswordError::Costs);
    }

    #[test]
    fn a_password_is_a_line() {
        for text in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            assert_eq!(read(text.as_bytes()).unwrap(), "correct horse");
        }
        assert_eq!(hash(&read("short\n".as_bytes()).unwrap()), Err(PasswordError::Length));
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert_eq!(hash(&read(long.as_bytes()).unwrap()), Err(PasswordError::Length));
        assert!(matches!(read(&[0xff, 0xfe][..]), Err(PasswordError::Input(_))));
    }
}
