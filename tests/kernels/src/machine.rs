//! What an init does: file systems, modules, the JIT, and the end.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;
use caregate_datapathd::privilege;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot, uname};

/// Type and place. aya reads the number of CPUs in sysfs, pins lie on bpffs.
const MOUNTS: [(&str, &str); 3] = [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")];
/// In the order in which they are needed; the initramfs has what is no part of the kernel itself.
const MODULES: &str = "/modules";
const IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

/// The kernel's release.
pub(crate) fn version() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Mounts, loads the modules, turns the JIT on.
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
    // Off by default on armv7.
    fs::write(JIT, "1").context(JIT)?;
    // The kernel's own neighbour discovery would be counted with the cases.
    if Path::new(IPV6_OFF).exists() {
        fs::write(IPV6_OFF, "1").context(IPV6_OFF)?;
    }
    privilege::allow_locked_memory();
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<()> {
    Ok(finit_module(File::open(path)?, c"", 0)?)
}

/// Ends the machine.
pub(crate) fn power_off() -> anyhow::Result<()> {
    Ok(reboot(RebootCommand::PowerOff)?)
}
