//! A match: all of its fields must match (§7.2.3.1).

use std::fmt;

use super::super::error::{BadMatch, ErrorKind};
use super::super::message::Fault;
use super::super::wire::{padding, put_u16};
use super::{Masked, MatchField, Oxm, OxmError};
use crate::wire::Reader;

/// `OFPMT_OXM` (§7.2.3.1).
const MATCH_TYPE_OXM: u16 = 1;
/// Fields of a match that room is made for at first.
const FIELDS_USUAL: usize = 8;
/// Bytes of a match's type and length, which its length includes.
const MATCH_HEADER_BYTES: u16 = 4;

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

    /// Adds a field with exactly this value, right-aligned.
    ///
    /// # Errors
    /// [`OxmError`] where the value has more bytes than the field.
    pub fn with(self, field: MatchField, value: u128) -> Result<Self, OxmError> {
        Ok(self.and(Oxm::exact(field, value)?))
    }

    /// Adds a field of which the bits of `mask` count, both right-aligned.
    ///
    /// # Errors
    /// [`OxmError`] where value or mask has more bytes than the field.
    pub fn with_mask(self, field: MatchField, value: u128, mask: u128) -> Result<Self, OxmError> {
        Ok(self.and(Oxm::masked(field, value, mask)?))
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

    /// The field's value and the bits of it that count, right-aligned; `None` where no bit of it does.
    #[must_use]
    pub fn get(&self, field: MatchField) -> Option<Masked> {
        self.field(field)?.masked_value().filter(|masked| masked.mask != 0)
    }

    /// The field's value, right-aligned, where all of its bits count.
    #[must_use]
    pub fn exact(&self, field: MatchField) -> Option<u128> {
        self.get(field).filter(|masked| masked.mask == field.ones()).map(|masked| masked.value)
    }

    /// The fields of class `OFPXMC_OPENFLOW_BASIC` of which any bit counts, in their order. After [`check`](Self::check)
    /// these are all there are.
    pub fn iter(&self) -> impl Iterator<Item = (MatchField, Masked)> {
        self.fields
            .iter()
            .filter_map(|oxm| Some((oxm.field()?, oxm.masked_value()?)))
            .filter(|(_, masked)| masked.mask != 0)
    }

    /// The same meaning in one form, by which what was asked for and what a switch reports can be compared: fields by class
    /// and number (which keeps prerequisites in front), without masks of ones, and without fields whose mask is zero.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let mut fields: Vec<_> = self.fields.iter().filter_map(Oxm::canonical).collect();
        fields.sort();
        Self { fields }
    }

    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
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

    pub(in super::super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let bad_length = ErrorKind::BadMatch(BadMatch::BadLen);
        let fault = |_source| Fault::Standard(bad_length);
        if reader.u16("match type").map_err(fault)? != MATCH_TYPE_OXM {
            return Err(Fault::Standard(ErrorKind::BadMatch(BadMatch::BadType)));
        }
        let length = reader.u16("match length").map_err(fault)?;
        let bytes = length.checked_sub(MATCH_HEADER_BYTES).ok_or(Fault::Standard(bad_length))?;
        let mut inner = Reader::new(reader.take("match fields", bytes.into()).map_err(fault)?);
        reader.take("match padding", padding(length.into())).map_err(fault)?;
        // A field takes five bytes at least; most matches have a few.
        let mut fields = Vec::with_capacity(usize::from(bytes / 5).min(FIELDS_USUAL));
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
