//! One connection of a gateway: control stream, lanes in, acknowledgements out. A gateway has five, one for each lane and
//! one for the backlog; each is a session of its own on the same store, and none knows of the others. By TCP, where UDP does not get
//! through, the frames of all streams come one after the other on one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use caregate_host::kill_point;
use caregate_protocol::id::{DataClass, PatientId, SignerId};
use caregate_protocol::record::{Record, RecordError};
use caregate_protocol::segment::signer_id;
use caregate_protocol::uplink::{
    self, EARLY_BYTES_MAX, EARLY_RECORDS_MAX, Frame, FrameError, Framer, GENERATIONS_TOLD_MAX, Refusal,
    Timing,
};
use ed25519_dalek::VerifyingKey;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error};

use crate::erase::Eraser;
use crate::metrics::Metrics;
use crate::offers::OffersLine;
use crate::owners::Owners;
use crate::preview::Previews;
use crate::relay::{Relay, RelayLine};
use crate::store::{Store, StoreError};
use crate::tenants::Tenant;
use crate::writer::{Answer, Claim, Queue, Stopped};

/// Records of one connection that are not answered yet. More than the writer's queue and one commit hold together, so that it
/// holds up only a gateway that does not read its acknowledgements.
const ANSWERS_MAX: usize = 8192;
/// Time for the control stream and its hello: three round trips of the worst link, and no place held for longer by a peer
/// that says nothing.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection by TCP whose record waits for its tenant's share, or for the writer, for so long is closed: that its peer is gone shows only
/// by reading, and each holds a place. The gateway comes again, and sends it again.
const TCP_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often a connection over which records were refused looks whether whose they were is revoked.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes read from a stream at once.
const READ_BYTES: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The peer broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame that has no place here.
    #[error("unexpected frame on the {0} stream")]
    Unexpected(&'static str),
    /// A name or a recipient that the configuration does not allow this peer.
    #[error("{0} is not configured")]
    NotConfigured(&'static str),
    /// The governors have revoked this gateway.
    #[error("the ledger has revoked this gateway")]
    Revoked,
    /// More connections than a gateway may have.
    #[error("too many connections of this gateway")]
    TooMany,
    /// Another protocol version.
    #[error("version {0} is not spoken here")]
    Version(u16),
    /// More early records than may be held, or not in their order.
    #[error("early records beyond {EARLY_RECORDS_MAX} or {EARLY_BYTES_MAX} bytes, or out of order")]
    Early,
    /// No hello in time.
    #[error("no hello within {} s", HELLO_TIMEOUT.as_secs())]
    Silent,
    /// Records of a pseudonym were refused that was another's, who is revoked now: the gateway comes again with them.
    #[error("a pseudonym that was another gateway's is free")]
    Released,
    /// A record by TCP that could not be taken in time.
    #[error("a record waited for {} s", TCP_WAIT_MAX.as_secs())]
    Waiting,
    /// The transport failed or the peer left.
    #[error("transport: {0}")]
    Transport(String),
    /// The store has failed; nothing can be taken any more.
    #[error("the store has stopped")]
    Stopped,
}

impl SessionError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Frame(e) => e.reason(),
            Self::Unexpected(_) => "unexpected",
            Self::NotConfigured(_) => "not_configured",
            Self::Revoked => "revoked",
            Self::TooMany => "too_many_of_gateway",
            Self::Version(_) => "protocol_version",
            Self::Early => "early",
            Self::Silent => "silent",
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::Transport(_) => "transport",
            Self::Stopped => "stopped",
        }
    }
}

impl From<Stopped> for SessionError {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

pub(crate) fn transport(error: impl std::fmt::Display) -> SessionError {
    SessionError::Transport(error.to_string())
}

/// What a gateway's session needs.
#[derive(Debug, Clone)]
pub struct GatewaySession {
    /// The name in its certificate.
    pub name: Arc<str>,
    /// Whose which pseudonym is.
    pub owners: Owners,
    /// Whose those are of which records were refused over this connection: as many as are configured, at most.
    pub waits_for: watch::Sender<BTreeSet<Arc<str>>>,
    /// The keys with which this gateway may sign.
    pub device_keys: Arc<[VerifyingKey]>,
    /// To the writer.
    pub writer: Queue,
    /// Heartbeats and commands.
    pub relay: Relay,
    /// Whose share of the core it uses; none where it is not limited.
    pub tenant: Option<Arc<Tenant>>,
    /// Live records before they are durable.
    pub previews: Previews,
    /// Erasures.
    pub eraser: Eraser,
    /// To be asked what it has.
    pub store: Arc<dyn Store>,
    /// Counters.
    pub metrics: Metrics,
}

impl GatewaySession {
    /// Serves the connection until it ends.
    ///
    /// # Errors
    /// [`SessionError`] names why it ended; an orderly close by the peer is `Transport` too.
    pub async fn run(self, connection: Connection) -> Result<(), SessionError> {
        let ended = match tokio::time::timeout(HELLO_TIMEOUT, hello(&connection)).await {
            Ok(Ok((out, frames))) => self.serve(&connection, out, frames).await,
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(SessionError::Silent),
        };
        let code = VarInt::from_u32(u32::from(ended.is_err()));
        let reason = ended.as_ref().err().map_or("done", SessionError::reason);
        connection.close(code, reason.as_bytes());
        ended
    }

    async fn serve(
        self,
        connection: &Connection,
        out: SendStream,
        mut frames: FrameStream,
    ) -> Result<(), SessionError> {
        let (answer, answers) = mpsc::channel(ANSWERS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(send_answers(out, answers));
        tasks.spawn(self.clone().released());
        let signers: Vec<_> = self.device_keys.iter().map(signer_id).collect();
        let mut line: Option<RelayLine> = None;
        let mut offers = None;
        loop {
            tokio::select! {
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => drop(tasks.spawn(self.clone().lane(stream, answer.clone()))),
                    Err(error) => break Err(transport(error)),
                },
                frame = frames.next() => match frame {
                    Ok(None) => break Ok(()),
                    Ok(Some(Frame::Beat { bytes })) => {
                        line.get_or_insert_with(|| self.relay.line(signers.clone(), &answer)).beat(bytes);
                    }
                    Ok(Some(Frame::Erase { request })) => {
                        // Its answer's place first: whoever asks and does not read is not heard further.
                        let place = answer.clone().reserve_owned().await.map_err(transport)?;
                        tasks.spawn(self.clone().erase(request, place, answer.clone()));
                    }
                    Ok(Some(Frame::AskGenerations { patient, class, from })) => {
                        let place = answer.clone().reserve_owned().await.map_err(transport)?;
                        tasks.spawn(self.clone().generations((patient, class), from, place));
                    }
                    Ok(Some(frame)) if self.offers(&frame, &signers, &answer, &mut offers) => {}
                    Ok(Some(_)) => break Err(SessionError::Unexpected("control")),
                    Err(error) => break Err(error),
                },
                Some(ended) = tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break Err(error),
                    Err(error) => break Err(transport(error)),
                },
            }
        }
    }

    /// Takes a frame that is about offers; whether it was one that has its place.
    fn offers(
        &self,
        frame: &Frame,
        signers: &[SignerId],
        answer: &mpsc::Sender<Answer>,
        line: &mut Option<OffersLine>,
    ) -> bool {
        if let Frame::TakesOffers = frame {
            *line = Some(self.relay.offers().line(signers.to_vec(), answer.clone()));
        } else if let (Frame::Verdict { bytes }, Some(line)) = (frame, line) {
            line.verdict(bytes.clone());
        } else {
            return false;
        }
        true
    }

    async fn erase(
        self,
        request: Vec<u8>,
        place: OwnedPermit<Answer>,
        answer: mpsc::Sender<Answer>,
    ) -> Result<(), SessionError> {
        let answers =
            self.eraser.erase(&request, (&self.name, &self.device_keys)).await.map_err(|failure| {
                error!(%failure, "store");
                SessionError::Stopped
            })?;
        let mut answers = answers.into_iter();
        answers.next().map(|first| place.send(first));
        for more in answers {
            answer.send(more).await.map_err(transport)?;
        }
        Ok(())
    }

    /// Tells under which generations was sealed what is here of a chain, whoever sealed it: a root may have come to this gateway from
    /// another. It says no more than headers do that any feed of the patient's gets.
    async fn generations(
        self,
        (patient, class): (PatientId, DataClass),
        from: u32,
        place: OwnedPermit<Answer>,
    ) -> Result<(), SessionError> {
        let store = Arc::clone(&self.store);
        let looking = move || store.generations(patient, class, from, GENERATIONS_TOLD_MAX);
        let looked = tokio::task::spawn_blocking(looking).await;
        let used = looked.unwrap_or_else(|_panic| Err(StoreError::stopped())).map_err(|failure| {
            error!(%failure, "store");
            SessionError::Stopped
        })?;
        let more = used.len() == GENERATIONS_TOLD_MAX;
        place.send(Answer::Generations(Frame::Generations { patient, class, used, more }));
        Ok(())
    }

    async fn lane(self, stream: RecvStream, answer: mpsc::Sender<Answer>) -> Result<(), SessionError> {
        let mut frames = FrameStream::new(stream);
        let timing = match frames.next().await? {
            Some(Frame::Lane { lane, backlog }) => {
                debug!(lane = lane.as_str(), backlog, "lane opened");
                kill_point::pass("session.lane-opened");
                timing(backlog)
            }
            Some(_) => return Err(SessionError::Unexpected("lane")),
            None => return Ok(()),
        };
        // With the stream it is gone: what the gateway has not called durable it may have lost.
        let mut early = Early::default();
        while let Some(frame) = frames.next().await? {
            if let Frame::Early { position, record } = frame {
                kill_point::pass("session.early-read");
                early.hold(position, record)?;
            } else if let Frame::Durable { below } = frame {
                while let Some((position, record)) = early.release(below) {
                    self.data((position, timing), record, &answer).await?;
                }
            } else if let Frame::Data { position, record } = frame {
                self.data((position, timing), record, &answer).await?;
            } else {
                return Err(SessionError::Unexpected("lane"));
            }
        }
        Ok(())
    }

    /// A record of a pseudonym that is this gateway's, or becomes it.
    fn own<'r>(&self, record: Record<'r>) -> Result<Record<'r>, (Refusal, &'static str)> {
        self.owners.claim(record.patient(), &self.name).map_err(|owner| {
            self.waits_for.send_if_modified(|owners| owners.insert(owner));
            (Refusal::Stranger, Refusal::Stranger.as_str())
        })?;
        Ok(record)
    }

    /// Ends the connection when some of what was refused as another's may be taken: the gateway sends it again over its next one.
    async fn released(self) -> Result<(), SessionError> {
        let mut waits_for = self.waits_for.subscribe();
        drop(waits_for.wait_for(|owners| !owners.is_empty()).await.map_err(transport)?);
        while !self.owners.any_revoked(&waits_for.borrow()) {
            tokio::time::sleep(RELEASE_INTERVAL).await;
        }
        Err(SessionError::Released)
    }

    async fn data(
        &self,
        (position, timing): (u64, Timing),
        record: Vec<u8>,
        answer: &mpsc::Sender<Answer>,
    ) -> Result<(), SessionError> {
        kill_point::pass("session.record-read");
        let answer = answer.clone().reserve_owned().await.map_err(transport)?;
        let checked = check(&record, &self.device_keys).and_then(|checked| self.own(checked));
        // Before it is admitted: who waits for its share is seen all the same.
        let of = checked.map(|checked| {
            self.previews.take(&checked, &record, timing == Timing::Live);
            (checked.class(), checked.patient())
        });
        match of {
            Ok((class, patient)) => {
                if let Some(tenant) = &self.tenant {
                    tenant.admit(class, timing, record.len()).await;
                }
                kill_point::pass("session.record-checked");
                let (gateway, waits_for) = (Arc::clone(&self.name), self.waits_for.clone());
                let claim = Claim { patient, gateway, waits_for };
                self.writer.put((position, timing), (record, claim), answer).await?;
                kill_point::pass("session.record-handed-over");
            }
            Err((refusal, reason)) => {
                self.metrics.refused.with_label_values(&[reason]).inc();
                answer.send(Answer::Refuse(position, refusal));
            }
        }
        Ok(())
    }

    /// Serves a connection by TCP until it ends.
    ///
    /// # Errors
    /// [`SessionError`] names why it ended; an orderly close by the peer is `Ok`.
    pub async fn run_tcp(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
    ) -> Result<(), SessionError> {
        let (incoming, mut out) = tokio::io::split(stream);
        let mut frames = FrameStream::new(Bytes { stream: incoming, buffer: vec![0; READ_BYTES].into() });
        match tokio::time::timeout(HELLO_TIMEOUT, greet(&mut out, &mut frames)).await {
            Ok(greeted) => greeted?,
            Err(_elapsed) => return Err(SessionError::Silent),
        }
        let (answer, answers) = mpsc::channel(ANSWERS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(send_answers(out, answers));
        tasks.spawn(self.clone().released());
        let signers: Vec<_> = self.device_keys.iter().map(signer_id).collect();
        let mut line: Option<RelayLine> = None;
        let (mut lane, mut offers) = (None, None);
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame?,
                Some(ended) = tasks.join_next() => return ended.map_err(transport)?,
            };
            match frame {
                None => return Ok(()),
                Some(Frame::Lane { backlog, .. }) => lane = Some(timing(backlog)),
                Some(Frame::Data { position, record }) => {
                    let timing = lane.ok_or(SessionError::Unexpected("tcp"))?;
                    let taken = self.data((position, timing), record, &answer);
                    let taken = tokio::time::timeout(TCP_WAIT_MAX, taken).await;
                    taken.map_err(|_elapsed| SessionError::Waiting)??;
                }
                Some(Frame::Beat { bytes }) => {
                    line.get_or_insert_with(|| self.relay.line(signers.clone(), &answer)).beat(bytes);
                }
                Some(Frame::Erase { request }) => {
                    let place = answer.clone().reserve_owned().await.map_err(transport)?;
                    self.clone().erase(request, place, answer.clone()).await?;
                }
                Some(Frame::AskGenerations { patient, class, from }) => {
                    let place = answer.clone().reserve_owned().await.map_err(transport)?;
                    self.clone().generations((patient, class), from, place).await?;
                }
                Some(frame) if self.offers(&frame, &signers, &answer, &mut offers) => {}
                Some(_) => return Err(SessionError::Unexpected("tcp")),
            }
        }
    }
}

fn timing(backlog: bool) -> Timing {
    if backlog { Timing::Backlog } else { Timing::Live }
}

/// What came on one stream before it was durable at the gateway, oldest first.
#[derive(Debug, Default)]
struct Early {
    held: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Early {
    fn hold(&mut self, position: u64, record: Vec<u8>) -> Result<(), SessionError> {
        self.bytes += record.len();
        let ascends = self.held.back().is_none_or(|(last, _)| *last < position);
        self.held.push_back((position, record));
        if !ascends || self.bytes > EARLY_BYTES_MAX || self.held.len() > EARLY_RECORDS_MAX {
            return Err(SessionError::Early);
        }
        Ok(())
    }

    fn release(&mut self, below: u64) -> Option<(u64, Vec<u8>)> {
        let released = self.held.pop_front_if(|(position, _)| *position < below)?;
        self.bytes -= released.1.len();
        Some(released)
    }
}

async fn hello(connection: &Connection) -> Result<(SendStream, FrameStream), SessionError> {
    let (mut out, incoming) = connection.accept_bi().await.map_err(transport)?;
    let mut frames = FrameStream::new(incoming);
    greet(&mut out, &mut frames).await?;
    Ok((out, frames))
}

async fn greet<S: Source>(
    out: &mut (impl AsyncWrite + Unpin),
    frames: &mut FrameStream<S>,
) -> Result<(), SessionError> {
    match frames.next().await? {
        Some(Frame::Hello { version: uplink::VERSION }) => {}
        Some(Frame::Hello { version }) => return Err(SessionError::Version(version)),
        _ => return Err(SessionError::Unexpected("control")),
    }
    let welcome = Frame::Welcome { version: uplink::VERSION }.encode();
    out.write_all(&welcome).await.map_err(transport)?;
    out.flush().await.map_err(transport)?;
    kill_point::pass("session.welcomed");
    Ok(())
}

/// Parses a record and checks its signature against the gateway's keys.
fn check<'r>(record: &'r [u8], keys: &[VerifyingKey]) -> Result<Record<'r>, (Refusal, &'static str)> {
    let record = Record::decode(record).map_err(|e| (Refusal::Malformed, e.reason()))?;
    let signer = record.signer();
    let key = keys.iter().find(|key| signer_id(key) == signer).ok_or((Refusal::Signature, "signer"))?;
    let verified = match &record {
        Record::Segment(segment) => segment.verify(key).map(drop).map_err(RecordError::from),
        Record::Wrap(wrap) => wrap.verify(key).map_err(RecordError::from),
        Record::Head(head) => head.verify(key).map_err(RecordError::from),
        Record::Gap(gap) => gap.verify(key).map_err(RecordError::from),
        Record::Tokens(tokens) => tokens.verify(key).map_err(RecordError::from),
    };
    verified.map_err(|e| (Refusal::Signature, e.reason()))?;
    Ok(record)
}

async fn send_answers(
    mut out: impl AsyncWrite + Unpin,
    mut answers: mpsc::Receiver<Answer>,
) -> Result<(), SessionError> {
    let mut batch = Vec::new();
    while answers.recv_many(&mut batch, ANSWERS_MAX).await > 0 {
        let mut positions = Vec::new();
        let mut frames = Vec::new();
        for answer in batch.drain(..) {
            match answer {
                Answer::Ack(position) => positions.push(position),
                Answer::Refuse(position, refusal) => frames.push(Frame::Refuse { position, refusal }),
                Answer::Command(bytes) => frames.push(Frame::Command { bytes }),
                Answer::Offer(sealed) => frames.push(Frame::Offer { version: uplink::VERSION, sealed }),
                Answer::Generations(told) => frames.push(told),
                Answer::Erased(receipt) => frames.push(Frame::Erased { receipt }),
                Answer::EraseRefused(request, refusal) => {
                    frames.push(Frame::EraseRefused { request, refusal });
                }
            }
        }
        frames.extend(uplink::ack_frames(&mut positions));
        kill_point::pass("session.answering");
        for frame in frames {
            out.write_all(&frame.encode()).await.map_err(transport)?;
            kill_point::pass("session.answered");
        }
        out.flush().await.map_err(transport)?;
    }
    Ok(())
}

/// Where frames come from.
pub(crate) trait Source {
    /// Waits for more bytes; false at the end. Cancel-safe.
    fn read_into(&mut self, framer: &mut Framer) -> impl Future<Output = Result<bool, SessionError>> + Send;
}

impl Source for RecvStream {
    async fn read_into(&mut self, framer: &mut Framer) -> Result<bool, SessionError> {
        let chunk = self.read_chunk(READ_BYTES, true).await.map_err(transport)?;
        chunk.as_ref().inspect(|chunk| framer.push(&chunk.bytes));
        Ok(chunk.is_some())
    }
}

/// A stream of bytes, as TCP has it.
struct Bytes<S> {
    stream: ReadHalf<S>,
    buffer: Box<[u8]>,
}

impl<S: AsyncRead + Send> Source for Bytes<S> {
    async fn read_into(&mut self, framer: &mut Framer) -> Result<bool, SessionError> {
        let read = self.stream.read(&mut self.buffer).await.map_err(transport)?;
        framer.push(&self.buffer[..read]);
        Ok(read > 0)
    }
}

/// Frames of one receiving stream.
#[derive(Debug)]
pub(crate) struct FrameStream<S = RecvStream> {
    stream: S,
    framer: Framer,
}

impl<S: Source> FrameStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, framer: Framer::new() }
    }

    /// The next frame, or `None` at the stream's end. Cancel-safe: what was read stays in the framer.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, SessionError> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(Some(frame));
            }
            if !self.stream.read_into(&mut self.framer).await? {
                return Ok(None);
            }
        }
    }
}
