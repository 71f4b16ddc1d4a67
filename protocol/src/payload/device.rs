//! What a device says of itself: `meta`, retained, and `status`, retained and the last will.

use super::{DecodeError, json};

/// Longest text of a [`Meta`] field, in bytes.
pub const META_TEXT_BYTES_MAX: usize = 64;

/// Who made the device; every field is optional, and an emptied retained message has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// `manufacturer`
    pub manufacturer: Option<String>,
    /// `model`
    pub model: Option<String>,
    /// `firmware`, its version.
    pub firmware: Option<String>,
}

/// Whether the device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `online`
    Online,
    /// `offline`
    Offline,
}

pub(super) fn decode_meta(payload: &[u8]) -> Result<Meta, DecodeError> {
    if payload.is_empty() {
        return Ok(Meta::default());
    }
    let fields = json::object(payload)?;
    let text = |key| match fields.text(key)? {
        Some(text) if text.len() > META_TEXT_BYTES_MAX || text.chars().any(char::is_control) => {
            Err(DecodeError::Type { key, expected: "at most 64 bytes without control characters", at: None })
        }
        Some(text) => Ok(Some(text.to_owned())),
        None => Ok(None),
    };
    Ok(Meta { manufacturer: text("manufacturer")?, model: text("model")?, firmware: text("firmware")? })
}

pub(super) fn decode_status(payload: &[u8]) -> Result<Status, DecodeError> {
    match payload {
        b"online" => Ok(Status::Online),
        b"offline" => Ok(Status::Offline),
        _ => Err(DecodeError::Format { expected: "online or offline" }),
    }
}
