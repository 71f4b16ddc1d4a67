//! The five commands of a TPM 2.0 that keep one small secret (TPM 2.0 Library Specification rev. 1.59, Part 3), and their responses.
//!
//! ```text
//!   command   tag(2) size(4) code(4) handles  [authorization size(4), password session(9)]  parameters
//!   response  tag(2) size(4) rc(4)   [handle] [parameter size(4)]                            parameters  …
//! ```
//! All numbers are big-endian; a `TPM2B` is its length (2) and so many bytes. The secret is a sealed data object below an ECC primary of
//! the owner hierarchy, which the TPM makes again from its own seed each time, so nothing is stored in it. Objects have no password:
//! what protects the secret is that it opens in this TPM alone.

use thiserror::Error;
use zeroize::Zeroizing;

use crate::wire::{Reader, WireError};

/// Longest command or response of a TPM (Part 2, MAX_COMMAND_SIZE of the PC client profile).
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes before a response's handle or parameters.
pub const HEADER_BYTES: usize = 10;
/// Longest secret that a TPM seals (Part 2, MAX_SYM_DATA).
pub const SECRET_BYTES_MAX: usize = 128;
/// Longest part of a sealed object that is kept: its private half has some 200 bytes.
const PART_BYTES_MAX: usize = 1024;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
const UNSEAL: u32 = 0x15e;
const FLUSH_CONTEXT: u32 = 0x165;
const RH_OWNER: u32 = 0x4000_0001;
/// The empty password: session TPM_RS_PW, no nonce, no attributes, no HMAC.
const EMPTY_PASSWORD: [u8; 9] = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];
/// TPM_RC_RETRY, TPM_RC_YIELDED and TPM_RC_TESTING: the same command again (Part 2 §6.6.3).
const AGAIN: [u32; 3] = [0x922, 0x908, 0x90a];

/// An object that is loaded in the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(pub u32);

/// A sealed object as it is kept outside of the TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// `TPM2B_PRIVATE` without its length: encrypted by the TPM.
    pub private: Vec<u8>,
    /// `TPM2B_PUBLIC` without its length.
    pub public: Vec<u8>,
}

/// Why a response is none, or what the TPM says instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TpmError {
    /// A field is missing or bytes follow the end.
    #[error("TPM response: {0}")]
    Wire(#[from] WireError),
    /// A size or a tag that no response has.
    #[error("TPM response: malformed")]
    Malformed,
    /// The TPM wants the same command again.
    #[error("the TPM is busy (response code {0:#05x})")]
    Again(u32),
    /// The TPM refuses.
    #[error("the TPM refuses with response code {0:#05x}")]
    Refused(u32),
}

/// `TPM2_CreatePrimary`: the storage key under which the secret is sealed.
#[must_use]
pub fn create_primary() -> Vec<u8> {
    // ECC, name by SHA-256; fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt; no policy;
    // AES-128-CFB, no scheme, NIST P-256, no KDF; both halves of `unique` empty.
    const PUBLIC: [u8; 26] =
        [0, 0x23, 0, 0x0b, 0, 3, 4, 0x72, 0, 0, 0, 6, 0, 128, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0];
    command(CREATE_PRIMARY, RH_OWNER, &[&part(&[0; 4]), &part(&PUBLIC), &NO_CREATION_DATA])
}

/// Empty `outsideInfo`, and no PCR.
const NO_CREATION_DATA: [u8; 6] = [0; 6];

/// `TPM2_Create`: seals a secret of at most [`SECRET_BYTES_MAX`] bytes below `parent`.
#[must_use]
pub fn create(parent: Handle, secret: &[u8]) -> Zeroizing<Vec<u8>> {
    // KEYEDHASH, name by SHA-256; fixedTPM, fixedParent, userWithAuth, noDA; no policy; no scheme; `unique` empty.
    const PUBLIC: [u8; 14] = [0, 8, 0, 0x0b, 0, 0, 4, 0x52, 0, 0, 0, 0x10, 0, 0];
    debug_assert!(secret.len() <= SECRET_BYTES_MAX, "a TPM seals no more");
    let data = Zeroizing::new(part(secret));
    let sensitive = Zeroizing::new(part(&Zeroizing::new([&[0, 0], data.as_slice()].concat())));
    Zeroizing::new(command(CREATE, parent.0, &[&sensitive, &part(&PUBLIC), &NO_CREATION_DATA]))
}

/// `TPM2_Load`.
#[must_use]
pub fn load(parent: Handle, sealed: &Sealed) -> Vec<u8> {
    command(LOAD, parent.0, &[&part(&sealed.private), &part(&sealed.public)])
}

/// `TPM2_Unseal`.
#[must_use]
pub fn unseal(object: Handle) -> Vec<u8> {
    command(UNSEAL, object.0, &[])
}

/// `TPM2_FlushContext`.
#[must_use]
pub fn flush(object: Handle) -> Vec<u8> {
    let mut out = Vec::with_capacity(14);
    out.extend_from_slice(&NO_SESSIONS.to_be_bytes());
    out.extend_from_slice(&14_u32.to_be_bytes());
    out.extend_from_slice(&FLUSH_CONTEXT.to_be_bytes());
    out.extend_from_slice(&object.0.to_be_bytes());
    out
}

fn part(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

fn command(code: u32, handle: u32, parameters: &[&[u8]]) -> Vec<u8> {
    let length =
        HEADER_BYTES + 4 + 4 + EMPTY_PASSWORD.len() + parameters.iter().map(|part| part.len()).sum::<usize>();
    // With its length at once: a vector that grew would leave a secret behind.
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&SESSIONS.to_be_bytes());
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&handle.to_be_bytes());
    out.extend_from_slice(&9_u32.to_be_bytes());
    out.extend_from_slice(&EMPTY_PASSWORD);
    parameters.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// How long the response is whose first [`HEADER_BYTES`] these are.
///
/// # Errors
/// [`TpmError::Malformed`] where no response is so long.
pub fn response_length(header: &[u8; HEADER_BYTES]) -> Result<usize, TpmError> {
    let size = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    if (HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&length) { Ok(length) } else { Err(TpmError::Malformed) }
}

/// What follows a good response's header.
fn body(response: &[u8]) -> Result<(u16, Reader<'_>), TpmError> {
    let mut r = Reader::new(response);
    let (tag, size, code) = (r.u16("tag")?, r.u32("size")?, r.u32("response code")?);
    if usize::try_from(size) != Ok(response.len()) || ![NO_SESSIONS, SESSIONS].contains(&tag) {
        return Err(TpmError::Malformed);
    }
    match code {
        0 => Ok((tag, r)),
        busy if AGAIN.contains(&busy) => Err(TpmError::Again(busy)),
        other => Err(TpmError::Refused(other)),
    }
}

fn with_parameters(response: &[u8]) -> Result<Reader<'_>, TpmError> {
    match body(response)? {
        (SESSIONS, mut r) => {
            let size = usize::try_from(r.u32("parameter size")?).unwrap_or(usize::MAX);
            Ok(Reader::new(r.take("parameters", size)?))
        }
        (_, _) => Err(TpmError::Malformed),
    }
}

fn bytes<'b>(r: &mut Reader<'b>, field: &'static str, max: usize) -> Result<&'b [u8], TpmError> {
    let length = usize::from(r.u16(field)?);
    if length > max { Err(TpmError::Malformed) } else { Ok(r.take(field, length)?) }
}

/// The object that `TPM2_CreatePrimary` or `TPM2_Load` has loaded.
///
/// # Errors
/// [`TpmError`].
pub fn loaded(response: &[u8]) -> Result<Handle, TpmError> {
    match body(response)? {
        (SESSIONS, mut r) => Ok(Handle(r.u32("handle")?)),
        (_, _) => Err(TpmError::Malformed),
    }
}

/// What `TPM2_Create` has sealed.
///
/// # Errors
/// [`TpmError`].
pub fn created(response: &[u8]) -> Result<Sealed, TpmError> {
    let mut r = with_parameters(response)?;
    let private = bytes(&mut r, "private", PART_BYTES_MAX)?.to_vec();
    let public = bytes(&mut r, "public", PART_BYTES_MAX)?.to_vec();
    Ok(Sealed { private, public })
}

/// What `TPM2_Unseal` has opened.
///
/// # Errors
/// [`TpmError`].
pub fn unsealed(response: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let mut r = with_parameters(response)?;
    let secret = Zeroizing::new(bytes(&mut r, "secret", SECRET_BYTES_MAX)?.to_vec());
    r.finish()?;
    Ok(secret)
}

/// That `TPM2_FlushContext` was done.
///
/// # Errors
/// [`TpmError`].
pub fn flushed(response: &[u8]) -> Result<(), TpmError> {
    let (_, r) = body(response)?;
    Ok(r.finish()?)
}

impl Sealed {
    /// Both parts, each with its length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [part(&self.private), part(&self.public)].concat()
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn decode(encoded: &[u8]) -> Result<Self, TpmError> {
        let mut r = Reader::new(encoded);
        let private = bytes(&mut r, "private", PART_BYTES_MAX)?.to_vec();
        let public = bytes(&mut r, "public", PART_BYTES_MAX)?.to_vec();
        r.finish()?;
        Ok(Self { private, public })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That a TPM takes them shows `edge-gateway`'s test with swtpm.
    #[test]
    fn commands_are_the_specifications() {
        let primary = create_primary();
        assert_eq!(hex::encode(&primary[..18]), "800200000043000001314000000100000009");
        assert_eq!(hex::encode(flush(Handle(0x8000_0000))), "80010000000e0000016580000000");
        for (command, code) in [
            (primary, CREATE_PRIMARY),
            (create(Handle(1), &[7; 32]).to_vec(), CREATE),
            (load(Handle(1), &Sealed { private: vec![1; 3], public: vec![2] }), LOAD),
            (unseal(Handle(1)), UNSEAL),
        ] {
            assert_eq!(command[2..6], u32::try_from(command.len()).unwrap().to_be_bytes());
            assert_eq!(command[6..10], code.to_be_bytes());
        }
    }

    #[test]
    fn responses_are_read_and_refusals_named() {
        let response = |tag: u16, code: u32, rest: &[u8]| {
            let size = u32::try_from(HEADER_BYTES + rest.len()).unwrap();
            [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), rest].concat()
        };
        assert_eq!(loaded(&response(SESSIONS, 0, &[0x80, 0, 0, 1, 0, 0, 0, 0])), Ok(Handle(0x8000_0001)));
        let secret = response(SESSIONS, 0, &[0, 0, 0, 4, 0, 2, 5, 6, 0, 0, 1, 0, 0]);
        assert_eq!(unsealed(&secret).unwrap().as_slice(), [5, 6]);
        assert_eq!(loaded(&response(NO_SESSIONS, 0x1df, &[])), Err(TpmError::Refused(0x1df)));
        assert_eq!(flushed(&response(NO_SESSIONS, 0x922, &[])), Err(TpmError::Again(0x922)));
        assert_eq!(flushed(&response(NO_SESSIONS, 0, &[])), Ok(()));
        assert_eq!(unsealed(&response(NO_SESSIONS, 0, &[])).map(drop), Err(TpmError::Malformed));
        let long = response(SESSIONS, 0, &[0, 0, 0, 4, 0, 200, 5, 6]);
        assert_eq!(unsealed(&long).map(drop), Err(TpmError::Malformed));
        assert_eq!(loaded(&secret[..9]).map(drop).map_err(|e| matches!(e, TpmError::Wire(_))), Err(true));
        let sealed = Sealed { private: vec![1, 2], public: vec![3] };
        assert_eq!(Sealed::decode(&sealed.encode()), Ok(sealed.clone()));
        assert!(Sealed::decode(&sealed.encode()[..6]).is_err());
    }
}
