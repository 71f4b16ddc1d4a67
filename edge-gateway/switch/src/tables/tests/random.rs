//! Random flow-mods against a naive table, and roll-back against a copy.

use proptest::prelude::*;

use super::super::super::slow::View;
use super::*;

#[derive(Debug, Clone)]
struct Step {
    command: Command,
    table: u8,
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
    let pattern = (proptest::option::of(0..3u8), proptest::option::of(1..3u8));
    (command, 1..3u8, 0..3u16, pattern, 0..3u64).prop_map(
        |(command, table, priority, (source, port), cookie)| Step {
            command,
            table,
            priority,
            source,
            port,
            cookie,
        },
    )
}

impl Step {
    fn wanted(&self) -> FlowMod {
        let instructions = if self.cookie == 1 { to(port::LOCAL) } else { Vec::new() };
        FlowMod {
            table_id: self.table,
            cookie: self.cookie,
            instructions,
            ..flow_mod(self.command, self.priority, pattern(self.source, self.port))
        }
    }
}

/// A flow of the naive reference: options where the tables have masks.
#[derive(Debug, Clone, PartialEq)]
struct Naive {
    table: u8,
    priority: u16,
    source: Option<u8>,
    port: Option<u8>,
    cookie: u64,
    local: bool,
}

fn naively(flows: &mut Vec<Naive>, step: &Step) {
    let within = |asked: Option<u8>, has: Option<u8>| asked.is_none() || asked == has;
    let same = |flow: &Naive| {
        (flow.table, flow.priority, flow.source, flow.port)
            == (step.table, step.priority, step.source, step.port)
    };
    let part = |flow: &Naive| {
        flow.table == step.table && within(step.source, flow.source) && within(step.port, flow.port)
    };
    let local = step.cookie == 1;
    match step.command {
        Command::Add => {
            let Step { table, priority, source, port, cookie, .. } = *step;
            let flow = Naive { table, priority, source, port, cookie, local };
            match flows.iter_mut().find(|flow| same(flow)) {
                Some(old) => *old = flow,
                None => flows.push(flow),
            }
        }
        Command::Modify => flows.iter_mut().filter(|flow| part(flow)).for_each(|flow| flow.local = local),
        Command::ModifyStrict => {
            flows.iter_mut().filter(|flow| same(flow)).for_each(|flow| flow.local = local);
        }
        Command::Delete => flows.retain(|flow| !part(flow)),
        Command::DeleteStrict => flows.retain(|flow| !same(flow)),
    }
}

/// What a frame meets in the reference: the highest priority, of equals the one that was added first.
fn naive_verdict(flows: &[Naive], table: u8, source: u8, port: u8) -> Option<(u64, bool)> {
    let hits = flows.iter().filter(|flow| {
        flow.table == table
            && flow.source.is_none_or(|wanted| wanted == source)
            && flow.port.is_none_or(|wanted| wanted == port)
    });
    let best = hits.reduce(|best, flow| if flow.priority > best.priority { flow } else { best });
    best.map(|flow| (flow.cookie, flow.local))
}

fn pattern(source: Option<u8>, port: Option<u8>) -> Match {
    let pattern = port.map_or_else(Match::any, |port| Match::any().in_port(port.into()));
    match source {
        Some(last) => pattern.eth_src([2, 0, 0, 0, 0, last]),
        None => pattern,
    }
}

proptest! {
    #[test]
    fn frames_meet_what_a_naive_table_says(steps in proptest::collection::vec(step(), 0..60)) {
        let (mut tables, mut reference) = (guarded(), Vec::new());
        for step in &steps {
            apply(&mut tables, &step.wanted());
            naively(&mut reference, step);
            prop_assert_eq!(tables.flows().len(), reference.len());
        }
        for (source, port, table) in
            (0..3).flat_map(|source| (1..3).flat_map(move |port| (1..3).map(move |table| (source, port, table))))
        {
            let frame = Pattern::of(&pattern(Some(source), Some(port))).unwrap();
            let hit = tables.lookup(table, frame.key().0);
            let verdict = hit.map(|found| (found.cookie, !found.instructions.apply.is_empty()));
            prop_assert_eq!(verdict, naive_verdict(&reference, table, source, port));
        }
    }

    /// Whatever was done since a commit is undone, and the helper's view, which has the changes of what was committed alone, is that
    /// of the tables.
    #[test]
    fn a_roll_back_leaves_nothing(
        first in proptest::collection::vec(step(), 0..20),
        then in proptest::collection::vec(step(), 0..20),
    ) {
        let mut tables = guarded();
        let mut helper = std::collections::BTreeMap::new();
        let mut tell = |changes: Vec<Change>| {
            for change in changes {
                match change {
                    Change::PutFlow(flow) => drop(helper.insert(flow.id, flow)),
                    Change::RemoveFlow(id) => assert!(helper.remove(&id).is_some(), "it was never told"),
                    other @ (Change::Clear
                    | Change::PutGroup(_)
                    | Change::RemoveGroup(_)
                    | Change::PutMeter(_)
                    | Change::RemoveMeter(_)) => panic!("{other:?}"),
                }
            }
            helper.values().cloned().collect::<Vec<_>>()
        };
        first.iter().enumerate().for_each(|(number, step)| {
            drop(apply(&mut tables, &step.wanted()));
            if number % 3 == 2 {
                tell(tables.tell_flows());
                assert_eq!((tables.untold(), tables.changes()), (0, Vec::new()), "it is told once");
            }
        });
        tell(tables.changes());
        tables.commit();
        let (flows, kept, end) = (all(&tables), tables.kept(), tables.flows().next_timeout());
        then.iter().for_each(|step| drop(apply(&mut tables, &step.wanted())));
        tables.roll_back();
        prop_assert_eq!((all(&tables), tables.kept(), tables.flows().next_timeout()), (flows, kept, end));
        prop_assert_eq!(tables.changes(), []);
        for step in &then {
            drop(apply(&mut tables, &step.wanted()));
            if tables.untold() > 2 {
                tell(tables.tell_flows());
            }
        }
        let known = tell(tables.changes());
        let mut is: Vec<_> = tables.flows().iter().map(Flow::entry).collect();
        is.sort_by_key(|flow| flow.id);
        prop_assert_eq!(known, is);
    }
}
