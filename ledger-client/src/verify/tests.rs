//! Signatures against other implementations' values, and each way in which one can fail.
//!
//! The golden values were made once by hand with npm `ethers` 6.17.0 (`Wallet.signTypedData`,
//! `TypedDataEncoder.hash`); PyPI `eth-account` 0.14.0 (`encode_typed_data`, `sign_message`) gave the same digest,
//! signature and address for the first grant. Keys: 32 bytes of 0x46 (grant) and 0x47 (revoke-only).

use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{EcdsaSignature, Grant, RelationshipId, Revocation};
use proptest::prelude::*;

use super::*;
use crate::wallet::PatientKey;

const GRANT_ADDRESS: &str = "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F";
const REVOKE_ADDRESS: &str = "0xb595B18c88b1f651cA387489067f855b5C8E6720";
const GRANT_DIGEST: &str = "da2cdab9f43d143a27971b67d14cb5560bf51febbc6a74c608ef1986d866335c";
const GRANT_SIGNATURE: &str = "587bff375448be8c0837e877bf51e7b81b538d7682c741c14b9c2319499832865ef5423ec89fe751f1eb4f9903929f2fb963c6cfa4f2f4bc540418ce51bee4db1b";
const WIDEST_DIGEST: &str = "e6946d488f9bdd44643c90bfce337591f5e6d939b3e598e4416e5d87feed73dd";
const WIDEST_SIGNATURE: &str = "c74d3e22908994a4a268d5e75c0aa5e7d49800d87f7e9857dd9ad0a61c1e137f6f47145b5289b21613debf8138cd71eb6c56b58ce46c5cf82034fc3f2ae300fe1b";
const REVOCATION_DIGEST: &str = "01b2739cd57184c33ae98d876de521b2c2b3a084ae5d186b032d4e61d2f2891c";
const REVOCATION_SIGNATURE: &str = "b8c26febc6dc9043b5d21b8e6884718db592d2f70098992d89dcad45ab680bea1de61d9e28a876a485d9253fd6451d13fd0a5d0fafbcff8b503156e634962f0e1c";

const RELATIONSHIP: RelationshipId = RelationshipId([0xa1; 32]);
const DOMAIN: Domain = Domain { chain_id: 20_260, verifying_contract: Address([0xc0; 20]) };
const NOW_S: u64 = 1_790_000_000;

fn grant() -> Grant {
    Grant {
        relationship: RELATIONSHIP,
        grantee: RecipientId([0xb2; 20]),
        classes: 31,
        purposes: 1,
        from: NOW_S,
        until: 1_821_536_000,
        stale_bound_s: 86_400,
        version: 3,
    }
}

fn key(byte: u8) -> PatientKey {
    PatientKey::from_bytes(&[byte; 32]).expect("below the group order")
}

fn hex_signature(text: &str) -> EcdsaSignature {
    EcdsaSignature(hex::decode(text).expect("hex").try_into().expect("65 bytes"))
}

#[test]
fn digests_signatures_and_addresses_are_those_of_ethers() {
    assert_eq!(key(0x46).address(), GRANT_ADDRESS.parse().expect("an address"));
    assert_eq!(key(0x47).address(), REVOKE_ADDRESS.parse().expect("an address"));
    let widest = Grant {
        classes: u32::MAX,
        purposes: u32::MAX,
        from: 0,
        until: u64::MAX,
        stale_bound_s: u32::MAX,
        version: u64::MAX,
        ..grant()
    };
    for (grant, digest, signature) in
        [(grant(), GRANT_DIGEST, GRANT_SIGNATURE), (widest, WIDEST_DIGEST, WIDEST_SIGNATURE)]
    {
        assert_eq!(hex::encode(grant_digest(&grant, &DOMAIN)), digest);
        assert_eq!(key(0x46).sign_grant(&grant, &DOMAIN).signature, hex_signature(signature));
        let signer = signer(&grant_digest(&grant, &DOMAIN), &hex_signature(signature));
        assert_eq!(signer, Ok(key(0x46).address()));
    }
    let revocation = Revocation { relationship: RELATIONSHIP, version: 3 };
    assert_eq!(hex::encode(revocation_digest(&revocation, &DOMAIN)), REVOCATION_DIGEST);
    let signed = key(0x47).sign_revocation(&revocation, &DOMAIN);
    assert_eq!(signed.signature, hex_signature(REVOCATION_SIGNATURE));
}

/// Whether the grant key's signature on [`grant`] is one on this.
fn is_signed(grant: &Grant, domain: &Domain) -> bool {
    let signed = key(0x46).sign_grant(&self::grant(), &DOMAIN);
    signer(&grant_digest(grant, domain), &signed.signature) == Ok(key(0x46).address())
}

#[test]
fn every_field_is_signed() {
    assert!(is_signed(&grant(), &DOMAIN));
    let changed = [
        Grant { relationship: RelationshipId([0xa2; 32]), ..grant() },
        Grant { grantee: RecipientId([0xb3; 20]), ..grant() },
        Grant { classes: 15, ..grant() },
        Grant { purposes: 3, ..grant() },
        Grant { from: NOW_S - 1, ..grant() },
        Grant { until: 1_821_536_001, ..grant() },
        Grant { stale_bound_s: 86_401, ..grant() },
        Grant { version: 4, ..grant() },
    ];
    for grant in changed {
        assert!(!is_signed(&grant, &DOMAIN), "{grant:?}");
    }
}

#[test]
fn a_signature_is_for_one_ledger() {
    for domain in
        [Domain { chain_id: 20_261, ..DOMAIN }, Domain { verifying_contract: Address([0xc1; 20]), ..DOMAIN }]
    {
        assert!(!is_signed(&grant(), &domain));
    }
}

#[test]
fn a_signature_has_one_form() {
    // The group order n (SEC 2 §2.4.1): (r, n − s) with the other v is the same signature's second spelling.
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").expect("hex");
    let good = hex_signature(GRANT_SIGNATURE);
    let mut high = good;
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = 256 + i32::from(order[at]) - i32::from(good.0[32 + at]) - borrow;
        borrow = i32::from(difference < 256);
        high.0[32 + at] = u8::try_from(difference % 256).expect("a byte");
    }
    high.0[64] = 28;
    let signer = |signature| signer(&grant_digest(&grant(), &DOMAIN), &signature);
    assert_eq!(signer(good), Ok(key(0x46).address()));
    assert_eq!(signer(high), Err(SignatureError::HighS));
    for v in [0, 1, 26, 29, 30, 35, 255] {
        let mut wrong = good;
        wrong.0[64] = v;
        assert_eq!(signer(wrong), Err(SignatureError::V), "v {v}");
    }
    let mut other_v = good;
    other_v.0[64] = 28;
    assert_ne!(signer(other_v), Ok(key(0x46).address()));
    let mut zero = EcdsaSignature([0; 65]);
    zero.0[64] = 27;
    assert_eq!(signer(zero), Err(SignatureError::NoKey));
    let mut above = good;
    above.0[..32].fill(0xff);
    assert_eq!(signer(above), Err(SignatureError::NoKey));
}

/// As above, with npm `ethers` 6.17.0 (`TypedDataEncoder.hash`).
#[test]
fn the_other_messages_have_ethers_digests() {
    use caregate_protocol::policy::{Commitment, Emergency, Pseudonym};
    let digest = binding_digest(&Commitment([0xb1; 32]), true, 7, &DOMAIN);
    assert_eq!(hex::encode(digest), "22b518dd7e6cedacc966368bf637bdd1a70e68bb91087b0637f2a71c4e91d163");
    let digest = participant_key_digest(&RecipientId([0xb2; 20]), &[0xd4; 32], 2, &DOMAIN);
    assert_eq!(hex::encode(digest), "bb839abb936066c74d61f670507e3d1190801e596e19ca605f2d1b6cde2211bb");
    let emergency = Emergency {
        pseudonym: Pseudonym([0xe1; 32]),
        domain: RecipientId([0xb2; 20]),
        clinician: Commitment([0xc1; 32]),
        reason: Commitment([0xc2; 32]),
        from: 1_790_000_000,
        until: 1_790_003_600,
        number: 3,
    };
    let digest = emergency_digest(&emergency, &DOMAIN);
    assert_eq!(hex::encode(digest), "4ac9c8c0f151f22229cefb05d2b85790a498a51e1cf941913dca211b948c5928");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_wallet_signs_verifies_and_one_flipped_bit_does_not(
        secret in prop::array::uniform32(1_u8..255),
        (classes, purposes, stale_bound_s) in any::<(u32, u32, u32)>(),
        (from, until, version) in any::<(u64, u64, u64)>(),
        bit in 0..65_usize * 8,
    ) {
        let key = PatientKey::from_bytes(&secret).expect("below the group order");
        let grant = Grant { classes, purposes, from, until, stale_bound_s, version, ..grant() };
        let signed = key.sign_grant(&grant, &DOMAIN);
        let digest = grant_digest(&grant, &DOMAIN);
        prop_assert_eq!(signer(&digest, &signed.signature), Ok(key.address()));
        let mut flipped = signed.signature;
        flipped.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(signer(&digest, &flipped), Ok(key.address()));
    }

    #[test]
    fn recovery_never_panics(bytes in prop::collection::vec(any::<u8>(), 65), digest in any::<[u8; 32]>()) {
        let mut bytes: [u8; 65] = bytes.try_into().expect("65 bytes");
        bytes[64] = 27 + (bytes[64] & 1);
        if let Ok(address) = signer(&digest, &EcdsaSignature(bytes)) {
            prop_assert_ne!(address, key(0x46).address());
        }
    }
}
