//! Group-mods.

use caregate_protocol::openflow::{Bucket, GroupCommand, GroupMod, GroupType, group};

use super::*;

fn to_port(number: u32) -> Bucket {
    Bucket::new(vec![Action::output(number)])
}

fn group_mod(command: GroupCommand, group_type: GroupType, group_id: u32, buckets: Vec<Bucket>) -> GroupMod {
    GroupMod { command, group_type, group_id, buckets }
}

fn adding(group_type: GroupType, group_id: u32, buckets: Vec<Bucket>) -> GroupMod {
    group_mod(GroupCommand::Add, group_type, group_id, buckets)
}

/// Group 9 to ports 4 and 5, group 1 that fails over with it.
pub(super) fn add_all(tables: &mut Tables) {
    let both = adding(GroupType::All, 9, vec![to_port(4), to_port(5)]);
    tables.group_mod(&both, NOW).unwrap();
    let watching = vec![
        Bucket { watch_port: 4, ..to_port(4) },
        Bucket { watch_group: 9, ..Bucket::new(vec![Action::PushVlan(0x8100), Action::output(3)]) },
    ];
    tables.group_mod(&adding(GroupType::FastFailover, 1, watching), NOW).unwrap();
}

fn told(tables: &mut Tables, wanted: &GroupMod) -> &'static str {
    let before = tables.changes();
    match tables.group_mod(wanted, NOW) {
        Ok(_) => "",
        Err(kind) => {
            assert_eq!(tables.changes(), before, "a refused group-mod changes nothing");
            kind.as_str()
        }
    }
}

#[test]
fn groups_are_added_modified_and_deleted_with_the_flows_that_use_them() {
    let mut tables = guarded();
    add_all(&mut tables);
    let flow = FlowMod { instructions: applying(&[Action::Group(9)]), ..add(1, Match::any().in_port(4)) };
    apply(&mut tables, &flow);
    let written = vec![Instruction::WriteActions(vec![Action::Group(1)])];
    apply(&mut tables, &FlowMod { cookie: 1, table_id: 2, instructions: written, ..flow.clone() });
    tables.commit();
    assert_eq!((tables.references(9), tables.references(1), tables.references(2)), (1, 1, 0));

    let select =
        group_mod(GroupCommand::Modify, GroupType::Select, 9, vec![Bucket { weight: 3, ..to_port(5) }]);
    assert_eq!(told(&mut tables, &select), "");
    let [Change::PutGroup(entry)] = &tables.changes()[..] else { panic!("{:?}", tables.changes()) };
    assert_eq!((entry.id, entry.buckets.len(), entry.buckets[0].weight), (9, 1, 3));
    tables.commit();

    let delete = |id| group_mod(GroupCommand::Delete, GroupType::All, id, vec![]);
    assert_eq!(told(&mut tables, &delete(77)), "", "nothing to delete is no error");
    assert_eq!(told(&mut tables, &delete(9)), "OFPGMFC_CHAINED_GROUP", "group 1 watches it");
    let outcome = tables.group_mod(&delete(1), NOW + SECOND).unwrap();
    let gone = &outcome.removed[0];
    assert_eq!((gone.flow.cookie, gone.reason, gone.lasted), (1, RemovedReason::GroupDelete, SECOND));
    let flow = gone.flow.id.0;
    assert_eq!(tables.changes(), [Change::RemoveFlow(flow), Change::RemoveGroup(1)], "the flow first");
    tables.roll_back();
    assert_eq!((cookies(&tables), tables.groups().len()), (vec![0, 1], 2));
    assert_eq!(told(&mut tables, &delete(group::ALL)), "");
    assert!(tables.flows().is_empty() && tables.groups().is_empty());
}

#[test]
fn groups_that_cant_be_have_the_standards_own_error() {
    let mut tables = guarded();
    add_all(&mut tables);
    let mut told = |wanted| told(&mut tables, &wanted);
    let all = |id, buckets| adding(GroupType::All, id, buckets);
    assert_eq!(told(all(9, vec![])), "OFPGMFC_GROUP_EXISTS");
    assert_eq!(told(group_mod(GroupCommand::Modify, GroupType::All, 8, vec![])), "OFPGMFC_UNKNOWN_GROUP");
    assert_eq!(told(all(group::ALL, vec![])), "OFPGMFC_INVALID_GROUP");
    let modify_all = group_mod(GroupCommand::Modify, GroupType::All, group::ANY, vec![]);
    assert_eq!(told(modify_all), "OFPGMFC_INVALID_GROUP");
    assert_eq!(told(adding(GroupType::Indirect, 8, vec![to_port(4); 2])), "OFPGMFC_INVALID_GROUP");
    assert_eq!(told(adding(GroupType::Indirect, 8, vec![])), "OFPGMFC_INVALID_GROUP");
    assert_eq!(told(adding(GroupType::FastFailover, 8, vec![to_port(4)])), "OFPGMFC_INVALID_GROUP");
    assert_eq!(told(all(8, vec![to_port(4); BUCKETS_MAX + 1])), "OFPGMFC_OUT_OF_BUCKETS");
    assert_eq!(told(all(8, vec![Bucket::new(vec![Action::Group(9)])])), "OFPGMFC_CHAINING_UNSUPPORTED");
    let watching = |watch_port, watch_group| Bucket { watch_port, watch_group, ..to_port(4) };
    let failover = |id, bucket| adding(GroupType::FastFailover, id, vec![bucket]);
    assert_eq!(told(failover(8, watching(6, group::ANY))), "OFPGMFC_BAD_WATCH");
    assert_eq!(told(failover(8, watching(port::ANY, 7))), "OFPGMFC_BAD_WATCH");
    assert_eq!(told(failover(8, watching(port::ANY, 8))), "OFPGMFC_LOOP");
    let back = vec![watching(port::ANY, 1)];
    assert_eq!(told(group_mod(GroupCommand::Modify, GroupType::FastFailover, 9, back)), "OFPGMFC_LOOP");
    for (action, code) in [
        (Action::output(1), "OFPBAC_EPERM"),
        (Action::output(9), "OFPBAC_BAD_OUT_PORT"),
        (Action::SetQueue(9), "OFPBAC_BAD_QUEUE"),
        (Action::PopPbb, "OFPBAC_BAD_TYPE"),
    ] {
        assert_eq!(told(all(8, vec![Bucket::new(vec![action])])), code);
    }
    for id in 0..254 {
        assert_eq!(told(all(1000 + id, vec![])), "");
    }
    assert_eq!(told(all(8, vec![])), "OFPGMFC_OUT_OF_GROUPS");
}
