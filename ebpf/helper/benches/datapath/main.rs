//! What a frame costs in the switch, beside what a user would pick instead (`docs/benchmarks.md` has the method).
//!
//! `cargo xtask bench datapath --json` runs it. Two kinds of figures, each the median of some rounds in which all contenders take turns:
//! nanoseconds of a program on a frame (`BPF_PROG_TEST_RUN`), and frames dropped per second on one processor that came by a veth pair as
//! a wire would bring them (live frames). It makes a network namespace and mounts of its own, which end with it. Needs root.

mod ours;
mod peers;
mod wire;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use caregate_tests::bpf::{self, Varied};
use caregate_tests::rules::{self, FRAME, Kind, Outcome, VARIED};
use clap::Parser;
use serde_json::{Value, json};

use ours::Ours;
use wire::Wire;

/// Flows of a set.
const SIZES: [usize; 5] = [16, 64, 256, 1024, 4096];
/// Of these the cached lookup and the maps' memory are measured.
const SIZE_CACHED: usize = 1024;
/// Of these the drop rate.
const SIZE_DROPPED: usize = 64;

/// What is measured, and how often.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds, in each of which every contender has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Runs on a frame whose mean is one measurement
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    repeat: u32,
    /// Live frames of one measurement
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    frames: u32,
    /// Instead of all else: whether the last of so many flows of both sets is found, and in which time
    #[arg(long, value_name = "N")]
    mixed: Option<usize>,
    /// Cargo says this.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    caregate_host::exit::code(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let privilege = "namespaces and eBPF need root";
    bpf::own_mounts().context(privilege)?;
    bpf::own_network().context(privilege)?;
    bpf::stay_on_one_processor()?;
    if let Some(count) = arguments.mixed {
        return mixed(count, arguments.repeat);
    }
    let mut sets = Vec::new();
    for (kind, suffix) in [(Kind::Acl, ""), (Kind::Wide, "_wide")] {
        let of_size = |size| Ours::load(kind, size).with_context(|| format!("{size} flows{suffix}"));
        sets.push(Set { suffix, sizes: SIZES.into_iter().map(of_size).collect::<anyhow::Result<_>>()? });
    }
    let mut contest = Contest { arguments, sets: &sets, series: BTreeMap::new() };
    contest.nanoseconds()?;
    contest.drops()?;
    let report = contest.report()?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

/// Both sets in one table, as `flow_mods_per_s` has them.
fn mixed(count: usize, repeat: u32) -> anyhow::Result<()> {
    let mut flows = rules::mixed(count, rules::SEED);
    let last = flows.last_mut().context("no flows")?;
    last.outcome = Outcome::Drop;
    let ours = Ours::with(&flows)?;
    let varied = Varied::before(&ours.enter, i16::try_from(VARIED.start)?)?;
    let ns = ours.time(&varied, repeat)?;
    writeln!(std::io::stdout(), "{}", json!({ "flows": count, "ns": ns }))?;
    Ok(())
}

/// One rule set in all sizes.
struct Set {
    suffix: &'static str,
    sizes: Vec<Ours>,
}

impl Set {
    fn of(&self, size: usize) -> anyhow::Result<&Ours> {
        let at = SIZES.iter().position(|of| *of == size).context("no such size")?;
        self.sizes.get(at).context("no such size")
    }
}

struct Contest<'c> {
    arguments: &'c Arguments,
    sets: &'c [Set],
    /// By name, one figure of each round.
    series: BTreeMap<String, Vec<f64>>,
}

/// What is to be run over and over on a frame.
type Turn<'t> = (String, Box<dyn Fn() -> anyhow::Result<f64> + 't>);

impl Contest<'_> {
    fn rounds(&mut self, turns: &[Turn<'_>]) -> anyhow::Result<()> {
        // Unmeasured: pages and caches of the first run.
        for round in 0..=self.arguments.rounds {
            for (name, turn) in turns {
                let figure = turn().with_context(|| name.clone())?;
                if round > 0 {
                    self.series.entry(name.clone()).or_default().push(figure);
                }
            }
        }
        Ok(())
    }

    /// Every frame of the `varied` ones is a stranger to the cache: a program in front counts four bytes of its source's address up.
    fn nanoseconds(&mut self) -> anyhow::Result<()> {
        let repeat = self.arguments.repeat;
        let at = i16::try_from(VARIED.start)?;
        let empty = bpf::drops()?;
        let empty_varied = Varied::before(&empty, at).context("a program in front of another")?;
        let filter = peers::XdpFilter::load("f0").context("xdp-filter")?;
        let mut turns: Vec<Turn<'_>> = vec![
            ("empty".to_owned(), Box::new(|| drop_ns(&empty, repeat))),
            ("empty_varied".to_owned(), Box::new(|| drop_ns(&empty_varied, repeat))),
            ("xdp_filter".to_owned(), Box::new(|| drop_ns(filter.program(), repeat))),
        ];
        for set in self.sets {
            let Set { suffix, sizes } = set;
            let cached = set.of(SIZE_CACHED)?;
            turns.push((format!("cached{suffix}"), Box::new(|| cached.time(&cached.enter, repeat))));
            for (ours, size) in sizes.iter().zip(SIZES) {
                let varied = Varied::before(&ours.enter, at).context("a program in front of ours")?;
                turns.push((format!("{size}{suffix}"), Box::new(move || ours.time(&varied, repeat))));
            }
        }
        self.rounds(&turns)
    }

    fn drops(&mut self) -> anyhow::Result<()> {
        let frames = self.arguments.frames;
        let mut wires = Vec::new();
        for set in self.sets {
            let (suffix, ours) = (set.suffix, set.of(SIZE_DROPPED)?);
            let wire = Wire::make(&format!("o{}", suffix.trim_start_matches('_')))?;
            ours.take_port(wire.receiver)?;
            wires.push((format!("ours_{SIZE_DROPPED}{suffix}"), wire.attach(&ours.enter)?, Some(ours)));
        }
        let bare = bpf::parses_and_drops()?;
        ensure!(bpf::time(&bare, &FRAME, 1)?.verdict == bpf::DROP, "the bare program does not drop");
        wires.push(("bare".to_owned(), Wire::make("b")?.attach(&bare)?, None));
        let filter = peers::XdpFilter::load("f1").context("xdp-filter")?;
        wires.push(("xdp_filter".to_owned(), filter.wire(), None));
        wires.push(("nft_64".to_owned(), peers::nft("n").context("nftables")?, None));
        let mut turns: Vec<Turn<'_>> = Vec::new();
        for (name, wire, ours) in &wires {
            turns.push((
                format!("mpps_{name}"),
                Box::new(move || match ours {
                    Some(ours) => ours.counted(|| wire.mpps(frames, false)),
                    None => wire.mpps(frames, false),
                }),
            ));
            turns.push((
                format!("mpps_varied_{name}"),
                Box::new(move || match ours {
                    Some(ours) => ours.counted(|| wire.mpps(frames, true)),
                    None => wire.mpps(frames, true),
                }),
            ));
        }
        let before = wire::received_by_ip()?;
        self.rounds(&turns)?;
        let leaked = wire::received_by_ip()? - before;
        ensure!(leaked == 0, "{leaked} frames got past a filter and up to IP");
        Ok(())
    }

    fn median(&self, name: &str) -> anyhow::Result<f64> {
        let mut values = self.series.get(name).with_context(|| format!("{name} was not measured"))?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle).with_context(|| format!("{name} was not measured"))?;
        Ok(if values.len() % 2 == 1 { upper } else { f64::midpoint(upper, values[middle - 1]) })
    }

    /// The fields of `cargo xtask bench datapath`, but for those that need daemons.
    fn report(&self) -> anyhow::Result<Value> {
        let mut out = json!({
            "seed": rules::SEED,
            "rounds": self.arguments.rounds,
            "repeat": self.arguments.repeat,
            "frames": self.arguments.frames,
        });
        let empty = self.median("empty")?;
        // What the program in front costs is none of what is measured.
        let front = self.median("empty_varied")? - empty;
        let mut nanoseconds = |name: String, ns: f64| {
            out[format!("ns_{name}")] = tenths(ns);
            out[format!("net_ns_{name}")] = tenths(ns - empty);
        };
        for Set { suffix, .. } in self.sets {
            nanoseconds(format!("empty{suffix}"), empty);
            nanoseconds(format!("cached{suffix}"), self.median(&format!("cached{suffix}"))?);
            nanoseconds(format!("xdp_filter{suffix}"), self.median("xdp_filter")?);
            for size in SIZES {
                let name = format!("{size}{suffix}");
                let ns = self.median(&name)? - front;
                nanoseconds(name, ns);
            }
        }
        for set in self.sets {
            let suffix = set.suffix;
            out[format!("map_mib_1024{suffix}")] = tenths(set.of(SIZE_CACHED)?.map_mib);
            // The same frame and the same program: one measurement for both.
            for name in ["nft_64", "xdp_filter", "bare"] {
                out[format!("drop_mpps_{name}{suffix}")] = hundredths(self.median(&format!("mpps_{name}"))?);
                let varied = self.median(&format!("mpps_varied_{name}"))?;
                out[format!("drop_mpps_{name}_varied{suffix}")] = hundredths(varied);
            }
            let ours = format!("ours_{SIZE_DROPPED}{suffix}");
            out[format!("drop_mpps_{ours}")] = hundredths(self.median(&format!("mpps_{ours}"))?);
            let varied = self.median(&format!("mpps_varied_{ours}"))?;
            out[format!("drop_mpps_ours_{SIZE_DROPPED}_varied{suffix}")] = hundredths(varied);
        }
        Ok(out)
    }
}

/// Nanoseconds of a program that drops the frame.
fn drop_ns(program: &impl std::os::fd::AsRawFd, repeat: u32) -> anyhow::Result<f64> {
    let run = bpf::time(program, &FRAME, repeat)?;
    ensure!(run.verdict == bpf::DROP, "the verdict was {}", run.verdict);
    Ok(run.ns.into())
}

fn tenths(value: f64) -> Value {
    json!((value * 10.0).round() / 10.0)
}

fn hundredths(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}
