//! Certificates of one deployment, and a TLS client that shows one of them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caregate_host::identity::{Identity, IdentityFiles, Role};
use caregate_protocol::openflow::{Header, Message};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tempfile::TempDir;

/// An authority and what it has issued, in a folder of its own.
pub(crate) struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
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
        let files = IdentityFiles { certificate: path("certificate"), key: path("key"), ca: self.ca() };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// A TLS connection to the controller with a certificate of this role and name.
    pub(crate) fn connect(&self, role: Role, name: &str, port: u16) -> Peer {
        let identity = Identity::load(&self.issue(role, name)).unwrap();
        let config = identity.client_config(Role::Controller, None, &[]);
        let server = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(Arc::new(config), server).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        Peer { stream: StreamOwned::new(tls, stream) }
    }
}

/// A client of the controller that says what it likes.
pub(crate) struct Peer {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Peer {
    /// The controller's first message, or none where it refused the connection.
    pub(crate) fn hello(&mut self) -> Option<Message> {
        let mut frame = vec![0; 8];
        self.stream.read_exact(&mut frame).ok()?;
        frame.resize(Header::decode(&frame).unwrap().length.into(), 0);
        self.stream.read_exact(&mut frame[8..]).unwrap();
        Some(Message::decode(&frame).unwrap().1)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Everything until the controller closes.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }
}
