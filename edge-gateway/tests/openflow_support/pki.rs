//! Certificates of one deployment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caregate_host::identity::{Identity, IdentityFiles, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tempfile::TempDir;

/// An authority and what it has issued, in a folder of its own.
pub(crate) struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// A new authority.
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        // OpenSSL takes a certificate whose subject is its issuer's for self-signed, so each needs a name of its own.
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// Where all files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Certificate, key and CA of `spiffe://test.example/{role}/{name}`.
    pub(crate) fn issue(&self, role: Role, name: &str) -> IdentityFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = format!("spiffe://test.example/{role}/{name}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |what: &str| self.folder().join(format!("{role}-{name}-{what}.pem"));
        let ca: PathBuf = self.folder().join("ca.pem");
        let files = IdentityFiles { certificate: path("certificate"), key: path("key"), ca };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    /// The same, loaded.
    pub(crate) fn identity(&self, role: Role, name: &str) -> Arc<Identity> {
        Identity::load(&self.issue(role, name)).unwrap()
    }
}
