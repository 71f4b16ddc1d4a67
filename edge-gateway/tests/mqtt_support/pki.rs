//! Certificates for the doors with TLS.

#![allow(dead_code, reason = "a test's own helpers, of which each file uses its part")]

use std::path::Path;
use std::sync::Arc;

use caregate_host::identity::{Role, peer_id};
use caregate_protocol::id::DeviceId;
use edge_gateway::mqtt::server::{CertificateRefused, TlsDoor};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

/// A certificate authority, and certificates for a server and for sensors, in a directory for mosquitto.
pub(crate) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        Self { ca, directory }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn issue(&self, name: SanType) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        (params.signed_by(&key, &self.ca).unwrap(), key)
    }

    /// Writes `{name}.pem` and `{name}.key` for a SPIFFE id.
    pub(crate) fn issue_client(&self, name: &str, spiffe_id: &str) {
        let (certificate, key) = self.issue(SanType::URI(spiffe_id.try_into().unwrap()));
        std::fs::write(Path::new(&self.path(&format!("{name}.pem"))), certificate.pem()).unwrap();
        std::fs::write(Path::new(&self.path(&format!("{name}.key"))), key.serialize_pem()).unwrap();
    }

    pub(crate) fn door(&self, versions: &[&'static SupportedProtocolVersion]) -> TlsDoor {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
        let (certificate, key) = self.issue(SanType::DnsName("localhost".try_into().unwrap()));
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        TlsDoor::new(
            move || acceptor.clone(),
            |chain| {
                let peer = peer_id(chain).map_err(|error| CertificateRefused(error.to_string()))?;
                if peer.role != Role::Sensor {
                    return Err(CertificateRefused(format!("role is {}", peer.role.as_str())));
                }
                DeviceId::new(&peer.name).map_err(|error| CertificateRefused(error.to_string()))
            },
        )
    }
}
