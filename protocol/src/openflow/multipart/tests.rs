use super::super::{Action, Instruction, Lasted, Match, Message, port};
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
