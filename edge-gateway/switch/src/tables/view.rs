//! The tables as the slow path sees them.

use caregate_ebpf_common::switch::Key;
use caregate_protocol::datapath::switch::GroupEntry;

use super::super::pattern::Pattern;
use super::super::port::config;
use super::super::ports::PortEntry;
use super::super::slow::{Found, PortView, View};
use super::Tables;

fn view(entry: &PortEntry) -> PortView {
    PortView {
        number: entry.port.number,
        role: entry.port.role,
        is_live: entry.is_live(),
        no_forward: entry.config & config::NO_FWD != 0,
        no_packet_in: entry.config & config::NO_PACKET_IN != 0,
    }
}

impl View for Tables {
    fn first_table(&self) -> u8 {
        self.ports.guard().first_table()
    }

    fn lookup(&self, table: u8, key: &Key) -> Option<Found<'_>> {
        let flow = self.flows.of_table(table).find(|flow| flow.pattern.matches(key))?;
        let is_table_miss = flow.priority == 0 && *flow.pattern == Pattern::any();
        Some(Found { instructions: &flow.instructions, cookie: flow.cookie, is_table_miss })
    }

    fn group(&self, id: u32) -> Option<&GroupEntry> {
        self.groups.get(&id).map(|group| &group.entry)
    }

    fn port(&self, number: u32) -> Option<PortView> {
        self.ports.find(number).map(view)
    }

    fn ports(&self) -> Vec<PortView> {
        self.ports.list().iter().map(view).collect()
    }
}
