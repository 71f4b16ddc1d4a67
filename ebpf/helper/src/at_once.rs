//! What was counted of frames that switch ports sent at once: it belongs to what ports' verdicts and tables have counted otherwise.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError, PerCpuArray};
use caregate_ebpf_common::Verdict;
use caregate_ebpf_common::map::PORT_SLOTS;
use caregate_ebpf_common::switch::map::{self as layout, AT_ONCE_WORDS, FIRST_TABLES};
use caregate_protocol::datapath::Traffic;
use caregate_protocol::datapath::switch::TableCounters;

use crate::error::DatapathError;

/// The verdicts, in the order of an entry's counters.
const VERDICTS: [Verdict; 4] =
    [Verdict::SwitchDropped, Verdict::TableMiss, Verdict::Delivered, Verdict::Redirected];

/// The map; several may have it.
pub struct AtOnce(PerCpuArray<MapData, [u64; AT_ONCE_WORDS]>);

impl AtOnce {
    /// Has the map of a loaded object, which keeps it.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn open(ebpf: &Ebpf) -> Result<Self, DatapathError> {
        let Some(Map::PerCpuArray(map)) = ebpf.map(layout::AT_ONCE) else {
            return Err(DatapathError::Missing(layout::AT_ONCE));
        };
        let descriptor = map.fd().as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|error| DatapathError::kernel("having a map twice", error))?;
        let map = MapData::from_fd(descriptor).map_err(refused)?;
        Ok(Self(Map::PerCpuArray(map).try_into().map_err(refused)?))
    }

    fn sums(&self, table: u32, port: u32) -> Result<[Traffic; VERDICTS.len()], DatapathError> {
        let per_cpu = self.0.get(&layout::at_once(table, port), 0).map_err(refused)?;
        let mut sums = [Traffic::default(); VERDICTS.len()];
        for words in per_cpu.iter() {
            for (sum, counter) in sums.iter_mut().zip(words.as_chunks().0) {
                let [frames, bytes] = *counter;
                *sum = add(*sum, Traffic { frames, bytes });
            }
        }
        Ok(sums)
    }

    /// Frames of a port, by verdict; all others have none.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn verdicts(&self, port: u32) -> Result<[(Verdict, Traffic); VERDICTS.len()], DatapathError> {
        let mut all = VERDICTS.map(|verdict| (verdict, Traffic::default()));
        for table in 0..FIRST_TABLES {
            for ((_, sum), counted) in all.iter_mut().zip(self.sums(table, port)?) {
                *sum = add(*sum, counted);
            }
        }
        Ok(all)
    }

    /// What a table looked up, and how often there was a rule.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn table(&self, table: u8) -> Result<TableCounters, DatapathError> {
        let mut counters = TableCounters::default();
        if u32::from(table) >= FIRST_TABLES {
            return Ok(counters);
        }
        for port in 0..PORT_SLOTS {
            for (verdict, counted) in VERDICTS.into_iter().zip(self.sums(table.into(), port)?) {
                let matched = if verdict == Verdict::TableMiss { 0 } else { counted.frames };
                counters.lookups = counters.lookups.wrapping_add(counted.frames);
                counters.matched = counters.matched.wrapping_add(matched);
            }
        }
        Ok(counters)
    }
}

fn refused(error: MapError) -> DatapathError {
    DatapathError::kernel("using the counters of what is sent at once", error)
}

/// Both, each word by itself; they wrap as the kernel's do.
#[must_use]
pub fn add(one: Traffic, other: Traffic) -> Traffic {
    Traffic { frames: one.frames.wrapping_add(other.frames), bytes: one.bytes.wrapping_add(other.bytes) }
}
