//! Follows the feed's stream through disconnects and writes each message as one JSON line.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use caregate_host::clock;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, ClientRequestBuilder, Message};
use tokio_util::sync::CancellationToken;

use super::login::{Address, LoginError, login};

/// Longest frame taken: a chunk of 8192 samples is about 57 kB of JSON.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// After this silence the reader asks for a sign of life; after [`SILENCES_MAX`] of them it connects anew.
const SILENCE: Duration = Duration::from_secs(5);
const SILENCES_MAX: u32 = 3;
/// Longest wait for the upgrade's answer.
const UPGRADE: Duration = Duration::from_secs(15);
/// First and longest pause between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Who reads.
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

/// Why reading ended without being asked to.
#[derive(Debug, Error)]
pub enum FeedError {
    /// No session, and trying again won't help.
    #[error(transparent)]
    Login(LoginError),
    /// The output can't be written.
    #[error("output: {0}")]
    Output(io::Error),
    /// A frame that isn't what `docs/feed-api.md` says.
    #[error("message {count}: {source}")]
    Message {
        /// Which one since the start, from 1.
        count: u64,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Numbers remembered of readings that came ahead of others: more than any feed's ring holds of live readings while a backlog drains.
const AHEAD_MAX: usize = 65_536;

/// Where to resume: the number after the last reading seen, but for those that came ahead of others.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cursor {
    next: Option<u64>,
    /// Beyond it.
    ahead: BTreeSet<u64>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    n: Option<u64>,
    #[serde(default)]
    ahead: bool,
    next: Option<u64>,
}

impl Cursor {
    /// Starts at a number, or with the next reading.
    #[must_use]
    pub fn new(from: Option<u64>) -> Self {
        Self { next: from, ahead: BTreeSet::new() }
    }

    /// Takes note of a message; answers whether it is none that came before.
    pub fn handle_message(&mut self, text: &str) -> Result<bool, serde_json::Error> {
        let head: Head = serde_json::from_str(text)?;
        match (head.kind.as_str(), head.n, head.next) {
            ("reading", Some(n), _) if head.ahead => {
                let is_new = self.next.is_none_or(|next| n >= next) && self.ahead.insert(n);
                if self.ahead.len() > AHEAD_MAX {
                    self.ahead.pop_first();
                }
                return Ok(is_new);
            }
            ("reading", Some(n), _) => {
                let next = n.saturating_add(1);
                let is_new = !self.ahead.contains(&n);
                self.next = Some(next);
                self.ahead = self.ahead.split_off(&next);
                return Ok(is_new);
            }
            ("hello", _, Some(next)) => match self.next {
                // The feed counts anew: what it holds now is all new to this reader.
                Some(own) if own.max(self.ahead.last().map_or(0, |n| n + 1)) > next => {
                    tracing::warn!(own, feed = next, "the feed's numbers went back");
                    *self = Self::new(Some(own.min(next)));
                }
                Some(_) => {}
                None => self.next = Some(next),
            },
            _ => {}
        }
        Ok(true)
    }

    /// The path of the stream from here.
    #[must_use]
    pub fn path(&self) -> String {
        self.next.map_or_else(|| "/api/stream".to_owned(), |next| format!("/api/stream?from={next}"))
    }
}

/// The message as one line with the reader's own time in front: `{"arrived_ms":…,"type":…`. The rest stays byte for byte.
#[must_use]
pub fn line(text: &str, arrived_ms: f64) -> String {
    let rest = text.trim().strip_prefix('{').unwrap_or_default().replace(['\r', '\n'], " ");
    format!("{{\"arrived_ms\":{arrived_ms},{rest}\n")
}

enum End {
    Stopped,
    Disconnected(String),
}

/// Reads until `stop`; answers with the number of messages.
pub async fn follow(
    address: &Address,
    credentials: &Credentials,
    from: Option<u64>,
    out: &mut (impl Write + Send),
    stop: &CancellationToken,
) -> Result<u64, FeedError> {
    let (mut cursor, mut count, mut pause) = (Cursor::new(from), 0, RETRY.0);
    loop {
        let before = count;
        let attempt = async {
            match connect(address, credentials, &cursor.path()).await? {
                Ok(stream) => read(stream, &mut cursor, &mut count, out, stop).await,
                Err(reason) => Ok(End::Disconnected(reason)),
            }
        };
        // Reading watches `stop` itself, so that no line is torn; connecting may be dropped at any point.
        match attempt.await? {
            End::Stopped => return Ok(count),
            End::Disconnected(reason) => tracing::info!(resume = cursor.path(), "disconnected: {reason}"),
        }
        pause = if count > before { RETRY.0 } else { (pause * 2).min(RETRY.1) };
        tokio::select! { () = stop.cancelled() => return Ok(count), () = sleep(pause) => {} }
    }
}

/// Logs in and upgrades; the inner error is one that another attempt may cure.
async fn connect(
    address: &Address,
    credentials: &Credentials,
    path: &str,
) -> Result<Result<WebSocketStream<TcpStream>, String>, FeedError> {
    let cookie = match login(address, &credentials.user, &credentials.password).await {
        Ok(cookie) => cookie,
        Err(error @ LoginError::Refused) => return Err(FeedError::Login(error)),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let authority = address.authority();
    let upgrade = async {
        let uri = format!("ws://{authority}{path}")
            .parse()
            .map_err(|error| tungstenite::Error::Io(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let request: tungstenite::http::Uri = uri;
        let request = ClientRequestBuilder::new(request)
            .with_header("Cookie", cookie)
            .with_header("Origin", format!("http://{authority}"));
        let stream = TcpStream::connect(&authority).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (stream, _response) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok::<_, tungstenite::Error>(stream)
    };
    Ok(match timeout(UPGRADE, upgrade).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_elapsed) => Err("no answer to the upgrade".to_owned()),
    })
}

async fn read(
    mut stream: WebSocketStream<TcpStream>,
    cursor: &mut Cursor,
    count: &mut u64,
    out: &mut (impl Write + Send),
    stop: &CancellationToken,
) -> Result<End, FeedError> {
    let mut silences = 0;
    loop {
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => {
                stream.close(None).await.ok();
                return Ok(End::Stopped);
            }
            message = timeout(SILENCE, stream.next()) => message,
        };
        match message {
            Ok(Some(Ok(Message::Text(text)))) => {
                silences = 0;
                *count += 1;
                let failed = |source| FeedError::Message { count: *count, source };
                if !cursor.handle_message(&text).map_err(failed)? {
                    continue;
                }
                let arrived_ms = clock::now_us() as f64 / 1000.0;
                out.write_all(line(&text, arrived_ms).as_bytes()).map_err(FeedError::Output)?;
                out.flush().map_err(FeedError::Output)?;
            }
            Ok(Some(Ok(_other))) => silences = 0,
            Ok(Some(Err(error))) => return Ok(End::Disconnected(error.to_string())),
            Ok(None) => return Ok(End::Disconnected("closed".to_owned())),
            Err(_elapsed) if silences >= SILENCES_MAX => {
                return Ok(End::Disconnected("silent".to_owned()));
            }
            Err(_elapsed) => {
                silences += 1;
                if let Err(error) = stream.send(Message::Ping(tungstenite::Bytes::new())).await {
                    return Ok(End::Disconnected(error.to_string()));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
