//! anvil, a chain without finality that others wrote: what was read may be taken back.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use caregate_protocol::policy::RelationshipId;
use ledger_chain::{Chain, ChainConfig, ChainError, LOG_BLOCKS_MAX, RelayKey, Status};
use ledger_client::verify::{Address, slots};
use ledger_client::wallet::{DomainKey, Ledger, PatientSeed, Terms, Wallet};
use serde_json::{Value, json};

use super::support::{Following, LABEL, PATIENCE, until};

const CHAIN_ID: u64 = 31_337;

struct Anvil {
    process: Child,
    port: u16,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Of the npm packages beside the contract; they are installed where they are missing.
fn binary() -> PathBuf {
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts");
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _alone = INSTALLING.lock().unwrap();
    let binary = contracts.join(format!("node_modules/@foundry-rs/anvil-linux-{arch}/bin/anvil"));
    if !binary.exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&contracts);
        assert!(npm.status().expect("npm, which installs anvil").success());
    }
    binary
}

impl Anvil {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(port, &[]).await
    }

    async fn start_at(port: u16, more: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["--port", &port.to_string(), "--silent", "--gas-price", "0"]);
        command.args(["--block-base-fee-per-gas", "0", "--hardfork", "cancun"]).args(more);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("anvil");
        let anvil = Self { process, port };
        until("anvil answers", async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        anvil
    }

    /// Ends it as an operator does, so that it writes its state.
    fn stop(&mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.process.wait().unwrap();
    }

    fn ask(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The contract, with one governor and no delay, made by an account that anvil holds.
    async fn deploy(&self, governor: &DomainKey) -> Address {
        let artifact: Value = serde_json::from_str(include_str!("../../../contracts/Caregate.json")).unwrap();
        let code = artifact["bytecode"].as_str().unwrap();
        // abi.encode(address[], uint8, uint64)
        let words = [0x60, 1, 0, 1].map(|word: u8| format!("{word:064x}")).concat();
        let data = format!("0x{}{words}{:0>64}", code.trim_start_matches("0x"), governor.id().to_string());
        let from = self.ask("eth_accounts", json!([]))[0].clone();
        let hash =
            self.ask("eth_sendTransaction", json!([{ "from": from, "data": data, "gas": "0x7a1200" }]));
        let receipt = until("the contract is there", async || {
            Some(self.ask("eth_getTransactionReceipt", json!([hash]))).filter(|receipt| !receipt.is_null())
        })
        .await;
        receipt["contractAddress"].as_str().unwrap().parse().unwrap()
    }
}

/// A patient on a contract of their own. They look at the chain through `chain`.
struct Patient {
    config: ChainConfig,
    chain: Chain,
    wallet: Wallet,
    relay: RelayKey,
}

impl Patient {
    async fn new(anvil: &Anvil, labels: &[&str]) -> Self {
        let contract = anvil.deploy(&DomainKey::generate()).await;
        let rpc = format!("http://127.0.0.1:{}", anvil.port);
        let config = ChainConfig { poll_ms: 20, ..ChainConfig::new(&rpc, CHAIN_ID, contract) };
        let chain = Chain::connect(config.clone()).await.unwrap();
        let mut wallet = Wallet::new(PatientSeed::generate());
        wallet.ledger = Some(Ledger { domain: chain.domain(), validators: vec![Address([1; 20])] });
        for label in labels {
            wallet.add_relationship(label, DomainKey::generate().id()).unwrap();
        }
        let patient = Self { config, chain, wallet, relay: RelayKey::random() };
        patient.fund(anvil);
        patient
    }

    /// Gas is not free there. It takes three blocks.
    fn fund(&self, anvil: &Anvil) {
        let address = format!("0x{}", alloy::hex::encode(self.relay.address().0));
        anvil.ask("anvil_setBalance", json!([address, "0xde0b6b3a7640000"]));
        anvil.ask("anvil_mine", json!(["0x3"]));
    }

    fn relationship(&self, label: &str) -> RelationshipId {
        let keys = self.wallet.keys(label).unwrap();
        slots::relationship(&keys.grant.address(), &keys.revoke.address())
    }

    /// The block.
    async fn grant(&mut self, label: &str) -> u64 {
        let now = self.chain.head().await.unwrap().time_s;
        let terms = Terms { classes: 3, purposes: 1, from: now, until: now + 600, stale_bound_s: 60 };
        let signed = self.wallet.sign_grant(label, &terms).unwrap();
        let revoke_key = self.wallet.keys(label).unwrap().revoke.address();
        self.chain.grant(&signed, &revoke_key, &self.relay).await.unwrap().block
    }

    /// The newest grant that a follower knows of.
    fn known(&self, following: &Following, label: &str) -> Option<u64> {
        following.follower.with_index(|index| {
            let consent = index.consent(&self.relationship(label))?;
            Some(consent.grant.as_ref()?.grant.version)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_chain_without_finality_takes_back_is_forgotten_and_what_comes_instead_is_read() {
    let anvil = Anvil::start().await;
    let mut patient = Patient::new(&anvil, &[LABEL]).await;
    let following = Following::start(patient.chain.clone());
    following.at(patient.grant(LABEL).await).await;
    let second = patient.grant(LABEL).await;
    following.at(second).await;
    assert_eq!(patient.known(&following, LABEL), Some(2));

    // The newest block is another one now, of the same height and without the grant.
    anvil.ask("anvil_reorg", json!([1, []]));
    assert_eq!(patient.chain.head().await.unwrap().number, second);
    let known = |patient: &Patient| patient.known(&following, LABEL);
    until("the second grant is forgotten", async || (known(&patient) == Some(1)).then_some(())).await;
    // Both are gone, while nobody looks in between; then others come.
    anvil.ask("anvil_reorg", json!([2, []]));
    patient.fund(&anvil);
    until("both are forgotten", async || known(&patient).is_none().then_some(())).await;
    following.at(patient.grant(LABEL).await).await;
    assert_eq!(known(&patient), Some(3), "the wallet counts on");
    let relationship = patient.relationship(LABEL);
    assert_eq!(patient.chain.consent(&relationship).await.unwrap().version, 3);
}

/// Two ranges of `eth_getLogs` and a bit: an event in the last block of the first, one in the first block of the second, and one at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_chain_is_caught_up_with_range_by_range() {
    const LABELS: [&str; 3] = ["City hospital", "Regional hospital", "Clinic"];
    let anvil = Anvil::start().await;
    let mut patient = Patient::new(&anvil, &LABELS).await;
    let last = LOG_BLOCKS_MAX - 1;
    for (label, block) in LABELS.into_iter().zip([last, last + 1, 2 * LOG_BLOCKS_MAX + 10]) {
        let head = patient.chain.head().await.unwrap().number;
        anvil.ask("anvil_mine", json!([format!("{:#x}", block - 1 - head)]));
        assert_eq!(patient.grant(label).await, block);
    }
    let following = Following::start(patient.chain.clone());
    following.at(2 * LOG_BLOCKS_MAX + 10).await;
    for label in LABELS {
        assert_eq!(patient.known(&following, label), Some(1), "{label}");
    }
    // One that follows from a block in the middle reads nothing of before.
    let config = ChainConfig { deployed_at: last + 1, ..patient.config.clone() };
    let later = Following::start(Chain::connect(config).await.unwrap());
    later.at(2 * LOG_BLOCKS_MAX + 10).await;
    assert_eq!(LABELS.map(|label| patient.known(&later, label)), [None, Some(1), Some(1)]);
}

/// A node that others wrote, stopped and started again with the same state on the same port.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_stopped_is_followed_again_where_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let keeping = ["--state", state.to_str().unwrap(), "--preserve-historical-states"];
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut anvil = Anvil::start_at(port, &keeping).await;
    let mut patient = Patient::new(&anvil, &[LABEL]).await;
    let following = Following::start(patient.chain.clone());
    following.at(patient.grant(LABEL).await).await;
    let mut status = following.follower.status();
    anvil.stop();
    let down = status.wait_for(|status| matches!(status, Status::Down(ChainError::Unreachable(_))));
    tokio::time::timeout(PATIENCE, down).await.unwrap().unwrap();
    assert_eq!(patient.known(&following, LABEL), Some(1), "what was known is still there");

    let _anvil = Anvil::start_at(port, &keeping).await;
    let up = status.wait_for(|status| *status == Status::Following);
    tokio::time::timeout(PATIENCE, up).await.unwrap().unwrap();
    assert_eq!(patient.known(&following, LABEL), Some(1), "it is the same chain");
    following.at(patient.grant(LABEL).await).await;
    assert_eq!(patient.known(&following, LABEL), Some(2));
}
