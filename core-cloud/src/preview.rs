//! Live records for feeds before they are durable, marked provisional. Best effort: who is too slow misses some, and what is missed,
//! lost or refused by the store comes, or does not come, by the queue.
//!
//! Who can open a segment says the wrap that came before it, as in the store; here of each recipient the newest are remembered, since
//! what is live is of the present epoch.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::record::Record;
use caregate_protocol::uplink::Classes;
use caregate_protocol::wrap::Wrap;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// Records that a viewer may be behind: with [`RECORD_BYTES_MAX`] 4 MiB, and some 100 ms of a busy hospital. Then the queue is as fast.
const WAITING_MAX: usize = 64;
/// Longest record that is shown: a segment of numerics has some 300 bytes; a backlog's megabyte is not what somebody waits for.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// Patients' classes whose recipients are remembered: of 4,000 patients; beyond it all are forgotten, and are known again with the next
/// minute's wraps.
const AUDIENCES_MAX: usize = 16_384;
/// Wraps remembered of each: two epochs of 32 recipients.
const WRAPS_MAX: usize = 64;

/// A wrap: to whom, for which epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    recipient: RecipientId,
    first: u32,
    last: u32,
}

/// A feed that is shown records of these classes.
#[derive(Debug)]
struct Viewer {
    number: u64,
    classes: Classes,
    records: mpsc::Sender<Arc<[u8]>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By patient, class and generation.
    audiences: HashMap<(PatientId, DataClass, u32), VecDeque<Held>>,
    viewers: HashMap<RecipientId, Vec<Viewer>>,
    newest: u64,
    /// Of whom nothing is taken any more.
    erased: HashSet<PatientId>,
}

impl Inner {
    fn learn(&mut self, wrap: &Wrap) {
        let key = (wrap.patient, wrap.class, wrap.generation);
        if self.audiences.len() >= AUDIENCES_MAX && !self.audiences.contains_key(&key) {
            self.audiences.clear();
        }
        let last = wrap.epoch | u32::MAX.checked_shr(u32::from(wrap.depth)).unwrap_or(0);
        let held = Held { recipient: wrap.recipient, first: wrap.epoch, last };
        let audience = self.audiences.entry(key).or_default();
        audience.retain(|known| *known != held);
        audience.push_back(held);
        if audience.len() > WRAPS_MAX {
            audience.pop_front();
        }
    }

    /// Whoever can open it, each once.
    fn recipients(&self, record: &Record<'_>) -> Vec<RecipientId> {
        let segment = match record {
            Record::Segment(segment) => &segment.header,
            Record::Wrap(wrap) => return vec![wrap.recipient],
            Record::Head(_) | Record::Gap(_) | Record::Tokens(_) => return Vec::new(),
        };
        let audience = self.audiences.get(&(segment.patient, segment.class, segment.generation));
        let opens = |held: &&Held| (held.first..=held.last).contains(&segment.epoch);
        let mut recipients = Vec::new();
        for held in audience.into_iter().flatten().filter(opens) {
            if !recipients.contains(&held.recipient) {
                recipients.push(held.recipient);
            }
        }
        recipients
    }
}

/// What all sessions share; cheap to clone.
#[derive(Debug, Clone)]
pub struct Previews {
    inner: Arc<Mutex<Inner>>,
    metrics: Metrics,
}

impl Previews {
    /// Of these patients nothing is shown.
    #[must_use]
    pub fn new(erased: impl IntoIterator<Item = PatientId>, metrics: Metrics) -> Self {
        let inner = Inner { erased: erased.into_iter().collect(), ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), metrics }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record whose signature has been checked; shows it where it is `live`.
    pub fn take(&self, record: &Record<'_>, bytes: &[u8], live: bool) {
        let mut inner = self.inner();
        if inner.erased.contains(&record.patient()) {
            return;
        }
        if let Record::Wrap(wrap) = record {
            inner.learn(wrap);
        }
        if !live || inner.viewers.is_empty() {
            return;
        }
        let mut shared: Option<Arc<[u8]>> = None;
        for recipient in inner.recipients(record) {
            let viewers = inner.viewers.get(&recipient).into_iter().flatten();
            for viewer in viewers.filter(|viewer| viewer.classes.contains(record.class())) {
                let outcome = if bytes.len() > RECORD_BYTES_MAX {
                    "too_long"
                } else {
                    let bytes = shared.get_or_insert_with(|| bytes.into());
                    if viewer.records.try_send(Arc::clone(bytes)).is_ok() { "shown" } else { "behind" }
                };
                self.metrics.provisional.with_label_values(&[outcome]).inc();
            }
        }
    }

    /// How many feeds' views there are.
    #[must_use]
    pub fn views(&self) -> usize {
        self.inner().viewers.values().map(Vec::len).sum()
    }

    /// Of this patient nothing is shown from now on; false where that was so before.
    #[must_use]
    pub fn erase(&self, patient: PatientId) -> bool {
        let mut inner = self.inner();
        inner.audiences.retain(|(of, ..), _| *of != patient);
        inner.erased.insert(patient)
    }

    /// It was not erased after all.
    pub fn keep(&self, patient: PatientId) {
        self.inner().erased.remove(&patient);
    }

    /// Shows live records of these classes that `recipient` can open, until the view is dropped.
    #[must_use]
    pub fn view(&self, recipient: RecipientId, classes: Classes) -> View {
        let (sender, records) = mpsc::channel(WAITING_MAX);
        let mut inner = self.inner();
        inner.newest += 1;
        let number = inner.newest;
        let viewer = Viewer { number, classes, records: sender };
        inner.viewers.entry(recipient).or_default().push(viewer);
        View { previews: self.clone(), recipient, number, records }
    }
}

/// One feed's view.
#[derive(Debug)]
pub struct View {
    previews: Previews,
    recipient: RecipientId,
    number: u64,
    records: mpsc::Receiver<Arc<[u8]>>,
}

impl View {
    /// The next record. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<[u8]>> {
        self.records.recv().await
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut inner = self.previews.inner();
        if let Some(viewers) = inner.viewers.get_mut(&self.recipient) {
            viewers.retain(|viewer| viewer.number != self.number);
        }
        inner.viewers.retain(|_, viewers| !viewers.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::key::{PatientRoot, TREE_DEPTH, TreeNode};
    use caregate_protocol::segment::{Cipher, Header, SegmentHash, signer_id};
    use caregate_protocol::wrap::{WrapScope, generate_keypair};
    use ed25519_dalek::SigningKey;

    use super::*;

    const EPOCH: u32 = 29_000_000;

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn class_key() -> TreeNode {
        PatientRoot::from_bytes([7; 32]).class_key(DataClass::Vitals, 0)
    }

    fn wrap(epoch: u32, to: u8) -> Vec<u8> {
        let (class, patient, recipient) = (DataClass::Vitals, PatientId([1; 16]), RecipientId([to; 20]));
        let scope = WrapScope { class, patient, generation: 0, recipient };
        let leaf = class_key().descend(epoch, TREE_DEPTH).unwrap();
        scope.seal(&leaf, &generate_keypair().1, &device()).unwrap().to_vec()
    }

    fn segment(epoch: u32, bytes: usize) -> Vec<u8> {
        let header = Header {
            class: DataClass::Vitals,
            cipher: Cipher::Aes256Gcm,
            patient: PatientId([1; 16]),
            signer: signer_id(&device().verifying_key()),
            generation: 0,
            epoch,
            sequence: 0,
            prev: SegmentHash::NONE,
            salt: [9; 16],
            sealed_us: 0,
            readings: 0,
        };
        header.seal(&vec![0; bytes], &class_key().epoch_key(epoch).unwrap(), &device()).unwrap().0
    }

    fn previews() -> Previews {
        Previews::new([], Metrics::register(&prometheus::Registry::new()).unwrap())
    }

    fn take(previews: &Previews, bytes: &[u8], live: bool) {
        previews.take(&Record::decode(bytes).unwrap(), bytes, live);
    }

    fn seen(view: &mut View) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| view.records.try_recv().ok()).map(|bytes| bytes.to_vec()).collect()
    }

    fn count(previews: &Previews, outcome: &str) -> u64 {
        previews.metrics.provisional.with_label_values(&[outcome]).get()
    }

    #[test]
    fn who_holds_the_epochs_wrap_is_shown_what_is_live_and_nobody_else() {
        let previews = previews();
        let vitals = Classes::of(&[DataClass::Vitals]);
        let mut views = [1, 2].map(|to| previews.view(RecipientId([to; 20]), vitals));
        let mut other_class = previews.view(RecipientId([1; 20]), Classes::of(&[DataClass::Alarm]));
        let (mine, first, later) = (wrap(EPOCH, 1), segment(EPOCH, 9), segment(EPOCH + 1, 9));
        take(&previews, &first, true);
        take(&previews, &mine, true);
        take(&previews, &first, true);
        take(&previews, &first, false);
        take(&previews, &later, true);
        assert_eq!(seen(&mut views[0]), [mine, first.clone()]);
        assert_eq!(seen(&mut views[1]).len() + seen(&mut other_class).len(), 0);
        // A wrap that came with a backlog counts for what comes after.
        take(&previews, &wrap(EPOCH + 1, 2), false);
        take(&previews, &later, true);
        assert_eq!((seen(&mut views[0]).len(), seen(&mut views[1])), (0, vec![later]));
        drop((views, other_class));
        assert!(previews.inner().viewers.is_empty());
        take(&previews, &first, true);
        assert_eq!(count(&previews, "shown"), 3);
    }

    #[test]
    fn nothing_is_shown_of_who_was_erased() {
        let previews = previews();
        let mut view = previews.view(RecipientId([1; 20]), Classes::of(&DataClass::ALL));
        take(&previews, &wrap(EPOCH, 1), false);
        assert!(previews.erase(PatientId([1; 16])) && !previews.erase(PatientId([1; 16])));
        take(&previews, &wrap(EPOCH, 1), true);
        take(&previews, &segment(EPOCH, 9), true);
        previews.keep(PatientId([1; 16]));
        take(&previews, &segment(EPOCH, 9), true);
        assert_eq!(seen(&mut view).len(), 0, "what was known of it before is forgotten");
    }

    #[test]
    fn who_is_slow_misses_some_and_memory_stays_bounded() {
        let previews = previews();
        let mut view = previews.view(RecipientId([1; 20]), Classes::of(&DataClass::ALL));
        take(&previews, &wrap(EPOCH, 1), false);
        for _ in 0..WAITING_MAX + 5 {
            take(&previews, &segment(EPOCH, 9), true);
        }
        take(&previews, &segment(EPOCH, RECORD_BYTES_MAX), true);
        assert_eq!((count(&previews, "behind"), count(&previews, "too_long")), (5, 1));
        assert_eq!(seen(&mut view).len(), WAITING_MAX);
        for epoch in 0..2 * u32::try_from(WRAPS_MAX).unwrap() {
            take(&previews, &wrap(EPOCH + epoch, 2), false);
        }
        assert!(previews.inner().audiences.values().all(|audience| audience.len() <= WRAPS_MAX));
    }
}
