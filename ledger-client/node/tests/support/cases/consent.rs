//! Grants, revocations and device bindings.

use alloy_primitives::{Address, B256};
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Commitment, Grant, RelationshipId, Revocation};
use k256::ecdsa::SigningKey;
use ledger_client::verify::{self, slots};

use super::super::ledger::{Caregate, ICaregate, Ledger, address, key, sign};
use super::{own, packed};

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
            until: 0x1111_2222_3777_8888,
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
        let r = ICaregate::Revocation { relationship: revocation.relationship.0.into(), version };
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

fn message(grant: &Grant) -> ICaregate::Grant {
    ICaregate::Grant {
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

pub(super) fn grants(ledger: &Ledger) {
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
    let forever = Grant { until: u64::MAX, ..terms };
    let error: Caregate::GrantTooLong = ledger.refused(&ledger.relay, refuse(&forever));
    assert_eq!(error.durationS, u64::MAX - terms.from);
    // The revoke-only key grants nothing, nor does anybody else, nor the grant key of another relationship.
    for by in [&keys.revoke, &ledger.governor, &key(1002)] {
        let call = keys.grant(ledger, &terms, by);
        let error: Caregate::WrongSigner = ledger.refused(&ledger.relay, call);
        assert_eq!(error.recovered, address(by));
    }
    // Changed on the way: each field is signed.
    let good = keys.grant(ledger, &terms, &keys.grant);
    let changed = [
        ICaregate::Grant { grantee: Address::repeat_byte(9), ..good.g.clone() },
        ICaregate::Grant { classes: 1, ..good.g.clone() },
        ICaregate::Grant { purposes: 1, ..good.g.clone() },
        ICaregate::Grant { from: 1, ..good.g.clone() },
        ICaregate::Grant { until: u64::MAX, ..good.g.clone() },
        ICaregate::Grant { staleBoundS: u32::MAX, ..good.g.clone() },
        ICaregate::Grant { version: 9, ..good.g },
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

pub(super) fn revocations(ledger: &Ledger) {
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
        Caregate::revokeCall { r: ICaregate::Revocation { version: 10, ..good.r.clone() }, ..good },
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
    let b = ICaregate::DeviceBinding { commitment: commitment.0.into(), bound, version };
    assert_eq!(ledger.view(Caregate::bindingDigestCall { b: b.clone() }), B256::from(digest));
    Caregate::bindDeviceCall { b, signature: sign(home, &digest) }
}

pub(super) fn bindings(ledger: &Ledger) {
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
