//! Signatures against other implementations' values, and each way in which one can fail.
//!
//! The golden values were made once by hand with npm `ethers` 6.17.0 (`Wallet.signTypedData`,
//! `TypedDataEncoder.hash`); PyPI `eth-account` 0.14.0 (`encode_typed_data`, `sign_message`) gave the same digest,
//! signature and address for the first grant. Keys: 32 bytes of 0x46 (grant) and 0x47 (revoke-only).

use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::policy::{
    EcdsaSignature, Freshness, Grant, PatientPolicy, PolicyDocument, RelationshipId, Revocation, SignedGrant,
    SignedRevocation, VerifiedPolicy,
};
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
/// The protocol crate's golden file: the first grant above for the first patient, the revocation under the second.
const GOLDEN_DOCUMENT: &[u8] = include_bytes!("../../../protocol/tests/golden/policy.json");

const PATIENT: PatientId = PatientId([0xe5; 16]);
const NEIGHBOUR: PatientId = PatientId([0xe6; 16]);
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

fn pins() -> PatientPins {
    let pin = |relationship| RelationshipPin {
        relationship,
        grant_key: key(0x46).address(),
        revoke_key: Some(key(0x47).address()),
    };
    PatientPins::new(&[
        PatientPin { patient: PATIENT, relationships: vec![pin(RELATIONSHIP)] },
        PatientPin { patient: NEIGHBOUR, relationships: vec![pin(RelationshipId([0xa2; 32]))] },
    ])
    .expect("good pins")
}

fn document(
    patient: PatientId,
    grants: Vec<SignedGrant>,
    revocations: Vec<SignedRevocation>,
) -> PolicyDocument {
    let mut document = PolicyDocument::decode(GOLDEN_DOCUMENT).expect("the golden file is a policy");
    document.patients = vec![PatientPolicy { patient, grants, revocations }];
    document
}

fn verify(document: &PolicyDocument) -> (VerifiedPolicy, Vec<RefusedGrant>) {
    verify_document(document, &pins(), &DOMAIN, Freshness::Unproven)
}

fn opens(policy: &VerifiedPolicy, patient: &PatientId) -> bool {
    policy.recipients(patient, DataClass::Vitals, NOW_S).next().is_some()
}

/// Why this one grant of [`PATIENT`] is refused; `None` if it opens.
fn refusal(signed: SignedGrant) -> Option<RefusalReason> {
    let (policy, refused) = verify(&document(PATIENT, vec![signed], vec![]));
    assert_eq!(opens(&policy, &PATIENT), refused.is_empty());
    assert!(refused.iter().all(|one| one.path == "patients[0].grants[0]"));
    refused.first().map(|one| one.reason)
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

#[test]
fn the_golden_document_opens_for_its_patient_alone() {
    let document = PolicyDocument::decode(GOLDEN_DOCUMENT).expect("the golden file is a policy");
    let (policy, refused) = verify(&document);
    assert!(opens(&policy, &PATIENT) && !opens(&policy, &NEIGHBOUR));
    let refused: Vec<_> = refused.iter().map(ToString::to_string).collect();
    let stray = "policy at patients[1].revocations[0]: the relationship is not pinned for this patient";
    assert_eq!(refused, [stray], "a revocation of another patient's relationship");
}

#[test]
fn every_field_is_signed() {
    let signed = key(0x46).sign_grant(&grant(), &DOMAIN);
    assert_eq!(refusal(signed.clone()), None);
    let changed = [
        Grant { grantee: RecipientId([0xb3; 20]), ..grant() },
        Grant { classes: 15, ..grant() },
        Grant { purposes: 3, ..grant() },
        Grant { from: NOW_S - 1, ..grant() },
        Grant { until: 1_821_536_001, ..grant() },
        Grant { stale_bound_s: 86_401, ..grant() },
        Grant { version: 4, ..grant() },
    ];
    for grant in changed {
        let reason = refusal(SignedGrant { grant: grant.clone(), ..signed.clone() });
        assert_eq!(reason, Some(RefusalReason::Signer), "{grant:?}");
    }
    let moved = Grant { relationship: RelationshipId([0xa2; 32]), ..grant() };
    let moved = SignedGrant { grant: moved, ..signed };
    assert_eq!(refusal(moved.clone()), Some(RefusalReason::RelationshipNotPinned));
    let (policy, refused) = verify(&document(NEIGHBOUR, vec![moved], vec![]));
    assert!(!opens(&policy, &NEIGHBOUR));
    assert_eq!(refused[0].reason, RefusalReason::Signer, "signed for another relationship");
}

#[test]
fn a_signature_for_another_ledger_is_refused() {
    for domain in
        [Domain { chain_id: 20_261, ..DOMAIN }, Domain { verifying_contract: Address([0xc1; 20]), ..DOMAIN }]
    {
        assert_eq!(refusal(key(0x46).sign_grant(&grant(), &domain)), Some(RefusalReason::Signer));
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
    let refuse = |signature| refusal(SignedGrant { grant: grant(), signature });
    assert_eq!(refuse(high), Some(RefusalReason::Signature(SignatureError::HighS)));
    for v in [0, 1, 26, 29, 30, 35, 255] {
        let mut wrong = good;
        wrong.0[64] = v;
        assert_eq!(refuse(wrong), Some(RefusalReason::Signature(SignatureError::V)), "v {v}");
    }
    let mut other_v = good;
    other_v.0[64] = 28;
    assert_eq!(refuse(other_v), Some(RefusalReason::Signer));
    let mut zero = EcdsaSignature([0; 65]);
    zero.0[64] = 27;
    assert_eq!(refuse(zero), Some(RefusalReason::Signature(SignatureError::NoKey)));
    let mut above = good;
    above.0[..32].fill(0xff);
    assert_eq!(refuse(above), Some(RefusalReason::Signature(SignatureError::NoKey)));
}

#[test]
fn only_the_pinned_grant_key_grants() {
    for other in [0x47, 0x48] {
        let signed = key(other).sign_grant(&grant(), &DOMAIN);
        assert_eq!(refusal(signed), Some(RefusalReason::Signer), "revoke-only and foreign keys can't grant");
    }
    let stranger = document(PatientId([0xee; 16]), vec![key(0x46).sign_grant(&grant(), &DOMAIN)], vec![]);
    assert_eq!(verify(&stranger).1[0].reason, RefusalReason::PatientNotPinned);
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

#[test]
fn both_keys_revoke_and_no_other() {
    let signed = key(0x46).sign_grant(&grant(), &DOMAIN);
    let revocation = |version| Revocation { relationship: RELATIONSHIP, version };
    for (byte, version, open) in
        [(0x46, 3, false), (0x47, 3, false), (0x47, 4, false), (0x46, 2, true), (0x48, 3, true)]
    {
        let revocations = vec![key(byte).sign_revocation(&revocation(version), &DOMAIN)];
        let (policy, refused) = verify(&document(PATIENT, vec![signed.clone()], revocations));
        assert_eq!(opens(&policy, &PATIENT), open, "key {byte:#x}, version {version}");
        assert_eq!(refused.len(), usize::from(byte == 0x48));
    }
    let signature = key(0x47).sign_revocation(&revocation(2), &DOMAIN).signature;
    let raised = SignedRevocation { revocation: revocation(3), signature };
    let (policy, refused) = verify(&document(PATIENT, vec![signed], vec![raised]));
    assert!(opens(&policy, &PATIENT));
    assert_eq!(refused[0].path, "patients[0].revocations[0]");
}

#[test]
fn one_bad_grant_leaves_the_others() {
    let good = key(0x46).sign_grant(&grant(), &DOMAIN);
    let bad = key(0x48).sign_grant(&Grant { version: 9, ..grant() }, &DOMAIN);
    let (policy, refused) = verify(&document(PATIENT, vec![bad, good], vec![]));
    assert!(opens(&policy, &PATIENT), "a forged higher version supersedes nothing");
    let text: Vec<_> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["policy at patients[0].grants[0]: not signed by the pinned key"]);
}

#[test]
fn an_authentic_grant_that_opens_nothing_is_named_and_still_supersedes() {
    let useless = [
        (Grant { until: NOW_S, ..grant() }, RefusalReason::Window),
        (Grant { grantee: RecipientId([0xb9; 20]), ..grant() }, RefusalReason::GranteeUnknown),
    ];
    let earlier = key(0x46).sign_grant(&Grant { version: 2, ..grant() }, &DOMAIN);
    for (grant, reason) in useless {
        let signed = vec![earlier.clone(), key(0x46).sign_grant(&grant, &DOMAIN)];
        let (policy, refused) = verify(&document(PATIENT, signed, vec![]));
        assert_eq!(refused, [RefusedGrant { path: "patients[0].grants[1]".into(), reason }]);
        assert!(!opens(&policy, &PATIENT));
    }
    let twins = [grant(), Grant { classes: 1, ..grant() }].map(|grant| key(0x46).sign_grant(&grant, &DOMAIN));
    let (policy, refused) = verify(&document(PATIENT, twins.to_vec(), vec![]));
    assert_eq!(refused[0].reason, RefusalReason::SameVersionTwice);
    assert!(!opens(&policy, &PATIENT));
}

#[test]
fn pins_are_checked() {
    let pin = |patient, relationship: u8| PatientPin {
        patient: PatientId([patient; 16]),
        relationships: vec![RelationshipPin {
            relationship: RelationshipId([relationship; 32]),
            grant_key: Address([1; 20]),
            revoke_key: None,
        }],
    };
    let shared = PatientPins::new(&[pin(1, 1), pin(2, 1)]);
    assert_eq!(shared, Err(FilePinError::DuplicateRelationship { patient: 1, relationship: 0 }));
    assert_eq!(PatientPins::new(&[pin(1, 1), pin(1, 2)]), Err(FilePinError::DuplicatePatient { patient: 1 }));
    let crowd = vec![pin(1, 1); 257];
    assert_eq!(PatientPins::new(&crowd), Err(FilePinError::TooManyPatients { len: 257 }));
    let mut many = pin(1, 1);
    many.relationships = vec![many.relationships[0]; 65];
    assert_eq!(PatientPins::new(&[many]), Err(FilePinError::TooManyRelationships { patient: 0, len: 65 }));
}

#[test]
fn pins_and_domain_are_read_from_configuration() {
    let text = format!(
        "[domain]\nchain_id = 20260\nverifying_contract = \"0x{}\"\n[[patient]]\npatient = \"{}\"\n\
         relationships = [{{ relationship = \"{RELATIONSHIP}\", grant_key = \"{GRANT_ADDRESS}\" }}]\n",
        "c0".repeat(20),
        "e5".repeat(16),
    );
    let file: FileEnrolment = toml::from_str(&text).expect("a configuration");
    assert_eq!(file.domain, DOMAIN);
    assert_eq!(file.patients[0].relationships[0].grant_key, key(0x46).address());
    assert!(file.pins().is_ok());
    let unknown = text.replace("grant_key", "key");
    assert!(
        toml::from_str::<FileEnrolment>(&unknown)
            .is_err_and(|error| error.message().contains("unknown field `key`"))
    );
}

#[test]
fn reasons_have_names_of_their_own() {
    use RefusalReason as R;
    let all = [
        R::PatientNotPinned,
        R::RelationshipNotPinned,
        R::Signature(SignatureError::V),
        R::Signature(SignatureError::HighS),
        R::Signature(SignatureError::NoKey),
        R::Signer,
        R::Window,
        R::GranteeUnknown,
        R::SameVersionTwice,
    ];
    assert_eq!(all.map(R::as_str), R::NAMES);
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
