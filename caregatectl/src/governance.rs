//! `caregatectl governance`: who says who takes part.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use ledger_chain::{Chain, Mined};
use ledger_client::verify::{Address, CouncilChange};
use ledger_client::wallet::DomainKey;
use serde_json::{Value, json};

use crate::args::{hex0x, parse_bytes, utc};
use crate::ledger::{LedgerArgs, mined};
use crate::outcome::{Done, Outcome};
use crate::participant::domain_key;

/// Governors: so many of them say who takes part, and they change themselves.
///
/// They can neither grant nor set a key. What lets somebody in, or lets them do more, waits, so that the others see it coming.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say who governs
    Show {
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    Change(ChangeArgs),
    Oppose(OpposeArgs),
}

/// Change who governs; the same command, then without a key, puts in force what has waited
#[derive(Debug, Args)]
struct ChangeArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// File with a governor's key (mode 0600); repeated for several, none where the change has waited
    #[arg(long, value_name = "FILE")]
    governor_key: Vec<PathBuf>,
    /// Who governs from then on: 1 to 16 addresses, with commas or repeated
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', required = true)]
    governor: Vec<Address>,
    /// How many of them a change needs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    threshold: u8,
    /// Seconds that a change waits which widens; 30 days at most
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(0..=2_592_000))]
    delay_s: u64,
}

/// Be against a change that waits; it is stopped when those who are for it can't be enough any more
#[derive(Debug, Args)]
struct OpposeArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// File with a governor's key (mode 0600)
    #[arg(long, value_name = "FILE")]
    governor_key: PathBuf,
    /// The change, as `participant register` or `governance change` named it
    #[arg(long, value_name = "HEX", value_parser = parse_bytes::<32>)]
    change: [u8; 32],
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::Show { ledger } => show(&ledger).await,
        Command::Change(arguments) => change(&arguments).await,
        Command::Oppose(arguments) => oppose(&arguments).await,
    }
}

pub(crate) fn governor_keys(files: &[PathBuf]) -> anyhow::Result<Vec<DomainKey>> {
    files.iter().map(|path| domain_key(path)).collect()
}

fn addresses(governors: &[Address]) -> Vec<String> {
    governors.iter().map(|governor| hex0x(&governor.0)).collect()
}

/// Says what became of a change. `text` is what holds once it is in force; `object` says what was wanted.
pub(crate) async fn governed(
    chain: &Chain,
    change: &[u8; 32],
    is_in_force: bool,
    sent: Option<&Mined>,
    text: String,
    mut object: Value,
) -> Outcome {
    object["change"] = hex0x(change).into();
    object["in_force"] = is_in_force.into();
    object["ledger"] = sent.map(mined).into();
    if is_in_force {
        let block = sent.map_or(0, |sent| sent.block);
        return Ok(Done::new(format!("{text} (block {block})"), object));
    }
    let (state, council) = (chain.pending_change(change).await?, chain.council().await?);
    object["approvals"] = state.approvals.into();
    object["threshold"] = council.threshold.into();
    object["ready_at"] = state.ready_at.into();
    let name = hex0x(change);
    let waits = if state.ready_at == 0 {
        format!("change {name} has {} of {} approvals", state.approvals, council.threshold)
    } else {
        format!("change {name} is approved, and waits until {}", utc(state.ready_at))
    };
    Ok(Done::new(waits, object))
}

async fn show(ledger: &LedgerArgs) -> Outcome {
    let council = ledger.connect().await?.council().await?;
    let governors = addresses(&council.governors);
    Ok(Done::new(
        format!(
            "{} of {} after {} s (version {})",
            council.threshold,
            governors.join(", "),
            council.delay_s,
            council.version
        ),
        json!({
            "governors": governors, "threshold": council.threshold, "delay_s": council.delay_s,
            "version": council.version,
        }),
    ))
}

async fn change(arguments: &ChangeArgs) -> Outcome {
    let ChangeArgs { ledger, governor, threshold, delay_s, .. } = arguments;
    let keys = governor_keys(&arguments.governor_key)?;
    let chain = ledger.connect().await?;
    let version =
        chain.council().await?.version.checked_add(1).context("no change of the council is left")?;
    let change =
        CouncilChange { governors: governor.clone(), threshold: *threshold, delay_s: *delay_s, version };
    let relay = ledger.node.relay()?;
    let mut sent = None;
    for key in &keys {
        let approval = key.approve_council(&change, &ledger.domain());
        sent = Some(chain.approve_council(&change, &approval, &relay).await?);
        if chain.council().await?.version >= version {
            break;
        }
    }
    if keys.is_empty() {
        sent = Some(chain.apply_council(&change, &relay).await?);
    }
    let is_in_force = chain.council().await?.version >= version;
    let governors = addresses(governor);
    let wanted =
        json!({ "governors": governors, "threshold": threshold, "delay_s": delay_s, "version": version });
    let text = format!("{threshold} of {} govern", governors.join(", "));
    governed(&chain, &change.digest(&ledger.domain()), is_in_force, sent.as_ref(), text, wanted).await
}

async fn oppose(arguments: &OpposeArgs) -> Outcome {
    let OpposeArgs { ledger, change, .. } = arguments;
    let key = domain_key(&arguments.governor_key)?;
    let chain = ledger.connect().await?;
    let sent = chain.oppose(change, &key.oppose(change, &ledger.domain()), &ledger.node.relay()?).await?;
    let state = chain.pending_change(change).await?;
    let name = hex0x(change);
    let text = if state.closed {
        format!("change {name} is stopped (block {})", sent.block)
    } else {
        format!("{} against change {name} (block {})", state.objections, sent.block)
    };
    Ok(Done::new(
        text,
        json!({
            "change": name, "stopped": state.closed, "objections": state.objections, "ledger": mined(&sent),
        }),
    ))
}
