//! The configuration file of `sdn-controller`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use caregate_host::identity::IdentityFiles;
use caregate_host::log::LogFormat;
use caregate_protocol::openflow::session::Timing;
use ledger_chain::{ChainConfig, ConfigError as LedgerError};
use serde::Deserialize;
use thiserror::Error;

use crate::intent::{DatapathId, LANE_PORTS_DEFAULT};

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// TCP address for switches, or `systemd:N`. OpenFlow's port is 6653.
    pub listen: String,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`, or `systemd:N`; no login, so loopback or a management network.
    pub admin: String,
    /// Folder of the desired state.
    pub data: PathBuf,
    /// Certificate, key and CA of role `controller`.
    pub identity: IdentityFiles,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
    /// How long sessions wait.
    #[serde(default)]
    pub timing: TimingEntry,
    /// The switches that may come. Without any, every certificate of role `gateway` may, under any datapath id that no
    /// other name holds at the time.
    #[serde(default, rename = "switch")]
    pub switches: Vec<SwitchEntry>,
    /// The interface for operators; none without it.
    pub rest: Option<ListenEntry>,
    /// The page for operators, to be looked at only; none without it.
    pub dashboard: Option<ListenEntry>,
    /// Policy delivery to gateways; needs `ledger`.
    pub policy: Option<PolicyEntry>,
    /// The ledger that is followed.
    pub ledger: Option<ChainConfig>,
    /// How lanes are told apart.
    #[serde(default)]
    pub lanes: LanesEntry,
}

/// One more listener.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenEntry {
    /// TCP address, or `systemd:N`.
    pub listen: String,
}

/// Where gateways come for policy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// UDP address (QUIC), or `systemd:N`.
    pub listen: String,
}

/// How lanes are told apart: by UDP source port.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LanesEntry {
    /// That of alarms, the gateways' `core.lane_ports`; the other lanes follow.
    pub ports: u16,
}

impl Default for LanesEntry {
    fn default() -> Self {
        Self { ports: LANE_PORTS_DEFAULT }
    }
}

/// How long sessions wait, in seconds from 1 to 3600.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimingEntry {
    /// For the whole OpenFlow handshake.
    pub handshake_s: u64,
    /// Between an echo's reply and the next echo.
    pub echo_interval_s: u64,
    /// For an echo's reply.
    pub echo_timeout_s: u64,
}

impl Default for TimingEntry {
    /// A switch that is gone shows within ten seconds; Open vSwitch's own probe is every five.
    fn default() -> Self {
        Self { handshake_s: 10, echo_interval_s: 5, echo_timeout_s: 5 }
    }
}

/// A switch that may come.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchEntry {
    /// The name in its certificate.
    pub name: String,
    /// The only datapath id that it may have: 16 hexadecimal digits.
    pub datapath_id: String,
    /// The table that is the controller's: 1 on a gateway, whose table 0 is made of verified policy, 0 on other switches. By
    /// default 1 for a switch that has eight tables, or two, as gateways do.
    pub table: Option<u8>,
}

/// What the configuration says of one switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The name in its certificate.
    pub name: String,
    /// The controller's table, where it is said.
    pub table: Option<u8>,
}

/// By datapath id; `None` where nothing is configured.
pub type Bindings = Option<HashMap<u64, Binding>>;

/// A value that has the right shape but no meaning.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// A time out of its range.
    #[error("`timing.{key}` is {value}, allowed are 1 to 3600 seconds")]
    Timing {
        /// Which one.
        key: &'static str,
        /// Its value.
        value: u64,
    },
    /// No datapath id.
    #[error("switch `{name}`: `datapath_id` must be 16 hexadecimal digits")]
    DatapathId {
        /// Which switch.
        name: String,
    },
    /// Another table than 0 and 1.
    #[error("switch `{name}`: `table` must be 0 (a switch) or 1 (a gateway)")]
    Table {
        /// Which switch.
        name: String,
    },
    /// The page has no login.
    #[error("`dashboard.listen` must be on loopback or systemd:N, because the page has no login")]
    Dashboard,
    /// Where would bundles come from.
    #[error("`policy` needs `ledger`")]
    Ledger,
    /// The ledger's own keys.
    #[error("`ledger`: {0}")]
    Chain(LedgerError),
    /// No room for the lanes behind it.
    #[error("`lanes.ports` is {0}, allowed are 1 to {LANE_PORTS_MAX}")]
    Lanes(u16),
    /// Two switches of one datapath id.
    #[error("switch `{name}`: `datapath_id` is that of another switch")]
    Twice {
        /// The second of them.
        name: String,
    },
}

/// Four more ports come behind the first.
const LANE_PORTS_MAX: u16 = u16::MAX - 4;

/// An hour: beyond it a timeout is no timeout.
const TIMING_S_MAX: u64 = 3600;

impl TryFrom<TimingEntry> for Timing {
    type Error = ValueError;

    fn try_from(entry: TimingEntry) -> Result<Self, ValueError> {
        let span = |key, value| match value {
            1..=TIMING_S_MAX => Ok(Duration::from_secs(value)),
            _ => Err(ValueError::Timing { key, value }),
        };
        Ok(Self {
            handshake: span("handshake_s", entry.handshake_s)?,
            echo_interval: span("echo_interval_s", entry.echo_interval_s)?,
            echo_timeout: span("echo_timeout_s", entry.echo_timeout_s)?,
        })
    }
}

/// Reads the list of switches.
///
/// # Errors
/// [`ValueError::DatapathId`], [`ValueError::Table`] and [`ValueError::Twice`].
pub fn bindings(entries: &[SwitchEntry]) -> Result<Bindings, ValueError> {
    let mut bindings = HashMap::new();
    for SwitchEntry { name, datapath_id, table } in entries {
        let wrong = |_source| ValueError::DatapathId { name: name.clone() };
        let DatapathId(id) = datapath_id.parse().map_err(wrong)?;
        if table.is_some_and(|table| table > 1) {
            return Err(ValueError::Table { name: name.clone() });
        }
        if bindings.insert(id, Binding { name: name.clone(), table: *table }).is_some() {
            return Err(ValueError::Twice { name: name.clone() });
        }
    }
    Ok((!bindings.is_empty()).then_some(bindings))
}

impl ConfigFile {
    /// Checks what concerns more than one key.
    ///
    /// # Errors
    /// [`ValueError::Dashboard`], [`ValueError::Ledger`] and [`ValueError::Lanes`].
    pub fn check(&self) -> Result<(), ValueError> {
        let is_local = |listen: &str| {
            listen.starts_with("systemd:")
                || listen.starts_with("fd:")
                || listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
        };
        if self.dashboard.as_ref().is_some_and(|dashboard| !is_local(&dashboard.listen)) {
            return Err(ValueError::Dashboard);
        }
        if self.policy.is_some() && self.ledger.is_none() {
            return Err(ValueError::Ledger);
        }
        let checked = |ledger: &ChainConfig| ledger.check().and_then(|()| ledger.gateway_salt().map(drop));
        if let Some(Err(error)) = self.ledger.as_ref().map(checked) {
            return Err(ValueError::Chain(error));
        }
        match self.lanes.ports {
            1..=LANE_PORTS_MAX => Ok(()),
            ports => Err(ValueError::Lanes(ports)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn entry(name: &str, datapath_id: &str) -> SwitchEntry {
        SwitchEntry { name: name.to_owned(), datapath_id: datapath_id.to_owned(), table: None }
    }

    #[test]
    fn the_example_is_whole() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/sdn-controller.toml");
        let file: ConfigFile = caregate_host::config::load(&path).unwrap();
        file.check().unwrap();
        assert!(file.rest.is_some() && file.policy.is_some() && file.dashboard.is_some());
        let bindings = bindings(&file.switches).unwrap().unwrap();
        let tables: Vec<_> = bindings.values().map(|binding| binding.table).collect();
        assert!(tables.len() == 2 && tables.contains(&Some(0)) && tables.contains(&None));
        Timing::try_from(file.timing).unwrap();
    }

    #[test]
    fn wrong_values_are_named() {
        let wrong = TimingEntry { echo_timeout_s: 0, ..TimingEntry::default() };
        let error = Timing::try_from(wrong).unwrap_err().to_string();
        assert!(error.contains("`timing.echo_timeout_s` is 0"), "{error}");
        assert!(Timing::try_from(TimingEntry { handshake_s: 3601, ..wrong }).is_err());
        for id in ["", "1", "00000000000000g1", "+000000000000001", "00000000000000001"] {
            assert_eq!(
                bindings(&[entry("a", id)]),
                Err(ValueError::DatapathId { name: "a".to_owned() }),
                "{id}"
            );
        }
        let twice = [entry("a", "00000000000000aa"), entry("b", "00000000000000AA")];
        assert_eq!(bindings(&twice), Err(ValueError::Twice { name: "b".to_owned() }));
        assert_eq!(bindings(&[]), Ok(None));
        let third = SwitchEntry { table: Some(2), ..entry("a", "00000000000000aa") };
        assert_eq!(bindings(&[third]), Err(ValueError::Table { name: "a".to_owned() }));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let checked = |more: &str| {
            let identity = "[identity]\ncertificate = 'a'\nkey = 'b'\nca = 'c'\n";
            let text = format!("listen = 'x'\nadmin = 'y'\ndata = 'z'\n{identity}{more}");
            toml::from_str::<ConfigFile>(&text).unwrap().check()
        };
        assert_eq!(checked(""), Ok(()));
        for listen in ["127.0.0.1:9204", "[::1]:9204", "systemd:2"] {
            assert_eq!(checked(&format!("[dashboard]\nlisten = '{listen}'")), Ok(()));
        }
        for listen in ["0.0.0.0:9204", "[::]:9204", "10.0.0.1:9204", "localhost:9204"] {
            assert_eq!(checked(&format!("[dashboard]\nlisten = '{listen}'")), Err(ValueError::Dashboard));
        }
        assert_eq!(checked("[policy]\nlisten = '[::]:7443'"), Err(ValueError::Ledger));
        let contract = "0x".to_owned() + &"c0".repeat(20);
        let ledger = format!("[ledger]\nrpc = 'http://n'\nchain_id = 1\ncontract = '{contract}'\n");
        assert_eq!(checked(&ledger), Err(ValueError::Chain(LedgerError::GatewaySalt)));
        assert_eq!(checked(&(ledger + "gateway_salt = 's'\n")), Ok(()));
        assert_eq!(checked("[lanes]\nports = 0"), Err(ValueError::Lanes(0)));
        assert_eq!(checked("[lanes]\nports = 65532"), Err(ValueError::Lanes(65532)));
    }
}
