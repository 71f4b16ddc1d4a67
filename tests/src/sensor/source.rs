//! What a device sends, as a pure function of its configuration: an ordered series of [`Item`]s.
//!
//! Waveforms are cut into chunks of `chunk_ms`; in a record's first round chunk `seq` holds samples from `seq * length` on. Where a
//! multi-segment record changes a signal's gain, a chunk ends early, since one chunk has one scale. Samples that were not recorded
//! travel as −32768. A numeric that is missing or 0 ("not measured" in the MIMIC databases) isn't sent.

use std::iter::Peekable;

use caregate_protocol::code;
use caregate_protocol::reading::SAMPLES_MAX;
use thiserror::Error;

use super::config::{DeviceConfig, Generator, RecordConfig, SourceConfig};
use super::names;
use crate::ecg::{self, Ecg};
use crate::numerics::Numerics;
use crate::round;
use crate::wfdb::{MISSING, Record, Signal, WfdbError};

/// Signals slower than this are numerics: monitors give those once a second or slower, waveforms start at tens of hertz.
const NUMERICS_HZ_MAX: f64 = 4.0;

/// One publication before its time is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Microseconds from the start at which it is complete and leaves.
    pub due_us: i64,
    /// Microseconds from the start to its measurement, or first sample.
    pub t_us: i64,
    /// Channel or metric.
    pub stream: &'static str,
    /// Counts within the stream, from 0.
    pub seq: u64,
    /// What was measured.
    pub body: Body,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A chunk; physical value = offset + scale × sample.
    Wave {
        /// Nanoseconds between samples.
        period_ns: u32,
        /// Units per step.
        scale: f64,
        /// Value of step 0.
        offset: f64,
        /// UCUM.
        unit: String,
        /// Steps, −32768 for missing.
        samples: Vec<i16>,
    },
    /// One value.
    Numeric {
        /// UCUM.
        unit: String,
        /// In that unit.
        value: f64,
    },
}

/// Why a device has nothing to send.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The record can't be read.
    #[error("device {device}: {source}")]
    Record {
        /// Which device.
        device: String,
        /// Why.
        source: WfdbError,
    },
    /// A signal that was asked for.
    #[error("device {device}: signal '{signal}' {problem}")]
    Signal {
        /// Which device.
        device: String,
        /// As configured, or as in the header.
        signal: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Nothing in the record has a channel or metric.
    #[error("device {device}: no signal of the record has a channel or metric here")]
    Empty {
        /// Which device.
        device: String,
    },
}

/// A device's measurements.
#[derive(Debug)]
pub enum Source {
    /// The ECG generator.
    Ecg {
        /// Of the patient.
        seed: u64,
        /// Samples in a chunk.
        chunk_len: usize,
    },
    /// The numerics generator.
    Numerics {
        /// Of the patient.
        seed: u64,
    },
    /// A recording.
    Record {
        /// Its signals.
        tracks: Vec<Track>,
        /// Whether it begins anew where it ends.
        repeat: bool,
    },
}

/// One signal of a recording and where it goes.
#[derive(Debug)]
pub struct Track {
    stream: &'static str,
    signal: Signal,
    /// Where to begin.
    from: usize,
    /// Samples in a chunk; none for numerics.
    chunk_len: Option<usize>,
}

impl Source {
    /// Opens what a device is configured to measure.
    pub fn open(device: &DeviceConfig, seed: u64) -> Result<Self, SourceError> {
        let chunk_ms = device.chunk_ms;
        match &device.source {
            SourceConfig::Generator(Generator::Ecg) => {
                Ok(Self::Ecg { seed, chunk_len: chunk_len(ecg::SAMPLE_HZ, chunk_ms) })
            }
            SourceConfig::Generator(Generator::Numerics) => Ok(Self::Numerics { seed }),
            SourceConfig::Record(config) => {
                let record = Record::open(&config.record)
                    .map_err(|source| SourceError::Record { device: device.id.to_string(), source })?;
                Ok(Self::Record { tracks: tracks(device, config, record, chunk_ms)?, repeat: config.repeat })
            }
        }
    }

    /// The streams that it can send.
    #[must_use]
    pub fn streams(&self) -> Vec<&'static str> {
        match self {
            Self::Ecg { .. } => vec!["ecg-ii"],
            Self::Numerics { seed } => {
                let first_minute = Numerics::new(*seed).take_while(|n| n.t_s <= 60);
                let mut streams: Vec<_> = first_minute.map(|n| n.metric).collect();
                streams.sort_unstable();
                streams.dedup();
                streams
            }
            Self::Record { tracks, .. } => tracks.iter().map(|track| track.stream).collect(),
        }
    }

    /// Everything, in order of `due_us`; endless for generators and for a record that is repeated.
    pub fn items(&self) -> Box<dyn Iterator<Item = Item> + Send + '_> {
        match self {
            Self::Ecg { seed, chunk_len } => Box::new(ecg_items(*seed, *chunk_len)),
            Self::Numerics { seed } => Box::new(numeric_items(*seed)),
            Self::Record { tracks, repeat } => {
                let length_us = tracks.iter().map(Track::length_us).max().unwrap_or(0);
                let once_or_again =
                    |track| if *repeat { Track::rounds(track, length_us) } else { Track::items(track) };
                Box::new(Merge { each: tracks.iter().map(|track| once_or_again(track).peekable()).collect() })
            }
        }
    }
}

fn chunk_len(frequency_hz: f64, chunk_ms: u32) -> usize {
    let samples = round::to_u64(frequency_hz * f64::from(chunk_ms) / 1000.0);
    usize::try_from(samples).unwrap_or(SAMPLES_MAX).clamp(1, SAMPLES_MAX)
}

/// Microseconds to a sample: below 2^53 for any record that fits in memory, so exact to the microsecond.
fn sample_us(index: usize, frequency_hz: f64) -> i64 {
    round::to_i64(index as f64 * 1e6 / frequency_hz)
}

fn period_ns(frequency_hz: f64) -> u32 {
    u32::try_from(round::to_u64(1e9 / frequency_hz)).unwrap_or(u32::MAX)
}

fn ecg_items(seed: u64, chunk_len: usize) -> impl Iterator<Item = Item> + Send {
    let mut ecg = Ecg::new(seed);
    (0_u64..).map(move |seq| {
        let samples: Vec<i16> = ecg.by_ref().take(chunk_len).collect();
        let first = usize::try_from(seq).unwrap_or(usize::MAX).saturating_mul(chunk_len);
        Item {
            due_us: sample_us(first + chunk_len, ecg::SAMPLE_HZ),
            t_us: sample_us(first, ecg::SAMPLE_HZ),
            stream: "ecg-ii",
            seq,
            body: Body::Wave {
                period_ns: period_ns(ecg::SAMPLE_HZ),
                scale: ecg::SCALE_MV,
                offset: 0.0,
                unit: "mV".to_owned(),
                samples,
            },
        }
    })
}

fn numeric_items(seed: u64) -> impl Iterator<Item = Item> + Send {
    let mut counts: std::collections::HashMap<&'static str, u64> = std::collections::HashMap::new();
    Numerics::new(seed).map(move |numeric| {
        let count = counts.entry(numeric.metric).or_insert(0);
        let seq = *count;
        *count += 1;
        let t_us = i64::try_from(numeric.t_s).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let body = Body::Numeric { unit: numeric.unit.to_owned(), value: numeric.value };
        Item { due_us: t_us, t_us, stream: numeric.metric, seq, body }
    })
}

fn tracks(
    device: &DeviceConfig,
    config: &RecordConfig,
    record: Record,
    chunk_ms: u32,
) -> Result<Vec<Track>, SourceError> {
    let refuse = |signal: &str, problem| {
        Err(SourceError::Signal { device: device.id.to_string(), signal: signal.to_owned(), problem })
    };
    if let Some(absent) = config.signals.iter().find(|name| !record.signals.iter().any(|s| s.name == **name))
    {
        return refuse(absent, "is not in the record");
    }
    let mut tracks: Vec<Track> = Vec::new();
    for signal in record.signals {
        let asked = config.signals.contains(&signal.name);
        if !asked && !config.signals.is_empty() {
            continue;
        }
        let numeric = signal.frequency_hz <= NUMERICS_HZ_MAX;
        let stream = if numeric { names::metric(&signal.name) } else { names::channel(&signal.name) };
        let Some(stream) = stream else {
            if asked {
                return refuse(&signal.name, "has no channel or metric here");
            }
            tracing::warn!(device = %device.id, signal = signal.name, "signal has no channel or metric, left out");
            continue;
        };
        let unit = names::ucum(&signal.unit);
        if code::by_name(stream).is_none_or(|quantity| quantity.accepts(unit).is_none()) {
            if asked {
                return refuse(&signal.name, "is in a unit that its channel or metric does not have");
            }
            tracing::warn!(device = %device.id, signal = signal.name, unit, "no channel or metric in this unit, left out");
            continue;
        }
        if tracks.iter().any(|track| track.stream == stream) {
            return refuse(
                &signal.name,
                "goes to a channel or metric that another one has: name the signals",
            );
        }
        let from = usize::try_from(round::to_u64(config.from_s * signal.frequency_hz)).unwrap_or(usize::MAX);
        let from = from.min(signal.samples.len());
        let chunk_len = (!numeric).then(|| chunk_len(signal.frequency_hz, chunk_ms));
        tracks.push(Track { stream, signal, from, chunk_len });
    }
    if tracks.is_empty() {
        return Err(SourceError::Empty { device: device.id.to_string() });
    }
    Ok(tracks)
}

impl Track {
    fn items(&self) -> Box<dyn Iterator<Item = Item> + Send + '_> {
        match self.chunk_len {
            Some(len) => Box::new(self.chunks(len)),
            None => Box::new(self.values()),
        }
    }

    /// Microseconds from its beginning to its end, whatever was not recorded.
    fn length_us(&self) -> i64 {
        sample_us(self.signal.samples.len() - self.from, self.signal.frequency_hz)
    }

    /// The items again and again, `length_us` apart; a signal that was never recorded has none.
    fn rounds(&self, length_us: i64) -> Box<dyn Iterator<Item = Item> + Send + '_> {
        let rounds = if self.items().next().is_some() { 0..i64::MAX } else { 0..0 };
        let items = rounds.flat_map(move |round| {
            let later_us = length_us.saturating_mul(round);
            self.items().map(move |item| Item {
                due_us: item.due_us.saturating_add(later_us),
                t_us: item.t_us.saturating_add(later_us),
                ..item
            })
        });
        Box::new(items.zip(0_u64..).map(|(item, seq)| Item { seq, ..item }))
    }

    fn chunks(&self, len: usize) -> impl Iterator<Item = Item> + Send + '_ {
        let (signal, mut first) = (&self.signal, self.from);
        (0_u64..).map_while(move |seq| {
            let (calibration, next) = signal.calibration_at(first);
            let end = first.saturating_add(len).min(next);
            let samples = signal.samples.get(first..end).filter(|samples| !samples.is_empty())?.to_vec();
            let item = Item {
                due_us: sample_us(end - self.from, signal.frequency_hz),
                t_us: sample_us(first - self.from, signal.frequency_hz),
                stream: self.stream,
                seq,
                body: Body::Wave {
                    period_ns: period_ns(signal.frequency_hz),
                    scale: 1.0 / calibration.gain,
                    offset: -f64::from(calibration.baseline) / calibration.gain,
                    unit: names::ucum(&signal.unit).to_owned(),
                    samples,
                },
            };
            first = end;
            Some(item)
        })
    }

    fn values(&self) -> impl Iterator<Item = Item> + Send + '_ {
        let signal = &self.signal;
        let steps = signal.samples.iter().copied().enumerate().skip(self.from);
        let values = steps.filter(|(_, step)| *step != MISSING).filter_map(|(at, step)| {
            let value = signal.calibration_at(at).0.physical(step);
            (value != 0.0).then_some((at, value))
        });
        (0_u64..).zip(values).map(|(seq, (at, value))| {
            let t_us = sample_us(at - self.from, signal.frequency_hz);
            let body = Body::Numeric { unit: names::ucum(&signal.unit).to_owned(), value };
            Item { due_us: t_us, t_us, stream: self.stream, seq, body }
        })
    }
}

/// Tracks by `due_us`; of two that are due together the first one leads.
struct Merge<'a> {
    each: Vec<Peekable<Box<dyn Iterator<Item = Item> + Send + 'a>>>,
}

impl Iterator for Merge<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let heads = self.each.iter_mut().enumerate();
        let (_, at) = heads.filter_map(|(at, items)| Some((items.peek()?.due_us, at))).min()?;
        self.each.get_mut(at)?.next()
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
