//! The tables with which both stores decide, in redb.
//!
//! ```text
//! records   index                                       → bytes of the segment or wrap, or its place in the stream
//! segments  patient 16 ‖ class 1 ‖ sequence 8            → index 8 ‖ hash 32     exactly-once, forks
//! epochs    patient ‖ class ‖ generation 4 ‖ epoch 4 ‖ sequence 8 → index        which segments a late wrap opens, and gaps (first, last, why)
//! wraps     patient ‖ class ‖ generation ‖ epoch ‖ depth 1 ‖ recipient 20 ‖ hash 16 → index  who can open a segment
//! heads     patient ‖ class                              → next 8 ‖ made 8 ‖ hash 32   the newest head of each chain
//! gaps      patient ‖ class ‖ first 8 ‖ last 8 ‖ why 1 → index                what may be missing
//! headers   patient ‖ class ‖ index                      → ()                    where heads lie, for their removal
//! signers   patient ‖ signer 8                           → bytes stored          whose records of a patient there are
//! owners    patient                                      → index 8 ‖ signer 8    whose the pseudonym is (`owner`)
//! floors    patient ‖ class                              → sequence              below it everything is expired (`retain`)
//! holders   patient ‖ recipient                          → ()                    who ever held a wrap of a patient's
//! receipts  patient ‖ feed's key 32                      → receipt               that feeds have erased
//! held      message of a stream                          → how many of its records are here, where they are kept there
//! erased    patient                                      → state, what went (`erase`)
//! delivery  recipient 20 ‖ number 8                      → index                 each recipient's queue; bit 63 where it is backlog
//! ```
//! A segment enters the queues of the recipients that hold a wrap for its epoch; a wrap that comes later brings the
//! segments of its epoch with it. So no recipient is offered what it can't open, and a wrap always precedes its segments.
//!
//! A node may come to a recipient in several wraps: the core can't see to which HPKE key one is sealed, nor which of two is the newer, so that
//! each of other bytes is stored and delivered, and brings no segment again. The same bytes again are known.
//!
//! A queue has one order and two readers: of what came live, and of backlog. Wraps are always live, since nothing live is opened without
//! them. What a wrap brings is live where it is of one epoch (then its segments came a moment before it, on another connection), and backlog
//! where it is of a past.

mod keys;
mod known;
mod owner;
#[cfg(feature = "nats")]
mod stream;

use std::collections::{BTreeMap, BTreeSet};

use caregate_host::kill_point;
use caregate_protocol::entry::Queued;
use caregate_protocol::gap::Gap;
use caregate_protocol::head::Head;
use caregate_protocol::id::{DataClass, PatientId, RecipientId, SignerId};
use caregate_protocol::record::Record;
use caregate_protocol::segment::{Header, SegmentHash};
use caregate_protocol::uplink::{Refusal, Timing};
use caregate_protocol::wrap::Wrap;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

pub(super) use self::keys::{WRAP_HASH_BYTES, node_key, scope_key, successor, usage};
use self::keys::{age_of, delivery_key, epoch_in, gap_key, next_number, number_of, wrap_key};
use self::known::{Holders, Known};
#[cfg(feature = "nats")]
pub(super) use self::owner::owner_entry;
pub(super) use self::owner::{name_owners, owners};
use super::rows::OwnerRow;
use super::{Outcome, Page, Span, StoreError, failed};

pub(super) const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const SEGMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("segments");
pub(super) const EPOCHS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("epochs");
const GAPS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("gaps");
const HEADS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("heads");
pub(super) const WRAPS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("wraps");
const HEADERS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("headers");
pub(super) const SIGNERS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("signers");
const OWNERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("owners");
const FLOORS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("floors");
const HOLDERS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("holders");
pub(super) const ERASED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("erased");
pub(super) const RECEIPTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("receipts");
const HELD: TableDefinition<'_, u64, u64> = TableDefinition::new("held");
const DELIVERY: TableDefinition<'_, &[u8], u64> = TableDefinition::new("delivery");

/// redb's page cache: the working set of a live feed is its newest minute, a few MiB.
pub(super) const CACHE_BYTES: usize = 32 << 20;
/// Places of a queue that one page looks at: what was erased leaves places without a record, and a page must end.
pub(super) const ROWS_MAX: usize = 65_536;
/// Set in the index of a place in a queue whose record came as backlog.
const BACKLOG: u64 = 1 << 63;
/// Deepest level of the epoch tree that a wrap may name.
pub(super) const TREE_DEPTH: u8 = caregate_protocol::key::TREE_DEPTH;

/// Makes the tables that are not there.
pub(super) fn make_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(RECORDS).map_err(failed("open records"))?;
    txn.open_table(HELD).map_err(failed("open held"))?;
    for table in [EPOCHS, WRAPS, GAPS, DELIVERY, SIGNERS, FLOORS] {
        txn.open_table(table).map_err(failed("open an index"))?;
    }
    for table in [SEGMENTS, HEADS, OWNERS, ERASED, RECEIPTS] {
        txn.open_table(table).map_err(failed("open a table of chains"))?;
    }
    for table in [HEADERS, HOLDERS] {
        txn.open_table(table).map_err(failed("open a set"))?;
    }
    Ok(())
}

/// One past the newest number in a recipient's queue.
pub(super) fn next(db: &Database, recipient: RecipientId) -> Result<u64, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let delivery = txn.open_table(DELIVERY).map_err(failed("open delivery"))?;
    next_number(&delivery, recipient)
}

/// The record at a place in a queue, and when it came.
pub(super) fn at_place(place: u64) -> (u64, Timing) {
    let timing = if place & BACKLOG == 0 { Timing::Live } else { Timing::Backlog };
    (place & !BACKLOG, timing)
}

/// A page of a recipient's queue. `fetch` makes a record of what stands in `records`; `None` where it is gone meanwhile.
pub(super) fn page(
    db: &Database,
    recipient: RecipientId,
    Span { from, until, of }: Span,
    bytes_max: usize,
    mut fetch: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<Page, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let delivery = txn.open_table(DELIVERY).map_err(failed("open delivery"))?;
    let records = txn.open_table(RECORDS).map_err(failed("open records"))?;
    let mut page = Page { records: Vec::new(), next: from };
    if from >= until {
        return Ok(page);
    }
    let (first, end) = (delivery_key(recipient, from), delivery_key(recipient, until));
    let mut bytes = 0;
    for (nth, entry) in
        delivery.range(first.as_slice()..end.as_slice()).map_err(failed("read delivery"))?.enumerate()
    {
        if nth == ROWS_MAX {
            break;
        }
        let (key, place) = entry.map_err(failed("read delivery"))?;
        let number = number_of(key.value());
        let (index, timing) = at_place(place.value());
        if of.is_some_and(|of| of != timing) {
            page.next = number + 1;
            continue;
        }
        let stored = records.get(index).map_err(failed("read a record"))?;
        let record = stored.map(|stored| fetch(stored.value())).transpose()?.flatten();
        if let Some(record) = record {
            if bytes > 0 && bytes + record.len() > bytes_max {
                break;
            }
            bytes += record.len();
            page.records.push((number, record));
        }
        page.next = number + 1;
    }
    Ok(page)
}

/// The segment of this number; `fetch` as for [`page`].
pub(super) fn segment(
    db: &Database,
    (patient, class, sequence): (PatientId, DataClass, u64),
    fetch: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let segments = txn.open_table(SEGMENTS).map_err(failed("open segments"))?;
    let records = txn.open_table(RECORDS).map_err(failed("open records"))?;
    let key = [patient.0.as_slice(), &[class as u8], &sequence.to_be_bytes()].concat();
    let named = segments.get(key.as_slice()).map_err(failed("read segments"))?;
    let index = named.and_then(|named| named.value().first_chunk::<8>().copied());
    let Some(index) = index.map(u64::from_be_bytes) else { return Ok(None) };
    let stored = records.get(index).map_err(failed("read a record"))?;
    Ok(stored.map(|stored| fetch(stored.value())).transpose()?.flatten())
}

/// Where records' bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// In `records`.
    Here,
    /// In a stream; their places are written to `records` when they are known, and what was queued is noted meanwhile.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "of the store on a stream server"))]
    Elsewhere,
}

/// What was taken out: who had signed it, where that is known, and its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone {
    pub(super) signer: Option<SignerId>,
    pub(super) bytes: u64,
}

/// What a place elsewhere says (`jetstream::message::Place`): message, signer, length of the record. None where it is not known yet.
fn placed(place: &[u8]) -> Option<(u64, SignerId, u64)> {
    let (message, rest) = place.split_first_chunk::<8>()?;
    let (signer, rest) = rest.split_first_chunk::<8>()?;
    let length = rest.last_chunk::<4>()?;
    Some((u64::from_be_bytes(*message), SignerId(*signer), u64::from(u32::from_be_bytes(*length))))
}

/// A record of a batch and what it queued.
#[derive(Debug)]
pub(super) struct Noted {
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "of the store on a stream server"))]
    pub(super) index: u64,
    pub(super) queued: Vec<Queued>,
}

/// All tables of one write.
pub(super) struct Tables<'t> {
    pub(super) keep: Keep,
    /// When what is put came.
    pub(super) as_of: Timing,
    /// Of [`Keep::Elsewhere`], in the order in which they were stored.
    pub(super) noted: Vec<Noted>,
    /// Messages of a stream of which no record is here any more, by this write.
    pub(super) emptied: Vec<u64>,
    pub(super) records: Table<'t, u64, &'static [u8]>,
    held: Table<'t, u64, u64>,
    pub(super) segments: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) epochs: Table<'t, &'static [u8], u64>,
    pub(super) wraps: Table<'t, &'static [u8], u64>,
    pub(super) heads: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) gaps: Table<'t, &'static [u8], u64>,
    pub(super) headers: Table<'t, &'static [u8], ()>,
    pub(super) signers: Table<'t, &'static [u8], u64>,
    owners: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) floors: Table<'t, &'static [u8], u64>,
    pub(super) holders: Table<'t, &'static [u8], ()>,
    pub(super) erased: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) delivery: Table<'t, &'static [u8], u64>,
    /// What this write stored of each patient and signer; [`Self::settle`] writes it down.
    used: BTreeMap<(PatientId, SignerId), u64>,
    /// Who signed the newest record that this write stored of each patient; as well.
    newest: BTreeMap<PatientId, OwnerRow>,
    /// The index that was given last in this write.
    appended: u64,
    known: Known,
}

impl<'t> Tables<'t> {
    pub(super) fn open(txn: &'t WriteTransaction, keep: Keep) -> Result<Self, StoreError> {
        Ok(Self {
            keep,
            as_of: Timing::Live,
            noted: Vec::new(),
            emptied: Vec::new(),
            records: txn.open_table(RECORDS).map_err(failed("open records"))?,
            held: txn.open_table(HELD).map_err(failed("open held"))?,
            segments: txn.open_table(SEGMENTS).map_err(failed("open segments"))?,
            epochs: txn.open_table(EPOCHS).map_err(failed("open epochs"))?,
            wraps: txn.open_table(WRAPS).map_err(failed("open wraps"))?,
            heads: txn.open_table(HEADS).map_err(failed("open heads"))?,
            gaps: txn.open_table(GAPS).map_err(failed("open gaps"))?,
            headers: txn.open_table(HEADERS).map_err(failed("open headers"))?,
            signers: txn.open_table(SIGNERS).map_err(failed("open signers"))?,
            owners: txn.open_table(OWNERS).map_err(failed("open owners"))?,
            floors: txn.open_table(FLOORS).map_err(failed("open floors"))?,
            holders: txn.open_table(HOLDERS).map_err(failed("open holders"))?,
            erased: txn.open_table(ERASED).map_err(failed("open erased"))?,
            delivery: txn.open_table(DELIVERY).map_err(failed("open delivery"))?,
            used: BTreeMap::new(),
            newest: BTreeMap::new(),
            appended: 0,
            known: Known::default(),
        })
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let Ok(record) = Record::decode(bytes) else { return Ok(Outcome::Refused(Refusal::Malformed)) };
        if self.is_erased(record.patient())? {
            return Ok(Outcome::Refused(Refusal::Erased));
        }
        let outcome = match &record {
            Record::Segment(segment) => self.put_segment(&segment.header, segment.hash(), bytes)?,
            Record::Wrap(wrap) => self.put_wrap(wrap, bytes)?,
            Record::Head(signed) => self.put_head(&signed.head, bytes)?,
            Record::Gap(signed) => self.put_gap(&signed.gap, bytes)?,
            // They go to the search index.
            Record::Tokens(_) => Outcome::Refused(Refusal::Malformed),
        };
        if outcome == Outcome::Stored {
            let by = OwnerRow { since: self.appended, signer: record.signer() };
            self.use_up(record.patient(), by, bytes.len());
        }
        Ok(outcome)
    }

    fn put_segment(&mut self, h: &Header, hash: SegmentHash, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let key = [h.patient.0.as_slice(), &[h.class as u8], &h.sequence.to_be_bytes()].concat();
        if let Some(stored) = self.segments.get(key.as_slice()).map_err(failed("read segments"))? {
            let same = stored.value().get(8..) == Some(hash.0.as_slice());
            return Ok(if same { Outcome::Known } else { Outcome::Refused(Refusal::Fork) });
        }
        if h.sequence < self.floor(h.patient, h.class)? {
            return Ok(Outcome::Known);
        }
        let index = self.append(bytes)?;
        self.name_segment(h, hash, index)?;
        let scope = scope_key(h.patient.0, h.class as u8, h.generation);
        for recipient in self.holders(&scope, h.epoch)?.iter() {
            self.deliver(*recipient, index, self.as_of)?;
        }
        kill_point::pass("store.segment-queued");
        Ok(Outcome::Stored)
    }

    fn name_segment(&mut self, h: &Header, hash: SegmentHash, index: u64) -> Result<(), StoreError> {
        let key = [h.patient.0.as_slice(), &[h.class as u8], &h.sequence.to_be_bytes()].concat();
        let value = [index.to_be_bytes().as_slice(), &hash.0].concat();
        self.segments.insert(key.as_slice(), value.as_slice()).map_err(failed("write segments"))?;
        kill_point::pass("store.segment-named");
        let scope = scope_key(h.patient.0, h.class as u8, h.generation);
        let epoch_key = [scope.as_slice(), &h.epoch.to_be_bytes(), &h.sequence.to_be_bytes()].concat();
        self.epochs.insert(epoch_key.as_slice(), index).map_err(failed("write epochs"))?;
        kill_point::pass("store.epoch-noted");
        Ok(())
    }

    fn put_wrap(&mut self, wrap: &Wrap, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let scope = scope_key(wrap.patient.0, wrap.class as u8, wrap.generation);
        let key = wrap_key(wrap, bytes);
        if self.wraps.get(key.as_slice()).map_err(failed("read wraps"))?.is_some() {
            return Ok(Outcome::Known);
        }
        let index = self.append(bytes)?;
        self.deliver(wrap.recipient, index, Timing::Live)?;
        kill_point::pass("store.wrap-queued");
        // What a wrap of the same node brings has been brought, or came to who held that one.
        if !self.has_wrap(key.get(..key.len() - WRAP_HASH_BYTES).unwrap_or_default())? {
            self.bring(wrap, &scope)?;
        }
        self.name_wrap(wrap, bytes, index)?;
        kill_point::pass("store.wrap-put");
        Ok(Outcome::Stored)
    }

    /// Whether there is a wrap whose key begins so: with a node and a recipient.
    fn has_wrap(&self, of: &[u8]) -> Result<bool, StoreError> {
        let high = [of, &[0xff; WRAP_HASH_BYTES]].concat();
        let mut range = self.wraps.range(of..=high.as_slice()).map_err(failed("read wraps"))?;
        Ok(range.next().transpose().map_err(failed("read wraps"))?.is_some())
    }

    /// Delivers the segments and gaps that a wrap opens and its recipient was not offered yet.
    fn bring(&mut self, wrap: &Wrap, scope: &[u8]) -> Result<(), StoreError> {
        let last = wrap.epoch | u32::MAX.checked_shr(u32::from(wrap.depth)).unwrap_or(0);
        let first = [scope, &wrap.epoch.to_be_bytes(), &[0; 8]].concat();
        let end = [scope, &last.to_be_bytes(), &[0xff; 8]].concat();
        let mut waiting = Vec::new();
        for entry in self.epochs.range(first.as_slice()..=end.as_slice()).map_err(failed("read epochs"))? {
            let (key, index) = entry.map_err(failed("read epochs"))?;
            waiting.push((epoch_in(key.value(), scope.len()), index.value()));
        }
        let brought = if wrap.depth == TREE_DEPTH { Timing::Live } else { Timing::Backlog };
        // Not what a wrap of another node above that epoch has brought already.
        let mut held = None;
        for (epoch, index) in waiting {
            let is_held = match held {
                Some((of, is_held)) if of == epoch => is_held,
                _ => self.holders(scope, epoch)?.contains(&wrap.recipient),
            };
            held = Some((epoch, is_held));
            if !is_held {
                self.deliver(wrap.recipient, index, brought)?;
            }
        }
        Ok(())
    }

    fn name_wrap(&mut self, wrap: &Wrap, bytes: &[u8], index: u64) -> Result<(), StoreError> {
        self.known.wraps_changed();
        self.wraps.insert(wrap_key(wrap, bytes).as_slice(), index).map_err(failed("write wraps"))?;
        let holder = [wrap.patient.0.as_slice(), &wrap.recipient.0].concat();
        self.holders.insert(holder.as_slice(), ()).map_err(failed("write holders"))?;
        Ok(())
    }

    /// So many bytes more are stored, of a record of this index and signer.
    pub(super) fn use_up(&mut self, patient: PatientId, by: OwnerRow, bytes: usize) {
        let used = self.used.entry((patient, by.signer)).or_default();
        *used = used.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.signed(patient, by);
    }

    /// So many less.
    pub(super) fn free(
        &mut self,
        patient: PatientId,
        signer: SignerId,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let key = [patient.0.as_slice(), &signer.0].concat();
        let known = self.stored_of(&key)?.unwrap_or_default();
        self.signers.insert(key.as_slice(), known.saturating_sub(bytes)).map_err(failed("write signers"))?;
        Ok(())
    }

    /// Writes down what was used up, and by whom; before a commit.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        for ((patient, signer), bytes) in std::mem::take(&mut self.used) {
            let key = [patient.0.as_slice(), &signer.0].concat();
            let known = self.stored_of(&key)?.unwrap_or_default();
            let sum = known.saturating_add(bytes);
            self.signers.insert(key.as_slice(), sum).map_err(failed("write signers"))?;
        }
        for (patient, by) in std::mem::take(&mut self.newest) {
            self.own(patient, by)?;
        }
        Ok(())
    }

    fn stored_of(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        Ok(self.signers.get(key).map_err(failed("read signers"))?.map(|bytes| bytes.value()))
    }

    /// Below it each segment of the chain is expired, or would be.
    pub(super) fn floor(&self, patient: PatientId, class: DataClass) -> Result<u64, StoreError> {
        let chain = [patient.0.as_slice(), &[class as u8]].concat();
        let floor = self.floors.get(chain.as_slice()).map_err(failed("read floors"))?;
        Ok(floor.map_or(0, |floor| floor.value()))
    }

    pub(super) fn raise_floor(
        &mut self,
        patient: PatientId,
        class: DataClass,
        sequence: u64,
    ) -> Result<(), StoreError> {
        let floor = self.floor(patient, class)?.max(sequence);
        let chain = [patient.0.as_slice(), &[class as u8]].concat();
        self.floors.insert(chain.as_slice(), floor).map_err(failed("write floors"))?;
        Ok(())
    }

    /// Takes a record out; none where there is none.
    pub(super) fn take_out(&mut self, index: u64) -> Result<Option<Gone>, StoreError> {
        let (gone, message) = {
            let removed = self.records.remove(index).map_err(failed("remove a record"))?;
            let Some(removed) = removed else { return Ok(None) };
            let bytes = removed.value();
            match self.keep {
                Keep::Here => {
                    let signer = Record::decode(bytes).ok().map(|record| record.signer());
                    (Gone { signer, bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX) }, None)
                }
                Keep::Elsewhere => placed(bytes)
                    .map_or((Gone { signer: None, bytes: 0 }, None), |(message, signer, bytes)| {
                        (Gone { signer: Some(signer), bytes }, Some(message))
                    }),
            }
        };
        let Some(message) = message else { return Ok(Some(gone)) };
        let left = self.held.get(message).map_err(failed("read held"))?.map_or(0, |count| count.value());
        if left > 1 {
            self.held.insert(message, left - 1).map_err(failed("write held"))?;
        } else {
            self.held.remove(message).map_err(failed("write held"))?;
            self.emptied.push(message);
        }
        Ok(Some(gone))
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
        self.name_head(head, index)?;
        let scope = scope_key(head.patient.0, head.class as u8, head.generation);
        for recipient in self.holders(&scope, head.epoch)?.iter() {
            self.deliver(*recipient, index, self.as_of)?;
        }
        Ok(Outcome::Stored)
    }

    /// A gap goes to those that hold its epoch's wrap, also to those whose wrap comes after it: it is told once, unlike a head.
    fn put_gap(&mut self, gap: &Gap, bytes: &[u8]) -> Result<Outcome, StoreError> {
        if self.gaps.get(gap_key(gap).as_slice()).map_err(failed("read gaps"))?.is_some() {
            return Ok(Outcome::Known);
        }
        if gap.missing.last < self.floor(gap.patient, gap.class)? {
            return Ok(Outcome::Known);
        }
        let index = self.append(bytes)?;
        self.name_gap(gap, index)?;
        let scope = scope_key(gap.patient.0, gap.class as u8, gap.generation);
        for recipient in self.holders(&scope, gap.epoch)?.iter() {
            self.deliver(*recipient, index, self.as_of)?;
        }
        Ok(Outcome::Stored)
    }

    fn name_gap(&mut self, gap: &Gap, index: u64) -> Result<(), StoreError> {
        let key = gap_key(gap);
        self.gaps.insert(key.as_slice(), index).map_err(failed("write gaps"))?;
        let scope = scope_key(gap.patient.0, gap.class as u8, gap.generation);
        // Longer than a segment's key, so that the two never meet.
        let of_chain = key.get(17..).unwrap_or_default();
        let epoch_key = [scope.as_slice(), &gap.epoch.to_be_bytes(), of_chain].concat();
        self.epochs.insert(epoch_key.as_slice(), index).map_err(failed("write epochs"))?;
        Ok(())
    }

    fn name_head(&mut self, head: &Head, index: u64) -> Result<(), StoreError> {
        let chain = [head.patient.0.as_slice(), &[head.class as u8]].concat();
        let header = [chain.as_slice(), &index.to_be_bytes()].concat();
        self.headers.insert(header.as_slice(), ()).map_err(failed("write headers"))?;
        let value = [age_of(head).as_slice(), &head.last.0].concat();
        self.heads.insert(chain.as_slice(), value.as_slice()).map_err(failed("write heads"))?;
        Ok(())
    }

    /// The recipients that hold a wrap of any node above `epoch`.
    fn holders(&mut self, scope: &[u8], epoch: u32) -> Result<Holders, StoreError> {
        if let Some(known) = self.known.holders(scope, epoch) {
            return Ok(known);
        }
        let mut found = BTreeSet::new();
        for depth in 0..=TREE_DEPTH {
            let first = epoch & !u32::MAX.checked_shr(u32::from(depth)).unwrap_or(0);
            let node = node_key(scope, first, depth);
            let high = [node.as_slice(), &[0xff; 20 + WRAP_HASH_BYTES]].concat();
            for entry in self.wraps.range(node.as_slice()..=high.as_slice()).map_err(failed("read wraps"))? {
                let (key, _) = entry.map_err(failed("read wraps"))?;
                if let Some(id) = key.value().get(node.len()..).and_then(<[u8]>::first_chunk::<20>) {
                    found.insert(RecipientId(*id));
                }
            }
        }
        let holders: Holders = found.into_iter().collect();
        self.known.hold(scope, epoch, &holders);
        Ok(holders)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        let index = match self.known.index {
            Some(index) => index,
            None => {
                let last = self.records.last().map_err(failed("read records"))?;
                last.map_or(0, |(last, _)| last.value() + 1)
            }
        };
        (self.appended, self.known.index) = (index, Some(index + 1));
        match self.keep {
            Keep::Here => self.records.insert(index, bytes).map_err(failed("write records"))?,
            Keep::Elsewhere => {
                self.noted.push(Noted { index, queued: Vec::new() });
                self.records.insert(index, [].as_slice()).map_err(failed("write records"))?
            }
        };
        kill_point::pass("store.record-put");
        Ok(index)
    }

    pub(super) fn deliver(
        &mut self,
        recipient: RecipientId,
        index: u64,
        timing: Timing,
    ) -> Result<(), StoreError> {
        let number = match self.known.number(recipient) {
            Some(number) => number,
            None => next_number(&self.delivery, recipient)?,
        };
        let index = if timing == Timing::Backlog { index | BACKLOG } else { index };
        self.queue(&Queued { recipient, number, index })?;
        self.known.numbered(recipient, number + 1);
        if let (Keep::Elsewhere, Some(noted)) = (self.keep, self.noted.last_mut()) {
            noted.queued.push(Queued { recipient, number, index });
        }
        Ok(())
    }

    fn queue(&mut self, place: &Queued) -> Result<(), StoreError> {
        self.known.queue_changed(place.recipient);
        let key = delivery_key(place.recipient, place.number);
        self.delivery.insert(key.as_slice(), place.index).map_err(failed("write delivery"))?;
        Ok(())
    }
}
