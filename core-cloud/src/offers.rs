//! Policy that feeds hand to gateways through this core (ADR 44): sealed, so that nothing of it can be read here, and answered by the
//! gateway's signed verdict. Nothing is kept: a gateway that is not connected gets nothing, and whoever offers is told so at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::id::SignerId;
use caregate_protocol::offer::{MESSAGE_OFFER_BYTES_MAX, OfferHash, Refusal, SignedVerdict, addressee};
use caregate_protocol::rate::TokenBucket;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::metrics::Metrics;
use crate::writer::Answer;

/// Offers on their way at once, of all feeds: each has up to a MiB. What there is room for beside records.
const OFFERS_MAX: usize = 16;
/// Time for an offer's turn at its gateway: as long as a person waits for two others.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a verdict: a MiB over a bad line, and 300 ms to verify it.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(20);
/// Revocations and emergencies of one feed at once, and then so many in a second, as at a gateway's local door: a wallet ends all of a patient's
/// relationships in one go.
const MESSAGES: (u32, u32) = (64, 4);
/// Bundles of one feed at once, and then so many in a second: a MiB a second beside what it reads.
const BUNDLES: (u32, u32) = (8, 1);

/// A gateway's connection that takes offers, one at a time.
#[derive(Debug)]
struct Line {
    control: mpsc::Sender<Answer>,
    turn: Semaphore,
    /// The offer that is under way, and who waits for its verdict.
    waiting: Mutex<Option<(OfferHash, oneshot::Sender<Vec<u8>>)>>,
    /// Set while an offer has gone without its verdict: as long as it is so no other goes, and no more than one lies in the queue.
    is_silent: AtomicBool,
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Option<(OfferHash, oneshot::Sender<Vec<u8>>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often one feed may offer.
#[derive(Debug)]
struct Pace {
    messages: TokenBucket,
    bundles: TokenBucket,
}

#[derive(Debug)]
struct Inner {
    /// The newest connection of each gateway.
    lines: Mutex<HashMap<SignerId, Arc<Line>>>,
    /// By the feed's name; no more than are configured.
    paces: Mutex<HashMap<Arc<str>, Pace>>,
    places: Semaphore,
    began: Instant,
    metrics: Metrics,
}

/// What all sessions share; cheap to clone.
#[derive(Debug, Clone)]
pub struct Offers(Arc<Inner>);

impl Offers {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let places = Semaphore::new(OFFERS_MAX);
        let (lines, paces) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { lines, paces, places, began: clock::monotonic(), metrics }))
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<SignerId, Arc<Line>>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A gateway's connection takes offers from now on, until this is dropped. It takes the place of one that it had before.
    #[must_use]
    pub fn line(&self, signers: Vec<SignerId>, control: mpsc::Sender<Answer>) -> OffersLine {
        let (turn, is_silent) = (Semaphore::new(1), AtomicBool::new(false));
        let line = Arc::new(Line { control, turn, waiting: Mutex::default(), is_silent });
        let mut lines = self.lines();
        for signer in &signers {
            lines.insert(*signer, Arc::clone(&line));
        }
        drop(lines);
        OffersLine { offers: self.clone(), signers, line }
    }

    /// Carries one feed's offer to its gateway, and the verdict back.
    ///
    /// # Errors
    /// [`Refusal`]; after [`Refusal::NoAnswer`] it may be in force.
    pub async fn carry(&self, feed: &Arc<str>, sealed: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let carried = self.try_carry(feed, sealed).await;
        let outcome = carried.as_ref().map_or_else(|refusal| refusal.as_str(), |_| "carried");
        self.0.metrics.offers.with_label_values(&[outcome]).inc();
        carried
    }

    async fn try_carry(&self, feed: &Arc<str>, sealed: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        if !self.is_due(feed, sealed.len()) {
            return Err(Refusal::TooOften);
        }
        let signer = addressee(&sealed).map_err(|_form| Refusal::Malformed)?;
        let _place = self.0.places.try_acquire().map_err(|_full| Refusal::Busy)?;
        let line = self.lines().get(&signer).cloned().ok_or(Refusal::NotConnected)?;
        let turn = tokio::time::timeout(TURN_TIMEOUT, line.turn.acquire()).await;
        let _turn = turn.map_err(|_elapsed| Refusal::Busy)?.map_err(|_closed| Refusal::NotConnected)?;
        if line.is_silent.swap(true, Ordering::Relaxed) {
            return Err(Refusal::NotConnected);
        }
        let (told, verdict) = oneshot::channel();
        *line.waiting() = Some((OfferHash::of(&sealed), told));
        if line.control.try_send(Answer::Offer(sealed)).is_err() {
            // It has not gone: the next one may.
            line.is_silent.store(false, Ordering::Relaxed);
            line.waiting().take();
            return Err(Refusal::NotConnected);
        }
        match tokio::time::timeout(VERDICT_TIMEOUT, verdict).await {
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(_gone)) => Err(Refusal::NoAnswer),
            Err(_elapsed) => {
                line.waiting().take();
                Err(Refusal::NoAnswer)
            }
        }
    }

    fn is_due(&self, feed: &Arc<str>, bytes: usize) -> bool {
        let now = clock::monotonic().duration_since(self.0.began);
        let mut paces = self.0.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.entry(Arc::clone(feed)).or_insert_with(|| Pace {
            messages: TokenBucket::new(MESSAGES.1, MESSAGES.0, now),
            bundles: TokenBucket::new(BUNDLES.1, BUNDLES.0, now),
        });
        let bucket = if bytes > MESSAGE_OFFER_BYTES_MAX { &mut pace.bundles } else { &mut pace.messages };
        let is_due = bucket.is_ready(now);
        if is_due {
            bucket.take(now);
        }
        is_due
    }
}

/// One gateway's connection, as it takes offers.
#[derive(Debug)]
pub struct OffersLine {
    offers: Offers,
    signers: Vec<SignerId>,
    line: Arc<Line>,
}

impl OffersLine {
    /// Gives a verdict to who waits for it. One that nobody waits for any more, that names another gateway, or is none, is counted and
    /// passed over; whether it was signed is for the feed to say.
    pub fn verdict(&self, bytes: Vec<u8>) {
        let outcome = match SignedVerdict::decode(&bytes) {
            Err(_form) => "malformed",
            Ok(signed) if !self.signers.contains(&signed.signer) => "stranger",
            Ok(signed) => {
                self.line.is_silent.store(false, Ordering::Relaxed);
                let waiting = self.line.waiting().take_if(|(offer, _)| *offer == signed.offer);
                let told = waiting.map(|(_, told)| told.send(bytes));
                if told.is_some_and(|told| told.is_ok()) { "told" } else { "late" }
            }
        };
        self.offers.0.metrics.verdicts.with_label_values(&[outcome]).inc();
    }
}

impl Drop for OffersLine {
    fn drop(&mut self) {
        let mut lines = self.offers.lines();
        for signer in &self.signers {
            // Unless a newer one has taken its place.
            if lines.get(signer).is_some_and(|line| Arc::ptr_eq(line, &self.line)) {
                lines.remove(signer);
            }
        }
        drop(lines);
        // Who waits for its turn or its verdict waits for nothing.
        self.line.turn.close();
        self.line.waiting().take();
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::offer::{Kind, Offer};
    use caregate_protocol::policy::delivery::Verdict;
    use caregate_protocol::segment::signer_id;
    use ed25519_dalek::SigningKey;
    use prometheus::Registry;

    use super::*;

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn sealed(byte: u8) -> Vec<u8> {
        Offer { kind: Kind::Revocation, message: vec![byte; 112] }.seal(&device().verifying_key()).unwrap()
    }

    fn offers() -> Offers {
        Offers::new(Metrics::register(&Registry::new()).unwrap())
    }

    fn line(offers: &Offers) -> (OffersLine, mpsc::Receiver<Answer>) {
        let (control, answers) = mpsc::channel(4);
        (offers.line(vec![signer_id(&device().verifying_key())], control), answers)
    }

    fn signed(bytes: &[u8]) -> Vec<u8> {
        let verdict = Verdict { number: 1, epoch: 1, refused: None };
        SignedVerdict::sign(&verdict, OfferHash::of(bytes), &device()).to_vec()
    }

    async fn offered(answers: &mut mpsc::Receiver<Answer>) -> Vec<u8> {
        match answers.recv().await {
            Some(Answer::Offer(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn carrying(offers: &Offers, byte: u8) -> tokio::task::JoinHandle<Result<Vec<u8>, Refusal>> {
        let offers = offers.clone();
        tokio::spawn(async move { offers.carry(&Arc::from("hospital"), sealed(byte)).await })
    }

    #[tokio::test]
    async fn a_gateway_that_does_not_answer_gets_no_second_one_until_it_does() {
        let (offers, feed): (_, Arc<str>) = (offers(), "hospital".into());
        assert_eq!(offers.carry(&feed, sealed(1)).await, Err(Refusal::NotConnected));
        let (line, mut answers) = line(&offers);
        let given_up = carrying(&offers, 2);
        let late = offered(&mut answers).await;
        given_up.abort();
        assert!(given_up.await.is_err());
        assert_eq!(offers.carry(&feed, sealed(3)).await, Err(Refusal::NotConnected));
        assert!(answers.try_recv().is_err(), "the third went");
        line.verdict(signed(&late));
        let carrying = carrying(&offers, 4);
        let bytes = offered(&mut answers).await;
        // Of another offer it counts for nothing.
        line.verdict(signed(&late));
        line.verdict(b"rubbish".to_vec());
        line.verdict(signed(&bytes));
        assert_eq!(carrying.await.unwrap(), Ok(signed(&bytes)));
        let count = |outcome: &str| offers.0.metrics.verdicts.with_label_values(&[outcome]).get();
        assert_eq!((count("told"), count("late"), count("malformed")), (1, 2, 1));
    }

    #[tokio::test]
    async fn offers_to_one_gateway_take_turns() {
        let offers = offers();
        let (line, mut answers) = line(&offers);
        let both = [carrying(&offers, 1), carrying(&offers, 2)];
        for _ in &both {
            let bytes = offered(&mut answers).await;
            assert!(answers.try_recv().is_err(), "two at once");
            line.verdict(signed(&bytes));
        }
        for one in both {
            assert!(one.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_answers_nobody_and_the_newer_one_takes_its_place() {
        let (offers, feed): (_, Arc<str>) = (offers(), "hospital".into());
        let (old, mut old_answers) = line(&offers);
        let unanswered = carrying(&offers, 1);
        drop(offered(&mut old_answers).await);
        let (new, mut answers) = line(&offers);
        drop(old);
        assert_eq!(unanswered.await.unwrap(), Err(Refusal::NoAnswer));
        let answered = carrying(&offers, 2);
        let bytes = offered(&mut answers).await;
        new.verdict(signed(&bytes));
        assert!(answered.await.unwrap().is_ok());
        drop(new);
        assert_eq!(offers.carry(&feed, sealed(3)).await, Err(Refusal::NotConnected));
    }

    #[tokio::test]
    async fn a_feed_offers_at_its_pace_and_others_at_theirs() {
        let (offers, feed, other): (_, Arc<str>, Arc<str>) = (offers(), "hospital".into(), "clinic".into());
        for _ in 0..MESSAGES.0 {
            assert_eq!(offers.carry(&feed, b"rubbish".to_vec()).await, Err(Refusal::Malformed));
        }
        // The clock may have given one or two more by now.
        let mut refused = Refusal::Malformed;
        for _ in 0..MESSAGES.0 {
            refused = offers.carry(&feed, b"rubbish".to_vec()).await.unwrap_err();
        }
        assert_eq!(refused, Refusal::TooOften);
        assert_eq!(offers.carry(&other, sealed(1)).await, Err(Refusal::NotConnected));
        let bundle = vec![0; MESSAGE_OFFER_BYTES_MAX + 1];
        assert_eq!(offers.carry(&feed, bundle).await, Err(Refusal::Malformed), "bundles have their own");
    }
}
