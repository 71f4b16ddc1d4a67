//! Where the demo runs: as root in network namespaces of its own, one per place, joined by veth pairs and, beyond the gateway, by
//! a bridge; otherwise on loopback, with a UDP relay in front of the core that can be cut.
//!
//! ```text
//! home                                 gateway            net (a bridge, 10.77.2.0/24)
//!  s0 s1 … (macvlan, a MAC each) ─home0──lan0   wan0 ──────┬── core  ├── hospital  ├── clinic  ├── operator
//!  spare0 ─ spare1 (unrelated)        10.77.1.0/24        (controller and ledger run at the operator's)
//! ```
//! No interface is made in the machine's own namespace: the pages' sockets are opened there, on loopback, and handed to the
//! daemons as systemd would.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::relay::Relay;

/// Prefix of every namespace that a demo makes; the process id follows, so that the left-overs of a demo that was killed can
/// be told from those of one that runs.
const PREFIX: &str = "caregate-";
/// Where gateways, core, hospitals and operator meet.
const NET: &str = "net";
/// The gateway's interface towards sensors, which XDP guards.
pub(super) const SENSOR_PORT: &str = "lan0";
/// The gateway's uplink.
pub(super) const UPLINK: &str = "wan0";
/// The sensors' end of [`SENSOR_PORT`]'s wire: what a stranger who is plugged in sends from.
pub(super) const HOME_PORT: &str = "home0";
/// One end of a wire that leads nowhere, for a flood that meets nobody.
pub(super) const SPARE_PORT: &str = "spare0";
/// MQTT's port.
const MQTT_PORT: u16 = 1883;
/// The core's QUIC port.
const QUIC_PORT: u16 = 4433;
/// NATS's port; on the core's loopback alone.
const NATS_PORT: u16 = 4222;
/// JSON-RPC's usual port.
const RPC_PORT: u16 = 8545;
/// OpenFlow's port (IANA).
const OPENFLOW_PORT: u16 = 6653;
/// The controller's policy delivery, UDP.
const POLICY_PORT: u16 = 4434;
/// The controller's REST interface.
const REST_PORT: u16 = 8443;

/// A place of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Home,
    Gateway,
    Core,
    Hospital,
    /// A second hospital, to which nobody has consented.
    Clinic,
    /// Who runs controller and ledger.
    Operator,
}

impl Place {
    const ALL: [Self; 6] =
        [Self::Home, Self::Gateway, Self::Core, Self::Hospital, Self::Clinic, Self::Operator];

    fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Gateway => "gateway",
            Self::Core => "core",
            Self::Hospital => "hospital",
            Self::Clinic => "clinic",
            Self::Operator => "operator",
        }
    }

    /// Last byte of its address on the bridge; the home has none there.
    fn host(self) -> u8 {
        match self {
            Self::Home => 0,
            Self::Gateway => 1,
            Self::Core => 2,
            Self::Hospital => 3,
            Self::Clinic => 4,
            Self::Operator => 5,
        }
    }
}

/// A service that one place offers to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Mqtt,
    Quic,
    Nats,
    Rpc,
    OpenFlow,
    Policy,
    Rest,
}

impl Service {
    const ALL: [Self; 7] =
        [Self::Mqtt, Self::Quic, Self::Nats, Self::Rpc, Self::OpenFlow, Self::Policy, Self::Rest];

    fn place(self) -> Place {
        match self {
            Self::Mqtt => Place::Gateway,
            Self::Quic | Self::Nats => Place::Core,
            Self::Rpc | Self::OpenFlow | Self::Policy | Self::Rest => Place::Operator,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Mqtt => MQTT_PORT,
            Self::Quic => QUIC_PORT,
            Self::Nats => NATS_PORT,
            Self::Rpc => RPC_PORT,
            Self::OpenFlow => OPENFLOW_PORT,
            Self::Policy => POLICY_PORT,
            Self::Rest => REST_PORT,
        }
    }

    fn is_udp(self) -> bool {
        matches!(self, Self::Quic | Self::Policy)
    }
}

/// The network of one demo; undone when it is dropped.
#[derive(Debug)]
pub(super) enum Network {
    Namespaces { id: u32 },
    Loopback { relay: Relay, services: Vec<SocketAddr> },
}

impl Network {
    /// In namespaces where we are root, else on loopback. `sensors` is how many have an interface of their own at home.
    pub(super) fn make(root: bool, sensors: usize) -> anyhow::Result<Self> {
        if !root {
            let free = |service: &Service| if service.is_udp() { free_udp() } else { free_tcp() };
            let services: Vec<_> = Service::ALL.iter().map(free).collect::<anyhow::Result<_>>()?;
            let quic = Service::ALL.iter().position(|s| *s == Service::Quic).context("no core")?;
            return Ok(Self::Loopback { relay: Relay::start(services[quic])?, services });
        }
        remove_leftovers()?;
        let network = Self::Namespaces { id: std::process::id() };
        for name in network.namespaces() {
            ip(&["netns", "add", &name])?;
            // Neighbour discovery of the demo's own interfaces would be counted as strangers' frames.
            sysctl(&name, "net.ipv6.conf.all.disable_ipv6", "1")?;
            sysctl(&name, "net.ipv6.conf.default.disable_ipv6", "1")?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        network.wire_net()?;
        network.wire_home(sensors)?;
        Ok(network)
    }

    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Namespaces { .. } => "in network namespaces of its own (root)",
            Self::Loopback { .. } => "on loopback (not root: no network namespaces)",
        }
    }

    fn namespaces(&self) -> Vec<String> {
        Place::ALL.iter().map(|p| p.name()).chain([NET]).map(|name| self.namespace(name)).collect()
    }

    fn namespace(&self, name: &str) -> String {
        match self {
            Self::Namespaces { id } => format!("{PREFIX}{id}-{name}"),
            Self::Loopback { .. } => String::new(),
        }
    }

    /// Every place but the home has one leg on the bridge.
    fn wire_net(&self) -> anyhow::Result<()> {
        let net = self.namespace(NET);
        ip(&["-n", &net, "link", "add", "br0", "type", "bridge", "stp_state", "0"])?;
        ip(&["-n", &net, "link", "set", "br0", "up"])?;
        for place in Place::ALL.into_iter().filter(|place| *place != Place::Home) {
            let (ns, leg) = (self.namespace(place.name()), place.name());
            ip(&["-n", &ns, "link", "add", UPLINK, "type", "veth", "peer", "name", leg, "netns", &net])?;
            ip(&["-n", &net, "link", "set", leg, "master", "br0", "up"])?;
            ip(&["-n", &ns, "address", "add", &format!("10.77.2.{}/24", place.host()), "dev", UPLINK])?;
            ip(&["-n", &ns, "link", "set", UPLINK, "up"])?;
        }
        Ok(())
    }

    /// Each sensor has an interface, a MAC and an address; they share the wire to the gateway, as on a switch.
    fn wire_home(&self, sensors: usize) -> anyhow::Result<()> {
        let (home, gateway) = (self.namespace(Place::Home.name()), self.namespace(Place::Gateway.name()));
        ip(&[
            "-n",
            &home,
            "link",
            "add",
            HOME_PORT,
            "type",
            "veth",
            "peer",
            "name",
            SENSOR_PORT,
            "netns",
            &gateway,
        ])?;
        ip(&["-n", &home, "link", "add", SPARE_PORT, "type", "veth", "peer", "name", "spare1"])?;
        for name in [HOME_PORT, SPARE_PORT, "spare1"] {
            ip(&["-n", &home, "link", "set", name, "up"])?;
        }
        ip(&["-n", &gateway, "address", "add", "10.77.1.1/24", "dev", SENSOR_PORT])?;
        ip(&["-n", &gateway, "link", "set", SENSOR_PORT, "up"])?;
        // Several interfaces in one subnet: each answers for its own address alone.
        for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2"), ("rp_filter", "0")] {
            sysctl(&home, &format!("net.ipv4.conf.all.{key}"), value)?;
            sysctl(&home, &format!("net.ipv4.conf.default.{key}"), value)?;
        }
        for at in 0..sensors {
            let Some(Wearable { interface, mac, address }) = self.wearable(at) else {
                bail!("too many sensors")
            };
            ip(&[
                "-n", &home, "link", "add", "link", HOME_PORT, "name", &interface, "address", &mac, "type",
                "macvlan", "mode", "private",
            ])?;
            ip(&["-n", &home, "address", "add", &format!("{address}/24"), "dev", &interface])?;
            ip(&["-n", &home, "link", "set", &interface, "up"])?;
        }
        Ok(())
    }

    /// The interface of the sensor with this index, where each has one.
    pub(super) fn wearable(&self, at: usize) -> Option<Wearable> {
        let Self::Namespaces { .. } = self else { return None };
        let number = u8::try_from(at).ok().filter(|n| *n < 200)?;
        Some(Wearable {
            interface: format!("s{number}"),
            mac: mac(at),
            address: ([10, 77, 1, 10 + number]).into(),
        })
    }

    /// What to put before a command so that it runs in `place`.
    pub(super) fn prefix(&self, place: Place) -> Vec<String> {
        match self {
            Self::Namespaces { .. } => vec![
                "nsenter".into(),
                format!("--net=/run/netns/{}", self.namespace(place.name())),
                "--".into(),
            ],
            Self::Loopback { .. } => Vec::new(),
        }
    }

    /// Where a service listens.
    pub(super) fn listen(&self, service: Service) -> SocketAddr {
        match self {
            // Towards the sensors.
            Self::Namespaces { .. } if service.place() == Place::Gateway => {
                ([10, 77, 1, 1], service.port()).into()
            }
            Self::Namespaces { .. } => ([10, 77, 2, service.place().host()], service.port()).into(),
            Self::Loopback { services, .. } => Service::ALL
                .iter()
                .position(|s| *s == service)
                .map_or_else(|| ([127, 0, 0, 1], 0).into(), |at| services[at]),
        }
    }

    /// Where the gateway finds the core: across the link that can be cut.
    pub(super) fn core_for_gateway(&self) -> SocketAddr {
        match self {
            Self::Namespaces { .. } => self.listen(Service::Quic),
            Self::Loopback { relay, .. } => relay.address(),
        }
    }

    /// Cuts the gateway's uplink, or joins it again.
    pub(super) fn set_uplink(&self, up: bool) -> anyhow::Result<()> {
        match self {
            Self::Namespaces { .. } => {
                let state = if up { "up" } else { "down" };
                // At the bridge: the gateway's own end keeps its address, as with a cable that is pulled elsewhere.
                ip(&["-n", &self.namespace(NET), "link", "set", Place::Gateway.name(), state])
            }
            Self::Loopback { relay, .. } => {
                relay.set_open(up);
                Ok(())
            }
        }
    }
}

/// The MAC address of the sensor with this index: locally administered.
pub(super) fn mac(at: usize) -> String {
    format!("02:ca:7e:00:{:02x}:{:02x}", (at + 1) >> 8 & 0xff, (at + 1) & 0xff)
}

/// How a sensor is on the wire.
#[derive(Debug, Clone)]
pub(super) struct Wearable {
    pub(super) interface: String,
    pub(super) mac: String,
    pub(super) address: IpAddr,
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Self::Namespaces { .. } = self {
            for name in self.namespaces() {
                // One that was not made yet is no failure; one that stays is found by the next demo.
                drop(ip(&["netns", "delete", &name]));
            }
        }
    }
}

fn sysctl(namespace: &str, key: &str, value: &str) -> anyhow::Result<()> {
    ip(&["netns", "exec", namespace, "sysctl", "-qw", &format!("{key}={value}")])
}

/// Deletes the namespaces of demos that are gone.
fn remove_leftovers() -> anyhow::Result<()> {
    let listed = Command::new("ip").args(["netns", "list"]).output().context("ip netns list")?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .filter(|pid| pid.parse::<u32>().is_ok());
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid).exists()
        {
            ip(&["netns", "delete", name])?;
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip (package iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn free_tcp() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn free_udp() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}
