//! `audit fhir`: an audit log as FHIR AuditEvents.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use caregate_protocol::audit::{leaf_hash, verify};
use clap::Args;
use serde_json::json;

use super::read_log;
use crate::fhir::audit_event;
use crate::outcome::{Done, Outcome};

/// Write an audit log as FHIR R4 AuditEvents, one a line (NDJSON); the log is checked first
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The log's files, oldest first; repeated
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// Whose log it is: the name of the gateway, core or domain
    #[arg(long, value_name = "NAME")]
    source: String,
    /// New file for the AuditEvents (mode 0600)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    use std::os::unix::fs::OpenOptionsExt as _;
    let text = read_log(&arguments.log)?;
    let log = verify::log(&text, &[]).map_err(|fault| super::verify::faulty(&fault, "log"))?;
    let named = || arguments.out.display().to_string();
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&arguments.out);
    let mut out = std::io::BufWriter::new(file.with_context(named)?);
    let (mut written, mut left_out) = (0_u64, 0_u64);
    for (line, bytes) in log.lines.iter().zip(text.split(|byte| *byte == b'\n')) {
        match audit_event::of_line(line, &leaf_hash(bytes), &arguments.source) {
            Some(event) => {
                writeln!(out, "{event}").with_context(named)?;
                written += 1;
            }
            None => left_out += 1,
        }
    }
    out.flush().with_context(named)?;
    Ok(Done::new(
        format!(
            "{} has {written} AuditEvents; {left_out} entries have a time that FHIR can't write",
            named()
        ),
        json!({ "file": arguments.out, "audit_events": written, "left_out": left_out }),
    ))
}
