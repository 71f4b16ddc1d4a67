//! A gateway's request that nothing of a pseudonym stays, and the core's receipt.

use std::path::Path;
use std::sync::Arc;

use caregate_host::clock;
use caregate_host::key_file::{self, Existing, KeyFileError};
use caregate_protocol::erasure::{Issuer, NOBODY, Receipt, RequestHash, SignedErasure};
use caregate_protocol::id::{RecipientId, SignerId};
use caregate_protocol::segment::signer_id;
use caregate_protocol::uplink::EraseRefusal;
use ed25519_dalek::{SigningKey, VerifyingKey};
use ring::rand::{SecureRandom, SystemRandom};
use tracing::{error, info};

use crate::metrics::Metrics;
use crate::owners::Owners;
use crate::preview::Previews;
use crate::relay::Relay;
use crate::search::SearchIndex;
use crate::store::{Erased, Store, StoreError};
use crate::writer::Answer;

/// File of the key that signs receipts, in the data folder.
const KEY_FILE: &str = "receipt.key";

/// Where erasures are carried out; cheap to clone.
#[derive(Debug, Clone)]
pub struct Eraser {
    store: Arc<dyn Store>,
    search: Arc<SearchIndex>,
    key: Arc<SigningKey>,
    owners: Owners,
    relay: Relay,
    previews: Previews,
    metrics: Metrics,
}

impl Eraser {
    /// Signs receipts with `key`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        search: Arc<SearchIndex>,
        key: SigningKey,
        owners: Owners,
        relay: Relay,
        previews: Previews,
        metrics: Metrics,
    ) -> Self {
        Self { store, search, key: Arc::new(key), owners, relay, previews, metrics }
    }

    /// Takes the receipt of a feed with these recipients, for the gateways that ask. What is none, of another's recipient, or of a pseudonym
    /// that was not erased here, is counted and dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipt(&self, bytes: Vec<u8>, own: &[RecipientId]) -> Result<(), StoreError> {
        let outcome = match Receipt::verify(&bytes) {
            Ok((receipt, _)) if receipt.issuer == Issuer::Feed && !own.contains(&receipt.recipient) => {
                "receipt_stranger"
            }
            Ok((receipt, key)) if receipt.issuer == Issuer::Feed => {
                let store = Arc::clone(&self.store);
                let keeping = move || store.keep_receipt(&receipt, key.to_bytes(), &bytes);
                let kept = tokio::task::spawn_blocking(keeping).await;
                if kept.unwrap_or_else(|_panic| Err(StoreError::stopped()))? {
                    "receipt"
                } else {
                    "receipt_unknown"
                }
            }
            Ok(_) | Err(_) => "receipt_malformed",
        };
        self.metrics.erasures.with_label_values(&[outcome]).inc();
        Ok(())
    }

    /// Judges a request of the gateway of this name with these device keys, and carries it out. The answers: a refusal, or the core's
    /// receipt and those of the feeds that have told so far.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been begun; it is carried out at the next start, and the gateway asks again.
    pub async fn erase(
        &self,
        request: &[u8],
        (gateway, device_keys): (&str, &[VerifyingKey]),
    ) -> Result<Vec<Answer>, StoreError> {
        let hash = RequestHash::of(request);
        let outcome = match self.judge(request, (gateway, device_keys)) {
            Ok(signed) => self.carry_out(signed, device_keys.iter().map(signer_id).collect()).await?,
            Err(refusal) => Err(refusal),
        };
        let label = outcome.as_ref().map_or_else(|refusal| refusal.as_str(), |_| "erased");
        self.metrics.erasures.with_label_values(&[label]).inc();
        info!(outcome = label, "a gateway asked for an erasure");
        Ok(match outcome {
            Ok(receipts) => receipts.into_iter().map(Answer::Erased).collect(),
            Err(refusal) => vec![Answer::EraseRefused(hash, refusal)],
        })
    }

    /// Whoever has records there and lost the pseudonym to another may not.
    fn judge(
        &self,
        request: &[u8],
        (gateway, device_keys): (&str, &[VerifyingKey]),
    ) -> Result<SignedErasure, EraseRefusal> {
        let signed = SignedErasure::decode(request).map_err(|_form| EraseRefusal::Malformed)?;
        let key = device_keys.iter().find(|key| signer_id(key) == signed.signer);
        if key.is_none_or(|key| signed.verify(key).is_err()) {
            return Err(EraseRefusal::Signature);
        }
        if self.owners.is_anothers(signed.erasure.patient, gateway) {
            return Err(EraseRefusal::Stranger);
        }
        Ok(signed)
    }

    async fn carry_out(
        &self,
        signed: SignedErasure,
        own: Vec<SignerId>,
    ) -> Result<Result<Vec<Vec<u8>>, EraseRefusal>, StoreError> {
        let Some(_place) = self.relay.erasure_place() else { return Ok(Err(EraseRefusal::TooOften)) };
        let patient = signed.erasure.patient;
        let is_first = self.previews.erase(patient);
        let (store, search) = (Arc::clone(&self.store), Arc::clone(&self.search));
        let erasing = move || {
            let erased = store.erase(&signed, &own, clock::now_us())?;
            if matches!(erased, Erased::Done { .. }) {
                search.forget(patient).map_err(|failure| {
                    error!(%failure, "an erasure: asked again, it goes on");
                    StoreError::stopped()
                })?;
            }
            Ok((erased, store.receipts(patient)?))
        };
        let (erased, of_feeds) = tokio::task::spawn_blocking(erasing).await.unwrap_or_else(|panic| {
            error!(%panic, "an erasure failed");
            Err(StoreError::stopped())
        })?;
        let Erased::Done { records, bytes, erased_us } = erased else {
            if is_first {
                self.previews.keep(patient);
            }
            return Ok(Err(EraseRefusal::Stranger));
        };
        self.relay.erased();
        let request = signed.hash();
        let receipt =
            Receipt { issuer: Issuer::Core, patient, request, records, bytes, erased_us, recipient: NOBODY };
        let own = receipt.sign(&self.key).to_vec();
        Ok(Ok(std::iter::once(own).chain(of_feeds).collect()))
    }
}

/// The key that signs receipts; made at the first start. Its public half is logged: who keeps receipts may want to pin it.
///
/// # Errors
/// [`KeyFileError`].
pub fn receipt_key(data: &Path) -> Result<SigningKey, KeyFileError> {
    let path = data.join(KEY_FILE);
    if !path.exists() {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *seed).map_err(|_unspecified| KeyFileError::Io {
            path: path.clone(),
            source: std::io::Error::other("no random numbers"),
        })?;
        key_file::write_hex(&path, &*seed, Existing::Keep)?;
    }
    let key = SigningKey::from_bytes(&*key_file::read_hex::<32>(&path)?);
    info!(
        public = hex::encode(key.verifying_key().as_bytes()),
        "receipts of erasures are signed with this key"
    );
    Ok(key)
}
