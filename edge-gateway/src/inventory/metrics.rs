//! Counters of the inventory. No label comes from a frame.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct InventoryMetrics {
    /// `caregate_gateway_inventory_devices`.
    pub devices: IntGauge,
    /// `caregate_gateway_inventory_frames_total{means}`.
    pub frames: IntCounterVec,
    /// `caregate_gateway_inventory_faults_total{reason}`.
    pub faults: IntCounterVec,
    /// `caregate_gateway_inventory_sightings_total{outcome}`.
    pub noted: IntCounterVec,
}

impl InventoryMetrics {
    /// Makes and registers the counters.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str| {
            let made = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let devices =
            IntGauge::new("caregate_gateway_inventory_devices", "Devices seen on the sensor ports")?;
        registry.register(Box::new(devices.clone()))?;
        Ok(Self {
            devices,
            frames: counters(
                "caregate_gateway_inventory_frames_total",
                "Frames that told of a device, by what they are",
                "means",
            )?,
            faults: counters(
                "caregate_gateway_inventory_faults_total",
                "Frames that are malformed, by where",
                "reason",
            )?,
            noted: counters(
                "caregate_gateway_inventory_sightings_total",
                "What became of a sighting",
                "outcome",
            )?,
        })
    }
}
