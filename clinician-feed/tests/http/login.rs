use caregate_protocol::id::DataClass;
use caregate_protocol::reading::Reading;
use clinician_feed::attempts::USER_MAX;
use clinician_feed::journal::{AccessBasis, What};

use crate::client::{JSON, cookie, get, log_in, next_of, open, post};
use crate::fhir::BASIC;
use crate::{PASSWORD, PATIENT, T0_US, USER, heart_rate, start};

#[tokio::test]
async fn right_wrong_and_logged_out() {
    let site = start(1 << 20);
    assert_eq!(get(&site, "/api/session", "").await.status, 401);
    let wrong = log_in(&site, USER, "wrong horse").await;
    assert_eq!((wrong.status, wrong.json()["error"].as_str()), (401, Some("wrong user or password")));
    assert_eq!(
        log_in(&site, "nobody", PASSWORD).await.body,
        wrong.body,
        "a user who does not exist looks the same"
    );
    let right = log_in(&site, USER, PASSWORD).await;
    let set = right.header("set-cookie").unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains("Secure"), "{set}");
    let cookie = format!("Cookie: {}\r\n", set.split(';').next().unwrap());
    let session = get(&site, "/api/session", &cookie).await;
    assert_eq!((session.status, session.json()), (200, serde_json::json!({ "user": USER })));
    assert_eq!(session.header("cache-control"), Some("no-store"));
    assert_eq!(post(&site, "/api/logout", &format!("{cookie}Origin: http://evil\r\n"), "").await.status, 403);
    assert_eq!(post(&site, "/api/logout", &cookie, "").await.status, 204);
    assert_eq!(get(&site, "/api/session", &cookie).await.status, 401);
}

#[tokio::test]
async fn a_guesser_waits() {
    let site = start(1 << 20);
    for _ in 0..USER_MAX {
        assert_eq!(log_in(&site, USER, "wrong horse").await.status, 401);
    }
    let answer = log_in(&site, USER, PASSWORD).await;
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&seconds));
}

#[tokio::test]
async fn other_pages_and_other_types_are_refused() {
    let site = start(1 << 20);
    let body = serde_json::json!({ "user": USER, "password": PASSWORD }).to_string();
    let evil = "Content-Type: application/json\r\nOrigin: http://evil\r\n";
    assert_eq!(post(&site, "/api/login", evil, &body).await.status, 403);
    assert_eq!(post(&site, "/api/login", "Content-Type: text/plain\r\n", &body).await.status, 415);
    assert_eq!(
        post(&site, "/api/login", "Content-Type: application/json; charset=utf-8\r\n", &body).await.status,
        204
    );
}

#[tokio::test]
async fn malformed_bodies_are_named() {
    let site = start(1 << 20);
    for (body, expected) in [
        ("{", "body: EOF while parsing"),
        ("{\"user\":1,\"password\":\"x\"}", "body: invalid type: integer"),
        ("{\"user\":\"a\"}", "body: missing field `password`"),
        ("{\"user\":\"a\",\"password\":\"b\",\"more\":1}", "body: unknown field `more`"),
    ] {
        let answer = post(&site, "/api/login", JSON, body).await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"].as_str().unwrap().starts_with(expected), "{answer:?}");
    }
    let long = format!("{{\"user\":\"{}\"}}", "a".repeat(9000));
    assert_eq!(post(&site, "/api/login", JSON, &long).await.status, 413);
    assert_eq!(get(&site, "/api/login", "").await.status, 405);
    assert_eq!(get(&site, "/api/nothing", "").await.status, 404);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let site = start(1 << 20);
    let cookie = cookie(&site).await;
    for path in ["/", "/api/session", "/nothing", "/fhir/metadata"] {
        let answer = get(&site, path, &format!("Cookie: {cookie}\r\n")).await;
        assert!(
            answer.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    }
}

/// At the patient's vitals.
fn look(from_us: i64, until_us: Option<i64>) -> What {
    let (user, basis) = (USER.into(), AccessBasis::Unknown);
    What::Look { user, patient: PATIENT, class: DataClass::Vitals, from_us, until_us, basis }
}

#[tokio::test]
async fn who_logs_in_and_looks_is_noted_and_a_program_that_polls_once() {
    let mut site = start(1 << 20);
    site.append(DataClass::Vitals, 0, vec![heart_rate(72.0)]);
    let cookie = cookie(&site).await;
    assert_eq!(log_in(&site, USER, "wrong horse").await.status, 401);
    for _ in 0..2 {
        let mut socket = open(&site, "?from=0", &[("Cookie", &cookie)]).await.unwrap();
        let line = next_of(&mut socket, "audit").await;
        assert_eq!((&line["what"], &line["user"]), (&"login".into(), &USER.into()));
        // Noted before it is shown.
        next_of(&mut socket, "reading").await;
    }
    let search = format!("Cookie: {cookie}\r\n");
    for _ in 0..3 {
        assert_eq!(get(&site, "/fhir/Observation", &search).await.json()["total"], 1);
    }
    let login = What::Login { user: USER.into() };
    let look = |until_us| look(T0_US + 1_000, until_us);
    let noted = site.end().await;
    let looks: Vec<_> =
        noted.iter().filter(|what| !matches!(what, What::LookEnded { .. })).cloned().collect();
    assert_eq!(
        looks,
        [login, look(None), look(None), look(Some(T0_US + 1_000))],
        "two streams, and FHIR once"
    );
    assert_eq!(noted.len(), looks.len() + 2, "each stream's end");
}

#[tokio::test]
async fn what_a_program_reads_on_is_noted_at_the_latest_when_the_feed_stops() {
    let mut site = start(1 << 20);
    for (sequence, gateway_time_us) in (0..).zip([T0_US, T0_US + 1, T0_US + 2]) {
        site.append(DataClass::Vitals, sequence, vec![Reading { gateway_time_us, ..heart_rate(72.0) }]);
        let found = get(&site, "/fhir/Observation", BASIC).await.json();
        assert_eq!(found["total"], sequence + 1);
    }
    assert_eq!(site.noted(), [look(T0_US, Some(T0_US))]);
    assert_eq!(site.end().await, [look(T0_US, Some(T0_US)), look(T0_US, Some(T0_US + 2))]);
}

#[tokio::test]
async fn a_journal_that_fails_keeps_nobody_from_a_patient() {
    let site = start(1 << 20);
    let path = site.journal_path();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    site.append(DataClass::Vitals, 0, vec![heart_rate(72.0)]);
    let cookie = cookie(&site).await;
    let mut socket = open(&site, "?from=0", &[("Cookie", &cookie)]).await.unwrap();
    next_of(&mut socket, "reading").await;
}

#[tokio::test]
async fn what_could_not_be_noted_is_noted_when_the_journal_works_again() {
    let mut site = start(1 << 20);
    let path = site.journal_path();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    site.append(DataClass::Vitals, 0, vec![heart_rate(72.0)]);
    assert_eq!(get(&site, "/fhir/Observation", BASIC).await.json()["total"], 1);
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(get(&site, "/fhir/Observation", BASIC).await.json()["total"], 1);
    let look = || look(T0_US + 1_000, Some(T0_US + 1_000));
    assert_eq!(site.noted(), [look(), look()], "each of the two");
    assert_eq!(get(&site, "/fhir/Observation", BASIC).await.json()["total"], 1);
    assert_eq!(site.end().await, [look(), look()]);
}
