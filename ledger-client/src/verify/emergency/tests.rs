use caregate_protocol::policy::{
    Commitment, Emergency, Floors, Pseudonym, RecipientKind, RecipientStatus, SignedEmergency, VerifiedPolicy,
};

use super::*;
use crate::fixture::{Hospital, Signer, Site};
use crate::verify::{Domain, SignatureError, verify_bundle};

const HEADER_S: u64 = 1_790_000_000;

fn rescue() -> Hospital {
    Hospital::new(0x51, [0xd5; 32])
}

/// A ledger whose rescue service may break the glass, and whose city hospital may not.
fn site() -> Site {
    let mut site = Site::new(4);
    site.register(&Hospital::new(0x50, [0xd4; 32]), RecipientStatus::Active, RecipientKind::Treating, false);
    site.register(&rescue(), RecipientStatus::Active, RecipientKind::Other, true);
    site
}

fn policy(site: &mut Site) -> VerifiedPolicy {
    let floors = Floors::default();
    let pins = site.enrolment.pins().unwrap();
    let bundle = verify_bundle(&site.bytes(HEADER_S), &pins, &floors, HEADER_S).unwrap();
    bundle.admit(&floors).unwrap().0
}

fn refused(site: &mut Site, signed: &SignedEmergency, now_s: u64) -> &'static str {
    let policy = policy(site);
    verify_emergency(signed, &site.enrolment.pins().unwrap(), &policy, now_s).unwrap_err().reason()
}

/// The emergency changed, and signed anew by `by`.
fn signed(site: &Site, by: &Signer, change: impl FnOnce(&mut Emergency)) -> SignedEmergency {
    let mut emergency = site.signed_emergency(&rescue(), HEADER_S, HEADER_S + 3600, 1).emergency;
    change(&mut emergency);
    let signature = by.sign(&emergency_digest(&emergency, &site.enrolment.pins().unwrap().domain));
    SignedEmergency { emergency, signature }
}

#[test]
fn it_opens_under_a_policy_of_any_age_and_to_its_own_end() {
    let mut site = site();
    let (policy, pins) = (policy(&mut site), site.enrolment.pins().unwrap());
    for age_s in [0, 599, 601, 30 * 86_400] {
        let now_s = HEADER_S + age_s;
        let signed = site.signed_emergency(&rescue(), now_s, now_s + 3600, 1);
        let access = verify_emergency(&signed, &pins, &policy, now_s).unwrap();
        let policy = policy.clone().with_direct([access]);
        let opens = |now_s| {
            policy.recipients(&Site::PATIENT, caregate_protocol::id::DataClass::Vitals, now_s).count()
        };
        assert_eq!((opens(now_s), opens(now_s + 3599), opens(now_s + 3600)), (1, 1, 0), "{age_s}");
        // The same again, and the next with an earlier end, which is how one ends.
        verify_emergency(&signed, &pins, &policy, now_s).unwrap();
        let ending = site.signed_emergency(&rescue(), now_s, now_s + 60, 2);
        let policy = policy.clone().with_direct([verify_emergency(&ending, &pins, &policy, now_s).unwrap()]);
        let open = policy.emergencies();
        assert_eq!((open.len(), open[0].emergency.number, open[0].is_direct), (1, 2, true));
        assert_eq!(verify_emergency(&signed, &pins, &policy, now_s), Err(EmergencyRefusal::Number));
    }
}

#[test]
fn each_that_does_not_count_by_its_reason() {
    let mut site = site();
    let (own, city) = (rescue().key, Hospital::new(0x50, [0xd4; 32]));
    let strange = signed(&site, &own, |one| one.pseudonym = Pseudonym([9; 32]));
    assert_eq!(refused(&mut site, &strange, HEADER_S), "not_pinned");
    // A registered domain that may not, one that nobody knows, and one that was suspended since.
    for key in [&city.key, &Signer::of(0x66)] {
        let strange = signed(&site, key, |one| one.domain.0 = key.address().0);
        assert_eq!(refused(&mut site, &strange, HEADER_S), "emergency_stranger");
    }
    let good = signed(&site, &own, |_| ());
    let mut suspended = site.clone();
    suspended.register(&rescue(), RecipientStatus::Suspended, RecipientKind::Other, true);
    assert_eq!(refused(&mut suspended, &good, HEADER_S), "emergency_stranger");
    let nobody = signed(&site, &own, |one| one.clinician = Commitment([0; 32]));
    let for_nothing = signed(&site, &own, |one| one.reason = Commitment([0; 32]));
    for unnamed in [&nobody, &for_nothing] {
        assert_eq!(refused(&mut site, unnamed, HEADER_S), "emergency_unnamed");
    }
    let long = signed(&site, &own, |one| one.until = one.from + EMERGENCY_MAX_S + 1);
    assert_eq!(refused(&mut site, &long, HEADER_S), "emergency_too_long");
    let backwards = signed(&site, &own, |one| one.until = one.from);
    let early = signed(&site, &own, |one| (one.from, one.until) = (HEADER_S + 301, HEADER_S + 400));
    for (other, now_s) in [(&backwards, HEADER_S), (&early, HEADER_S), (&good, HEADER_S + 3600)] {
        assert_eq!(refused(&mut site, other, now_s), "emergency_not_now");
    }
    assert_eq!(refused(&mut site, &good, HEADER_S - 61), "clock_behind");
    // By another hospital, changed after it was signed, and for another ledger.
    let forged = signed(&site, &city.key, |_| ());
    assert_eq!(refused(&mut site, &forged, HEADER_S), "emergency_signature");
    let mut changed = good.clone();
    changed.emergency.reason = Commitment([7; 32]);
    assert_eq!(refused(&mut site, &changed, HEADER_S), "emergency_signature");
    let domain = Domain { chain_id: 1, ..site.enrolment.pins().unwrap().domain };
    let elsewhere =
        SignedEmergency { signature: own.sign(&emergency_digest(&good.emergency, &domain)), ..good };
    assert_eq!(refused(&mut site, &elsewhere, HEADER_S), "emergency_signature");
    let mut spelt = signed(&site, &own, |_| ());
    spelt.signature.0[64] = 0;
    let policy = policy(&mut site);
    let refusal = verify_emergency(&spelt, &site.enrolment.pins().unwrap(), &policy, HEADER_S).unwrap_err();
    assert_eq!(refusal, EmergencyRefusal::Signature(SignerError::Form(SignatureError::V)));
}
