//! Counters and timeouts.

use caregate_protocol::datapath::switch::TableCounters;
use caregate_protocol::openflow::queue::{self, QueueStatsRequest};

use super::*;

#[test]
fn statistics_are_read_when_they_are_asked_for() {
    let mut bench = Bench::open();
    bench.flow_mod(1, quarantine(1));
    let asked = bench.give(2, &ask(RequestBody::Flow(FlowStatsRequest::all())));
    assert!(asked.install().is_some() && asked.sent.is_empty(), "what came before is installed first");
    assert_eq!(bench.installed(Ok(())).rest, [Action::ReadCounters]);
    bench.now = at(5);
    let Some((2, Message::MultipartReply(MultipartReply { more: false, body: ReplyBody::Flow(flows) }))) =
        bench.counted(7).sent.pop()
    else {
        panic!()
    };
    let flow = &flows[0];
    assert_eq!((flow.packets, flow.bytes, flow.lasted.seconds, flow.table_id), (7, 700, 5, 1));
    assert_eq!(flow.pattern, quarantine(1).pattern);
    bench.give(3, &ask(RequestBody::Aggregate(FlowStatsRequest { table_id: 0, ..FlowStatsRequest::all() })));
    let Some((3, Message::MultipartReply(reply))) = bench.counted(7).sent.pop() else { panic!() };
    assert_eq!(reply.body, ReplyBody::Aggregate(Default::default()), "of policy nothing is shown");
    for (body, code) in [
        (
            RequestBody::Flow(FlowStatsRequest { table_id: 8, ..FlowStatsRequest::all() }),
            "OFPBRC_BAD_TABLE_ID",
        ),
        (RequestBody::PortStats(5), "OFPBRC_BAD_PORT"),
        (RequestBody::Other { multipart_type: 14, body: vec![] }, "OFPBRC_BAD_MULTIPART"),
    ] {
        assert_eq!(bench.give(4, &ask(body)).errors(), [(4, code)]);
    }
    let more = Message::MultipartRequest(MultipartRequest { more: true, body: RequestBody::Desc });
    assert_eq!(bench.give(5, &more).errors(), [(5, "OFPBRC_MULTIPART_BUFFER_OVERFLOW")]);
}

#[test]
fn ports_and_tables_show_what_the_helper_counted() {
    let mut bench = Bench::open();
    let traffic = |frames| datapath::Traffic { frames, bytes: 60 * frames };
    let counted = |word: &str, frames| datapath::Counted { word: word.to_owned(), traffic: traffic(frames) };
    let (none, link) = (datapath::PortCounters::default, datapath::LinkCounters::default);
    let sensor = datapath::PortCounters {
        number: 1,
        kinds: vec![counted("ipv4_tcp", 10), counted("arp", 5)],
        verdicts: vec![
            counted("admitted", 6),
            counted("discovery", 2),
            counted("rule", 3),
            counted("unbound_source", 4),
        ],
        ..none()
    };
    let uplink = datapath::PortCounters {
        number: 3,
        kinds: vec![counted("ipv4_udp", 20)],
        verdicts: vec![counted("sent", 15), counted("send_dropped", 1), counted("forwarded", 4)],
        queues: (0..8).map(|queue| traffic(queue * queue)).collect(),
        link: None,
    };
    let lan = datapath::PortCounters {
        number: 4,
        kinds: vec![],
        verdicts: vec![counted("redirected", 3), counted("punted", 2), counted("table_miss", 1)],
        link: Some(datapath::LinkCounters { tx: traffic(70), tx_dropped: 2, collisions: 1, ..link() }),
        ..none()
    };
    let ports = Counters { ports: vec![sensor, uplink, lan], ..Counters::default() };
    let table = |lookups, matched| TableCounters { lookups, matched };
    let switch = SwitchCounters { tables: vec![table(9, 9), table(25, 6)], ..SwitchCounters::default() };
    let counters = Readings { ports, switch };
    bench.give(1, &ask(RequestBody::PortStats(port::ANY)));
    let done = Done::of(bench.agent.handle_counters(Ok(counters.clone()), at(9)));
    let Some((_, Message::MultipartReply(MultipartReply { body: ReplyBody::PortStats(ports), .. }))) =
        done.sent.last()
    else {
        panic!()
    };
    let (rx, tx) = (&ports[0].counters, &ports[2].counters);
    assert_eq!((rx.rx_packets, rx.rx_bytes, rx.rx_dropped, rx.tx_packets), (15, 900, 7, u64::MAX));
    assert_eq!((tx.tx_packets, tx.tx_dropped, tx.rx_packets), (20, 1, u64::MAX));
    let lan = &ports[3].counters;
    assert_eq!((lan.rx_packets, lan.rx_bytes, lan.rx_dropped), (6, 360, 1));
    assert_eq!((lan.tx_packets, lan.tx_bytes, lan.tx_dropped, lan.collisions), (70, 4200, 2, 1));
    assert_eq!((lan.rx_errors, lan.rx_crc_err), (0, 0));
    let queues = QueueStatsRequest { port: 3, queue_id: queue::ALL };
    bench.give(3, &ask(RequestBody::Queue(queues)));
    let done = Done::of(bench.agent.handle_counters(Ok(counters.clone()), at(9)));
    let Some((_, Message::MultipartReply(MultipartReply { body: ReplyBody::Queue(queues), .. }))) =
        done.sent.last()
    else {
        panic!()
    };
    assert_eq!(queues.len(), 8);
    let queue = &queues[3];
    assert_eq!((queue.queue_id, queue.tx_packets, queue.tx_bytes, queue.tx_errors), (3, 9, 540, u64::MAX));
    bench.give(2, &ask(RequestBody::Table));
    let done = Done::of(bench.agent.handle_counters(Ok(counters), at(9)));
    let Some((_, Message::MultipartReply(MultipartReply { body: ReplyBody::Table(tables), .. }))) =
        done.sent.last()
    else {
        panic!()
    };
    assert_eq!((tables[0].table_id, tables[0].lookups, tables[0].matched), (0, 15, 11));
    assert_eq!((tables[1].lookups, tables[1].matched, tables[1].active), (25, 6, 0));
    assert_eq!(tables.iter().map(|table| table.table_id).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
}

#[test]
fn flows_time_out_by_what_the_helper_counts() {
    let mut bench = Bench::open();
    bench.add(openflow::FlowMod { idle_timeout_s: 3, ..quarantine(1) });
    bench.add(openflow::FlowMod { hard_timeout_s: 5, ..quarantine(2) });
    assert_eq!(bench.agent.next_timeout(), Some(at(1)), "polled while a flow has an idle timeout");
    for second in 1..=4 {
        bench.now = at(second);
        assert_eq!(Done::of(bench.agent.handle_timeout(bench.now)).rest, [Action::ReadCounters]);
        assert_eq!(bench.counted(second), Done::default(), "in use");
    }
    bench.now = at(5) + FLUSH_IDLE;
    assert_eq!(Done::of(bench.agent.handle_timeout(bench.now)).rest, [Action::ReadCounters]);
    assert_eq!(bench.counted(4).puts_and_removes(), (0, 1), "the hard timeout");
    let done = bench.installed(Ok(()));
    let [(0, Message::FlowRemoved(removed))] = &done.sent[..] else { panic!("{done:?}") };
    assert_eq!((removed.cookie, removed.reason, removed.packets), (2, RemovedReason::HardTimeout, 4));
    bench.now = at(7);
    assert_eq!(Done::of(bench.agent.handle_timeout(bench.now)).rest, [Action::ReadCounters]);
    assert_eq!(bench.counted(4).puts_and_removes(), (0, 1));
    let done = bench.installed(Ok(()));
    let [(0, Message::FlowRemoved(removed))] = &done.sent[..] else { panic!("{done:?}") };
    assert_eq!((removed.cookie, removed.reason, removed.lasted.seconds), (1, RemovedReason::IdleTimeout, 7));
}

#[test]
fn a_helper_that_refuses_is_not_asked_at_once_again() {
    let mut bench = Bench::open();
    bench.add(openflow::FlowMod { hard_timeout_s: 2, ..quarantine(1) });
    bench.now = at(2);
    assert_eq!(Done::of(bench.agent.handle_timeout(bench.now)).rest, [Action::ReadCounters]);
    assert_eq!(Done::of(bench.agent.handle_counters(Err(HelperRefused), bench.now)), Done::default());
    assert_eq!(bench.agent.next_timeout(), Some(at(3)));
    assert_eq!(Done::of(bench.agent.handle_timeout(at(2))), Done::default());
    bench.now = at(3);
    assert_eq!(Done::of(bench.agent.handle_timeout(bench.now)).rest, [Action::ReadCounters]);
    assert_eq!(bench.counted(0).puts_and_removes(), (0, 1));
    bench.installed(Err(HelperRefused));
    assert_eq!((bench.len(), bench.agent.next_timeout()), (1, Some(at(4))));
}
