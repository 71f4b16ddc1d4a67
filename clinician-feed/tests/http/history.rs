//! `GET /api/history`: a time of a patient's class, opened while it comes.

use std::net::SocketAddr;
use std::path::Path;

use caregate_protocol::id::DataClass;
use caregate_protocol::reading::Reading;
use caregate_protocol::segment::SegmentHash;
use clinician_feed::journal::{AccessBasis, Journal, What};
use serde_json::{Value as Json, json};

use crate::binary::Daemon;
use crate::client::{Answer, get, send};
use crate::core::Core;
use crate::{PATIENT, T0_US, USER, heart_rate, start};

/// The minute in which all segments of [`Core`] are sealed, Unix milliseconds.
pub(crate) const MINUTE_MS: i64 = 29_000_000 * 60_000;
const BASIC: &str = "Authorization: Basic bnVyc2U6Y29ycmVjdCBob3JzZQ==\r\n";

fn path(class: &str, from_ms: i64, until_ms: i64) -> String {
    format!("/api/history?patient={PATIENT}&class={class}&from_ms={from_ms}&until_ms={until_ms}")
}

pub(crate) async fn asked(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: feed\r\nConnection: close\r\n{BASIC}\r\n");
    send(address, request.as_bytes()).await
}

/// The lines of a chunked body.
fn lines(answer: &Answer) -> Vec<Json> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer
        .body
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Of the second `nth` of that minute.
fn at(nth: u64) -> Reading {
    let second = i64::try_from(nth).unwrap();
    Reading { gateway_time_us: MINUTE_MS * 1000 + second * 1_000_000, ..heart_rate(60.0) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_opened_whole_and_its_end_says_what_is_missing() {
    let core = Core::start();
    let config = core.config();
    let mut hash = SegmentHash::NONE;
    for sequence in 0..20 {
        hash = core.segment_of(sequence, hash, at(sequence));
    }
    core.segment_of(25, SegmentHash([7; 32]), at(25));
    let daemon = Daemon::start(&config);
    let journal = config.with_file_name("journal.jsonl");
    let whole = path("vitals", MINUTE_MS, MINUTE_MS + 60_000);
    // Until its link stands.
    let mut answer = asked(daemon.address, &whole).await;
    while answer.status == 503 {
        assert!(answer.body.contains("the core is not connected"), "{}", answer.body);
        answer = asked(daemon.address, &whole).await;
    }
    let mut all = lines(&answer);
    let [from_us, until] = [MINUTE_MS, MINUTE_MS + 60_000].map(|ms| ms * 1000);
    let (user, class, basis) = (USER.to_owned(), DataClass::Vitals, AccessBasis::Unknown);
    let look = What::Look { user, patient: PATIENT, class, from_us, until_us: Some(until), basis };
    assert_eq!(looks(&journal), std::slice::from_ref(&look), "by the questions that had no answer none");
    let end = json!({"type": "end", "readings": 21, "refused": 0, "gap": [20, 24], "told": null});
    assert_eq!(all.pop(), Some(end));
    let sequences: Vec<_> = all.iter().map(|line| line["segment"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (0..20).chain([25]).collect::<Vec<_>>());
    assert!(all.iter().all(|line| line["type"] == "past" && line["n"].is_null() && line["numeric"] == 60.0));
    // To the millisecond, though the core answers by minutes; and a time of which there is nothing.
    let part = lines(&asked(daemon.address, &path("vitals", MINUTE_MS + 5000, MINUTE_MS + 8000)).await);
    assert_eq!((part.len(), &part[3]["readings"]), (4, &json!(3)));
    for nothing in
        [path("vitals", MINUTE_MS + 60_000, MINUTE_MS + 90_000), path("alarm", MINUTE_MS, MINUTE_MS + 1)]
    {
        let end = lines(&asked(daemon.address, &nothing).await);
        assert_eq!((end.len(), &end[0]["type"], &end[0]["readings"]), (1, &json!("end"), &json!(0)));
    }
    for (wrong, why) in [
        (path("vitals", 5, 5), "not behind"),
        (path("vitals", 0, 25 * 3_600_000), "longer than 24 hours"),
        (path("vital", 0, 1), "class"),
    ] {
        let answer = asked(daemon.address, &wrong).await;
        assert!(answer.status == 400 && answer.body.contains(why), "{answer:?}");
    }
    // Who is given nothing has looked at nothing, whatever it is.
    let stranger = path("vitals", MINUTE_MS, MINUTE_MS + 1).replace(&PATIENT.to_string(), &"7".repeat(32));
    assert_eq!(lines(&asked(daemon.address, &stranger).await).len(), 1);
    let word = |word: &str| {
        format!("/api/search?patient={PATIENT}&word={word}&from_ms={MINUTE_MS}&until_ms={MINUTE_MS}")
    };
    let nothing = asked(daemon.address, &word("fall")).await;
    assert_eq!((nothing.status, nothing.json()), (200, json!({"hits": [], "minutes": 0})));
    assert_eq!(asked(daemon.address, &word("headache")).await.status, 400);
    daemon.terminate();
    assert_eq!(looks(&journal), [look]);
}

fn looks(journal: &Path) -> Vec<What> {
    let noted = Journal::open(journal).unwrap().1.into_iter().map(|entry| entry.what);
    noted.filter(|what| matches!(what, What::Look { .. })).collect()
}

#[tokio::test]
async fn who_is_not_logged_in_or_has_no_core_learns_why() {
    let site = start(1 << 20);
    let path = path("vitals", T0_US / 1000, T0_US / 1000 + 1);
    assert_eq!(get(&site, &path, "").await.status, 401);
    let search = format!("/api/search?patient={PATIENT}&word=fall&from_ms=0&until_ms=1");
    for path in [path, search] {
        let answer = get(&site, &path, BASIC).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (503, Some("the core is not connected"))
        );
    }
    assert_eq!(site.noted(), [], "nobody has looked at anything");
}
