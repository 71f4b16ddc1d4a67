//! Bundles and revocations handed in, as by the controller and the local door: verdicts, what is kept over restarts, what is noted.

#![expect(clippy::unwrap_used, reason = "tests")]

mod clocks;
mod link;
#[path = "../openflow_support/pki.rs"]
mod pki;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caregate_host::admin::{Condition, Health};
use caregate_host::clock;
use caregate_protocol::id::DataClass;
use caregate_protocol::policy::delivery::Verdict;
use caregate_protocol::policy::{Mac, RecipientKind, RecipientStatus, VerifiedPolicy};
use edge_gateway::keys::KeyStore;
use edge_gateway::local::PolicySide;
use edge_gateway::metrics::Metrics;
use edge_gateway::policy::trail::{Ending, Event, Origin, RevokedBy};
use edge_gateway::policy::{Change, Decider, Now, PolicyHandle, Proposal};
use ledger_client::fixture::{Hospital, Signer, Site, Stranger, forgeries};
use ledger_client::verify::{Address, BundleRefusal, revocation_digest, verify_bundle};
use prometheus::Registry;
use tempfile::TempDir;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

fn now_s() -> u64 {
    u64::try_from(clock::now_us() / 1_000_000).unwrap()
}

/// The folder in which a gateway keeps what it knows, and the ledger.
struct Home {
    dir: TempDir,
    site: Site,
    city: Hospital,
    rescue: Hospital,
    /// Seconds by which the monotonic clock is ahead of the machine's.
    passed: Arc<AtomicU64>,
}

impl Home {
    /// The city hospital has a grant; a rescue service may break the glass; both devices are bound.
    fn new() -> Self {
        let mut site = Site::new(4);
        let (city, rescue) = (Hospital::new(0x50, [0xd4; 32]), Hospital::new(0x51, [0xd5; 32]));
        site.register(&city, RecipientStatus::Active, RecipientKind::Treating, false);
        site.register(&rescue, RecipientStatus::Active, RecipientKind::Treating, true);
        site.grant(0, &city, 1, |_| ());
        site.bind(0, true, 1);
        site.bind(1, true, 1);
        Self { dir: tempfile::tempdir().unwrap(), site, city, rescue, passed: Arc::default() }
    }

    fn start(&self) -> Running {
        self.start_at(Arc::new(AtomicU64::new(now_s())))
    }

    /// Decides on a thread of its own, as the committer does, by a clock that the test sets.
    fn start_at(&self, clock: Arc<AtomicU64>) -> Running {
        let passed = Arc::clone(&self.passed);
        let now = move || Now {
            unix_s: clock.load(Ordering::SeqCst),
            at: clock::monotonic() + Duration::from_secs(passed.load(Ordering::SeqCst)),
        };
        let pins = Arc::new(self.site.enrolment.pins().unwrap());
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let keys = KeyStore::open(self.dir.path()).unwrap();
        let mut decider = Decider::open(&keys, Some(Arc::clone(&pins)), metrics.clone(), now()).unwrap();
        let health = Health::new();
        let (in_force, fresh) = (health.condition("policy"), health.condition("policy_fresh"));
        decider.readiness(in_force.clone(), Some(fresh.clone()));
        decider.tick(now());
        let (proposals, mut proposed) = mpsc::channel::<Told>(1);
        let (offers, mut offered) = mpsc::channel(1);
        let handle = PolicyHandle::new(pins, &decider, offers, metrics.clone());
        let forward = proposals.clone();
        let forwarding = tokio::spawn(async move {
            while let Some(proposal) = offered.recv().await {
                if forward.send(Told::Proposal(proposal)).await.is_err() {
                    return;
                }
            }
        });
        let deciding = std::thread::spawn(move || {
            while let Some(told) = proposed.blocking_recv() {
                match told {
                    Told::Proposal(proposal) => proposal.decide(&mut decider, now(), |_, _| ()),
                    Told::Tick(done) => {
                        decider.tick(now());
                        done.send(()).unwrap();
                    }
                    Told::Stop => return decider.close(now().at).unwrap(),
                    Told::Kill => return,
                }
            }
        });
        Running { handle, metrics, in_force, fresh, proposals, forwarding, deciding }
    }
}

enum Told {
    Proposal(Proposal),
    Tick(tokio::sync::oneshot::Sender<()>),
    Stop,
    /// Without a word.
    Kill,
}

struct Running {
    handle: PolicyHandle,
    metrics: Metrics,
    in_force: Condition,
    fresh: Condition,
    proposals: mpsc::Sender<Told>,
    forwarding: tokio::task::JoinHandle<()>,
    deciding: std::thread::JoinHandle<()>,
}

impl Running {
    async fn offer(&self, bytes: Vec<u8>) -> Verdict {
        tokio::time::timeout(PATIENCE, self.handle.offer_bundle(bytes, Origin::Controller)).await.unwrap()
    }

    fn policy(&self) -> Arc<VerifiedPolicy> {
        self.handle.current()
    }

    fn may_open(&self) -> usize {
        self.policy().recipients(&Site::PATIENT, DataClass::Vitals, now_s()).count()
    }

    /// The trail's events, the oldest first.
    fn trail(&self) -> Vec<Event> {
        let trail = self.handle.trail(usize::MAX).unwrap();
        trail.into_iter().rev().map(|entry| entry.event).collect()
    }

    async fn tick(&self) {
        let (done, ticked) = tokio::sync::oneshot::channel();
        self.proposals.send(Told::Tick(done)).await.ok().unwrap();
        ticked.await.unwrap();
    }

    /// Ends and lets go of the store.
    async fn stop(self) {
        self.end(Told::Stop).await;
    }

    /// Without a word to the disk.
    async fn kill(self) {
        self.end(Told::Kill).await;
    }

    async fn end(self, how: Told) {
        self.forwarding.abort();
        self.proposals.send(how).await.ok().unwrap();
        self.deciding.join().unwrap();
    }
}

fn accepted(verdict: &Verdict) -> u64 {
    assert_eq!(verdict.refused, None);
    verdict.number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_bundle_is_in_force_when_it_is_answered() {
    let mut home = Home::new();
    let running = home.start();
    assert!(!running.in_force.holds() && running.may_open() == 0);
    assert_eq!(running.handle.subscribe().borrow().epoch(), 0);
    let mut devices = running.handle.bound_devices();
    let verdict = running.offer(home.site.bytes(now_s())).await;
    assert_eq!(verdict, Verdict { number: 1, epoch: home.site.epoch, refused: None });
    assert!(running.in_force.holds() && running.fresh.holds() && running.may_open() == 1);
    let figures = &running.metrics.policy;
    assert_eq!(
        (running.metrics.policy_epoch.get().cast_unsigned(), figures.header_number.get()),
        (verdict.epoch, 1)
    );
    assert!(figures.age_seconds.get() <= 1);
    assert!(devices.has_changed().unwrap());
    let bound: Vec<_> =
        devices.borrow_and_update().iter().map(|b| (b.device.to_string(), b.station.unwrap())).collect();
    assert_eq!(bound[1].0, "monitor-1");
    assert_eq!((bound[1].1.mac, bound[1].1.index), (Mac([2, 0, 0, 0, 0, 1]), 0));
    // A younger block changes nothing for who watches the devices.
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert!(!devices.has_changed().unwrap());
    home.site.bind(0, false, 2);
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert!(devices.has_changed().unwrap() && devices.borrow_and_update().len() == 1);
    let trail = running.trail();
    assert!(matches!(trail[0], Event::EpochInForce { header: 1, origin: Origin::Controller, .. }));
    assert!(matches!(&trail[1], Event::GrantBegan(access) if access.label == "City hospital"));
    assert!(matches!(trail[2], Event::EpochInForce { header: 3, .. }));
    assert_eq!(trail.len(), 3, "{trail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_forgery_is_refused_by_name_and_leaves_the_policy_in_force() {
    let mut home = Home::new();
    home.site.emergency(&home.rescue, now_s(), now_s() + 3600, 1);
    let running = home.start();
    let older = home.site.bytes(now_s() - 10);
    let good = home.site.bytes(now_s());
    accepted(&running.offer(good.clone()).await);
    let before = running.policy();
    let stranger = Stranger { key: Signer::of(0x66), hpke_public_key: [0x66; 32] };
    let domain = running.handle.pins().domain;
    let forged = forgeries(&good, Some(&older), &domain, &stranger).unwrap();
    let mut kinds = BTreeSet::new();
    for one in &forged {
        let verdict = running.offer(one.bytes.clone()).await;
        assert_eq!(verdict.refused.as_deref(), Some(one.expected), "{}", one.name);
        kinds.insert(one.expected);
        assert!(Arc::ptr_eq(&running.policy(), &before), "{} changed the policy", one.name);
        assert_eq!(verdict.epoch, before.epoch());
    }
    assert!(kinds.len() >= 15, "{kinds:?}");
    for reason in &kinds {
        let count = forged.iter().filter(|one| one.expected == *reason).count() as u64;
        assert_eq!(running.metrics.policy_refused.with_label_values(&[reason]).get(), count, "{reason}");
        assert!(BundleRefusal::REASONS.contains(reason));
    }
    // Each reason once in a minute, however often it came.
    let noted: Vec<_> = running.trail().into_iter().filter(|e| matches!(e, Event::Refused { .. })).collect();
    assert_eq!(noted.len(), kinds.len());
    assert!(
        noted
            .iter()
            .all(|event| matches!(event, Event::Refused { times: 1, origin: Origin::Controller, .. }))
    );
    // The good one is as good as before.
    accepted(&running.offer(good).await);
    assert!(running.may_open() == 2 && running.in_force.holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_bundle_is_in_force_again_after_a_restart_without_anybody() {
    let mut home = Home::new();
    let older = home.site.bytes(now_s());
    let running = home.start();
    let number = accepted(&running.offer(home.site.bytes(now_s())).await);
    running.stop().await;
    let running = home.start();
    assert!(running.may_open() == 1 && running.in_force.holds() && running.fresh.holds());
    assert_eq!(running.policy().devices().len(), 2);
    assert_eq!(running.metrics.policy.header_number.get().cast_unsigned(), number);
    let verdict = running.offer(older).await;
    assert_eq!((verdict.refused.as_deref(), verdict.number), (Some("header_older"), number - 1));
    // What the ledger forgot is older than what was seen.
    let mut forgetful = home.site.clone();
    forgetful.epoch -= 1;
    forgetful.claims.epoch -= 1;
    let verdict = running.offer(forgetful.bytes(now_s())).await;
    assert_eq!(verdict.refused.as_deref(), Some("epoch_went_back"));
    // Nothing began with the restart that had begun before.
    let began = running.trail().iter().filter(|event| matches!(event, Event::GrantBegan(_))).count();
    assert_eq!(began, 1);
    running.stop().await;
    // Who is enrolled no more is nobody in what was kept, and the rest is as it was.
    home.site.enrolment.patients[0].relationships.remove(0);
    home.site.enrolment.patients[0].devices.remove(0);
    let running = home.start();
    assert!(running.may_open() == 0 && running.in_force.holds());
    assert_eq!(running.policy().devices().len(), 1);
    running.stop().await;
    // Another ledger's enrolment: it is not for these patients.
    home.site.enrolment.ledger.contract = Address([9; 20]);
    let running = home.start();
    assert!(running.may_open() == 0 && !running.in_force.holds());
    let last = running.trail().pop();
    assert!(
        matches!(last, Some(Event::Refused { reason, origin: Origin::Disk, .. }) if reason == "other_contract")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_handed_over_is_kept_and_waits_for_the_ledger() {
    let mut home = Home::new();
    let running = home.start();
    accepted(&running.offer(home.site.bytes(now_s())).await);
    // Blocks that change nothing are not written each; what is written beside must fit what is.
    for _ in 0..3 {
        accepted(&running.offer(home.site.bytes(now_s())).await);
    }
    let mut anchors = running.handle.anchors();
    let signed = home.site.signed_revocation(0, 1);
    accepted(&running.handle.offer_revocation(signed.clone(), Origin::Door).await);
    assert_eq!(running.may_open(), 0);
    let waiting = Arc::clone(&anchors.borrow_and_update());
    assert_eq!((waiting.len(), &waiting[0].revocation), (1, &signed));
    assert_eq!(waiting[0].other_key, Site::grant_key(0).address().0, "the revoke-only key signed");
    // Again, and one below it: nothing changes.
    accepted(&running.handle.offer_revocation(signed.clone(), Origin::Door).await);
    let trail = running.trail();
    let revoked: Vec<_> = trail.iter().filter(|event| matches!(event, Event::Revoked { .. })).collect();
    assert!(matches!(revoked[..], [Event::Revoked { version: 1, by: RevokedBy::Button, .. }]), "{trail:?}");
    assert!(matches!(trail.last(), Some(Event::GrantEnded { why: Ending::Revoked, .. })), "{trail:?}");
    for foreign in [home.site.signed_revocation(0, 0), {
        let mut other = home.site.signed_revocation(1, 5);
        other.revocation.relationship = Site::relationship(0);
        other
    }] {
        let verdict = running.handle.offer_revocation(foreign, Origin::Door).await;
        assert!(verdict.refused.is_some_and(|reason| reason.starts_with("revocation_")));
    }
    running.stop().await;

    let running = home.start();
    assert!(running.in_force.holds(), "the bundle on disk fits the floors on disk");
    assert_eq!((running.may_open(), running.handle.anchors().borrow().len()), (0, 1));
    assert_eq!(running.metrics.policy.anchors_waiting.get(), 1);
    // A controller that keeps it back, and one that leaves the consent out.
    accepted(&running.offer(home.site.bytes(now_s())).await);
    let consents = std::mem::take(&mut home.site.claims.consents);
    accepted(&running.offer(home.site.bytes(now_s())).await);
    home.site.claims.consents = consents;
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert_eq!((running.may_open(), running.handle.anchors().borrow().len()), (0, 1));
    home.site.revoke(0, 1);
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert_eq!(running.handle.anchors().borrow().len(), 0);
    assert!(
        running
            .trail()
            .iter()
            .any(|event| matches!(event, Event::Anchored { label, .. } if label == "City hospital"))
    );
    // What the ledger has shown is not sent to it again.
    accepted(&running.handle.offer_revocation(home.site.signed_revocation(0, 1), Origin::Door).await);
    assert_eq!(running.handle.anchors().borrow().len(), 0);
    running.stop().await;
    let running = home.start();
    assert_eq!((running.may_open(), running.handle.anchors().borrow().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_holds_also_where_no_policy_ever_was() {
    let mut home = Home::new();
    let running = home.start();
    accepted(&running.handle.offer_revocation(home.site.signed_revocation(0, 1), Origin::Door).await);
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert_eq!(running.may_open(), 0);
    home.site.grant(0, &home.city, 2, |_| ());
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert_eq!(running.may_open(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_is_written_to_when_something_changes_or_time_has_passed() {
    let mut home = Home::new();
    let start = now_s() - 300;
    let kept = |home: &Home| KeyStore::open(home.dir.path()).unwrap().policy().bundle().unwrap().unwrap();
    let clock = Arc::new(AtomicU64::new(start));
    let running = home.start_at(Arc::clone(&clock));
    let first = home.site.bytes(start);
    accepted(&running.offer(first.clone()).await);
    clock.store(start + 120, Ordering::SeqCst);
    accepted(&running.offer(home.site.bytes(start + 119)).await);
    running.stop().await;
    assert_eq!(kept(&home), first);
    let running = home.start_at(clock);
    // The floor on disk is that of the bundle on disk: a block between counts as new, for it says the same.
    accepted(&running.offer(home.site.bytes(start + 60)).await);
    let younger = home.site.bytes(start + 120);
    accepted(&running.offer(younger.clone()).await);
    running.stop().await;
    assert_eq!(kept(&home), younger, "a fifth of the age at which it is stale");
    let running = home.start();
    home.site.emergency(&home.rescue, start, start + 100, 1);
    let changed = home.site.bytes(start + 121);
    accepted(&running.offer(changed.clone()).await);
    running.stop().await;
    assert_eq!(kept(&home), changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_noted_as_it_passes() {
    let mut home = Home::new();
    let start = now_s();
    home.site.grant(0, &home.city, 2, |grant| grant.until = start + 1000);
    home.site.emergency(&home.rescue, start, start + 300, 7);
    let clock = Arc::new(AtomicU64::new(start));
    let running = home.start_at(Arc::clone(&clock));
    accepted(&running.offer(home.site.bytes(start)).await);
    assert_eq!(running.metrics.policy.emergencies.get(), 1);
    let seen = running.trail().len();
    let at = async |seconds: u64| {
        clock.store(start + seconds, Ordering::SeqCst);
        running.tick().await;
        running.trail().split_off(seen)
    };
    assert_eq!(at(299).await, []);
    let noted = at(300).await;
    assert!(matches!(&noted[..], [Event::EmergencyEnded(access)] if access.version == 7), "{noted:?}");
    assert!(at(600).await.len() == 1 && running.fresh.holds());
    let noted = at(601).await;
    assert!(matches!(noted[1], Event::StalenessEntered { as_of } if as_of == start) && noted.len() == 2);
    assert!(!running.fresh.holds() && running.in_force.holds());
    assert_eq!(running.metrics.policy.age_seconds.get(), 601);
    let noted = at(1000).await;
    assert!(matches!(noted[2], Event::GrantEnded { why: Ending::Expired, .. }), "{noted:?}");
    accepted(&running.offer(home.site.bytes(start + 1)).await);
    assert!(!running.fresh.holds(), "a younger block, and still too old");
    let texts: Vec<_> = PolicySide::trail(&running.handle).into_iter().map(|line| line.text).collect();
    assert!(texts[0].contains("City hospital may open no more: its time is over"), "{texts:?}");
    assert!(texts.iter().any(|text| text.starts_with("EMERGENCY: ")));
    running.stop().await;
    // A gateway that was off when something ended notes it when it is on.
    let later = Arc::new(AtomicU64::new(start));
    let mut other = Home::new();
    other.site.grant(0, &other.city, 2, |grant| grant.until = start + 50);
    let running = other.start_at(Arc::clone(&later));
    accepted(&running.offer(other.site.bytes(start)).await);
    running.stop().await;
    later.store(start + 60, Ordering::SeqCst);
    let running = other.start_at(later);
    assert!(matches!(running.trail().pop(), Some(Event::GrantEnded { why: Ending::Expired, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_was_overtaken_while_it_was_verified_is_refused() {
    let mut home = Home::new();
    let running = home.start();
    let (slow, fast) = (home.site.bytes(now_s()), home.site.bytes(now_s()));
    let floors = caregate_protocol::policy::Floors::default();
    let bundle = verify_bundle(&slow, &running.handle.pins(), &floors, now_s()).unwrap();
    accepted(&running.offer(fast).await);
    let change = Change::Bundle { bundle: Box::new(bundle), bytes: slow, origin: Origin::Door };
    let (proposal, decided) = Proposal::new(change);
    running.proposals.send(Told::Proposal(proposal)).await.ok().unwrap();
    assert_eq!(decided.await.unwrap().unwrap_err().reason(), "header_older");
}

/// A ledger that is heard of no more: its last header is an hour old.
async fn stale() -> (Home, Running) {
    let mut home = Home::new();
    home.site.revoke(0, 1);
    let running = home.start();
    accepted(&running.offer(home.site.bytes(now_s() - 3600)).await);
    running.tick().await;
    assert!(!running.fresh.holds() && running.may_open() == 0);
    (home, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_handed_over_under_a_stale_policy_opens_and_waits_for_the_ledger() {
    let (mut home, running) = stale().await;
    let rescue = home.rescue.clone();
    // On the ledger, which nobody can be shown, it would be nothing: it began after the policy had become stale.
    let signed = home.site.signed_emergency(&rescue, now_s() - 1, now_s() + 3600, 1);
    accepted(&running.handle.offer_emergency(signed.clone(), Origin::Door).await);
    assert_eq!(running.may_open(), 1);
    assert!(matches!(running.trail().last(), Some(Event::EmergencyBegan(_))), "{:?}", running.trail());
    let mut waiting = running.handle.emergencies();
    assert_eq!(*waiting.borrow_and_update().as_slice(), *std::slice::from_ref(&signed));
    // Again, as a sender does that got no answer.
    accepted(&running.handle.offer_emergency(signed.clone(), Origin::Door).await);
    let refused = async |signed| running.handle.offer_emergency(signed, Origin::Door).await.refused.unwrap();
    let city = home.city.clone();
    let mut number = home.site.signed_emergency(&rescue, now_s(), now_s() + 60, 1);
    assert_eq!(refused(number.clone()).await, "emergency_number");
    number.emergency.number = 2;
    assert_eq!(refused(number).await, "emergency_signature");
    let stranger = home.site.signed_emergency(&city, now_s(), now_s() + 60, 1);
    assert_eq!(refused(stranger).await, "emergency_stranger");
    let long = home.site.signed_emergency(&rescue, now_s(), now_s() + 4 * 3600 + 1, 2);
    assert_eq!(refused(long).await, "emergency_too_long");
    let over = home.site.signed_emergency(&rescue, now_s() - 60, now_s() - 1, 2);
    assert_eq!(refused(over).await, "emergency_not_now");
    let before = running.metrics.policy_refused.with_label_values(&["emergency_stranger"]).get();
    assert_eq!((before, waiting.has_changed().unwrap()), (1, false));
    running.stop().await;

    // It is still in force after a restart, and under a bundle that does not have it.
    let running = home.start();
    assert_eq!((running.may_open(), running.handle.emergencies().borrow().len()), (1, 1));
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert_eq!((running.may_open(), running.handle.emergencies().borrow().len()), (1, 1));
    // The ledger shows it: nothing waits any more, and it goes on as any other.
    home.site.put_emergency(signed);
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert_eq!((running.may_open(), running.handle.emergencies().borrow().len()), (1, 0));
    running.stop().await;
    let running = home.start();
    assert_eq!((running.may_open(), running.handle.emergencies().borrow().len()), (1, 0));
    let began = running.trail().iter().filter(|event| matches!(event, Event::EmergencyBegan(_))).count();
    assert_eq!(began, 1);
    // A domain that the governors suspend has nothing by it.
    home.site.register(&rescue, RecipientStatus::Suspended, RecipientKind::Treating, true);
    home.site.claims.emergencies.clear();
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert_eq!(running.may_open(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_by_keys_that_followed_counts_once_a_bundle_has_shown_them() {
    let mut home = Home::new();
    let running = home.start();
    accepted(&running.offer(home.site.bytes(now_s())).await);
    let [grant, revoke] = [Signer::of(0x80), Signer::of(0x90)];
    let by = |key: &Signer, site: &Site| {
        let mut signed = site.signed_revocation(0, 1);
        let domain = site.enrolment.pins().unwrap().domain;
        signed.signature = key.sign(&revocation_digest(&signed.revocation, &domain));
        signed
    };
    let early = running.handle.offer_revocation(by(&revoke, &home.site), Origin::Door).await;
    assert_eq!(early.refused.as_deref(), Some("revocation_signature"));
    home.site.rotate(0, 1, [&grant, &revoke], &Site::grant_key(0));
    accepted(&running.offer(home.site.bytes(now_s())).await);
    assert_eq!(running.may_open(), 1);
    accepted(&running.handle.offer_revocation(by(&revoke, &home.site), Origin::Door).await);
    assert_eq!(running.may_open(), 0);
    running.stop().await;
    // It is not forgotten, nor whose key it was.
    let running = home.start();
    let waiting = Arc::clone(&running.handle.anchors().borrow());
    assert_eq!((running.may_open(), waiting.len()), (0, 1));
    assert_eq!(waiting[0].other_key, grant.address().0, "the new revoke-only key signed");
}
