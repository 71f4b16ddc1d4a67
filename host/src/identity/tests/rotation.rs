//! Replacing files beneath configurations that are already in use.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::pki::{Ca, Daemon, Odd, shake_with, stranger_client};
use crate::identity::Role;

fn ends(core: &Daemon, gateway: &Daemon) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let client = Arc::new(gateway.identity.client_config(Role::Core, None, &[]));
    (client, Arc::new(core.identity.server_config(&[Role::Gateway], &[])))
}

/// The certificates that the client and the server saw.
fn seen(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> [CertificateDer<'static>; 2] {
    let (client, server) = shake_with(client, server).unwrap();
    [client.peer_certificates().unwrap()[0].clone(), server.peer_certificates().unwrap()[0].clone()]
}

#[test]
fn the_next_handshake_shows_the_new_certificate() {
    let ca = Ca::new("ca");
    let (core, gateway) = (Daemon::new(&ca, Role::Core, "core-1"), Daemon::new(&ca, Role::Gateway, "gw-1"));
    let (client, server) = ends(&core, &gateway);
    let first = seen(&client, &server);
    let (core_new, gateway_new) =
        (ca.issue(&Odd::not(Role::Core, "core-1")), ca.issue(&Odd::not(Role::Gateway, "gw-1")));
    core.replace(&ca.pem, &core_new);
    gateway.replace(&ca.pem, &gateway_new);
    assert_eq!(seen(&client, &server), first, "nothing changes before the reload");
    core.identity.reload().unwrap();
    gateway.identity.reload().unwrap();
    assert_eq!(seen(&client, &server), [core_new.der, gateway_new.der]);
    assert_eq!(*core.identity.generations().borrow(), 1);
}

#[test]
fn an_authority_is_replaced_without_a_gap() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let (core, gateway) = (Daemon::new(&old, Role::Core, "core-1"), Daemon::new(&old, Role::Gateway, "gw-1"));
    let (client, server) = ends(&core, &gateway);
    let both = format!("{}{}", old.pem, new.pem);
    let issue = |ca: &Ca, role, name| ca.issue(&Odd::not(role, name));
    // First everybody trusts both, then one after the other gets a new certificate, then the old CA goes.
    let steps: [(&Daemon, &str, _); 6] = [
        (&core, &both, issue(&old, Role::Core, "core-1")),
        (&gateway, &both, issue(&old, Role::Gateway, "gw-1")),
        (&core, &both, issue(&new, Role::Core, "core-1")),
        (&gateway, &both, issue(&new, Role::Gateway, "gw-1")),
        (&core, &new.pem, issue(&new, Role::Core, "core-1")),
        (&gateway, &new.pem, issue(&new, Role::Gateway, "gw-1")),
    ];
    for (daemon, ca_pem, leaf) in steps {
        daemon.replace(ca_pem, &leaf);
        daemon.identity.reload().unwrap();
        seen(&client, &server);
    }
    let straggler = Daemon::new(&old, Role::Gateway, "gw-2");
    let (client, _) = ends(&core, &straggler);
    shake_with(&client, &server).unwrap_err();
}

#[test]
fn bad_files_leave_the_old_ones_in_use() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let (core, gateway) = (Daemon::new(&ca, Role::Core, "core-1"), Daemon::new(&ca, Role::Gateway, "gw-1"));
    let (client, server) = ends(&core, &gateway);
    let first = seen(&client, &server);
    let good = Odd::not(Role::Core, "core-1");
    let breakages: [&dyn Fn(); 4] = [
        &|| fs::write(&core.files.certificate, "junk").unwrap(),
        &|| core.replace(&other.pem, &ca.issue(&good)),
        &|| core.replace(&ca.pem, &ca.issue(&Odd { years: (2000, 2001), ..good.clone() })),
        &|| fs::remove_file(&core.files.key).unwrap(),
    ];
    for (count, broken) in (1..).zip(breakages) {
        broken();
        core.identity.reload().unwrap_err();
        assert_eq!(seen(&client, &server), first);
        let reloads = &core.identity.shared.metrics.reloads;
        assert_eq!(reloads.with_label_values(&["refused"]).get(), count);
    }
    assert_eq!(*core.identity.generations().borrow(), 0);
    let leaf = ca.issue(&good);
    core.replace(&ca.pem, &leaf);
    core.identity.reload().unwrap();
    assert_eq!(seen(&client, &server)[0], leaf.der);
}

/// One connection over loopback: what the client saw as the server's certificate, after a byte each way.
async fn over_loopback(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> CertificateDer<'static> {
    let listener = crate::net::listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(server));
    let answering = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let byte = stream.read_u8().await.unwrap();
        stream.write_u8(byte + 1).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::from(address.ip());
    let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await.unwrap();
    stream.write_u8(1).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 2);
    answering.await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn the_task_takes_over_changed_files() {
    let ca = Ca::new("ca");
    let (core, gateway) = (Daemon::new(&ca, Role::Core, "core-1"), Daemon::new(&ca, Role::Gateway, "gw-1"));
    let (client, server) = ends(&core, &gateway);
    let mut generations = core.identity.generations();
    // Replaced between `load` and `watch`: nothing is missed.
    let early = ca.issue(&Odd::not(Role::Core, "core-1"));
    core.replace(&ca.pem, &early);
    let shutdown = CancellationToken::new();
    let task = core.identity.watch(Duration::from_millis(5), shutdown.clone()).unwrap();
    generations.wait_for(|_| core.identity.shared.current.load().key.cert[0] == early.der).await.unwrap();
    assert_eq!(over_loopback(&client, &server).await, early.der);

    let later = ca.issue(&Odd::not(Role::Core, "core-1"));
    core.replace(&ca.pem, &later);
    generations.wait_for(|_| core.identity.shared.current.load().key.cert[0] == later.der).await.unwrap();
    assert_eq!(over_loopback(&client, &server).await, later.der);
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn sighup_reads_the_files_at_once() {
    let ca = Ca::new("ca");
    let core = Daemon::new(&ca, Role::Core, "core-1");
    let mut generations = core.identity.generations();
    let shutdown = CancellationToken::new();
    let task = core.identity.watch(Duration::from_secs(3600), shutdown.clone()).unwrap();
    let leaf = ca.issue(&Odd::not(Role::Core, "core-1"));
    core.replace(&ca.pem, &leaf);
    let pid = std::process::id().to_string();
    let status = std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(status.success());
    generations.wait_for(|generation| *generation > 0).await.unwrap();
    assert_eq!(core.identity.shared.current.load().key.cert[0], leaf.der);
    shutdown.cancel();
    task.await.unwrap();
}

/// The HTTP server takes its configuration once; the certificate that it shows is the one of the moment.
#[tokio::test]
async fn https_shows_the_new_certificate_too() {
    let ca = Ca::new("ca");
    let feed = Daemon::new(&ca, Role::Feed, "feed-1");
    let listener = crate::net::listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
    let tls = Some(Arc::new(feed.identity.server_config_no_client(&[b"http/1.1"])));
    let shutdown = CancellationToken::new();
    let options = crate::http::Options { connections_max: 4, tls };
    let serving = tokio::spawn(crate::http::serve(listener, router, options, shutdown.clone()));
    let connector = TlsConnector::from(Arc::new(stranger_client(&ca, None)));
    let mut shown = Vec::new();
    for _ in 0..2 {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        shown.push(stream.get_ref().1.peer_certificates().unwrap()[0].clone());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
        feed.replace(&ca.pem, &ca.issue(&Odd::not(Role::Feed, "feed-1")));
        feed.identity.reload().unwrap();
    }
    assert_ne!(shown[0], shown[1]);
    shutdown.cancel();
    serving.await.unwrap();
}
