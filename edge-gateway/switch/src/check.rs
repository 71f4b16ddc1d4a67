//! Whether a flow may do what it wants: the ports, groups and meters that it names, what its frames have (OpenFlow 1.3.5 §7.2.5,
//! §7.2.4), and the guard (ADR 17).

use caregate_protocol::datapath::switch::{FlowAction, FlowInstructions, TABLES};
use caregate_protocol::openflow::{
    BadAction, BadInstruction, ErrorKind, MatchField, MeterModFailed, Prerequisite, eth_type,
};

use super::groups::Groups;
use super::meters::Meters;
use super::pattern::Pattern;
use super::port;
use super::ports::Ports;

/// What a flow may name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) ports: &'a Ports,
    pub(super) groups: &'a Groups,
    pub(super) meters: &'a Meters,
}

impl Surroundings<'_> {
    /// Whether a flow of `table` and `pattern` may do all this.
    ///
    /// # Errors
    /// `OFPBAC_EPERM` where a sensor port's frame would go anywhere but to `LOCAL`, or be changed or queued, or where any would go to
    /// a sensor port; else `OFPBIC_BAD_TABLE_ID`, `OFPMMFC_INVALID_METER`, `OFPBAC_BAD_OUT_PORT`, `BAD_OUT_GROUP`, `BAD_QUEUE`,
    /// `MATCH_INCONSISTENT`.
    pub(super) fn flow(
        &self,
        table: u8,
        pattern: &Pattern,
        instructions: &FlowInstructions,
    ) -> Result<(), ErrorKind> {
        if instructions.goto.is_some_and(|goto| goto <= table || goto >= TABLES) {
            return Err(ErrorKind::BadInstruction(BadInstruction::BadTableId));
        }
        let meter = match instructions.meter {
            Some(id) => {
                let unknown = ErrorKind::MeterModFailed(MeterModFailed::InvalidMeter);
                Some(self.meters.get(&id).ok_or(unknown)?)
            }
            None => None,
        };
        if self.ports.covers_sensors(pattern) {
            let all = instructions.apply.iter().chain(&instructions.write);
            if !all.copied().all(only_narrows) || meter.is_some_and(|meter| meter.remarks()) {
                return Err(ErrorKind::BadAction(BadAction::Eperm));
            }
        }
        let mut headers = Headers::of(pattern);
        self.actions(&instructions.apply, &mut headers)?;
        let mut set = instructions.write.clone();
        set.sort_by_key(rank);
        self.actions(&set, &mut headers)
    }

    /// Whether frames with these headers may be treated so, in this order.
    pub(super) fn actions(&self, list: &[FlowAction], headers: &mut Headers) -> Result<(), ErrorKind> {
        for of in list {
            if let FlowAction::Group(id) = of
                && !self.groups.contains_key(id)
            {
                return Err(ErrorKind::BadAction(BadAction::BadOutGroup));
            }
            action(of, self.ports).and_then(|()| headers.pass(of)).map_err(ErrorKind::BadAction)?;
        }
        Ok(())
    }
}

/// Whether the ports and queues of an action are there.
pub(super) fn action(of: &FlowAction, ports: &Ports) -> Result<(), BadAction> {
    match *of {
        FlowAction::Output { port, .. } => ports.check_output(port),
        FlowAction::SetQueue(queue) if queue >= ports.queues() => Err(BadAction::BadQueue),
        FlowAction::SetQueue(_)
        | FlowAction::Group(_)
        | FlowAction::PushVlan(_)
        | FlowAction::PopVlan
        | FlowAction::PushMpls(_)
        | FlowAction::PopMpls(_)
        | FlowAction::CopyTtlOut
        | FlowAction::CopyTtlIn
        | FlowAction::SetMplsTtl(_)
        | FlowAction::DecMplsTtl
        | FlowAction::SetNwTtl(_)
        | FlowAction::DecNwTtl
        | FlowAction::SetField { .. } => Ok(()),
    }
}

fn only_narrows(action: FlowAction) -> bool {
    matches!(action, FlowAction::Output { port: port::LOCAL, .. })
}

/// Where an action of a set comes (§5.10).
fn rank(action: &FlowAction) -> u8 {
    match action {
        FlowAction::CopyTtlIn => 0,
        FlowAction::PopVlan | FlowAction::PopMpls(_) => 1,
        FlowAction::PushMpls(_) => 2,
        FlowAction::PushVlan(_) => 3,
        FlowAction::CopyTtlOut => 4,
        FlowAction::DecMplsTtl | FlowAction::DecNwTtl => 5,
        FlowAction::SetField { .. } | FlowAction::SetMplsTtl(_) | FlowAction::SetNwTtl(_) => 6,
        FlowAction::SetQueue(_) => 7,
        FlowAction::Group(_) => 8,
        FlowAction::Output { .. } => 9,
    }
}

/// What is known of a frame's headers, as actions change them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers {
    /// Whether anything is known at all: a packet-out's frame is what it is.
    is_known: bool,
    eth_type: Option<u128>,
    is_tagged: Option<bool>,
    ip_proto: Option<u128>,
    icmpv6_type: Option<u128>,
}

impl Headers {
    /// Of frames that match.
    pub(super) fn of(pattern: &Pattern) -> Self {
        Self {
            is_known: true,
            eth_type: pattern.exact(MatchField::EthType),
            is_tagged: pattern.is_tagged(),
            ip_proto: pattern.exact(MatchField::IpProto),
            icmpv6_type: pattern.exact(MatchField::Icmpv6Type),
        }
    }

    /// Of any frame; nothing is inconsistent with it.
    pub(super) fn any() -> Self {
        Self { is_known: false, ..Self::of(&Pattern::any()) }
    }

    /// `OFPBAC_MATCH_INCONSISTENT` where the frames don't have what the action is about.
    fn pass(&mut self, action: &FlowAction) -> Result<(), BadAction> {
        let needs = |is_there: bool| {
            if is_there || !self.is_known { Ok(()) } else { Err(BadAction::MatchInconsistent) }
        };
        match *action {
            FlowAction::PushVlan(_) => self.is_tagged = Some(true),
            FlowAction::PopVlan => {
                needs(self.is_tagged != Some(false))?;
                self.is_tagged = None;
            }
            FlowAction::PushMpls(tag) => self.has_type(tag),
            FlowAction::PopMpls(below) => {
                needs(self.is_mpls())?;
                self.has_type(below);
            }
            FlowAction::CopyTtlOut
            | FlowAction::CopyTtlIn
            | FlowAction::SetMplsTtl(_)
            | FlowAction::DecMplsTtl => needs(self.is_mpls())?,
            FlowAction::SetNwTtl(_) | FlowAction::DecNwTtl => needs(self.is_ip())?,
            FlowAction::SetField { field, value } => {
                let field = MatchField::from_u8(field).ok_or(BadAction::BadSetType)?;
                needs(self.has(field))?;
                self.set(field, value);
            }
            FlowAction::Output { .. } | FlowAction::Group(_) | FlowAction::SetQueue(_) => {}
        }
        Ok(())
    }

    fn has_type(&mut self, eth_type: u16) {
        (self.eth_type, self.ip_proto, self.icmpv6_type) = (Some(eth_type.into()), None, None);
    }

    fn is_mpls(&self) -> bool {
        let mpls = [eth_type::MPLS, eth_type::MPLS_MULTICAST];
        mpls.iter().any(|of| self.eth_type == Some((*of).into()))
    }

    fn is_ip(&self) -> bool {
        [eth_type::IPV4, eth_type::IPV6].iter().any(|of| self.eth_type == Some((*of).into()))
    }

    /// What the field needs (table 12), and a tag for its number.
    fn has(&self, field: MatchField) -> bool {
        if field == MatchField::VlanVid {
            return self.is_tagged != Some(false);
        }
        match field.prerequisite() {
            None | Some(Prerequisite::Present(_)) => true,
            Some(Prerequisite::Tagged) => self.is_tagged == Some(true),
            Some(Prerequisite::OneOf(needed, values)) => {
                let known = if needed == MatchField::EthType {
                    self.eth_type
                } else if needed == MatchField::IpProto {
                    self.ip_proto
                } else {
                    self.icmpv6_type
                };
                known.is_some_and(|value| values.contains(&value))
            }
        }
    }

    fn set(&mut self, field: MatchField, value: u128) {
        if field == MatchField::EthType {
            self.eth_type = Some(value);
        } else if field == MatchField::IpProto {
            self.ip_proto = Some(value);
        } else if field == MatchField::Icmpv6Type {
            self.icmpv6_type = Some(value);
        }
    }
}
