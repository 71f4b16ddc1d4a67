//! Erasures: the patient's order, the request for the core, and the receipts of those that have erased.
//!
//! ```text
//! erasures  patient 16                             → request 104, as the operator had it done; or
//!                                                    request 104 ‖ home key 20 ‖ the newest order 97
//! receipts  patient 16 ‖ kind 1 ‖ issuer's key 32  → the receipt, 196 bytes
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use caregate_protocol::erasure::{ERASURE_BYTES, ORDER_BYTES, Receipt, RequestHash, SignedOrder};
use caregate_protocol::id::PatientId;
use caregate_protocol::uplink::EraseRefusal;
use ledger_client::verify::Address;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use tokio::sync::watch;

use super::{KeyStoreError, failed};

const ERASURES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("erasures");
const RECEIPTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("receipts");
/// Receipts kept: one core's and some feeds' for each patient who ever had themselves erased here.
const RECEIPTS_MAX: u64 = 4096;
/// Requests said on each new connection, the newest: a clinic's of years. For another the core is asked when its patient asks.
const ASKED_MAX: usize = 256;

/// A request, as it is signed.
pub type Request = [u8; ERASURE_BYTES];

/// What an erasure rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordered {
    /// For the core.
    pub request: Request,
    /// The patient's newest order and the home key that signed it; none where the operator had it done.
    pub by: Option<(Address, SignedOrder)>,
}

impl Ordered {
    /// Its row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.request.to_vec();
        if let Some((home_key, order)) = &self.by {
            out.extend_from_slice(&home_key.0);
            out.extend_from_slice(&order.encode());
        }
        out
    }

    /// From its row; none where that is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (request, rest) = bytes.split_first_chunk::<ERASURE_BYTES>()?;
        let by = match rest.split_first_chunk::<20>() {
            Some((home_key, order)) if order.len() == ORDER_BYTES => {
                Some((Address(*home_key), SignedOrder::decode(order).ok()?))
            }
            None if rest.is_empty() => None,
            Some(_) | None => return None,
        };
        Some(Self { request: *request, by })
    }
}

/// One erasure, for whoever carries it on.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// What it rests on.
    pub ordered: Ordered,
    /// Grows each time that the core is to be asked.
    pub nth: u64,
}

/// What became of erasures at the core, in this process's life.
type Refusals = Arc<Mutex<BTreeMap<PatientId, EraseRefusal>>>;

/// What the core is asked to erase, and what it answered; cheap to clone.
#[derive(Debug, Clone)]
pub struct Erasures {
    db: Arc<Database>,
    asked: Arc<watch::Sender<BTreeMap<PatientId, Asked>>>,
    refusals: Refusals,
}

impl Erasures {
    pub(super) fn open(db: Arc<Database>, txn: &WriteTransaction) -> Result<Self, KeyStoreError> {
        let mut asked = BTreeMap::new();
        let table = txn.open_table(ERASURES).map_err(failed("open erasures"))?;
        for entry in table.iter().map_err(failed("read erasures"))? {
            let (patient, row) = entry.map_err(failed("read erasures"))?;
            let shape = || KeyStoreError::Shape("erasure");
            let patient = PatientId(patient.value().try_into().map_err(|_length| shape())?);
            let ordered = Ordered::decode(row.value()).ok_or_else(shape)?;
            asked.insert(patient, Asked { ordered, nth: 1 });
        }
        txn.open_table(RECEIPTS).map_err(failed("open receipts"))?;
        Ok(Self { db, asked: Arc::new(watch::Sender::new(asked)), refusals: Refusals::default() })
    }

    pub(super) fn put(
        txn: &WriteTransaction,
        patient: PatientId,
        ordered: &Ordered,
    ) -> Result<(), KeyStoreError> {
        let mut table = txn.open_table(ERASURES).map_err(failed("open erasures"))?;
        let row = ordered.encode();
        table.insert(patient.0.as_slice(), row.as_slice()).map_err(failed("write an erasure"))?;
        Ok(())
    }

    /// What is durable now: the core is asked.
    pub(super) fn made(&self, patient: PatientId, ordered: Ordered) {
        self.asked.send_modify(|asked| {
            let nth = asked.values().map(|one| one.nth).max().unwrap_or(0) + 1;
            asked.insert(patient, Asked { ordered, nth });
        });
    }

    /// Takes a newer order of what was ordered before, durably, and has the core asked once more.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn renew(&self, patient: PatientId, ordered: Ordered) -> Result<(), KeyStoreError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        Self::put(&txn, patient, &ordered)?;
        txn.commit().map_err(failed("commit"))?;
        self.made(patient, ordered);
        Ok(())
    }

    /// All that was erased here, from now on.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<BTreeMap<PatientId, Asked>> {
        self.asked.subscribe()
    }

    /// What a patient's erasure rests on, if there is one.
    #[must_use]
    pub fn ordered(&self, patient: &PatientId) -> Option<Ordered> {
        self.asked.borrow().get(patient).map(|asked| asked.ordered)
    }

    /// Notes that the core won't.
    pub fn refused(&self, request: RequestHash, refusal: EraseRefusal) {
        let asked = self.asked.borrow();
        let mut of = asked.iter().filter(|(_, one)| RequestHash::of(&one.ordered.request) == request);
        if let Some((patient, _)) = of.next() {
            self.refusals.lock().unwrap_or_else(PoisonError::into_inner).insert(*patient, refusal);
        }
    }

    /// Why the core won't, as it said last; none where it has erased, or has not been heard.
    #[must_use]
    pub fn refusal(&self, patient: &PatientId) -> Option<EraseRefusal> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).get(patient).copied()
    }

    /// Keeps a receipt of one of the requests. False where its signature does not hold or nobody asked for it.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn keep(&self, bytes: &[u8]) -> Result<bool, KeyStoreError> {
        let Ok((receipt, key)) = Receipt::verify(bytes) else { return Ok(false) };
        let ordered = self.ordered(&receipt.patient);
        if ordered.map(|ordered| RequestHash::of(&ordered.request)) != Some(receipt.request) {
            return Ok(false);
        }
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).remove(&receipt.patient);
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut table = txn.open_table(RECEIPTS).map_err(failed("open receipts"))?;
            let of = [receipt.patient.0.as_slice(), &[receipt.issuer as u8], key.as_bytes()].concat();
            let is_known = table.get(of.as_slice()).map_err(failed("read a receipt"))?.is_some();
            if is_known || table.len().map_err(failed("count receipts"))? >= RECEIPTS_MAX {
                return Ok(is_known);
            }
            table.insert(of.as_slice(), bytes).map_err(failed("write a receipt"))?;
        }
        txn.commit().map_err(failed("commit"))?;
        Ok(true)
    }

    /// The receipts for a patient.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn receipts(&self, patient: PatientId) -> Result<Vec<Vec<u8>>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let table = txn.open_table(RECEIPTS).map_err(failed("open receipts"))?;
        let (low, high) =
            ([patient.0.as_slice(), &[0; 33]].concat(), [patient.0.as_slice(), &[0xff; 33]].concat());
        let mut receipts = Vec::new();
        for entry in table.range(low.as_slice()..=high.as_slice()).map_err(failed("read receipts"))? {
            receipts.push(entry.map_err(failed("read receipts"))?.1.value().to_vec());
        }
        Ok(receipts)
    }
}

/// What a connection is to ask of what is wanted: the oldest first, where it has asked up to `seen`; and up to where it has then.
#[must_use]
pub fn due(asked: &BTreeMap<PatientId, Asked>, seen: u64) -> (Vec<Request>, u64) {
    let mut due: Vec<_> = asked.values().filter(|one| one.nth > seen).collect();
    // On a new connection, all; the request says when it was made.
    due.sort_unstable_by_key(|one| (one.nth, one.ordered.request[32..40].to_vec()));
    let next = due.last().map_or(seen, |one| one.nth);
    let skipped = due.len().saturating_sub(ASKED_MAX);
    (due[skipped..].iter().map(|one| one.ordered.request).collect(), next)
}

#[cfg(test)]
mod tests {
    use caregate_protocol::policy::EcdsaSignature;

    use super::*;

    fn ordered(n: u8) -> Ordered {
        let mut request = [0; ERASURE_BYTES];
        request[39] = n;
        Ordered { request, by: None }
    }

    #[test]
    fn what_an_erasure_rests_on_comes_back() {
        let order =
            SignedOrder { patient: PatientId([1; 16]), made_us: 7, signature: EcdsaSignature([2; 65]) };
        for by in [None, Some((Address([3; 20]), order))] {
            let kept = Ordered { by, ..ordered(1) };
            assert_eq!(Ordered::decode(&kept.encode()), Some(kept));
            assert_eq!(Ordered::decode(&kept.encode()[1..]), None);
            assert_eq!(Ordered::decode(&[kept.encode().as_slice(), &[0]].concat()), None);
        }
    }

    #[test]
    fn a_new_connection_asks_for_all_and_then_for_what_is_new() {
        let patient = |n| PatientId([n; 16]);
        let mut asked: BTreeMap<_, _> =
            (0..3).map(|n| (patient(n), Asked { ordered: ordered(9 - n), nth: 1 })).collect();
        let (all, seen) = due(&asked, 0);
        assert_eq!(all, [ordered(7), ordered(8), ordered(9)].map(|ordered| ordered.request));
        assert_eq!(due(&asked, seen), (Vec::new(), seen));
        asked.insert(patient(1), Asked { ordered: ordered(8), nth: 2 });
        assert_eq!(due(&asked, seen), (vec![ordered(8).request], 2));
        let many = |n: u16| {
            let mut patient = [0; 16];
            patient[..2].copy_from_slice(&n.to_be_bytes());
            (PatientId(patient), Asked { ordered: ordered(0), nth: u64::from(n) + 1 })
        };
        let asked = (0..300).map(many).collect();
        let (all, seen) = due(&asked, 0);
        assert_eq!((all.len(), seen), (ASKED_MAX, 300));
    }
}
