//! What a gateway does with its spool: group commits, files that are full, a core that acknowledges. And what was promised when.

use std::path::Path;

use anyhow::Context;
use caregate_crash::Random;
use caregate_protocol::id::Lane;
use edge_gateway::spool::{Limits, Log, SpoolError};

/// Records of a group commit.
const RECORDS_MAX: u64 = 4;
/// The core acknowledges once in so many commits.
const ACKS_EVERY: u64 = 6;

/// Files of 16 KiB, so that one is full after some ten commits.
pub(crate) fn limits() -> Limits {
    Limits::new(16 << 10, 8 << 20, 4 << 10)
}

/// A reading by its number: bytes that only it has.
pub(crate) fn payload(reading: u64) -> Vec<u8> {
    let len = 8 + usize::try_from(reading * 37 % 600).unwrap_or(0);
    reading.to_le_bytes().into_iter().cycle().take(len).collect()
}

/// The number, if these are a reading's bytes to the last.
pub(crate) fn reading_of(bytes: &[u8]) -> Option<u64> {
    let reading = u64::from_le_bytes(*bytes.first_chunk()?);
    (payload(reading) == bytes).then_some(reading)
}

/// What holds from a mark on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Readings below this number are acknowledged.
    pub(crate) acknowledged: u64,
    /// Positions below this one the core has: the spool may let them go.
    pub(crate) kept_from: u64,
}

/// A life of the gateway.
#[derive(Debug, Default)]
pub(crate) struct Lived {
    /// By the number of the mark.
    pub(crate) promises: Vec<Promise>,
    /// By reading.
    pub(crate) positions: Vec<u64>,
}

impl Lived {
    pub(crate) fn acknowledged(&self) -> u64 {
        self.promises.last().map_or(0, |promise| promise.acknowledged)
    }

    /// The readings that must be there.
    pub(crate) fn due(&self, promise: Promise) -> impl Iterator<Item = u64> {
        let acknowledged = self.positions.iter().zip(0..promise.acknowledged);
        acknowledged.filter(move |(position, _)| **position >= promise.kept_from).map(|(_, reading)| reading)
    }
}

/// `commits` group commits in `dir`; each promise is marked as it is made.
pub(crate) fn live(
    dir: &Path,
    commits: u64,
    mut random: Random,
    mark: &dyn Fn(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Lived> {
    let (mut log, _) = Log::open(dir, limits()).context("a new spool")?;
    let (mut lived, mut promise) = (Lived::default(), Promise { acknowledged: 0, kept_from: 1 });
    for commit in 0..commits {
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

fn made(
    lived: &mut Lived,
    promise: Promise,
    mark: &dyn Fn(usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    mark(lived.promises.len())?;
    lived.promises.push(promise);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn what_is_due_is_in_the_spool_and_nothing_else_is() {
        let dir = std::env::temp_dir().join(format!("caregate-power-{}", std::process::id()));
        let marks = RefCell::new(Vec::new());
        let mark = |number| {
            marks.borrow_mut().push(number);
            Ok(())
        };
        let lived = live(&dir, 60, Random::new(3), &mark).unwrap();
        assert_eq!(*marks.borrow(), (0..lived.promises.len()).collect::<Vec<_>>());
        let promise = *lived.promises.last().unwrap();
        assert!(promise.kept_from > 1 && promise.acknowledged > 60, "{promise:?}");
        let due: Vec<u64> = lived.due(promise).collect();
        assert!(!due.is_empty() && due.len() < lived.positions.len());
        let (log, _) = Log::open(&dir, limits()).unwrap();
        for reading in due {
            let position = edge_gateway::spool::Position(lived.positions[usize::try_from(reading).unwrap()]);
            let (_, bytes) = log.reader().read(position).unwrap().unwrap();
            assert_eq!(reading_of(&bytes), Some(reading));
        }
        assert_eq!(reading_of(&payload(7)[..9]), None);
        drop(log);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
