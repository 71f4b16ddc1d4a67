//! What a controller changes: flows (§7.3.4.1), groups (§7.3.4.2), meters (§7.3.4.4), ports (§7.3.4.3) and tables (§7.3.3).

use std::time::Duration;

use caregate_protocol::datapath::switch::TABLES;
use caregate_protocol::openflow::{
    BadRequest, ErrorKind, FlowModFailed, GroupMod, GroupModFailed, MeterMod, MeterModFailed, PortMod,
    PortModFailed, PortReason, TABLE_ALL, TableMod, TableModFailed, port,
};

use super::super::tables::{FlowRequest, Outcome, Tables};
use super::batch::Request;
use super::incoming::Quoted;
use super::{Action, Agent};

/// What a port-mod can set: what is about packet-ins is the switch's own; a port's frames are the kernel's.
const PORT_CONFIG: u32 = port::config::NO_PACKET_IN;

impl Agent {
    pub(super) fn flow_mod(
        &mut self,
        xid: u32,
        wanted: FlowRequest,
        quoted: Quoted,
        now: Duration,
    ) -> Result<(), ErrorKind> {
        let unknown = ErrorKind::FlowModFailed(FlowModFailed::Unknown);
        self.change(xid, unknown, quoted, now, |tables| tables.request(wanted, now))
    }

    pub(super) fn group_mod(
        &mut self,
        xid: u32,
        wanted: &GroupMod,
        quoted: Quoted,
        now: Duration,
    ) -> Result<(), ErrorKind> {
        // Of groups the standard has no "unknown".
        let unknown = ErrorKind::GroupModFailed(GroupModFailed::InvalidGroup);
        self.change(xid, unknown, quoted, now, |tables| tables.group_mod(wanted, now))
    }

    pub(super) fn meter_mod(
        &mut self,
        xid: u32,
        wanted: &MeterMod,
        quoted: Quoted,
        now: Duration,
    ) -> Result<(), ErrorKind> {
        let unknown = ErrorKind::MeterModFailed(MeterModFailed::Unknown);
        self.change(xid, unknown, quoted, now, |tables| tables.meter_mod(wanted, now))
    }

    /// Changes the tables; `unknown` is what is answered where the helper refuses or is away.
    fn change(
        &mut self,
        xid: u32,
        unknown: ErrorKind,
        quoted: Quoted,
        now: Duration,
        apply: impl FnOnce(&mut Tables) -> Result<Outcome, ErrorKind>,
    ) -> Result<(), ErrorKind> {
        self.check_writer()?;
        if !self.is_helper_there {
            return Err(unknown);
        }
        let outcome = apply(&mut self.tables)?;
        self.gather(outcome, Request::new(xid, unknown, quoted), now);
        Ok(())
    }

    /// A slave may only look (§6.3.5).
    pub(super) fn check_writer(&self) -> Result<(), ErrorKind> {
        match &self.conversation {
            Some(talk) if talk.is_slave() => Err(ErrorKind::BadRequest(BadRequest::IsSlave)),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn port_mod(
        &mut self,
        wanted: &PortMod,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), ErrorKind> {
        self.check_writer()?;
        let refuse = |code| Err(ErrorKind::PortModFailed(code));
        let ports = self.tables.ports_mut();
        if ports.is_sensor(wanted.port) {
            return refuse(PortModFailed::Eperm);
        }
        let Some(entry) = ports.find_mut(wanted.port) else { return refuse(PortModFailed::BadPort) };
        if entry.port.mac != wanted.hw_addr {
            return refuse(PortModFailed::BadHwAddr);
        }
        let config = entry.config & !wanted.mask | wanted.config & wanted.mask;
        if config & !PORT_CONFIG != 0 {
            return refuse(PortModFailed::BadConfig);
        }
        if wanted.advertise != 0 {
            return refuse(PortModFailed::BadAdvertise);
        }
        if entry.config != config {
            (entry.config, entry.since) = (config, now);
            let entry = entry.clone();
            self.tell_port(PortReason::Modify, &entry, actions);
        }
        Ok(())
    }

    /// 1.3 has no configuration of tables left; what was one is refused.
    pub(super) fn table_mod(&self, wanted: TableMod) -> Result<(), ErrorKind> {
        self.check_writer()?;
        let refuse = |code| Err(ErrorKind::TableModFailed(code));
        match wanted.table_id {
            TABLE_ALL => {}
            table if table < self.tables.first_table() => return refuse(TableModFailed::Eperm),
            table if table < TABLES => {}
            _ => return refuse(TableModFailed::BadTable),
        }
        if wanted.config == 0 { Ok(()) } else { refuse(TableModFailed::BadConfig) }
    }
}
