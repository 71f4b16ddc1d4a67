//! How bundles and revocations are handed in, by whatever path, and what others see of policy.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use caregate_host::clock;
use caregate_protocol::beat::PolicyState;
use caregate_protocol::erasure::SignedOrder;
use caregate_protocol::id::PatientId;
use caregate_protocol::policy::delivery::{Anchor, Verdict};
use caregate_protocol::policy::{
    BoundDevice, ClockOffset, Freshness, SignedEmergency, SignedRevocation, VerifiedPolicy,
};
use caregate_protocol::uplink::EraseRefusal;
use ledger_client::verify::{
    Address, ErasureRefusal, Pins, bundle_number, sealers, verify_bundle, verify_emergency, verify_erasure,
    verify_revocation,
};
use tokio::sync::{Mutex, mpsc, watch};
use tracing::warn;

use super::decide::{Change, Decider, DecisionError, Outputs, Proposal};
use super::enrolment::EnrolmentFiles;
use super::store::{Changes, PolicyStore};
use super::trail::{Entry, Event, Origin};
use crate::keys::KeyStoreError;
use crate::keys::erasures::{Asked, Erasures};
use crate::local::{ErasureView, PolicySide, SharesView, TrailLine};
use crate::metrics::Metrics;

/// A reason is noted in the trail once in this many seconds for each path, with how often it came: who hands in rubbish all day
/// wears out no flash.
const REFUSAL_NOTED_EVERY_S: u64 = 60;
/// Lines of the trail that the patient's page gets: more than a person reads.
const LINES_MAX: usize = 500;

/// When a reason was last noted for a path, and how often it came since.
type Noted = BTreeMap<(&'static str, &'static str), (u64, u64)>;

struct Inner {
    pins: watch::Receiver<Arc<Pins>>,
    proposals: mpsc::Sender<Proposal>,
    outputs: Outputs,
    store: PolicyStore,
    erasures: Erasures,
    files: OnceLock<EnrolmentFiles>,
    /// Whether the salts of erased patients are gone, or why not; as many as were asked for in this life.
    unenrolled: Mutex<BTreeMap<PatientId, Result<(), String>>>,
    metrics: Metrics,
    /// One verification at a time, in the order in which they came: the largest takes 300 ms and 2 MiB.
    verifying: Mutex<()>,
    noted: Mutex<Noted>,
}

/// The policy side of the gateway; cheap to clone.
#[derive(Clone)]
pub struct PolicyHandle {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for PolicyHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyHandle").finish_non_exhaustive()
    }
}

impl PolicyHandle {
    /// Hands proposals to the thread that owns `decider`. What is enrolled is the decider's to say; `pins` count where it has none.
    #[must_use]
    pub fn new(
        pins: Arc<Pins>,
        decider: &Decider,
        proposals: mpsc::Sender<Proposal>,
        metrics: Metrics,
    ) -> Self {
        let outputs = decider.outputs();
        Self {
            inner: Arc::new(Inner {
                pins: outputs.pins.clone().unwrap_or_else(|| watch::channel(pins).1),
                proposals,
                outputs,
                store: decider.store(),
                erasures: decider.erasures(),
                files: OnceLock::new(),
                unenrolled: Mutex::default(),
                metrics,
                verifying: Mutex::default(),
                noted: Mutex::default(),
            }),
        }
    }

    /// Has erased patients taken out of these files; also those of whom the process before did not come to it. Must be called inside a
    /// tokio runtime.
    pub fn keep_files(&self, files: EnrolmentFiles) {
        if self.inner.files.set(files).is_err() {
            return;
        }
        let erased: Vec<_> = self.inner.erasures.follow().borrow().keys().copied().collect();
        let handle = self.clone();
        tokio::spawn(async move {
            for patient in erased {
                handle.unenrol(patient).await;
            }
        });
    }

    /// Who and what is enrolled here. Whoever is erased leaves it at once: nobody keeps it.
    #[must_use]
    pub fn pins(&self) -> Arc<Pins> {
        Arc::clone(&self.inner.pins.borrow())
    }

    /// The same, from now on.
    #[must_use]
    pub fn enrolled(&self) -> watch::Receiver<Arc<Pins>> {
        self.inner.pins.clone()
    }

    /// The policy in force, from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<VerifiedPolicy>> {
        self.inner.outputs.policy.clone()
    }

    /// Bound devices, from now on; changes only when the set does.
    #[must_use]
    pub fn bound_devices(&self) -> watch::Receiver<Arc<Vec<BoundDevice>>> {
        self.inner.outputs.devices.clone()
    }

    /// Revocations in force here that the ledger has not shown, from now on.
    #[must_use]
    pub fn anchors(&self) -> watch::Receiver<Arc<Vec<Anchor>>> {
        self.inner.outputs.anchors.clone()
    }

    /// Emergencies in force here that the ledger has not shown, from now on.
    #[must_use]
    pub fn emergencies(&self) -> watch::Receiver<Arc<Vec<SignedEmergency>>> {
        self.inner.outputs.emergencies.clone()
    }

    /// How many seal the ledger that is followed.
    #[must_use]
    pub fn sealers(&self) -> usize {
        sealers(&self.pins(), &self.inner.outputs.floors.borrow())
    }

    /// How the policy stands, as heartbeats say it. Before the first it is stale: nobody may see anything by it.
    #[must_use]
    pub fn state(&self, now_s: u64) -> PolicyState {
        let policy = self.inner.outputs.policy.borrow();
        let is_there = policy.freshness() != Freshness::Unproven;
        PolicyState {
            stale: !is_there || policy.is_stale(now_s),
            clock_unknown: policy.clock() == ClockOffset::Unknown,
            one_sealer: self.sealers() == 1,
        }
    }

    /// Figures of the policy connection are here.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The audit trail's newest entries, newest first, at most `most`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn trail(&self, most: usize) -> Result<Vec<Entry>, KeyStoreError> {
        self.inner.store.trail(most)
    }

    /// Verifies a bundle and puts it in force. The answer comes when that is durable and holds for everything sealed afterwards.
    pub async fn offer_bundle(&self, bytes: Vec<u8>, origin: Origin) -> Verdict {
        let outcome = self.verify_and_propose(bytes, origin).await;
        let (number, reason) = match outcome {
            Ok(number) => (number, None),
            Err((number, reason)) => (number, Some(reason)),
        };
        self.verdict(number, reason, origin).await
    }

    async fn verify_and_propose(&self, bytes: Vec<u8>, origin: Origin) -> Result<u64, (u64, &'static str)> {
        let alone = self.inner.verifying.lock().await;
        let pins = self.pins();
        let floors = Arc::clone(&self.inner.outputs.floors.borrow());
        // A clock that began wrong or was set back says nothing against a header: it gets its time from it.
        let now_s = self.inner.outputs.reference.borrow().map_or(u64::MAX, |(past_s, since)| {
            let passed = clock::monotonic().saturating_duration_since(since);
            clock::now_s().max(past_s.saturating_add(passed.as_secs()))
        });
        let verified =
            tokio::task::spawn_blocking(move || match verify_bundle(&bytes, &pins, &floors, now_s) {
                Ok(bundle) => Ok((bundle, bytes)),
                Err(refusal) => {
                    warn!(reason = refusal.reason(), "a policy bundle was refused: {refusal}");
                    Err((bundle_number(&bytes), refusal.reason()))
                }
            });
        // A panic is a bug in what verifies; the policy before stays in force, as for any other reason.
        let (bundle, bytes) = verified.await.unwrap_or(Err((0, "panic")))?;
        let number = bundle.header.number;
        let decided = self.propose(Change::Bundle { bundle: Box::new(bundle), bytes, origin }).await;
        drop(alone);
        decided.map(|()| number).map_err(|failure| (number, failure.reason()))
    }

    /// Verifies an emergency and puts it in force. The answer comes when it holds for everything sealed afterwards, and is durable.
    pub async fn offer_emergency(&self, signed: SignedEmergency, origin: Origin) -> Verdict {
        let policy = Arc::clone(&self.inner.outputs.policy.borrow());
        let reason = match verify_emergency(&signed, &self.pins(), &policy, clock::now_s()) {
            Err(refusal) => {
                warn!(reason = refusal.reason(), "an emergency was refused: {refusal}");
                Some(refusal.reason())
            }
            Ok(access) => {
                let change = Change::Emergency { signed: Box::new(signed), access: Box::new(access) };
                self.propose(change).await.err().map(|failure| failure.reason())
            }
        };
        let number = self.inner.outputs.floors.borrow().header.number;
        self.verdict(number, reason, origin).await
    }

    /// Verifies a revocation and puts it in force. The answer comes when it holds for everything sealed afterwards, and is durable.
    pub async fn offer_revocation(&self, signed: SignedRevocation, origin: Origin) -> Verdict {
        let keys = Arc::clone(&self.inner.outputs.keys.borrow());
        let reason = match verify_revocation(&signed, &self.pins(), &keys) {
            Err(refusal) => Some(refusal.reason()),
            Ok(by) => {
                let decided = self.propose(Change::Revocation { signed, by }).await;
                decided.err().map(|failure| failure.reason())
            }
        };
        let number = self.inner.outputs.floors.borrow().header.number;
        self.verdict(number, reason, origin).await
    }

    /// What came is none of these; it is counted and noted as one that was refused.
    pub(super) async fn unreadable(&self, reason: &'static str, origin: Origin) -> Verdict {
        let number = self.inner.outputs.floors.borrow().header.number;
        self.verdict(number, Some(reason), origin).await
    }

    /// Verifies a patient's order of erasure and has it carried out. The answer comes when the root is destroyed, durably.
    pub async fn offer_erasure(&self, order: SignedOrder, origin: Origin) -> Verdict {
        let reason = match self.judge(&order) {
            Err(refusal) => {
                warn!(reason = refusal.reason(), "an order of erasure was refused: {refusal}");
                Some(refusal.reason())
            }
            Ok(home_key) => {
                let decided = self.propose(Change::Erasure { order, home_key }).await;
                decided.err().map(|failure| failure.reason())
            }
        };
        if reason.is_none() {
            self.unenrol(order.patient).await;
        }
        let number = self.inner.outputs.floors.borrow().header.number;
        self.verdict(number, reason, origin).await
    }

    /// With which home key an order counts: the enrolled one, or, of a patient who is not enrolled any more, that of the first order.
    fn judge(&self, order: &SignedOrder) -> Result<Address, ErasureRefusal> {
        let pins = self.pins();
        let before = self.inner.erasures.ordered(&order.patient).and_then(|ordered| ordered.by);
        let known =
            before.map(|(home_key, _)| home_key).or_else(|| pins.home_keys.get(&order.patient).copied());
        let home_key = known.ok_or(ErasureRefusal::NotPinned)?;
        verify_erasure(order, &home_key, &pins.domain, clock::now_us())?;
        Ok(home_key)
    }

    /// Takes the patient's salts and revoke-only keys out of the gateway's files.
    async fn unenrol(&self, patient: PatientId) {
        let Some(files) = self.inner.files.get().cloned() else { return };
        let outcome = tokio::task::spawn_blocking(move || files.unenrol(patient)).await;
        let outcome = outcome.map_err(|failure| failure.to_string());
        let outcome = outcome.and_then(|done| done.map_err(|failure| failure.to_string()));
        if let Err(why) = &outcome {
            warn!(why, "an erased patient's salts are in the gateway's files still");
        }
        self.inner.unenrolled.lock().await.insert(patient, outcome);
    }

    /// All that was erased here, from now on.
    #[must_use]
    pub fn erased(&self) -> watch::Receiver<BTreeMap<PatientId, Asked>> {
        self.inner.erasures.follow()
    }

    async fn propose(&self, change: Change) -> Result<(), DecisionError> {
        let (proposal, decided) = Proposal::new(change);
        self.inner.proposals.send(proposal).await.map_err(|_gone| DecisionError::Stopping)?;
        decided.await.unwrap_or(Err(DecisionError::Stopping))
    }

    async fn verdict(&self, number: u64, reason: Option<&'static str>, origin: Origin) -> Verdict {
        let outcome = reason.unwrap_or("in_force");
        self.inner.metrics.policy.offers.with_label_values(&[origin.as_str(), outcome]).inc();
        if let Some(reason) = reason {
            self.inner.metrics.policy_refused.with_label_values(&[reason]).inc();
            self.note_refused(reason, origin, clock::now_s()).await;
        }
        let epoch = self.inner.outputs.policy.borrow().epoch();
        Verdict { number, epoch, refused: reason.map(str::to_owned) }
    }

    async fn note_refused(&self, reason: &'static str, origin: Origin, now_s: u64) {
        let times = {
            let mut noted = self.inner.noted.lock().await;
            let (last_s, waiting) = noted.entry((reason, origin.as_str())).or_insert((0, 0));
            *waiting += 1;
            if now_s.saturating_sub(*last_s) < REFUSAL_NOTED_EVERY_S {
                return;
            }
            *last_s = now_s;
            std::mem::take(waiting)
        };
        let event = Event::Refused { reason: reason.to_owned(), origin, times };
        let store = self.inner.store.clone();
        let kept = tokio::task::spawn_blocking(move || {
            store.keep(&Changes { events: &[(now_s, event)], ..Changes::default() })
        });
        if !matches!(kept.await, Ok(Ok(()))) {
            warn!("a refusal could not be written to the audit trail");
        }
    }
}

impl PolicySide for PolicyHandle {
    fn pins(&self) -> Arc<Pins> {
        Self::pins(self)
    }

    fn current(&self) -> Arc<VerifiedPolicy> {
        Arc::clone(&self.inner.outputs.policy.borrow())
    }

    fn state(&self, now_s: u64) -> PolicyState {
        Self::state(self, now_s)
    }

    async fn offer_bundle(&self, bytes: Vec<u8>) -> Verdict {
        Self::offer_bundle(self, bytes, Origin::Door).await
    }

    async fn offer_revocation(&self, signed: SignedRevocation) -> Verdict {
        Self::offer_revocation(self, signed, Origin::Door).await
    }

    async fn offer_emergency(&self, signed: SignedEmergency) -> Verdict {
        Self::offer_emergency(self, signed, Origin::Door).await
    }

    async fn offer_erasure(&self, order: SignedOrder) -> Verdict {
        Self::offer_erasure(self, order, Origin::Door).await
    }

    async fn erasure(&self, patient: PatientId) -> ErasureView {
        let (erasures, store) = (&self.inner.erasures, &self.inner.store);
        let receipts = erasures.receipts(patient).unwrap_or_else(|failure| {
            warn!(%failure, "receipts can't be read");
            Vec::new()
        });
        let shared = store.trail(usize::MAX).unwrap_or_default().into_iter().rev().filter_map(|entry| {
            let Event::RootShared { patient: of, threshold, shares } = entry.event else { return None };
            (of == patient).then_some(SharesView { at_s: entry.time_s, threshold, shares })
        });
        let salts = self.inner.unenrolled.lock().await.get(&patient).cloned();
        ErasureView {
            patient,
            request: erasures.ordered(&patient).map(|ordered| hex::encode(ordered.request)),
            receipts: receipts.iter().map(hex::encode).collect(),
            core_refuses: erasures.refusal(&patient).map(EraseRefusal::as_str),
            shares: shared.collect(),
            salts_left: salts.and_then(Result::err),
        }
    }

    fn trail(&self) -> Vec<TrailLine> {
        let entries = Self::trail(self, LINES_MAX).unwrap_or_else(|failure| {
            warn!(%failure, "the audit trail can't be read");
            Vec::new()
        });
        let line = |entry: &Entry| TrailLine {
            at_s: i64::try_from(entry.time_s).unwrap_or(i64::MAX),
            text: entry.event.text(),
        };
        entries.iter().map(line).collect()
    }
}
