//! The interface for operators and the page, with no switch at the other end.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;

use caregate_host::identity::{Identity, Role};
use caregate_host::key_file::{self, Existing};
use ledger_client::fixture::Site;
use serde_json::{Value, json};

use crate::support::{Controller, Pki, wait_for};

const QUARANTINE: &str = r#"{"kind":"quarantine","switch":"0000000000000001","mac":"02:00:00:00:00:01"}"#;

/// Each path of the description with names in it that there are not.
fn with_names(path: &str) -> String {
    path.replace("{dpid}", "00000000000000ff").replace("{name}", "nobody")
}

#[test]
fn the_description_is_that_of_the_routes_that_there_are() {
    let source = include_str!("../../src/rest.rs");
    let routes: BTreeSet<&str> =
        source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let described = controller.read("/openapi.json");
    assert_eq!(described["openapi"], "3.1.0");
    let paths = described["paths"].as_object().unwrap();
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>(), routes);
    for (path, methods) in paths {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let answer = controller.rest(method, &with_names(path), "");
            let is_described = methods.get(method.to_lowercase()).is_some();
            assert_eq!(answer.status != 405, is_described, "{method} {path}: {}", answer.status);
            let responses = &methods[method.to_lowercase()]["responses"];
            let status = answer.status.to_string();
            assert!(
                !is_described || responses.get(&status).is_some(),
                "{method} {path}: {status} is not described"
            );
        }
    }
    // Each reference leads somewhere.
    let text = described.to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(described["components"]["schemas"].get(name).is_some(), "{name}");
    }
    controller.stop();
}

#[test]
fn operators_alone_are_let_in() {
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    for role in [Role::Gateway, Role::Sensor, Role::Controller, Role::Feed, Role::Core] {
        let identity = Identity::load(&pki.issue(role, "somebody")).unwrap();
        let config = Arc::new(identity.client_config(Role::Controller, None, &[b"http/1.1"]));
        assert!(controller.rest_as(&config, "GET", "/v1/switches", "").is_none(), "{role}");
    }
    let stranger = Pki::new();
    let identity = Identity::load(&stranger.issue(Role::Operator, "alice")).unwrap();
    let config = Arc::new(identity.client_config(Role::Controller, None, &[b"http/1.1"]));
    assert!(controller.rest_as(&config, "GET", "/v1/switches", "").is_none(), "another deployment's");
    assert_eq!(controller.rest("GET", "/v1/switches", "").json(), json!({ "switches": [] }));
    controller.stop();
}

fn problem(controller: &Controller, method: &str, path: &str, body: &str, status: u16) -> Value {
    let answer = controller.rest(method, path, body);
    assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.body);
    assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
    let problem = answer.json();
    assert_eq!((problem["status"].as_u64(), &problem["type"]), (Some(status.into()), &"about:blank".into()));
    assert!(problem["title"].is_string());
    problem["detail"].clone()
}

#[test]
fn what_is_wrong_is_answered_counted_and_changes_nothing() {
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let problem = |method, path: &str, body: &str, status| problem(&controller, method, path, body, status);
    let rules = "/v1/switches/0000000000000001/flow-mods";
    for (method, path, body, status, says) in [
        ("GET", "/", "", 404, "no such resource"),
        ("GET", "/v1/switches/1/flows", "", 400, "16 hexadecimal digits"),
        ("GET", "/v1/switches/0000000000000001/flows", "", 404, "not connected"),
        ("GET", "/v1/switches/0000000000000001/ports", "", 404, "not connected"),
        ("GET", "/v1/intents/none", "", 404, "no intent"),
        ("DELETE", "/v1/intents/none", "", 404, "no intent"),
        ("DELETE", "/v1/intents", "", 405, "this method"),
        ("PUT", "/v1/intents/a", "", 400, "body: EOF"),
        ("PUT", "/v1/intents/a", r#"{"kind":"mirror"}"#, 400, "unknown variant `mirror`"),
        (
            "PUT",
            "/v1/intents/a",
            r#"{"kind":"quarantine","switch":"0000000000000001"}"#,
            400,
            "missing field `mac`",
        ),
        ("PUT", "/v1/intents/a%20b", QUARANTINE, 400, "name must be"),
        ("PUT", "/v1/intents/a", r#"{"kind":"lane","lane":"alarm","dscp":64}"#, 422, "`dscp` is 64"),
        ("PUT", "/v1/intents/a", &QUARANTINE.replace("02:00", "01:00"), 422, "no address of one station"),
        ("POST", rules, "{}", 404, "not connected"),
        ("POST", rules, r#"{"tabel":1}"#, 400, "unknown field `tabel`"),
        ("POST", rules, r#"{"match":{"udp_src":"x"}}"#, 400, "`udp_src`"),
        ("POST", rules, &format!("{{\"x\":\"{}\"}}", "a".repeat(16 << 10)), 413, "length limit"),
        ("GET", "/v1/events?after=x", "", 400, "after"),
        ("GET", "/v1/events?since=1", "", 400, "since"),
        ("GET", "/v1/gateways/home/bundle", "", 404, "not configured"),
        ("POST", "/v1/revocations", "{}", 404, "not configured"),
    ] {
        let detail = problem(method, path, body, status);
        assert!(detail.as_str().unwrap().contains(says), "{method} {path}: {detail}");
    }
    assert_eq!(controller.read("/v1/intents"), json!({ "version": 0, "intents": [] }));
    assert_eq!(controller.read("/v1/gateways"), json!({ "gateways": [], "ledger": null }));
    let counted = "caregate_controller_requests_total{route=\"/v1/intents/{name}\",status=\"422\"}";
    assert_eq!(controller.metric(counted), 2.0);
    controller.stop();
}

#[test]
fn an_intent_for_a_switch_that_is_away_is_taken_and_kept() {
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let answer = controller.rest("PUT", "/v1/intents/q-1", QUARANTINE);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let mut entry = answer.json();
    assert_eq!(entry["switches"], json!([{ "switch": "0000000000000001", "state": "absent" }]));
    entry["changed_ms"].take();
    assert_eq!(
        entry,
        json!({
            "name": "q-1", "version": 1, "changed_ms": null,
            "intent": serde_json::from_str::<Value>(QUARANTINE).unwrap(),
            "switches": [{ "switch": "0000000000000001", "state": "absent" }],
        })
    );
    // For all switches, of which there is none: nothing is missing.
    let lane = controller.rest("PUT", "/v1/intents/alarms", r#"{"kind":"lane","lane":"alarm","dscp":46}"#);
    assert_eq!((lane.status, &lane.json()["switches"]), (201, &json!([])));
    assert_eq!(controller.rest("DELETE", "/v1/intents/alarms", "").status, 200);
    controller.stop();

    let controller = Controller::start(&pki, "");
    let intents = controller.read("/v1/intents");
    assert_eq!((&intents["version"], &intents["intents"][0]["name"]), (&json!(3), &json!("q-1")));
    assert_eq!(controller.metric("caregate_controller_intents"), 1.0);
    let events = controller.read("/v1/events?after=0");
    assert_eq!(events, json!({ "events": [] }), "they are of this run");
    controller.stop();
}

#[test]
fn the_page_is_whole_and_lets_nothing_in() {
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let page = controller.page("/");
    assert_eq!(page.status, 200);
    let policy = page.head.lines().find(|line| line.starts_with("content-security-policy:")).unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    // All that it names is here, and nothing of it is elsewhere.
    let named: Vec<_> = page
        .body
        .split("=\"/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|name| format!("/{name}"))
        .collect();
    assert!(named.contains(&"/app.js".to_owned()) && named.contains(&"/style.css".to_owned()), "{named:?}");
    for name in named {
        let file = controller.page(&name);
        assert!(file.status == 200 && file.head.contains("x-content-type-options: nosniff"), "{name}");
    }
    assert!(!page.body.contains("http://") && !page.body.contains("https://"));
    assert!(
        !page.body.contains("<script>") && !page.body.contains("style=") && !page.body.contains("onclick")
    );
    let state = controller.page("/api/state").json();
    assert_eq!(
        (&state["switches"], &state["policy"], &state["quarantines"]),
        (&json!([]), &json!(null), &json!(0))
    );
    assert_eq!(controller.page("/api/switches/0000000000000001").status, 404);
    assert_eq!(controller.page("/v1/intents").status, 404, "the interface is elsewhere");
    controller.stop();
}

/// Policy delivery by a ledger at this port.
fn following(pki: &Pki, port: u16) -> String {
    let contract = Site::new(1).enrolment.ledger.contract;
    let salt = pki.folder().join("gateway.salt");
    key_file::write_hex(&salt, &[7; 32], Existing::Replace).unwrap();
    format!(
        "[policy]\nlisten = \"127.0.0.1:0\"\n\
         [ledger]\nrpc = \"http://127.0.0.1:{port}\"\nchain_id = 4711\ncontract = \"{contract}\"\ngateway_salt = {salt:?}\nrequest_timeout_ms = 300\n"
    )
}

fn revocation(site: &Site, version: u64) -> Value {
    let signed = site.signed_revocation(0, version);
    json!({
        "relationship": signed.revocation.relationship,
        "version": signed.revocation.version,
        "signature": signed.signature,
        "other_key": Site::grant_key(0).address(),
    })
}

#[test]
fn a_ledger_that_is_dead_or_says_nothing_stops_nothing() {
    let pki = Pki::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [silent.local_addr().unwrap().port(), dead.local_addr().unwrap().port()];
    drop(dead);
    for port in ports {
        let controller = Controller::start(&pki, &following(&pki, port));
        let down = wait_for("the ledger to be said to be down", || {
            Some(controller.read("/v1/gateways")["ledger"].clone()).filter(|ledger| ledger["state"] == "down")
        });
        assert!(down["detail"].as_str().is_some_and(|detail| detail.contains("ledger")), "{down}");
        let lane =
            controller.rest("PUT", "/v1/intents/alarms", r#"{"kind":"lane","lane":"alarm","dscp":46}"#);
        assert!(lane.status < 300, "{}", lane.body);
        let events = controller.read("/v1/events").to_string();
        assert!(events.contains("\"kind\":\"ledger\""), "{events}");
        controller.stop();
    }
}

#[test]
fn a_revocation_is_taken_with_a_good_signature_and_queued_while_the_ledger_is_away() {
    let pki = Pki::new();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = dead.local_addr().unwrap().port();
    drop(dead);
    let controller = Controller::start(&pki, &following(&pki, port));
    let site = Site::new(1);
    let taken = controller.rest("POST", "/v1/revocations", &revocation(&site, 3).to_string());
    assert_eq!((taken.status, taken.json()), (202, json!({ "gateways": 0, "ledger": "queued" })));
    let mut forged = revocation(&site, 3);
    forged["version"] = json!(4);
    let detail = problem(&controller, "POST", "/v1/revocations", &forged.to_string(), 422);
    assert!(detail.as_str().unwrap().contains("not signed by a key of its relationship"));
    for (key, value) in
        [("signature", json!("0x00")), ("relationship", json!("x")), ("patient", json!("Ann"))]
    {
        let mut wrong = revocation(&site, 3);
        wrong[key] = value;
        problem(&controller, "POST", "/v1/revocations", &wrong.to_string(), 400);
    }
    let tried = "caregate_controller_revocations_total{outcome=\"unreachable\"}";
    wait_for("it to be tried again and again", || (controller.metric(tried) >= 2.0).then_some(()));
    problem(&controller, "GET", "/v1/gateways/home/bundle", "", 404);
    controller.stop();
}
