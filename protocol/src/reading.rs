//! A reading: one numeric, one waveform chunk or one event of one device.

use crate::id::{DeviceId, StreamName};

/// Most samples in one waveform chunk: 250 ms at 32 kHz, far above any body sensor; it bounds a decoded chunk to 16 kB.
pub const SAMPLES_MAX: usize = 8192;

/// One measurement as the gateway admitted it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The device that sent it.
    pub device: DeviceId,
    /// Which of the device's series: the metric, the waveform channel, the event type.
    pub stream: StreamName,
    /// The device's own counter in that series, where the payload carries one.
    pub seq: Option<u64>,
    /// Unix time in microseconds by the device's clock, where the payload carries one.
    pub sensor_time_us: Option<i64>,
    /// Unix time in microseconds by the gateway's clock, when the packet came in.
    pub gateway_time_us: i64,
    /// The device's quality flags, 0 where it sent none.
    pub flags: u32,
    /// What was measured.
    pub value: Value,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// One number, already in the quantity's own unit (`crate::code`).
    Numeric {
        /// The quantity, by its row in the code table.
        quantity: u16,
        /// In the unit of that row.
        value: f64,
    },
    /// Evenly spaced samples; the physical value is `offset + scale * sample`.
    Waveform {
        /// The quantity, by its row in the code table.
        quantity: u16,
        /// Unix time of the first sample in microseconds, by the device's clock.
        t0_us: i64,
        /// Time between samples in nanoseconds (360 Hz has no whole number of microseconds).
        period_ns: u32,
        /// Physical units per step.
        scale: f64,
        /// Physical value of sample 0.
        offset: f64,
        /// At most [`SAMPLES_MAX`].
        samples: Vec<i16>,
    },
    /// Something that happened.
    Event {
        /// The quantity, by its row in the code table.
        quantity: u16,
    },
}
