//! The operators' commands against the real controller: with Open vSwitch as its switch, with none, and with the ledger behind it.
//!
//! The test with Open vSwitch needs root and the packages openvswitch-switch and iproute2; without them it fails and says so.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "what a test can't set up fails it")]
#![allow(dead_code, reason = "helpers of other tests, of which this uses its part")]

#[path = "../ledger/support.rs"]
mod called;
mod support;

use caregate_host::identity::Role;
use serde_json::Value;

use called::{Node, call};
use support::{Controller, Namespace, OpenVswitch, Pki, folder, wait_for};

const SWITCH: &str = "00000000000000a1";
const MAC: &str = "02:00:00:00:00:01";

fn rows<'v>(answer: &'v Value, list: &str) -> &'v Vec<Value> {
    answer[list].as_array().unwrap_or_else(|| panic!("no {list} in {answer}"))
}

#[test]
fn a_switch_is_looked_at_and_a_device_is_quarantined_and_released() {
    let _namespace = Namespace::new();
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let _bridge = OpenVswitch::start(&pki, SWITCH, controller.openflow_port);
    wait_for("the switch in the list", || {
        let switches = controller.call("switches", &[]).done();
        rows(&switches, "switches").iter().any(|switch| switch["datapath_id"] == SWITCH).then_some(())
    });
    let at = ["--switch", SWITCH, "--mac", MAC];
    let quarantined = controller.call("quarantine", &at).done();
    assert_eq!(quarantined["switches"][0]["state"], "confirmed");
    let name = quarantined["name"].as_str().unwrap().to_owned();
    let flows = controller.call("flows", &[SWITCH]).done();
    let dropping = rows(&flows, "flows").iter().find(|flow| flow["intent"] == name.as_str()).unwrap();
    assert_eq!((&dropping["match"]["eth_src"], &dropping["actions"]), (&MAC.into(), &serde_json::json!([])));
    let intents = controller.call("intents", &[]).done();
    assert_eq!(rows(&intents, "intents").len(), 1);
    assert_eq!(controller.call("intents show", &[&name]).done()["intent"]["mac"], MAC);

    controller.call("release", &at).done();
    let flows = controller.call("flows", &[SWITCH]).done();
    assert!(rows(&flows, "flows").iter().all(|flow| flow["intent"].is_null()));
    assert_eq!(controller.call("release", &at).refused(), "404", "a second time there is nothing to release");

    let file = pki.folder().join("rule.json");
    let rule = |text: &str| {
        std::fs::write(&file, text).unwrap();
        controller.call("flow-mod", &[SWITCH, file.to_str().unwrap()])
    };
    let good =
        r#"{"priority": 9, "match": {"eth_src": "02:00:00:00:00:07"}, "actions": [{"output": "NORMAL"}]}"#;
    assert_eq!(rule(good).done()["applied"], true);
    assert_eq!(rule(r#"{"table": 254, "match": {"eth_src": 5}}"#).refused(), "400");
    // A port that no switch has is the switch's own error.
    let refused = rule(r#"{"priority": 9, "match": {}, "actions": [{"output": 4294967040}]}"#).refused();
    assert!(refused.starts_with("OFPB"), "{refused}");
    assert!(!rows(&controller.call("ports", &[SWITCH]).done(), "ports").is_empty());
    assert!(!rows(&controller.call("tables", &[SWITCH]).done(), "tables").is_empty());
    let events = controller.call("events", &[]).done();
    let kinds: Vec<_> = rows(&events, "events").iter().map(|event| event["kind"].as_str().unwrap()).collect();
    for kind in ["switch-connected", "intent-set", "intent-removed", "rule-written", "rule-refused"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
}

#[test]
fn without_its_switch_an_intent_is_kept_and_says_so() {
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let pending =
        controller.call("quarantine", &["--switch", SWITCH, "--mac", MAC, "--name", "ward"]).failed();
    assert!(pending.contains(&format!("not confirmed by {SWITCH} (absent)")), "{pending}");
    assert_eq!(rows(&controller.call("intents", &[]).done(), "intents")[0]["name"], "ward");
    let lane = pki.folder().join("lane.json");
    std::fs::write(&lane, r#"{"kind": "lane", "lane": "alarm", "dscp": 64}"#).unwrap();
    assert_eq!(controller.call("intents put", &["alarm", lane.to_str().unwrap()]).refused(), "422");
    std::fs::write(&lane, r#"{"kind": "lane", "lane": "alarm", "dscp": 46}"#).unwrap();
    controller.call("intents put", &["alarm", lane.to_str().unwrap()]).done();
    controller.call("intents delete", &["alarm"]).done();
    assert_eq!(controller.call("flows", &[SWITCH]).refused(), "404");
    assert!(rows(&controller.call("gateways", &[]).done(), "gateways").is_empty());
    assert_eq!(controller.call("flows", &["a1"]).status, 2, "clap's own");
}

#[test]
fn operators_of_this_deployment_alone_are_let_in() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let controller = Controller::start(&pki, "");
    for identity in [folder(&pki, Role::Gateway, "gateway-1"), folder(&stranger, Role::Operator, "alice")] {
        controller.call_as(&identity, "switches", &[]).failed();
    }
    let nowhere = pki.folder().join("nobody").to_str().unwrap().to_owned();
    let missing = controller.call_as(&nowhere, "switches", &[]).failed();
    assert!(missing.contains("nobody"), "{missing}");
    controller.call("switches", &[]).done();
}

#[test]
fn a_signed_revocation_reaches_the_ledger_through_the_controller() {
    let node = Node::start();
    let hospital = node.hospital("hospital", &[]);
    let wallet = node.wallet("ann");
    wallet.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    wallet.call("grant", &["--label", "City"]).done();
    let file = node.path("revocation.json");
    wallet.call("sign-revocation", &["--label", "City", "--out", &file, "--format", "json"]).done();
    let pki = Pki::new();
    let salt = node.path("gateway.salt");
    call(&["participant", "gateway-salt", "--out", &salt]).done();
    let more = format!(
        "[policy]\nlisten = \"127.0.0.1:0\"\n[ledger]\nrpc = {:?}\nchain_id = 4711\ncontract = {:?}\ngateway_salt = {salt:?}\n",
        node.rpc, node.contract
    );
    let controller = Controller::start(&pki, &more);
    assert_eq!(controller.call("revocation", &[&file]).done()["ledger"], "queued");
    wait_for("the revocation on the ledger", || {
        let audit = node.ledger("audit events", &[]);
        audit.stdout.contains("\"Revoked\"").then_some(())
    });
    // Changed on the way, it is nobody's.
    let changed = std::fs::read_to_string(&file).unwrap().replace("\"version\":1", "\"version\":2");
    std::fs::write(&file, changed).unwrap();
    assert_eq!(controller.call("revocation", &[&file]).refused(), "422");
}
