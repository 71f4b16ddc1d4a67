use proptest::prelude::*;

use super::*;

fn settings() -> Settings {
    Settings {
        category: Some(Category::Adult),
        oxygen: Some(Entered { value: true, at_us: 5 }),
        consciousness: Some(Entered { value: Consciousness::Voice, at_us: 6 }),
        paused_until_us: Some(9),
        limits: [(3, Limits { low: Some(90.0), extreme_low: Some(80.0), delay_s: 10, ..Limits::default() })]
            .into(),
        ..Settings::default()
    }
}

fn alarm(kind: Kind, quantity: Option<u16>, value: Option<f64>, limit: Option<f64>) -> Alarm {
    Alarm {
        number: 7,
        kind,
        priority: Priority::Medium,
        state: State::Active,
        quantity,
        device: Some(DeviceId::new("monitor-1").unwrap()),
        value,
        limit,
        since_us: 1_790_000_000_000_000,
    }
}

fn standing() -> Standing {
    Standing {
        at_us: 1_790_000_000_000_001,
        alarms: vec![alarm(Kind::Low, Some(3), Some(84.0), Some(90.0))],
        settings: settings(),
        score: Score::sum([Some(0), Some(3), None, Some(1), Some(0), Some(3), Some(0)]),
        handled: vec![Handled { domain: RecipientId([5; 20]), sequence: 3, refused: Some("expired".into()) }],
    }
}

#[test]
fn texts_name_value_and_limit() {
    let text = |kind, quantity, value, limit| alarm(kind, quantity, value, limit).text();
    assert_eq!(text(Kind::Low, Some(3), Some(84.0), Some(90.0)), "** SpO2 84 < 90");
    assert_eq!(text(Kind::High, Some(8), Some(39.25), Some(39.0)), "** Body temperature 39.25 > 39");
    assert_eq!(text(Kind::Score, None, Some(7.0), Some(7.0)), "** NEWS2 7 ≥ 7");
    assert_eq!(text(Kind::NoData, Some(3), None, None), "** SpO2: no data (monitor-1)");
    assert_eq!(text(Kind::LeadsOff, None, None, None), "** Leads off (monitor-1)");
    let high = Alarm { priority: Priority::High, ..alarm(Kind::Asystole, Some(1), Some(0.0), None) };
    assert_eq!(high.text(), "*** ASYSTOLE");
}

#[test]
fn a_standing_comes_back_and_bounds_hold() {
    assert_eq!(Standing::decode(&standing().encode()), Ok(standing()));
    let json = serde_json::to_string(&standing()).unwrap();
    assert_eq!(serde_json::from_str::<Standing>(&json).unwrap(), standing());
    let bytes = standing().encode();
    for end in 0..bytes.len() {
        assert!(Standing::decode(&bytes[..end]).is_err(), "length {end}");
    }
    assert_eq!(Standing::decode(&[&bytes[..], &[0]].concat()), Err(StandingError::Trailing(1)));
    let many = Standing { alarms: vec![alarm(Kind::Fall, None, None, None); ALARMS_MAX + 1], ..standing() };
    assert_eq!(Standing::decode(&many.encode()), Err(StandingError::Bounds("alarms")));
    let mut infinite = standing();
    infinite.alarms[0].value = Some(f64::INFINITY);
    assert_eq!(Standing::decode(&infinite.encode()), Err(StandingError::Bounds("value")));
}

#[test]
fn the_longest_standing_fits() {
    let full = Limits {
        low: Some(50.25),
        high: Some(120.25),
        extreme_low: Some(40.25),
        extreme_high: Some(150.25),
        delay_s: 120,
        hysteresis: 2.5,
    };
    let mut longest = standing();
    let device = Some(DeviceId::new(&"d".repeat(64)).unwrap());
    let one = Alarm { number: u64::MAX, device, ..alarm(Kind::Implausible, Some(1), Some(0.1), Some(0.3)) };
    longest.alarms = vec![one; ALARMS_MAX];
    longest.settings.limits = (1..=12).map(|quantity| (quantity, full)).collect();
    let refused = Some("limits_too_many".to_owned());
    longest.handled =
        vec![Handled { domain: RecipientId([5; 20]), sequence: u64::MAX, refused }; HANDLED_MAX];
    assert!(longest.encode().len() < STANDING_BYTES_MAX);
}

/// A parameter of the chart, and what its values score.
type Row<'a> = (&'a dyn Fn(f64) -> Parameter, &'a [(f64, u8)]);

/// The chart of the Royal College of Physicians, cell by cell: each band's ends.
#[test]
fn news2_scores_as_its_chart() {
    let cases: &[Row<'_>] = &[
        (
            &Parameter::Respiration,
            &[(8.0, 3), (9.0, 1), (11.0, 1), (12.0, 0), (20.0, 0), (21.0, 2), (24.0, 2), (25.0, 3)],
        ),
        (
            &|v| Parameter::Spo2(v, Scale::One, Some(true)),
            &[(91.0, 3), (92.0, 2), (93.0, 2), (94.0, 1), (95.0, 1), (96.0, 0), (100.0, 0)],
        ),
        (
            &|v| Parameter::Spo2(v, Scale::Two, Some(true)),
            &[
                (83.0, 3),
                (84.0, 2),
                (85.0, 2),
                (86.0, 1),
                (87.0, 1),
                (88.0, 0),
                (92.0, 0),
                (93.0, 1),
                (94.0, 1),
            ],
        ),
        (&|v| Parameter::Spo2(v, Scale::Two, Some(true)), &[(95.0, 2), (96.0, 2), (97.0, 3)]),
        (&|v| Parameter::Spo2(v, Scale::Two, Some(false)), &[(87.0, 1), (93.0, 0), (100.0, 0)]),
        (&|v| Parameter::Spo2(v, Scale::Two, None), &[(83.0, 3), (97.0, 0)]),
        (
            &Parameter::Systolic,
            &[(90.0, 3), (91.0, 2), (100.0, 2), (101.0, 1), (110.0, 1), (111.0, 0), (219.0, 0), (220.0, 3)],
        ),
        (
            &Parameter::Pulse,
            &[
                (40.0, 3),
                (41.0, 1),
                (50.0, 1),
                (51.0, 0),
                (90.0, 0),
                (91.0, 1),
                (110.0, 1),
                (111.0, 2),
                (130.0, 2),
            ],
        ),
        (&Parameter::Pulse, &[(131.0, 3)]),
        (
            &Parameter::Temperature,
            &[(35.0, 3), (35.1, 1), (36.0, 1), (36.1, 0), (38.0, 0), (38.1, 1), (39.0, 1), (39.1, 2)],
        ),
    ];
    for (parameter, values) in cases {
        for (value, points) in *values {
            let parameter = parameter(*value);
            assert_eq!(parameter.points(), *points, "{parameter:?}");
        }
    }
}

#[test]
fn what_people_enter_scores_and_seven_make_a_sum() {
    assert_eq!((Parameter::Oxygen(true).points(), Parameter::Oxygen(false).points()), (2, 0));
    let points = |found| Parameter::Consciousness(found).points();
    assert_eq!(points(Consciousness::Alert), 0);
    for found in
        [Consciousness::Confused, Consciousness::Voice, Consciousness::Pain, Consciousness::Unresponsive]
    {
        assert_eq!(points(found), 3);
    }
    let Score::Sum { total, .. } =
        Score::sum([Some(3), Some(3), Some(2), Some(3), Some(3), Some(3), Some(3)])
    else {
        panic!("a sum")
    };
    assert_eq!(total, 20);
    assert!(Score::sum([Some(0), Some(0), None, Some(0), Some(0), Some(0), Some(0)]).is_partial());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(standing) = Standing::decode(&bytes) {
            prop_assert_eq!(Standing::decode(&standing.encode()), Ok(standing));
        }
    }

    #[test]
    fn changed_standings_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = standing().encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(standing) = Standing::decode(&bytes) {
            prop_assert_eq!(Standing::decode(&standing.encode()), Ok(standing));
        }
    }
}
