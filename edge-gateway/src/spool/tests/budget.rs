//! Who is refused when, and that alarms still fit.

use std::sync::atomic::Ordering;

use caregate_protocol::id::Lane;

use super::{directory, files, limits, open, put};
use crate::spool::disk::Disk;
use crate::spool::{Log, SpoolError, recover};

/// Appends to all lanes in turn, lowest first, rotating when due, until all are refused; returns in which order that happened.
fn fill(log: &mut Log) -> Vec<Lane> {
    let mut refused = Vec::new();
    while refused.len() < Lane::ALL.len() {
        if log.rotation_due() {
            match log.rotate(b"") {
                Ok(()) | Err(SpoolError::NoSpace { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        for lane in Lane::ALL.into_iter().rev() {
            match log.append(lane, &[7; 300]) {
                Ok(_) => assert!(!refused.contains(&lane), "{lane:?} was refused before and is not now"),
                Err(SpoolError::Full { lane: full }) => {
                    assert_eq!(full, lane);
                    if !refused.contains(&lane) {
                        refused.push(lane);
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
        log.sync().unwrap();
    }
    refused
}

const LOWEST_FIRST: [Lane; 4] = [Lane::Activity, Lane::Waveform, Lane::Vitals, Lane::Alarm];

#[test]
fn over_budget_the_lowest_lane_is_refused_first_and_acks_make_room() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    assert_eq!(fill(&mut log), LOWEST_FIRST);
    let full = log.stats();
    assert!(full.bytes <= limits().bytes_max);
    let error = log.rotate(b"").unwrap_err();
    assert!(error.to_string().contains("budget is used"), "{error}");
    assert!(full.bytes > limits().bytes_max / 10 * 9, "{full:?}");
    log.ack(1..=u64::MAX).unwrap();
    assert_eq!(log.stats().files, 2);
    for lane in Lane::ALL {
        if log.rotation_due() {
            log.rotate(b"").unwrap();
        }
        put(&mut log, lane, &[7; 300]);
    }
}

#[test]
fn on_a_full_disk_the_lowest_lane_is_refused_first_and_alarms_have_their_reserve() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    log.disk.faults.room.store(u32::MAX, Ordering::SeqCst);
    assert_eq!(fill(&mut log), LOWEST_FIRST);
    assert_eq!(files(dir.path()).len(), 1);
    let stats = log.stats();
    assert!(stats.bytes > limits().file_bytes_max + limits().reserve_bytes - 400, "the reserve was used");
    assert!(stats.unacked[Lane::Alarm as usize] >= limits().reserve_bytes / 324);
    log.disk.faults.room.store(0, Ordering::SeqCst);
    // After so many refusals it tries again by itself.
    while !log.rotation_due() {
        assert!(matches!(log.append(Lane::Activity, &[7; 300]), Err(SpoolError::Full { .. })));
    }
    log.rotate(b"").unwrap();
    put(&mut log, Lane::Activity, &[7; 300]);
}

#[test]
fn a_full_disk_at_open_goes_on_with_the_room_it_has() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"x");
    drop(log);
    let disk = Disk::open(dir.path()).unwrap();
    disk.faults.room.store(u32::MAX, Ordering::SeqCst);
    let (mut log, recovery) = recover::open(disk, limits()).unwrap();
    assert_eq!(recovery.records.len(), 1);
    put(&mut log, Lane::Vitals, b"x");
    assert_eq!(fill(&mut log), LOWEST_FIRST);
}

#[test]
fn a_batch_that_outgrows_the_file_is_told_so() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    let error = (0..).find_map(|_| log.append(Lane::Vitals, &[7; 300]).err()).unwrap();
    assert!(matches!(error, SpoolError::BatchFull), "{error}");
    assert!(log.rotation_due());
    log.rotate(b"").unwrap();
    put(&mut log, Lane::Vitals, &[7; 300]);
}

#[test]
fn acks_are_kept_even_when_the_file_has_no_room_left() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    fill(&mut log);
    let next = log.stats().next.0;
    // Every other record: no file goes, nothing can be appended, the acks stay in memory. Then all files go, one by one.
    (1..next).step_by(2).for_each(|position| log.ack(position..=position).unwrap());
    (2..next).step_by(2).for_each(|position| log.ack(position..=position).unwrap());
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty(), "no file is missed: {:?}", recovery.damaged);
    assert_eq!(log.stats().files, 2);
}
