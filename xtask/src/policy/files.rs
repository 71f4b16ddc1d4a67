//! The three files: the patient's seed, the policy, the enrolment.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use caregate_host::key_file::{self, Existing};
use caregate_protocol::policy::{DOCUMENT_BYTES_MAX, PolicyDocument};
use ledger_client::verify::FileEnrolment as Enrolment;
use ledger_client::wallet::PatientSeed;

/// A pin takes some 250 bytes: 256 patients with 16 relationships each.
const ENROLMENT_BYTES_MAX: usize = 1 << 20;
/// Pseudonyms and public keys: for the gateway's user and group.
const PUBLIC_MODE: u32 = 0o640;

fn read(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(u64::try_from(bytes_max).unwrap_or(u64::MAX)).read_to_end(&mut bytes))
        .with_context(|| format!("read {}", path.display()))?;
    Ok(bytes)
}

/// Makes a patient's seed and keeps it in a new file with mode 0600.
///
/// # Errors
/// If the file exists or can't be written.
pub(crate) fn create_seed(path: &Path) -> anyhow::Result<PatientSeed> {
    let seed = PatientSeed::generate();
    key_file::write_hex(path, seed.as_bytes(), Existing::Keep)?;
    Ok(seed)
}

/// Reads a patient's seed from a file that none but its owner may touch.
///
/// # Errors
/// If it isn't a regular file, its mode lets others in, or it holds no seed.
pub(crate) fn load_seed(path: &Path) -> anyhow::Result<PatientSeed> {
    Ok(PatientSeed::from_bytes(*key_file::read_hex::<32>(path)?))
}

/// Reads a policy file.
///
/// # Errors
/// The file, and what is wrong with it by key.
pub(crate) fn load_document(path: &Path) -> anyhow::Result<PolicyDocument> {
    let bytes = read(path, DOCUMENT_BYTES_MAX + 1)?;
    PolicyDocument::decode(&bytes).with_context(|| path.display().to_string())
}

/// Reads an enrolment file.
///
/// # Errors
/// The file, and what is wrong with it by key.
pub(crate) fn load_enrolment(path: &Path) -> anyhow::Result<Enrolment> {
    let bytes = read(path, ENROLMENT_BYTES_MAX + 1)?;
    if bytes.len() > ENROLMENT_BYTES_MAX {
        bail!("{} has more than {ENROLMENT_BYTES_MAX} bytes", path.display());
    }
    let enrolment: Enrolment = toml::from_slice(&bytes).with_context(|| path.display().to_string())?;
    enrolment.pins().with_context(|| path.display().to_string())?;
    Ok(enrolment)
}

/// Puts `bytes` in place of `path` in one step: a gateway that reads meanwhile sees the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(PUBLIC_MODE).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Writes a policy file, mode 0640.
///
/// # Errors
/// If the document breaks a bound or the file can't be written.
pub(crate) fn store_document(path: &Path, document: &PolicyDocument) -> anyhow::Result<()> {
    replace(path, &document.encode().with_context(|| path.display().to_string())?)
}

/// Writes an enrolment file, mode 0640.
///
/// # Errors
/// If a pin comes twice or the file can't be written.
pub(crate) fn store_enrolment(path: &Path, enrolment: &Enrolment) -> anyhow::Result<()> {
    enrolment.pins().with_context(|| path.display().to_string())?;
    let text = toml::to_string(enrolment).with_context(|| path.display().to_string())?;
    replace(path, text.as_bytes())
}
