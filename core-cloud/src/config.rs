//! The configuration file of `core-cloud`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use caregate_host::identity::IdentityFiles;
#[cfg(feature = "nats")]
use caregate_host::key_file::{self, KeyFileError};
use caregate_host::log::LogFormat;
use caregate_protocol::id::RecipientId;
use ed25519_dalek::VerifyingKey;
use ledger_chain::ChainConfig;
use serde::Deserialize;
use thiserror::Error;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// UDP address of the QUIC listener.
    pub listen: SocketAddr,
    /// TCP address for gateways from where UDP does not get through, or `systemd:N`; leave it out where there are none.
    pub listen_tcp: Option<String>,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`, or `systemd:N`.
    pub admin: String,
    /// Folder of the store.
    pub data: PathBuf,
    /// Certificate, key and CA of role `core`.
    pub identity: IdentityFiles,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
    /// The ledger, by whose word gateways are revoked; leave it out where there is none.
    pub ledger: Option<ChainConfig>,
    /// A NATS server as the store; without it the store is in `data` alone.
    pub nats: Option<NatsEntry>,
    /// The gateways that may store.
    #[serde(default, rename = "gateway")]
    pub gateways: Vec<GatewayEntry>,
    /// The feeds that may subscribe.
    #[serde(default, rename = "feed")]
    pub feeds: Vec<FeedEntry>,
}

/// A NATS server (2.10 or newer, JetStream with `sync_interval: always`) as the store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsEntry {
    /// `tls://host:port`; `nats://` on loopback alone.
    pub url: String,
    /// Certificates that sign the server's; for `tls://`.
    pub ca: Option<PathBuf>,
    /// User of the account in which the stream is.
    pub user: String,
    /// Its password, in a file that nobody else reads.
    pub password_file: PathBuf,
    /// User of the system account, which is asked how the servers sync.
    pub system_user: String,
    /// Its password.
    pub system_password_file: PathBuf,
    /// The stream's name, and the first word of its subjects.
    #[serde(default = "default_stream")]
    pub stream: String,
    /// On how many servers it is.
    #[serde(default = "default_replicas")]
    pub replicas: usize,
}

fn default_stream() -> String {
    "CAREGATE".to_owned()
}

fn default_replicas() -> usize {
    1
}

/// A password that can't be used.
#[cfg(feature = "nats")]
#[derive(Debug, Error)]
pub enum PasswordError {
    /// It was not read.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// Not text.
    #[error("{}: no password in UTF-8", .0.display())]
    Text(PathBuf),
}

#[cfg(feature = "nats")]
impl NatsEntry {
    /// With the passwords read.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn settings(&self) -> Result<crate::store::jetstream::Settings, PasswordError> {
        let password = |path: &PathBuf| -> Result<String, PasswordError> {
            let bytes = key_file::read(path)?;
            let text = std::str::from_utf8(&bytes).map_err(|_source| PasswordError::Text(path.clone()))?;
            Ok(text.trim().to_owned())
        };
        Ok(crate::store::jetstream::Settings {
            url: self.url.clone(),
            ca: self.ca.clone(),
            user: (self.user.clone(), password(&self.password_file)?),
            system_user: (self.system_user.clone(), password(&self.system_password_file)?),
            stream: self.stream.clone(),
            replicas: self.replicas,
        })
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The public half of RFC 8032 §7.1, test 1.
    const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn peers(text: &str) -> Result<Peers, PeersError> {
        let head = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ndata = \"/nowhere\"\n\
                    identity = { certificate = \"c\", key = \"k\", ca = \"a\" }\n";
        let file: ConfigFile =
            caregate_host::config::parse(Path::new("core.toml"), &format!("{head}{text}")).unwrap();
        Peers::try_from((file.gateways.as_slice(), file.feeds.as_slice()))
    }

    #[test]
    fn peers_are_known_by_name() {
        let recipient = "07".repeat(20);
        let peers = peers(&format!(
            "[[gateway]]\nname = \"g\"\ndevice_keys = [\"{KEY}\"]\n[[feed]]\nname = \"f\"\nrecipients = [\"{recipient}\"]\n"
        ))
        .unwrap();
        assert_eq!(hex::encode(peers.gateways["g"][0].as_bytes()), KEY);
        assert_eq!(peers.feeds["f"], [RecipientId([7; 20])]);
    }

    #[test]
    fn a_wrong_key_and_a_second_entry_are_named() {
        for wrong in ["", "d75a", &KEY[1..], &"z".repeat(64), &format!("{KEY}00")] {
            let text = format!("[[gateway]]\nname = \"g\"\ndevice_keys = [\"{KEY}\", \"{wrong}\"]\n");
            let error = peers(&text).unwrap_err().to_string();
            assert!(error.starts_with("gateway.device_keys of g: entry 1 is no Ed25519"), "{error}");
        }
        let gateway = format!("[[gateway]]\nname = \"g\"\ndevice_keys = [\"{KEY}\"]\n");
        assert_eq!(peers(&gateway.repeat(2)).unwrap_err().to_string(), "gateway g is configured twice");
        let feed = "[[feed]]\nname = \"f\"\nrecipients = []\n".repeat(2);
        assert_eq!(peers(&feed).unwrap_err().to_string(), "feed f is configured twice");
    }
}
