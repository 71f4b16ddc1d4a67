//! Floods one end of a veth pair with frames of an unknown device, at the speed of a wire.
//!
//! A socket can't: the kernel makes a buffer of each frame before a veth's other end may drop it, and that alone costs more than
//! the drop. So a four-instruction XDP program that redirects to the interface is run on one frame over and over
//! (`BPF_PROG_RUN` with live frames, Linux 5.18), which hands the other end's driver what a network card would.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for a program that is no ELF object")]

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use caregate_host::clock;
use clap::Parser;

/// Sends 60-byte UDP frames from an unknown MAC address out of one end of a veth pair. The other end needs an XDP program, or
/// GRO switched on (`ethtool -K DEV gro on`); where it is in the same network namespace and has no program, it gets one that
/// drops, while this runs. Needs root and iproute2.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The end to send from, in this network namespace
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// Frames per second; as fast as it goes where nothing is said
    #[arg(long, value_name = "N")]
    pps: Option<u64>,
    /// How long
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Say what was sent as one line of JSON at the end
    #[arg(long)]
    json: bool,
}

/// Frames of one call: a round's pause between calls is then a few milliseconds at 200,000 a second.
const BURST: u32 = 1024;
/// Frames that the kernel hands over together; its own limit is 256.
const BATCH: u32 = 64;
/// Of which so many must have been taken for the wire to count as one.
const TAKEN_MIN: f64 = 0.5;

/// UDP from 10.99.0.1 to 10.99.0.2, padded to Ethernet's 60 bytes; the source is of the range for local administration.
const FRAME: [u8; 60] = {
    const HEAD: [u8; 42] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0xf1, 0x00, 0xd0, 0x00, 0x01, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0x26, 0x3f, 10, 99, 0, 1, 10, 99, 0, 2, // IPv4
        0x9c, 0x40, 0x07, 0x5b, 0, 26, 0, 0, // UDP
    ];
    let mut frame = [0; 60];
    let mut at = 0;
    while at < HEAD.len() {
        frame[at] = HEAD[at];
        at += 1;
    }
    frame
};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_LINK_CREATE: libc::c_int = 28;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 2;
/// The first interface of each network namespace.
const LOOPBACK: u32 = 1;
/// `XDP_DROP`
const DROP: u32 = 1;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 2;
const BPF_FUNC_REDIRECT: u32 = 23;

/// The first part of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct RunAttributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkAttributes {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// `struct bpf_insn`, whose two registers share a byte.
const fn instruction(code: u8, registers: u8, immediate: u32) -> u64 {
    let [a, b, c, d] = immediate.to_ne_bytes();
    u64::from_ne_bytes([code, registers, 0, 0, a, b, c, d])
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are `size_of::<T>()` bytes whose pointers are to memory that outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as usize as u64
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: u32::try_from(program.len()).map_err(io::Error::other)?,
        insns: address(program),
        license: address(c"GPL".to_bytes_with_nul()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    owned(bpf(BPF_PROG_LOAD, &attributes)?)
}

fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `return bpf_redirect(interface, 0);`
fn redirect(interface: u32) -> io::Result<OwnedFd> {
    load(&[
        instruction(0xb7, 1, interface),
        instruction(0xb7, 2, 0),
        instruction(0x85, 0, BPF_FUNC_REDIRECT),
        instruction(0x95, 0, 0),
    ])
}

/// A program that drops, on the interface, for as long as the result lives; none where there is one already.
fn sink(interface: u32) -> io::Result<Option<OwnedFd>> {
    let program = load(&[instruction(0xb7, 0, DROP), instruction(0x95, 0, 0)])?;
    let attributes = LinkAttributes {
        prog_fd: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        target_ifindex: interface,
        attach_type: ATTACH_XDP,
        flags: 0,
    };
    match bpf(BPF_LINK_CREATE, &attributes) {
        Ok(link) => owned(link).map(Some),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Attaches the program where nothing ever comes by: to the loopback of a network namespace of its own, which a sleeping thread
/// holds. A program that is attached nowhere is put into the kernel's table of XDP programs before each run and taken out after it,
/// and waits for all processors both times, 25 ms in all.
fn settle(program: &OwnedFd) -> io::Result<()> {
    let attributes = LinkAttributes {
        prog_fd: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        target_ifindex: LOOPBACK,
        attach_type: ATTACH_XDP,
        flags: XDP_FLAGS_SKB_MODE,
    };
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: no memory; this thread alone changes its namespace.
        let apart = match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        let link = apart.and_then(|()| owned(bpf(BPF_LINK_CREATE, &attributes)?));
        let keeps = link.is_ok();
        if done.send(link.as_ref().map(drop).map_err(|error| io::Error::from(error.kind()))).is_ok() && keeps
        {
            loop {
                std::thread::park();
            }
        }
    });
    is_done.recv().map_err(io::Error::other)?
}

/// The other end, where it is in the same network namespace: `ip` writes `name@peer:` then, and `name@if7:` else.
fn other_end(interface: &str) -> anyhow::Result<Option<String>> {
    let output = Command::new("ip").args(["-o", "link", "show", "dev", interface]).output().context("ip")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let peer =
        text.split_once('@').and_then(|(_, rest)| rest.split_once(':')).map(|(peer, _)| peer.to_owned());
    let is_elsewhere = |peer: &String| {
        peer.strip_prefix("if").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    Ok(peer.filter(|peer| !is_elsewhere(peer)))
}

fn send(program: &OwnedFd, frames: u32) -> io::Result<()> {
    let attributes = RunAttributes {
        prog_fd: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        retval: 0,
        data_size_in: 60,
        data_size_out: 0,
        data_in: address(&FRAME),
        data_out: 0,
        repeat: frames,
        duration: 0,
        ctx_size_in: 0,
        ctx_size_out: 0,
        ctx_in: 0,
        ctx_out: 0,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        cpu: 0,
        batch_size: BATCH,
        padding: 0,
    };
    bpf(BPF_PROG_TEST_RUN, &attributes).map(drop)
}

fn index(interface: &str) -> anyhow::Result<u32> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a string that ends with a zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => bail!("there is no network interface `{interface}`"),
        index => Ok(index),
    }
}

/// What the interface counts as sent: of a veth, what its other end has taken.
fn taken(interface: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").context("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    let count = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    count.with_context(|| format!("`{interface}` counts nothing"))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.seconds > 0.0, "--seconds must be above 0");
    let interface = arguments.interface.as_str();
    let privilege = "loading an XDP program needs root (CAP_BPF, CAP_NET_ADMIN)";
    let program = redirect(index(interface)?).context(privilege)?;
    settle(&program).context(privilege)?;
    let _sink = match other_end(interface)? {
        Some(peer) => sink(index(&peer)?).context(privilege)?,
        None => None,
    };
    let before = taken(interface)?;
    let (begun, length) = (clock::monotonic(), Duration::from_secs_f64(arguments.seconds));
    let mut offered = 0u64;
    while begun.elapsed() < length {
        send(&program, BURST).context("running an XDP program on live frames needs Linux 5.18")?;
        offered += u64::from(BURST);
        if offered == u64::from(BURST) * 16 {
            taken_share(interface, before, offered)?;
        }
        if let Some(pps) = arguments.pps.filter(|pps| *pps > 0) {
            let due = Duration::from_secs_f64(offered as f64 / pps as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let sent = taken(interface)?.saturating_sub(before);
    taken_share(interface, before, offered)?;
    let pps = sent as f64 / seconds;
    let mut out = io::stdout().lock();
    if arguments.json {
        let line = serde_json::json!({
            "interface": interface,
            "offered": offered,
            "sent": sent,
            "pps": pps.round(),
            "seconds": seconds,
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "{sent} of {offered} frames taken by the other end of {interface} in {seconds:.2} s: {pps:.0}/s"
        )?;
    }
    Ok(())
}

/// That frames arrive is seen, and not hoped for.
fn taken_share(interface: &str, before: u64, offered: u64) -> anyhow::Result<()> {
    let sent = taken(interface)?.saturating_sub(before);
    let share = sent as f64 / offered as f64;
    ensure!(
        share >= TAKEN_MIN,
        "the other end of `{interface}` took {sent} of {offered} frames: it needs an XDP program or GRO \
         (ethtool -K DEV gro on), both ends have to be up, and `{interface}` has to be a veth"
    );
    Ok(())
}

fn main() -> ExitCode {
    caregate_host::exit::code(run(&Arguments::parse()))
}
