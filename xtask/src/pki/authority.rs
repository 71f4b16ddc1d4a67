//! The certificate authority: ECDSA P-256, because MQTT clients and browsers that know no Ed25519 certificates must accept it too.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use caregate_host::identity::{IdentityFiles, Role, SpiffeId};
use caregate_host::key_file::{self, Existing};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde::Serialize;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;

use super::private_directory;

const DAY_S: i64 = 24 * 60 * 60;
/// The CA's life. Gateways stay in homes for years; a rollover needs both CAs in every file for as long as that takes.
const CA_DAYS: i64 = 3650;
/// Certificates begin this long before they are issued: a router without a battery clock may be minutes behind.
const BACKDATE_S: i64 = 10 * 60;

/// A certificate authority in its directory: `ca.pem` and `ca.key`.
pub(crate) struct Authority {
    pub(crate) domain: String,
    /// `ca.pem`'s path.
    pub(crate) certificate: PathBuf,
    pem: String,
    not_after_s: i64,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) role: Role,
    pub(crate) name: String,
    /// For clients that check names: browsers, and sensors that connect to a gateway.
    pub(crate) dns: Vec<String>,
    pub(crate) ip: Vec<IpAddr>,
    pub(crate) days: u32,
}

/// What was written for a [`Request`].
#[derive(Debug, Serialize)]
pub(crate) struct Issued {
    /// The SPIFFE id.
    pub(crate) id: String,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
    /// Unix time in seconds.
    pub(crate) not_after_s: i64,
}

impl Issued {
    /// As daemons are configured with.
    #[cfg_attr(not(test), expect(dead_code, reason = "the demo writes configurations from it"))]
    pub(crate) fn files(&self) -> IdentityFiles {
        IdentityFiles { certificate: self.certificate.clone(), key: self.key.clone(), ca: self.ca.clone() }
    }
}

fn moment(unix_s: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(unix_s)
        .with_context(|| format!("{unix_s} s is no time in a certificate's range"))
}

impl Authority {
    /// Makes a CA for `domain` in `directory`, good from `now_s` (Unix seconds) on.
    pub(crate) fn init(directory: &Path, domain: &str, now_s: i64, existing: Existing) -> Result<Self> {
        // Any role and name serve to check the domain as every id will have it.
        SpiffeId::new(domain, Role::Core, "x").with_context(|| format!("domain `{domain}`"))?;
        private_directory(directory)?;
        let (certificate, key_path) = (directory.join("ca.pem"), directory.join("ca.key"));
        if existing == Existing::Keep && certificate.exists() {
            bail!(
                "{}: there is a CA already; --force replaces it, and every certificate it issued ends",
                certificate.display()
            );
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("Caregate CA {domain}"));
        // X.509-SVID §3: a signing certificate's id is that of its trust domain. `open` reads the domain from it.
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = moment(now_s - BACKDATE_S)?;
        params.not_after = moment(now_s + CA_DAYS * DAY_S)?;
        let pem = params.self_signed(&key)?.pem();
        key_file::write(&key_path, key.serialize_pem().as_bytes(), existing)?;
        key_file::write_public(&certificate, pem.as_bytes(), existing)?;
        Self::open(directory)
    }

    /// The CA in a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let (certificate, key_path) = (directory.join("ca.pem"), directory.join("ca.key"));
        let pem = fs::read_to_string(&certificate)
            .with_context(|| format!("{}: no CA here; make one with `pki init`", certificate.display()))?;
        let text = key_file::read(&key_path)?;
        let text =
            std::str::from_utf8(&text).ok().with_context(|| format!("{}: not PEM", key_path.display()))?;
        // rcgen's words are left out: they could carry bytes of the key.
        let key = KeyPair::from_pem(text)
            .ok()
            .with_context(|| format!("{}: no private key in PEM", key_path.display()))?;
        let (domain, not_after_s) = read_ca(&pem, &key).with_context(|| certificate.display().to_string())?;
        let issuer =
            Issuer::from_ca_cert_pem(&pem, key).with_context(|| certificate.display().to_string())?;
        Ok(Self { domain, certificate, pem, not_after_s, issuer })
    }

    /// Issues a certificate with a fresh key and writes `certificate.pem`, `key.pem` and `ca.pem` into `out`.
    pub(crate) fn issue(
        &self,
        request: &Request,
        out: &Path,
        now_s: i64,
        existing: Existing,
    ) -> Result<Issued> {
        let Request { role, name, .. } = request;
        let id =
            SpiffeId::new(&self.domain, *role, name).with_context(|| format!("name `{name}`"))?.to_string();
        let not_after_s = now_s + i64::from(request.days) * DAY_S;
        ensure!(
            not_after_s <= self.not_after_s,
            "the CA ends {} days from now, before the certificate would; use fewer --days or a new CA",
            (self.not_after_s - now_s).div_euclid(DAY_S)
        );
        let params = leaf(request, &id, now_s, not_after_s)?;
        let key = KeyPair::generate()?;
        let pem = params.signed_by(&key, &self.issuer)?.pem();
        private_directory(out)?;
        let (certificate, key_path, ca) =
            (out.join("certificate.pem"), out.join("key.pem"), out.join("ca.pem"));
        if existing == Existing::Keep
            && let Some(there) = [&certificate, &key_path].into_iter().find(|path| path.exists())
        {
            bail!("{}: exists already; --force replaces it", there.display());
        }
        key_file::write(&key_path, key.serialize_pem().as_bytes(), existing)?;
        key_file::write_public(&certificate, pem.as_bytes(), existing)?;
        self.write_ca(&ca)?;
        Ok(Issued { id, certificate, key: key_path, ca, not_after_s })
    }

    /// Puts our CA beside a certificate. A file that holds it already stays: during a rollover it holds two.
    fn write_ca(&self, path: &Path) -> Result<()> {
        match fs::read_to_string(path) {
            Ok(there) if there.contains(self.pem.trim()) => Ok(()),
            Ok(_) | Err(_) => Ok(key_file::write_public(path, self.pem.as_bytes(), Existing::Replace)?),
        }
    }
}

fn leaf(request: &Request, id: &str, now_s: i64, not_after_s: i64) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{} {}", request.role, request.name));
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    for name in &request.dns {
        ensure!(is_dns_name(name), "`{name}` is no DNS name");
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(request.ip.iter().copied().map(SanType::IpAddress));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A daemon is a server on one hop and a client on the next.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = moment(now_s - BACKDATE_S)?;
    params.not_after = moment(not_after_s)?;
    Ok(params)
}

/// RFC 1123 §2.1, in the letters of the wire; internationalised names in their `xn--` form.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Domain and end (Unix seconds) of a CA certificate that must belong to `key`.
fn read_ca(pem: &str, key: &KeyPair) -> Result<(String, i64)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).context("not PEM")?;
    let certificate = pem.parse_x509().context("not an X.509 certificate")?;
    ensure!(certificate.is_ca(), "not a CA's certificate");
    ensure!(
        certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw(),
        "does not belong to the key beside it"
    );
    let names = certificate.subject_alternative_name()?.context("has no SPIFFE id")?;
    let domain = names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        uri.strip_prefix("spiffe://")
    });
    Ok((domain.context("has no SPIFFE id")?.to_owned(), certificate.validity().not_after.timestamp()))
}
