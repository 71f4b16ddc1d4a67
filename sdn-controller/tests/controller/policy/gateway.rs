//! A gateway's end of the policy connection: it verifies what it gets and says what it thinks of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_host::identity::{Identity, Role};
use caregate_protocol::policy::Floors;
use caregate_protocol::policy::delivery::{ALPN, Frame, Verdict, frame_length};
use ledger_client::verify::{BundleRefusal, Pins, VerifiedBundle, verify_bundle};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};

/// Longest wait for a frame.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Gateway {
    _endpoint: Endpoint,
    connection: Connection,
    out: SendStream,
    incoming: RecvStream,
    pins: Pins,
    floors: Floors,
    last: Vec<u8>,
}

impl Gateway {
    pub(super) async fn connect(identity: &Identity, port: u16, pins: Pins) -> Option<Self> {
        let watch = Frame::Watch(pins.watch()).encode();
        Self::connect_saying(identity, port, pins, &watch).await
    }

    /// With these bytes instead of what is watched; none where the controller refuses the certificate at once. A client may be
    /// through with its handshake before the server has looked at the certificate: then the connection is closed.
    pub(super) async fn connect_saying(
        identity: &Identity,
        port: u16,
        pins: Pins,
        first: &[u8],
    ) -> Option<Self> {
        let tls = identity.client_config(Role::Controller, None, &[ALPN]);
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connection = endpoint.connect_with(config, address, "controller").unwrap().await.ok()?;
        let (mut out, incoming) = connection.open_bi().await.ok()?;
        out.write_all(first).await.ok()?;
        let (floors, last) = (Floors::default(), Vec::new());
        Some(Self { _endpoint: endpoint, connection, out, incoming, pins, floors, last })
    }

    /// The next frame; none at the end.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 4];
            self.incoming.read_exact(&mut head).await.ok()?;
            let mut body = vec![0; frame_length(head).unwrap()];
            self.incoming.read_exact(&mut body).await.ok()?;
            Some(Frame::decode(&body).unwrap())
        };
        tokio::time::timeout(PATIENCE, read).await.expect("a frame, or the end")
    }

    pub(super) async fn send(&mut self, frame: &Frame) {
        self.out.write_all(&frame.encode()).await.unwrap();
    }

    /// The next bundle, verified as a gateway does; the verdict is sent.
    pub(super) async fn verified_bundle(&mut self) -> Result<VerifiedBundle, BundleRefusal> {
        let Some(Frame::Bundle(bytes)) = self.next().await else { panic!("a bundle is due") };
        let now_s = u64::try_from(clock::now_ms() / 1000).unwrap();
        let verified = verify_bundle(&bytes, &self.pins, &self.floors, now_s);
        let verdict = match &verified {
            Ok(bundle) => {
                self.floors = bundle.admit(&self.floors).unwrap().1;
                Verdict { number: bundle.header.number, epoch: bundle.claims.epoch, refused: None }
            }
            Err(refusal) => {
                let refused = Some(refusal.reason().to_owned());
                Verdict { number: 0, epoch: self.floors.epoch, refused }
            }
        };
        self.send(&Frame::Verdict(verdict)).await;
        self.last = bytes;
        verified
    }

    pub(super) fn last_bytes(&self) -> &[u8] {
        &self.last
    }

    /// Waits until the controller has closed.
    pub(super) async fn closed(self) {
        tokio::time::timeout(PATIENCE, self.connection.closed()).await.expect("it is closed");
    }
}
