//! What all connections share: the maps, the ports, and the events. Each call does its whole work and returns; nothing waits
//! while it holds the lock but for the kernel.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use caregate_ebpf_common::map::{PACKETS, PacketIn};
use caregate_ebpf_common::switch::map::{PUNTS, Punt, Punted};
use caregate_ebpf_common::switch::record;
use caregate_protocol::datapath::switch::{Change, SwitchCounters, TABLES};
use caregate_protocol::datapath::{
    self, Counters, Event, PACKET_BYTES_MIN, PacketOut, Policy, Port, QUEUES, Reason, Refused, Role, VERSION,
    Welcome,
};
use tokio::sync::broadcast;

use crate::config::ConfigFile;
use crate::error::DatapathError;
use crate::kernel::{self, Kernel, SetError};
use crate::links::{self, Interface, Snapshot};
use crate::packet::{Senders, Way};
use crate::pin::Pins;
use crate::ports::{Kernels, Ports};
use crate::stages::Stages;
use crate::switch::check::Guard;
use crate::switch::{Series, Switch, SwitchError};
use crate::{GUARDED, grace, object, packet, stages};

/// Events that a connection may be behind: three seconds of frames to the controller.
const EVENTS_MAX: usize = 256;

/// Frames for the slow path that a connection may be behind: more than a ring holds. They have their own, so that none of them
/// pushes out what was said of a port.
const PUNTS_MAX: usize = 256;
/// Frames that are passed on at a time, before others have their turn.
const PUNTS_AT_ONCE: usize = 64;

/// Clones share.
#[derive(Debug, Clone)]
pub struct Shared {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<Event>,
    punts: broadcast::Sender<Event>,
    /// Held from a change of policy until no frame meets what it replaced: only then may the next be written.
    policy_turn: Arc<tokio::sync::Mutex<()>>,
    /// The same of the switch's tables.
    switch_turn: Arc<tokio::sync::Mutex<()>>,
}

/// Both rings.
pub struct Rings {
    /// Frames to the controller.
    pub packets: RingBuf<MapData>,
    /// Frames for the slow path.
    pub punts: RingBuf<MapData>,
}

#[derive(Debug)]
struct Inner {
    kernel: Kernel,
    switch: Switch,
    senders: Senders,
    /// What the programs go on by; it is pinned, too.
    _stages: Stages,
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
        SetError::Kernel(_) => Reason::Kernel,
    };
    refused(reason, error)
}

impl Shared {
    /// Loads the programs beside the pinned maps, and puts them on the ports: in place of what is there, in one step each. The
    /// rings are for [`read_packets`](Self::read_packets) and [`read_punts`](Self::read_punts).
    ///
    /// # Errors
    /// [`DatapathError`]. A port whose interface is absent or takes no program is no error here; it is tried again.
    pub fn open(file: &ConfigFile) -> Result<(Self, Rings), DatapathError> {
        let pins = Pins::open(&file.pin)?;
        let mut ebpf = object::load(Some(&pins.maps()))?;
        object::load_sensor(&mut ebpf)?;
        object::load_uplink(&mut ebpf)?;
        let ports = Ports::new(file);
        let stages = stages::load(&mut ebpf)?;
        let kernel = Kernel::open(&mut ebpf)?;
        let switch = Switch::open(&mut ebpf, Guard { sensor_ports: ports.sensors(), is_on: GUARDED })?;
        let rings =
            Rings { packets: kernel::ring(&mut ebpf, PACKETS)?, punts: kernel::ring(&mut ebpf, PUNTS)? };
        let snapshot = Snapshot::read()?;
        let waits_for_policy = !pins.foreign_maps().is_empty();
        let devices = kernel.devices();
        let (flows, groups, meters) = switch.sizes();
        tracing::info!(
            pin = %file.pin.display(), devices, flows, groups, meters, waits_for_policy, "maps are there"
        );
        let senders = Senders::default();
        let inner =
            Inner { kernel, switch, senders, ebpf, _stages: stages, ports, pins, snapshot, waits_for_policy };
        let shared = Self {
            inner: Arc::new(Mutex::new(inner)),
            events: broadcast::channel(EVENTS_MAX).0,
            punts: broadcast::channel(PUNTS_MAX).0,
            policy_turn: Arc::default(),
            switch_turn: Arc::default(),
        };
        shared.refresh()?;
        Ok((shared, rings))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Frames for the slow path from now on.
    #[must_use]
    pub fn subscribe_punts(&self) -> broadcast::Receiver<Event> {
        self.punts.subscribe()
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

    /// How many devices are bound.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.lock().kernel.devices()
    }

    /// How many flows, groups and meters the switch has.
    #[must_use]
    pub fn switch_sizes(&self) -> (usize, usize, usize) {
        self.lock().switch.sizes()
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
        let Inner { kernel, switch, ebpf, ports, pins, snapshot, senders, .. } = &mut *inner;
        let (changed, failures) = ports.refresh(snapshot, &mut Kernels { kernel, switch, ebpf, pins })?;
        ports.detach_others(snapshot, pins)?;
        senders.keep(|index| snapshot.indexed(index).is_some());
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
        self.begin(inner)
    }

    /// Puts these programs on the ports, where those of another version are still there.
    fn begin(&self, mut inner: MutexGuard<'_, Inner>) -> Result<(), Refused> {
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

    /// Does one frame's changes of the switch. True where they are in force, all of the series with them.
    ///
    /// # Errors
    /// [`Refused`]; what was in force still is.
    pub fn change(
        &self,
        series: &mut Series,
        changes: Vec<Change>,
        more: bool,
        session: u64,
    ) -> Result<bool, Refused> {
        let mut inner = self.lock();
        let is_in_force =
            inner.switch.change(series, changes, more, session).map_err(|error| match error {
                SwitchError::Change(error) => refused(Reason::Rule, error),
                SwitchError::Kernel(error) => kernel_refused(error),
            })?;
        if is_in_force && inner.ports.sensors() == 0 {
            // There is no policy to wait for.
            self.begin(inner)?;
        }
        Ok(is_in_force)
    }

    /// All counters of the switch.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn switch_counters(&self) -> Result<SwitchCounters, Refused> {
        self.lock().switch.counters().map_err(kernel_refused)
    }

    /// Waits until something may be put in force: until no frame meets what the last change of the same kind replaced. Policy and the
    /// switch's tables have two copies each, and neither is written for the other's sake.
    pub async fn turn(&self, of: Kind) -> Turn {
        let turn = match of {
            Kind::Policy => &self.policy_turn,
            Kind::Switch => &self.switch_turn,
        };
        Turn { _held: turn.clone().lock_owned().await }
    }

    /// All counters.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        let links = links::counters()?;
        let inner = self.lock();
        let mut counters = inner.kernel.counters(&inner.ports.numbers())?;
        for counted in &mut counters.ports {
            let Some((port, index)) = inner.ports.find(counted.number) else { continue };
            if port.role == Role::Uplink {
                counted.queues = inner.switch.queues(counted.number)?;
            }
            let of_port = |(of, _): &&(u32, _)| Some(*of) == index;
            counted.link = links.iter().find(of_port).map(|(_, link)| *link);
        }
        Ok(counters)
    }

    fn interface(&self, number: u32) -> Result<(Role, Interface), Refused> {
        let inner = self.lock();
        let absent =
            || refused(Reason::Port, format!("there is no port {number}, or no interface there now"));
        let (port, index) = inner.ports.find(number).ok_or_else(absent)?;
        let interface = index.and_then(|index| inner.snapshot.indexed(index)).ok_or_else(absent)?;
        Ok((port.role, interface.clone()))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// [`Refused`]: nothing goes out to sensors by this way.
    pub fn packet_out(&self, packet: &PacketOut) -> Result<(), Refused> {
        let PacketOut { port, queue, frame } = packet;
        let (role, interface) = self.interface(*port)?;
        if role == Role::Sensor && GUARDED {
            return Err(refused(Reason::SensorPort, format!("port {port} leads to sensors")));
        }
        if frame.len() < PACKET_BYTES_MIN {
            let detail = format!("a frame of {} bytes is none", frame.len());
            return Err(refused(Reason::Port, detail));
        }
        let mut inner = self.lock();
        let Inner { switch, senders, .. } = &mut *inner;
        let way = match (role, *queue) {
            (Role::Uplink, queue) => Way::Marked { queue, mark: switch.own_mark() },
            (_, 0) => Way::Past,
            (_, queue) => Way::Queued(queue),
        };
        senders.transmit(&interface, way, frame).map_err(kernel_refused)
    }

    /// A socket that hears devices on a port.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn packet_socket(&self, number: u32) -> Result<OwnedFd, Refused> {
        let (_, interface) = self.interface(number)?;
        packet::listen(&interface).map_err(kernel_refused)
    }

    /// Passes on what lies in the ring. False where there may be more.
    pub fn read_punts(&self, ring: &mut RingBuf<MapData>) -> bool {
        for _ in 0..PUNTS_AT_ONCE {
            let Some(entry) = ring.next() else { return true };
            let Some(punted) = Punt::read(&entry) else { continue };
            // What is no table's number says that none stopped it.
            let before = u8::try_from(punted.before).unwrap_or(TABLES).min(TABLES);
            let Punted { in_port, total_len, remarks, is_handed, frame, .. } = punted;
            let remarks = std::array::from_fn(|table| {
                record::remark_in(remarks, u8::try_from(table).unwrap_or_default())
            });
            let frame = frame.to_vec();
            let punt = datapath::Punt { in_port, before, total_len, remarks, is_handed, frame };
            // Nobody may be listening.
            drop(self.punts.send(Event::Punt(punt)));
        }
        false
    }

    /// Passes on what lies in the ring.
    pub fn read_packets(&self, ring: &mut RingBuf<MapData>) {
        while let Some(entry) = ring.next() {
            let Some((rule, uplink, total_len, frame)) = PacketIn::read(&entry) else { continue };
            let total_len = u16::try_from(total_len).unwrap_or(u16::MAX);
            // Nobody may be listening.
            drop(self.events.send(Event::PacketIn { uplink, rule, total_len, frame: frame.to_vec() }));
        }
    }
}

/// What is put in force by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who is admitted.
    Policy,
    /// Flows, groups and meters.
    Switch,
}

/// The right to put something in force.
#[derive(Debug)]
pub struct Turn {
    _held: tokio::sync::OwnedMutexGuard<()>,
}

impl Turn {
    /// To be called when something was put in force. The next turn comes when no frame meets what it replaced, in some
    /// hundredths of a second; nobody waits for it here.
    pub fn settle(self) {
        tokio::task::spawn_blocking(move || {
            grace::wait();
            drop(self);
        });
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
    let nobody = Ports::default();
    nobody.detach_others(&Snapshot::read()?, &pins)?;
    pins.remove_all()
}
