//! Whose a pseudonym is: the gateway's that first brought a record of it, until the ledger revokes that gateway or it is no longer configured.
//! Then it is the next one's that brings a record, for good: one that is set active again is a stranger to what was taken over.
//!
//! It is asked twice of each record: when it comes, and when it is written (`crate::writer`), since another may take over what it is of while
//! it waits.
//!
//! A gateway signs with a key of its own, and any that is configured may store; without this one could write into another's chains, or end
//! them. Known from the store at a start, which keeps for each pseudonym who signed last; beside that in memory, so that it holds from the
//! first record on, also for what is shown before it is stored.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caregate_protocol::id::{PatientId, SignerId};
use caregate_protocol::segment::signer_id;
use ledger_chain::RevokedGateways;

use crate::config::Peers;

/// By whose word a gateway owns nothing any more.
pub trait Revocations: Debug + Send + Sync {
    /// Whether the gateway of this name is revoked.
    fn revokes(&self, gateway: &str) -> bool;
}

impl Revocations for RevokedGateways {
    fn revokes(&self, gateway: &str) -> bool {
        self.contains(gateway)
    }
}

/// Gateways by pseudonym; cheap to clone. As many entries as the store has pseudonyms: each brought a record.
#[derive(Debug, Clone)]
pub struct Owners {
    of: Arc<Mutex<HashMap<PatientId, Arc<str>>>>,
    revoked: Arc<dyn Revocations>,
}

impl Owners {
    /// As the store has it: who signed last of each patient. What a key signed that no gateway has any more is nobody's.
    #[must_use]
    pub fn new(
        signers: impl IntoIterator<Item = (PatientId, SignerId)>,
        peers: &Peers,
        revoked: impl Revocations + 'static,
    ) -> Self {
        let mut names: HashMap<SignerId, Arc<str>> = HashMap::new();
        for (name, keys) in &peers.gateways {
            let name: Arc<str> = name.as_str().into();
            names.extend(keys.iter().map(|key| (signer_id(key), Arc::clone(&name))));
        }
        let named =
            |(patient, signer): (PatientId, SignerId)| Some((patient, Arc::clone(names.get(&signer)?)));
        let of = signers.into_iter().filter_map(named).collect();
        Self { of: Arc::new(Mutex::new(of)), revoked: Arc::new(revoked) }
    }

    /// A gateway brings a record of a patient, of which the signature holds.
    ///
    /// # Errors
    /// Whose the pseudonym is, where it is another's.
    pub fn claim(&self, patient: PatientId, gateway: &Arc<str>) -> Result<(), Arc<str>> {
        let mut of = self.of();
        let owner = of.entry(patient).or_insert_with(|| Arc::clone(gateway));
        if *owner == *gateway {
            return Ok(());
        }
        if !self.revoked.revokes(owner) {
            return Err(Arc::clone(owner));
        }
        *owner = Arc::clone(gateway);
        Ok(())
    }

    /// Of records that came from their pseudonyms' owners: whose each is now, where another has taken it over since. All of it as of one
    /// moment, so that of one pseudonym no two gateways' records pass. Who took over counts also where it is revoked meanwhile.
    #[must_use]
    pub fn lost<'g>(
        &self,
        records: impl Iterator<Item = (PatientId, &'g Arc<str>)>,
    ) -> Vec<Option<Arc<str>>> {
        let of = self.of();
        records
            .map(|(patient, gateway)| of.get(&patient).filter(|owner| *owner != gateway).cloned())
            .collect()
    }

    /// Whether a pseudonym is another gateway's than this one's.
    #[must_use]
    pub fn is_anothers(&self, patient: PatientId, gateway: &str) -> bool {
        self.of().get(&patient).is_some_and(|owner| **owner != *gateway && !self.revoked.revokes(owner))
    }

    /// Whether one of these gateways owns nothing any more.
    #[must_use]
    pub fn any_revoked(&self, gateways: &BTreeSet<Arc<str>>) -> bool {
        gateways.iter().any(|gateway| self.revoked.revokes(gateway))
    }

    fn of(&self) -> MutexGuard<'_, HashMap<PatientId, Arc<str>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    const PATIENT: PatientId = PatientId([1; 16]);

    /// Whoever is in it.
    #[derive(Debug, Clone, Default)]
    struct Suspended(Arc<Mutex<BTreeSet<String>>>);

    impl Suspended {
        fn only(&self, gateways: &[&str]) {
            *self.0.lock().unwrap() = gateways.iter().map(|name| (*name).to_owned()).collect();
        }
    }

    impl Revocations for Suspended {
        fn revokes(&self, gateway: &str) -> bool {
            self.0.lock().unwrap().contains(gateway)
        }
    }

    fn key(of: u8) -> SigningKey {
        SigningKey::from_bytes(&[of; 32])
    }

    fn peers(gateways: &[(&str, u8)]) -> Peers {
        let gateways = gateways.iter().map(|(name, of)| ((*name).to_owned(), vec![key(*of).verifying_key()]));
        Peers { gateways: gateways.collect(), ..Peers::default() }
    }

    fn owners(signed_last: Option<u8>, peers: &Peers) -> Owners {
        let signers = signed_last.map(|of| (PATIENT, signer_id(&key(of).verifying_key())));
        Owners::new(signers, peers, RevokedGateways::none())
    }

    #[test]
    fn a_pseudonym_is_whose_came_first() {
        let owners = owners(None, &peers(&[("a", 1), ("b", 2)]));
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        assert!(!owners.is_anothers(PATIENT, "b"));
        assert_eq!(owners.claim(PATIENT, &a), Ok(()));
        assert_eq!(owners.claim(PATIENT, &b), Err(Arc::clone(&a)));
        assert_eq!(owners.claim(PATIENT, &a), Ok(()));
        assert_eq!(owners.claim(PatientId([2; 16]), &b), Ok(()));
        assert!(owners.is_anothers(PATIENT, "b") && !owners.is_anothers(PATIENT, "a"));
    }

    #[test]
    fn so_it_is_after_a_restart_unless_that_one_is_no_longer_configured() {
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let both = peers(&[("a", 1), ("b", 2)]);
        assert_eq!(owners(Some(1), &both).claim(PATIENT, &b), Err(Arc::clone(&a)));
        // It changed its key: the old one still says whose it was.
        let mut changed = both;
        changed.gateways.get_mut("a").unwrap().push(key(3).verifying_key());
        assert_eq!(owners(Some(1), &changed).claim(PATIENT, &a), Ok(()));
        let taken_over = owners(Some(1), &peers(&[("b", 2)]));
        assert_eq!(taken_over.claim(PATIENT, &b), Ok(()));
    }

    #[test]
    fn who_took_over_is_the_owner_also_when_the_one_before_is_set_active_again() {
        let [a, b, c] = ["a", "b", "c"].map(Arc::<str>::from);
        let suspended = Suspended::default();
        let owners = Owners::new([], &peers(&[("a", 1), ("b", 2), ("c", 3)]), suspended.clone());
        let other = PatientId([2; 16]);
        assert_eq!((owners.claim(PATIENT, &a), owners.claim(other, &a)), (Ok(()), Ok(())));
        suspended.only(&["a"]);
        assert!(!owners.is_anothers(PATIENT, "b"));
        assert_eq!(owners.claim(PATIENT, &b), Ok(()));
        suspended.only(&[]);
        assert_eq!(owners.claim(PATIENT, &a), Err(Arc::clone(&b)));
        assert_eq!(owners.claim(other, &a), Ok(()), "what nobody took over stays its own");
        assert_eq!(owners.claim(other, &b), Err(Arc::clone(&a)));
        // Also to who owned it once.
        suspended.only(&["b"]);
        assert_eq!(owners.claim(PATIENT, &a), Ok(()));
        suspended.only(&[]);
        assert_eq!(owners.claim(PATIENT, &b), Err(Arc::clone(&a)));
        // What each brought while it was the owner, and is written now.
        let lost = |from| owners.lost([(PATIENT, from), (other, &a), (PatientId([3; 16]), &c)].into_iter());
        assert!(lost(&a).iter().all(Option::is_none));
        assert_eq!(lost(&b), [Some(Arc::clone(&a)), None, None]);
        suspended.only(&["a"]);
        assert_eq!(lost(&b), [Some(Arc::clone(&a)), None, None], "free, but not yet b's again");
        suspended.only(&[]);
        let met = BTreeSet::from([a, c]);
        assert!(!owners.any_revoked(&met));
        suspended.only(&["b"]);
        assert!(!owners.any_revoked(&met));
        suspended.only(&["b", "c"]);
        assert!(owners.any_revoked(&met) && !owners.any_revoked(&BTreeSet::new()));
    }
}
