//! A gateway's end of the uplink, as small as the core's promises need it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use caregate_host::identity::{Identity, IdentityFiles, Role};
use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{ALPN, Frame, Framer, Refusal, VERSION};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};

/// A core that starts is there within one; each takes some seconds.
const ATTEMPTS_MAX: u32 = 5;
/// Bytes of a stream that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// One connection, on which a lane is open.
pub(crate) struct Uplink {
    control: SendStream,
    lane: SendStream,
    answers: RecvStream,
    framer: Framer,
    _open: (Connection, Endpoint),
}

/// The identity that a site made for its gateway.
pub(crate) fn identity(folder: &Path) -> anyhow::Result<Arc<Identity>> {
    let file = |kind: &str| folder.join(format!("gateway-gateway-1-{kind}.pem"));
    Ok(Identity::load(&IdentityFiles { certificate: file("cert"), key: file("key"), ca: file("ca") })?)
}

impl Uplink {
    /// Connects, as often as it takes for the core to be there.
    pub(crate) async fn open(core: SocketAddr, identity: &Identity) -> anyhow::Result<Self> {
        let tls = identity.client_config(Role::Core, None, &[ALPN]);
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
        let mut connected = endpoint.connect(core, "core")?.await;
        for _ in 1..ATTEMPTS_MAX {
            if connected.is_err() {
                connected = endpoint.connect(core, "core")?.await;
            }
        }
        let connection = connected.context("the core")?;
        let (mut control, answers) = connection.open_bi().await?;
        control.write_all(&Frame::Hello { version: VERSION }.encode()).await?;
        let mut lane = connection.open_uni().await?;
        let framer = Framer::new();
        let open = Frame::Lane { lane: Lane::Vitals, backlog: false };
        lane.write_all(&open.encode()).await?;
        let mut uplink = Self { control, lane, answers, framer, _open: (connection, endpoint) };
        let welcome = uplink.answer().await?;
        ensure!(welcome == Frame::Welcome { version: VERSION }, "no welcome but {welcome:?}");
        Ok(uplink)
    }

    async fn answer(&mut self) -> anyhow::Result<Frame> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(frame);
            }
            let chunk = self.answers.read_chunk(CHUNK_BYTES, true).await?;
            self.framer.push(&chunk.context("the core has closed its answers")?.bytes);
        }
    }

    /// Sends records by their positions and waits until each is acknowledged, or refused as erased. Returns those that were refused.
    pub(crate) async fn put(&mut self, records: &[(u64, &[u8])]) -> anyhow::Result<BTreeSet<u64>> {
        for (position, record) in records {
            let frame = Frame::Data { position: *position, record: record.to_vec() };
            self.lane.write_all(&frame.encode()).await?;
        }
        let mut open: BTreeSet<u64> = records.iter().map(|(position, _)| *position).collect();
        let mut refused = BTreeSet::new();
        while !open.is_empty() {
            let answer = self.answer().await?;
            if let Frame::Ack { ranges } = answer {
                for position in ranges.into_iter().flat_map(|(first, last)| first..=last) {
                    ensure!(open.remove(&position), "{position} was acknowledged, which nobody expected");
                }
            } else if let Frame::Refuse { position, refusal: Refusal::Erased } = answer {
                open.remove(&position);
                refused.insert(position);
            } else {
                bail!("no acknowledgement of {open:?} but {answer:?}");
            }
        }
        Ok(refused)
    }

    /// Has a pseudonym erased; returns the core's receipt.
    pub(crate) async fn erase(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.control.write_all(&Frame::Erase { request: request.to_vec() }.encode()).await?;
        let answer = self.answer().await?;
        let Frame::Erased { receipt } = answer else { bail!("no receipt but {answer:?}") };
        Ok(receipt)
    }
}
