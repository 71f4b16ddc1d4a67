//! Table 1 as the daemon sends it, checked and laid out as the kernel has it. Pure.
//!
//! Counters belong to a rule's id and survive a table's replacement, so a rule keeps its slot for as long as it keeps its id; a
//! new one gets a slot that no rule of the table in force has, since frames still meet that one.

use caregate_ebpf_common::key::{
    KEY_WORDS, Key, Output as KernelOutput, RULE_SLOTS, RULE_WORDS, TABLE_HEAD_WORDS, TABLE_WORDS,
    Treatment as KernelTreatment, words,
};
use caregate_protocol::datapath::{Output, PORT_LOCAL, QUEUES, RULES_MAX, Rule};
use thiserror::Error;

/// A table as the kernel has it.
pub type TableWords = [u64; TABLE_WORDS];

/// Why a table is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Two rules of one id.
    #[error("rule {0} is there twice")]
    Twice(u64),
    /// A bit outside the mask is set, or a bit of the padding.
    #[error("rule {0} has a value outside its mask")]
    Value(u64),
    /// A rule that frames of sensors can meet would send them elsewhere, or change them.
    #[error(
        "rule {0} covers sensors' frames and does more than to drop them or to leave them to the gateway"
    )]
    Widens(u64),
    /// What the gateway itself sends can't come to itself.
    #[error("rule {0} sends the gateway's own frames to the gateway")]
    Loop(u64),
    /// More than six bits, or no such queue.
    #[error("rule {0} has a mark or a queue that does not exist")]
    Mark(u64),
    /// More than [`RULES_MAX`].
    #[error("{0} rules, allowed are {RULES_MAX}")]
    TooMany(usize),
}

/// A rule of the table in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The daemon's name.
    pub id: u64,
    /// What identifies it beside the id.
    key: (Key, Key),
    /// Of its counters.
    pub slot: u16,
}

/// A table to be put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// For the map.
    pub words: Box<TableWords>,
    /// The same, to be remembered.
    pub placed: Vec<Placed>,
    /// Slots that were others' once, to be cleared before.
    pub fresh: Vec<u16>,
}

/// Lays out `rules` beside the table in force; with `session` other than the table's, no id means what it meant.
///
/// # Errors
/// [`RuleError`].
pub fn lay_out(rules: &[Rule], session: u64, in_force: &InForce) -> Result<Layout, RuleError> {
    if rules.len() > RULES_MAX {
        return Err(RuleError::TooMany(rules.len()));
    }
    let known: &[Placed] = if in_force.session == session { &in_force.placed } else { &[] };
    let mut layout = Layout { words: Box::new([0; TABLE_WORDS]), placed: Vec::new(), fresh: Vec::new() };
    layout.words[0] = rules.len() as u64;
    layout.words[1] = session;
    for (rule, place) in rules.iter().zip(layout.words[TABLE_HEAD_WORDS..].chunks_exact_mut(RULE_WORDS)) {
        check(rule)?;
        if layout.placed.iter().any(|placed| placed.id == rule.id) {
            return Err(RuleError::Twice(rule.id));
        }
        let key = (words(&rule.value), words(&rule.mask));
        let same = |placed: &&Placed| placed.id == rule.id && placed.key == key;
        let slot = match known.iter().find(same) {
            Some(placed) => placed.slot,
            None => {
                let slot = free_slot(&in_force.placed, &layout.placed);
                layout.fresh.push(slot);
                slot
            }
        };
        layout.placed.push(Placed { id: rule.id, key, slot });
        place[..KEY_WORDS].copy_from_slice(&key.0);
        place[KEY_WORDS..2 * KEY_WORDS].copy_from_slice(&key.1);
        place[2 * KEY_WORDS] = rule.id;
        place[2 * KEY_WORDS + 1] = treatment(rule, slot).pack();
    }
    Ok(layout)
}

/// There is always one: two tables have no more rules than there are slots.
fn free_slot(in_force: &[Placed], laid_out: &[Placed]) -> u16 {
    let is_taken = |slot: u16| in_force.iter().chain(laid_out).any(|placed| placed.slot == slot);
    let slots = 0..u16::try_from(RULE_SLOTS).unwrap_or(u16::MAX);
    slots.into_iter().find(|slot| !is_taken(*slot)).unwrap_or_default()
}

fn treatment(rule: &Rule, slot: u16) -> KernelTreatment {
    let (output, max_len) = match rule.treatment.output {
        Output::Drop => (KernelOutput::Drop, 0),
        Output::Local => (KernelOutput::Local, 0),
        Output::Normal => (KernelOutput::Normal, 0),
        Output::Controller { max_len } => (KernelOutput::Controller, max_len),
    };
    let queue = rule.treatment.queue.and_then(|queue| u16::try_from(queue).ok());
    KernelTreatment { output, dscp: rule.treatment.dscp, queue, max_len, slot }
}

/// The daemon checks the same; this process has the privilege, so it does not take the daemon's word.
fn check(rule: &Rule) -> Result<(), RuleError> {
    if rule.value.iter().zip(&rule.mask).any(|(value, mask)| value & !mask != 0) {
        return Err(RuleError::Value(rule.id));
    }
    let treatment = rule.treatment;
    let local = PORT_LOCAL.to_be_bytes();
    if rule.mask[..4] == [0xff; 4] && rule.value[..4] == local {
        if treatment.output == Output::Local {
            return Err(RuleError::Loop(rule.id));
        }
        let is_real =
            treatment.dscp.is_none_or(|dscp| dscp < 64) && treatment.queue.is_none_or(|queue| queue < QUEUES);
        return if is_real { Ok(()) } else { Err(RuleError::Mark(rule.id)) };
    }
    let narrows = matches!(treatment.output, Output::Drop | Output::Local)
        && treatment.dscp.is_none()
        && treatment.queue.is_none();
    if narrows { Ok(()) } else { Err(RuleError::Widens(rule.id)) }
}

/// What is known of the table in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// Of the daemon that sent it.
    pub session: u64,
    /// In order.
    pub placed: Vec<Placed>,
}

impl InForce {
    /// Reads it back from the kernel.
    #[must_use]
    pub fn read(table: &TableWords) -> Self {
        let count = usize::try_from(table[0]).unwrap_or(RULES_MAX).min(RULES_MAX);
        let rules = table[TABLE_HEAD_WORDS..].chunks_exact(RULE_WORDS).take(count);
        let placed = rules.map(|rule| {
            let (mut value, mut mask) = ([0; KEY_WORDS], [0; KEY_WORDS]);
            value.copy_from_slice(&rule[..KEY_WORDS]);
            mask.copy_from_slice(&rule[KEY_WORDS..2 * KEY_WORDS]);
            let slot = KernelTreatment::unpack(rule[2 * KEY_WORDS + 1]).slot;
            Placed { id: rule[2 * KEY_WORDS], key: (value, mask), slot }
        });
        Self { session: table[1], placed: placed.collect() }
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::datapath::{KEY_BYTES, Treatment};

    use super::*;

    fn drop_from(id: u64, last: u8) -> Rule {
        let (mut value, mut mask) = ([0; KEY_BYTES], [0; KEY_BYTES]);
        value[10..16].copy_from_slice(&[2, 0, 0, 0, 0, last]);
        mask[10..16].copy_from_slice(&[0xff; 6]);
        Rule { id, value, mask, treatment: Treatment { dscp: None, queue: None, output: Output::Drop } }
    }

    fn own(treatment: Treatment) -> Rule {
        let mut rule = drop_from(9, 1);
        rule.value[..4].copy_from_slice(&PORT_LOCAL.to_be_bytes());
        rule.mask[..4].copy_from_slice(&[0xff; 4]);
        Rule { treatment, ..rule }
    }

    fn after(rules: &[Rule], session: u64, in_force: &InForce) -> (InForce, Vec<u16>) {
        let layout = lay_out(rules, session, in_force).unwrap();
        let read = InForce::read(&layout.words);
        assert_eq!(read, InForce { session, placed: layout.placed });
        (read, layout.fresh)
    }

    #[test]
    fn a_rule_keeps_its_slot_while_it_keeps_its_id_and_key() {
        let (first, fresh) = after(&[drop_from(1, 1), drop_from(2, 2)], 7, &InForce::default());
        assert_eq!(fresh, [0, 1]);
        let (second, fresh) = after(&[drop_from(3, 3), drop_from(2, 2)], 7, &first);
        assert_eq!((second.placed[1].slot, fresh.as_slice()), (1, &[2][..]), "not the slot of one in force");
        let (_, fresh) = after(&[drop_from(2, 9)], 7, &second);
        assert_eq!(fresh.len(), 1, "the same id and another key is another rule");
        let (_, fresh) = after(&[drop_from(2, 2)], 8, &second);
        assert_eq!(fresh.len(), 1, "another session");
    }

    #[test]
    fn two_full_tables_never_share_a_slot_between_rules() {
        let table = |from: u64| -> Vec<Rule> {
            (from..from + 64).map(|id| drop_from(id, u8::try_from(id).unwrap())).collect()
        };
        let (mut in_force, _) = after(&table(0), 1, &InForce::default());
        for from in [64, 96, 128, 10] {
            let (next, _) = after(&table(from), 1, &in_force);
            for placed in &next.placed {
                assert!(in_force.placed.iter().all(|old| old.slot != placed.slot || old.id == placed.id));
            }
            in_force = next;
        }
        assert_eq!(lay_out(&[table(0), table(64)].concat(), 1, &in_force), Err(RuleError::TooMany(128)));
    }

    #[test]
    fn what_would_widen_or_means_nothing_is_refused() {
        let refused = |rule: Rule| lay_out(&[rule], 1, &InForce::default()).unwrap_err();
        let plain = Treatment { dscp: None, queue: None, output: Output::Drop };
        let normal = Treatment { output: Output::Normal, ..plain };
        let shown = Treatment { output: Output::Controller { max_len: 64 }, ..plain };
        let marked = Treatment { dscp: Some(46), output: Output::Local, ..plain };
        let queued = Treatment { queue: Some(1), output: Output::Local, ..plain };
        for treatment in [normal, shown, marked, queued] {
            assert_eq!(refused(Rule { treatment, ..drop_from(1, 1) }), RuleError::Widens(1));
            // Anything but exactly LOCAL can be a sensor's.
            let mut rule = own(treatment);
            rule.mask[3] = 0xfe;
            assert_eq!(refused(rule), RuleError::Widens(9));
        }
        assert_eq!(refused(own(Treatment { output: Output::Local, ..plain })), RuleError::Loop(9));
        assert_eq!(refused(own(Treatment { dscp: Some(64), ..normal })), RuleError::Mark(9));
        assert_eq!(refused(own(Treatment { queue: Some(QUEUES), ..normal })), RuleError::Mark(9));
        assert!(lay_out(&[own(Treatment { dscp: Some(63), ..normal })], 1, &InForce::default()).is_ok());
        let mut rule = drop_from(1, 1);
        rule.value[0] = 1;
        assert_eq!(refused(rule), RuleError::Value(1));
        let twice = [drop_from(1, 1), drop_from(1, 2)];
        assert_eq!(lay_out(&twice, 1, &InForce::default()), Err(RuleError::Twice(1)));
    }
}
