//! Flows as JSON: what experts write and what the interface shows. Fields have OpenFlow's names (§7.2.3.7).
//!
//! ```text
//! {"table": 1, "priority": 9, "match": {"eth_src": "02:00:00:00:00:01/ff:ff:ff:00:00:00", "in_port": "LOCAL"},
//!  "actions": [{"set_field": {"ip_dscp": 46}}, {"set_queue": 1}, {"output": "NORMAL"}]}
//! ```
//! A value is a number, or a text: of an address as people write it, else `0x…`. Behind a stroke stands the mask.

use std::net::{Ipv4Addr, Ipv6Addr};

use caregate_protocol::openflow::multipart::FlowStats;
use caregate_protocol::openflow::{
    Action, CONTROLLER_MAX_LEN_NO_BUFFER, Command, FlowMod, Instruction, Match, MatchField, Oxm, port,
};
use caregate_protocol::policy::Mac;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::rule;

/// Actions of one rule: more than any switch carries out.
pub const ACTIONS_MAX: usize = 32;

/// What is wrong with a rule, by its key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{key}`: {what}")]
pub struct FlowError {
    /// Where.
    pub key: String,
    /// What.
    pub what: String,
}

fn wrong(key: &str, what: impl Into<String>) -> FlowError {
    FlowError { key: key.to_owned(), what: what.into() }
}

/// A number, or one as text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(String),
}

impl Number {
    fn read(&self, key: &str) -> Result<u64, FlowError> {
        match self {
            Self::Plain(number) => Ok(*number),
            Self::Text(text) => number(text).ok_or_else(|| wrong(key, "must be a number, or a text 0x…")),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

/// One rule as an expert writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowModFile {
    #[serde(default)]
    command: CommandName,
    #[serde(default)]
    table: u8,
    #[serde(default)]
    priority: u16,
    #[serde(default)]
    cookie: Option<Number>,
    #[serde(default)]
    cookie_mask: Option<Number>,
    #[serde(default)]
    idle_timeout_s: u16,
    #[serde(default)]
    hard_timeout_s: u16,
    #[serde(default)]
    flags: u16,
    #[serde(default)]
    out_port: Option<Value>,
    #[serde(default, rename = "match")]
    pattern: Map<String, Value>,
    #[serde(default)]
    actions: Vec<Value>,
    #[serde(default)]
    goto_table: Option<u8>,
    #[serde(default)]
    meter: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CommandName {
    #[default]
    Add,
    Modify,
    ModifyStrict,
    Delete,
    DeleteStrict,
}

impl From<CommandName> for Command {
    fn from(name: CommandName) -> Self {
        match name {
            CommandName::Add => Self::Add,
            CommandName::Modify => Self::Modify,
            CommandName::ModifyStrict => Self::ModifyStrict,
            CommandName::Delete => Self::Delete,
            CommandName::DeleteStrict => Self::DeleteStrict,
        }
    }
}

impl TryFrom<FlowModFile> for FlowMod {
    type Error = FlowError;

    fn try_from(file: FlowModFile) -> Result<Self, FlowError> {
        let cookie = file.cookie.map_or(Ok(0), |cookie| cookie.read("cookie"))?;
        if rule::is_own(cookie) && matches!(file.command, CommandName::Add) {
            return Err(wrong("cookie", "those that begin with 0x43415245 mark the controller's own flows"));
        }
        if file.actions.len() > ACTIONS_MAX {
            return Err(wrong("actions", format!("at most {ACTIONS_MAX}")));
        }
        let actions = file.actions.iter().map(action).collect::<Result<Vec<_>, _>>()?;
        let mut instructions: Vec<_> = file.meter.map(Instruction::Meter).into_iter().collect();
        if !actions.is_empty() {
            instructions.push(Instruction::ApplyActions(actions));
        }
        instructions.extend(file.goto_table.map(Instruction::GotoTable));
        Ok(Self {
            cookie,
            cookie_mask: file.cookie_mask.map_or(Ok(0), |mask| mask.read("cookie_mask"))?,
            idle_timeout_s: file.idle_timeout_s,
            hard_timeout_s: file.hard_timeout_s,
            flags: file.flags,
            out_port: file.out_port.map_or(Ok(port::ANY), |value| port_number("out_port", &value))?,
            pattern: pattern(&file.pattern)?,
            instructions,
            ..Self::new(file.command.into(), file.table, file.priority)
        })
    }
}

const PORT_NAMES: [(&str, u32); 8] = [
    ("IN_PORT", port::IN_PORT),
    ("TABLE", port::TABLE),
    ("NORMAL", port::NORMAL),
    ("FLOOD", port::FLOOD),
    ("ALL", port::ALL),
    ("CONTROLLER", port::CONTROLLER),
    ("LOCAL", port::LOCAL),
    ("ANY", port::ANY),
];

fn port_number(key: &str, value: &Value) -> Result<u32, FlowError> {
    let named = |text: &str| PORT_NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    let found = match value {
        Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        Value::String(text) => {
            named(text).or_else(|| number(text).and_then(|number| u32::try_from(number).ok()))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    found.ok_or_else(|| wrong(key, "must be a port's number, or LOCAL, NORMAL, CONTROLLER, …"))
}

fn port_value(number: u32) -> Value {
    match PORT_NAMES.iter().find(|(_, named)| *named == number) {
        Some((name, _)) => json!(name),
        None => json!(number),
    }
}

fn action(value: &Value) -> Result<Action, FlowError> {
    let shape = || wrong("actions", "each must be one of output, set_field, set_queue, group");
    let object = value.as_object().ok_or_else(shape)?;
    let number = |value: &Value, key| {
        value
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| wrong(key, "must be a number of 32 bits"))
    };
    if let Some(output) = object.get("output") {
        let port = port_number("output", output)?;
        let max_len = match object.get("max_len") {
            Some(value) => u16::try_from(number(value, "max_len")?)
                .map_err(|_above| wrong("max_len", "at most 65535"))?,
            None if port == port::CONTROLLER => CONTROLLER_MAX_LEN_NO_BUFFER,
            None => 0,
        };
        let others = object.keys().filter(|key| *key != "output" && *key != "max_len").count();
        return if others == 0 { Ok(Action::Output { port, max_len }) } else { Err(shape()) };
    }
    let mut entries = object.iter();
    match (entries.next(), entries.next()) {
        (Some((key, value)), None) => match key.as_str() {
            "set_queue" => number(value, "set_queue").map(Action::SetQueue),
            "group" => number(value, "group").map(Action::Group),
            "set_field" => {
                let fields = pattern(value.as_object().ok_or_else(shape)?)?.fields;
                let [field] = <[Oxm; 1]>::try_from(fields)
                    .map_err(|_others| wrong("set_field", "must have one field"))?;
                Ok(Action::SetField(field))
            }
            _ => Err(shape()),
        },
        _ => Err(shape()),
    }
}

/// In the order of the fields' numbers, in which prerequisites come first (§7.2.3.6).
fn pattern(fields: &Map<String, Value>) -> Result<Match, FlowError> {
    let mut pattern = Match::any();
    for (name, value) in fields {
        let field =
            MatchField::from_name(name).ok_or_else(|| wrong(name, "OpenFlow 1.3 has no such field"))?;
        pattern = pattern.and(oxm(field, value)?);
    }
    pattern.fields.sort_by_key(Oxm::number);
    Ok(pattern)
}

fn oxm(field: MatchField, value: &Value) -> Result<Oxm, FlowError> {
    let name = field.as_str();
    let failed =
        || wrong(name, format!("must be a value of {} bytes, and its mask behind a stroke", field.bytes()));
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Err(failed()),
    };
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (value, Some(mask)),
        None => (text.as_str(), None),
    };
    let value = bytes(field, value).ok_or_else(failed)?;
    let mask = match mask {
        Some(mask) => Some(prefix(field, mask).or_else(|| bytes(field, mask)).ok_or_else(failed)?),
        None => None,
    };
    Oxm::new(field, &value, mask.as_deref()).map_err(|error| wrong(name, error.to_string()))
}

/// `/24` of an address.
fn prefix(field: MatchField, text: &str) -> Option<Vec<u8>> {
    if !matches!(kind(field), Kind::Ipv4 | Kind::Ipv6) || text.len() > 3 {
        return None;
    }
    let ones: usize = text.parse().ok().filter(|ones| *ones <= field.bytes() * 8)?;
    let byte = |at: usize| {
        let bits = ones.saturating_sub(at * 8).min(8);
        u8::try_from(0xff00_u32 >> bits & 0xff).unwrap_or_default()
    };
    Some((0..field.bytes()).map(byte).collect())
}

enum Kind {
    Port,
    Mac,
    Ipv4,
    Ipv6,
    Number,
}

fn kind(field: MatchField) -> Kind {
    use MatchField as F;
    match field {
        F::InPort | F::InPhyPort => Kind::Port,
        F::EthDst | F::EthSrc | F::ArpSha | F::ArpTha | F::Ipv6NdSll | F::Ipv6NdTll => Kind::Mac,
        F::Ipv4Src | F::Ipv4Dst | F::ArpSpa | F::ArpTpa => Kind::Ipv4,
        F::Ipv6Src | F::Ipv6Dst | F::Ipv6NdTarget => Kind::Ipv6,
        F::Metadata
        | F::EthType
        | F::VlanVid
        | F::VlanPcp
        | F::IpDscp
        | F::IpEcn
        | F::IpProto
        | F::TcpSrc
        | F::TcpDst
        | F::UdpSrc
        | F::UdpDst
        | F::SctpSrc
        | F::SctpDst
        | F::Icmpv4Type
        | F::Icmpv4Code
        | F::ArpOp
        | F::Ipv6Flabel
        | F::Icmpv6Type
        | F::Icmpv6Code
        | F::MplsLabel
        | F::MplsTc
        | F::MplsBos
        | F::PbbIsid
        | F::TunnelId
        | F::Ipv6Exthdr => Kind::Number,
    }
}

fn bytes(field: MatchField, text: &str) -> Option<Vec<u8>> {
    match kind(field) {
        Kind::Mac => text.parse::<Mac>().ok().map(|mac| mac.0.to_vec()),
        Kind::Ipv4 => text.parse::<Ipv4Addr>().ok().map(|address| address.octets().to_vec()),
        Kind::Ipv6 => text.parse::<Ipv6Addr>().ok().map(|address| address.octets().to_vec()),
        Kind::Port => port_number("", &json!(text)).ok().map(|number| number.to_be_bytes().to_vec()),
        Kind::Number => {
            let whole = number(text)?.to_be_bytes();
            let (above, value) = whole.split_at(whole.len() - field.bytes());
            above.iter().all(|byte| *byte == 0).then(|| value.to_vec())
        }
    }
}

fn shown(field: MatchField, bytes: &[u8]) -> Value {
    let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    match kind(field) {
        Kind::Mac => <[u8; 6]>::try_from(bytes).map_or(Value::Null, |mac| json!(Mac(mac).to_string())),
        Kind::Ipv4 => {
            <[u8; 4]>::try_from(bytes).map_or(Value::Null, |a| json!(Ipv4Addr::from(a).to_string()))
        }
        Kind::Ipv6 => {
            <[u8; 16]>::try_from(bytes).map_or(Value::Null, |a| json!(Ipv6Addr::from(a).to_string()))
        }
        Kind::Port => u32::try_from(number).map_or(Value::Null, port_value),
        Kind::Number if matches!(field, MatchField::EthType | MatchField::VlanVid | MatchField::Metadata) => {
            json!(format!("{number:#x}"))
        }
        Kind::Number => json!(number),
    }
}

fn field_entry(oxm: &Oxm) -> (String, Value) {
    let fits = |field: &MatchField| oxm.value().len() == field.bytes();
    let Some(field) = oxm.field().filter(fits) else {
        let name = format!("oxm({:#06x},{})", oxm.class(), oxm.number());
        return (name, json!(format!("0x{}", hex::encode(oxm.value()))));
    };
    let plain = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let value = shown(field, oxm.value());
    let value = match oxm.mask() {
        Some(mask) => json!(format!("{}/{}", plain(value), plain(shown(field, mask)))),
        None => value,
    };
    (field.as_str().to_owned(), value)
}

fn fields(pattern: &[Oxm]) -> Value {
    Value::Object(pattern.iter().map(field_entry).collect())
}

fn action_value(action: &Action) -> Value {
    match action {
        Action::Output { port: port::CONTROLLER, max_len } => {
            json!({"output": "CONTROLLER", "max_len": max_len})
        }
        Action::Output { port, .. } => json!({ "output": port_value(*port) }),
        Action::SetQueue(queue) => json!({ "set_queue": queue }),
        Action::Group(group) => json!({ "group": group }),
        Action::SetField(field) => json!({ "set_field": fields(std::slice::from_ref(field)) }),
        Action::CopyTtlOut => json!({ "copy_ttl_out": true }),
        Action::CopyTtlIn => json!({ "copy_ttl_in": true }),
        Action::SetMplsTtl(ttl) => json!({ "set_mpls_ttl": ttl }),
        Action::DecMplsTtl => json!({ "dec_mpls_ttl": true }),
        Action::PushVlan(eth_type) => json!({ "push_vlan": format!("{eth_type:#06x}") }),
        Action::PopVlan => json!({ "pop_vlan": true }),
        Action::PushMpls(eth_type) => json!({ "push_mpls": format!("{eth_type:#06x}") }),
        Action::PopMpls(eth_type) => json!({ "pop_mpls": format!("{eth_type:#06x}") }),
        Action::SetNwTtl(ttl) => json!({ "set_nw_ttl": ttl }),
        Action::DecNwTtl => json!({ "dec_nw_ttl": true }),
        Action::PushPbb(eth_type) => json!({ "push_pbb": format!("{eth_type:#06x}") }),
        Action::PopPbb => json!({ "pop_pbb": true }),
        Action::Experimenter { experimenter, .. } => {
            json!({ "experimenter": format!("{experimenter:#010x}") })
        }
        Action::Other { action_type, .. } => json!({ "other": action_type }),
    }
}

fn instruction_entry(instruction: &Instruction) -> (&'static str, Value) {
    let actions = |actions: &[Action]| actions.iter().map(action_value).collect();
    match instruction {
        Instruction::ApplyActions(list) => ("actions", actions(list)),
        Instruction::WriteActions(list) => ("write_actions", actions(list)),
        Instruction::GotoTable(table) => ("goto_table", json!(table)),
        Instruction::Meter(meter) => ("meter", json!(meter)),
        Instruction::ClearActions => ("clear_actions", json!(true)),
        Instruction::WriteMetadata { metadata, mask } => {
            ("write_metadata", json!(format!("{metadata:#x}/{mask:#x}")))
        }
        Instruction::Experimenter { experimenter, .. } => {
            ("experimenter_instruction", json!(format!("{experimenter:#010x}")))
        }
        Instruction::Other { instruction_type, .. } => ("other_instruction", json!(instruction_type)),
    }
}

/// One flow as a switch reports it; `intent` where it is one of ours.
#[must_use]
pub fn flow(flow: &FlowStats, intent: Option<&str>) -> Value {
    let mut object = json!({
        "table": flow.table_id,
        "priority": flow.priority,
        "cookie": format!("{:#x}", flow.cookie),
        "own": rule::is_own(flow.cookie),
        "intent": intent,
        "match": fields(&flow.pattern.fields),
        "actions": [],
        "packets": flow.packets,
        "bytes": flow.bytes,
        "age_s": flow.lasted.seconds,
        "idle_timeout_s": flow.idle_timeout_s,
        "hard_timeout_s": flow.hard_timeout_s,
    });
    for (key, value) in flow.instructions.iter().map(instruction_entry) {
        object[key] = value;
    }
    object
}

#[cfg(test)]
mod tests;
