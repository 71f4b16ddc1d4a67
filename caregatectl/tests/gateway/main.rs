//! The patient's commands at a real gateway's local door, with no controller: policy is carried by hand.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "what a test can't set up fails it")]
#![allow(dead_code, reason = "helpers of other tests, of which this uses its part")]

#[path = "../ledger/support.rs"]
mod called;
#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use caregate_host::identity::Role;
use caregate_protocol::policy::Watch;
use ledger_chain::{Chain, ChainConfig, Follower};
use ledger_client::verify::Enrolment;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use called::{Called, Node, Wallet, binary, call, until, write_private};
use pki::Ca;

const CODE: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
const SALT: &[u8; 16] = b"salt-of-the-test";

/// A gateway without packet filter, controller and core; ended on drop.
struct Gateway<'n> {
    node: &'n Node,
    process: Child,
    door: String,
    code: String,
}

impl<'n> Gateway<'n> {
    fn start(node: &'n Node) -> Self {
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (door, admin, dir) = (port(), port(), node.dir.path());
        let identity = Ca::new().issue(dir, Role::Gateway, "gateway-1");
        write_private(&dir.join("device.key"), &format!("{}\n", "07".repeat(32)));
        let hash = hex::encode(digest(&SHA256, &[&SALT[..], CODE.as_bytes()].concat()));
        let config = format!(
            "data = {:?}\nadmin = \"127.0.0.1:{admin}\"\ndevice_key = {:?}\ndatapath = \"off\"\n\
             [identity]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n\
             [core]\naddress = \"127.0.0.1:9\"\n[policy]\nenrolment = {:?}\n[mqtt]\nlisten = \"127.0.0.1:{}\"\n\
             [local]\nlisten = \"127.0.0.1:{door}\"\nrevoke_keys = {:?}\n\
             access_code = {{ salt = \"{}\", sha256 = \"{hash}\" }}\n",
            dir.join("gateway"),
            dir.join("device.key"),
            identity.certificate,
            identity.key,
            identity.ca,
            dir.join("enrolment.toml"),
            port(),
            dir.join("revoke-keys.toml"),
            hex::encode(SALT),
        );
        std::fs::write(dir.join("gateway.toml"), config).unwrap();
        let log = File::create(dir.join("gateway.log")).unwrap();
        let mut command = Command::new(binary("edge-gateway"));
        command.arg("--config").arg(dir.join("gateway.toml")).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        write_private(&dir.join("code"), &format!("{}\n", CODE.to_uppercase()));
        let gateway =
            Self { node, process, door: format!("http://127.0.0.1:{door}"), code: node.path("code") };
        until("the local door opens", || TcpStream::connect(("127.0.0.1", door)).ok());
        gateway
    }

    /// Hands a bundle to the door; its verdict.
    fn offer(&self, bundle: &[u8]) -> Value {
        let authority = self.door.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(authority).unwrap();
        write!(
            stream,
            "POST /policy/bundle HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            bundle.len()
        )
        .unwrap();
        stream.write_all(bundle).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn devices(&self, code: &str) -> Called {
        call(&["devices", "--gateway", &self.door, "--access-code-file", code])
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.node.path("gateway.log")).unwrap_or_default();
            println!("--- gateway\n{log}");
        }
    }
}

fn patient(node: &Node) -> Wallet<'_> {
    let hospital = node.hospital("hospital", &[]);
    let wallet = node.wallet("ann");
    wallet.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    let device = ["--home", "gateway-1", "--device", "ecg-1", "--mac", "02:00:00:00:00:01"];
    wallet.call("bind", &device).done();
    let (out, keys) = (node.path("enrolment.toml"), node.path("revoke-keys.toml"));
    wallet.call("enrol", &["--home", "gateway-1", "--out", &out, "--revoke-keys", &keys]).done();
    wallet.call("grant", &["--label", "City"]).done();
    wallet
}

fn watch(file: &Path) -> Watch {
    let enrolment: Enrolment = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    enrolment.pins().unwrap().watch()
}

#[tokio::test]
async fn a_revocation_handed_to_the_gateway_holds_without_the_ledger() {
    let node = Node::start();
    let wallet = patient(&node);
    let gateway = Gateway::start(&node);
    let config = ChainConfig::new(&node.rpc, 4711, node.contract.parse().unwrap());
    let follower = Follower::start(Chain::connect(config).await.unwrap(), CancellationToken::new());
    follower.heads().wait_for(Option::is_some).await.unwrap();
    let bundle = follower.bundle(&watch(&node.dir.path().join("enrolment.toml"))).await.unwrap();
    let verdict = gateway.offer(&bundle.encode());
    assert_eq!((&verdict["refused"], &verdict["epoch"]), (&Value::Null, &bundle.claims.epoch.into()));

    // The node does not answer; the patient's word is enough.
    let mut arguments = wallet.arguments("revoke", &["--label", "City", "--gateway", &gateway.door]);
    let rpc = arguments.iter().position(|word| *word == node.rpc).unwrap();
    arguments[rpc] = "http://127.0.0.1:1";
    let revoked = call(&arguments);
    assert!(revoked.stderr.contains("the versions that this wallet knows of"), "{revoked:?}");
    let revoked = revoked.done();
    assert_eq!((&revoked["version"], &revoked["gateway"]["refused"]), (&1.into(), &Value::Null));
    assert_eq!(revoked.get("ledger"), None);
    let audit = node.ledger("audit events", &[]);
    assert!(!audit.stdout.contains("\"Revoked\""), "{audit:?}");
    // It goes to the ledger too where that is asked for; the gateway takes it a second time.
    let both = ["--label", "City", "--gateway", &gateway.door, "--also-ledger"];
    let both = wallet.call("revoke", &both).done();
    assert!(both["ledger"]["block"].is_number(), "{both}");
    assert!(node.ledger("audit events", &[]).stdout.contains("\"Revoked\""));

    // A patient of another gateway is refused by name.
    let stranger = node.wallet("stranger");
    let other = format!("0x{}", "0b".repeat(20));
    stranger.call("relationship", &["--label", "City", "--grantee", &other]).done();
    let refused = stranger.call("revoke", &["--label", "City", "--gateway", &gateway.door]);
    assert_eq!(refused.refused(), "not_pinned");
}

#[tokio::test]
async fn an_emergency_handed_to_the_gateway_holds_without_the_ledger() {
    let node = Node::start();
    let wallet = patient(&node);
    let rescue = node.hospital("rescue", &["--emergency"]);
    let pseudonym = wallet.call("show", &[]).done()["pseudonym"].as_str().unwrap().to_owned();
    let gateway = Gateway::start(&node);
    let open = |name: &str, minutes: &str| {
        let (key, opening) =
            (node.path(&format!("{name}.key")), node.path(&format!("{name}-{minutes}.json")));
        let rpc = "http://127.0.0.1:1";
        let words = [
            "emergency",
            "open",
            "--rpc",
            rpc,
            "--chain-id",
            "4711",
            "--contract",
            &node.contract,
            "--domain-key",
            &key,
            "--pseudonym",
            &pseudonym,
            "--clinician",
            "Dr Example",
            "--reason",
            "found unconscious at home",
            "--minutes",
            minutes,
            "--opening",
            &opening,
            "--gateway",
            &gateway.door,
        ];
        call(&words)
    };
    assert_eq!(open("rescue", "1").refused(), "emergency_stranger", "no header has said who may");
    let config = ChainConfig::new(&node.rpc, 4711, node.contract.parse().unwrap());
    let follower = Follower::start(Chain::connect(config).await.unwrap(), CancellationToken::new());
    follower.heads().wait_for(Option::is_some).await.unwrap();
    let bundle = follower.bundle(&watch(&node.dir.path().join("enrolment.toml"))).await.unwrap();
    assert_eq!(gateway.offer(&bundle.encode())["refused"], Value::Null);

    let opened = open("rescue", "30").done();
    assert_eq!((&opened["domain"], &opened["gateway"]["refused"]), (&rescue.as_str().into(), &Value::Null));
    assert!(opened.get("ledger").is_none() && Path::new(opened["opening"].as_str().unwrap()).is_file());
    assert!(!node.ledger("audit", &[]).stdout.contains("EmergencyOpened"));
    // The hospital treats, and may not break the glass.
    assert_eq!(open("hospital", "30").refused(), "emergency_stranger");
    let log = std::fs::read_to_string(node.path("gateway.log")).unwrap();
    assert!(!log.contains(&pseudonym) && !log.contains("unconscious"), "{log}");
}

#[test]
fn the_inventory_is_shown_to_who_has_the_code() {
    let node = Node::start();
    let _wallet = patient(&node);
    let gateway = Gateway::start(&node);
    let seen = gateway.devices(&gateway.code).done();
    assert_eq!(seen["devices"], serde_json::json!([]), "nothing is heard without a sensor port");
    let wrong = node.path("wrong.code");
    write_private(Path::new(&wrong), "00000000");
    assert_eq!(gateway.devices(&wrong).refused(), "403");
    let absent = call(&["devices", "--gateway", "http://127.0.0.1:1", "--access-code-file", &gateway.code]);
    assert!(absent.failed().contains("127.0.0.1:1"), "{absent:?}");
    let untrusted =
        call(&["devices", "--gateway", "https://127.0.0.1:1", "--access-code-file", &gateway.code]);
    assert!(untrusted.failed().contains("--gateway-ca"), "{untrusted:?}");
}
