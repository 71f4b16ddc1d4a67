//! What operators want, and the flows that it takes. Pure.
//!
//! An intent is compiled for each switch that it concerns. On a gateway (table 1) sensor ports' frames can only be narrowed, so
//! the flows of `quarantine` and `sensor-may-reach-gateway` have no actions or `LOCAL`; on a switch on the way (table 0) what is
//! not dropped goes on by `NORMAL`.

use std::collections::BTreeMap;
use std::fmt;

use caregate_protocol::id::Lane;
use caregate_protocol::openflow::{Action, Instruction, Match, Oxm, port};
use caregate_protocol::policy::Mac;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::rule::{self, Rule};

/// Intents at once: each takes one or two of the 64 rules that a gateway has, and a fleet of 512 has a few exceptions each.
pub const INTENTS_MAX: usize = 4096;
/// Longest name: as a device id.
pub const NAME_BYTES_MAX: usize = 64;
/// Highest DSCP: six bits (RFC 2474 §3).
pub const DSCP_MAX: u8 = 63;
/// The lanes' default source ports: alarm here, backlog four above (docs/control-path.md, "Lanes on the wire").
pub const LANE_PORTS_DEFAULT: u16 = 7400;

/// Nothing stands above a quarantine.
const PRIORITY_QUARANTINE: u16 = u16::MAX;
/// Above what an expert is likely to write, so that the permission counts.
const PRIORITY_PERMIT: u16 = 0x8000;
/// Below both: it says how, not whether.
const PRIORITY_LANE: u16 = 0x4000;

const ETH_TYPE_IPV4: u16 = 0x0800;
const ETH_TYPE_IPV6: u16 = 0x86dd;
const IP_PROTO_UDP: u8 = 17;

/// What an intent or a switch is called by is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IntentError {
    /// Out of the alphabet or too long.
    #[error("an intent's name must be 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
    Name,
    /// Not one station's.
    #[error("`mac` {0} is no address of one station")]
    Mac(Mac),
    /// More than six bits.
    #[error("`dscp` is {0}, the highest is {DSCP_MAX}")]
    Dscp(u8),
    /// More than [`INTENTS_MAX`].
    #[error("there are {INTENTS_MAX} intents already")]
    TooMany,
    /// No datapath id.
    #[error("`switch` must be a datapath id of 16 hexadecimal digits")]
    DatapathId,
}

/// A switch's datapath id, as text 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatapathId(pub u64);

impl fmt::Display for DatapathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for DatapathId {
    type Err = IntentError;

    fn from_str(text: &str) -> Result<Self, IntentError> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = if is_hex { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or(IntentError::DatapathId)
    }
}

impl TryFrom<String> for DatapathId {
    type Error = IntentError;

    fn try_from(text: String) -> Result<Self, IntentError> {
        text.parse()
    }
}

impl From<DatapathId> for String {
    fn from(id: DatapathId) -> Self {
        id.to_string()
    }
}

/// Whose packets are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaneName {
    /// Before all else.
    Alarm,
    /// Numerics.
    Vitals,
    /// Sampled signals.
    Waveform,
    /// What can wait.
    Activity,
    /// What is left of an outage, of all lanes.
    Backlog,
}

impl LaneName {
    /// Its UDP source port, above that of alarms.
    fn source_port(self, first: u16) -> u16 {
        let lanes = Lane::ALL.len();
        let index = match self {
            Self::Alarm => Lane::Alarm as u16,
            Self::Vitals => Lane::Vitals as u16,
            Self::Waveform => Lane::Waveform as u16,
            Self::Activity => Lane::Activity as u16,
            Self::Backlog => u16::try_from(lanes).unwrap_or(u16::MAX),
        };
        first.saturating_add(index)
    }
}

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Intent {
    /// Nothing that comes from this address goes anywhere.
    Quarantine {
        /// On which switch.
        switch: DatapathId,
        /// Whose frames.
        mac: Mac,
    },
    /// Whatever else narrows it, this sensor's frames reach the gateway (which still asks table 0).
    SensorMayReachGateway {
        /// On which switch.
        switch: DatapathId,
        /// Whose frames.
        mac: Mac,
    },
    /// A lane's packets carry this mark, and leave by this queue.
    Lane {
        /// Which lane.
        lane: LaneName,
        /// The mark (RFC 2474).
        dscp: u8,
        /// The port's queue; none for the port's usual one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<u32>,
        /// On which switch; none for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        switch: Option<DatapathId>,
    },
}

impl Intent {
    /// Whether its values mean something.
    ///
    /// # Errors
    /// [`IntentError`].
    pub fn check(&self) -> Result<(), IntentError> {
        match self {
            Self::Quarantine { mac, .. } | Self::SensorMayReachGateway { mac, .. } => {
                if mac.is_unicast() {
                    Ok(())
                } else {
                    Err(IntentError::Mac(*mac))
                }
            }
            Self::Lane { dscp, .. } if *dscp > DSCP_MAX => Err(IntentError::Dscp(*dscp)),
            Self::Lane { .. } => Ok(()),
        }
    }

    /// The one switch that it concerns; none where it is for all.
    #[must_use]
    pub fn switch(&self) -> Option<DatapathId> {
        match self {
            Self::Quarantine { switch, .. } | Self::SensorMayReachGateway { switch, .. } => Some(*switch),
            Self::Lane { switch, .. } => *switch,
        }
    }

    /// A word for events and pages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Quarantine { .. } => "quarantine",
            Self::SensorMayReachGateway { .. } => "sensor-may-reach-gateway",
            Self::Lane { .. } => "lane",
        }
    }

    fn concerns(&self, switch: DatapathId) -> bool {
        self.switch().is_none_or(|only| only == switch)
    }
}

/// Whether an intent may be called so.
///
/// # Errors
/// [`IntentError::Name`].
pub fn check_name(name: &str) -> Result<(), IntentError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
    if fits { Ok(()) } else { Err(IntentError::Name) }
}

/// A switch as intents see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Which one.
    pub switch: DatapathId,
    /// The table that is the controller's: 1 on a gateway, whose table 0 is made of verified policy; 0 on other switches.
    pub table: u8,
    /// Source port of the alarm lane.
    pub lane_ports: u16,
}

impl Target {
    fn is_gateway(&self) -> bool {
        self.table != 0
    }

    fn flows(&self, intent: &Intent) -> Vec<(u16, Match, Vec<Instruction>)> {
        let apply = |actions: Vec<Action>| vec![Instruction::ApplyActions(actions)];
        match intent {
            Intent::Quarantine { mac, .. } => {
                vec![(PRIORITY_QUARANTINE, Match::any().eth_src(mac.0), Vec::new())]
            }
            Intent::SensorMayReachGateway { mac, .. } => {
                let output = if self.is_gateway() { port::LOCAL } else { port::NORMAL };
                let pattern = Match::any().eth_src(mac.0);
                vec![(PRIORITY_PERMIT, pattern, apply(vec![Action::output(output)]))]
            }
            Intent::Lane { lane, dscp, queue, .. } => {
                let mut actions = vec![Action::SetField(Oxm::ip_dscp(*dscp))];
                actions.extend(queue.map(Action::SetQueue));
                actions.push(Action::output(port::NORMAL));
                // What the gateway itself sends; on a switch on the way it comes in by any port.
                let from = if self.is_gateway() { Match::any().in_port(port::LOCAL) } else { Match::any() };
                let flow = |eth_type| {
                    let pattern = from.clone().eth_type(eth_type).ip_proto(IP_PROTO_UDP);
                    let pattern = pattern.udp_src(lane.source_port(self.lane_ports));
                    (PRIORITY_LANE, pattern, apply(actions.clone()))
                };
                vec![flow(ETH_TYPE_IPV4), flow(ETH_TYPE_IPV6)]
            }
        }
    }

    /// The rules that the switch is to hold, highest priority first. Of two intents that ask for the same match at the same
    /// priority the first by name counts.
    #[must_use]
    pub fn compile<'i>(&self, intents: impl IntoIterator<Item = (&'i String, &'i Intent)>) -> Vec<Rule> {
        let mut rules = BTreeMap::new();
        for (name, intent) in intents.into_iter().filter(|(_, intent)| intent.concerns(self.switch)) {
            for (priority, pattern, instructions) in self.flows(intent) {
                let rule = Rule {
                    table: self.table,
                    priority,
                    pattern: pattern.canonical(),
                    instructions,
                    cookie: rule::cookie(name),
                    intent: name.clone(),
                };
                rules.entry(rule.key()).or_insert(rule);
            }
        }
        let mut rules: Vec<_> = rules.into_values().collect();
        rules.sort_by(|a, b| {
            b.priority.cmp(&a.priority).then_with(|| a.pattern.fields.cmp(&b.pattern.fields))
        });
        rules
    }
}

#[cfg(test)]
mod tests;
