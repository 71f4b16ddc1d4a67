//! The object with the programs, built from `ebpf/program` by `cargo xtask ebpf`, committed, and embedded here, so that building
//! the helper needs no BPF toolchain.

use std::path::Path;

use aya::maps::{Array, MapError};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use caregate_ebpf_common::{ABI_MAP, Abi, SENSOR_PROGRAM, UPLINK_PROGRAM, map};

use crate::error::DatapathError;

/// The built programs, as `ebpf/prebuilt/` has them.
pub const OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../prebuilt/caregate.bpf.o"));

/// Loads the object and its maps into the kernel and checks that it is of this [`Abi`]. Maps that are pinned in `maps` are
/// taken over, the others are made there; without `maps` all are new and end with the process. Nothing runs yet.
///
/// # Errors
/// [`DatapathError`].
pub fn load(maps: Option<&Path>) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    if let Some(folder) = maps {
        for name in map::ALL.into_iter().chain(caregate_ebpf_common::switch::map::ALL) {
            loader.map_pin_path(name, folder.join(name));
        }
    }
    let ebpf =
        loader.load(OBJECT).map_err(|error| DatapathError::kernel("loading the eBPF object", error))?;
    let map = ebpf.map(ABI_MAP).ok_or(DatapathError::Missing(ABI_MAP))?;
    let unreadable = |error: MapError| DatapathError::kernel("reading the eBPF object's version", error);
    let abi: Array<_, [u32; 2]> = map.try_into().map_err(unreadable)?;
    let [version, words] = abi.get(&0, 0).map_err(unreadable)?;
    let has = Abi { version, words };
    if has == Abi::CURRENT { Ok(ebpf) } else { Err(DatapathError::Abi { has }) }
}

/// The XDP program of a loaded object, through the verifier.
///
/// # Errors
/// [`DatapathError`]; [`DatapathError::Kernel`] carries what the verifier said.
pub fn load_sensor(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    let program = sensor(ebpf)?;
    program.load().map_err(|error| DatapathError::kernel("loading the XDP program", error))?;
    Ok(program)
}

/// The tc program of a loaded object, through the verifier.
///
/// # Errors
/// As [`load_sensor`].
pub fn load_uplink(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, DatapathError> {
    let program = uplink(ebpf)?;
    program.load().map_err(|error| DatapathError::kernel("loading the tc program", error))?;
    Ok(program)
}

/// The XDP program.
///
/// # Errors
/// [`DatapathError::Missing`].
pub fn sensor(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    let program = ebpf.program_mut(SENSOR_PROGRAM).ok_or(DatapathError::Missing(SENSOR_PROGRAM))?;
    program.try_into().map_err(|error: ProgramError| DatapathError::kernel("finding the XDP program", error))
}

/// The tc program.
///
/// # Errors
/// [`DatapathError::Missing`].
pub fn uplink(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, DatapathError> {
    let program = ebpf.program_mut(UPLINK_PROGRAM).ok_or(DatapathError::Missing(UPLINK_PROGRAM))?;
    program.try_into().map_err(|error: ProgramError| DatapathError::kernel("finding the tc program", error))
}
