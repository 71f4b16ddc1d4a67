//! Counters of rotations and refusals. Labels are short constant words: nothing from a peer's bytes gets in.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug)]
pub(super) struct Metrics {
    /// Label `result`: `taken` or `refused`.
    pub(super) reloads: IntCounterVec,
    /// Label `reason`.
    pub(super) refused: IntCounterVec,
    pub(super) not_after: IntGauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let vec = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect("constant names are valid")
        };
        let gauge = "caregate_identity_not_after_seconds";
        Self {
            reloads: vec(
                "caregate_identity_reloads_total",
                "Changed identity files, by what became of them.",
                "result",
            ),
            refused: vec(
                "caregate_tls_refused_total",
                "Peers refused in the TLS handshake, by reason.",
                "reason",
            ),
            not_after: IntGauge::new(gauge, "Unix time at which our certificate expires.")
                .expect("constant names are valid"),
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.reloads.clone()))?;
        registry.register(Box::new(self.refused.clone()))?;
        registry.register(Box::new(self.not_after.clone()))
    }
}
