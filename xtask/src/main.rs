//! The project's commands: `cargo xtask COMMAND`. Each command is a module; this file only sends each to its own.

mod ebpf;
mod pki;
mod policy;

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
    /// Build the eBPF object, or check the committed one.
    Ebpf(ebpf::Arguments),
    /// Make a deployment's certificates, keys and passwords.
    Pki(pki::command::Args),
    /// Make patients' keys, sign grants and revocations, look at a policy file.
    Policy(policy::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Ebpf(arguments) => ebpf::run(&arguments),
        Command::Pki(args) => pki::command::run(args),
        Command::Policy(args) => policy::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
