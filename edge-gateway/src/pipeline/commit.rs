//! One group commit.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use caregate_host::kill_point;
use caregate_protocol::alarm::Standing;
use caregate_protocol::id::{DataClass, DeviceId, Lane, PatientId, RecipientId, StreamName};
use caregate_protocol::policy::VerifiedPolicy;
use caregate_protocol::reading::{self, Reading, Value};
use caregate_protocol::record::Record;
use caregate_protocol::search::{TOKENS, Token, Tokens, Word};
use caregate_protocol::wrap::HpkePublicKey;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tracing::{error, warn};

use super::admit::{About, Admission, IMPLAUSIBLE, admit};
use super::chains::{CHAINS_MAX, State};
use super::erase::Walk;
use super::expiry::Expiry;
use super::front::Taken;
use super::heads::Heads;
use super::past::Giving;
use super::seal::{Batch, Sealed, Sealer};
use super::waiting::Waiting;
use crate::hints::Hints;
use crate::ingest::{Inbound, Verdict};
use crate::keys::KeyStore;
use crate::metrics::Metrics;
use crate::policy::{Decider, Now, Proposal};
use crate::spool::{Log, SpoolError, Written};
use crate::watch::Tap;

/// Most readings of one segment: what a busy patient sends within a group commit, with room.
const SEGMENT_READINGS_MAX: usize = 512;
/// Most bytes of readings in one segment, estimated; well below the segment's own limit of 1 MiB.
const SEGMENT_PLAINTEXT_MAX: usize = 256 << 10;
/// How fresh the inventory's "last heard" is kept: a person looks at it, and each note costs sled a write.
const NOTE_EVERY_US: i64 = 5_000_000;
/// What the gateway calls itself, and what its watch says, among devices and streams.
const OWN_DEVICE: &str = "gateway";
const OWN_STREAM: &str = "standing";
/// Estimated CBOR bytes of a reading without its samples.
const READING_BYTES: usize = 160;

/// The gateway can't go on: what it could still acknowledge would not be safe.
#[derive(Debug, Error)]
pub enum CommitError {
    /// The spool could not sync; nothing of the batch was acknowledged.
    #[error("spool: {0}")]
    Spool(#[from] SpoolError),
    /// The key store failed.
    #[error("keys: {0}")]
    Keys(#[from] crate::keys::KeyStoreError),
    /// The system's random source failed.
    #[error("the system gives no random bytes")]
    Random,
}

/// A record that was appended to the spool and waits for the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Where.
    pub position: u64,
    /// Its priority.
    pub lane: Lane,
    /// As in the spool, so that what goes up at once need not be read back.
    pub record: Vec<u8>,
}

/// The spool and all state that must agree with it.
#[derive(Debug)]
pub struct Committer {
    /// The log.
    pub log: Log,
    /// Chains and duplicates.
    pub state: State,
    /// The gateway's keys.
    pub sealer: Sealer,
    /// Patient roots.
    pub keys: KeyStore,
    /// Who may open what.
    pub policy: Decider,
    /// Quarantine and inventory.
    pub hints: Hints,
    /// Counters.
    pub metrics: Metrics,
    /// Salts.
    pub random: SystemRandom,
    /// When each chain's head was last signed.
    pub heads: Heads,
    /// What was last said of each patient's alarms, without its time (SHA-256).
    pub said: BTreeMap<PatientId, [u8; 32]>,
    /// When each device was last noted in the inventory.
    pub noted: BTreeMap<DeviceId, i64>,
    /// To the watch.
    pub tap: Tap,
    /// The operator's age limit, where there is one.
    pub expiry: Option<Expiry>,
    /// What of erased patients is in the spool still; none where nothing is.
    pub walk: Option<Walk>,
    /// The past that is being given.
    pub giving: Option<Giving>,
}

/// Which room of the spool a record may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Its lane's.
    Usual,
    /// Its lane's without the reserve for alarms: it says again what is known, or can be asked for again.
    Unreserved,
    /// Also where the spool is full: it tells a gap, and so makes room.
    Telling,
}

/// A reading on its way, and whose verdict depends on it.
struct Pending {
    inbound: usize,
    /// None where the reading carries nothing by which it could be recognised.
    fingerprint: Option<u64>,
    reading: Reading,
}

/// Readings of one patient and class, for one segment, and who may open it.
struct Chunk<'a> {
    patient: PatientId,
    class: DataClass,
    recipients: &'a [(RecipientId, HpkePublicKey)],
    pending: Vec<Pending>,
    room: Room,
}

/// What a batch comes to.
#[derive(Default)]
struct Sorted {
    /// By lane first: what the disk still holds goes to the highest.
    groups: BTreeMap<(Lane, DataClass, PatientId), Vec<Pending>>,
    /// PUBLISHes (by index) that hold a reading which an earlier one of the batch brought: it shares that one's fate.
    echoes: Vec<(usize, usize)>,
    asides: Vec<Aside>,
}

/// What is noted of a PUBLISH (by index) beside its readings, when the watch has seen all: a disk may hold it up.
enum Aside {
    Heard(usize),
    About(usize, About),
    Quarantine(usize, &'static str, String),
}

impl Committer {
    /// Decides on a proposal. When it is answered, whoever lost access by it holds no key of anything that is sealed afterwards.
    pub fn decide(&mut self, proposal: Proposal, now_us: i64, at: Instant) {
        if let Some(order) = proposal.erasure() {
            let erased = self.erase(order, now_us);
            return proposal.answered(erased);
        }
        let Self { policy, state, metrics, .. } = self;
        proposal.decide(policy, Now { unix_s: seconds(now_us), at }, |decider, rekeyed| {
            close_epochs(state, decider, rekeyed, now_us, metrics);
        });
        // A header tells the time.
        self.state.look_at_clock(now_us, self.policy.past_s(at));
    }

    /// Looks at the clock: access that has ended since closes its epochs. Call about every second.
    pub fn tick(&mut self, now_us: i64, at: Instant) {
        self.tap.offer();
        self.policy.tick(Now { unix_s: seconds(now_us), at });
        self.state.look_at_clock(now_us, self.policy.past_s(at));
        close_epochs(&mut self.state, &self.policy, &BTreeSet::new(), now_us, &self.metrics);
    }

    /// Signs and stores the heads that are due. Call about every second.
    ///
    /// # Errors
    /// [`CommitError`], as for [`Self::commit`].
    pub fn commit_heads(&mut self, now_us: i64) -> Result<Vec<Spooled>, CommitError> {
        let mut spooled = Vec::new();
        for head in self.heads.due(&self.state.chains, now_us) {
            let record = head.sign(&self.sealer.device).to_vec();
            // Where there is no room, the next one says as much.
            spooled.extend(self.append_record(head.class.lane(), record, Room::Unreserved)?);
        }
        if !spooled.is_empty() {
            self.log.sync()?;
            self.metrics.commits.inc();
            if self.log.rotation_due() {
                self.rotate()?;
            }
        }
        Ok(spooled)
    }

    /// Stores a batch: after it returns, each PUBLISH has its verdict, and those that say `Stored` are durable.
    ///
    /// # Errors
    /// [`CommitError`]: nothing was acknowledged, and the process must restart from what is on disk.
    pub fn commit(
        &mut self,
        batch: Vec<Inbound>,
        policy: &VerifiedPolicy,
        now_us: i64,
    ) -> Result<Vec<Spooled>, CommitError> {
        let (spooled, waiting) = self.prepare(Taken { batch, shown: Vec::new() }, policy, now_us)?;
        self.log.sync()?;
        waiting.answer(&self.metrics);
        if self.log.rotation_due() {
            self.rotate()?;
        }
        Ok(spooled)
    }

    /// Seals a batch and appends it. It is not durable yet: what was appended may go up as that and no more, and the batch waits for the
    /// log's word.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn prepare(
        &mut self,
        taken: Taken,
        policy: &VerifiedPolicy,
        now_us: i64,
    ) -> Result<(Vec<Spooled>, Waiting), CommitError> {
        kill_point::pass("commit.gathered");
        let mut verdicts = vec![Verdict::Stored; taken.batch.len()];
        let Sorted { groups, echoes, asides } = self.sort(&taken, policy, &mut verdicts);
        let batch = taken.batch;
        asides.into_iter().for_each(|aside| self.note(&batch, aside));
        kill_point::pass("commit.sorted");
        let mut spooled = Vec::new();
        let bytes_max = SEGMENT_PLAINTEXT_MAX.min(self.log.limits().record_bytes_max() / 2);
        for ((_, class, patient), pending) in groups {
            let recipients: Vec<_> = policy
                .recipients(&patient, class, seconds(now_us))
                .map(|r| (r.id, HpkePublicKey(r.hpke_public_key)))
                .collect();
            for pending in chunks(pending, bytes_max) {
                let inbounds: Vec<usize> = pending.iter().map(|p| p.inbound).collect();
                let room = Room::Usual;
                let chunk = Chunk { patient, class, recipients: &recipients, pending, room };
                if !self.append(chunk, now_us, &mut spooled)? {
                    inbounds.into_iter().for_each(|i| verdicts[i] = Verdict::Refused);
                }
            }
        }
        for (echo, first) in echoes {
            if verdicts[first] == Verdict::Refused {
                verdicts[echo] = Verdict::Refused;
            }
        }
        if !spooled.is_empty() {
            kill_point::pass("commit.appended");
            self.keys.audit().note_wraps(now_us);
            self.metrics.commits.inc();
        }
        self.metrics.batch_publishes.observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        // Also where all of it was known before: what it repeats may be on its way to the disk still.
        let below = self.log.next();
        self.tap.flush(below);
        Ok((spooled, Waiting::new(below, batch, verdicts, &self.metrics)))
    }

    /// Seals what the watch says, each by itself, and appends it. It is durable by the log's next sync.
    ///
    /// # Errors
    /// [`CommitError`], as for [`Self::commit`].
    pub fn append_standings(
        &mut self,
        standings: Vec<(PatientId, Standing)>,
        policy: &VerifiedPolicy,
        now_us: i64,
    ) -> Result<Vec<Spooled>, CommitError> {
        let mut spooled = Vec::new();
        for (patient, standing) in standings {
            let recipients: Vec<_> = policy
                .recipients(&patient, DataClass::Alarm, seconds(now_us))
                .map(|r| (r.id, HpkePublicKey(r.hpke_public_key)))
                .collect();
            let words = Word::of(&standing);
            let print = said(&standing);
            // What was said a minute ago takes no room from an alarm that comes.
            let room = if self.said.get(&patient) == Some(&print) { Room::Unreserved } else { Room::Usual };
            let pending = vec![Pending { inbound: 0, fingerprint: None, reading: own(standing) }];
            let chunk = Chunk { patient, class: DataClass::Alarm, recipients: &recipients, pending, room };
            // Where there is no room it is counted, and said again within a minute.
            if self.append(chunk, now_us, &mut spooled)? {
                self.said.insert(patient, print);
                spooled.extend(self.append_tokens(patient, DataClass::Alarm, (&words, room))?);
            }
        }
        if !spooled.is_empty() {
            self.keys.audit().note_wraps(now_us);
            self.metrics.commits.inc();
        }
        Ok(spooled)
    }

    /// Begins a new file. Returns whether there was room for one; without, the present file goes on.
    pub(super) fn rotate(&mut self) -> Result<bool, CommitError> {
        kill_point::pass("commit.rotating");
        match self.log.rotate(&self.state.encode()) {
            Ok(()) => {
                kill_point::pass("commit.rotated");
                Ok(true)
            }
            Err(SpoolError::NoSpace { path, source }) => {
                warn!(path = %path.display(), error = %source, "no room for another spool file");
                self.metrics.refused.with_label_values(&["no_space"]).inc();
                Ok(false)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Appends a record; begins a new file where the batch has outgrown the present one. `None` where there is no room.
    pub(super) fn append_record(
        &mut self,
        lane: Lane,
        record: Vec<u8>,
        room: Room,
    ) -> Result<Option<Spooled>, CommitError> {
        let append = match room {
            Room::Usual => Log::append,
            Room::Unreserved => Log::append_unreserved,
            Room::Telling => Log::append_telling,
        };
        let mut appended = append(&mut self.log, lane, &record);
        if matches!(appended, Err(SpoolError::BatchFull)) {
            self.log.sync()?;
            if !self.rotate()? {
                return Ok(None);
            }
            appended = append(&mut self.log, lane, &record);
        }
        match appended {
            Ok(position) => Ok(Some(Spooled { position: position.0, lane, record })),
            Err(SpoolError::Full { .. }) => {
                self.metrics.refused.with_label_values(&["spool_full"]).inc();
                Ok(None)
            }
            // Refused like any other: its sender repeats it, and a gateway that ended at it would end at it again.
            Err(SpoolError::Oversized { .. }) => {
                self.metrics.refused.with_label_values(&["oversized"]).inc();
                Ok(None)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Sorts what came in by class and patient; decides on everything that is not to be sealed.
    fn sort(&mut self, taken: &Taken, policy: &VerifiedPolicy, verdicts: &mut [Verdict]) -> Sorted {
        let mut sorted = Sorted::default();
        let mut seen = HashMap::new();
        for (inbound, publish) in taken.batch.iter().enumerate() {
            match admit(publish, policy) {
                Admission::Readings(patient, _) if self.keys.is_erased(patient) => {
                    self.metrics.refused.with_label_values(&["erased"]).inc();
                    verdicts[inbound] = Verdict::Refused;
                }
                Admission::Readings(patient, readings) => {
                    if self.is_news(&publish.device, publish.received_us) {
                        sorted.asides.push(Aside::Heard(inbound));
                    }
                    for (class, reading) in readings {
                        let fingerprint = reading::fingerprint(&reading);
                        if let Some(print) = fingerprint {
                            if self.state.duplicates.contains(&reading.device, &reading.stream, print) {
                                self.metrics.duplicates.inc();
                                continue;
                            }
                            // It is of device and stream too.
                            match seen.entry(print) {
                                Entry::Vacant(slot) => *slot.insert(inbound),
                                Entry::Occupied(first) => {
                                    self.metrics.duplicates.inc();
                                    sorted.echoes.push((inbound, *first.get()));
                                    continue;
                                }
                            };
                        }
                        if taken.is_shown(inbound, patient) {
                            self.tap.again();
                        } else {
                            self.tap.reading(patient, class, &reading);
                        }
                        let group = sorted.groups.entry((class.lane(), class, patient)).or_default();
                        group.push(Pending { inbound, fingerprint, reading });
                    }
                }
                Admission::About(about) => sorted.asides.push(Aside::About(inbound, about)),
                Admission::Quarantine(fault, reason, detail) => {
                    if reason == IMPLAUSIBLE
                        && let Some(patient) = policy.patient_of(&publish.device)
                        && !taken.is_shown(inbound, patient)
                    {
                        self.tap.implausible(patient, &publish.device);
                    }
                    sorted.asides.push(Aside::Quarantine(inbound, reason, detail));
                    verdicts[inbound] = Verdict::Quarantined(fault);
                }
            }
        }
        sorted
    }

    /// Whether the inventory is to be told of a device, which it is at most every [`NOTE_EVERY_US`]. As many entries as the policy binds devices.
    fn is_news(&mut self, device: &DeviceId, now_us: i64) -> bool {
        let last = self.noted.get(device).copied().unwrap_or(i64::MIN);
        let is_news = now_us.saturating_sub(last) >= NOTE_EVERY_US;
        if is_news {
            self.noted.insert(device.clone(), now_us);
        }
        is_news
    }

    fn note(&self, batch: &[Inbound], aside: Aside) {
        match aside {
            Aside::Heard(at) => self.hints.heard(&batch[at].device, batch[at].received_us),
            Aside::About(at, about) => {
                self.hints.about(&batch[at].device, about == About::Status, &batch[at].payload);
            }
            Aside::Quarantine(at, reason, detail) => {
                self.metrics.quarantined.with_label_values(&[reason]).inc();
                self.hints.quarantine(&batch[at], reason, &detail);
            }
        }
    }

    /// Publishes the spool's figures.
    pub fn observe(&self) {
        let spool = &self.metrics.spool;
        spool.bytes.set(i64::try_from(self.log.bytes()).unwrap_or(i64::MAX));
        let Written { framed_bytes, written_bytes } = self.log.written();
        for (counter, bytes) in [(&spool.framed, framed_bytes), (&spool.written, written_bytes)] {
            counter.inc_by(bytes.saturating_sub(counter.get()));
        }
    }

    /// Seals one chunk and appends it. False where the spool has no room for it. `spooled` takes what was appended, in
    /// either case.
    fn append(
        &mut self,
        chunk: Chunk<'_>,
        now_us: i64,
        spooled: &mut Vec<Spooled>,
    ) -> Result<bool, CommitError> {
        let Chunk { patient, class, recipients, pending, room } = chunk;
        if self.state.chains.len() >= CHAINS_MAX && !self.state.chains.contains_key(&(patient, class)) {
            self.metrics.refused.with_label_values(&["chains"]).inc();
            return Ok(false);
        }
        if self.keys.is_erased(patient) {
            self.metrics.refused.with_label_values(&["erased"]).inc();
            return Ok(false);
        }
        let root = self.keys.root(patient)?;
        let mut salt = [0; 16];
        self.random.fill(&mut salt).map_err(|_unspecified| CommitError::Random)?;
        let (prints, readings): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|p| (p.fingerprint, p.reading)).unzip();
        let now_us = self.state.sealing_us(now_us);
        let batch = Batch { patient, class, readings: &readings, recipients, now_us, salt };
        let chain = self.state.chain(patient, class);
        if let Some((first, last)) = self.state.hidden(patient, class) {
            self.state.lost((patient, class), first, last);
        }
        let sealed = match self.sealer.seal(&root, &chain, &batch) {
            Ok(sealed) => sealed,
            Err(failure) => {
                error!(%failure, "a batch could not be sealed");
                self.metrics.refused.with_label_values(&["seal"]).inc();
                return Ok(false);
            }
        };
        kill_point::pass("commit.sealed");
        self.keys.note_generation((patient, class), sealed.chain.generation, sealed.chain.epoch)?;
        // Once an epoch, not with each segment of it.
        if (sealed.chain.generation, sealed.chain.epoch) != (chain.generation, chain.epoch) {
            self.note_unwrapped(&sealed);
        }
        for record in sealed.records {
            // Wraps before a segment that did not fit are as good as any: they go up, and need not be made again.
            let Some(appended) = self.append_record(class.lane(), record, room)? else { return Ok(false) };
            kill_point::pass("commit.record-appended");
            if let Ok(Record::Wrap(wrap)) = Record::decode(&appended.record) {
                self.state.replay_wrap(&wrap);
                self.keys.audit().wrapped(&wrap);
                kill_point::pass("commit.wrap-appended");
            }
            spooled.push(appended);
        }
        self.state.chains.insert((patient, class), sealed.chain);
        for (fingerprint, reading) in prints.into_iter().zip(&readings) {
            if let Some(print) = fingerprint {
                self.state.duplicates.insert(&reading.device, &reading.stream, print);
            }
        }
        self.metrics.readings.with_label_values(&[class.as_str()]).inc_by(readings.len() as u64);
        self.metrics.segments.with_label_values(&[class.as_str()]).inc();
        Ok(true)
    }

    /// What the segment that was sealed last can be found by. Of standings alone: they are few, and what somebody searches for; a
    /// signature for each segment of every sensor would cost as much as sealing it, and say how often values repeat.
    fn append_tokens(
        &mut self,
        patient: PatientId,
        class: DataClass,
        (words, room): (&[Word], Room),
    ) -> Result<Option<Spooled>, CommitError> {
        let mut random = [Token([0; 16]); TOKENS];
        for token in &mut random {
            self.random.fill(&mut token.0).map_err(|_unspecified| CommitError::Random)?;
        }
        let (root, chain) = (self.keys.root(patient)?, self.state.chain(patient, class));
        let Some(sequence) = chain.next.checked_sub(1) else { return Ok(None) };
        let (generation, epoch) = (chain.generation, chain.epoch);
        let Some(key) = root.class_key(class, generation).epoch_key(epoch) else { return Ok(None) };
        let words = words.iter().map(|word| word.token(&key, patient, class));
        let tokens = Tokens::fill(words, random);
        let tokens = Tokens { class, patient, generation, epoch, sequence, tokens };
        self.append_record(class.lane(), tokens.sign(&self.sealer.device).to_vec(), room)
    }

    fn note_unwrapped(&self, sealed: &Sealed) {
        for (_, failure) in &sealed.unwrapped {
            warn!(%failure, "a recipient's key is unusable; it gets no wrap");
            self.metrics.refused.with_label_values(&["recipient_key"]).inc();
        }
    }
}

fn close_epochs(
    state: &mut State,
    decider: &Decider,
    rekeyed: &BTreeSet<RecipientId>,
    now_us: i64,
    metrics: &Metrics,
) {
    let Some(policy) = decider.policy() else { return };
    let closed = state.close_epochs(policy, rekeyed, seconds(now_us));
    metrics.policy.epochs_closed.inc_by(closed as u64);
}

/// What a standing says, whenever it says it.
fn said(standing: &Standing) -> [u8; 32] {
    let bytes = Standing { at_us: 0, ..standing.clone() }.encode();
    let mut print = [0; 32];
    print.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
    print
}

/// A standing as a reading of the gateway's own.
fn own(standing: Standing) -> Reading {
    let (Ok(device), Ok(stream)) = (DeviceId::new(OWN_DEVICE), StreamName::new(OWN_STREAM)) else {
        unreachable!("good names")
    };
    Reading {
        device,
        stream,
        seq: None,
        sensor_time_us: None,
        gateway_time_us: standing.at_us,
        flags: 0,
        value: Value::Standing(Box::new(standing)),
    }
}

/// Unix time in seconds; before 1970 it is 0.
pub(super) fn seconds(now_us: i64) -> u64 {
    u64::try_from(now_us / 1_000_000).unwrap_or(0)
}

/// Cuts a group into what one segment holds.
fn chunks(pending: Vec<Pending>, bytes_max: usize) -> Vec<Vec<Pending>> {
    let mut chunks: Vec<Vec<Pending>> = Vec::new();
    let mut bytes = usize::MAX;
    for p in pending {
        let samples = match &p.reading.value {
            Value::Waveform { samples, .. } => samples.len() * 2,
            Value::Numeric { .. } | Value::Event { .. } | Value::Standing(_) => 0,
        };
        let size = READING_BYTES + samples;
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < SEGMENT_READINGS_MAX && bytes + size <= bytes_max => {
                bytes += size;
                chunk.push(p);
            }
            _ => {
                bytes = size;
                chunks.push(vec![p]);
            }
        }
    }
    chunks
}
