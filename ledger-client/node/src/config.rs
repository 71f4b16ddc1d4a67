//! The configuration file of `ledger-node`.

use std::path::PathBuf;

use alloy_primitives::Address;
use caregate_host::log::LogFormat;
use serde::Deserialize;

use crate::chain::Wanted;
use crate::contract::Council;

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
    /// Addresses that say who takes part: 1 to 16.
    pub governors: Vec<Address>,
    /// How many of them it takes.
    pub threshold: u8,
    /// Seconds that a change waits which widens; 30 days at most.
    pub delay_s: u64,
    /// `text` (default) or `json`.
    #[serde(default)]
    pub log: LogFormat,
}

impl ConfigFile {
    /// What the chain has to be.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            chain_id: self.chain_id,
            council: Council {
                governors: self.governors.clone(),
                threshold: self.threshold,
                delay_s: self.delay_s,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EXAMPLE: &str = include_str!("../../../deploy/examples/ledger-node.toml");

    fn parse(text: &str) -> Result<ConfigFile, String> {
        caregate_host::config::parse(Path::new("node.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_is_one() {
        let file = parse(EXAMPLE).unwrap();
        assert_eq!((file.chain_id, file.listen.as_str()), (4711, "127.0.0.1:8545"));
        assert_eq!(file.wanted().council.threshold, 2);
        assert!(file.sealing_key.starts_with(&file.data), "the unit may write there and nowhere else");
    }

    #[test]
    fn a_wrong_file_is_one_sentence_with_the_place() {
        let governor = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
        let error = parse(&EXAMPLE.replace(governor, "0x7099")).unwrap_err();
        assert!(error.starts_with("node.toml:") && error.contains("`governors"), "{error}");
        let error = parse(&EXAMPLE.replace("chain_id", "chain")).unwrap_err();
        assert!(error.contains("unknown field `chain`"), "{error}");
        let error = parse(&EXAMPLE.replace("4711", "-1")).unwrap_err();
        assert!(error.contains("`chain_id`"), "{error}");
    }
}
