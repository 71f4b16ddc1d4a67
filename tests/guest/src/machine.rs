//! What an init does: file systems, modules, and the end.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::system::{RebootCommand, finit_module, reboot, uname};

/// In the order in which they are needed; the initramfs has what is no part of the kernel itself.
const MODULES: &str = "/modules";

/// The kernel's release.
#[must_use]
pub fn version() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Mounts a file system that has no device, for each type and place, and loads the modules.
pub(crate) fn set_up(mounts: &[(&str, &str)]) -> anyhow::Result<()> {
    mounts.iter().try_for_each(|(kind, place)| mount(kind, place, kind))?;
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

fn mount(what: &str, place: &str, kind: &str) -> anyhow::Result<()> {
    rustix::mount::mount(what, place, kind, MountFlags::empty(), None::<&CStr>)
        .with_context(|| format!("mounting {what} as {place}"))
}

/// Mounts a disk as a gateway's is.
///
/// # Errors
/// The kernel's.
pub fn mount_ext4(device: &str, place: &str) -> anyhow::Result<()> {
    fs::create_dir_all(place)?;
    mount(device, place, "ext4")
}

/// Takes it away again.
///
/// # Errors
/// The kernel's, also where a process uses it.
pub fn unmount(place: &str) -> anyhow::Result<()> {
    rustix::mount::unmount(place, UnmountFlags::empty()).with_context(|| format!("unmounting {place}"))
}

/// What the kernel's command line says to us: the value behind `caregate.KEY=`.
///
/// # Errors
/// That it has no such word.
pub fn told(line: &str, key: &str) -> anyhow::Result<String> {
    let named = format!("caregate.{key}=");
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(&named));
    found.map(str::to_owned).with_context(|| format!("the kernel's command line has no caregate.{key}"))
}

/// The kernel's command line.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn command_line() -> anyhow::Result<String> {
    fs::read_to_string("/proc/cmdline").context("/proc/cmdline")
}

pub(crate) fn power_off() -> anyhow::Result<()> {
    Ok(reboot(RebootCommand::PowerOff)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_and_what_is_missing_is_named() {
        let line = "console=ttyS0 caregate.syncs=out caregate.points=9";
        assert_eq!(told(line, "points").unwrap(), "9");
        let error = told(line, "commits").unwrap_err();
        assert!(error.to_string().ends_with("caregate.commits"), "{error}");
    }
}
