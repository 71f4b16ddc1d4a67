//! Loads, attaches and runs the programs by the helper's own code.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aya::Ebpf;
use aya::programs::{Program, ProgramInfo, TestRun, TestRunOptions};
use caregate_datapathd::kernel::Kernel;
use caregate_datapathd::links::{Interface, Snapshot};
use caregate_datapathd::pin::Pins;
use caregate_datapathd::switch::check::Guard;
use caregate_datapathd::switch::{Series, Switch};
use caregate_datapathd::{attach, object, stages};
use caregate_ebpf_common::map;
use caregate_guest::kernels::{Program as Cost, Report};
use caregate_protocol::datapath::Mode;
use pnet::datalink::{self, Channel};

use crate::cases::{self, Case, PORT_GUARDED, PORT_SENSOR, PORT_SWITCH, PORT_UPLINK, flows};
use crate::frames::{self, GATEWAY, OWN, OWN6, SENSOR, STRANGER};
use crate::verifier;

/// More than any frame here has.
const FRAME_BYTES_MAX: usize = 2048;
/// Of a daemon; there is none.
const SESSION: u64 = 1;
const PINS: &str = "/sys/fs/bpf/caregate";
/// `BPF_PROG_TEST_RUN` runs a frame as if on the loopback.
const LOOPBACK: u32 = 1;
/// For a frame to come through a veth, on a machine that is emulated and busy.
const DEADLINE: Duration = Duration::from_secs(20);

/// All of it.
pub(crate) fn test(report: &mut Report) -> anyhow::Result<()> {
    judge(report)?;
    ensure!(report.failed.is_empty(), "not all programs can be used here");
    let pins = Pins::open(Path::new(PINS))?;
    let mut ebpf = object::load(Some(&pins.maps()))?;
    object::load_sensor(&mut ebpf)?;
    object::load_uplink(&mut ebpf)?;
    let _stages = stages::load(&mut ebpf)?;
    let mut kernel = Kernel::open(&mut ebpf)?;
    let mut switch = Switch::open(&mut ebpf, Guard { sensor_ports: PORT_SENSOR, is_on: true })?;
    let snapshot = Snapshot::read()?;
    let named = |name| snapshot.named(name).with_context(|| format!("no interface {name}"));
    let (port, uplink) = (named("port")?, named("uplink")?);
    kernel.set_policy(&cases::policy())?;
    set_ports(&mut kernel, PORT_GUARDED, port, uplink)?;
    let mode = attach::ingress(object::sensor(&mut ebpf)?, port, &pins, false)?;
    ensure!(mode == Mode::Native, "XDP on a veth is {}", mode.as_str());
    attach::uplink(object::uplink(&mut ebpf)?, uplink, &pins)?;
    switch.set_device(PORT_UPLINK, uplink.index)?;
    switch.set_live(1 << PORT_UPLINK | 1 << PORT_SWITCH)?;
    switch.change(&mut Series::default(), flows::all(), false, SESSION)?;
    report.loaded = true;
    for loopback in [PORT_GUARDED, PORT_SWITCH] {
        set_ports(&mut kernel, loopback, port, uplink)?;
        for case in cases::all().iter().filter(|case| case.port == loopback) {
            report.case(&format!("{}: {}", case.program, case.what), run(&ebpf, &kernel, case));
        }
    }
    for (what, interface, frame, port, verdict) in [
        ("a reading on a sensor port", "sensor", frames::publish(SENSOR), PORT_SENSOR, "admitted"),
        ("a stranger's on a sensor port", "sensor", frames::publish(STRANGER), PORT_SENSOR, "unbound_source"),
        ("sent by an uplink", "uplink", frames::publish(GATEWAY), PORT_UPLINK, "sent"),
    ] {
        report.case(&format!("live: {what}"), live(&kernel, interface, &frame, port, verdict));
    }
    Ok(())
}

/// Has the verifier judge each program by itself, so that all that it refuses is told at once, and says what each cost.
fn judge(report: &mut Report) -> anyhow::Result<()> {
    let mut ebpf = object::load(None)?;
    let mut infos = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        match loaded(program) {
            Ok(info) => infos.push((name.to_owned(), info)),
            Err(error) => report.refused(name, &error),
        }
    }
    infos.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let maps = verifier::maps(infos.iter().map(|(_, info)| info))?;
    for (name, info) in infos {
        let verified_insns = verifier::followed(&name, &info, &maps)?;
        let jited_bytes = info.size_jitted();
        if jited_bytes == 0 {
            report.failed.push(format!("{name}: is interpreted, the JIT did not take it"));
        }
        report.programs.push(Cost { name, verified_insns, jited_bytes });
    }
    Ok(())
}

fn loaded(program: &mut Program) -> anyhow::Result<ProgramInfo> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the object has these two kinds; aya knows thirty")]
    match program {
        Program::Xdp(program) => {
            if program.fd().is_err() {
                program.load()?;
            }
            Ok(program.info()?)
        }
        Program::SchedClassifier(program) => {
            if program.fd().is_err() {
                program.load()?;
            }
            Ok(program.info()?)
        }
        other => bail!("a program of another kind: {:?}", other.prog_type()),
    }
}

/// The veths are what they always are; the loopback is this port.
fn set_ports(kernel: &mut Kernel, loopback: u32, port: &Interface, uplink: &Interface) -> anyhow::Result<()> {
    let words = |number, mac| [map::port_word(number, number <= PORT_SENSOR), mac, mac, 0];
    let mac = map::mac_word(GATEWAY);
    let ports = [
        (LOOPBACK, words(loopback, mac)),
        (port.index, words(PORT_SENSOR, mac)),
        (uplink.index, words(PORT_UPLINK, map::mac_word(uplink.mac))),
    ];
    let own = [IpAddr::from(OWN), IpAddr::from(OWN6)];
    let addresses = [PORT_GUARDED, PORT_SENSOR].map(|number| own.map(|address| (number, address)));
    Ok(kernel.set_ports(&ports, addresses.as_flattened())?)
}

/// What was counted on a port, by verdict.
fn counted(kernel: &Kernel, port: u32) -> anyhow::Result<Vec<(String, u64)>> {
    let counters = kernel.counters(&[port])?;
    let port = counters.ports.first().context("no counters")?;
    Ok(port.verdicts.iter().map(|counted| (counted.word.clone(), counted.traffic.frames)).collect())
}

/// The verdicts that came since.
fn since(before: &[(String, u64)], after: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let earlier =
        |word: &str| before.iter().find(|(other, _)| other == word).map_or(0, |(_, frames)| *frames);
    after
        .into_iter()
        .map(|(word, frames)| (frames - earlier(&word), word))
        .filter(|(frames, _)| *frames > 0)
        .map(|(frames, word)| (word, frames))
        .collect()
}

fn run(ebpf: &Ebpf, kernel: &Kernel, case: &Case) -> anyhow::Result<()> {
    let before = counted(kernel, case.port)?;
    let program = ebpf.program(case.program).context("no such program")?;
    let mut out = vec![0; FRAME_BYTES_MAX];
    let options =
        TestRunOptions { data_in: Some(&case.frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the object has these two kinds; aya knows thirty")]
    let result = match program {
        Program::Xdp(program) => program.test_run(options)?,
        Program::SchedClassifier(program) => program.test_run(options)?,
        other => bail!("a program of another kind: {:?}", other.prog_type()),
    };
    let verdicts = since(&before, counted(kernel, case.port)?);
    let wanted = [(case.verdict.to_owned(), 1)];
    ensure!(
        result.return_value == case.action && verdicts == wanted,
        "{} and {verdicts:?} instead of {} and {}",
        result.return_value,
        case.action,
        case.verdict
    );
    out.truncate(usize::try_from(result.data_size_out)?);
    let frame = case.changed.as_ref().unwrap_or(&case.frame);
    ensure!(out == *frame, "the frame is {out:02x?} instead of {frame:02x?}");
    Ok(())
}

/// A frame that goes out by an interface is judged at its other end, or on its way.
fn live(kernel: &Kernel, interface: &str, frame: &[u8], port: u32, verdict: &str) -> anyhow::Result<()> {
    let before = counted(kernel, port)?;
    send(interface, frame)?;
    #[expect(clippy::disallowed_methods, reason = "this is the outermost shell")]
    let begun = Instant::now();
    loop {
        let verdicts = since(&before, counted(kernel, port)?);
        if !verdicts.is_empty() {
            ensure!(verdicts == [(verdict.to_owned(), 1)], "{verdicts:?} instead of {verdict}");
            return Ok(());
        }
        ensure!(begun.elapsed() < DEADLINE, "no frame was judged within {} s", DEADLINE.as_secs());
        std::thread::yield_now();
    }
}

fn send(interface: &str, frame: &[u8]) -> anyhow::Result<()> {
    let interfaces = datalink::interfaces();
    let interface = interfaces.iter().find(|other| other.name == interface).context("no such interface")?;
    let Channel::Ethernet(mut sender, _) = datalink::channel(interface, datalink::Config::default())? else {
        bail!("{} is no Ethernet interface", interface.name);
    };
    sender.send_to(frame, None).context("pnet takes no such frame")??;
    Ok(())
}
