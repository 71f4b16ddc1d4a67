//! The gateway's decoder must read back exactly what was written, for generators and for the real records.

use std::path::Path;

use caregate_protocol::payload::{Decoded, decode};
use caregate_protocol::reading::{Reading, Value};

use super::super::config::{DeviceConfig, Generator, RecordConfig, SourceConfig};
use super::super::source::Source;
use super::*;
use crate::wfdb::tests::records;

const START_US: i64 = 1_790_000_000_000_500;

fn open(source: SourceConfig) -> Source {
    let device = DeviceConfig {
        id: "d".parse().unwrap(),
        username: String::new(),
        password: String::new(),
        source,
        chunk_ms: 200,
        payload: PayloadFormat::Json,
        seed: None,
        interface: None,
    };
    Source::open(&device, 1).unwrap()
}

fn check(item: &Item, format: PayloadFormat) {
    let payload = encode(item, START_US, format);
    let decoded = decode(&topic("d", item), &payload, START_US);
    let Ok(Decoded::Readings(readings)) = decoded else {
        panic!("{} {}: {decoded:?}", item.stream, item.seq)
    };
    let [reading] = &readings[..] else { panic!("{} readings", readings.len()) };
    let Reading { device, stream, seq, sensor_time_us, .. } = reading;
    assert_eq!((device.as_str(), stream.as_str()), ("d", item.stream));
    assert_eq!(*sensor_time_us, Some(sensor_us(item, START_US)));
    let senml = matches!(item.body, Body::Numeric { .. }) && format != PayloadFormat::Json;
    assert_eq!(*seq, (!senml).then_some(item.seq));
    match (&reading.value, &item.body) {
        (Value::Numeric { value, .. }, Body::Numeric { value: expected, .. }) => assert_eq!(value, expected),
        (
            Value::Waveform { t0_us, period_ns, scale, offset, samples, .. },
            Body::Wave { period_ns: period, scale: own_scale, offset: own_offset, samples: own, .. },
        ) => {
            assert_eq!((*t0_us, period_ns), (START_US + item.t_us, period));
            assert_eq!((scale, offset, samples), (own_scale, own_offset, own));
        }
        (value, body) => panic!("{value:?} is no {body:?}"),
    }
}

#[test]
fn generators_in_every_format() {
    for format in [PayloadFormat::Json, PayloadFormat::SenmlJson, PayloadFormat::SenmlCbor] {
        for generator in [Generator::Ecg, Generator::Numerics] {
            let source = open(SourceConfig::Generator(generator));
            source.items().take(500).for_each(|item| check(&item, format));
        }
    }
}

#[test]
fn real_records_in_every_format() {
    let Some(folder) = records("payloads of mitdb-100, mimic2-s25047, cinc2015-v102s") else { return };
    let play = |path: &str, format| {
        let config = RecordConfig {
            record: folder.join(Path::new(path)),
            signals: Vec::new(),
            from_s: 0.0,
            repeat: false,
        };
        let source = open(SourceConfig::Record(config));
        let count = source.items().inspect(|item| check(item, format)).count();
        (source.streams(), count)
    };
    // 9027 chunks of 72 and one of 56, twice.
    assert_eq!(play("mitdb-100/100", PayloadFormat::Json), (vec!["ecg-mlii", "ecg-v5"], 2 * 9028));
    let (streams, chunks) = play("mimic2-s25047/s25047-2704-05-04-10-44", PayloadFormat::Json);
    assert_eq!(streams, ["ecg-ii", "ecg-v", "abp"]);
    assert!(chunks > 3 * 543_240 / 25, "{chunks}");
    let numerics =
        ["heart-rate", "pulse-rate", "respiratory-rate", "spo2", "systolic", "diastolic", "mean-pressure"];
    for format in [PayloadFormat::Json, PayloadFormat::SenmlJson, PayloadFormat::SenmlCbor] {
        let (streams, values) = play("mimic2-s25047/s25047-2704-05-04-10-44n", format);
        // Values that are neither 0 nor missing: 44 + 64 + 67 + 61 + 18 + 18 + 21.
        assert_eq!((streams.as_slice(), values), (&numerics[..], 293));
    }
    // RESP is in NU there, which the code table may or may not take for impedance.
    let (streams, chunks) = play("cinc2015-v102s/v102s", PayloadFormat::Json);
    assert_eq!(streams[..3], ["ecg-ii", "ecg-v", "pleth"]);
    assert_eq!(chunks, streams.len() * 1500);
}
