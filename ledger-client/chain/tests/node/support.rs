//! The real node as a process, with a patient and a hospital.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::id::DeviceId;
use caregate_protocol::policy::{Mac, RecipientKind, RecipientStatus, Watch};
use ledger_chain::{Chain, ChainConfig, Follower, RelayKey, SignedParticipantKey};
use ledger_client::verify::{Address, Enrolment, LedgerPin, ParticipantChange, Pins};
use ledger_client::wallet::{DomainKey, Ledger, PatientSeed, Terms, Wallet};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long any one condition may take: far above what it needs, so that only a fault runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const CHAIN_ID: u64 = 4711;
pub(crate) const GATEWAY: &str = "gateway-1";
pub(crate) const LABEL: &str = "City hospital";

/// The program, which the same build has put beside this test.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("ledger-node");
    assert!(
        path.is_file(),
        "{} is not there; build first: cargo build --release -p ledger-node",
        path.display()
    );
    path
}

/// A key file's text.
fn key_file(path: &Path, secret: &[u8]) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{}", alloy::hex::encode(secret)).unwrap();
}

/// The node, its folder and its governor.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    port: u16,
    process: Option<Child>,
    pub(crate) governor: DomainKey,
}

impl Node {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (rpc, admin) = (port(), port());
        let governor = DomainKey::generate();
        let config = format!(
            "listen = \"127.0.0.1:{rpc}\"\nadmin = \"127.0.0.1:{admin}\"\ndata = {:?}\nsealing_key = {:?}\n\
             chain_id = {CHAIN_ID}\ngovernors = [\"0x{}\"]\nthreshold = 1\ndelay_s = 0\n",
            dir.path().join("chain"),
            dir.path().join("sealing.key"),
            governor.id()
        );
        std::fs::write(dir.path().join("node.toml"), config).unwrap();
        key_file(&dir.path().join("governor.key"), governor.secret().as_slice());
        let mut node = Self { dir, port: rpc, process: None, governor };
        node.resume();
        node
    }

    pub(crate) fn resume(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.path().join("node.log")).unwrap();
        let mut command = Command::new(binary());
        command.arg("--config").arg(self.dir.path().join("node.toml")).stdin(Stdio::null());
        self.process = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Takes the chain away, so that the next start makes another.
    pub(crate) fn forget(&self) {
        std::fs::remove_dir_all(self.dir.path().join("chain")).unwrap();
    }

    pub(crate) fn rpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The node's own description; it is there once the node runs.
    pub(crate) async fn deployment(&self) -> Value {
        let path = self.dir.path().join("chain/deployment.json");
        until("the node describes its chain", async || {
            serde_json::from_slice(&std::fs::read(&path).ok()?).ok()
        })
        .await
    }

    pub(crate) async fn contract(&self) -> Address {
        self.deployment().await["contract"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) async fn config(&self) -> ChainConfig {
        ChainConfig { poll_ms: 20, ..ChainConfig::new(&self.rpc(), CHAIN_ID, self.contract().await) }
    }

    /// A client, once the node answers.
    pub(crate) async fn chain(&self) -> Chain {
        let config = self.config().await;
        until("the node answers", async || Chain::connect(config.clone()).await.ok()).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("node.log")).unwrap_or_default();
            println!("--- node\n{log}");
        }
    }
}

/// Waits until a condition that can only be looked at holds.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_elapsed) => panic!("{what}: did not happen within {PATIENCE:?}"),
    }
}

/// A chain that is followed, until this is dropped.
pub(crate) struct Following {
    pub(crate) follower: Arc<Follower>,
    _stop: DropGuard,
}

impl Following {
    pub(crate) fn start(chain: Chain) -> Self {
        let stop = CancellationToken::new();
        Self { follower: Follower::start(chain, stop.clone()), _stop: stop.drop_guard() }
    }

    /// Waits until the index has this block.
    pub(crate) async fn at(&self, block: u64) {
        let mut heads = self.follower.heads();
        let reached = heads.wait_for(|head| head.is_some_and(|head| head.number >= block));
        tokio::time::timeout(PATIENCE, reached).await.expect("the block is followed").unwrap();
    }
}

/// A patient with a wallet, and a hospital that takes part.
pub(crate) struct Cast {
    pub(crate) wallet: Wallet,
    pub(crate) hospital: DomainKey,
    pub(crate) relay: RelayKey,
    pub(crate) device: DeviceId,
}

pub(crate) const HPKE: [u8; 32] = [0x0a; 32];

impl Cast {
    pub(crate) async fn new(node: &Node, chain: &Chain) -> Self {
        let (hospital, relay) = (DomainKey::generate(), RelayKey::random());
        let device = DeviceId::new("ecg-1").unwrap();
        let mut wallet = Wallet::new(PatientSeed::generate());
        let sealer = node.deployment().await["validators"][0].as_str().unwrap().parse().unwrap();
        wallet.ledger = Some(Ledger { domain: chain.domain(), validators: vec![sealer] });
        wallet.add_relationship(LABEL, hospital.id()).unwrap();
        wallet.add_device(GATEWAY, &device, Mac([2, 0, 0, 0, 0, 1])).unwrap();
        let cast = Self { wallet, hospital, relay, device };
        cast.register(node, chain, &cast.hospital, RecipientKind::Treating, false).await;
        cast
    }

    /// The governor says who takes part, and as what; the block.
    pub(crate) async fn govern(
        &self,
        node: &Node,
        chain: &Chain,
        domain: &DomainKey,
        status: Option<RecipientStatus>,
        (kind, emergency): (RecipientKind, bool),
    ) -> u64 {
        let participant = domain.id();
        let version = chain.participant_version(&participant).await.unwrap() + 1;
        let change = ParticipantChange { participant, status, kind, emergency, version };
        let approval = node.governor.approve_participant(&change, &chain.domain());
        chain.approve_participant(&change, &approval, &self.relay).await.unwrap().block
    }

    /// Registers a domain and gives it its key.
    pub(crate) async fn register(
        &self,
        node: &Node,
        chain: &Chain,
        domain: &DomainKey,
        kind: RecipientKind,
        emergency: bool,
    ) {
        self.govern(node, chain, domain, Some(RecipientStatus::Active), (kind, emergency)).await;
        let signature = domain.sign_hpke_key(&HPKE, 1, &chain.domain());
        let key =
            SignedParticipantKey { participant: domain.id(), hpke_public_key: HPKE, version: 1, signature };
        chain.set_participant_key(&key, &self.relay).await.unwrap();
    }

    /// Grants for a day; the block.
    pub(crate) async fn grant(&mut self, chain: &Chain) -> u64 {
        let now = chain.head().await.unwrap().time_s;
        let terms =
            Terms { classes: 3, purposes: 1, from: now - 10, until: now + 86_400, stale_bound_s: 600 };
        let signed = self.wallet.sign_grant(LABEL, &terms).unwrap();
        let revoke_key = self.wallet.keys(LABEL).unwrap().revoke.address();
        chain.grant(&signed, &revoke_key, &self.relay).await.unwrap().block
    }

    /// Revokes; the block.
    pub(crate) async fn revoke(&mut self, chain: &Chain) -> u64 {
        let signed = self.wallet.sign_revocation(LABEL).unwrap();
        let revoke_key = self.wallet.keys(LABEL).unwrap().revoke.address();
        chain.revoke(&signed, &revoke_key, &self.relay).await.unwrap().block
    }

    /// Binds or releases the device; the block.
    pub(crate) async fn bind(&mut self, chain: &Chain, bound: bool) -> u64 {
        let signed = self.wallet.sign_binding(GATEWAY, &self.device, bound).unwrap();
        chain.bind_device(&signed, &self.relay).await.unwrap().block
    }

    /// What a gateway pins.
    pub(crate) fn pins(&self) -> Pins {
        let known = self.wallet.ledger.clone().unwrap();
        let ledger = LedgerPin {
            chain_id: known.domain.chain_id,
            contract: known.domain.verifying_contract,
            validators: known.validators,
            staleness_max_s: 600,
        };
        Enrolment { ledger, patients: vec![self.wallet.enrolled(GATEWAY).unwrap()] }.pins().unwrap()
    }

    pub(crate) fn watch(&self) -> Watch {
        self.pins().watch()
    }
}
