//! Records of a fixed size that end with a device's signature (RFC 8032): what is signed is a prefix, one for each kind of record, and all
//! that stands before the signature.

use ed25519_dalek::{SIGNATURE_LENGTH, Signature, VerifyingKey};

use crate::id::SignerId;
use crate::segment::signer_id;

/// Why a record is not a device's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// It names another device.
    Signer,
    /// The device has not signed it.
    Signature,
}

/// Checks that `device` is the `signer` that a record names, and signed it (strict: no signature has a second form).
///
/// # Errors
/// [`Unsigned`].
pub(crate) fn verify(
    record: &[u8],
    prefix: &[u8],
    signer: SignerId,
    device: &VerifyingKey,
) -> Result<(), Unsigned> {
    if signer_id(device) != signer {
        return Err(Unsigned::Signer);
    }
    let (signed, signature) = record.split_last_chunk::<SIGNATURE_LENGTH>().ok_or(Unsigned::Signature)?;
    let signed = [prefix, signed].concat();
    device.verify_strict(&signed, &Signature::from_bytes(signature)).map_err(|_source| Unsigned::Signature)
}
