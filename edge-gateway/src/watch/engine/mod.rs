//! The engine: readings, commands and the clock in, standings out. Pure, and the only engine that there is (ADR 20).

mod away;
mod clock;
mod condition;
mod defaults;
mod inputs;
mod lag;
mod patient;
mod rules;
mod series;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caregate_protocol::alarm::{Alarm, Handled, Limits, Settings, Standing};
use caregate_protocol::command::Action;
use caregate_protocol::id::{DataClass, DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::PATIENTS_MAX;
use caregate_protocol::{code, reading};
use serde::{Deserialize, Serialize};

use self::away::Away;
use self::patient::Patient;

pub(super) use clock::Clock;
pub use defaults::limits_of;
pub use patient::{SERIES_MAX, TOLD_EVERY};
pub use series::LOST_AFTER;

/// Both clocks: durations are the monotonic one's, stamps Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since the start.
    pub at: Duration,
    /// Unix microseconds.
    pub unix_us: i64,
}

/// What is watched of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// A number, in its row's unit.
    Numeric(f64),
    /// A chunk of samples; that it came is all that is looked at.
    Waveform,
    /// Something happened.
    Event,
}

/// A reading, as far as it is watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Whose.
    pub patient: PatientId,
    /// Of which device.
    pub device: DeviceId,
    /// Its row in the code table.
    pub quantity: u16,
    /// What it says.
    pub what: What,
    /// Whether who may see alarms is not told its value: it is of another class than vitals, so an alarm names what is wrong and no number, and no
    /// score counts it.
    pub is_withheld: bool,
    /// The device's counter.
    pub seq: Option<u64>,
    /// Unix microseconds by the device's clock.
    pub sensor_us: Option<i64>,
    /// Unix microseconds by the gateway's clock.
    pub received_us: i64,
}

impl Observation {
    /// By how much it came later than its device says; `None` where that says no time: it is of now.
    #[must_use]
    pub fn lag_us(&self) -> Option<i64> {
        self.sensor_us.map(|sensor_us| self.received_us.saturating_sub(sensor_us))
    }

    /// Of an admitted reading, which will be sealed as `class`; none of what the gateway itself says.
    #[must_use]
    pub fn of(patient: PatientId, class: DataClass, reading: &reading::Reading) -> Option<Self> {
        let (quantity, what) = match reading.value {
            reading::Value::Numeric { quantity, value } => (quantity, What::Numeric(value)),
            reading::Value::Waveform { quantity, .. } => (quantity, What::Waveform),
            reading::Value::Event { quantity } => (quantity, What::Event),
            reading::Value::Standing(_) => return None,
        };
        Some(Self {
            patient,
            device: reading.device.clone(),
            quantity,
            what,
            is_withheld: class != DataClass::Vitals,
            seq: reading.seq,
            sensor_us: reading.sensor_time_us,
            received_us: reading.gateway_time_us,
        })
    }
}

/// What must survive a restart, of one patient.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What staff set and entered; `limits` are those that differ from the site's.
    pub settings: Settings,
    /// The last command of each domain.
    pub handled: Vec<Handled>,
    /// The number of the newest alarm, or the last of those that a start left out.
    pub next_alarm: u64,
    /// Alarms that latch and that nobody has acknowledged, and leads that are off: the device says it once.
    pub latched: Vec<Alarm>,
}

impl Kept {
    /// What would be missed most where there is no room for all: alarms that stand, then what staff said, which always leaves a command's number.
    fn weight(&self) -> (bool, bool) {
        (!self.latched.is_empty(), !self.handled.is_empty())
    }
}

/// What the configuration says.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Limits in place of the defaults, by row number.
    pub limits: BTreeMap<u16, Limits>,
    /// Who is what, until staff say otherwise.
    pub profiles: BTreeMap<PatientId, Settings>,
}

/// What was not watched, since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Numbers of series that never came.
    pub missing: u64,
    /// Readings of a series or a patient beyond what is watched.
    pub unwatched: u64,
    /// Alarms that found no room.
    pub crowded: u64,
    /// Patients who made room for others, or found none at the start.
    pub let_go: LetGo,
}

/// Patients of whom nothing is watched until something comes of them, by what they had; they find it again then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LetGo {
    /// Alarms that stood; where nobody else could go.
    pub alarms: u64,
    /// What staff had said.
    pub settings: u64,
    /// Neither.
    pub nothing: u64,
    /// Those who find nothing again: so many are away that one was forgotten.
    pub forgotten: u64,
}

/// A standing that changed, or that is due again.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Whose.
    pub patient: PatientId,
    /// All that is said.
    pub standing: Standing,
}

/// Watches all patients of a gateway.
#[derive(Debug, Default)]
pub struct Engine {
    site: Site,
    clock: Clock,
    patients: BTreeMap<PatientId, Patient>,
    /// Who made room for them.
    away: Away,
    /// Who wears a device, by policy; empty until it is known.
    worn: BTreeSet<PatientId>,
    /// Of whom nothing is to be known any more.
    erased: BTreeSet<PatientId>,
    losses: Losses,
}

impl Engine {
    /// With what was kept.
    #[must_use]
    pub fn new(site: Site, kept: impl IntoIterator<Item = (PatientId, Kept)>) -> Self {
        let mut engine = Self { site, ..Self::default() };
        let mut all: Vec<_> = kept.into_iter().collect();
        // Rows stay until an erasure, so there may be more than are watched.
        all.sort_by_key(|(_, kept)| Reverse(kept.weight()));
        for (id, kept) in all {
            let patient = Patient::new(kept);
            if engine.patients.len() < PATIENTS_MAX {
                engine.patients.insert(id, patient);
            } else {
                engine.let_go(id, &patient);
            }
        }
        engine
    }

    /// The patient's state; made where there is room for one more, of what was kept where there was one before.
    fn patient(&mut self, id: PatientId) -> Option<&mut Patient> {
        if self.erased.contains(&id) {
            return None;
        }
        if !self.patients.contains_key(&id) {
            let gone = if self.patients.len() < PATIENTS_MAX { None } else { Some(self.who_goes()?) };
            let kept = self.away.take(&id);
            if let Some((gone, patient)) = gone.and_then(|gone| self.patients.remove_entry(&gone)) {
                self.let_go(gone, &patient);
            }
            self.patients.insert(id, Patient::back(kept));
        }
        let patient = self.patients.get_mut(&id)?;
        if let Some(profile) = self.site.profiles.get(&id) {
            patient.introduce(profile);
        }
        Some(patient)
    }

    /// Who makes room: one who wears nothing any more, and of those whose going takes least away.
    fn who_goes(&self) -> Option<PatientId> {
        let unworn = self.patients.iter().filter(|(id, _)| !self.worn.contains(id));
        unworn.min_by_key(|(_, patient)| patient.weight()).map(|(id, _)| *id)
    }

    /// A patient is watched no more. Alarms that latched, limits and numbers are there again with the next that comes of them, as after a restart.
    fn let_go(&mut self, id: PatientId, patient: &Patient) {
        let let_go = &mut self.losses.let_go;
        let (has_alarms, _, has_settings, _) = patient.weight();
        let had = match (has_alarms, has_settings) {
            (true, _) => &mut let_go.alarms,
            (false, true) => &mut let_go.settings,
            (false, false) => &mut let_go.nothing,
        };
        *had += 1;
        let_go.forgotten += u64::from(self.away.put(id, patient.kept()));
    }

    /// Looks at the gateway's clock. Where it was set, what is known by it moves along.
    fn look(&mut self, now: Now) {
        if let Some(by_us) = self.clock.look(now) {
            self.patients.values_mut().for_each(|patient| patient.clock_set(by_us));
        }
    }

    /// Notes a reading.
    pub fn observe(&mut self, seen: &Observation, now: Now) {
        // What is shown before the first look lay in the spool, and `now` is when it came.
        if self.clock.is_known() {
            self.look(now);
        }
        let received_us = self.clock.received_us(seen.received_us, now);
        let moved = (received_us != seen.received_us).then(|| Observation { received_us, ..seen.clone() });
        let seen = moved.as_ref().unwrap_or(seen);
        let site = std::mem::take(&mut self.site.limits);
        let noted = self.patient(seen.patient).and_then(|patient| patient.observe(seen, &site, now));
        self.site.limits = site;
        match noted {
            Some(missing) => self.losses.missing += missing,
            None => self.losses.unwatched += 1,
        }
    }

    /// Notes that a device sent what nobody can have.
    pub fn implausible(&mut self, patient: PatientId, device: &DeviceId, now: Now) {
        self.look(now);
        if let Some(patient) = self.patient(patient) {
            patient.implausible(device, now);
        }
    }

    /// Does what a verified command says, once. `refused` is a word from whoever verified it, where its domain is to hear that it was
    /// not done.
    ///
    /// # Errors
    /// The word with which it was refused. One that came again is refused as `replayed`, and what became of it stays told.
    pub fn command(
        &mut self,
        patient: PatientId,
        (domain, sequence): (RecipientId, u64),
        action: &Action,
        refused: Option<&'static str>,
        now: Now,
    ) -> Result<(), &'static str> {
        self.look(now);
        let patient = self.patient(patient).ok_or("patients")?;
        if patient.last_of(&domain).is_some_and(|last| sequence <= last) {
            return Err("replayed");
        }
        let refused = refused.or_else(|| action.check().err().map(|error| error.reason()));
        let refused = refused.or_else(|| is_sensitive(action).then_some("limits_sensitive"));
        patient.handled(domain, sequence, refused);
        match refused {
            Some(word) => Err(word),
            None => {
                patient.act(action, now);
                Ok(())
            }
        }
    }

    /// Looks at the clock. Call about every second.
    pub fn tick(&mut self, now: Now) {
        self.look(now);
        self.patients.values_mut().for_each(|patient| patient.tick(&self.site.limits, now));
    }

    /// Who wears what: nothing is missed of others.
    pub fn follow(&mut self, worn: &BTreeMap<PatientId, BTreeSet<DeviceId>>) {
        self.worn = worn.keys().copied().collect();
        let nothing = BTreeSet::new();
        for (id, patient) in &mut self.patients {
            patient.keep_devices(worn.get(id).unwrap_or(&nothing));
        }
    }

    /// Forgets a patient, who is not watched again. True where that is new.
    pub fn forget(&mut self, patient: PatientId) -> bool {
        self.patients.remove(&patient);
        self.away.forget(&patient);
        self.erased.insert(patient)
    }

    /// What changed, or is due to be said again.
    pub fn told(&mut self, now: Now) -> Vec<Told> {
        self.look(now);
        let mut all = Vec::new();
        for (id, patient) in &mut self.patients {
            let standing = patient.take(&self.site.limits, now);
            all.extend(standing.map(|standing| Told { patient: *id, standing }));
            self.losses.crowded += std::mem::take(&mut patient.crowded);
        }
        all
    }

    /// What must survive a restart, of one patient.
    #[must_use]
    pub fn kept(&self, patient: &PatientId) -> Option<Kept> {
        self.patients.get(patient).map(Patient::kept).or_else(|| self.away.kept(patient).cloned())
    }

    /// Numbers of a patient's series that never came.
    #[must_use]
    pub fn missing(&self, patient: &PatientId) -> u64 {
        self.patients.get(patient).map_or(0, Patient::missing)
    }

    /// What was not watched since the last call.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }
}

fn is_sensitive(action: &Action) -> bool {
    let Action::Limits { quantity, .. } = action else { return false };
    code::by_number(*quantity).is_some_and(|row| row.class != DataClass::Vitals)
}
