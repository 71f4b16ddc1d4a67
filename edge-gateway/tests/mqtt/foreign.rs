//! The embedded server against clients that others wrote: mosquitto_pub and mosquitto_sub, in the clear and over TLS with a client
//! certificate. Where mosquitto-clients is missing these tests fail and say so.

use std::net::SocketAddr;
use std::process::{Command, Output};

use edge_gateway::ingest::Verdict;
use edge_gateway::mqtt::limits::Limits;
use rustls::SupportedProtocolVersion;
use tokio::task::JoinHandle;

use crate::mqtt_support::pki::Pki;
use crate::mqtt_support::{Door, SECRET, device, within};

const TOPIC: &str = "vitals/v1/a/num/heart-rate";

/// Starts a client; it must exist.
fn spawn(program: &'static str, address: SocketAddr, args: &[&str]) -> JoinHandle<Output> {
    let mut command = Command::new(program);
    command.args(["-h", "localhost", "-p", &address.port().to_string()]).args(args);
    tokio::task::spawn_blocking(move || match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{program} can't run ({error}); it is in Debian's mosquitto-clients"),
    })
}

async fn ended(task: JoinHandle<Output>) -> (bool, String) {
    let output = within("the client to end", task).await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn mosquitto_pub_publishes_and_waits_for_its_puback() {
    let mut door = Door::open(Limits::default()).await;
    let login = ["-u", "user-a", "-P", SECRET, "-t", TOPIC];
    let publish = |more: &[&str]| spawn("mosquitto_pub", door.address, &[&login, more].concat());
    let running = publish(&["-q", "1", "-m", "72"]);
    let inbound = within("a publish", door.inbound.recv()).await.unwrap();
    assert_eq!((&inbound.topic[..], &inbound.payload[..]), (TOPIC, &b"72"[..]));
    assert!(!running.is_finished(), "it waits for its PUBACK");
    inbound.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(ended(running).await, (true, String::new()));

    // QoS 0, a payload of 100 kB, and a client id with CleanSession 0.
    let large = "x".repeat(100_000);
    for more in [
        &["-q", "0", "-m", "73"][..],
        &["-q", "1", "-m", &large],
        &["-q", "1", "-c", "-i", "kept", "-m", "74"],
    ] {
        let running = publish(more);
        let inbound = within("a publish", door.inbound.recv()).await.unwrap();
        assert_eq!(inbound.payload.as_ref(), more.last().unwrap().as_bytes());
        inbound.verdict.send(Verdict::Stored).unwrap();
        assert_eq!(ended(running).await, (true, String::new()));
    }
}

#[tokio::test]
async fn mosquitto_is_told_why_it_is_refused() {
    let door = Door::open(Limits::default()).await;
    let publish = async |args: &[&str]| {
        let args = [args, &["-t", TOPIC, "-q", "1", "-m", "72"]].concat();
        ended(spawn("mosquitto_pub", door.address, &args)).await
    };
    let (ok, said) = publish(&["-u", "user-a", "-P", "wrong"]).await;
    assert!(!ok && said.contains("not authorised") || said.contains("bad user name or password"), "{said}");
    let (ok, said) = publish(&[]).await;
    assert!(!ok && said.contains("not authorised"), "{said}");
    let (ok, said) = publish(&["-V", "mqttv5", "-u", "user-a", "-P", "wrong"]).await;
    assert!(!ok && said.contains("Bad User Name or Password"), "{said}");
    door.refused("bad-credentials", 2).await;
    door.refused("anonymous", 1).await;
}

#[tokio::test]
async fn mosquitto_sub_is_denied_what_is_not_its_own() {
    let door = Door::open(Limits::default()).await;
    let args = ["-u", "user-a", "-P", SECRET, "-t", "vitals/v1/b/#", "-q", "1"];
    let (_, said) = ended(spawn("mosquitto_sub", door.address, &args)).await;
    assert!(said.contains("denied"), "{said}");
}

async fn publish_over_tls(version: &str, versions: &[&'static SupportedProtocolVersion]) {
    let pki = Pki::new();
    pki.issue_client("sensor", "spiffe://test/sensor/a");
    pki.issue_client("gateway", "spiffe://test/gateway/a");
    let mut door = Door::open_with(Limits::default(), Some(pki.door(versions))).await;
    let publish = |more: &[&str]| {
        let ca = pki.path("ca.pem");
        let args =
            [&["--cafile", &ca, "--tls-version", version, "-t", TOPIC, "-q", "1", "-m", "72"], more].concat();
        spawn("mosquitto_pub", door.address, &args)
    };
    let (certificate, key) = (pki.path("sensor.pem"), pki.path("sensor.key"));
    let by_certificate = publish(&["--cert", &certificate, "--key", &key]);
    let inbound = within("a publish", door.inbound.recv()).await.unwrap();
    assert_eq!(inbound.device, device("a"));
    inbound.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(ended(by_certificate).await, (true, String::new()));

    let by_password = publish(&["-u", "user-a", "-P", SECRET]);
    let inbound = within("a publish", door.inbound.recv()).await.unwrap();
    inbound.verdict.send(Verdict::Stored).unwrap();
    assert_eq!(ended(by_password).await, (true, String::new()));

    // A certificate of another role doesn't get in, even with a right password.
    let (certificate, key) = (pki.path("gateway.pem"), pki.path("gateway.key"));
    let wrong_role = publish(&["--cert", &certificate, "--key", &key, "-u", "user-a", "-P", SECRET]);
    assert!(!ended(wrong_role).await.0);
    door.refused("certificate", 1).await;
    assert!(!ended(publish(&[])).await.0);
    door.refused("anonymous", 1).await;

    // Another authority's certificate doesn't pass TLS.
    let stranger = Pki::new();
    stranger.issue_client("sensor", "spiffe://test/sensor/a");
    let (certificate, key) = (stranger.path("sensor.pem"), stranger.path("sensor.key"));
    assert!(!ended(publish(&["--cert", &certificate, "--key", &key])).await.0);
    door.refused("tls", 1).await;
}

#[tokio::test]
async fn mosquitto_pub_over_tls_1_3_with_a_client_certificate() {
    publish_over_tls("tlsv1.3", &[&rustls::version::TLS13]).await;
}

#[tokio::test]
async fn mosquitto_pub_over_tls_1_2_with_a_client_certificate() {
    publish_over_tls("tlsv1.2", &[&rustls::version::TLS12]).await;
}
