//! Logs to standard error, as text for people or JSON for collectors. `CAREGATE_LOG` filters (`info`, `edge_gateway=debug,warn`).

use std::io::IsTerminal;

use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable with the filter.
pub const FILTER_VARIABLE: &str = "CAREGATE_LOG";

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for a person; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, Error)]
pub enum LogError {
    /// `CAREGATE_LOG` holds something else than a filter.
    #[error("{FILTER_VARIABLE} is not a log filter: {0}")]
    Filter(#[from] ParseError),
    /// Logging was already started in this process.
    #[error("logging was already started: {0}")]
    Started(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging for the whole process; level `info` where `CAREGATE_LOG` is not set or names only some targets.
///
/// The filter knows targets and levels. Filters by span and field would bring a regular-expression engine into every daemon,
/// a megabyte on a router's flash.
///
/// # Errors
/// When `CAREGATE_LOG` can't be read as a filter, or logging already runs.
pub fn init(format: LogFormat) -> Result<(), LogError> {
    let text = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    // An empty text would parse as a directive that turns everything off.
    let mut filter = if text.is_empty() { Targets::new() } else { text.parse::<Targets>()? };
    if filter.default_level().is_none() {
        filter = filter.with_default(LevelFilter::INFO);
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(|e| LogError::Started(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child;

    const NAME: &str = "log::tests::the_filter_comes_from_the_environment";

    /// In the child, because logging and the environment belong to the whole process.
    #[test]
    fn the_filter_comes_from_the_environment() {
        if child::is_child() {
            match init(LogFormat::Json) {
                Ok(()) => {
                    tracing::debug!(count = 7, "fine");
                    println!("again: {}", init(LogFormat::Text).is_err());
                }
                Err(error) => println!("refused: {error}"),
            }
            return;
        }
        let output = child::run(NAME, FILTER_VARIABLE, "caregate_host=debug");
        let line = output.lines().find(|line| line.contains("fine")).unwrap();
        assert!(line.starts_with('{') && line.contains("\"count\":7") && line.ends_with('}'), "{line}");
        assert!(output.contains("again: true"), "{output}");
        assert!(!child::run(NAME, FILTER_VARIABLE, "info").contains("fine"));
        let output = child::run(NAME, FILTER_VARIABLE, "caregate_host=loud");
        assert!(output.contains("refused: CAREGATE_LOG is not a log filter"), "{output}");
    }
}
