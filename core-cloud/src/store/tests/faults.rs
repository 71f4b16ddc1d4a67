//! A disk that does not sync, or is full.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use caregate_crash::{Disk, Random, Syncs};
use redb::StorageBackend;

use super::power::{Backend, FILE};
use super::*;

/// Calls of which each has its turn to fail: opening takes some dozens, a commit some ten.
const CALLS: u32 = 60;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    Sync,
    Write,
    Room,
}

/// The tests' disk, on which one call of a kind fails.
#[derive(Debug, Clone)]
struct Faulty {
    inner: Backend,
    failing: Failing,
    /// Calls of this kind until one fails.
    left: Arc<AtomicU32>,
}

impl Faulty {
    fn check(&self, what: Failing, number: i32) -> io::Result<()> {
        if what == self.failing && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(io::Error::from_raw_os_error(number));
        }
        Ok(())
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(Failing::Room, ENOSPC)?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check(Failing::Sync, EIO).inspect_err(|_| self.inner.0.lock().unwrap().fail_sync(FILE))?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(Failing::Write, ENOSPC)?;
        self.inner.write(offset, data)
    }
}

/// A disk with these files.
fn disk(files: &std::collections::BTreeMap<String, Vec<u8>>, seed: u64) -> Arc<Mutex<Disk>> {
    let mut disk = Disk::new(files, Syncs::Real, u64::MAX, Random::new(seed));
    disk.create(FILE);
    disk.sync_names();
    Arc::new(Mutex::new(disk))
}

/// Large enough that the file must grow for some of them.
fn large(sequence: u64) -> Vec<u8> {
    let name = Name { generation: 0, epoch: EPOCH, sequence };
    segment_of(1, DataClass::Vitals, name, &vec![7; 200_000])
}

/// Puts records until one is not stored; from then on none is, although the disk works again. Then the power goes, and what was
/// acknowledged is there. Returns how many were, and whether a call failed.
fn until_it_fails(failing: Failing, call: u32) -> (usize, bool) {
    let whole = disk(&std::collections::BTreeMap::new(), 1);
    drop(Embedded::open_on(Backend(Arc::clone(&whole), FILE), || Ok(())).unwrap());
    let files = whole.lock().unwrap().cut_now().files;
    let disk_of_store = disk(&files, u64::from(call));
    let inner = Backend(Arc::clone(&disk_of_store), FILE);
    let left = Arc::new(AtomicU32::new(call));
    let opened = Embedded::open_on(Faulty { inner, failing, left: Arc::clone(&left) }, || Ok(()));
    let mut acknowledged = Vec::new();
    if let Ok(store) = opened {
        let mut has_failed = false;
        for record in [wrap(EPOCH, 1)].into_iter().chain((0..12).map(large)) {
            match store.put(std::slice::from_ref(&record)) {
                Ok(outcomes) => {
                    assert!(!has_failed, "{failing:?} {call}: stored after what had failed");
                    assert_eq!(outcomes, [Outcome::Stored]);
                    acknowledged.push(record);
                }
                Err(_) => has_failed = true,
            }
        }
    }
    let image = disk_of_store.lock().unwrap().cut_now();
    let again = disk(&image.files, 2);
    let store =
        Embedded::open_on(Backend(again, FILE), || Ok(())).expect("it opens when the disk works again");
    let mut queue = store.page(recipient(1), 0, u64::MAX, usize::MAX).unwrap().records;
    queue.retain(|(_, record)| acknowledged.contains(record));
    assert_eq!(queue.len(), acknowledged.len(), "{failing:?} at call {call}");
    assert_eq!(store.put(&[large(99)]).unwrap(), [Outcome::Stored], "and goes on");
    // Counted down below nothing, it has wrapped around.
    (acknowledged.len(), left.load(Ordering::SeqCst) == 0 || left.load(Ordering::SeqCst) > CALLS)
}

#[test]
fn nothing_is_acknowledged_after_a_call_that_failed_and_what_was_stays() {
    for failing in [Failing::Sync, Failing::Write, Failing::Room] {
        let outcomes: Vec<(usize, bool)> = (1..CALLS).map(|call| until_it_fails(failing, call)).collect();
        let failed = outcomes.iter().filter(|(_, failed)| *failed).count();
        assert!(failed > 1, "{failing:?}: failed {failed} times");
        assert!(outcomes.iter().any(|(acknowledged, failed)| *failed && *acknowledged > 0), "{failing:?}");
    }
}
