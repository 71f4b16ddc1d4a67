//! `ledger-node`: the embedded ledger. `ledger-node --help` says how to run it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use caregate_host::key_file::{self, Existing};
use caregate_host::{admin, clock, config, dir, exit, http as server, log, net, shutdown};
use clap::Parser;
use ledger_node::chain::{Chain, DEPLOYMENT, NOTICE};
use ledger_node::config::ConfigFile;
use ledger_node::http;
use ledger_node::metrics::Metrics;
use ledger_node::producer::{self, Producer};
use ledger_node::rpc::Rpc;
use ledger_node::seal::Sealer;
use tracing::{info, warn};

/// Runs the Caregate contract on a chain of its own and serves Ethereum's JSON-RPC. ONE PARTY SEALS THIS CHAIN: whoever holds its
/// sealing key can rewrite it. Across institutions use Hyperledger Besu with QBFT; clients change nothing but the address.
///
/// The first start makes the chain, the contract in its first block, and the sealing key where there is none.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file (TOML); see deploy/examples/ledger-node.toml
    #[arg(long, default_value = "/etc/caregate/ledger-node.toml")]
    config: PathBuf,
    /// Check the configuration, the key and the chain, then exit; makes nothing
    #[arg(long)]
    check: bool,
    /// Print contract, chain id, validators and council as JSON, then exit; makes the chain where there is none
    #[arg(long, conflicts_with = "check")]
    print_deployment: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(run(Arguments::parse()).await)
}

const STORE: &str = "ledger.redb";

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file: ConfigFile = config::load(&arguments.config)?;
    log::init(file.log)?;
    let deployment_path = file.data.join(DEPLOYMENT);
    if arguments.print_deployment && deployment_path.exists() {
        return print(&deployment_path);
    }
    if arguments.check {
        return check(&file);
    }
    dir::create_private(&file.data)?;
    let chain = Arc::new(open(&file)?);
    let deployment = chain.deployment();
    let text = serde_json::to_vec_pretty(deployment)?;
    key_file::write_public(&deployment_path, &text, Existing::Replace)?;
    if arguments.print_deployment {
        return print(&deployment_path);
    }
    warn!("{NOTICE}");
    info!(
        chain_id = deployment.chain_id, contract = %deployment.contract, council = %deployment.council,
        sealer = ?deployment.validators, head = chain.head().header.number, "chain open"
    );
    serve(&file, chain).await
}

async fn serve(file: &ConfigFile, chain: Arc<Chain>) -> anyhow::Result<()> {
    let stop = shutdown::token()?;
    let registry = admin::registry()?;
    let metrics = Metrics::register(&registry)?;
    let health = admin::Health::new();
    let (sealing, listening) = (health.condition("sealing"), health.condition("listener"));
    let listener = net::listen(&file.listen)?;
    let admin_listener = net::listen(&file.admin)?;
    info!(json_rpc = %listener.local_addr()?, admin = %admin_listener.local_addr()?, "listening; {NOTICE}");
    let (queue, incoming) = producer::queue();
    let producer = Producer {
        chain: Arc::clone(&chain),
        incoming,
        metrics: metrics.clone(),
        sealing: sealing.clone(),
        stop: stop.clone(),
    };
    let guard = stop.clone().drop_guard();
    let thread = std::thread::Builder::new().name("producer".into()).spawn(move || {
        // Also where it panics: a node that seals no more helps nobody.
        let _guard = guard;
        let ended = producer.run();
        sealing.set(false);
        ended
    })?;
    tokio::spawn(admin::serve(admin_listener, registry, health, axum::Router::new(), stop.clone()));
    let options = server::Options { connections_max: http::CONNECTIONS_MAX, tls: None };
    listening.set(true);
    server::serve(listener, http::router(Rpc::new(chain, queue, metrics)), options, stop).await;
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_panic| anyhow::anyhow!("the producer panicked"))?
        .context("nothing more can be sealed")?;
    info!("stopped");
    Ok(())
}

fn now_s() -> u64 {
    u64::try_from(clock::now_ms() / 1000).unwrap_or_default()
}

/// Opens the chain, or makes it.
fn open(file: &ConfigFile) -> anyhow::Result<Chain> {
    let fresh = !file.data.join(STORE).exists();
    let sealer = match fresh && !file.sealing_key.exists() {
        true => {
            let sealer = Sealer::create(&file.sealing_key)?;
            info!(file = %file.sealing_key.display(), validator = %sealer.address(), "sealing key made");
            sealer
        }
        false => Sealer::read(&file.sealing_key)?,
    };
    Chain::open(&file.data, sealer, file.wanted(), now_s())
        .with_context(|| file.data.join(STORE).display().to_string())
}

fn check(file: &ConfigFile) -> anyhow::Result<()> {
    if file.sealing_key.exists() {
        Sealer::read(&file.sealing_key)?;
    }
    if file.data.join(STORE).exists() {
        open(file)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what was asked for")]
fn print(path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    println!("{}", text.trim_end());
    Ok(())
}
