//! An Ethernet address.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de::Error as _};
use thiserror::Error;

/// An Ethernet address (EUI-48).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// Text that is no Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an Ethernet address is six bytes in hexadecimal with colons between them, as in 02:00:00:00:00:01")]
pub struct MacError;

impl Mac {
    /// True where the sender chose it (the universal/local bit is set): no vendor can be told from it, and phones draw a
    /// new one for each network.
    #[must_use]
    pub fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }

    /// True where it can be a sender's: neither a group's nor zero.
    #[must_use]
    pub fn is_station(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(MacError)?;
            let digits = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or(MacError)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_it_is_written() {
        let mac = Mac([0x02, 0, 0xab, 0, 0, 0x01]);
        assert_eq!(mac.to_string(), "02:00:ab:00:00:01");
        assert_eq!("02:00:AB:00:00:01".parse(), Ok(mac));
        for text in ["", "02:00:ab:00:00", "02:00:ab:00:00:01:02", "2:0:ab:0:0:1", "02:00:ab:00:00:+1"] {
            assert_eq!(text.parse::<Mac>(), Err(MacError), "{text}");
        }
    }

    #[test]
    fn bits_of_the_first_byte() {
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_local() && !Mac([0, 0, 0, 0, 0, 1]).is_local());
        assert!(!Mac([1, 0, 0, 0, 0, 1]).is_station() && !Mac([0; 6]).is_station());
    }
}
