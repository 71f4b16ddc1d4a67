//! The kernel's counters for `/metrics`, read at each scrape.

use caregate_ebpf_common::Kind;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::{Mode, Observer};

/// Collects `caregate_datapath_frames_total`, `caregate_datapath_bytes_total` by interface, kind and whether it is malformed, and
/// `caregate_datapath_attached` by interface and mode.
#[derive(Debug)]
pub struct ObserverMetrics {
    observers: Vec<Observer>,
    frames: IntCounterVec,
    bytes: IntCounterVec,
    attached: IntGaugeVec,
}

impl ObserverMetrics {
    /// Takes the observers and keeps them attached for as long as it lives.
    ///
    /// # Errors
    /// Never in practice: the names are constant.
    pub fn new(observers: Vec<Observer>) -> Result<Self, prometheus::Error> {
        let labels = ["interface", "kind", "malformed"];
        let frames = Opts::new("caregate_datapath_frames_total", "Frames that XDP saw and passed, by kind.");
        let bytes = Opts::new("caregate_datapath_bytes_total", "Bytes of the frames that XDP saw, by kind.");
        let attached = Opts::new("caregate_datapath_attached", "1 where XDP is attached, by mode.");
        let metrics = Self {
            observers,
            frames: IntCounterVec::new(frames, &labels)?,
            bytes: IntCounterVec::new(bytes, &labels)?,
            attached: IntGaugeVec::new(attached, &["interface", "mode"])?,
        };
        for observer in &metrics.observers {
            for mode in [Mode::Native, Mode::Generic] {
                let gauge = metrics.attached.with_label_values(&[observer.interface(), mode.as_str()]);
                gauge.set(i64::from(mode == observer.mode()));
            }
        }
        Ok(metrics)
    }

    fn refresh(&self, observer: &Observer) {
        let counts = match observer.counts() {
            Ok(counts) => counts,
            Err(error) => {
                return tracing::warn!(interface = observer.interface(), %error, "no frame counters");
            }
        };
        for (kind, counter) in counts {
            let labels = [observer.interface(), kind.as_str(), malformed(kind)];
            raise(&self.frames.with_label_values(&labels), counter.frames);
            raise(&self.bytes.with_label_values(&labels), counter.bytes);
        }
    }
}

fn malformed(kind: Kind) -> &'static str {
    if kind.is_malformed() { "true" } else { "false" }
}

fn raise(counter: &prometheus::IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

impl Collector for ObserverMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.frames.desc(), self.bytes.desc(), self.attached.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for observer in &self.observers {
            self.refresh(observer);
        }
        [self.frames.collect(), self.bytes.collect(), self.attached.collect()].concat()
    }
}
