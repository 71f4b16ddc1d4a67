//! Sealing one group commit: readings of one patient and class become one segment, preceded by a wrap for each recipient
//! that does not hold the epoch's key yet. Pure: time, salt and recipients are given.

use caregate_protocol::gap::{Gap, Missing};
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::key::{PatientRoot, TreeNode, epoch_of};
use caregate_protocol::reading::{self, Reading};
use caregate_protocol::segment::{Cipher, Header, SegmentError, signer_id};
use caregate_protocol::wrap::{HpkePublicKey, WrapError, WrapScope};
use ed25519_dalek::SigningKey;
use thiserror::Error;

use super::chains::{CLOCK_FROM_EPOCH, Chain};
use super::leaves::Leaves;

/// Epochs by which a chain may be ahead of the clock and stay there. A clock that steps back by less is being put right; what is sealed by one
/// that was further ahead gets a generation of its own, so that a key of the future minute opens nothing that is sealed after the clock was
/// put right.
pub(super) const AHEAD_EPOCHS: u32 = 1;

/// Sealing failed; the chain is unchanged.
#[derive(Debug, Error)]
pub enum SealError {
    /// The readings don't fit one segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// No key for this epoch: the clock is beyond what 32 bits of minutes hold.
    #[error("epoch {0} has no key")]
    Epoch(u32),
}

/// What seals: the gateway's own keys.
#[derive(Debug)]
pub struct Sealer {
    /// Signs segments and wraps.
    pub device: SigningKey,
    /// By what the processor is good at.
    pub cipher: Cipher,
    /// Epoch keys that were derived already.
    pub leaves: Leaves,
}

/// What is sealed.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Whose.
    pub patient: PatientId,
    /// Which class.
    pub class: DataClass,
    /// In order of arrival.
    pub readings: &'a [Reading],
    /// Who may open what is sealed now, by verified policy.
    pub recipients: &'a [(RecipientId, HpkePublicKey)],
    /// Unix time in microseconds, by [`super::chains::State::sealing_us`].
    pub now_us: i64,
    /// Random.
    pub salt: [u8; 16],
}

/// The records to spool, in this order, and the chain as it will be once they are.
#[derive(Debug)]
pub struct Sealed {
    /// Wraps first, then the segment.
    pub records: Vec<Vec<u8>>,
    /// The chain's new head.
    pub chain: Chain,
    /// Recipients whose public key HPKE refused: they get no wrap, and the others do.
    pub unwrapped: Vec<(RecipientId, WrapError)>,
}

/// An epoch's key, and the wraps that it took.
struct Opened {
    leaf: TreeNode,
    records: Vec<Vec<u8>>,
    unwrapped: Vec<(RecipientId, WrapError)>,
}

impl Sealer {
    /// Seals a batch at the head of `chain`.
    ///
    /// A new generation begins, and what anybody holds of the one before opens nothing that is sealed from now on, where somebody
    /// holds the epoch's key who is no recipient any more (design: revocation closes the epoch); where somebody joins in the
    /// middle of an epoch, who would open what was sealed in it before; where the clock was ahead and is put right; and where there was
    /// none and is one. A clock that is none ([`CLOCK_FROM_EPOCH`]) says nothing: the chain stays in its epoch. It begins no generation, which
    /// would say of all before it that they were ahead.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(
        &mut self,
        root: &PatientRoot,
        chain: &Chain,
        batch: &Batch<'_>,
    ) -> Result<Sealed, SealError> {
        let (mut chain, opened) = self.prepare(root, chain, batch)?;
        let Opened { leaf, mut records, unwrapped } = opened;
        let key = leaf.epoch_key(chain.epoch).ok_or(SealError::Epoch(chain.epoch))?;
        let header = Header {
            class: batch.class,
            cipher: self.cipher,
            patient: batch.patient,
            signer: signer_id(&self.device.verifying_key()),
            generation: chain.generation,
            epoch: chain.epoch,
            sequence: chain.next,
            prev: chain.prev,
            salt: batch.salt,
            sealed_us: batch.now_us,
            readings: u32::try_from(batch.readings.len()).unwrap_or(u32::MAX),
        };
        let (segment, hash) = header.seal(&reading::encode(batch.readings), &key, &self.device)?;
        records.push(segment);
        chain.next += 1;
        chain.prev = hash;
        chain.used = true;
        Ok(Sealed { records, chain, unwrapped })
    }

    /// Signs that segments of the chain are missing, for those who may open what is sealed now: they get this epoch's wrap, if they
    /// don't hold it, by which the core knows them. Of the batch's readings nothing is sealed.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn tell(
        &mut self,
        root: &PatientRoot,
        chain: &Chain,
        batch: &Batch<'_>,
        missing: Missing,
    ) -> Result<Sealed, SealError> {
        let (chain, Opened { mut records, unwrapped, .. }) = self.prepare(root, chain, batch)?;
        let gap = Gap {
            class: batch.class,
            patient: batch.patient,
            generation: chain.generation,
            epoch: chain.epoch,
            made_us: batch.now_us,
            missing,
        };
        records.push(gap.sign(&self.device).to_vec());
        Ok(Sealed { records, chain, unwrapped })
    }

    /// The chain in the epoch of now, with a wrap for each recipient that does not hold its key.
    fn prepare(
        &mut self,
        root: &PatientRoot,
        chain: &Chain,
        batch: &Batch<'_>,
    ) -> Result<(Chain, Opened), SealError> {
        let mut chain = chain.clone();
        let now = epoch_of(batch.now_us);
        let is_known = now >= CLOCK_FROM_EPOCH;
        let was_ahead = is_known && chain.epoch > now.saturating_add(AHEAD_EPOCHS);
        let has_wraps = chain.used || !chain.holders.is_empty();
        // What began by no clock ends with it: the next generation's first epoch says up to where those before it are given (`past.rs`).
        let begins = is_known && has_wraps && chain.epoch < CLOCK_FROM_EPOCH;
        let epoch = if was_ahead { now } else { now.max(chain.epoch) };
        if was_ahead
            || begins
            || chain.holders.iter().any(|holder| !batch.recipients.iter().any(|(id, _)| id == holder))
        {
            chain.renew();
        }
        if epoch != chain.epoch {
            chain.holders.clear();
            (chain.used, chain.reopens) = (false, false);
        }
        chain.epoch = epoch;
        if chain.reopens {
            chain.renew();
        }
        let mut opened = self.open_epoch(root, &mut chain, batch)?;
        if chain.used && !opened.records.is_empty() {
            chain.renew();
            opened = self.open_epoch(root, &mut chain, batch)?;
        }
        Ok((chain, opened))
    }

    /// Wraps the key of the chain's generation and epoch for each recipient that does not hold it.
    fn open_epoch(
        &mut self,
        root: &PatientRoot,
        chain: &mut Chain,
        batch: &Batch<'_>,
    ) -> Result<Opened, SealError> {
        let of = (batch.patient, batch.class);
        let leaf = self.leaves.leaf(root, of, chain.generation, chain.epoch);
        let leaf = leaf.cloned().ok_or(SealError::Epoch(chain.epoch))?;
        let mut opened = Opened { leaf, records: Vec::new(), unwrapped: Vec::new() };
        for (recipient, public_key) in batch.recipients {
            if chain.holders.contains(recipient) {
                continue;
            }
            let scope = WrapScope {
                class: batch.class,
                patient: batch.patient,
                generation: chain.generation,
                recipient: *recipient,
            };
            match scope.seal(&opened.leaf, public_key, &self.device) {
                Ok(wrap) => {
                    opened.records.push(wrap.to_vec());
                    chain.holders.insert(*recipient);
                }
                Err(error) => opened.unwrapped.push((*recipient, error)),
            }
        }
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::record::Record;
    use caregate_protocol::wrap::generate_keypair;

    use super::*;

    const NOW_US: i64 = 1_790_000_000_000_000;

    fn sealer() -> Sealer {
        Sealer {
            device: SigningKey::from_bytes(&[3; 32]),
            cipher: Cipher::Aes256Gcm,
            leaves: Leaves::default(),
        }
    }

    fn seal(chain: &Chain, recipients: &[(RecipientId, HpkePublicKey)], now_us: i64) -> Sealed {
        let batch = Batch {
            patient: PatientId([1; 16]),
            class: DataClass::Vitals,
            readings: &[],
            recipients,
            now_us,
            salt: [9; 16],
        };
        sealer().seal(&PatientRoot::from_bytes([7; 32]), chain, &batch).unwrap()
    }

    fn hospital(n: u8) -> (RecipientId, HpkePublicKey) {
        (RecipientId([n; 20]), generate_keypair().1)
    }

    #[test]
    fn a_wrap_per_recipient_precedes_the_first_segment_of_an_epoch_only() {
        let recipients = [hospital(1), hospital(2)];
        let first = seal(&Chain::default(), &recipients, NOW_US);
        assert_eq!(first.records.len(), 3);
        assert!(matches!(Record::decode(&first.records[0]).unwrap(), Record::Wrap(_)));
        let second = seal(&first.chain, &recipients, NOW_US + 1);
        assert_eq!(second.records.len(), 1);
        let third = seal(&second.chain, &recipients, NOW_US + 60_000_000);
        assert_eq!(third.records.len(), 3);
        assert_eq!(third.chain.next, 3);
    }

    #[test]
    fn a_chain_that_reopens_gives_its_wraps_again_once() {
        let recipients = [hospital(1), hospital(2)];
        let mut first = seal(&Chain::default(), &recipients, NOW_US);
        first.chain.reopens = true;
        let again = seal(&first.chain, &recipients, NOW_US + 1);
        assert_eq!((again.records.len(), again.chain.generation), (3, 1));
        assert_eq!(seal(&again.chain, &recipients, NOW_US + 2).records.len(), 1);
        let next_epoch = seal(&first.chain, &recipients, NOW_US + 60_000_000);
        assert_eq!((next_epoch.records.len(), next_epoch.chain.generation), (3, 0), "it gives them anyway");
        assert!(!next_epoch.chain.reopens);
    }

    #[test]
    fn segments_are_chained_by_hash() {
        let first = seal(&Chain::default(), &[], NOW_US);
        let second = seal(&first.chain, &[], NOW_US);
        let Record::Segment(segment) = Record::decode(&second.records[0]).unwrap() else {
            panic!("a segment")
        };
        assert_eq!((segment.header.sequence, segment.header.prev), (1, first.chain.prev));
    }

    #[test]
    fn who_is_revoked_holds_no_key_of_what_is_sealed_next() {
        let (private, public) = generate_keypair();
        let revoked = (RecipientId([1; 20]), public);
        let first = seal(&Chain::default(), &[revoked, hospital(2)], NOW_US);
        let Record::Wrap(wrap) = Record::decode(&first.records[0]).unwrap() else { panic!("a wrap") };
        let node = wrap.open(&private, &sealer().device.verifying_key()).unwrap();
        let after = seal(&first.chain, &[hospital(2)], NOW_US);
        assert_eq!(after.chain.generation, 1);
        let Record::Segment(segment) = Record::decode(after.records.last().unwrap()).unwrap() else {
            panic!("a segment")
        };
        assert_eq!(segment.header.epoch, node.first());
        assert_eq!(segment.open(&node.epoch_key(node.first()).unwrap()), Err(SegmentError::Open));
    }

    /// A generation's keys are others, so its epochs may go back; within one they don't.
    #[test]
    fn a_clock_that_was_ahead_leaves_its_generation_behind() {
        let (private, public) = generate_keypair();
        let recipients = [(RecipientId([1; 20]), public)];
        let day = 86_400_000_000;
        let ahead = seal(&Chain::default(), &recipients, NOW_US + day);
        let right = seal(&ahead.chain, &recipients, NOW_US);
        assert_eq!((right.chain.generation, right.chain.epoch), (1, epoch_of(NOW_US)));
        let Record::Wrap(wrap) = Record::decode(&ahead.records[0]).unwrap() else { panic!("a wrap") };
        let of_future = wrap.open(&private, &sealer().device.verifying_key()).unwrap();
        let Record::Segment(segment) = Record::decode(right.records.last().unwrap()).unwrap() else {
            panic!("a segment")
        };
        let key = of_future.epoch_key(of_future.first()).unwrap();
        assert_eq!(segment.open(&key), Err(SegmentError::Open));
        assert_eq!(right.records.len(), 2, "who may open it gets the new generation's wrap");

        // A step back of less than a minute stays where it was.
        let before = seal(&Chain::default(), &recipients, NOW_US + 59_000_000);
        let after = seal(&before.chain, &recipients, NOW_US);
        assert_eq!((after.chain.generation, after.chain.epoch), (0, before.chain.epoch));
    }

    /// It says neither that the chain was ahead nor that time has gone back.
    #[test]
    fn a_clock_that_is_none_leaves_a_chain_where_it_is() {
        const IN_1970_US: i64 = 300_000_000;
        let recipients = [hospital(1)];
        let at = |sealed: &Sealed| (sealed.chain.generation, sealed.chain.epoch);
        let before = seal(&Chain::default(), &recipients, NOW_US);
        let without = seal(&before.chain, &recipients, IN_1970_US);
        assert_eq!((at(&without), without.records.len()), ((0, epoch_of(NOW_US)), 1));
        let after = seal(&without.chain, &recipients, NOW_US + 60_000_000);
        assert_eq!(at(&after), (0, epoch_of(NOW_US) + 1));
        // One that was ahead is noticed when there is a clock again.
        let ahead = seal(&Chain::default(), &recipients, NOW_US + 86_400_000_000);
        let without = seal(&ahead.chain, &recipients, IN_1970_US);
        assert_eq!(at(&without), at(&ahead));
        assert_eq!(at(&seal(&without.chain, &recipients, NOW_US)), (1, epoch_of(NOW_US)));
        // What began without one ends with it.
        let without = seal(&Chain::default(), &recipients, IN_1970_US);
        assert_eq!(at(&without), (0, 5));
        assert_eq!(at(&seal(&without.chain, &recipients, NOW_US)), (1, epoch_of(NOW_US)));
    }

    fn opens(node: &TreeNode, record: &[u8]) -> bool {
        let Record::Segment(segment) = Record::decode(record).unwrap() else { panic!("a segment") };
        node.epoch_key(segment.header.epoch).is_some_and(|key| segment.open(&key).is_ok())
    }

    #[test]
    fn who_joins_within_an_epoch_opens_nothing_sealed_before() {
        let (private, public) = generate_keypair();
        let newcomer = (RecipientId([1; 20]), public);
        let other = hospital(2);
        let first = seal(&Chain::default(), &[other], NOW_US);
        let both = seal(&first.chain, &[newcomer, other], NOW_US + 1);
        // One wrap for each: the other holds no key of the new generation either.
        assert_eq!((both.records.len(), both.chain.generation), (3, 1));
        let Record::Wrap(wrap) = Record::decode(&both.records[0]).unwrap() else { panic!("a wrap") };
        let node = wrap.open(&private, &sealer().device.verifying_key()).unwrap();
        assert!(opens(&node, &both.records[2]) && !opens(&node, &first.records[1]));
        let after = seal(&both.chain, &[newcomer, other], NOW_US + 2);
        assert_eq!((after.records.len(), after.chain.generation), (1, 1));
        let next = seal(&after.chain, &[newcomer, other, hospital(3)], NOW_US + 60_000_000);
        assert_eq!((next.records.len(), next.chain.generation), (4, 1), "a new epoch has no past");
    }

    #[test]
    fn what_was_sealed_for_nobody_stays_so() {
        let first = seal(&Chain::default(), &[], NOW_US);
        let joined = seal(&first.chain, &[hospital(1)], NOW_US);
        assert_eq!((joined.records.len(), joined.chain.generation), (2, 1));
    }

    /// A torn write loses what was sealed last; its number is used again, with another salt, and so never with the same key and nonce.
    #[test]
    fn a_number_that_is_used_again_after_a_crash_meets_another_key() {
        let root = PatientRoot::from_bytes([7; 32]);
        let sealed = |salt: u8| {
            let (class, patient) = (DataClass::Vitals, PatientId([1; 16]));
            let batch =
                Batch { patient, class, readings: &[], recipients: &[], now_us: NOW_US, salt: [salt; 16] };
            sealer().seal(&root, &Chain::default(), &batch).unwrap().records.remove(0)
        };
        let (lost, again) = (sealed(1), sealed(2));
        let key_of = |record: &[u8]| {
            let Record::Segment(segment) = Record::decode(record).unwrap() else { panic!("a segment") };
            let h = &segment.header;
            let epoch_key = root.class_key(h.class, h.generation).epoch_key(h.epoch).unwrap();
            assert!(segment.open(&epoch_key).is_ok());
            (h.sequence, *epoch_key.segment_key(&h.salt, h.patient, h.class, h.sequence))
        };
        let ((first, lost_key), (second, again_key)) = (key_of(&lost), key_of(&again));
        assert_eq!(first, second, "the same number");
        assert_ne!(lost_key, again_key);
    }

    #[test]
    fn a_recipient_with_a_bad_key_does_not_cost_the_others_theirs() {
        let sealed =
            seal(&Chain::default(), &[(RecipientId([1; 20]), HpkePublicKey([0; 32])), hospital(2)], NOW_US);
        assert_eq!((sealed.records.len(), sealed.unwrapped.len()), (2, 1));
        let bad = (RecipientId([1; 20]), HpkePublicKey([0; 32]));
        let again = seal(&seal(&Chain::default(), &[], NOW_US).chain, &[bad], NOW_US);
        assert_eq!((again.unwrapped.len(), again.chain.generation), (1, 0), "it joins nothing");
    }
}
