//! The project's commands: `cargo xtask COMMAND`. Each command is a module; this file only sends each to its own.

mod bench;
mod build;
mod chaos;
mod conform;
mod contracts;
mod demo;
mod ebpf;
mod gate;
mod interop;
mod kernels;
mod linked;
mod pki;
mod recordings;
mod setup;
mod solidity;
mod stop;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands of the Caregate project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::BenchArgs),
    Chaos(chaos::ChaosArgs),
    Conform(conform::ConformArgs),
    Contracts(contracts::Arguments),
    Demo(demo::DemoArgs),
    /// Build the eBPF object, or check the committed one.
    Ebpf(ebpf::Arguments),
    Interop(interop::InteropArgs),
    Kernels(kernels::KernelsArgs),
    /// Make a deployment's certificates, keys and passwords.
    Pki(pki::command::Args),
    Test(gate::TestArgs),
    /// Build the clinician's page, which clinician-feed embeds.
    Web,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Conform(args) => conform::run(&args),
        Command::Contracts(arguments) => contracts::run(&arguments),
        Command::Demo(args) => demo::run(&args),
        Command::Ebpf(arguments) => ebpf::run(&arguments),
        Command::Interop(args) => interop::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Pki(args) => pki::command::run(args),
        Command::Test(args) => gate::run(&args),
        Command::Web => build::page(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // All that this machine can show was shown.
            if error.is::<demo::NotShown>() { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

/// Tells a person what goes on: on standard error, since standard output is for results.
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
