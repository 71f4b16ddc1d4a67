//! Joins the files of a run by device, stream and sequence.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use super::lines::{Arrival, FeedReading, Journalled, Readings};
use super::samples::{Comparison, compare};
use crate::round;
use crate::sensor::source::Source;

/// Everything that a run left behind.
pub struct Inputs {
    /// What the sensors published.
    pub journal: Readings<Journalled>,
    /// What the feed's reader saw, in order.
    pub feed: Vec<FeedReading>,
    /// What an independent opening of the core's store found.
    pub core: Option<Vec<Arrival>>,
    /// What the browser saw.
    pub browser: Option<Vec<Arrival>>,
    /// What each device was given.
    pub sources: Vec<(String, Source)>,
    /// Spans that latencies leave out: a cut and its drain.
    pub exclusions: Vec<Exclusion>,
    /// Spans in which a patient's readings were not for this feed.
    pub withheld: Vec<Withheld>,
}

/// A span in which the feed's recipient had no access to a patient's readings, `PATIENT:FROM:TO`.
#[derive(Debug, Clone, PartialEq)]
pub struct Withheld {
    /// Whose, in hexadecimal.
    pub patient: String,
    /// Unix milliseconds, of when segments were sealed.
    pub span: Exclusion,
}

impl FromStr for Withheld {
    type Err = ExclusionError;

    fn from_str(text: &str) -> Result<Self, ExclusionError> {
        let (patient, span) = text.split_once(':').ok_or_else(|| ExclusionError(text.to_owned()))?;
        Ok(Self { patient: patient.to_owned(), span: span.parse()? })
    }
}

impl Withheld {
    fn covers(&self, arrival: &Arrival) -> bool {
        arrival.patient.as_deref() == Some(&self.patient)
            && arrival.sealed_ms.is_some_and(|ms| self.span.touches(ms, ms))
    }
}

/// A span of Unix milliseconds, `FROM:TO`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exclusion {
    /// First.
    pub from_ms: f64,
    /// Last.
    pub to_ms: f64,
}

/// Text that isn't `FROM_MS:TO_MS`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not FROM_MS:TO_MS with FROM_MS ≤ TO_MS")]
pub struct ExclusionError(String);

impl FromStr for Exclusion {
    type Err = ExclusionError;

    fn from_str(text: &str) -> Result<Self, ExclusionError> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|ms| ms.is_finite());
        text.split_once(':')
            .and_then(|(from, to)| Some(Self { from_ms: number(from)?, to_ms: number(to)? }))
            .filter(|span| span.from_ms <= span.to_ms)
            .ok_or_else(|| ExclusionError(text.to_owned()))
    }
}

impl Exclusion {
    /// Whether a reading was on its way during the span.
    fn touches(&self, from_ms: f64, to_ms: f64) -> bool {
        from_ms <= self.to_ms && to_ms >= self.from_ms
    }
}

/// What became of the readings. `None`: not asked for, or nothing to measure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Handed to a client by the sensors.
    pub readings_published: u64,
    /// Of those, acknowledged.
    pub readings_acked: u64,
    /// Of those published, found in the core's store.
    pub readings_at_core: Option<u64>,
    /// Of those published, seen at the feed.
    pub readings_at_feed: u64,
    /// Of those published, seen in the browser.
    pub readings_at_browser: Option<u64>,
    /// Absent at the feed and in the core's store, sealed while the feed's recipient had no access.
    pub readings_withheld: u64,
    /// Acknowledged, but absent at core, or at the feed and not withheld from it.
    pub lost: u64,
    /// Seen again at the feed.
    pub duplicated: u64,
    /// Seen at the feed but never published.
    pub unknown_at_feed: u64,
    /// Samples and numerics compared with their source.
    pub samples_compared: u64,
    /// Of those, the ones that differ or are missing at the feed.
    pub sample_mismatches: u64,
    /// The first mismatch, for a person.
    pub first_mismatch: Option<String>,
    /// Publication to browser, median.
    pub e2e_ms_p50: Option<f64>,
    /// Publication to browser, 99th percentile.
    pub e2e_ms_p99: Option<f64>,
    /// How many readings the two are over.
    pub e2e_readings: u64,
    /// Publication to PUBACK, 99th percentile.
    pub puback_ms_p99: Option<f64>,
    /// How many readings that is over.
    pub puback_readings: u64,
}

impl Report {
    /// Whether nothing is lost, doubled, made up or different.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        (self.lost, self.duplicated, self.sample_mismatches, self.unknown_at_feed) == (0, 0, 0, 0)
    }
}

/// Joins and compares.
#[must_use]
pub fn check(inputs: Inputs) -> Report {
    let Inputs { journal, feed, core, browser, sources, exclusions, withheld } = inputs;
    let names = Names::new(&journal);
    let mut at_feed: Readings<FeedReading> = HashMap::new();
    let (mut duplicated, mut unknown_at_feed) = (0, 0);
    for reading in feed {
        match names.resolve(&reading.arrival) {
            Some((key, seq)) => {
                if at_feed.entry(key).or_default().insert(seq, reading).is_some() {
                    duplicated += 1;
                }
            }
            None => unknown_at_feed += 1,
        }
    }
    let at_core = core.as_deref().map(|arrivals| names.first_arrivals(arrivals));
    let at_browser = browser.as_deref().map(|arrivals| names.first_arrivals(arrivals));
    let not_due = not_due(at_core.as_ref(), &at_feed, &withheld);
    let samples = compare_all(&journal, &at_feed, &not_due, &sources);
    let (mut acked, mut lost, mut puback_ms, mut e2e_ms) = (0, 0, Vec::new(), Vec::new());
    for (key, seq, reading) in each(&journal) {
        let measured = |to_ms: f64| !exclusions.iter().any(|span| span.touches(reading.published_ms, to_ms));
        if let Some(acked_ms) = reading.acked_ms {
            acked += 1;
            let missing_at_core = at_core.as_ref().is_some_and(|at| !has(at, key, seq));
            lost += u64::from(missing_at_core || !(has(&at_feed, key, seq) || has(&not_due, key, seq)));
            puback_ms.extend(measured(acked_ms).then_some(acked_ms - reading.published_ms));
        }
        let arrived = at_browser.as_ref().and_then(|at| at.get(key)?.get(&seq)?.arrived_ms);
        e2e_ms.extend(arrived.filter(|ms| measured(*ms)).map(|ms| ms - reading.published_ms));
    }
    e2e_ms.sort_by(f64::total_cmp);
    puback_ms.sort_by(f64::total_cmp);
    Report {
        readings_published: count(&journal),
        readings_acked: acked,
        readings_at_core: at_core.as_ref().map(count),
        readings_at_feed: count(&at_feed),
        readings_at_browser: at_browser.as_ref().map(count),
        readings_withheld: count(&not_due),
        lost,
        duplicated,
        unknown_at_feed,
        samples_compared: samples.compared,
        sample_mismatches: samples.mismatches,
        first_mismatch: samples.first,
        e2e_ms_p50: percentile(&e2e_ms, 0.50),
        e2e_ms_p99: percentile(&e2e_ms, 0.99),
        e2e_readings: e2e_ms.len() as u64,
        puback_ms_p99: percentile(&puback_ms, 0.99),
        puback_readings: puback_ms.len() as u64,
    }
}

type Key = (String, String);

/// What the core has, the feed has not, and was withheld from it.
fn not_due(
    at_core: Option<&Readings<&Arrival>>,
    at_feed: &Readings<FeedReading>,
    withheld: &[Withheld],
) -> Readings<()> {
    let mut found: Readings<()> = HashMap::new();
    for (key, seq, arrival) in at_core.into_iter().flat_map(each) {
        if !has(at_feed, key, seq) && withheld.iter().any(|span| span.covers(arrival)) {
            found.entry(key.clone()).or_default().insert(seq, ());
        }
    }
    found
}

fn each<T>(readings: &Readings<T>) -> impl Iterator<Item = (&Key, u64, &T)> {
    readings
        .iter()
        .flat_map(|(key, of_stream)| of_stream.iter().map(move |(seq, reading)| (key, *seq, reading)))
}

fn count<T>(readings: &Readings<T>) -> u64 {
    readings.values().map(|of_stream| of_stream.len() as u64).sum()
}

fn has<T>(readings: &Readings<T>, key: &Key, seq: u64) -> bool {
    readings.get(key).is_some_and(|of_stream| of_stream.contains_key(&seq))
}

/// Finds the published reading that an arrival is.
struct Names<'a> {
    journal: &'a Readings<Journalled>,
    /// By the sensor's time in milliseconds, which is how exactly a numeric's time travels.
    by_time: HashMap<&'a Key, HashMap<i64, u64>>,
}

impl<'a> Names<'a> {
    fn new(journal: &'a Readings<Journalled>) -> Self {
        let by_time = journal.iter().map(|(key, of_stream)| {
            (key, of_stream.iter().map(|(seq, reading)| (reading.t_us.div_euclid(1000), *seq)).collect())
        });
        Self { journal, by_time: by_time.collect() }
    }

    fn resolve(&self, arrival: &Arrival) -> Option<(Key, u64)> {
        let key = (arrival.device.clone(), arrival.stream.clone());
        let seq = match (arrival.seq, arrival.sensor_us) {
            (Some(seq), _) => seq,
            // SenML's seconds are a float: to the nearest millisecond.
            (None, Some(us)) => *self.by_time.get(&key)?.get(&us.saturating_add(500).div_euclid(1000))?,
            (None, None) => return None,
        };
        has(self.journal, &key, seq).then_some((key, seq))
    }

    fn first_arrivals<'b>(&self, arrivals: &'b [Arrival]) -> Readings<&'b Arrival> {
        let mut found: Readings<&Arrival> = HashMap::new();
        for arrival in arrivals {
            if let Some((key, seq)) = self.resolve(arrival) {
                found.entry(key).or_default().entry(seq).or_insert(arrival);
            }
        }
        found
    }
}

fn compare_all(
    journal: &Readings<Journalled>,
    at_feed: &Readings<FeedReading>,
    not_due: &Readings<()>,
    sources: &[(String, Source)],
) -> Comparison {
    let mut total = Comparison::default();
    let mut add = |part: Comparison| {
        total.compared += part.compared;
        total.mismatches += part.mismatches;
        total.first = total.first.take().or(part.first);
    };
    sources.iter().for_each(|(device, source)| add(compare(device, source, journal, at_feed, not_due)));
    let known: HashSet<&str> = sources.iter().map(|(device, _)| device.as_str()).collect();
    for ((device, stream), readings) in
        journal.iter().filter(|((device, _), _)| !known.contains(device.as_str()))
    {
        let first = Some(format!("{device} {stream}: the device is not in the configuration"));
        let mismatches = readings.len() as u64;
        add(Comparison { compared: mismatches, mismatches, first });
    }
    total
}

/// Nearest rank; `sorted` ascending.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = round::to_u64((share * sorted.len() as f64).ceil());
    sorted.get(usize::try_from(rank).ok()?.checked_sub(1)?).copied()
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
