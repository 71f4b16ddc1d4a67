//! The configuration file of `caregate-datapathd`.

use std::path::PathBuf;

use caregate_host::log::LogFormat;
use caregate_protocol::datapath::{NAME_BYTES_MAX, PORTS_MAX};
use serde::Deserialize;
use thiserror::Error;

use crate::GUARDED;

/// The file as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Path of the Unix socket, or `systemd:N`.
    pub socket: String,
    /// Who may connect: the daemon's user, by name or number.
    pub user: String,
    /// Interfaces towards sensors; ports 1 and on.
    #[serde(default)]
    pub sensor_ports: Vec<String>,
    /// Interfaces towards core and controller; the ports behind them.
    #[serde(default)]
    pub uplinks: Vec<String>,
    /// Ports of the OpenFlow switch; the ports behind them.
    #[serde(default)]
    pub switch_ports: Vec<String>,
    /// Folder of the pins, on a BPF file system.
    #[serde(default = "pin")]
    pub pin: PathBuf,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`, or `systemd:N`.
    pub admin: String,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
}

fn pin() -> PathBuf {
    "/sys/fs/bpf/caregate".into()
}

/// A value that has the right shape but no meaning.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Nothing to filter, nothing to switch.
    #[error("`sensor_ports` and `switch_ports` name no interface")]
    NoPort,
    /// A build for conformance suites keeps nothing from the controller.
    #[error(
        "this build has no guard (cargo feature `conformance`): it takes no `sensor_ports` and no `uplinks`"
    )]
    NoGuard,
    /// More than [`PORTS_MAX`].
    #[error("`sensor_ports`, `uplinks` and `switch_ports` name {0} interfaces, allowed are {PORTS_MAX}")]
    TooMany(usize),
    /// No interface can have this name.
    #[error("`{0}` can be no interface's name")]
    Name(String),
    /// One interface, two ports.
    #[error("interface `{0}` is named twice")]
    Twice(String),
}

impl ConfigFile {
    /// All interfaces, by their ports' numbers.
    pub fn interfaces(&self) -> impl Iterator<Item = &String> {
        self.sensor_ports.iter().chain(&self.uplinks).chain(&self.switch_ports)
    }

    /// Whether the interfaces can be ports.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let needs_guard = !self.sensor_ports.is_empty() || !self.uplinks.is_empty();
        if needs_guard && !GUARDED {
            return Err(ConfigError::NoGuard);
        }
        if self.sensor_ports.is_empty() && self.switch_ports.is_empty() {
            return Err(ConfigError::NoPort);
        }
        let names: Vec<&String> = self.interfaces().collect();
        if names.len() > PORTS_MAX {
            return Err(ConfigError::TooMany(names.len()));
        }
        for (at, name) in names.iter().enumerate() {
            let is_printable = name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte));
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_printable {
                return Err(ConfigError::Name((*name).clone()));
            }
            if names.iter().take(at).any(|other| other == name) {
                return Err(ConfigError::Twice((*name).clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn check(ports: &str) -> Result<(), ConfigError> {
        let text = format!("socket = 's'\nuser = '0'\nadmin = '127.0.0.1:0'\n{ports}\n");
        caregate_host::config::parse::<ConfigFile>(Path::new("datapathd.toml"), &text).unwrap().check()
    }

    #[test]
    fn ports_are_interfaces_each_named_once() {
        let guarded = |result| if GUARDED { result } else { Err(ConfigError::NoGuard) };
        assert_eq!(check("sensor_ports = ['eth1', 'wlan0.2']\nuplinks = ['eth0']"), guarded(Ok(())));
        assert_eq!(check("switch_ports = ['eth1', 'eth2']"), Ok(()));
        assert_eq!(check("sensor_ports = []\nswitch_ports = []"), Err(ConfigError::NoPort));
        assert_eq!(check("uplinks = ['eth0']"), guarded(Err(ConfigError::NoPort)));
        assert_eq!(check("switch_ports = ['a', 'b', 'a']"), Err(ConfigError::Twice("a".into())));
        for name in ["", "a b", "a/b", "sixteen-bytes-ab"] {
            let wrong = check(&format!("switch_ports = ['{name}']"));
            assert_eq!(wrong, Err(ConfigError::Name(name.into())));
        }
        let many: Vec<String> = (0..17).map(|n| format!("'e{n}'")).collect();
        assert_eq!(check(&format!("switch_ports = [{}]", many.join(","))), Err(ConfigError::TooMany(17)));
    }
}
