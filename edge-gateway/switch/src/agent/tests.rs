//! The agent against a scripted controller and a scripted helper.

use std::collections::BTreeMap;

use caregate_protocol::datapath::switch::{FlowCounters, FlowEntry, FlowInstructions, SwitchCounters};
use caregate_protocol::datapath::{Mode, Role as PortRole};
use caregate_protocol::openflow::multipart::{FlowStatsRequest, ReplyBody, RequestBody};
use caregate_protocol::openflow::{
    self, AsyncConfig, Command, ControllerRole, FragmentHandling, Hello, Instruction, Match, MultipartReply,
    MultipartRequest, NO_BUFFER, PacketOut, RemovedReason, Role, SwitchConfig, Versions, flags, port,
};
use proptest::prelude::*;

use super::super::flow::Flow;
use super::*;

mod figures;
mod messages;
mod packets;
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

/// Two sensor ports, an uplink and a port of the switch.
fn welcome() -> Welcome {
    let ports = vec![
        helper_port(1, PortRole::Sensor),
        helper_port(2, PortRole::Sensor),
        helper_port(3, PortRole::Uplink),
        helper_port(4, PortRole::Switch),
    ];
    Welcome { version: datapath::VERSION, queues: 8, ports }
}

fn settings() -> Settings {
    Settings { datapath_id: 0xc0ffee, name: "gateway-1".to_owned(), version: "0.1.0", guard: Guard::On }
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

    /// What the helper is told before the rest of its batch: of each part, how many were told before, and how many changes it has.
    fn prepared(&self) -> Vec<(u32, usize)> {
        let part = |action: &Action| {
            let Action::Prepare { part, changes } = action else { return None };
            Some((part.before, changes.len()))
        };
        self.rest.iter().filter_map(part).collect()
    }

    /// What the helper is told, and whether it is kept first.
    fn install(&self) -> Option<(&[Change], bool)> {
        let installs = self.rest.iter().filter_map(|action| {
            let Action::Install { kept, changes, .. } = action else { return None };
            Some((&changes[..], kept.is_some()))
        });
        let installs: Vec<_> = installs.collect();
        assert!(installs.len() <= 1);
        installs.into_iter().next()
    }

    /// The ids of flows that the helper is told to put and to remove.
    fn puts_and_removes(&self) -> (usize, usize) {
        let changes = self.install().unwrap_or_else(|| panic!("nothing is installed: {self:?}")).0;
        let puts = changes.iter().filter(|change| matches!(change, Change::PutFlow(_))).count();
        (puts, changes.iter().filter(|change| matches!(change, Change::RemoveFlow(_))).count())
    }
}

/// What a helper has that took these changes.
fn flows_of(changes: &[Change]) -> Vec<FlowEntry> {
    let mut flows = BTreeMap::new();
    for change in changes {
        match change {
            Change::PutFlow(flow) => drop(flows.insert(flow.id, flow.clone())),
            Change::RemoveFlow(id) => drop(flows.remove(id)),
            Change::Clear => flows.clear(),
            Change::PutGroup(_) | Change::RemoveGroup(_) | Change::PutMeter(_) | Change::RemoveMeter(_) => {}
        }
    }
    flows.into_values().collect()
}

struct Bench {
    agent: Agent,
    now: Duration,
}

impl Bench {
    fn new(kept: &Kept) -> Self {
        let (agent, actions, lost) = Agent::new(settings(), &welcome(), kept, at(0));
        let mut bench = Self { agent, now: at(0) };
        let done = Done::of(actions);
        let (changes, is_kept) = done.install().unwrap();
        assert_eq!((lost, changes.len(), is_kept), (0, 1 + kept.len(), true));
        assert!(bench.agent.is_waiting());
        assert_eq!(bench.installed(Ok(())), Done::default());
        bench
    }

    /// With a controller that has said hello.
    fn open() -> Self {
        let mut bench = Self::new(&Kept::default());
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

    /// Nothing comes for a while.
    fn flush(&mut self) -> Done {
        self.now += FLUSH_IDLE;
        Done::of(self.agent.handle_timeout(self.now))
    }

    fn installed(&mut self, result: Result<(), HelperRefused>) -> Done {
        Done::of(self.agent.handle_installed(result, self.now))
    }

    /// Each flow has matched so many frames of 100 bytes.
    fn counted(&mut self, frames: u64) -> Done {
        let traffic = datapath::Traffic { frames, bytes: 100 * frames };
        let flows = self.flows().map(|flow| FlowCounters { id: flow.id.0, traffic }).collect();
        let switch = SwitchCounters { flows, ..SwitchCounters::default() };
        let readings = Readings { switch, ..Readings::default() };
        Done::of(self.agent.handle_counters(Ok(readings), self.now))
    }

    fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.agent.tables().flows().iter()
    }

    fn len(&self) -> usize {
        self.agent.tables().flows().len()
    }

    fn flow_mod(&mut self, xid: u32, change: openflow::FlowMod) -> Done {
        self.give(xid, &Message::FlowMod(change))
    }

    /// Adds a flow and has it installed.
    fn add(&mut self, change: openflow::FlowMod) {
        assert_eq!(self.flow_mod(7, change), Done::default());
        assert!(self.flush().install().is_some());
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
    assert_eq!((asked.sent.len(), asked.puts_and_removes()), (0, (2, 0)), "both together");
    assert!(bench.agent.is_waiting());
    let confirmed = bench.installed(Ok(()));
    assert_eq!((confirmed.sent, confirmed.rest), (vec![(3, Message::BarrierReply)], vec![]));
    assert!(!bench.agent.is_waiting());
    let at_once = bench.give(4, &Message::BarrierRequest);
    assert_eq!(at_once.sent, [(4, Message::BarrierReply)], "nothing is outstanding");
}

#[test]
fn without_a_barrier_flows_are_installed_when_nothing_follows() {
    let mut bench = Bench::open();
    bench.flow_mod(1, quarantine(1));
    assert_eq!(bench.agent.next_timeout(), Some(FLUSH_IDLE));
    assert_eq!(Done::of(bench.agent.handle_timeout(FLUSH_IDLE / 2)), Done::default());
    let done = bench.flush();
    assert_eq!(flows_of(done.install().unwrap().0)[0].instructions.as_ref(), &FlowInstructions::default());
    assert_eq!(bench.flush(), Done::default(), "once");
    assert!(bench.agent.is_waiting());
    bench.installed(Ok(()));

    // A controller that goes on writing waits no longer than this.
    let begun = bench.now;
    while bench.now < begun + FLUSH_MAX {
        assert_eq!(bench.flow_mod(2, quarantine(2)), Done::default());
        assert_eq!(Done::of(bench.agent.handle_timeout(bench.now)), Done::default());
        bench.now += FLUSH_IDLE / 2;
    }
    assert_eq!(Done::of(bench.agent.handle_timeout(bench.now)).puts_and_removes(), (1, 0));
    bench.installed(Ok(()));
    for n in 1..BATCH_MAX {
        assert_eq!(bench.flow_mod(n.try_into().unwrap(), quarantine(3)), Done::default());
    }
    assert_eq!(bench.flow_mod(0, quarantine(3)).puts_and_removes(), (1, 0), "as many as may be told");
}

#[test]
fn what_decides_over_sensors_is_on_disk_before_it_is_in_force_and_other_flows_later() {
    let mut bench = Bench::open();
    let lan =
        |n: u8| with_actions(Match::any().in_port(4).eth_src([n; 6]), vec![openflow::Action::output(3)]);
    bench.flow_mod(1, lan(2));
    let done = bench.flush();
    assert!(matches!(done.install(), Some((_, false))));
    bench.installed(Ok(()));
    let due = bench.now + KEEP_INTERVAL;
    bench.add(lan(4));
    bench.now = due - at(1);
    let is_keep = |action: &Action| matches!(action, Action::Keep(kept) if kept.flows.len() == 2);
    assert!(!Done::of(bench.agent.handle_timeout(bench.now)).rest.iter().any(is_keep));
    assert!(Done::of(bench.agent.handle_timeout(due)).rest.iter().any(is_keep), "since the first of them");
    assert_eq!(bench.agent.handle_shutdown(), [], "once");

    bench.add(lan(6));
    bench.flow_mod(1, quarantine(1));
    let done = bench.flush();
    let Some(Action::Install { kept: Some(kept), changes, .. }) = done.rest.last() else {
        panic!("{done:?}")
    };
    assert_eq!((kept.flows.len(), changes.len()), (4, 1), "with all that there is");
    bench.installed(Ok(()));
    assert_eq!(bench.agent.handle_shutdown(), []);
    // A sensor that is let go is so after a restart, too.
    bench.flow_mod(1, openflow::FlowMod { command: Command::Delete, ..quarantine(1) });
    assert!(matches!(bench.flush().install(), Some((_, true))));
    bench.installed(Ok(()));
    bench.add(lan(8));
    assert!(matches!(&bench.agent.handle_shutdown()[..], [Action::Keep(kept)] if kept.flows.len() == 4));
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
    let kept = |action: &Action| matches!(action, Action::Keep(kept) if kept.len() == 1 && kept.flows[0].cookie == 1);
    assert!(done.rest.iter().any(kept), "{:?}", done.rest);
    assert_eq!(bench.len(), 1);
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
    assert_eq!(bench.flush(), Done::default(), "nothing of it changed anything");
}

#[test]
fn a_deleted_flow_is_reported_once_it_is_gone() {
    let mut bench = Bench::open();
    bench.add(quarantine(1));
    let delete =
        openflow::FlowMod { command: Command::Delete, ..openflow::FlowMod::new(Command::Delete, 0xff, 0) };
    assert_eq!(bench.flow_mod(5, delete), Done::default());
    assert_eq!(bench.give(6, &Message::BarrierRequest).puts_and_removes(), (0, 1));
    let sent = bench.installed(Ok(())).sent;
    assert!(matches!(&sent[..], [(0, Message::FlowRemoved(_)), (6, Message::BarrierReply)]), "{sent:?}");
}

#[test]
fn flows_stay_without_a_controller_and_over_a_restart() {
    let mut bench = Bench::open();
    bench.add(quarantine(1));
    bench.flow_mod(2, quarantine(2));
    let Some(Action::Install { kept: Some(kept), .. }) = bench.flush().rest.pop() else { panic!() };
    bench.agent.handle_disconnected();
    assert_eq!(bench.installed(Ok(())), Done::default(), "nobody is told");
    assert_eq!((bench.len(), bench.agent.next_timeout()), (2, None));
    bench.greet();
    let again = Bench::new(&kept);
    assert_eq!(again.agent.tables().kept(), bench.agent.tables().kept(), "in the same order");
    let bad = openflow::FlowMod { table_id: 0, ..quarantine(3) };
    let more = Kept { flows: [kept.flows, vec![bad]].concat(), ..Kept::default() };
    let (agent, _, lost) = Agent::new(settings(), &welcome(), &more, at(0));
    assert_eq!((agent.tables().flows().len(), lost), (2, 1));
}

#[test]
fn what_a_controller_left_undone_is_done_and_told_to_no_other() {
    let mut bench = Bench::open();
    bench.flow_mod(1, quarantine(1));
    bench.agent.handle_disconnected();
    bench.greet();
    assert_eq!(bench.flow_mod(2, openflow::FlowMod { table_id: 0, ..quarantine(9) }).errors().len(), 1);
    assert_eq!(bench.flush().puts_and_removes(), (1, 0), "a refusal in between takes nothing of it away");
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
fn without_the_helper_nothing_is_promised_and_with_it_all_is_as_it_was() {
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
    // What it had to confirm may have reached it all the same, now or when it came back: it is told what there is.
    let back = Done::of(bench.agent.handle_helper(&welcome(), at(3)));
    let (changes, is_kept) = back.install().unwrap();
    assert_eq!((changes.first(), is_kept), (Some(&Change::Clear), false));
    assert_eq!(flows_of(changes).len(), 1, "and not what was taken back");
    assert_eq!(bench.installed(Err(HelperRefused)).errors(), []);
    bench.flow_mod(5, quarantine(3));
    let (changes, _) = bench.flush().install().map(|(changes, kept)| (changes.to_vec(), kept)).unwrap();
    assert_eq!(
        (changes.first(), flows_of(&changes).len()),
        (Some(&Change::Clear), 2),
        "until it has confirmed that"
    );
    assert_eq!(bench.installed(Ok(())), Done::default());
    bench.flow_mod(6, openflow::FlowMod { command: Command::Delete, ..quarantine(3) });
    assert_eq!(bench.flush().puts_and_removes(), (0, 1), "what changes, from then on");
    bench.installed(Ok(()));
    // Where nothing was under way its client has told it.
    assert_eq!(Done::of(bench.agent.handle_helper_lost(bench.now)), Done::default());
    assert_eq!(Done::of(bench.agent.handle_helper(&welcome(), bench.now)), Done::default());

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
    assert_eq!(told, [(PortReason::Modify, 2), (PortReason::Delete, 3), (PortReason::Delete, 4)]);
    assert_eq!(back.puts_and_removes(), (0, 1));
    let done = bench.installed(Ok(()));
    assert!(matches!(&done.sent[..], [(0, Message::FlowRemoved(_))]), "{done:?}");
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
            actions.extend(bench.agent.handle_timeout(bench.now + FLUSH_IDLE));
            while let Some(action) = actions.pop() {
                let result = if helper { Ok(()) } else { Err(HelperRefused) };
                actions.extend(match action {
                    Action::Install { .. } => {
                        prop_assert!(bench.len() <= 4096);
                        bench.agent.handle_installed(result, bench.now)
                    }
                    Action::PacketOut { ticket, packet } => {
                        prop_assert!(packet.port == 3 || packet.port == 4);
                        bench.agent.handle_packet_out(ticket, result, bench.now)
                    }
                    Action::ReadCounters => {
                        bench.agent.handle_counters(result.map(|()| Readings::default()), bench.now)
                    }
                    Action::Send(_)
                    | Action::Prepare { .. }
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
