//! A gateway's local door, and what is handed in there: messages that carry their own authority.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::http::{Ask, Server};
use crate::outcome::Failure;

/// A gateway's local door.
#[derive(Debug, Args)]
pub(crate) struct DoorArgs {
    /// The gateway's local door: http://… or https://…
    #[arg(long, value_name = "URL")]
    pub(crate) gateway: Option<String>,
    /// The CAs that an https:// door's certificate may come from (PEM)
    #[arg(long, value_name = "FILE")]
    gateway_ca: Option<PathBuf>,
}

impl DoorArgs {
    /// Hands in a signed message, `revocation` or `emergency`; the gateway's verdict.
    pub(crate) async fn hand_over(&self, url: &str, what: &str, message: Vec<u8>) -> Result<Value, Failure> {
        let server = Server::new(url, || self.tls())?;
        let (path, body) = (format!("/policy/{what}"), Some(("application/cbor", message)));
        let ask = Ask { method: Method::POST, path: &path, body, ..Ask::default() };
        let answer = server.exchange(ask).await?;
        let verdict = answer.json();
        match (answer.status, verdict["refused"].as_str()) {
            (StatusCode::OK, None) => Ok(verdict),
            (_, Some(reason)) => {
                Err(Failure::refused(format_args!("the gateway refuses the {what}: {reason}"), reason))
            }
            (status, None) => {
                let detail = verdict["error"].as_str().unwrap_or("no reason given");
                Err(Failure::refused(
                    format_args!("the gateway answers with status {status}: {detail}"),
                    status.as_u16(),
                ))
            }
        }
    }

    fn tls(&self) -> anyhow::Result<Arc<rustls::ClientConfig>> {
        let ca = self.gateway_ca.as_deref().context("an https:// door needs --gateway-ca")?;
        crate::http::with_ca(ca)
    }
}
