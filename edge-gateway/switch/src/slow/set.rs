//! The action set (§5.10), and actions as the kernel has them.

use caregate_ebpf_common::switch::op::{self, Op};
use caregate_protocol::datapath::switch::FlowAction;

/// One action of each kind, carried out in the standard's order at the end of the pipeline.
#[derive(Debug, Clone, Default)]
pub(super) struct ActionSet {
    /// By [`op::slot`]; at most [`op::slot::COUNT`].
    actions: Vec<(u8, FlowAction)>,
}

impl ActionSet {
    pub(super) fn clear(&mut self) {
        self.actions.clear();
    }

    /// Each replaces what there was of its kind; of set-fields, of its field.
    pub(super) fn write(&mut self, actions: &[FlowAction]) {
        for action in actions {
            let slot = op_of(action).slot();
            match self.actions.binary_search_by_key(&slot, |(slot, _)| *slot) {
                Ok(at) => {
                    if let Some(place) = self.actions.get_mut(at) {
                        *place = (slot, *action);
                    }
                }
                Err(at) => self.actions.insert(at, (slot, *action)),
            }
        }
    }

    /// In the order of §5.10; a group takes the output's place.
    pub(super) fn ordered(&self) -> Vec<FlowAction> {
        let has_group = self.actions.iter().any(|(slot, _)| *slot == op::slot::GROUP);
        let done = self.actions.iter().filter(|(slot, _)| !(has_group && *slot == op::slot::OUTPUT));
        done.map(|(_, action)| *action).collect()
    }
}

/// An action as the kernel has it; one that sets what can't be set does nothing. A group's place is the kernel's own and is left 0.
pub(super) fn op_of(action: &FlowAction) -> Op {
    use FlowAction as A;
    match *action {
        A::Output { port, max_len } => Op::output(port, max_len),
        A::Group(_) => Op::group(0),
        A::SetQueue(queue) => Op::set_queue(queue),
        A::PushVlan(ether_type) => Op::push_vlan(ether_type),
        A::PopVlan => Op::pop_vlan(),
        A::PushMpls(ether_type) => Op::push_mpls(ether_type),
        A::PopMpls(ether_type) => Op::pop_mpls(ether_type),
        A::CopyTtlOut => Op::copy_ttl_out(),
        A::CopyTtlIn => Op::copy_ttl_in(),
        A::SetMplsTtl(ttl) => Op::set_mpls_ttl(ttl),
        A::DecMplsTtl => Op::dec_mpls_ttl(),
        A::SetNwTtl(ttl) => Op::set_nw_ttl(ttl),
        A::DecNwTtl => Op::dec_nw_ttl(),
        A::SetField { field, value } => op::set_field(field, value).unwrap_or(Op::NOTHING),
    }
}
