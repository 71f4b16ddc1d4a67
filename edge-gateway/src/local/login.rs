//! Who may see the patient's page: whoever has the access code on the box's label, by a session cookie.
//!
//! The code is drawn at random (128 bits), so a fast hash of it in the configuration is sound, as with sensors' passwords. It may
//! be typed in any case, with spaces or hyphens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::pace::Pace;
use crate::mqtt::credentials::SALT_BYTES_MIN;

/// The session's cookie.
pub const COOKIE: &str = "caregate_local";
/// A session ends when it was not used for so long; an open page uses it all the time.
pub const IDLE_MAX: Duration = Duration::from_hours(1);
/// And after so long in any case: a phone that is lost or lent shows the page for a day at most.
pub const AGE_MAX: Duration = Duration::from_hours(24);
/// Sessions at once: a household's phones and a clinic's tablet; beyond it the one unused for longest ends.
pub const SESSIONS_MAX: usize = 32;
/// Wrong codes from one address at once, and then one in so long: a person who mistypes.
const ATTEMPTS: (u32, Duration) = (5, Duration::from_secs(20));
/// Longest code looked at.
const CODE_BYTES_MAX: usize = 128;
/// Bytes of a token: 256 bits can't be guessed.
const TOKEN_BYTES: usize = 32;

/// The access code as the configuration holds it: SHA-256 over salt ‖ code, the code in lower case and without separators.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessCodeEntry {
    /// At least 8 random bytes in hexadecimal.
    pub salt: String,
    /// In hexadecimal.
    pub sha256: String,
}

/// Why an access code was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AccessCodeError {
    /// Its salt.
    #[error("local.access_code.salt: must be at least {SALT_BYTES_MIN} bytes in hexadecimal")]
    Salt,
    /// Its hash.
    #[error("local.access_code.sha256: must be {SHA256_OUTPUT_LEN} bytes in hexadecimal")]
    Hash,
}

impl AccessCodeEntry {
    /// The entry for a code that the caller drew from the system's random source.
    #[must_use]
    pub fn new(salt: &[u8], code: &str) -> Self {
        Self { salt: hex::encode(salt), sha256: hex::encode(salted(salt, code)) }
    }
}

fn salted(salt: &[u8], code: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let plain: String =
        code.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(plain.as_bytes());
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LoginError {
    /// Another code.
    #[error("that is not the code on the label")]
    Wrong,
    /// Too many wrong ones.
    #[error("too many wrong codes; try again in {} s", .0.as_secs() + 1)]
    TooMany(Duration),
    /// The system gave no random bytes.
    #[error("login failed inside the gateway")]
    Internal,
}

impl LoginError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::TooMany(_) => "too_many",
            Self::Internal => "internal",
        }
    }
}

/// SHA-256 of a token: what leaks from memory opens no session.
type TokenHash = [u8; SHA256_OUTPUT_LEN];

fn token_hash(token: &[u8; TOKEN_BYTES]) -> TokenHash {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

#[derive(Debug)]
struct Session {
    opened: Instant,
    used: Instant,
}

impl Session {
    fn holds(&self, now: Instant) -> bool {
        now < (self.opened + AGE_MAX).min(self.used + IDLE_MAX)
    }
}

/// The code, sessions and attempts.
#[derive(Debug)]
pub struct Login {
    salt: Vec<u8>,
    hash: [u8; SHA256_OUTPUT_LEN],
    sessions: Mutex<HashMap<TokenHash, Session>>,
    attempts: Mutex<Pace>,
    random: SystemRandom,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Login {
    /// Takes the configured code.
    ///
    /// # Errors
    /// [`AccessCodeError`].
    pub fn new(entry: &AccessCodeEntry) -> Result<Self, AccessCodeError> {
        let salt = hex::decode(&entry.salt).ok().filter(|salt| salt.len() >= SALT_BYTES_MIN);
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hex::decode_to_slice(&entry.sha256, &mut hash).map_err(|_source| AccessCodeError::Hash)?;
        Ok(Self {
            salt: salt.ok_or(AccessCodeError::Salt)?,
            hash,
            sessions: Mutex::default(),
            attempts: Mutex::new(Pace::new(ATTEMPTS.0, ATTEMPTS.1)),
            random: SystemRandom::new(),
        })
    }

    /// Checks a code and begins a session; answers with its token for the cookie.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn open(&self, code: &str, address: IpAddr, now: Instant) -> Result<String, LoginError> {
        lock(&self.attempts).take(address, now).map_err(LoginError::TooMany)?;
        let right = code.len() <= CODE_BYTES_MAX && bool::from(salted(&self.salt, code).ct_eq(&self.hash));
        if !right {
            return Err(LoginError::Wrong);
        }
        lock(&self.attempts).forgive(address);
        let mut token = [0; TOKEN_BYTES];
        self.random.fill(&mut token).map_err(|_source| LoginError::Internal)?;
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.holds(now));
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, s)| s.used).map(|(hash, _)| *hash)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(token_hash(&token), Session { opened: now, used: now });
        Ok(hex::encode(token))
    }

    /// Whether the request has a session that holds; counts as use.
    pub fn admits(&self, headers: &HeaderMap, now: Instant) -> bool {
        let mut sessions = lock(&self.sessions);
        cookies(headers).any(|hash| {
            sessions.get_mut(&hash).filter(|session| session.holds(now)).is_some_and(|session| {
                session.used = now;
                true
            })
        })
    }

    /// Ends the session of the request, if it has one.
    pub fn close(&self, headers: &HeaderMap) {
        for hash in cookies(headers) {
            lock(&self.sessions).remove(&hash);
        }
    }
}

/// The session cookies of a request; a browser sends one.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = TokenHash> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .filter_map(|(_, text)| {
            let mut token = [0; TOKEN_BYTES];
            hex::decode_to_slice(text, &mut token).ok()?;
            Some(token_hash(&token))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const CODE: &str = "a1b2c3d4";

    fn login() -> Login {
        Login::new(&AccessCodeEntry::new(b"salt-of-8", CODE)).unwrap()
    }

    fn with(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, format!("a=b; {COOKIE}={token}; c").parse().unwrap())])
    }

    #[test]
    fn the_code_opens_a_session_however_it_is_typed() {
        let (login, now) = (login(), caregate_host::clock::monotonic());
        for typed in [CODE, "A1B2-C3D4", " a1b2 c3d4 "] {
            let token = login.open(typed, HERE, now).unwrap();
            assert!(login.admits(&with(&token), now), "{typed}");
            login.close(&with(&token));
            assert!(!login.admits(&with(&token), now));
        }
        for wrong in ["", "a1b2c3d", "a1b2c3d4e", &"a".repeat(200)] {
            assert_eq!(login.open(wrong, HERE, now + ATTEMPTS.1 * 100), Err(LoginError::Wrong), "{wrong}");
        }
    }

    #[test]
    fn its_hash_is_a_sensor_passwords() {
        use crate::mqtt::credentials::Credential;
        let device = caregate_protocol::id::DeviceId::new("d").unwrap();
        let credential = Credential::new(device, "u", b"salt-of-8", CODE);
        assert_eq!(AccessCodeEntry::new(b"salt-of-8", CODE).sha256, credential.sha256);
    }

    #[test]
    fn wrong_codes_are_limited_by_address() {
        let (login, now) = (login(), caregate_host::clock::monotonic());
        for _ in 0..ATTEMPTS.0 {
            assert_eq!(login.open("wrong", HERE, now), Err(LoginError::Wrong));
        }
        assert_eq!(login.open(CODE, HERE, now), Err(LoginError::TooMany(ATTEMPTS.1)));
        login.open(CODE, "10.0.0.1".parse().unwrap(), now).unwrap();
        login.open(CODE, HERE, now + ATTEMPTS.1).unwrap();
    }

    #[test]
    fn sessions_end_idle_and_at_their_age() {
        let (login, now) = (login(), caregate_host::clock::monotonic());
        let token = login.open(CODE, HERE, now).unwrap();
        assert!(!login.admits(&with(&token), now + IDLE_MAX));
        let token = login.open(CODE, HERE, now).unwrap();
        let mut at = now;
        while at < now + AGE_MAX {
            assert!(login.admits(&with(&token), at));
            at += IDLE_MAX / 2;
        }
        assert!(!login.admits(&with(&token), at));
        assert!(!login.admits(&with("00"), now) && !login.admits(&HeaderMap::new(), now));
    }

    #[test]
    fn the_one_unused_for_longest_makes_room() {
        let (login, now) = (login(), caregate_host::clock::monotonic());
        let first = login.open(CODE, HERE, now).unwrap();
        let second = login.open(CODE, HERE, now + Duration::from_secs(1)).unwrap();
        for n in 2..=u64::try_from(SESSIONS_MAX).unwrap() {
            let later = now + Duration::from_secs(n);
            assert!(login.admits(&with(&first), later));
            login.open(CODE, HERE, later).unwrap();
        }
        assert!(login.admits(&with(&first), now + Duration::from_secs(60)));
        assert!(!login.admits(&with(&second), now + Duration::from_secs(60)));
        assert_eq!(lock(&login.sessions).len(), SESSIONS_MAX);
    }

    #[test]
    fn a_wrong_entry_is_named() {
        let entry = AccessCodeEntry::new(b"salt-of-8", CODE);
        let wrong = |salt: &str, sha256: &str| {
            Login::new(&AccessCodeEntry { salt: salt.into(), sha256: sha256.into() }).unwrap_err()
        };
        assert_eq!(wrong("00", &entry.sha256), AccessCodeError::Salt);
        assert_eq!(wrong("zz", &entry.sha256), AccessCodeError::Salt);
        assert_eq!(wrong(&entry.salt, "00"), AccessCodeError::Hash);
    }
}
