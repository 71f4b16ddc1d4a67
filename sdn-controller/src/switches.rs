//! Who is there: connections by name, switches by datapath id. Pure; the connections share it behind a lock.

use std::collections::{BTreeMap, HashMap};

use caregate_protocol::openflow::FragmentHandling;
use caregate_protocol::openflow::session::Switch;
use serde::Serialize;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::config::Bindings;

/// Connections of one name at once: the present one, and those that it lost but that have not timed out yet.
pub const CONNECTIONS_PER_NAME_MAX: usize = 4;

/// Why a switch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More than [`CONNECTIONS_PER_NAME_MAX`].
    #[error("its name has {CONNECTIONS_PER_NAME_MAX} connections already")]
    TooManyOfName,
    /// The configuration has the datapath id under another name, or not at all.
    #[error("the configuration does not give this datapath id to its name")]
    NotConfigured,
    /// Another name holds the datapath id at present.
    #[error("another switch holds its datapath id")]
    Held,
}

impl Refusal {
    /// A word for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooManyOfName => "too-many-of-name",
            Self::NotConfigured => "not-configured",
            Self::Held => "datapath-id-held",
        }
    }
}

/// One connection, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Present {
    ticket: Ticket,
    peer: String,
    switch: Switch,
    since_ms: i64,
    last_echo_rtt_us: Option<u64>,
    /// Ends the connection.
    replaced: CancellationToken,
}

/// The tables.
#[derive(Debug, Default)]
pub struct Switches {
    bindings: Bindings,
    next_ticket: u64,
    /// Open connections by name; none is 0.
    connections: HashMap<String, usize>,
    present: BTreeMap<u64, Present>,
}

/// One switch as `/switches` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// 16 hexadecimal digits.
    pub datapath_id: String,
    /// The name in its certificate.
    pub peer: String,
    /// Tables that it has.
    pub n_tables: u8,
    /// Packets that it can buffer.
    pub n_buffers: u32,
    /// What it can count and do, by name.
    pub capabilities: Vec<&'static str>,
    /// What becomes of IP fragments.
    pub fragments: &'static str,
    /// Bytes of a packet that a packet-in carries.
    pub miss_send_len: u16,
    /// Unix time in milliseconds at which its handshake was complete.
    pub since_ms: i64,
    /// Microseconds that the last echo took; none before the first.
    pub last_echo_rtt_us: Option<u64>,
}

impl Switches {
    /// Nobody there yet.
    #[must_use]
    pub fn new(bindings: Bindings) -> Self {
        Self { bindings, ..Self::default() }
    }

    /// A connection whose certificate has this name.
    ///
    /// # Errors
    /// [`Refusal::TooManyOfName`].
    pub fn connect(&mut self, peer: &str) -> Result<Ticket, Refusal> {
        let count = self.connections.entry(peer.to_owned()).or_default();
        if *count >= CONNECTIONS_PER_NAME_MAX {
            return Err(Refusal::TooManyOfName);
        }
        *count += 1;
        self.next_ticket += 1;
        Ok(Ticket(self.next_ticket))
    }

    /// The connection has said which switch it is. An older connection of the same name and datapath id is ended: the switch
    /// knows best which of its connections lives.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] and [`Refusal::Held`].
    pub fn identify(
        &mut self,
        ticket: Ticket,
        peer: &str,
        switch: Switch,
        now_ms: i64,
        replaced: CancellationToken,
    ) -> Result<(), Refusal> {
        let id = switch.features.datapath_id;
        if self.bindings.as_ref().is_some_and(|bindings| bindings.get(&id).is_none_or(|name| name != peer)) {
            return Err(Refusal::NotConfigured);
        }
        if let Some(holder) = self.present.get(&id) {
            if holder.peer != peer {
                return Err(Refusal::Held);
            }
            holder.replaced.cancel();
        }
        let peer = peer.to_owned();
        let present = Present { ticket, peer, switch, since_ms: now_ms, last_echo_rtt_us: None, replaced };
        self.present.insert(id, present);
        Ok(())
    }

    /// The connection's echo took this long.
    pub fn echo_answered(&mut self, ticket: Ticket, rtt_us: u64) {
        if let Some(present) = self.present.values_mut().find(|present| present.ticket == ticket) {
            present.last_echo_rtt_us = Some(rtt_us);
        }
    }

    /// The connection is gone, and its switch with it, unless another connection has taken that over.
    pub fn disconnect(&mut self, ticket: Ticket, peer: &str) {
        self.present.retain(|_, present| present.ticket != ticket);
        if let Some(count) = self.connections.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.connections.remove(peer);
            }
        }
    }

    /// How many switches are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present.len()
    }

    /// True where none is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// All of them, by datapath id.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let listed = |(id, present): (&u64, &Present)| Listed {
            datapath_id: format!("{id:016x}"),
            peer: present.peer.clone(),
            n_tables: present.switch.features.n_tables,
            n_buffers: present.switch.features.n_buffers,
            capabilities: present.switch.features.capabilities.names().collect(),
            fragments: match present.switch.config.fragments {
                FragmentHandling::Normal => "normal",
                FragmentHandling::Drop => "drop",
                FragmentHandling::Reassemble => "reassemble",
            },
            miss_send_len: present.switch.config.miss_send_len,
            since_ms: present.since_ms,
            last_echo_rtt_us: present.last_echo_rtt_us,
        };
        self.present.iter().map(listed).collect()
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::openflow::{Capabilities, Features, SwitchConfig};

    use super::*;

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
        switches.identify(ticket, peer, switch(id), 1000, replaced.clone()).map(|()| replaced)
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
        let mut switches = Switches::new(Some([(1, "a".to_owned())].into()));
        let ticket = switches.connect("b").unwrap();
        assert_eq!(identify(&mut switches, ticket, "b", 1).unwrap_err(), Refusal::NotConfigured);
        let ticket = switches.connect("a").unwrap();
        assert_eq!(identify(&mut switches, ticket, "a", 2).unwrap_err(), Refusal::NotConfigured);
        assert!(identify(&mut switches, ticket, "a", 1).is_ok());
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
}
