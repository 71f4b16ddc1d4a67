//! Where the contract's values lie: storage slots as Solidity lays them out, the part of docs/control-path.md that prover and
//! verifier must compute alike.
//!
//! ```text
//! value of a mapping = keccak256(key, one word ‖ the mapping's slot, one word) + word of the struct
//! ```

use caregate_protocol::id::{DeviceId, RecipientId};
use caregate_protocol::policy::{Classes, Commitment, Pseudonym, RelationshipId};

use super::address::Address;
use super::eip712::keccak256;

/// One storage slot, or one key of a mapping.
pub type Slot = [u8; 32];

/// `uint64 epoch`.
pub const EPOCH: Slot = [0; 32];

const PARTICIPANTS: u8 = 1;
const CONSENTS: u8 = 2;
const BINDINGS: u8 = 3;
const EMERGENCIES: u8 = 4;
const RELATIONSHIP_KEYS: u8 = 5;
const AUDIT_LOGS: u8 = 8;

fn padded(address: &[u8; 20]) -> Slot {
    let mut word = [0; 32];
    word[12..].copy_from_slice(address);
    word
}

/// The first word of a mapping's value.
fn value_at(mapping: u8, key: &Slot) -> Slot {
    let mut slot = [0; 32];
    slot[31] = mapping;
    keccak256(&[key, &slot])
}

/// The slot `words` further on, modulo 2^256.
fn further(slot: &Slot, words: u8) -> Slot {
    let mut sum = *slot;
    let mut carry = words;
    for byte in sum.iter_mut().rev() {
        let overflow;
        (*byte, overflow) = byte.overflowing_add(carry);
        carry = u8::from(overflow);
    }
    sum
}

/// `participants[id]`: HPKE key; key version, status, kind and emergency.
#[must_use]
pub fn participant(id: &RecipientId) -> [Slot; 2] {
    let first = value_at(PARTICIPANTS, &padded(&id.0));
    [first, further(&first, 1)]
}

/// `consents[relationship]`: grantee, classes, purposes and stale bound; from, until, version and revoked.
#[must_use]
pub fn consent(relationship: &RelationshipId) -> [Slot; 2] {
    let first = value_at(CONSENTS, &relationship.0);
    [first, further(&first, 1)]
}

/// `relationshipKeys[relationship]`: grant key and version; revoke key. Zeroes until the first keys are replaced.
#[must_use]
pub fn relationship_keys(relationship: &RelationshipId) -> [Slot; 2] {
    let first = value_at(RELATIONSHIP_KEYS, &relationship.0);
    [first, further(&first, 1)]
}

/// `auditLogs[key's address]`: root of the newest batch; its last entry and the number of batches.
#[must_use]
pub fn audit_log(log: &Address) -> [Slot; 2] {
    let first = value_at(AUDIT_LOGS, &padded(&log.0));
    [first, further(&first, 1)]
}

/// `bindings[key]`, where `key` is a [`binding_key`]: version and bound.
#[must_use]
pub fn binding(key: &Commitment) -> Slot {
    value_at(BINDINGS, &key.0)
}

/// `emergencies[keccak256(abi.encode(pseudonym, domain))]`: clinician; reason; from, until, number and reviewed.
#[must_use]
pub fn emergency(pseudonym: &Pseudonym, domain: &RecipientId) -> [Slot; 3] {
    let first = value_at(EMERGENCIES, &keccak256(&[&pseudonym.0, &padded(&domain.0)]));
    [first, further(&first, 1), further(&first, 2)]
}

/// A relationship's name: `keccak256(abi.encode(grantKey, revokeKey))`.
#[must_use]
pub fn relationship(grant_key: &Address, revoke_key: &Address) -> RelationshipId {
    RelationshipId(keccak256(&[&padded(&grant_key.0), &padded(&revoke_key.0)]))
}

/// The key of a device's binding: `keccak256(abi.encode(homeKey, commitment))`.
#[must_use]
pub fn binding_key(home_key: &Address, commitment: &Commitment) -> Commitment {
    Commitment(keccak256(&[&padded(&home_key.0), &commitment.0]))
}

/// A device's commitment: `keccak256(salt ‖ MAC ‖ device id)`, and with rules of its own `keccak256(salt ‖ MAC ‖ device id ‖ 0 ‖ rules)`. No id has
/// a zero byte in it, so no device's commitment is another's.
#[must_use]
pub fn device_commitment(salt: &[u8; 32], mac: &[u8; 6], device: &DeviceId, classes: &Classes) -> Commitment {
    let (id, rules) = (device.as_str().as_bytes(), classes.to_bytes());
    let separator: &[u8] = if rules.is_empty() { &[] } else { &[0] };
    Commitment(keccak256(&[salt, mac, id, separator, &rules]))
}

/// A salted commitment to a text, as an emergency's clinician and reason are: `keccak256(salt ‖ UTF-8)`.
#[must_use]
pub fn text_commitment(salt: &[u8; 32], text: &str) -> Commitment {
    Commitment(keccak256(&[salt, text.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(slot: &Slot) -> String {
        hex::encode(slot)
    }

    /// Made with npm ethers 6: `keccak256(AbiCoder.encode([type, "uint256"], [key, slot]))`, plus the word.
    #[test]
    fn slots_are_where_solidity_puts_them() {
        let [key, rest] = participant(&RecipientId([0xb2; 20]));
        assert_eq!(text(&key), "3e7f65446b3d150dc7eda8b1574ccc07591b0572cd589e706fe9b83a42ed1b14");
        assert_eq!(text(&rest), "3e7f65446b3d150dc7eda8b1574ccc07591b0572cd589e706fe9b83a42ed1b15");
        let [grantee, versions] = consent(&RelationshipId([0x4e; 32]));
        assert_eq!(text(&grantee), "5272af19a91483b8aee0184b6c4e1c6e9d5024a05c5d99908632b18c22d48713");
        assert_eq!(text(&versions), "5272af19a91483b8aee0184b6c4e1c6e9d5024a05c5d99908632b18c22d48714");
        assert_eq!(
            text(&binding(&Commitment([0xb1; 32]))),
            "e3907cd126b3b7570444f52694dc878fb8223bb948b272227788cffe2aff314b"
        );
        let [clinician, reason, times] = emergency(&Pseudonym([0xe1; 32]), &RecipientId([0xb2; 20]));
        assert_eq!(text(&clinician), "8a40310a34f677c5379a70a3009f2a517b918d379949e537eca772b54f099d8a");
        assert_eq!(text(&reason), "8a40310a34f677c5379a70a3009f2a517b918d379949e537eca772b54f099d8b");
        assert_eq!(text(&times), "8a40310a34f677c5379a70a3009f2a517b918d379949e537eca772b54f099d8c");
    }

    /// Made with npm ethers 6, as above.
    #[test]
    fn names_are_hashes_of_what_they_name() {
        let (grant, revoke) = (Address([0x11; 20]), Address([0x22; 20]));
        assert_eq!(
            text(&relationship(&grant, &revoke).0),
            "1bbe365357fe28ec15df954baa1b29fb309dd0e8a21208d768bce9ab1c0c4fd0"
        );
        assert_ne!(relationship(&grant, &revoke), relationship(&revoke, &grant));
        assert_eq!(
            text(&binding_key(&grant, &Commitment([0xb1; 32])).0),
            "b064b6f7714f89b7b2a3be2d531fef4ae062bac83da5d32f6f00ac203acd0ade"
        );
        let device = DeviceId::new("ecg-1").unwrap();
        assert_eq!(
            text(&device_commitment(&[0x5a; 32], &[2, 0, 0, 0, 0, 1], &device, &Classes::default()).0),
            "a04010adb0db941b6a56e7d7c6c4efc0c3ff81627b6e67108310421173afaaa2"
        );
    }

    /// Made with a Keccak-f[1600] in plain Python, which gives the value above as well.
    #[test]
    fn a_devices_rules_are_part_of_its_commitment() {
        let device = DeviceId::new("ecg-1").unwrap();
        let of = |rules: &[u8]| {
            let classes = Classes::from_bytes(rules).unwrap();
            text(&device_commitment(&[0x5a; 32], &[2, 0, 0, 0, 0, 1], &device, &classes).0)
        };
        // All is activity, and the heart rate sensitive.
        let both = of(&[0, 0, 3, 0, 1, 4]);
        assert_eq!(both, "e47eb0d511bc13e419cbef25e5ead20842acb3ebd4e15d48d6cf8e005a07e179");
        assert!(
            [of(&[]), of(&[0, 0, 3]), of(&[0, 1, 4]), of(&[0, 0, 3, 0, 1, 1])].iter().all(|it| *it != both)
        );
    }

    #[test]
    fn a_struct_at_the_end_of_storage_goes_on_at_its_beginning() {
        assert_eq!(further(&[0xff; 32], 1), [0; 32]);
        let mut carried = [0; 32];
        (carried[30], carried[31]) = (1, 1);
        let mut before = [0; 32];
        before[31] = 0xff;
        assert_eq!(further(&before, 2), carried);
    }
}
