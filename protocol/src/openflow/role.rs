//! Roles of several controllers (§7.3.9).

use super::error::{ErrorKind, RoleRequestFailed};
use super::message::Fault;
use super::wire::{pad, put_u32, put_u64};
use crate::wire::Reader;

/// `enum ofp_controller_role`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ControllerRole {
    /// `OFPCR_ROLE_NOCHANGE`
    NoChange = 0,
    /// `OFPCR_ROLE_EQUAL`
    Equal = 1,
    /// `OFPCR_ROLE_MASTER`
    Master = 2,
    /// `OFPCR_ROLE_SLAVE`
    Slave = 3,
}

/// `struct ofp_role_request`, which is the reply's too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Asked for; in a reply, had.
    pub role: ControllerRole,
    /// Of the election that gave the role.
    pub generation_id: u64,
}

impl Role {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put_u32(out, self.role as u32);
        pad(out, 4);
        put_u64(out, self.generation_id);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let role = match reader.u32("role")? {
            0 => Some(ControllerRole::NoChange),
            1 => Some(ControllerRole::Equal),
            2 => Some(ControllerRole::Master),
            3 => Some(ControllerRole::Slave),
            _ => None,
        };
        reader.take("pad", 4)?;
        let generation_id = reader.u64("generation_id")?;
        let bad_role = Fault::Standard(ErrorKind::RoleRequestFailed(RoleRequestFailed::BadRole));
        Ok(Self { role: role.ok_or(bad_role)?, generation_id })
    }
}
