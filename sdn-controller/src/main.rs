//! `sdn-controller`: flows and policy for a fleet. `sdn-controller --help` says how to run it.

use std::path::PathBuf;
use std::process::ExitCode;

use caregate_host::exit;
use clap::Parser;
use sdn_controller::daemon;

/// Brings gateways' and switches' flows (OpenFlow 1.3, mutual TLS) to what operators want and keeps them there, and carries
/// policy from the ledger to gateways.
///
/// Operators speak to it by HTTPS with certificates of role operator; the interface describes itself at /openapi.json.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file (TOML); see deploy/examples/sdn-controller.toml
    #[arg(long, default_value = "/etc/caregate/sdn-controller.toml")]
    config: PathBuf,
    /// Check the configuration, the identity and the store, then exit
    #[arg(long, visible_alias = "check-config")]
    check: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit::code(match arguments.check {
        true => daemon::check(&arguments.config),
        false => daemon::run(&arguments.config).await,
    })
}
