//! What is done with a frame: table 0 on sensor ports, what rules say and the floor on uplinks
//! (docs/control-path.md, "The datapath").
//!
//! What it has to know (who is bound, which ports are open, the rules, the meters) it asks a [`World`]: the kernel's maps, or
//! a test's.

use crate::Kind;
use crate::frame::{Address, Headers};

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What was done with a frame; each frame is counted under exactly one.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Verdict {
            $($(#[$doc])* $name,)*
        }

        impl Verdict {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// A name for labels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }
        }
    };
}

verdicts! {
    /// A bound sensor's to an open port: passed.
    Admitted = "admitted",
    /// What any device may say, within its meter: passed.
    Discovery = "discovery",
    /// Dropped; its kind says why.
    Malformed = "malformed",
    /// An IPv4 fragment, or IPv6 with an extension header, which can't be judged by one frame: dropped.
    Fragment = "fragment",
    /// More than one tag: dropped.
    Vlans = "vlans",
    /// From a group address, or from the gateway's own: dropped.
    BadSource = "bad_source",
    /// A stranger above its own meter: dropped.
    MeterSource = "meter_source",
    /// A stranger, above the meter of all strangers: dropped.
    MeterTotal = "meter_total",
    /// A bound sensor above its own meter: dropped.
    MeterDevice = "meter_device",
    /// Of a device that nobody bound: dropped.
    UnboundSource = "unbound_source",
    /// Of a bound sensor, to a port that is not open: dropped.
    ClosedPort = "closed_port",
    /// Of a bound sensor, to another device or address than the gateway's: dropped.
    OtherDestination = "other_destination",
    /// Of a bound sensor, and a rule says so: dropped.
    Rule = "rule",
    /// On an interface that is no port: dropped.
    UnknownPort = "unknown_port",
    /// The gateway's own, and no rule matches: sent.
    Sent = "sent",
    /// The gateway's own, and a rule lets it go, perhaps marked: sent.
    SentByRule = "sent_by_rule",
    /// The gateway's own, and a rule says so: dropped.
    SendDropped = "send_dropped",
    /// A rule would have dropped it, and it is for core or controller, or keeps the link up: sent.
    Floor = "floor",
    /// To the controller and, without the floor, nowhere else.
    ToController = "to_controller",
    /// It was for the controller, and above the meter or the ring was full: dropped.
    ToControllerLost = "to_controller_lost",
    /// Came in by a sensor port and was on its way out by an uplink: dropped.
    SensorForwarded = "sensor_forwarded",
    /// Came in elsewhere and is routed: sent, not judged.
    Forwarded = "forwarded",
    /// On a switch port: sent out by a port.
    Redirected = "redirected",
    /// On a switch port: for the gateway's own stack.
    Delivered = "delivered",
    /// On a switch port, and no rule matches: dropped.
    TableMiss = "table_miss",
    /// On a switch port, and its rules send it nowhere: dropped.
    SwitchDropped = "switch_dropped",
    /// On a switch port, and above a rule's meter: dropped.
    Metered = "metered",
    /// On a switch port, and for the slow path: dropped here, and sent from there.
    Punted = "punted",
    /// It was for the slow path, and the ring was full: dropped.
    PuntLost = "punt_lost",
}

impl Verdict {
    /// How many there are.
    #[expect(clippy::cast_possible_truncation, reason = "a few dozen, and try_from isn't const")]
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// Whether the frame goes on.
    #[must_use]
    #[inline(always)]
    pub const fn passes(self) -> bool {
        matches!(
            self,
            Self::Admitted
                | Self::Discovery
                | Self::Sent
                | Self::SentByRule
                | Self::Floor
                | Self::Forwarded
                | Self::Redirected
                | Self::Delivered
        )
    }
}

/// What a judgement needs to know.
pub trait World {
    /// Whether the address is the port's own.
    fn is_own_mac(&mut self, mac: u64) -> bool;
    /// The bound device with this address.
    fn device(&mut self, mac: u64) -> Option<u32>;
    /// Whether sensors may reach this port of the gateway.
    fn is_open(&mut self, protocol: u8, port: u16) -> bool;
    /// Whether the address is one of the port's own.
    fn is_own_address(&mut self, is_v6: bool, address: Address) -> bool;
    /// Takes a token of a bound device.
    fn meter_device(&mut self, device: u32) -> bool;
    /// Takes a token of a stranger; the verdict is [`Verdict::Discovery`], [`Verdict::MeterSource`] or [`Verdict::MeterTotal`].
    fn meter_stranger(&mut self, mac: u64) -> Verdict;
}

/// A verdict, and whose frame it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What is done.
    pub verdict: Verdict,
    /// The bound device.
    pub device: Option<u32>,
}

/// The bit that group addresses have (IEEE 802 §8.1).
const GROUP_BIT: u64 = 1 << 40;

/// Judges a frame that came in by a sensor port: table 0.
#[inline(always)]
pub fn ingress<W: World>(headers: &Headers, world: &mut W) -> Judgement {
    if let Some(verdict) = unfit(headers.kind) {
        return Judgement { verdict, device: None };
    }
    if headers.source & GROUP_BIT != 0 || world.is_own_mac(headers.source) {
        return Judgement { verdict: Verdict::BadSource, device: None };
    }
    let device = world.device(headers.source);
    let verdict = match device {
        Some(index) => bound(headers, index, world),
        None if headers.is_discovery() => world.meter_stranger(headers.source),
        None => Verdict::UnboundSource,
    };
    Judgement { verdict, device }
}

/// Clause 1: what can't be right, or can't be judged.
#[inline(always)]
fn unfit(kind: Kind) -> Option<Verdict> {
    if matches!(kind, Kind::ManyVlans) {
        Some(Verdict::Vlans)
    } else if matches!(kind, Kind::Ipv4Fragment | Kind::Ipv6Extension) {
        Some(Verdict::Fragment)
    } else if kind.is_malformed() {
        Some(Verdict::Malformed)
    } else {
        None
    }
}

#[inline(always)]
fn bound<W: World>(headers: &Headers, index: u32, world: &mut W) -> Verdict {
    let has_ports = matches!(headers.kind, Kind::Ipv4Tcp | Kind::Ipv4Udp | Kind::Ipv6Tcp | Kind::Ipv6Udp);
    let is_open = has_ports && world.is_open(headers.protocol, headers.destination_port);
    let is_v6 = matches!(headers.kind, Kind::Ipv6Tcp | Kind::Ipv6Udp);
    if is_open
        && world.is_own_mac(headers.destination)
        && world.is_own_address(is_v6, headers.destination_address)
    {
        // Table 0 has admitted it; the controller's tables, which come next, can only take away.
        return Verdict::Admitted;
    }
    if headers.is_discovery() {
        return if world.meter_device(index) { Verdict::Discovery } else { Verdict::MeterDevice };
    }
    if is_open { Verdict::OtherDestination } else { Verdict::ClosedPort }
}

/// Where rules send a frame of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    Drop,
    /// On its way out.
    Normal,
    /// To the controller.
    Controller,
}

/// What rules do with a frame of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Treatment {
    /// Where to.
    pub output: Output,
    /// Six bits.
    pub dscp: Option<u8>,
    /// Of the uplink.
    pub queue: Option<u16>,
    /// Bytes for the controller.
    pub max_len: u16,
}

/// What is done with a frame of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    /// [`Verdict::ToController`] is yet to be tried.
    pub verdict: Verdict,
    /// To be written; none where it stands there already.
    pub dscp: Option<u8>,
    /// To be set.
    pub queue: Option<u16>,
    /// Bytes for the controller.
    pub copy: Option<u16>,
}

/// Judges a frame of the gateway's own, which has this mark, by the rule that it meets. `is_kept` says whether it is for core or
/// controller or keeps the link up ([`Headers::is_link_upkeep`]), and is asked only where a rule would not send it.
#[inline(always)]
pub fn egress(dscp: u8, rule: Option<Treatment>, is_kept: impl FnOnce() -> bool) -> Egress {
    let Some(rule) = rule else {
        return Egress { verdict: Verdict::Sent, dscp: None, queue: None, copy: None };
    };
    let mark = Egress {
        verdict: Verdict::SentByRule,
        dscp: rule.dscp.filter(|wanted| *wanted != dscp),
        queue: rule.queue,
        copy: None,
    };
    let copy = match rule.output {
        Output::Normal => return mark,
        Output::Controller => Some(rule.max_len),
        Output::Drop => None,
    };
    if is_kept() {
        return Egress { verdict: Verdict::Floor, copy, ..mark };
    }
    let verdict = if copy.is_some() { Verdict::ToController } else { Verdict::SendDropped };
    Egress { verdict, dscp: None, queue: None, copy }
}

#[cfg(test)]
mod tests;
