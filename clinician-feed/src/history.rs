//! `GET /api/history`: what the core holds of one patient's class and time, opened here as it comes, as lines of JSON.
//!
//! ```text
//! core ─▶ records, 8 MiB an answer ─▶ opener of this request ─▶ lines ─▶ whoever asked
//! ```
//! Each step waits for the next, as far as the core: who reads slowly costs no memory. The opener is one of the request's own, so that a look
//! at the past changes nothing of the present, and its chain says whether all of that time is there.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use caregate_host::clock;
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::key::epoch_of;
use caregate_protocol::uplink::{self as wire, Frame, Framer, HistoryPlace, Question};
use caregate_protocol::wrap::HpkePrivateKey;
use ed25519_dalek::VerifyingKey;
use quinn::{Connection, RecvStream};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::look::{Span, Spans, looks};
use crate::message::{Message, ToldMessage};
use crate::opener::{Opened, Opener};
use crate::receipts::Receipts;
use crate::ring::entries;
use crate::server::{App, Peer, problem, refused};

/// Histories at once: each has a stream to the core, of twelve, and a thread while it opens.
pub const HISTORIES_MAX: usize = 3;
/// Longest time that is asked for at once.
const SPAN_MINUTES_MAX: u32 = 24 * 60;
/// Silence of the core after which it is given up: far above what a page of its store takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes read from the stream at once.
const READ_BYTES: usize = 64 << 10;
/// Records between link and opener, and pieces of the answer before the reader: enough that neither waits for the other for nothing.
const WAITING_MAX: usize = 8;

/// Why there is no history, or no more of it.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The end is not behind the beginning.
    #[error("until_ms: not behind from_ms")]
    Span,
    /// More than may be asked for at once.
    #[error("the span is longer than {} hours: ask for a shorter one", SPAN_MINUTES_MAX / 60)]
    TooLong,
    /// As many as may be are on their way.
    #[error("{HISTORIES_MAX} histories are on their way already")]
    Busy,
    /// No connection.
    #[error("the core is not connected")]
    NoCore,
    /// It failed on the way, or took too long.
    #[error("the core did not answer: {0}")]
    Core(String),
    /// The feed ends.
    #[error("the feed is stopping")]
    Stopping,
}

impl HistoryError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Span | Self::TooLong => StatusCode::BAD_REQUEST,
            Self::NoCore | Self::Busy | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Core(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn core(error: impl std::fmt::Display) -> Self {
        Self::Core(error.to_string())
    }
}

/// What a request's opener is made of.
#[derive(Clone)]
pub struct Keys {
    /// Whose history.
    pub recipient: RecipientId,
    /// What opens its wraps.
    pub private_key: HpkePrivateKey,
    /// Gateways' public keys.
    pub gateways: Arc<[VerifyingKey]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}

/// Who asks the core for the past.
#[derive(Debug, Clone)]
pub struct Historian {
    core: watch::Receiver<Option<Connection>>,
    keys: Keys,
    places: Arc<Semaphore>,
}

impl Historian {
    /// By the connection that there is.
    #[must_use]
    pub fn new(core: watch::Receiver<Option<Connection>>, keys: Keys) -> Self {
        Self { core, keys, places: Arc::new(Semaphore::new(HISTORIES_MAX)) }
    }

    /// The question, a place, and the connection.
    fn begin(&self, asked: &Asked) -> Result<(Question, OwnedSemaphorePermit, Connection), HistoryError> {
        let epoch = |ms: i64| epoch_of(ms.saturating_mul(1000));
        if asked.until_ms <= asked.from_ms {
            return Err(HistoryError::Span);
        }
        // The minute in which it ends counts whole.
        let (from, until) = (epoch(asked.from_ms), epoch(asked.until_ms.saturating_sub(1)).saturating_add(1));
        if until.saturating_sub(from) > SPAN_MINUTES_MAX + 1 {
            return Err(HistoryError::TooLong);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_full| HistoryError::Busy)?;
        let core = self.core.borrow().clone().ok_or(HistoryError::NoCore)?;
        let (patient, class) = (asked.patient, asked.class);
        let recipient = self.keys.recipient;
        let question = Question { recipient, patient, class, from, until, at: HistoryPlace::FIRST };
        Ok((question, place, core))
    }
}

/// What a request says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    patient: PatientId,
    class: DataClass,
    from_ms: i64,
    until_ms: i64,
}

/// Between the link and the opener of one request.
enum Piece {
    /// A record of the past.
    Record(Vec<u8>),
    /// All before this epoch has come.
    Until(u32),
    /// All has come.
    End,
    /// Nothing more comes.
    Failed(HistoryError),
}

/// What a line says that is no reading.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    /// All before this time has been sent.
    Progress {
        /// Unix milliseconds by the gateway's clock.
        at_ms: i64,
    },
    /// That was all.
    End {
        /// Readings sent.
        readings: u64,
        /// Records that could not be opened.
        refused: u64,
        /// Lowest missing range of segments between those that came, of which the gateway has said nothing.
        gap: Option<(u64, u64)>,
        /// The newest range of which it said that it is missing.
        told: Option<ToldMessage>,
    },
    /// That was not all, and no more comes.
    Failed {
        /// Why.
        error: String,
    },
}

/// The route.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    query: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let access = match app.access(&headers, peer).await {
        Ok(access) => access,
        Err(error) => return refused(error),
    };
    let asked = match query {
        Ok(Query(asked)) => asked,
        Err(rejection) => return problem(rejection.status(), rejection.body_text()),
    };
    let begun = app.historian.as_ref().ok_or(HistoryError::NoCore).and_then(|historian| {
        let begun = historian.begin(&asked)?;
        Ok((begun, historian.keys.clone()))
    });
    let ((question, place, core), keys) = match begun {
        Ok(begun) => begun,
        Err(error) => return problem(error.status(), error),
    };
    let [from_us, until_us] = [asked.from_ms, asked.until_ms].map(|ms| ms.saturating_mul(1000));
    let chain = (asked.patient, asked.class);
    let (pieces, coming) = mpsc::channel(WAITING_MAX);
    let (lines, body) = mpsc::channel(WAITING_MAX);
    tokio::spawn(fetch_all(core, question, pieces, Arc::clone(&app)));
    tokio::task::spawn_blocking(move || {
        // Until its thread ends, also where nobody reads any more.
        let _place = place;
        open_all(coming, &keys, chain, (from_us, until_us), &lines);
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let reader = Reader { app, user: access.user, chain, asked: Span { from_us, until_us }, noted: None };
    let body = futures_util::stream::unfold((body, reader), |(mut body, mut reader)| async move {
        let (text, of): Text = body.recv().await?;
        if let Some(given) = of {
            reader.note(given).await;
        }
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (body, reader)))
    });
    (kind, Body::from_stream(body)).into_response()
}

/// Who is given a history.
struct Reader {
    app: Arc<App>,
    user: Arc<str>,
    chain: (PatientId, DataClass),
    asked: Span,
    noted: Option<Span>,
}

impl Reader {
    /// Notes the look before the first reading is sent: who is given none has looked at nothing.
    async fn note(&mut self, given: Span) {
        let Some(span) = due(self.noted, self.asked, given, clock::now_us()) else { return };
        self.noted = Some(span);
        let looks = looks(&self.app, &Spans::from([(self.chain, span)]));
        self.app.oversight.recorder.looked(&self.user, looks).await;
    }
}

/// What is to be noted: the time that is asked for, as far as it has been, and what a gateway's clock dates outside it.
fn due(noted: Option<Span>, asked: Span, given: Span, now_us: i64) -> Option<Span> {
    let until_us = asked.until_us.min(now_us).max(asked.from_us);
    let span = noted.unwrap_or(Span { until_us, ..asked }).and(given);
    (noted != Some(span)).then_some(span)
}

/// Asks the core again and again where its answers end, until all has come or nobody wants it.
async fn fetch_all(core: Connection, mut question: Question, pieces: mpsc::Sender<Piece>, app: Arc<App>) {
    let fetching = async {
        loop {
            match fetch(&core, &question, &pieces, app.feed.receipts()).await? {
                Some(next) if next > question.at => question.at = next,
                Some(_) => return Err(HistoryError::Core("it goes back".to_owned())),
                None => return Ok(()),
            }
            // Who does not want it any more is noticed at the next record.
            drop(pieces.send(Piece::Until(question.at.epoch)).await);
        }
    };
    let ended = tokio::select! {
        ended = fetching => ended,
        () = app.stopping.cancelled() => Err(HistoryError::Stopping),
        () = pieces.closed() => return,
    };
    let last = ended.map_or_else(Piece::Failed, |()| Piece::End);
    drop(pieces.send(last).await);
}

/// One answer. Where the core says that there is more.
async fn fetch(
    core: &Connection,
    question: &Question,
    pieces: &mpsc::Sender<Piece>,
    receipts: &Receipts,
) -> Result<Option<HistoryPlace>, HistoryError> {
    let (mut out, stream) = core.open_bi().await.map_err(HistoryError::core)?;
    let frame = Frame::History { version: wire::VERSION, question: *question };
    out.write_all(&frame.encode()).await.map_err(HistoryError::core)?;
    out.finish().map_err(HistoryError::core)?;
    let (mut stream, mut framer) = (stream, Framer::new());
    loop {
        let next = tokio::time::timeout(ANSWER_TIMEOUT, next_frame(&mut stream, &mut framer));
        let frame = next.await.map_err(HistoryError::core)??;
        if let Frame::PastEnd { next } = frame {
            return Ok(next);
        }
        let Frame::Past { record } = frame else {
            return Err(HistoryError::Core("unexpected frame".to_owned()));
        };
        receipts.add(&record);
        pieces.send(Piece::Record(record)).await.map_err(|_gone| HistoryError::Stopping)?;
    }
}

async fn next_frame(stream: &mut RecvStream, framer: &mut Framer) -> Result<Frame, HistoryError> {
    loop {
        if let Some(frame) = framer.next_frame().map_err(HistoryError::core)? {
            return Ok(frame);
        }
        match stream.read_chunk(READ_BYTES, true).await.map_err(HistoryError::core)? {
            Some(chunk) => framer.push(&chunk.bytes),
            None => return Err(HistoryError::Core("its answer ended early".to_owned())),
        }
    }
}

/// Lines, and of what time their readings are, if there are any.
type Text = (String, Option<Span>);
type Lines = mpsc::Sender<Text>;

/// Opens what comes and sends it, until the end or until nobody reads.
fn open_all(
    mut coming: mpsc::Receiver<Piece>,
    keys: &Keys,
    chain: (PatientId, DataClass),
    span_us: (i64, i64),
    lines: &Lines,
) {
    let mut opener = Opener::new(keys.recipient, keys.private_key.clone(), keys.gateways.iter().copied());
    let (mut readings, mut refused) = (0_u64, 0_u64);
    while let Some(piece) = coming.blocking_recv() {
        let mut of = None;
        let (text, is_last) = match piece {
            Piece::Record(record) => {
                let taken = opener.take(&record);
                refused += u64::try_from(taken.refused.len()).unwrap_or(u64::MAX);
                let (text, count, given) = text_of(taken.opened, span_us);
                (readings, of) = (readings + count, given);
                (text, false)
            }
            Piece::Until(epoch) => (line(&Line::Progress { at_ms: i64::from(epoch) * 60_000 }), false),
            Piece::Failed(error) => (line(&Line::Failed { error: error.to_string() }), true),
            Piece::End => {
                let state = opener.chain(chain.0, chain.1);
                // What no wrap has come for can't be opened.
                refused += u64::from(opener.waiting_bytes() > 0);
                let (gap, told) = state.map_or((None, None), |state| (state.gap, state.told));
                (line(&Line::End { readings, refused, gap, told: told.map(ToldMessage::from) }), true)
            }
        };
        if (!text.is_empty() && lines.blocking_send((text, of)).is_err()) || is_last {
            return;
        }
    }
}

/// The readings in the span, a line each, how many, and of what time.
fn text_of(opened: Vec<Opened>, (from_us, until_us): (i64, i64)) -> (String, u64, Option<Span>) {
    let (mut text, mut count, mut given) = (String::new(), 0, None::<Span>);
    for segment in opened {
        for entry in entries(segment, 0, clock::now_ms()) {
            // The core answers by whole minutes of sealing.
            let at_us = entry.reading.gateway_time_us;
            if (from_us..until_us).contains(&at_us) {
                let at = Span { from_us: at_us, until_us: at_us };
                given = Some(given.map_or(at, |given| given.and(at)));
                text.push_str(&Message::past(&entry).json());
                text.push('\n');
                count += 1;
            }
        }
    }
    (text, count, given)
}

fn line(line: &Line) -> String {
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_what_is_asked_as_far_as_it_has_been() {
        let span = |from_us, until_us| Span { from_us, until_us };
        assert_eq!(due(None, span(10, 90), span(12, 15), 50), Some(span(10, 50)));
        assert_eq!(due(Some(span(10, 50)), span(10, 90), span(20, 50), 60), None);
        assert_eq!(due(None, span(10, 30), span(12, 15), 50), Some(span(10, 30)));
        // By a gateway's clock that is ahead.
        assert_eq!(due(Some(span(10, 50)), span(10, 90), span(45, 55), 50), Some(span(10, 55)));
        assert_eq!(due(None, span(60, 90), span(70, 75), 50), Some(span(60, 75)));
    }
}
