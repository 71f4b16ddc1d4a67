//! `clinician-feed export`: the recipient's whole history from the core, opened, as lines of JSON.
//!
//! It is a subscription of its own beside the daemon's. What it says on standard output is what the stream says; whether all
//! of it could be opened and every chain is unbroken is its exit status.

use std::collections::BTreeSet;
use std::io::Write;

use caregate_host::clock;
use caregate_protocol::audit::Tally;
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::link::Event;
use crate::message::Message;
use crate::opener::{Opened, Opener};
use crate::ring::entries;

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
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// Opens what the link delivers until it has caught up, writes it to `out` and counts it in `received`. For a thread of its own.
///
/// # Errors
/// [`ExportError`]; what could be opened has been written all the same.
pub fn run(
    mut events: mpsc::Receiver<Event>,
    mut opener: Opener,
    received: &mut Tally,
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
                // It is noted at the end, however large it grows.
                received.add(&record);
                let taken = opener.take(&record);
                for segment in taken.opened {
                    chains.insert((segment.patient, segment.class));
                    next = write(&mut out, segment, next)?;
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

fn write(out: &mut impl Write, segment: Opened, first: u64) -> std::io::Result<u64> {
    let mut next = first;
    for entry in entries(segment, first, clock::now_ms()) {
        writeln!(out, "{}", Message::from(&entry).json())?;
        next = entry.n + 1;
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::RecipientId;
    use caregate_protocol::wrap::generate_keypair;

    use super::*;
    use crate::ring::tests::{numeric, segment};

    fn export(sent: Vec<Event>) -> Result<u64, ExportError> {
        let (out, events) = mpsc::channel(sent.len().max(1));
        for event in sent {
            out.try_send(event).unwrap();
        }
        drop(out);
        let opener = Opener::new(RecipientId([5; 20]), generate_keypair().0, []);
        run(events, opener, &mut Tally::default(), Vec::new())
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
    fn lines_are_numbered_across_segments() {
        let mut out = Vec::new();
        let reading = numeric("heart-rate", 1, 60.0, None);
        let next = write(&mut out, segment(0, vec![reading.clone(), reading.clone()]), 0).unwrap();
        assert_eq!(write(&mut out, segment(1, vec![reading]), next).unwrap(), 3);
        let text = String::from_utf8(out).unwrap();
        let numbers: Vec<_> = text
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["n"].as_u64())
            .collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
    }
}
