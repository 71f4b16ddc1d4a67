//! Notes in the journal what came from the core, and what is missing: so that the feed's log can be held against the core's and the
//! gateways' (`caregate_protocol::audit::verify`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caregate_protocol::audit::Tally;
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::feed::{Chains, Feed};
use crate::journal::{Entry, What};
use crate::record::Recorder;

/// How often it is noted: half of what a comparison of logs allows for.
pub const NOTE_INTERVAL: Duration = Duration::from_mins(1);

/// What was received since the last time.
#[derive(Debug, Default)]
pub struct Receipts {
    tally: Mutex<Tally>,
    full: Notify,
}

impl Receipts {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a record in.
    pub fn add(&self, record: &[u8]) {
        if self.tally().add(record) {
            self.full.notify_one();
        }
    }
}

/// Gaps that were there at one look are noted at the next, once for each.
#[derive(Debug, Default)]
struct Gaps(BTreeMap<(PatientId, DataClass), ((u64, u64), bool)>);

impl Gaps {
    /// Those that are to be noted now.
    fn due(&mut self, chains: &Chains) -> Vec<What> {
        let mut due = Vec::new();
        let mut still = BTreeMap::new();
        for (key, state) in chains {
            let Some(gap) = state.gap else { continue };
            let is_noted = match self.0.get(key) {
                // What fills up from below is the same gap.
                Some((before, is_noted)) if before.1 == gap.1 => {
                    if !is_noted {
                        let ((patient, class), (first, last)) = (*key, gap);
                        due.push(What::Gap { patient, class, first, last });
                    }
                    true
                }
                Some(_) | None => false,
            };
            still.insert(*key, (gap, is_noted));
        }
        self.0 = still;
        due
    }
}

/// Notes until `stop`, and once more then.
pub async fn run(feed: Arc<Feed>, recorder: Recorder, recipient: RecipientId, stop: CancellationToken) {
    let mut gaps = Gaps::default();
    let mut ticks = interval(NOTE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    loop {
        let (is_last, is_tick) = tokio::select! {
            () = stop.cancelled() => (true, false),
            _ = ticks.tick() => (false, true),
            () = feed.receipts().full.notified() => (false, false),
        };
        let mut notes: Vec<_> = received(recipient, &mut feed.receipts().tally()).collect();
        if is_tick {
            notes.extend(gaps.due(&feed.chains()));
        }
        if !notes.is_empty() {
            // That it can't be noted is logged and counted, and shows when logs are compared.
            drop(recorder.note(notes).await);
        }
        if is_last {
            return;
        }
    }
}

fn received(recipient: RecipientId, tally: &mut Tally) -> impl Iterator<Item = What> + use<> {
    tally.take().into_iter().map(move |delivered| What::Received { recipient, delivered })
}

/// What an export received, for the journal.
pub fn of_export(recipient: RecipientId, tally: &mut Tally, at_ms: i64) -> Vec<Entry> {
    received(recipient, tally).map(|what| Entry { at_ms, what }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opener::ChainState;

    #[test]
    fn a_gap_that_stays_is_noted_once() {
        let key = (PatientId([1; 16]), DataClass::Vitals);
        let chains = |gap| Chains::from([(key, ChainState { verified: 9, gap, told: None })]);
        let mut gaps = Gaps::default();
        assert!(gaps.due(&chains(Some((4, 6)))).is_empty(), "it may be on its way");
        let noted = What::Gap { patient: key.0, class: key.1, first: 5, last: 6 };
        assert_eq!(gaps.due(&chains(Some((5, 6)))), [noted]);
        assert!(gaps.due(&chains(Some((6, 6)))).is_empty());
        assert!(gaps.due(&chains(None)).is_empty());
        gaps.due(&chains(Some((8, 8))));
        assert_eq!(gaps.due(&chains(Some((8, 8)))).len(), 1);
    }
}
