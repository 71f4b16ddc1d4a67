//! The kernel side's loader: attaches the XDP program to a sensor port and reads its counters.
//!
//! It observes. The program counts each frame by kind and passes all of them; what judges frames comes with the flow tables.
//! The object is built from `ebpf/program` by `cargo xtask ebpf`, committed, and embedded here, so that building the gateway
//! needs no BPF toolchain. Several ports take one [`Observer`] each, so that each has counters of its own.

mod metrics;

use std::error::Error as StdError;
use std::io;

use aya::Ebpf;
use aya::maps::{Array, MapError, PerCpuArray};
use aya::programs::{ProgramError, Xdp, XdpMode};
use caregate_ebpf_common::{ABI_MAP, Abi, COUNTERS_MAP, Counter, Kind, OBSERVE_PROGRAM};
use thiserror::Error;

pub use metrics::ObserverMetrics;

/// The built programs, as `ebpf/prebuilt/` has them.
pub const OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/caregate.bpf.o"));

/// Where in the receive path the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel allocates a buffer for the frame.
    Native,
    /// In the stack, after that: for drivers without XDP. Same verdicts, less speed.
    Generic,
}

impl Mode {
    /// Its name, for logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Why frames can't be observed.
#[derive(Debug, Error)]
pub enum DatapathError {
    /// The kernel refused for want of capabilities.
    #[error(
        "{action} needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and before Linux 5.11 unlimited locked memory too; \
         the configuration may say `datapath = \"off\"` instead: {source}"
    )]
    Privilege {
        /// What was refused.
        action: &'static str,
        /// The kernel's answer, with what led to it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The object was built for another loader.
    #[error("the eBPF object has {has:?}, this gateway needs {:?}; run `cargo xtask ebpf`", Abi::CURRENT)]
    Abi {
        /// What the object says.
        has: Abi,
    },
    /// The object lacks something.
    #[error("the eBPF object has no {0}; run `cargo xtask ebpf`")]
    Missing(&'static str),
    /// There is no such interface.
    #[error("there is no network interface `{0}`")]
    Interface(String),
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
        native: Box<ProgramError>,
        /// Why not in the stack.
        generic: Box<ProgramError>,
    },
}

impl DatapathError {
    fn kernel(action: &'static str, source: impl StdError + Send + Sync + 'static) -> Self {
        let denied = is_denied(&source);
        let source = Box::new(source);
        if denied { Self::Privilege { action, source } } else { Self::Kernel { action, source } }
    }
}

/// True where the kernel's own answer, at the end of the chain, is "not permitted".
fn is_denied(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// A loaded and attached program; detached on drop.
#[derive(Debug)]
pub struct Observer {
    ebpf: Ebpf,
    interface: String,
    mode: Mode,
}

impl Observer {
    /// Loads the program and attaches it to `interface` of this thread's network namespace: in the driver where that works,
    /// else in the stack.
    ///
    /// # Errors
    /// [`DatapathError`]; nothing stays attached then.
    pub fn attach(interface: &str) -> Result<Self, DatapathError> {
        let mut ebpf = load()?;
        let program = program(&mut ebpf)?;
        let mode = match program.attach(interface, XdpMode::Driver) {
            Ok(_link) => Mode::Native,
            Err(ProgramError::UnknownInterface { name }) => return Err(DatapathError::Interface(name)),
            Err(native) if is_denied(&native) => {
                return Err(DatapathError::kernel("attaching the XDP program", native));
            }
            Err(native) => match program.attach(interface, XdpMode::Skb) {
                Ok(_link) => {
                    tracing::warn!(interface, reason = %native, "the driver takes no XDP program");
                    Mode::Generic
                }
                Err(generic) => {
                    return Err(DatapathError::Attach {
                        interface: interface.to_owned(),
                        native: Box::new(native),
                        generic: Box::new(generic),
                    });
                }
            },
        };
        tracing::info!(interface, mode = mode.as_str(), "observing frames; nothing is dropped");
        Ok(Self { ebpf, interface: interface.to_owned(), mode })
    }

    /// Where it runs.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What was counted since it was attached, summed over the CPUs, one entry for each of [`Kind::ALL`] in that order.
    ///
    /// # Errors
    /// [`DatapathError::Kernel`] when the map can't be read.
    pub fn counts(&self) -> Result<Vec<(Kind, Counter)>, DatapathError> {
        counts(&self.ebpf)
    }
}

/// Loads the embedded object and its maps into the kernel and checks that it is of this [`Abi`]. Nothing runs yet.
///
/// # Errors
/// [`DatapathError`].
pub fn load() -> Result<Ebpf, DatapathError> {
    let ebpf = Ebpf::load(OBJECT).map_err(|error| DatapathError::kernel("loading the eBPF object", error))?;
    let map = ebpf.map(ABI_MAP).ok_or(DatapathError::Missing(ABI_MAP))?;
    let unreadable = |error: MapError| DatapathError::kernel("reading the eBPF object's version", error);
    let abi: Array<_, [u32; 2]> = map.try_into().map_err(unreadable)?;
    let [version, kinds] = abi.get(&0, 0).map_err(unreadable)?;
    let has = Abi { version, kinds };
    if has == Abi::CURRENT { Ok(ebpf) } else { Err(DatapathError::Abi { has }) }
}

/// The XDP program of a loaded object, through the verifier.
///
/// # Errors
/// [`DatapathError`]; [`DatapathError::Kernel`] carries what the verifier said.
pub fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    let program = ebpf.program_mut(OBSERVE_PROGRAM).ok_or(DatapathError::Missing(OBSERVE_PROGRAM))?;
    let refused = |error: ProgramError| DatapathError::kernel("loading the XDP program", error);
    let program: &mut Xdp = program.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    Ok(program)
}

/// As [`Observer::counts`], of a loaded object.
///
/// # Errors
/// [`DatapathError::Kernel`] when the map can't be read.
pub fn counts(ebpf: &Ebpf) -> Result<Vec<(Kind, Counter)>, DatapathError> {
    let unreadable = |error: MapError| DatapathError::kernel("reading the frame counters", error);
    let map = ebpf.map(COUNTERS_MAP).ok_or(DatapathError::Missing(COUNTERS_MAP))?;
    // Two u64 stand for a `Counter`, field by field, so that reading needs no unsafe code.
    let counters: PerCpuArray<_, [u64; 2]> = map.try_into().map_err(unreadable)?;
    let mut sums = Vec::with_capacity(Kind::ALL.len());
    for kind in Kind::ALL {
        let per_cpu = counters.get(&(*kind as u32), 0).map_err(unreadable)?;
        let sum = per_cpu.iter().fold(Counter::default(), |sum, [frames, bytes]| Counter {
            frames: sum.frames.wrapping_add(*frames),
            bytes: sum.bytes.wrapping_add(*bytes),
        });
        sums.push((*kind, sum));
    }
    Ok(sums)
}
