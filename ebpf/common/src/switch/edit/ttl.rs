//! TTLs of labels and IP headers (OpenFlow 1.3.5 §5.12.1, table 8).

use super::super::op::{Op, code, layer};
use super::{BOTTOM, Edited, Headers};

impl Headers {
    #[inline(always)]
    pub(super) fn edit_ttl(&mut self, op: &Op) -> Edited {
        let ttl = op.argument() & 0xff;
        match op.code() {
            code::SET_MPLS_TTL if self.has(layer::MPLS) => self.put_label_ttl(ttl),
            code::DEC_MPLS_TTL if self.has(layer::MPLS) => {
                let old = self.label() & 0xff;
                if old <= 1 {
                    return Edited::InvalidTtl;
                }
                self.put_label_ttl(old - 1);
            }
            code::SET_NW_TTL if self.has(layer::IPV4 | layer::IPV6) => {
                return self.put_network_ttl(self.layers.has, ttl);
            }
            code::DEC_NW_TTL if self.has(layer::IPV4 | layer::IPV6) => {
                let old = self.network_ttl(self.layers.has);
                if old <= 1 {
                    return Edited::InvalidTtl;
                }
                return self.put_network_ttl(self.layers.has, old - 1);
            }
            code::COPY_TTL_OUT if self.has(layer::MPLS) => return self.copy_ttl_out(),
            code::COPY_TTL_IN if self.has(layer::MPLS) => return self.copy_ttl_in(),
            _ => {}
        }
        Edited::Done
    }

    /// The outer label's word (RFC 3032 §2.1).
    #[inline(always)]
    pub(super) fn label(&self) -> u32 {
        self.u32_at(self.layers.ether_type_at + 2)
    }

    #[inline(always)]
    fn put_label_ttl(&mut self, ttl: u32) {
        let at = self.layers.ether_type_at + 2;
        self.put_u32(at, self.label() & 0xffff_ff00 | ttl);
    }

    #[inline(always)]
    pub(super) fn network_ttl(&self, has: u32) -> u32 {
        let offset = if has & u32::from(layer::IPV4) != 0 { 8 } else { 7 };
        u32::from(self.byte(self.layers.network_at + offset))
    }

    #[inline(always)]
    fn put_network_ttl(&mut self, has: u32, ttl: u32) -> Edited {
        let at = self.layers.network_at;
        if at + 12 > self.len {
            return Edited::Beyond;
        }
        if has & u32::from(layer::IPV4) != 0 {
            let old = self.u16_at(at + 8);
            let new = old & 0xff | ttl << 8;
            self.put_u16(at + 8, new);
            if old != new {
                self.mend_at(at + 10, 0xffff + new - old, false);
            }
        } else {
            let old = self.u16_at(at + 6);
            self.put_u16(at + 6, old & 0xff00 | ttl);
        }
        Edited::Done
    }

    /// From the second outermost header with a TTL to the outermost.
    #[inline(always)]
    fn copy_ttl_out(&mut self) -> Edited {
        if self.label() & BOTTOM == 0 {
            if self.layers.labels < 2 {
                return Edited::Done;
            }
            let ttl = self.byte(self.layers.ether_type_at + 9);
            self.put_label_ttl(u32::from(ttl));
        } else if self.layers.hidden != 0 {
            let ttl = self.network_ttl(self.layers.hidden);
            self.put_label_ttl(ttl);
        }
        Edited::Done
    }

    #[inline(always)]
    fn copy_ttl_in(&mut self) -> Edited {
        let ttl = self.label() & 0xff;
        if self.label() & BOTTOM == 0 {
            if self.layers.labels < 2 {
                return Edited::Done;
            }
            let at = self.layers.ether_type_at + 8;
            self.put_u16(at, self.u16_at(at) & 0xff00 | ttl);
            Edited::Done
        } else if self.layers.hidden != 0 {
            self.put_network_ttl(self.layers.hidden, ttl)
        } else {
            Edited::Done
        }
    }
}
