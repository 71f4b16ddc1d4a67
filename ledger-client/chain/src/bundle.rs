//! From the index and the chain to a policy bundle for one gateway.
//!
//! One block's header, one pool of trie nodes, and of the watched things the newest signed messages, each of which its slots must
//! bear out: what the index has and the slots don't is left out, what the slots have and the index doesn't is fetched. A bundle
//! with a claim that does not prove would be refused as a whole, and starve its gateway.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use alloy::consensus::Header;
use alloy::primitives::{B256, Bytes, keccak256};
use alloy::sol_types::SolEvent as _;
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{
    BUNDLE_BYTES_MAX, CLAIMS_MAX, Claims, Commitment, EMERGENCIES_MAX, NODES_MAX, ParticipantClaim,
    PolicyBundle, RecipientStatus, SUCCESSIONS_MAX, SignedBinding, Watch,
};
use ledger_client::verify::rlp::{Items, RlpError, put_list, put_number};
use ledger_client::verify::slots::{self, Slot};
use ledger_client::verify::words::{self, Word};

use crate::client::{Block, Proofs};
use crate::contract::Caregate;
use crate::error::ChainError;
use crate::follow::Follower;
use crate::index::Index;

/// Attempts until a bundle comes together: a node may forget old states while the head moves.
const ATTEMPTS: u32 = 4;
/// Longest wait for the follower's next look, between two attempts.
const NEXT_LOOK: Duration = Duration::from_secs(1);

/// A header's RLP, seals included, if it is the block that it names.
///
/// A QBFT block's id is taken over the header whose extra data have round 0 and no seals; that of any other chain over the header.
pub(crate) fn header_bytes(block: &Block) -> Result<Vec<u8>, ChainError> {
    let encoded = alloy_rlp(&block.header);
    let mut sealed = block.header.clone();
    let qbft = without_seals(&block.header.extra_data).ok().map(|extra| {
        sealed.extra_data = Bytes::from(extra);
        keccak256(alloy_rlp(&sealed))
    });
    if qbft.is_some_and(|hash| hash.0 == block.head.hash) || keccak256(&encoded).0 == block.head.hash {
        Ok(encoded)
    } else {
        Err(ChainError::HeaderHash { number: block.head.number })
    }
}

fn alloy_rlp(header: &Header) -> Vec<u8> {
    alloy::rlp::encode(header)
}

/// Whom a QBFT header names as validators; none of any other header.
pub(crate) fn named(header: &Header) -> Option<Vec<[u8; 20]>> {
    let mut items = Items::of_list(&header.extra_data).ok()?;
    items.fixed::<32>().ok()?;
    let mut list = items.list().ok()?;
    let mut named = Vec::new();
    while !list.is_empty() {
        named.push(list.fixed().ok()?);
    }
    Some(named)
}

/// QBFT's extra data with round 0 and an empty list of seals.
fn without_seals(extra: &[u8]) -> Result<Vec<u8>, RlpError> {
    let mut items = Items::of_list(extra)?;
    let payload = items.rest();
    items.bytes()?;
    items.list()?;
    items.item()?;
    let head = payload.len() - items.rest().len();
    let mut out = payload[..head].to_vec();
    put_number(&mut out, 0);
    put_list(&mut out, &[]);
    let mut list = Vec::new();
    put_list(&mut list, &out);
    Ok(list)
}

/// What the index says about a watch list.
#[derive(Debug, Clone)]
struct Claimed {
    /// Without the bindings.
    claims: Claims,
    /// Each by its key in the contract, which is not in what was signed.
    bindings: BTreeMap<Commitment, SignedBinding>,
}

impl Claimed {
    fn len(&self) -> usize {
        let Claims { participants, consents, emergencies, .. } = &self.claims;
        participants.len() + consents.len() + self.bindings.len() + emergencies.len()
    }

    /// All of it, as a bundle has it.
    fn whole(self) -> Claims {
        Claims { bindings: self.bindings.into_values().collect(), ..self.claims }
    }
}

/// What the index says about a watch list at a time.
fn claims(index: &Index, watch: &Watch, time_s: u64) -> Claimed {
    let consents = watch.relationships.iter().filter_map(|id| index.consent(id));
    let mut claims = Claims::default();
    for consent in consents {
        claims.consents.extend(consent.grant.clone());
        claims.revocations.extend(consent.revocation.clone());
        claims.successions.extend(consent.line.iter().flat_map(|line| line.keys.iter().cloned()));
    }
    let known = watch.bindings.iter().filter_map(|key| index.bindings.get_key_value(key));
    let bindings = known.map(|(key, (signed, _))| (*key, signed.clone())).collect();
    let may = |domain: &RecipientId| {
        index.participant(domain).is_some_and(|entry| {
            entry.emergency && entry.status == Some(RecipientStatus::Active) && entry.key.is_some()
        })
    };
    // One that is over gives nobody anything, and its domain may have left since; one that names nobody, as earlier contracts took it, would
    // cost the gateway the whole bundle.
    claims.emergencies = watch
        .pseudonyms
        .iter()
        .flat_map(|pseudonym| index.emergencies_of(pseudonym))
        .filter(|signed| {
            let emergency = &signed.emergency;
            emergency.until > time_s && emergency.is_named() && may(&emergency.domain)
        })
        .cloned()
        .collect();
    // More than fit would starve the gateway of everything: the newest come first.
    claims.emergencies.sort_by_key(|signed| std::cmp::Reverse(signed.emergency.from));
    if claims.emergencies.len() > EMERGENCIES_MAX {
        tracing::warn!(emergencies = claims.emergencies.len(), "more emergencies at once than fit a bundle");
        claims.emergencies.truncate(EMERGENCIES_MAX);
    }
    let grantees = claims.consents.iter().map(|signed| signed.grant.grantee);
    let domains = claims.emergencies.iter().map(|signed| signed.emergency.domain);
    // Who may break the glass is known to a gateway before anybody does: it may have to decide without a ledger.
    let may = (!watch.pseudonyms.is_empty()).then(|| index.emergency_domains().copied());
    let named: BTreeSet<_> = grantees.chain(domains).chain(may.into_iter().flatten()).collect();
    claims.participants =
        named.iter().filter_map(|id| index.participant(id).and_then(|entry| claim(id, entry))).collect();
    Claimed { claims, bindings }
}

/// What a bundle says of a participant; nothing of one that is not registered, or has no key.
fn claim(id: &RecipientId, entry: &crate::index::Participant) -> Option<ParticipantClaim> {
    let key = entry.key.as_ref()?;
    Some(ParticipantClaim {
        id: *id,
        hpke_public_key: key.hpke_public_key,
        key_version: key.version,
        status: entry.status?,
        kind: entry.kind,
        emergency: entry.emergency,
        signature: key.signature,
    })
}

/// The newest emergencies of who watches their pseudonyms, also those that are over: one that was handed to the gateway itself is recognised
/// by its slot. As many as a bundle claims at most.
fn opened(index: &Index, watch: &Watch) -> Vec<[Slot; 3]> {
    let mut all: Vec<_> =
        watch.pseudonyms.iter().flat_map(|pseudonym| index.emergencies_of(pseudonym)).collect();
    all.sort_by_key(|signed| std::cmp::Reverse(signed.emergency.from));
    all.truncate(EMERGENCIES_MAX);
    all.iter().map(|signed| slots::emergency(&signed.emergency.pseudonym, &signed.emergency.domain)).collect()
}

/// Every slot that a verifier asks for, also of what is watched and isn't there: that shows that it isn't.
fn wanted(watch: &Watch, claims: &Claims, opened: &[[Slot; 3]]) -> Vec<Slot> {
    let mut wanted = vec![slots::EPOCH];
    wanted.extend(watch.relationships.iter().flat_map(slots::consent));
    wanted.extend(claims.successions.iter().flat_map(|one| slots::relationship_keys(&one.relationship)));
    wanted.extend(watch.bindings.iter().map(slots::binding));
    wanted.extend(claims.participants.iter().flat_map(|claim| slots::participant(&claim.id)));
    wanted.extend(
        claims
            .emergencies
            .iter()
            .flat_map(|signed| slots::emergency(&signed.emergency.pseudonym, &signed.emergency.domain)),
    );
    wanted.extend(opened.iter().flatten());
    let mut seen = HashSet::new();
    wanted.retain(|slot| seen.insert(*slot));
    wanted
}

impl Proofs {
    fn word(&self, slot: &Slot) -> Word {
        self.values.get(slot).copied().unwrap_or_default()
    }

    fn words<const N: usize>(&self, slots: [Slot; N]) -> [Word; N] {
        slots.map(|slot| self.word(&slot))
    }
}

/// What the slots have and the claims don't: an event's signature and its indexed value.
fn missing(watch: &Watch, Claimed { claims, bindings }: &Claimed, proofs: &Proofs) -> Vec<(B256, B256)> {
    let grants: BTreeMap<_, _> =
        claims.consents.iter().map(|signed| (signed.grant.relationship, signed.grant.version)).collect();
    let revocations: BTreeMap<_, _> = claims
        .revocations
        .iter()
        .map(|signed| (signed.revocation.relationship, signed.revocation.version))
        .collect();
    let mut missing = Vec::new();
    for id in &watch.relationships {
        let [_, versions] = proofs.words(slots::consent(id));
        let before = missing.len();
        if words::granted(&versions) > grants.get(id).copied().unwrap_or(0) {
            missing.push((Caregate::Granted::SIGNATURE_HASH, B256::from(id.0)));
        }
        if words::revoked(&versions) > revocations.get(id).copied().unwrap_or(0) {
            missing.push((Caregate::Revoked::SIGNATURE_HASH, B256::from(id.0)));
        }
        // What was missed may be signed by keys whose coming was missed as well.
        if missing.len() > before {
            missing.extend(HANDING_ON.map(|event| (event, B256::from(id.0))));
        }
    }
    for key in &watch.bindings {
        let shown = proofs.word(&slots::binding(key));
        let known = bindings.get(key).map(|signed| words::binding(signed.version, signed.bound));
        if shown != Word::default() && known != Some(shown) {
            missing.push((Caregate::DeviceBound::SIGNATURE_HASH, B256::from(key.0)));
        }
    }
    missing
}

/// Events that lead from a relationship's first keys to its newest.
const HANDING_ON: [B256; 4] = [
    Caregate::KeysRotated::SIGNATURE_HASH,
    Caregate::CustodiansSet::SIGNATURE_HASH,
    Caregate::RecoveryBegun::SIGNATURE_HASH,
    Caregate::KeysRecovered::SIGNATURE_HASH,
];

/// Leaves out all of a relationship whose keys are not known to the newest, or that handed on more often than gateways follow: what they
/// signed would have the whole bundle refused. That it is revoked is shown by its slot.
fn keep_followed(claims: &mut Claims, proofs: &Proofs) {
    let mut known: BTreeMap<_, u64> = BTreeMap::new();
    for one in &claims.successions {
        known.entry(one.relationship).and_modify(|newest| *newest = one.version).or_insert(one.version);
    }
    known.retain(|id, newest| {
        let [first, _] = proofs.words(slots::relationship_keys(id));
        words::keys_version(&first) != *newest || *newest > SUCCESSIONS_MAX as u64
    });
    if known.is_empty() {
        return;
    }
    tracing::warn!(relationships = known.len(), "left out of a bundle: their keys can't be followed");
    claims.successions.retain(|one| !known.contains_key(&one.relationship));
    claims.consents.retain(|one| !known.contains_key(&one.grant.relationship));
    claims.revocations.retain(|one| !known.contains_key(&one.revocation.relationship));
}

/// Keeps what the slots bear out. What they don't is a node's contradiction, and would spoil the rest.
fn keep_borne_out(claimed: &mut Claimed, proofs: &Proofs) {
    let before = claimed.len();
    claimed.bindings.retain(|key, signed| {
        words::binding(signed.version, signed.bound) == proofs.word(&slots::binding(key))
    });
    let claims = &mut claimed.claims;
    claims
        .participants
        .retain(|claim| proofs.words(slots::participant(&claim.id)) == words::participant(claim));
    claims.consents.retain(|signed| {
        let shown = proofs.words(slots::consent(&signed.grant.relationship));
        words::consent(&signed.grant, words::revoked(&shown[1])) == shown
    });
    let active = |domain: &RecipientId| claims.participants.iter().any(|claim| claim.id == *domain);
    claims.emergencies.retain(|signed| {
        let emergency = &signed.emergency;
        let shown = proofs.words(slots::emergency(&emergency.pseudonym, &emergency.domain));
        words::emergency(emergency, words::reviewed(&shown[2])) == shown && active(&emergency.domain)
    });
    let after = claimed.len();
    if after < before {
        tracing::warn!(claims = before - after, "left out of a bundle: the contract's slots say otherwise");
    }
}

impl Follower {
    /// A bundle for a gateway that watches `watch`, of the newest block that the index knows.
    ///
    /// # Errors
    /// [`ChainError`]: no answer, events not read yet, or more than fits a bundle.
    pub async fn bundle(&self, watch: &Watch) -> Result<PolicyBundle, ChainError> {
        let mut attempt = 1;
        loop {
            let mut heads = self.heads();
            heads.mark_unchanged();
            match self.attempt(watch).await {
                Ok(bundle) => return Ok(bundle),
                Err(error @ (ChainError::Config(_) | ChainError::BundleFull { .. })) => return Err(error),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, attempt, "bundle: once more, at the next block");
                    // Where no block comes, the same is tried again.
                    drop(tokio::time::timeout(NEXT_LOOK, heads.changed()).await);
                }
            }
            attempt += 1;
        }
    }

    async fn attempt(&self, watch: &Watch) -> Result<PolicyBundle, ChainError> {
        let (mut block, mut claimed, mut proofs) = self.prove(watch).await?;
        let missing = missing(watch, &claimed, &proofs);
        if !missing.is_empty() {
            self.fetch(&missing, block.head.number).await?;
            // An event may name a participant whose slots were not asked for. What is missing now too is not to be had.
            (block, claimed, proofs) = self.prove(watch).await?;
        }
        keep_followed(&mut claimed.claims, &proofs);
        keep_borne_out(&mut claimed, &proofs);
        let mut claims = claimed.whole();
        claims.epoch = words::number(&proofs.word(&slots::EPOCH)).unwrap_or_default();
        let nodes: BTreeSet<Vec<u8>> = proofs.nodes.into_iter().map(Vec::from).collect();
        if nodes.len() > NODES_MAX {
            return Err(ChainError::BundleFull { what: "trie nodes", len: nodes.len(), max: NODES_MAX });
        }
        let ledger = self.chain().domain();
        let bundle = PolicyBundle {
            chain_id: ledger.chain_id,
            contract: ledger.verifying_contract.0,
            header: header_bytes(&block)?,
            nodes: nodes.into_iter().collect(),
            claims,
            handovers: self.handovers(block.head.number),
        };
        match bundle.encode().len() {
            len if len > BUNDLE_BYTES_MAX => {
                Err(ChainError::BundleFull { what: "bytes", len, max: BUNDLE_BYTES_MAX })
            }
            _ => Ok(bundle),
        }
    }

    /// The newest block of which all is known, what the index claims then, and proofs of it.
    async fn prove(&self, watch: &Watch) -> Result<(Block, Claimed, Proofs), ChainError> {
        let (block, claimed, opened) = {
            let state = self.state();
            let Some(block) = state.synced.clone() else {
                return Err(ChainError::CatchingUp { at: state.next(), head: state.latest });
            };
            let claims = claims(&state.index, watch, block.head.time_s);
            (block, claims, opened(&state.index, watch))
        };
        bounded(&claimed)?;
        let slots = wanted(watch, &claimed.claims, &opened);
        let proofs = self.chain().proofs(&slots, block.head.number).await?;
        Ok((block, claimed, proofs))
    }

    async fn fetch(&self, missing: &[(B256, B256)], to: u64) -> Result<(), ChainError> {
        let mut events = Vec::new();
        for about in missing {
            events.extend(self.chain().events_about(0, to, Some(*about)).await?);
        }
        // Keys that follow each other come in their order.
        events.sort_by_key(|event| (event.block, event.index));
        let mut state = self.state();
        events.iter().for_each(|event| state.index.insert(event));
        Ok(())
    }
}

fn bounded(Claimed { claims, bindings }: &Claimed) -> Result<(), ChainError> {
    let lists = [
        ("participants", claims.participants.len(), CLAIMS_MAX),
        ("consents", claims.consents.len(), CLAIMS_MAX),
        ("revocations", claims.revocations.len(), CLAIMS_MAX),
        ("bindings", bindings.len(), CLAIMS_MAX),
        ("successions", claims.successions.len(), CLAIMS_MAX),
    ];
    match lists.into_iter().find(|(_, len, max)| len > max) {
        Some((what, len, max)) => Err(ChainError::BundleFull { what, len, max }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
