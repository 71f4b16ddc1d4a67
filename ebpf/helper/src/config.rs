//! The configuration file of `caregate-datapathd`.

use std::path::PathBuf;

use caregate_host::log::LogFormat;
use caregate_protocol::datapath::{NAME_BYTES_MAX, PORTS_MAX};
use serde::Deserialize;
use thiserror::Error;

/// The file as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Path of the Unix socket, or `systemd:N`.
    pub socket: String,
    /// Who may connect: the daemon's user, by name or number.
    pub user: String,
    /// Interfaces towards sensors; ports 1 and on.
    pub sensor_ports: Vec<String>,
    /// Interfaces towards core and controller; the ports behind them.
    #[serde(default)]
    pub uplinks: Vec<String>,
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
    /// Nothing to filter.
    #[error("`sensor_ports` names no interface")]
    NoSensorPort,
    /// More than [`PORTS_MAX`].
    #[error("`sensor_ports` and `uplinks` name {0} interfaces, allowed are {PORTS_MAX}")]
    TooMany(usize),
    /// No interface can have this name.
    #[error("`{0}` can be no interface's name")]
    Name(String),
    /// One interface, two ports.
    #[error("interface `{0}` is named twice")]
    Twice(String),
}

impl ConfigFile {
    /// Whether the interfaces can be ports.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.sensor_ports.is_empty() {
            return Err(ConfigError::NoSensorPort);
        }
        let names: Vec<&String> = self.sensor_ports.iter().chain(&self.uplinks).collect();
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
        assert_eq!(check("sensor_ports = ['eth1', 'wlan0.2']\nuplinks = ['eth0']"), Ok(()));
        assert_eq!(check("sensor_ports = []"), Err(ConfigError::NoSensorPort));
        assert_eq!(check("sensor_ports = ['a']\nuplinks = ['a']"), Err(ConfigError::Twice("a".into())));
        for name in ["", "a b", "a/b", "sixteen-bytes-ab"] {
            let wrong = check(&format!("sensor_ports = ['{name}']"));
            assert_eq!(wrong, Err(ConfigError::Name(name.into())));
        }
        let many: Vec<String> = (0..17).map(|n| format!("'e{n}'")).collect();
        assert_eq!(check(&format!("sensor_ports = [{}]", many.join(","))), Err(ConfigError::TooMany(17)));
    }
}
