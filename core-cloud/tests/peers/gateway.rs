//! Gateways on real QUIC: what is acknowledged and when, what is refused, and what one peer can do to another.

use crate::support::pki::Ca;
use crate::support::records::{EPOCH, Sealing, recipient};
use crate::support::{Client, Core, Gateway, Site, close_reason, send, until, within};
use caregate_host::identity::Role;
use caregate_protocol::head::Head;
use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::search::{TOKENS, Token};
use caregate_protocol::segment::SegmentHash;
use caregate_protocol::uplink::{Classes, EARLY_RECORDS_MAX, FRAME_BYTES_MAX, Frame, Refusal, VERSION};
use quinn::{ConnectionError, SendStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_acknowledged_after_its_commit_and_not_before() {
    let site = Site::new();
    let mut core = site.paused();
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send(&mut lane, 6, &Sealing::new(1).wrap(1)).await;
    send(&mut lane, 7, &Sealing::new(1).segment(0)).await;
    // The same lane, so it is looked at after the records: its answer shows that they have been taken in.
    send(&mut lane, 8, b"no record").await;
    let refused = Frame::Refuse { position: 8, refusal: Refusal::Malformed };
    assert_eq!(gateway.answers.next().await, Some(refused), "and no acknowledgement before it");
    core.start_writer();
    gateway.acked([6, 7]).await;
    // Looked at by reading: a write would wait for the writer's commit, and find it there in either case.
    assert_eq!(core.queued(1), 2, "what was acknowledged is in the store");
    assert_eq!(core.records("stored"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_acknowledged_and_stored_once() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let (wrap, segment) = (sealing.wrap(1), sealing.segment(0));
    for (round, stored) in [(0, 2), (1, 2)] {
        let mut gateway = site.gateway(&core, "gateway-1").await;
        let mut lane = gateway.lane(Lane::Vitals, round > 0).await;
        send(&mut lane, 1, &wrap).await;
        send(&mut lane, 2, &segment).await;
        gateway.acked([1, 2]).await;
        assert_eq!((core.records("stored"), core.queued(1)), (stored, 2));
    }
    assert_eq!(core.records("known"), 2);
}

async fn send_early(stream: &mut SendStream, position: u64, record: Vec<u8>) {
    stream.write_all(&Frame::Early { position, record }.encode()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_early_counts_when_it_is_durable_and_is_gone_with_its_stream() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send_early(&mut lane, 1, sealing.wrap(1)).await;
    send_early(&mut lane, 2, sealing.segment(0)).await;
    send_early(&mut lane, 3, sealing.segment(1)).await;
    // The same lane, so it is looked at after them: its answer shows that they have been taken in.
    send(&mut lane, 4, b"no record").await;
    let refused = Frame::Refuse { position: 4, refusal: Refusal::Malformed };
    assert_eq!(gateway.answers.next().await, Some(refused), "and nothing else");
    assert_eq!(core.records("stored"), 0);
    lane.write_all(&Frame::Durable { below: 3 }.encode()).await.unwrap();
    gateway.acked([1, 2]).await;
    assert_eq!((core.records("stored"), core.queued(1)), (2, 2));
    // The gateway dies before its sync, and seals something else under number 1.
    gateway.connection.close(0_u32.into(), b"");
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send(&mut lane, 3, &sealing.segment_of(1, 50)).await;
    gateway.acked([3]).await;
    assert_eq!((core.records("stored"), core.refused_for("fork")), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_held_than_the_bound_and_in_order() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    for position in 0..=EARLY_RECORDS_MAX as u64 {
        send_early(&mut lane, position, sealing.segment(position)).await;
    }
    assert_eq!(close_reason(&gateway.connection).await, "early");
    let gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send_early(&mut lane, 7, sealing.segment(0)).await;
    send_early(&mut lane, 7, sealing.segment(1)).await;
    assert_eq!(close_reason(&gateway.connection).await, "early");
    assert_eq!(core.records("stored"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_names_its_reason_and_the_session_goes_on() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send(&mut lane, 0, &sealing.segment(0)).await;
    gateway.acked([0]).await;
    let mut forged = sealing.segment(1);
    *forged.last_mut().unwrap() ^= 1;
    let mut forged_wrap = sealing.wrap(1);
    forged_wrap[70] ^= 1;
    let mut cut = sealing.segment(1);
    cut.pop();
    let cases = [
        (sealing.segment_of(0, 50), Refusal::Fork, "fork"),
        (forged, Refusal::Signature, "signature"),
        (forged_wrap, Refusal::Signature, "signature"),
        (Sealing::new(2).segment(1), Refusal::Signature, "signer"),
        (Sealing::new(2).wrap(1), Refusal::Signature, "signer"),
        (cut, Refusal::Malformed, "truncated"),
        (b"CGSG".to_vec(), Refusal::Malformed, "truncated"),
        (Vec::new(), Refusal::Malformed, "magic"),
        (vec![0xff; 1000], Refusal::Malformed, "magic"),
    ];
    for (position, (record, refusal, reason)) in (1..).zip(cases) {
        let before = core.refused_for(reason);
        send(&mut lane, position, &record).await;
        assert_eq!(gateway.answers.next().await, Some(Frame::Refuse { position, refusal }), "{reason}");
        assert_eq!(core.refused_for(reason), before + 1, "{reason}");
    }
    send(&mut lane, 99, &sealing.segment(1)).await;
    gateway.acked([99]).await;
    assert_eq!((core.records("stored"), core.queued(1)), (2, 0));
}

/// Neither stored nor shown, and no ground to ask for an erasure; also by a core that has just started.
#[tokio::test(flavor = "multi_thread")]
async fn a_pseudonym_that_is_another_gateways_is_not_taken() {
    let site = Site::new();
    let owner = Sealing::new(1);
    let intruder = Sealing { patient: owner.patient, ..Sealing::new(2) };
    let words: [Token; TOKENS] = std::array::from_fn(|n| Token([u8::try_from(n).unwrap(); 16]));
    let tokens = intruder.tokens(900, words);
    let head = Head {
        class: DataClass::Vitals,
        patient: owner.patient,
        generation: 0,
        epoch: EPOCH,
        made_us: 1,
        next: 1_000,
        last: SegmentHash([9; 32]),
    };
    for round in 0..2 {
        let core = site.core();
        if round == 0 {
            let mut gateway = site.gateway(&core, "gateway-1").await;
            send(&mut gateway.lane(Lane::Vitals, false).await, 0, &owner.segment(0)).await;
            gateway.acked([0]).await;
        }
        let _view = core.previews.view(recipient(1), Classes::of(&DataClass::ALL));
        let mut other = site.gateway(&core, "gateway-2").await;
        let mut lane = other.lane(Lane::Vitals, false).await;
        let head = head.sign(&intruder.device).to_vec();
        for record in [intruder.segment(1), intruder.wrap(1), head, tokens.clone()] {
            send(&mut lane, 7, &record).await;
            let refused = Frame::Refuse { position: 7, refusal: Refusal::Stranger };
            assert_eq!(other.answers.next().await, Some(refused));
        }
        assert_eq!((core.refused_for("stranger"), core.queued(1)), (4, 0));
        assert_eq!(core.metrics.provisional.with_label_values(&["shown"]).get(), 0);
        send(&mut lane, 8, &Sealing::new(2).segment(0)).await;
        other.acked([8]).await;
        drop(core.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_changes_keys_may_sign_with_both() {
    let site = Site::new();
    let core = site.core();
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send(&mut lane, 1, &Sealing::new(1).segment(0)).await;
    send(&mut lane, 2, &Sealing::new(11).segment(0)).await;
    gateway.acked([1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_lanes_are_taken_and_answered_at_once() {
    let site = Site::new();
    let core = site.core();
    let sealing = Sealing::new(1);
    let (mut live, mut backlog) =
        (site.gateway(&core, "gateway-1").await, site.gateway(&core, "gateway-1").await);
    let mut lanes = Vec::new();
    for lane in Lane::ALL {
        lanes.push(live.lane(lane, false).await);
        lanes.push(backlog.lane(lane, true).await);
    }
    for sequence in 0..400 {
        let lane = &mut lanes[usize::try_from(sequence % 8).unwrap()];
        send(lane, 10 + sequence, &sealing.segment(sequence)).await;
    }
    // Each connection is told of its own.
    live.acked((10..410).step_by(2)).await;
    backlog.acked((11..410).step_by(2)).await;
    assert_eq!((core.records("stored"), core.records("known")), (400, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_on_two_connections_of_a_gateway_is_stored_once() {
    let site = Site::new();
    let core = site.core();
    let segment = Sealing::new(1).segment(0);
    let (mut live, mut backlog) =
        (site.gateway(&core, "gateway-1").await, site.gateway(&core, "gateway-1").await);
    send(&mut live.lane(Lane::Vitals, false).await, 7, &segment).await;
    live.acked([7]).await;
    live.connection.close(0_u32.into(), b"");
    send(&mut backlog.lane(Lane::Vitals, true).await, 7, &segment).await;
    backlog.acked([7]).await;
    assert_eq!((core.records("stored"), core.records("known")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_has_sixteen_connections_and_takes_nobody_elses() {
    let site = Site::new();
    let core = site.core();
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(site.gateway(&core, "gateway-1").await);
    }
    let client = Client::new(&site.ca.identity(Role::Gateway, "gateway-1"));
    let one_more = within("handshake", client.connect(core.address)).await.unwrap();
    assert_eq!(close_reason(&one_more).await, "too many connections");
    until("it is counted", || core.closed_for("too_many_of_gateway") == 1).await;
    let mut other = site.gateway(&core, "gateway-2").await;
    send(&mut other.lane(Lane::Vitals, false).await, 1, &Sealing::new(2).segment(0)).await;
    other.acked([1]).await;
    held.pop().unwrap().connection.close(0_u32.into(), b"");
    let gateways = core.metrics.connections.with_label_values(&["gateway"]);
    until("it is gone", || gateways.get() == 16).await;
    drop(site.gateway(&core, "gateway-1").await);
}

/// What a hostile peer does once it is connected.
#[derive(Clone, Copy)]
enum Attack {
    Control(&'static [u8]),
    /// After a good hello.
    ControlAfterHello(&'static [u8]),
    Lane(&'static [u8]),
    /// After a good lane frame.
    LaneAfterLane(&'static [u8]),
}

async fn raw_uni(gateway: &Gateway, bytes: &[u8]) -> SendStream {
    let mut stream = gateway.connection.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Connects with this identity, misbehaves, and returns the reason with which it was closed.
async fn attacked(site: &Site, core: &Core, (role, name): (Role, &str), attack: Attack) -> String {
    let client = Client::new(&site.ca.identity(role, name));
    match attack {
        Attack::Control(bytes) => {
            let connection = within("handshake", client.connect(core.address)).await.unwrap();
            // The core may have closed before all of it is written.
            if let Ok((mut out, _incoming)) = connection.open_bi().await {
                drop(out.write_all(bytes).await);
                return close_reason(&connection).await;
            }
            close_reason(&connection).await
        }
        Attack::ControlAfterHello(bytes) => {
            let mut gateway = Gateway::open(&client, core.address).await;
            gateway.control.write_all(bytes).await.unwrap();
            close_reason(&gateway.connection).await
        }
        Attack::Lane(bytes) => {
            let gateway = Gateway::open(&client, core.address).await;
            let _open = raw_uni(&gateway, bytes).await;
            close_reason(&gateway.connection).await
        }
        Attack::LaneAfterLane(bytes) => {
            let gateway = Gateway::open(&client, core.address).await;
            let mut lane = gateway.lane(Lane::Vitals, false).await;
            lane.write_all(bytes).await.unwrap();
            close_reason(&gateway.connection).await
        }
    }
}

const HELLO: &[u8] = &[0, 0, 0, 3, 1, 0, 1];
const LANE: &[u8] = &[0, 0, 0, 3, 3, 1, 0];
const DATA: &[u8] = &[0, 0, 0, 10, 4, 0, 0, 0, 0, 0, 0, 0, 1, 9];

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_the_protocol_is_closed_by_reason_and_harms_nobody() {
    let site = Site::new();
    let core = site.core();
    let mut honest = site.gateway(&core, "gateway-2").await;
    let mut lane = honest.lane(Lane::Vitals, false).await;
    let gateway = (Role::Gateway, "gateway-1");
    let subscribe: &'static [u8] =
        Frame::Subscribe { version: VERSION, recipient: recipient(1), from: 0, until: 1, of: None }
            .encode()
            .leak();
    let other_version: &'static [u8] =
        Frame::Subscribe { version: 2, recipient: recipient(1), from: 0, until: 1, of: None }.encode().leak();
    let others_queue: &'static [u8] =
        Frame::Subscribe { version: VERSION, recipient: recipient(3), from: 0, until: 1, of: None }
            .encode()
            .leak();
    let huge = &[0xff, 0xff, 0xff, 0xff, 4];
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    let too_long: &'static [u8] = [&too_long[..], &[4]].concat().leak();
    let cases = [
        (gateway, Attack::Control(b"GET / HTTP/1.1\r\n\r\n"), "length"),
        (gateway, Attack::Control(&[0, 0, 0, 0]), "length"),
        (gateway, Attack::Control(huge), "length"),
        (gateway, Attack::Control(too_long), "length"),
        (gateway, Attack::Control(&[0, 0, 0, 1, 99]), "type"),
        (gateway, Attack::Control(&[0, 0, 0, 2, 1, 0]), "truncated"),
        (gateway, Attack::Control(&[0, 0, 0, 4, 1, 0, 1, 0]), "truncated"),
        (gateway, Attack::Control(&[0, 0, 0, 3, 1, 0, 2]), "protocol_version"),
        (gateway, Attack::Control(DATA), "unexpected"),
        (gateway, Attack::Control(subscribe), "unexpected"),
        (gateway, Attack::ControlAfterHello(HELLO), "unexpected"),
        (gateway, Attack::ControlAfterHello(DATA), "unexpected"),
        (gateway, Attack::ControlAfterHello(huge), "length"),
        (gateway, Attack::Lane(DATA), "unexpected"),
        (gateway, Attack::Lane(HELLO), "unexpected"),
        (gateway, Attack::Lane(&[0, 0, 0, 3, 3, 4, 0]), "value"),
        (gateway, Attack::Lane(&[0, 0, 0, 3, 3, 0, 2]), "value"),
        (gateway, Attack::LaneAfterLane(LANE), "unexpected"),
        (gateway, Attack::LaneAfterLane(huge), "length"),
        (gateway, Attack::LaneAfterLane(&[0, 0, 0, 5, 4, 0, 0, 0, 0]), "truncated"),
        ((Role::Feed, "hospital-1"), Attack::Control(HELLO), "unexpected"),
        ((Role::Feed, "hospital-1"), Attack::Control(other_version), "protocol_version"),
        ((Role::Feed, "hospital-1"), Attack::Control(others_queue), "not_configured"),
        ((Role::Feed, "hospital-1"), Attack::Control(huge), "length"),
    ];
    for (sequence, ((role, name), attack, reason)) in (0..).zip(cases) {
        let before = core.closed_for(reason);
        assert_eq!(attacked(&site, &core, (role, name), attack).await, reason, "case {sequence}");
        until("the close is counted", || core.closed_for(reason) == before + 1).await;
        send(&mut lane, sequence, &Sealing::new(2).segment(sequence)).await;
        honest.acked([sequence]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_turned_away_by_what_their_certificate_says() {
    let site = Site::new();
    let core = site.core();
    let mut honest = site.gateway(&core, "gateway-2").await;
    for (role, name, reason) in
        [(Role::Gateway, "gateway-9", "unknown gateway"), (Role::Feed, "hospital-9", "unknown feed")]
    {
        let before = core.closed_for("not_configured");
        assert_eq!(attacked(&site, &core, (role, name), Attack::Control(HELLO)).await, reason);
        until("the close is counted", || core.closed_for("not_configured") == before + 1).await;
    }
    let elsewhere = Ca::new();
    let strangers = [
        site.ca.identity(Role::Sensor, "gateway-1"),
        site.ca.identity(Role::Controller, "gateway-1"),
        site.ca.identity(Role::Core, "gateway-1"),
        elsewhere.identity(Role::Gateway, "gateway-1"),
    ];
    for stranger in strangers {
        let before = core.closed_for("handshake");
        // To its own eyes the handshake may have ended before the core looks at the certificate.
        let refused = match within("handshake", Client::new(&stranger).connect(core.address)).await {
            Ok(connection) => within("the core's close", connection.closed()).await,
            Err(refused) => refused,
        };
        let by_tls =
            matches!(refused, ConnectionError::ConnectionClosed(_) | ConnectionError::TransportError(_));
        assert!(by_tls, "{refused}");
        if core.closed_for("handshake") == before {
            // The one of another authority refuses us first, which the core hears as a lost handshake.
            until("the handshake is counted", || core.closed_for("handshake") > before).await;
        }
    }
    let mut lane = honest.lane(Lane::Alarm, false).await;
    send(&mut lane, 1, &Sealing::new(2).segment(0)).await;
    honest.acked([1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_does_not_keep_its_place() {
    let site = Site::new();
    let core = site.core();
    let client = Client::new(&site.ca.identity(Role::Gateway, "gateway-1"));
    let connection = within("handshake", client.connect(core.address)).await.unwrap();
    assert_eq!(close_reason(&connection).await, "silent");
    until("the close is counted", || core.closed_for("silent") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_reads_no_answers_holds_up_itself_alone_and_loses_none() {
    const RECORDS: u64 = 30_000;
    let site = Site::new();
    let core = site.core();
    let identity = site.ca.identity(Role::Gateway, "gateway-1");
    let mut deaf = Gateway::open(&Client::with_windows(&identity, Some(1024)), core.address).await;
    let mut lane = deaf.lane(Lane::Vitals, false).await;
    let sender = tokio::spawn(async move {
        for position in 0..RECORDS {
            // Two positions apart, so that no range joins them: an answer of its own for each.
            send(&mut lane, 2 * position, b"x").await;
        }
        lane
    });
    // The answers' queue fills, and the control stream's window behind it.
    until("the core stops reading", || core.refused_for("magic") >= 8192).await;
    let mut honest = site.gateway(&core, "gateway-2").await;
    let mut other = honest.lane(Lane::Vitals, false).await;
    for sequence in 0..200 {
        send(&mut other, sequence, &Sealing::new(2).segment(sequence)).await;
    }
    honest.acked(0..200).await;
    assert!(
        core.refused_for("magic") < RECORDS,
        "the core took all of them and keeps their answers in memory"
    );
    for position in 0..RECORDS {
        let expected = Frame::Refuse { position: 2 * position, refusal: Refusal::Malformed };
        assert_eq!(deaf.answers.next().await, Some(expected));
    }
    drop(sender.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_stores_what_came_in_and_a_new_core_knows_it() {
    let site = Site::new();
    let mut core = site.paused();
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    for sequence in 0..50 {
        send(&mut lane, sequence, &sealing.segment(sequence)).await;
    }
    send(&mut lane, 50, b"x").await;
    let refused = Frame::Refuse { position: 50, refusal: Refusal::Malformed };
    assert_eq!(gateway.answers.next().await, Some(refused), "so the 50 before it are in the queue");
    core.start_writer();
    drop(core.stop().await);
    let closed = within("the connection's end", gateway.connection.closed()).await;
    assert!(matches!(closed, ConnectionError::ApplicationClosed(_)), "{closed}");

    let core = site.core();
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let mut lane = gateway.lane(Lane::Vitals, true).await;
    for sequence in 0..50 {
        send(&mut lane, sequence, &sealing.segment(sequence)).await;
    }
    gateway.acked(0..50).await;
    assert_eq!((core.records("known"), core.records("stored")), (50, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_whose_writer_is_gone_takes_nothing_and_says_so() {
    let site = Site::new();
    let mut core = site.paused();
    let gateway = site.gateway(&core, "gateway-1").await;
    core.lose_writer();
    let mut lane = gateway.lane(Lane::Vitals, false).await;
    send(&mut lane, 1, &Sealing::new(1).segment(0)).await;
    assert_eq!(close_reason(&gateway.connection).await, "stopped");
}
