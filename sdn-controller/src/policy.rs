//! Policy on its way from the ledger to the gateways (docs/control-path.md, "Delivery").
//!
//! ```text
//!  ledger ──heads──▶ schedule (pure, one per gateway) ─▶ bundle ══QUIC══▶ gateway ─▶ verdict ─▶ gateways, events
//!         ◀─────────── relay ◀── Anchor ─────────────────────────────────┘
//!                        └──────▶ Revocation, to the gateways that watch the relationship, at once
//! ```
//! Nothing is verified here that a gateway relies on: a controller that lies starves gateways and is found out. A revocation's
//! signature is checked all the same, so that nobody can make the controller send junk to the ledger.

mod gateways;
mod header;
mod ledger;
mod relay;
mod schedule;
mod server;
mod session;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::policy::delivery::{Anchor, Watch};
use caregate_protocol::policy::{PolicyBundle, SignedEmergency, SignedRevocation};
use ledger_client::verify::{Address, emergency_digest, revocation_digest, signer, slots};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::events::{Events, Kind};
use crate::metrics::Metrics;

pub use gateways::{GATEWAYS_MAX, Gateways};
pub use ledger::{Failure, Followed, Head, Ledger, LedgerFuture, Status};
pub use relay::{PENDING_MAX, RelayError};
pub use schedule::{BUNDLE_INTERVAL, Schedule, moment};
pub use server::{ServeError, bind, serve};
use waiting::KeepError;
pub use waiting::Waiting;

/// Bundles that are made at once: each asks the ledger for up to some hundred proofs, and gateways that all come back at once, or
/// one that comes again and again, must leave it time for others.
const MAKING_MAX: usize = 8;
/// Of those, bundles that only say that nothing has changed: a gateway for which something has need not wait for a thousand of them.
const QUIET_MAX: usize = 6;
/// Emergencies on their way to the ledger at once; gateways repeat what finds no place.
const ANCHORING_MAX: usize = 4;
/// Between two looks at how old the gateways' policy is.
const AGE_INTERVAL: Duration = Duration::from_secs(2);

/// What policy connections and the interface share; cheap to clone.
#[derive(Debug, Clone)]
pub struct Policy {
    ledger: Arc<dyn Ledger>,
    gateways: Arc<Gateways>,
    relay: mpsc::Sender<Anchor>,
    waiting: Arc<Waiting>,
    making: Arc<Semaphore>,
    quiet: Arc<Semaphore>,
    anchoring: Arc<Semaphore>,
    metrics: Metrics,
    events: Events,
}

impl Policy {
    /// Starts to relay, with what waits since before, and to watch the ledger, in tasks that end with `shutdown`.
    #[must_use]
    pub fn start(
        ledger: Arc<dyn Ledger>,
        waiting: Waiting,
        metrics: Metrics,
        events: Events,
        shutdown: &CancellationToken,
    ) -> Self {
        let (relay, anchors) = mpsc::channel(PENDING_MAX);
        let making = Arc::new(Semaphore::new(MAKING_MAX));
        let (quiet, anchoring) =
            (Arc::new(Semaphore::new(QUIET_MAX)), Arc::new(Semaphore::new(ANCHORING_MAX)));
        let (gateways, waiting) = (Arc::default(), Arc::new(waiting));
        let policy = Self { ledger, gateways, relay, waiting, making, quiet, anchoring, metrics, events };
        tokio::spawn(relay::run(policy.clone(), anchors, shutdown.clone()));
        tokio::spawn(policy.clone().watch_ledger(shutdown.clone()));
        policy
    }

    async fn watch_ledger(self, shutdown: CancellationToken) {
        let mut status = self.ledger.status();
        let mut ages = tokio::time::interval(AGE_INTERVAL);
        status.mark_changed();
        loop {
            tokio::select! {
                changed = status.changed() => match changed {
                    Ok(()) => self.say(status.borrow_and_update().clone()),
                    Err(_) => return,
                },
                _ = ages.tick() => {
                    let age_ms = self.gateways.oldest_ms(clock::now_ms());
                    self.metrics.policy_age.set(age_ms.max(0) / 1000);
                }
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn say(&self, status: Status) {
        match status {
            Status::Starting => {}
            Status::Following => self.events.push(Kind::Ledger, "ledger", "is followed"),
            Status::Down(reason) => self.events.push(Kind::Ledger, "ledger", reason),
        }
    }

    /// A bundle of the newest block for who watches this, when it is its turn: at once where something of it has changed.
    pub(crate) async fn bundle(&self, watch: &Watch, is_changed: bool) -> Result<PolicyBundle, Failure> {
        // The semaphores are never closed.
        let _quiet = if is_changed { None } else { Some(self.quiet.acquire().await) };
        let _turn = self.making.acquire().await;
        self.ledger.bundle(watch).await
    }

    /// Keeps a revocation, hands it to the gateways that watch its relationship, and queues it for the ledger; how many gateways
    /// it reached.
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn relay(&self, anchor: Anchor) -> Result<usize, RelayError> {
        self.take(anchor, None).await
    }

    /// As [`Self::relay`], from the gateway of this name, which has it.
    pub(crate) async fn take(&self, anchor: Anchor, from: Option<&str>) -> Result<usize, RelayError> {
        let counted = |outcome: &str| self.metrics.revocations.with_label_values(&[outcome]).inc();
        if !self.is_signed(&anchor) {
            counted("signature");
            return Err(RelayError::Signature);
        }
        if from.is_none() {
            self.keep(&anchor).await?;
        }
        let reached = self.gateways.push(&anchor.revocation, from);
        if self.relay.try_send(anchor).is_err() {
            counted("busy");
            return Err(RelayError::Busy);
        }
        counted("taken");
        if from.is_none() {
            self.events.push(Kind::Revocation, "revocation", format!("taken, handed to {reached} gateways"));
        }
        Ok(reached)
    }

    /// Whether a key of the relationship signed: the signer and the other key make up its name, or the ledger says that it handed on to the
    /// signer.
    fn is_signed(&self, anchor: &Anchor) -> bool {
        let Anchor { revocation, other_key } = anchor;
        let (relationship, other) = (revocation.revocation.relationship, Address(*other_key));
        let digest = revocation_digest(&revocation.revocation, &self.ledger.domain());
        signer(&digest, &revocation.signature).is_ok_and(|signer| {
            slots::relationship(&signer, &other) == relationship
                || slots::relationship(&other, &signer) == relationship
                || self.ledger.has_handed_on_to(&relationship, &signer)
        })
    }

    /// An emergency that a gateway took, for the ledger. Nothing is kept here: the gateway repeats it until a bundle shows it.
    pub(crate) fn take_emergency(&self, signed: SignedEmergency) {
        let counted = |outcome: &str| self.metrics.emergencies.with_label_values(&[outcome]).inc();
        let digest = emergency_digest(&signed.emergency, &self.ledger.domain());
        let domain = Address(signed.emergency.domain.0);
        if signer(&digest, &signed.signature) != Ok(domain) {
            return counted("signature");
        }
        let Ok(turn) = Arc::clone(&self.anchoring).try_acquire_owned() else { return counted("busy") };
        let policy = self.clone();
        tokio::spawn(async move {
            let sent = policy.ledger.open_emergency(&signed).await;
            drop(turn);
            let outcome = sent.as_ref().map_or_else(|failure| failure.reason, |()| "anchored");
            policy.metrics.emergencies.with_label_values(&[outcome]).inc();
            match sent {
                Ok(()) => policy.events.push(Kind::Emergency, "emergency", "is on the ledger"),
                Err(failure) => {
                    tracing::warn!(error = failure.text, "an emergency is not on the ledger");
                    if failure.is_final {
                        policy.events.push(Kind::Emergency, "emergency", failure.text);
                    }
                }
            }
        });
    }

    async fn keep(&self, anchor: &Anchor) -> Result<(), RelayError> {
        let (waiting, anchor) = (Arc::clone(&self.waiting), anchor.clone());
        let counted = |outcome: &str| self.metrics.revocations.with_label_values(&[outcome]).inc();
        match tokio::task::spawn_blocking(move || waiting.keep(&anchor)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(KeepError::Full)) => {
                counted("busy");
                Err(RelayError::Busy)
            }
            Ok(Err(KeepError::Store(error))) => {
                tracing::error!(%error, "a revocation could not be kept");
                counted("store");
                Err(RelayError::Store)
            }
            // The runtime ends.
            Err(_) => Err(RelayError::Store),
        }
    }

    /// Revocations that wait for the ledger, for a gateway that has come.
    fn waiting_for(&self, watch: &Watch) -> Vec<SignedRevocation> {
        let all = self.waiting.all().into_iter().map(|anchor| anchor.revocation);
        all.filter(|signed| watch.relationships.contains(&signed.revocation.relationship)).collect()
    }

    /// The bytes that were last sent to a gateway.
    #[must_use]
    pub fn last_bundle(&self, gateway: &str) -> Option<Arc<[u8]>> {
        self.gateways.last_bundle(gateway)
    }

    /// Policy connections and the ledger, as JSON.
    #[must_use]
    pub fn shown(&self) -> Value {
        let (state, detail) = match &*self.ledger.status().borrow() {
            Status::Starting => ("starting", None),
            Status::Following => ("following", None),
            Status::Down(reason) => ("down", Some(reason.clone())),
        };
        let head = *self.ledger.heads().borrow();
        json!({
            "gateways": self.gateways.shown(clock::now_ms()),
            "ledger": {
                "state": state,
                "detail": detail,
                "number": head.map(|head| head.number),
                "time_s": head.map(|head| head.time_s),
                "sealers": self.ledger.sealers(),
            },
        })
    }
}
