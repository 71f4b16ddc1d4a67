//! One patient's watch: series, conditions, alarms and score. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caregate_protocol::alarm::{
    ALARMS_MAX, Alarm, Category, HANDLED_MAX, Handled, Kind, Limits, Priority, Score, Settings, Standing,
    State,
};
use caregate_protocol::code;
use caregate_protocol::command::{Action, PAUSE_S_MAX};
use caregate_protocol::id::{DeviceId, RecipientId};

use super::clock::{Ahead, Said};
use super::condition::{Condition, Side, Threshold};
use super::defaults::{HEART_RATE, PULSE_RATE, default_limits, limits_of};
use super::inputs::{Inputs, SMOOTHED_OVER};
use super::lag::Lag;
use super::rules::{is_continuous, priority, thresholds};
use super::series::Series;
use super::{Kept, Now, Observation, What};

/// Series of one patient: 16 devices with four each, and as many of events. What comes beyond is not watched, and counted; of events that is
/// their numbers alone.
pub const SERIES_MAX: usize = 64;
/// How long a score lasts before it alarms: a nurse who turns a patient is no deterioration.
const SCORE_DELAY: Duration = Duration::from_secs(30);
/// Implausible values count as going on for so long after the last.
const IMPLAUSIBLE_FOR: Duration = Duration::from_secs(30);
/// A change of the score alone is told so often at most.
const SCORE_TOLD_EVERY: Duration = Duration::from_secs(30);
/// So often all is told again, for who joined meanwhile.
pub const TOLD_EVERY: Duration = Duration::from_secs(60);
/// After so long without a reading a patient without alarms is not told of any more.
const QUIET_AFTER: Duration = Duration::from_secs(600);
/// NEWS2's thresholds (emergency and urgent response).
const SCORE_HIGH: u8 = 7;
const SCORE_MEDIUM: u8 = 5;
/// A single parameter that scores this much asks for a review.
const SCORE_SINGLE: u8 = 3;
/// Numbers that a start leaves out. While the disk hangs, alarms are told whose numbers are on no disk; after a power cut another must not have
/// one of them. So many are an alarm each ten seconds for three hours.
pub(super) const SKIPPED: u64 = 1_000;

/// What tells one alarm of a patient from another.
type Key = (Kind, Option<u16>, Option<DeviceId>);
/// The limit alarms of one series, by kind.
type Guards = BTreeMap<Kind, Condition>;

/// What is watched of one patient.
#[derive(Debug, Clone, Default)]
pub(super) struct Patient {
    kept: Kept,
    /// Alarms up to this number are of before the start, or of before it was away.
    before: u64,
    said: Said,
    ahead: Ahead,
    series: BTreeMap<(DeviceId, u16), Series>,
    /// The same of events, which nobody expects.
    events: BTreeMap<(DeviceId, u16), Series>,
    guards: BTreeMap<(DeviceId, u16), Guards>,
    scores: Guards,
    inputs: Inputs,
    leads_off: BTreeSet<DeviceId>,
    implausible: BTreeMap<DeviceId, Duration>,
    alarms: BTreeMap<Key, Alarm>,
    /// When a pause ends by the monotonic clock: a clock that is set back makes none longer.
    paused_until: Option<Duration>,
    score: Option<Score>,
    score_told: Option<Duration>,
    heard: Option<Duration>,
    told: Option<Duration>,
    told_us: i64,
    changed: bool,
    /// Alarms that found no room.
    pub(super) crowded: u64,
}

impl Patient {
    /// As it was kept before a start.
    #[must_use]
    pub(super) fn new(mut kept: Kept) -> Self {
        // At once, and not with the first alarm: it is written with what is told first, so that the next start goes on from here.
        kept.next_alarm = kept.next_alarm.saturating_add(SKIPPED);
        Self::back(kept)
    }

    /// As it was kept; what latched is there again.
    #[must_use]
    pub(super) fn back(kept: Kept) -> Self {
        let before = kept.next_alarm;
        let key = |alarm: &Alarm| (alarm.kind, alarm.quantity, alarm.device.clone());
        let alarms = kept.latched.iter().map(|alarm| (key(alarm), alarm.clone())).collect();
        let leads_off = kept.latched.iter().filter(|alarm| alarm.kind == Kind::LeadsOff);
        let leads_off = leads_off.filter_map(|alarm| alarm.device.clone()).collect();
        Self { kept, before, alarms, leads_off, changed: true, ..Self::default() }
    }

    /// What must survive a restart.
    #[must_use]
    pub(super) fn kept(&self) -> Kept {
        let latched = self.alarms.values().filter_map(|alarm| {
            if alarm.kind == Kind::LeadsOff {
                // A heart rate ends it, also after a restart.
                return Some(alarm.clone());
            }
            // A condition may have ended while nobody looked.
            let stays = alarm.kind.latches() && alarm.state != State::Acknowledged;
            stays.then(|| Alarm { state: State::Latched, ..alarm.clone() })
        });
        Kept { latched: latched.collect(), ..self.kept.clone() }
    }

    /// How much goes where it makes room for another: alarms; a change that nobody was told of; what staff said; and of equals the one that was heard
    /// last stays.
    #[must_use]
    pub(super) fn weight(&self) -> (bool, bool, bool, Option<Duration>) {
        let (_, has_settings) = self.kept.weight();
        (!self.alarms.is_empty(), self.changed, has_settings, self.heard)
    }

    /// The limits in force: defaults, the site's, and what staff set, in this order.
    #[must_use]
    pub(super) fn limits(&self, site: &BTreeMap<u16, Limits>) -> BTreeMap<u16, Limits> {
        let mut limits = limits_of(self.kept.settings.category.unwrap_or(Category::Adult));
        limits.extend(site);
        limits.extend(&self.kept.settings.limits);
        limits
    }

    /// The same of one quantity.
    fn limits_for(&self, quantity: u16, site: &BTreeMap<u16, Limits>) -> Option<Limits> {
        let of_staff = self.kept.settings.limits.get(&quantity).or_else(|| site.get(&quantity));
        let category = self.kept.settings.category.unwrap_or(Category::Adult);
        of_staff.copied().or_else(|| default_limits(category, quantity))
    }

    /// Notes a reading. Returns how many of its series' numbers are missing; none where the series is not watched.
    pub(super) fn observe(
        &mut self,
        seen: &Observation,
        site: &BTreeMap<u16, Limits>,
        now: Now,
    ) -> Option<u64> {
        self.heard = Some(now.at);
        if seen.what == What::Event {
            return Some(self.event(seen, now));
        }
        let key = (seen.device.clone(), seen.quantity);
        if !self.series.contains_key(&key) && self.series.len() >= SERIES_MAX {
            return None;
        }
        let series = self.series.entry(key.clone()).or_default();
        series.is_withheld = seen.is_withheld;
        let (is_now, missing) = series.note(seen.seq, seen.sensor_us, seen.received_us, now.at);
        if is_now {
            self.end(&(Kind::NoData, Some(seen.quantity), Some(seen.device.clone())));
            if let What::Numeric(value) = seen.what {
                self.numeric(&key, value, site, now);
            }
        }
        Some(missing)
    }

    fn numeric(&mut self, key: &(DeviceId, u16), value: f64, site: &BTreeMap<u16, Limits>, now: Now) {
        let (device, quantity) = (&key.0, key.1);
        if quantity == HEART_RATE && value > 0.0 && self.leads_off.remove(device) {
            self.end(&(Kind::LeadsOff, None, Some(device.clone())));
        }
        if !self.is_withheld(key) {
            self.inputs.note(quantity, value, now.at);
        }
        let limits = self.limits_for(quantity, site);
        let guards = self.guards.entry(key.clone()).or_default();
        for (kind, threshold) in thresholds(quantity, limits) {
            guards.entry(kind).or_default().see(&threshold, value, now.at);
        }
        self.judge(key, limits, now);
    }

    /// Whether who may see alarms is not told a series' values.
    fn is_withheld(&self, key: &(DeviceId, u16)) -> bool {
        self.series.get(key).is_some_and(|series| series.is_withheld)
    }

    /// Raises and ends the limit alarms of one series. Where an extreme one is there, the plain one is not.
    fn judge(&mut self, (device, quantity): &(DeviceId, u16), limits: Option<Limits>, now: Now) {
        let Some(guards) = self.guards.get(&(device.clone(), *quantity)) else { return };
        let is_of = |(_, of, by): &Key| *of == Some(*quantity) && by.as_ref() == Some(device);
        if guards.values().all(|guard| guard.value().is_none()) && !self.alarms.keys().any(is_of) {
            return;
        }
        // The heart's rate is watched where there is one, not both.
        let is_second = *quantity == PULSE_RATE && self.has_heart_rate(now.at);
        let value = |kind: Kind| guards.get(&kind).and_then(Condition::value).filter(|_| !is_second);
        let covered = |kind: Kind| {
            let by: &[Kind] = match kind {
                Kind::Low => &[Kind::ExtremeLow, Kind::Asystole, Kind::Apnoea],
                Kind::ExtremeLow => &[Kind::Asystole],
                Kind::High => &[Kind::ExtremeHigh],
                Kind::ExtremeHigh
                | Kind::Asystole
                | Kind::Apnoea
                | Kind::Score
                | Kind::Fall
                | Kind::Button
                | Kind::LeadsOff
                | Kind::NoData
                | Kind::Implausible => &[],
            };
            by.iter().any(|kind| value(*kind).is_some())
        };
        let verdicts: Vec<_> =
            [Kind::Asystole, Kind::Apnoea, Kind::ExtremeLow, Kind::ExtremeHigh, Kind::Low, Kind::High]
                .into_iter()
                .map(|kind| (kind, value(kind).filter(|_| !covered(kind))))
                .collect();
        let limit = |kind| {
            let all = thresholds(*quantity, limits);
            all.into_iter().find(|(of, _)| *of == kind).map(|(_, threshold)| threshold.limit)
        };
        let is_told = !self.is_withheld(&(device.clone(), *quantity));
        for (kind, value) in verdicts {
            let key = (kind, Some(*quantity), Some(device.clone()));
            match value {
                Some(value) => self.raise(key, Some(value).filter(|_| is_told), limit(kind), now),
                None => self.end(&key),
            }
        }
    }

    /// However rarely it comes: a pulse of now is not silent for a heart rate of some minutes ago.
    fn has_heart_rate(&self, now: Duration) -> bool {
        let is_new = |series: &Series| {
            series.newest().is_some_and(|newest| now.saturating_sub(newest) <= SMOOTHED_OVER)
        };
        let mut all = self.series.iter().filter(|((_, quantity), _)| *quantity == HEART_RATE);
        all.any(|(_, series)| series.is_fresh(now) && is_new(series))
    }

    /// Whether an event is known to be of its device's memory: all series say so that were heard lately and know the device's clock. Where
    /// none does, or one says otherwise, it is of now: one of the past that is told does less harm than one of now that is not.
    fn is_past(&self, seen: &Observation, now: Now) -> bool {
        let Some(lag_us) = seen.lag_us() else { return false };
        let of_device =
            self.series.iter().chain(&self.events).filter(|((device, _), _)| *device == seen.device);
        let mut known =
            of_device.filter_map(|(_, series)| series.is_past(lag_us, seen.received_us, now.at)).peekable();
        known.peek().is_some() && known.all(|is_past| is_past)
    }

    /// Notes an event. Returns how many of its series' numbers are missing.
    fn event(&mut self, seen: &Observation, now: Now) -> u64 {
        let is_past = self.is_past(seen, now);
        let key = (seen.device.clone(), seen.quantity);
        let (mut is_followed, mut missing) = (false, 0);
        if self.events.contains_key(&key) || self.events.len() < SERIES_MAX {
            let series = self.events.entry(key).or_default();
            series.forget_clock(now.at);
            let (is_now, gap) = series.note(seen.seq, seen.sensor_us, seen.received_us, now.at);
            (is_followed, missing) = (is_now && seen.lag_us().is_some_and(Lag::is_followed), gap);
        }
        if !is_past || is_followed {
            self.happen(seen, now);
        }
        missing
    }

    fn happen(&mut self, seen: &Observation, now: Now) {
        let device = Some(seen.device.clone());
        match code::by_number(seen.quantity).map(|row| row.name) {
            Some("fall") => self.raise((Kind::Fall, Some(seen.quantity), device), None, None, now),
            Some("button") => self.raise((Kind::Button, Some(seen.quantity), device), None, None, now),
            Some("leads-off") => {
                self.leads_off.insert(seen.device.clone());
                self.raise((Kind::LeadsOff, None, device), None, None, now);
            }
            Some(_) | None => {}
        }
    }

    /// Notes a value that nobody can have.
    pub(super) fn implausible(&mut self, device: &DeviceId, now: Now) {
        self.implausible.insert(device.clone(), now.at);
        self.raise((Kind::Implausible, None, Some(device.clone())), None, None, now);
    }

    /// Looks at the clock.
    pub(super) fn tick(&mut self, site: &BTreeMap<u16, Limits>, now: Now) {
        self.end_pause(now);
        self.changed |= self.ahead.look(&mut self.kept.settings, now.unix_us);
        let limits = self.limits(site);
        let keys: Vec<_> = self.guards.keys().cloned().collect();
        for key in keys {
            let of = limits.get(&key.1).copied();
            let is_fresh = self.series.get(&key).is_some_and(|series| series.is_fresh(now.at));
            if is_continuous(key.1) && !is_fresh {
                // What is not measured any more has no value that could be beyond a limit.
                self.guards.insert(key.clone(), Guards::new());
            } else if let Some(guards) = self.guards.get_mut(&key) {
                for (kind, threshold) in thresholds(key.1, of) {
                    guards.entry(kind).or_default().pass(&threshold, now.at);
                }
            }
            self.judge(&key, of, now);
        }
        self.miss(now);
        let over = |at: &Duration| now.at.saturating_sub(*at) >= IMPLAUSIBLE_FOR;
        let over: Vec<_> =
            self.implausible.iter().filter(|(_, at)| over(at)).map(|(device, _)| device.clone()).collect();
        for device in over {
            self.implausible.remove(&device);
            self.end(&(Kind::Implausible, None, Some(device)));
        }
        self.rate(now);
    }

    /// The gateway's clock was set by so much. What was stamped since the start moves along; what was kept from before it was stamped by a clock
    /// of which nobody knows how it was set. A standing's time goes on from the last one's: it never goes back.
    pub(super) fn clock_set(&mut self, by_us: i64) {
        let series = self.series.values_mut().chain(self.events.values_mut());
        series.for_each(|series| series.clock_set(by_us));
        self.said.clock_set(&mut self.kept.settings, by_us);
        self.ahead = Ahead::default();
        let before = self.before;
        for alarm in self.alarms.values_mut().filter(|alarm| alarm.number > before) {
            alarm.since_us = alarm.since_us.saturating_add(by_us);
        }
        self.changed = true;
    }

    /// A pause ends at its time by either clock; after a restart at once where more is left of it than there can be: the clock was set back.
    fn end_pause(&mut self, now: Now) {
        let Some(until_us) = self.kept.settings.paused_until_us else { return };
        let left =
            u64::try_from(until_us.saturating_sub(now.unix_us)).map_or(Duration::ZERO, Duration::from_micros);
        let can_be = left <= Duration::from_secs(PAUSE_S_MAX.into());
        let left = if can_be { left } else { Duration::ZERO };
        let until = *self.paused_until.get_or_insert_with(|| now.at.saturating_add(left));
        if now.unix_us >= until_us || now.at >= until {
            (self.kept.settings.paused_until_us, self.paused_until) = (None, None);
            self.changed = true;
        }
    }

    /// Series that should have come and did not.
    fn miss(&mut self, now: Now) {
        let lost = |((device, quantity), series): (&(DeviceId, u16), &Series)| {
            let is_lost = series.is_lost(!is_continuous(*quantity), now.at);
            is_lost.then(|| (Kind::NoData, Some(*quantity), Some(device.clone())))
        };
        let lost: Vec<Key> = self.series.iter().filter_map(lost).collect();
        lost.into_iter().for_each(|key| self.raise(key, None, None, now));
    }

    /// The score, and its alarm.
    fn rate(&mut self, now: Now) {
        let score = self.inputs.score(&self.kept.settings, now.at, now.unix_us);
        let (total, single) = match score {
            Score::Refused(_) => (0, false),
            Score::Sum { total, parts } => (total, parts.contains(&Some(SCORE_SINGLE))),
        };
        let levels = [
            (Kind::ExtremeHigh, total >= SCORE_HIGH),
            (Kind::High, total >= SCORE_MEDIUM),
            (Kind::Score, single),
        ];
        let threshold = Threshold { side: Side::High, limit: 0.5, hysteresis: 0.0, delay: SCORE_DELAY };
        for (level, is_there) in levels {
            self.scores.entry(level).or_default().see(&threshold, f64::from(u8::from(is_there)), now.at);
        }
        let is_there = |kind| self.scores.get(&kind).and_then(Condition::value).is_some();
        let found = if is_there(Kind::ExtremeHigh) {
            Some((Priority::High, Some(SCORE_HIGH)))
        } else if is_there(Kind::High) {
            Some((Priority::Medium, Some(SCORE_MEDIUM)))
        } else {
            is_there(Kind::Score).then_some((Priority::Low, None))
        };
        let key = (Kind::Score, None, None);
        let stands = self.alarms.get(&key).map(|alarm| alarm.priority);
        if stands.is_some() && stands != found.map(|(priority, _)| priority) {
            self.alarms.remove(&key);
            self.changed = true;
        }
        if let Some((priority, limit)) = found {
            self.raise_as(key, priority, Some(f64::from(total)), limit.map(f64::from), now);
        }
        let is_due = self.score_told.is_none_or(|told| now.at.saturating_sub(told) >= SCORE_TOLD_EVERY);
        if self.score != Some(score) && is_due {
            (self.score, self.score_told, self.changed) = (Some(score), Some(now.at), true);
        }
    }

    fn raise(&mut self, key: Key, value: Option<f64>, limit: Option<f64>, now: Now) {
        let priority = priority(key.0);
        self.raise_as(key, priority, value, limit, now);
    }

    fn raise_as(&mut self, key: Key, priority: Priority, value: Option<f64>, limit: Option<f64>, now: Now) {
        // One that latched is there again: a new alarm, which the old one's place goes to.
        if self.alarms.get(&key).is_some_and(|alarm| alarm.state != State::Latched) {
            return;
        }
        if !self.alarms.contains_key(&key) && self.alarms.len() >= ALARMS_MAX {
            self.crowded += 1;
            return;
        }
        self.kept.next_alarm += 1;
        let (kind, quantity, device) = key.clone();
        let alarm = Alarm {
            number: self.kept.next_alarm,
            kind,
            priority,
            state: State::Active,
            quantity,
            device,
            value,
            limit,
            since_us: now.unix_us,
        };
        self.alarms.insert(key, alarm);
        self.changed = true;
    }

    /// The condition has ended.
    fn end(&mut self, key: &Key) {
        let Some(alarm) = self.alarms.get_mut(key) else { return };
        match alarm.state {
            State::Latched => return,
            State::Active if alarm.kind.latches() => alarm.state = State::Latched,
            State::Active | State::Acknowledged => drop(self.alarms.remove(key)),
        }
        self.changed = true;
    }

    /// Somebody has seen it.
    fn acknowledge(&mut self, key: &Key) {
        let Some(alarm) = self.alarms.get_mut(key) else { return };
        match (alarm.kind, alarm.state) {
            // Nothing goes on that could end.
            (Kind::Fall | Kind::Button, _) | (_, State::Latched) => drop(self.alarms.remove(key)),
            (Kind::NoData, State::Active | State::Acknowledged) => {
                self.alarms.remove(key);
                if let (_, Some(quantity), Some(device)) = key
                    && let Some(series) = self.series.get_mut(&(device.clone(), *quantity))
                {
                    series.let_go();
                }
            }
            (_, State::Active | State::Acknowledged) => alarm.state = State::Acknowledged,
        }
        self.changed = true;
    }

    /// Does what a command says. It has been checked.
    pub(super) fn act(&mut self, action: &Action, now: Now) {
        use caregate_protocol::alarm::Entered;
        let settings = &mut self.kept.settings;
        match action {
            Action::Limits { quantity, limits: Some(limits) } => {
                settings.limits.insert(*quantity, *limits);
                self.begin_anew(*quantity);
            }
            Action::Limits { quantity, limits: None } => {
                settings.limits.remove(quantity);
                self.begin_anew(*quantity);
            }
            Action::Acknowledge { alarms } => {
                let meant = |alarm: &Alarm| alarms.is_empty() || alarms.contains(&alarm.number);
                let keys: Vec<_> = self
                    .alarms
                    .iter()
                    .filter(|(_, alarm)| meant(alarm))
                    .map(|(key, _)| key.clone())
                    .collect();
                keys.iter().for_each(|key| self.acknowledge(key));
            }
            Action::Pause { seconds: 0 } => (settings.paused_until_us, self.paused_until) = (None, None),
            Action::Pause { seconds } => {
                settings.paused_until_us = Some(now.unix_us + i64::from(*seconds) * 1_000_000);
                self.paused_until = Some(now.at.saturating_add(Duration::from_secs((*seconds).into())));
                self.said.pause = true;
            }
            Action::Oxygen { given } => {
                settings.oxygen = Some(Entered { value: *given, at_us: now.unix_us });
                (self.said.oxygen, self.ahead.oxygen) = (true, false);
            }
            Action::Consciousness { found } => {
                settings.consciousness = Some(Entered { value: *found, at_us: now.unix_us });
                (self.said.consciousness, self.ahead.consciousness) = (true, false);
            }
            Action::Profile { category, pregnant, scale } => {
                (settings.category, settings.pregnant, settings.scale) = (Some(*category), *pregnant, *scale);
            }
        }
        // Whoever enters something looks at the score next.
        self.score_told = None;
        self.changed = true;
    }

    /// Values are judged by new limits from the next one on: what was counted under the old ones ends.
    fn begin_anew(&mut self, quantity: u16) {
        let keys: Vec<_> = self.guards.keys().filter(|(_, of)| *of == quantity).cloned().collect();
        for (device, quantity) in keys {
            self.guards.remove(&(device.clone(), quantity));
            for kind in [Kind::Low, Kind::High, Kind::ExtremeLow, Kind::ExtremeHigh] {
                self.end(&(kind, Some(quantity), Some(device.clone())));
            }
        }
    }

    /// Notes what became of a command.
    pub(super) fn handled(&mut self, domain: RecipientId, sequence: u64, refused: Option<&str>) {
        self.kept.handled.retain(|other| other.domain != domain);
        if self.kept.handled.len() >= HANDLED_MAX {
            self.kept.handled.remove(0);
        }
        self.kept.handled.push(Handled { domain, sequence, refused: refused.map(str::to_owned) });
        self.changed = true;
    }

    /// The number of the domain's last command.
    #[must_use]
    pub(super) fn last_of(&self, domain: &RecipientId) -> Option<u64> {
        self.kept.handled.iter().find(|handled| handled.domain == *domain).map(|handled| handled.sequence)
    }

    /// Says a profile that the configuration gives, unless staff said another.
    pub(super) fn introduce(&mut self, profile: &Settings) {
        let settings = &mut self.kept.settings;
        if settings.category.is_none() {
            (settings.category, settings.pregnant, settings.scale) =
                (profile.category, profile.pregnant, profile.scale);
        }
    }

    /// Devices that are not worn any more are not missed.
    pub(super) fn keep_devices(&mut self, worn: &BTreeSet<DeviceId>) {
        self.series.retain(|(device, _), _| worn.contains(device));
        self.events.retain(|(device, _), _| worn.contains(device));
        self.guards.retain(|(device, _), _| worn.contains(device));
        self.leads_off.retain(|device| worn.contains(device));
        self.implausible.retain(|device, _| worn.contains(device));
        let gone = |key: &&Key| key.2.as_ref().is_some_and(|device| !worn.contains(device));
        let gone: Vec<_> = self.alarms.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|key| self.end(key));
    }

    /// The standing, where something changed or it is time to say it again.
    pub(super) fn take(&mut self, site: &BTreeMap<u16, Limits>, now: Now) -> Option<Standing> {
        let heard = self.heard.is_some_and(|heard| now.at.saturating_sub(heard) < QUIET_AFTER);
        let is_due = self.told.is_none_or(|told| now.at.saturating_sub(told) >= TOLD_EVERY);
        if !self.changed && !(is_due && (heard || !self.alarms.is_empty())) {
            return None;
        }
        (self.changed, self.told) = (false, Some(now.at));
        self.told_us = now.unix_us.max(self.told_us + 1);
        Some(self.standing(site, now))
    }

    fn standing(&self, site: &BTreeMap<u16, Limits>, now: Now) -> Standing {
        let mut alarms: Vec<_> = self.alarms.values().cloned().collect();
        let rank = |alarm: &Alarm| {
            (alarm.state == State::Acknowledged, std::cmp::Reverse(alarm.priority), alarm.number)
        };
        alarms.sort_by_key(rank);
        let settings = Settings { limits: self.limits(site), ..self.kept.settings.clone() };
        let score = self.score.unwrap_or_else(|| self.inputs.score(&self.kept.settings, now.at, now.unix_us));
        Standing { at_us: self.told_us, alarms, settings, score, handled: self.kept.handled.clone() }
    }

    /// Numbers that never came, in all series.
    #[must_use]
    pub(super) fn missing(&self) -> u64 {
        self.series.values().chain(self.events.values()).map(Series::missing).sum()
    }
}
