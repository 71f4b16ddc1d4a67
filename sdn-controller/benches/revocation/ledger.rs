//! A ledger node as a process, and patients whose messages it takes.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::policy::{
    Grant, RecipientKind, RecipientStatus, Revocation, SignedGrant, SignedRevocation,
};
use ledger_chain::{Chain, ChainConfig, RelayKey, SignedParticipantKey};
use ledger_client::fixture::{Hospital, Signer};
use ledger_client::verify::{
    Address, LedgerPin, ParticipantChange, grant_digest, participant_key_digest, revocation_digest, slots,
};
use serde_json::Value;

const CHAIN_ID: u64 = 4711;
const GOVERNOR: u8 = 1;

pub(crate) fn hospital() -> Hospital {
    Hospital::new(0x51, [9; 32])
}

/// A patient's keys in one relationship.
#[derive(Debug, Clone)]
pub(crate) struct Patient {
    grant_key: Signer,
    revoke_key: Signer,
}

impl Patient {
    pub(crate) fn new(number: usize) -> Self {
        let key = |kind: u8| {
            let mut secret = [kind; 32];
            secret[24..].copy_from_slice(&(number as u64).to_be_bytes());
            Signer::from_bytes(&secret).unwrap()
        };
        Self { grant_key: key(0x10), revoke_key: key(0x20) }
    }

    pub(crate) fn keys(&self) -> [Address; 2] {
        [self.grant_key.address(), self.revoke_key.address()]
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Ends with its last clone.
#[derive(Clone)]
pub(crate) struct Node {
    _process: Arc<Process>,
    chain: Chain,
    config: ChainConfig,
    sealer: Address,
}

/// The program, which the same build has put beside this bench.
fn binary() -> PathBuf {
    let bench = std::env::current_exe().unwrap();
    let path = bench.ancestors().nth(2).unwrap().join("ledger-node");
    assert!(path.is_file(), "{} is not there: cargo build --release -p ledger-node", path.display());
    path
}

impl Node {
    pub(crate) async fn start(folder: &Path) -> Self {
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (rpc, admin, governor) = (port(), port(), Signer::of(GOVERNOR).address());
        let text = format!(
            "listen = \"127.0.0.1:{rpc}\"\nadmin = \"127.0.0.1:{admin}\"\ndata = {:?}\nsealing_key = {:?}\n\
             chain_id = {CHAIN_ID}\ngovernors = [\"{governor}\"]\nthreshold = 1\ndelay_s = 0\n",
            folder.join("chain"),
            folder.join("sealing.key"),
        );
        let path = folder.join("node.toml");
        fs::write(&path, text).unwrap();
        let log = File::create(folder.join("log")).unwrap();
        let mut command = Command::new(binary());
        command.arg("--config").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Arc::new(Process(command.spawn().unwrap()));
        let described = loop {
            match fs::read(folder.join("chain/deployment.json")) {
                Ok(bytes) if !bytes.is_empty() => break serde_json::from_slice::<Value>(&bytes).unwrap(),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let contract = described["contract"].as_str().unwrap().parse().unwrap();
        let sealer = described["validators"][0].as_str().unwrap().parse().unwrap();
        let config = ChainConfig::new(&format!("http://127.0.0.1:{rpc}"), CHAIN_ID, contract);
        loop {
            if let Ok(chain) = Chain::connect(config.clone()).await {
                return Self { _process: process, chain, config, sealer };
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// As a controller is configured: it looks at the head as often as it does by default.
    pub(crate) fn config(&self) -> ChainConfig {
        self.config.clone()
    }

    pub(crate) fn pin(&self) -> LedgerPin {
        LedgerPin {
            chain_id: CHAIN_ID,
            contract: self.config.contract,
            validators: vec![self.sealer],
            staleness_max_s: 600,
        }
    }

    pub(crate) async fn register(&self, hospital: &Hospital) {
        let domain = self.chain.domain();
        let change = ParticipantChange {
            participant: hospital.id(),
            status: Some(RecipientStatus::Active),
            kind: RecipientKind::Treating,
            emergency: false,
            version: 1,
        };
        let approval = Signer::of(GOVERNOR).sign(&change.digest(&domain));
        self.chain.approve_participant(&change, &approval, &RelayKey::random()).await.unwrap();
        let hpke_public_key = hospital.hpke_public_key;
        let digest = participant_key_digest(&hospital.id(), &hpke_public_key, 1, &domain);
        let signature = hospital.key.sign(&digest);
        let key = SignedParticipantKey { participant: hospital.id(), hpke_public_key, version: 1, signature };
        self.chain.set_participant_key(&key, &RelayKey::random()).await.unwrap();
    }

    /// Done when it is in a block.
    pub(crate) async fn grant(&self, patient: &Patient, version: u64) {
        let [grant_key, revoke_key] = patient.keys();
        let grant = Grant {
            relationship: slots::relationship(&grant_key, &revoke_key),
            grantee: hospital().id(),
            classes: 31,
            purposes: 1,
            from: 1_700_000_000,
            until: 1_900_000_000,
            stale_bound_s: 3600,
            version,
        };
        let signature = patient.grant_key.sign(&grant_digest(&grant, &self.chain.domain()));
        let signed = SignedGrant { grant, signature };
        self.chain.grant(&signed, &revoke_key, &RelayKey::random()).await.unwrap();
    }

    /// With the revoke-only key; done when it is in a block.
    pub(crate) async fn revoke(&self, patient: &Patient, version: u64) {
        let [grant_key, revoke_key] = patient.keys();
        let revocation = Revocation { relationship: slots::relationship(&grant_key, &revoke_key), version };
        let signature = patient.revoke_key.sign(&revocation_digest(&revocation, &self.chain.domain()));
        let signed = SignedRevocation { revocation, signature };
        self.chain.revoke(&signed, &grant_key, &RelayKey::random()).await.unwrap();
    }
}
