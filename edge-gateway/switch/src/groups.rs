//! Groups (OpenFlow 1.3.5 §5.6) as the controller wrote them, and whether they may be as it wants them (§6.5).

use std::collections::BTreeMap;
use std::time::Duration;

use caregate_protocol::datapath::switch::{BUCKETS_MAX, FlowAction, GroupBucket, GroupEntry, GroupKind};
use caregate_protocol::openflow::{
    Bucket, ErrorKind, GroupCommand, GroupMod, GroupModFailed, GroupType, group, port,
};

use super::ports::Ports;
use super::translate;

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Number, kind, and buckets in their order.
    pub entry: GroupEntry,
    /// When it was added.
    pub added: Duration,
}

/// By number.
pub type Groups = BTreeMap<u32, Group>;

impl Group {
    /// The groups that it watches.
    pub fn watched(&self) -> impl Iterator<Item = u32> {
        self.entry.buckets.iter().map(|bucket| bucket.watch_group).filter(|id| *id != group::ANY)
    }

    /// The group-mod that would add it again.
    #[must_use]
    pub fn stored(&self) -> GroupMod {
        GroupMod {
            command: GroupCommand::Add,
            group_type: self.group_type(),
            group_id: self.entry.id,
            buckets: self.buckets(),
        }
    }

    /// How its buckets are chosen.
    #[must_use]
    pub fn group_type(&self) -> GroupType {
        match self.entry.kind {
            GroupKind::All => GroupType::All,
            GroupKind::Select => GroupType::Select,
            GroupKind::Indirect => GroupType::Indirect,
            GroupKind::FastFailover => GroupType::FastFailover,
        }
    }

    /// As the controller wrote them.
    #[must_use]
    pub fn buckets(&self) -> Vec<Bucket> {
        let bucket = |of: &GroupBucket| Bucket {
            weight: of.weight,
            watch_port: of.watch_port,
            watch_group: of.watch_group,
            actions: of.actions.iter().map(translate::to_action).collect(),
        };
        self.entry.buckets.iter().map(bucket).collect()
    }
}

fn refuse<T>(code: GroupModFailed) -> Result<T, ErrorKind> {
    Err(ErrorKind::GroupModFailed(code))
}

/// The group that a group-mod, of an add or a modify, wants.
///
/// # Errors
/// `OFPGMFC_INVALID_GROUP` for a number or for buckets that its kind can't have, `OUT_OF_BUCKETS`, `CHAINING_UNSUPPORTED` for a
/// group in a bucket, `BAD_WATCH`, `LOOP`; for a bucket's actions `OFPET_BAD_ACTION` as for a flow's.
pub(super) fn entry(wanted: &GroupMod, ports: &Ports, others: &Groups) -> Result<GroupEntry, ErrorKind> {
    if wanted.group_id > group::MAX {
        return refuse(GroupModFailed::InvalidGroup);
    }
    if wanted.buckets.len() > BUCKETS_MAX {
        return refuse(GroupModFailed::OutOfBuckets);
    }
    let kind = match wanted.group_type {
        GroupType::All => GroupKind::All,
        GroupType::Select => GroupKind::Select,
        GroupType::Indirect if wanted.buckets.len() != 1 => return refuse(GroupModFailed::InvalidGroup),
        GroupType::Indirect => GroupKind::Indirect,
        GroupType::FastFailover => GroupKind::FastFailover,
    };
    let mut buckets = Vec::new();
    for of in &wanted.buckets {
        let lives_by_nothing = of.watch_port == port::ANY && of.watch_group == group::ANY;
        if kind == GroupKind::FastFailover && lives_by_nothing {
            return refuse(GroupModFailed::InvalidGroup);
        }
        check_watch(wanted.group_id, of, ports, others)?;
        buckets.push(bucket(of, ports)?);
    }
    Ok(GroupEntry { id: wanted.group_id, kind, buckets })
}

fn bucket(of: &Bucket, ports: &Ports) -> Result<GroupBucket, ErrorKind> {
    let actions = translate::actions(&of.actions)?;
    for action in &actions {
        if matches!(action, FlowAction::Group(_)) {
            return refuse(GroupModFailed::ChainingUnsupported);
        }
        super::check::action(action, ports).map_err(ErrorKind::BadAction)?;
    }
    let (weight, watch_port, watch_group) = (of.weight, of.watch_port, of.watch_group);
    Ok(GroupBucket { weight, watch_port, watch_group, actions })
}

fn check_watch(id: u32, of: &Bucket, ports: &Ports, others: &Groups) -> Result<(), ErrorKind> {
    if of.watch_port != port::ANY && ports.find(of.watch_port).is_none() {
        return refuse(GroupModFailed::BadWatch);
    }
    if of.watch_group == group::ANY {
        return Ok(());
    }
    // Whom a group watches, and whom these watch, and so on: at most all of them.
    let (mut next, mut seen) = (vec![of.watch_group], Vec::new());
    while let Some(watched) = next.pop() {
        if watched == id {
            return refuse(GroupModFailed::Loop);
        }
        let Some(group) = others.get(&watched) else { return refuse(GroupModFailed::BadWatch) };
        if !seen.contains(&watched) {
            seen.push(watched);
            next.extend(group.watched());
        }
    }
    Ok(())
}
