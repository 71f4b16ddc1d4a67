//! Events that lie in the spool and of which the watch has kept nothing.
//!
//! A PUBACK waits for the spool and not for the watch, which notes beside its own state below which position all events are in it. What lies
//! from there on was acknowledged, perhaps, and its sensor says it never again; so the watch is shown it at the next start. That reads the
//! records themselves: a checkpoint that lies among them changes nothing.

use caregate_protocol::record::Record;

use super::leaves::Leaves;
use super::recover::{RecoverError, open_own};
use crate::keys::KeyStore;
use crate::spool::{Log, Position};
use crate::watch::engine::{Observation, What};
use crate::watch::{Events, Unheard};

/// Records that are looked at, from the newest back: several times as many as there are where the watch could write to its disk.
const RECORDS_MAX: u64 = 32_768;

/// What the watch must be shown before it begins.
///
/// # Errors
/// [`RecoverError`].
pub fn find(log: &Log, keys: &mut KeyStore) -> Result<Unheard, RecoverError> {
    let (reader, next) = (log.reader(), log.stats().next.0);
    let watch = keys.watch();
    let Some(heard) = watch.heard()? else {
        // A gateway that has just been made, or one whose build noted nothing: what it was told is in what it kept.
        watch.keep(&[], next)?;
        return Ok(Unheard { events: Vec::new(), below: next });
    };
    if heard > next {
        // The watch hears of what is not durable yet, and what it kept was so first; or the spool was made anew. Either way nothing is here
        // that it has not heard, and these positions will be used again, by what it has not.
        watch.keep(&[], next)?;
    }
    let (from, oldest) = (heard.min(next), reader.oldest().unwrap_or_default().0);
    let (mut events, mut leaves) = (Events::default(), Leaves::default());
    for position in from.max(oldest).max(next.saturating_sub(RECORDS_MAX))..next {
        // What can't be read is told as damage; what is gone, the core has.
        let Ok(Some((_, bytes))) = reader.read(Position(position)) else { continue };
        let Ok(Record::Segment(segment)) = Record::decode(&bytes) else { continue };
        let (patient, class) = (segment.header.patient, segment.header.class);
        if keys.is_erased(patient) {
            continue;
        }
        for reading in open_own(&segment, keys, &mut leaves)?.iter().flatten() {
            let seen = Observation::of(patient, class, reading).filter(|seen| seen.what == What::Event);
            // Nothing is known yet of its device's clock. What nobody has told must be told, whatever that says.
            seen.into_iter().for_each(|seen| events.push(Observation { sensor_us: None, ..seen }));
        }
    }
    Ok(Unheard { events: events.take().collect(), below: next })
}
