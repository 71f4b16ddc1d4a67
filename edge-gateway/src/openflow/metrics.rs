//! What the switch counts. No label comes from a peer's bytes, so the number of series is fixed.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};

/// All of them; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `caregate_gateway_openflow_connected`: 1 while the controller has said hello.
    pub connected: IntGauge,
    /// `caregate_gateway_openflow_connects_total{result}`: `connected`, `tcp`, `tls`, `timeout`.
    pub connects: IntCounterVec,
    /// `caregate_gateway_openflow_closed_total{reason}`.
    pub closed: IntCounterVec,
    /// `caregate_gateway_openflow_messages_total`: received.
    pub messages: IntCounter,
    /// `caregate_gateway_openflow_refused_total{reason}`: messages by the standard's error, or a word.
    pub refused: IntCounterVec,
    /// `caregate_gateway_openflow_flows`: in all tables.
    pub flows: IntGauge,
    /// `caregate_gateway_openflow_installs_total{result}`: `done`, `store`, `helper`.
    pub installs: IntCounterVec,
    /// `caregate_gateway_openflow_install_seconds`: made durable and confirmed by the helper.
    pub install_seconds: Histogram,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let made = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let messages = IntCounter::new(
            "caregate_gateway_openflow_messages_total",
            "Messages received from the controller",
        )?;
        registry.register(Box::new(messages.clone()))?;
        let options = HistogramOpts::new(
            "caregate_gateway_openflow_install_seconds",
            "Flows made durable and confirmed by the helper",
        )
        .buckets(exponential_buckets(0.0005, 2.0, 14)?);
        let install_seconds = Histogram::with_opts(options)?;
        registry.register(Box::new(install_seconds.clone()))?;
        Ok(Self {
            connected: gauge(
                "caregate_gateway_openflow_connected",
                "1 while the controller's session stands",
            )?,
            connects: vec(
                "caregate_gateway_openflow_connects_total",
                "Attempts to reach the controller, by result",
                "result",
            )?,
            closed: vec(
                "caregate_gateway_openflow_closed_total",
                "Connections to the controller that ended, by reason",
                "reason",
            )?,
            messages,
            refused: vec(
                "caregate_gateway_openflow_refused_total",
                "Messages refused or left alone, by reason",
                "reason",
            )?,
            flows: gauge("caregate_gateway_openflow_flows", "Flows of all tables")?,
            installs: vec(
                "caregate_gateway_openflow_installs_total",
                "Changes of flows, groups and meters, by result",
                "result",
            )?,
            install_seconds,
        })
    }
}
