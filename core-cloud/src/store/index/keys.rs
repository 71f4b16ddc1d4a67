//! Keys of the index's tables, and what is read out of them.

use caregate_protocol::gap::{Gap, Missing};
use caregate_protocol::head::Head;
use caregate_protocol::id::{PatientId, RecipientId, SignerId};
use caregate_protocol::wrap::Wrap;
use redb::{Database, ReadableDatabase, ReadableTable};
use ring::digest::{SHA256, digest};

use super::{SIGNERS, StoreError, failed};

/// Of a wrap's hash in its key: two that a gateway did not make on purpose never meet in it.
pub(in crate::store) const WRAP_HASH_BYTES: usize = 16;

/// Of two heads the newer has the greater: by how far it goes, then by when it was made.
pub(super) fn age_of(head: &Head) -> [u8; 16] {
    let made = u64::try_from(head.made_us).unwrap_or(0);
    (u128::from(head.next) << 64 | u128::from(made)).to_be_bytes()
}

pub(in crate::store) fn scope_key(patient: [u8; 16], class: u8, generation: u32) -> Vec<u8> {
    [patient.as_slice(), &[class], &generation.to_be_bytes()].concat()
}

pub(super) fn gap_key(gap: &Gap) -> Vec<u8> {
    let Missing { why, first, last, .. } = gap.missing;
    let (first, last) = (first.to_be_bytes(), last.to_be_bytes());
    [gap.patient.0.as_slice(), &[gap.class as u8], &first, &last, &[why as u8]].concat()
}

/// What the keys of all wraps of a node begin with.
pub(in crate::store) fn node_key(scope: &[u8], epoch: u32, depth: u8) -> Vec<u8> {
    [scope, &epoch.to_be_bytes(), &[depth]].concat()
}

/// A wrap's key ends with the hash of its bytes: one that is sealed anew, as to a recipient's next HPKE key, is another.
pub(super) fn wrap_key(wrap: &Wrap, bytes: &[u8]) -> Vec<u8> {
    let scope = scope_key(wrap.patient.0, wrap.class as u8, wrap.generation);
    let node = node_key(&scope, wrap.epoch, wrap.depth);
    let hash = digest(&SHA256, bytes);
    [node.as_slice(), &wrap.recipient.0, hash.as_ref().get(..WRAP_HASH_BYTES).unwrap_or_default()].concat()
}

/// The epoch in a key of `epochs`, behind its scope.
pub(super) fn epoch_in(key: &[u8], at: usize) -> u32 {
    key.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn delivery_key(recipient: RecipientId, number: u64) -> Vec<u8> {
    [recipient.0.as_slice(), &number.to_be_bytes()].concat()
}

/// The next recipient's lowest id.
pub(in crate::store) fn successor(mut id: [u8; 20]) -> Option<[u8; 20]> {
    for byte in id.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(id);
        }
    }
    None
}

pub(super) fn number_of(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The number that a recipient's queue gives next.
pub(super) fn next_number(
    delivery: &impl ReadableTable<&'static [u8], u64>,
    recipient: RecipientId,
) -> Result<u64, StoreError> {
    let (low, high) = (delivery_key(recipient, 0), delivery_key(recipient, u64::MAX));
    let mut range = delivery.range(low.as_slice()..=high.as_slice()).map_err(failed("read delivery"))?;
    let last = range.next_back().transpose().map_err(failed("read delivery"))?;
    Ok(last.map_or(0, |(key, _)| number_of(key.value()) + 1))
}

/// Bytes stored of each patient and signer.
pub(in crate::store) fn usage(db: &Database) -> Result<Vec<(PatientId, SignerId, u64)>, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let signers = txn.open_table(SIGNERS).map_err(failed("open signers"))?;
    let mut usage = Vec::new();
    for entry in signers.iter().map_err(failed("read signers"))? {
        let (key, bytes) = entry.map_err(failed("read signers"))?;
        let patient = key.value().first_chunk::<16>().copied().map(PatientId);
        let signer = key.value().last_chunk::<8>().copied().map(SignerId);
        usage.extend(patient.zip(signer).map(|(patient, signer)| (patient, signer, bytes.value())));
    }
    Ok(usage)
}
