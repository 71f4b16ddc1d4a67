//! `POST /api/login` over plain HTTP/1.1 (RFC 9112), just enough to get the session cookie.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest response head taken: eight times what the feed sends.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Argon2id takes a fraction of a second; a busy machine some more.
const ANSWER: Duration = Duration::from_secs(15);
/// The session's cookie.
const COOKIE: &str = "caregate_session";

/// Where the feed listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// A URL that isn't `http://HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not http://HOST[:PORT]")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let refuse = || AddressError(url.to_owned());
        let authority = url.strip_prefix("http://").ok_or_else(refuse)?.trim_end_matches('/');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_source| refuse())?),
            _ => (authority, 80),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Address {
    /// `HOST:PORT`, for connecting and for the `Host` field.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Why there is no session.
#[derive(Debug, Error)]
pub enum LoginError {
    /// The feed can't be reached or went away.
    #[error("login at {authority}: {source}")]
    Io {
        /// Where.
        authority: String,
        /// Why.
        source: io::Error,
    },
    /// Not HTTP, or too long.
    #[error("login: the answer is not an HTTP response head of at most {HEAD_BYTES_MAX} bytes")]
    Malformed,
    /// 401.
    #[error("login: wrong user or password")]
    Refused,
    /// 429.
    #[error("login: too many attempts")]
    TooMany,
    /// Any other status, or 204 without a cookie.
    #[error("login: status {0} without a session cookie")]
    Status(u16),
}

/// Logs in; answers with the value of a `Cookie` field.
pub async fn login(address: &Address, user: &str, password: &str) -> Result<String, LoginError> {
    let authority = address.authority();
    let body = serde_json::json!({"user": user, "password": password}).to_string();
    let request = format!(
        "POST /api/login HTTP/1.1\r\nHost: {authority}\r\nOrigin: http://{authority}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(&authority).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() <= HEAD_BYTES_MAX {
            if stream.read_buf(&mut head).await? == 0 {
                break;
            }
        }
        Ok(head)
    };
    let late = |_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut));
    let head = timeout(ANSWER, exchange).await.unwrap_or_else(late);
    session_cookie(&head.map_err(|source| LoginError::Io { authority, source })?)
}

/// The session cookie in a response head. Pure, and never panics.
pub fn session_cookie(head: &[u8]) -> Result<String, LoginError> {
    let end = head.windows(4).position(|end| end == b"\r\n\r\n").ok_or(LoginError::Malformed)?;
    let text =
        head.get(..end).and_then(|head| std::str::from_utf8(head).ok()).ok_or(LoginError::Malformed)?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().filter(|line| line.starts_with("HTTP/1.")).ok_or(LoginError::Malformed)?;
    let status =
        status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(LoginError::Malformed)?;
    match status {
        200..=299 => {}
        401 => return Err(LoginError::Refused),
        429 => return Err(LoginError::TooMany),
        _ => return Err(LoginError::Status(status)),
    }
    lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .filter_map(|(_, value)| value.trim().split(';').next())
        .find(|pair| pair.split('=').next() == Some(COOKIE))
        .map(str::to_owned)
        .ok_or(LoginError::Status(status))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        let authority = |url: &str| url.parse::<Address>().map(|address| address.authority());
        assert_eq!(authority("http://127.0.0.1:8080").unwrap(), "127.0.0.1:8080");
        assert_eq!(authority("http://feed/").unwrap(), "feed:80");
        assert_eq!(authority("http://[::1]:81").unwrap(), "[::1]:81");
        assert!(authority("https://feed").is_err());
        assert!(authority("http://a b").is_err());
    }

    #[test]
    fn answers() {
        let head = b"HTTP/1.1 204 No Content\r\nx: y\r\nSet-Cookie: caregate_session=abc; HttpOnly\r\n\r\n";
        assert_eq!(session_cookie(head).unwrap(), "caregate_session=abc");
        assert!(matches!(session_cookie(b"HTTP/1.1 401 Unauthorized\r\n\r\n"), Err(LoginError::Refused)));
        assert!(matches!(session_cookie(b"HTTP/1.1 429 Slow\r\n\r\n"), Err(LoginError::TooMany)));
        assert!(matches!(session_cookie(b"HTTP/1.1 204 No\r\n\r\n"), Err(LoginError::Status(204))));
        assert!(matches!(session_cookie(b"HTTP/1.1 204 No\r\n"), Err(LoginError::Malformed)));
    }

    proptest! {
        #[test]
        fn never_panics(head in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _cookie = session_cookie(&head);
        }
    }
}
