//! Keys and validators that hand on, and everything that somebody might try instead.

use caregate_protocol::id::DataClass;
use caregate_protocol::policy::{Floors, RecipientKind, RecipientStatus, Revocation, SignedRevocation};

use super::*;
use crate::fixture::{Hospital, Signer, Site};
use crate::verify::{
    BundleRefusal, RevocationSigner, RevokedWith, VerifiedBundle, grant_digest, revocation_digest,
    verify_bundle, verify_revocation,
};

const NOW_S: u64 = 1_790_000_000;

fn hospital() -> Hospital {
    Hospital::new(0x50, [0xd4; 32])
}

fn site() -> Site {
    let mut site = Site::new(4);
    site.register(&hospital(), RecipientStatus::Active, RecipientKind::Treating, false);
    site.grant(0, &hospital(), 1, |_| ());
    site
}

/// The keys after the pinned ones, and those after them.
fn next(nth: u8) -> [Signer; 2] {
    [Signer::of(0x80 + nth), Signer::of(0x90 + nth)]
}

fn rotate(site: &mut Site, version: u64, nth: u8, by: &Signer) {
    let [grant, revoke] = next(nth);
    site.rotate(0, version, [&grant, &revoke], by);
}

/// The newest grant, signed with this key.
fn grant_by(site: &mut Site, version: u64, key: &Signer) {
    site.grant(0, &hospital(), version, |_| ());
    let domain = site.enrolment.pins().unwrap().domain;
    let claim = site.claims.consents.last_mut().unwrap();
    claim.signature = key.sign(&grant_digest(&claim.grant, &domain));
}

fn verify(site: &mut Site) -> Result<VerifiedBundle, BundleRefusal> {
    let bytes = site.bytes(NOW_S);
    verify_bundle(&bytes, &site.enrolment.pins().unwrap(), &Floors::default(), NOW_S)
}

fn reason(site: &mut Site) -> &'static str {
    verify(site).unwrap_err().reason()
}

fn opens(bundle: &VerifiedBundle) -> usize {
    let (policy, _floors) = bundle.admit(&Floors::default()).unwrap();
    policy.recipients(&Site::PATIENT, DataClass::Vitals, NOW_S).count()
}

#[test]
fn what_the_first_key_granted_goes_on_and_the_next_one_grants() {
    let mut site = site();
    rotate(&mut site, 1, 0, &Site::grant_key(0));
    assert_eq!(opens(&verify(&mut site).unwrap()), 1);
    grant_by(&mut site, 2, &next(0)[0]);
    assert_eq!(opens(&verify(&mut site).unwrap()), 1);
    rotate(&mut site, 2, 1, &next(0)[0]);
    grant_by(&mut site, 3, &next(1)[0]);
    assert_eq!(opens(&verify(&mut site).unwrap()), 1);
    // The revoke-only keys of all three may revoke, and none of them may grant.
    grant_by(&mut site, 4, &next(1)[1]);
    assert_eq!(reason(&mut site), "grant_signature");
}

#[test]
fn a_rotated_revoke_only_key_revokes() {
    let mut site = site();
    rotate(&mut site, 1, 0, &Site::grant_key(0));
    let revocation = Revocation { relationship: Site::relationship(0), version: 1 };
    let digest = revocation_digest(&revocation, &site.enrolment.pins().unwrap().domain);
    let signature = next(0)[1].sign(&digest);
    site.claims.revocations.push(SignedRevocation { revocation, signature });
    assert_eq!(opens(&verify(&mut site).unwrap()), 0);
    site.claims.successions.clear();
    assert_eq!(reason(&mut site), "revocation_signature");
}

#[test]
fn a_grant_by_a_key_that_nobody_handed_on_to_is_refused() {
    let mut site = site();
    grant_by(&mut site, 2, &next(0)[0]);
    assert_eq!(reason(&mut site), "grant_signature");
}

#[test]
fn links_are_of_the_key_before() {
    for by in [Site::revoke_key(0), Site::grant_key(1), next(0)[0].clone(), Signer::of(0x66)] {
        let mut site = site();
        rotate(&mut site, 1, 0, &by);
        assert_eq!(reason(&mut site), "succession_signature");
    }
    // Not of the one before that: it has handed on.
    let mut site = site();
    rotate(&mut site, 1, 0, &Site::grant_key(0));
    rotate(&mut site, 2, 1, &Site::grant_key(0));
    assert_eq!(reason(&mut site), "succession_signature");
}

#[test]
fn links_follow_each_other_by_one() {
    let mut site = site();
    rotate(&mut site, 2, 0, &Site::grant_key(0));
    assert_eq!(reason(&mut site), "succession_order");
    let mut twice = self::site();
    rotate(&mut twice, 1, 0, &Site::grant_key(0));
    let again = twice.claims.successions[0].clone();
    twice.claims.successions.push(again);
    assert_eq!(reason(&mut twice), "succession_order");
    let mut many = self::site();
    let mut by = Site::grant_key(0);
    for version in 1..=SUCCESSIONS_MAX as u64 + 1 {
        let nth = u8::try_from(version % 8).unwrap();
        rotate(&mut many, version, nth, &by);
        by = next(nth)[0].clone();
        assert_eq!(verify(&mut many).is_ok(), version <= SUCCESSIONS_MAX as u64, "{version}");
    }
    assert_eq!(reason(&mut many), "succession_order");
}

/// Signed as it should be, and not on the ledger: a key that was stolen after it was replaced.
#[test]
fn a_link_is_the_ledgers() {
    let mut site = site();
    rotate(&mut site, 1, 0, &Site::grant_key(0));
    let held = site.storage.clone();
    rotate(&mut site, 2, 1, &next(0)[0]);
    site.storage = held;
    assert_eq!(reason(&mut site), "slot_mismatch");
    site.claims.successions.truncate(1);
    assert_eq!(opens(&verify(&mut site).unwrap()), 1);
    let mut bundle = site.bundle(NOW_S);
    bundle.claims.successions[0].revoke_key[3] ^= 1;
    let pins = site.enrolment.pins().unwrap();
    let refused = verify_bundle(&bundle.encode(), &pins, &Floors::default(), NOW_S).unwrap_err();
    assert_eq!(refused.to_string(), "successions[0] differs from its slot");
}

#[test]
fn two_of_three_custodians_hand_on() {
    for (signers, reason_of) in [
        ([true, true, false], None),
        ([true, false, true], None),
        ([true, true, true], None),
        ([false, true, false], Some("succession_signature")),
        ([false, false, false], Some("succession_signature")),
    ] {
        let mut site = site();
        let [grant, revoke] = next(0);
        site.recover(0, 1, [&grant, &revoke], &Site::grant_key(0), signers);
        grant_by(&mut site, 2, &grant);
        assert_eq!(verify(&mut site).err().map(|refused| refused.reason()), reason_of, "{signers:?}");
    }
}

#[test]
fn custodians_are_whom_a_grant_key_named() {
    let [grant, revoke] = next(0);
    let mut stranger = site();
    stranger.recover(0, 1, [&grant, &revoke], &Signer::of(0x66), [true; 3]);
    assert_eq!(reason(&mut stranger), "succession_signature");
    // Named by the first key, asked after a rotation.
    let mut later = site();
    rotate(&mut later, 1, 1, &Site::grant_key(0));
    later.recover(0, 2, [&grant, &revoke], &Site::grant_key(0), [true; 3]);
    grant_by(&mut later, 2, &grant);
    assert_eq!(opens(&verify(&mut later).unwrap()), 1);
    // What opens the commitment is part of it.
    let changes: [fn(&mut CustodianWord); 6] = [
        |word| word.threshold = 1,
        |word| word.delay_s = 0,
        |word| word.salt[0] ^= 1,
        |word| word.keys.swap(0, 1),
        |word| word.custody_version = 2,
        |word| word.signatures.swap(0, 1),
    ];
    for change in changes {
        let mut site = site();
        site.recover(0, 1, [&grant, &revoke], &Site::grant_key(0), [true, true, true]);
        let claim = &mut site.claims.successions[0];
        let SuccessionAuthority::Custodians(word) = &mut claim.by else { panic!("{claim:?}") };
        change(word);
        assert_eq!(reason(&mut site), "succession_signature");
    }
}

#[test]
fn what_was_not_pinned_is_refused() {
    let mut site = site();
    let bytes = {
        rotate(&mut site, 1, 0, &Site::grant_key(0));
        site.claims.consents.clear();
        site.bytes(NOW_S)
    };
    let mut pins = site.enrolment.pins().unwrap();
    pins.relationships.remove(&Site::relationship(0));
    let refused = verify_bundle(&bytes, &pins, &Floors::default(), NOW_S).unwrap_err();
    assert_eq!(refused.to_string(), "successions[0] was not pinned here");
}

/// Four validators, of whom one is replaced.
fn replaced(site: &Site, nth: usize, by: u8) -> Vec<Signer> {
    let mut next = site.validators.clone();
    next[nth] = Signer::of(by);
    next
}

#[test]
fn validators_hand_on_by_proof_and_the_gateway_remembers() {
    let mut site = site();
    let pins = site.enrolment.pins().unwrap();
    for (nth, by) in [(0, 0xb0), (1, 0xb1), (2, 0xb2), (3, 0xb3)] {
        let next = replaced(&site, nth, by);
        site.hand_over(NOW_S - 10, next.clone(), &next[..3]);
    }
    let all = site.bytes(NOW_S);
    let bundle = verify_bundle(&all, &pins, &Floors::default(), NOW_S).unwrap();
    let (_, floors) = bundle.admit(&Floors::default()).unwrap();
    assert_eq!(floors.validators.as_ref().unwrap().now.len(), 4);
    // Nobody of those who were pinned seals any more. Who remembers needs no list, and does not go back.
    let handovers = std::mem::take(&mut site.handovers);
    let later = site.bytes(NOW_S + 1);
    assert!(verify_bundle(&later, &pins, &floors, NOW_S + 1).is_ok());
    let refused = verify_bundle(&later, &pins, &Floors::default(), NOW_S + 1).unwrap_err();
    assert_eq!(refused.reason(), "validators_other");
    let mut old = site.clone();
    old.validators = (0..4).map(|nth| Signer::of(0xa0 + nth)).collect();
    let refused = verify_bundle(&old.bytes(NOW_S + 2), &pins, &floors, NOW_S + 2).unwrap_err();
    assert_eq!(refused.reason(), "validators_other");
    // The list again, also where it is known; and one that begins too late.
    site.handovers = handovers;
    assert!(verify_bundle(&site.bytes(NOW_S + 3), &pins, &floors, NOW_S + 3).is_ok());
    site.handovers.remove(0);
    let refused = verify_bundle(&site.bytes(NOW_S + 4), &pins, &Floors::default(), NOW_S + 4).unwrap_err();
    assert_eq!(refused, BundleRefusal::Header(crate::verify::HeaderError::Handover { seals: 1, needed: 2 }));
    // Who is enrolled anew begins with whom that enrolment names, whatever was before.
    let mut other = pins;
    other.validators = site.validators.iter().map(Signer::address).collect();
    assert!(verify_bundle(&site.bytes(NOW_S + 5), &other, &floors, NOW_S + 5).is_ok());
}

#[test]
fn strangers_can_not_hand_on_to_themselves() {
    let theirs: Vec<_> = (0..4).map(|nth| Signer::of(0xe0 + nth)).collect();
    let made = |next: Vec<Signer>, sealers: &[Signer]| {
        let mut site = site();
        site.hand_over(NOW_S - 10, next, sealers);
        reason(&mut site)
    };
    assert_eq!(made(theirs.clone(), &theirs), "handover");
    // One of the validators so far is with them: fewer than a third are not honest, but one may be.
    let one = [&theirs[..3], &[Signer::of(0xa0)]].concat();
    assert_eq!(made(one.clone(), &one), "handover");
    // Two name themselves and two strangers: one of them is honest by what the chain rests on.
    let two = [&theirs[..2], &[Signer::of(0xa0), Signer::of(0xa1)]].concat();
    let mut site = site();
    site.hand_over(NOW_S - 10, two.clone(), &two);
    assert!(verify(&mut site).is_ok());
    // As everywhere, a quorum of those that are named, each once.
    assert_eq!(made(two.clone(), &two[1..3]), "quorum");
    let twice = [two[0].clone(), two[2].clone(), two[2].clone(), two[3].clone()];
    assert_eq!(made(two.clone(), &twice), "seal_duplicate");
    assert_eq!(made(two.clone(), &[&two[..3], &[Signer::of(0x66)]].concat()), "validator_unknown");
    assert_eq!(made(Vec::new(), &two), "validators_other");
}

#[test]
fn revocations_alone_are_of_the_first_keys_or_the_newest() {
    let mut site = site();
    rotate(&mut site, 1, 0, &Site::grant_key(0));
    rotate(&mut site, 2, 1, &next(0)[0]);
    let bundle = verify(&mut site).unwrap();
    let pins = site.enrolment.pins().unwrap();
    let revocation = Revocation { relationship: Site::relationship(0), version: 1 };
    let by = |key: &Signer, keys: &NewestKeys| {
        let signature = key.sign(&revocation_digest(&revocation, &pins.domain));
        verify_revocation(&SignedRevocation { revocation: revocation.clone(), signature }, &pins, keys)
    };
    let ([grant, revoke], [middle_grant, middle_revoke]) = (next(1), next(0));
    let good = [
        (Site::grant_key(0), Site::revoke_key(0), RevocationSigner::GrantKey),
        (Site::revoke_key(0), Site::grant_key(0), RevocationSigner::RevokeKey),
        (grant.clone(), revoke.clone(), RevocationSigner::GrantKey),
        (revoke.clone(), grant, RevocationSigner::RevokeKey),
    ];
    for (key, other, signer) in good {
        assert_eq!(by(&key, &bundle.keys), Ok(RevokedWith { signer, other_key: other.address() }));
    }
    for key in [middle_grant, middle_revoke, Site::grant_key(1), Signer::of(0x66)] {
        assert_eq!(by(&key, &bundle.keys).unwrap_err().reason(), "revocation_signature");
    }
    // Before a bundle has shown them, nobody knows whose they are.
    assert_eq!(by(&revoke, &NewestKeys::default()).unwrap_err().reason(), "revocation_signature");
}
