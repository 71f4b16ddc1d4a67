//! Every transition, with the time given by hand.

use proptest::prelude::*;
use rumqttc::mqttbytes::v4::Login;

use super::*;

const T0: Duration = Duration::from_secs(100);

fn device() -> DeviceId {
    DeviceId::new("a").unwrap()
}

fn connect(keep_alive: u16) -> Connect {
    let mut connect = Connect::new("client");
    connect.login = Some(Login::new("user", "secret"));
    connect.keep_alive = keep_alive;
    connect
}

fn with_will(topic: &str) -> Connect {
    let mut connect = connect(60);
    connect.last_will = Some(LastWill::new(topic, "offline", QoS::AtLeastOnce, true));
    connect
}

fn publish(packet_id: u16) -> Packet {
    publish_to("vitals/v1/a/num/x", packet_id)
}

fn publish_to(topic: &str, packet_id: u16) -> Packet {
    let qos = if packet_id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    let mut publish = Publish::new(topic, qos, *b"1");
    publish.pkid = packet_id;
    Packet::Publish(publish)
}

fn puback(packet_id: u16) -> Action {
    Action::Send(Packet::PubAck(PubAck::new(packet_id)))
}

fn connack(code: ConnectReturnCode) -> Action {
    Action::Send(Packet::ConnAck(ConnAck::new(code, false)))
}

/// A session with its actions collected.
struct Pair {
    session: Session,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        Self { session: Session::new(limits, T0) }
    }

    fn up(limits: Limits, connect: Connect) -> Self {
        let mut pair = Self::new(limits);
        assert_eq!(
            pair.packet(Packet::Connect(connect.clone()), T0),
            [Action::Admit(Box::new(connect.clone()))]
        );
        let client = Client::new(device(), &connect);
        let actions = pair.collect(|session, out| session.handle_admission(client, T0, out));
        assert_eq!(actions, [connack(ConnectReturnCode::Success)]);
        pair
    }

    fn collect(&mut self, event: impl FnOnce(&mut Session, &mut Vec<Action>)) -> Vec<Action> {
        let mut out = Vec::new();
        event(&mut self.session, &mut out);
        out
    }

    fn packet(&mut self, packet: Packet, now: Duration) -> Vec<Action> {
        assert!(self.session.wants_packet(now, false), "the shell reads only when asked");
        self.collect(|session, out| session.handle_packet(packet, now, out))
    }

    fn verdict(&mut self, verdict: Option<Verdict>) -> Vec<Action> {
        self.collect(|session, out| session.handle_verdict(verdict, T0, out))
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        self.collect(|session, out| session.handle_tick(now, out))
    }

    /// The only action of this packet is to close for this reason.
    fn closes(mut self, packet: Packet, reason: CloseReason) {
        assert_eq!(self.packet(packet, T0), [Action::Close(reason)]);
        assert_eq!(self.session.closed(), Some(reason));
        assert!(!self.session.wants_packet(T0, false));
        assert_eq!(self.session.next_deadline(), None);
    }
}

#[test]
fn no_connect_in_time_closes() {
    let mut pair = Pair::new(Limits::default());
    assert_eq!(pair.session.next_deadline(), Some(T0 + CONNECT_TIMEOUT));
    assert_eq!(pair.tick(T0 + CONNECT_TIMEOUT - Duration::from_micros(1)), []);
    assert_eq!(pair.tick(T0 + CONNECT_TIMEOUT), [Action::Close(CloseReason::ConnectTimeout)]);
    assert_eq!(pair.tick(T0 + CONNECT_TIMEOUT), [], "closes once");
}

#[test]
fn packets_out_of_turn_close() {
    for packet in [publish(1), Packet::PingReq, Packet::Disconnect] {
        Pair::new(Limits::default()).closes(packet, CloseReason::OutOfTurn);
    }
    let up = || Pair::up(Limits::default(), connect(60));
    up().closes(Packet::Connect(connect(60)), CloseReason::OutOfTurn);
    up().closes(Packet::PingResp, CloseReason::OutOfTurn);
    up().closes(Packet::Disconnect, CloseReason::Disconnect);
    up().closes(publish_to("vitals/v1/b/num/x", 1), CloseReason::ForeignTopic);
    up().closes(publish_to("elsewhere", 0), CloseReason::ForeignTopic);
    let long = format!("vitals/v1/a/{}", "x".repeat(TOPIC_BYTES_MAX));
    up().closes(publish_to(&long, 1), CloseReason::TopicTooLong);
    let mut qos2 = Publish::new("vitals/v1/a/num/x", QoS::ExactlyOnce, *b"1");
    qos2.pkid = 1;
    up().closes(Packet::Publish(qos2), CloseReason::Qos2);
}

#[test]
fn refused_connects_are_told_why() {
    let refused = |refusal: ConnectRefusal, code| {
        let mut pair = Pair::new(Limits::default());
        pair.packet(Packet::Connect(connect(60)), T0);
        let actions = pair.collect(|session, out| session.handle_admission(Err(refusal), T0, out));
        assert_eq!(actions, [connack(code), Action::Close(CloseReason::ConnectRefused(refusal))]);
        assert_eq!(pair.session.into_will(), None);
    };
    refused(ConnectRefusal::Anonymous, ConnectReturnCode::NotAuthorized);
    refused(ConnectRefusal::BadCredentials, ConnectReturnCode::BadUserNamePassword);
    refused(ConnectRefusal::Full, ConnectReturnCode::ServiceUnavailable);
    refused(ConnectRefusal::Certificate, ConnectReturnCode::NotAuthorized);

    let with_id = |client_id: &str, clean_session| {
        let mut connect = connect(60);
        connect.client_id = client_id.to_owned();
        connect.clean_session = clean_session;
        Pair::new(Limits::default()).packet(Packet::Connect(connect), T0)
    };
    let bad_id = [
        connack(ConnectReturnCode::BadClientId),
        Action::Close(CloseReason::ConnectRefused(ConnectRefusal::ClientId)),
    ];
    assert_eq!(with_id("", false), bad_id);
    assert_eq!(with_id(&"x".repeat(CLIENT_ID_BYTES_MAX + 1), true), bad_id);
    assert!(matches!(with_id("", true)[..], [Action::Admit(_)]));
    assert!(matches!(with_id("kept", false)[..], [Action::Admit(_)]));
}

#[test]
fn another_protocol_level_is_answered_and_other_noise_is_not() {
    let error = |pair: &mut Pair, error: DecodeError| {
        pair.collect(|session, out| session.handle_decode_error(&error, out))
    };
    assert_eq!(
        error(&mut Pair::new(Limits::default()), DecodeError::ProtocolLevel(5)),
        [
            connack(ConnectReturnCode::RefusedProtocolVersion),
            Action::Close(CloseReason::ConnectRefused(ConnectRefusal::ProtocolLevel))
        ]
    );
    let malformed = [Action::Close(CloseReason::Malformed("type"))];
    assert_eq!(error(&mut Pair::new(Limits::default()), DecodeError::Type(0)), malformed);
    assert_eq!(error(&mut Pair::up(Limits::default(), connect(60)), DecodeError::Type(0)), malformed);
}

#[test]
fn pubacks_wait_for_verdicts_and_keep_the_order() {
    let mut pair = Pair::up(Limits::default(), connect(60));
    for packet_id in [7, 0, 3] {
        assert!(matches!(pair.packet(publish(packet_id), T0)[..], [Action::Forward(_)]));
    }
    assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(7)]);
    assert_eq!(pair.verdict(Some(Verdict::Stored)), [], "QoS 0");
    assert_eq!(pair.verdict(Some(Verdict::Quarantined)), [puback(3)]);
    assert_eq!(pair.verdict(Some(Verdict::Stored)), [], "nothing is outstanding");
}

#[test]
fn after_a_refusal_the_others_are_answered_and_the_connection_closes() {
    for refusal in [Some(Verdict::Refused), None] {
        let mut pair = Pair::up(Limits::default(), with_will("vitals/v1/a/status"));
        for packet_id in 1..=3 {
            pair.packet(publish(packet_id), T0);
        }
        assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(1)]);
        assert_eq!(pair.verdict(refusal), [], "withheld");
        assert!(!pair.session.wants_packet(T0, false), "nothing more is read");
        assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(3), Action::Close(CloseReason::Refused)]);
        assert!(pair.session.into_will().is_some());
    }
}

#[test]
fn a_drain_has_an_end() {
    let mut pair = Pair::up(Limits::default(), connect(60));
    pair.packet(publish(1), T0);
    pair.packet(publish(2), T0);
    assert_eq!(pair.verdict(Some(Verdict::Refused)), []);
    assert_eq!(pair.session.next_deadline(), Some(T0 + DRAIN_TIMEOUT));
    assert_eq!(pair.tick(T0 + DRAIN_TIMEOUT), [Action::Close(CloseReason::Refused)]);
}

#[test]
fn a_refused_qos_0_publish_is_only_lost() {
    let mut pair = Pair::up(Limits::default(), connect(60));
    pair.packet(publish(0), T0);
    assert_eq!(pair.verdict(Some(Verdict::Refused)), []);
    assert_eq!(pair.packet(Packet::PingReq, T0), [Action::Send(Packet::PingResp)]);
}

#[test]
fn shutdown_answers_what_is_outstanding_and_reads_nothing_more() {
    let mut pair = Pair::up(Limits::default(), with_will("vitals/v1/a/status"));
    pair.packet(publish(1), T0);
    assert_eq!(pair.collect(|session, out| session.handle_shutdown(T0, out)), []);
    assert!(!pair.session.wants_packet(T0, false));
    assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(1), Action::Close(CloseReason::Shutdown)]);
    assert_eq!(pair.session.into_will(), None, "deferred");

    let shutdown = |mut pair: Pair| pair.collect(|session, out| session.handle_shutdown(T0, out));
    let closed = [Action::Close(CloseReason::Shutdown)];
    assert_eq!(shutdown(Pair::new(Limits::default())), closed);
    assert_eq!(shutdown(Pair::up(Limits::default(), connect(60))), closed);
}

#[test]
fn the_keep_alive_is_one_and_a_half_times_what_was_asked() {
    let mut pair = Pair::up(Limits::default(), connect(10));
    assert!(pair.session.wants_packet(T0, false));
    let later = T0 + Duration::from_secs(9);
    assert_eq!(pair.packet(Packet::PingReq, later), [Action::Send(Packet::PingResp)]);
    let deadline = later + Duration::from_secs(15);
    assert_eq!(pair.session.next_deadline(), Some(deadline));
    assert_eq!(pair.tick(deadline - Duration::from_micros(1)), []);
    assert_eq!(pair.tick(deadline), [Action::Close(CloseReason::KeepAlive)]);

    let mut never = Pair::up(Limits::default(), connect(0));
    assert!(never.session.wants_packet(T0, false));
    assert_eq!(never.session.next_deadline(), None);
    assert_eq!(never.tick(T0 + Duration::from_secs(1_000_000)), []);
}

#[test]
fn a_client_that_is_not_read_is_not_blamed_for_silence() {
    let mut pair = Pair::up(Limits { inflight_max: 1, ..Limits::default() }, connect(10));
    pair.packet(publish(1), T0);
    assert!(!pair.session.wants_packet(T0, false), "the window is full");
    assert_eq!(pair.session.next_deadline(), None);
    let long_after = T0 + Duration::from_secs(60);
    assert_eq!(pair.tick(long_after), []);
    assert_eq!(pair.verdict(Some(Verdict::Stored)), [puback(1)]);
    assert!(pair.session.wants_packet(long_after, false));
    assert_eq!(pair.session.next_deadline(), Some(long_after + Duration::from_secs(15)));
}

#[test]
fn the_rate_stops_reading_until_tokens_are_back() {
    let limits = Limits { publishes_per_s: 10, publishes_burst: 2, ..Limits::default() };
    let mut pair = Pair::up(limits, connect(60));
    pair.packet(publish(1), T0);
    pair.packet(publish(2), T0);
    assert!(!pair.session.wants_packet(T0, false));
    let ready = T0 + Duration::from_millis(100);
    assert_eq!(pair.session.next_deadline(), Some(ready));
    assert!(!pair.session.wants_packet(ready, true), "the shell is blocked");
    assert_eq!(pair.session.next_deadline(), None, "no deadline that has passed: that would spin");
    assert!(pair.session.wants_packet(ready, false));
}

#[test]
fn subscriptions_fail_by_filter_and_unsubscribe_is_acknowledged() {
    let mut pair = Pair::up(Limits::default(), connect(60));
    let mut subscribe = Subscribe::new("vitals/v1/a/#", QoS::AtLeastOnce);
    subscribe.add("b".to_owned(), QoS::AtMostOnce);
    subscribe.pkid = 5;
    let suback = SubAck::new(5, vec![SubscribeReasonCode::Failure; 2]);
    assert_eq!(pair.packet(Packet::Subscribe(subscribe), T0), [Action::Send(Packet::SubAck(suback))]);
    let mut unsubscribe = rumqttc::mqttbytes::v4::Unsubscribe::new("b");
    unsubscribe.pkid = 6;
    assert_eq!(
        pair.packet(Packet::Unsubscribe(unsubscribe), T0),
        [Action::Send(Packet::UnsubAck(UnsubAck::new(6)))]
    );
}

#[test]
fn a_will_is_published_unless_the_client_said_disconnect() {
    let will_after = |reason| {
        let mut pair = Pair::up(Limits::default(), with_will("vitals/v1/a/status"));
        pair.collect(|session, out| session.close(reason, out));
        pair.session.into_will().map(|(device, will)| (device, will.topic))
    };
    let published = Some((device(), "vitals/v1/a/status".to_owned()));
    for reason in [CloseReason::PeerClosed, CloseReason::Io, CloseReason::TakenOver, CloseReason::KeepAlive] {
        assert_eq!(will_after(reason), published, "{reason:?}");
    }
    assert_eq!(will_after(CloseReason::Disconnect), None);
    let long = format!("vitals/v1/a/{}", "x".repeat(TOPIC_BYTES_MAX));
    for foreign in ["vitals/v1/b/status", "elsewhere", &long] {
        assert_eq!(Client::new(device(), &with_will(foreign)), Err(ConnectRefusal::ForeignWill));
    }
}

proptest! {
    /// Whatever comes in whatever order: PUBACKs are a subsequence of what was published, each once, the window keeps its bound,
    /// and after Close nothing follows.
    #[test]
    fn any_order_of_events_keeps_the_promises(
        events in prop::collection::vec((0..8u8, 0..2000u64), 1..200),
    ) {
        let limits = Limits { inflight_max: 4, ..Limits::default() };
        let mut pair = Pair::up(limits, connect(2));
        let (mut now, mut next_id, mut outstanding) = (T0, 1u16, std::collections::VecDeque::new());
        let mut closed = false;
        for (event, pause_ms) in events {
            now += Duration::from_millis(pause_ms);
            let wants = pair.session.wants_packet(now, false);
            prop_assert!(!wants || outstanding.len() < 4);
            let mut out = Vec::new();
            let mut due = None;
            match event {
                0..=2 if wants => {
                    pair.session.handle_packet(publish(next_id), now, &mut out);
                    outstanding.push_back(next_id);
                    next_id += 1;
                }
                3 if wants => pair.session.handle_packet(Packet::PingReq, now, &mut out),
                4 | 5 => {
                    due = outstanding.pop_front();
                    pair.session.handle_verdict(Some(Verdict::Stored), now, &mut out);
                }
                6 if pause_ms < 100 => {
                    outstanding.pop_front();
                    pair.session.handle_verdict(Some(Verdict::Refused), now, &mut out);
                }
                _ => pair.session.handle_tick(now, &mut out),
            }
            for action in out {
                prop_assert!(!closed, "{action:?} after Close");
                match action {
                    Action::Send(Packet::PubAck(ack)) => prop_assert_eq!(Some(ack.pkid), due.take()),
                    Action::Close(_) => closed = true,
                    Action::Send(_) | Action::Admit(_) | Action::Forward(_) => {}
                }
            }
            prop_assert_eq!(closed, pair.session.closed().is_some());
            if closed {
                break;
            }
            prop_assert_eq!(due, None, "a stored publish is acknowledged");
        }
    }
}
