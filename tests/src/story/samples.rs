//! Compares what the feed told with what the sensors were given, sample by sample, the source read or generated afresh.

use std::collections::{HashMap, HashSet};

use super::lines::{FeedReading, Journalled, Readings, Wave};
use crate::sensor::source::{Body, Item, Source};
use crate::wfdb::MISSING;

/// Most items regenerated per device: a week of an ECG at five chunks a second is 3 million.
const ITEMS_MAX: usize = 10_000_000;
/// Scale, offset and values pass through at most one division and one decimal text: they agree to this, relative.
const TOLERANCE: f64 = 1e-9;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// Samples and numerics looked at.
    pub compared: u64,
    /// Of those, the ones that differ or are missing at the feed.
    pub mismatches: u64,
    /// What the first of them was, for a person.
    pub first: Option<String>,
}

impl Comparison {
    fn note(&mut self, samples: usize, device: &str, item: (&str, u64), what: &str) {
        self.mismatches += samples as u64;
        self.first.get_or_insert_with(|| format!("{device} {} {}: {what}", item.0, item.1));
    }
}

/// Compares everything that `device` published with what the feed has of it, and with what it should have published: each
/// reading of the source up to the last one that was, stream by stream. What was `not_due` at the feed is not missed there.
#[must_use]
pub fn compare(
    device: &str,
    source: &Source,
    journal: &Readings<Journalled>,
    feed: &Readings<FeedReading>,
    not_due: &Readings<()>,
) -> Comparison {
    let mut result = Comparison::default();
    let mut wanted: HashMap<&str, HashSet<u64>> = journal
        .iter()
        .filter(|((of, _), _)| of == device)
        .map(|((_, stream), readings)| (stream.as_str(), readings.keys().copied().collect()))
        .collect();
    let last: HashMap<&str, u64> =
        wanted.iter().filter_map(|(stream, seqs)| Some((*stream, *seqs.iter().max()?))).collect();
    // Generators have no end: the search is over when each stream is past the last reading wanted of it.
    let mut behind: HashSet<&str> =
        source.streams().into_iter().filter(|stream| last.contains_key(stream)).collect();
    if behind.is_empty() {
        return missing(device, wanted, result);
    }
    for item in source.items().take(ITEMS_MAX) {
        let Some(last) = last.get(item.stream) else { continue };
        if item.seq >= *last {
            behind.remove(item.stream);
        }
        if wanted.get_mut(item.stream).is_some_and(|seqs| seqs.remove(&item.seq)) {
            let key = (device.to_owned(), item.stream.to_owned());
            let published = journal.get(&key).and_then(|readings| readings.get(&item.seq));
            let arrived = feed.get(&key).and_then(|readings| readings.get(&item.seq));
            if not_due.get(&key).is_some_and(|readings| readings.contains_key(&item.seq)) {
                continue;
            }
            compare_item(device, &item, published, arrived, &mut result);
        } else if item.seq < *last {
            let samples = match &item.body {
                Body::Numeric { .. } => 1,
                Body::Wave { samples, .. } => samples.len(),
            };
            result.compared += samples as u64;
            result.note(
                samples,
                device,
                (item.stream, item.seq),
                "missing: in the source, but never published",
            );
        }
        if behind.is_empty() {
            break;
        }
    }
    missing(device, wanted, result)
}

/// Notes what the source doesn't have.
fn missing(device: &str, wanted: HashMap<&str, HashSet<u64>>, mut result: Comparison) -> Comparison {
    for (stream, seqs) in wanted {
        for seq in seqs {
            result.compared += 1;
            result.note(1, device, (stream, seq), "was published, but its source has no such reading");
        }
    }
    result
}

fn compare_item(
    device: &str,
    item: &Item,
    published: Option<&Journalled>,
    arrived: Option<&FeedReading>,
    result: &mut Comparison,
) {
    let name = (item.stream, item.seq);
    match &item.body {
        Body::Numeric { value, .. } => {
            result.compared += 1;
            match arrived.and_then(|reading| reading.numeric) {
                None => result.note(1, device, name, "no value at the feed"),
                Some(found) if !close(found, *value) => {
                    result.note(1, device, name, "another value at the feed");
                }
                Some(_) => {}
            }
        }
        Body::Wave { samples, period_ns, scale, offset, .. } => {
            result.compared += samples.len() as u64;
            let Some(wave) = arrived.and_then(|reading| reading.wave.as_ref()) else {
                return result.note(samples.len(), device, name, "no chunk at the feed");
            };
            let same_axes = close(wave.scale, *scale)
                && close(wave.offset, *offset)
                && wave.period_ns == *period_ns
                && published.is_none_or(|published| published.t_us == wave.t0_us);
            if !same_axes {
                return result.note(samples.len(), device, name, "another scale, offset or time at the feed");
            }
            let different = differing(samples, wave);
            if different > 0 {
                result.note(different, device, name, "other samples at the feed");
            }
        }
    }
}

/// Samples that differ, are missing or are too many.
fn differing(samples: &[i16], wave: &Wave) -> usize {
    let pairs = samples.iter().zip(&wave.samples);
    let different = pairs.filter(|(own, found)| **own != found.unwrap_or(MISSING)).count();
    different + samples.len().abs_diff(wave.samples.len())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}
