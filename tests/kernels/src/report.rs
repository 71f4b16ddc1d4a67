//! What this process says at its end: one line, which begins with [`MARK`].

use std::io::Write;

use serde::Serialize;

/// Tells the line from the kernel's own.
pub(crate) const MARK: &str = "caregate-kernels: ";

/// The line.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// `uname -r`
    pub(crate) version: String,
    /// All programs went through the verifier and are attached.
    pub(crate) loaded: bool,
    pub(crate) programs: Vec<Program>,
    pub(crate) total: usize,
    pub(crate) passed: usize,
    /// Cases that failed, each with what came instead.
    pub(crate) failed: Vec<String>,
    /// What kept it from going on.
    pub(crate) error: Option<String>,
}

/// A program in this kernel.
#[derive(Debug, Serialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    /// Instructions that the verifier followed, on all paths together.
    pub(crate) verified_insns: u32,
    /// 0 where the kernel interprets it.
    pub(crate) jited_bytes: u32,
}

/// Lines of a verifier's log in the report: the last ones say why. All of it goes to the console.
const LOG_LINES: usize = 8;

impl Report {
    /// Takes a program that the kernel refuses.
    pub(crate) fn refused(&mut self, name: &str, error: &anyhow::Error) {
        let said = format!("{error:#}");
        // A console that can't be written is told by the missing report.
        drop(writeln!(std::io::stdout().lock(), "{name}: {said}"));
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        self.failed.push(format!("{name}: refused: {}", last.join("\n")));
    }

    /// Takes a case's outcome.
    pub(crate) fn case(&mut self, name: &str, outcome: anyhow::Result<()>) {
        self.total += 1;
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.failed.push(format!("{name}: {error:#}")),
        }
    }
}
