//! Who is there: connections by name, switches by datapath id. Pure; the connections share it behind a lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use caregate_protocol::openflow::session::Switch;
use caregate_protocol::openflow::{ErrorKind, FragmentHandling};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Bindings;
use crate::connection::Request;
use crate::exchange::Census;
use crate::intent::DatapathId;
use crate::reconcile::{Flows, Phase};

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

/// What its connection last found of a switch.
#[derive(Debug, Clone)]
pub struct View {
    /// Of the intents that it is to follow.
    pub version: u64,
    /// Of those that it was found to follow.
    pub confirmed: Option<u64>,
    /// What is going on.
    pub phase: Phase,
    /// Rules that it is to hold.
    pub wanted: usize,
    /// Flows that differ from them.
    pub differing: usize,
    /// Intents whose rules it refuses.
    pub refused: BTreeMap<String, ErrorKind>,
    /// What it held.
    pub flows: Arc<Flows>,
    /// Its ports and tables.
    pub census: Arc<Census>,
    /// Unix time in milliseconds at which it was found so.
    pub at_ms: i64,
}

impl Default for View {
    fn default() -> Self {
        Self {
            version: 0,
            confirmed: None,
            phase: Phase::Busy,
            wanted: 0,
            differing: 0,
            refused: BTreeMap::new(),
            flows: Arc::default(),
            census: Arc::default(),
            at_ms: 0,
        }
    }
}

/// How others reach a connection.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Ends the connection.
    pub replaced: CancellationToken,
    /// What its switch is to do.
    pub requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Present {
    ticket: Ticket,
    peer: String,
    switch: Switch,
    table: u8,
    since_ms: i64,
    last_echo_rtt_us: Option<u64>,
    handle: Handle,
    view: Arc<View>,
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
    /// The one that is the controller's.
    pub table: u8,
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
    /// How far it follows the intents.
    pub reconcile: Reconcile,
    /// Flows that it holds.
    pub flows: usize,
    /// Ports that it has.
    pub ports: usize,
}

/// How far a switch follows the intents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reconcile {
    /// `in-sync`, `busy` or `waiting` (it did not come to it, and is tried again).
    pub state: &'static str,
    /// Of the intents that it is to follow.
    pub version: u64,
    /// Of those that it was found to follow.
    pub confirmed: Option<u64>,
    /// Rules that it is to hold.
    pub wanted: usize,
    /// Flows that differ from them.
    pub differing: usize,
    /// Intents whose rules it refuses.
    pub refused: Vec<String>,
}

impl From<&View> for Reconcile {
    fn from(view: &View) -> Self {
        Self {
            state: match view.phase {
                Phase::InSync => "in-sync",
                Phase::Busy => "busy",
                Phase::Waiting => "waiting",
            },
            version: view.version,
            confirmed: view.confirmed,
            wanted: view.wanted,
            differing: view.differing,
            refused: view.refused.keys().cloned().collect(),
        }
    }
}

/// Tables of a gateway, of which the first is that of verified policy: one whose switch is whole, and one of before.
const GATEWAY_TABLES: [u8; 2] = [8, 2];

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

    /// The connection has said which switch it is; the controller's table on it. An older connection of the same name and
    /// datapath id is ended: the switch knows best which of its connections lives.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] and [`Refusal::Held`].
    pub fn identify(
        &mut self,
        ticket: Ticket,
        peer: &str,
        switch: Switch,
        now_ms: i64,
        handle: Handle,
    ) -> Result<u8, Refusal> {
        let id = switch.features.datapath_id;
        let binding = self.bindings.as_ref().map(|bindings| bindings.get(&id));
        if binding.is_some_and(|binding| binding.is_none_or(|binding| binding.name != peer)) {
            return Err(Refusal::NotConfigured);
        }
        if let Some(holder) = self.present.get(&id) {
            if holder.peer != peer {
                return Err(Refusal::Held);
            }
            holder.handle.replaced.cancel();
        }
        let usual = u8::from(GATEWAY_TABLES.contains(&switch.features.n_tables));
        let table = binding.flatten().and_then(|binding| binding.table).unwrap_or(usual);
        let present = Present {
            ticket,
            peer: peer.to_owned(),
            switch,
            table,
            since_ms: now_ms,
            last_echo_rtt_us: None,
            handle,
            view: Arc::default(),
        };
        self.present.insert(id, present);
        Ok(table)
    }

    /// What the connection found of its switch.
    pub fn found(&mut self, ticket: Ticket, view: Arc<View>) {
        if let Some(present) = self.present.values_mut().find(|present| present.ticket == ticket) {
            present.view = view;
        }
    }

    /// What was last found of a switch; none where it isn't there.
    #[must_use]
    pub fn view(&self, switch: DatapathId) -> Option<Arc<View>> {
        self.present.get(&switch.0).map(|present| Arc::clone(&present.view))
    }

    /// What was last found of each.
    #[must_use]
    pub fn views(&self) -> BTreeMap<DatapathId, Arc<View>> {
        self.present.iter().map(|(id, present)| (DatapathId(*id), Arc::clone(&present.view))).collect()
    }

    /// How to ask something of a switch.
    #[must_use]
    pub fn requests(&self, switch: DatapathId) -> Option<mpsc::Sender<Request>> {
        self.present.get(&switch.0).map(|present| present.handle.requests.clone())
    }

    /// The connection's echo took this long.
    pub fn echo_answered(&mut self, ticket: Ticket, rtt_us: u64) {
        if let Some(present) = self.present.values_mut().find(|present| present.ticket == ticket) {
            present.last_echo_rtt_us = Some(rtt_us);
        }
    }

    /// The connection is gone, and its switch with it, unless another connection has taken that over.
    pub fn disconnect(&mut self, ticket: Ticket, peer: &str) -> Option<DatapathId> {
        let held = self.present.iter().find(|(_, present)| present.ticket == ticket);
        let gone = held.map(|(id, _)| DatapathId(*id));
        if let Some(DatapathId(id)) = gone {
            self.present.remove(&id);
        }
        if let Some(count) = self.connections.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.connections.remove(peer);
            }
        }
        gone
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
            table: present.table,
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
            reconcile: Reconcile::from(&*present.view),
            flows: present.view.flows.total,
            ports: present.view.census.ports.len(),
        };
        self.present.iter().map(listed).collect()
    }
}

#[cfg(test)]
mod tests;
