//! What comes of the datapath's programs in a kernel.

use std::io::Write;

use serde::{Deserialize, Serialize};

/// One kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// All programs went through the verifier and are attached.
    pub loaded: bool,
    /// What each program costs.
    pub programs: Vec<Program>,
    /// Cases that were run.
    pub total: usize,
    /// Those that came out as they should.
    pub passed: usize,
    /// Those that failed, each with what came instead.
    pub failed: Vec<String>,
}

/// A program in this kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// As the object names it.
    pub name: String,
    /// Instructions that the verifier followed, on all paths together.
    pub verified_insns: u32,
    /// 0 where the kernel interprets it.
    pub jited_bytes: u32,
}

/// Lines of a verifier's log in the report: the last ones say why. All of it goes to the console.
const LOG_LINES: usize = 8;

impl Report {
    /// Takes a program that the kernel refuses.
    pub fn refused(&mut self, name: &str, error: &anyhow::Error) {
        let said = format!("{error:#}");
        // A console that can't be written is told by the missing report.
        drop(writeln!(std::io::stdout().lock(), "{name}: {said}"));
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        self.failed.push(format!("{name}: refused: {}", last.join("\n")));
    }

    /// Takes a case's outcome.
    pub fn case(&mut self, name: &str, outcome: anyhow::Result<()>) {
        self.total += 1;
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.failed.push(format!("{name}: {error:#}")),
        }
    }
}
