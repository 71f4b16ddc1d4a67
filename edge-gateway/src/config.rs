//! The configuration file of `edge-gateway`.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caregate_host::identity::IdentityFiles;
use caregate_host::log::LogFormat;
use caregate_protocol::id::DeviceId;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::local::LocalEntry;
use crate::mqtt::access::Reader;
use crate::mqtt::credentials::Credential;
use crate::mqtt::tunnel::TlsEntry;
use crate::pipeline::expiry::AGE_LIMIT_MIN;
use crate::uplink::ports::LanePorts;
use crate::watch::WatchEntry;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Folder of keys, spool and rebuildable state.
    pub data: PathBuf,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`, or `systemd:N`.
    pub admin: String,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
    /// Certificate, key and CA of role `gateway`.
    pub identity: IdentityFiles,
    /// File of the device key (Ed25519 seed, 32 bytes in hexadecimal, mode 0600).
    pub device_key: PathBuf,
    /// The core.
    pub core: CoreEntry,
    /// How patients' roots are kept.
    #[serde(default)]
    pub keys: KeysEntry,
    /// Where policy comes from and whom it must be signed by.
    pub policy: PolicyEntry,
    /// The embedded MQTT server.
    pub mqtt: Option<MqttEntry>,
    /// Brokers that the home already has.
    #[serde(default, rename = "broker")]
    pub brokers: Vec<BrokerEntry>,
    /// The spool.
    #[serde(default)]
    pub spool: SpoolEntry,
    /// The packet filter.
    #[serde(default)]
    pub datapath: DatapathEntry,
    /// The network's controller, whose switch this gateway is; leave it out where there is none. Without a datapath there is no switch.
    pub controller: Option<SwitchEntry>,
    /// The local door with the patient's page; leave it out where there is none.
    pub local: Option<LocalEntry>,
    /// Alarms.
    #[serde(default)]
    pub watch: WatchEntry,
}

/// The file of a switch without sensors (`edge-gateway switch`): of the gateway's file, what such a switch needs, under the same keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchFile {
    /// Folder of the kept flows, groups and meters.
    pub data: PathBuf,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`, or `systemd:N`.
    pub admin: String,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
    /// Certificate, key and CA of role `gateway`.
    pub identity: IdentityFiles,
    /// The switch's own tables, in the kernel.
    #[serde(default)]
    pub datapath: DatapathEntry,
    /// Whose switch this is.
    pub controller: SwitchEntry,
}

/// How patients' roots are kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysEntry {
    /// `auto` (default): sealed to the TPM where there is `/dev/tpmrm0`; `off`; or another device or socket of a TPM 2.0.
    pub tpm: TpmEntry,
}

/// The TPM to which roots are sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum TpmEntry {
    /// The kernel's, where there is one.
    #[default]
    Auto,
    /// None.
    Off,
    /// Behind this device or Unix socket.
    Device(PathBuf),
}

/// Where Linux gives a TPM to several programs at once.
const TPM_DEVICE: &str = "/dev/tpmrm0";

impl From<String> for TpmEntry {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Auto,
            "off" => Self::Off,
            _ => Self::Device(text.into()),
        }
    }
}

impl TpmEntry {
    /// The device, where there is one.
    #[must_use]
    pub fn device(&self) -> Option<&Path> {
        match self {
            Self::Auto => Some(Path::new(TPM_DEVICE)).filter(|device| device.exists()),
            Self::Off => None,
            Self::Device(path) => Some(path),
        }
    }
}

/// The core.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreEntry {
    /// Its UDP address.
    pub address: SocketAddr,
    /// Its TCP address (`listen_tcp` there), for where UDP does not get through; leave it out where there is none.
    pub tcp_address: Option<SocketAddr>,
    /// The name that its certificate must carry; any name of role `core` where none is given.
    pub name: Option<String>,
    /// First of the five UDP ports that the lanes' connections come from, for rules that tell them apart; any ports where
    /// nothing is said.
    pub lane_ports: Option<LanePorts>,
}

/// Policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// What was pinned at enrolment: the ledger, the patients' keys and devices (`caregatectl wallet enrol` writes it).
    pub enrolment: PathBuf,
    /// Who delivers bundles; leave it out where the local door alone does.
    pub controller: Option<ControllerEntry>,
}

/// The controller that delivers policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerEntry {
    /// Its UDP address.
    pub address: SocketAddr,
    /// The name that its certificate must carry; any name of role `controller` where none is given.
    pub name: Option<String>,
}

/// The controller of the network (OpenFlow 1.3.5 over TLS).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchEntry {
    /// Its TCP address; OpenFlow's port is 6653.
    pub address: SocketAddr,
    /// The name that its certificate must carry; any name of role `controller` where none is given.
    pub name: Option<String>,
    /// By which it knows this gateway, as its own configuration has it.
    pub datapath_id: DatapathId,
}

/// 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatapathId(pub u64);

impl TryFrom<String> for DatapathId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = if is_hex { u64::from_str_radix(&text, 16).ok() } else { None };
        number.map(Self).ok_or("a datapath id has 16 hexadecimal digits")
    }
}

/// The embedded MQTT server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttEntry {
    /// TCP address without TLS, for sensors that can't; leave it out where there are none.
    pub listen: Option<String>,
    /// TCP address with TLS 1.2 or 1.3; client certificates of role `sensor`, or user name and password.
    pub listen_tls: Option<String>,
    /// TCP address of MQTT over WebSocket, without TLS.
    pub listen_websocket: Option<String>,
    /// TCP address of MQTT over WebSocket with TLS, as `listen_tls`.
    pub listen_websocket_tls: Option<String>,
    /// Who may log in with a password.
    #[serde(default, rename = "credential")]
    pub credentials: Vec<Credential>,
    /// Who may read more than its own topics.
    #[serde(default, rename = "reader")]
    pub readers: Vec<Reader>,
    /// Longest keep-alive in seconds that a client of MQTT 5.0 gets, 0 for any; 600 where nothing is said.
    pub keep_alive_s_max: Option<u16>,
    /// Connections at once; 64 where nothing is said.
    pub connections_max: Option<usize>,
    /// PUBLISHes a second of one connection, as a long-run mean; 5,000 where nothing is said. A hub for a ward may need more.
    pub publishes_per_s: Option<NonZeroU32>,
    /// How long in milliseconds a connection is not read while a waveform chunk has no place, since more comes in than is committed; then it is
    /// refused. Activity half as long, vitals twice, an alarm never. 3,000 where nothing is said.
    pub overload_after_ms: Option<u32>,
}

/// A broker that the home already has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerEntry {
    /// Host name or address.
    pub host: String,
    /// TLS towards it; without where nothing is said.
    pub tls: Option<TlsEntry>,
    /// TCP port; 1883 where nothing is said.
    #[serde(default = "mqtt_port")]
    pub port: u16,
    /// Our client id there.
    pub client_id: String,
    /// User name, where the broker wants one.
    pub username: Option<String>,
    /// File with the password (mode 0600).
    pub password_file: Option<PathBuf>,
    /// Devices whose topics are taken from this broker.
    pub devices: Vec<DeviceId>,
}

fn mqtt_port() -> u16 {
    1883
}

/// The spool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolEntry {
    /// Bytes on disk in all.
    pub bytes_max: u64,
    /// Milliseconds to gather after the first PUBLISH of a group commit: more means fewer syncs, and later PUBACKs.
    pub linger_ms: u64,
    /// Seconds after which what the core has not acknowledged is let go, and told as a gap; at least 60. Nothing is let go where nothing is said.
    pub age_limit_s: Option<AgeLimit>,
}

impl Default for SpoolEntry {
    fn default() -> Self {
        // 1 GiB holds some days of one patient's waveforms and fits a router's flash. What comes while a sync is under way is gathered
        // anyway, so a slow disk has large groups without a linger, and a fast one no need of them (ADR 23).
        Self { bytes_max: 1 << 30, linger_ms: 0, age_limit_s: None }
    }
}

/// Seconds, not fewer than [`AGE_LIMIT_MIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct AgeLimit(pub Duration);

impl TryFrom<u32> for AgeLimit {
    type Error = String;

    fn try_from(seconds: u32) -> Result<Self, String> {
        let limit = Duration::from_secs(seconds.into());
        let min = AGE_LIMIT_MIN;
        (limit >= min)
            .then_some(Self(limit))
            .ok_or_else(|| format!("an age limit has {} s at least", min.as_secs()))
    }
}

/// The packet filter: `datapath = "off"`, or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatapathEntry {
    /// None: frames reach the MQTT port unfiltered.
    Off,
    /// In the kernel, by way of the helper at this Unix socket.
    Helper(PathBuf),
}

impl Default for DatapathEntry {
    /// A gateway without a filter is one that says so.
    fn default() -> Self {
        Self::Helper("/run/caregate/datapath.sock".into())
    }
}

/// As a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatapathTable {
    helper: PathBuf,
}

impl<'de> Deserialize<'de> for DatapathEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DatapathVisitor)
    }
}

struct DatapathVisitor;

impl<'de> Visitor<'de> for DatapathVisitor {
    type Value = DatapathEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"off\", or a table with `helper`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<DatapathEntry, E> {
        if text == "off" {
            Ok(DatapathEntry::Off)
        } else {
            Err(E::invalid_value(Unexpected::Str(text), &self))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DatapathEntry, A::Error> {
        let table = DatapathTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(DatapathEntry::Helper(table.helper))
    }
}
