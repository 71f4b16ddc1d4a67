//! Topics and payloads (`docs`: MQTT, `vitals/v1/{device}/…`), written apart from the gateway's decoder on purpose: a
//! mistake in one would otherwise be hidden by the same one in the other.

use std::convert::Infallible;

use minicbor::Encoder;
use minicbor::encode::Error;
use serde_json::json;

use super::config::PayloadFormat;
use super::source::{Body, Item};

/// The topic of a reading.
#[must_use]
pub fn topic(device: &str, item: &Item) -> String {
    match item.body {
        Body::Wave { .. } => format!("vitals/v1/{device}/wave/{}", item.stream),
        Body::Numeric { .. } => format!("vitals/v1/{device}/num/{}", item.stream),
    }
}

/// The sensor's own time of a reading, in Unix microseconds: numerics carry whole milliseconds.
#[must_use]
pub fn sensor_us(item: &Item, start_us: i64) -> i64 {
    let t_us = start_us.saturating_add(item.t_us);
    match item.body {
        Body::Wave { .. } => t_us,
        Body::Numeric { .. } => t_us.div_euclid(1000).saturating_mul(1000),
    }
}

/// The payload of a reading, for a run that started at `start_us` (Unix microseconds).
#[must_use]
pub fn encode(item: &Item, start_us: i64, format: PayloadFormat) -> Vec<u8> {
    let t_us = sensor_us(item, start_us);
    match (&item.body, format) {
        (Body::Wave { period_ns, scale, offset, unit, samples }, _) => {
            let chunk =
                Chunk { t0_us: t_us, seq: item.seq, period_ns: *period_ns, scale: *scale, offset: *offset };
            infallible(chunk.encode(unit, samples))
        }
        (Body::Numeric { unit, value }, PayloadFormat::Json) => {
            json!({"v": value, "u": unit, "t": t_us.div_euclid(1000), "seq": item.seq, "q": 0})
                .to_string()
                .into_bytes()
        }
        (Body::Numeric { unit, value }, PayloadFormat::SenmlJson) => {
            json!([{"n": item.stream, "u": unit, "v": value, "t": t_us as f64 / 1e6}])
                .to_string()
                .into_bytes()
        }
        (Body::Numeric { unit, value }, PayloadFormat::SenmlCbor) => {
            infallible(senml_cbor(item.stream, unit, *value, t_us as f64 / 1e6))
        }
    }
}

fn infallible(result: Result<Vec<u8>, Error<Infallible>>) -> Vec<u8> {
    // Writing to a Vec can't fail, and nothing here reports an encoding error of its own.
    result.unwrap_or_default()
}

struct Chunk {
    t0_us: i64,
    seq: u64,
    period_ns: u32,
    scale: f64,
    offset: f64,
}

impl Chunk {
    fn encode(&self, unit: &str, samples: &[i16]) -> Result<Vec<u8>, Error<Infallible>> {
        let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let mut encoder = Encoder::new(Vec::with_capacity(data.len() + 96));
        encoder.map(8)?;
        encoder.str("t0")?.i64(self.t0_us)?;
        encoder.str("period")?.u32(self.period_ns)?;
        encoder.str("seq")?.u64(self.seq)?;
        encoder.str("scale")?.f64(self.scale)?;
        encoder.str("offset")?.f64(self.offset)?;
        encoder.str("unit")?.str(unit)?;
        encoder.str("data")?.bytes(&data)?;
        encoder.str("flags")?.u32(0)?;
        Ok(encoder.into_writer())
    }
}

/// RFC 8428 §6, table 4: labels n = 0, u = 1, v = 2, t = 6.
fn senml_cbor(name: &str, unit: &str, value: f64, t_s: f64) -> Result<Vec<u8>, Error<Infallible>> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.array(1)?.map(4)?;
    encoder.i8(0)?.str(name)?.i8(1)?.str(unit)?.i8(2)?.f64(value)?.i8(6)?.f64(t_s)?;
    Ok(encoder.into_writer())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_US: i64 = 1_790_000_000_000_500;

    fn numeric() -> Item {
        let body = Body::Numeric { unit: "/min".to_owned(), value: 72.5 };
        Item { due_us: 2_000_000, t_us: 2_000_000, stream: "heart-rate", seq: 7, body }
    }

    #[test]
    fn plain_json() {
        let payload = encode(&numeric(), START_US, PayloadFormat::Json);
        let expected = json!({"v": 72.5, "u": "/min", "t": 1_790_000_002_000_u64, "seq": 7, "q": 0});
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&payload).unwrap(), expected);
        assert_eq!(topic("m", &numeric()), "vitals/v1/m/num/heart-rate");
    }

    #[test]
    fn senml_golden_bytes() {
        let payload = encode(&numeric(), START_US, PayloadFormat::SenmlJson);
        let expected = json!([{"n": "heart-rate", "u": "/min", "v": 72.5, "t": 1_790_000_002.0}]);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&payload).unwrap(), expected);
        let payload = hex::encode(encode(&numeric(), START_US, PayloadFormat::SenmlCbor));
        // array(1), map(4), 0: "heart-rate", 1: "/min", 2: 72.5, 6: 1790000002.0
        let expected = "81a4006a68656172742d7261746501642f6d696e02fb405220000000000006fb41daac4ee0800000";
        assert_eq!(payload, expected);
    }

    #[test]
    fn wave_carries_every_field() {
        let body = Body::Wave {
            period_ns: 2_777_778,
            scale: 0.005,
            offset: -5.12,
            unit: "mV".to_owned(),
            samples: vec![995, -1, i16::MIN],
        };
        let item = Item { due_us: 0, t_us: 250, stream: "ecg-mlii", seq: 3, body };
        let payload = encode(&item, START_US, PayloadFormat::Json);
        let mut decoder = minicbor::Decoder::new(&payload);
        assert_eq!(decoder.map().unwrap(), Some(8));
        let key = |expected: &str, decoder: &mut minicbor::Decoder<'_>| {
            assert_eq!(decoder.str().unwrap(), expected);
        };
        key("t0", &mut decoder);
        assert_eq!(decoder.i64().unwrap(), START_US + 250);
        key("period", &mut decoder);
        assert_eq!(decoder.u32().unwrap(), 2_777_778);
        key("seq", &mut decoder);
        assert_eq!(decoder.u64().unwrap(), 3);
        key("scale", &mut decoder);
        assert_eq!(decoder.f64().unwrap(), 0.005);
        key("offset", &mut decoder);
        assert_eq!(decoder.f64().unwrap(), -5.12);
        key("unit", &mut decoder);
        assert_eq!(decoder.str().unwrap(), "mV");
        key("data", &mut decoder);
        assert_eq!(decoder.bytes().unwrap(), [0xe3, 0x03, 0xff, 0xff, 0x00, 0x80]);
        key("flags", &mut decoder);
        assert_eq!(decoder.u32().unwrap(), 0);
        assert_eq!(decoder.position(), payload.len());
        assert_eq!(topic("m", &item), "vitals/v1/m/wave/ecg-mlii");
    }
}

#[cfg(test)]
#[path = "payload_interop_tests.rs"]
mod interop_tests;
