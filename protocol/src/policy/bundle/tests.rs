use proptest::prelude::*;

use super::super::succession::{CustodianWord, Succession, SuccessionAuthority};
use super::*;

fn signature(byte: u8) -> EcdsaSignature {
    EcdsaSignature([byte; 65])
}

fn bundle() -> PolicyBundle {
    let grant = Grant {
        relationship: RelationshipId([1; 32]),
        grantee: RecipientId([2; 20]),
        classes: 7,
        purposes: 1,
        from: 1_790_000_000,
        until: u64::MAX,
        stale_bound_s: u32::MAX,
        version: 3,
    };
    let revocation = Revocation { relationship: RelationshipId([1; 32]), version: 2 };
    let emergency = Emergency {
        pseudonym: Pseudonym([3; 32]),
        domain: RecipientId([4; 20]),
        clinician: Commitment([5; 32]),
        reason: Commitment([6; 32]),
        from: 1,
        until: 2,
        number: 3,
    };
    let participant = ParticipantClaim {
        id: RecipientId([2; 20]),
        hpke_public_key: [9; 32],
        key_version: 1,
        status: RecipientStatus::Suspended,
        kind: RecipientKind::Treating,
        emergency: true,
        signature: signature(1),
    };
    PolicyBundle {
        chain_id: 4711,
        contract: [0xc0; 20],
        header: vec![1; 800],
        nodes: vec![vec![2; 532], vec![3; 40]],
        claims: Claims {
            epoch: 12,
            participants: vec![participant],
            consents: vec![SignedGrant { grant, signature: signature(2) }],
            revocations: vec![SignedRevocation { revocation, signature: signature(3) }],
            bindings: vec![SignedBinding {
                commitment: Commitment([8; 32]),
                bound: true,
                version: 1,
                signature: signature(4),
            }],
            emergencies: vec![SignedEmergency { emergency, signature: signature(5) }],
            successions: Vec::new(),
        },
        handovers: Vec::new(),
    }
}

/// As above, with both kinds of succession, and two changes of validators.
fn handed_on() -> PolicyBundle {
    let by_key = Succession {
        relationship: RelationshipId([1; 32]),
        grant_key: [7; 20],
        revoke_key: [8; 20],
        version: 1,
        by: SuccessionAuthority::GrantKey(signature(6)),
    };
    let word = CustodianWord {
        custody_version: 2,
        custody_signature: signature(7),
        threshold: 1,
        delay_s: 86_400,
        salt: [3; 32],
        keys: vec![[4; 20], [5; 20]],
        signatures: vec![None, Some(signature(8))],
    };
    let by_custodians =
        Succession { version: 2, by: SuccessionAuthority::Custodians(Box::new(word)), ..by_key };
    let mut bundle = bundle();
    bundle.claims.successions = vec![by_key, by_custodians];
    bundle.handovers = vec![vec![4; 600], vec![5; 700]];
    bundle
}

#[test]
fn a_bundle_is_read_as_it_was_written() {
    assert_eq!(PolicyBundle::decode(&bundle().encode()), Ok(bundle()));
    assert_eq!(PolicyBundle::decode(&handed_on().encode()), Ok(handed_on()));
    let empty = PolicyBundle::default();
    assert_eq!(
        hex::encode(empty.encode()),
        "860300".to_owned() + "54" + &"00".repeat(20) + "40808600" + "8080808080"
    );
    assert_eq!(PolicyBundle::decode(&empty.encode()), Ok(empty));
    let named = "860319126754".to_owned() + &"c0".repeat(20) + "590320" + "01";
    assert!(hex::encode(bundle().encode()).starts_with(&named));
    let revocation = bundle().claims.revocations.remove(0);
    assert_eq!(SignedRevocation::decode(&revocation.encode()), Ok(revocation));
}

#[test]
fn cut_anywhere_it_is_truncated() {
    let whole = bundle().encode();
    for whole in [&whole, &handed_on().encode()] {
        for length in 0..whole.len() {
            let cut = PolicyBundle::decode(&whole[..length]).unwrap_err();
            assert_eq!(cut.reason(), "truncated", "{length}: {cut}");
        }
    }
    assert_eq!(PolicyBundle::decode(&[whole.as_slice(), &[0]].concat()).unwrap_err().reason(), "trailing");
}

#[test]
fn faults_name_their_field() {
    let said = |bytes: &[u8]| PolicyBundle::decode(bytes).unwrap_err().to_string();
    let mut other = bundle().encode();
    for version in [1, 2, 5] {
        other[1] = version;
        assert_eq!(said(&other), format!("bundle version {version} is neither 3 nor 4"));
    }
    let (mut fewer, mut more) = (bundle().encode(), handed_on().encode());
    (fewer[1], more[1]) = (4, 3);
    assert!(said(&fewer).starts_with("bundle: bundle"), "{}", said(&fewer));
    assert!(said(&more).starts_with("bundle: bundle"), "{}", said(&more));
    // The longer form of a bundle in which nothing was handed on.
    let mut longer = handed_on();
    longer.claims.successions.clear();
    longer.handovers.truncate(1);
    let mut longer = longer.encode();
    longer.truncate(longer.len() - 604);
    longer.push(0x80);
    assert!(said(&longer).starts_with("bundle version 4"), "{}", said(&longer));
    assert_eq!(said(&vec![0; BUNDLE_BYTES_MAX + 1]), "bundle has 1048577 bytes, allowed are 1048576");
    let mut large = bundle();
    large.nodes[1] = vec![0; NODE_BYTES_MAX + 1];
    assert_eq!(said(&large.encode()), "bundle: node has 641 entries or bytes, allowed are 640");
    let mut many = bundle();
    many.claims.emergencies = vec![many.claims.emergencies[0].clone(); EMERGENCIES_MAX + 1];
    assert_eq!(said(&many.encode()), "bundle: emergencies has 65 entries or bytes, allowed are 64");
}

proptest! {
    #[test]
    fn arbitrary_changes_never_panic(at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = if byte & 1 == 0 { bundle().encode() } else { handed_on().encode() };
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(read) = PolicyBundle::decode(&bytes) {
            prop_assert_eq!(PolicyBundle::decode(&read.encode()), Ok(read));
        }
    }
}
