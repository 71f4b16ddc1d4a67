//! What the events come to: the newest signed message about each thing, in memory.
//!
//! It is a cache. What counts is in the contract's slots, and where a slot has a newer version than the index, the bundle asks the
//! chain for that one event ([`crate::Follower::bundle`]). So the index may be full: anybody can grant in relationships of their own
//! making, for nothing where gas is free, and must not be able to keep another patient's grant from a gateway.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{
    Commitment, Pseudonym, RecipientKind, RecipientStatus, RelationshipId, SUCCESSIONS_MAX, SignedBinding,
    SignedEmergency, SignedGrant, SignedRevocation, Succession, Watch,
};

use ledger_client::verify::Address;

use crate::convert::SignedParticipantKey;
use crate::event::{Event, LedgerEvent};
use crate::succession::{Recovery, SignedCustody};

/// Most relationships, and most bindings, each of which takes some 300 bytes: a region's patients in 80 MB. Whatever comes later is
/// fetched when a gateway watches it.
pub const ENTRIES_MAX: usize = 262_144;
/// Most participants and emergencies: the governors let them in.
pub const PARTICIPANTS_MAX: usize = 16_384;
/// Domains that may break the glass in each bundle for who watches a pseudonym: a region's; each costs a bundle some 1.4 kB.
pub(crate) const EMERGENCY_DOMAINS_MAX: usize = 64;

/// A relationship's newest messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consent {
    /// The newest grant.
    pub grant: Option<SignedGrant>,
    /// The revocation of the highest version.
    pub revocation: Option<SignedRevocation>,
    /// Keys that followed the first ones; none where those hold, which is usual.
    pub(crate) line: Option<Box<Line>>,
    /// Block of the newest grant.
    pub granted: u64,
    /// Block of the last change.
    pub changed: u64,
}

/// A relationship's keys after the first ones. `keys` have the versions from 1 on, without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Line {
    /// One more than [`SUCCESSIONS_MAX`] at most: a gateway follows no further.
    pub(crate) keys: Vec<Succession>,
    /// The newest.
    custody: Option<SignedCustody>,
    /// The newest, and its block.
    recovery: Option<(Recovery, u64)>,
}

impl Consent {
    fn line(&mut self) -> &mut Line {
        self.line.get_or_insert_default()
    }

    fn succeed(&mut self, next: Succession, block: u64) {
        let line = self.line();
        if next.version == line.keys.len() as u64 + 1 && line.keys.len() <= SUCCESSIONS_MAX {
            line.keys.push(next);
            self.changed = self.changed.max(block);
        }
    }

    /// The newest grant, unless it is revoked.
    #[must_use]
    pub fn standing(&self) -> Option<&SignedGrant> {
        let revoked = self.revocation.as_ref().map_or(0, |signed| signed.revocation.version);
        self.grant.as_ref().filter(|signed| signed.grant.version > revoked)
    }
}

/// A participant, by the governors' word and its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// None for one who takes no part.
    pub status: Option<RecipientStatus>,
    /// What it is to its patients.
    pub kind: RecipientKind,
    /// Whether it may break the glass.
    pub emergency: bool,
    /// Its newest key.
    pub key: Option<SignedParticipantKey>,
    /// Block of the last change.
    pub changed: u64,
}

impl Default for Participant {
    fn default() -> Self {
        Self { status: None, kind: RecipientKind::Other, emergency: false, key: None, changed: 0 }
    }
}

/// What is known of the contract's state from its events.
#[derive(Debug, Clone)]
pub struct Index {
    entries_max: usize,
    pub(crate) consents: BTreeMap<RelationshipId, Consent>,
    pub(crate) bindings: BTreeMap<Commitment, (SignedBinding, u64)>,
    pub(crate) participants: BTreeMap<RecipientId, Participant>,
    pub(crate) emergencies: BTreeMap<(Pseudonym, RecipientId), (SignedEmergency, u64)>,
    by_grantee: BTreeMap<RecipientId, BTreeSet<RelationshipId>>,
    /// Block of the last change of who may break the glass.
    domains_changed: u64,
    /// Block of the last change of something that had no place.
    left_out: Option<u64>,
}

/// The entry of `key`; none where it would be a new one of too many.
fn place<K: Ord, V: Default>(map: &mut BTreeMap<K, V>, key: K, max: usize) -> Option<&mut V> {
    let full = map.len() >= max;
    match map.entry(key) {
        Entry::Occupied(there) => Some(there.into_mut()),
        Entry::Vacant(_) if full => None,
        Entry::Vacant(free) => Some(free.insert(V::default())),
    }
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V, max: usize) -> Option<()> {
    (map.len() < max || map.contains_key(&key)).then(|| drop(map.insert(key, value)))
}

impl Default for Index {
    fn default() -> Self {
        Self::new(ENTRIES_MAX)
    }
}

impl Index {
    /// An index with room for so many relationships and so many bindings.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            consents: BTreeMap::new(),
            bindings: BTreeMap::new(),
            participants: BTreeMap::new(),
            emergencies: BTreeMap::new(),
            by_grantee: BTreeMap::new(),
            domains_changed: 0,
            left_out: None,
        }
    }

    /// Takes the next event. Events come in their order; an older one that was fetched again changes nothing.
    pub(crate) fn apply(&mut self, event: &LedgerEvent) {
        if self.take(event, self.entries_max, PARTICIPANTS_MAX).is_none() {
            self.left_out = self.left_out.max(Some(event.block));
        }
    }

    /// Takes an event that was asked for because somebody watches it: there is always a place.
    pub(crate) fn insert(&mut self, event: &LedgerEvent) {
        // What is watched is bounded by who watches.
        let _placed: Option<()> = self.take(event, usize::MAX, usize::MAX);
    }

    fn take(&mut self, event: &LedgerEvent, entries_max: usize, participants_max: usize) -> Option<()> {
        let block = event.block;
        match &event.event {
            Event::Granted(signed) => {
                let id = signed.grant.relationship;
                let consent = place(&mut self.consents, id, entries_max)?;
                if consent.grant.as_ref().is_some_and(|known| known.grant.version >= signed.grant.version) {
                    return Some(());
                }
                let before = consent.grant.replace(signed.clone()).map(|before| before.grant.grantee);
                (consent.granted, consent.changed) = (block, consent.changed.max(block));
                if let Some(before) = before.filter(|before| *before != signed.grant.grantee)
                    && let Some(relationships) = self.by_grantee.get_mut(&before)
                {
                    relationships.remove(&id);
                }
                self.by_grantee.entry(signed.grant.grantee).or_default().insert(id);
            }
            Event::Revoked(signed) => {
                let consent = place(&mut self.consents, signed.revocation.relationship, entries_max)?;
                let known = consent.revocation.as_ref().map_or(0, |known| known.revocation.version);
                if signed.revocation.version > known {
                    consent.revocation = Some(signed.clone());
                    consent.changed = consent.changed.max(block);
                }
            }
            Event::DeviceBound { key, binding } => {
                let newer = self.bindings.get(key).is_none_or(|(known, _)| known.version < binding.version);
                if newer {
                    replace(&mut self.bindings, *key, (binding.clone(), block), entries_max)?;
                }
            }
            Event::ParticipantSet { participant, status, kind, emergency } => {
                let entry = place(&mut self.participants, *participant, participants_max)?;
                if block >= entry.changed {
                    let concerns = entry.emergency || *emergency;
                    (entry.status, entry.kind, entry.emergency) = (*status, *kind, *emergency);
                    entry.changed = block;
                    if concerns {
                        self.domains_changed = self.domains_changed.max(block);
                    }
                }
            }
            Event::ParticipantKeySet(signed) => {
                let entry = place(&mut self.participants, signed.participant, participants_max)?;
                if entry.key.as_ref().is_none_or(|known| known.version < signed.version) {
                    entry.key = Some(signed.clone());
                    entry.changed = entry.changed.max(block);
                    if entry.emergency {
                        self.domains_changed = self.domains_changed.max(block);
                    }
                }
            }
            Event::EmergencyOpened(signed) => {
                let key = (signed.emergency.pseudonym, signed.emergency.domain);
                let known = self.emergencies.get(&key).map_or(0, |(known, _)| known.emergency.number);
                if signed.emergency.number > known {
                    replace(&mut self.emergencies, key, (signed.clone(), block), participants_max)?;
                }
            }
            Event::KeysRotated(_)
            | Event::CustodiansSet(_)
            | Event::RecoveryBegun(_)
            | Event::KeysRecovered(_) => self.hand_on(event, entries_max)?,
            // Nothing that a bundle is made of.
            Event::EmergencyReviewed { .. }
            | Event::Anchored(_)
            | Event::ChangeApproved { .. }
            | Event::ChangeOpposed { .. }
            | Event::CouncilSet(_) => {}
        }
        Some(())
    }

    /// As [`Self::take`], of keys that follow others.
    #[expect(clippy::wildcard_enum_match_arm, reason = "`take` has the others")]
    fn hand_on(&mut self, event: &LedgerEvent, entries_max: usize) -> Option<()> {
        let block = event.block;
        match &event.event {
            Event::KeysRotated(signed) => {
                let consent = place(&mut self.consents, signed.relationship, entries_max)?;
                consent.succeed(signed.clone(), block);
            }
            Event::CustodiansSet(signed) => {
                let consent = place(&mut self.consents, signed.relationship, entries_max)?;
                let line = consent.line();
                if line.custody.as_ref().is_none_or(|known| known.version < signed.version) {
                    line.custody = Some(signed.clone());
                }
            }
            Event::RecoveryBegun(recovery) => {
                let consent = place(&mut self.consents, recovery.next.relationship, entries_max)?;
                let line = consent.line();
                if line.recovery.as_ref().is_none_or(|(_, known)| *known <= block) {
                    line.recovery = Some((recovery.clone(), block));
                }
            }
            Event::KeysRecovered(next) => {
                let consent = place(&mut self.consents, next.relationship, entries_max)?;
                // The contract let these custodians recover and no others, so the newest of both belong together.
                let line = consent.line();
                let asked = line.recovery.as_ref().filter(|(asked, _)| asked.next == *next);
                let succession =
                    asked.zip(line.custody.as_ref()).and_then(|((asked, _), named)| asked.succession(named));
                if let Some(succession) = succession {
                    consent.succeed(succession, block);
                }
            }
            _ => {}
        }
        Some(())
    }

    /// Grant key and revoke-only key of a relationship that has handed on; none of one whose first keys hold, or that is not known.
    #[must_use]
    pub fn newest_keys(&self, id: &RelationshipId) -> Option<[Address; 2]> {
        let newest = self.consents.get(id)?.line.as_ref()?.keys.last()?;
        Some([Address(newest.grant_key), Address(newest.revoke_key)])
    }

    /// The domains that may break the glass at present, at most [`EMERGENCY_DOMAINS_MAX`].
    pub(crate) fn emergency_domains(&self) -> impl Iterator<Item = &RecipientId> {
        let may = |entry: &Participant| entry.emergency && entry.status == Some(RecipientStatus::Active);
        let domains = self.participants.iter().filter(move |(_, entry)| may(entry) && entry.key.is_some());
        domains.map(|(id, _)| id).take(EMERGENCY_DOMAINS_MAX)
    }

    /// A relationship.
    #[must_use]
    pub fn consent(&self, id: &RelationshipId) -> Option<&Consent> {
        self.consents.get(id)
    }

    /// The relationships whose newest grant is to this domain.
    pub fn consents_to(&self, grantee: &RecipientId) -> impl Iterator<Item = (&RelationshipId, &Consent)> {
        self.by_grantee.get(grantee).into_iter().flatten().filter_map(|id| self.consents.get_key_value(id))
    }

    /// A participant.
    #[must_use]
    pub fn participant(&self, id: &RecipientId) -> Option<&Participant> {
        self.participants.get(id)
    }

    /// Every participant.
    pub fn participants(&self) -> impl Iterator<Item = (&RecipientId, &Participant)> {
        self.participants.iter()
    }

    /// The newest emergency of each domain for this pseudonym.
    pub fn emergencies_of(&self, pseudonym: &Pseudonym) -> impl Iterator<Item = &SignedEmergency> {
        let (first, last) = ((*pseudonym, RecipientId([0; 20])), (*pseudonym, RecipientId([0xff; 20])));
        self.emergencies.range(first..=last).map(|(_, (signed, _))| signed)
    }

    /// The newest emergency of this domain for each pseudonym.
    pub fn emergencies_by(&self, domain: &RecipientId) -> impl Iterator<Item = &SignedEmergency> {
        self.emergencies
            .values()
            .map(|(signed, _)| signed)
            .filter(move |signed| signed.emergency.domain == *domain)
    }

    /// The block of the last change of what is watched, of the participants that it names and of who may break the glass included. At or above the truth: what has
    /// no place in the index counts as changed.
    #[must_use]
    pub fn last_change(&self, watch: &Watch) -> u64 {
        let left_out = self.left_out.unwrap_or(0);
        let consents = watch.relationships.iter().map(|id| match self.consents.get(id) {
            Some(consent) => {
                let grantee =
                    consent.grant.as_ref().and_then(|signed| self.participants.get(&signed.grant.grantee));
                consent.changed.max(grantee.map_or(0, |grantee| grantee.changed))
            }
            None => left_out,
        });
        let bindings =
            watch.bindings.iter().map(|key| self.bindings.get(key).map_or(left_out, |(_, changed)| *changed));
        let emergencies = watch.pseudonyms.iter().flat_map(|pseudonym| {
            let (first, last) = ((*pseudonym, RecipientId([0; 20])), (*pseudonym, RecipientId([0xff; 20])));
            self.emergencies.range(first..=last).map(|((_, domain), (_, changed))| {
                (*changed).max(self.participants.get(domain).map_or(0, |domain| domain.changed))
            })
        });
        let domains = (!watch.pseudonyms.is_empty()).then_some(self.domains_changed);
        consents.chain(bindings).chain(emergencies).chain(domains).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
