//! `audit events`: what the ledger's events say, for a person.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use ledger_chain::{Chain, Event, LOG_BLOCKS_MAX, LedgerEvent};
use ledger_client::verify::NextKeys;
use serde_json::{Value, json};

use crate::args::{address, class_names, hex0x, purpose_names, utc};
use crate::ledger::LedgerArgs;
use crate::outcome::{Done, Failure, Outcome, say};

/// Pause between two looks for new blocks.
const FOLLOW_POLL: Duration = Duration::from_millis(500);

/// Show the ledger's events: who granted, revoked, bound, registered, broke the glass
///
/// The ledger names nobody: relationships, devices and pseudonyms are random. What is shown is what the node says; gateways verify.
/// With --json each event is one line; the last line says up to which block was read.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// First block
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_block: u64,
    /// Go on with new events until interrupted
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(arguments: Arguments, as_json: bool) -> Outcome {
    let chain = arguments.ledger.connect().await?;
    let mut next = arguments.from_block;
    let mut shown: u64 = 0;
    loop {
        let head = chain.head().await?.number;
        shown += show(&chain, next, head, as_json).await?;
        next = next.max(head + 1);
        if !arguments.follow {
            let text = format!("{shown} events up to block {head}");
            return Ok(Done::new(text, json!({ "events": shown, "block": head })));
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_POLL) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                let text = format!("{shown} events up to block {head}");
                return Ok(Done::new(text, json!({ "events": shown, "block": head })));
            }
        }
    }
}

async fn show(chain: &Chain, from: u64, to: u64, as_json: bool) -> Result<u64, Failure> {
    let (mut at, mut shown) = (from, 0);
    while at <= to {
        let end = to.min(at.saturating_add(LOG_BLOCKS_MAX - 1));
        for event in chain.events(at, end).await? {
            let line = if as_json { object(&event).to_string() } else { sentence(&event) };
            writeln!(std::io::stdout().lock(), "{line}")?;
            shown += 1;
        }
        if end < to {
            say(format_args!("read up to block {end} of {to}"));
        }
        at = end + 1;
    }
    Ok(shown)
}

fn object(event: &LedgerEvent) -> Value {
    let mut object = details(&event.event);
    object["event"] = event.event.name().into();
    object["block"] = event.block.into();
    object["transaction"] = hex0x(&event.transaction).into();
    object
}

fn details(event: &Event) -> Value {
    match event {
        Event::Granted(signed) => {
            let grant = &signed.grant;
            json!({
                "relationship": grant.relationship.to_string(), "grantee": address(&grant.grantee),
                "classes": class_names(grant.classes), "purposes": purpose_names(grant.purposes),
                "from": grant.from, "until": grant.until, "stale_bound_s": grant.stale_bound_s,
                "version": grant.version,
            })
        }
        Event::Revoked(signed) => json!({
            "relationship": signed.revocation.relationship.to_string(), "version": signed.revocation.version,
        }),
        Event::DeviceBound { key, binding } => json!({
            "binding": hex0x(&key.0), "bound": binding.bound, "version": binding.version,
        }),
        Event::ParticipantSet { participant, status, kind, emergency } => json!({
            "participant": address(participant), "status": status, "kind": kind, "emergency": emergency,
        }),
        Event::ParticipantKeySet(signed) => json!({
            "participant": address(&signed.participant), "version": signed.version,
            "hpke_public_key": hex::encode(signed.hpke_public_key),
        }),
        Event::EmergencyOpened(signed) => {
            let emergency = &signed.emergency;
            json!({
                "pseudonym": hex::encode(emergency.pseudonym.0), "domain": address(&emergency.domain),
                "from": emergency.from, "until": emergency.until, "number": emergency.number,
                "clinician": hex0x(&emergency.clinician.0), "reason": hex0x(&emergency.reason.0),
            })
        }
        Event::EmergencyReviewed { pseudonym, domain, number } => json!({
            "pseudonym": hex::encode(pseudonym.0), "domain": address(domain), "number": number,
        }),
        Event::KeysRotated(next) => json!({
            "relationship": next.relationship.to_string(), "version": next.version,
            "grant_key": hex0x(&next.grant_key), "revoke_key": hex0x(&next.revoke_key),
        }),
        Event::KeysRecovered(next) => json!({
            "relationship": next.relationship.to_string(), "version": next.version,
            "grant_key": hex0x(&next.grant_key.0), "revoke_key": hex0x(&next.revoke_key.0),
        }),
        Event::CustodiansSet(custody) => json!({
            "relationship": custody.relationship.to_string(), "version": custody.version,
        }),
        Event::RecoveryBegun(recovery) => json!({
            "relationship": recovery.next.relationship.to_string(), "ready_at": recovery.ready_at,
        }),
        Event::Anchored(signed) => json!({
            "log": hex0x(&signed.anchor.log.0), "first": signed.anchor.first, "last": signed.anchor.last,
            "root": hex0x(&signed.anchor.root),
        }),
        Event::ChangeApproved { change, governor, ready_at } => json!({
            "change": hex0x(change), "governor": hex0x(&governor.0), "ready_at": ready_at,
        }),
        Event::ChangeOpposed { change, governor, stopped } => json!({
            "change": hex0x(change), "governor": hex0x(&governor.0), "stopped": stopped,
        }),
        Event::CouncilSet(council) => json!({
            "governors": council.governors.iter().map(|one| hex0x(&one.0)).collect::<Vec<_>>(),
            "threshold": council.threshold, "delay_s": council.delay_s, "version": council.version,
        }),
    }
}

/// Keys' succession, audit logs and governance.
#[expect(clippy::wildcard_enum_match_arm, reason = "`sentence` has the others")]
fn later(event: &Event) -> String {
    match event {
        Event::KeysRotated(next) => {
            format!("relationship {} has other keys (version {})", next.relationship, next.version)
        }
        Event::KeysRecovered(next) => {
            let NextKeys { relationship, version, .. } = next;
            format!(
                "relationship {relationship} has the keys that its custodians asked for (version {version})"
            )
        }
        Event::CustodiansSet(custody) => {
            format!("relationship {} names custodians (version {})", custody.relationship, custody.version)
        }
        Event::RecoveryBegun(recovery) => {
            let relationship = recovery.next.relationship;
            format!(
                "custodians of relationship {relationship} ask for other keys, from {}",
                utc(recovery.ready_at)
            )
        }
        Event::Anchored(signed) => {
            let anchor = &signed.anchor;
            format!("log {} anchors entries {} to {}", hex0x(&anchor.log.0), anchor.first, anchor.last)
        }
        Event::ChangeApproved { change, governor, .. } => {
            format!("governor {} is for change {}", hex0x(&governor.0), hex0x(change))
        }
        Event::ChangeOpposed { change, governor, stopped } => {
            let stopped = if *stopped { ", which is stopped" } else { "" };
            format!("governor {} is against change {}{stopped}", hex0x(&governor.0), hex0x(change))
        }
        Event::CouncilSet(council) => {
            format!(
                "{} of {} govern (version {})",
                council.threshold,
                council.governors.len(),
                council.version
            )
        }
        _ => event.name().to_owned(),
    }
}

fn sentence(event: &LedgerEvent) -> String {
    let text = match &event.event {
        Event::Granted(signed) => {
            let grant = &signed.grant;
            format!(
                "relationship {} grants {} to {} for {}, {} to {} (version {})",
                grant.relationship,
                class_names(grant.classes),
                address(&grant.grantee),
                purpose_names(grant.purposes),
                utc(grant.from),
                utc(grant.until),
                grant.version
            )
        }
        Event::Revoked(signed) => format!(
            "relationship {} revokes every grant up to version {}",
            signed.revocation.relationship, signed.revocation.version
        ),
        Event::DeviceBound { key, binding } => {
            let what = if binding.bound { "bound" } else { "released" };
            format!("device binding {} is {what} (version {})", hex0x(&key.0), binding.version)
        }
        Event::ParticipantSet { participant, status, kind, emergency } => format!(
            "participant {} is {}, {}{}",
            address(participant),
            status.map_or("unknown", |status| match status {
                caregate_protocol::policy::RecipientStatus::Active => "active",
                caregate_protocol::policy::RecipientStatus::Suspended => "suspended",
            }),
            match kind {
                caregate_protocol::policy::RecipientKind::Treating => "treating",
                caregate_protocol::policy::RecipientKind::Other => "other",
            },
            if *emergency { ", may break the glass" } else { "" }
        ),
        Event::ParticipantKeySet(signed) => {
            format!("participant {} has HPKE key version {}", address(&signed.participant), signed.version)
        }
        Event::EmergencyOpened(signed) => {
            let emergency = &signed.emergency;
            format!(
                "{} breaks the glass for {}, {} to {} (number {})",
                address(&emergency.domain),
                hex::encode(emergency.pseudonym.0),
                utc(emergency.from),
                utc(emergency.until),
                emergency.number
            )
        }
        Event::EmergencyReviewed { pseudonym, domain, number } => {
            format!("emergency {number} of {} for {} was reviewed", address(domain), hex::encode(pseudonym.0))
        }
        other @ (Event::KeysRotated(_)
        | Event::KeysRecovered(_)
        | Event::CustodiansSet(_)
        | Event::RecoveryBegun(_)
        | Event::Anchored(_)
        | Event::ChangeApproved { .. }
        | Event::ChangeOpposed { .. }
        | Event::CouncilSet(_)) => later(other),
    };
    format!("{:>8}  {text}", event.block)
}
