//! The controller's own rules on a switch, and what of them a switch lacks or has too many. Pure.

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::openflow::multipart::FlowStats;
use caregate_protocol::openflow::{Action, Command, FlowMod, Instruction, Match, Oxm, port};

/// "CARE": cookies of the controller's own flows begin with it; below is the intent's number.
pub const COOKIE_OWN: u64 = 0x4341_5245_0000_0000;
/// The bits that tell own flows from others'.
pub const COOKIE_MASK: u64 = 0xffff_ffff_0000_0000;

/// FNV-1a, 32 bits: the same intent has the same cookie after each restart. Two names that meet are told apart by their matches.
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The cookie of an intent's flows.
#[must_use]
pub fn cookie(intent: &str) -> u64 {
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME);
    COOKIE_OWN | u64::from(intent.bytes().fold(FNV_OFFSET, mix))
}

/// Whether a flow with this cookie is the controller's own.
#[must_use]
pub fn is_own(cookie: u64) -> bool {
    cookie & COOKIE_MASK == COOKIE_OWN
}

/// What tells one flow of a switch from another (§5.2): table, priority, match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    table: u8,
    priority: u16,
    fields: Vec<Oxm>,
}

impl Key {
    fn of(flow: &FlowStats) -> Self {
        let fields = flow.pattern.canonical().fields;
        Self { table: flow.table_id, priority: flow.priority, fields }
    }
}

/// One flow that the switch is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which table.
    pub table: u8,
    /// Higher comes first.
    pub priority: u16,
    /// Which frames, in canonical form.
    pub pattern: Match,
    /// What is done with them.
    pub instructions: Vec<Instruction>,
    /// Marks it as ours, and whose.
    pub cookie: u64,
    /// The name of its intent.
    pub intent: String,
}

impl Rule {
    /// What it is found by.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { table: self.table, priority: self.priority, fields: self.pattern.fields.clone() }
    }

    /// The flow-mod that makes it. Where a flow of the same key is there, it takes its place (§6.4).
    #[must_use]
    pub fn add(&self) -> FlowMod {
        FlowMod {
            cookie: self.cookie,
            pattern: self.pattern.clone(),
            instructions: self.instructions.clone(),
            ..FlowMod::new(Command::Add, self.table, self.priority)
        }
    }

    fn is(&self, flow: &FlowStats) -> bool {
        flow.cookie == self.cookie
            && (flow.idle_timeout_s, flow.hard_timeout_s) == (0, 0)
            && comparable(&flow.instructions) == comparable(&self.instructions)
    }
}

/// Without what switches write in more than one way: no instruction is the same as one without actions, and an output's length
/// counts for the controller alone.
fn comparable(instructions: &[Instruction]) -> Vec<Instruction> {
    let action = |action: &Action| match action {
        Action::Output { port, .. } if *port != port::CONTROLLER => Action::output(*port),
        Action::Output { .. }
        | Action::CopyTtlOut
        | Action::CopyTtlIn
        | Action::SetMplsTtl(_)
        | Action::DecMplsTtl
        | Action::PushVlan(_)
        | Action::PopVlan
        | Action::PushMpls(_)
        | Action::PopMpls(_)
        | Action::SetQueue(_)
        | Action::Group(_)
        | Action::SetNwTtl(_)
        | Action::DecNwTtl
        | Action::SetField(_)
        | Action::PushPbb(_)
        | Action::PopPbb
        | Action::Experimenter { .. }
        | Action::Other { .. } => action.clone(),
    };
    let instruction = |instruction: &Instruction| match instruction {
        Instruction::ApplyActions(actions) if actions.is_empty() => None,
        Instruction::ApplyActions(actions) => {
            Some(Instruction::ApplyActions(actions.iter().map(action).collect()))
        }
        Instruction::WriteActions(_)
        | Instruction::GotoTable(_)
        | Instruction::WriteMetadata { .. }
        | Instruction::ClearActions
        | Instruction::Meter(_)
        | Instruction::Experimenter { .. }
        | Instruction::Other { .. } => Some(instruction.clone()),
    };
    instructions.iter().filter_map(instruction).collect()
}

/// One flow-mod of a reconcile, and the intent that it is for; a delete has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is sent.
    pub flow_mod: FlowMod,
    /// For which intent.
    pub intent: Option<String>,
}

fn delete(flow: &FlowStats) -> Change {
    let flow_mod = FlowMod {
        cookie: flow.cookie,
        cookie_mask: u64::MAX,
        pattern: flow.pattern.clone(),
        ..FlowMod::new(Command::DeleteStrict, flow.table_id, flow.priority)
    };
    Change { flow_mod, intent: None }
}

/// What makes of the `flows` that a switch reports those that it is to hold: deletes first, because its table may be full. Flows
/// with others' cookies stay, unless one stands where a rule belongs.
#[must_use]
pub fn difference(rules: &[Rule], flows: &[FlowStats]) -> Vec<Change> {
    let wanted: BTreeSet<Key> = rules.iter().map(Rule::key).collect();
    let present: BTreeMap<Key, &FlowStats> = flows.iter().map(|flow| (Key::of(flow), flow)).collect();
    let surplus = flows.iter().filter(|flow| is_own(flow.cookie) && !wanted.contains(&Key::of(flow)));
    let lacking = rules.iter().filter(|rule| present.get(&rule.key()).is_none_or(|flow| !rule.is(flow)));
    let add = |rule: &Rule| Change { flow_mod: rule.add(), intent: Some(rule.intent.clone()) };
    surplus.map(delete).chain(lacking.map(add)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(priority: u16, mac: u8, actions: &[Action]) -> Rule {
        let instructions = vec![Instruction::ApplyActions(actions.to_vec())];
        let pattern = Match::any().eth_src([2, 0, 0, 0, 0, mac]);
        let intent = format!("i-{mac}");
        Rule { table: 1, priority, pattern, instructions, cookie: cookie(&intent), intent }
    }

    pub(crate) fn held(rule: &Rule) -> FlowStats {
        FlowStats {
            table_id: rule.table,
            lasted: std::time::Duration::from_secs(3).into(),
            priority: rule.priority,
            idle_timeout_s: 0,
            hard_timeout_s: 0,
            flags: 0,
            cookie: rule.cookie,
            packets: 9,
            bytes: 900,
            pattern: rule.pattern.clone(),
            instructions: rule.instructions.clone(),
        }
    }

    #[test]
    fn cookies_name_the_intent_and_the_controller() {
        assert_eq!(cookie(""), 0x4341_5245_811c_9dc5);
        assert_ne!(cookie("a"), cookie("b"));
        assert!(is_own(cookie("a")) && !is_own(0) && !is_own(0x4341_5246_0000_0000));
    }

    #[test]
    fn nothing_differs_where_the_switch_holds_it_in_its_own_words() {
        let rules = [rule(9, 1, &[]), rule(8, 2, &[Action::output(port::LOCAL)])];
        let mut flows: Vec<_> = rules.iter().map(held).collect();
        flows[0].instructions.clear();
        let pattern = &mut flows[1].pattern;
        *pattern = pattern
            .clone()
            .and(Oxm::new(caregate_protocol::openflow::MatchField::EthDst, &[0; 6], Some(&[0; 6])).unwrap());
        flows[1].instructions =
            vec![Instruction::ApplyActions(vec![Action::Output { port: port::LOCAL, max_len: 0xffff }])];
        assert_eq!(difference(&rules, &flows), []);
    }

    #[test]
    fn what_lacks_is_added_and_what_is_too_much_deleted_before_it() {
        let (kept, lacking, surplus) = (rule(9, 1, &[]), rule(8, 2, &[]), rule(7, 3, &[]));
        let changes = difference(&[kept.clone(), lacking.clone()], &[held(&kept), held(&surplus)]);
        let [first, second] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((first.flow_mod.command, first.flow_mod.cookie_mask), (Command::DeleteStrict, u64::MAX));
        assert_eq!((&first.flow_mod.pattern, first.flow_mod.priority), (&surplus.pattern, 7));
        assert_eq!((&second.flow_mod, second.intent.as_deref()), (&lacking.add(), Some("i-2")));
    }

    #[test]
    fn others_flows_stay_unless_they_stand_in_a_rules_place() {
        let wanted = rule(9, 1, &[]);
        let (mut elsewhere, mut in_place) = (held(&rule(5, 2, &[])), held(&wanted));
        (elsewhere.cookie, in_place.cookie) = (7, 7);
        assert_eq!(difference(&[], &[elsewhere.clone(), in_place.clone()]), []);
        let changes = difference(std::slice::from_ref(&wanted), &[elsewhere, in_place]);
        assert_eq!(changes, [Change { flow_mod: wanted.add(), intent: Some("i-1".into()) }]);
    }

    #[test]
    fn a_flow_of_another_kind_in_its_place_is_replaced() {
        let wanted = rule(9, 1, &[Action::output(port::LOCAL)]);
        let mut other = held(&wanted);
        other.instructions = vec![Instruction::ApplyActions(vec![Action::output(port::NORMAL)])];
        let mut timed = held(&wanted);
        timed.idle_timeout_s = 5;
        let mut stale = held(&wanted);
        stale.cookie = cookie("another");
        for flow in [other, timed, stale] {
            assert_eq!(difference(std::slice::from_ref(&wanted), &[flow]).len(), 1);
        }
    }
}
