//! Messages of others' making (§7.5.4, §7.3.5.15): whose they are, and their bytes.

use super::wire::put_u32;
use crate::wire::{Reader, WireError};

/// `struct ofp_experimenter_header`, and of a multipart `struct ofp_experimenter_multipart_header`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Experimenter {
    /// Who defined it.
    pub experimenter: u32,
    /// The experimenter's own type.
    pub exp_type: u32,
    /// As it came.
    pub data: Vec<u8>,
}

impl Experimenter {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.experimenter);
        put_u32(out, self.exp_type);
        out.extend(&self.data);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (experimenter, exp_type) = (reader.u32("experimenter")?, reader.u32("exp_type")?);
        Ok(Self { experimenter, exp_type, data: reader.rest().to_vec() })
    }
}
