//! Rule sets for measurements, the same from the same seed: as flows of the datapath and as OpenFlow's flow-mods.
//!
//! Two kinds. [`Kind::Acl`] is what a border's access list looks like (`acl.rs`); [`Kind::Wide`] goes over all match fields with more
//! than sixteen masks (`wide.rs`). Flows are in order of priority, each has one of its own, and [`FRAME`] matches the last flow of a set
//! and no other, whatever its bytes [`VARIED`] are: with these a sender makes each frame a stranger to a cache of flows.

mod acl;
mod random;
mod wide;

use std::sync::Arc;

use caregate_ebpf_common::switch::parse::{Parsed, parse};
use caregate_ebpf_common::switch::{KEY_BYTES, Key, place};
use caregate_protocol::datapath::switch::{FlowAction, FlowEntry, FlowInstructions};
use caregate_protocol::openflow::{Action, Command, FlowMod, Instruction, Match, MatchField, OxmError};

pub use self::random::Random;

/// The seed of all figures in `docs/benchmarks.md`.
pub const SEED: u64 = 0x0F1B_1305;
/// Port that frames come in by.
pub const IN_PORT: u32 = 1;
/// Port that a flow sends to, where it sends.
pub const OUT_PORT: u32 = 2;
/// The highest priority; each flow has one less than the one before it.
const PRIORITY_FIRST: u16 = 60_000;

/// Bytes of the source's MAC address that no flow reads in a way that tells one value from another for [`FRAME`].
pub const VARIED: std::ops::Range<usize> = 8..12;

/// UDP from 198.51.100.7:40000 to 203.0.113.9:5300, padded to Ethernet's 60 bytes.
pub const FRAME: [u8; 60] = {
    const HEAD: [u8; 42] = [
        2, 0, 0, 0, 0, 2, 2, 0xf1, 0, 0, 0, 1, 8, 0, // Ethernet
        0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0xd4, 0x7a, 198, 51, 100, 7, 203, 0, 113, 9, // IPv4
        0x9c, 0x40, 0x14, 0xb4, 0, 26, 0, 0, // UDP
    ];
    let mut frame = [0; 60];
    let mut at = 0;
    while at < HEAD.len() {
        frame[at] = HEAD[at];
        at += 1;
    }
    frame
};
/// Its source.
pub const FRAME_SOURCE: [u8; 4] = [198, 51, 100, 7];

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 5-tuples with prefixes and ports.
    Acl,
    /// All match fields.
    Wide,
}

/// What a flow does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No instruction.
    Drop,
    /// Out by [`OUT_PORT`].
    Output,
}

/// A field, its value and the bits of it that count; right-aligned.
pub type Field = (MatchField, u128, u128);

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Higher comes first.
    pub priority: u16,
    /// With prerequisites before what needs them.
    pub fields: Vec<Field>,
    /// What it does.
    pub outcome: Outcome,
}

/// All of a field's bits.
fn exact(field: MatchField, value: u128) -> Field {
    (field, value, field.ones())
}

/// The first `bits` bits of a field.
fn prefix(field: MatchField, value: u128, bits: u32) -> Field {
    let mask = field.ones() & !(field.ones().checked_shr(bits).unwrap_or(0));
    (field, value & mask, mask)
}

/// `count` flows of a set, the last of which drops [`FRAME`].
///
/// # Panics
/// Where there are to be more than there are priorities.
#[must_use]
pub fn generate(kind: Kind, count: usize, seed: u64) -> Vec<Flow> {
    assert!(count > 0 && count < usize::from(PRIORITY_FIRST), "{count} flows");
    let mut random = Random::new(seed);
    let frame = key();
    let mut known = std::collections::HashSet::new();
    let mut flows: Vec<Flow> = Vec::new();
    while flows.len() + 1 < count {
        let drawn = match kind {
            Kind::Acl => acl::draw(&mut random),
            Kind::Wide => vec![wide::draw(&mut random)],
        };
        for (fields, outcome) in drawn {
            let flow = Flow { priority: 0, fields, outcome };
            if flows.len() + 1 < count && !flow.may_match(&frame) && known.insert(flow.fields.clone()) {
                flows.push(flow);
            }
        }
    }
    let fields = match kind {
        Kind::Acl => acl::last(),
        Kind::Wide => wide::last(),
    };
    flows.push(Flow { priority: 0, fields, outcome: Outcome::Drop });
    number(flows)
}

/// `count` flows of both sets by turns, the last of which sends [`FRAME`] out by [`OUT_PORT`].
#[must_use]
pub fn mixed(count: usize, seed: u64) -> Vec<Flow> {
    let of = |kind| generate(kind, count.div_ceil(2) + 1, seed).into_iter();
    let mut flows: Vec<Flow> =
        of(Kind::Acl).zip(of(Kind::Wide)).flat_map(|(acl, wide)| [acl, wide]).take(count - 1).collect();
    flows.push(Flow { priority: 0, fields: acl::last(), outcome: Outcome::Output });
    number(flows)
}

fn number(mut flows: Vec<Flow>) -> Vec<Flow> {
    for (flow, priority) in flows.iter_mut().zip((0..=PRIORITY_FIRST).rev()) {
        flow.priority = priority;
    }
    flows
}

/// The match fields of [`FRAME`].
#[must_use]
pub fn key() -> Key {
    let mut parsed = Parsed::default();
    parsed.key[0] = u64::from(IN_PORT) << 32;
    parse(&FRAME[..], &mut parsed);
    parsed.key
}

/// How masks are, whatever the values.
#[must_use]
pub fn masks(flows: &[Flow]) -> usize {
    let mask_of =
        |flow: &Flow| flow.fields.iter().map(|(field, _, mask)| (*field, *mask)).collect::<Vec<_>>();
    flows.iter().map(mask_of).collect::<std::collections::HashSet<_>>().len()
}

impl Flow {
    /// Value and mask in a key's bytes.
    fn pattern(&self) -> ([u8; KEY_BYTES], [u8; KEY_BYTES]) {
        let (mut value, mut mask) = ([0; KEY_BYTES], [0; KEY_BYTES]);
        for (field, bits, of) in &self.fields {
            let Some(at) = place(field.number()) else { continue };
            for (key, number) in [(&mut value, bits), (&mut mask, of)] {
                let bytes = (number << at.shift).to_be_bytes();
                for (byte, more) in key[at.byte..at.byte + at.bytes].iter_mut().zip(&bytes[16 - at.bytes..]) {
                    *byte |= more;
                }
            }
        }
        (value, mask)
    }

    /// As the helper is told of it.
    #[must_use]
    pub fn entry(&self, id: u64, table: u8) -> FlowEntry {
        let (value, mask) = self.pattern();
        let apply = match self.outcome {
            Outcome::Drop => Vec::new(),
            Outcome::Output => vec![FlowAction::Output { port: OUT_PORT, max_len: 0 }],
        };
        let instructions = Arc::new(FlowInstructions { apply, ..FlowInstructions::default() });
        FlowEntry { id, table, priority: self.priority, value, mask, instructions }
    }

    /// As a controller adds it.
    ///
    /// # Errors
    /// [`OxmError`], which no flow of these sets has.
    pub fn flow_mod(&self, table: u8) -> Result<FlowMod, OxmError> {
        let mut flow = FlowMod::new(Command::Add, table, self.priority);
        flow.pattern = self.fields.iter().try_fold(Match::any(), |pattern, (field, value, mask)| {
            if *mask == field.ones() {
                pattern.with(*field, *value)
            } else {
                pattern.with_mask(*field, *value, *mask)
            }
        })?;
        if self.outcome == Outcome::Output {
            flow.instructions.push(Instruction::ApplyActions(vec![Action::output(OUT_PORT)]));
        }
        Ok(flow)
    }

    /// Whether it matches a key, whatever is in the bytes [`VARIED`] of the frame.
    #[must_use]
    pub fn may_match(&self, key: &Key) -> bool {
        let (value, mut mask) = self.pattern();
        // The frame's bytes 6 to 12 are `eth_src`, of which the first two stay.
        if let Some(source) = place(MatchField::EthSrc.number()) {
            mask[source.byte + 2..source.byte + source.bytes].fill(0);
        }
        let key = key.iter().flat_map(|word| word.to_be_bytes());
        key.zip(value.iter().zip(&mask)).all(|(key, (value, mask))| (key ^ value) & mask == 0)
    }
}

#[cfg(test)]
mod tests;
