//! anvil, a chain without finality that others wrote: what was read may be taken back.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ledger_chain::{Chain, ChainConfig, RelayKey};
use ledger_client::verify::Address;
use ledger_client::wallet::{DomainKey, Ledger, PatientSeed, Terms, Wallet};
use serde_json::{Value, json};

use super::support::{Following, LABEL, until};

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

impl Anvil {
    /// Of the npm packages beside the contract; they are installed where they are missing.
    async fn start() -> Self {
        let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts");
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let binary = contracts.join(format!("node_modules/@foundry-rs/anvil-linux-{arch}/bin/anvil"));
        if !binary.exists() {
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&contracts);
            assert!(npm.status().expect("npm, which installs anvil").success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(&binary);
        command.args(["--port", &port.to_string(), "--silent", "--gas-price", "0"]);
        command.args(["--block-base-fee-per-gas", "0", "--hardfork", "cancun"]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("anvil");
        let anvil = Self { process, port };
        until("anvil answers", async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        anvil
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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_chain_without_finality_takes_back_is_forgotten_and_what_comes_instead_is_read() {
    let (anvil, hospital, relay) = (Anvil::start().await, DomainKey::generate(), RelayKey::random());
    let contract = anvil.deploy(&DomainKey::generate()).await;
    // Gas is not free there.
    let fund = || {
        let address = format!("0x{}", alloy::hex::encode(relay.address().0));
        anvil.ask("anvil_setBalance", json!([address, "0xde0b6b3a7640000"]));
        anvil.ask("anvil_mine", json!(["0x3"]));
    };
    fund();
    let rpc = format!("http://127.0.0.1:{}", anvil.port);
    let config = ChainConfig { poll_ms: 20, ..ChainConfig::new(&rpc, CHAIN_ID, contract) };
    let chain = Chain::connect(config).await.unwrap();
    let following = Following::start(chain.clone());
    let mut wallet = Wallet::new(PatientSeed::generate());
    wallet.ledger = Some(Ledger { domain: chain.domain(), validators: vec![Address([1; 20])] });
    wallet.add_relationship(LABEL, hospital.id()).unwrap();
    let keys = wallet.keys(LABEL).unwrap();
    let relationship =
        ledger_client::verify::slots::relationship(&keys.grant.address(), &keys.revoke.address());
    let grant = async |wallet: &mut Wallet| {
        let now = chain.head().await.unwrap().time_s;
        let terms = Terms { classes: 3, purposes: 1, from: now, until: now + 600, stale_bound_s: 60 };
        let signed = wallet.sign_grant(LABEL, &terms).unwrap();
        let revoke_key = wallet.keys(LABEL).unwrap().revoke.address();
        chain.grant(&signed, &revoke_key, &relay).await.unwrap().block
    };
    let known = || {
        following.follower.with_index(|index| {
            index.consent(&relationship).and_then(|consent| Some(consent.grant.as_ref()?.grant.version))
        })
    };
    following.at(grant(&mut wallet).await).await;
    let second = grant(&mut wallet).await;
    following.at(second).await;
    assert_eq!(known(), Some(2));

    // The newest block is another one now, of the same height and without the grant.
    anvil.ask("anvil_reorg", json!([1, []]));
    assert_eq!(chain.head().await.unwrap().number, second);
    until("the second grant is forgotten", async || (known() == Some(1)).then_some(())).await;
    // Both are gone, while nobody looks in between; then others come.
    anvil.ask("anvil_reorg", json!([2, []]));
    fund();
    until("both are forgotten", async || known().is_none().then_some(())).await;
    following.at(grant(&mut wallet).await).await;
    assert_eq!(known(), Some(3), "the wallet counts on");
    assert_eq!(chain.consent(&relationship).await.unwrap().version, 3);
}
