//! Searches over HTTP, and what a validator of others says about their answers.

use std::path::Path;
use std::process::Command;

use caregate_protocol::code::{Kind, QUANTITIES};
use caregate_protocol::id::DataClass;
use caregate_protocol::reading::Value;
use serde_json::Value as Json;

use crate::client::{Answer, cookie, get, post};
use crate::{Site, T0_US, reading, start};

/// `nurse:correct horse`.
const BASIC: &str = "Authorization: Basic bnVyc2U6Y29ycmVjdCBob3JzZQ==\r\n";

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

fn validate(dir: &Path, name: &str, json: &str) -> (bool, String) {
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
