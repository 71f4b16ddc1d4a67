use caregate_protocol::policy::{EcdsaSignature, Emergency, Grant, Revocation};

use super::*;

const RELATIONSHIP: RelationshipId = RelationshipId([4; 32]);
const NEAR: RecipientId = RecipientId([1; 20]);
const FAR: RecipientId = RecipientId([2; 20]);
const PSEUDONYM: Pseudonym = Pseudonym([7; 32]);

fn at(block: u64, event: Event) -> LedgerEvent {
    LedgerEvent { block, index: 0, transaction: [0; 32], event }
}

fn granted(relationship: RelationshipId, grantee: RecipientId, version: u64) -> Event {
    let grant = Grant {
        relationship,
        grantee,
        classes: 1,
        purposes: 1,
        from: 1,
        until: 2,
        stale_bound_s: 0,
        version,
    };
    Event::Granted(SignedGrant { grant, signature: EcdsaSignature([0; 65]) })
}

fn revoked(version: u64) -> Event {
    let revocation = Revocation { relationship: RELATIONSHIP, version };
    Event::Revoked(SignedRevocation { revocation, signature: EcdsaSignature([0; 65]) })
}

fn key(participant: RecipientId, version: u64) -> Event {
    let signature = EcdsaSignature([0; 65]);
    Event::ParticipantKeySet(SignedParticipantKey {
        participant,
        hpke_public_key: [9; 32],
        version,
        signature,
    })
}

fn opened(domain: RecipientId, number: u64) -> Event {
    let emergency = Emergency {
        pseudonym: PSEUDONYM,
        domain,
        clinician: Commitment([0; 32]),
        reason: Commitment([0; 32]),
        from: 1,
        until: 2,
        number,
    };
    Event::EmergencyOpened(SignedEmergency { emergency, signature: EcdsaSignature([0; 65]) })
}

fn watch() -> Watch {
    Watch { relationships: vec![RELATIONSHIP], bindings: vec![], pseudonyms: vec![PSEUDONYM] }
}

#[test]
fn the_newest_version_counts_in_whatever_order_events_come() {
    let mut index = Index::default();
    index.apply(&at(1, granted(RELATIONSHIP, NEAR, 2)));
    index.apply(&at(2, granted(RELATIONSHIP, NEAR, 1)));
    let consent = index.consent(&RELATIONSHIP).unwrap();
    assert_eq!(consent.standing().map(|signed| signed.grant.version), Some(2));
    index.apply(&at(3, revoked(2)));
    index.apply(&at(4, revoked(1)));
    let consent = index.consent(&RELATIONSHIP).unwrap();
    assert_eq!((consent.standing(), consent.changed), (None, 3));
    assert_eq!(consent.revocation.as_ref().map(|signed| signed.revocation.version), Some(2));
    index.apply(&at(5, granted(RELATIONSHIP, NEAR, 3)));
    assert!(index.consent(&RELATIONSHIP).unwrap().standing().is_some());
}

#[test]
fn a_relationship_moves_with_its_grantee() {
    let mut index = Index::default();
    index.apply(&at(1, granted(RELATIONSHIP, NEAR, 1)));
    assert_eq!(index.consents_to(&NEAR).count(), 1);
    index.apply(&at(2, granted(RELATIONSHIP, FAR, 2)));
    assert_eq!((index.consents_to(&NEAR).count(), index.consents_to(&FAR).count()), (0, 1));
}

#[test]
fn a_change_of_what_is_watched_is_seen_and_no_other() {
    let mut index = Index::default();
    assert_eq!(index.last_change(&watch()), 0);
    index.apply(&at(3, granted(RELATIONSHIP, NEAR, 1)));
    index.apply(&at(4, granted(RelationshipId([5; 32]), FAR, 1)));
    assert_eq!(index.last_change(&watch()), 3);
    index.apply(&at(5, key(NEAR, 1)));
    assert_eq!(index.last_change(&watch()), 5, "the grantee's key");
    index.apply(&at(6, key(FAR, 1)));
    assert_eq!(index.last_change(&watch()), 5, "a stranger's key");
    index.apply(&at(7, opened(FAR, 1)));
    assert_eq!(index.last_change(&watch()), 7);
    assert_eq!(index.emergencies_of(&PSEUDONYM).count(), 1);
    assert_eq!((index.emergencies_by(&FAR).count(), index.emergencies_by(&NEAR).count()), (1, 0));
}

#[test]
fn a_full_index_takes_what_it_knows_and_what_is_asked_for() {
    let mut index = Index::new(1);
    index.apply(&at(1, granted(RelationshipId([9; 32]), NEAR, 1)));
    let new = at(8, granted(RELATIONSHIP, NEAR, 1));
    index.apply(&new);
    assert!(index.consent(&RELATIONSHIP).is_none());
    assert_eq!(index.last_change(&watch()), 8, "what has no place counts as changed");
    index.insert(&new);
    assert!(index.consent(&RELATIONSHIP).is_some());
    index.apply(&at(9, revoked(1)));
    assert_eq!(index.consent(&RELATIONSHIP).unwrap().standing(), None, "it has its place now");
}
