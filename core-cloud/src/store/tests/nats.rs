//! A real NATS server for the tests of one process, and what only the store on it can do wrong.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::jetstream::{JetStream, Settings};
use super::*;

/// How long the server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with its folder; ended when it is dropped.
pub(super) struct Server {
    dir: TempDir,
    port: u16,
    sync: &'static str,
    child: Option<Child>,
}

/// Where `cargo xtask nats` puts it.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).unwrap();
    let program = target.join("interop/nats/bin/nats-server");
    assert!(program.exists(), "{} is not there: `cargo xtask interop --nats` installs it", program.display());
    program
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    pub(super) fn start(sync: &'static str) -> Self {
        let mut server = Self { dir: tempfile::tempdir().unwrap(), port: free_port(), sync, child: None };
        server.run();
        server
    }

    pub(super) fn run(&mut self) {
        let text = format!(
            "listen: 127.0.0.1:{}\nserver_name: test\nmax_payload: 8MB\njetstream {{ store_dir: {:?}{} }}\n\
             accounts {{ CORE {{ jetstream: enabled, users: [ {{ user: core, password: pw }} ] }}\n\
             SYS {{ users: [ {{ user: sys, password: sp }} ] }} }}\nsystem_account: SYS\n",
            self.port,
            self.dir.path().join("store"),
            self.sync
        );
        let config = self.dir.path().join("nats.conf");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program()).arg("-c").arg(&config);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let deadline = caregate_host::clock::monotonic() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(caregate_host::clock::monotonic() < deadline, "the server did not start");
            std::thread::yield_now();
        }
    }

    /// As `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(super) fn settings(&self, stream: &str) -> Settings {
        Settings {
            url: format!("nats://127.0.0.1:{}", self.port),
            ca: None,
            user: ("core".into(), "pw".into()),
            system_user: ("sys".into(), "sp".into()),
            stream: stream.to_owned(),
            replicas: 1,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

const ALWAYS: &str = ", sync_interval: always";

/// The server that tests share. It is started by a thread that never ends before the process, with which it ends.
static SHARED: LazyLock<Settings> = LazyLock::new(|| {
    let (sender, settings) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let server = Server::start(ALWAYS);
        sender.send(server.settings("")).unwrap();
        loop {
            std::thread::park();
        }
    });
    settings.recv().unwrap()
});

/// A stream of one test.
pub(super) struct TestStream(String);

impl TestStream {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("TEST{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub(super) fn settings(&self) -> Settings {
        Settings { stream: self.0.clone(), ..SHARED.clone() }
    }
}

fn chain(sequences: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    [wrap(EPOCH, 1)].into_iter().chain(sequences.map(|sequence| segment(EPOCH, sequence))).collect()
}

fn queue_of(store: &dyn Store, to: u8) -> Vec<(u64, Vec<u8>)> {
    let (mut at, mut all) = (0, Vec::new());
    loop {
        let page = store.page(recipient(to), at, u64::MAX, PAGE_BYTES).unwrap();
        if page.records.is_empty() {
            return all;
        }
        at = page.next;
        all.extend(page.records);
    }
}

#[test]
fn tables_that_were_lost_are_made_anew_number_by_number() {
    let stream = TestStream::new();
    let (first, anew) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = JetStream::open(first.path(), &stream.settings()).unwrap();
    // The second recipient's wrap comes late, and brings what is there.
    store.put(&chain(0..20)).unwrap();
    store
        .put(&[
            wrap(EPOCH, 2),
            segment_of(2, DataClass::Alarm, Name { generation: 0, epoch: EPOCH, sequence: 0 }, b""),
        ])
        .unwrap();
    let queues = [queue_of(&store, 1), queue_of(&store, 2)];
    assert_eq!([queues[0].len(), queues[1].len()], [21, 21]);
    drop(store);
    let store = JetStream::open(anew.path(), &stream.settings()).unwrap();
    assert_eq!([queue_of(&store, 1), queue_of(&store, 2)], queues);
    assert_eq!(store.put(&[segment(EPOCH, 3)]).unwrap(), [Outcome::Known], "and it knows what it has");
}

#[test]
fn what_is_too_old_goes_from_the_stream_and_tables_that_are_made_anew_know_it() {
    let stream = TestStream::new();
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let store = JetStream::open(dirs[0].path(), &stream.settings()).unwrap();
    let of = |epoch, sequence| segment(EPOCH + epoch, sequence);
    let node = wrap_of(1, DataClass::Vitals, 0, (EPOCH, TREE_DEPTH - 2), 1);
    let old: Vec<_> = (0..10).map(|n| of(0, n)).collect();
    let head = head(10, retention::hash_of(&old[9]), 5);
    store.put(&[vec![node.clone(), wrap(EPOCH, 2), head.clone()], old.clone()].concat()).unwrap();
    store.put(&[of(1, 10), of(3, 11)]).unwrap();
    let other = segment_of(2, DataClass::Vitals, Name { generation: 0, epoch: EPOCH, sequence: 0 }, b"");
    store.put(std::slice::from_ref(&other)).unwrap();
    assert_eq!(store.messages(), 4, "the first batch is two: what lasts longer is apart");
    let numbers = [1, 2].map(|to| store.next_number(recipient(to)).unwrap());
    assert_eq!(retention::expired(&store, EPOCH + 1), 11, "the segments and the wrap of their epoch");
    assert_eq!(store.messages(), 4, "their message is gone, and one says how far");
    assert_eq!(retention::expired(&store, EPOCH + 2), 1, "half of a message");
    assert_eq!(store.messages(), 4);
    for dir in &dirs {
        // The first has its tables; the second has none; the third's are of an earlier build.
        let lost = dir.path() == dirs[2].path();
        if lost {
            let db = redb::Database::create(dir.path().join("index.redb")).unwrap();
            let txn = db.begin_write().unwrap();
            txn.open_table(redb::TableDefinition::<&str, &[u8]>::new("state"))
                .unwrap()
                .insert("applied", [9; 8].as_slice())
                .unwrap();
            txn.commit().unwrap();
        }
        let opened =
            (dir.path() != dirs[0].path()).then(|| JetStream::open(dir.path(), &stream.settings()).unwrap());
        let store = opened.as_ref().unwrap_or(&store);
        let left: Vec<_> = queue_of(store, 1).into_iter().map(|(_, record)| record).collect();
        assert!(left.contains(&node) && left.contains(&head) && left.contains(&of(3, 11)));
        assert!(old.iter().all(|record| !left.contains(record)));
        assert_eq!([1, 2].map(|to| store.next_number(recipient(to)).unwrap()), numbers);
        assert_eq!(store.put(&old[3..5]).unwrap(), [Outcome::Known; 2], "as old as what went");
        assert_eq!(store.put(std::slice::from_ref(&other)).unwrap(), [Outcome::Known]);
    }
    assert_eq!(retention::expired(&store, u32::MAX), 2, "the node's wrap and the last of that patient");
    assert_eq!(store.messages(), 3, "the head, the other patient's, and how far");
}

#[test]
fn of_two_cores_on_one_stream_neither_forgets_what_the_other_stored() {
    let stream = TestStream::new();
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = JetStream::open(a.path(), &stream.settings()).unwrap();
    let b = JetStream::open(b.path(), &stream.settings()).unwrap();
    a.put(&chain(0..2)).unwrap();
    assert_eq!(b.put(&[segment(EPOCH, 1), segment(EPOCH, 2)]).unwrap(), [Outcome::Known, Outcome::Stored]);
    assert_eq!(a.put(&[segment(EPOCH, 2), segment(EPOCH, 3)]).unwrap(), [Outcome::Known, Outcome::Stored]);
    let queue = queue_of(&a, 1);
    assert_eq!(queue.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_server_that_is_killed_and_comes_back_has_what_was_acknowledged() {
    let mut server = Server::start(ALWAYS);
    let dir = tempfile::tempdir().unwrap();
    let storing = caregate_host::admin::Health::new().condition("store");
    let store = JetStream::open(dir.path(), &server.settings("KILLED")).unwrap();
    let store = Arc::new(store.telling(storing.clone()));
    store.put(&chain(0..10)).unwrap();
    assert!(storing.holds());
    server.kill();
    let putting = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || store.put(&[segment(EPOCH, 9), segment(EPOCH, 10)]).unwrap())
    };
    server.run();
    assert_eq!(putting.join().unwrap(), [Outcome::Known, Outcome::Stored]);
    assert_eq!(queue_of(&*store, 1).len(), 12);
    assert!(storing.holds());
    server.kill();
    let putting = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || store.put(&[segment(EPOCH, 11)]).unwrap_err().to_string())
    };
    server.sync = "";
    server.run();
    let error = putting.join().unwrap();
    assert!(error.contains("server test does not report `sync_interval: always`"), "{error}");
    assert!(!storing.holds());
    assert_eq!(queue_of(&*store, 1).len(), 12, "what it may have taken counts for nothing");
}

#[test]
fn a_server_whose_word_is_not_durable_is_refused_and_so_are_wrong_users() {
    let server = Server::start("");
    let dir = tempfile::tempdir().unwrap();
    let refused = |settings: &Settings| JetStream::open(dir.path(), settings).unwrap_err().to_string();
    let error = refused(&server.settings("S"));
    assert!(error.contains("does not report `sync_interval: always`"), "{error}");
    // One that may not ask does not know, and what is not known is refused.
    let asks = Settings { system_user: ("core".into(), "pw".into()), ..SHARED.clone() };
    assert!(refused(&asks).contains("reports how it syncs"), "{}", refused(&asks));
    let wrong = Settings { user: ("core".into(), "no".into()), ..TestStream::new().settings() };
    assert!(refused(&wrong).contains("connect"), "{}", refused(&wrong));
    let remote = Settings { url: "nats://192.0.2.1:4222".into(), ..SHARED.clone() };
    assert!(refused(&remote).contains("use tls://"), "{}", refused(&remote));
}

#[test]
fn tables_of_another_stream_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(JetStream::open(dir.path(), &TestStream::new().settings()).unwrap());
    let error = JetStream::open(dir.path(), &TestStream::new().settings()).unwrap_err().to_string();
    assert!(error.contains("of another stream"), "{error}");
}
