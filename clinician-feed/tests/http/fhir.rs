//! Searches over HTTP, and what a validator of others says about their answers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use caregate_host::clock;
use caregate_protocol::beat::{Beat, PolicyState};
use caregate_protocol::code::{Kind, QUANTITIES};
use caregate_protocol::id::DataClass;
use caregate_protocol::reading::Value;
use clinician_feed::journal::What;
use serde_json::Value as Json;

use crate::client::{Answer, cookie, get, post};
use crate::{PATIENT, Site, T0_US, USER, gateway_key, reading, start};

/// `nurse:correct horse`.
pub(crate) const BASIC: &str = "Authorization: Basic bnVyc2U6Y29ycmVjdCBob3JzZQ==\r\n";

async fn fhir(site: &Site, path: &str) -> Answer {
    get(site, &format!("/fhir/{path}"), BASIC).await
}

/// One reading of each quantity of the table.
fn everything() -> Site {
    let site = start(1 << 24);
    for (sequence, q) in (0..).zip(&QUANTITIES) {
        let quantity = q.number;
        let value = match (q.kind, q.range) {
            (Kind::Numeric, Some((least, greatest))) => {
                Value::Numeric { quantity, value: (least + 0.25 * (greatest - least)).round() }
            }
            (Kind::Numeric, None) | (Kind::Event, _) => Value::Event { quantity },
            (Kind::Waveform, _) => Value::Waveform {
                quantity,
                t0_us: T0_US,
                period_ns: 2_777_778,
                scale: 0.005,
                offset: -5.12,
                samples: vec![995, i16::MIN, -1],
            },
        };
        site.append(q.class, sequence, vec![reading(q.name, Some(T0_US), value)]);
    }
    site
}

fn outcome(answer: &Answer) -> (u16, String, String) {
    assert_eq!(answer.header("content-type"), Some("application/fhir+json"));
    let json = answer.json();
    assert_eq!(json["resourceType"], "OperationOutcome");
    let issue = |key: &str| json["issue"][0][key].as_str().unwrap().to_owned();
    (answer.status, issue("code"), issue("diagnostics"))
}

#[tokio::test]
async fn searches_find_and_page() {
    let site = everything();
    let all = fhir(&site, "Observation").await;
    assert_eq!((all.status, all.header("content-type")), (200, Some("application/fhir+json")));
    let bundle = all.json();
    let count = QUANTITIES.len() - 2;
    assert_eq!(
        (&bundle["total"], &bundle["type"]),
        (&count.into(), &"searchset".into()),
        "three pressures are one"
    );
    assert_eq!(bundle["link"][0]["url"], "http://feed/fhir/Observation");
    for (query, total) in [
        ("code=http%3A%2F%2Floinc.org%7C8867-4", 2),
        ("code=59408-5&category=vital-signs", 1),
        ("category=procedure,activity&date=ge2026-09-21T14:13:20Z&date=lt2026-09-21T14:13:21Z", 16),
        ("date=lt2026-09-21", 0),
        ("patient=Patient/01010101010101010101010101010101&combo-code=8462-4", 1),
        ("patient=02020202020202020202020202020202", 0),
    ] {
        let answer = fhir(&site, &format!("Observation?{query}")).await;
        assert_eq!(answer.json()["total"], total, "{query}: {answer:?}");
    }
    let mut path = "Observation?_count=5&category=vital-signs,procedure,activity,laboratory".to_owned();
    let mut ids = Vec::new();
    loop {
        let page = fhir(&site, &path).await.json();
        ids.extend(
            page["entry"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["resource"]["id"].as_str().unwrap().to_owned()),
        );
        let links = page["link"].as_array().unwrap();
        let Some(next) = links.iter().find(|link| link["relation"] == "next") else { break };
        path = next["url"].as_str().unwrap().strip_prefix("http://feed/fhir/").unwrap().to_owned();
    }
    assert_eq!(ids.len(), count);
    for id in ids {
        let one = fhir(&site, &format!("Observation/{id}")).await;
        assert_eq!((one.status, &one.json()["id"]), (200, &Json::from(id)));
    }
}

#[tokio::test]
async fn a_search_says_where_a_gateway_hears_nothing_of_the_ledger() {
    let site = everything();
    site.feed.bedside().know([gateway_key().verifying_key()]);
    let says = async |counter, (stale, clock_unknown), path: &str| {
        let policy = PolicyState { stale, clock_unknown, one_sealer: true };
        let beat = Beat::sign(counter, 1_000_000 * (1 + counter), policy, &gateway_key());
        site.feed.bedside().beat(&beat, clock::monotonic());
        let bundle = fhir(&site, path).await.json();
        let entries = bundle["entry"].as_array().unwrap();
        let outcomes = entries.iter().filter(|entry| entry["search"]["mode"] == "outcome");
        outcomes.map(|entry| entry["resource"]["issue"][0].clone()).collect::<Vec<_>>()
    };
    let one = "Observation?code=59408-5";
    assert_eq!(says(0, (false, false), one).await, [Json::Null; 0]);
    let issues = says(1, (true, false), one).await;
    assert_eq!((&issues[0]["severity"], &issues[0]["code"]), (&"warning".into(), &"incomplete".into()));
    assert!(issues[0]["diagnostics"].as_str().unwrap().contains(&PATIENT.to_string()), "{issues:?}");
    // Also where nothing is found of whom it is asked.
    let none = format!("Observation?patient={PATIENT}&date=lt2026-09-21");
    assert_eq!(says(2, (true, false), &none).await.len(), 1);
    assert_eq!(says(3, (false, false), one).await.len(), 0);
    let issues = says(4, (true, true), one).await;
    assert!(issues[0]["diagnostics"].as_str().unwrap().contains("set back"), "{issues:?}");
}

#[tokio::test]
async fn errors_are_outcomes() {
    let site = everything();
    let nobody = get(&site, "/fhir/Observation", "").await;
    assert_eq!(outcome(&nobody).0, 401);
    assert!(nobody.header("www-authenticate").unwrap().starts_with("Basic"));
    for (path, status, code) in [
        ("Observation?subject.name=x", 400, "not-supported"),
        ("Observation?patient=x", 400, "value"),
        ("Observation?date=2026-02-30", 400, "value"),
        ("Observation?_count=many", 400, "value"),
        ("Observation?_format=xml", 406, "not-supported"),
        ("Observation/unknown", 404, "not-found"),
        ("Observation/%ff", 404, "not-found"),
        ("Patient/1", 404, "not-supported"),
    ] {
        let answer = fhir(&site, path).await;
        let (got, issue, text) = outcome(&answer);
        assert_eq!((got, issue.as_str()), (status, code), "{path}: {text}");
    }
    let answer = post(&site, "/fhir/Observation", BASIC, "{}").await;
    assert_eq!((outcome(&answer).0, answer.header("allow")), (405, Some("GET, HEAD")));
    let with_cookie = format!("Cookie: {}\r\n", cookie(&site).await);
    assert_eq!(get(&site, "/fhir/Observation", &with_cookie).await.status, 200);
    assert_eq!(get(&site, "/fhir/metadata", "").await.json()["fhirVersion"], "4.0.1");
}

#[tokio::test]
async fn the_audit_log_is_served_newest_first_and_never_after_a_change() {
    let site = start(1 << 20);
    site.append(
        DataClass::Vitals,
        0,
        vec![reading("heart-rate", Some(T0_US), Value::Numeric { quantity: 1, value: 72.0 })],
    );
    assert_eq!(fhir(&site, "Observation").await.json()["total"], 1);
    drop(cookie(&site).await);
    let bundle = fhir(&site, "AuditEvent").await;
    assert_eq!((bundle.status, bundle.header("content-type")), (200, Some("application/fhir+json")));
    let (valid, told) = validate(Path::new(env!("CARGO_TARGET_TMPDIR")), "audit.json", &bundle.body);
    assert!(valid, "{told}");
    let bundle = bundle.json();
    let event = |n: usize| &bundle["entry"][n]["resource"];
    assert_eq!((&bundle["type"], &bundle["total"]), (&"searchset".into(), &2.into()));
    assert_eq!((&event(0)["subtype"][0]["code"], &event(0)["id"]), (&"login".into(), &"entry-2".into()));
    assert_eq!(event(1)["subtype"][0]["code"], "look");
    assert_eq!(event(1)["agent"][0]["who"]["identifier"]["value"], USER);
    let url = bundle["entry"][1]["fullUrl"].as_str().unwrap();
    let one = fhir(&site, url.strip_prefix("http://feed/fhir/").unwrap()).await;
    assert_eq!((one.status, &one.json()), (200, event(1)));
    let page = fhir(&site, "AuditEvent?_count=2&date=ge2026").await.json();
    assert_eq!(page["entry"][0]["resource"]["subtype"][0]["code"], "log_read");
    let next = page["link"][1]["url"].as_str().unwrap().strip_prefix("http://feed/fhir/").unwrap();
    let last = fhir(&site, next).await.json();
    assert_eq!(
        (&last["entry"][0]["resource"]["id"], last["link"].as_array().unwrap().len()),
        (&"entry-1".into(), 1)
    );
    assert_eq!(fhir(&site, "AuditEvent?date=lt2026").await.json()["total"], 0);
    for (query, status) in [
        ("AuditEvent?patient=01", 400),
        ("AuditEvent?date=x", 400),
        ("AuditEvent/entry-4", 404),
        ("Consent", 404),
        ("Provenance", 404),
        ("Provenance/00", 404),
    ] {
        assert_eq!(outcome(&fhir(&site, query).await).0, status, "{query}");
    }
    assert_eq!(get(&site, "/fhir/AuditEvent", "").await.status, 401);

    let path = site.journal_path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen(USER, "somebody", 1)).unwrap();
    let (status, code, text) = outcome(&fhir(&site, "AuditEvent").await);
    assert_eq!((status, code.as_str()), (500, "exception"));
    assert!(text.contains("entry 2 does not follow"), "{text}");
}

/// Who read the log, what of it and why is in the log itself; paging through it, over and over and one by one, adds two entries, and what
/// came since and was read as well one more at the end.
#[tokio::test]
async fn reading_the_audit_log_is_in_it_and_paging_does_not_make_it_grow() {
    let mut site = start(1 << 20);
    for _ in 0..5 {
        drop(cookie(&site).await);
    }
    let reads_of = |noted: Vec<What>| {
        noted.into_iter().filter(|what| matches!(what, What::LogRead { .. })).collect::<Vec<_>>()
    };
    let reads = || reads_of(site.noted());
    let read = |first, last, reason: Option<&str>| {
        let (user, reason) = (USER.to_owned(), reason.map(str::to_owned));
        What::LogRead { user, first, last, reason }
    };
    let asked = "Caregate-Reason: complaint of 12 November\r\n";
    let one = get(&site, "/fhir/AuditEvent/entry-2", &format!("{BASIC}{asked}")).await;
    assert_eq!(one.status, 200);
    assert_eq!(reads(), [read(2, 2, Some("complaint of 12 November"))]);
    let (mut path_of_page, mut ids) = ("AuditEvent?_count=1".to_owned(), Vec::new());
    for _ in 0..3 {
        loop {
            let page = fhir(&site, &path_of_page).await.json();
            ids.push(page["entry"][0]["resource"]["id"].as_str().unwrap().to_owned());
            let links = page["link"].as_array().unwrap();
            let Some(next) = links.iter().find(|link| link["relation"] == "next") else { break };
            path_of_page =
                next["url"].as_str().unwrap().strip_prefix("http://feed/fhir/").unwrap().to_owned();
        }
        path_of_page = "AuditEvent?_count=1".to_owned();
    }
    assert!(ids.len() >= 3 * 6, "{ids:?}");
    for n in 1..=7 {
        assert_eq!(fhir(&site, &format!("AuditEvent/entry-{n}")).await.status, 200);
    }
    assert_eq!(reads(), [read(2, 2, Some("complaint of 12 November")), read(1, 6, None)]);
    // As others see it.
    let event = fhir(&site, "AuditEvent/entry-6").await;
    let (valid, told) = validate(Path::new(env!("CARGO_TARGET_TMPDIR")), "log-read.json", &event.body);
    assert!(valid, "{told}");
    let event = event.json();
    assert_eq!((&event["type"]["code"], &event["action"]), (&"110101".into(), &"R".into()));
    assert_eq!(event["agent"][0]["who"]["identifier"]["value"], USER);
    assert_eq!(event["entity"][1]["detail"][0]["valueString"], "2-2");
    assert_eq!(event["entity"][1]["detail"][1]["valueString"], "complaint of 12 November");
    // What shows nothing is no reading, and a reason is text.
    assert_eq!(fhir(&site, "AuditEvent?date=lt2026").await.json()["total"], 0);
    for header in ["Caregate-Reason: \r\n".to_owned(), format!("Caregate-Reason: {}\r\n", "x".repeat(201))] {
        assert_eq!(get(&site, "/fhir/AuditEvent", &format!("{BASIC}{header}")).await.status, 400);
    }
    assert_eq!(reads().len(), 2);
    let all = [read(2, 2, Some("complaint of 12 November")), read(1, 6, None), read(7, 7, None)];
    assert_eq!(reads_of(site.end().await), all, "the entry of the second reading was read, too");
}

#[tokio::test]
async fn what_is_read_on_of_the_audit_log_is_noted_at_the_latest_when_the_feed_stops() {
    let mut site = start(1 << 20);
    let mode = |mode| std::fs::set_permissions(site.journal_path(), Permissions::from_mode(mode)).unwrap();
    drop(cookie(&site).await);
    // It can be read, and nothing is written to it.
    mode(0o644);
    assert_eq!(outcome(&fhir(&site, "AuditEvent").await).0, 500, "what can't be noted is not shown");
    mode(0o600);
    // What comes while somebody polls.
    for total in [1, 3, 4] {
        assert_eq!(fhir(&site, "AuditEvent").await.json()["total"], total);
        drop(cookie(&site).await);
    }
    let login = || What::Login { user: USER.to_owned() };
    let read = |first, last| What::LogRead { user: USER.to_owned(), first, last, reason: None };
    let noted = [login(), read(1, 1), login(), login(), login()];
    assert_eq!(site.noted(), noted);
    assert_eq!(site.end().await, [&noted[..], &[read(2, 4)]].concat());
}

pub(crate) fn validate(dir: &Path, name: &str, json: &str) -> (bool, String) {
    let file = dir.join(name);
    std::fs::write(&file, json).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fhir");
    assert!(
        folder.join("node_modules/@medplum/core").is_dir(),
        "the FHIR validator is not installed: npm ci --ignore-scripts in tests/fhir"
    );
    let output =
        Command::new("node").arg(folder.join("validate.mjs")).arg(&file).output().expect("node runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Each of these breaks one rule of R4 or of a vital-signs profile in an answer that was valid.
const PLANTED: [(&str, &str, &str); 9] = [
    ("\"status\":\"final\"", "\"status\":\"finished\"", "status"),
    ("\"code\":\"vital-signs\"", "\"code\":\"vital\"", "category"),
    ("\"code\":\"8867-4\"", "\"code\":\"8867-5\"", "code"),
    (
        "\"system\":\"http://unitsofmeasure.org\",\"code\":\"%\"",
        "\"system\":\"http://unitsofmeasure.org\",\"code\":\"percent\"",
        "value",
    ),
    ("14:13:20.000Z\"", "14:13:20.000\"", "effective"),
    ("\"subject\":", "\"subjet\":", "subje"),
    ("\"dimensions\":1", "\"dimensions\":0", "dimensions"),
    ("\"data\":\"995 E -1\"", "\"data\":\"995  E -1\"", "data"),
    ("\"code\":\"8462-4\"", "\"code\":\"8462-5\"", "component"),
];

#[tokio::test]
async fn another_validator_takes_every_resource_and_refuses_planted_errors() {
    let site = everything();
    // Kept, so that a refusal can be looked at.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let bundle = fhir(&site, "Observation").await.body;
    let metadata = fhir(&site, "metadata").await.body;
    let refused = fhir(&site, "Observation?x=1").await.body;
    for (name, json) in [("bundle.json", &bundle), ("metadata.json", &metadata), ("outcome.json", &refused)] {
        let (valid, text) = validate(dir, name, json);
        assert!(valid, "{name}: {text}");
    }
    for (good, bad, path) in PLANTED {
        assert!(bundle.contains(good), "{good}");
        let (valid, text) = validate(dir, "planted.json", &bundle.replace(good, bad));
        assert!(!valid && text.contains(path), "{bad} was taken: {text}");
    }
    assert!(
        !site.feed.chains().is_empty()
            && site.feed.chains().keys().any(|(_, class)| *class == DataClass::Alarm)
    );
}
