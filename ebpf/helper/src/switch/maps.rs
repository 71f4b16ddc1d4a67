//! The switch's maps, each read and written through its own file descriptor.

use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::xdp::{DevMap, XdpMapError};
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use caregate_ebpf_common::switch::map as layout;
use caregate_ebpf_common::switch::record::{BANDS_MAX, meter_bucket, meter_counter};
use caregate_protocol::datapath::Traffic;
use caregate_protocol::datapath::switch::{
    FlowCounters, GroupCounters, MeterCounters, SwitchCounters, TableCounters,
};

use super::blobs::Blobs;
use super::build;
use super::mirror::{self, Mirror};
use super::places::{Fresh, Places};
use crate::at_once::AtOnce;
use crate::error::DatapathError;

type Counters = PerCpuArray<MapData, [u64; 2]>;

/// All that user space reads or writes. The counters are two words each: frames, bytes.
pub struct Maps {
    /// What tables, groups and meters say.
    pub blobs: Blobs,
    state: Array<MapData, u64>,
    tables: Counters,
    at_once: AtOnce,
    flows: Counters,
    groups: Counters,
    buckets: Counters,
    meters: Counters,
    meter_buckets: Array<MapData, u64>,
    devices: DevMap<MapData>,
    queues: Counters,
    processors: usize,
}

fn refused(error: MapError) -> DatapathError {
    DatapathError::kernel("using a map of the switch", error)
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, DatapathError> {
    ebpf.take_map(name).ok_or(DatapathError::Missing(name))?.try_into().map_err(refused)
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let Some(Map::Array(blobs)) = ebpf.take_map(layout::BLOBS) else {
            return Err(DatapathError::Missing(layout::BLOBS));
        };
        let blobs = Blobs::map(blobs.fd().as_fd())
            .map_err(|error| DatapathError::kernel("mapping the switch's tables", error))?;
        let processors =
            aya::util::nr_cpus().map_err(|(_, error)| DatapathError::kernel("counting CPUs", error))?;
        Ok(Self {
            blobs,
            state: take(ebpf, layout::STATE)?,
            tables: take(ebpf, layout::TABLE_COUNTERS)?,
            at_once: AtOnce::open(ebpf)?,
            flows: take(ebpf, layout::FLOW_COUNTERS)?,
            groups: take(ebpf, layout::GROUP_COUNTERS)?,
            buckets: take(ebpf, layout::BUCKET_COUNTERS)?,
            meters: take(ebpf, layout::METER_COUNTERS)?,
            meter_buckets: take(ebpf, layout::METER_BUCKETS)?,
            devices: take(ebpf, layout::DEVICES_OUT)?,
            queues: take(ebpf, layout::QUEUE_COUNTERS)?,
            processors,
        })
    }

    /// A word of [`layout::STATE`].
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn state(&self, which: u32) -> Result<u64, DatapathError> {
        self.state.get(&which, 0).map_err(refused)
    }

    /// Stores a word of [`layout::STATE`].
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn set_state(&mut self, which: u32, word: u64) -> Result<(), DatapathError> {
        self.state.set(which, word, 0).map_err(refused)
    }

    /// Where frames to a port go.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn set_device(&mut self, port: u32, interface: u32) -> Result<(), DatapathError> {
        let set = self.devices.set(port, interface, None, 0);
        set.map_err(|error: XdpMapError| DatapathError::kernel("naming a port's interface", error))
    }

    /// Clears what was counted at places that were others' once.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn clear(&mut self, fresh: &Fresh) -> Result<(), DatapathError> {
        let of_meter = |place: &u32| {
            let first = meter_counter(*place);
            first..=first + small(BANDS_MAX)
        };
        let meters: Vec<u32> = fresh.meters.iter().flat_map(of_meter).collect();
        let of = [
            (&mut self.flows, &fresh.flows),
            (&mut self.groups, &fresh.groups),
            (&mut self.buckets, &fresh.buckets),
            (&mut self.meters, &meters),
        ];
        for (counters, places) in of {
            for place in places {
                let zeroes = PerCpuValues::try_from(vec![[0, 0]; self.processors]);
                let zeroes = zeroes.map_err(|error| DatapathError::kernel("clearing a counter", error))?;
                counters.set(*place, zeroes, 0).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Fills the buckets of a meter's bands.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn refill(&mut self, meter: u32) -> Result<(), DatapathError> {
        for band in 0..small(BANDS_MAX) {
            self.meter_buckets.set(meter_bucket(meter, band), 0, 0).map_err(refused)?;
        }
        Ok(())
    }

    /// What went out of a port by each of its queues.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn queues(&self, port: u32) -> Result<Vec<Traffic>, DatapathError> {
        (0..layout::QUEUES).map(|queue| sum(&self.queues, layout::queue_counter(port, queue))).collect()
    }

    /// What was counted of all that is in force.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn counters(&self, mirror: &Mirror, places: &Places) -> Result<SwitchCounters, DatapathError> {
        let mut counters = SwitchCounters::default();
        for table in mirror::tables() {
            let Traffic { frames, bytes } = sum(&self.tables, table.into())?;
            let TableCounters { lookups, matched } = self.at_once.table(table)?;
            let (lookups, matched) = (lookups.wrapping_add(frames), matched.wrapping_add(bytes));
            counters.tables.push(TableCounters { lookups, matched });
        }
        for (id, slot) in &places.flows {
            let traffic = sum(&self.flows, *slot)?;
            if traffic.frames > 0 {
                counters.flows.push(FlowCounters { id: *id, traffic });
            }
        }
        for (id, place) in &places.groups {
            let buckets = place.first..place.first + place.buckets;
            let buckets: Result<_, _> = buckets.map(|bucket| sum(&self.buckets, bucket)).collect();
            let traffic = sum(&self.groups, place.group)?;
            counters.groups.push(GroupCounters { id: *id, traffic, buckets: buckets? });
        }
        for meter in mirror.meters() {
            let Some(place) = places.meters.get(&meter.id) else { continue };
            let first = meter_counter(*place);
            let mut bands = vec![Traffic::default(); meter.bands.len()];
            for (number, (band, _)) in (first + 1..).zip(build::bands(meter)) {
                if let Some(of_band) = bands.get_mut(band) {
                    *of_band = sum(&self.meters, number)?;
                }
            }
            counters.meters.push(MeterCounters { id: meter.id, traffic: sum(&self.meters, first)?, bands });
        }
        Ok(counters)
    }
}

fn sum(counters: &Counters, index: u32) -> Result<Traffic, DatapathError> {
    let per_cpu = counters.get(&index, 0).map_err(refused)?;
    Ok(per_cpu.iter().fold(Traffic::default(), |sum, [frames, bytes]| Traffic {
        frames: sum.frames.wrapping_add(*frames),
        bytes: sum.bytes.wrapping_add(*bytes),
    }))
}
