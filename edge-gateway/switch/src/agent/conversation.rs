//! One connection to a controller: hello (§6.3.1), echo (§6.3.2), and what it asks for.

use std::time::Duration;

use caregate_protocol::datapath::switch::SharedInstructions;
use caregate_protocol::openflow::multipart::RequestBody;
use caregate_protocol::openflow::{
    AsyncConfig, BadRequest, ControllerRole, DecodeError, ErrorKind, ErrorMessage, FragmentHandling,
    FrameError, Hello, HelloFailed, Message, MessageType, PacketInReason, PortReason, RemovedReason, Role,
    RoleRequestFailed, SwitchConfig, SwitchConfigFailed, VERSION,
};
use caregate_protocol::rate::TokenBucket;
use thiserror::Error;

use super::incoming::{Content, Incoming, Quoted};
use super::{Action, Agent, PACKET_INS_PER_S, Sending};

/// From the connection to the controller's hello.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence of the controller after which an echo is sent.
pub const ECHO_INTERVAL: Duration = Duration::from_secs(10);
/// Wait for any message after it.
pub const ECHO_TIMEOUT: Duration = Duration::from_secs(10);
/// Most malformed messages of one connection: enough for a controller that tries what nobody has, too few for one that floods.
pub const FAULTS_MAX: u32 = 64;

/// Why a connection is ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// No version in common.
    #[error(
        "controller and gateway have no version in common: the hello leads to {0}, spoken here is {VERSION}"
    )]
    Incompatible(u8),
    /// The controller refused our hello.
    #[error("the controller refused the hello")]
    HelloRefused,
    /// Something else came before the hello.
    #[error("the first message was no hello")]
    NoHello,
    /// No hello in time.
    #[error("no hello in time")]
    HandshakeTimeout,
    /// No answer to an echo.
    #[error("no answer to an echo")]
    EchoTimeout,
    /// The byte stream can't be cut into messages.
    #[error("the stream lost its framing")]
    Framing,
    /// More than [`FAULTS_MAX`] malformed messages.
    #[error("more than {FAULTS_MAX} malformed messages")]
    Faults,
}

impl CloseReason {
    /// A word for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incompatible(_) => "incompatible",
            Self::HelloRefused => "hello-refused",
            Self::NoHello => "no-hello",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::EchoTimeout => "echo-timeout",
            Self::Framing => "framing",
            Self::Faults => "faults",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitHello { deadline: Duration },
    Open { heard_at: Duration },
    AwaitEcho { sent_at: Duration },
    Closed,
}

/// What can be answered only when the helper has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pending {
    Barrier,
    Statistics(RequestBody),
}

/// The connection.
#[derive(Debug)]
pub(super) struct Conversation {
    state: State,
    next_xid: u32,
    /// At most [`FAULTS_MAX`] while open.
    faults: u32,
    role: ControllerRole,
    config: SwitchConfig,
    /// What it wants to be told unasked.
    asynchronous: AsyncConfig,
    /// With its transaction id. No frame is taken until it is answered.
    pub(super) pending: Option<(u32, Pending)>,
    /// Packet-ins that may be sent.
    tokens: TokenBucket,
}

impl Conversation {
    fn open(now: Duration) -> Self {
        Self {
            state: State::AwaitHello { deadline: now + HANDSHAKE_TIMEOUT },
            next_xid: 1,
            faults: 0,
            role: ControllerRole::Equal,
            config: SwitchConfig { fragments: FragmentHandling::Normal, miss_send_len: 128 },
            asynchronous: AsyncConfig::default(),
            pending: None,
            tokens: TokenBucket::new(PACKET_INS_PER_S, PACKET_INS_PER_S, now),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::AwaitEcho { .. })
    }

    pub(super) fn is_slave(&self) -> bool {
        self.role == ControllerRole::Slave
    }

    /// Whether it wants what has this reason, by masks for masters and for slaves (§7.3.10).
    fn wants(&self, masks: [u32; 2], reason: u8) -> bool {
        let [master, slave] = masks;
        let mask = if self.is_slave() { slave } else { master };
        mask >> reason & 1 != 0
    }

    pub(super) fn wants_packet_in(&self, reason: PacketInReason) -> bool {
        self.wants(self.asynchronous.packet_in, reason as u8)
    }

    pub(super) fn wants_port_status(&self, reason: PortReason) -> bool {
        self.wants(self.asynchronous.port_status, reason as u8)
    }

    pub(super) fn wants_flow_removed(&self, reason: RemovedReason) -> bool {
        self.wants(self.asynchronous.flow_removed, reason as u8)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    pub(super) fn next_timeout(&self) -> Option<Duration> {
        match self.state {
            State::AwaitHello { deadline } => Some(deadline),
            State::Open { heard_at } => Some(heard_at + ECHO_INTERVAL),
            // While no frame is taken, none can be the answer.
            State::AwaitEcho { sent_at } => (!self.is_waiting()).then_some(sent_at + ECHO_TIMEOUT),
            State::Closed => None,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.state {
            State::AwaitHello { .. } => self.close(CloseReason::HandshakeTimeout, actions),
            State::AwaitEcho { .. } => self.close(CloseReason::EchoTimeout, actions),
            State::Open { .. } => {
                let xid = self.take_xid();
                self.answer(xid, &Message::EchoRequest(Vec::new()), actions);
                self.state = State::AwaitEcho { sent_at: now };
            }
            State::Closed => {}
        }
    }

    fn take_xid(&mut self) -> u32 {
        let xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1);
        xid
    }

    pub(super) fn answer(&self, xid: u32, message: &Message, actions: &mut Vec<Action>) {
        if self.state == State::Closed {
            return;
        }
        match message.encode(xid) {
            Ok(bytes) => actions.push(Action::Send(bytes)),
            // Can't be: what is long is split, and the rest answers one message.
            Err(_too_long) => actions.push(Action::Refused("encode")),
        }
    }

    /// Tells the controller that its message is refused.
    fn refuse(&self, xid: u32, kind: ErrorKind, quoted: &Quoted, actions: &mut Vec<Action>) {
        self.answer(xid, &Message::Error(quoted.error(kind)), actions);
        actions.push(Action::Refused(kind.as_str()));
    }

    fn count_fault(&mut self, reason: &'static str, actions: &mut Vec<Action>) {
        actions.push(Action::Refused(reason));
        self.faults += 1;
        if self.faults > FAULTS_MAX {
            self.close(CloseReason::Faults, actions);
        }
    }

    fn close(&mut self, reason: CloseReason, actions: &mut Vec<Action>) {
        self.state = State::Closed;
        actions.push(Action::Close(reason));
    }

    /// Whether one more packet-in may be sent.
    pub(super) fn take_token(&mut self, now: Duration) -> bool {
        let is_ready = self.tokens.is_ready(now);
        self.tokens.take(now);
        is_ready
    }

    fn greet(&mut self, xid: u32, content: Content, now: Duration, actions: &mut Vec<Action>) {
        let message = match content {
            Content::Fault(error, answer) => return self.handle_fault(xid, &error, answer, actions),
            Content::FlowMod(_) => None,
            Content::Message(message) => Some(message),
        };
        let message_type = message.as_ref().map_or(MessageType::FlowMod, Message::message_type);
        if let Some(Message::Hello(peer)) = &message {
            let version = Hello::ours().negotiate(peer);
            if version == VERSION {
                self.state = State::Open { heard_at: now };
                return actions.push(Action::Established);
            }
            let kind = ErrorKind::HelloFailed(HelloFailed::Incompatible);
            let data = format!("only OpenFlow 1.3 (version {VERSION}) is spoken here").into_bytes();
            self.answer(xid, &Message::Error(ErrorMessage { kind, data }), actions);
            self.close(CloseReason::Incompatible(version), actions);
        } else if let Some(Message::Error(_)) = message {
            actions.push(Action::Refused("peer-error"));
            self.close(CloseReason::HelloRefused, actions);
        } else {
            actions.push(Action::Refused(message_type.as_str()));
            self.close(CloseReason::NoHello, actions);
        }
    }

    fn handle_fault(
        &mut self,
        xid: u32,
        error: &DecodeError,
        answer: Option<ErrorMessage>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(answer) = answer {
            self.answer(xid, &Message::Error(answer), actions);
        }
        if matches!(self.state, State::AwaitHello { .. }) {
            actions.push(Action::Refused(error.reason()));
            self.close(CloseReason::NoHello, actions);
        } else if matches!(error, DecodeError::Unsupported { .. }) {
            // A controller may try what other switches have.
            actions.push(Action::Refused(error.reason()));
        } else {
            self.count_fault(error.reason(), actions);
        }
    }

    fn set_config(&mut self, wanted: SwitchConfig) -> Result<(), ErrorKind> {
        if self.is_slave() {
            return Err(ErrorKind::BadRequest(BadRequest::IsSlave));
        }
        match wanted.fragments {
            FragmentHandling::Normal => {
                self.config = wanted;
                Ok(())
            }
            // What becomes of a sensor's fragments is policy's, and the gateway's own are its kernel's.
            FragmentHandling::Drop | FragmentHandling::Reassemble => {
                Err(ErrorKind::SwitchConfigFailed(SwitchConfigFailed::BadFlags))
            }
        }
    }

    /// §6.3.5: who asks to be master or slave must not come with an older election than one that was seen.
    fn take_role(&mut self, wanted: Role, newest: &mut Option<u64>) -> Result<Role, ErrorKind> {
        if matches!(wanted.role, ControllerRole::Master | ControllerRole::Slave) {
            // Generations count round.
            let is_stale = newest.is_some_and(|newest| wanted.generation_id.wrapping_sub(newest) >= 1 << 63);
            if is_stale {
                return Err(ErrorKind::RoleRequestFailed(RoleRequestFailed::Stale));
            }
            *newest = Some(wanted.generation_id);
        }
        if wanted.role != ControllerRole::NoChange {
            self.role = wanted.role;
        }
        Ok(Role { role: self.role, generation_id: newest.unwrap_or(u64::MAX) })
    }
}

impl Agent {
    /// A connection to the controller is there; an earlier one is gone.
    #[must_use]
    pub fn handle_connected(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.handle_disconnected();
        let talk = self.conversation.insert(Conversation::open(now));
        let xid = talk.take_xid();
        talk.answer(xid, &Message::Hello(Hello::ours()), &mut actions);
        actions
    }

    /// The connection is gone. The flows stay.
    pub fn handle_disconnected(&mut self) {
        self.conversation = None;
        for sending in self.packet_outs.values_mut().filter(|of| matches!(of, Sending::Asked(_))) {
            *sending = Sending::Orphan;
        }
        if let Some(batch) = &mut self.batch {
            batch.requests.clear();
        }
    }

    /// Takes one whole message, header included; never while [`is_waiting`](Self::is_waiting).
    #[must_use]
    pub fn handle_frame(&mut self, frame: &[u8], now: Duration) -> Vec<Action> {
        self.handle_incoming(Incoming::of(frame, &mut SharedInstructions::default()), now)
    }

    /// The same of one that is decoded; never while [`is_waiting`](Self::is_waiting).
    #[must_use]
    pub fn handle_incoming(&mut self, incoming: Incoming, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let Incoming { quoted, xid, content } = incoming;
        let Some(talk) = &mut self.conversation else { return actions };
        match talk.state {
            State::Closed => return actions,
            State::AwaitHello { .. } => talk.greet(xid, content, now, &mut actions),
            State::Open { .. } | State::AwaitEcho { .. } => {
                talk.state = State::Open { heard_at: now };
                if let Content::Fault(error, answer) = content {
                    talk.handle_fault(xid, &error, answer, &mut actions);
                } else {
                    self.handle_content(xid, content, quoted, now, &mut actions);
                }
            }
        }
        actions
    }

    /// Takes the end of framing: tells the controller (§7.4.4) and closes.
    #[must_use]
    pub fn handle_framing_error(&mut self, error: &FrameError) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(talk) = self.conversation.as_mut().filter(|talk| talk.state != State::Closed) {
            let kind = ErrorKind::BadRequest(BadRequest::BadLen);
            talk.answer(
                error.header.xid,
                &Message::Error(ErrorMessage { kind, data: Vec::new() }),
                &mut actions,
            );
            actions.push(Action::Refused("framing"));
            talk.close(CloseReason::Framing, &mut actions);
        }
        actions
    }

    fn handle_content(
        &mut self,
        xid: u32,
        content: Content,
        quoted: Quoted,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let result = match content {
            Content::FlowMod(wanted) => Ok(self.flow_mod(xid, wanted, quoted, now).map(|()| None)),
            Content::Message(message) => self.handle_message(xid, message, quoted, now, actions),
            Content::Fault(..) => return,
        };
        match (result, &self.conversation) {
            (Err(word), _) => return actions.push(Action::Refused(word)),
            (Ok(Ok(Some(reply))), Some(talk)) => talk.answer(xid, &reply, actions),
            (Ok(Err(kind)), Some(talk)) => talk.refuse(xid, kind, &quoted, actions),
            (Ok(_), _) => {}
        }
        self.flush_if_full(actions);
        self.prepare_if_many(actions);
        self.proceed(now, actions);
    }

    /// What is answered; an error is a word for what is left alone.
    fn handle_message(
        &mut self,
        xid: u32,
        message: Message,
        quoted: Quoted,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<Result<Option<Message>, ErrorKind>, &'static str> {
        Ok(match message {
            Message::GroupMod(wanted) => self.group_mod(xid, &wanted, quoted, now).map(|()| None),
            Message::MeterMod(wanted) => self.meter_mod(xid, &wanted, quoted, now).map(|()| None),
            Message::PortMod(wanted) => self.port_mod(&wanted, now, actions).map(|()| None),
            Message::TableMod(wanted) => self.table_mod(wanted).map(|()| None),
            Message::PacketOut(packet) => self.packet_out(xid, packet, quoted, now, actions).map(|()| None),
            Message::MultipartRequest(request) => self.multipart(xid, request, actions).map(|()| None),
            Message::FeaturesRequest => Ok(Some(Message::FeaturesReply(self.features()))),
            Message::QueueGetConfigRequest(port) => {
                self.queue_config(port).map(|config| Some(Message::QueueGetConfigReply(config)))
            }
            message @ (Message::Hello(_)
            | Message::Error(_)
            | Message::EchoRequest(_)
            | Message::EchoReply(_)
            | Message::Experimenter(_)
            | Message::FeaturesReply(_)
            | Message::GetConfigRequest
            | Message::GetConfigReply(_)
            | Message::SetConfig(_)
            | Message::PacketIn(_)
            | Message::FlowMod(_)
            | Message::FlowRemoved(_)
            | Message::PortStatus(_)
            | Message::MultipartReply(_)
            | Message::BarrierRequest
            | Message::BarrierReply
            | Message::QueueGetConfigReply(_)
            | Message::RoleRequest(_)
            | Message::RoleReply(_)
            | Message::GetAsyncRequest
            | Message::GetAsyncReply(_)
            | Message::SetAsync(_)) => return self.converse(xid, message),
        })
    }

    /// What is about the connection itself; an error is a word for what is left alone.
    fn converse(
        &mut self,
        xid: u32,
        message: Message,
    ) -> Result<Result<Option<Message>, ErrorKind>, &'static str> {
        let Some(talk) = &mut self.conversation else { return Ok(Ok(None)) };
        Ok(match message {
            Message::EchoRequest(data) => Ok(Some(Message::EchoReply(data))),
            Message::GetConfigRequest => Ok(Some(Message::GetConfigReply(talk.config))),
            Message::SetConfig(config) => talk.set_config(config).map(|()| None),
            Message::RoleRequest(role) => {
                talk.take_role(role, &mut self.generation).map(|role| Some(Message::RoleReply(role)))
            }
            Message::GetAsyncRequest => Ok(Some(Message::GetAsyncReply(talk.asynchronous))),
            Message::SetAsync(wanted) => {
                talk.asynchronous = wanted;
                Ok(None)
            }
            Message::BarrierRequest => {
                talk.pending = Some((xid, Pending::Barrier));
                Ok(None)
            }
            // Any message tells that the controller lives; a second hello means nothing.
            Message::EchoReply(_) => Ok(None),
            Message::Hello(_) => return Err("unexpected"),
            Message::Error(_) => return Err("peer-error"),
            Message::Experimenter(_) => Err(ErrorKind::BadRequest(BadRequest::BadExperimenter)),
            // What only a switch says, and what was taken before.
            Message::FeaturesReply(_)
            | Message::GetConfigReply(_)
            | Message::PacketIn(_)
            | Message::FlowRemoved(_)
            | Message::PortStatus(_)
            | Message::MultipartReply(_)
            | Message::BarrierReply
            | Message::RoleReply(_)
            | Message::QueueGetConfigReply(_)
            | Message::GetAsyncReply(_)
            | Message::FlowMod(_)
            | Message::GroupMod(_)
            | Message::MeterMod(_)
            | Message::PortMod(_)
            | Message::TableMod(_)
            | Message::PacketOut(_)
            | Message::MultipartRequest(_)
            | Message::FeaturesRequest
            | Message::QueueGetConfigRequest(_) => Err(ErrorKind::BadRequest(BadRequest::BadType)),
        })
    }

    /// Answers what waits, if what it waits for has come.
    pub(super) fn proceed(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(talk) = &mut self.conversation else { return };
        let Some((xid, pending)) = &talk.pending else { return };
        if self.batch.is_some() {
            return self.flush_batch(actions);
        }
        let is_sending = self.packet_outs.values().any(|sending| !matches!(sending, Sending::Punt));
        match pending {
            Pending::Barrier if !is_sending => {
                let xid = *xid;
                talk.pending = None;
                talk.answer(xid, &Message::BarrierReply, actions);
            }
            Pending::Barrier => {}
            Pending::Statistics(_) if self.is_helper_there => self.read_counters(actions),
            Pending::Statistics(_) => self.answer_statistics(now, actions),
        }
    }
}
