//! `GET /api/search`: what the core finds by blind tokens, and what both note of it.

use caregate_protocol::alarm::{Alarm, Kind, Priority, Refusal, Score, Settings, Standing, State};
use caregate_protocol::audit::verify::Disagreement;
use caregate_protocol::audit::{Line, Run, What};
use caregate_protocol::id::DataClass;
use caregate_protocol::segment::SegmentHash;
use serde_json::json;

use crate::PATIENT;
use crate::binary::{BASIC, Daemon, becomes};
use crate::client::{next_of, open_at};
use crate::core::{Core, lines};
use crate::history::{MINUTE_MS, asked};

/// Of the second `nth`, with an alarm of this kind.
fn standing(nth: i64, kind: Kind) -> Standing {
    let at_us = MINUTE_MS * 1000 + nth * 1_000_000;
    let (number, priority, state) = (1, Priority::Medium, State::Active);
    let (quantity, device, value, limit) = (None, None, None, None);
    let alarm = Alarm { number, kind, priority, state, quantity, device, value, limit, since_us: at_us };
    Standing {
        at_us,
        alarms: vec![alarm],
        settings: Settings::default(),
        score: Score::Refused(Refusal::CategoryUnknown),
        handled: Vec::new(),
    }
}

fn is_receipt(line: &Line) -> bool {
    matches!(line.entry.what, What::Received { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_search_brings_is_noted_at_both_ends() {
    let core = Core::start();
    core.wrap(DataClass::Alarm);
    let hash = core.standing(0, SegmentHash::NONE, standing(0, Kind::Fall));
    core.standing(1, hash, standing(1, Kind::Button));
    // Runs that don't touch, so that the search's own shows.
    core.standing(5, SegmentHash([7; 32]), standing(5, Kind::Button));
    let config = core.config();
    let daemon = Daemon::start(&config);
    let mut socket = open_at(daemon.address, "", BASIC).await.unwrap();
    while next_of(&mut socket, "chain").await["gap"] != json!([2, 4]) {}
    let (from, until) = (MINUTE_MS, MINUTE_MS + 1);
    let path = format!("/api/search?patient={PATIENT}&word=fall&from_ms={from}&until_ms={until}");
    let found = asked(daemon.address, &path).await;
    assert_eq!((found.status, found.json()["hits"][0]["sequence"].as_u64()), (200, Some(0)), "{found:?}");
    drop(socket);
    daemon.terminate();
    let feed = lines(&std::fs::read(config.with_file_name("journal.jsonl")).unwrap());
    let of_alarms = |line: &Line| {
        let What::Received { delivered, .. } = &line.entry.what else { return None };
        (delivered.class == DataClass::Alarm).then(|| delivered.segments.clone())
    };
    let received = feed.iter().filter_map(of_alarms).collect::<Vec<_>>().concat();
    assert_eq!(received, [Run(0, 1), Run(5, 5), Run(0, 0)], "by the queue, and by the search");
    becomes("the logs agree", || core.agrees_with(&feed).is_ok()).await;
    let hides: Vec<_> = feed.into_iter().filter(|line| !is_receipt(line)).collect();
    let named = core.agrees_with(&hides);
    assert!(matches!(named, Err(Disagreement::Unreceived { patient: PATIENT, .. })), "{named:?}");
}
