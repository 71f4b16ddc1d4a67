//! Whether what a controller asks for is something that the standard allows, and if not, which error it is.
//!
//! Decoding tells whether a message can be read; this tells whether it means something. What a switch has of it (tables,
//! ports, groups, its limits) is for the switch to say.

use super::action::Action;
use super::error::{BadAction, BadInstruction, ErrorKind, FlowModFailed, GroupModFailed, MeterModFailed};
use super::flow::{Command, FlowMod, flags};
use super::group::{self, Bucket, GroupCommand, GroupMod, GroupType};
use super::instruction::Instruction;
use super::meter::{self, BandAction, MeterCommand, MeterMod};
use super::oxm::{Match, MatchField, Oxm, Prerequisite, VLAN_VID_PRESENT, eth_type, ip_proto};
use super::port;

/// What is known of the headers of a frame that a flow matches, while actions change them. What is not known can't be built
/// on: such an action is `OFPBAC_MATCH_INCONSISTENT` (§7.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    eth_type: Option<u128>,
    ip_proto: Option<u128>,
    icmpv6_type: Option<u128>,
    /// There is a VLAN tag.
    is_tagged: bool,
    /// There was no match to learn from: a packet-out or a group's bucket, whose frames are not known before they come.
    is_any: bool,
}

impl Headers {
    /// Of the frames that a flow matches.
    #[must_use]
    pub fn of(pattern: &Match) -> Self {
        let tag = pattern.get(MatchField::VlanVid);
        Self {
            eth_type: pattern.exact(MatchField::EthType),
            ip_proto: pattern.exact(MatchField::IpProto),
            icmpv6_type: pattern.exact(MatchField::Icmpv6Type),
            is_tagged: tag.is_some_and(|tag| tag.value & u128::from(VLAN_VID_PRESENT) != 0),
            is_any: false,
        }
    }

    /// Of frames that are not known: all actions may fit.
    #[must_use]
    pub fn any() -> Self {
        Self { eth_type: None, ip_proto: None, icmpv6_type: None, is_tagged: false, is_any: true }
    }

    fn meets(&self, prerequisite: Prerequisite) -> bool {
        match prerequisite {
            _ if self.is_any => true,
            // Of what the switch itself says of a frame.
            Prerequisite::Present(_) => true,
            Prerequisite::Tagged => self.is_tagged,
            Prerequisite::OneOf(MatchField::EthType, values) => {
                self.eth_type.is_some_and(|value| values.contains(&value))
            }
            Prerequisite::OneOf(MatchField::IpProto, values) => {
                self.is_ip() && self.ip_proto.is_some_and(|value| values.contains(&value))
            }
            Prerequisite::OneOf(_, values) => {
                self.ip_proto == Some(ip_proto::ICMPV6.into())
                    && self.icmpv6_type.is_some_and(|value| values.contains(&value))
            }
        }
    }

    fn is_one_of(&self, values: &[u16]) -> bool {
        self.is_any || values.iter().any(|value| self.eth_type == Some((*value).into()))
    }

    fn is_ip(&self) -> bool {
        self.is_one_of(&[eth_type::IPV4, eth_type::IPV6])
    }

    fn is_mpls(&self) -> bool {
        self.is_one_of(&[eth_type::MPLS, eth_type::MPLS_MULTICAST])
    }

    /// Another header lies outside now, or is uncovered.
    fn become_type(&mut self, eth_type: Option<u16>) {
        self.eth_type = eth_type.map(u128::from);
        (self.ip_proto, self.icmpv6_type) = (None, None);
    }

    /// Checks one action and learns what it makes of the headers.
    ///
    /// # Errors
    /// `OFPBAC_BAD_TYPE`, `BAD_EXPERIMENTER`, `BAD_OUT_PORT`, `BAD_OUT_GROUP`, `BAD_ARGUMENT` for an Ethertype that can't be
    /// pushed, `MATCH_INCONSISTENT`; of a set-field `BAD_SET_TYPE`, `BAD_SET_LEN`, `BAD_SET_ARGUMENT`.
    pub fn apply(&mut self, action: &Action) -> Result<(), BadAction> {
        let consistent = |holds: bool| if holds { Ok(()) } else { Err(BadAction::MatchInconsistent) };
        match action {
            Action::Output { port, .. } if is_output(*port) => Ok(()),
            Action::Output { .. } => Err(BadAction::BadOutPort),
            Action::Group(number) if *number <= group::MAX => Ok(()),
            Action::Group(_) => Err(BadAction::BadOutGroup),
            Action::SetQueue(_) | Action::CopyTtlOut | Action::CopyTtlIn => Ok(()),
            Action::SetMplsTtl(_) | Action::DecMplsTtl => consistent(self.is_mpls()),
            Action::SetNwTtl(_) | Action::DecNwTtl => consistent(self.is_ip()),
            Action::PushVlan(eth_type::VLAN | eth_type::SERVICE_VLAN) => {
                self.is_tagged = true;
                Ok(())
            }
            Action::PushMpls(of @ (eth_type::MPLS | eth_type::MPLS_MULTICAST)) => {
                self.become_type(Some(*of));
                Ok(())
            }
            Action::PushPbb(eth_type::PBB) => {
                self.become_type(Some(eth_type::PBB));
                self.is_tagged = false;
                Ok(())
            }
            Action::PushVlan(_) | Action::PushMpls(_) | Action::PushPbb(_) => Err(BadAction::BadArgument),
            Action::PopVlan => {
                consistent(self.is_tagged || self.is_any)?;
                self.is_tagged = false;
                Ok(())
            }
            Action::PopMpls(of) => {
                consistent(self.is_mpls())?;
                self.become_type(Some(*of));
                Ok(())
            }
            Action::PopPbb => {
                consistent(self.is_one_of(&[eth_type::PBB]))?;
                self.become_type(None);
                Ok(())
            }
            Action::SetField(field) => self.set_field(field),
            Action::Experimenter { .. } => Err(BadAction::BadExperimenter),
            Action::Other { .. } => Err(BadAction::BadType),
        }
    }

    fn set_field(&mut self, oxm: &Oxm) -> Result<(), BadAction> {
        let field = oxm.field().filter(|field| field.is_settable()).ok_or(BadAction::BadSetType)?;
        if oxm.mask().is_some() {
            return Err(BadAction::BadSetType);
        }
        let value = oxm.value_number().filter(|_| oxm.value().len() == field.bytes());
        let value = value.ok_or(BadAction::BadSetLen)?;
        // A tag that is written is there.
        let is_vid = field == MatchField::VlanVid;
        if value & !field.ones() != 0 || is_vid && value & u128::from(VLAN_VID_PRESENT) == 0 {
            return Err(BadAction::BadSetArgument);
        }
        let prerequisite = if is_vid { Some(Prerequisite::Tagged) } else { field.prerequisite() };
        if prerequisite.is_some_and(|needed| !self.meets(needed)) {
            return Err(BadAction::MatchInconsistent);
        }
        if field == MatchField::EthType {
            self.eth_type = Some(value);
        } else if field == MatchField::IpProto {
            self.ip_proto = Some(value);
        } else if field == MatchField::Icmpv6Type {
            self.icmpv6_type = Some(value);
        }
        Ok(())
    }

    /// Checks actions that are applied in their order.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_all<'a>(&mut self, actions: impl IntoIterator<Item = &'a Action>) -> Result<(), BadAction> {
        actions.into_iter().try_for_each(|action| self.apply(action))
    }

    /// Checks an action set, which is carried out in an order of its own (§5.10).
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_set(&mut self, actions: &[Action]) -> Result<(), BadAction> {
        let mut ordered: Vec<_> = actions.iter().collect();
        ordered.sort_by_key(|action| set_order(action));
        self.apply_all(ordered)
    }
}

/// The place of an action in the order of the action set (§5.10).
#[must_use]
pub fn set_order(action: &Action) -> u8 {
    match action {
        Action::CopyTtlIn => 0,
        Action::PopVlan | Action::PopMpls(_) | Action::PopPbb => 1,
        Action::PushMpls(_) => 2,
        Action::PushPbb(_) => 3,
        Action::PushVlan(_) => 4,
        Action::CopyTtlOut => 5,
        Action::DecMplsTtl | Action::DecNwTtl => 6,
        Action::SetField(_) | Action::SetMplsTtl(_) | Action::SetNwTtl(_) => 7,
        Action::Experimenter { .. } | Action::Other { .. } => 7,
        Action::SetQueue(_) => 8,
        Action::Group(_) => 9,
        Action::Output { .. } => 10,
    }
}

/// Whether the number is one that an output can name (§7.2.1).
fn is_output(number: u32) -> bool {
    (1..=port::MAX).contains(&number) || (port::IN_PORT..port::ANY).contains(&number)
}

/// Checks the instructions of a flow with this match.
///
/// # Errors
/// `OFPBIC_UNKNOWN_INST`, `BAD_EXPERIMENTER`, `UNSUP_INST` for a second one of a type (1.3.5 has no code of its own for it),
/// `BAD_TABLE_ID` for a goto to no table, `OFPMMFC_INVALID_METER`; of their actions as [`Headers::apply`].
pub fn check_instructions(instructions: &[Instruction], pattern: &Match) -> Result<(), ErrorKind> {
    let refuse = |code| Err(ErrorKind::BadInstruction(code));
    for (at, instruction) in instructions.iter().enumerate() {
        match instruction {
            Instruction::Other { .. } => return refuse(BadInstruction::UnknownInst),
            Instruction::Experimenter { .. } => return refuse(BadInstruction::BadExperimenter),
            Instruction::GotoTable(super::TABLE_ALL) => return refuse(BadInstruction::BadTableId),
            Instruction::Meter(number) if !(1..=meter::MAX).contains(number) => {
                return Err(ErrorKind::MeterModFailed(MeterModFailed::InvalidMeter));
            }
            Instruction::GotoTable(_)
            | Instruction::WriteMetadata { .. }
            | Instruction::WriteActions(_)
            | Instruction::ApplyActions(_)
            | Instruction::ClearActions
            | Instruction::Meter(_) => {}
        }
        let before = instructions.get(..at).unwrap_or_default();
        if before.iter().any(|other| other.number() == instruction.number()) {
            return refuse(BadInstruction::UnsupInst);
        }
    }
    let mut headers = Headers::of(pattern);
    // At the end of the pipeline, after what is applied.
    let mut written = None;
    for instruction in instructions {
        if let Instruction::ApplyActions(actions) = instruction {
            headers.apply_all(actions).map_err(ErrorKind::BadAction)?;
        } else if let Instruction::WriteActions(actions) = instruction {
            written = Some(actions);
        }
    }
    written.map_or(Ok(()), |actions| headers.apply_set(actions)).map_err(ErrorKind::BadAction)
}

impl FlowMod {
    /// Whether the standard allows it. A delete's instructions mean nothing (§6.4).
    ///
    /// # Errors
    /// `OFPFMFC_BAD_FLAGS`, `OFPFMFC_BAD_TABLE_ID`; as [`Match::check`] and [`check_instructions`].
    pub fn check(&self) -> Result<(), ErrorKind> {
        let deletes = matches!(self.command, Command::Delete | Command::DeleteStrict);
        if self.flags & !flags::ALL != 0 {
            return Err(ErrorKind::FlowModFailed(FlowModFailed::BadFlags));
        }
        if self.table_id == super::TABLE_ALL && !deletes {
            return Err(ErrorKind::FlowModFailed(FlowModFailed::BadTableId));
        }
        self.pattern.check().map_err(ErrorKind::BadMatch)?;
        if deletes { Ok(()) } else { check_instructions(&self.instructions, &self.pattern) }
    }
}

impl GroupMod {
    /// Whether the standard allows it. A delete's type and buckets mean nothing.
    ///
    /// # Errors
    /// `OFPGMFC_INVALID_GROUP` for a number that is none, an indirect group that hasn't one bucket, weights of another group
    /// than a select one, and a fast-failover bucket that lives by nothing; `OFPGMFC_WATCH_UNSUPPORTED`; of the actions as
    /// [`Headers::apply`].
    pub fn check(&self) -> Result<(), ErrorKind> {
        let refuse = |code| Err(ErrorKind::GroupModFailed(code));
        let deletes = self.command == GroupCommand::Delete;
        if self.group_id > group::MAX && !(deletes && self.group_id == group::ALL) {
            return refuse(GroupModFailed::InvalidGroup);
        }
        if deletes {
            return Ok(());
        }
        if self.group_type == GroupType::Indirect && self.buckets.len() != 1 {
            return refuse(GroupModFailed::InvalidGroup);
        }
        for bucket in &self.buckets {
            let lives_by_something = bucket.watch_port != port::ANY || bucket.watch_group != group::ANY;
            let is_select = self.group_type == GroupType::Select;
            match self.group_type {
                GroupType::FastFailover if !lives_by_something => {
                    return refuse(GroupModFailed::InvalidGroup);
                }
                GroupType::All | GroupType::Indirect if lives_by_something => {
                    return refuse(GroupModFailed::WatchUnsupported);
                }
                GroupType::All | GroupType::Indirect | GroupType::FastFailover | GroupType::Select => {}
            }
            if bucket.weight != 0 && !is_select {
                return refuse(GroupModFailed::InvalidGroup);
            }
            bucket.check().map_err(ErrorKind::BadAction)?;
        }
        Ok(())
    }
}

impl Bucket {
    fn check(&self) -> Result<(), BadAction> {
        Headers::any().apply_set(&self.actions)
    }
}

impl MeterMod {
    /// Whether the standard allows it. A delete's flags and bands mean nothing.
    ///
    /// # Errors
    /// `OFPMMFC_INVALID_METER`, `BAD_FLAGS`, `BAD_BAND`.
    pub fn check(&self) -> Result<(), ErrorKind> {
        let refuse = |code| Err(ErrorKind::MeterModFailed(code));
        let deletes = self.command == MeterCommand::Delete;
        let is_virtual = matches!(self.meter_id, meter::SLOWPATH | meter::CONTROLLER);
        let is_all = deletes && self.meter_id == meter::ALL;
        if !(1..=meter::MAX).contains(&self.meter_id) && !is_virtual && !is_all {
            return refuse(MeterModFailed::InvalidMeter);
        }
        let both = meter::flags::KBPS | meter::flags::PKTPS;
        if deletes {
            Ok(())
        } else if self.flags & !meter::flags::ALL != 0 || self.flags & both == both {
            refuse(MeterModFailed::BadFlags)
        } else if self
            .bands
            .iter()
            .all(|band| matches!(band.action, BandAction::Drop | BandAction::DscpRemark { .. }))
        {
            Ok(())
        } else {
            refuse(MeterModFailed::BadBand)
        }
    }
}

#[cfg(test)]
mod tests;
