//! Counters of the node. None names an address or a relationship.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::chain::NOTICE;

/// All counters; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `caregate_ledger_blocks_total{kind}`: transactions, idle.
    pub blocks: IntCounterVec,
    /// `caregate_ledger_transactions_total{outcome}`: success, reverted, refused, expired.
    pub transactions: IntCounterVec,
    /// `caregate_ledger_head_number`.
    pub head_number: IntGauge,
    /// `caregate_ledger_head_time_seconds`: the newest block's Unix time.
    pub head_time: IntGauge,
    /// `caregate_ledger_pool_transactions`: waiting for the one ahead of them.
    pub pool: IntGauge,
    /// `caregate_ledger_seal_seconds`: from a batch's arrival until its block is durable.
    pub seal: Histogram,
    /// `caregate_ledger_requests_total{method}`; what is no method counts as `other`.
    pub requests: IntCounterVec,
    /// `caregate_ledger_refused_total{reason}`: requests answered with an error.
    pub refused: IntCounterVec,
    /// `caregate_ledger_clock_behind_total`: blocks not sealed because the clock was behind the chain.
    pub clock_behind: IntCounter,
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
        gauge("caregate_ledger_sealers", &format!("Parties that seal: {NOTICE}"))?.set(1);
        let clock_behind =
            IntCounter::new("caregate_ledger_clock_behind_total", "Blocks not sealed: the clock was behind")?;
        registry.register(Box::new(clock_behind.clone()))?;
        let seal = Histogram::with_opts(
            HistogramOpts::new(
                "caregate_ledger_seal_seconds",
                "From a batch's arrival until its block is durable",
            )
            .buckets(vec![0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0]),
        )?;
        registry.register(Box::new(seal.clone()))?;
        Ok(Self {
            blocks: counters("caregate_ledger_blocks_total", "Blocks sealed by kind", "kind")?,
            transactions: counters(
                "caregate_ledger_transactions_total",
                "Transactions by outcome",
                "outcome",
            )?,
            head_number: gauge("caregate_ledger_head_number", "Number of the newest block")?,
            head_time: gauge("caregate_ledger_head_time_seconds", "Unix time of the newest block")?,
            pool: gauge("caregate_ledger_pool_transactions", "Transactions that wait for one ahead of them")?,
            seal,
            requests: counters("caregate_ledger_requests_total", "JSON-RPC calls by method", "method")?,
            refused: counters("caregate_ledger_refused_total", "JSON-RPC calls refused by reason", "reason")?,
            clock_behind,
        })
    }
}
