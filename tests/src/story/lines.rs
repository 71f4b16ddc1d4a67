//! The JSON-lines files that a story leaves behind.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::sensor::journal::{Kind, Line};

/// Longest line: a chunk of 8192 samples is about 57 kB of JSON.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why a file can't be used.
#[derive(Debug, Error)]
pub enum LinesError {
    /// Unreadable.
    #[error("{file}: {source}")]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that isn't of this form.
    #[error("{file} line {line}: {source}")]
    Line {
        /// Which file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A line longer than 1 MiB.
    #[error("{file} line {line}: longer than {LINE_BYTES_MAX} bytes")]
    Long {
        /// Which file.
        file: PathBuf,
        /// From 1.
        line: u64,
    },
    /// A PUBACK for what was not published, or a reading published twice.
    #[error("{file}: {device} {stream} {seq} {problem}")]
    Journal {
        /// Which file.
        file: PathBuf,
        /// The device.
        device: String,
        /// Its stream.
        stream: String,
        /// The reading.
        seq: u64,
        /// What is wrong.
        problem: &'static str,
    },
}

/// A reading by device, stream and sequence.
pub type Readings<T> = HashMap<(String, String), HashMap<u64, T>>;

/// A published reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Journalled {
    /// Unix milliseconds.
    pub published_ms: f64,
    /// What kind.
    pub kind: Kind,
    /// The sensor's time in the payload, Unix microseconds.
    pub t_us: i64,
    /// Unix milliseconds, once acknowledged.
    pub acked_ms: Option<f64>,
}

/// A reading as some place downstream saw it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Arrival {
    /// Its device.
    pub device: String,
    /// Its channel or metric.
    pub stream: String,
    /// Its count, unless the payload (SenML) carries none.
    pub seq: Option<u64>,
    /// The sensor's time, Unix microseconds; stands in for a missing `seq`.
    pub sensor_us: Option<i64>,
    /// Unix milliseconds, from a browser or a reader.
    pub arrived_ms: Option<f64>,
    /// When its segment was sealed, Unix milliseconds; from the core's store.
    pub sealed_ms: Option<f64>,
    /// Whose, in hexadecimal.
    pub patient: Option<String>,
}

/// A reading as the feed told it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FeedReading {
    /// What it is.
    #[serde(flatten)]
    pub arrival: Arrival,
    /// The value of a numeric.
    pub numeric: Option<f64>,
    /// The chunk of a waveform.
    pub wave: Option<Wave>,
}

/// A chunk as the feed told it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Wave {
    /// Unix microseconds.
    pub t0_us: i64,
    /// Nanoseconds between samples.
    pub period_ns: u32,
    /// Units per step.
    pub scale: f64,
    /// Value of step 0.
    pub offset: f64,
    /// Steps; null or −32768 is missing.
    pub samples: Vec<Option<i16>>,
}

/// Calls `each` with every line of a JSON-lines file.
fn for_each<T: DeserializeOwned>(
    file: &str,
    mut text: impl BufRead,
    mut each: impl FnMut(T) -> Result<(), LinesError>,
) -> Result<(), LinesError> {
    let mut buffer = String::new();
    for line in 1.. {
        buffer.clear();
        let read = io::Read::take(&mut text, LINE_BYTES_MAX).read_line(&mut buffer);
        let len = read.map_err(|source| LinesError::Io { file: file.into(), source })?;
        if len == 0 {
            return Ok(());
        }
        if len as u64 == LINE_BYTES_MAX {
            return Err(LinesError::Long { file: file.into(), line });
        }
        let parsed = serde_json::from_str(&buffer);
        each(parsed.map_err(|source| LinesError::Line { file: file.into(), line, source })?)?;
    }
    Ok(())
}

/// The sensors' journal; `file` is only named in errors.
pub fn read_journal(file: &str, text: impl BufRead) -> Result<Readings<Journalled>, LinesError> {
    let mut readings: Readings<Journalled> = HashMap::new();
    for_each(file, text, |line| {
        let refuse = |device, stream, seq, problem| {
            Err(LinesError::Journal { file: file.into(), device, stream, seq, problem })
        };
        match line {
            Line::Published { device, stream, seq, published_ms, kind, t_us } => {
                let of_stream = readings.entry((device.clone(), stream.clone())).or_default();
                let reading = Journalled { published_ms, kind, t_us, acked_ms: None };
                if of_stream.insert(seq, reading).is_some() {
                    return refuse(device, stream, seq, "is published twice");
                }
            }
            Line::Acked { device, stream, seq, acked_ms } => {
                let key = (device, stream);
                match readings.get_mut(&key).and_then(|of_stream| of_stream.get_mut(&seq)) {
                    Some(reading) => reading.acked_ms = Some(acked_ms),
                    None => return refuse(key.0, key.1, seq, "is acknowledged but was never published"),
                }
            }
        }
        Ok(())
    })?;
    Ok(readings)
}

/// Arrivals at core or browser.
pub fn read_arrivals(file: &str, text: impl BufRead) -> Result<Vec<Arrival>, LinesError> {
    let mut arrivals = Vec::new();
    for_each(file, text, |arrival| {
        arrivals.push(arrival);
        Ok(())
    })?;
    Ok(arrivals)
}

#[derive(Deserialize)]
struct FeedMessage {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    rest: serde_json::Value,
}

/// The readings in a feed reader's file; its other messages are left aside.
pub fn read_feed(file: &str, text: impl BufRead) -> Result<Vec<FeedReading>, LinesError> {
    let mut readings = Vec::new();
    let mut line = 0;
    for_each(file, text, |message: FeedMessage| {
        line += 1;
        if message.kind == "reading" {
            let reading = serde_json::from_value(message.rest);
            readings.push(reading.map_err(|source| LinesError::Line { file: file.into(), line, source })?);
        }
        Ok(())
    })?;
    Ok(readings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_is_named() {
        let text = "{\"device\":\"d\",\"stream\":\"s\",\"seq\":1,\"acked_ms\":1}\n";
        let error = read_journal("j", text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "j: d s 1 is acknowledged but was never published");
        let error =
            read_arrivals("core", &b"{\"device\":\"d\",\"stream\":\"s\"}\n{\n"[..]).unwrap_err().to_string();
        assert!(error.starts_with("core line 2: EOF"), "{error}");
    }

    #[test]
    fn feed_messages_as_documented() {
        let text = concat!(
            r#"{"arrived_ms":1.5,"type":"hello","server_ms":1,"next":512,"beds":[]}"#,
            "\n",
            r#"{"arrived_ms":2.5,"type":"reading","n":512,"patient":"00","class":"vitals","segment":45,"device":"m","stream":"heart-rate","seq":7,"sensor_us":1790000000000000,"gateway_us":1790000000001000,"flags":0,"opened_ms":1790000000012,"code":{"name":"heart-rate"},"numeric":72.0}"#,
            "\n",
            r#"{"type":"reading","n":513,"device":"m","stream":"ecg-ii","seq":null,"sensor_us":null,"wave":{"t0_us":5,"period_ns":2777778,"scale":0.005,"offset":-5.12,"samples":[995,null,-32768]}}"#,
            "\n"
        );
        let readings = read_feed("feed", text.as_bytes()).unwrap();
        assert_eq!((readings.len(), readings[0].numeric, readings[0].arrival.seq), (2, Some(72.0), Some(7)));
        assert_eq!(readings[1].wave.as_ref().unwrap().samples, [Some(995), None, Some(i16::MIN)]);
    }
}
