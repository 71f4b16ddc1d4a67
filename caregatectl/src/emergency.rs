//! `caregatectl emergency`: break-glass from a shell, for a domain whose feed can't.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Commitment, Emergency, Pseudonym};
use clap::{Args, Subcommand};
use ledger_client::verify::slots;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use crate::args::{address, now_s, parse_pseudonym, utc};
use crate::door::DoorArgs;
use crate::ledger::{LedgerArgs, mined};
use crate::outcome::{Done, Failure, Outcome};
use crate::participant::domain_key;

/// Longest clinician's name or reason: two sentences.
const TEXT_BYTES_MAX: usize = 512;

/// Break-glass: a registered domain's access to a patient in an emergency.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Open(Box<OpenArgs>),
    Review(ReviewArgs),
}

/// Note on the ledger that an emergency was looked at; by a governor. It changes nothing about who opens what
#[derive(Debug, Args)]
struct ReviewArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// File with a governor's key (mode 0600), which is not the domain's own
    #[arg(long, value_name = "FILE")]
    governor_key: PathBuf,
    /// The emergency's pseudonym: 32 bytes in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = parse_pseudonym)]
    pseudonym: Pseudonym,
    /// The domain's address
    #[arg(long, value_name = "ADDRESS")]
    domain: RecipientId,
    /// Which of its emergencies [default: the newest]
    #[arg(long, value_name = "N")]
    number: Option<u64>,
}

/// Break the glass: the gateway that watches the pseudonym opens live readings to the domain until the time is over
///
/// The patient sees it, and the ledger keeps it. Clinician and reason go there as salted commitments; what they open with goes into
/// a file that the domain keeps. With --gateway or --feed it goes straight to the gateway, where it holds at once, ledger or not; the gateway
/// sees that the ledger gets it.
#[derive(Debug, Args)]
struct OpenArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    door: DoorArgs,
    /// File with the domain's ledger key (mode 0600)
    #[arg(long, value_name = "FILE")]
    domain_key: PathBuf,
    /// The patient's pseudonym for emergencies: 32 bytes in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = parse_pseudonym)]
    pseudonym: Pseudonym,
    /// Who
    #[arg(long)]
    clinician: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// For how many minutes, at most 240
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=240))]
    minutes: u64,
    /// New file for what opens the two commitments (mode 0600): salts, clinician, reason
    #[arg(long, value_name = "FILE")]
    opening: PathBuf,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::Open(arguments) => open(&arguments).await,
        Command::Review(arguments) => review(&arguments).await,
    }
}

fn salt() -> anyhow::Result<[u8; 32]> {
    let mut salt = [0; 32];
    SystemRandom::new().fill(&mut salt).map_err(|_source| anyhow!("the system gives no random bytes"))?;
    Ok(salt)
}

async fn open(arguments: &OpenArgs) -> Outcome {
    let OpenArgs { pseudonym, clinician, reason, opening, .. } = arguments;
    for (what, text) in [("--clinician", clinician), ("--reason", reason)] {
        if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(anyhow!("{what} must have 1 to {TEXT_BYTES_MAX} bytes").into());
        }
    }
    let key = domain_key(&arguments.domain_key)?;
    let (from, number) = begin(arguments, &key.id()).await?;
    let (clinician_salt, reason_salt) = (salt()?, salt()?);
    let emergency = Emergency {
        pseudonym: *pseudonym,
        domain: key.id(),
        clinician: commitment(&clinician_salt, clinician),
        reason: commitment(&reason_salt, reason),
        from,
        until: from + arguments.minutes * 60,
        number,
    };
    let opens = json!({
        "pseudonym": hex::encode(pseudonym.0), "number": emergency.number,
        "clinician": clinician, "clinician_salt": hex::encode(clinician_salt),
        "reason": reason, "reason_salt": hex::encode(reason_salt),
    });
    // Before it is sent: an emergency whose reason nobody can show any more would be one without.
    key_file::write(opening, format!("{opens}\n").as_bytes(), Existing::Keep)?;
    let signed = key.sign_emergency(&emergency, &arguments.ledger.domain());
    let until = emergency.until;
    let mut done = json!({
        "domain": address(&key.id()), "number": number, "from": from, "until": until, "opening": opening,
    });
    let place = if arguments.door.is_given() {
        done["gateway"] = arguments.door.hand_over("emergency", signed.encode()).await?;
        "at the gateway".to_owned()
    } else {
        let chain = arguments.ledger.connect().await?;
        let sent = chain.open_emergency(&signed, &arguments.ledger.node.relay()?).await?;
        done["ledger"] = mined(&sent);
        format!("block {}", sent.block)
    };
    Ok(Done::new(format!("the glass is broken until {} (number {number}, {place})", utc(until)), done))
}

/// From when, and its number: one more than the ledger's newest. For a gateway nobody is asked; the time in seconds is above every number
/// that counts emergencies.
async fn begin(arguments: &OpenArgs, domain: &RecipientId) -> Result<(u64, u64), Failure> {
    if arguments.door.is_given() {
        return Ok((now_s(), now_s()));
    }
    let chain = arguments.ledger.connect().await?;
    let known = chain.emergency_number(&arguments.pseudonym, domain).await?;
    let from = chain.head().await?.time_s.max(now_s());
    Ok((from, known.checked_add(1).context("no number is left")?))
}

async fn review(arguments: &ReviewArgs) -> Outcome {
    let ReviewArgs { ledger, pseudonym, domain, .. } = arguments;
    let key = domain_key(&arguments.governor_key)?;
    let chain = ledger.connect().await?;
    let number = match arguments.number {
        Some(number) => number,
        None => chain.emergency_number(pseudonym, domain).await?,
    };
    let review = key.review(pseudonym, domain, number, &ledger.domain());
    let sent = chain.review_emergency(pseudonym, domain, number, &review, &ledger.node.relay()?).await?;
    let id = address(domain);
    Ok(Done::new(
        format!("emergency {number} of {id} is noted as reviewed (block {})", sent.block),
        json!({ "domain": id, "number": number, "ledger": mined(&sent) }),
    ))
}

fn commitment(salt: &[u8; 32], text: &str) -> Commitment {
    slots::text_commitment(salt, text)
}
