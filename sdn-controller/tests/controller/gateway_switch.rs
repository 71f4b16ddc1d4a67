//! A gateway's own switch under the controller. Where the kernel would be is a place that keeps the rules it is given.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use caregate_host::identity::{Identity, Role};
use caregate_protocol::datapath::{self, Counters, Mode, Output, Port, Rule, Welcome};
use edge_gateway::openflow::agent::{HelperRefused, Settings};
use edge_gateway::openflow::helper::{Helper, HelperEvent};
use edge_gateway::openflow::metrics::Metrics;
use edge_gateway::openflow::store::FlowStore;
use edge_gateway::openflow::switch::Switch;
use prometheus::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::support::{Controller, Pki, wait_for};

const DATAPATH_ID: &str = "0000000000c0ffee";
const SENSOR: &str = "02:00:00:00:00:01";

#[derive(Debug, Clone, Default)]
struct Place(Arc<Mutex<Vec<Rule>>>);

impl Place {
    fn rules(&self) -> Vec<Rule> {
        self.0.lock().unwrap().clone()
    }
}

impl Helper for Place {
    async fn set_rules(&self, rules: Vec<Rule>) -> Result<(), HelperRefused> {
        *self.0.lock().unwrap() = rules;
        Ok(())
    }

    async fn packet_out(&self, _port: u32, _frame: Vec<u8>) -> Result<(), HelperRefused> {
        Err(HelperRefused)
    }

    async fn counters(&self) -> Result<Counters, HelperRefused> {
        Ok(Counters::default())
    }
}

/// A sensor port and an uplink with eight queues.
fn welcome() -> Welcome {
    let port = |number, name: &str, role, mode| Port {
        number,
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 9, 9],
        role,
        mode,
        up: true,
    };
    let ports = vec![
        port(1, "sensor0", datapath::Role::Sensor, Mode::Native),
        port(2, "up0", datapath::Role::Uplink, Mode::Egress),
    ];
    Welcome { version: datapath::VERSION, queues: 8, ports }
}

/// The gateway's switch in a runtime of its own.
struct Gateway {
    place: Place,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
    _data: TempDir,
    _events: mpsc::Sender<HelperEvent>,
}

impl Gateway {
    fn start(pki: &Pki, controller: &Controller) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (store, flows) = FlowStore::open(data.path()).unwrap();
        let (place, stop) = (Place::default(), CancellationToken::new());
        let (events, events_in) = mpsc::channel(4);
        events.try_send(HelperEvent::Up(welcome())).unwrap();
        let switch = Switch {
            controller: SocketAddr::from(([127, 0, 0, 1], controller.openflow_port)),
            controller_name: Some("controller-1".to_owned()),
            settings: Settings { datapath_id: 0xc0ffee, name: "gateway-1".to_owned(), version: "test" },
            identity: Identity::load(&pki.issue(Role::Gateway, "gateway-1")).unwrap(),
            store,
            flows,
            helper: place.clone(),
            events: events_in,
            metrics: Metrics::register(&Registry::new()).unwrap(),
            quarantined: watch::Sender::default(),
        };
        let token = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async { switch.install().await?.run(token).await })
        });
        wait_for("the gateway in the list", || controller.switches().pop());
        Self { place, stop, thread: Some(thread), _data: data, _events: events }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok_and(|ended| ended.is_ok()));
    }
}

fn put(controller: &Controller, name: &str, intent: &Value) -> Value {
    let answer = controller.rest("PUT", &format!("/v1/intents/{name}"), &intent.to_string());
    assert!(answer.status == 201 || answer.status == 202, "{}", answer.body);
    answer.json()["switches"][0].clone()
}

fn quarantine(mac: &str) -> Value {
    json!({ "kind": "quarantine", "switch": DATAPATH_ID, "mac": mac })
}

#[test]
fn intents_are_in_the_gateways_table_one() {
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let gateway = Gateway::start(&pki, &controller);
    assert_eq!(controller.switches()[0]["table"], 1);
    let confirmed = json!({ "switch": DATAPATH_ID, "state": "confirmed" });
    assert_eq!(put(&controller, "q", &quarantine(SENSOR)), confirmed);
    let permit =
        json!({ "kind": "sensor-may-reach-gateway", "switch": DATAPATH_ID, "mac": "02:00:00:00:00:02" });
    assert_eq!(put(&controller, "p", &permit), confirmed);
    for (name, lane) in [
        ("a", json!({ "kind": "lane", "lane": "alarm", "dscp": 46, "queue": 1 })),
        ("b", json!({ "kind": "lane", "lane": "backlog", "dscp": 8 })),
    ] {
        assert_eq!(put(&controller, name, &lane), confirmed);
    }
    let rules = gateway.place.rules();
    assert_eq!(rules.len(), 6);
    assert_eq!((rules[0].treatment.output, rules[1].treatment.output), (Output::Drop, Output::Local));
    let marks: Vec<_> = rules[2..].iter().map(|rule| (rule.treatment.dscp, rule.treatment.queue)).collect();
    assert!(marks.contains(&(Some(46), Some(1))) && marks.contains(&(Some(8), None)), "{marks:?}");

    let flows = controller.flows(DATAPATH_ID);
    assert_eq!((&flows[0]["intent"], &flows[0]["priority"]), (&json!("q"), &json!(65535)));
    let ports = controller.read(&format!("/v1/switches/{DATAPATH_ID}/ports"));
    let names: Vec<_> = ports["ports"].as_array().unwrap().iter().map(|port| port["name"].clone()).collect();
    assert!(names.contains(&json!("sensor0")) && names.contains(&json!("up0")), "{ports}");

    for name in ["q", "p", "a", "b"] {
        assert_eq!(controller.rest("DELETE", &format!("/v1/intents/{name}"), "").status, 200);
    }
    assert_eq!(gateway.place.rules(), []);
    controller.stop();
}

#[test]
fn what_a_gateway_refuses_comes_back_in_its_own_words() {
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    let gateway = Gateway::start(&pki, &controller);
    let path = format!("/v1/switches/{DATAPATH_ID}/flow-mods");
    for (rule, type_name, code_name) in [
        (
            json!({ "table": 0, "priority": 9, "match": { "in_port": 1 }, "actions": [{ "output": "LOCAL" }] }),
            "OFPET_BAD_REQUEST",
            "OFPBRC_EPERM",
        ),
        (
            json!({ "table": 1, "priority": 9, "match": { "in_port": 1 }, "actions": [{ "output": "LOCAL" }, { "output": 2 }] }),
            "OFPET_BAD_ACTION",
            "OFPBAC_EPERM",
        ),
        (
            json!({ "table": 1, "priority": 9, "match": { "in_port": 1 }, "actions": [{ "output": "CONTROLLER" }] }),
            "OFPET_BAD_ACTION",
            "OFPBAC_EPERM",
        ),
    ] {
        let answer = controller.rest("POST", &path, &rule.to_string());
        assert_eq!(answer.status, 409, "{rule}: {}", answer.body);
        let error = &answer.json()["error"];
        assert_eq!((&error["type_name"], &error["code_name"]), (&json!(type_name), &json!(code_name)));
    }
    assert_eq!(gateway.place.rules(), []);

    // The table is full: what fits counts, and the rest is named.
    let mut states = Vec::new();
    for number in 0..66 {
        states.push(put(
            &controller,
            &format!("q-{number}"),
            &quarantine(&format!("02:00:00:00:01:{number:02x}")),
        ));
    }
    assert_eq!(gateway.place.rules().len(), 64);
    assert!(states[..64].iter().all(|state| state["state"] == "confirmed"));
    for state in &states[64..] {
        assert_eq!(
            (&state["state"], &state["error"]["code_name"]),
            (&json!("refused"), &json!("OFPFMFC_TABLE_FULL"))
        );
    }
    // Room is made, and what was refused comes in.
    for number in 0..2 {
        controller.rest("DELETE", &format!("/v1/intents/q-{number}"), "");
    }
    wait_for("the refused ones to be in force", || {
        let switch = controller.switches().pop()?;
        (switch["reconcile"]["refused"] == json!([]) && switch["reconcile"]["state"] == "in-sync")
            .then_some(())
    });
    assert_eq!(gateway.place.rules().len(), 64);
    controller.stop();
}
