//! One feed's connection: each subscription is a cursor on a recipient's queue, so a slow feed costs no memory here.

use std::sync::Arc;
use std::time::Instant;

use caregate_host::clock;
use caregate_host::journal::Journal;
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::search::Token;
use caregate_protocol::uplink::{self, Classes, Frame, Question, Timing};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::error;

use crate::erase::Eraser;
use crate::fetches::Fetches;
use crate::gateway::{FrameStream, SessionError, transport};
use crate::metrics::Metrics;
use crate::preview::Previews;
use crate::relay::Relay;
use crate::search::SearchIndex;
use crate::store::{Page, Span, Store, StoreError};

/// Bytes read from the store at once: a quarter second of a busy hospital's traffic, and the memory of a subscription.
const PAGE_BYTES: usize = 512 << 10;
/// Bytes after which an answer of history ends and says where to go on: some seconds of a hospital's line; who wants more asks again.
const HISTORY_BYTES_MAX: usize = 8 << 20;
/// Subscriptions of one feed at once: what is live, backlog, history, what is provisional and heartbeats; and what its staff ask for.
const SUBSCRIPTIONS_MAX: usize = 12;

/// Numbers of the other timing that are passed over until the feed is told so: what comes again, at most, where a connection is lost.
const PASSED_MAX: u64 = 256;

/// What goes first where the line is full: heartbeats and commands, what is shown before it is durable, what is live; then all else.
mod priority {
    pub(super) const FOLLOWING: i32 = 3;
    pub(super) const PREVIEW: i32 = 2;
    pub(super) const LIVE: i32 = 1;
}

/// What a feed's session needs.
#[derive(Debug, Clone)]
pub struct FeedSession {
    /// The queues that this feed may read.
    pub recipients: Arc<[RecipientId]>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What segments can be found by.
    pub search: Arc<SearchIndex>,
    /// Raised after each commit.
    pub stored: watch::Receiver<u64>,
    /// Heartbeats and commands.
    pub relay: Relay,
    /// Live records before they are durable.
    pub previews: Previews,
    /// Takes feeds' receipts of erasures.
    pub eraser: Eraser,
    /// The feed's name in its certificate.
    pub name: Arc<str>,
    /// What was delivered to whom.
    pub journal: Arc<Journal>,
    /// Counters.
    pub metrics: Metrics,
}

impl FeedSession {
    /// Serves the connection until it ends.
    ///
    /// # Errors
    /// [`SessionError`] names why it ended.
    pub async fn run(self, connection: Connection) -> Result<(), SessionError> {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi(), if tasks.len() < SUBSCRIPTIONS_MAX => {
                    let (out, incoming) = stream.map_err(transport)?;
                    tasks.spawn(self.clone().subscription(out, incoming));
                }
                Some(ended) = tasks.join_next() => match ended.map_err(transport)? {
                    // The feed let go of one subscription; its others go on. A connection that is gone shows below.
                    Ok(()) | Err(SessionError::Transport(_)) => {}
                    Err(error) => {
                        connection.close(1_u32.into(), error.reason().as_bytes());
                        return Err(error);
                    }
                },
                error = connection.closed() => return Err(transport(error)),
            }
        }
    }

    async fn subscription(self, out: SendStream, incoming: RecvStream) -> Result<(), SessionError> {
        let mut frames = FrameStream::new(incoming);
        let (recipient, span) = match frames.next().await? {
            Some(Frame::Subscribe { version: uplink::VERSION, recipient, from, until, of }) => {
                (recipient, Span { from, until, of })
            }
            Some(Frame::Follow { version: uplink::VERSION }) => return self.follow(out, frames).await,
            Some(Frame::Preview { version: uplink::VERSION, recipient, classes }) => {
                return self.preview(out, recipient, classes).await;
            }
            Some(Frame::History { version: uplink::VERSION, question }) => {
                return self.history(out, question).await;
            }
            Some(Frame::Search { version: uplink::VERSION, recipient, patient, class, tokens }) => {
                return self.search(out, recipient, (patient, class), tokens).await;
            }
            Some(Frame::Offer { version: uplink::VERSION, sealed }) => return self.offer(out, sealed).await,
            Some(
                Frame::Subscribe { version, .. }
                | Frame::Follow { version }
                | Frame::Preview { version, .. }
                | Frame::History { version, .. }
                | Frame::Search { version, .. }
                | Frame::Offer { version, .. },
            ) => {
                return Err(SessionError::Version(version));
            }
            _ => return Err(SessionError::Unexpected("subscription")),
        };
        self.deliver(out, recipient, span).await
    }

    /// Follows a recipient's queue to the span's end.
    async fn deliver(
        mut self,
        mut out: SendStream,
        recipient: RecipientId,
        mut span: Span,
    ) -> Result<(), SessionError> {
        self.allow(recipient)?;
        if span.of == Some(Timing::Live) {
            out.set_priority(priority::LIVE).map_err(transport)?;
        }
        self.stored.mark_unchanged();
        let mut erasures = self.relay.erasures();
        let next = self.read(move |store| store.next_number(recipient)).await?;
        let answer = Frame::Subscribed { version: uplink::VERSION, next };
        out.write_all(&answer.encode()).await.map_err(transport)?;
        let mut fetches = self.fetches(recipient);
        if span.from == u64::MAX {
            span.from = next;
        }
        // The feed knows that all below it is done.
        let mut told = span.from;
        while span.from < span.until {
            let page: Page = self.read(move |store| store.page_of(recipient, span, PAGE_BYTES)).await?;
            if page.records.is_empty() && page.next == span.from {
                tokio::select! {
                    changed = self.stored.changed() => changed.map_err(|_gone| SessionError::Stopped)?,
                    changed = erasures.changed() => changed.map_err(|_gone| SessionError::Stopped)?,
                    // So that a subscription nobody reads gives its place back.
                    _ = out.stopped() => return Ok(()),
                    () = due(fetches.due()) => fetches.note().await,
                }
                continue;
            }
            for (number, record) in page.records {
                fetches.add(&record).await;
                let frame = Frame::Delivery { number, record };
                out.write_all(&frame.encode()).await.map_err(transport)?;
                self.metrics.delivered.inc();
                told = number + 1;
            }
            span.from = page.next;
            if span.of.is_some() && span.from - told >= PASSED_MAX {
                told = span.from;
                out.write_all(&Frame::Passed { below: told }.encode()).await.map_err(transport)?;
            }
            if fetches.due().is_some_and(|due| due <= clock::monotonic()) {
                fetches.note().await;
            }
        }
        drop(fetches);
        out.finish().map_err(transport)?;
        // The feed stops reading when it has all; until then the stream must not be reset.
        drop(out.stopped().await);
        Ok(())
    }

    fn allow(&self, recipient: RecipientId) -> Result<(), SessionError> {
        let is_allowed = self.recipients.contains(&recipient);
        is_allowed.then_some(()).ok_or(SessionError::NotConfigured("recipient"))
    }

    fn fetches(&self, recipient: RecipientId) -> Fetches {
        let (journal, metrics) = (Arc::clone(&self.journal), self.metrics.clone());
        Fetches::new(journal, metrics, recipient, Arc::clone(&self.name))
    }

    /// Answers with a time of a patient's history, and says where to go on.
    async fn history(self, mut out: SendStream, mut question: Question) -> Result<(), SessionError> {
        self.allow(question.recipient)?;
        let mut fetches = self.fetches(question.recipient);
        let mut bytes = 0;
        let next = loop {
            let past = self.read(move |store| store.history(&question, PAGE_BYTES)).await?;
            for record in past.records {
                bytes += record.len();
                fetches.add(&record).await;
                out.write_all(&Frame::Past { record }.encode()).await.map_err(transport)?;
                self.metrics.delivered.inc();
            }
            match past.next {
                Some(next) if bytes < HISTORY_BYTES_MAX => question.at = next,
                next => break next,
            }
        };
        // What was delivered is noted before the feed is told that it was all.
        drop(fetches);
        out.write_all(&Frame::PastEnd { next }.encode()).await.map_err(transport)?;
        out.finish().map_err(transport)?;
        // The feed stops reading when it has all; until then the stream must not be reset.
        drop(out.stopped().await);
        Ok(())
    }

    /// Gives the feed the segments that have any of these tokens. Who can make one of them holds the key of its epoch.
    async fn search(
        self,
        mut out: SendStream,
        recipient: RecipientId,
        (patient, class): (PatientId, DataClass),
        tokens: Vec<Token>,
    ) -> Result<(), SessionError> {
        self.allow(recipient)?;
        let index = Arc::clone(&self.search);
        let found = tokio::task::spawn_blocking(move || index.find(patient, class, &tokens));
        let found = found.await.map_err(transport)?.map_err(|failure| {
            error!(%failure, "search");
            SessionError::Stopped
        })?;
        self.metrics.searches.inc();
        let mut fetches = self.fetches(recipient);
        for number in found {
            let segment = self.read(move |store| store.segment(patient, class, number)).await?;
            if let Some(record) = segment {
                fetches.add(&record).await;
                out.write_all(&Frame::Found { record }.encode()).await.map_err(transport)?;
                self.metrics.delivered.inc();
            }
        }
        drop(fetches);
        out.finish().map_err(transport)?;
        // The feed stops reading when it has all; until then the stream must not be reset.
        drop(out.stopped().await);
        Ok(())
    }

    /// Carries policy to a gateway, and its verdict back.
    async fn offer(self, mut out: SendStream, sealed: Vec<u8>) -> Result<(), SessionError> {
        let frame = match self.relay.offers().carry(&self.name, sealed).await {
            Ok(bytes) => Frame::Verdict { bytes },
            Err(refusal) => Frame::NotOffered { refusal },
        };
        out.write_all(&frame.encode()).await.map_err(transport)?;
        out.finish().map_err(transport)?;
        // The feed stops reading when it has it; until then the stream must not be reset.
        drop(out.stopped().await);
        Ok(())
    }

    /// Shows live records before they are durable, until the feed lets go.
    async fn preview(
        self,
        mut out: SendStream,
        recipient: RecipientId,
        classes: Classes,
    ) -> Result<(), SessionError> {
        self.allow(recipient)?;
        out.set_priority(priority::PREVIEW).map_err(transport)?;
        let mut view = self.previews.view(recipient, classes);
        let mut fetches = self.fetches(recipient);
        loop {
            tokio::select! {
                record = view.next() => {
                    let record = record.ok_or(SessionError::Stopped)?;
                    fetches.add(&record).await;
                    let frame = Frame::Provisional { record: record.to_vec() };
                    out.write_all(&frame.encode()).await.map_err(transport)?;
                }
                _ = out.stopped() => return Ok(()),
                () = due(fetches.due()) => fetches.note().await,
            }
        }
    }

    /// Carries heartbeats to the feed and its commands to gateways, until the feed lets go.
    async fn follow(self, mut out: SendStream, mut frames: FrameStream) -> Result<(), SessionError> {
        out.set_priority(priority::FOLLOWING).map_err(transport)?;
        let mut beats = self.relay.beats();
        let mut staff = self.relay.staff();
        loop {
            tokio::select! {
                beat = beats.recv() => match beat {
                    Ok(bytes) => out.write_all(&Frame::Beat { bytes }.encode()).await.map_err(transport)?,
                    // The next one says as much.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(SessionError::Stopped),
                },
                frame = frames.next() => match frame? {
                    Some(Frame::Command { bytes }) => staff.command(bytes),
                    Some(Frame::Erased { receipt }) => {
                        self.eraser.receipt(receipt, &self.recipients).await.map_err(stopped)?;
                    }
                    Some(_) => return Err(SessionError::Unexpected("following")),
                    None => return Ok(()),
                },
            }
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SessionError> {
        let store = Arc::clone(&self.store);
        let answer = tokio::task::spawn_blocking(move || query(&*store)).await.map_err(transport)?;
        answer.map_err(stopped)
    }
}

fn stopped(failure: StoreError) -> SessionError {
    error!(%failure, "store");
    SessionError::Stopped
}

/// Until then, if ever.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
