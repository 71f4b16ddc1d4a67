//! State from the spool alone: the newest checkpoint, completed by the records after it.

use caregate_protocol::id::PatientId;
use caregate_protocol::key::PatientRoot;
use caregate_protocol::reading;
use caregate_protocol::record::Record;
use tracing::warn;

use super::chains::{CheckpointError, State};

/// Rebuilds the state. `root` gives a patient's root, to open the gateway's own segments for their fingerprints;
/// `damaged` says that the spool found records missing.
///
/// # Errors
/// [`CheckpointError`] where the checkpoint is of another version. Then the gateway must not start: it would use sequence
/// numbers again.
pub fn state<'a>(
    checkpoint: Option<&[u8]>,
    records: impl IntoIterator<Item = &'a [u8]>,
    damaged: bool,
    mut root: impl FnMut(PatientId) -> Option<PatientRoot>,
) -> Result<State, CheckpointError> {
    let mut state = checkpoint.map(State::decode).transpose()?.unwrap_or_default();
    for bytes in records {
        match Record::decode(bytes) {
            Ok(Record::Wrap(wrap)) => state.replay_wrap(&wrap),
            Ok(Record::Segment(segment)) => {
                let h = &segment.header;
                let opened = root(h.patient)
                    .and_then(|root| root.class_key(h.class, h.generation).epoch_key(h.epoch))
                    .and_then(|key| segment.open(&key).ok())
                    .and_then(|plaintext| reading::decode(&plaintext).ok());
                for reading in opened.iter().flatten() {
                    if let Some(fingerprint) = reading::fingerprint(reading) {
                        state.duplicates.insert(&reading.device, &reading.stream, fingerprint);
                    }
                }
                if opened.is_none() {
                    warn!(
                        class = h.class.as_str(),
                        "a segment of our own did not open; its duplicates go unnoticed"
                    );
                }
                state.replay_segment(h, segment.hash());
            }
            Err(error) => warn!(%error, "the spool holds a record that does not parse"),
        }
    }
    if damaged {
        state.skip_after_damage();
    }
    Ok(state)
}
