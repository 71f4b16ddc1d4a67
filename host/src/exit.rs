//! How a daemon says why it ends: one sentence on standard error, and a status.

use std::fmt::Display;
use std::process::ExitCode;

/// Status 0, or status 1 and one line with the whole chain of reasons.
#[expect(clippy::print_stderr, reason = "the last word of a process whose logging may not have started")]
pub fn code(outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
