//! What a slot of the contract holds: how Solidity packs each struct's fields into words (docs/control-path.md, "The ledger").
//! The first field of a word lies in its lowest bytes.

use caregate_protocol::policy::{Emergency, Grant, ParticipantClaim, RecipientKind, RecipientStatus};

/// One storage word, big-endian. A slot that was never written holds zeroes.
pub type Word = [u8; 32];

/// Packs fields from the lowest byte on.
struct Packer {
    word: Word,
    used: usize,
}

impl Packer {
    fn new() -> Self {
        Self { word: [0; 32], used: 0 }
    }

    fn put(mut self, field: &[u8]) -> Self {
        let end = self.word.len() - self.used;
        self.word[end - field.len()..end].copy_from_slice(field);
        self.used += field.len();
        self
    }
}

/// The u64 whose lowest byte is byte `at`, counted from the lowest.
fn number_at(word: &Word, at: usize) -> u64 {
    let end = word.len() - at;
    word[end - 8..end].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `participants[id]`: HPKE key; key version, status, kind, emergency.
#[must_use]
pub fn participant(claim: &ParticipantClaim) -> [Word; 2] {
    let status = match claim.status {
        RecipientStatus::Active => 1,
        RecipientStatus::Suspended => 2,
    };
    let kind = match claim.kind {
        RecipientKind::Other => 0,
        RecipientKind::Treating => 1,
    };
    let rest = Packer::new()
        .put(&claim.key_version.to_be_bytes())
        .put(&[status])
        .put(&[kind])
        .put(&[claim.emergency.into()]);
    [claim.hpke_public_key, rest.word]
}

/// `consents[relationship]`: grantee, classes, purposes, stale bound; from, until, version, revoked.
#[must_use]
pub fn consent(grant: &Grant, revoked: u64) -> [Word; 2] {
    let who = Packer::new()
        .put(&grant.grantee.0)
        .put(&grant.classes.to_be_bytes())
        .put(&grant.purposes.to_be_bytes())
        .put(&grant.stale_bound_s.to_be_bytes());
    let when = Packer::new()
        .put(&grant.from.to_be_bytes())
        .put(&grant.until.to_be_bytes())
        .put(&grant.version.to_be_bytes())
        .put(&revoked.to_be_bytes());
    [who.word, when.word]
}

/// `relationshipKeys[relationship]`: grant key, version; revoke key.
#[must_use]
pub fn relationship_keys(grant_key: &[u8; 20], revoke_key: &[u8; 20], version: u64) -> [Word; 2] {
    let first = Packer::new().put(grant_key).put(&version.to_be_bytes());
    [first.word, Packer::new().put(revoke_key).word]
}

/// `last` and `anchors` of an audit log, from its second word.
#[must_use]
pub fn audit_log(second: &Word) -> (u64, u64) {
    (number_at(second, 0), number_at(second, 8))
}

/// The `version` of a relationship's keys, from their first word: 0 while the first ones hold.
#[must_use]
pub fn keys_version(first: &Word) -> u64 {
    number_at(first, 20)
}

/// The `revoked` of a consent's second word: the highest version that is, 0 for none.
#[must_use]
pub fn revoked(second: &Word) -> u64 {
    number_at(second, 24)
}

/// The `version` of a consent's second word: the newest grant's, 0 for none.
#[must_use]
pub fn granted(second: &Word) -> u64 {
    number_at(second, 16)
}

/// `bindings[key]`: version, bound.
#[must_use]
pub fn binding(version: u64, bound: bool) -> Word {
    Packer::new().put(&version.to_be_bytes()).put(&[bound.into()]).word
}

/// `emergencies[key]`: clinician; reason; from, until, number, reviewed.
#[must_use]
pub fn emergency(emergency: &Emergency, reviewed: bool) -> [Word; 3] {
    let when = Packer::new()
        .put(&emergency.from.to_be_bytes())
        .put(&emergency.until.to_be_bytes())
        .put(&emergency.number.to_be_bytes())
        .put(&[reviewed.into()]);
    [emergency.clinician.0, emergency.reason.0, when.word]
}

/// The `reviewed` of an emergency's third word: whether somebody looked at it, which changes nothing of its access.
#[must_use]
pub fn reviewed(third: &Word) -> bool {
    third[7] != 0
}

/// The `number` of an emergency's third word; 0 where there was none.
#[must_use]
pub fn emergency_number(third: &Word) -> u64 {
    number_at(third, 16)
}

/// A word that holds one u64 and nothing else, as `epoch` does.
#[must_use]
pub fn number(word: &Word) -> Option<u64> {
    word[..24].iter().all(|byte| *byte == 0).then(|| number_at(word, 0))
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::RecipientId;
    use caregate_protocol::policy::{Commitment, EcdsaSignature, Pseudonym, RelationshipId};

    use super::*;

    /// The layout is Solidity's ("Layout of State Variables in Storage"): the first item is stored lower-order aligned.
    #[test]
    fn fields_lie_where_solidity_packs_them() {
        let claim = ParticipantClaim {
            id: RecipientId([0xb2; 20]),
            hpke_public_key: [0xd4; 32],
            key_version: 0x0102,
            status: RecipientStatus::Suspended,
            kind: RecipientKind::Treating,
            emergency: true,
            signature: EcdsaSignature([0; 65]),
        };
        let [key, rest] = participant(&claim);
        assert_eq!(key, [0xd4; 32]);
        assert_eq!(hex::encode(rest), format!("{}0101020000000000000102", "00".repeat(21)));
        let grant = Grant {
            relationship: RelationshipId([1; 32]),
            grantee: RecipientId([0xb2; 20]),
            classes: 31,
            purposes: 5,
            from: 0x0a,
            until: 0x0b,
            stale_bound_s: 0x15180,
            version: 0x0c,
        };
        let [who, when] = consent(&grant, 0x0d);
        assert_eq!(hex::encode(who), format!("00015180000000050000001f{}", "b2".repeat(20)));
        assert_eq!(hex::encode(when), "000000000000000d000000000000000c000000000000000b000000000000000a");
        assert_eq!((revoked(&when), number(&when), number(&binding(7, false))), (13, None, Some(7)));
        assert_eq!(hex::encode(binding(7, true)), format!("{}010000000000000007", "00".repeat(23)));
        let access = Emergency {
            pseudonym: Pseudonym([1; 32]),
            domain: RecipientId([2; 20]),
            clinician: Commitment([3; 32]),
            reason: Commitment([4; 32]),
            from: 5,
            until: 6,
            number: 7,
        };
        let [clinician, reason, when] = emergency(&access, true);
        assert_eq!((clinician, reason, reviewed(&when)), ([3; 32], [4; 32], true));
        assert_eq!(hex::encode(when), "0000000000000001000000000000000700000000000000060000000000000005");
    }
}
