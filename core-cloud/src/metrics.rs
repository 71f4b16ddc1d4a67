//! Counters of the core. None names a patient.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// All counters; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `caregate_core_records_total{outcome}`: stored, known, refused.
    pub records: IntCounterVec,
    /// `caregate_core_refused_total{reason}`.
    pub refused: IntCounterVec,
    /// `caregate_core_erasures_total{outcome}`: `erased`, or why not.
    pub erasures: IntCounterVec,
    /// `caregate_core_bytes_total`: bytes of records stored.
    pub bytes: IntCounter,
    /// `caregate_core_waiting_records{timing}`: records that are not stored yet, `live` or `backlog`.
    pub waiting: IntGaugeVec,
    /// `caregate_core_commits_total`.
    pub commits: IntCounter,
    /// `caregate_core_delivered_total`: records sent to feeds.
    pub delivered: IntCounter,
    /// `caregate_core_provisional_total{outcome}`: records shown to feeds before they were durable; `behind` and `too_long` come by the queue alone.
    pub provisional: IntCounterVec,
    /// `caregate_core_tenant_waits_total{tenant,reason}`: records that waited for their tenant's `rate`, or until there was room for its `bytes`.
    pub tenant_waits: IntCounterVec,
    /// `caregate_core_tenant_stored_bytes{tenant}`.
    pub tenant_bytes: IntGaugeVec,
    /// `caregate_core_expired_total`: records that had grown too old.
    pub expired: IntCounter,
    /// `caregate_core_searches_total`: searches by feeds.
    pub searches: IntCounter,
    /// `caregate_core_connections{role}`.
    pub connections: IntGaugeVec,
    /// `caregate_core_tcp_connections`: gateways' connections by TCP; not among the above.
    pub tcp_connections: IntGauge,
    /// `caregate_core_connections_refused_total{reason}`.
    pub connections_refused: IntCounterVec,
    /// `caregate_core_heartbeats_total{outcome}`: `carried`, `too_often`.
    pub beats: IntCounterVec,
    /// `caregate_core_commands_total{outcome}`: `carried`, `no_gateway`, `not_taken`, `too_often`, or what is wrong with its form.
    pub commands: IntCounterVec,
    /// `caregate_core_offers_total{outcome}`: policy that feeds handed to gateways: `carried`, `malformed`, `not_connected`, `too_often`, `busy`, `no_answer`.
    pub offers: IntCounterVec,
    /// `caregate_core_verdicts_total{outcome}`: gateways' words on it: `told`, `late`, `stranger`, `malformed`.
    pub verdicts: IntCounterVec,
    /// `caregate_core_journal_failures_total`: deliveries that are not in the audit log.
    pub journal_failures: IntCounter,
}

impl Metrics {
    /// Makes and registers the counters.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let connections =
            IntGaugeVec::new(Opts::new("caregate_core_connections", "Open connections by role"), &["role"])?;
        registry.register(Box::new(connections.clone()))?;
        let tenant_waits = IntCounterVec::new(
            Opts::new("caregate_core_tenant_waits_total", "Records that waited for their tenant's share"),
            &["tenant", "reason"],
        )?;
        registry.register(Box::new(tenant_waits.clone()))?;
        let tenant_bytes = IntGaugeVec::new(
            Opts::new("caregate_core_tenant_stored_bytes", "Bytes of records stored by tenant"),
            &["tenant"],
        )?;
        registry.register(Box::new(tenant_bytes.clone()))?;
        let waiting = IntGaugeVec::new(
            Opts::new("caregate_core_waiting_records", "Records that are not stored yet"),
            &["timing"],
        )?;
        registry.register(Box::new(waiting.clone()))?;
        let tcp_connections = IntGauge::new("caregate_core_tcp_connections", "Gateways' connections by TCP")?;
        registry.register(Box::new(tcp_connections.clone()))?;
        Ok(Self {
            records: counters("caregate_core_records_total", "Records received by outcome", "outcome")?,
            refused: counters("caregate_core_refused_total", "Records refused by reason", "reason")?,
            erasures: counters("caregate_core_erasures_total", "Gateways' requests for erasure", "outcome")?,
            provisional: counters(
                "caregate_core_provisional_total",
                "Records shown before they were durable",
                "outcome",
            )?,
            bytes: counter("caregate_core_bytes_total", "Bytes of records stored")?,
            waiting,
            commits: counter("caregate_core_commits_total", "Durable commits")?,
            delivered: counter("caregate_core_delivered_total", "Records sent to feeds")?,
            beats: counters("caregate_core_heartbeats_total", "Gateways' heartbeats", "outcome")?,
            commands: counters("caregate_core_commands_total", "Staff's sealed commands", "outcome")?,
            offers: counters(
                "caregate_core_offers_total",
                "Policy that feeds handed to gateways",
                "outcome",
            )?,
            verdicts: counters("caregate_core_verdicts_total", "Gateways' words on policy", "outcome")?,
            journal_failures: counter(
                "caregate_core_journal_failures_total",
                "Times that deliveries could not be written to the audit log",
            )?,
            tenant_waits,
            tenant_bytes,
            expired: counter("caregate_core_expired_total", "Records that had grown too old")?,
            searches: counter("caregate_core_searches_total", "Searches by feeds")?,
            connections,
            tcp_connections,
            connections_refused: counters(
                "caregate_core_connections_refused_total",
                "Connections closed by the core, by reason",
                "reason",
            )?,
        })
    }
}
