//! From a policy bundle to the policy that counts: whose ledger it names, header and seals, proofs, values, signatures, pins, in this order, each refusal
//! with its reason (docs/control-path.md, "The bundle"). A bundle is taken as a whole or refused as a whole.
//!
//! A revocation counts by its signature alone. A grant counts where its slot holds it, unrevoked, and the pinned grant key signed it.

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{
    Authentic, BoundDevice, Claims, EcdsaSignature, EmergencyAccess, Floors, Freshness, HeaderFloor,
    PolicyBundle, Pseudonym, RecipientEntry, RecipientStatus, RelationshipId, Revocation, SignedEmergency,
    SignedRevocation, Station, Validator, ValidatorFloor, VerifiedPolicy,
};

use super::address::Address;
use super::eip712::{
    Domain, binding_digest, emergency_digest, grant_digest, keccak256, participant_key_digest,
    revocation_digest,
};
use super::header::{VerifiedHeader, header_number, named_validators, verify_handover, verify_header};
use super::pins::Pins;
use super::refusal::{BundleRefusal, ClaimPath, ProofError, RevocationRefusal, SignerError};
use super::rlp::{Items, RlpError};
use super::signature::signer;
use super::slots::{self, Slot};
use super::succession::{Keys, NewestKeys};
use super::trie::NodePool;
use super::words::{self, Word};

/// How far ahead of the gateway's clock a header may be: more than clocks differ that NTP keeps.
pub const HEADER_AHEAD_MAX_S: u64 = 60;
/// Longest emergency, as in the contract.
pub const EMERGENCY_MAX_S: u64 = 4 * 3600;

/// A bundle whose every claim counts.
#[derive(Debug, Clone)]
pub struct VerifiedBundle {
    /// The header that proves it.
    pub header: VerifiedHeader,
    /// What it says.
    pub claims: Claims,
    /// Highest revoked version of each pinned relationship whose slot the nodes show, also where no claim is about it.
    pub revoked: BTreeMap<RelationshipId, u64>,
    /// The newest keys of relationships that have handed on.
    pub keys: NewestKeys,
    /// Who seals now, where it is no longer those who were pinned.
    handed_on: Option<ValidatorFloor>,
    policy: VerifiedPolicy,
}

/// A revocation that counts: which key signed it, and the address of the relationship's key that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedWith {
    /// Which.
    pub signer: RevocationSigner,
    /// For whoever relays it: the contract knows a relationship by the hash of its first two keys.
    pub other_key: Address,
}

/// Which of a relationship's keys signed a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationSigner {
    /// The grant key, in the patient's wallet.
    GrantKey,
    /// The revoke-only key.
    RevokeKey,
}

/// Checks a bundle against the pins and against what was seen before. `now_s` is the gateway's clock, Unix seconds; a clock that
/// is behind the newest verified header counts as that header's time.
///
/// One signature takes about 80 µs, the largest bundle 300 ms: not for an async task's thread. Header and seals come first, so that
/// who can't seal costs no more than those.
///
/// # Errors
/// [`BundleRefusal`], the first check that fails.
pub fn verify_bundle(
    bytes: &[u8],
    pins: &Pins,
    floors: &Floors,
    now_s: u64,
) -> Result<VerifiedBundle, BundleRefusal> {
    let bundle = verify_kept_bundle(bytes, pins, floors, now_s)?;
    bundle.is_of(pins)?;
    Ok(bundle)
}

/// The same for a bundle that was whole when it was kept, by these pins or by some with more in them: what is pinned no more counts for
/// nothing, and the rest as before.
///
/// # Errors
/// As [`verify_bundle`], but for `not_pinned`.
pub fn verify_kept_bundle(
    bytes: &[u8],
    pins: &Pins,
    floors: &Floors,
    now_s: u64,
) -> Result<VerifiedBundle, BundleRefusal> {
    let PolicyBundle { chain_id, contract, header, nodes, claims, handovers } = PolicyBundle::decode(bytes)?;
    of_this_ledger(chain_id, Address(contract), &pins.domain)?;
    let validators = follow_validators(&handovers, pins, floors)?;
    let header = verify_header(&header, &validators)?;
    not_older(&header, &floors.header)?;
    let now_s = now_s.max(floors.header.time_s);
    let ahead_s = header.time_s.saturating_sub(now_s);
    if ahead_s > HEADER_AHEAD_MAX_S {
        return Err(BundleRefusal::HeaderFuture { ahead_s });
    }
    let storage = Storage::of(&nodes, &header, &pins.domain.verifying_contract)?;
    // Before the slots, so that a stranger is refused as one, whatever the nodes show of it. Nothing is believed of the claims yet.
    check_domains(&claims)?;
    let slots = Slots::prove(&storage, &claims, pins)?;
    if slots.epoch < floors.epoch {
        return Err(BundleRefusal::EpochWentBack { epoch: slots.epoch, floor: floors.epoch });
    }
    slots.hold(&claims)?;
    let keys = Keys::follow(&claims, pins)?;
    check_signatures(&claims, pins, &keys)?;
    check_emergencies(&claims)?;
    let revoked = storage.revoked(pins);
    let policy = VerifiedPolicy::new(authentic(&claims, pins, &header, &revoked));
    let sealing = |keys: &[Address]| keys.iter().map(|key| Validator(key.0)).collect();
    let handed_on = (validators != pins.validators)
        .then(|| ValidatorFloor { pinned: sealing(&pins.validators), now: sealing(&validators) });
    Ok(VerifiedBundle { header, claims, revoked, keys: keys.newest(), handed_on, policy })
}

/// What a bundle says of itself has only to say why it is refused: one that lies proves nothing here, or is not signed for here.
fn of_this_ledger(chain_id: u64, contract: Address, domain: &Domain) -> Result<(), BundleRefusal> {
    if chain_id != domain.chain_id {
        return Err(BundleRefusal::OtherChain { named: chain_id, pinned: domain.chain_id });
    }
    if contract != domain.verifying_contract {
        return Err(BundleRefusal::OtherContract { named: contract, pinned: domain.verifying_contract });
    }
    Ok(())
}

/// Who seals, from those that were pinned, or whom they had handed on to before, through the bundle's changes. Changes up to the newest
/// verified header were followed already.
fn follow_validators(
    handovers: &[Vec<u8>],
    pins: &Pins,
    floors: &Floors,
) -> Result<Vec<Address>, BundleRefusal> {
    let kept = floors.validators.as_ref().filter(|floor| same(&floor.pinned, &pins.validators));
    let mut validators = match kept {
        Some(floor) => floor.now.iter().map(|one| Address(one.0)).collect(),
        None => pins.validators.clone(),
    };
    // Up to where these came, or further where they went and came again.
    let known = handovers.iter().rposition(|bytes| {
        named_validators(bytes).is_some_and(|named| named == validators.iter().copied().collect())
    });
    let mut number = if kept.is_some() { floors.header.number } else { 0 };
    for bytes in handovers.iter().skip(known.map_or(0, |nth| nth + 1)) {
        if header_number(bytes).is_some_and(|its| its <= number) {
            continue;
        }
        let (header, next) = verify_handover(bytes, &validators)?;
        (number, validators) = (header.number, next);
    }
    Ok(validators)
}

/// How many seal the ledger's headers: those that were pinned, or whom they have handed on to.
#[must_use]
pub fn sealers(pins: &Pins, floors: &Floors) -> usize {
    let handed_on = floors.validators.as_ref().filter(|floor| same(&floor.pinned, &pins.validators));
    handed_on.map_or(pins.validators.len(), |floor| floor.now.len())
}

fn same(floor: &[Validator], pinned: &[Address]) -> bool {
    let (floor, pinned): (BTreeSet<_>, BTreeSet<_>) =
        (floor.iter().map(|one| one.0).collect(), pinned.iter().map(|one| one.0).collect());
    floor == pinned
}

/// The number of a bundle's block, for who says why it was refused; 0 where it can't be read. Nothing is verified.
#[must_use]
pub fn bundle_number(bytes: &[u8]) -> u64 {
    PolicyBundle::decode(bytes).ok().and_then(|bundle| header_number(&bundle.header)).unwrap_or(0)
}

/// Checks a revocation that came alone, by whatever path: by one of the keys that were pinned, or of the newest that have followed them.
/// Those in between count no more, as in the contract.
///
/// # Errors
/// [`RevocationRefusal`].
pub fn verify_revocation(
    signed: &SignedRevocation,
    pins: &Pins,
    keys: &NewestKeys,
) -> Result<RevokedWith, RevocationRefusal> {
    let relationship = &signed.revocation.relationship;
    let pin = pins.relationships.get(relationship).ok_or(RevocationRefusal::NotPinned)?;
    if signed.revocation.version == 0 {
        return Err(RevocationRefusal::Version);
    }
    let digest = revocation_digest(&signed.revocation, &pins.domain);
    let by = signer(&digest, &signed.signature).map_err(SignerError::Form)?;
    let first = (pin.grant_key, pin.revoke_key);
    for (grant_key, revoke_key) in [Some(first), keys.of(relationship)].into_iter().flatten() {
        if by == grant_key {
            return Ok(RevokedWith { signer: RevocationSigner::GrantKey, other_key: revoke_key });
        }
        if by == revoke_key {
            return Ok(RevokedWith { signer: RevocationSigner::RevokeKey, other_key: grant_key });
        }
    }
    Err(SignerError::Other.into())
}

/// The numbers of the newest emergencies of these pseudonyms and domains that a verified bundle's nodes show; nothing of those whose slot
/// they don't lead to. `bytes` are those that `header` was verified from.
#[must_use]
pub fn emergency_numbers(
    bytes: &[u8],
    header: &VerifiedHeader,
    pins: &Pins,
    wanted: impl IntoIterator<Item = (Pseudonym, RecipientId)>,
) -> BTreeMap<(Pseudonym, RecipientId), u64> {
    let Ok(PolicyBundle { nodes, .. }) = PolicyBundle::decode(bytes) else { return BTreeMap::new() };
    let Ok(storage) = Storage::of(&nodes, header, &pins.domain.verifying_contract) else {
        return BTreeMap::new();
    };
    let number = |(pseudonym, domain): (Pseudonym, RecipientId)| {
        let [_, _, third] = slots::emergency(&pseudonym, &domain);
        Some(((pseudonym, domain), words::emergency_number(&storage.word(&third).ok()?)))
    };
    wanted.into_iter().filter_map(number).collect()
}

impl VerifiedBundle {
    /// Whether all that it claims is pinned, where the pins may have changed since it was verified.
    ///
    /// # Errors
    /// `not_pinned`; the policy before stays in force.
    pub fn is_of(&self, pins: &Pins) -> Result<(), BundleRefusal> {
        check_pinned(&self.claims, pins)
    }

    /// Holds the bundle against floors that may have risen since it was verified. Returns the policy, and the floors to keep durably
    /// *before* acting on it.
    ///
    /// # Errors
    /// `header_older`, `epoch_went_back` or `floors_full`; the policy before stays in force.
    pub fn admit(&self, floors: &Floors) -> Result<(VerifiedPolicy, Floors), BundleRefusal> {
        not_older(&self.header, &floors.header)?;
        let epoch = self.policy.epoch();
        if epoch < floors.epoch {
            return Err(BundleRefusal::EpochWentBack { epoch, floor: floors.epoch });
        }
        let (policy, mut risen) = self.policy.clone().admit(floors).map_err(BundleRefusal::Floors)?;
        let VerifiedHeader { number, time_s, hash, .. } = self.header;
        risen.header = HeaderFloor { number, time_s, hash };
        risen.validators.clone_from(&self.handed_on);
        Ok((policy, risen))
    }
}

/// A chain with finality has one block of each number, and time that rises.
fn not_older(header: &VerifiedHeader, floor: &HeaderFloor) -> Result<(), BundleRefusal> {
    let same = header.number == floor.number && header.hash == floor.hash;
    let newer = header.number > floor.number && header.time_s >= floor.time_s;
    if same || newer || *floor == HeaderFloor::default() {
        Ok(())
    } else {
        Err(BundleRefusal::HeaderOlder { number: header.number, floor: floor.number })
    }
}

/// The contract's storage under one verified header.
pub(super) struct Storage<'a> {
    pool: NodePool<'a>,
    root: [u8; 32],
}

impl<'a> Storage<'a> {
    pub(super) fn of(
        nodes: &'a [Vec<u8>],
        header: &VerifiedHeader,
        contract: &Address,
    ) -> Result<Self, BundleRefusal> {
        let refused = BundleRefusal::AccountProof;
        let pool = NodePool::new(nodes).map_err(|source| refused(source.into()))?;
        let account = pool
            .value(&header.state_root, &keccak256(&[&contract.0]))
            .map_err(|source| refused(source.into()))?
            .ok_or_else(|| refused(ProofError::Absent))?;
        let root = storage_root_of(account).map_err(|source| refused(ProofError::Value(source)))?;
        Ok(Self { pool, root })
    }

    /// The word in a slot; zeroes where the proof shows that nothing was ever written.
    pub(super) fn word(&self, slot: &Slot) -> Result<Word, ProofError> {
        let mut word = [0; 32];
        let Some(value) = self.pool.value(&self.root, &keccak256(&[slot]))? else { return Ok(word) };
        let mut items = Items::new(value);
        let bytes =
            items.bytes().and_then(|bytes| items.finish().map(|()| bytes)).map_err(ProofError::Value)?;
        // A zero is not stored, and leading zeroes are not written.
        if bytes.first().is_none_or(|first| *first == 0) {
            return Err(ProofError::Value(RlpError::NotCanonical));
        }
        let at = word
            .len()
            .checked_sub(bytes.len())
            .ok_or(ProofError::Value(RlpError::Length { has: bytes.len(), wanted: 32 }))?;
        word[at..].copy_from_slice(bytes);
        Ok(word)
    }

    fn words<const N: usize>(&self, slots: &[Slot; N], path: ClaimPath) -> Result<[Word; N], BundleRefusal> {
        let mut words = [[0; 32]; N];
        for (word, slot) in words.iter_mut().zip(slots) {
            *word = self.word(slot).map_err(|source| BundleRefusal::StorageProof { path, source })?;
        }
        Ok(words)
    }

    fn revoked(&self, pins: &Pins) -> BTreeMap<RelationshipId, u64> {
        let of = |id: &RelationshipId| {
            let [_, second] = slots::consent(id);
            let version = words::revoked(&self.word(&second).ok()?);
            (version > 0).then_some((*id, version))
        };
        pins.relationships.keys().filter_map(of).collect()
    }
}

/// An account is `[nonce, balance, storage root, code hash]` (Yellow Paper, §4.1).
pub(crate) fn storage_root_of(account: &[u8]) -> Result<[u8; 32], RlpError> {
    let mut fields = Items::of_list(account)?;
    fields.bytes()?;
    fields.bytes()?;
    let root = fields.fixed()?;
    fields.fixed::<32>()?;
    fields.finish()?;
    Ok(root)
}

fn at(list: &'static str, index: usize) -> ClaimPath {
    ClaimPath { list, index: Some(index) }
}

const EPOCH: ClaimPath = ClaimPath { list: "epoch", index: None };

/// What the proofs show for each claim, in the order of the claims.
struct Slots {
    epoch: u64,
    participants: Vec<[Word; 2]>,
    consents: Vec<[Word; 2]>,
    /// None for a device that is not pinned: nobody knows whose home key its slot is under.
    bindings: Vec<Option<Word>>,
    emergencies: Vec<[Word; 3]>,
    successions: Vec<[Word; 2]>,
}

impl Slots {
    fn prove(storage: &Storage<'_>, claims: &Claims, pins: &Pins) -> Result<Self, BundleRefusal> {
        let [epoch] = storage.words(&[slots::EPOCH], EPOCH)?;
        let epoch = words::number(&epoch).ok_or(BundleRefusal::SlotMismatch(EPOCH))?;
        let mut proven = Self {
            epoch,
            participants: Vec::new(),
            consents: Vec::new(),
            bindings: Vec::new(),
            emergencies: Vec::new(),
            successions: Vec::new(),
        };
        for (nth, claim) in claims.participants.iter().enumerate() {
            let slots = slots::participant(&claim.id);
            proven.participants.push(storage.words(&slots, at("participants", nth))?);
        }
        for (nth, signed) in claims.consents.iter().enumerate() {
            let slots = slots::consent(&signed.grant.relationship);
            proven.consents.push(storage.words(&slots, at("consents", nth))?);
        }
        for (nth, signed) in claims.bindings.iter().enumerate() {
            let slot = pins
                .devices
                .get(&signed.commitment)
                .map(|pin| slots::binding(&slots::binding_key(&pin.home_key, &signed.commitment)));
            let word = slot.map(|slot| storage.words(&[slot], at("bindings", nth))).transpose()?;
            proven.bindings.push(word.map(|[word]| word));
        }
        for (nth, signed) in claims.emergencies.iter().enumerate() {
            let slots = slots::emergency(&signed.emergency.pseudonym, &signed.emergency.domain);
            proven.emergencies.push(storage.words(&slots, at("emergencies", nth))?);
        }
        for (nth, claim) in claims.successions.iter().enumerate() {
            let slots = slots::relationship_keys(&claim.relationship);
            proven.successions.push(storage.words(&slots, at("successions", nth))?);
        }
        Ok(proven)
    }

    /// Whether each claim is what its slot holds, word by word. Two values are the ledger's alone and not claimed: the revoked version,
    /// and whether an emergency was reviewed.
    fn hold(&self, claims: &Claims) -> Result<(), BundleRefusal> {
        let same = |good: bool, path| if good { Ok(()) } else { Err(BundleRefusal::SlotMismatch(path)) };
        same(claims.epoch == self.epoch, EPOCH)?;
        for (nth, (claim, shown)) in claims.participants.iter().zip(&self.participants).enumerate() {
            same(words::participant(claim) == *shown, at("participants", nth))?;
        }
        for (nth, (signed, shown)) in claims.consents.iter().zip(&self.consents).enumerate() {
            let revoked = words::revoked(&shown[1]);
            same(words::consent(&signed.grant, revoked) == *shown, at("consents", nth))?;
        }
        for (nth, (signed, shown)) in claims.bindings.iter().zip(&self.bindings).enumerate() {
            let claimed = words::binding(signed.version, signed.bound);
            same(shown.is_none_or(|shown| claimed == shown), at("bindings", nth))?;
        }
        for (nth, (signed, shown)) in claims.emergencies.iter().zip(&self.emergencies).enumerate() {
            let reviewed = words::reviewed(&shown[2]);
            same(words::emergency(&signed.emergency, reviewed) == *shown, at("emergencies", nth))?;
        }
        // The ledger has the newest keys; those before are held by the signatures that lead there.
        let newest: BTreeMap<_, _> = claims
            .successions
            .iter()
            .enumerate()
            .map(|(nth, claim)| (claim.relationship, (nth, claim)))
            .collect();
        for (nth, claim) in newest.into_values() {
            let claimed = words::relationship_keys(&claim.grant_key, &claim.revoke_key, claim.version);
            same(claimed == self.successions[nth], at("successions", nth))?;
        }
        Ok(())
    }
}

fn signed_by(digest: &[u8; 32], signature: &EcdsaSignature, keys: &[Address]) -> Result<(), SignerError> {
    let by = signer(digest, signature)?;
    if keys.contains(&by) { Ok(()) } else { Err(SignerError::Other) }
}

/// Every signature by the key that it needs. What is not pinned has no such key; [`check_pinned`] refuses it. A claim that comes again
/// is what its slot holds like the first one, whose signature was good, so nobody makes work by repeating.
fn check_signatures(claims: &Claims, pins: &Pins, keys: &Keys) -> Result<(), BundleRefusal> {
    let domain = &pins.domain;
    let mut seen = BTreeSet::new();
    for (nth, claim) in claims.participants.iter().enumerate() {
        if !seen.insert((&claim.id.0[..], &[][..])) {
            continue;
        }
        let digest = participant_key_digest(&claim.id, &claim.hpke_public_key, claim.key_version, domain);
        let path = at("participants", nth);
        signed_by(&digest, &claim.signature, &[Address(claim.id.0)])
            .map_err(|source| BundleRefusal::ParticipantSignature { path, source })?;
    }
    for (nth, signed) in claims.consents.iter().enumerate() {
        let Some(pin) = pins.relationships.get(&signed.grant.relationship) else { continue };
        if !seen.insert((&signed.grant.relationship.0[..], &[][..])) {
            continue;
        }
        let path = at("consents", nth);
        let keys = keys.granting(&signed.grant.relationship, &pin.grant_key);
        signed_by(&grant_digest(&signed.grant, domain), &signed.signature, &keys)
            .map_err(|source| BundleRefusal::GrantSignature { path, source })?;
    }
    for (nth, signed) in claims.revocations.iter().enumerate() {
        let Some(pin) = pins.relationships.get(&signed.revocation.relationship) else { continue };
        let (path, digest) = (at("revocations", nth), revocation_digest(&signed.revocation, domain));
        let keys = keys.revoking(&signed.revocation.relationship, [&pin.grant_key, &pin.revoke_key]);
        signed_by(&digest, &signed.signature, &keys)
            .map_err(|source| BundleRefusal::RevocationSignature { path, source })?;
    }
    for (nth, signed) in claims.bindings.iter().enumerate() {
        let Some(pin) = pins.devices.get(&signed.commitment) else { continue };
        if !seen.insert((&signed.commitment.0[..], &[][..])) {
            continue;
        }
        let path = at("bindings", nth);
        let digest = binding_digest(&signed.commitment, signed.bound, signed.version, domain);
        signed_by(&digest, &signed.signature, &[pin.home_key])
            .map_err(|source| BundleRefusal::BindingSignature { path, source })?;
    }
    for (nth, signed) in claims.emergencies.iter().enumerate() {
        if !seen.insert((&signed.emergency.pseudonym.0[..], &signed.emergency.domain.0[..])) {
            continue;
        }
        let path = at("emergencies", nth);
        let digest = emergency_digest(&signed.emergency, domain);
        signed_by(&digest, &signed.signature, &[Address(signed.emergency.domain.0)])
            .map_err(|source| BundleRefusal::EmergencySignature { path, source })?;
    }
    Ok(())
}

/// Only what was pinned here may be claimed: the gateway answers for its own patients.
fn check_pinned(claims: &Claims, pins: &Pins) -> Result<(), BundleRefusal> {
    let relationship = |id| pins.relationships.contains_key(id);
    let consents = claims.consents.iter().position(|signed| !relationship(&signed.grant.relationship));
    let revocations =
        claims.revocations.iter().position(|signed| !relationship(&signed.revocation.relationship));
    let bindings = claims.bindings.iter().position(|signed| !pins.devices.contains_key(&signed.commitment));
    let emergencies = claims
        .emergencies
        .iter()
        .position(|signed| !pins.pseudonyms.contains_key(&signed.emergency.pseudonym));
    let successions = claims.successions.iter().position(|claim| !relationship(&claim.relationship));
    let lists = [
        ("consents", consents),
        ("revocations", revocations),
        ("bindings", bindings),
        ("emergencies", emergencies),
        ("successions", successions),
    ];
    match lists.into_iter().find_map(|(list, stranger)| Some(at(list, stranger?))) {
        Some(path) => Err(BundleRefusal::NotPinned(path)),
        None => Ok(()),
    }
}

/// An emergency is of a participant of this bundle that is active and may break the glass.
fn check_domains(claims: &Claims) -> Result<(), BundleRefusal> {
    let is_allowed = |domain: &RecipientId| {
        claims
            .participants
            .iter()
            .any(|claim| claim.id == *domain && claim.emergency && claim.status == RecipientStatus::Active)
    };
    match claims.emergencies.iter().position(|signed| !is_allowed(&signed.emergency.domain)) {
        Some(nth) => Err(BundleRefusal::EmergencyStranger(at("emergencies", nth))),
        None => Ok(()),
    }
}

/// An emergency says who and why, and lasts four hours at most, as the contract has it.
fn check_emergencies(claims: &Claims) -> Result<(), BundleRefusal> {
    if let Some(nth) = claims.emergencies.iter().position(|signed| !signed.emergency.is_named()) {
        return Err(BundleRefusal::EmergencyUnnamed(at("emergencies", nth)));
    }
    let is_long = |signed: &SignedEmergency| {
        signed.emergency.until.saturating_sub(signed.emergency.from) > EMERGENCY_MAX_S
    };
    match claims.emergencies.iter().position(is_long) {
        Some(nth) => Err(BundleRefusal::EmergencyTooLong(at("emergencies", nth))),
        None => Ok(()),
    }
}

/// What the checked claims come to.
fn authentic(
    claims: &Claims,
    pins: &Pins,
    header: &VerifiedHeader,
    revoked: &BTreeMap<RelationshipId, u64>,
) -> Authentic {
    let grants = claims.consents.iter().filter_map(|signed| {
        let pin = pins.relationships.get(&signed.grant.relationship)?;
        Some((pin.patient, signed.grant.clone()))
    });
    let shown = revoked
        .iter()
        .map(|(relationship, version)| Revocation { relationship: *relationship, version: *version });
    let devices = claims.bindings.iter().filter(|signed| signed.bound).filter_map(|signed| {
        let pin = pins.devices.get(&signed.commitment)?;
        let station = Some(Station { mac: pin.mac, index: pin.index });
        let (device, classes) = (pin.device.clone(), pin.classes.clone());
        Some(BoundDevice { device, patient: pin.patient, classes, station })
    });
    let emergencies = claims.emergencies.iter().filter_map(|signed| {
        let patient = *pins.pseudonyms.get(&signed.emergency.pseudonym)?;
        Some(EmergencyAccess { patient, emergency: signed.emergency.clone(), is_direct: false })
    });
    let recipients = claims.participants.iter().map(|claim| RecipientEntry {
        id: claim.id,
        hpke_public_key: claim.hpke_public_key,
        status: claim.status,
        kind: claim.kind,
        emergency: claim.emergency,
    });
    Authentic {
        epoch: claims.epoch,
        freshness: Freshness::Proven { as_of: header.time_s, staleness_max_s: pins.staleness_max_s },
        recipients: recipients.collect(),
        devices: devices.collect(),
        grants: grants.collect(),
        revocations: claims.revocations.iter().map(|signed| signed.revocation.clone()).chain(shown).collect(),
        emergencies: emergencies.collect(),
    }
}

#[cfg(test)]
mod tests;
