//! `/metrics`: what the kernel counted, read at each scrape, and what the daemon asked for.

use caregate_protocol::datapath::{Counted, Mode, Port, Reason};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::GUARDED;

use crate::shared::Shared;

/// What the daemon asked for. Clones share.
#[derive(Debug, Clone)]
pub struct Metrics {
    done: IntCounter,
    refused: IntCounterVec,
    strangers: IntCounter,
    events_lost: IntCounter,
    punts_lost: IntCounter,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// Never in practice: the names are constant.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            done: IntCounter::new("caregate_datapathd_requests_total", "Requests that were done.")?,
            refused: IntCounterVec::new(
                Opts::new("caregate_datapathd_refused_total", "Requests that were refused, by reason."),
                &["reason"],
            )?,
            strangers: IntCounter::new(
                "caregate_datapathd_strangers_total",
                "Connections of users who may not connect.",
            )?,
            events_lost: IntCounter::new(
                "caregate_datapathd_events_lost_total",
                "Events that a daemon was too slow for.",
            )?,
            punts_lost: IntCounter::new(
                "caregate_datapathd_punts_lost_total",
                "Frames for the slow path that a daemon was too slow for.",
            )?,
        };
        for reason in Reason::ALL {
            // So that each is there before its first count.
            metrics.refused.with_label_values(&[reason.as_str()]);
        }
        registry.register(Box::new(metrics.done.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.strangers.clone()))?;
        registry.register(Box::new(metrics.events_lost.clone()))?;
        registry.register(Box::new(metrics.punts_lost.clone()))?;
        let guard = IntGauge::new(
            "caregate_switch_guard",
            "1 where table 0 and sensor ports are kept from the controller; 0 in a build for conformance suites.",
        )?;
        guard.set(GUARDED.into());
        registry.register(Box::new(guard))?;
        Ok(metrics)
    }

    pub(crate) fn done(&self) {
        self.done.inc();
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn stranger(&self) {
        self.strangers.inc();
    }

    pub(crate) fn events_lost(&self, count: u64) {
        self.events_lost.inc_by(count);
    }

    pub(crate) fn punts_lost(&self, count: u64) {
        self.punts_lost.inc_by(count);
    }
}

/// Collects what the kernel counted. No address and no name of a device is in it.
#[derive(Debug)]
pub struct KernelMetrics {
    shared: Shared,
    mode: IntGaugeVec,
    up: IntGaugeVec,
    kinds: IntCounterVec,
    kind_bytes: IntCounterVec,
    verdicts: IntCounterVec,
    verdict_bytes: IntCounterVec,
    rules: IntGaugeVec,
}

fn counters(name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), &["interface", label])
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

impl KernelMetrics {
    /// Reads `shared` at each scrape.
    ///
    /// # Errors
    /// Never in practice: the names are constant.
    pub fn new(shared: Shared) -> Result<Self, prometheus::Error> {
        Ok(Self {
            shared,
            mode: gauges(
                "caregate_datapathd_port_mode",
                "1 for the way in which a port's program is attached.",
                &["interface", "mode"],
            )?,
            up: gauges("caregate_datapathd_port_up", "1 where a port has a carrier.", &["interface"])?,
            kinds: counters("caregate_datapathd_frames_total", "Frames, by what they are.", "kind")?,
            kind_bytes: counters("caregate_datapathd_bytes_total", "Bytes, by what frames are.", "kind")?,
            verdicts: counters(
                "caregate_datapathd_verdicts_total",
                "Frames, by what was done with them.",
                "verdict",
            )?,
            verdict_bytes: counters(
                "caregate_datapathd_verdict_bytes_total",
                "Bytes, by what was done with frames.",
                "verdict",
            )?,
            rules: gauges(
                "caregate_datapathd_entries",
                "Devices, flows, groups and meters in force.",
                &["table"],
            )?,
        })
    }

    fn refresh(&self) {
        let ports = self.shared.ports();
        for port in &ports {
            for mode in Mode::ALL {
                let gauge = self.mode.with_label_values(&[port.name.as_str(), mode.as_str()]);
                gauge.set(i64::from(mode == port.mode));
            }
            self.up.with_label_values(&[port.name.as_str()]).set(i64::from(port.up));
        }
        let devices = self.shared.devices();
        let (flows, groups, meters) = self.shared.switch_sizes();
        let of_switch = [("flows", flows), ("groups", groups), ("meters", meters)];
        for (table, size) in [("devices", devices)].into_iter().chain(of_switch) {
            self.rules.with_label_values(&[table]).set(i64::try_from(size).unwrap_or(i64::MAX));
        }
        let counters = match self.shared.counters() {
            Ok(counters) => counters,
            Err(error) => return tracing::warn!(%error, "no frame counters"),
        };
        for counted in &counters.ports {
            let Some(port) = ports.iter().find(|port| port.number == counted.number) else { continue };
            raise(port, &counted.kinds, &self.kinds, &self.kind_bytes);
            raise(port, &counted.verdicts, &self.verdicts, &self.verdict_bytes);
        }
    }
}

fn raise(port: &Port, counted: &[Counted], frames: &IntCounterVec, bytes: &IntCounterVec) {
    for Counted { word, traffic } in counted {
        let labels = [port.name.as_str(), word.as_str()];
        for (counter, to) in [(frames, traffic.frames), (bytes, traffic.bytes)] {
            let counter = counter.with_label_values(&labels);
            counter.inc_by(to.saturating_sub(counter.get()));
        }
    }
}

impl Collector for KernelMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let counters = [&self.kinds, &self.kind_bytes, &self.verdicts, &self.verdict_bytes];
        let gauges = [&self.mode, &self.up, &self.rules];
        counters.iter().flat_map(|c| c.desc()).chain(gauges.iter().flat_map(|g| g.desc())).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        let counters = [&self.kinds, &self.kind_bytes, &self.verdicts, &self.verdict_bytes];
        let gauges = [&self.mode, &self.up, &self.rules];
        counters.iter().flat_map(|c| c.collect()).chain(gauges.iter().flat_map(|g| g.collect())).collect()
    }
}
