//! A disk that stalls: the watch sees what comes meanwhile, and it is acknowledged when it is durable.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::id::Lane;
use caregate_protocol::policy::{RecipientKind, RecipientStatus};
use ledger_client::fixture::Site;
use ledger_client::verify::verify_bundle;
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::support::{Gateway, Hospital};
use crate::ingest::{self, Inbound, Verdict};
use crate::pipeline::thread::{self, Inputs};
use crate::policy::trail::Origin;
use crate::policy::{Change, Proposal};
use crate::spool::Limits;
use crate::uplink::Uplink;
use crate::watch::Tap;

/// More than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with the ledger's policy in force.
fn opened(dir: &std::path::Path, site: &Site, now_s: u64) -> Gateway {
    let pins = Arc::new(site.enrolment.pins().unwrap());
    let mut gateway = Gateway::open_with(dir, Limits::with_budget(64 << 20), Some(Arc::clone(&pins)), now_s);
    let bytes = site.clone().bytes(now_s);
    let floors = gateway.committer.policy.outputs().floors.borrow().clone();
    let bundle = verify_bundle(&bytes, &pins, &floors, now_s).unwrap();
    let change = Change::Bundle { bundle: Box::new(bundle), bytes, origin: Origin::Door };
    gateway.committer.decide(Proposal::new(change).0, clock::now_us(), clock::monotonic());
    gateway
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the thread that syncs is to wait for it")]
async fn what_comes_while_the_disk_stalls_is_seen_at_once_and_acknowledged_when_it_is_durable() {
    let (dir, mut site, now_s) = (tempfile::tempdir().unwrap(), Site::new(4), clock::now_s());
    let (city, _) = Hospital::on_ledger(0x50);
    site.register(&city, RecipientStatus::Active, RecipientKind::Treating, false);
    site.bind(0, true, 1);
    site.grant(0, &city, 1, |_| ());
    let device = site.enrolment.patients[0].devices[0].device.clone();
    let mut committer = opened(dir.path(), &site, now_s).committer;
    let faults = committer.log.on_thread();
    let (tap, mut seen) = Tap::new(IntCounter::new("dropped", "dropped").unwrap());
    committer.tap = tap;
    let (inbound, inbound_in) = ingest::queue();
    let (acked, acked_in) = mpsc::channel(1);
    let (proposals, standings) = (mpsc::channel(1).1, mpsc::channel(1).1);
    let linger = Duration::ZERO;
    let inputs = Inputs { inbound: inbound_in, acked: acked_in, proposals, standings, linger };
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let uplink = Arc::new(Uplink::new([]));
        runtime.block_on(thread::run(committer, inputs, uplink, CancellationToken::new())).unwrap();
    });

    let mut answers = Vec::new();
    {
        let _stalls = faults.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        for rate in 60..68 {
            let (verdict, answer) = oneshot::channel();
            answers.push(answer);
            let publish = Inbound {
                device: device.clone(),
                topic: format!("vitals/v1/{device}/num/heart-rate"),
                payload: format!("{{\"v\": {rate}, \"unit\": \"/min\"}}").into_bytes().into(),
                received_us: clock::now_us(),
                verdict,
            };
            inbound.of(Lane::Vitals).send(publish).await.unwrap();
            // One by one: each is a batch of its own.
            let batch = timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
            assert_eq!(batch.seen.len(), 1, "{rate}");
        }
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()), "none is durable");
    }
    for answer in answers {
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap(), Verdict::Stored);
    }
    drop((inbound, acked));
    tokio::task::spawn_blocking(move || running.join().unwrap()).await.unwrap();
}
