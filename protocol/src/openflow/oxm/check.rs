//! Whether a match is one that the standard allows (§7.2.3.5 to §7.2.3.8), and if not, which error it is.

use super::super::error::BadMatch;
use super::super::port;
use super::field::{MatchField, Prerequisite, VLAN_VID_NONE, VLAN_VID_PRESENT};
use super::{Masked, Match, Oxm};

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
        let masked = self.masked_value().ok_or(BadMatch::BadLen)?;
        if masked.mask != field.ones() && !field.is_maskable() {
            return Err(BadMatch::BadMask);
        }
        let whole = self.value_number().ok_or(BadMatch::BadLen)?;
        if !is_allowed(field, Masked { value: whole, ..masked }) {
            return Err(BadMatch::BadValue);
        }
        if whole != masked.value {
            return Err(BadMatch::BadWildcards);
        }
        Ok((field, masked))
    }
}

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
        for (at, oxm) in self.fields.iter().enumerate() {
            let (field, _) = oxm.check()?;
            let before = self.fields.get(..at).unwrap_or_default();
            if before.iter().any(|other| other.field() == Some(field)) {
                return Err(BadMatch::DupField);
            }
            if !is_met(field.prerequisite(), before) {
                return Err(BadMatch::BadPrereq);
            }
        }
        Ok(())
    }
}

fn is_met(prerequisite: Option<Prerequisite>, before: &[Oxm]) -> bool {
    let find = |field| {
        let masked = before.iter().find(|oxm| oxm.field() == Some(field))?.masked_value()?;
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
