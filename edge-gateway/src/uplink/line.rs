//! One QUIC connection to the core, from handshake to loss: its control stream and the streams of what it carries.

use std::time::Duration;

use caregate_host::kill_point;
use caregate_protocol::beat::BEAT_BYTES;
use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{self as wire, Frame, Framer};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::connection::{Link, LinkError, transport};
use super::schedule::Part;
use crate::spool::Position;

/// Bytes read from the control stream at once.
const READ_BYTES: usize = 64 << 10;
/// Time for records in flight to be acknowledged when the gateway stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that the core has welcomed.
pub(super) struct Opened {
    connection: Connection,
    /// Stays open as long as the connection: its end would tell the core that we are done.
    out: SendStream,
    control: Control,
}

/// One of the connections.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) link: Link,
    pub(super) part: Part,
}

impl Line {
    /// Holds a connection until it is lost. `Ok` only at shutdown.
    pub(super) async fn hold(&self, opened: Opened, shutdown: &CancellationToken) -> Result<(), LinkError> {
        let Opened { connection, mut out, control } = opened;
        info!(core = %connection.remote_address(), lane = self.part.as_str(), "connected to the core");
        self.connected(true);
        let mut senders = JoinSet::new();
        let ended = self.serve(&connection, (&mut out, control), &mut senders, shutdown).await;
        // Only when no sender runs any more: what one took now would count as sent on the next connection.
        senders.shutdown().await;
        self.connected(false);
        connection.close(VarInt::from_u32(u32::from(ended.is_err())), b"");
        drop(out);
        ended
    }

    /// Handshake and greeting.
    pub(super) async fn open(&self, endpoint: &Endpoint) -> Result<Opened, LinkError> {
        let connection =
            endpoint.connect(self.link.core, "core").map_err(transport)?.await.map_err(transport)?;
        let (mut out, incoming) = connection.open_bi().await.map_err(transport)?;
        out.write_all(&Frame::Hello { version: wire::VERSION }.encode()).await.map_err(transport)?;
        let mut control = Control { stream: incoming, framer: Framer::new() };
        let Frame::Welcome { version } = control.next().await? else { return Err(LinkError::Unexpected) };
        kill_point::pass("uplink.welcomed");
        if version == wire::VERSION {
            Ok(Opened { connection, out, control })
        } else {
            Err(LinkError::Version(version))
        }
    }

    fn connected(&self, up: bool) {
        self.link.metrics.lane_connected.with_label_values(&[self.part.as_str()]).set(i64::from(up));
        self.link.uplink.connected(self.part, up, |all| self.link.connected.set(all));
    }

    async fn serve(
        &self,
        connection: &Connection,
        (out, mut control): (&mut SendStream, Control),
        senders: &mut JoinSet<Result<(), LinkError>>,
        shutdown: &CancellationToken,
    ) -> Result<(), LinkError> {
        for lane in self.part.lanes() {
            senders.spawn(self.clone().send_lane(connection.clone(), lane));
        }
        let is_alarm = self.part == Part::Live(Lane::Alarm);
        let mut beats = self.link.staff.as_ref().filter(|_| is_alarm).map(|staff| staff.beats.clone());
        // The one that is there is as old as the connection before: it says nothing.
        beats.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let mut drained = None;
        loop {
            if drained.is_some() && self.link.uplink.waiting_on(self.part) == 0 {
                return Ok(());
            }
            let deadline = async {
                match drained {
                    None => std::future::pending().await,
                    Some(at) => tokio::time::sleep_until(at).await,
                }
            };
            tokio::select! {
                frame = control.next() => self.answered(frame?).await?,
                beat = next_beat(&mut beats) => {
                    out.write_all(&Frame::Beat { bytes: beat.to_vec() }.encode()).await.map_err(transport)?;
                }
                Some(ended) = senders.join_next() => ended.map_err(transport)??,
                () = shutdown.cancelled(), if drained.is_none() => {
                    drained = Some(tokio::time::Instant::now() + DRAIN_TIMEOUT);
                }
                () = deadline => return Ok(()),
            }
        }
    }

    async fn answered(&self, frame: Frame) -> Result<(), LinkError> {
        match frame {
            Frame::Ack { ranges } => {
                kill_point::pass("uplink.ack-read");
                for (first, last) in ranges {
                    self.link.uplink.schedule().acked(first, last);
                    self.link.acked.send(first..=last).await.map_err(|_gone| LinkError::Stopping)?;
                    kill_point::pass("uplink.ack-handed-over");
                }
                self.link.uplink.observe(&self.link.metrics);
                Ok(())
            }
            Frame::Refuse { position, refusal } => {
                // It stays in the spool: the core can't take it, and nobody else may throw it away.
                self.link.metrics.uplink_refused.with_label_values(&[refusal.as_str()]).inc();
                warn!(position, refusal = refusal.as_str(), "the core refused a record");
                Ok(())
            }
            Frame::Command { bytes } => {
                // Where nobody is to hear it, or the watch is busy, it is lost; its sender repeats it.
                self.link.staff.as_ref().map(|staff| staff.commands.try_send(bytes).ok());
                Ok(())
            }
            Frame::Beat { .. }
            | Frame::Follow { .. }
            | Frame::Hello { .. }
            | Frame::Welcome { .. }
            | Frame::Lane { .. }
            | Frame::Data { .. }
            | Frame::Subscribe { .. }
            | Frame::Subscribed { .. }
            | Frame::Delivery { .. }
            | Frame::Erase { .. }
            | Frame::Erased { .. }
            | Frame::EraseRefused { .. } => Err(LinkError::Unexpected),
        }
    }

    /// Sends one lane's records for as long as the connection lasts.
    async fn send_lane(self, connection: Connection, lane: Lane) -> Result<(), LinkError> {
        let link = &self.link;
        let mut stream: Option<SendStream> = None;
        loop {
            let position = link.uplink.next_position(self.part, lane).await;
            let reader = link.reader.clone();
            let read = tokio::task::spawn_blocking(move || reader.read(Position(position)));
            let record = match read.await.map_err(transport)? {
                Ok(Some((_, record))) => record,
                Ok(None) => {
                    debug!(position, "acknowledged meanwhile");
                    link.uplink.schedule().acked(position, position);
                    continue;
                }
                Err(failure) => {
                    // One bad sector must not hold up the rest. It counts as sent, so the next connection tries it again,
                    // and it stays in the spool: nobody but the core lets go of a record.
                    link.metrics.uplink_refused.with_label_values(&["unreadable"]).inc();
                    error!(position, %failure, "a record can't be read from the spool");
                    continue;
                }
            };
            kill_point::pass("uplink.record-read");
            let out = match &mut stream {
                Some(out) => out,
                none => none.insert(open_lane(&connection, lane, self.part).await?),
            };
            let frame = Frame::Data { position, record }.encode();
            out.write_all(&frame).await.map_err(transport)?;
            kill_point::pass("uplink.record-sent");
            link.metrics.sent.with_label_values(&[lane.as_str(), self.part.kind()]).inc();
        }
    }
}

/// Each stream says what it carries; on the backlog's connection the lanes share by priority.
async fn open_lane(connection: &Connection, lane: Lane, part: Part) -> Result<SendStream, LinkError> {
    let mut out = connection.open_uni().await.map_err(transport)?;
    out.set_priority(-i32::from(lane as u8)).map_err(transport)?;
    let frame = Frame::Lane { lane, backlog: part == Part::Backlog };
    out.write_all(&frame.encode()).await.map_err(transport)?;
    Ok(out)
}

/// The next heartbeat; never where there is no watch, or on another lane's connection.
async fn next_beat(beats: &mut Option<watch::Receiver<Option<[u8; BEAT_BYTES]>>>) -> [u8; BEAT_BYTES] {
    if let Some(beats) = beats {
        while beats.changed().await.is_ok() {
            if let Some(beat) = *beats.borrow_and_update() {
                return beat;
            }
        }
    }
    std::future::pending().await
}

struct Control {
    stream: RecvStream,
    framer: Framer,
}

impl Control {
    /// The next frame. Cancel-safe: what was read stays in the framer.
    async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(frame);
            }
            match self.stream.read_chunk(READ_BYTES, true).await.map_err(transport)? {
                Some(chunk) => self.framer.push(&chunk.bytes),
                None => return Err(transport("the core closed the control stream")),
            }
        }
    }
}
