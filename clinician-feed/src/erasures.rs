//! Receipts of erasures, signed by this feed, on their way to the core, where the gateway that asked gets them.
//!
//! They are kept while the process lives and sent again over each connection. After a restart the feed reads its queue again, finds the
//! requests in it and signs again; of what is there already the core keeps the first.

use std::sync::{Arc, Mutex, PoisonError};

use caregate_protocol::erasure::Receipt;
use caregate_protocol::id::RecipientId;
use caregate_protocol::wrap::HpkePrivateKey;
use ed25519_dalek::SigningKey;
use ring::hkdf::{HKDF_SHA256, Salt};
use tokio::sync::watch;

/// Receipts kept; the oldest go first. A hospital sees some a year.
const RECEIPTS_MAX: usize = 1024;

/// Those that this feed has signed.
#[derive(Debug, Default)]
pub struct Erasures {
    key: Mutex<Option<(SigningKey, RecipientId)>>,
    receipts: watch::Sender<Vec<Arc<[u8]>>>,
}

impl Erasures {
    /// Signs with this key from now on, as the feed of this recipient; without one nothing is signed.
    pub fn sign_with(&self, key: SigningKey, recipient: RecipientId) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, recipient));
    }

    /// Signs a receipt, as this recipient's, and keeps it.
    pub fn add(&self, receipt: &Receipt) {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((key, recipient)) = key else { return };
        let bytes: Arc<[u8]> = Receipt { recipient, ..*receipt }.sign(&key).as_slice().into();
        self.receipts.send_modify(|receipts| {
            receipts.push(bytes);
            if receipts.len() > RECEIPTS_MAX {
                receipts.remove(0);
            }
        });
    }

    /// All that there are, and to come.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Vec<Arc<[u8]>>> {
        let mut receipts = self.receipts.subscribe();
        receipts.mark_changed();
        receipts
    }
}

/// The key that signs a domain's receipts, from its HPKE key: the same after each start, and no second file to guard.
#[must_use]
pub fn receipt_key(hpke: &HpkePrivateKey) -> SigningKey {
    let secret = Salt::new(HKDF_SHA256, b"caregate feed receipts 1").extract(hpke.as_bytes());
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    let Ok(()) = secret
        .expand(&[b"Ed25519".as_slice()], HKDF_SHA256)
        .and_then(|out| out.fill(&mut *seed))
        .map_err(|_unspecified| unreachable!("32 bytes are one block of SHA-256"));
    SigningKey::from_bytes(&seed)
}

#[cfg(test)]
mod tests {
    use caregate_protocol::erasure::{Issuer, NOBODY, RequestHash};
    use caregate_protocol::id::PatientId;
    use caregate_protocol::wrap::generate_keypair;

    use super::*;

    fn receipt(records: u64) -> Receipt {
        let (patient, request) = (PatientId([1; 16]), RequestHash([2; 32]));
        let recipient = RecipientId([3; 20]);
        Receipt { issuer: Issuer::Feed, patient, request, records, bytes: 9, erased_us: 7, recipient }
    }

    #[test]
    fn what_was_signed_is_there_for_each_connection_and_bounded() {
        let erasures = Erasures::default();
        erasures.add(&receipt(0));
        assert!(erasures.follow().borrow().is_empty(), "there is no key");
        let (hpke, _) = generate_keypair();
        let key = receipt_key(&hpke);
        assert_eq!(key.to_bytes(), receipt_key(&hpke).to_bytes());
        assert_ne!(key.to_bytes(), receipt_key(&generate_keypair().0).to_bytes());
        erasures.sign_with(key.clone(), RecipientId([3; 20]));
        for n in 0..=RECEIPTS_MAX as u64 {
            erasures.add(&Receipt { recipient: NOBODY, ..receipt(n) });
        }
        let held = erasures.follow();
        assert!(held.has_changed().unwrap());
        let held = held.borrow();
        assert_eq!(held.len(), RECEIPTS_MAX);
        assert_eq!(Receipt::verify(&held[0]).unwrap(), (receipt(1), key.verifying_key()));
    }
}
