//! A store whose file was changed, or cut off: what it still hands out is what was stored, or a reader can tell.
//!
//! redb checks sums where it recovers, not at each read; a record itself carries its gateway's signature. So a bit that flips in a record is
//! for the reader to see, and one in redb's own pages for redb. `CAREGATE_LONG=1` flips every byte; else one in so many, another each run.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;

use caregate_crash::{Disk, Random, Syncs};
use redb::StorageBackend;

use super::power::{Backend, FILE};
use super::*;

/// What is flipped of all bytes, and cut to of all lengths, in the short run.
const ONE_IN: usize = 211;
const PAGE: usize = 4096;
const SEGMENTS: u64 = 20;
/// The variable that tells one of this test's own processes what to try, and from which place on: `closed 17`.
const TASK: &str = "CAREGATE_DAMAGE_TASK";
/// How a process ends that panics while it panics: signal(7).
const SIGABRT: i32 = 6;
/// What such a process writes before a place's fate.
const MARK: &str = "fate: ";

/// A file in memory.
#[derive(Debug)]
struct Bytes(Mutex<Vec<u8>>);

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (bytes, offset) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        let part = bytes.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut bytes, offset) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        let part = bytes.get_mut(offset..offset + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        part.copy_from_slice(data);
        Ok(())
    }
}

fn records() -> Vec<Vec<u8>> {
    static RECORDS: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
        [wrap(EPOCH, 1)].into_iter().chain((0..SEGMENTS).map(|sequence| segment(EPOCH, sequence))).collect()
    });
    RECORDS.clone()
}

/// The file of a store with all records, closed in good order or left by a power cut.
fn stored(is_closed: bool) -> Vec<u8> {
    let mut disk = Disk::new(&std::collections::BTreeMap::new(), Syncs::Real, u64::MAX, Random::new(1));
    disk.create(FILE);
    disk.sync_names();
    let disk = Arc::new(Mutex::new(disk));
    let store = Embedded::open_on(Backend(Arc::clone(&disk), FILE), || Ok(())).unwrap();
    for record in records() {
        store.put(&[record]).unwrap();
    }
    let store = if is_closed {
        drop(store);
        None
    } else {
        Some(store)
    };
    let mut files = disk.lock().unwrap().cut_now().files;
    drop(store);
    files.remove(FILE).unwrap()
}

/// What a store of these bytes still has, by the queue; none where it does not open or can't be read. That ends a core, and no reader
/// takes it for an answer.
fn found(bytes: Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let look = || {
        let store = Embedded::open_on(Bytes(Mutex::new(bytes)), || Ok(())).ok()?;
        let page = store.page(recipient(1), 0, u64::MAX, PAGE_BYTES).ok()?;
        Some(page.records.into_iter().map(|(_, record)| record).collect())
    };
    catch_unwind(AssertUnwindSafe(look)).ok()?
}

/// What came of one damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Refused,
    Harmless,
    /// A record is gone, which its chain tells.
    Gone,
}

const FATES: [(&str, Fate); 3] =
    [("refused", Fate::Refused), ("harmless", Fate::Harmless), ("gone", Fate::Gone)];

/// Tries `one` at each of the places that `places` gives, in processes of their own: where redb panics and then again while it closes, its
/// process ends. That place counts as refused, and the next process goes on behind it. `name` is the test's own.
fn tried(
    name: &str,
    kind: &str,
    places: impl Fn(usize) -> Vec<usize>,
    one: impl Fn(usize) -> Fate,
) -> Vec<Fate> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let seed = number("CAREGATE_SEED").unwrap_or_else(|| usize::try_from(std::process::id()).unwrap());
    if let Ok(task) = std::env::var(TASK) {
        let (of, from) = task.split_once(' ').unwrap();
        let places = if of == kind { places(seed) } else { Vec::new() };
        for at in places.into_iter().skip(from.parse().unwrap()) {
            let fate = one(at);
            let (word, _) = FATES.iter().find(|(_, known)| *known == fate).unwrap();
            println!("\n{MARK}{word}");
        }
        return Vec::new();
    }
    println!("CAREGATE_SEED={seed}");
    let mut fates = Vec::new();
    loop {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("store::tests::damage::{name}"), "--nocapture"])
            .env(TASK, format!("{kind} {}", fates.len()))
            .env("CAREGATE_SEED", seed.to_string())
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let (out, told) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        let words = out.lines().filter_map(|line| line.strip_prefix(MARK));
        fates.extend(words.map(|word| FATES.iter().find(|(known, _)| *known == word).unwrap().1));
        if child.status.success() {
            return fates;
        }
        assert_eq!(child.status.signal(), Some(SIGABRT), "{kind}, place {}: {told}", fates.len());
        fates.push(Fate::Refused);
    }
}

/// Whether its reader refuses a record by itself.
fn is_refused(record: &[u8]) -> bool {
    let key = device().verifying_key();
    match Record::decode(record) {
        Ok(Record::Segment(segment)) => segment.verify(&key).is_err(),
        Ok(Record::Wrap(wrap)) => wrap.verify(&key).is_err(),
        Ok(Record::Head(_) | Record::Gap(_) | Record::Tokens(_)) | Err(_) => true,
    }
}

/// The places that are tried: of a page in which nothing is written, none.
fn places(bytes: &[u8], seed: usize) -> Vec<usize> {
    let is_long = std::env::var_os("CAREGATE_LONG").is_some();
    let (from, step) = if is_long { (0, 1) } else { (seed % ONE_IN, ONE_IN) };
    let is_used = |at: &usize| bytes[at / PAGE * PAGE..].iter().take(PAGE).any(|byte| *byte != 0);
    (from..bytes.len()).step_by(step).filter(is_used).collect()
}

/// A closed store and one left by a power cut.
fn both() -> [(&'static str, Vec<u8>); 2] {
    [("closed", stored(true)), ("cut", stored(false))]
}

fn flipped(whole: &[u8], at: usize) -> Fate {
    let mut bytes = whole.to_vec();
    bytes[at] ^= 1 << (at % 8);
    let Some(found) = found(bytes) else { return Fate::Refused };
    let strange: Vec<_> = found.iter().filter(|record| !records().contains(record)).collect();
    assert!(strange.iter().all(|record| is_refused(record)), "byte {at}: bytes that nobody wrote");
    let mut unique = found.clone();
    unique.sort_unstable();
    unique.dedup();
    // A place of the queue that names another's record: that one comes twice, which its chain knows, and its own is gone.
    if unique.len() < records().len() { Fate::Gone } else { Fate::Harmless }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_by_the_store_or_by_the_reader() {
    let name = "a_flipped_bit_anywhere_is_refused_by_the_store_or_by_the_reader";
    for (kind, whole) in both() {
        assert_eq!(found(whole.clone()).unwrap(), records());
        let fates = tried(name, kind, |seed| places(&whole, seed), |at| flipped(&whole, at));
        if std::env::var_os(TASK).is_some() {
            continue;
        }
        let count = |fate| fates.iter().filter(|of| **of == fate).count();
        println!(
            "of {} flips the store refused {}; in {} a record is gone, which its chain tells",
            fates.len(),
            count(Fate::Refused),
            count(Fate::Gone)
        );
        assert!(count(Fate::Refused) > 0, "of {} flips none was seen", fates.len());
    }
}

#[test]
fn a_file_that_is_cut_off_is_refused_or_has_all() {
    let name = "a_file_that_is_cut_off_is_refused_or_has_all";
    for (kind, whole) in both() {
        let lengths =
            |seed| places(&whole, seed).into_iter().chain((0..whole.len()).step_by(PAGE)).collect::<Vec<_>>();
        let fates = tried(name, kind, lengths, |len| {
            let Some(found) = found(whole[..len].to_vec()) else { return Fate::Refused };
            // An empty file is one that is made anew.
            assert!(
                found == records() || (len == 0 && found.is_empty()),
                "cut to {len} of {}: {} records",
                whole.len(),
                found.len()
            );
            Fate::Harmless
        });
        assert!(std::env::var_os(TASK).is_some() || fates.contains(&Fate::Refused), "nothing was tried");
    }
}
