//! Which ledger, through which node.

use std::path::Path;

use anyhow::Context as _;
use caregate_host::key_file;
use clap::Args;
use ledger_chain::{Chain, ChainConfig, Mined, RelayKey};
use ledger_client::verify::{Address, Domain};
use serde_json::{Value, json};

use crate::args::hex0x;
use crate::outcome::Failure;

/// The node through which the ledger is read and written.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The ledger node's JSON-RPC
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8545")]
    pub(crate) rpc: String,
    /// File with the key that signs transactions, where gas is not free; otherwise a fresh key for each
    #[arg(long, value_name = "FILE")]
    pub(crate) relay_key: Option<std::path::PathBuf>,
}

/// Which chain and contract.
#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// The chain's number (EIP-155)
    #[arg(long, value_name = "N")]
    pub(crate) chain_id: u64,
    /// The contract's address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) contract: Address,
}

impl LedgerArgs {
    pub(crate) fn domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, verifying_contract: self.contract }
    }

    pub(crate) async fn connect(&self) -> Result<Chain, Failure> {
        self.node.connect(&self.domain()).await
    }
}

impl NodeArgs {
    pub(crate) async fn connect(&self, domain: &Domain) -> Result<Chain, Failure> {
        let config = ChainConfig::new(&self.rpc, domain.chain_id, domain.verifying_contract);
        Ok(Chain::connect(config).await?)
    }

    pub(crate) fn relay(&self) -> Result<RelayKey, Failure> {
        Ok(match &self.relay_key {
            Some(path) => sender(path)?,
            None => RelayKey::random(),
        })
    }
}

/// A key that signs transactions, from its file.
pub(crate) fn sender(path: &Path) -> anyhow::Result<RelayKey> {
    let secret = key_file::read_hex::<32>(path)?;
    RelayKey::from_bytes(&secret).with_context(|| format!("{}: not a secp256k1 secret key", path.display()))
}

pub(crate) fn mined(mined: &Mined) -> Value {
    json!({ "transaction": hex0x(&mined.transaction), "block": mined.block, "gas": mined.gas })
}
