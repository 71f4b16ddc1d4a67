//! How long records are kept: by the operator's word for all, for a tenant or for a pseudonym.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::id::{PatientId, SignerId};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::tenants::{COUNT_INTERVAL, Tenants};

/// How often what has grown too old is looked for: a day is the shortest time that can be configured.
const EXPIRE_INTERVAL: Duration = Duration::from_hours(1);
/// Epochs (minutes) in a day.
const DAY_EPOCHS: i64 = 24 * 60;

/// For how many days; none is for ever. The narrowest that says something counts.
#[derive(Debug, Clone, Default)]
pub struct Retention {
    /// For all.
    pub days: Option<u32>,
    /// For what a tenant's gateways signed.
    pub by_signer: HashMap<SignerId, u32>,
    /// For a pseudonym.
    pub by_patient: HashMap<PatientId, u32>,
}

impl Retention {
    /// Whether all is kept for ever.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.days.is_none() && self.by_signer.is_empty() && self.by_patient.is_empty()
    }

    /// What was sealed before this epoch goes. A patient of several tenants is kept for the longest of their times.
    fn before(&self, patient: PatientId, signers: &[SignerId], now_ms: i64) -> Option<u32> {
        let of_signer = |signer: &SignerId| self.by_signer.get(signer).copied().or(self.days);
        let of_tenants = || {
            let all: Option<Vec<u32>> = signers.iter().map(of_signer).collect();
            all.and_then(|all| all.into_iter().max())
        };
        let days = self.by_patient.get(&patient).copied().or_else(of_tenants)?;
        let epoch = now_ms.div_euclid(60_000) - i64::from(days) * DAY_EPOCHS;
        u32::try_from(epoch).ok()
    }
}

/// Counts what is stored for tenants, and takes out what is too old. For a thread of its own; until `stop`.
///
/// # Errors
/// [`StoreError`].
pub fn run(
    store: &Arc<dyn Store>,
    retention: &Retention,
    tenants: &Tenants,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let mut expire_at = clock::monotonic();
    while !stop.is_cancelled() {
        let usage = store.usage()?;
        let mut by_signer: HashMap<SignerId, u64> = HashMap::new();
        let mut by_patient: BTreeMap<PatientId, Vec<SignerId>> = BTreeMap::new();
        for (patient, signer, bytes) in usage {
            let sum = by_signer.entry(signer).or_default();
            *sum = sum.saturating_add(bytes);
            if bytes > 0 {
                by_patient.entry(patient).or_default().push(signer);
            }
        }
        tenants.count(&by_signer);
        if !retention.is_none() && clock::monotonic() >= expire_at {
            expire_at = clock::monotonic() + EXPIRE_INTERVAL;
            expire(store, retention, &by_patient, metrics, stop)?;
            continue;
        }
        // Ends at once when the core stops: it is asked for in small steps.
        let until = clock::monotonic() + COUNT_INTERVAL;
        while clock::monotonic() < until && !stop.is_cancelled() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn expire(
    store: &Arc<dyn Store>,
    retention: &Retention,
    patients: &BTreeMap<PatientId, Vec<SignerId>>,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let (mut records, mut bytes) = (0, 0);
    for (patient, signers) in patients {
        let Some(before) = retention.before(*patient, signers, clock::now_ms()) else { continue };
        loop {
            let step = store.expire(*patient, before)?;
            records += step.records;
            bytes += step.bytes;
            metrics.expired.inc_by(step.records);
            if !step.more || stop.is_cancelled() {
                break;
            }
        }
    }
    if records > 0 {
        info!(records, bytes, "what had grown too old was taken out");
    }
    Ok(())
}

/// As [`run`]; where it fails the core goes on storing, and says so.
pub fn run_or_say(
    store: &Arc<dyn Store>,
    retention: &Retention,
    tenants: &Tenants,
    metrics: &Metrics,
    stop: &CancellationToken,
) {
    if let Err(failure) = run(store, retention, tenants, metrics, stop) {
        error!(%failure, "retention and the count of what is stored have ended; restart the core");
        stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_word_counts_and_of_tenants_the_longest() {
        let (one, two, free) = (SignerId([1; 8]), SignerId([2; 8]), SignerId([3; 8]));
        let (patient, own) = (PatientId([1; 16]), PatientId([2; 16]));
        let mut retention = Retention {
            days: Some(10),
            by_signer: HashMap::from([(one, 20), (two, 30)]),
            by_patient: HashMap::from([(own, 1)]),
        };
        let now_ms = 100 * 24 * 3_600_000;
        let day = |days: u32| Some((100 - days) * 24 * 60);
        assert_eq!(retention.before(patient, &[free], now_ms), day(10));
        assert_eq!(retention.before(patient, &[one], now_ms), day(20));
        assert_eq!(retention.before(patient, &[one, two, free], now_ms), day(30));
        assert_eq!(retention.before(own, &[two], now_ms), day(1));
        retention.days = None;
        assert_eq!(retention.before(patient, &[one, free], now_ms), None, "one of them keeps it for ever");
        assert_eq!(retention.before(patient, &[one], 0), None, "a clock that was never set expires nothing");
        assert!(Retention::default().is_none() && !retention.is_none());
    }
}
