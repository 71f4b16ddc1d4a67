//! `cargo xtask bench NAME`: measurements. Speed is shown here and never asserted in tests; the last line with `--json` is one
//! JSON object, and peers are measured in the same run.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use caregate_host::clock;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::conform::flow_mods::{self, Figures};
use crate::demo::flood;
use crate::{build, say, setup, stop};

/// Measure.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure.
    name: Name,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// How often each figure of `datapath`, `flood` and `ingest` is taken, one after the other; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each flood
    #[arg(long, value_name = "S", default_value_t = 6, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Frames per second of the flood that sensors feel
    #[arg(long, value_name = "N", default_value_t = FLOOD_PPS)]
    pps: u64,
    /// Use the binaries that are there instead of building them first
    #[arg(long)]
    no_build: bool,
    /// `ingest`: one round of short loads
    #[arg(long)]
    quick: bool,
    /// `ingest`: measure this alone, of ours, bridge, bridge_durable, and of disk, throughput, paced, kill, backlog, write; repeatable
    #[arg(long, value_name = "NAME")]
    part: Vec<String>,
}

/// Two thirds of what a gigabit wire carries of the shortest frames: one processor of this kind can send it and a filter in XDP can drop
/// it beside, and a filter in the stack can't, which is what sensors feel.
const FLOOD_PPS: u64 = 1_000_000;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// The spool beside redb and sled in the same role: syncs, latency, write amplification, recovery.
    Spool,
    /// A clean release build of the gateway alone, and the size of what it makes.
    GatewayBuild,
    /// The switch: what a frame costs, frames dropped and flows taken per second, beside xdp-filter, nftables and Open vSwitch.
    Datapath,
    /// Of `datapath`, flows taken per second alone: our switch and Open vSwitch.
    FlowMods,
    /// Policy: a grant's proof at a gateway, a wrap, grants per second into the embedded ledger, its restart with 100,000 consents,
    /// revocations among 1, 100 and 1,000 gateways, the verifier's size.
    Policy,
    /// What sensors feel of a flood on their port: with our filter, with nftables, with none.
    Flood,
    /// From PUBLISH to the core's disk, beside mosquitto with a TLS bridge: throughput, latency, CPU, memory, what a kill takes.
    Ingest,
}

/// Measures.
///
/// # Errors
/// What could not be built or run.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match args.name {
        Name::Spool => spool(args.json),
        Name::Policy => policy(args.json),
        Name::GatewayBuild => gateway_build(args.json),
        Name::Datapath => datapath(args),
        Name::Ingest => ingest(args),
        Name::FlowMods => {
            prepare_switch(args)?;
            print(args.json, &flow_mods(args.rounds)?)
        }
        Name::Flood => {
            let BenchArgs { rounds, seconds, pps, no_build, .. } = *args;
            let plan = flood::Plan { rounds, seconds, pps, is_to_build: !no_build };
            print(args.json, &flood::bench(plan)?)
        }
    }
}

fn cargo() -> Command {
    build::cargo_command()
}

fn spool(json: bool) -> anyhow::Result<()> {
    print(json, &measure("spool")?)
}

/// The ledger and one grant; then revocations among gateways, with the ledger as a process; then the verifier's size.
fn policy(json: bool) -> anyhow::Result<()> {
    build::cargo(&["ledger-node"])?;
    let mut out = measure("policy")?;
    for part in [measure("revocation")?, verifier_bytes()?] {
        for (field, value) in part.as_object().into_iter().flatten() {
            out[field] = value.clone();
        }
    }
    print(json, &out)
}

/// A bench, which prints one JSON object last.
fn measure(bench: &str) -> anyhow::Result<Value> {
    say("bench: building, then measuring for some minutes");
    measure_with(bench, &[])
}

fn measure_with(bench: &str, arguments: &[&str]) -> anyhow::Result<Value> {
    let output = cargo()
        .arg("bench")
        .args(build::WORKSPACE)
        .args(["--bench", bench, "--"])
        .args(arguments)
        .current_dir(build::root()?)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the bench ended with {}: {text}", output.status);
    }
    let last = text.lines().last().context("the bench said nothing")?;
    serde_json::from_str(last).with_context(|| format!("not JSON: {last}"))
}

/// Two programs of the gateway's profile, which differ by the verifier alone.
fn verifier_bytes() -> anyhow::Result<Value> {
    const WITH: &str = "size_with_verifier";
    const WITHOUT: &str = "size_without_verifier";
    say("bench: two programs, with the verifier and without");
    let mut command = cargo();
    command.args([
        "build",
        "--release",
        "--package",
        "ledger-client",
        "--example",
        WITH,
        "--example",
        WITHOUT,
    ]);
    build::run(command.current_dir(build::root()?))?;
    let examples = build::binaries()?.join("examples");
    let bytes = |name: &str| std::fs::metadata(examples.join(name)).map(|file| file.len());
    Ok(json!({ "verifier_bytes": bytes(WITH)?.saturating_sub(bytes(WITHOUT)?) }))
}

/// Ours against mosquitto, all as processes on loopback.
fn ingest(args: &BenchArgs) -> anyhow::Result<()> {
    setup::ensure_tools(&[setup::BROKER])?;
    if !args.no_build {
        build::page()?;
        build::cargo(&["edge-gateway", "core-cloud", "clinician-feed"])?;
    }
    say("bench: ingest, some minutes");
    let rounds = args.rounds.to_string();
    let mut more = vec!["--rounds", &rounds];
    if args.quick {
        more = vec!["--quick"];
    }
    args.part.iter().for_each(|part| more.extend(["--part", part]));
    print(args.json, &measure_with("ingest", &more)?)
}

/// Packages of the switch, and of what measures it.
const SWITCH: &[&str] = &["edge-gateway", "caregate-datapathd", "caregate-tests"];

fn prepare_switch(args: &BenchArgs) -> anyhow::Result<()> {
    if !setup::can_make_namespaces() {
        bail!("eBPF and network namespaces need root; run it as root");
    }
    setup::ensure_tools(&[setup::DEMO, setup::PEERS])?;
    stop::watch()?;
    if !args.no_build {
        build::cargo(SWITCH)?;
    }
    Ok(())
}

/// What needs no daemons is measured by a bench of the helper's, which has the maps; then both switches take flows.
fn datapath(args: &BenchArgs) -> anyhow::Result<()> {
    prepare_switch(args)?;
    say("bench: a frame's cost and drop rates, some minutes");
    let output = cargo()
        .arg("bench")
        .args(build::WORKSPACE)
        .args(["--bench", "datapath", "--"])
        .args(["--rounds", &args.rounds.to_string()])
        .current_dir(build::root()?)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the bench ended with {}: {text}", output.status);
    }
    let last = text.lines().last().context("the bench said nothing")?;
    let mut out: Value = serde_json::from_str(last).with_context(|| format!("not JSON: {last}"))?;
    let flows = flow_mods(args.rounds)?;
    // One file has both sets.
    for (field, value) in flows.as_object().into_iter().flatten() {
        out[field] = value.clone();
        out[format!("{field}_wide")] = value.clone();
    }
    print(args.json, &out)
}

/// Flows per second that both switches take.
fn flow_mods(rounds: u32) -> anyhow::Result<Value> {
    say("bench: flows per second");
    let rounds = flow_mods::measure(rounds)?;
    let of = |pick: fn(&(Figures, Figures)) -> f64| {
        flood::median(rounds.iter().map(pick).collect()).map(f64::round)
    };
    Ok(json!({
        "flow_mods_per_s": of(|(ours, _)| ours.flow_mods_per_s),
        "flow_mods_per_s_ovs": of(|(_, ovs)| ovs.flow_mods_per_s),
    }))
}

/// In a target folder of its own, so that nothing is there already; registry downloads are fetched first and don't count.
fn gateway_build(json: bool) -> anyhow::Result<()> {
    let root = build::root()?;
    let target = root.join("target/bench-build");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    build::run(cargo().arg("fetch").current_dir(&root))?;
    say("bench: building edge-gateway from clean");
    let start = clock::monotonic();
    let mut command = cargo();
    command.args([
        "build",
        "--release",
        "--package",
        "edge-gateway",
        "--bin",
        "edge-gateway",
        "--target-dir",
    ]);
    build::run(command.arg(&target).current_dir(&root))?;
    let took = start.elapsed();
    let bytes = std::fs::metadata(target.join("release/edge-gateway"))?.len();
    std::fs::remove_dir_all(&target)?;
    let cores = std::thread::available_parallelism()?.get();
    print(json, &json!({ "build_s": took.as_secs(), "cores": cores, "binary_bytes": bytes }))
}

fn print(json: bool, value: &Value) -> anyhow::Result<()> {
    use std::io::Write;
    let text = if json { value.to_string() } else { serde_json::to_string_pretty(value)? };
    writeln!(std::io::stdout(), "{text}").context("standard output")
}
