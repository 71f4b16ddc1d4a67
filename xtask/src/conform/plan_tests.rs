use super::*;

const AT_ONCE: AtOnce = AtOnce { one: 2, light: 2 };

fn case(group: Group, name: &str, pktps: u32) -> Case {
    Case { group, file: format!("{}/x.json", group.name()), name: name.into(), pktps }
}

/// Runs a plan to its end; `passes` says the verdict of the nth time that a side runs a case. What ran, in order.
fn play(plan: &mut Plan, mut passes: impl FnMut(Side, &str, usize) -> bool) -> Vec<(Side, String)> {
    let mut ran: Vec<(Side, String)> = Vec::new();
    loop {
        let turns: Vec<_> = plan.sides.clone().into_iter().map(|side| (side, plan.take(side))).collect();
        if turns.iter().all(|(_, turn)| *turn == Turn::Done) {
            return ran;
        }
        assert!(turns.iter().any(|(_, turn)| matches!(turn, Turn::Run(_))), "stuck: {plan:?}");
        for (side, turn) in turns {
            if let Turn::Run(at) = turn {
                let name = plan.cases[at].name.clone();
                let before = ran.iter().filter(|run| **run == (side, name.clone())).count();
                plan.give(side, at, passes(side, &name, before), 1.0);
                ran.push((side, name));
            }
        }
    }
}

#[test]
fn a_case_that_both_pass_runs_once_a_side() {
    let mut plan = Plan::new(vec![case(Group::Match, "a", 0)], &[Side::Ours, Side::Ovs], 2, AT_ONCE);
    let ran = play(&mut plan, |_, _, _| true);
    assert_eq!(ran, [(Side::Ours, "a".to_owned()), (Side::Ovs, "a".to_owned())]);
    let summary = plan.summary();
    assert_eq!(summary["total"], 1);
    assert_eq!(summary["passed"], 1);
    assert_eq!(summary["groups"]["match"], json!({"total": 1, "passed": 1, "ovs_passed": 1}));
    assert_eq!(summary["groups"]["meter"], json!({"total": 0, "passed": 0, "ovs_passed": 0}));
    assert_eq!(summary["ovs_only"], json!([]));
}

#[test]
fn what_fails_for_us_counts_against_us_where_they_pass_twice() {
    for (second, expected) in [(true, json!(["match/x: a"])), (false, json!([]))] {
        let mut plan = Plan::new(vec![case(Group::Match, "a", 0)], &[Side::Ours, Side::Ovs], 2, AT_ONCE);
        let ran = play(&mut plan, |side, _, before| side == Side::Ovs && (before == 0 || second));
        assert_eq!(ran.iter().filter(|(side, _)| *side == Side::Ovs).count(), 2);
        assert_eq!(ran.iter().filter(|(side, _)| *side == Side::Ours).count(), 1);
        let summary = plan.summary();
        assert_eq!(summary["ovs_only"], expected);
        assert_eq!((&summary["passed"], &summary["ovs_passed"]), (&json!(0), &json!(1)));
        assert_eq!(plan.unsteady().is_empty(), second);
    }
}

#[test]
fn what_they_fail_too_is_not_asked_again() {
    let mut plan = Plan::new(vec![case(Group::Action, "a", 0)], &[Side::Ours, Side::Ovs], 2, AT_ONCE);
    assert_eq!(play(&mut plan, |_, _, _| false).len(), 2);
    assert_eq!(plan.summary()["ovs_only"], json!([]));
}

#[test]
fn the_best_of_three_counts_for_groups_alone_and_for_both() {
    for (group, passed, ran) in [(Group::Group, 1, 3), (Group::Meter, 0, 1)] {
        for side in [Side::Ours, Side::Ovs] {
            let mut plan = Plan::new(vec![case(group, "a", 175)], &[side], 1, AT_ONCE);
            assert_eq!(play(&mut plan, |_, _, before| before == 2).len(), ran);
            let key = if side == Side::Ours { "passed" } else { "ovs_passed" };
            let other = if side == Side::Ours { "ovs_passed" } else { "passed" };
            assert_eq!(plan.summary()[key], passed);
            assert_eq!(plan.summary()[other], Value::Null);
        }
    }
    let mut plan = Plan::new(vec![case(Group::Group, "a", 175)], &[Side::Ours], 1, AT_ONCE);
    assert_eq!(play(&mut plan, |_, _, _| false).len(), 3);
}

#[test]
fn one_side_alone_runs_as_often_as_asked() {
    let mut plan = Plan::new(vec![case(Group::Match, "a", 0)], &[Side::Ours], 3, AT_ONCE);
    assert_eq!(play(&mut plan, |_, _, before| before != 1).len(), 3);
    assert_eq!(plan.unsteady(), ["match/x: a"]);
    // The first run is the result.
    assert_eq!(plan.summary()["passed"], 1);
}

#[test]
fn loads_come_one_after_the_other_and_the_heaviest_alone() {
    let cases = vec![
        case(Group::Meter, "heavy", 20_000),
        case(Group::Meter, "light", 2_000),
        case(Group::Match, "one", 0),
        case(Group::Match, "two", 0),
        case(Group::Match, "three", 0),
        case(Group::Meter, "heavier", 17_500),
    ];
    let mut plan = Plan::new(cases, &[Side::Ours], 1, AT_ONCE);
    // Three of 0.3 s two at once, one of 31 s, two of 31 s one at a time, and a second after each.
    assert!((plan.seconds_left(1.0) - (3.0 * 1.3 + 32.0) / 2.0 - 64.0).abs() < 1e-6);
    assert_eq!([plan.take(Side::Ours), plan.take(Side::Ours)], [Turn::Run(2), Turn::Run(3)]);
    assert_eq!(plan.take(Side::Ours), Turn::Wait, "two at once");
    plan.give(Side::Ours, 2, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Run(4));
    plan.give(Side::Ours, 3, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Wait, "one that runs keeps the next load back");
    plan.give(Side::Ours, 4, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Run(1));
    plan.give(Side::Ours, 1, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Run(0));
    assert_eq!(plan.take(Side::Ours), Turn::Wait, "alone");
    assert_eq!(plan.take(Side::Ovs), Turn::Wait);
    plan.give(Side::Ours, 0, false, 1.0);
    assert_eq!(plan.so_far(Side::Ours), (5, 4));
    // Its like took 1 s.
    assert!((plan.seconds_left(0.5) - 1.5).abs() < 1e-6);
    assert!(!plan.is_done());
    assert_eq!(plan.take(Side::Ours), Turn::Run(5));
    plan.give(Side::Ours, 5, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Done);
    assert!(plan.is_done());
}
