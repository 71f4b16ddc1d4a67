//! A blob from the flows, groups and meters that are to be in force. Pure.

use std::sync::Arc;

use caregate_ebpf_common::switch::blob::{
    self, BUCKETS_AT, GROUP_IDS_AT, GROUP_PLACES, GROUPS_AT, METER_IDS_AT, METER_PLACES, METERS_AT, OPS_AT,
    OPS_MAX, ROW_OF_ONES, RULE_ID, RULE_RANK, RULES_AT, TABLE_WORDS, TABLES_AT, USED, VECTORS_AT,
};
use caregate_ebpf_common::switch::op::{OP_WORDS, port};
use caregate_ebpf_common::switch::record::{
    self, BAND_WORDS, BUCKET_BELOW, BUCKET_LIST, BUCKET_WATCH, BUCKET_WORDS, Band, GROUP_WORDS, METER_BANDS,
    METER_FIRST, METER_WORDS, NO_TABLE, RULE_APPLY, RULE_CLEAR, RULE_HEAD, RULE_METADATA, RULE_METADATA_MASK,
    RULE_METER, RULE_ONLY_OUTPUT, RULE_WORDS, RULE_WRITE,
};
use caregate_ebpf_common::switch::{Op, set_field};
use caregate_protocol::datapath::switch::{
    BandKind, FlowAction, FlowInstructions, GroupBucket, GroupEntry, MeterBand, MeterEntry,
};

use rustc_hash::FxHashMap;

use super::check::ChangeError;
use super::chunks::{self, Chunk, Pattern};
use super::mirror::{self, Flow, Mirror};
use super::places::{Numbers, Places};

/// A table keeps its chunks while it has between half and one and a quarter of the rules that it had when they were chosen,
/// and no more new ones than a quarter.
const CHOSEN_FOR_QUARTERS: usize = 5;
/// Groups that a port's liveness is followed through.
const WATCH_DEPTH: usize = 8;

/// What tables are looked up by, kept from change to change since it takes long to choose.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    tables: Vec<ChosenTable>,
}

#[derive(Debug, Clone, Default)]
struct ChosenTable {
    chunks: Vec<Chunk>,
    /// Rules when they were chosen.
    rules: usize,
    /// Rules put since, and perhaps others'.
    put: usize,
}

impl ChosenTable {
    fn update(&mut self, rules: &[&Pattern], put: usize) {
        self.put += put;
        let fits = rules.len() * 4 <= self.rules * CHOSEN_FOR_QUARTERS && rules.len() * 2 >= self.rules;
        if !fits || self.put * 4 > self.rules.max(4) {
            *self = Self { chunks: chunks::choose(rules), rules: rules.len(), put: 0 };
        }
    }
}

/// Where a list of actions lies, by its words.
#[derive(Default)]
struct Lists {
    known: FxHashMap<Vec<OpWords>, u64>,
    /// The two lists of instructions that flows share, by where these are.
    of_instructions: FxHashMap<*const FlowInstructions, (u64, u64)>,
    /// The one that is being put.
    list: Vec<OpWords>,
    ops: Vec<OpWords>,
}

type OpWords = [u64; OP_WORDS];

impl Lists {
    /// What is applied and what is written.
    fn of(
        &mut self,
        instructions: &Arc<FlowInstructions>,
        places: &Places,
    ) -> Result<(u64, u64), ChangeError> {
        let at = Arc::as_ptr(instructions);
        if let Some(words) = self.of_instructions.get(&at) {
            return Ok(*words);
        }
        let words =
            (self.put(ops(&instructions.apply, places))?, self.put(ops(&instructions.write, places))?);
        self.of_instructions.insert(at, words);
        Ok(words)
    }

    fn put(&mut self, list: impl Iterator<Item = Op>) -> Result<u64, ChangeError> {
        self.list.clear();
        self.list.extend(list.map(|op| op.0));
        let list = self.list.as_slice();
        if list.is_empty() {
            return Ok(0);
        }
        if let Some(word) = self.known.get(list) {
            return Ok(*word);
        }
        let room = ChangeError::TooMany("actions");
        if self.ops.len() + list.len() > OPS_MAX {
            return Err(room);
        }
        let first = u32::try_from(self.ops.len()).map_err(|_over| room)?;
        let word = record::list(first, u16::try_from(list.len()).map_err(|_over| room)?);
        self.ops.extend_from_slice(list);
        self.known.insert(list.to_vec(), word);
        Ok(word)
    }
}

/// Writes the blob. `fresh` are the slots of flows that the one before had not.
///
/// # Errors
/// [`ChangeError::TooMany`]: the blob is not to be used.
pub fn write(
    mirror: &Mirror,
    places: &Places,
    fresh: &Numbers,
    chosen: &mut Chosen,
    words: &mut [u64],
) -> Result<(), ChangeError> {
    let mut lists = Lists::default();
    words[blob::WORD_SESSION] = places.session;
    words[blob::LOWEST_AT..][..64].copy_from_slice(&blob::lowest_words());
    write_groups(mirror, places, &mut lists, words)?;
    write_meters(mirror, places, words);
    write_tables(mirror, places, fresh, chosen, &mut lists, words)?;
    for (place, op) in words[OPS_AT..].as_chunks_mut::<OP_WORDS>().0.iter_mut().zip(&lists.ops) {
        *place = *op;
    }
    Ok(())
}

fn write_tables(
    mirror: &Mirror,
    places: &Places,
    fresh: &Numbers,
    chosen: &mut Chosen,
    lists: &mut Lists,
    words: &mut [u64],
) -> Result<(), ChangeError> {
    let all = mirror.sizes().0;
    let (mut first, mut row) = (0, 0);
    words[VECTORS_AT + ROW_OF_ONES..].fill(u64::MAX);
    chosen.tables.resize_with(blob::TABLES, ChosenTable::default);
    for (table, of_table) in mirror::tables().zip(&mut chosen.tables) {
        let slot = |flow: &Flow| places.flows.get(&flow.entry.id).copied().unwrap_or_default();
        let flows: Vec<(&Arc<Flow>, u32)> = mirror.table(table).map(|flow| (flow, slot(flow))).collect();
        words[TABLES_AT + usize::from(table) * TABLE_WORDS..][..TABLE_WORDS].fill(0);
        if flows.is_empty() {
            continue;
        }
        let patterns: Vec<&Pattern> = flows.iter().map(|(flow, _)| &flow.pattern).collect();
        let put = flows.iter().filter(|(_, slot)| fresh.contains(*slot)).count();
        of_table.update(&patterns, put);
        // Each table has its share, and room for the one row of a table without chunks.
        let share = (ROW_OF_ONES - blob::TABLES * (1 + 64)) * flows.len() / all.max(1);
        let most = share / (chunks::ROWS * chunks::row_words(flows.len()));
        let used = of_table.chunks.get(..most).unwrap_or(&of_table.chunks);
        let order = chunks::arrange(&patterns, used);
        let arranged: Vec<&Pattern> = order.iter().map(|at| patterns[*at]).collect();
        let (head, rows) = words.split_at_mut(VECTORS_AT);
        let head = &mut head[TABLES_AT + usize::from(table) * TABLE_WORDS..][..TABLE_WORDS];
        row += write_rows(&arranged, used, row, head, &mut rows[row..]);
        head[0] |= blob::table(0, first);
        for (place, at) in (first..).zip(&order) {
            let place = RULES_AT + usize::try_from(place).unwrap_or_default() * RULE_WORDS;
            write_rule(flows[*at], *at as u64, places, lists, &mut words[place..][..RULE_WORDS])?;
        }
        first += u32::try_from(flows.len()).unwrap_or_default();
    }
    words[blob::WORD_RULES] = first.into();
    Ok(())
}

/// Writes the rows of a table whose first is at `row`, and the table's head; how many words they are.
fn write_rows(rules: &[&Pattern], chunks: &[Chunk], row: usize, head: &mut [u64], rows: &mut [u64]) -> usize {
    let row_words = chunks::row_words(rules.len());
    let count = chunks.len().max(1).next_multiple_of(2);
    let ones = blob::chunk(u32::try_from(ROW_OF_ONES).unwrap_or_default(), 0, 0, 0);
    head[0] = blob::table(u8::try_from(count).unwrap_or_default(), 0);
    head[1..][..count].fill(ones);
    if chunks.is_empty() {
        head[1] = chunks::word(row, None, row_words);
        chunks::fill_all(rules.len(), &mut rows[..row_words]);
        return row_words;
    }
    let of_chunk = chunks::ROWS * row_words;
    let places = rows.chunks_exact_mut(of_chunk).zip(&mut head[1..]);
    for (number, (chunk, (rows, word))) in chunks.iter().zip(places).enumerate() {
        *word = chunks::word(row + number * of_chunk, Some(*chunk), row_words);
        chunks::fill(rules, *chunk, row_words, rows);
    }
    chunks.len() * of_chunk
}

fn write_rule(
    (flow, slot): (&Arc<Flow>, u32),
    rank: u64,
    places: &Places,
    lists: &mut Lists,
    words: &mut [u64],
) -> Result<(), ChangeError> {
    let FlowInstructions { meter, apply, clear, write, metadata, goto } = &*flow.entry.instructions;
    words[..record::RULE_MASK].copy_from_slice(&flow.pattern.value);
    words[record::RULE_MASK..RULE_HEAD].copy_from_slice(&flow.pattern.mask);
    let only_output = match (apply.as_slice(), write.as_slice()) {
        ([FlowAction::Output { port, .. }], []) | ([], [FlowAction::Output { port, .. }])
            if meter.is_none() && !clear && metadata.is_none() && goto.is_none() =>
        {
            Some(*port)
        }
        _ => None,
    };
    let flags =
        if *clear { RULE_CLEAR } else { 0 } | if only_output.is_some() { RULE_ONLY_OUTPUT } else { 0 };
    words[RULE_HEAD] = record::rule_head(slot, flags, goto.unwrap_or(NO_TABLE));
    let (value, mask) = metadata.unwrap_or_default();
    (words[RULE_METADATA], words[RULE_METADATA_MASK]) = (value & mask, mask);
    (words[RULE_APPLY], words[RULE_WRITE]) = lists.of(&flow.entry.instructions, places)?;
    let meter = meter.and_then(|id| places.meters.get(&id)).map_or(0, |place| u64::from(*place) + 1);
    words[RULE_METER] = meter | u64::from(only_output.unwrap_or_default()) << 32;
    words[RULE_RANK] = rank;
    words[RULE_ID] = flow.entry.id;
    Ok(())
}

fn ops(actions: &[FlowAction], places: &Places) -> impl Iterator<Item = Op> {
    actions.iter().map(|action| op(*action, places))
}

fn op(action: FlowAction, places: &Places) -> Op {
    match action {
        FlowAction::Output { port, max_len } => Op::output(port, max_len),
        FlowAction::Group(id) => places.groups.get(&id).map_or(Op::NOTHING, |place| Op::group(place.group)),
        FlowAction::SetQueue(queue) => Op::set_queue(queue),
        FlowAction::PushVlan(ether_type) => Op::push_vlan(ether_type),
        FlowAction::PopVlan => Op::pop_vlan(),
        FlowAction::PushMpls(ether_type) => Op::push_mpls(ether_type),
        FlowAction::PopMpls(ether_type) => Op::pop_mpls(ether_type),
        FlowAction::CopyTtlOut => Op::copy_ttl_out(),
        FlowAction::CopyTtlIn => Op::copy_ttl_in(),
        FlowAction::SetMplsTtl(ttl) => Op::set_mpls_ttl(ttl),
        FlowAction::DecMplsTtl => Op::dec_mpls_ttl(),
        FlowAction::SetNwTtl(ttl) => Op::set_nw_ttl(ttl),
        FlowAction::DecNwTtl => Op::dec_nw_ttl(),
        FlowAction::SetField { field, value } => set_field(field, value).unwrap_or(Op::NOTHING),
    }
}

fn write_groups(
    mirror: &Mirror,
    places: &Places,
    lists: &mut Lists,
    words: &mut [u64],
) -> Result<(), ChangeError> {
    words[GROUP_IDS_AT..][..GROUP_PLACES].fill(0);
    for group in mirror.groups() {
        let Some(at) = places.groups.get(&group.id) else { continue };
        let small = |number: u32| u8::try_from(number).unwrap_or_default();
        let place = usize::try_from(at.group).unwrap_or_default();
        let first = u16::try_from(at.first).unwrap_or_default();
        words[GROUP_IDS_AT + place] = USED | u64::from(group.id);
        let to_stack = (first + 1..).zip(&group.buckets).find(|(_, bucket)| leads_to_stack(bucket));
        let to_stack = to_stack.map_or(0, |(place, _)| place);
        words[GROUPS_AT + place * GROUP_WORDS] =
            record::group(group.kind as u8, small(at.buckets), first, to_stack);
        let buckets = &mut words[BUCKETS_AT + usize::from(first) * BUCKET_WORDS..];
        let places_of = buckets.chunks_exact_mut(BUCKET_WORDS);
        for ((place, bucket), below) in places_of.zip(&group.buckets).zip(shares(group)) {
            place[BUCKET_LIST] = lists.put(action_set(&bucket.actions, places))?;
            place[BUCKET_WATCH] = watch(mirror, bucket, WATCH_DEPTH);
            place[BUCKET_BELOW] = below;
        }
    }
    Ok(())
}

fn leads_to_stack(bucket: &GroupBucket) -> bool {
    let leads =
        |action: &FlowAction| matches!(action, FlowAction::Output { port: port::LOCAL | port::NORMAL, .. });
    bucket.actions.iter().any(leads)
}

/// One action of each kind, the last that was written, in the order in which they are done (OpenFlow 1.3.5 §5.10).
fn action_set(actions: &[FlowAction], places: &Places) -> impl Iterator<Item = Op> {
    let mut set: Vec<Op> = Vec::new();
    for op in actions.iter().map(|action| op(*action, places)) {
        set.retain(|other| other.slot() != op.slot());
        set.push(op);
    }
    set.sort_by_key(Op::slot);
    set.into_iter()
}

/// For each bucket of a group, the hashes below which it is chosen.
fn shares(group: &GroupEntry) -> impl Iterator<Item = u64> {
    let all: u64 = group.buckets.iter().map(|bucket| u64::from(bucket.weight)).sum();
    group.buckets.iter().scan(0, move |sum, bucket| {
        *sum += u64::from(bucket.weight);
        Some((*sum << 32) / all.max(1))
    })
}

/// Ports of which one must be live for a bucket to be (§5.6.1); all where it watches nothing.
fn watch(mirror: &Mirror, bucket: &GroupBucket, depth: usize) -> u64 {
    let of_port = match bucket.watch_port {
        port::ANY => 0,
        number @ 0..64 => 1 << number,
        port::LOCAL => u64::MAX,
        _ => 0,
    };
    let watches_group = bucket.watch_group != port::ANY;
    if bucket.watch_port == port::ANY && !watches_group {
        return u64::MAX;
    }
    let group = mirror.group(bucket.watch_group).filter(|_| watches_group && depth > 0);
    let buckets = group.map(|group| group.buckets.as_slice()).unwrap_or_default();
    buckets.iter().fold(of_port, |ports, bucket| ports | watch(mirror, bucket, depth - 1))
}

/// A meter's bands in the order in which the kernel has them, with their numbers: the fastest first.
#[must_use]
pub fn bands(meter: &MeterEntry) -> Vec<(usize, &MeterBand)> {
    let mut bands: Vec<_> = meter.bands.iter().enumerate().collect();
    bands.sort_by_key(|(_, band)| std::cmp::Reverse(band.rate));
    bands
}

fn write_meters(mirror: &Mirror, places: &Places, words: &mut [u64]) {
    words[METER_IDS_AT..][..METER_PLACES].fill(0);
    for meter in mirror.meters() {
        let place = places.meters.get(&meter.id).and_then(|place| usize::try_from(*place).ok());
        let Some(place) = place else { continue };
        words[METER_IDS_AT + place] = USED | u64::from(meter.id);
        let words = &mut words[METERS_AT + place * METER_WORDS..][..METER_WORDS];
        words[METER_BANDS] = meter.bands.len() as u64;
        for (place, (_, band)) in
            words[METER_FIRST..].as_chunks_mut::<BAND_WORDS>().0.iter_mut().zip(bands(meter))
        {
            let remark = match band.kind {
                BandKind::Drop => None,
                BandKind::DscpRemark(levels) => Some(levels),
            };
            *place = Band::new(band.rate, band.burst, meter.counts_packets, remark).pack();
        }
    }
}

#[cfg(test)]
mod tests;
