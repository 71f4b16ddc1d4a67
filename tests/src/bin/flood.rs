//! Floods one end of a veth pair with frames of an unknown device, at the speed of a wire.
//!
//! A socket can't ([`caregate_tests::bpf`] says why), so a four-instruction XDP program that redirects to the interface is run on one frame
//! over and over.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use caregate_host::clock;
use caregate_tests::bpf;
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

/// A program that drops, on the interface, for as long as the result lives; none where there is one already.
fn sink(interface: u32) -> io::Result<Option<OwnedFd>> {
    match bpf::attach(&bpf::drops()?, interface) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(None),
        Err(error) => Err(error),
    }
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

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.seconds > 0.0, "--seconds must be above 0");
    let interface = arguments.interface.as_str();
    let privilege = "loading an XDP program needs root (CAP_BPF, CAP_NET_ADMIN)";
    let program = bpf::redirect(bpf::index(interface)?).context(privilege)?;
    bpf::settle(&program).context(privilege)?;
    let _sink = match other_end(interface)? {
        Some(peer) => sink(bpf::index(&peer)?).context(privilege)?,
        None => None,
    };
    let before = bpf::taken(interface)?;
    let (begun, length) = (clock::monotonic(), Duration::from_secs_f64(arguments.seconds));
    let mut offered = 0u64;
    while begun.elapsed() < length {
        bpf::send(&program, &FRAME, BURST)
            .context("running an XDP program on live frames needs Linux 5.18")?;
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
    let sent = bpf::taken(interface)?.saturating_sub(before);
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
    let sent = bpf::taken(interface)?.saturating_sub(before);
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
