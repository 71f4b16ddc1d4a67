//! Whose each pseudonym is: the gateway's whose records came last, since another's come here only after it took the pseudonym over
//! (`crate::owners`), and none of who owned it before come after that (`crate::writer`). It is written down in the commit that changes it,
//! and stays when the records go.

use std::collections::BTreeMap;

use caregate_protocol::id::{PatientId, SignerId};
use caregate_protocol::record::Record;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use tracing::info;

use super::keys::number_of;
use super::{Keep, OWNERS, Tables, placed};
use crate::store::rows::OwnerRow;
use crate::store::{StoreError, failed};

/// First bytes of what says on a stream whose a pseudonym is, in the place of a record:
///
/// ```text
/// "CGOW" │ patient(16) │ row(16)
/// ```
#[cfg(feature = "nats")]
pub(super) const OWNER_MAGIC: [u8; 4] = *b"CGOW";

/// What says on a stream whose a pseudonym is.
#[cfg(feature = "nats")]
pub(in crate::store) fn owner_entry(patient: PatientId, owner: OwnerRow) -> Vec<u8> {
    [OWNER_MAGIC.as_slice(), &patient.0, owner.encode().as_slice()].concat()
}

/// The same, read; none where that is not one.
#[cfg(feature = "nats")]
pub(super) fn owner_in(entry: &[u8]) -> Option<(PatientId, OwnerRow)> {
    let (patient, row) = entry.strip_prefix(&OWNER_MAGIC)?.split_first_chunk::<16>()?;
    Some((PatientId(*patient), OwnerRow::decode(row)?))
}

impl Tables<'_> {
    /// Whose a pseudonym is; none where nothing was ever stored of it.
    pub(in crate::store) fn owner(&self, patient: PatientId) -> Result<Option<OwnerRow>, StoreError> {
        let row = self.owners.get(patient.0.as_slice()).map_err(failed("read owners"))?;
        Ok(row.and_then(|row| OwnerRow::decode(row.value())))
    }

    /// There is a record of this index and signer.
    pub(super) fn signed(&mut self, patient: PatientId, by: OwnerRow) {
        let newest = self.newest.entry(patient).or_insert(by);
        if newest.since < by.since {
            *newest = by;
        }
    }

    /// Writes down whose a pseudonym is, where that has changed. One commit's messages of a stream are not in their records' order, and
    /// reading it may be cut off between any two: what is read may be older than what was read before. So there the newest is kept even
    /// where its signer is the same, and the highest index decides, in whatever order and parts they are read.
    pub(super) fn own(&mut self, patient: PatientId, by: OwnerRow) -> Result<(), StoreError> {
        let in_parts = self.keep != Keep::Here;
        let known = self.owner(patient)?;
        if known.is_none_or(|known| known.since < by.since && (in_parts || known.signer != by.signer)) {
            let row = by.encode();
            self.owners.insert(patient.0.as_slice(), row.as_slice()).map_err(failed("write owners"))?;
        }
        Ok(())
    }

    /// Who signed the newest record of a patient, of those that are still there.
    fn signed_last(&self, patient: PatientId) -> Result<Option<OwnerRow>, StoreError> {
        let high = [patient.0.as_slice(), &[0xff; 64]].concat();
        let (low, high) = (patient.0.as_slice(), high.as_slice());
        let mut newest: Option<u64> = None;
        // Segments and gaps; wraps; heads.
        for table in [&self.epochs, &self.wraps] {
            for entry in table.range(low..=high).map_err(failed("read epochs"))? {
                let (_, index) = entry.map_err(failed("read epochs"))?;
                newest = newest.max(Some(index.value()));
            }
        }
        for entry in self.headers.range(low..=high).map_err(failed("read headers"))? {
            let (key, _) = entry.map_err(failed("read headers"))?;
            newest = newest.max(Some(number_of(key.value())));
        }
        let Some(since) = newest else { return Ok(None) };
        let stored = self.records.get(since).map_err(failed("read a record"))?;
        let signer = stored.and_then(|stored| match self.keep {
            Keep::Here => Record::decode(stored.value()).ok().map(|record| record.signer()),
            Keep::Elsewhere => placed(stored.value()).map(|(_, signer, _)| signer),
        });
        Ok(signer.map(|signer| OwnerRow { since, signer }))
    }
}

/// Says whose the pseudonyms are of which it is not said: those of an earlier build.
pub(in crate::store) fn name_owners(txn: &WriteTransaction, keep: Keep) -> Result<(), StoreError> {
    let mut tables = Tables::open(txn, keep)?;
    let mut unnamed: BTreeMap<PatientId, Vec<SignerId>> = BTreeMap::new();
    for entry in tables.signers.iter().map_err(failed("read signers"))? {
        let (key, _) = entry.map_err(failed("read signers"))?;
        let patient = key.value().first_chunk::<16>().copied().map(PatientId);
        let signer = key.value().last_chunk::<8>().copied().map(SignerId);
        let Some((patient, signer)) = patient.zip(signer) else { continue };
        if tables.owner(patient)?.is_none() {
            unnamed.entry(patient).or_default().push(signer);
        }
    }
    if unnamed.is_empty() {
        return Ok(());
    }
    info!(pseudonyms = unnamed.len(), "the store is of an earlier build: it is written down whose they are");
    for (patient, signers) in unnamed {
        // Only of several it has to be looked for; where nothing is left of any, one of them.
        let signed_last = if signers.len() > 1 { tables.signed_last(patient)? } else { None };
        let any = signers.last().map(|signer| OwnerRow { since: 0, signer: *signer });
        if let Some(by) = signed_last.or(any) {
            tables.own(patient, by)?;
        }
    }
    Ok(())
}

/// Who signed last of each patient.
pub(in crate::store) fn owners(db: &Database) -> Result<Vec<(PatientId, SignerId)>, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let owners = txn.open_table(OWNERS).map_err(failed("open owners"))?;
    let mut all = Vec::new();
    for entry in owners.iter().map_err(failed("read owners"))? {
        let (key, row) = entry.map_err(failed("read owners"))?;
        let patient = key.value().first_chunk::<16>().copied().map(PatientId);
        let owner = OwnerRow::decode(row.value());
        all.extend(patient.zip(owner).map(|(patient, owner)| (patient, owner.signer)));
    }
    Ok(all)
}
