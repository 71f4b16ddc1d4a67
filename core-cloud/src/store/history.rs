//! A time of a patient's history for one recipient, from the tables that the queues are made with: what it holds a wrap for, and the wraps.

use std::collections::BTreeSet;

use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::uplink::{HistoryPlace, Question, Used};
use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::index::{EPOCHS, RECORDS, ROWS_MAX, TREE_DEPTH, WRAP_HASH_BYTES, WRAPS, node_key, scope_key};
use super::{Past, StoreError, failed};

/// Bytes of a patient, a class and a generation in front of a key.
const SCOPE_BYTES: usize = 21;
/// Wraps of one node that are told, the newest: a recipient's next HPKE keys, and what a gateway made anew after kills, come to some.
const SEALS_MAX: usize = 8;

type Index = ReadOnlyTable<&'static [u8], u64>;

/// What is being gathered.
struct Gathering<'q> {
    question: &'q Question,
    wraps: Index,
    records: ReadOnlyTable<u64, &'static [u8]>,
    past: Past,
    bytes: usize,
    rows: usize,
    /// Wraps of this page.
    told: BTreeSet<u64>,
    /// The epoch that was looked at last, and whether it can be opened.
    epoch: Option<(u32, u32, bool)>,
}

/// A page from `question.at` on: at most `bytes_max` of segments and gaps, but one at least. `fetch` as in `index::page`.
pub(super) fn history(
    db: &Database,
    question: &Question,
    bytes_max: usize,
    mut fetch: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<Past, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let epochs: Index = txn.open_table(EPOCHS).map_err(failed("open epochs"))?;
    let mut gathering = Gathering {
        question,
        wraps: txn.open_table(WRAPS).map_err(failed("open wraps"))?,
        records: txn.open_table(RECORDS).map_err(failed("open records"))?,
        past: Past::default(),
        bytes: 0,
        rows: 0,
        told: BTreeSet::new(),
        epoch: None,
    };
    let mut at = question.at;
    while let Some(generation) = next_generation(&epochs, (question.patient, question.class), at.generation)?
    {
        if generation > at.generation {
            at = HistoryPlace { generation, ..HistoryPlace::FIRST };
        }
        let scope = scope_key(question.patient.0, question.class as u8, generation);
        let (epoch, sequence) =
            if at.epoch < question.from { (question.from, 0) } else { (at.epoch, at.sequence) };
        let low = [scope.as_slice(), &epoch.to_be_bytes(), &sequence.to_be_bytes()].concat();
        let high = [scope.as_slice(), &question.until.to_be_bytes()].concat();
        if low < high {
            for entry in epochs.range(low.as_slice()..high.as_slice()).map_err(failed("read epochs"))? {
                let (key, index) = entry.map_err(failed("read epochs"))?;
                let place = place_of(generation, key.value());
                if !gathering.take(place, index.value(), bytes_max, &mut fetch)? {
                    gathering.past.next = Some(place);
                    return Ok(gathering.past);
                }
            }
        }
        let Some(next) = generation.checked_add(1) else { break };
        at = HistoryPlace { generation: next, ..HistoryPlace::FIRST };
    }
    Ok(gathering.past)
}

impl Gathering<'_> {
    /// False where the page is full.
    fn take(
        &mut self,
        place: HistoryPlace,
        index: u64,
        bytes_max: usize,
        fetch: &mut impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<bool, StoreError> {
        self.rows += 1;
        if self.rows > ROWS_MAX {
            return Ok(false);
        }
        let known = self
            .epoch
            .filter(|(generation, epoch, _)| (*generation, *epoch) == (place.generation, place.epoch));
        let opens = match known {
            Some((.., opens)) => opens,
            None => self.opens(place, fetch)?,
        };
        self.epoch = Some((place.generation, place.epoch, opens));
        if !opens {
            return Ok(true);
        }
        let Some(record) = self.fetched(index, fetch)? else { return Ok(true) };
        if self.bytes > 0 && self.bytes + record.len() > bytes_max {
            return Ok(false);
        }
        self.bytes += record.len();
        self.past.records.push(record);
        Ok(true)
    }

    /// Whether the recipient holds a wrap of a node above the epoch; tells the wraps that were not told yet.
    fn opens(
        &mut self,
        place: HistoryPlace,
        fetch: &mut impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<bool, StoreError> {
        let Question { patient, class, recipient: RecipientId(recipient), .. } = self.question;
        let scope = scope_key(patient.0, *class as u8, place.generation);
        let mut opens = false;
        for depth in 0..=TREE_DEPTH {
            let first = place.epoch & !u32::MAX.checked_shr(u32::from(depth)).unwrap_or(0);
            let low = [node_key(&scope, first, depth).as_slice(), recipient].concat();
            for index in self.seals(&low)? {
                opens = true;
                if self.told.insert(index)
                    && let Some(wrap) = self.fetched(index, fetch)?
                {
                    self.past.records.push(wrap);
                }
            }
        }
        Ok(opens)
    }

    /// The newest wraps of a node for the recipient, in the order in which they came; `low` is what their keys begin with.
    fn seals(&self, low: &[u8]) -> Result<BTreeSet<u64>, StoreError> {
        let high = [low, &[0xff; WRAP_HASH_BYTES]].concat();
        let mut newest = BTreeSet::new();
        for entry in self.wraps.range(low..=high.as_slice()).map_err(failed("read wraps"))? {
            newest.insert(entry.map_err(failed("read wraps"))?.1.value());
            if newest.len() > SEALS_MAX {
                newest.pop_first();
            }
        }
        Ok(newest)
    }

    fn fetched(
        &self,
        index: u64,
        fetch: &mut impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let stored = self.records.get(index).map_err(failed("read a record"))?;
        Ok(stored.map(|stored| fetch(stored.value())).transpose()?.flatten())
    }
}

/// Under which generations there is anything of a chain, as in [`super::Store::generations`].
pub(super) fn generations(
    db: &Database,
    chain: (PatientId, DataClass),
    from: u32,
    most: usize,
) -> Result<Vec<Used>, StoreError> {
    let txn = db.begin_read().map_err(failed("begin"))?;
    let epochs: Index = txn.open_table(EPOCHS).map_err(failed("open epochs"))?;
    let (mut used, mut from) = (Vec::new(), Some(from));
    while let Some(low) = from
        && used.len() < most
        && let Some(generation) = next_generation(&epochs, chain, low)?
    {
        let scope = scope_key(chain.0.0, chain.1 as u8, generation);
        let high = [scope.as_slice(), &[0xff; 32]].concat();
        let mut rows = epochs.range(scope.as_slice()..=high.as_slice()).map_err(failed("read epochs"))?;
        let first = rows.next().transpose().map_err(failed("read epochs"))?;
        let first = first.map(|(key, _)| number(key.value(), SCOPE_BYTES));
        let last = rows.next_back().transpose().map_err(failed("read epochs"))?;
        let last = last.map(|(key, _)| number(key.value(), SCOPE_BYTES));
        if let Some(first) = first {
            used.push(Used { generation, first, last: last.unwrap_or(first) });
        }
        from = generation.checked_add(1);
    }
    Ok(used)
}

/// The lowest generation from this on of which there is anything.
fn next_generation(
    epochs: &Index,
    (patient, class): (PatientId, DataClass),
    from: u32,
) -> Result<Option<u32>, StoreError> {
    let chain = [patient.0.as_slice(), &[class as u8]].concat();
    let low = [chain.as_slice(), &from.to_be_bytes()].concat();
    let high = [chain.as_slice(), &[0xff; 48]].concat();
    let mut range = epochs.range(low.as_slice()..=high.as_slice()).map_err(failed("read epochs"))?;
    let first = range.next().transpose().map_err(failed("read epochs"))?;
    Ok(first.map(|(key, _)| number(key.value(), SCOPE_BYTES - 4)))
}

fn number(key: &[u8], at: usize) -> u32 {
    key.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Of a gap the first sequence.
fn place_of(generation: u32, key: &[u8]) -> HistoryPlace {
    let sequence = key.get(SCOPE_BYTES + 4..).and_then(<[u8]>::first_chunk::<8>);
    HistoryPlace {
        generation,
        epoch: number(key, SCOPE_BYTES),
        sequence: sequence.map_or(0, |bytes| u64::from_be_bytes(*bytes)),
    }
}
