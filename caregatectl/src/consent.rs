//! `caregatectl consent`: what stands on the ledger, for operators and clinicians. It grants nothing.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Grant, RelationshipId, SignedGrant};
use clap::{Args, Subcommand};
use ledger_chain::{Chain, Event, LOG_BLOCKS_MAX};
use serde_json::{Value, json};

use crate::args::{address, class_names, parse_bytes, purpose_names, utc};
use crate::fhir;
use crate::ledger::LedgerArgs;
use crate::outcome::{Done, Failure, Outcome};
use crate::table::{Column, table};

/// Consents on the ledger, to look at. Who a patient is stands nowhere there; grants are the wallet's.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List relationships with their newest grant
    List {
        #[command(flatten)]
        ledger: LedgerArgs,
        /// Only those to this domain
        #[arg(long, value_name = "ADDRESS")]
        grantee: Option<RecipientId>,
        /// As a FHIR R4 Bundle of Consents, with whose word each is (Provenance)
        #[arg(long)]
        fhir: bool,
    },
    /// Say what stands of one relationship
    Show {
        #[command(flatten)]
        ledger: LedgerArgs,
        /// Its name: 32 bytes in hexadecimal
        #[arg(long, value_name = "HEX", value_parser = parse_bytes::<32>)]
        relationship: [u8; 32],
        /// As a FHIR R4 Bundle: the Consent, and whose word it is (Provenance)
        #[arg(long)]
        fhir: bool,
    },
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::List { ledger, grantee, fhir } => list(&ledger, grantee.as_ref(), fhir).await,
        Command::Show { ledger, relationship, fhir } => {
            show(&ledger, RelationshipId(relationship), fhir).await
        }
    }
}

/// The newest grant and the highest revoked version of a relationship.
#[derive(Debug, Default)]
struct Known {
    grant: Option<SignedGrant>,
    /// The ledger's block that has the grant.
    block: u64,
    revoked: u64,
}

/// What the events come to.
async fn known(chain: &Chain, head: u64) -> Result<BTreeMap<RelationshipId, Known>, Failure> {
    let (mut all, mut at) = (BTreeMap::<_, Known>::new(), 0);
    while at <= head {
        let end = head.min(at.saturating_add(LOG_BLOCKS_MAX - 1));
        for event in chain.events(at, end).await? {
            if let Event::Granted(signed) = &event.event {
                let known = all.entry(signed.grant.relationship).or_default();
                (known.grant, known.block) = (Some(signed.clone()), event.block);
            } else if let Event::Revoked(signed) = &event.event {
                let known = all.entry(signed.revocation.relationship).or_default();
                known.revoked = known.revoked.max(signed.revocation.version);
            }
        }
        at = end + 1;
    }
    Ok(all)
}

/// In a word, at this time.
fn state(grant: &Grant, revoked: u64, now_s: u64) -> &'static str {
    if grant.version <= revoked {
        "revoked"
    } else if now_s < grant.from {
        "begins later"
    } else if now_s >= grant.until {
        "expired"
    } else {
        "stands"
    }
}

fn object(grant: &Grant, revoked: u64, now_s: u64) -> Value {
    json!({
        "relationship": grant.relationship.to_string(), "grantee": address(&grant.grantee),
        "classes": class_names(grant.classes), "purposes": purpose_names(grant.purposes),
        "from": utc(grant.from), "until": utc(grant.until), "stale_bound_s": grant.stale_bound_s,
        "version": grant.version, "revoked": revoked, "state": state(grant, revoked, now_s),
    })
}

const COLUMNS: [Column; 7] = [
    ("RELATIONSHIP", "/relationship"),
    ("GRANTEE", "/grantee"),
    ("CLASSES", "/classes"),
    ("FROM", "/from"),
    ("UNTIL", "/until"),
    ("VERSION", "/version"),
    ("STATE", "/state"),
];

/// A Consent and its Provenance for each.
async fn bundle(chain: &Chain, found: &[(SignedGrant, u64, u64)], now_s: u64) -> Outcome {
    let mut resources = Vec::new();
    for (signed, block, revoked) in found {
        let is_active = matches!(state(&signed.grant, *revoked, now_s), "stands" | "begins later");
        let consent = fhir::consent::of_grant(&signed.grant, is_active)?;
        let recorded = fhir::instant(chain.block_time(*block).await?).context("the block's time")?;
        resources.extend([consent, fhir::provenance::of_grant(signed, &recorded)]);
    }
    let bundle = fhir::collection(resources);
    Ok(Done::new(serde_json::to_string_pretty(&bundle)?, bundle))
}

async fn list(ledger: &LedgerArgs, grantee: Option<&RecipientId>, as_fhir: bool) -> Outcome {
    let chain = ledger.connect().await?;
    let head = chain.head().await?;
    let found: Vec<_> = known(&chain, head.number)
        .await?
        .into_values()
        .filter_map(|known| Some((known.grant?, known.block, known.revoked)))
        .filter(|(signed, ..)| grantee.is_none_or(|wanted| signed.grant.grantee == *wanted))
        .collect();
    if as_fhir {
        return bundle(&chain, &found, head.time_s).await;
    }
    let rows: Vec<_> =
        found.iter().map(|(signed, _, revoked)| object(&signed.grant, *revoked, head.time_s)).collect();
    Ok(Done::new(table(&rows, &COLUMNS), json!({ "consents": rows, "block": head.number })))
}

async fn show(ledger: &LedgerArgs, relationship: RelationshipId, as_fhir: bool) -> Outcome {
    let chain = ledger.connect().await?;
    let head = chain.head().await?;
    let known = known(&chain, head.number).await?.remove(&relationship).unwrap_or_default();
    let keys = chain.keys_version(&relationship).await?;
    let Some(signed) = known.grant else {
        return Err(anyhow!("nothing was granted in relationship {relationship}").into());
    };
    if as_fhir {
        return bundle(&chain, &[(signed, known.block, known.revoked)], head.time_s).await;
    }
    let grant = &signed.grant;
    let mut object = object(grant, known.revoked, head.time_s);
    object["keys_version"] = keys.into();
    let text = format!(
        "{}: {} to {} for {}, {} to {}; version {}, revoked up to {}, keys handed on {keys} times",
        state(grant, known.revoked, head.time_s),
        class_names(grant.classes),
        address(&grant.grantee),
        purpose_names(grant.purposes),
        utc(grant.from),
        utc(grant.until),
        grant.version,
        known.revoked
    );
    Ok(Done::new(text, object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_in_one_state() {
        let grant = Grant {
            relationship: RelationshipId([1; 32]),
            grantee: RecipientId([2; 20]),
            classes: 1,
            purposes: 1,
            from: 100,
            until: 200,
            stale_bound_s: 0,
            version: 3,
        };
        let states = [(0, 99), (0, 100), (2, 199), (0, 200), (3, 150)].map(|(r, now)| state(&grant, r, now));
        assert_eq!(states, ["begins later", "stands", "stands", "expired", "revoked"]);
    }
}
