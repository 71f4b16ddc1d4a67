//! Break-glass and its reviews.

use alloy_primitives::B256;
use alloy_sol_types::SolCall as _;
use caregate_protocol::policy::{Commitment, Emergency, Pseudonym};
use k256::ecdsa::SigningKey;
use ledger_client::verify::{self, slots};

use super::super::ledger::{Caregate, ICaregate, Ledger, address, key, sign};
use super::{LONGEST_S, packed, recipient, set};

fn emergency(domain: &SigningKey, from: u64, until: u64, number: u64) -> Emergency {
    Emergency {
        pseudonym: Pseudonym([0xe1; 32]),
        domain: recipient(domain),
        clinician: Commitment([0xc1; 32]),
        reason: Commitment([0x4e; 32]),
        from,
        until,
        number,
    }
}

fn open(ledger: &Ledger, e: &Emergency, by: &SigningKey) -> Caregate::openEmergencyCall {
    let digest = verify::emergency_digest(e, &ledger.domain());
    let message = ICaregate::Emergency {
        pseudonym: e.pseudonym.0.into(),
        domain: e.domain.0.into(),
        clinician: e.clinician.0.into(),
        reason: e.reason.0.into(),
        from: e.from,
        until: e.until,
        number: e.number,
    };
    assert_eq!(ledger.view(Caregate::emergencyDigestCall { e: message.clone() }), B256::from(digest));
    Caregate::openEmergencyCall { e: message, signature: sign(by, &digest) }
}

pub(super) fn emergencies(ledger: &Ledger) {
    let (domain, now) = (key(40), ledger.now_s());
    let call = open(ledger, &emergency(&domain, now, now + 60, 1), &domain);
    let refuse = |status, flag| {
        let _: Caregate::ParticipantSet = ledger
            .accepted(&ledger.governor, set(ledger, &ledger.governor, address(&domain), (status, 0, flag)));
        let error: Caregate::NotEmergencyParticipant = ledger.refused(&ledger.relay, call.clone());
        assert_eq!(error.domain, address(&domain));
    };
    refuse(1, false);
    refuse(2, true);
    refuse(0, true);
    let stranger = key(41);
    let unknown = open(ledger, &emergency(&stranger, now, now + 60, 1), &stranger);
    let _: Caregate::NotEmergencyParticipant = ledger.refused(&ledger.relay, unknown);

    let _: Caregate::ParticipantSet =
        ledger.accepted(&ledger.governor, set(ledger, &ledger.governor, address(&domain), (1, 0, true)));
    let longest = emergency(&domain, now, now + LONGEST_S, 2);
    let call = open(ledger, &longest, &domain);
    let event: Caregate::EmergencyOpened = ledger.accepted(&ledger.relay, call.clone());
    assert_eq!((event.pseudonym, event.domain), ([0xe1; 32].into(), address(&domain)));
    assert_eq!((event.e, event.signature), (call.e, call.signature));
    let [clinician, reason, times] = slots::emergency(&longest.pseudonym, &longest.domain);
    assert_eq!((ledger.word(&clinician), ledger.word(&reason)), ([0xc1; 32], [0x4e; 32]));
    assert_eq!(ledger.word(&times), packed(&[(0, 1), (2, 8), (now + LONGEST_S, 8), (now, 8)]));
    let holds = |time| {
        let call =
            Caregate::emergencyHoldsCall { pseudonym: [0xe1; 32].into(), domain: address(&domain), time };
        ledger.view(call)
    };
    assert_eq!([now - 1, now, now + LONGEST_S].map(holds), [false, true, false]);
    refused_emergencies(ledger, &domain, now);

    // What is over may still be written down, and the next number ends one early.
    let over = emergency(&domain, now - 900, now - 300, 3);
    let call = open(ledger, &over, &domain);
    let _: Caregate::EmergencyOpened = ledger.accepted(&ledger.relay, call);
    assert!(!holds(now));
}

fn refused_emergencies(ledger: &Ledger, domain: &SigningKey, now: u64) {
    let refuse = |e: &Emergency| open(ledger, e, domain);
    let good = emergency(domain, now, now + 60, 3);
    for unnamed in [
        Emergency { clinician: Commitment([0; 32]), ..good.clone() },
        Emergency { reason: Commitment([0; 32]), ..good },
    ] {
        let _: Caregate::EmergencyUnnamed = ledger.refused(&ledger.relay, refuse(&unnamed));
    }
    let long = emergency(domain, now, now + LONGEST_S + 1, 3);
    let error: Caregate::EmergencyTooLong = ledger.refused(&ledger.relay, refuse(&long));
    assert_eq!(error.durationS, LONGEST_S + 1);
    let reversed = emergency(domain, now, now, 3);
    let _: Caregate::TimesReversed = ledger.refused(&ledger.relay, refuse(&reversed));
    // An hour ahead: no clock is that wrong, and the test takes less.
    let stock = emergency(domain, now + 3600, now + 3700, 3);
    let error: Caregate::EmergencyAhead = ledger.refused(&ledger.relay, refuse(&stock));
    assert_eq!(error.from, now + 3600);
    for number in [0, 2] {
        let old = emergency(domain, now, now + 60, number);
        let error: Caregate::VersionNotRaised = ledger.refused(&ledger.relay, refuse(&old));
        assert_eq!((error.version, error.known), (number, 2));
    }
    let call = open(ledger, &emergency(domain, now, now + 60, 3), &ledger.governor);
    let error: Caregate::WrongSigner = ledger.refused(&ledger.relay, call);
    assert_eq!(error.recovered, address(&ledger.governor));
}

pub(super) fn reviews(ledger: &Ledger) {
    let (domain, now) = (key(40), ledger.now_s());
    let review = |number, by: &SigningKey| {
        let digest =
            verify::review_digest(&Pseudonym([0xe1; 32]), &recipient(&domain), number, &ledger.domain());
        let r = ICaregate::EmergencyReview { pseudonym: [0xe1; 32].into(), domain: address(&domain), number };
        assert_eq!(ledger.view(Caregate::reviewDigestCall { r: r.clone() }), B256::from(digest));
        Caregate::reviewEmergencyCall { r, signature: sign(by, &digest) }
    };
    for by in [&ledger.relay, &domain] {
        let error: Caregate::NotGovernor = ledger.refused(&ledger.relay, review(3, by));
        assert_eq!(error.who, address(by));
    }
    for number in [0, 4] {
        let call = review(number, &ledger.governor);
        let error: Caregate::NotThisEmergency = ledger.refused(&ledger.relay, call);
        assert_eq!((error.number, error.known), (number, 3));
    }
    let event: Caregate::EmergencyReviewed = ledger.accepted(&ledger.relay, review(3, &ledger.governor));
    assert_eq!((event.domain, event.number), (address(&domain), 3));
    let e = emergency(&domain, now, now + 60, 4);
    let [_, _, times] = slots::emergency(&e.pseudonym, &e.domain);
    assert_eq!(ledger.word(&times)[..8], packed(&[(1, 1), (3, 8), (0, 8), (0, 8)])[..8]);
    // The next one is not reviewed.
    let call = open(ledger, &e, &domain);
    let _: Caregate::EmergencyOpened = ledger.accepted(&ledger.relay, call);
    assert_eq!(ledger.word(&times), packed(&[(0, 1), (4, 8), (now + 60, 8), (now, 8)]));
    let of = Caregate::emergencyKeyCall { pseudonym: [0xe1; 32].into(), domain: address(&domain) };
    let stored = ledger.view(Caregate::emergenciesCall(ledger.view(of)));
    assert_eq!((stored.number, stored.reviewed, stored.clinician), (4, false, [0xc1; 32].into()));
    // One before it can still be looked at, once, which changes nothing of it and is no change of policy.
    let epoch = ledger.epoch();
    let first = ledger.send(&ledger.relay, review(2, &ledger.governor).abi_encode());
    assert_eq!(first.event::<Caregate::EmergencyReviewed>().number, 2);
    let again = ledger.send(&ledger.relay, review(2, &ledger.governor).abi_encode());
    assert!(again.success() && again.0["logs"] == serde_json::json!([]), "{}", again.0);
    assert_eq!(ledger.word(&times), packed(&[(0, 1), (4, 8), (now + 60, 8), (now, 8)]));
    assert_eq!(ledger.epoch(), epoch);
}
