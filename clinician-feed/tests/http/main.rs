//! The feed against real clients, a browser's requests and a WebSocket library; and its binary against a real core.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
mod client;
mod command;
mod core;
mod fhir;
mod history;
mod ledger;
mod login;
mod node;
mod offer;
mod search;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use caregate_host::http::{self, Options};
use caregate_protocol::alarm::Standing;
use caregate_protocol::id::{DataClass, DeviceId, PatientId, StreamName};
use caregate_protocol::reading::{Reading, Value};
use caregate_protocol::segment::signer_id;
use clinician_feed::command::Commander;
use clinician_feed::emergency::BreakGlass;
use clinician_feed::feed::{Chains, Feed};
use clinician_feed::journal::{Journal, What};
use clinician_feed::ledger::{Known, Watcher};
use clinician_feed::login::Login;
use clinician_feed::message::{Bed, Category};
use clinician_feed::metrics::Metrics;
use clinician_feed::offer::Offerer;
use clinician_feed::opener::{ChainState, Opened};
use clinician_feed::password::{self, Hashed};
use clinician_feed::record::Recorder;
use clinician_feed::server::Oversight;
use clinician_feed::{daemon, server};
use ed25519_dalek::SigningKey;
use ledger_chain::{Chain, ChainConfig, Follower};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENT: PatientId = PatientId([1; 16]);
pub(crate) const USER: &str = "nurse";
pub(crate) const PASSWORD: &str = "correct horse";
/// 2026-09-21T14:13:20Z.
pub(crate) const T0_US: i64 = 1_790_000_000_000_000;

/// A server as the daemon starts it, with a feed that the test fills.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) feed: Arc<Feed>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    dir: TempDir,
}

pub(crate) fn start(ring_bytes_max: usize) -> Site {
    start_by(ring_bytes_max, None, None)
}

pub(crate) fn start_by(
    ring_bytes_max: usize,
    commander: Option<Commander>,
    offerer: Option<(Offerer, BreakGlass)>,
) -> Site {
    let listener = daemon::listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (feed, stop) = (Arc::new(Feed::new(ring_bytes_max)), CancellationToken::new());
    let user = (USER.to_owned(), Hashed::new(&password::hash(PASSWORD).unwrap()).unwrap());
    let beds =
        vec![Bed { bed: "Bed 1".into(), patient: PATIENT, category: Category::Adult, relationship: None }];
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let login = Login::new([user]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&journal_path(&dir)).unwrap().0;
    let recorder = Recorder::new(journal, &[], metrics.clone());
    let (offerer, break_glass) = offerer.unzip();
    let ledger = break_glass.as_ref().map(|break_glass| ledger_away(break_glass, &recorder, &metrics, &stop));
    let oversight = Oversight { recorder, ledger, break_glass, commander, grants: None };
    let mut app = server::App::new(Arc::clone(&feed), login, beds, oversight, metrics, false, stop.clone());
    app.offerer = offerer;
    let app = Arc::new(app);
    let options = Options { connections_max: server::CONNECTIONS_MAX, tls: None };
    let (router, stopping) = (server::router(Arc::clone(&app)), stop.clone());
    let serving = tokio::spawn(async move {
        http::serve(listener, router, options, stopping).await;
        daemon::drain(&app).await;
    });
    Site { address, feed, stop, serving, dir }
}

fn journal_path(dir: &TempDir) -> PathBuf {
    dir.path().join("journal.jsonl")
}

/// Of a ledger that nobody answers for.
pub(crate) fn nowhere() -> Chain {
    Chain::new(ChainConfig::new(
        "http://127.0.0.1:1",
        offer::DOMAIN.chain_id,
        offer::DOMAIN.verifying_contract,
    ))
    .unwrap()
}

fn ledger_away(
    break_glass: &BreakGlass,
    recorder: &Recorder,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> watch::Receiver<Known> {
    let follower = Follower::start(nowhere(), stop.clone());
    let (me, trail) = (node::hospital().id(), Arc::clone(recorder.trail()));
    let watcher = Watcher::new(follower, me, Vec::new(), trail, metrics.clone(), break_glass.handed());
    let known = watcher.known();
    tokio::spawn(watcher.run(stop.clone()));
    known
}

pub(crate) fn reading(stream: &str, sensor_time_us: Option<i64>, value: Value) -> Reading {
    Reading {
        device: DeviceId::new("monitor-1").unwrap(),
        stream: StreamName::new(stream).unwrap(),
        seq: Some(7),
        sensor_time_us,
        gateway_time_us: T0_US + 1_000,
        flags: 0,
        value,
    }
}

/// The gateway that signs everything here.
pub(crate) fn gateway_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

pub(crate) fn heart_rate(value: f64) -> Reading {
    reading("heart-rate", Some(T0_US), Value::Numeric { quantity: 1, value })
}

impl Site {
    pub(crate) fn journal_path(&self) -> PathBuf {
        journal_path(&self.dir)
    }

    /// What its journal has.
    pub(crate) fn noted(&self) -> Vec<What> {
        let entries = Journal::open(&self.journal_path()).unwrap().1;
        entries.into_iter().map(|entry| entry.what).collect()
    }

    /// Stops it; answers with what its journal has then.
    pub(crate) async fn end(&mut self) -> Vec<What> {
        self.stop.cancel();
        (&mut self.serving).await.unwrap();
        self.noted()
    }

    pub(crate) fn append(&self, class: DataClass, sequence: u64, readings: Vec<Reading>) {
        self.append_with(class, sequence, readings, Vec::new());
    }

    pub(crate) fn append_with(
        &self,
        class: DataClass,
        sequence: u64,
        readings: Vec<Reading>,
        standings: Vec<Standing>,
    ) {
        let states =
            Chains::from([((PATIENT, class), ChainState { verified: sequence, gap: None, told: None })]);
        let signer = signer_id(&gateway_key().verifying_key());
        let sealed_us = T0_US + i64::try_from(sequence).unwrap();
        let opened = Opened { patient: PATIENT, class, sequence, readings, standings, signer, sealed_us };
        self.feed.append(vec![opened], states, T0_US / 1000 + 12);
    }
}
