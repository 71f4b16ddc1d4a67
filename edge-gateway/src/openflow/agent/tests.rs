//! The agent against a scripted controller and a scripted helper.

use caregate_protocol::datapath::{Mode, Role as PortRole, RuleCounters};
use caregate_protocol::openflow::multipart::{FlowStatsRequest, ReplyBody, RequestBody};
use caregate_protocol::openflow::{
    Command, ControllerRole, FragmentHandling, Hello, Instruction, Match, MultipartReply, MultipartRequest,
    NO_BUFFER, PacketOut, RemovedReason, Role, SwitchConfig, Versions, flags, port,
};
use proptest::prelude::*;

use super::*;

mod figures;
mod session;

fn at(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn helper_port(number: u32, role: PortRole) -> datapath::Port {
    let (name, mode) = match role {
        PortRole::Sensor => (format!("sensor{number}"), Mode::Native),
        PortRole::Uplink => (format!("up{number}"), Mode::Egress),
        PortRole::Switch => (format!("lan{number}"), Mode::Native),
    };
    datapath::Port { number, name, mac: [2, 0, 0, 0, 1, 1], role, mode, up: true }
}

/// Two sensor ports and an uplink.
fn welcome() -> Welcome {
    let ports = vec![
        helper_port(1, PortRole::Sensor),
        helper_port(2, PortRole::Sensor),
        helper_port(3, PortRole::Uplink),
    ];
    Welcome { version: datapath::VERSION, queues: 8, ports }
}

fn settings() -> Settings {
    Settings { datapath_id: 0xc0ffee, name: "gateway-1".to_owned(), version: "0.1.0" }
}

/// What the controller hears, and all else that is to be done.
#[derive(Debug, Default, PartialEq)]
struct Done {
    sent: Vec<(u32, Message)>,
    rest: Vec<Action>,
}

impl Done {
    fn of(actions: Vec<Action>) -> Self {
        let mut done = Self::default();
        for action in actions {
            if let Action::Send(bytes) = action {
                done.sent.push(Message::decode(&bytes).unwrap());
            } else {
                done.rest.push(action);
            }
        }
        done
    }

    /// The errors that were sent, under their ids.
    fn errors(&self) -> Vec<(u32, &'static str)> {
        let error = |(xid, message): &(u32, Message)| {
            if let Message::Error(error) = message { Some((*xid, error.kind.as_str())) } else { None }
        };
        self.sent.iter().filter_map(error).collect()
    }

    fn rules(&self) -> Option<Vec<Rule>> {
        let installs = self.rest.iter().filter_map(|action| {
            if let Action::Install { rules, .. } = action { Some(rules.clone()) } else { None }
        });
        let installs: Vec<_> = installs.collect();
        assert!(installs.len() <= 1);
        installs.into_iter().next()
    }
}

struct Bench {
    agent: Agent,
    now: Duration,
}

impl Bench {
    fn new(kept: &[openflow::FlowMod]) -> Self {
        let (agent, actions, lost) = Agent::new(settings(), &welcome(), kept, at(0));
        let mut bench = Self { agent, now: at(0) };
        assert_eq!((lost, Done::of(actions).rules().unwrap().len()), (0, kept.len()));
        assert!(bench.agent.is_waiting());
        assert_eq!(bench.installed(Ok(())), Done::default());
        bench
    }

    /// With a controller that has said hello.
    fn open() -> Self {
        let mut bench = Self::new(&[]);
        bench.greet();
        bench
    }

    fn greet(&mut self) {
        let hello = Done::of(self.agent.handle_connected(self.now));
        assert_eq!(hello.sent, [(1, Message::Hello(Hello::ours()))]);
        let done = self.give(90, &Message::Hello(Hello::ours()));
        assert_eq!((done.sent, done.rest), (vec![], vec![Action::Established]));
    }

    fn give(&mut self, xid: u32, message: &Message) -> Done {
        assert!(!self.agent.is_waiting(), "the shell gives no frame now");
        Done::of(self.agent.handle_frame(&message.encode(xid).unwrap(), self.now))
    }

    fn flush(&mut self) -> Done {
        Done::of(self.agent.flush())
    }

    fn installed(&mut self, result: Result<(), HelperRefused>) -> Done {
        Done::of(self.agent.handle_installed(result, self.now))
    }

    fn counted(&mut self, frames: u64) -> Done {
        let traffic = datapath::Traffic { frames, bytes: 100 * frames };
        let rules = self.agent.flows().iter().map(|flow| RuleCounters { id: flow.id.0, traffic }).collect();
        Done::of(self.agent.handle_counters(Ok(Counters { rules, ..Counters::default() }), self.now))
    }

    fn flow_mod(&mut self, xid: u32, change: openflow::FlowMod) -> Done {
        self.give(xid, &Message::FlowMod(change))
    }

    /// Adds a flow and has it installed.
    fn add(&mut self, change: openflow::FlowMod) {
        assert_eq!(self.flow_mod(7, change), Done::default());
        assert!(self.flush().rules().is_some());
        assert_eq!(self.installed(Ok(())), Done::default());
    }
}

fn quarantine(last: u8) -> openflow::FlowMod {
    openflow::FlowMod {
        cookie: u64::from(last),
        flags: flags::SEND_FLOW_REM,
        pattern: Match::any().eth_src([2, 0, 0, 0, 0, last]),
        ..openflow::FlowMod::new(Command::Add, 1, 100)
    }
}

fn with_actions(pattern: Match, actions: Vec<openflow::Action>) -> openflow::FlowMod {
    let instructions = vec![Instruction::ApplyActions(actions)];
    openflow::FlowMod { pattern, instructions, ..openflow::FlowMod::new(Command::Add, 1, 50) }
}

fn ask(body: RequestBody) -> Message {
    Message::MultipartRequest(body.into())
}

#[test]
fn a_barrier_is_answered_when_the_helper_has_confirmed_and_not_before() {
    let mut bench = Bench::open();
    assert_eq!(bench.flow_mod(1, quarantine(1)), Done::default());
    assert_eq!(bench.flow_mod(2, quarantine(2)), Done::default());
    let asked = bench.give(3, &Message::BarrierRequest);
    assert_eq!((asked.sent.len(), asked.rules().unwrap().len()), (0, 2), "both together");
    assert!(bench.agent.is_waiting());
    let confirmed = bench.installed(Ok(()));
    assert_eq!((confirmed.sent, confirmed.rest), (vec![(3, Message::BarrierReply)], vec![]));
    assert!(!bench.agent.is_waiting());
    let at_once = bench.give(4, &Message::BarrierRequest);
    assert_eq!(at_once.sent, [(4, Message::BarrierReply)], "nothing is outstanding");
}

#[test]
fn without_a_barrier_flows_are_installed_when_no_frame_follows() {
    let mut bench = Bench::open();
    bench.flow_mod(1, quarantine(1));
    let rules = bench.flush().rules().unwrap();
    assert_eq!(rules[0].treatment.output, datapath::Output::Drop);
    assert_eq!(bench.flush(), Done::default(), "once");
    assert!(bench.agent.is_waiting());
    bench.installed(Ok(()));
    for last in 2..=63 {
        assert_eq!(bench.flow_mod(u32::from(last), quarantine(last)), Done::default());
    }
    bench.flow_mod(64, openflow::FlowMod { cookie: 9, ..quarantine(1) });
    assert_eq!(
        bench.flow_mod(65, openflow::FlowMod { cookie: 9, ..quarantine(2) }).rules().unwrap().len(),
        63
    );
}

#[test]
fn what_the_helper_refuses_is_told_to_each_and_undone() {
    let mut bench = Bench::open();
    bench.add(quarantine(1));
    bench.flow_mod(1, quarantine(2));
    bench.flow_mod(2, openflow::FlowMod { command: Command::Delete, ..quarantine(1) });
    bench.give(3, &Message::BarrierRequest);
    let done = bench.installed(Err(HelperRefused));
    assert_eq!(done.errors(), [(1, "OFPFMFC_UNKNOWN"), (2, "OFPFMFC_UNKNOWN")]);
    assert_eq!(
        done.sent.last(),
        Some(&(3, Message::BarrierReply)),
        "after the errors of what came before it"
    );
    let kept =
        |action: &Action| matches!(action, Action::Keep(flows) if flows.len() == 1 && flows[0].cookie == 1);
    assert!(done.rest.iter().any(kept), "{:?}", done.rest);
    assert_eq!(bench.agent.flows().len(), 1);
    assert!(!done.sent.iter().any(|(_, message)| matches!(message, Message::FlowRemoved(_))), "it stayed");
}

#[test]
fn table_0_mirrors_and_sensor_ports_are_refused() {
    let mut bench = Bench::open();
    for command in [Command::Add, Command::Modify, Command::Delete] {
        let change = openflow::FlowMod { command, table_id: 0, ..quarantine(1) };
        assert_eq!(bench.flow_mod(5, change).errors(), [(5, "OFPBRC_EPERM")], "{command:?}");
    }
    // Whatever else is wrong with it.
    let nonsense =
        openflow::FlowMod { instructions: vec![Instruction::Meter(1)], table_id: 0, ..quarantine(1) };
    assert_eq!(bench.flow_mod(5, nonsense).errors(), [(5, "OFPBRC_EPERM")]);
    for number in [2, 3, port::CONTROLLER, port::NORMAL, port::FLOOD, port::ALL, port::IN_PORT] {
        for pattern in [Match::any().in_port(1), Match::any(), Match::any().eth_src([2, 0, 0, 0, 0, 1])] {
            let mirror = vec![openflow::Action::output(port::LOCAL), openflow::Action::output(number)];
            let done = bench.flow_mod(6, with_actions(pattern, mirror));
            assert_eq!(done.errors(), [(6, "OFPBAC_EPERM")], "{number:#x}");
        }
    }
    let packet = |number| PacketOut {
        buffer_id: NO_BUFFER,
        in_port: port::CONTROLLER,
        actions: vec![openflow::Action::output(number)],
        data: vec![2; 60],
    };
    for number in [1, 2, port::FLOOD, port::ALL] {
        let done = bench.give(7, &Message::PacketOut(packet(number)));
        assert_eq!(done.errors(), [(7, "OFPBRC_EPERM")], "{number:#x}");
    }
    for in_port in [1, 2] {
        let done = bench.give(8, &Message::PacketOut(PacketOut { in_port, ..packet(3) }));
        assert_eq!(done.errors(), [(8, "OFPBRC_EPERM")], "as if a sensor had sent it");
    }
    assert_eq!(bench.flush(), Done::default(), "nothing of it changed anything");
}

#[test]
fn packet_outs_leave_by_uplinks_and_a_barrier_waits_for_them() {
    let mut bench = Bench::open();
    let packet = PacketOut {
        buffer_id: NO_BUFFER,
        in_port: port::CONTROLLER,
        actions: vec![openflow::Action::output(3)],
        data: vec![2; 60],
    };
    let done = bench.give(1, &Message::PacketOut(packet.clone()));
    assert_eq!(done.rest, [Action::PacketOut { ticket: 1, port: 3, frame: vec![2; 60] }]);
    assert_eq!(bench.give(2, &Message::BarrierRequest), Done::default());
    assert!(bench.agent.is_waiting());
    let sent = Done::of(bench.agent.handle_packet_out(1, Ok(()), at(0)));
    assert_eq!(sent.sent, [(2, Message::BarrierReply)]);
    bench.give(3, &Message::PacketOut(packet.clone()));
    let refused = Done::of(bench.agent.handle_packet_out(2, Err(HelperRefused), at(0)));
    assert_eq!(refused.errors(), [(3, "OFPBRC_BAD_PORT")]);
    for (wrong, code) in [
        (PacketOut { buffer_id: 4, ..packet.clone() }, "OFPBRC_BUFFER_UNKNOWN"),
        (PacketOut { data: vec![2; 13], ..packet.clone() }, "OFPBRC_BAD_PACKET"),
        (PacketOut { data: vec![2; 1537], ..packet.clone() }, "OFPBRC_BAD_PACKET"),
        (PacketOut { actions: vec![openflow::Action::output(9)], ..packet.clone() }, "OFPBRC_BAD_PORT"),
        (PacketOut { actions: vec![openflow::Action::Group(9)], ..packet.clone() }, "OFPBAC_BAD_TYPE"),
        (PacketOut { actions: vec![openflow::Action::output(3); 17], ..packet.clone() }, "OFPBAC_TOO_MANY"),
    ] {
        assert_eq!(bench.give(4, &Message::PacketOut(wrong)).errors(), [(4, code)]);
    }
    for _ in 0..PACKET_OUTS_MAX {
        bench.give(5, &Message::PacketOut(packet.clone()));
    }
    assert!(bench.agent.is_waiting(), "until the helper has sent some");
}

#[test]
fn a_deleted_flow_is_reported_once_it_is_gone() {
    let mut bench = Bench::open();
    bench.add(quarantine(1));
    let delete =
        openflow::FlowMod { command: Command::Delete, ..openflow::FlowMod::new(Command::Delete, 0xff, 0) };
    assert_eq!(bench.flow_mod(5, delete), Done::default());
    assert_eq!(bench.give(6, &Message::BarrierRequest).rules().unwrap(), []);
    let sent = bench.installed(Ok(())).sent;
    assert!(matches!(&sent[..], [(0, Message::FlowRemoved(_)), (6, Message::BarrierReply)]), "{sent:?}");
}

#[test]
fn flows_stay_without_a_controller_and_over_a_restart() {
    let mut bench = Bench::open();
    bench.add(quarantine(1));
    bench.flow_mod(2, quarantine(2));
    let Some(Action::Install { flows, rules }) = bench.flush().rest.pop() else { panic!() };
    bench.agent.handle_disconnected();
    assert_eq!(bench.installed(Ok(())), Done::default(), "nobody is told");
    assert_eq!((bench.agent.flows().len(), bench.agent.next_timeout()), (2, None));
    bench.greet();
    let again = Bench::new(&flows);
    let (mut kept, mut was): (Vec<_>, Vec<_>) =
        (again.agent.flows().iter().map(translate::rule).collect(), rules);
    for (rule, id) in kept.iter_mut().chain(&mut was).zip((0..2).cycle()) {
        rule.id = id;
    }
    assert_eq!(kept, was, "the same table, in the same order");
    let bad = openflow::FlowMod { table_id: 0, ..quarantine(3) };
    let (agent, _, lost) = Agent::new(settings(), &welcome(), &[flows, vec![bad]].concat(), at(0));
    assert_eq!((agent.flows().len(), lost), (2, 1));
}

#[test]
fn what_a_controller_left_undone_is_done_and_told_to_no_other() {
    let mut bench = Bench::open();
    bench.flow_mod(1, quarantine(1));
    bench.agent.handle_disconnected();
    bench.greet();
    assert_eq!(bench.flow_mod(2, openflow::FlowMod { table_id: 0, ..quarantine(9) }).errors().len(), 1);
    assert_eq!(bench.flush().rules().unwrap().len(), 1, "a refusal in between takes nothing of it away");
    assert_eq!(bench.installed(Err(HelperRefused)).errors(), [], "the xid was another connection's");

    let packet = PacketOut {
        buffer_id: NO_BUFFER,
        in_port: port::CONTROLLER,
        actions: vec![openflow::Action::output(3)],
        data: vec![2; 60],
    };
    for _ in 0..PACKET_OUTS_MAX - 1 {
        bench.give(3, &Message::PacketOut(packet.clone()));
    }
    bench.agent.handle_disconnected();
    bench.greet();
    bench.give(3, &Message::PacketOut(packet));
    assert!(bench.agent.is_waiting(), "bounded over connections");
    let refused = Done::of(bench.agent.handle_packet_out(1, Err(HelperRefused), at(0)));
    assert_eq!((refused.errors(), refused.rest), (vec![], vec![Action::Refused("helper")]));
}

#[test]
fn without_the_helper_nothing_is_promised_and_with_it_all_is_installed_again() {
    let mut bench = Bench::open();
    bench.add(openflow::FlowMod { idle_timeout_s: 1, ..quarantine(1) });
    bench.flow_mod(1, quarantine(2));
    bench.give(2, &Message::BarrierRequest);
    let lost = Done::of(bench.agent.handle_helper_lost(at(1)));
    assert_eq!(lost.errors(), [(1, "OFPFMFC_UNKNOWN")]);
    assert_eq!(lost.sent.last(), Some(&(2, Message::BarrierReply)));
    bench.now = at(3);
    assert_eq!(bench.flow_mod(3, quarantine(3)).errors(), [(3, "OFPFMFC_UNKNOWN")]);
    let mut flows = bench.give(4, &ask(RequestBody::Flow(FlowStatsRequest::all()))).sent;
    assert!(matches!(flows.pop(), Some((4, Message::MultipartReply(_)))), "by the last counters");
    assert_eq!(bench.agent.next_timeout(), Some(at(13)), "its echo alone: no flow can time out now");
    let back = Done::of(bench.agent.handle_helper(&welcome(), at(3)));
    assert_eq!(back.rules().unwrap().len(), 1);
    bench.installed(Ok(()));

    // With other ports, what means nothing with them goes, and the controller hears of both.
    let local = with_actions(Match::any().in_port(2), vec![openflow::Action::output(port::LOCAL)]);
    bench.add(openflow::FlowMod { flags: flags::SEND_FLOW_REM, ..local });
    let mut fewer = welcome();
    fewer.ports = vec![helper_port(1, PortRole::Sensor), helper_port(2, PortRole::Uplink)];
    let back = Done::of(bench.agent.handle_helper(&fewer, at(4)));
    let told = |(_, message): &(u32, Message)| {
        if let Message::PortStatus(status) = message {
            Some((status.reason, status.port.number))
        } else {
            None
        }
    };
    let told: Vec<_> = back.sent.iter().filter_map(told).collect();
    assert_eq!(told, [(PortReason::Modify, 2), (PortReason::Delete, 3)]);
    assert_eq!(back.rules().unwrap().len(), 1);
    let done = bench.installed(Ok(()));
    assert!(matches!(&done.sent[..], [(0, Message::FlowRemoved(_))]), "{done:?}");
}

#[test]
fn a_frame_of_the_gateways_own_reaches_the_controller_and_a_sensors_never() {
    let mut bench = Bench::open();
    bench.add(quarantine(1));
    let lldp = Match::any().in_port(port::LOCAL).eth_type(0x88cc);
    let to_controller = openflow::Action::Output { port: port::CONTROLLER, max_len: 128 };
    bench.add(openflow::FlowMod { cookie: 77, ..with_actions(lldp, vec![to_controller]) });
    let id = |cookie| bench.agent.flows().iter().find(|flow| flow.cookie == cookie).unwrap().id.0;
    let (sensor, own) = (id(1), id(77));
    let done = Done::of(bench.agent.handle_packet_in(own, 200, vec![9; 128], at(1)));
    let [(0, Message::PacketIn(packet))] = &done.sent[..] else { panic!("{done:?}") };
    assert_eq!((packet.cookie, packet.total_len, packet.data.len()), (77, 200, 128));
    assert_eq!(packet.pattern, Match::any().in_port(port::LOCAL));
    for rule in [sensor, 999] {
        let done = Done::of(bench.agent.handle_packet_in(rule, 60, vec![9; 60], at(1)));
        assert_eq!((done.sent, done.rest), (vec![], vec![Action::Refused("packet-in-rule")]));
    }
    let mut sent = 0;
    for _ in 0..1000 {
        sent += Done::of(bench.agent.handle_packet_in(own, 60, vec![9; 60], at(1))).sent.len();
    }
    assert_eq!(sent, PACKET_INS_PER_S as usize - 1, "bounded");
    let later = Done::of(bench.agent.handle_packet_in(own, 60, vec![9; 60], at(2)));
    assert_eq!(later.sent.len(), 1);
}

proptest! {
    /// Whatever a controller sends in whatever order: no panic, the table within its bound, every rule for sensors one that only
    /// narrows, and whenever the helper answers the agent waits no more.
    #[test]
    fn any_frames(frames in proptest::collection::vec(
        (0u8..32, proptest::collection::vec(any::<u8>(), 0..120), any::<bool>()), 0..60,
    )) {
        let mut bench = Bench::open();
        for (second, (number, body, helper)) in (0u64..).zip(frames) {
            bench.now = at(second);
            let length = u8::try_from(8 + body.len()).unwrap();
            let frame = [vec![4, number, 0, length, 0, 0, 0, 1], body].concat();
            let mut actions = bench.agent.handle_frame(&frame, bench.now);
            actions.extend(bench.agent.flush());
            while let Some(action) = actions.pop() {
                let result = if helper { Ok(()) } else { Err(HelperRefused) };
                actions.extend(match action {
                    Action::Install { rules, .. } => {
                        prop_assert!(rules.len() <= 64);
                        bench.agent.handle_installed(result, bench.now)
                    }
                    Action::PacketOut { ticket, port, .. } => {
                        prop_assert_eq!(port, 3);
                        bench.agent.handle_packet_out(ticket, result, bench.now)
                    }
                    Action::ReadCounters => {
                        bench.agent.handle_counters(result.map(|()| Counters::default()), bench.now)
                    }
                    Action::Send(_)
                    | Action::Keep(_)
                    | Action::Established
                    | Action::Refused(_)
                    | Action::Close(_) => Vec::new(),
                });
            }
            prop_assert!(!bench.agent.is_waiting());
        }
    }
}
