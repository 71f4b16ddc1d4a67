//! The state that sealing carries from one group commit to the next: per patient and class the chain's head, its epoch
//! and generation, and who holds the epoch's key; and all of it as the spool's checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::id::{DataClass, DeviceId, Lane, PatientId, RecipientId, StreamName};
use caregate_protocol::key::{EPOCH_S, epoch_of};
use caregate_protocol::policy::{CLOCK_BEHIND_MAX_S, EMERGENCIES_MAX, GRANTS_MAX, VerifiedPolicy};
use caregate_protocol::segment::{Header, SegmentHash};
use caregate_protocol::wrap::Wrap;
use minicbor::{Decoder, Encoder};
use thiserror::Error;

use super::duplicates::{Duplicates, STREAMS_MAX, WINDOW};

/// Chains in all: 256 patients (as in the policy) with five classes each.
pub const CHAINS_MAX: usize = 1280;
/// Recipients of one chain: a patient's grants, and as many emergencies as a policy bundle has.
const RECIPIENTS_MAX: u64 = (GRANTS_MAX + EMERGENCIES_MAX) as u64;
/// By how much a chain's sequence is moved on when damage hides how far it had come: more than one spool file can hold.
const SEQUENCE_SKIP: u64 = 1 << 20;
/// Ranges of one chain that are still to be told; more are joined with the one before.
const UNTOLD_MAX: usize = 4;
/// Damages of the spool that are remembered, so that each is told once. Each takes a sector of the flash at least.
pub const DAMAGES_MAX: usize = 1024;
/// The year 2024. A clock that says less is none, whatever else is known: a machine wakes up in 1970 where nothing in it keeps the time.
pub const CLOCK_FROM_EPOCH: u32 = 28_401_120;
/// Epochs by which what is known to have passed may lag behind what was sealed before a power cut: it is written down every two minutes, and
/// a header is some seconds old when it comes.
const KEPT_LAG_EPOCHS: u32 = 3;
const VERSION: u8 = 4;
/// As written before gaps were told.
const VERSION_UNTOLD: u8 = 3;
/// As written before [`Chain::used`] was kept.
const VERSION_BEFORE: u8 = 2;

/// One chain's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Number of the next segment.
    pub next: u64,
    /// Hash of the last one.
    pub prev: SegmentHash,
    /// Raised when somebody loses access.
    pub generation: u32,
    /// The epoch of the last segment; goes back only with another generation, where the clock was ahead.
    pub epoch: u32,
    /// Who holds a wrap of this generation and epoch.
    pub holders: BTreeSet<RecipientId>,
    /// Whether a segment was sealed in this generation and epoch. Who joins then would open it too, so a new generation begins.
    pub used: bool,
    /// The wraps of this epoch may lie in the backlog, behind what is live, or (after a start) be to a key that was replaced: the next segment
    /// of this epoch begins a new generation, whose wraps go with it. Not in the checkpoint.
    pub reopens: bool,
}

impl Default for Chain {
    fn default() -> Self {
        let (prev, holders) = (SegmentHash::NONE, BTreeSet::new());
        Self { next: 0, prev, generation: 0, epoch: 0, holders, used: false, reopens: false }
    }
}

impl Chain {
    /// Leaves the present generation: what anybody holds of it opens nothing that is sealed from now on.
    pub fn renew(&mut self) {
        self.generation += 1;
        self.holders.clear();
        self.used = false;
        self.reopens = false;
    }
}

/// Where the chains of a patient begin whose root was restored here: beyond all that another gateway has sealed under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beginning {
    /// Number of the first segment.
    pub next: u64,
    /// First generation.
    pub generation: u32,
}

/// Binary places of the sequence numbers that a second of a restored gateway's life has: no gateway seals 16 million segments a second,
/// so two that were restored one after the other never meet, and 2^63 holds 17,000 years of them.
const SEQUENCE_PLACES: u32 = 24;

impl Beginning {
    /// For a root that is restored at `now_us`, Unix time in microseconds. As long as no chain rises by more than a generation a minute
    /// over its life, none of the other gateway's is met either.
    #[must_use]
    pub fn at(now_us: i64) -> Self {
        let now_s = u64::try_from(now_us / 1_000_000).unwrap_or(0);
        Self { next: now_s << SEQUENCE_PLACES, generation: epoch_of(now_us) }
    }
}

/// What survives in the spool's checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Of restored roots; not in the checkpoint, but in the key store.
    pub beginnings: BTreeMap<PatientId, Beginning>,
    /// By patient and class.
    pub chains: BTreeMap<(PatientId, DataClass), Chain>,
    /// What was stored already.
    pub duplicates: Duplicates,
    /// How often damage hid records. A chain that is not known here may have been among them, so it begins beyond all that
    /// one file can have held.
    pub damages: u32,
    /// What damage took and no gap record has told yet, by chain: first and last number.
    pub untold: BTreeMap<(PatientId, DataClass), Vec<(u64, u64)>>,
    /// The damages (positions) of which [`Self::untold`] knows or knew.
    pub known_damage: BTreeSet<(u64, u64)>,
    /// The epoch in which each lane's chains were last told to begin a new generation ([`Self::reopen`]); not in the checkpoint.
    pub reopened: BTreeMap<Lane, u32>,
    /// By how much the wall's clock is behind what has passed for certain; 0 where it is by no more than clocks differ. Not in the checkpoint.
    pub behind_us: i64,
}

/// A checkpoint that does not parse: the spool's checksum held, so another version wrote it.
#[derive(Debug, Error)]
#[error("spool checkpoint: {0}")]
pub struct CheckpointError(String);

impl State {
    /// Takes what is known of the wall's clock, which says `now_us`: the Unix second `past_s` is past for certain. Call before anything is
    /// sealed, and about every second.
    pub fn look_at_clock(&mut self, now_us: i64, past_s: u64) {
        let micros = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let behind_us = micros(past_s).saturating_sub(now_us);
        self.behind_us = if behind_us > micros(CLOCK_BEHIND_MAX_S) { behind_us } else { 0 };
    }

    /// The time, Unix microseconds, where the wall's clock says `now_us`: never before what has passed, but for what clocks differ by.
    #[must_use]
    pub fn past_us(&self, now_us: i64) -> i64 {
        now_us.saturating_add(self.behind_us)
    }

    /// The time by which is sealed. Where the wall's clock is behind, all that is known is what has passed at least; a chain that is ahead of it
    /// by no more than that may lag was not ahead of the time, so it is as late as in the newest of those.
    #[must_use]
    pub fn sealing_us(&self, now_us: i64) -> i64 {
        let past_us = self.past_us(now_us);
        if self.behind_us == 0 {
            return past_us;
        }
        let past = epoch_of(past_us);
        let near = past..=past.saturating_add(KEPT_LAG_EPOCHS);
        let newest = self.chains.values().map(|chain| chain.epoch).filter(|epoch| near.contains(epoch)).max();
        newest.map_or(past_us, |epoch| past_us.max(i64::from(epoch) * EPOCH_S * 1_000_000))
    }

    /// The head of a chain, also of one that does not exist yet.
    #[must_use]
    pub fn chain(&self, patient: PatientId, class: DataClass) -> Chain {
        self.chains.get(&(patient, class)).cloned().unwrap_or_else(|| self.beginning(patient))
    }

    /// Notes that damage may have taken segments `first` to `last` of a chain.
    pub fn lost(&mut self, key: (PatientId, DataClass), first: u64, last: u64) {
        let ranges = self.untold.entry(key).or_default();
        ranges.push((first, last));
        ranges.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, last) in ranges.drain(..) {
            let full = joined.len() == UNTOLD_MAX;
            match joined.last_mut() {
                Some(before) if full || first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        *ranges = joined;
    }

    /// Of a chain that begins now: the numbers under which damage may have hidden all of it, if there was any.
    #[must_use]
    pub fn hidden(&self, patient: PatientId, class: DataClass) -> Option<(u64, u64)> {
        let skipped = u64::from(self.damages) * SEQUENCE_SKIP;
        let begins = skipped > 0 && !self.chains.contains_key(&(patient, class));
        let next = self.beginning(patient).next;
        begins.then(|| (next.saturating_sub(skipped), next.saturating_sub(1)))
    }

    fn beginning(&self, patient: PatientId) -> Chain {
        let Beginning { next, generation } = self.beginnings.get(&patient).copied().unwrap_or_default();
        let next = next + u64::from(self.damages) * SEQUENCE_SKIP;
        Chain { next, generation: generation.saturating_add(self.damages), ..Chain::default() }
    }

    /// Notes a segment found in the spool after the checkpoint.
    pub fn replay_segment(&mut self, header: &Header, hash: SegmentHash) {
        let chain = self.chains.entry((header.patient, header.class)).or_default();
        if chain.generation != header.generation || chain.epoch != header.epoch {
            chain.holders.clear();
        }
        chain.next = header.sequence + 1;
        chain.prev = hash;
        chain.generation = header.generation;
        chain.epoch = header.epoch;
        chain.used = true;
    }

    /// Notes a wrap, also one found in the spool after the checkpoint. A wrap opens an epoch before the first segment of it; one of the
    /// past opens nothing that is sealed from now on, unless it reaches to the present epoch.
    pub fn replay_wrap(&mut self, wrap: &Wrap) {
        let (key, beginning) = ((wrap.patient, wrap.class), self.beginning(wrap.patient));
        let known = self.chains.get(&key).unwrap_or(&beginning);
        if (wrap.generation, wrap.last()) < (known.generation, known.epoch) {
            return;
        }
        let chain = self.chains.entry(key).or_insert(beginning);
        if wrap.generation != chain.generation || wrap.epoch > chain.epoch {
            chain.generation = wrap.generation;
            chain.epoch = wrap.last();
            chain.holders.clear();
            chain.used = false;
        }
        chain.holders.insert(wrap.recipient);
    }

    /// Closes the epoch of each chain of which somebody holds a key who may not open it at `now_s`, or whose own key has changed
    /// (`rekeyed`): the next segment is sealed under the next generation. Returns how many.
    pub fn close_epochs(
        &mut self,
        policy: &VerifiedPolicy,
        rekeyed: &BTreeSet<RecipientId>,
        now_s: u64,
    ) -> usize {
        let mut closed = 0;
        for ((patient, class), chain) in &mut self.chains {
            if chain.holders.is_empty() {
                continue;
            }
            let open: BTreeSet<_> = policy.recipients(patient, *class, now_s).map(|r| r.id).collect();
            if !chain.holders.is_subset(&open) || !chain.holders.is_disjoint(rekeyed) {
                chain.renew();
                closed += 1;
            }
        }
        closed
    }

    /// Has each chain of a lane give its wraps of the present epoch again, before its next segment: a lane has come up whose backlog may
    /// hold them. Once in an epoch: a connection that comes and goes must not raise generations without end.
    pub fn reopen(&mut self, lane: Lane, epoch: u32) {
        if self.reopened.insert(lane, epoch) == Some(epoch) {
            return;
        }
        let of_lane = self.chains.iter_mut().filter(|((_, class), _)| class.lane() == lane);
        for (_, chain) in of_lane.filter(|(_, chain)| chain.epoch >= epoch && !chain.holders.is_empty()) {
            chain.reopens = true;
        }
    }

    /// Notes that a gap record told a range.
    pub fn told(&mut self, key: (PatientId, DataClass), first: u64, last: u64) {
        if let Some(ranges) = self.untold.get_mut(&key) {
            ranges.retain(|range| range.0 < first || last < range.1);
            if ranges.is_empty() {
                self.untold.remove(&key);
            }
        }
    }

    /// Moves every chain on after damage hid records: no sequence number is used twice, and readers are told of the gap.
    pub fn skip_after_damage(&mut self) {
        let keys: Vec<_> = self.chains.iter().map(|(key, chain)| (*key, chain.next)).collect();
        for (key, next) in keys {
            self.lost(key, next, next + SEQUENCE_SKIP - 1);
        }
        for chain in self.chains.values_mut() {
            chain.next += SEQUENCE_SKIP;
            chain.prev = SegmentHash::NONE;
            chain.renew();
        }
        self.damages += 1;
    }

    /// The checkpoint's bytes (CBOR).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        if self.encode_into(&mut e).is_err() {
            unreachable!("writing to memory does not fail");
        }
        e.into_writer()
    }

    fn encode_into(
        &self,
        e: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.array(6)?.u8(VERSION)?.u32(self.damages)?.array(self.chains.len() as u64)?;
        for ((patient, class), chain) in &self.chains {
            e.array(8)?.bytes(&patient.0)?.u8(*class as u8)?.u64(chain.next)?.bytes(&chain.prev.0)?;
            e.u32(chain.generation)?.u32(chain.epoch)?.bool(chain.used)?.array(chain.holders.len() as u64)?;
            for holder in &chain.holders {
                e.bytes(&holder.0)?;
            }
        }
        e.array(self.duplicates.len() as u64)?;
        for (device, stream, window) in self.duplicates.iter() {
            e.array(3)?.str(device.as_str())?.str(stream.as_str())?.array(window.len() as u64)?;
            for fingerprint in window {
                e.u64(fingerprint)?;
            }
        }
        let untold: usize = self.untold.values().map(Vec::len).sum();
        e.array(untold as u64)?;
        for ((patient, class), ranges) in &self.untold {
            for (first, last) in ranges {
                e.array(4)?.bytes(&patient.0)?.u8(*class as u8)?.u64(*first)?.u64(*last)?;
            }
        }
        e.array(self.known_damage.len() as u64)?;
        for (start, end) in &self.known_damage {
            e.array(2)?.u64(*start)?.u64(*end)?;
        }
        Ok(())
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut d = Decoder::new(bytes);
        let state = Self::decode_from(&mut d).map_err(|e| CheckpointError(e.to_string()))?;
        if d.position() != bytes.len() {
            return Err(CheckpointError(format!("bytes follow the end at byte {}", d.position())));
        }
        Ok(state)
    }

    fn decode_from(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        use minicbor::decode::Error;
        let mut state = Self::default();
        let parts = length(d, 4, 6)?;
        let version = d.u8()?;
        let fields = match (version, parts) {
            (VERSION, 6) | (VERSION_UNTOLD, 4) => 8,
            (VERSION_BEFORE, 4) => 7,
            _ => return Err(Error::message("version is not known")),
        };
        state.damages = d.u32()?;
        for _ in 0..length(d, 0, CHAINS_MAX as u64)? {
            length(d, fields, fields)?;
            let patient = PatientId(fixed(d)?);
            let class = DataClass::from_u8(d.u8()?).ok_or_else(|| Error::message("class is not known"))?;
            let mut chain = Chain {
                next: d.u64()?,
                prev: SegmentHash(fixed(d)?),
                generation: d.u32()?,
                epoch: d.u32()?,
                used: version == VERSION_BEFORE || d.bool()?,
                ..Chain::default()
            };
            for _ in 0..length(d, 0, RECIPIENTS_MAX)? {
                chain.holders.insert(RecipientId(fixed(d)?));
            }
            state.chains.insert((patient, class), chain);
        }
        for _ in 0..length(d, 0, STREAMS_MAX as u64)? {
            length(d, 3, 3)?;
            let device = DeviceId::new(d.str()?).map_err(Error::message)?;
            let stream = StreamName::new(d.str()?).map_err(Error::message)?;
            for _ in 0..length(d, 0, WINDOW as u64)? {
                state.duplicates.insert(&device, &stream, d.u64()?);
            }
        }
        if version == VERSION {
            state.decode_gaps(d)?;
        }
        Ok(state)
    }

    fn decode_gaps(&mut self, d: &mut Decoder<'_>) -> Result<(), minicbor::decode::Error> {
        use minicbor::decode::Error;
        for _ in 0..length(d, 0, (CHAINS_MAX * UNTOLD_MAX) as u64)? {
            length(d, 4, 4)?;
            let patient = PatientId(fixed(d)?);
            let class = DataClass::from_u8(d.u8()?).ok_or_else(|| Error::message("class is not known"))?;
            let (first, last) = (d.u64()?, d.u64()?);
            if first > last || last == u64::MAX {
                return Err(Error::message("a range ends before it begins"));
            }
            self.lost((patient, class), first, last);
        }
        for _ in 0..length(d, 0, DAMAGES_MAX as u64)? {
            length(d, 2, 2)?;
            self.known_damage.insert((d.u64()?, d.u64()?));
        }
        Ok(())
    }
}

fn length(d: &mut Decoder<'_>, min: u64, max: u64) -> Result<u64, minicbor::decode::Error> {
    match d.array()? {
        Some(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(minicbor::decode::Error::message("array length out of bounds").at(d.position())),
    }
}

fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], minicbor::decode::Error> {
    let at = d.position();
    d.bytes()?.try_into().map_err(|_length| minicbor::decode::Error::message("byte string length").at(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spool::Limits;

    fn state() -> State {
        let mut state = State { damages: 3, ..State::default() };
        let chain = Chain {
            next: 7,
            prev: SegmentHash([3; 32]),
            generation: 1,
            epoch: 29_000_000,
            holders: [RecipientId([5; 20])].into(),
            used: true,
            reopens: false,
        };
        state.chains.insert((PatientId([1; 16]), DataClass::Waveform), chain);
        state.lost((PatientId([1; 16]), DataClass::Waveform), 2, 4);
        state.known_damage.insert((5, 6));
        let stream = StreamName::new("ecg-ii").unwrap();
        for fingerprint in [9, 8, 7] {
            state.duplicates.insert(&DeviceId::new("monitor-1").unwrap(), &stream, fingerprint);
        }
        state
    }

    #[test]
    fn a_checkpoint_comes_back_whole() {
        let decoded = State::decode(&state().encode()).unwrap();
        assert_eq!((decoded.damages, &decoded.chains), (3, &state().chains));
        assert_eq!((&decoded.untold, &decoded.known_damage), (&state().untold, &state().known_damage));
        let windows =
            |s: &State| -> Vec<Vec<u64>> { s.duplicates.iter().map(|(_, _, w)| w.collect()).collect() };
        assert_eq!(windows(&decoded), windows(&state()));
    }

    #[test]
    fn checkpoints_of_the_versions_before_are_read() {
        let plain = State { untold: BTreeMap::new(), known_damage: BTreeSet::new(), ..state() };
        let mut bytes = plain.encode();
        // [version, damages, [[patient, class, next, prev, generation, epoch, used, holders]], …, [], []]
        assert_eq!(
            (&bytes[..5], &bytes[bytes.len() - 2..]),
            (&[0x86, 4, 3, 0x81, 0x88][..], &[0x80, 0x80][..])
        );
        bytes.truncate(bytes.len() - 2);
        (bytes[0], bytes[1]) = (0x84, 3);
        assert_eq!(State::decode(&bytes).unwrap().chains, plain.chains);
        let used = bytes.iter().position(|byte| *byte == 0xf5).unwrap();
        (bytes[1], bytes[4]) = (2, 0x87);
        bytes.remove(used);
        assert_eq!(State::decode(&bytes).unwrap().chains, state().chains);
        bytes[1] = 1;
        assert!(State::decode(&bytes).is_err());
    }

    #[test]
    fn every_truncation_of_a_checkpoint_is_refused() {
        let bytes = state().encode();
        for end in 0..bytes.len() {
            assert!(State::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn what_is_sealed_is_never_dated_before_what_has_passed() {
        const CHAIN: u32 = 29_000_000;
        let at_us = |epoch: u32| i64::from(epoch) * EPOCH_S * 1_000_000;
        let at_s = |epoch: u32| u64::from(epoch) * EPOCH_S.unsigned_abs();
        let mut state = state();
        let hour_ago = at_us(CHAIN - 60);
        assert_eq!(state.sealing_us(hour_ago), hour_ago, "nothing is known yet");
        // What was written down lags by two minutes, and the spool knows of those.
        state.look_at_clock(hour_ago, at_s(CHAIN - 2));
        assert_eq!(state.sealing_us(hour_ago + 7), at_us(CHAIN));
        assert_eq!(state.past_us(hour_ago + 7), at_us(CHAIN - 2) + 7);
        assert_eq!(state.sealing_us(hour_ago + 3 * at_us(1)), at_us(CHAIN + 1), "it goes on from there");
        // A chain that is further ahead was sealed by a clock that was, or the gateway was off since: nobody knows.
        state.look_at_clock(hour_ago, at_s(CHAIN - 4));
        assert_eq!(state.sealing_us(hour_ago), at_us(CHAIN - 4));
        state.look_at_clock(-5, at_s(CHAIN + 9));
        assert_eq!(state.sealing_us(-5), at_us(CHAIN + 9), "a machine that wakes up before 1970");
        // Clocks differ.
        state.look_at_clock(hour_ago, at_s(CHAIN - 59));
        assert_eq!(state.sealing_us(hour_ago), hour_ago);
        state.look_at_clock(at_us(CHAIN + 5), at_s(CHAIN));
        assert_eq!(state.sealing_us(at_us(CHAIN + 5)), at_us(CHAIN + 5));
    }

    #[test]
    fn damage_moves_every_chain_on() {
        let mut state = state();
        state.skip_after_damage();
        let chain = state.chains.values().next().unwrap();
        assert_eq!((chain.next, chain.generation), (7 + SEQUENCE_SKIP, 2));
        assert_eq!(chain.prev, SegmentHash::NONE);
        let key = (PatientId([1; 16]), DataClass::Waveform);
        assert_eq!(state.untold[&key], [(2, 4), (7, 6 + SEQUENCE_SKIP)]);
        state.told(key, 2, 5);
        assert_eq!(state.untold[&key], [(7, 6 + SEQUENCE_SKIP)]);
        for n in 0..3 * UNTOLD_MAX as u64 {
            state.lost(key, 2 * SEQUENCE_SKIP + 3 * n, 2 * SEQUENCE_SKIP + 3 * n);
        }
        let ranges = &state.untold[&key];
        let end = 2 * SEQUENCE_SKIP + 3 * (3 * UNTOLD_MAX as u64 - 1);
        assert_eq!((ranges.len(), ranges.last().map(|range| range.1)), (UNTOLD_MAX, Some(end)));
        // One that the damage may have hidden whole begins beyond what it can have held, three damages before this one.
        let hidden = state.chain(PatientId([9; 16]), DataClass::Alarm);
        assert_eq!((hidden.next, hidden.generation), (4 * SEQUENCE_SKIP, 4));
    }

    #[test]
    fn the_largest_checkpoint_fits_half_a_spool_file() {
        let mut state = State::default();
        for n in 0..CHAINS_MAX {
            // As many grants as there may be; all emergencies are of one patient.
            let count = if n < DataClass::ALL.len() { RECIPIENTS_MAX } else { GRANTS_MAX as u64 };
            let holders = (0..count).map(|r| RecipientId([u8::try_from(r).unwrap(); 20])).collect();
            let chain =
                Chain { next: u64::MAX, generation: u32::MAX, epoch: u32::MAX, holders, ..Chain::default() };
            let patient = PatientId((n as u128 / 5).to_be_bytes());
            state.chains.insert((patient, DataClass::ALL[n % 5]), chain);
        }
        for key in state.chains.keys().copied().collect::<Vec<_>>() {
            (0..UNTOLD_MAX as u64)
                .for_each(|n| state.lost(key, u64::MAX - 100 + 4 * n, u64::MAX - 99 + 4 * n));
        }
        state.known_damage = (0..DAMAGES_MAX as u64).map(|n| (u64::MAX - n, u64::MAX)).collect();
        let name = |n: usize| format!("{n:_<64}");
        for n in 0..STREAMS_MAX {
            for fingerprint in 0..WINDOW as u64 {
                let (device, stream) = (DeviceId::new(&name(n / 32)), StreamName::new(&name(n)));
                state.duplicates.insert(&device.unwrap(), &stream.unwrap(), u64::MAX - fingerprint);
            }
        }
        assert_eq!((state.chains.len(), state.duplicates.len()), (CHAINS_MAX, STREAMS_MAX));
        let (bytes, max) = (state.encode(), Limits::with_budget(1 << 30).checkpoint_bytes_max());
        assert!(bytes.len() <= max, "{} bytes, allowed are {max}", bytes.len());
        assert_eq!(State::decode(&bytes).unwrap().chains, state.chains);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(State::decode(&bytes));
        }
    }
}
