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
    /// `caregate_controller_reconciles_total{outcome}`
    pub reconciles: IntCounterVec,
    /// `caregate_controller_events_left_out_total`: of switches that cause too many.
    pub events_left_out: IntCounter,
    /// `caregate_controller_intents`
    pub intents: IntGauge,
    /// `caregate_controller_requests_total{route,status}`
    pub requests: IntCounterVec,
    /// `caregate_controller_gateways`: policy connections.
    pub gateways: IntGauge,
    /// `caregate_controller_policy_age_seconds`: the oldest of connected gateways.
    pub policy_age: IntGauge,
    /// `caregate_controller_policy_refused_total{reason}`: policy connections and frames refused.
    pub policy_refused: IntCounterVec,
    /// `caregate_controller_bundles_total{outcome}`: sent, or why there was none.
    pub bundles: IntCounterVec,
    /// `caregate_controller_verdicts_total{reason}`: `accepted`, or why a gateway refused a bundle.
    pub verdicts: IntCounterVec,
    /// `caregate_controller_revocations_total{outcome}`
    pub revocations: IntCounterVec,
    /// `caregate_controller_emergencies_total{outcome}`
    pub emergencies: IntCounterVec,
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
        let left_out = IntCounter::new(
            "caregate_controller_events_left_out_total",
            "Events of switches that cause too many.",
        )?;
        registry.register(Box::new(left_out.clone()))?;
        let requests = IntCounterVec::new(
            Opts::new("caregate_controller_requests_total", "Requests of operators, by route and status."),
            &["route", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
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
            reconciles: counters("reconciles_total", "What became of reconciles.", "outcome")?,
            events_left_out: left_out,
            intents: gauge("intents", "Intents in the store.")?,
            requests,
            gateways: gauge("gateways", "Policy connections.")?,
            policy_age: gauge(
                "policy_age_seconds",
                "Age of the oldest policy in force at a connected gateway.",
            )?,
            policy_refused: counters(
                "policy_refused_total",
                "Policy connections and frames refused, by reason.",
                "reason",
            )?,
            bundles: counters("bundles_total", "Policy bundles sent, or why there was none.", "outcome")?,
            verdicts: counters("verdicts_total", "What gateways said of bundles.", "reason")?,
            revocations: counters("revocations_total", "Revocations relayed, by outcome.", "outcome")?,
            emergencies: counters("emergencies_total", "Emergencies relayed, by outcome.", "outcome")?,
        })
    }
}
