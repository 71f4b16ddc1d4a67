//! What a flow matches, on the wire: a list of OXM TLVs (§7.2.3).
//!
//! ```text
//!  0               16          23  24              32
//! +---------------+-----------+---+----------------+-------------------------+
//! | class         | field     | M | payload bytes  | value, and mask where M |
//! +---------------+-----------+---+----------------+-------------------------+
//! ```
//! Fields that 1.3.5 doesn't have are kept as they came: whether a field is supported is for the switch to say
//! (`OFPBMC_BAD_FIELD`), and the controller shows what a switch holds.

use std::fmt;

use thiserror::Error;

use super::error::{BadMatch, ErrorKind};
use super::message::Fault;
use super::wire::{padding, put_u16};
use crate::wire::Reader;

/// `OFPXMC_OPENFLOW_BASIC` (§7.2.3.3).
pub const CLASS_BASIC: u16 = 0x8000;
/// Bytes of a TLV's header.
const OXM_HEADER_BYTES: usize = 4;
/// `OFPMT_OXM` (§7.2.3.1).
const MATCH_TYPE_OXM: u16 = 1;
/// Bytes of a match's type and length, which its length includes.
const MATCH_HEADER_BYTES: u16 = 4;
/// Longest payload: its length is one byte.
const PAYLOAD_BYTES_MAX: usize = 255;

macro_rules! match_fields {
    ($($name:ident = $number:literal $standard:literal $bytes:literal bytes $maskable:literal,)*) => {
        /// The fields of class `OFPXMC_OPENFLOW_BASIC` (§7.2.3.7).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum MatchField {
            $(#[doc = concat!("`", $standard, "`")] $name = $number,)*
        }

        impl MatchField {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name by which operators know it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $standard),* }
            }

            /// Bytes of its value.
            #[must_use]
            pub fn bytes(self) -> usize {
                match self { $(Self::$name => $bytes),* }
            }

            /// Whether the standard allows a mask.
            #[must_use]
            pub fn is_maskable(self) -> bool {
                match self { $(Self::$name => $maskable),* }
            }
        }
    };
}

match_fields! {
    InPort = 0 "in_port" 4 bytes false,
    InPhyPort = 1 "in_phy_port" 4 bytes false,
    Metadata = 2 "metadata" 8 bytes true,
    EthDst = 3 "eth_dst" 6 bytes true,
    EthSrc = 4 "eth_src" 6 bytes true,
    EthType = 5 "eth_type" 2 bytes false,
    VlanVid = 6 "vlan_vid" 2 bytes true,
    VlanPcp = 7 "vlan_pcp" 1 bytes false,
    IpDscp = 8 "ip_dscp" 1 bytes false,
    IpEcn = 9 "ip_ecn" 1 bytes false,
    IpProto = 10 "ip_proto" 1 bytes false,
    Ipv4Src = 11 "ipv4_src" 4 bytes true,
    Ipv4Dst = 12 "ipv4_dst" 4 bytes true,
    TcpSrc = 13 "tcp_src" 2 bytes false,
    TcpDst = 14 "tcp_dst" 2 bytes false,
    UdpSrc = 15 "udp_src" 2 bytes false,
    UdpDst = 16 "udp_dst" 2 bytes false,
    SctpSrc = 17 "sctp_src" 2 bytes false,
    SctpDst = 18 "sctp_dst" 2 bytes false,
    Icmpv4Type = 19 "icmpv4_type" 1 bytes false,
    Icmpv4Code = 20 "icmpv4_code" 1 bytes false,
    ArpOp = 21 "arp_op" 2 bytes false,
    ArpSpa = 22 "arp_spa" 4 bytes true,
    ArpTpa = 23 "arp_tpa" 4 bytes true,
    ArpSha = 24 "arp_sha" 6 bytes true,
    ArpTha = 25 "arp_tha" 6 bytes true,
    Ipv6Src = 26 "ipv6_src" 16 bytes true,
    Ipv6Dst = 27 "ipv6_dst" 16 bytes true,
    Ipv6Flabel = 28 "ipv6_flabel" 4 bytes true,
    Icmpv6Type = 29 "icmpv6_type" 1 bytes false,
    Icmpv6Code = 30 "icmpv6_code" 1 bytes false,
    Ipv6NdTarget = 31 "ipv6_nd_target" 16 bytes false,
    Ipv6NdSll = 32 "ipv6_nd_sll" 6 bytes false,
    Ipv6NdTll = 33 "ipv6_nd_tll" 6 bytes false,
    MplsLabel = 34 "mpls_label" 4 bytes false,
    MplsTc = 35 "mpls_tc" 1 bytes false,
    MplsBos = 36 "mpls_bos" 1 bytes false,
    PbbIsid = 37 "pbb_isid" 3 bytes true,
    TunnelId = 38 "tunnel_id" 8 bytes true,
    Ipv6Exthdr = 39 "ipv6_exthdr" 2 bytes true,
}

impl MatchField {
    /// The field with this number, if 1.3.5 has one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The field of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.as_str() == name)
    }
}

/// A value or mask doesn't have the field's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{} has {} bytes, not {has}", .field.as_str(), .field.bytes())]
pub struct OxmError {
    /// Which field.
    pub field: MatchField,
    /// Bytes that it was given.
    pub has: usize,
}

/// One field of a match: its value, and where masked the bits of it that count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oxm {
    class: u16,
    /// Seven bits.
    number: u8,
    /// With the mask at most [`PAYLOAD_BYTES_MAX`].
    value: Vec<u8>,
    /// As long as the value.
    mask: Option<Vec<u8>>,
}

impl Oxm {
    /// A field of class `OFPXMC_OPENFLOW_BASIC`, in network byte order.
    ///
    /// # Errors
    /// [`OxmError`] where value or mask doesn't have the field's length.
    pub fn new(field: MatchField, value: &[u8], mask: Option<&[u8]>) -> Result<Self, OxmError> {
        for bytes in [Some(value), mask].into_iter().flatten() {
            if bytes.len() != field.bytes() {
                return Err(OxmError { field, has: bytes.len() });
            }
        }
        Ok(Self::of(field, value, mask))
    }

    /// As `new`, for callers whose types have the length.
    fn of(field: MatchField, value: &[u8], mask: Option<&[u8]>) -> Self {
        let (value, mask) = (value.to_vec(), mask.map(<[u8]>::to_vec));
        Self { class: CLASS_BASIC, number: field as u8, value, mask }
    }

    /// A set-field's argument: `ip_dscp` (§7.2.5).
    #[must_use]
    pub fn ip_dscp(dscp: u8) -> Self {
        Self::of(MatchField::IpDscp, &[dscp], None)
    }

    /// Its class (§7.2.3.3).
    #[must_use]
    pub fn class(&self) -> u16 {
        self.class
    }

    /// Its number within its class.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Which field it is, if 1.3.5 has it.
    #[must_use]
    pub fn field(&self) -> Option<MatchField> {
        if self.class == CLASS_BASIC { MatchField::from_u8(self.number) } else { None }
    }

    /// In network byte order.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The bits of the value that count; all of them where there is no mask.
    #[must_use]
    pub fn mask(&self) -> Option<&[u8]> {
        self.mask.as_deref()
    }

    /// The same meaning in the one form that two switches can be compared by: no mask of ones, no bits of the value outside
    /// the mask, and nothing at all for a mask of zeros.
    fn canonical(&self) -> Option<Self> {
        let Some(mask) = &self.mask else { return Some(self.clone()) };
        if mask.iter().all(|byte| *byte == 0) {
            return None;
        }
        let value = self.value.iter().zip(mask).map(|(value, mask)| value & mask).collect();
        let mask = mask.iter().any(|byte| *byte != 0xff).then(|| mask.clone());
        Some(Self { value, mask, ..*self })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let bytes = self.value.len() + self.mask.as_ref().map_or(0, Vec::len);
        put_u16(out, self.class);
        out.push((self.number << 1) | u8::from(self.mask.is_some()));
        out.push(u8::try_from(bytes).unwrap_or(u8::MAX));
        out.extend(&self.value);
        out.extend(self.mask.iter().flatten());
    }

    /// One TLV of `reader`; the error is that of a match or a set-field, which the caller knows.
    pub(super) fn decode(reader: &mut Reader<'_>, bad_length: ErrorKind) -> Result<Self, Fault> {
        let fault = |_source| Fault::Standard(bad_length);
        let class = reader.u16("oxm class").map_err(fault)?;
        let field = reader.u8("oxm field").map_err(fault)?;
        let bytes = usize::from(reader.u8("oxm length").map_err(fault)?);
        let payload = reader.take("oxm payload", bytes).map_err(fault)?;
        let is_masked = field & 1 != 0;
        if is_masked && bytes % 2 != 0 {
            return Err(Fault::Standard(bad_length));
        }
        let (value, mask) = payload.split_at(if is_masked { bytes / 2 } else { bytes });
        let mask = is_masked.then(|| mask.to_vec());
        Ok(Self { class, number: field >> 1, value: value.to_vec(), mask })
    }

    /// Bytes of the whole TLV.
    pub(super) fn bytes(&self) -> usize {
        OXM_HEADER_BYTES + self.value.len() + self.mask.as_ref().map_or(0, Vec::len)
    }
}

const _: () = assert!(PAYLOAD_BYTES_MAX >= 2 * 16, "an IPv6 address and its mask fit a payload");

impl fmt::Display for Oxm {
    /// `eth_src=020000000001/ffffffffff00`; what 1.3.5 has no name for as `oxm(class,number)=…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field() {
            Some(field) => f.write_str(field.as_str())?,
            None => write!(f, "oxm({:#06x},{})", self.class, self.number)?,
        }
        write!(f, "={}", hex::encode(&self.value))?;
        match &self.mask {
            Some(mask) => write!(f, "/{}", hex::encode(mask)),
            None => Ok(()),
        }
    }
}

/// `struct ofp_match` (§7.2.3.1): all of its fields must match; without any, every frame does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Match {
    /// In the order of the message, in which a prerequisite stands before what needs it (§7.2.3.6).
    pub fields: Vec<Oxm>,
}

macro_rules! exact_fields {
    ($($method:ident = $field:ident $kind:ty,)*) => {
        $(
            #[doc = concat!("Adds `", stringify!($method), "`.")]
            #[must_use]
            pub fn $method(self, value: $kind) -> Self {
                self.and(Oxm::of(MatchField::$field, &value.to_be_bytes(), None))
            }
        )*
    };
}

impl Match {
    /// Every frame.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Adds a field behind those that are there.
    #[must_use]
    pub fn and(mut self, field: Oxm) -> Self {
        self.fields.push(field);
        self
    }

    exact_fields! {
        in_port = InPort u32,
        eth_type = EthType u16,
        vlan_vid = VlanVid u16,
        ip_proto = IpProto u8,
        ip_dscp = IpDscp u8,
        tcp_src = TcpSrc u16,
        tcp_dst = TcpDst u16,
        udp_src = UdpSrc u16,
        udp_dst = UdpDst u16,
    }

    /// Adds `eth_src`.
    #[must_use]
    pub fn eth_src(self, mac: [u8; 6]) -> Self {
        self.and(Oxm::of(MatchField::EthSrc, &mac, None))
    }

    /// Adds `eth_dst`.
    #[must_use]
    pub fn eth_dst(self, mac: [u8; 6]) -> Self {
        self.and(Oxm::of(MatchField::EthDst, &mac, None))
    }

    /// The field, where the match has it; the first, if it has two.
    #[must_use]
    pub fn field(&self, field: MatchField) -> Option<&Oxm> {
        self.fields.iter().find(|oxm| oxm.field() == Some(field))
    }

    /// The same meaning in one form, by which what was asked for and what a switch reports can be compared: fields by class
    /// and number (which keeps prerequisites in front), without masks of ones, and without fields whose mask is zero.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let mut fields: Vec<_> = self.fields.iter().filter_map(Oxm::canonical).collect();
        fields.sort();
        Self { fields }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let fields: usize = self.fields.iter().map(Oxm::bytes).sum();
        // What doesn't fit 16 bits doesn't fit the message either, whose length is checked.
        let length = u16::try_from(fields).unwrap_or(u16::MAX).saturating_add(MATCH_HEADER_BYTES);
        put_u16(out, MATCH_TYPE_OXM);
        put_u16(out, length);
        for field in &self.fields {
            field.encode(out);
        }
        out.extend(std::iter::repeat_n(0, padding(length.into())));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let bad_length = ErrorKind::BadMatch(BadMatch::BadLen);
        let fault = |_source| Fault::Standard(bad_length);
        if reader.u16("match type").map_err(fault)? != MATCH_TYPE_OXM {
            return Err(Fault::Standard(ErrorKind::BadMatch(BadMatch::BadType)));
        }
        let length = reader.u16("match length").map_err(fault)?;
        let bytes = length.checked_sub(MATCH_HEADER_BYTES).ok_or(Fault::Standard(bad_length))?;
        let mut inner = Reader::new(reader.take("match fields", bytes.into()).map_err(fault)?);
        reader.take("match padding", padding(length.into())).map_err(fault)?;
        let mut fields = Vec::new();
        while inner.finish().is_err() {
            fields.push(Oxm::decode(&mut inner, bad_length)?);
        }
        Ok(Self { fields })
    }
}

impl fmt::Display for Match {
    /// Fields with commas between them; `any` without fields.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fields.is_empty() {
            return f.write_str("any");
        }
        for (at, field) in self.fields.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{field}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
