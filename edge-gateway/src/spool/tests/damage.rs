//! Torn writes, flipped bits, missing files, power cuts.

use std::fs;
use std::path::Path;

use caregate_protocol::id::Lane;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{copy, directory, files, limits, open, put, read, unacked};
use crate::spool::frame::{FILE_HEADER, Kind, decode_record};
use crate::spool::scan::scan;
use crate::spool::{Damaged, Log, Position, Recovery};

/// A state that a caller might checkpoint: the sum over all payloads.
fn state(recovery: &Recovery) -> u64 {
    let base = recovery.checkpoint.as_deref().map_or(0, |c| u64::from_le_bytes(c.try_into().unwrap()));
    recovery.records.iter().fold(base, |sum, r| sum + payload_sum(&r.payload))
}

fn payload_sum(payload: &[u8]) -> u64 {
    payload.iter().map(|b| u64::from(*b)).sum()
}

fn payload(position: u64) -> Vec<u8> {
    (0..11 + position % 5).map(|i| u8::try_from(position * 7 + i).unwrap()).collect()
}

/// Three files with four records each, group commits of one and two, position 6 acknowledged.
fn small(dir: &Path) {
    let (mut log, _) = open(dir);
    let mut sum = 0;
    for position in 1..=12 {
        let bytes = payload(position);
        sum += payload_sum(&bytes);
        log.append(Lane::Vitals, &bytes).unwrap();
        if position % 4 != 1 {
            log.sync().unwrap();
        }
        if position == 6 {
            log.ack(6..=6).unwrap();
        }
        if position % 4 == 0 && position < 12 {
            log.rotate(&u64::to_le_bytes(sum)).unwrap();
        }
    }
}

/// Makes the newest file of a recycled one, full of older frames of about the same size.
fn recycle(log: &mut Log) {
    for _ in 0..3 {
        while !log.rotation_due() {
            put(log, Lane::Vitals, &[7; 400]);
        }
        log.rotate(&0_u64.to_le_bytes()).unwrap();
    }
    log.ack(1..=u64::MAX).unwrap();
    log.rotate(&0_u64.to_le_bytes()).unwrap();
}

/// The frame that holds the byte at `at`: what it carries, and the position.
fn frame_at(bytes: &[u8], serial: u64, at: usize) -> Option<(Kind, u64)> {
    let mut start = FILE_HEADER;
    while start <= at {
        let frame = decode_record(&bytes[start..], serial).ok()?;
        start += frame.frame_len();
        if at < start && at >= FILE_HEADER {
            return Some((frame.kind, frame.position));
        }
    }
    None
}

#[test]
fn a_last_record_torn_at_any_byte_is_cut_off_and_nothing_else() {
    let (dir, torn) = (directory(), directory());
    let (mut log, _) = open(dir.path());
    (1..=3).for_each(|position| assert_eq!(put(&mut log, Lane::Vitals, &payload(position)).0, position));
    let start = usize::try_from(log.stats().bytes).unwrap();
    put(&mut log, Lane::Vitals, &payload(4));
    let end = usize::try_from(log.stats().bytes).unwrap();
    drop(log);
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for cut in start..end {
        for truncate in [true, false] {
            copy(dir.path(), torn.path());
            let mut bytes = whole.clone();
            bytes[cut..].fill(0);
            bytes.truncate(if truncate { cut } else { whole.len() });
            fs::write(torn.path().join(path.file_name().unwrap()), &bytes).unwrap();
            let (mut log, recovery) = open(torn.path());
            // A frame that ends in zeroes may be whole although its end was never written.
            let gone = bytes.get(..end) != Some(&whole[..end]);
            assert_eq!(recovery.records.len(), if gone { 3 } else { 4 }, "cut at {cut}");
            assert_eq!(recovery.torn.is_some(), gone && cut > start, "cut at {cut}");
            assert!(recovery.damaged.is_empty(), "cut at {cut}: {:?}", recovery.damaged);
            let next = put(&mut log, Lane::Alarm, b"goes on").0;
            drop(log);
            let (log, recovery) = open(torn.path());
            assert!(recovery.torn.is_none() && recovery.damaged.is_empty(), "what was torn is mended");
            assert_eq!(unacked(&log), (1..=next).collect::<Vec<_>>());
            assert_eq!(read(&log, next), Some((Lane::Alarm, b"goes on".to_vec())));
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_costs_no_more_than_the_record_it_hits() {
    let (dir, hit) = (directory(), directory());
    small(dir.path());
    let total: u64 = (1..=12).map(|p| payload_sum(&payload(p))).sum();
    for (nth, path) in files(dir.path()).into_iter().enumerate() {
        let whole = fs::read(&path).unwrap();
        let serial = nth as u64 + 1;
        for at in 0..scan(&whole, serial).end {
            copy(dir.path(), hit.path());
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(hit.path().join(path.file_name().unwrap()), &bytes).unwrap();
            let (log, recovery) = open(hit.path());
            let frame = frame_at(&whole, serial, at);
            let record =
                frame.and_then(|(kind, position)| matches!(kind, Kind::Record(_)).then_some(position));
            for position in 1..=12 {
                let expected = (record != Some(position)).then(|| (Lane::Vitals, payload(position)));
                assert_eq!(read(&log, position), expected, "file {serial}, byte {at}, position {position}");
            }
            // Records from 9 on are replayed, from 5 on if the newest checkpoint was hit.
            if record.is_none_or(|position| position < 9) {
                assert_eq!(state(&recovery), total, "file {serial}, byte {at}");
            }
            let lost: u64 = recovery.damaged.iter().map(|d| d.lost).sum();
            let last = record == Some(12);
            assert_eq!(lost, u64::from(record.is_some_and(|p| p != 6) && !last), "file {serial}, byte {at}");
            // The last group can't be told from a torn one; the mark of a file's end is only a hint.
            let hint = frame.is_some_and(|(kind, _)| kind == Kind::Closed);
            assert_eq!(recovery.torn.is_some(), last, "file {serial}, byte {at}: {recovery:?}");
            assert_eq!(recovery.damaged.is_empty(), last || hint, "file {serial}, byte {at}: {recovery:?}");
            drop(log);
            let (mut log, again) = open(hit.path());
            assert_eq!(again.torn, None);
            assert!(put(&mut log, Lane::Vitals, b"goes on").0 >= 12);
        }
    }
}

/// Where each good frame of a file ends.
fn frame_ends(bytes: &[u8], serial: u64) -> Vec<usize> {
    let next = |start: &usize| Some(start + decode_record(&bytes[*start..], serial).ok()?.frame_len());
    std::iter::successors(Some(FILE_HEADER), next).collect()
}

#[test]
fn a_file_cut_to_any_length_costs_what_was_behind_the_cut_and_says_so() {
    let (dir, cut) = (directory(), directory());
    small(dir.path());
    for (nth, path) in files(dir.path()).into_iter().enumerate() {
        let whole = fs::read(&path).unwrap();
        let serial = nth as u64 + 1;
        let ends = frame_ends(&whole, serial);
        for len in 0..scan(&whole, serial).end {
            copy(dir.path(), cut.path());
            fs::write(cut.path().join(path.file_name().unwrap()), &whole[..len]).unwrap();
            let (log, recovery) = open(cut.path());
            let mut lost = 0;
            for position in 1..=12 {
                let found = read(&log, position);
                let is_before = (0..len).any(|at| {
                    let frame = frame_at(&whole, serial, at);
                    frame.is_some_and(|(kind, p)| matches!(kind, Kind::Record(_)) && p == position)
                        && ends.iter().any(|end| *end > at && *end <= len)
                });
                let is_here = (position - 1) / 4 == nth as u64;
                match found {
                    Some(found) => assert_eq!(found, (Lane::Vitals, payload(position))),
                    None => lost += u64::from(position != 6),
                }
                assert!(
                    read(&log, position).is_some() || is_here && !is_before,
                    "file {serial} cut to {len}: position {position}"
                );
            }
            // Where nothing is left of a frame, the newest file looks as if it had never been written: no log can tell, but
            // readers can, by the chain.
            let is_silent = nth == 2 && ends.contains(&len);
            let reported = !recovery.damaged.is_empty() || recovery.torn.is_some();
            assert!(
                lost == 0 || reported || is_silent,
                "file {serial} cut to {len}: {lost} lost, {recovery:?}"
            );
            // Of a file that was finished it is known how many: no fewer are told, and no more than it had.
            let told: u64 = recovery.damaged.iter().map(|damaged| damaged.lost).sum();
            assert!(
                nth == 2 || (lost..=4).contains(&told),
                "file {serial} cut to {len}: {lost}, {told} told"
            );
            drop(log);
            let (mut log, again) = open(cut.path());
            assert_eq!(again.torn, None, "file {serial} cut to {len}");
            put(&mut log, Lane::Vitals, b"goes on");
        }
    }
}

#[test]
fn good_records_of_a_torn_group_are_kept() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"synced");
    let start = usize::try_from(log.stats().bytes).unwrap();
    for _ in 0..6 {
        log.append(Lane::Vitals, b"").unwrap();
    }
    log.sync().unwrap();
    drop(log);
    let path = files(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[start..start + 5 * 24].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (log, recovery) = open(dir.path());
    let torn = recovery.torn.unwrap();
    assert_eq!(torn.bytes, start as u64..(start + 5 * 24) as u64);
    assert_eq!(unacked(&log), [1, 7]);
    drop(log);
    let (mut log, recovery) = open(dir.path());
    assert!(recovery.torn.is_none() && recovery.damaged.is_empty(), "{recovery:?}");
    assert_eq!(put(&mut log, Lane::Vitals, b"next").0, 8);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.torn.is_none() && recovery.damaged.is_empty(), "{recovery:?}");
    assert_eq!(unacked(&log), [1, 7, 8]);
}

#[test]
fn no_position_is_used_that_a_torn_group_had() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"synced");
    let start = usize::try_from(log.stats().bytes).unwrap();
    log.ack(1..=1).unwrap();
    for _ in 0..3 {
        log.append(Lane::Vitals, b"").unwrap();
    }
    log.sync().unwrap();
    drop(log);
    // Of the group only the acks behind its records have come to the disk, and they name the position after those.
    let path = files(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[start..start + 3 * 24].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (mut log, recovery) = open(dir.path());
    assert!(recovery.torn.is_some() && recovery.damaged.is_empty(), "{recovery:?}");
    let position = put(&mut log, Lane::Alarm, b"acknowledged").0;
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.torn.is_none() && recovery.damaged.is_empty(), "{recovery:?}");
    assert_eq!(unacked(&log), [position]);
    assert_eq!(read(&log, position), Some((Lane::Alarm, b"acknowledged".to_vec())));
}

#[test]
fn a_missing_file_is_reported_with_what_was_in_it() {
    let dir = directory();
    small(dir.path());
    fs::remove_file(&files(dir.path())[1]).unwrap();
    let (log, recovery) = open(dir.path());
    assert_eq!(recovery.damaged.len(), 1);
    let damage = &recovery.damaged[0];
    assert_eq!((damage.what, &damage.positions, damage.lost), (Damaged::FileMissing, &(5..9), 3));
    assert_eq!(unacked(&log), [1, 2, 3, 4, 9, 10, 11, 12]);
}

#[test]
fn a_missing_newest_file_is_reported_and_its_numbers_are_not_used_again() {
    let dir = directory();
    small(dir.path());
    fs::remove_file(&files(dir.path())[2]).unwrap();
    let (mut log, recovery) = open(dir.path());
    assert_eq!(recovery.damaged.len(), 1);
    assert_eq!((recovery.damaged[0].what, recovery.damaged[0].positions.start), (Damaged::NewestMissing, 9));
    assert!(log.rotation_due(), "there is a file without a checkpoint");
    log.rotate(b"now").unwrap();
    let position = put(&mut log, Lane::Vitals, b"x").0;
    assert_eq!(position, recovery.damaged[0].positions.end);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.damaged.is_empty(), "{:?}", recovery.damaged);
    assert_eq!(unacked(&log), [1, 2, 3, 4, 5, 7, 8, position]);
}

#[test]
fn a_damaged_record_is_an_error_when_it_is_read() {
    let dir = directory();
    let (mut log, _) = open(dir.path());
    put(&mut log, Lane::Vitals, b"something");
    let path = files(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let end = usize::try_from(log.stats().bytes).unwrap();
    bytes[end - 1] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = log.reader().read(Position(1)).unwrap_err();
    assert!(error.to_string().contains("record 1 in 0000000000000001.log is damaged"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A power cut while a group is written: any of its sectors may have reached the disk, in any order. What was synced before is
    /// all there, what was not is whole or gone, and a second recovery finds nothing more to mend.
    #[test]
    fn a_power_cut_loses_nothing_that_was_synced(
        synced in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 1..6),
        cut in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..6),
        sectors in prop::collection::vec(any::<bool>(), 40),
        recycled: bool,
    ) {
        let (dir, before) = (directory(), directory());
        let (mut log, _) = open(dir.path());
        if recycled {
            recycle(&mut log);
        }
        let first = log.stats().next.0;
        for payload in &synced {
            log.append(Lane::Vitals, payload).unwrap();
        }
        log.sync().unwrap();
        copy(dir.path(), before.path());
        for payload in &cut {
            log.append(Lane::Waveform, payload).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        let newest = |dir: &TempDir| files(dir.path()).pop().unwrap();
        let (old, new) = (fs::read(newest(&before)).unwrap(), fs::read(newest(&dir)).unwrap());
        let mut mixed = old;
        for (sector, bytes) in mixed.chunks_mut(512).enumerate() {
            if sectors[sector % sectors.len()] {
                bytes.copy_from_slice(&new[sector * 512..][..bytes.len()]);
            }
        }
        fs::write(newest(&dir), &mixed).unwrap();
        let (log, recovery) = open(dir.path());
        prop_assert!(recovery.damaged.is_empty(), "{:?}", recovery.damaged);
        for (i, payload) in synced.iter().enumerate() {
            prop_assert_eq!(read(&log, first + i as u64), Some((Lane::Vitals, payload.clone())));
        }
        for (i, payload) in cut.iter().enumerate() {
            if let Some(found) = read(&log, first + (synced.len() + i) as u64) {
                prop_assert_eq!(found, (Lane::Waveform, payload.clone()));
            }
        }
        let found = unacked(&log);
        drop(log);
        let (mut log, again) = open(dir.path());
        prop_assert_eq!(again.torn, None);
        prop_assert!(again.damaged.is_empty(), "{:?}", again.damaged);
        prop_assert_eq!(unacked(&log), found);
        put(&mut log, Lane::Alarm, b"goes on");
        drop(log);
        let (_, third) = open(dir.path());
        prop_assert!(third.torn.is_none() && third.damaged.is_empty(), "{:?}", third);
    }

    /// No bytes make the decoder or the scan fail, or open a log that then fails.
    #[test]
    fn any_bytes_can_be_opened(noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40), len in any::<prop::sample::Index>()) {
        let dir = directory();
        small(dir.path());
        for path in files(dir.path()) {
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(2000);
            for (at, byte) in &noise {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(len.index(bytes.len()) + 1);
            fs::write(&path, &bytes).unwrap();
        }
        let (mut log, _) = Log::open(dir.path(), limits()).unwrap();
        put(&mut log, Lane::Vitals, b"goes on");
    }

    #[test]
    fn the_decoder_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), serial in any::<u64>()) {
        if let Ok(frame) = decode_record(&bytes, serial) {
            prop_assert!(frame.frame_len() <= bytes.len());
        }
    }
}
