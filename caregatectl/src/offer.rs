//! `caregatectl offer`: hands a file that carries its own authority to a gateway.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use caregate_protocol::offer::Kind;
use clap::Args;
use serde_json::json;

use crate::door::DoorArgs;
use crate::outcome::{Done, Outcome};

/// Hand a gateway a policy bundle, a signed revocation or a signed emergency out of a file, at its local door or by a feed and the core
///
/// Whoever hands it in learns only whether it counts. What is in it is the patient's, the domain's or the ledger's word, and the gateway
/// verifies it as what comes from a controller.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What it is: bundle, revocation or emergency
    #[arg(value_parser = parse_kind)]
    kind: Kind,
    /// The file: as `gateways bundle` or `wallet sign-revocation` writes it
    file: PathBuf,
    #[command(flatten)]
    door: DoorArgs,
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| "must be bundle, revocation or emergency".to_owned())
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let Arguments { kind, file, door } = arguments;
    let named = || file.display().to_string();
    let bytes = std::fs::metadata(&file).with_context(named)?.len();
    let fits = usize::try_from(bytes).is_ok_and(|bytes| bytes <= kind.bytes_max());
    if !fits {
        let (kind, most) = (kind.as_str(), kind.bytes_max());
        return Err(anyhow!("{}: a {kind} has at most {most} bytes", named()).into());
    }
    let message = std::fs::read(&file).with_context(named)?;
    let verdict = door.hand_over(kind.as_str(), message).await?;
    let text =
        format!("the {} is in force at the gateway (policy epoch {})", kind.as_str(), verdict["epoch"]);
    Ok(Done::new(text, json!({ "kind": kind.as_str(), "gateway": verdict })))
}
