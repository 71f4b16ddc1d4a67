use caregate_ebpf_common::switch::blob::{BLOB_WORDS, Blob, GROUP_RULES, Lookup, RULES_MAX, Search, find};
use caregate_ebpf_common::switch::{KEY_BYTES, KEY_WORDS, Key, place};
use caregate_protocol::datapath::switch::{Change, FlowEntry, GroupKind};
use proptest::prelude::*;

use super::super::check::Guard;
use super::*;

const OPEN: Guard = Guard { sensor_ports: 0, is_on: false };
/// More than any table needs.
const STEPS: usize = RULES_MAX + RULES_MAX / GROUP_RULES + 1;

/// A blob, and what it is built of.
pub(crate) struct Built {
    pub(crate) mirror: Mirror,
    pub(crate) places: Places,
    pub(crate) blob: Box<Blob>,
    chosen: Chosen,
}

impl Built {
    fn new() -> Self {
        let blob = vec![0; BLOB_WORDS].into_boxed_slice().try_into().unwrap();
        let mirror = Mirror::default().of_session(7);
        Self { mirror, places: Places::default(), blob, chosen: Chosen::default() }
    }

    fn change(&mut self, changes: &[Change]) -> Result<usize, ChangeError> {
        let mut mirror = self.mirror.clone();
        changes.iter().try_for_each(|change| mirror.apply(change.clone(), &OPEN))?;
        mirror.check_references(&OPEN)?;
        let (places, fresh) = self.places.next(&mirror)?;
        let slots: Numbers = fresh.flows.iter().copied().collect();
        write(&mirror, &places, &slots, &mut self.chosen, self.blob.as_mut_slice())?;
        (self.mirror, self.places) = (mirror, places);
        assert_eq!(Places::read(self.blob.as_slice()), self.places);
        Ok(fresh.flows.len())
    }

    /// The id of the flow that the blob gives.
    fn found(&self, table: usize, key: &Key) -> Option<u64> {
        let mut search = Search::default();
        match find::<STEPS>(&self.blob, table, key, &mut search) {
            Lookup::Miss => None,
            Lookup::Rule(rule) => Some(self.blob[RULES_AT + rule * RULE_WORDS + RULE_ID]),
            Lookup::Long => panic!("{STEPS} steps were not enough"),
        }
    }

    /// The same by trying one after another.
    fn scanned(&self, table: u8, key: &Key) -> Option<u64> {
        self.mirror.table(table).find(|flow| flow.pattern.matches(key)).map(|flow| flow.entry.id)
    }
}

fn flow(id: u64, table: u8, priority: u16, fields: &[(u8, u128, u128)]) -> FlowEntry {
    let (mut value, mut mask) = ([0; KEY_BYTES], [0; KEY_BYTES]);
    for (oxm, bits, of) in fields {
        let place = place(*oxm).unwrap();
        let own = u128::MAX >> (128 - place.bits);
        let put = |into: &mut [u8; KEY_BYTES], bits: u128| {
            let bytes = ((bits & own) << place.shift).to_be_bytes();
            for (to, from) in into[place.byte..].iter_mut().zip(&bytes[16 - place.bytes..]) {
                *to |= from;
            }
        };
        put(&mut value, bits & of);
        put(&mut mask, *of);
    }
    FlowEntry { id, table, priority, value, mask, instructions: Arc::default() }
}

fn put(flow: FlowEntry) -> Change {
    Change::PutFlow(flow)
}

/// Fields that have a place of their own.
const FIELDS: [u8; 16] = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 31, 38];

/// Tables of rules that overlap: few values, masks of all kinds.
fn flows(most: usize) -> impl Strategy<Value = Vec<FlowEntry>> {
    let field = (0..FIELDS.len(), any::<u128>(), prop_oneof![Just(u128::MAX), any::<u128>(), Just(0xff00)])
        .prop_map(|(field, bits, mask)| (FIELDS[field], bits & 0x0303_0303, mask));
    let one = (0..8u8, 0..5u16, proptest::collection::vec(field, 0..5));
    proptest::collection::vec(one, 1..most).prop_map(|rules| {
        let mut flows = Vec::new();
        for (id, (table, priority, mut fields)) in (0..).zip(rules) {
            fields.sort_unstable_by_key(|(field, _, _)| *field);
            fields.dedup_by_key(|(field, _, _)| *field);
            flows.push(flow(id, table, priority, &fields));
        }
        flows
    })
}

/// A key that meets one flow, and elsewhere is like another, but for a bit.
fn key_of(flow: &FlowEntry, other: &FlowEntry, bit: usize) -> Key {
    let [value, mask, mut key] = [&flow.value, &flow.mask, &other.value].map(mirror::words);
    for word in 0..KEY_WORDS {
        key[word] = value[word] | key[word] & !mask[word];
    }
    key[bit / 64 % KEY_WORDS] ^= u64::from(bit.is_multiple_of(3)) << (bit % 64);
    key
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_blob_finds_what_a_scan_finds(
        flows in flows(700),
        picks in proptest::collection::vec((any::<usize>(), any::<usize>(), 0..8 * KEY_BYTES), 64),
    ) {
        let mut built = Built::new();
        built.change(&flows.iter().cloned().map(put).collect::<Vec<_>>()).unwrap();
        for (one, other, bit) in picks {
            let key = key_of(&flows[one % flows.len()], &flows[other % flows.len()], bit);
            for table in 0..8 {
                prop_assert_eq!(built.found(usize::from(table), &key), built.scanned(table, &key));
            }
        }
    }

    #[test]
    fn a_change_leaves_no_trace_of_what_was(first in flows(300), second in flows(300)) {
        let mut built = Built::new();
        built.change(&first.iter().cloned().map(put).collect::<Vec<_>>()).unwrap();
        let mut changes = vec![Change::Clear];
        changes.extend(second.iter().cloned().map(|flow| put(FlowEntry { id: flow.id + 10_000, ..flow })));
        built.change(&changes).unwrap();
        for flow in first.iter().chain(&second) {
            let key = mirror::words(&flow.value);
            for table in 0..8 {
                prop_assert_eq!(built.found(usize::from(table), &key), built.scanned(table, &key));
            }
        }
    }
}

/// As many as there may be, every fourth in another table, of 24 shapes.
fn full() -> Vec<FlowEntry> {
    let flows = (0..4096u64).map(|id| {
        let bits = u128::from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | u128::from(id) << 64;
        let field = |number: u64| FIELDS[usize::try_from(number % 16).unwrap()];
        let (one, other) = (field(id % 24), field(id % 24 * 5 + 3));
        let mut fields = vec![(one, bits, u128::MAX)];
        if one != other {
            fields.push((other, bits >> 7, u128::MAX << (id % 3 * 4)));
        }
        flow(id, u8::from(id % 4 == 0), u16::try_from(id % 1000).unwrap(), &fields)
    });
    flows.collect()
}

#[test]
fn a_full_switch_is_built_and_searched() {
    let flows = full();
    let mut built = Built::new();
    built.change(&flows.iter().cloned().map(put).collect::<Vec<_>>()).unwrap();
    for (at, flow) in flows.iter().enumerate() {
        let key = key_of(flow, &flows[(at * 31 + 7) % flows.len()], 1);
        for table in 0..2 {
            assert_eq!(built.found(usize::from(table), &key), built.scanned(table, &key), "{at}");
        }
    }
    let one_more = put(flow(9_999, 2, 1, &[]));
    assert_eq!(built.change(std::slice::from_ref(&one_more)), Err(ChangeError::TooMany("flows")));
    assert_eq!(built.change(&[Change::RemoveFlow(17), one_more]), Ok(1));
}

#[test]
fn what_stays_keeps_its_slot_and_what_is_new_gets_one_of_nobody_in_force() {
    let mut built = Built::new();
    built.change(&[put(flow(1, 1, 5, &[])), put(flow(2, 1, 6, &[]))]).unwrap();
    let before = built.places.clone();
    built.change(&[Change::RemoveFlow(1), put(flow(3, 1, 7, &[]))]).unwrap();
    assert_eq!(built.places.flows[&2], before.flows[&2]);
    assert!(!before.flows.values().any(|slot| *slot == built.places.flows[&3]));
    // Now that nothing in force has it, flow 1's may be another's.
    built.change(&[put(flow(4, 1, 7, &[]))]).unwrap();
    assert_eq!(built.places.flows[&4], before.flows[&1]);
    // The same id of another daemon is another flow.
    let slot = built.places.flows[&2];
    built.mirror = built.mirror.of_session(8);
    assert_eq!(built.change(&[put(flow(2, 1, 6, &[]))]), Ok(1));
    assert_ne!(built.places.flows[&2], slot);
}

fn bucket(port: u32, weight: u16) -> GroupBucket {
    let actions = vec![FlowAction::Output { port, max_len: 0 }, FlowAction::DecNwTtl];
    GroupBucket { weight, watch_port: port, watch_group: port::ANY, actions }
}

#[test]
fn groups_and_meters_are_where_rules_say() {
    let mut built = Built::new();
    let fast = GroupEntry { id: 9, kind: GroupKind::FastFailover, buckets: vec![bucket(2, 0), bucket(3, 0)] };
    let through =
        GroupBucket { watch_port: port::ANY, watch_group: 9, actions: vec![FlowAction::Group(9)], weight: 3 };
    let select = GroupEntry { id: 5, kind: GroupKind::Select, buckets: vec![bucket(1, 1), through] };
    let band = |rate| MeterBand { kind: BandKind::Drop, rate, burst: 0 };
    let meter = MeterEntry { id: 77, counts_packets: true, bands: vec![band(10), band(30)] };
    let mut entry = flow(1, 1, 5, &[]);
    Arc::make_mut(&mut entry.instructions).apply = vec![FlowAction::Group(5)];
    Arc::make_mut(&mut entry.instructions).meter = Some(77);
    built
        .change(&[Change::PutGroup(fast), Change::PutGroup(select), Change::PutMeter(meter), put(entry)])
        .unwrap();
    let word = |at: usize| built.blob[at];
    let place = built.places.groups[&5];
    let first = BUCKETS_AT + usize::try_from(place.first).unwrap() * BUCKET_WORDS;
    assert_eq!(
        word(GROUPS_AT + usize::try_from(place.group).unwrap()),
        record::group(1, 2, place.first.try_into().unwrap(), 0)
    );
    assert_eq!(
        [word(first + BUCKET_WATCH), word(first + BUCKET_WORDS + BUCKET_WATCH)],
        [1 << 1, 1 << 2 | 1 << 3]
    );
    assert_eq!([word(first + BUCKET_BELOW), word(first + BUCKET_WORDS + BUCKET_BELOW)], [1 << 30, 1 << 32]);
    // In the order of an action set, whatever the order in which they came.
    let ops = OPS_AT + usize::try_from(word(first + BUCKET_LIST) & 0xffff_ffff).unwrap() * OP_WORDS;
    assert_eq!([Op::dec_nw_ttl().0, Op::output(1, 0).0].concat(), built.blob[ops..ops + 2 * OP_WORDS]);
    assert_eq!(word(RULES_AT + RULE_METER), u64::from(built.places.meters[&77]) + 1);
    let meter = METERS_AT + usize::try_from(built.places.meters[&77]).unwrap() * METER_WORDS;
    assert_eq!(word(meter + METER_BANDS), 2);
    assert_eq!(word(meter + METER_FIRST + 1), Band::new(30, 0, true, None).cost, "the fastest first");
    // What is named stays.
    assert_eq!(
        built.change(&[Change::RemoveMeter(77)]),
        Err(ChangeError::NoMeter(super::super::check::Subject::Flow(1), 77))
    );
    assert_eq!(
        built.change(&[Change::RemoveGroup(9)]),
        Err(ChangeError::NoGroup(super::super::check::Subject::Group(5), 9))
    );
    let back = GroupBucket { actions: vec![FlowAction::Group(5)], ..bucket(1, 1) };
    let circle = GroupEntry { id: 9, kind: GroupKind::All, buckets: vec![back] };
    assert_eq!(built.change(&[Change::PutGroup(circle)]), Err(ChangeError::Circle(5)));
}

#[test]
fn a_rule_with_one_output_says_so() {
    let mut built = Built::new();
    let mut entry = flow(1, 0, 5, &[(0, 2, u128::MAX)]);
    Arc::make_mut(&mut entry.instructions).write = vec![FlowAction::Output { port: 3, max_len: 0 }];
    built.change(&[put(entry.clone())]).unwrap();
    let head =
        |built: &Built| (built.blob[RULES_AT + RULE_HEAD] >> 32, built.blob[RULES_AT + RULE_METER] >> 32);
    assert_eq!(head(&built), (u64::from(RULE_ONLY_OUTPUT) | u64::from(NO_TABLE) << 16, 3));
    Arc::make_mut(&mut entry.instructions).goto = Some(4);
    built.change(&[put(entry)]).unwrap();
    assert_eq!(head(&built), (4 << 16, 0));
}
