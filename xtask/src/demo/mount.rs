//! A BPF file system of the demo's own, where the datapath's programs and maps are pinned while it runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A mounted BPF file system; unmounted when dropped, and what was pinned in it goes.
#[derive(Debug)]
pub(super) struct BpfMount(PathBuf);

impl BpfMount {
    /// Makes the folder and mounts it. The left-overs of demos that were killed go first.
    pub(super) fn make(dir: &Path) -> anyhow::Result<Self> {
        remove_leftovers(dir)?;
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        run("mount", &["-t", "bpf", "-o", "mode=0700", "caregate-demo", &dir.display().to_string()])?;
        Ok(Self(dir.to_owned()))
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        // One that stays is found by the next demo.
        drop(run("umount", &[&self.0.display().to_string()]));
    }
}

/// Unmounts what demos left whose process is gone: their folder is named by it.
fn remove_leftovers(own: &Path) -> anyhow::Result<()> {
    let Some(runs) = own.parent().and_then(Path::parent) else { return Ok(()) };
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    for line in mounts.lines() {
        let Some(at) = line.strip_prefix("caregate-demo ").and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        let of = Path::new(at).strip_prefix(runs).ok().and_then(|rest| rest.iter().next());
        let gone =
            of.and_then(|name| name.to_str()).is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if gone {
            run("umount", &[at])?;
        }
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
