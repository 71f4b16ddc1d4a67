//! A patient's order of erasure at the gateway: whose word counts, what goes, and what a kill in between leaves.

use std::sync::Arc;

use caregate_host::clock;
use caregate_protocol::erasure::{Issuer, Receipt, RequestHash, SignedErasure, SignedOrder};
use caregate_protocol::id::{DeviceId, Lane, PatientId};
use caregate_protocol::policy::{RecipientKind, RecipientStatus, Watch};
use caregate_protocol::record::Record;
use edge_gateway::ingest::{Fault, Inbound, Verdict};
use edge_gateway::pipeline::erase::Walk;
use edge_gateway::pipeline::expiry::{AGE_LIMIT_MIN, Expiry};
use edge_gateway::policy::trail::Origin;
use edge_gateway::policy::{Change, PolicyHandle, Proposal};
use edge_gateway::spool::Limits;
use ledger_client::fixture::{Signer, Site};
use ledger_client::verify::{Domain, NewestKeys, Pins, erasure_digest, verify_bundle, verify_revocation};
use tokio::sync::{mpsc, oneshot};

use crate::pipeline_support::commits::{Commits, Sources, doors};
use crate::pipeline_support::{Gateway, Home, Hospital, Publish, device_key};

const PATIENT: PatientId = Site::PATIENT;

/// A gateway whose one patient has granted to the city hospital.
struct Place {
    home: Home,
    site: Site,
    pins: Arc<Pins>,
    gateway: Gateway,
}

impl Place {
    fn new() -> Self {
        let mut site = Site::new(4);
        let (city, _) = Hospital::on_ledger(0x50);
        site.register(&city, RecipientStatus::Active, RecipientKind::Treating, false);
        site.grant(0, &city, 1, |grant| (grant.from, grant.until) = (0, u64::MAX));
        site.bind(0, true, 1);
        let (home, pins) =
            (Home::new(Limits::with_budget(64 << 20)), Arc::new(site.enrolment.pins().unwrap()));
        let gateway = Gateway::open_with(home.dir.path(), home.limits, Some(Arc::clone(&pins)), now_s());
        let mut place = Self { home, site, pins, gateway };
        place.deliver();
        place
    }

    fn decide(&mut self, change: Change) -> Option<&'static str> {
        let (proposal, mut decided) = Proposal::new(change);
        self.gateway.committer.decide(proposal, clock::now_us(), clock::monotonic());
        decided.try_recv().unwrap().err().map(|failure| failure.reason())
    }

    fn deliver(&mut self) {
        let bytes = self.site.bytes(now_s());
        let floors = Arc::clone(&self.gateway.committer.policy.outputs().floors.borrow());
        let bundle = Box::new(verify_bundle(&bytes, &self.pins, &floors, now_s()).unwrap());
        assert_eq!(self.decide(Change::Bundle { bundle, bytes, origin: Origin::Controller }), None);
    }

    fn put(&mut self, sequence: u64) -> Verdict {
        let policy = Arc::clone(self.gateway.committer.policy.policy().unwrap());
        self.gateway.commit_at(&[Publish::beat(sequence)], &policy, clock::now_us())[0]
    }

    /// As after kill -9.
    fn restart(self) -> Self {
        let Self { home, site, pins, gateway } = self;
        drop(gateway);
        let mut gateway = Gateway::open_with(home.dir.path(), home.limits, Some(Arc::clone(&pins)), now_s());
        gateway.committer.walk = Walk::left(&gateway.committer.keys.erasures()).unwrap();
        Self { home, site, pins, gateway }
    }

    fn erase(&mut self, made_us: i64) -> Option<&'static str> {
        let order = order(&Site::home_key(), PATIENT, made_us, &self.pins.domain);
        self.decide(Change::Erasure { order, home_key: Site::home_key().address() })
    }

    fn receipts(&self) -> Vec<Receipt> {
        let receipts = self.gateway.committer.keys.erasures().receipts(PATIENT).unwrap();
        receipts.iter().map(|bytes| Receipt::verify(bytes).unwrap().0).collect()
    }

    /// Records of the patient that wait for the core.
    fn waiting(&self) -> u64 {
        self.gateway.committer.log.stats().unacked.iter().sum()
    }
}

fn now_s() -> u64 {
    u64::try_from(clock::now_us() / 1_000_000).unwrap()
}

fn order(by: &Signer, patient: PatientId, made_us: i64, domain: &Domain) -> SignedOrder {
    SignedOrder { patient, made_us, signature: by.sign(&erasure_digest(&patient, made_us, domain)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_patients_order_of_now_counts_and_each_once() {
    let place = Place::new();
    let committer = place.gateway.committer;
    let (inbound, front) = doors();
    let (proposals, proposals_in) = mpsc::channel(1);
    let metrics = committer.metrics.clone();
    let handle = PolicyHandle::new(Arc::clone(&place.pins), &committer.policy, proposals, metrics.clone());
    let sources = Sources { proposals: proposals_in, ..Sources::default() };
    let commits = Commits::begin(committer, front, sources);
    let send = async |sequence: u64| {
        let Publish { device, topic, payload } = Publish::beat(sequence);
        let (verdict, answered) = oneshot::channel();
        let received_us = clock::now_us();
        inbound
            .of(Lane::Vitals)
            .send(Inbound { device, topic, payload: payload.into(), received_us, verdict })
            .await
            .unwrap();
        answered.await.unwrap()
    };
    assert_eq!(send(0).await, Verdict::Stored);

    let (domain, now_us, home) = (place.pins.domain, clock::now_us(), Site::home_key());
    let elsewhere = Domain { chain_id: domain.chain_id + 1, ..domain };
    let hour = 3_600_000_000;
    let offer = async |order| handle.offer_erasure(order, Origin::Door).await.refused;
    for (order, reason) in [
        (order(&home, PatientId([9; 16]), now_us, &domain), "not_pinned"),
        (order(&Site::grant_key(0), PATIENT, now_us, &domain), "erasure_signature"),
        (order(&Site::revoke_key(0), PATIENT, now_us, &domain), "erasure_signature"),
        (order(&home, PATIENT, now_us, &elsewhere), "erasure_signature"),
        (SignedOrder { made_us: now_us + 1, ..order(&home, PATIENT, now_us, &domain) }, "erasure_signature"),
        (order(&home, PATIENT, now_us - hour, &domain), "erasure_old"),
        (order(&home, PATIENT, now_us + hour, &domain), "erasure_ahead"),
    ] {
        let before = metrics.policy_refused.with_label_values(&[reason]).get();
        assert_eq!(offer(order).await.as_deref(), Some(reason));
        assert_eq!(metrics.policy_refused.with_label_values(&[reason]).get(), before + 1);
    }
    assert_eq!(send(1).await, Verdict::Stored, "nothing was erased");

    let good = order(&home, PATIENT, now_us, &domain);
    let bound = handle.bound_devices();
    assert_eq!((bound.borrow().len(), handle.pins().patients.len()), (1, 1));
    let enrolled = Arc::downgrade(&handle.pins());
    assert_eq!(offer(good).await, None);
    // From that moment on the device is a stranger's, and nothing in memory says whose it was.
    assert_eq!(send(2).await, Verdict::Quarantined(Fault::Device));
    assert_eq!(metrics.quarantined.with_label_values(&["unbound"]).get(), 1);
    assert!(bound.borrow().is_empty() && handle.subscribe().borrow().standing().next().is_none());
    let pins = handle.pins();
    assert!(pins.patients.is_empty() && pins.home_keys.is_empty() && pins.watch() == Watch::default());
    assert_eq!(enrolled.strong_count(), 1, "the test's own `place.pins` alone");
    for replayed in [good, order(&home, PATIENT, now_us - 1, &domain)] {
        assert_eq!(offer(replayed).await.as_deref(), Some("erasure_replayed"));
    }
    assert_eq!(offer(order(&home, PATIENT, now_us + 1, &domain)).await, None, "asked again, it is done");
    assert_eq!(metrics.policy_refused.with_label_values(&["erasure_replayed"]).get(), 2);
    drop(inbound);
    commits.end();
}

#[test]
fn what_waits_is_let_go_and_the_gateway_signs_for_it() {
    let mut place = Place::new();
    for sequence in 0..50 {
        assert_eq!(place.put(sequence), Verdict::Stored);
    }
    let waited = place.waiting();
    assert!(waited >= 50);
    let root = *place.gateway.committer.keys.root(PATIENT).unwrap().as_bytes();
    assert_eq!(place.erase(clock::now_us()), None);
    assert_eq!(place.put(50), Verdict::Quarantined(Fault::Device));
    assert_eq!(place.gateway.quarantined("unbound"), 1);
    let file = std::fs::read(place.home.dir.path().join("keys.redb")).unwrap();
    assert!(!file.windows(32).any(|window| window == root));

    // The age limit comes first: nothing is told of whom there is no key.
    let (next, now) = (place.gateway.committer.log.stats().next.0, clock::monotonic());
    let committer = &mut place.gateway.committer;
    committer.expiry = Some(Expiry::new(AGE_LIMIT_MIN, next, clock::now_us(), now));
    let policy = Arc::clone(committer.policy.policy().unwrap());
    let expired = committer.expire(&policy, clock::now_us(), now + 10 * AGE_LIMIT_MIN).unwrap();
    assert!(expired.spooled.is_empty() && expired.gone.is_empty());
    assert!(committer.tell_losses(&policy, clock::now_us()).unwrap().is_empty());

    // A kill before what waits has gone: the next start goes on.
    let mut place = place.restart();
    assert_eq!((place.waiting(), place.receipts().len()), (waited, 0));
    let gone = place.gateway.committer.let_go_of_erased(clock::now_us()).unwrap();
    assert_eq!((gone.len() as u64, place.waiting()), (waited, 0));
    let receipts = place.receipts();
    let ordered = place.gateway.committer.keys.erasures().ordered(&PATIENT).unwrap();
    let signed = SignedErasure::decode(&ordered.request).unwrap();
    assert_eq!(signed.verify(&device_key().verifying_key()), Ok(()));
    let expected = (Issuer::Gateway, RequestHash::of(&ordered.request), waited);
    let told = |receipt: &Receipt| (receipt.issuer, receipt.request, receipt.records);
    assert_eq!(receipts.iter().map(told).collect::<Vec<_>>(), [expected]);

    let place = place.restart();
    assert!(place.gateway.committer.walk.is_none(), "it has come to its end");
    let of_patient = |bytes: &[u8]| Record::decode(bytes).is_ok_and(|record| record.patient() == PATIENT);
    let left = place.gateway.records().iter().filter(|(_, _, bytes)| of_patient(bytes)).count();
    assert_eq!(left, 0, "the file ended, and is for others");
    assert!(place.gateway.committer.state.chains.is_empty());
}

/// Whether or not the enrolment could be written: who was erased is not enrolled, and the policy that was kept holds for the others.
#[test]
fn a_start_finds_nobody_who_was_erased_and_the_policy_of_the_rest() {
    let mut place = Place::new();
    assert_eq!(place.put(0), Verdict::Stored);
    let device = place.pins.devices.values().next().unwrap().device.clone();
    place.gateway.committer.hints.quarantine(&unreadable(&device), "json", "not JSON");
    assert_eq!(place.erase(clock::now_us()), None);
    let hints = &place.gateway.committer.hints;
    assert!(hints.quarantined(9).is_empty() && hints.devices().is_empty(), "what it sent is gone too");

    let mut place = place.restart();
    let outputs = place.gateway.committer.policy.outputs();
    assert!(outputs.pins.unwrap().borrow().patients.is_empty());
    let policy = place.gateway.committer.policy.policy().expect("the bundle on disk is good");
    assert!(policy.devices().len() == 0 && policy.standing().next().is_none());
    assert_eq!(place.put(1), Verdict::Quarantined(Fault::Device));

    // What was on its way when the order came is as late: a bundle that knows the patient, and a revocation.
    let bytes = place.site.bytes(now_s());
    let floors = Arc::clone(&place.gateway.committer.policy.outputs().floors.borrow());
    let bundle = Box::new(verify_bundle(&bytes, &place.pins, &floors, now_s()).unwrap());
    let change = Change::Bundle { bundle, bytes, origin: Origin::Controller };
    assert_eq!(place.decide(change), Some("not_pinned"));
    let signed = place.site.signed_revocation(0, 1);
    let by = verify_revocation(&signed, &place.pins, &NewestKeys::default()).unwrap();
    assert_eq!(place.decide(Change::Revocation { signed, by }), Some("not_pinned"));
    assert!(place.gateway.committer.policy.outputs().anchors.borrow().is_empty());
}

fn unreadable(device: &DeviceId) -> Inbound {
    let verdict = oneshot::channel().0;
    let topic = format!("vitals/v1/{device}/num/heart-rate");
    Inbound { device: device.clone(), topic, payload: b"{".as_slice().into(), received_us: 1, verdict }
}
