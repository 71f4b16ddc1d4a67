//! The programs of switch ports, loaded and driven frame by frame (`BPF_PROG_TEST_RUN`), with the tables that a test gives them.

#![expect(clippy::unwrap_used, reason = "what a test can't set up fails it")]

pub(crate) mod frames;
pub(crate) mod reference;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{TestRun, TestRunOptions};
use caregate_datapathd::at_once::AtOnce;
use caregate_datapathd::switch::blobs::Blobs;
use caregate_datapathd::switch::build::{self, Chosen};
use caregate_datapathd::switch::check::Guard;
use caregate_datapathd::switch::mirror::Mirror;
use caregate_datapathd::switch::places::{Numbers, Places};
use caregate_datapathd::{object, stages};
use caregate_ebpf_common::Verdict;
use caregate_ebpf_common::map::{PORTS, VERDICTS};
use caregate_ebpf_common::switch::map::{self, Punt};
use caregate_ebpf_common::switch::place;
use caregate_protocol::datapath::switch::{Change, FlowAction, FlowEntry, FlowInstructions, MATCH_BYTES};

/// The kernel runs XDP tests as if on the loopback of this network namespace.
const LOOPBACK: u32 = 1;
/// The port that frames come in by.
pub(crate) const IN_PORT: u32 = 1;

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Dropped,
    /// `LOCAL` and `NORMAL`.
    Passed(Vec<u8>),
    /// `IN_PORT`
    Returned(Vec<u8>),
    /// To another port; which one the map of devices decides, where only one test's port is.
    Sent(Vec<u8>),
    /// To the slow path, with the copy that the gateway's stack was given.
    Punted(Option<Vec<u8>>),
}

/// A match field, its value and its mask.
pub(crate) type Field = (u8, u128, u128);

/// All bits of a field.
pub(crate) const ALL: u128 = u128::MAX;

/// What a field needs to be asked for (OpenFlow 1.3.5, table 12).
pub(crate) fn prerequisites(oxm: u8) -> Vec<Vec<Field>> {
    let ether = |value: u128| (5, value, ALL);
    let (v4, v6) = (ether(0x0800), ether(0x86dd));
    let over = |protocol: u128| vec![vec![v4, (10, protocol, ALL)], vec![v6, (10, protocol, ALL)]];
    match oxm {
        7 => vec![vec![(6, 0x1000, 0x1000)]],
        8..=10 => vec![vec![v4], vec![v6]],
        11 | 12 => vec![vec![v4]],
        13 | 14 => over(6),
        15 | 16 => over(17),
        17 | 18 => over(132),
        19 | 20 => vec![vec![v4, (10, 1, ALL)]],
        21..=25 => vec![vec![ether(0x0806)]],
        26..=28 | 39 => vec![vec![v6]],
        29 | 30 => vec![vec![v6, (10, 58, ALL)]],
        31 => vec![vec![v6, (10, 58, ALL), (29, 135, ALL)], vec![v6, (10, 58, ALL), (29, 136, ALL)]],
        32 => vec![vec![v6, (10, 58, ALL), (29, 135, ALL)]],
        33 => vec![vec![v6, (10, 58, ALL), (29, 136, ALL)]],
        34..=36 => vec![vec![ether(0x8847)], vec![ether(0x8848)]],
        _ => vec![vec![]],
    }
}

/// A flow with these fields.
pub(crate) fn flow(
    id: u64,
    table: u8,
    priority: u16,
    fields: &[Field],
    instructions: FlowInstructions,
) -> FlowEntry {
    let (mut value, mut mask) = ([0; MATCH_BYTES], [0; MATCH_BYTES]);
    for (oxm, field, bits) in fields {
        let place = place(*oxm).unwrap();
        let width = if place.bits == 128 { u128::MAX } else { (1 << place.bits) - 1 };
        let bits = bits & width;
        for (bytes, whole) in [(&mut value, field & bits), (&mut mask, bits)] {
            for (at, byte) in (whole << place.shift).to_be_bytes()[16 - place.bytes..].iter().enumerate() {
                bytes[place.byte + at] |= byte;
            }
        }
    }
    FlowEntry { id, table, priority, value, mask, instructions: instructions.into() }
}

/// To apply these.
pub(crate) fn apply(actions: &[FlowAction]) -> FlowInstructions {
    FlowInstructions { apply: actions.to_vec(), ..FlowInstructions::default() }
}

pub(crate) const fn output(port: u32) -> FlowAction {
    FlowAction::Output { port, max_len: 0xffff }
}

pub(crate) const fn set(field: u8, value: u128) -> FlowAction {
    FlowAction::SetField { field, value }
}

pub(crate) struct Rig {
    pub(crate) ebpf: Ebpf,
    /// Kept, or the kernel empties it.
    _stages: stages::Stages,
    blobs: Blobs,
    state: Array<MapData, u64>,
    ports: HashMap<MapData, u32, [u64; 4]>,
    flows: PerCpuArray<MapData, [u64; 2]>,
    tables: PerCpuArray<MapData, [u64; 2]>,
    at_once: AtOnce,
    verdicts: PerCpuArray<MapData, [u64; 2]>,
    groups: PerCpuArray<MapData, [u64; 2]>,
    buckets: PerCpuArray<MapData, [u64; 2]>,
    meters: PerCpuArray<MapData, [u64; 2]>,
    punts: RingBuf<MapData>,
    /// Of the frame that was punted last.
    pub(crate) remarks: u32,
    mirror: Mirror,
    pub(crate) places: Places,
    chosen: [Chosen; 2],
    epoch: u64,
}

fn counter(ebpf: &mut Ebpf, name: &str) -> PerCpuArray<MapData, [u64; 2]> {
    ebpf.take_map(name).unwrap().try_into().unwrap()
}

fn sum(map: &PerCpuArray<MapData, [u64; 2]>, index: u32) -> [u64; 2] {
    map.get(&index, 0).unwrap().iter().fold([0, 0], |sum, of_cpu| [sum[0] + of_cpu[0], sum[1] + of_cpu[1]])
}

impl Rig {
    /// With the loopback as port 1, and ports 2 and 3 that frames are sent to.
    pub(crate) fn new() -> Self {
        let mut ebpf = object::load(None).expect("needs root");
        let stages = stages::load(&mut ebpf).unwrap();
        let Some(Map::Array(blobs)) = ebpf.take_map(map::BLOBS) else { panic!("no array of blobs") };
        let mut ports: HashMap<_, _, _> = ebpf.take_map(PORTS).unwrap().try_into().unwrap();
        ports.insert(LOOPBACK, [u64::from(IN_PORT), 0, 0, 0], 0).unwrap();
        let devices = ebpf.take_map(map::DEVICES_OUT).unwrap();
        let mut devices: aya::maps::xdp::DevMap<_> = devices.try_into().unwrap();
        for port in [2, 3] {
            devices.set(port, LOOPBACK, None, 0).unwrap();
        }
        let mut rig = Self {
            _stages: stages,
            blobs: Blobs::map(blobs.fd()).unwrap(),
            state: ebpf.take_map(map::STATE).unwrap().try_into().unwrap(),
            ports,
            flows: counter(&mut ebpf, map::FLOW_COUNTERS),
            tables: counter(&mut ebpf, map::TABLE_COUNTERS),
            at_once: AtOnce::open(&ebpf).unwrap(),
            verdicts: counter(&mut ebpf, VERDICTS),
            groups: counter(&mut ebpf, map::GROUP_COUNTERS),
            buckets: counter(&mut ebpf, map::BUCKET_COUNTERS),
            meters: counter(&mut ebpf, map::METER_COUNTERS),
            punts: ebpf.take_map(map::PUNTS).unwrap().try_into().unwrap(),
            remarks: 0,
            mirror: Mirror::default(),
            places: Places::default(),
            chosen: [Chosen::default(), Chosen::default()],
            epoch: 0,
            ebpf,
        };
        rig.live(&[1, 2, 3]);
        rig
    }

    /// Puts changes in force.
    pub(crate) fn change(&mut self, changes: Vec<Change>) {
        let guard = Guard { sensor_ports: 0, is_on: false };
        for change in &changes {
            self.mirror.apply(change.clone(), &guard).unwrap();
        }
        self.mirror.check_references(&guard).unwrap();
        let (places, _fresh) = self.places.next(&self.mirror).unwrap();
        self.epoch += 1;
        let chosen = &mut self.chosen[usize::try_from(self.epoch & 1).unwrap()];
        let words = self.blobs.copy_mut(self.epoch);
        build::write(&self.mirror, &places, &Numbers::default(), chosen, words).unwrap();
        self.places = places;
        self.state.set(map::STATE_TABLES, map::tables_word(self.epoch, 0), 0).unwrap();
    }

    /// These flows and no others.
    pub(crate) fn flows(&mut self, flows: Vec<FlowEntry>) {
        let changes = std::iter::once(Change::Clear).chain(flows.into_iter().map(Change::PutFlow)).collect();
        self.change(changes);
    }

    /// Which ports are live.
    pub(crate) fn live(&mut self, ports: &[u32]) {
        let bits = ports.iter().fold(0u64, |bits, port| bits | 1 << port);
        self.state.set(map::STATE_LIVE, bits, 0).unwrap();
    }

    /// The number of the port that frames come in by.
    pub(crate) fn come_in_by(&mut self, port: u32) {
        self.ports.insert(LOOPBACK, [u64::from(port), 0, 0, 0], 0).unwrap();
    }

    /// Sends a frame in.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Fate {
        // The kernel writes as much as the frame is long by then.
        let mut out = vec![0; 2048];
        let mut options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        options.data_out = Some(&mut out);
        let result = stages::enter(&mut self.ebpf).unwrap().test_run(options).unwrap();
        let length = usize::try_from(result.data_size_out).unwrap();
        out.truncate(length);
        let punt = self.punts.next().map(|entry| {
            let punted = Punt::read(&entry).unwrap();
            assert_eq!(punted.frame, frame, "a punted frame is as it came");
            assert_eq!(usize::try_from(punted.total_len).unwrap(), frame.len());
            (punted.remarks, punted.is_handed)
        });
        self.remarks = punt.map_or(0, |(remarks, _)| remarks);
        match (result.return_value, punt) {
            (1, None) => Fate::Dropped,
            (1, Some((_, false))) => Fate::Punted(None),
            (2, Some((_, true))) => Fate::Punted(Some(out)),
            (2, None) => Fate::Passed(out),
            (3, None) => Fate::Returned(out),
            (4, None) => Fate::Sent(out),
            other => panic!("{other:?}"),
        }
    }

    /// Frames and bytes of a flow.
    pub(crate) fn counted(&self, flow: u64) -> [u64; 2] {
        sum(&self.flows, self.places.flows[&flow])
    }

    /// Lookups and matches of a table.
    pub(crate) fn table(&self, number: u32) -> [u64; 2] {
        let at_once = self.at_once.table(u8::try_from(number).unwrap()).unwrap();
        let [lookups, matched] = sum(&self.tables, number);
        [lookups + at_once.lookups, matched + at_once.matched]
    }

    /// Frames and bytes that came in by [`IN_PORT`] and were sent at once.
    pub(crate) fn at_once(&self, verdict: Verdict) -> [u64; 2] {
        let all = self.at_once.verdicts(IN_PORT).unwrap();
        let (_, traffic) = all.into_iter().find(|(of, _)| *of == verdict).unwrap();
        [traffic.frames, traffic.bytes]
    }

    /// All frames and bytes that came in by [`IN_PORT`], by verdict.
    pub(crate) fn verdict(&self, verdict: Verdict) -> [u64; 2] {
        let otherwise = sum(&self.verdicts, IN_PORT * Verdict::COUNT + verdict as u32);
        let at_once = self.at_once(verdict);
        [otherwise[0] + at_once[0], otherwise[1] + at_once[1]]
    }

    pub(crate) fn group(&self, place: u32) -> [u64; 2] {
        sum(&self.groups, place)
    }

    pub(crate) fn bucket(&self, place: u32) -> [u64; 2] {
        sum(&self.buckets, place)
    }

    pub(crate) fn meter(&self, counter: u32) -> [u64; 2] {
        sum(&self.meters, counter)
    }
}
