//! The switch, running against a place where rules can be seen to arrive. The kernel itself has tests of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use caregate_host::identity::{Identity, Role};
use caregate_protocol::datapath::switch::{Change, FlowEntry, SwitchCounters};
use caregate_protocol::datapath::{self, Counters, Mode, PacketOut, Port, Welcome};
use edge_gateway::openflow::agent::{HelperRefused, Part, Settings};
use edge_gateway::openflow::helper::{Helper, HelperEvent};
use edge_gateway::openflow::metrics::Metrics;
use edge_gateway::openflow::ports::Guard;
use edge_gateway::openflow::store::FlowStore;
use edge_gateway::openflow::switch::Switch;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::pki::Pki;

/// What arrived, and how the next is answered.
#[derive(Debug, Default)]
struct State {
    flows: Option<BTreeMap<u64, FlowEntry>>,
    changed: u64,
    /// Of a batch that has not ended, and how many parts that is.
    prepared: (u32, Vec<Change>),
    sent: Vec<(u32, Vec<u8>)>,
    is_held: bool,
    refuses: bool,
}

/// Takes flows and frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place(Arc<(Mutex<State>, Condvar)>);

impl Place {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let result = look(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    /// The flows in force, by their id; none before the first.
    pub(crate) fn flows(&self) -> Option<Vec<FlowEntry>> {
        self.with(|state| state.flows.as_ref().map(|flows| flows.values().cloned().collect()))
    }

    /// How often they were changed.
    pub(crate) fn changed(&self) -> u64 {
        self.with(|state| state.changed)
    }

    /// Frames that were sent.
    pub(crate) fn sent(&self) -> Vec<(u32, Vec<u8>)> {
        self.with(|state| state.sent.clone())
    }

    /// Answers nothing until it is let go.
    pub(crate) fn hold(&self, is_held: bool) {
        self.with(|state| state.is_held = is_held);
    }

    /// Refuses, or not.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.with(|state| state.refuses = refuses);
    }

    fn answer<T>(&self, done: impl FnOnce(&mut State) -> T) -> Result<T, HelperRefused> {
        tokio::task::block_in_place(|| {
            let (state, changed) = &*self.0;
            let mut state = changed.wait_while(state.lock().unwrap(), |state| state.is_held).unwrap();
            if state.refuses { Err(HelperRefused) } else { Ok(done(&mut state)) }
        })
    }
}

impl Helper for Place {
    async fn prepare(&self, part: Part, changes: Vec<Change>) -> Result<(), HelperRefused> {
        self.answer(|state| {
            assert_eq!(part.before, state.prepared.0, "a part is missing");
            state.prepared.0 += 1;
            state.prepared.1.extend(changes);
        })
    }

    async fn change(&self, part: Part, changes: Vec<Change>) -> Result<(), HelperRefused> {
        self.answer(|state| {
            state.changed += 1;
            let (parts, prepared) = std::mem::take(&mut state.prepared);
            assert_eq!(part.before, parts, "a part is missing");
            let flows = state.flows.get_or_insert_default();
            for change in prepared.into_iter().chain(changes) {
                match change {
                    Change::Clear => flows.clear(),
                    Change::PutFlow(flow) => drop(flows.insert(flow.id, flow)),
                    Change::RemoveFlow(id) => drop(flows.remove(&id)),
                    Change::PutGroup(_)
                    | Change::RemoveGroup(_)
                    | Change::PutMeter(_)
                    | Change::RemoveMeter(_) => {}
                }
            }
        })
    }

    async fn switch_counters(&self) -> Result<SwitchCounters, HelperRefused> {
        self.answer(|_| SwitchCounters::default())
    }

    async fn packet_outs(&self, packets: Vec<PacketOut>) -> Result<Vec<bool>, HelperRefused> {
        self.answer(|state| {
            let sent = vec![true; packets.len()];
            state.sent.extend(packets.into_iter().map(|packet| (packet.port, packet.frame)));
            sent
        })
    }

    async fn counters(&self) -> Result<Counters, HelperRefused> {
        self.answer(|_| Counters::default())
    }
}

/// Two sensor ports and an uplink.
pub(crate) fn welcome() -> Welcome {
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
        port(2, "sensor1", datapath::Role::Sensor, Mode::Native),
        port(3, "up0", datapath::Role::Uplink, Mode::Egress),
    ];
    Welcome { version: datapath::VERSION, queues: 8, ports }
}

/// A switch in a runtime of its own.
pub(crate) struct Running {
    pub(crate) place: Place,
    pub(crate) events: mpsc::Sender<HelperEvent>,
    registry: Registry,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Running {
    /// Starts with the flows of `data`, towards a controller that must be called `controller-1`.
    pub(crate) fn start(pki: &Pki, data: &Path, controller: SocketAddr) -> Self {
        Self::with_identity(pki.identity(Role::Gateway, "gateway-1"), data, controller)
    }

    fn with_identity(identity: Arc<Identity>, data: &Path, controller: SocketAddr) -> Self {
        let place = Place::default();
        let registry = Registry::new();
        let (events, events_in) = mpsc::channel(16);
        events.try_send(HelperEvent::Up(welcome())).unwrap();
        let (store, kept) = FlowStore::open(data).unwrap();
        let switch = Switch {
            controller,
            controller_name: Some("controller-1".to_owned()),
            settings: Settings {
                datapath_id: 0xc0ffee,
                name: "gateway-1".to_owned(),
                version: "test",
                guard: Guard::On,
            },
            identity,
            store,
            kept,
            helper: place.clone(),
            events: events_in,
            metrics: Metrics::register(&registry).unwrap(),
            quarantined: tokio::sync::watch::Sender::default(),
        };
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(switch.run(token))
        });
        Self { place, events, registry, stop, thread: Some(thread) }
    }

    /// A counter's value; 0 where nothing was counted.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Stops it.
    pub(crate) fn stop(mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.place.hold(false);
    }
}
