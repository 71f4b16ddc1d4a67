//! The real node, and the program as a person calls it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long any one condition may take: far above what it needs, so that only a fault runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The first of the accounts that anvil funds.
const ANVIL_KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// A program, which the same build has put beside this test.
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(name);
    assert!(path.is_file(), "{} is not there; build first: cargo build --release -p {name}", path.display());
    path
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Called {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The JSON in the last line.
    pub(crate) fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_else(|| panic!("nothing was said: {self:?}"));
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of a call that must have succeeded.
    pub(crate) fn done(&self) -> Value {
        assert_eq!(self.status, 0, "{self:?}");
        self.json()
    }

    /// The reason of a call that the other side must have refused.
    pub(crate) fn refused(&self) -> String {
        assert_eq!(self.status, 3, "{self:?}");
        self.json()["refused"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    /// The sentence of a call that must have failed here.
    pub(crate) fn failed(&self) -> String {
        assert_eq!(self.status, 1, "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        self.json()["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("caregatectl"));
    command.arg("--json").args(arguments).stdin(Stdio::null());
    command
}

/// Calls the program with `--json`.
pub(crate) fn call(arguments: &[&str]) -> Called {
    Called::of(command(arguments).output().unwrap())
}

/// Calls it several times at once.
pub(crate) fn call_at_once(times: usize, arguments: &[&str]) -> Vec<Called> {
    let started: Vec<Child> = (0..times)
        .map(|_| command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    started.into_iter().map(|child| Called::of(child.wait_with_output().unwrap())).collect()
}

/// The node, its folder, and where it is.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) rpc: String,
    pub(crate) contract: String,
    pub(crate) validator: String,
    /// File with a key that pays, where gas is not free.
    pub(crate) relay: Option<String>,
    process: Child,
}

impl Node {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (rpc, admin) = (port(), port());
        let governor = dir.path().join("governor.key");
        let made = call(&["participant", "new", "--out", governor.to_str().unwrap()]).done();
        let config = dir.path().join("node.toml");
        let text = format!(
            "listen = \"127.0.0.1:{rpc}\"\nadmin = \"127.0.0.1:{admin}\"\ndata = {:?}\nsealing_key = {:?}\n\
             chain_id = 4711\ngovernors = [{}]\nthreshold = 1\ndelay_s = 0\n",
            dir.path().join("chain"),
            dir.path().join("sealing.key"),
            made["address"]
        );
        std::fs::write(&config, text).unwrap();
        let log = File::create(dir.path().join("node.log")).unwrap();
        let mut command = Command::new(binary("ledger-node"));
        command.arg("--config").arg(&config).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let deployment = until("the node describes its chain", || {
            let text = std::fs::read(dir.path().join("chain/deployment.json")).ok()?;
            serde_json::from_slice::<Value>(&text).ok()
        });
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (contract, validator) = (text(&deployment["contract"]), text(&deployment["validators"][0]));
        let node =
            Self { dir, rpc: format!("http://127.0.0.1:{rpc}"), contract, validator, relay: None, process };
        until("the node answers", || (node.ledger("audit events", &[]).status == 0).then_some(()));
        node
    }

    /// The contract on anvil: another's EVM and another's JSON-RPC. Its packages are installed where they are missing.
    pub(crate) fn on_anvil() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ledger-client/contracts");
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let binary = contracts.join(format!("node_modules/@foundry-rs/anvil-linux-{arch}/bin/anvil"));
        if !binary.exists() {
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&contracts);
            assert!(
                npm.status().expect("npm, which installs anvil").success(),
                "npm ci in ledger-client/contracts"
            );
        }
        let mut command = Command::new(&binary);
        command.args(["--port", &port.to_string(), "--chain-id", "4711", "--silent"]);
        command.args(["--gas-price", "0", "--block-base-fee-per-gas", "0", "--hardfork", "cancun"]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("anvil");
        let governor = dir.path().join("governor.key");
        let made = call(&["participant", "new", "--out", governor.to_str().unwrap()]).done();
        let accounts = until("anvil answers", || rpc(port, "eth_accounts", &json!([])));
        let account = accounts[0].as_str().unwrap().to_owned();
        let code = creation(&contracts.join("Caregate.json"), made["address"].as_str().unwrap());
        let transaction = json!([{ "from": account, "data": code, "gas": "0xf00000" }]);
        let hash = rpc(port, "eth_sendTransaction", &transaction).unwrap();
        let receipt = until("the contract is there", || {
            rpc(port, "eth_getTransactionReceipt", &json!([hash])).filter(|receipt| !receipt.is_null())
        });
        let contract = receipt["contractAddress"].as_str().unwrap().to_owned();
        let relay = dir.path().join("relay.key");
        write_private(&relay, ANVIL_KEY);
        let (rpc, relay) = (format!("http://127.0.0.1:{port}"), relay.to_str().map(str::to_owned));
        Self { dir, rpc, contract, validator: account, relay, process }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Who pays.
    pub(crate) fn paid(&self) -> Vec<&str> {
        self.relay.iter().flat_map(|relay| ["--relay-key", relay.as_str()]).collect()
    }

    /// A command on this ledger that is no wallet's.
    pub(crate) fn ledger(&self, words: &str, arguments: &[&str]) -> Called {
        let mut all: Vec<&str> = words.split(' ').collect();
        all.extend(["--rpc", &self.rpc, "--chain-id", "4711", "--contract", &self.contract]);
        all.extend(self.paid());
        all.extend(arguments);
        call(&all)
    }

    /// A hospital that takes part; its address.
    pub(crate) fn hospital(&self, name: &str, more: &[&str]) -> String {
        let key = self.path(&format!("{name}.key"));
        let made = call(&["participant", "new", "--out", &key]).done();
        let address = made["address"].as_str().unwrap().to_owned();
        let governor = self.path("governor.key");
        let mut arguments = vec!["--governor-key", &governor, "--participant", &address];
        arguments.extend(more);
        self.ledger("participant register", &arguments).done();
        let hpke = "0a".repeat(32);
        self.ledger("participant key", &["--key", &key, "--hpke-public-key", &hpke]).done();
        address
    }

    /// A place for a wallet, and its passphrase.
    pub(crate) fn wallet_at(&self, name: &str) -> Wallet<'_> {
        let passphrase = self.path(&format!("{name}.passphrase"));
        write_private(Path::new(&passphrase), "a passphrase of the test\n");
        Wallet { node: self, keystore: self.path(&format!("{name}.wallet")), passphrase }
    }

    pub(crate) fn wallet(&self, name: &str) -> Wallet<'_> {
        let wallet = self.wallet_at(name);
        let ledger = ["--chain-id", "4711", "--contract", &self.contract, "--validator", &self.validator];
        let mut arguments = ledger.to_vec();
        arguments.extend(["--memory-mib", "8", "--passes", "1"]);
        wallet.call("new", &arguments).done();
        wallet
    }
}

pub(crate) fn write_private(path: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if std::thread::panicking() {
            println!("--- node\n{}", std::fs::read_to_string(self.path("node.log")).unwrap_or_default());
        }
    }
}

/// One question by JSON-RPC; none where nobody answers.
fn rpc(port: u16, method: &str, params: &Value) -> Option<Value> {
    use std::io::{Read as _, Write as _};
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    let head = "Host: localhost\r\nContent-Type: application/json\r\nConnection: close";
    write!(stream, "POST / HTTP/1.0\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    assert!(answer["error"].is_null(), "{method}: {answer}");
    Some(answer["result"].clone())
}

/// Creation code with one governor and no delay: `(address[], uint8, uint64)`, ABI-encoded.
fn creation(artifact: &Path, governor: &str) -> String {
    let artifact: Value = serde_json::from_slice(&std::fs::read(artifact).unwrap()).unwrap();
    let code = artifact["bytecode"].as_str().unwrap();
    let word = |hex: &str| format!("{hex:0>64}");
    let arguments = [word("60"), word("1"), word("0"), word("1"), word(governor.trim_start_matches("0x"))];
    format!("0x{}{}", code.trim_start_matches("0x"), arguments.concat())
}

/// A patient's wallet.
pub(crate) struct Wallet<'n> {
    pub(crate) node: &'n Node,
    pub(crate) keystore: String,
    pub(crate) passphrase: String,
}

impl Wallet<'_> {
    pub(crate) fn arguments<'a>(&'a self, verb: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all =
            vec!["wallet", verb, "--keystore", &self.keystore, "--passphrase-file", &self.passphrase];
        if ["grant", "revoke", "bind", "rotate", "custodians", "succeed", "list", "erase"].contains(&verb) {
            all.extend(["--rpc", self.node.rpc.as_str()]);
            all.extend(self.node.paid());
        }
        all.extend(arguments);
        all
    }

    pub(crate) fn call(&self, verb: &str, arguments: &[&str]) -> Called {
        call(&self.arguments(verb, arguments))
    }
}

/// Waits until a condition that can only be looked at holds.
#[expect(clippy::disallowed_methods, reason = "a test's patience is real time")]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
