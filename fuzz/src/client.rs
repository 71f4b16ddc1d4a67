//! What a patient's wallet keeps and is handed, and what a ledger's node answers. Included by `caregatectl/tests/fuzz_regressions.rs` as well.

use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Grant, RelationshipId};
use caregatectl::fhir::consent;
use caregatectl::files::Unambiguous;
use ledger_client::shares::{Of, ROOT_SHARE_BYTES, SHARE_BYTES, Share, combine};
use ledger_client::wallet::{Wallet, keystore};

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] = &[
    ("wallet", wallet),
    ("wallet_share", wallet_share),
    ("keystore", keystore_file),
    ("chain_answer", chain_answer),
    ("fhir_consent", fhir_consent),
];

/// Of the seeds: the relationship and the domain that the Consents name.
const RELATIONSHIP: RelationshipId = RelationshipId([0xab; 32]);
const HOSPITAL: RecipientId = RecipientId([5; 20]);

/// A wallet is encoded as it was read.
pub fn wallet(data: &[u8]) {
    let Ok(wallet) = Wallet::decode(data) else { return };
    let bytes = wallet.encode();
    let again = Wallet::decode(&bytes).map(|again| again.encode() == bytes);
    assert_eq!(again, Ok(true));
    // What it holds is fit to sign with.
    for known in &wallet.relationships {
        assert!(wallet.seed.relationship_keys(&known.grantee, known.number).is_ok());
    }
}

/// Shares one after the other: each is encoded as it was read; together they make a secret or say why not.
pub fn wallet_share(data: &[u8]) {
    let read = |bytes: &[u8]| {
        let share = Share::decode(bytes).ok()?;
        assert_eq!(share.encode().as_slice(), bytes);
        Some(share)
    };
    for length in [SHARE_BYTES, ROOT_SHARE_BYTES] {
        let shares: Option<Vec<_>> = data.chunks(length).map(read).collect();
        if let Some(shares) = shares {
            drop(combine(shares.first().map_or(Of::Seed, Share::of), &shares));
        }
    }
}

/// What a keystore asks for is bounded before anything is derived.
pub fn keystore_file(data: &[u8]) {
    if let Ok(cost) = keystore::cost(data) {
        assert!((keystore::MEMORY_KIB.0..=keystore::MEMORY_KIB.1).contains(&cost.memory_kib));
        assert!((keystore::PASSES.0..=keystore::PASSES.1).contains(&cost.passes));
        assert!((keystore::LANES.0..=keystore::LANES.1).contains(&cost.lanes));
    }
}

/// Whatever a node says, it is events or a header, or neither.
pub fn chain_answer(data: &[u8]) {
    if let Ok(events) = ledger_chain::answer::events(data) {
        assert!(events.is_sorted_by_key(|event| (event.block, event.index)));
    }
    if let Ok(header) = ledger_chain::answer::header(data) {
        assert!(!header.is_empty());
    }
}

/// A Consent that is taken says no more than the grant: that one's own Consent asks for the same.
pub fn fhir_consent(data: &[u8]) {
    let Ok(Unambiguous(resource)) = serde_json::from_slice(data) else { return };
    match consent::terms(&resource, &RELATIONSHIP, &HOSPITAL, 7) {
        Ok(terms) => {
            assert!(terms.from < terms.until && terms.classes > 0 && terms.purposes > 0);
            let grant = Grant {
                relationship: RELATIONSHIP,
                grantee: HOSPITAL,
                classes: terms.classes,
                purposes: terms.purposes,
                from: terms.from,
                until: terms.until,
                stale_bound_s: terms.stale_bound_s,
                version: 1,
            };
            // A time zone may put its end into the year 10000, which FHIR can't write.
            if let Ok(again) = consent::of_grant(&grant, true) {
                assert_eq!(consent::terms(&again, &RELATIONSHIP, &HOSPITAL, 8), Ok(terms));
            }
        }
        Err(refusal) => assert!(refusal.path.starts_with("Consent") && !refusal.why.is_empty()),
    }
}
