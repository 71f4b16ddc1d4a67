//! The spool under `kill -9`: a child appends and prints what it may acknowledge; it is killed in the middle; every position that it
//! printed must be there with its bytes. What only a power cut can lose is tested beside the code, on mixed sectors.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use caregate_protocol::id::Lane;
use edge_gateway::spool::{Limits, Log, Position};

/// How often the child is killed; each time after more output, so that rotations and deletions are hit too.
const ROUNDS: usize = 20;
/// Seven records of at most 232 bytes stay below the 2 KiB that a batch may have.
const GROUP: u64 = 7;

fn limits() -> Limits {
    Limits::new(16 << 10, 8 << 20, 4 << 10)
}

/// Bytes that only this position has.
fn payload(position: u64) -> Vec<u8> {
    let len = usize::try_from(position % 200).unwrap_or(0);
    position.to_le_bytes().into_iter().cycle().take(8 + len).collect()
}

fn lane(position: u64) -> Lane {
    Lane::ALL[usize::try_from(position % 4).unwrap_or(0)]
}

/// Appends in groups for ever; prints `stored N` after the sync, `acked N` before the core's ack of all up to N goes in.
fn child(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (mut log, recovery) = Log::open(dir, limits())?;
    if !recovery.damaged.is_empty() {
        return Err(format!("damage after a kill: {:?}", recovery.damaged).into());
    }
    let mut out = io::stdout().lock();
    loop {
        if log.rotation_due() {
            log.rotate(&log.stats().next.0.to_le_bytes())?;
        }
        let mut stored = Position(0);
        for _ in 0..GROUP {
            let next = log.stats().next.0;
            stored = log.append(lane(next), &payload(next))?;
        }
        log.sync()?;
        writeln!(out, "stored {}", stored.0)?;
        if stored.0.is_multiple_of(3) && stored.0 > 200 {
            writeln!(out, "acked {}", stored.0 - 200)?;
            log.ack(1..=stored.0 - 200)?;
        }
    }
}

/// Runs the child until it has printed `lines` lines, kills it, and returns the highest positions stored and acknowledged.
fn run_and_kill(dir: &Path, lines: usize) -> Result<(u64, u64), Box<dyn Error>> {
    let mut child =
        Command::new(std::env::current_exe()?).arg("--child").arg(dir).stdout(Stdio::piped()).spawn()?;
    let output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let (mut stored, mut acked) = (0, 0);
    for (i, line) in output.lines().enumerate() {
        if i == lines {
            child.kill()?; // SIGKILL; what it still printed is read to the end
        }
        let line = line?;
        match line.split_once(' ') {
            Some(("stored", n)) => stored = n.parse()?,
            Some(("acked", n)) => acked = n.parse()?,
            _ => return Err(format!("the child printed {line:?}").into()),
        }
    }
    let status = child.wait()?;
    if status.code().is_some() {
        return Err(format!("the child ended by itself: {status}").into());
    }
    Ok((stored, acked))
}

fn check(dir: &Path, stored: u64, acked: u64) -> Result<(), Box<dyn Error>> {
    let (log, recovery) = Log::open(dir, limits())?;
    if !recovery.damaged.is_empty() {
        return Err(format!("damage after a kill: {:?}", recovery.damaged).into());
    }
    let base = recovery.checkpoint.map_or(Ok(1), |c| c.as_slice().try_into().map(u64::from_le_bytes))?;
    let replayed = recovery.records.first().map(|r| r.position.0);
    if replayed.is_some_and(|first| first != base) {
        return Err(format!("the checkpoint is of {base}, the records begin at {replayed:?}").into());
    }
    let reader = log.reader();
    for position in acked + 1..=stored {
        if reader.read(Position(position))? != Some((lane(position), payload(position))) {
            return Err(format!("position {position} was acknowledged and is not there").into());
        }
        if reader.next_unacked(lane(position), Position(position)) != Some(Position(position)) {
            return Err(format!("position {position} counts as acknowledged by the core and is not").into());
        }
    }
    Ok(())
}

fn kill_minus_nine() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (mut stored, mut acked) = (0, 0);
    for round in 0..ROUNDS {
        let (s, a) = run_and_kill(dir.path(), 5 + round * 17)?;
        (stored, acked) = (s.max(stored), a.max(acked));
        check(dir.path(), stored, acked)?;
    }
    let files = std::fs::read_dir(dir.path())?.count();
    eprintln!("{ROUNDS} kills: {stored} records stored, {acked} acknowledged, {files} files left, none lost");
    // Else this test would not have met deletions.
    if acked == 0 || files > 60 { Err("nothing was acknowledged and deleted".into()) } else { Ok(()) }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let result = match args.get(1).map(String::as_str) {
        Some("--child") => child(Path::new(args.get(2).map_or("", |dir| dir))),
        _ => kill_minus_nine(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spool_kill: {error}");
            ExitCode::FAILURE
        }
    }
}
