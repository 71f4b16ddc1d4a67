use caregate_protocol::openflow::port::{self, PortStatus};
use caregate_protocol::openflow::{BadRequest, Command, ErrorMessage, Text};

use super::*;

#[derive(Default)]
struct Wire {
    sent: Vec<(u32, Message)>,
    last_xid: u32,
}

impl Wire {
    fn send(&mut self) -> impl FnMut(&Message) -> u32 + '_ {
        |message| {
            self.last_xid += 1;
            self.sent.push((self.last_xid, message.clone()));
            self.last_xid
        }
    }

    /// The transaction id of the first message of this kind that was sent, which is taken off.
    fn asked(&mut self, of: fn(&Message) -> bool) -> u32 {
        let at = self.sent.iter().position(|(_, message)| of(message)).expect("it was sent");
        self.sent.remove(at).0
    }

    /// Answers everything that was asked for.
    fn answer(&mut self, exchange: &mut Exchange, now: Duration) -> Vec<Happened> {
        let mut happened = Vec::new();
        for (xid, message) in std::mem::take(&mut self.sent) {
            let reply = if let Message::MultipartRequest(request) = message {
                let body = match request.body {
                    RequestBody::PortDesc => ReplyBody::PortDesc(vec![port(1)]),
                    RequestBody::PortStats(_) => {
                        ReplyBody::PortStats(vec![PortStats { port: 1, ..PortStats::default() }])
                    }
                    RequestBody::Table => ReplyBody::Table(tables()),
                    RequestBody::Flow(_) => ReplyBody::Flow(vec![]),
                    other @ (RequestBody::Desc
                    | RequestBody::Aggregate(_)
                    | RequestBody::Queue(_)
                    | RequestBody::Group(_)
                    | RequestBody::GroupDesc
                    | RequestBody::GroupFeatures
                    | RequestBody::Meter(_)
                    | RequestBody::MeterConfig(_)
                    | RequestBody::MeterFeatures
                    | RequestBody::TableFeatures(_)
                    | RequestBody::Experimenter(_)
                    | RequestBody::Other { .. }) => {
                        panic!("{other:?}")
                    }
                };
                Message::MultipartReply(MultipartReply { more: false, body })
            } else if message == Message::BarrierRequest {
                Message::BarrierReply
            } else {
                continue;
            };
            happened.extend(exchange.handle(xid, reply, now, &mut self.send()));
        }
        happened
    }
}

fn port(number: u32) -> Port {
    Port {
        number,
        hw_addr: [2; 6],
        name: Text::new("eth1"),
        config: 0,
        state: port::state::LIVE,
        current: 0,
        advertised: 0,
        supported: 0,
        peer: 0,
        current_speed: 0,
        max_speed: 0,
    }
}

fn tables() -> Vec<TableStats> {
    let table = |table_id, active, lookups| TableStats { table_id, active, lookups, matched: 0 };
    vec![table(0, 0, 0), table(1, 2, 0), table(2, 0, 9)]
}

fn is_flow_mod(message: &Message) -> bool {
    matches!(message, Message::FlowMod(_))
}

fn is_barrier(message: &Message) -> bool {
    matches!(message, Message::BarrierRequest)
}

fn is_table_request(message: &Message) -> bool {
    matches!(message, Message::MultipartRequest(request) if request.body == RequestBody::Table)
}

fn error(code: BadRequest) -> Message {
    Message::Error(ErrorMessage { kind: ErrorKind::BadRequest(code), data: vec![] })
}

const S: fn(u64) -> Duration = Duration::from_secs;

fn started() -> (Wire, Exchange) {
    let mut wire = Wire::default();
    let mut exchange = Exchange::start(1, vec![], S(0), &mut wire.send());
    let confirmed = Happened::Reconcile(reconcile::Happened::Confirmed(1));
    assert_eq!(wire.answer(&mut exchange, S(0)), [confirmed]);
    assert!(wire.sent.is_empty());
    (wire, exchange)
}

fn rule() -> FlowMod {
    FlowMod::new(Command::Add, 1, 9)
}

#[test]
fn ports_and_tables_are_read_every_second() {
    let (mut wire, mut exchange) = started();
    let census = exchange.census();
    assert_eq!((census.ports.len(), census.port_stats.len()), (1, 1));
    assert_eq!(census.tables.iter().map(|table| table.table_id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(exchange.next_timeout(), S(1));
    assert_eq!(exchange.handle_timeout(S(1), &mut wire.send()), []);
    assert_eq!(wire.sent.len(), 4, "flows, ports, their counters, tables");
}

#[test]
fn a_census_that_is_refused_or_not_answered_ends() {
    let (mut wire, mut exchange) = started();
    exchange.handle_timeout(S(1), &mut wire.send());
    let refused = wire.asked(is_table_request);
    assert_eq!(exchange.handle(refused, error(BadRequest::BadMultipart), S(1), &mut wire.send()), []);
    assert_eq!(wire.answer(&mut exchange, S(1)), []);
    assert_eq!(exchange.next_timeout(), S(2));
    exchange.handle_timeout(S(2), &mut wire.send());
    wire.sent.clear();
    exchange.handle_timeout(S(7), &mut wire.send());
    assert_eq!(wire.sent.len(), 4, "asked again after five seconds");
}

#[test]
fn an_experts_rule_is_answered_at_its_barrier() {
    let (mut wire, mut exchange) = started();
    assert_eq!(exchange.write(Token(1), rule(), S(0), &mut wire.send()), []);
    assert_eq!(exchange.write(Token(2), rule(), S(0), &mut wire.send()), []);
    let (first, second) = (wire.asked(is_flow_mod), wire.asked(is_flow_mod));
    assert_eq!(exchange.handle(first, error(BadRequest::Eperm), S(0), &mut wire.send()), []);
    let (first_barrier, second_barrier) = (wire.asked(is_barrier), wire.asked(is_barrier));
    assert!(first < first_barrier && first_barrier < second && second < second_barrier);
    let eperm = ErrorKind::BadRequest(BadRequest::Eperm);
    let answered = |token, answer| vec![Happened::Answered(Token(token), answer)];
    let mut barrier = |xid| exchange.handle(xid, Message::BarrierReply, S(0), &mut wire.send());
    assert_eq!(barrier(first_barrier), answered(1, Answer::Refused(eperm)));
    assert_eq!(barrier(second_barrier), answered(2, Answer::Done));
    assert_eq!(barrier(second_barrier), [Happened::Unexpected("OFPT_BARRIER_REPLY")]);
    assert_eq!(wire.sent.len(), 1, "what is ours is looked after");
}

#[test]
fn requests_are_bounded_and_time_out() {
    let (mut wire, mut exchange) = started();
    let most = u64::try_from(REQUESTS_MAX).unwrap();
    for token in 0..most {
        assert_eq!(exchange.write(Token(token), rule(), S(0), &mut wire.send()), []);
        assert_eq!(exchange.read(Token(100 + token), S(0), &mut wire.send()), []);
    }
    let busy = [Happened::Answered(Token(99), Answer::Busy)];
    assert_eq!(exchange.write(Token(99), rule(), S(0), &mut wire.send()), busy);
    assert_eq!(exchange.read(Token(99), S(0), &mut wire.send()), busy);
    let happened = exchange.handle_timeout(S(5), &mut wire.send());
    let timed_out =
        happened.iter().filter(|happened| matches!(happened, Happened::Answered(_, Answer::TimedOut)));
    assert_eq!(timed_out.count(), 2 * REQUESTS_MAX);
    assert_eq!(exchange.write(Token(99), rule(), S(5), &mut wire.send()), []);
}

#[test]
fn a_reader_is_answered_when_everything_was_read_after_it_asked() {
    let (mut wire, mut exchange) = started();
    exchange.handle_timeout(S(1), &mut wire.send());
    let early = std::mem::take(&mut wire.sent);
    assert_eq!(exchange.read(Token(1), S(1), &mut wire.send()), []);
    assert!(wire.sent.is_empty(), "a reading is under way, and does not count");
    wire.sent = early;
    assert_eq!(wire.answer(&mut exchange, S(1)), []);
    // The ones after it begin at once.
    assert_eq!(exchange.next_timeout(), S(1));
    exchange.handle_timeout(S(1), &mut wire.send());
    assert_eq!(wire.sent.len(), 4);
    assert_eq!(wire.answer(&mut exchange, S(1)), [Happened::Answered(Token(1), Answer::Done)]);
}

#[test]
fn a_changed_port_is_told_and_looked_at() {
    let (mut wire, mut exchange) = started();
    let status = PortStatus { reason: PortReason::Modify, port: port(1) };
    let happened = exchange.handle(0, Message::PortStatus(status), S(0), &mut wire.send());
    assert_eq!(happened, [Happened::Port(PortReason::Modify, port(1))]);
    assert_eq!(exchange.next_timeout(), S(0));
    exchange.handle_timeout(S(0), &mut wire.send());
    assert_eq!(wire.sent.len(), 3);
}

#[test]
fn what_nobody_asked_for_is_counted() {
    let (mut wire, mut exchange) = started();
    let part = MultipartReply { more: true, body: ReplyBody::Flow(vec![]) };
    let unexpected = [Happened::Unexpected("OFPT_MULTIPART_REPLY")];
    assert_eq!(exchange.handle(77, Message::MultipartReply(part), S(0), &mut wire.send()), unexpected);
    exchange.handle_timeout(S(1), &mut wire.send());
    let xid = wire.asked(is_table_request);
    let other = MultipartReply { more: false, body: ReplyBody::Flow(vec![]) };
    assert_eq!(exchange.handle(xid, Message::MultipartReply(other), S(1), &mut wire.send()), unexpected);
    let hello = Message::EchoReply(vec![]);
    assert_eq!(exchange.handle(5, hello, S(1), &mut wire.send()), [Happened::Unexpected("OFPT_ECHO_REPLY")]);
}
