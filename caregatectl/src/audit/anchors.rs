//! `audit anchor`, `audit anchors`: a log's batches on the ledger, and in a file for who verifies without it.

use std::path::PathBuf;

use anyhow::Context as _;
use caregate_protocol::audit::merkle;
use caregate_protocol::audit::{Hash, leaf_hash, verify};
use caregate_protocol::policy::EcdsaSignature;
use clap::Args;
use ledger_chain::{Chain, Event, LOG_BLOCKS_MAX, LogProof};
use ledger_client::verify::{Address, Anchor, Domain, SignedAnchor, verify_log};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{read_log, write_new};
use crate::args::hex0x;
use crate::ledger::{LedgerArgs, mined};
use crate::outcome::{Done, Failure, Outcome};
use crate::participant::domain_key;

/// Anchor what is new in an audit log: sign the Merkle root of its next batch, and put it on the ledger
///
/// For a timer beside the daemon. The log is checked first, and a batch begins where the last one ended, so what is anchored has no gap.
/// The log's key is made with `participant new`, and is used for nothing else.
#[derive(Debug, Args)]
pub(super) struct AnchorArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// The log's files, oldest first; repeated
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// File with the log's key (mode 0600)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// Write a log's anchors from the ledger into a file, for `audit verify` without the ledger
#[derive(Debug, Args)]
pub(super) struct AnchorsArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// The address of the log's key
    #[arg(long, value_name = "ADDRESS")]
    log_key: Address,
    /// New file for the anchors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// First block
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_block: u64,
}

/// A log's anchors in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnchorFile {
    chain_id: u64,
    contract: Address,
    log: Address,
    anchors: Vec<FiledAnchor>,
    proof: FiledProof,
}

/// That the ledger has the last one: its header and the way to the contract's slot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FiledProof {
    /// RLP in hexadecimal.
    header: String,
    /// RLP in hexadecimal.
    nodes: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FiledAnchor {
    first: u64,
    last: u64,
    root: Hash,
    signature: EcdsaSignature,
    /// The ledger's block.
    block: u64,
}

impl AnchorFile {
    /// The batches, in their order. An anchor that the log's key has not signed is named.
    pub(super) fn batches(&self) -> Result<Vec<verify::Batch>, Failure> {
        let domain = Domain { chain_id: self.chain_id, verifying_contract: self.contract };
        let batch = |filed: &FiledAnchor| {
            let FiledAnchor { first, last, root, .. } = *filed;
            let anchor = Anchor { log: self.log, first, last, root: root.0 };
            let signer = ledger_client::verify::signer(&anchor.digest(&domain), &filed.signature);
            if signer == Ok(self.log) {
                Ok(verify::Batch { first, last, root })
            } else {
                let text = format!(
                    "the anchor of entries {first} to {last} is forged: the log's key has not signed it"
                );
                let object =
                    json!({ "fault": "anchor_forged", "entry": first, "first": first, "last": last });
                Err(Failure::Faulty { text, object })
            }
        };
        self.anchors.iter().map(batch).collect()
    }

    pub(super) fn log(&self) -> Address {
        self.log
    }

    pub(super) fn contract(&self) -> Address {
        self.contract
    }

    pub(super) fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Holds the anchors against the ledger's sealed header. Answers with its time, Unix seconds.
    pub(super) fn prove(&self, validators: &[Address]) -> Result<u64, Failure> {
        let bytes = |text: &String| hex::decode(text).context("the proof is not hexadecimal");
        let nodes = self.proof.nodes.iter().map(bytes).collect::<anyhow::Result<Vec<_>>>()?;
        let header = bytes(&self.proof.header)?;
        let not_proven =
            |text: String, fault: &str| Failure::Faulty { text, object: json!({ "fault": fault }) };
        let proven = verify_log(&header, &nodes, &self.contract, validators, &self.log)
            .map_err(|refusal| not_proven(format!("the ledger's proof: {refusal}"), refusal.reason()))?;
        let (root, last) = self.anchors.last().map_or((Hash::NONE, 0), |anchor| (anchor.root, anchor.last));
        if (proven.root, proven.last, proven.anchors) == (root.0, last, self.anchors.len() as u64) {
            return Ok(proven.time_s);
        }
        let text = format!(
            "the ledger has {} anchors up to entry {}, and here are {} up to entry {last}, or others",
            proven.anchors,
            proven.last,
            self.anchors.len()
        );
        Err(not_proven(text, "not_on_ledger"))
    }
}

pub(super) async fn anchor(arguments: &AnchorArgs) -> Outcome {
    let key = domain_key(&arguments.key)?;
    let address = Address(key.id().0);
    let text = read_log(&arguments.log)?;
    let chain = arguments.ledger.connect().await?;
    let known = chain.audit_log(&address).await?;
    // What is anchored may be in files that were taken away.
    let log = verify::chain(&text, known.last).map_err(|fault| super::verify::faulty(&fault, "log"))?;
    let (first, last) = (known.last.saturating_add(1), log.head.n);
    let name = hex0x(&address.0);
    if last < first {
        let text = format!("nothing is new: entries up to {last} are anchored");
        return Ok(Done::new(text, json!({ "log": name, "anchored": last, "new": 0 })));
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let here = log.lines.first().map_or(first, |line| line.n);
    let known_here = usize::try_from(first.saturating_sub(here)).context("the log's length")?;
    let leaves = lines.skip(known_here).map(leaf_hash);
    let root = merkle::root(leaves).context("a batch has entries")?;
    let anchor = Anchor { log: address, first, last, root: root.0 };
    let signed: SignedAnchor = key.sign_anchor(&anchor, &arguments.ledger.domain());
    let sent = chain.anchor(&signed, &arguments.ledger.node.relay()?).await?;
    Ok(Done::new(
        format!("entries {first} to {last} of log {name} are anchored (block {})", sent.block),
        json!({
            "log": name, "first": first, "last": last, "root": root, "anchored": last, "new": last - known.last,
            "ledger": mined(&sent),
        }),
    ))
}

pub(super) async fn anchors(arguments: &AnchorsArgs) -> Outcome {
    let chain = arguments.ledger.connect().await?;
    let anchors = found(&chain, &arguments.log_key, arguments.from_block).await?;
    let state = chain.audit_log(&arguments.log_key).await?;
    let last = anchors.last().map_or(0, |anchor| anchor.last);
    if last != state.last {
        return Err(anyhow::anyhow!(
            "the node tells of anchors up to entry {last}, and the contract has them up to {}",
            state.last
        )
        .into());
    }
    let LedgerArgs { chain_id, contract, .. } = arguments.ledger;
    let count = anchors.len();
    let LogProof { header, nodes } = chain.log_proof(&arguments.log_key).await?;
    let proof = FiledProof { header: hex::encode(header), nodes: nodes.iter().map(hex::encode).collect() };
    let file = AnchorFile { chain_id, contract, log: arguments.log_key, anchors, proof };
    let text = serde_json::to_string_pretty(&file).context("anchors as JSON")?;
    write_new(&arguments.out, &format!("{text}\n"))?;
    Ok(Done::new(
        format!("{} has {count} anchors, up to entry {last}", arguments.out.display()),
        json!({ "file": arguments.out, "anchors": count, "anchored": last }),
    ))
}

async fn found(chain: &Chain, log: &Address, from: u64) -> Result<Vec<FiledAnchor>, Failure> {
    let (head, mut at, mut anchors) = (chain.head().await?.number, from, Vec::new());
    while at <= head {
        let end = head.min(at.saturating_add(LOG_BLOCKS_MAX - 1));
        for event in chain.events(at, end).await? {
            if let Event::Anchored(SignedAnchor { anchor, signature }) = event.event
                && anchor.log == *log
            {
                let Anchor { first, last, root, .. } = anchor;
                anchors.push(FiledAnchor { first, last, root: Hash(root), signature, block: event.block });
            }
        }
        at = end + 1;
    }
    Ok(anchors)
}
