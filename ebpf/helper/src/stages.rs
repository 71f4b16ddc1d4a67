//! The programs of switch ports: one is attached, the others go on from it by tail calls (`caregate_ebpf_common::switch::stage`).

use aya::Ebpf;
use aya::maps::{MapData, MapError, ProgramArray};
use aya::programs::{ProgramError, Xdp};
use caregate_ebpf_common::switch::stage;

use crate::error::DatapathError;

/// The XDP program of switch ports.
///
/// # Errors
/// [`DatapathError`].
pub fn enter(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    program(ebpf, stage::ENTER_PROGRAM)
}

/// One of the stages, by its name.
///
/// # Errors
/// [`DatapathError`].
pub fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, DatapathError> {
    let wrong = |error: ProgramError| DatapathError::kernel("using the XDP programs of switch ports", error);
    ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?.try_into().map_err(wrong)
}

/// Loads all of them and puts the stages where the first one looks for them. The map must be kept: the kernel empties it when
/// nobody outside has it, by a descriptor or a pin.
///
/// # Errors
/// [`DatapathError`]; [`DatapathError::Kernel`] carries what the verifier said.
pub fn load(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, DatapathError> {
    let refused = |error: MapError| DatapathError::kernel("using the map of stages", error);
    let map = ebpf.take_map(stage::STAGES).ok_or(DatapathError::Missing(stage::STAGES))?;
    let mut stages: ProgramArray<MapData> = map.try_into().map_err(refused)?;
    for (number, name) in (0..).zip(stage::STAGE_PROGRAMS) {
        let stage = program(ebpf, name)?;
        stage.load().map_err(|error| DatapathError::kernel("loading a stage of switch ports", error))?;
        let fd = stage.fd().map_err(|error| DatapathError::kernel("loading a stage of switch ports", error))?;
        stages.set(number, fd, 0).map_err(refused)?;
    }
    let enter = enter(ebpf)?;
    enter.load().map_err(|error| DatapathError::kernel("loading the XDP program of switch ports", error))?;
    Ok(stages)
}
