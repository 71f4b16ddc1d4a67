//! The gateway as an OpenFlow 1.3.5 switch: table 1, which belongs to the controller (docs/control-path.md, "The datapath").
//!
//! Pure: a flow-mod goes in with `now`, the standard's error or what follows from it comes out. The table holds what the
//! kernel is to do; whoever calls hands [`table::FlowTable::flows`] to the helper after each change, and its counters back.
//!
//! What makes it other than a common switch's table: the controller may only *narrow* what a sensor may do. A rule that
//! covers a sensor port's frames drops them or leaves them to `LOCAL`, and nothing else, so that no controller can mirror,
//! redirect or rewrite a patient's traffic.

pub mod flow;
pub mod pattern;
pub mod table;
pub mod treatment;

/// Reserved port numbers (§7.2.1, `enum ofp_port_no`).
pub mod port {
    /// Back out of the port that the frame came in by.
    pub const IN_PORT: u32 = 0xffff_fff8;
    /// The gateway's own forwarding.
    pub const NORMAL: u32 = 0xffff_fffa;
    /// All ports but some.
    pub const FLOOD: u32 = 0xffff_fffb;
    /// All ports.
    pub const ALL: u32 = 0xffff_fffc;
    /// The controller, in a packet-in.
    pub const CONTROLLER: u32 = 0xffff_fffd;
    /// The gateway itself.
    pub const LOCAL: u32 = 0xffff_fffe;
    /// No port: the wildcard of a delete's filter.
    pub const ANY: u32 = 0xffff_ffff;
}
