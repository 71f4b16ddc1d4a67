//! `edge-gateway`: the appliance's daemon. `edge-gateway --help` says how to run it.

use std::path::PathBuf;
use std::process::ExitCode;

use caregate_host::{config, exit, log};
use clap::Parser;
use edge_gateway::config::ConfigFile;
use edge_gateway::daemon;

/// Takes readings from body sensors over MQTT, seals each for the people whom the patient's consent names, spools it so that
/// nothing acknowledged is lost, and forwards it to a core that can't read it.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// Configuration file (TOML); see deploy/examples/edge-gateway.toml
    #[arg(long, default_value = "/etc/caregate/edge-gateway.toml")]
    config: PathBuf,
    /// Check the configuration, the keys, the policy and the spool, then exit
    #[arg(long)]
    check: bool,
}

// Two threads serve a home's sensors and the uplink; a thread per core of a large machine would only cost memory.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    exit::code(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file: ConfigFile = config::load(&arguments.config)?;
    log::init(file.log)?;
    let parts = daemon::open(&file)?;
    if arguments.check {
        return parts.check();
    }
    daemon::run(&file, parts).await
}
