//! Nothing is let through that policy and flows forbid, and nothing cut that they allow, whichever process is killed and whatever
//! version comes after it: each frame is sent after the one before it has arrived, so that one too many or one too few is seen.
//! Needs root; without it the test fails and says so.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use caregate_protocol::datapath::switch::{Change, FlowAction};
use caregate_protocol::datapath::{Device, Mode, Policy, Reply, Request};

use crate::support::frames::*;
use crate::support::{Client, Flow, Helper, Place, Wire, drop_source, flow, policy, run, until};

/// Sensor port 1, uplink 2, switch ports 3 and 4.
const PORTS: &str = "sensor_ports = ['port']\nuplinks = ['uplink']\nswitch_ports = ['sw1', 'sw2']";
/// A bound sensor that the controller has shut out.
const QUARANTINED: Mac = [2, 0, 0, 0, 0, 2];
/// A frame that has not arrived by then is lost.
const LOST: Duration = Duration::from_secs(2);
/// Rounds that are seen after each step.
const ROUNDS: u64 = 200;
/// Of IEEE 802's experiments: no stack answers it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

fn bound() -> Policy {
    let mut bound = policy();
    bound.devices.push(Device { index: 5, mac: QUARANTINED });
    bound
}

/// From switch port 3 to 4, and none back.
fn flows() -> Vec<Flow> {
    let across = flow(1, &[(0, 3)], &[FlowAction::Output { port: 4, max_len: 0xffff }]);
    vec![across, drop_source(2, QUARANTINED)]
}

fn put(client: &mut Client) {
    let put = flows().into_iter().map(Change::PutFlow);
    let changes = std::iter::once(Change::Clear).chain(put).collect();
    assert_eq!(client.call(Request::Change { changes, more: false }), Ok(Reply::Done));
}

/// What happens on the wires, until it is to stop.
struct Traffic {
    stop: AtomicBool,
    sensors: AtomicU64,
    switched: AtomicU64,
}

impl Traffic {
    /// A stranger, a quarantined sensor and a bound one speak in turn; only the last is heard.
    fn sensors(&self, mut sensor: Wire, mut port: Wire) {
        while !self.stop.load(Ordering::Relaxed) {
            for source in [STRANGER, QUARANTINED, SENSOR] {
                sensor.send(&publish(source));
            }
            let round = self.sensors.load(Ordering::Relaxed);
            let heard = port.next(|frame| frame[12..14] == [8, 0]);
            assert_eq!(heard, Some(publish(SENSOR)), "round {round}");
            self.sensors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One host speaks to another, which speaks as well and is not heard.
    fn switched(&self, mut one: Wire, mut other: Wire) {
        let is_test = |frame: &[u8]| frame[12..14] == ETHER_TYPE;
        while !self.stop.load(Ordering::Relaxed) {
            let round = self.switched.load(Ordering::Relaxed);
            let [there, back] = [1, 2].map(|from| {
                let head = [&[2, 8, 0, 0, 0, 9, 2, 8, 0, 0, 0, from][..], &ETHER_TYPE, &round.to_be_bytes()];
                let mut frame = head.concat();
                frame.resize(60, 0);
                frame
            });
            other.send(&back);
            one.send(&there);
            assert_eq!(other.next(is_test), Some(there), "round {round}");
            self.switched.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(one.next(is_test), None, "no flow leads back");
    }

    /// Waits until some more rounds are over.
    fn goes_on(&self, what: &str) {
        let [sensors, switched] = [&self.sensors, &self.switched];
        let before = [sensors, switched].map(|count| count.load(Ordering::Relaxed));
        until(what, || {
            let now = [sensors, switched].map(|count| count.load(Ordering::Relaxed));
            (now[0] >= before[0] + ROUNDS && now[1] >= before[1] + ROUNDS).then_some(())
        });
    }
}

/// Stops the traffic also where a step fails.
struct Stop<'a>(&'a Traffic);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// A daemon that has just connected says all that it has.
fn tell(client: &mut Client) {
    put(client);
    client.set_policy(bound());
}

/// Everybody dies, one after another, and comes back.
fn lives(place: &Place, traffic: &Traffic, mut helper: Helper) {
    for _ in 0..3 {
        let mut client = place.connect();
        traffic.goes_on("a daemon is there");
        tell(&mut client);
        traffic.goes_on("it has told all");
        // To the helper a daemon that is killed is a connection that ends.
        drop(client);
        traffic.goes_on("no daemon is there");
        helper.kill();
        traffic.goes_on("nobody is there");
        helper = Helper::start(&place.path("datapathd.toml"));
    }
    drop(place.connect());
    helper.kill();
}

/// Another version comes, whose maps are laid out in another way.
fn upgrade(place: &Place, traffic: &Traffic) {
    // What a version with another layout left behind: its maps lie elsewhere, its programs go on.
    let pins = place.path("bpf/caregate");
    let maps = fs::read_dir(&pins).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    fs::rename(maps.unwrap(), pins.join("maps-1")).unwrap();
    let _helper = Helper::start(&place.path("datapathd.toml"));
    let mut client = place.connect();
    traffic.goes_on("the new version waits");
    assert!(client.welcome.ports.iter().all(|port| port.mode == Mode::None), "{:?}", client.welcome);
    put(&mut client);
    traffic.goes_on("it knows the flows");
    assert_eq!((client.verdicts(1), client.verdicts(3)), (vec![], vec![]), "and judges nothing yet");
    client.set_policy(bound());
    traffic.goes_on("it has the policy");
    assert!(client.verdict(1, "admitted") >= ROUNDS && client.verdict(1, "rule") >= ROUNDS);
    assert!(client.verdict(3, "redirected") >= ROUNDS && client.verdict(4, "table_miss") >= ROUNDS);
    assert!(!pins.join("maps-1").exists());
}

#[test]
fn no_frame_too_many_and_none_too_few_whoever_is_killed_and_whatever_version_follows() {
    let place = Place::new();
    for (host, port) in [("h1", "sw1"), ("h2", "sw2")] {
        run("ip", &["link", "add", host, "type", "veth", "peer", "name", port]);
        run("ip", &["link", "set", host, "up"]);
        run("ip", &["link", "set", port, "up"]);
    }
    let [sensor, port, one, other] = ["sensor", "port", "h1", "h2"].map(|name| Wire::open_for(name, LOST));
    let helper = Helper::start(&place.configure(PORTS));
    let mut client = place.connect();
    tell(&mut client);
    // The kernel's own first frames, and that all programs are there.
    until("all ports have their programs", || {
        place.connect().welcome.ports.iter().all(|port| port.mode != Mode::None).then_some(())
    });
    drop(client);
    let traffic =
        Traffic { stop: AtomicBool::new(false), sensors: AtomicU64::new(0), switched: AtomicU64::new(0) };
    std::thread::scope(|scope| {
        let talking =
            [scope.spawn(|| traffic.sensors(sensor, port)), scope.spawn(|| traffic.switched(one, other))];
        {
            let _stop = Stop(&traffic);
            lives(&place, &traffic, helper);
            upgrade(&place, &traffic);
        }
        for thread in talking {
            thread.join().unwrap();
        }
    });
}
