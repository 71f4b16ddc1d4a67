//! Opens what this domain may read: wraps give epoch keys, epoch keys open segments, chains say whether all came. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use caregate_protocol::alarm::Standing;
use caregate_protocol::erasure::{self, ErasureError, RequestHash, SignedErasure};
use caregate_protocol::gap::Missing;
use caregate_protocol::id::{DataClass, PatientId, RecipientId, SignerId};
use caregate_protocol::key::{EpochKey, TREE_DEPTH, TreeNode};
use caregate_protocol::reading::{self, Reading, Value};
use caregate_protocol::record::{Record, RecordError};
use caregate_protocol::search::{Token, Word};
use caregate_protocol::segment::{Header, Segment, signer_id};
use caregate_protocol::uplink::TOKENS_ASKED_MAX;
use caregate_protocol::wrap::{HpkePrivateKey, Wrap};
use ed25519_dalek::VerifyingKey;
use thiserror::Error;

use crate::chain::{Chain, Link};
use crate::search::Inquiry;

/// Epoch keys kept: a day of 64 patients with two classes each, at one a minute; the oldest go first.
const NODES_MAX: usize = 200_000;
/// Bytes of segments that wait for their wrap. They come only where live runs ahead of history, for at most an epoch.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Erased patients remembered: as many as a core of 10,000 patients has in years; the lowest are forgotten beyond it. The core shows
/// nothing of them anyhow: this is for what was on its way.
const ERASED_MAX: usize = 65_536;

/// Why a record was not taken.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It does not parse, verify or open.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A request for erasure that does not parse or verify.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// No gateway with this key is known here.
    #[error("signed by an unknown gateway")]
    UnknownSigner,
    /// Search tokens, which the core delivers to nobody.
    #[error("search tokens in a queue")]
    Tokens,
    /// A wrap for somebody else.
    #[error("wrap for another recipient")]
    OtherRecipient,
    /// It contradicts its neighbours in the chain.
    #[error("segment does not fit its chain")]
    BrokenChain,
    /// The plaintext is no list of readings.
    #[error("readings: {0}")]
    Readings(#[from] reading::ReadingError),
    /// Too many segments wait for their wraps; this one was dropped and will come again with the next start.
    #[error("too many segments wait for their wraps")]
    TooManyWaiting,
    /// The header announces another number of readings than were sealed.
    #[error("header announces {announced} readings, {sealed} were sealed")]
    Count {
        /// By the header.
        announced: u64,
        /// Found inside.
        sealed: usize,
    },
}

impl OpenError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Record(e) => e.reason(),
            Self::Erasure(e) => e.reason(),
            Self::UnknownSigner => "signer",
            Self::Tokens => "tokens",
            Self::OtherRecipient => "recipient",
            Self::BrokenChain => "chain",
            Self::Readings(_) => "readings",
            Self::TooManyWaiting => "waiting",
            Self::Count { .. } => "count",
        }
    }
}

impl From<caregate_protocol::segment::SegmentError> for OpenError {
    fn from(error: caregate_protocol::segment::SegmentError) -> Self {
        Self::Record(error.into())
    }
}

impl From<caregate_protocol::wrap::WrapError> for OpenError {
    fn from(error: caregate_protocol::wrap::WrapError) -> Self {
        Self::Record(error.into())
    }
}

/// An opened segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// Whose.
    pub patient: PatientId,
    /// Which class.
    pub class: DataClass,
    /// Its number in the chain.
    pub sequence: u64,
    /// What was inside, but for standings.
    pub readings: Vec<Reading>,
    /// What the gateway's watch says.
    pub standings: Vec<Standing>,
    /// Which gateway signed it.
    pub signer: SignerId,
    /// When it was sealed, Unix microseconds by the gateway's clock.
    pub sealed_us: i64,
}

/// What came of one record.
#[derive(Debug, Default)]
#[must_use]
pub struct Taken {
    /// The segments that it opened.
    pub opened: Vec<Opened>,
    /// What it opened that the core has not synced yet, and that did not come otherwise.
    pub provisional: Option<Opened>,
    /// The chain of which it was a head.
    pub head: Option<(PatientId, DataClass)>,
    /// The chain of which it told a gap, and which.
    pub gap: Option<((PatientId, DataClass), Missing)>,
    /// The patient of whom nothing may stay, and the request that says so.
    pub erased: Option<(PatientId, RequestHash)>,
    /// One for each segment, or for the record, that was not taken.
    pub refused: Vec<OpenError>,
}

impl Taken {
    fn note(&mut self, outcome: Result<Option<Opened>, OpenError>) {
        match outcome {
            Ok(opened) => self.opened.extend(opened),
            Err(error) => self.refused.push(error),
        }
    }
}

/// How a chain stands after a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainState {
    /// Highest verified sequence.
    pub verified: u64,
    /// Lowest missing range of which the gateway has said nothing.
    pub gap: Option<(u64, u64)>,
    /// The newest range of which it said that it is missing.
    pub told: Option<Missing>,
}

type NodeKey = (PatientId, DataClass, u32);

/// The state of one domain's opening.
pub struct Opener {
    recipient: RecipientId,
    private_key: HpkePrivateKey,
    gateways: HashMap<SignerId, VerifyingKey>,
    nodes: BTreeMap<(NodeKey, u32), TreeNode>,
    ages: VecDeque<(NodeKey, u32)>,
    chains: BTreeMap<(PatientId, DataClass), Chain>,
    waiting: BTreeMap<(NodeKey, u32), Vec<Vec<u8>>>,
    waiting_bytes: usize,
    erased: BTreeSet<PatientId>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl Opener {
    /// Opens for `recipient` what `gateways` signed.
    #[must_use]
    pub fn new(
        recipient: RecipientId,
        private_key: HpkePrivateKey,
        gateways: impl IntoIterator<Item = VerifyingKey>,
    ) -> Self {
        Self {
            recipient,
            private_key,
            gateways: gateways.into_iter().map(|key| (signer_id(&key), key)).collect(),
            nodes: BTreeMap::new(),
            ages: VecDeque::new(),
            chains: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            erased: BTreeSet::new(),
        }
    }

    /// Takes one record of the queue. Returns what it opened: a segment opens itself, a wrap the segments that waited for
    /// it. Each of those stands for itself: one that is refused keeps none of the others back, and waits no longer.
    pub fn take(&mut self, bytes: &[u8]) -> Taken {
        let mut taken = Taken::default();
        if let Err(error) = self.take_record(bytes, &mut taken) {
            taken.refused.push(error);
        }
        taken
    }

    /// Takes a live record that the core has not synced. A segment is opened and changes no chain: it counts when it comes by the queue.
    /// What has no key yet is let go, for the same reason.
    pub fn preview(&mut self, bytes: &[u8]) -> Taken {
        let mut taken = Taken::default();
        if let Err(error) = self.preview_record(bytes, &mut taken) {
            taken.refused.push(error);
        }
        taken
    }

    fn preview_record(&mut self, bytes: &[u8], taken: &mut Taken) -> Result<(), OpenError> {
        let record = Record::decode(bytes)?;
        let gateway = *self.gateways.get(&record.signer()).ok_or(OpenError::UnknownSigner)?;
        if self.erased.contains(&record.patient()) {
            return Ok(());
        }
        match record {
            Record::Wrap(wrap) => {
                wrap.verify(&gateway)?;
                self.take_wrap(&wrap, &gateway, taken)
            }
            Record::Segment(segment) => {
                let h = &segment.header;
                let chain = self.chains.get(&(h.patient, h.class));
                let has_come = chain.is_some_and(|chain| chain.has(h.sequence));
                let key = self.epoch_key((h.patient, h.class, h.generation), h.epoch);
                let Some(epoch_key) = key.filter(|_| !has_come) else { return Ok(()) };
                segment.verify(&gateway)?;
                taken.provisional = Some(opened(h, open(&segment, &epoch_key)?));
                Ok(())
            }
            // They say how whole a chain is, which is the queue's matter.
            Record::Head(_) | Record::Gap(_) | Record::Tokens(_) => Ok(()),
        }
    }

    fn take_record(&mut self, bytes: &[u8], taken: &mut Taken) -> Result<(), OpenError> {
        if bytes.starts_with(&erasure::MAGIC) {
            taken.erased = Some(self.take_erasure(bytes)?);
            return Ok(());
        }
        let record = Record::decode(bytes)?;
        let gateway = *self.gateways.get(&record.signer()).ok_or(OpenError::UnknownSigner)?;
        // A request for erasure goes before what is of the past and was sent before it.
        if self.erased.contains(&record.patient()) {
            return Ok(());
        }
        match record {
            Record::Wrap(wrap) => {
                wrap.verify(&gateway)?;
                self.take_wrap(&wrap, &gateway, taken)
            }
            Record::Head(signed) => {
                signed.verify(&gateway).map_err(RecordError::from)?;
                let chain = self.chains.entry((signed.head.patient, signed.head.class)).or_default();
                if chain.end(signed.head.next, signed.head.last, signed.head.made_us) {
                    taken.head = Some((signed.head.patient, signed.head.class));
                    Ok(())
                } else {
                    Err(OpenError::BrokenChain)
                }
            }
            Record::Gap(signed) => {
                signed.verify(&gateway).map_err(RecordError::from)?;
                let key = (signed.gap.patient, signed.gap.class);
                if self.chains.entry(key).or_default().tell(signed.gap.missing) {
                    taken.gap = Some((key, signed.gap.missing));
                    Ok(())
                } else {
                    Err(OpenError::BrokenChain)
                }
            }
            Record::Tokens(_) => Err(OpenError::Tokens),
            Record::Segment(segment) => {
                segment.verify(&gateway)?;
                taken.note(self.take_segment(&segment, bytes));
                Ok(())
            }
        }
    }

    /// Forgets a patient: keys, chains, and what waits for its keys.
    fn take_erasure(&mut self, bytes: &[u8]) -> Result<(PatientId, RequestHash), OpenError> {
        let signed = SignedErasure::decode(bytes)?;
        let gateway = self.gateways.get(&signed.signer).ok_or(OpenError::UnknownSigner)?;
        signed.verify(gateway)?;
        let patient = signed.erasure.patient;
        self.nodes.retain(|((of, ..), _), _| *of != patient);
        self.ages.retain(|((of, ..), _)| *of != patient);
        self.chains.retain(|(of, _), _| *of != patient);
        let mut freed = 0;
        self.waiting.retain(|((of, ..), _), segments| {
            let stays = *of != patient;
            freed += if stays { 0 } else { segments.iter().map(Vec::len).sum() };
            stays
        });
        self.waiting_bytes -= freed;
        self.erased.insert(patient);
        if self.erased.len() > ERASED_MAX {
            self.erased.pop_first();
        }
        Ok((patient, signed.hash()))
    }

    fn take_wrap(&mut self, wrap: &Wrap, gateway: &VerifyingKey, taken: &mut Taken) -> Result<(), OpenError> {
        if wrap.recipient != self.recipient {
            return Err(OpenError::OtherRecipient);
        }
        let node = wrap.open(&self.private_key, gateway)?;
        let key = (wrap.patient, wrap.class, wrap.generation);
        let (first, last) = (node.first(), node.last());
        match self.nodes.entry((key, first)) {
            Entry::Vacant(slot) => {
                slot.insert(node);
                self.ages.push_back((key, first));
            }
            // Of two that begin together, the one that opens more.
            Entry::Occupied(mut slot) if slot.get().depth() > node.depth() => {
                slot.insert(node);
            }
            Entry::Occupied(_) => {}
        }
        if self.nodes.len() > NODES_MAX
            && let Some(oldest) = self.ages.pop_front()
        {
            self.nodes.remove(&oldest);
        }
        let ready: Vec<_> = self.waiting.range((key, first)..=(key, last)).map(|(at, _)| *at).collect();
        for at in ready {
            for bytes in self.waiting.remove(&at).unwrap_or_default() {
                self.waiting_bytes -= bytes.len();
                // Its signature was verified when it came.
                let segment = Segment::decode(&bytes).map_err(OpenError::from);
                taken.note(segment.and_then(|segment| self.take_segment(&segment, &bytes)));
            }
        }
        Ok(())
    }

    fn take_segment(&mut self, segment: &Segment<'_>, bytes: &[u8]) -> Result<Option<Opened>, OpenError> {
        let h = &segment.header;
        let key = (h.patient, h.class, h.generation);
        let Some(epoch_key) = self.epoch_key(key, h.epoch) else {
            if self.waiting_bytes + bytes.len() > WAITING_BYTES_MAX {
                return Err(OpenError::TooManyWaiting);
            }
            self.waiting_bytes += bytes.len();
            self.waiting.entry((key, h.epoch)).or_default().push(bytes.to_vec());
            return Ok(None);
        };
        let readings = open(segment, &epoch_key)?;
        let chain = self.chains.entry((h.patient, h.class)).or_default();
        match chain.link(h.sequence, h.prev, segment.hash()) {
            Link::New => Ok(Some(opened(h, readings))),
            Link::Duplicate => Ok(None),
            Link::Broken => Err(OpenError::BrokenChain),
        }
    }

    /// The lowest node above the epoch opens it, where there is one: those of a past may lie above such as came live.
    fn epoch_key(&self, key: NodeKey, epoch: u32) -> Option<EpochKey> {
        let first = |depth: u8| epoch & !u32::MAX.checked_shr(u32::from(depth)).unwrap_or(0);
        let above = (0..=TREE_DEPTH).rev().filter_map(|depth| self.nodes.get(&(key, first(depth))));
        above.into_iter().find_map(|node| node.epoch_key(epoch))
    }

    /// Answers who searches.
    pub fn answer(&self, question: Inquiry) {
        match question {
            Inquiry::Tokens { patient, word, epochs, answer } => {
                // Who does not wait any more needs no answer.
                drop(answer.send(self.tokens(patient, word, epochs)));
            }
            Inquiry::Open { records, answer } => {
                let opened = records.iter().filter_map(|record| self.peek(record)).collect();
                drop(answer.send(opened));
            }
        }
    }

    /// The word's tokens in those epochs whose keys are here; one more than may be asked for, where there are more.
    fn tokens(&self, patient: PatientId, word: Word, (first, last): (u32, u32)) -> Vec<Token> {
        let class = DataClass::Alarm;
        let all = ((patient, class, 0), 0)..=((patient, class, u32::MAX), u32::MAX);
        let mut tokens = Vec::new();
        // Of each generation as far as its epochs are done: nodes may lie below each other.
        let mut done: Option<(u32, u32)> = None;
        for (((_, _, generation), _), node) in
            self.nodes.range(all).map(|((key, at), node)| ((*key, at), node))
        {
            let next =
                done.filter(|(of, _)| *of == generation).map_or(0, |(_, epoch)| epoch.saturating_add(1));
            for epoch in node.first().max(first).max(next)..=node.last().min(last) {
                tokens.extend(node.epoch_key(epoch).map(|key| word.token(&key, patient, class)));
                done = Some((generation, epoch));
                if tokens.len() > TOKENS_ASKED_MAX {
                    return tokens;
                }
            }
        }
        tokens
    }

    /// Opens a segment and notes it nowhere; none where it is not a known gateway's, or not for us.
    fn peek(&self, bytes: &[u8]) -> Option<Opened> {
        let Ok(Record::Segment(segment)) = Record::decode(bytes) else { return None };
        segment.verify(self.gateways.get(&segment.header.signer)?).ok()?;
        let h = &segment.header;
        let key = self.epoch_key((h.patient, h.class, h.generation), h.epoch)?;
        Some(opened(h, open(&segment, &key).ok()?))
    }

    /// How a chain stands.
    #[must_use]
    pub fn chain(&self, patient: PatientId, class: DataClass) -> Option<ChainState> {
        let chain = self.chains.get(&(patient, class))?;
        Some(ChainState { verified: chain.verified()?, gap: chain.gap(), told: chain.told() })
    }

    /// Segments that wait for their wrap, in bytes.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }
}

fn open(segment: &Segment<'_>, key: &EpochKey) -> Result<Vec<Reading>, OpenError> {
    let readings = reading::decode(&segment.open(key)?)?;
    let announced = segment.header.readings;
    if usize::try_from(announced) != Ok(readings.len()) {
        return Err(OpenError::Count { announced: announced.into(), sealed: readings.len() });
    }
    Ok(readings)
}

fn opened(h: &Header, readings: Vec<Reading>) -> Opened {
    let (readings, standings) = apart(readings);
    Opened {
        patient: h.patient,
        class: h.class,
        sequence: h.sequence,
        readings,
        standings,
        signer: h.signer,
        sealed_us: h.sealed_us,
    }
}

/// What sensors measured, and what the gateway's watch says of it.
fn apart(readings: Vec<Reading>) -> (Vec<Reading>, Vec<Standing>) {
    let mut standings = Vec::new();
    let mut measured = Vec::with_capacity(readings.len());
    for reading in readings {
        match reading.value {
            Value::Standing(standing) => standings.push(*standing),
            Value::Numeric { .. } | Value::Waveform { .. } | Value::Event { .. } => measured.push(reading),
        }
    }
    (measured, standings)
}

#[cfg(test)]
pub(crate) mod tests;
