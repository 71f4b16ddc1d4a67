//! The OpenFlow switch's side of the helper (ADR 17): what the daemon asked for, by id, and the blob that the programs read.
//!
//! ```text
//!  Change ──▶ mirror ──▶ places ──▶ build ──▶ blob, the copy that is out of force ──▶ epoch: in force
//!             (check)    counters   (chunks)
//! ```

pub mod blobs;
pub mod build;
pub mod check;
pub mod chunks;
pub mod maps;
pub mod mirror;
pub mod places;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use aya::Ebpf;
use caregate_ebpf_common::switch::blob::WORD_EPOCH;
use caregate_ebpf_common::switch::map::{
    FLOW_ENTRIES, STATE_LIVE, STATE_OWN_MARK, STATE_TABLES, epoch as epoch_of, tables_word,
};
use caregate_protocol::datapath::Traffic;
use caregate_protocol::datapath::switch::{Change, SwitchCounters};
use thiserror::Error;

use crate::error::DatapathError;
use build::Chosen;
use check::{ChangeError, Guard};
use maps::Maps;
use mirror::Mirror;
use places::{Numbers, Places};

/// Why changes were not put in force.
#[derive(Debug, Error)]
pub enum SwitchError {
    /// One of them is wrong.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The kernel said no.
    #[error(transparent)]
    Kernel(#[from] DatapathError),
}

/// Changes of one daemon, until the last of their series.
#[derive(Debug, Default)]
pub enum Series {
    /// None is open.
    #[default]
    Closed,
    /// What the switch will be.
    Open(Box<Mirror>),
    /// A part was refused, and so is the rest.
    Broken,
}

/// The switch.
pub struct Switch {
    maps: Maps,
    guard: Guard,
    mirror: Mirror,
    places: Places,
    chosen: Chosen,
    epoch: u64,
    /// Slots of flows from this one on have never been anybody's since their counters were made, and need not be cleared.
    unused_from: u32,
    /// Which ports are live, as the programs know it.
    live: u64,
    own_mark: u32,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flows, groups, meters) = self.mirror.sizes();
        let mut shown = f.debug_struct("Switch");
        shown.field("flows", &flows).field("groups", &groups).field("meters", &meters).finish_non_exhaustive()
    }
}

impl Switch {
    /// Takes the maps out of a loaded object and reads what is in force in them.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn open(ebpf: &mut Ebpf, guard: Guard) -> Result<Self, DatapathError> {
        let mut maps = Maps::open(ebpf)?;
        let epoch = epoch_of(maps.state(STATE_TABLES)?);
        let places = Places::read(maps.blobs.copy(epoch));
        maps.set_state(STATE_TABLES, tables_word(epoch, guard.first_table()))?;
        let live = maps.state(STATE_LIVE)?;
        // Whoever may set marks could have frames of his own go past the tables; so it is none that is known.
        let drawn = RandomState::new().hash_one(0u64);
        let own_mark = u32::try_from(drawn >> 32).unwrap_or_default().max(1);
        maps.set_state(STATE_OWN_MARK, own_mark.into())?;
        let (mirror, chosen) = (Mirror::default(), Chosen::default());
        let unused_from = if epoch == 0 { 0 } else { FLOW_ENTRIES };
        Ok(Self { maps, guard, mirror, places, chosen, epoch, unused_from, live, own_mark })
    }

    /// Flows, groups and meters in force.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.places.flows.len(), self.places.groups.len(), self.places.meters.len())
    }

    /// Does one frame's changes; all of a series are in force with the last. True where that was it.
    ///
    /// # Errors
    /// [`SwitchError`]; what was in force still is, and nothing of the series will be.
    pub fn change(
        &mut self,
        series: &mut Series,
        changes: Vec<Change>,
        more: bool,
        session: u64,
    ) -> Result<bool, SwitchError> {
        let mut mirror = match std::mem::take(series) {
            Series::Closed => Box::new(self.mirror.of_session(session)),
            Series::Open(mirror) => mirror,
            Series::Broken => {
                *series = if more { Series::Broken } else { Series::Closed };
                return Err(ChangeError::Broken.into());
            }
        };
        if let Err(error) = changes.into_iter().try_for_each(|change| mirror.apply(change, &self.guard)) {
            *series = if more { Series::Broken } else { Series::Closed };
            return Err(error.into());
        }
        if more {
            *series = Series::Open(mirror);
            return Ok(false);
        }
        self.put(*mirror)?;
        Ok(true)
    }

    /// Puts a mirror in force: fills the copy that is not, then one store.
    fn put(&mut self, mut mirror: Mirror) -> Result<(), SwitchError> {
        mirror.check_references(&self.guard)?;
        let (places, mut fresh) = self.places.next(&mirror)?;
        let epoch = self.epoch + 1;
        let slots: Numbers = fresh.flows.iter().copied().collect();
        let words = self.maps.blobs.copy_mut(epoch);
        build::write(&mirror, &places, &slots, &mut self.chosen, words)?;
        words[WORD_EPOCH] = epoch;
        let unused_from = fresh.flows.iter().map(|slot| slot + 1).fold(self.unused_from, u32::max);
        fresh.flows.retain(|slot| *slot < self.unused_from);
        self.maps.clear(&fresh)?;
        self.unused_from = unused_from;
        for meter in mirror.refilled().filter_map(|id| places.meters.get(&id)) {
            self.maps.refill(*meter)?;
        }
        self.maps.set_state(STATE_TABLES, tables_word(epoch, self.guard.first_table()))?;
        mirror.is_in_force();
        (self.mirror, self.places, self.epoch) = (mirror, places, epoch);
        Ok(())
    }

    /// What was counted of all that is in force.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn counters(&self) -> Result<SwitchCounters, DatapathError> {
        self.maps.counters(&self.mirror, &self.places)
    }

    /// What went out of an uplink by each of its queues.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn queues(&self, port: u32) -> Result<Vec<Traffic>, DatapathError> {
        self.maps.queues(port)
    }

    /// The mark (`SO_MARK`) by which the programs know frames that the helper sends.
    #[must_use]
    pub fn own_mark(&self) -> u32 {
        self.own_mark
    }

    /// Says which ports are live: bit *n* for port *n*.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn set_live(&mut self, live: u64) -> Result<(), DatapathError> {
        if live != self.live {
            self.maps.set_state(STATE_LIVE, live)?;
            self.live = live;
        }
        Ok(())
    }

    /// Says which interface frames to a port go out by.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn set_device(&mut self, port: u32, interface: u32) -> Result<(), DatapathError> {
        self.maps.set_device(port, interface)
    }
}
