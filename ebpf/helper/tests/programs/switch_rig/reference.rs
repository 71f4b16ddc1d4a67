//! OpenFlow's pipeline, written plainly and without the code that it is compared with: fields are read from bytes by one function each,
//! rules are tried one after another, and after each action all checksums are computed anew.

#![expect(clippy::cast_possible_truncation, reason = "bytes of numbers")]

use caregate_protocol::datapath::switch::{FlowAction, FlowInstructions};

use super::frames::{checksum_place, seal};
use super::{Fate, Field, IN_PORT};

const LOCAL: u32 = 0xffff_fffe;
const NORMAL: u32 = 0xffff_fffa;

/// A rule: its table and priority, what it matches, what it does.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) table: u8,
    pub(crate) priority: u16,
    pub(crate) fields: Vec<Field>,
    pub(crate) instructions: FlowInstructions,
}

/// A frame on its way.
#[derive(Debug, Clone)]
struct Packet {
    bytes: Vec<u8>,
    metadata: u64,
    tunnel: u64,
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

/// What is behind the VLAN tags, as far as two of them: where its EtherType is.
fn ether_type_at(bytes: &[u8]) -> usize {
    let is_tag = |at: usize| matches!(bytes.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]));
    match (is_tag(12), is_tag(16)) {
        (true, true) => 20,
        (true, false) => 16,
        (false, _) => 12,
    }
}

/// The network packet's place, where nothing hides it, and its EtherType.
fn network(bytes: &[u8]) -> Option<(usize, u16)> {
    let at = ether_type_at(bytes);
    let ether_type = u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]);
    Some((at + 2, ether_type))
}

/// An IP packet: where it begins, its version, its protocol and where that is said, where the payload begins and ends.
struct Ip {
    at: usize,
    is_v6: bool,
    protocol: u8,
    protocol_at: usize,
    payload: usize,
    end: usize,
}

fn ip(bytes: &[u8]) -> Option<Ip> {
    match network(bytes)? {
        (at, 0x0800) if bytes.get(at)? >> 4 == 4 && bytes.len() >= at + 20 => {
            let payload = at + usize::from(bytes[at] & 15) * 4;
            let end = at + number(&bytes[at + 2..at + 4]) as usize;
            // What is behind a popped label may only look like a header.
            (payload >= at + 20 && end >= payload).then_some(Ip {
                at,
                is_v6: false,
                protocol: bytes[at + 9],
                protocol_at: at + 9,
                payload,
                end,
            })
        }
        (at, 0x86dd) if bytes.get(at)? >> 4 == 6 && bytes.len() >= at + 40 => {
            let end = at + 40 + number(&bytes[at + 4..at + 6]) as usize;
            let (mut protocol, mut protocol_at, mut payload) = (bytes[at + 6], at + 6, at + 40);
            // Of extension headers the frames have hop-by-hop options alone.
            if protocol == 0 {
                (protocol, protocol_at) = (bytes[payload], payload);
                payload += 8 * (usize::from(bytes[payload + 1]) + 1);
            }
            Some(Ip { at, is_v6: true, protocol, protocol_at, payload, end })
        }
        _ => None,
    }
}

/// The transport header: its place, where it is of this protocol.
fn transport(bytes: &[u8], protocol: u8) -> Option<usize> {
    let ip = ip(bytes)?;
    let header = match protocol {
        6 => 20,
        17 => 8,
        132 => 12,
        _ => 4,
    };
    let is_right = ip.protocol == protocol && (protocol != 1 || !ip.is_v6) && (protocol != 58 || ip.is_v6);
    (is_right && ip.payload + header <= ip.end.min(bytes.len())).then_some(ip.payload)
}

fn arp(bytes: &[u8]) -> Option<usize> {
    let (at, ether_type) = network(bytes)?;
    (ether_type == 0x0806 && bytes.get(at..at + 28)?.starts_with(&[0, 1, 8, 0, 6, 4])).then_some(at)
}

fn label(bytes: &[u8]) -> Option<usize> {
    let (at, ether_type) = network(bytes)?;
    ((ether_type == 0x8847 || ether_type == 0x8848) && bytes.len() >= at + 4).then_some(at)
}

fn neighbour(bytes: &[u8], kinds: &[u8]) -> Option<usize> {
    let at = transport(bytes, 58)?;
    (kinds.contains(&bytes[at]) && ip(bytes)?.end >= at + 24 && bytes.len() >= at + 24).then_some(at)
}

/// The place of a field in the frame: first byte, bytes, bits below it.
fn field_place(bytes: &[u8], oxm: u8) -> Option<(usize, usize, u32, u32)> {
    let of = |at: usize, bytes: usize| Some((at, bytes, 0, 8 * bytes as u32));
    let has_tag = ether_type_at(bytes) > 12;
    let v4 = || ip(bytes).filter(|ip| !ip.is_v6).map(|ip| ip.at);
    let v6 = || ip(bytes).filter(|ip| ip.is_v6).map(|ip| ip.at);
    match oxm {
        3 => of(0, 6),
        4 => of(6, 6),
        5 => of(ether_type_at(bytes), 2),
        6 if has_tag => Some((14, 2, 0, 12)),
        7 if has_tag => Some((14, 1, 5, 3)),
        8 if v4().is_some() => Some((v4()? + 1, 1, 2, 6)),
        8 => Some((v6()?, 2, 6, 6)),
        9 if v4().is_some() => Some((v4()? + 1, 1, 0, 2)),
        9 => Some((v6()?, 2, 4, 2)),
        10 => of(ip(bytes)?.protocol_at, 1),
        11 => of(v4()? + 12, 4),
        12 => of(v4()? + 16, 4),
        13 => of(transport(bytes, 6)?, 2),
        14 => of(transport(bytes, 6)? + 2, 2),
        15 => of(transport(bytes, 17)?, 2),
        16 => of(transport(bytes, 17)? + 2, 2),
        17 => of(transport(bytes, 132)?, 2),
        18 => of(transport(bytes, 132)? + 2, 2),
        19 => of(transport(bytes, 1)?, 1),
        20 => of(transport(bytes, 1)? + 1, 1),
        21 => of(arp(bytes)? + 6, 2),
        22 => of(arp(bytes)? + 14, 4),
        23 => of(arp(bytes)? + 24, 4),
        24 => of(arp(bytes)? + 8, 6),
        25 => of(arp(bytes)? + 18, 6),
        26 => of(v6()? + 8, 16),
        27 => of(v6()? + 24, 16),
        28 => Some((v6()? + 1, 3, 0, 20)),
        29 => of(transport(bytes, 58)?, 1),
        30 => of(transport(bytes, 58)? + 1, 1),
        31 => of(neighbour(bytes, &[135, 136])? + 8, 16),
        32 => of(option(bytes, 135, 1)? + 2, 6),
        33 => of(option(bytes, 136, 2)? + 2, 6),
        34 => Some((label(bytes)?, 3, 4, 20)),
        35 => Some((label(bytes)? + 2, 1, 1, 3)),
        36 => Some((label(bytes)? + 2, 1, 0, 1)),
        _ => None,
    }
}

/// The frames' messages have one option.
fn option(bytes: &[u8], kind: u8, option: u8) -> Option<usize> {
    let at = neighbour(bytes, &[kind])? + 24;
    (ip(bytes)?.end >= at + 8 && bytes.get(at..at + 8)?.starts_with(&[option, 1])).then_some(at)
}

/// A field's value; 0 where the frame hasn't it.
fn field(packet: &Packet, oxm: u8) -> u128 {
    let bytes = &packet.bytes;
    match oxm {
        0 => return u128::from(IN_PORT),
        2 => return u128::from(packet.metadata),
        38 => return u128::from(packet.tunnel),
        5 => {
            let (_, ether_type) = network(bytes).unwrap_or_default();
            return u128::from(if ether_type < 0x0600 { 0x05ff } else { ether_type });
        }
        39 => return if ip(bytes).is_some_and(|ip| ip.is_v6 && ip.payload == ip.at + 48) { 64 } else { 0 },
        _ => {}
    }
    let Some((at, count, shift, bits)) = field_place(bytes, oxm) else { return 0 };
    let mask = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
    let value = number(&bytes[at..at + count]) >> shift & mask;
    if oxm == 6 { value | 0x1000 } else { value }
}

/// Computes what checksums an IP packet has.
fn seal_all(bytes: &mut [u8], was_without: bool) {
    let Some(ip) = ip(bytes) else { return };
    if !ip.is_v6 {
        bytes[ip.at + 10..ip.at + 12].fill(0);
        let sum = super::frames::internet_checksum(&[&bytes[ip.at..ip.payload]]).to_be_bytes();
        bytes[ip.at + 10..ip.at + 12].copy_from_slice(&sum);
    }
    let (at, protocol, payload) = (ip.at, ip.protocol, ip.payload - ip.at);
    if !was_without && transport(bytes, protocol).is_some() {
        seal(&mut bytes[at..], payload, protocol);
    }
}

/// Whether the transport is UDP without a checksum.
fn is_without(bytes: &[u8]) -> bool {
    transport(bytes, 17).is_some_and(|at| bytes[at + 6..at + 8] == [0, 0])
}

/// Whether an action could be done: a TTL at its end, or SCTP's checksum, is for the slow path.
enum Done {
    Yes,
    Punt,
    Stop,
}

fn set_field(packet: &mut Packet, oxm: u8, value: u128) -> Done {
    if oxm == 38 {
        packet.tunnel = value as u64;
        return Done::Yes;
    }
    let Some((at, count, shift, bits)) = field_place(&packet.bytes, oxm) else { return Done::Yes };
    let mask = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
    let before = is_without(&packet.bytes);
    let old = number(&packet.bytes[at..at + count]);
    let new = old & !(mask << shift) | (value & mask) << shift;
    packet.bytes[at..at + count].copy_from_slice(&new.to_be_bytes()[16 - count..]);
    if old != new && !matches!(oxm, 3..=7 | 34..=36) {
        seal_all(&mut packet.bytes, before);
    }
    if matches!(oxm, 17 | 18) && old != new { Done::Punt } else { Done::Yes }
}

/// Where a TTL is in an IP packet of this version.
fn ttl_place(at: usize, version: u8) -> usize {
    at + if version == 4 { 8 } else { 7 }
}

/// The IP header's TTL: behind labels, by its version.
fn hidden_ttl(bytes: &[u8], mut at: usize) -> Option<usize> {
    while bytes.get(at + 2)? & 1 == 0 {
        at += 4;
    }
    let first = *bytes.get(at + 4)?;
    match first >> 4 {
        4 if first & 15 >= 5 && bytes.len() >= at + 24 => Some(ttl_place(at + 4, 4)),
        6 if bytes.len() >= at + 44 => Some(ttl_place(at + 4, 6)),
        _ => None,
    }
}

fn put_ttl(packet: &mut Packet, place: usize, ttl: u8, version_at: usize) {
    let old = std::mem::replace(&mut packet.bytes[place], ttl);
    if packet.bytes[version_at] >> 4 != 4 {
        return;
    }
    let end = (version_at + usize::from(packet.bytes[version_at] & 15) * 4).min(packet.bytes.len());
    let header = &mut packet.bytes[version_at..end];
    header[8] = old;
    let was = u16::from_be_bytes([header[10], header[11]]);
    let is_right = super::frames::internet_checksum(&[header]) == 0;
    header[8] = ttl;
    header[10..12].fill(0);
    let mut sum = super::frames::internet_checksum(&[header]);
    if !is_right && old != ttl {
        // What only looks like a header has a checksum that is wrong by as much as before (RFC 1624, equation 3).
        sum = super::frames::internet_checksum(&[&(!was).to_be_bytes(), &[!old, 0xff, ttl, 0]]);
    } else if !is_right {
        sum = was;
    }
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn edit(packet: &mut Packet, action: &FlowAction) -> Done {
    let at = ether_type_at(&packet.bytes);
    let label = label(&packet.bytes);
    let ip_ttl = ip(&packet.bytes).map(|ip| (ttl_place(ip.at, if ip.is_v6 { 6 } else { 4 }), ip.at));
    match *action {
        FlowAction::SetField { field, value } => return set_field(packet, field, value),
        FlowAction::PushVlan(ether_type) => {
            let tag = if at > 12 { number(&packet.bytes[14..16]) as u16 & 0xefff } else { 0 };
            let [high, low] = ether_type.to_be_bytes();
            let [first, second] = tag.to_be_bytes();
            packet.bytes.splice(12..12, [high, low, first, second]);
        }
        FlowAction::PopVlan if at > 12 => drop(packet.bytes.drain(12..16)),
        FlowAction::PushMpls(ether_type) => {
            let word = match (label, ip_ttl) {
                (Some(place), _) => number(&packet.bytes[place..place + 4]) as u32 & !0x100,
                (None, Some((place, _))) => 0x100 | u32::from(packet.bytes[place]),
                (None, None) => 0x100,
            };
            packet.bytes.splice(at..at + 2, ether_type.to_be_bytes());
            packet.bytes.splice(at + 2..at + 2, word.to_be_bytes());
        }
        FlowAction::PopMpls(ether_type) if label.is_some() => {
            packet.bytes.splice(at..at + 2, ether_type.to_be_bytes());
            packet.bytes.drain(at + 2..at + 6);
        }
        FlowAction::SetMplsTtl(ttl) => {
            if let Some(place) = label {
                packet.bytes[place + 3] = ttl;
            }
        }
        FlowAction::DecMplsTtl => {
            if let Some(place) = label {
                if packet.bytes[place + 3] <= 1 {
                    return Done::Stop;
                }
                packet.bytes[place + 3] -= 1;
            }
        }
        FlowAction::SetNwTtl(ttl) => {
            if let Some((place, version_at)) = ip_ttl {
                put_ttl(packet, place, ttl, version_at);
            }
        }
        FlowAction::DecNwTtl => {
            if let Some((place, version_at)) = ip_ttl {
                if packet.bytes[place] <= 1 {
                    return Done::Stop;
                }
                put_ttl(packet, place, packet.bytes[place] - 1, version_at);
            }
        }
        FlowAction::CopyTtlOut | FlowAction::CopyTtlIn => {
            if let Some(place) = label {
                copy_ttl(packet, place, *action == FlowAction::CopyTtlOut);
            }
        }
        FlowAction::PopVlan
        | FlowAction::PopMpls(_)
        | FlowAction::SetQueue(_)
        | FlowAction::Group(_)
        | FlowAction::Output { .. } => {}
    }
    Done::Yes
}

fn copy_ttl(packet: &mut Packet, place: usize, is_out: bool) {
    let is_bottom = packet.bytes[place + 2] & 1 != 0;
    let inner = if is_bottom { hidden_ttl(&packet.bytes, place) } else { Some(place + 7) };
    let Some(inner) = inner.filter(|inner| *inner < packet.bytes.len()) else { return };
    if is_out {
        packet.bytes[place + 3] = packet.bytes[inner];
    } else if is_bottom {
        let ttl = packet.bytes[place + 3];
        put_ttl(packet, inner, ttl, place + 4);
    } else {
        packet.bytes[inner] = packet.bytes[place + 3];
    }
}

/// The order of an action set (§5.10).
fn order(action: &FlowAction) -> (u8, u8) {
    match action {
        FlowAction::CopyTtlIn => (0, 0),
        FlowAction::PopVlan => (1, 0),
        FlowAction::PopMpls(_) => (2, 0),
        FlowAction::PushMpls(_) => (3, 0),
        FlowAction::PushVlan(_) => (4, 0),
        FlowAction::CopyTtlOut => (5, 0),
        FlowAction::DecMplsTtl => (6, 0),
        FlowAction::DecNwTtl => (7, 0),
        FlowAction::SetMplsTtl(_) => (8, 0),
        FlowAction::SetNwTtl(_) => (9, 0),
        FlowAction::SetField { field, .. } => (10, *field),
        FlowAction::SetQueue(_) => (11, 0),
        FlowAction::Group(_) => (12, 0),
        FlowAction::Output { .. } => (13, 0),
    }
}

/// What the pipeline has decided of a frame by now.
struct Pipeline {
    packet: Packet,
    output: Option<u32>,
    queue: u32,
    is_punted: bool,
    /// The first copy for the gateway's stack.
    local: Option<Vec<u8>>,
    /// An action is left to the slow path: what follows can't be made here.
    is_unfit: bool,
}

impl Pipeline {
    /// False where its way ends.
    fn act(&mut self, actions: &[FlowAction]) -> bool {
        for action in actions {
            if let FlowAction::SetQueue(queue) = *action {
                self.queue = queue;
                continue;
            }
            if let FlowAction::Output { port, .. } = *action {
                if matches!(port, LOCAL | NORMAL) && self.local.is_none() && !self.is_unfit {
                    self.local = Some(self.packet.bytes.clone());
                }
                if port == IN_PORT || port == u32::MAX {
                } else if self.output.is_some() || matches!(port, 0xffff_fffb..=0xffff_fffd) {
                    self.is_punted = true;
                } else {
                    self.output = Some(port);
                }
                continue;
            }
            let is_pipeline = matches!(action, FlowAction::SetField { field: 38, .. });
            if self.output.is_some() && !is_pipeline {
                self.is_punted = true;
            }
            match edit(&mut self.packet, action) {
                Done::Yes => {}
                Done::Punt => (self.is_punted, self.is_unfit) = (true, true),
                Done::Stop => {
                    self.is_punted = true;
                    return false;
                }
            }
        }
        true
    }
}

/// What a switch does with a frame; frames of less than 192 bytes, rules without groups and meters.
pub(crate) fn run(rules: &[Rule], frame: &[u8]) -> Fate {
    let packet = Packet { bytes: frame.to_vec(), metadata: 0, tunnel: 0 };
    let mut pipeline =
        Pipeline { packet, output: None, queue: 0, is_punted: false, local: None, is_unfit: false };
    let (mut table, mut set): (u8, Vec<FlowAction>) = (0, vec![]);
    loop {
        let matches = |rule: &&Rule| {
            let is_met = |(oxm, value, mask): &Field| field(&pipeline.packet, *oxm) & mask == value & mask;
            rule.table == table && rule.fields.iter().all(is_met)
        };
        let Some(rule) = rules.iter().filter(matches).max_by_key(|rule| rule.priority) else {
            set.clear();
            break;
        };
        let instructions = &rule.instructions;
        if !pipeline.act(&instructions.apply) {
            set.clear();
            break;
        }
        if instructions.clear {
            set.clear();
        }
        for action in &instructions.write {
            set.retain(|other| order(other) != order(action));
            set.push(*action);
        }
        if let Some((value, mask)) = instructions.metadata {
            pipeline.packet.metadata = pipeline.packet.metadata & !mask | value & mask;
        }
        let Some(next) = instructions.goto else { break };
        table = next;
    }
    set.sort_by_key(order);
    pipeline.act(&set);
    let bytes = pipeline.packet.bytes;
    match pipeline.output {
        _ if pipeline.is_punted => Fate::Punted(pipeline.local),
        None => Fate::Dropped,
        Some(0xffff_fff8) => Fate::Returned(padded(bytes, frame)),
        Some(NORMAL | LOCAL) => Fate::Passed(bytes),
        Some(_) if pipeline.queue != 0 => Fate::Punted(None),
        Some(_) => Fate::Sent(padded(bytes, frame)),
    }
}

/// What tags off made too short for Ethernet gets zeroes at its end.
fn padded(mut bytes: Vec<u8>, came: &[u8]) -> Vec<u8> {
    if bytes.len() < came.len().min(60) {
        bytes.resize(60, 0);
    }
    bytes
}

/// Whether all checksums of a frame are right.
pub(crate) fn is_sealed(frame: &[u8]) -> bool {
    let mut other = frame.to_vec();
    let has_sum = ip(frame).is_some_and(|ip| checksum_place(ip.protocol).is_some());
    seal_all(&mut other, is_without(frame));
    !has_sum || other == frame
}

/// A field's value in a frame as it comes in; none where the frame has no such field.
pub(crate) fn value(frame: &[u8], oxm: u8) -> Option<u128> {
    let packet = Packet { bytes: frame.to_vec(), metadata: 0, tunnel: 0 };
    let has = field_place(frame, oxm).is_some() || oxm == 0 || oxm == 39 && field(&packet, 39) != 0;
    has.then(|| field(&packet, oxm))
}

/// Where an IP packet's payload begins, behind extension headers.
pub(crate) fn payload_at(frame: &[u8]) -> Option<usize> {
    ip(frame).map(|ip| ip.payload)
}
