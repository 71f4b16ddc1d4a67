//! Where there are no namespaces: the wire between gateway and core, as a relay that can be cut.
//!
//! ```text
//! gateway, a port per lane ──▶ front ──▶ a back socket per client ──▶ core
//! ```

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::say;

/// How long a relay thread waits before it looks whether to stop.
const RELAY_WAIT: Duration = Duration::from_millis(200);
/// Larger than any datagram that QUIC sends on loopback.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// A gateway has five ports (four lanes, the backlog) and gets new ones when it is restarted where they are not fixed: enough
/// for some restarts.
const CLIENTS_MAX: usize = 64;

/// Passes datagrams between the gateway's ports and the core while it is open, and drops them while it is not.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    front: UdpSocket,
    core: SocketAddr,
    open: AtomicBool,
    stop: AtomicBool,
}

impl Relay {
    pub(super) fn start(core: SocketAddr) -> anyhow::Result<Self> {
        let front = UdpSocket::bind("127.0.0.1:0")?;
        front.set_read_timeout(Some(RELAY_WAIT))?;
        let address = front.local_addr()?;
        let state =
            Arc::new(State { front, core, open: AtomicBool::new(true), stop: AtomicBool::new(false) });
        let thread = {
            let state = Arc::clone(&state);
            std::thread::spawn(move || state.up())
        };
        Ok(Self { address, state, thread: Some(thread) })
    }

    /// Where the gateway sends to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it, or joins it again.
    pub(super) fn set_open(&self, open: bool) {
        self.state.open.store(open, Ordering::Relaxed);
    }
}

impl State {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// From the gateway to the core, until stopped; then waits for the ways back.
    fn up(self: &Arc<Self>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
        let mut ways_back = Vec::new();
        while !self.is_stopped() {
            let Ok((length, from)) = self.front.recv_from(&mut buffer) else { continue };
            if !clients.contains_key(&from) {
                if clients.len() >= CLIENTS_MAX {
                    continue;
                }
                match self.join(from) {
                    Ok((back, way_back)) => {
                        clients.insert(from, back);
                        ways_back.push(way_back);
                    }
                    Err(error) => say(&format!("demo: the relay can't take another client: {error}")),
                }
            }
            if let Some(back) = clients.get(&from).filter(|_| self.is_open()) {
                // As on a wire: what can't be sent is lost, and QUIC sends it again.
                drop(back.send(buffer.get(..length).unwrap_or_default()));
            }
        }
        for way_back in ways_back {
            drop(way_back.join());
        }
    }

    /// A socket towards the core for a new client, and the thread that passes its answers back.
    fn join(self: &Arc<Self>, client: SocketAddr) -> std::io::Result<(UdpSocket, JoinHandle<()>)> {
        let back = UdpSocket::bind("127.0.0.1:0")?;
        back.connect(self.core)?;
        back.set_read_timeout(Some(RELAY_WAIT))?;
        let (state, answers) = (Arc::clone(self), back.try_clone()?);
        let way_back = std::thread::spawn(move || {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            while !state.is_stopped() {
                let Ok(length) = answers.recv(&mut buffer) else { continue };
                if state.is_open() {
                    drop(state.front.send_to(buffer.get(..length).unwrap_or_default(), client));
                }
            }
        });
        Ok((back, way_back))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
