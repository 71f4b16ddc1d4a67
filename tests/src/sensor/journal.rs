//! The simulator's own record of what it published and what was acknowledged: the yardstick for everything downstream.
//!
//! One JSON line per publication and one per PUBACK. A line is written when it happens and flushed as soon as no other
//! waits, so the file is complete after any orderly end.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::mpsc;

/// Lines that may wait for the disk: ten seconds of fifty devices with four channels.
const LINES_WAITING_MAX: usize = 16_384;

/// What kind of reading it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A waveform chunk.
    Wave,
    /// A numeric.
    Num,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A reading was handed to the client.
    Published {
        /// Its device.
        device: String,
        /// Its channel or metric.
        stream: String,
        /// Its count in that stream.
        seq: u64,
        /// Unix milliseconds at the hand-over: when the reading was complete, whether or not a connection stood.
        published_ms: f64,
        /// What kind.
        kind: Kind,
        /// The sensor's time in the payload, Unix microseconds; SenML carries no `seq`, so this tells readings apart.
        t_us: i64,
    },
    /// Its PUBACK arrived.
    Acked {
        /// Its device.
        device: String,
        /// Its channel or metric.
        stream: String,
        /// Its count in that stream.
        seq: u64,
        /// Unix milliseconds.
        acked_ms: f64,
    },
}

/// Why the journal is not complete.
#[derive(Debug, Error)]
#[error("{file}: {source}")]
pub struct JournalError {
    file: PathBuf,
    source: io::Error,
}

/// Where tasks put their lines; the file ends when all clones are gone.
#[derive(Debug, Clone)]
pub struct Journal(mpsc::Sender<Line>);

impl Journal {
    /// Creates the file and the thread that writes it. Join the handle after dropping every `Journal`.
    pub fn create(
        path: &Path,
    ) -> Result<(Self, tokio::task::JoinHandle<Result<(), JournalError>>), JournalError> {
        let failed = |source| JournalError { file: path.to_owned(), source };
        let file = BufWriter::new(File::create(path).map_err(failed)?);
        let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
        let path = path.to_owned();
        let write = move || write(receiver, file).map_err(|source| JournalError { file: path, source });
        Ok((Self(sender), tokio::task::spawn_blocking(write)))
    }

    /// Adds a line; waits while the disk is behind. False when the writer has failed.
    pub async fn add(&self, line: Line) -> bool {
        self.0.send(line).await.is_ok()
    }
}

fn write(mut lines: mpsc::Receiver<Line>, mut file: BufWriter<File>) -> io::Result<()> {
    while let Some(line) = lines.blocking_recv() {
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
        if lines.is_empty() {
            file.flush()?;
        }
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_on_disk_when_the_writer_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (journal, writer) = Journal::create(&path).unwrap();
        let published = Line::Published {
            device: "d".to_owned(),
            stream: "spo2".to_owned(),
            seq: 1,
            published_ms: 1_790_000_000_000.25,
            kind: Kind::Num,
            t_us: 5,
        };
        let acked = Line::Acked { device: "d".to_owned(), stream: "spo2".to_owned(), seq: 1, acked_ms: 2.5 };
        assert!(journal.add(published.clone()).await && journal.add(acked.clone()).await);
        drop(journal);
        writer.await.unwrap().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [published, acked]);
        assert!(text.starts_with(
            r#"{"device":"d","stream":"spo2","seq":1,"published_ms":1790000000000.25,"kind":"num""#
        ));
    }
}
