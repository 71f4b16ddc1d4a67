//! `cargo xtask demo`: the whole system on one machine, as separate processes with their own configuration files. With
//! `--seconds` it plays the story by itself and measures it; without, it runs until Ctrl-C for a person to look at.

mod ctl;
mod deployment;
mod figures;
pub(crate) mod flood;
mod mount;
mod network;
mod pages;
mod process;
mod relay;
mod story;
mod system;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use self::deployment::Deployment;
use self::network::Network;
use self::story::Script;
use self::system::{Daemon, System};
use crate::{build, interop, say, setup, stop};

/// Shortest story: the uplink must be seen to die (5 s) and come back, the gateway be killed and recover; the control path's steps follow, each as long as it takes.
const SECONDS_MIN: u64 = 60;

/// What the demo runs.
const PACKAGES: &[&str] = &[
    "edge-gateway",
    "caregate-datapathd",
    "core-cloud",
    "clinician-feed",
    "sdn-controller",
    "ledger-node",
    "caregatectl",
    "caregate-tests",
];

/// Run the whole system on this machine: sensors, gateway, core, feed and its page.
///
/// As root it runs in network namespaces of its own, otherwise on loopback. Without --seconds it prints the page's address
/// and login and runs until Ctrl-C. With --seconds it plays the story and measures it: sensors publish, the uplink is cut and
/// returns, the gateway is killed (-9) and restarted, the page is open in headless Chromium throughout.
///
/// Exit status of the story: 0 only if nothing acknowledged was lost, nothing was seen twice, every sample is as in its
/// source, and cut, kill and recovery were seen to happen.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Play the story for this many seconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(SECONDS_MIN..=86_400))]
    seconds: Option<u64>,
    /// Replay this WFDB record (path of its header, without .hea) instead of the generators, again and again.
    /// May be given several times; all on one patient.
    #[arg(long, value_name = "PATH")]
    record: Vec<PathBuf>,
    /// Replay so many times faster than real time; the readings' own times then run ahead of the clock.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Print the story's figures as one JSON object in the last line.
    #[arg(long, requires = "seconds")]
    json: bool,
    /// TCP port of the page on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Keep the run's folder (configuration, logs, journals) also when all went well.
    #[arg(long)]
    keep: bool,
    /// Save a screenshot of the hospital's page early in the story, and beside it (FILE-clinic.png and so on) the other pages when the
    /// glass is broken.
    #[arg(long, value_name = "FILE", requires = "seconds")]
    screenshot: Option<PathBuf>,
    /// Where the core stores.
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    store: StoreKind,
    /// Use the binaries that are there instead of building them first.
    #[arg(long)]
    no_build: bool,
}

/// Where the core stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoreKind {
    /// In a file of its own.
    Embedded,
    /// On a NATS server, which the demo installs and starts.
    Nats,
}

/// Runs the demo.
///
/// # Errors
/// What could not be built or started, or what the story did not show.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let root = setup::can_make_namespaces();
    say(match (root, setup::is_root()) {
        (true, _) => "demo: as root, in network namespaces of its own",
        (false, true) => "demo: on loopback: root here may not make network namespaces",
        (false, false) => "demo: on loopback: not root, so without network namespaces",
    });
    let mut tools = vec![setup::DEMO];
    if args.seconds.is_some() {
        tools.push(setup::STORY);
    }
    setup::ensure(&tools)?;
    if !args.no_build {
        build::page()?;
        build::cargo(PACKAGES)?;
    }
    let nats = match args.store {
        StoreKind::Embedded => None,
        StoreKind::Nats => {
            if !args.no_build {
                build::cargo_with("core-cloud", "nats")?;
            }
            Some(interop::nats()?)
        }
    };
    stop::watch()?;
    let dir = build::root()?.join(format!("target/demo/{}", std::process::id()));
    std::fs::create_dir_all(dir.join("logs")).with_context(|| dir.display().to_string())?;
    let outcome = play(args, root, &dir, nats.as_deref());
    if outcome.is_ok() && !args.keep {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    } else {
        say(&format!("demo: configuration, logs and journals are in {}", dir.display()));
    }
    outcome
}

fn play(args: &DemoArgs, root: bool, dir: &Path, nats: Option<&Path>) -> anyhow::Result<()> {
    let records: Vec<PathBuf> = args
        .record
        .iter()
        .map(|record| std::path::absolute(record).with_context(|| record.display().to_string()))
        .collect::<anyhow::Result<_>>()?;
    let sensors = system::sensors(&records);
    let network = Network::make(root, sensors.len())?;
    say(&format!("demo: starting {}", network.describe()));
    let mut system =
        System::start(&network, dir, &sensors, system::Wish { speed: args.speed, port: args.port, nats })?;
    introduce(&system)?;
    match args.seconds {
        None => {
            system.start_sensors()?;
            say("demo: running; Ctrl-C stops it");
            while !stop::requested() {
                system.daemons_alive()?;
                system.sensors_alive()?;
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            say("demo: stopping");
            system.stop_all()
        }
        Some(seconds) => {
            let screenshot = args.screenshot.as_deref();
            let script = Script { seconds, records: &records, screenshot, root };
            let figures = story::play(&mut system, script)?;
            figures.print(args.json)?;
            match (figures.failures().as_slice(), figures.not_shown()) {
                ([], []) => Ok(()),
                ([], not_shown) => Err(NotShown(not_shown.to_vec()).into()),
                (failures, _) => bail!("the story did not hold: {}", failures.join("; ")),
            }
        }
    }
}

/// Says where everything is.
fn introduce(system: &System<'_>) -> anyhow::Result<()> {
    let Deployment { password, access_code, patients, .. } = &system.deployment;
    for (what, daemon) in [
        ("the hospital's page is at", Daemon::Hospital),
        ("the second hospital's, without consent, is at", Daemon::Clinic),
        ("the patient's page, at the gateway, is at", Daemon::Gateway),
        ("the controller's dashboard is at", Daemon::Controller),
    ] {
        say(&format!("demo: {what} {}", system.page_url(daemon)?));
    }
    say(&format!("demo: log in at either hospital as {} with password {password}", deployment::USER));
    say(&format!("demo: the gateway's access code is {access_code}"));
    if let Some(patient) = patients.first() {
        // As on a card that the patient carries: who finds them unconscious breaks the glass with it.
        say(&format!("demo: for the broken glass, the first patient's pseudonym is {}", patient.pseudonym));
    }
    Ok(())
}

/// A story that held as far as this machine can show it.
#[derive(Debug)]
pub(crate) struct NotShown(Vec<&'static str>);

impl std::fmt::Display for NotShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not shown, since it needs root: {}", self.0.join("; "))
    }
}

impl std::error::Error for NotShown {}
