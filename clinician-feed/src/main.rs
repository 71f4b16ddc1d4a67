//! `clinician-feed`: opens sealed readings and shows them. `clinician-feed --help` says how to run it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use caregate_host::exit;
use caregate_protocol::id::{DataClass, PatientId};
use clap::{Parser, Subcommand};
use clinician_feed::daemon::{self, EmergencyArguments, Part};
use clinician_feed::password;

/// Opens what patients share with this hospital, and serves it: a live page, its WebSocket stream, and FHIR R4.
///
/// Without a command it runs until SIGTERM. Logs go to standard error; CAREGATE_LOG filters them.
#[derive(Debug, Parser)]
#[command(version, about, long_about)]
struct Arguments {
    /// Configuration file (TOML); see deploy/examples/clinician-feed.toml
    #[arg(long, global = true, default_value = "/etc/caregate/clinician-feed.toml")]
    config: PathBuf,
    /// Check the configuration, the identity and the keys, then exit
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a password from standard input and print its Argon2id hash for the configuration
    HashPassword,
    /// Print the history that the core holds for this hospital, one JSON object per reading: all, or of one patient's class and time
    ///
    /// The objects are those of the stream (docs/feed-api.md). The status is 1 if a record could not be opened or a chain is
    /// broken. May run beside the daemon.
    Export {
        /// Of this patient alone: 32 hexadecimal digits
        #[arg(long, requires_all = ["class", "from", "until"])]
        patient: Option<PatientId>,
        /// Of this class: alarm, vitals, waveform, activity or sensitive
        #[arg(long, requires = "patient", value_parser = class)]
        class: Option<DataClass>,
        /// From the minute of this Unix time, in seconds, by the gateway's clock
        #[arg(long, requires = "patient")]
        from: Option<u32>,
        /// Until before this Unix time, in seconds; the minute in which it is counts whole
        #[arg(long, requires = "patient")]
        until: Option<u32>,
    },
    /// Break the glass: open a patient's live readings for this hospital without consent, for a time
    ///
    /// The patient sees it, with this hospital's name, at once and for ever. Reason and clinician are kept in the journal, and go to the
    /// ledger as salted commitments. Times are at most 240 minutes. May run beside the daemon.
    Emergency {
        /// File with the pseudonym of the patient's card, 64 hexadecimal digits
        #[arg(long)]
        pseudonym_file: PathBuf,
        /// File with the reason, at least 10 characters
        #[arg(long)]
        reason_file: PathBuf,
        /// For how long
        #[arg(long)]
        minutes: u32,
        /// Which user of the configuration it is; may be left out where there is one alone
        #[arg(long)]
        clinician: Option<String>,
        /// Print number, from, until (Unix seconds) and block as JSON
        #[arg(long)]
        json: bool,
    },
}

fn class(text: &str) -> Result<DataClass, String> {
    let class = DataClass::from_name(text);
    class.ok_or_else(|| "is no class".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::code(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        None => daemon::run(&arguments.config, arguments.check).await,
        Some(Command::HashPassword) => {
            let password = password::read(std::io::stdin().lock())?;
            writeln!(std::io::stdout(), "{}", password::hash(&password)?)?;
            Ok(())
        }
        Some(Command::Export { patient, class, from, until }) => {
            let part = patient.zip(class).zip(from.zip(until));
            let part =
                part.map(|((patient, class), (from_s, until_s))| Part { patient, class, from_s, until_s });
            daemon::export(&arguments.config, part).await
        }
        Some(Command::Emergency { pseudonym_file, reason_file, minutes, clinician, json }) => {
            let emergency = EmergencyArguments { pseudonym_file, reason_file, minutes, clinician, json };
            daemon::emergency(&arguments.config, &emergency).await
        }
    }
}
