//! What was handed to a gateway itself gets onto the real chain: a real gateway's policy side, the controller, a node.

use std::net::Ipv4Addr;
use std::sync::Arc;

use caregate_host::clock;
use caregate_host::identity::{Identity, Role};
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::policy::{
    Commitment, Emergency, Grant, Pseudonym, Revocation, SignedGrant, SignedRevocation, VerifiedPolicy,
};
use edge_gateway::keys::KeyStore;
use edge_gateway::policy::trail::Origin;
use edge_gateway::policy::{ControllerLink, Decider, Now, PolicyHandle, Proposal};
use ledger_chain::RelayKey;
use ledger_client::fixture::Signer;
use ledger_client::verify::{
    EnrolledPatient, EnrolledRelationship, Enrolment, LedgerPin, NextKeys, Pins, grant_digest,
    revocation_digest, slots,
};
use ledger_client::wallet::DomainKey;
use sdn_controller::policy::Followed;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::chain::{CHAIN_ID, Node, register};
use super::{Delivering, until};
use crate::support::Pki;

const PATIENT: PatientId = PatientId([0xe5; 16]);
const PSEUDONYM: Pseudonym = Pseudonym([0xe1; 32]);

fn now_s() -> u64 {
    u64::try_from(clock::now_ms() / 1000).unwrap()
}

fn now() -> Now {
    Now { unix_s: now_s(), at: clock::monotonic() }
}

/// First keys of the one relationship, and those after them.
fn keys() -> [[Signer; 2]; 2] {
    [[0x10, 0x20], [0x11, 0x21]].map(|pair| pair.map(Signer::of))
}

struct Gateway {
    policy: PolicyHandle,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gateway {
    fn start(pins: Arc<Pins>, identity: Arc<Identity>, port: u16) -> Self {
        let metrics = edge_gateway::metrics::Metrics::register(&prometheus::Registry::new()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyStore::open(dir.path()).unwrap();
        let mut decider = Decider::open(&keys, Some(Arc::clone(&pins)), metrics.clone(), now()).unwrap();
        let (proposals, mut proposed) = mpsc::channel::<Proposal>(1);
        let policy = PolicyHandle::new(pins, &decider, proposals, metrics);
        std::thread::spawn(move || {
            while let Some(proposal) = proposed.blocking_recv() {
                proposal.decide(&mut decider, now(), |_, _| ());
            }
        });
        let stop = CancellationToken::new();
        let controller = (Ipv4Addr::LOCALHOST, port).into();
        let link = ControllerLink { controller, name: None, identity, policy: policy.clone() };
        tokio::spawn(link.run(stop.clone()));
        Self { policy, stop, _dir: dir }
    }

    fn current(&self) -> Arc<VerifiedPolicy> {
        Arc::clone(&self.policy.subscribe().borrow())
    }

    fn may_open(&self) -> usize {
        self.current().recipients(&PATIENT, DataClass::Vitals, now_s()).count()
    }
}

fn pins(ledger: LedgerPin) -> Arc<Pins> {
    let [[grant, revoke], _] = keys();
    let relationship = EnrolledRelationship {
        label: "City hospital".into(),
        grant_key: grant.address(),
        revoke_key: revoke.address(),
    };
    let patient = EnrolledPatient {
        patient: PATIENT,
        home_key: Signer::of(0x30).address(),
        pseudonym: Some(PSEUDONYM),
        relationships: vec![relationship],
        devices: Vec::new(),
    };
    Arc::new(Enrolment { ledger, patients: vec![patient] }.pins().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_and_a_revocation_by_a_rotated_key_that_a_gateway_took_get_onto_the_chain() {
    let node = Node::start();
    let (chain, sealer, config) = node.chain().await;
    let (city, rescue) = (DomainKey::generate(), DomainKey::generate());
    register(&node, &chain, &city, false).await;
    register(&node, &chain, &rescue, true).await;
    let pins = pins(LedgerPin {
        chain_id: CHAIN_ID,
        contract: chain.domain().verifying_contract,
        validators: vec![sealer.parse().unwrap()],
        staleness_max_s: 600,
    });
    let (pki, relay) = (Pki::new(), RelayKey::random());
    let [[first_grant, first_revoke], [grant_key, revoke_key]] = keys();
    let relationship = slots::relationship(&first_grant.address(), &first_revoke.address());
    let grant = Grant {
        relationship,
        grantee: city.id(),
        classes: 31,
        purposes: 1,
        from: now_s() - 10,
        until: now_s() + 86_400,
        stale_bound_s: 600,
        version: 1,
    };
    let signature = first_grant.sign(&grant_digest(&grant, &chain.domain()));
    chain.grant(&SignedGrant { grant, signature }, &first_revoke.address(), &relay).await.unwrap();
    let next = NextKeys {
        relationship,
        grant_key: grant_key.address(),
        revoke_key: revoke_key.address(),
        version: 1,
    };
    let signature = first_grant.sign(&next.rotation_digest(&chain.domain()));
    chain.rotate_keys(&next, &first_revoke.address(), &signature, &relay).await.unwrap();

    let delivering = Delivering::start(&pki, |stop| Followed::start(config, stop).unwrap());
    let identity = Identity::load(&pki.issue(Role::Gateway, "home-1")).unwrap();
    let gateway = Gateway::start(pins, identity, delivering.port);
    until("the grant to be in force", || gateway.may_open() == 1).await;

    // The gateway knows who may break the glass before anybody has.
    let emergency = Emergency {
        pseudonym: PSEUDONYM,
        domain: rescue.id(),
        clinician: Commitment([1; 32]),
        reason: Commitment([2; 32]),
        from: now_s(),
        until: now_s() + 600,
        number: now_s(),
    };
    let signed = rescue.sign_emergency(&emergency, &chain.domain());
    let verdict = gateway.policy.offer_emergency(signed, Origin::Door).await;
    assert_eq!((verdict.refused, gateway.may_open()), (None, 2));
    until("the ledger to show it", || gateway.policy.emergencies().borrow().is_empty()).await;
    assert_eq!(chain.emergency_number(&PSEUDONYM, &rescue.id()).await.unwrap(), emergency.number);
    assert!(gateway.current().emergencies().iter().all(|access| !access.is_direct));
    assert_eq!(gateway.may_open(), 2);

    let revocation = Revocation { relationship, version: 1 };
    let signature = revoke_key.sign(&revocation_digest(&revocation, &chain.domain()));
    let signed = SignedRevocation { revocation, signature };
    let verdict = gateway.policy.offer_revocation(signed, Origin::Door).await;
    assert_eq!((verdict.refused, gateway.may_open()), (None, 1));
    until("the ledger to show it", || gateway.policy.anchors().borrow().is_empty()).await;
    assert_eq!(chain.consent(&relationship).await.unwrap().revoked, 1);
    delivering.stop().await;
}
