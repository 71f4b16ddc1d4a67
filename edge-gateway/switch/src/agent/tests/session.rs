//! Hello, echo, roles, and what is not understood.

use super::*;

#[test]
fn the_switch_says_who_it_is() {
    let mut bench = Bench::open();
    let Some((5, Message::FeaturesReply(features))) = bench.give(5, &Message::FeaturesRequest).sent.pop()
    else {
        panic!()
    };
    assert_eq!((features.datapath_id, features.n_tables, features.n_buffers), (0xc0ffee, 8, 0));
    let echo = bench.give(6, &Message::EchoRequest(vec![1, 2]));
    assert_eq!(echo.sent, [(6, Message::EchoReply(vec![1, 2]))]);
    let config = |fragments, miss_send_len| SwitchConfig { fragments, miss_send_len };
    let normal = config(FragmentHandling::Normal, 64);
    assert_eq!(bench.give(7, &Message::SetConfig(normal)), Done::default());
    assert_eq!(bench.give(8, &Message::GetConfigRequest).sent, [(8, Message::GetConfigReply(normal))]);
    let refused = bench.give(9, &Message::SetConfig(config(FragmentHandling::Drop, 0)));
    assert_eq!(refused.errors(), [(9, "OFPSCFC_BAD_FLAGS")]);
    let Some((_, Message::MultipartReply(MultipartReply { body: ReplyBody::Desc(desc), more: false }))) =
        bench.give(10, &ask(RequestBody::Desc)).sent.pop()
    else {
        panic!()
    };
    assert_eq!((desc.manufacturer.as_str(), desc.datapath.as_str()), ("Caregate".into(), "gateway-1".into()));
    let Some((_, Message::MultipartReply(MultipartReply { body: ReplyBody::PortDesc(ports), .. }))) =
        bench.give(11, &ask(RequestBody::PortDesc)).sent.pop()
    else {
        panic!()
    };
    let names: Vec<_> = ports.iter().map(|port| (port.number, port.name.as_str().into_owned())).collect();
    assert_eq!(
        names,
        [(1, "sensor1".to_owned()), (2, "sensor2".to_owned()), (3, "up3".to_owned()), (4, "lan4".to_owned())]
    );
}

#[test]
fn a_slave_looks_and_an_older_master_is_stale() {
    let mut bench = Bench::open();
    let role = |role, generation_id| Message::RoleRequest(Role { role, generation_id });
    assert_eq!(bench.give(1, &role(ControllerRole::Equal, 0)).sent.len(), 1);
    let master = bench.give(2, &role(ControllerRole::Master, 10));
    assert_eq!(
        master.sent,
        [(2, Message::RoleReply(Role { role: ControllerRole::Master, generation_id: 10 }))]
    );
    assert_eq!(bench.give(3, &role(ControllerRole::Slave, 9)).errors(), [(3, "OFPRRFC_STALE")]);
    bench.give(4, &role(ControllerRole::Slave, 11));
    assert_eq!(bench.flow_mod(5, quarantine(1)).errors(), [(5, "OFPBRC_IS_SLAVE")]);
    bench.agent.handle_disconnected();
    bench.greet();
    assert_eq!(
        bench.give(6, &role(ControllerRole::Master, 10)).errors(),
        [(6, "OFPRRFC_STALE")],
        "remembered"
    );
    bench.flow_mod(7, quarantine(1));
    assert_eq!(bench.len(), 1, "a new connection is an equal");
}

#[test]
fn a_silent_controller_is_left() {
    let mut bench = Bench::open();
    assert_eq!(bench.agent.next_timeout(), Some(ECHO_INTERVAL));
    let echo = Done::of(bench.agent.handle_timeout(ECHO_INTERVAL));
    assert!(matches!(&echo.sent[..], [(2, Message::EchoRequest(_))]));
    bench.now = ECHO_INTERVAL + at(1);
    bench.give(2, &Message::EchoReply(vec![]));
    assert_eq!(bench.agent.next_timeout(), Some(bench.now + ECHO_INTERVAL));
    let _echo = bench.agent.handle_timeout(bench.now + ECHO_INTERVAL);
    let end = Done::of(bench.agent.handle_timeout(bench.now + ECHO_INTERVAL + ECHO_TIMEOUT));
    assert_eq!(end.rest, [Action::Close(CloseReason::EchoTimeout)]);
    assert_eq!(bench.agent.next_timeout(), None);
    let mut silent = Bench::new(&Kept::default());
    let _hello = silent.agent.handle_connected(at(0));
    let end = Done::of(silent.agent.handle_timeout(HANDSHAKE_TIMEOUT));
    assert_eq!(end.rest, [Action::Close(CloseReason::HandshakeTimeout)]);
}

#[test]
fn a_hello_comes_first_and_leads_to_1_3() {
    let first = |frame: &[u8]| {
        let mut bench = Bench::new(&Kept::default());
        let _hello = bench.agent.handle_connected(at(0));
        Done::of(bench.agent.handle_frame(frame, at(0)))
    };
    let newer = Message::Hello(Hello { version: 6, versions: Some(Versions::of(&[4, 6])) });
    assert_eq!(first(&newer.encode(1).unwrap()).rest, [Action::Established]);
    let older = first(&Message::Hello(Hello { version: 1, versions: None }).encode(3).unwrap());
    assert_eq!(older.errors(), [(3, "OFPHFC_INCOMPATIBLE")]);
    assert_eq!(older.rest, [Action::Close(CloseReason::Incompatible(1))]);
    let other = first(&Message::EchoRequest(vec![]).encode(1).unwrap());
    assert_eq!(other.rest.last(), Some(&Action::Close(CloseReason::NoHello)));
    assert_eq!(first(b"GET / HTTP/1.1\r\n").rest.last(), Some(&Action::Close(CloseReason::NoHello)));
}

#[test]
fn malformed_messages_are_answered_counted_and_bounded() {
    let mut bench = Bench::open();
    let cut = [4, 14, 0, 12, 0, 0, 0, 5, 0, 0, 0, 0];
    for _ in 0..FAULTS_MAX {
        let done = Done::of(bench.agent.handle_frame(&cut, at(0)));
        assert_eq!(done.errors(), [(5, "OFPBRC_BAD_LEN")]);
        assert_eq!(done.rest, [Action::Refused("length")]);
    }
    for _ in 0..100 {
        let done = Done::of(bench.agent.handle_frame(&[4, 30, 0, 8, 0, 0, 0, 6], at(0)));
        assert_eq!(done.errors(), [(6, "OFPBRC_BAD_TYPE")], "what is not supported is no fault");
    }
    let reply = bench.give(7, &Message::BarrierReply);
    assert_eq!(reply.errors(), [(7, "OFPBRC_BAD_TYPE")]);
    let done = Done::of(bench.agent.handle_frame(&cut, at(0)));
    assert_eq!(done.rest.last(), Some(&Action::Close(CloseReason::Faults)));
    assert_eq!(Done::of(bench.agent.handle_frame(&cut, at(0))), Done::default());
}
