//! The pages that people look at, open in headless Chromium: whether they show what the story says.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use serde::Deserialize;
use serde_json::{Value, json};

use super::network::Network;
use super::process::{Process, Start, wait_until};
use crate::build;

/// Time for the browser to start, and for one command beyond what it waits for itself.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at the answers: `quarantine_ms` and its like are not measured through them.
const POLL: Duration = Duration::from_millis(25);

/// The browser.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) process: Process,
    commands: PathBuf,
    answers: PathBuf,
    next: u64,
}

/// A field of a login form: its selector and what to fill in.
pub(super) type Field<'a> = (&'a str, &'a str);

#[derive(Debug, Deserialize)]
struct Answer {
    id: u64,
    ok: bool,
    error: Option<String>,
}

impl Pages {
    pub(super) fn start(network: &Network, dir: &Path, node: &Path) -> anyhow::Result<Self> {
        let script = build::root()?.join("clinician-feed/web/e2e/pages.mjs");
        let (commands, answers, logs) =
            (dir.join("pages.commands.jsonl"), dir.join("pages.answers.jsonl"), dir.join("logs"));
        std::fs::File::create(&commands).with_context(|| commands.display().to_string())?;
        let arguments = vec![
            script.display().to_string(),
            "--commands".into(),
            commands.display().to_string(),
            "--out".into(),
            answers.display().to_string(),
        ];
        let start =
            Start { name: "pages", place: None, program: node, arguments, listeners: &[], logs: &logs };
        let mut process = Process::start(network, start)?;
        let log = logs.join("pages.log");
        wait_until("the browser stands", BROWSER_TIMEOUT, &mut [&mut process], || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.lines().any(|line| line == "ready"))
        })?;
        Ok(Self { process, commands, answers, next: 1 })
    }

    /// Opens a page, and fills in its login where there is one.
    pub(super) fn open(&mut self, name: &str, url: &str, login: &[Field<'_>]) -> anyhow::Result<()> {
        let fill: serde_json::Map<String, Value> =
            login.iter().map(|(field, text)| ((*field).to_owned(), json!(text))).collect();
        self.perform(
            json!({"open": name, "url": url, "fill": fill, "submit": "button[type=submit]"}),
            BROWSER_TIMEOUT,
        )
        .with_context(|| format!("open the page {name}"))
    }

    /// Waits until the page shows text that matches `pattern` (a regular expression of JavaScript, in any case of letters).
    pub(super) fn expect(&mut self, name: &str, pattern: &str, timeout: Duration) -> anyhow::Result<()> {
        let command = json!({"expect": name, "text": pattern, "timeout_ms": timeout.as_millis()});
        let shown = self.perform(command, timeout + BROWSER_TIMEOUT);
        if shown.is_err() {
            // What it showed instead, for a person.
            let picture = self.commands.with_file_name(format!("{name}.png"));
            drop(self.screenshot(name, &picture));
        }
        shown.with_context(|| format!("the page {name}"))
    }

    /// Sends JSON from an open page, as its script would, and waits for a good answer.
    pub(super) fn post(
        &mut self,
        name: &str,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        let command = json!({"post": name, "path": path, "body": body, "timeout_ms": timeout.as_millis()});
        self.perform(command, timeout + BROWSER_TIMEOUT)
            .with_context(|| format!("{path} from the page {name}"))
    }

    /// Fills in a form: texts, what is chosen from a list, files, and what is ticked; each by its selector.
    pub(super) fn fill(
        &mut self,
        name: &str,
        texts: &[Field<'_>],
        chosen: &[Field<'_>],
        files: &[(&str, &Path)],
        ticked: &[&str],
    ) -> anyhow::Result<()> {
        let of = |fields: &[Field<'_>]| -> serde_json::Map<String, Value> {
            fields.iter().map(|(field, text)| ((*field).to_owned(), json!(text))).collect()
        };
        let files = files
            .iter()
            .map(|(field, path)| Ok(((*field).to_owned(), json!(std::path::absolute(path)?))))
            .collect::<anyhow::Result<serde_json::Map<_, _>>>()?;
        let command =
            json!({"form": name, "fill": of(texts), "select": of(chosen), "files": files, "check": ticked});
        self.perform(command, BROWSER_TIMEOUT).with_context(|| format!("fill in a form of the page {name}"))
    }

    /// Presses the first button with this text.
    pub(super) fn click(&mut self, name: &str, button: &str) -> anyhow::Result<()> {
        self.perform(json!({"click": name, "button": button}), BROWSER_TIMEOUT)
            .with_context(|| format!("press {button} on the page {name}"))
    }

    /// Saves a picture.
    pub(super) fn screenshot(&mut self, name: &str, file: &Path) -> anyhow::Result<()> {
        let path = std::path::absolute(file)?.display().to_string();
        self.perform(json!({"screenshot": name, "path": path}), BROWSER_TIMEOUT)
    }

    fn perform(&mut self, mut command: Value, timeout: Duration) -> anyhow::Result<()> {
        let id = self.next;
        self.next += 1;
        command["id"] = json!(id);
        let mut file = std::fs::File::options().append(true).open(&self.commands)?;
        writeln!(file, "{command}")?;
        let deadline = clock::monotonic() + timeout;
        loop {
            if let Some(answer) = self.answer(id)? {
                return match answer {
                    Answer { ok: true, .. } => Ok(()),
                    Answer { error, .. } => bail!("{}", error.unwrap_or_else(|| "failed".into())),
                };
            }
            self.process.alive()?;
            if clock::monotonic() > deadline {
                bail!("the browser did not answer within {} s", timeout.as_secs());
            }
            std::thread::sleep(POLL);
        }
    }

    fn answer(&self, id: u64) -> anyhow::Result<Option<Answer>> {
        let text =
            std::fs::read_to_string(&self.answers).with_context(|| self.answers.display().to_string())?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let answer: Answer =
                serde_json::from_str(line).with_context(|| format!("the browser said: {line}"))?;
            if answer.id == id {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }
}
