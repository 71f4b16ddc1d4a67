use caregate_protocol::openflow::{Action, BadAction, Command, FlowMod, Instruction, Match, port};

use super::*;
use crate::rule;

/// A switch that does what it is told when asked to, and the wire to it.
#[derive(Default)]
struct Switch {
    flows: Vec<FlowStats>,
    sent: Vec<(u32, Message)>,
    last_xid: u32,
    /// Flow-mods with these cookies are refused.
    refuses: Vec<u64>,
    /// Flow-mods are taken and forgotten.
    is_deaf: bool,
}

const S: fn(u64) -> Duration = Duration::from_secs;

fn refusal() -> ErrorKind {
    ErrorKind::BadAction(BadAction::Eperm)
}

impl Switch {
    fn send(&mut self) -> impl FnMut(&Message) -> u32 + '_ {
        |message| {
            self.last_xid += 1;
            self.sent.push((self.last_xid, message.clone()));
            self.last_xid
        }
    }

    fn sent_words(&self) -> Vec<&'static str> {
        self.sent.iter().map(|(_, message)| message.message_type().as_str()).collect()
    }

    fn take(&mut self, flow_mod: &FlowMod) -> Option<ErrorKind> {
        if self.refuses.contains(&flow_mod.cookie) {
            return Some(refusal());
        }
        let is_it = |flow: &FlowStats| {
            (flow.table_id, flow.priority, &flow.pattern)
                == (flow_mod.table_id, flow_mod.priority, &flow_mod.pattern)
        };
        if self.is_deaf {
            return None;
        }
        self.flows.retain(|flow| !is_it(flow));
        if flow_mod.command == Command::Add {
            self.flows.push(stats(flow_mod));
        }
        None
    }

    /// Carries out what was sent, in its order, and gives the answers to `reconciler`.
    fn answer(&mut self, reconciler: &mut Reconciler, now: Duration) -> Vec<Happened> {
        let mut happened = Vec::new();
        for (xid, message) in std::mem::take(&mut self.sent) {
            if let Message::FlowMod(flow_mod) = message {
                if let Some(kind) = self.take(&flow_mod) {
                    happened.extend(reconciler.handle_error(xid, kind, now));
                }
                continue;
            }
            assert!(reconciler.awaits(xid));
            if let Message::MultipartRequest(_) = message {
                let flows = self.flows.clone();
                happened.extend(reconciler.handle_flows(xid, flows, now, &mut self.send()));
            } else {
                assert_eq!(message, Message::BarrierRequest);
            }
        }
        happened
    }
}

fn stats(flow_mod: &FlowMod) -> FlowStats {
    FlowStats {
        table_id: flow_mod.table_id,
        lasted: S(0).into(),
        priority: flow_mod.priority,
        idle_timeout_s: 0,
        hard_timeout_s: 0,
        flags: 0,
        cookie: flow_mod.cookie,
        packets: 0,
        bytes: 0,
        pattern: flow_mod.pattern.clone(),
        instructions: flow_mod.instructions.clone(),
    }
}

fn wanted(number: u8) -> Rule {
    let intent = format!("i-{number}");
    let instructions = vec![Instruction::ApplyActions(vec![Action::output(port::LOCAL)])];
    let pattern = Match::any().eth_src([2, 0, 0, 0, 0, number]);
    Rule { table: 1, priority: 9, pattern, instructions, cookie: rule::cookie(&intent), intent }
}

fn start(switch: &mut Switch, rules: &[Rule]) -> Reconciler {
    Reconciler::start(1, rules.to_vec(), S(0), &mut switch.send())
}

/// In sync with one rule, at second 0.
fn in_sync(switch: &mut Switch) -> Reconciler {
    let mut reconciler = start(switch, &[wanted(1)]);
    assert_eq!(switch.answer(&mut reconciler, S(0)), []);
    assert_eq!(switch.answer(&mut reconciler, S(0)), [Happened::Confirmed(1)]);
    assert_eq!((reconciler.phase(), reconciler.next_timeout()), (Phase::InSync, S(1)));
    reconciler
}

#[test]
fn reads_writes_and_reads_back_before_anything_counts() {
    let mut switch = Switch::default();
    let mut reconciler = start(&mut switch, &[wanted(1), wanted(2)]);
    assert_eq!(switch.sent_words(), ["OFPT_MULTIPART_REQUEST"]);
    assert_eq!((reconciler.phase(), reconciler.confirmed()), (Phase::Busy, None));
    assert_eq!(switch.answer(&mut reconciler, S(0)), []);
    assert_eq!(
        switch.sent_words(),
        ["OFPT_FLOW_MOD", "OFPT_FLOW_MOD", "OFPT_BARRIER_REQUEST", "OFPT_MULTIPART_REQUEST"]
    );
    assert_eq!((reconciler.phase(), reconciler.differing()), (Phase::Busy, 2));
    assert_eq!(switch.answer(&mut reconciler, S(0)), [Happened::Confirmed(1)]);
    assert_eq!((reconciler.confirmed(), reconciler.differing(), switch.sent.len()), (Some(1), 0, 0));
    assert_eq!(reconciler.flows().total, 2);
}

#[test]
fn a_restart_finds_what_is_there_and_takes_away_what_is_not_wanted_any_more() {
    let mut switch = Switch::default();
    let foreign = FlowStats { cookie: 7, ..stats(&wanted(9).add()) };
    switch.flows = vec![stats(&wanted(1).add()), stats(&wanted(2).add()), foreign.clone()];
    let mut reconciler = start(&mut switch, &[wanted(1)]);
    switch.answer(&mut reconciler, S(0));
    assert_eq!(switch.sent_words(), ["OFPT_FLOW_MOD", "OFPT_BARRIER_REQUEST", "OFPT_MULTIPART_REQUEST"]);
    assert_eq!(switch.answer(&mut reconciler, S(0)), [Happened::Confirmed(1)]);
    assert_eq!(switch.flows, [stats(&wanted(1).add()), foreign]);
}

#[test]
fn new_rules_are_written_at_once_when_nothing_is_under_way() {
    let mut switch = Switch::default();
    let mut reconciler = in_sync(&mut switch);
    let rules = vec![wanted(1), wanted(2)];
    assert_eq!(reconciler.set_rules(2, rules.clone(), S(0), &mut switch.send()), []);
    assert_eq!(switch.sent_words(), ["OFPT_FLOW_MOD", "OFPT_BARRIER_REQUEST", "OFPT_MULTIPART_REQUEST"]);
    assert_eq!(reconciler.confirmed(), Some(1));
    assert_eq!(switch.answer(&mut reconciler, S(0)), [Happened::Confirmed(2)]);
    // The same rules again, for another switch's sake.
    assert_eq!(reconciler.set_rules(3, rules, S(0), &mut switch.send()), [Happened::Confirmed(3)]);
    assert!(switch.sent.is_empty());
}

#[test]
fn new_rules_wait_for_a_reading_or_a_writing_that_is_under_way() {
    let mut switch = Switch::default();
    let mut reconciler = start(&mut switch, &[]);
    assert_eq!(reconciler.set_rules(2, vec![wanted(1)], S(0), &mut switch.send()), []);
    assert_eq!(switch.sent_words(), ["OFPT_MULTIPART_REQUEST"]);
    assert_eq!(switch.answer(&mut reconciler, S(0)), []);
    assert_eq!(reconciler.set_rules(3, vec![wanted(2)], S(0), &mut switch.send()), []);
    // The first rule is written, found to be not wanted any more, and taken away for the second.
    assert_eq!(switch.answer(&mut reconciler, S(0)), []);
    assert_eq!(
        switch.sent_words(),
        ["OFPT_FLOW_MOD", "OFPT_FLOW_MOD", "OFPT_BARRIER_REQUEST", "OFPT_MULTIPART_REQUEST"]
    );
    assert_eq!(switch.answer(&mut reconciler, S(0)), [Happened::Confirmed(3)]);
    assert_eq!(switch.flows, [stats(&wanted(2).add())]);
}

#[test]
fn what_somebody_took_away_comes_back_within_a_reading() {
    let mut switch = Switch::default();
    let mut reconciler = in_sync(&mut switch);
    switch.flows.clear();
    assert_eq!(reconciler.handle_timeout(S(0), &mut switch.send()), [], "not due yet");
    assert!(switch.sent.is_empty());
    assert_eq!(reconciler.handle_timeout(S(1), &mut switch.send()), []);
    assert_eq!(reconciler.phase(), Phase::InSync, "a reading is no doubt");
    assert_eq!(switch.answer(&mut reconciler, S(1)), [Happened::Drifted(1)]);
    assert_eq!(reconciler.phase(), Phase::Busy);
    assert_eq!(switch.answer(&mut reconciler, S(1)), []);
    assert_eq!((reconciler.phase(), switch.flows.len()), (Phase::InSync, 1));
}

#[test]
fn a_refused_rule_is_told_left_out_and_tried_again_later() {
    let mut switch = Switch { refuses: vec![wanted(2).cookie], ..Switch::default() };
    let mut reconciler = start(&mut switch, &[wanted(1), wanted(2)]);
    switch.answer(&mut reconciler, S(0));
    let happened = switch.answer(&mut reconciler, S(0));
    assert_eq!(happened, [Happened::Refused("i-2".into(), refusal()), Happened::Confirmed(1)]);
    assert_eq!(reconciler.refused().keys().collect::<Vec<_>>(), ["i-2"]);
    assert_eq!((reconciler.phase(), switch.flows.len()), (Phase::InSync, 1));
    // Left alone at the next reading, tried again when RETRY_INTERVAL is over.
    reconciler.handle_timeout(S(1), &mut switch.send());
    assert_eq!(switch.answer(&mut reconciler, S(1)), []);
    switch.refuses.clear();
    reconciler.handle_timeout(S(10), &mut switch.send());
    assert_eq!(switch.answer(&mut reconciler, S(10)), [Happened::Drifted(1)]);
    assert_eq!(switch.answer(&mut reconciler, S(10)), []);
    assert_eq!((reconciler.refused().len(), switch.flows.len()), (0, 2));
}

#[test]
fn other_rules_end_a_refusal_of_the_old_ones() {
    let mut switch = Switch { refuses: vec![wanted(2).cookie], ..Switch::default() };
    let mut reconciler = start(&mut switch, &[wanted(2)]);
    switch.answer(&mut reconciler, S(0));
    // While the refusal is on its way, the rule is taken back.
    reconciler.set_rules(2, vec![], S(0), &mut switch.send());
    assert_eq!(switch.answer(&mut reconciler, S(0)), [Happened::Confirmed(2)]);
    assert!(reconciler.refused().is_empty());
}

#[test]
fn a_switch_that_forgets_is_left_alone_after_some_attempts_and_tried_again() {
    let mut switch = Switch { is_deaf: true, ..Switch::default() };
    let mut reconciler = start(&mut switch, &[wanted(1)]);
    let mut rounds = 0;
    let happened = loop {
        rounds += 1;
        let happened = switch.answer(&mut reconciler, S(0));
        if !happened.is_empty() {
            break happened;
        }
    };
    assert_eq!((happened, rounds), (vec![Happened::Diverged(1)], 1 + ATTEMPTS_MAX));
    assert_eq!((reconciler.phase(), reconciler.next_timeout()), (Phase::Waiting, RETRY_INTERVAL));
    assert_eq!((reconciler.confirmed(), reconciler.differing()), (None, 1));
    switch.is_deaf = false;
    reconciler.handle_timeout(S(10), &mut switch.send());
    switch.answer(&mut reconciler, S(10));
    assert_eq!(switch.answer(&mut reconciler, S(10)), [Happened::Confirmed(1)]);
}

#[test]
fn many_changes_go_in_pieces_and_progress_is_no_attempt() {
    let mut switch = Switch::default();
    let count = u8::try_from(CHANGES_MAX + 100).unwrap();
    let rules: Vec<_> = (0..count).map(wanted).collect();
    let mut reconciler = start(&mut switch, &rules);
    switch.answer(&mut reconciler, S(0));
    assert_eq!(switch.sent.len(), CHANGES_MAX + 2);
    assert_eq!(switch.answer(&mut reconciler, S(0)), []);
    assert_eq!(switch.sent.len(), 100 + 2);
    assert_eq!(switch.answer(&mut reconciler, S(0)), [Happened::Confirmed(1)]);
    assert_eq!(switch.flows.len(), usize::from(count));
}

#[test]
fn a_silent_switch_is_asked_again_and_then_less_often() {
    let mut switch = Switch::default();
    let mut reconciler = in_sync(&mut switch);
    reconciler.handle_timeout(S(1), &mut switch.send());
    let lost = switch.sent[0].0;
    for (at, phase) in [(6, Phase::Busy), (11, Phase::Busy), (16, Phase::Waiting)] {
        assert_eq!(reconciler.next_timeout(), S(at));
        switch.sent.clear();
        assert_eq!(reconciler.handle_timeout(S(at), &mut switch.send()), [Happened::TimedOut]);
        assert_eq!(reconciler.phase(), phase, "{at}");
    }
    assert_eq!((reconciler.next_timeout(), switch.sent.len()), (S(26), 0));
    // What was asked for long ago answers nothing.
    assert_eq!(reconciler.handle_flows(lost, vec![], S(17), &mut switch.send()), []);
    assert_eq!(reconciler.phase(), Phase::Waiting);
    reconciler.handle_timeout(S(26), &mut switch.send());
    assert_eq!(switch.answer(&mut reconciler, S(26)), []);
    assert_eq!(reconciler.phase(), Phase::InSync);
}

#[test]
fn rules_that_are_empty_count_only_after_a_reading() {
    let mut switch = Switch::default();
    let mut reconciler = start(&mut switch, &[wanted(1)]);
    for at in [5, 10, 15] {
        reconciler.handle_timeout(S(at), &mut switch.send());
    }
    switch.sent.clear();
    switch.flows = vec![stats(&wanted(1).add())];
    assert_eq!(reconciler.set_rules(2, vec![], S(16), &mut switch.send()), []);
    assert_eq!(switch.sent_words(), ["OFPT_MULTIPART_REQUEST"]);
    switch.answer(&mut reconciler, S(16));
    assert_eq!(switch.answer(&mut reconciler, S(16)), [Happened::Confirmed(2)]);
    assert!(switch.flows.is_empty());
}

#[test]
fn a_switch_that_will_not_say_what_it_holds_confirms_nothing() {
    let mut switch = Switch::default();
    let mut reconciler = start(&mut switch, &[]);
    let (asked, _) = switch.sent.remove(0);
    assert_eq!(reconciler.handle_error(asked, refusal(), S(0)), [Happened::Unreadable(refusal())]);
    assert_eq!((reconciler.phase(), reconciler.confirmed()), (Phase::Waiting, None));
    assert_eq!(reconciler.next_timeout(), RETRY_INTERVAL);
    // The same behind a writing.
    let mut reconciler = in_sync(&mut switch);
    reconciler.set_rules(2, vec![wanted(1), wanted(2)], S(0), &mut switch.send());
    let (asked, _) = switch.sent.pop().unwrap();
    assert_eq!(reconciler.handle_error(asked, refusal(), S(0)), [Happened::Unreadable(refusal())]);
    assert_eq!(reconciler.handle_error(asked, refusal(), S(0)), [], "nobody waits for it any more");
    assert_eq!(reconciler.confirmed(), Some(1));
}

#[test]
fn a_slow_switch_is_read_less_often() {
    let mut switch = Switch::default();
    let mut reconciler = start(&mut switch, &[]);
    assert_eq!(switch.answer(&mut reconciler, S(2)), [Happened::Confirmed(1)]);
    assert_eq!(reconciler.next_timeout(), S(2 + 20));
}

#[test]
fn who_asks_for_a_reading_gets_one_that_begins_later() {
    let mut switch = Switch::default();
    let mut reconciler = start(&mut switch, &[]);
    assert_eq!((reconciler.read(S(0), &mut switch.send()), reconciler.reads_done()), (2, 0));
    assert_eq!(switch.sent.len(), 1, "one is under way");
    switch.answer(&mut reconciler, S(0));
    assert_eq!((reconciler.reads_done(), switch.sent.len()), (1, 1), "and the next follows it");
    switch.answer(&mut reconciler, S(0));
    assert_eq!((reconciler.reads_done(), switch.sent.len()), (2, 0));
    assert_eq!(reconciler.read(S(0), &mut switch.send()), 3);
    assert_eq!(switch.sent.len(), 1, "nothing was under way");
}

#[test]
fn others_flows_are_kept_in_bounds() {
    let mut switch = Switch::default();
    let foreign = FlowStats { cookie: 7, ..stats(&wanted(9).add()) };
    switch.flows = vec![foreign; OTHERS_KEPT_MAX + 5];
    switch.flows.push(stats(&wanted(1).add()));
    let mut reconciler = start(&mut switch, &[wanted(1)]);
    assert_eq!(switch.answer(&mut reconciler, S(0)), [Happened::Confirmed(1)]);
    let flows = reconciler.flows();
    assert_eq!((flows.kept.len(), flows.total), (OTHERS_KEPT_MAX + 1, OTHERS_KEPT_MAX + 6));
}
