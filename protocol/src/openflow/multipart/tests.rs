use super::super::group::{GroupDesc, GroupStats};
use super::super::meter::{MeterConfig, MeterStats};
use super::super::queue::QueueStats;
use super::super::{
    Action, Bucket, Experimenter, GroupType, Instruction, Lasted, Match, Message, TableFeatures,
    TableProperty, Text, port,
};
use super::*;

fn flows(count: u16) -> Vec<FlowStats> {
    let flow = |priority| FlowStats {
        table_id: 1,
        lasted: Lasted::default(),
        priority,
        idle_timeout_s: 0,
        hard_timeout_s: 0,
        flags: 0,
        cookie: 0,
        packets: 0,
        bytes: 0,
        pattern: Match::any().in_port(1).eth_src([2; 6]),
        instructions: vec![Instruction::ApplyActions(vec![Action::output(port::LOCAL)])],
    };
    (0..count).map(flow).collect()
}

#[test]
fn what_is_split_comes_together_again() {
    for count in [0, 1, 600, 700, 5000] {
        let parts = ReplyBody::Flow(flows(count)).split();
        let last = parts.len() - 1;
        let mut assembler = Assembler::new();
        for (at, part) in parts.into_iter().enumerate() {
            assert_eq!(part.more, at < last);
            let bytes = Message::MultipartReply(part).encode(7).unwrap();
            let (xid, Message::MultipartReply(part)) = Message::decode(&bytes).unwrap() else { panic!() };
            let whole = assembler.accept(xid, part).unwrap();
            assert_eq!(whole, (at == last).then(|| ReplyBody::Flow(flows(count))), "{count}");
        }
        assert!(assembler.pending.is_empty());
        assert_eq!(last > 0, count > 600, "{count}");
    }
}

#[test]
fn parts_are_bounded_in_number_and_kind() {
    let part = |more| MultipartReply { more, body: ReplyBody::Flow(flows(1)) };
    let mut assembler = Assembler::new();
    for _ in 0..REPLY_PARTS_MAX {
        assert_eq!(assembler.accept(1, part(true)), Ok(None));
    }
    assert_eq!(assembler.accept(1, part(true)), Err(AssemblyError::TooLong));
    assert!(assembler.pending.is_empty(), "what can't become whole is forgotten");
    for xid in 0..8 {
        assert_eq!(assembler.accept(xid, part(true)), Ok(None));
    }
    assert_eq!(assembler.accept(8, part(true)), Err(AssemblyError::TooMany));
    assert!(assembler.accept(9, part(false)).unwrap().is_some(), "a whole reply waits for nothing");
    let table = MultipartReply { more: false, body: ReplyBody::Table(vec![]) };
    assert_eq!(assembler.accept(3, table), Err(AssemblyError::Kind));
    assembler.forget(4);
    assert_eq!(assembler.pending.len(), 6);
}

/// Of each kind that is a list, more entries than one message holds.
#[test]
fn each_list_is_split_and_comes_together_again() {
    let bucket = Bucket::new(vec![Action::output(1); 100]);
    let desc = GroupDesc { group_type: GroupType::All, group_id: 1, buckets: vec![bucket] };
    let group = GroupStats {
        group_id: 1,
        ref_count: 0,
        packets: 0,
        bytes: 0,
        lasted: Lasted::default(),
        buckets: vec![],
    };
    let meter = MeterStats {
        meter_id: 1,
        flow_count: 0,
        packets_in: 0,
        bytes_in: 0,
        lasted: Lasted::default(),
        bands: vec![],
    };
    let config = MeterConfig { flags: 1, meter_id: 1, bands: vec![] };
    let properties = vec![TableProperty::NextTables { miss: false, tables: vec![3; 300] }];
    let features = TableFeatures {
        table_id: 1,
        name: Text::new("t"),
        metadata_match: 0,
        metadata_write: 0,
        config: 0,
        entries_max: 9,
        properties,
    };
    let foreign = |data| Experimenter { experimenter: 1, exp_type: 2, data };
    for whole in [
        ReplyBody::Table(vec![TableStats::default(); 5000]),
        ReplyBody::PortStats(vec![PortStats::default(); 5000]),
        ReplyBody::Queue(vec![QueueStats::default(); 5000]),
        ReplyBody::Group(vec![group; 5000]),
        ReplyBody::GroupDesc(vec![desc; 100]),
        ReplyBody::Meter(vec![meter; 5000]),
        ReplyBody::MeterConfig(vec![config; 9000]),
        ReplyBody::TableFeatures(vec![features; 255]),
    ] {
        let parts = whole.clone().split();
        assert!(parts.len() > 1);
        let mut assembler = Assembler::new();
        let mut came = None;
        for part in parts {
            let bytes = Message::MultipartReply(part).encode(7).unwrap();
            let (xid, Message::MultipartReply(part)) = Message::decode(&bytes).unwrap() else { panic!() };
            came = assembler.accept(xid, part).unwrap();
        }
        assert_eq!(came, Some(whole));
    }
    for (before, part, whole) in [
        (foreign(vec![1]), foreign(vec![2]), Ok(Some(ReplyBody::Experimenter(foreign(vec![1, 2]))))),
        (foreign(vec![1]), Experimenter { exp_type: 3, ..foreign(vec![2]) }, Err(AssemblyError::Kind)),
    ] {
        let mut assembler = Assembler::new();
        let before = MultipartReply { more: true, body: ReplyBody::Experimenter(before) };
        assert_eq!(assembler.accept(1, before), Ok(None));
        let part = MultipartReply { more: false, body: ReplyBody::Experimenter(part) };
        assert_eq!(assembler.accept(1, part), whole);
    }
}
