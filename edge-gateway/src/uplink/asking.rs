//! What a connection asks the core to erase: all that was ordered here, then what is new or asked for again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use caregate_protocol::erasure::RequestHash;
use caregate_protocol::id::PatientId;
use caregate_protocol::uplink::{EraseRefusal, Frame};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::keys::erasures::{Asked, Erasures, Request, due};

/// Between two requests. The core carries out four at once, of all gateways, and refuses more (`too_often`).
const ASK_EVERY: Duration = Duration::from_millis(250);

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Asking {
    erasures: Erasures,
    asked: watch::Receiver<BTreeMap<PatientId, Asked>>,
    seen: u64,
    queue: VecDeque<Request>,
    not_before: Instant,
}

impl Asking {
    pub(super) fn new(erasures: Erasures) -> Self {
        let mut asked = erasures.follow();
        // What is there is said again on each connection.
        asked.mark_changed();
        Self { erasures, asked, seen: 0, queue: VecDeque::new(), not_before: Instant::now() }
    }

    /// The next request. Cancel-safe.
    pub(super) async fn next(&mut self) -> Request {
        loop {
            if !self.queue.is_empty() {
                tokio::time::sleep_until(self.not_before).await;
            }
            if let Some(request) = self.queue.pop_front() {
                self.not_before = Instant::now() + ASK_EVERY;
                return request;
            }
            if self.asked.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let (due, seen) = due(&self.asked.borrow_and_update(), self.seen);
            self.queue.extend(due);
            self.seen = seen;
        }
    }

    /// What the core has answered.
    pub(super) async fn heard(&mut self, frame: &Frame) {
        if let Frame::Erased { receipt } = frame {
            let (erasures, receipt) = (self.erasures.clone(), receipt.clone());
            match tokio::task::spawn_blocking(move || erasures.keep(&receipt)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    warn!("a receipt of an erasure that nobody ordered here, or that does not verify");
                }
                Ok(Err(failure)) => {
                    error!(%failure, "a receipt could not be kept; it will be asked for again")
                }
                Err(failure) => error!(%failure, "a receipt could not be kept; it will be asked for again"),
            }
        } else if let Frame::EraseRefused { request, refusal } = frame {
            let of = |one: &Request| RequestHash::of(one) == *request;
            if *refusal == EraseRefusal::TooOften {
                self.queue.extend(self.asked.borrow().values().map(|one| one.ordered.request).find(of));
            } else {
                self.erasures.refused(*request, *refusal);
            }
        }
    }
}

/// The next request of a connection that has any to ask.
pub(super) async fn next(asking: &mut Option<Asking>) -> Request {
    match asking {
        Some(asking) => asking.next().await,
        None => std::future::pending().await,
    }
}
