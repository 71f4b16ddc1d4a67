//! Alarms to an HTTP address of the home's or the hospital's choosing: HTTP/1.1, over TLS but on loopback. What is sent names
//! no patient but by their place in this gateway's enrolment, and nothing about them is in the address.

mod queue;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::uri::Scheme;
use axum::http::{Method, Request, Uri, header};
use bytes::Bytes;
use caregate_host::key_file;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::config::WebhookEntry;
use super::metrics::WatchMetrics;

pub use queue::{ATTEMPTS_MAX, Queue, WAITING_MAX, Word};

/// Time for one request, from the name's address to the answer's end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read of an answer; nothing in it is looked at.
const ANSWER_BYTES_MAX: usize = 4096;
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// Where to send, read and checked.
pub struct Target {
    host: String,
    port: u16,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Target {
    /// Reads what the entry names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn open(entry: &WebhookEntry) -> anyhow::Result<Self> {
        let uri: Uri = entry.url.parse().context("watch.webhook.url")?;
        let host = uri.host().context("watch.webhook.url names no host")?.trim_matches(['[', ']']).to_owned();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') || uri.query().is_some() || entry.url.contains('#') {
            bail!("watch.webhook.url has a user, a query or a fragment: use `token`");
        }
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let is_loopback = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let is_plain = uri.scheme() == Some(&Scheme::HTTP) && is_loopback;
        if !is_https && !is_plain {
            bail!("watch.webhook.url must be https, or http to a loopback address");
        }
        let tls = is_https.then(|| connector(&entry.ca, &host)).transpose()?;
        let token = entry.token.as_deref().map(token).transpose()?;
        let port = uri.port_u16().unwrap_or(if is_https { HTTPS_PORT } else { HTTP_PORT });
        Ok(Self { host, port, path: uri.path().to_owned(), tls, token })
    }

    async fn post(&self, body: Vec<u8>) -> anyhow::Result<()> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            None => self.post_over(stream, body).await,
            Some((connector, name)) => {
                self.post_over(connector.connect(name.clone(), stream).await?, body).await
            }
        }
    }

    async fn post_over<S>(&self, stream: S, body: Vec<u8>) -> anyhow::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        // It owns the sender: when it has its answer, the connection has no more to do, and ends.
        let asking = async move {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            // Read to its end, so that the receiver sees an orderly close.
            drop(Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await);
            if status.is_success() { Ok(()) } else { bail!("status {status}") }
        };
        // An orderly answer may come with the connection's end, so that counts first.
        let (answered, _ended) = tokio::join!(asking, connection);
        answered
    }
}

fn connector(ca: &Path, host: &str) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let named = || format!("watch.webhook.ca: {}", ca.display());
    let authorities: Vec<_> =
        CertificateDer::pem_file_iter(ca).and_then(Iterator::collect).with_context(named)?;
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(authorities);
    if taken == 0 {
        bail!("{}: no authority in it", named());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).context("watch.webhook.url: the host is no name")?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn token(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = key_file::read(path)?;
    let text = std::str::from_utf8(&bytes).with_context(|| path.display().to_string())?.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{}: a token is one line of visible ASCII", path.display());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// The queue's end for the watch.
#[derive(Debug, Clone)]
pub struct Webhook {
    queue: Arc<Mutex<Queue>>,
    woken: Arc<Notify>,
    metrics: WatchMetrics,
}

impl Webhook {
    /// An empty queue.
    #[must_use]
    pub fn new(metrics: WatchMetrics) -> Self {
        Self { queue: Arc::default(), woken: Arc::default(), metrics }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a word; it never waits.
    pub fn offer(&self, word: Word) {
        let dropped = self.queue().put(word);
        self.metrics.webhook.with_label_values(&["dropped"]).inc_by(dropped as u64);
        self.woken.notify_one();
    }

    /// Sends what waits, until `stop`.
    pub async fn run(self, target: Target, stop: CancellationToken) {
        loop {
            let word = self.queue().next();
            let pause = match word {
                None => None,
                Some(word) => Some(self.send(&target, &word).await),
            };
            let waiting = async {
                match pause {
                    None => self.woken.notified().await,
                    Some(pause) => tokio::time::sleep(pause).await,
                }
            };
            tokio::select! {
                () = waiting => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Sends one word. Returns how long to wait before the next.
    async fn send(&self, target: &Target, word: &Word) -> Duration {
        let posted = tokio::time::timeout(REQUEST_TIMEOUT, target.post(word.body.clone())).await;
        let failure = match posted {
            Ok(Ok(())) => {
                self.queue().sent(word);
                self.metrics.webhook.with_label_values(&["sent"]).inc();
                debug!("a webhook took an alarm");
                return Duration::ZERO;
            }
            Ok(Err(failure)) => failure,
            Err(elapsed) => elapsed.into(),
        };
        let (pause, given_up) = self.queue().failed(word);
        self.metrics.webhook.with_label_values(&["failed"]).inc();
        if given_up {
            self.metrics.webhook.with_label_values(&["dropped"]).inc();
        }
        warn!(%failure, pause_s = pause.as_secs(), given_up, "a webhook did not take an alarm");
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<Target, String> {
        let entry = WebhookEntry { url: url.into(), ca: "/nowhere/ca.pem".into(), token: None };
        Target::open(&entry).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn an_address_says_nothing_of_anybody_and_is_not_in_the_clear() {
        let target = open("http://127.0.0.1:9/alarms").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("127.0.0.1", 9, "/alarms"));
        assert_eq!(open("http://[::1]/").unwrap().host, "::1");
        for (url, wrong) in [
            ("http://192.0.2.1/alarms", "must be https"),
            ("ftp://127.0.0.1/", "must be https"),
            ("https://alarms.example/?bed=1", "use `token`"),
            ("https://user:secret@alarms.example/", "use `token`"),
            ("/alarms", "names no host"),
            ("https://alarms.example/", "watch.webhook.ca: /nowhere/ca.pem"),
        ] {
            let error = open(url).unwrap_err();
            assert!(error.contains(wrong), "{url}: {error}");
        }
    }
}
