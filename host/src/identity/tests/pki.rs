//! CAs, certificates and handshakes for the tests, including certificates that `xtask pki` would never issue.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tempfile::TempDir;

use crate::identity::{Identity, IdentityFiles, Role, provider};

pub(super) const DOMAIN: &str = "home.example";

/// A certificate authority of the tests.
pub(super) struct Ca {
    pub(super) pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What is unusual about a certificate.
#[derive(Clone)]
pub(super) struct Odd {
    pub(super) uris: Vec<String>,
    /// First and last year of validity.
    pub(super) years: (i32, i32),
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Odd {
    pub(super) fn not(role: Role, name: &str) -> Self {
        Self {
            uris: vec![format!("spiffe://{DOMAIN}/{role}/{name}")],
            years: (2020, 4000),
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

/// A certificate with its key.
pub(super) struct Leaf {
    pub(super) der: CertificateDer<'static>,
    pub(super) pem: String,
    pub(super) key: KeyPair,
}

impl Leaf {
    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn issue(&self, odd: &Odd) -> Leaf {
        self.issue_for(KeyPair::generate().unwrap(), odd)
    }

    fn issue_for(&self, key: KeyPair, odd: &Odd) -> Leaf {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        for uri in &odd.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        }
        params.not_before = rcgen::date_time_ymd(odd.years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(odd.years.1, 1, 1);
        params.extended_key_usages = odd.usages.clone();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    pub(super) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        roots
    }
}

/// Writes a daemon's three files.
pub(super) fn write(directory: &Path, ca_pem: &str, leaf: &Leaf) -> IdentityFiles {
    let files = IdentityFiles {
        certificate: directory.join("cert.pem"),
        key: directory.join("key.pem"),
        ca: directory.join("ca.pem"),
    };
    fs::write(&files.ca, ca_pem).unwrap();
    fs::write(&files.certificate, &leaf.pem).unwrap();
    fs::write(&files.key, leaf.key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    files
}

/// A daemon: its identity and the directory with its files.
pub(super) struct Daemon {
    pub(super) identity: Arc<Identity>,
    pub(super) files: IdentityFiles,
    directory: TempDir,
}

impl Daemon {
    pub(super) fn new(ca: &Ca, role: Role, name: &str) -> Self {
        Self::with_key(ca, KeyPair::generate().unwrap(), role, name)
    }

    pub(super) fn with_key(ca: &Ca, key: KeyPair, role: Role, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = write(directory.path(), &ca.pem, &ca.issue_for(key, &Odd::not(role, name)));
        Self { identity: Identity::load(&files).unwrap(), files, directory }
    }

    pub(super) fn replace(&self, ca_pem: &str, leaf: &Leaf) {
        write(self.directory.path(), ca_pem, leaf);
    }
}

/// A client that checks nothing about us beyond the CA and shows whatever certificate it was given.
pub(super) fn stranger_client(ca: &Ca, leaf: Option<&Leaf>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca.roots());
    match leaf {
        Some(leaf) => builder.with_client_auth_cert(vec![leaf.der.clone()], leaf.key_der()).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// A server that shows whatever certificate it was given.
pub(super) fn stranger_server(leaf: &Leaf) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
        .unwrap()
}

/// How a handshake went: each end's connection, or each end's error as text.
pub(super) type Outcome = Result<(ClientConnection, ServerConnection), Refused>;

#[derive(Debug)]
pub(super) struct Refused {
    pub(super) by_client: Option<String>,
    pub(super) by_server: Option<String>,
}

/// Drives both ends to the end of the handshake, byte by byte of what each writes.
pub(super) fn shake(client: ClientConfig, server: ServerConfig) -> Outcome {
    shake_with(&Arc::new(client), &Arc::new(server))
}

pub(super) fn shake_with(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Outcome {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut refused = Refused { by_client: None, by_server: None };
    loop {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut moved = wire.len();
        let mut rest = wire.as_slice();
        while refused.by_server.is_none() && !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            refused.by_server = server.process_new_packets().err().map(|error| error.to_string());
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        moved += wire.len();
        let mut rest = wire.as_slice();
        while refused.by_client.is_none() && !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            refused.by_client = client.process_new_packets().err().map(|error| error.to_string());
        }
        if moved == 0 {
            break;
        }
    }
    match refused {
        Refused { by_client: None, by_server: None } => {
            assert!(!client.is_handshaking() && !server.is_handshaking());
            Ok((client, server))
        }
        refused => Err(refused),
    }
}
