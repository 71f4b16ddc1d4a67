//! The local door over real HTTP, with the real policy side behind it.

mod local_support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::alarm::{Alarm, Kind, Priority, Score, Settings, Standing, State};
use caregate_protocol::id::{DataClass, DeviceId};
use caregate_protocol::policy::{BUNDLE_BYTES_MAX, Mac, class_bit};
use edge_gateway::ingest::Inbound;
use edge_gateway::inventory::frame::{Means, Sighting};
use edge_gateway::local::{BODY_BYTES_MAX, MESSAGE_BYTES_MAX, SESSIONS_MAX};
use ledger_client::fixture::Site;
use local_support::{CODE, Gateway, now_s, request, stranger};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OFFERS: &str = "caregate_gateway_local_offers_total";
const LOGINS: &str = "caregate_gateway_local_logins_total";
const REVOCATIONS: &str = "caregate_gateway_local_revocations_total";

#[tokio::test]
async fn the_page_needs_no_login_and_what_it_shows_does() {
    let gateway = Gateway::start().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = gateway.get(path, &[]).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        let csp = answer.header("content-security-policy").unwrap();
        assert!(csp.starts_with("default-src 'none'; script-src 'self'"), "{csp}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        // Self-contained: nothing is loaded from anywhere else, nothing runs in the markup itself.
        let text = answer.text();
        for foreign in ["https://", "onclick", "innerHTML", "<style", "eval("] {
            assert!(!text.contains(foreign), "{path}: {foreign}");
        }
    }
    for path in ["/api/state", "/api/devices", "/api/quarantine", "/api/trail"] {
        for headers in [&[][..], &[("Cookie", "caregate_local=00")]] {
            let answer = gateway.get(path, headers).await;
            assert_eq!((answer.status, answer.json()), (401, json!({ "error": "log in first" })), "{path}");
        }
    }
    let relationship = Site::relationship(0);
    let answer = gateway.post_json("/api/revoke", "", &json!({ "relationship": relationship })).await;
    assert_eq!(answer.status, 401);
    for path in ["/api", "/policy", "/..", "/index.html", "/page/page.js"] {
        assert_eq!(gateway.get(path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(gateway.post("/api/state", &[], b"").await.status, 405);
}

#[tokio::test]
async fn the_access_code_opens_a_session_until_logout() {
    let gateway = Gateway::start().await;
    let answer = gateway.post_json("/api/login", "", &json!({ "code": "wrong" })).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (403, None));
    let typed = CODE.to_uppercase().replace('-', " ");
    let answer = gateway.post_json("/api/login", "", &json!({ "code": typed })).await;
    let cookie = answer.header("set-cookie").unwrap();
    for flag in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    let session = cookie.split(';').next().unwrap();
    assert_eq!(gateway.state(session).await["patients"], 1);
    assert_eq!(gateway.post_json("/api/logout", session, &json!({})).await.status, 204);
    assert_eq!(gateway.get("/api/state", &[("Cookie", session)]).await.status, 401);
    assert_eq!((gateway.counted(LOGINS, &["ok"]), gateway.counted(LOGINS, &["wrong"])), (1.0, 1.0));
}

#[tokio::test]
async fn guessing_is_slowed_down_and_sessions_are_bounded() {
    let gateway = Gateway::start().await;
    let first = gateway.log_in().await;
    for _ in 0..SESSIONS_MAX {
        gateway.log_in().await;
    }
    assert_eq!(gateway.get("/api/state", &[("Cookie", &first)]).await.status, 401, "made room");
    let mut refused = 0;
    for _ in 0..8 {
        let answer = gateway.post_json("/api/login", "", &json!({ "code": "0000" })).await;
        if answer.status == 429 {
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=21).contains(&wait), "{wait}");
            refused += 1;
        }
    }
    assert_eq!(refused, 3);
    let answer = gateway.post_json("/api/login", "", &json!({ "code": CODE })).await;
    assert_eq!(answer.status, 429, "not even with the right one, meanwhile");
}

#[tokio::test]
async fn another_page_can_do_nothing() {
    let mut gateway = Gateway::start().await;
    let city = gateway.city.clone();
    gateway.site.grant(0, &city, 1, |_| {});
    assert_eq!(gateway.deliver().await.status, 200);
    let session = gateway.log_in().await;
    let body = json!({ "relationship": Site::relationship(0) }).to_string();
    let own = format!("http://{}", gateway.address);
    for (origin, kind, expected) in [
        ("http://evil.example", "application/json", 403),
        ("null", "application/json", 403),
        (own.as_str(), "text/plain", 415),
        (own.as_str(), "application/x-www-form-urlencoded", 415),
    ] {
        let host = gateway.address.to_string();
        let headers = [
            ("Host", host.as_str()),
            ("Origin", origin),
            ("Content-Type", kind),
            ("Cookie", session.as_str()),
        ];
        for (path, body) in [("/api/revoke", body.as_str()), ("/api/login", "{\"code\":\"x\"}")] {
            let answer = gateway.post(path, &headers, body.as_bytes()).await;
            assert_eq!(answer.status, expected, "{origin} {kind} {path}");
        }
    }
    assert_eq!(gateway.state(&session).await["access"][0]["status"], "open");
    let answer = gateway
        .post(
            "/api/logout",
            &[("Host", "gateway"), ("Origin", "http://evil.example"), ("Cookie", &session)],
            b"",
        )
        .await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn a_bundle_comes_into_force_and_the_page_says_who_may_see() {
    let mut gateway = Gateway::start().await;
    let session = gateway.log_in().await;
    let before = gateway.state(&session).await;
    assert_eq!((&before["policy"]["epoch"], &before["policy"]["age_s"]), (&json!(0), &json!(null)));
    assert_eq!(before["access"].as_array().unwrap().len(), 3, "who is enrolled is shown from the start");
    let now = now_s();
    let (city, rescue) = (gateway.city.clone(), gateway.rescue.clone());
    gateway.site.grant(0, &city, 3, |grant| {
        grant.classes = class_bit(DataClass::Vitals) | class_bit(DataClass::Alarm);
        grant.until = now + 5000;
    });
    gateway.site.grant(1, &city, 1, |grant| grant.from = now + 1000);
    gateway.site.emergency(&rescue, now - 10, now + 3600, 1);
    gateway.site.bind(0, true, 1);
    let answer = gateway.deliver().await;
    let epoch = gateway.site.epoch;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "number": 1, "epoch": epoch, "refused": null }))
    );
    let state = gateway.state(&session).await;
    assert_eq!((&state["policy"]["epoch"], &state["policy"]["is_stale"]), (&json!(epoch), &json!(false)));
    assert!(state["policy"]["age_s"].as_u64().unwrap() <= 30);
    let access = |label: &str| {
        let all = state["access"].as_array().unwrap();
        all.iter().find(|one| one["label"] == label).unwrap().clone()
    };
    let open = access("City hospital");
    assert_eq!((&open["status"], &open["is_revocable"]), (&json!("open"), &json!(true)));
    assert_eq!((&open["classes"], &open["until_s"]), (&json!(["alarm", "vitals"]), &json!(now + 5000)));
    assert_eq!(open["grantee"], json!(city.id()));
    assert_eq!(access("Clinic")["status"], "waiting");
    assert_eq!(
        (&access("Study")["status"], &access("Study")["is_revocable"]),
        (&json!("none"), &json!(false))
    );
    let emergency = &state["emergencies"][0];
    assert_eq!((&emergency["is_running"], &emergency["domain"]), (&json!(true), &json!(rescue.id())));
    let devices = state["devices"].as_array().unwrap();
    let bound: Vec<_> = devices.iter().map(|one| (&one["device"], &one["is_bound"])).collect();
    assert_eq!(bound, [(&json!("monitor-1"), &json!(true)), (&json!("belt-1"), &json!(false))]);
    let trail = gateway.get("/api/trail", &[("Cookie", &session)]).await.json();
    let lines: Vec<_> = trail.as_array().unwrap().iter().filter_map(|line| line["text"].as_str()).collect();
    assert!(lines.iter().any(|line| line.contains("EMERGENCY")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("City hospital")), "{lines:?}");
}

#[tokio::test]
async fn the_button_ends_access_at_once_without_the_ledger() {
    let mut gateway = Gateway::start().await;
    let city = gateway.city.clone();
    for relation in [0, 2] {
        gateway.site.grant(relation, &city, 7, |_| {});
    }
    gateway.deliver().await;
    let session = gateway.log_in().await;
    let revoke = |relation: u8| json!({ "relationship": Site::relationship(relation) });
    let answer = gateway.post_json("/api/revoke", &session, &revoke(0)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["version"], 7);
    let state = gateway.state(&session).await;
    assert_eq!(
        (&state["access"][0]["label"], &state["access"][0]["status"]),
        (&json!("City hospital"), &json!("revoked"))
    );
    let open: Vec<_> =
        gateway.policy.subscribe().borrow().standing().map(|(_, grant)| grant.relationship).collect();
    assert_eq!(open, [Site::relationship(2)]);
    // On its way to the ledger, signed with the revoke-only key.
    let anchors = Arc::clone(&gateway.policy.anchors().borrow());
    assert_eq!(anchors[0].revocation, gateway.site.signed_revocation(0, 7));
    assert_eq!(anchors[0].other_key, Site::grant_key(0).address().0);
    // An older word of the ledger brings nobody back.
    assert_eq!(gateway.deliver().await.status, 200);
    assert_eq!(gateway.state(&session).await["access"][0]["status"], "revoked");
    for (relation, status, outcome) in
        [(0, 409, "nothing_stands"), (1, 409, "nothing_stands"), (2, 409, "no_key")]
    {
        let answer = gateway.post_json("/api/revoke", &session, &revoke(relation)).await;
        assert_eq!(answer.status, status, "{relation}: {}", answer.text());
        assert!(gateway.counted(REVOCATIONS, &[outcome]) > 0.0, "{outcome}");
    }
    let answer =
        gateway.post_json("/api/revoke", &session, &json!({ "relationship": "11".repeat(32) })).await;
    assert_eq!(answer.status, 404);
    for body in [
        json!({}),
        json!({ "relationship": "0x12" }),
        json!({ "relationship": Site::relationship(2), "x": 1 }),
    ] {
        assert_eq!(gateway.post_json("/api/revoke", &session, &body).await.status, 400, "{body}");
    }
    assert_eq!(gateway.counted(REVOCATIONS, &["in_force"]), 1.0);
    let trail = gateway.get("/api/trail", &[("Cookie", &session)]).await.text();
    assert!(trail.contains("with this box's key"), "{trail}");
}

#[tokio::test]
async fn a_signed_revocation_from_anywhere_is_in_force_at_once() {
    let mut gateway = Gateway::start().await;
    let city = gateway.city.clone();
    gateway.site.grant(2, &city, 5, |_| {});
    gateway.deliver().await;
    let session = gateway.log_in().await;
    let status = async |gateway: &Gateway| {
        let state = gateway.state(&session).await;
        let all = state["access"].as_array().unwrap().clone();
        all.iter().find(|one| one["label"] == "Study").unwrap()["status"].clone()
    };
    assert_eq!(status(&gateway).await, "open");
    let signed = gateway.site.signed_revocation(2, 5);
    let mut forged = signed.clone();
    forged.signature = stranger().sign(&[7; 32]);
    let answer = gateway.post("/policy/revocation", &[], &forged.encode()).await;
    assert_eq!((answer.status, &answer.json()["refused"]), (422, &json!("revocation_signature")));
    assert_eq!(status(&gateway).await, "open");
    let answer = gateway.post("/policy/revocation", &[], &signed.encode()).await;
    assert_eq!((answer.status, &answer.json()["refused"]), (200, &json!(null)), "{}", answer.text());
    assert_eq!(status(&gateway).await, "revoked");
    let garbage = gateway.post("/policy/revocation", &[], b"\x83\x00").await;
    assert_eq!(garbage.status, 400, "{}", garbage.text());
    let long = gateway.post("/policy/revocation", &[], &[0; MESSAGE_BYTES_MAX + 1]).await;
    assert_eq!(long.status, 413);
    assert_eq!(gateway.counted(OFFERS, &["revocation", "in_force"]), 1.0);
    assert_eq!(gateway.counted(OFFERS, &["revocation", "revocation_signature"]), 1.0);
}

#[tokio::test]
async fn an_emergency_from_anywhere_is_in_force_at_once_and_the_patient_sees_it() {
    let mut gateway = Gateway::start().await;
    gateway.deliver().await;
    let session = gateway.log_in().await;
    let (rescue, city) = (gateway.rescue.clone(), gateway.city.clone());
    let stranger = gateway.site.signed_emergency(&city, now_s(), now_s() + 60, 1);
    let answer = gateway.post("/policy/emergency", &[], &stranger.encode()).await;
    assert_eq!((answer.status, &answer.json()["refused"]), (422, &json!("emergency_stranger")));
    let signed = gateway.site.signed_emergency(&rescue, now_s(), now_s() + 3600, 1);
    let answer = gateway.post("/policy/emergency", &[], &signed.encode()).await;
    assert_eq!((answer.status, &answer.json()["refused"]), (200, &json!(null)), "{}", answer.text());
    let shown = &gateway.state(&session).await["emergencies"][0];
    assert_eq!((&shown["is_running"], &shown["number"]), (&json!(true), &json!(1)), "{shown}");
    let garbage = gateway.post("/policy/emergency", &[], b"\x83\x00").await;
    assert_eq!(garbage.status, 400, "{}", garbage.text());
    assert_eq!(gateway.counted(OFFERS, &["emergency", "in_force"]), 1.0);
    assert_eq!(gateway.counted(OFFERS, &["emergency", "emergency_stranger"]), 1.0);
}

/// The page finds a file's route by its first byte; here is what these files begin with, and what the routes say to them.
#[tokio::test]
async fn what_the_page_hands_in_it_knows_by_its_first_byte() {
    let mut gateway = Gateway::start().await;
    let script = gateway.get("/page.js", &[]).await.text();
    let page = gateway.get("/", &[]).await.text();
    for part in [
        "<label for=\"hand-in-file\">",
        "id=\"hand-in-file\" type=\"file\"",
        "id=\"handed-in\" class=\"note\" role=\"status\"",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let rescue = gateway.rescue.clone();
    let emergency = gateway.site.signed_emergency(&rescue, now_s(), now_s() + 3600, 1).encode();
    let revocation = gateway.site.signed_revocation(0, 1).encode();
    let bundle = gateway.site.bundle(now_s());
    let mut handed_on = bundle.clone();
    handed_on.handovers.push(vec![0]);
    let offers = [
        (bundle.encode(), "/policy/bundle", 200),
        (handed_on.encode(), "/policy/bundle", 422),
        (revocation, "/policy/revocation", 200),
        (emergency, "/policy/emergency", 200),
    ];
    for (bytes, path, status) in offers {
        assert!(
            script.contains(&format!("\n  {:#04x}: ['{path}', '", bytes[0])),
            "{path}: {:#04x}",
            bytes[0]
        );
        let answer = gateway.post(path, &[], &bytes).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert_eq!(script.matches(": ['/policy/").count(), 4, "each is here");
}

#[tokio::test]
async fn hostile_bundles_are_refused_by_name_and_counted() {
    let mut gateway = Gateway::start().await;
    gateway.deliver().await;
    let garbage = gateway.post("/policy/bundle", &[], b"not a bundle").await;
    assert_eq!(garbage.status, 422, "{}", garbage.text());
    assert!(garbage.json()["refused"].is_string());
    // Longer than any: refused before it is whole.
    let announced = format!(
        "POST /policy/bundle HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        BUNDLE_BYTES_MAX + 1
    );
    let long = [announced.into_bytes(), vec![0x40; BUNDLE_BYTES_MAX + 1]].concat();
    assert_eq!(gateway.send(&long).await.status, 413);
    assert_eq!(gateway.counted(OFFERS, &["bundle", "too_large"]), 1.0);
    // More than a controller ever sends.
    let mut too_often = 0;
    for _ in 0..6 {
        too_often += u32::from(gateway.post("/policy/bundle", &[], b"").await.status == 429);
    }
    assert!((3..=4).contains(&too_often), "{too_often}");
    // The page goes on.
    let session = gateway.log_in().await;
    assert_eq!(gateway.state(&session).await["policy"]["epoch"], gateway.site.epoch);
}

#[tokio::test]
async fn a_slow_sender_holds_one_place_and_not_for_long() {
    let gateway = Gateway::start().await;
    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        b"POST /policy/bundle HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n";
    slow.write_all(head).await.unwrap();
    // It has its place when the next one from there is told to wait.
    let busy = async {
        while gateway.post("/policy/bundle", &[], b"x").await.status != 503 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), busy).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut answer));
    read.await.expect("closed in time").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(gateway.counted(OFFERS, &["bundle", "slow"]), 1.0);
}

#[tokio::test]
async fn requests_that_are_none_harm_nobody() {
    let gateway = Gateway::start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/login HTTP/1.1\r\nHost: g\r\nContent-Length: 9999999999999999999999\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok() && !answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    let long =
        request("POST", "/api/login", &[("Content-Type", "application/json")], &[b' '; BODY_BYTES_MAX + 1]);
    assert_eq!(gateway.send(&long).await.status, 413);
    for body in [&b"{"[..], b"[]", b"{\"code\":5}", b"{\"code\":\"a\",\"code\":\"b\"}", b"\xff\xfe"] {
        let answer = gateway.post("/api/login", &[("Content-Type", "application/json")], body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    gateway.log_in().await;
}

#[tokio::test]
async fn devices_say_who_is_bound_unknown_and_shut_out() {
    let mut gateway = Gateway::start().await;
    gateway.site.bind(0, true, 1);
    gateway.deliver().await;
    let session = gateway.log_in().await;
    let sighting = |mac, name: &str| Sighting {
        mac,
        means: Means::Dhcp,
        address: Some([192, 168, 8, 20].into()),
        name: Some(name.into()),
        about: None,
        fault: None,
    };
    let (bound, stranger) = (Mac([2, 0, 0, 0, 0, 1]), Mac([0x28, 0x6f, 0xb9, 0, 0, 9]));
    let now_us = i64::try_from(now_s()).unwrap() * 1_000_000;
    gateway.inventory.lock().note(1, &sighting(bound, "monitor"), now_us - 1_000_000);
    gateway.inventory.lock().note(1, &sighting(stranger, "<b>tv</b>"), now_us);
    gateway.quarantined.send_replace(Arc::new([bound].into()));
    let follows = async {
        while gateway.inventory.lock().bound(bound).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), follows).await.unwrap();
    let devices = gateway.get("/api/devices", &[("Cookie", &session)]).await.json();
    let [other, own] = devices.as_array().unwrap().as_slice() else { panic!("{devices}") };
    assert_eq!(
        (&other["mac"], &other["device"], &other["is_quarantined"]),
        (&json!("28:6f:b9:00:00:09"), &json!(null), &json!(false))
    );
    assert_eq!((&other["vendor"], &other["name"]), (&json!("Nokia Shanghai Bell"), &json!("<b>tv</b>")));
    assert_eq!(
        (&own["device"], &own["is_private_address"], &own["is_quarantined"]),
        (&json!("monitor-1"), &json!(true), &json!(true))
    );
    let state = gateway.state(&session).await;
    assert_eq!(state["strangers"], 1);
    let sensor = &state["devices"][0];
    assert_eq!(sensor["is_quarantined"], true);
    assert_eq!(sensor["last_seen_s"], now_us / 1_000_000 - 1);
    assert_eq!(gateway.get("/api/quarantine", &[("Cookie", &session)]).await.json(), json!([]));
}

#[tokio::test]
async fn the_quarantine_is_browsed_a_hundred_at_a_time() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get("/api/quarantine", &[]).await.status, 401);
    let session = gateway.log_in().await;
    for n in 0..150 {
        let publish = Inbound {
            device: DeviceId::new("belt-1").unwrap(),
            topic: "vitals/v1/belt-1/num/x".into(),
            payload: format!("<b>{n}").into_bytes().into(),
            received_us: n,
            verdict: tokio::sync::oneshot::channel().0,
        };
        gateway.hints.quarantine(&publish, "json", "not JSON");
    }
    let list =
        async |query: &str| gateway.get(&format!("/api/quarantine{query}"), &[("Cookie", &session)]).await;
    let newest = list("").await.json();
    let newest = newest.as_array().unwrap();
    assert_eq!((newest.len(), &newest[0]["received_us"]), (100, &json!(149)));
    assert_eq!(
        (&newest[0]["payload"], &newest[0]["reason"]),
        (&json!(hex::encode("<b>149")), &json!("json"))
    );
    let older = list(&format!("?before={}", newest[99]["number"])).await.json();
    let older = older.as_array().unwrap();
    assert_eq!(
        (older.len(), &older[0]["received_us"], &older[49]["received_us"]),
        (50, &json!(49), &json!(0))
    );
    assert_eq!(list(&format!("?before={}", older[49]["number"])).await.json(), json!([]));
    for wrong in ["?before=x", "?before=-1", "?after=1"] {
        assert_eq!(list(wrong).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn alarms_are_shown_to_who_has_the_code() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get("/api/alarms", &[]).await.status, 401);
    let session = gateway.log_in().await;
    let shown = async || gateway.get("/api/alarms", &[("Cookie", &session)]).await.json();
    assert_eq!(shown().await, json!([]));
    let alarm = Alarm {
        number: 3,
        kind: Kind::Low,
        priority: Priority::Medium,
        state: State::Active,
        quantity: Some(3),
        device: None,
        value: Some(84.0),
        limit: Some(90.0),
        since_us: 5_000,
    };
    let score = Score::sum([Some(0), Some(3), None, None, Some(0), None, Some(0)]);
    let settings = Settings { paused_until_us: Some(9_000), ..Settings::default() };
    let standing = Standing { at_us: 7_000, alarms: vec![alarm], settings, score, handled: Vec::new() };
    let standings = BTreeMap::from([(Site::PATIENT, Arc::new(standing))]);
    gateway.views.send_replace(Arc::new(standings));
    let all = shown().await;
    assert_eq!((&all[0]["patient"], &all[0]["at_ms"]), (&json!(Site::PATIENT), &json!(7)));
    let alarm = json!({"number": 3, "text": "** SpO2 84 < 90", "priority": "medium", "kind": "low", "technical": false,
        "state": "active", "since_ms": 5});
    assert_eq!((&all[0]["alarms"], &all[0]["paused_until_ms"]), (&json!([alarm]), &json!(9)));
    let missing = ["air or oxygen", "systolic pressure", "consciousness"];
    assert_eq!(all[0]["score"], json!({"total": 3, "missing": missing}));
}
