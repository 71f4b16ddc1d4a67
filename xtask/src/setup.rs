//! What commands need of the machine: looked for, installed where we are root, otherwise named with the one command that
//! would install all of it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::build;
use crate::say;

/// A program, where it must be found, and Debian's package of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// Node and npm: on Debian 12 the packaged Node is too old to build the page, so it isn't installed from there.
const NODE_MAJOR_MIN: u32 = 20;

/// For the demo as root.
pub(crate) const DEMO: &[Tool] = &[
    tool("kill", "procps"),
    tool("ip", "iproute2"),
    tool("sysctl", "procps"),
    tool("nsenter", "util-linux"),
    tool("setpriv", "util-linux"),
];
/// For the demo's story: the page is open in a browser.
pub(crate) const STORY: &[Tool] = &[tool("/usr/bin/chromium", "chromium")];
/// For the tests: peers that others wrote.
pub(crate) const TESTS: &[Tool] = &[
    tool("mosquitto", "mosquitto"),
    tool("mosquitto_pub", "mosquitto-clients"),
    tool("openssl", "openssl"),
    tool("python3", "python3"),
    tool("pip3", "python3-pip"),
    tool("g++", "g++"),
    tool("ovs-vswitchd", "openvswitch-switch"),
    tool("ovs-pki", "openvswitch-common"),
    tool("ovs-testcontroller", "openvswitch-testcontroller"),
    tool("/usr/lib/python3/dist-packages/os_ken", "python3-os-ken"),
    tool("ethtool", "ethtool"),
    tool("ping", "iputils-ping"),
    tool("nft", "nftables"),
    tool("tc", "iproute2"),
    tool("mount", "mount"),
    tool("swtpm", "swtpm"),
    tool("faketime", "faketime"),
];
/// For conformance suites: the switch beside ours, and what runs the suite.
pub(crate) const CONFORM: &[Tool] = &[
    tool("/usr/bin/python3", "python3"),
    tool("/usr/lib/python3/dist-packages/pip", "python3-pip"),
    tool("ovs-vswitchd", "openvswitch-switch"),
    tool("ethtool", "ethtool"),
    tool("mount", "mount"),
    tool("nice", "coreutils"),
];
/// For tools from PyPI.
pub(crate) const PYTHON: &[Tool] = &[tool("/usr/share/doc/python3-venv", "python3-venv")];
/// For what is to end with whoever started it.
pub(crate) const NATS: &[Tool] = &[tool("setpriv", "util-linux")];

/// For controllers that others wrote: their environments, and what hosts do.
pub(crate) const INTEROP: &[Tool] = &[
    tool("/usr/share/doc/python3-venv", "python3-venv"),
    tool("ovs-vswitchd", "openvswitch-switch"),
    tool("ip", "iproute2"),
    tool("ethtool", "ethtool"),
    tool("mount", "mount"),
    tool("nsenter", "util-linux"),
    tool("sysctl", "procps"),
    tool("ping", "iputils-ping"),
    tool("iperf3", "iperf3"),
];

/// For benches: what a user would pick instead.
pub(crate) const PEERS: &[Tool] = &[
    tool("ethtool", "ethtool"),
    tool("nft", "nftables"),
    tool("ovs-vswitchd", "openvswitch-switch"),
    tool("xdp-filter", "xdp-tools"),
];

/// For the bench of the data path: the peer.
pub(crate) const BROKER: &[Tool] = &[tool("mosquitto", "mosquitto")];

/// For other kernels: what they run in, and what unpacks them.
pub(crate) const KERNELS: &[Tool] =
    &[tool("qemu-system-x86_64", "qemu-system-x86"), tool("xz", "xz-utils"), tool("dpkg-deb", "dpkg")];
/// For power cuts in a machine of QEMU's: what makes its disk.
pub(crate) const POWER: &[Tool] = &[tool("mkfs.ext4", "e2fsprogs")];
/// For kernels of other architectures: QEMU, Debian's compiler with the standard library's source, and cross toolchains.
pub(crate) const KERNELS_ARM: &[Tool] = &[
    tool("qemu-system-arm", "qemu-system-arm"),
    tool("/usr/share/doc/cargo-web", "cargo-web"),
    tool("/usr/share/doc/rustc-web", "rustc-web"),
    tool("/usr/share/doc/rust-web-src", "rust-web-src"),
    tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    tool("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
    tool("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf"),
    tool("/usr/arm-linux-gnueabihf/lib/libc.a", "libc6-dev-armhf-cross"),
];

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn present(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/lib/openvswitch-switch"])
        .any(|dir| Path::new(dir).join(program).exists())
}

/// Checks Node, and that every tool is there; as root, installs what is missing.
pub(crate) fn ensure(tools: &[&[Tool]]) -> anyhow::Result<()> {
    node()?;
    ensure_tools(tools)
}

/// Checks that every tool is there; as root, installs what is missing.
pub(crate) fn ensure_tools(tools: &[&[Tool]]) -> anyhow::Result<()> {
    let missing = |tools: &[&[Tool]]| -> Vec<&'static str> {
        let mut packages: Vec<_> =
            tools.iter().copied().flatten().filter(|t| !present(t.program)).map(|t| t.package).collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    };
    let packages = missing(tools);
    if packages.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !is_root() {
        bail!("missing: {}. Install with: sudo {install}", packages.join(", "));
    }
    say(&format!("installing {} (apt-get)", packages.join(", ")));
    build::run(Command::new("apt-get").args(["update", "-q"]))?;
    let mut command = Command::new("apt-get");
    // Another package manager may be at work; it has five minutes to finish.
    command
        .args(["-o", "DPkg::Lock::Timeout=300", "install", "-y", "-q", "--no-install-recommends"])
        .args(&packages);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    let _quiet = NoServices::begin()?;
    build::run(&mut command)?;
    match missing(tools).as_slice() {
        [] => Ok(()),
        still => bail!("apt-get succeeded but still missing: {}", still.join(", ")),
    }
}

/// While it lives, packages that are installed start no service: each test starts its own, where it wants it. Debian's
/// `invoke-rc.d` asks this file (policy-rc.d(8)); one that is there already is left alone.
struct NoServices(bool);

const POLICY_RC_D: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        if Path::new(POLICY_RC_D).exists() {
            return Ok(Self(false));
        }
        std::fs::write(POLICY_RC_D, "#!/bin/sh\nexit 101\n").context(POLICY_RC_D)?;
        std::fs::set_permissions(POLICY_RC_D, std::fs::Permissions::from_mode(0o755)).context(POLICY_RC_D)?;
        Ok(Self(true))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.0 {
            drop(std::fs::remove_file(POLICY_RC_D));
        }
    }
}

/// Whether network namespaces can be made here: root in a container often may not.
pub(crate) fn can_make_namespaces() -> bool {
    let probe =
        Command::new("unshare").args(["--net", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    is_root() && probe.is_ok_and(|status| status.success())
}

fn node() -> anyhow::Result<()> {
    let output = Command::new("node").arg("--version").stderr(Stdio::null()).output();
    let version = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let major = version.trim_start_matches('v').split('.').next().and_then(|m| m.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MAJOR_MIN) || !present("npm") {
        bail!("Node {NODE_MAJOR_MIN} or newer with npm is needed to build the page; found: {version:?}");
    }
    Ok(())
}
