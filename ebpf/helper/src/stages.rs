//! The programs that others go on with by tail calls (`caregate_ebpf_common::switch::stage`): a frame's way through the tables, on
//! switch ports and sensor ports, and of the gateway's own on uplinks.

use std::fmt;

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError, ProgramArray};
use aya::programs::{ProgramError, ProgramFd, SchedClassifier, Xdp};
use caregate_ebpf_common::switch::stage;

use crate::error::DatapathError;

/// The maps of programs. The kernel empties them when nobody outside has them, by a descriptor or a pin.
pub struct Stages {
    _ingress: ProgramArray<MapData>,
    _egress: ProgramArray<MapData>,
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stages").finish_non_exhaustive()
    }
}

const LOADING: &str = "loading a stage of the switch";

/// The XDP program of switch ports.
///
/// # Errors
/// [`DatapathError`].
pub fn enter(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    program(ebpf, stage::ENTER_PROGRAM)
}

/// An XDP program by its name.
///
/// # Errors
/// [`DatapathError`].
pub fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, DatapathError> {
    ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?.try_into().map_err(unusable)
}

/// The tc program that goes on with the gateway's own frames.
///
/// # Errors
/// [`DatapathError`].
pub fn depart(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, DatapathError> {
    let name = stage::DEPART_PROGRAM;
    ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?.try_into().map_err(unusable)
}

fn unusable(error: ProgramError) -> DatapathError {
    DatapathError::kernel(LOADING, error)
}

fn refused(error: MapError) -> DatapathError {
    DatapathError::kernel("using a map of stages", error)
}

fn array(ebpf: &mut Ebpf, name: &'static str) -> Result<ProgramArray<MapData>, DatapathError> {
    let map: Map = ebpf.take_map(name).ok_or(DatapathError::Missing(name))?;
    map.try_into().map_err(refused)
}

fn put(to: &mut ProgramArray<MapData>, number: u32, program: &ProgramFd) -> Result<(), DatapathError> {
    to.set(number, program, 0).map_err(refused)
}

/// Loads all of them and puts them where the first ones look for them; loads the first one of switch ports.
///
/// # Errors
/// [`DatapathError`]; [`DatapathError::Kernel`] carries what the verifier said.
pub fn load(ebpf: &mut Ebpf) -> Result<Stages, DatapathError> {
    let mut ingress = array(ebpf, stage::STAGES)?;
    for (number, name) in (0..).zip(stage::STAGE_PROGRAMS) {
        let program = program(ebpf, name)?;
        program.load().map_err(unusable)?;
        put(&mut ingress, number, program.fd().map_err(unusable)?)?;
    }
    let mut egress = array(ebpf, stage::DEPARTURES)?;
    let program = depart(ebpf)?;
    program.load().map_err(unusable)?;
    put(&mut egress, 0, program.fd().map_err(unusable)?)?;
    enter(ebpf)?.load().map_err(unusable)?;
    Ok(Stages { _ingress: ingress, _egress: egress })
}
