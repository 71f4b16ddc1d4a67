//! VLAN tags and MPLS labels, pushed and popped: what is in front of them moves, what is behind stays where it is in the buffer.

use super::super::op::layer;
use super::{ADDRESS_BYTES, BOTTOM, Edited, Headers};

/// As far as the frame's first byte moves back: eight tags popped. Copied bytes end before the buffer does.
const START_MAX: u32 = 64;
/// Bytes of a tag or label.
const TAG_BYTES: u32 = 4;

impl Headers {
    /// Moves the first `bytes` four to the front: there is room for a tag behind them.
    #[inline(always)]
    fn make_room(&mut self, bytes: u32) -> bool {
        if self.start < TAG_BYTES {
            return false;
        }
        self.start -= TAG_BYTES;
        self.len += TAG_BYTES;
        // Twelve bytes at once the compiler would move by a function, which BPF has not.
        let (first, last) = (u64::from_ne_bytes(self.chunk(4)), u32::from_ne_bytes(self.chunk(12)));
        let tags: [u8; 8] = self.chunk(TAG_BYTES + ADDRESS_BYTES);
        self.put_chunk(0, first.to_ne_bytes());
        self.put_chunk(8, last.to_ne_bytes());
        if bytes > ADDRESS_BYTES + TAG_BYTES {
            self.put_chunk(ADDRESS_BYTES, tags);
        } else if bytes > ADDRESS_BYTES {
            self.put_chunk(ADDRESS_BYTES, [tags[0], tags[1], tags[2], tags[3]]);
        }
        self.moved(TAG_BYTES);
        true
    }

    /// Moves the first `bytes` over the four behind them.
    #[inline(always)]
    fn close(&mut self, bytes: u32) -> bool {
        if self.start >= START_MAX || self.len < bytes + TAG_BYTES {
            return false;
        }
        let (first, last) = (u64::from_ne_bytes(self.chunk(0)), u32::from_ne_bytes(self.chunk(8)));
        let tags: [u8; 8] = self.chunk(ADDRESS_BYTES);
        self.put_chunk(4, first.to_ne_bytes());
        self.put_chunk(12, last.to_ne_bytes());
        if bytes > ADDRESS_BYTES + TAG_BYTES {
            self.put_chunk(TAG_BYTES + ADDRESS_BYTES, tags);
        } else if bytes > ADDRESS_BYTES {
            self.put_chunk(TAG_BYTES + ADDRESS_BYTES, [tags[0], tags[1], tags[2], tags[3]]);
        }
        self.start += TAG_BYTES;
        self.len -= TAG_BYTES;
        self.moved(0u32.wrapping_sub(TAG_BYTES));
        true
    }

    /// What lay behind the tag lies elsewhere.
    #[inline(always)]
    fn moved(&mut self, by: u32) {
        let layers = &mut self.layers;
        layers.network_at = layers.network_at.wrapping_add(by);
        layers.protocol_at = layers.protocol_at.wrapping_add(by);
        layers.transport_at = layers.transport_at.wrapping_add(by);
        layers.sll_at = layers.sll_at.wrapping_add(by);
        layers.tll_at = layers.tll_at.wrapping_add(by);
        layers.sum_at = layers.sum_at.wrapping_add(by);
    }

    #[inline(always)]
    pub(super) fn push_vlan(&mut self, ether_type: u32) -> Edited {
        // Priority and number of the tag that was there (§5.12.1, table 7), without its drop eligibility.
        let tag = if self.has(layer::VLAN) { self.u16_at(ADDRESS_BYTES + 2) & 0xefff } else { 0 };
        if self.len < ADDRESS_BYTES + 2 || !self.make_room(ADDRESS_BYTES) {
            return Edited::Beyond;
        }
        self.put_u32(ADDRESS_BYTES, ether_type << 16 | tag);
        // Behind two tags is as far as is looked.
        if self.layers.tags == 2 {
            self.is_stale = 1;
        } else {
            self.layers.tags += 1;
        }
        self.layers.ether_type_at += TAG_BYTES;
        self.layers.has |= u32::from(layer::VLAN);
        Edited::Done
    }

    #[inline(always)]
    pub(super) fn pop_vlan(&mut self) -> Edited {
        if !self.has(layer::VLAN) {
            return Edited::Done;
        }
        if !self.close(ADDRESS_BYTES) {
            return Edited::Beyond;
        }
        self.changed(ADDRESS_BYTES);
        if self.layers.tags == 2 {
            self.is_stale = 1;
        } else {
            self.layers.tags = 0;
            self.layers.has &= !u32::from(layer::VLAN);
        }
        self.layers.ether_type_at -= TAG_BYTES;
        Edited::Done
    }

    #[inline(always)]
    pub(super) fn push_mpls(&mut self, ether_type: u32) -> Edited {
        let at = self.layers.ether_type_at;
        // What the label is by default (§5.12.1, table 7).
        let label = if self.has(layer::MPLS) {
            self.label() & !BOTTOM
        } else if self.has(layer::IPV4 | layer::IPV6) {
            BOTTOM | self.network_ttl(self.layers.has)
        } else {
            BOTTOM
        };
        if at == 0 || !self.make_room(at) {
            return Edited::Beyond;
        }
        self.put_u16(at, ether_type);
        self.put_u32(at + 2, label);
        let layers = &mut self.layers;
        if layers.has & u32::from(layer::MPLS) == 0 {
            layers.hidden = layers.has & u32::from(layer::IPV4 | layer::IPV6);
            // Behind a label it is the version that tells, whatever the EtherType was.
            if layers.hidden == 0 {
                self.is_stale = 1;
            }
        }
        let layers = &mut self.layers;
        layers.has = layers.has & u32::from(layer::VLAN) | u32::from(layer::MPLS);
        layers.labels = if layers.labels == 0 { 1 } else { 2 };
        layers.sum = 0;
        Edited::Done
    }

    #[inline(always)]
    pub(super) fn pop_mpls(&mut self, ether_type: u32) -> Edited {
        if !self.has(layer::MPLS) {
            return Edited::Done;
        }
        let at = self.layers.ether_type_at;
        if !self.close(at) {
            return Edited::Beyond;
        }
        self.put_u16(at, ether_type);
        self.is_stale = 1;
        Edited::Done
    }
}
