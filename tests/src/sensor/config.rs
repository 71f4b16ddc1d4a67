//! `sensors.toml`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use caregate_host::config::{self, ConfigError};
use caregate_protocol::id::DeviceId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most devices in one simulator: each has a connection and two tasks, and two cores carry about this many ECGs.
pub const DEVICES_MAX: usize = 200;
/// Shortest and longest waveform chunk, in milliseconds, that sensors of this kind send.
pub const CHUNK_MS: std::ops::RangeInclusive<u32> = 100..=250;
/// How long the end waits for outstanding PUBACKs: a gateway's restart and its backlog fit well.
pub const DRAIN_S_DEFAULT: f64 = 120.0;
/// Longest run or drain, in seconds: a week.
const SECONDS_MAX: f64 = 604_800.0;
/// Fastest replay: at that pace the simulator, not the gateway, is what limits.
const SPEED_MAX: f64 = 1000.0;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `HOST:PORT` of the MQTT door.
    pub broker: String,
    /// From which generators take their randomness.
    #[serde(default = "one")]
    pub seed: u64,
    /// 1 is real time. Faster runs keep the signals' own time, so their stamps run ahead of the clock.
    #[serde(default = "real_time")]
    pub speed: f64,
    /// Stops after this many seconds by the clock.
    pub seconds: Option<f64>,
    /// Longest wait for outstanding PUBACKs at the end, in seconds.
    #[serde(default = "drain_s_default")]
    pub drain_s: f64,
    /// The sensors.
    #[serde(rename = "device")]
    pub devices: Vec<DeviceConfig>,
}

fn one() -> u64 {
    1
}

fn real_time() -> f64 {
    1.0
}

fn drain_s_default() -> f64 {
    DRAIN_S_DEFAULT
}

/// One sensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// Its name in topics, and its MQTT client id.
    pub id: DeviceId,
    /// MQTT user name.
    pub username: String,
    /// MQTT password.
    pub password: String,
    /// What it measures.
    pub source: SourceConfig,
    /// Length of a waveform chunk in milliseconds.
    #[serde(default = "chunk_ms_default")]
    pub chunk_ms: u32,
    /// How numerics are written.
    #[serde(default)]
    pub payload: PayloadFormat,
    /// Its own seed; devices with the same seed are on the same patient.
    pub seed: Option<u64>,
    /// Network interface that it connects through, where each sensor has one of its own.
    pub interface: Option<String>,
}

fn chunk_ms_default() -> u32 {
    200
}

/// What a device measures.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"ecg\", \"numerics\" or { record = \"PATH\", signals = [\"NAME\", …], from_s = 0, repeat = false }"
)]
pub enum SourceConfig {
    /// A generator.
    Generator(Generator),
    /// A WFDB record.
    Record(RecordConfig),
}

/// The built-in generators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generator {
    /// [`crate::ecg`] on channel `ecg-ii`.
    Ecg,
    /// [`crate::numerics`].
    Numerics,
}

/// A record to replay.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordConfig {
    /// Path of the header, with or without `.hea`; relative to the configuration file.
    pub record: PathBuf,
    /// Names as in the header; all that have a channel or metric by default.
    #[serde(default)]
    pub signals: Vec<String>,
    /// Where to begin, in seconds of the record.
    #[serde(default)]
    pub from_s: f64,
    /// Whether it begins anew where it ends, in the same order and with sequence numbers that go on.
    #[serde(default)]
    pub repeat: bool,
}

/// How numerics are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PayloadFormat {
    /// `{"v":…,"u":…,"t":…,"seq":…,"q":…}`.
    #[default]
    Json,
    /// SenML JSON (RFC 8428 §5).
    SenmlJson,
    /// SenML CBOR (RFC 8428 §6).
    SenmlCbor,
}

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum SensorConfigError {
    /// Unreadable or not of this form.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A value that can't be.
    #[error("{path}: `{key}`: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

impl Config {
    /// Reads and checks `sensors.toml`; record paths become relative to its folder.
    pub fn load(path: &Path) -> Result<Self, SensorConfigError> {
        let mut config: Self = config::load(path)?;
        config.check().map_err(|(key, problem)| SensorConfigError::Value {
            path: path.to_owned(),
            key,
            problem,
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        for device in &mut config.devices {
            if let SourceConfig::Record(record) = &mut device.source {
                record.record = folder.join(&record.record);
            }
        }
        Ok(config)
    }

    /// The seed of a device.
    #[must_use]
    pub fn seed_of(&self, device: &DeviceConfig) -> u64 {
        device.seed.unwrap_or(self.seed)
    }

    /// Host and port of the broker.
    #[must_use]
    pub fn broker_address(&self) -> Option<(&str, u16)> {
        let (host, port) = self.broker.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then_some((host, port.parse().ok()?))
    }

    fn check(&self) -> Result<(), (String, String)> {
        let refuse = |key: &str, problem: String| Err((key.to_owned(), problem));
        if self.broker_address().is_none() {
            return refuse("broker", format!("'{}' is not HOST:PORT", self.broker));
        }
        if !(self.speed > 0.0 && self.speed <= SPEED_MAX) {
            return refuse("speed", format!("{} is not above 0 and at most {SPEED_MAX}", self.speed));
        }
        let span = |seconds: f64| (0.0..=SECONDS_MAX).contains(&seconds);
        if !self.seconds.is_none_or(span) {
            return refuse("seconds", format!("not within 0 to {SECONDS_MAX}"));
        }
        if !span(self.drain_s) {
            return refuse("drain_s", format!("not within 0 to {SECONDS_MAX}"));
        }
        if self.devices.is_empty() || self.devices.len() > DEVICES_MAX {
            return refuse(
                "device",
                format!("{} of them, allowed are 1 to {DEVICES_MAX}", self.devices.len()),
            );
        }
        let mut seen = HashSet::new();
        for (at, device) in self.devices.iter().enumerate() {
            if !seen.insert(&device.id) {
                return refuse(&format!("device[{at}].id"), format!("{} is there twice", device.id));
            }
            if !CHUNK_MS.contains(&device.chunk_ms) {
                let problem = format!(
                    "{} ms is not within {} to {}",
                    device.chunk_ms,
                    CHUNK_MS.start(),
                    CHUNK_MS.end()
                );
                return refuse(&format!("device[{at}].chunk_ms"), problem);
            }
            if let SourceConfig::Record(record) = &device.source
                && !span(record.from_s)
            {
                return refuse(
                    &format!("device[{at}].source.from_s"),
                    format!("not within 0 to {SECONDS_MAX}"),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "[[device]]\nid='d'\nusername='u'\npassword='p'\n";

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sensors.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_full_file_loads() {
        let text = format!(
            "broker='127.0.0.1:1883'\nseed=5\nspeed=2\nseconds=3\n{DEVICE}source='ecg'\nseed=6\n[[device]]\nid='e'\nusername='u'\npassword='p'\npayload='senml-cbor'\nchunk_ms=100\nsource={{record='/r/100',signals=['MLII'],from_s=2}}\n"
        );
        let config = load(&text).unwrap();
        assert_eq!(config.broker_address(), Some(("127.0.0.1", 1883)));
        assert_eq!(config.seed_of(&config.devices[0]), 6);
        assert_eq!(config.seed_of(&config.devices[1]), 5);
        let SourceConfig::Record(record) = &config.devices[1].source else { panic!("no record") };
        assert_eq!((record.record.as_path(), record.from_s), (Path::new("/r/100"), 2.0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| load(text).unwrap_err();
        let with = |head: &str, tail: &str| error(&format!("{head}\n{DEVICE}{tail}"));
        assert!(with("broker='x'", "source='ecg'").contains("`broker`: 'x' is not HOST:PORT"));
        assert!(with("broker='h:1'\nspeed=0", "source='ecg'").contains("`speed`"));
        assert!(with("broker='h:1'", "source='ecgs'").contains("expected \"ecg\""));
        assert!(with("broker='h:1'", "source='ecg'\nchunk_ms=99").contains("`device[0].chunk_ms`: 99 ms"));
        assert!(
            with("broker='h:1'", &format!("source='ecg'\n{DEVICE}source='ecg'")).contains("d is there twice")
        );
        assert!(with("broker='h:1'", "source='ecg'\nchunks=1").contains("unknown field"));
    }
}
