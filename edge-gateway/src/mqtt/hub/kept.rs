//! What of sessions and retained messages outlives the process: a snapshot, and its bytes (CBOR). Pure.
//!
//! ```text
//! [version 1, whole, written, [session …], [message …]]             written: Unix s; messages: the retained ones, oldest first
//! session  [device, client id, left, expiry, [subscription …], [received id …], [delivery …], [[id, delivery | null] …], last id]
//! delivery [message, qos, retain, [subscription id …]]
//! message  [[device, client id] | null, qos, retain, PUBLISH]       a packet of MQTT 5.0 at QoS 0, with what is left of its time
//! ```
//! `left` and `expiry` are seconds: until the session ends, and how long it is kept after a connection. `whole` says that nothing has
//! happened since: so it was written when the server stopped in good order. Of one that is not whole all is left out that would do harm
//! if it were old: identifiers of QoS 2, by which a new message could be taken for an old one and the other way round.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use caregate_protocol::id::DeviceId;
use minicbor::data::Type;
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};
use thiserror::Error as ThisError;

use super::Hub;
use super::message::{Delivery, Message, SessionKey};
use super::session::{Session, Subscription};
use crate::mqtt::access::{Access, is_own};
use crate::mqtt::limits::{
    CLIENT_ID_BYTES_MAX, OUTBOX_MESSAGES_MAX, RETAINED_BYTES_MAX, SENT_MAX, SESSION_EXPIRY_MAX, SESSIONS_MAX,
    SUBSCRIPTIONS_PER_SESSION, TOPIC_BYTES_MAX, UNRELEASED_MAX,
};
use crate::mqtt::wire::{Packet, PacketId, Publish, QoS, Version, decode, encode};

const VERSION: u8 = 1;
/// Most bytes of a PUBLISH in it: more than the server takes.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Most retained messages: the fewest bytes that one counts for, in all that they may have.
const RETAINED_MAX: usize = RETAINED_BYTES_MAX / crate::mqtt::limits::PUBLISH_OVERHEAD_BYTES;

/// Most identifiers of QoS 2 that one session has received: as many again as it may have unreleased, for those whose verdicts come later.
pub(super) const RECEIVED_MAX: usize = 2 * UNRELEASED_MAX;

/// More than the lengths and flags around any one item take.
const FRAME_BYTES: usize = 32;

/// What clients were told of their sessions is on the disk so soon.
const SESSIONS_EVERY: Duration = Duration::from_secs(1);
/// And what changes with every reading so seldom, or it would wear the flash out.
const MESSAGES_EVERY: Duration = Duration::from_secs(60);

/// How often what is kept has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sessions and subscriptions.
    pub sessions: u64,
    /// Retained messages, and those that wait.
    pub messages: u64,
}

/// When a snapshot is due.
#[derive(Debug)]
pub struct Rhythm {
    kept: Changes,
    at: Duration,
    /// The last one could not be written.
    failed: bool,
}

impl Rhythm {
    /// After a snapshot at `now`.
    #[must_use]
    pub fn new(kept: Changes, now: Duration) -> Self {
        Self { kept, at: now, failed: false }
    }

    /// Whether one is due; then it counts as written.
    pub fn is_due(&mut self, changes: Changes, now: Duration) -> bool {
        let since = now.saturating_sub(self.at);
        let sessions = changes.sessions != self.kept.sessions && since >= SESSIONS_EVERY;
        let messages = self.failed || changes.messages != self.kept.messages;
        let due = sessions || (messages && since >= MESSAGES_EVERY);
        if due {
            *self = Self::new(changes, now);
        }
        due
    }

    /// The one that was due could not be written: it is tried again, also where nothing changes.
    pub fn failed(&mut self) {
        self.failed = true;
    }
}

/// Bytes that are no snapshot.
#[derive(Debug, ThisError)]
#[error("MQTT sessions: {0}")]
pub struct KeptError(String);

impl From<Error> for KeptError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// What one session has to send.
#[derive(Debug, Clone, Default)]
pub(super) struct Queued {
    pub(super) waiting: Vec<Delivery>,
    /// In the order of sending; without a delivery where PUBREL was sent.
    pub(super) sent: Vec<(PacketId, Option<Delivery>)>,
    pub(super) last_id: u16,
}

/// One session.
#[derive(Debug)]
struct Kept {
    key: SessionKey,
    left: Duration,
    expiry: Duration,
    subscriptions: Vec<Subscription>,
    received: Vec<PacketId>,
    queued: Queued,
}

/// The hub at one moment, as far as it is kept.
#[derive(Debug)]
pub struct Snapshot {
    sessions: Vec<Kept>,
    retained: Vec<Arc<Message>>,
    now: Duration,
}

impl Hub {
    /// What is to outlive the process: sessions that outlive their connection, and retained messages. Cheap: messages are shared.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let kept = self.sessions.iter().filter(|(_, session)| !session.expiry.is_zero());
        let sessions = kept
            .map(|(key, session)| Kept {
                key: key.clone(),
                left: session.expires.map_or(session.expiry, |at| at.saturating_sub(now)),
                expiry: session.expiry,
                subscriptions: session.subscriptions.clone(),
                received: session.received(),
                queued: session.outbox.queued(),
            })
            .collect();
        Snapshot { sessions, retained: self.retained.oldest_first(), now }
    }

    /// Takes in what a process before this one kept; `unix_s` is the time now. What `access` and [`Self::bind`] no longer let a device
    /// read is left out. Returns how many sessions there are.
    ///
    /// # Errors
    /// [`KeptError`]; then nothing is taken in.
    pub fn restore(
        &mut self,
        bytes: &[u8],
        now: Duration,
        unix_s: u64,
        access: &Access,
    ) -> Result<usize, KeptError> {
        let mut d = Decoder::new(bytes);
        let (whole, snapshot, written) = Snapshot::decode(&mut d, now)?;
        if d.position() != bytes.len() {
            return Err(KeptError(format!("bytes follow the end at byte {}", d.position())));
        }
        // A clock that was set back: no time has passed.
        let passed = Duration::from_secs(unix_s.saturating_sub(written));
        for message in snapshot.retained {
            if let Some(message) = older(&message, passed, now) {
                self.retained.set(&message, now);
            }
        }
        for kept in snapshot.sessions {
            let left = kept.left.saturating_sub(passed).min(SESSION_EXPIRY_MAX);
            // Such as end with their connection are never written.
            let has_ended = left.is_zero() || kept.expiry.is_zero();
            if has_ended || self.sessions.len() >= SESSIONS_MAX {
                continue;
            }
            let mut session = Session::new();
            session.expiry = kept.expiry.min(SESSION_EXPIRY_MAX);
            session.expires = Some(now + left);
            let device = &kept.key.device;
            let may_read = |path: &str| is_own(device, path) || access.may_read(device, path);
            session.subscriptions = kept.subscriptions.into_iter().filter(|s| may_read(&s.path)).collect();
            if whole {
                session.restore_received(kept.received);
            }
            let queued = kept.queued.older(whole, passed, now);
            session.outbox.restore(queued);
            session.outbox.retain(|message| may_read(&message.topic));
            self.sessions.insert(kept.key, session);
        }
        self.drop_unbound();
        Ok(self.sessions.len())
    }
}

/// The message as it is after so much time; none where it has expired.
fn older(message: &Arc<Message>, passed: Duration, now: Duration) -> Option<Arc<Message>> {
    let Some(expires) = message.expires else { return Some(Arc::clone(message)) };
    let left = expires.saturating_sub(now).checked_sub(passed).filter(|left| !left.is_zero())?;
    Some(Arc::new(Message { expires: Some(now + left), ..Message::clone(message) }))
}

impl Queued {
    /// Of what is not whole nothing at QoS 2: it may have been delivered since.
    fn older(self, whole: bool, passed: Duration, now: Duration) -> Self {
        let still = |delivery: Delivery| -> Option<Delivery> {
            let message = older(&delivery.message, passed, now)?;
            (whole || delivery.qos != QoS::ExactlyOnce).then_some(Delivery { message, ..delivery })
        };
        let waiting = self.waiting.into_iter().filter_map(still).collect();
        let sent = self.sent.into_iter().filter_map(|(id, delivery)| match delivery {
            Some(delivery) => still(delivery).map(|delivery| (id, Some(delivery))),
            None => whole.then_some((id, None)),
        });
        Self { waiting, sent: sent.collect(), last_id: self.last_id }
    }
}

impl Queued {
    /// At least the bytes of what it says.
    fn bytes(&self) -> usize {
        let sent = self.sent.iter().filter_map(|(_, delivery)| delivery.as_ref());
        self.waiting.iter().chain(sent).map(bytes_of).sum()
    }

    /// Forgets all messages. What was released stays: the client waits for the answer.
    fn clear(&mut self) {
        self.waiting.clear();
        self.sent.retain(|(_, delivery)| delivery.is_none());
    }
}

impl Kept {
    /// At least its bytes without those of its queue.
    fn bytes(&self) -> usize {
        let subscription =
            |s: &Subscription| s.path.len() + s.share.as_ref().map_or(0, String::len) + FRAME_BYTES;
        let subscriptions: usize = self.subscriptions.iter().map(subscription).sum();
        let ids = 3 * self.received.len() + 8 * self.queued.sent.len();
        key_bytes(&self.key) + subscriptions + ids + 2 * FRAME_BYTES
    }
}

fn key_bytes(key: &SessionKey) -> usize {
    key.device.as_str().len() + key.client_id.len() + FRAME_BYTES
}

/// At least the bytes of a message: it costs its topic, payload and properties, and more than their lengths take.
fn bytes_of_message(message: &Message) -> usize {
    message.cost() + message.publisher.as_ref().map_or(0, key_bytes)
}

fn bytes_of(delivery: &Delivery) -> usize {
    bytes_of_message(&delivery.message) + 5 * delivery.subscription_ids.len() + FRAME_BYTES
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

impl Snapshot {
    /// Leaves out the queues of those sessions that hold most, one after the other, until the rest has no more than `bytes_max`: what one
    /// client lets pile up costs nobody else's session. Without queues it always fits. Returns how many were left out. Copies nothing.
    pub fn fit(&mut self, bytes_max: usize) -> usize {
        let retained: usize = self.retained.iter().map(|message| bytes_of_message(message)).sum();
        let sessions: usize = self.sessions.iter().map(Kept::bytes).sum();
        let mut queues: Vec<_> =
            self.sessions.iter_mut().map(|kept| (kept.queued.bytes(), &mut kept.queued)).collect();
        queues.sort_unstable_by_key(|(bytes, _)| *bytes);
        let mut bytes =
            2 * FRAME_BYTES + retained + sessions + queues.iter().map(|(bytes, _)| bytes).sum::<usize>();
        let mut left_out = 0;
        while bytes > bytes_max
            && let Some((freed, queued)) = queues.pop().filter(|(freed, _)| *freed > 0)
        {
            queued.clear();
            bytes -= freed;
            left_out += 1;
        }
        left_out
    }

    /// Its bytes. `whole`: nothing happens after it.
    #[must_use]
    pub fn encode(&self, unix_s: u64, whole: bool) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        if self.encode_into(&mut e, unix_s, whole).is_err() {
            unreachable!("writing to memory does not fail");
        }
        e.into_writer()
    }

    fn encode_into(&self, e: &mut Encoder<Vec<u8>>, unix_s: u64, whole: bool) -> Written {
        e.array(5)?.u8(VERSION)?.bool(whole)?.u64(unix_s)?.array(self.sessions.len() as u64)?;
        for kept in &self.sessions {
            self.put_session(e, kept)?;
        }
        e.array(self.retained.len() as u64)?;
        self.retained.iter().try_for_each(|message| self.put_message(e, message))
    }

    fn put_session(&self, e: &mut Encoder<Vec<u8>>, kept: &Kept) -> Written {
        e.array(9)?.str(kept.key.device.as_str())?.str(&kept.key.client_id)?;
        e.u64(kept.left.as_secs())?.u64(kept.expiry.as_secs())?;
        e.array(kept.subscriptions.len() as u64)?;
        kept.subscriptions.iter().try_for_each(|subscription| subscription.write(e))?;
        e.array(kept.received.len() as u64)?;
        for id in &kept.received {
            e.u16(id.get())?;
        }
        e.array(kept.queued.waiting.len() as u64)?;
        for delivery in &kept.queued.waiting {
            self.put_delivery(e, delivery)?;
        }
        e.array(kept.queued.sent.len() as u64)?;
        for (id, delivery) in &kept.queued.sent {
            e.array(2)?.u16(id.get())?;
            match delivery {
                Some(delivery) => self.put_delivery(e, delivery)?,
                None => {
                    e.null()?;
                }
            }
        }
        e.u16(kept.queued.last_id)?;
        Ok(())
    }

    fn put_delivery(&self, e: &mut Encoder<Vec<u8>>, delivery: &Delivery) -> Written {
        e.array(4)?;
        self.put_message(e, &delivery.message)?;
        e.u8(delivery.qos.bits())?.bool(delivery.retain)?.array(delivery.subscription_ids.len() as u64)?;
        for id in &delivery.subscription_ids {
            e.u32(*id)?;
        }
        Ok(())
    }

    fn put_message(&self, e: &mut Encoder<Vec<u8>>, message: &Message) -> Written {
        e.array(4)?;
        match &message.publisher {
            Some(key) => {
                e.array(2)?.str(key.device.as_str())?.str(&key.client_id)?;
            }
            None => {
                e.null()?;
            }
        }
        let mut properties = message.properties.clone();
        if let Some(at) = message.expires {
            let left = at.saturating_sub(self.now).as_secs().max(1);
            properties.message_expiry = Some(u32::try_from(left).unwrap_or(u32::MAX));
        }
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: message.retain,
            topic: message.topic.clone(),
            packet_id: None,
            payload: message.payload.clone(),
            properties,
        };
        let mut packet = BytesMut::new();
        encode(&Packet::Publish(publish), Version::V5, &mut packet);
        e.u8(message.qos.bits())?.bool(message.retain)?.bytes(&packet)?;
        Ok(())
    }

    /// Whether it is whole, what it says, and when it was written.
    fn decode(d: &mut Decoder<'_>, now: Duration) -> Result<(bool, Self, u64), Error> {
        length(d, 5, 5)?;
        if d.u8()? != VERSION {
            return Err(Error::message("version is not known"));
        }
        let (whole, written) = (d.bool()?, d.u64()?);
        let mut snapshot = Self { sessions: Vec::new(), retained: Vec::new(), now };
        for _ in 0..length(d, 0, SESSIONS_MAX)? {
            snapshot.sessions.push(session(d, now)?);
        }
        for _ in 0..length(d, 0, RETAINED_MAX)? {
            snapshot.retained.push(Arc::new(message(d, now)?));
        }
        Ok((whole, snapshot, written))
    }
}

fn session(d: &mut Decoder<'_>, now: Duration) -> Result<Kept, Error> {
    length(d, 9, 9)?;
    let key = key(d)?;
    let (left, expiry) = (Duration::from_secs(d.u64()?), Duration::from_secs(d.u64()?));
    let mut subscriptions = Vec::new();
    for _ in 0..length(d, 0, SUBSCRIPTIONS_PER_SESSION)? {
        subscriptions.push(Subscription::read(d)?);
    }
    let mut received = Vec::new();
    for _ in 0..length(d, 0, RECEIVED_MAX)? {
        received.push(packet_id(d)?);
    }
    let mut queued = Queued::default();
    for _ in 0..length(d, 0, OUTBOX_MESSAGES_MAX)? {
        queued.waiting.push(delivery(d, now)?);
    }
    for _ in 0..length(d, 0, 2 * SENT_MAX)? {
        length(d, 2, 2)?;
        let id = packet_id(d)?;
        let what = if null(d)? { None } else { Some(delivery(d, now)?) };
        queued.sent.push((id, what));
    }
    queued.last_id = d.u16()?;
    Ok(Kept { key, left, expiry, subscriptions, received, queued })
}

fn key(d: &mut Decoder<'_>) -> Result<SessionKey, Error> {
    let device = DeviceId::new(d.str()?).map_err(Error::message)?;
    let client_id = d.str()?.to_owned();
    // One that the server assigned is longer than none.
    if client_id.len() > CLIENT_ID_BYTES_MAX {
        return Err(Error::message("client id is too long"));
    }
    Ok(SessionKey { device, client_id })
}

fn delivery(d: &mut Decoder<'_>, now: Duration) -> Result<Delivery, Error> {
    length(d, 4, 4)?;
    let message = Arc::new(message(d, now)?);
    let (qos, retain) = (qos(d)?, d.bool()?);
    let mut subscription_ids = Vec::new();
    for _ in 0..length(d, 0, SUBSCRIPTIONS_PER_SESSION)? {
        subscription_ids.push(d.u32()?);
    }
    Ok(Delivery { message, qos, retain, subscription_ids })
}

fn message(d: &mut Decoder<'_>, now: Duration) -> Result<Message, Error> {
    length(d, 4, 4)?;
    let publisher = if null(d)? {
        None
    } else {
        length(d, 2, 2)?;
        Some(key(d)?)
    };
    let (qos, retain) = (qos(d)?, d.bool()?);
    let mut packet = BytesMut::from(d.bytes()?);
    let decoded = decode(&mut packet, Version::V5, PACKET_BYTES_MAX);
    let Ok(Some(Packet::Publish(publish))) = decoded else { return Err(Error::message("no PUBLISH")) };
    let names_topic = !publish.topic.is_empty() && publish.topic.len() <= TOPIC_BYTES_MAX;
    if !packet.is_empty() || !names_topic || publish.properties.topic_alias.is_some() {
        return Err(Error::message("a PUBLISH that was never kept"));
    }
    Ok(Message::kept(publish, qos, retain, publisher, now))
}

fn qos(d: &mut Decoder<'_>) -> Result<QoS, Error> {
    QoS::from_bits(d.u8()?).ok_or_else(|| Error::message("QoS is not known"))
}

fn packet_id(d: &mut Decoder<'_>) -> Result<PacketId, Error> {
    PacketId::new(d.u16()?).ok_or_else(|| Error::message("packet identifier 0"))
}

pub(super) fn null(d: &mut Decoder<'_>) -> Result<bool, Error> {
    let is_null = d.datatype()? == Type::Null;
    if is_null {
        d.null()?;
    }
    Ok(is_null)
}

pub(super) fn length(d: &mut Decoder<'_>, min: usize, max: usize) -> Result<u64, Error> {
    match d.array()? {
        Some(n) if (min as u64..=max as u64).contains(&n) => Ok(n),
        _ => Err(Error::message("array length out of bounds").at(d.position())),
    }
}
