//! `[watch]` of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use caregate_protocol::alarm::{Category, Limits, LimitsError, Scale, Settings};
use caregate_protocol::code;
use caregate_protocol::id::PatientId;
use caregate_protocol::policy::PATIENTS_MAX;
use serde::Deserialize;
use thiserror::Error;

use super::engine::Site;

/// `[watch]`; all of it may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchEntry {
    /// Limits in place of the defaults, by metric.
    pub limits: BTreeMap<String, Limits>,
    /// Who is what, until staff say otherwise.
    #[serde(rename = "patient")]
    pub patients: Vec<PatientEntry>,
    /// Where alarms are also sent.
    pub webhook: Option<WebhookEntry>,
}

/// `[[watch.patient]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatientEntry {
    /// The pseudonym in segments.
    pub patient: PatientId,
    /// By age.
    pub category: Category,
    /// In pregnancy there is no score.
    #[serde(default)]
    pub pregnant: bool,
    /// For SpO2: `one` or `two`.
    #[serde(default)]
    pub spo2_scale: Scale,
}

/// `[watch.webhook]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEntry {
    /// `https://HOST[:PORT]/PATH`, or `http` on loopback. No user, no query.
    pub url: String,
    /// PEM file of the authorities that may vouch for the host; Debian's where none is named.
    #[serde(default = "system_authorities")]
    pub ca: PathBuf,
    /// File (mode 0600) with what is sent as `Authorization: Bearer`.
    pub token: Option<PathBuf>,
}

fn system_authorities() -> PathBuf {
    "/etc/ssl/certs/ca-certificates.crt".into()
}

/// A value without meaning.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SiteError {
    /// No metric of the code table.
    #[error("watch.limits: no metric is called {0}")]
    Metric(String),
    /// Limits that make no sense.
    #[error("watch.limits.{metric}: {source}")]
    Limits {
        /// Of which metric.
        metric: String,
        /// Why.
        source: LimitsError,
    },
    /// Two entries of one patient.
    #[error("watch.patient: entry {0} names a patient who was named before")]
    Twice(usize),
    /// More than there may be.
    #[error("watch.patient: more than {PATIENTS_MAX}")]
    TooMany,
}

impl TryFrom<&WatchEntry> for Site {
    type Error = SiteError;

    fn try_from(entry: &WatchEntry) -> Result<Self, SiteError> {
        let mut site = Self::default();
        for (metric, limits) in &entry.limits {
            let row = code::by_name(metric).ok_or_else(|| SiteError::Metric(metric.clone()))?;
            let wrong = |source| SiteError::Limits { metric: metric.clone(), source };
            limits.check(row.number).map_err(wrong)?;
            site.limits.insert(row.number, *limits);
        }
        if entry.patients.len() > PATIENTS_MAX {
            return Err(SiteError::TooMany);
        }
        for (at, one) in entry.patients.iter().enumerate() {
            let profile = Settings {
                category: Some(one.category),
                pregnant: one.pregnant,
                scale: one.spo2_scale,
                ..Settings::default()
            };
            if site.profiles.insert(one.patient, profile).is_some() {
                return Err(SiteError::Twice(at));
            }
        }
        Ok(site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> Result<Site, String> {
        let entry: WatchEntry = toml::from_str(text).map_err(|error| error.to_string())?;
        Site::try_from(&entry).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_table_is_taken_and_a_wrong_one_is_named() {
        let patient = format!("[[patient]]\npatient = \"{}\"\ncategory = \"adult\"\n", "01".repeat(16));
        let good =
            site(&format!("[limits.spo2]\nlow = 88\ndelay_s = 15\nhysteresis = 1\n{patient}")).unwrap();
        assert_eq!((good.limits[&3].low, good.limits[&3].delay_s), (Some(88.0), 15));
        assert_eq!(good.profiles[&PatientId([1; 16])].category, Some(Category::Adult));
        assert!(site("").unwrap().limits.is_empty());
        for (text, wrong) in [
            ("[limits.pulse]\nlow = 1", "no metric is called pulse"),
            ("[limits.spo2]\nlow = 101", "watch.limits.spo2: a limit is outside"),
            ("[limits.ecg-ii]\nlow = 1", "watch.limits.ecg-ii: no numeric"),
            ("[limits.spo2]\nlwo = 1", "lwo"),
            (&patient.repeat(2), "entry 1 names a patient"),
            ("[webhook]\nca = \"x\"", "url"),
        ] {
            let error = site(text).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
