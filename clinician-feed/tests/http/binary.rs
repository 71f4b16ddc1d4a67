//! The binary, as an operator starts it, against a real core.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use caregate_protocol::audit::Run;
use caregate_protocol::id::DataClass;
use caregate_protocol::segment::SegmentHash;
use clinician_feed::journal::{AccessBasis, Journal, Part, What};
use clinician_feed::password::Hashed;
use rustls::pki_types::CertificateDer;
use serde_json::Value as Json;

use crate::client::{next_of, open_at, until_close};
use crate::core::{Core, lines, web_certificate};

/// Nothing here takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// `nurse:correct horse`.
pub(crate) const BASIC: &[(&str, &str)] = &[("Authorization", "Basic bnVyc2U6Y29ycmVjdCBob3JzZQ==")];

pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_clinician-feed"))
}

/// The daemon; its end ends the process.
pub(crate) struct Daemon {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    pub(crate) address: SocketAddr,
}

impl Daemon {
    pub(crate) fn start(config: &Path) -> Self {
        let mut child = command().arg("--config").arg(config).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Self { child, log, address: SocketAddr::from(([0; 4], 0)) };
        let mut line = String::new();
        while daemon.address.port() == 0 {
            line.clear();
            assert_ne!(daemon.log.read_line(&mut line).unwrap(), 0, "the daemon ended before it listened");
            let entry: Json = serde_json::from_str(&line).unwrap();
            if entry["message"] == "listening" {
                daemon.address = entry["page"].as_str().unwrap().parse().unwrap();
            }
        }
        daemon
    }

    /// Ends it as an operator does; answers with its log.
    pub(crate) fn terminate(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        assert!(self.child.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The account that runs this.
pub(crate) fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

pub(crate) async fn export(config: &Path) -> Output {
    export_of(config, &[]).await
}

async fn export_of(config: &Path, part: &[&str]) -> Output {
    let mut command = command();
    command.arg("export").arg("--config").arg(config).args(part);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn sequences(output: &Output) -> Vec<u64> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["segment"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_present_are_shown_and_exported() {
    let core = Core::start();
    let config = core.config();
    let mut hash = SegmentHash::NONE;
    for sequence in 0..20 {
        hash = core.segment(sequence, hash);
    }
    let daemon = Daemon::start(&config);
    let mut socket = open_at(daemon.address, "?from=0", BASIC).await.unwrap();
    for sequence in 0..20_u64 {
        let reading = next_of(&mut socket, "reading").await;
        assert_eq!((&reading["segment"], &reading["numeric"]), (&sequence.into(), &60.0.into()));
    }
    hash = core.segment(20, hash);
    assert_eq!(next_of(&mut socket, "reading").await["n"], 20);
    let chain = next_of(&mut socket, "chain").await;
    assert!(chain["gap"].is_null(), "{chain}");
    let exported = export(&config).await;
    assert!(exported.status.success(), "{exported:?}");
    assert_eq!(sequences(&exported), (0..21).collect::<Vec<_>>(), "beside the daemon");
    core.segment(21, hash);
    assert_eq!(next_of(&mut socket, "reading").await["n"], 21);
    let log = daemon.terminate();
    assert_eq!(until_close(&mut socket).await.0, 1001);
    assert!(log.contains("\"stopped\"") && !log.contains("01010101"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_a_patients_class_is_exported_by_itself() {
    let core = Core::start();
    let config = core.config();
    let mut hash = SegmentHash::NONE;
    for sequence in 0..5 {
        hash = core.segment(sequence, hash);
    }
    // The epoch of all segments is 29,000,000 min.
    let part = |class: &'static str, from: &'static str, until: &'static str| {
        let (config, patient) = (config.clone(), crate::PATIENT.to_string());
        async move {
            let part = ["--patient", &patient, "--class", class, "--from", from, "--until", until];
            export_of(&config, &part).await
        }
    };
    let exported = part("vitals", "1740000030", "1740000031").await;
    assert!(exported.status.success(), "{exported:?}");
    assert_eq!(sequences(&exported), (0..5).collect::<Vec<_>>());
    // Whose readings of which time, before them and at the end: what was asked for and what there was.
    let (uid, patient, class) = (own_uid(), crate::PATIENT, DataClass::Vitals);
    let of = Part { patient, class, from_us: 1_740_000_000_000_000, until_us: 1_740_000_060_000_000 };
    let (from_us, basis) = (crate::T0_US + 1_000, AccessBasis::Unknown);
    let exported = |until_us| What::Exported { uid, patient, class, from_us, until_us, basis };
    let entries = Journal::open(&config.with_file_name("journal.jsonl")).unwrap().1;
    let mut noted: Vec<_> = entries.into_iter().map(|entry| entry.what).collect();
    let What::Received { delivered, .. } = noted.remove(2) else { panic!("{noted:?}") };
    assert_eq!((delivered.patient, delivered.class, delivered.segments), (patient, class, vec![Run(0, 4)]));
    assert_eq!(noted, [What::Export { uid, of: Some(of) }, exported(None), exported(Some(from_us))]);
    let log = lines(&std::fs::read(config.with_file_name("journal.jsonl")).unwrap());
    assert!(core.agrees_with(&log).is_ok(), "the core's says the same");
    for (class, from, until) in
        [("vitals", "1740000060", "1750000000"), ("vitals", "0", "1740000000"), ("alarm", "0", "1750000000")]
    {
        let exported = part(class, from, until).await;
        assert!(exported.status.success() && exported.stdout.is_empty(), "{exported:?}");
    }
    assert_eq!(part("vital", "0", "1").await.status.code(), Some(2));
    assert_eq!(export_of(&config, &["--class", "vitals"]).await.status.code(), Some(2));
}

/// Waits until a condition that can only be looked at holds.
pub(crate) async fn becomes(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_late| panic!("{what}: not within {PATIENCE:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_told_of_an_erasure_forgets_and_sends_the_core_its_receipt() {
    let core = Core::start();
    let config = core.config();
    core.segment(0, SegmentHash::NONE);
    let daemon = Daemon::start(&config);
    let mut socket = open_at(daemon.address, "?from=0", BASIC).await.unwrap();
    assert_eq!(next_of(&mut socket, "reading").await["segment"], 0);
    let receipts = core.erase();
    becomes("the core has a receipt", || receipts() > 0).await;
    let mut later = open_at(daemon.address, "?from=0", BASIC).await.unwrap();
    next_of(&mut later, "hello").await;
    let log = daemon.terminate();
    let (_, shown) = until_close(&mut later).await;
    assert!(shown.is_empty() && log.contains("\"stopped\""), "{shown:?} {log}");
    // It reads its queue again, and is known there.
    let daemon = Daemon::start(&config);
    open_at(daemon.address, "", BASIC).await.unwrap();
    daemon.terminate();
    assert_eq!(receipts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_durable_is_shown_as_such_and_comes_once_as_a_reading() {
    let core = Core::start();
    let config = core.config();
    let hash = core.segment(0, SegmentHash::NONE);
    let daemon = Daemon::start(&config);
    let mut socket = open_at(daemon.address, "?from=0", BASIC).await.unwrap();
    // Its key has come by the queue.
    assert_eq!(next_of(&mut socket, "reading").await["segment"], 0);
    becomes("the feed asks for what is not durable", || core.is_viewed()).await;
    let store = core.show(1, hash);
    let provisional = next_of(&mut socket, "provisional").await;
    assert_eq!((&provisional["segment"], &provisional["numeric"]), (&1.into(), &60.0.into()));
    assert!(provisional.get("n").is_none());
    // A reader that comes now has no part in it: it is in no answer.
    let mut later = open_at(daemon.address, "?from=0", BASIC).await.unwrap();
    assert_eq!(next_of(&mut later, "hello").await["next"], 1);
    store();
    for socket in [&mut socket, &mut later] {
        let reading = next_of(socket, "reading").await;
        let (n, segment) = (reading["n"].as_u64().unwrap(), reading["segment"].as_u64().unwrap());
        if (n, segment) == (0, 0) {
            assert_eq!(next_of(socket, "reading").await["segment"], 1);
        } else {
            assert_eq!((n, segment), (1, 1));
        }
    }
    let exported = export(&config).await;
    assert_eq!(sequences(&exported), [0, 1]);
    let log = daemon.terminate();
    assert!(log.contains("\"stopped\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chain_fails_the_export_and_is_not_shown() {
    let core = Core::start();
    let config = core.config();
    let hash = core.segment(0, SegmentHash::NONE);
    let hash = core.segment(1, hash);
    core.segment(2, SegmentHash([8; 32]));
    let exported = export(&config).await;
    assert_eq!((exported.status.code(), sequences(&exported)), (Some(1), vec![0, 1]));
    let errors = String::from_utf8(exported.stderr).unwrap();
    assert!(errors.contains("1 records could not be opened"), "{errors}");
    assert_ne!(hash, SegmentHash([8; 32]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_core_the_export_says_so() {
    let core = Core::start();
    let config = core.config();
    let text = std::fs::read_to_string(&config).unwrap().replace("core-1", "core-2");
    std::fs::write(&config, text).unwrap();
    let exported = export(&config).await;
    assert_eq!((exported.status.code(), exported.stdout.len()), (Some(1), 0));
    let errors = String::from_utf8(exported.stderr).unwrap();
    assert!(errors.contains("no connection to the core"), "{errors}");
}

/// One request over HTTPS.
fn over_tls(address: SocketAddr, trusted: CertificateDer<'static>, request: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_the_cookie_stays_there() {
    let core = Core::start();
    let config = core.config();
    let (certificate, key, trusted) = web_certificate(&config);
    let text = std::fs::read_to_string(&config).unwrap();
    let tls = format!("tls = {{ certificate = {certificate:?}, key = {key:?} }}\n{text}");
    std::fs::write(&config, tls).unwrap();
    let daemon = Daemon::start(&config);
    let body = r#"{"user":"nurse","password":"correct horse"}"#;
    let request = format!(
        "POST /api/login HTTP/1.1\r\nHost: localhost\r\nOrigin: https://localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = daemon.address;
    let answer = tokio::task::spawn_blocking(move || over_tls(address, trusted, &request)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("; Secure"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("strict-transport-security"), "{answer}");
    daemon.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_hash_password() {
    let core = Core::start();
    let config = core.config();
    let check = |config: &Path| command().arg("--check").arg("--config").arg(config).output().unwrap();
    assert!(check(&config).status.success());
    let text = std::fs::read_to_string(&config).unwrap();
    for (from, to, expected) in [
        ("$argon2id$", "$argon2x$", "password_hash of nurse"),
        ("hpke_key = ", "hpke_kay = ", "feed.toml:5: `hpke_kay`"),
        ("/hpke\"", "/none\"", "/none: No such file"),
    ] {
        std::fs::write(&config, text.replace(from, to)).unwrap();
        let refused = check(&config);
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && errors.contains(expected), "{errors}");
    }
    let mut child =
        command().arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a new passphrase\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let phc = String::from_utf8(output.stdout).unwrap();
    assert!(Hashed::new(phc.trim_end()).unwrap().verify("a new passphrase"));
}
