//! Between a gateway's daemon and the helper that holds its BPF maps: frames on a Unix stream socket.
//!
//! ```text
//!   0        4
//!   +--------+---------------------------+   length: bytes after it, 1 ..= FRAME_BYTES_MAX, big-endian
//!   | length | CBOR [type, number, …]    |   number: the daemon's own, which the reply repeats; 0 in events
//!   +--------+---------------------------+
//! ```
//! | type | frame | way |
//! |---|---|---|
//! | 1 | [`Request::Hello`] | daemon → helper, first |
//! | 2 | [`Request::SetPolicy`] | daemon → helper |
//! | 4 | [`Request::Counters`] | daemon → helper |
//! | 5 | [`Request::PacketOuts`] | daemon → helper |
//! | 6 | [`Request::PacketSocket`] | daemon → helper |
//! | 7 | [`Request::Change`] | daemon → helper |
//! | 8 | [`Request::SwitchCounters`] | daemon → helper |
//! | 32 | [`Reply::Done`] | helper → daemon |
//! | 33 | [`Reply::Welcome`] | helper → daemon |
//! | 34 | [`Reply::Counters`] | helper → daemon |
//! | 35 | [`Reply::Socket`], a descriptor beside its first byte (SCM_RIGHTS) | helper → daemon |
//! | 36 | [`Refused`] | helper → daemon |
//! | 37 | [`Reply::SwitchCounters`] | helper → daemon |
//! | 38 | [`Reply::PacketOuts`] | helper → daemon |
//! | 64 | [`Event::PacketIn`] | helper → daemon |
//! | 65 | [`Event::PortStatus`] | helper → daemon |
//! | 66 | [`Event::Punt`] | helper → daemon |
//!
//! Replies come in the order of the requests; events in between.

use std::net::IpAddr;

use thiserror::Error;

use crate::cbor::CborError;
use switch::{Change, SwitchCounters};

mod codec;
pub mod switch;

pub use codec::{Framer, frame_length};

/// In [`Request::Hello`] and [`Welcome`]; raised with any change of a frame's meaning.
pub const VERSION: u16 = 4;
/// Most bytes after the length: [`switch::CHANGES_MAX`] flows with all their actions are 300 kB, the counters of all flows,
/// groups and meters 400 kB.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;
/// Ports of a gateway: a router's interfaces, and some to spare.
pub const PORTS_MAX: usize = 16;
/// Addresses of bound devices: a ward's sensors on one gateway.
pub const DEVICES_MAX: usize = 256;
/// Ports of the gateway that sensors may reach: MQTT's two, and some to spare.
pub const OPEN_PORTS_MAX: usize = 16;
/// Peers whose frames no rule drops: cores and controllers.
pub const FLOOR_MAX: usize = 32;
/// Queues of an uplink, numbered from 0: the kernel's priorities that `prio` and `mqprio` tell apart.
pub const QUEUES: u32 = 8;
/// Longest frame in a packet-in or packet-out: Ethernet's 1,518 bytes, two tags, and some to spare.
pub const PACKET_BYTES_MAX: usize = 1536;
/// Shortest frame in a packet-out: an Ethernet header.
pub const PACKET_BYTES_MIN: usize = 14;
/// Frames of one [`Request::PacketOuts`]: 400 kB of the longest.
pub const PACKET_OUTS_MAX: usize = 256;
/// Longest name of an interface: Linux' IFNAMSIZ without its zero.
pub const NAME_BYTES_MAX: usize = 15;
/// Longest name of a kind of frame or of a verdict.
pub const WORD_BYTES_MAX: usize = 32;
/// Most kinds, or verdicts, that are counted for one port.
pub const WORDS_MAX: usize = 96;
/// Longest explanation of a refusal: a sentence; what the kernel's verifier says is cut to it.
pub const DETAIL_BYTES_MAX: usize = 512;
/// `in_port` of what the gateway itself sends (OpenFlow 1.3.5 §7.2.1, `OFPP_LOCAL`).
pub const PORT_LOCAL: u32 = 0xffff_fffe;

/// A bound device's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// The daemon's number for the device, below [`DEVICES_MAX`]; its frames are counted under it.
    pub index: u16,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// A port of the gateway that bound sensors may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpenPort {
    /// IP protocol: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// A peer whose frames no rule drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Floor {
    /// IP protocol: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's port.
    pub port: u16,
}

/// All that table 0 admits beside what every new device may say, and the floor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// At most [`DEVICES_MAX`], each address once.
    pub devices: Vec<Device>,
    /// At most [`OPEN_PORTS_MAX`].
    pub ports: Vec<OpenPort>,
    /// At most [`FLOOR_MAX`].
    pub floor: Vec<Floor>,
}

/// What the daemon asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// First on each connection.
    Hello {
        /// [`VERSION`].
        version: u16,
        /// Chosen anew by each process: with another one, flow ids begin anew and so do their counters.
        session: u64,
    },
    /// Replaces the policy, in one step.
    SetPolicy(Policy),
    /// Changes the switch's tables, groups and meters. A series of these takes effect in one step, when the last of them is
    /// answered.
    Change {
        /// In this order; at most [`switch::CHANGES_MAX`].
        changes: Vec<Change>,
        /// There is more of the series.
        more: bool,
    },
    /// What was counted.
    Counters,
    /// What was counted of the switch.
    SwitchCounters,
    /// Sends frames; no table sees them. At most [`PACKET_OUTS_MAX`].
    PacketOuts(Vec<PacketOut>),
    /// A packet socket that hears what devices say of themselves on a port: ARP, LLDP, EAPOL, UDP and ICMPv6.
    PacketSocket {
        /// A port's number.
        port: u32,
    },
}

/// A frame to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketOut {
    /// Number of a port that does not lead to sensors.
    pub port: u32,
    /// Below [`QUEUES`]; 0 where none was asked for.
    pub queue: u32,
    /// From its Ethernet header on.
    pub frame: Vec<u8>,
}

/// What a port leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Sensors.
    Sensor = 1,
    /// Core and controller.
    Uplink = 2,
    /// Anything else: a port of the switch.
    Switch = 3,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sensor, Self::Uplink, Self::Switch];
}

/// Where a port's program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Nowhere: there is no such interface now.
    None = 0,
    /// XDP in the driver.
    Native = 1,
    /// XDP in the stack, for drivers without it.
    Generic = 2,
    /// tc egress, on uplinks.
    Egress = 3,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Native, Self::Generic, Self::Egress];

    /// Its name, for logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Egress => "egress",
        }
    }
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// From 1, in the order of the helper's configuration.
    pub number: u32,
    /// The interface.
    pub name: String,
    /// Its MAC address; zeroes while there is no such interface.
    pub mac: [u8; 6],
    /// What it leads to.
    pub role: Role,
    /// Where its program runs.
    pub mode: Mode,
    /// Whether it has a carrier and is switched on.
    pub up: bool,
}

/// What the helper says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// [`VERSION`].
    pub version: u16,
    /// Of each uplink.
    pub queues: u32,
    /// All ports, by number.
    pub ports: Vec<Port>,
}

/// Frames and bytes since the maps were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One word and what was counted under it; words that counted nothing are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// A kind of frame or a verdict, as in `ebpf/common`.
    pub word: String,
    /// How much.
    pub traffic: Traffic,
}

/// What the kernel has counted on an interface since it was made (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Received.
    pub rx: Traffic,
    /// Sent.
    pub tx: Traffic,
    /// Bad frames received, for whatever reason.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Received, and then not wanted or without room.
    pub rx_dropped: u64,
    /// Dropped before they were sent.
    pub tx_dropped: u64,
    /// Collisions.
    pub collisions: u64,
    /// Of the bad ones: overruns of the receiver's ring.
    pub rx_over_errors: u64,
    /// Of the bad ones: checksum (FCS).
    pub rx_crc_errors: u64,
    /// Of the bad ones: alignment.
    pub rx_frame_errors: u64,
}

/// What was counted on one port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// The port.
    pub number: u32,
    /// By what a frame is; each is counted under one kind.
    pub kinds: Vec<Counted>,
    /// By what was done with it; each is counted under one verdict.
    pub verdicts: Vec<Counted>,
    /// Of an uplink, what went out by each of its queues; else none.
    pub queues: Vec<Traffic>,
    /// What the kernel itself counts of the interface, where there is one now.
    pub link: Option<LinkCounters>,
}

/// What was counted of one bound device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceCounters {
    /// The daemon's number for it.
    pub index: u16,
    /// Let through to the gateway.
    pub passed: Traffic,
    /// Dropped, for whatever reason.
    pub dropped: Traffic,
}

/// All counters. They are never reset but by making the maps anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// All ports.
    pub ports: Vec<PortCounters>,
    /// Devices that counted anything.
    pub devices: Vec<DeviceCounters>,
}

/// Why the helper did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The request does not parse; the connection ends.
    Malformed = 1,
    /// Another version; the connection ends.
    Version = 2,
    /// No hello yet.
    Order = 3,
    /// Something in the policy means nothing, such as an address twice.
    Policy = 4,
    /// A rule that would let a sensor's frame elsewhere than to the gateway, or that means nothing.
    Rule = 5,
    /// No such port, or it has no interface now.
    Port = 6,
    /// A frame may not be sent to sensors.
    SensorPort = 7,
    /// The kernel said no.
    Kernel = 8,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Version,
        Self::Order,
        Self::Policy,
        Self::Rule,
        Self::Port,
        Self::SensorPort,
        Self::Kernel,
    ];

    /// A word for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Order => "order",
            Self::Policy => "policy",
            Self::Rule => "rule",
            Self::Port => "port",
            Self::SensorPort => "sensor_port",
            Self::Kernel => "kernel",
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the datapath helper refused ({}): {detail}", .reason.as_str())]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// The same in words.
    pub detail: String,
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is in force.
    Done,
    /// To a hello.
    Welcome(Welcome),
    /// To a request for counters.
    Counters(Counters),
    /// A descriptor comes with it.
    Socket,
    /// To a request for the switch's counters.
    SwitchCounters(SwitchCounters),
    /// What came of each frame, in their order: none where it is sent, else why not.
    PacketOuts(Vec<Option<Reason>>),
}

/// What the helper says unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A rule sent a frame of the gateway's own to the controller.
    PacketIn {
        /// Where it was going out.
        uplink: u32,
        /// The flow.
        rule: u64,
        /// Bytes of the whole frame.
        total_len: u16,
        /// Its first bytes.
        frame: Vec<u8>,
    },
    /// A port has changed.
    PortStatus(Port),
    /// A frame that the kernel could not do all actions of.
    Punt(Punt),
}

/// A frame that the kernel could not do all actions of; it was counted and metered, and nothing of it was sent but a copy to the
/// gateway's stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Punt {
    /// Where it came in.
    pub in_port: u32,
    /// Tables from this one on did not see it: a meter dropped it. [`switch::TABLES`] where none did.
    pub before: u8,
    /// Of the whole frame.
    pub total_len: u32,
    /// Steps of drop precedence that meters added (`OFPMBT_DSCP_REMARK`), by table.
    pub remarks: [u8; switch::TABLES as usize],
    /// The gateway's stack has its copy: the first that actions send to `LOCAL` or `NORMAL`.
    pub is_handed: bool,
    /// As it came in; its first [`PACKET_BYTES_MAX`] bytes.
    pub frame: Vec<u8>,
}

/// What the daemon sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToHelper {
    /// The daemon's own, repeated in the reply.
    pub number: u32,
    /// What is asked for.
    pub request: Request,
}

/// What the helper sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromHelper {
    /// To one request.
    Reply {
        /// The request's.
        number: u32,
        /// What came of it.
        result: Result<Reply, Refused>,
    },
    /// Unasked.
    Event(Event),
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Zero, or more than [`FRAME_BYTES_MAX`].
    #[error("frame: length {0} is out of bounds")]
    Length(usize),
    /// No such type, or not with so many fields.
    #[error("frame: type {0} is not known")]
    Type(u8),
    /// A field holds a value that has no meaning.
    #[error("frame: {field} of value {value} is not known")]
    Value {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Malformed.
    #[error("frame: {0}")]
    Cbor(#[from] CborError),
}

impl FrameError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Length(_) => "length",
            Self::Type(_) => "type",
            Self::Value { .. } => "value",
            Self::Cbor(source) => source.reason(),
        }
    }
}

#[cfg(test)]
mod tests;
