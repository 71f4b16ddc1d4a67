//! The configuration file of `clinician-feed`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use caregate_host::identity::IdentityFiles;
use caregate_host::log::LogFormat;
use caregate_protocol::id::RecipientId;
use ed25519_dalek::VerifyingKey;
use ledger_chain::{ChainConfig, ConfigError};
use ledger_client::verify::Address;
use serde::Deserialize;
use thiserror::Error;

use crate::login::USER_BYTES_MAX;
use crate::message::Bed;
use crate::password::{Hashed, PasswordError};
use crate::ring::BYTES_MAX_DEFAULT;

/// Least that the ring may hold: some seconds of one ward, so that a page can resume at all.
const RING_BYTES_MIN: usize = 1 << 20;
/// Longest name of a bed, in bytes: it stands in a tile.
const BED_BYTES_MAX: usize = 64;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// TCP address of the page, its stream and FHIR, or `systemd:N`.
    pub listen: String,
    /// Serve them over HTTPS.
    pub tls: Option<TlsFiles>,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`, or `systemd:N`.
    pub admin: String,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
    /// Certificate, key and CA of role `feed`.
    pub identity: IdentityFiles,
    /// Who we are to patients: the domain's ledger address.
    pub recipient: RecipientId,
    /// File with the domain's HPKE private key: 32 bytes in hexadecimal, mode 0600.
    pub hpke_key: PathBuf,
    /// Most bytes of opened readings that are held in memory.
    #[serde(default = "ring_bytes_max")]
    pub ring_bytes_max: usize,
    /// File of the journal: who looked, and what opens the commitments of emergencies. Made at mode 0600.
    pub journal: PathBuf,
    /// Where the sealed readings come from.
    pub core: CoreEntry,
    /// The ledger, for what access rests on and for break-glass.
    pub ledger: Option<LedgerEntry>,
    /// The gateways whose signatures count.
    #[serde(default, rename = "gateway")]
    pub gateways: Vec<GatewayEntry>,
    /// Who lies where.
    #[serde(default, rename = "bed")]
    pub beds: Vec<Bed>,
    /// Who may log in.
    #[serde(default, rename = "user")]
    pub users: Vec<UserEntry>,
}

fn ring_bytes_max() -> usize {
    BYTES_MAX_DEFAULT
}

/// The page's certificate, which browsers must trust; it need not be of the deployment's CA.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM, with intermediates.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
}

/// The core.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreEntry {
    /// Its UDP address.
    pub address: SocketAddr,
    /// The name in its certificate.
    pub name: String,
}

/// The ledger.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntry {
    /// A node's JSON-RPC, `http://HOST:PORT`.
    pub rpc: String,
    /// The chain's number (EIP-155).
    pub chain_id: u64,
    /// The contract.
    pub contract: Address,
    /// The block that deployed it; 0 where nothing is said.
    #[serde(default)]
    pub deployed_at: u64,
    /// File with the domain's secp256k1 key: 32 bytes in hexadecimal, mode 0600. Its address is `recipient`. Without it no
    /// emergency can be opened here.
    pub domain_key: Option<PathBuf>,
}

impl LedgerEntry {
    /// For the chain's client.
    #[must_use]
    pub fn chain(&self) -> ChainConfig {
        let config = ChainConfig::new(&self.rpc, self.chain_id, self.contract);
        ChainConfig { deployed_at: self.deployed_at, ..config }
    }
}

/// A gateway whose signatures count.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayEntry {
    /// Its name.
    pub name: String,
    /// Ed25519 public keys (hexadecimal) with which it signs: one, or two while it changes keys.
    pub device_keys: Vec<String>,
}

/// Who may log in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// The user's name.
    pub name: String,
    /// What `clinician-feed hash-password` printed.
    pub password_hash: String,
}

/// A value that has the right shape but no meaning.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum DomainError {
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
        /// `gateway`, `user` or `bed`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Not a hash that can be checked.
    #[error("user.password_hash of {user} {source}")]
    PasswordHash {
        /// Whose.
        user: String,
        /// Why.
        source: PasswordError,
    },
    /// A name that is none.
    #[error("{kind}.{key} of entry {index} must have 1 to {max} bytes{more}")]
    Name {
        /// `user` or `bed`.
        kind: &'static str,
        /// The key.
        key: &'static str,
        /// Which entry, from 0.
        index: usize,
        /// The greatest length.
        max: usize,
        /// What else.
        more: &'static str,
    },
    /// The ledger can't be followed as it is named.
    #[error("ledger.{0}")]
    Ledger(#[from] ConfigError),
    /// Too small.
    #[error("ring_bytes_max must be at least {RING_BYTES_MIN}")]
    Ring,
}

/// The file's values with their meaning.
#[derive(Debug)]
pub struct Domain {
    /// Gateways' names and keys.
    pub gateways: Vec<(String, Vec<VerifyingKey>)>,
    /// Users and their passwords' hashes.
    pub users: Vec<(String, Hashed)>,
    /// Who lies where.
    pub beds: Vec<Bed>,
}

fn device_key(text: &str) -> Option<VerifyingKey> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.trim(), &mut bytes).ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}

fn once(kind: &'static str, seen: &mut HashSet<String>, name: &str) -> Result<(), DomainError> {
    if seen.insert(name.to_owned()) {
        Ok(())
    } else {
        Err(DomainError::Twice { kind, name: name.to_owned() })
    }
}

impl Domain {
    /// Keys of all gateways.
    pub fn device_keys(&self) -> impl Iterator<Item = VerifyingKey> {
        self.gateways.iter().flat_map(|(_, keys)| keys).copied()
    }
}

impl TryFrom<&ConfigFile> for Domain {
    type Error = DomainError;

    fn try_from(file: &ConfigFile) -> Result<Self, DomainError> {
        if file.ring_bytes_max < RING_BYTES_MIN {
            return Err(DomainError::Ring);
        }
        if let Some(ledger) = &file.ledger {
            ledger.chain().check()?;
        }
        let mut gateways = Vec::new();
        let mut seen = HashSet::new();
        for entry in &file.gateways {
            once("gateway", &mut seen, &entry.name)?;
            let mut keys = Vec::new();
            for (index, text) in entry.device_keys.iter().enumerate() {
                let key = device_key(text);
                let wrong = || DomainError::DeviceKey { gateway: entry.name.clone(), index };
                keys.push(key.ok_or_else(wrong)?);
            }
            gateways.push((entry.name.clone(), keys));
        }
        let mut users = Vec::new();
        let mut seen = HashSet::new();
        for (index, entry) in file.users.iter().enumerate() {
            // RFC 7617 §2: a colon ends the user's name.
            if entry.name.is_empty() || entry.name.len() > USER_BYTES_MAX || entry.name.contains(':') {
                let more = ", none of them a colon";
                return Err(DomainError::Name {
                    kind: "user",
                    key: "name",
                    index,
                    max: USER_BYTES_MAX,
                    more,
                });
            }
            once("user", &mut seen, &entry.name)?;
            let hash = Hashed::new(&entry.password_hash);
            let wrong = |source| DomainError::PasswordHash { user: entry.name.clone(), source };
            users.push((entry.name.clone(), hash.map_err(wrong)?));
        }
        let (mut patients, mut beds, mut relationships) = (HashSet::new(), HashSet::new(), HashSet::new());
        for (index, entry) in file.beds.iter().enumerate() {
            if entry.bed.is_empty() || entry.bed.len() > BED_BYTES_MAX {
                return Err(DomainError::Name {
                    kind: "bed",
                    key: "bed",
                    index,
                    max: BED_BYTES_MAX,
                    more: "",
                });
            }
            once("bed", &mut beds, &entry.bed)?;
            once("patient in a bed", &mut patients, &entry.patient.to_string())?;
            if let Some(relationship) = entry.relationship {
                once("relationship of a bed", &mut relationships, &relationship.to_string())?;
            }
        }
        Ok(Self { gateways, users, beds: file.beds.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const GOOD: &str = r#"
listen = "systemd:0"
admin = "systemd:1"
recipient = "0505050505050505050505050505050505050505"
hpke_key = "hospital-1.hpke"
journal = "journal.jsonl"
identity = { certificate = "a", key = "b", ca = "c" }
tls = { certificate = "d", key = "e" }
[core]
address = "127.0.0.1:9000"
name = "core-1"
[[gateway]]
name = "gateway-1"
device_keys = ["KEY"]
[[user]]
name = "clinician"
password_hash = "HASH"
[[bed]]
patient = "01010101010101010101010101010101"
bed = "Bed 1"
category = "adult"
"#;

    const LEDGER: &str = "[ledger]\nrpc = \"http://127.0.0.1:1\"\nchain_id = 4711\n\
         contract = \"0xc0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0\"\n[core]";

    fn parse(from: &str, to: &str) -> Result<Domain, String> {
        let key = ed25519_dalek::SigningKey::from_bytes(&[3; 32]).verifying_key();
        let hash = crate::password::hash("correct horse").unwrap();
        let text = GOOD.replace(from, to).replace("KEY", &hex::encode(key.as_bytes())).replace("HASH", &hash);
        let file: ConfigFile =
            caregate_host::config::parse(Path::new("feed.toml"), &text).map_err(|e| e.to_string())?;
        Domain::try_from(&file).map_err(|e| e.to_string())
    }

    #[test]
    fn a_good_file_is_taken() {
        let domain = parse("", "").unwrap();
        assert_eq!((domain.device_keys().count(), domain.users.len(), domain.beds.len()), (1, 1, 1));
        parse("[core]", LEDGER).unwrap();
        let relationship = format!("category = \"adult\"\nrelationship = \"0x{}\"", "ab".repeat(32));
        assert!(parse("category = \"adult\"", &relationship).unwrap().beds[0].relationship.is_some());
    }

    #[test]
    fn a_wrong_value_is_named() {
        let cases = [
            ("KEY", "00", "gateway.device_keys of gateway-1: entry 0"),
            ("HASH", "secret", "user.password_hash of clinician is no Argon2id hash"),
            ("name = \"clinician\"", "name = \"a:b\"", "user.name of entry 0"),
            ("\"Bed 1\"", "\"\"", "bed.bed of entry 0"),
            ("\"adult\"", "\"old\"", "unknown variant `old`"),
            ("\nlisten", "\nring_bytes_max = 5\nlisten", "ring_bytes_max"),
            (
                "[[bed]]",
                "[[bed]]\npatient = \"01010101010101010101010101010101\"\nbed=\"B\"\ncategory=\"child\"\n[[bed]]",
                "configured twice",
            ),
            ("\nlisten", "\nlistne", "listne"),
            ("journal = \"journal.jsonl\"", "", "missing field `journal`"),
            ("[core]", &LEDGER.replace("http:", "https:"), "ledger.rpc: `https:"),
            ("[core]", &LEDGER.replace("0xc0", "0xc"), "contract"),
            ("category = \"adult\"", "category = \"adult\"\nrelationship = \"0x12\"", "relationship"),
        ];
        for (from, to, expected) in cases {
            let error = parse(from, to).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
