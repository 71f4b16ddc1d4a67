//! Whose a pseudonym is: the gateway's that first brought a record of it, until the ledger revokes that gateway or it is no longer configured.
//!
//! A gateway signs with a key of its own, and any that is configured may store; without this one could write into another's chains, or end
//! them. Known from the store at a start, where each patient's signers stand; beside that in memory, so that it holds from the first
//! record on, also for what is shown before it is stored.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use caregate_protocol::id::{PatientId, SignerId};
use caregate_protocol::segment::signer_id;
use ledger_chain::RevokedGateways;

use crate::config::Peers;

/// Gateways by pseudonym; cheap to clone. As many entries as the store has pseudonyms: each brought a record.
#[derive(Debug, Clone)]
pub struct Owners {
    /// Several where one took over from another.
    of: Arc<Mutex<HashMap<PatientId, BTreeSet<Arc<str>>>>>,
    revoked: RevokedGateways,
}

impl Owners {
    /// As the store has it: who signed what is there of each patient. What keys signed that no gateway has any more is nobody's.
    #[must_use]
    pub fn new(
        signers: impl IntoIterator<Item = (PatientId, SignerId)>,
        peers: &Peers,
        revoked: RevokedGateways,
    ) -> Self {
        let mut names: HashMap<SignerId, Arc<str>> = HashMap::new();
        for (name, keys) in &peers.gateways {
            let name: Arc<str> = name.as_str().into();
            names.extend(keys.iter().map(|key| (signer_id(key), Arc::clone(&name))));
        }
        let mut of: HashMap<PatientId, BTreeSet<Arc<str>>> = HashMap::new();
        for (patient, signer) in signers {
            if let Some(name) = names.get(&signer) {
                of.entry(patient).or_default().insert(Arc::clone(name));
            }
        }
        Self { of: Arc::new(Mutex::new(of)), revoked }
    }

    /// A gateway brings a record of a patient, of which the signature holds.
    ///
    /// # Errors
    /// Whose the pseudonym is, where it is another's.
    pub fn claim(&self, patient: PatientId, gateway: &Arc<str>) -> Result<(), Arc<str>> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let owners = of.entry(patient).or_default();
        if owners.contains(gateway) {
            return Ok(());
        }
        if let Some(owner) = owners.iter().find(|owner| !self.revoked.contains(owner)) {
            return Err(Arc::clone(owner));
        }
        owners.insert(Arc::clone(gateway));
        Ok(())
    }

    /// Waits until this gateway owns nothing any more.
    pub async fn is_revoked(&self, gateway: &str) {
        self.revoked.is_revoked(gateway).await;
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    const PATIENT: PatientId = PatientId([1; 16]);

    fn key(of: u8) -> SigningKey {
        SigningKey::from_bytes(&[of; 32])
    }

    fn peers(gateways: &[(&str, u8)]) -> Peers {
        let gateways = gateways.iter().map(|(name, of)| ((*name).to_owned(), vec![key(*of).verifying_key()]));
        Peers { gateways: gateways.collect(), ..Peers::default() }
    }

    fn owners(stored_by: &[u8], peers: &Peers) -> Owners {
        let signers = stored_by.iter().map(|of| (PATIENT, signer_id(&key(*of).verifying_key())));
        Owners::new(signers, peers, RevokedGateways::none())
    }

    #[test]
    fn a_pseudonym_is_whose_came_first() {
        let owners = owners(&[], &peers(&[("a", 1), ("b", 2)]));
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        assert_eq!(owners.claim(PATIENT, &a), Ok(()));
        assert_eq!(owners.claim(PATIENT, &b), Err(Arc::clone(&a)));
        assert_eq!(owners.claim(PATIENT, &a), Ok(()));
        assert_eq!(owners.claim(PatientId([2; 16]), &b), Ok(()));
    }

    #[test]
    fn so_it_is_after_a_restart_unless_that_one_is_no_longer_configured() {
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let both = peers(&[("a", 1), ("b", 2)]);
        assert_eq!(owners(&[1], &both).claim(PATIENT, &b), Err(Arc::clone(&a)));
        // It changed its key: the old one still says whose it was.
        let mut changed = both;
        changed.gateways.get_mut("a").unwrap().push(key(3).verifying_key());
        assert_eq!(owners(&[1], &changed).claim(PATIENT, &a), Ok(()));
        let taken_over = owners(&[1], &peers(&[("b", 2)]));
        assert_eq!(taken_over.claim(PATIENT, &b), Ok(()));
    }
}
