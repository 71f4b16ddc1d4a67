//! What a connection asks the core of roots that were restored here: under which generations another gateway has sealed.

use std::collections::VecDeque;
use std::time::Duration;

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::uplink::Frame;
use tokio::time::Instant;
use tracing::{error, info};

use crate::keys::elsewhere::Elsewhere;

/// Between two questions: a gateway of 256 restored patients has asked for all within six minutes, and the core looks into its tables for
/// some milliseconds each time.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// The questions of one connection.
#[derive(Debug)]
pub(super) struct Learning {
    elsewhere: Elsewhere,
    queue: VecDeque<(PatientId, DataClass, u32)>,
    not_before: Instant,
}

impl Learning {
    /// All is asked on each connection: what another gateway's spool still held may have come since.
    pub(super) fn new(elsewhere: Elsewhere) -> Self {
        let restored = elsewhere.restored().into_iter();
        let chains = restored.flat_map(|patient| DataClass::ALL.map(|class| (patient, class, 0)));
        let queue = chains.collect();
        Self { elsewhere, queue, not_before: Instant::now() }
    }

    /// The next question. Cancel-safe.
    async fn next(&mut self) -> Frame {
        if !self.queue.is_empty() {
            tokio::time::sleep_until(self.not_before).await;
        }
        let Some((patient, class, from)) = self.queue.pop_front() else {
            return std::future::pending().await;
        };
        self.not_before = Instant::now() + ASK_EVERY;
        Frame::AskGenerations { patient, class, from }
    }

    /// What the core has answered.
    pub(super) async fn heard(&mut self, frame: &Frame) {
        let Frame::Generations { patient, class, used, more } = frame else { return };
        let key = (*patient, *class);
        let (elsewhere, told) = (self.elsewhere.clone(), used.clone());
        match tokio::task::spawn_blocking(move || elsewhere.keep(key, &told)).await {
            Ok(Ok(true)) => info!(
                class = class.as_str(),
                generations = used.len(),
                "what another gateway has sealed is known"
            ),
            Ok(Ok(false)) => {}
            Ok(Err(failure)) => {
                error!(%failure, "generations could not be kept; they will be asked for again")
            }
            Err(failure) => error!(%failure, "generations could not be kept; they will be asked for again"),
        }
        // Only of a page that was asked for: they ascend, so this ends.
        if let Some(last) = used.last().filter(|_| *more)
            && let Some(from) = last.generation.checked_add(1)
            && self.elsewhere.wants((*patient, *class), from)
        {
            self.queue.push_front((*patient, *class, from));
        }
    }
}

/// The next question of a connection that has any.
pub(super) async fn next(learning: &mut Option<Learning>) -> Frame {
    match learning {
        Some(learning) => learning.next().await,
        None => std::future::pending().await,
    }
}
