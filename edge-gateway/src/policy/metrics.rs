//! Figures of policy. None names a patient or a recipient.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Figures of verified policy; the epoch in force and what was refused are in [`crate::metrics::Metrics`].
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    /// `caregate_gateway_policy_header_number`: of the newest verified header.
    pub header_number: IntGauge,
    /// `caregate_gateway_policy_age_seconds`: of the policy in force, by its header.
    pub age_seconds: IntGauge,
    /// `caregate_gateway_policy_clock_unknown`: 1 while the clock was set back and no newer header has come.
    pub clock_unknown: IntGauge,
    /// `caregate_gateway_policy_emergencies`: that hold.
    pub emergencies: IntGauge,
    /// `caregate_gateway_policy_anchors_waiting`: revocations in force here that the ledger has not shown.
    pub anchors_waiting: IntGauge,
    /// `caregate_gateway_policy_offers_total{origin,outcome}`: bundles and revocations by the path that they came.
    pub offers: IntCounterVec,
    /// `caregate_gateway_epochs_closed_total`: epochs of chains that ended before their minute, because somebody lost access.
    pub epochs_closed: IntCounter,
    /// `caregate_gateway_controller_connected`: 1 while the policy connection stands.
    pub connected: IntGauge,
    /// `caregate_gateway_controller_failures_total{reason}`: policy connections that failed.
    pub failures: IntCounterVec,
}

impl PolicyMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        fn keep<C: Collector + Clone + 'static>(
            registry: &Registry,
            made: C,
        ) -> Result<C, prometheus::Error> {
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        }
        let gauge = |name, help| keep(registry, IntGauge::new(name, help)?);
        let vec = |name: &str, help: &str, labels: &[&str]| {
            keep(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            header_number: gauge("caregate_gateway_policy_header_number", "Newest verified ledger header")?,
            age_seconds: gauge("caregate_gateway_policy_age_seconds", "Age of the policy in force")?,
            clock_unknown: gauge(
                "caregate_gateway_policy_clock_unknown",
                "1 while the clock was set back, or began wrong, and no newer header has come",
            )?,
            emergencies: gauge("caregate_gateway_policy_emergencies", "Emergency accesses that hold")?,
            anchors_waiting: gauge(
                "caregate_gateway_policy_anchors_waiting",
                "Revocations in force that the ledger has not shown",
            )?,
            offers: vec(
                "caregate_gateway_policy_offers_total",
                "Bundles and revocations, by path and outcome",
                &["origin", "outcome"],
            )?,
            epochs_closed: keep(
                registry,
                IntCounter::new(
                    "caregate_gateway_epochs_closed_total",
                    "Epochs that ended early because somebody lost access",
                )?,
            )?,
            connected: gauge(
                "caregate_gateway_controller_connected",
                "1 while the policy connection stands",
            )?,
            failures: vec(
                "caregate_gateway_controller_failures_total",
                "Policy connections that failed",
                &["reason"],
            )?,
        })
    }
}
