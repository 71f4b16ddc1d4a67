//! The check of a peer inside the handshake, and the lookup of our own certificate; both see the material of the moment.

use std::fmt;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::material::verify_server_chain;
use super::{IdentityError, Role, Shared, SpiffeId, provider};

/// Whom a connection accepts.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    pub(super) shared: Arc<Shared>,
    pub(super) roles: Box<[Role]>,
    /// One peer of the role, or any.
    pub(super) name: Option<Box<str>>,
    /// A server's alone: whether a client without a certificate may come in (and must log in otherwise).
    pub(super) mandatory: bool,
}

impl PeerVerifier {
    fn check_id(&self, domain: &str, end_entity: &CertificateDer<'_>) -> Result<(), IdentityError> {
        let id = SpiffeId::from_certificate(end_entity)?;
        if id.domain() != domain {
            return Err(IdentityError::Domain);
        }
        let found = id.peer();
        if !self.roles.contains(&found.role) {
            let accepted: Vec<_> = self.roles.iter().map(|role| role.as_str()).collect();
            return Err(IdentityError::Role { found: found.role, accepted: accepted.join(", ") });
        }
        match &self.name {
            Some(name) if **name != *found.name => {
                Err(IdentityError::Name { found: found.name.clone(), expected: name.to_string() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a refusal and turns it into rustls's terms.
    fn refuse_id(&self, error: IdentityError) -> Error {
        self.shared.metrics.refused.with_label_values(&[error.reason()]).inc();
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refusal(error)))))
    }

    fn refuse_chain(&self, error: Error) -> Error {
        self.shared.metrics.refused.with_label_values(&[chain_reason(&error)]).inc();
        error
    }
}

/// rustls prints the `Debug` form of a verifier's own errors; this makes it the sentence.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Refusal(IdentityError);

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "both enums are non-exhaustive; the rest shares one label"
)]
fn chain_reason(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not_yet_valid",
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "untrusted",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "key_usage",
            CertificateError::BadEncoding => "encoding",
            _ => "certificate",
        },
        _ => "certificate",
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let material = self.shared.current.load();
        verify_server_chain(end_entity, intermediates, &material.roots, now)
            .map_err(|error| self.refuse_chain(error))?;
        self.check_id(material.id.domain(), end_entity).map_err(|error| self.refuse_id(error))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// No hints: they would be those of the start, and one CA needs none.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let material = self.shared.current.load();
        let verified = material
            .client_chain
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|error| self.refuse_chain(error))?;
        self.check_id(material.id.domain(), end_entity).map_err(|error| self.refuse_id(error))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

/// Our own certificate, whichever it is at the time of the handshake.
#[derive(Debug)]
pub(super) struct OwnCertificate(pub(super) Arc<Shared>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().key))
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
