//! What the OpenFlow switch's tables are made of, as daemon and helper speak of it
//! (`docs/adr/0017-openflow-switch.md`), and its bytes.

use std::convert::Infallible;
use std::sync::Arc;

use minicbor::Encoder;

use super::{FrameError, Traffic};
use crate::cbor::{CborError, Cursor};

/// Tables, from 0 (OpenFlow 1.3.5 §5.1).
pub const TABLES: u8 = 8;
/// Flows of all tables together.
pub const FLOWS_MAX: usize = 4096;
/// Groups.
pub const GROUPS_MAX: usize = 256;
/// Buckets of a group: a port each, and some to spare.
pub const BUCKETS_MAX: usize = 32;
/// Meters.
pub const METERS_MAX: usize = 256;
/// Bands of a meter.
pub const BANDS_MAX: usize = 4;
/// Actions of one list: each field set, and a few outputs.
pub const ACTIONS_MAX: usize = 32;
/// Changes in one frame: the longest flow takes 2 kB.
pub const CHANGES_MAX: usize = 128;
/// Bytes of a flow's value and mask: `caregate_ebpf_common::switch::KEY_BYTES`.
pub const MATCH_BYTES: usize = 112;
/// Bytes of a word of it.
const WORD_BYTES: usize = 8;

/// One action (§5.12). Ports and groups are OpenFlow's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowAction {
    /// `OFPAT_OUTPUT`
    Output {
        /// A port, or a reserved one of §4.5.
        port: u32,
        /// Bytes for the controller; 0xffff is the whole frame.
        max_len: u16,
    },
    /// `OFPAT_GROUP`
    Group(u32),
    /// `OFPAT_SET_QUEUE`
    SetQueue(u32),
    /// `OFPAT_PUSH_VLAN` with its EtherType.
    PushVlan(u16),
    /// `OFPAT_POP_VLAN`
    PopVlan,
    /// `OFPAT_PUSH_MPLS` with its EtherType.
    PushMpls(u16),
    /// `OFPAT_POP_MPLS` with the EtherType of what is below.
    PopMpls(u16),
    /// `OFPAT_COPY_TTL_OUT`
    CopyTtlOut,
    /// `OFPAT_COPY_TTL_IN`
    CopyTtlIn,
    /// `OFPAT_SET_MPLS_TTL`
    SetMplsTtl(u8),
    /// `OFPAT_DEC_MPLS_TTL`
    DecMplsTtl,
    /// `OFPAT_SET_NW_TTL`
    SetNwTtl(u8),
    /// `OFPAT_DEC_NW_TTL`
    DecNwTtl,
    /// `OFPAT_SET_FIELD`
    SetField {
        /// OXM number of the basic class.
        field: u8,
        /// Right-aligned; as wide as the field.
        value: u128,
    },
}

/// What a flow does (§5.9), in the order in which it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowInstructions {
    /// `OFPIT_METER`
    pub meter: Option<u32>,
    /// `OFPIT_APPLY_ACTIONS`, at most [`ACTIONS_MAX`].
    pub apply: Vec<FlowAction>,
    /// `OFPIT_CLEAR_ACTIONS`
    pub clear: bool,
    /// `OFPIT_WRITE_ACTIONS`, at most [`ACTIONS_MAX`].
    pub write: Vec<FlowAction>,
    /// `OFPIT_WRITE_METADATA`: value and mask.
    pub metadata: Option<(u64, u64)>,
    /// `OFPIT_GOTO_TABLE`, above the flow's own.
    pub goto: Option<u8>,
}

/// Has flows that do the same share it. Of a table's flows most do one of a few things, which are met again and again.
#[derive(Debug, Clone, Default)]
pub struct SharedInstructions {
    /// At most [`SHARED_MAX`], the last that was met at the end.
    known: Vec<Arc<FlowInstructions>>,
}

/// So few that looking through them costs less than the memory.
const SHARED_MAX: usize = 4;

impl SharedInstructions {
    /// The same instructions, which others may have too.
    #[must_use]
    pub fn share(&mut self, instructions: FlowInstructions) -> Arc<FlowInstructions> {
        if let Some(known) = self.known.iter().rev().find(|known| ***known == instructions) {
            return Arc::clone(known);
        }
        let shared = Arc::new(instructions);
        if self.known.len() == SHARED_MAX {
            self.known.remove(0);
        }
        self.known.push(Arc::clone(&shared));
        shared
    }
}

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowEntry {
    /// The daemon's name for it; a flow with another match never has the id of an earlier one in the same session.
    pub id: u64,
    /// Below [`TABLES`].
    pub table: u8,
    /// Higher comes first.
    pub priority: u16,
    /// What the masked bits must be; 0 outside the mask.
    pub value: [u8; MATCH_BYTES],
    /// The bits that count.
    pub mask: [u8; MATCH_BYTES],
    /// What is done. Shared, since daemon and helper have it in several places.
    pub instructions: Arc<FlowInstructions>,
}

/// `enum ofp_group_type` (§5.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GroupKind {
    /// All buckets.
    All = 0,
    /// One of them, by weight.
    Select = 1,
    /// The one that there is.
    Indirect = 2,
    /// The first that is live.
    FastFailover = 3,
}

impl GroupKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::All, Self::Select, Self::Indirect, Self::FastFailover];
}

/// One bucket (§5.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupBucket {
    /// Its share, for [`GroupKind::Select`].
    pub weight: u16,
    /// Live while this port is; `OFPP_ANY` for none.
    pub watch_port: u32,
    /// Live while this group has a live bucket; `OFPG_ANY` for none.
    pub watch_group: u32,
    /// An action set, at most [`ACTIONS_MAX`].
    pub actions: Vec<FlowAction>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEntry {
    /// OpenFlow's number.
    pub id: u32,
    /// How buckets are chosen.
    pub kind: GroupKind,
    /// At most [`BUCKETS_MAX`].
    pub buckets: Vec<GroupBucket>,
}

/// What a band does with what exceeds its rate (§5.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BandKind {
    /// `OFPMBT_DROP`
    Drop,
    /// `OFPMBT_DSCP_REMARK`: adds so much to the drop precedence.
    DscpRemark(u8),
}

/// One band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterBand {
    /// What it does.
    pub kind: BandKind,
    /// kbit/s, or packets/s.
    pub rate: u32,
    /// kbit, or packets; 0 where the meter has no burst size.
    pub burst: u32,
}

/// One meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterEntry {
    /// OpenFlow's number.
    pub id: u32,
    /// Rates are packets, not kilobits.
    pub counts_packets: bool,
    /// At most [`BANDS_MAX`].
    pub bands: Vec<MeterBand>,
}

/// One change of the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all changes are flows")]
pub enum Change {
    /// No flows, groups or meters any more; what follows is all that there is.
    Clear,
    /// A new flow, or an old one's other instructions.
    PutFlow(FlowEntry),
    /// Away with a flow; one that is not there is no error.
    RemoveFlow(u64),
    /// A new group, or an old one's other buckets.
    PutGroup(GroupEntry),
    /// Away with a group.
    RemoveGroup(u32),
    /// A new meter, or an old one's other bands; its buckets are full.
    PutMeter(MeterEntry),
    /// Away with a meter.
    RemoveMeter(u32),
}

/// What one flow has matched since it has its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowCounters {
    /// The flow.
    pub id: u64,
    /// How much.
    pub traffic: Traffic,
}

/// What one group has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCounters {
    /// The group.
    pub id: u32,
    /// All of it.
    pub traffic: Traffic,
    /// By bucket.
    pub buckets: Vec<Traffic>,
}

/// What one meter has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterCounters {
    /// The meter.
    pub id: u32,
    /// What came in.
    pub traffic: Traffic,
    /// What exceeded each band, in the order of the meter's bands.
    pub bands: Vec<Traffic>,
}

/// What one table was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// Frames that were looked up.
    pub lookups: u64,
    /// Those that matched.
    pub matched: u64,
}

/// All of the switch's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwitchCounters {
    /// Of all tables, by number.
    pub tables: Vec<TableCounters>,
    /// Flows that counted anything.
    pub flows: Vec<FlowCounters>,
    /// All groups.
    pub groups: Vec<GroupCounters>,
    /// All meters.
    pub meters: Vec<MeterCounters>,
}

type Out<'a> = Encoder<&'a mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<Infallible>>;

fn u16_of(c: &mut Cursor<'_>, field: &'static str) -> Result<u16, CborError> {
    c.item(field, |decoder| decoder.u16())
}

fn wrong(field: &'static str, value: impl Into<u64>) -> FrameError {
    FrameError::Value { field, value: value.into() }
}

fn list<T>(
    c: &mut Cursor<'_>,
    field: &'static str,
    max: usize,
    mut entry: impl FnMut(&mut Cursor<'_>) -> Result<T, FrameError>,
) -> Result<Vec<T>, FrameError> {
    let len = c.array(field, max)?;
    // No memory is taken for entries that are announced and not there.
    let mut list = Vec::new();
    for _ in 0..len {
        list.push(entry(c)?);
    }
    Ok(list)
}

/// Number, and the argument as OpenFlow has it.
fn put_action(out: &mut Out<'_>, action: &FlowAction) -> Written {
    use FlowAction as A;
    let (code, argument) = match *action {
        A::Output { port, max_len } => {
            out.array(3)?.u8(0)?.u32(port)?.u16(max_len)?;
            return Ok(());
        }
        A::SetField { field, value } => {
            out.array(3)?.u8(25)?.u8(field)?.bytes(&value.to_be_bytes())?;
            return Ok(());
        }
        A::CopyTtlOut => (11, None),
        A::CopyTtlIn => (12, None),
        A::SetMplsTtl(ttl) => (15, Some(ttl.into())),
        A::DecMplsTtl => (16, None),
        A::PushVlan(ether_type) => (17, Some(ether_type.into())),
        A::PopVlan => (18, None),
        A::PushMpls(ether_type) => (19, Some(ether_type.into())),
        A::PopMpls(ether_type) => (20, Some(ether_type.into())),
        A::SetQueue(queue) => (21, Some(queue)),
        A::Group(group) => (22, Some(group)),
        A::SetNwTtl(ttl) => (23, Some(ttl.into())),
        A::DecNwTtl => (24, None),
    };
    match argument {
        Some(argument) => out.array(2)?.u8(code)?.u32(argument)?,
        None => out.array(1)?.u8(code)?,
    };
    Ok(())
}

fn action(c: &mut Cursor<'_>) -> Result<FlowAction, FrameError> {
    use FlowAction as A;
    let elements = c.array("action", 3)?;
    let code = c.u8("action")?;
    Ok(match (code, elements) {
        (0, 3) => A::Output { port: c.u32("port")?, max_len: u16_of(c, "max_len")? },
        (25, 3) => A::SetField { field: c.u8("field")?, value: u128::from_be_bytes(c.fixed("value")?) },
        (11, 1) => A::CopyTtlOut,
        (12, 1) => A::CopyTtlIn,
        (15, 2) => A::SetMplsTtl(c.u8("ttl")?),
        (16, 1) => A::DecMplsTtl,
        (17, 2) => A::PushVlan(u16_of(c, "ethertype")?),
        (18, 1) => A::PopVlan,
        (19, 2) => A::PushMpls(u16_of(c, "ethertype")?),
        (20, 2) => A::PopMpls(u16_of(c, "ethertype")?),
        (21, 2) => A::SetQueue(c.u32("queue")?),
        (22, 2) => A::Group(c.u32("group")?),
        (23, 2) => A::SetNwTtl(c.u8("ttl")?),
        (24, 1) => A::DecNwTtl,
        _ => return Err(wrong("action", code)),
    })
}

fn put_actions(out: &mut Out<'_>, actions: &[FlowAction]) -> Written {
    out.array(actions.len() as u64)?;
    actions.iter().try_for_each(|action| put_action(out, action))
}

fn actions(c: &mut Cursor<'_>) -> Result<Vec<FlowAction>, FrameError> {
    list(c, "actions", ACTIONS_MAX, action)
}

fn put_instructions(out: &mut Out<'_>, instructions: &FlowInstructions) -> Written {
    out.array(6)?.encode(instructions.meter)?;
    put_actions(out, &instructions.apply)?;
    out.bool(instructions.clear)?;
    put_actions(out, &instructions.write)?;
    match instructions.metadata {
        Some((value, mask)) => out.array(2)?.u64(value)?.u64(mask)?,
        None => out.array(0)?,
    };
    out.encode(instructions.goto)?;
    Ok(())
}

fn instructions(c: &mut Cursor<'_>) -> Result<FlowInstructions, FrameError> {
    c.array_of("instructions", 6)?;
    let meter = c.item("meter", |decoder| decoder.decode::<Option<u32>>())?;
    let apply = actions(c)?;
    let clear = c.bool("clear")?;
    let write = actions(c)?;
    let metadata = match c.array("metadata", 2)? {
        0 => None,
        2 => Some((c.u64("metadata")?, c.u64("metadata mask")?)),
        other => return Err(wrong("metadata", other as u64)),
    };
    let goto = c.item("goto", |decoder| decoder.decode::<Option<u8>>())?;
    Ok(FlowInstructions { meter, apply, clear, write, metadata, goto })
}

fn put_group(out: &mut Out<'_>, group: &GroupEntry) -> Written {
    out.array(4)?.u8(3)?.u32(group.id)?.u8(group.kind as u8)?.array(group.buckets.len() as u64)?;
    for bucket in &group.buckets {
        out.array(4)?.u16(bucket.weight)?.u32(bucket.watch_port)?.u32(bucket.watch_group)?;
        put_actions(out, &bucket.actions)?;
    }
    Ok(())
}

fn group(c: &mut Cursor<'_>) -> Result<GroupEntry, FrameError> {
    let id = c.u32("group")?;
    let number = c.u8("kind")?;
    let kind = GroupKind::ALL.into_iter().find(|kind| *kind as u8 == number);
    let kind = kind.ok_or_else(|| wrong("kind", number))?;
    let buckets = list(c, "buckets", BUCKETS_MAX, |c| {
        c.array_of("bucket", 4)?;
        let weight = u16_of(c, "weight")?;
        let (watch_port, watch_group) = (c.u32("watch_port")?, c.u32("watch_group")?);
        Ok(GroupBucket { weight, watch_port, watch_group, actions: actions(c)? })
    })?;
    Ok(GroupEntry { id, kind, buckets })
}

fn put_meter(out: &mut Out<'_>, meter: &MeterEntry) -> Written {
    out.array(4)?.u8(5)?.u32(meter.id)?.bool(meter.counts_packets)?.array(meter.bands.len() as u64)?;
    for band in &meter.bands {
        out.array(3)?;
        match band.kind {
            BandKind::Drop => out.null()?,
            BandKind::DscpRemark(levels) => out.u8(levels)?,
        };
        out.u32(band.rate)?.u32(band.burst)?;
    }
    Ok(())
}

fn meter(c: &mut Cursor<'_>) -> Result<MeterEntry, FrameError> {
    let (id, counts_packets) = (c.u32("meter")?, c.bool("counts_packets")?);
    let bands = list(c, "bands", BANDS_MAX, |c| {
        c.array_of("band", 3)?;
        let levels = c.item("levels", |decoder| decoder.decode::<Option<u8>>())?;
        let kind = levels.map_or(BandKind::Drop, BandKind::DscpRemark);
        Ok(MeterBand { kind, rate: c.u32("rate")?, burst: c.u32("burst")? })
    })?;
    Ok(MeterEntry { id, counts_packets, bands })
}

/// Value and mask, of each the words that count.
fn put_match(out: &mut Out<'_>, value: &[u8; MATCH_BYTES], mask: &[u8; MATCH_BYTES]) -> Written {
    put_words(out, value)?;
    put_words(out, mask)
}

/// A number with a bit for each word that is not 0, the first word's lowest, then these words. Of a match that is most often three of
/// fourteen.
fn put_words(out: &mut Out<'_>, of: &[u8; MATCH_BYTES]) -> Written {
    let (mut words, mut length, mut there) = ([0; MATCH_BYTES], 0, 0u16);
    for (at, word) in of.as_chunks::<WORD_BYTES>().0.iter().enumerate() {
        if *word != [0; WORD_BYTES] {
            there |= 1 << at;
            words[length..][..WORD_BYTES].copy_from_slice(word);
            length += WORD_BYTES;
        }
    }
    out.u16(there)?.bytes(&words[..length])?;
    Ok(())
}

fn words(c: &mut Cursor<'_>, field: &'static str) -> Result<[u8; MATCH_BYTES], FrameError> {
    let there = u16_of(c, field)?;
    let mut words = c.bytes(field, MATCH_BYTES)?.as_chunks::<WORD_BYTES>();
    let mut all = [0; MATCH_BYTES];
    for (at, place) in all.as_chunks_mut::<WORD_BYTES>().0.iter_mut().enumerate() {
        if there >> at & 1 != 0 {
            let (word, rest) = words.0.split_first().ok_or_else(|| wrong(field, there))?;
            *place = *word;
            words.0 = rest;
        }
    }
    // Words that none of the bits is about, or a bit beyond the last word.
    if there >> (MATCH_BYTES / WORD_BYTES) != 0 || !words.0.is_empty() || !words.1.is_empty() {
        return Err(wrong(field, there));
    }
    Ok(all)
}

pub(super) fn put_change(out: &mut Out<'_>, change: &Change) -> Written {
    match change {
        Change::Clear => out.array(1)?.u8(0)?,
        Change::PutFlow(flow) => {
            out.array(9)?.u8(1)?.u64(flow.id)?.u8(flow.table)?.u16(flow.priority)?;
            put_match(out, &flow.value, &flow.mask)?;
            return put_instructions(out, &flow.instructions);
        }
        Change::RemoveFlow(id) => out.array(2)?.u8(2)?.u64(*id)?,
        Change::PutGroup(group) => return put_group(out, group),
        Change::RemoveGroup(id) => out.array(2)?.u8(4)?.u32(*id)?,
        Change::PutMeter(meter) => return put_meter(out, meter),
        Change::RemoveMeter(id) => out.array(2)?.u8(6)?.u32(*id)?,
    };
    Ok(())
}

pub(super) fn change(c: &mut Cursor<'_>, shared: &mut SharedInstructions) -> Result<Change, FrameError> {
    let elements = c.array("change", 9)?;
    let code = c.u8("change")?;
    Ok(match (code, elements) {
        (0, 1) => Change::Clear,
        (1, 9) => Change::PutFlow(FlowEntry {
            id: c.u64("id")?,
            table: c.u8("table")?,
            priority: u16_of(c, "priority")?,
            value: words(c, "value")?,
            mask: words(c, "mask")?,
            instructions: shared.share(instructions(c)?),
        }),
        (2, 2) => Change::RemoveFlow(c.u64("id")?),
        (3, 4) => Change::PutGroup(group(c)?),
        (4, 2) => Change::RemoveGroup(c.u32("group")?),
        (5, 4) => Change::PutMeter(meter(c)?),
        (6, 2) => Change::RemoveMeter(c.u32("meter")?),
        _ => return Err(wrong("change", code)),
    })
}

fn put_traffic(out: &mut Out<'_>, traffic: Traffic) -> Written {
    out.u64(traffic.frames)?.u64(traffic.bytes)?;
    Ok(())
}

fn traffic(c: &mut Cursor<'_>) -> Result<Traffic, FrameError> {
    Ok(Traffic { frames: c.u64("frames")?, bytes: c.u64("bytes")? })
}

fn put_parts(out: &mut Out<'_>, id: u32, whole: Traffic, parts: &[Traffic]) -> Written {
    out.array(4)?.u32(id)?;
    put_traffic(out, whole)?;
    out.array(2 * parts.len() as u64)?;
    parts.iter().try_for_each(|part| put_traffic(out, *part))
}

fn parts(c: &mut Cursor<'_>, max: usize) -> Result<(u32, Traffic, Vec<Traffic>), FrameError> {
    c.array_of("counted", 4)?;
    let (id, whole) = (c.u32("id")?, traffic(c)?);
    let words = c.array("parts", 2 * max)?;
    if words % 2 != 0 {
        return Err(wrong("parts", words as u64));
    }
    let mut parts = Vec::new();
    for _ in 0..words / 2 {
        parts.push(traffic(c)?);
    }
    Ok((id, whole, parts))
}

pub(super) fn put_counters(out: &mut Out<'_>, counters: &SwitchCounters) -> Written {
    out.array(counters.tables.len() as u64)?;
    for table in &counters.tables {
        out.array(2)?.u64(table.lookups)?.u64(table.matched)?;
    }
    out.array(counters.flows.len() as u64)?;
    for flow in &counters.flows {
        out.array(3)?.u64(flow.id)?;
        put_traffic(out, flow.traffic)?;
    }
    out.array(counters.groups.len() as u64)?;
    counters.groups.iter().try_for_each(|of| put_parts(out, of.id, of.traffic, &of.buckets))?;
    out.array(counters.meters.len() as u64)?;
    counters.meters.iter().try_for_each(|of| put_parts(out, of.id, of.traffic, &of.bands))
}

pub(super) fn counters(c: &mut Cursor<'_>) -> Result<SwitchCounters, FrameError> {
    let tables = list(c, "tables", TABLES.into(), |c| {
        c.array_of("table", 2)?;
        Ok(TableCounters { lookups: c.u64("lookups")?, matched: c.u64("matched")? })
    })?;
    let flows = list(c, "flows", FLOWS_MAX, |c| {
        c.array_of("flow", 3)?;
        Ok(FlowCounters { id: c.u64("id")?, traffic: traffic(c)? })
    })?;
    let groups = list(c, "groups", GROUPS_MAX, |c| {
        let (id, traffic, buckets) = parts(c, BUCKETS_MAX)?;
        Ok(GroupCounters { id, traffic, buckets })
    })?;
    let meters = list(c, "meters", METERS_MAX, |c| {
        let (id, traffic, bands) = parts(c, BANDS_MAX)?;
        Ok(MeterCounters { id, traffic, bands })
    })?;
    Ok(SwitchCounters { tables, flows, groups, meters })
}
