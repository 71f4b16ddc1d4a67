//! Who makes room where more patients come than are watched, and what they find again.

use super::super::away::AWAY_MAX;
use super::*;

/// An engine with many patients, of whom something comes each second.
struct Hospital {
    engine: Engine,
    at: Duration,
}

fn patient(n: u16) -> PatientId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    PatientId(id)
}

fn worn(by: impl Iterator<Item = u16>) -> BTreeMap<PatientId, BTreeSet<DeviceId>> {
    by.map(|n| (patient(n), BTreeSet::from([device("hub-1")]))).collect()
}

impl Hospital {
    fn now(&self) -> Now {
        Now { at: self.at, unix_us: START_US + i64::try_from(self.at.as_micros()).unwrap() }
    }

    fn see(&mut self, n: u16, quantity: u16, what: What) {
        self.at += Duration::from_secs(1);
        let now = self.now();
        let seen = Observation {
            patient: patient(n),
            device: device("hub-1"),
            quantity,
            what,
            is_withheld: false,
            seq: None,
            sensor_us: None,
            received_us: now.unix_us,
        };
        self.engine.observe(&seen, now);
    }

    fn act(&mut self, n: u16, sequence: u64, action: &Action) -> Result<(), &'static str> {
        self.engine.command(patient(n), (DOMAIN, sequence), action, None, self.now())
    }

    /// What is told of this patient, by now.
    fn standing(&mut self, n: u16) -> Standing {
        let all = self.engine.told(self.now());
        all.into_iter().find(|told| told.patient == patient(n)).unwrap().standing
    }

    fn numbers(&mut self, n: u16) -> Vec<u64> {
        self.standing(n).alarms.iter().map(|alarm| alarm.number).collect()
    }
}

#[test]
fn who_makes_room_has_least_to_lose_and_finds_it_again() {
    let most = u16::try_from(PATIENTS_MAX).unwrap();
    let mut hospital = Hospital { engine: Engine::default(), at: Duration::ZERO };
    let low = Limits { low: Some(85.0), ..Limits::default() };
    let limits = Action::Limits { quantity: SPO2, limits: Some(low) };
    assert_eq!(hospital.act(0, 7, &limits), Ok(()));
    hospital.see(1, FALL, What::Event);
    (2..most).for_each(|n| hospital.see(n, SPO2, What::Numeric(96.0)));
    assert_eq!(hospital.numbers(1), [1]);
    // As many as there are without limits and alarms.
    let new = 1_000..1_000 + most - 2;
    new.clone().for_each(|n| hospital.see(n, SPO2, What::Numeric(96.0)));
    let nothing = u64::from(most - 2);
    let expected = LetGo { nothing, ..LetGo::default() };
    assert_eq!(hospital.engine.take_losses(), Losses { let_go: expected, ..Losses::default() });
    assert!(hospital.engine.patients.contains_key(&patient(0)));
    assert!(hospital.engine.patients.contains_key(&patient(1)));
    // Then who has limits, then who has alarms; and nobody who wears something.
    hospital.engine.follow(&worn(new.chain(2_000..2_003)));
    (2_000..2_003).for_each(|n| hospital.see(n, SPO2, What::Numeric(96.0)));
    let expected = LetGo { settings: 1, alarms: 1, ..LetGo::default() };
    let losses = Losses { unwatched: 1, let_go: expected, ..Losses::default() };
    assert_eq!(hospital.engine.take_losses(), losses);
    assert_eq!(hospital.engine.kept(&patient(0)).unwrap().settings.limits[&SPO2], low, "it is written still");

    hospital.engine.follow(&BTreeMap::new());
    assert_eq!(hospital.act(0, 7, &limits), Err("replayed"));
    hospital.see(0, SPO2, What::Numeric(88.0));
    assert_eq!(hospital.standing(0).settings.limits[&SPO2], low);
    hospital.see(1, BUTTON, What::Event);
    assert_eq!(hospital.numbers(1), [1, 2], "what latched is there, and no number twice");
    assert!(hospital.engine.kept(&patient(2)).is_some());
    assert!(hospital.engine.forget(patient(2)));
    assert!(hospital.engine.kept(&patient(2)).is_none(), "of who is erased nothing is remembered");
}

#[test]
fn of_more_rows_than_are_remembered_the_ones_with_least_go_and_no_number_is_given_twice() {
    let rows = u16::try_from(PATIENTS_MAX + AWAY_MAX).unwrap() + 1;
    let row = |n: u16| {
        let handled = Handled { domain: DOMAIN, sequence: 7, refused: None };
        let handled = if n + 1 == rows { vec![handled] } else { Vec::new() };
        (patient(n), Kept { next_alarm: 5, handled, ..Kept::default() })
    };
    let engine = Engine::new(Site::default(), (0..rows).map(row));
    let mut hospital = Hospital { engine, at: Duration::ZERO };
    let nothing = u64::try_from(AWAY_MAX).unwrap() + 1;
    let expected = LetGo { nothing, forgotten: 1, ..LetGo::default() };
    assert_eq!(hospital.engine.take_losses(), Losses { let_go: expected, ..Losses::default() });
    assert!(hospital.engine.patients.contains_key(&patient(rows - 1)), "staff said something of this one");
    assert_eq!(hospital.act(rows - 1, 7, &Action::Oxygen { given: true }), Err("replayed"));
    // Whoever is new may be the one who was forgotten.
    hospital.see(60_000, FALL, What::Event);
    assert_eq!(hospital.numbers(60_000), [5 + SKIPPED + 1]);
}
