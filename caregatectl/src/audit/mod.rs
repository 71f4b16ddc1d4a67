//! `caregatectl audit`: what the ledger's events say, and whether the daemons' audit logs are whole.

mod anchors;
mod events;
mod fhir;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use caregate_protocol::audit::{Hash, Line, leaf_hash};
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

/// The texts of several logs, of which some are in more files than one: a file whose first entry names the last of another goes on
/// where that one ends. One that goes on where none ends is a log of its own, which is then found to lack its beginning.
fn read_logs(files: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut logs: Vec<Vec<u8>> = Vec::new();
    for file in files {
        let text = read_log(std::slice::from_ref(file))?;
        let first = text.split(|byte| *byte == b'\n').next().and_then(|line| Line::decode(line).ok());
        let before = first.and_then(|first| logs.iter_mut().find(|log| end_of(log) == first.prev));
        match before {
            Some(log) => log.extend(text),
            None => logs.push(text),
        }
        let bytes: usize = logs.iter().map(Vec::len).sum();
        ensure!(bytes as u64 <= LOG_BYTES_MAX, "{}: the logs have more than 2 GiB", file.display());
    }
    Ok(logs)
}

/// The hash of a log's last whole line.
fn end_of(log: &[u8]) -> Hash {
    let lines = log.strip_suffix(b"\n").unwrap_or(log);
    leaf_hash(lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default())
}

/// Writes a file that others may read: it has no secret.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    let mut file = file.with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())
}
