//! `cargo xtask kernels`: the committed eBPF object in kernels of Debian's, each booted by QEMU with one program as its only process
//! (`tests/kernels`), which loads, attaches and runs the datapath's programs as the helper does. See `docs/kernels.md`.

mod archive;
mod guest;
mod initramfs;
mod limits;
mod machine;
mod power;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_guest::Told;
use caregate_guest::kernels::{Program, Report};
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::limits::Limits;
use self::machine::Machine;
pub(crate) use self::power::{WORKS, power_cuts};
use crate::{build, say, setup, stop};

/// What the programs are attached to.
const MODULES: [&str; 3] = ["veth", "sch_ingress", "cls_bpf"];
/// Emulated, a boot takes seconds; on a machine where all is busy a minute.
const DEADLINE: Duration = Duration::from_secs(300);
/// Kernel, initramfs and maps take a quarter of it.
const MEMORY: &str = "512M";

/// Run the eBPF programs in other kernels: Debian's, under QEMU without hardware acceleration.
///
/// Kernels and what is built for them lie under target/kernels; a kernel is fetched once. Needs no root but for installing QEMU.
#[derive(Debug, Args)]
pub(crate) struct KernelsArgs {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Only this kernel; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Name>,
    /// Write what the verifier followed into tests/kernels/verifier.toml, as what later runs are compared with.
    #[arg(long)]
    record: bool,
}

/// A kernel under test. Plain numbers are amd64's; the others are Debian 12's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    Arm64,
    Armhf,
}

/// An architecture, as Debian calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arch {
    Amd64,
    Arm64,
    Armhf,
}

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Armhf => "armhf",
        }
    }
}

impl Name {
    /// As it is chosen, and as folders and `verifier.toml` have it.
    fn as_str(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Arm64 => "arm64",
            Self::Armhf => "armhf",
        }
    }

    fn arch(self) -> Arch {
        match self {
            Self::V5_10 | Self::V6_1 | Self::V6_12 => Arch::Amd64,
            Self::Arm64 => Arch::Arm64,
            Self::Armhf => Arch::Armhf,
        }
    }

    /// Debian's release, and its package that stands for the release's newest kernel.
    fn package(self) -> (&'static str, &'static str) {
        match self {
            Self::V5_10 => ("bullseye", "linux-image-cloud-amd64"),
            Self::V6_1 => ("bookworm", "linux-image-cloud-amd64"),
            Self::V6_12 => ("trixie", "linux-image-cloud-amd64"),
            Self::Arm64 => ("bookworm", "linux-image-cloud-arm64"),
            Self::Armhf => ("bookworm", "linux-image-armmp"),
        }
    }
}

/// One kernel's line of the result.
#[derive(Debug, Serialize)]
struct Outcome {
    arch: &'static str,
    version: String,
    loaded: bool,
    passed: usize,
    total: usize,
    programs: Vec<Program>,
    boot_s: f64,
    #[serde(skip)]
    failures: Vec<String>,
}

impl Outcome {
    /// Of a kernel that could not be fetched or booted.
    fn without(name: Name, error: &anyhow::Error) -> Self {
        Self {
            arch: name.arch().name(),
            version: String::new(),
            loaded: false,
            passed: 0,
            total: 0,
            programs: Vec::new(),
            boot_s: 0.0,
            failures: vec![format!("{error:#}")],
        }
    }
}

#[derive(Debug, Serialize)]
struct Outcomes {
    kernels: Vec<Outcome>,
}

/// Runs them one after another.
///
/// # Errors
/// What keeps it from running, a kernel in which anything fails, and a verifier that follows more than is recorded.
pub(crate) fn run(args: &KernelsArgs) -> anyhow::Result<()> {
    stop::watch()?;
    let names = if args.only.is_empty() { Name::value_variants().to_vec() } else { args.only.clone() };
    let foreign = names.iter().any(|name| name.arch() != Arch::Amd64);
    setup::ensure_tools(if foreign { &[setup::KERNELS, setup::KERNELS_ARM] } else { &[setup::KERNELS] })?;
    let path = build::root()?.join("tests/kernels/verifier.toml");
    let mut limits = Limits::read(&path)?;
    let mut outcomes = Outcomes { kernels: Vec::new() };
    for name in names {
        // One that does not come so far is a failure among the others.
        let outcome = test(name, &limits, args.record).unwrap_or_else(|error| Outcome::without(name, &error));
        if stop::requested() {
            bail!("stopped before the end");
        }
        tell(name, &outcome);
        if outcome.failures.is_empty() {
            limits.record(name.as_str(), &outcome.programs);
        }
        outcomes.kernels.push(outcome);
    }
    if args.record {
        limits.write(&path)?;
    }
    if args.json {
        writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(&outcomes)?)?;
    }
    let failed = outcomes.kernels.iter().filter(|kernel| !kernel.failures.is_empty()).count();
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} kernels failed", outcomes.kernels.len()),
    }
}

fn folder(name: Name) -> anyhow::Result<PathBuf> {
    Ok(build::root()?.join("target/kernels").join(name.as_str()))
}

fn test(name: Name, limits: &Limits, recording: bool) -> anyhow::Result<Outcome> {
    let folder = folder(name)?;
    let kernel = archive::fetch(name, &folder)?;
    let guest = guest::build(name.arch())?;
    let image = folder.join("initramfs");
    std::fs::write(&image, initramfs::pack(&kernel, &guest, &[], &MODULES)?)
        .with_context(|| image.display().to_string())?;
    say(&format!("{}: booting {} under QEMU", name.as_str(), kernel.version));
    let machine = Machine {
        arch: name.arch(),
        kernel: &kernel.image,
        initramfs: &image,
        memory: MEMORY,
        disks: &[],
        told: "",
    };
    let ended = machine.run(DEADLINE, &folder.join("console.log"))?;
    let Told { version, error, report } = Told::<Report>::parse(&ended.line)?;
    let mut failures = report.failed.clone();
    failures.extend(error);
    if report.total == 0 || report.passed != report.total {
        failures.push(format!("{} of {} cases passed", report.passed, report.total));
    }
    if !recording {
        failures.extend(limits.exceeded(name.as_str(), &report.programs));
    }
    Ok(Outcome {
        arch: name.arch().name(),
        version,
        loaded: report.loaded,
        passed: report.passed,
        total: report.total,
        programs: report.programs,
        boot_s: ended.seconds,
        failures,
    })
}

fn tell(name: Name, outcome: &Outcome) {
    say(&format!(
        "{}: {} ({}), {} of {} cases passed, {:.1} s",
        name.as_str(),
        outcome.version,
        outcome.arch,
        outcome.passed,
        outcome.total,
        outcome.boot_s
    ));
    for Program { name, verified_insns, jited_bytes } in &outcome.programs {
        say(&format!(
            "  {name}: the verifier followed {verified_insns} instructions; {jited_bytes} bytes of machine code"
        ));
    }
    for failure in &outcome.failures {
        say(&format!("  FAILED: {failure}"));
    }
}

/// The one entry of a folder whose name begins so.
fn entry(folder: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    });
    paths.next().with_context(|| format!("{}: nothing begins with {prefix}", folder.display()))
}
