//! From PUBLISH to the core's store with the real daemons, killed at any moment: what was acknowledged is in the store
//! exactly once and opens for its recipient, the chains are whole, and no segment was refused.
//!
//! `CAREGATE_LONG=1` runs the kills for about ten times as long; `CAREGATE_SEED` repeats a run's choices.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;
mod publisher;
mod site;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caregate_protocol::id::DataClass;
use caregate_protocol::record::Record;
use clinician_feed::opener::Opener;
use core_cloud::store::Store;
use publisher::{Ledger, Name, Shared};
use site::{Daemon, PATIENCE, Site};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const DEVICES: [&str; 3] = ["monitor-1", "monitor-2", "belt-1"];

/// SplitMix64: the choices of a run, from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn seed() -> u64 {
    let seed = std::env::var("CAREGATE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("CAREGATE_SEED={seed}");
    seed
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
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
struct Sensors {
    ledger: Shared,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Sensors {
    fn start(site: &Site) -> Self {
        let (ledger, stop): (Shared, _) = (Arc::new(Mutex::new(Ledger::default())), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for device in DEVICES {
            tasks.spawn(publisher::run(device.to_owned(), site.mqtt, Arc::clone(&ledger), stop.clone()));
        }
        Self { ledger, stop, tasks }
    }

    fn acknowledged(&self) -> u64 {
        self.ledger.lock().unwrap().acknowledged.len() as u64
    }

    /// Waits for so many more acknowledgements.
    async fn acknowledges(&self, more: u64) {
        let from = self.acknowledged();
        until(&format!("{more} more acknowledgements"), || self.acknowledged() >= from + more).await;
    }

    /// Stops when all that was published is acknowledged.
    async fn finish(mut self) -> Ledger {
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

/// How often the recipient finds each reading in the core's store, which no daemon may hold. Checks the chains.
fn opened_at_core(site: &Site) -> BTreeMap<Name, u32> {
    let store = Store::open(&site.store()).unwrap();
    let mut opener = Opener::new(site.recipient, site.hospital.clone(), [site.device_key.verifying_key()]);
    let (mut found, mut segments) = (BTreeMap::<Name, u32>::new(), 0_u64);
    let mut at = 0;
    loop {
        let page = store.page(site.recipient, at, u64::MAX, 1 << 20).unwrap();
        if page.records.is_empty() {
            break;
        }
        for (_, record) in page.records {
            segments += u64::from(matches!(Record::decode(&record), Ok(Record::Segment(_))));
            let taken = opener.take(&record);
            assert!(taken.refused.is_empty(), "{:?}", taken.refused);
            for reading in taken.opened.into_iter().flat_map(|opened| opened.readings) {
                let streams = ["heart-rate", "ecg-ii", "fall", "walk"];
                let stream = streams.into_iter().find(|name| *name == reading.stream.as_str()).unwrap();
                let name = (reading.device.as_str().to_owned(), stream, reading.seq.unwrap());
                *found.entry(name).or_default() += 1;
            }
        }
        at = page.next;
    }
    assert_eq!(opener.waiting_bytes(), 0, "segments without their wrap");
    let mut linked = 0;
    for class in DataClass::ALL {
        if let Some(state) = opener.chain(site::PATIENT, class) {
            assert_eq!(state.gap, None, "{class:?}");
            linked += state.verified + 1;
        }
    }
    assert_eq!(linked, segments, "each number of each chain once, from 0");
    found
}

fn assert_exactly_once(site: &Site, ledger: &Ledger) {
    let found = opened_at_core(site);
    let lost: Vec<_> =
        ledger.acknowledged.iter().filter(|name| !found.contains_key(*name)).take(10).collect();
    assert!(lost.is_empty(), "acknowledged, but not at the core, among others: {lost:?}");
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times != 1).take(10).collect();
    assert!(twice.is_empty(), "more than once at the core, among others: {twice:?}");
    let unknown: Vec<_> = found
        .keys()
        .filter(|name| !ledger.acknowledged.contains(*name) && !ledger.open.contains(*name))
        .collect();
    assert!(unknown.is_empty(), "nobody published {unknown:?}");
    println!(
        "{} readings in {} PUBLISHes, {} acknowledged, all at the core once",
        found.len(),
        ledger.sent,
        ledger.acknowledged.len()
    );
}

async fn delivered(gateway: &Daemon) {
    until("the core has it all", || {
        gateway.metric("caregate_gateway_spool_waiting ") == Some(0.0)
            && gateway.metric("caregate_gateway_spool_next ").is_some_and(|next| next > 0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_any_kill_of_gateway_and_core() {
    let rounds = if std::env::var_os("CAREGATE_LONG").is_some() { 600 } else { 60 };
    let mut random = Random(seed());
    let site = Site::new(&DEVICES);
    let (mut gateway, mut core) = (site.gateway(), site.core());
    let sensors = Sensors::start(&site);
    sensors.acknowledges(100).await;
    let (mut kills, mut refused) = ((0, 0), 0.0);
    for _ in 0..rounds {
        sensors.acknowledges(random.below(400)).await;
        // Somewhere within a group commit, and not always just after its acknowledgements.
        tokio::time::sleep(Duration::from_micros(random.below(15_000))).await;
        refused += core.metric("caregate_core_records_total{outcome=\"refused\"}").unwrap_or(0.0);
        match random.below(4) {
            0 => {
                core.kill();
                kills.1 += 1;
                sensors.acknowledges(random.below(300)).await;
                if random.below(2) == 0 {
                    gateway.kill();
                    kills.0 += 1;
                    gateway.start();
                    sensors.acknowledges(random.below(100)).await;
                }
                core.start();
            }
            1 => {
                gateway.kill();
                core.kill();
                kills = (kills.0 + 1, kills.1 + 1);
                core.start();
                gateway.start();
            }
            _ => {
                gateway.kill();
                kills.0 += 1;
                gateway.start();
            }
        }
    }
    let ledger = sensors.finish().await;
    delivered(&gateway).await;
    refused += core.metric("caregate_core_records_total{outcome=\"refused\"}").unwrap();
    assert!(refused < 1.0, "{refused} records were refused");
    assert!(gateway.metric("caregate_gateway_quarantined_total").unwrap() < 1.0);
    assert!(gateway.stop().success() && core.stop().success());
    println!("{} kills of the gateway, {} of the core", kills.0, kills.1);
    assert!(ledger.open.is_empty());
    assert_exactly_once(&site, &ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_stopped_has_delivered_what_it_acknowledged() {
    let site = Site::new(&DEVICES);
    let (mut gateway, mut core) = (site.gateway(), site.core());
    let sensors = Sensors::start(&site);
    // The gateway is up before the core; without a connection it would stop with all of it in its spool, as the next test sees.
    let connected = || gateway.metric("caregate_gateway_lane_connected") == Some(5.0);
    until("every lane is connected", connected).await;
    sensors.acknowledges(500).await;
    // In the middle of publishing. It does not come back, so what it still had would be missing.
    let (mut gateway, status) = tokio::task::spawn_blocking(move || {
        let status = gateway.stop();
        (gateway, status)
    })
    .await
    .unwrap();
    assert!(status.success(), "{status}\n{}", gateway.tail());
    assert!(core.stop().success());
    {
        let ledger = sensors.ledger.lock().unwrap();
        let found = opened_at_core(&site);
        let lost: Vec<_> = ledger.acknowledged.iter().filter(|name| !found.contains_key(*name)).collect();
        assert!(lost.is_empty(), "{} of {} are missing: {lost:?}", lost.len(), ledger.acknowledged.len());
    }
    // And the rest arrives when both are back.
    gateway.start();
    core.start();
    let ledger = sensors.finish().await;
    delivered(&gateway).await;
    assert!(gateway.stop().success() && core.stop().success());
    assert_exactly_once(&site, &ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_core_takes_readings_and_stops_at_once() {
    let site = Site::new(&DEVICES);
    let mut gateway = site.gateway();
    let sensors = Sensors::start(&site);
    sensors.acknowledges(200).await;
    let stopping = tokio::task::spawn_blocking(move || (gateway.stop(), gateway));
    let (status, mut gateway) = tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    assert!(status.success(), "{status}\n{}", gateway.tail());
    gateway.start();
    let mut core = site.core();
    sensors.acknowledges(200).await;
    let ledger = sensors.finish().await;
    delivered(&gateway).await;
    assert!(gateway.stop().success() && core.stop().success());
    assert_exactly_once(&site, &ledger);
}
