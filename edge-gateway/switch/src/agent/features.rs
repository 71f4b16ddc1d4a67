//! What the switch can do (§7.3.1, §7.3.5.5, §7.3.5.11, §7.3.5.14).

use caregate_ebpf_common::switch::place;
use caregate_protocol::datapath::switch::{BANDS_MAX, FLOWS_MAX, GROUPS_MAX, METERS_MAX, TABLES};
use caregate_protocol::openflow::group::{self, GroupFeatures};
use caregate_protocol::openflow::meter::{self, MeterFeatures};
use caregate_protocol::openflow::multipart::Desc;
use caregate_protocol::openflow::{
    ActionType, BandAction, Capabilities, ErrorKind, Features, GroupType, InstructionType, MatchField, OxmId,
    PacketQueue, QueueConfig, QueueOpFailed, TableFeatures, TableProperty, Text, TypeId, port,
};

use caregate_protocol::datapath::Role;

use super::Agent;

/// Flows, tables, ports and groups are counted (§7.3.1).
const CAPABILITIES: u32 = 0b1111;

const INSTRUCTIONS: [InstructionType; 6] = [
    InstructionType::GotoTable,
    InstructionType::WriteMetadata,
    InstructionType::WriteActions,
    InstructionType::ApplyActions,
    InstructionType::ClearActions,
    InstructionType::Meter,
];

const ACTIONS: [ActionType; 14] = [
    ActionType::Output,
    ActionType::CopyTtlOut,
    ActionType::CopyTtlIn,
    ActionType::SetMplsTtl,
    ActionType::DecMplsTtl,
    ActionType::PushVlan,
    ActionType::PopVlan,
    ActionType::PushMpls,
    ActionType::PopMpls,
    ActionType::SetQueue,
    ActionType::Group,
    ActionType::SetNwTtl,
    ActionType::DecNwTtl,
    ActionType::SetField,
];

/// All but group: groups are not chained.
fn bucket_actions() -> u32 {
    let actions = ACTIONS.into_iter().filter(|action| *action != ActionType::Group);
    actions.fold(0, |bits, action| bits | 1 << action as u16)
}

fn matched() -> impl Iterator<Item = MatchField> {
    MatchField::ALL.iter().copied().filter(|field| place(field.number()).is_some())
}

fn table(table_id: u8) -> TableFeatures {
    let actions = || ACTIONS.map(|action| TypeId::Standard(action as u16)).to_vec();
    let fields = matched().map(|field| OxmId::of(field, field.is_maskable())).collect();
    let settable: Vec<_> =
        matched().filter(|field| field.is_settable()).map(|field| OxmId::of(field, false)).collect();
    let is_last = table_id + 1 == TABLES;
    let instructions = INSTRUCTIONS.into_iter().filter(|of| !is_last || *of != InstructionType::GotoTable);
    let ids = instructions.map(|of| TypeId::Standard(of as u16)).collect();
    TableFeatures {
        table_id,
        name: Text::new(&format!("table {table_id}")),
        metadata_match: u64::MAX,
        metadata_write: u64::MAX,
        config: 0,
        // All tables share them.
        entries_max: u32::try_from(FLOWS_MAX).unwrap_or(u32::MAX),
        properties: vec![
            TableProperty::Instructions { miss: false, ids },
            TableProperty::NextTables { miss: false, tables: (table_id + 1..TABLES).collect() },
            TableProperty::WriteActions { miss: false, ids: actions() },
            TableProperty::ApplyActions { miss: false, ids: actions() },
            TableProperty::Match(fields),
            TableProperty::Wildcards(matched().map(|field| OxmId::of(field, false)).collect()),
            TableProperty::WriteSetField { miss: false, fields: settable.clone() },
            TableProperty::ApplySetField { miss: false, fields: settable },
        ],
    }
}

impl Agent {
    pub(super) fn features(&self) -> Features {
        Features {
            datapath_id: self.settings.datapath_id,
            n_buffers: 0,
            n_tables: TABLES,
            auxiliary_id: 0,
            capabilities: Capabilities(CAPABILITIES),
        }
    }

    pub(super) fn describe(&self) -> Desc {
        Desc {
            manufacturer: Text::new("Caregate"),
            hardware: Text::new("edge gateway"),
            software: Text::new(self.settings.version),
            serial: Text::new(""),
            datapath: Text::new(&self.settings.name),
        }
    }

    /// Of the tables that are the controller's.
    pub(super) fn table_features(&self) -> Vec<TableFeatures> {
        (self.tables.first_table()..TABLES).map(table).collect()
    }

    /// §7.3.6: uplinks have queues, other ports none.
    pub(super) fn queue_config(&self, number: u32) -> Result<QueueConfig, ErrorKind> {
        let ports = self.tables.ports();
        if number != port::ANY && ports.find(number).is_none() {
            return Err(ErrorKind::QueueOpFailed(QueueOpFailed::BadPort));
        }
        Ok(QueueConfig { port: number, queues: self.queues(number) })
    }

    /// The queues of one port, or of all for [`port::ANY`].
    pub(super) fn queues(&self, number: u32) -> Vec<PacketQueue> {
        let ports = self.tables.ports();
        let uplinks = ports.list().iter().filter(|entry| entry.port.role == Role::Uplink);
        let meant = uplinks.filter(|entry| number == port::ANY || entry.port.number == number);
        let queue = |port, queue_id| PacketQueue { queue_id, port, properties: Vec::new() };
        meant.flat_map(|entry| (0..ports.queues()).map(move |id| queue(entry.port.number, id))).collect()
    }
}

/// Of all groups.
pub(super) fn groups() -> GroupFeatures {
    use group::capabilities::{SELECT_LIVENESS, SELECT_WEIGHT};
    let groups_max = u32::try_from(GROUPS_MAX).unwrap_or(u32::MAX);
    GroupFeatures {
        types: GroupType::ALL.iter().fold(0, |bits, of| bits | 1 << *of as u8),
        capabilities: SELECT_WEIGHT | SELECT_LIVENESS,
        groups_max: [groups_max; 4],
        actions: [bucket_actions(); 4],
    }
}

/// Of all meters.
pub(super) fn meters() -> MeterFeatures {
    let bands = [BandAction::Drop, BandAction::DscpRemark { prec_level: 0 }];
    MeterFeatures {
        meters_max: u32::try_from(METERS_MAX).unwrap_or(u32::MAX),
        band_types: bands.iter().fold(0, |bits, band| bits | 1 << band.number()),
        capabilities: meter::flags::ALL.into(),
        bands_max: u8::try_from(BANDS_MAX).unwrap_or(u8::MAX),
        colors_max: 0,
    }
}
