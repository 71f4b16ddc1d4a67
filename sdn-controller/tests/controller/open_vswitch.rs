//! Under Debian's Open vSwitch, over mutual TLS, each test in a network namespace of its own.

use crate::support::{Controller, Namespace, OpenVswitch, Pki, wait_for};
use caregate_host::identity::Role;
use caregate_protocol::openflow::{BadRequest, ErrorKind, Framer, Hello, Message};

const DATAPATH_ID: &str = "0000c0ffee000001";

#[test]
fn a_bridge_is_listed_while_it_lives_and_lost_when_it_does_not_answer() {
    let _namespace = Namespace::new("sessions");
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let mut bridge = OpenVswitch::start(&pki, DATAPATH_ID, controller.openflow_port);

    let switch = wait_for("the bridge in the list", || controller.switches().pop());
    assert_eq!(switch["datapath_id"], DATAPATH_ID);
    assert_eq!(switch["peer"], "ward-switch");
    assert_eq!(switch["n_tables"], 254);
    assert_eq!(switch["fragments"], "normal");
    let capabilities: Vec<_> =
        switch["capabilities"].as_array().unwrap().iter().flat_map(|name| name.as_str()).collect();
    assert!(capabilities.contains(&"flow-stats") && capabilities.contains(&"port-stats"), "{capabilities:?}");
    assert!(switch["since_ms"].as_u64().unwrap() > 0);
    wait_for("an echo answered by the bridge", || controller.switches().pop()?["last_echo_rtt_us"].as_u64());
    wait_for("the bridge to say that it is connected", || bridge.is_connected().then_some(()));

    // It stays connected but says nothing: the echo tells.
    bridge.signal("STOP");
    wait_for("the silent bridge to be off the list", || controller.switches().is_empty().then_some(()));
    assert!(
        controller.metric("caregate_controller_connections_closed_total{reason=\"echo-timeout\"}") >= 1.0
    );
    bridge.signal("CONT");
    wait_for("the bridge to come back", || controller.switches().pop());

    bridge.kill();
    wait_for("the killed bridge to be off the list", || controller.switches().is_empty().then_some(()));
    assert_eq!(controller.metric("caregate_controller_switches"), 0.0);
    controller.stop();
}

#[test]
fn hostile_peers_are_refused_while_the_bridge_goes_on() {
    let _namespace = Namespace::new("hostile");
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let mut bridge = OpenVswitch::start(&pki, DATAPATH_ID, controller.openflow_port);
    wait_for("the bridge in the list", || controller.switches().pop());
    let since = controller.switches()[0]["since_ms"].clone();

    // No certificate of the right role, and no TLS at all.
    let refused = "caregate_controller_connections_refused_total{reason=\"tls\"}";
    assert!(pki.connect(Role::Sensor, "monitor-1", controller.openflow_port).hello().is_none());
    wait_for("the wrong role to be counted", || (controller.metric(refused) >= 1.0).then_some(()));
    controller.send_in_the_clear(&Message::Hello(Hello::ours()).encode(1).unwrap());
    wait_for("plain OpenFlow to be counted", || (controller.metric(refused) >= 2.0).then_some(()));

    // The right role, and nonsense after a proper hello.
    let mut stranger = pki.connect(Role::Gateway, "stranger", controller.openflow_port);
    assert_eq!(stranger.hello(), Some(Message::Hello(Hello::ours())));
    stranger.send(&Message::Hello(Hello::ours()).encode(1).unwrap());
    stranger.send(&[4, 200, 0, 8, 0, 0, 0, 9, 4, 2, 0, 3, 0, 0, 0, 10]);
    let mut framer = Framer::new();
    let rest = stranger.read_to_end();
    assert_eq!(framer.accept(&rest), rest.len());
    let mut answers = Vec::new();
    while let Some(frame) = framer.next_frame().unwrap() {
        answers.push(Message::decode(frame).unwrap());
    }
    let errors: Vec<_> = answers
        .into_iter()
        .filter_map(
            |(xid, message)| if let Message::Error(error) = message { Some((xid, error.kind)) } else { None },
        )
        .collect();
    assert_eq!(
        errors,
        [(9, ErrorKind::BadRequest(BadRequest::BadType)), (10, ErrorKind::BadRequest(BadRequest::BadLen))]
    );
    assert!(controller.metric("caregate_controller_messages_refused_total{reason=\"unsupported\"}") >= 1.0);

    let switches = controller.switches();
    assert_eq!(
        (switches.len(), &switches[0]["since_ms"]),
        (1, &since),
        "the bridge's session is the one of before"
    );
    wait_for("the bridge to say that it is connected", || bridge.is_connected().then_some(()));
    controller.stop();
}

#[test]
fn a_datapath_id_that_is_configured_for_another_name_is_refused() {
    let _namespace = Namespace::new("bound");
    let pki = Pki::new();
    let entry = format!("[[switch]]\nname = \"gateway-1\"\ndatapath_id = \"{DATAPATH_ID}\"\n");
    let controller = Controller::start(&pki, &entry);
    let _bridge = OpenVswitch::start(&pki, DATAPATH_ID, controller.openflow_port);
    let closed = "caregate_controller_connections_closed_total{reason=\"not-configured\"}";
    wait_for("the refusal to be counted", || (controller.metric(closed) >= 1.0).then_some(()));
    assert_eq!(controller.switches().len(), 0);
    controller.stop();
}

#[test]
fn a_wrong_configuration_is_one_sentence() {
    let said = Controller::refused("listen = \"127.0.0.1:6653\"\nadmn = \"127.0.0.1:9104\"\n");
    assert!(said.contains("controller.toml:2") && said.contains("admn"), "{said}");
}

const SENSOR: &str = "02:00:00:00:00:01";

fn quarantine(mac: &str) -> String {
    format!(r#"{{"kind":"quarantine","switch":"{DATAPATH_ID}","mac":"{mac}"}}"#)
}

/// A controller whose intents are for the bridge's table 0, and the bridge, connected.
fn connected(pki: &Pki, controller: &Controller) -> OpenVswitch {
    let bridge = OpenVswitch::start(pki, DATAPATH_ID, controller.openflow_port);
    wait_for("the bridge in the list", || controller.switches().pop());
    bridge
}

/// The bridge's flows that have this word, as `ovs-ofctl` writes them.
fn flows_with(bridge: &OpenVswitch, word: &str) -> Vec<String> {
    let flows = bridge.ofctl("dump-flows", &["--no-stats"]);
    flows.lines().filter(|line| line.contains(word)).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn intents_are_installed_read_back_and_removed_beside_flows_of_others() {
    let _namespace = Namespace::new("intents");
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let bridge = connected(&pki, &controller);
    bridge.ofctl("add-flow", &["cookie=0x7,priority=5,eth_src=02:00:00:00:00:99,actions=NORMAL"]);

    let answer = controller.rest("PUT", "/v1/intents/q-1", &quarantine(SENSOR));
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.json()["switches"][0]["state"], "confirmed");
    let lane = r#"{"kind":"lane","lane":"alarm","dscp":46,"queue":1}"#;
    assert_eq!(controller.rest("PUT", "/v1/intents/alarms", lane).status, 201);

    // The bridge itself says so.
    let dropping = flows_with(&bridge, "dl_src=02:00:00:00:00:01");
    assert!(dropping.len() == 1 && dropping[0].contains("priority=65535"), "{dropping:?}");
    assert!(dropping[0].ends_with("actions=drop"), "{dropping:?}");
    let marking = flows_with(&bridge, "tp_src=7400");
    assert_eq!(marking.len(), 2, "IPv4 and IPv6: {marking:?}");
    let is_marked = |flow: &String| {
        flow.contains("set_queue:1")
            && flow.contains("NORMAL")
            && (flow.contains("ip_dscp") || flow.contains("nw_tos"))
    };
    assert!(marking.iter().all(is_marked), "{marking:?}");

    let flows = controller.flows(DATAPATH_ID);
    assert_eq!(flows.len(), 4);
    let shown = controller.page(&format!("/api/switches/{DATAPATH_ID}")).json();
    assert_eq!(shown["flows"].as_array().unwrap().len(), 4);
    assert_eq!((&flows[0]["intent"], &flows[0]["actions"]), (&"q-1".into(), &serde_json::json!([])));
    assert_eq!(flows.iter().filter(|flow| flow["own"] == false && flow["cookie"] == "0x7").count(), 1);

    // Changed in place, then gone; the flow of others is still there.
    let changed = controller.rest("PUT", "/v1/intents/q-1", &quarantine("02:00:00:00:00:02"));
    assert_eq!((changed.status, changed.json()["version"].as_u64()), (200, Some(3)));
    assert_eq!(flows_with(&bridge, "02:00:00:00:00:01").len(), 0);
    for name in ["q-1", "alarms"] {
        let removed = controller.rest("DELETE", &format!("/v1/intents/{name}"), "");
        assert_eq!((removed.status, &removed.json()["switches"][0]["state"]), (200, &"confirmed".into()));
    }
    let left = flows_with(&bridge, "cookie=");
    assert!(left.len() == 1 && left[0].contains("cookie=0x7"), "{left:?}");
    let switch = controller.switches().pop().unwrap();
    assert_eq!(
        (&switch["reconcile"]["state"], &switch["reconcile"]["wanted"]),
        (&"in-sync".into(), &0.into())
    );
    controller.stop();
}

#[test]
fn a_drift_is_repaired_and_told() {
    let _namespace = Namespace::new("drift");
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let bridge = connected(&pki, &controller);
    assert_eq!(controller.rest("PUT", "/v1/intents/q-1", &quarantine(SENSOR)).status, 201);

    bridge.ofctl("del-flows", &[]);
    wait_for("the flow to come back", || (flows_with(&bridge, "02:00:00:00:00:01").len() == 1).then_some(()));
    let drift = "caregate_controller_reconciles_total{outcome=\"drift\"}";
    wait_for("the drift to be counted", || (controller.metric(drift) >= 1.0).then_some(()));

    // Changed instead of taken away, and one too many under our mark.
    bridge.ofctl("mod-flows", &["eth_src=02:00:00:00:00:01,actions=NORMAL"]);
    bridge.ofctl(
        "add-flow",
        &["cookie=0x4341524500000001,priority=3,eth_src=02:00:00:00:00:77,actions=NORMAL"],
    );
    wait_for("what was changed to be as it should", || {
        let is_whole =
            flows_with(&bridge, "02:00:00:00:00:01").iter().any(|flow| flow.ends_with("actions=drop"));
        (is_whole && flows_with(&bridge, "02:00:00:00:00:77").is_empty()).then_some(())
    });
    let events = controller.read("/v1/events");
    let kinds: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
    assert!(kinds.contains(&"drift".into()) && kinds.contains(&"intent-set".into()), "{kinds:?}");
    controller.stop();
}

#[test]
fn what_is_wanted_outlives_the_controller_and_the_switch() {
    let _namespace = Namespace::new("restart");
    let pki = Pki::new();
    // The namespace is ours: a fixed port is free.
    let address = "127.0.0.1:6653";
    let controller = Controller::start_at(&pki, address, "");
    let mut bridge = connected(&pki, &controller);
    assert_eq!(controller.rest("PUT", "/v1/intents/q-1", &quarantine(SENSOR)).status, 201);
    assert_eq!(controller.rest("PUT", "/v1/intents/q-2", &quarantine("02:00:00:00:00:02")).status, 201);

    // A killed controller: the flows stay; what changes meanwhile is found by the next one.
    controller.kill();
    assert_eq!(flows_with(&bridge, "actions=drop").len(), 2);
    bridge.ofctl("del-flows", &["eth_src=02:00:00:00:00:02"]);
    let controller = Controller::start_at(&pki, address, "");
    wait_for("the flow to come back", || (flows_with(&bridge, "actions=drop").len() == 2).then_some(()));
    assert_eq!(controller.read("/v1/intents/q-1")["version"], 1);

    // A killed switch loses its flows and gets them again. What is wanted meanwhile is taken, and named as missing.
    bridge.kill();
    wait_for("the killed bridge to be off the list", || controller.switches().is_empty().then_some(()));
    let answer = controller.rest("PUT", "/v1/intents/q-3", &quarantine("02:00:00:00:00:03"));
    assert_eq!((answer.status, &answer.json()["switches"][0]["state"]), (202, &"absent".into()));
    bridge.restart();
    wait_for("the bridge to have all flows", || {
        controller.switches().pop().filter(|switch| switch["reconcile"]["state"] == "in-sync")
    });
    assert_eq!(flows_with(&bridge, "actions=drop").len(), 3);
    assert_eq!(controller.read("/v1/intents/q-3")["switches"][0]["state"], "confirmed");
    controller.stop();
}

#[test]
fn an_experts_rule_goes_as_it_is_and_a_refusal_has_the_switchs_own_words() {
    let _namespace = Namespace::new("expert");
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let bridge = connected(&pki, &controller);
    let path = format!("/v1/switches/{DATAPATH_ID}/flow-mods");
    let rule = r#"{"table":0,"priority":9,"cookie":"0x2a","match":{"eth_src":"02:00:00:00:00:05"},
                   "actions":[{"output":"LOCAL"}],"idle_timeout_s":300}"#;
    let written = controller.rest("POST", &path, rule);
    assert_eq!(written.status, 200, "{}", written.body);
    let held = flows_with(&bridge, "02:00:00:00:00:05");
    assert!(held.len() == 1 && held[0].contains("idle_timeout=300") && held[0].contains("0x2a"), "{held:?}");

    let without_ip = r#"{"match":{"udp_src":7400},"actions":[{"output":"NORMAL"}]}"#;
    let refused = controller.rest("POST", &path, without_ip);
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.head.contains("application/problem+json"), "{}", refused.head);
    assert_eq!(
        refused.json()["error"],
        serde_json::json!({
            "type": 4, "code": 9, "type_name": "OFPET_BAD_MATCH", "code_name": "OFPBMC_BAD_PREREQ",
        })
    );
    let deleted = controller.rest("POST", &path, r#"{"command":"delete","cookie":42,"cookie_mask":"0xff"}"#);
    assert_eq!((deleted.status, flows_with(&bridge, "02:00:00:00:00:05").len()), (200, 0));

    let ports = controller.read(&format!("/v1/switches/{DATAPATH_ID}/ports"));
    let local = &ports["ports"][0];
    assert_eq!((&local["port"], &local["name"]), (&"LOCAL".into(), &"br0".into()));
    assert!(local["rx_packets"].is_u64(), "{ports}");
    controller.rest("PUT", "/v1/intents/q-1", &quarantine(SENSOR));
    let tables = controller.read(&format!("/v1/switches/{DATAPATH_ID}/tables"));
    assert_eq!((&tables["tables"][0]["table"], &tables["tables"][0]["active"]), (&0.into(), &1.into()));
    controller.stop();
}
