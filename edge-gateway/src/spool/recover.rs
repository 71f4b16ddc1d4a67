//! Opening a spool: what is on disk, what is torn, what is damaged, and going on from there.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::disk::Disk;
use super::file::{Current, Head, Kept, Pending};
use super::frame::{FRAME_HEADER, FrameError, Header, Kind, Listed, State};
use super::index::{Entry, FileIndex, Index};
use super::keeper::Keeper;
use super::limits::Limits;
use super::log::{Log, Stats, begin, indexed, terminator};
use super::reader::Reader;
use super::scan::{Bad, Found, Scan, scan};
use super::syncer::Syncer;
use super::{Damage, Damaged, Position, Recovered, Recovery, SpoolError, Torn};

/// Files longer than this were not made by us: the largest file, reserve, acks and room for a head that outgrew them.
const BYTES_MAX: u64 = 1 << 30;

/// One file on disk.
struct Scanned {
    serial: u64,
    file: File,
    len: u64,
    first: u64,
    scan: Scan,
}

/// What is acknowledged, by all that any file says. Only ever grows, so old and new statements can be joined.
#[derive(Default)]
struct AckSet {
    /// Ascending, apart.
    ranges: Vec<Range<u64>>,
    listed: Vec<Listed>,
}

impl AckSet {
    fn new(mut all: Vec<Range<u64>>, listed: Vec<Listed>) -> Self {
        all.sort_unstable_by_key(|r| r.start);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in all {
            match ranges.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        Self { ranges, listed }
    }

    fn contains(&self, position: u64) -> bool {
        let i = self.ranges.partition_point(|r| r.end <= position);
        self.ranges.get(i).is_some_and(|r| r.contains(&position))
            || self.listed.iter().any(|l| l.positions.contains(&position) && l.is_acked(position))
    }

    fn unacked(&self, positions: Range<u64>) -> u64 {
        positions.filter(|p| !self.contains(*p)).count() as u64
    }
}

/// A file that should be there, and its positions.
struct Span {
    serial: u64,
    positions: Range<u64>,
}

/// Where a file stands among the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is written to: its youngest group may be torn.
    Newest,
    /// A sync of it failed, and a newer file holds what was in doubt: behind its last position anything may be.
    Replaced,
    /// Whole.
    Older,
}

/// What the steps of opening report.
#[derive(Default)]
struct Report {
    checkpoint: Option<Vec<u8>>,
    torn: Option<Torn>,
    damaged: Vec<Damage>,
}

impl Report {
    fn finish(self, records: Vec<Recovered>) -> Recovery {
        Recovery { checkpoint: self.checkpoint, records, torn: self.torn, damaged: self.damaged }
    }
}

pub(super) fn open(disk: Disk, limits: Limits) -> Result<(Log, Recovery), SpoolError> {
    // A name whose sync failed before the last stop may not be durable yet.
    disk.sync_dir()?;
    let mut report = Report::default();
    let (mut files, newest) = scan_all(&disk)?;
    let Some(last) = files.last().map(|f| f.serial) else {
        return Ok((create(disk, limits)?, report.finish(Vec::new())));
    };
    let (spans, acks) = spans(&files);
    let continued = |f: &&Scanned| matches!(f.scan.header, Ok(Header { state: State::Continued, .. }));
    let replaced: Vec<u64> = files.iter().filter(continued).map(|f| f.serial - 1).collect();
    let standing = |serial| match serial {
        serial if serial == last => Standing::Newest,
        serial if replaced.contains(&serial) => Standing::Replaced,
        _ => Standing::Older,
    };
    let mut index = Index::default();
    let mut kept = Vec::new();
    for span in &spans {
        let Some(at) = files.iter().position(|f| f.serial == span.serial) else {
            missing(&disk, span, &acks, &mut report);
            continue;
        };
        let found = files.remove(at);
        inspect(&disk, &found, span, standing(span.serial), &acks, &mut report);
        index.files.push(file_index(&disk, &found, span, &acks)?);
        kept.push(found);
    }
    // What no manifest lists was acknowledged and deleted; the deletion itself did not last.
    files.iter().try_for_each(|f| disk.remove(f.serial))?;
    let from = restore(&kept, &index, &mut report)?;
    let mut log = resume(disk, limits, index, &kept, &newest, &mut report)?;
    log.sweep()?;
    drop((newest, kept)); // the records that follow may be as much again
    let records = replay(&log.reader(), from, log.next)?;
    Ok((log, report.finish(records)))
}

/// Scans every file; returns the newest one's bytes too.
fn scan_all(disk: &Disk) -> Result<(Vec<Scanned>, Vec<u8>), SpoolError> {
    let mut files: Vec<Scanned> = Vec::new();
    let mut bytes = Vec::new();
    for serial in disk.serials()? {
        let file = disk.read(serial, BYTES_MAX, &mut bytes)?;
        let scan = scan(&bytes, serial);
        if let Err(source @ FrameError::Version(_)) = scan.header {
            return Err(SpoolError::Version { path: disk.path(serial), source });
        }
        let first = scan.first.or_else(|| files.last().map(|f| f.scan.next())).unwrap_or(1);
        files.push(Scanned { serial, file, len: bytes.len() as u64, first, scan });
    }
    Ok((files, bytes))
}

/// Which positions should be in which file: by the newest manifest for the files before it, and since then by where the next
/// file begins.
fn spans(files: &[Scanned]) -> (Vec<Span>, AckSet) {
    let by_manifest = files.iter().rposition(|f| f.scan.manifest.is_some());
    let listed = by_manifest.and_then(|i| files[i].scan.manifest.clone()).unwrap_or_default();
    let mut spans: Vec<Span> =
        listed.iter().map(|l| Span { serial: l.serial, positions: l.positions.clone() }).collect();
    let since = &files[by_manifest.unwrap_or(0)..];
    for (i, file) in since.iter().enumerate() {
        let end = since.get(i + 1).map_or_else(|| file.scan.next(), |next| next.first);
        spans.push(Span { serial: file.serial, positions: file.first..end.max(file.first) });
    }
    let acked = files.iter().flat_map(|f| f.scan.acks.iter().cloned()).collect();
    (spans, AckSet::new(acked, listed))
}

fn missing(disk: &Disk, span: &Span, acks: &AckSet, report: &mut Report) {
    let lost = acks.unacked(span.positions.clone());
    // Acknowledged in whole, it was deleted as it should be.
    if lost > 0 {
        report.damaged.push(Damage {
            what: Damaged::FileMissing,
            file: disk.path(span.serial),
            bytes: 0..0,
            positions: span.positions.clone(),
            lost,
        });
    }
}

/// Tells torn from damaged, and reports.
fn inspect(disk: &Disk, f: &Scanned, span: &Span, standing: Standing, acks: &AckSet, report: &mut Report) {
    let damage = |what, bytes: Range<usize>, positions: Range<u64>| Damage {
        what,
        file: disk.path(f.serial),
        bytes: bytes.start as u64..bytes.end as u64,
        lost: acks.unacked(positions.clone()),
        positions,
    };
    let header_bad = f.scan.header.is_err();
    if header_bad {
        report.damaged.push(damage(Damaged::Header, 0..super::frame::FILE_HEADER, 0..0));
    }
    let mut explained = f.scan.holes.clone();
    for bad in &f.scan.bad {
        let end = bad.end.unwrap_or(span.positions.end).min(span.positions.end);
        // Behind the last record: a frame of the log's own, where another follows it.
        let is_shown = bad.end.is_some() && standing != Standing::Replaced;
        if standing == Standing::Newest && !header_bad && is_torn(&f.scan, bad) {
            let bytes = bad.bytes.start as u64..bad.bytes.end as u64;
            let torn =
                report.torn.get_or_insert_with(|| Torn { file: disk.path(f.serial), bytes: bytes.clone() });
            torn.bytes.end = bytes.end;
            explained.push(bad.first..end);
        } else if bad.first < span.positions.end || standing == Standing::Newest || is_shown {
            let positions = bad.first.min(end)..end;
            explained.push(positions.clone());
            report.damaged.push(damage(Damaged::Frames, bad.bytes.clone(), positions));
        }
    }
    for gap in gaps(&f.scan.records, &span.positions) {
        if !explained.iter().any(|e| e.start <= gap.start && gap.end <= e.end) {
            report.damaged.push(damage(Damaged::Frames, f.scan.end..f.scan.end, gap));
        }
    }
}

/// Not known to have been synced: at or after the start of the youngest group.
fn is_torn(scan: &Scan, bad: &Bad) -> bool {
    bad.bytes.start >= scan.group && scan.group > 0
}

/// The ranges of `positions` of which no record was found.
fn gaps(records: &[Found], positions: &Range<u64>) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut expected = positions.start;
    let inside = records.iter().map(|r| r.position).filter(|p| positions.contains(p));
    for position in inside.chain([positions.end]) {
        if expected < position {
            gaps.push(expected..position);
        }
        expected = position + 1;
    }
    gaps
}

fn file_index(disk: &Disk, f: &Scanned, span: &Span, acks: &AckSet) -> Result<FileIndex, SpoolError> {
    let file = f.file.try_clone().map_err(|source| SpoolError::Io {
        op: "open",
        path: disk.path(f.serial),
        source,
    })?;
    let state = match &f.scan.header {
        Ok(Header { state: State::Genesis, .. }) => State::Genesis,
        _ if f.scan.checkpoint.is_some() => State::Checkpoint,
        _ => State::Continued,
    };
    let mut index = FileIndex {
        serial: f.serial,
        first: span.positions.start,
        state,
        file: Arc::new(file),
        bytes: f.scan.end as u64,
        entries: Vec::new(),
        unacked: [0; 4],
    };
    for found in f.scan.records.iter().filter(|r| span.positions.contains(&r.position)) {
        while index.end() < found.position {
            index.push(Entry::LOST);
        }
        index.push(Entry::new(found));
    }
    while index.end() < span.positions.end {
        index.push(Entry::LOST);
    }
    index.entries.shrink_to_fit();
    for listed in acks.listed.iter().filter(|l| l.serial == f.serial) {
        for position in listed.positions.clone().filter(|p| listed.is_acked(*p)) {
            index.ack(&(position..position + 1));
        }
    }
    for range in &acks.ranges {
        index.ack(range);
    }
    Ok(index)
}

/// Finds the newest state of the caller; returns the position from which records have to be replayed on it.
fn restore(kept: &[Scanned], index: &Index, report: &mut Report) -> Result<u64, SpoolError> {
    for (f, i) in kept.iter().zip(&index.files).rev() {
        let promised = matches!(f.scan.header, Ok(Header { state: State::Checkpoint, .. }));
        match (i.state, &f.scan.checkpoint) {
            (State::Genesis, _) => return Ok(i.first),
            (State::Checkpoint, Some(at)) => {
                let mut bytes = vec![0; at.len()];
                f.file.read_exact_at(&mut bytes, at.start as u64).map_err(|source| SpoolError::Io {
                    op: "read",
                    path: format!("{:016x}.log", f.serial).into(),
                    source,
                })?;
                report.checkpoint = Some(bytes);
                return Ok(i.first);
            }
            (State::Checkpoint | State::Continued, _) if promised => {
                report.damaged.push(Damage {
                    what: Damaged::Checkpoint,
                    file: format!("{:016x}.log", f.serial).into(),
                    bytes: 0..0,
                    positions: 0..0,
                    lost: 0,
                });
            }
            (State::Checkpoint | State::Continued, _) => {}
        }
    }
    Ok(index.files.first().map_or(1, |f| f.first))
}

/// A new log.
fn create(disk: Disk, limits: Limits) -> Result<Log, SpoolError> {
    let head = Head::new(Header { serial: 1, first: 1, state: State::Genesis }, &[], None, &[]);
    let current = begin(&disk, &limits, &head)?;
    let index = Index { files: vec![indexed(&current, &head)] };
    Ok(assemble(disk, limits, index, current, 1))
}

fn assemble(disk: Disk, limits: Limits, index: Index, current: Current, next: u64) -> Log {
    let closed_bytes = index.files.iter().rev().skip(1).map(|f| f.bytes).sum();
    let continued = index.files.last().is_some_and(|f| f.state == State::Continued);
    let disk = Arc::new(disk);
    Log {
        keeper: Keeper::start(Arc::clone(&disk)),
        syncer: Syncer::start(Arc::clone(&disk)),
        disk,
        limits,
        index: Arc::new(Mutex::new(index)),
        current,
        pending: Pending::default(),
        flying: None,
        sync_took: Duration::ZERO,
        idle: Pending::default(),
        acks: Vec::new(),
        next,
        closed_bytes,
        continued,
        spare_asked: false,
        full_for: 0,
        stopped: false,
        counted: Stats::default(),
    }
}

/// Goes on in the newest file, or in a new one where its header is damaged or it is known not to be the newest.
fn resume(
    disk: Disk,
    limits: Limits,
    index: Index,
    kept: &[Scanned],
    bytes: &[u8],
    report: &mut Report,
) -> Result<Log, SpoolError> {
    let (Some(f), Some(newest)) = (kept.last(), index.files.last()) else { return create(disk, limits) };
    for f in kept.iter().rev().skip(1).filter(|f| f.len > f.scan.end as u64) {
        disk.set_len(f.serial, &f.file, f.scan.end as u64)?; // room that a crash kept from being given back
    }
    let (scan, file) = (&f.scan, Arc::clone(&newest.file));
    let next = scan.next();
    if scan.closed.is_none() {
        mend(&disk, f, bytes)?;
    }
    if scan.header.is_ok() && scan.closed.is_none() {
        let allocated = disk.allocate(&disk.path(f.serial), &file, limits.capacity().max(f.len));
        let (capacity, reserved) = match allocated {
            Ok(reserved) => (limits.capacity().max(f.len), reserved),
            // It goes on with the room that it has.
            Err(SpoolError::NoSpace { .. }) => (f.len, true),
            Err(error) => return Err(error),
        };
        let end = scan.end as u64;
        let tail = tail(scan, bytes, end);
        let direct = disk.direct(f.serial, &file, end, reserved);
        let current = Current { serial: f.serial, file, end, capacity, reserved, written: end, tail, direct };
        return Ok(assemble(disk, limits, index, current, next));
    }
    let mut first = next;
    if let Some(closed) = scan.closed {
        // The missing file may have held so many; their numbers may be known elsewhere, so skip them.
        first = closed + limits.capacity() / FRAME_HEADER as u64 + 1;
        let file = disk.path(f.serial);
        let (what, bytes) = (Damaged::NewestMissing, 0..0);
        report.damaged.push(Damage { what, file, bytes, positions: closed..first, lost: 0 });
    }
    let end = scan.end as u64;
    let (capacity, reserved) = (f.len, false);
    let (tail, direct) = (Vec::new(), None);
    let old = Current { serial: f.serial, file, end, capacity, reserved, written: end, tail, direct };
    let mut log = assemble(disk, limits, index, old, first);
    let header = Header { serial: log.current.serial + 1, first, state: State::Continued };
    let head = Head::new(header, &log.listed(first), None, &[]);
    let begun = begin(&log.disk, &log.limits, &head)?;
    log.switch(begun, &head);
    Ok(log)
}

/// Writes the youngest group again and syncs it: it may lie in the page cache alone, after a kill or even after a failed sync, and
/// what is found here counts as stored from now on. What was torn is cut off.
fn mend(disk: &Disk, f: &Scanned, bytes: &[u8]) -> Result<(), SpoolError> {
    let scan = &f.scan;
    let from = scan.group.min(scan.end);
    let mut whole = bytes[from..scan.end].to_vec();
    whole.resize(whole.len() + terminator(scan.end as u64, f.len), 0);
    for bad in scan.bad.iter().filter(|b| is_torn(scan, b) && b.bytes.end <= scan.end) {
        let (Some(payload), Some(end)) = (bad.bytes.len().checked_sub(FRAME_HEADER), bad.end) else {
            continue;
        };
        let mut hole = Pending::default();
        hole.frame(f.serial, scan.group as u64, end, Kind::Hole, &vec![0; payload]);
        whole[bad.bytes.start - from..bad.bytes.end - from].copy_from_slice(&hole.bytes);
    }
    disk.write_synced(f.serial, &f.file, from as u64, &whole)
}

fn tail(scan: &Scan, bytes: &[u8], end: u64) -> Vec<Kept> {
    let block = Current::block(end);
    let shares = scan.records.iter().filter(|r| u64::from(r.offset) + u64::from(r.frame_len) > block);
    shares
        .map(|r| Kept {
            position: r.position,
            lane: r.lane,
            offset: r.offset.into(),
            payload: bytes[r.offset as usize + FRAME_HEADER..(r.offset + r.frame_len) as usize].to_vec(),
        })
        .collect()
}

/// The records from `from` on, which a caller replays on its checkpoint.
fn replay(reader: &Reader, from: u64, end: u64) -> Result<Vec<Recovered>, SpoolError> {
    let mut records = Vec::new();
    for position in (from..end).map(Position) {
        if let Some((lane, payload)) = reader.read(position)? {
            records.push(Recovered { position, lane, payload });
        }
    }
    Ok(records)
}
