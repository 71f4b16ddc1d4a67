//! `wallet rotate`, `wallet custodians`, `wallet succeed`: other keys for a relationship.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use ledger_chain::{Custodians, SignedCustody};
use ledger_client::verify::Address;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use super::consent::note_versions;
use super::file::KeystoreArgs;
use crate::args::hex0x;
use crate::custodian::{CustodyFile, Request};
use crate::ledger::{NodeArgs, mined};
use crate::outcome::{Done, Outcome};

/// Most custodians of a relationship, as the contract has it.
const CUSTODIANS_MAX: usize = 8;
/// Longest time in which a patient can stop a recovery, as the contract has it: 30 days.
const DELAY_MAX_S: u64 = 2_592_000;

/// Give a relationship the next keys of this wallet: what was granted goes on, the keys so far only revoke
///
/// For a key that may have been seen. Gateways follow by themselves. Who has the wallet's seed has all of its keys: then begin anew with
/// another wallet, or have custodians put one in its place.
#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// Which relationship
    #[arg(long)]
    label: String,
}

/// Say who may put another wallet in this one's place for a relationship, and how many of them it takes
///
/// Each has a key of their own (`custodian new`), used for this relationship alone. They can't grant; they can hand on, after the delay,
/// in which this command stops them. The file opens the commitment: give it to them.
#[derive(Debug, Args)]
pub(super) struct CustodiansArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// Which relationship
    #[arg(long)]
    label: String,
    /// A custodian's address; with commas or repeated, 8 at most
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', required_unless_present = "nobody")]
    custodian: Vec<Address>,
    /// How many of them it takes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    threshold: u8,
    /// Seconds in which this wallet can stop them; 30 days at most
    #[arg(long, value_name = "S", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(0..=DELAY_MAX_S))]
    delay_s: u64,
    /// New file for the custodians (mode 0600)
    #[arg(long, value_name = "FILE", required_unless_present = "nobody")]
    out: Option<PathBuf>,
    /// Nobody may any more
    #[arg(long, conflicts_with_all = ["custodian", "out"])]
    nobody: bool,
}

/// Ask custodians to put this wallet in a lost one's place: writes what they are to sign
///
/// Then `custodian sign` by as many as it takes, `custodian recover`, and after the delay `custodian complete`.
#[derive(Debug, Args)]
pub(super) struct SucceedArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// The name that the relationship has in this wallet
    #[arg(long)]
    label: String,
    /// The file that `wallet custodians` wrote
    #[arg(long, value_name = "FILE")]
    custodians: PathBuf,
    /// New file for what the custodians are to sign
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) async fn rotate(arguments: &RotateArgs) -> Outcome {
    let RotateArgs { keystore, node, label } = arguments;
    let mut open = keystore.open()?;
    let chain = node.connect(&open.ledger()?.domain).await?;
    note_versions(&mut open, &chain, label).await?;
    let (next, signature) = open.wallet.sign_rotation(label)?;
    let revoke_key = open.wallet.current_keys(label)?.revoke.address();
    let sent = chain.rotate_keys(&next, &revoke_key, &signature, &node.relay()?).await?;
    // Should this not be reached, the next command learns it from the ledger.
    open.wallet.note_keys(label, next.version, &next.grant_key)?;
    open.save()?;
    Ok(Done::new(
        format!("{label} has other keys (version {}, block {})", next.version, sent.block),
        json!({
            "label": label, "relationship": next.relationship.to_string(), "keys_version": next.version,
            "grant_key": hex0x(&next.grant_key.0), "revoke_key": hex0x(&next.revoke_key.0), "ledger": mined(&sent),
        }),
    ))
}

fn named(arguments: &CustodiansArgs) -> anyhow::Result<Custodians> {
    let mut keys = arguments.custodian.clone();
    keys.sort();
    keys.dedup();
    ensure!(keys.len() == arguments.custodian.len(), "a custodian is named twice");
    ensure!(keys.len() <= CUSTODIANS_MAX, "at most {CUSTODIANS_MAX} custodians");
    let threshold = arguments.threshold;
    ensure!(usize::from(threshold) <= keys.len(), "{threshold} are needed, and {} are named", keys.len());
    let mut salt = [0; 32];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_unspecified| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(Custodians { threshold, delay_s: arguments.delay_s, salt, keys })
}

pub(super) async fn custodians(arguments: &CustodiansArgs) -> Outcome {
    let CustodiansArgs { keystore, node, label, .. } = arguments;
    let custodians = if arguments.nobody { None } else { Some(named(arguments)?) };
    let mut open = keystore.open()?;
    let domain = open.ledger()?.domain;
    let chain = node.connect(&domain).await?;
    note_versions(&mut open, &chain, label).await?;
    open.save()?;
    let relationship = open.wallet.name(label)?;
    let known = chain.custody_version(&relationship).await?;
    let version = known.checked_add(1).context("no change of the custodians is left")?;
    let commitment = custodians.as_ref().map_or([0; 32], Custodians::commitment);
    let signature = open.wallet.sign_custody(label, &commitment, version)?;
    if let (Some(custodians), Some(out)) = (&custodians, &arguments.out) {
        let wallet = &open.wallet;
        let known = wallet.relationship(label)?;
        let first = match known.first {
            Some(first) => first,
            None => {
                let keys = wallet.keys(label)?;
                (keys.grant.address(), keys.revoke.address())
            }
        };
        // Before it is on the ledger: without the file nobody can open the commitment.
        CustodyFile::new(&domain, known.grantee, first, custodians).write(out)?;
    }
    let signed = SignedCustody { relationship, custodians: commitment, version, signature };
    let revoke_key = open.wallet.current_keys(label)?.revoke.address();
    let sent = chain.set_custodians(&signed, &revoke_key, &node.relay()?).await?;
    let text = match &custodians {
        None => format!("nobody may recover {label} any more (block {})", sent.block),
        Some(custodians) => format!(
            "{} of {} custodians may recover {label} after {} s (block {})",
            custodians.threshold,
            custodians.keys.len(),
            custodians.delay_s,
            sent.block
        ),
    };
    Ok(Done::new(
        text,
        json!({
            "label": label, "relationship": relationship.to_string(), "custody_version": version,
            "custodians": custodians.as_ref().map_or(0, |custodians| custodians.keys.len()),
            "file": arguments.out, "ledger": mined(&sent),
        }),
    ))
}

pub(super) async fn succeed(arguments: &SucceedArgs) -> Outcome {
    let SucceedArgs { keystore, node, label, .. } = arguments;
    let custody = CustodyFile::read(&arguments.custodians)?;
    let mut open = keystore.open()?;
    let domain = open.ledger()?.domain;
    custody.is_of(&domain)?;
    let chain = node.connect(&domain).await?;
    let relationship = custody.relationship();
    let version =
        chain.keys_version(&relationship).await?.checked_add(1).context("no version of keys is left")?;
    let first = custody.first();
    // Asked for again, where the ledger has gone no further meanwhile.
    let is_known = open
        .wallet
        .relationship(label)
        .is_ok_and(|known| known.first == Some(first) && known.rotated == version);
    if !is_known {
        open.wallet.recover_relationship(label, custody.grantee(), first, version)?;
    }
    let keys = open.wallet.current_keys(label)?;
    let request = Request::new(&domain, relationship, &keys, version);
    open.save()?;
    request.write(&arguments.out)?;
    Ok(Done::new(
        format!(
            "{} is what custodians are to sign, so that this wallet has {label}",
            arguments.out.display()
        ),
        json!({
            "label": label, "relationship": relationship.to_string(), "keys_version": version,
            "grant_key": hex0x(&keys.grant.address().0), "request": arguments.out,
        }),
    ))
}
