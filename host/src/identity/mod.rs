//! Who a daemon is and whom it talks to: certificates with SPIFFE ids, checked inside the TLS handshake.
//!
//! Every certificate of a deployment carries one URI SAN, `spiffe://<domain>/<role>/<name>`. A peer is accepted when its chain
//! ends at the deployment's CA, it is in date, its extended key usage fits, its domain is ours, and its role (and name, where one
//! is expected) is the wanted one. DNS names play no part between daemons: addresses change, roles don't.
//!
//! Files may be replaced while the daemon runs ([`Identity::watch`]): each handshake looks up the current material, so new
//! connections use the new certificate and the new CA set at once. Sessions are never resumed, because resumption would skip
//! the check of a certificate that has expired or whose CA was removed meanwhile.

mod configs;
mod error;
mod material;
mod metrics;
mod rotation;
mod spiffe;
mod verifier;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use serde::Deserialize;
use tokio::sync::watch;

pub use error::IdentityError;
pub use spiffe::{DOMAIN_BYTES_MAX, PEER_NAME_BYTES_MAX, PeerId, Role, SpiffeId, peer_id};

use material::Material;
use metrics::Metrics;
use rotation::Stamp;

/// Where a daemon's certificate, key and trusted CAs lie: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFiles {
    /// The daemon's certificate, followed by intermediates if there are any.
    pub certificate: PathBuf,
    /// Its private key; refused when group or others may use it.
    pub key: PathBuf,
    /// The CAs that are trusted; two of them while one replaces the other.
    pub ca: PathBuf,
}

/// What verifiers and resolvers share: the material of this moment.
#[derive(Debug)]
struct Shared {
    current: ArcSwap<Material>,
    metrics: Metrics,
}

/// A daemon's own certificate, key and trusted CAs, as they are now.
#[derive(Debug)]
pub struct Identity {
    files: IdentityFiles,
    shared: Arc<Shared>,
    generation: watch::Sender<u64>,
    /// Of the files before they were read, so that `watch` misses no change.
    loaded: [Stamp; 3],
}

impl Identity {
    /// Loads and checks the files: the key is private and fits the certificate, the certificate is in date, carries one SPIFFE
    /// id, and chains to a CA of the file.
    ///
    /// # Errors
    /// [`IdentityError`], naming the file and what is wrong with it.
    pub fn load(files: &IdentityFiles) -> Result<Arc<Self>, IdentityError> {
        let loaded = rotation::stamps(files);
        let material = Material::read(files, UnixTime::now())?;
        let metrics = Metrics::new();
        metrics.not_after.set(material.not_after_s);
        tracing::info!(id = %material.id, not_after_s = material.not_after_s, "identity loaded");
        let shared = Arc::new(Shared { current: ArcSwap::from_pointee(material), metrics });
        Ok(Arc::new(Self { files: files.clone(), shared, generation: watch::Sender::new(0), loaded }))
    }

    /// Our own SPIFFE id.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        self.shared.current.load().id.clone()
    }

    /// Unix time in seconds after which our certificate is no longer valid.
    #[must_use]
    pub fn not_after_s(&self) -> i64 {
        self.shared.current.load().not_after_s
    }

    /// Adds `caregate_identity_*` and `caregate_tls_refused_total` to a registry.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        self.shared.metrics.register(registry)
    }
}

/// ring, passed to every builder: no code depends on which provider a process calls its default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> =
        std::sync::LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}
