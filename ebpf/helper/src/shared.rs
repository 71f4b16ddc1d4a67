//! What all connections share: the maps, the ports, and the events. Each call does its whole work and returns; nothing waits
//! while it holds the lock but for the kernel.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use caregate_ebpf_common::map::PacketIn;
use caregate_protocol::datapath::{
    Counters, Event, PACKET_BYTES_MIN, Policy, Port, QUEUES, Reason, Refused, Role, Rule, VERSION, Welcome,
};
use tokio::sync::broadcast;

use crate::config::ConfigFile;
use crate::error::DatapathError;
use crate::kernel::{self, Kernel, SetError};
use crate::links::{Interface, Snapshot};
use crate::pin::Pins;
use crate::ports::Ports;
use crate::{grace, object, packet};

/// Events that a connection may be behind: three seconds of frames to the controller.
const EVENTS_MAX: usize = 256;

/// Clones share.
#[derive(Debug, Clone)]
pub struct Shared {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Inner {
    kernel: Kernel,
    ebpf: Ebpf,
    ports: Ports,
    pins: Pins,
    snapshot: Snapshot,
    /// Programs of another version are attached and know the policy; these don't yet.
    waits_for_policy: bool,
}

fn refused(reason: Reason, error: impl ToString) -> Refused {
    Refused { reason, detail: error.to_string() }
}

fn kernel_refused(error: DatapathError) -> Refused {
    refused(Reason::Kernel, error)
}

fn set_refused(error: SetError) -> Refused {
    let reason = match error {
        SetError::Policy(_) => Reason::Policy,
        SetError::Rule(_) => Reason::Rule,
        SetError::Kernel(_) => Reason::Kernel,
    };
    refused(reason, error)
}

impl Shared {
    /// Loads the programs beside the pinned maps, and puts them on the ports: in place of what is there, in one step each. The
    /// ring is for [`read_ring`](Self::read_ring).
    ///
    /// # Errors
    /// [`DatapathError`]. A port whose interface is absent or takes no program is no error here; it is tried again.
    pub fn open(file: &ConfigFile) -> Result<(Self, RingBuf<MapData>), DatapathError> {
        let pins = Pins::open(&file.pin)?;
        let mut ebpf = object::load(Some(&pins.maps()))?;
        object::load_sensor(&mut ebpf)?;
        object::load_uplink(&mut ebpf)?;
        let kernel = Kernel::open(&mut ebpf)?;
        let ring = kernel::ring(&mut ebpf)?;
        let ports = Ports::new(&file.sensor_ports, &file.uplinks);
        let snapshot = Snapshot::read()?;
        let waits_for_policy = !pins.foreign_maps().is_empty();
        let (devices, rules) = kernel.sizes();
        tracing::info!(pin = %file.pin.display(), devices, rules, waits_for_policy, "maps are there");
        let inner = Inner { kernel, ebpf, ports, pins, snapshot, waits_for_policy };
        let shared = Self { inner: Arc::new(Mutex::new(inner)), events: broadcast::channel(EVENTS_MAX).0 };
        shared.refresh()?;
        Ok((shared, ring))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// All ports.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        self.lock().ports.list()
    }

    /// Whether each port has its program.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lock().ports.are_all_attached()
    }

    /// How many devices are bound and how many rules there are.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.lock().kernel.sizes()
    }

    /// The answer to a hello.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        Welcome { version: VERSION, queues: QUEUES, ports: self.ports() }
    }

    /// Looks at the interfaces anew; what did not work is logged, and tried again with the next call.
    ///
    /// # Errors
    /// [`DatapathError`] where not even the maps can be written, or the interfaces be read.
    pub fn refresh(&self) -> Result<(), DatapathError> {
        let mut inner = self.lock();
        inner.snapshot = Snapshot::read()?;
        if inner.waits_for_policy {
            return Ok(());
        }
        let Inner { kernel, ebpf, ports, pins, snapshot, .. } = &mut *inner;
        let (changed, failures) = ports.refresh(snapshot, kernel, ebpf, pins)?;
        ports.detach_others(snapshot, pins)?;
        for failure in failures {
            tracing::error!(%failure, "a port is not filtered");
        }
        for port in changed {
            tracing::info!(
                interface = port.name,
                up = port.up,
                mode = port.mode.as_str(),
                "a port has changed"
            );
            // Nobody may be listening.
            drop(self.events.send(Event::PortStatus(port)));
        }
        Ok(())
    }

    /// Puts a policy in force, and with the first one after a change of version these programs.
    ///
    /// # Errors
    /// [`Refused`]; what was in force still is.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), Refused> {
        let mut inner = self.lock();
        inner.kernel.set_policy(policy).map_err(set_refused)?;
        if !inner.waits_for_policy {
            return Ok(());
        }
        inner.waits_for_policy = false;
        drop(inner);
        self.refresh().map_err(kernel_refused)?;
        let inner = self.lock();
        for folder in inner.pins.foreign_maps() {
            inner.pins.remove_maps(&folder).map_err(kernel_refused)?;
            tracing::info!(folder = %folder.display(), "the maps of another version are gone");
        }
        Ok(())
    }

    /// Puts a table 1 in force.
    ///
    /// # Errors
    /// [`Refused`]; what was in force still is.
    pub fn set_rules(&self, rules: &[Rule], session: u64) -> Result<(), Refused> {
        self.lock().kernel.set_rules(rules, session).map_err(set_refused)
    }

    /// To be called after one of both was put in force, and before the next.
    pub fn settle(&self) {
        grace::wait();
    }

    /// All counters.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        let inner = self.lock();
        inner.kernel.counters(&inner.ports.numbers())
    }

    fn interface(&self, number: u32) -> Result<(Role, Interface), Refused> {
        let inner = self.lock();
        let absent =
            || refused(Reason::Port, format!("there is no port {number}, or no interface there now"));
        let (port, index) = inner.ports.find(number).ok_or_else(absent)?;
        let interface = index.and_then(|index| inner.snapshot.indexed(index)).ok_or_else(absent)?;
        Ok((port.role, interface.clone()))
    }

    /// Sends a frame out of an uplink.
    ///
    /// # Errors
    /// [`Refused`]: nothing goes out to sensors by this way.
    pub fn packet_out(&self, number: u32, frame: &[u8]) -> Result<(), Refused> {
        let (role, interface) = self.interface(number)?;
        if role == Role::Sensor {
            return Err(refused(Reason::SensorPort, format!("port {number} leads to sensors")));
        }
        if frame.len() < PACKET_BYTES_MIN {
            let detail = format!("a frame of {} bytes is none", frame.len());
            return Err(refused(Reason::Port, detail));
        }
        packet::transmit(&interface, frame).map_err(kernel_refused)
    }

    /// A socket that hears devices on a port.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn packet_socket(&self, number: u32) -> Result<OwnedFd, Refused> {
        let (_, interface) = self.interface(number)?;
        packet::listen(&interface).map_err(kernel_refused)
    }

    /// Passes on what lies in the ring.
    pub fn read_ring(&self, ring: &mut RingBuf<MapData>) {
        while let Some(entry) = ring.next() {
            let Some((rule, uplink, total_len, frame)) = PacketIn::read(&entry) else { continue };
            let total_len = u16::try_from(total_len).unwrap_or(u16::MAX);
            // Nobody may be listening.
            drop(self.events.send(Event::PacketIn { uplink, rule, total_len, frame: frame.to_vec() }));
        }
    }
}

/// Takes all programs off their interfaces and removes all pins.
///
/// # Errors
/// [`DatapathError`].
pub fn detach(folder: &Path) -> Result<(), DatapathError> {
    crate::pin::check(folder)?;
    if !folder.exists() {
        return Ok(());
    }
    let pins = Pins::open(folder)?;
    let nobody = Ports::new(&[], &[]);
    nobody.detach_others(&Snapshot::read()?, &pins)?;
    pins.remove_all()
}
