//! An alarm is searched for: the core finds it and does not learn the word.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use caregate_host::clock;
use caregate_host::journal::Journal;
use caregate_protocol::audit::What;
use caregate_protocol::id::{DataClass, PatientId};
use serde_json::Value;

use crate::called::until;
use crate::home::Home;

/// What a feed's page answers; none while it does not.
fn search(page: SocketAddr, patient: &str, word: &str) -> Option<(u16, Value)> {
    let now_ms = clock::now_ms();
    let (from, until) = (now_ms - 3_600_000, now_ms + 60_000);
    let path = format!("/api/search?patient={patient}&word={word}&from_ms={from}&until_ms={until}");
    let mut stream = TcpStream::connect(page).ok()?;
    // nurse:correct horse
    let login = "Authorization: Basic bnVyc2U6Y29ycmVjdCBob3JzZQ==";
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {page}\r\n{login}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?))
}

pub(crate) fn hits(page: SocketAddr, patient: &str, word: &str) -> Option<(usize, u64)> {
    let (status, answer) = search(page, patient, word)?;
    (status == 200).then(|| (answer["hits"].as_array().unwrap().len(), answer["minutes"].as_u64().unwrap()))
}

fn noted(home: &Home, feed: &str) -> Vec<What> {
    let path = home.node.dir.path().join(format!("{feed}-journal.jsonl"));
    Journal::open(&path).unwrap().1.into_iter().map(|entry| entry.what).collect()
}

fn looks(noted: &[What]) -> BTreeSet<(PatientId, DataClass)> {
    let look = |what: &What| {
        let What::Look { patient, class, .. } = what else { return None };
        Some((*patient, *class))
    };
    noted.iter().filter_map(look).collect()
}

fn received(noted: &[What]) -> BTreeSet<(PatientId, DataClass)> {
    let receipt = |what: &What| {
        let What::Received { delivered, .. } = what else { return None };
        Some((delivered.patient, delivered.class))
    };
    noted.iter().filter_map(receipt).collect()
}

#[test]
fn an_authorised_reader_finds_an_alarm_and_the_core_does_not_learn_which() {
    let home = Home::new(&["g-1"]);
    let (clinic, clinic_key) = home.second_hospital();
    let wallet = home.patient("g-1");
    let patient = home.enrol(&wallet, "g-1", &[]);
    let (core, _controller) = (home.core(), home.controller());
    let gateway = home.configure_gateway("g-1", "gateway", "");
    let running = gateway.start();
    let (hospital, page) = home.feed("hospital", home.recipient, &home.hospital, "g-1");
    let (clinic_feed, clinic_page) = home.feed("clinic", clinic, &clinic_key, "g-1");
    gateway.publish(0..3);
    gateway.event("fall");
    running.delivers();

    let (found, minutes) =
        until("the hospital finds the fall", || hits(page, &patient, "fall").filter(|(found, _)| *found > 0));
    assert!(found >= 1 && (1..=3).contains(&minutes), "{found} in {minutes} minutes");
    let (_, answer) = search(page, &patient, "fall").unwrap();
    let kinds = |hit: &Value| hit["alarms"].to_string();
    assert!(answer["hits"].as_array().unwrap().iter().all(|hit| kinds(hit).contains("\"fall\"")), "{answer}");
    assert_eq!(hits(page, &patient, "asystole").unwrap().0, 0);
    let high =
        hits(page, &patient, "priority:high").unwrap().0 + hits(page, &patient, "priority:medium").unwrap().0;
    assert!(high >= 1, "a fall has its priority");
    // Who has no grant has no key, so no token and no question.
    assert_eq!(hits(clinic_page, &patient, "fall"), Some((0, 0)));
    let (status, answer) = search(page, &patient, "headache").unwrap();
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("asystole"), "{answer}");

    assert!(core.metric("caregate_core_searches_total").unwrap() >= 3.0);
    running.stop();
    hospital.stop();
    clinic_feed.stop();
    core.stop();
    // Who was shown something had received it; who was shown nothing has looked at nothing.
    let [hospital, clinic] = ["hospital", "clinic"].map(|name| noted(&home, name));
    let shown = looks(&hospital);
    assert!(!shown.is_empty() && shown.is_subset(&received(&hospital)), "{hospital:?}");
    assert_eq!(looks(&clinic), BTreeSet::new());
    let dir = home.node.dir.path().join("core");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for word in ["alarm:fall", "\"fall\"", "priority:"] {
            assert!(
                !bytes.windows(word.len()).any(|at| at == word.as_bytes()),
                "{} has {word}",
                path.display()
            );
        }
    }
}
