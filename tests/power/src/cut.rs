//! Power cuts: what of the writes is on the disk at a point, and what becomes of the promises.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, anyhow, bail, ensure};
use caregate_crash::{Random, Syncs};
use caregate_guest::machine;
use caregate_guest::power::Report;

use crate::log::{Entry, Log, SECTOR};
use crate::told::Told;
use crate::work::Work;
use crate::{CUT, PLACE};

/// Written past the page cache at once.
const PIECE: usize = 1 << 20;
/// What such writes are aligned to.
const ALIGNMENT: usize = 4096;

/// What works there is started on what is left at one point in so many: it takes seconds.
const RESUMES_EVERY: usize = 10;

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
pub(crate) fn try_points(before: Vec<u8>, log: &Log, work: &dyn Work, told: &Told) -> anyhow::Result<Report> {
    let (mut total, mut random) = (Report::default(), Random::new(told.seed.rotate_left(32)));
    let mut replay = Replay::new(&before, &log.entries);
    drop(before);
    for (nth, point) in points(&log.entries, told)?.into_iter().enumerate() {
        let old = replay.cut(point.end, &mut random)?;
        replay.write_to(CUT)?;
        machine::mount_ext4(CUT, PLACE)?;
        let resumes = told.syncs == Syncs::Real && nth.is_multiple_of(RESUMES_EVERY);
        let found = found(work, point.mark, resumes);
        machine::unmount(PLACE)?;
        replay.undo(old)?;
        let found = match found {
            Ok(found) => found,
            // Without syncs there may be nothing that opens.
            Err(_) if told.syncs == Syncs::TakenOut => {
                Report { lost: work.due(point.mark), ..Report::default() }
            }
            Err(error) => bail!("{point:?}: {error:#}"),
        };
        total += Report { points: 1, losing_points: u64::from(found.lost > 0), ..found };
    }
    Ok(total)
}

/// What the promises have become. A store that lost its syncs may be so broken that redb does not survive looking at it.
fn found(work: &dyn Work, mark: usize, resumes: bool) -> anyhow::Result<Report> {
    let checked = catch_unwind(AssertUnwindSafe(|| work.check(mark, resumes)));
    checked.unwrap_or_else(|_panic| Err(anyhow!("a panic; the console says where")))
}
