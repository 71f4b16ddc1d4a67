//! A gateway's policy side: its connection, verifier, decisions and store. Its readings and keys are not here.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_host::identity::Identity;
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::policy::VerifiedPolicy;
use edge_gateway::keys::KeyStore;
use edge_gateway::metrics::Metrics;
use edge_gateway::policy::{ControllerLink, Decider, Now, PolicyHandle, Proposal};
use ledger_client::fixture::Signer;
use ledger_client::verify::{EnrolledPatient, EnrolledRelationship, Enrolment};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Node, Patient};

fn now_s() -> u64 {
    u64::try_from(clock::now_us() / 1_000_000).unwrap()
}

fn now() -> Now {
    Now { unix_s: now_s(), at: clock::monotonic() }
}

pub(crate) struct Gateway {
    pub(crate) number: usize,
    pub(crate) patient: Patient,
    /// Of the grant that stands.
    pub(crate) version: u64,
    id: PatientId,
    policy: PolicyHandle,
}

impl Gateway {
    /// With a store of its own below `folder`, and a thread that decides as the commit thread does.
    pub(crate) fn new(node: &Node, number: usize, folder: &Path) -> Self {
        let (patient, id) = (Patient::new(number), PatientId((number as u128).to_be_bytes()));
        let [grant_key, revoke_key] = patient.keys();
        let label = "City hospital".to_owned();
        let enrolled = EnrolledPatient {
            patient: id,
            home_key: Signer::of(0x30).address(),
            pseudonym: None,
            relationships: vec![EnrolledRelationship { label, grant_key, revoke_key }],
            devices: Vec::new(),
        };
        let pins = Arc::new(Enrolment { ledger: node.pin(), patients: vec![enrolled] }.pins().unwrap());
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let own = folder.join(format!("home-{number}"));
        std::fs::create_dir(&own).unwrap();
        let keys = KeyStore::open(&own).unwrap();
        let mut decider = Decider::open(&keys, Some(Arc::clone(&pins)), metrics.clone(), now()).unwrap();
        let (proposals, mut proposed) = mpsc::channel::<Proposal>(1);
        let policy = PolicyHandle::new(pins, &decider, proposals, metrics);
        std::thread::spawn(move || {
            while let Some(proposal) = proposed.blocking_recv() {
                proposal.decide(&mut decider, now(), |_, _| ());
            }
        });
        Self { number, patient, version: 1, id, policy }
    }

    pub(crate) fn connect(&self, identity: Arc<Identity>, port: u16, stop: &CancellationToken) {
        let controller = (Ipv4Addr::LOCALHOST, port).into();
        let link = ControllerLink { controller, name: None, identity, policy: self.policy.clone() };
        tokio::spawn(link.run(stop.clone()));
    }

    /// Until the hospital may open the patient's vitals here, or may no more.
    pub(crate) async fn until_open(&self, is_open: bool, patience: Duration) {
        let mut policy = self.policy.subscribe();
        let holds = |policy: &Arc<VerifiedPolicy>| {
            (policy.recipients(&self.id, DataClass::Vitals, now_s()).count() > 0) == is_open
        };
        tokio::time::timeout(patience, policy.wait_for(holds)).await.expect("not in time").unwrap();
    }
}
