//! Both stores under the same load: what a commit costs by how many records and chains are in it. One line of JSON for each.
//!
//! `cargo bench --profile release -p core-cloud --features nats --bench store -- PATH-OF-NATS-SERVER`, after `cargo xtask interop --nats`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::key::PatientRoot;
use caregate_protocol::segment::{Cipher, Header, SegmentHash, signer_id};
use core_cloud::store::jetstream::{JetStream, Settings};
use core_cloud::store::{Embedded, Outcome, Store};
use ed25519_dalek::SigningKey;

/// (chains, records) of a commit: one sensor; a clinic's second; a hospital's; a backlog.
const LOADS: [(u64, u64); 6] = [(1, 1), (1, 20), (10, 20), (50, 50), (50, 1000), (1000, 1000)];
/// Of a round.
const TIME: Duration = Duration::from_secs(1);
/// For each load and store.
const ROUNDS: u32 = 4;
/// Of a segment's plaintext: some numerics.
const PLAINTEXT_BYTES: usize = 120;
const EPOCH: u32 = 29_000_000;

struct Server {
    child: Child,
    settings: Settings,
}

impl Server {
    fn start(program: &Path, dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "listen: 127.0.0.1:{port}\nserver_name: bench\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {:?}, sync_interval: always }}\n\
             accounts {{ CORE {{ jetstream: enabled, users: [ {{ user: core, password: pw }} ] }}\n\
             SYS {{ users: [ {{ user: sys, password: sp }} ] }} }}\nsystem_account: SYS\n",
            dir.join("stream")
        );
        let config = dir.join("nats.conf");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        let settings = Settings {
            url: format!("nats://127.0.0.1:{port}"),
            ca: None,
            user: ("core".into(), "pw".into()),
            system_user: ("sys".into(), "sp".into()),
            stream: "BENCH".into(),
            replicas: 1,
        };
        Self { child, settings }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Seals what comes next of each chain.
struct Sealer {
    device: SigningKey,
    root: PatientRoot,
    next: u64,
}

impl Sealer {
    /// `records` of `chains`, in turn; each call's chains are new, so that no number comes twice.
    fn batch(&mut self, chains: u64, records: u64) -> Vec<Vec<u8>> {
        let key = self.root.class_key(DataClass::Vitals, 0).epoch_key(EPOCH).unwrap();
        let first = self.next;
        self.next += records;
        let seal = |n: u64| {
            let mut patient = [0; 16];
            patient[..8].copy_from_slice(&(n % chains).to_be_bytes());
            let header = Header {
                class: DataClass::Vitals,
                cipher: Cipher::Aes256Gcm,
                patient: PatientId(patient),
                signer: signer_id(&self.device.verifying_key()),
                generation: 0,
                epoch: EPOCH,
                sequence: first + n,
                prev: SegmentHash::NONE,
                salt: [9; 16],
                sealed_us: 0,
                readings: 0,
            };
            header.seal(&[0x5a; PLAINTEXT_BYTES], &key, &self.device).unwrap().0
        };
        (0..records).map(seal).collect()
    }
}

/// Records in a second, and how long commits took: median and 99th percentile, in milliseconds.
#[derive(Clone, Copy)]
struct Round(f64, f64, f64);

fn round(store: &dyn Store, sealer: &mut Sealer, (chains, records): (u64, u64)) -> Round {
    let (mut took, mut total) = (Vec::new(), Duration::ZERO);
    while total < TIME {
        let batch = sealer.batch(chains, records);
        let began: Instant = clock::monotonic();
        let outcomes = store.put(&batch).unwrap();
        let elapsed = began.elapsed();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
        took.push(elapsed.as_secs_f64() * 1000.0);
        total += elapsed;
    }
    took.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = took.len() as f64 * records as f64 / total.as_secs_f64();
    Round(rate, took[took.len() / 2], took[took.len() * 99 / 100])
}

/// Of several rounds in turn the best: what else the machine's disk does is no store's.
fn measure(stores: &[(&str, &dyn Store)], sealer: &mut Sealer) {
    for load in LOADS {
        let mut best: Vec<Option<Round>> = vec![None; stores.len()];
        for _ in 0..ROUNDS {
            for ((_, store), best) in stores.iter().zip(&mut best) {
                let round = round(*store, sealer, load);
                *best = Some(best.filter(|best| best.0 > round.0).unwrap_or(round));
            }
        }
        for ((name, _), Round(rate, p50, p99)) in stores.iter().zip(best.into_iter().flatten()) {
            let (chains, records) = load;
            println!(
                "{{\"store\":\"{name}\",\"chains\":{chains},\"records\":{records},\"records_s\":{rate:.0},\
                 \"commit_p50_ms\":{p50:.2},\"commit_p99_ms\":{p99:.2}}}"
            );
        }
    }
}

fn main() {
    let program = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let program = program.expect("say where nats-server is: cargo xtask interop --nats installs it");
    // On a disk: a file system in memory has no syncs.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut sealer =
        Sealer { device: SigningKey::from_bytes(&[3; 32]), root: PatientRoot::from_bytes([7; 32]), next: 0 };
    let place = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let embedded = Embedded::open(&place("embedded")).unwrap();
    let server = Server::start(Path::new(&program), dir.path());
    let stream = JetStream::open(&place("tables"), &server.settings).unwrap();
    measure(&[("embedded", &embedded), ("jetstream", &stream)], &mut sealer);
}
