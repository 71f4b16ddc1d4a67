//! Which display in the home reads what of others. What it says is bounded: a display that changes its subscriptions without end is said to
//! read all that it may, or it would fill the log in which it stands for whom keys were wrapped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use caregate_host::clock;
use caregate_protocol::audit::{Entry, What};
use caregate_protocol::id::{DeviceId, PatientId};
use prometheus::IntCounter;
use tracing::error;

use super::Audit;
use crate::mqtt::hub::Read;

/// Reads that wait to be written: some for each session that there may be.
const READS_MAX: usize = 1024;
/// Written in one append, whose two syncs the wraps of a commit may have to wait for.
const BATCH_MAX: usize = 256;
/// Entries of one display in an hour, some 25 kB: far more than one that loses its connection each minute makes.
const ENTRIES_MAX: u32 = 128;
const HOUR_MS: i64 = 3_600_000;
/// The filter of whoever changes more often.
const ALL: &str = "#";

/// Tells the log which display reads what. A thread of its own writes: a display waits for no disk. Dropping it waits until all is written.
#[derive(Debug)]
pub struct Displays {
    /// None when it is being dropped.
    reads: Option<SyncSender<(i64, Read)>>,
    thread: Option<JoinHandle<()>>,
    failures: IntCounter,
}

impl Displays {
    pub(super) fn of(audit: &Audit) -> Self {
        let (reads, told) = sync_channel::<(i64, Read)>(READS_MAX);
        let failures = audit.failures.clone();
        let (audit, mut displays) = (audit.clone(), BTreeMap::<DeviceId, Display>::new());
        let write = move || {
            while let Ok(first) = told.recv() {
                let mut entries = Vec::new();
                for (at_ms, read) in std::iter::once(first).chain(told.try_iter().take(BATCH_MAX - 1)) {
                    // As many as have credentials.
                    let display = displays.entry(read.display.clone()).or_default();
                    entries.extend(display.take(at_ms, read).into_iter().map(|what| Entry { at_ms, what }));
                }
                audit.append(&entries);
            }
        };
        let thread = std::thread::Builder::new().name("audit".into()).spawn(write);
        let thread = thread.inspect_err(|error| error!(%error, "no thread for the audit log")).ok();
        Self { reads: Some(reads), thread, failures }
    }

    /// Notes it, with the time of now. What can't be noted is counted.
    pub fn tell(&self, read: Read) {
        let at_ms = clock::now_us().div_euclid(1000);
        if self.reads.as_ref().is_none_or(|reads| reads.try_send((at_ms, read)).is_err()) {
            self.failures.inc();
        }
    }
}

impl Drop for Displays {
    fn drop(&mut self) {
        drop(self.reads.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the audit log's thread panicked");
        }
    }
}

/// One display. Pure.
#[derive(Debug, Default)]
struct Display {
    /// What it reads: as much as its sessions may subscribe to.
    reads: BTreeSet<(PatientId, String)>,
    /// When the hour began, and entries in it.
    since_ms: i64,
    entries: u32,
    /// It counts as reading all, as whose device.
    all: Option<PatientId>,
}

impl Display {
    /// What the log is to say.
    fn take(&mut self, at_ms: i64, read: Read) -> Vec<What> {
        let Read { patient, display, filter, begins } = read;
        let what = |(patient, filter): (PatientId, String), begins| {
            let display = display.clone();
            if begins {
                What::DisplayBegan { patient, display, filter }
            } else {
                What::DisplayEnded { patient, display, filter }
            }
        };
        let mut whats = Vec::new();
        // A clock that was set back ends the hour too.
        if !(self.since_ms..self.since_ms + HOUR_MS).contains(&at_ms) {
            (self.since_ms, self.entries) = (at_ms, 0);
            if let Some(patient) = self.all.take() {
                whats.extend(self.reads.iter().cloned().map(|read| what(read, true)));
                whats.push(what((patient, ALL.to_owned()), false));
            }
        }
        let read = (patient, filter);
        if begins {
            self.reads.insert(read.clone());
        } else {
            self.reads.remove(&read);
        }
        self.entries = self.entries.saturating_add(1);
        if self.all.is_none() && self.entries <= ENTRIES_MAX {
            whats.push(what(read, begins));
        } else if self.all.is_none() {
            self.all = Some(patient);
            whats.push(what((patient, ALL.to_owned()), true));
        }
        whats
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::audit::verify;

    use super::*;
    use crate::audit::LOG_NAME;

    const PATIENT: PatientId = PatientId([1; 16]);

    fn read(filter: &str, begins: bool) -> Read {
        let display = DeviceId::new("display-1").unwrap();
        Read { patient: PATIENT, display, filter: filter.into(), begins }
    }

    fn said(whats: &[What]) -> Vec<(String, bool)> {
        let one = |what: &What| {
            let (What::DisplayBegan { filter, .. } | What::DisplayEnded { filter, .. }) = what else {
                panic!("{what:?}")
            };
            (filter.clone(), matches!(what, What::DisplayBegan { .. }))
        };
        whats.iter().map(one).collect()
    }

    #[test]
    fn what_a_display_reads_is_in_the_log_when_the_gateway_has_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::new(dir.path()).unwrap();
        let displays = audit.displays();
        [true, false].into_iter().for_each(|begins| displays.tell(read("vitals/v1/#", begins)));
        drop(displays);
        let log = verify::log(&std::fs::read(dir.path().join(LOG_NAME)).unwrap(), &[]).unwrap();
        let whats: Vec<_> = log.lines.iter().map(|line| line.entry.what.clone()).collect();
        assert_eq!(said(&whats), [("vitals/v1/#".into(), true), ("vitals/v1/#".into(), false)]);
        assert_eq!(audit.failures.get(), 0);
    }

    #[test]
    fn one_that_changes_without_end_counts_as_reading_all_for_the_rest_of_the_hour() {
        let mut display = Display::default();
        let now = 1_790_000_000_000;
        for n in 0..ENTRIES_MAX {
            assert_eq!(display.take(now, read("a", n % 2 == 0)).len(), 1);
        }
        assert_eq!(said(&display.take(now, read("a", true))), [("#".into(), true)]);
        for _ in 0..10_000 {
            assert!(display.take(now + 1, read("b", true)).is_empty());
            assert!(display.take(now + 1, read("b", false)).is_empty());
        }
        // With the hour it is said again what it reads.
        let next = said(&display.take(now + HOUR_MS, read("c", true)));
        assert_eq!(next, [("a".into(), true), ("#".into(), false), ("c".into(), true)]);
        assert_eq!(said(&display.take(now + HOUR_MS, read("a", false))), [("a".into(), false)]);
    }
}
