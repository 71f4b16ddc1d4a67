use k256::ecdsa::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::fixture::header::{HeaderFields, address, seal};

fn key(byte: u8) -> SigningKey {
    SigningKey::from_slice(&[byte; 32]).unwrap()
}

fn fields(count: u8) -> (HeaderFields, Vec<SigningKey>) {
    let keys: Vec<_> = (1..=count).map(key).collect();
    let validators = keys.iter().map(address).collect();
    let fields = HeaderFields {
        number: 77,
        time_s: 1_790_000_000,
        state_root: [5; 32],
        parent: [6; 32],
        validators,
        round: 3,
    };
    (fields, keys)
}

fn verify(bytes: &[u8], fields: &HeaderFields) -> Result<VerifiedHeader, HeaderError> {
    verify_header(bytes, &fields.validators)
}

#[test]
fn a_quorum_of_seals_is_believed() {
    for (validators, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4), (7, 5)] {
        assert_eq!(quorum(usize::from(validators)), needed);
        let (fields, keys) = fields(validators);
        let keys: Vec<_> = keys.iter().collect();
        let header = verify(&fields.seal(&keys[..needed]), &fields).unwrap();
        assert_eq!((header.number, header.time_s, header.state_root), (77, 1_790_000_000, [5; 32]));
        assert_eq!(header.hash, fields.hash());
        let fewer = verify(&fields.seal(&keys[..needed - 1]), &fields);
        assert_eq!(fewer, Err(HeaderError::Quorum { seals: needed - 1, quorum: needed }));
    }
}

#[test]
fn each_fault_has_its_reason() {
    let (fields, keys) = fields(4);
    let [a, b, c, d] = [&keys[0], &keys[1], &keys[2], &keys[3]];
    let reason = |bytes: &[u8]| verify(bytes, &fields).unwrap_err().reason();
    assert_eq!(reason(&fields.seal(&[a, b, a])), "seal_duplicate");
    assert_eq!(reason(&fields.seal(&[a, b, &key(9)])), "validator_unknown");
    assert_eq!(reason(&fields.seal(&[])), "quorum");
    let other = HeaderFields { validators: fields.validators[..3].to_vec(), ..fields.clone() };
    assert_eq!(reason(&other.seal(&[a, b, c])), "validators_other", "a header may not choose its judges");
    let mut twice = fields.clone();
    twice.validators[3] = twice.validators[0];
    assert_eq!(reason(&twice.seal(&[a, b, c])), "validators_other");
    let digest = fields.sealed();
    let mut wallet = seal(d, &digest);
    wallet[64] += 27;
    assert_eq!(reason(&fields.with_seals(&[seal(a, &digest), seal(b, &digest), wallet])), "seal_signature");
    let later = HeaderFields { round: 4, ..fields.clone() };
    let moved = later.with_seals(&[seal(a, &digest), seal(b, &digest), seal(c, &digest)]);
    assert_eq!(reason(&moved), "validator_unknown", "a seal is of one round");
    let good = fields.seal(&[a, b, c]);
    assert_eq!(reason(&good[..good.len() - 1]), "header_rlp");
    assert_eq!(reason(&[good.as_slice(), &[0]].concat()), "header_rlp");
    assert_eq!(reason(&vec![0; HEADER_BYTES_MAX + 1]), "header_rlp");
    assert_eq!(reason(&[0xc0]), "header_rlp");
}

/// Made once with npm `ethers` 6.17.0 (RLP, Keccak, secp256k1) after Besu's QBFT: four validators, round 2, sealed by three of them; the id
/// is over round 0 without seals, the seals over round 2 without seals. `qbft_header.hex` is in lines of 64 bytes.
#[test]
fn a_golden_header_of_another_implementation() {
    let bytes = hex::decode(include_str!("qbft_header.hex").lines().collect::<String>()).unwrap();
    let named = [
        "1a642f0e3c3af545e7acbd38b07251b3990914f1",
        "5050a4f4b3f9338c3472dcc01a87c76a144b3c9c",
        "3325a78425f17a7e487eb5666b2bfd93abb06c70",
        "c48b812bb43401392c037381aca934f4069c0517",
    ];
    let validators: Vec<Address> = named.map(|name| name.parse().unwrap()).to_vec();
    let header = verify_header(&bytes, &validators).unwrap();
    assert_eq!((header.number, header.time_s, header.state_root), (4242, 1_790_000_000, [5; 32]));
    let id = "f62885dfff861313457c8386261f7e74df1ab48b9bb5a417f78edd2c1bc53c89";
    assert_eq!(hex::encode(header.hash), id);
    // The same keys as the fixture's, so what this crate seals is the same, byte by byte.
    assert_eq!(validators, (1..=4).map(|byte| address(&key(byte))).collect::<Vec<_>>());
    let digest = "21b7f25779128b64e7479438aa9f77f6c92da9b45da4bd7f102f5fdb3ebe1aa2";
    let digest: [u8; 32] = hex::decode(digest).unwrap().try_into().unwrap();
    let sealed = seal(&key(1), &digest);
    assert!(bytes.windows(65).any(|window| window == sealed));
    assert_eq!(verify_header(&bytes, &validators[..3]).unwrap_err().reason(), "validators_other");
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (fields, keys) = fields(4);
    let good = fields.seal(&[&keys[0], &keys[1], &keys[2]]);
    let header = verify(&good, &fields).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_ne!(verify(&bad, &fields), Ok(header), "byte {at}");
        assert!(verify(&bad, &fields).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let (fields, _keys) = fields(1);
        prop_assert!(verify(&bytes, &fields).is_err());
    }
}
