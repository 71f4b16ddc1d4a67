//! The key schedule: patient root → class key → epoch tree → epoch key → segment key.
//!
//! All derivations are HKDF-SHA-256 (RFC 5869). The tree over the 2³² epochs is the GGM construction: a node's two
//! children are derived from it, so a node opens exactly the epochs below it and says nothing of the others. Any span of
//! epochs is covered by at most 2·log₂(n) nodes ([`cover`]).

use ring::hkdf::{self, HKDF_SHA256, KeyType, Salt};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::id::{DataClass, PatientId};

/// Length of an epoch in seconds: live access is granted for one epoch at a time, so this is how long a wrap lasts.
pub const EPOCH_S: i64 = 60;

/// Levels of the epoch tree: epochs are numbered by 32 bits, which at a minute each last for 8,000 years.
pub const TREE_DEPTH: u8 = 32;

/// Bytes of every key in the schedule.
pub const KEY_BYTES: usize = 32;

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

/// HKDF-SHA-256 of 32 bytes; `salt` may be empty.
fn derive(salt: &[u8], key: &[u8; KEY_BYTES], info: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    let filled = Salt::new(HKDF_SHA256, salt)
        .extract(key)
        .expand(info, KeyLength)
        .and_then(|okm: hkdf::Okm<'_, KeyLength>| okm.fill(&mut out));
    // RFC 5869 §2.3: expansion fails only beyond 255 hash lengths, and one is asked for.
    assert!(filled.is_ok(), "32 bytes are within HKDF's limit");
    out
}

/// A patient's root. It never leaves the gateway; everything that is sealed for the patient follows from it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PatientRoot([u8; KEY_BYTES]);

impl PatientRoot {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the gateway's key store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The tree's root for one class and generation. Revocation raises the generation, which changes every key below.
    #[must_use]
    pub fn class_key(&self, class: DataClass, generation: u32) -> TreeNode {
        let key = derive(&[], &self.0, &[b"caregate class 1", &[class as u8], &generation.to_be_bytes()]);
        TreeNode { first: 0, depth: 0, key }
    }
}

/// A node of the epoch tree: opens the epochs `first ..= last()`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TreeNode {
    first: u32,
    depth: u8,
    key: [u8; KEY_BYTES],
}

impl TreeNode {
    /// A node received in a wrap. `None` if `depth` exceeds [`TREE_DEPTH`] or `first` is no boundary at that depth.
    #[must_use]
    pub fn new(first: u32, depth: u8, key: [u8; KEY_BYTES]) -> Option<Self> {
        (depth <= TREE_DEPTH && first & below(depth) == 0).then_some(Self { first, depth, key })
    }

    /// First epoch below this node.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Last epoch below this node.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.first | below(self.depth)
    }

    /// Levels below the root; [`TREE_DEPTH`] is a leaf.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The key bytes, to be sealed in a wrap.
    #[must_use]
    pub fn key(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

    /// The node at `depth` on the way to `epoch`; `None` where it is not below this one.
    #[must_use]
    pub fn descend(&self, epoch: u32, depth: u8) -> Option<Self> {
        if epoch < self.first || epoch > self.last() || depth < self.depth || depth > TREE_DEPTH {
            return None;
        }
        let mut node = self.clone();
        while node.depth < depth {
            let bit = (epoch >> (TREE_DEPTH - 1 - node.depth)) & 1;
            node.key = derive(&[], &node.key, &[b"caregate tree 1", if bit == 0 { &[0] } else { &[1] }]);
            node.first |= bit << (TREE_DEPTH - 1 - node.depth);
            node.depth += 1;
        }
        Some(node)
    }

    /// The key of one epoch below this node.
    #[must_use]
    pub fn epoch_key(&self, epoch: u32) -> Option<EpochKey> {
        self.descend(epoch, TREE_DEPTH).map(|leaf| EpochKey(leaf.key))
    }
}

/// The mask of the epoch bits that a node at `depth` leaves open.
fn below(depth: u8) -> u32 {
    u32::MAX.checked_shr(u32::from(depth)).unwrap_or(0)
}

/// Keys of one (patient, class, generation, epoch).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EpochKey([u8; KEY_BYTES]);

impl EpochKey {
    /// The key of one segment. The salt is random per segment, so a sequence number that is used again after a torn
    /// write still never meets the same key.
    #[must_use]
    pub fn segment_key(
        &self,
        salt: &[u8; 16],
        patient: PatientId,
        class: DataClass,
        sequence: u64,
    ) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(derive(
            salt,
            &self.0,
            &[b"caregate segment 1", &patient.0, &[class as u8], &sequence.to_be_bytes()],
        ))
    }

    /// What stands for a word in this epoch (`crate::search`).
    #[must_use]
    pub fn search_token(&self, patient: PatientId, class: DataClass, word: &[u8]) -> [u8; 16] {
        let okm = derive(&[], &self.0, &[b"caregate search 1", &patient.0, &[class as u8], word]);
        let mut token = [0; 16];
        token.copy_from_slice(&okm[..16]);
        token
    }
}

/// The epoch of a Unix time in microseconds; times before 1970 belong to epoch 0.
#[must_use]
pub fn epoch_of(unix_us: i64) -> u32 {
    u32::try_from((unix_us / (EPOCH_S * 1_000_000)).max(0)).unwrap_or(u32::MAX)
}

/// The fewest nodes, as (first epoch, depth), that cover exactly `first ..= last`; empty where `first > last`.
#[must_use]
pub fn cover(first: u32, last: u32) -> Vec<(u32, u8)> {
    let mut nodes = Vec::new();
    let mut at = u64::from(first);
    let end = u64::from(last) + 1;
    while at < end {
        // The largest aligned power of two at `at` that does not pass `end`.
        let aligned = if at == 0 { 32 } else { at.trailing_zeros().min(32) };
        let fits = (end - at).ilog2();
        let log = aligned.min(fits);
        let (Ok(node), Ok(height)) = (u32::try_from(at), u8::try_from(log)) else { break };
        nodes.push((node, TREE_DEPTH - height));
        at += 1 << log;
    }
    nodes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root() -> TreeNode {
        PatientRoot::from_bytes([7; 32]).class_key(DataClass::Vitals, 0)
    }

    #[test]
    fn a_generation_and_a_class_change_every_key() {
        let patient = PatientRoot::from_bytes([7; 32]);
        let keys: Vec<_> = [(DataClass::Vitals, 0), (DataClass::Vitals, 1), (DataClass::Alarm, 0)]
            .map(|(class, generation)| patient.class_key(class, generation).epoch_key(29_000_000).unwrap().0)
            .into();
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }

    #[test]
    fn the_schedule_is_stable() {
        // Golden: what is sealed today must open for ever. Computed apart from this code, with Python's hmac and hashlib.
        let key = root().epoch_key(29_000_000).unwrap().segment_key(
            &[1; 16],
            PatientId([2; 16]),
            DataClass::Vitals,
            3,
        );
        assert_eq!(hex::encode(*key), GOLDEN);
    }
    const GOLDEN: &str = "f6b66eb1bd68599367454eba81075b3c550f2566402fc60f8b5a21df1651b7c5";

    #[test]
    fn an_epoch_outside_a_node_has_no_key() {
        let node = root().descend(64, 26).unwrap();
        assert_eq!((node.first(), node.last()), (64, 127));
        assert!(node.epoch_key(63).is_none() && node.epoch_key(128).is_none());
        assert!(TreeNode::new(65, 26, [0; 32]).is_none() && TreeNode::new(0, 33, [0; 32]).is_none());
    }

    #[test]
    fn keys_are_wiped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<PatientRoot>();
        wiped::<TreeNode>();
        wiped::<EpochKey>();
        wiped::<crate::wrap::HpkePrivateKey>();
        let (mut patient, mut node) = (PatientRoot::from_bytes([7; 32]), root());
        let mut epoch = node.epoch_key(29_000_000).unwrap();
        patient.zeroize();
        node.zeroize();
        epoch.zeroize();
        assert_eq!((patient.0, node.key, epoch.0), ([0; 32], [0; 32], [0; 32]));
    }

    proptest! {
        /// Design: any span of n epochs in 2·log₂(n) nodes at most.
        #[test]
        fn a_cover_of_any_span_is_small(a in any::<u32>(), b in any::<u32>()) {
            let (first, last) = (a.min(b), a.max(b));
            let n = u64::from(last - first) + 1;
            let nodes = cover(first, last);
            // n + 1 is between 2^log and 2^(log + 1).
            let log = usize::try_from((n + 1).ilog2()).unwrap();
            prop_assert!(nodes.len() <= 2 * log, "{} nodes for {n} epochs", nodes.len());
            let epochs: u64 = nodes.iter().map(|(_, depth)| 1_u64 << (TREE_DEPTH - depth)).sum();
            prop_assert_eq!(epochs, n);
        }

        #[test]
        fn a_cover_is_exact_small_and_opens_like_the_root(first in any::<u32>(), span in 0_u32..5000) {
            let last = first.saturating_add(span);
            let nodes = cover(first, last);
            prop_assert!(nodes.len() <= 2 * 13);
            let mut next = u64::from(first);
            for (start, depth) in nodes {
                prop_assert_eq!(u64::from(start), next);
                let node = root().descend(start, depth).unwrap();
                prop_assert_eq!(node.first(), start);
                prop_assert_eq!(node.epoch_key(node.last()).unwrap().0, root().epoch_key(node.last()).unwrap().0);
                next = u64::from(node.last()) + 1;
            }
            prop_assert_eq!(next, u64::from(last) + 1);
        }
    }
}
