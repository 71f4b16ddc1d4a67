//! `GET /api/stream`: a WebSocket (RFC 6455) that is a cursor on the ring.
//!
//! Nothing is queued for a reader: it is sent what the ring holds from its number on, as fast as it takes it, live readings before those
//! of the past. One that falls off the ring's tail is closed with 1013 and may come back with `from`.

mod bedside;
mod looks;
mod oversight;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseCode, CloseFrame, Message as Frame, WebSocket, close_code};
use caregate_host::clock;
use caregate_protocol::id::DataClass;
use futures_util::SinkExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant as Deadline, MissedTickBehavior, interval, sleep_until, timeout};

use self::looks::Looks;
use self::oversight::{News, Told};
use crate::feed::{Chains, Progress};
use crate::journal::What;
use crate::login::Access;
use crate::look::{Span, Spans, looks, spans_of};
use crate::message::Message;
use crate::ring::{Entry, Fallen, Place};
use crate::server::App;

/// How often a silent reader is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Questions without any answer after which it is gone.
const UNANSWERED_MAX: u32 = 3;
/// A reader that takes nothing for so long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often changes of chains are told: verified numbers change with each segment.
const CHAIN_INTERVAL: Duration = Duration::from_secs(1);
/// Time for the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Readers say nothing but pong and close.
pub const INCOMING_BYTES_MAX: usize = 1024;
/// Bytes that are collected before they are written.
pub const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The reader closed or is gone.
    Left,
    /// The reader does not answer or takes nothing.
    Silent,
    /// It fell off the ring.
    Slow(Fallen),
    /// Its session has ended.
    Expired,
    /// The feed stops.
    Stopping,
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Silent => "silent",
            Self::Slow(_) => "slow",
            Self::Expired => "expired",
            Self::Stopping => "stopping",
        }
    }

    fn frame(self) -> Option<CloseFrame> {
        let frame = |code: CloseCode, reason: String| Some(CloseFrame { code, reason: reason.into() });
        match self {
            Self::Left | Self::Silent => None,
            Self::Slow(fallen) => frame(close_code::AGAIN, fallen.to_string()),
            Self::Expired => frame(close_code::POLICY, "the session has ended".to_owned()),
            Self::Stopping => frame(close_code::AWAY, "the feed is stopping".to_owned()),
        }
    }
}

struct Stream {
    app: Arc<App>,
    socket: WebSocket,
    place: Place,
    told: Chains,
    oversight: Told,
    bedside: bedside::Told,
    user: Arc<str>,
    looks: Looks,
    link_up: bool,
    unanswered: u32,
}

/// Serves one stream until its end. Without `from` it starts with the next reading; a `from` beyond the next one is of an
/// earlier run of the feed, and gets all that is held.
pub async fn run(app: Arc<App>, socket: WebSocket, from: Option<u64>, access: Access) {
    app.metrics.streams.inc();
    let mut stream = Stream {
        app,
        socket,
        place: Place::new(0),
        told: BTreeMap::new(),
        oversight: Told::default(),
        bedside: bedside::Told::default(),
        user: Arc::clone(&access.user),
        looks: Looks::default(),
        link_up: false,
        unanswered: 0,
    };
    let end = match stream.follow(from, &access).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    stream.app.metrics.streams_closed.with_label_values(&[end.reason()]).inc();
    stream.note_ends().await;
    if let Some(frame) = end.frame() {
        // Too late for who does not take it in time.
        drop(timeout(CLOSE_TIMEOUT, stream.close(frame)).await);
    }
    stream.app.metrics.streams.dec();
}

impl Stream {
    async fn follow(&mut self, from: Option<u64>, access: &Access) -> Result<std::convert::Infallible, End> {
        let app = Arc::clone(&self.app);
        let since = clock::monotonic();
        let (mut progress, mut closed) = (app.feed.progress(), app.login.closed());
        let mut news = News::of(&app.oversight);
        let mut standings = app.feed.bedside().changed();
        let mut provisional = app.feed.provisional();
        self.greet(from, &mut progress).await?;
        let mut pings = interval(PING_INTERVAL);
        let mut chains = interval(CHAIN_INTERVAL);
        for ticks in [&mut pings, &mut chains] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.reset();
        }
        loop {
            let expires = app.login.expires(access, since).ok_or(End::Expired)?;
            let (at, link_up) = (self.place.at(), self.link_up);
            tokio::select! {
                biased;
                () = app.stopping.cancelled() => return Err(End::Stopping),
                () = expired(expires, &mut closed) => {}
                frame = self.socket.recv() => match frame {
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return Err(End::Left),
                    Some(Ok(Frame::Text(_) | Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_))) => {
                        self.unanswered = 0;
                    }
                },
                _ = pings.tick() => {
                    self.unanswered += 1;
                    if self.unanswered > UNANSWERED_MAX {
                        return Err(End::Silent);
                    }
                    self.send(vec![Frame::Ping(Default::default())]).await?;
                }
                _ = chains.tick() => {
                    self.tell_chains().await?;
                    self.tell_oversight().await?;
                    self.tell_bedside().await?;
                }
                () = news.come() => self.tell_oversight().await?,
                Ok(()) = standings.changed() => self.tell_bedside().await?,
                entry = next_of(&mut provisional) => self.send_provisional(&entry).await?,
                more = more(&mut progress, at, link_up) => self.send_more(more.ok_or(End::Stopping)?).await?,
            }
        }
    }

    async fn greet(
        &mut self,
        from: Option<u64>,
        progress: &mut watch::Receiver<Progress>,
    ) -> Result<(), End> {
        let Progress { link_up, .. } = *progress.borrow_and_update();
        let (tail, next, _) = self.app.feed.held();
        self.place = Place::new(match from {
            None => next,
            Some(from) if from > next => tail,
            Some(from) => from.max(tail),
        });
        self.link_up = link_up;
        let hello = Message::Hello { server_ms: clock::now_ms(), next, beds: &self.app.beds };
        let frames = vec![text(&hello), text(&Message::link(link_up))];
        self.send(frames).await?;
        self.tell_chains().await?;
        self.tell_oversight().await?;
        self.tell_bedside().await
    }

    /// What the ring holds from our number on, and the link if it changed.
    async fn send_more(&mut self, progress: Progress) -> Result<(), End> {
        if progress.link_up != self.link_up {
            self.link_up = progress.link_up;
            self.send(vec![text(&Message::link(progress.link_up))]).await?;
        }
        let sent = self.app.feed.take(&mut self.place).map_err(End::Slow)?;
        self.note_looks(spans_of(sent.iter().map(|sent| &*sent.entry))).await;
        if sent.is_empty() {
            return Ok(());
        }
        self.send(sent.iter().map(|sent| text(&Message::sent(sent))).collect()).await
    }

    async fn send_provisional(&mut self, entry: &Entry) -> Result<(), End> {
        self.note_looks(spans_of(std::iter::once(entry))).await;
        self.send(vec![text(&Message::provisional(entry))]).await
    }

    /// Notes looks that begin, before they are sent.
    async fn note_looks(&mut self, sent: Spans) {
        let due = self.looks.begin(&self.user, looks(&self.app, &sent));
        self.note(due).await;
    }

    /// Notes how far this reader's looks went.
    async fn note_ends(&mut self) {
        let due = self.looks.end(&self.user);
        self.note(due).await;
    }

    /// That it can't be noted is logged and counted, and keeps nobody from a patient.
    async fn note(&mut self, due: Vec<What>) {
        if !due.is_empty() {
            drop(self.app.oversight.recorder.note(due).await);
        }
    }

    async fn tell_chains(&mut self) -> Result<(), End> {
        let chains = self.app.feed.chains();
        let changed = chains.iter().filter(|(key, state)| self.told.get(key) != Some(state));
        let frames: Vec<_> = changed.map(|(key, state)| text(&Message::chain(*key, *state))).collect();
        self.told = chains;
        if frames.is_empty() { Ok(()) } else { self.send(frames).await }
    }

    /// What access rests on, whether the ledger is followed, and the list's new lines.
    async fn tell_oversight(&mut self) -> Result<(), End> {
        let app = Arc::clone(&self.app);
        let frames = self.oversight.news(&app, clock::now_ms());
        if frames.is_empty() {
            Ok(())
        } else {
            self.send(frames.into_iter().map(|json| Frame::Text(json.into())).collect()).await
        }
    }

    /// What gateways' watches say, and whether gateways are heard.
    async fn tell_bedside(&mut self) -> Result<(), End> {
        let news = self.bedside.news(self.app.feed.bedside(), clock::monotonic());
        let shown = |message: &Message<'_>| {
            let Message::Standing { view, .. } = message else { return None };
            let at_us = view.at_ms.saturating_mul(1000);
            Some(((view.patient, DataClass::Alarm), Span { from_us: at_us, until_us: at_us }))
        };
        self.note_looks(news.iter().filter_map(shown).collect()).await;
        let frames: Vec<_> = news.iter().map(text).collect();
        if frames.is_empty() { Ok(()) } else { self.send(frames).await }
    }

    async fn send(&mut self, frames: Vec<Frame>) -> Result<(), End> {
        let sending = async {
            for frame in frames {
                self.socket.feed(frame).await?;
            }
            self.socket.flush().await
        };
        tokio::select! {
            biased;
            sent = timeout(SEND_TIMEOUT, sending) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_gone)) => Err(End::Left),
                Err(_elapsed) => Err(End::Silent),
            },
            () = self.app.stopping.cancelled() => Err(End::Stopping),
        }
    }

    async fn close(&mut self, frame: CloseFrame) {
        if self.socket.send(Frame::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_late)) = self.socket.recv().await {}
        }
    }
}

fn text(message: &Message<'_>) -> Frame {
    Frame::Text(message.json().into())
}

/// The next provisional reading; those that were missed come when they are durable.
async fn next_of(provisional: &mut broadcast::Receiver<Arc<Entry>>) -> Arc<Entry> {
    loop {
        match provisional.recv().await {
            Ok(entry) => return entry,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Until there is something to send; none when the feed is gone.
async fn more(progress: &mut watch::Receiver<Progress>, at: u64, link_up: bool) -> Option<Progress> {
    progress.wait_for(|p| p.next > at || p.link_up != link_up).await.ok().map(|progress| *progress)
}

/// Until the session may have ended: its time has come, or some session was ended by hand.
async fn expired(expires: Instant, closed: &mut watch::Receiver<u64>) {
    let by_time = pin!(sleep_until(Deadline::from_std(expires)));
    tokio::select! {
        () = by_time => {}
        changed = closed.changed() => if changed.is_err() { std::future::pending().await },
    }
}
