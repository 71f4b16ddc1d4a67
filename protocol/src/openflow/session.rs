//! The controller's side of one connection: versions agreed (§6.3.1), switch identified (§7.3.1), kept alive by echo (§6.3.2).
//!
//! ```text
//!  AwaitHello ──hello──▶ AwaitFeatures ──features──▶ AwaitBarrier ──config, barrier──▶ Established ⟲ echo
//!       └──────────────────────┴── no answer in time, error, another version ──▶ Closed
//! ```
//! Pure: each call is given `now`, a span since an instant of the caller's choice that never goes back, and returns what
//! to do. Bytes come through [`super::Framer`].

use std::time::Duration;

use thiserror::Error;

use super::{
    BadRequest, DecodeError, EncodeError, ErrorKind, ErrorMessage, Features, FrameError, Hello, HelloFailed,
    Message, SwitchConfig, VERSION,
};

/// Most faulty messages of one connection before it is closed: enough for a switch that tries what we don't support
/// after a software update, too few for one that floods.
pub const FAULTS_MAX: u32 = 64;

/// The transaction ids that a session uses for itself begin here; echoes count up from it.
const XID_FIRST: u32 = 1;

/// How long a session waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the connection to the barrier's reply, for all of the handshake.
    pub handshake: Duration,
    /// Silence after which an echo is sent.
    pub echo_interval: Duration,
    /// Wait for an echo's reply.
    pub echo_timeout: Duration,
}

/// A switch that has said who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// What it is and can.
    pub features: Features,
    /// What it does with fragments and packet-ins.
    pub config: SwitchConfig,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes, one whole message.
    Send(Vec<u8>),
    /// The handshake is complete.
    Established(Switch),
    /// The switch answered an echo after this time.
    EchoAnswered(Duration),
    /// Something was received and refused, or ignored; the word is for a counter.
    Refused(&'static str),
    /// The switch reported an error. Where it is about a message of [`Session::send`], that follows as `Received` too.
    PeerError(ErrorKind),
    /// Of an established session: a message that is the caller's, under its transaction id. It may answer a message of
    /// [`Session::send`], or be unasked (packet-in, flow-removed, port-status), or neither: which, the caller knows.
    Received(u32, Message),
    /// Send what is due, then close the connection. Nothing follows.
    Close(CloseReason),
}

/// Why a session ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// No version in common.
    #[error(
        "switch and controller have no version in common: the hello leads to {0}, spoken here is {VERSION}"
    )]
    Incompatible(u8),
    /// The switch refused our hello.
    #[error("the switch refused the hello")]
    HelloRefused,
    /// Something else came before the hello.
    #[error("the first message was no hello")]
    NoHello,
    /// The handshake did not end in time.
    #[error("the handshake took too long")]
    HandshakeTimeout,
    /// The switch refused a request of the handshake.
    #[error("the switch refused a request of the handshake")]
    HandshakeRefused,
    /// The connection is an auxiliary one (§6.3.6), of which this controller makes no use.
    #[error("auxiliary connection")]
    Auxiliary,
    /// No answer to an echo.
    #[error("no answer to an echo")]
    EchoTimeout,
    /// The byte stream can't be cut into messages.
    #[error("the stream lost its framing")]
    Framing,
    /// More than [`FAULTS_MAX`] faulty messages.
    #[error("more than {FAULTS_MAX} faulty messages")]
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
            Self::HandshakeRefused => "handshake-refused",
            Self::Auxiliary => "auxiliary",
            Self::EchoTimeout => "echo-timeout",
            Self::Framing => "framing",
            Self::Faults => "faults",
        }
    }
}

/// Why a message can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The handshake isn't complete, or the session is closed.
    #[error("the session is not established")]
    NotEstablished,
    /// It doesn't fit a message.
    #[error(transparent)]
    TooLong(#[from] EncodeError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitHello {
        deadline: Duration,
    },
    AwaitFeatures {
        xid: u32,
        deadline: Duration,
    },
    /// Config and barrier were asked for together; the barrier's reply says that the config's came before it (§6.1.3).
    AwaitBarrier {
        xid: u32,
        config_xid: u32,
        features: Features,
        config: Option<SwitchConfig>,
        deadline: Duration,
    },
    Idle {
        echo_at: Duration,
    },
    AwaitEcho {
        xid: u32,
        sent_at: Duration,
    },
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    timing: Timing,
    state: State,
    next_xid: u32,
    /// At most [`FAULTS_MAX`] while open.
    faults: u32,
    /// Messages of [`send`](Self::send) that the switch has not answered with an error: so many errors are no faults.
    unrefused: u64,
}

impl Session {
    /// A new connection: greets the switch without waiting for it (§6.3.1).
    #[must_use]
    pub fn open(timing: Timing, now: Duration) -> (Self, Vec<Action>) {
        let state = State::AwaitHello { deadline: now + timing.handshake };
        let mut session = Self { timing, state, next_xid: XID_FIRST, faults: 0, unrefused: 0 };
        let mut actions = Vec::new();
        session.request(&Message::Hello(Hello::ours()), &mut actions);
        (session, actions)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; none once closed.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.state {
            State::AwaitHello { deadline }
            | State::AwaitFeatures { deadline, .. }
            | State::AwaitBarrier { deadline, .. } => Some(deadline),
            State::Idle { echo_at } => Some(echo_at),
            State::AwaitEcho { sent_at, .. } => Some(sent_at + self.timing.echo_timeout),
            State::Closed => None,
        }
    }

    /// True after [`Action::Close`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Gives a message of the caller's a transaction id, and its bytes, which are to be sent in the order of the calls.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&mut self, message: &Message) -> Result<(u32, Vec<u8>), SendError> {
        if !self.is_established() {
            return Err(SendError::NotEstablished);
        }
        let bytes = message.encode(self.next_xid)?;
        self.unrefused += 1;
        Ok((self.take_xid(), bytes))
    }

    /// True between [`Action::Established`] and [`Action::Close`].
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Idle { .. } | State::AwaitEcho { .. })
    }

    /// Takes one whole message, header included.
    #[must_use]
    pub fn handle_frame(&mut self, frame: &[u8], now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.is_closed() {
            return actions;
        }
        match Message::decode(frame) {
            Ok((xid, message)) => self.handle_message(xid, message, frame, now, &mut actions),
            Err(error) => self.handle_fault(&error, frame, &mut actions),
        }
        actions
    }

    /// Takes the end of framing: tells the switch (§7.4.4) and closes.
    #[must_use]
    pub fn handle_framing_error(&mut self, error: &FrameError) -> Vec<Action> {
        let mut actions = Vec::new();
        if !self.is_closed() {
            let kind = ErrorKind::BadRequest(BadRequest::BadLen);
            reply_error(error.header.xid, ErrorMessage { kind, data: Vec::new() }, &mut actions);
            actions.push(Action::Refused("framing"));
            self.close(CloseReason::Framing, &mut actions);
        }
        actions
    }

    /// To be called at [`next_timeout`](Self::next_timeout) or later; earlier it does nothing.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.next_timeout().is_none_or(|due| now < due) {
            return actions;
        }
        match self.state {
            State::AwaitHello { .. } | State::AwaitFeatures { .. } | State::AwaitBarrier { .. } => {
                self.close(CloseReason::HandshakeTimeout, &mut actions);
            }
            State::Idle { .. } => {
                let xid = self.request(&Message::EchoRequest(Vec::new()), &mut actions);
                self.state = State::AwaitEcho { xid, sent_at: now };
            }
            State::AwaitEcho { .. } => self.close(CloseReason::EchoTimeout, &mut actions),
            State::Closed => {}
        }
        actions
    }

    fn handle_message(
        &mut self,
        xid: u32,
        message: Message,
        frame: &[u8],
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if matches!(self.state, State::AwaitHello { .. }) {
            return self.handle_greeting(xid, &message, actions);
        }
        match message {
            Message::EchoRequest(data) => reply(xid, &Message::EchoReply(data), actions),
            Message::EchoReply(_) => self.handle_echo_reply(xid, now, actions),
            Message::FeaturesReply(features) => self.handle_features(xid, features, actions),
            Message::GetConfigReply(config) => self.handle_config(xid, config, actions),
            Message::BarrierReply => self.handle_barrier(xid, now, actions),
            Message::Error(error) => self.handle_error(xid, error, actions),
            Message::MultipartReply(_)
            | Message::RoleReply(_)
            | Message::QueueGetConfigReply(_)
            | Message::GetAsyncReply(_) => self.pass(xid, message, "unexpected", actions),
            // A switch may send as many of these as it likes; they are not faults of it.
            Message::PacketIn(_) | Message::FlowRemoved(_) | Message::PortStatus(_) => {
                if self.is_established() {
                    actions.push(Action::Received(xid, message));
                } else {
                    actions.push(Action::Refused("asynchronous"));
                }
            }
            // A second hello means nothing; the version stands (§6.3.1).
            Message::Hello(_) => actions.push(Action::Refused("unexpected")),
            Message::Experimenter(_) => {
                let kind = ErrorKind::BadRequest(BadRequest::BadExperimenter);
                reply_error(xid, ErrorMessage::about(kind, frame), actions);
                self.count_fault("experimenter", actions);
            }
            // What only a controller may ask.
            Message::FeaturesRequest
            | Message::GetConfigRequest
            | Message::SetConfig(_)
            | Message::PacketOut(_)
            | Message::FlowMod(_)
            | Message::GroupMod(_)
            | Message::PortMod(_)
            | Message::TableMod(_)
            | Message::MultipartRequest(_)
            | Message::BarrierRequest
            | Message::QueueGetConfigRequest(_)
            | Message::RoleRequest(_)
            | Message::GetAsyncRequest
            | Message::SetAsync(_)
            | Message::MeterMod(_) => {
                let kind = ErrorKind::BadRequest(BadRequest::BadType);
                reply_error(xid, ErrorMessage::about(kind, frame), actions);
                self.count_fault("unexpected", actions);
            }
        }
    }

    fn handle_greeting(&mut self, xid: u32, message: &Message, actions: &mut Vec<Action>) {
        let State::AwaitHello { deadline } = self.state else { return };
        match message {
            Message::Hello(peer) => {
                let version = Hello::ours().negotiate(peer);
                if version != VERSION {
                    let kind = ErrorKind::HelloFailed(HelloFailed::Incompatible);
                    let data = format!("only OpenFlow 1.3 (version {VERSION}) is spoken here").into_bytes();
                    reply_error(xid, ErrorMessage { kind, data }, actions);
                    return self.close(CloseReason::Incompatible(version), actions);
                }
                let xid = self.request(&Message::FeaturesRequest, actions);
                self.state = State::AwaitFeatures { xid, deadline };
            }
            Message::Error(error) => {
                actions.push(Action::PeerError(error.kind));
                self.close(CloseReason::HelloRefused, actions);
            }
            Message::EchoRequest(_)
            | Message::EchoReply(_)
            | Message::Experimenter(_)
            | Message::FeaturesRequest
            | Message::FeaturesReply(_)
            | Message::GetConfigRequest
            | Message::GetConfigReply(_)
            | Message::SetConfig(_)
            | Message::PacketIn(_)
            | Message::FlowRemoved(_)
            | Message::PortStatus(_)
            | Message::PacketOut(_)
            | Message::FlowMod(_)
            | Message::GroupMod(_)
            | Message::PortMod(_)
            | Message::TableMod(_)
            | Message::MultipartRequest(_)
            | Message::MultipartReply(_)
            | Message::BarrierRequest
            | Message::BarrierReply
            | Message::QueueGetConfigRequest(_)
            | Message::QueueGetConfigReply(_)
            | Message::RoleRequest(_)
            | Message::RoleReply(_)
            | Message::GetAsyncRequest
            | Message::GetAsyncReply(_)
            | Message::SetAsync(_)
            | Message::MeterMod(_) => {
                actions.push(Action::Refused("unexpected"));
                self.close(CloseReason::NoHello, actions);
            }
        }
    }

    fn handle_features(&mut self, xid: u32, features: Features, actions: &mut Vec<Action>) {
        if let State::AwaitFeatures { xid: asked, deadline } = self.state
            && xid == asked
        {
            if features.auxiliary_id != 0 {
                return self.close(CloseReason::Auxiliary, actions);
            }
            let config_xid = self.request(&Message::GetConfigRequest, actions);
            let xid = self.request(&Message::BarrierRequest, actions);
            self.state = State::AwaitBarrier { xid, config_xid, features, config: None, deadline };
        } else {
            self.pass(xid, Message::FeaturesReply(features), "unexpected", actions);
        }
    }

    fn handle_config(&mut self, xid: u32, reply: SwitchConfig, actions: &mut Vec<Action>) {
        if let State::AwaitBarrier { config_xid, config: config @ None, .. } = &mut self.state
            && xid == *config_xid
        {
            *config = Some(reply);
        } else {
            self.pass(xid, Message::GetConfigReply(reply), "unexpected", actions);
        }
    }

    fn handle_barrier(&mut self, xid: u32, now: Duration, actions: &mut Vec<Action>) {
        if let State::AwaitBarrier { xid: asked, features, config: Some(config), .. } = self.state
            && xid == asked
        {
            self.state = State::Idle { echo_at: now + self.timing.echo_interval };
            actions.push(Action::Established(Switch { features, config }));
        } else {
            self.pass(xid, Message::BarrierReply, "unexpected", actions);
        }
    }

    fn handle_echo_reply(&mut self, xid: u32, now: Duration, actions: &mut Vec<Action>) {
        if let State::AwaitEcho { xid: asked, sent_at } = self.state
            && xid == asked
        {
            self.state = State::Idle { echo_at: now + self.timing.echo_interval };
            actions.push(Action::EchoAnswered(now.saturating_sub(sent_at)));
        } else {
            self.count_fault("unexpected", actions);
        }
    }

    fn handle_error(&mut self, xid: u32, error: ErrorMessage, actions: &mut Vec<Action>) {
        actions.push(Action::PeerError(error.kind));
        let ours = match self.state {
            State::AwaitFeatures { xid: asked, .. } => xid == asked,
            State::AwaitBarrier { xid: barrier, config_xid, .. } => xid == barrier || xid == config_xid,
            State::AwaitHello { .. } | State::Idle { .. } | State::AwaitEcho { .. } | State::Closed => false,
        };
        if matches!(error.kind, ErrorKind::HelloFailed(_)) {
            self.close(CloseReason::HelloRefused, actions);
        } else if ours {
            self.close(CloseReason::HandshakeRefused, actions);
        } else if self.is_established() && self.unrefused > 0 {
            self.unrefused -= 1;
            actions.push(Action::Received(xid, Message::Error(error)));
        } else {
            self.count_fault("peer-error", actions);
        }
    }

    /// Gives the caller what may answer one of its messages.
    fn pass(&mut self, xid: u32, message: Message, fault: &'static str, actions: &mut Vec<Action>) {
        if self.is_established() && self.unrefused > 0 {
            actions.push(Action::Received(xid, message));
        } else {
            self.count_fault(fault, actions);
        }
    }

    fn handle_fault(&mut self, error: &DecodeError, frame: &[u8], actions: &mut Vec<Action>) {
        if let Some(answer) = error.answer(frame) {
            let xid = error.header().map_or(0, |header| header.xid);
            reply_error(xid, answer, actions);
        }
        if matches!(self.state, State::AwaitHello { .. }) {
            actions.push(Action::Refused(error.reason()));
            return self.close(CloseReason::NoHello, actions);
        }
        self.count_fault(error.reason(), actions);
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

    fn request(&mut self, message: &Message, actions: &mut Vec<Action>) -> u32 {
        let xid = self.take_xid();
        reply(xid, message, actions);
        xid
    }

    fn take_xid(&mut self) -> u32 {
        let xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1);
        xid
    }
}

fn reply_error(xid: u32, error: ErrorMessage, actions: &mut Vec<Action>) {
    reply(xid, &Message::Error(error), actions);
}

fn reply(xid: u32, message: &Message, actions: &mut Vec<Action>) {
    match message.encode(xid) {
        Ok(bytes) => actions.push(Action::Send(bytes)),
        // Can't be: a reply carries at most what came in one message of the same length.
        Err(EncodeError { .. }) => actions.push(Action::Refused("encode")),
    }
}

#[cfg(test)]
mod tests;
