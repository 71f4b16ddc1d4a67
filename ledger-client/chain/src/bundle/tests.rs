use caregate_protocol::policy::{
    EcdsaSignature, Emergency, Grant, Pseudonym, RecipientKind, RelationshipId, SignedEmergency, SignedGrant,
};
use ledger_client::fixture::header::HeaderFields;
use ledger_client::verify::Address;

use super::*;
use crate::client::Head;
use crate::convert::SignedParticipantKey;
use crate::event::{Event, LedgerEvent};

const NEAR: RecipientId = RecipientId([1; 20]);
const FAR: RecipientId = RecipientId([2; 20]);
const RELATIONSHIP: RelationshipId = RelationshipId([4; 32]);
const PSEUDONYM: Pseudonym = Pseudonym([7; 32]);
const SIGNATURE: EcdsaSignature = EcdsaSignature([0; 65]);

fn fields() -> HeaderFields {
    HeaderFields {
        number: 77,
        time_s: 1_790_000_000,
        state_root: [5; 32],
        parent: [6; 32],
        validators: vec![Address([8; 20]); 4],
        round: 3,
    }
}

fn block(bytes: &[u8], hash: [u8; 32]) -> Block {
    let header: Header = alloy::rlp::decode_exact(bytes).unwrap();
    Block { head: Head { number: header.number, hash, time_s: header.timestamp }, header }
}

#[test]
fn a_qbft_header_keeps_its_seals_and_is_held_against_its_id() {
    let sealed = fields().with_seals(&[[9; 65]; 3]);
    assert_eq!(header_bytes(&block(&sealed, fields().hash())).unwrap(), sealed);
    let plain = keccak256(&sealed).0;
    assert_eq!(header_bytes(&block(&sealed, plain)).unwrap(), sealed, "a chain that isn't QBFT");
    let other = header_bytes(&block(&sealed, [1; 32]));
    assert_eq!(other, Err(ChainError::HeaderHash { number: 77 }));
}

#[test]
fn extra_data_that_is_none_is_no_panic() {
    for extra in [&[][..], &[0xc0], &[0xc1, 0x80], &[0xff; 40], &[0xc3, 0x80, 0xc0, 0x80]] {
        let mut header = block(&fields().with_seals(&[]), [0; 32]);
        header.header.extra_data = Bytes::copy_from_slice(extra);
        assert!(header_bytes(&header).is_err());
    }
}

fn index() -> Index {
    let grant = Grant {
        relationship: RELATIONSHIP,
        grantee: NEAR,
        classes: 3,
        purposes: 1,
        from: 10,
        until: 900,
        stale_bound_s: 60,
        version: 2,
    };
    let key = |participant| {
        Event::ParticipantKeySet(SignedParticipantKey {
            participant,
            hpke_public_key: [9; 32],
            version: 1,
            signature: SIGNATURE,
        })
    };
    let set = |participant, emergency| Event::ParticipantSet {
        participant,
        status: Some(RecipientStatus::Active),
        kind: RecipientKind::Treating,
        emergency,
    };
    let emergency = Emergency {
        pseudonym: PSEUDONYM,
        domain: FAR,
        clinician: Commitment([1; 32]),
        reason: Commitment([2; 32]),
        from: 100,
        until: 200,
        number: 1,
    };
    let events = [
        set(NEAR, false),
        key(NEAR),
        set(FAR, true),
        key(FAR),
        Event::Granted(SignedGrant { grant, signature: SIGNATURE }),
        Event::EmergencyOpened(SignedEmergency { emergency, signature: SIGNATURE }),
    ];
    let mut index = Index::default();
    for (block, event) in (1..).zip(events) {
        index.apply(&LedgerEvent { block, index: 0, transaction: [0; 32], event });
    }
    index
}

fn watch() -> Watch {
    Watch {
        relationships: vec![RELATIONSHIP, RelationshipId([5; 32])],
        bindings: vec![Commitment([6; 32])],
        pseudonyms: vec![PSEUDONYM],
    }
}

/// Slots that say what the claims say.
fn borne_out(Claimed { claims, bindings }: &Claimed) -> Proofs {
    let mut proofs = Proofs::default();
    for (key, signed) in bindings {
        proofs.values.insert(slots::binding(key), words::binding(signed.version, signed.bound));
    }
    for claim in &claims.participants {
        proofs.values.extend(slots::participant(&claim.id).into_iter().zip(words::participant(claim)));
    }
    for signed in &claims.consents {
        let slots = slots::consent(&signed.grant.relationship);
        proofs.values.extend(slots.into_iter().zip(words::consent(&signed.grant, 0)));
    }
    for SignedEmergency { emergency, .. } in &claims.emergencies {
        let slots = slots::emergency(&emergency.pseudonym, &emergency.domain);
        proofs.values.extend(slots.into_iter().zip(words::emergency(emergency, true)));
    }
    proofs
}

#[test]
fn what_is_watched_is_claimed_with_those_whom_it_names() {
    let Claimed { claims, .. } = claims(&index(), &watch(), 150);
    let ids: Vec<_> = claims.participants.iter().map(|claim| claim.id).collect();
    assert_eq!((ids, claims.consents.len(), claims.emergencies.len()), (vec![NEAR, FAR], 1, 1));
    // One epoch, two consents of two words of which one isn't there, a binding that isn't, two participants, an emergency.
    let opened = opened(&index(), &watch());
    assert_eq!(wanted(&watch(), &claims, &opened).len(), 1 + 4 + 1 + 4 + 3);
}

#[test]
fn an_emergency_that_is_over_or_whose_domain_may_not_is_left_out() {
    let mut index = index();
    assert!(claims(&index, &watch(), 200).claims.emergencies.is_empty());
    let suspended = Event::ParticipantSet {
        participant: FAR,
        status: Some(RecipientStatus::Suspended),
        kind: RecipientKind::Treating,
        emergency: true,
    };
    index.apply(&LedgerEvent { block: 9, index: 0, transaction: [0; 32], event: suspended });
    let Claimed { claims, .. } = claims(&index, &watch(), 150);
    assert_eq!((claims.emergencies.len(), claims.participants.len()), (0, 1));
}

#[test]
fn what_the_slots_do_not_bear_out_is_left_out() {
    let claimed = claims(&index(), &watch(), 150);
    let mut proofs = borne_out(&claimed);
    let kept = |proofs: &Proofs| {
        let mut claimed = claimed.clone();
        keep_borne_out(&mut claimed, proofs);
        let claims = claimed.whole();
        (claims.participants.len(), claims.consents.len(), claims.emergencies.len())
    };
    assert_eq!(kept(&proofs), (2, 1, 1));
    proofs.values.get_mut(&slots::consent(&RELATIONSHIP)[0]).unwrap()[31] ^= 1;
    assert_eq!(kept(&proofs), (2, 0, 1));
    proofs.values.get_mut(&slots::participant(&FAR)[0]).unwrap()[0] ^= 1;
    assert_eq!(kept(&proofs), (1, 0, 0), "an emergency without its domain");
}

#[test]
fn what_only_the_slots_know_is_asked_for() {
    let claimed = claims(&index(), &watch(), 150);
    let mut proofs = borne_out(&claimed);
    assert_eq!(missing(&watch(), &claimed, &proofs), []);
    let [_, versions] = slots::consent(&RELATIONSHIP);
    // A newer grant, and a revocation.
    proofs.values.get_mut(&versions).unwrap()[15] = 3;
    proofs.values.get_mut(&versions).unwrap()[7] = 1;
    proofs.values.insert(slots::binding(&Commitment([6; 32])), words::binding(1, true));
    let asked = missing(&watch(), &claimed, &proofs);
    let events: Vec<_> = asked.iter().map(|(event, _)| *event).collect();
    let consent = [Caregate::Granted::SIGNATURE_HASH, Caregate::Revoked::SIGNATURE_HASH];
    // And the keys that may have signed them.
    let wanted = [&consent[..], &HANDING_ON, &[Caregate::DeviceBound::SIGNATURE_HASH]].concat();
    assert_eq!(events, wanted);
}

/// An index that has these of the two devices' bindings, by their keys, at version 1.
fn index_of_bindings(known: &[Commitment]) -> Index {
    let mut index = Index::default();
    for (block, key) in (1..).zip(known) {
        let commitment = Commitment([key.0[0] + 100; 32]);
        let binding = SignedBinding { commitment, bound: true, version: 1, signature: SIGNATURE };
        let event = Event::DeviceBound { key: *key, binding };
        index.apply(&LedgerEvent { block, index: 0, transaction: [0; 32], event });
    }
    index
}

#[test]
fn a_binding_is_known_and_borne_out_by_its_own_slot_alone() {
    let [one, other] = [Commitment([1; 32]), Commitment([2; 32])];
    let watch = Watch { bindings: vec![one, other], ..Watch::default() };
    let slots_say = |of_one, of_other| {
        let words = [of_one, of_other].map(|(version, bound)| words::binding(version, bound));
        Proofs {
            values: [one, other].map(|key| slots::binding(&key)).into_iter().zip(words).collect(),
            ..Proofs::default()
        }
    };
    // Both are bound by their first word, as nearly all are: the one that the index had no place for is asked for.
    let proofs = slots_say((1, true), (1, true));
    let of_other = claims(&index_of_bindings(&[other]), &watch, 150);
    let asked = [(Caregate::DeviceBound::SIGNATURE_HASH, B256::from(one.0))];
    assert_eq!(missing(&watch, &of_other, &proofs), asked);
    let of_both = claims(&index_of_bindings(&[one, other]), &watch, 150);
    assert_eq!(missing(&watch, &of_both, &proofs), []);
    // One was released since, and the other's slot says what the first one's said.
    let proofs = slots_say((2, false), (1, true));
    assert_eq!(missing(&watch, &of_both, &proofs), asked);
    let mut kept = of_both;
    keep_borne_out(&mut kept, &proofs);
    let commitments: Vec<_> = kept.whole().bindings.iter().map(|signed| signed.commitment).collect();
    assert_eq!(commitments, [Commitment([102; 32])]);
}

#[test]
fn of_too_many_emergencies_the_newest_are_delivered() {
    let (mut index, mut watch) = (index(), Watch::default());
    let first = 1 + EMERGENCIES_MAX as u64;
    for nth in 0..=first {
        let pseudonym = Pseudonym([u8::try_from(nth).unwrap(); 32]);
        watch.pseudonyms.push(pseudonym);
        let emergency = Emergency {
            pseudonym,
            domain: FAR,
            clinician: Commitment([1; 32]),
            reason: Commitment([2; 32]),
            from: nth,
            until: 900,
            number: 2,
        };
        let event = Event::EmergencyOpened(SignedEmergency { emergency, signature: SIGNATURE });
        index.apply(&LedgerEvent { block: 9, index: nth, transaction: [0; 32], event });
    }
    let claimed = claims(&index, &watch, 150);
    let begun: Vec<_> = claimed.claims.emergencies.iter().map(|signed| signed.emergency.from).collect();
    assert_eq!(begun, (2..=first).rev().collect::<Vec<_>>());
    assert!(bounded(&claimed).is_ok());
}
