//! The controller's own binary under Debian's Open vSwitch, over mutual TLS, in a network namespace of the test's own.
//!
//! Needs root and the packages openvswitch-switch and iproute2; without them it fails and says so.

#![expect(clippy::unwrap_used, reason = "what a test can't set up fails it")]

mod support;

use caregate_host::identity::Role;
use caregate_protocol::openflow::{BadRequest, ErrorKind, Framer, Hello, Message};
use support::{Controller, Namespace, OpenVswitch, Pki, wait_for};

const DATAPATH_ID: &str = "0000c0ffee000001";

#[test]
fn a_bridge_is_listed_while_it_lives_and_lost_when_it_does_not_answer() {
    let _namespace = Namespace::new("sessions");
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let mut bridge = OpenVswitch::start(&pki, DATAPATH_ID, controller.openflow_port);

    let switch = wait_for("the bridge in /switches", || controller.switches().pop());
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
    wait_for("the bridge in /switches", || controller.switches().pop());
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
