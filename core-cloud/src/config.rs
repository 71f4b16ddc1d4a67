//! The configuration file of `core-cloud`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caregate_host::identity::IdentityFiles;
#[cfg(feature = "nats")]
use caregate_host::key_file::{self, KeyFileError};
use caregate_host::log::LogFormat;
use caregate_protocol::id::{PatientId, RecipientId, SignerId};
use caregate_protocol::segment::signer_id;
use ed25519_dalek::VerifyingKey;
use ledger_chain::{ChainConfig, ConfigError as LedgerError};
use serde::Deserialize;
use thiserror::Error;

use crate::metrics::Metrics;
use crate::retention::Retention;
use crate::tenants::{Quota, Tenant, Tenants};

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
    /// For how many days records are kept; for ever where nothing is said.
    pub keep_days: Option<NonZeroU32>,
    /// Shares of the core.
    #[serde(default, rename = "tenant")]
    pub tenants: Vec<TenantEntry>,
    /// Pseudonyms whose records are kept for a time of their own.
    #[serde(default, rename = "pseudonym")]
    pub pseudonyms: Vec<PseudonymEntry>,
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
    /// Whose share it uses; without one it is not limited.
    pub tenant: Option<String>,
}

/// A share of the core.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantEntry {
    /// Its name, in metrics and logs.
    pub name: String,
    /// Records in a second, over all its gateways; alarms have as many of their own.
    pub records_s: Option<NonZeroU32>,
    /// Bytes of records stored.
    pub bytes_max: Option<NonZeroU64>,
    /// For how many days its gateways' records are kept.
    pub keep_days: Option<NonZeroU32>,
}

/// A pseudonym whose records are kept for a time of their own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PseudonymEntry {
    /// 32 hexadecimal digits.
    pub patient: PatientId,
    /// For how many days.
    pub keep_days: NonZeroU32,
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
    /// A gateway of a tenant that is not there.
    #[error("gateway {gateway}: there is no tenant {tenant}")]
    Tenant {
        /// Which gateway.
        gateway: String,
        /// Which tenant.
        tenant: String,
    },
    /// Two entries of one name.
    #[error("{kind} {name} is configured twice")]
    Twice {
        /// `gateway`, `feed` or `tenant`.
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

impl ConfigFile {
    /// Where the salt of gateways' names is; none where there is no ledger.
    ///
    /// # Errors
    /// Where there is a ledger, and no salt is named.
    pub fn gateway_salt(&self) -> Result<Option<&Path>, LedgerError> {
        self.ledger.as_ref().map(ChainConfig::gateway_salt).transpose()
    }

    /// Shares, and how long records are kept.
    ///
    /// # Errors
    /// [`PeersError`].
    pub fn shares(&self, peers: &Peers, metrics: &Metrics) -> Result<(Tenants, Retention), PeersError> {
        let mut tenants: HashMap<&str, (Arc<Tenant>, &TenantEntry)> = HashMap::new();
        for entry in &self.tenants {
            let quota = Quota {
                records_s: entry.records_s.map(NonZeroU32::get),
                bytes_max: entry.bytes_max.map(NonZeroU64::get),
            };
            let tenant = Arc::new(Tenant::new(entry.name.clone(), quota, metrics.clone()));
            if tenants.insert(&entry.name, (tenant, entry)).is_some() {
                return Err(PeersError::Twice { kind: "tenant", name: entry.name.clone() });
            }
        }
        let mut retention = Retention { days: self.keep_days.map(NonZeroU32::get), ..Retention::default() };
        let of_pseudonym = |entry: &PseudonymEntry| (entry.patient, entry.keep_days.get());
        retention.by_patient = self.pseudonyms.iter().map(of_pseudonym).collect();
        let mut gateways = Vec::new();
        for gateway in &self.gateways {
            let Some(name) = &gateway.tenant else { continue };
            let (tenant, entry) = tenants
                .get(name.as_str())
                .ok_or_else(|| PeersError::Tenant { gateway: gateway.name.clone(), tenant: name.clone() })?;
            let keys = peers.gateways.get(&gateway.name).map(Vec::as_slice).unwrap_or_default();
            let signers: Vec<SignerId> = keys.iter().map(signer_id).collect();
            if let Some(days) = entry.keep_days {
                retention.by_signer.extend(signers.iter().map(|signer| (*signer, days.get())));
            }
            gateways.push((gateway.name.clone(), signers, Arc::clone(tenant)));
        }
        Ok((Tenants::new(gateways), retention))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public half of RFC 8032 §7.1, test 1.
    const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn file(text: &str) -> ConfigFile {
        let head = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ndata = \"/nowhere\"\n\
                    identity = { certificate = \"c\", key = \"k\", ca = \"a\" }\n";
        caregate_host::config::parse(Path::new("core.toml"), &format!("{head}{text}")).unwrap()
    }

    #[test]
    fn a_ledger_needs_the_salt_of_gateways_names() {
        let ledger =
            format!("[ledger]\nrpc = \"http://n\"\nchain_id = 1\ncontract = \"{}\"\n", "c0".repeat(20));
        assert_eq!(file("").gateway_salt(), Ok(None));
        assert_eq!(file(&ledger).gateway_salt(), Err(LedgerError::GatewaySalt));
        assert_eq!(file(&(ledger + "gateway_salt = \"s\"\n")).gateway_salt(), Ok(Some(Path::new("s"))));
    }

    fn peers(text: &str) -> Result<Peers, PeersError> {
        let file = file(text);
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
    fn shares_and_times_are_by_tenant_and_what_makes_no_sense_is_named() {
        let gateway = |tenant: &str| {
            format!("[[gateway]]\nname = \"g\"\ndevice_keys = [\"{KEY}\"]\ntenant = \"{tenant}\"\n")
        };
        let tenant = "[[tenant]]\nname = \"t\"\nrecords_s = 5\nbytes_max = 9\nkeep_days = 7\n";
        let patient = "01".repeat(16);
        let pseudonym = format!("[[pseudonym]]\npatient = \"{patient}\"\nkeep_days = 3\n");
        let shares = |text: &str| {
            let file = file(text);
            let peers = Peers::try_from((file.gateways.as_slice(), file.feeds.as_slice())).unwrap();
            let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
            file.shares(&peers, &metrics).map_err(|error| error.to_string())
        };
        let (tenants, retention) =
            shares(&format!("keep_days = 400\n{tenant}{pseudonym}{}", gateway("t"))).unwrap();
        assert!(tenants.of("g").is_some() && tenants.of("h").is_none());
        assert_eq!((retention.days, retention.by_patient[&PatientId([1; 16])]), (Some(400), 3));
        assert_eq!(retention.by_signer.into_values().collect::<Vec<_>>(), [7]);
        assert!(shares("").unwrap().1.is_none());
        assert_eq!(shares(&gateway("x")).unwrap_err(), "gateway g: there is no tenant x");
        assert_eq!(shares(&tenant.repeat(2)).unwrap_err(), "tenant t is configured twice");
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
