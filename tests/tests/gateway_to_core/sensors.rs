//! Sensors that publish as one, and the waiting for what they are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::publisher::{self, Ledger, Shared};
use crate::site::{Daemon, PATIENCE, Site};

pub(crate) const DEVICES: [&str; 3] = ["monitor-1", "monitor-2", "belt-1"];

/// SplitMix64: the choices of a run, from its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

pub(crate) fn seed() -> u64 {
    let seed = std::env::var("CAREGATE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("CAREGATE_SEED={seed}");
    seed
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "{what}: did not happen within {PATIENCE:?}"
    );
}

/// Publishing sensors.
pub(crate) struct Sensors {
    pub(crate) ledger: Shared,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Sensors {
    pub(crate) fn start(site: &Site) -> Self {
        Self::go_on(site, Ledger::default())
    }

    /// Of sensors that have lived before.
    pub(crate) fn go_on(site: &Site, ledger: Ledger) -> Self {
        let (ledger, stop): (Shared, _) = (Arc::new(Mutex::new(ledger)), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for device in DEVICES {
            tasks.spawn(publisher::run(device.to_owned(), site.mqtt, Arc::clone(&ledger), stop.clone()));
        }
        Self { ledger, stop, tasks }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.ledger.lock().unwrap().acknowledged.len() as u64
    }

    /// Waits for so many more acknowledgements.
    pub(crate) async fn acknowledges(&self, more: u64) {
        let from = self.acknowledged();
        until(&format!("{more} more acknowledgements"), || self.acknowledged() >= from + more).await;
    }

    /// Stops when all that was published is acknowledged.
    pub(crate) async fn finish(mut self) -> Ledger {
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.unwrap()
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, all).await.is_ok(),
            "not all that was published is acknowledged"
        );
        std::mem::take(&mut self.ledger.lock().unwrap())
    }
}

pub(crate) async fn delivered(gateway: &Daemon) {
    until("the core has it all", || {
        gateway.metric("caregate_gateway_spool_waiting ") == Some(0.0)
            && gateway.metric("caregate_gateway_spool_next ").is_some_and(|next| next > 0.0)
    })
    .await;
}
