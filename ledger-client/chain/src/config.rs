//! Where the chain is: the `[ledger]` table of a daemon's configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger_client::verify::Address;
use serde::Deserialize;
use thiserror::Error;

use crate::index::ENTRIES_MAX;

/// Shortest and longest pause between two looks at the chain. Below 20 ms the node does nothing else; above 5 s a revocation is late.
pub const POLL_MS: (u64, u64) = (20, 5_000);

/// Which chain, which contract, and how often to look.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainConfig {
    /// The node's JSON-RPC, `http://HOST:PORT/PATH`. What comes from it is not trusted, so there is no TLS.
    pub rpc: String,
    /// The chain's number (EIP-155); another chain is refused.
    pub chain_id: u64,
    /// The contract.
    pub contract: Address,
    /// The block that deployed the contract: no event is older.
    #[serde(default)]
    pub deployed_at: u64,
    /// Pause between two looks at the head: 100 ms, so that a revocation is at the gateways well under a second.
    #[serde(default = "poll_ms")]
    pub poll_ms: u64,
    /// Longest wait for one answer: a proof of a full watch list takes some 100 ms.
    #[serde(default = "request_timeout_ms")]
    pub request_timeout_ms: u64,
    /// Most relationships, and most device bindings, whose events are kept in memory. What a gateway watches beyond it is fetched.
    #[serde(default = "index_max")]
    pub index_max: usize,
    /// File with the secret that gateways' names are salted with on the ledger; of who looks gateways up there.
    pub gateway_salt: Option<PathBuf>,
}

fn index_max() -> usize {
    ENTRIES_MAX
}

fn poll_ms() -> u64 {
    100
}

fn request_timeout_ms() -> u64 {
    5_000
}

/// What is wrong with a [`ChainConfig`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No `http` URL.
    #[error("rpc: `{0}` is not http://HOST:PORT")]
    Url(String),
    /// Out of [`POLL_MS`].
    #[error("poll_ms: {0} is not between {min} and {max}", min = POLL_MS.0, max = POLL_MS.1)]
    Poll(u64),
    /// Zero.
    #[error("request_timeout_ms: must be at least 1")]
    Timeout,
    /// No file.
    #[error(
        "gateway_salt: must name the file of this deployment's salt (caregatectl participant gateway-salt)"
    )]
    GatewaySalt,
}

impl ChainConfig {
    /// A chain with the usual pauses.
    #[must_use]
    pub fn new(rpc: &str, chain_id: u64, contract: Address) -> Self {
        Self {
            rpc: rpc.to_owned(),
            chain_id,
            contract,
            deployed_at: 0,
            poll_ms: poll_ms(),
            request_timeout_ms: request_timeout_ms(),
            index_max: index_max(),
            gateway_salt: None,
        }
    }

    /// Checks what can be checked without the chain.
    ///
    /// # Errors
    /// [`ConfigError`], by key.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.endpoint()?;
        if !(POLL_MS.0..=POLL_MS.1).contains(&self.poll_ms) {
            return Err(ConfigError::Poll(self.poll_ms));
        }
        if self.request_timeout_ms == 0 { Err(ConfigError::Timeout) } else { Ok(()) }
    }

    /// The file of the salt, for who refuses gateways by the ledger's word: without it none is found there, and none refused.
    ///
    /// # Errors
    /// [`ConfigError::GatewaySalt`].
    pub fn gateway_salt(&self) -> Result<&Path, ConfigError> {
        self.gateway_salt.as_deref().ok_or(ConfigError::GatewaySalt)
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint, ConfigError> {
        Endpoint::parse(&self.rpc).ok_or_else(|| ConfigError::Url(self.rpc.clone()))
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }
}

/// An `http` URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host and port, for the `Host` header and to connect to.
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Endpoint {
    fn parse(url: &str) -> Option<Self> {
        let uri: hyper::Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') || authority.host().is_empty()
        {
            return None;
        }
        let port = authority.port_u16().unwrap_or(80);
        let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
        Some(Self { authority: format!("{}:{port}", authority.host()), path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rpc: &str) -> ChainConfig {
        ChainConfig::new(rpc, 4711, Address([0xc0; 20]))
    }

    #[test]
    fn urls_are_taken_apart() {
        for (url, authority, path) in [
            ("http://127.0.0.1:8545", "127.0.0.1:8545", "/"),
            ("http://node/", "node:80", "/"),
            ("http://[::1]:1/rpc?x=1", "[::1]:1", "/rpc?x=1"),
        ] {
            let endpoint = config(url).endpoint().unwrap();
            assert_eq!((endpoint.authority.as_str(), endpoint.path.as_str()), (authority, path));
        }
        for url in
            ["", "127.0.0.1:8545", "https://node", "ws://node", "http://", "http://a:b@node", "http://:80"]
        {
            assert_eq!(config(url).check(), Err(ConfigError::Url(url.to_owned())), "{url}");
        }
    }

    #[test]
    fn bounds_have_their_key_in_the_sentence() {
        let node = config("http://node");
        assert_eq!(node.check(), Ok(()));
        let often = ChainConfig { poll_ms: 1, ..node.clone() };
        assert!(often.check().unwrap_err().to_string().starts_with("poll_ms: 1 "));
        let never = ChainConfig { request_timeout_ms: 0, ..node };
        assert!(never.check().unwrap_err().to_string().starts_with("request_timeout_ms"));
        let unsalted = config("http://node").gateway_salt().unwrap_err();
        assert!(unsalted.to_string().starts_with("gateway_salt"), "{unsalted}");
    }
}
