use proptest::prelude::*;

use super::*;

const VITALS: Part = Part::Live(Lane::Vitals);

/// What a sender that never has to yield gets.
fn drain(schedule: &mut Schedule, part: Part, lane: Lane, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| match schedule.turn(part, lane, now) {
        Turn::Send(position) => Some(position),
        Turn::Yield(_) | Turn::Idle => None,
    })
    .collect()
}

/// As where nothing live was sent; what live records leave it is tested by itself.
fn backlog(schedule: &mut Schedule, lane: Lane, now: Instant) -> Vec<u64> {
    schedule.pace.begin();
    drain(schedule, Part::Backlog, lane, now)
}

fn connected(parts: &[Part]) -> Schedule {
    let mut schedule = Schedule::default();
    parts.iter().for_each(|part| schedule.connected(*part));
    schedule
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn parts_are_numbered_as_they_are_ordered() {
    assert_eq!(Part::ALL.map(Part::number), [0, 1, 2, 3, 4]);
}

#[test]
fn what_was_there_before_the_connection_is_backlog_and_the_rest_is_live() {
    let now = start();
    let mut schedule = Schedule::new([(0, Lane::Vitals), (1, Lane::Waveform)]);
    schedule.spooled(2, Lane::Vitals, now);
    schedule.connected(VITALS);
    schedule.spooled(3, Lane::Vitals, now);
    assert_eq!(drain(&mut schedule, VITALS, Lane::Vitals, now), [3]);
    assert_eq!(backlog(&mut schedule, Lane::Vitals, now), [0, 2]);
    assert_eq!(backlog(&mut schedule, Lane::Waveform, now), [1]);
}

#[test]
fn a_lane_that_comes_up_or_falls_behind_its_own_backlog_says_so_once() {
    let now = start();
    let mut schedule = Schedule::new([(0, Lane::Vitals)]);
    assert!(schedule.take_behind().is_empty(), "nothing is live yet");
    [VITALS, Part::Live(Lane::Alarm)].into_iter().for_each(|part| schedule.connected(part));
    assert_eq!(schedule.take_behind(), [Lane::Vitals].into());
    assert!(schedule.take_behind().is_empty());
    schedule.spooled(1, Lane::Alarm, now);
    assert!(schedule.take_behind().is_empty());
    assert_eq!(schedule.turn(Part::Live(Lane::Alarm), Lane::Alarm, now + LIVE_AGE_MAX), Turn::Idle);
    assert_eq!(schedule.take_behind(), [Lane::Alarm].into(), "it became backlog");
}

#[test]
fn a_lane_without_its_connection_goes_with_the_backlog_and_the_others_stay_live() {
    let now = start();
    let mut schedule = connected(&[VITALS, Part::Backlog]);
    schedule.spooled(0, Lane::Waveform, now);
    schedule.spooled(1, Lane::Vitals, now);
    assert_eq!(drain(&mut schedule, VITALS, Lane::Vitals, now), [1]);
    assert_eq!(backlog(&mut schedule, Lane::Waveform, now), [0]);
}

#[test]
fn a_live_record_that_waited_too_long_becomes_backlog_whoever_asks() {
    let now = start();
    let alarm = Part::Live(Lane::Alarm);
    let later = now + LIVE_AGE_MAX;
    let mut schedule = connected(&[alarm]);
    schedule.spooled(0, Lane::Alarm, now);
    schedule.spooled(1, Lane::Alarm, later);
    assert_eq!(drain(&mut schedule, alarm, Lane::Alarm, later), [1]);
    assert_eq!(backlog(&mut schedule, Lane::Alarm, later), [0]);

    let mut schedule = connected(&[alarm, Part::Backlog]);
    schedule.spooled(0, Lane::Alarm, now);
    assert_eq!(schedule.turn(Part::Backlog, Lane::Alarm, now), Turn::Yield(later));
    assert_eq!(backlog(&mut schedule, Lane::Alarm, later), [0], "its own connection is stuck");
    assert_eq!(drain(&mut schedule, alarm, Lane::Alarm, later), [] as [u64; 0]);
}

#[test]
fn what_is_less_urgent_waits_for_a_moment_and_not_for_a_stuck_lane() {
    let now = start();
    let (alarm, waveform) = (Part::Live(Lane::Alarm), Part::Live(Lane::Waveform));
    let mut schedule = Schedule::new([(0, Lane::Vitals)]);
    schedule.connected(alarm);
    schedule.connected(waveform);
    schedule.spooled(1, Lane::Waveform, now);
    schedule.spooled(2, Lane::Alarm, now);
    let until = now + YIELD_MAX;
    assert_eq!(schedule.turn(waveform, Lane::Waveform, now), Turn::Yield(until));
    assert_eq!(schedule.turn(Part::Backlog, Lane::Vitals, now), Turn::Yield(until));
    assert_eq!(schedule.turn(Part::Backlog, Lane::Activity, now), Turn::Idle);
    assert_eq!(schedule.turn(alarm, Lane::Alarm, now), Turn::Send(2), "the alarm waits for nobody");
    assert_eq!(
        schedule.turn(Part::Backlog, Lane::Vitals, now),
        Turn::Yield(until),
        "the waveform is there still"
    );
    assert_eq!(schedule.turn(waveform, Lane::Waveform, now), Turn::Send(1));
    schedule.spooled(3, Lane::Alarm, now);
    assert_eq!(schedule.turn(Part::Backlog, Lane::Vitals, now), Turn::Yield(until));
    schedule.pace.begin();
    assert_eq!(
        schedule.turn(Part::Backlog, Lane::Vitals, until),
        Turn::Send(0),
        "the alarm's connection is stuck"
    );
}

#[test]
fn what_was_sent_but_not_acknowledged_is_sent_again_in_order() {
    let now = start();
    let mut schedule = connected(&[VITALS]);
    for position in 0..4 {
        schedule.spooled(position, Lane::Vitals, now);
    }
    assert_eq!(drain(&mut schedule, VITALS, Lane::Vitals, now), [0, 1, 2, 3]);
    schedule.acked(1, 2, now);
    schedule.spooled(4, Lane::Vitals, now);
    schedule.disconnected(VITALS);
    assert_eq!((schedule.waiting(), schedule.oldest_waiting(), schedule.next()), (3, 0, 5));
    schedule.connected(VITALS);
    assert_eq!(backlog(&mut schedule, Lane::Vitals, now), [0, 3, 4]);
}

#[test]
fn a_lost_connection_moves_its_own_records_and_no_others() {
    let now = start();
    let waveform = Part::Live(Lane::Waveform);
    let mut schedule = Schedule::new([(0, Lane::Vitals)]);
    Part::ALL.into_iter().for_each(|part| schedule.connected(part));
    schedule.spooled(1, Lane::Vitals, now);
    schedule.spooled(2, Lane::Waveform, now);
    assert_eq!(drain(&mut schedule, VITALS, Lane::Vitals, now), [1]);
    assert_eq!(drain(&mut schedule, waveform, Lane::Waveform, now), [2]);
    assert_eq!(backlog(&mut schedule, Lane::Vitals, now), [0]);
    schedule.disconnected(VITALS);
    assert!(!schedule.live_connected());
    assert_eq!((schedule.waiting_on(VITALS), schedule.waiting_on(waveform)), (0, 1));
    assert_eq!(backlog(&mut schedule, Lane::Vitals, now), [1], "0 is on its way, and so is 2");
    schedule.disconnected(Part::Backlog);
    assert_eq!(backlog(&mut schedule, Lane::Vitals, now), [0, 1]);
    assert_eq!(schedule.waiting(), 3);
}

#[test]
fn an_acknowledgement_of_everything_is_no_work() {
    let now = start();
    let mut schedule = connected(&[VITALS]);
    schedule.spooled(0, Lane::Vitals, now);
    drain(&mut schedule, VITALS, Lane::Vitals, now);
    schedule.acked(0, u64::MAX, now);
    assert_eq!(schedule.waiting(), 0);
}

proptest! {
    /// However connections come and go, each record that is not acknowledged is in one place, and none comes from nothing.
    #[test]
    fn nothing_is_forgotten_and_nothing_is_in_two_places(
        steps in proptest::collection::vec((0_u8..6, 0_usize..5, 0_usize..4), 0..300),
    ) {
        let mut now = start();
        let mut schedule = Schedule::default();
        let mut up = [false; 5];
        let (mut next, mut unacked) = (0_u64, BTreeSet::new());
        let mut sent: Vec<(usize, u64)> = Vec::new();
        for (step, number, lane) in steps {
            let (part, lane) = (Part::ALL[number], Lane::ALL[lane]);
            match step {
                0 => { schedule.connected(part); up[number] = true; }
                1 => {
                    schedule.disconnected(part);
                    up[number] = false;
                    sent.retain(|(on, _)| *on != number);
                }
                2 => { schedule.spooled(next, lane, now); unacked.insert(next); next += 1; }
                3 => for lane in part.lanes() {
                    if let (true, Turn::Send(position)) = (up[number], schedule.turn(part, lane, now)) {
                        prop_assert!(unacked.contains(&position));
                        prop_assert!(sent.iter().all(|(_, other)| *other != position), "{} is on two ways", position);
                        sent.push((number, position));
                    }
                },
                4 => now += Duration::from_millis(700),
                _ => if let Some((_, position)) = sent.pop() {
                    schedule.acked(position, position, now);
                    unacked.remove(&position);
                },
            }
            prop_assert_eq!(schedule.waiting(), unacked.len());
            let on_all: usize = Part::ALL.into_iter().map(|part| schedule.waiting_on(part)).sum();
            prop_assert_eq!(on_all, unacked.len());
            prop_assert_eq!(schedule.oldest_waiting(), unacked.first().copied().unwrap_or(next));
        }
    }
}

#[test]
fn on_a_congested_way_records_go_together_and_an_alarm_at_once() {
    let now = start();
    let (alarm, waveform) = (Part::Live(Lane::Alarm), Part::Live(Lane::Waveform));
    let mut schedule = connected(&[alarm, VITALS, waveform, Part::Backlog]);
    for part in Part::ALL {
        schedule.congested(part, true);
    }
    let at = |ms: u64| now + Duration::from_millis(ms);
    schedule.spooled(0, Lane::Vitals, now);
    assert_eq!(schedule.turn(VITALS, Lane::Vitals, now), Turn::Yield(at(50)));
    schedule.spooled(1, Lane::Waveform, now);
    schedule.spooled(2, Lane::Vitals, at(30));
    schedule.spooled(3, Lane::Alarm, at(30));
    assert_eq!(drain(&mut schedule, alarm, Lane::Alarm, at(30)), [3]);
    assert!(drain(&mut schedule, VITALS, Lane::Vitals, at(49)).is_empty());
    // The oldest's time is over, and all that came meanwhile goes with it.
    assert_eq!(drain(&mut schedule, VITALS, Lane::Vitals, at(50)), [0, 2]);
    schedule.spooled(4, Lane::Vitals, at(51));
    assert_eq!(schedule.turn(VITALS, Lane::Vitals, at(51)), Turn::Yield(at(101)));
    // Who waits for company holds up nobody: neither does it make those below it wait.
    assert_eq!(schedule.turn(waveform, Lane::Waveform, at(100)), Turn::Yield(at(250)));
    assert_eq!(schedule.turn(Part::Backlog, Lane::Activity, at(100)), Turn::Idle);
    schedule.congested(VITALS, false);
    assert_eq!(drain(&mut schedule, VITALS, Lane::Vitals, at(60)), [4], "at once where nothing is congested");
    assert_eq!(drain(&mut schedule, waveform, Lane::Waveform, at(250)), [1]);
}

#[test]
fn the_backlog_does_not_wait_for_records_that_wait_for_company() {
    let now = start();
    let mut schedule = Schedule::new([(0, Lane::Activity)]);
    [VITALS, Part::Backlog].into_iter().for_each(|part| schedule.connected(part));
    schedule.congested(VITALS, true);
    schedule.spooled(1, Lane::Vitals, now);
    assert_eq!(backlog(&mut schedule, Lane::Activity, now), [0]);
}

#[test]
fn what_is_let_go_is_sent_nowhere() {
    let now = start();
    let mut schedule = Schedule::new([(0, Lane::Vitals), (1, Lane::Vitals)]);
    [VITALS, Part::Backlog].into_iter().for_each(|part| schedule.connected(part));
    assert!((2..5).all(|position| schedule.spooled(position, Lane::Vitals, now)));
    assert_eq!(schedule.turn(VITALS, Lane::Vitals, now), Turn::Send(2));
    schedule.expired(&[0, 2, 3].into());
    assert_eq!((schedule.waiting(), schedule.oldest_waiting()), (2, 1));
    assert_eq!(drain(&mut schedule, VITALS, Lane::Vitals, now), [4]);
    assert_eq!(backlog(&mut schedule, Lane::Vitals, now), [1]);
}

#[test]
fn the_backlog_goes_at_the_rate_that_live_records_leave_it_and_alone_at_any() {
    let (now, number) = (start(), 40);
    let waveforms = (0..number).map(|position| (position, Lane::Waveform));
    let mut schedule = Schedule::new(waveforms.chain([(number, Lane::Vitals), (number + 1, Lane::Vitals)]));
    schedule.connected(Part::Backlog);
    schedule.connected(VITALS);
    let send = |schedule: &mut Schedule, lane, now| {
        let mut sent = Vec::new();
        while let Turn::Send(position) = schedule.turn(Part::Backlog, lane, now) {
            schedule.measured(Part::Backlog, lane, 1 << 20, now);
            sent.push(position);
        }
        sent
    };
    schedule.spooled(number + 2, Lane::Vitals, now);
    assert_eq!(drain(&mut schedule, VITALS, Lane::Vitals, now), [number + 2]);
    // Live records go on.
    let live = |schedule: &mut Schedule, now: Instant| {
        (0..3)
            .for_each(|n| schedule.measured(VITALS, Lane::Vitals, 100, now + Duration::from_millis(250 * n)));
    };
    live(&mut schedule, now);
    let now = now + Duration::from_millis(500);
    assert!(matches!(schedule.turn(Part::Backlog, Lane::Waveform, now), Turn::Yield(until) if until > now));
    schedule.spooled(number + 3, Lane::Alarm, now);
    assert_eq!(schedule.turn(Part::Backlog, Lane::Alarm, now), Turn::Send(number + 3), "its lane is down");
    schedule.measured(Part::Backlog, Lane::Alarm, 1 << 20, now);
    let later = now + Duration::from_secs(1);
    assert_eq!(
        schedule.turn(Part::Backlog, Lane::Waveform, later),
        Turn::Yield(later + YIELD_MAX),
        "vitals first"
    );
    assert_eq!(send(&mut schedule, Lane::Vitals, later), [number], "a MiB is more than goes at once");
    assert_eq!(send(&mut schedule, Lane::Waveform, later), [] as [u64; 0]);
    // Nothing live is sent any more.
    let alone = now + Duration::from_secs(3);
    assert_eq!(send(&mut schedule, Lane::Waveform, alone).len(), 40);
    // A new connection begins anew with all that was not acknowledged.
    schedule.disconnected(Part::Backlog);
    schedule.connected(Part::Backlog);
    assert_eq!(send(&mut schedule, Lane::Vitals, later), [number, number + 1]);
    assert_eq!(send(&mut schedule, Lane::Waveform, later).len(), 40);
    // The gateway stops.
    schedule.disconnected(Part::Backlog);
    schedule.connected(Part::Backlog);
    live(&mut schedule, alone);
    let alone = alone + Duration::from_millis(500);
    assert_eq!(send(&mut schedule, Lane::Waveform, alone), [] as [u64; 0]);
    schedule.end();
    assert_eq!(send(&mut schedule, Lane::Waveform, alone).len(), 40);
}
