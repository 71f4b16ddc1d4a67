//! What the switch needs of the datapath helper.

use std::future::Future;

#[cfg(doc)]
use caregate_protocol::datapath::PACKET_OUTS_MAX;
use caregate_protocol::datapath::switch::{Change, SwitchCounters};
use caregate_protocol::datapath::{Counters, PacketOut, Port, Punt, Welcome};

use super::agent::{HelperRefused, Part};

/// Requests, each answered when the helper has done it. A helper that is away answers [`HelperRefused`] at once or within a
/// few seconds, and comes back by [`HelperEvent::Up`].
pub trait Helper: Send + 'static {
    /// Makes ready for changes that [`change`](Self::change) will put in force with its own, in one step. Where this is refused, so is that.
    fn prepare(
        &self,
        part: Part,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<(), HelperRefused>> + Send;
    /// Changes tables, groups and meters, in one step with what was prepared of the batch: nothing is changed where not all of it was.
    fn change(
        &self,
        part: Part,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<(), HelperRefused>> + Send;
    /// Sends frames, none of them to a sensor port, at most [`PACKET_OUTS_MAX`]; says which of them were sent.
    fn packet_outs(
        &self,
        packets: Vec<PacketOut>,
    ) -> impl Future<Output = Result<Vec<bool>, HelperRefused>> + Send;
    /// What tables, flows, groups and meters counted.
    fn switch_counters(&self) -> impl Future<Output = Result<SwitchCounters, HelperRefused>> + Send;
    /// What ports counted.
    fn counters(&self) -> impl Future<Output = Result<Counters, HelperRefused>> + Send;
}

/// What the helper says unasked, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelperEvent {
    /// It is there, for the first time or again.
    Up(Welcome),
    /// It is away.
    Down,
    /// A rule sent a frame of the gateway's own to the controller.
    PacketIn {
        /// The rule's id.
        rule: u64,
        /// Bytes of the whole frame.
        total_len: u16,
        /// Its first bytes.
        frame: Vec<u8>,
    },
    /// A frame that the kernel could not do all actions of.
    Punt(Punt),
    /// A port has changed.
    Port(Port),
}
