//! A gateway's own switch under the controller. Where the kernel would be is a place that keeps the flows it is given.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use caregate_host::identity::{Identity, Role};
use caregate_protocol::datapath::switch::{Change, FLOWS_MAX, FlowAction, FlowEntry, SwitchCounters};
use caregate_protocol::datapath::{self, Counters, Mode, PORT_LOCAL, PacketOut, Port, Welcome};
use caregate_protocol::openflow::{Command, FlowMod, Match, MatchField};
use edge_gateway::openflow::agent::{HelperRefused, Part, Settings};
use edge_gateway::openflow::helper::{Helper, HelperEvent};
use edge_gateway::openflow::metrics::Metrics;
use edge_gateway::openflow::ports::Guard;
use edge_gateway::openflow::store::{FlowStore, Kept};
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
struct Place(Arc<Mutex<BTreeMap<u64, FlowEntry>>>);

impl Place {
    /// The highest priority first.
    fn flows(&self) -> Vec<FlowEntry> {
        let mut flows: Vec<_> = self.0.lock().unwrap().values().cloned().collect();
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.priority));
        flows
    }
}

impl Helper for Place {
    /// The controller's intents here are few; none fills a part.
    async fn prepare(&self, _part: Part, _changes: Vec<Change>) -> Result<(), HelperRefused> {
        Err(HelperRefused)
    }

    async fn change(&self, _part: Part, changes: Vec<Change>) -> Result<(), HelperRefused> {
        let mut flows = self.0.lock().unwrap();
        for change in changes {
            match change {
                Change::Clear => flows.clear(),
                Change::PutFlow(flow) => drop(flows.insert(flow.id, flow)),
                Change::RemoveFlow(id) => drop(flows.remove(&id)),
                Change::PutGroup(_)
                | Change::RemoveGroup(_)
                | Change::PutMeter(_)
                | Change::RemoveMeter(_) => return Err(HelperRefused),
            }
        }
        Ok(())
    }

    async fn switch_counters(&self) -> Result<SwitchCounters, HelperRefused> {
        Ok(SwitchCounters::default())
    }

    async fn packet_outs(&self, _packets: Vec<PacketOut>) -> Result<Vec<bool>, HelperRefused> {
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
        Self::start_with(pki, controller, Kept::default())
    }

    /// With flows of before.
    fn start_with(pki: &Pki, controller: &Controller, kept: Kept) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (store, _none) = FlowStore::open(data.path()).unwrap();
        let (place, stop) = (Place::default(), CancellationToken::new());
        let (events, events_in) = mpsc::channel(4);
        events.try_send(HelperEvent::Up(welcome())).unwrap();
        let switch = Switch {
            controller: SocketAddr::from(([127, 0, 0, 1], controller.openflow_port)),
            controller_name: Some("controller-1".to_owned()),
            settings: Settings {
                datapath_id: 0xc0ffee,
                name: "gateway-1".to_owned(),
                version: "test",
                guard: Guard::On,
            },
            identity: Identity::load(&pki.issue(Role::Gateway, "gateway-1")).unwrap(),
            store,
            kept,
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
    let flows = gateway.place.flows();
    assert_eq!(flows.len(), 6);
    let local = [FlowAction::Output { port: PORT_LOCAL, max_len: 0 }];
    assert_eq!(
        (flows[0].instructions.apply.as_slice(), flows[1].instructions.apply.as_slice()),
        ([].as_slice(), local.as_slice())
    );
    let dscp = |value| FlowAction::SetField { field: MatchField::IpDscp.number(), value };
    let has = |wanted: &[FlowAction]| {
        flows[2..].iter().any(|flow| wanted.iter().all(|action| flow.instructions.apply.contains(action)))
    };
    assert!(has(&[dscp(46), FlowAction::SetQueue(1)]) && has(&[dscp(8)]), "{flows:?}");

    let flows = controller.flows(DATAPATH_ID);
    assert_eq!((&flows[0]["intent"], &flows[0]["priority"]), (&json!("q"), &json!(65535)));
    let ports = controller.read(&format!("/v1/switches/{DATAPATH_ID}/ports"));
    let names: Vec<_> = ports["ports"].as_array().unwrap().iter().map(|port| port["name"].clone()).collect();
    assert!(names.contains(&json!("sensor0")) && names.contains(&json!("up0")), "{ports}");

    for name in ["q", "p", "a", "b"] {
        assert_eq!(controller.rest("DELETE", &format!("/v1/intents/{name}"), "").status, 200);
    }
    assert_eq!(gateway.place.flows(), []);
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
    assert_eq!(gateway.place.flows(), []);
    controller.stop();
}

#[test]
fn what_fits_counts_and_the_rest_is_named() {
    let pki = Pki::new();
    let controller = Controller::start(&pki, "");
    // Somebody else's, which the controller leaves alone; there is room for two more.
    let other = |number: usize| FlowMod {
        pattern: Match::any().with(MatchField::EthSrc, 0x0200_0001_0000 + number as u128).unwrap(),
        ..FlowMod::new(Command::Add, 1, 7)
    };
    let kept = Kept { flows: (0..FLOWS_MAX - 2).map(other).collect(), ..Kept::default() };
    let gateway = Gateway::start_with(&pki, &controller, kept);
    let mut states = Vec::new();
    for number in 0..4 {
        states.push(put(
            &controller,
            &format!("q-{number}"),
            &quarantine(&format!("02:00:00:00:01:{number:02x}")),
        ));
    }
    assert_eq!(gateway.place.flows().len(), FLOWS_MAX);
    assert!(states[..2].iter().all(|state| state["state"] == "confirmed"), "{states:?}");
    for state in &states[2..] {
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
    assert_eq!(gateway.place.flows().len(), FLOWS_MAX);
    controller.stop();
}
