//! `caregatectl device`: relays what a patient signed about a device. The key is the wallet's.

use std::path::{Path, PathBuf};

use caregate_host::key_file::{self, Existing};
use caregate_protocol::policy::{Commitment, EcdsaSignature, SignedBinding};
use clap::{Args, Subcommand};
use ledger_client::verify::{Address, Domain, binding_digest, signer, slots};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::hex0x;
use crate::files::read_json;
use crate::ledger::{NodeArgs, mined};
use crate::outcome::{Done, Failure, Outcome};

/// Largest file with a signed binding: it has some 500 bytes.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// Relay what a patient signed about a device (`wallet bind --out FILE`) to the ledger.
///
/// The file says nothing about device or patient; the gateway learns the device with `wallet enrol`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bind the device
    Bind(RelayArgs),
    /// Release the device
    Unbind(RelayArgs),
}

#[derive(Debug, Args)]
struct RelayArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The file that the patient signed
    #[arg(value_name = "FILE")]
    binding: PathBuf,
}

/// A signed binding on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingFile {
    chain_id: u64,
    contract: Address,
    home_key: Address,
    commitment: Commitment,
    bound: bool,
    version: u64,
    signature: EcdsaSignature,
}

impl BindingFile {
    pub(crate) fn new(domain: &Domain, home_key: Address, signed: &SignedBinding) -> Self {
        let SignedBinding { commitment, bound, version, signature } = signed.clone();
        Self {
            chain_id: domain.chain_id,
            contract: domain.verifying_contract,
            home_key,
            commitment,
            bound,
            version,
            signature,
        }
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        Ok(key_file::write(path, &text, Existing::Keep)?)
    }
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::Bind(arguments) => relay(&arguments, true).await,
        Command::Unbind(arguments) => relay(&arguments, false).await,
    }
}

async fn relay(arguments: &RelayArgs, bound: bool) -> Outcome {
    let file = read_json::<BindingFile>(&arguments.binding, FILE_BYTES_MAX)?;
    let named = arguments.binding.display();
    let BindingFile { chain_id, contract, home_key, commitment, version, signature, .. } = file;
    if file.bound != bound {
        let signed = if file.bound { "bound" } else { "released" };
        return Err(anyhow::anyhow!("{named}: the patient signed that the device is {signed}").into());
    }
    let domain = Domain { chain_id, verifying_contract: contract };
    if signer(&binding_digest(&commitment, bound, version, &domain), &signature) != Ok(home_key) {
        let text = format!("{named}: its signature is not of its home key");
        return Err(Failure::Faulty { text, object: json!({ "fault": "signature" }) });
    }
    let chain = arguments.node.connect(&domain).await?;
    let signed = SignedBinding { commitment, bound, version, signature };
    let sent = chain.bind_device(&signed, &arguments.node.relay()?).await?;
    let key = slots::binding_key(&home_key, &commitment);
    let (known, stands) = chain.binding(&key).await?;
    let what = if stands { "bound" } else { "released" };
    Ok(Done::new(
        format!("binding {} is {what} (version {known}, block {})", hex0x(&key.0), sent.block),
        json!({ "binding": hex0x(&key.0), "bound": stands, "version": known, "ledger": mined(&sent) }),
    ))
}
