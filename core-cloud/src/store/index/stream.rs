//! The tables of a store whose records are messages of a stream: they can be made anew from it.

use caregate_protocol::entry::{self, Entry, Floor, Queued};
use caregate_protocol::erasure::{self, SignedErasure};
use caregate_protocol::id::RecipientId;
use caregate_protocol::record::Record;
use redb::ReadableTable;
use tracing::warn;

use super::keys::{delivery_key, number_of, successor};
use super::owner::{OWNER_MAGIC, owner_in};
use super::{Tables, placed};
use crate::store::rows::OwnerRow;
use crate::store::{StoreError, failed};

impl Tables<'_> {
    /// Says where the bytes of a record are that is kept elsewhere.
    pub(in crate::store) fn place(&mut self, index: u64, place: &[u8]) -> Result<(), StoreError> {
        self.known.index = None;
        self.records.insert(index, place).map_err(failed("write records"))?;
        if let Some((message, ..)) = placed(place) {
            let count = self.held.get(message).map_err(failed("read held"))?.map_or(0, |count| count.value());
            self.held.insert(message, count + 1).map_err(failed("write held"))?;
        }
        Ok(())
    }

    /// Writes down again what was decided when the entry was made; `place` is where its record is.
    pub(in crate::store) fn apply(&mut self, entry: &Entry<'_>, place: &[u8]) -> Result<(), StoreError> {
        if entry.record.starts_with(&erasure::MAGIC) {
            self.place(entry.index, place)?;
            let request = SignedErasure::decode(entry.record).map_err(failed("read the stream's erasure"))?;
            self.note_erasure(&request, entry.index)?;
        } else if entry.record.starts_with(&entry::FLOOR_MAGIC) {
            let floor = Floor::decode(entry.record).map_err(failed("read the stream's floor"))?;
            self.raise_floor(floor.patient, floor.class, floor.sequence)?;
        } else if entry.record.starts_with(&OWNER_MAGIC) {
            let owner = owner_in(entry.record);
            let (patient, by) = owner.ok_or_else(|| failed("read the stream's owner")("it is malformed"))?;
            self.signed(patient, by);
        } else if !entry.record.is_empty() {
            self.place(entry.index, place)?;
            // Of an earlier version: it keeps its place in the queues, where feeds refuse it by name.
            let Ok(record) = Record::decode(entry.record).inspect_err(|error| {
                warn!(index = entry.index, %error, "a record of the stream is not indexed");
            }) else {
                return entry.queued.iter().try_for_each(|place| self.queue(place));
            };
            match &record {
                Record::Segment(segment) => {
                    self.name_segment(&segment.header, segment.hash(), entry.index)?
                }
                Record::Head(signed) => self.name_head(&signed.head, entry.index)?,
                Record::Gap(signed) => self.name_gap(&signed.gap, entry.index)?,
                Record::Wrap(wrap) => self.name_wrap(wrap, entry.record, entry.index)?,
                // They go to the search index, and into no stream.
                Record::Tokens(_) => {}
            }
            let by = OwnerRow { since: entry.index, signer: record.signer() };
            self.use_up(record.patient(), by, entry.record.len());
        }
        entry.queued.iter().try_for_each(|place| self.queue(place))
    }

    /// The last place of each queue, from which the next number is known.
    pub(in crate::store) fn last_places(&self) -> Result<Vec<Queued>, StoreError> {
        let mut places = Vec::new();
        let mut from = Some([0; 20]);
        while let Some(low) = from {
            let first = {
                let low = [low.as_slice(), &[0; 8]].concat();
                let mut range = self.delivery.range(low.as_slice()..).map_err(failed("read delivery"))?;
                range.next().transpose().map_err(failed("read delivery"))?
            };
            let Some(id) = first.and_then(|(key, _)| key.value().first_chunk::<20>().copied()) else { break };
            let recipient = RecipientId(id);
            let (low, high) = (delivery_key(recipient, 0), delivery_key(recipient, u64::MAX));
            let mut range =
                self.delivery.range(low.as_slice()..=high.as_slice()).map_err(failed("read delivery"))?;
            if let Some((key, index)) = range.next_back().transpose().map_err(failed("read delivery"))? {
                places.push(Queued { recipient, number: number_of(key.value()), index: index.value() });
            }
            from = successor(id);
        }
        Ok(places)
    }
}
