//! Frames that a controller sends (§7.3.7) or is sent (§7.4.1).

use std::time::Duration;

use caregate_protocol::datapath::switch::FlowAction;
use caregate_protocol::datapath::{PACKET_BYTES_MAX, PACKET_BYTES_MIN};
use caregate_protocol::openflow::{
    BadRequest, ErrorKind, ErrorMessage, Match, Message, NO_BUFFER, PacketIn, PacketInReason, PacketOut, port,
};

use super::super::check::Headers;
use super::super::flow::{Flow, FlowId};
use super::super::translate;
use super::batch::Request;
use super::{Action, Agent, HelperRefused};

impl Agent {
    pub(super) fn packet_out(
        &mut self,
        xid: u32,
        packet: PacketOut,
        frame: &[u8],
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), ErrorKind> {
        self.check_writer()?;
        let PacketOut { buffer_id, in_port, actions: wanted, data } = packet;
        // As if it had come in by a port: from a sensor it may never seem to.
        self.tables.ports().check_packet_out(in_port)?;
        let wanted = translate::actions(&wanted)?;
        self.check_packet(&wanted)?;
        if buffer_id != NO_BUFFER {
            return Err(ErrorKind::BadRequest(BadRequest::BufferUnknown));
        }
        if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&data.len()) {
            return Err(ErrorKind::BadRequest(BadRequest::BadPacket));
        }
        let lost = ErrorKind::BadRequest(BadRequest::BadPort);
        if !self.is_helper_there && !wanted.is_empty() {
            return Err(lost);
        }
        let request = Request { xid, error: ErrorMessage::about(lost, frame) };
        let _ = now;
        for number in self.outputs(in_port, &wanted) {
            self.send(number, data.clone(), Some(request.clone()), actions);
        }
        Ok(())
    }

    /// What a frame that is not of a flow may be treated with: to sensor ports it never goes.
    fn check_packet(&self, wanted: &[FlowAction]) -> Result<(), ErrorKind> {
        let (ports, around) = (self.tables.ports(), self.tables.surroundings());
        for action in wanted {
            match action {
                FlowAction::Output { port, .. } if ports.is_sensor(*port) => {
                    return Err(ErrorKind::BadRequest(BadRequest::Eperm));
                }
                // Through the tables, which packet-outs alone may say.
                FlowAction::Output { port: port::TABLE, .. } => {}
                action => around.actions(std::slice::from_ref(action), &mut Headers::any())?,
            }
        }
        Ok(())
    }

    fn outputs(&self, in_port: u32, wanted: &[FlowAction]) -> Vec<u32> {
        let ports = self.tables.ports();
        let others = || {
            let all = ports.list().iter().map(|entry| entry.port.number);
            all.filter(|number| *number != in_port && !ports.is_sensor(*number)).collect::<Vec<_>>()
        };
        let output = |action: &FlowAction| match *action {
            FlowAction::Output { port: port::FLOOD | port::ALL, .. } => others(),
            FlowAction::Output { port: port::IN_PORT, .. } => vec![in_port],
            FlowAction::Output { port, .. } => vec![port],
            _ => Vec::new(),
        };
        let numbers = wanted.iter().flat_map(output);
        numbers.filter(|number| ports.find(*number).is_some()).collect()
    }

    /// Has the helper send a frame.
    fn send(&mut self, port: u32, frame: Vec<u8>, asked: Option<Request>, actions: &mut Vec<Action>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.packet_outs.insert(ticket, asked);
        actions.push(Action::PacketOut { ticket, port, frame });
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
            if let Some(request) = asked {
                self.tell_error(request, &mut actions);
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
        let Some(flow) = self.tables.flows().get(FlowId(rule)).filter(|flow| sends_own(flow)) else {
            actions.push(Action::Refused("packet-in-rule"));
            return actions;
        };
        let packet = PacketIn {
            buffer_id: NO_BUFFER,
            total_len,
            reason: PacketInReason::Action,
            table_id: flow.table,
            cookie: flow.cookie,
            pattern: Match::any().in_port(port::LOCAL),
            data: frame,
        };
        self.tell_packet(packet, port::LOCAL, now, &mut actions);
        actions
    }

    /// Tells the controller of a frame, if it wants that, and not faster than it can be asked to take them.
    fn tell_packet(&mut self, packet: PacketIn, in_port: u32, now: Duration, actions: &mut Vec<Action>) {
        let is_silent = |config: u32| config & port::config::NO_PACKET_IN != 0;
        if self.tables.ports().find(in_port).is_some_and(|entry| is_silent(entry.config)) {
            return actions.push(Action::Refused("packet-in-port"));
        }
        match &mut self.conversation {
            Some(talk) if talk.is_open() && talk.wants_packet_in(packet.reason) => {
                if talk.take_token(now) {
                    talk.answer(0, &Message::PacketIn(packet), actions);
                } else {
                    actions.push(Action::Refused("packet-in-rate"));
                }
            }
            Some(_) | None => actions.push(Action::Refused("packet-in-nobody")),
        }
    }
}

fn sends_own(flow: &Flow) -> bool {
    let to_controller =
        |action: &FlowAction| matches!(action, FlowAction::Output { port: port::CONTROLLER, .. });
    flow.pattern.is_local() && flow.actions().any(to_controller)
}
