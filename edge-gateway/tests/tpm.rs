//! Roots sealed to a TPM: swtpm, a TPM 2.0 in software that others wrote (package `swtpm`).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::id::PatientId;
use caregate_protocol::key::PatientRoot;
use edge_gateway::keys::erasures::Ordered;
use edge_gateway::keys::{KeyStore, KeyStoreError};
use edge_gateway::pipeline::chains::Beginning;
use tempfile::TempDir;

const PATIENT: PatientId = PatientId([4; 16]);
/// Far above what swtpm needs to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A TPM with a seed of its own; ended on drop.
struct Tpm {
    state: TempDir,
    process: Child,
}

impl Tpm {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let process = run(&state);
        Self { state, process }
    }

    fn path(&self) -> PathBuf {
        self.state.path().join("tpm.sock")
    }

    /// Power off and on.
    fn cycle(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = run(&self.state);
    }
}

fn run(state: &TempDir) -> Child {
    let socket = state.path().join("tpm.sock");
    drop(std::fs::remove_file(&socket));
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
    command.args(["--tpmstate", &format!("dir={}", state.path().display())]);
    command.args(["--server", &format!("type=unixio,path={}", socket.display())]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().expect("swtpm is not there; install Debian's package swtpm");
    let began = clock::monotonic();
    while UnixStream::connect(&socket).is_err() {
        assert!(began.elapsed() < PATIENCE, "swtpm does not listen");
        std::thread::yield_now();
    }
    process
}

impl Drop for Tpm {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn holds(dir: &TempDir, needle: &[u8]) -> bool {
    let bytes = std::fs::read(dir.path().join("keys.redb")).unwrap();
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_root_opens_with_its_tpm_alone_and_comes_again_from_shares() {
    let (mut tpm, other) = (Tpm::start(), Tpm::start());
    let dir = tempfile::tempdir().unwrap();
    let mut keys = KeyStore::open_with(dir.path(), Some(&tpm.path())).unwrap();
    let root = keys.root(PATIENT).unwrap();
    assert!(keys.is_sealed());
    drop(keys);
    assert!(!holds(&dir, root.as_bytes()), "the disk does not hold the root");
    tpm.cycle();
    let open = |path: Option<&std::path::Path>| {
        let root = KeyStore::open_with(dir.path(), path)?.existing_root(PATIENT)?.unwrap();
        Ok::<[u8; 32], KeyStoreError>(*root.as_bytes())
    };
    assert_eq!(open(Some(&tpm.path())).unwrap(), *root.as_bytes());

    let refused = open(Some(&other.path())).unwrap_err();
    assert!(matches!(refused, KeyStoreError::Tpm(_)), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("load the sealed key: the TPM refuses") && said.contains("root restore"), "{said}");
    let refused = open(None).unwrap_err();
    assert!(matches!(refused, KeyStoreError::NoTpm) && refused.to_string().contains("root restore"));
    let refused = open(Some(&dir.path().join("none"))).unwrap_err();
    assert!(refused.to_string().contains("No such file"), "{refused}");
    assert_eq!(open(Some(&tpm.path())).unwrap(), *root.as_bytes(), "nothing was changed by that");

    // The board is another now.
    let mut keys = KeyStore::open_to_restore(dir.path(), Some(&other.path())).unwrap();
    assert!(matches!(keys.existing_root(PATIENT), Err(KeyStoreError::Elsewhere)));
    assert!(matches!(keys.root(PATIENT), Err(KeyStoreError::Elsewhere)), "no new root takes its place");
    assert_eq!(keys.patients().unwrap(), [(PATIENT, false)]);
    assert!(keys.restore(PATIENT, &root, Beginning { next: 5, generation: 5 }).unwrap());
    assert!(keys.beginnings().unwrap().is_empty(), "the spool of this disk says where chains go on");
    drop(keys);
    assert_eq!(open(Some(&other.path())).unwrap(), *root.as_bytes());
    assert!(matches!(open(Some(&tpm.path())), Err(KeyStoreError::Tpm(_))));
    assert!(!holds(&dir, root.as_bytes()));
}

#[test]
fn an_erased_root_leaves_the_file_and_never_comes_again() {
    let tpm = Tpm::start();
    for path in [None, Some(tpm.path())] {
        let path = path.as_deref();
        let dir = tempfile::tempdir().unwrap();
        let mut keys = KeyStore::open_with(dir.path(), path).unwrap();
        let (root, other) = (keys.root(PATIENT).unwrap(), keys.root(PatientId([5; 16])).unwrap());
        assert_eq!(holds(&dir, root.as_bytes()), path.is_none());
        drop(keys);
        let mut keys = KeyStore::open_with(dir.path(), path).unwrap();
        let ordered = Ordered { request: [0; 104], by: None };
        assert!(keys.erase(PATIENT, &ordered, 9).unwrap());
        assert!(!holds(&dir, root.as_bytes()), "not in freed pages either");
        assert_eq!(keys.erasures().ordered(&PATIENT), Some(ordered));
        drop(keys);
        let mut keys = KeyStore::open_with(dir.path(), path).unwrap();
        assert_eq!(keys.existing_root(PatientId([5; 16])).unwrap().unwrap().as_bytes(), other.as_bytes());
        assert!(keys.is_erased(PATIENT) && keys.existing_root(PATIENT).unwrap().is_none());
        assert!(matches!(keys.root(PATIENT), Err(KeyStoreError::Erased)));
        assert!(matches!(keys.restore(PATIENT, &root, Beginning::at(0)), Err(KeyStoreError::Erased)));
    }
}

#[test]
fn roots_that_lay_open_are_sealed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let root = KeyStore::open(dir.path()).unwrap().root(PATIENT).unwrap();
    let tpm = Tpm::start();
    let mut keys = KeyStore::open_with(dir.path(), Some(&tpm.path())).unwrap();
    assert_eq!(*keys.existing_root(PATIENT).unwrap().unwrap().as_bytes(), *root.as_bytes());
    drop(keys);
    assert!(!holds(&dir, root.as_bytes()), "nor in the pages in which it lay open");
    assert!(matches!(KeyStore::open(dir.path()), Err(KeyStoreError::NoTpm)));
}

#[test]
fn a_root_is_destroyed_without_its_tpm_and_the_others_open_with_it_still() {
    let tpm = Tpm::start();
    let dir = tempfile::tempdir().unwrap();
    let mut keys = KeyStore::open_with(dir.path(), Some(&tpm.path())).unwrap();
    let (_, other) = (keys.root(PATIENT).unwrap(), keys.root(PatientId([5; 16])).unwrap());
    drop(keys);
    let mut keys = KeyStore::open_to_erase(dir.path()).unwrap();
    assert!(keys.erase(PATIENT, &Ordered { request: [0; 104], by: None }, 9).unwrap());
    drop(keys);
    let mut keys = KeyStore::open_with(dir.path(), Some(&tpm.path())).unwrap();
    assert_eq!(keys.patients().unwrap(), [(PatientId([5; 16]), true)]);
    assert_eq!(keys.existing_root(PatientId([5; 16])).unwrap().unwrap().as_bytes(), other.as_bytes());
}

#[test]
fn a_restored_root_begins_beyond_and_takes_no_others_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = KeyStore::open(dir.path()).unwrap();
    let (root, other) = (PatientRoot::from_bytes([1; 32]), PatientRoot::from_bytes([2; 32]));
    let beginning = Beginning::at(1_790_000_000_000_000);
    assert_eq!(beginning, Beginning { next: 1_790_000_000 << 24, generation: 29_833_333 });
    assert!(keys.restore(PATIENT, &root, beginning).unwrap());
    assert!(!keys.restore(PATIENT, &root, Beginning::at(0)).unwrap());
    assert!(matches!(keys.restore(PATIENT, &other, beginning), Err(KeyStoreError::OtherRoot)));
    drop(keys);
    let keys = KeyStore::open(dir.path()).unwrap();
    assert_eq!(keys.beginnings().unwrap().get(&PATIENT), Some(&beginning));
    assert!(matches!(KeyStore::open(dir.path()), Err(KeyStoreError::InUse)));
}
