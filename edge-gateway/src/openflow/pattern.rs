//! What a flow matches: one value and one mask over the fields of a frame (OpenFlow 1.3.5 §7.2.3).
//!
//! All fields lie in one key, so that "matches", "overlaps" and "is part of" are a few bitwise operations, the same that the
//! kernel makes. IPv4 and IPv6 addresses share their place, as do TCP and UDP ports: which of them is meant follows from
//! `eth_type` and `ip_proto`, which the prerequisites make exact.

use caregate_protocol::openflow::BadMatch;

use super::port;

/// Bytes of a key: the fields one after another, without gaps.
pub const KEY_BYTES: usize = 58;

/// `eth_type` of IPv4.
pub const ETH_TYPE_IPV4: u16 = 0x0800;
/// `eth_type` of IPv6.
pub const ETH_TYPE_IPV6: u16 = 0x86dd;
/// `ip_proto` of TCP.
pub const IP_PROTO_TCP: u8 = 6;
/// `ip_proto` of UDP.
pub const IP_PROTO_UDP: u8 = 17;

macro_rules! fields {
    ($($name:ident = $oxm:literal at $at:literal, $bytes:literal bytes, mask $maskable:literal, $standard:literal;)*) => {
        /// The match fields of this release, by their standard's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field {
            $(#[doc = $standard] $name,)*
        }

        impl Field {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The field with this number in class `OFPXMC_OPENFLOW_BASIC` (§7.2.3.7).
            ///
            /// # Errors
            /// `OFPBMC_BAD_FIELD` for a field that is not supported.
            pub fn of_oxm(number: u8) -> Result<Self, BadMatch> {
                match number {
                    $($oxm => Ok(Self::$name),)*
                    _ => Err(BadMatch::BadField),
                }
            }

            /// Its number in class `OFPXMC_OPENFLOW_BASIC`.
            #[must_use]
            pub fn oxm(self) -> u8 {
                match self { $(Self::$name => $oxm),* }
            }

            /// Where it lies in a key, and its bytes.
            #[must_use]
            pub fn place(self) -> (usize, usize) {
                match self { $(Self::$name => ($at, $bytes)),* }
            }

            /// Whether §7.2.3.7 allows a mask.
            #[must_use]
            pub fn is_maskable(self) -> bool {
                match self { $(Self::$name => $maskable),* }
            }
        }
    };
}

fields! {
    InPort = 0 at 0, 4 bytes, mask false, "in_port";
    EthDst = 3 at 4, 6 bytes, mask true, "eth_dst";
    EthSrc = 4 at 10, 6 bytes, mask true, "eth_src";
    EthType = 5 at 16, 2 bytes, mask false, "eth_type";
    VlanVid = 6 at 18, 2 bytes, mask true, "vlan_vid, with `OFPVID_PRESENT` (0x1000)";
    IpProto = 10 at 20, 1 bytes, mask false, "ip_proto";
    IpDscp = 8 at 21, 1 bytes, mask false, "ip_dscp, six bits";
    Ipv4Src = 11 at 22, 4 bytes, mask true, "ipv4_src";
    Ipv6Src = 26 at 22, 16 bytes, mask true, "ipv6_src";
    Ipv4Dst = 12 at 38, 4 bytes, mask true, "ipv4_dst";
    Ipv6Dst = 27 at 38, 16 bytes, mask true, "ipv6_dst";
    TcpSrc = 13 at 54, 2 bytes, mask false, "tcp_src";
    UdpSrc = 15 at 54, 2 bytes, mask false, "udp_src";
    TcpDst = 14 at 56, 2 bytes, mask false, "tcp_dst";
    UdpDst = 16 at 56, 2 bytes, mask false, "udp_dst";
}

/// A field, its value, and its mask where not all bits count.
pub type Part<'a> = (Field, &'a [u8], Option<&'a [u8]>);

/// A value and the bits of it that count. A bit outside `mask` is 0 in `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    value: [u8; KEY_BYTES],
    mask: [u8; KEY_BYTES],
}

impl Default for Pattern {
    fn default() -> Self {
        Self { value: [0; KEY_BYTES], mask: [0; KEY_BYTES] }
    }
}

impl Pattern {
    /// Everything.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Adds one OXM field, in network order; fields come in the order of the message, because a prerequisite must stand
    /// before what needs it (§7.2.3.6). A mask of zeros is no field at all, a mask of ones is no mask.
    ///
    /// # Errors
    /// The standard's code: `BAD_LEN`, `BAD_MASK`, `BAD_WILDCARDS` (a bit of the value outside the mask), `BAD_VALUE`,
    /// `BAD_PREREQ`, `DUP_FIELD`.
    pub fn with(mut self, field: Field, value: &[u8], mask: Option<&[u8]>) -> Result<Self, BadMatch> {
        let (at, bytes) = field.place();
        if value.len() != bytes || mask.is_some_and(|mask| mask.len() != bytes) {
            return Err(BadMatch::BadLen);
        }
        let mask = mask.filter(|mask| mask.iter().any(|byte| *byte != 0xff));
        if mask.is_some() && !field.is_maskable() {
            return Err(BadMatch::BadMask);
        }
        if !self.has_prerequisites(field) {
            return Err(BadMatch::BadPrereq);
        }
        let ones = [0xff; 16];
        let mask = mask.unwrap_or(&ones[..bytes]);
        if value.iter().zip(mask).any(|(value, mask)| value & !mask != 0) {
            return Err(BadMatch::BadWildcards);
        }
        if !is_allowed(field, value) {
            return Err(BadMatch::BadValue);
        }
        let place = at..at + bytes;
        if self.mask[place.clone()].iter().any(|byte| *byte != 0) {
            return Err(BadMatch::DupField);
        }
        self.value[place.clone()].copy_from_slice(value);
        self.mask[place].copy_from_slice(mask);
        Ok(self)
    }

    fn has_prerequisites(&self, field: Field) -> bool {
        let (ipv4, ipv6) =
            (self.is_exactly(Field::EthType, &[0x08, 0x00]), self.is_exactly(Field::EthType, &[0x86, 0xdd]));
        match field {
            Field::InPort | Field::EthDst | Field::EthSrc | Field::EthType | Field::VlanVid => true,
            Field::IpProto | Field::IpDscp => ipv4 || ipv6,
            Field::Ipv4Src | Field::Ipv4Dst => ipv4,
            Field::Ipv6Src | Field::Ipv6Dst => ipv6,
            Field::TcpSrc | Field::TcpDst => self.is_exactly(Field::IpProto, &[IP_PROTO_TCP]),
            Field::UdpSrc | Field::UdpDst => self.is_exactly(Field::IpProto, &[IP_PROTO_UDP]),
        }
    }

    fn is_exactly(&self, field: Field, value: &[u8]) -> bool {
        self.exact(field) == Some(value)
    }

    /// The field's value where all its bits count.
    #[must_use]
    pub fn exact(&self, field: Field) -> Option<&[u8]> {
        let (at, bytes) = field.place();
        let all = self.mask[at..at + bytes].iter().all(|byte| *byte == 0xff);
        all.then(|| &self.value[at..at + bytes])
    }

    /// The fields of which any bit counts, by their OXM number, with value and mask; no mask where all bits count.
    #[must_use]
    pub fn fields(&self) -> Vec<Part<'_>> {
        let mut fields: Vec<_> = Field::ALL
            .iter()
            // IPv4 and IPv6, TCP and UDP share their places: the prerequisites tell which it is.
            .filter(|field| self.has_prerequisites(**field))
            .map(|field| {
                let (at, bytes) = field.place();
                let (value, mask) = (&self.value[at..at + bytes], &self.mask[at..at + bytes]);
                (*field, value, mask)
            })
            .filter(|(_, _, mask)| mask.iter().any(|byte| *byte != 0))
            .map(|(field, value, mask)| (field, value, mask.iter().any(|byte| *byte != 0xff).then_some(mask)))
            .collect();
        fields.sort_by_key(|(field, _, _)| field.oxm());
        fields
    }

    /// The port that frames must have come in by; `None` for any.
    #[must_use]
    pub fn in_port(&self) -> Option<u32> {
        let port = self.exact(Field::InPort)?;
        port.try_into().map(u32::from_be_bytes).ok()
    }

    /// Whether only IP packets match.
    #[must_use]
    pub fn is_ip(&self) -> bool {
        self.has_prerequisites(Field::IpDscp)
    }

    /// Value and mask of the whole key.
    #[must_use]
    pub fn key(&self) -> (&[u8; KEY_BYTES], &[u8; KEY_BYTES]) {
        (&self.value, &self.mask)
    }

    /// Whether a frame with this key matches.
    #[must_use]
    pub fn matches(&self, frame: &[u8; KEY_BYTES]) -> bool {
        let mut bytes = frame.iter().zip(&self.value).zip(&self.mask);
        bytes.all(|((frame, value), mask)| (frame ^ value) & mask == 0)
    }

    /// Whether one frame could match both (§6.4).
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        (0..KEY_BYTES).all(|i| (self.value[i] ^ other.value[i]) & self.mask[i] & other.mask[i] == 0)
    }

    /// Whether each frame that matches this one matches `other` too: what a non-strict delete or modify with `other` means
    /// (§6.4).
    #[must_use]
    pub fn is_part_of(&self, other: &Self) -> bool {
        (0..KEY_BYTES).all(|i| {
            other.mask[i] & !self.mask[i] == 0 && (self.value[i] ^ other.value[i]) & other.mask[i] == 0
        })
    }
}

/// What the field can hold at all.
fn is_allowed(field: Field, value: &[u8]) -> bool {
    match (field, value) {
        (Field::InPort, [0, 0, 0, 0]) => false,
        (Field::InPort, &[a, b, c, d]) => {
            let number = u32::from_be_bytes([a, b, c, d]);
            // Of the reserved numbers a frame comes in by LOCAL alone here.
            number == port::LOCAL || number < port::IN_PORT
        }
        (Field::IpDscp, [dscp]) => *dscp < 64,
        // Zero is "no tag"; every other value has OFPVID_PRESENT (§7.2.3.7).
        (Field::VlanVid, [high, low]) => (*high, *low) == (0, 0) || (0x10..0x20).contains(high),
        (
            Field::InPort
            | Field::EthDst
            | Field::EthSrc
            | Field::EthType
            | Field::VlanVid
            | Field::IpProto
            | Field::IpDscp
            | Field::Ipv4Src
            | Field::Ipv6Src
            | Field::Ipv4Dst
            | Field::Ipv6Dst
            | Field::TcpSrc
            | Field::UdpSrc
            | Field::TcpDst
            | Field::UdpDst,
            _,
        ) => true,
    }
}

#[cfg(test)]
mod tests;
