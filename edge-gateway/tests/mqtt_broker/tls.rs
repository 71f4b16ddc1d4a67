//! A broker that wants TLS, by the gateway's tunnel.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_gateway::ingest::{self, Verdict};
use edge_gateway::mqtt::broker::{BrokerConfig, run};
use edge_gateway::mqtt::metrics::BrokerMetrics;
use edge_gateway::mqtt::tunnel::{TlsEntry, Tunnel, TunnelError};
use prometheus::Registry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rumqttc::MqttOptions;
use tokio_util::sync::CancellationToken;

use super::mqtt_support::{Client, device, within};
use super::{Door, Mosquitto, TOPIC, publish};

/// An authority of a home's own, as a broker's handbook has it.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key for a name, written as files.
    fn issue(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&paths.1, std::fs::Permissions::from_mode(0o600)).unwrap();
        paths
    }

    fn file(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, &self.pem).unwrap();
        path
    }
}

/// A broker that wants TLS and a client's certificate, the gateway's way to it, and the folder of both.
async fn secured(name: &str, trusted: bool) -> (Mosquitto, Tunnel, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = authority.file(dir.path(), "ca.pem");
    let (certificate, key) = authority.issue(dir.path(), "broker.example");
    // It drops its rights and then reads them.
    for path in [&ca, &certificate, &key] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let more = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
        ca.display(),
        certificate.display(),
        key.display()
    );
    let broker = Mosquitto::start_with(20, &more).await;
    let (certificate, key) = authority.issue(dir.path(), "gateway.example");
    let ca = if trusted { ca } else { other.file(dir.path(), "other.pem") };
    let (certificate, key) = (Some(certificate), Some(key));
    let entry = TlsEntry { ca, name: Some(name.to_owned()), certificate, key };
    let socket = dir.path().join("broker-0.sock");
    let tunnel = Tunnel::open(socket, "127.0.0.1", broker.address.port(), &entry).unwrap();
    (broker, tunnel, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_come_by_tls_and_are_acknowledged_after_their_verdict() {
    let (broker, tunnel, dir) = secured("broker.example", true).await;
    let socket = tunnel.path().to_owned();
    let stop = CancellationToken::new();
    let carrying = tokio::spawn(tunnel.run(stop.clone()));
    let mut door = Door::open_by(broker.address, socket.clone()).await;
    // The publisher is on TLS too: by a tunnel of its own.
    let ca = dir.path().join("ca.pem");
    let (certificate, key) = (dir.path().join("gateway.example.pem"), dir.path().join("gateway.example.key"));
    let name = Some("broker.example".to_owned());
    let entry = TlsEntry { ca, name, certificate: Some(certificate), key: Some(key) };
    let own = Tunnel::open(dir.path().join("own.sock"), "127.0.0.1", broker.address.port(), &entry).unwrap();
    let mut options = MqttOptions::new("publisher", own.path().to_str().unwrap(), 1883);
    options.set_transport(rumqttc::Transport::unix());
    tokio::spawn(own.run(stop.clone()));
    let mut publisher = Client::up(options).await;
    publish(&mut publisher, TOPIC, &["71", "72"]).await;
    for payload in ["71", "72"] {
        let inbound = door.next().await;
        assert_eq!(&inbound.payload[..], payload.as_bytes());
        inbound.verdict.send(Verdict::Stored).unwrap();
    }
    door.counted("stored", 2).await;
    door.close().await;
    stop.cancel();
    within("the tunnel's end", carrying).await.unwrap();
    assert!(!socket.exists(), "the socket is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_who_it_should_be_is_not_read_from() {
    for (name, trusted) in [("broker.example", false), ("other.example", true)] {
        let (broker, tunnel, _dir) = secured(name, trusted).await;
        let stop = CancellationToken::new();
        let (inlet, _inbound) = ingest::queue();
        let metrics = BrokerMetrics::register(&Registry::new()).unwrap();
        let config = BrokerConfig {
            host: "127.0.0.1".to_owned(),
            port: broker.address.port(),
            client_id: "caregate-test".to_owned(),
            login: None,
            devices: BTreeSet::from([device("a")]),
            socket: Some(tunnel.path().to_owned()),
        };
        tokio::spawn(tunnel.run(stop.clone()));
        let reading = tokio::spawn(run(config, inlet, metrics.clone(), stop.clone()));
        within("attempts that fail", async {
            while metrics.closes.with_label_values(&["connection"]).get() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(metrics.subscribed.get(), 0);
        stop.cancel();
        within("the door's end", reading).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_named_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = authority.file(dir.path(), "ca.pem");
    let good = TlsEntry { ca, name: None, certificate: None, key: None };
    let open = |host: &str, entry: &TlsEntry| {
        Tunnel::open(dir.path().join("b.sock"), host, 8883, entry)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(open("broker.example", &good), Ok(()));
    assert_eq!(open("broker.example", &good), Ok(()), "one that a killed process left is replaced");
    let missing = TlsEntry { ca: dir.path().join("none.pem"), ..good.clone() };
    assert!(open("broker.example", &missing).unwrap_err().contains("none.pem"));
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    let empty = TlsEntry { ca: dir.path().join("empty.pem"), ..good.clone() };
    assert!(open("broker.example", &empty).unwrap_err().contains("empty.pem"));
    let half = TlsEntry { certificate: Some(good.ca.clone()), ..good.clone() };
    assert_eq!(open("broker.example", &half), Err(TunnelError::Half.to_string()));
    assert!(open("no name", &good).unwrap_err().contains("no name"));
    let long = dir.path().join("x".repeat(120));
    assert!(Tunnel::open(long, "broker.example", 8883, &good).is_err());
}
