use caregate_host::clock;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Of a live record.
const BYTES: usize = 100;

/// Live records of this delay, a millisecond each, for so long; what of the backlog went meanwhile, in pieces of a KiB.
fn go_on(pace: &mut Pace, now: &mut Instant, span: Duration, delay: Duration) -> usize {
    let (ends, mut bytes) = (*now + span, 0);
    while *now < ends {
        *now += MS;
        pace.live_sent(BYTES, *now);
        pace.live_acked(delay, *now);
        while pace.waits(*now).is_none() {
            pace.sent(1024, *now);
            bytes += 1024;
        }
    }
    bytes
}

/// After the first look.
fn looked(now: &mut Instant, delay: Duration) -> Pace {
    let mut pace = Pace::default();
    assert!(go_on(&mut pace, now, 2 * SLOT, delay) > 0, "it may be soon over");
    go_on(&mut pace, now, MS * 2, delay);
    assert_eq!(go_on(&mut pace, now, DECISION - MS * 5, delay), 0, "it looks");
    assert!(go_on(&mut pace, now, 2 * DECISION, delay) > 0);
    pace
}

#[test]
fn alone_the_backlog_has_all_there_is() {
    let (mut pace, now) = (Pace::default(), clock::monotonic());
    for _ in 0..1_000_000 {
        assert_eq!((pace.waits(now), pace.rate(now)), (None, None));
        pace.sent(1024, now);
    }
    pace.live_sent(BYTES, now);
    assert_eq!((pace.waits(now), pace.rate(now)), (None, Some(RATE_START)), "what went alone is not owed");
    pace.sent(1 << 30, now);
    assert_eq!(pace.waits(now), Some(now + LIVE_LASTS), "nor longer than something live is sent");
    assert_eq!(pace.waits(now + LIVE_LASTS), None);
    pace.live_sent(BYTES, now);
    pace.end();
    assert_eq!(pace.waits(now), None, "nor where the gateway stops");
}

#[test]
fn beside_what_is_live_it_goes_at_its_rate() {
    let mut now = clock::monotonic();
    let mut pace = looked(&mut now, 4 * MS);
    let (rate, bytes) = (pace.rate(now).unwrap(), go_on(&mut pace, &mut now, MS * 100, 4 * MS));
    assert!(bytes.abs_diff(usize::try_from(rate / 10).unwrap()) < 48 << 10, "{rate} {bytes}");
    assert!(pace.waits(now).is_some_and(|until| until <= now + MS), "it goes on in a moment");
}

#[test]
fn it_grows_while_live_records_wait_for_nothing_and_shrinks_when_they_wait() {
    let mut now = clock::monotonic();
    let mut pace = looked(&mut now, 4 * MS);
    go_on(&mut pace, &mut now, 20 * SECOND, 4 * MS);
    assert_eq!(pace.rate(now), Some(RATE_MAX));
    go_on(&mut pace, &mut now, 20 * SECOND, 5 * MS);
    let live = 1000 * BYTES as u64 * TIMES_LIVE;
    assert!(
        pace.rate(now).unwrap().abs_diff(live) < live / 20,
        "twenty times what is live: {:?}",
        pace.rate(now)
    );
    go_on(&mut pace, &mut now, 20 * SECOND, 15 * MS);
    assert_eq!(pace.rate(now), Some(RATE_MIN), "the way is full, and never nothing");
    go_on(&mut pace, &mut now, SECOND, 4 * MS);
    assert!(pace.rate(now) > Some(RATE_MIN));
    pace.begin();
    assert_eq!(pace.rate(now), None);
}

#[test]
fn what_it_aims_at_is_a_tenth_of_the_delay() {
    let mut now = clock::monotonic();
    let mut pace = looked(&mut now, 4 * MS);
    go_on(&mut pace, &mut now, 2 * SECOND, 4 * MS);
    let rates: Vec<_> = [109, 111]
        .map(|delay| {
            let before = pace.rate(now);
            go_on(&mut pace, &mut now, SECOND / 2, delay * MS / 25);
            pace.rate(now).cmp(&before)
        })
        .into();
    assert_eq!(rates, [std::cmp::Ordering::Greater, std::cmp::Ordering::Less]);
}

#[test]
fn where_little_is_live_it_begins_slowly_and_learns_from_few() {
    let (mut pace, mut now) = (Pace::default(), clock::monotonic());
    let second = |pace: &mut Pace, now: &mut Instant| {
        *now += SECOND;
        pace.live_sent(BYTES, *now);
        *now += 4 * MS;
        pace.live_acked(4 * MS, *now);
        pace.rate(*now)
    };
    let first: Vec<_> = (0..8).filter_map(|_| second(&mut pace, &mut now)).collect();
    assert_eq!(first[..2], [RATE_START; 2], "it may be soon over");
    assert_eq!(first[2..5], [RATE_MIN; 3], "nothing is known yet");
    let begins = pace.rate(now);
    assert!(begins >= Some(RATE_START), "{first:?}");
    for _ in 0..20 {
        second(&mut pace, &mut now);
    }
    assert!(pace.rate(now) > begins);
}

#[test]
fn a_way_that_has_become_longer_is_known_as_that_after_ten_minutes() {
    let mut now = clock::monotonic();
    let mut pace = looked(&mut now, 4 * MS);
    go_on(&mut pace, &mut now, MINUTE * 9, 40 * MS);
    assert_eq!(pace.rate(now), Some(RATE_MIN));
    go_on(&mut pace, &mut now, MINUTE * 2, 40 * MS);
    assert!(pace.base.len() <= BASE_MINUTES);
    assert!(pace.rate(now) > Some(RATE_MIN));
}

/// A line that takes so many bytes a second, with one queue for all.
struct Line {
    takes: f64,
    away: Duration,
    queued: f64,
    /// When live records are acknowledged, and how long that took.
    acks: VecDeque<(Instant, Duration)>,
}

impl Line {
    /// For so long, a live record each 5 ms: their delays in order of size, and bytes of the backlog that went.
    fn run(&mut self, pace: &mut Pace, now: &mut Instant, span: Duration) -> (Vec<Duration>, usize) {
        let (ends, mut bytes, mut delays) = (*now + span, 0, Vec::new());
        let mut ms = 0;
        while *now < ends {
            *now += MS;
            ms += 1;
            self.queued = (self.queued - self.takes / 1000.0).max(0.0);
            if ms % 5 == 0 {
                pace.live_sent(BYTES, *now);
                self.queued += BYTES as f64;
                let delay = self.away + Duration::from_secs_f64(self.queued / self.takes);
                self.acks.push_back((*now + delay, delay));
            }
            while let Some((_, delay)) = self.acks.pop_front_if(|(at, _)| *at <= *now) {
                pace.live_acked(delay, *now);
                delays.push(delay);
            }
            while pace.rate(*now).is_some() && pace.waits(*now).is_none() {
                pace.sent(1024, *now);
                self.queued += 1024.0;
                bytes += 1024;
            }
        }
        delays.sort_unstable();
        (delays, bytes)
    }
}

#[test]
fn on_a_line_of_its_own_it_takes_much_of_it_and_live_records_hardly_wait() {
    for (takes, away) in [(1.25e6, 20 * MS), (1.25e6, 200 * MS), (10e6, 20 * MS), (10e6, 200 * MS)] {
        let (mut pace, mut now) = (Pace::default(), clock::monotonic());
        let mut line = Line { takes, away, queued: 0.0, acks: VecDeque::new() };
        line.run(&mut pace, &mut now, MINUTE);
        // Over a look, and long after the first minutes' delays are forgotten.
        let (delays, bytes) = line.run(&mut pace, &mut now, 20 * MINUTE);
        let (median, share) = (delays[delays.len() / 2], bytes as f64 / takes / (20.0 * 60.0));
        println!("{takes} {away:?}: {median:?}, {share:.2}");
        assert!(median <= away + away / 8, "{takes} {away:?}: {median:?}");
        assert!(share > 0.5, "{takes} {away:?}: {share}");
    }
}
