//! Who can open what, by verified bundles and revocations, with an adversary who keeps every wrap that was ever made.

use std::sync::Arc;

use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::policy::{RecipientKind, RecipientStatus};
use edge_gateway::ingest::{Inbound, Verdict};
use edge_gateway::policy::trail::Origin;
use edge_gateway::policy::{Change, PolicyHandle, Proposal};
use edge_gateway::spool::Limits;
use ledger_client::fixture::{self, Site};
use ledger_client::verify::{NewestKeys, verify_bundle, verify_revocation};
use proptest::prelude::*;
use tokio::sync::{mpsc, oneshot};

use crate::pipeline_support::commits::{Commits, Sources, doors};
use crate::pipeline_support::{Gateway, Home, Hospital, NOW_US, Publish, assert_whole};

const NOW_S: u64 = 1_790_000_000;
const SECOND_US: i64 = 1_000_000;

/// A gateway on a ledger where the city hospital treats, a clinic may break the glass, and nothing is granted yet.
struct Place {
    home: Home,
    site: Site,
    city: (fixture::Hospital, Hospital),
    clinic: (fixture::Hospital, Hospital),
    gateway: Option<Gateway>,
    now_us: i64,
    sequence: u64,
}

impl Place {
    fn new() -> Self {
        let mut site = Site::new(4);
        let (city, clinic) = (Hospital::on_ledger(0x50), Hospital::on_ledger(0x51));
        site.register(&city.0, RecipientStatus::Active, RecipientKind::Treating, false);
        site.register(&clinic.0, RecipientStatus::Active, RecipientKind::Treating, true);
        site.bind(0, true, 1);
        let home = Home::new(Limits::with_budget(64 << 20));
        let mut place = Self { home, site, city, clinic, gateway: None, now_us: NOW_US, sequence: 0 };
        place.restart();
        place
    }

    fn now_s(&self) -> u64 {
        u64::try_from(self.now_us / SECOND_US).unwrap()
    }

    /// As after kill -9.
    fn restart(&mut self) {
        drop(self.gateway.take());
        let pins = Arc::new(self.site.enrolment.pins().unwrap());
        let dir = self.home.dir.path();
        self.gateway = Some(Gateway::open_with(dir, self.home.limits, Some(pins), self.now_s()));
    }

    fn gateway(&mut self) -> &mut Gateway {
        self.gateway.as_mut().unwrap()
    }

    fn decide(&mut self, change: Change) {
        let now_us = self.now_us;
        let (proposal, mut decided) = Proposal::new(change);
        self.gateway().committer.decide(proposal, now_us, caregate_host::clock::monotonic());
        decided.try_recv().unwrap().unwrap();
    }

    /// The ledger as it is now.
    fn deliver(&mut self) {
        let bytes = self.site.bytes(self.now_s());
        let pins = self.site.enrolment.pins().unwrap();
        let floors = Arc::clone(&self.gateway().committer.policy.outputs().floors.borrow());
        let bundle = Box::new(verify_bundle(&bytes, &pins, &floors, self.now_s()).unwrap());
        self.decide(Change::Bundle { bundle, bytes, origin: Origin::Controller });
    }

    /// A revocation that no ledger has seen.
    fn hand_over(&mut self, relation: u8, version: u64) {
        let signed = self.site.signed_revocation(relation, version);
        let by =
            verify_revocation(&signed, &self.site.enrolment.pins().unwrap(), &NewestKeys::default()).unwrap();
        self.decide(Change::Revocation { signed, by });
    }

    fn wait(&mut self, seconds: i64) {
        self.now_us += seconds * SECOND_US;
    }

    /// Seals one reading and returns its sequence number.
    fn seal(&mut self) -> u64 {
        self.now_us += 1;
        let (sequence, now_us) = (self.sequence, self.now_us);
        let policy = Arc::clone(self.gateway().committer.policy.policy().unwrap());
        let verdict = self.gateway().commit_at(&[Publish::beat(sequence)], &policy, now_us);
        assert_eq!(verdict, [Verdict::Stored]);
        self.sequence += 1;
        sequence
    }

    /// What a hospital opens with its private key and every wrap that is on the disk, whoever they are for now.
    fn opened_by(&self, hospital: &Hospital) -> Vec<u64> {
        let opened = self.gateway.as_ref().unwrap().opened_by(hospital);
        let readings = opened.iter().flat_map(|one| &one.readings);
        readings.map(|reading| reading.seq.unwrap()).collect()
    }

    fn city_opens(&self) -> Vec<u64> {
        self.opened_by(&self.city.1)
    }

    fn clinic_opens(&self) -> Vec<u64> {
        self.opened_by(&self.clinic.1)
    }

    fn generations(&mut self) -> Vec<u32> {
        self.gateway().opened().iter().map(|one| one.header.generation).collect()
    }

    fn grant(&mut self, version: u64, until: u64) {
        let city = self.city.0.clone();
        self.site.grant(0, &city, version, |grant| grant.until = until);
    }
}

#[test]
fn a_grant_opens_from_when_it_is_in_force_and_a_revocation_ends_it_at_once() {
    let mut place = Place::new();
    place.deliver();
    let before = place.seal();
    place.grant(1, u64::MAX);
    place.deliver();
    let granted = [place.seal(), place.seal()];
    assert_eq!(place.city_opens(), granted, "reading {before} of the same minute stays closed");
    place.site.revoke(0, 1);
    place.deliver();
    let closed = place.gateway().committer.metrics.policy.epochs_closed.get();
    assert_eq!(closed, 1, "at once, not with the next segment");
    place.seal();
    place.wait(60);
    place.seal();
    assert_eq!(place.city_opens(), granted);
    assert_eq!(place.generations(), [0, 1, 1, 2, 2]);
    place.grant(2, u64::MAX);
    place.deliver();
    let again = place.seal();
    assert_eq!(place.city_opens(), [&granted[..], &[again]].concat());
    assert_whole(&place.gateway().opened());
}

#[test]
fn a_revocation_that_was_handed_over_holds_against_any_ledger_and_over_a_restart() {
    for restarts in [false, true] {
        let mut place = Place::new();
        place.grant(1, u64::MAX);
        place.deliver();
        let granted = [place.seal()];
        place.hand_over(0, 1);
        assert_eq!(place.gateway().committer.metrics.policy.anchors_waiting.get(), 1);
        if restarts {
            place.restart();
        }
        place.seal();
        assert_eq!(place.city_opens(), granted);
        // The ledger knows nothing of it: a controller keeps it back.
        place.wait(1);
        place.deliver();
        place.seal();
        assert_eq!(place.city_opens(), granted);
        assert_eq!(place.gateway().committer.policy.outputs().anchors.borrow().len(), 1);
        place.site.revoke(0, 1);
        place.wait(1);
        place.deliver();
        assert!(
            place.gateway().committer.policy.outputs().anchors.borrow().is_empty(),
            "the ledger shows it"
        );
        assert_eq!(place.gateway().committer.metrics.policy.anchors_waiting.get(), 0);
        place.grant(2, u64::MAX);
        place.deliver();
        assert_eq!(place.city_opens().len() + 1, {
            place.seal();
            place.city_opens().len()
        });
    }
}

/// Access that ends by `end` is over for what is sealed afterwards, in the same minute too.
fn ends_by(what: &str, end: impl Fn(&mut Place)) {
    let mut place = Place::new();
    place.grant(1, NOW_S + 20);
    place.deliver();
    let granted = [place.seal()];
    place.wait(2);
    end(&mut place);
    let now_us = place.now_us;
    place.gateway().committer.tick(now_us, caregate_host::clock::monotonic());
    assert_eq!(place.gateway().committer.metrics.policy.epochs_closed.get(), 1, "{what}");
    place.seal();
    place.restart();
    place.seal();
    place.wait(60);
    place.seal();
    assert_eq!(place.city_opens(), granted, "{what}");
}

#[test]
fn whatever_ends_access_ends_it_for_what_is_sealed_next() {
    ends_by("its own end", |place| place.wait(18));
    ends_by("the governors", |place| {
        let city = place.city.0.clone();
        place.site.register(&city, RecipientStatus::Suspended, RecipientKind::Treating, false);
        place.deliver();
    });
    ends_by("a bundle without it", |place| {
        place.site.claims.consents.clear();
        place.deliver();
    });
    ends_by("a grant to somebody else in its place", |place| {
        let clinic = place.clinic.0.clone();
        place.site.grant(0, &clinic, 2, |_| ());
        place.deliver();
    });
    ends_by("a later grant of another class", |place| {
        let city = place.city.0.clone();
        place.site.grant(0, &city, 2, |grant| grant.classes = 1 << DataClass::Alarm as u8);
        place.deliver();
    });
}

#[test]
fn a_stale_policy_ends_what_has_no_bound_of_its_own() {
    let mut place = Place::new();
    let city = place.city.0.clone();
    let clinic = place.clinic.0.clone();
    place.site.grant(0, &city, 1, |grant| grant.stale_bound_s = 0);
    place.site.grant(1, &clinic, 1, |grant| grant.stale_bound_s = 3600);
    place.deliver();
    place.wait(600);
    let fresh = place.seal();
    place.wait(1);
    let stale = place.seal();
    assert_eq!((place.city_opens(), place.clinic_opens()), (vec![fresh], vec![fresh, stale]));
    place.wait(3000);
    place.seal();
    assert_eq!(place.clinic_opens(), [fresh, stale]);
    place.deliver();
    let again = place.seal();
    assert_eq!((place.city_opens(), place.clinic_opens()), (vec![fresh, again], vec![fresh, stale, again]));
}

#[test]
fn an_emergency_opens_the_present_and_neither_past_nor_future() {
    let mut place = Place::new();
    place.deliver();
    place.seal();
    let clinic = place.clinic.0.clone();
    place.site.emergency(&clinic, NOW_S, NOW_S + 90, 1);
    place.deliver();
    assert_eq!(place.gateway().committer.metrics.policy.emergencies.get(), 1);
    let open = [place.seal(), {
        place.wait(60);
        place.seal()
    }];
    place.wait(30);
    let now_us = place.now_us;
    place.gateway().committer.tick(now_us, caregate_host::clock::monotonic());
    place.seal();
    assert_eq!(place.clinic_opens(), open);
    assert_eq!(place.gateway().committer.metrics.policy.emergencies.get(), 0);
}

#[test]
fn an_old_key_opens_nothing_that_is_sealed_after_a_new_one_is_in_force() {
    for restarts in [false, true] {
        replace_a_key(restarts);
    }
}

fn replace_a_key(restarts: bool) {
    let mut place = Place::new();
    place.grant(1, u64::MAX);
    place.deliver();
    let first = place.seal();
    let (_, again) = Hospital::on_ledger(0x52);
    let mut rekeyed = place.city.0.clone();
    rekeyed.hpke_public_key = again.public_key();
    place.site.register(&rekeyed, RecipientStatus::Active, RecipientKind::Treating, false);
    place.deliver();
    if restarts {
        place.restart();
    }
    let second = place.seal();
    let gateway = place.gateway.as_ref().unwrap();
    assert_eq!(
        (gateway.opened_with(&place.city.1), gateway.opened_with(&again)),
        (vec![first], vec![second]),
        "restarts: {restarts}"
    );
}

/// The real thread, with sensors that don't pause: what is sent after the answer is sealed for nobody who was revoked.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_flight_is_sealed_for_the_revoked_after_the_answer() {
    let mut place = Place::new();
    place.now_us = caregate_host::clock::now_us();
    place.grant(1, u64::MAX);
    place.deliver();
    let committer = place.gateway.take().unwrap().committer;
    let (inbound, front) = doors();
    let (proposals, proposals_in) = mpsc::channel(1);
    let pins = Arc::new(place.site.enrolment.pins().unwrap());
    let handle = PolicyHandle::new(pins, &committer.policy, proposals, committer.metrics.clone());
    let sources = Sources { proposals: proposals_in, ..Sources::default() };
    let commits = Commits::begin(committer, front, sources);
    #[expect(clippy::async_yields_async, reason = "sent first, answered when the commit is done")]
    let send = |sequence: u64| {
        let inbound = inbound.clone();
        async move {
            let Publish { device, topic, payload } = Publish::beat(sequence);
            let (verdict, answered) = oneshot::channel();
            let received_us = caregate_host::clock::now_us();
            let publish = Inbound { device, topic, payload: payload.into(), received_us, verdict };
            inbound.of(Lane::Vitals).send(publish).await.unwrap();
            answered
        }
    };
    let mut answers = Vec::new();
    for sequence in 0..50 {
        answers.push(send(sequence).await);
    }
    for answered in answers.drain(..) {
        assert_eq!(answered.await.unwrap(), Verdict::Stored);
    }
    let revoking = tokio::spawn({
        let (handle, signed) = (handle.clone(), place.site.signed_revocation(0, 1));
        async move { handle.offer_revocation(signed, Origin::Door).await }
    });
    let mut next = 50;
    while !revoking.is_finished() {
        answers.push(send(next).await);
        next += 1;
    }
    assert_eq!(revoking.await.unwrap().refused, None);
    for sequence in next..next + 50 {
        answers.push(send(sequence).await);
    }
    for answered in answers {
        assert_eq!(answered.await.unwrap(), Verdict::Stored);
    }
    drop(inbound);
    commits.end();
    drop(handle);
    place.restart();
    let opened = place.city_opens();
    assert!(opened.contains(&0) && opened.iter().all(|sequence| *sequence < next), "{opened:?}, {next}");
    assert_eq!(place.gateway().readings(DataClass::Vitals).len() as u64, next + 50);
}

/// A gateway that is killed more often within ten minutes counts its policy as stale.
const RESTARTS_MAX: u32 = 4;

#[derive(Debug, Clone)]
enum Step {
    Grant { lasts_s: u64 },
    RevokeOnLedger,
    HandOver,
    Suspend(bool),
    Emergency { lasts_s: u64 },
    LeaveOut(bool),
    Deliver,
    Wait(i64),
    Seal,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1_u64..150).prop_map(|lasts_s| Step::Grant { lasts_s }),
        1 => Just(Step::RevokeOnLedger),
        1 => Just(Step::HandOver),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => (1_u64..150).prop_map(|lasts_s| Step::Emergency { lasts_s }),
        1 => any::<bool>().prop_map(Step::LeaveOut),
        4 => Just(Step::Deliver),
        2 => (1_i64..90).prop_map(Step::Wait),
        6 => Just(Step::Seal),
        1 => Just(Step::Restart),
    ]
}

/// What the ledger says of the city hospital, and what of that was delivered. Told apart from the code: no types of it.
#[derive(Debug, Clone, Default)]
struct Said {
    version: u64,
    until: u64,
    revoked: u64,
    suspended: bool,
    left_out: bool,
    emergency_until: u64,
    emergency: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens in whatever order: a hospital with every wrap opens exactly what was sealed while it might.
    #[test]
    fn who_keeps_every_wrap_opens_what_was_sealed_for_them(steps in prop::collection::vec(step(), 1..40)) {
        let mut place = Place::new();
        place.deliver();
        let (city, mut said) = (place.city.0.clone(), Said::default());
        let (mut delivered, mut handed_over) = (said.clone(), 0);
        let (mut expected, mut restarts) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Grant { lasts_s } => {
                    said.version = said.version.max(said.revoked).max(handed_over) + 1;
                    said.until = place.now_s() + lasts_s;
                    place.grant(said.version, said.until);
                    said.left_out = false;
                }
                Step::RevokeOnLedger if said.version > 0 => {
                    said.revoked = said.version;
                    place.site.revoke(0, said.version);
                }
                Step::HandOver if delivered.version > 0 => {
                    handed_over = delivered.version.max(handed_over);
                    place.hand_over(0, delivered.version);
                }
                Step::Suspend(suspended) => {
                    said.suspended = suspended;
                    let status =
                        if suspended { RecipientStatus::Suspended } else { RecipientStatus::Active };
                    place.site.register(&city, status, RecipientKind::Treating, true);
                    if suspended {
                        // As a controller must: a suspended domain's emergency makes a bundle bad.
                        place.site.claims.emergencies.clear();
                        said.emergency_until = 0;
                    }
                }
                Step::Emergency { lasts_s } if !said.suspended => {
                    place.site.register(&city, RecipientStatus::Active, RecipientKind::Treating, true);
                    said.emergency += 1;
                    said.emergency_until = place.now_s() + lasts_s;
                    place.site.emergency(&city, place.now_s(), said.emergency_until, said.emergency);
                }
                Step::LeaveOut(left_out) if said.version > 0 && left_out != said.left_out => {
                    said.left_out = left_out;
                    if left_out {
                        place.site.claims.consents.clear();
                    } else {
                        place.grant(said.version, said.until);
                    }
                }
                Step::Deliver => {
                    place.deliver();
                    delivered = said.clone();
                }
                Step::Wait(seconds) => place.wait(seconds),
                Step::Restart if restarts < RESTARTS_MAX => {
                    place.restart();
                    restarts += 1;
                }
                Step::Seal => {
                    let now_s = u64::try_from((place.now_us + 1) / SECOND_US).unwrap();
                    let granted = delivered.version > delivered.revoked.max(handed_over)
                        && now_s < delivered.until
                        && !delivered.left_out;
                    let may = !delivered.suspended && (granted || now_s < delivered.emergency_until);
                    let sequence = place.seal();
                    if may {
                        expected.push(sequence);
                    }
                }
                Step::RevokeOnLedger
                | Step::HandOver
                | Step::Emergency { .. }
                | Step::LeaveOut(_)
                | Step::Restart => {}
            }
            let now_us = place.now_us;
            place.gateway().committer.tick(now_us, caregate_host::clock::monotonic());
        }
        prop_assert_eq!(place.city_opens(), expected);
        let sealed = place.sequence;
        prop_assert_eq!(place.gateway().readings(DataClass::Vitals).len() as u64, sealed);
    }
}
