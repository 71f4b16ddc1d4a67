//! What becomes of what is watched when the gateway's own clock is set: nothing is late, older, or paused for longer.

use super::*;

const S: i64 = 1_000_000;
const HOUR: i64 = 3_600 * S;
const DAY: i64 = 24 * HOUR;

/// By how much the gateway's clock is wrong until it is set right: it begins in 1970, or some time ago, or was set to some other.
const WRONG: [i64; 7] = [-START_US, -3 * DAY, -HOUR, -600 * S, 600 * S, HOUR, 3 * DAY];

/// What a device says of when.
#[derive(Debug, Clone, Copy)]
enum Says {
    /// Nothing: it has no clock.
    Nothing,
    /// So long ago by the right time.
    Ago(i64),
    /// So long ago by the gateway's: it tells how long ago it was, or was set with it.
    AgoByOurs(i64),
}

/// What devices say of what is of now: some have no clock, some are behind, ahead, or in 1970 themselves.
const OF_NOW: [Says; 7] = [
    Says::Nothing,
    Says::Ago(0),
    Says::Ago(2 * HOUR),
    Says::Ago(-300 * S),
    Says::Ago(START_US),
    Says::AgoByOurs(0),
    Says::AgoByOurs(20 * S),
];

impl Ward {
    fn wrong_by(set_us: i64) -> Self {
        Self { set_us, ..Self::new() }
    }

    fn said(&self, says: Says) -> Option<i64> {
        let ours_us = self.now().unix_us;
        match says {
            Says::Nothing => None,
            Says::Ago(ago_us) => Some(ours_us - self.set_us - ago_us),
            Says::AgoByOurs(ago_us) => Some(ours_us - ago_us),
        }
    }

    /// Something of `hub-1`, with the device's time and the gateway's.
    fn stamped(&mut self, quantity: u16, what: What, sensor_us: Option<i64>, received_us: i64) {
        let seen = Observation {
            patient: PATIENT,
            device: device("hub-1"),
            quantity,
            what,
            is_withheld: false,
            seq: None,
            sensor_us,
            received_us,
        };
        self.engine.observe(&seen, self.now());
        self.look();
    }

    fn comes(&mut self, quantity: u16, what: What, says: Says) {
        let (sensor_us, received_us) = (self.said(says), self.now().unix_us);
        self.stamped(quantity, what, sensor_us, received_us);
    }

    /// A heart rate each second.
    fn beats(&mut self, rate: f64, says: Says, seconds: u64) {
        for _ in 0..seconds {
            self.comes(HEART_RATE, What::Numeric(rate), says);
            self.pass(1);
        }
    }

    fn paused_until_us(&self) -> Option<i64> {
        self.standing.as_ref().unwrap().settings.paused_until_us
    }
}

#[test]
fn what_is_of_now_alarms_when_the_clock_has_just_been_set() {
    for (wrong_us, says) in WRONG.iter().flat_map(|wrong_us| OF_NOW.map(|says| (*wrong_us, says))) {
        let mut ward = Ward::wrong_by(wrong_us);
        ward.beats(70.0, says, 60);
        assert!(ward.alarms().is_empty(), "{wrong_us}, {says:?}: {:?}", ward.texts());
        ward.set_us = 0;
        // Before the engine has looked at the clock by itself.
        ward.comes(FALL, What::Event, says);
        assert_eq!(ward.texts(), ["** FALL"], "{wrong_us}, {says:?}");
        ward.beats(200.0, says, 6);
        assert_eq!(ward.texts(), ["*** Heart rate 200 > 150", "** FALL"], "{wrong_us}, {says:?}");
    }
}

/// Of a pendant nothing else is heard.
#[test]
fn a_press_alarms_though_the_clock_was_set_since_the_last() {
    for (wrong_us, says) in WRONG.iter().flat_map(|wrong_us| OF_NOW.map(|says| (*wrong_us, says))) {
        let mut ward = Ward::wrong_by(wrong_us);
        ward.comes(BUTTON, What::Event, says);
        assert_eq!(ward.texts(), ["** CALL BUTTON"], "{wrong_us}, {says:?}");
        ward.acknowledge();
        ward.set_us = 0;
        ward.pass(60);
        assert!(ward.alarms().is_empty(), "{wrong_us}, {says:?}");
        ward.comes(BUTTON, What::Event, says);
        assert_eq!(ward.texts(), ["** CALL BUTTON"], "{wrong_us}, {says:?}");
    }
}

#[test]
fn a_memory_is_of_the_past_all_the_same() {
    for wrong_us in WRONG {
        let mut ward = Ward::wrong_by(wrong_us);
        ward.beats(70.0, Says::Ago(0), 60);
        ward.set_us = 0;
        ward.comes(HEART_RATE, What::Numeric(70.0), Says::Ago(0));
        for second in 0..60 {
            ward.comes(HEART_RATE, What::Numeric(200.0), Says::Ago(2 * HOUR - 100 * S * second));
            ward.pass(1);
        }
        ward.comes(FALL, What::Event, Says::Ago(1_300 * S));
        assert!(ward.alarms().iter().all(|(kind, ..)| kind.is_technical()), "{:?}", ward.texts());
    }
}

/// It takes 30 s, and these are not begun anew.
#[test]
fn a_device_that_is_behind_is_followed_as_soon_as_if_the_clock_were_not_set() {
    for wrong_us in [-HOUR, HOUR] {
        let mut ward = Ward::wrong_by(wrong_us);
        ward.beats(200.0, Says::Ago(2 * HOUR), 20);
        ward.set_us = 0;
        ward.beats(200.0, Says::Ago(2 * HOUR), 16);
        assert_eq!(ward.texts(), ["*** Heart rate 200 > 150"], "{wrong_us}");
    }
}

#[test]
fn what_was_on_its_way_while_the_clock_was_set_alarms_and_spoils_nothing() {
    for wrong_us in WRONG {
        let mut ward = Ward::wrong_by(wrong_us);
        ward.beats(70.0, Says::Ago(0), 60);
        let (sensor_us, received_us) = (ward.said(Says::Ago(0)), ward.now().unix_us);
        ward.set_us = 0;
        ward.at += Duration::from_millis(400);
        ward.stamped(HEART_RATE, What::Numeric(70.0), sensor_us, received_us);
        ward.stamped(FALL, What::Event, sensor_us, received_us);
        assert_eq!(ward.texts(), ["** FALL"], "{wrong_us}");
        ward.beats(200.0, Says::Ago(0), 6);
        ward.comes(BUTTON, What::Event, Says::Ago(0));
        let texts = ["*** Heart rate 200 > 150", "** FALL", "** CALL BUTTON"];
        assert_eq!(ward.texts(), texts, "{wrong_us}");
    }
    // The clock was set before anybody looked.
    let mut ward = Ward::new();
    ward.pass(1);
    let sensor_us = ward.said(Says::Ago(0));
    ward.stamped(HEART_RATE, What::Numeric(70.0), sensor_us, 7 * S);
    ward.beats(200.0, Says::Ago(0), 6);
    assert_eq!(ward.texts(), ["*** Heart rate 200 > 150"]);
}

#[test]
fn a_clock_that_is_slewed_is_not_one_that_was_set() {
    for slewed_us in [500, -500] {
        let mut ward = Ward::new();
        ward.act(1, Action::Pause { seconds: 600 }).unwrap();
        for _ in 0..300 {
            ward.beats(70.0, Says::Ago(0), 1);
            ward.set_us += slewed_us;
        }
        assert_eq!(ward.paused_until_us(), Some(START_US + 600 * S), "as it was given");
        ward.comes(BUTTON, What::Event, Says::Ago(HOUR));
        assert!(ward.alarms().is_empty(), "{:?}", ward.texts());
        ward.comes(FALL, What::Event, Says::Ago(0));
        assert_eq!(ward.texts(), ["** FALL"]);
    }
}

#[test]
fn a_pause_is_as_long_as_it_was_given() {
    for wrong_us in WRONG {
        let mut ward = Ward::wrong_by(wrong_us);
        ward.act(1, Action::Pause { seconds: 60 }).unwrap();
        ward.pass(10);
        ward.set_us = 0;
        ward.pass(49);
        assert_eq!(ward.paused_until_us(), Some(START_US + 60 * S), "{wrong_us}");
        ward.pass(1);
        assert_eq!(ward.paused_until_us(), None, "{wrong_us}");
    }
    // One of before the start ends when it was said to end: the clock that says so may have been right.
    let mut ward = Ward::new();
    ward.act(1, Action::Pause { seconds: 600 }).unwrap();
    let kept = ward.engine.kept(&PATIENT).unwrap();
    let mut again = Ward::with(Engine::new(Site::default(), [(PATIENT, kept)]));
    again.pass(1);
    assert_eq!(again.paused_until_us(), Some(START_US + 600 * S));
    again.set_us = HOUR;
    again.pass(1);
    assert_eq!(again.paused_until_us(), None);
}

#[test]
fn what_people_entered_and_what_alarms_is_as_old_as_it_is() {
    let adult = Action::Profile { category: Category::Adult, pregnant: false, scale: Scale::One };
    let enter = |ward: &mut Ward| {
        ward.act(1, adult.clone()).unwrap();
        ward.act(2, Action::Oxygen { given: true }).unwrap();
        ward.act(3, Action::Consciousness { found: Consciousness::Voice }).unwrap();
    };
    for wrong_us in WRONG {
        let mut ward = Ward::wrong_by(wrong_us);
        enter(&mut ward);
        ward.pass(40);
        assert_eq!(ward.texts(), ["** NEWS2 5 ≥ 5"], "{wrong_us}");
        let number = ward.standing.as_ref().unwrap().alarms[0].number;
        ward.set_us = 0;
        ward.pass(40);
        assert_eq!(ward.texts(), ["** NEWS2 5 ≥ 5"], "{wrong_us}");
        let Standing { alarms, settings, .. } = ward.standing.clone().unwrap();
        assert_eq!((alarms[0].number, alarms[0].since_us), (number, START_US + 31 * S), "{wrong_us}");
        let entered_us = (settings.oxygen.unwrap().at_us, settings.consciousness.unwrap().at_us);
        assert_eq!(entered_us, (START_US, START_US), "{wrong_us}");
        ward.at += Duration::from_secs(12 * 3_600);
        ward.pass(1);
        assert!(ward.alarms().is_empty(), "{wrong_us}: {:?}", ward.texts());
    }
    // What was entered before the start bears a clock of which nobody knows how it was set.
    let mut ward = Ward::new();
    enter(&mut ward);
    let kept = ward.engine.kept(&PATIENT).unwrap();
    let mut again = Ward::with(Engine::new(Site::default(), [(PATIENT, kept.clone())]));
    again.set_us = -START_US;
    again.pass(40);
    assert!(again.alarms().is_empty(), "{:?}", again.texts());
    let score = |ward: &Ward| ward.standing.as_ref().unwrap().score;
    assert_eq!(score(&again), Score::sum([None; 7]), "the clock says less: both may be of any age");
    again.set_us = 0;
    again.pass(40);
    assert_eq!(again.texts(), ["** NEWS2 5 ≥ 5"]);
    again.set_us = 13 * HOUR;
    again.pass(1);
    assert!(again.alarms().is_empty(), "{:?}", again.texts());
    assert_eq!(again.engine.kept(&PATIENT).unwrap().settings.oxygen.unwrap().at_us, START_US);
    // A clock that goes on until it says again what it said then makes nothing fresh, but for what it was a little behind.
    for (behind_us, counts) in [(2 * HOUR, false), (HOUR / 2, true)] {
        let mut again = Ward::with(Engine::new(Site::default(), [(PATIENT, kept.clone())]));
        again.set_us = -behind_us;
        again.pass(1);
        assert_eq!(score(&again), Score::sum([None; 7]), "{behind_us}");
        again.at += Duration::from_micros(behind_us.unsigned_abs());
        again.pass(40);
        assert_eq!(!again.alarms().is_empty(), counts, "{behind_us}: {:?}", again.texts());
        let settings = again.engine.kept(&PATIENT).unwrap().settings;
        assert_eq!((settings.oxygen.is_some(), settings.consciousness.is_some()), (counts, counts));
    }
}
