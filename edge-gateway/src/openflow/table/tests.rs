use caregate_protocol::openflow::BadAction;
use proptest::prelude::*;

use super::super::pattern::Field;
use super::super::treatment::{Action, Output};
use super::*;

const NOW: Duration = Duration::from_secs(1000);

fn table() -> FlowTable {
    FlowTable::new(Ports::new(vec![PortRole::Sensor, PortRole::Sensor, PortRole::Uplink], 4))
}

fn from_source(last: u8) -> Pattern {
    Pattern::any().with(Field::EthSrc, &[2, 0, 0, 0, 0, last], None).unwrap()
}

fn flow_mod(command: Command, priority: u16, pattern: Pattern) -> FlowMod {
    FlowMod {
        command,
        table_id: TABLE_CONTROLLER,
        cookie: 0,
        cookie_mask: 0,
        idle_timeout_s: 0,
        hard_timeout_s: 0,
        priority,
        buffer_id: NO_BUFFER,
        out_port: port::ANY,
        out_group: port::ANY,
        flags: flags::SEND_FLOW_REM,
        pattern,
        instructions: Vec::new(),
        actions: Vec::new(),
    }
}

fn local() -> Vec<Action> {
    vec![Action::Output { port: port::LOCAL, max_len: 0 }]
}

fn priorities(table: &FlowTable) -> Vec<u16> {
    table.flows().iter().map(|flow| flow.priority).collect()
}

fn refused(table: &mut FlowTable, change: &FlowMod) -> &'static str {
    let before = table.flows().to_vec();
    let kind = table.apply(change, NOW).unwrap_err();
    assert_eq!(table.flows(), before, "a refused flow-mod changes nothing");
    kind.as_str()
}

#[test]
fn a_sensor_is_quarantined_and_released() {
    let mut table = table();
    let add = flow_mod(Command::Add, 100, from_source(1));
    assert!(table.apply(&add, NOW).unwrap().changed);
    assert_eq!(table.flows()[0].treatment.output, Output::Drop);
    let release = FlowMod { command: Command::DeleteStrict, ..add };
    let outcome = table.apply(&release, NOW + Duration::from_secs(5)).unwrap();
    assert!(outcome.changed && table.flows().is_empty());
    assert_eq!(outcome.removed[0].reason, RemovedReason::Delete);
    assert_eq!(outcome.removed[0].lasted, Duration::from_secs(5));
    assert_eq!(table.apply(&release, NOW), Ok(Outcome::default()), "nothing to delete is no error");
}

#[test]
fn who_is_shut_out_can_be_told() {
    let mut table = table();
    let web = from_source(3).with(Field::EthType, &[8, 0], None).unwrap();
    for (priority, pattern, actions) in [
        (10, from_source(1), Vec::new()),
        (10, Pattern::any().with(Field::InPort, &[0, 0, 0, 1], None).unwrap(), Vec::new()),
        (20, from_source(2), local()),
        (10, from_source(2), Vec::new()),
        (10, web, Vec::new()),
    ] {
        let add = FlowMod { actions, ..flow_mod(Command::Add, priority, pattern) };
        table.apply(&add, NOW).unwrap();
    }
    let shut_out = super::super::quarantine::quarantined(table.flows());
    assert_eq!(shut_out.into_iter().map(|mac| mac.0[5]).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_is_not_the_controllers_is_refused() {
    let mut table = table();
    let add = flow_mod(Command::Add, 1, Pattern::any());
    table.apply(&add, NOW).unwrap();
    for command in
        [Command::Add, Command::Modify, Command::ModifyStrict, Command::Delete, Command::DeleteStrict]
    {
        let change = FlowMod { command, table_id: TABLE_POLICY, ..add.clone() };
        assert_eq!(refused(&mut table, &change), "OFPBRC_EPERM", "{command:?}");
        let change = FlowMod { command, table_id: 2, ..add.clone() };
        assert_eq!(refused(&mut table, &change), "OFPFMFC_BAD_TABLE_ID", "{command:?}");
    }
    let mirror = vec![local()[0], Action::Output { port: 3, max_len: 0 }];
    for command in [Command::Add, Command::Modify, Command::ModifyStrict] {
        let change = FlowMod { command, actions: mirror.clone(), ..add.clone() };
        assert_eq!(refused(&mut table, &change), "OFPBAC_EPERM", "{command:?}");
        let change = FlowMod { command, table_id: TABLE_ALL, ..add.clone() };
        assert_eq!(refused(&mut table, &change), "OFPFMFC_BAD_TABLE_ID", "{command:?}");
    }
    assert_eq!(refused(&mut table, &FlowMod { flags: 0x20, ..add.clone() }), "OFPFMFC_BAD_FLAGS");
    assert_eq!(refused(&mut table, &FlowMod { buffer_id: 7, ..add.clone() }), "OFPBRC_BUFFER_UNKNOWN");
    let delete_all = FlowMod { command: Command::Delete, table_id: TABLE_ALL, ..add };
    assert!(table.apply(&delete_all, NOW).unwrap().changed && table.flows().is_empty());
    for (number, code) in [(1, "OFPBRC_EPERM"), (port::FLOOD, "OFPBRC_EPERM"), (port::ALL, "OFPBRC_EPERM")]
        .into_iter()
        .chain([(0, "OFPBRC_BAD_PORT"), (4, "OFPBRC_BAD_PORT"), (port::LOCAL, "OFPBRC_BAD_PORT")])
    {
        assert_eq!(table.check_packet_out(number).unwrap_err().as_str(), code, "{number:#x}");
    }
    assert_eq!(table.check_packet_out(3), Ok(()));
}

#[test]
fn sixty_four_flows_and_no_more() {
    let mut table = table();
    for n in 0..64u8 {
        table.apply(&flow_mod(Command::Add, 1, from_source(n)), NOW).unwrap();
    }
    let one_more = flow_mod(Command::Add, 1, from_source(64));
    assert_eq!(refused(&mut table, &one_more), "OFPFMFC_TABLE_FULL");
    // One that replaces another needs no room.
    table.apply(&flow_mod(Command::Add, 1, from_source(5)), NOW).unwrap();
    assert_eq!(table.flows().len(), FLOWS_MAX);
}

#[test]
fn overlap_is_checked_where_it_is_asked_for() {
    let mut table = table();
    table.apply(&flow_mod(Command::Add, 5, from_source(1)), NOW).unwrap();
    let wide = FlowMod { flags: flags::CHECK_OVERLAP, ..flow_mod(Command::Add, 5, Pattern::any()) };
    assert_eq!(refused(&mut table, &wide), "OFPFMFC_OVERLAP");
    table.apply(&FlowMod { priority: 6, ..wide.clone() }, NOW).unwrap();
    table.apply(&FlowMod { flags: 0, ..wide }, NOW).unwrap();
    assert_eq!(priorities(&table), [6, 5, 5]);
}

#[test]
fn a_modify_keeps_cookie_and_counters_and_a_replacing_add_keeps_counters() {
    let mut table = table();
    let add = FlowMod { cookie: 7, ..flow_mod(Command::Add, 5, from_source(1)) };
    table.apply(&add, NOW).unwrap();
    let ten = Traffic { packets: 10, bytes: 1000 };
    table.observe(&[(table.flows()[0].id, ten)], NOW);
    let modify = FlowMod {
        command: Command::Modify,
        actions: local(),
        ..flow_mod(Command::Modify, 9, Pattern::any())
    };
    assert!(table.apply(&modify, NOW).unwrap().changed);
    let flow = &table.flows()[0];
    assert_eq!(
        (flow.cookie, flow.priority, flow.traffic(), flow.treatment.output),
        (7, 5, ten, Output::Local)
    );

    table.apply(&add, NOW + Duration::from_secs(1)).unwrap();
    assert_eq!(table.flows()[0].traffic(), ten);
    assert_eq!(table.flows()[0].added, NOW + Duration::from_secs(1));
    table.observe(&[(table.flows()[0].id, Traffic { packets: 3, bytes: 30 })], NOW);
    assert_eq!(table.flows()[0].traffic(), Traffic { packets: 13, bytes: 1030 });

    let reset = FlowMod { flags: flags::RESET_COUNTS, ..modify };
    table.apply(&reset, NOW).unwrap();
    assert_eq!(table.flows()[0].traffic(), Traffic::default());
    table.observe(&[(table.flows()[0].id, Traffic { packets: 4, bytes: 40 })], NOW);
    assert_eq!(table.flows()[0].traffic(), Traffic { packets: 1, bytes: 10 });
}

#[test]
fn a_modify_that_one_flow_refuses_changes_none() {
    let mut table = table();
    let gateway = Pattern::any().with(Field::InPort, &port::LOCAL.to_be_bytes(), None).unwrap();
    table.apply(&flow_mod(Command::Add, 9, from_source(1)), NOW).unwrap();
    table.apply(&flow_mod(Command::Add, 1, gateway), NOW).unwrap();
    let modify = FlowMod { actions: local(), ..flow_mod(Command::Modify, 0, Pattern::any()) };
    assert_eq!(refused(&mut table, &modify), ErrorKind::BadAction(BadAction::BadOutPort).as_str());
}

#[test]
fn deletes_look_at_cookie_port_and_group() {
    let mut table = table();
    for (n, actions) in [(0u8, Vec::new()), (1, local()), (2, local())] {
        let add = flow_mod(Command::Add, 1, from_source(n));
        table.apply(&FlowMod { cookie: u64::from(n), actions, ..add }, NOW).unwrap();
    }
    let delete = flow_mod(Command::Delete, 0, Pattern::any());
    let none = FlowMod { out_group: 1, ..delete.clone() };
    assert_eq!(table.apply(&none, NOW), Ok(Outcome::default()));
    let odd = FlowMod { cookie: 1, cookie_mask: 1, ..delete.clone() };
    assert_eq!(table.apply(&odd, NOW).unwrap().removed[0].flow.cookie, 1);
    let to_local = FlowMod { out_port: port::LOCAL, ..delete };
    assert_eq!(table.apply(&to_local, NOW).unwrap().removed[0].flow.cookie, 2);
    assert_eq!(table.flows().len(), 1);
}

#[test]
fn idle_and_hard_timeouts() {
    let second = Duration::from_secs(1);
    let mut table = table();
    let add = FlowMod { idle_timeout_s: 3, hard_timeout_s: 10, ..flow_mod(Command::Add, 1, from_source(1)) };
    table.apply(&add, NOW).unwrap();
    table.apply(&FlowMod { flags: 0, hard_timeout_s: 0, priority: 2, ..add }, NOW).unwrap();
    assert_eq!(table.next_timeout(), Some(NOW + 3 * second));
    let used = table.flows()[1].id;
    table.observe(&[(used, Traffic { packets: 1, bytes: 60 })], NOW + 2 * second);
    assert_eq!(table.expire(NOW + 2 * second), Outcome::default());
    let silent = table.expire(NOW + 3 * second);
    assert_eq!((silent.changed, silent.removed.len()), (true, 0), "it wanted no flow-removed");
    assert_eq!(table.next_timeout(), Some(NOW + 5 * second));
    for n in 2..6u32 {
        let traffic = Traffic { packets: u64::from(n), bytes: 0 };
        table.observe(&[(used, traffic)], NOW + n * 2 * second);
    }
    assert_eq!(table.next_timeout(), Some(NOW + 10 * second));
    assert_eq!(table.expire(NOW + 10 * second).removed[0].reason, RemovedReason::HardTimeout);
    assert_eq!(table.next_timeout(), None);
}

#[derive(Debug, Clone)]
struct Step {
    command: Command,
    priority: u16,
    source: Option<u8>,
    port: Option<u8>,
    cookie: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let command = prop_oneof![
        4 => Just(Command::Add),
        1 => Just(Command::Modify),
        1 => Just(Command::ModifyStrict),
        1 => Just(Command::Delete),
        1 => Just(Command::DeleteStrict),
    ];
    (command, 0..3u16, proptest::option::of(0..3u8), proptest::option::of(1..3u8), 0..3u64).prop_map(
        |(command, priority, source, port, cookie)| Step { command, priority, source, port, cookie },
    )
}

/// A flow of the naive reference: options where the table has masks.
#[derive(Debug, Clone, PartialEq)]
struct Naive {
    priority: u16,
    source: Option<u8>,
    port: Option<u8>,
    cookie: u64,
    local: bool,
}

fn naively(flows: &mut Vec<Naive>, step: &Step) {
    let within = |asked: Option<u8>, has: Option<u8>| asked.is_none() || asked == has;
    let same =
        |flow: &Naive| (flow.priority, flow.source, flow.port) == (step.priority, step.source, step.port);
    let part = |flow: &Naive| within(step.source, flow.source) && within(step.port, flow.port);
    let local = step.cookie == 1;
    match step.command {
        Command::Add => {
            flows.retain(|flow| !same(flow));
            let Step { priority, source, port, cookie, .. } = *step;
            flows.push(Naive { priority, source, port, cookie, local });
        }
        Command::Modify => flows.iter_mut().filter(|flow| part(flow)).for_each(|flow| flow.local = local),
        Command::ModifyStrict => {
            flows.iter_mut().filter(|flow| same(flow)).for_each(|flow| flow.local = local)
        }
        Command::Delete => flows.retain(|flow| !part(flow)),
        Command::DeleteStrict => flows.retain(|flow| !same(flow)),
    }
}

/// What a frame meets in the reference: the highest priority, of equals the one that was added first.
fn naive_verdict(flows: &[Naive], source: u8, port: u8) -> Option<(u64, bool)> {
    let hits = flows.iter().filter(|flow| {
        flow.source.is_none_or(|wanted| wanted == source) && flow.port.is_none_or(|wanted| wanted == port)
    });
    let best = hits.reduce(|best, flow| if flow.priority > best.priority { flow } else { best });
    best.map(|flow| (flow.cookie, flow.local))
}

fn pattern(source: Option<u8>, port: Option<u8>) -> Pattern {
    let mut pattern = source.map_or_else(Pattern::any, from_source);
    if let Some(port) = port {
        pattern = pattern.with(Field::InPort, &[0, 0, 0, port], None).unwrap();
    }
    pattern
}

proptest! {
    #[test]
    fn frames_meet_what_a_naive_table_says(steps in proptest::collection::vec(step(), 0..40)) {
        let (mut table, mut reference) = (table(), Vec::new());
        for step in &steps {
            let actions = if step.cookie == 1 { local() } else { Vec::new() };
            let change = FlowMod {
                cookie: step.cookie,
                actions,
                ..flow_mod(step.command, step.priority, pattern(step.source, step.port))
            };
            table.apply(&change, NOW).unwrap();
            naively(&mut reference, step);
            prop_assert_eq!(table.flows().len(), reference.len());
            for (source, port) in (0..3).flat_map(|source| (1..3).map(move |port| (source, port))) {
                let frame = *pattern(Some(source), Some(port)).key().0;
                let hit = table.flows().iter().find(|flow| flow.pattern.matches(&frame));
                let verdict = hit.map(|flow| (flow.cookie, flow.treatment.output == Output::Local));
                prop_assert_eq!(verdict, naive_verdict(&reference, source, port));
            }
        }
    }
}
