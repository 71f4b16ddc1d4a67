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

mod check;
mod field;
mod pattern;

use std::fmt;

pub use check::Checked;
pub use field::{MatchField, Prerequisite, VLAN_VID_NONE, VLAN_VID_PRESENT, eth_type, ip_proto};
pub use pattern::Match;
use smallvec::SmallVec;
use thiserror::Error;

use super::error::ErrorKind;
use super::message::Fault;
use super::wire::put_u16;
use crate::wire::Reader;

/// `OFPXMC_OPENFLOW_BASIC` (§7.2.3.3).
pub const CLASS_BASIC: u16 = 0x8000;
/// `OFPXMC_EXPERIMENTER` (§7.2.3.3).
pub const CLASS_EXPERIMENTER: u16 = 0xffff;
/// Bytes of a TLV's header.
const OXM_HEADER_BYTES: usize = 4;
/// Longest payload: its length is one byte.
const PAYLOAD_BYTES_MAX: usize = 255;

/// A value or mask doesn't have the field's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{} has {} bytes, not {has}", .field.as_str(), .field.bytes())]
pub struct OxmError {
    /// Which field.
    pub field: MatchField,
    /// Bytes that it was given.
    pub has: usize,
}

/// A field's value and the bits of it that count, right-aligned. Bits outside the field's width are zero in both, and bits
/// outside the mask in the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Masked {
    /// The bits.
    pub value: u128,
    /// Those that count; all of the field's width where it has no mask.
    pub mask: u128,
}

/// One field of a match: its value, and where masked the bits of it that count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oxm {
    class: u16,
    /// Seven bits.
    number: u8,
    /// With the mask at most [`PAYLOAD_BYTES_MAX`].
    value: Bytes,
    /// As long as the value.
    mask: Option<Bytes>,
}

/// As long as an IPv6 address, the longest value of 1.3.5; what is longer is another's, and on the heap.
type Bytes = SmallVec<[u8; 16]>;

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

    /// A field with exactly this value, right-aligned.
    ///
    /// # Errors
    /// [`OxmError`] where the value has more bytes than the field.
    pub fn exact(field: MatchField, value: u128) -> Result<Self, OxmError> {
        Self::new(field, aligned(field, &value.to_be_bytes())?, None)
    }

    /// A field of which the bits of `mask` count, both right-aligned.
    ///
    /// # Errors
    /// [`OxmError`] where value or mask has more bytes than the field.
    pub fn masked(field: MatchField, value: u128, mask: u128) -> Result<Self, OxmError> {
        let (value, mask) = (value.to_be_bytes(), mask.to_be_bytes());
        Self::new(field, aligned(field, &value)?, Some(aligned(field, &mask)?))
    }

    /// As `new`, for callers whose types have the length.
    fn of(field: MatchField, value: &[u8], mask: Option<&[u8]>) -> Self {
        let (value, mask) = (Bytes::from_slice(value), mask.map(Bytes::from_slice));
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

    /// The value, right-aligned; `None` where it has more than 16 bytes, as no field of 1.3.5 has.
    #[must_use]
    pub fn value_number(&self) -> Option<u128> {
        number(&self.value)
    }

    /// Value and mask, right-aligned, within the field's width; `None` for a field that 1.3.5 doesn't have and for one that
    /// hasn't its length.
    #[must_use]
    pub fn masked_value(&self) -> Option<Masked> {
        let field = self.field().filter(|field| field.bytes() == self.value.len())?;
        let mask = match &self.mask {
            Some(mask) => number(mask)? & field.ones(),
            None => field.ones(),
        };
        Some(Masked { value: number(&self.value)? & mask, mask })
    }

    /// The same meaning in the one form that two switches can be compared by: no mask of ones, no bits of the value outside
    /// the mask, and nothing at all for a mask of zeros.
    fn canonical(&self) -> Option<Self> {
        let Some(mask) = &self.mask else { return Some(self.clone()) };
        if mask.iter().all(|byte| *byte == 0) {
            return None;
        }
        let value = self.value.iter().zip(mask).map(|(value, mask)| value & mask).collect();
        let is_exact = match (self.field(), self.masked_value()) {
            (Some(field), Some(masked)) => masked.mask == field.ones(),
            (Some(_) | None, _) => mask.iter().all(|byte| *byte == 0xff),
        };
        let mask = (!is_exact).then(|| mask.clone());
        Some(Self { value, mask, ..*self })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let bytes = self.value.len() + self.mask.as_ref().map_or(0, |mask| mask.len());
        put_u16(out, self.class);
        out.push((self.number << 1) | u8::from(self.mask.is_some()));
        out.push(u8::try_from(bytes).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.value);
        out.extend_from_slice(self.mask.as_deref().unwrap_or_default());
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
        let mask = is_masked.then(|| Bytes::from_slice(mask));
        Ok(Self { class, number: field >> 1, value: Bytes::from_slice(value), mask })
    }

    /// Bytes of the whole TLV.
    pub(super) fn bytes(&self) -> usize {
        OXM_HEADER_BYTES + self.value.len() + self.mask.as_ref().map_or(0, |mask| mask.len())
    }
}

fn number(bytes: &[u8]) -> Option<u128> {
    let mut number = [0; 16];
    number.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(u128::from_be_bytes(number))
}

/// The lowest bytes of a number, as many as the field has.
fn aligned(field: MatchField, number: &[u8; 16]) -> Result<&[u8], OxmError> {
    let (above, value) = number.split_at(number.len() - field.bytes());
    match above.iter().position(|byte| *byte != 0) {
        None => Ok(value),
        Some(first) => Err(OxmError { field, has: number.len() - first }),
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

#[cfg(test)]
mod tests;
