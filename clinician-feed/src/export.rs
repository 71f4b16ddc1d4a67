//! `clinician-feed export`: the recipient's whole history from the core, opened, as lines of JSON.
//!
//! It is a subscription of its own beside the daemon's. What it says on standard output is what the stream says; whether all
//! of it could be opened and every chain is unbroken is its exit status. Nothing is written out before it is noted in the journal.

mod account;

use std::collections::BTreeSet;
use std::io::Write;

use caregate_host::clock;
use caregate_protocol::id::PatientId;
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::journal::{AccessBasis, JournalError};
use crate::link::Event;
use crate::look::spans_of;
use crate::message::Message;
use crate::opener::{Opened, Opener};
use crate::ring::{Entry, entries};
pub use account::Account;

/// Connections that may be lost before it gives up: with the link's pauses some 10 s at the least.
const LOST_MAX: u32 = 6;

/// Why an export is not whole.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The core can't be reached.
    #[error("no connection to the core: {0}")]
    Link(&'static str),
    /// The link ended before the history did.
    #[error("the link ended before the history did")]
    Ended,
    /// Some records were not opened.
    #[error("{refused} records could not be opened, {waiting_bytes} bytes of segments wait for their wrap")]
    Refused {
        /// How many.
        refused: u64,
        /// Segments without a key.
        waiting_bytes: usize,
    },
    /// What is about to be written out, or was received, can't be noted.
    #[error("it can't be noted: {0}")]
    Journal(#[from] JournalError),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// Opens what the link delivers until it has caught up, notes it in `account` and writes it to `out`. For a thread of its own.
///
/// # Errors
/// [`ExportError`]; what could be opened and noted has been written all the same.
pub fn run<B: Fn(PatientId, i64) -> AccessBasis>(
    mut events: mpsc::Receiver<Event>,
    mut opener: Opener,
    account: &mut Account<B>,
    mut out: impl Write,
) -> Result<u64, ExportError> {
    let (mut next, mut refused, mut lost) = (0, 0_u64, 0);
    let mut chains = BTreeSet::new();
    loop {
        match events.blocking_recv().ok_or(ExportError::Ended)? {
            // Nobody searches beside an export.
            Event::Up | Event::Inquiry(_) => {}
            Event::Down(reason) => {
                lost += 1;
                if lost >= LOST_MAX {
                    return Err(ExportError::Link(reason));
                }
            }
            // An export does not ask for it.
            Event::Provisional(_) => {}
            Event::CaughtUp => break,
            Event::Record(record) | Event::Backlog(record) => {
                account.receive(&record, clock::now_ms(), clock::monotonic())?;
                let taken = opener.take(&record);
                for segment in taken.opened {
                    chains.insert((segment.patient, segment.class));
                    next = export(segment, next, account, &mut out)?;
                }
                for error in taken.refused {
                    refused += 1;
                    warn!(reason = error.reason(), %error, "a record or segment was refused");
                }
            }
        }
    }
    out.flush()?;
    let gaps = chains.iter().filter(|(p, c)| opener.chain(*p, *c).is_some_and(|s| s.gap.is_some())).count();
    info!(readings = next, chains = chains.len(), chains_with_gaps = gaps, refused, "history is complete");
    match (refused, opener.waiting_bytes()) {
        (0, 0) => Ok(next),
        (refused, waiting_bytes) => Err(ExportError::Refused { refused, waiting_bytes }),
    }
}

/// Notes and writes the readings of a segment, numbered from `first`; the next number.
fn export<B: Fn(PatientId, i64) -> AccessBasis>(
    segment: Opened,
    first: u64,
    account: &mut Account<B>,
    out: &mut impl Write,
) -> Result<u64, ExportError> {
    let now_ms = clock::now_ms();
    let readings: Vec<Entry> = entries(segment, first, now_ms).collect();
    account.write(spans_of(readings.iter()), now_ms)?;
    for reading in &readings {
        writeln!(out, "{}", Message::from(reading).json())?;
    }
    Ok(readings.last().map_or(first, |last| last.n + 1))
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::{DataClass, RecipientId};
    use caregate_protocol::wrap::generate_keypair;

    use super::account::tests::{PATIENT, UID, account, noted};
    use super::*;
    use crate::journal::What;
    use crate::ring::tests::{numeric, segment};

    fn export(sent: Vec<Event>) -> Result<u64, ExportError> {
        let (out, events) = mpsc::channel(sent.len().max(1));
        for event in sent {
            out.try_send(event).unwrap();
        }
        drop(out);
        let opener = Opener::new(RecipientId([5; 20]), generate_keypair().0, []);
        let dir = tempfile::tempdir().unwrap();
        run(events, opener, &mut account(&dir.path().join("journal.jsonl")), Vec::new())
    }

    #[test]
    fn only_a_whole_history_is_a_success() {
        assert_eq!(export(vec![Event::Up, Event::CaughtUp]).unwrap(), 0);
        assert!(matches!(export(vec![Event::Up]), Err(ExportError::Ended)));
        let rubbish = vec![Event::Record(b"rubbish".to_vec()), Event::CaughtUp];
        assert!(matches!(export(rubbish), Err(ExportError::Refused { refused: 1, .. })));
        let lost = (0..LOST_MAX).map(|_| Event::Down("transport")).collect();
        assert!(matches!(export(lost), Err(ExportError::Link("transport"))));
    }

    #[test]
    fn lines_are_numbered_across_segments_and_none_is_written_that_is_not_noted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (mut account, mut out) = (account(&path), Vec::new());
        let reading = numeric("heart-rate", 1, 60.0, None);
        let readings = vec![reading.clone(), reading.clone()];
        let next = super::export(segment(0, readings.clone()), 0, &mut account, &mut out).unwrap();
        let next = super::export(segment(1, Vec::new()), next, &mut account, &mut out).unwrap();
        assert_eq!(super::export(segment(2, vec![reading]), next, &mut account, &mut out).unwrap(), 3);
        let text = String::from_utf8(out.clone()).unwrap();
        let numbers: Vec<_> = text
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["n"].as_u64())
            .collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
        let begun = noted(&path);
        assert!(matches!(begun[..], [What::Exported { uid: UID, patient: PATIENT, until_us: None, .. }]));
        // Of another class nothing is noted yet, and nothing can be.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let waveform = Opened { class: DataClass::Waveform, ..segment(0, readings) };
        let refused = super::export(waveform, 3, &mut account, &mut out);
        assert!(matches!(refused, Err(ExportError::Journal(_))), "{refused:?}");
        assert_eq!(out, text.as_bytes());
    }
}
