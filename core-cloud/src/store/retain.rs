//! Retention: what was sealed before an epoch goes, in steps of bounded size.
//!
//! Of each chain stays a floor: what is below it was here, or is as old, and is acknowledged without being stored again. Of the queues go
//! the places before the first record that is still there, but never the last place, from which the next number is known; as the newest
//! record stays, from which the next index is.
//!
//! Where records are kept elsewhere, the same goes out of the tables; a message goes when none of its records is there any more.

use caregate_protocol::id::{DataClass, PatientId};
use redb::{Database, ReadableTable};

use super::erase::STEP_RECORDS;
use super::index::{Gone, Keep, Tables, at_place, scope_key, successor};
use super::{Expired, StoreError, failed};

/// Bytes of a patient, a class and a generation in front of a key.
const SCOPE_BYTES: usize = 21;
/// Of a segment's key in `epochs`; a gap's is longer.
const SEGMENT_KEY_BYTES: usize = SCOPE_BYTES + 12;

/// One step, in one durable commit.
pub(super) fn expire(db: &Database, patient: PatientId, before: u32) -> Result<Expired, StoreError> {
    let txn = db.begin_write().map_err(failed("begin"))?;
    let step = Tables::open(&txn, Keep::Here)?.expire_some(patient, before)?;
    if step.records == 0 {
        txn.abort().map_err(failed("abort"))?;
    } else {
        txn.commit().map_err(failed("commit"))?;
    }
    Ok(step)
}

impl Tables<'_> {
    /// One step.
    pub(super) fn expire_some(&mut self, patient: PatientId, before: u32) -> Result<Expired, StoreError> {
        let mut step = Expired::default();
        for class in DataClass::ALL {
            self.expire_class(patient, class, before, &mut step)?;
        }
        if step.records > 0 {
            self.trim_queues()?;
        }
        Ok(step)
    }

    fn expire_class(
        &mut self,
        patient: PatientId,
        class: DataClass,
        before: u32,
        step: &mut Expired,
    ) -> Result<(), StoreError> {
        let mut from = 0;
        while let Some(generation) = self.next_generation(patient, class, from)? {
            let scope = scope_key(patient.0, class as u8, generation);
            self.expire_epochs((patient, class), &scope, before, step)?;
            self.expire_wraps(patient, &scope, before, step)?;
            let Some(next) = generation.checked_add(1) else { break };
            from = next;
        }
        self.expire_heads(patient, class, step)
    }

    /// The lowest generation from this on of which there is a segment, a gap or a wrap.
    fn next_generation(
        &self,
        patient: PatientId,
        class: DataClass,
        from: u32,
    ) -> Result<Option<u32>, StoreError> {
        let low = scope_key(patient.0, class as u8, from);
        let high = [patient.0.as_slice(), &[class as u8], &[0xff; 48]].concat();
        let mut lowest: Option<u32> = None;
        for table in [&self.epochs, &self.wraps] {
            let mut range = table.range(low.as_slice()..=high.as_slice()).map_err(failed("read epochs"))?;
            let first = range.next().transpose().map_err(failed("read epochs"))?;
            let generation = first.and_then(|(key, _)| {
                key.value().get(17..21).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
            });
            lowest = lowest.into_iter().chain(generation).min();
        }
        Ok(lowest)
    }

    /// Segments and gaps.
    fn expire_epochs(
        &mut self,
        (patient, class): (PatientId, DataClass),
        scope: &[u8],
        before: u32,
        step: &mut Expired,
    ) -> Result<(), StoreError> {
        let end = [scope, &before.to_be_bytes()].concat();
        let mut old = Vec::new();
        for entry in self.epochs.range(scope..end.as_slice()).map_err(failed("read epochs"))? {
            let (key, index) = entry.map_err(failed("read epochs"))?;
            old.push((key.value().to_vec(), index.value()));
            if old.len() > STEP_RECORDS {
                break;
            }
        }
        let chain = scope.get(..17).unwrap_or_default();
        for (key, index) in old.into_iter().take(self.left(step)) {
            if !self.expire_record(patient, index, step)? {
                continue;
            }
            self.epochs.remove(key.as_slice()).map_err(failed("remove"))?;
            let rest = key.get(SCOPE_BYTES + 4..).unwrap_or_default();
            let named = [chain, rest].concat();
            if key.len() == SEGMENT_KEY_BYTES {
                self.segments.remove(named.as_slice()).map_err(failed("remove"))?;
                let sequence = rest.first_chunk::<8>().copied().map_or(0, u64::from_be_bytes);
                self.raise_floor(patient, class, sequence.saturating_add(1))?;
            } else {
                self.gaps.remove(named.as_slice()).map_err(failed("remove"))?;
            }
        }
        Ok(())
    }

    fn expire_wraps(
        &mut self,
        patient: PatientId,
        scope: &[u8],
        before: u32,
        step: &mut Expired,
    ) -> Result<(), StoreError> {
        let end = [scope, &before.to_be_bytes()].concat();
        let mut old = Vec::new();
        for entry in self.wraps.range(scope..end.as_slice()).map_err(failed("read wraps"))? {
            let (key, index) = entry.map_err(failed("read wraps"))?;
            let first = key.value().get(SCOPE_BYTES..SCOPE_BYTES + 4).and_then(|bytes| bytes.try_into().ok());
            let first = first.map_or(u32::MAX, u32::from_be_bytes);
            let depth = key.value().get(SCOPE_BYTES + 4).copied().unwrap_or_default();
            let last = first | u32::MAX.checked_shr(u32::from(depth)).unwrap_or(0);
            if last < before {
                old.push((key.value().to_vec(), index.value()));
            }
            if old.len() > STEP_RECORDS {
                break;
            }
        }
        for (key, index) in old.into_iter().take(self.left(step)) {
            if self.expire_record(patient, index, step)? {
                self.wraps.remove(key.as_slice()).map_err(failed("remove"))?;
                self.wrap_taken_out();
            }
        }
        Ok(())
    }

    /// All but the newest: it says more than they did.
    fn expire_heads(
        &mut self,
        patient: PatientId,
        class: DataClass,
        step: &mut Expired,
    ) -> Result<(), StoreError> {
        let chain = [patient.0.as_slice(), &[class as u8]].concat();
        let high = [chain.as_slice(), &[0xff; 8]].concat();
        let mut heads = Vec::new();
        for entry in self.headers.range(chain.as_slice()..=high.as_slice()).map_err(failed("read headers"))? {
            let (key, _) = entry.map_err(failed("read headers"))?;
            heads.push(key.value().to_vec());
            if heads.len() > STEP_RECORDS {
                break;
            }
        }
        heads.pop();
        for key in heads.into_iter().take(self.left(step)) {
            let index = key.last_chunk::<8>().copied().map_or(0, u64::from_be_bytes);
            if self.expire_record(patient, index, step)? {
                self.headers.remove(key.as_slice()).map_err(failed("remove"))?;
            }
        }
        Ok(())
    }

    /// Records that this step may still take out; where that is none there may be more.
    #[expect(clippy::unused_self, reason = "reads as a question to what is worked on")]
    fn left(&self, step: &mut Expired) -> usize {
        let left = STEP_RECORDS.saturating_sub(usize::try_from(step.records).unwrap_or(usize::MAX));
        step.more |= left == 0;
        left
    }

    /// False where it has to stay, because it is the newest of all.
    fn expire_record(
        &mut self,
        patient: PatientId,
        index: u64,
        step: &mut Expired,
    ) -> Result<bool, StoreError> {
        let last = self.records.last().map_err(failed("read records"))?.map(|(last, _)| last.value());
        if last == Some(index) {
            return Ok(false);
        }
        let Some(Gone { signer: Some(signer), bytes }) = self.take_out(index)? else { return Ok(true) };
        step.records += 1;
        step.bytes += bytes;
        step.more |= step.records >= u64::try_from(STEP_RECORDS).unwrap_or(u64::MAX);
        self.free(patient, signer, bytes)?;
        Ok(true)
    }

    /// Takes out places in front of each queue whose record is gone.
    fn trim_queues(&mut self) -> Result<(), StoreError> {
        let mut from = [0; 20];
        loop {
            let mut gone = Vec::new();
            let mut recipient: Option<[u8; 20]> = None;
            let low = [from.as_slice(), &[0; 8]].concat();
            for entry in self.delivery.range(low.as_slice()..).map_err(failed("read delivery"))? {
                let (key, place) = entry.map_err(failed("read delivery"))?;
                let of = key.value().first_chunk::<20>().copied().unwrap_or([0xff; 20]);
                if *recipient.get_or_insert(of) != of || gone.len() > STEP_RECORDS {
                    break;
                }
                if self.records.get(at_place(place.value()).0).map_err(failed("read a record"))?.is_some() {
                    gone.push(None);
                    break;
                }
                gone.push(Some(key.value().to_vec()));
            }
            // The last that was looked at stays: a record is there, or the queue may end with it.
            gone.pop();
            for key in gone.into_iter().flatten() {
                self.delivery.remove(key.as_slice()).map_err(failed("remove"))?;
            }
            let Some(next) = recipient.and_then(successor) else { return Ok(()) };
            from = next;
        }
    }
}
