//! `audit verify`: whether logs are whole, as they were anchored, and agree with each other. Offline.

use std::path::PathBuf;

use caregate_protocol::audit::verify::{self, Disagreement, Fault, Keys, Log, Uncovered};
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
/// without a gap. With --core-log, --gateway-log and --recipient the feed's log (--log) is held against what the core delivered, and the keys
/// of both against what the gateways wrapped; up to when is told, and from which entry on a log is not held against the others, since it may be
/// younger than they are. Exit status 4 where something is wrong.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The log's files, oldest first; repeated
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// Its anchors, as `audit anchors` wrote them; without it only the chain is checked
    #[arg(long, value_name = "FILE")]
    anchors: Option<PathBuf>,
    /// The address of the log's key, as it is known from elsewhere; the anchors must be this log's. Any key may anchor a log of its own
    #[arg(long, value_name = "ADDRESS", requires = "anchors")]
    log_key: Option<Address>,
    /// Who seals the ledger's blocks: the file's proof must show that the ledger has these anchors; several with commas or repeated.
    /// Without it they are the log's key's word alone
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        requires_all = ["anchors", "log_key", "contract", "chain_id"]
    )]
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

/// What is anchored of a log.
#[derive(Default)]
struct Anchored {
    batches: Vec<verify::Batch>,
    /// The key that signed them, which is whose log it is.
    log_key: Option<Address>,
    /// When the ledger was proven to have them, Unix seconds.
    proven: Option<u64>,
}

fn anchored(arguments: &Arguments) -> Result<Anchored, Failure> {
    let Some(path) = &arguments.anchors else { return Ok(Anchored::default()) };
    let file: AnchorFile = read_json(path, ANCHORS_BYTES_MAX)?;
    if let Some(key) = arguments.log_key
        && file.log() != key
    {
        let (found, expected) = (hex0x(&file.log().0), hex0x(&key.0));
        let text = format!("the anchors are of log {found}, not of {expected}");
        let object = json!({ "fault": "another_log", "log_key": found });
        return Err(Failure::Faulty { text, object });
    }
    if arguments.contract.is_some_and(|contract| file.contract() != contract)
        || arguments.chain_id.is_some_and(|chain_id| file.chain_id() != chain_id)
    {
        let (contract, chain) = (hex0x(&file.contract().0), file.chain_id());
        let text = format!("the anchors are on contract {contract} of chain {chain}");
        return Err(Failure::Faulty { text, object: json!({ "fault": "another_ledger" }) });
    }
    let batches = file.batches()?;
    let is_pinned = !arguments.validator.is_empty();
    let proven = if is_pinned { Some(file.prove(&arguments.validator)?) } else { None };
    Ok(Anchored { batches, log_key: Some(file.log()), proven })
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Anchored { batches, log_key, proven } = anchored(arguments)?;
    let text = read_log(&arguments.log)?;
    let log = if arguments.part { verify::part(&text, &batches) } else { verify::log(&text, &batches) };
    let log = log.map_err(|fault| faulty(&fault, "log"))?;
    let first = log.lines.first().map_or(1, |line| line.n);
    // Of a part that has no whole batch the ledger says nothing.
    let is_held = first == 1 || log.anchored > 0;
    let proven = proven.filter(|_| is_held);
    let mut object = json!({
        "entries": log.head.n, "anchored": log.anchored, "not_anchored": log.head.n - log.anchored.max(first - 1),
        "anchors": batches.len(), "head": log.head.hash, "log_key": log_key.map(|key| hex0x(&key.0)),
        "on_ledger_at": proven.map(utc), "first": first,
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
    if let Some(key) = log_key {
        let unknown = if arguments.log_key.is_none() { ", as the anchors say themselves" } else { "" };
        text += &format!("; the log's key is {}{unknown}", hex0x(&key.0));
    }
    if let Some(recipient) = arguments.recipient {
        compare(arguments, recipient, &log)?.tell(&mut text, &mut object);
    }
    Ok(Done::new(text, object))
}

/// What of the logs was held against each other.
struct Compared {
    /// Up to which time, Unix milliseconds.
    until_ms: i64,
    /// Whether a gateway's log is here.
    has_gateways: bool,
    /// Which keys, if any were delivered.
    keys: Option<Keys>,
    /// From where on not.
    uncovered: Vec<Uncovered>,
    /// Entries that tell a time after their log's end.
    ahead: Vec<(&'static str, u64)>,
}

/// From where on a log is not held against the others.
fn text_of(part: &Uncovered) -> String {
    let Uncovered { whose, what, patient, others, n, last, older } = part;
    let of = match patient {
        Some(patient) => format!(" of patient {patient}"),
        None if *others > 0 => format!(" of {others} more patients"),
        None => String::new(),
    };
    let other_logs = if *what == "keys" { "gateways' logs" } else { "other log" };
    let mut text = format!(
        "; from {whose}'s entry {n} of {last} on {what}{of} may be younger than the {other_logs}: not looked for"
    );
    if *older > 0 {
        text += &format!(
            ", though {older} entries behind it tell an earlier time: a clock was wrong there, or somebody hides what stands there"
        );
    }
    text
}

/// The same for programs. Whose keys it is about is told where it is one patient's, and of how many where it is others'.
fn json_of(part: &Uncovered) -> Value {
    let Uncovered { whose, what, patient, others, n, last, older } = part;
    let mut object = json!({ "log": whose, "what": what, "entry": n, "of": last, "older_behind": older });
    if let Some(patient) = patient {
        object["patient"] = patient.to_string().into();
    }
    if *others > 0 {
        object["patients_more"] = json!(others);
    }
    object
}

impl Compared {
    fn tell(&self, text: &mut String, object: &mut Value) {
        let until = utc_of_ms(self.until_ms);
        *text += &match &until {
            Some(until) => format!("; up to {until} they agree with the other logs"),
            None => "; the logs have nothing in common yet".to_owned(),
        };
        let keys_until = self.keys.and_then(|keys| utc_of_ms(keys.until_ms));
        *text += &match (&keys_until, self.keys) {
            (Some(until), _) => {
                format!("; keys that were delivered up to {until} were wrapped by the gateways")
            }
            (None, Some(_)) => "; no key could be looked for: the gateways' logs end before".to_owned(),
            (None, None) if self.has_gateways => "; no key was delivered until then".to_owned(),
            (None, None) => "; keys were not looked for: no gateway's log is given".to_owned(),
        };
        let from = self.keys.map(|keys| keys.from).filter(|from| *from > 0);
        let keys_from = from.map(|from| utc(u64::from(from) * EPOCH_S.unsigned_abs()));
        if let Some(from) = &keys_from {
            *text += &format!(
                "; not all keys of the time before {from} were looked for: gateways' entries of then are not here"
            );
        }
        for part in &self.uncovered {
            *text += &text_of(part);
        }
        for (whose, n) in &self.ahead {
            *text += &format!(
                "; {whose}'s entry {n} tells a time after its log's end: a clock was wrong, and the log counts up to its end"
            );
        }
        let clock_wrong = self.ahead.iter().map(|(whose, n)| json!({ "log": whose, "entry": n }));
        object["not_covered"] = self.uncovered.iter().map(json_of).collect();
        object["clock_wrong"] = clock_wrong.collect();
        object["compared_until"] = json!(until);
        object["keys_until"] = json!(keys_until);
        object["keys_from"] = json!(keys_from);
    }
}

/// None before 1970: then it is no time of a log.
fn utc_of_ms(ms: i64) -> Option<String> {
    u64::try_from(ms.div_euclid(1000)).map(utc).ok()
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
    let keys = verify::keys(recipient, &feed.lines, &core.lines, &gateways);
    let uncovered = verify::uncovered(recipient, &feed.lines, &core.lines, &gateways);
    let hosts = [("feed", feed.lines.as_slice()), ("core", core.lines.as_slice())];
    let logs = hosts.into_iter().chain(gateways.iter().map(|log| ("gateway", *log)));
    let ahead = logs.filter_map(|(whose, log)| Some((whose, verify::ahead(log)?))).collect();
    Ok(Compared { until_ms, has_gateways: !gateways.is_empty(), keys, uncovered, ahead })
}
