//! Why the kernel's side can't be made or asked.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use caregate_ebpf_common::Abi;
use thiserror::Error;

/// What went wrong.
#[derive(Debug, Error)]
pub enum DatapathError {
    /// The kernel refused for want of capabilities.
    #[error(
        "{action} needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and before Linux 5.11 unlimited locked memory too; \
         a gateway can do without: `datapath = \"off\"`: {source}"
    )]
    Privilege {
        /// What was refused.
        action: &'static str,
        /// The kernel's answer, with what led to it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The object was built for another loader.
    #[error("the eBPF object has {has:?}, this helper needs {:?}; run `cargo xtask ebpf`", Abi::CURRENT)]
    Abi {
        /// What the object says.
        has: Abi,
    },
    /// The object lacks something.
    #[error("the eBPF object has no {0}; run `cargo xtask ebpf`")]
    Missing(&'static str),
    /// The kernel refused for another reason, the verifier's words with it.
    #[error("{action} failed: {source}")]
    Kernel {
        /// What was refused.
        action: &'static str,
        /// The kernel's answer, with what led to it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Neither way of attaching works on this interface.
    #[error("`{interface}` takes no XDP program: native {native}; generic {generic}")]
    Attach {
        /// The interface.
        interface: String,
        /// Why not in the driver.
        native: Box<dyn StdError + Send + Sync>,
        /// Why not in the stack.
        generic: Box<dyn StdError + Send + Sync>,
    },
    /// Pins can't lie there.
    #[error(
        "{path} is on no BPF file system, so the filter would end with this process; mount one: \
         mount -t bpf bpf /sys/fs/bpf (systemd and OpenWrt's procd do so at boot; `ip netns exec` hides it, \
         `nsenter --net` does not)",
        path = .0.display()
    )]
    NoBpffs(PathBuf),
    /// A pin can't be made, found or removed.
    #[error("pin {path}: {source}", path = .path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The list of interfaces can't be read.
    #[error("list of network interfaces: {0}")]
    Links(io::Error),
    /// A packet socket can't be made or used; needs `CAP_NET_RAW`.
    #[error("packet socket on `{interface}` (needs CAP_NET_RAW): {source}")]
    Packet {
        /// The interface.
        interface: String,
        /// Why not.
        source: io::Error,
    },
}

impl DatapathError {
    pub(crate) fn kernel(action: &'static str, source: impl StdError + Send + Sync + 'static) -> Self {
        let denied = is_denied(&source);
        let source = Box::new(source);
        if denied { Self::Privilege { action, source } } else { Self::Kernel { action, source } }
    }
}

/// True where the kernel's own answer, at the end of the chain, is "not permitted" (EPERM). EACCES is what a verifier says of a
/// program that it refuses.
pub(crate) fn is_denied(error: &(dyn StdError + 'static)) -> bool {
    kernel_answer(error).is_some_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

/// The operating system's own error at the end of the chain.
pub(crate) fn kernel_answer<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(answer) = error.downcast_ref::<io::Error>() {
            return Some(answer);
        }
        next = error.source();
    }
    None
}
