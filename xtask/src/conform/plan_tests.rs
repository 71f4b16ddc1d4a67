use super::*;

const LABS: usize = 2;

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
    let mut plan = Plan::new(vec![case(Group::Match, "a", 0)], &[Side::Ours, Side::Ovs], 2, LABS);
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
        let mut plan = Plan::new(vec![case(Group::Match, "a", 0)], &[Side::Ours, Side::Ovs], 2, LABS);
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
    let mut plan = Plan::new(vec![case(Group::Action, "a", 0)], &[Side::Ours, Side::Ovs], 2, LABS);
    assert_eq!(play(&mut plan, |_, _, _| false).len(), 2);
    assert_eq!(plan.summary()["ovs_only"], json!([]));
}

#[test]
fn the_best_of_three_counts_for_groups_alone_and_for_both() {
    for (group, passed, ran) in [(Group::Group, 1, 3), (Group::Meter, 0, 1)] {
        for side in [Side::Ours, Side::Ovs] {
            let mut plan = Plan::new(vec![case(group, "a", 175)], &[side], 1, LABS);
            assert_eq!(play(&mut plan, |_, _, before| before == 2).len(), ran);
            let key = if side == Side::Ours { "passed" } else { "ovs_passed" };
            let other = if side == Side::Ours { "ovs_passed" } else { "passed" };
            assert_eq!(plan.summary()[key], passed);
            assert_eq!(plan.summary()[other], Value::Null);
        }
    }
    let mut plan = Plan::new(vec![case(Group::Group, "a", 175)], &[Side::Ours], 1, LABS);
    assert_eq!(play(&mut plan, |_, _, _| false).len(), 3);
}

#[test]
fn one_side_alone_runs_as_often_as_asked() {
    let mut plan = Plan::new(vec![case(Group::Match, "a", 0)], &[Side::Ours], 3, LABS);
    assert_eq!(play(&mut plan, |_, _, before| before != 1).len(), 3);
    assert_eq!(plan.unsteady(), ["match/x: a"]);
    // The first run is the result.
    assert_eq!(plan.summary()["passed"], 1);
}

#[test]
fn slow_senders_run_together_and_the_fastest_alone() {
    let cases = vec![
        case(Group::Meter, "20,000", 20_000),
        case(Group::Meter, "5,000", 5_000),
        case(Group::Match, "one", 0),
        case(Group::Match, "two", 0),
        case(Group::Meter, "3,000", 3_000),
        case(Group::Meter, "17,500", 17_500),
    ];
    let mut plan = Plan::new(cases, &[Side::Ours], 1, LABS);
    // Two of 0.3 s and four of 31 s with a second after each; 3,000 frames a second are less than a lab's share of 8,000.
    let expected = 2.0 * 1.3 * 0.5 + 32.0 * (0.5 + 5.0 / 8.0 + 1.0 + 1.0);
    assert!((plan.seconds_left(1.0) - expected).abs() < 1e-6);
    assert_eq!([plan.take(Side::Ours), plan.take(Side::Ours)], [Turn::Run(2), Turn::Run(3)]);
    plan.give(Side::Ours, 2, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Wait, "one frame that is out keeps those that send back");
    plan.give(Side::Ours, 3, true, 1.0);
    assert_eq!([plan.take(Side::Ours), plan.take(Side::Ours)], [Turn::Run(4), Turn::Run(1)]);
    assert_eq!(plan.take(Side::Ours), Turn::Wait, "8,000 together");
    plan.give(Side::Ours, 4, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Wait, "alone, not beside 5,000");
    plan.give(Side::Ours, 1, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Run(5));
    assert_eq!(plan.take(Side::Ours), Turn::Wait, "alone");
    assert_eq!(plan.take(Side::Ovs), Turn::Wait);
    plan.give(Side::Ours, 5, false, 1.0);
    assert_eq!(plan.so_far(Side::Ours), (5, 4));
    // Its like took 1 s.
    assert!((plan.seconds_left(0.5) - 1.5).abs() < 1e-6);
    assert!(!plan.is_done());
    assert_eq!(plan.take(Side::Ours), Turn::Run(0));
    plan.give(Side::Ours, 0, true, 1.0);
    assert_eq!(plan.take(Side::Ours), Turn::Done);
    assert!(plan.is_done());
}

#[test]
fn a_second_run_waits_for_the_fastest_to_end() {
    let cases = vec![case(Group::Meter, "20,000", 20_000), case(Group::Match, "one", 0)];
    let mut plan = Plan::new(cases, &[Side::Ours, Side::Ovs], 2, LABS);
    let ran = play(&mut plan, |side, _, _| side == Side::Ovs);
    assert_eq!(ran.len(), 6);
    assert_eq!(plan.summary()["ovs_only"].as_array().map(Vec::len), Some(2));
}

#[test]
fn what_falls_short_is_said() {
    let summary = |passed: u64, meters: u64, only: &[&str]| {
        json!({"passed": passed, "ovs_only": only, "groups": {
            "meter": {"total": 36, "passed": meters}, "group": {"total": 15, "passed": 15},
        }})
    };
    assert!(shortfall(&summary(740, 36, &[]), true).is_ok());
    assert!(shortfall(&summary(51, 36, &[]), false).is_ok());
    let said = |summary: &Value| shortfall(summary, true).unwrap_err().to_string();
    assert!(said(&summary(739, 36, &[])).contains("739 cases"));
    assert!(said(&summary(740, 35, &[])).contains("cases of meter fail"));
    assert!(said(&summary(740, 36, &["match/x: a"])).contains("match/x: a"));
    assert!(said(&json!({"passed": null})).contains("not asked"));
}
