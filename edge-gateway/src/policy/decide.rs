//! The one place where policy comes into force: on the commit thread, between two group commits. What is decided here holds for
//! every segment that is sealed afterwards, and is durable before anything is sealed under it.
//!
//! A bundle of the same claims and epoch as the one on disk, under a younger header, is not written each time: it would say the same
//! after a restart, and flash wears out.

mod clocks;
mod direct;
mod erase;
mod outputs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caregate_host::admin::Condition;
use caregate_protocol::erasure::SignedOrder;
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::delivery::Anchor;
use caregate_protocol::policy::{
    AdmissionError, Claims, ClockOffset, EmergencyAccess, Floors, Freshness, HeaderFloor, Pseudonym,
    RelationshipId, SignedEmergency, SignedRevocation, VerifiedPolicy,
};
use ledger_client::verify::{
    Address, BundleRefusal, EmergencyRefusal, ErasureRefusal, NewestKeys, Pins, RevocationRefusal,
    RevokedWith, VerifiedBundle, verify_kept_bundle, verify_revocation,
};
pub use outputs::Outputs;
use outputs::Senders;
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::clock::{KEPT_PARTS, Now, PolicyClock};
use super::store::{Changes, PolicyStore};
use super::trail::{Event, Origin, RevokedBy, Snapshot, label_of};
use crate::keys::erasures::Erasures;
use crate::keys::{KeyStore, KeyStoreError};
use crate::metrics::Metrics;

/// Emergencies that wait for the ledger: as many as one bundle has, of each of a few patients at once.
pub const DIRECT_MAX: usize = 256;

/// Why a proposal was refused; the policy before stays in force.
#[derive(Debug, Error)]
pub enum DecisionError {
    /// A file's document would take back what has been seen.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// A bundle would.
    #[error(transparent)]
    Bundle(#[from] BundleRefusal),
    /// A later one of its domain came in between, or its patient was erased.
    #[error(transparent)]
    Emergency(#[from] EmergencyRefusal),
    /// A revocation's patient was erased in between.
    #[error(transparent)]
    Revocation(#[from] RevocationRefusal),
    /// An order of erasure that was handed in before.
    #[error(transparent)]
    Erasure(#[from] ErasureRefusal),
    /// More emergencies wait for the ledger than [`DIRECT_MAX`].
    #[error("{DIRECT_MAX} emergencies wait for the ledger already")]
    TooMany,
    /// It could not be kept.
    #[error("keys: {0}")]
    Keys(#[from] KeyStoreError),
    /// The gateway ends.
    #[error("stopping")]
    Stopping,
}

impl DecisionError {
    /// A word for counters and verdicts.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Admission(_) => "went_back",
            Self::Bundle(refusal) => refusal.reason(),
            Self::Emergency(refusal) => refusal.reason(),
            Self::Revocation(refusal) => refusal.reason(),
            Self::Erasure(refusal) => refusal.reason(),
            Self::TooMany => "too_many",
            Self::Keys(_) => "keys",
            Self::Stopping => "stopping",
        }
    }
}

/// What is proposed; its signatures and proofs have been checked.
#[derive(Debug)]
pub enum Change {
    /// A bundle.
    Bundle {
        /// Verified.
        bundle: Box<VerifiedBundle>,
        /// As it came.
        bytes: Vec<u8>,
        /// By which path.
        origin: Origin,
    },
    /// A revocation alone.
    Revocation {
        /// What was signed.
        signed: SignedRevocation,
        /// With which key.
        by: RevokedWith,
    },
    /// A patient's order that nothing of theirs is to stay.
    Erasure {
        /// What was signed.
        order: SignedOrder,
        /// With which home key.
        home_key: Address,
    },
    /// An emergency alone.
    Emergency {
        /// What was signed.
        signed: Box<SignedEmergency>,
        /// Whose.
        access: Box<EmergencyAccess>,
    },
}

/// A change on its way to the commit thread, and who waits for the decision.
#[derive(Debug)]
pub struct Proposal {
    change: Change,
    answer: oneshot::Sender<Result<(), DecisionError>>,
}

impl Proposal {
    /// A proposal, and where its decision comes.
    #[must_use]
    pub fn new(change: Change) -> (Self, oneshot::Receiver<Result<(), DecisionError>>) {
        let (answer, answered) = oneshot::channel();
        (Self { change, answer }, answered)
    }

    /// The erasure that is proposed, which is not the decider's to carry out.
    #[must_use]
    pub fn erasure(&self) -> Option<(Address, SignedOrder)> {
        match self.change {
            Change::Erasure { order, home_key } => Some((home_key, order)),
            Change::Bundle { .. } | Change::Revocation { .. } | Change::Emergency { .. } => None,
        }
    }

    /// Answers for who has carried it out.
    pub fn answered(self, outcome: Result<(), DecisionError>) {
        // A source that is gone needs no answer.
        drop(self.answer.send(outcome));
    }

    /// Decides, runs `then` with the recipients whose own key has changed, and only then answers.
    pub fn decide(
        self,
        decider: &mut Decider,
        now: Now,
        then: impl FnOnce(&Decider, &BTreeSet<RecipientId>),
    ) {
        let (rekeyed, decided) = decider.decide(self.change, now);
        then(decider, &rekeyed);
        // A source that is gone needs no answer.
        drop(self.answer.send(decided));
    }
}

/// Decides, and remembers what it decided. Invariant: what is in force never says less than the floors revoke.
#[derive(Debug)]
pub struct Decider {
    store: PolicyStore,
    erasures: Erasures,
    pins: Option<Arc<Pins>>,
    metrics: Metrics,
    floors: Arc<Floors>,
    policy: Option<Arc<VerifiedPolicy>>,
    /// What the bundle on disk claims.
    kept: Option<Claims>,
    /// The header floor on disk: that of the bundle there, which must not be behind it.
    header_kept: HeaderFloor,
    anchors: BTreeMap<RelationshipId, Anchor>,
    /// Emergencies that were handed over here and that the ledger has not shown, whether they hold or not; at most [`DIRECT_MAX`].
    direct: BTreeMap<(Pseudonym, RecipientId), SignedEmergency>,
    keys: Arc<NewestKeys>,
    /// Highest revoked versions that the ledger has shown.
    shown: BTreeMap<RelationshipId, u64>,
    snapshot: Snapshot,
    clock: PolicyClock,
    senders: Senders,
    readiness: Option<(Condition, Option<Condition>)>,
}

impl Decider {
    /// With what was kept: floors, revocations on their way, and the last good bundle, which is in force again where it still
    /// verifies against the pins. Where policy comes from a file there are no pins.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn open(
        keys: &KeyStore,
        pins: Option<Arc<Pins>>,
        metrics: Metrics,
        now: Now,
    ) -> Result<Self, KeyStoreError> {
        let store = keys.policy();
        let floors = Arc::new(store.floors()?);
        let staleness_max_s = pins.as_ref().map_or(u64::MAX, |pins| pins.staleness_max_s);
        let clock = PolicyClock::new(store.clock()?, floors.header.time_s, staleness_max_s, now.at);
        let erased = |pins: Arc<Pins>| erase::without_erased(&pins, keys);
        let pins = pins.map(erased);
        let senders = Senders::new(pins.clone(), Arc::clone(&floors));
        let mut decider = Self {
            store,
            erasures: keys.erasures(),
            pins,
            metrics,
            header_kept: floors.header,
            floors,
            policy: None,
            kept: None,
            anchors: BTreeMap::new(),
            direct: BTreeMap::new(),
            keys: Arc::default(),
            shown: BTreeMap::new(),
            snapshot: Snapshot::default(),
            clock,
            senders,
            readiness: None,
        };
        if let Some(pins) = decider.pins.clone() {
            decider.take_up(&pins, now)?;
        }
        Ok(decider)
    }

    /// What the store held at the end of the process before.
    fn take_up(&mut self, pins: &Pins, now: Now) -> Result<(), KeyStoreError> {
        let now_s = now.unix_s;
        self.take_up_emergencies(pins)?;
        if let Some(bytes) = self.store.bundle()? {
            match verify_kept_bundle(&bytes, pins, &self.floors, now_s)
                .and_then(|bundle| Ok((bundle.admit(&self.floors)?.0, bundle)))
            {
                Ok((policy, bundle)) => {
                    let policy =
                        policy.with_direct(self.direct_access(pins)).with_clock(self.clock.offset(now));
                    self.keys = Arc::new(bundle.keys.clone());
                    // As it was when it came: what ended since is noted at the first look at the clock.
                    self.snapshot =
                        Snapshot::of(&policy, Some(pins), bundle.header.time_s).with_direct(&policy, now_s);
                    info!(
                        epoch = policy.epoch(),
                        header = bundle.header.number,
                        "the policy that was kept is in force"
                    );
                    self.shown.clone_from(&bundle.revoked);
                    self.kept = Some(bundle.claims);
                    self.policy = Some(Arc::new(policy));
                }
                Err(refusal) => {
                    self.metrics.policy_refused.with_label_values(&[refusal.reason()]).inc();
                    warn!(
                        reason = refusal.reason(),
                        "the policy that was kept does not hold any more: {refusal}"
                    );
                    let event =
                        Event::Refused { reason: refusal.reason().into(), origin: Origin::Disk, times: 1 };
                    self.store.keep(&Changes { events: &[(now_s, event)], ..Changes::default() })?;
                }
            }
        }
        self.take_up_anchors(pins)?;
        self.publish();
        Ok(())
    }

    /// After the bundle, which says whose keys have handed on to whom.
    fn take_up_anchors(&mut self, pins: &Pins) -> Result<(), KeyStoreError> {
        for (relationship, signed) in self.store.anchors()? {
            match verify_revocation(&signed, pins, &self.keys) {
                Ok(by) => {
                    self.anchors.insert(relationship, anchor(signed, by));
                }
                Err(refusal) => {
                    warn!(%refusal, "a revocation on its way to the ledger is not of a patient here any more");
                }
            }
        }
        Ok(())
    }

    /// Conditions that say whether a policy is in force, and whether it is fresh.
    pub fn readiness(&mut self, in_force: Condition, fresh: Option<Condition>) {
        self.readiness = Some((in_force, fresh));
    }

    /// Receipts of erasures.
    #[must_use]
    pub fn erasures(&self) -> Erasures {
        self.erasures.clone()
    }

    /// What is kept of policy.
    #[must_use]
    pub fn store(&self) -> PolicyStore {
        self.store.clone()
    }

    /// The policy in force, if there is one.
    #[must_use]
    pub fn policy(&self) -> Option<&Arc<VerifiedPolicy>> {
        self.policy.as_ref()
    }

    /// Decides on a change. Returns the recipients whose own key has changed, and the decision.
    pub fn decide(&mut self, change: Change, now: Now) -> (BTreeSet<RecipientId>, Result<(), DecisionError>) {
        self.set_clock(now);
        let before = self.policy.clone();
        let decided = match change {
            Change::Bundle { bundle, bytes, origin } => self.bundle(&bundle, &bytes, origin, now),
            Change::Revocation { signed, by } => self.revocation(&signed, by, now.unix_s),
            Change::Emergency { signed, access } => self.emergency(&signed, *access, now.unix_s),
            // Whoever has the keys carries it out.
            Change::Erasure { .. } => Ok(()),
        };
        self.publish();
        self.observe(now.unix_s);
        let rekeyed = match (before, &self.policy) {
            (Some(before), Some(now)) => rekeyed(&before, now),
            (None, _) | (_, None) => BTreeSet::new(),
        };
        (rekeyed, decided)
    }

    fn happened(&self, policy: &VerifiedPolicy, floors: &Floors, now_s: u64) -> (Snapshot, Vec<Event>) {
        let next = Snapshot::of(policy, self.pins.as_deref(), now_s);
        let revoked = |relationship: &RelationshipId| floors.relationships.get(relationship)?.revoked;
        let events = self.snapshot.until(&next, policy, revoked, now_s);
        (next, events)
    }

    fn epoch_event(&self, policy: &VerifiedPolicy, header: u64, origin: Origin) -> Vec<Event> {
        let known = self.policy.as_ref().is_some_and(|before| before.epoch() == policy.epoch());
        if known { Vec::new() } else { vec![Event::EpochInForce { epoch: policy.epoch(), header, origin }] }
    }

    fn bundle(
        &mut self,
        bundle: &VerifiedBundle,
        bytes: &[u8],
        origin: Origin,
        now: Now,
    ) -> Result<(), DecisionError> {
        let now_s = now.unix_s;
        if let Some(pins) = &self.pins {
            bundle.is_of(pins)?;
        }
        let (policy, floors) = bundle.admit(&self.floors)?;
        let shown = self.shown_emergencies(bundle, bytes);
        let direct = self.pins.as_ref().map_or_else(Vec::new, |pins| self.direct_access(pins));
        // The same header again says nothing new about the clock: it may have been kept for that.
        let is_newer = bundle.header.number > self.floors.header.number;
        let mut clock = self.clock.clone();
        if is_newer {
            clock.heard(bundle.header.time_s, now);
        }
        let policy = policy.with_direct(direct).with_clock(clock.offset(now));
        let mut events = self.epoch_event(&policy, bundle.header.number, origin);
        let is_new = !events.is_empty();
        events.extend(self.revoked_by(bundle, &floors));
        let anchored = self.anchored(bundle);
        events.extend(anchored.iter().filter_map(|relationship| {
            let pin = self.pins.as_ref()?.relationships.get(relationship)?;
            Some(Event::Anchored { patient: pin.patient, label: pin.label.clone() })
        }));
        let (next, happened) = self.happened(&policy, &floors, now_s);
        events.extend(happened);
        if !events.is_empty() || !shown.is_empty() || self.is_due(bundle, &floors) {
            let events = stamped(events, now_s);
            let kept = clock.kept_now(now.at);
            self.store.keep(&Changes {
                floors: Some(&floors),
                bundle: Some(bytes),
                anchored: &anchored,
                shown: &shown,
                clock: Some(kept),
                events: &events,
                ..Changes::default()
            })?;
            clock.was_kept(kept);
            (self.kept, self.header_kept) = (Some(bundle.claims.clone()), floors.header);
        }
        if is_new {
            let devices = policy.devices().len();
            info!(epoch = policy.epoch(), header = bundle.header.number, devices, "policy in force");
        }
        for relationship in &anchored {
            self.anchors.remove(relationship);
        }
        for key in &shown {
            self.direct.remove(key);
        }
        self.shown.clone_from(&bundle.revoked);
        if *self.keys != bundle.keys {
            self.keys = Arc::new(bundle.keys.clone());
        }
        (self.floors, self.policy, self.snapshot) = (Arc::new(floors), Some(Arc::new(policy)), next);
        self.clock = clock;
        self.senders.refer(self.clock.reference(now));
        Ok(())
    }

    /// Whether the bundle says anything that the one on disk does not, or is younger by enough.
    fn is_due(&self, bundle: &VerifiedBundle, risen: &Floors) -> bool {
        let without_header = |floors: &Floors| Floors { header: HeaderFloor::default(), ..floors.clone() };
        let every_s = self.pins.as_ref().map_or(0, |pins| pins.staleness_max_s / KEPT_PARTS);
        match &self.kept {
            None => true,
            Some(claims) => {
                *claims != bundle.claims
                    || bundle.header.time_s >= self.header_kept.time_s.saturating_add(every_s)
                    || without_header(risen) != without_header(&self.floors)
            }
        }
    }

    /// Which revocations are new with this bundle, and whose word they are.
    fn revoked_by(&self, bundle: &VerifiedBundle, risen: &Floors) -> Vec<Event> {
        let Some(pins) = &self.pins else { return Vec::new() };
        let of =
            |floors: &Floors, relationship| floors.relationships.get(relationship).and_then(|f| f.revoked);
        let new = risen.relationships.keys().filter_map(|relationship| {
            let version =
                of(risen, relationship).filter(|version| Some(*version) > of(&self.floors, relationship))?;
            let pin = pins.relationships.get(relationship)?;
            let shown = bundle.revoked.get(relationship).is_some_and(|shown| *shown >= version);
            let mut alone = bundle.claims.revocations.iter().filter(|signed| {
                (&signed.revocation.relationship, signed.revocation.version) == (relationship, version)
            });
            let signed = alone.find_map(|signed| verify_revocation(signed, pins, &bundle.keys).ok());
            let by = match signed {
                Some(by) if !shown => by.signer.into(),
                Some(_) | None => RevokedBy::Ledger,
            };
            Some(Event::Revoked { patient: pin.patient, label: pin.label.clone(), version, by })
        });
        new.collect()
    }

    fn anchored(&self, bundle: &VerifiedBundle) -> Vec<RelationshipId> {
        let has = |(relationship, anchor): (&RelationshipId, &Anchor)| {
            let version = anchor.revocation.revocation.version;
            bundle.revoked.get(relationship).is_some_and(|shown| *shown >= version).then_some(*relationship)
        };
        self.anchors.iter().filter_map(has).collect()
    }

    /// Acts on a revocation whether or not it can be kept: what is revoked must not be sealed for on account of a full disk. Where it
    /// can't, that is the answer, and its sender repeats it.
    fn revocation(
        &mut self,
        signed: &SignedRevocation,
        by: RevokedWith,
        now_s: u64,
    ) -> Result<(), DecisionError> {
        let Some(pins) = self.pins.clone() else { return Err(DecisionError::Stopping) };
        let (relationship, version) = (signed.revocation.relationship, signed.revocation.version);
        if !pins.relationships.contains_key(&relationship) {
            return Err(RevocationRefusal::NotPinned.into());
        }
        let in_force = self.floors.relationships.get(&relationship).and_then(|floor| floor.revoked);
        let on_ledger = self.shown.get(&relationship).is_some_and(|shown| *shown >= version);
        let on_its_way = self
            .anchors
            .get(&relationship)
            .is_some_and(|anchor| anchor.revocation.revocation.version >= version);
        let mut events = Vec::new();
        if in_force < Some(version) {
            let mut floors = Floors::clone(&self.floors);
            floors.relationships.entry(relationship).or_default().revoked = Some(version);
            let label = label_of(Some(&pins), &relationship);
            if let Some(pin) = pins.relationships.get(&relationship) {
                events.push(Event::Revoked { patient: pin.patient, label, version, by: by.signer.into() });
            }
            if let Some(policy) = self.policy.take() {
                let policy = policy.under(&floors);
                let (next, happened) = self.happened(&policy, &floors, now_s);
                events.extend(happened);
                (self.policy, self.snapshot) = (Some(Arc::new(policy)), next);
            }
            self.floors = Arc::new(floors);
            info!("a revocation that was handed over alone is in force");
        } else if on_ledger || on_its_way {
            return Ok(());
        }
        if !on_ledger && !on_its_way {
            self.anchors.insert(relationship, anchor(signed.clone(), by));
        }
        let floors = Floors { header: self.header_kept, ..Floors::clone(&self.floors) };
        self.store.keep(&Changes {
            floors: Some(&floors),
            anchor: (!on_ledger && !on_its_way).then_some(signed),
            events: &stamped(events, now_s),
            ..Changes::default()
        })?;
        Ok(())
    }

    /// Publishes figures and readiness.
    fn observe(&self, now_s: u64) {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.policy.anchors_waiting.set(gauge((self.anchors.len() + self.direct.len()) as u64));
        let Some(policy) = &self.policy else { return };
        metrics.policy_epoch.set(gauge(policy.epoch()));
        metrics.policy.emergencies.set(gauge(self.snapshot.emergencies() as u64));
        if let Freshness::Proven { as_of, .. } = policy.freshness() {
            metrics.policy.header_number.set(gauge(self.floors.header.number));
            // Where nobody knows the time, what the clock says.
            let age_s = policy.age_s(now_s).unwrap_or_else(|| now_s.saturating_sub(as_of));
            metrics.policy.age_seconds.set(gauge(age_s));
            metrics.policy.clock_unknown.set(i64::from(policy.clock() == ClockOffset::Unknown));
        }
        if let Some((in_force, fresh)) = &self.readiness {
            in_force.set(true);
            if let Some(fresh) = fresh {
                fresh.set(!policy.is_stale(now_s));
            }
        }
    }
}

fn stamped(events: Vec<Event>, now_s: u64) -> Vec<(u64, Event)> {
    events.into_iter().map(|event| (now_s, event)).collect()
}

/// For the ledger, which knows a relationship by the hash of both its keys.
fn anchor(signed: SignedRevocation, by: RevokedWith) -> Anchor {
    Anchor { revocation: signed, other_key: by.other_key.0 }
}

/// Recipients of both policies whose HPKE key is another now.
fn rekeyed(before: &VerifiedPolicy, now: &VerifiedPolicy) -> BTreeSet<RecipientId> {
    let changed = |id: &RecipientId| {
        let key = |policy: &VerifiedPolicy| policy.recipient_entry(id).map(|entry| entry.hpke_public_key);
        matches!((key(before), key(now)), (Some(was), Some(is)) if was != is)
    };
    let grantees = before.standing().map(|(_, grant)| grant.grantee);
    let domains = before.emergencies().iter().map(|access| access.emergency.domain);
    grantees.chain(domains).filter(changed).collect()
}
