//! `wallet grant`, `wallet revoke`, `wallet sign-revocation`.

use std::path::PathBuf;

use caregate_host::key_file::{self, Existing};
use caregate_protocol::policy::SignedRevocation;
use clap::{Args, ValueEnum};
use ledger_chain::Chain;
use ledger_client::wallet::{RelationshipKeys, Terms};
use serde_json::json;

use super::file::{KeystoreArgs, Open};
use crate::args::{class_names, hex0x, now_s, parse_classes, parse_purposes, purpose_names, utc};
use crate::door::DoorArgs;
use crate::fhir::consent;
use crate::files::{Unambiguous, read_json};
use crate::ledger::{NodeArgs, mined};
use crate::outcome::{Done, Failure, Outcome, say};

const DAY_S: u64 = 86_400;
/// Largest FHIR Consent that is read: one with a scanned form in it, which is refused anyway, by its path.
const CONSENT_BYTES_MAX: u64 = 1 << 20;

/// Let a recipient see: sign a grant and put it on the ledger
///
/// A new grant takes the place of the one before. There is no grant without an end.
#[derive(Debug, Args)]
pub(super) struct GrantArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// Which relationship
    #[arg(long)]
    label: String,
    /// Data classes, with commas: alarm, vitals, waveform, activity, sensitive; or all
    #[arg(long, default_value = "alarm,vitals,waveform,activity", value_parser = parse_classes)]
    classes: u32,
    /// Purposes, with commas: treatment, research, patient-request
    #[arg(long, default_value = "treatment", value_parser = parse_purposes)]
    purposes: u32,
    /// First second at which it holds, Unix time; one that has passed also gives what was sealed since then [default: now]
    #[arg(long, value_name = "UNIX_S")]
    from: Option<u64>,
    /// First second at which it holds no more, Unix time
    #[arg(long, value_name = "UNIX_S", conflicts_with = "days")]
    until: Option<u64>,
    /// For how many days it holds, from now on or from --from where that is later
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
    /// For how many seconds it goes on where the gateway can't refresh its policy; counts for those who treat, a day at most
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    stale_bound_s: u32,
    /// Take the terms from a FHIR R4 Consent (JSON); what a grant can't express is refused with its FHIRPath
    #[arg(long, value_name = "FILE", conflicts_with_all = ["classes", "purposes", "from", "until", "days"])]
    fhir_consent: Option<PathBuf>,
}

/// Let a recipient see no more: sign a revocation of every grant so far
///
/// It goes to the ledger. With --gateway or --feed it goes straight to the gateway, where it holds at once, ledger or not; the gateway sees
/// that the ledger gets it.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// Which relationship
    #[arg(long)]
    label: String,
    #[command(flatten)]
    door: DoorArgs,
    /// To the ledger as well, where --gateway or --feed is given
    #[arg(long, requires = "DoorArgs")]
    also_ledger: bool,
    /// End the relationship: no later grant of it counts either, and a new one needs `wallet relationship` with another label
    #[arg(long)]
    for_good: bool,
}

/// Sign a revocation of every grant so far into a file, for whoever carries it
#[derive(Debug, Args)]
pub(super) struct SignRevocationArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    /// Which relationship
    #[arg(long)]
    label: String,
    /// File for the signed revocation
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// For whom
    #[arg(long, value_enum, default_value = "cbor")]
    format: RevocationFormat,
    /// End the relationship: no later grant of it counts either. For a wallet that was restored and can't ask the ledger for versions
    #[arg(long)]
    for_good: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RevocationFormat {
    /// As a gateway takes it at /policy/revocation
    Cbor,
    /// As a controller takes it: `caregatectl revocation FILE`
    Json,
}

/// Learns what the ledger has, so that no version is signed twice by a wallet that was restored, and that the keys by now sign.
pub(super) async fn note_versions(open: &mut Open, chain: &Chain, label: &str) -> anyhow::Result<()> {
    let relationship = open.wallet.name(label)?;
    let (state, keys) = (chain.consent(&relationship).await?, chain.relationship_keys(&relationship).await?);
    open.wallet.note_keys(label, keys.version, &keys.grant_key)?;
    open.wallet.note_versions(label, state.version, state.revoked)?;
    Ok(())
}

fn terms(arguments: &GrantArgs, open: &Open) -> Result<Terms, Failure> {
    let Some(path) = &arguments.fhir_consent else {
        let now = now_s();
        let from = arguments.from.unwrap_or(now);
        return Ok(Terms {
            classes: arguments.classes,
            purposes: arguments.purposes,
            from,
            until: arguments.until.unwrap_or_else(|| from.max(now).saturating_add(arguments.days * DAY_S)),
            stale_bound_s: arguments.stale_bound_s,
        });
    };
    let Unambiguous(consent) = read_json(path, CONSENT_BYTES_MAX)?;
    let relationship = open.wallet.name(&arguments.label)?;
    let grantee = open.wallet.relationship(&arguments.label)?.grantee;
    consent::terms(&consent, &relationship, &grantee, arguments.stale_bound_s).map_err(|refusal| {
        let object = json!({ "path": refusal.path });
        Failure::Faulty { text: format!("{}: {refusal}", path.display()), object }
    })
}

pub(super) async fn grant(arguments: &GrantArgs) -> Outcome {
    let mut open = arguments.keystore.open()?;
    let chain = arguments.node.connect(&open.ledger()?.domain).await?;
    note_versions(&mut open, &chain, &arguments.label).await?;
    let granted_s = now_s();
    let terms = terms(arguments, &open)?;
    let signed = open.wallet.sign_grant(&arguments.label, &terms)?;
    let revoke_key = open.wallet.current_keys(&arguments.label)?.revoke.address();
    // Before it leaves: this version is taken now, whatever becomes of it.
    open.save()?;
    let sent = chain.grant(&signed, &revoke_key, &arguments.node.relay()?).await?;
    let grant = &signed.grant;
    let since = (grant.from < granted_s).then(|| format!(" what was sealed since {}, and", utc(grant.from)));
    Ok(Done::new(
        format!(
            "granted to {}:{} {} for {}, until {} (version {}, block {})",
            arguments.label,
            since.unwrap_or_default(),
            class_names(grant.classes),
            purpose_names(grant.purposes),
            utc(grant.until),
            grant.version,
            sent.block
        ),
        json!({
            "label": arguments.label, "relationship": grant.relationship.to_string(), "version": grant.version,
            "from": grant.from, "until": grant.until, "classes": class_names(grant.classes),
            "purposes": purpose_names(grant.purposes), "ledger": mined(&sent),
        }),
    ))
}

fn sign(
    open: &mut Open,
    label: &str,
    for_good: bool,
) -> anyhow::Result<(SignedRevocation, RelationshipKeys)> {
    let wallet = &mut open.wallet;
    let signed =
        if for_good { wallet.sign_revocation_for_good(label)? } else { wallet.sign_revocation(label)? };
    open.save()?;
    Ok((signed, open.wallet.keys(label)?))
}

pub(super) async fn revoke(arguments: &RevokeArgs) -> Outcome {
    let mut open = arguments.keystore.open()?;
    let domain = open.ledger()?.domain;
    let to_ledger = !arguments.door.is_given() || arguments.also_ledger;
    // Also for the gateway alone the ledger is asked which version is the newest: a wallet that was restored knows none.
    let chain = match arguments.node.connect(&domain).await {
        Ok(chain) => note_versions(&mut open, &chain, &arguments.label).await.map(|()| chain),
        Err(Failure::Failed(error)) => Err(error),
        Err(refused @ (Failure::Refused { .. } | Failure::Faulty { .. })) => return Err(refused),
    };
    let chain = match (chain, arguments.door.is_given()) {
        // Without a gateway the ledger is all there is.
        (Err(error), false) => return Err(error.into()),
        (Err(error), true) => {
            if !arguments.for_good {
                say(format_args!("warning: revokes the versions that this wallet knows of: {error:#}"));
            }
            Err(error)
        }
        (Ok(chain), _) => Ok(chain),
    };
    let (signed, keys) = sign(&mut open, &arguments.label, arguments.for_good)?;
    let version = signed.revocation.version;
    let mut done = json!({
        "label": arguments.label, "relationship": signed.revocation.relationship.to_string(), "version": version,
    });
    let mut text = format!("revoked: every grant to {} {}", arguments.label, up_to(version));
    if arguments.door.is_given() {
        let verdict = arguments.door.hand_over("revocation", signed.encode()).await?;
        text.push_str("; in force at the gateway");
        done["gateway"] = verdict;
    }
    if to_ledger {
        let sent = match chain {
            Ok(chain) => chain
                .revoke(&signed, &keys.revoke.address(), &arguments.node.relay()?)
                .await
                .map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        match sent {
            Ok(sent) => {
                text.push_str(&format!("; on the ledger in block {}", sent.block));
                done["ledger"] = mined(&sent);
            }
            // In force where it matters; the gateway goes on trying.
            Err(error) if arguments.door.is_given() => {
                say(format_args!("warning: not on the ledger yet: {error:#}"));
                done["ledger_error"] = format!("{error:#}").into();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Done::new(text, done))
}

fn up_to(version: u64) -> String {
    if version == u64::MAX { "for good".to_owned() } else { format!("up to version {version}") }
}

pub(super) fn sign_revocation(arguments: &SignRevocationArgs) -> Outcome {
    let mut open = arguments.keystore.open()?;
    let (signed, keys) = sign(&mut open, &arguments.label, arguments.for_good)?;
    let other_key = hex0x(&keys.revoke.address().0);
    let bytes = match arguments.format {
        RevocationFormat::Cbor => signed.encode(),
        RevocationFormat::Json => {
            let SignedRevocation { revocation, signature } = &signed;
            let file = json!({
                "relationship": revocation.relationship, "version": revocation.version, "signature": signature,
                "other_key": other_key,
            });
            format!("{file}\n").into_bytes()
        }
    };
    key_file::write(&arguments.out, &bytes, Existing::Replace)?;
    let out = arguments.out.display();
    Ok(Done::new(
        format!(
            "{out} revokes every grant to {} up to version {}",
            arguments.label, signed.revocation.version
        ),
        json!({
            "file": arguments.out, "label": arguments.label, "version": signed.revocation.version,
            "relationship": signed.revocation.relationship.to_string(),
            "other_key": other_key,
        }),
    ))
}
