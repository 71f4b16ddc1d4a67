//! The committed object in the running kernel, frame by frame (`BPF_PROG_TEST_RUN`): the same verdicts as in user space for
//! arbitrary frames, and what can't be seen from outside. Needs root; without it each test fails and says so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::programs::{TestRun, TestRunOptions};
use caregate_datapathd::kernel::{self, Kernel};
use caregate_datapathd::stages::{self, Stages};
use caregate_datapathd::switch::check::Guard;
use caregate_datapathd::switch::mirror::words;
use caregate_datapathd::switch::{Series, Switch};
use caregate_datapathd::{GUARDED, object};
use caregate_ebpf_common::frame::{Address, parse};
use caregate_ebpf_common::judge::{World, ingress};
use caregate_ebpf_common::switch::map::PUNTS;
use caregate_ebpf_common::switch::op::port;
use caregate_ebpf_common::switch::parse::{Parsed, parse as parse_switched};
use caregate_ebpf_common::{Kind, Verdict, map};
use caregate_protocol::datapath::switch::{
    BandKind, Change, FlowAction, FlowInstructions, GroupBucket, GroupEntry, GroupKind, MeterBand, MeterEntry,
};
use proptest::test_runner::{Config, TestRunner};

use crate::support::frames::*;
use crate::support::{Flow, flow, policy};

/// The kernel runs XDP tests as if on the loopback of this network namespace.
const LOOPBACK: u32 = 1;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_UNSPEC: u32 = u32::MAX;
const TC_SHOT: u32 = 2;

/// Flows that leave the bound sensor's tagged frames to the gateway, take its IPv6 away, and what it sends from some ports; the first
/// that matches decides.
fn flows() -> Vec<Flow> {
    let local = [FlowAction::Output { port: port::LOCAL, max_len: 0 }];
    let sensor = SENSOR.iter().fold(0, |word, byte| word << 8 | u128::from(*byte));
    let mut from_ports = flow(3, &[(13, 0x4100)], &[]);
    // The high byte alone, in 10.0.0.0/8.
    from_ports.mask[31] = 0;
    (from_ports.value[48], from_ports.mask[48]) = (10, 0xff);
    let flows = [
        flow(1, &[(0, 1), (6, 0x102a), (10, 6), (14, 1883)], &local),
        flow(2, &[(4, sensor), (5, 0x86dd)], &[]),
        from_ports,
    ];
    (0..100).rev().zip(flows).map(|(priority, flow)| Flow { priority, ..flow }).collect()
}

struct Loaded {
    ebpf: Ebpf,
    kernel: Kernel,
    switch: Switch,
    _stages: Stages,
}

fn load(role_is_sensor: bool) -> Loaded {
    load_guarding(role_is_sensor, u32::from(role_is_sensor))
}

/// With so many sensor ports by the helper's own check of what it is told.
fn load_guarding(role_is_sensor: bool, sensor_ports: u32) -> Loaded {
    let mut ebpf = object::load(None).unwrap();
    object::load_sensor(&mut ebpf).unwrap();
    object::load_uplink(&mut ebpf).unwrap();
    let stages = stages::load(&mut ebpf).unwrap();
    let mut kernel = Kernel::open(&mut ebpf).unwrap();
    let mac = map::mac_word(GATEWAY);
    let addresses = [(1, IpAddr::from(OWN)), (1, IpAddr::from(OWN6))];
    kernel.set_ports(&[(LOOPBACK, [map::port_word(1, role_is_sensor), mac, mac, 0])], &addresses).unwrap();
    kernel.set_policy(&policy()).unwrap();
    let guard = Guard { sensor_ports, is_on: GUARDED };
    let switch = Switch::open(&mut ebpf, guard).unwrap();
    let mut loaded = Loaded { ebpf, kernel, switch, _stages: stages };
    loaded.put(flows());
    loaded
}

impl Loaded {
    fn put(&mut self, flows: Vec<Flow>) {
        self.change(flows.into_iter().map(Change::PutFlow).collect());
    }

    /// These and nothing else.
    fn change(&mut self, changes: Vec<Change>) {
        let changes: Vec<Change> = std::iter::once(Change::Clear).chain(changes).collect();
        assert!(self.switch.change(&mut Series::Closed, changes, false, 1).unwrap());
    }
}

/// What is done with a frame that table 0 has admitted.
fn narrowed(frame: &[u8]) -> Verdict {
    let mut parsed = Parsed { key: [0; 14], ..Parsed::default() };
    parsed.key[0] = u64::from(1u32) << 32;
    parse_switched(frame, &mut parsed);
    let hit = |flow: &Flow| {
        let (value, mask) = (words(&flow.value), words(&flow.mask));
        (0..value.len()).all(|word| (parsed.key[word] ^ value[word]) & mask[word] == 0)
    };
    match flows().into_iter().find(hit) {
        Some(flow) if flow.instructions.apply.is_empty() => Verdict::Rule,
        Some(_) | None => Verdict::Admitted,
    }
}

/// The same knowledge, without a kernel. What has a meter is let through: the test compares without it.
struct Known;

impl World for Known {
    fn is_own_mac(&mut self, mac: u64) -> bool {
        mac == map::mac_word(GATEWAY)
    }
    fn device(&mut self, mac: u64) -> Option<u32> {
        (mac == map::mac_word(SENSOR)).then_some(4)
    }
    fn is_open(&mut self, protocol: u8, port: u16) -> bool {
        (protocol, port) == (6, 1883)
    }
    fn is_own_address(&mut self, is_v6: bool, address: Address) -> bool {
        let v6 = OWN6.to_bits();
        let own6 = [v6 >> 64, v6 & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap());
        match is_v6 {
            false => address == Address::v4(OWN.to_bits()),
            true => [address.high, address.low] == own6,
        }
    }
    fn meter_device(&mut self, _device: u32) -> bool {
        true
    }
    fn meter_stranger(&mut self, _mac: u64) -> Verdict {
        Verdict::Discovery
    }
}

/// Discovery and what is above its meters are one here.
fn unmetered(verdict: &str) -> &str {
    if verdict.starts_with("meter_") { Verdict::Discovery.as_str() } else { verdict }
}

#[test]
fn arbitrary_frames_are_judged_in_the_kernel_as_in_user_space() {
    let Loaded { mut ebpf, kernel, switch: _switch, _stages } = load(true);
    let mut seeds = Vec::new();
    for source in [SENSOR, STRANGER] {
        seeds.extend(crafted(source, GATEWAY));
    }
    // More of what gets as far as the controller's tables, and of a source port that a rule takes away.
    for _ in 0..6 {
        let mut taken = publish(SENSOR);
        taken[34] = 0x41;
        seeds.extend([publish(SENSOR), taken]);
    }
    type Tally = BTreeMap<&'static str, u64>;
    let (mut kinds, mut verdicts): (Tally, Tally) = Default::default();
    // Random bytes put into, or cut from, frames that get far into the parser.
    let strategy =
        (0..seeds.len(), proptest::collection::vec((0usize..64, proptest::num::u8::ANY), 0..3), 14usize..200);
    let mut runner = TestRunner::new(Config { cases: 6000, failure_persistence: None, ..Config::default() });
    let outcome = RefCell::new((&mut ebpf, &mut kinds, &mut verdicts));
    runner
        .run(&strategy, |(seed, changes, length)| {
            let mut frame = seeds[seed].clone();
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(length);
            let (ebpf, kinds, verdicts) = &mut *outcome.borrow_mut();
            let headers = parse(frame.as_slice());
            let mut judgement = ingress(&headers, &mut Known);
            if judgement.verdict == Verdict::Admitted {
                judgement.verdict = narrowed(&frame);
            }
            *kinds.entry(headers.kind.as_str()).or_default() += 1;
            *verdicts.entry(judgement.verdict.as_str()).or_default() += 1;
            let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
            let action = object::sensor(ebpf).unwrap().test_run(options).unwrap().return_value;
            // What has a meter may be dropped for that.
            if judgement.verdict == Verdict::Discovery {
                assert!([XDP_DROP, XDP_PASS].contains(&action));
            } else {
                let wanted = if judgement.verdict.passes() { XDP_PASS } else { XDP_DROP };
                assert_eq!(action, wanted, "{judgement:?} {frame:x?}");
            }
            Ok(())
        })
        .unwrap();
    let counted = &kernel.counters(&[1]).unwrap().ports[0];
    let in_kernel = |words: &[caregate_protocol::datapath::Counted]| {
        let mut sums = BTreeMap::new();
        for counted in words {
            *sums.entry(unmetered(&counted.word).to_owned()).or_default() += counted.traffic.frames;
        }
        sums
    };
    let here = |tally: &Tally| -> BTreeMap<String, u64> {
        tally.iter().map(|(word, frames)| ((*word).to_owned(), *frames)).collect()
    };
    assert_eq!(in_kernel(&counted.kinds), here(&kinds));
    assert_eq!(in_kernel(&counted.verdicts), here(&verdicts));
    assert!(kinds.len() >= 26, "only {} of {} kinds were reached: {kinds:?}", kinds.len(), Kind::ALL.len());
    for verdict in ["admitted", "rule", "closed_port", "unbound_source", "discovery", "fragment", "malformed"]
    {
        assert!(verdicts.get(verdict).is_some_and(|frames| *frames > 20), "{verdict}: {verdicts:?}");
    }
}

/// Whatever an action list could do to a frame.
fn hostile() -> Vec<Vec<FlowAction>> {
    let output = |port| FlowAction::Output { port, max_len: 0xffff };
    let mac = FlowAction::SetField { field: 3, value: 7 };
    let ports = [1, 2, 3, port::IN_PORT, port::NORMAL, port::FLOOD, port::ALL, port::CONTROLLER, port::LOCAL];
    let alone = ports.into_iter().map(|number| vec![output(number)]);
    let edited = ports.into_iter().map(|number| vec![mac, output(number)]);
    let copied = ports
        .into_iter()
        .map(|number| vec![output(port::LOCAL), FlowAction::PushVlan(0x8100), output(number)]);
    let grouped = (1..=4).map(|id| vec![FlowAction::Group(id)]);
    let queued = vec![FlowAction::SetQueue(1), output(2)];
    let ended = vec![FlowAction::SetNwTtl(1), FlowAction::DecNwTtl, output(2)];
    alone.chain(edited).chain(copied).chain(grouped).chain([queued, ended]).collect()
}

/// The program itself lets a sensor's frame go to the gateway as it came, or nowhere: here nobody checks what the tables hold.
#[test]
fn whatever_tables_and_groups_hold_a_sensors_frame_goes_to_the_gateway_as_it_came_or_nowhere() {
    let mut loaded = load_guarding(true, 0);
    let mut punts = kernel::ring(&mut loaded.ebpf, PUNTS).unwrap();
    let out = |port| FlowAction::Output { port, max_len: 0 };
    let kinds = [GroupKind::All, GroupKind::Select, GroupKind::Indirect, GroupKind::FastFailover];
    let groups: Vec<_> = (1..)
        .zip(kinds)
        .map(|(id, kind)| {
            let bucket =
                GroupBucket { weight: 1, watch_port: 2, watch_group: u32::MAX, actions: vec![out(2)] };
            let buckets = vec![bucket; if kind == GroupKind::Indirect { 1 } else { 2 }];
            Change::PutGroup(GroupEntry { id, kind, buckets })
        })
        .collect();
    let band = MeterBand { kind: BandKind::DscpRemark(1), rate: 1, burst: 1 };
    let meter = Change::PutMeter(MeterEntry { id: 1, counts_packets: true, bands: vec![band] });
    loaded.switch.set_live(0b1111).unwrap();
    let mut frame = publish(SENSOR);
    // AF21, which the meter would write over.
    frame[15] = 18 << 2;
    let (mut passed, mut dropped) = (0, 0);
    for actions in hostile() {
        let plain = FlowInstructions { apply: actions.clone(), ..FlowInstructions::default() };
        let written = FlowInstructions { write: actions, ..FlowInstructions::default() };
        let metered = FlowInstructions { meter: Some(1), ..plain.clone() };
        for instructions in [plain, written, metered] {
            // By way of metadata and another table.
            let on =
                FlowInstructions { metadata: Some((7, 7)), goto: Some(2), ..FlowInstructions::default() };
            let first = Flow { instructions: on.into(), ..flow(1, &[], &[]) };
            let then = Flow { table: 2, instructions: instructions.into(), ..flow(2, &[(2, 7)], &[]) };
            let put = [first, then].into_iter().map(Change::PutFlow);
            loaded.change(groups.iter().cloned().chain([meter.clone()]).chain(put).collect());
            for _ in 0..3 {
                let mut after = vec![0; 256];
                let options = TestRunOptions {
                    data_in: Some(&frame),
                    data_out: Some(&mut after),
                    ..Default::default()
                };
                let ran = object::sensor(&mut loaded.ebpf).unwrap().test_run(options).unwrap();
                after.truncate(usize::try_from(ran.data_size_out).unwrap());
                assert!([XDP_DROP, XDP_PASS].contains(&ran.return_value), "{:?}", ran.return_value);
                assert_eq!(after, frame);
                assert!(punts.next().is_none(), "the daemon sees nothing of it");
                *if ran.return_value == XDP_PASS { &mut passed } else { &mut dropped } += 1;
            }
        }
    }
    assert!(passed > 0 && dropped > passed, "{passed} passed, {dropped} dropped");
}

#[test]
fn what_comes_in_by_no_port_is_dropped() {
    let Loaded { mut ebpf, mut kernel, .. } = load(true);
    kernel.set_ports(&[], &[]).unwrap();
    let frame = publish(SENSOR);
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
    let action = object::sensor(&mut ebpf).unwrap().test_run(options).unwrap().return_value;
    assert_eq!(action, XDP_DROP);
    assert_eq!(kernel.counters(&[0]).unwrap().ports[0].verdicts[0].word, "unknown_port");
}

/// Offsets in `struct __sk_buff`, and its length up to the last field that is set here.
const PRIORITY_AT: usize = 32;
const CAME_IN_BY_AT: usize = 36;
const CONTEXT_BYTES: usize = 192;

fn uplink(ebpf: &mut Ebpf, came_in_by: u32, frame: &[u8]) -> (u32, u32) {
    let mut context = [0; CONTEXT_BYTES];
    context[CAME_IN_BY_AT..][..4].copy_from_slice(&came_in_by.to_ne_bytes());
    let (mut after, mut out) = ([0; CONTEXT_BYTES], [0; 256]);
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ctx_out: Some(&mut after),
        ..TestRunOptions::default()
    };
    let action = object::uplink(ebpf).unwrap().test_run(options).unwrap().return_value;
    (action, u32::from_ne_bytes(*after[PRIORITY_AT..].first_chunk().unwrap()))
}

#[test]
fn a_queue_is_the_kernels_priority() {
    let mut loaded = load(false);
    let queued = [FlowAction::SetQueue(5), FlowAction::Output { port: port::NORMAL, max_len: 0 }];
    loaded.put(vec![flow(1, &[(0, port::LOCAL.into()), (5, 0x0800)], &queued)]);
    assert_eq!(uplink(&mut loaded.ebpf, 0, &publish(GATEWAY)), (TC_UNSPEC, 5));
    assert_eq!(uplink(&mut loaded.ebpf, 0, &arp(GATEWAY)), (TC_UNSPEC, 0));
}

#[test]
fn nothing_of_a_sensor_goes_out_by_an_uplink() {
    let Loaded { mut ebpf, kernel, .. } = load(true);
    assert_eq!(uplink(&mut ebpf, LOOPBACK, &publish(SENSOR)).0, TC_SHOT);
    assert_eq!(uplink(&mut ebpf, 77, &publish(SENSOR)).0, TC_UNSPEC, "what came in elsewhere is not judged");
    let verdicts = &kernel.counters(&[1]).unwrap().ports[0].verdicts;
    let words: Vec<_> =
        verdicts.iter().map(|counted| (counted.word.as_str(), counted.traffic.frames)).collect();
    assert_eq!(words, [("sensor_forwarded", 1), ("forwarded", 1)]);
}

/// Older kernels' verifiers follow the same paths; a million instructions is their limit.
#[test]
fn the_verifier_is_far_from_its_limit() {
    let Loaded { mut ebpf, .. } = load(true);
    let sensor = object::sensor(&mut ebpf).unwrap().info().unwrap().verified_instruction_count();
    let uplink = object::uplink(&mut ebpf).unwrap().info().unwrap().verified_instruction_count();
    for count in [sensor, uplink] {
        let count = count.expect("Linux 5.16 and later say so");
        assert!(count < 250_000, "{sensor:?} {uplink:?}");
    }
}
