use proptest::prelude::*;

use super::*;

fn base(stream: &str, value: Value) -> Reading {
    Reading {
        device: DeviceId::new("hub-1").unwrap(),
        stream: StreamName::new(stream).unwrap(),
        seq: Some(7),
        sensor_time_us: Some(1_790_000_000_000_000),
        gateway_time_us: 1_790_000_000_001_000,
        flags: 0,
        value,
    }
}

fn numeric() -> Reading {
    base("heart-rate", Value::Numeric { quantity: 1, value: 72.0 })
}

fn waveform() -> Reading {
    base(
        "ecg-ii",
        Value::Waveform {
            quantity: 258,
            t0_us: 1_790_000_000_000_000,
            period_ns: 2_777_778,
            scale: 0.005,
            offset: -5.12,
            samples: vec![995, -1, 1011],
        },
    )
}

fn event() -> Reading {
    let mut event = base("fall", Value::Event { quantity: 513 });
    event.seq = None;
    event.sensor_time_us = None;
    event.flags = 5;
    event
}

/// [device, stream, seq, sensor time, gateway time, flags as written] of the readings above.
fn golden(stream: &str, rest: &str) -> Vec<u8> {
    let stream = format!("{:02x}{}", 0x60 + stream.len(), hex::encode(stream));
    hex::decode(format!("81876568 75622d31{stream}{rest}").replace(' ', "")).unwrap()
}

#[test]
fn golden_bytes_of_each_value() {
    let origin = "07 1b00065bfeda25e000 1b00065bfeda25e3e8 00";
    let cases = [
        (numeric(), golden("heart-rate", &format!("{origin} 83 00 01 fb4052000000000000"))),
        (
            waveform(),
            golden(
                "ecg-ii",
                &format!(
                    "{origin} 87 01 190102 1b00065bfeda25e000 1a002a62b2 fb3f747ae147ae147b fbc0147ae147ae147b 46 e303 ffff f303"
                ),
            ),
        ),
        (event(), golden("fall", "f6 f6 1b00065bfeda25e3e8 05 82 02 190201")),
    ];
    for (reading, bytes) in cases {
        let readings = vec![reading];
        assert_eq!(hex::encode(encode(&readings)), hex::encode(&bytes));
        assert_eq!(decode(&bytes), Ok(readings));
    }
    assert_eq!(encode(&[]), [0x80]);
}

#[test]
fn each_error() {
    let good = encode(&[numeric(), waveform(), event()]);
    for cut in 0..good.len() {
        let error = decode(&good[..cut]).unwrap_err();
        assert!(matches!(error, ReadingError::Truncated { at, .. } if at == cut), "{cut}: {error}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(decode(&longer), Err(ReadingError::Trailing { at: good.len(), extra: 1 }));
    assert_eq!(decode(&[0x19, 0, 0]), Err(ReadingError::Malformed { field: "readings", at: 0 }));
    assert_eq!(decode(&[0x9f, 0xff]), Err(ReadingError::Malformed { field: "readings", at: 0 }));
    assert_eq!(decode(&[0x81, 0x86]), Err(ReadingError::Malformed { field: "reading", at: 1 }));
    assert_eq!(decode(&[0x99, 0x10, 0x01]), Err(ReadingError::TooMany { count: 4097 }));
    assert_eq!(
        decode(&[0x81, 0x87, 0x61, b' ']),
        Err(ReadingError::Name { at: 2, source: IdError::Character { what: "device", at: 0 } })
    );
    let mut infinite = encode(&[numeric()]);
    let end = infinite.len();
    infinite[end - 8..].copy_from_slice(&f64::INFINITY.to_be_bytes());
    assert_eq!(decode(&infinite), Err(ReadingError::Malformed { field: "value", at: end - 9 }));
    let mut kind = encode(&[numeric()]);
    kind[end - 11] = 3;
    assert_eq!(decode(&kind), Err(ReadingError::Malformed { field: "value", at: end - 12 }));
    let mut odd = encode(&[waveform()]);
    odd.pop();
    let last = odd.len();
    odd[last - 6] = 0x45;
    assert_eq!(decode(&odd), Err(ReadingError::Malformed { field: "samples", at: last - 6 }));
}

#[test]
#[should_panic(expected = "a segment of 4097 readings")]
fn what_nobody_could_read_is_not_written() {
    assert!(encode(&vec![event(); READINGS_MAX + 1]).is_empty());
}

#[test]
fn the_most_is_read_back() {
    let readings = vec![event(); READINGS_MAX];
    assert_eq!(decode(&encode(&readings)).as_ref(), Ok(&readings));
}

#[test]
fn fingerprints_tell_repeats_from_new_readings() {
    for reading in [numeric(), waveform()] {
        let mut again = reading.clone();
        again.gateway_time_us += 5_000_000;
        assert_eq!(fingerprint(&again), fingerprint(&reading), "redelivered");
        let mut reset = reading.clone();
        reset.sensor_time_us = Some(1_790_000_100_000_000);
        assert_ne!(fingerprint(&reset), fingerprint(&reading), "same number after a reset");
        let mut next = reading.clone();
        next.seq = Some(8);
        assert_ne!(fingerprint(&next), fingerprint(&reading), "next number");
        let mut other = reading.clone();
        other.device = DeviceId::new("hub-2").unwrap();
        assert_ne!(fingerprint(&other), fingerprint(&reading), "another device");
    }
    let mut timed = numeric();
    timed.seq = None;
    let mut other = timed.clone();
    other.value = Value::Numeric { quantity: 1, value: 73.0 };
    assert!(fingerprint(&timed).is_some());
    assert_ne!(fingerprint(&other), fingerprint(&timed));
    assert_eq!(fingerprint(&event()), None);
    let mut clockless = numeric();
    clockless.sensor_time_us = None;
    assert_eq!(fingerprint(&clockless), None, "it may have been reset and count anew");
}

/// Spool files hold fingerprints, so they must not change between versions.
#[test]
fn fingerprints_are_pinned() {
    let mut timed = numeric();
    timed.seq = None;
    let got = [numeric(), waveform(), timed]
        .map(|r| fingerprint(&r).map(|f| format!("{f:016x}")).unwrap_or_default());
    assert_eq!(got, ["5646cc00def4beee", "d10f3aec4ec8c8b6", "edb7c245c6c78a6f"]);
}

prop_compose! {
    fn name()(text in "[A-Za-z0-9._:-]{1,64}") -> String { text }
}

fn any_value() -> impl Strategy<Value = Value> {
    let finite = || any::<f64>().prop_filter("finite", |n| n.is_finite());
    prop_oneof![
        (any::<u16>(), finite()).prop_map(|(quantity, value)| Value::Numeric { quantity, value }),
        any::<u16>().prop_map(|quantity| Value::Event { quantity }),
        (
            any::<u16>(),
            any::<i64>(),
            any::<u32>(),
            finite(),
            finite(),
            proptest::collection::vec(any::<i16>(), 0..200)
        )
            .prop_map(|(quantity, t0_us, period_ns, scale, offset, samples)| Value::Waveform {
                quantity,
                t0_us,
                period_ns,
                scale,
                offset,
                samples
            }),
    ]
}

prop_compose! {
    fn any_reading()(
        device in name(), stream in name(), seq in any::<Option<u64>>(), sensor_time_us in any::<Option<i64>>(),
        gateway_time_us in any::<i64>(), flags in any::<u32>(), value in any_value(),
    ) -> Reading {
        let (device, stream) = (DeviceId::new(&device).unwrap(), StreamName::new(&stream).unwrap());
        Reading { device, stream, seq, sensor_time_us, gateway_time_us, flags, value }
    }
}

proptest! {
    #[test]
    fn round_trip(readings in proptest::collection::vec(any_reading(), 0..20)) {
        prop_assert_eq!(decode(&encode(&readings)), Ok(readings));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(readings) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&readings)), Ok(readings));
        }
    }

    #[test]
    fn a_changed_byte_never_panics(reading in any_reading(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&[reading]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Err(error) = decode(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
