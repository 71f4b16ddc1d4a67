//! `cargo xtask ebpf`: builds the kernel side with Debian's own compiler, and says whether the committed object is what comes out.
//!
//! A plain build of the workspace never comes here: it embeds `ebpf/prebuilt/caregate.bpf.o`. The toolchain is the distribution's,
//! because its packages carry `core` for the BPF target ready built (ADR 5).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::build;

/// Debian packages: a compiler with `core` for `bpfel-unknown-none`, and the LLVM of the same version for bpf-linker.
const PACKAGES: [&str; 5] =
    ["cargo-web", "libpolly-22-dev", "libstd-rust-web-dev-bpf", "llvm-22-dev", "rustc-web"];
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const LLVM: &str = "/usr/lib/llvm-22";
const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13.0";
const OBJECT: &str = "caregate.bpf.o";

/// Builds the eBPF object into ebpf/prebuilt/
///
/// Needs Debian's rustc-web (with libstd-rust-web-dev-bpf) and LLVM 22, and bpf-linker, which is built into target/tools/.
/// Where it is root it installs what is missing; else it names the command that would.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Build into target/ only, and fail where the committed object differs from what the source builds
    #[arg(long)]
    check: bool,
}

/// Builds, and writes or compares.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?.to_owned();
    install_packages()?;
    let linker = install_linker(&root)?;
    let object = build(&root, &linker)?;
    let toolchain =
        format!("{}\nbpf-linker {LINKER_VERSION}\n", output(Command::new(RUSTC).arg("--version"))?.trim());
    let sum = format!("{}  {OBJECT}\n", hex::encode(ring::digest::digest(&ring::digest::SHA256, &object)));
    let prebuilt = root.join("ebpf/prebuilt");
    let files: [(&str, &[u8]); 3] =
        [(OBJECT, &object), ("caregate.bpf.o.sha256", sum.as_bytes()), ("toolchain", toolchain.as_bytes())];
    if arguments.check {
        return compare(&prebuilt, &files);
    }
    fs::create_dir_all(&prebuilt)?;
    for (name, bytes) in files {
        let path = prebuilt.join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        eprintln!("wrote {} ({} bytes)", path.display(), bytes.len());
    }
    Ok(())
}

fn compare(prebuilt: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    let mut differing = Vec::new();
    for (name, built) in files {
        let path = prebuilt.join(name);
        let committed = fs::read(&path).with_context(|| path.display().to_string())?;
        if committed != *built {
            differing.push(*name);
        }
    }
    if differing.is_empty() {
        eprintln!("ebpf/prebuilt is what the source builds");
        return Ok(());
    }
    if differing == ["toolchain"] {
        eprintln!(
            "ebpf/prebuilt is what the source builds, though with another toolchain than the one it names"
        );
        return Ok(());
    }
    let hint = match differing.contains(&"toolchain") {
        true => "the toolchain is another one; ",
        false => "",
    };
    bail!(
        "ebpf/prebuilt differs in {}: {hint}run `cargo xtask ebpf` and commit the result",
        differing.join(", ")
    )
}

fn install_packages() -> Result<()> {
    let installed = |package: &&str| {
        let status = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
        status.is_ok_and(|output| output.stdout == b"installed")
    };
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --yes --no-install-recommends {}", missing.join(" "));
    ensure!(is_root()?, "the eBPF toolchain is incomplete; as root: {install}");
    run_step(Command::new("apt-get").args(["update", "--quiet"]))?;
    // Another package manager may be at work; it has five minutes to finish.
    let mut command = Command::new("apt-get");
    command.args(["--option", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends"]);
    run_step(command.args(&missing).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// bpf-linker of [`LINKER_VERSION`] in `target/tools/bin`, built where it isn't there.
fn install_linker(root: &Path) -> Result<PathBuf> {
    let tools = root.join("target/tools");
    let linker = tools.join("bin/bpf-linker");
    let version = output(Command::new(&linker).arg("--version")).unwrap_or_default();
    if version.trim() == format!("bpf-linker {LINKER_VERSION}") {
        return Ok(linker);
    }
    let mut command = build::cargo_command();
    command.args(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION, "--no-default-features"]);
    command.args(["--features", "llvm-22", "--root"]).arg(&tools);
    command.env("CARGO_TARGET_DIR", root.join("target/bpf-linker"));
    command.env("LLVM_PREFIX", LLVM).env("LLVM_SYS_221_PREFIX", LLVM);
    command.env("RUSTFLAGS", format!("-L native={LLVM}/lib")).env("PATH", path_with_llvm()?);
    run_step(&mut command)?;
    Ok(linker)
}

fn path_with_llvm() -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(std::iter::once(PathBuf::from(LLVM).join("bin")).chain(env::split_paths(&path)))?)
}

/// The object's bytes. No debug information and no path of this machine gets into them.
fn build(root: &Path, linker: &Path) -> Result<Vec<u8>> {
    let target_dir = root.join("target/ebpf");
    let home = env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from);
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Cdebuginfo=0".to_owned(),
        // Headers lie at any place. Every kernel with a JIT that is meant reads words there at once; without it each is four loads.
        "-Ctarget-feature=+allows-misaligned-mem-access".to_owned(),
        format!("--remap-path-prefix={}=/caregate", root.display()),
        format!("--remap-path-prefix={}=/cargo", home.display()),
    ];
    let mut command = Command::new(CARGO);
    command.args(["build", "--locked", "--release", "--target", TARGET, "--manifest-path"]);
    command.arg(root.join("ebpf/program/Cargo.toml"));
    for inherited in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO"] {
        command.env_remove(inherited);
    }
    // The target is built in but its `core` counts as unstable.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", RUSTC).env("PATH", path_with_llvm()?);
    command.env("CARGO_TARGET_DIR", &target_dir).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    run_step(&mut command)?;
    let object = target_dir.join(TARGET).join("release/caregate");
    refuse_what_routers_lack(&object)?;
    fs::read(&object).with_context(|| object.display().to_string())
}

/// A call between BPF functions, or a division of 64 bits, loses armv7's JIT, an atomic instruction doesn't load there at all,
/// and type information of the kernel (BTF) is absent from stock OpenWrt.
fn refuse_what_routers_lack(object: &Path) -> Result<()> {
    let tool = |name: &str| Command::new(PathBuf::from(LLVM).join("bin").join(name));
    let sections = output(tool("llvm-readelf").arg("--section-headers").arg(object))?;
    ensure!(
        !sections.contains(".BTF"),
        "the object has type information (BTF), which the loader would want from the kernel"
    );
    for section in ["xdp", "classifier"] {
        let code = object.with_extension(section);
        let only = format!("--only-section={section}");
        run_step(tool("llvm-objcopy").args([&only, "--output-target=binary"]).args([object, &code]))?;
        check_instructions(section, &fs::read(&code)?)?;
    }
    Ok(())
}

fn check_instructions(section: &str, code: &[u8]) -> Result<()> {
    const LOAD_64: u8 = 0x18;
    const CALL: u8 = 0x85;
    const ATOMIC: [u8; 2] = [0xc3, 0xdb];
    // ALU64 division and remainder, of a constant or a register.
    const DIVIDE_64: [u8; 4] = [0x37, 0x3f, 0x97, 0x9f];
    ensure!(!code.is_empty(), "the object has no section `{section}`");
    let mut instructions = (0u32..).zip(code.chunks_exact(8));
    while let Some((number, instruction)) = instructions.next() {
        let (opcode, source) = (instruction[0], instruction[1] >> 4);
        ensure!(
            !(opcode == CALL && source != 0),
            "instruction {number} of `{section}` calls a BPF function: something is not inlined"
        );
        ensure!(!ATOMIC.contains(&opcode), "instruction {number} of `{section}` is atomic");
        ensure!(!DIVIDE_64.contains(&opcode), "instruction {number} of `{section}` divides 64 bits");
        if opcode == LOAD_64 {
            // Its second half is no instruction of its own.
            instructions.next();
        }
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs it with its output on standard error, so that standard output stays the command's own.
fn run_step(command: &mut Command) -> Result<()> {
    eprintln!("running {}", command.get_program().display());
    let status = command.stdout(std::io::stderr()).status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
