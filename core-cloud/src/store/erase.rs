//! Erasure of a pseudonym: written down first, then carried out in steps of bounded size, also after a crash.
//!
//! ```text
//!  begin ──▶ refused from here on ──▶ erase_some … ──▶ finish
//!    └─ the request itself is a record, in the queues of all that ever held a wrap: feeds forget as well
//! ```
//! Places in queues stay, without a record: they name nobody, and numbers stay what they were.

use caregate_protocol::erasure::{RECEIPT_BYTES, Receipt, SignedErasure};
use caregate_protocol::id::{PatientId, RecipientId, SignerId};
use caregate_protocol::uplink::Timing;
use redb::{Database, ReadableDatabase, ReadableTable, Table};

use super::index::{Keep, Tables};
use super::rows::{ErasedRow, OwnerRow};
use super::{Erased, StoreError, failed};

/// Records that go in one commit: some 10 ms, so that others' records don't wait for long.
pub(super) const STEP_RECORDS: usize = 2048;

/// Feeds' receipts of one erasure: far more than a patient has hospitals.
const RECEIPTS_MAX: usize = 256;

/// What a request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// Now.
    Now,
    /// It was asked for before.
    Already,
    /// What there is came from other gateways alone.
    Stranger,
}

fn span(patient: PatientId) -> (Vec<u8>, Vec<u8>) {
    // No key has more than 64 bytes behind the patient.
    (patient.0.to_vec(), [patient.0.as_slice(), &[0xff; 64]].concat())
}

impl Tables<'_> {
    /// Whether nothing of this patient is taken any more.
    pub(super) fn is_erased(&self, patient: PatientId) -> Result<bool, StoreError> {
        Ok(self.erased.get(patient.0.as_slice()).map_err(failed("read erased"))?.is_some())
    }

    /// Writes the request down, for good, and puts it into queues. `own` are the keys of the gateway that asks.
    pub(super) fn begin_erasure(
        &mut self,
        request: &SignedErasure,
        own: &[SignerId],
    ) -> Result<Begun, StoreError> {
        let patient = request.erasure.patient;
        let (low, high) = span(patient);
        let mut signers = Vec::new();
        for entry in self.signers.range(low.as_slice()..=high.as_slice()).map_err(failed("read signers"))? {
            let (key, _) = entry.map_err(failed("read signers"))?;
            signers.extend(key.value().last_chunk::<8>().copied().map(SignerId));
        }
        if !signers.is_empty() && !signers.iter().any(|signer| own.contains(signer)) {
            return Ok(Begun::Stranger);
        }
        if self.is_erased(patient)? {
            return Ok(Begun::Already);
        }
        let index = self.append(request.bytes())?;
        let mut holders = Vec::new();
        for entry in self.holders.range(low.as_slice()..=high.as_slice()).map_err(failed("read holders"))? {
            let (key, _) = entry.map_err(failed("read holders"))?;
            holders.extend(key.value().last_chunk::<20>().copied().map(RecipientId));
        }
        holders.into_iter().try_for_each(|holder| self.deliver(holder, index, Timing::Live))?;
        self.note_erasure(request, index)?;
        Ok(Begun::Now)
    }

    /// From here on nothing of this patient is taken. The request is the record of this index.
    pub(super) fn note_erasure(&mut self, request: &SignedErasure, index: u64) -> Result<(), StoreError> {
        self.use_up(request.erasure.patient, OwnerRow { since: index, signer: request.signer }, 0);
        self.settle()?;
        self.write_row(request.erasure.patient, ErasedRow::default())
    }

    fn free_all(&mut self, low: &[u8], high: &[u8]) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        for entry in self.signers.range(low..=high).map_err(failed("read signers"))? {
            keys.push(entry.map_err(failed("read signers"))?.0.value().to_vec());
        }
        for key in keys {
            self.signers.insert(key.as_slice(), 0).map_err(failed("write signers"))?;
        }
        Ok(())
    }

    fn write_row(&mut self, patient: PatientId, row: ErasedRow) -> Result<(), StoreError> {
        let value = row.encode();
        self.erased.insert(patient.0.as_slice(), value.as_slice()).map_err(failed("write erased"))?;
        Ok(())
    }

    fn row(&self, patient: PatientId) -> Result<ErasedRow, StoreError> {
        let row = self.erased.get(patient.0.as_slice()).map_err(failed("read erased"))?;
        Ok(row.map(|row| ErasedRow::decode(row.value())).unwrap_or_default())
    }

    /// Takes out some. Whether all is gone.
    fn erase_some(&mut self, patient: PatientId, now_us: i64) -> Result<bool, StoreError> {
        let mut row = self.row(patient)?;
        let (low, high) = span(patient);
        let mut gone = Vec::new();
        let index_of = |value: &[u8]| value.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        gone.extend(take_some(&mut self.segments, &low, &high, |_, value| index_of(value))?);
        gone.extend(take_some(&mut self.wraps, &low, &high, |_, index| Some(index))?);
        gone.extend(take_some(&mut self.gaps, &low, &high, |_, index| Some(index))?);
        let of_header = |key: &[u8], ()| key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        gone.extend(take_some(&mut self.headers, &low, &high, of_header)?);
        let mut more = gone.len();
        more += take_some(&mut self.epochs, &low, &high, |_, index| Some(index))?.len();
        more += take_some(&mut self.heads, &low, &high, |_, _| Some(0))?.len();
        more += take_some(&mut self.holders, &low, &high, |_, ()| Some(0))?.len();
        for index in gone {
            if let Some(gone) = self.take_out(index)? {
                row.records += 1;
                row.bytes += gone.bytes;
            }
        }
        if more == 0 {
            (row.is_done, row.erased_us) = (true, now_us);
            self.free_all(&low, &high)?;
        }
        self.write_row(patient, row)?;
        Ok(row.is_done)
    }
}

/// Removes up to [`STEP_RECORDS`] rows of a range; answers with the index that each leads to.
pub(super) fn take_some<V: redb::Value + 'static>(
    table: &mut Table<'_, &'static [u8], V>,
    low: &[u8],
    high: &[u8],
    index: impl for<'v> Fn(&[u8], V::SelfType<'v>) -> Option<u64>,
) -> Result<Vec<u64>, StoreError> {
    let mut rows = Vec::new();
    for entry in table.range(low..=high).map_err(failed("read what is to go"))?.take(STEP_RECORDS) {
        let (key, value) = entry.map_err(failed("read what is to go"))?;
        rows.push((key.value().to_vec(), index(key.value(), value.value())));
    }
    for (key, _) in &rows {
        table.remove(key.as_slice()).map_err(failed("remove"))?;
    }
    Ok(rows.into_iter().filter_map(|(_, index)| index).collect())
}

/// Takes out all of a patient, a commit for each step; each is durable.
pub(super) fn carry_out(
    db: &Database,
    keep: Keep,
    patient: PatientId,
    now_us: i64,
) -> Result<Erased, StoreError> {
    loop {
        let txn = db.begin_write().map_err(failed("begin"))?;
        let mut tables = Tables::open(&txn, keep)?;
        let mut row = tables.row(patient)?;
        if !row.is_done && tables.erase_some(patient, now_us)? {
            row = tables.row(patient)?;
        }
        drop(tables);
        txn.commit().map_err(failed("commit"))?;
        if row.is_done {
            return Ok(Erased::Done { records: row.records, bytes: row.bytes, erased_us: row.erased_us });
        }
    }
}

/// Keeps a feed's receipt of an erasure that was begun here, one for each feed's key. False where there is no such erasure, or
/// where there are [`RECEIPTS_MAX`].
pub(super) fn keep_receipt(
    db: &Database,
    receipt: &Receipt,
    key: [u8; 32],
    bytes: &[u8],
) -> Result<bool, StoreError> {
    let txn = db.begin_write().map_err(failed("begin"))?;
    let is_kept = {
        let erased = txn.open_table(super::index::ERASED).map_err(failed("open erased"))?;
        let row = erased.get(receipt.patient.0.as_slice()).map_err(failed("read erased"))?;
        // Feeds may be quicker than the core.
        let is_erased = row.is_some();
        let mut receipts = txn.open_table(super::index::RECEIPTS).map_err(failed("open receipts"))?;
        let (low, high) = span(receipt.patient);
        let range = receipts.range(low.as_slice()..=high.as_slice()).map_err(failed("read receipts"))?;
        let named = [receipt.patient.0.as_slice(), &key].concat();
        let is_known = receipts.get(named.as_slice()).map_err(failed("read receipts"))?.is_some();
        let has_room = is_known || range.count() < RECEIPTS_MAX;
        // The first stays: one who is told again has nothing more to erase.
        if is_erased && has_room && !is_known {
            receipts.insert(named.as_slice(), bytes).map_err(failed("write receipts"))?;
        }
        is_erased && has_room
    };
    txn.commit().map_err(failed("commit"))?;
    Ok(is_kept)
}

/// Feeds' receipts of a patient's erasure.
pub(super) fn receipts(db: &Database, patient: PatientId) -> Result<Vec<Vec<u8>>, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let receipts = txn.open_table(super::index::RECEIPTS).map_err(failed("open receipts"))?;
    let (low, high) = span(patient);
    let mut all = Vec::new();
    for entry in receipts.range(low.as_slice()..=high.as_slice()).map_err(failed("read receipts"))? {
        let receipt = entry.map_err(failed("read receipts"))?.1.value().to_vec();
        // One of the format before is of no use to a gateway.
        all.extend((receipt.len() == RECEIPT_BYTES).then_some(receipt));
    }
    Ok(all)
}

/// Pseudonyms whose erasure was begun, and whether it was carried out.
pub(super) fn all(db: &Database) -> Result<Vec<(PatientId, bool)>, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let erased = txn.open_table(super::index::ERASED).map_err(failed("open erased"))?;
    let mut all = Vec::new();
    for entry in erased.iter().map_err(failed("read erased"))? {
        let (key, row) = entry.map_err(failed("read erased"))?;
        let patient = key.value().first_chunk::<16>().copied().map(PatientId);
        all.extend(patient.map(|patient| (patient, ErasedRow::decode(row.value()).is_done)));
    }
    Ok(all)
}
