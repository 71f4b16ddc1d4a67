//! The configuration file of `core-cloud`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use caregate_host::identity::IdentityFiles;
use caregate_host::log::LogFormat;
use caregate_protocol::id::RecipientId;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use thiserror::Error;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// UDP address of the QUIC listener.
    pub listen: SocketAddr,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`, or `systemd:N`.
    pub admin: String,
    /// Folder of the store.
    pub data: PathBuf,
    /// Certificate, key and CA of role `core`.
    pub identity: IdentityFiles,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
    /// The gateways that may store.
    #[serde(default, rename = "gateway")]
    pub gateways: Vec<GatewayEntry>,
    /// The feeds that may subscribe.
    #[serde(default, rename = "feed")]
    pub feeds: Vec<FeedEntry>,
}

/// A gateway that may store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayEntry {
    /// The name in its certificate.
    pub name: String,
    /// Ed25519 public keys (hexadecimal) with which it may sign: one, or two while it changes keys.
    pub device_keys: Vec<String>,
}

/// A feed that may subscribe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedEntry {
    /// The name in its certificate.
    pub name: String,
    /// The recipients whose queues it may read.
    pub recipients: Vec<RecipientId>,
}

/// Who may do what, looked up by the name in the peer's certificate.
#[derive(Debug, Default)]
pub struct Peers {
    /// Device keys by gateway.
    pub gateways: HashMap<String, Vec<VerifyingKey>>,
    /// Queues by feed.
    pub feeds: HashMap<String, Vec<RecipientId>>,
}

/// A value that has the right shape but no meaning.
#[derive(Debug, Error)]
pub enum PeersError {
    /// Not an Ed25519 public key.
    #[error(
        "gateway.device_keys of {gateway}: entry {index} is no Ed25519 public key (32 bytes in hexadecimal)"
    )]
    DeviceKey {
        /// Which gateway.
        gateway: String,
        /// Which entry, from 0.
        index: usize,
    },
    /// Two entries of one name.
    #[error("{kind} {name} is configured twice")]
    Twice {
        /// `gateway` or `feed`.
        kind: &'static str,
        /// The name.
        name: String,
    },
}

impl TryFrom<(&[GatewayEntry], &[FeedEntry])> for Peers {
    type Error = PeersError;

    fn try_from((gateways, feeds): (&[GatewayEntry], &[FeedEntry])) -> Result<Self, PeersError> {
        let mut peers = Self::default();
        for entry in gateways {
            let mut keys = Vec::new();
            for (index, text) in entry.device_keys.iter().enumerate() {
                let mut bytes = [0; 32];
                let key = hex::decode_to_slice(text.trim(), &mut bytes)
                    .ok()
                    .and_then(|()| VerifyingKey::from_bytes(&bytes).ok());
                keys.push(key.ok_or_else(|| PeersError::DeviceKey { gateway: entry.name.clone(), index })?);
            }
            if peers.gateways.insert(entry.name.clone(), keys).is_some() {
                return Err(PeersError::Twice { kind: "gateway", name: entry.name.clone() });
            }
        }
        for entry in feeds {
            if peers.feeds.insert(entry.name.clone(), entry.recipients.clone()).is_some() {
                return Err(PeersError::Twice { kind: "feed", name: entry.name.clone() });
            }
        }
        Ok(peers)
    }
}
