//! A sync that fails.

use std::sync::atomic::Ordering;

use caregate_protocol::id::Lane;

use super::{directory, files, open, put, read, unacked};
use crate::spool::{Position, SpoolError};

#[test]
fn after_a_failed_sync_the_batch_is_in_a_new_file() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    for position in 1..=20 {
        put(&mut log, Lane::Vitals, &[position; 400]);
    }
    log.ack(19..=19).unwrap();
    log.append(Lane::Alarm, b"in the batch").unwrap();
    log.disk.faults.syncs.store(1, Ordering::SeqCst);
    log.sync().unwrap();
    assert_eq!(log.stats().syncs_failed, 1);
    let paths = files(dir.path());
    assert_eq!(paths.len(), 2);
    assert!(log.rotation_due(), "the new file has no checkpoint yet");
    put(&mut log, Lane::Alarm, b"goes on");
    drop(log);
    // What the failed file holds behind the last block that was certain, is worth nothing: as if it had never come to the disk.
    let mut bytes = std::fs::read(&paths[0]).unwrap();
    bytes[8192..].fill(0);
    std::fs::write(&paths[0], bytes).unwrap();
    let (mut log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty() && recovery.torn.is_none(), "{recovery:?}");
    assert_eq!(recovery.records.len(), 22, "both files, since the first holds the state");
    assert_eq!(read(&log, 20), Some((Lane::Vitals, vec![20; 400])));
    assert_eq!(read(&log, 21), Some((Lane::Alarm, b"in the batch".to_vec())));
    assert_eq!(unacked(&log), (1..=22).filter(|p| *p != 19).collect::<Vec<_>>());
    log.rotate(b"state").unwrap();
    log.ack(1..=22).unwrap();
    assert!(!log.rotation_due());
}

#[test]
fn what_was_appended_behind_a_sync_that_failed_is_in_the_new_file_too() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"synced");
    log.append(Lane::Vitals, b"in the batch").unwrap();
    log.disk.faults.syncs.store(1, Ordering::SeqCst);
    log.begin_sync().unwrap();
    log.append(Lane::Alarm, b"behind").unwrap();
    assert_eq!(log.durable(), 2);
    log.finish_sync().unwrap();
    assert_eq!(log.durable(), 4, "the new file was synced with both");
    log.begin_sync().unwrap();
    assert!(!log.is_syncing());
    put(&mut log, Lane::Alarm, b"goes on");
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty() && recovery.torn.is_none(), "{recovery:?}");
    let all: [&[u8]; 4] = [b"synced", b"in the batch", b"behind", b"goes on"];
    for (position, payload) in (1..).zip(all) {
        assert_eq!(read(&log, position).unwrap().1, payload);
    }
}

#[test]
fn records_behind_a_hole_are_carried_to_where_they_are_found() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"synced");
    let start = usize::try_from(log.stats().bytes).unwrap();
    for _ in 0..30 {
        log.append(Lane::Vitals, b"").unwrap();
    }
    log.sync().unwrap();
    drop(log);
    // Of the last group only its end has come to the disk: positions 2 to 29 are torn.
    let path = files(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[start..start + 28 * 24].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let (mut log, _) = open(dir.path());
    log.append(Lane::Alarm, b"in doubt").unwrap();
    log.disk.faults.syncs.store(1, Ordering::SeqCst);
    log.sync().unwrap();
    let check = |log: &crate::spool::Log| {
        assert_eq!(unacked(log), [1, 30, 31, 32]);
        assert_eq!(read(log, 1), Some((Lane::Vitals, b"synced".to_vec())));
        assert_eq!(read(log, 31), Some((Lane::Vitals, Vec::new())));
        assert_eq!(read(log, 32), Some((Lane::Alarm, b"in doubt".to_vec())));
    };
    check(&log);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty() && recovery.torn.is_none(), "{recovery:?}");
    check(&log);
}

#[test]
fn the_very_first_sync_may_fail() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    log.append(Lane::Alarm, b"first").unwrap();
    log.disk.faults.syncs.store(1, Ordering::SeqCst);
    log.sync().unwrap();
    put(&mut log, Lane::Vitals, b"second");
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty(), "{:?}", recovery.damaged);
    assert_eq!(recovery.records.len(), 2);
    assert_eq!(read(&log, 1), Some((Lane::Alarm, b"first".to_vec())));
}

#[test]
fn two_failed_syncs_stop_the_log_and_what_was_synced_stays() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"safe");
    log.append(Lane::Vitals, b"in doubt").unwrap();
    log.disk.faults.syncs.store(2, Ordering::SeqCst);
    assert!(matches!(log.sync(), Err(SpoolError::SyncFailed { .. })));
    assert!(matches!(log.append(Lane::Alarm, b""), Err(SpoolError::Stopped)));
    assert!(matches!(log.sync(), Err(SpoolError::Stopped)));
    assert!(matches!(log.rotate(b""), Err(SpoolError::Stopped)));
    assert!(!log.rotation_due());
    assert!(read(&log, 2).is_none(), "never handed out");
    drop(log);
    let (mut log, recovery) = open(dir.path());
    assert_eq!(recovery.records[0].payload, b"safe");
    assert!(recovery.records.len() <= 2);
    put(&mut log, Lane::Vitals, b"goes on");
}

#[test]
fn a_disk_that_is_full_at_the_write_itself_costs_nothing_that_was_acknowledged() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"safe");
    log.append(Lane::Alarm, b"elsewhere").unwrap();
    log.disk.faults.writes.store(1, Ordering::SeqCst);
    log.sync().unwrap();
    assert_eq!((files(dir.path()).len(), log.stats().syncs_failed), (2, 1));
    assert_eq!(read(&log, 2), Some((Lane::Alarm, b"elsewhere".to_vec())));
    // No room for another file either: nothing of the batch may be acknowledged.
    log.append(Lane::Alarm, b"nowhere").unwrap();
    log.disk.faults.writes.store(1, Ordering::SeqCst);
    log.disk.faults.room.store(1, Ordering::SeqCst);
    assert!(matches!(log.sync(), Err(SpoolError::SyncFailed { .. })));
    assert!(matches!(log.append(Lane::Alarm, b""), Err(SpoolError::Stopped)));
    drop(log);
    let (mut log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty(), "{:?}", recovery.damaged);
    assert_eq!(unacked(&log), [1, 2]);
    put(&mut log, Lane::Alarm, b"there is room again");
}

#[test]
fn a_rotation_whose_sync_fails_stops_the_log_and_loses_nothing() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"safe");
    log.disk.faults.syncs.store(1, Ordering::SeqCst);
    assert!(matches!(log.rotate(b"state"), Err(SpoolError::Io { op: "sync", .. })));
    assert!(matches!(log.append(Lane::Alarm, b""), Err(SpoolError::Stopped)));
    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!(recovery.checkpoint, None);
    assert_eq!(recovery.records.len(), 1);
    assert_eq!(log.stats().next, Position(2));
}
