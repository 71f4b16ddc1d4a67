//! The shell without its sockets.

use prometheus::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::ingest;
use crate::mqtt::access::Access;
use crate::mqtt::credentials::{Credential, Credentials};
use crate::mqtt::handshakes::Handshakes;
use crate::mqtt::limits::Limits;
use crate::mqtt::metrics::ServerMetrics;

/// As by a panic: nothing of it runs any more but what is dropped.
#[tokio::test]
async fn a_connection_whose_task_is_gone_leaves_nobody_connected() {
    let device = DeviceId::new("a").unwrap();
    let credential = Credential::new(device, "u", b"salt-of-the-test", "secret");
    let server = Server::new(
        Limits::default(),
        Credentials::new([credential]).unwrap(),
        Access::new([]).unwrap(),
        ingest::queue_of(1, 1).0,
        ServerMetrics::register(&Registry::new()).unwrap(),
    );
    let handshakes = Handshakes::new();
    let (place, _) = handshakes.enter().unwrap();
    let (mut client, stream) = tokio::io::duplex(1024);
    let peer = Peer { certified: None, opened: server.now(), place };
    let task = tokio::spawn(run(Arc::clone(&server), stream, peer, CancellationToken::new()));
    let connect = b"\x10\x18\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01x\x00\x01u\x00\x06secret";
    client.write_all(connect).await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    assert_eq!(server.with_hub(|hub| hub.connections()), 1);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(server.with_hub(|hub| hub.connections()), 0);
}
