//! Who is logged in. Pure: tokens are random bytes that the caller draws, kept only as hashes; `now` is given.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest;

/// A session ends when it was not used for so long: a shift, so that a station's page survives it.
pub const IDLE_MAX: Duration = Duration::from_hours(12);
/// And after so long in any case.
pub const AGE_MAX: Duration = Duration::from_hours(24);
/// Sessions at once: a hospital's stations and phones; beyond it the one that was unused for longest ends.
pub const SESSIONS_MAX: usize = 1024;
/// Bytes of a token: 256 bits can't be guessed.
const TOKEN_BYTES: usize = 32;

/// SHA-256 of a token: what leaks from memory opens no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; TOKEN_BYTES]);

impl TokenHash {
    /// Of a token as it is in the cookie: 64 hexadecimal digits.
    #[must_use]
    pub fn of_cookie(text: &str) -> Option<Self> {
        let mut token = [0; TOKEN_BYTES];
        hex::decode_to_slice(text, &mut token).ok()?;
        Some(Self::of(&token))
    }

    /// Of the token itself.
    #[must_use]
    pub fn of(token: &[u8; TOKEN_BYTES]) -> Self {
        let mut hash = [0; TOKEN_BYTES];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
        Self(hash)
    }
}

#[derive(Debug)]
struct Session {
    user: Arc<str>,
    opened: Instant,
    used: Instant,
}

impl Session {
    fn expires(&self) -> Instant {
        (self.opened + AGE_MAX).min(self.used + IDLE_MAX)
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    by_hash: HashMap<TokenHash, Session>,
}

impl Sessions {
    /// Begins a session.
    pub fn open(&mut self, hash: TokenHash, user: Arc<str>, now: Instant) {
        self.by_hash.retain(|_, session| session.expires() > now);
        if self.by_hash.len() >= SESSIONS_MAX
            && let Some(oldest) = self.by_hash.iter().min_by_key(|(_, s)| s.used).map(|(hash, _)| *hash)
        {
            self.by_hash.remove(&oldest);
        }
        self.by_hash.insert(hash, Session { user, opened: now, used: now });
    }

    /// Whose session it is, if it holds; counts as use.
    pub fn touch(&mut self, hash: TokenHash, now: Instant) -> Option<Arc<str>> {
        let session = self.by_hash.get_mut(&hash).filter(|session| session.expires() > now)?;
        session.used = now;
        Some(Arc::clone(&session.user))
    }

    /// When it will end unless it is used; none if it has ended.
    #[must_use]
    pub fn expires(&self, hash: TokenHash, now: Instant) -> Option<Instant> {
        self.by_hash.get(&hash).map(Session::expires).filter(|expires| *expires > now)
    }

    /// Ends a session; whether there was one.
    pub fn close(&mut self, hash: TokenHash) -> bool {
        self.by_hash.remove(&hash).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u16) -> TokenHash {
        let mut token = [0; TOKEN_BYTES];
        token[..2].copy_from_slice(&n.to_be_bytes());
        TokenHash::of(&token)
    }

    #[test]
    fn ends_idle_and_at_its_age() {
        let start = caregate_host::clock::monotonic();
        let mut sessions = Sessions::default();
        sessions.open(hash(1), "ward".into(), start);
        let nearly = start + IDLE_MAX - Duration::from_secs(1);
        assert_eq!(sessions.expires(hash(1), start), Some(start + IDLE_MAX));
        assert_eq!(sessions.touch(hash(1), nearly).as_deref(), Some("ward"));
        assert_eq!(sessions.touch(hash(1), nearly + IDLE_MAX), None, "idle");
        assert_eq!(sessions.expires(hash(1), nearly), Some(start + AGE_MAX - Duration::from_secs(1)));
        let late = start + Duration::from_hours(23);
        sessions.touch(hash(1), nearly + Duration::from_hours(11));
        assert_eq!(sessions.expires(hash(1), late), Some(start + AGE_MAX));
        assert_eq!(sessions.touch(hash(1), start + AGE_MAX), None, "age");
        assert_eq!(sessions.touch(hash(2), start), None);
    }

    #[test]
    fn logout_ends_it_at_once() {
        let start = caregate_host::clock::monotonic();
        let mut sessions = Sessions::default();
        sessions.open(hash(1), "ward".into(), start);
        assert!(sessions.close(hash(1)) && !sessions.close(hash(1)));
        assert_eq!(sessions.touch(hash(1), start), None);
    }

    #[test]
    fn the_one_unused_for_longest_makes_room() {
        let start = caregate_host::clock::monotonic();
        let mut sessions = Sessions::default();
        for n in 0..=u16::try_from(SESSIONS_MAX).unwrap() {
            let now = start + Duration::from_secs(n.into());
            sessions.open(hash(n), "ward".into(), now);
            sessions.touch(hash(0), now);
        }
        assert_eq!(sessions.by_hash.len(), SESSIONS_MAX);
        assert!(sessions.by_hash.contains_key(&hash(0)) && !sessions.by_hash.contains_key(&hash(1)));
    }

    #[test]
    fn only_a_whole_token_is_one() {
        let token = [0xab; TOKEN_BYTES];
        assert_eq!(TokenHash::of_cookie(&hex::encode(token)), Some(TokenHash::of(&token)));
        for text in ["", "ab", &"x".repeat(64), &"ab".repeat(33)] {
            assert_eq!(TokenHash::of_cookie(text), None);
        }
    }
}
