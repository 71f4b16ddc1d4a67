//! What the contract does, on any ledger: each function, each refusal, each slot.

mod consent;
mod emergency;

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256};
use caregate_protocol::id::RecipientId;
use k256::ecdsa::SigningKey;
use ledger_client::verify::{self, slots};

use super::ledger::{Caregate, ICaregate, Ledger, address, key, sign};

/// Half of the group order (EIP-2), and the group order.
const S_MAX: &str = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";
const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

/// The longest emergency.
const LONGEST_S: u64 = 4 * 3600;

/// All of it.
pub fn all(ledger: &Ledger) {
    assert_eq!(ledger.view(Caregate::governorsCall {}), [address(&ledger.governor)]);
    assert_eq!(ledger.epoch(), 0);
    participants(ledger);
    participant_keys(ledger);
    signatures(ledger);
    consent::grants(ledger);
    consent::revocations(ledger);
    consent::bindings(ledger);
    emergency::emergencies(ledger);
    emergency::reviews(ledger);
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

/// The governor's change of a participant, after as many as there were.
fn set(
    ledger: &Ledger,
    by: &SigningKey,
    participant: Address,
    (status, kind, emergency): (u8, u8, bool),
) -> Caregate::approveParticipantCall {
    let version = ledger.view(Caregate::participantVersionsCall(participant)) + 1;
    let c = ICaregate::ParticipantChange { participant, status, kind, emergency, version };
    let digest = ledger.view(Caregate::participantChangeDigestCall { c: c.clone() });
    Caregate::approveParticipantCall { c, signature: sign(by, &digest.0) }
}

fn participants(ledger: &Ledger) {
    let (hospital, stranger) = (key(10), key(11));
    let event: Caregate::ParticipantSet =
        ledger.accepted(&ledger.governor, set(ledger, &ledger.governor, address(&hospital), (1, 1, true)));
    assert_eq!(
        (event.participant, event.status, event.kind, event.emergency),
        (address(&hospital), 1, 1, true)
    );
    let [_, word] = slots::participant(&recipient(&hospital));
    assert_eq!(ledger.word(&word), packed(&[(1, 1), (1, 1), (1, 1), (0, 8)]));
    let event: Caregate::ParticipantSet =
        ledger.accepted(&ledger.governor, set(ledger, &ledger.governor, address(&hospital), (2, 0, false)));
    assert_eq!(event.status, 2);
    assert_eq!(ledger.word(&word), packed(&[(0, 1), (0, 1), (2, 1), (0, 8)]));
    assert_eq!(ledger.word(&slots::EPOCH), packed(&[(2, 8)]));

    let error: Caregate::NotGovernor =
        ledger.refused(&ledger.governor, set(ledger, &stranger, address(&stranger), (1, 1, true)));
    assert_eq!(error.who, address(&stranger));
    let _: Caregate::ZeroAddress =
        ledger.refused(&ledger.governor, set(ledger, &ledger.governor, Address::ZERO, (1, 1, true)));
    let error: Caregate::UnknownStatus =
        ledger.refused(&ledger.governor, set(ledger, &ledger.governor, address(&hospital), (3, 1, true)));
    assert_eq!(error.status, 3);
    let error: Caregate::UnknownKind =
        ledger.refused(&ledger.governor, set(ledger, &ledger.governor, address(&hospital), (1, 2, true)));
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
    let k = ICaregate::ParticipantKey { participant: address(of), hpkeKey: hpke_key.into(), version };
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
        ledger.accepted(&ledger.governor, set(ledger, &ledger.governor, address(&hospital), (1, 1, false)));
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
    // Neither a stranger nor the governor puts a key in a hospital's place.
    for by in [&stranger, &ledger.governor] {
        let call = set_key(ledger, by, &hospital, 9, 4);
        let error: Caregate::WrongSigner = ledger.refused(&ledger.governor, call);
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
