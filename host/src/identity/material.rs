//! What a set of identity files holds, read and checked as a whole.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::{IdentityError, IdentityFiles, SpiffeId, provider};
use crate::key_file;

/// Largest certificate or CA file: 100 CAs at 2 kB are far more than a rollover needs.
const PEM_BYTES_MAX: u64 = 256 * 1024;

#[derive(Debug)]
pub(super) struct Material {
    pub(super) id: SpiffeId,
    pub(super) not_after_s: i64,
    pub(super) key: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    /// Checks a client's chain, dates and key usage against `roots`.
    pub(super) client_chain: Arc<dyn ClientCertVerifier>,
}

impl Material {
    /// Reads the three files and checks that they fit each other and are good at `now`.
    pub(super) fn read(files: &IdentityFiles, now: UnixTime) -> Result<Self, IdentityError> {
        let roots = Arc::new(read_roots(&files.ca)?);
        let client_chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|error| content(&files.ca, error))?;
        let chain = read_certificates(&files.certificate)?;
        let id = SpiffeId::from_certificate(&chain[0]).map_err(|error| content(&files.certificate, error))?;
        let not_after_s = not_after_s(&chain[0]).map_err(|error| content(&files.certificate, error))?;
        let key = read_key(files, chain)?;
        let material = Self { id, not_after_s, key: Arc::new(key), roots, client_chain };
        material.check_own_chain(now).map_err(|error| content(&files.certificate, error))?;
        Ok(material)
    }

    /// Peers will refuse us for what fails here, so say it at once: dates, chain to our own CA file, both key usages.
    fn check_own_chain(&self, now: UnixTime) -> Result<(), rustls::Error> {
        let (own, intermediates) =
            self.key.cert.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        verify_server_chain(own, intermediates, &self.roots, now)?;
        self.client_chain.verify_client_cert(own, intermediates, now)?;
        Ok(())
    }
}

/// Chain to `roots`, dates and key usage of a server's certificate (RFC 5280 §6, by webpki); the name is the caller's to check.
pub(super) fn verify_server_chain(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let certificate = ParsedCertificate::try_from(end_entity)?;
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)
}

fn content(path: &Path, reason: impl ToString) -> IdentityError {
    IdentityError::Content { path: path.to_owned(), reason: reason.to_string() }
}

/// At least one certificate.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let failed = |source| IdentityError::Io { path: path.to_owned(), source };
    let mut pem = Vec::new();
    File::open(path).and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut pem)).map_err(failed)?;
    if pem.len() as u64 > PEM_BYTES_MAX {
        return Err(content(path, format!("longer than {PEM_BYTES_MAX} bytes")));
    }
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(path, format!("not PEM: {error}")))?;
    match certificates.is_empty() {
        true => Err(content(path, "holds no certificate in PEM")),
        false => Ok(certificates),
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| content(path, error))?;
    }
    Ok(roots)
}

fn read_key(
    files: &IdentityFiles,
    chain: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, IdentityError> {
    let pem = key_file::read(&files.key)?;
    // The parser's own words could carry bytes of the key.
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_source| content(&files.key, "holds no private key in PEM"))?;
    let signing_key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_source| content(&files.key, "not an ECDSA P-256, P-384, Ed25519 or RSA key"))?;
    let key = CertifiedKey::new(chain, signing_key);
    key.keys_match().map_err(|_source| {
        content(&files.key, format!("does not belong to the certificate in {}", files.certificate.display()))
    })?;
    Ok(key)
}

fn not_after_s(certificate: &CertificateDer<'_>) -> Result<i64, IdentityError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| IdentityError::Encoding(error.to_string()))?;
    Ok(certificate.validity().not_after.timestamp())
}
