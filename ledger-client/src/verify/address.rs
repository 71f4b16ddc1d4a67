//! Ledger addresses of patients' keys and of contracts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de::Error as _};
use thiserror::Error;

/// Not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("address must be 20 bytes in hexadecimal")]
pub struct AddressError;

/// The last 20 bytes of Keccak-256 over a secp256k1 public key, or a contract's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u8; 20]);

impl fmt::Display for Address {
    /// Lower-case hexadecimal with `0x`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Takes hexadecimal text of either case, with or without `0x`. EIP-55 capitals are not checked.
    fn from_str(s: &str) -> Result<Self, AddressError> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(s.strip_prefix("0x").unwrap_or(s), &mut bytes)
            .map_err(|_source| AddressError)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}
