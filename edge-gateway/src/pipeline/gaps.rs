//! What the gateway lets go or has lost is told first: gap records, signed, in the spool like any other, before their segments leave it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use caregate_protocol::audit::What;
use caregate_protocol::gap::{Missing, Why};
use caregate_protocol::id::{DataClass, Lane, PatientId};
use caregate_protocol::key::EPOCH_S;
use caregate_protocol::policy::{RelationshipId, VerifiedPolicy};
use caregate_protocol::record::Record;
use caregate_protocol::segment::SegmentHash;
use caregate_protocol::wrap::{HpkePublicKey, Wrap};
use tracing::{error, warn};

use super::commit::{CommitError, Committer, Room, Spooled, seconds};
use super::expiry::{Expiry, PAST_KEPT, WRAP_GRACE};
use super::seal::Batch;
use crate::spool::{Position, Reader};

/// Records looked at in one run: some 100 ms of a router's flash, and sensors wait no longer. What is left is for the next second.
const LOOKED_MAX: usize = 2048;

type Key = (PatientId, DataClass);

/// What a run let go.
#[derive(Debug, Default)]
pub struct Expired {
    /// The gap records, and the wraps that go with them.
    pub spooled: Vec<Spooled>,
    /// Positions that need not be sent any more.
    pub gone: Vec<u64>,
    /// Whose past is to be given anew, since some of its wraps are among them.
    anew: BTreeSet<RelationshipId>,
}

/// What of one chain is older than the limit.
#[derive(Debug, Default)]
struct Due {
    missing: Vec<Missing>,
    /// The positions of segments, and of gap records that are told anew.
    positions: Vec<u64>,
    /// Wraps and heads, which nobody needs then.
    others: Vec<u64>,
    /// Of whose past some of those wraps are.
    pasts: BTreeSet<RelationshipId>,
    segments: u64,
}

/// The moment at which it is looked, by both clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now_us: i64,
    now: Instant,
}

/// With those joined that overlap or go on where another ends.
fn joined(mut missing: Vec<Missing>) -> Vec<Missing> {
    missing.sort_unstable_by_key(|missing| (missing.why, missing.first));
    let mut joined: Vec<Missing> = Vec::new();
    for next in missing {
        match joined.last_mut() {
            Some(before) if before.why == next.why && next.first <= before.last + 1 => {
                if next.last > before.last {
                    *before = Missing { first: before.first, from_us: before.from_us, ..next };
                }
            }
            _ => joined.push(next),
        }
    }
    joined
}

impl Committer {
    /// Tells what damage took, as far as it is not told yet. Call about every second.
    ///
    /// # Errors
    /// [`CommitError`], as for [`Self::commit`].
    pub fn tell_losses(&mut self, policy: &VerifiedPolicy, now_us: i64) -> Result<Vec<Spooled>, CommitError> {
        let mut spooled = Vec::new();
        let mut told = Vec::new();
        for (key, ranges) in self.state.untold.clone() {
            for (first, last) in ranges {
                let hash = SegmentHash::NONE;
                let missing = Missing { why: Why::Damaged, first, last, from_us: 0, to_us: 0, hash };
                if self.tell(key, missing, policy, now_us, &mut spooled)?.is_some() {
                    told.push((key, first, last));
                }
            }
        }
        self.settle(&spooled, now_us)?;
        for (key, first, last) in told {
            self.state.told(key, first, last);
        }
        Ok(spooled)
    }

    /// Lets go what is older than the age limit, if there is one: first the gap records are durable, then it goes. Call about every
    /// second.
    ///
    /// # Errors
    /// [`CommitError`], as for [`Self::commit`].
    pub fn expire(
        &mut self,
        policy: &VerifiedPolicy,
        now_us: i64,
        now: Instant,
    ) -> Result<Expired, CommitError> {
        let next = self.log.stats().next.0;
        if !self.expiry.as_mut().is_some_and(|expiry| expiry.tick(next, now)) {
            return Ok(Expired::default());
        }
        let Some(expiry) = &self.expiry else { return Ok(Expired::default()) };
        let reader = self.log.reader();
        let mut looked = 0;
        let mut due: BTreeMap<Key, Due> = BTreeMap::new();
        for lane in Lane::ALL {
            looked += look(&reader, lane, LOOKED_MAX - looked, |position, record| {
                self.judge(expiry, position, record, Moment { now_us, now }, &mut due)
            });
        }
        let mut expired = Expired::default();
        let mut waiting = Vec::new();
        for (key, due) in due {
            self.let_go(key, due, policy, now_us, &mut expired, &mut waiting)?;
        }
        self.settle(&expired.spooled, now_us)?;
        self.keys.lose_pasts(|relationship, _| expired.anew.contains(relationship))?;
        for range in ranges(&mut expired.gone) {
            self.log.ack(range)?;
        }
        if let Some(expiry) = &mut self.expiry {
            expiry.told.extend(waiting);
            expiry.looked(looked < LOOKED_MAX, now);
        }
        Ok(expired)
    }

    /// Sorts a record in if it is due. False where no later one of its lane can be.
    fn judge(
        &self,
        expiry: &Expiry,
        position: u64,
        record: &[u8],
        Moment { now_us, now }: Moment,
        all: &mut BTreeMap<Key, Due>,
    ) -> bool {
        let Ok(record) = Record::decode(record) else { return true };
        let key = (record.patient(), record.class());
        // It goes without a word: nothing is told of a patient who has no key.
        if self.keys.is_erased(key.0) {
            return true;
        }
        let is_due = |dated_us, grace| expiry.is_due(position, dated_us, grace, now);
        match record {
            Record::Segment(segment) => {
                let (number, at) = (segment.header.sequence, segment.header.sealed_us);
                if !is_due(at, Duration::ZERO) {
                    return false;
                }
                let hash = segment.hash();
                let due = all.entry(key).or_default();
                due.segments += 1;
                due.positions.push(position);
                due.missing.push(Missing {
                    why: Why::Expired,
                    first: number,
                    last: number,
                    from_us: at,
                    to_us: at,
                    hash,
                });
            }
            Record::Wrap(wrap) => {
                let dated_us = i64::from(wrap.epoch) * EPOCH_S * 1_000_000;
                if self.is_needed(&wrap) || !is_due(dated_us, WRAP_GRACE) {
                    return true;
                }
                let past = self.keys.past_at(position);
                // It is as old as the giving, not as what it opens.
                if past.is_some_and(|(_, given)| !is_past_due(given.given_us, now_us)) {
                    return true;
                }
                let due = all.entry(key).or_default();
                due.others.push(position);
                due.pasts.extend(past.map(|(relationship, _)| relationship));
            }
            Record::Head(head) => {
                if is_due(head.head.made_us, Duration::ZERO) {
                    all.entry(key).or_default().others.push(position);
                }
            }
            Record::Tokens(tokens) => {
                let dated_us = i64::from(tokens.tokens.epoch) * EPOCH_S * 1_000_000;
                if is_due(dated_us, Duration::ZERO) {
                    all.entry(key).or_default().others.push(position);
                }
            }
            // It is told anew, so that what was let go is never let go without a word.
            Record::Gap(gap) => {
                if is_due(gap.gap.made_us, Duration::ZERO) {
                    let due = all.entry(key).or_default();
                    due.positions.push(position);
                    due.missing.push(gap.gap.missing);
                }
            }
        }
        true
    }

    /// Whether a wrap opens the chain's own epoch, in which may be sealed yet.
    fn is_needed(&self, wrap: &Wrap) -> bool {
        let chain = self.state.chains.get(&(wrap.patient, wrap.class));
        chain.is_some_and(|chain| {
            wrap.generation == chain.generation && (wrap.epoch..=wrap.last()).contains(&chain.epoch)
        })
    }

    /// Tells what is missing of one chain; what was told goes. `waiting` takes the newest gap record of the chain.
    fn let_go(
        &mut self,
        key: Key,
        mut due: Due,
        policy: &VerifiedPolicy,
        now_us: i64,
        expired: &mut Expired,
        waiting: &mut Vec<(Key, (Missing, u64))>,
    ) -> Result<(), CommitError> {
        let mut missing = joined(due.missing);
        // The one before, if it still waits and this one goes on where it ended.
        let before = self.expiry.as_ref().and_then(|expiry| expiry.told.get(&key)).copied();
        if let Some((told, position)) = before.filter(|(_, position)| self.waits(*position)) {
            let both = joined([&missing[..], &[told]].concat());
            if both.len() == missing.len() {
                missing = both;
                due.positions.push(position);
            }
        }
        for missing in missing {
            let Some(position) = self.tell(key, missing, policy, now_us, &mut expired.spooled)? else {
                return Ok(());
            };
            waiting.push((key, (missing, position)));
        }
        expired.gone.extend(due.positions);
        expired.gone.extend(due.others);
        expired.anew.extend(due.pasts);
        self.metrics.expired.with_label_values(&[key.1.as_str()]).inc_by(due.segments);
        Ok(())
    }

    /// Whether the core has not acknowledged a position.
    fn waits(&self, position: u64) -> bool {
        let reader = self.log.reader();
        Lane::ALL
            .iter()
            .any(|lane| reader.next_unacked(*lane, Position(position)) == Some(Position(position)))
    }

    /// Appends a gap record with the wraps that it needs. The gap record's position; `None` where there is no room for it.
    fn tell(
        &mut self,
        (patient, class): Key,
        missing: Missing,
        policy: &VerifiedPolicy,
        now_us: i64,
        spooled: &mut Vec<Spooled>,
    ) -> Result<Option<u64>, CommitError> {
        let recipients: Vec<_> = policy
            .recipients(&patient, class, seconds(now_us))
            .map(|r| (r.id, HpkePublicKey(r.hpke_public_key)))
            .collect();
        let root = self.keys.root(patient)?;
        let chain = self.state.chain(patient, class);
        let now_us = self.state.sealing_us(now_us);
        let batch = Batch { patient, class, readings: &[], recipients: &recipients, now_us, salt: [0; 16] };
        let sealed = match self.sealer.tell(&root, &chain, &batch, missing) {
            Ok(sealed) => sealed,
            Err(failure) => {
                error!(%failure, "a gap could not be told");
                self.metrics.refused.with_label_values(&["seal"]).inc();
                return Ok(None);
            }
        };
        let mut position = None;
        for record in sealed.records {
            let Some(appended) = self.append_record(class.lane(), record, Room::Telling)? else {
                return Ok(None);
            };
            position = Some(appended.position);
            if let Ok(Record::Wrap(wrap)) = Record::decode(&appended.record) {
                self.state.replay_wrap(&wrap);
                self.keys.audit().wrapped(&wrap);
            }
            spooled.push(appended);
        }
        self.state.chains.insert((patient, class), sealed.chain);
        let Missing { why, first, last, .. } = missing;
        let why_told = why.as_str().to_owned();
        self.keys.audit().told(What::GapTold { patient, class, first, last, why: why_told });
        warn!(why = why.as_str(), class = class.as_str(), segments = last - first + 1, "a gap is told");
        self.metrics.gaps.with_label_values(&[why.as_str()]).inc();
        Ok(position)
    }

    /// Makes durable what was appended.
    fn settle(&mut self, spooled: &[Spooled], now_us: i64) -> Result<(), CommitError> {
        if !spooled.is_empty() {
            self.keys.audit().note_wraps(now_us);
            self.log.sync()?;
            self.metrics.commits.inc();
        }
        if self.log.rotation_due() {
            self.rotate()?;
        }
        Ok(())
    }
}

/// By the clock: a wrong one has a past given once more at worst.
fn is_past_due(given_us: i64, now_us: i64) -> bool {
    let waited_us = u64::try_from(now_us.saturating_sub(given_us)).unwrap_or(0);
    Duration::from_micros(waited_us) >= PAST_KEPT
}

/// Shows `judge` what a lane holds that is not acknowledged, oldest first, until it says that the rest is younger. Returns how many.
fn look(reader: &Reader, lane: Lane, most: usize, mut judge: impl FnMut(u64, &[u8]) -> bool) -> usize {
    let mut from = Position(0);
    for looked in 0..most {
        let Some(position) = reader.next_unacked(lane, from) else { return looked };
        // One that can't be read stays, and is found as damage at the next start.
        if let Ok(Some((_, record))) = reader.read(position)
            && !judge(position.0, &record)
        {
            return looked;
        }
        from = Position(position.0 + 1);
    }
    most
}

/// As ranges, ascending.
fn ranges(positions: &mut [u64]) -> Vec<RangeInclusive<u64>> {
    positions.sort_unstable();
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    for position in positions {
        match ranges.last_mut() {
            Some(last) if *last.end() + 1 >= *position => *last = *last.start()..=*position,
            _ => ranges.push(*position..=*position),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_become_ranges() {
        assert_eq!(ranges(&mut [5, 1, 2, 3, 7, 8, 8]), [1..=3, 5..=5, 7..=8]);
        assert_eq!(ranges(&mut []), []);
    }

    #[test]
    fn what_overlaps_or_goes_on_is_told_in_one() {
        let gap = |why, first, last| Missing {
            why,
            first,
            last,
            from_us: i64::try_from(first).unwrap(),
            to_us: i64::try_from(last).unwrap(),
            hash: SegmentHash([u8::try_from(last).unwrap(); 32]),
        };
        let (e, d) = (Why::Expired, Why::Damaged);
        let all = vec![
            gap(e, 31, 60),
            gap(e, 10, 40),
            gap(d, 61, 61),
            gap(e, 10, 30),
            gap(e, 63, 64),
            gap(e, 61, 61),
        ];
        assert_eq!(joined(all), [gap(e, 10, 61), gap(e, 63, 64), gap(d, 61, 61)]);
        assert_eq!(joined(Vec::new()), []);
    }
}
