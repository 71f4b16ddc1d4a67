//! Where the demo runs: as root in network namespaces of its own, one per place (home, gateway, core, hospital), joined by
//! veth pairs; otherwise on loopback, with a UDP relay in front of the core that can be cut.
//!
//! ```text
//! home ──10.77.1.0/24── gateway ──10.77.2.0/24── core ──10.77.3.0/24── hospital
//! ```
//! No interface is made in the machine's own namespace: the pages' sockets are opened there, on loopback, and handed to the
//! daemons as systemd would.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};

/// Prefix of every namespace that a demo makes; the process id follows, so that the left-overs of a demo that was killed can
/// be told from those of one that runs.
const PREFIX: &str = "caregate-";
/// MQTT's port.
const MQTT_PORT: u16 = 1883;
/// The core's QUIC port.
const QUIC_PORT: u16 = 4433;

/// A place of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Home,
    Gateway,
    Core,
    Hospital,
}

impl Place {
    const ALL: [Self; 4] = [Self::Home, Self::Gateway, Self::Core, Self::Hospital];

    fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Gateway => "gateway",
            Self::Core => "core",
            Self::Hospital => "hospital",
        }
    }
}

/// The network of one demo; undone when it is dropped.
#[derive(Debug)]
pub(super) enum Network {
    Namespaces { id: u32 },
    Loopback { relay: Relay, mqtt: SocketAddr, quic: SocketAddr },
}

impl Network {
    /// In namespaces where we are root, else on loopback.
    pub(super) fn make(root: bool) -> anyhow::Result<Self> {
        if !root {
            let (mqtt, quic) = (free_tcp()?, free_udp()?);
            return Ok(Self::Loopback { relay: Relay::start(quic)?, mqtt, quic });
        }
        remove_leftovers()?;
        let network = Self::Namespaces { id: std::process::id() };
        for place in Place::ALL {
            ip(&["netns", "add", &network.namespace(place)])?;
            ip(&["-n", &network.namespace(place), "link", "set", "lo", "up"])?;
        }
        network.join(Place::Home, "10.77.1.2/24", Place::Gateway, "10.77.1.1/24")?;
        network.join(Place::Gateway, "10.77.2.1/24", Place::Core, "10.77.2.2/24")?;
        network.join(Place::Core, "10.77.3.1/24", Place::Hospital, "10.77.3.2/24")?;
        Ok(network)
    }

    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Namespaces { .. } => "in network namespaces of its own (root)",
            Self::Loopback { .. } => "on loopback (not root: no network namespaces)",
        }
    }

    fn namespace(&self, place: Place) -> String {
        match self {
            Self::Namespaces { id } => format!("{PREFIX}{id}-{}", place.name()),
            Self::Loopback { .. } => String::new(),
        }
    }

    fn join(&self, a: Place, a_address: &str, b: Place, b_address: &str) -> anyhow::Result<()> {
        let (a_ns, b_ns) = (self.namespace(a), self.namespace(b));
        let (a_dev, b_dev) = (format!("to-{}", b.name()), format!("to-{}", a.name()));
        ip(&["-n", &a_ns, "link", "add", &a_dev, "type", "veth", "peer", "name", &b_dev, "netns", &b_ns])?;
        for (ns, dev, address) in [(&a_ns, &a_dev, a_address), (&b_ns, &b_dev, b_address)] {
            ip(&["-n", ns, "address", "add", address, "dev", dev])?;
            ip(&["-n", ns, "link", "set", dev, "up"])?;
        }
        Ok(())
    }

    /// What to put before a command so that it runs in `place`.
    pub(super) fn prefix(&self, place: Place) -> Vec<String> {
        match self {
            Self::Namespaces { .. } => {
                vec!["nsenter".into(), format!("--net=/run/netns/{}", self.namespace(place)), "--".into()]
            }
            Self::Loopback { .. } => Vec::new(),
        }
    }

    /// Where the gateway's MQTT server listens, and sensors find it.
    pub(super) fn mqtt(&self) -> SocketAddr {
        match self {
            Self::Namespaces { .. } => ([10, 77, 1, 1], MQTT_PORT).into(),
            Self::Loopback { mqtt, .. } => *mqtt,
        }
    }

    /// Where the core listens.
    pub(super) fn quic_listen(&self) -> SocketAddr {
        match self {
            Self::Namespaces { .. } => ([0, 0, 0, 0], QUIC_PORT).into(),
            Self::Loopback { quic, .. } => *quic,
        }
    }

    /// Where the gateway finds the core: across the link that can be cut.
    pub(super) fn core_for_gateway(&self) -> SocketAddr {
        match self {
            Self::Namespaces { .. } => ([10, 77, 2, 2], QUIC_PORT).into(),
            Self::Loopback { relay, .. } => relay.address,
        }
    }

    /// Where the feed finds the core.
    pub(super) fn core_for_feed(&self) -> SocketAddr {
        match self {
            Self::Namespaces { .. } => ([10, 77, 3, 1], QUIC_PORT).into(),
            Self::Loopback { quic, .. } => *quic,
        }
    }

    /// Cuts the gateway's uplink, or joins it again.
    pub(super) fn set_uplink(&self, up: bool) -> anyhow::Result<()> {
        match self {
            Self::Namespaces { .. } => {
                let state = if up { "up" } else { "down" };
                ip(&["-n", &self.namespace(Place::Gateway), "link", "set", "to-core", state])
            }
            Self::Loopback { relay, .. } => {
                relay.open.store(up, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Self::Namespaces { .. } = self {
            for place in Place::ALL {
                // One that was not made yet is no failure; one that stays is found by the next demo.
                drop(ip(&["netns", "delete", &self.namespace(place)]));
            }
        }
    }
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

/// Passes datagrams between one client (the gateway) and the core while it is open, and drops them while it is not.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// How long a relay thread waits before it looks whether to stop.
const RELAY_WAIT: Duration = Duration::from_millis(200);
/// Larger than any datagram that QUIC sends on loopback.
const DATAGRAM_BYTES_MAX: usize = 65_535;

impl Relay {
    fn start(core: SocketAddr) -> anyhow::Result<Self> {
        let (front, back) =
            (Arc::new(UdpSocket::bind("127.0.0.1:0")?), Arc::new(UdpSocket::bind("127.0.0.1:0")?));
        back.connect(core)?;
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(RELAY_WAIT))?;
        }
        let address = front.local_addr()?;
        let (open, stop) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let client = Arc::new(std::sync::Mutex::new(None::<SocketAddr>));
        let up = {
            let (front, back, client) = (Arc::clone(&front), Arc::clone(&back), Arc::clone(&client));
            relay(Arc::clone(&open), Arc::clone(&stop), move |buffer| {
                let (length, from) = front.recv_from(buffer).ok()?;
                if let Ok(mut client) = client.lock() {
                    *client = Some(from);
                }
                Some((
                    length,
                    Box::new({
                        let back = Arc::clone(&back);
                        move |bytes: &[u8]| drop(back.send(bytes))
                    }),
                ))
            })
        };
        let down = relay(Arc::clone(&open), Arc::clone(&stop), move |buffer| {
            let length = back.recv(buffer).ok()?;
            let to = client.lock().ok().and_then(|client| *client)?;
            let front = Arc::clone(&front);
            Some((length, Box::new(move |bytes: &[u8]| drop(front.send_to(bytes, to)))))
        });
        Ok(Self { address, open, stop, threads: vec![up, down] })
    }
}

type Send = Box<dyn Fn(&[u8])>;

fn relay(
    open: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    mut receive: impl FnMut(&mut [u8]) -> Option<(usize, Send)> + std::marker::Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !stop.load(Ordering::Relaxed) {
            let Some((length, send)) = receive(&mut buffer) else { continue };
            if open.load(Ordering::Relaxed) {
                send(buffer.get(..length).unwrap_or_default());
            }
        }
    })
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}
