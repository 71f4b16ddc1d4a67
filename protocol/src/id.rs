//! Identifiers, each a type of its own so that none can stand in for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de::Error as _};
use thiserror::Error;

/// Longest device or stream name, in bytes. MAC addresses, UUIDs and human names fit; it bounds every table keyed by one.
pub const NAME_BYTES_MAX: usize = 64;

/// Why an identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Empty, or longer than [`NAME_BYTES_MAX`].
    #[error("{what} has {len} bytes, allowed are 1 to {NAME_BYTES_MAX}")]
    Length {
        /// Which identifier.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A character outside `A-Z a-z 0-9 . _ : -`.
    #[error("{what} has a character outside A-Z a-z 0-9 . _ : - at byte {at}")]
    Character {
        /// Which identifier.
        what: &'static str,
        /// Offset of the first such byte.
        at: usize,
    },
    /// Not the hexadecimal text of a fixed number of bytes.
    #[error("{what} must be {bytes} bytes in hexadecimal")]
    Hex {
        /// Which identifier.
        what: &'static str,
        /// How many bytes it has.
        bytes: usize,
    },
}

fn check_name(what: &'static str, name: &str) -> Result<(), IdError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(IdError::Length { what, len: name.len() });
    }
    match name.bytes().position(|b| !(b.is_ascii_alphanumeric() || b"._:-".contains(&b))) {
        Some(at) => Err(IdError::Character { what, at }),
        None => Ok(()),
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes a name of 1 to [`NAME_BYTES_MAX`] bytes out of `A-Z a-z 0-9 . _ : -`.
            pub fn new(name: &str) -> Result<Self, IdError> {
                check_name($what, name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::new(s)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(d)?).map_err(D::Error::custom)
            }
        }
    };
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Takes hexadecimal text, with or without `0x`.
            fn from_str(s: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(s.strip_prefix("0x").unwrap_or(s), &mut bytes)
                    .map_err(|_source| IdError::Hex { what: $what, bytes: $len })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

name_id!(
    /// A body sensor or hub, as it names itself in its MQTT topics (`vitals/v1/{device}/…`).
    DeviceId,
    "device"
);
name_id!(
    /// One series of readings of a device: a metric, a waveform channel or an event type.
    StreamName,
    "stream"
);
bytes_id!(
    /// A patient's pseudonym: 16 random bytes, no name and no index.
    PatientId,
    16,
    "patient"
);
bytes_id!(
    /// Who may open: a hospital domain, by its ledger address (20 bytes, as in Ethereum).
    RecipientId,
    20,
    "recipient"
);
bytes_id!(
    /// A gateway's device key, by the first 8 bytes of SHA-256 over its Ed25519 public key.
    SignerId,
    8,
    "signer"
);

/// What consent distinguishes. The number is on the wire and in the ledger's class mask (bit `1 << number`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum DataClass {
    /// Events that call for somebody: falls, buttons, leads off.
    Alarm = 0,
    /// Numerics of vital signs.
    Vitals = 1,
    /// Sampled signals.
    Waveform = 2,
    /// Steps and movement.
    Activity = 3,
    /// What a patient may want to share with fewer people: weight, glucose.
    Sensitive = 4,
}

impl DataClass {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Alarm, Self::Vitals, Self::Waveform, Self::Activity, Self::Sensitive];

    /// The class with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u8 == number)
    }

    /// The class with this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// The lane in which its records go up.
    #[must_use]
    pub fn lane(self) -> Lane {
        match self {
            Self::Alarm => Lane::Alarm,
            Self::Vitals | Self::Sensitive => Lane::Vitals,
            Self::Waveform => Lane::Waveform,
            Self::Activity => Lane::Activity,
        }
    }

    /// Its lower-case name, for labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Vitals => "vitals",
            Self::Waveform => "waveform",
            Self::Activity => "activity",
            Self::Sensitive => "sensitive",
        }
    }
}

/// The uplink's priorities, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// Before all else.
    Alarm = 0,
    /// Numerics.
    Vitals = 1,
    /// Sampled signals.
    Waveform = 2,
    /// What can wait.
    Activity = 3,
}

impl Lane {
    /// All of them, highest priority first.
    pub const ALL: [Self; 4] = [Self::Alarm, Self::Vitals, Self::Waveform, Self::Activity];

    /// The lane with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| *lane as u8 == number)
    }

    /// Its lower-case name, for labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Vitals => "vitals",
            Self::Waveform => "waveform",
            Self::Activity => "activity",
        }
    }
}
