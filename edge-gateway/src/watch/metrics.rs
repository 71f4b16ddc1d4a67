//! Counters of the watch.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Counters of the watch; cheap to clone.
#[derive(Debug, Clone)]
pub struct WatchMetrics {
    /// `caregate_gateway_watch_dropped_total`: readings that the watch was too slow for.
    pub dropped: IntCounter,
    /// `caregate_gateway_watch_early_total`: PUBLISHes that a lookout showed while the commit thread stood still.
    pub early: IntCounter,
    /// `caregate_gateway_watch_unwatched_total`: readings beyond what is watched of a patient or a gateway.
    pub unwatched: IntCounter,
    /// `caregate_gateway_watch_let_go_total{had}`: patients who made room for others: `alarms`, `settings`, `nothing`; `forgotten`, where so many did
    /// that one is not remembered.
    pub let_go: IntCounterVec,
    /// `caregate_gateway_watch_sequence_missing_total`: numbers of sensors' own counters that never came.
    pub missing: IntCounter,
    /// `caregate_gateway_alarms{priority}`: alarms that nobody has acknowledged.
    pub alarms: IntGaugeVec,
    /// `caregate_gateway_alarms_total{kind,priority}`: raised.
    pub raised: IntCounterVec,
    /// `caregate_gateway_alarms_crowded_total`: alarms that found no room.
    pub crowded: IntCounter,
    /// `caregate_gateway_commands_total{action,outcome}`: what staff sent down; `unheard` where nobody may have said it.
    pub commands: IntCounterVec,
    /// `caregate_gateway_watch_failures_total{what}`: `store`, `slow` (told before it was kept), `standing` (the commit thread takes none), `trail`.
    pub failures: IntCounterVec,
    /// `caregate_gateway_webhook_total{outcome}`: `sent`, `failed`, `dropped`.
    pub webhook: IntCounterVec,
}

impl WatchMetrics {
    /// Makes and registers the counters.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let made = IntCounter::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let vec = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let alarms = IntGaugeVec::new(
            Opts::new("caregate_gateway_alarms", "Alarms that nobody has acknowledged"),
            &["priority"],
        )?;
        registry.register(Box::new(alarms.clone()))?;
        Ok(Self {
            dropped: counter(
                "caregate_gateway_watch_dropped_total",
                "Readings that the watch was too slow for",
            )?,
            early: counter(
                "caregate_gateway_watch_early_total",
                "PUBLISHes that the watch was shown while the commit thread stood still",
            )?,
            unwatched: counter(
                "caregate_gateway_watch_unwatched_total",
                "Readings beyond what is watched of a patient or a gateway",
            )?,
            let_go: vec(
                "caregate_gateway_watch_let_go_total",
                "Patients who made room for others at the watch",
                &["had"],
            )?,
            missing: counter(
                "caregate_gateway_watch_sequence_missing_total",
                "Numbers of sensors' own counters that never came",
            )?,
            alarms,
            raised: vec("caregate_gateway_alarms_total", "Alarms raised", &["kind", "priority"])?,
            crowded: counter("caregate_gateway_alarms_crowded_total", "Alarms that found no room")?,
            commands: vec("caregate_gateway_commands_total", "What staff sent down", &["action", "outcome"])?,
            failures: vec(
                "caregate_gateway_watch_failures_total",
                "What the watch could not hand on",
                &["what"],
            )?,
            webhook: vec("caregate_gateway_webhook_total", "Webhook requests", &["outcome"])?,
        })
    }
}
