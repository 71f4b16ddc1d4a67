//! Login: checks passwords without blocking or exhausting the server, and keeps the sessions.
//!
//! A browser has a session cookie; a program may send HTTP Basic (RFC 7617) with each request, whose check is remembered for a
//! minute under a keyed hash. A user who does not exist costs the same time as one who does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caregate_host::clock;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use crate::attempts::Attempts;
use crate::password::{self, Hashed, PasswordError};
use crate::session::{AGE_MAX, Sessions, TokenHash};

/// The session's cookie.
pub const COOKIE: &str = "caregate_session";
/// Longest user name in bytes.
pub const USER_BYTES_MAX: usize = 128;
/// Passwords checked at once: each takes a processor and 19 MiB.
const CHECKS_MAX: usize = 2;
/// Requests that wait for a check: at 20 ms each the last waits half a second.
const WAITING_MAX: usize = 48;
/// How long the check of an HTTP Basic password is remembered: a program that polls pays for one in a minute.
const BASIC_MEMORY: Duration = Duration::from_mins(1);
/// HTTP Basic checks remembered at once.
const BASIC_MAX: usize = 256;

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LoginError {
    /// No credentials, or a session that has ended.
    #[error("log in first")]
    Missing,
    /// Wrong user or password.
    #[error("wrong user or password")]
    Wrong,
    /// Too many failures.
    #[error("too many failed attempts; try again in {} s", .0.as_secs() + 1)]
    TooMany(Duration),
    /// Too many checks wait.
    #[error("too many logins at once; try again")]
    Busy,
    /// The system gave no random bytes, or a check was aborted.
    #[error("login failed inside the server")]
    Internal,
}

impl LoginError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::TooMany(_) => "too_many",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }
}

/// Who asks, and until when that holds.
#[derive(Debug, Clone)]
pub struct Access {
    /// Who.
    pub user: Arc<str>,
    /// The session, or none with HTTP Basic.
    pub session: Option<TokenHash>,
}

/// Whose a checked HTTP Basic pair is and until when that counts, by the pair's keyed hash.
type BasicMemory = HashMap<[u8; 32], (Arc<str>, Instant)>;

/// Users, sessions and attempts.
#[derive(Debug)]
pub struct Login {
    users: HashMap<Arc<str>, Arc<Hashed>>,
    /// Checked instead of a user who does not exist.
    nobody: Arc<Hashed>,
    sessions: Mutex<Sessions>,
    /// Raised when a session is ended by hand.
    closed: watch::Sender<u64>,
    attempts: Mutex<Attempts>,
    basic: Mutex<BasicMemory>,
    basic_key: hmac::Key,
    checks: Arc<Semaphore>,
    waiting: AtomicUsize,
    random: SystemRandom,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a waiting request; its drop counts down also when the request is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Login {
    /// Takes the users of the configuration.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new(users: impl IntoIterator<Item = (String, Hashed)>) -> Result<Self, PasswordError> {
        let random = SystemRandom::new();
        let failed = |_source| PasswordError::Hashing("the system gives no random bytes".to_owned());
        let mut nobody = [0; 32];
        random.fill(&mut nobody).map_err(failed)?;
        Ok(Self {
            users: users.into_iter().map(|(name, hash)| (name.into(), Arc::new(hash))).collect(),
            nobody: Arc::new(Hashed::new(&password::hash(&hex::encode(nobody))?)?),
            sessions: Mutex::default(),
            closed: watch::Sender::default(),
            attempts: Mutex::default(),
            basic: Mutex::default(),
            basic_key: hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(failed)?,
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            waiting: AtomicUsize::new(0),
            random,
        })
    }

    /// Checks a password; answers with the user as configured.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn verify(&self, user: &str, password: &str, address: IpAddr) -> Result<Arc<str>, LoginError> {
        if user.len() > USER_BYTES_MAX || password.len() > password::PASSWORD_BYTES_MAX {
            return Err(LoginError::Wrong);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(LoginError::Busy);
        }
        let waiting = Waiting(&self.waiting);
        lock(&self.attempts).begin(address, user, clock::monotonic()).map_err(LoginError::TooMany)?;
        let checks = Arc::clone(&self.checks);
        let permit = checks.acquire_owned().await.map_err(|_closed| LoginError::Internal)?;
        let known = self.users.get_key_value(user);
        let hash = Arc::clone(known.map_or(&self.nobody, |(_, hash)| hash));
        let password = zeroize::Zeroizing::new(password.to_owned());
        // The check runs to its end also when the request is dropped, and keeps its place until then.
        let check = move || {
            let right = hash.verify(&password);
            drop(permit);
            right
        };
        let right = tokio::task::spawn_blocking(check).await;
        drop(waiting);
        match (right, known) {
            (Ok(true), Some((name, _))) => {
                lock(&self.attempts).succeed(address, user);
                Ok(Arc::clone(name))
            }
            (Ok(_), _) => Err(LoginError::Wrong),
            (Err(_aborted), _) => Err(LoginError::Internal),
        }
    }

    /// Begins a session; answers with its token for the cookie.
    ///
    /// # Errors
    /// [`LoginError::Internal`] when the system has no random bytes.
    pub fn open(&self, user: Arc<str>) -> Result<String, LoginError> {
        let mut token = [0; 32];
        self.random.fill(&mut token).map_err(|_source| LoginError::Internal)?;
        lock(&self.sessions).open(TokenHash::of(&token), user, clock::monotonic());
        Ok(hex::encode(token))
    }

    /// Ends the session of the request, if it has one.
    pub fn close(&self, headers: &HeaderMap) {
        for hash in cookies(headers) {
            if lock(&self.sessions).close(hash) {
                self.closed.send_modify(|count| *count += 1);
            }
        }
    }

    /// Follows sessions that are ended by hand.
    #[must_use]
    pub fn closed(&self) -> watch::Receiver<u64> {
        self.closed.subscribe()
    }

    /// When an access given at `since` ends unless it is used; none if it has ended.
    #[must_use]
    pub fn expires(&self, access: &Access, since: Instant) -> Option<Instant> {
        match access.session {
            Some(hash) => lock(&self.sessions).expires(hash, clock::monotonic()),
            None => Some(since + AGE_MAX),
        }
    }

    /// Who sends the request: by its session cookie, else by HTTP Basic.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn access(&self, headers: &HeaderMap, address: IpAddr) -> Result<Access, LoginError> {
        for hash in cookies(headers) {
            if let Some(user) = lock(&self.sessions).touch(hash, clock::monotonic()) {
                return Ok(Access { user, session: Some(hash) });
            }
        }
        let credentials = basic(headers).ok_or(LoginError::Missing)?;
        let (user, password) = credentials.split_once(':').ok_or(LoginError::Wrong)?;
        let mut memory_key = [0; 32];
        memory_key.copy_from_slice(hmac::sign(&self.basic_key, credentials.as_bytes()).as_ref());
        let now = clock::monotonic();
        if let Some((user, until)) = lock(&self.basic).get(&memory_key)
            && *until > now
        {
            return Ok(Access { user: Arc::clone(user), session: None });
        }
        let user = self.verify(user, password, address).await?;
        let mut memory = lock(&self.basic);
        memory.retain(|_, (_, until)| *until > now);
        if memory.len() < BASIC_MAX {
            memory.insert(memory_key, (Arc::clone(&user), now + BASIC_MEMORY));
        }
        Ok(Access { user, session: None })
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
        .filter_map(|(_, token)| TokenHash::of_cookie(token))
}

/// `user:password` of HTTP Basic.
fn basic(headers: &HeaderMap) -> Option<zeroize::Zeroizing<String>> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    String::from_utf8(bytes).ok().map(zeroize::Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts::USER_MAX;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn login() -> Login {
        Login::new([("nurse".to_owned(), Hashed::new(&password::hash("correct horse").unwrap()).unwrap())])
            .unwrap()
    }

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[tokio::test]
    async fn the_right_password_opens_a_session_that_logout_ends() {
        let login = login();
        assert_eq!(login.verify("nurse", "wrong horse", HERE).await, Err(LoginError::Wrong));
        assert_eq!(login.verify("nobody", "correct horse", HERE).await, Err(LoginError::Wrong));
        let user = login.verify("nurse", "correct horse", HERE).await.unwrap();
        let token = login.open(user).unwrap();
        let headers = with(header::COOKIE, &format!("a=b; {COOKIE}={token}; c"));
        let access = login.access(&headers, HERE).await.unwrap();
        assert_eq!(&*access.user, "nurse");
        let closed = login.closed();
        assert!(login.expires(&access, clock::monotonic()).is_some());
        login.close(&headers);
        assert!(closed.has_changed().unwrap() && login.expires(&access, clock::monotonic()).is_none());
        assert_eq!(login.access(&headers, HERE).await.unwrap_err(), LoginError::Missing);
    }

    #[tokio::test]
    async fn failures_are_limited_and_success_is_not() {
        let login = login();
        for _ in 0..USER_MAX {
            assert_eq!(login.verify("nurse", "wrong horse", HERE).await, Err(LoginError::Wrong));
        }
        assert!(matches!(login.verify("nurse", "correct horse", HERE).await, Err(LoginError::TooMany(_))));
    }

    #[tokio::test]
    async fn basic_is_checked_once_and_remembered_by_hash() {
        let login = login();
        let headers =
            with(header::AUTHORIZATION, &format!("Basic {}", STANDARD.encode("nurse:correct horse")));
        for _ in 0..2 * USER_MAX {
            assert_eq!(&*login.access(&headers, HERE).await.unwrap().user, "nurse");
        }
        assert_eq!(lock(&login.basic).len(), 1);
        let wrong = with(header::AUTHORIZATION, &format!("basic {}", STANDARD.encode("nurse:wrong")));
        assert_eq!(login.access(&wrong, HERE).await.unwrap_err(), LoginError::Wrong);
        for text in ["Bearer abc", "Basic", "Basic ???", "Basic bm9jb2xvbg=="] {
            assert!(login.access(&with(header::AUTHORIZATION, text), HERE).await.is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_leaves_its_place() {
        let login = login();
        let held =
            Arc::clone(&login.checks).acquire_many_owned(u32::try_from(CHECKS_MAX).unwrap()).await.unwrap();
        for n in 0..2 * WAITING_MAX {
            let user = n.to_string();
            let mut checking = Box::pin(login.verify(&user, "x", HERE));
            assert!(futures_util::poll!(checking.as_mut()).is_pending());
            assert_eq!(login.waiting.load(Ordering::Relaxed), 1);
        }
        assert_eq!(login.waiting.load(Ordering::Relaxed), 0);
        drop(held);
    }
}
