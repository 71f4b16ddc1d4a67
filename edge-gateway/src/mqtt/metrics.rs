//! What the MQTT doors count. No label comes from a peer, so the number of series is fixed.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::hub::Counts;
use crate::ingest::Verdict;

/// The counters of the embedded server.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    /// Connections whose CONNECT was accepted.
    pub accepted: IntCounter,
    /// Connections that never came up, by reason: those of a CONNACK, `handshakes-full`, `tls`, `accept`.
    pub refused: IntCounterVec,
    /// Connections that are up.
    pub connections: IntGauge,
    /// Packets taken in, by type.
    pub packets: IntCounterVec,
    /// Publishes by verdict: `stored`, `quarantined`, `refused`, and `unanswered` where the pipeline gave none.
    pub publishes: IntCounterVec,
    /// Of those that were refused, the ones that found no place in the pipeline's queue in time, by lane: `activity`, `waveform`, `vitals`.
    pub overload: IntCounterVec,
    /// Connections that ended, by reason.
    pub closes: IntCounterVec,
    /// Sessions, with and without connection.
    pub sessions: IntGauge,
    /// Retained messages.
    pub retained: IntGauge,
    /// Snapshots of sessions: `written`, `failed`; `unreadable`, at a start; and `queue-left-out`, sessions whose messages were not kept.
    pub kept: IntCounterVec,
    /// Messages sent to subscribers.
    pub delivered: IntCounter,
    /// Messages that did not reach a subscriber, by reason: `queue-full`, `expired`, `too-large`; and `retained`, which made room.
    pub undelivered: IntCounterVec,
}

impl ServerMetrics {
    /// Adds what the hub has counted.
    pub(crate) fn count(&self, counts: Counts) {
        if counts == Counts::default() {
            return;
        }
        let Counts { queue_full, expired, too_large, retained } = counts;
        for (reason, count) in [
            ("queue-full", queue_full),
            ("expired", expired),
            ("too-large", too_large),
            ("retained", retained),
        ] {
            self.undelivered.with_label_values(&[reason]).inc_by(count);
        }
    }

    /// Registers all of them.
    ///
    /// # Errors
    /// Where a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let accepted = IntCounter::new("caregate_mqtt_accepted_total", "CONNECTs accepted")?;
        registry.register(Box::new(accepted.clone()))?;
        let connections = IntGauge::new("caregate_mqtt_connections", "Clients connected")?;
        registry.register(Box::new(connections.clone()))?;
        let sessions = IntGauge::new("caregate_mqtt_sessions", "Sessions, with and without connection")?;
        registry.register(Box::new(sessions.clone()))?;
        let retained = IntGauge::new("caregate_mqtt_retained", "Retained messages")?;
        registry.register(Box::new(retained.clone()))?;
        let delivered = IntCounter::new("caregate_mqtt_delivered_total", "Messages sent to subscribers")?;
        registry.register(Box::new(delivered.clone()))?;
        Ok(Self {
            accepted,
            connections,
            sessions,
            retained,
            delivered,
            kept: vec("caregate_mqtt_kept_total", "Snapshots of sessions, by outcome", "outcome")?,
            undelivered: vec(
                "caregate_mqtt_undelivered_total",
                "Messages not delivered, by reason",
                "reason",
            )?,
            refused: vec("caregate_mqtt_refused_total", "Connections refused, by reason", "reason")?,
            packets: vec("caregate_mqtt_packets_total", "MQTT packets taken in, by type", "type")?,
            publishes: vec("caregate_mqtt_publishes_total", "Publishes, by verdict", "verdict")?,
            overload: vec(
                "caregate_mqtt_overload_total",
                "Publishes refused since the pipeline's queue stayed full, by lane",
                "lane",
            )?,
            closes: vec("caregate_mqtt_closes_total", "Connections ended, by reason", "reason")?,
        })
    }
}

/// The counters of the client of an existing broker.
#[derive(Debug, Clone)]
pub struct BrokerMetrics {
    /// Whether the subscription stands: 1 or 0.
    pub subscribed: IntGauge,
    /// Publishes by what became of them: the verdicts, and `unknown-device`, `foreign-topic`, `too-large`, `window-full`.
    pub publishes: IntCounterVec,
    /// Connections that ended or never came up, by reason.
    pub closes: IntCounterVec,
}

impl BrokerMetrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// Where a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let subscribed = IntGauge::new("caregate_broker_subscribed", "Subscribed to the existing broker")?;
        let publishes = IntCounterVec::new(
            Opts::new("caregate_broker_publishes_total", "Publishes from the broker, by verdict"),
            &["verdict"],
        )?;
        let closes = IntCounterVec::new(
            Opts::new("caregate_broker_closes_total", "Connections to the broker that ended, by reason"),
            &["reason"],
        )?;
        registry.register(Box::new(subscribed.clone()))?;
        registry.register(Box::new(publishes.clone()))?;
        registry.register(Box::new(closes.clone()))?;
        Ok(Self { subscribed, publishes, closes })
    }
}

/// The label of a verdict; `None` where the pipeline gave none.
pub(crate) fn verdict_label(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Stored) => "stored",
        Some(Verdict::Quarantined(_)) => "quarantined",
        Some(Verdict::Refused) => "refused",
        None => "unanswered",
    }
}
