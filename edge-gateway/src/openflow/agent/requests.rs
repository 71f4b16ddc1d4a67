//! What a controller changes: flows (§7.3.4.1), and frames that it sends (§7.3.7) or is sent (§7.4.1).

use std::time::Duration;

use caregate_protocol::datapath::{PACKET_BYTES_MAX, PACKET_BYTES_MIN, PORTS_MAX};
use caregate_protocol::openflow::{
    self, BadAction, BadRequest, ErrorKind, ErrorMessage, FlowModFailed, Match, Message, NO_BUFFER, PacketIn,
    PacketInReason, PacketOut, port,
};

use super::super::flow::FlowId;
use super::super::table::{FlowTable, TABLE_CONTROLLER};
use super::super::translate;
use super::super::treatment::Output;
use super::{Action, Agent, BATCH_MAX, HelperRefused, Request};

impl Agent {
    pub(super) fn flow_mod(
        &mut self,
        xid: u32,
        wanted: &openflow::FlowMod,
        frame: &[u8],
        now: Duration,
    ) -> Result<(), ErrorKind> {
        self.check_writer()?;
        FlowTable::check_table(wanted.command, wanted.table_id)?;
        let change = translate::flow_mod(wanted)?;
        let unknown = ErrorKind::FlowModFailed(FlowModFailed::Unknown);
        if !self.is_helper_there {
            return Err(unknown);
        }
        let is_first = self.batch.is_none();
        self.begin_batch();
        let outcome = self.table.apply(&change, now);
        let Some(batch) = &mut self.batch else { return Err(unknown) };
        match outcome {
            Ok(outcome) if outcome.changed => {
                batch.requests.push(Request { xid, error: ErrorMessage::about(unknown, frame) });
                batch.removed.extend(outcome.removed);
                Ok(())
            }
            unchanged => {
                if is_first {
                    self.batch = None;
                }
                unchanged.map(drop)
            }
        }
    }

    /// A slave may only look (§6.3.5).
    fn check_writer(&self) -> Result<(), ErrorKind> {
        match &self.conversation {
            Some(talk) if talk.is_slave() => Err(ErrorKind::BadRequest(BadRequest::IsSlave)),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn flush_if_full(&mut self, actions: &mut Vec<Action>) {
        if self.batch.as_ref().is_some_and(|batch| batch.requests.len() >= BATCH_MAX) {
            self.flush_batch(actions);
        }
    }

    pub(super) fn packet_out(
        &mut self,
        xid: u32,
        packet: PacketOut,
        frame: &[u8],
        actions: &mut Vec<Action>,
    ) -> Result<(), ErrorKind> {
        self.check_writer()?;
        let PacketOut { buffer_id, in_port, actions: wanted, data } = packet;
        let outputs = self.outputs(in_port, &wanted)?;
        if buffer_id != NO_BUFFER {
            return Err(ErrorKind::BadRequest(BadRequest::BufferUnknown));
        }
        if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&data.len()) {
            return Err(ErrorKind::BadRequest(BadRequest::BadPacket));
        }
        let bad_port = ErrorKind::BadRequest(BadRequest::BadPort);
        if !self.is_helper_there && !outputs.is_empty() {
            return Err(bad_port);
        }
        for port in outputs {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            let request = Request { xid, error: ErrorMessage::about(bad_port, frame) };
            self.packet_outs.insert(ticket, Some(request));
            actions.push(Action::PacketOut { ticket, port, frame: data.clone() });
        }
        Ok(())
    }

    /// The uplinks by which a packet-out leaves.
    fn outputs(&self, in_port: u32, wanted: &[openflow::Action]) -> Result<Vec<u32>, ErrorKind> {
        if !matches!(in_port, port::CONTROLLER | port::LOCAL) {
            // As if it had come in by a port: from a sensor it may never seem to.
            self.table.check_packet_out(in_port)?;
        }
        if wanted.len() > PORTS_MAX {
            return Err(ErrorKind::BadAction(BadAction::TooMany));
        }
        let output = |action: &openflow::Action| match action {
            openflow::Action::Output { port, .. } => self.table.check_packet_out(*port).map(|()| *port),
            openflow::Action::Experimenter { .. } => Err(ErrorKind::BadAction(BadAction::BadExperimenter)),
            openflow::Action::SetQueue(_)
            | openflow::Action::Group(_)
            | openflow::Action::SetField(_)
            | openflow::Action::CopyTtlOut
            | openflow::Action::CopyTtlIn
            | openflow::Action::SetMplsTtl(_)
            | openflow::Action::DecMplsTtl
            | openflow::Action::PushVlan(_)
            | openflow::Action::PopVlan
            | openflow::Action::PushMpls(_)
            | openflow::Action::PopMpls(_)
            | openflow::Action::SetNwTtl(_)
            | openflow::Action::DecNwTtl
            | openflow::Action::PushPbb(_)
            | openflow::Action::PopPbb
            | openflow::Action::Other { .. } => Err(ErrorKind::BadAction(BadAction::BadType)),
        };
        wanted.iter().map(output).collect()
    }

    /// Takes what came of [`Action::PacketOut`].
    #[must_use]
    pub fn handle_packet_out(
        &mut self,
        ticket: u64,
        result: Result<(), HelperRefused>,
        now: Duration,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let asked = self.packet_outs.remove(&ticket).flatten();
        if result.is_err() {
            actions.push(Action::Refused("helper"));
            if let (Some(talk), Some(Request { xid, error })) = (&self.conversation, asked) {
                talk.answer(xid, &Message::Error(error), &mut actions);
            }
        }
        self.proceed(now, &mut actions);
        actions
    }

    /// A rule sent a frame of the gateway's own to the controller. Whatever the helper says, a frame by another rule than one of
    /// `in_port = LOCAL` goes nowhere: no sensor's frame reaches a controller.
    #[must_use]
    pub fn handle_packet_in(
        &mut self,
        rule: u64,
        total_len: u16,
        frame: Vec<u8>,
        now: Duration,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let flow = self.table.flows().iter().find(|flow| flow.id == FlowId(rule));
        let Some(flow) = flow.filter(|flow| {
            flow.pattern.in_port() == Some(port::LOCAL)
                && matches!(flow.treatment.output, Output::Controller { .. })
        }) else {
            actions.push(Action::Refused("packet-in-rule"));
            return actions;
        };
        let packet = PacketIn {
            buffer_id: NO_BUFFER,
            total_len,
            reason: PacketInReason::Action,
            table_id: TABLE_CONTROLLER,
            cookie: flow.cookie,
            pattern: Match::any().in_port(port::LOCAL),
            data: frame,
        };
        match &mut self.conversation {
            Some(talk) if talk.is_open() && !talk.is_slave() => {
                if talk.take_token(now) {
                    talk.answer(0, &Message::PacketIn(packet), &mut actions);
                } else {
                    actions.push(Action::Refused("packet-in-rate"));
                }
            }
            Some(_) | None => actions.push(Action::Refused("packet-in-nobody")),
        }
        actions
    }
}
