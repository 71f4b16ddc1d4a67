//! The programs of a switch port, and where each lies in the map of those that others go on with (tail calls).

/// The XDP program of switch ports.
pub const ENTER_PROGRAM: &str = "enter";
/// Program array: where the others are.
pub const STAGES: &str = "STAGES";
/// Per-CPU scratch memory; it belongs to the stages and is put in their place with them.
pub const WORK: &str = "WORK";
/// Per-CPU array of what was found last.
pub const CACHE: &str = "CACHE";
/// Per-CPU array of microflows ([`super::microflow`]) that have one way only.
pub const MICROFLOWS: &str = "MICROFLOWS";

/// The tc program that has one table say what is done with the gateway's own frame.
pub const DEPART_PROGRAM: &str = "depart";
/// Program array: where it is, at 0.
pub const DEPARTURES: &str = "DEPARTURES";
/// Per-CPU scratch memory of the tc programs.
pub const SEEN: &str = "SEEN";

/// One table.
pub const WALK: u32 = 0;
/// A list of actions, or the action set.
pub const ACT: u32 = 1;
/// A group's bucket.
pub const CHOOSE: u32 = 2;
/// The frame's way out.
pub const LEAVE: u32 = 3;

/// The stages, by number.
pub const STAGE_PROGRAMS: [&str; 4] = ["walk", "act", "choose", "leave"];
