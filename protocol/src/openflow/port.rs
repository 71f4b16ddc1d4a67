//! Ports: their reserved numbers (§7.2.1), what a switch says of them, and that one has changed (§7.4.3).

use super::message::Fault;
use super::text::Text;
use super::wire::{pad, put_u32};
use crate::wire::{Reader, WireError};

/// `OFPP_MAX`: ports are numbered from 1 to here.
pub const MAX: u32 = 0xffff_ff00;
/// Back out of the port that the frame came in by.
pub const IN_PORT: u32 = 0xffff_fff8;
/// Packet-out alone: through the flow tables.
pub const TABLE: u32 = 0xffff_fff9;
/// The switch's own forwarding.
pub const NORMAL: u32 = 0xffff_fffa;
/// All ports but some.
pub const FLOOD: u32 = 0xffff_fffb;
/// All ports.
pub const ALL: u32 = 0xffff_fffc;
/// The controller, in a packet-in.
pub const CONTROLLER: u32 = 0xffff_fffd;
/// The switch itself.
pub const LOCAL: u32 = 0xffff_fffe;
/// No port: the wildcard of a delete's and of a statistics request's filter. `OFPG_ANY` for groups is the same number.
pub const ANY: u32 = 0xffff_ffff;

/// Bits of [`Port::config`], `enum ofp_port_config`.
pub mod config {
    /// `OFPPC_PORT_DOWN`
    pub const PORT_DOWN: u32 = 1;
    /// `OFPPC_NO_RECV`
    pub const NO_RECV: u32 = 1 << 2;
    /// `OFPPC_NO_FWD`
    pub const NO_FWD: u32 = 1 << 5;
    /// `OFPPC_NO_PACKET_IN`
    pub const NO_PACKET_IN: u32 = 1 << 6;
}

/// Bits of [`Port::state`], `enum ofp_port_state`.
pub mod state {
    /// `OFPPS_LINK_DOWN`
    pub const LINK_DOWN: u32 = 1;
    /// `OFPPS_BLOCKED`
    pub const BLOCKED: u32 = 1 << 1;
    /// `OFPPS_LIVE`
    pub const LIVE: u32 = 1 << 2;
}

/// Bytes of a port's name with the NUL behind it, `OFP_MAX_PORT_NAME_LEN`.
pub const NAME_BYTES: usize = 16;
/// Bytes of a [`Port`] on the wire.
pub(super) const PORT_BYTES: usize = 64;

/// `struct ofp_port` (§7.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u32,
    /// Its MAC address.
    pub hw_addr: [u8; 6],
    /// Of its interface.
    pub name: Text<NAME_BYTES>,
    /// What was administered: [`config`].
    pub config: u32,
    /// What is: [`state`].
    pub state: u32,
    /// `enum ofp_port_features` in use.
    pub current: u32,
    /// Those that it advertises.
    pub advertised: u32,
    /// Those that it has.
    pub supported: u32,
    /// Those that the other end advertises.
    pub peer: u32,
    /// kbit/s
    pub current_speed: u32,
    /// kbit/s
    pub max_speed: u32,
}

impl Port {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.number);
        pad(out, 4);
        out.extend(self.hw_addr);
        pad(out, 2);
        out.extend(self.name.bytes());
        for value in [
            self.config,
            self.state,
            self.current,
            self.advertised,
            self.supported,
            self.peer,
            self.current_speed,
            self.max_speed,
        ] {
            put_u32(out, value);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let number = reader.u32("port_no")?;
        reader.take("pad", 4)?;
        let hw_addr = reader.array("hw_addr")?;
        reader.take("pad", 2)?;
        Ok(Self {
            number,
            hw_addr,
            name: Text::of_bytes(reader.array("name")?),
            config: reader.u32("config")?,
            state: reader.u32("state")?,
            current: reader.u32("curr")?,
            advertised: reader.u32("advertised")?,
            supported: reader.u32("supported")?,
            peer: reader.u32("peer")?,
            current_speed: reader.u32("curr_speed")?,
            max_speed: reader.u32("max_speed")?,
        })
    }
}

/// `enum ofp_port_reason`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PortReason {
    /// `OFPPR_ADD`
    Add = 0,
    /// `OFPPR_DELETE`
    Delete = 1,
    /// `OFPPR_MODIFY`
    Modify = 2,
}

/// `struct ofp_port_status` (§7.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortStatus {
    /// What happened.
    pub reason: PortReason,
    /// The port as it is now.
    pub port: Port,
}

impl PortStatus {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.reason as u8);
        pad(out, 7);
        self.port.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let reason = match reader.u8("reason")? {
            0 => PortReason::Add,
            1 => PortReason::Delete,
            2 => PortReason::Modify,
            other => return Err(Fault::Value { field: "reason", value: other.into() }),
        };
        reader.take("pad", 7)?;
        Ok(Self { reason, port: Port::decode(reader)? })
    }
}

/// `struct ofp_port_mod` (§7.3.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortMod {
    /// Which port.
    pub port: u32,
    /// Its MAC address, so that no other port is meant; else `OFPPMFC_BAD_HW_ADDR`.
    pub hw_addr: [u8; 6],
    /// [`config`]
    pub config: u32,
    /// Which bits of `config` are written.
    pub mask: u32,
    /// `enum ofp_port_features` to advertise; 0 leaves them as they are.
    pub advertise: u32,
}

impl PortMod {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.port);
        pad(out, 4);
        out.extend(self.hw_addr);
        pad(out, 2);
        for value in [self.config, self.mask, self.advertise] {
            put_u32(out, value);
        }
        pad(out, 4);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let port = reader.u32("port_no")?;
        reader.take("pad", 4)?;
        let hw_addr = reader.array("hw_addr")?;
        reader.take("pad", 2)?;
        let (config, mask) = (reader.u32("config")?, reader.u32("mask")?);
        let advertise = reader.u32("advertise")?;
        reader.take("pad", 4)?;
        Ok(Self { port, hw_addr, config, mask, advertise })
    }
}
