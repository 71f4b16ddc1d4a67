//! The ports: which interface each has now, its addresses, and the program on it.

use caregate_ebpf_common::map;
use caregate_protocol::datapath::{Mode, Port, Role};

use aya::Ebpf;

use crate::config::ConfigFile;
use crate::error::DatapathError;
use crate::kernel::Kernel;
use crate::links::{Interface, Snapshot};
use crate::object;
use crate::pin::Pins;
use crate::switch::Switch;
use crate::{attach, features, stages};

/// One port of the configuration.
#[derive(Debug)]
struct Slot {
    port: Port,
    /// The interface that has the program.
    attached: Option<u32>,
    /// The interface that redirected frames go out by.
    device: Option<u32>,
}

/// All ports.
#[derive(Debug, Default)]
pub struct Ports {
    slots: Vec<Slot>,
    /// A frame that is redirected in the driver can't be sent by all of them, so programs of switch ports run in the stack.
    in_stack: bool,
}

/// What a refresh works with.
pub struct Kernels<'a> {
    /// The maps.
    pub kernel: &'a mut Kernel,
    /// The switch's.
    pub switch: &'a mut Switch,
    /// The programs.
    pub ebpf: &'a mut Ebpf,
    /// What is attached.
    pub pins: &'a Pins,
}

impl Ports {
    /// Numbered from 1: sensor ports, uplinks, switch ports. None has an interface yet.
    #[must_use]
    pub fn new(file: &ConfigFile) -> Self {
        let sensors = file.sensor_ports.iter().map(|name| (name, Role::Sensor));
        let uplinks = file.uplinks.iter().map(|name| (name, Role::Uplink));
        let named = sensors.chain(uplinks).chain(file.switch_ports.iter().map(|name| (name, Role::Switch)));
        let slots = (1..).zip(named).map(|(number, (name, role))| Slot {
            port: Port { number, name: name.clone(), mac: [0; 6], role, mode: Mode::None, up: false },
            attached: None,
            device: None,
        });
        Self { slots: slots.collect(), in_stack: false }
    }

    /// How many lead to sensors: the first ones.
    #[must_use]
    pub fn sensors(&self) -> u32 {
        self.slots.iter().map(|slot| u32::from(slot.port.role == Role::Sensor)).sum()
    }

    /// Whether any is one of the switch.
    #[must_use]
    pub fn are_switched(&self) -> bool {
        self.slots.iter().any(|slot| slot.port.role == Role::Switch)
    }

    /// All of them as they are now.
    #[must_use]
    pub fn list(&self) -> Vec<Port> {
        self.slots.iter().map(|slot| slot.port.clone()).collect()
    }

    /// Their numbers.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.slots.iter().map(|slot| slot.port.number).collect()
    }

    /// Whether each has its program.
    #[must_use]
    pub fn are_all_attached(&self) -> bool {
        self.slots.iter().all(|slot| slot.attached.is_some())
    }

    /// The port with this number, and its interface's index.
    #[must_use]
    pub fn find(&self, number: u32) -> Option<(&Port, Option<u32>)> {
        let slot = self.slots.iter().find(|slot| slot.port.number == number)?;
        Some((&slot.port, slot.attached))
    }

    /// Brings maps and programs in line with the interfaces that there are; the ports that changed, and what did not work. A
    /// port's entry in the maps is there before its program is.
    ///
    /// # Errors
    /// [`DatapathError`] where not even the maps can be written.
    pub fn refresh(
        &mut self,
        snapshot: &Snapshot,
        with: &mut Kernels<'_>,
    ) -> Result<(Vec<Port>, Vec<DatapathError>), DatapathError> {
        let before = self.list();
        // First of all: groups turn to another port by it.
        with.switch.set_live(self.live(snapshot))?;
        let (mut words, mut addresses) = (Vec::new(), Vec::new());
        for slot in &self.slots {
            let Some(interface) = snapshot.named(&slot.port.name) else { continue };
            words.push((interface.index, entry(&slot.port, interface, snapshot)));
            addresses.extend(snapshot.addresses_of(interface).map(|address| (slot.port.number, address)));
        }
        with.kernel.set_ports(&words, &addresses)?;
        self.choose_mode(snapshot);
        let mut failures = Vec::new();
        // What one port's program sends by another is sent from its first frame on.
        for slot in &mut self.slots {
            slot.lead_out(snapshot, with).unwrap_or_else(|failure| failures.push(failure));
        }
        for slot in &mut self.slots {
            slot.refresh(snapshot, with, self.in_stack).unwrap_or_else(|failure| failures.push(failure));
        }
        let changed = self.list().into_iter().zip(before).filter(|(now, before)| now != before);
        Ok((changed.map(|(now, _)| now).collect(), failures))
    }

    /// Ports with a carrier, switched on: bit *n* for port *n*.
    fn live(&self, snapshot: &Snapshot) -> u64 {
        let is_live = |slot: &&Slot| snapshot.named(&slot.port.name).is_some_and(|interface| interface.up);
        self.slots.iter().filter(is_live).fold(0, |live, slot| live | 1 << (slot.port.number & 63))
    }

    /// Programs of switch ports run in the driver only while each port that they send by takes what is redirected there.
    fn choose_mode(&mut self, snapshot: &Snapshot) {
        if self.in_stack || !self.are_switched() {
            return;
        }
        let sends = self.slots.iter().filter(|slot| slot.port.role != Role::Sensor);
        let interfaces = sends.filter_map(|slot| snapshot.named(&slot.port.name));
        if let Some(slow) = interfaces.into_iter().find(|one| !features::transmits_redirected(one.index)) {
            tracing::warn!(
                interface = slow.name,
                "the driver does not send, or the kernel does not say that it sends, what XDP redirects (a veth does while its \
                 peer has GRO): all switch ports run in the stack, which is slower"
            );
            self.in_stack = true;
            for slot in self.slots.iter_mut().filter(|slot| slot.port.role == Role::Switch) {
                slot.attached = None;
            }
        }
    }

    /// Takes programs off interfaces that are no ports any more.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn detach_others(&self, snapshot: &Snapshot, pins: &Pins) -> Result<(), DatapathError> {
        let is_port = |index: u32, is_uplink: bool| {
            let name = snapshot.indexed(index).map(|interface| interface.name.as_str());
            let mut slots = self.slots.iter().filter(|slot| (slot.port.role == Role::Uplink) == is_uplink);
            slots.any(|slot| Some(slot.port.name.as_str()) == name)
        };
        for index in pins.xdp_interfaces().into_iter().filter(|index| !is_port(*index, false)) {
            pins.remove_xdp(index)?;
        }
        for index in pins.tc_interfaces().into_iter().filter(|index| !is_port(*index, true)) {
            match snapshot.indexed(index) {
                Some(interface) => attach::detach_uplink(interface, pins)?,
                None => pins.remove_tc(index)?,
            }
        }
        Ok(())
    }
}

/// What the kernel has to know of a port.
fn entry(port: &Port, interface: &Interface, snapshot: &Snapshot) -> [u64; 4] {
    let bridge = interface.master.and_then(|index| snapshot.indexed(index));
    let mac = map::mac_word(interface.mac);
    let bridge_mac = bridge.map_or(mac, |bridge| map::mac_word(bridge.mac));
    [map::port_word(port.number, port.role == Role::Sensor), mac, bridge_mac, 0]
}

impl Slot {
    /// Says which interface has what is sent by this port.
    fn lead_out(&mut self, snapshot: &Snapshot, with: &mut Kernels<'_>) -> Result<(), DatapathError> {
        let index = snapshot.named(&self.port.name).map(|interface| interface.index);
        if let Some(index) =
            index.filter(|index| self.port.role != Role::Sensor && self.device != Some(*index))
        {
            with.switch.set_device(self.port.number, index)?;
            self.device = Some(index);
        }
        Ok(())
    }

    fn refresh(
        &mut self,
        snapshot: &Snapshot,
        with: &mut Kernels<'_>,
        in_stack: bool,
    ) -> Result<(), DatapathError> {
        let Some(interface) = snapshot.named(&self.port.name) else {
            (self.port.mac, self.port.up, self.port.mode) = ([0; 6], false, Mode::None);
            (self.attached, self.device) = (None, None);
            return Ok(());
        };
        (self.port.mac, self.port.up) = (interface.mac, interface.up);
        if self.attached == Some(interface.index) {
            return Ok(());
        }
        (self.attached, self.port.mode) = (None, Mode::None);
        self.port.mode = match self.port.role {
            Role::Sensor => attach::ingress(object::sensor(with.ebpf)?, interface, with.pins, false)?,
            Role::Uplink => {
                attach::uplink(object::uplink(with.ebpf)?, interface, with.pins)?;
                Mode::Egress
            }
            Role::Switch => attach::ingress(stages::enter(with.ebpf)?, interface, with.pins, in_stack)?,
        };
        self.attached = Some(interface.index);
        tracing::info!(
            interface = self.port.name,
            port = self.port.number,
            mode = self.port.mode.as_str(),
            "filtering"
        );
        Ok(())
    }
}
