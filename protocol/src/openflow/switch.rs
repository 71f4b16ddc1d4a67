//! What a switch says of itself: features (§7.3.1) and configuration (§7.3.2).

use super::message::Fault;
use crate::wire::{Reader, WireError};

/// `enum ofp_capabilities` (§7.3.1), a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// The bits that 1.3 names, in their order.
    pub const NAMED: [(u32, &'static str); 7] = [
        (1 << 0, "flow-stats"),
        (1 << 1, "table-stats"),
        (1 << 2, "port-stats"),
        (1 << 3, "group-stats"),
        (1 << 5, "ip-reassembly"),
        (1 << 6, "queue-stats"),
        (1 << 8, "port-blocked"),
    ];

    /// The names of the bits that are set; bits without a name are left out.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.into_iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, name)| name)
    }
}

/// `struct ofp_switch_features` (§7.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// The datapath's id: a MAC address below 16 bits of the implementer's choice.
    pub datapath_id: u64,
    /// Packets that it can buffer.
    pub n_buffers: u32,
    /// Tables that it has.
    pub n_tables: u8,
    /// 0 for the main connection.
    pub auxiliary_id: u8,
    /// What it can count and do.
    pub capabilities: Capabilities,
}

impl Features {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.datapath_id.to_be_bytes());
        out.extend(self.n_buffers.to_be_bytes());
        out.extend([self.n_tables, self.auxiliary_id, 0, 0]);
        out.extend(self.capabilities.0.to_be_bytes());
        out.extend([0; 4]);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let datapath_id = reader.u64("datapath_id")?;
        let n_buffers = reader.u32("n_buffers")?;
        let n_tables = reader.u8("n_tables")?;
        let auxiliary_id = reader.u8("auxiliary_id")?;
        reader.take("pad", 2)?;
        let capabilities = Capabilities(reader.u32("capabilities")?);
        reader.take("reserved", 4)?;
        Ok(Self { datapath_id, n_buffers, n_tables, auxiliary_id, capabilities })
    }
}

/// What becomes of IP fragments: `enum ofp_config_flags` (§7.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FragmentHandling {
    /// `OFPC_FRAG_NORMAL`
    Normal = 0,
    /// `OFPC_FRAG_DROP`
    Drop = 1,
    /// `OFPC_FRAG_REASM`
    Reassemble = 2,
}

/// `struct ofp_switch_config` (§7.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchConfig {
    /// What becomes of fragments.
    pub fragments: FragmentHandling,
    /// Bytes of a packet that a packet-in carries; `0xffff` is all of it, unbuffered.
    pub miss_send_len: u16,
}

impl SwitchConfig {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend((self.fragments as u16).to_be_bytes());
        out.extend(self.miss_send_len.to_be_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let flags = reader.u16("flags")?;
        let miss_send_len = reader.u16("miss_send_len")?;
        let fragments = match flags {
            0 => FragmentHandling::Normal,
            1 => FragmentHandling::Drop,
            2 => FragmentHandling::Reassemble,
            other => return Err(Fault::Value { field: "flags", value: other.into() }),
        };
        Ok(Self { fragments, miss_send_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named_by_bit() {
        // What Open vSwitch 3.1 reports.
        let names: Vec<_> = Capabilities(0x4f).names().collect();
        assert_eq!(names, ["flow-stats", "table-stats", "port-stats", "group-stats", "queue-stats"]);
        assert_eq!(Capabilities(0xffff_fe90).names().count(), 0);
    }
}
