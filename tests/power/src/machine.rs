//! What an init does: file systems, modules, what the kernel was told, and the end.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, bail};
use caregate_crash::Syncs;
use rustix::mount::{MountFlags, UnmountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot, uname};

/// Type and place. devtmpfs has the disks, and the device mapper's control.
const MOUNTS: [(&str, &str); 3] = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")];
/// In the order in which they are needed; the initramfs has what is no part of the kernel itself.
const MODULES: &str = "/modules";

/// The kernel's release.
pub(crate) fn version() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Mounts, and loads the modules.
pub(crate) fn set_up() -> anyhow::Result<()> {
    for (kind, place) in MOUNTS {
        mount(kind, place, kind, MountFlags::empty(), None::<&CStr>)
            .with_context(|| format!("mounting {place}"))?;
    }
    let mut modules: Vec<_> = fs::read_dir(MODULES)?.collect::<Result<_, _>>()?;
    modules.sort_unstable_by_key(fs::DirEntry::file_name);
    for module in modules {
        load(&module.path()).with_context(|| module.path().display().to_string())?;
    }
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<()> {
    Ok(finit_module(File::open(path)?, c"", 0)?)
}

/// Mounts a disk as a gateway's is.
pub(crate) fn mount_ext4(device: &str, place: &str) -> anyhow::Result<()> {
    fs::create_dir_all(place)?;
    mount(device, place, "ext4", MountFlags::empty(), None::<&CStr>)
        .with_context(|| format!("mounting {device}"))
}

/// Takes it away again.
pub(crate) fn unmount(place: &str) -> anyhow::Result<()> {
    rustix::mount::unmount(place, UnmountFlags::empty()).with_context(|| format!("unmounting {place}"))
}

/// Ends the machine.
pub(crate) fn power_off() -> anyhow::Result<()> {
    Ok(reboot(RebootCommand::PowerOff)?)
}

/// What the kernel's command line says to us.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) syncs: Syncs,
    pub(crate) points: u64,
    pub(crate) commits: u64,
    pub(crate) seed: u64,
}

impl Told {
    pub(crate) fn read() -> anyhow::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?)
    }

    fn parse(line: &str) -> anyhow::Result<Self> {
        let value = |key: &str| {
            let found =
                line.split_whitespace().find_map(|word| word.strip_prefix(&format!("caregate.{key}=")));
            found.with_context(|| format!("the kernel's command line has no caregate.{key}"))
        };
        let number = |key: &str| value(key)?.parse::<u64>().with_context(|| format!("caregate.{key}"));
        let syncs = match value("syncs")? {
            "real" => Syncs::Real,
            "out" => Syncs::TakenOut,
            other => bail!("caregate.syncs={other}"),
        };
        Ok(Self { syncs, points: number("points")?, commits: number("commits")?, seed: number("seed")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_and_what_is_missing_is_named() {
        let told = Told::parse(
            "console=ttyS0 caregate.syncs=out caregate.points=9 caregate.commits=8 caregate.seed=7",
        )
        .unwrap();
        assert_eq!((told.syncs, told.points, told.commits, told.seed), (Syncs::TakenOut, 9, 8, 7));
        let error = Told::parse("caregate.syncs=real caregate.points=9 caregate.seed=7").unwrap_err();
        assert!(error.to_string().ends_with("caregate.commits"), "{error}");
    }
}
