//! What staff send down to a gateway's watch: signed by the domain, sealed to the gateway, repeated until the watch says what
//! became of it or its time is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use caregate_host::clock;
use caregate_protocol::command::{Action, ActionError, CLINICIAN_BYTES_MAX, Command, CommandError, Content};
use caregate_protocol::id::PatientId;
use ledger_client::verify::Domain;
use ledger_client::wallet::DomainKey;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::broadcast;
use tracing::info;

use crate::feed::Feed;
use crate::journal::{JournalError, What};
use crate::record::Recorder;
use crate::server::{App, Peer, asked, problem};

/// How long a command lives: whoever sent it waits before the page.
const LIFE: Duration = Duration::from_secs(20);
/// How often it is sent again.
const REPEAT: Duration = Duration::from_secs(2);
/// Commands on their way to the link: a ward's, all at once.
pub const COMMANDS_MAX: usize = 64;

/// Why a command was not done, or may not have been.
#[derive(Debug, Error)]
pub enum StaffError {
    /// This feed can't sign.
    #[error("this feed can't command: its configuration has no [ledger] with domain_key")]
    NoKey,
    /// A value out of range.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The user's name is longer than a command takes.
    #[error("the user's name has more than {CLINICIAN_BYTES_MAX} bytes")]
    Name,
    /// Nothing of the patient has come, or from a gateway that is not known any more.
    #[error("no gateway is known that watches this patient")]
    NoGateway,
    /// One at a time, so that each is confirmed.
    #[error("another command for this patient is on its way")]
    Busy,
    /// Who did what is noted before it is sent.
    #[error("the journal can't be written, so nothing was sent: {0}")]
    Journal(#[from] JournalError),
    /// It can't be sealed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The gateway says no.
    #[error("the gateway refused: {0}")]
    Refused(String),
    /// It may have been done; it will not be from now on.
    #[error("the gateway did not confirm it; it has expired")]
    Unconfirmed,
}

impl StaffError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoKey | Self::NoGateway => StatusCode::NOT_FOUND,
            Self::Action(_) | Self::Name | Self::Command(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy | Self::Refused(_) => StatusCode::CONFLICT,
            Self::Journal(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unconfirmed => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::Action(_) => "action",
            Self::Name => "name",
            Self::NoGateway => "no_gateway",
            Self::Busy => "busy",
            Self::Journal(_) => "journal",
            Self::Command(_) => "seal",
            Self::Refused(_) => "refused",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// Signs, sends and waits.
#[derive(Debug)]
pub struct Commander {
    key: DomainKey,
    ledger: Domain,
    commands: broadcast::Sender<Vec<u8>>,
    /// The number of the last command for each patient, and whether it is on its way.
    last: Mutex<BTreeMap<PatientId, (u64, bool)>>,
}

/// Frees the patient for the next command.
struct Turn<'a>(&'a Commander, PatientId);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some((_, is_on_its_way)) = self.0.last().get_mut(&self.1) {
            *is_on_its_way = false;
        }
    }
}

impl Commander {
    /// Signs with the domain's key for this ledger; `commands` goes to the link.
    #[must_use]
    pub fn new(key: DomainKey, ledger: Domain, commands: broadcast::Sender<Vec<u8>>) -> Self {
        Self { key, ledger, commands, last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<PatientId, (u64, bool)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number above all that were used: the clock's, or one more than the last. Other feeds of the domain do the same.
    fn turn(&self, patient: PatientId, handled: u64, now_ms: u64) -> Result<(u64, Turn<'_>), StaffError> {
        let mut last = self.last();
        let (number, is_on_its_way) = last.get(&patient).copied().unwrap_or_default();
        if is_on_its_way {
            return Err(StaffError::Busy);
        }
        let sequence = now_ms.max(number + 1).max(handled + 1);
        last.insert(patient, (sequence, true));
        Ok((sequence, Turn(self, patient)))
    }

    /// Sends `action` in a user's name and waits for what becomes of it.
    ///
    /// # Errors
    /// [`StaffError`].
    pub async fn send(
        &self,
        feed: &Feed,
        recorder: &Recorder,
        user: &str,
        (patient, action): (PatientId, Action),
    ) -> Result<u64, StaffError> {
        action.check()?;
        if user.len() > CLINICIAN_BYTES_MAX {
            return Err(StaffError::Name);
        }
        let gateway = feed.bedside().gateway(&patient).ok_or(StaffError::NoGateway)?;
        let now_ms = u64::try_from(clock::now_ms()).unwrap_or(0);
        let handled = self.handled(feed, &patient).map_or(0, |(sequence, _)| sequence);
        let (sequence, turn) = self.turn(patient, handled, now_ms)?;
        let (user, what) = (user.to_owned(), action.as_str());
        recorder
            .note(vec![What::Command { user: user.clone(), patient, action: what.into(), sequence }])
            .await?;
        let life_ms = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
        let command = Command {
            patient,
            domain: self.key.id(),
            sequence,
            issued_ms: now_ms,
            expires_ms: now_ms.saturating_add(life_ms),
            content: Content { clinician: user.clone(), action }.encode(),
        };
        let sealed = self.key.sign_command(command, &self.ledger).seal(&gateway)?;
        let outcome = self.repeat(feed, patient, sequence, sealed).await;
        drop(turn);
        let why = outcome.as_ref().err().map(ToString::to_string);
        // What became of it is the watch's word; that it can't be noted undoes nothing, and is logged.
        drop(
            recorder
                .note(vec![What::CommandDone { user, patient, action: what.into(), sequence, why }])
                .await,
        );
        outcome.map(|()| sequence)
    }

    /// The last command of ours that the watch speaks of.
    fn handled(&self, feed: &Feed, patient: &PatientId) -> Option<(u64, Option<String>)> {
        let standing = feed.bedside().standing(patient)?;
        let ours = standing.handled.iter().find(|handled| handled.domain == self.key.id())?;
        Some((ours.sequence, ours.refused.clone()))
    }

    async fn repeat(
        &self,
        feed: &Feed,
        patient: PatientId,
        sequence: u64,
        sealed: Vec<u8>,
    ) -> Result<(), StaffError> {
        let mut changed = feed.bedside().changed();
        let mut repeats = tokio::time::interval(REPEAT);
        let over = tokio::time::sleep(LIFE);
        tokio::pin!(over);
        loop {
            match self.handled(feed, &patient) {
                Some((handled, None)) if handled == sequence => return Ok(()),
                Some((handled, Some(why))) if handled == sequence => return Err(StaffError::Refused(why)),
                // Another of ours came after it, from another feed: what became of this one is not told any more.
                Some((handled, _)) if handled > sequence => return Err(StaffError::Unconfirmed),
                Some(_) | None => {}
            }
            tokio::select! {
                // Without a link nobody listens; it is repeated.
                _ = repeats.tick() => drop(self.commands.send(sealed.clone())),
                news = changed.changed() => if news.is_err() { return Err(StaffError::Unconfirmed) },
                () = &mut over => return Err(StaffError::Unconfirmed),
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    patient: PatientId,
    action: Action,
}

/// `POST /api/command`.
pub(crate) async fn post(
    State(app): State<Arc<App>>,
    Extension(ConnectInfo(peer)): Peer,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (access, Request { patient, action }) = match asked(&app, peer, &headers, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let what = action.as_str();
    let metrics = app.metrics.clone();
    // Runs to its end also when the request is dropped: what was sent is noted.
    let sending = tokio::spawn(async move {
        let commander = app.oversight.commander.as_ref().ok_or(StaffError::NoKey)?;
        commander.send(&app.feed, &app.oversight.recorder, &access.user, (patient, action)).await
    });
    let sent = match sending.await {
        Ok(sent) => sent,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    let outcome = sent.as_ref().map_or_else(StaffError::reason, |_| "done");
    metrics.commands.with_label_values(&[what, outcome]).inc();
    info!(action = what, outcome, "a command of staff");
    match sent {
        Ok(sequence) => Json(serde_json::json!({ "sequence": sequence })).into_response(),
        Err(error) => problem(error.status(), error),
    }
}
