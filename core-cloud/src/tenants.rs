//! What each tenant may use of the core: records in a second, bytes stored. Whoever has used up its share waits: its lanes are not read
//! further, QUIC's flow control holds its gateways, and their spools keep what does not come through. Others go on.
//!
//! Alarms never wait for bytes, and have a rate of their own, so that a flood of anything else holds none up. Backlog leaves half of a
//! second's worth to what is live.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::id::{DataClass, SignerId};
use caregate_protocol::uplink::Timing;
use tokio::sync::Notify;

use crate::metrics::Metrics;

/// How often what is stored is counted anew: what retention and erasure free is usable so much later.
pub const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// Whoever waits for its rate looks again no sooner, so that a thousand waiting lanes cost nothing.
const WAIT_MIN: Duration = Duration::from_millis(5);

/// A share of the core, as an operator gives it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Records in a second; a second's worth may come at once.
    pub records_s: Option<u32>,
    /// Bytes of records stored.
    pub bytes_max: Option<u64>,
}

/// A token bucket. Pure.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    records_s: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(records_s: u32, now: Instant) -> Self {
        let records_s = f64::from(records_s.max(1));
        Self { records_s, tokens: records_s, at: now }
    }

    /// Takes one, or says after what time there is one. Backlog takes none of the lower half.
    fn take(&mut self, timing: Timing, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.records_s).min(self.records_s);
        self.at = now;
        let wanted = match timing {
            Timing::Live => 1.0,
            Timing::Backlog => (self.records_s / 2.0).max(1.0),
        };
        if self.tokens >= wanted {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((wanted - self.tokens) / self.records_s))
    }
}

/// One tenant.
#[derive(Debug)]
pub struct Tenant {
    name: String,
    bytes_max: Option<u64>,
    /// Of alarms, and of all else.
    buckets: Option<[Mutex<Bucket>; 2]>,
    stored: AtomicU64,
    /// Said once, until there is room again.
    is_full: AtomicBool,
    room: Notify,
    metrics: Metrics,
}

impl Tenant {
    /// Nothing is stored of it yet.
    #[must_use]
    pub fn new(name: String, quota: Quota, metrics: Metrics) -> Self {
        let now = clock::monotonic();
        let buckets = quota.records_s.map(|rate| [(); 2].map(|()| Mutex::new(Bucket::new(rate, now))));
        Self {
            name,
            bytes_max: quota.bytes_max,
            buckets,
            stored: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            room: Notify::new(),
            metrics,
        }
    }

    /// Waits until a record may come in.
    pub async fn admit(&self, class: DataClass, timing: Timing, bytes: usize) {
        let is_alarm = class == DataClass::Alarm;
        if let Some(buckets) = &self.buckets {
            let bucket = &buckets[usize::from(!is_alarm)];
            let take = || {
                let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
                bucket.take(timing, clock::monotonic())
            };
            if let Err(mut wait) = take() {
                self.metrics.tenant_waits.with_label_values(&[&self.name, "rate"]).inc();
                loop {
                    tokio::time::sleep(wait.max(WAIT_MIN)).await;
                    match take() {
                        Ok(()) => break,
                        Err(again) => wait = again,
                    }
                }
            }
        }
        if !is_alarm && self.has_no_room() {
            self.metrics.tenant_waits.with_label_values(&[&self.name, "bytes"]).inc();
            loop {
                let room = self.room.notified();
                if !self.has_no_room() {
                    break;
                }
                room.await;
            }
        }
        self.stored.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn has_no_room(&self) -> bool {
        let is_full = self.bytes_max.is_some_and(|max| self.stored.load(Ordering::Relaxed) >= max);
        if is_full && !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(tenant = self.name, "has stored all that it may: its gateways wait");
        }
        is_full
    }

    /// So much is stored.
    fn count(&self, stored: u64) {
        self.stored.store(stored, Ordering::Relaxed);
        self.metrics
            .tenant_bytes
            .with_label_values(&[&self.name])
            .set(i64::try_from(stored).unwrap_or(i64::MAX));
        if self.bytes_max.is_none_or(|max| stored < max) {
            self.is_full.store(false, Ordering::Relaxed);
            self.room.notify_waiters();
        }
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Tenants {
    by_gateway: Arc<HashMap<String, Arc<Tenant>>>,
    by_signer: Arc<HashMap<SignerId, Arc<Tenant>>>,
}

impl Tenants {
    /// Each gateway's name and device keys' ids, with its tenant; gateways of none are not limited.
    #[must_use]
    pub fn new(gateways: impl IntoIterator<Item = (String, Vec<SignerId>, Arc<Tenant>)>) -> Self {
        let (mut by_gateway, mut by_signer) = (HashMap::new(), HashMap::new());
        for (gateway, signers, tenant) in gateways {
            by_signer.extend(signers.into_iter().map(|signer| (signer, Arc::clone(&tenant))));
            by_gateway.insert(gateway, tenant);
        }
        Self { by_gateway: Arc::new(by_gateway), by_signer: Arc::new(by_signer) }
    }

    /// A gateway's.
    #[must_use]
    pub fn of(&self, gateway: &str) -> Option<Arc<Tenant>> {
        self.by_gateway.get(gateway).cloned()
    }

    /// Whether nobody is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_gateway.is_empty()
    }

    /// So many bytes of each signer's records are stored.
    pub fn count(&self, usage: &HashMap<SignerId, u64>) {
        let mut sums: HashMap<*const Tenant, (u64, &Arc<Tenant>)> = HashMap::new();
        for (signer, tenant) in &*self.by_signer {
            let bytes = usage.get(signer).copied().unwrap_or_default();
            let (sum, _) = sums.entry(Arc::as_ptr(tenant)).or_insert((0, tenant));
            *sum = sum.saturating_add(bytes);
        }
        sums.into_values().for_each(|(sum, tenant)| tenant.count(sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(quota: Quota) -> Arc<Tenant> {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        Arc::new(Tenant::new("t".to_owned(), quota, metrics))
    }

    #[test]
    fn a_bucket_gives_its_rate_and_a_seconds_worth_at_once() {
        let start = clock::monotonic();
        let mut bucket = Bucket::new(100, start);
        assert!((0..100).all(|_| bucket.take(Timing::Live, start).is_ok()));
        let wait = bucket.take(Timing::Live, start).unwrap_err();
        assert!(wait > Duration::from_millis(9) && wait <= Duration::from_millis(10), "{wait:?}");
        let mut taken = 0;
        for ms in 1..=5000_u64 {
            while bucket.take(Timing::Live, start + Duration::from_millis(ms)).is_ok() {
                taken += 1;
            }
        }
        assert!((499..=500).contains(&taken), "{taken}");
        // However long nothing came, no more than a second's worth; and a clock that goes back gives nothing.
        let later = start + Duration::from_hours(9);
        assert_eq!((0..1000).filter(|_| bucket.take(Timing::Live, later).is_ok()).count(), 100);
        assert!(bucket.take(Timing::Live, start).is_err());
    }

    #[test]
    fn backlog_leaves_half_to_what_is_live() {
        let start = clock::monotonic();
        let mut bucket = Bucket::new(100, start);
        let mut count = |timing, ms| {
            let now = start + Duration::from_millis(ms);
            std::iter::repeat_with(|| bucket.take(timing, now)).take_while(Result::is_ok).count()
        };
        assert_eq!((count(Timing::Backlog, 0), count(Timing::Live, 0)), (51, 49));
        assert_eq!((count(Timing::Backlog, 490), count(Timing::Backlog, 500)), (0, 1));
        assert_eq!((count(Timing::Backlog, 600), count(Timing::Live, 600)), (10, 49));
        assert_eq!(
            Bucket::new(1, start).take(Timing::Backlog, start),
            Ok(()),
            "also where that is less than one"
        );
    }

    #[tokio::test]
    async fn who_is_full_waits_for_room_and_alarms_do_not() {
        let tenant = tenant(Quota { records_s: None, bytes_max: Some(100) });
        tenant.admit(DataClass::Vitals, Timing::Live, 100).await;
        let waiting = tokio::spawn({
            let tenant = Arc::clone(&tenant);
            async move { tenant.admit(DataClass::Vitals, Timing::Live, 7).await }
        });
        while tenant.metrics.tenant_waits.with_label_values(&["t", "bytes"]).get() == 0 {
            tokio::task::yield_now().await;
        }
        tenant.admit(DataClass::Alarm, Timing::Live, 5).await;
        tenant.count(100);
        assert!(!waiting.is_finished());
        tenant.count(99);
        waiting.await.unwrap();
        assert_eq!(tenant.stored.load(Ordering::Relaxed), 106);
    }

    #[tokio::test]
    async fn alarms_have_a_rate_of_their_own() {
        let tenant = tenant(Quota { records_s: Some(1), bytes_max: None });
        tenant.admit(DataClass::Waveform, Timing::Live, 1).await;
        let waiting = tokio::spawn({
            let tenant = Arc::clone(&tenant);
            async move { tenant.admit(DataClass::Waveform, Timing::Live, 1).await }
        });
        while tenant.metrics.tenant_waits.with_label_values(&["t", "rate"]).get() == 0 {
            tokio::task::yield_now().await;
        }
        tenant.admit(DataClass::Alarm, Timing::Live, 1).await;
        waiting.await.unwrap();
    }

    #[test]
    fn what_is_stored_is_summed_by_tenant() {
        let (one, two) = (tenant(Quota::default()), tenant(Quota::default()));
        let signer = |n: u8| SignerId([n; 8]);
        let gateways = [
            ("a".to_owned(), vec![signer(1), signer(2)], Arc::clone(&one)),
            ("b".to_owned(), vec![signer(3)], Arc::clone(&one)),
            ("c".to_owned(), vec![signer(4)], Arc::clone(&two)),
        ];
        let tenants = Tenants::new(gateways);
        tenants.count(&HashMap::from([(signer(1), 1), (signer(2), 2), (signer(3), 4), (signer(9), 8)]));
        let stored = |tenant: &Tenant| tenant.stored.load(Ordering::Relaxed);
        assert_eq!((stored(&one), stored(&two)), (7, 0));
        assert!(Arc::ptr_eq(&tenants.of("b").unwrap(), &one) && tenants.of("d").is_none());
    }
}
