//! `audit verify`: whether logs are whole, as they were anchored, and agree with each other. Offline.

use std::path::PathBuf;

use caregate_protocol::audit::verify::{self, Disagreement, Fault, Log};
use caregate_protocol::id::RecipientId;
use caregate_protocol::key::EPOCH_S;
use clap::Args;
use ledger_client::verify::Address;
use serde_json::{Value, json};

use super::anchors::AnchorFile;
use super::{read_log, read_logs};
use crate::args::{hex0x, utc};
use crate::files::read_json;
use crate::outcome::{Done, Failure, Outcome};

/// Largest file of anchors: some 100,000 batches.
const ANCHORS_BYTES_MAX: u64 = 64 << 20;

/// Check that an audit log is whole and as it was anchored, without the ledger; names the first bad entry
///
/// Each entry is chained to the one before; the Merkle root of each batch must be the anchored one, and anchors must follow each other
/// without a gap. With --core-log, --gateway-log and --recipient the feed's log (--log) is held against what the core delivered and the
/// gateways wrapped. Exit status 4 where something is wrong.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The log's files, oldest first; repeated
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// Its anchors, as `audit anchors` wrote them; without it only the chain is checked
    #[arg(long, value_name = "FILE")]
    anchors: Option<PathBuf>,
    /// The address of the log's key, as it is known from elsewhere; the anchors must be this log's
    #[arg(long, value_name = "ADDRESS", requires = "anchors")]
    log_key: Option<Address>,
    /// Who seals the ledger's blocks: the file's proof must show that the ledger has these anchors; several with commas or repeated.
    /// Without it they are the log's key's word alone
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', requires_all = ["anchors", "contract", "chain_id"])]
    validator: Vec<Address>,
    /// The contract, as it is known from elsewhere; the anchors must be on it. A log that was written anew can be anchored on a contract of
    /// somebody's own
    #[arg(long, value_name = "ADDRESS", requires = "anchors")]
    contract: Option<Address>,
    /// The ledger's chain id, as it is known from elsewhere
    #[arg(long, value_name = "N", requires = "anchors")]
    chain_id: Option<u64>,
    /// The log's older files are gone: begin with the first entry that is here. What is before it must be anchored, and is not looked at
    #[arg(long, requires = "anchors", conflicts_with = "core_log")]
    part: bool,
    /// The domain whose feed's log this is
    #[arg(long, value_name = "ADDRESS", requires = "core_log")]
    recipient: Option<RecipientId>,
    /// The core's log: its files, oldest first; repeated
    #[arg(long, value_name = "FILE", requires = "recipient")]
    core_log: Vec<PathBuf>,
    /// The gateways' logs: the files of all of them, each gateway's oldest first; repeated. Which file goes on where another ends, the
    /// files say
    #[arg(long, value_name = "FILE", requires = "core_log")]
    gateway_log: Vec<PathBuf>,
    /// Gateways' older files are gone: begin with the first entry of each that is here. Keys of epochs before are not looked for
    #[arg(long, requires = "gateway_log")]
    gateway_part: bool,
}

/// What is wrong with a log.
pub(super) fn faulty(fault: &Fault, whose: &str) -> Failure {
    let object = json!({ "fault": fault.reason(), "entry": fault.entry(), "log": whose });
    Failure::Faulty { text: format!("{whose}: {fault}"), object }
}

fn disagreement(found: &Disagreement) -> Failure {
    let (whose, entry) = found.entry();
    let object = json!({ "fault": found.reason(), "entry": entry, "log": whose });
    Failure::Faulty { text: found.to_string(), object }
}

/// The batches that are anchored, and the time at which the ledger was proven to have them.
fn anchored(arguments: &Arguments) -> Result<(Vec<verify::Batch>, Option<u64>), Failure> {
    match &arguments.anchors {
        None => Ok((Vec::new(), None)),
        Some(path) => {
            let file: AnchorFile = read_json(path, ANCHORS_BYTES_MAX)?;
            if let Some(key) = arguments.log_key
                && file.log() != key
            {
                let text =
                    format!("the anchors are of log {}, not of {}", hex0x(&file.log().0), hex0x(&key.0));
                return Err(Failure::Faulty { text, object: json!({ "fault": "another_log" }) });
            }
            if arguments.contract.is_some_and(|contract| file.contract() != contract)
                || arguments.chain_id.is_some_and(|chain_id| file.chain_id() != chain_id)
            {
                let (contract, chain) = (hex0x(&file.contract().0), file.chain_id());
                let text = format!("the anchors are on contract {contract} of chain {chain}");
                return Err(Failure::Faulty { text, object: json!({ "fault": "another_ledger" }) });
            }
            let batches = file.batches()?;
            let proven =
                if arguments.validator.is_empty() { None } else { Some(file.prove(&arguments.validator)?) };
            Ok((batches, proven))
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (batches, proven) = anchored(arguments)?;
    let text = read_log(&arguments.log)?;
    let log = if arguments.part { verify::part(&text, &batches) } else { verify::log(&text, &batches) };
    let log = log.map_err(|fault| faulty(&fault, "log"))?;
    let first = log.lines.first().map_or(1, |line| line.n);
    // Of a part that has no whole batch the ledger says nothing.
    let is_held = first == 1 || log.anchored > 0;
    let proven = proven.filter(|_| is_held);
    let mut object = json!({
        "entries": log.head.n, "anchored": log.anchored, "not_anchored": log.head.n - log.anchored.max(first - 1),
        "anchors": batches.len(), "head": log.head.hash, "on_ledger_at": proven.map(utc), "first": first,
    });
    let mut text = if !is_held {
        format!(
            "entries {first} to {} are chained; no anchored batch is here whole, so none of them is held against an anchor",
            log.head.n
        )
    } else if first > 1 {
        format!(
            "entries {first} to {} are whole, those up to {} as they were anchored; the {} before are not here",
            log.head.n,
            log.anchored,
            first - 1
        )
    } else {
        let (entries, anchored, batches) = (log.head.n, log.anchored, batches.len());
        format!("{entries} entries are whole; {anchored} of them are anchored in {batches} batches")
    };
    if let Some(at) = proven {
        text += &format!(", as the ledger's header of {} proves", utc(at));
    }
    if let Some(recipient) = arguments.recipient {
        let Compared { until_ms, keys_from } = compare(arguments, recipient, &log)?;
        let until = u64::try_from(until_ms.div_euclid(1000)).map(utc).ok();
        let keys_from = (keys_from > 0).then(|| utc(u64::from(keys_from) * EPOCH_S.unsigned_abs()));
        object["compared_until"] = until.clone().map_or(Value::Null, Value::from);
        object["keys_from"] = keys_from.clone().map_or(Value::Null, Value::from);
        text += &match until {
            Some(until) => format!("; up to {until} they agree with the other logs"),
            None => "; the logs have nothing in common yet".to_owned(),
        };
        text += &keys_from.map_or_else(String::new, |from| {
            format!(
                "; keys of the time before {from} were not looked for: gateways' older entries are not here"
            )
        });
    }
    Ok(Done::new(text, object))
}

/// What of the logs was held against each other.
struct Compared {
    /// Up to which time, Unix milliseconds.
    until_ms: i64,
    /// Keys of which epoch and later.
    keys_from: u32,
}

/// Holds the feed's log against the others.
fn compare(arguments: &Arguments, recipient: RecipientId, feed: &Log) -> Result<Compared, Failure> {
    let core = verify::log(&read_log(&arguments.core_log)?, &[]).map_err(|fault| faulty(&fault, "core"))?;
    let check = |text: &Vec<u8>| {
        let log = if arguments.gateway_part { verify::newer(text) } else { verify::log(text, &[]) };
        log.map_err(|fault| faulty(&fault, "gateway"))
    };
    let gateways: Vec<Log> =
        read_logs(&arguments.gateway_log)?.iter().map(check).collect::<Result<_, Failure>>()?;
    let gateways: Vec<_> = gateways.iter().map(|log| log.lines.as_slice()).collect();
    let until_ms = verify::agree(recipient, &feed.lines, &core.lines, &gateways)
        .map_err(|found| disagreement(&found))?;
    Ok(Compared { until_ms, keys_from: verify::keys_from(&gateways) })
}
