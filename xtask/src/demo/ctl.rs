//! `caregatectl`, called as a person would: as the operator, as a patient, as a hospital's administrator.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::network::{Network, Place};

/// The program, and from where it is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ctl<'a> {
    pub(super) program: &'a std::path::Path,
    pub(super) network: &'a Network,
}

/// What a call came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Exit status; 3 is "refused by the other side".
    pub(super) status: i32,
    /// The last line of standard output as JSON, null where there is none.
    pub(super) json: Value,
    /// All of standard output.
    pub(super) stdout: String,
    stderr: String,
    call: String,
}

impl Outcome {
    /// The JSON of a call that succeeded.
    pub(super) fn done(self) -> anyhow::Result<Value> {
        if self.status != 0 {
            bail!("{}: status {}: {}", self.call, self.status, self.stderr.trim());
        }
        Ok(self.json)
    }
}

impl Ctl<'_> {
    /// Calls it with `--json` in a place; in the machine's own namespace where none is said.
    pub(super) fn call(&self, place: Option<Place>, arguments: &[&str]) -> anyhow::Result<Outcome> {
        let mut words = place.map(|place| self.network.prefix(place)).unwrap_or_default();
        words.push(self.program.display().to_string());
        let call = format!("caregatectl {}", arguments.join(" "));
        let mut command = Command::new(words.first().map(PathBuf::from).context("no program")?);
        command.args(words.iter().skip(1)).arg("--json").args(arguments);
        let output = command.stdin(Stdio::null()).output().with_context(|| call.clone())?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(Outcome {
            status: output.status.code().unwrap_or(-1),
            json: serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or(Value::Null),
            stdout: text.into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            call,
        })
    }
}

/// A text field of an answer.
pub(super) fn text(answer: &Value, key: &str) -> anyhow::Result<String> {
    answer[key].as_str().map(str::to_owned).with_context(|| format!("no `{key}` in {answer}"))
}
