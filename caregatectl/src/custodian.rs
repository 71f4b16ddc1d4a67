//! `caregatectl custodian`: people whom a patient named, who put another wallet in a lost one's place.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{EcdsaSignature, RelationshipId};
use clap::{Args, Subcommand};
use ledger_chain::Custodians;
use ledger_client::verify::{Address, Domain, NextKeys, signer, slots};
use ledger_client::wallet::{PatientKey, RelationshipKeys};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::args::{hex0x, parse_bytes, utc};
use crate::files::read_json;
use crate::ledger::{NodeArgs, mined};
use crate::outcome::{Done, Outcome};

/// Largest of the files here: eight custodians' addresses take 1 kB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Custodians: people whom a patient named, so many of whom put another wallet in a lost one's place.
///
/// They can't grant. The patient sees it coming, and can stop it until the delay is over that they chose.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a custodian's key (mode 0600), and say its address; one for each relationship, so that nobody links patients by it
    New {
        /// New file for the key
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign, as a custodian, what `wallet succeed` asks for: first be sure who asks
    Sign {
        /// The custodian's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The file that `wallet succeed` wrote
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        /// New file for the signature
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    Recover(RecoverArgs),
    Complete(CompleteArgs),
}

/// Hand the custodians' signatures to the ledger: the delay begins
#[derive(Debug, Args)]
struct RecoverArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The file that `wallet custodians` wrote
    #[arg(long, value_name = "FILE")]
    custodians: PathBuf,
    /// The file that `wallet succeed` wrote
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// A custodian's signature, as `custodian sign` wrote it; repeated
    #[arg(long, value_name = "FILE", required = true)]
    signature: Vec<PathBuf>,
}

/// Put the other wallet in its place, when the delay is over and the patient has not stopped it; by anybody
#[derive(Debug, Args)]
struct CompleteArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The file that `wallet succeed` wrote
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
}

/// What opens the commitment to custodians.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CustodyFile {
    chain_id: u64,
    contract: Address,
    grantee: RecipientId,
    /// The relationship's first keys, after which it is named.
    first_grant_key: Address,
    first_revoke_key: Address,
    threshold: u8,
    delay_s: u64,
    /// 32 bytes in hexadecimal.
    salt: String,
    custodians: Vec<Address>,
}

/// What custodians sign.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    chain_id: u64,
    contract: Address,
    relationship: RelationshipId,
    grant_key: Address,
    revoke_key: Address,
    version: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    custodian: Address,
    signature: EcdsaSignature,
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    read_json(path, FILE_BYTES_MAX)
}

fn write(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(key_file::write(path, &text, Existing::Keep)?)
}

impl CustodyFile {
    pub(crate) fn new(
        domain: &Domain,
        grantee: RecipientId,
        first: (Address, Address),
        custodians: &Custodians,
    ) -> Self {
        Self {
            chain_id: domain.chain_id,
            contract: domain.verifying_contract,
            grantee,
            first_grant_key: first.0,
            first_revoke_key: first.1,
            threshold: custodians.threshold,
            delay_s: custodians.delay_s,
            salt: hex::encode(custodians.salt),
            custodians: custodians.keys.clone(),
        }
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        read(path)
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        write(path, self)
    }

    pub(crate) fn is_of(&self, domain: &Domain) -> anyhow::Result<()> {
        let is = (self.chain_id, self.contract) == (domain.chain_id, domain.verifying_contract);
        ensure!(is, "the custodians were named on another ledger");
        Ok(())
    }

    pub(crate) fn grantee(&self) -> RecipientId {
        self.grantee
    }

    pub(crate) fn first(&self) -> (Address, Address) {
        (self.first_grant_key, self.first_revoke_key)
    }

    pub(crate) fn relationship(&self) -> RelationshipId {
        slots::relationship(&self.first_grant_key, &self.first_revoke_key)
    }

    fn custodians(&self) -> anyhow::Result<Custodians> {
        let salt = parse_bytes(&self.salt).map_err(|problem| anyhow::anyhow!("salt: {problem}"))?;
        let (threshold, delay_s, keys) = (self.threshold, self.delay_s, self.custodians.clone());
        Ok(Custodians { threshold, delay_s, salt, keys })
    }
}

impl Request {
    pub(crate) fn new(
        domain: &Domain,
        relationship: RelationshipId,
        keys: &RelationshipKeys,
        version: u64,
    ) -> Self {
        Self {
            chain_id: domain.chain_id,
            contract: domain.verifying_contract,
            relationship,
            grant_key: keys.grant.address(),
            revoke_key: keys.revoke.address(),
            version,
        }
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        write(path, self)
    }

    fn domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, verifying_contract: self.contract }
    }

    fn next(&self) -> NextKeys {
        let Self { relationship, grant_key, revoke_key, version, .. } = *self;
        NextKeys { relationship, grant_key, revoke_key, version }
    }
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::New { out } => {
            let key = PatientKey::generate();
            key_file::write_hex(&out, key.secret().as_slice(), Existing::Keep)?;
            let address = hex0x(&key.address().0);
            let text = format!("{} holds the key of custodian {address}", out.display());
            Ok(Done::new(text, json!({ "key": out, "address": address })))
        }
        Command::Sign { key, request, out } => sign(&key, &request, &out),
        Command::Recover(arguments) => recover(&arguments).await,
        Command::Complete(arguments) => complete(&arguments).await,
    }
}

fn sign(key: &Path, request: &Path, out: &Path) -> Outcome {
    let secret = key_file::read_hex::<32>(key)?;
    let key = PatientKey::from_bytes(&secret).with_context(|| key.display().to_string())?;
    let request: Request = read(request)?;
    let signature = key.sign_recovery(&request.next(), &request.domain());
    write(out, &Signed { custodian: key.address(), signature })?;
    let (custodian, relationship) = (hex0x(&key.address().0), request.relationship.to_string());
    Ok(Done::new(
        format!(
            "custodian {custodian} gives relationship {relationship} to grant key {}",
            hex0x(&request.grant_key.0)
        ),
        json!({ "custodian": custodian, "relationship": relationship, "file": out }),
    ))
}

/// The custodians' signatures in the order of their keys.
fn signatures(
    files: &[PathBuf],
    custodians: &Custodians,
    request: &Request,
) -> anyhow::Result<Vec<Option<EcdsaSignature>>> {
    let digest = request.next().recovery_digest(&request.domain());
    let mut signatures = vec![None; custodians.keys.len()];
    for path in files {
        let Signed { custodian, signature } = read(path)?;
        let named = path.display();
        let place = custodians.keys.iter().position(|key| *key == custodian);
        let place = place.with_context(|| format!("{named}: the patient has not named this custodian"))?;
        ensure!(signer(&digest, &signature) == Ok(custodian), "{named}: is a signature of something else");
        signatures[place] = Some(signature);
    }
    Ok(signatures)
}

async fn recover(arguments: &RecoverArgs) -> Outcome {
    let custody: CustodyFile = read(&arguments.custodians)?;
    let request: Request = read(&arguments.request)?;
    let (custodians, domain, next) = (custody.custodians()?, request.domain(), request.next());
    custody.is_of(&domain)?;
    if custody.relationship() != next.relationship {
        return Err(anyhow::anyhow!("custodians and request are of two relationships").into());
    }
    let signatures = signatures(&arguments.signature, &custodians, &request)?;
    let chain = arguments.node.connect(&domain).await?;
    let sent = chain.recover_keys(&next, &custodians, &signatures, &arguments.node.relay()?).await?;
    let ready_at = chain.recovery_ready_at(&next.relationship).await?;
    let text = match ready_at {
        None => format!("done: the relationship has other keys (block {})", sent.block),
        Some(at) => format!(
            "it may be completed from {} on, unless the patient stops it (block {})",
            utc(at),
            sent.block
        ),
    };
    Ok(Done::new(
        text,
        json!({
            "relationship": next.relationship.to_string(), "keys_version": next.version,
            "in_force": ready_at.is_none(), "ready_at": ready_at, "ledger": mined(&sent),
        }),
    ))
}

async fn complete(arguments: &CompleteArgs) -> Outcome {
    let request: Request = read(&arguments.request)?;
    let next = request.next();
    let chain = arguments.node.connect(&request.domain()).await?;
    let sent = chain.complete_recovery(&next, &arguments.node.relay()?).await?;
    Ok(Done::new(
        format!("the relationship has other keys (block {})", sent.block),
        json!({
            "relationship": next.relationship.to_string(), "keys_version": next.version, "ledger": mined(&sent),
        }),
    ))
}
