//! Counters of the local door. No label comes from a request.

use prometheus::{IntCounterVec, Opts, Registry};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalMetrics {
    /// `caregate_gateway_local_logins_total{outcome}`.
    pub logins: IntCounterVec,
    /// `caregate_gateway_local_offers_total{kind,outcome}`.
    pub offers: IntCounterVec,
    /// `caregate_gateway_local_revocations_total{outcome}`: by the page's button.
    pub revocations: IntCounterVec,
}

impl LocalMetrics {
    /// Makes and registers the counters.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        Ok(Self {
            logins: counters(
                "caregate_gateway_local_logins_total",
                "Logins to the patient's page",
                &["outcome"],
            )?,
            offers: counters(
                "caregate_gateway_local_offers_total",
                "Bundles and revocations handed in at the local door",
                &["kind", "outcome"],
            )?,
            revocations: counters(
                "caregate_gateway_local_revocations_total",
                "Revocations by the page's button",
                &["outcome"],
            )?,
        })
    }
}
