//! `caregatectl`: what operators and patients do from a shell. `caregatectl --help` says how.

mod args;
mod audit;
mod emergency;
mod http;
mod ledger;
mod outcome;
mod participant;
mod secret;
mod wallet;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use outcome::{Outcome, report};

/// Switches, rules, gateways and the ledger for operators; keys, grants and revocations for patients.
///
/// Exit status: 0 done, 1 failed, 2 wrong arguments, 3 refused by the other side (ledger, gateway, controller).
/// With --json the last line on standard output is one JSON object, also where the command fails: then it has `error`, and
/// `refused` with the other side's word for it where that side refused.
#[derive(Debug, Parser)]
#[command(version, about, long_about)]
struct Arguments {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Wallet(wallet::Arguments),
    Participant(participant::Arguments),
    Emergency(emergency::Arguments),
    Audit(audit::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    report(json, run(command, json).await)
}

async fn run(command: Command, json: bool) -> Outcome {
    match command {
        Command::Wallet(arguments) => wallet::run(arguments).await,
        Command::Participant(arguments) => participant::run(arguments).await,
        Command::Emergency(arguments) => emergency::run(arguments).await,
        Command::Audit(arguments) => audit::run(arguments, json).await,
    }
}
