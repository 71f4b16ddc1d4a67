//! `caregatectl audit`: what the ledger's events say, and whether the daemons' audit logs are whole.

mod anchors;
mod events;
mod fhir;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};

use crate::outcome::Outcome;

/// Largest log that is read, all its files together: some ten million entries, which fit in memory.
const LOG_BYTES_MAX: u64 = 2 << 30;

/// The ledger's events; the audit logs of gateways, core and feeds: anchor, verify, show as FHIR.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Events(events::Arguments),
    Anchor(anchors::AnchorArgs),
    Anchors(anchors::AnchorsArgs),
    Verify(verify::Arguments),
    Fhir(fhir::Arguments),
}

pub(crate) async fn run(arguments: Arguments, as_json: bool) -> Outcome {
    match arguments.command {
        Command::Events(arguments) => events::run(arguments, as_json).await,
        Command::Anchor(arguments) => anchors::anchor(&arguments).await,
        Command::Anchors(arguments) => anchors::anchors(&arguments).await,
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Fhir(arguments) => fhir::run(&arguments),
    }
}

/// A log's text, out of its files in their order.
fn read_log(files: &[PathBuf]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    for file in files {
        let named = || file.display().to_string();
        let bytes = std::fs::metadata(file).with_context(named)?.len();
        ensure!(bytes + text.len() as u64 <= LOG_BYTES_MAX, "{}: the log has more than 2 GiB", named());
        text.extend(std::fs::read(file).with_context(named)?);
    }
    Ok(text)
}

/// Writes a file that others may read: it has no secret.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    let mut file = file.with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())
}
