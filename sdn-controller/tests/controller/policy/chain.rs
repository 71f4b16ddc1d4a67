//! The same by the real chain: a node of its own, a patient's wallet, a hospital.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use caregate_host::identity::{Identity, Role};
use caregate_protocol::id::{DataClass, DeviceId};
use caregate_protocol::policy::delivery::{Anchor, Frame};
use caregate_protocol::policy::{Floors, Mac, RecipientKind, RecipientStatus};
use ledger_chain::{Chain, ChainConfig, RelayKey, SignedParticipantKey};
use ledger_client::verify::{Enrolment, LedgerPin, ParticipantChange, VerifiedBundle};
use ledger_client::wallet::{DomainKey, Ledger, PatientSeed, Terms, Wallet};
use sdn_controller::policy::Followed;
use serde_json::Value;
use tempfile::TempDir;

use super::gateway::Gateway;
use super::{Delivering, until};
use crate::support::Pki;

pub(super) const CHAIN_ID: u64 = 4711;
const GATEWAY: &str = "home-1";
const LABEL: &str = "City hospital";

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

pub(super) struct Node {
    folder: TempDir,
    process: Child,
    pub(super) governor: DomainKey,
    rpc: String,
}

impl Node {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (rpc, admin, governor) = (port(), port(), DomainKey::generate());
        let config = format!(
            "listen = \"127.0.0.1:{rpc}\"\nadmin = \"127.0.0.1:{admin}\"\ndata = {:?}\nsealing_key = {:?}\n\
             chain_id = {CHAIN_ID}\ngovernors = [\"0x{}\"]\nthreshold = 1\ndelay_s = 0\n",
            folder.path().join("chain"),
            folder.path().join("sealing.key"),
            governor.id()
        );
        let path = folder.path().join("node.toml");
        fs::write(&path, config).unwrap();
        let log =
            File::options().create(true).append(true).mode(0o600).open(folder.path().join("log")).unwrap();
        let mut command = Command::new(binary());
        command.arg("--config").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().unwrap();
        Self { folder, process, governor, rpc: format!("http://127.0.0.1:{rpc}") }
    }

    /// The chain, the address of who seals it, and how to reach it, once the node answers.
    pub(super) async fn chain(&self) -> (Chain, String, ChainConfig) {
        let path = self.folder.path().join("chain/deployment.json");
        until("the node to describe its chain", || fs::read(&path).is_ok_and(|json| !json.is_empty())).await;
        let described: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let contract = described["contract"].as_str().unwrap().parse().unwrap();
        let config = ChainConfig { poll_ms: 20, ..ChainConfig::new(&self.rpc, CHAIN_ID, contract) };
        let sealer = described["validators"][0].as_str().unwrap().to_owned();
        loop {
            if let Ok(chain) = Chain::connect(config.clone()).await {
                return (chain, sealer, config);
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

pub(super) async fn register(node: &Node, chain: &Chain, hospital: &DomainKey, emergency: bool) {
    let change = ParticipantChange {
        participant: hospital.id(),
        status: Some(RecipientStatus::Active),
        kind: RecipientKind::Treating,
        emergency,
        version: 1,
    };
    let approval = node.governor.approve_participant(&change, &chain.domain());
    chain.approve_participant(&change, &approval, &RelayKey::random()).await.unwrap();
    let signature = hospital.sign_hpke_key(&[9; 32], 1, &chain.domain());
    let key =
        SignedParticipantKey { participant: hospital.id(), hpke_public_key: [9; 32], version: 1, signature };
    chain.set_participant_key(&key, &RelayKey::random()).await.unwrap();
}

/// Who may open the patient's vitals by this bundle.
fn may_open(bundle: &VerifiedBundle, wallet: &Wallet) -> usize {
    let patient = wallet.home(GATEWAY).unwrap().patient;
    let (policy, _floors) = bundle.admit(&Floors::default()).unwrap();
    policy.recipients(&patient, DataClass::Vitals, bundle.header.time_s).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_real_chain_a_grant_comes_in_and_a_revocation_ends_it() {
    let node = Node::start();
    let (chain, sealer, config) = node.chain().await;
    let hospital = DomainKey::generate();
    register(&node, &chain, &hospital, false).await;
    let mut wallet = Wallet::new(PatientSeed::generate());
    let domain = chain.domain();
    wallet.ledger = Some(Ledger { domain: chain.domain(), validators: vec![sealer.parse().unwrap()] });
    wallet.add_relationship(LABEL, hospital.id()).unwrap();
    wallet.add_device(GATEWAY, &DeviceId::new("ecg-1").unwrap(), Mac([2, 0, 0, 0, 0, 1])).unwrap();
    let ledger = LedgerPin {
        chain_id: CHAIN_ID,
        contract: domain.verifying_contract,
        validators: vec![sealer.parse().unwrap()],
        staleness_max_s: 600,
    };
    let pins = Enrolment { ledger, patients: vec![wallet.enrolled(GATEWAY).unwrap()] }.pins().unwrap();

    let pki = Pki::new();
    let delivering = Delivering::start(&pki, |stop| Followed::start(config, stop).unwrap());
    let identity = Identity::load(&pki.issue(Role::Gateway, GATEWAY)).unwrap();
    let mut gateway = Gateway::connect(&identity, delivering.port, pins).await.unwrap();
    assert_eq!(may_open(&gateway.verified_bundle().await.unwrap(), &wallet), 0);
    assert_eq!(delivering.policy.shown()["ledger"]["sealers"], 1, "the page says that one party seals");

    let now = chain.head().await.unwrap().time_s;
    let terms = Terms { classes: 3, purposes: 1, from: now - 10, until: now + 86_400, stale_bound_s: 600 };
    let signed = wallet.sign_grant(LABEL, &terms).unwrap();
    let other_key = wallet.keys(LABEL).unwrap().revoke.address();
    chain.grant(&signed, &other_key, &RelayKey::random()).await.unwrap();
    let mut bundle = gateway.verified_bundle().await.unwrap();
    while may_open(&bundle, &wallet) == 0 {
        bundle = gateway.verified_bundle().await.unwrap();
    }

    let revocation = wallet.sign_revocation(LABEL).unwrap();
    let anchor = Anchor { revocation: revocation.clone(), other_key: other_key.0 };
    assert_eq!(delivering.policy.relay(anchor).await, Ok(1));
    assert_eq!(gateway.next().await, Some(Frame::Revocation(revocation)));
    while may_open(&bundle, &wallet) == 1 {
        bundle = gateway.verified_bundle().await.unwrap();
    }
    assert_eq!(bundle.revoked.values().copied().max(), Some(1));
    delivering.stop().await;
}
