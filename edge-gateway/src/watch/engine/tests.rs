mod away;
mod clock;
mod late;

use caregate_protocol::alarm::{ALARMS_MAX, Category, Consciousness, Kind, Priority, Scale, Score, State};
use proptest::prelude::*;

use super::defaults::{HEART_RATE, PULSE_RATE, RESPIRATORY_RATE, SPO2, SYSTOLIC, TEMPERATURE};
use super::patient::SKIPPED;
use super::*;

const PATIENT: PatientId = PatientId([1; 16]);
const DOMAIN: RecipientId = RecipientId([9; 20]);
const FALL: u16 = 513;
const BUTTON: u16 = 514;
const LEADS_OFF: u16 = 515;
const ECG_II: u16 = 258;
const START_US: i64 = 1_790_000_000_000_000;

/// An engine with its clock, and what it said last.
struct Ward {
    engine: Engine,
    at: Duration,
    /// By how much the wall clock was set.
    set_us: i64,
    standing: Option<Standing>,
}

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

impl Ward {
    fn new() -> Self {
        Self::with(Engine::default())
    }

    fn with(engine: Engine) -> Self {
        Self { engine, at: Duration::ZERO, set_us: 0, standing: None }
    }

    fn now(&self) -> Now {
        Now { at: self.at, unix_us: START_US + self.set_us + i64::try_from(self.at.as_micros()).unwrap() }
    }

    fn look(&mut self) {
        for told in self.engine.told(self.now()) {
            assert_eq!(told.patient, PATIENT);
            let before = self.standing.replace(told.standing.clone());
            assert!(before.is_none_or(|before| before.at_us < told.standing.at_us));
            assert_eq!(Standing::decode(&told.standing.encode()), Ok(told.standing));
        }
    }

    fn see(&mut self, device: &str, quantity: u16, what: What) {
        let seen = Observation {
            patient: PATIENT,
            device: DeviceId::new(device).unwrap(),
            quantity,
            what,
            is_withheld: device.starts_with("therapy"),
            seq: None,
            sensor_us: None,
            received_us: self.now().unix_us,
        };
        self.engine.observe(&seen, self.now());
        self.look();
    }

    fn value(&mut self, quantity: u16, value: f64) {
        self.see("monitor-1", quantity, What::Numeric(value));
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.at += Duration::from_secs(1);
            self.engine.tick(self.now());
            self.look();
        }
    }

    /// A value each second.
    fn hold(&mut self, quantity: u16, value: f64, seconds: u64) {
        for _ in 0..seconds {
            self.value(quantity, value);
            self.pass(1);
        }
    }

    fn act(&mut self, sequence: u64, action: Action) -> Result<(), &'static str> {
        let done = self.engine.command(PATIENT, (DOMAIN, sequence), &action, None, self.now());
        self.look();
        done
    }

    fn alarms(&self) -> Vec<(Kind, Priority, State)> {
        let alarms = self.standing.iter().flat_map(|standing| &standing.alarms);
        alarms.map(|alarm| (alarm.kind, alarm.priority, alarm.state)).collect()
    }

    fn texts(&self) -> Vec<String> {
        self.standing.iter().flat_map(|standing| &standing.alarms).map(Alarm::text).collect()
    }
}

#[test]
fn a_limit_alarm_waits_is_acknowledged_and_ends() {
    let mut ward = Ward::new();
    ward.hold(SPO2, 96.0, 5);
    ward.hold(SPO2, 85.0, 9);
    assert!(ward.alarms().is_empty(), "10 s are not over");
    ward.hold(SPO2, 85.0, 2);
    assert_eq!(ward.texts(), ["** SpO2 85 < 90"]);
    ward.act(1, Action::Acknowledge { alarms: vec![] }).unwrap();
    assert_eq!(ward.alarms(), [(Kind::Low, Priority::Medium, State::Acknowledged)]);
    ward.hold(SPO2, 90.5, 2);
    assert_eq!(ward.alarms().len(), 1, "it has not come back by one");
    ward.hold(SPO2, 92.0, 1);
    assert!(ward.alarms().is_empty());
    ward.hold(SPO2, 85.0, 12);
    assert_eq!(
        ward.alarms(),
        [(Kind::Low, Priority::Medium, State::Active)],
        "a new one, which nobody has seen"
    );
}

#[test]
fn an_extreme_takes_the_plain_ones_place_and_gives_it_back() {
    let mut ward = Ward::new();
    ward.hold(SPO2, 85.0, 12);
    ward.hold(SPO2, 78.0, 12);
    assert_eq!(ward.texts(), ["*** SpO2 78 < 80"]);
    ward.hold(SPO2, 85.0, 2);
    assert_eq!(ward.texts(), ["** SpO2 85 < 90"]);
}

#[test]
fn asystole_latches_until_somebody_acknowledges_also_through_a_restart() {
    let mut ward = Ward::new();
    ward.hold(HEART_RATE, 70.0, 5);
    ward.hold(HEART_RATE, 0.0, 6);
    assert_eq!(ward.alarms(), [(Kind::Asystole, Priority::High, State::Active)]);
    ward.hold(HEART_RATE, 70.0, 3);
    assert_eq!(ward.alarms(), [(Kind::Asystole, Priority::High, State::Latched)]);
    let kept = ward.engine.kept(&PATIENT).unwrap();
    let kept: Kept = serde_json::from_slice(&serde_json::to_vec(&kept).unwrap()).unwrap();
    let mut again = Ward::with(Engine::new(Site::default(), [(PATIENT, kept)]));
    again.pass(1);
    assert_eq!(again.alarms(), [(Kind::Asystole, Priority::High, State::Latched)]);
    let number = again.standing.as_ref().unwrap().alarms[0].number;
    again.act(1, Action::Acknowledge { alarms: vec![number + 1] }).unwrap();
    assert_eq!(again.alarms().len(), 1, "another one was meant");
    again.act(2, Action::Acknowledge { alarms: vec![number] }).unwrap();
    assert!(again.alarms().is_empty());
    again.hold(HEART_RATE, 0.0, 6);
    assert!(again.standing.as_ref().unwrap().alarms[0].number > number, "a number is never used again");
}

#[test]
fn what_happens_once_stays_until_it_is_seen() {
    let mut ward = Ward::new();
    ward.see("belt-1", FALL, What::Event);
    ward.see("belt-1", FALL, What::Event);
    ward.see("belt-1", BUTTON, What::Event);
    ward.pass(100);
    assert_eq!(ward.texts(), ["** FALL", "** CALL BUTTON"]);
    ward.act(1, Action::Acknowledge { alarms: vec![] }).unwrap();
    assert!(ward.alarms().is_empty());
}

#[test]
fn signal_loss_is_told_within_ten_seconds_and_silences_the_limit() {
    let mut ward = Ward::new();
    ward.hold(SPO2, 96.0, 5);
    ward.hold(SPO2, 85.0, 12);
    assert_eq!(ward.alarms().len(), 1);
    ward.pass(8);
    assert_eq!(
        ward.texts(),
        ["** SpO2: no data (monitor-1)"],
        "9 s since the newest value, which says nothing any more"
    );
    ward.act(1, Action::Acknowledge { alarms: vec![] }).unwrap();
    ward.pass(100);
    assert!(ward.alarms().is_empty(), "it was taken off, and somebody knows");
    ward.hold(SPO2, 96.0, 5);
    ward.pass(9);
    assert_eq!(ward.alarms(), [(Kind::NoData, Priority::Medium, State::Active)]);
    ward.value(SPO2, 96.0);
    assert!(ward.alarms().is_empty(), "it is back");
    let none = BTreeMap::from([(PATIENT, BTreeSet::new())]);
    ward.pass(9);
    assert_eq!(ward.alarms().len(), 1);
    ward.engine.follow(&none);
    ward.pass(1);
    assert!(ward.alarms().is_empty(), "it is not worn any more");
}

#[test]
fn leads_off_ends_with_a_heart_rate_and_implausible_values_after_a_while() {
    let mut ward = Ward::new();
    ward.see("monitor-1", LEADS_OFF, What::Event);
    ward.see("monitor-1", ECG_II, What::Waveform);
    ward.value(HEART_RATE, 0.0);
    assert_eq!(ward.texts(), ["** Leads off (monitor-1)"]);
    ward.value(HEART_RATE, 60.0);
    assert!(ward.alarms().is_empty());
    ward.engine.implausible(PATIENT, &device("monitor-1"), ward.now());
    ward.pass(20);
    ward.engine.implausible(PATIENT, &device("monitor-1"), ward.now());
    ward.pass(29);
    assert_eq!(ward.texts(), ["* Implausible values (monitor-1)"]);
    ward.pass(1);
    assert!(ward.alarms().is_empty());
}

#[test]
fn the_pulse_is_watched_where_there_is_no_heart_rate() {
    let mut ward = Ward::new();
    for _ in 0..15 {
        ward.value(HEART_RATE, 130.0);
        ward.see("finger-1", PULSE_RATE, What::Numeric(131.0));
        ward.pass(1);
    }
    assert_eq!(ward.texts(), ["** Heart rate 130 > 120"]);
    for _ in 0..15 {
        ward.see("finger-1", PULSE_RATE, What::Numeric(131.0));
        ward.pass(1);
    }
    assert!(ward.texts().contains(&"** Pulse rate 131 > 120".to_owned()), "{:?}", ward.texts());
}

#[test]
fn news2_needs_to_know_whom_it_scores_and_alarms_by_threshold() {
    let mut ward = Ward::new();
    ward.value(SYSTOLIC, 95.0);
    ward.value(TEMPERATURE, 39.5);
    ward.pass(1);
    let score = |ward: &Ward| ward.standing.as_ref().unwrap().score;
    assert!(matches!(score(&ward), Score::Refused(_)));
    let adult = |pregnant| Action::Profile { category: Category::Adult, pregnant, scale: Scale::One };
    ward.act(1, adult(false)).unwrap();
    ward.pass(1);
    let parts = [None, None, None, Some(2), None, None, Some(2)];
    assert_eq!(score(&ward), Score::Sum { total: 4, parts }, "partial");
    ward.act(2, Action::Oxygen { given: true }).unwrap();
    ward.act(3, Action::Consciousness { found: Consciousness::Alert }).unwrap();
    ward.pass(29);
    assert!(ward.alarms().iter().all(|(kind, ..)| *kind != Kind::Score), "30 s are not over");
    ward.pass(2);
    assert!(ward.texts().contains(&"** NEWS2 6 ≥ 5".to_owned()), "{:?}", ward.texts());
    ward.act(4, Action::Consciousness { found: Consciousness::Voice }).unwrap();
    ward.pass(32);
    assert!(ward.texts().contains(&"*** NEWS2 9 ≥ 7".to_owned()), "{:?}", ward.texts());
    ward.act(5, adult(true)).unwrap();
    ward.pass(2);
    assert!(matches!(score(&ward), Score::Refused(_)));
    assert!(ward.alarms().iter().all(|(kind, ..)| *kind != Kind::Score), "in pregnancy it says nothing");
}

/// What a patient keeps from who may see alarms still alarms: they are told that a limit was passed, and no number.
#[test]
fn a_withheld_series_alarms_without_its_number_and_counts_in_no_score() {
    let mut ward = Ward::new();
    let adult = Action::Profile { category: Category::Adult, pregnant: false, scale: Scale::One };
    ward.act(1, adult).unwrap();
    ward.value(SYSTOLIC, 120.0);
    for _ in 0..40 {
        ward.see("therapy-1", HEART_RATE, What::Numeric(161.5));
        ward.pass(1);
    }
    assert_eq!(ward.texts(), ["*** Heart rate > 150"]);
    let told = |ward: &Ward| ward.standing.clone().unwrap();
    assert_eq!(told(&ward).alarms[0].value, None);
    assert_eq!(told(&ward).score, Score::sum([None, None, None, Some(0), None, None, None]));
    for _ in 0..6 {
        ward.see("therapy-1", HEART_RATE, What::Numeric(0.0));
        ward.pass(1);
    }
    assert_eq!(ward.texts(), ["*** ASYSTOLE"], "nobody dies of discretion");
    assert_eq!(told(&ward).alarms[0].value, None);
    // The same from another device, of which the patient said nothing.
    ward.hold(HEART_RATE, 161.5, 40);
    assert!(ward.texts().contains(&"*** Heart rate 161.5 > 150".to_owned()), "{:?}", ward.texts());
    assert_eq!(told(&ward).score, Score::sum([None, None, None, Some(0), Some(3), None, None]));
}

#[test]
fn commands_count_once_are_checked_and_are_confirmed() {
    let mut ward = Ward::new();
    ward.value(SPO2, 96.0);
    let handled = |ward: &Ward| ward.standing.as_ref().unwrap().handled.clone();
    let pause = |seconds| Action::Pause { seconds };
    assert_eq!(ward.act(5, pause(60)), Ok(()));
    assert_eq!(ward.act(5, pause(0)), Err("replayed"));
    assert_eq!(ward.act(4, pause(0)), Err("replayed"));
    let until = |ward: &Ward| ward.standing.as_ref().unwrap().settings.paused_until_us;
    assert_eq!(until(&ward), Some(START_US + 60_000_000));
    assert_eq!(handled(&ward), [Handled { domain: DOMAIN, sequence: 5, refused: None }]);
    assert_eq!(ward.act(6, pause(601)), Err("pause"));
    assert_eq!(handled(&ward), [Handled { domain: DOMAIN, sequence: 6, refused: Some("pause".into()) }]);
    let limits = |quantity, low| Action::Limits {
        quantity,
        limits: Some(Limits { low: Some(low), ..Limits::default() }),
    };
    assert_eq!(
        ward.act(7, limits(10, 60.0)),
        Err("limits_sensitive"),
        "glucose is nobody's who may see alarms"
    );
    assert_eq!(ward.act(8, limits(SPO2, 97.0)), Ok(()));
    ward.value(SPO2, 96.0);
    assert_eq!(ward.texts(), ["** SpO2 96 < 97"], "its delay is none now");
    assert_eq!(ward.act(9, Action::Limits { quantity: SPO2, limits: None }), Ok(()));
    assert!(ward.alarms().is_empty());
    ward.value(SPO2, 96.0);
    assert!(ward.alarms().is_empty(), "the default holds again");
    ward.pass(60);
    assert_eq!(until(&ward), None, "a pause ends by itself");
    let other = (RecipientId([8; 20]), 1);
    let refused = ward.engine.command(PATIENT, other, &pause(10), Some("expired"), ward.now());
    assert_eq!(refused, Err("expired"));
    ward.look();
    assert_eq!(handled(&ward).len(), 2);
    assert_eq!(until(&ward), None);
}

#[test]
fn numbers_of_events_that_never_came_are_counted_by_kind() {
    let mut ward = Ward::new();
    for (quantity, seq) in [(FALL, 1), (BUTTON, 7), (FALL, 4), (BUTTON, 8)] {
        let seen = Observation {
            patient: PATIENT,
            device: device("belt-1"),
            quantity,
            what: What::Event,
            is_withheld: false,
            seq: Some(seq),
            sensor_us: None,
            received_us: 0,
        };
        ward.engine.observe(&seen, ward.now());
    }
    assert_eq!((ward.engine.missing(&PATIENT), ward.engine.take_losses().missing), (2, 2));
    ward.hold(SPO2, 96.0, 60);
    assert!(ward.alarms().iter().all(|(kind, ..)| *kind != Kind::NoData), "nobody expects an event");
}

#[test]
fn a_pack_each_hour_is_not_missed_between() {
    let mut ward = Ward::new();
    for hour in 0..6 {
        for _ in 0..60 {
            ward.value(SPO2, 96.0);
        }
        ward.pass(30);
        assert!(ward.alarms().is_empty(), "hour {hour}: {:?}", ward.texts());
        ward.at += Duration::from_secs(3_570);
    }
}

#[test]
fn a_pause_is_no_longer_for_a_clock_that_was_set_back() {
    let mut ward = Ward::new();
    ward.act(1, Action::Pause { seconds: 600 }).unwrap();
    let is_paused = |ward: &Ward| ward.standing.as_ref().unwrap().settings.paused_until_us.is_some();
    ward.pass(10);
    ward.set_us = -7_200_000_000;
    let kept = ward.engine.kept(&PATIENT).unwrap();
    ward.pass(589);
    assert!(is_paused(&ward));
    ward.pass(1);
    assert!(!is_paused(&ward));
    // Through a restart too.
    let mut again = Ward::with(Engine::new(Site::default(), [(PATIENT, kept.clone())]));
    again.set_us = -7_200_000_000;
    again.pass(1);
    assert!(!is_paused(&again), "no pause has that much left");
    let mut again = Ward::with(Engine::new(Site::default(), [(PATIENT, kept)]));
    again.set_us = 300_000_000;
    again.pass(1);
    assert!(is_paused(&again));
    again.set_us = 0;
    again.pass(298);
    assert!(is_paused(&again));
    again.pass(2);
    assert!(!is_paused(&again));
}

#[test]
fn leads_that_are_off_are_off_after_a_restart_too() {
    let mut ward = Ward::new();
    ward.see("monitor-1", LEADS_OFF, What::Event);
    for state in [State::Active, State::Acknowledged] {
        let kept = ward.engine.kept(&PATIENT).unwrap();
        let mut again = Ward::with(Engine::new(Site::default(), [(PATIENT, kept)]));
        again.pass(1);
        assert_eq!(again.alarms(), [(Kind::LeadsOff, Priority::Medium, state)]);
        again.value(HEART_RATE, 60.0);
        assert!(again.alarms().is_empty());
        ward.act(1, Action::Acknowledge { alarms: vec![] }).ok();
    }
}

/// Twice the disk hangs after what is told first, alarms are told all the same, and the power goes.
#[test]
fn a_number_that_was_told_and_never_kept_is_not_given_again() {
    let mut ward = Ward::new();
    ward.see("belt-1", FALL, What::Event);
    let mut kept = ward.engine.kept(&PATIENT).unwrap();
    let mut numbers = BTreeSet::from([1]);
    for _ in 0..3 {
        let mut again = Ward::with(Engine::new(Site::default(), [(PATIENT, kept)]));
        again.pass(1);
        kept = again.engine.kept(&PATIENT).unwrap();
        for sequence in 1..=20 {
            again.see("belt-1", BUTTON, What::Event);
            let alarms = &again.standing.as_ref().unwrap().alarms;
            assert_eq!((alarms.len(), alarms[0].number), (2, 1), "what latched has its own");
            let number = alarms[1].number;
            assert!(numbers.insert(number), "{number}");
            again.act(sequence, Action::Acknowledge { alarms: vec![number] }).unwrap();
        }
    }
}

#[test]
fn a_pulse_of_now_is_not_silent_for_a_heart_rate_that_comes_rarely() {
    let mut ward = Ward::new();
    for second in 0..600_u64 {
        if second % 120 == 0 {
            ward.value(HEART_RATE, 70.0);
        }
        ward.see("finger-1", PULSE_RATE, What::Numeric(131.0));
        ward.pass(1);
        let texts = ward.texts();
        let is_told = texts.contains(&"** Pulse rate 131 > 120".to_owned());
        // Four readings make it known how often it comes.
        if second >= 360 {
            assert_eq!(is_told, second % 120 >= 60, "at {second} s: {texts:?}");
        }
    }
}

#[test]
fn what_changes_nothing_is_said_once_a_minute_and_a_silent_patient_no_more() {
    let mut ward = Ward::new();
    let mut said = 0;
    for second in 0..1_000 {
        if second < 300 {
            let seen = Observation {
                patient: PATIENT,
                device: device("monitor-1"),
                quantity: TEMPERATURE,
                what: What::Numeric(37.0),
                is_withheld: false,
                seq: None,
                sensor_us: None,
                received_us: 0,
            };
            ward.engine.observe(&seen, ward.now());
        }
        ward.at += Duration::from_secs(1);
        ward.engine.tick(ward.now());
        said += ward.engine.told(ward.now()).len();
    }
    // 900 s within ten minutes of the last reading; the loss of it and what follows are changes of their own.
    assert!((15..=18).contains(&said), "{said}");
}

#[derive(Debug, Clone)]
enum Step {
    Value(u8, u16, f64),
    Event(u8, u16),
    Implausible(u8),
    Pass(u64),
    Acknowledge,
    Pause(u16),
    Limits(u16, f64),
}

fn step() -> impl Strategy<Value = Step> {
    let quantity = prop_oneof![
        Just(HEART_RATE),
        Just(PULSE_RATE),
        Just(SPO2),
        Just(RESPIRATORY_RATE),
        Just(SYSTOLIC),
        Just(TEMPERATURE),
        1_u16..13,
    ];
    prop_oneof![
        6 => (0_u8..40, quantity.clone(), prop_oneof![Just(0.0), 0.0..300.0]).prop_map(|(d, q, v)| Step::Value(d, q, v)),
        1 => (0_u8..40, 513_u16..517).prop_map(|(d, q)| Step::Event(d, q)),
        1 => (0_u8..40).prop_map(Step::Implausible),
        4 => (1_u64..20).prop_map(Step::Pass),
        1 => Just(Step::Acknowledge),
        1 => (0_u16..700).prop_map(Step::Pause),
        1 => (quantity, 0.0..300.0).prop_map(|(q, v)| Step::Limits(q, v)),
    ]
}

fn play(steps: &[Step]) -> Ward {
    let mut ward = Ward::new();
    for (sequence, step) in steps.iter().enumerate() {
        let sequence = sequence as u64;
        let latched = latched(&ward);
        let acknowledges = matches!(step, Step::Acknowledge);
        match step {
            Step::Value(d, quantity, value) => ward.see(&format!("d{d}"), *quantity, What::Numeric(*value)),
            Step::Event(d, quantity) => ward.see(&format!("d{d}"), *quantity, What::Event),
            Step::Implausible(d) => ward.engine.implausible(PATIENT, &device(&format!("d{d}")), ward.now()),
            Step::Pass(seconds) => ward.pass(*seconds),
            Step::Acknowledge => ward.act(sequence, Action::Acknowledge { alarms: vec![] }).unwrap(),
            Step::Pause(seconds) => {
                let done = ward.act(sequence, Action::Pause { seconds: *seconds });
                assert_eq!(done.err(), (*seconds > 600).then_some("pause"));
            }
            Step::Limits(quantity, low) => {
                let limits = Limits { low: Some(*low), ..Limits::default() };
                let action = Action::Limits { quantity: *quantity, limits: Some(limits) };
                assert_ne!(ward.act(sequence, action), Err("replayed"));
            }
        }
        ward.look();
        let standing = ward.standing.clone();
        let alarms = standing.map(|standing| standing.alarms).unwrap_or_default();
        assert!(alarms.len() <= ALARMS_MAX);
        let keys: BTreeSet<_> = alarms.iter().map(|a| (a.kind, a.quantity, a.device.clone())).collect();
        assert_eq!(keys.len(), alarms.len(), "one alarm of a kind");
        let numbers: BTreeSet<_> = alarms.iter().map(|a| a.number).collect();
        assert_eq!(numbers.len(), alarms.len());
        // What latched is gone only where somebody acknowledged, or is there again.
        for (kind, device) in latched {
            let is_there = alarms.iter().any(|a| (a.kind, &a.device) == (kind, &device));
            assert!(is_there || acknowledges, "{kind:?} went by itself");
        }
        if acknowledges {
            assert!(alarms.iter().all(|alarm| alarm.state == State::Acknowledged));
        }
    }
    ward
}

fn latched(ward: &Ward) -> Vec<(Kind, Option<DeviceId>)> {
    let alarms = ward.standing.iter().flat_map(|standing| &standing.alarms);
    let latched = alarms.filter(|alarm| alarm.kind.latches() && alarm.state != State::Acknowledged);
    latched.map(|alarm| (alarm.kind, alarm.device.clone())).collect()
}

proptest! {
    #[test]
    fn whatever_comes_the_invariants_hold_and_a_replay_says_the_same(steps in prop::collection::vec(step(), 1..80)) {
        let (once, again) = (play(&steps), play(&steps));
        prop_assert_eq!(once.standing, again.standing);
        prop_assert_eq!(once.engine.kept(&PATIENT), again.engine.kept(&PATIENT));
    }

    #[test]
    fn what_is_kept_comes_back(steps in prop::collection::vec(step(), 1..40)) {
        let ward = play(&steps);
        if let Some(kept) = ward.engine.kept(&PATIENT) {
            let again = Engine::new(Site::default(), [(PATIENT, kept.clone())]);
            // Some numbers may have been told that are not kept.
            let next_alarm = kept.next_alarm + SKIPPED;
            prop_assert_eq!(again.kept(&PATIENT), Some(Kept { next_alarm, ..kept }));
        }
    }
}
