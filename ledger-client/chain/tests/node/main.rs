//! The chain's client against the real node, and what comes of it before the gateway's verifier.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, too")]

mod anvil;
mod support;

use caregate_protocol::id::DataClass;
use caregate_protocol::policy::{
    Commitment, Emergency, Floors, RecipientKind, RecipientStatus, SignedRevocation, VerifiedPolicy,
};
use ledger_chain::{
    Chain, ChainConfig, ChainError, Custodians, Event, RelayKey, SendError, SignedCustody, Status,
};
use ledger_client::fixture::{Signer, Stranger, forgeries};
use ledger_client::verify::{Address, NextKeys, ParticipantChange, Pins, verify_bundle};
use ledger_client::wallet::{DomainKey, PatientKey};

use support::{CHAIN_ID, Cast, Following, GATEWAY, LABEL, Node, until};

/// The policy that a gateway with these pins makes of the follower's bundle, and the bundle's bytes.
async fn policy(following: &Following, pins: &Pins) -> (VerifiedPolicy, Vec<u8>, u64) {
    let bundle = following.follower.bundle(&pins.watch()).await.unwrap();
    let bytes = bundle.encode();
    let now = following.follower.heads().borrow().unwrap().time_s;
    let verified = verify_bundle(&bytes, pins, &Floors::default(), now).unwrap();
    let (policy, _floors) = verified.admit(&Floors::default()).unwrap();
    (policy, bytes, now)
}

fn refusal(error: SendError) -> String {
    let SendError::Refused(refusal) = error else { panic!("{error}") };
    refusal.name
}

#[tokio::test]
async fn what_a_patient_says_reaches_the_gateways_verifier() {
    let node = Node::start();
    let chain = node.chain().await;
    let following = Following::start(chain.clone());
    let mut cast = Cast::new(&node, &chain).await;
    let pins = cast.pins();
    let patient = cast.wallet.home(GATEWAY).unwrap().patient;
    let open = |policy: &VerifiedPolicy, now| {
        policy.recipients(&patient, DataClass::Vitals, now).collect::<Vec<_>>()
    };

    following.at(chain.head().await.unwrap().number).await;
    let (nothing, _, now) = policy(&following, &pins).await;
    assert!(
        open(&nothing, now).is_empty() && nothing.devices().len() == 0,
        "what is absent is proven absent"
    );

    cast.bind(&chain, true).await;
    let granted = cast.grant(&chain).await;
    following.at(granted).await;
    assert_eq!(following.follower.last_change(&cast.watch()), granted);
    let (granting, good, now) = policy(&following, &pins).await;
    assert_eq!(open(&granting, now).iter().map(|found| found.id).collect::<Vec<_>>(), [cast.hospital.id()]);
    assert_eq!(granting.patient_of(&cast.device), Some(patient));
    assert_eq!(granting.epoch(), chain.epoch().await.unwrap());

    let revoked = cast.revoke(&chain).await;
    following.at(revoked).await;
    let (ended, ..) = policy(&following, &pins).await;
    assert!(open(&ended, now).is_empty());

    following.at(cast.bind(&chain, false).await).await;
    following.at(cast.grant(&chain).await).await;
    let (again, newest, now) = policy(&following, &pins).await;
    assert_eq!((open(&again, now).len(), again.patient_of(&cast.device)), (1, None));

    let stranger = Stranger { key: Signer::of(0x66), hpke_public_key: [0x66; 32] };
    let floors =
        verify_bundle(&newest, &pins, &Floors::default(), now).unwrap().admit(&Floors::default()).unwrap().1;
    let forged = forgeries(&newest, Some(&good), &chain.domain(), &stranger).unwrap();
    assert!(forged.len() >= 20, "{}", forged.len());
    for forgery in forged {
        let refused =
            verify_bundle(&forgery.bytes, &pins, &floors, now).err().map(|refusal| refusal.reason());
        assert_eq!(refused, Some(forgery.expected), "{}", forgery.name);
    }
}

#[tokio::test]
async fn an_emergency_is_in_the_bundle_while_it_lasts() {
    let node = Node::start();
    let chain = node.chain().await;
    let following = Following::start(chain.clone());
    let cast = Cast::new(&node, &chain).await;
    let (pins, clinic) = (cast.pins(), DomainKey::generate());
    let head = chain.head().await.unwrap();
    let pseudonym = cast.wallet.seed.pseudonym(0);
    let emergency = Emergency {
        pseudonym,
        domain: clinic.id(),
        clinician: Commitment([1; 32]),
        reason: Commitment([2; 32]),
        from: head.time_s,
        until: head.time_s + 3600,
        number: 1,
    };
    let signed = clinic.sign_emergency(&emergency, &chain.domain());
    let stranger = chain.open_emergency(&signed, &cast.relay).await.unwrap_err();
    assert_eq!(refusal(stranger), "NotEmergencyParticipant");
    cast.register(&node, &chain, &clinic, RecipientKind::Treating, true).await;
    following.at(chain.open_emergency(&signed, &cast.relay).await.unwrap().block).await;
    assert_eq!(chain.emergency_number(&pseudonym, &clinic.id()).await.unwrap(), 1);
    let bundle = following.follower.bundle(&pins.watch()).await.unwrap();
    assert_eq!(bundle.claims.emergencies, std::slice::from_ref(&signed));
    verify_bundle(&bundle.encode(), &pins, &Floors::default(), head.time_s).unwrap();

    // A domain that was suspended opens nothing, and its emergency would spoil the bundle.
    let as_before = (RecipientKind::Treating, true);
    let suspended = cast.govern(&node, &chain, &clinic, Some(RecipientStatus::Suspended), as_before).await;
    following.at(suspended).await;
    let bundle = following.follower.bundle(&pins.watch()).await.unwrap();
    assert!(bundle.claims.emergencies.is_empty());
    verify_bundle(&bundle.encode(), &pins, &Floors::default(), head.time_s).unwrap();
    let found = following
        .follower
        .with_index(|index| index.emergencies_by(&clinic.id()).cloned().collect::<Vec<_>>());
    assert_eq!(found, [signed]);
}

#[tokio::test]
async fn the_contracts_refusals_have_names() {
    let node = Node::start();
    let chain = node.chain().await;
    let mut cast = Cast::new(&node, &chain).await;
    let version = chain.participant_version(&cast.hospital.id()).await.unwrap() + 1;
    let change = ParticipantChange {
        participant: cast.hospital.id(),
        status: Some(RecipientStatus::Active),
        kind: RecipientKind::Other,
        emergency: true,
        version,
    };
    let approval = cast.hospital.approve_participant(&change, &chain.domain());
    let stranger = chain.approve_participant(&change, &approval, &cast.relay).await;
    assert_eq!(refusal(stranger.unwrap_err()), "NotGovernor");

    cast.grant(&chain).await;
    let revoke_key = cast.wallet.keys(LABEL).unwrap().revoke.address();
    let revocation = cast.wallet.sign_revocation(LABEL).unwrap();
    let mut changed: SignedRevocation = revocation.clone();
    changed.revocation.version = 9;
    assert_eq!(chain.revoke(&changed, &revoke_key, &cast.relay).await, Err(SendError::Signer));
    assert_eq!(chain.revoke(&revocation, &Address([9; 20]), &cast.relay).await, Err(SendError::Signer));
    chain.revoke(&revocation, &revoke_key, &cast.relay).await.unwrap();
    // Whoever relays it a second time changes nothing, and is not refused.
    chain.revoke(&revocation, &revoke_key, &cast.relay).await.unwrap();

    // The revoke-only key signs, and the grant key's address goes along.
    let keys = cast.wallet.keys(LABEL).unwrap();
    let next = caregate_protocol::policy::Revocation { version: 2, ..revocation.revocation.clone() };
    let by_button = keys.revoke.sign_revocation(&next, &chain.domain());
    chain.revoke(&by_button, &keys.grant.address(), &cast.relay).await.unwrap();
    let state = chain.consent(&keys.relationship()).await.unwrap();
    assert_eq!((state.version, state.revoked, state.grantee), (1, 2, cast.hospital.id()));

    // A version that was used, or revoked, is not taken again.
    let terms = ledger_client::wallet::Terms { classes: 1, purposes: 1, from: 1, until: 9, stale_bound_s: 0 };
    let mut twin = Cast { wallet: cast.wallet, ..cast };
    let signed = twin.wallet.sign_grant(LABEL, &terms).unwrap();
    assert_eq!(signed.grant.version, 2);
    let refused = chain.grant(&signed, &revoke_key, &twin.relay).await.unwrap_err();
    assert!(refused.to_string().contains("VersionRevoked { version: 2, revoked: 2 }"), "{refused}");
}

#[tokio::test]
async fn a_node_that_dies_is_followed_again_and_one_that_forgot_is_read_anew() {
    let mut node = Node::start();
    let chain = node.chain().await;
    let following = Following::start(chain.clone());
    let mut cast = Cast::new(&node, &chain).await;
    following.at(cast.grant(&chain).await).await;
    let mut status = following.follower.status();
    node.kill();
    let down = status.wait_for(|status| matches!(status, Status::Down(ChainError::Unreachable(_))));
    tokio::time::timeout(support::PATIENCE, down).await.unwrap().unwrap();
    // What was known is still there, and bundles can't be proven.
    let watch = cast.watch();
    assert!(following.follower.with_index(|index| index.consent(&watch.relationships[0]).is_some()));
    assert!(matches!(following.follower.bundle(&watch).await, Err(ChainError::Unreachable(_))));

    node.resume();
    let chain = node.chain().await;
    following.at(cast.revoke(&chain).await).await;
    assert_eq!(*following.follower.status().borrow(), Status::Following);
    let bundle = following.follower.bundle(&watch).await.unwrap();
    assert_eq!(bundle.claims.revocations.len(), 1);

    node.kill();
    node.forget();
    node.resume();
    node.chain().await;
    until("the index is read anew", async || {
        following.follower.with_index(|index| index.consent(&watch.relationships[0]).is_none()).then_some(())
    })
    .await;
    let fresh = following.follower.bundle(&watch).await.unwrap();
    assert!(fresh.claims.consents.is_empty());
}

#[tokio::test]
async fn a_full_index_keeps_no_grant_from_a_gateway() {
    let node = Node::start();
    let chain = node.chain().await;
    let config = ChainConfig { index_max: 1, ..node.config().await };
    let following = Following::start(Chain::connect(config).await.unwrap());
    let (mut first, mut second) = (Cast::new(&node, &chain).await, Cast::new(&node, &chain).await);
    first.bind(&chain, true).await;
    first.grant(&chain).await;
    second.bind(&chain, true).await;
    following.at(second.grant(&chain).await).await;
    let watch = second.watch();
    assert!(following.follower.with_index(|index| index.consent(&watch.relationships[0]).is_none()));
    let (granting, _, now) = policy(&following, &second.pins()).await;
    let patient = second.wallet.home(GATEWAY).unwrap().patient;
    assert_eq!(granting.recipients(&patient, DataClass::Alarm, now).count(), 1);
    assert_eq!(granting.patient_of(&second.device), Some(patient));
    // It has its place now, so the revocation is seen as it comes.
    let revoked = second.revoke(&chain).await;
    following.at(revoked).await;
    assert_eq!(following.follower.last_change(&watch), revoked);
    let (ended, _, now) = policy(&following, &second.pins()).await;
    assert_eq!(ended.recipients(&patient, DataClass::Alarm, now).count(), 0);
}

#[tokio::test]
async fn another_chain_or_no_contract_is_refused_by_name() {
    let node = Node::start();
    let good = node.config().await;
    node.chain().await;
    let wrong = |config| async move { Chain::connect(config).await.map(|_| ()).unwrap_err() };
    let chain_id = wrong(ChainConfig { chain_id: 1, ..good.clone() }).await;
    assert_eq!(chain_id, ChainError::ChainId { has: CHAIN_ID, wanted: 1 });
    let contract = Address([9; 20]);
    let none = wrong(ChainConfig { contract, ..good.clone() }).await;
    assert_eq!(none, ChainError::NoContract { contract });
    let rpc = "http://127.0.0.1:1".to_owned();
    assert_eq!(wrong(ChainConfig { rpc, ..good }).await.reason(), "unreachable");
}

#[tokio::test]
async fn events_are_read_in_their_order() {
    let node = Node::start();
    let chain = node.chain().await;
    let mut cast = Cast::new(&node, &chain).await;
    cast.grant(&chain).await;
    cast.bind(&chain, true).await;
    cast.revoke(&chain).await;
    let events = chain.events(0, chain.head().await.unwrap().number).await.unwrap();
    let names: Vec<_> = events.iter().map(|event| event.event.name()).collect();
    let expected =
        ["ChangeApproved", "ParticipantSet", "ParticipantKeySet", "Granted", "DeviceBound", "Revoked"];
    assert_eq!(names, expected);
    assert!(events.is_sorted_by_key(|event| event.block));
    let Event::Granted(signed) = &events[3].event else { panic!("{:?}", events[3]) };
    assert_eq!(signed.grant.grantee, cast.hospital.id());
    let relay = RelayKey::random();
    assert!(!format!("{relay:?}").contains("Signer"), "{relay:?}");
}

/// The chain's client's part of what a revocation takes: from the wallet's transaction to a bundle that shows it.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a measurement")]
async fn a_revocation_is_in_a_bundle_well_under_a_second() {
    let node = Node::start();
    let chain = node.chain().await;
    let config = ChainConfig { poll_ms: 100, ..node.config().await };
    let following = Following::start(Chain::connect(config).await.unwrap());
    let mut cast = Cast::new(&node, &chain).await;
    let watch = cast.watch();
    let mut took = Vec::new();
    for _ in 0..10 {
        following.at(cast.grant(&chain).await).await;
        let began = std::time::Instant::now();
        following.at(cast.revoke(&chain).await).await;
        let bundle = following.follower.bundle(&watch).await.unwrap();
        took.push(began.elapsed());
        let newest = bundle.claims.revocations.last().map(|signed| signed.revocation.version);
        assert_eq!(newest, bundle.claims.consents.last().map(|signed| signed.grant.version));
    }
    took.sort();
    println!("revocation to bundle: median {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]);
    // The bound for the whole way is a second.
    assert!(took[took.len() / 2] < std::time::Duration::from_millis(500), "{took:?}");
}

/// The first keys hand on, then custodians do; each time a gateway that pinned the first ones takes what the next ones grant.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, each step of which stands on the one before")]
async fn keys_that_hand_on_are_followed_to_the_gateway() {
    let node = Node::start();
    let chain = node.chain().await;
    let mut cast = Cast::new(&node, &chain).await;
    let following = Following::start(chain.clone());
    let (pins, domain) = (cast.pins(), chain.domain());
    let granted = cast.grant(&chain).await;
    following.at(granted).await;
    let keys = cast.wallet.keys(LABEL).unwrap();
    let relationship = keys.relationship();
    let [first, second] = [(); 2].map(|()| (PatientKey::generate(), PatientKey::generate()));
    let next = |keys: &(PatientKey, PatientKey), version| NextKeys {
        relationship,
        grant_key: keys.0.address(),
        revoke_key: keys.1.address(),
        version,
    };
    let opens = async |following: &Following, version: u64| {
        let bundle = following.follower.bundle(&pins.watch()).await.unwrap();
        let now = following.follower.heads().borrow().unwrap().time_s;
        verify_bundle(&bundle.encode(), &pins, &Floors::default(), now).unwrap();
        assert_eq!(bundle.claims.consents.len(), 1);
        assert_eq!(bundle.claims.consents[0].grant.version, version);
        bundle.claims.successions.len()
    };
    assert_eq!(opens(&following, 1).await, 0);

    let rotation = next(&first, 1);
    let signed = keys.grant.sign_rotation(&rotation, &domain);
    let revoke_key = keys.revoke.address();
    let sent = chain.rotate_keys(&rotation, &revoke_key, &signed, &cast.relay).await.unwrap();
    following.at(sent.block).await;
    assert_eq!(opens(&following, 1).await, 1);
    let mut grant = following
        .follower
        .with_index(|index| index.consent(&relationship).unwrap().grant.as_ref().unwrap().grant.clone());
    grant.version = 2;
    let old = keys.grant.sign_grant(&grant, &domain);
    assert_eq!(refusal(chain.grant(&old, &revoke_key, &cast.relay).await.unwrap_err()), "WrongSigner");
    let by_next = first.0.sign_grant(&grant, &domain);
    let sent = chain.grant(&by_next, &first.1.address(), &cast.relay).await.unwrap();
    following.at(sent.block).await;
    assert_eq!(opens(&following, 2).await, 1);

    let mut custodians: Vec<_> = (0..3).map(|_| PatientKey::generate()).collect();
    custodians.sort_by_key(PatientKey::address);
    let named = Custodians {
        threshold: 2,
        delay_s: 0,
        salt: [9; 32],
        keys: custodians.iter().map(PatientKey::address).collect(),
    };
    let signature = first.0.sign_custody(&relationship, &named.commitment(), 1, &domain);
    let custody = SignedCustody { relationship, custodians: named.commitment(), version: 1, signature };
    chain.set_custodians(&custody, &first.1.address(), &cast.relay).await.unwrap();
    assert_eq!(chain.custody_version(&relationship).await.unwrap(), 1);
    let recovery = next(&second, 2);
    let mut signatures: Vec<_> =
        custodians.iter().map(|key| Some(key.sign_recovery(&recovery, &domain))).collect();
    signatures[1] = None;
    let sent = chain.recover_keys(&recovery, &named, &signatures, &cast.relay).await.unwrap();
    following.at(sent.block).await;
    assert_eq!(chain.keys_version(&relationship).await.unwrap(), 2);
    assert_eq!(opens(&following, 2).await, 2);
    grant.version = 3;
    let by_last = second.0.sign_grant(&grant, &domain);
    let sent = chain.grant(&by_last, &second.1.address(), &cast.relay).await.unwrap();
    following.at(sent.block).await;
    assert_eq!(opens(&following, 3).await, 2);

    // One that hears of it all at once, and one that has room for nothing and asks for each: the same.
    let config = node.config().await;
    for config in [config.clone(), ChainConfig { index_max: 0, ..config }] {
        let late = Following::start(Chain::connect(config).await.unwrap());
        late.at(sent.block).await;
        assert_eq!(opens(&late, 3).await, 2);
    }
    // The gateway's button still has the first revoke-only key, and the ledger takes it.
    let revocation = caregate_protocol::policy::Revocation { relationship, version: 3 };
    let signed = keys.revoke.sign_revocation(&revocation, &domain);
    let sent = chain.revoke(&signed, &keys.grant.address(), &cast.relay).await.unwrap();
    following.at(sent.block).await;
    let (policy, ..) = policy(&following, &pins).await;
    let now = following.follower.heads().borrow().unwrap().time_s;
    let patient = cast.wallet.home(GATEWAY).unwrap().patient;
    assert_eq!(policy.recipients(&patient, DataClass::Vitals, now).count(), 0);
}
