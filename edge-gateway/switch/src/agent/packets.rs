//! Frames that a controller sends (§7.3.7) or is sent (§7.4.1).

use std::time::Duration;

use caregate_protocol::datapath::switch::FlowAction;
use caregate_protocol::datapath::{self, PACKET_BYTES_MAX, PACKET_BYTES_MIN};
use caregate_protocol::openflow::{
    BadAction, BadRequest, ErrorKind, Match, MatchField, Message, NO_BUFFER, Oxm, PacketIn, PacketInReason,
    PacketOut, port,
};

use super::super::check::Headers;
use super::super::flow::{Flow, FlowId};
use super::super::{slow, translate};
use super::batch::{Request, take_number};
use super::incoming::Quoted;
use super::{Action, Agent, HelperRefused, PUNTS_MAX, Sending};

impl Agent {
    pub(super) fn packet_out(
        &mut self,
        xid: u32,
        packet: PacketOut,
        quoted: Quoted,
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
        let request = Request::new(xid, lost, quoted);
        let made = slow::execute_actions(&self.tables, slow::Frame::new(in_port, &data), &wanted);
        self.carry_out(made, Some(&request), now, actions);
        Ok(())
    }

    /// A frame that the kernel could not do all actions of. Whatever the helper says, one of a sensor port goes nowhere.
    #[must_use]
    pub fn handle_punt(&mut self, of: slow::Frame<'_>, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.tables.ports().is_sensor(of.in_port) {
            actions.push(Action::Refused("punt-sensor"));
        } else if self.packet_outs.len() - self.asked_outs() >= PUNTS_MAX {
            actions.push(Action::Refused("punt-busy"));
        } else {
            let made = slow::execute(&self.tables, of);
            self.carry_out(made, None, now, &mut actions);
        }
        actions
    }

    fn carry_out(
        &mut self,
        made: Vec<slow::Made>,
        asked: Option<&Request>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        for one in made {
            match one {
                slow::Made::Output { port, queue, frame } if self.is_helper_there => {
                    self.send(datapath::PacketOut { port, queue, frame }, asked, actions);
                }
                slow::Made::Output { .. } => actions.push(Action::Refused("helper")),
                slow::Made::PacketIn(made) => {
                    let in_port = made.in_port;
                    self.tell_packet(packet_in(made), in_port, now, actions);
                }
                slow::Made::LeftOut(word) => actions.push(Action::Refused(word)),
            }
        }
    }

    /// What a frame that is not of a flow may be treated with: to sensor ports it never goes.
    fn check_packet(&self, wanted: &[FlowAction]) -> Result<(), ErrorKind> {
        let (ports, around) = (self.tables.ports(), self.tables.surroundings());
        for action in wanted {
            if let FlowAction::Output { port: number, .. } = action {
                if ports.is_sensor(*number) {
                    return Err(ErrorKind::BadRequest(BadRequest::Eperm));
                }
                // Only what came in by a port can be given to the gateway's stack, which the kernel does.
                if matches!(*number, port::LOCAL | port::NORMAL) {
                    return Err(ErrorKind::BadAction(BadAction::BadOutPort));
                }
                // Through the tables, which packet-outs alone may say.
                if *number == port::TABLE {
                    continue;
                }
            }
            around.actions(std::slice::from_ref(action), &mut Headers::any())?;
        }
        Ok(())
    }

    /// Has the helper send a frame; to a sensor port it never goes.
    fn send(&mut self, packet: datapath::PacketOut, asked: Option<&Request>, actions: &mut Vec<Action>) {
        if self.tables.ports().is_sensor(packet.port) {
            return actions.push(Action::Refused("sensor-port"));
        }
        let ticket = take_number(&mut self.next_ticket);
        let sending = asked.map_or(Sending::Punt, |request| Sending::Asked(request.clone()));
        self.packet_outs.insert(ticket, sending);
        actions.push(Action::PacketOut { ticket, packet });
    }

    /// Frames of packet-outs that the helper has not confirmed.
    pub(super) fn asked_outs(&self) -> usize {
        self.packet_outs.values().filter(|sending| !matches!(sending, Sending::Punt)).count()
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
        let sending = self.packet_outs.remove(&ticket);
        if result.is_err() {
            actions.push(Action::Refused("helper"));
            if let Some(Sending::Asked(request)) = sending {
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

/// How it came in is said by the fields that are not zero (§7.4.1).
fn packet_in(made: slow::PacketIn) -> PacketIn {
    let fields = [(MatchField::Metadata, made.metadata), (MatchField::TunnelId, made.tunnel)];
    let mut pattern = Match::any().in_port(made.in_port);
    let oxms = fields.into_iter().filter(|(_, value)| *value != 0);
    pattern.fields.extend(oxms.filter_map(|(field, value)| Oxm::exact(field, value.into()).ok()));
    PacketIn {
        buffer_id: NO_BUFFER,
        total_len: made.total_len.try_into().unwrap_or(u16::MAX),
        reason: made.reason,
        table_id: made.table,
        cookie: made.cookie,
        pattern,
        data: made.data,
    }
}

fn sends_own(flow: &Flow) -> bool {
    let to_controller =
        |action: &FlowAction| matches!(action, FlowAction::Output { port: port::CONTROLLER, .. });
    flow.pattern.is_local() && flow.actions().any(to_controller)
}
