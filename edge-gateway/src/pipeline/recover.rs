//! State from the spool alone: the newest checkpoint, completed by the records after it.

use caregate_protocol::id::PatientId;
use caregate_protocol::key::PatientRoot;
use caregate_protocol::reading;
use caregate_protocol::record::Record;
use thiserror::Error;
use tracing::warn;

use super::chains::{CheckpointError, State};
use crate::keys::KeyStoreError;
use crate::spool::{Damaged, Position, Recovery};

/// The gateway must not start.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// It would use sequence numbers again.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It would take what comes again for new.
    #[error("keys: {0}")]
    Keys(#[from] KeyStoreError),
}

/// Whether damage may hide records that the newest checkpoint does not know of; `next` is the log's next position. Damage to
/// older files is reported at each start for as long as they are kept, but takes nothing from the state.
#[must_use]
pub fn hides_records(recovery: &Recovery, next: Position) -> bool {
    let known = recovery.records.first().map_or(next, |record| record.position);
    recovery.damaged.iter().any(|damage| {
        let no_checkpoint = damage.what == Damaged::Checkpoint && recovery.checkpoint.is_none();
        no_checkpoint || (!damage.positions.is_empty() && damage.positions.end >= known.0)
    })
}

/// Rebuilds the state. `root` gives a patient's root, to open the gateway's own segments for their fingerprints;
/// `damaged` says that records are missing since the checkpoint.
///
/// # Errors
/// [`RecoverError`] where the checkpoint is of another version, or the root can't be read.
pub fn state<'a>(
    checkpoint: Option<&[u8]>,
    records: impl IntoIterator<Item = &'a [u8]>,
    damaged: bool,
    mut root: impl FnMut(PatientId) -> Result<Option<PatientRoot>, KeyStoreError>,
) -> Result<State, RecoverError> {
    let mut state = checkpoint.map(State::decode).transpose()?.unwrap_or_default();
    for bytes in records {
        match Record::decode(bytes) {
            Ok(Record::Wrap(wrap)) => state.replay_wrap(&wrap),
            Ok(Record::Segment(segment)) => {
                let h = &segment.header;
                let opened = root(h.patient)?
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
