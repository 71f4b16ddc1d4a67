//! The kernel's counters for the gateway's `/metrics`, read from the helper every second. Devices are numbers here, and flows a sum by table.

use std::time::Duration;

use caregate_protocol::datapath::switch::SwitchCounters;
use caregate_protocol::datapath::{Counted, Counters, Mode, Port, Traffic};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio_util::sync::CancellationToken;

use super::Datapath;

/// How often counters are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the helper says. Clones share.
#[derive(Debug, Clone)]
pub struct DatapathMetrics {
    connected: IntGauge,
    port_mode: IntGaugeVec,
    port_up: IntGaugeVec,
    kinds: IntCounterVec,
    verdicts: IntCounterVec,
    verdict_bytes: IntCounterVec,
    devices: IntCounterVec,
    table_lookups: IntCounterVec,
    table_matched: IntCounterVec,
    packets_lost: IntCounter,
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

impl DatapathMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Never in practice: the names are constant.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let mode = Opts::new(
            "caregate_gateway_datapath_port_mode",
            "1 for the way in which a port's program is attached.",
        );
        let up = Opts::new("caregate_gateway_datapath_port_up", "1 where a port has a carrier.");
        let metrics = Self {
            connected: IntGauge::new("caregate_gateway_datapath_connected", "1 while the helper is there.")?,
            port_mode: IntGaugeVec::new(mode, &["interface", "mode"])?,
            port_up: IntGaugeVec::new(up, &["interface"])?,
            kinds: counters(
                "caregate_gateway_datapath_frames_total",
                "Frames, by what they are.",
                &["interface", "kind"],
            )?,
            verdicts: counters(
                "caregate_gateway_datapath_verdicts_total",
                "Frames, by what was done with them.",
                &["interface", "verdict"],
            )?,
            verdict_bytes: counters(
                "caregate_gateway_datapath_verdict_bytes_total",
                "Bytes, by what was done with frames.",
                &["interface", "verdict"],
            )?,
            devices: counters(
                "caregate_gateway_datapath_device_frames_total",
                "Frames of bound devices, by their number in the enrolment file.",
                &["device", "fate"],
            )?,
            table_lookups: counters(
                "caregate_gateway_datapath_table_lookups_total",
                "Frames that a table was asked about.",
                &["table"],
            )?,
            table_matched: counters(
                "caregate_gateway_datapath_table_matched_total",
                "Frames that a flow of a table matched.",
                &["table"],
            )?,
            packets_lost: IntCounter::new(
                "caregate_gateway_datapath_packets_lost_total",
                "Frames for the controller that came faster than they were taken.",
            )?,
        };
        metrics.registered(registry)?;
        Ok(metrics)
    }

    fn registered(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.connected.clone()))?;
        let vectors = [&self.kinds, &self.verdicts, &self.verdict_bytes, &self.devices]
            .into_iter()
            .chain([&self.table_lookups, &self.table_matched]);
        vectors.into_iter().try_for_each(|vector| registry.register(Box::new(vector.clone())))?;
        registry.register(Box::new(self.port_mode.clone()))?;
        registry.register(Box::new(self.port_up.clone()))?;
        registry.register(Box::new(self.packets_lost.clone()))
    }

    fn set_ports(&self, ports: &[Port]) {
        for port in ports {
            for mode in Mode::ALL {
                let gauge = self.port_mode.with_label_values(&[port.name.as_str(), mode.as_str()]);
                gauge.set(i64::from(mode == port.mode));
            }
            self.port_up.with_label_values(&[port.name.as_str()]).set(i64::from(port.up));
        }
    }

    fn raise(&self, ports: &[Port], counters: &Counters) {
        for counted in &counters.ports {
            let Some(port) = ports.iter().find(|port| port.number == counted.number) else { continue };
            for Counted { word, traffic } in &counted.kinds {
                raise(&self.kinds, [&port.name, word], traffic.frames);
            }
            for Counted { word, traffic } in &counted.verdicts {
                raise(&self.verdicts, [&port.name, word], traffic.frames);
                raise(&self.verdict_bytes, [&port.name, word], traffic.bytes);
            }
        }
        for device in &counters.devices {
            let index = device.index.to_string();
            for (fate, Traffic { frames, .. }) in [("passed", device.passed), ("dropped", device.dropped)] {
                raise(&self.devices, [&index, fate], frames);
            }
        }
    }

    fn raise_tables(&self, counters: &SwitchCounters) {
        for (number, table) in counters.tables.iter().enumerate() {
            let number = number.to_string();
            raise(&self.table_lookups, [&number], table.lookups);
            raise(&self.table_matched, [&number], table.matched);
        }
    }
}

/// Counters only rise; where the helper's began anew, after its maps were removed, ours wait for them.
fn raise<const N: usize>(counter: &IntCounterVec, labels: [&str; N], to: u64) {
    let counter = counter.with_label_values(&labels);
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// Reads the helper's counters until `stop`.
pub async fn poll(datapath: Datapath, metrics: DatapathMetrics, stop: CancellationToken) {
    loop {
        let ports = datapath.ports();
        metrics.set_ports(&ports);
        let counters = datapath.counters().await;
        metrics.connected.set(i64::from(counters.is_ok()));
        if let Ok(counters) = counters {
            metrics.raise(&ports, &counters);
        }
        if let Ok(counters) = datapath.switch_counters().await {
            metrics.raise_tables(&counters);
        }
        metrics.packets_lost.inc_by(datapath.packets_lost().saturating_sub(metrics.packets_lost.get()));
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}
