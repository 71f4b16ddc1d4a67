//! `caregatectl`: what operators and patients do from a shell. `caregatectl --help` says how.

mod args;
mod audit;
mod consent;
mod controller;
mod custodian;
mod device;
mod devices;
mod door;
mod emergency;
mod governance;
mod http;
mod ledger;
mod offer;
mod outcome;
mod participant;
mod secret;
mod table;
mod wallet;

use std::process::ExitCode;

use caregatectl::{fhir, files};
use clap::{Parser, Subcommand};

use controller::{
    ControllerArgs, EventsArgs, FlowModArgs, GatewaysArgs, IntentsArgs, QuarantineArgs, ReleaseArgs,
    RevocationArgs, SwitchArgs,
};
use outcome::{Outcome, report};

/// Switches, rules, gateways and the ledger for operators; keys, grants and revocations for patients.
///
/// Exit status: 0 done, 1 failed, 2 wrong arguments, 3 refused by the other side (ledger, gateway, controller),
/// 4 checked and found wrong (`error`, with `fault` or `path`).
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
    Consent(consent::Arguments),
    Participant(participant::Arguments),
    Governance(governance::Arguments),
    Custodian(custodian::Arguments),
    Emergency(emergency::Arguments),
    Audit(audit::Arguments),
    Offer(offer::Arguments),
    /// List the switches that are connected to the controller
    Switches {
        #[command(flatten)]
        controller: ControllerArgs,
    },
    /// List a switch's flows with their counters
    Flows(SwitchArgs),
    /// List a switch's ports with their counters
    Ports(SwitchArgs),
    /// List a switch's tables with their counters
    Tables(SwitchArgs),
    FlowMod(FlowModArgs),
    Quarantine(QuarantineArgs),
    Release(ReleaseArgs),
    Intents(IntentsArgs),
    /// List the gateways' policy connections: last verdict, epoch, age of the policy in force
    Gateways(GatewaysArgs),
    Events(EventsArgs),
    Revocation(RevocationArgs),
    Device(device::Arguments),
    Devices(devices::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    report(json, run(command, json).await)
}

async fn run(command: Command, json: bool) -> Outcome {
    match command {
        Command::Wallet(arguments) => wallet::run(arguments).await,
        Command::Consent(arguments) => consent::run(arguments).await,
        Command::Participant(arguments) => participant::run(arguments).await,
        Command::Governance(arguments) => governance::run(arguments).await,
        Command::Custodian(arguments) => custodian::run(arguments).await,
        Command::Emergency(arguments) => emergency::run(arguments).await,
        Command::Audit(arguments) => audit::run(arguments, json).await,
        Command::Offer(arguments) => offer::run(arguments).await,
        Command::Switches { controller } => controller::switches(&controller).await,
        Command::Flows(arguments) => controller::flows(arguments).await,
        Command::Ports(arguments) => controller::ports(arguments).await,
        Command::Tables(arguments) => controller::tables(arguments).await,
        Command::FlowMod(arguments) => controller::flow_mod(arguments).await,
        Command::Quarantine(arguments) => controller::quarantine(arguments).await,
        Command::Release(arguments) => controller::release(arguments).await,
        Command::Intents(arguments) => controller::intents(arguments).await,
        Command::Gateways(arguments) => controller::gateways(arguments).await,
        Command::Events(arguments) => controller::events(arguments, json).await,
        Command::Revocation(arguments) => controller::revocation(arguments).await,
        Command::Device(arguments) => device::run(arguments).await,
        Command::Devices(arguments) => devices::run(arguments).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Each command says what it does, each argument what it is.
    fn explained(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path}");
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
            assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
        }
        command
            .get_subcommands()
            .filter(|below| below.get_name() != "help")
            .for_each(|below| explained(below, &path));
    }

    #[test]
    fn help_is_complete() {
        let command = Arguments::command();
        command.clone().debug_assert();
        explained(&command, "");
    }
}
