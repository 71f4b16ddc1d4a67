//! rustls configurations for each kind of hop. They stay valid for the process's life: rotation happens beneath them.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::verifier::{OwnCertificate, PeerVerifier};
use super::{Identity, Role, provider};

const TLS13_ONLY: &[&SupportedProtocolVersion] = &[&TLS13];
/// MQTT sensors with older TLS stacks; the suites that ring offers for 1.2 are all ECDHE with AEAD.
const TLS12_TOO: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

impl Identity {
    /// For a server between daemons: TLS 1.3, and only peers with a certificate of one of `accept`'s roles. Fits QUIC (no 0-RTT).
    #[must_use]
    pub fn server_config(&self, accept: &[Role], alpn: &[&[u8]]) -> ServerConfig {
        self.server(TLS13_ONLY, self.verifier(accept, None, true), alpn)
    }

    /// For MQTT: TLS 1.2 or 1.3; a client may come without a certificate (and must then log in with a password), but one that it
    /// presents must be good and of one of `accept`'s roles.
    #[must_use]
    pub fn server_config_optional_client(&self, accept: &[Role], alpn: &[&[u8]]) -> ServerConfig {
        self.server(TLS12_TOO, self.verifier(accept, None, false), alpn)
    }

    /// For HTTPS towards browsers and FHIR clients: TLS 1.2 or 1.3, no client certificates asked for.
    #[must_use]
    pub fn server_config_no_client(&self, alpn: &[&[u8]]) -> ServerConfig {
        self.server(TLS12_TOO, Arc::new(NoClientAuth), alpn)
    }

    /// For a client between daemons: TLS 1.3, our certificate, and only a server of the role `expect` (and of that name). The DNS name
    /// or address that is passed to the connection is sent as SNI, not checked. Fits QUIC.
    #[must_use]
    pub fn client_config(&self, expect: Role, name: Option<&str>, alpn: &[&[u8]]) -> ClientConfig {
        let verifier = self.verifier(&[expect], name, true);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(TLS13_ONLY)
            .expect("ring has TLS 1.3 suites")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(OwnCertificate(Arc::clone(&self.shared))));
        config.alpn_protocols = owned(alpn);
        config.resumption = Resumption::disabled();
        config
    }

    fn verifier(&self, roles: &[Role], name: Option<&str>, mandatory: bool) -> Arc<PeerVerifier> {
        let shared = Arc::clone(&self.shared);
        Arc::new(PeerVerifier { shared, roles: roles.into(), name: name.map(Into::into), mandatory })
    }

    fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        verifier: Arc<dyn ClientCertVerifier>,
        alpn: &[&[u8]],
    ) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("ring has suites for both versions")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(OwnCertificate(Arc::clone(&self.shared))));
        config.alpn_protocols = owned(alpn);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
