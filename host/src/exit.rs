//! How a daemon says why it ends: one sentence on standard error, and a status.

use std::error::Error;
use std::process::ExitCode;

/// Status 0, or status 1 and one line with the chain of reasons.
#[expect(clippy::print_stderr, reason = "the last word of a process whose logging may not have started")]
pub fn code(outcome: Result<(), impl AsRef<dyn Error + Send + Sync>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", sentence(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The error and its sources; one that already says its source in its own words is not followed by it again.
fn sentence(error: &(dyn Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("no such thing")]
    struct Inner;

    #[derive(Debug, Error)]
    enum Outer {
        #[error("file x: {0}")]
        Says(#[source] Inner),
        #[error("reading file x")]
        LeavesOut(#[source] Inner),
    }

    #[test]
    fn each_reason_is_said_once() {
        assert_eq!(sentence(&Outer::Says(Inner)), "file x: no such thing");
        assert_eq!(sentence(&Outer::LeavesOut(Inner)), "reading file x: no such thing");
    }
}
