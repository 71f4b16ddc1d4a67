//! `wallet list`.

use clap::Args;
use ledger_chain::ConsentState;
use serde_json::json;

use super::file::KeystoreArgs;
use crate::args::{address, utc};
use crate::ledger::NodeArgs;
use crate::outcome::{Done, Outcome};
use crate::table::{Column, table};

const COLUMNS: [Column; 5] = [
    ("LABEL", "/label"),
    ("GRANTEE", "/grantee"),
    ("VERSION", "/version"),
    ("UNTIL", "/until"),
    ("STATE", "/state"),
];

/// List who may see: each relationship as the ledger has it now
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// In a word, at this time.
fn state(consent: &ConsentState, now_s: u64) -> &'static str {
    if consent.version == 0 && consent.revoked == 0 {
        "nothing granted yet"
    } else if consent.version <= consent.revoked {
        "revoked"
    } else if now_s >= consent.until {
        "expired"
    } else {
        "granted"
    }
}

pub(super) async fn run(arguments: &ListArgs) -> Outcome {
    let open = arguments.keystore.open()?;
    let chain = arguments.node.connect(&open.ledger()?.domain).await?;
    let head = chain.head().await?;
    let mut rows = Vec::new();
    for known in &open.wallet.relationships {
        let relationship = open.wallet.name(&known.label)?;
        let consent = chain.consent(&relationship).await?;
        rows.push(json!({
            "label": known.label, "relationship": relationship.to_string(), "grantee": address(&known.grantee),
            "version": consent.version, "revoked": consent.revoked,
            "until": (consent.until > 0).then(|| utc(consent.until)), "state": state(&consent, head.time_s),
        }));
    }
    Ok(Done::new(table(&rows, &COLUMNS), json!({ "relationships": rows, "block": head.number })))
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::RecipientId;

    use super::*;

    #[test]
    fn a_relationship_is_in_one_state() {
        let consent =
            |version, revoked| ConsentState { version, revoked, until: 200, grantee: RecipientId([1; 20]) };
        let states = [(0, 0, 5), (1, 0, 199), (1, 0, 200), (1, 1, 5), (2, 1, 5), (0, 3, 5)];
        let states = states.map(|(version, revoked, now_s)| state(&consent(version, revoked), now_s));
        let expected = ["nothing granted yet", "granted", "expired", "revoked", "granted", "revoked"];
        assert_eq!(states, expected);
    }
}
