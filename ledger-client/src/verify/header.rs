//! A block header as QBFT seals it (EIP-650's successor in Hyperledger Besu): Ethereum's header, whose extra data name the
//! validators and carry their seals.
//!
//! ```text
//! extraData = RLP [ vanity (32 bytes), [validator, …], vote ([] or [address, type]), round, [seal (65 bytes), …] ]
//! sealed    = keccak256(header with extraData = RLP [ vanity, validators, vote, round, [] ])
//! block id  = keccak256(header with extraData = RLP [ vanity, validators, vote, 0, [] ])
//! ```
//! The validators that count are the pinned ones, or those to whom they have handed on ([`verify_handover`]); a header that names others
//! is refused, whoever sealed it.

use std::collections::BTreeSet;

use caregate_protocol::policy::EcdsaSignature;
use thiserror::Error;

use super::address::Address;
use super::eip712::keccak256;
use super::rlp::{Items, RlpError, put_bytes, put_list, put_number};
use super::signature::{SignatureError, signer};

/// Longest header: 64 validators and seals need 6 KiB.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most validators of a ledger: QBFT's messages grow with their square, and nobody runs more.
pub const VALIDATORS_MAX: usize = 64;
/// The place of the extra data among a header's fields; before them are parent, ommers, beneficiary, three roots, bloom,
/// difficulty, number, gas limit, gas used and timestamp.
const EXTRA_FIELD: usize = 12;
/// Fewest fields of a header (to the nonce), and most: those of Prague.
const FIELDS: std::ops::RangeInclusive<usize> = 15..=21;

/// Why a header is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Longer than [`HEADER_BYTES_MAX`].
    #[error("the header has {0} bytes, allowed are {HEADER_BYTES_MAX}")]
    TooLarge(usize),
    /// No RLP of a header.
    #[error("the header: {0}")]
    Rlp(RlpError),
    /// More or fewer fields than a header has.
    #[error("the header has {0} fields")]
    Fields(usize),
    /// The extra data are not QBFT's.
    #[error("the header's extra data: {0}")]
    Extra(RlpError),
    /// The header's validators are not those that were pinned.
    #[error("the header names other validators than the pinned ones")]
    Validators,
    /// A seal of somebody who is no validator.
    #[error("seal {0} is of no pinned validator")]
    Stranger(usize),
    /// The same validator twice.
    #[error("seal {0} is of a validator that has sealed already")]
    Twice(usize),
    /// No signature.
    #[error("seal {index}: {source}")]
    Seal {
        /// Which, from 0.
        index: usize,
        /// Why.
        source: SignatureError,
    },
    /// Fewer than ⌈2n/3⌉.
    #[error("{seals} seals, {quorum} are needed")]
    Quorum {
        /// Good seals.
        seals: usize,
        /// Needed.
        quorum: usize,
    },
    /// Too few of the validators so far have sealed a header that names others.
    #[error("{seals} seals of the validators so far, {needed} are needed to hand on")]
    Handover {
        /// Theirs.
        seals: usize,
        /// Needed.
        needed: usize,
    },
}

impl HeaderError {
    /// A word for counters, as docs/control-path.md lists them.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::Rlp(_) | Self::Fields(_) => "header_rlp",
            Self::Extra(_) => "qbft_extra",
            Self::Validators => "validators_other",
            Self::Stranger(_) => "validator_unknown",
            Self::Twice(_) => "seal_duplicate",
            Self::Seal { .. } => "seal_signature",
            Self::Quorum { .. } => "quorum",
            Self::Handover { .. } => "handover",
        }
    }
}

/// What a gateway takes from a header whose seals were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedHeader {
    /// The block's number.
    pub number: u64,
    /// Unix time in seconds.
    pub time_s: u64,
    /// Root of the state trie after the block.
    pub state_root: [u8; 32],
    /// The block's id.
    pub hash: [u8; 32],
}

/// ⌈2n/3⌉, QBFT's quorum.
#[must_use]
pub fn quorum(validators: usize) -> usize {
    (2 * validators).div_ceil(3)
}

struct Extra<'a> {
    /// Vanity, validators and vote, encoded as they came.
    head: &'a [u8],
    validators: Vec<[u8; 20]>,
    round: u64,
    seals: Vec<[u8; 65]>,
}

impl<'a> Extra<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, RlpError> {
        let mut items = Items::of_list(bytes)?;
        let before = items.rest();
        items.fixed::<32>()?;
        let mut list = items.list()?;
        let mut validators = Vec::new();
        while !list.is_empty() {
            validators.push(list.fixed()?);
            if validators.len() > VALIDATORS_MAX {
                return Err(RlpError::Trailing(list.rest().len()));
            }
        }
        // A vote changes the set, which a gateway doesn't follow by itself: the list is not looked into.
        items.list()?;
        let head = &before[..before.len() - items.rest().len()];
        let round = items.number()?;
        let mut list = items.list()?;
        let mut seals = Vec::new();
        while !list.is_empty() {
            seals.push(list.fixed()?);
            if seals.len() > VALIDATORS_MAX {
                return Err(RlpError::Trailing(list.rest().len()));
            }
        }
        items.finish()?;
        Ok(Self { head, validators, round, seals })
    }

    /// Without seals, and with this round.
    fn encode(&self, round: u64) -> Vec<u8> {
        let mut payload = self.head.to_vec();
        put_number(&mut payload, round);
        put_list(&mut payload, &[]);
        let mut out = Vec::with_capacity(payload.len() + 4);
        put_list(&mut out, &payload);
        out
    }
}

/// Checks a header's seals against the validators that count.
///
/// # Errors
/// [`HeaderError`].
pub fn verify_header(bytes: &[u8], pinned: &[Address]) -> Result<VerifiedHeader, HeaderError> {
    let sealed = Sealed::decode(bytes)?;
    if sealed.named != pinned.iter().copied().collect() {
        return Err(HeaderError::Validators);
    }
    sealed.check_seals()?;
    Ok(sealed.header)
}

/// More than a third of so many validators: among them is an honest one, as long as fewer than a third are not. An honest validator
/// seals no header but the chain's, so its seal shows that the chain has other validators now.
#[must_use]
pub fn handover(validators: usize) -> usize {
    validators.saturating_sub(1) / 3 + 1
}

/// Checks a header that names other validators than those so far: sealed by a quorum of those that it names, and among them by
/// [`handover`] of those so far. Returns who seals from then on.
///
/// # Errors
/// [`HeaderError`].
pub fn verify_handover(
    bytes: &[u8],
    so_far: &[Address],
) -> Result<(VerifiedHeader, Vec<Address>), HeaderError> {
    let sealed = Sealed::decode(bytes)?;
    if sealed.named.is_empty() {
        return Err(HeaderError::Validators);
    }
    let sealers = sealed.check_seals()?;
    let (seals, needed) = (so_far.iter().filter(|one| sealers.contains(one)).count(), handover(so_far.len()));
    if seals < needed {
        return Err(HeaderError::Handover { seals, needed });
    }
    Ok((sealed.header, sealed.named.into_iter().collect()))
}

/// A header that was read, and what its seals are about.
struct Sealed {
    header: VerifiedHeader,
    named: BTreeSet<Address>,
    digest: [u8; 32],
    seals: Vec<[u8; 65]>,
}

impl Sealed {
    fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() > HEADER_BYTES_MAX {
            return Err(HeaderError::TooLarge(bytes.len()));
        }
        let fields = Items::of_list(bytes).map_err(HeaderError::Rlp)?;
        let payload = fields.rest();
        let header = Fields::decode(fields)?;
        let extra = Extra::decode(header.extra).map_err(HeaderError::Extra)?;
        let named: BTreeSet<_> = extra.validators.iter().copied().map(Address).collect();
        if named.len() != extra.validators.len() {
            return Err(HeaderError::Validators);
        }
        let with_round = |round| {
            let mut with = payload[..header.extra_at].to_vec();
            put_bytes(&mut with, &extra.encode(round));
            with.extend_from_slice(&payload[header.extra_end..]);
            let mut out = Vec::with_capacity(with.len() + 4);
            put_list(&mut out, &with);
            keccak256(&[&out])
        };
        let header = VerifiedHeader { hash: with_round(0), ..header.values };
        Ok(Self { header, named, digest: with_round(extra.round), seals: extra.seals })
    }

    fn check_seals(&self) -> Result<BTreeSet<Address>, HeaderError> {
        check_seals(&self.digest, &self.seals, &self.named)
    }
}

/// The number of a block whose header may be anything.
pub(super) fn header_number(bytes: &[u8]) -> Option<u64> {
    Some(Fields::decode(Items::of_list(bytes).ok()?).ok()?.values.number)
}

/// Whom a header names, which may be anything.
pub(super) fn named_validators(bytes: &[u8]) -> Option<BTreeSet<Address>> {
    let header = Fields::decode(Items::of_list(bytes).ok()?).ok()?;
    Some(Extra::decode(header.extra).ok()?.validators.into_iter().map(Address).collect())
}

struct Fields<'a> {
    extra: &'a [u8],
    /// Where the encoded extra data begin and end in the payload.
    extra_at: usize,
    extra_end: usize,
    values: VerifiedHeader,
}

impl<'a> Fields<'a> {
    fn decode(mut fields: Items<'a>) -> Result<Self, HeaderError> {
        let payload_bytes = fields.rest().len();
        let (mut extra, mut extra_at, mut extra_end) = (&[][..], 0, 0);
        let mut values = VerifiedHeader { number: 0, time_s: 0, state_root: [0; 32], hash: [0; 32] };
        let mut count = 0;
        while !fields.is_empty() {
            let at = payload_bytes - fields.rest().len();
            match count {
                3 => values.state_root = fields.fixed().map_err(HeaderError::Rlp)?,
                8 => values.number = fields.number().map_err(HeaderError::Rlp)?,
                11 => values.time_s = fields.number().map_err(HeaderError::Rlp)?,
                EXTRA_FIELD => {
                    extra = fields.bytes().map_err(HeaderError::Rlp)?;
                    (extra_at, extra_end) = (at, payload_bytes - fields.rest().len());
                }
                _ => {
                    fields.bytes().map_err(HeaderError::Rlp)?;
                }
            }
            count += 1;
        }
        if !FIELDS.contains(&count) {
            return Err(HeaderError::Fields(count));
        }
        Ok(Self { extra, extra_at, extra_end, values })
    }
}

fn check_seals(
    digest: &[u8; 32],
    seals: &[[u8; 65]],
    pinned: &BTreeSet<Address>,
) -> Result<BTreeSet<Address>, HeaderError> {
    let mut seen = BTreeSet::new();
    for (index, seal) in seals.iter().enumerate() {
        let sealer =
            signer(digest, &wallet_form(seal)).map_err(|source| HeaderError::Seal { index, source })?;
        if !pinned.contains(&sealer) {
            return Err(HeaderError::Stranger(index));
        }
        if !seen.insert(sealer) {
            return Err(HeaderError::Twice(index));
        }
    }
    let quorum = quorum(pinned.len());
    if seen.len() < quorum || seen.is_empty() {
        return Err(HeaderError::Quorum { seals: seen.len(), quorum });
    }
    Ok(seen)
}

/// Besu writes the recovery id as 0 or 1, wallets as 27 or 28.
fn wallet_form(seal: &[u8; 65]) -> EcdsaSignature {
    let mut signature = *seal;
    if signature[64] < 2 {
        signature[64] += 27;
    } else {
        // Another spelling of the same seal is no seal.
        signature[64] = 0;
    }
    EcdsaSignature(signature)
}

#[cfg(test)]
mod tests;
