//! A frame's way through tables, action lists, the action set and groups (§5.1, §5.6, §5.9 to §5.12).

use caregate_protocol::datapath::switch::{FlowAction, GroupBucket, GroupEntry, GroupKind, TABLES};
use caregate_protocol::datapath::{PACKET_BYTES_MAX, PACKET_BYTES_MIN, Role};
use caregate_protocol::openflow::{PacketInReason, port};

use super::packet::{Packet, Unfit};
use super::set::{ActionSet, op_of};
use super::{
    Frame, GROUP_DEPTH_MAX, Made, NO_COOKIE, OUTPUTS_MAX, PacketIn, PortView, STEPS_MAX, View, WHOLE,
};

/// On whose behalf actions are carried out.
#[derive(Debug, Clone, Copy)]
struct Origin {
    table: u8,
    cookie: u64,
    reason: PacketInReason,
    /// `TABLE` is for packet-outs alone (§7.2.5).
    may_enter_tables: bool,
}

/// The frame is dropped; what was sent before stays sent.
#[derive(Debug)]
struct Dropped;

type Step = Result<(), Dropped>;

/// One frame on its way.
pub(super) struct Run<'a, V> {
    view: &'a V,
    frame: Frame<'a>,
    /// The stack's copy is one of those that were made.
    is_handed: bool,
    steps: usize,
    pub(super) made: Vec<Made>,
}

impl<'a, V: View> Run<'a, V> {
    pub(super) fn new(view: &'a V, frame: Frame<'a>) -> Self {
        Self { view, frame, is_handed: false, steps: 0, made: Vec::new() }
    }

    /// The actions of a packet-out (§7.3.7).
    pub(super) fn packet_out(&mut self, mut packet: Packet<'a>, actions: &[FlowAction]) {
        let reason = PacketInReason::Action;
        let origin = Origin { table: 0, cookie: NO_COOKIE, reason, may_enter_tables: true };
        // Whether it was dropped is nobody's to know.
        drop(self.list(&mut packet, actions, &origin, 0));
    }

    /// From the first table on.
    pub(super) fn pipeline(&mut self, packet: Packet<'a>) {
        drop(self.tables(packet));
    }

    fn tables(&mut self, mut packet: Packet<'a>) -> Step {
        let (view, mut set) = (self.view, ActionSet::default());
        let mut table = view.first_table();
        let last = loop {
            if table >= self.frame.before {
                return Err(Dropped);
            }
            // No flow, and no table-miss entry (§5.4).
            let found = view.lookup(table, packet.key()).ok_or(Dropped)?;
            let reason = if found.is_table_miss { PacketInReason::NoMatch } else { PacketInReason::Action };
            let origin = Origin { table, cookie: found.cookie, reason, may_enter_tables: false };
            let instructions = found.instructions;
            if let Some(steps @ 1..) = self.frame.remarks.get(usize::from(table)) {
                packet.remark(*steps);
            }
            self.list(&mut packet, &instructions.apply, &origin, 0)?;
            if instructions.clear {
                set.clear();
            }
            set.write(&instructions.write);
            if let Some((value, mask)) = instructions.metadata {
                packet.write_metadata(value, mask);
            }
            match instructions.goto {
                Some(next) if next > table && next < TABLES => table = next,
                _ => break origin,
            }
        };
        self.list(&mut packet, &set.ordered(), &last, 0)
    }

    fn list(
        &mut self,
        packet: &mut Packet<'a>,
        actions: &[FlowAction],
        origin: &Origin,
        depth: usize,
    ) -> Step {
        for action in actions {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                self.leave_out("steps");
                return Err(Dropped);
            }
            if let FlowAction::Output { port, max_len } = *action {
                self.output(packet, port, max_len, origin);
            } else if let FlowAction::Group(id) = *action {
                self.group(packet, id, origin, depth);
            } else if let FlowAction::SetQueue(queue) = *action {
                packet.queue = queue;
            } else {
                self.edit(packet, action, origin)?;
            }
        }
        Ok(())
    }

    fn edit(&mut self, packet: &mut Packet<'a>, action: &FlowAction, origin: &Origin) -> Step {
        match packet.edit(&op_of(action)) {
            Ok(()) => return Ok(()),
            Err(Unfit::InvalidTtl) => {
                let reason = PacketInReason::InvalidTtl;
                self.packet_in(packet, WHOLE, &Origin { reason, ..*origin });
            }
            Err(Unfit::Headers) => self.leave_out("headers"),
        }
        Err(Dropped)
    }

    /// A copy of the packet, as it is now, for the group (§5.6.1).
    fn group(&mut self, packet: &Packet<'a>, id: u32, origin: &Origin, depth: usize) {
        if depth >= GROUP_DEPTH_MAX {
            return self.leave_out("group-depth");
        }
        let view = self.view;
        let Some(group) = view.group(id) else { return self.leave_out("group") };
        match group.kind {
            GroupKind::All => {
                for bucket in &group.buckets {
                    self.bucket(packet, bucket, origin, depth);
                }
            }
            GroupKind::Indirect => {
                if let Some(bucket) = group.buckets.first() {
                    self.bucket(packet, bucket, origin, depth);
                }
            }
            GroupKind::Select => {
                if let Some(bucket) = self.selected(group, packet) {
                    self.bucket(packet, bucket, origin, depth);
                }
            }
            GroupKind::FastFailover => {
                if let Some(bucket) = group.buckets.iter().find(|bucket| self.is_live(bucket, 0)) {
                    self.bucket(packet, bucket, origin, depth);
                }
            }
        }
    }

    /// A bucket's actions are an action set; where it drops the packet it drops its own copy.
    fn bucket(&mut self, packet: &Packet<'a>, bucket: &GroupBucket, origin: &Origin, depth: usize) {
        let mut set = ActionSet::default();
        set.write(&bucket.actions);
        let origin = Origin { reason: PacketInReason::Action, may_enter_tables: false, ..*origin };
        drop(self.list(&mut packet.clone(), &set.ordered(), &origin, depth + 1));
    }

    /// By weight, the same one for all frames that belong together; where it is dead, the next one that is not, around the end. As the
    /// kernel does it, which has counted it.
    fn selected<'g>(&self, group: &'g GroupEntry, packet: &Packet<'a>) -> Option<&'g GroupBucket> {
        let all: u64 = group.buckets.iter().map(|bucket| u64::from(bucket.weight)).sum();
        let place = u64::from(packet.clone().hash());
        let shares = group.buckets.iter().scan(0, |sum, bucket| {
            *sum += u64::from(bucket.weight);
            Some((bucket, (*sum << 32) / all.max(1)))
        });
        let live = || shares.clone().filter(|(bucket, _)| self.is_live(bucket, 0));
        let chosen = live().find(|(_, below)| place < *below).or_else(|| live().next());
        chosen.map(|(bucket, _)| bucket)
    }

    /// While the port or the group that it watches is (§5.6.1); what watches nothing always is.
    fn is_live(&self, bucket: &GroupBucket, depth: usize) -> bool {
        if bucket.watch_port == port::ANY && bucket.watch_group == port::ANY {
            return true;
        }
        let is_port_live = bucket.watch_port == port::LOCAL
            || self.view.port(bucket.watch_port).is_some_and(|port| port.is_live);
        is_port_live || self.is_group_live(bucket.watch_group, depth)
    }

    fn is_group_live(&self, id: u32, depth: usize) -> bool {
        let group = self.view.group(id).filter(|_| depth < GROUP_DEPTH_MAX);
        group.is_some_and(|group| group.buckets.iter().any(|bucket| self.is_live(bucket, depth + 1)))
    }

    fn output(&mut self, packet: &Packet<'a>, port: u32, max_len: u16, origin: &Origin) {
        match port {
            port::IN_PORT => self.send_in_port(packet),
            port::ALL | port::FLOOD => {
                let mut ports = self.view.ports();
                ports.retain(|port| self.is_flooded(port));
                ports.into_iter().for_each(|port| self.send(packet, port));
            }
            port::CONTROLLER => self.packet_in(packet, max_len, origin),
            port::TABLE if origin.may_enter_tables => self.pipeline(packet.clone()),
            port::LOCAL | port::NORMAL => self.hand(),
            // Back by the port that it came in by only with IN_PORT (§7.2.5).
            _ if port == self.frame.in_port => {}
            _ => match self.view.port(port) {
                Some(port) => self.send(packet, port),
                None => self.leave_out("port"),
            },
        }
    }

    /// All ports but the one that it came in by (§4.5). What came in by a port of the switch stays off the uplinks: behind them is
    /// another network, and whoever wants it there names the port.
    fn is_flooded(&self, port: &PortView) -> bool {
        let comes_from_switch =
            || self.view.port(self.frame.in_port).is_some_and(|from| from.role == Role::Switch);
        let is_meant = match port.role {
            Role::Sensor => false,
            Role::Uplink => !comes_from_switch(),
            Role::Switch => true,
        };
        is_meant && port.is_live && port.number != self.frame.in_port
    }

    fn send_in_port(&mut self, packet: &Packet<'a>) {
        match self.view.port(self.frame.in_port) {
            Some(port) => self.send(packet, port),
            None if self.frame.in_port == port::LOCAL => self.hand(),
            None => self.leave_out("port"),
        }
    }

    /// To the gateway's own stack: by the kernel, once, where it could make the copy.
    fn hand(&mut self) {
        if self.frame.is_handed && !self.is_handed {
            self.is_handed = true;
        } else {
            self.leave_out("local");
        }
    }

    /// Nothing goes to sensors: a controller can't forge what they are told.
    fn send(&mut self, packet: &Packet<'a>, port: PortView) {
        if port.role == Role::Sensor {
            self.leave_out("sensor-port");
        } else if port.no_forward {
            self.leave_out("no-forward");
        } else {
            self.emit(packet, port.number);
        }
    }

    fn emit(&mut self, packet: &Packet<'a>, port: u32) {
        if self.is_cut() {
            return self.leave_out("cut");
        }
        let frame = packet.finish();
        if (PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&frame.len()) {
            self.make(Made::Output { port, queue: packet.queue, frame });
        } else {
            self.leave_out("length");
        }
    }

    fn packet_in(&mut self, packet: &Packet<'a>, max_len: u16, origin: &Origin) {
        if self.view.port(self.frame.in_port).is_some_and(|port| port.no_packet_in) {
            return self.leave_out("no-packet-in");
        }
        let mut data = packet.finish();
        let whole = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let total_len = if self.is_cut() { whole.max(self.frame.total_len) } else { whole };
        if max_len != WHOLE {
            data.truncate(max_len.into());
        }
        let (in_port, (metadata, tunnel)) = (self.frame.in_port, packet.metadata_and_tunnel());
        let Origin { table, cookie, reason, .. } = *origin;
        let told = PacketIn { reason, table, cookie, in_port, metadata, tunnel, total_len, data };
        self.make(Made::PacketIn(told));
    }

    fn is_cut(&self) -> bool {
        self.frame.bytes.len() < usize::try_from(self.frame.total_len).unwrap_or(usize::MAX)
    }

    fn make(&mut self, made: Made) {
        if self.made.len() < OUTPUTS_MAX { self.made.push(made) } else { self.leave_out("outputs") }
    }

    /// One more than the others, so that a count of what was left out is always there.
    fn leave_out(&mut self, reason: &'static str) {
        if self.made.len() <= OUTPUTS_MAX {
            self.made.push(Made::LeftOut(reason));
        }
    }
}
