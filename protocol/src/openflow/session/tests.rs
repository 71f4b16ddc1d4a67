use proptest::prelude::*;

use super::*;
use crate::openflow::multipart::{ReplyBody, RequestBody};
use crate::openflow::{
    AsyncConfig, Capabilities, Command, Experimenter, FlowMod, FragmentHandling, Match, MultipartReply,
    NO_BUFFER, PacketIn, PacketInReason, TableMod, Versions,
};

const TIMING: Timing = Timing {
    handshake: Duration::from_secs(10),
    echo_interval: Duration::from_secs(5),
    echo_timeout: Duration::from_secs(3),
};
const FEATURES: Features = Features {
    datapath_id: 7,
    n_buffers: 0,
    n_tables: 254,
    auxiliary_id: 0,
    capabilities: Capabilities(0x4f),
};
const CONFIG: SwitchConfig = SwitchConfig { fragments: FragmentHandling::Normal, miss_send_len: 128 };

fn at(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Splits what is sent, as messages, from the rest.
fn split(actions: Vec<Action>) -> (Vec<(u32, Message)>, Vec<Action>) {
    let mut sent = Vec::new();
    let mut rest = Vec::new();
    for action in actions {
        if let Action::Send(bytes) = action {
            sent.push(Message::decode(&bytes).unwrap());
        } else {
            rest.push(action);
        }
    }
    (sent, rest)
}

fn open() -> Session {
    let (session, actions) = Session::open(TIMING, at(0));
    assert_eq!(split(actions), (vec![(1, Message::Hello(Hello::ours()))], vec![]));
    session
}

fn give(session: &mut Session, xid: u32, message: &Message, now: u64) -> (Vec<(u32, Message)>, Vec<Action>) {
    split(session.handle_frame(&message.encode(xid).unwrap(), at(now)))
}

fn greeted() -> Session {
    let mut session = open();
    let (sent, rest) = give(&mut session, 90, &Message::Hello(Hello::ours()), 1);
    assert_eq!((sent, rest), (vec![(2, Message::FeaturesRequest)], vec![]));
    session
}

fn established() -> Session {
    let mut session = greeted();
    let (sent, rest) = give(&mut session, 2, &Message::FeaturesReply(FEATURES), 1);
    assert_eq!((sent, rest), (vec![(3, Message::GetConfigRequest), (4, Message::BarrierRequest)], vec![]));
    assert_eq!(give(&mut session, 3, &Message::GetConfigReply(CONFIG), 1), (vec![], vec![]));
    let (sent, rest) = give(&mut session, 4, &Message::BarrierReply, 2);
    let switch = Switch { features: FEATURES, config: CONFIG };
    assert_eq!((sent, rest), (vec![], vec![Action::Established(switch)]));
    session
}

fn errors(sent: &[(u32, Message)]) -> Vec<(u32, ErrorKind)> {
    let error = |(xid, message): &(u32, Message)| {
        if let Message::Error(error) = message { Some((*xid, error.kind)) } else { None }
    };
    sent.iter().filter_map(error).collect()
}

#[test]
fn echo_keeps_the_session_and_measures_it() {
    let mut session = established();
    assert_eq!(session.next_timeout(), Some(at(7)));
    assert_eq!(session.handle_timeout(at(6)), vec![]);
    let (sent, rest) = split(session.handle_timeout(at(7)));
    assert_eq!((sent, rest), (vec![(5, Message::EchoRequest(vec![]))], vec![]));
    assert_eq!(session.next_timeout(), Some(at(10)));
    let (_, rest) = give(&mut session, 5, &Message::EchoReply(vec![]), 9);
    assert_eq!(rest, [Action::EchoAnswered(at(2))]);
    assert_eq!(session.next_timeout(), Some(at(14)));
}

#[test]
fn no_answer_to_an_echo_closes() {
    let mut session = established();
    let _echo = session.handle_timeout(at(7));
    let (_, rest) = give(&mut session, 4, &Message::EchoReply(vec![]), 8);
    assert_eq!(rest, [Action::Refused("unexpected")], "another transaction's reply is none");
    assert_eq!(session.handle_timeout(at(10)), [Action::Close(CloseReason::EchoTimeout)]);
    assert_eq!((session.next_timeout(), session.is_closed()), (None, true));
    assert_eq!(give(&mut session, 5, &Message::EchoReply(vec![]), 10), (vec![], vec![]));
}

#[test]
fn the_switch_may_ask_for_echo_at_any_time_after_hello() {
    for mut session in [greeted(), established()] {
        let (sent, rest) = give(&mut session, 77, &Message::EchoRequest(vec![1, 2]), 2);
        assert_eq!((sent, rest), (vec![(77, Message::EchoReply(vec![1, 2]))], vec![]));
    }
}

#[test]
fn no_version_in_common_is_told() {
    for peer in
        [Hello { version: 1, versions: None }, Hello { version: 3, versions: Some(Versions::of(&[1, 3])) }]
    {
        let mut session = open();
        let (sent, rest) = give(&mut session, 90, &Message::Hello(peer), 1);
        assert_eq!(errors(&sent), [(90, ErrorKind::HelloFailed(HelloFailed::Incompatible))]);
        assert_eq!(rest, [Action::Close(CloseReason::Incompatible(peer.version))]);
    }
}

#[test]
fn newer_switches_that_also_speak_1_3_are_taken() {
    for versions in [None, Some(Versions::of(&[1, 4, 5, 6]))] {
        let (sent, _) = give(&mut open(), 90, &Message::Hello(Hello { version: 6, versions }), 1);
        assert_eq!(sent, [(2, Message::FeaturesRequest)]);
    }
}

#[test]
fn the_first_message_must_be_hello() {
    let (sent, rest) = give(&mut open(), 1, &Message::EchoRequest(vec![]), 1);
    assert_eq!(
        (sent, rest),
        (vec![], vec![Action::Refused("unexpected"), Action::Close(CloseReason::NoHello)])
    );
    let (_, rest) = split(open().handle_frame(b"GET / HTTP/1.1\r\n", at(1)));
    assert_eq!(rest, [Action::Refused("length"), Action::Close(CloseReason::NoHello)]);
    let refused = ErrorMessage { kind: ErrorKind::HelloFailed(HelloFailed::Eperm), data: vec![] };
    let (_, rest) = give(&mut open(), 1, &Message::Error(refused), 1);
    assert_eq!(rest.last(), Some(&Action::Close(CloseReason::HelloRefused)));
}

#[test]
fn each_part_of_the_handshake_is_awaited_no_longer_than_all_of_it() {
    let mut waiting = greeted();
    let _asked = give(&mut waiting, 2, &Message::FeaturesReply(FEATURES), 9);
    for mut session in [open(), greeted(), waiting] {
        assert_eq!(session.next_timeout(), Some(at(10)));
        assert_eq!(session.handle_timeout(at(10)), [Action::Close(CloseReason::HandshakeTimeout)]);
    }
}

#[test]
fn the_handshake_needs_the_right_replies() {
    let mut session = greeted();
    let (_, rest) = give(&mut session, 3, &Message::FeaturesReply(FEATURES), 1);
    assert_eq!(rest, [Action::Refused("unexpected")], "another transaction id");
    let _asked = give(&mut session, 2, &Message::FeaturesReply(FEATURES), 1);
    let (_, rest) = give(&mut session, 4, &Message::BarrierReply, 1);
    assert_eq!(rest, [Action::Refused("unexpected")], "a barrier must not overtake the configuration");
    let refused = ErrorMessage { kind: ErrorKind::BadRequest(BadRequest::Eperm), data: vec![] };
    let (_, rest) = give(&mut session, 3, &Message::Error(refused.clone()), 1);
    assert_eq!(rest, [Action::PeerError(refused.kind), Action::Close(CloseReason::HandshakeRefused)]);
    let (_, rest) = give(&mut greeted(), 2, &Message::Error(refused.clone()), 1);
    assert_eq!(rest, [Action::PeerError(refused.kind), Action::Close(CloseReason::HandshakeRefused)]);
    let auxiliary = Features { auxiliary_id: 1, ..FEATURES };
    let (_, rest) = give(&mut greeted(), 2, &Message::FeaturesReply(auxiliary), 1);
    assert_eq!(rest, [Action::Close(CloseReason::Auxiliary)]);
}

#[test]
fn what_only_a_controller_asks_is_refused() {
    let mut session = established();
    for message in [
        Message::FeaturesRequest,
        Message::GetConfigRequest,
        Message::SetConfig(CONFIG),
        Message::BarrierRequest,
        Message::FlowMod(FlowMod::new(Command::Delete, 1, 0)),
        Message::MultipartRequest(RequestBody::Desc.into()),
        Message::TableMod(TableMod { table_id: 1, config: 0 }),
        Message::QueueGetConfigRequest(1),
        Message::GetAsyncRequest,
        Message::SetAsync(AsyncConfig::default()),
    ] {
        let (sent, rest) = give(&mut session, 66, &message, 2);
        assert_eq!(errors(&sent), [(66, ErrorKind::BadRequest(BadRequest::BadType))]);
        assert_eq!(rest, [Action::Refused("unexpected")]);
    }
    let foreign = Experimenter { experimenter: 0x2320, exp_type: 1, data: vec![] };
    let (sent, rest) = give(&mut session, 67, &Message::Experimenter(foreign), 2);
    assert_eq!(errors(&sent), [(67, ErrorKind::BadRequest(BadRequest::BadExperimenter))]);
    assert_eq!(rest, [Action::Refused("experimenter")]);
    assert!(!session.is_closed());
}

#[test]
fn faults_are_answered_counted_and_bounded() {
    let mut session = established();
    for fault in 0..FAULTS_MAX {
        let (sent, rest) = split(session.handle_frame(&[4, 30, 0, 8, 0, 0, 0, 5], at(2)));
        assert_eq!(errors(&sent), [(5, ErrorKind::BadRequest(BadRequest::BadType))], "{fault}");
        assert_eq!(rest, [Action::Refused("unsupported")]);
    }
    let (_, rest) = split(session.handle_frame(&[4, 5, 0, 9, 0, 0, 0, 5, 0], at(2)));
    assert_eq!(rest, [Action::Refused("length"), Action::Close(CloseReason::Faults)]);
}

#[test]
fn what_comes_unasked_is_the_callers_once_established() {
    let packet = Message::PacketIn(PacketIn {
        buffer_id: NO_BUFFER,
        total_len: 60,
        reason: PacketInReason::Action,
        table_id: 1,
        cookie: 9,
        pattern: Match::any().in_port(2),
        data: vec![7; 60],
    });
    let mut session = established();
    for _ in 0..=2 * FAULTS_MAX {
        assert_eq!(give(&mut session, 0, &packet, 2), (vec![], vec![Action::Received(0, packet.clone())]));
    }
    let (_, rest) = give(&mut greeted(), 0, &packet, 2);
    assert_eq!(rest, [Action::Refused("asynchronous")]);
}

#[test]
fn the_callers_messages_have_ids_of_their_own_and_their_answers_come_back() {
    let change = Message::FlowMod(FlowMod::new(Command::Add, 0, 1));
    assert_eq!(greeted().send(&change), Err(SendError::NotEstablished));
    let mut session = established();
    let (xid, bytes) = session.send(&change).unwrap();
    assert_eq!(Message::decode(&bytes).unwrap(), (xid, change));
    let (barrier, _) = session.send(&Message::BarrierRequest).unwrap();
    assert_eq!((xid, barrier), (5, 6));
    let (echo, _) = split(session.handle_timeout(at(7)));
    assert_eq!(echo[0].0, 7, "echoes count on");

    let refused = ErrorMessage { kind: ErrorKind::BadRequest(BadRequest::Eperm), data: vec![] };
    let (_, rest) = give(&mut session, xid, &Message::Error(refused.clone()), 8);
    let kind = refused.kind;
    assert_eq!(rest, [Action::PeerError(kind), Action::Received(xid, Message::Error(refused))]);
    let (_, rest) = give(&mut session, barrier, &Message::BarrierReply, 8);
    assert_eq!(rest, [Action::Received(barrier, Message::BarrierReply)]);
    let flows = Message::MultipartReply(MultipartReply { more: false, body: ReplyBody::Flow(vec![]) });
    let (_, rest) = give(&mut session, barrier, &flows, 8);
    assert_eq!(rest, [Action::Received(barrier, flows)]);
}

#[test]
fn too_long_a_message_uses_no_id() {
    let mut session = established();
    let error = session.send(&Message::EchoRequest(vec![0; 70_000])).unwrap_err();
    assert!(matches!(error, SendError::TooLong(_)));
    assert_eq!(session.send(&Message::BarrierRequest).unwrap().0, 5);
}

#[test]
fn errors_of_the_switch_are_passed_on_and_end_the_session_when_they_are_too_many() {
    let mut session = established();
    let error =
        Message::Error(ErrorMessage { kind: ErrorKind::BadRequest(BadRequest::BadLen), data: vec![] });
    let mut last = vec![];
    for _ in 0..=FAULTS_MAX {
        let (sent, rest) = give(&mut session, 99, &error, 2);
        assert_eq!(sent, []);
        last = rest;
    }
    assert_eq!(last.last(), Some(&Action::Close(CloseReason::Faults)));
}

#[test]
fn lost_framing_is_told_and_closes() {
    let mut session = established();
    let error = FrameError { header: crate::openflow::Header::decode(&[4, 2, 0, 3, 0, 0, 0, 9]).unwrap() };
    let (sent, rest) = split(session.handle_framing_error(&error));
    assert_eq!(errors(&sent), [(9, ErrorKind::BadRequest(BadRequest::BadLen))]);
    assert_eq!(rest, [Action::Refused("framing"), Action::Close(CloseReason::Framing)]);
    assert_eq!(session.handle_framing_error(&error), []);
}

proptest! {
    /// Whatever comes in whatever order: no panic, at most one close and nothing after it, at most one message sent for
    /// each one received except for the two of the handshake.
    #[test]
    fn any_frames(frames in proptest::collection::vec(
        (prop_oneof![Just(4u8), any::<u8>()], 0u8..32, 0u32..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..200,
    )) {
        let (mut session, _) = Session::open(TIMING, at(0));
        for (second, (version, number, xid, body)) in (0u64..).zip(frames) {
            let length = u8::try_from(8 + body.len()).unwrap();
            let frame = [vec![version, number, 0, length], xid.to_be_bytes().to_vec(), body].concat();
            let was_closed = session.is_closed();
            let mut actions = session.handle_frame(&frame, at(second));
            actions.extend(session.handle_timeout(at(second)));
            prop_assert!(!was_closed || actions.is_empty());
            prop_assert!(actions.iter().filter(|action| matches!(action, Action::Send(_))).count() <= 3);
            let close = actions.iter().position(|action| matches!(action, Action::Close(_)));
            prop_assert!(close.is_none_or(|at| at + 1 == actions.len()));
        }
    }
}
