//! Counters of the feed. None names a patient, a user or an address.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Seconds from the gateway's admission to the opened reading: a local network, a mobile one, an outage.
const DELAY_BUCKETS: &[f64] =
    &[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0];

/// All counters; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `caregate_feed_records_total{outcome}`: opened, waiting or known, refused.
    pub records: IntCounterVec,
    /// `caregate_feed_provisional_total`: segments that were shown before they were durable.
    pub provisional: IntCounter,
    /// `caregate_feed_refused_total{reason}`: records, and segments that had waited, which could not be opened.
    pub refused: IntCounterVec,
    /// `caregate_feed_missing_total{reason}`: segments of which a gateway said that they may be missing, `expired` or `damaged`.
    pub missing: IntCounterVec,
    /// `caregate_feed_readings_total{class}`.
    pub readings: IntCounterVec,
    /// `caregate_feed_delay_seconds`: from the gateway's clock to ours; a cut's backlog is in it.
    pub delay: Histogram,
    /// `caregate_feed_link_up`: 1 while the core is connected.
    pub link_up: IntGauge,
    /// `caregate_feed_link_lost_total{reason}`.
    pub link_lost: IntCounterVec,
    /// `caregate_feed_waiting_bytes`: segments whose wrap has not come.
    pub waiting_bytes: IntGauge,
    /// `caregate_feed_ring_bytes`.
    pub ring_bytes: IntGauge,
    /// `caregate_feed_ring_readings`.
    pub ring_readings: IntGauge,
    /// `caregate_feed_streams`: open WebSockets.
    pub streams: IntGauge,
    /// `caregate_feed_streams_closed_total{reason}`.
    pub streams_closed: IntCounterVec,
    /// `caregate_feed_logins_total{outcome}`.
    pub logins: IntCounterVec,
    /// `caregate_feed_fhir_requests_total{outcome}`.
    pub fhir: IntCounterVec,
    /// `caregate_feed_ledger_up`: 1 while the ledger is followed.
    pub ledger_up: IntGauge,
    /// `caregate_feed_emergencies_total{outcome}`: opened, or why not.
    pub emergencies: IntCounterVec,
    /// `caregate_feed_commands_total{action,outcome}`: what staff sent to gateways' watches.
    pub commands: IntCounterVec,
    /// `caregate_feed_policy_offers_total{kind,outcome}`: what was handed to gateways by way of the core.
    pub offers: IntCounterVec,
    /// `caregate_feed_journal_failures_total`: entries that are not on disk.
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
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let delay = Histogram::with_opts(
            HistogramOpts::new(
                "caregate_feed_delay_seconds",
                "From the gateway's clock to the opened reading",
            )
            .buckets(DELAY_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(delay.clone()))?;
        let journal_failures =
            IntCounter::new("caregate_feed_journal_failures_total", "Journal entries that are not on disk")?;
        registry.register(Box::new(journal_failures.clone()))?;
        let provisional = IntCounter::new(
            "caregate_feed_provisional_total",
            "Segments shown before they were durable at the core",
        )?;
        registry.register(Box::new(provisional.clone()))?;
        let commands = IntCounterVec::new(
            Opts::new("caregate_feed_commands_total", "Staff's commands by outcome"),
            &["action", "outcome"],
        )?;
        registry.register(Box::new(commands.clone()))?;
        let offers = IntCounterVec::new(
            Opts::new("caregate_feed_policy_offers_total", "Policy handed to gateways by outcome"),
            &["kind", "outcome"],
        )?;
        registry.register(Box::new(offers.clone()))?;
        Ok(Self {
            records: counters("caregate_feed_records_total", "Records of the queue by outcome", "outcome")?,
            provisional,
            refused: counters("caregate_feed_refused_total", "Records not opened, by reason", "reason")?,
            missing: counters(
                "caregate_feed_missing_total",
                "Segments that gateways said are missing",
                "reason",
            )?,
            readings: counters("caregate_feed_readings_total", "Readings opened by class", "class")?,
            delay,
            link_up: gauge("caregate_feed_link_up", "1 while the core is connected")?,
            link_lost: counters("caregate_feed_link_lost_total", "Lost connections by reason", "reason")?,
            waiting_bytes: gauge("caregate_feed_waiting_bytes", "Segments whose wrap has not come")?,
            ring_bytes: gauge("caregate_feed_ring_bytes", "Bytes of opened readings held")?,
            ring_readings: gauge("caregate_feed_ring_readings", "Opened readings held")?,
            streams: gauge("caregate_feed_streams", "Open WebSockets")?,
            streams_closed: counters(
                "caregate_feed_streams_closed_total",
                "Closed WebSockets by reason",
                "reason",
            )?,
            logins: counters("caregate_feed_logins_total", "Checked passwords by outcome", "outcome")?,
            fhir: counters("caregate_feed_fhir_requests_total", "FHIR requests by outcome", "outcome")?,
            ledger_up: gauge("caregate_feed_ledger_up", "1 while the ledger is followed")?,
            emergencies: counters(
                "caregate_feed_emergencies_total",
                "Emergencies asked for by outcome",
                "outcome",
            )?,
            commands,
            offers,
            journal_failures,
        })
    }
}
