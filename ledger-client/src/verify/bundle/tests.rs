//! A good bundle, and each reason for which one is refused, provoked by bundles that are sealed and signed as they should be but for
//! the one fault.

use std::collections::BTreeSet;

use caregate_protocol::id::{DataClass, RecipientId};
use caregate_protocol::policy::{
    AdmissionError, Commitment, FLOORS_MAX, Floor, Grant, ParticipantClaim, Pseudonym, RecipientKind,
    SignedEmergency,
};
use proptest::prelude::*;

use super::*;
use crate::fixture::{Hospital, Signer, Site, Stranger, forgeries};

const NOW_S: u64 = 1_790_000_000;

fn hospital() -> Hospital {
    Hospital::new(0x50, [0xd4; 32])
}

fn second() -> Hospital {
    Hospital::new(0x51, [0xd5; 32])
}

/// The city hospital has a grant, the second one an emergency, both sensors are bound.
fn site() -> Site {
    let mut site = Site::new(4);
    site.register(&hospital(), RecipientStatus::Active, RecipientKind::Treating, false);
    site.register(&second(), RecipientStatus::Active, RecipientKind::Treating, true);
    site.grant(0, &hospital(), 3, |_| ());
    site.bind(0, true, 1);
    site.bind(1, true, 1);
    site.emergency(&second(), NOW_S - 10, NOW_S + 3600, 1);
    site
}

fn pins(site: &Site) -> Pins {
    site.enrolment.pins().unwrap()
}

fn verify_at(site: &Site, bytes: &[u8], floors: &Floors) -> Result<VerifiedBundle, BundleRefusal> {
    verify_bundle(bytes, &pins(site), floors, NOW_S)
}

fn verify(site: &mut Site) -> Result<VerifiedBundle, BundleRefusal> {
    let bytes = site.bytes(NOW_S);
    verify_at(site, &bytes, &Floors::default())
}

fn reason(site: &mut Site) -> &'static str {
    verify(site).unwrap_err().reason()
}

fn in_force(bundle: &VerifiedBundle) -> VerifiedPolicy {
    bundle.admit(&Floors::default()).unwrap().0
}

fn open(policy: &VerifiedPolicy) -> Vec<RecipientId> {
    policy.recipients(&Site::PATIENT, DataClass::Vitals, NOW_S).map(|recipient| recipient.id).collect()
}

fn ids(hospitals: &[&Hospital]) -> Vec<RecipientId> {
    let ids: BTreeSet<_> = hospitals.iter().map(|hospital| hospital.id()).collect();
    ids.into_iter().collect()
}

#[test]
fn a_good_bundle_comes_into_force() {
    let mut site = site();
    let bundle = verify(&mut site).unwrap();
    assert_eq!((bundle.header.number, bundle.header.time_s), (1, NOW_S));
    let (policy, floors) = bundle.admit(&Floors::default()).unwrap();
    assert_eq!(open(&policy), ids(&[&hospital(), &second()]));
    assert_eq!(policy.freshness(), Freshness::Proven { as_of: NOW_S, staleness_max_s: 600 });
    let keys: Vec<_> = policy.recipients(&Site::PATIENT, DataClass::Alarm, NOW_S).collect();
    assert!(keys.iter().any(|r| r.id == hospital().id() && r.hpke_public_key == [0xd4; 32]));
    let bound: Vec<_> =
        policy.devices().map(|b| (b.device.as_str(), b.patient, b.station.unwrap().index)).collect();
    assert_eq!(bound, [("belt-1", Site::PATIENT, 1), ("monitor-1", Site::PATIENT, 0)]);
    assert_eq!((floors.epoch, floors.header.number, floors.header.time_s), (site.epoch, 1, NOW_S));
    assert_eq!(floors.relationships[&Site::relationship(0)].granted, 3);
    // The same block again is no step back.
    assert!(bundle.admit(&floors).is_ok());
}

#[test]
fn one_validator_is_a_quorum_of_one() {
    let mut site = Site::new(1);
    site.register(&hospital(), RecipientStatus::Active, RecipientKind::Treating, false);
    site.grant(1, &hospital(), 1, |_| ());
    assert_eq!(open(&in_force(&verify(&mut site).unwrap())), ids(&[&hospital()]));
}

#[test]
fn what_the_ledger_shows_revoked_does_not_stand() {
    let mut site = site();
    site.revoke(0, 3);
    let bundle = verify(&mut site).unwrap();
    assert_eq!(bundle.revoked, BTreeMap::from([(Site::relationship(0), 3)]));
    let (policy, floors) = bundle.admit(&Floors::default()).unwrap();
    assert_eq!(open(&policy), ids(&[&second()]));
    assert_eq!(floors.relationships[&Site::relationship(0)], Floor { granted: 3, revoked: Some(3) });
    site.claims.consents.clear();
    assert_eq!(verify(&mut site).unwrap().revoked.len(), 1, "shown by the nodes, though nothing is claimed");
    site.grant(0, &hospital(), 4, |_| ());
    assert_eq!(open(&in_force(&verify(&mut site).unwrap())), ids(&[&hospital(), &second()]));
}

#[test]
fn a_revocation_counts_before_the_ledger_has_it() {
    let mut site = site();
    let signed = site.signed_revocation(0, 3);
    let by = verify_revocation(&signed, &pins(&site), &NewestKeys::default()).unwrap();
    assert_eq!((by.signer, by.other_key), (RevocationSigner::RevokeKey, Site::grant_key(0).address()));
    site.claims.revocations.push(signed);
    let bundle = verify(&mut site).unwrap();
    assert!(bundle.revoked.is_empty());
    assert_eq!(open(&in_force(&bundle)), ids(&[&second()]));
}

#[test]
fn suspended_released_and_left_out() {
    let mut site = site();
    site.register(&hospital(), RecipientStatus::Suspended, RecipientKind::Treating, false);
    site.bind(0, false, 2);
    let policy = in_force(&verify(&mut site).unwrap());
    assert_eq!((open(&policy), policy.devices().len()), (ids(&[&second()]), 1));
    site.claims.emergencies.clear();
    site.claims.bindings.clear();
    let policy = in_force(&verify(&mut site).unwrap());
    assert_eq!((open(&policy).len(), policy.devices().len()), (0, 0), "what a bundle leaves out starves");
}

#[test]
fn headers_that_are_older_or_ahead() {
    let mut site = site();
    let older = site.bytes(NOW_S - 20);
    let (_, floors) = verify(&mut site).unwrap().admit(&Floors::default()).unwrap();
    let refused = verify_at(&site, &older, &floors).unwrap_err();
    assert_eq!(refused, BundleRefusal::HeaderOlder { number: 1, floor: 2 });
    let other = site.bundle_of(2, NOW_S + 1).encode();
    assert_eq!(verify_at(&site, &other, &floors).unwrap_err().reason(), "header_older", "a second block 2");
    let back = site.bundle_of(3, NOW_S - 1).encode();
    assert_eq!(verify_at(&site, &back, &floors).unwrap_err().reason(), "header_older", "time goes back");
    let ahead = site.bundle_of(3, NOW_S + HEADER_AHEAD_MAX_S).encode();
    let (_, floors) = verify_at(&site, &ahead, &floors).unwrap().admit(&floors).unwrap();
    let further = site.bundle_of(4, NOW_S + HEADER_AHEAD_MAX_S + 1).encode();
    assert!(verify_at(&site, &further, &floors).is_ok(), "the clock counts as the newest header's time");
    let refused = verify_at(&site, &further, &Floors::default()).unwrap_err();
    assert_eq!(refused, BundleRefusal::HeaderFuture { ahead_s: HEADER_AHEAD_MAX_S + 1 });
}

#[test]
fn the_epoch_never_goes_back() {
    let mut site = site();
    let mut earlier = site.clone();
    earlier.revoke(0, 3);
    let (_, floors) = verify(&mut earlier).unwrap().admit(&Floors::default()).unwrap();
    site.number = 1;
    let bytes = site.bytes(NOW_S + 1);
    let refused = verify_at(&site, &bytes, &floors).unwrap_err();
    assert_eq!(refused, BundleRefusal::EpochWentBack { epoch: site.epoch, floor: site.epoch + 1 });
    // Verified while the floor was lower, admitted when it is not.
    let late = verify_at(&site, &bytes, &Floors::default()).unwrap();
    assert_eq!(late.admit(&floors).unwrap_err(), refused);
}

#[test]
fn accounts_and_slots_that_are_not_proven() {
    let mut site = site();
    let mut moved = pins(&site);
    moved.domain.verifying_contract = Address([0xc1; 20]);
    let mut bundle = site.bundle(NOW_S);
    let refused = verify_bundle(&bundle.encode(), &moved, &Floors::default(), NOW_S).unwrap_err();
    let (named, pinned) = (Address([0xc0; 20]), Address([0xc1; 20]));
    assert_eq!(refused, BundleRefusal::OtherContract { named, pinned });
    // It lies, and what it proves is no such account.
    bundle.contract = pinned.0;
    let refused = verify_bundle(&bundle.encode(), &moved, &Floors::default(), NOW_S).unwrap_err();
    assert_eq!(refused.reason(), "account_proof", "{refused}");
    bundle.contract = named.0;
    // Without any one node, a claim is not shown; but for those nodes that show a relationship of which nothing is claimed.
    let mut reasons = Vec::new();
    for nth in 0..bundle.nodes.len() {
        let mut cut = bundle.clone();
        cut.nodes.remove(nth);
        match verify_at(&site, &cut.encode(), &Floors::default()) {
            Ok(verified) => assert_eq!(verified.claims, bundle.claims),
            Err(refused) => reasons.push(refused.reason()),
        }
    }
    let count = |wanted| reasons.iter().filter(|reason| **reason == wanted).count();
    assert!(count("account_proof") >= 2 && count("storage_proof") >= 15, "{reasons:?}");
    assert_eq!(count("account_proof") + count("storage_proof"), reasons.len());
    // An epoch's slot with something above its 64 bits is not this contract's.
    site.storage.insert(slots::EPOCH, [1; 32]);
    let mut sealed = site.bundle(NOW_S);
    sealed.claims.epoch = u64::MAX;
    assert_eq!(
        verify_at(&site, &sealed.encode(), &Floors::default()).unwrap_err().reason(),
        "epoch_mismatch"
    );
}

#[test]
fn a_bundle_of_another_chain_is_refused_by_its_name_and_one_that_lies_by_its_signatures() {
    let mut site = site();
    let mut here = pins(&site);
    here.domain.chain_id = 4712;
    let mut bundle = site.bundle(NOW_S);
    let refused = |bytes: &[u8], kept: bool| {
        let verify = if kept { verify_kept_bundle } else { verify_bundle };
        verify(bytes, &here, &Floors::default(), NOW_S).unwrap_err()
    };
    let named = bundle.encode();
    for kept in [false, true] {
        let other = BundleRefusal::OtherChain { named: 4711, pinned: 4712 };
        assert_eq!(refused(&named, kept), other);
    }
    bundle.chain_id = 4712;
    // The same contract, validators and slots, as those of a chain's fork: what was signed was signed for the other one.
    for kept in [false, true] {
        assert_eq!(refused(&bundle.encode(), kept).reason(), "participant_signature");
    }
    // Its name is looked at before anything that it says: a header of nobody's makes no difference.
    bundle.chain_id = 4711;
    bundle.header.clear();
    assert_eq!(refused(&bundle.encode(), false).reason(), "other_chain");
}

/// The refusal when the claims are changed and the storage is not.
fn claimed(change: impl FnOnce(&mut Claims)) -> String {
    let mut site = site();
    let mut bundle = site.bundle(NOW_S);
    change(&mut bundle.claims);
    let refused = verify_at(&site, &bundle.encode(), &Floors::default()).unwrap_err();
    let text = refused.to_string();
    let reason = match text.split(['[', ' ']).next() {
        Some("epoch") => "epoch_mismatch",
        Some("participants") => "participant_mismatch",
        Some("emergencies") => "emergency_mismatch",
        _ => "slot_mismatch",
    };
    assert_eq!(refused.reason(), reason);
    text
}

#[test]
fn every_claimed_field_is_held_against_its_slot() {
    assert_eq!(claimed(|c| c.epoch += 1), "epoch differs from its slot");
    let participants: [fn(&mut ParticipantClaim); 5] = [
        |p| p.hpke_public_key[31] ^= 1,
        |p| p.key_version += 1,
        |p| p.status = RecipientStatus::Suspended,
        |p| p.kind = RecipientKind::Other,
        |p| p.emergency ^= true,
    ];
    for change in participants {
        // Without its emergency, which would be a stranger's where it may not break the glass.
        let changed = |c: &mut Claims| {
            c.emergencies.clear();
            change(&mut c.participants[1]);
        };
        assert_eq!(claimed(changed), "participants[1] differs from its slot");
    }
    let grants: [fn(&mut Grant); 7] = [
        |g| g.grantee = RecipientId([1; 20]),
        |g| g.classes ^= 1,
        |g| g.purposes ^= 2,
        |g| g.from += 1,
        |g| g.until += 1,
        |g| g.stale_bound_s += 1,
        |g| g.version += 1,
    ];
    for change in grants {
        assert_eq!(claimed(|c| change(&mut c.consents[0].grant)), "consents[0] differs from its slot");
    }
    assert_eq!(claimed(|c| c.bindings[1].bound = false), "bindings[1] differs from its slot");
    assert_eq!(claimed(|c| c.bindings[0].version = 0), "bindings[0] differs from its slot");
    let emergencies: [fn(&mut caregate_protocol::policy::Emergency); 5] = [
        |e| e.clinician = Commitment([1; 32]),
        |e| e.reason = Commitment([1; 32]),
        |e| e.from -= 1,
        |e| e.until += 1,
        |e| e.number += 1,
    ];
    for change in emergencies {
        assert_eq!(
            claimed(|c| change(&mut c.emergencies[0].emergency)),
            "emergencies[0] differs from its slot"
        );
    }
}

#[test]
fn a_reviewed_emergency_goes_on() {
    let mut site = site();
    let [_, _, third] = slots::emergency(&Site::PSEUDONYM, &second().id());
    site.storage.get_mut(&third).unwrap()[7] = 1;
    assert_eq!(open(&in_force(&verify(&mut site).unwrap())), ids(&[&hospital(), &second()]));
}

/// The refusal when the ledger holds what somebody else signed.
#[test]
fn values_on_the_ledger_need_their_owners_signature() {
    let foreign = Signer::of(0x66);
    let digest = [7; 32];
    let mut one = site();
    one.claims.participants[0].signature = foreign.sign(&digest);
    assert_eq!(reason(&mut one), "participant_signature");
    let mut one = site();
    one.claims.participants[0].signature.0[64] = 0;
    assert_eq!(reason(&mut one), "participant_signature");
    let mut one = site();
    one.claims.consents[0].signature = foreign.sign(&digest);
    assert_eq!(reason(&mut one), "grant_signature");
    // The revoke-only key can't grant.
    let mut one = site();
    let grant = one.claims.consents[0].grant.clone();
    one.claims.consents[0].signature = Site::revoke_key(0).sign(&grant_digest(&grant, &pins(&one).domain));
    assert_eq!(reason(&mut one), "grant_signature");
    // A grant that was signed for another ledger.
    let mut one = site();
    let elsewhere = Domain { chain_id: 1, ..pins(&one).domain };
    one.claims.consents[0].signature = Site::grant_key(0).sign(&grant_digest(&grant, &elsewhere));
    assert_eq!(reason(&mut one), "grant_signature");
    let mut one = site();
    let mut revocation = one.signed_revocation(0, 3);
    revocation.revocation.version = 9;
    one.claims.revocations.push(revocation);
    assert_eq!(reason(&mut one), "revocation_signature");
    let mut one = site();
    one.claims.bindings[0].signature = foreign.sign(&digest);
    assert_eq!(reason(&mut one), "binding_signature");
    let mut one = site();
    one.claims.emergencies[0].signature = foreign.sign(&digest);
    assert_eq!(reason(&mut one), "emergency_signature");
}

#[test]
fn a_claim_that_comes_again_is_the_same_claim() {
    let mut site = site();
    let mut again = site.claims.consents[0].clone();
    again.signature = Signer::of(0x66).sign(&[7; 32]);
    site.claims.consents.extend(vec![again; 900]);
    let verified = verify(&mut site).unwrap();
    assert_eq!(open(&in_force(&verified)), ids(&[&hospital(), &second()]));
    site.claims.consents.rotate_left(1);
    assert_eq!(reason(&mut site), "grant_signature", "the first one must be good");
}

#[test]
fn what_was_not_pinned_is_refused_though_the_ledger_holds_it() {
    let with = |change: fn(&mut Site)| {
        let mut site = site();
        change(&mut site);
        let bytes = site.bytes(NOW_S);
        // Pinned are fewer than the ledger holds.
        let mut pins = pins(&site);
        pins.relationships.remove(&Site::relationship(2));
        pins.devices.retain(|_, device| device.index == 0);
        verify_bundle(&bytes, &pins, &Floors::default(), NOW_S).unwrap_err().to_string()
    };
    assert_eq!(with(|_| ()), "bindings[1] was not pinned here");
    assert_eq!(
        with(|site| {
            site.claims.bindings.truncate(1);
            site.grant(2, &hospital(), 1, |_| ());
        }),
        "consents[1] was not pinned here"
    );
    assert_eq!(
        with(|site| {
            site.claims.bindings.truncate(1);
            site.claims.revocations.push(site.signed_revocation(2, 1));
        }),
        "revocations[0] was not pinned here"
    );
    let mut site = site();
    let bytes = site.bytes(NOW_S);
    let mut pins = pins(&site);
    pins.pseudonyms = BTreeMap::from([(Pseudonym([0xe2; 32]), Site::PATIENT)]);
    let refused = verify_bundle(&bytes, &pins, &Floors::default(), NOW_S).unwrap_err();
    assert_eq!(
        (refused.reason(), refused.to_string().as_str()),
        ("not_pinned", "emergencies[0] was not pinned here")
    );
    let unpinned = site.signed_revocation(2, 1);
    pins.relationships.remove(&Site::relationship(2));
    let refused = verify_revocation(&unpinned, &pins, &NewestKeys::default());
    assert_eq!(refused, Err(RevocationRefusal::NotPinned));
}

#[test]
fn who_may_break_the_glass_and_for_how_long() {
    for (status, emergency) in [(RecipientStatus::Suspended, true), (RecipientStatus::Active, false)] {
        let mut site = site();
        site.register(&second(), status, RecipientKind::Treating, emergency);
        assert_eq!(reason(&mut site), "emergency_stranger");
    }
    let mut unknown = site();
    unknown.claims.participants.pop();
    assert_eq!(reason(&mut unknown), "emergency_stranger");
    for (who, why) in [([0; 32], [7; 32]), ([7; 32], [0; 32])] {
        let mut unnamed = site();
        let mut emergency = unnamed.signed_emergency(&second(), NOW_S, NOW_S + 60, 2).emergency;
        (emergency.clinician, emergency.reason) = (Commitment(who), Commitment(why));
        let signature =
            second().key.sign(&emergency_digest(&emergency, &unnamed.enrolment.pins().unwrap().domain));
        unnamed.put_emergency(SignedEmergency { emergency, signature });
        assert_eq!(reason(&mut unnamed), "emergency_unnamed");
    }
    let mut long = site();
    long.emergency(&second(), NOW_S, NOW_S + EMERGENCY_MAX_S, 2);
    assert!(verify(&mut long).is_ok());
    long.emergency(&second(), NOW_S, NOW_S + EMERGENCY_MAX_S + 1, 3);
    assert_eq!(reason(&mut long), "emergency_too_long");
    let mut over = site();
    over.emergency(&second(), NOW_S - 100, NOW_S, 2);
    assert_eq!(
        open(&in_force(&verify(&mut over).unwrap())),
        ids(&[&hospital()]),
        "one that is over is no fault"
    );
}

#[test]
fn revocations_alone_are_of_their_relationships_keys() {
    let site = site();
    let pins = pins(&site);
    let mut signed = site.signed_revocation(0, 3);
    let revocation = Revocation { relationship: Site::relationship(0), version: 3 };
    let by = |key: &Signer| SignedRevocation {
        revocation: revocation.clone(),
        signature: key.sign(&revocation_digest(&revocation, &pins.domain)),
    };
    let verify_revocation = |signed: &_| verify_revocation(signed, &pins, &NewestKeys::default());
    let with = verify_revocation(&by(&Site::grant_key(0))).unwrap();
    assert_eq!((with.signer, with.other_key), (RevocationSigner::GrantKey, Site::revoke_key(0).address()));
    let refused = verify_revocation(&by(&Site::revoke_key(1))).unwrap_err();
    assert_eq!((refused.reason(), refused), ("revocation_signature", SignerError::Other.into()));
    signed.signature.0[64] = 1;
    assert_eq!(verify_revocation(&signed).unwrap_err().reason(), "revocation_signature");
    assert_eq!(verify_revocation(&site.signed_revocation(0, 0)), Err(RevocationRefusal::Version));
}

#[test]
fn floors_are_bounded() {
    let crowd = (0..FLOORS_MAX as u64).map(|n| {
        let mut id = [0xff; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        (RelationshipId(id), Floor::default())
    });
    let floors = Floors { relationships: crowd.collect(), ..Floors::default() };
    let refused = verify(&mut site()).unwrap().admit(&floors).unwrap_err();
    assert_eq!(refused, BundleRefusal::Floors(AdmissionError::TooManyFloors { len: FLOORS_MAX + 1 }));
    assert_eq!(refused.reason(), "floors_full");
}

#[test]
fn each_forgery_is_refused_with_its_reason() {
    let mut site = site();
    let older = site.bytes(NOW_S - 10);
    let good = site.bytes(NOW_S);
    let pins = pins(&site);
    let (_, floors) =
        verify_bundle(&good, &pins, &Floors::default(), NOW_S).unwrap().admit(&Floors::default()).unwrap();
    let stranger = Stranger { key: Signer::of(0x66), hpke_public_key: [0x66; 32] };
    let forged = forgeries(&good, Some(&older), &pins.domain, &stranger).unwrap();
    let names: BTreeSet<_> = forged.iter().map(|one| one.name).collect();
    assert_eq!((names.len(), forged.len() >= 35), (forged.len(), true), "{names:?}");
    for one in &forged {
        let refused = verify_bundle(&one.bytes, &pins, &floors, NOW_S).unwrap_err();
        assert_eq!(refused.reason(), one.expected, "{}: {refused}", one.name);
        assert!(BundleRefusal::REASONS.contains(&one.expected));
    }
    assert!(verify_bundle(&good, &pins, &floors, NOW_S).is_ok());
    // The least that a bundle can have is forged as well.
    let mut plain = Site::new(1);
    plain.register(&hospital(), RecipientStatus::Active, RecipientKind::Treating, false);
    plain.grant(0, &hospital(), 1, |_| ());
    let pins = plain.enrolment.pins().unwrap();
    let forged = forgeries(&plain.bytes(NOW_S), None, &pins.domain, &stranger).unwrap();
    assert!(forged.len() >= 20);
    for one in forged {
        let refused = verify_bundle(&one.bytes, &pins, &Floors::default(), NOW_S).unwrap_err();
        assert_eq!(refused.reason(), one.expected, "{}: {refused}", one.name);
    }
}

#[test]
fn reasons_have_names_of_their_own() {
    let names: BTreeSet<_> = BundleRefusal::REASONS.into_iter().collect();
    assert_eq!(names.len(), BundleRefusal::REASONS.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_flipped_bit_is_taken(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut site = site();
        let mut bytes = site.bytes(NOW_S);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // A node that shows a relationship of which nothing is claimed may be missing, and its bytes be anything.
        if let Ok(verified) = verify_at(&site, &bytes, &Floors::default()) {
            prop_assert_eq!((&verified.claims, verified.revoked.len()), (&site.claims, 0), "byte {}", at);
        }
    }
}
