//! Whether a match is one that the standard allows (§7.2.3.5 to §7.2.3.8), and if not, which error it is.

use smallvec::SmallVec;

use super::super::error::BadMatch;
use super::super::port;
use super::field::{MatchField, Prerequisite, VLAN_VID_NONE, VLAN_VID_PRESENT};
use super::{Masked, Match, Oxm, number};

impl Oxm {
    /// Whether the field, by itself, is one of a match that the standard allows: class, length, mask and value.
    ///
    /// A mask of ones is no mask. Bits of a mask beyond the field's width mean nothing, since those of the value are zero.
    ///
    /// # Errors
    /// `OFPBMC_BAD_FIELD` for a field that 1.3.5 doesn't have, `BAD_LEN`; `BAD_MASK` where it may have none;
    /// `BAD_WILDCARDS` for a bit of the value outside the mask; `BAD_VALUE` for what the field can't hold.
    pub fn check(&self) -> Result<(MatchField, Masked), BadMatch> {
        let field = self.field().ok_or(BadMatch::BadField)?;
        if self.value().len() != field.bytes() {
            return Err(BadMatch::BadLen);
        }
        let whole = self.value_number().ok_or(BadMatch::BadLen)?;
        let mask = match self.mask() {
            Some(mask) => number(mask).ok_or(BadMatch::BadLen)? & field.ones(),
            None => field.ones(),
        };
        if mask != field.ones() && !field.is_maskable() {
            return Err(BadMatch::BadMask);
        }
        if !is_allowed(field, Masked { value: whole, mask }) {
            return Err(BadMatch::BadValue);
        }
        if whole & !mask != 0 {
            return Err(BadMatch::BadWildcards);
        }
        Ok((field, Masked { value: whole, mask }))
    }
}

/// Fields that were checked, the usual number of them in place.
pub type Checked = SmallVec<[(MatchField, Masked); 8]>;

/// Whether the field can hold the value at all.
fn is_allowed(field: MatchField, Masked { value, mask }: Masked) -> bool {
    if value & !field.ones() != 0 {
        return false;
    }
    if field == MatchField::InPort {
        // Ports are numbered from 1; of the reserved ones a frame comes in by these alone (§7.2.1).
        let reserved = [port::LOCAL, port::CONTROLLER].map(u128::from);
        reserved.contains(&value) || (1..port::IN_PORT.into()).contains(&value)
    } else if field == MatchField::InPhyPort {
        value != 0
    } else if field == MatchField::VlanVid && mask == field.ones() {
        // Zero is "no tag"; every other value of a tag has OFPVID_PRESENT (§7.2.3.8).
        value == u128::from(VLAN_VID_NONE) || value & u128::from(VLAN_VID_PRESENT) != 0
    } else {
        true
    }
}

impl Match {
    /// Whether the standard allows it: each field by itself, no field twice, and before each field what it needs.
    ///
    /// # Errors
    /// As [`Oxm::check`], `OFPBMC_DUP_FIELD`, `OFPBMC_BAD_PREREQ`.
    pub fn check(&self) -> Result<(), BadMatch> {
        self.checked().map(drop)
    }

    /// Its fields, in their order, where the standard allows it.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn checked(&self) -> Result<Checked, BadMatch> {
        let mut known = Checked::new();
        for oxm in &self.fields {
            let (field, masked) = oxm.check()?;
            if known.iter().any(|(other, _)| *other == field) {
                return Err(BadMatch::DupField);
            }
            if !is_met(field.prerequisite(), &known) {
                return Err(BadMatch::BadPrereq);
            }
            known.push((field, masked));
        }
        Ok(known)
    }
}

fn is_met(prerequisite: Option<Prerequisite>, before: &[(MatchField, Masked)]) -> bool {
    let find = |field| {
        let masked = before.iter().find(|(other, _)| *other == field).map(|(_, masked)| *masked)?;
        Some(masked).filter(|masked| masked.mask != 0)
    };
    match prerequisite {
        None => true,
        Some(Prerequisite::Present(field)) => find(field).is_some(),
        Some(Prerequisite::OneOf(field, values)) => {
            find(field).is_some_and(|masked| masked.mask == field.ones() && values.contains(&masked.value))
        }
        Some(Prerequisite::Tagged) => {
            find(MatchField::VlanVid).is_some_and(|masked| masked.value & u128::from(VLAN_VID_PRESENT) != 0)
        }
    }
}
