//! The slow path: the whole pipeline in plain Rust, for frames that the kernel could not do all actions of and for packet-outs
//! (ADR 17, "The slow path").
//!
//! ```text
//!   punted frame ──▶ execute ─┐                                    ┌─▶ Output: by the helper, out of a port
//!   packet-out ──▶ execute_actions ─▶ pipeline ─ set ─ packet ────┤
//!                                                                  └─▶ PacketIn: to the controller
//! ```
//! Pure: tables are looked up in a [`View`], nothing is counted of flows and groups (the kernel has counted the frame whole), and
//! meters are not asked again: what they decided comes with the frame. The gateway's own stack has its copy from the kernel. What it comes to is bounded by [`OUTPUTS_MAX`] and [`STEPS_MAX`]: tables only go up, groups only so
//! deep.

mod packet;
mod pipeline;
mod set;
#[cfg(test)]
mod tests;

use caregate_ebpf_common::switch::Key;
use caregate_protocol::datapath::switch::{FlowAction, FlowInstructions, GroupEntry, MATCH_BYTES, TABLES};
use caregate_protocol::datapath::{Punt, Role};
use caregate_protocol::openflow::PacketInReason;

use packet::Packet;
use pipeline::Run;

/// What one frame may come to: each port of a gateway, a few times over.
pub const OUTPUTS_MAX: usize = 64;
/// Actions for one frame: the lists of eight tables, and a group `all` of as many buckets as there may be, with a list each.
pub const STEPS_MAX: usize = 2048;
/// Groups in groups: a failover behind a select behind an `all`, and one to spare.
pub const GROUP_DEPTH_MAX: usize = 4;
/// `OFPCML_NO_BUFFER` (§7.2.5): the whole frame.
const WHOLE: u16 = 0xffff;
/// Cookie of a packet-in that no flow sent (§7.4.1).
const NO_COOKIE: u64 = u64::MAX;

/// A flow that a frame has matched.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// What it does.
    pub instructions: &'a FlowInstructions,
    /// The controller's name for it.
    pub cookie: u64,
    /// The table-miss entry (§5.4): it matches all, at priority 0.
    pub is_table_miss: bool,
}

/// A port, as far as actions ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortView {
    /// OpenFlow's number.
    pub number: u32,
    /// What it leads to.
    pub role: Role,
    /// Whether it has a carrier and is switched on.
    pub is_live: bool,
    /// `OFPPC_NO_FWD`: nothing goes out here.
    pub no_forward: bool,
    /// `OFPPC_NO_PACKET_IN`: the controller is told of nothing that came in here.
    pub no_packet_in: bool,
}

/// The switch's tables as they are in force.
pub trait View {
    /// Where the controller's pipeline begins.
    fn first_table(&self) -> u8;
    /// The flow of the highest priority in a table that matches.
    fn lookup(&self, table: u8, key: &Key) -> Option<Found<'_>>;
    /// A group.
    fn group(&self, id: u32) -> Option<&GroupEntry>;
    /// A port.
    fn port(&self, number: u32) -> Option<PortView>;
    /// All ports.
    fn ports(&self) -> Vec<PortView>;
}

/// A frame for the slow path.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Where it came in; of a packet-out what the controller says.
    pub in_port: u32,
    /// Tables from this one on are not for it: a meter dropped it there.
    pub before: u8,
    /// Of the whole frame.
    pub total_len: u32,
    /// Steps of drop precedence that meters added, by table.
    pub remarks: [u8; TABLES as usize],
    /// The gateway's stack has its copy.
    pub is_handed: bool,
    /// From its Ethernet header on. Where there is less of it than `total_len`, it can't be sent.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A whole frame that no meter has changed or stopped.
    #[must_use]
    pub fn new(in_port: u32, bytes: &'a [u8]) -> Self {
        let total_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (before, remarks) = (TABLES, [0; TABLES as usize]);
        Self { in_port, before, total_len, remarks, is_handed: false, bytes }
    }
}

impl<'a> From<&'a Punt> for Frame<'a> {
    fn from(punt: &'a Punt) -> Self {
        let Punt { in_port, before, total_len, remarks, is_handed, ref frame } = *punt;
        Self { in_port, before, total_len, remarks, is_handed, bytes: frame }
    }
}

/// A frame for the controller (§7.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketIn {
    /// Why.
    pub reason: PacketInReason,
    /// Where the flow is that sent it.
    pub table: u8,
    /// The flow's; all ones where none did.
    pub cookie: u64,
    /// Where the frame came in.
    pub in_port: u32,
    /// What tables wrote of it.
    pub metadata: u64,
    /// Its tunnel.
    pub tunnel: u64,
    /// Bytes of the whole frame.
    pub total_len: u32,
    /// Its first bytes, as many as were asked for.
    pub data: Vec<u8>,
}

/// Something that a frame came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// To be sent.
    Output {
        /// No reserved one.
        port: u32,
        /// Its queue there; 0 where none was asked for.
        queue: u32,
        /// From its Ethernet header on.
        frame: Vec<u8>,
    },
    /// For the controller.
    PacketIn(PacketIn),
    /// Not done; the word is for a counter.
    LeftOut(&'static str),
}

/// Whether a flow's value and mask match a key.
#[must_use]
pub fn matches(key: &Key, value: &[u8; MATCH_BYTES], mask: &[u8; MATCH_BYTES]) -> bool {
    let (values, masks) = (value.as_chunks::<8>().0, mask.as_chunks::<8>().0);
    let mut words = key.iter().zip(values.iter().zip(masks));
    words.all(|(word, (value, mask))| word & u64::from_be_bytes(*mask) == u64::from_be_bytes(*value))
}

/// Everything that a punted frame comes to, in the order of its actions.
#[must_use]
pub fn execute(view: &impl View, frame: Frame<'_>) -> Vec<Made> {
    if view.port(frame.in_port).is_some_and(|port| port.role == Role::Sensor) {
        return vec![Made::LeftOut("punt-sensor")];
    }
    let mut run = Run::new(view, frame);
    run.pipeline(Packet::new(frame.in_port, frame.bytes));
    run.made
}

/// Everything that a packet-out comes to (§7.3.7). With output `TABLE` it meets the tables as a frame from `in_port`.
#[must_use]
pub fn execute_actions(view: &impl View, frame: Frame<'_>, actions: &[FlowAction]) -> Vec<Made> {
    if view.port(frame.in_port).is_some_and(|port| port.role == Role::Sensor) {
        return vec![Made::LeftOut("packet-out-sensor")];
    }
    let mut run = Run::new(view, frame);
    run.packet_out(Packet::new(frame.in_port, frame.bytes), actions);
    run.made
}
