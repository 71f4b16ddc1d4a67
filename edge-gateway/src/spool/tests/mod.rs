//! What the spool promises, on real files.

mod budget;
mod damage;
mod faults;
mod model;
mod power;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caregate_protocol::id::Lane;
use tempfile::TempDir;

use super::keeper::Keeper;
use super::syncer::Syncer;
use super::{Limits, Log, Position, Recovery, SpoolError};

/// In memory where the system has such a place: these tests sync thousands of times, and none asks what a real disk does (the
/// kill test and the bench do).
pub(crate) fn directory() -> TempDir {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { TempDir::new_in(shm) } else { TempDir::new() };
    dir.expect("a directory of our own")
}

/// Files of 16 KiB, so that a test rotates often.
pub(super) fn limits() -> Limits {
    Limits::new(16 << 10, 8 << 20, 4 << 10)
}

pub(super) fn open(dir: &Path) -> (Log, Recovery) {
    Log::open(dir, limits()).expect("the spool opens")
}

/// Appends and syncs one record.
pub(super) fn put(log: &mut Log, lane: Lane, payload: &[u8]) -> Position {
    let position = log.append(lane, payload).expect("there is room");
    log.sync().expect("the disk works");
    position
}

pub(super) fn read(log: &Log, position: u64) -> Option<(Lane, Vec<u8>)> {
    log.reader().read(Position(position)).expect("no damage")
}

pub(super) fn unacked(log: &Log) -> Vec<u64> {
    let reader = &log.reader();
    let mut all: Vec<u64> = Lane::ALL
        .into_iter()
        .flat_map(|lane| {
            let next = move |from: u64| reader.next_unacked(lane, Position(from)).map(|p| p.0);
            std::iter::successors(next(0), move |p| next(p + 1))
        })
        .collect();
    all.sort_unstable();
    all
}

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the directory is there");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "log"));
    files.sort();
    files
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for file in files(to) {
        fs::remove_file(file).expect("removed");
    }
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copied");
    }
}

#[test]
fn a_new_log_is_empty_and_counts_from_one() {
    let dir = directory();
    let (mut log, recovery) = open(dir.path());
    assert!(recovery.checkpoint.is_none() && recovery.records.is_empty());
    assert!(recovery.torn.is_none() && recovery.damaged.is_empty());
    assert_eq!(put(&mut log, Lane::Vitals, b"a"), Position(1));
    assert_eq!(put(&mut log, Lane::Alarm, b""), Position(2));
    assert_eq!(read(&log, 1), Some((Lane::Vitals, b"a".to_vec())));
    assert_eq!(read(&log, 2), Some((Lane::Alarm, Vec::new())));
    assert_eq!(read(&log, 3), None);
}

#[test]
fn new_blocks_are_written_ahead_once_and_those_of_the_spare_never() {
    let dir = directory();
    let (mut log, _) = Log::open(dir.path(), Limits::new(384 << 10, 8 << 20, 4 << 10)).unwrap();
    let put = |log: &mut Log| {
        let before = log.stats().written_bytes;
        put(log, Lane::Vitals, &[7; 1000]);
        log.stats().written_bytes - before
    };
    assert!(put(&mut log) > 256 << 10, "all of this small file");
    assert!((0..200).all(|_| put(&mut log) < 2000));
    for checkpoint in 0..3 {
        log.rotate(&[checkpoint]).unwrap();
        log.ack(1..=u64::MAX).unwrap();
    }
    // The first file was cut to its 206 kB when it was closed; the one that is made of it has so much that is written.
    assert!((0..150).all(|_| put(&mut log) < 2000));
}

#[test]
fn a_thread_makes_the_spare_ready_and_lets_files_go() {
    let dir = directory();
    let (mut log, _) = Log::open(dir.path(), Limits::new(384 << 10, 8 << 20, 4 << 10)).unwrap();
    let keeper = Keeper::start(Arc::clone(&log.disk)).on_thread();
    log.keeper = keeper;
    let spare = dir.path().join("spare");
    for checkpoint in 0..4 {
        let before = log.stats().syncs;
        while !log.rotation_due() {
            put(&mut log, Lane::Vitals, &[7; 1000]);
        }
        assert!(log.stats().syncs - before > 200);
        log.keeper.wait();
        assert_eq!(
            fs::metadata(&spare).unwrap().len(),
            log.limits().capacity(),
            "whole, before it is wanted"
        );
        log.rotate(&[checkpoint]).unwrap();
        log.ack(1..=u64::MAX).unwrap();
    }
    log.keeper.wait();
    assert_eq!(files(dir.path()).len(), 2);
    drop(log);
    let (log, recovery) = Log::open(dir.path(), Limits::new(384 << 10, 8 << 20, 4 << 10)).unwrap();
    assert!(recovery.damaged.is_empty() && recovery.torn.is_none(), "{recovery:?}");
    assert_eq!(log.stats().files, 2);
}

#[test]
fn what_fails_behind_its_back_stops_the_log() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    for position in 1..=3 {
        put(&mut log, Lane::Vitals, b"x");
        log.rotate(&[position]).unwrap();
    }
    // In the place of the spare stands what no file can take the place of.
    fs::create_dir_all(dir.path().join("spare/in the way")).unwrap();
    fs::remove_file(files(dir.path()).remove(0)).unwrap();
    fs::create_dir(dir.path().join("0000000000000001.log")).unwrap();
    assert!(matches!(log.ack(1..=u64::MAX), Err(SpoolError::Io { op: "remove", .. })));
}

#[test]
fn nothing_is_seen_before_the_sync() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    let position = log.append(Lane::Vitals, b"a").unwrap();
    assert_eq!(read(&log, position.0), None);
    log.ack(1..=1).unwrap();
    log.sync().unwrap();
    assert_eq!(unacked(&log), [1], "an ack of a record that nobody could have sent is none");
}

#[test]
fn more_is_appended_while_a_sync_is_under_way() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    log.syncer = Syncer::start(Arc::clone(&log.disk)).on_thread();
    let mut last = 0;
    for round in 0..40_u8 {
        for _ in 0..3 {
            last = log.append(Lane::Vitals, &[round; 100]).unwrap().0;
        }
        log.begin_sync().unwrap();
        assert!(log.is_syncing() && log.durable() == last - 2);
        let behind = log.append(Lane::Alarm, &[round; 50]).unwrap().0;
        log.begin_sync().unwrap();
        assert_eq!(read(&log, behind), None);
        log.finish_sync().unwrap();
        assert!(!log.is_syncing() && log.durable() == behind);
        assert_eq!(read(&log, last), Some((Lane::Vitals, vec![round; 100])));
        log.sync().unwrap();
        assert_eq!(read(&log, behind), Some((Lane::Alarm, vec![round; 50])));
        if log.rotation_due() {
            log.append(Lane::Alarm, b"with the rotation").unwrap();
            log.begin_sync().unwrap();
            log.append(Lane::Alarm, b"too").unwrap();
            log.rotate(&[round]).unwrap();
        }
    }
    let next = log.next();
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty() && recovery.torn.is_none(), "{recovery:?}");
    assert_eq!((unacked(&log).len() as u64, log.durable()), (next - 1, next));
}

#[test]
fn the_checkpoint_and_the_records_since_come_back() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"before");
    log.rotate(b"state after one").unwrap();
    put(&mut log, Lane::Waveform, b"after");
    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!(recovery.checkpoint.as_deref(), Some(&b"state after one"[..]));
    assert_eq!(recovery.records.len(), 1);
    assert_eq!(
        (recovery.records[0].position, &recovery.records[0].payload[..]),
        (Position(2), &b"after"[..])
    );
    assert_eq!(unacked(&log), [1, 2]);
}

#[test]
fn files_go_when_all_in_them_is_acknowledged_wherever_they_stand() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    for position in 1..=5 {
        put(&mut log, Lane::Vitals, b"x");
        log.rotate(&[position]).unwrap();
    }
    assert_eq!(log.stats().files, 6);
    let reader = log.reader();
    log.ack(2..=3).unwrap();
    assert_eq!(files(dir.path()).len(), 4, "the two in the middle");
    assert!(reader.read(Position(2)).unwrap().is_none());
    assert_eq!(unacked(&log), [1, 4, 5]);
    log.ack(1..=u64::MAX).unwrap();
    assert_eq!(files(dir.path()).len(), 2, "the second newest checkpoint and what follows stays");
    assert!(dir.path().join("spare").exists());
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty(), "{:?}", recovery.damaged);
    assert_eq!(unacked(&log), [0_u64; 0]);
    assert_eq!(log.stats().next, Position(6), "numbers go on");
    let mut log = log;
    let spare = fs::metadata(dir.path().join("spare")).unwrap().ino();
    log.rotate(b"of the spare").unwrap();
    let newest = files(dir.path()).pop().unwrap();
    assert_eq!(fs::metadata(newest).unwrap().ino(), spare);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.torn.is_none() && recovery.damaged.is_empty());
    assert_eq!(read(&log, 6), None);
}

#[test]
fn acks_ride_on_the_next_sync() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    for _ in 0..5 {
        put(&mut log, Lane::Vitals, b"x");
    }
    log.ack(2..=3).unwrap();
    log.ack(5..=5).unwrap();
    put(&mut log, Lane::Vitals, b"x");
    drop(log);
    let (mut log, _) = open(dir.path());
    assert_eq!(unacked(&log), [1, 4, 6]);
    log.rotate(b"").unwrap();
    drop(log);
    let (log, _) = open(dir.path());
    assert_eq!(unacked(&log), [1, 4, 6], "by the manifest");
}

#[test]
fn a_second_owner_is_refused() {
    let dir = directory();
    let (_log, _) = open(dir.path());
    assert!(matches!(Log::open(dir.path(), limits()), Err(SpoolError::Locked { .. })));
}

#[test]
fn limits_that_contradict_are_named() {
    let dir = directory();
    let small = Limits::new(8 << 20, 16 << 20, 0);
    let error = Log::open(dir.path(), small).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("bytes_max must hold four files"), "{error}");
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let dir = directory();
    drop(open(dir.path()));
    let path = files(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = Log::open(dir.path(), limits()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("spool format 2"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn too_large_a_record_or_checkpoint_is_named() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    let large = vec![0; 16 << 10];
    assert!(matches!(log.append(Lane::Alarm, &large), Err(SpoolError::Oversized { what: "record", .. })));
    assert!(matches!(log.rotate(&large), Err(SpoolError::Oversized { what: "checkpoint", .. })));
    put(&mut log, Lane::Alarm, b"goes on");
}
