//! A disk that stalls: the watch sees what comes meanwhile, and it is acknowledged when it is durable.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::id::{DeviceId, Lane};
use caregate_protocol::policy::{RecipientKind, RecipientStatus};
use ledger_client::fixture::Site;
use ledger_client::verify::verify_bundle;
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::support::commits::{Commits, Sources, doors};
use super::support::{Gateway, Hospital};
use crate::faults::Faults;
use crate::ingest::{Inbound, Inlet, Verdict};
use crate::policy::trail::Origin;
use crate::policy::{Change, Proposal};
use crate::spool::Limits;
use crate::watch::Tap;
use crate::watch::store::WatchStore;
use crate::watch::tap::Batch;

/// More than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with the ledger's policy in force.
fn opened(dir: &Path, site: &Site, now_s: u64) -> Gateway {
    let pins = Arc::new(site.enrolment.pins().unwrap());
    let mut gateway = Gateway::open_with(dir, Limits::with_budget(64 << 20), Some(Arc::clone(&pins)), now_s);
    let bytes = site.clone().bytes(now_s);
    let floors = gateway.committer.policy.outputs().floors.borrow().clone();
    let bundle = verify_bundle(&bytes, &pins, &floors, now_s).unwrap();
    let change = Change::Bundle { bundle: Box::new(bundle), bytes, origin: Origin::Door };
    gateway.committer.decide(Proposal::new(change).0, clock::now_us(), clock::monotonic());
    gateway
}

/// Where the disk stalls.
#[derive(Debug, Clone, Copy)]
enum Where {
    /// At the spool.
    Spool,
    /// At the journal, which has wraps before they go up.
    Journal,
    /// At `keys.redb`, which has a generation before it seals.
    Keys,
}

/// A gateway whose commit thread runs.
struct Running {
    device: DeviceId,
    inlet: Inlet,
    seen: mpsc::Receiver<Batch>,
    early: IntCounter,
    faults: Arc<Faults>,
    keys: WatchStore,
    commits: Commits,
    _looks: DropGuard,
}

impl Running {
    fn start(dir: &Path, is_granted: bool) -> Self {
        let (mut site, now_s) = (Site::new(4), clock::now_s());
        let (city, _) = Hospital::on_ledger(0x50);
        site.register(&city, RecipientStatus::Active, RecipientKind::Treating, false);
        site.bind(0, true, 1);
        if is_granted {
            site.grant(0, &city, 1, |_| ());
        }
        let device = site.enrolment.patients[0].devices[0].device.clone();
        let mut committer = opened(dir, &site, now_s).committer;
        let (faults, keys) = (committer.log.on_thread(), committer.keys.watch());
        let (tap, seen) = Tap::new(IntCounter::new("dropped", "dropped").unwrap());
        committer.tap = tap.clone();
        let (inlet, front) = doors();
        let early = IntCounter::new("early", "early").unwrap();
        let (policy, erased) = (committer.policy.outputs().policy, committer.keys.erasures().follow());
        let stop = CancellationToken::new();
        tokio::spawn(front.lookout(tap, policy, erased, early.clone()).run(stop.clone()));
        let sources = Sources { linger: Duration::ZERO, ..Sources::default() };
        let commits = Commits::begin(committer, front, sources);
        Self { device, inlet, seen, early, faults, keys, commits, _looks: stop.drop_guard() }
    }

    async fn send(&self, leaf: &str, payload: &str) -> oneshot::Receiver<Verdict> {
        let (verdict, answer) = oneshot::channel();
        let publish = Inbound {
            device: self.device.clone(),
            topic: format!("vitals/v1/{}/{leaf}", self.device),
            payload: payload.as_bytes().to_vec().into(),
            received_us: clock::now_us(),
            verdict,
        };
        self.inlet.of(Lane::Vitals).send(publish).await.unwrap();
        answer
    }

    /// The next batch in which something is; the marks of those before are behind its own.
    async fn seen(&mut self) -> Batch {
        loop {
            let batch = timeout(PATIENCE, self.seen.recv()).await.unwrap().unwrap();
            if !batch.seen.is_empty() {
                return batch;
            }
        }
    }

    /// Sends what makes wraps while the disk stalls, sees it, and has it acknowledged when the disk is back.
    async fn stalls(&mut self, at: Where, dir: &Path) {
        let faults = Arc::clone(&self.faults);
        let spool =
            matches!(at, Where::Spool).then(|| faults.stalls.lock().unwrap_or_else(PoisonError::into_inner));
        let head = matches!(at, Where::Journal).then(|| {
            let head = File::open(dir.join("journal.jsonl.head")).unwrap();
            head.lock().unwrap();
            head
        });
        let keys = self.keys.clone();
        let keys = matches!(at, Where::Keys).then(|| keys.hold());
        let mut answers = Vec::new();
        for rate in 60..68 {
            answers
                .push(self.send("num/heart-rate", &format!("{{\"v\": {rate}, \"unit\": \"/min\"}}")).await);
            // One by one: each is a batch of its own.
            assert_eq!(self.seen().await.seen.len(), 1, "{at:?} {rate}");
        }
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()), "{at:?}: none is durable");
        // The lock goes with the file.
        drop((spool, head, keys));
        for answer in answers {
            assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap(), Verdict::Stored, "{at:?}");
        }
    }

    async fn end(self) {
        let Self { inlet, commits, seen, .. } = self;
        drop((inlet, seen));
        tokio::task::spawn_blocking(move || commits.end()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_comes_while_the_disk_stalls_is_seen_at_once_and_acknowledged_when_it_is_durable() {
    // Where nothing is granted, no head that is due helps on what does not go on by itself.
    for (at, is_granted) in
        [(Where::Spool, false), (Where::Spool, true), (Where::Journal, true), (Where::Keys, true)]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut running = Running::start(dir.path(), is_granted);
        // A class of its own, so that the journal is there and the spool has something.
        let walked = running.send("num/steps", "{\"v\": 5}").await;
        assert_eq!(timeout(PATIENCE, walked).await.unwrap().unwrap(), Verdict::Stored);
        assert_eq!(running.seen().await.seen.len(), 1);
        running.stalls(at, dir.path()).await;
        // A spool that stalls alone takes a batch a second later, in which the lookout may have been quicker.
        assert!(running.early.get() > 0 || matches!(at, Where::Spool), "{at:?}");
        running.end().await;
    }
}
