//! What a controller changes, from its messages to the helper's confirmation, and when it is made durable.
//!
//! **What decides over sensors' frames is on disk before it is in force**, so that what a barrier confirmed of a quarantine outlasts a
//! power cut. All else, which a controller writes anew when it finds a switch without it, is kept when nothing of that kind
//! came for a while ([`KEEP_INTERVAL`]), so that a controller that learns addresses does not wear out the flash.

use std::time::Duration;

use caregate_protocol::datapath::switch::{CHANGES_MAX, FLOWS_MAX};
use caregate_protocol::openflow::{ErrorKind, ErrorMessage, Message};

use super::super::flow::Removed;
use super::super::tables::Outcome;
use super::super::translate;
use super::conversation::Conversation;
use super::incoming::Quoted;
use super::{Action, Agent, HelperRefused, POLL_INTERVAL, Part};

/// Messages that are installed together: all tables' flows. Each is one that may have to be told of a refusal.
pub const BATCH_MAX: usize = 4096;
/// What was gathered waits so long for more: a controller that writes a table sends a frame each few tens of µs, and a frame that
/// waits for its flow does not notice.
pub const FLUSH_IDLE: Duration = Duration::from_millis(2);
/// And no longer than this in all.
pub const FLUSH_MAX: Duration = Duration::from_millis(200);
/// Flows that the helper is told together before a batch ends: two frames to it, so that whoever tells it is woken half as often.
const PART_FLOWS: usize = 2 * CHANGES_MAX;
/// How long what need not be on disk at once is not: at a megabyte for full tables, 3 GB a day at most.
pub const KEEP_INTERVAL: Duration = Duration::from_secs(30);

/// A message that is told if the helper refuses.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) xid: u32,
    kind: ErrorKind,
    quoted: Quoted,
}

impl Request {
    /// A message that is answered with `kind`.
    pub(super) fn new(xid: u32, kind: ErrorKind, quoted: Quoted) -> Self {
        Self { xid, kind, quoted }
    }

    /// What it is answered with.
    pub(super) fn error(&self) -> ErrorMessage {
        self.quoted.error(self.kind)
    }
}

/// Changes of the tables that the helper has not confirmed.
#[derive(Debug)]
pub(super) struct Batch {
    /// At most [`BATCH_MAX`].
    pub(super) requests: Vec<Request>,
    /// To be reported once it is true.
    pub(super) removed: Vec<Removed>,
    /// The helper has them.
    pub(super) is_installing: bool,
    /// All of it is, or is to be, on disk.
    is_kept: bool,
    /// Its number, and how many parts the helper was told.
    number: u64,
    parts: u32,
    /// Changes in these parts.
    prepared: usize,
    began: Duration,
    grew: Duration,
}

impl Batch {
    pub(super) fn next_part(&mut self) -> Part {
        let part = Part { batch: self.number, before: self.parts };
        self.parts += 1;
        part
    }
}

impl Agent {
    pub(super) fn is_installing(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.is_installing)
    }

    pub(super) fn begin_batch(&mut self, now: Duration) -> &mut Batch {
        let batch = self.batch.get_or_insert_with(|| Batch {
            requests: Vec::new(),
            removed: Vec::new(),
            is_installing: false,
            is_kept: true,
            number: take_number(&mut self.next_batch),
            parts: 0,
            prepared: 0,
            began: now,
            grew: now,
        });
        batch.grew = now;
        batch
    }

    /// Takes what followed from a message.
    pub(super) fn gather(&mut self, outcome: Outcome, request: Request, now: Duration) {
        if outcome.changed {
            let batch = self.begin_batch(now);
            batch.requests.push(request);
            batch.removed.extend(outcome.removed);
        }
    }

    /// When what was gathered is installed.
    pub(super) fn flush_due(&self) -> Option<Duration> {
        let batch = self.batch.as_ref().filter(|batch| !batch.is_installing)?;
        Some((batch.grew + FLUSH_IDLE).min(batch.began + FLUSH_MAX))
    }

    pub(super) fn flush_if_full(&mut self, actions: &mut Vec<Action>) {
        if self.batch.as_ref().is_some_and(|batch| batch.requests.len() >= BATCH_MAX) {
            self.flush_batch(actions);
        }
    }

    /// Tells the helper of the flows that it does not know, once they fill a frame to it. In all of a batch no more than there can be
    /// flows: a controller that changes the same ones again and again has them told at the end.
    pub(super) fn prepare_if_many(&mut self, actions: &mut Vec<Action>) {
        let untold = self.tables.untold();
        let Some(batch) = self.batch.as_mut().filter(|batch| !batch.is_installing) else { return };
        if self.is_unsure
            || untold < PART_FLOWS
            || batch.prepared + untold > FLOWS_MAX
            || !self.is_helper_there
        {
            return;
        }
        batch.prepared += untold;
        let part = batch.next_part();
        actions.push(Action::Prepare { part, changes: self.tables.tell_flows() });
    }

    pub(super) fn flush_batch(&mut self, actions: &mut Vec<Action>) {
        let Some(batch) = self.batch.as_mut().filter(|batch| !batch.is_installing) else { return };
        batch.is_installing = true;
        batch.is_kept = self.tables.touches_sensors();
        let kept = batch.is_kept.then(|| self.tables.kept());
        let changes = if self.is_unsure { self.tables.everything() } else { self.tables.changes() };
        actions.push(Action::Install { kept, part: batch.next_part(), changes });
    }

    /// Takes what came of [`Action::Install`].
    #[must_use]
    pub fn handle_installed(&mut self, result: Result<(), HelperRefused>, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(batch) = self.batch.take_if(|batch| batch.is_installing) else { return actions };
        if result.is_ok() {
            self.is_unsure = false;
            self.tables.commit();
            self.unkept = if batch.is_kept { None } else { self.unkept.or(Some(now)) };
            for removed in &batch.removed {
                let wants = |talk: &Conversation| talk.wants_flow_removed(removed.reason);
                self.tell(wants, &Message::FlowRemoved(translate::removed(removed)), &mut actions);
            }
        } else {
            self.not_before = now + POLL_INTERVAL;
            self.roll_back(batch, &mut actions);
        }
        self.proceed(now, &mut actions);
        actions
    }

    pub(super) fn roll_back(&mut self, batch: Batch, actions: &mut Vec<Action>) {
        self.tables.roll_back();
        actions.push(Action::Refused("helper"));
        for request in batch.requests {
            self.tell_error(request, actions);
        }
        if batch.is_installing && batch.is_kept {
            self.keep(actions);
        }
    }

    /// When what is in force is made durable. Not while something else is about to be in force.
    pub(super) fn keep_due(&self) -> Option<Duration> {
        self.unkept.filter(|_| self.batch.is_none()).map(|since| since + KEEP_INTERVAL)
    }

    pub(super) fn keep(&mut self, actions: &mut Vec<Action>) {
        self.unkept = None;
        actions.push(Action::Keep(self.tables.kept()));
    }

    /// The daemon ends: what is in force and not on disk is to be. What is not in force yet is nobody's.
    #[must_use]
    pub fn handle_shutdown(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.unkept.is_some() && self.batch.is_none() {
            self.keep(&mut actions);
        }
        actions
    }
}

/// The next number that nothing else has.
pub(super) fn take_number(next: &mut u64) -> u64 {
    let number = *next;
    *next += 1;
    number
}
