use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn request(request: Request) -> ToHelper {
    ToHelper { number: 7, request }
}

fn reply(result: Result<Reply, Refused>) -> FromHelper {
    FromHelper::Reply { number: 7, result }
}

fn policy() -> Policy {
    Policy {
        devices: vec![Device { index: 0, mac: [2, 0, 0, 0, 0, 1] }, Device { index: 255, mac: [2; 6] }],
        ports: vec![OpenPort { protocol: 6, port: 1883 }],
        floor: vec![
            Floor { protocol: 17, address: "192.0.2.10".parse().unwrap(), port: 4433 },
            Floor { protocol: 6, address: "2001:db8::1".parse().unwrap(), port: 6653 },
        ],
    }
}

fn port() -> Port {
    Port {
        number: 1,
        name: "eth1".into(),
        mac: [2, 0, 0, 0, 0, 9],
        role: Role::Sensor,
        mode: Mode::Native,
        up: true,
    }
}

fn switch_counters(n: usize) -> SwitchCounters {
    use switch::{FlowCounters, GroupCounters, MeterCounters, TableCounters};
    let traffic = Traffic { frames: u64::MAX, bytes: u64::MAX };
    SwitchCounters {
        tables: vec![TableCounters { lookups: u64::MAX, matched: 1 }; 8],
        flows: vec![FlowCounters { id: u64::MAX, traffic }; n],
        groups: vec![GroupCounters { id: 9, traffic, buckets: vec![traffic; 2] }; n.min(switch::GROUPS_MAX)],
        meters: vec![MeterCounters { id: 5, traffic, bands: vec![traffic] }; n.min(switch::METERS_MAX)],
    }
}

fn counters() -> Counters {
    let traffic = Traffic { frames: 3, bytes: 180 };
    let counted = |word: &str| vec![Counted { word: word.into(), traffic }];
    Counters {
        ports: vec![
            PortCounters { number: 1, kinds: counted("arp"), verdicts: counted("discovery"), ..none() },
            PortCounters { number: 2, queues: vec![traffic; 8], link: Some(link()), ..none() },
        ],
        devices: vec![DeviceCounters { index: 4, passed: traffic, dropped: Traffic::default() }],
    }
}

fn none() -> PortCounters {
    PortCounters::default()
}

fn link() -> LinkCounters {
    let traffic = |frames| Traffic { frames, bytes: 60 * frames };
    LinkCounters {
        rx: traffic(1),
        tx: traffic(2),
        rx_errors: 3,
        tx_errors: 4,
        rx_dropped: 5,
        tx_dropped: 6,
        collisions: 7,
        rx_over_errors: 8,
        rx_crc_errors: 9,
        rx_frame_errors: u64::MAX,
    }
}

fn changes() -> Vec<Change> {
    use switch::{
        BandKind, FlowAction, FlowEntry, FlowInstructions, GroupBucket, GroupEntry, GroupKind, MeterBand,
        MeterEntry,
    };
    let apply = vec![
        FlowAction::Output { port: 3, max_len: 0 },
        FlowAction::Group(9),
        FlowAction::SetQueue(2),
        FlowAction::PushVlan(0x8100),
        FlowAction::PopVlan,
        FlowAction::PushMpls(0x8847),
        FlowAction::PopMpls(0x0800),
        FlowAction::CopyTtlOut,
        FlowAction::CopyTtlIn,
        FlowAction::SetMplsTtl(64),
        FlowAction::DecMplsTtl,
        FlowAction::SetNwTtl(255),
        FlowAction::DecNwTtl,
        FlowAction::SetField { field: 26, value: u128::MAX },
    ];
    let flow = FlowEntry {
        id: 1 << 40,
        table: 7,
        priority: 65535,
        value: std::array::from_fn(|at| if at / 8 % 5 == 1 { 7 } else { 0 }),
        mask: std::array::from_fn(|at| if at / 8 % 5 == 0 { 0 } else { 0xff }),
        instructions: Arc::new(FlowInstructions {
            meter: Some(5),
            write: vec![FlowAction::Output { port: 0xffff_fffd, max_len: 0xffff }],
            apply,
            clear: true,
            metadata: Some((1, u64::MAX)),
            goto: None,
        }),
    };
    let instructions = Arc::new(FlowInstructions { goto: Some(1), ..Default::default() });
    let plain = FlowEntry { instructions, value: [0; 112], mask: [0xff; switch::MATCH_BYTES], ..flow };
    let bucket = GroupBucket { weight: 1, watch_port: 2, watch_group: u32::MAX, actions: Vec::new() };
    let band = MeterBand { kind: BandKind::DscpRemark(1), rate: 1000, burst: 0 };
    vec![
        Change::Clear,
        Change::PutFlow(flow),
        Change::PutFlow(plain),
        Change::RemoveFlow(4),
        Change::PutGroup(GroupEntry { id: 9, kind: GroupKind::FastFailover, buckets: vec![bucket] }),
        Change::RemoveGroup(9),
        Change::PutMeter(MeterEntry {
            id: 5,
            counts_packets: true,
            bands: vec![band, MeterBand { kind: BandKind::Drop, ..band }],
        }),
        Change::RemoveMeter(5),
    ]
}

fn requests() -> Vec<ToHelper> {
    vec![
        request(Request::Hello { version: VERSION, session: u64::MAX }),
        request(Request::SetPolicy(policy())),
        request(Request::SetPolicy(Policy::default())),
        request(Request::Counters),
        request(Request::PacketOuts(vec![
            PacketOut { port: 2, queue: 0, frame: vec![0xff; 60] },
            PacketOut { port: u32::MAX, queue: QUEUES - 1, frame: Vec::new() },
        ])),
        request(Request::PacketOuts(Vec::new())),
        request(Request::PacketSocket { port: 1 }),
        request(Request::Change { changes: changes(), more: true }),
        request(Request::SwitchCounters),
    ]
}

fn answers() -> Vec<FromHelper> {
    vec![
        reply(Ok(Reply::Done)),
        reply(Ok(Reply::Welcome(Welcome { version: VERSION, queues: QUEUES, ports: vec![port()] }))),
        reply(Ok(Reply::Counters(counters()))),
        reply(Ok(Reply::Socket)),
        reply(Err(Refused { reason: Reason::SensorPort, detail: "port 1 leads to sensors".into() })),
        FromHelper::Event(Event::PacketIn { uplink: 2, rule: 300, total_len: 1514, frame: vec![1; 128] }),
        FromHelper::Event(Event::PortStatus(port())),
        FromHelper::Event(Event::Punt(Punt {
            in_port: 3,
            before: 8,
            total_len: 60,
            remarks: [0, 3, 0, 0, 0, 1, 0, 2],
            is_handed: true,
            frame: vec![7; 60],
        })),
        reply(Ok(Reply::PacketOuts(vec![None, Some(Reason::Port), None, Some(Reason::Kernel)]))),
        reply(Ok(Reply::SwitchCounters(switch_counters(1)))),
    ]
}

#[test]
fn frames_are_read_as_they_were_written() {
    for wanted in requests() {
        let bytes = wanted.encode();
        assert_eq!(frame_length(*bytes.first_chunk().unwrap()), Ok(bytes.len() - 4));
        assert_eq!(ToHelper::decode(&bytes[4..]), Ok(wanted));
    }
    for wanted in answers() {
        let bytes = wanted.encode();
        assert_eq!(FromHelper::decode(&bytes[4..]), Ok(wanted));
    }
}

#[test]
fn golden_bytes() {
    let hello = request(Request::Hello { version: 1, session: 258 }).encode();
    assert_eq!(hex::encode(hello), "0000000784010701190102");
    let done = reply(Ok(Reply::Done)).encode();
    assert_eq!(hex::encode(done), "0000000482182007");
    let small = Policy {
        devices: vec![Device { index: 1, mac: [2, 0, 0, 0, 0, 1] }],
        ports: vec![OpenPort { protocol: 6, port: 1883 }],
        floor: vec![Floor { protocol: 17, address: "10.0.0.1".parse().unwrap(), port: 4433 }],
    };
    let bytes = request(Request::SetPolicy(small)).encode();
    assert_eq!(
        hex::encode(bytes),
        "0000 001e 85 02 07 81 82 01 46 020000000001 81 82 06 19075b 81 83 11 44 0a000001 191151"
            .replace(' ', "")
    );
}

#[test]
fn bounds_and_meanings() {
    assert_eq!(frame_length([0; 4]), Err(FrameError::Length(0)));
    assert_eq!(frame_length([1, 0, 0, 0]), Err(FrameError::Length(1 << 24)));
    assert_eq!(ToHelper::decode(&[0x82, 9, 0]), Err(FrameError::Type(9)));
    assert_eq!(ToHelper::decode(&[0x82, 1, 0]), Err(FrameError::Type(1)));
    assert_eq!(ToHelper::decode(&[0x82, 4, 0, 0]).unwrap_err().reason(), "trailing");
    let decode = |wanted: Request| ToHelper::decode(&request(wanted).encode()[4..]).unwrap_err();
    let open = OpenPort { protocol: 1, port: 1 };
    let wrong = Policy { ports: vec![open], ..Policy::default() };
    assert_eq!(decode(Request::SetPolicy(wrong)), FrameError::Value { field: "protocol", value: 1 });
    let device = Device { index: 256, mac: [2; 6] };
    let wrong = Policy { devices: vec![device], ..Policy::default() };
    assert_eq!(decode(Request::SetPolicy(wrong)), FrameError::Value { field: "index", value: 256 });
    let changes = vec![Change::Clear; switch::CHANGES_MAX + 1];
    assert_eq!(decode(Request::Change { changes, more: false }).reason(), "too_many");
    let packet = |queue, bytes| PacketOut { port: 2, queue, frame: vec![0; bytes] };
    let long = Request::PacketOuts(vec![packet(0, PACKET_BYTES_MAX + 1)]);
    assert_eq!(decode(long).reason(), "too_many");
    assert_eq!(decode(Request::PacketOuts(vec![packet(0, 14); PACKET_OUTS_MAX + 1])).reason(), "too_many");
    let wrong = FrameError::Value { field: "queue", value: QUEUES.into() };
    assert_eq!(decode(Request::PacketOuts(vec![packet(QUEUES, 14)])), wrong);
    // An event that pretends to be a reply.
    assert_eq!(
        FromHelper::decode(&[0x86, 0x18, 64, 5, 2, 1, 1, 0x40]),
        Err(FrameError::Value { field: "number", value: 5 })
    );
}

#[test]
fn a_long_explanation_is_cut_and_the_largest_counters_fit() {
    let refused = Refused { reason: Reason::Kernel, detail: "é".repeat(DETAIL_BYTES_MAX) };
    let bytes = reply(Err(refused)).encode();
    let Ok(FromHelper::Reply { result: Err(read), .. }) = FromHelper::decode(&bytes[4..]) else { panic!() };
    assert_eq!(read.detail, "é".repeat(DETAIL_BYTES_MAX / 2));

    let traffic = Traffic { frames: u64::MAX, bytes: u64::MAX };
    let words = |n: usize| vec![Counted { word: "x".repeat(20), traffic }; n];
    let ports = (1..=16).map(|number| {
        let (queues, link) = (vec![traffic; QUEUES as usize], Some(link()));
        PortCounters { number, kinds: words(32), verdicts: words(64), queues, link }
    });
    let devices = (0..256).map(|index| DeviceCounters { index, passed: traffic, dropped: traffic });
    let largest = Counters { ports: ports.collect(), devices: devices.collect() };
    let bytes = reply(Ok(Reply::Counters(largest))).encode();
    assert!(bytes.len() < FRAME_BYTES_MAX, "{}", bytes.len());
    let mut largest = switch_counters(switch::FLOWS_MAX);
    largest.groups.iter_mut().for_each(|group| group.buckets = vec![traffic; switch::BUCKETS_MAX]);
    largest.meters.iter_mut().for_each(|meter| meter.bands = vec![traffic; switch::BANDS_MAX]);
    let bytes = reply(Ok(Reply::SwitchCounters(largest))).encode();
    assert!(bytes.len() < FRAME_BYTES_MAX, "{}", bytes.len());
    let mut flow = changes().swap_remove(1);
    if let Change::PutFlow(flow) = &mut flow {
        let longest = switch::FlowAction::SetField { field: 26, value: u128::MAX };
        (flow.value, flow.mask) = ([0xff; switch::MATCH_BYTES], [0xff; switch::MATCH_BYTES]);
        let instructions = Arc::make_mut(&mut flow.instructions);
        instructions.apply = vec![longest; switch::ACTIONS_MAX];
        instructions.write = vec![longest; switch::ACTIONS_MAX];
    }
    let longest = request(Request::Change { changes: vec![flow; switch::CHANGES_MAX], more: false });
    assert!(longest.encode().len() < FRAME_BYTES_MAX, "{}", longest.encode().len());
    let packet = PacketOut { port: u32::MAX, queue: QUEUES - 1, frame: vec![0; PACKET_BYTES_MAX] };
    let longest = request(Request::PacketOuts(vec![packet; PACKET_OUTS_MAX]));
    assert!(longest.encode().len() < FRAME_BYTES_MAX, "{}", longest.encode().len());
}

#[test]
fn a_match_has_each_word_that_it_says_and_no_other() {
    let frame = |there: u16, words: &[u8]| {
        let mut body = Vec::new();
        let mut out = minicbor::Encoder::new(&mut body);
        out.array(4).unwrap().u8(7).unwrap().u32(7).unwrap().bool(false).unwrap().array(1).unwrap();
        out.array(9).unwrap().u8(1).unwrap().u64(1).unwrap().u8(1).unwrap().u16(1).unwrap();
        out.u16(there).unwrap().bytes(words).unwrap().u16(0).unwrap().bytes(&[]).unwrap();
        out.array(6).unwrap().null().unwrap().array(0).unwrap().bool(false).unwrap().array(0).unwrap();
        out.array(0).unwrap().null().unwrap();
        ToHelper::decode(&body)
    };
    let request = frame(1 << 13 | 1, &[[1; 8], [2; 8]].concat()).unwrap().request;
    let Request::Change { changes, .. } = request else { panic!("{request:?}") };
    let Some(Change::PutFlow(flow)) = changes.first() else { panic!("{changes:?}") };
    assert_eq!(
        (&flow.value[..8], &flow.value[8..104], &flow.value[104..]),
        (&[1; 8][..], &[0; 96][..], &[2; 8][..])
    );
    assert_eq!(flow.mask, [0; switch::MATCH_BYTES]);
    for (there, words) in [(1 << 14, 8), (1, 0), (1, 7), (1, 9), (1, 16), (3, 8), (0, 8)] {
        let refused = frame(there, &[1; 16][..words]);
        assert!(
            matches!(refused, Err(FrameError::Value { field: "value", .. })),
            "{there}, {words}: {refused:?}"
        );
    }
}

#[test]
fn flows_that_do_the_same_share_what_they_do() {
    use switch::{FlowEntry, FlowInstructions, SharedInstructions};

    let goto = |table| FlowInstructions { goto: Some(table), ..FlowInstructions::default() };
    let mut shared = SharedInstructions::default();
    let (first, other) = (shared.share(goto(1)), shared.share(goto(2)));
    assert!(Arc::ptr_eq(&shared.share(goto(1)), &first) && Arc::ptr_eq(&shared.share(goto(2)), &other));
    for table in 3..6 {
        assert_eq!(*shared.share(goto(table)), goto(table));
    }
    assert_eq!(*shared.share(goto(1)), goto(1));
    assert!(!Arc::ptr_eq(&shared.share(goto(1)), &first), "what was met long ago is forgotten");

    let flow = |id, table| {
        let (value, mask) = ([0; switch::MATCH_BYTES], [0; switch::MATCH_BYTES]);
        Change::PutFlow(FlowEntry {
            id,
            table: 0,
            priority: 1,
            value,
            mask,
            instructions: goto(table).into(),
        })
    };
    let changes = vec![flow(1, 1), flow(2, 2), flow(3, 1)];
    let frame = ToHelper::encode_changes(7, &changes, true);
    let read = ToHelper::decode(&frame[4..]).unwrap();
    assert_eq!(read, request(Request::Change { changes, more: true }), "as any other frame");
    let Request::Change { changes, .. } = read.request else { panic!("changes") };
    let of = |at: usize| {
        let Change::PutFlow(flow) = &changes[at] else { panic!("{:?}", changes[at]) };
        &flow.instructions
    };
    assert!(Arc::ptr_eq(of(0), of(2)) && !Arc::ptr_eq(of(0), of(1)));
}

#[test]
fn a_stream_gives_the_same_frames_in_any_pieces() {
    let stream: Vec<u8> = requests().iter().flat_map(ToHelper::encode).collect();
    for piece in [1, 3, 64, stream.len()] {
        let mut framer = Framer::new();
        let mut frames = Vec::new();
        for bytes in stream.chunks(piece) {
            framer.push(bytes);
            while let Some(frame) = framer.next_frame().unwrap() {
                frames.push(ToHelper::decode(&frame).unwrap());
            }
        }
        assert_eq!(frames, requests());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(frame) = ToHelper::decode(&bytes) {
            prop_assert_eq!(ToHelper::decode(&frame.encode()[4..]), Ok(frame));
        }
        if let Ok(frame) = FromHelper::decode(&bytes) {
            prop_assert_eq!(FromHelper::decode(&frame.encode()[4..]), Ok(frame));
        }
    }

    #[test]
    fn changed_bytes_never_panic(which: prop::sample::Index, at in 0..600usize, byte: u8) {
        let mut bytes = which.get(&requests()).encode();
        let place = 4 + at % (bytes.len() - 4);
        bytes[place] = byte;
        if let Ok(frame) = ToHelper::decode(&bytes[4..]) {
            prop_assert_eq!(ToHelper::decode(&frame.encode()[4..]), Ok(frame));
        }
    }
}
