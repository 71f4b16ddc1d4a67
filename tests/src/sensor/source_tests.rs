//! Tracks, chunks and generators.

use super::*;
use crate::wfdb::Calibration;

fn signal(name: &str, frequency_hz: f64, samples: Vec<i16>, calibrations: Vec<Calibration>) -> Signal {
    let unit = match name {
        "HR" => "bpm",
        "ABP" | "ART" => "mmHg",
        "RESP" => "furlong",
        _ => "mV",
    };
    Signal { name: name.to_owned(), unit: unit.to_owned(), frequency_hz, samples, calibrations }
}

fn calibration(from: usize, gain: f64) -> Calibration {
    Calibration { from, gain, baseline: 10 }
}

fn device(signals: &[&str]) -> (DeviceConfig, RecordConfig) {
    let record = RecordConfig {
        record: "r".into(),
        signals: signals.iter().map(|&s| s.to_owned()).collect(),
        from_s: 0.0,
        repeat: false,
    };
    let device = DeviceConfig {
        id: "d".parse().unwrap(),
        username: String::new(),
        password: String::new(),
        source: SourceConfig::Record(record.clone()),
        chunk_ms: 200,
        payload: super::super::PayloadFormat::Json,
        seed: None,
        interface: None,
    };
    (device, record)
}

fn record(signals: Vec<Signal>) -> Record {
    Record { name: "r".to_owned(), frequency_hz: 100.0, frames: 50, signals }
}

#[test]
fn chunks_cover_the_signal_and_end_where_the_gain_changes() {
    let samples: Vec<i16> = (0..50).collect();
    let signal = signal("II", 100.0, samples.clone(), vec![calibration(0, 100.0), calibration(25, 50.0)]);
    let (device, config) = device(&[]);
    let source = Source::Record {
        tracks: tracks(&device, &config, record(vec![signal]), 200).unwrap(),
        repeat: false,
    };
    let items: Vec<Item> = source.items().collect();
    assert_eq!(items.iter().map(|i| i.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(items.iter().map(|i| i.t_us).collect::<Vec<_>>(), [0, 200_000, 250_000, 450_000]);
    let mut all = Vec::new();
    for item in items {
        let Body::Wave { scale, offset, samples, period_ns, .. } = item.body else { panic!("numeric") };
        let gain = if item.t_us < 250_000 { 100.0 } else { 50.0 };
        assert_eq!((scale, offset, period_ns), (1.0 / gain, -10.0 / gain, 10_000_000));
        all.extend(samples);
    }
    assert_eq!(all, samples);
}

#[test]
fn tracks_merge_in_order_and_zero_or_missing_numerics_stay_out() {
    let wave = |name| signal(name, 100.0, vec![1; 50], vec![calibration(0, 1.0)]);
    let hr = signal("HR", 1.0, vec![80, 10, MISSING, 70], vec![calibration(0, 1.0)]);
    let (device, config) = device(&[]);
    let signals = vec![wave("II"), hr, wave("V"), wave("strange")];
    let tracks = tracks(&device, &config, record(signals), 200).unwrap();
    let source = Source::Record { tracks, repeat: false };
    assert_eq!(source.streams(), ["ecg-ii", "heart-rate", "ecg-v"]);
    let items: Vec<Item> = source.items().collect();
    assert!(items.is_sorted_by_key(|item| item.due_us));
    let rates: Vec<_> = items.iter().filter(|i| i.stream == "heart-rate").collect();
    assert_eq!(rates.iter().map(|i| (i.seq, i.t_us)).collect::<Vec<_>>(), [(0, 0), (1, 3_000_000)]);
    assert_eq!(rates[1].body, Body::Numeric { unit: "/min".to_owned(), value: 60.0 });
}

#[test]
fn a_repeated_record_begins_anew_where_the_longest_signal_ends() {
    let wave = signal("II", 100.0, vec![1; 50], vec![calibration(0, 1.0)]);
    let hr = signal("HR", 1.0, vec![80, MISSING], vec![calibration(0, 1.0)]);
    let never = signal("V", 100.0, Vec::new(), vec![calibration(0, 1.0)]);
    let (device, config) = device(&[]);
    let tracks = tracks(&device, &config, record(vec![wave, hr, never]), 250).unwrap();
    let source = Source::Record { tracks, repeat: true };
    let items: Vec<Item> = source.items().take(8).collect();
    assert!(items.is_sorted_by_key(|item| item.due_us));
    let told = |stream| {
        let of = items.iter().filter(move |item| item.stream == stream);
        of.map(|item| (item.seq, item.t_us)).collect::<Vec<_>>()
    };
    assert_eq!(told("ecg-ii"), [(0, 0), (1, 250_000), (2, 2_000_000), (3, 2_250_000), (4, 4_000_000)]);
    assert_eq!(told("heart-rate"), [(0, 0), (1, 2_000_000), (2, 4_000_000)]);
    assert_eq!(told("ecg-v"), []);
}

#[test]
fn signals_are_named_when_they_cant_be_sent() {
    let wave = |name| signal(name, 100.0, vec![1; 50], vec![calibration(0, 1.0)]);
    let error = |signals: &[&str], record| {
        let (device, config) = device(signals);
        tracks(&device, &config, record, 200).unwrap_err().to_string()
    };
    assert_eq!(error(&["X"], record(vec![wave("II")])), "device d: signal 'X' is not in the record");
    assert_eq!(error(&["X"], record(vec![wave("X")])), "device d: signal 'X' has no channel or metric here");
    assert!(error(&[], record(vec![wave("ABP"), wave("ART")])).contains("'ART' goes to a channel"));
    assert!(error(&[], record(vec![wave("X")])).contains("no signal of the record"));
    assert!(error(&["RESP"], record(vec![wave("RESP")])).contains("'RESP' is in a unit that"));
    assert!(error(&[], record(vec![wave("RESP")])).contains("no signal of the record"));
}

#[test]
fn generators_count_their_streams() {
    let ecg = Source::Ecg { seed: 1, chunk_len: 50 };
    let items: Vec<Item> = ecg.items().take(3).collect();
    assert_eq!(items.iter().map(|i| (i.seq, i.t_us, i.due_us)).collect::<Vec<_>>()[2], (2, 400_000, 600_000));
    let numerics = Source::Numerics { seed: 1 };
    let rates: Vec<u64> = numerics.items().filter(|i| i.stream == "spo2").take(3).map(|i| i.seq).collect();
    assert_eq!(rates, [0, 1, 2]);
    assert!(numerics.streams().contains(&"systolic"));
}
