//! What the contract does, on any ledger: each function, each refusal, each slot.

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256};
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Commitment, Emergency, Grant, Pseudonym, RelationshipId, Revocation};
use k256::ecdsa::SigningKey;
use ledger_client::verify::{self, slots};

use super::ledger::{Caregate, Ledger, address, key, sign};

/// Half of the group order (EIP-2), and the group order.
const S_MAX: &str = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";
const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

/// All of it.
pub fn all(ledger: &Ledger) {
    assert_eq!(ledger.view(Caregate::registrarCall {}), address(&ledger.registrar));
    assert_eq!(ledger.epoch(), 0);
    participants(ledger);
    participant_keys(ledger);
    signatures(ledger);
    grants(ledger);
    revocations(ledger);
    bindings(ledger);
    emergencies(ledger);
    reviews(ledger);
    domain(ledger);
}

fn recipient(key: &SigningKey) -> RecipientId {
    RecipientId(address(key).into_array())
}

fn own(key: &SigningKey) -> verify::Address {
    verify::Address(address(key).into_array())
}

/// A storage word from its fields, highest first, as (value, bytes).
fn packed(fields: &[(u64, usize)]) -> [u8; 32] {
    let mut word = Vec::new();
    for (value, width) in fields {
        word.extend_from_slice(&value.to_be_bytes()[8 - width..]);
    }
    let mut out = [0; 32];
    out[32 - word.len()..].copy_from_slice(&word);
    out
}

fn set(participant: Address, status: u8, kind: u8, emergency: bool) -> Caregate::setParticipantCall {
    Caregate::setParticipantCall { participant, status, kind, emergency }
}

fn participants(ledger: &Ledger) {
    let (hospital, stranger) = (key(10), key(11));
    let event: Caregate::ParticipantSet =
        ledger.accepted(&ledger.registrar, set(address(&hospital), 1, 1, true));
    assert_eq!(
        (event.participant, event.status, event.kind, event.emergency),
        (address(&hospital), 1, 1, true)
    );
    let [_, word] = slots::participant(&recipient(&hospital));
    assert_eq!(ledger.word(&word), packed(&[(1, 1), (1, 1), (1, 1), (0, 8)]));
    let event: Caregate::ParticipantSet =
        ledger.accepted(&ledger.registrar, set(address(&hospital), 2, 0, false));
    assert_eq!(event.status, 2);
    assert_eq!(ledger.word(&word), packed(&[(0, 1), (0, 1), (2, 1), (0, 8)]));
    assert_eq!(ledger.word(&slots::EPOCH), packed(&[(2, 8)]));

    let error: Caregate::NotRegistrar = ledger.refused(&stranger, set(address(&stranger), 1, 1, true));
    assert_eq!(error.sender, address(&stranger));
    let _: Caregate::ZeroAddress = ledger.refused(&ledger.registrar, set(Address::ZERO, 1, 1, true));
    let error: Caregate::UnknownStatus =
        ledger.refused(&ledger.registrar, set(address(&hospital), 3, 1, true));
    assert_eq!(error.status, 3);
    let error: Caregate::UnknownKind = ledger.refused(&ledger.registrar, set(address(&hospital), 1, 2, true));
    assert_eq!(error.kind, 2);
}

fn set_key(
    ledger: &Ledger,
    by: &SigningKey,
    of: &SigningKey,
    hpke: u8,
    version: u64,
) -> Caregate::setParticipantKeyCall {
    let hpke_key = [hpke; 32];
    let digest = verify::participant_key_digest(&recipient(of), &hpke_key, version, &ledger.domain());
    let k = Caregate::ParticipantKey { participant: address(of), hpkeKey: hpke_key.into(), version };
    assert_eq!(ledger.view(Caregate::participantKeyDigestCall { k: k.clone() }), B256::from(digest));
    Caregate::setParticipantKeyCall { k, signature: sign(by, &digest) }
}

fn participant_keys(ledger: &Ledger) {
    // Before it is registered, and relayed by somebody else.
    let (hospital, stranger) = (key(20), key(21));
    let call = set_key(ledger, &hospital, &hospital, 7, 3);
    let event: Caregate::ParticipantKeySet = ledger.accepted(&ledger.relay, call.clone());
    assert_eq!((event.participant, event.k, event.signature), (address(&hospital), call.k, call.signature));
    let [hpke, word] = slots::participant(&recipient(&hospital));
    assert_eq!(ledger.word(&hpke), [7; 32]);
    assert_eq!(ledger.word(&word), packed(&[(3, 8)]));
    let _: Caregate::ParticipantSet =
        ledger.accepted(&ledger.registrar, set(address(&hospital), 1, 1, false));
    assert_eq!(ledger.word(&word), packed(&[(0, 1), (1, 1), (1, 1), (3, 8)]));
    let stored = ledger.view(Caregate::participantsCall(address(&hospital)));
    assert_eq!((stored.hpkeKey, stored.keyVersion), ([7; 32].into(), 3));
    assert_eq!((stored.status, stored.kind, stored.emergency), (1, 1, false));

    for version in [0, 2, 3] {
        let call = set_key(ledger, &hospital, &hospital, 8, version);
        let error: Caregate::VersionNotRaised = ledger.refused(&ledger.relay, call);
        assert_eq!((error.version, error.known), (version, 3));
    }
    let call = set_key(ledger, &hospital, &hospital, 0, 4);
    let _: Caregate::ZeroKey = ledger.refused(&ledger.relay, call);
    // Neither a stranger nor the registrar puts a key in a hospital's place.
    for by in [&stranger, &ledger.registrar] {
        let call = set_key(ledger, by, &hospital, 9, 4);
        let error: Caregate::WrongSigner = ledger.refused(&ledger.registrar, call);
        assert_eq!(error.recovered, address(by));
    }
}

/// A signature has one form.
fn signatures(ledger: &Ledger) {
    let hospital = key(22);
    let good = set_key(ledger, &hospital, &hospital, 1, 1);
    let with =
        |signature: Vec<u8>| Caregate::setParticipantKeyCall { signature: signature.into(), ..good.clone() };
    for length in [0, 64, 66] {
        let mut signature = good.signature.to_vec();
        signature.resize(length, 0);
        let error: Caregate::SignatureLength = ledger.refused(&ledger.relay, with(signature));
        assert_eq!(error.length, U256::from(length));
    }
    for v in [0, 1, 26, 29, 255] {
        let mut signature = good.signature.to_vec();
        signature[64] = v;
        let error: Caregate::SignatureV = ledger.refused(&ledger.relay, with(signature));
        assert_eq!(error.v, v);
    }
    // The other spelling: order − s, and the other v.
    let mut high = good.signature.to_vec();
    let s = U256::from_be_slice(&high[32..64]);
    assert!(s <= U256::from_str_radix(S_MAX, 16).unwrap());
    let other = U256::from_str_radix(ORDER, 16).unwrap() - s;
    high[32..64].copy_from_slice(&other.to_be_bytes::<32>());
    high[64] = 27 + 28 - high[64];
    let _: Caregate::SignatureHighS = ledger.refused(&ledger.relay, with(high));
    let mut none = good.signature.to_vec();
    none[..32].fill(0);
    let _: Caregate::SignatureInvalid = ledger.refused(&ledger.relay, with(none));
    let _: Caregate::ParticipantKeySet = ledger.accepted(&ledger.relay, good);
}

struct Keys {
    grant: SigningKey,
    revoke: SigningKey,
}

impl Keys {
    fn new(number: u64) -> Self {
        Self { grant: key(1000 + number), revoke: key(2000 + number) }
    }

    fn relationship(&self) -> RelationshipId {
        slots::relationship(&own(&self.grant), &own(&self.revoke))
    }

    fn terms(&self, version: u64) -> Grant {
        Grant {
            relationship: self.relationship(),
            grantee: RecipientId([0xb2; 20]),
            classes: 0x0102_0304,
            purposes: 0x0506_0708,
            from: 0x1111_2222_3333_4444,
            until: 0x5555_6666_7777_8888,
            stale_bound_s: 0x090a_0b0c,
            version,
        }
    }

    fn grant(&self, ledger: &Ledger, terms: &Grant, by: &SigningKey) -> Caregate::grantCall {
        let digest = verify::grant_digest(terms, &ledger.domain());
        let g = message(terms);
        assert_eq!(ledger.view(Caregate::grantDigestCall { g: g.clone() }), B256::from(digest));
        Caregate::grantCall { g, revokeKey: address(&self.revoke), signature: sign(by, &digest) }
    }

    fn revoke(&self, ledger: &Ledger, version: u64, by_revoke_key: bool) -> Caregate::revokeCall {
        let revocation = Revocation { relationship: self.relationship(), version };
        let digest = verify::revocation_digest(&revocation, &ledger.domain());
        let r = Caregate::Revocation { relationship: revocation.relationship.0.into(), version };
        assert_eq!(ledger.view(Caregate::revocationDigestCall { r: r.clone() }), B256::from(digest));
        let (by, other) =
            if by_revoke_key { (&self.revoke, &self.grant) } else { (&self.grant, &self.revoke) };
        let signature = sign(by, &digest);
        Caregate::revokeCall { r, otherKey: address(other), byRevokeKey: by_revoke_key, signature }
    }

    fn holds(&self, ledger: &Ledger, time: u64) -> bool {
        let relationship = self.relationship().0.into();
        ledger.view(Caregate::consentHoldsCall { relationship, time })
    }
}

fn message(grant: &Grant) -> Caregate::Grant {
    Caregate::Grant {
        relationship: grant.relationship.0.into(),
        grantee: grant.grantee.0.into(),
        classes: grant.classes,
        purposes: grant.purposes,
        from: grant.from,
        until: grant.until,
        staleBoundS: grant.stale_bound_s,
        version: grant.version,
    }
}

fn grants(ledger: &Ledger) {
    let keys = Keys::new(1);
    let terms = keys.terms(1);
    let call = keys.grant(ledger, &terms, &keys.grant);
    let event: Caregate::Granted = ledger.accepted(&ledger.relay, call.clone());
    assert_eq!((event.relationship, event.g, event.signature), (call.g.relationship, call.g, call.signature));
    let [first, second] = slots::consent(&terms.relationship);
    let mut expected = [0xb2; 32];
    expected[..12].copy_from_slice(&[9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4]);
    assert_eq!(ledger.word(&first), expected);
    assert_eq!(ledger.word(&second), packed(&[(0, 8), (1, 8), (terms.until, 8), (terms.from, 8)]));
    let times = [terms.from - 1, terms.from, terms.until - 1, terms.until];
    assert_eq!(times.map(|time| keys.holds(ledger, time)), [false, true, true, false]);
    let relationship = ledger.view(Caregate::relationshipOfCall {
        grantKey: address(&keys.grant),
        revokeKey: address(&keys.revoke),
    });
    assert_eq!(relationship, B256::from(terms.relationship.0));

    for version in [0, 1] {
        let call = keys.grant(ledger, &keys.terms(version), &keys.grant);
        let error: Caregate::VersionNotRaised = ledger.refused(&ledger.relay, call);
        assert_eq!((error.version, error.known), (version, 1));
    }
    refused_terms(ledger, &keys);
    // A second grant takes the first one's place, also with less.
    let less = Grant { classes: 1, until: terms.from + 1, ..keys.terms(5) };
    let call = keys.grant(ledger, &less, &keys.grant);
    let _: Caregate::Granted = ledger.accepted(&ledger.relay, call);
    assert_eq!(ledger.word(&second), packed(&[(0, 8), (5, 8), (terms.from + 1, 8), (terms.from, 8)]));
    let stored = ledger.view(Caregate::consentsCall(terms.relationship.0.into()));
    assert_eq!((stored.classes, stored.version, stored.revoked), (1, 5, 0));
}

fn refused_terms(ledger: &Ledger, keys: &Keys) {
    let terms = keys.terms(2);
    let refuse = |terms: &Grant| keys.grant(ledger, terms, &keys.grant);
    let zero = Grant { grantee: RecipientId([0; 20]), ..terms };
    let _: Caregate::ZeroAddress = ledger.refused(&ledger.relay, refuse(&zero));
    for empty in [Grant { classes: 0, ..terms }, Grant { purposes: 0, ..terms }] {
        let _: Caregate::EmptyGrant = ledger.refused(&ledger.relay, refuse(&empty));
    }
    let never = Grant { until: terms.from, ..terms };
    let error: Caregate::TimesReversed = ledger.refused(&ledger.relay, refuse(&never));
    assert_eq!((error.from, error.until), (terms.from, terms.from));
    // The revoke-only key grants nothing, nor does anybody else, nor the grant key of another relationship.
    for by in [&keys.revoke, &ledger.registrar, &key(1002)] {
        let call = keys.grant(ledger, &terms, by);
        let error: Caregate::WrongSigner = ledger.refused(&ledger.relay, call);
        assert_eq!(error.recovered, address(by));
    }
    // Changed on the way: each field is signed.
    let good = keys.grant(ledger, &terms, &keys.grant);
    let changed = [
        Caregate::Grant { grantee: Address::repeat_byte(9), ..good.g.clone() },
        Caregate::Grant { classes: 1, ..good.g.clone() },
        Caregate::Grant { purposes: 1, ..good.g.clone() },
        Caregate::Grant { from: 1, ..good.g.clone() },
        Caregate::Grant { until: u64::MAX, ..good.g.clone() },
        Caregate::Grant { staleBoundS: u32::MAX, ..good.g.clone() },
        Caregate::Grant { version: 9, ..good.g },
    ];
    for g in changed {
        let _: Caregate::WrongSigner =
            ledger.refused(&ledger.relay, Caregate::grantCall { g, ..good.clone() });
    }
    let call = Caregate::grantCall { revokeKey: Address::ZERO, ..good.clone() };
    let _: Caregate::WrongSigner = ledger.refused(&ledger.relay, call);
    // Signed for another chain.
    let elsewhere = verify::Domain { chain_id: ledger.chain_id + 1, ..ledger.domain() };
    let signature = sign(&keys.grant, &verify::grant_digest(&terms, &elsewhere));
    let _: Caregate::WrongSigner = ledger.refused(&ledger.relay, Caregate::grantCall { signature, ..good });
}

fn revocations(ledger: &Ledger) {
    let keys = Keys::new(3);
    let terms = keys.terms(1);
    let [_, word] = slots::consent(&terms.relationship);
    // Of a version that was never granted.
    let call = keys.revoke(ledger, 2, true);
    let event: Caregate::Revoked = ledger.accepted(&ledger.relay, call.clone());
    assert_eq!((event.relationship, event.r, event.signature), (call.r.relationship, call.r, call.signature));
    assert_eq!(ledger.word(&word), packed(&[(2, 8), (0, 8), (0, 8), (0, 8)]));
    for version in [1, 2] {
        let call = keys.grant(ledger, &keys.terms(version), &keys.grant);
        let error: Caregate::VersionRevoked = ledger.refused(&ledger.relay, call);
        assert_eq!((error.version, error.revoked), (version, 2));
    }
    let call = keys.grant(ledger, &keys.terms(3), &keys.grant);
    let _: Caregate::Granted = ledger.accepted(&ledger.relay, call);
    assert!(keys.holds(ledger, terms.from));
    // By the grant key.
    let call = keys.revoke(ledger, 3, false);
    let _: Caregate::Revoked = ledger.accepted(&ledger.relay, call);
    assert!(!keys.holds(ledger, terms.from));
    assert_eq!(ledger.word(&word), packed(&[(3, 8), (3, 8), (terms.until, 8), (terms.from, 8)]));
    // Again, and an older one: neither fails, neither changes anything.
    let epoch = ledger.epoch();
    for (version, by_revoke_key) in [(3, false), (3, true), (1, true)] {
        let receipt = ledger.send(&ledger.relay, encoded(&keys.revoke(ledger, version, by_revoke_key)));
        assert!(receipt.success() && receipt.0["logs"] == serde_json::json!([]), "{}", receipt.0);
    }
    assert_eq!(ledger.epoch(), epoch);

    let call = keys.revoke(ledger, 0, true);
    let error: Caregate::VersionNotRaised = ledger.refused(&ledger.relay, call);
    assert_eq!((error.version, error.known), (0, 0));
    let good = keys.revoke(ledger, 9, true);
    let wrong = [
        Caregate::revokeCall { byRevokeKey: false, ..good.clone() },
        Caregate::revokeCall { otherKey: address(&keys.revoke), ..good.clone() },
        Caregate::revokeCall { r: Caregate::Revocation { version: 10, ..good.r.clone() }, ..good },
    ];
    for call in wrong {
        let _: Caregate::WrongSigner = ledger.refused(&ledger.relay, call);
    }
}

fn encoded(call: &impl alloy_sol_types::SolCall) -> Vec<u8> {
    call.abi_encode()
}

fn bind(ledger: &Ledger, home: &SigningKey, bound: bool, version: u64) -> Caregate::bindDeviceCall {
    let commitment = Commitment([0xc0; 32]);
    let digest = verify::binding_digest(&commitment, bound, version, &ledger.domain());
    let b = Caregate::DeviceBinding { commitment: commitment.0.into(), bound, version };
    assert_eq!(ledger.view(Caregate::bindingDigestCall { b: b.clone() }), B256::from(digest));
    Caregate::bindDeviceCall { b, signature: sign(home, &digest) }
}

fn bindings(ledger: &Ledger) {
    let (home, neighbour) = (key(30), key(31));
    let name = slots::binding_key(&own(&home), &Commitment([0xc0; 32]));
    let word = slots::binding(&name);
    let call = bind(ledger, &home, true, 1);
    let event: Caregate::DeviceBound = ledger.accepted(&ledger.relay, call.clone());
    assert_eq!((event.key, event.b, event.signature), (B256::from(name.0), call.b, call.signature));
    assert_eq!(ledger.word(&word), packed(&[(1, 1), (1, 8)]));
    let of = Caregate::bindingKeyCall { homeKey: address(&home), commitment: [0xc0; 32].into() };
    assert_eq!(ledger.view(of), B256::from(name.0));
    // Another home's word about the same device is a value of its own.
    let call = bind(ledger, &neighbour, false, 7);
    let event: Caregate::DeviceBound = ledger.accepted(&ledger.relay, call);
    assert_ne!(event.key, B256::from(name.0));
    assert_eq!(ledger.word(&word), packed(&[(1, 1), (1, 8)]));
    let call = bind(ledger, &home, false, 2);
    let _: Caregate::DeviceBound = ledger.accepted(&ledger.relay, call);
    assert_eq!(ledger.word(&word), packed(&[(0, 1), (2, 8)]));
    let stored = ledger.view(Caregate::bindingsCall(name.0.into()));
    assert_eq!((stored.version, stored.bound), (2, false));
    for version in [0, 2] {
        let call = bind(ledger, &home, true, version);
        let error: Caregate::VersionNotRaised = ledger.refused(&ledger.relay, call);
        assert_eq!((error.version, error.known), (version, 2));
    }
}

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
    let message = Caregate::Emergency {
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

const LONGEST_S: u64 = 4 * 3600;

fn emergencies(ledger: &Ledger) {
    let (domain, now) = (key(40), ledger.now_s());
    let call = open(ledger, &emergency(&domain, now, now + 60, 1), &domain);
    let refuse = |status, flag| {
        let _: Caregate::ParticipantSet =
            ledger.accepted(&ledger.registrar, set(address(&domain), status, 0, flag));
        let error: Caregate::NotEmergencyParticipant = ledger.refused(&ledger.relay, call.clone());
        assert_eq!(error.domain, address(&domain));
    };
    refuse(1, false);
    refuse(2, true);
    refuse(0, true);
    let stranger = key(41);
    let unknown = open(ledger, &emergency(&stranger, now, now + 60, 1), &stranger);
    let _: Caregate::NotEmergencyParticipant = ledger.refused(&ledger.relay, unknown);

    let _: Caregate::ParticipantSet = ledger.accepted(&ledger.registrar, set(address(&domain), 1, 0, true));
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
    let call = open(ledger, &emergency(domain, now, now + 60, 3), &ledger.registrar);
    let error: Caregate::WrongSigner = ledger.refused(&ledger.relay, call);
    assert_eq!(error.recovered, address(&ledger.registrar));
}

fn reviews(ledger: &Ledger) {
    let (domain, now) = (key(40), ledger.now_s());
    let review = |number| Caregate::reviewEmergencyCall {
        pseudonym: [0xe1; 32].into(),
        domain: address(&domain),
        number,
    };
    let error: Caregate::NotRegistrar = ledger.refused(&ledger.relay, review(3));
    assert_eq!(error.sender, address(&ledger.relay));
    for number in [0, 2, 4] {
        let error: Caregate::NotThisEmergency = ledger.refused(&ledger.registrar, review(number));
        assert_eq!((error.number, error.known), (number, 3));
    }
    let event: Caregate::EmergencyReviewed = ledger.accepted(&ledger.registrar, review(3));
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
}

/// EIP-5267, for wallets of others.
fn domain(ledger: &Ledger) {
    let domain = ledger.view(Caregate::eip712DomainCall {});
    assert_eq!(domain.fields, FixedBytes([0x0f]));
    assert_eq!((domain.name.as_str(), domain.version.as_str()), ("Caregate", "1"));
    assert_eq!((domain.chainId, domain.verifyingContract), (U256::from(ledger.chain_id), ledger.contract));
    assert_eq!((domain.salt, domain.extensions), (B256::ZERO, Vec::new()));
    assert_eq!(ledger.view(Caregate::EMERGENCY_MAX_SCall {}), LONGEST_S);
    // It takes no ether and knows no other function.
    let request = serde_json::json!({ "to": ledger.contract, "data": Bytes::from(vec![1, 2, 3, 4]) });
    assert_eq!(ledger.rpc.error("eth_call", serde_json::json!([request, "latest"]))["code"], 3);
}
