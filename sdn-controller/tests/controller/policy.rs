//! Policy delivery over real QUIC, with a ledger in memory that seals and proves, and gateways that verify what they get.

mod chain;
mod direct;
mod gateway;
mod ledger;

use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_host::identity::{Identity, Role};
use caregate_protocol::policy::delivery::{Anchor, Frame};
use caregate_protocol::policy::{RecipientKind, RecipientStatus, RelationshipId};
use ledger_chain::RevokedGateways;
use ledger_client::fixture::{Hospital, Site};
use sdn_controller::events::Events;
use sdn_controller::metrics::Metrics;
use sdn_controller::policy::{self, Ledger, Policy, RelayError, Waiting};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::Pki;
use gateway::Gateway;
use ledger::MemoryLedger;

/// A controller's policy part alone, on a port of loopback.
struct Delivering {
    policy: Policy,
    metrics: Metrics,
    events: Events,
    port: u16,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Delivering {
    fn start<L: Ledger + 'static>(pki: &Pki, ledger: impl FnOnce(&CancellationToken) -> Arc<L>) -> Self {
        Self::start_in(&tempfile::tempdir().unwrap(), pki, ledger)
    }

    /// With what waits in `data`.
    fn start_in<L: Ledger + 'static>(
        data: &tempfile::TempDir,
        pki: &Pki,
        ledger: impl FnOnce(&CancellationToken) -> Arc<L>,
    ) -> Self {
        let identity = Identity::load(&pki.issue(Role::Controller, "controller-1")).unwrap();
        let (metrics, events, stop) = (
            Metrics::register(&prometheus::Registry::new()).unwrap(),
            Events::default(),
            CancellationToken::new(),
        );
        let waiting = Waiting::open(data.path()).unwrap();
        let policy = Policy::start(ledger(&stop), waiting, metrics.clone(), events.clone(), &stop);
        let endpoint = policy::bind("127.0.0.1:0", &identity).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        let serving =
            tokio::spawn(policy::serve(endpoint, policy.clone(), RevokedGateways::none(), stop.clone()));
        Self { policy, metrics, events, port, stop, serving }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

/// The same with a ledger in memory.
struct Delivery {
    pki: Pki,
    ledger: Arc<MemoryLedger>,
    delivering: Delivering,
}

impl std::ops::Deref for Delivery {
    type Target = Delivering;

    fn deref(&self) -> &Delivering {
        &self.delivering
    }
}

fn hospital() -> Hospital {
    Hospital::new(0x51, [9; 32])
}

impl Delivery {
    fn start() -> Self {
        let mut site = Site::new(4);
        site.register(&hospital(), RecipientStatus::Active, RecipientKind::Treating, false);
        site.grant(0, &hospital(), 1, |_| {});
        let (pki, ledger) = (Pki::new(), MemoryLedger::new(site));
        let delivering = Delivering::start(&pki, |_| Arc::clone(&ledger));
        Self { pki, ledger, delivering }
    }

    async fn gateway(&self, name: &str) -> Gateway {
        let identity = Identity::load(&self.pki.issue(Role::Gateway, name)).unwrap();
        let enrolment = self.ledger.enrolment();
        Gateway::connect(&identity, self.port, enrolment.pins().unwrap()).await.unwrap()
    }

    fn shown(&self, name: &str) -> Value {
        let shown = self.policy.shown();
        let gateways = shown["gateways"].as_array().unwrap();
        gateways.iter().find(|gateway| gateway["name"] == name).cloned().unwrap_or_default()
    }

    fn anchor(&self, version: u64) -> Anchor {
        let revocation = self.ledger.signed_revocation(version);
        Anchor { revocation, other_key: Site::grant_key(0).address().0 }
    }

    async fn stop(self) {
        self.delivering.stop().await;
    }
}

/// Looks until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gets_a_bundle_at_once_and_the_next_with_the_next_change() {
    let delivery = Delivery::start();
    let mut gateway = delivery.gateway("home-1").await;
    let first = gateway.verified_bundle().await.unwrap();
    assert_eq!(first.claims.epoch, 2);
    until("the verdict", || delivery.shown("home-1")["verdict"]["epoch"] == 2).await;
    let shown = delivery.shown("home-1");
    assert_eq!(shown["connected"], true);
    assert_eq!(shown["watches"], json!({ "relationships": 3, "bindings": 2, "pseudonyms": 1 }));
    assert_eq!(shown["verdict"]["refused"], Value::Null);
    assert!(shown["policy_age_ms"].as_i64().unwrap() < 60_000);
    assert_eq!(delivery.policy.last_bundle("home-1").unwrap().as_ref(), gateway.last_bytes());

    // A block without a change does not hurry anybody; one with a change does.
    let begun = clock::monotonic();
    delivery.ledger.block(|_| {});
    delivery.ledger.block(|site| site.grant(1, &hospital(), 1, |_| {}));
    let second = gateway.verified_bundle().await.unwrap();
    assert_eq!((second.claims.epoch, second.claims.consents.len()), (3, 2));
    assert!(begun.elapsed() < Duration::from_secs(4), "at once, whatever its moment is");

    // What it refuses is shown in its own word.
    delivery.ledger.block(|site| {
        site.claims.consents[0].grant.until -= 1;
        site.raise_epoch();
    });
    assert_eq!(gateway.verified_bundle().await.unwrap_err().reason(), "slot_mismatch");
    until("the refusal", || delivery.shown("home-1")["verdict"]["refused"] == "slot_mismatch").await;
    assert_eq!(delivery.metrics.verdicts.with_label_values(&["slot_mismatch"]).get(), 1);
    let last = delivery.events.after(0).pop().unwrap();
    assert_eq!(last.detail, "refuses: slot_mismatch");

    drop(gateway);
    until("it to be gone", || delivery.shown("home-1")["connected"] == false).await;
    assert!(delivery.policy.last_bundle("home-1").is_some(), "it is still there to be looked at");
    delivery.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_that_a_gateway_took_gets_onto_the_ledger() {
    let delivery = Delivery::start();
    let mut gateway = delivery.gateway("home-1").await;
    assert!(gateway.verified_bundle().await.unwrap().claims.emergencies.is_empty());
    let now_s = u64::try_from(clock::now_ms() / 1000).unwrap();
    let signed = delivery.ledger.signed_emergency(&hospital(), now_s, now_s + 3600);
    let mut forged = signed.clone();
    forged.emergency.until += 1;
    gateway.send(&Frame::Emergency(forged)).await;
    gateway.send(&Frame::Emergency(signed.clone())).await;
    let bundle = loop {
        match gateway.verified_bundle().await {
            Ok(bundle) if bundle.claims.emergencies.is_empty() => {}
            other => break other,
        }
    };
    // The memory's hospital may not break the glass, which its contract would have said; the gateway does.
    assert_eq!(bundle.unwrap_err().reason(), "emergency_stranger");
    let outcomes = |outcome: &str| delivery.metrics.emergencies.with_label_values(&[outcome]).get();
    until("it to be counted", || (outcomes("anchored"), outcomes("signature")) == (1, 1)).await;
    delivery.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_the_watching_gateways_at_once_and_the_ledger() {
    let delivery = Delivery::start();
    let (mut one, mut two) = (delivery.gateway("home-1").await, delivery.gateway("home-2").await);
    one.verified_bundle().await.unwrap();
    two.verified_bundle().await.unwrap();
    // The ledger hangs: what is handed down does not wait for it.
    delivery.ledger.hang(true);
    let anchor = delivery.anchor(1);
    assert_eq!(delivery.policy.relay(anchor.clone()).await, Ok(2));
    for gateway in [&mut one, &mut two] {
        assert_eq!(gateway.next().await, Some(Frame::Revocation(anchor.revocation.clone())));
    }
    delivery.ledger.hang(false);
    for gateway in [&mut one, &mut two] {
        let verified = gateway.verified_bundle().await.unwrap();
        assert_eq!(verified.revoked[&Site::relationship(0)], 1);
    }
    until("it to be counted", || delivery.metrics.revocations.with_label_values(&["anchored"]).get() == 1)
        .await;
    // The same again is not sent again while its bundle is on its way.
    delivery.policy.relay(anchor).await.unwrap();
    assert_eq!(delivery.ledger.revocations(), 1);
    delivery.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_was_taken_outlives_the_controller() {
    let delivery = Delivery::start();
    let data = tempfile::tempdir().unwrap();
    delivery.ledger.down(true);
    let first = Delivering::start_in(&data, &delivery.pki, |_| Arc::clone(&delivery.ledger));
    let anchor = delivery.anchor(1);
    assert_eq!(first.policy.relay(anchor.clone()).await, Ok(0), "no gateway is there to be told");
    first.stop().await;

    let second = loop {
        // The first one's tasks end in their own time, and the file is theirs until then.
        match Waiting::open(data.path()) {
            Ok(free) => {
                drop(free);
                break Delivering::start_in(&data, &delivery.pki, |_| Arc::clone(&delivery.ledger));
            }
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let identity = Identity::load(&delivery.pki.issue(Role::Gateway, "home-1")).unwrap();
    let pins = delivery.ledger.enrolment().pins().unwrap();
    let mut gateway = Gateway::connect(&identity, second.port, pins).await.unwrap();
    assert_eq!(gateway.next().await, Some(Frame::Revocation(anchor.revocation)), "without the ledger");
    assert_eq!(delivery.ledger.revocations(), 0);
    delivery.ledger.down(false);
    until("it to be on the ledger", || delivery.ledger.revocations() == 1).await;
    second.stop().await;
    delivery.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_goes_up_is_tried_until_the_ledger_takes_it_and_down_to_the_others() {
    let delivery = Delivery::start();
    let (mut one, mut two) = (delivery.gateway("home-1").await, delivery.gateway("home-2").await);
    one.verified_bundle().await.unwrap();
    two.verified_bundle().await.unwrap();
    delivery.ledger.down(true);
    let anchor = delivery.anchor(1);
    one.send(&Frame::Anchor(anchor.clone())).await;
    assert_eq!(two.next().await, Some(Frame::Revocation(anchor.revocation.clone())));
    until("the first attempt to fail", || {
        delivery.metrics.revocations.with_label_values(&["unreachable"]).get() >= 1
    })
    .await;
    delivery.ledger.down(false);
    let verified = one.verified_bundle().await.unwrap();
    assert_eq!(verified.revoked[&Site::relationship(0)], 1, "and `one` was not sent its own back");
    delivery.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_key_of_the_relationship_signed_goes_nowhere() {
    let delivery = Delivery::start();
    let mut gateway = delivery.gateway("home-1").await;
    gateway.verified_bundle().await.unwrap();
    let good = delivery.anchor(1);
    let mut other_version = good.clone();
    other_version.revocation.revocation.version = 2;
    let mut other_relationship = good.clone();
    other_relationship.revocation.revocation.relationship = RelationshipId([7; 32]);
    let other_key = Anchor { other_key: [1; 20], ..good.clone() };
    let mut no_signature = good.clone();
    no_signature.revocation.signature.0[64] = 9;
    for forged in [other_version, other_relationship, other_key, no_signature] {
        assert_eq!(delivery.policy.relay(forged.clone()).await, Err(RelayError::Signature));
        gateway.send(&Frame::Anchor(forged)).await;
    }
    gateway.send(&Frame::Anchor(good)).await;
    until("the good one to be there", || delivery.ledger.revocations() == 1).await;
    assert_eq!(delivery.metrics.revocations.with_label_values(&["signature"]).get(), 8);
    delivery.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_gateways_are_closed_and_counted_while_others_go_on() {
    let delivery = Delivery::start();
    let mut good = delivery.gateway("home-1").await;
    good.verified_bundle().await.unwrap();
    // Another role, another deployment.
    let pins = || delivery.ledger.enrolment().pins().unwrap();
    for (pki, role) in
        [(&delivery.pki, Role::Sensor), (&delivery.pki, Role::Operator), (&Pki::new(), Role::Gateway)]
    {
        let identity = Identity::load(&pki.issue(role, "stranger")).unwrap();
        if let Some(stranger) = Gateway::connect(&identity, delivery.port, pins()).await {
            stranger.closed().await;
        }
    }
    let refused = |reason: &str| delivery.metrics.policy_refused.with_label_values(&[reason]).get();
    until("three handshakes to be refused", || refused("handshake") == 3).await;

    let verdict =
        Frame::Verdict(caregate_protocol::policy::delivery::Verdict { number: 1, epoch: 1, refused: None });
    let bundle = Frame::Bundle(vec![1, 2, 3]);
    let no_frame = [0, 0, 0, 2, 0xff, 0xff];
    let too_long = [0, 0x10, 0, 0];
    for (bytes, reason, times) in [
        (verdict.encode(), "unexpected", 1),
        (bundle.encode(), "unexpected", 2),
        (no_frame.to_vec(), "malformed", 1),
        (too_long.to_vec(), "length", 1),
    ] {
        let identity = Identity::load(&delivery.pki.issue(Role::Gateway, "hostile")).unwrap();
        Gateway::connect_saying(&identity, delivery.port, pins(), &bytes).await.unwrap().closed().await;
        until(reason, || refused(reason) == times).await;
    }
    // The same after a good beginning.
    let mut turned = delivery.gateway("turned").await;
    turned.verified_bundle().await.unwrap();
    turned.send(&Frame::Bundle(vec![0; 10])).await;
    turned.closed().await;
    until("it to be refused", || refused("unexpected") == 3).await;
    assert_eq!(delivery.shown("turned")["connected"], false);

    delivery.ledger.block(|site| site.grant(1, &hospital(), 1, |_| {}));
    good.verified_bundle().await.unwrap();
    delivery.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_away_is_said_and_its_return_serves_who_waits() {
    let delivery = Delivery::start();
    delivery.ledger.down(true);
    let mut gateway = delivery.gateway("home-1").await;
    until("a bundle that could not be made", || {
        delivery.metrics.bundles.with_label_values(&["unreachable"]).get() >= 2
    })
    .await;
    assert_eq!(delivery.policy.shown()["ledger"]["state"], "down");
    assert_eq!(delivery.policy.shown()["ledger"]["sealers"], 4);
    assert_eq!(delivery.shown("home-1")["bundle"], Value::Null);
    delivery.ledger.down(false);
    gateway.verified_bundle().await.unwrap();
    until("it to be said", || delivery.policy.shown()["ledger"]["state"] == "following").await;
    let kinds: Vec<_> = delivery.events.after(0).into_iter().map(|event| event.detail).collect();
    assert!(kinds.iter().any(|detail| detail.contains("away")), "{kinds:?}");
    // A ledger that never answers holds up nobody's end.
    delivery.ledger.hang(true);
    delivery.ledger.block(|site| site.raise_epoch());
    drop(gateway);
    until("it to be gone", || delivery.shown("home-1")["connected"] == false).await;
    delivery.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_connection_of_a_gateway_ends_the_older() {
    let delivery = Delivery::start();
    let mut old = delivery.gateway("home-1").await;
    old.verified_bundle().await.unwrap();
    let mut new = delivery.gateway("home-1").await;
    old.closed().await;
    new.verified_bundle().await.unwrap();
    assert_eq!(
        (delivery.shown("home-1")["connected"].clone(), delivery.metrics.gateways.get()),
        (true.into(), 1)
    );
    delivery.stop().await;
}
