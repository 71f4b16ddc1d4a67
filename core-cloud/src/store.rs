//! The store: one redb file, synchronous, written by one thread.
//!
//! ```text
//! records   index                                       → bytes of the segment or wrap
//! segments  patient 16 ‖ class 1 ‖ sequence 8            → index 8 ‖ hash 32     exactly-once, forks
//! epochs    patient ‖ class ‖ generation 4 ‖ epoch 4 ‖ sequence 8 → index        which segments a late wrap opens, and gaps (first, last, why)
//! wraps     patient ‖ class ‖ generation ‖ epoch ‖ depth 1 ‖ recipient 20 → index  who can open a segment
//! heads     patient ‖ class                              → next 8 ‖ made 8 ‖ hash 32   the newest head of each chain
//! gaps      patient ‖ class ‖ first 8 ‖ last 8 ‖ why 1 → index                what may be missing
//! delivery  recipient 20 ‖ number 8                      → index                 each recipient's queue
//! ```
//! A segment enters the queues of the recipients that hold a wrap for its epoch; a wrap that comes later brings the
//! segments of its epoch with it. So no recipient is offered what it can't open, and a wrap always precedes its segments.

use std::collections::BTreeSet;
use std::path::Path;

use caregate_host::kill_point;
use caregate_protocol::gap::{Gap, Missing};
use caregate_protocol::head::Head;
use caregate_protocol::id::RecipientId;
use caregate_protocol::record::Record;
use caregate_protocol::segment::{Header, SegmentHash};
use caregate_protocol::uplink::Refusal;
use caregate_protocol::wrap::Wrap;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use thiserror::Error;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const SEGMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("segments");
const EPOCHS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("epochs");
const GAPS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("gaps");
const HEADS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("heads");
const WRAPS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("wraps");
const DELIVERY: TableDefinition<'_, &[u8], u64> = TableDefinition::new("delivery");

/// redb's page cache: the working set of a live feed is its newest minute, a few MiB.
const CACHE_BYTES: usize = 32 << 20;
/// Deepest level of the epoch tree that a wrap may name.
const TREE_DEPTH: u8 = caregate_protocol::key::TREE_DEPTH;

/// The store failed; nothing of the batch counts.
#[derive(Debug, Error)]
#[error("store: {doing}: {source}")]
pub struct StoreError {
    doing: &'static str,
    source: redb::Error,
}

fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError { doing, source: source.into() }
}

/// What became of one record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stored by this batch.
    Stored,
    /// Was there already, byte for byte the same chain entry.
    Known,
    /// Will never be taken as it is.
    Refused(Refusal),
}

/// The store.
#[derive(Debug)]
pub struct Store {
    db: Database,
}

/// One page of a recipient's queue.
#[derive(Debug, Default)]
pub struct Page {
    /// (number, record) in order.
    pub records: Vec<(u64, Vec<u8>)>,
    /// One past the last number of this page.
    pub next: u64,
}

impl Store {
    /// Opens or makes the store in `dir`.
    ///
    /// # Errors
    /// [`StoreError`], also where the file is damaged or another process holds it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let path = dir.join("core.redb");
        #[cfg(not(feature = "kill-points"))]
        let db = builder.create(path);
        #[cfg(feature = "kill-points")]
        let db = kill::create(&builder, &path);
        let db = db.map_err(failed("open core.redb"))?;
        kill_point::pass("store.opened");
        Self::prepare(db, || std::fs::File::open(dir)?.sync_all())
    }

    /// The same on a disk of the tests.
    #[cfg(test)]
    fn open_on(
        backend: impl redb::StorageBackend,
        sync_names: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<Self, StoreError> {
        let db = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        Self::prepare(db.map_err(failed("open core.redb"))?, sync_names)
    }

    /// Makes the tables that are not there, and the file's name durable: what is acknowledged must not vanish with it.
    fn prepare(db: Database, sync_names: impl FnOnce() -> std::io::Result<()>) -> Result<Self, StoreError> {
        let txn = db.begin_write().map_err(failed("begin"))?;
        txn.open_table(RECORDS).map_err(failed("open records"))?;
        for table in [EPOCHS, WRAPS, GAPS, DELIVERY] {
            txn.open_table(table).map_err(failed("open an index"))?;
        }
        for table in [SEGMENTS, HEADS] {
            txn.open_table(table).map_err(failed("open a table of chains"))?;
        }
        kill_point::pass("store.tables-made");
        txn.commit().map_err(failed("commit"))?;
        kill_point::pass("store.prepared");
        sync_names().map_err(|e| failed("sync the folder")(redb::StorageError::Io(e)))?;
        kill_point::pass("store.name-synced");
        Ok(Self { db })
    }

    /// Stores a batch in one durable commit. The records' signatures have been checked by the caller.
    ///
    /// # Errors
    /// [`StoreError`]; then none of the batch is stored, and none may be acknowledged.
    pub fn put(&self, batch: &[Vec<u8>]) -> Result<Vec<Outcome>, StoreError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        kill_point::pass("store.begun");
        let outcomes = {
            let mut tables = Tables::open(&txn)?;
            batch.iter().map(|bytes| tables.put(bytes)).collect::<Result<Vec<_>, _>>()?
        };
        kill_point::pass("store.batch-put");
        if outcomes.contains(&Outcome::Stored) {
            txn.commit().map_err(failed("commit"))?;
            kill_point::pass("store.committed");
        } else {
            txn.abort().map_err(failed("abort"))?;
        }
        Ok(outcomes)
    }

    /// One past the newest number in a recipient's queue.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn next_number(&self, recipient: RecipientId) -> Result<u64, StoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let delivery = txn.open_table(DELIVERY).map_err(failed("open delivery"))?;
        next_number(&delivery, recipient)
    }

    /// The records of a recipient's queue from number `from` (inclusive) to `until` (exclusive), at most `bytes_max`
    /// bytes but at least one record where there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page(
        &self,
        recipient: RecipientId,
        from: u64,
        until: u64,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let delivery = txn.open_table(DELIVERY).map_err(failed("open delivery"))?;
        let records = txn.open_table(RECORDS).map_err(failed("open records"))?;
        let mut page = Page { records: Vec::new(), next: from };
        if from >= until {
            return Ok(page);
        }
        let (first, end) = (delivery_key(recipient, from), delivery_key(recipient, until));
        let mut bytes = 0;
        for entry in delivery.range(first.as_slice()..end.as_slice()).map_err(failed("read delivery"))? {
            let (key, index) = entry.map_err(failed("read delivery"))?;
            let number = number_of(key.value());
            let Some(record) = records.get(index.value()).map_err(failed("read a record"))? else { continue };
            let record = record.value().to_vec();
            if bytes > 0 && bytes + record.len() > bytes_max {
                break;
            }
            bytes += record.len();
            page.next = number + 1;
            page.records.push((number, record));
        }
        Ok(page)
    }
}

struct Tables<'t> {
    records: Table<'t, u64, &'static [u8]>,
    segments: Table<'t, &'static [u8], &'static [u8]>,
    epochs: Table<'t, &'static [u8], u64>,
    wraps: Table<'t, &'static [u8], u64>,
    heads: Table<'t, &'static [u8], &'static [u8]>,
    gaps: Table<'t, &'static [u8], u64>,
    delivery: Table<'t, &'static [u8], u64>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            records: txn.open_table(RECORDS).map_err(failed("open records"))?,
            segments: txn.open_table(SEGMENTS).map_err(failed("open segments"))?,
            epochs: txn.open_table(EPOCHS).map_err(failed("open epochs"))?,
            wraps: txn.open_table(WRAPS).map_err(failed("open wraps"))?,
            heads: txn.open_table(HEADS).map_err(failed("open heads"))?,
            gaps: txn.open_table(GAPS).map_err(failed("open gaps"))?,
            delivery: txn.open_table(DELIVERY).map_err(failed("open delivery"))?,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<Outcome, StoreError> {
        match Record::decode(bytes) {
            Ok(Record::Segment(segment)) => self.put_segment(&segment.header, segment.hash(), bytes),
            Ok(Record::Wrap(wrap)) => self.put_wrap(&wrap, bytes),
            Ok(Record::Head(signed)) => self.put_head(&signed.head, bytes),
            Ok(Record::Gap(signed)) => self.put_gap(&signed.gap, bytes),
            Err(_) => Ok(Outcome::Refused(Refusal::Malformed)),
        }
    }

    fn put_segment(&mut self, h: &Header, hash: SegmentHash, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let key = [h.patient.0.as_slice(), &[h.class as u8], &h.sequence.to_be_bytes()].concat();
        if let Some(stored) = self.segments.get(key.as_slice()).map_err(failed("read segments"))? {
            let same = stored.value().get(8..) == Some(hash.0.as_slice());
            return Ok(if same { Outcome::Known } else { Outcome::Refused(Refusal::Fork) });
        }
        let index = self.append(bytes)?;
        let value = [index.to_be_bytes().as_slice(), &hash.0].concat();
        self.segments.insert(key.as_slice(), value.as_slice()).map_err(failed("write segments"))?;
        kill_point::pass("store.segment-named");
        let scope = scope_key(h.patient.0, h.class as u8, h.generation);
        let epoch_key = [scope.as_slice(), &h.epoch.to_be_bytes(), &h.sequence.to_be_bytes()].concat();
        self.epochs.insert(epoch_key.as_slice(), index).map_err(failed("write epochs"))?;
        kill_point::pass("store.epoch-noted");
        for recipient in self.holders(&scope, h.epoch)? {
            self.deliver(recipient, index)?;
        }
        kill_point::pass("store.segment-queued");
        Ok(Outcome::Stored)
    }

    fn put_wrap(&mut self, wrap: &Wrap, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let scope = scope_key(wrap.patient.0, wrap.class as u8, wrap.generation);
        let node = [scope.as_slice(), &wrap.epoch.to_be_bytes(), &[wrap.depth]].concat();
        let key = [node.as_slice(), &wrap.recipient.0].concat();
        if self.wraps.get(key.as_slice()).map_err(failed("read wraps"))?.is_some() {
            return Ok(Outcome::Known);
        }
        let index = self.append(bytes)?;
        self.deliver(wrap.recipient, index)?;
        kill_point::pass("store.wrap-queued");
        let last = wrap.epoch | u32::MAX.checked_shr(u32::from(wrap.depth)).unwrap_or(0);
        let first = [scope.as_slice(), &wrap.epoch.to_be_bytes(), &[0; 8]].concat();
        let end = [scope.as_slice(), &last.to_be_bytes(), &[0xff; 8]].concat();
        let mut waiting = Vec::new();
        for entry in self.epochs.range(first.as_slice()..=end.as_slice()).map_err(failed("read epochs"))? {
            let (key, index) = entry.map_err(failed("read epochs"))?;
            waiting.push((epoch_in(key.value(), scope.len()), index.value()));
        }
        // Not what a wrap of another node above that epoch has brought already.
        let mut held = None;
        for (epoch, index) in waiting {
            let is_held = match held {
                Some((of, is_held)) if of == epoch => is_held,
                _ => self.holders(&scope, epoch)?.contains(&wrap.recipient),
            };
            held = Some((epoch, is_held));
            if !is_held {
                self.deliver(wrap.recipient, index)?;
            }
        }
        self.wraps.insert(key.as_slice(), index).map_err(failed("write wraps"))?;
        kill_point::pass("store.wrap-put");
        Ok(Outcome::Stored)
    }

    /// A head goes to those that can open its chain's last segment. One that is not the newest is known: a newer one says more.
    fn put_head(&mut self, head: &Head, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let chain = [head.patient.0.as_slice(), &[head.class as u8]].concat();
        let last = [chain.as_slice(), &(head.next - 1).to_be_bytes()].concat();
        if let Some(stored) = self.segments.get(last.as_slice()).map_err(failed("read segments"))?
            && stored.value().get(8..) != Some(head.last.0.as_slice())
        {
            return Ok(Outcome::Refused(Refusal::Fork));
        }
        let newest = {
            let stored = self.heads.get(chain.as_slice()).map_err(failed("read heads"))?;
            stored.and_then(|stored| stored.value().first_chunk::<16>().copied())
        };
        if newest.is_some_and(|newest| newest >= age_of(head)) {
            return Ok(Outcome::Known);
        }
        let index = self.append(bytes)?;
        let value = [age_of(head).as_slice(), &head.last.0].concat();
        self.heads.insert(chain.as_slice(), value.as_slice()).map_err(failed("write heads"))?;
        let scope = scope_key(head.patient.0, head.class as u8, head.generation);
        for recipient in self.holders(&scope, head.epoch)? {
            self.deliver(recipient, index)?;
        }
        Ok(Outcome::Stored)
    }

    /// A gap goes to those that hold its epoch's wrap, also to those whose wrap comes after it: it is told once, unlike a head.
    fn put_gap(&mut self, gap: &Gap, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let Missing { why, first, last, .. } = gap.missing;
        let (first, last) = (first.to_be_bytes(), last.to_be_bytes());
        let class = gap.class as u8;
        let key = [gap.patient.0.as_slice(), &[class], &first, &last, &[why as u8]].concat();
        if self.gaps.get(key.as_slice()).map_err(failed("read gaps"))?.is_some() {
            return Ok(Outcome::Known);
        }
        let index = self.append(bytes)?;
        self.gaps.insert(key.as_slice(), index).map_err(failed("write gaps"))?;
        let scope = scope_key(gap.patient.0, class, gap.generation);
        // Longer than a segment's key, so that the two never meet.
        let epoch_key = [scope.as_slice(), &gap.epoch.to_be_bytes(), &first, &last, &[why as u8]].concat();
        self.epochs.insert(epoch_key.as_slice(), index).map_err(failed("write epochs"))?;
        for recipient in self.holders(&scope, gap.epoch)? {
            self.deliver(recipient, index)?;
        }
        Ok(Outcome::Stored)
    }

    /// The recipients that hold a wrap of any node above `epoch`.
    fn holders(&self, scope: &[u8], epoch: u32) -> Result<BTreeSet<RecipientId>, StoreError> {
        let mut holders = BTreeSet::new();
        for depth in 0..=TREE_DEPTH {
            let first = epoch & !u32::MAX.checked_shr(u32::from(depth)).unwrap_or(0);
            let node = [scope, &first.to_be_bytes(), &[depth]].concat();
            let low = [node.as_slice(), &[0; 20]].concat();
            let high = [node.as_slice(), &[0xff; 20]].concat();
            for entry in self.wraps.range(low.as_slice()..=high.as_slice()).map_err(failed("read wraps"))? {
                let (key, _) = entry.map_err(failed("read wraps"))?;
                if let Some(id) = key.value().last_chunk::<20>() {
                    holders.insert(RecipientId(*id));
                }
            }
        }
        Ok(holders)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        let last = self.records.last().map_err(failed("read records"))?.map(|(index, _)| index.value());
        let index = last.map_or(0, |index| index + 1);
        self.records.insert(index, bytes).map_err(failed("write records"))?;
        kill_point::pass("store.record-put");
        Ok(index)
    }

    fn deliver(&mut self, recipient: RecipientId, index: u64) -> Result<(), StoreError> {
        let number = next_number(&self.delivery, recipient)?;
        let key = delivery_key(recipient, number);
        self.delivery.insert(key.as_slice(), index).map_err(failed("write delivery"))?;
        Ok(())
    }
}

/// Of two heads the newer has the greater: by how far it goes, then by when it was made.
fn age_of(head: &Head) -> [u8; 16] {
    let made = u64::try_from(head.made_us).unwrap_or(0);
    (u128::from(head.next) << 64 | u128::from(made)).to_be_bytes()
}

fn scope_key(patient: [u8; 16], class: u8, generation: u32) -> Vec<u8> {
    [patient.as_slice(), &[class], &generation.to_be_bytes()].concat()
}

/// The epoch in a key of `epochs`, behind its scope.
fn epoch_in(key: &[u8], at: usize) -> u32 {
    key.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn delivery_key(recipient: RecipientId, number: u64) -> Vec<u8> {
    [recipient.0.as_slice(), &number.to_be_bytes()].concat()
}

fn number_of(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn next_number(
    delivery: &impl ReadableTable<&'static [u8], u64>,
    recipient: RecipientId,
) -> Result<u64, StoreError> {
    let (low, high) = (delivery_key(recipient, 0), delivery_key(recipient, u64::MAX));
    let mut range = delivery.range(low.as_slice()..=high.as_slice()).map_err(failed("read delivery"))?;
    let last = range.next_back().transpose().map_err(failed("read delivery"))?;
    Ok(last.map_or(0, |(key, _)| number_of(key.value()) + 1))
}

#[cfg(feature = "kill-points")]
mod kill;
#[cfg(test)]
mod tests;
