//! Policy by way of the core: sealed offers, opened and handed in like all else, and the signed verdicts on them (ADR 44).

use caregate_protocol::offer::{Kind, Offer, OfferHash, SignedVerdict, VERDICT_BYTES};
use caregate_protocol::policy::delivery::Verdict;
use caregate_protocol::policy::{SignedEmergency, SignedRevocation};
use ed25519_dalek::SigningKey;
use tokio::sync::mpsc;
use tracing::debug;

use super::handle::PolicyHandle;
use super::pace::Pace;
use super::trail::Origin;

/// Offers that wait for the one before: the core has one at most on its way here, and one may be left of the connection before. Each
/// has up to a MiB.
const WAITING_MAX: usize = 1;

/// An offer as it came, and the way back of the connection that brought it.
#[derive(Debug)]
pub struct Incoming {
    /// As the feed sealed it.
    pub sealed: Vec<u8>,
    /// Where the verdict goes.
    pub answer: mpsc::Sender<[u8; VERDICT_BYTES]>,
}

/// Opens what the core brings and hands it in, one after the other, until nobody brings any more. Must be called inside a tokio runtime.
#[must_use]
pub fn start(policy: PolicyHandle, device: SigningKey) -> mpsc::Sender<Incoming> {
    let (offers, mut incoming) = mpsc::channel::<Incoming>(WAITING_MAX);
    tokio::spawn(async move {
        let mut pace = Pace::new();
        while let Some(Incoming { sealed, answer }) = incoming.recv().await {
            pace.wait().await;
            let offer = OfferHash::of(&sealed);
            let verdict = take(&policy, &sealed, &device).await;
            // A connection that is gone asks no more; whoever offered it does so again.
            if answer.send(SignedVerdict::sign(&verdict, offer, &device)).await.is_err() {
                debug!("a verdict's connection is gone");
            }
        }
    });
    offers
}

async fn take(policy: &PolicyHandle, sealed: &[u8], device: &SigningKey) -> Verdict {
    let Offer { kind, message } = match Offer::open(sealed, device) {
        Ok(offer) => offer,
        Err(error) => return policy.unreadable(error.reason(), Origin::Core).await,
    };
    let malformed = match kind {
        Kind::Bundle => return policy.offer_bundle(message, Origin::Core).await,
        Kind::Revocation => match SignedRevocation::decode(&message) {
            Ok(signed) => return policy.offer_revocation(signed, Origin::Core).await,
            Err(error) => error,
        },
        Kind::Emergency => match SignedEmergency::decode(&message) {
            Ok(signed) => return policy.offer_emergency(signed, Origin::Core).await,
            Err(error) => error,
        },
    };
    policy.unreadable(malformed.reason(), Origin::Core).await
}
