//! The switch's ports (OpenFlow 1.3.5 §4), and what a controller may do with each.

use std::time::Duration;

use caregate_protocol::datapath::{self, Mode, Role, Welcome};
use caregate_protocol::openflow::{BadAction, BadMatch, BadRequest, ErrorKind, Port, Text};

use super::pattern::Pattern;
use super::port;

/// Whether table 0 and sensor ports are kept from the controller (ADR 17, "The guard").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Yes: table 0 is policy's, and of a sensor's frames the controller may only let fewer through.
    On,
    /// No: all tables are the controller's, and there are no sensor ports. Of builds for conformance suites alone.
    Off,
}

impl Guard {
    /// As the daemon was built.
    #[must_use]
    pub fn built() -> Self {
        if crate::GUARDED { Self::On } else { Self::Off }
    }

    /// The first table that is the controller's.
    #[must_use]
    pub fn first_table(self) -> u8 {
        match self {
            Self::On => 1,
            Self::Off => 0,
        }
    }
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEntry {
    /// As the helper says.
    pub port: datapath::Port,
    /// Since when it is as it is.
    pub since: Duration,
    /// What was administered ([`port::config`]).
    pub config: u32,
}

impl PortEntry {
    /// Whether it can carry frames.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.port.up && self.port.mode != Mode::None
    }

    /// As OpenFlow says it (§7.2.1). Names are Linux', so they fit.
    #[must_use]
    pub fn describe(&self) -> Port {
        Port {
            number: self.port.number,
            hw_addr: self.port.mac,
            name: Text::new(&self.port.name),
            config: self.config,
            state: if self.is_live() { port::state::LIVE } else { port::state::LINK_DOWN },
            current: 0,
            advertised: 0,
            supported: 0,
            peer: 0,
            current_speed: 0,
            max_speed: 0,
        }
    }
}

/// All ports, numbered from 1, and the queues of uplinks, numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    guard: Guard,
    /// By number.
    list: Vec<PortEntry>,
    queues: u32,
}

impl Ports {
    /// The helper's ports.
    #[must_use]
    pub fn new(guard: Guard, welcome: &Welcome, now: Duration) -> Self {
        let entry = |port: &datapath::Port| PortEntry { port: port.clone(), since: now, config: 0 };
        Self { guard, list: welcome.ports.iter().map(entry).collect(), queues: welcome.queues }
    }

    /// Whether there is a guard.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// Queues of each uplink.
    #[must_use]
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// All of them, by number.
    #[must_use]
    pub fn list(&self) -> &[PortEntry] {
        &self.list
    }

    /// The port of this number.
    #[must_use]
    pub fn find(&self, number: u32) -> Option<&PortEntry> {
        self.list.iter().find(|entry| entry.port.number == number)
    }

    pub(super) fn find_mut(&mut self, number: u32) -> Option<&mut PortEntry> {
        self.list.iter_mut().find(|entry| entry.port.number == number)
    }

    pub(super) fn add(&mut self, port: datapath::Port, now: Duration) {
        self.list.push(PortEntry { port, since: now, config: 0 });
        self.list.sort_by_key(|entry| entry.port.number);
    }

    /// Forgets the ports that are not of `welcome`, and says which.
    pub(super) fn retain(&mut self, welcome: &Welcome) -> Vec<PortEntry> {
        self.queues = welcome.queues;
        let is_there = |entry: &PortEntry| welcome.ports.iter().any(|port| port.number == entry.port.number);
        self.list.extract_if(.., |entry| !is_there(entry)).collect()
    }

    /// What port `number` leads to, if there is one.
    #[must_use]
    pub fn role(&self, number: u32) -> Option<Role> {
        self.find(number).map(|entry| entry.port.role)
    }

    /// Whether a port is a sensor port that is guarded.
    #[must_use]
    pub fn is_sensor(&self, number: u32) -> bool {
        self.guard == Guard::On && self.role(number) == Some(Role::Sensor)
    }

    /// Whether there are any that are guarded.
    #[must_use]
    pub fn has_sensors(&self) -> bool {
        self.list.iter().any(|entry| self.is_sensor(entry.port.number))
    }

    /// Whether frames of a sensor port can match.
    #[must_use]
    pub fn covers_sensors(&self, pattern: &Pattern) -> bool {
        match pattern.in_port() {
            Some(number) => self.is_sensor(number),
            None => self.has_sensors(),
        }
    }

    /// Whether frames can come in by the port that the pattern names. Frames from an uplink are the gateway's own kernel's; those
    /// of `CONTROLLER` come by packet-out.
    ///
    /// # Errors
    /// `OFPBMC_BAD_VALUE`.
    pub fn check_match(&self, pattern: &Pattern) -> Result<(), ErrorKind> {
        match pattern.in_port() {
            None | Some(port::LOCAL | port::CONTROLLER) => Ok(()),
            Some(number) => match self.role(number) {
                Some(Role::Sensor | Role::Switch) => Ok(()),
                Some(Role::Uplink) | None => Err(ErrorKind::BadMatch(BadMatch::BadValue)),
            },
        }
    }

    /// Whether a flow, a group or a packet-out may send to this port, whatever comes there.
    ///
    /// # Errors
    /// `OFPBAC_EPERM` for a sensor port, `OFPBAC_BAD_OUT_PORT` for what is none.
    pub fn check_output(&self, number: u32) -> Result<(), BadAction> {
        match number {
            port::IN_PORT | port::NORMAL | port::FLOOD | port::ALL | port::CONTROLLER | port::LOCAL => Ok(()),
            number if self.is_sensor(number) => Err(BadAction::Eperm),
            number if self.find(number).is_some() => Ok(()),
            _ => Err(BadAction::BadOutPort),
        }
    }

    /// Whether a packet-out may seem to have come in by this port (§7.3.7).
    ///
    /// # Errors
    /// `OFPBRC_EPERM` for a sensor port, since a controller could speak in a sensor's name; `OFPBRC_BAD_PORT` for what is none.
    pub fn check_packet_out(&self, number: u32) -> Result<(), ErrorKind> {
        match number {
            port::CONTROLLER | port::LOCAL => Ok(()),
            number if self.is_sensor(number) => Err(ErrorKind::BadRequest(BadRequest::Eperm)),
            number if self.find(number).is_some() => Ok(()),
            _ => Err(ErrorKind::BadRequest(BadRequest::BadPort)),
        }
    }
}
