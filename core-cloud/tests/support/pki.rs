//! A certificate authority and identities as `cargo xtask pki` would make them, for tests.

#![allow(dead_code, clippy::unwrap_used, reason = "a test's own helpers, of which each file uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use caregate_host::identity::{Identity, IdentityFiles, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

const DOMAIN: &str = "test.example";

/// A certificate authority.
pub(crate) struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate and writes it with its key and the CA into `dir`.
    pub(crate) fn issue(&self, dir: &Path, role: Role, name: &str) -> IdentityFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let id = format!("spiffe://{DOMAIN}/{role}/{name}");
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str| dir.join(format!("{role}-{name}-{kind}.pem"));
        let files = IdentityFiles { certificate: file("cert"), key: file("key"), ca: file("ca") };
        fs::write(&files.ca, &self.pem).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    /// A loaded identity; its files are gone again.
    pub(crate) fn identity(&self, role: Role, name: &str) -> Arc<Identity> {
        let dir = tempfile::tempdir().unwrap();
        Identity::load(&self.issue(dir.path(), role, name)).unwrap()
    }
}
