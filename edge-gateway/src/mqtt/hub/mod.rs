//! What outlives a connection and what connections share: sessions, subscriptions, retained messages, wills. Pure: it is given
//! `now` and leaves [`Effect`]s for the shell.
//!
//! ```text
//!  conversation ──connect, subscribe, publish, acks──▶ Hub ──next packet──▶ conversation
//!                                                       └──Effect: wake, take over, will──▶ shell
//! ```
//!
//! All of it is in memory and bounded (`limits.rs`). A snapshot of what is to outlive the process (`kept.rs`) is written by the shell when
//! [`Rhythm`] says so.

mod delivery;
mod kept;
mod message;
mod outbox;
mod retained;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caregate_protocol::id::{DeviceId, PatientId};

use super::access::is_own;
use super::limits::{CONNECTIONS_PER_DEVICE, SESSION_EXPIRY_MAX, SESSIONS_MAX, SESSIONS_PER_DEVICE};
use super::wire::{Ack, Packet, PacketId, Reason, Will};
use crate::ingest::Verdict;
pub use kept::{Changes, KeptError, Rhythm, Snapshot};
pub use message::{Message, SessionKey};
pub use outbox::Capacity;
use retained::Retained;
pub use session::Exact;
use session::{Session, Testament};

/// The number of one connection; never used again.
pub type ConnectionNumber = u64;

/// What the shell must do for a connection other than the one at hand, or for nobody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Something is to be sent over this connection, or a verdict that it waits for has come to another.
    Wake(ConnectionNumber),
    /// Another has taken this one's place (MQTT-3.1.4-3).
    TakeOver(ConnectionNumber),
    /// A will is due: it goes the way of a PUBLISH.
    Will(SessionKey, Will),
    /// [`Hub::next_deadline`] may be earlier than it was.
    Timer,
}

/// A client has begun to read what others send, or reads it no more: for the audit log. A client's own trees are its own business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Whose device it is.
    pub patient: PatientId,
    /// Which.
    pub display: DeviceId,
    /// What it reads: a topic filter, without the name of a shared subscription.
    pub filter: String,
    /// Begins, or has ended.
    pub begins: bool,
}

/// Messages that did not reach a session, by reason, and retained ones that made room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The session's queue was full.
    pub queue_full: u64,
    /// Message Expiry Interval.
    pub expired: u64,
    /// Larger than the client takes.
    pub too_large: u64,
    /// Retained messages that were not kept, or made room.
    pub retained: u64,
}

/// All slots are taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// What a CONNECT asks of the hub.
#[derive(Debug)]
pub struct Join {
    /// Whose session.
    pub key: SessionKey,
    /// Discard one that is there.
    pub clean_start: bool,
    /// How long it is kept after the connection.
    pub expiry: Duration,
    /// Its will, with the delay in its properties.
    pub will: Option<Will>,
    /// What the client takes.
    pub capacity: Capacity,
}

/// All sessions and what they share.
#[derive(Debug)]
pub struct Hub {
    connections_max: usize,
    /// Devices that may read more than their own, and whose they are; all where nobody says.
    bound: Option<BTreeMap<DeviceId, PatientId>>,
    sessions: BTreeMap<SessionKey, Session>,
    retained: Retained,
    /// Whose turn it was last, by name and filter of a shared subscription.
    turns: BTreeMap<(String, String), SessionKey>,
    effects: Vec<Effect>,
    counts: Counts,
    changes: Changes,
    reads: Vec<Read>,
}

impl Hub {
    /// Empty.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            bound: None,
            sessions: BTreeMap::new(),
            retained: Retained::default(),
            turns: BTreeMap::new(),
            effects: Vec::new(),
            counts: Counts::default(),
            changes: Changes::default(),
            reads: Vec::new(),
        }
    }

    /// What the shell must do now.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Who has begun or ceased to read what others send, since the last time.
    pub fn take_reads(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.reads)
    }

    /// Tells what of others' this session reads now and did not, or did and does not.
    fn tell_reads(&mut self, key: &SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let whose = self.bound.as_ref().and_then(|bound| bound.get(&key.device));
        let read: BTreeSet<(PatientId, String)> = match (session.connection, whose) {
            (Some(_), Some(patient)) => {
                let paths = session.subscriptions.iter().map(|subscription| &subscription.path);
                paths.filter(|path| !is_own(&key.device, path)).map(|path| (*patient, path.clone())).collect()
            }
            _ => BTreeSet::new(),
        };
        let told = std::mem::replace(&mut session.told, read.clone());
        let tell = |begins| {
            move |(patient, filter): &(PatientId, String)| Read {
                patient: *patient,
                display: key.device.clone(),
                filter: filter.clone(),
                begins,
            }
        };
        self.reads.extend(told.difference(&read).map(tell(false)));
        self.reads.extend(read.difference(&told).map(tell(true)));
    }

    /// What has been counted since the last time.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// How often what is kept has changed.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.changes
    }

    /// Connections that are up.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.sessions.values().filter(|session| session.connection.is_some()).count()
    }

    /// Sessions, with and without connection; retained messages; bytes waiting for clients or on their way to them.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.sessions.len(), self.retained.count(), self.outbox_bytes())
    }

    fn outbox_bytes(&self) -> usize {
        self.sessions.values().map(|session| session.outbox.bytes()).sum()
    }

    /// Whether there is such a session.
    #[must_use]
    pub fn has_session(&self, key: &SessionKey) -> bool {
        self.sessions.contains_key(key)
    }

    /// A client has come. It takes over its own session's connection, or else the oldest of its device if that has too many.
    /// Returns whether its session was there (§3.2.2.1.1).
    ///
    /// # Errors
    /// Where no slot is free.
    pub fn join(&mut self, join: Join, number: ConnectionNumber, now: Duration) -> Result<bool, Full> {
        let Join { key, clean_start, expiry, will, capacity } = join;
        let displaced = self.displaced(&key);
        if displaced.is_none() && self.connections() >= self.connections_max {
            return Err(Full);
        }
        if let Some((key, old)) = displaced {
            self.leave(&key, old, true, None, now);
            self.effects.push(Effect::TakeOver(old));
        }
        let lapsed = |session: &Session| session.expires.is_some_and(|at| now >= at);
        if self.sessions.get(&key).is_some_and(|session| clean_start || lapsed(session)) {
            self.end(&key);
        }
        let present = self.sessions.contains_key(&key);
        if !present {
            self.make_room(&key.device)?;
        }
        let told = key.clone();
        let session = self.sessions.entry(key).or_insert_with(Session::new);
        session.connection = Some(number);
        session.expires = None;
        session.expiry = expiry.min(SESSION_EXPIRY_MAX);
        // Back before its will was due: it is not sent (MQTT-3.1.3-9).
        session.testament = will.map(|will| Testament { will, due: None });
        session.outbox.open(capacity);
        if present || !session.expiry.is_zero() {
            self.changes.sessions += 1;
        }
        self.effects.push(Effect::Wake(number));
        self.tell_reads(&told);
        Ok(present)
    }

    fn displaced(&self, key: &SessionKey) -> Option<(SessionKey, ConnectionNumber)> {
        if let Some(number) = self.sessions.get(key).and_then(|session| session.connection) {
            return Some((key.clone(), number));
        }
        let own = self.sessions.iter().filter(|(other, _)| other.device == key.device);
        let mut up: Vec<_> = own.filter_map(|(other, session)| Some((session.connection?, other))).collect();
        up.sort_unstable();
        let (number, oldest) = *up.first().filter(|_| up.len() >= CONNECTIONS_PER_DEVICE)?;
        Some((oldest.clone(), number))
    }

    /// Ends kept sessions where there are too many: the device's own first, those that end soonest.
    fn make_room(&mut self, device: &DeviceId) -> Result<(), Full> {
        let own = self.sessions.keys().filter(|key| key.device == *device).count();
        let own_only = own >= SESSIONS_PER_DEVICE;
        if !own_only && self.sessions.len() < SESSIONS_MAX {
            return Ok(());
        }
        let kept = self.sessions.iter().filter(|(key, _)| !own_only || key.device == *device);
        let soonest = kept.filter_map(|(key, session)| Some((session.expires?, key))).min();
        let key = soonest.map(|(_, key)| key.clone()).ok_or(Full)?;
        self.end(&key);
        Ok(())
    }

    /// The session ends, and with it the delay of its will (§3.1.3.2.2).
    fn end(&mut self, key: &SessionKey) {
        if let Some(session) = self.sessions.remove(key) {
            if !session.expiry.is_zero() {
                self.changes.sessions += 1;
            }
            if let Some(testament) = session.testament {
                self.effects.push(Effect::Will(key.clone(), testament.will));
            }
        }
        self.turns.retain(|_, last| last != key);
    }

    /// A connection has gone. `will` says whether it leaves one; `expiry` is that of its DISCONNECT.
    pub fn leave(
        &mut self,
        key: &SessionKey,
        number: ConnectionNumber,
        will: bool,
        expiry: Option<Duration>,
        now: Duration,
    ) {
        let Some(session) = self.sessions.get_mut(key).filter(|s| s.connection == Some(number)) else {
            return;
        };
        session.connection = None;
        session.outbox.close();
        session.expiry = expiry.unwrap_or(session.expiry).min(SESSION_EXPIRY_MAX);
        session.expires = Some(now + session.expiry);
        if !will {
            session.testament = None;
        }
        let ends = session.expiry.is_zero();
        self.tell_reads(key);
        if ends {
            return self.end(key);
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        self.changes.sessions += 1;
        if let Some(testament) = &mut session.testament {
            let delay = testament.will.properties.will_delay.unwrap_or(0);
            let delay = Duration::from_secs(u64::from(delay)).min(session.expiry);
            testament.due = Some(now + delay);
        }
        self.effects.push(Effect::Timer);
        self.tick(now);
    }

    /// Wills that are due, sessions that end.
    pub fn tick(&mut self, now: Duration) {
        let lapsed: Vec<SessionKey> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.expires.is_some_and(|at| now >= at))
            .map(|(key, _)| key.clone())
            .collect();
        lapsed.iter().for_each(|key| self.end(key));
        for (key, session) in &mut self.sessions {
            if session.testament.as_ref().is_some_and(|testament| testament.due.is_some_and(|at| now >= at))
                && let Some(testament) = session.testament.take()
            {
                self.effects.push(Effect::Will(key.clone(), testament.will));
            }
        }
    }

    /// When [`Self::tick`] is due, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let times = self.sessions.values().flat_map(|session| {
            [session.expires, session.testament.as_ref().and_then(|testament| testament.due)]
        });
        times.flatten().min()
    }

    /// The next packet for this connection's client, if it may be sent.
    pub fn next_packet(
        &mut self,
        key: &SessionKey,
        number: ConnectionNumber,
        now: Duration,
    ) -> Option<Packet> {
        let session = self.sessions.get_mut(key).filter(|session| session.connection == Some(number))?;
        session.outbox.next(now, &mut self.counts)
    }

    /// PUBACK or PUBCOMP of the client.
    pub fn done(&mut self, key: &SessionKey, packet_id: PacketId) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.outbox.done(packet_id);
            self.changes.messages += 1;
        }
    }

    /// PUBREC of the client; the PUBREL to send.
    pub fn received(&mut self, key: &SessionKey, packet_id: PacketId, reason: Reason) -> Option<Ack> {
        self.changes.messages += 1;
        self.sessions.get_mut(key)?.outbox.received(packet_id, reason)
    }

    /// A QoS 2 PUBLISH of the client.
    pub fn begin_exact(&mut self, key: &SessionKey, packet_id: PacketId, number: ConnectionNumber) -> Exact {
        self.sessions.get_mut(key).map_or(Exact::New, |session| session.begin(packet_id, number))
    }

    /// Its verdict, which connection `number` acknowledges or not; a later connection over which the same came does so in its place. A
    /// session that has ended has nobody who would repeat it.
    pub fn settle_exact(
        &mut self,
        key: &SessionKey,
        packet_id: PacketId,
        number: ConnectionNumber,
        verdict: Option<Verdict>,
        acknowledged: bool,
    ) {
        let session = self.sessions.get_mut(key);
        let asks = session.and_then(|session| session.settle(packet_id, number, verdict, acknowledged));
        self.effects.extend(asks.map(Effect::Wake));
    }

    /// What has become of a QoS 2 PUBLISH that is [`Exact::Elsewhere`] for connection `number`: none while it waits; the inner one is none
    /// where there is no verdict and will be none.
    #[must_use]
    pub fn verdict_elsewhere(
        &self,
        key: &SessionKey,
        packet_id: PacketId,
        number: ConnectionNumber,
    ) -> Option<Option<Verdict>> {
        self.sessions.get(key).map_or(Some(None), |session| session.verdict(packet_id, number))
    }

    /// PUBREL of the client; what PUBCOMP says.
    pub fn release_exact(&mut self, key: &SessionKey, packet_id: PacketId) -> Reason {
        match self.sessions.get_mut(key).is_some_and(|session| session.release(packet_id)) {
            true => Reason::SUCCESS,
            false => Reason::PACKET_IDENTIFIER_NOT_FOUND,
        }
    }

    /// QoS 2 messages of the client that wait for its PUBREL.
    #[must_use]
    pub fn unreleased(&self, key: &SessionKey) -> usize {
        self.sessions.get(key).map_or(0, Session::unreleased)
    }
}

#[cfg(test)]
mod tests;
