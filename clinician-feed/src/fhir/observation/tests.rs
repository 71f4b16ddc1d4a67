use caregate_protocol::code::QUANTITIES;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::ring::entries;
use crate::ring::tests::{numeric, segment};

/// 2026-09-21T14:13:20Z.
const US: i64 = 1_790_000_000_000_000;

fn items(readings: Vec<caregate_protocol::reading::Reading>) -> Vec<Item> {
    entries(segment(45, readings), 512, US / 1000).map(|entry| Item::Single(Arc::new(entry))).collect()
}

fn json_of(item: &Item) -> Json {
    serde_json::to_value(item.observation().unwrap()).unwrap()
}

#[test]
fn a_vital_sign() {
    let item = &items(vec![numeric("spo2", 3, 97.5, Some(US + 12_345))])[0];
    let hex = "01".repeat(16);
    assert_eq!(
        json_of(item),
        json!({
            "resourceType": "Observation", "id": format!("{hex}-1-45-0"), "status": "final",
            "meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/oxygensat"]},
            "category": [{"coding": [{"system": CATEGORY, "code": "vital-signs"}]}],
            "code": {"text": "SpO2", "coding": [
                {"system": LOINC, "code": "2708-6"}, {"system": LOINC, "code": "59408-5"}, {"system": MDC, "code": "150456"}]},
            "subject": {"reference": format!("Patient/{hex}"), "type": "Patient"},
            "effectiveDateTime": "2026-09-21T14:13:20.012Z",
            "valueQuantity": {"value": 97.5, "unit": "%", "system": UCUM, "code": "%"},
            "device": {"type": "Device", "identifier": {"value": "monitor-1"}}
        })
    );
}

#[test]
fn pressures_are_one_panel_whatever_their_order() {
    let readings = |order: [u16; 2]| {
        let reading = |q| numeric("p", q, f64::from(q) * 20.0, Some(US));
        entries(segment(1, order.map(reading).to_vec()), 0, 5).map(Arc::new).collect()
    };
    let (one, other) =
        (Item::Panel(readings([DIASTOLIC, SYSTOLIC])), Item::Panel(readings([SYSTOLIC, DIASTOLIC])));
    assert_eq!(json_of(&one), json_of(&other));
    let panel = json_of(&one);
    assert_eq!(panel["code"]["coding"][0]["code"], "85354-9");
    assert_eq!(panel["component"].as_array().unwrap().len(), 2);
    assert_eq!(panel["component"][0]["valueQuantity"]["value"], 100.0);
    assert_eq!(panel["component"][1]["valueQuantity"]["code"], "mm[Hg]");
    assert!(panel.get("valueQuantity").is_none());
    let mean = json_of(&Item::Panel(readings([MEAN, MEAN])));
    assert_eq!(mean["component"][0]["dataAbsentReason"]["coding"][0]["code"], "unknown");
    assert_eq!(mean["component"][2]["valueQuantity"]["value"], 140.0);
}

#[test]
fn a_waveform_is_sampled_data() {
    let mut wave = numeric("ecg-ii", 0, 0.0, None);
    wave.value = Value::Waveform {
        quantity: 258,
        t0_us: US + 1,
        period_ns: 2_777_778,
        scale: 0.005,
        offset: -5.12,
        samples: vec![995, MISSING_SAMPLE, -1],
    };
    let observation = json_of(&items(vec![wave])[0]);
    assert_eq!(observation["category"][0]["coding"][0]["code"], "procedure");
    assert_eq!(
        observation["effectivePeriod"],
        json!({"start": "2026-09-21T14:13:20.000001Z", "end": "2026-09-21T14:13:20.005556Z"})
    );
    assert_eq!(
        observation["component"][0]["valueSampledData"],
        json!({"origin": {"value": -5.12, "unit": "mV", "system": UCUM, "code": "mV"}, "period": 2.777_778,
            "factor": 0.005, "dimensions": 1, "data": "995 E -1"})
    );
}

#[test]
fn events_and_what_the_table_does_not_know() {
    let mut fall = numeric("fall", 0, 0.0, Some(i64::MAX));
    fall.value = Value::Event { quantity: 513 };
    let mut button = fall.clone();
    button.value = Value::Event { quantity: 514 };
    let all = items(vec![fall, button, numeric("new-thing", 60_000, 1.0, None)]);
    let fall = json_of(&all[0]);
    assert_eq!(
        (&fall["valueBoolean"], &fall["code"]["coding"][0]["code"]),
        (&json!(true), &json!("8519681"))
    );
    assert_eq!(
        fall["effectiveDateTime"], "2026-09-21T14:13:20.001Z",
        "the gateway's clock, not the year 294247"
    );
    assert_eq!(json_of(&all[1])["code"], json!({"text": "Call button"}));
    assert_eq!(json_of(&all[2])["code"], json!({"text": "new-thing"}));
}

#[test]
fn every_quantity_has_a_category_and_vital_signs_a_profile_of_r4() {
    for q in &QUANTITIES {
        assert!(
            ["vital-signs", "laboratory", "activity", "procedure"].contains(&category(q.number)),
            "{}",
            q.name
        );
        assert_eq!(category(q.number) == "vital-signs", profile(q).is_some(), "{}", q.name);
        assert_eq!(is_pressure(q.number), profile(q).is_some_and(|p| p.ends_with("/bp")), "{}", q.name);
    }
}

/// A unit of UCUM as far as the table uses them (§§2.1–2.3 of its specification): terms of `prefix atom annotation`.
fn is_ucum(unit: &str) -> bool {
    const ATOMS: [&str; 9] = ["min", "%", "m[Hg]", "Cel", "g", "L", "V", "Ohm", "1"];
    const PREFIXES: [&str; 6] = ["", "m", "u", "d", "c", "k"];
    let is_term = |term: &str| {
        let (atom, annotation) = term.split_at(term.find('{').unwrap_or(term.len()));
        let annotated = annotation.len() > 2 && annotation.ends_with('}') && annotation.is_ascii();
        let known = PREFIXES.iter().any(|p| atom.strip_prefix(p).is_some_and(|rest| ATOMS.contains(&rest)));
        (known && annotation.is_empty()) || ((known || atom.is_empty()) && annotated)
    };
    unit.strip_prefix('/').unwrap_or(unit).split(['/', '.']).all(is_term)
}

#[test]
fn every_unit_is_ucum() {
    for q in &QUANTITIES {
        assert!(q.unit.is_none_or(is_ucum), "{:?} of {}", q.unit, q.name);
    }
    for wrong in ["bpm", "mmHg", "°C", "", "mg/", "{}", "{steps", "lbs"] {
        assert!(!is_ucum(wrong), "{wrong}");
    }
}

proptest! {
    /// R4 §2.24.0.12: numbers or E, U, L, between single spaces.
    #[test]
    fn sampled_data_keeps_its_grammar_and_every_sample(samples in prop::collection::vec(any::<i16>(), 0..300)) {
        let data = sampled(&samples);
        let read: Vec<i16> = match data.as_str() {
            "" => Vec::new(),
            data => data.split(' ').map(|s| if s == "E" { MISSING_SAMPLE } else { s.parse().unwrap() }).collect(),
        };
        prop_assert_eq!(read, samples);
    }

    #[test]
    fn ids_fit(sequence in any::<u64>(), sensor in any::<Option<i64>>()) {
        let reading = numeric("systolic", 5, 120.0, sensor);
        let entry = Arc::new(entries(segment(sequence, vec![reading]), 0, 5).next().unwrap());
        for item in [Item::Single(Arc::clone(&entry)), Item::Panel(vec![entry])] {
            let id = item.id();
            prop_assert!((1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'));
        }
    }
}
