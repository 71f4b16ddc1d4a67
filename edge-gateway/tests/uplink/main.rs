//! The uplink against a core that the test plays: order, redelivery, lies and garbage, an unreadable record, the drain; and
//! what one connection's fate does to the others.

#![expect(clippy::unwrap_used, reason = "tests")]

mod early;
#[path = "../pipeline_support/mod.rs"]
mod pipeline_support;
#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{Frame, Refusal, VERSION};
use edge_gateway::ingest::{Inbound, Verdict};
use edge_gateway::spool::{Limits, Position};
use edge_gateway::uplink::ports::LanePorts;
use edge_gateway::uplink::schedule::Part;
use pipeline_support::commits::{Commits, Sources, doors};
use pipeline_support::{Home, Publish};
use pki::Ca;
use support::{Core, Gateway, PATIENCE, Session, next, take, until, within};
use tokio::sync::oneshot;

#[tokio::test(flavor = "multi_thread")]
async fn the_present_overtakes_the_past_and_both_arrive_whole() {
    const PAST: usize = 1500;
    let ca = Ca::new();
    let core = Core::new(&ca, 64 << 10);
    let mut gateway = Gateway::start(&ca, core.address, &[(Lane::Vitals, 2000); PAST]);
    let mut session = core.welcome(&gateway).await;
    assert_eq!(gateway.uplink.take_behind(), [Lane::Vitals].into(), "its wraps are to be given again");
    let mut received = session.receive();
    let mut all = take(&mut received, 50).await;
    assert!(all.iter().all(|(lane, backlog, _)| (*lane, *backlog) == (Lane::Vitals, true)));
    let live: Vec<_> = Lane::ALL.into_iter().map(|lane| gateway.spool(lane, 100)).collect();
    let mut ahead = BTreeMap::new();
    while ahead.len() < live.len() {
        let record = next(&mut received).await;
        all.push(record);
        if !record.1 {
            ahead.insert(record.2, all.len());
        }
    }
    assert_eq!(ahead.keys().copied().collect::<Vec<_>>(), live);
    // What QUIC and the windows hold may be before it: 256 KiB there and 64 KiB here, so 160 records and the test's own.
    assert!(all.len() < 300, "live came behind {} records of backlog", all.len());
    all.extend(take(&mut received, PAST + live.len() - all.len()).await);
    let backlog: Vec<_> =
        all.iter().filter(|(_, backlog, _)| *backlog).map(|(_, _, position)| *position).collect();
    assert_eq!(backlog, (1..=PAST as u64).collect::<Vec<_>>(), "in order, none twice");
    session.ack(&[(1, PAST as u64 + 4)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    gateway.stopped().await;
}

/// The kernel is handed many datagrams in one call and segments them (UDP GSO, Linux 4.18).
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_out_with_many_datagrams_in_a_call() {
    const RECORDS: usize = 500;
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let gateway = Gateway::start(&ca, core.address, &[(Lane::Vitals, 4000); RECORDS]);
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    take(&mut received, RECORDS).await;
    session.ack(&[(1, RECORDS as u64)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    let metrics = gateway.metrics.clone();
    gateway.stopped().await;
    let (datagrams, sends) = (metrics.uplink_datagrams.get(), metrics.uplink_sends.get());
    assert!(datagrams >= RECORDS as u64 * 4000 / 1500, "{datagrams}");
    assert!(sends > 0 && sends * 3 < datagrams, "{datagrams} datagrams in {sends} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again_in_order_and_the_rest_does_not() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let mut gateway = Gateway::start(&ca, core.address, &[(Lane::Vitals, 300); 10]);
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    take(&mut received, 10).await;
    let live = gateway.spool(Lane::Alarm, 300);
    assert_eq!(next(&mut received).await, (Lane::Alarm, false, live));
    session.ack(&[(2, 4), (7, 7)]).await;
    until("four are acknowledged", || gateway.uplink.waiting() == 7).await;
    assert_eq!(within("a range", gateway.acked.recv()).await, Some(2..=4));
    assert_eq!(within("a range", gateway.acked.recv()).await, Some(7..=7));
    session.close();
    let while_away = gateway.spool(Lane::Vitals, 300);
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    let mut again = take(&mut received, 8).await;
    again.sort_unstable();
    let vitals = [1, 5, 6, 8, 9, 10, while_away].map(|position| (Lane::Vitals, true, position));
    assert_eq!(again, [vec![(Lane::Alarm, true, live)], vitals.to_vec()].concat());
    session.ack(&[(0, u64::MAX)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_lies_or_talks_garbage_costs_a_connection_and_nothing_else() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let gateway = Gateway::start(&ca, core.address, &[(Lane::Vitals, 300); 5]);
    let [high, low] = VERSION.to_be_bytes();
    let cases: [(&[u8], &str); 6] = [
        (b"HTTP/1.1 200 OK\r\n", "length"),
        (&[0, 0, 0, 3, 2, 0, 9], "version"),
        (&[0, 0, 0, 3, 1, 0, 1], "unexpected"),
        (&[0, 0, 0, 3, 2, high, low, 0, 0, 0, 3, 2, high, low], "unexpected"),
        (&[0, 0, 0, 3, 2, high, low, 0, 0, 0, 2, 99, 0], "type"),
        (&[0, 0, 0, 3, 2, high, low, 0, 0, 0, 5, 5, 1, 2, 3, 4], "ranges"),
    ];
    for (bytes, reason) in cases {
        let before = gateway.failures(reason);
        let mut line = core.accept().await;
        line.control.write_all(bytes).await.unwrap();
        until(reason, || gateway.failures(reason) > before).await;
        within("the gateway's close", line.connection.closed()).await;
    }
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    // Positions that were never sent, that do not exist, and one twice.
    for line in &mut session.lines {
        line.say(&Frame::Ack { ranges: vec![(0, 0), (1 << 40, u64::MAX), (2, 2), (2, 2)] }).await;
    }
    session.lines[0].say(&Frame::Refuse { position: 3, refusal: Refusal::Fork }).await;
    let refused = gateway.metrics.uplink_refused.with_label_values(&["fork"]);
    until("the refusal is counted", || refused.get() == 1).await;
    let positions: std::collections::BTreeSet<_> =
        take(&mut received, 4).await.into_iter().map(|r| r.2).collect();
    assert!([1, 3, 4, 5].iter().filter(|p| positions.contains(p)).count() >= 3, "{positions:?}");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cant_be_read_does_not_hold_up_the_others() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let gateway = Gateway::start_with(&ca, core.address, &[(Lane::Vitals, 300); 6], None, |dir, log| {
        let record = log.reader().read(Position(3)).unwrap().unwrap().1;
        let mut paths = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let path = paths.find(|path| path.extension().is_some_and(|e| e == "log")).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(300).position(|window| window == record).unwrap();
        bytes[at + 100] ^= 1;
        // In place, as a bad sector: the log has the file open.
        std::fs::write(&path, bytes).unwrap();
    });
    for round in 1..=2 {
        let session = core.welcome(&gateway).await;
        let mut received = session.receive();
        let mut positions: Vec<_> = take(&mut received, 5).await.into_iter().map(|r| r.2).collect();
        positions.sort_unstable();
        assert_eq!(positions, [1, 2, 4, 5, 6]);
        let unreadable = gateway.metrics.uplink_refused.with_label_values(&["unreadable"]);
        until("it is counted", || unreadable.get() == round).await;
        session.close();
    }
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    take(&mut received, 5).await;
    session.ack(&[(1, 2), (4, 6)]).await;
    until("it alone waits", || gateway.uplink.waiting() == 1).await;
    assert!(gateway.dir.path().is_dir());
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_is_in_flight_and_not_for_ever() {
    let ca = Ca::new();
    for answers in [true, false] {
        let core = Core::new(&ca, 1 << 20);
        let mut gateway = Gateway::start(&ca, core.address, &[(Lane::Waveform, 1000); 20]);
        let mut session = core.welcome(&gateway).await;
        let mut received = session.receive();
        take(&mut received, 20).await;
        gateway.stop.cancel();
        if answers {
            session.ack(&[(1, 20)]).await;
            assert_eq!(within("the range", gateway.acked.recv()).await, Some(1..=20));
        }
        within("the uplink's end", &mut gateway.link).await.unwrap().unwrap();
        assert_eq!(gateway.uplink.waiting(), if answers { 0 } else { 20 });
        for line in &session.lines {
            let closed = within("the close", line.connection.closed()).await;
            assert!(closed.to_string().contains("closed by peer"), "{closed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_core_that_is_not_there() {
    let ca = Ca::new();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&ca, nobody.local_addr().unwrap(), &[(Lane::Alarm, 100)]);
    let mut packet = [0; 2000];
    nobody.set_read_timeout(Some(PATIENCE)).unwrap();
    tokio::task::spawn_blocking(move || nobody.recv_from(&mut packet).unwrap()).await.unwrap();
    gateway.stopped().await;
}

fn are_free(ports: LanePorts) -> bool {
    let free = |part| std::net::UdpSocket::bind(("0.0.0.0", ports.of(part))).is_ok();
    Part::ALL.into_iter().all(free)
}

/// Five ports in a row that nobody has at this moment; others for each caller.
fn free_ports() -> LanePorts {
    // Below the range from which the kernel takes ports for sockets that do not care.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = 20_000 + u16::try_from(std::process::id() % 200).unwrap() * 50;
    let next = || LanePorts::try_from(from + NEXT.fetch_add(5, Ordering::SeqCst)).unwrap();
    std::iter::repeat_with(next).find(|ports| are_free(*ports)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_comes_from_its_own_port_and_again_after_a_kill() {
    let (ca, ports) = (Ca::new(), free_ports());
    let core = Core::new(&ca, 1 << 20);
    for killed in [true, false] {
        let start =
            || Gateway::start_with(&ca, core.address, &[(Lane::Waveform, 300)], Some(ports), |_, _| {});
        let mut gateway = start();
        let mut session = core.welcome(&gateway).await;
        let mut received = session.receive();
        assert_eq!(next(&mut received).await, (Lane::Waveform, true, 1));
        for lane in Lane::ALL {
            let position = gateway.spool(lane, 100);
            assert_eq!(next(&mut received).await, (lane, false, position));
            let from = session.lines[session.carried.lock().unwrap()[&position]].port();
            assert_eq!(from, ports.of(Part::Live(lane)));
        }
        let from = session.lines[session.carried.lock().unwrap()[&1]].port();
        assert_eq!(from, ports.of(Part::Backlog));
        let second = start();
        let error = within("the second's end", second.link).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), "port");
        let named = format!("UDP port {} (core.lane_ports, alarm)", ports.of(Part::Live(Lane::Alarm)));
        assert!(error.to_string().starts_with(&named), "{error}");
        if killed {
            // No farewell to the core; what a kill leaves behind.
            gateway.link.abort();
            assert!(within("the abort", &mut gateway.link).await.is_err());
            until("the ports are free", || are_free(ports)).await;
        } else {
            session.ack(&[(0, u64::MAX)]).await;
            gateway.stopped().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_the_core_does_not_read_holds_up_no_other() {
    const STUCK: usize = 400;
    let (ca, ports) = (Ca::new(), free_ports());
    let core = Core::new(&ca, 32 << 10);
    let mut gateway =
        Gateway::start_with(&ca, core.address, &[(Lane::Vitals, 2000); 50], Some(ports), |_, _| {});
    let mut session = core.welcome(&gateway).await;
    let waveform = ports.of(Part::Live(Lane::Waveform));
    let mut received = session.receive_but(|line| line.port() == waveform);
    // More than QUIC and the windows hold, so that its sender is stuck in the middle.
    let stuck: Vec<_> = (0..STUCK).map(|_| gateway.spool(Lane::Waveform, 2000)).collect();
    let mut past = 0;
    for round in 0..40 {
        let lane = [Lane::Alarm, Lane::Vitals, Lane::Activity][round % 3];
        let position = gateway.spool(lane, 200);
        loop {
            let record = next(&mut received).await;
            if record.1 {
                past += 1;
                continue;
            }
            assert_eq!(record, (lane, false, position), "as live, so within 2 s");
            break;
        }
    }
    // What the stuck lane has not sent after 2 s goes with the backlog; the rest is on its way there and stays.
    let mut by_backlog = Vec::new();
    while by_backlog.last() != stuck.last() || past < 50 {
        match next(&mut received).await {
            (Lane::Waveform, true, position) => by_backlog.push(position),
            (Lane::Vitals, true, _) => past += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..STUCK).contains(&by_backlog.len()), "{} took the other way", by_backlog.len());
    assert_eq!(by_backlog, stuck[STUCK - by_backlog.len()..], "in order, none twice");
    session.ack(&[(0, u64::MAX)]).await;
    until("the stuck ones alone wait", || gateway.uplink.waiting() == STUCK - by_backlog.len()).await;
    session.line(waveform).connection.close(0_u32.into(), b"");
    let mut rest = take(&mut received, STUCK - by_backlog.len()).await;
    rest.sort_unstable();
    let expected = &stuck[..STUCK - by_backlog.len()];
    assert_eq!(rest, expected.iter().map(|position| (Lane::Waveform, true, *position)).collect::<Vec<_>>());
    session.ack(&[(0, u64::MAX)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lane_moves_to_the_backlog_and_returns_while_the_others_go_on() {
    let (ca, ports) = (Ca::new(), free_ports());
    let core = Core::new(&ca, 1 << 20);
    let mut gateway = Gateway::start_with(&ca, core.address, &[], Some(ports), |_, _| {});
    let mut session = core.welcome(&gateway).await;
    let mut received = session.receive();
    let mut sent = Vec::new();
    for lane in [Lane::Alarm, Lane::Vitals, Lane::Vitals, Lane::Waveform] {
        let position = gateway.spool(lane, 300);
        assert_eq!(next(&mut received).await, (lane, false, position));
        sent.push(position);
    }
    let vitals = ports.of(Part::Live(Lane::Vitals));
    session.line(vitals).connection.close(0_u32.into(), b"");
    until("the gateway is not ready", || !gateway.connected.holds()).await;
    let while_away = gateway.spool(Lane::Vitals, 300);
    let mut again = take(&mut received, 3).await;
    again.sort_unstable();
    // By the connection that stood all the time; what the other lanes sent is not sent again.
    assert_eq!(again, [sent[1], sent[2], while_away].map(|position| (Lane::Vitals, true, position)));
    let live = gateway.spool(Lane::Alarm, 300);
    assert_eq!(next(&mut received).await, (Lane::Alarm, false, live));
    let mut returned = Session { lines: vec![core.welcome_one().await], ..Session::default() };
    assert_eq!(returned.lines[0].port(), vitals);
    until("the gateway is ready", || gateway.ready()).await;
    let mut received_there = returned.receive();
    let live = gateway.spool(Lane::Vitals, 300);
    assert_eq!(next(&mut received_there).await, (Lane::Vitals, false, live));
    session.ack(&[(0, u64::MAX)]).await;
    until("one waits", || gateway.uplink.waiting() == 1).await;
    returned.ack(&[(0, u64::MAX)]).await;
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    assert!(received.try_recv().is_err(), "nothing came twice");
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_without_end_do_not_keep_sensors_waiting() {
    let home = Home::new(Limits::with_budget(64 << 20));
    let committer = home.start().committer;
    let (inbound, front) = doors();
    let sources = Sources { linger: Duration::ZERO, ..Sources::default() };
    let commits = Commits::begin(committer, front, sources);
    let stop = Arc::new(AtomicBool::new(false));
    // More of them than the one that takes them can keep up with.
    let flood: Vec<_> = (0..4)
        .map(|_| {
            let (stop, acked) = (Arc::clone(&stop), commits.acked.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) && !acked.is_closed() {
                    drop(acked.try_send(0..=u64::MAX));
                }
            })
        })
        .collect();
    for seq in 0..200 {
        let Publish { device, topic, payload } = Publish::beat(seq);
        let (verdict, answered) = oneshot::channel();
        let publish = Inbound { device, topic, payload: payload.into(), received_us: 0, verdict };
        within("room for a PUBLISH", inbound.of(Lane::Vitals).send(publish)).await.unwrap();
        // Without a policy nobody's reading is anybody's: it is refused, but it is answered.
        assert_eq!(within("a verdict", answered).await.unwrap(), Verdict::Refused);
    }
    stop.store(true, Ordering::SeqCst);
    flood.into_iter().for_each(|thread| thread.join().unwrap());
    drop(inbound);
    within("the thread's end", tokio::task::spawn_blocking(move || commits.end())).await.unwrap();
}
