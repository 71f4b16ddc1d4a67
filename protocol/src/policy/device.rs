//! Devices that a patient bound.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de::Error as _};
use thiserror::Error;

use super::classes::Classes;
use crate::id::{DeviceId, PatientId};

/// Not a MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a MAC address must be six bytes in hexadecimal with colons between")]
pub struct MacError;

/// A MAC address (IEEE 802, EUI-48). It selects; it authenticates nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether one station can have it: the group bit is clear, and it is not all zeroes.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    /// Lower-case hexadecimal with colons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(s: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(MacError)?;
            hex::decode_to_slice(part, std::slice::from_mut(byte)).map_err(|_source| MacError)?;
        }
        if parts.next().is_some() { Err(MacError) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// A device whose binding counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundDevice {
    /// Its id.
    pub device: DeviceId,
    /// Who wears it.
    pub patient: PatientId,
    /// Of which class its readings are, where the patient says another than the code table.
    pub classes: Classes,
    /// Its address on the sensor network, and its number in the enrolment file; neither where policy comes from a file.
    pub station: Option<Station>,
}

/// Where a bound device is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station {
    /// Its address.
    pub mac: Mac,
    /// Its number in the order of the enrolment file, from 0.
    pub index: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_as_they_are_written() {
        let mac: Mac = "02:00:5e:00:53:0a".parse().unwrap();
        assert_eq!((mac, mac.to_string().as_str()), (Mac([2, 0, 0x5e, 0, 0x53, 10]), "02:00:5e:00:53:0a"));
        for text in [
            "",
            "02:00:5e:00:53",
            "02:00:5e:00:53:0a:01",
            "2:00:5e:00:53:0a",
            "02-00-5e-00-53-0a",
            "xx:00:5e:00:53:0a",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(MacError), "{text}");
        }
        assert!(mac.is_unicast());
        assert!(
            !Mac([1, 0, 0x5e, 0, 0, 1]).is_unicast()
                && !Mac([0; 6]).is_unicast()
                && !Mac([0xff; 6]).is_unicast()
        );
    }
}
