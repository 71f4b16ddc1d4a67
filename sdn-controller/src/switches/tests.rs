use caregate_protocol::openflow::{Capabilities, Features, SwitchConfig};

use super::*;
use crate::config::Binding;

fn switch(datapath_id: u64) -> Switch {
    let capabilities = Capabilities(0x41);
    Switch {
        features: Features { datapath_id, n_buffers: 0, n_tables: 254, auxiliary_id: 0, capabilities },
        config: SwitchConfig { fragments: FragmentHandling::Normal, miss_send_len: 128 },
    }
}

fn identify(
    switches: &mut Switches,
    ticket: Ticket,
    peer: &str,
    id: u64,
) -> Result<CancellationToken, Refusal> {
    let replaced = CancellationToken::new();
    let handle = Handle { replaced: replaced.clone(), requests: mpsc::channel(1).0 };
    switches.identify(ticket, peer, switch(id), 1000, handle).map(|_table| replaced)
}

#[test]
fn listed_from_identify_to_disconnect() {
    let mut switches = Switches::new(None);
    let ticket = switches.connect("a").unwrap();
    assert!(switches.is_empty());
    let _replaced = identify(&mut switches, ticket, "a", 0xab).unwrap();
    switches.echo_answered(ticket, 250);
    let listed = switches.list();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].datapath_id.as_str(), listed[0].peer.as_str()), ("00000000000000ab", "a"));
    assert_eq!(listed[0].capabilities, ["flow-stats", "queue-stats"]);
    assert_eq!((listed[0].since_ms, listed[0].last_echo_rtt_us), (1000, Some(250)));
    switches.disconnect(ticket, "a");
    assert_eq!((switches.len(), switches.connections.len()), (0, 0));
}

#[test]
fn a_returning_switch_replaces_its_older_connection() {
    let mut switches = Switches::new(None);
    let (old, new) = (switches.connect("a").unwrap(), switches.connect("a").unwrap());
    let old_replaced = identify(&mut switches, old, "a", 1).unwrap();
    let new_replaced = identify(&mut switches, new, "a", 1).unwrap();
    assert!(old_replaced.is_cancelled() && !new_replaced.is_cancelled());
    switches.disconnect(old, "a");
    assert_eq!(switches.len(), 1, "the old connection's end must not take the new one away");
    switches.disconnect(new, "a");
    assert!(switches.is_empty());
}

#[test]
fn another_name_can_not_take_a_datapath_id() {
    let mut switches = Switches::new(None);
    let (first, second) = (switches.connect("a").unwrap(), switches.connect("b").unwrap());
    let replaced = identify(&mut switches, first, "a", 1).unwrap();
    assert_eq!(identify(&mut switches, second, "b", 1).unwrap_err(), Refusal::Held);
    assert!(!replaced.is_cancelled());
    let _other = identify(&mut switches, second, "b", 2).unwrap();
    assert_eq!(switches.len(), 2);
}

#[test]
fn configured_switches_alone_may_come() {
    let binding = Binding { name: "a".to_owned(), table: None };
    let mut switches = Switches::new(Some([(1, binding)].into()));
    let ticket = switches.connect("b").unwrap();
    assert_eq!(identify(&mut switches, ticket, "b", 1).unwrap_err(), Refusal::NotConfigured);
    let ticket = switches.connect("a").unwrap();
    assert_eq!(identify(&mut switches, ticket, "a", 2).unwrap_err(), Refusal::NotConfigured);
    assert!(identify(&mut switches, ticket, "a", 1).is_ok());
}

#[test]
fn the_controllers_table_is_said_or_follows_from_the_number_of_tables() {
    let binding = |table| Binding { name: "a".to_owned(), table };
    let bindings = [(1, binding(None)), (2, binding(None)), (3, binding(Some(0))), (4, binding(Some(1)))];
    let mut switches = Switches::new(Some(bindings.into()));
    for (id, n_tables, table) in [(1, 2, 1), (2, 254, 0), (3, 2, 0), (4, 254, 1)] {
        let ticket = switches.connect("a").unwrap();
        let mut described = switch(id);
        described.features.n_tables = n_tables;
        let handle = Handle { replaced: CancellationToken::new(), requests: mpsc::channel(1).0 };
        assert_eq!(switches.identify(ticket, "a", described, 0, handle), Ok(table), "{id}");
    }
}

#[test]
fn connections_of_a_name_are_bounded() {
    let mut switches = Switches::new(None);
    let tickets: Vec<_> = (0..CONNECTIONS_PER_NAME_MAX).map(|_| switches.connect("a").unwrap()).collect();
    assert_eq!(switches.connect("a"), Err(Refusal::TooManyOfName));
    assert!(switches.connect("b").is_ok());
    switches.disconnect(tickets[0], "a");
    assert!(switches.connect("a").is_ok());
}
