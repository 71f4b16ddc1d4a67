//! `edge-gateway`: the appliance's daemon. `edge-gateway --help` says how to run it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use caregate_host::{config, exit, log, memory};
use clap::{Args, Parser, Subcommand};
use edge_gateway::config::{ConfigFile, SwitchFile};
use edge_gateway::sockets::Sockets;
use edge_gateway::{daemon, root, switch};

/// Takes readings from body sensors over MQTT, seals each for the people whom the patient's consent names, spools it so that
/// nothing acknowledged is lost, and forwards it to a core that can't read it.
#[derive(Debug, Parser)]
#[command(version = edge_gateway::VERSION, about, long_about = None, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file (TOML); see deploy/examples/edge-gateway.toml
    #[arg(long, default_value = "/etc/caregate/edge-gateway.toml")]
    config: PathBuf,
    /// Check the configuration, the keys, the policy and the spool, then exit
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Switch(SwitchArguments),
    Root(root::Arguments),
}

/// Be an OpenFlow switch and nothing else: no sensors, no patients, no spool
#[derive(Debug, Args)]
struct SwitchArguments {
    /// Configuration file (TOML); see deploy/examples/switch.toml
    #[arg(long, default_value = "/etc/caregate/switch.toml")]
    config: PathBuf,
    /// Check the configuration, the certificate and the kept flows, then exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    memory::one_heap();
    exit::code(start(Arguments::parse()))
}

// Two threads serve a home's sensors and the uplink; a thread per core of a large machine would only cost memory.
#[tokio::main(worker_threads = 2)]
async fn start(arguments: Arguments) -> anyhow::Result<()> {
    run(arguments).await
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(Command::Switch(arguments)) => return run_switch(arguments).await,
        Some(Command::Root(arguments)) => {
            let said = root::run(&arguments)?;
            return writeln!(std::io::stdout(), "{said}").context("standard output");
        }
        None => {}
    }
    let file: ConfigFile = config::load(&arguments.config)?;
    log::init(file.log)?;
    if arguments.check {
        return daemon::open(&file)?.check();
    }
    let sockets = Sockets::open(file.mqtt.as_ref())?;
    let parts = daemon::open(&file)?;
    daemon::run(&file, parts, sockets).await
}

async fn run_switch(arguments: SwitchArguments) -> anyhow::Result<()> {
    let file: SwitchFile = config::load(&arguments.config)?;
    log::init(file.log)?;
    let parts = switch::open(&file)?;
    if arguments.check {
        return parts.check();
    }
    switch::run(&file, parts).await
}
