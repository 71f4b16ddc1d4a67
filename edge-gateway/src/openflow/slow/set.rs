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
            let slot = slot(action);
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

fn slot(action: &FlowAction) -> u8 {
    match action {
        FlowAction::Output { .. } => op::slot::OUTPUT,
        FlowAction::Group(_) => op::slot::GROUP,
        FlowAction::SetQueue(_) => op::slot::QUEUE,
        edit => edit_of(edit).slot(),
    }
}

/// An action that edits headers, as the kernel has it; one that does something else, or sets what can't be set, does nothing.
pub(super) fn edit_of(action: &FlowAction) -> Op {
    use FlowAction as A;
    match *action {
        A::Output { .. } | A::Group(_) | A::SetQueue(_) => Op::NOTHING,
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
