//! A controller that has turned: it stands in the real one's place, with its certificate, and hands every gateway that comes
//! forged policy.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use caregate_host::identity::{Identity, IdentityFiles, Role};
use caregate_host::log;
use caregate_protocol::policy::delivery::{ALPN, Frame, Verdict, frame_length};
use caregate_protocol::policy::{BUNDLE_BYTES_MAX, PolicyBundle};
use caregate_protocol::wrap::generate_keypair;
use clap::Parser;
use ledger_client::fixture::{Forgery, Signer, Stranger, forgeries};
use ledger_client::verify::{Address, Domain};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, RecvStream, SendStream, ServerConfig};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;

/// Longest wait for a gateway, and for each of its frames.
const WAIT: Duration = Duration::from_secs(30);

/// Takes the place of a controller, forges the bundle it is given in every way it knows, and says what the gateway thinks of each.
///
/// Prints one JSON object as its last line: {"tried", "refused", "forgeries": [{"kind", "expected", "refused"}]}. Status 0: every
/// forgery was refused for its own reason. Status 1: one was taken, or refused for another.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// UDP address of the controller whose place it takes.
    #[arg(long)]
    listen: SocketAddr,
    /// The controller's certificate.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The deployment's CA.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// A bundle that the gateway has taken before, as `GET /v1/gateways/{name}/bundle` gives it.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// An older one, for what went back.
    #[arg(long, value_name = "FILE")]
    older: PathBuf,
    /// The ledger's chain id.
    #[arg(long)]
    chain_id: u64,
    /// Address of its contract.
    #[arg(long)]
    contract: Address,
}

#[derive(Debug, Serialize)]
struct Outcome {
    kind: String,
    expected: String,
    refused: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    log::init(log::LogFormat::Text)?;
    let outcomes = tokio::runtime::Runtime::new()?.block_on(attack(&arguments))?;
    let refused = outcomes.iter().filter(|o| o.refused.as_ref() == Some(&o.expected)).count();
    let report = serde_json::json!({ "tried": outcomes.len(), "refused": refused, "forgeries": outcomes });
    writeln!(std::io::stdout(), "{report}")?;
    if refused < outcomes.len() {
        bail!("{} forgeries were not refused for their own reason", outcomes.len() - refused);
    }
    Ok(())
}

async fn attack(arguments: &Arguments) -> anyhow::Result<Vec<Outcome>> {
    let good = std::fs::read(&arguments.bundle).with_context(|| arguments.bundle.display().to_string())?;
    let older = std::fs::read(&arguments.older).with_context(|| arguments.older.display().to_string())?;
    PolicyBundle::decode(&good).context("the bundle")?;
    let files = IdentityFiles {
        certificate: arguments.certificate.clone(),
        key: arguments.key.clone(),
        ca: arguments.ca.clone(),
    };
    let tls = Identity::load(&files)?.server_config(&[Role::Gateway], &[ALPN]);
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let endpoint = Endpoint::server(config, arguments.listen)?;
    tracing::info!(address = %endpoint.local_addr()?, "in the controller's place");
    let (mut send, mut receive) = within("a gateway", greet(&endpoint)).await??;
    let mut outcomes = Vec::new();
    let domain = Domain { chain_id: arguments.chain_id, verifying_contract: arguments.contract };
    for Forgery { name: kind, bytes, expected } in forgeries(&good, Some(&older), &domain, &stranger()?)? {
        let is_framed = bytes.len() <= BUNDLE_BYTES_MAX;
        let sent = send.write_all(&Frame::Bundle(bytes).encode()).await;
        let refused = if is_framed {
            sent?;
            within("a verdict", verdict(&mut receive)).await??.refused
        } else {
            // No frame that the gateway would read: it ends the connection, and comes again.
            let ended = within("the connection's end", verdict(&mut receive)).await?;
            (send, receive) = within("a gateway", greet(&endpoint)).await??;
            ended.map_or_else(|_closed| Some(expected.to_owned()), |verdict| verdict.refused)
        };
        tracing::info!(kind, refused = refused.as_deref().unwrap_or("nothing"), "forged");
        outcomes.push(Outcome { kind: kind.to_owned(), expected: expected.to_owned(), refused });
    }
    endpoint.close(0_u32.into(), b"done");
    endpoint.wait_idle().await;
    Ok(outcomes)
}

/// Keys that nobody has ever heard of.
fn stranger() -> anyhow::Result<Stranger> {
    let (mut secret, (_, hpke_public_key)) = ([0; 32], generate_keypair());
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_unspecified| anyhow::anyhow!("the system gives no random bytes"))?;
    let key = Signer::from_bytes(&secret).context("not a key")?;
    Ok(Stranger { key, hpke_public_key: hpke_public_key.0 })
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(WAIT, future)
        .await
        .with_context(|| format!("waited {} s for {what}", WAIT.as_secs()))
}

/// The first gateway that comes and says what it watches.
async fn greet(endpoint: &Endpoint) -> anyhow::Result<(SendStream, RecvStream)> {
    loop {
        let incoming = endpoint.accept().await.context("the endpoint closed")?;
        let Ok(connection) = incoming.await else { continue };
        let (send, mut receive) = connection.accept_bi().await?;
        if let Frame::Watch(watch) = frame(&mut receive).await? {
            tracing::info!(relationships = watch.relationships.len(), "a gateway trusts this controller");
            return Ok((send, receive));
        }
        bail!("the gateway did not begin with what it watches");
    }
}

/// The next verdict; what else a gateway says is passed over.
async fn verdict(receive: &mut RecvStream) -> anyhow::Result<Verdict> {
    loop {
        if let Frame::Verdict(verdict) = frame(receive).await? {
            return Ok(verdict);
        }
    }
}

async fn frame(receive: &mut RecvStream) -> anyhow::Result<Frame> {
    let mut head = [0; 4];
    receive.read_exact(&mut head).await?;
    let mut body = vec![0; frame_length(head)?];
    receive.read_exact(&mut body).await?;
    Ok(Frame::decode(&body)?)
}
