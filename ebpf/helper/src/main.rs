//! `caregate-datapathd`: the datapath's helper. `caregate-datapathd --help` says how to run it.

use std::path::PathBuf;
use std::process::ExitCode;

use caregate_datapathd::config::ConfigFile;
use caregate_datapathd::daemon;
use caregate_host::{config, exit, log, memory};
use clap::Parser;

/// Holds the eBPF programs and maps for a gateway, which itself has no privilege. It needs CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and
/// CAP_NET_RAW. What it attaches goes on filtering when it ends.
#[derive(Debug, Parser)]
#[command(version = caregate_datapathd::VERSION, about, long_about = None)]
struct Arguments {
    /// Configuration file (TOML); see deploy/examples/datapathd.toml
    #[arg(long, default_value = "/etc/caregate/datapathd.toml")]
    config: PathBuf,
    /// Check the configuration, the interfaces and that the kernel takes the programs, then exit
    #[arg(long)]
    check: bool,
    /// Take the programs off all interfaces and remove what is pinned, then exit: frames then reach the gateway unfiltered
    #[arg(long, conflicts_with = "check")]
    detach: bool,
}

/// What full tables take: 4,096 flows, and what is built of them.
const TABLES_BYTES: usize = 6 * 1024 * 1024;

// One thread: capabilities are a thread's, and what is done here is little.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit::code(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file: ConfigFile = config::load(&arguments.config)?;
    log::init(file.log)?;
    if arguments.check {
        return daemon::check(&file);
    }
    if arguments.detach {
        return Ok(daemon::detach(&file)?);
    }
    memory::one_heap();
    memory::reserve(TABLES_BYTES);
    daemon::run(&file).await
}
