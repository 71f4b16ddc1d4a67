//! The guest's program: static, so that it is the only file that it needs.
//!
//! For this machine's own architecture the compiler in use links it with glibc's static library. Others are built by Debian's compiler
//! with its cross toolchains, the standard library from source, because rustup's compiler has none for them here.

use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;

use super::Arch;
use crate::{build, say};

const PACKAGE: &str = "caregate-kernel-guest";

struct Target {
    triple: &'static str,
    linker: Option<&'static str>,
}

fn target(arch: Arch) -> Target {
    match arch {
        Arch::Amd64 => Target { triple: "x86_64-unknown-linux-gnu", linker: None },
        Arch::Arm64 => Target { triple: "aarch64-unknown-linux-gnu", linker: Some("aarch64-linux-gnu-gcc") },
        Arch::Armhf => {
            Target { triple: "armv7-unknown-linux-gnueabihf", linker: Some("arm-linux-gnueabihf-gcc") }
        }
    }
}

/// Builds it, and says where it is.
///
/// # Errors
/// If it can't be built.
pub(super) fn build(arch: Arch) -> anyhow::Result<PathBuf> {
    let Target { triple, linker } = target(arch);
    let folder = build::root()?.join("target/kernels/build");
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let mut command = match linker {
        None => build::cargo_command(),
        Some(linker) => {
            flags.push(format!("-Clinker={linker}"));
            let mut command = Command::new("/usr/bin/cargo");
            command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            for inherited in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
                command.env_remove(inherited);
            }
            command
        }
    };
    command.args(["build", "--release", "--locked", "--package", PACKAGE, "--target", triple]);
    if linker.is_some() {
        command.arg("-Zbuild-std=std,panic_unwind");
    }
    say(&format!("building {PACKAGE} for {triple} (minutes from clean)"));
    command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command.env("CARGO_TARGET_DIR", &folder).current_dir(build::root()?);
    build::run(&mut command)?;
    let program = folder.join(triple).join("release").join(PACKAGE);
    ensure!(program.exists(), "{}: cargo did not build it", program.display());
    Ok(program)
}
