//! A session's state (§4.1): subscriptions, what is still to be sent, QoS 2 identifiers that are taken, and its will.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caregate_protocol::id::PatientId;
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};

use crate::ingest::Verdict;
use crate::mqtt::filter;
use crate::mqtt::limits::{TOPIC_BYTES_MAX, UNRELEASED_MAX};
use crate::mqtt::wire::{Filter, PacketId, QoS, RetainHandling, Will};

use super::ConnectionNumber;
use super::kept;
use super::message::{Message, SessionKey};
use super::outbox::Outbox;

/// One subscription.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    /// Without `$share/{name}/`.
    pub(super) path: String,
    /// The name of a shared one.
    pub(super) share: Option<String>,
    pub(super) qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    id: Option<u32>,
}

impl Subscription {
    pub(super) fn new(filter: &Filter, id: Option<u32>) -> Self {
        let (share, path) = match filter::shared(&filter.path).filter(|_| filter::is_shared(&filter.path)) {
            Some((name, path)) => (Some(name.to_owned()), path),
            None => (None, filter.path.as_str()),
        };
        Self {
            path: path.to_owned(),
            share,
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            id,
        }
    }

    pub(super) fn is(&self, filter: &str) -> bool {
        match &self.share {
            None => self.path == filter,
            Some(name) => filter::shared(filter).is_some_and(|(n, path)| n == name && path == self.path),
        }
    }

    /// For [`super::kept`]: `[path, share | null, qos, no local, retain as published, id | null]`.
    pub(super) fn write(
        &self,
        e: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.array(6)?.str(&self.path)?;
        match &self.share {
            Some(share) => {
                e.str(share)?;
            }
            None => {
                e.null()?;
            }
        }
        e.u8(self.qos.bits())?.bool(self.no_local)?.bool(self.retain_as_published)?;
        match self.id {
            Some(id) => {
                e.u32(id)?;
            }
            None => {
                e.null()?;
            }
        }
        Ok(())
    }

    /// The same back; only what [`Self::new`] could have made.
    pub(super) fn read(d: &mut Decoder<'_>) -> Result<Self, Error> {
        kept::length(d, 6, 6)?;
        let path = d.str()?.to_owned();
        let share = if kept::null(d)? { None } else { Some(d.str()?.to_owned()) };
        let whole = share.as_ref().map_or_else(|| path.clone(), |name| format!("$share/{name}/{path}"));
        if !filter::is_valid(&whole) || whole.len() > 2 * TOPIC_BYTES_MAX {
            return Err(Error::message("no topic filter"));
        }
        let qos = QoS::from_bits(d.u8()?).ok_or_else(|| Error::message("QoS is not known"))?;
        let (no_local, retain_as_published) = (d.bool()?, d.bool()?);
        let id = if kept::null(d)? { None } else { Some(d.u32()?) };
        Ok(Self { path, share, qos, no_local, retain_as_published, id })
    }

    fn matches(&self, message: &Message, key: &SessionKey) -> bool {
        filter::matches(&self.path, &message.topic)
            && !(self.no_local && message.publisher.as_ref() == Some(key))
    }
}

/// How a message goes to a session: one copy for all its subscriptions that match (§3.3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) qos: Option<QoS>,
    pub(super) retain: bool,
    pub(super) ids: Vec<u32>,
}

impl Match {
    fn add(&mut self, subscription: &Subscription, message: &Message) {
        self.qos = self.qos.max(Some(subscription.qos.min(message.qos)));
        self.retain |= message.retain && subscription.retain_as_published;
        self.ids.extend(subscription.id);
    }
}

/// A QoS 2 identifier of the client's that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exactly {
    /// The pipeline has it by way of one connection; it may have come again over a later one, which waits for the same verdict.
    Waits { by: ConnectionNumber, asks: Option<ConnectionNumber> },
    /// The verdict has come, and the later connection hasn't taken note of it yet, or has gone before it did. None: it never will come.
    Settled { asks: ConnectionNumber, verdict: Option<Verdict> },
    /// Acknowledged; PUBREC was sent or will be.
    Received,
}

/// What a QoS 2 PUBLISH is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exact {
    /// One to be handed on.
    New,
    /// The same is on its way over this very connection.
    OnItsWay,
    /// The same is on its way over a connection before this one: `Session::verdict` will have what becomes of it.
    Elsewhere,
    /// A repetition of one that is acknowledged.
    Again,
}

/// A will and when it is due.
#[derive(Debug)]
pub(super) struct Testament {
    pub(super) will: Will,
    pub(super) due: Option<Duration>,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// What of others' it reads, as was told ([`super::Read`]).
    pub(super) told: BTreeSet<(PatientId, String)>,
    pub(super) connection: Option<ConnectionNumber>,
    /// After the connection has gone.
    pub(super) expiry: Duration,
    /// While there is no connection.
    pub(super) expires: Option<Duration>,
    pub(super) subscriptions: Vec<Subscription>,
    exactly: BTreeMap<PacketId, Exactly>,
    pub(super) outbox: Outbox,
    pub(super) testament: Option<Testament>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            told: BTreeSet::new(),
            connection: None,
            expiry: Duration::ZERO,
            expires: None,
            subscriptions: Vec::new(),
            exactly: BTreeMap::new(),
            outbox: Outbox::new(),
            testament: None,
        }
    }

    /// Makes or replaces a subscription (§3.8.4); returns whether it is new.
    pub(super) fn subscribe(&mut self, filter: &Filter, id: Option<u32>) -> bool {
        let subscription = Subscription::new(filter, id);
        match self.subscriptions.iter_mut().find(|old| old.is(&filter.path)) {
            Some(old) => {
                *old = subscription;
                false
            }
            None => {
                self.subscriptions.push(subscription);
                true
            }
        }
    }

    /// Whether a subscription brings retained messages.
    pub(super) fn wants_retained(filter: &Filter, new: bool) -> bool {
        !filter::is_shared(&filter.path)
            && match filter.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => new,
                RetainHandling::DontSend => false,
            }
    }

    /// How the message goes to this session by its own subscriptions.
    pub(super) fn match_of(&self, key: &SessionKey, message: &Message) -> Match {
        let mut found = Match::default();
        for subscription in self.subscriptions.iter().filter(|s| s.share.is_none() && s.matches(message, key))
        {
            found.add(subscription, message);
        }
        found
    }

    /// And by shared ones: name, filter and how.
    pub(super) fn shares_of<'a>(
        &'a self,
        key: &'a SessionKey,
        message: &'a Message,
    ) -> impl Iterator<Item = (&'a str, &'a str, Match)> {
        self.subscriptions.iter().filter_map(move |subscription| {
            let share = subscription.share.as_deref().filter(|_| subscription.matches(message, key))?;
            let mut found = Match::default();
            found.add(subscription, message);
            Some((share, subscription.path.as_str(), found))
        })
    }

    /// A QoS 2 PUBLISH has come over `connection`.
    pub(super) fn begin(&mut self, packet_id: PacketId, connection: ConnectionNumber) -> Exact {
        match self.exactly.get_mut(&packet_id) {
            Some(Exactly::Received) => Exact::Again,
            Some(Exactly::Waits { by, .. }) if *by == connection => Exact::OnItsWay,
            Some(Exactly::Waits { asks, .. }) => match asks.replace(connection) {
                Some(before) if before == connection => Exact::OnItsWay,
                Some(_) | None => Exact::Elsewhere,
            },
            Some(Exactly::Settled { asks, .. }) => match std::mem::replace(asks, connection) {
                before if before == connection => Exact::OnItsWay,
                _ => Exact::Elsewhere,
            },
            None => {
                if self.exactly.len() >= 2 * UNRELEASED_MAX {
                    // Of connections that are gone. What is stored is not forgotten: `unreleased` bounds it.
                    self.exactly.retain(|_, state| match state {
                        Exactly::Waits { by, .. } => *by == connection,
                        Exactly::Settled { asks, verdict } => {
                            *asks == connection || *verdict == Some(Verdict::Stored)
                        }
                        Exactly::Received => true,
                    });
                }
                self.exactly.insert(packet_id, Exactly::Waits { by: connection, asks: None });
                Exact::New
            }
        }
    }

    /// What has become of one that is [`Exact::Elsewhere`] for `connection`; the inner one is none where the pipeline gave no verdict. None
    /// while it waits.
    pub(super) fn verdict(
        &self,
        packet_id: PacketId,
        connection: ConnectionNumber,
    ) -> Option<Option<Verdict>> {
        match self.exactly.get(&packet_id) {
            Some(Exactly::Waits { asks: Some(asks), .. }) if *asks == connection => None,
            Some(Exactly::Settled { asks, verdict }) if *asks == connection => Some(*verdict),
            Some(Exactly::Waits { .. } | Exactly::Settled { .. } | Exactly::Received) | None => Some(None),
        }
    }

    /// Its verdict has come to `connection`, which acknowledges it or not. Returns the later connection that waits for it, and is to do so in
    /// its place. One that has gone waits no more: then it is as if it had not come again, and a repetition is answered or handed on by what
    /// has become of it.
    pub(super) fn settle(
        &mut self,
        packet_id: PacketId,
        connection: ConnectionNumber,
        verdict: Option<Verdict>,
        acknowledged: bool,
    ) -> Option<ConnectionNumber> {
        let asks = match self.exactly.get(&packet_id)? {
            Exactly::Waits { by, asks } if *by == connection => *asks,
            Exactly::Settled { asks, .. } if *asks == connection => None,
            Exactly::Waits { .. } | Exactly::Settled { .. } | Exactly::Received => return None,
        };
        let asks = asks.filter(|asks| self.connection == Some(*asks));
        let state = match asks {
            Some(asks) => Some(Exactly::Settled { asks, verdict }),
            None => acknowledged.then_some(Exactly::Received),
        };
        match state {
            Some(state) => self.exactly.insert(packet_id, state),
            None => self.exactly.remove(&packet_id),
        };
        asks
    }

    /// PUBREL; whether there was such a message.
    pub(super) fn release(&mut self, packet_id: PacketId) -> bool {
        let there = self.exactly.get(&packet_id) == Some(&Exactly::Received);
        if there {
            self.exactly.remove(&packet_id);
        }
        there
    }

    /// The identifiers of those that are stored and not released; no more than are read back.
    pub(super) fn received(&self) -> Vec<PacketId> {
        let is_received = |state: &Exactly| match state {
            Exactly::Received => true,
            Exactly::Settled { verdict, .. } => *verdict == Some(Verdict::Stored),
            Exactly::Waits { .. } => false,
        };
        let received = self.exactly.iter().filter(|(_, state)| is_received(state));
        received.map(|(id, _)| *id).take(kept::RECEIVED_MAX).collect()
    }

    /// As before the process.
    pub(super) fn restore_received(&mut self, ids: Vec<PacketId>) {
        self.exactly = ids.into_iter().map(|id| (id, Exactly::Received)).collect();
    }

    /// QoS 2 messages that are acknowledged and wait for PUBREL, and those whose verdict no connection takes note of until the client repeats
    /// them. What the present connection waits for it counts itself.
    pub(super) fn unreleased(&self) -> usize {
        let counts = |state: &&Exactly| match state {
            Exactly::Received => true,
            Exactly::Settled { asks, .. } => self.connection != Some(*asks),
            Exactly::Waits { .. } => false,
        };
        self.exactly.values().filter(counts).count()
    }
}
