//! Counters of the gateway. None names a patient, and none carries a value that was measured.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

use crate::policy::PolicyMetrics;

/// All counters but the doors' own; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `caregate_gateway_publishes_total{verdict}`.
    pub publishes: IntCounterVec,
    /// `caregate_gateway_readings_total{class}`: sealed and appended.
    pub readings: IntCounterVec,
    /// `caregate_gateway_segments_total{class}`.
    pub segments: IntCounterVec,
    /// `caregate_gateway_duplicates_total`: readings that came again and were recognised.
    pub duplicates: IntCounter,
    /// `caregate_gateway_quarantined_total{reason}`.
    pub quarantined: IntCounterVec,
    /// `caregate_gateway_refused_total{reason}`.
    pub refused: IntCounterVec,
    /// `caregate_gateway_expired_total{class}`: segments let go by the age limit, undelivered.
    pub expired: IntCounterVec,
    /// `caregate_gateway_gaps_total{reason}`: gap records signed, `expired` or `damaged`.
    pub gaps: IntCounterVec,
    /// `caregate_gateway_past_wraps_total`: keys wrapped for grants that begin in the past.
    pub past_wraps: IntCounter,
    /// `caregate_gateway_batch_publishes`: PUBLISHes per group commit.
    pub batch_publishes: Histogram,
    /// `caregate_gateway_commits_total`: group commits that were synced.
    pub commits: IntCounter,
    /// `caregate_gateway_sync_seconds`: from the sealing of a group commit until it is on disk.
    pub sync_seconds: Histogram,
    /// What the spool holds and what of it waits.
    pub spool: SpoolMetrics,
    /// `caregate_gateway_sent_total{lane,part}`.
    pub sent: IntCounterVec,
    /// `caregate_gateway_lane_connected{lane}`: 1 while the lane's connection to the core stands; `backlog` for the backlog's.
    pub lane_connected: IntGaugeVec,
    /// `caregate_gateway_lane_congested{lane}`: 1 while its records wait for each other, since the way is congested.
    pub lane_congested: IntGaugeVec,
    /// `caregate_gateway_lane_tcp{lane}`: 1 while it goes by TCP, since UDP does not get through.
    pub lane_tcp: IntGaugeVec,
    /// `caregate_gateway_uplink_datagrams_total`: UDP datagrams sent to the core.
    pub uplink_datagrams: IntCounter,
    /// `caregate_gateway_uplink_sends_total`: calls of the kernel that sent them; fewer where it segments (UDP GSO).
    pub uplink_sends: IntCounter,
    /// `caregate_gateway_uplink_refused_total{reason}`: by the core; `unreadable` by our own disk.
    pub uplink_refused: IntCounterVec,
    /// `caregate_gateway_uplink_failures_total{reason}`.
    pub uplink_failures: IntCounterVec,
    /// `caregate_gateway_policy_refused_total{reason}`.
    pub policy_refused: IntCounterVec,
    /// `caregate_gateway_policy_epoch`.
    pub policy_epoch: IntGauge,
    /// Verified policy and the connection that it comes by.
    pub policy: PolicyMetrics,
}

/// What the spool holds and what of it waits.
#[derive(Debug, Clone)]
pub struct SpoolMetrics {
    /// `caregate_gateway_spool_bytes`.
    pub bytes: IntGauge,
    /// `caregate_gateway_spool_framed_bytes_total`: of frames that are synced.
    pub framed: IntCounter,
    /// `caregate_gateway_spool_written_bytes_total`: handed to the file system for them, which is what wears flash.
    pub written: IntCounter,
    /// `caregate_gateway_spool_waiting`: records that the core has not acknowledged.
    pub waiting: IntGauge,
    /// `caregate_gateway_spool_next`: one past the newest position.
    pub next: IntGauge,
    /// `caregate_gateway_spool_oldest_waiting`: the oldest position that the core has not acknowledged.
    pub oldest_waiting: IntGauge,
    /// `caregate_gateway_backlog_rate_bytes`: bytes a second that the backlog may have, as live records leave them; 0 where none are sent,
    /// and it may have all there is.
    pub backlog_rate: IntGauge,
}

impl SpoolMetrics {
    fn register(m: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes: m.gauge("caregate_gateway_spool_bytes", "Bytes in the spool")?,
            framed: m.count(
                "caregate_gateway_spool_framed_bytes_total",
                "Bytes of frames that the spool has synced",
            )?,
            written: m.count(
                "caregate_gateway_spool_written_bytes_total",
                "Bytes that the spool has handed to the file system",
            )?,
            waiting: m
                .gauge("caregate_gateway_spool_waiting", "Records that the core has not acknowledged")?,
            next: m.gauge("caregate_gateway_spool_next", "One past the newest position")?,
            oldest_waiting: m.gauge(
                "caregate_gateway_spool_oldest_waiting",
                "The oldest position that the core has not acknowledged",
            )?,
            backlog_rate: m.gauge(
                "caregate_gateway_backlog_rate_bytes",
                "Bytes a second of the backlog, as live records leave them; 0 while none are sent: no limit",
            )?,
        })
    }
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn keep<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn vec(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn count(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.keep(IntCounter::new(name, help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.keep(IntGauge::new(name, help)?)
    }

    fn lanes(&self, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), &["lane"])?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, prometheus::Error> {
        self.keep(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
    }
}

impl Metrics {
    /// Makes and registers the counters.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let m = Maker(registry);
        Ok(Self {
            publishes: m.vec("caregate_gateway_publishes_total", "PUBLISHes by verdict", &["verdict"])?,
            readings: m.vec("caregate_gateway_readings_total", "Readings sealed, by class", &["class"])?,
            segments: m.vec("caregate_gateway_segments_total", "Segments sealed, by class", &["class"])?,
            duplicates: m
                .count("caregate_gateway_duplicates_total", "Readings that came again and were recognised")?,
            quarantined: m.vec(
                "caregate_gateway_quarantined_total",
                "PUBLISHes kept apart, by reason",
                &["reason"],
            )?,
            refused: m.vec("caregate_gateway_refused_total", "Readings not taken, by reason", &["reason"])?,
            expired: m.vec(
                "caregate_gateway_expired_total",
                "Segments let go by the age limit",
                &["class"],
            )?,
            gaps: m.vec("caregate_gateway_gaps_total", "Gap records signed, by reason", &["reason"])?,
            past_wraps: m.count("caregate_gateway_past_wraps_total", "Keys wrapped for past spans")?,
            batch_publishes: m.histogram(
                "caregate_gateway_batch_publishes",
                "PUBLISHes per group commit",
                exponential_buckets(1.0, 2.0, 10)?,
            )?,
            commits: m
                .keep(IntCounter::new("caregate_gateway_commits_total", "Group commits that were synced")?)?,
            sync_seconds: m.histogram(
                "caregate_gateway_sync_seconds",
                "From the sealing of a group commit until it is on disk",
                exponential_buckets(0.0005, 1.6, 18)?,
            )?,
            spool: SpoolMetrics::register(&m)?,
            sent: m.vec("caregate_gateway_sent_total", "Records sent to the core", &["lane", "part"])?,
            lane_connected: m.lanes(
                "caregate_gateway_lane_connected",
                "1 while the lane's connection to the core stands",
            )?,
            lane_congested: m
                .lanes("caregate_gateway_lane_congested", "1 while the lane's way is congested")?,
            lane_tcp: m.lanes("caregate_gateway_lane_tcp", "1 while the lane goes by TCP")?,
            uplink_datagrams: m
                .count("caregate_gateway_uplink_datagrams_total", "UDP datagrams sent to the core")?,
            uplink_sends: m.count(
                "caregate_gateway_uplink_sends_total",
                "Calls that sent UDP datagrams, fewer where the kernel segments",
            )?,
            uplink_refused: m.vec(
                "caregate_gateway_uplink_refused_total",
                "Records that the core refused",
                &["reason"],
            )?,
            uplink_failures: m.vec(
                "caregate_gateway_uplink_failures_total",
                "Connections lost",
                &["reason"],
            )?,
            policy_refused: m.vec(
                "caregate_gateway_policy_refused_total",
                "Policy not taken over",
                &["reason"],
            )?,
            policy_epoch: m.gauge("caregate_gateway_policy_epoch", "Policy epoch in force")?,
            policy: PolicyMetrics::register(registry)?,
        })
    }
}
