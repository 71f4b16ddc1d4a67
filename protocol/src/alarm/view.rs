//! What is shown of standings, in JSON: on the gateway's local page, in MQTT and webhooks, and in the feed's stream.

use serde::Serialize;

use super::{
    Alarm, Category, Consciousness, Limits, MISSING_NAMES, Priority, Refusal, Scale, Score, Standing, State,
};
use crate::code;
use crate::id::PatientId;

/// One alarm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlarmView {
    /// Which one, of its patient.
    pub number: u64,
    /// As [`Alarm::text`].
    pub text: String,
    /// `high`, `medium` or `low`.
    pub priority: &'static str,
    /// As [`super::Kind::as_str`].
    pub kind: &'static str,
    /// Whether it is about the equipment.
    pub technical: bool,
    /// `active`, `acknowledged` or `latched`.
    pub state: State,
    /// Unix milliseconds.
    pub since_ms: i64,
}

impl From<&Alarm> for AlarmView {
    fn from(alarm: &Alarm) -> Self {
        Self {
            number: alarm.number,
            text: alarm.text(),
            priority: alarm.priority.as_str(),
            kind: alarm.kind.as_str(),
            technical: alarm.kind.is_technical(),
            state: alarm.state,
            since_ms: alarm.since_us / 1000,
        }
    }
}

/// NEWS2.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ScoreView {
    /// There is none.
    Refused {
        /// Why.
        refused: Refusal,
    },
    /// There is one.
    Sum {
        /// What is known, summed.
        total: u8,
        /// What is missing.
        missing: Vec<&'static str>,
    },
}

impl From<&Score> for ScoreView {
    fn from(score: &Score) -> Self {
        match score {
            Score::Refused(refused) => Self::Refused { refused: *refused },
            Score::Sum { total, parts } => {
                let missing = MISSING_NAMES.iter().zip(parts).filter(|(_, part)| part.is_none());
                Self::Sum { total: *total, missing: missing.map(|(name, _)| *name).collect() }
            }
        }
    }
}

/// Limits of one metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitsView {
    /// Its row in the code table, for commands.
    pub quantity: u16,
    /// The metric.
    pub metric: &'static str,
    /// For people.
    pub display: &'static str,
    /// UCUM.
    pub unit: Option<&'static str>,
    /// Its limits.
    #[serde(flatten)]
    pub limits: Limits,
}

/// One patient.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PatientView {
    /// The pseudonym.
    pub patient: PatientId,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Until when no alarm sounds, Unix milliseconds.
    pub paused_until_ms: Option<i64>,
    /// The most urgent that nobody acknowledged.
    pub loudest: Option<&'static str>,
    /// The most urgent first.
    pub alarms: Vec<AlarmView>,
    /// NEWS2.
    pub score: ScoreView,
    /// By age.
    pub category: Option<Category>,
    /// In pregnancy there is no score.
    pub pregnant: bool,
    /// NEWS2's, for SpO2.
    pub scale: Scale,
    /// As entered, with when (Unix milliseconds).
    pub oxygen: Option<(bool, i64)>,
    /// As entered, with when.
    pub consciousness: Option<(Consciousness, i64)>,
    /// In force.
    pub limits: Vec<LimitsView>,
}

impl PatientView {
    /// Of a standing.
    #[must_use]
    pub fn new(patient: PatientId, standing: &Standing) -> Self {
        let settings = &standing.settings;
        let limits = settings.limits.iter().filter_map(|(quantity, limits)| {
            let row = code::by_number(*quantity)?;
            Some(LimitsView {
                quantity: *quantity,
                metric: row.name,
                display: row.display,
                unit: row.unit,
                limits: *limits,
            })
        });
        Self {
            patient,
            at_ms: standing.at_us / 1000,
            paused_until_ms: settings.paused_until_us.map(|us| us / 1000),
            loudest: standing.loudest().map(Priority::as_str),
            alarms: standing.alarms.iter().map(AlarmView::from).collect(),
            score: ScoreView::from(&standing.score),
            category: settings.category,
            pregnant: settings.pregnant,
            scale: settings.scale,
            oxygen: settings.oxygen.map(|entered| (entered.value, entered.at_us / 1000)),
            consciousness: settings.consciousness.map(|entered| (entered.value, entered.at_us / 1000)),
            limits: limits.collect(),
        }
    }
}
