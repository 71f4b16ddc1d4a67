//! The clocks, looked at: what began, ended or went stale since, and what of time is written down.

use std::sync::Arc;
use std::time::Instant;

use caregate_protocol::policy::{ClockOffset, VerifiedPolicy};
use tracing::{error, info, warn};

use super::{Changes, Decider, stamped};
use crate::keys::KeyStoreError;
use crate::policy::clock::{KeptClock, Now};

impl Decider {
    /// Looks at the clocks: notes what began, ended or went stale since. Call about every second.
    pub fn tick(&mut self, now: Now) {
        self.set_clock(now);
        let Some(policy) = self.policy.clone() else { return };
        let now_s = now.unix_s;
        let (next, events) = self.happened(&policy, &self.floors, now_s);
        self.snapshot = next;
        let clock = self.pins.as_ref().and_then(|_pins| self.clock.due(now.at));
        if !events.is_empty() || clock.is_some() {
            let changes = Changes { events: &stamped(events, now_s), clock, ..Changes::default() };
            match (self.store.keep(&changes), clock) {
                (Ok(()), Some(kept)) => self.clock.was_kept(kept),
                (Ok(()), None) => {}
                (Err(failure), _) => {
                    error!(%failure, "the trail, or what time has passed, could not be written")
                }
            }
        }
        self.observe(now_s);
    }

    /// The Unix second that is past for certain, whatever the wall's clock says.
    #[must_use]
    pub fn past_s(&self, at: Instant) -> u64 {
        self.clock.kept_now(at).floor_s
    }

    /// Writes down what is known of time, at the process's end. What is then missing is counted against the policy.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn close(&mut self, at: Instant) -> Result<(), KeyStoreError> {
        if self.pins.is_none() {
            return Ok(());
        }
        let clock = Some(KeptClock { is_whole: true, ..self.clock.kept_now(at) });
        self.store.keep(&Changes { clock, ..Changes::default() })
    }

    /// The policy in force is judged by what is known of the clock now. Call before it is used, and about every second. Whoever follows
    /// it is told where that has changed by more than the second that two looks at two clocks may differ by.
    pub fn set_clock(&mut self, now: Now) {
        self.senders.refer(self.clock.reference(now));
        let Some(policy) = &self.policy else { return };
        let (before, offset) = (policy.clock(), self.clock.offset(now));
        let is_same = match (before, offset) {
            (
                ClockOffset::Known { behind_s: a, doubt_s: x },
                ClockOffset::Known { behind_s: b, doubt_s: y },
            ) => a.abs_diff(b) <= 1 && x == y,
            (before, offset) => before == offset,
        };
        if is_same {
            return;
        }
        match (before, offset) {
            (_, ClockOffset::Unknown) => {
                warn!(
                    "the clock was set back: until a new header gives the time, or it is right again, the policy counts as stale"
                );
            }
            (ClockOffset::Unknown, _) => info!("the clock is known again"),
            _ => {}
        }
        self.policy = Some(Arc::new(VerifiedPolicy::clone(policy).with_clock(offset)));
        self.publish();
    }
}
