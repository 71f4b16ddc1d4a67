//! The last events, numbered: what a person or a tool asks for after the fact, and what the page shows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use caregate_host::clock;
use serde::Serialize;

/// Events that are kept: a day of a quiet fleet, minutes of a busy one, 200 kB.
pub const EVENTS_MAX: usize = 1024;
/// Longest text of one: what an error says fits.
const DETAIL_BYTES_MAX: usize = 240;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A switch came.
    SwitchConnected,
    /// A switch went.
    SwitchGone,
    /// A switch holds what intents ask for.
    Confirmed,
    /// Flows of ours were gone or changed, and come back.
    Drift,
    /// A switch refuses a rule of an intent, or an expert's flow-mod.
    RuleRefused,
    /// A switch does not come to what intents ask for.
    Diverged,
    /// An expert's flow-mod was taken.
    RuleWritten,
    /// A port came, went or changed.
    Port,
    /// An intent was made or changed.
    IntentSet,
    /// An intent was taken away.
    IntentRemoved,
    /// A gateway's policy connection came.
    GatewayConnected,
    /// It went.
    GatewayGone,
    /// A gateway took another epoch, or refuses a bundle, or takes them again.
    Verdict,
    /// A revocation was relayed.
    Revocation,
    /// An emergency that a gateway took was relayed.
    Emergency,
    /// The ledger answers again, or no more.
    Ledger,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Counts up from 1 since the controller's start.
    pub number: u64,
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// What it is about.
    pub kind: Kind,
    /// Which switch, gateway or intent.
    pub subject: String,
    /// In words.
    pub detail: String,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    /// At most [`EVENTS_MAX`].
    events: VecDeque<Event>,
}

/// The ring; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Ring>>);

impl Events {
    /// Adds one, now.
    pub fn push(&self, kind: Kind, subject: impl ToString, detail: impl Into<String>) {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().find(|(at, c)| at + c.len_utf8() > DETAIL_BYTES_MAX) {
            detail.truncate(end);
        }
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        if ring.events.len() >= EVENTS_MAX {
            ring.events.pop_front();
        }
        let number = ring.last;
        ring.events.push_back(Event {
            number,
            at_ms: clock::now_ms(),
            kind,
            subject: subject.to_string(),
            detail,
        });
    }

    /// Those after this number, oldest first.
    #[must_use]
    pub fn after(&self, number: u64) -> Vec<Event> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.events.iter().filter(|event| event.number > number).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_numbers_do_not_come_again() {
        let events = Events::default();
        for at in 0..EVENTS_MAX + 3 {
            events.push(Kind::Port, "s", at.to_string());
        }
        let all = events.after(0);
        assert_eq!((all.len(), all[0].number, all[0].detail.as_str()), (EVENTS_MAX, 4, "3"));
        assert_eq!(events.after(1026).iter().map(|event| event.number).collect::<Vec<_>>(), [1027]);
    }

    #[test]
    fn long_texts_end_between_characters() {
        let events = Events::default();
        events.push(Kind::Ledger, "l", "é".repeat(200));
        assert_eq!(events.after(0)[0].detail, "é".repeat(120));
    }
}
