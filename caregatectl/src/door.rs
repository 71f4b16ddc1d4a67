//! The ways straight to a gateway, and what is handed in there: messages that carry their own authority. Its local door, or a hospital's
//! feed, which seals them to the gateway and sends them by way of the core.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use hyper::{Method, StatusCode, header};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::http::{Ask, Server};
use crate::outcome::Failure;
use crate::secret;

/// Longest wait for a feed's answer: it waits 40 s for the gateway's.
const FEED_TIMEOUT: Duration = Duration::from_secs(45);

/// Straight to a gateway, at its local door or by a feed.
#[derive(Debug, Args)]
pub(crate) struct DoorArgs {
    /// The gateway's local door: http://… or https://…
    #[arg(long, value_name = "URL", conflicts_with = "feed")]
    gateway: Option<String>,
    /// The CAs that an https:// door's certificate may come from (PEM)
    #[arg(long, value_name = "FILE")]
    gateway_ca: Option<PathBuf>,
    /// A hospital's feed, which hands it to the gateway by way of the core, sealed: http://… or https://…
    #[arg(
        long,
        value_name = "URL",
        requires = "to",
        requires = "feed_user",
        requires = "feed_password_file"
    )]
    feed: Option<String>,
    /// The CAs that an https:// feed's certificate may come from (PEM)
    #[arg(long, value_name = "FILE")]
    feed_ca: Option<PathBuf>,
    /// The gateway's name, as the feed's configuration has it
    #[arg(long, value_name = "GATEWAY", requires = "feed")]
    to: Option<String>,
    /// Who logs in at the feed
    #[arg(long, value_name = "NAME", requires = "feed")]
    feed_user: Option<String>,
    /// File with that user's password in its first line (mode 0600)
    #[arg(long, value_name = "FILE", requires = "feed")]
    feed_password_file: Option<PathBuf>,
}

impl DoorArgs {
    /// Whether it goes straight to a gateway.
    pub(crate) fn is_given(&self) -> bool {
        self.gateway.is_some() || self.feed.is_some()
    }

    /// Whether it goes to a gateway's own door.
    pub(crate) fn is_local(&self) -> bool {
        self.gateway.is_some()
    }

    /// Hands in a message, `bundle`, `revocation` or `emergency`; the gateway's verdict.
    pub(crate) async fn hand_over(&self, what: &str, message: Vec<u8>) -> Result<Value, Failure> {
        let body = Some(("application/cbor", message));
        let (whose, server, path, headers, patience) = match (&self.gateway, &self.feed) {
            (Some(url), _) => {
                let server = Server::new(url, || tls(self.gateway_ca.as_deref(), "gateway"))?;
                ("gateway", server, format!("/policy/{what}"), Vec::new(), None)
            }
            (None, Some(url)) => {
                let server = Server::new(url, || tls(self.feed_ca.as_deref(), "feed"))?;
                let to = self.to.as_deref().context("--feed needs --to")?;
                let path = format!("/api/policy/{what}?gateway={}", crate::controller::segment(to)?);
                let headers = vec![(header::AUTHORIZATION, self.basic()?)];
                ("feed", server, path, headers, Some(FEED_TIMEOUT))
            }
            (None, None) => return Err(anyhow::anyhow!("neither --gateway nor --feed").into()),
        };
        let ask = Ask { method: Method::POST, path: &path, body, headers, patience };
        let answer = server.exchange(ask).await?;
        let verdict = answer.json();
        match (answer.status, verdict["refused"].as_str()) {
            (StatusCode::OK, None) => Ok(verdict),
            (_, Some(reason)) => {
                Err(Failure::refused(format_args!("the gateway refuses the {what}: {reason}"), reason))
            }
            (status, None) => {
                let detail = verdict["error"].as_str().unwrap_or("no reason given");
                let text = format!("the {whose} answers with status {status}: {detail}");
                let reason = verdict["reason"].as_str().map(str::to_owned);
                Err(Failure::refused(text, reason.unwrap_or_else(|| status.as_u16().to_string())))
            }
        }
    }

    /// HTTP Basic (RFC 7617).
    fn basic(&self) -> anyhow::Result<String> {
        let user = self.feed_user.as_deref().context("--feed needs --feed-user")?;
        let file = self.feed_password_file.as_deref().context("--feed needs --feed-password-file")?;
        let password = secret::first_line(file)?;
        let pair = Zeroizing::new([user.as_bytes(), b":", &password].concat());
        Ok(format!("Basic {}", BASE64_STANDARD.encode(&*pair)))
    }
}

fn tls(ca: Option<&Path>, whose: &str) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let ca = ca.with_context(|| format!("an https:// {whose} needs --{whose}-ca"))?;
    crate::http::with_ca(ca)
}
