//! One connection to the core, from handshake to loss: its control stream and the streams of what it carries.

use std::collections::VecDeque;
use std::time::Duration;

use caregate_host::{clock, kill_point};
use caregate_protocol::beat::BEAT_BYTES;
use caregate_protocol::id::Lane;
use caregate_protocol::offer::VERDICT_BYTES;
use caregate_protocol::uplink::{self as wire, EARLY_BYTES_MAX, EARLY_RECORDS_MAX, Frame};
use quinn::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::carrier::{self, Carrier, ControlIn, ControlOut, Datagrams, LaneOut, Made, Writer};
use super::congestion::Congestion;
use super::connection::{Link, LinkError, transport};
use super::path::Way;
use super::questions::Questions;
use super::schedule::Part;
use crate::policy::offers::Incoming;
use crate::spool::{Position, SpoolError};

/// How often it is looked at whether the way is congested: a few times within the longest time for which records wait for each other.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Verdicts that wait to be written: of the offers that may be under way.
const VERDICTS_MAX: usize = 2;
/// Time for records in flight to be acknowledged when the gateway stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that the core has welcomed.
pub(super) struct Opened {
    carrier: Carrier,
    out: ControlOut,
    control: ControlIn,
    writer: Option<Writer>,
}

/// One of the connections.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) link: Link,
    pub(super) part: Part,
}

impl Line {
    /// Holds a connection until it is lost, or `better` says that there is a better one. `Ok` only at shutdown.
    pub(super) async fn hold(
        &self,
        opened: Opened,
        shutdown: &CancellationToken,
        better: &CancellationToken,
    ) -> Result<(), LinkError> {
        let Opened { carrier, mut out, control, writer } = opened;
        info!(way = carrier.way(), lane = self.part.as_str(), "connected to the core");
        self.by_tcp(carrier.is_tcp());
        self.connected(true);
        let mut senders = JoinSet::new();
        writer.map(|writer| senders.spawn(writer.run()));
        let mut counted = Datagrams::default();
        let serving = self.serve((&carrier, &mut counted), (&mut out, control), &mut senders, shutdown);
        let ended = tokio::select! {
            ended = serving => ended,
            () = better.cancelled() => Err(LinkError::Better),
        };
        // Only when no sender runs any more: what one took now would count as sent on the next connection.
        senders.shutdown().await;
        self.connected(false);
        self.by_tcp(false);
        self.congested(false);
        self.count(&carrier, &mut counted);
        carrier.close(ended.is_err());
        drop(out);
        ended
    }

    /// Adds what went out by UDP since it was last counted.
    fn count(&self, carrier: &Carrier, counted: &mut Datagrams) {
        let Datagrams { datagrams, sends } = carrier.sent_since(counted);
        self.link.metrics.uplink_datagrams.inc_by(datagrams);
        self.link.metrics.uplink_sends.inc_by(sends);
    }

    /// Handshake and greeting.
    pub(super) async fn open(&self, endpoint: &Endpoint, way: Way) -> Result<Opened, LinkError> {
        let made = match (way, self.link.core_tcp) {
            (Way::Tcp, Some(core)) => carrier::tcp(self.link.tls(), core).await?,
            (Way::Quic | Way::Tcp, _) => carrier::quic(endpoint, self.link.core).await?,
        };
        let Made { carrier, mut out, mut control, writer } = made;
        out.say(&Frame::Hello { version: wire::VERSION }).await?;
        let writer = match writer {
            Some(writer) => Some(writer.first().await?),
            None => None,
        };
        let Frame::Welcome { version } = control.next().await? else { return Err(LinkError::Unexpected) };
        kill_point::pass("uplink.welcomed");
        if version == wire::VERSION {
            Ok(Opened { carrier, out, control, writer })
        } else {
            Err(LinkError::Version(version))
        }
    }

    fn congested(&self, congested: bool) {
        self.link.metrics.lane_congested.with_label_values(&[self.part.as_str()]).set(i64::from(congested));
        self.link.uplink.congested(self.part, congested);
    }

    fn by_tcp(&self, tcp: bool) {
        self.link.metrics.lane_tcp.with_label_values(&[self.part.as_str()]).set(i64::from(tcp));
    }

    fn connected(&self, up: bool) {
        self.link.metrics.lane_connected.with_label_values(&[self.part.as_str()]).set(i64::from(up));
        self.link.uplink.connected(self.part, up, |all| self.link.connected.set(all));
    }

    async fn serve(
        &self,
        (carrier, counted): (&Carrier, &mut Datagrams),
        (out, mut control): (&mut ControlOut, ControlIn),
        senders: &mut JoinSet<Result<(), LinkError>>,
        shutdown: &CancellationToken,
    ) -> Result<(), LinkError> {
        for lane in self.part.lanes() {
            senders.spawn(self.clone().send_lane(LaneOut::new(carrier.clone(), lane, self.part), lane));
        }
        if self.offers().is_some() {
            out.tell(&Frame::TakesOffers).await?;
        }
        // Kept here, so that it does not end.
        let (verdict, mut verdicts) = mpsc::channel(VERDICTS_MAX);
        let is_alarm = self.part == Part::Live(Lane::Alarm);
        let staff = self.link.staff.as_ref().filter(|_| is_alarm);
        let mut questions = Questions::new(staff);
        let mut beats = staff.map(|staff| staff.beats.clone());
        // The one that is there is as old as the connection before: it says nothing.
        beats.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let mut samples = tokio::time::interval(SAMPLE_INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut way = Congestion::default();
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
                frame = control.next() => {
                    let frame = frame?;
                    questions.heard(&frame).await;
                    self.answered(frame, &verdict).await?;
                }
                Some(bytes) = verdicts.recv() => {
                    out.tell(&Frame::Verdict { bytes: bytes.to_vec() }).await?;
                }
                beat = next_beat(&mut beats) => {
                    out.say(&Frame::Beat { bytes: beat.to_vec() }).await?;
                }
                question = questions.next() => out.say(&question).await?,
                _ = samples.tick(), if !carrier.is_tcp() => {
                    let congested = carrier.sample().is_some_and(|s| way.take(s, clock::monotonic()));
                    self.congested(congested);
                    self.count(carrier, counted);
                }
                Some(ended) = senders.join_next() => ended.map_err(transport)??,
                () = shutdown.cancelled(), if drained.is_none() => {
                    self.link.uplink.end();
                    drained = Some(tokio::time::Instant::now() + DRAIN_TIMEOUT);
                }
                () = deadline => return Ok(()),
            }
        }
    }

    /// Who takes offers: on the connection of the backlog alone, where a MiB holds up no acknowledgement of what is live.
    fn offers(&self) -> Option<&mpsc::Sender<Incoming>> {
        self.link.offers.as_ref().filter(|_| self.part == Part::Backlog)
    }

    async fn answered(
        &self,
        frame: Frame,
        verdict: &mpsc::Sender<[u8; VERDICT_BYTES]>,
    ) -> Result<(), LinkError> {
        match frame {
            Frame::Ack { ranges } => {
                kill_point::pass("uplink.ack-read");
                for (first, last) in ranges {
                    self.link.uplink.acked(first, last);
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
            Frame::Offer { version: wire::VERSION, sealed } => {
                let offers = self.offers().ok_or(LinkError::Unexpected)?;
                let incoming = Incoming { sealed, answer: verdict.clone() };
                if offers.try_send(incoming).is_err() {
                    // The core has one on its way at most: this is one that was given up, or the gateway stops.
                    self.link.metrics.policy.offers.with_label_values(&["core", "busy"]).inc();
                }
                Ok(())
            }
            // Kept already: it answers what was asked on the alarm lane's connection.
            Frame::Erased { .. } | Frame::Generations { .. } if self.part == Part::Live(Lane::Alarm) => {
                Ok(())
            }
            Frame::EraseRefused { refusal, .. } => {
                self.link.metrics.uplink_refused.with_label_values(&[refusal.as_str()]).inc();
                warn!(refusal = refusal.as_str(), "the core did not erase");
                Ok(())
            }
            Frame::Offer { .. }
            | Frame::TakesOffers
            | Frame::Verdict { .. }
            | Frame::NotOffered { .. }
            | Frame::Beat { .. }
            | Frame::Follow { .. }
            | Frame::Hello { .. }
            | Frame::Welcome { .. }
            | Frame::Lane { .. }
            | Frame::Data { .. }
            | Frame::Early { .. }
            | Frame::Durable { .. }
            | Frame::Subscribe { .. }
            | Frame::Subscribed { .. }
            | Frame::Delivery { .. }
            | Frame::Passed { .. }
            | Frame::Preview { .. }
            | Frame::Provisional { .. }
            | Frame::History { .. }
            | Frame::Past { .. }
            | Frame::PastEnd { .. }
            | Frame::Search { .. }
            | Frame::Found { .. }
            | Frame::Erase { .. }
            | Frame::Erased { .. }
            | Frame::AskGenerations { .. }
            | Frame::Generations { .. } => Err(LinkError::Unexpected),
        }
    }

    /// From memory where it was spooled a moment ago, else from the spool.
    async fn read(&self, position: u64) -> Result<Result<Option<Vec<u8>>, SpoolError>, LinkError> {
        if let Some(record) = self.link.uplink.take_recent(position, usize::MAX) {
            return Ok(Ok(Some(record)));
        }
        let reader = self.link.reader.clone();
        let read = tokio::task::spawn_blocking(move || reader.read(Position(position)));
        Ok(read.await.map_err(transport)?.map(|found| found.map(|(_, record)| record)))
    }

    /// Sends one lane's records for as long as the connection lasts.
    async fn send_lane(self, mut out: LaneOut, lane: Lane) -> Result<(), LinkError> {
        let link = &self.link;
        let mut durable = link.uplink.durable.subscribe();
        let mut early = Early::default();
        loop {
            let position = tokio::select! {
                biased;
                changed = durable.changed(), if !early.is_empty() => {
                    changed.map_err(|_gone| LinkError::Stopping)?;
                    let below = *durable.borrow_and_update();
                    early.confirm(below, &mut out).await?;
                    continue;
                }
                position = link.uplink.next_position(self.part, lane) => position,
            };
            if position >= *durable.borrow() {
                let room = if out.takes_early() { early.room() } else { 0 };
                if let Some(record) = link.uplink.take_recent(position, room) {
                    early.push(position, record.len());
                    link.uplink.measured(self.part, lane, record.len());
                    out.send(&Frame::Early { position, record }).await?;
                    kill_point::pass("uplink.early-sent");
                    link.metrics.sent.with_label_values(&[lane.as_str(), "early"]).inc();
                    continue;
                }
                durable.wait_for(|below| position < *below).await.map_err(|_gone| LinkError::Stopping)?;
            }
            // What went up early comes before it.
            let below = *durable.borrow();
            early.confirm(below, &mut out).await?;
            let record = match self.read(position).await? {
                Ok(Some(record)) => record,
                Ok(None) => {
                    debug!(position, "acknowledged meanwhile");
                    link.uplink.schedule().gone(position);
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
            link.uplink.measured(self.part, lane, record.len());
            out.send(&Frame::Data { position, record }).await?;
            kill_point::pass("uplink.record-sent");
            link.metrics.sent.with_label_values(&[lane.as_str(), self.part.kind()]).inc();
        }
    }
}

/// What went up on a stream before it was durable here, oldest first. The core holds it until it hears that it is.
#[derive(Debug, Default)]
struct Early {
    sent: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Early {
    fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Bytes that the next one may have.
    fn room(&self) -> usize {
        if self.sent.len() < EARLY_RECORDS_MAX { EARLY_BYTES_MAX - self.bytes } else { 0 }
    }

    fn push(&mut self, position: u64, bytes: usize) {
        self.sent.push_back((position, bytes));
        self.bytes += bytes;
    }

    /// Says of those below `durable` that they count.
    async fn confirm(&mut self, durable: u64, out: &mut LaneOut) -> Result<(), LinkError> {
        let mut below = None;
        while let Some((position, bytes)) = self.sent.pop_front_if(|(position, _)| *position < durable) {
            self.bytes -= bytes;
            below = Some(position + 1);
        }
        match below {
            Some(below) => out.send(&Frame::Durable { below }).await,
            None => Ok(()),
        }
    }
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
