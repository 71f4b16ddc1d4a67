//! How a command ends: what it says, and its status.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use ledger_chain::{ChainError, SendError};
use serde_json::{Value, json};

/// Status of a command that the other side refused.
const REFUSED: u8 = 3;
/// Status of a check that found something.
const FAULTY: u8 = 4;

/// What a command has to say.
#[derive(Debug)]
pub(crate) struct Done {
    /// For a person; may have several lines.
    pub(crate) text: String,
    /// One object.
    pub(crate) json: Value,
}

impl Done {
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json }
    }
}

/// Why a command did not do what it was told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Here, or on the way.
    Failed(anyhow::Error),
    /// By ledger, gateway or controller.
    Refused {
        /// One sentence.
        text: String,
        /// Its word for the reason.
        reason: String,
    },
    /// What was to be checked is not as it should be.
    Faulty {
        /// One sentence.
        text: String,
        /// What and where, for programs.
        object: Value,
    },
}

pub(crate) type Outcome = Result<Done, Failure>;

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let refusal = match (error.downcast_ref::<SendError>(), error.downcast_ref::<ChainError>()) {
            (Some(SendError::Refused(refusal)), _) | (_, Some(ChainError::Refused(refusal))) => Some(refusal),
            _ => None,
        };
        match refusal {
            Some(refusal) => Self::Refused { text: format!("{error:#}"), reason: refusal.name.clone() },
            None => Self::Failed(error),
        }
    }
}

impl Failure {
    pub(crate) fn refused(text: impl Display, reason: impl Display) -> Self {
        Self::Refused { text: text.to_string(), reason: reason.to_string() }
    }

    /// For a person, where the command goes on all the same.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Failed(error) => format!("{error:#}"),
            Self::Refused { text, .. } | Self::Faulty { text, .. } => text.clone(),
        }
    }
}

/// A line for whoever waits, on standard error: results alone go to standard output.
pub(crate) fn say(text: impl Display) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Says how a command ended.
pub(crate) fn report(as_json: bool, outcome: Outcome) -> ExitCode {
    let (line, code) = match outcome {
        Ok(done) if as_json => (done.json.to_string(), ExitCode::SUCCESS),
        Ok(done) => (done.text, ExitCode::SUCCESS),
        Err(failure) => {
            let (text, mut object, code) = match failure {
                Failure::Failed(error) => (format!("{error:#}"), json!({}), ExitCode::FAILURE),
                Failure::Refused { text, reason } => {
                    (text, json!({ "refused": reason }), ExitCode::from(REFUSED))
                }
                Failure::Faulty { text, object } => (text, object, ExitCode::from(FAULTY)),
            };
            say(format_args!("error: {text}"));
            if !as_json {
                return code;
            }
            object["error"] = text.into();
            (object.to_string(), code)
        }
    };
    match writeln!(std::io::stdout().lock(), "{line}") {
        Ok(()) => code,
        // Whoever read it has gone.
        Err(_closed) => ExitCode::FAILURE,
    }
}
