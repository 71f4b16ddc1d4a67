//! `GET /api/search`: when did a patient have an alarm of a kind? The core finds it by blind tokens and does not learn the word
//! (`caregate_protocol::search`); what it gives is opened here like all else.
//!
//! ```text
//! request ─▶ opener: tokens of the epochs whose keys it holds ─▶ core: segments ─▶ opener: opens, checks ─▶ answer
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use caregate_protocol::alarm::Standing;
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::search::{Token, Word};
use caregate_protocol::uplink::{self as wire, Frame, Framer, TOKENS_ASKED_MAX};
use quinn::Connection;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::link::Event;
use crate::look::{Span, Spans, looks, widen};
use crate::opener::Opened;
use crate::receipts::Receipts;
use crate::server::{App, Peer, problem, refused};

/// Time for the core's answer: a thousand segments of some kilobytes over the worst link.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes read from the stream at once.
const READ_BYTES: usize = 64 << 10;
/// Searches at once: a connection to the core has twelve streams, of which five are taken and three are for policy.
pub const SEARCHES_MAX: usize = 4;
/// Segments taken from one answer; a core that sends more is not asked any further.
const SEGMENTS_MAX: usize = 1024;

/// What is asked of the opener.
#[derive(Debug)]
pub enum Inquiry {
    /// The tokens of a word in a span of epochs, inclusive.
    Tokens {
        /// Whose.
        patient: PatientId,
        /// What.
        word: Word,
        /// First and last epoch.
        epochs: (u32, u32),
        /// Where the answer goes.
        answer: oneshot::Sender<Vec<Token>>,
    },
    /// To open these, without changing what is known of their chain.
    Open {
        /// Segments, as the core gave them.
        records: Vec<Vec<u8>>,
        /// Where the answer goes.
        answer: oneshot::Sender<Vec<Opened>>,
    },
}

/// Why nothing was searched.
#[derive(Debug, Error)]
pub enum SearchError {
    /// No such word.
    #[error(
        "word: a kind of alarm (asystole, apnoea, low, …) or priority:high, priority:medium, priority:low"
    )]
    Word,
    /// The end is before the beginning.
    #[error("until_ms: before from_ms")]
    Span,
    /// More minutes than one search may ask for.
    #[error("the span has keys of more than {TOKENS_ASKED_MAX} minutes: search a shorter one")]
    TooLong,
    /// As many as may be are on their way.
    #[error("{SEARCHES_MAX} searches are on their way already")]
    Busy,
    /// No connection.
    #[error("the core is not connected")]
    NoCore,
    /// It failed on the way, or took too long.
    #[error("the core did not answer: {0}")]
    Core(String),
    /// The feed ends.
    #[error("stopping")]
    Stopping,
}

impl SearchError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Word | Self::Span | Self::TooLong => StatusCode::BAD_REQUEST,
            Self::NoCore | Self::Busy | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Core(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// Who searches: the way to the opener, and to the core.
#[derive(Debug, Clone)]
pub struct Searcher {
    /// To the opener; weak, for it ends when the link does.
    events: mpsc::WeakSender<Event>,
    core: watch::Receiver<Option<Connection>>,
    recipient: RecipientId,
    places: Arc<Semaphore>,
}

/// What a request says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    patient: PatientId,
    word: String,
    from_ms: i64,
    until_ms: i64,
}

/// One standing that was found.
#[derive(Debug, Serialize)]
struct Hit {
    at_ms: i64,
    sequence: u64,
    alarms: Vec<serde_json::Value>,
}

impl Searcher {
    /// By way of the opener behind `events` and the connection that there is, for this recipient.
    #[must_use]
    pub fn new(
        events: mpsc::WeakSender<Event>,
        core: watch::Receiver<Option<Connection>>,
        recipient: RecipientId,
    ) -> Self {
        Self { events, core, recipient, places: Arc::new(Semaphore::new(SEARCHES_MAX)) }
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Inquiry) -> Result<T, SearchError> {
        let (answer, answered) = oneshot::channel();
        let events = self.events.upgrade().ok_or(SearchError::Stopping)?;
        events.send(Event::Inquiry(question(answer))).await.map_err(|_gone| SearchError::Stopping)?;
        answered.await.map_err(|_gone| SearchError::Stopping)
    }

    /// The standings in which the word was, the oldest first, and in how many minutes was searched. What comes is counted in `receipts`.
    async fn search(
        &self,
        patient: PatientId,
        word: Word,
        epochs: (u32, u32),
        receipts: &Receipts,
    ) -> Result<(Vec<Opened>, usize), SearchError> {
        let _place = self.places.try_acquire().map_err(|_full| SearchError::Busy)?;
        let tokens = self.ask(|answer| Inquiry::Tokens { patient, word, epochs, answer }).await?;
        if tokens.is_empty() {
            return Ok((Vec::new(), 0));
        }
        if tokens.len() > TOKENS_ASKED_MAX {
            return Err(SearchError::TooLong);
        }
        let searched = tokens.len();
        let core = self.core.borrow().clone().ok_or(SearchError::NoCore)?;
        let recipient = self.recipient;
        let frame =
            Frame::Search { version: wire::VERSION, recipient, patient, class: DataClass::Alarm, tokens };
        let records = tokio::time::timeout(ANSWER_TIMEOUT, fetch(&core, &frame, receipts))
            .await
            .map_err(|elapsed| SearchError::Core(elapsed.to_string()))??;
        let opened = self.ask(|answer| Inquiry::Open { records, answer }).await?;
        let mut found = BTreeMap::new();
        for segment in opened {
            // The core may send what it likes: what does not have the word in it was not found.
            let is_it = segment.patient == patient
                && segment.standings.iter().any(|standing| Word::of(standing).contains(&word));
            if is_it {
                found.insert(segment.sequence, segment);
            }
        }
        Ok((found.into_values().collect(), searched))
    }
}

async fn fetch(core: &Connection, frame: &Frame, receipts: &Receipts) -> Result<Vec<Vec<u8>>, SearchError> {
    let failed = |error: &dyn std::fmt::Display| SearchError::Core(error.to_string());
    let (mut out, mut stream) = core.open_bi().await.map_err(|error| failed(&error))?;
    out.write_all(&frame.encode()).await.map_err(|error| failed(&error))?;
    out.finish().map_err(|error| failed(&error))?;
    let (mut framer, mut records) = (Framer::new(), Vec::new());
    loop {
        while let Some(frame) = framer.next_frame().map_err(|error| failed(&error))? {
            let Frame::Found { record } = frame else {
                return Err(SearchError::Core("unexpected frame".into()));
            };
            receipts.add(&record);
            if records.len() == SEGMENTS_MAX {
                return Err(SearchError::Core("too many segments".into()));
            }
            records.push(record);
        }
        match stream.read_chunk(READ_BYTES, true).await.map_err(|error| failed(&error))? {
            Some(chunk) => framer.push(&chunk.bytes),
            None => return Ok(records),
        }
    }
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
    match find(&app, &asked).await {
        Ok((found, searched)) => {
            // Who finds nothing has looked at nothing.
            app.oversight.recorder.looked(&access.user, looks(&app, &given(&found))).await;
            Json(answer(&found, searched)).into_response()
        }
        Err(error) => problem(error.status(), error),
    }
}

/// What the answer is of.
fn given(found: &[Opened]) -> Spans {
    let mut spans = Spans::new();
    for segment in found {
        for Standing { at_us, .. } in &segment.standings {
            let at = Span { from_us: *at_us, until_us: *at_us };
            widen(&mut spans, (segment.patient, DataClass::Alarm), at);
        }
    }
    spans
}

async fn find(app: &App, asked: &Asked) -> Result<(Vec<Opened>, usize), SearchError> {
    let word = Word::parse(&asked.word).ok_or(SearchError::Word)?;
    let epoch = |ms: i64| caregate_protocol::key::epoch_of(ms.saturating_mul(1000));
    let epochs = (epoch(asked.from_ms), epoch(asked.until_ms));
    if epochs.1 < epochs.0 {
        return Err(SearchError::Span);
    }
    let searcher = app.searcher.as_ref().ok_or(SearchError::NoCore)?;
    searcher.search(asked.patient, word, epochs, app.feed.receipts()).await
}

fn answer(found: &[Opened], searched: usize) -> serde_json::Value {
    let alarms = |standing: &Standing| -> Vec<serde_json::Value> {
        let unseen = standing.alarms.iter();
        let shown = |alarm: &caregate_protocol::alarm::Alarm| serde_json::json!({ "kind": alarm.kind, "priority": alarm.priority, "text": alarm.text() });
        unseen.map(shown).collect()
    };
    let hits: Vec<_> = found
        .iter()
        .flat_map(|segment| segment.standings.iter().map(|standing| (segment.sequence, standing)))
        .map(|(sequence, standing)| Hit {
            at_ms: standing.at_us.div_euclid(1000),
            sequence,
            alarms: alarms(standing),
        })
        .collect();
    serde_json::json!({ "hits": hits, "minutes": searched })
}

#[cfg(test)]
mod tests {
    use caregate_protocol::alarm::{Refusal, Score, Settings};

    use super::*;
    use crate::ring::tests::segment;

    #[test]
    fn a_look_is_at_what_is_given_and_no_longer() {
        assert_eq!(given(&[]), Spans::new());
        let standing = |at_us| Standing {
            at_us,
            alarms: Vec::new(),
            settings: Settings::default(),
            score: Score::Refused(Refusal::CategoryUnknown),
            handled: Vec::new(),
        };
        let found = [(1, [70, 30]), (2, [50, 90])].map(|(sequence, times)| Opened {
            standings: times.map(standing).to_vec(),
            ..segment(sequence, Vec::new())
        });
        let patient = found[0].patient;
        let span = Span { from_us: 30, until_us: 90 };
        assert_eq!(given(&found), Spans::from([((patient, DataClass::Alarm), span)]));
    }
}
