//! How much the verifier had to follow. Kernels since 5.16 say so of a loaded program; of older ones' it is in the verifier's log,
//! which aya shows only where a program is refused. So there the program is loaded once more, with the same maps, for its log.

#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper that hands over the log of a program that was taken"
)]

use std::collections::HashSet;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, bail};
use aya::maps::{MapFd, MapInfo};
use aya::programs::ProgramInfo;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_type};
use aya_obj::{Map, Object, ProgramSection};
use caregate_datapathd::object::OBJECT;

/// `BPF_LOG_STATS`: sums without the steps.
const LOG_STATS: u32 = 4;
/// A few lines.
const LOG_BYTES: usize = 4096;
/// The kernel keeps so many characters of a map's name (`BPF_OBJ_NAME_LEN` less the zero).
const NAME_BYTES: usize = 15;

/// Instructions that the verifier followed in the loaded program of this name.
pub(crate) fn followed(name: &str, info: &ProgramInfo, maps: &[(String, MapFd)]) -> anyhow::Result<u32> {
    match info.verified_instruction_count() {
        Some(count) => Ok(count),
        None => count(&log(name, maps).with_context(|| format!("loading {name} for its log"))?),
    }
}

/// `processed 3053 insns (limit 1000000) max_states_per_insn 4 …`
fn count(log: &str) -> anyhow::Result<u32> {
    let rest = log.split_once("processed ").map(|(_, rest)| rest.split_whitespace());
    let number = rest.and_then(|mut words| words.next()?.parse().ok());
    number.with_context(|| format!("the verifier's log has no count: {log:?}"))
}

/// The maps that loaded programs use, by the name that the kernel keeps of each.
pub(crate) fn maps<'a>(
    programs: impl Iterator<Item = &'a ProgramInfo>,
) -> anyhow::Result<Vec<(String, MapFd)>> {
    let mut ids = Vec::new();
    for program in programs {
        ids.extend(program.map_ids()?.context("the kernel doesn't say which maps a program has")?);
    }
    ids.sort_unstable();
    ids.dedup();
    let map = |id| -> anyhow::Result<_> {
        let info = MapInfo::from_id(id)?;
        let name = info.name_as_str().context("a map has no name")?.to_owned();
        Ok((name, info.fd()?))
    };
    ids.into_iter().map(map).collect()
}

fn log(name: &str, maps: &[(String, MapFd)]) -> anyhow::Result<String> {
    let mut object = Object::parse(OBJECT)?;
    let known: Vec<(String, RawFd, Map)> = object
        .maps
        .iter()
        .filter_map(|(name, map)| {
            let kept = name.get(..NAME_BYTES).unwrap_or(name);
            let (_, fd) = maps.iter().find(|(other, _)| other == kept)?;
            Some((name.clone(), fd.as_fd().as_raw_fd(), map.clone()))
        })
        .collect();
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(known.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &text)?;
    object.relocate_calls(&text)?;
    let program = object.programs.get(name).context("no such program")?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the object has these two kinds; aya knows thirty")]
    let kind = match program.section {
        ProgramSection::Xdp { .. } => bpf_prog_type::BPF_PROG_TYPE_XDP,
        ProgramSection::SchedClassifier => bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
        ref other => bail!("a program of another kind: {other:?}"),
    };
    let function = object.functions.get(&program.function_key()).context("a program without instructions")?;
    let mut log = vec![0u8; LOG_BYTES];
    // SAFETY: all-zero is a valid value of this union of plain numbers.
    let mut attributes: bpf_attr = unsafe { zeroed() };
    // SAFETY: of the union only this member is used, as BPF_PROG_LOAD demands.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = kind as u32;
    load.insns = function.instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(function.instructions.len())?;
    load.license = program.license.as_ptr() as u64;
    load.log_level = LOG_STATS;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = u32::try_from(log.len())?;
    // SAFETY: instructions, licence and log are of the lengths that are said and outlive the call.
    let descriptor = unsafe {
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_PROG_LOAD, &raw mut attributes, size_of::<bpf_attr>())
    };
    let said = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    match RawFd::try_from(descriptor) {
        // SAFETY: the kernel just gave it, and to nobody else.
        Ok(descriptor) if descriptor >= 0 => drop(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => return Err(io::Error::last_os_error()).context(said),
    }
    Ok(said)
}
