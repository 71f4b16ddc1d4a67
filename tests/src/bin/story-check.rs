//! Says what became of every reading of a run.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use caregate_host::log;
use caregate_tests::sensor::{Config, Source, SourceConfig};
use caregate_tests::story::{
    Exclusion, Inputs, Report, Withheld, check, read_arrivals, read_feed, read_journal,
};
use clap::Parser;

/// Joins the sensors' journal with what core, feed and browser saw, and compares every sample with its source.
///
/// Status 0: nothing lost, doubled, unknown or different. Status 1: something is. Status 2: an input can't be used.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The sensors' configuration: which device was given which record or generator.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Written by sensor-sim.
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
    /// Written by feed-reader.
    #[arg(long, value_name = "FILE")]
    feed: PathBuf,
    /// Readings in the core's store as store-audit writes them: {"device","stream","seq","sensor_us","sealed_ms","patient"}.
    #[arg(long, value_name = "FILE")]
    core: Option<PathBuf>,
    /// Readings in the browser, one JSON line each: {"device","stream","seq","arrived_ms"}.
    #[arg(long, value_name = "FILE")]
    browser: Option<PathBuf>,
    /// Must be the record of some device, so that a run asked to play it can't pass without it. Repeatable.
    #[arg(long, value_name = "PATH")]
    record: Vec<PathBuf>,
    /// Leaves readings that were on their way within this span of Unix milliseconds out of the latencies. Repeatable.
    #[arg(long, value_name = "FROM_MS:TO_MS")]
    exclude: Vec<Exclusion>,
    /// Readings of this patient sealed within this span of Unix milliseconds need not be at the feed: its recipient had no
    /// access. Repeatable.
    #[arg(long, value_name = "PATIENT:FROM_MS:TO_MS")]
    withheld: Vec<Withheld>,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match report(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn report(arguments: Arguments) -> anyhow::Result<bool> {
    log::init(log::LogFormat::Text)?;
    let config = Config::load(&arguments.config)?;
    arguments.record.iter().try_for_each(|record| require(&config, record))?;
    let open = |path: &Path| -> anyhow::Result<(String, BufReader<File>)> {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| name.clone())?;
        Ok((name, BufReader::new(file)))
    };
    let arrivals = |path: Option<&PathBuf>| -> anyhow::Result<_> {
        let Some(path) = path else { return Ok(None) };
        let (name, file) = open(path)?;
        Ok(Some(read_arrivals(&name, file)?))
    };
    let (journal_name, journal) = open(&arguments.journal)?;
    let (feed_name, feed) = open(&arguments.feed)?;
    let source = |device: &_| -> anyhow::Result<(String, Source)> {
        let device: &caregate_tests::sensor::DeviceConfig = device;
        Ok((device.id.to_string(), Source::open(device, config.seed_of(device))?))
    };
    let report = check(Inputs {
        journal: read_journal(&journal_name, journal)?,
        feed: read_feed(&feed_name, feed)?,
        core: arrivals(arguments.core.as_ref())?,
        browser: arrivals(arguments.browser.as_ref())?,
        sources: config.devices.iter().map(source).collect::<Result<_, _>>()?,
        exclusions: arguments.exclude,
        withheld: arguments.withheld,
    });
    print(&report, arguments.json)?;
    Ok(report.is_clean())
}

fn require(config: &Config, record: &Path) -> anyhow::Result<()> {
    let header = |path: &Path| {
        let text = path.to_string_lossy();
        Path::new(&format!("{}.hea", text.strip_suffix(".hea").unwrap_or(&text))).canonicalize()
    };
    let wanted = header(record).with_context(|| format!("record {}", record.display()))?;
    for device in &config.devices {
        if let SourceConfig::Record(played) = &device.source
            && header(&played.record).is_ok_and(|played| played == wanted)
        {
            return Ok(());
        }
    }
    bail!("record {} is played by no device of the configuration", record.display())
}

fn print(report: &Report, as_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    } else if let serde_json::Value::Object(fields) = serde_json::to_value(report)? {
        for (name, value) in fields {
            writeln!(out, "{name}: {value}")?;
        }
    }
    Ok(())
}
