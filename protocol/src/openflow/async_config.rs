//! Which messages a switch sends unasked to a controller (§7.3.10).

use super::wire::put_u32;
use crate::wire::{Reader, WireError};

/// `struct ofp_async_config`. Of each pair the first is for a controller that is master or equal, the second for a slave; a
/// bit stands for the reason of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncConfig {
    /// By [`PacketInReason`](super::PacketInReason).
    pub packet_in: [u32; 2],
    /// By [`PortReason`](super::PortReason).
    pub port_status: [u32; 2],
    /// By [`RemovedReason`](super::RemovedReason).
    pub flow_removed: [u32; 2],
}

impl Default for AsyncConfig {
    /// What a connection begins with: all but `OFPR_INVALID_TTL` to a master or equal, to a slave port-status alone.
    fn default() -> Self {
        Self { packet_in: [0b011, 0], port_status: [0b111, 0b111], flow_removed: [0b1111, 0] }
    }
}

impl AsyncConfig {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        for value in [self.packet_in, self.port_status, self.flow_removed].as_flattened() {
            put_u32(out, *value);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            packet_in: [reader.u32("packet_in_mask")?, reader.u32("packet_in_mask")?],
            port_status: [reader.u32("port_status_mask")?, reader.u32("port_status_mask")?],
            flow_removed: [reader.u32("flow_removed_mask")?, reader.u32("flow_removed_mask")?],
        })
    }
}
