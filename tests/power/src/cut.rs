//! Power cuts: what of the writes is on the disk at a point, and what the spool makes of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use caregate_crash::{Random, Syncs};
use caregate_protocol::id::Lane;
use edge_gateway::spool::{self, Position};

use crate::log::{Entry, Log, SECTOR};
use crate::machine::{self, Told};
use crate::work::{Lived, Promise, limits, payload, reading_of};
use crate::{CUT, PLACE};

/// Written past the page cache at once.
const PIECE: usize = 1 << 20;
/// What such writes are aligned to.
const ALIGNMENT: usize = 4096;

/// What all points come to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) points: u64,
    /// Acknowledged, and not there; a reading counts at each point.
    pub(crate) lost: u64,
    /// Points at which any is.
    pub(crate) losing_points: u64,
    pub(crate) duplicated: u64,
    pub(crate) undetected_corruptions: u64,
    /// Damage that is told of records, where a disk only lost power.
    pub(crate) false_alarms: u64,
}

/// A moment: the entries before `end` had ended, and this was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    end: usize,
    mark: usize,
}

/// Behind marks chosen by the seed, each anywhere up to the next one: the same promises whatever the log looks like between them.
fn points(entries: &[Entry], told: &Told) -> anyhow::Result<Vec<Point>> {
    let marks: Vec<usize> = (0..entries.len()).filter(|at| entries[*at].mark.is_some()).collect();
    ensure!(marks.len() > 1, "{} marks in the log of writes", marks.len());
    let mut random = Random::new(told.seed ^ told.points);
    let mut points: Vec<Point> = (0..told.points)
        .map(|_| {
            let nth = random.index(marks.len() - 1);
            let (from, to) = (marks[nth] + 1, marks[nth + 1]);
            let share = random.below(1 << 16);
            let within = usize::try_from(((to - from + 1) as u64 * share) >> 16).unwrap_or(0);
            Point { end: from + within, mark: entries[marks[nth]].mark.unwrap_or_default() }
        })
        .collect();
    points.sort_unstable();
    Ok(points)
}

/// The disk, entry by entry.
struct Replay<'a> {
    entries: &'a [Entry],
    /// With room before it for its alignment.
    room: Vec<u8>,
    begin: usize,
    /// Entries that are on it.
    applied: usize,
}

impl<'a> Replay<'a> {
    fn new(before: &[u8], entries: &'a [Entry]) -> Self {
        let mut room = vec![0; before.len() + ALIGNMENT];
        let begin = room.as_ptr().align_offset(ALIGNMENT);
        room[begin..begin + before.len()].copy_from_slice(before);
        Self { entries, room, begin, applied: 0 }
    }

    fn disk(&self) -> &[u8] {
        &self.room[self.begin..self.begin + self.room.len() - ALIGNMENT]
    }

    /// Bytes in the place of those that were there, which are returned.
    fn put(&mut self, offset: usize, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let place = self.room[self.begin..].get_mut(offset..offset + bytes.len());
        let place = place.context("a write beyond the disk")?;
        let old = place.to_vec();
        place.copy_from_slice(bytes);
        Ok(old)
    }

    /// What every disk has at a point: all before the last flush. Then what one may have of the rest, by chance: each write, or some
    /// sectors of it, or nothing. Returned is what these were written over.
    fn cut(&mut self, end: usize, random: &mut Random) -> anyhow::Result<Vec<(usize, Vec<u8>)>> {
        let entries = self.entries;
        let flushed = entries[..end].iter().rposition(Entry::is_flush).unwrap_or(0);
        while self.applied < flushed {
            let entry = &entries[self.applied];
            self.put(entry.offset, &entry.bytes)?;
            self.applied += 1;
        }
        let mut old = Vec::new();
        for entry in &entries[self.applied..end] {
            let all = entry.bytes.len();
            let kept = match random.below(4) {
                _ if entry.is_forced() => all,
                0 => 0,
                1 => random.index(all / SECTOR + 1) * SECTOR,
                _ => all,
            };
            let covered = self.put(entry.offset, &entry.bytes[..kept])?;
            old.push((entry.offset, covered));
        }
        Ok(old)
    }

    fn undo(&mut self, old: Vec<(usize, Vec<u8>)>) -> anyhow::Result<()> {
        old.into_iter().rev().try_for_each(|(offset, bytes)| self.put(offset, &bytes).map(drop))
    }

    /// Onto a disk of the machine's.
    fn write_to(&self, path: &str) -> anyhow::Result<()> {
        let disk =
            File::options().write(true).custom_flags(libc::O_DIRECT).open(path).context(path.to_owned())?;
        for (nth, piece) in self.disk().chunks(PIECE).enumerate() {
            disk.write_all_at(piece, (nth * PIECE) as u64).context(path.to_owned())?;
        }
        Ok(())
    }
}

/// All points, one after another.
pub(crate) fn try_points(before: Vec<u8>, log: &Log, lived: &Lived, told: &Told) -> anyhow::Result<Tally> {
    let (mut tally, mut random) = (Tally::default(), Random::new(told.seed.rotate_left(32)));
    let mut replay = Replay::new(&before, &log.entries);
    drop(before);
    for point in points(&log.entries, told)? {
        let promise = *lived.promises.get(point.mark).context("a mark that nobody made")?;
        let old = replay.cut(point.end, &mut random)?;
        replay.write_to(CUT)?;
        machine::mount_ext4(CUT, PLACE)?;
        let found = found(&Path::new(PLACE).join("spool"), &mut tally);
        machine::unmount(PLACE)?;
        replay.undo(old)?;
        match found {
            Ok(found) => compare(&found, lived, promise, &mut tally),
            // Without syncs there may be nothing that opens.
            Err(_) if told.syncs == Syncs::TakenOut => compare(&BTreeMap::new(), lived, promise, &mut tally),
            Err(error) => bail!("{point:?}: {error:#}"),
        }
        tally.points += 1;
    }
    Ok(tally)
}

/// What the spool has, by position; then it must go on.
fn found(dir: &Path, tally: &mut Tally) -> anyhow::Result<BTreeMap<u64, u64>> {
    let (mut log, recovery) = spool::Log::open(dir, limits()).context("the spool does not open")?;
    let told = recovery.damaged.iter().filter(|damage| !damage.positions.is_empty());
    tally.false_alarms += told.count() as u64;
    let (reader, mut found) = (log.reader(), BTreeMap::new());
    for position in 1..log.stats().next.0 {
        if let Ok(Some((_, bytes))) = reader.read(Position(position)) {
            match reading_of(&bytes) {
                Some(reading) => drop(found.insert(position, reading)),
                None => tally.undetected_corruptions += 1,
            }
        }
    }
    log.append(Lane::Alarm, &payload(u64::from(u32::MAX))).context("the spool takes nothing")?;
    log.sync().context("the spool does not sync")?;
    Ok(found)
}

fn compare(found: &BTreeMap<u64, u64>, lived: &Lived, promise: Promise, tally: &mut Tally) {
    let mut times: BTreeMap<u64, u64> = BTreeMap::new();
    for reading in found.values() {
        *times.entry(*reading).or_default() += 1;
    }
    tally.duplicated += times.values().filter(|times| **times > 1).count() as u64;
    let lost = lived.due(promise).filter(|reading| !times.contains_key(reading)).count() as u64;
    tally.lost += lost;
    tally.losing_points += u64::from(lost > 0);
}
