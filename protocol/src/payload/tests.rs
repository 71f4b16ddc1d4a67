use proptest::prelude::*;

use super::*;
use crate::code;

const RECEIVED_US: i64 = 1_790_000_000_500_000;
const NUM: &str = "vitals/v1/hub-1/num/heart-rate";
const PACK: &str = "vitals/v1/hub-1/num/senml";
const WAVE: &str = "vitals/v1/hub-1/wave/ecg-ii";
const POINT: &str = "vitals/v1/hub-1/num/omh";
const BRIDGE: &str = "vitals/v1/hub-1/BTtoMQTT/A4C13800000";

fn readings(topic: &str, payload: &[u8]) -> Result<Vec<Reading>, DecodeError> {
    decode(topic, payload, RECEIVED_US).map(|decoded| match decoded {
        Decoded::Readings(readings) => readings,
        Decoded::Meta(_) | Decoded::Status(_) => panic!("{topic} gave no readings"),
    })
}

fn refused(topic: &str, payload: impl AsRef<[u8]>) -> DecodeError {
    readings(topic, payload.as_ref()).unwrap_err()
}

/// The error of the first record.
fn refused_record(payload: impl AsRef<[u8]>) -> DecodeError {
    let error = refused(PACK, payload);
    if let DecodeError::Record { index: 0, source } = error { *source } else { error }
}

fn number(reading: &Reading) -> f64 {
    let Value::Numeric { value, .. } = reading.value else { panic!("{reading:?}") };
    value
}

/// Entries of a waveform map, in hexadecimal, by key.
fn wave_entries() -> Vec<(&'static str, &'static str)> {
    vec![
        ("t0", "1b00065bfeda25e000"),
        ("period", "1a002a62b2"),
        ("seq", "07"),
        ("scale", "fb3f747ae147ae147b"),
        ("offset", "fbc0147ae147ae147b"),
        ("unit", "626d56"),
        ("data", "46e303e303f303"),
        ("flags", "05"),
    ]
}

fn wave_map(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut map = vec![0xa0 + u8::try_from(entries.len()).unwrap()];
    for (key, value) in entries {
        map.push(0x60 + u8::try_from(key.len()).unwrap());
        map.extend(key.bytes());
        map.extend(hex::decode(value).unwrap());
    }
    map
}

/// The good chunk with one entry replaced.
fn wave_with(key: &str, value: &str) -> Vec<u8> {
    let mut entries = wave_entries();
    entries.iter_mut().filter(|entry| entry.0 == key).for_each(|entry| entry.1 = Box::leak(value.into()));
    wave_map(&entries)
}

/// Fenced blocks of the device makers' page whose info string has a topic.
fn documented() -> Vec<(String, Vec<u8>)> {
    let mut examples = Vec::new();
    let mut lines = include_str!("../../../docs/payloads.md").lines();
    while let Some(line) = lines.next() {
        let Some((format, topic)) = line.strip_prefix("```").and_then(|info| info.split_once(' ')) else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let payload = match format {
            "hex" => body.iter().flat_map(|line| hex_of(line)).collect(),
            _ => body.join("\n").into_bytes(),
        };
        examples.push((topic.to_owned(), payload));
    }
    examples
}

/// The bytes of a line up to its comment, which three spaces and no byte begin.
fn hex_of(line: &str) -> Vec<u8> {
    let words = line.split_whitespace().map_while(|word| hex::decode(word).ok());
    words.flatten().collect()
}

#[test]
fn what_device_makers_read_is_decoded() {
    let examples = documented();
    let by = |topic: &str, nth: usize| {
        let payload = &examples.iter().filter(|(t, _)| t == topic).nth(nth).unwrap().1;
        decode(topic, payload, RECEIVED_US).unwrap_or_else(|error| panic!("{topic}: {error}"))
    };
    assert_eq!(examples.len(), 17);
    let reading = |stream: &str, seq, sensor_time_us, value| Reading {
        device: DeviceId::new("hub-1").unwrap(),
        stream: StreamName::new(stream).unwrap(),
        seq,
        sensor_time_us,
        gateway_time_us: RECEIVED_US,
        flags: 0,
        value,
    };
    let t = Some(1_790_000_000_000_000);
    let numeric = |quantity, value| Value::Numeric { quantity, value };
    assert_eq!(by(NUM, 0), Decoded::Readings(vec![reading("heart-rate", Some(7), t, numeric(1, 72.0))]));
    let pack = Decoded::Readings(vec![
        reading("heart-rate", None, t, numeric(1, 72.0)),
        reading("spo2", None, t, numeric(3, 97.0)),
        reading("temperature", None, Some(1_789_999_940_000_000), numeric(8, 36.6)),
    ]);
    assert_eq!((by(PACK, 0), by(PACK, 1)), (pack.clone(), pack));
    let wave = Value::Waveform {
        quantity: 258,
        t0_us: 1_790_000_000_000_000,
        period_ns: 2_777_778,
        scale: 0.005,
        offset: -5.12,
        samples: vec![995, 995, 1011],
    };
    assert_eq!(by(WAVE, 0), Decoded::Readings(vec![reading("ecg-ii", Some(7), t, wave)]));
    let fall = reading("fall", Some(1), t, Value::Event { quantity: 513 });
    assert_eq!(by("vitals/v1/hub-1/event/fall", 0), Decoded::Readings(vec![fall]));
    let meta = Meta {
        manufacturer: Some("Example".into()),
        model: Some("H10".into()),
        firmware: Some("3.1.0".into()),
    };
    assert_eq!(by("vitals/v1/hub-1/meta", 0), Decoded::Meta(meta));
    assert_eq!(by("vitals/v1/hub-1/status", 0), Decoded::Status(Status::Online));
    let Decoded::Readings(temperature) = by("vitals/v1/hub-1/num/temperature", 0) else {
        panic!("no reading")
    };
    assert!((number(&temperature[0]) - 37.0).abs() < 1e-9);
    assert_eq!((temperature[0].seq, temperature[0].sensor_time_us), (None, None));
}

/// Metric, value and the device's time of each reading.
fn told(topic: &str, payload: &[u8]) -> Vec<(String, f64, Option<i64>)> {
    let readings = readings(topic, payload).unwrap_or_else(|error| panic!("{topic}: {error}"));
    readings.iter().map(|r| (r.stream.to_string(), number(r), r.sensor_time_us)).collect()
}

#[test]
fn data_points_and_bridges_are_read_as_documented() {
    let examples = documented();
    let t = Some(1_790_000_000_000_000);
    let points: Vec<_> = examples.iter().filter(|(topic, _)| topic == POINT).collect();
    assert_eq!(told(POINT, &points[0].1), [("heart-rate".to_owned(), 72.0, t)]);
    let pressure = [("systolic".to_owned(), 121.0, t), ("diastolic".to_owned(), 79.0, t)];
    assert_eq!(told(POINT, &points[1].1), pressure);
    let bridge = |nth: u32| {
        let topic = format!("{BRIDGE}{nth}");
        let payload = &examples.iter().find(|(t, _)| *t == topic).unwrap().1;
        told(&topic, payload).into_iter().map(|(metric, value, _)| (metric, value)).collect::<Vec<_>>()
    };
    let is = |metric: &str, value: f64| (metric.to_owned(), value);
    assert_eq!(bridge(1), [is("spo2", 97.0), is("perfusion-index", 6.0), is("pulse-rate", 72.0)]);
    assert_eq!(bridge(2), [is("pulse-rate", 77.0), is("steps", 2143.0)]);
    assert_eq!(bridge(3), [is("temperature", 36.7)]);
    assert_eq!(bridge(4), [is("pulse-rate", 66.0), is("systolic", 124.0), is("diastolic", 81.0)]);
    assert_eq!(bridge(5), [is("weight", 71.4)]);
    assert_eq!(bridge(7), [is("heart-rate", 64.0)]);
    let glucose = bridge(6);
    assert!(glucose[0].0 == "glucose" && (glucose[0].1 - 99.0858).abs() < 1e-9, "{glucose:?}");
}

#[test]
fn every_unit_of_a_data_point_is_converted_and_others_are_refused() {
    let point = |key: &str, value: f64, unit: &str| {
        serde_json::json!({ "body": { key: { "value": value, "unit": unit } } }).to_string()
    };
    for (key, value, unit, expected) in [
        ("oxygen_saturation", 97.0, "%", 97.0),
        ("respiratory_rate", 15.0, "breaths/min", 15.0),
        ("body_temperature", 98.6, "F", 37.0),
        ("body_temperature", 36.6, "C", 36.6),
        ("body_weight", 150.0, "lb", 68.038_855_5),
        ("blood_glucose", 95.0, "mg/dL", 95.0),
        ("blood_glucose", 5.5, "mmol/L", 99.0858),
    ] {
        let value = told(POINT, point(key, value, unit).as_bytes())[0].1;
        assert!((value - expected).abs() < 1e-6, "{key} {unit}: {value}");
    }
    assert_eq!(refused(POINT, point("heart_rate", 72.0, "%")).reason(), "unit");
    assert_eq!(refused(POINT, point("heart_rate", 999.0, "beats/min")).reason(), "implausible");
    assert_eq!(refused(POINT, point("step_count", 999.0, "steps")), DecodeError::Missing { key: "body" });
    assert_eq!(refused(POINT, "{}"), DecodeError::Missing { key: "body" });
    assert_eq!(refused(POINT, r#"{"body":{"heart_rate":{"value":72}}}"#).reason(), "type");
    let twice = r#"{"body":{"heart_rate":{"value":72,"value":73,"unit":"beats/min"}}}"#;
    assert_eq!(refused(POINT, twice).reason(), "type");
    let time =
        r#"{"heart_rate":{"value":72,"unit":"beats/min"},"effective_time_frame":{"date_time":"yesterday"}}"#;
    assert_eq!(
        refused(POINT, time).to_string(),
        "effective_time_frame must be a date and time as in RFC 3339"
    );
    let old = time.replace("yesterday", "1969-12-31T23:59:59Z");
    assert_eq!(refused(POINT, old).reason(), "range");
}

#[test]
fn a_bridge_that_has_no_value_of_a_person_gives_none() {
    let topic = format!("{BRIDGE}1");
    let bridge = |payload: &str| decode(&topic, payload.as_bytes(), RECEIVED_US);
    let none = Ok(Decoded::Readings(Vec::new()));
    assert_eq!(bridge(r#"{"spo2":255,"hr":65535,"worn":false}"#), none);
    assert_eq!(bridge(r#"{"spo2":0,"hr":0,"worn":true,"calibrating":true}"#), none);
    let reason = |payload: &str| bridge(payload).unwrap_err().reason();
    assert_eq!(reason(r#"{"spo2":255,"worn":true}"#), "implausible");
    assert_eq!(reason(r#"{"tempc":21.5,"hum":40}"#), "missing_key", "a room");
    assert_eq!(reason(r#"{"tempc":36.5,"type":"THB"}"#), "missing_key", "a room");
    assert_eq!(reason(r#"{"tempc":21.5}"#), "implausible", "hardly a body");
    assert_eq!(reason(r#"{"weight":12,"weighing_mode":"object"}"#), "missing_key");
    assert_eq!(reason(r#"{"glucose":5.5}"#), "unit", "in which?");
    assert_eq!(reason(r#"{"rssi":-60}"#), "missing_key");
    assert_eq!(reason(r#"{"hr":"72"}"#), "type");
    assert_eq!(reason("[]"), "type");
    assert_eq!(told(&topic, br#"{"tempf":98.6}"#)[0].0, "temperature");
}

#[test]
fn the_page_for_device_makers_has_every_row() {
    let page = include_str!("../../../docs/payloads.md");
    for row in &code::QUANTITIES {
        assert!(page.contains(&format!("`{}`", row.name)), "{}", row.name);
        for unit in row.accepted.iter().map(|a| a.unit).chain(row.unit) {
            assert!(page.contains(&format!("`{unit}`")), "{} {unit}", row.name);
        }
    }
}

#[test]
fn plain_json_is_kind_to_what_is_new_and_strict_with_what_is_known() {
    let one =
        |payload: &str| readings(NUM, payload.as_bytes()).map(|r| (number(&r[0]), r[0].seq, r[0].flags));
    assert_eq!(one(r#" {"v":72.5,"battery":{"mv":[1,2]},"seq":null}"#), Ok((72.5, None, 0)));
    assert_eq!(
        one(r#"{"v":1.2,"u":"Hz","seq":18446744073709551615,"q":4294967295}"#),
        Ok((72.0, Some(u64::MAX), u32::MAX))
    );
    let missing = DecodeError::Missing { key: "v" };
    assert_eq!((one("{}"), one(r#"{"v":null}"#)), (Err(missing.clone()), Err(missing)));
    assert_eq!(one(r#"{"v":72,"v":71}"#), Err(DecodeError::Duplicate { key: "v", at: None }));
    let wrong = |key, expected| Err(DecodeError::Type { key, expected, at: None });
    assert_eq!(one(r#"{"v":"72"}"#), wrong("v", "a number"));
    assert_eq!(one(r#"{"v":72,"u":1}"#), wrong("u", "text"));
    assert_eq!(one(r#"{"v":72,"seq":-1}"#), wrong("seq", "a whole number from 0"));
    assert_eq!(one(r#"{"v":72,"t":1.5}"#), wrong("t", "a whole number of milliseconds"));
    let time = DecodeError::Range { key: "t", min: 0, max: TIME_US_MAX };
    assert_eq!(one(r#"{"v":72,"t":-1}"#), Err(time.clone()));
    assert_eq!(one(r#"{"v":72,"t":9223372036854775807}"#), Err(time));
    assert_eq!(
        one(r#"{"v":72,"q":4294967296}"#),
        Err(DecodeError::Range { key: "q", min: 0, max: 4_294_967_295 })
    );
    assert_eq!(one(r#"{"v":72,"u":"%"}"#), Err(DecodeError::Unit { metric: "heart-rate", unit: "/min" }));
    assert_eq!(one(r#"{"v":72"#), Err(DecodeError::Truncated { at: 7 }));
    assert_eq!(one(r#"{"v":72} x"#), Err(DecodeError::Json { line: 1, column: 10 }));
    assert_eq!(one(r#"{"v":NaN}"#), Err(DecodeError::Json { line: 1, column: 6 }));
    assert_eq!(one(r#"{"v":1e999}"#).unwrap_err().reason(), "json");
    assert_eq!(one(&format!(r#"{{"v":{}}}"#, "[".repeat(1000))).unwrap_err().reason(), "json");
    assert_eq!(one("72"), Err(DecodeError::Format { expected: "a JSON object or a SenML pack" }));
    assert_eq!(refused(PACK, r#"{"v":72}"#), DecodeError::Format { expected: "a SenML pack" });
    assert_eq!(
        refused(NUM, vec![b' '; PAYLOAD_BYTES_MAX + 1]),
        DecodeError::TooLong { bytes: PAYLOAD_BYTES_MAX + 1 }
    );
}

#[test]
fn an_implausible_value_is_not_in_the_message() {
    let error = refused(NUM, r#"{"v":351.25}"#);
    assert_eq!(error.to_string(), "heart-rate is outside 0 to 350 /min");
    assert_eq!(error.reason(), "implausible");
    assert_eq!(number(&readings(NUM, br#"{"v":350}"#).unwrap()[0]), 350.0);
}

#[test]
fn events_and_the_device_itself() {
    let event = |payload: &str| readings("vitals/v1/hub-1/event/button", payload.as_bytes());
    assert_eq!(event("").unwrap(), event("{}").unwrap());
    assert_eq!(
        event("[]").unwrap_err(),
        DecodeError::Type { key: "payload", expected: "an object", at: None }
    );
    let decode =
        |leaf: &str, payload: &str| decode(&format!("vitals/v1/hub-1/{leaf}"), payload.as_bytes(), 0);
    assert_eq!(decode("meta", ""), Ok(Decoded::Meta(Meta::default())));
    assert_eq!(decode("status", "offline"), Ok(Decoded::Status(Status::Offline)));
    assert_eq!(decode("status", "on"), Err(DecodeError::Format { expected: "online or offline" }));
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(65));
    for payload in [long.as_str(), r#"{"model":"a\u0007"}"#, r#"{"model":7}"#] {
        assert_eq!(decode("meta", payload).unwrap_err().reason(), "type");
    }
}

#[test]
fn senml_base_fields_hold_until_they_change() {
    let pack = br#"[{"bn":"urn:dev:ow:10e2073a01080063_","bu":"Cel","bv":36,"bt":1790000000.25,"bver":10},
        {"n":"temperature","v":0.5},{"n":"temperature","v":0.75,"t":1},{"bn":"x/","n":"weight","u":"kg","v":34}]"#;
    let got = readings(PACK, pack).unwrap();
    let summary: Vec<_> =
        got.iter().map(|r| (r.stream.as_str(), number(r), r.sensor_time_us.unwrap())).collect();
    let t = 1_790_000_000_250_000;
    assert_eq!(
        summary,
        [("temperature", 36.5, t), ("temperature", 36.75, t + 1_000_000), ("weight", 70.0, t)]
    );
}

#[test]
fn senml_times_below_two_to_the_28_are_relative_to_receipt() {
    let time = |t: &str| {
        let pack = format!(r#"[{{"n":"spo2","u":"/","v":0.97,"t":{t}}}]"#);
        readings(PACK, pack.as_bytes()).map(|r| r[0].sensor_time_us)
    };
    assert_eq!(time("-5"), Ok(Some(RECEIVED_US - 5_000_000)));
    assert_eq!(time("268435455"), Ok(Some(RECEIVED_US + 268_435_455_000_000)));
    assert_eq!(time("268435456"), Ok(Some(268_435_456_000_000)));
    assert_eq!((time("0"), time("null")), (Ok(None), Ok(None)));
    for out in ["-268435457", "1e300", "-1e300", "253402300800"] {
        assert_eq!(time(out).unwrap_err().reason(), "range", "{out}");
    }
}

#[test]
fn senml_json_errors() {
    assert_eq!(refused_record(r#"[{"n":"spo2","v":97,"bver":11}]"#), DecodeError::Version);
    assert_eq!(refused_record(r#"[{"n":"spo2","v":97,"unit_":1}]"#), DecodeError::MustUnderstand);
    assert_eq!(refused_record(r#"[{"v":97}]"#), DecodeError::Missing { key: "n" });
    assert_eq!(refused_record(r#"[{"n":"spo2"}]"#), DecodeError::Missing { key: "v" });
    assert_eq!(refused_record(r#"[{"n":"spo2","vs":"97","bv":1}]"#), DecodeError::Missing { key: "v" });
    assert_eq!(refused_record("[]"), DecodeError::Missing { key: "v" });
    assert_eq!(
        refused_record(r#"[{"n":"spo2","v":1,"v":2}]"#),
        DecodeError::Duplicate { key: "v", at: None }
    );
    assert_eq!(
        refused_record(r#"[{"n":"hub/spo3","v":1}]"#).to_string(),
        "metric spo3 is not in the code table"
    );
    assert_eq!(refused_record(r#"[{"n":"hub/","v":1}]"#).reason(), "topic");
    assert_eq!(refused_record(r#"[{"n":"spo2","u":"Cel","v":1}]"#).reason(), "unit");
    assert_eq!(
        refused_record("[7]"),
        DecodeError::Type { key: "payload", expected: "an array of objects", at: None }
    );
    let second = refused(PACK, r#"[{"n":"spo2","v":97},{"n":"spo2","v":101}]"#);
    assert_eq!(
        (second.reason(), second.to_string().as_str()),
        ("implausible", "record 1: spo2 is outside 1 to 100 %")
    );
    let records = |n: usize| format!("[{}]", vec![r#"{"n":"spo2","v":97}"#; n].join(","));
    assert_eq!(readings(PACK, records(RECORDS_MAX).as_bytes()).unwrap().len(), RECORDS_MAX);
    let many = DecodeError::TooMany { what: "records", max: RECORDS_MAX };
    assert_eq!(refused(PACK, records(RECORDS_MAX + 1)), many);
    assert_eq!(
        refused(
            PACK,
            [vec![0x99, 1, 1], [0xa2, 0, 0x64, b's', b'p', b'o', b'2', 2, 0x18, 97].repeat(257)].concat()
        ),
        many
    );
}

/// A CBOR pack of one spo2 record whose value is this item.
fn spo2(value: &str) -> Vec<u8> {
    hex::decode(format!("81a2 00 6473706f32 02 {value}").replace(' ', "")).unwrap()
}

#[test]
fn senml_cbor_takes_numbers_of_every_kind() {
    // Integer, half, single, double, and 975 * 10^-1.
    for (item, expected) in [
        ("1861", 97.0),
        ("f95610", 97.0),
        ("fa42c30000", 97.5),
        ("fb4058600000000000", 97.5),
        ("c482203903ce", -975.0),
    ] {
        let got = readings(PACK, &spo2(item)).map(|r| number(&r[0]));
        if expected > 0.0 {
            assert_eq!(got, Ok(expected), "{item}")
        } else {
            assert_eq!(got.unwrap_err().reason(), "implausible")
        }
    }
    assert_eq!(readings(PACK, &spo2("c482201903cf")).map(|r| number(&r[0])), Ok(97.5));
    // A subnormal half.
    assert_eq!(refused_record(spo2("f90001")).reason(), "implausible");
    // Indefinite lengths.
    let pack = hex::decode("9fbf006473706f32021861ffff").unwrap();
    assert_eq!(readings(PACK, &pack).map(|r| number(&r[0])), Ok(97.0));
}

#[test]
fn senml_cbor_errors() {
    let wrong = |expected| DecodeError::Type { key: "v", expected, at: Some(9) };
    assert_eq!(refused_record(spo2("f97c00")), DecodeError::NotFinite { key: "v" });
    assert_eq!(refused_record(spo2("fb7ff8000000000000")), DecodeError::NotFinite { key: "v" });
    assert_eq!(refused_record(spo2("f5")), wrong("a number"));
    for item in ["c48220", "f956", "19", "fa42"] {
        assert_eq!(refused_record(spo2(item)), DecodeError::Truncated { at: spo2(item).len() }, "{item}");
    }
    for item in ["c4821841 01", "c482 3b7fffffffffffffff 01", "c4810101", "c40101"] {
        assert_eq!(refused_record(spo2(item)), wrong("a decimal fraction of two whole numbers"), "{item}");
    }
    let pack = |text: &str| hex::decode(text.replace(' ', "")).unwrap();
    assert_eq!(refused_record(pack("81a1 63783079 01")).reason(), "missing_key");
    assert_eq!(refused_record(pack("81a1 62785f 01")), DecodeError::MustUnderstand);
    assert_eq!(refused_record(pack("81a2 021861 021861")), DecodeError::Duplicate { key: "v", at: Some(5) });
    assert_eq!(
        refused_record(pack("8101")),
        DecodeError::Type { key: "record", expected: "a map", at: Some(1) }
    );
    assert_eq!(
        refused_record(pack("81a1 f501")),
        DecodeError::Type { key: "label", expected: "a whole number", at: Some(2) }
    );
    assert_eq!(refused(PACK, [spo2("1861"), vec![0]].concat()), DecodeError::Trailing { at: 11, extra: 1 });
    assert_eq!(refused_record(pack("9f")), DecodeError::Truncated { at: 1 });
    assert_eq!(refused_record(pack("81a1 09 1c")).reason(), "type");
    let entries = [vec![0x81, 0xb8, 33], [0x18, 99, 0].repeat(33)].concat();
    assert_eq!(refused_record(entries).reason(), "too_many");
    for item in ["03 61 78", "04 f4", "05 01", "08 61 41"] {
        assert_eq!(
            refused_record(pack(&format!("81a2 00 6473706f32 {item}"))),
            DecodeError::Missing { key: "v" }
        );
    }
}

#[test]
fn waveform_entries_in_any_order_and_those_that_may_lack() {
    let mut entries = wave_entries();
    let whole = readings(WAVE, &wave_map(&entries)).unwrap();
    assert_eq!((whole[0].seq, whole[0].flags), (Some(7), 5));
    entries.reverse();
    entries.push(("x", "8201a0"));
    assert_eq!(readings(WAVE, &wave_map(&entries)).unwrap(), whole);
    for key in ["t0", "period", "scale", "unit", "data"] {
        let entries: Vec<_> = wave_entries().into_iter().filter(|entry| entry.0 != key).collect();
        assert_eq!(refused(WAVE, wave_map(&entries)), DecodeError::Missing { key });
    }
    let entries: Vec<_> =
        wave_entries().into_iter().filter(|e| !["seq", "offset", "flags"].contains(&e.0)).collect();
    let short = readings(WAVE, &wave_map(&entries)).unwrap().remove(0);
    assert_eq!((short.seq, short.flags), (None, 0));
    assert!(matches!(short.value, Value::Waveform { offset: 0.0, .. }));
}

#[test]
fn waveform_units_are_converted_by_scale_and_offset() {
    let mut entries = wave_entries();
    entries[3].1 = "05";
    entries[4].1 = "391387";
    entries[5].1 = "627556";
    let Value::Waveform { scale, offset, samples, .. } =
        readings(WAVE, &wave_map(&entries)).unwrap().remove(0).value
    else {
        panic!("no waveform")
    };
    assert_eq!((scale, offset, samples), (0.005, -5.0, vec![995, 995, 1011]));
    assert_eq!(refused(WAVE, wave_with("unit", "6125")), DecodeError::Unit { metric: "ecg-ii", unit: "mV" });
}

#[test]
fn waveform_bounds() {
    let good = |key, value: &str| readings(WAVE, &wave_with(key, value)).map(|_| ());
    for (key, value) in [("period", "19 7a12"), ("period", "1a 3b9aca00"), ("t0", "00"), ("scale", "20")] {
        assert_eq!(good(key, &value.replace(' ', "")), Ok(()), "{key} {value}");
    }
    let period = Err(DecodeError::Range { key: "period", min: 31_250, max: 1_000_000_000 });
    assert_eq!((good("period", "197a11"), good("period", "1a3b9aca01")), (period.clone(), period.clone()));
    assert_eq!(good("period", "1b0000000100000000"), period);
    let t0 = Err(DecodeError::Range { key: "t0", min: 0, max: TIME_US_MAX });
    assert_eq!((good("t0", "20"), good("t0", "1b0384440ccc736000")), (t0.clone(), t0));
    assert_eq!(good("flags", "1b0000000100000000").unwrap_err().reason(), "range");
    assert_eq!(good("seq", "20").unwrap_err().reason(), "type");
    assert_eq!(good("t0", "f4").unwrap_err().reason(), "type");
    assert_eq!(good("unit", "426d56").unwrap_err().reason(), "type");
    assert_eq!(good("data", "62e303").unwrap_err().reason(), "type");
    assert_eq!(good("scale", "f97e00"), Err(DecodeError::NotFinite { key: "scale" }));
    assert_eq!(good("scale", "fb7fe0000000000000").unwrap_err().reason(), "not_finite");
    for zero in ["00", "f98000", "fb0000000000000001"] {
        assert_eq!(
            good("scale", zero),
            Err(DecodeError::Type { key: "scale", expected: "other than 0", at: None })
        );
    }
    assert_eq!(good("data", "40"), Err(DecodeError::Missing { key: "a sample in data" }));
    assert_eq!(good("data", "43010203").unwrap_err().to_string(), "data must be whole 16-bit samples");
    let samples = |n: usize| format!("59{:04x}{}", 2 * n, "0000".repeat(n));
    assert_eq!(good("data", &samples(crate::reading::SAMPLES_MAX)), Ok(()));
    assert_eq!(good("data", &samples(crate::reading::SAMPLES_MAX + 1)).unwrap_err().reason(), "too_many");
}

#[test]
fn waveform_shapes() {
    let good = wave_map(&wave_entries());
    for cut in 1..good.len() {
        assert_eq!(refused(WAVE, &good[..cut]), DecodeError::Truncated { at: cut });
    }
    assert_eq!(refused(WAVE, []), DecodeError::Format { expected: "a CBOR map" });
    assert_eq!(refused(WAVE, "{}"), DecodeError::Format { expected: "a CBOR map" });
    assert_eq!(
        refused(WAVE, [good.as_slice(), b"\0"].concat()),
        DecodeError::Trailing { at: good.len(), extra: 1 }
    );
    let twice = [wave_entries(), vec![("seq", "08")]].concat();
    assert_eq!(refused(WAVE, wave_map(&twice)), DecodeError::Duplicate { key: "seq", at: Some(good.len()) });
    assert_eq!(refused(WAVE, [0xa1, 1, 1]), DecodeError::Type { key: "key", expected: "text", at: Some(1) });
    let many = [vec![0xb8, 33], [0x61, b'x', 0].repeat(33)].concat();
    assert_eq!(refused(WAVE, many), DecodeError::TooMany { what: "entries", max: 32 });
}

const TOPICS: [&str; 9] = [
    POINT,
    "vitals/v1/hub-1/BTtoMQTT/x",
    NUM,
    PACK,
    WAVE,
    "vitals/v1/hub-1/event/fall",
    "vitals/v1/hub-1/meta",
    "vitals/v1/hub-1/status",
    "vitals/v1/hub-1/num/glucose",
];

/// What is decoded can be sealed and read back; what is not has a message.
fn check(topic: &str, payload: &[u8]) {
    match decode(topic, payload, RECEIVED_US) {
        Ok(Decoded::Readings(readings)) => {
            let sealed = crate::reading::encode(&readings);
            assert_eq!(crate::reading::decode(&sealed), Ok(readings));
        }
        Ok(Decoded::Meta(_) | Decoded::Status(_)) => {}
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        TOPICS.iter().for_each(|topic| check(topic, &payload));
    }

    #[test]
    fn arbitrary_topics_never_panic(topic in "(vitals/v1/)?[a-z0-9/ é-]{0,80}", payload in any::<[u8; 4]>()) {
        check(&topic, &payload);
    }

    #[test]
    fn changed_examples_never_panic(nth in 0usize..17, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (topic, mut payload) = documented().swap_remove(nth);
        let at = at.index(payload.len());
        payload[at] = byte;
        check(&topic, &payload);
    }

    #[test]
    fn every_plausible_number_comes_through(value in 0.0f64..350.0, seq in any::<u64>()) {
        let payload = serde_json::json!({"v": value, "seq": seq}).to_string();
        let got = readings(NUM, payload.as_bytes()).unwrap();
        prop_assert_eq!((number(&got[0]), got[0].seq), (value, Some(seq)));
    }
}
