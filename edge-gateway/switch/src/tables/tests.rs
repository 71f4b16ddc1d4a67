//! Flow-mods, group-mods and meter-mods against the tables.

use caregate_protocol::datapath::switch::{BANDS_MAX, BUCKETS_MAX, FLOWS_MAX, FlowInstructions, TABLES};
use caregate_protocol::datapath::{Mode, Port, Role, Traffic as Counted, VERSION, Welcome};
use caregate_protocol::openflow::{
    Action, Command, ErrorKind, FlowMod, Instruction, Match, MatchField, Oxm, TABLE_ALL, port,
};

use super::super::flow::Traffic;
use super::super::ports::Guard;
use super::super::quarantine::quarantined;
use super::super::table::TABLE_POLICY;
use super::*;

mod actions;
mod groups;
mod meters;
mod random;

const NOW: Duration = Duration::from_secs(1000);
const SECOND: Duration = Duration::from_secs(1);

/// Ports 1 and 2 sensors, 3 an uplink, 4 and 5 of the switch.
fn welcome() -> Welcome {
    let roles = [Role::Sensor, Role::Sensor, Role::Uplink, Role::Switch, Role::Switch];
    let port = |(number, role)| {
        let (name, mac) = (format!("eth{number}"), [2, 0, 0, 0, 9, 9]);
        Port { number, name, mac, role, mode: Mode::Native, up: true }
    };
    Welcome { version: VERSION, queues: 4, ports: (1..).zip(roles).map(port).collect() }
}

fn guarded() -> Tables {
    Tables::new(Ports::new(Guard::On, &welcome(), NOW))
}

fn open() -> Tables {
    Tables::new(Ports::new(Guard::Off, &welcome(), NOW))
}

fn from_source(last: u8) -> Match {
    Match::any().eth_src([2, 0, 0, 0, 0, last])
}

fn flow_mod(command: Command, priority: u16, pattern: Match) -> FlowMod {
    FlowMod { flags: flags::SEND_FLOW_REM, pattern, ..FlowMod::new(command, 1, priority) }
}

fn add(priority: u16, pattern: Match) -> FlowMod {
    flow_mod(Command::Add, priority, pattern)
}

fn applying(actions: &[Action]) -> Vec<Instruction> {
    vec![Instruction::ApplyActions(actions.to_vec())]
}

fn to(port: u32) -> Vec<Instruction> {
    applying(&[Action::output(port)])
}

fn cookies(tables: &Tables) -> Vec<u64> {
    tables.flows().iter().map(|flow| flow.cookie).collect()
}

fn all(tables: &Tables) -> Vec<Flow> {
    tables.flows().iter().cloned().collect()
}

fn apply(tables: &mut Tables, wanted: &FlowMod) -> Outcome {
    tables.flow_mod(wanted, NOW).unwrap_or_else(|kind| panic!("{}: {wanted:?}", kind.as_str()))
}

fn refused(tables: &mut Tables, wanted: &FlowMod) -> &'static str {
    let before = (all(tables), tables.changes());
    let kind: ErrorKind = tables.flow_mod(wanted, NOW).unwrap_err();
    assert_eq!((all(tables), tables.changes()), before, "a refused flow-mod changes nothing");
    kind.as_str()
}

fn counted(id: FlowId, frames: u64) -> FlowCounters {
    FlowCounters { id: id.0, traffic: Counted { frames, bytes: 10 * frames } }
}

fn traffic(packets: u64) -> Traffic {
    Traffic { packets, bytes: 10 * packets }
}

#[test]
fn a_sensor_is_quarantined_and_released() {
    let mut tables = guarded();
    let shut_out = add(100, from_source(1));
    assert!(apply(&mut tables, &shut_out).changed && tables.touches_sensors());
    let Some(Change::PutFlow(entry)) = tables.changes().pop() else { panic!() };
    assert_eq!(
        (entry.table, entry.priority, entry.instructions.as_ref()),
        (1, 100, &FlowInstructions::default())
    );
    let release = FlowMod { command: Command::DeleteStrict, ..shut_out };
    let outcome = tables.flow_mod(&release, NOW + 5 * SECOND).unwrap();
    assert!(outcome.changed && tables.flows().is_empty());
    assert_eq!((outcome.removed[0].reason, outcome.removed[0].lasted), (RemovedReason::Delete, 5 * SECOND));
    assert_eq!(tables.changes(), [], "the helper never knew of it");
    assert_eq!(apply(&mut tables, &release), Outcome::default(), "nothing to delete is no error");
}

#[test]
fn who_is_shut_out_can_be_told() {
    let mut tables = guarded();
    let flows = [
        add(10, from_source(1)),
        add(10, Match::any().in_port(1)),
        FlowMod { instructions: to(port::LOCAL), ..add(20, from_source(2)) },
        add(10, from_source(2)),
        add(10, from_source(3).eth_type(0x0800)),
        FlowMod { instructions: vec![Instruction::GotoTable(2)], ..add(10, from_source(4)) },
        FlowMod { table_id: 2, ..add(10, from_source(4)) },
    ];
    flows.iter().for_each(|flow| drop(apply(&mut tables, flow)));
    let shut_out = quarantined(&tables);
    assert_eq!(shut_out.into_iter().map(|mac| mac.0[5]).collect::<Vec<_>>(), [1]);
}

#[test]
fn table_0_is_policys_and_without_guard_the_controllers() {
    let mut tables = guarded();
    let any = add(1, Match::any());
    apply(&mut tables, &any);
    let commands =
        [Command::Add, Command::Modify, Command::ModifyStrict, Command::Delete, Command::DeleteStrict];
    for command in commands {
        let change = FlowMod { command, table_id: TABLE_POLICY, ..any.clone() };
        assert_eq!(refused(&mut tables, &change), "OFPBRC_EPERM", "{command:?}");
        assert_eq!(open().flow_mod(&change, NOW).map(drop), Ok(()), "{command:?}");
        for table_id in [TABLES, 0xfe] {
            let change = FlowMod { command, table_id, ..any.clone() };
            assert_eq!(refused(&mut tables, &change), "OFPFMFC_BAD_TABLE_ID", "{command:?}");
        }
    }
    for command in &commands[..3] {
        let change = FlowMod { command: *command, table_id: TABLE_ALL, ..any.clone() };
        assert_eq!(refused(&mut tables, &change), "OFPFMFC_BAD_TABLE_ID", "{command:?}");
    }
    assert_eq!(refused(&mut tables, &FlowMod { flags: 0x20, ..any.clone() }), "OFPFMFC_BAD_FLAGS");
    assert_eq!(refused(&mut tables, &FlowMod { buffer_id: 7, ..any.clone() }), "OFPBRC_BUFFER_UNKNOWN");
    apply(&mut tables, &FlowMod { table_id: 7, ..any.clone() });
    let delete_all = FlowMod { command: Command::Delete, table_id: TABLE_ALL, buffer_id: 7, ..any };
    assert!(apply(&mut tables, &delete_all).changed && tables.flows().is_empty());
}

#[test]
fn frames_come_in_by_ports_that_there_are() {
    let mut tables = guarded();
    for number in [1, 2, 4, 5, port::LOCAL, port::CONTROLLER] {
        apply(&mut tables, &add(1, Match::any().in_port(number)));
    }
    // An uplink's frames are the kernel's.
    for number in [3, 6, port::FLOOD] {
        assert_eq!(refused(&mut tables, &add(1, Match::any().in_port(number))), "OFPBMC_BAD_VALUE");
    }
}

#[test]
fn four_thousand_flows_in_all_tables_and_no_more() {
    let mut tables = guarded();
    let flow = |n: usize| {
        let [a, b, ..] = n.to_le_bytes();
        let table_id = 1 + u8::try_from(n % 7).unwrap();
        FlowMod { table_id, ..add(1, Match::any().eth_src([2, 0, 0, 0, a, b])) }
    };
    (0..FLOWS_MAX).for_each(|n| drop(apply(&mut tables, &flow(n))));
    assert_eq!(refused(&mut tables, &flow(FLOWS_MAX)), "OFPFMFC_TABLE_FULL");
    // One that replaces another needs no room.
    apply(&mut tables, &FlowMod { cookie: 9, ..flow(5) });
    assert_eq!(tables.flows().len(), FLOWS_MAX);
}

#[test]
fn overlap_is_checked_where_it_is_asked_for() {
    let mut tables = guarded();
    apply(&mut tables, &add(5, from_source(1)));
    let wide = FlowMod { flags: flags::CHECK_OVERLAP, ..add(5, Match::any()) };
    assert_eq!(refused(&mut tables, &wide), "OFPFMFC_OVERLAP");
    apply(&mut tables, &FlowMod { priority: 6, ..wide.clone() });
    apply(&mut tables, &FlowMod { table_id: 2, ..wide.clone() });
    apply(&mut tables, &FlowMod { flags: 0, ..wide });
    let order: Vec<_> = tables.flows().iter().map(|flow| (flow.table, flow.priority)).collect();
    assert_eq!(order, [(1, 6), (1, 5), (1, 5), (2, 5)]);
}

#[test]
fn a_modify_keeps_cookie_and_counters_and_a_replacing_add_keeps_counters() {
    let mut tables = guarded();
    let flow = FlowMod { cookie: 7, idle_timeout_s: 9, ..add(5, from_source(1)) };
    apply(&mut tables, &flow);
    let id = all(&tables)[0].id;
    tables.commit();
    tables.observe(&[counted(id, 10)], NOW);
    let modify = FlowMod {
        cookie: 9,
        cookie_mask: 0,
        hard_timeout_s: 3,
        instructions: to(port::LOCAL),
        ..flow_mod(Command::Modify, 9, Match::any())
    };
    assert!(apply(&mut tables, &modify).changed);
    let after = &all(&tables)[0];
    assert_eq!((after.cookie, after.priority, after.idle_timeout_s, after.hard_timeout_s), (7, 5, 9, 0));
    assert_eq!((after.traffic(), after.id), (traffic(10), id));
    assert!(matches!(&tables.changes()[..], [Change::PutFlow(entry)] if entry.instructions.apply.len() == 1));

    let later = NOW + SECOND;
    tables.flow_mod(&FlowMod { cookie: 8, ..flow.clone() }, later).unwrap();
    let after = &all(&tables)[0];
    assert_eq!((after.traffic(), after.added, after.cookie, after.id), (traffic(10), later, 8, id));
    tables.observe(&[counted(id, 13)], later);
    assert_eq!(all(&tables)[0].traffic(), traffic(13));

    apply(&mut tables, &FlowMod { flags: flags::RESET_COUNTS, ..modify });
    assert_eq!(all(&tables)[0].traffic(), Traffic::default());
    tables.observe(&[counted(id, 17)], NOW);
    assert_eq!(all(&tables)[0].traffic(), traffic(4));
    apply(&mut tables, &FlowMod { flags: flags::RESET_COUNTS, ..flow });
    assert_eq!(all(&tables)[0].traffic(), Traffic::default());
}

#[test]
fn what_is_not_to_be_counted_says_so() {
    let mut tables = guarded();
    let uncounted = flags::NO_PKT_COUNTS | flags::NO_BYT_COUNTS;
    apply(&mut tables, &FlowMod { flags: uncounted, idle_timeout_s: 5, ..add(5, from_source(1)) });
    let id = all(&tables)[0].id;
    tables.observe(&[counted(id, 3)], NOW + 4 * SECOND);
    let flow = &all(&tables)[0];
    assert_eq!((flow.reported().packets, flow.reported().bytes), (u64::MAX, u64::MAX));
    assert_eq!(tables.flows().next_timeout(), Some(NOW + 9 * SECOND), "idle all the same");
}

#[test]
fn a_modify_is_judged_by_each_flow_that_it_changes() {
    let mut tables = guarded();
    apply(&mut tables, &add(9, Match::any().in_port(4)));
    let modify = FlowMod { instructions: to(5), ..flow_mod(Command::Modify, 0, Match::any()) };
    apply(&mut tables, &modify);
    apply(&mut tables, &add(9, from_source(1)));
    assert_eq!(refused(&mut tables, &modify), "OFPBAC_EPERM", "one of them covers sensors: none is changed");
    let strict = FlowMod { command: Command::ModifyStrict, priority: 8, ..modify };
    assert_eq!(refused(&mut tables, &strict), "OFPBAC_EPERM", "as an add would be");
    let strict = FlowMod { priority: 9, pattern: Match::any().in_port(4), instructions: to(3), ..strict };
    apply(&mut tables, &strict);
    let outputs: Vec<_> = tables.flows().iter().map(|flow| flow.actions().count()).collect();
    assert_eq!(outputs, [1, 0]);
    let nothing = flow_mod(Command::ModifyStrict, 8, from_source(7));
    assert_eq!(apply(&mut tables, &nothing), Outcome::default());
}

#[test]
fn deletes_look_at_table_cookie_port_and_group() {
    let mut tables = guarded();
    for (n, table_id, instructions) in [(0, 1, vec![]), (1, 1, to(5)), (2, 2, to(5)), (3, 3, to(4))] {
        let pattern = Match::any().in_port(4).eth_src([2, 0, 0, 0, 0, n]);
        let flow = FlowMod { cookie: n.into(), table_id, instructions, ..add(1, pattern) };
        apply(&mut tables, &flow);
    }
    let delete = FlowMod { table_id: TABLE_ALL, ..flow_mod(Command::Delete, 0, Match::any()) };
    let none = [
        FlowMod { out_group: 1, ..delete.clone() },
        FlowMod { out_port: 3, ..delete.clone() },
        FlowMod { table_id: 4, ..delete.clone() },
        FlowMod { pattern: Match::any().in_port(5), ..delete.clone() },
        FlowMod { command: Command::DeleteStrict, ..delete.clone() },
        FlowMod { cookie: 4, cookie_mask: 4, ..delete.clone() },
    ];
    for wanted in none {
        assert_eq!(apply(&mut tables, &wanted), Outcome::default(), "{wanted:?}");
    }
    apply(&mut tables, &FlowMod { cookie: 3, cookie_mask: u64::MAX, ..delete.clone() });
    assert_eq!(cookies(&tables), [0, 1, 2]);
    apply(&mut tables, &FlowMod { out_port: 5, table_id: 2, ..delete.clone() });
    assert_eq!(cookies(&tables), [0, 1]);
    apply(&mut tables, &FlowMod { out_port: 5, ..delete.clone() });
    assert_eq!(cookies(&tables), [0]);
    let pattern = Match::any().in_port(4).eth_src([2, 0, 0, 0, 0, 0]);
    let strict = FlowMod { command: Command::DeleteStrict, priority: 1, pattern, ..delete };
    assert_eq!(apply(&mut tables, &strict).removed[0].flow.cookie, 0);
}

#[test]
fn idle_and_hard_timeouts() {
    let mut tables = guarded();
    let flow = FlowMod { idle_timeout_s: 3, hard_timeout_s: 10, ..add(2, from_source(1)) };
    apply(&mut tables, &flow);
    let silent = FlowMod { flags: 0, hard_timeout_s: 0, priority: 1, ..flow };
    apply(&mut tables, &silent);
    let used = all(&tables)[0].id;
    assert_eq!(tables.flows().next_timeout(), Some(NOW + 3 * SECOND));
    tables.observe(&[counted(used, 1)], NOW + 2 * SECOND);
    assert_eq!(tables.expire(NOW + 2 * SECOND), Outcome::default());
    let gone = tables.expire(NOW + 3 * SECOND);
    assert_eq!((gone.changed, gone.removed.len()), (true, 0), "it wanted no flow-removed");
    assert_eq!(tables.flows().next_timeout(), Some(NOW + 5 * SECOND));
    for n in 2..6u32 {
        tables.observe(&[counted(used, n.into())], NOW + n * 2 * SECOND);
    }
    assert_eq!(tables.flows().next_timeout(), Some(NOW + 10 * SECOND));
    let gone = tables.expire(NOW + 10 * SECOND).removed;
    assert_eq!((gone[0].reason, gone[0].flow.traffic()), (RemovedReason::HardTimeout, traffic(5)));
    assert_eq!((tables.flows().next_timeout(), tables.flows().has_idle()), (None, false));
}

#[test]
fn ports_that_change_take_flows_with_them() {
    let mut tables = guarded();
    apply(&mut tables, &add(1, Match::any().in_port(2)));
    apply(&mut tables, &FlowMod { cookie: 1, instructions: to(5), ..add(1, Match::any().in_port(4)) });
    apply(&mut tables, &FlowMod { cookie: 2, instructions: to(3), ..add(2, Match::any().in_port(4)) });
    tables.commit();
    let mut other = welcome();
    other.ports.remove(1);
    other.ports[3].role = Role::Sensor;
    tables.ports_mut().retain(&other);
    tables.ports_mut().find_mut(5).unwrap().port.role = Role::Sensor;
    let outcome = tables.recheck(NOW);
    assert_eq!((outcome.removed.len(), cookies(&tables)), (2, vec![2]));
    assert!(matches!(tables.changes()[..], [Change::RemoveFlow(_), Change::RemoveFlow(_)]));
}

#[test]
fn what_is_kept_comes_back() {
    let mut tables = guarded();
    groups::add_all(&mut tables);
    meters::add_all(&mut tables);
    let instructions = vec![Instruction::Meter(1), Instruction::ApplyActions(vec![Action::Group(9)])];
    apply(&mut tables, &FlowMod { cookie: 1, instructions, ..add(7, Match::any().in_port(4)) });
    apply(&mut tables, &FlowMod { table_id: 6, ..add(7, from_source(1)) });
    let kept = tables.kept();
    let mut again = guarded();
    assert_eq!(again.restore(&kept, NOW), 0);
    assert_eq!((again.kept(), again.everything().len()), (kept.clone(), tables.everything().len()));
    let mut fewer = welcome();
    fewer.ports.truncate(2);
    let mut less = Tables::new(Ports::new(Guard::On, &fewer, NOW));
    assert!(less.restore(&kept, NOW) > 0);
    assert_eq!(cookies(&less), [0], "what means nothing here is left out");
}
