//! `POST /api/policy/…`: what carries its own authority (a bundle, a patient-signed revocation, a domain's signed emergency) goes by way of
//! the core to a gateway, sealed to it, and the gateway's signed verdict comes back (ADR 44).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{self, Body};
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use caregate_host::origin;
use caregate_protocol::offer::{Kind, Offer, OfferError, OfferHash, Refusal, SignedVerdict};
use caregate_protocol::policy::delivery::Verdict;
use caregate_protocol::uplink::{self as wire, Frame, FrameError, Framer};
use ed25519_dalek::VerifyingKey;
use quinn::Connection;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tracing::info;

use crate::journal::{JournalError, What};
use crate::record::Recorder;
use crate::server::{App, Peer, problem, refused};

/// Time for the core's answer: that of the core for its turn and the verdict, and a MiB over a bad line.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// Time in which a body must be here, as at a gateway's local door.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Offers at once: a connection to the core has twelve streams, of which five are taken and four are for searches.
pub const OFFERS_MAX: usize = 3;
/// Bytes read from the stream at once.
const READ_BYTES: usize = 4 << 10;

/// Why there is no verdict of the gateway.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Not bundle, revocation or emergency.
    #[error("policy: bundle, revocation or emergency")]
    Kind,
    /// Not among those of the configuration.
    #[error("gateway: none of this name is configured here")]
    Gateway,
    /// Longer than its kind may be, or it did not come whole.
    #[error("the body is too long, or did not come whole")]
    Body,
    /// It did not come in time.
    #[error("the body did not come in time")]
    Slow,
    /// As many as may be are on their way.
    #[error("{OFFERS_MAX} are on their way already")]
    Busy,
    /// Who handed in what is noted before it is sent.
    #[error("the journal can't be written, so nothing was sent: {0}")]
    Journal(#[from] JournalError),
    /// No connection.
    #[error("the core is not connected")]
    NoCore,
    /// It was not carried, or no verdict came back.
    #[error("the core: {}", words(*.0))]
    Core(Refusal),
    /// The connection was lost, or the core takes too long; it may be in force.
    #[error("the core did not answer: {0}")]
    Lost(String),
    /// The core answers with something else.
    #[error("the core broke the protocol: {0}")]
    Frame(#[from] FrameError),
    /// It can't be sealed, or what came back is not the gateway's word on it.
    #[error("{0}")]
    Offer(#[from] OfferError),
}

fn words(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed => "it names no gateway",
        Refusal::NotConnected => {
            "the gateway is not connected; hand it in by another path, or again when it is"
        }
        Refusal::TooOften => "too many; try again later",
        Refusal::Busy => "as many as may be are on their way; try again",
        Refusal::NoAnswer => "the gateway has not answered; it may be in force",
    }
}

impl PolicyError {
    /// Of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Kind | Self::Gateway => StatusCode::NOT_FOUND,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Core(Refusal::TooOften) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy
            | Self::Journal(_)
            | Self::NoCore
            | Self::Core(Refusal::NotConnected | Refusal::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Core(Refusal::NoAnswer) | Self::Lost(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Core(Refusal::Malformed) | Self::Frame(_) | Self::Offer(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// A word for counters and programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Gateway => "no_gateway",
            Self::Body => "too_large",
            Self::Slow => "slow",
            Self::Busy => "busy",
            Self::Journal(_) => "journal",
            Self::NoCore => "no_core",
            Self::Core(refusal) => refusal.as_str(),
            Self::Lost(_) => "lost",
            Self::Frame(source) => source.reason(),
            Self::Offer(OfferError::Offer | OfferError::Signer | OfferError::Signature) => "forged_verdict",
            Self::Offer(source) => source.reason(),
        }
    }
}

/// Hands policy to gateways by way of the core.
#[derive(Debug)]
pub struct Offerer {
    core: watch::Receiver<Option<Connection>>,
    gateways: Vec<(String, Vec<VerifyingKey>)>,
    places: Semaphore,
}

impl Offerer {
    /// By the connection that there is, to these gateways.
    #[must_use]
    pub fn new(
        core: watch::Receiver<Option<Connection>>,
        gateways: Vec<(String, Vec<VerifyingKey>)>,
    ) -> Self {
        Self { core, gateways, places: Semaphore::new(OFFERS_MAX) }
    }

    fn keys(&self, gateway: &str) -> Result<&[VerifyingKey], PolicyError> {
        let found = self.gateways.iter().find(|(name, _)| name == gateway);
        found.map(|(_, keys)| keys.as_slice()).ok_or(PolicyError::Gateway)
    }

    /// The gateways' names, in the configuration's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.gateways.iter().map(|(name, _)| name.as_str())
    }

    /// Whether a gateway has this name.
    ///
    /// # Errors
    /// [`PolicyError::Gateway`].
    pub fn knows(&self, gateway: &str) -> Result<(), PolicyError> {
        self.keys(gateway).map(drop)
    }

    /// Notes it, sends it, and waits for the gateway's word; in one of [`OFFERS_MAX`] places.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn offer(
        &self,
        recorder: &Recorder,
        user: &str,
        gateway: &str,
        offer: Offer,
    ) -> Result<Verdict, PolicyError> {
        let _place = self.places.try_acquire().map_err(|_full| PolicyError::Busy)?;
        self.offer_in_place(recorder, user, gateway, offer).await
    }

    async fn offer_in_place(
        &self,
        recorder: &Recorder,
        user: &str,
        gateway: &str,
        offer: Offer,
    ) -> Result<Verdict, PolicyError> {
        let keys = self.keys(gateway)?;
        let core = self.core.borrow().clone().ok_or(PolicyError::NoCore)?;
        let (user, kind) = (user.to_owned(), offer.kind.as_str().to_owned());
        let gateway = gateway.to_owned();
        let about_to = What::Offered { user: user.clone(), gateway: gateway.clone(), kind: kind.clone() };
        recorder.note(vec![about_to]).await?;
        let told = self.offer_to(&core, keys, &offer).await;
        let why = match &told {
            Ok(verdict) => verdict.refused.clone(),
            Err(error) => Some(error.reason().to_owned()),
        };
        // What became of it is the gateway's word; that it can't be noted undoes nothing, and is logged.
        drop(recorder.note(vec![What::OfferDone { user, gateway, kind, why }]).await);
        told
    }

    /// To the newest of its keys first: while it changes keys the configuration has two, and it opens what is sealed to its own.
    async fn offer_to(
        &self,
        core: &Connection,
        keys: &[VerifyingKey],
        offer: &Offer,
    ) -> Result<Verdict, PolicyError> {
        let mut told = Err(PolicyError::Gateway);
        for key in keys.iter().rev() {
            told = tokio::time::timeout(ANSWER_TIMEOUT, exchange(core, key, offer))
                .await
                .unwrap_or_else(|elapsed| Err(PolicyError::Lost(elapsed.to_string())));
            let is_of_another_key = match &told {
                Err(PolicyError::Core(Refusal::NotConnected) | PolicyError::Offer(OfferError::Signer)) => {
                    true
                }
                Ok(_) | Err(_) => false,
            };
            if !is_of_another_key {
                break;
            }
        }
        told
    }
}

/// One offer on a stream of its own.
async fn exchange(core: &Connection, key: &VerifyingKey, offer: &Offer) -> Result<Verdict, PolicyError> {
    let lost = |error: &dyn std::fmt::Display| PolicyError::Lost(error.to_string());
    let sealed = offer.seal(key)?;
    let hash = OfferHash::of(&sealed);
    let (mut out, mut stream) = core.open_bi().await.map_err(|error| lost(&error))?;
    let frame = Frame::Offer { version: wire::VERSION, sealed };
    out.write_all(&frame.encode()).await.map_err(|error| lost(&error))?;
    out.finish().map_err(|error| lost(&error))?;
    let mut framer = Framer::new();
    loop {
        match framer.next_frame()? {
            Some(Frame::Verdict { bytes }) => return Ok(SignedVerdict::decode(&bytes)?.verify(hash, key)?),
            Some(Frame::NotOffered { refusal }) => return Err(PolicyError::Core(refusal)),
            Some(_) => return Err(PolicyError::Lost("unexpected frame".to_owned())),
            None => {}
        }
        match stream.read_chunk(READ_BYTES, true).await.map_err(|error| lost(&error))? {
            Some(chunk) => framer.push(&chunk.bytes),
            None => return Err(PolicyError::Lost("the core ended the stream".to_owned())),
        }
    }
}

/// To whom.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    gateway: String,
}

async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, PolicyError> {
    match tokio::time::timeout(BODY_TIMEOUT, body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(_too_long_or_broken)) => Err(PolicyError::Body),
        Err(_elapsed) => Err(PolicyError::Slow),
    }
}

fn is_cbor(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/cbor"))
}

/// `GET /api/policy`: to which gateways policy can be handed; none where there is no link.
pub(crate) async fn gateways(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
) -> Response {
    if let Err(error) = app.access(&headers, peer).await {
        return refused(error);
    }
    let names: Vec<_> = app.offerer.iter().flat_map(Offerer::names).collect();
    Json(serde_json::json!({ "gateways": names })).into_response()
}

/// `POST /api/policy/{kind}?gateway=NAME`.
pub(crate) async fn post(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    Path(kind): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !origin::is_own(&headers) {
        return problem(StatusCode::FORBIDDEN, "Origin is another page than ours");
    }
    if !is_cbor(&headers) {
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/cbor");
    }
    let access = match app.access(&headers, peer).await {
        Ok(access) => access,
        Err(error) => return refused(error),
    };
    let gateway = match query {
        Ok(Query(Asked { gateway })) => gateway,
        Err(rejection) => return problem(rejection.status(), rejection.body_text()),
    };
    let Some(kind) = Kind::parse(&kind) else { return answer(&app, "none", Err(PolicyError::Kind)) };
    let metrics_app = Arc::clone(&app);
    // Runs to its end also when the request is dropped: what was sent is noted.
    let offering = tokio::spawn(async move {
        let offerer = app.offerer.as_ref().ok_or(PolicyError::NoCore)?;
        offerer.keys(&gateway)?;
        let _place = offerer.places.try_acquire().map_err(|_full| PolicyError::Busy)?;
        let offer = Offer { kind, message: read(body, kind.bytes_max()).await? };
        offerer.offer_in_place(&app.oversight.recorder, &access.user, &gateway, offer).await
    });
    match offering.await {
        Ok(told) => answer(&metrics_app, kind.as_str(), told),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn answer(app: &App, kind: &'static str, told: Result<Verdict, PolicyError>) -> Response {
    let outcome = match &told {
        Ok(Verdict { refused: None, .. }) => "in_force",
        Ok(Verdict { refused: Some(_), .. }) => "refused",
        Err(error) => error.reason(),
    };
    app.metrics.offers.with_label_values(&[kind, outcome]).inc();
    info!(kind, outcome, "policy for a gateway");
    match told {
        Ok(Verdict { number, epoch, refused }) => {
            let status = if refused.is_none() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
            let told = serde_json::json!({ "number": number, "epoch": epoch, "refused": refused });
            (status, Json(told)).into_response()
        }
        Err(error) => {
            let told = serde_json::json!({ "error": error.to_string(), "reason": error.reason() });
            (error.status(), Json(told)).into_response()
        }
    }
}
