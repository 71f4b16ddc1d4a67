//! What of a device's readings is of the past, and what only seems so.

use super::*;

const HOUR_S: i64 = 3_600;

impl Ward {
    /// Something of `hub-1`, this much later than the hub's clock says.
    fn late(&mut self, quantity: u16, what: What, lag_s: i64) {
        let received_us = self.now().unix_us;
        let seen = Observation {
            patient: PATIENT,
            device: device("hub-1"),
            quantity,
            what,
            is_withheld: false,
            seq: None,
            sensor_us: Some(received_us - lag_s * 1_000_000),
            received_us,
        };
        self.engine.observe(&seen, self.now());
        self.look();
    }

    /// Whatever there is.
    pub(super) fn acknowledge(&mut self) {
        let handled = self.standing.iter().flat_map(|standing| &standing.handled);
        let last = handled.map(|handled| handled.sequence).max().unwrap_or(0);
        self.act(last + 1, Action::Acknowledge { alarms: vec![] }).unwrap();
    }
}

#[test]
fn the_past_raises_nothing() {
    let mut ward = Ward::new();
    let seen = |sensor_s: i64, received_s: i64, value: f64| Observation {
        patient: PATIENT,
        device: device("hub-1"),
        quantity: HEART_RATE,
        what: What::Numeric(value),
        is_withheld: false,
        seq: None,
        sensor_us: Some(START_US + sensor_s * 1_000_000),
        received_us: START_US + received_s * 1_000_000,
    };
    ward.engine.observe(&seen(0, 0, 70.0), ward.now());
    ward.pass(120);
    // A hub comes back with two minutes of a racing heart that is calm by now.
    for second in 1..=80_i64 {
        ward.engine.observe(&seen(second, 120 + second / 20, 200.0), ward.now());
    }
    ward.look();
    ward.pass(1);
    assert!(ward.alarms().iter().all(|(kind, ..)| kind.is_technical()), "{:?}", ward.texts());
}

/// The first that a gateway hears after its restart is what a hub kept meanwhile.
#[test]
fn the_past_raises_nothing_where_it_is_the_first_that_is_heard() {
    let mut ward = Ward::new();
    let adult = Action::Profile { category: Category::Adult, pregnant: false, scale: Scale::One };
    ward.act(1, adult).unwrap();
    for second in 0..120 {
        ward.late(HEART_RATE, What::Numeric(200.0), HOUR_S - second * 20);
        ward.pass(1);
    }
    assert!(ward.alarms().is_empty(), "{:?}", ward.texts());
    let score = ward.standing.as_ref().unwrap().score;
    assert_eq!(score, Score::sum([None; 7]), "nor does it count");
    for _ in 0..12 {
        ward.late(HEART_RATE, What::Numeric(200.0), 1);
        ward.pass(1);
    }
    assert_eq!(ward.texts()[0], "*** Heart rate 200 > 150", "what is of now does");
}

#[test]
fn an_event_of_a_devices_memory_raises_nothing_where_its_clock_is_known() {
    let mut ward = Ward::new();
    ward.late(HEART_RATE, What::Numeric(70.0), 1);
    ward.pass(1);
    ward.late(FALL, What::Event, HOUR_S);
    assert!(ward.alarms().is_empty(), "{:?}", ward.texts());
    ward.late(FALL, What::Event, 20);
    assert_eq!(ward.texts(), ["** FALL"]);
    // It waited in a pack of a minute, and for the network.
    ward.late(BUTTON, What::Event, 110);
    assert_eq!(ward.texts().len(), 2);
    // After a restart a memory shows in that it is emptied faster than time passes.
    let mut ward = Ward::new();
    for second in 0..10 {
        ward.late(HEART_RATE, What::Numeric(70.0), HOUR_S - second * 20);
        ward.pass(1);
    }
    ward.late(BUTTON, What::Event, HOUR_S - 200);
    assert!(ward.alarms().is_empty(), "{:?}", ward.texts());
}

/// One that is missed does more harm than one that is told late.
#[test]
fn an_event_alarms_where_its_devices_clock_is_wrong_or_not_known() {
    let mut ward = Ward::new();
    ward.late(FALL, What::Event, HOUR_S);
    assert_eq!(ward.texts(), ["** FALL"], "nothing is known of that clock");
    let mut ward = Ward::new();
    for _ in 0..40 {
        ward.late(HEART_RATE, What::Numeric(70.0), HOUR_S);
        ward.pass(1);
    }
    ward.late(BUTTON, What::Event, 2 * HOUR_S);
    assert!(ward.alarms().is_empty(), "an hour behind its own clock");
    ward.late(FALL, What::Event, HOUR_S);
    assert_eq!(ward.texts(), ["** FALL"], "the clock is an hour behind");
    ward.late(LEADS_OFF, What::Event, 50 * 365 * 24 * HOUR_S);
    assert_eq!(ward.texts().len(), 2, "no memory is that long: the clock was lost");
    // Where events are all that comes, the first tells; but for some minutes after another, when the second does.
    for (pause_s, is_told) in [(0, false), (599, false), (601, true)] {
        let mut ward = Ward::new();
        ward.late(BUTTON, What::Event, 0);
        ward.acknowledge();
        ward.pass(pause_s);
        ward.late(BUTTON, What::Event, HOUR_S);
        assert_eq!(ward.texts().len(), usize::from(is_told), "after {pause_s} s");
        ward.acknowledge();
        ward.pass(40);
        ward.late(BUTTON, What::Event, HOUR_S);
        assert_eq!(ward.texts(), ["** CALL BUTTON"], "after {pause_s} s");
    }
}

/// A pendant that is two hours behind, of which one message took some seconds longer than the next: that is no memory.
#[test]
fn a_fall_is_told_whatever_the_presses_before_it_took() {
    for pause_s in [20, HOUR_S.unsigned_abs()] {
        let mut ward = Ward::new();
        for lag_s in [2 * HOUR_S + 100, 2 * HOUR_S] {
            ward.late(BUTTON, What::Event, lag_s);
            ward.at += Duration::from_secs(pause_s);
        }
        ward.acknowledge();
        ward.late(FALL, What::Event, 2 * HOUR_S);
        assert_eq!(ward.texts(), ["** FALL"], "{pause_s} s between");
    }
    let mut ward = Ward::new();
    for (lag_s, quantity) in [(7_208, BUTTON), (7_200, BUTTON), (7_200, FALL)] {
        ward.late(quantity, What::Event, lag_s);
        assert_eq!(ward.texts().len(), 1, "{quantity}");
        ward.acknowledge();
        ward.at += Duration::from_secs(3_600);
    }
}

/// A cuff at local time, from which somebody uploads by hand.
#[test]
fn a_cuff_whose_clock_is_behind_is_judged_however_long_an_upload_takes() {
    let mut ward = Ward::new();
    let is_high = |ward: &Ward| ward.alarms().iter().any(|(kind, ..)| *kind == Kind::High);
    let uploads = [
        (18_010, 230.0, false),
        (18_060, 230.0, true),
        (18_025, 120.0, false),
        (18_090, 230.0, true),
        (18_020, 120.0, false),
        (18_300, 230.0, true),
    ];
    for (lag_s, value, is_told) in uploads {
        ward.at += Duration::from_secs(2 * 3_600);
        ward.late(SYSTOLIC, What::Numeric(value), lag_s);
        assert_eq!(is_high(&ward), is_told, "{lag_s} s");
        ward.pass(1);
    }
    ward.act(1, Action::Profile { category: Category::Adult, pregnant: false, scale: Scale::One }).unwrap();
    ward.pass(1);
    let score = ward.standing.as_ref().unwrap().score;
    assert_eq!(score, Score::sum([None, None, None, Some(3), None, None, None]), "and it counts");
}

/// A press each month says that it works. By then the clock has lost half a minute.
#[test]
fn a_press_is_told_though_the_clock_has_drifted_since_the_last() {
    let mut ward = Ward::new();
    ward.late(BUTTON, What::Event, 0);
    ward.acknowledge();
    ward.at += Duration::from_secs(18 * 24 * 3_600);
    ward.late(BUTTON, What::Event, 31);
    assert_eq!(ward.texts(), ["** CALL BUTTON"]);
}

/// Of two series the one that comes rarely has not followed the clock yet: what it says is no reason to be silent.
#[test]
fn a_fall_is_told_where_one_of_its_devices_series_says_that_it_is_of_now() {
    let mut ward = Ward::new();
    ward.late(TEMPERATURE, What::Numeric(37.0), 0);
    for lag_s in [0, HOUR_S] {
        for _ in 0..40 {
            ward.late(HEART_RATE, What::Numeric(70.0), lag_s);
            ward.pass(1);
        }
    }
    ward.late(TEMPERATURE, What::Numeric(37.0), HOUR_S);
    ward.late(FALL, What::Event, HOUR_S);
    assert_eq!(ward.texts(), ["** FALL"]);
}

/// A watch that was out of reach for two hours sends them within a minute, and a fall among them.
#[test]
fn a_fall_in_a_memory_that_is_emptied_raises_nothing() {
    for (is_known, fall_at) in [(true, 1), (true, 30), (false, 5), (false, 30), (false, 58)] {
        let mut ward = Ward::new();
        if is_known {
            ward.late(HEART_RATE, What::Numeric(70.0), 0);
        }
        ward.at += Duration::from_secs(2 * 3_600);
        for second in 0..60 {
            let lag_s = 2 * HOUR_S - 120 * second;
            ward.late(HEART_RATE, What::Numeric(200.0), lag_s);
            if second == fall_at {
                ward.late(FALL, What::Event, lag_s);
                ward.late(BUTTON, What::Event, lag_s + 60);
            }
            ward.pass(1);
            assert!(ward.alarms().is_empty(), "at {second} s: {:?}", ward.texts());
        }
        ward.late(HEART_RATE, What::Numeric(70.0), 0);
        ward.late(FALL, What::Event, 2);
        assert_eq!(ward.texts(), ["** FALL"], "that one is of now");
    }
}

#[test]
fn what_is_late_is_no_data_still() {
    let mut ward = Ward::new();
    for _ in 0..6 {
        ward.late(SPO2, What::Numeric(96.0), 0);
        ward.pass(1);
    }
    ward.pass(9);
    let texts = ["** SpO2: no data (hub-1)"];
    assert_eq!(ward.texts(), texts);
    for second in 0..10 {
        ward.late(SPO2, What::Numeric(96.0), HOUR_S - second * 20);
        ward.pass(1);
    }
    assert_eq!(ward.texts(), texts);
    ward.late(SPO2, What::Numeric(96.0), 0);
    assert!(ward.alarms().is_empty());
}
