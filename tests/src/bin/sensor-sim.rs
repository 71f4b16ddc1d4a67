//! Simulated body sensors over MQTT.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use caregate_host::{log, shutdown};
use caregate_tests::sensor::device::Start;
use caregate_tests::sensor::journal::Journal;
use caregate_tests::sensor::{Config, Outcome, Source, run};
use clap::Parser;
use tokio::task::JoinSet;

/// Publishes the readings of simulated body sensors over MQTT 3.1.1, QoS 1, one connection per device.
///
/// Runs until SIGTERM or SIGINT, the configured seconds, or the end of every record; then waits for outstanding PUBACKs.
/// Status 0: every reading was acknowledged. Status 1: some never were, or a device was refused.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// Devices and broker, TOML (below).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Written: one JSON line per reading published and one per PUBACK.
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
}

const AFTER_HELP: &str = r#"Configuration:
  broker = "127.0.0.1:1883"
  seed = 1             # of the generators' patient (default 1)
  speed = 1.0          # above 1 is faster than real time; the readings' own times then run ahead of the clock
  seconds = 30.0       # stop after, by the clock (default: no end)
  drain_s = 120.0      # longest wait for PUBACKs at the end (default 120)

  [[device]]
  id = "monitor-1"     # MQTT client id and the device in topics
  username = "monitor-1"
  password = "..."
  source = "ecg"       # lead II, 250 Hz, generated; or "numerics"; or a WFDB record:
  # source = { record = "PATH", signals = ["MLII"], from_s = 0.0, repeat = false }
  #                      signals default to all that are known; with repeat it begins anew where it ends
  chunk_ms = 200       # waveform chunk, 100 to 250 (default 200)
  payload = "json"     # numerics: "json", "senml-json" or "senml-cbor" (default "json")
  seed = 2             # another patient for this device
  interface = "eth1"   # connect through this network interface (default: as the routes say)

Environment:
  CAREGATE_LOG         log filter, as in info or caregate_tests=debug"#;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    log::init(log::LogFormat::Text)?;
    tokio::runtime::Runtime::new()?.block_on(simulate(&arguments))
}

async fn simulate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let sources: Vec<Source> = config
        .devices
        .iter()
        .map(|device| Source::open(device, config.seed_of(device)))
        .collect::<Result<_, _>>()?;
    let (journal, writer) = Journal::create(&arguments.journal)?;
    let stop = shutdown::token()?;
    let start = Start::now();
    tracing::info!(devices = config.devices.len(), broker = config.broker, "publishing");
    let mut devices = JoinSet::new();
    for (device, source) in config.devices.iter().cloned().zip(sources) {
        let (config, journal, stop) = (config.clone(), journal.clone(), stop.clone());
        devices.spawn(async move { run(&config, &device, source, start, journal, stop).await });
    }
    drop(journal);
    let mut clean = true;
    while let Some(ended) = devices.join_next().await {
        match ended.context("a device's task ended badly")? {
            Ok(Outcome { device, published, acked }) => {
                tracing::info!(device, published, acked, "done");
                clean &= published == acked;
            }
            Err(error) => {
                tracing::error!("{error}");
                clean = false;
            }
        }
    }
    writer.await??;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
