//! The ports: which interface each has now, its addresses, and the program on it.

use caregate_ebpf_common::map;
use caregate_protocol::datapath::{Mode, Port, Role};

use aya::Ebpf;

use crate::attach;
use crate::error::DatapathError;
use crate::kernel::Kernel;
use crate::links::{Interface, Snapshot};
use crate::object;
use crate::pin::Pins;

/// One port of the configuration.
#[derive(Debug)]
struct Slot {
    port: Port,
    /// The interface that has the program.
    attached: Option<u32>,
}

/// All ports.
#[derive(Debug)]
pub struct Ports {
    slots: Vec<Slot>,
}

impl Ports {
    /// Numbered from 1, sensor ports first. None has an interface yet.
    #[must_use]
    pub fn new(sensor_ports: &[String], uplinks: &[String]) -> Self {
        let sensors = sensor_ports.iter().map(|name| (name, Role::Sensor));
        let named = sensors.chain(uplinks.iter().map(|name| (name, Role::Uplink)));
        let slots = (1..).zip(named).map(|(number, (name, role))| Slot {
            port: Port { number, name: name.clone(), mac: [0; 6], role, mode: Mode::None, up: false },
            attached: None,
        });
        Self { slots: slots.collect() }
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
        kernel: &mut Kernel,
        ebpf: &mut Ebpf,
        pins: &Pins,
    ) -> Result<(Vec<Port>, Vec<DatapathError>), DatapathError> {
        let before = self.list();
        let (mut words, mut addresses) = (Vec::new(), Vec::new());
        for slot in &self.slots {
            let Some(interface) = snapshot.named(&slot.port.name) else { continue };
            words.push((interface.index, entry(&slot.port, interface, snapshot)));
            addresses.extend(snapshot.addresses_of(interface).map(|address| (slot.port.number, address)));
        }
        kernel.set_ports(&words, &addresses)?;
        let mut failures = Vec::new();
        for slot in &mut self.slots {
            slot.refresh(snapshot, ebpf, pins).unwrap_or_else(|failure| failures.push(failure));
        }
        let changed = self.list().into_iter().zip(before).filter(|(now, before)| now != before);
        Ok((changed.map(|(now, _)| now).collect(), failures))
    }

    /// Takes programs off interfaces that are no ports any more.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn detach_others(&self, snapshot: &Snapshot, pins: &Pins) -> Result<(), DatapathError> {
        let is_port = |index: u32, role: Role| {
            let name = snapshot.indexed(index).map(|interface| interface.name.as_str());
            self.slots.iter().any(|slot| slot.port.role == role && Some(slot.port.name.as_str()) == name)
        };
        for index in pins.xdp_interfaces().into_iter().filter(|index| !is_port(*index, Role::Sensor)) {
            pins.remove_xdp(index)?;
        }
        for index in pins.tc_interfaces().into_iter().filter(|index| !is_port(*index, Role::Uplink)) {
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
    fn refresh(&mut self, snapshot: &Snapshot, ebpf: &mut Ebpf, pins: &Pins) -> Result<(), DatapathError> {
        let Some(interface) = snapshot.named(&self.port.name) else {
            (self.port.mac, self.port.up, self.port.mode) = ([0; 6], false, Mode::None);
            self.attached = None;
            return Ok(());
        };
        (self.port.mac, self.port.up) = (interface.mac, interface.up);
        if self.attached == Some(interface.index) {
            return Ok(());
        }
        (self.attached, self.port.mode) = (None, Mode::None);
        self.port.mode = match self.port.role {
            Role::Sensor => attach::sensor(object::sensor(ebpf)?, interface, pins)?,
            Role::Uplink => {
                attach::uplink(object::uplink(ebpf)?, interface, pins)?;
                Mode::Egress
            }
            Role::Switch => Mode::None,
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
