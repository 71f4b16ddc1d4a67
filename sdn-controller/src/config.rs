//! The configuration file of `sdn-controller`.

use std::collections::HashMap;
use std::time::Duration;

use caregate_host::identity::IdentityFiles;
use caregate_host::log::LogFormat;
use caregate_protocol::openflow::session::Timing;
use serde::Deserialize;
use thiserror::Error;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// TCP address for switches, or `systemd:N`. OpenFlow's port is 6653.
    pub listen: String,
    /// TCP address of `/switches`, `/metrics`, `/healthz` and `/readyz`, or `systemd:N`; no login, so loopback or a
    /// management network.
    pub admin: String,
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
}

/// Which datapath id belongs to which name; `None` where nothing is configured.
pub type Bindings = Option<HashMap<u64, String>>;

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
    /// Two switches of one datapath id.
    #[error("switch `{name}`: `datapath_id` is that of another switch")]
    Twice {
        /// The second of them.
        name: String,
    },
}

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
/// [`ValueError::DatapathId`] and [`ValueError::Twice`].
pub fn bindings(entries: &[SwitchEntry]) -> Result<Bindings, ValueError> {
    let mut bindings = HashMap::new();
    for SwitchEntry { name, datapath_id } in entries {
        let is_hex = datapath_id.len() == 16 && datapath_id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let wrong = || ValueError::DatapathId { name: name.clone() };
        let id = if is_hex { u64::from_str_radix(datapath_id, 16).ok() } else { None }.ok_or_else(wrong)?;
        if bindings.insert(id, name.clone()).is_some() {
            return Err(ValueError::Twice { name: name.clone() });
        }
    }
    Ok((!bindings.is_empty()).then_some(bindings))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn entry(name: &str, datapath_id: &str) -> SwitchEntry {
        SwitchEntry { name: name.to_owned(), datapath_id: datapath_id.to_owned() }
    }

    #[test]
    fn the_example_is_whole() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/sdn-controller.toml");
        let file: ConfigFile = caregate_host::config::load(&path).unwrap();
        assert_eq!(bindings(&file.switches).unwrap().unwrap().len(), 2);
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
    }
}
