//! A real ledger on loopback, and what patients and the governor do on it.

use std::net::SocketAddr;
use std::sync::Arc;

use caregate_host::http::{self, Options};
use caregate_host::{admin, clock};
use caregate_protocol::id::{DataClass, RecipientId};
use caregate_protocol::policy::{
    Grant, Purpose, RecipientKind, RecipientStatus, RelationshipId, Revocation, class_bit,
};
use ledger_chain::{Chain, ChainConfig, RelayKey};
use ledger_client::verify::{Address, ParticipantChange, slots};
use ledger_client::wallet::{DomainKey, PatientKey};
use ledger_node::chain::Wanted;
use ledger_node::contract::Council;
use ledger_node::metrics::Metrics;
use ledger_node::producer::{self, Producer};
use ledger_node::rpc::Rpc;
use ledger_node::seal::Sealer;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CHAIN_ID: u64 = 4711;
const GOVERNOR: [u8; 32] = [0x52; 32];

fn governor() -> DomainKey {
    DomainKey::from_bytes(&GOVERNOR).unwrap()
}

pub(crate) fn now_s() -> u64 {
    u64::try_from(clock::now_ms() / 1000).unwrap()
}

/// The ledger, which may stop and begin again where it was.
pub(crate) struct Node {
    dir: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) contract: Address,
    running: Option<(CancellationToken, JoinHandle<()>, std::thread::JoinHandle<()>)>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Self { dir, address, contract: Address([0; 20]), running: None };
        node.resume().await;
        node
    }

    /// At the address that it had.
    pub(crate) async fn resume(&mut self) {
        let sealer = Sealer::from_bytes(&[0x5e; 32]).unwrap();
        let council = Council { governors: vec![governor().id().0.into()], threshold: 1, delay_s: 0 };
        let wanted = Wanted { chain_id: CHAIN_ID, council };
        let chain =
            Arc::new(ledger_node::chain::Chain::open(self.dir.path(), sealer, wanted, now_s()).unwrap());
        self.contract = Address(chain.deployment().contract.into_array());
        let listener = tokio::net::TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (queue, incoming) = producer::queue();
        let (stop, health) = (CancellationToken::new(), admin::Health::new());
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let producer = Producer {
            chain: Arc::clone(&chain),
            incoming,
            metrics: metrics.clone(),
            sealing: health.condition("sealing"),
            stop: stop.clone(),
        };
        let thread = std::thread::spawn(move || producer.run().unwrap());
        let router = ledger_node::http::router(Rpc::new(chain, queue, metrics));
        let options = Options { connections_max: 64, tls: None };
        let serving = tokio::spawn(http::serve(listener, router, options, stop.clone()));
        self.running = Some((stop, serving, thread));
    }

    pub(crate) async fn stop(&mut self) {
        let (stop, serving, thread) = self.running.take().unwrap();
        stop.cancel();
        serving.await.unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }

    pub(crate) fn chain(&self) -> Chain {
        let url = format!("http://{}", self.address);
        Chain::new(ChainConfig::new(&url, CHAIN_ID, self.contract)).unwrap()
    }

    /// The `[ledger]` table of a feed.
    pub(crate) fn table(&self, more: &str) -> String {
        let Self { address, contract, .. } = self;
        format!(
            "[ledger]\nrpc = \"http://{address}\"\nchain_id = {CHAIN_ID}\ncontract = \"{contract}\"\n{more}\n"
        )
    }

    /// Says who takes part.
    pub(crate) async fn register(&self, who: RecipientId, status: Option<RecipientStatus>, emergency: bool) {
        let kind = RecipientKind::Treating;
        let chain = self.chain();
        let version = chain.participant_version(&who).await.unwrap() + 1;
        let change = ParticipantChange { participant: who, status, kind, emergency, version };
        let approval = governor().approve_participant(&change, &chain.domain());
        chain.approve_participant(&change, &approval, &RelayKey::random()).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((stop, ..)) = &self.running {
            stop.cancel();
        }
    }
}

/// A patient's relationship with one hospital.
pub(crate) struct Patient {
    grant_key: PatientKey,
    revoke_key: PatientKey,
    pub(crate) relationship: RelationshipId,
}

impl Patient {
    pub(crate) fn new() -> Self {
        let (grant_key, revoke_key) = (PatientKey::generate(), PatientKey::generate());
        let relationship = slots::relationship(&grant_key.address(), &revoke_key.address());
        Self { grant_key, revoke_key, relationship }
    }

    pub(crate) async fn grants(&self, chain: &Chain, grantee: RecipientId, version: u64, until: u64) {
        let grant = Grant {
            relationship: self.relationship,
            grantee,
            classes: class_bit(DataClass::Vitals),
            purposes: Purpose::Treatment.bit(),
            // A day: the contract takes no grant of decades.
            from: until.saturating_sub(24 * 3600),
            until,
            stale_bound_s: 600,
            version,
        };
        let signed = self.grant_key.sign_grant(&grant, &chain.domain());
        chain.grant(&signed, &self.revoke_key.address(), &RelayKey::random()).await.unwrap();
    }

    pub(crate) async fn revokes(&self, chain: &Chain, version: u64) {
        let revocation = Revocation { relationship: self.relationship, version };
        let signed = self.revoke_key.sign_revocation(&revocation, &chain.domain());
        chain.revoke(&signed, &self.grant_key.address(), &RelayKey::random()).await.unwrap();
    }
}

pub(crate) fn hospital() -> DomainKey {
    DomainKey::from_bytes(&[0x17; 32]).unwrap()
}
