//! `caregatectl wallet`: the patient's.

mod bind;
mod classify;
mod consent;
mod enrol;
mod erase;
mod file;
mod list;
mod share;
mod show;
mod succession;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use caregate_host::key_file;
use caregate_protocol::id::RecipientId;
use clap::{Args, Subcommand};
use ledger_client::verify::{Address, Domain};
use ledger_client::wallet::keystore::Cost;
use ledger_client::wallet::{Ledger, PatientSeed, Wallet};
use serde_json::json;

use crate::args::{address, hex0x};
use crate::outcome::{Done, Outcome};
use file::{KeystoreArgs, Open};

/// A patient's keys: who may see what, and what is worn.
///
/// One seed, in an encrypted keystore; a key of its own for each recipient and each gateway. It belongs on the patient's own machine
/// or with a custodian whom the patient names, never on a gateway or with an operator.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a wallet: a new seed in a new keystore
    New(NewArgs),
    /// Say for which ledger the wallet signs
    Ledger {
        #[command(flatten)]
        keystore: KeystoreArgs,
        #[command(flatten)]
        ledger: PinArgs,
    },
    /// Begin a relationship with a recipient: two keys that are used for nobody else
    Relationship {
        #[command(flatten)]
        keystore: KeystoreArgs,
        /// The patient's name for the recipient; shown on the gateway's page, on no ledger
        #[arg(long)]
        label: String,
        /// The recipient's ledger address
        #[arg(long, value_name = "ADDRESS")]
        grantee: RecipientId,
    },
    /// Take another pseudonym for emergencies: print a new card, and enrol at each home again
    ///
    /// An emergency on the ledger shows the pseudonym that it was opened with; after one, the next should not be known for the same
    /// patient's. Gateways watch for the old one until the patient is enrolled there again.
    RenewPseudonym {
        #[command(flatten)]
        keystore: KeystoreArgs,
    },
    Enrol(enrol::EnrolArgs),
    Grant(consent::GrantArgs),
    Revoke(consent::RevokeArgs),
    List(list::ListArgs),
    SignRevocation(consent::SignRevocationArgs),
    Bind(bind::BindArgs),
    Classify(classify::ClassifyArgs),
    Erase(erase::EraseArgs),
    Rotate(succession::RotateArgs),
    Custodians(succession::CustodiansArgs),
    Succeed(succession::SucceedArgs),
    Share(share::ShareArgs),
    Recover(share::RecoverArgs),
    /// Say what the wallet knows; no secret is shown
    Show {
        #[command(flatten)]
        keystore: KeystoreArgs,
    },
}

/// The ledger that gateways pin.
#[derive(Debug, Args)]
struct PinArgs {
    /// The chain's number (EIP-155)
    #[arg(long, value_name = "N")]
    chain_id: u64,
    /// The contract's address
    #[arg(long, value_name = "ADDRESS")]
    contract: Address,
    /// Who seals the ledger's blocks, as gateways pin it; several with commas or repeated
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', required = true)]
    validator: Vec<Address>,
}

impl PinArgs {
    fn ledger(self) -> Ledger {
        let domain = Domain { chain_id: self.chain_id, verifying_contract: self.contract };
        Ledger { domain, validators: self.validator }
    }
}

#[derive(Debug, Args)]
struct NewArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    /// The chain's number (EIP-155); the ledger can also be set later, with `wallet ledger`
    #[arg(long, value_name = "N", requires = "contract")]
    chain_id: Option<u64>,
    /// The contract's address
    #[arg(long, value_name = "ADDRESS", requires = "chain_id")]
    contract: Option<Address>,
    /// Who seals the ledger's blocks, as gateways pin it; several with commas or repeated
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', requires = "contract")]
    validator: Vec<Address>,
    /// Restore: file with a seed of 32 bytes in hexadecimal (mode 0600). Relationships are to be added again, in their old order
    #[arg(long, value_name = "FILE")]
    seed_file: Option<PathBuf>,
    /// Write the new seed to a file of mode 0600 as well, to be put away: who has it can grant in the patient's name
    #[arg(long, value_name = "FILE", conflicts_with = "seed_file")]
    backup: Option<PathBuf>,
    /// Memory that one guess of the passphrase takes (Argon2id), MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1024))]
    memory_mib: u32,
    /// Passes over that memory
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    passes: u32,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::New(arguments) => new(arguments),
        Command::Ledger { keystore, ledger } => set_ledger(&keystore, ledger),
        Command::Relationship { keystore, label, grantee } => relationship(&keystore, &label, grantee),
        Command::RenewPseudonym { keystore } => renew_pseudonym(&keystore),
        Command::Enrol(arguments) => enrol::run(&arguments),
        Command::Grant(arguments) => consent::grant(&arguments).await,
        Command::Revoke(arguments) => consent::revoke(&arguments).await,
        Command::List(arguments) => list::run(&arguments).await,
        Command::SignRevocation(arguments) => consent::sign_revocation(&arguments),
        Command::Bind(arguments) => bind::run(&arguments).await,
        Command::Classify(arguments) => classify::run(&arguments),
        Command::Erase(arguments) => erase::run(&arguments).await,
        Command::Rotate(arguments) => succession::rotate(&arguments).await,
        Command::Custodians(arguments) => succession::custodians(&arguments).await,
        Command::Succeed(arguments) => succession::succeed(&arguments).await,
        Command::Share(arguments) => share::share(&arguments),
        Command::Recover(arguments) => share::recover(&arguments),
        Command::Show { keystore } => show::run(&keystore),
    }
}

fn new(arguments: NewArgs) -> Outcome {
    let seed = match &arguments.seed_file {
        Some(path) => PatientSeed::from_bytes(*key_file::read_hex::<32>(path)?),
        None => PatientSeed::generate(),
    };
    let mut wallet = Wallet::new(seed);
    if let Some((chain_id, contract)) = arguments.chain_id.zip(arguments.contract) {
        wallet.ledger = Some(PinArgs { chain_id, contract, validator: arguments.validator }.ledger());
    }
    let cost = Cost { memory_kib: arguments.memory_mib * 1024, passes: arguments.passes, ..Cost::default() };
    arguments.keystore.create(&wallet, cost)?;
    if let Some(path) = &arguments.backup {
        key_file::write_hex(path, wallet.seed.as_bytes(), key_file::Existing::Keep)?;
    }
    let keystore = arguments.keystore.path().display().to_string();
    let pseudonym = hex::encode(wallet.emergency_pseudonym().0);
    Ok(Done::new(
        format!("{keystore} is a new wallet. For emergencies, the patient's pseudonym is {pseudonym}"),
        json!({ "keystore": keystore, "pseudonym": pseudonym }),
    ))
}

fn renew_pseudonym(keystore: &KeystoreArgs) -> Outcome {
    let mut open = keystore.open()?;
    open.wallet.renew_pseudonym()?;
    open.save()?;
    let wallet = &open.wallet;
    let pseudonym = hex::encode(wallet.emergency_pseudonym().0);
    let homes: Vec<_> =
        wallet.homes.iter().filter(|home| home.emergency).map(|home| home.gateway.as_str()).collect();
    let text = format!(
        "for emergencies, the patient's pseudonym is {pseudonym} from now on. Enrol again, so that it counts: {}",
        if homes.is_empty() { "at no home".to_owned() } else { homes.join(", ") }
    );
    Ok(Done::new(
        text,
        json!({ "pseudonym": pseudonym, "pseudonym_number": wallet.pseudonym, "enrol_again": homes }),
    ))
}

fn set_ledger(keystore: &KeystoreArgs, ledger: PinArgs) -> Outcome {
    let mut open = keystore.open()?;
    let ledger = ledger.ledger();
    let used = open.wallet.relationships.iter().any(|known| known.granted > 0);
    if used && open.wallet.ledger.as_ref().is_some_and(|known| known.domain != ledger.domain) {
        return Err(anyhow::anyhow!(
            "the wallet has signed for another ledger; make a new wallet for this one"
        )
        .into());
    }
    open.wallet.ledger = Some(ledger);
    open.save()?;
    Ok(Done::new("the wallet signs for this ledger", json!({})))
}

fn relationship(keystore: &KeystoreArgs, label: &str, grantee: RecipientId) -> Outcome {
    let mut open = keystore.open()?;
    let number = open.wallet.add_relationship(label, grantee)?.number;
    let keys = open.wallet.keys(label)?;
    open.save()?;
    let id = keys.relationship().to_string();
    Ok(Done::new(
        format!("relationship {id} with {}; gateways know it after `wallet enrol`", address(&grantee)),
        json!({
            "label": label, "relationship": id, "grantee": address(&grantee), "number": number,
            "grant_key": hex0x(&keys.grant.address().0), "revoke_key": hex0x(&keys.revoke.address().0),
        }),
    ))
}

impl Open {
    fn ledger(&self) -> anyhow::Result<&Ledger> {
        self.wallet.ledger().context("say for which ledger it signs: `caregatectl wallet ledger`")
    }

    fn validators(&self) -> anyhow::Result<&[Address]> {
        match self.ledger()?.validators.as_slice() {
            [] => bail!("the wallet knows no validators: `caregatectl wallet ledger --validator …`"),
            validators => Ok(validators),
        }
    }
}
