//! The spool alone, as a gateway uses it: group commits, files that are full, a core that acknowledges. And what was promised when.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use caregate_crash::Random;
use caregate_guest::power::Report;
use caregate_protocol::id::Lane;
use edge_gateway::spool::{Limits, Log, Position, SpoolError};

use crate::PLACE;
use crate::told::Told;
use crate::work::{Mark, Work};

/// Records of a group commit.
const RECORDS_MAX: u64 = 4;
/// The core acknowledges once in so many commits.
const ACKS_EVERY: u64 = 6;

/// Files of 16 KiB, so that one is full after some ten commits.
fn limits() -> Limits {
    Limits::new(16 << 10, 8 << 20, 4 << 10)
}

/// A reading by its number: bytes that only it has.
fn payload(reading: u64) -> Vec<u8> {
    let len = 8 + usize::try_from(reading * 37 % 600).unwrap_or(0);
    reading.to_le_bytes().into_iter().cycle().take(len).collect()
}

/// The number, if these are a reading's bytes to the last.
fn reading_of(bytes: &[u8]) -> Option<u64> {
    let reading = u64::from_le_bytes(*bytes.first_chunk()?);
    (payload(reading) == bytes).then_some(reading)
}

/// What holds from a mark on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Promise {
    /// Readings below this number are acknowledged.
    acknowledged: u64,
    /// Positions below this one the core has: the spool may let them go.
    kept_from: u64,
}

/// A life of the gateway.
#[derive(Debug, Default)]
struct Lived {
    /// By the number of the mark.
    promises: Vec<Promise>,
    /// By reading.
    positions: Vec<u64>,
}

impl Lived {
    /// The readings that must be there.
    fn readings(&self, promise: Promise) -> impl Iterator<Item = u64> {
        let acknowledged = self.positions.iter().zip(0..promise.acknowledged);
        acknowledged.filter(move |(position, _)| **position >= promise.kept_from).map(|(_, reading)| reading)
    }

    fn promise(&self, mark: usize) -> Promise {
        self.promises.get(mark).copied().unwrap_or_default()
    }
}

/// Works in the spool's folder on the disk.
pub(crate) fn live(told: &Told, mark: &Mark<'_>) -> anyhow::Result<Box<dyn Work>> {
    let lived = commits(&folder(), told.amount, Random::new(told.seed), mark)?;
    Ok(Box::new(lived))
}

fn folder() -> std::path::PathBuf {
    Path::new(PLACE).join("spool")
}

impl Work for Lived {
    fn promised(&self) -> u64 {
        self.promises.last().map_or(0, |promise| promise.acknowledged)
    }

    fn due(&self, mark: usize) -> u64 {
        self.readings(self.promise(mark)).count() as u64
    }

    /// The spool goes on at each point: a record more, and a sync.
    fn check(&self, mark: usize, _resumes: bool) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        for reading in found(&folder(), &mut report)?.into_values() {
            *times.entry(reading).or_default() += 1;
        }
        report.duplicated = times.values().filter(|times| **times > 1).count() as u64;
        let due = self.readings(self.promise(mark));
        report.lost = due.filter(|reading| !times.contains_key(reading)).count() as u64;
        Ok(report)
    }
}

/// What the spool has, by position; then it must go on.
fn found(dir: &Path, report: &mut Report) -> anyhow::Result<BTreeMap<u64, u64>> {
    let (mut log, recovery) = Log::open(dir, limits()).context("the spool does not open")?;
    let told = recovery.damaged.iter().filter(|damage| !damage.positions.is_empty());
    report.false_alarms += told.count() as u64;
    let (reader, mut found) = (log.reader(), BTreeMap::new());
    for position in 1..log.stats().next.0 {
        if let Ok(Some((_, bytes))) = reader.read(Position(position)) {
            match reading_of(&bytes) {
                Some(reading) => drop(found.insert(position, reading)),
                None => report.undetected_corruptions += 1,
            }
        }
    }
    log.append(Lane::Alarm, &payload(u64::from(u32::MAX))).context("the spool takes nothing")?;
    log.sync().context("the spool does not sync")?;
    report.resumed += 1;
    Ok(found)
}

/// `count` group commits in `dir`; each promise is marked as it is made.
fn commits(dir: &Path, count: u64, mut random: Random, mark: &Mark<'_>) -> anyhow::Result<Lived> {
    let (mut log, _) = Log::open(dir, limits()).context("a new spool")?;
    let (mut lived, mut promise) = (Lived::default(), Promise { acknowledged: 0, kept_from: 1 });
    for commit in 0..count {
        if log.rotation_due() {
            log.rotate(&commit.to_le_bytes()).context("another file")?;
        }
        for _ in 0..=random.below(RECORDS_MAX) {
            let reading = lived.positions.len() as u64;
            let lane = Lane::ALL[random.index(Lane::ALL.len())];
            match log.append(lane, &payload(reading)) {
                Ok(position) => lived.positions.push(position.0),
                // The next commit begins another file.
                Err(SpoolError::BatchFull) => break,
                Err(error) => return Err(error).context("a record"),
            }
        }
        log.sync().context("a group commit")?;
        promise.acknowledged = lived.positions.len() as u64;
        made(&mut lived, promise, mark)?;
        if random.one_in(ACKS_EVERY) {
            let waiting = log.stats().next.0 - promise.kept_from;
            let from = promise.kept_from;
            promise.kept_from += random.below(waiting + 1);
            // Before the spool hears of it: from then on it may let them go.
            made(&mut lived, promise, mark)?;
            if promise.kept_from > from {
                log.ack(from..=promise.kept_from - 1).context("the core's acknowledgement")?;
            }
        }
    }
    Ok(lived)
}

fn made(lived: &mut Lived, promise: Promise, mark: &Mark<'_>) -> anyhow::Result<()> {
    mark(lived.promises.len())?;
    lived.promises.push(promise);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_is_due_is_in_the_spool_and_nothing_else_is() {
        let dir = std::env::temp_dir().join(format!("caregate-power-{}", std::process::id()));
        let marks = Mutex::new(Vec::new());
        let mark = |number| {
            marks.lock().unwrap().push(number);
            Ok(())
        };
        let lived = commits(&dir, 60, Random::new(3), &mark).unwrap();
        assert_eq!(*marks.lock().unwrap(), (0..lived.promises.len()).collect::<Vec<_>>());
        let promise = *lived.promises.last().unwrap();
        assert!(promise.kept_from > 1 && promise.acknowledged > 60, "{promise:?}");
        let due: Vec<u64> = lived.readings(promise).collect();
        assert!(!due.is_empty() && due.len() < lived.positions.len());
        let (log, _) = Log::open(&dir, limits()).unwrap();
        for reading in due {
            let position = Position(lived.positions[usize::try_from(reading).unwrap()]);
            let (_, bytes) = log.reader().read(position).unwrap().unwrap();
            assert_eq!(reading_of(&bytes), Some(reading));
        }
        assert_eq!(reading_of(&payload(7)[..9]), None);
        drop(log);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
