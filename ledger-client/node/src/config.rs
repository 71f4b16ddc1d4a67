//! The configuration file of `ledger-node`.

use std::path::PathBuf;

use alloy_primitives::Address;
use caregate_host::log::LogFormat;
use serde::Deserialize;

use crate::chain::Wanted;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// TCP address of JSON-RPC, or `systemd:N`.
    pub listen: String,
    /// TCP address of `/metrics`, `/healthz` and `/readyz`, or `systemd:N`.
    pub admin: String,
    /// Folder of the chain, and of `deployment.json`.
    pub data: PathBuf,
    /// File of the sealing key: 32 bytes in hexadecimal, mode 0600. Made with the chain where there is none.
    pub sealing_key: PathBuf,
    /// EIP-155. Every chain needs its own: a signature for one would count on the other.
    pub chain_id: u64,
    /// The address that says who takes part.
    pub registrar: Address,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
}

impl ConfigFile {
    /// What the chain has to be.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted { chain_id: self.chain_id, registrar: self.registrar }
    }
}
