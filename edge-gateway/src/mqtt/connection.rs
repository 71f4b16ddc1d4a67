//! One connection's shell: bytes in and out, verdicts, deadlines; every decision is the [`Conversation`]'s.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use caregate_protocol::id::{DeviceId, Lane};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::access::{Tree, own_tree};
use super::conversation::{Action, CloseReason, ConnectRefusal, Conversation};
use super::handshakes::Place;
use super::hub::{Hub, Message, SessionKey};
use super::limits::{DRAIN_TIMEOUT, UNSENT_BYTES_MAX, WRITE_TIMEOUT};
use super::metrics::verdict_label;
use super::server::{Admitted, CertificateRefused, Handle, Server};
use super::stall::Stall;
use super::window::cost;
use super::wire::{Connect, Packet, Will, decode, encode};
use crate::ingest::{Inbound, Verdict, lane_of};

/// How long a closing connection may take to take our last bytes, and to send its own end.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that are read and thrown away while closing: closing over unread bytes makes TCP send a reset, and a reset can
/// overtake the CONNACK that says why.
const DISCARD_BYTES_MAX: usize = 64 * 1024;

/// How long publishes of a closed connection are still waited for, only to count their verdicts and to keep their memory
/// accounted for. Longer than any group commit; after it the pipeline is stuck anyhow.
const LATE_VERDICT_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes asked of the socket at once: several small publishes; a large packet grows the buffer as it comes.
const READ_BYTES: usize = 4 * 1024;

/// Above this an empty read buffer is given back after a large packet.
const READ_BUFFER_KEPT: usize = 16 * 1024;

/// What is known of a peer before its CONNECT.
pub(super) struct Peer {
    /// What its client certificate says, if it showed one.
    pub(super) certified: Option<Result<DeviceId, CertificateRefused>>,
    /// When it was accepted.
    pub(super) opened: Duration,
    /// Its place among those that have not yet sent a CONNECT.
    pub(super) place: Place,
}

/// One publish that is to be answered in its turn; where the pipeline has it, its bytes stay accounted for until then.
struct Answer {
    receiver: oneshot::Receiver<Verdict>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// Of a publish that the pipeline never saw.
    fn refused() -> Self {
        let (verdict, receiver) = oneshot::channel();
        verdict.send(Verdict::Refused).ok();
        Self { receiver, _memory: None }
    }
}

/// Why a publish was not handed on.
enum Unsent {
    /// It found no place in time.
    Overload,
    /// The server is gone.
    Gone,
}

type Sending = Pin<Box<dyn Future<Output = Result<Answer, Unsent>> + Send>>;

struct Connection {
    server: Arc<Server>,
    conversation: Conversation,
    peer: Option<Peer>,
    admitted: Option<Admitted>,
    input: BytesMut,
    /// The input holds no complete packet: more must be read.
    starved: bool,
    output: BytesMut,
    unflushed: bool,
    /// When output began to wait for the peer.
    stalled: Option<Duration>,
    /// In the order of receipt.
    answers: VecDeque<Answer>,
    /// A publish that waits for room in the pipeline; nothing is decoded meanwhile.
    sending: Option<(Lane, Sending)>,
    stall: Stall,
    /// The hub may have packets for this client.
    pending: bool,
}

/// Runs one connection to its end.
pub(super) async fn run<S>(server: Arc<Server>, stream: S, peer: Peer, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (reader, writer) = tokio::io::split(stream);
    let connection = Connection {
        conversation: Conversation::new(server.limits, peer.opened),
        server,
        peer: Some(peer),
        admitted: None,
        input: BytesMut::new(),
        starved: true,
        output: BytesMut::new(),
        unflushed: false,
        stalled: None,
        answers: VecDeque::new(),
        sending: None,
        stall: Stall::default(),
        pending: false,
    };
    connection.run(reader, writer, &shutdown).await;
}

impl Connection {
    async fn run<R, W>(
        mut self,
        mut reader: ReadHalf<R>,
        mut writer: WriteHalf<W>,
        shutdown: &CancellationToken,
    ) where
        R: AsyncRead,
        W: AsyncWrite,
    {
        let mut draining = false;
        let reason = loop {
            self.take_in();
            self.pump();
            if let Some(reason) = self.conversation.closed() {
                break reason;
            }
            let now = self.server.now();
            let wants_packet = self.conversation.wants_packet(now, self.is_blocked());
            let deadline = self.deadline();
            let handle = self.admitted.as_ref().map(|admitted| admitted.handle.clone());
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if !draining => {
                    draining = true;
                    self.step(|conversation, now, hub, out| conversation.handle_shutdown(now, hub, out));
                }
                () = taken_over(handle.as_ref()), if handle.is_some() => self.close(CloseReason::TakenOver),
                () = made_room(self.peer.as_ref()), if self.peer.is_some() => self.close(CloseReason::MadeRoom),
                verdict = next_verdict(&mut self.answers), if !self.answers.is_empty() => self.answered(verdict),
                () = woken(handle.as_ref()), if handle.is_some() => self.woken(),
                sent = pending(&mut self.sending), if self.sending.is_some() => {
                    let (lane, sent) = sent;
                    self.sending = None;
                    self.sent(lane, sent);
                }
                written = write(&mut writer, &mut self.output), if self.unflushed => self.written(&written),
                read = read(&mut reader, &mut self.input), if wants_packet && self.starved => self.read(&read),
                () = sleep_until(self.server.instant(deadline.unwrap_or_default())), if deadline.is_some() => {
                    self.tick();
                }
            }
        };
        self.server.metrics.closes.with_label_values(&[reason.label()]).inc();
        tracing::debug!(reason = reason.label(), "MQTT connection closed");
        tokio::select! {
            () = close(&mut reader, &mut writer, &mut self.output, reason) => {}
            () = made_room(self.peer.as_ref()) => {}
        }
        drop((reader, writer));
        // Only now, so that closing sockets are bounded too.
        self.admitted = None;
        self.peer = None;
        self.finish(shutdown).await;
    }

    /// Reading stops: a publish waits for room, or the peer leaves our bytes unread.
    fn is_blocked(&self) -> bool {
        self.sending.is_some() || self.output.len() > UNSENT_BYTES_MAX
    }

    /// Decodes and handles packets for as long as there are any and they may be taken in.
    fn take_in(&mut self) {
        while !self.starved && self.conversation.closed().is_none() {
            let now = self.server.now();
            let blocked = self.is_blocked();
            if !self.conversation.wants_packet(now, blocked) {
                return;
            }
            let (version, max) = (self.conversation.version(), self.conversation.packet_bytes_max());
            match decode(&mut self.input, version, max) {
                Ok(Some(packet)) => self.taken(packet),
                Ok(None) => {
                    self.starved = true;
                    if self.input.is_empty() && self.input.capacity() > READ_BUFFER_KEPT {
                        self.input = BytesMut::new();
                    }
                }
                Err(error) => self.step(|conversation, now, hub, out| {
                    conversation.handle_decode_error(&error, now, hub, out);
                }),
            }
        }
    }

    fn taken(&mut self, packet: Packet) {
        self.server.metrics.packets.with_label_values(&[packet.label()]).inc();
        // An acknowledgement may have made room for what waits.
        self.pending |= matches!(packet, Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_));
        let server = Arc::clone(&self.server);
        self.step(|conversation, now, hub, out| {
            conversation.handle_packet(packet, now, &server.access, hub, out);
        });
    }

    /// Writes what the hub has for this client, as far as there is room.
    fn pump(&mut self) {
        while self.pending && self.output.len() < UNSENT_BYTES_MAX {
            let (server, conversation) = (&self.server, &mut self.conversation);
            let now = server.now();
            let Some(packet) = server.with_hub(|hub| conversation.next_packet(now, hub)) else {
                self.pending = false;
                return;
            };
            if matches!(packet, Packet::Publish(_)) {
                self.server.metrics.delivered.inc();
            }
            self.say(packet);
        }
    }

    fn say(&mut self, packet: Packet) {
        let is_last = matches!(packet, Packet::Disconnect(_));
        let is_first = matches!(packet, Packet::ConnAck(_));
        match self.conversation.fit(packet) {
            Some(packet) => {
                encode(&packet, self.conversation.version(), &mut self.output);
                self.unflushed = true;
            }
            None if is_last => {}
            None if is_first => self.close(CloseReason::ConnAckTooLarge),
            None => self.close(CloseReason::AnswerTooLarge),
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.step(|conversation, now, hub, out| conversation.close(reason, now, hub, out));
    }

    /// Feeds the conversation and does what it says.
    fn step(&mut self, event: impl FnOnce(&mut Conversation, Duration, &mut Hub, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        let (server, conversation) = (Arc::clone(&self.server), &mut self.conversation);
        server.with_hub(|hub| event(conversation, server.now(), hub, &mut actions));
        // Admission is an event in the middle of its actions: what follows from it comes in another round.
        while !actions.is_empty() {
            for action in std::mem::take(&mut actions) {
                if let Action::Admit(connect) = action {
                    self.admit(&connect, &mut actions);
                } else {
                    self.act(action);
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(packet) => self.say(packet),
            Action::Forward(topic, payload) => self.forward(topic, payload),
            Action::Close(CloseReason::ConnectRefused(refusal)) => {
                self.server.metrics.refused.with_label_values(&[refusal.label()]).inc();
            }
            Action::Close(_) | Action::Admit(_) => {}
        }
    }

    fn admit(&mut self, connect: &Connect, actions: &mut Vec<Action>) {
        let certified = self.peer.as_ref().and_then(|peer| peer.certified.as_ref());
        let admitted: Result<Admitted, ConnectRefusal> = self.server.admit(connect, certified);
        let admission = admitted.as_ref().map(|a| (a.device.clone(), a.number)).map_err(|refusal| *refusal);
        let (server, conversation) = (&self.server, &mut self.conversation);
        server.with_hub(|hub| conversation.handle_admission(admission, server.now(), hub, actions));
        if let Ok(admitted) = admitted
            && self.conversation.closed().is_none()
        {
            admitted.is_up();
            self.admitted = Some(admitted);
            self.pending = true;
            self.peer = None;
        }
    }

    /// Hands a publish to the pipeline, at once if there is room.
    fn forward(&mut self, topic: String, payload: Bytes) {
        let Some(device) = self.conversation.device().cloned() else { return };
        let lane = lane_of(&topic, payload.len());
        let (inbound, receiver) = inbound(device, topic, payload);
        let server = Arc::clone(&self.server);
        let (memory, max) = server.memory_of(lane);
        let memory = Arc::clone(memory).try_acquire_many_owned(bytes_of(&inbound, max));
        if let (Ok(memory), Ok(room)) = (memory, server.inbound.of(lane).try_reserve()) {
            room.send(inbound);
            return self.sent(lane, Ok(Answer { receiver, _memory: Some(memory) }));
        }
        let left = self.stall.left(&server.limits, lane, server.now());
        let sent = send(server, lane, inbound, receiver);
        match left {
            Some(Duration::ZERO) => self.sent(lane, Err(Unsent::Overload)),
            Some(left) => {
                let sent = async move { timeout(left, sent).await.unwrap_or(Err(Unsent::Overload)) };
                self.sending = Some((lane, Box::pin(sent)));
            }
            None => self.sending = Some((lane, Box::pin(sent))),
        }
    }

    /// Takes note of what became of a publish.
    fn sent(&mut self, lane: Lane, sent: Result<Answer, Unsent>) {
        match sent {
            Ok(answer) => {
                self.stall.placed(lane);
                self.answers.push_back(answer);
            }
            Err(Unsent::Overload) => {
                self.server.metrics.overload.with_label_values(&[lane.as_str()]).inc();
                self.answers.push_back(Answer::refused());
            }
            Err(Unsent::Gone) => {}
        }
    }

    fn answered(&mut self, verdict: Option<Verdict>) {
        self.handle_verdict(verdict);
        // Whatever was answered by the same group commit leaves in the same write.
        while let Some(front) = self.answers.front_mut() {
            let verdict = match front.receiver.try_recv() {
                Ok(verdict) => Some(verdict),
                Err(oneshot::error::TryRecvError::Empty) => return,
                Err(oneshot::error::TryRecvError::Closed) => None,
            };
            self.answers.pop_front();
            self.handle_verdict(verdict);
        }
    }

    fn woken(&mut self) {
        self.pending = true;
        self.step(|conversation, now, hub, out| conversation.handle_wake(now, hub, out));
    }

    fn handle_verdict(&mut self, verdict: Option<Verdict>) {
        self.server.metrics.publishes.with_label_values(&[verdict_label(verdict)]).inc();
        self.step(|conversation, now, hub, out| conversation.handle_verdict(verdict, now, hub, out));
    }

    fn written(&mut self, written: &std::io::Result<()>) {
        match written {
            Ok(()) => {
                self.unflushed = false;
                self.stalled = None;
            }
            Err(_) => self.close(CloseReason::Io),
        }
    }

    fn read(&mut self, read: &std::io::Result<usize>) {
        match read {
            Ok(0) => self.close(CloseReason::PeerClosed),
            Ok(_) => self.starved = false,
            Err(_) => self.close(CloseReason::Io),
        }
    }

    /// The earlier of the session's deadline and the peer's for taking our bytes.
    fn deadline(&mut self) -> Option<Duration> {
        if self.unflushed && self.stalled.is_none() {
            self.stalled = Some(self.server.now());
        }
        let write = self.stalled.map(|since| since + WRITE_TIMEOUT);
        [self.conversation.next_deadline(), write].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = self.server.now();
        if self.stalled.is_some_and(|since| now >= since + WRITE_TIMEOUT) {
            self.close(CloseReason::WriteTimeout);
        }
        self.step(|conversation, now, hub, out| conversation.handle_tick(now, hub, out));
    }

    /// Waits for the verdicts that are still out (at shutdown no longer than the drain): what was stored is shown to others also now.
    async fn finish(mut self, shutdown: &CancellationToken) {
        if let Some((lane, sending)) = self.sending.take()
            && let Ok(sent) = timeout(DRAIN_TIMEOUT, sending).await
        {
            self.sent(lane, sent);
        }
        let mut answers = std::mem::take(&mut self.answers);
        let late = async {
            while !answers.is_empty() {
                let verdict = next_verdict(&mut answers).await;
                self.handle_verdict(verdict);
            }
        };
        tokio::select! {
            () = late => {}
            () = tokio::time::sleep(LATE_VERDICT_TIMEOUT) => {}
            () = async { shutdown.cancelled().await; tokio::time::sleep(CLOSE_TIMEOUT).await } => {}
        }
        for _ in &answers {
            self.server.metrics.publishes.with_label_values(&[verdict_label(None)]).inc();
        }
    }
}

impl Drop for Connection {
    /// However it ends: its session does not count as connected, and nobody waits any longer for a verdict that was to come over it.
    fn drop(&mut self) {
        if self.conversation.closed().is_none() {
            self.close(CloseReason::PeerClosed);
        }
        self.step(|conversation, now, hub, out| conversation.give_up(now, hub, out));
    }
}

/// A will goes the way of a PUBLISH: stored first, then shown to others.
pub(super) async fn publish_will(server: Arc<Server>, key: SessionKey, will: Will) {
    let message = Message::of_will(will, &key, server.now());
    if own_tree(&key.device, &message.topic) == Some(Tree::Vitals) {
        let (topic, payload) = (message.topic.clone(), Bytes::copy_from_slice(&message.payload));
        let lane = lane_of(&topic, payload.len());
        let (inbound, receiver) = inbound(key.device, topic, payload);
        let sent = timeout(DRAIN_TIMEOUT, send(Arc::clone(&server), lane, inbound, receiver)).await;
        let Ok(Ok(answer)) = sent else { return };
        let verdict = timeout(LATE_VERDICT_TIMEOUT, answer.receiver).await.ok().and_then(Result::ok);
        server.metrics.publishes.with_label_values(&[verdict_label(verdict)]).inc();
        if verdict != Some(Verdict::Stored) {
            return;
        }
    }
    server.with_hub(|hub| hub.publish(&Arc::new(message), server.now()));
}

/// A publish for the pipeline, and where its verdict comes.
fn inbound(device: DeviceId, topic: String, payload: Bytes) -> (Inbound, oneshot::Receiver<Verdict>) {
    let (verdict, receiver) = oneshot::channel();
    (Inbound { device, topic, payload, received_us: unix_us(), verdict }, receiver)
}

/// The bytes that a publish counts for, of which no more than `max` are to be had.
fn bytes_of(inbound: &Inbound, max: u32) -> u32 {
    u32::try_from(cost(&inbound.topic, &inbound.payload)).unwrap_or(u32::MAX).min(max)
}

/// Waits for memory and for room in the pipeline's queue.
async fn send(
    server: Arc<Server>,
    lane: Lane,
    inbound: Inbound,
    receiver: oneshot::Receiver<Verdict>,
) -> Result<Answer, Unsent> {
    let (memory, max) = server.memory_of(lane);
    let memory = Arc::clone(memory).acquire_many_owned(bytes_of(&inbound, max)).await;
    let memory = memory.map_err(|_closed| Unsent::Gone)?;
    // Where the pipeline has gone the inbound is dropped with its verdict, and the receiver says so.
    if server.inbound.of(lane).send(inbound).await.is_err() {
        tracing::error!("the pipeline has gone");
    }
    Ok(Answer { receiver, _memory: Some(memory) })
}

/// The verdict on the oldest; waits for ever where there is none.
async fn next_verdict(answers: &mut VecDeque<Answer>) -> Option<Verdict> {
    let Some(front) = answers.front_mut() else { return std::future::pending().await };
    let verdict = (&mut front.receiver).await.ok();
    answers.pop_front();
    verdict
}

async fn pending(sending: &mut Option<(Lane, Sending)>) -> (Lane, Result<Answer, Unsent>) {
    match sending {
        Some((lane, sending)) => (*lane, sending.await),
        None => std::future::pending().await,
    }
}

async fn taken_over(handle: Option<&Handle>) {
    match handle {
        Some(handle) => handle.taken_over.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn made_room(peer: Option<&Peer>) {
    match peer {
        Some(peer) => peer.place.gone().await,
        None => std::future::pending().await,
    }
}

async fn woken(handle: Option<&Handle>) {
    match handle {
        Some(handle) => handle.wake.notified().await,
        None => std::future::pending().await,
    }
}

/// Writes and flushes all of `output`; may be dropped half-way and called again, since what is written leaves `output`.
async fn write<W: AsyncWrite>(writer: &mut WriteHalf<W>, output: &mut BytesMut) -> std::io::Result<()> {
    while output.has_remaining() {
        if writer.write_buf(output).await? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
    }
    writer.flush().await
}

async fn read<R: AsyncRead>(reader: &mut ReadHalf<R>, input: &mut BytesMut) -> std::io::Result<usize> {
    input.reserve(READ_BYTES);
    reader.read_buf(input).await
}

/// Sends what is left and our end, then waits a moment for the peer's.
async fn close<R: AsyncRead, W: AsyncWrite>(
    reader: &mut ReadHalf<R>,
    writer: &mut WriteHalf<W>,
    output: &mut BytesMut,
    reason: CloseReason,
) {
    if matches!(reason, CloseReason::Io | CloseReason::WriteTimeout) {
        return;
    }
    let said = timeout(CLOSE_TIMEOUT, async {
        write(writer, output).await?;
        writer.shutdown().await
    });
    if !matches!(said.await, Ok(Ok(()))) || reason == CloseReason::PeerClosed {
        return;
    }
    let discard = async {
        let mut left = DISCARD_BYTES_MAX;
        let mut scratch = [0; 1024];
        while let Ok(count @ 1..) = reader.read(&mut scratch).await {
            let Some(rest) = left.checked_sub(count) else { return };
            left = rest;
        }
    };
    if timeout(CLOSE_TIMEOUT, discard).await.is_err() {
        tracing::trace!("the peer did not close");
    }
}

/// Unix time in microseconds by the gateway's clock; the only place where this door reads it.
#[expect(clippy::disallowed_methods, reason = "the I/O shell stamps what comes in")]
fn unix_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
