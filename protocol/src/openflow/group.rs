//! Groups: what a controller makes of them (§7.3.4.2), and what a switch reports (§7.3.5.9 to §7.3.5.11).

use super::action::Action;
use super::error::{BadRequest, ErrorKind, GroupModFailed};
use super::flow::Lasted;
use super::message::Fault;
use super::port;
use super::wire::{pad, put_u16, put_u32, put_u64, with_length};
use crate::wire::{Reader, WireError};

/// `OFPG_MAX`: groups are numbered up to here.
pub const MAX: u32 = 0xffff_ff00;
/// `OFPG_ALL`: all groups, for deletes and statistics.
pub const ALL: u32 = 0xffff_fffc;
/// `OFPG_ANY`: no group, the wildcard of a filter.
pub const ANY: u32 = 0xffff_ffff;

/// Bytes of a bucket before its actions.
const BUCKET_HEADER_BYTES: u16 = 16;

/// Bits of [`GroupFeatures::capabilities`], `enum ofp_group_capabilities` (§7.3.5.11).
pub mod capabilities {
    /// `OFPGFC_SELECT_WEIGHT`
    pub const SELECT_WEIGHT: u32 = 1;
    /// `OFPGFC_SELECT_LIVENESS`
    pub const SELECT_LIVENESS: u32 = 1 << 1;
    /// `OFPGFC_CHAINING`
    pub const CHAINING: u32 = 1 << 2;
    /// `OFPGFC_CHAINING_CHECKS`
    pub const CHAINING_CHECKS: u32 = 1 << 3;
}

/// `enum ofp_group_mod_command`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum GroupCommand {
    /// `OFPGC_ADD`
    Add = 0,
    /// `OFPGC_MODIFY`
    Modify = 1,
    /// `OFPGC_DELETE`
    Delete = 2,
}

/// `enum ofp_group_type` (§5.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GroupType {
    /// `OFPGT_ALL`: each bucket gets a copy.
    All = 0,
    /// `OFPGT_SELECT`: one bucket, by the frame and the weights.
    Select = 1,
    /// `OFPGT_INDIRECT`: the one bucket.
    Indirect = 2,
    /// `OFPGT_FF`: the first live bucket.
    FastFailover = 3,
}

impl GroupType {
    /// All of them, by number.
    pub const ALL: &'static [Self] = &[Self::All, Self::Select, Self::Indirect, Self::FastFailover];

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let number = reader.u8("group type")?;
        let bad_type = Fault::Standard(ErrorKind::GroupModFailed(GroupModFailed::BadType));
        Self::ALL.get(usize::from(number)).copied().ok_or(bad_type)
    }
}

/// `struct ofp_bucket`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Its share, of select groups alone; else 0.
    pub weight: u16,
    /// The port by which it lives, of fast-failover groups; [`port::ANY`] for none.
    pub watch_port: u32,
    /// The group by which it lives; [`ANY`] for none.
    pub watch_group: u32,
    /// Its action set.
    pub actions: Vec<Action>,
}

impl Bucket {
    /// With no weight, and living by nothing.
    #[must_use]
    pub fn new(actions: Vec<Action>) -> Self {
        Self { weight: 0, watch_port: port::ANY, watch_group: ANY, actions }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 0, |out| {
            put_u16(out, 0);
            put_u16(out, self.weight);
            put_u32(out, self.watch_port);
            put_u32(out, self.watch_group);
            pad(out, 4);
            for action in &self.actions {
                action.encode(out);
            }
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let bad_bucket =
            |_source: WireError| Fault::Standard(ErrorKind::GroupModFailed(GroupModFailed::BadBucket));
        let length = reader.u16("bucket length").map_err(bad_bucket)?;
        let weight = reader.u16("weight").map_err(bad_bucket)?;
        let watch_port = reader.u32("watch_port").map_err(bad_bucket)?;
        let watch_group = reader.u32("watch_group").map_err(bad_bucket)?;
        reader.take("pad", 4).map_err(bad_bucket)?;
        let actions = length.checked_sub(BUCKET_HEADER_BYTES).filter(|_| length.is_multiple_of(8));
        let actions = actions.ok_or(Fault::Standard(ErrorKind::GroupModFailed(GroupModFailed::BadBucket)))?;
        let actions = reader.take("bucket actions", actions.into()).map_err(bad_bucket)?;
        Ok(Self { weight, watch_port, watch_group, actions: Action::decode_all(actions)? })
    }

    /// All that is left in `reader`.
    fn decode_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, Fault> {
        let mut buckets = Vec::new();
        while reader.finish().is_err() {
            buckets.push(Self::decode(reader)?);
        }
        Ok(buckets)
    }
}

/// `struct ofp_group_mod` (§7.3.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupMod {
    /// What to do.
    pub command: GroupCommand,
    /// How buckets are chosen; of no meaning for a delete.
    pub group_type: GroupType,
    /// Which group; for a delete also [`ALL`].
    pub group_id: u32,
    /// In their order.
    pub buckets: Vec<Bucket>,
}

impl GroupMod {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u16(out, self.command as u16);
        out.extend([self.group_type as u8, 0]);
        put_u32(out, self.group_id);
        for bucket in &self.buckets {
            bucket.encode(out);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let command = match reader.u16("group command")? {
            0 => GroupCommand::Add,
            1 => GroupCommand::Modify,
            2 => GroupCommand::Delete,
            _ => return Err(Fault::Standard(ErrorKind::GroupModFailed(GroupModFailed::BadCommand))),
        };
        let group_type = GroupType::decode(reader)?;
        reader.take("pad", 1)?;
        let group_id = reader.u32("group_id")?;
        Ok(Self { command, group_type, group_id, buckets: Bucket::decode_all(reader)? })
    }
}

/// What a bucket counted: `struct ofp_bucket_counter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketCounter {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// `struct ofp_group_stats` (§7.3.5.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStats {
    /// Which group.
    pub group_id: u32,
    /// Flows and groups that lead to it.
    pub ref_count: u32,
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it has been there.
    pub lasted: Lasted,
    /// By bucket, in their order.
    pub buckets: Vec<BucketCounter>,
}

impl GroupStats {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 0, |out| {
            put_u16(out, 0);
            pad(out, 2);
            put_u32(out, self.group_id);
            put_u32(out, self.ref_count);
            pad(out, 4);
            put_u64(out, self.packets);
            put_u64(out, self.bytes);
            self.lasted.encode(out);
            for bucket in &self.buckets {
                put_u64(out, bucket.packets);
                put_u64(out, bucket.bytes);
            }
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut reader = entry(reader, "group statistics")?;
        reader.take("pad", 2)?;
        let (group_id, ref_count) = (reader.u32("group_id")?, reader.u32("ref_count")?);
        reader.take("pad", 4)?;
        let (packets, bytes) = (reader.u64("packet_count")?, reader.u64("byte_count")?);
        let lasted = Lasted::decode(&mut reader)?;
        let mut buckets = Vec::new();
        while reader.finish().is_err() {
            let (packets, bytes) = (reader.u64("packet_count")?, reader.u64("byte_count")?);
            buckets.push(BucketCounter { packets, bytes });
        }
        Ok(Self { group_id, ref_count, packets, bytes, lasted, buckets })
    }
}

/// `struct ofp_group_desc` (§7.3.5.10).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupDesc {
    /// How buckets are chosen.
    pub group_type: GroupType,
    /// Which group.
    pub group_id: u32,
    /// In their order.
    pub buckets: Vec<Bucket>,
}

impl GroupDesc {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 0, |out| {
            put_u16(out, 0);
            out.extend([self.group_type as u8, 0]);
            put_u32(out, self.group_id);
            for bucket in &self.buckets {
                bucket.encode(out);
            }
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut reader = entry(reader, "group description")?;
        let group_type = GroupType::decode(&mut reader)?;
        reader.take("pad", 1)?;
        let group_id = reader.u32("group_id")?;
        Ok(Self { group_type, group_id, buckets: Bucket::decode_all(&mut reader)? })
    }
}

/// `struct ofp_group_features` (§7.3.5.11). Arrays are by [`GroupType`]'s number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupFeatures {
    /// Bit by [`GroupType`]'s number.
    pub types: u32,
    /// [`capabilities`]
    pub capabilities: u32,
    /// Most groups of each type.
    pub groups_max: [u32; 4],
    /// Bit by [`ActionType`](super::ActionType)'s number.
    pub actions: [u32; 4],
}

impl GroupFeatures {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.types);
        put_u32(out, self.capabilities);
        for value in self.groups_max.iter().chain(&self.actions) {
            put_u32(out, *value);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut features = Self {
            types: reader.u32("types")?,
            capabilities: reader.u32("capabilities")?,
            ..Self::default()
        };
        for value in features.groups_max.iter_mut().chain(&mut features.actions) {
            *value = reader.u32("max_groups and actions")?;
        }
        Ok(features)
    }
}

/// The rest of an entry that begins with the 16 bits of its length.
pub(super) fn entry<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<Reader<'a>, Fault> {
    let bad_length = Fault::Standard(ErrorKind::BadRequest(BadRequest::BadLen));
    let length = reader.u16(what)?.checked_sub(2).ok_or(bad_length)?;
    Ok(Reader::new(reader.take(what, length.into())?))
}
