//! The node as a process.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;

use super::{Rpc, until};

/// A free port of loopback; another for each caller, since who was given one may not listen yet, or not at this moment.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::iter::repeat_with(free).find(|port| GIVEN.lock().unwrap().insert(*port)).unwrap()
}

/// A child that is ended on drop.
pub struct Process(pub Child);

impl Process {
    pub fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// Ends it as an operator does; it must end well.
    pub fn stop(&mut self) {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A data folder with its configuration.
pub struct Site {
    pub dir: TempDir,
    pub rpc: SocketAddr,
    pub admin: SocketAddr,
}

impl Site {
    pub fn new(governor: &str) -> Self {
        // On a disk that syncs, where /tmp may be none.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let [rpc, admin] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let site = Self { dir, rpc, admin };
        site.configure(4711, governor);
        site
    }

    pub fn configure(&self, chain_id: u64, governor: &str) {
        let (data, key) = (self.dir.path().join("data"), self.dir.path().join("sealing.key"));
        let text = format!(
            "listen = \"{}\"\nadmin = \"{}\"\ndata = {data:?}\nsealing_key = {key:?}\nchain_id = {chain_id}\ngovernors = [\"{governor}\"]\nthreshold = 1\ndelay_s = 0\n",
            self.rpc, self.admin
        );
        std::fs::write(self.dir.path().join("node.toml"), text).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ledger-node"));
        command.arg("--config").arg(self.dir.path().join("node.toml"));
        command
    }

    /// Starts the node and waits until it is ready.
    pub fn start(&self) -> Process {
        self.start_with(Stdio::null())
    }

    /// The same, with its log.
    pub fn start_with(&self, log: Stdio) -> Process {
        let process = Process(self.command().stderr(log).spawn().unwrap());
        until("the node is ready", || ready(self.admin).then_some(()));
        process
    }

    pub fn deployment(&self) -> Value {
        let text = std::fs::read(self.dir.path().join("data/deployment.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    pub fn metrics(&self) -> String {
        get(self.admin, "/metrics").unwrap()
    }

    /// One counter.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ready(admin: SocketAddr) -> bool {
    get(admin, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The folder of the contract and its packages.
pub fn contracts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts")
}

/// A program of the npm packages beside the contract; they are installed where they are missing.
pub fn foundry(program: &str) -> PathBuf {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _alone = INSTALLING.lock().unwrap();
    let contracts = contracts();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let binary = contracts.join(format!("node_modules/@foundry-rs/{program}-linux-{arch}/bin/{program}"));
    if !binary.exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&contracts);
        let status = npm.status().expect("npm, which installs foundry's programs");
        assert!(status.success(), "npm ci in ledger-client/contracts: {status}");
    }
    binary
}

/// anvil, on a port.
pub fn anvil(port: u16) -> (Process, Rpc) {
    let binary = foundry("anvil");
    let mut command = Command::new(&binary);
    let port_text = port.to_string();
    command.args(["--port", &port_text, "--chain-id", "31337", "--silent"]);
    command.args(["--gas-price", "0", "--block-base-fee-per-gas", "0", "--hardfork", "cancun"]);
    let process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("anvil"));
    let rpc = Rpc(SocketAddr::from(([127, 0, 0, 1], port)));
    until("anvil is ready", || rpc.try_call("eth_chainId", serde_json::json!([])).ok()?.ok());
    (process, rpc)
}
