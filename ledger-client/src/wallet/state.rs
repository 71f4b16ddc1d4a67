//! What a wallet remembers, and what it signs next.
//!
//! A version is written down before what carries it leaves the wallet, so that no version is ever signed twice.

mod format;
mod homes;

use caregate_protocol::id::{DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{
    Classes, ClassesError, EcdsaSignature, GRANTS_MAX, Grant, Mac, Pseudonym, RelationshipId, Revocation,
    SignedGrant, SignedRevocation,
};
use thiserror::Error;
use zeroize::Zeroizing;

pub use format::WalletFormatError;

use super::{KeyError, PatientSeed, RelationshipKeys};
use crate::verify::{Address, Domain, LABEL_BYTES_MAX, NextKeys, slots};

/// Most gateways of one patient: homes and the clinics where they stayed.
pub const HOMES_MAX: usize = 64;
/// Most erasures that a wallet remembers; the oldest make room, and of those no more receipts can be asked for.
pub const ERASED_MAX: usize = 64;
/// Longest name of a gateway, in bytes: as in its certificate.
pub const GATEWAY_BYTES_MAX: usize = 64;

/// For which ledger the wallet signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Chain and contract.
    pub domain: Domain,
    /// Who seals, for enrolment files; as many as a header may name.
    pub validators: Vec<Address>,
}

/// One recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relationship {
    /// The patient's name for it; 1 to [`LABEL_BYTES_MAX`] bytes, each once.
    pub label: String,
    /// Its domain's address.
    pub grantee: RecipientId,
    /// Counts up when a relationship with the same domain begins anew.
    pub number: u32,
    /// Highest grant version that was signed; 0 for none.
    pub granted: u64,
    /// Highest version that was revoked; 0 for none.
    pub revoked: u64,
    /// How often its keys were replaced, as far as the wallet knows.
    pub rotated: u64,
    /// Its first keys, grant and revoke-only, where they are of another wallet, in whose place custodians put this one.
    pub first: Option<(Address, Address)>,
}

/// One device at a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// As it names itself.
    pub device: DeviceId,
    /// Its address on the sensor network.
    pub mac: Mac,
    /// Highest version that was signed; 0 for none.
    pub version: u64,
    /// What that version says.
    pub bound: bool,
    /// Of which class its readings are, where the patient says another than the code table.
    pub classes: Classes,
}

/// The secret from which the salts towards one gateway come: random, and nowhere but in the wallet. Wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct HomeSecret(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for HomeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HomeSecret(…)")
    }
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its name; 1 to [`GATEWAY_BYTES_MAX`] bytes, each once.
    pub gateway: String,
    /// The patient's pseudonym in its segments.
    pub patient: PatientId,
    /// Whether the gateway watches the patient's pseudonym for break-glass.
    pub emergency: bool,
    /// What the patient wears there.
    pub devices: Vec<Device>,
    /// Of its salts; none in a wallet of before, whose salts the seed gives.
    pub secret: Option<HomeSecret>,
}

/// A gateway at which nothing of the patient is to be any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedHome {
    /// Its name.
    pub gateway: String,
    /// The pseudonym there, which is never used again.
    pub patient: PatientId,
}

/// A patient's wallet.
#[derive(Debug)]
pub struct Wallet {
    /// From which all keys come.
    pub seed: PatientSeed,
    /// None until it is set.
    pub ledger: Option<Ledger>,
    /// At most [`GRANTS_MAX`].
    pub relationships: Vec<Relationship>,
    /// At most [`HOMES_MAX`].
    pub homes: Vec<Home>,
    /// At most [`ERASED_MAX`], the oldest first.
    pub erased: Vec<ErasedHome>,
    /// Which pseudonym for emergencies is in use, from 0: raised when it is to be another.
    pub pseudonym: u32,
}

/// What a wallet won't do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WalletError {
    /// No ledger was set.
    #[error("the wallet knows no ledger yet")]
    NoLedger,
    /// The ledger has keys of this relationship that are not this wallet's.
    #[error("the keys of `{0}` were replaced by keys of another wallet")]
    OtherKeys(String),
    /// There are no more of them.
    #[error("every pseudonym for emergencies was used")]
    Pseudonyms,
    /// Custodians have not put this wallet's keys in place yet.
    #[error("the ledger has not put this wallet's keys in place for `{0}` yet")]
    NotYet(String),
    /// No relationship has this label.
    #[error("no relationship is called `{0}`")]
    NoRelationship(String),
    /// No gateway has this name.
    #[error("no gateway is called `{0}`")]
    NoGateway(String),
    /// A label, gateway, device or relationship for the second time.
    #[error("{what} `{name}` is there already")]
    Duplicate {
        /// Which.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Empty, too long, or with control characters.
    #[error("{what} must have 1 to {max} bytes and no control characters")]
    Name {
        /// Which.
        what: &'static str,
        /// Most bytes.
        max: usize,
    },
    /// One more than there may be.
    #[error("no more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// The last version was used: the relationship is revoked for good, or the device can't change any more.
    #[error("{0}: no version is left")]
    NoVersion(&'static str),
    /// A grant that grants nothing.
    #[error("a grant names at least one class and one purpose, and ends after it begins")]
    EmptyGrant,
    /// A device that is bound keeps the classes that it was bound with.
    #[error("{0} is bound with the classes that it has; release it first")]
    Bound(DeviceId),
    /// A rule that there can't be.
    #[error(transparent)]
    Classes(#[from] ClassesError),
    /// A device's address that no one station can have.
    #[error("{0} is not a station's own MAC address")]
    Mac(Mac),
    /// Takes a broken hash.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a grant allows; masks as in [`Grant`], times in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bit `1 << DataClass`.
    pub classes: u32,
    /// Bit `1 << Purpose`.
    pub purposes: u32,
    /// First second at which it holds.
    pub from: u64,
    /// First second at which it holds no more.
    pub until: u64,
    /// How long it may outlive a fresh policy.
    pub stale_bound_s: u32,
}

fn name(what: &'static str, text: &str, max: usize) -> Result<(), WalletError> {
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        Err(WalletError::Name { what, max })
    } else {
        Ok(())
    }
}

impl Wallet {
    /// A wallet that knows nobody.
    #[must_use]
    pub fn new(seed: PatientSeed) -> Self {
        let (relationships, homes, erased) = (Vec::new(), Vec::new(), Vec::new());
        Self { seed, ledger: None, relationships, homes, erased, pseudonym: 0 }
    }

    /// The pseudonym for emergencies: what is on the patient's card, and what a gateway watches for.
    #[must_use]
    pub fn emergency_pseudonym(&self) -> Pseudonym {
        self.seed.pseudonym(self.pseudonym)
    }

    /// Takes another pseudonym for emergencies from now on: whoever saw an emergency of before on the ledger does not know the next one for
    /// this patient's. Gateways watch for the old one until the patient is enrolled there again.
    ///
    /// # Errors
    /// [`WalletError::Pseudonyms`].
    pub fn renew_pseudonym(&mut self) -> Result<(), WalletError> {
        self.pseudonym = self.pseudonym.checked_add(1).ok_or(WalletError::Pseudonyms)?;
        Ok(())
    }

    /// For which ledger it signs.
    ///
    /// # Errors
    /// [`WalletError::NoLedger`].
    pub fn ledger(&self) -> Result<&Ledger, WalletError> {
        self.ledger.as_ref().ok_or(WalletError::NoLedger)
    }

    /// A relationship by its label.
    ///
    /// # Errors
    /// [`WalletError::NoRelationship`].
    pub fn relationship(&self, label: &str) -> Result<&Relationship, WalletError> {
        let found = self.relationships.iter().find(|known| known.label == label);
        found.ok_or_else(|| WalletError::NoRelationship(label.to_owned()))
    }

    fn relationship_mut(&mut self, label: &str) -> Result<&mut Relationship, WalletError> {
        let found = self.relationships.iter_mut().find(|known| known.label == label);
        found.ok_or_else(|| WalletError::NoRelationship(label.to_owned()))
    }

    /// The first keys of a relationship, after which it is named; of one that was recovered those that came first in this wallet.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn keys(&self, label: &str) -> Result<RelationshipKeys, WalletError> {
        let known = self.relationship(label)?;
        match known.first {
            None => Ok(self.seed.relationship_keys(&known.grantee, known.number)?),
            Some(_) => self.current_keys(label),
        }
    }

    /// The keys of a relationship by now, which grant and hand on. Revocations are signed with [`Self::keys`]: the first ones may revoke for
    /// good, also at a gateway that has heard of no others.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn current_keys(&self, label: &str) -> Result<RelationshipKeys, WalletError> {
        let Relationship { grantee, number, rotated, .. } = self.relationship(label)?;
        Ok(match rotated {
            0 => self.seed.relationship_keys(grantee, *number)?,
            version => self.seed.next_relationship_keys(grantee, *number, *version)?,
        })
    }

    /// A relationship's name.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn name(&self, label: &str) -> Result<RelationshipId, WalletError> {
        Ok(match self.relationship(label)?.first {
            Some((grant_key, revoke_key)) => slots::relationship(&grant_key, &revoke_key),
            None => self.keys(label)?.relationship(),
        })
    }

    /// The keys that come next in a relationship.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn next_keys(&self, label: &str) -> Result<NextKeys, WalletError> {
        let Relationship { grantee, number, rotated, .. } = self.relationship(label)?;
        let version =
            rotated.checked_add(1).ok_or(WalletError::NoVersion("the keys can't be replaced any more"))?;
        let keys = self.seed.next_relationship_keys(grantee, *number, version)?;
        let (grant_key, revoke_key) = (keys.grant.address(), keys.revoke.address());
        Ok(NextKeys { relationship: self.name(label)?, grant_key, revoke_key, version })
    }

    /// Signs that the next keys of a relationship take the place of those by now.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn sign_rotation(&self, label: &str) -> Result<(NextKeys, EcdsaSignature), WalletError> {
        let (domain, next) = (self.ledger()?.domain, self.next_keys(label)?);
        Ok((next, self.current_keys(label)?.grant.sign_rotation(&next, &domain)))
    }

    /// Signs who may recover a relationship, by their commitment.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn sign_custody(
        &self,
        label: &str,
        custodians: &[u8; 32],
        version: u64,
    ) -> Result<EcdsaSignature, WalletError> {
        let (domain, name) = (self.ledger()?.domain, self.name(label)?);
        Ok(self.current_keys(label)?.grant.sign_custody(&name, custodians, version, &domain))
    }

    /// Notes how often the ledger says that keys were replaced, and by which grant key: it must be this wallet's.
    ///
    /// # Errors
    /// [`WalletError::OtherKeys`] where it is another's, [`WalletError::NotYet`] where custodians' word is not in force yet; then nothing is
    /// noted.
    pub fn note_keys(&mut self, label: &str, version: u64, grant_key: &Address) -> Result<(), WalletError> {
        let Relationship { grantee, number, rotated, first, .. } = self.relationship(label)?;
        if first.is_some() && version < *rotated {
            return Err(WalletError::NotYet(label.to_owned()));
        }
        if version > 0 {
            let keys = self.seed.next_relationship_keys(grantee, *number, version)?;
            if keys.grant.address() != *grant_key {
                return Err(WalletError::OtherKeys(label.to_owned()));
            }
        }
        self.relationship_mut(label)?.rotated = version;
        Ok(())
    }

    /// Takes up a relationship of another wallet, in whose place custodians put this one: its keys will be those of `version`.
    ///
    /// # Errors
    /// [`WalletError`], as for [`Self::add_relationship`].
    pub fn recover_relationship(
        &mut self,
        label: &str,
        grantee: RecipientId,
        first: (Address, Address),
        version: u64,
    ) -> Result<(), WalletError> {
        if version == 0 {
            return Err(WalletError::NoVersion("the first keys can't be recovered ones"));
        }
        self.add_relationship(label, grantee)?;
        let known = self.relationship_mut(label)?;
        (known.first, known.rotated) = (Some(first), version);
        Ok(())
    }

    /// Begins a relationship. The first with a domain has number 0, the next 1, and so on.
    ///
    /// # Errors
    /// [`WalletError`]: the label is no name or is there already, or there are too many.
    pub fn add_relationship(
        &mut self,
        label: &str,
        grantee: RecipientId,
    ) -> Result<&Relationship, WalletError> {
        name("a label", label, LABEL_BYTES_MAX)?;
        if self.relationships.iter().any(|known| known.label == label) {
            return Err(WalletError::Duplicate { what: "relationship", name: label.to_owned() });
        }
        if self.relationships.len() >= GRANTS_MAX {
            return Err(WalletError::TooMany { what: "relationships", max: GRANTS_MAX });
        }
        let before =
            self.relationships.iter().filter(|known| known.grantee == grantee).map(|known| known.number);
        let number = before.max().map_or(0, |number| number.saturating_add(1));
        self.relationships.push(Relationship {
            label: label.to_owned(),
            grantee,
            number,
            granted: 0,
            revoked: 0,
            rotated: 0,
            first: None,
        });
        Ok(&self.relationships[self.relationships.len() - 1])
    }

    /// Notes versions that the ledger has: a wallet that was restored from its seed knows none.
    ///
    /// # Errors
    /// [`WalletError::NoRelationship`].
    pub fn note_versions(&mut self, label: &str, granted: u64, revoked: u64) -> Result<(), WalletError> {
        let relationship = self.relationship_mut(label)?;
        relationship.granted = relationship.granted.max(granted);
        relationship.revoked = relationship.revoked.max(revoked);
        Ok(())
    }

    /// Signs the next grant of a relationship. Keep the wallet before handing it on.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn sign_grant(&mut self, label: &str, terms: &Terms) -> Result<SignedGrant, WalletError> {
        if terms.classes == 0 || terms.purposes == 0 || terms.from >= terms.until {
            return Err(WalletError::EmptyGrant);
        }
        let (domain, keys) = (self.ledger()?.domain, self.current_keys(label)?);
        let name = self.name(label)?;
        let relationship = self.relationship_mut(label)?;
        let version = relationship
            .granted
            .max(relationship.revoked)
            .checked_add(1)
            .ok_or(WalletError::NoVersion("the relationship was revoked for good"))?;
        relationship.granted = version;
        let grant = Grant {
            relationship: name,
            grantee: relationship.grantee,
            classes: terms.classes,
            purposes: terms.purposes,
            from: terms.from,
            until: terms.until,
            stale_bound_s: terms.stale_bound_s,
            version,
        };
        Ok(keys.grant.sign_grant(&grant, &domain))
    }

    /// Signs the revocation of all grants of a relationship so far. Keep the wallet before handing it on.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn sign_revocation(&mut self, label: &str) -> Result<SignedRevocation, WalletError> {
        let relationship = self.relationship(label)?;
        // Where nothing was granted yet, the first version is kept from ever counting.
        let version = relationship.granted.max(relationship.revoked).max(1);
        self.sign_revocation_up_to(label, version)
    }

    /// Signs the revocation of every grant that there is or will be: the relationship is over. For whoever does not know the newest
    /// version. Keep the wallet before handing it on.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn sign_revocation_for_good(&mut self, label: &str) -> Result<SignedRevocation, WalletError> {
        self.sign_revocation_up_to(label, u64::MAX)
    }

    fn sign_revocation_up_to(&mut self, label: &str, version: u64) -> Result<SignedRevocation, WalletError> {
        let (domain, keys) = (self.ledger()?.domain, self.keys(label)?);
        let name = self.name(label)?;
        self.relationship_mut(label)?.revoked = version;
        let revocation = Revocation { relationship: name, version };
        Ok(keys.grant.sign_revocation(&revocation, &domain))
    }
}

#[cfg(test)]
mod tests;
