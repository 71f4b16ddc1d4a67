//! What a certificate says, in the words that an operator needs: whose it is, until when, and its fingerprint.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

const DAY_S: i64 = 24 * 60 * 60;
/// Certificates shown from one file: a CA file holds two in a rollover; the bound is for a wrong file.
const PER_FILE_MAX: usize = 100;

/// One certificate of a file.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) file: PathBuf,
    /// The SPIFFE id, or none.
    pub(crate) id: Option<String>,
    pub(crate) ca: bool,
    pub(crate) issuer: String,
    /// RFC 3339.
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    /// Negative when it has expired.
    pub(crate) days_left: i64,
    pub(crate) dns: Vec<String>,
    pub(crate) ip: Vec<IpAddr>,
    /// Fingerprint of the DER form, in hexadecimal.
    pub(crate) sha256: String,
}

/// The certificates in a PEM file, or in each `.pem` file below a directory (two levels: the CA's and its issued ones).
pub(crate) fn show(path: &Path, now_s: i64) -> Result<Vec<Shown>> {
    let mut shown = Vec::new();
    for file in files(path, 2)? {
        let text = fs::read(&file).with_context(|| file.display().to_string())?;
        for pem in Pem::iter_from_buffer(&text).take(PER_FILE_MAX) {
            let pem = pem.with_context(|| format!("{}: not PEM", file.display()))?;
            if pem.label == "CERTIFICATE" {
                let certificate =
                    pem.parse_x509().with_context(|| format!("{}: not X.509", file.display()))?;
                shown.push(describe(&file, &certificate, &pem.contents, now_s)?);
            }
        }
    }
    if shown.is_empty() {
        bail!("{}: no certificate here", path.display());
    }
    Ok(shown)
}

fn files(path: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry?.path();
        if entry.is_dir() && depth > 1 {
            found.extend(files(&entry, depth - 1)?);
        } else if entry.extension().is_some_and(|extension| extension == "pem") {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

fn describe(file: &Path, certificate: &X509Certificate<'_>, der: &[u8], now_s: i64) -> Result<Shown> {
    let (mut id, mut dns, mut ip) = (None, Vec::new(), Vec::new());
    for name in
        certificate.subject_alternative_name()?.map_or([].as_slice(), |names| &names.value.general_names)
    {
        if let GeneralName::URI(uri) = name {
            id = Some((*uri).to_owned());
        } else if let GeneralName::DNSName(name) = name {
            dns.push((*name).to_owned());
        } else if let GeneralName::IPAddress(bytes) = name {
            ip.extend(address(bytes));
        }
    }
    let validity = certificate.validity();
    Ok(Shown {
        file: file.to_owned(),
        id,
        ca: certificate.is_ca(),
        issuer: certificate.issuer().to_string(),
        not_before: rfc3339(validity.not_before.timestamp())?,
        not_after: rfc3339(validity.not_after.timestamp())?,
        days_left: (validity.not_after.timestamp() - now_s).div_euclid(DAY_S),
        dns,
        ip,
        sha256: hex::encode(ring::digest::digest(&ring::digest::SHA256, der)),
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn rfc3339(unix_s: i64) -> Result<String> {
    Ok(OffsetDateTime::from_unix_timestamp(unix_s)?.format(&Rfc3339)?)
}
