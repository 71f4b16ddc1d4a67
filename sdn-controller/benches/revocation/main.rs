//! How long a revocation takes from the transaction to a gateway at which it is in force, among many gateways.
//!
//! `cargo bench -p sdn-controller --bench revocation -- [--gateways N]… [--revocations N]`. The last line is one JSON object.
//! docs/benchmarks.md says how the figures are taken. Needs the `ledger-node` binary: `cargo build --release -p ledger-node`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "real time is what is measured, and what fails ends the bench"
)]

mod gateway;
mod ledger;
#[path = "../../../edge-gateway/tests/openflow_support/pki.rs"]
mod pki;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caregate_host::identity::{Identity, Role};
use gateway::Gateway;
use ledger::{Node, hospital};
use ledger_chain::{ChainConfig, RevokedGateways};
use pki::Pki;
use prometheus::Registry;
use sdn_controller::events::Events;
use sdn_controller::metrics::Metrics;
use sdn_controller::policy::{self, Followed, Policy, Waiting};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Revocations begin so often.
const EVERY: Duration = Duration::from_millis(100);
/// At each gateway. It takes two bundles a second in the long run, whatever it is sent: that of the revocation, and that of the grant after.
const EVERY_AT_ONE: Duration = Duration::from_millis(1_250);
/// Grants on their way at once while the ledger is filled, and gateways that connect at once.
const AT_ONCE: usize = 16;
/// What nothing here may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Arguments {
    gateways: Vec<usize>,
    revocations: usize,
}

impl Arguments {
    fn parse() -> Self {
        let mut parsed = Self { gateways: Vec::new(), revocations: 400 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|number| number.parse().ok()).expect("a number");
            match word.as_str() {
                "--gateways" => parsed.gateways.push(number()),
                "--revocations" => parsed.revocations = number(),
                // cargo's own.
                "--bench" => {}
                other => panic!("unknown argument {other}"),
            }
        }
        if parsed.gateways.is_empty() {
            parsed.gateways = vec![1, 100, 1000];
        }
        parsed
    }
}

fn main() {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut out = serde_json::Map::new();
    for gateways in arguments.gateways {
        // One gateway takes two offers a second, whatever it is sent: each revocation there, and the grant after it.
        let every = EVERY.max(EVERY_AT_ONE / u32::try_from(gateways).unwrap());
        let revocations =
            if every > EVERY { arguments.revocations.div_ceil(8) } else { arguments.revocations };
        let Figures { mut times, took, bundles } = runtime.block_on(measure(gateways, revocations, every));
        times.sort();
        let at = |percent: usize| rounded(times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3);
        let mut put = |name: &str, value: f64| out.insert(format!("{name}_{gateways}"), value.into());
        put("revocation_ms_p50", at(50));
        put("revocation_ms_p99", at(99));
        put("revocation_ms_max", at(100));
        put("revocations_per_s", rounded(times.len() as f64 / took.as_secs_f64()));
        put("bundles_per_s", rounded(bundles as f64 / took.as_secs_f64()));
        eprintln!("{gateways} gateways: p50 {} ms, p99 {} ms", at(50), at(99));
    }
    println!("{}", serde_json::Value::from(out));
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

struct Figures {
    times: Vec<Duration>,
    took: Duration,
    bundles: u64,
}

async fn measure(gateways: usize, revocations: usize, every: Duration) -> Figures {
    // On a disk that syncs, where /tmp may be none.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (node, pki, stop) = (Node::start(folder.path()).await, Pki::new(), CancellationToken::new());
    node.register(&hospital()).await;
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let port = deliver(&node, &pki, folder.path(), &metrics, &stop);
    let began = Instant::now();
    let gateways = start(&node, &pki, port, folder.path(), gateways, &stop).await;
    eprintln!("{} gateways are served after {:?}", gateways.len(), began.elapsed());
    let sent = || metrics.bundles.with_label_values(&["sent"]).get();
    let (before, began) = (sent(), Instant::now());
    let times = revoke(&node, gateways, revocations, every).await;
    let (took, bundles) = (began.elapsed(), sent() - before);
    stop.cancel();
    Figures { times, took, bundles }
}

/// The controller's policy delivery on a port of loopback.
fn deliver(node: &Node, pki: &Pki, folder: &Path, metrics: &Metrics, stop: &CancellationToken) -> u16 {
    let identity = Identity::load(&pki.issue(Role::Controller, "controller-1")).unwrap();
    let config: ChainConfig = node.config();
    let ledger = Followed::start(config, stop).unwrap();
    let policy =
        Policy::start(ledger, Waiting::open(folder).unwrap(), metrics.clone(), Events::default(), stop);
    let endpoint = policy::bind("127.0.0.1:0", &identity).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    tokio::spawn(policy::serve(endpoint, policy, RevokedGateways::none(), stop.clone()));
    port
}

/// Gateways with one patient and one grant each, once that is in force everywhere.
async fn start(
    node: &Node,
    pki: &Pki,
    port: u16,
    folder: &Path,
    count: usize,
    stop: &CancellationToken,
) -> Vec<Gateway> {
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut starting = JoinSet::new();
    for number in 0..count {
        let identity = pki.identity(Role::Gateway, &format!("home-{number}"));
        let gateway = Gateway::new(node, number, folder);
        let (node, at_once, stop) = (node.clone(), Arc::clone(&at_once), stop.clone());
        starting.spawn(async move {
            let _turn = at_once.acquire().await;
            node.grant(&gateway.patient, 1).await;
            gateway.connect(identity, port, &stop);
            gateway.until_open(true, PATIENCE).await;
            gateway
        });
    }
    let mut gateways = starting.join_all().await;
    gateways.sort_by_key(|gateway| gateway.number);
    gateways
}

/// Revokes at one gateway after the other, at random; each is granted again once that was seen in force.
async fn revoke(node: &Node, gateways: Vec<Gateway>, revocations: usize, every: Duration) -> Vec<Duration> {
    let (done, mut free) = mpsc::channel(gateways.len());
    for gateway in gateways {
        done.send(gateway).await.unwrap();
    }
    let (mut waiting, mut random, mut next) = (Vec::new(), Random(0x0F1B_1305), Instant::now());
    let (times_out, mut times) = mpsc::unbounded_channel();
    for _ in 0..revocations {
        tokio::time::sleep_until(next.into()).await;
        next = next.max(Instant::now() - every) + every;
        if waiting.is_empty() {
            waiting.push(tokio::time::timeout(PATIENCE, free.recv()).await.unwrap().unwrap());
        }
        waiting.extend(std::iter::from_fn(|| free.try_recv().ok()));
        let mut gateway = waiting.swap_remove(random.below(waiting.len()));
        let (node, done, times) = (node.clone(), done.clone(), times_out.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            // In force may be before the transaction's receipt is here.
            tokio::join!(node.revoke(&gateway.patient, gateway.version), async {
                gateway.until_open(false, PATIENCE).await;
                times.send(began.elapsed()).unwrap();
            });
            gateway.version += 1;
            node.grant(&gateway.patient, gateway.version).await;
            gateway.until_open(true, PATIENCE).await;
            drop(done.send(gateway).await);
        });
    }
    let mut all = Vec::new();
    while all.len() < revocations {
        all.push(tokio::time::timeout(PATIENCE, times.recv()).await.unwrap().unwrap());
    }
    all
}

/// Xorshift (Marsaglia, 2003); the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}
