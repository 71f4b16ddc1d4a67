//! A grant that begins in the past gives what was sealed since: nodes of the epoch tree that cover exactly that span, wrapped for the
//! grantee. Nothing is sealed anew; the core has the ciphertext and delivers it to whom the wraps name.
//!
//! What is wrapped reaches no further than the chain's present epoch, nor than the clock's and the one that a chain may be ahead: of a
//! generation that a clock was ahead in, what was sealed in the future's epochs is given to nobody later. Who is given the present one as well
//! counts as a holder of its key, as if by the wrap of the live path, so that losing access closes it.
//!
//! A past follows from the policy that is kept, the generations that were written down and the chains, so a kill at any point costs none of
//! it: until its wraps are durable and that is written down, it is given again.

use std::collections::BTreeSet;

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::key::{EPOCH_S, cover, epoch_of};
use caregate_protocol::policy::{Grant, Purpose, RelationshipId, VerifiedPolicy, class_bit};
use caregate_protocol::uplink::Used;
use caregate_protocol::wrap::{HpkePublicKey, Wrap, WrapScope};
use tracing::{info, warn};

use super::chains::CLOCK_FROM_EPOCH;
use super::commit::{CommitError, Committer, Room, Spooled, seconds};
use super::seal::AHEAD_EPOCHS;
use crate::keys::given::Given;

/// Wraps made in one run: some 50 ms of a router's processor, and sensors wait no longer. What is left is for the next second.
const WRAPS_MAX: usize = 256;

/// A node of a chain's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    class: DataClass,
    generation: u32,
    epoch: u32,
    depth: u8,
}

/// The past that is being given: what of it is in the spool. It is not kept: after a restart the past is given from its beginning. So is
/// one of which more has become known.
#[derive(Debug)]
pub struct Giving {
    relationship: RelationshipId,
    version: u64,
    done: BTreeSet<Node>,
    /// The first and the last position.
    positions: Option<(u64, u64)>,
}

impl Giving {
    fn of(grant: &Grant) -> Self {
        let Grant { relationship, version, .. } = *grant;
        Self { relationship, version, done: BTreeSet::new(), positions: None }
    }

    fn is_of(&self, grant: &Grant) -> bool {
        (self.relationship, self.version) == (grant.relationship, grant.version)
    }
}

/// The nodes, as (generation, first epoch, depth), of what a chain has sealed from epoch `from` on to `until`. `generations` has each
/// with its first epoch, the lowest first; the next one's is its last, since a generation may end in the middle of an epoch. 0 where it is
/// not known. Where a later one's is lower, it counts that a clock was ahead, though one may have been behind: nothing of that future is
/// given, for it may have been sealed before `from`. A clock that was none ([`CLOCK_FROM_EPOCH`]) was behind for certain, and ends
/// nothing of a generation that began by one; the generation that follows it does.
fn nodes(generations: &[(u32, u32)], from: u32, until: u32) -> Vec<(u32, u32, u8)> {
    let mut nodes = Vec::new();
    for (at, (generation, first)) in generations.iter().enumerate() {
        let began_without = (1..CLOCK_FROM_EPOCH).contains(first);
        let ends = |later: &u32| *later != 0 && (began_without || *later >= CLOCK_FROM_EPOCH);
        let later = generations.iter().skip(at + 1).map(|(_, first)| *first);
        let last = later.filter(ends).fold(until, u32::min);
        let covered = cover(from.max(*first), last);
        nodes.extend(covered.into_iter().map(|(epoch, depth)| (*generation, epoch, depth)));
    }
    nodes
}

/// The first epoch that lies wholly behind this second.
fn first_epoch(from_s: u64) -> u32 {
    u32::try_from(from_s.div_ceil(EPOCH_S.unsigned_abs())).unwrap_or(u32::MAX)
}

impl Committer {
    /// Gives the past of one grant that holds and whose past was not given yet, or goes on with it. Call about every second.
    ///
    /// # Errors
    /// [`CommitError`], as for [`Self::commit`].
    pub fn give_past(&mut self, policy: &VerifiedPolicy, now_us: i64) -> Result<Vec<Spooled>, CommitError> {
        let (now_s, now) = (seconds(now_us), epoch_of(self.state.sealing_us(now_us)));
        if now < CLOCK_FROM_EPOCH {
            // Nobody knows what is past. It waits, and does not count as given.
            return Ok(Vec::new());
        }
        let is_due = |patient: &PatientId, grant: &Grant| {
            grant.purposes & Purpose::Treatment.bit() != 0
                && policy.holds(grant, now_s)
                && self.is_past_due(patient, grant)
        };
        let due = policy.standing().find(|(patient, grant)| is_due(patient, grant));
        let due =
            due.and_then(|(patient, grant)| Some((patient, grant, policy.recipient_entry(&grant.grantee)?)));
        let Some((patient, grant, entry)) = due else {
            self.giving = None;
            return Ok(Vec::new());
        };
        // Before the nodes: what the core tells meanwhile is for the next time.
        let revision = self.keys.elsewhere().revision(&patient);
        let before = self.giving.take().filter(|giving| giving.is_of(grant));
        let mut giving = before.unwrap_or_else(|| Giving::of(grant));
        let public_key = HpkePublicKey(entry.hpke_public_key);
        let mut spooled = Vec::new();
        let is_whole = self.wrap_past(patient, grant, (&public_key, now), &mut giving, &mut spooled)?;
        if !spooled.is_empty() {
            self.keys.audit().note_wraps(now_us);
            self.log.sync()?;
            self.metrics.commits.inc();
            self.metrics.past_wraps.inc_by(spooled.len() as u64);
            info!(wraps = spooled.len(), "a grant gives what was sealed before it");
        }
        if is_whole {
            let positions = giving.positions.map_or(Given::NOWHERE, |(first, last)| first..=last);
            let given = Given { patient, version: grant.version, revision, given_us: now_us, positions };
            self.keys.note_past_given(grant.relationship, given)?;
        } else {
            self.giving = Some(giving);
        }
        if self.log.rotation_due() {
            self.rotate()?;
        }
        Ok(spooled)
    }

    /// Whether it was not given yet, or more is known now of what another gateway has sealed under the patient's root.
    fn is_past_due(&self, patient: &PatientId, grant: &Grant) -> bool {
        self.keys.past_given(&grant.relationship).is_none_or(|given| {
            given.version < grant.version || given.revision < self.keys.elsewhere().revision(patient)
        })
    }

    /// What a grant gives of each chain, the lowest class first; what another gateway has sealed before what this one has.
    fn past_nodes(&self, patient: PatientId, grant: &Grant, now: u32) -> Vec<Node> {
        let (mut all, from) = (Vec::new(), first_epoch(grant.from));
        // A chain may be in the next epoch, by a clock that was a little ahead: what was sealed in it is of this minute, and a grant that begins
        // in the middle of this minute gets none of it.
        let until = if from <= now { now.saturating_add(AHEAD_EPOCHS) } else { now };
        for class in DataClass::ALL.into_iter().filter(|class| grant.classes & class_bit(*class) != 0) {
            for Used { generation, first, last } in self.keys.elsewhere().used((patient, class)) {
                let nodes = cover(from.max(first), last).into_iter();
                all.extend(nodes.map(|(epoch, depth)| Node { class, generation, epoch, depth }));
            }
            let Some(chain) = self.state.chains.get(&(patient, class)) else { continue };
            let mut generations = self.keys.generations((patient, class));
            // One that was written down and whose segment was not, by a crash, may seal yet.
            generations.retain(|(generation, _)| *generation <= chain.generation);
            let nodes = nodes(&generations, from, chain.epoch.min(until)).into_iter();
            all.extend(nodes.map(|(generation, epoch, depth)| Node { class, generation, epoch, depth }));
        }
        all
    }

    /// Wraps what is left of a past, as much as one run may. True where nothing is left; false also where the spool has no room.
    fn wrap_past(
        &mut self,
        patient: PatientId,
        grant: &Grant,
        (public_key, now): (&HpkePublicKey, u32),
        giving: &mut Giving,
        spooled: &mut Vec<Spooled>,
    ) -> Result<bool, CommitError> {
        let mut nodes = self.past_nodes(patient, grant, now);
        nodes.retain(|node| !giving.done.contains(node));
        let Some(root) = self.keys.existing_root(patient)?.filter(|_| !nodes.is_empty()) else {
            return Ok(true);
        };
        for node in nodes.iter().take(WRAPS_MAX) {
            let Node { class, generation, epoch, depth } = *node;
            let Some(key) = root.class_key(class, generation).descend(epoch, depth) else { continue };
            let scope = WrapScope { class, patient, generation, recipient: grant.grantee };
            let record = match scope.seal(&key, public_key, &self.sealer.device) {
                Ok(record) => record.to_vec(),
                Err(failure) => {
                    warn!(%failure, "a recipient's key is unusable; it gets no past");
                    self.metrics.refused.with_label_values(&["recipient_key"]).inc();
                    return Ok(true);
                }
            };
            let Some(appended) = self.append_record(class.lane(), record, Room::Unreserved)? else {
                return Ok(false);
            };
            if let Ok(wrap) = Wrap::decode(&appended.record) {
                self.state.replay_wrap(&wrap);
                self.keys.audit().wrapped(&wrap);
            }
            giving.done.insert(*node);
            let first = giving.positions.map_or(appended.position, |(first, _)| first);
            giving.positions = Some((first, appended.position));
            spooled.push(appended);
        }
        Ok(nodes.len() <= WRAPS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use caregate_protocol::key::TREE_DEPTH;

    use super::*;

    /// The tests' epochs count from here; those below 50 are of a clock that is none.
    const BASE: u32 = 29_000_000;

    /// What is opened by what is given of these generations, as (generation, epoch).
    fn opens(generations: &[(u32, u32)], from: u32, until: u32) -> BTreeSet<(u32, u32)> {
        let based = |first: u32| if first < 50 { first } else { BASE + first };
        let generations: Vec<_> = generations.iter().map(|(g, first)| (*g, based(*first))).collect();
        let below = |depth: u8| u32::MAX.checked_shr(u32::from(depth)).unwrap_or(0);
        let nodes = nodes(&generations, BASE + from, BASE + until).into_iter();
        let epochs = nodes.flat_map(|(g, first, depth)| (first..=first | below(depth)).map(move |e| (g, e)));
        epochs.map(|(g, epoch)| (g, epoch - BASE)).collect()
    }

    fn all(generation: u32, epochs: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = (u32, u32)> {
        epochs.map(move |epoch| (generation, epoch))
    }

    #[test]
    fn each_generation_opens_where_it_sealed_and_none_beyond_the_present_epoch() {
        let generations = [(0, 100), (2, 140), (3, 140), (5, 201)];
        let expected =
            all(0, 120..=140).chain(all(2, 140..=140)).chain(all(3, 140..=201)).chain(all(5, 201..=230));
        assert_eq!(opens(&generations, 120, 230), expected.collect());
        assert_eq!(opens(&generations, 210, 205), BTreeSet::new(), "it begins in the future");
        assert_eq!(opens(&generations, 150, 160), all(3, 150..=160).collect());
        // What an older gateway has sealed: any of them, anywhere.
        let adopted = [(0, 0), (1, 0), (2, 150)];
        let expected = all(0, 140..=150).chain(all(1, 140..=150)).chain(all(2, 150..=155));
        assert_eq!(opens(&adopted, 140, 155), expected.collect());
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_sealed_is_given_to_nobody_later() {
        // A day ahead in generation 0, and from the beginning of generation 2 on; both times it was put right.
        let ahead = [(0, 100), (1, 110), (2, 1_550), (3, 120)];
        let expected = all(0, 105..=110).chain(all(1, 110..=120)).chain(all(3, 120..=130));
        assert_eq!(opens(&ahead, 105, 130), expected.collect());
        // Nor when that day has come: all of generation 2 was sealed before this grant begins.
        assert_eq!(opens(&ahead, 1_000, 2_000), all(3, 1_000..=2_000).collect());
    }

    #[test]
    fn a_clock_that_was_none_takes_nothing_from_the_generations_before() {
        let expected = all(0, 110..=130).chain(all(1, 110..=130));
        assert_eq!(opens(&[(0, 100), (1, 5)], 110, 130), expected.collect());
        // It ended with its own generation, and what was ahead before it is noticed there.
        let expected = all(0, 110..=120).chain(all(1, 110..=120)).chain(all(2, 120..=130));
        assert_eq!(opens(&[(0, 100), (1, 5), (2, 120)], 110, 130), expected.collect());
        let of_future = [(0, 1_550), (1, 5), (2, 120)];
        let expected = all(2, 1_500..=2_000);
        assert_eq!(opens(&of_future, 1_500, 2_000), expected.collect());
        // Where nothing was written down before it.
        let expected = all(0, 110..=120).chain(all(1, 110..=120)).chain(all(2, 120..=130));
        assert_eq!(opens(&[(0, 0), (1, 5), (2, 120)], 110, 130), expected.collect());
    }

    #[test]
    fn a_year_takes_few_nodes() {
        let year = nodes(&[(0, 28_000_001)], 0, 28_000_000 + 525_600);
        assert!(year.len() <= 2 * 19, "{}", year.len());
        assert!(year.iter().all(|(_, _, depth)| *depth <= TREE_DEPTH));
    }

    #[test]
    fn an_epoch_that_had_begun_is_not_given() {
        assert_eq!((first_epoch(0), first_epoch(1), first_epoch(60), first_epoch(61)), (0, 1, 1, 2));
        assert_eq!(first_epoch(u64::MAX), u32::MAX);
    }
}
