//! Where policy comes from: changes are taken over, nothing that is wrong or old is, and what was seen is remembered.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caregate_host::admin::{Condition, Health};
use caregate_protocol::id::{DataClass, DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{
    DeviceBinding, Grant, PatientPolicy, PolicyDocument, Purpose, RecipientEntry, RecipientKind,
    RecipientStatus, RelationshipId, Revocation, VerifiedPolicy, class_bit,
};
use edge_gateway::keys::KeyStore;
use edge_gateway::metrics::Metrics;
use edge_gateway::policy::{Decider, Source};
use ledger_client::verify::{Address, Domain, PatientPin, PatientPins};
use ledger_client::wallet::PatientSeed;
use prometheus::Registry;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
const PATIENT: PatientId = PatientId([1; 16]);
const HOSPITAL: RecipientId = RecipientId([2; 20]);
const DOMAIN: Domain = Domain { chain_id: 7, verifying_contract: Address([9; 20]) };

struct Wallet {
    seed: PatientSeed,
    relationship: RelationshipId,
}

impl Wallet {
    fn new() -> Self {
        let seed = PatientSeed::from_bytes([0x5e; 32]);
        let relationship = seed.relationship(&HOSPITAL, 0);
        Self { seed, relationship }
    }

    fn pins(&self) -> PatientPins {
        let pin = self.seed.pin(&self.relationship).unwrap();
        PatientPins::new(&[PatientPin { patient: PATIENT, relationships: vec![pin] }]).unwrap()
    }

    /// A document with this epoch, in which the hospital has these versions granted and revoked.
    fn document(&self, epoch: u64, granted: &[u64], revoked: &[u64]) -> PolicyDocument {
        let key = self.seed.grant_key(&self.relationship).unwrap();
        let grant = |version: &u64| {
            let grant = Grant {
                relationship: self.relationship,
                grantee: HOSPITAL,
                classes: class_bit(DataClass::Vitals),
                purposes: Purpose::Treatment.bit(),
                from: 0,
                until: 4_000_000_000,
                stale_bound_s: 0,
                version: *version,
            };
            key.sign_grant(&grant, &DOMAIN)
        };
        let revoke = |version: &u64| {
            key.sign_revocation(&Revocation { relationship: self.relationship, version: *version }, &DOMAIN)
        };
        PolicyDocument {
            version: 1,
            epoch,
            as_of: 0,
            recipients: vec![RecipientEntry {
                id: HOSPITAL,
                hpke_public_key: [5; 32],
                status: RecipientStatus::Active,
                kind: RecipientKind::Treating,
            }],
            patients: vec![PatientPolicy {
                patient: PATIENT,
                grants: granted.iter().map(grant).collect(),
                revocations: revoked.iter().map(revoke).collect(),
            }],
            devices: vec![DeviceBinding { device: DeviceId::new("monitor-1").unwrap(), patient: PATIENT }],
        }
    }
}

/// The folder in which the gateway keeps its keys and finds its policy.
struct Home {
    dir: TempDir,
    wallet: Wallet,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), wallet: Wallet::new() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("policy.json")
    }

    /// Puts a document in place in one step.
    fn place(&self, bytes: &[u8]) {
        let draft = self.dir.path().join("policy.new");
        fs::write(&draft, bytes).unwrap();
        fs::rename(draft, self.file()).unwrap();
    }

    fn place_document(&self, epoch: u64, granted: &[u64], revoked: &[u64]) {
        self.place(&self.wallet.document(epoch, granted, revoked).encode().unwrap());
    }

    fn start(&self) -> Running {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let source =
            Source { file: self.file(), domain: DOMAIN, pins: self.wallet.pins(), metrics: metrics.clone() };
        let (condition, stop) = (Health::new().condition("policy"), CancellationToken::new());
        let (proposals, mut incoming) = mpsc::channel(1);
        let watch = tokio::spawn(source.watch(proposals, condition.clone(), stop.clone()));
        let policy: Arc<Mutex<Option<Arc<VerifiedPolicy>>>> = Arc::default();
        let deciding = {
            let (policy, metrics, dir) = (Arc::clone(&policy), metrics.clone(), self.dir.path().to_owned());
            tokio::spawn(async move {
                // As the committer's thread does.
                let keys = KeyStore::open(&dir).unwrap();
                let mut decider = Decider::open(&keys, None, metrics, 0).unwrap();
                while let Some(proposal) = incoming.recv().await {
                    proposal.decide(&mut decider, 0, |_, _| ());
                    *policy.lock().unwrap() = decider.policy().cloned();
                }
            })
        };
        Running { metrics, condition, policy, stop, tasks: [watch, deciding] }
    }
}

struct Running {
    metrics: Metrics,
    condition: Condition,
    policy: Arc<Mutex<Option<Arc<VerifiedPolicy>>>>,
    stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "{what}: did not happen within {PATIENCE:?}"
    );
}

impl Running {
    async fn in_force(&self, epoch: u64) {
        let is = || self.policy.lock().unwrap().as_ref().is_some_and(|policy| policy.epoch() == epoch);
        until(&format!("epoch {epoch} in force"), is).await;
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metrics.policy_refused.with_label_values(&[reason]).get()
    }

    async fn refused_more_than(&self, reason: &str, before: u64) {
        until(&format!("refused for {reason}"), || self.refused(reason) > before).await;
    }

    fn may_open(&self) -> bool {
        let policy = self.policy.lock().unwrap().clone().unwrap();
        policy.recipients(&PATIENT, DataClass::Vitals, 1_790_000_000).count() == 1
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_taken_over_and_a_wrong_one_leaves_the_old_in_force() {
    let home = Home::new();
    home.place_document(1, &[1], &[]);
    let running = home.start();
    running.in_force(1).await;
    until("the condition holds", || running.condition.holds()).await;
    assert!(running.may_open());
    assert_eq!((running.metrics.policy_epoch.get(), running.metrics.policy_unproven.get()), (1, 1));

    home.place(b"{\"version\":1,");
    running.refused_more_than("json", 0).await;
    home.place(&vec![b' '; (1 << 20) + 1]);
    running.refused_more_than("too_large", 0).await;
    home.place_document(0, &[1], &[]);
    running.refused_more_than("went_back", 0).await;
    running.in_force(1).await;
    assert!(running.may_open() && running.condition.holds());

    home.place_document(2, &[1], &[1]);
    running.in_force(2).await;
    assert!(!running.may_open());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_is_remembered_over_a_restart() {
    let home = Home::new();
    home.place_document(5, &[1, 2], &[1]);
    let running = home.start();
    running.in_force(5).await;
    assert!(running.may_open(), "version 2 stands");
    home.place_document(6, &[1, 2], &[2]);
    running.in_force(6).await;
    assert!(!running.may_open());
    running.stop().await;

    // An older document, and one of the same epoch that has forgotten the revocation.
    home.place_document(5, &[1, 2], &[1]);
    let running = home.start();
    running.refused_more_than("went_back", 0).await;
    assert!(running.policy.lock().unwrap().is_none() && !running.condition.holds());
    home.place_document(6, &[1, 2], &[]);
    running.in_force(6).await;
    assert!(!running.may_open(), "a revocation holds for ever");
    // The patient grants anew.
    home.place_document(7, &[3], &[]);
    running.in_force(7).await;
    assert!(running.may_open());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_does_not_verify_is_counted_and_the_rest_holds() {
    let home = Home::new();
    let mut document = home.wallet.document(1, &[1], &[]);
    let mut forged = document.patients[0].grants[0].clone();
    forged.grant.version = 9;
    document.patients[0].grants.push(forged);
    home.place(&document.encode().unwrap());
    let running = home.start();
    running.in_force(1).await;
    assert_eq!(running.refused("signer"), 1);
    assert!(running.may_open(), "the forged one superseded nothing");
    running.stop().await;
}

fn backdate(path: &Path, like: &fs::Metadata) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(like.modified().unwrap())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_noticed_although_length_and_time_of_the_file_are_the_same() {
    let home = Home::new();
    home.place_document(1, &[1], &[]);
    let running = home.start();
    running.in_force(1).await;
    let before = fs::metadata(home.file()).unwrap();
    for epoch in 2..4 {
        let bytes = home.wallet.document(epoch, &[1], &[]).encode().unwrap();
        assert_eq!(bytes.len() as u64, before.len());
        if epoch == 2 {
            home.place(&bytes);
        } else {
            fs::write(home.file(), &bytes).unwrap();
        }
        backdate(&home.file(), &before);
        running.in_force(epoch).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_late_or_could_not_be_read_is_taken_when_it_can_be() {
    let home = Home::new();
    let running = home.start();
    running.refused_more_than("read", 0).await;
    assert!(!running.condition.holds());
    // A folder in its place: there, but not to be read, until something else changes.
    fs::create_dir(home.file()).unwrap();
    let before = running.refused("read");
    running.refused_more_than("read", before + 1).await;
    fs::remove_dir(home.file()).unwrap();
    home.place_document(1, &[1], &[]);
    running.in_force(1).await;
    fs::remove_file(home.file()).unwrap();
    let before = running.refused("read");
    running.refused_more_than("read", before).await;
    assert!(running.may_open(), "a file that is gone takes nothing back");
    running.stop().await;
}
