//! State from the spool alone: the newest checkpoint, completed by the records after it.

use std::collections::BTreeSet;
use std::path::Path;

use caregate_host::kill_point;
use caregate_protocol::reading::{self, Reading};
use caregate_protocol::record::Record;
use caregate_protocol::segment::Segment;
use thiserror::Error;
use tracing::{error, warn};

use super::chains::{CheckpointError, DAMAGES_MAX, State};
use super::leaves::Leaves;
use super::losses::Losses;
use crate::keys::{KeyStore, KeyStoreError};
use crate::spool::{Damaged, Limits, Log, Position, Recovery, SpoolError};

/// The gateway must not start.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// It would use sequence numbers again.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It would take what comes again for new.
    #[error("keys: {0}")]
    Keys(#[from] KeyStoreError),
    /// The log does not open.
    #[error("spool: {0}")]
    Spool(#[from] SpoolError),
}

/// Opens the spool in `dir` and rebuilds the state that belongs to it; `keys` open the gateway's own segments for their
/// fingerprints. The recovery comes back for the report, without its records.
///
/// # Errors
/// [`RecoverError`].
pub fn open(dir: &Path, limits: Limits, keys: &mut KeyStore) -> Result<(Log, State, Recovery), RecoverError> {
    let (log, recovery) = Log::open(dir, limits)?;
    rebuild(log, recovery, keys)
}

/// The state that belongs to a log.
///
/// # Errors
/// As [`open`].
pub(super) fn rebuild(
    mut log: Log,
    mut recovery: Recovery,
    keys: &mut KeyStore,
) -> Result<(Log, State, Recovery), RecoverError> {
    kill_point::pass("recover.opened");
    let hidden = hides_records(&recovery, log.stats().next);
    let mut state = recovery.checkpoint.as_deref().map(State::decode).transpose()?.unwrap_or_default();
    state.beginnings = keys.beginnings()?;
    let mut leaves = Leaves::default();
    for record in std::mem::take(&mut recovery.records) {
        replay(&mut state, &record.payload, keys, &mut leaves)?;
    }
    kill_point::pass("recover.replayed");
    let found_damage = note_damage(&mut state, &recovery, &log);
    lose_pasts(&recovery, log.stats().next, keys)?;
    // A root that is gone is made anew, and recipients must not be thought to hold its keys because they held the old one's.
    state.chains.retain(|(patient, _), _| !keys.is_erased(*patient));
    for ((patient, _), chain) in &mut state.chains {
        if keys.existing_root(*patient)?.is_none() {
            error!("a patient's root is gone; what was sealed with it is for its recipients alone");
            chain.renew();
        }
    }
    for ((patient, class), chain) in state.chains.iter().filter(|(_, chain)| chain.used) {
        let base = state.beginnings.get(patient).map_or(0, |beginning| beginning.generation);
        keys.adopt_generations((*patient, *class), base, chain.generation)?;
    }
    // To which of a recipient's keys a wrap was made is not written down: one that was replaced just before the end may be among them.
    for chain in state.chains.values_mut().filter(|chain| !chain.holders.is_empty()) {
        chain.reopens = true;
    }
    if hidden {
        state.skip_after_damage();
    }
    if hidden || found_damage {
        // So that the damage lies before the newest checkpoint, and the next start does not move the chains on again.
        match log.rotate(&state.encode()) {
            Ok(()) | Err(SpoolError::NoSpace { .. }) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok((log, state, recovery))
}

/// Whether damage may hide records that the newest checkpoint does not know of; `next` is the log's next position. Damage to
/// older files is reported at each start for as long as they are kept, but takes nothing from the state.
fn hides_records(recovery: &Recovery, next: Position) -> bool {
    let known = recovery.records.first().map_or(next, |record| record.position);
    recovery.damaged.iter().any(|damage| {
        let no_checkpoint = damage.what == Damaged::Checkpoint && recovery.checkpoint.is_none();
        no_checkpoint || (!damage.positions.is_empty() && damage.positions.end >= known.0)
    })
}

/// Notes for each chain what damage may have taken that was not known before; true if there was any. All that is still in the spool is
/// read for it, once.
fn note_damage(state: &mut State, recovery: &Recovery, log: &Log) -> bool {
    let lossy = recovery.damaged.iter().filter(|damage| damage.lost > 0);
    let all: Vec<_> = lossy.map(|damage| (damage.positions.clone(), damage.lost)).collect();
    let new: Vec<_> = all.iter().filter(|(p, _)| !state.known_damage.contains(&(p.start, p.end))).collect();
    if new.is_empty() {
        return false;
    }
    let mut losses = Losses::new(new.into_iter().cloned().collect());
    let reader = log.reader();
    let (first, end) = (reader.oldest().unwrap_or_default(), log.stats().next);
    for position in first.0..end.0 {
        // What can't be read is what was lost.
        let Ok(Some((_, bytes))) = reader.read(Position(position)) else { continue };
        if let Ok(Record::Segment(segment)) = Record::decode(&bytes) {
            let h = &segment.header;
            losses.segment(position, (h.patient, h.class), h.sequence);
        }
    }
    let chains: Vec<_> = state.chains.iter().map(|(key, chain)| (*key, chain.next)).collect();
    for (key, first, last) in losses.finish(chains) {
        state.lost(key, first, last);
    }
    let known: BTreeSet<_> = all.into_iter().map(|(p, _)| (p.start, p.end)).take(DAMAGES_MAX).collect();
    state.known_damage = known;
    true
}

/// What was given of the past and damage may have taken before the core had it, or went with a spool that is not there any more.
fn lose_pasts(recovery: &Recovery, next: Position, keys: &mut KeyStore) -> Result<(), KeyStoreError> {
    let lossy = |first: u64, last: u64| {
        let mut lossy = recovery.damaged.iter().filter(|damage| damage.lost > 0);
        lossy.any(|damage| damage.positions.start <= last && first < damage.positions.end)
    };
    let lost = keys.lose_pasts(|_, given| {
        let (first, last) = (*given.positions.start(), *given.positions.end());
        last >= next.0 || lossy(first, last)
    })?;
    if lost > 0 {
        warn!(grants = lost, "wraps of a past may be lost; it is given anew");
    }
    Ok(())
}

fn replay(
    state: &mut State,
    bytes: &[u8],
    keys: &mut KeyStore,
    leaves: &mut Leaves,
) -> Result<(), RecoverError> {
    match Record::decode(bytes) {
        Ok(Record::Wrap(wrap)) if keys.is_erased(wrap.patient) => {}
        Ok(Record::Wrap(wrap)) => state.replay_wrap(&wrap),
        // It says what the segments before it have said.
        Ok(Record::Head(_) | Record::Tokens(_)) => {}
        Ok(Record::Gap(signed)) => {
            let gap = &signed.gap;
            state.told((gap.patient, gap.class), gap.missing.first, gap.missing.last);
        }
        Ok(Record::Segment(segment)) => {
            let h = &segment.header;
            if keys.is_erased(h.patient) {
                return Ok(());
            }
            let opened = open_own(&segment, keys, leaves)?;
            if opened.is_none() {
                let class = h.class.as_str();
                warn!(class, "a segment of our own did not open; its duplicates go unnoticed");
            }
            for reading in opened.iter().flatten() {
                if let Some(fingerprint) = reading::fingerprint(reading) {
                    state.duplicates.insert(&reading.device, &reading.stream, fingerprint);
                }
            }
            state.replay_segment(h, segment.hash());
        }
        Err(error) => warn!(%error, "the spool holds a record that does not parse"),
    }
    Ok(())
}

/// The readings of a segment that the gateway sealed itself; `None` where its key is gone.
pub(super) fn open_own(
    segment: &Segment<'_>,
    keys: &mut KeyStore,
    leaves: &mut Leaves,
) -> Result<Option<Vec<Reading>>, KeyStoreError> {
    let h = &segment.header;
    let root = keys.existing_root(h.patient)?;
    let leaf = root.and_then(|root| leaves.leaf(&root, (h.patient, h.class), h.generation, h.epoch));
    let key = leaf.and_then(|leaf| leaf.epoch_key(h.epoch));
    let plaintext = key.and_then(|key| segment.open(&key).ok());
    Ok(plaintext.and_then(|plaintext| reading::decode(&plaintext).ok()))
}
