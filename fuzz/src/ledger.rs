//! What verifies the ledger's word, with pins of a ledger in memory. Included by `tests/tests/fuzz_regressions.rs` as well.

use std::sync::LazyLock;

use caregate_protocol::policy::{Floors, PolicyBundle, RecipientKind, RecipientStatus};
use ledger_client::fixture::{Hospital, Site, header, trie};
use ledger_client::verify::rlp::{Item, Items, put_bytes, put_list};
use ledger_client::verify::{NodePool, Pins, verify_bundle, verify_header};

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] = &[
    ("ledger_rlp", ledger_rlp),
    ("ledger_header", ledger_header),
    ("ledger_trie", ledger_trie),
    ("policy_verify", policy_verify),
];

/// The clock of the seeds.
pub const NOW_S: u64 = 1_790_000_000;

/// The ledger of the seeds: a grant, an emergency, two devices, a revocation.
pub fn site() -> Site {
    let mut site = Site::new(4);
    let (city, rescue) = (Hospital::new(0x50, [0xd4; 32]), Hospital::new(0x51, [0xd5; 32]));
    site.register(&city, RecipientStatus::Active, RecipientKind::Treating, false);
    site.register(&rescue, RecipientStatus::Active, RecipientKind::Treating, true);
    site.grant(0, &city, 3, |_| ());
    site.grant(1, &rescue, 1, |_| ());
    site.revoke(1, 1);
    site.bind(0, true, 1);
    site.bind(1, true, 1);
    site.emergency(&rescue, NOW_S - 10, NOW_S + 3600, 1);
    site
}

/// The bundle that is the seed, and its pins.
static GOOD: LazyLock<(PolicyBundle, Pins)> = LazyLock::new(|| {
    let mut site = site();
    let pins = site.enrolment.pins().unwrap_or_else(|error| panic!("{error}"));
    (site.bundle(NOW_S), pins)
});

/// Items, and the items of lists. What was read is written the same.
pub fn ledger_rlp(data: &[u8]) {
    fn walk(mut items: Items<'_>, depth: usize) {
        while !items.is_empty() {
            let before = items.rest();
            let Ok(item) = items.item() else { return };
            let mut again = Vec::new();
            match item {
                Item::Bytes(bytes) => put_bytes(&mut again, bytes),
                Item::List(payload) => {
                    put_list(&mut again, payload);
                    if depth < 64 {
                        walk(Items::new(payload), depth + 1);
                    }
                }
            }
            assert_eq!(again, before[..before.len() - items.rest().len()]);
        }
    }
    walk(Items::new(data), 0);
}

/// A header against the pinned validators. Nobody here can seal: what is taken says what the good one says.
pub fn ledger_header(data: &[u8]) {
    let (good, pins) = &*GOOD;
    match verify_header(data, &pins.validators) {
        Ok(header) => assert_eq!(header.state_root, header::HeaderParts::of(&good.header).state_root()),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// A key (32 bytes) and nodes (each with its length in two bytes); the first node is the root.
pub fn ledger_trie(data: &[u8]) {
    let Some((key, mut rest)) = data.split_first_chunk::<32>() else { return };
    let mut nodes = Vec::new();
    while let Some((length, left)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(left.len());
        nodes.push(&left[..length]);
        rest = &left[length..];
    }
    let Some(root) = nodes.first().map(|node| trie::hash(node)) else { return };
    let Ok(pool) = NodePool::new(&nodes) else { return };
    if let Ok(Some(value)) = pool.value(&root, key) {
        assert!(nodes.iter().any(|node| node.windows(value.len().max(1)).any(|window| window == value)));
    }
}

/// A bundle against the pins. Nobody here holds a key: what is taken claims nothing that the good one does not.
pub fn policy_verify(data: &[u8]) {
    let (good, pins) = &*GOOD;
    match verify_bundle(data, pins, &Floors::default(), NOW_S) {
        Ok(verified) => {
            let (claims, all) = (&verified.claims, &good.claims);
            assert_eq!(claims.epoch, all.epoch);
            assert!(claims.participants.iter().all(|claim| all.participants.contains(claim)));
            assert!(claims.consents.iter().all(|claim| all.consents.contains(claim)));
            assert!(claims.bindings.iter().all(|claim| all.bindings.contains(claim)));
            assert!(claims.emergencies.iter().all(|claim| all.emergencies.contains(claim)));
            assert!(claims.revocations.is_empty());
            assert!(verified.admit(&Floors::default()).is_ok());
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}
