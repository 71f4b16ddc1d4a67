//! A clean run built from a generator and a numerics source, then each fault planted in it.

use serde_json::json;

use super::super::lines::{read_feed, read_journal};
use super::*;
use crate::sensor::journal::{Kind, Line};
use crate::sensor::source::{Body, Item};

const START_US: i64 = 1_790_000_000_000_000;

fn sources() -> Vec<(String, Source)> {
    vec![
        ("ecg".to_owned(), Source::Ecg { seed: 3, chunk_len: 50 }),
        ("num".to_owned(), Source::Numerics { seed: 3 }),
    ]
}

/// The run as files: what each place would have written.
struct Run {
    journal: Vec<Line>,
    feed: Vec<serde_json::Value>,
    core: Vec<serde_json::Value>,
    browser: Vec<serde_json::Value>,
}

impl Run {
    fn clean() -> Self {
        let mut run = Self { journal: Vec::new(), feed: Vec::new(), core: Vec::new(), browser: Vec::new() };
        for (device, source) in sources() {
            source.items().take(100).for_each(|item| run.add(&device, &item));
        }
        run
    }

    fn add(&mut self, device: &str, item: &Item) {
        let published_ms = (START_US + item.due_us) as f64 / 1000.0;
        let (stream, seq, t_us) = (item.stream.to_owned(), item.seq, START_US + item.t_us);
        let (kind, content) = match &item.body {
            Body::Wave { period_ns, scale, offset, samples, .. } => (
                Kind::Wave,
                json!({"wave": {"t0_us": t_us, "period_ns": period_ns, "scale": scale, "offset": offset, "samples": samples}}),
            ),
            Body::Numeric { value, .. } => (Kind::Num, json!({"numeric": value})),
        };
        // Numerics travel as SenML here: no sequence, known by their time alone.
        let seq_told = (kind == Kind::Wave).then_some(seq);
        let mut message = json!({"type": "reading", "n": self.feed.len(), "device": device, "stream": stream, "seq": seq_told, "sensor_us": t_us});
        if let (Some(message), serde_json::Value::Object(content)) = (message.as_object_mut(), content) {
            message.extend(content);
        }
        self.feed.push(message);
        self.core.push(json!({"device": device, "stream": stream, "seq": seq_told, "sensor_us": t_us}));
        self.browser.push(json!({"device": device, "stream": stream, "seq": seq_told, "sensor_us": t_us, "arrived_ms": published_ms + 50.0 + (seq % 100) as f64}));
        let device = device.to_owned();
        self.journal.push(Line::Published {
            device: device.clone(),
            stream: stream.clone(),
            seq,
            published_ms,
            kind,
            t_us,
        });
        self.journal.push(Line::Acked { device, stream, seq, acked_ms: published_ms + 20.0 });
    }

    fn check(&self, exclude: &[&str]) -> Report {
        self.check_withheld(exclude, &[])
    }

    fn check_withheld(&self, exclude: &[&str], withheld: &[&str]) -> Report {
        let lines =
            |values: &[serde_json::Value]| values.iter().map(|v| format!("{v}\n")).collect::<String>();
        let journal: String =
            self.journal.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        let arrivals = |values| super::super::read_arrivals("a", lines(values).as_bytes()).unwrap();
        check(Inputs {
            journal: read_journal("j", journal.as_bytes()).unwrap(),
            feed: read_feed("f", lines(&self.feed).as_bytes()).unwrap(),
            core: Some(arrivals(&self.core)),
            browser: Some(arrivals(&self.browser)),
            sources: sources(),
            exclusions: exclude.iter().map(|text| text.parse().unwrap()).collect(),
            withheld: withheld.iter().map(|text| text.parse().unwrap()).collect(),
        })
    }
}

#[test]
fn a_clean_run_is_clean() {
    let report = Run::clean().check(&[]);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.readings_published, report.readings_acked, report.readings_at_feed), (200, 200, 200));
    assert_eq!((report.readings_at_core, report.readings_at_browser), (Some(200), Some(200)));
    assert_eq!(report.samples_compared, 100 * 50 + 100);
    assert_eq!(report.puback_ms_p99, Some(20.0));
    let (p50, p99) = (report.e2e_ms_p50.unwrap(), report.e2e_ms_p99.unwrap());
    assert!((50.0..100.0).contains(&p50) && (140.0..150.0).contains(&p99), "{p50} {p99}");
}

#[test]
fn a_loss_at_the_feed_is_found_with_all_its_samples() {
    let mut run = Run::clean();
    run.feed.remove(7);
    let report = run.check(&[]);
    assert_eq!((report.lost, report.readings_at_feed, report.sample_mismatches), (1, 199, 50));
    assert_eq!(report.first_mismatch.as_deref(), Some("ecg ecg-ii 7: no chunk at the feed"));
    run.feed.remove(150);
    let report = run.check(&[]);
    assert_eq!((report.lost, report.sample_mismatches), (2, 51));
}

#[test]
fn what_was_withheld_from_the_feed_is_no_loss_and_no_mismatch() {
    let mut run = Run::clean();
    for (at, line) in run.core.iter_mut().enumerate() {
        line["sealed_ms"] = json!(1000 + at);
        line["patient"] = json!("aa");
    }
    run.feed.remove(150);
    run.feed.remove(7);
    assert_eq!(run.check(&[]).lost, 2);
    assert_eq!(run.check_withheld(&[], &["bb:0:5000"]).lost, 2);
    let report = run.check_withheld(&[], &["aa:1150:1150"]);
    assert_eq!((report.lost, report.readings_withheld, report.sample_mismatches), (1, 1, 50));
    let report = run.check_withheld(&[], &["aa:1000:1007", "aa:1150:1150"]);
    assert_eq!((report.lost, report.readings_withheld, report.sample_mismatches), (0, 2, 0));
    // At the core it must be all the same.
    run.core.remove(7);
    assert_eq!(run.check_withheld(&[], &["aa:1000:2000"]).lost, 1);
}

#[test]
fn a_loss_at_the_core_is_found() {
    let mut run = Run::clean();
    run.core.remove(7);
    run.core.remove(160);
    let report = run.check(&[]);
    assert_eq!((report.lost, report.readings_at_core, report.sample_mismatches), (2, Some(198), 0));
}

#[test]
fn what_was_never_acknowledged_is_missing_but_not_lost() {
    let mut run = Run::clean();
    run.feed.remove(0);
    run.core.remove(0);
    run.journal.remove(1);
    let report = run.check(&[]);
    assert_eq!((report.lost, report.readings_acked, report.sample_mismatches), (0, 199, 50));
}

#[test]
fn a_duplicate_and_a_made_up_reading_are_found() {
    let mut run = Run::clean();
    run.feed.push(run.feed[5].clone());
    run.feed.push(run.feed[150].clone());
    let report = run.check(&[]);
    assert_eq!((report.duplicated, report.unknown_at_feed, report.is_clean()), (2, 0, false));
    let mut run = Run::clean();
    run.feed.push(json!({"type": "reading", "n": 1, "device": "ecg", "stream": "ecg-ii", "seq": 5000}));
    let report = run.check(&[]);
    assert_eq!((report.duplicated, report.unknown_at_feed, report.is_clean()), (0, 1, false));
}

#[test]
fn every_planted_difference_is_found() {
    let mismatches = |pointer: &str, value: serde_json::Value| {
        let mut run = Run::clean();
        *run.feed[9].pointer_mut(pointer).unwrap() = value;
        run.check(&[]).sample_mismatches
    };
    assert_eq!(mismatches("/wave/samples/3", json!(32_000)), 1);
    assert_eq!(mismatches("/wave/samples/3", json!(null)), 1);
    assert_eq!(mismatches("/wave/samples", json!([])), 50);
    assert_eq!(mismatches("/wave/scale", json!(0.005_001)), 50);
    assert_eq!(mismatches("/wave/offset", json!(1e-6)), 50);
    assert_eq!(mismatches("/wave/period_ns", json!(3_999_999)), 50);
    assert_eq!(mismatches("/wave/t0_us", json!(START_US)), 50);
    let mut run = Run::clean();
    run.feed[150]["numeric"] = json!(71.5);
    assert_eq!(run.check(&[]).sample_mismatches, 1);
}

#[test]
fn a_reading_that_was_skipped_is_a_mismatch() {
    let mut run = Run::clean();
    let skipped = |line: &Line| {
        let (Line::Published { device, seq, .. } | Line::Acked { device, seq, .. }) = line;
        device == "ecg" && *seq == 7
    };
    run.journal.retain(|line| !skipped(line));
    for place in [&mut run.feed, &mut run.core, &mut run.browser] {
        place.remove(7);
    }
    let report = run.check(&[]);
    assert_eq!((report.readings_published, report.lost, report.sample_mismatches), (199, 0, 50));
    assert_eq!(report.samples_compared, 100 * 50 + 100);
    assert_eq!(
        report.first_mismatch.as_deref(),
        Some("ecg ecg-ii 7: missing: in the source, but never published")
    );
    assert!(!report.is_clean());
}

#[test]
fn a_device_or_reading_without_source_is_a_mismatch() {
    let mut run = Run::clean();
    run.journal.push(Line::Published {
        device: "ecg".to_owned(),
        stream: "pleth".to_owned(),
        seq: 0,
        published_ms: 0.0,
        kind: Kind::Wave,
        t_us: 0,
    });
    run.journal.push(Line::Published {
        device: "other".to_owned(),
        stream: "pleth".to_owned(),
        seq: 0,
        published_ms: 0.0,
        kind: Kind::Wave,
        t_us: 0,
    });
    let mut short = run;
    short.journal.retain(|line| !matches!(line, Line::Published { stream, .. } | Line::Acked { stream, .. } if stream != "pleth"));
    let report = short.check(&[]);
    assert_eq!((report.readings_published, report.sample_mismatches), (2, 2));
}

#[test]
fn excluded_spans_leave_the_latencies_alone() {
    let mut run = Run::clean();
    run.browser[10]["arrived_ms"] = json!(START_US as f64 / 1000.0 + 90_000.0);
    assert_eq!(run.check(&[]).e2e_readings, 200);
    assert!(run.check(&[]).e2e_ms_p99.unwrap() < 90_000.0);
    let start_ms = START_US / 1000;
    let span = format!("{}:{}", start_ms + 89_000, start_ms + 89_500);
    assert_eq!(run.check(&[&span]).e2e_readings, 199, "only the late one was on its way then");
    assert!("2:1".parse::<Exclusion>().is_err());
    assert!("x".parse::<Exclusion>().is_err());
}
