//! Counters of the controller.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Seconds: a switch in the same machine answers in 100 µs, one behind a bad uplink in a second.
const ECHO_BUCKETS_S: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0];

/// All of them; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `caregate_controller_connections`: open, after the TLS handshake.
    pub connections: IntGauge,
    /// `caregate_controller_switches`: handshake complete.
    pub switches: IntGauge,
    /// `caregate_controller_connections_refused_total{reason}`
    pub connections_refused: IntCounterVec,
    /// `caregate_controller_connections_closed_total{reason}`
    pub connections_closed: IntCounterVec,
    /// `caregate_controller_messages_received_total`
    pub messages_received: IntCounter,
    /// `caregate_controller_messages_refused_total{reason}`
    pub messages_refused: IntCounterVec,
    /// `caregate_controller_switch_errors_total{error}`: error messages from switches, by the standard's name.
    pub switch_errors: IntCounterVec,
    /// `caregate_controller_echo_seconds`
    pub echo: Histogram,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("caregate_controller_{name}"), help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters =
                IntCounterVec::new(Opts::new(format!("caregate_controller_{name}"), help), &[label])?;
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        let received = IntCounter::new(
            "caregate_controller_messages_received_total",
            "Whole OpenFlow messages received.",
        )?;
        registry.register(Box::new(received.clone()))?;
        let echo = HistogramOpts::new(
            "caregate_controller_echo_seconds",
            "Time that switches took to answer an echo.",
        );
        let echo = Histogram::with_opts(echo.buckets(ECHO_BUCKETS_S.to_vec()))?;
        registry.register(Box::new(echo.clone()))?;
        Ok(Self {
            connections: gauge("connections", "Connections after the TLS handshake.")?,
            switches: gauge("switches", "Switches whose OpenFlow handshake is complete.")?,
            connections_refused: counters(
                "connections_refused_total",
                "Connections refused, by reason.",
                "reason",
            )?,
            connections_closed: counters(
                "connections_closed_total",
                "Connections ended, by reason.",
                "reason",
            )?,
            messages_received: received,
            messages_refused: counters(
                "messages_refused_total",
                "Messages refused or left aside, by reason.",
                "reason",
            )?,
            switch_errors: counters("switch_errors_total", "Error messages from switches.", "error")?,
            echo,
        })
    }
}
