//! The spool beside redb and sled in the same role, and the disk beneath them: figures for `docs/adr/0002-spool.md`.
//!
//! `cargo bench -p edge-gateway --bench spool -- [--dir DIR] [--rounds N] [--commits N]`. The last line is one JSON object.
//! Every run is a process of its own, so that CPU time, bytes written and memory are its own; rounds alternate between the
//! stores, and the figures are medians over rounds. The role: group commits of 16 records of 400 bytes, each synced before
//! the next; what is 1,024 records old is acknowledged, which means deleted, with the next commit.
//!
//! Each round also kills each store (SIGKILL) in the middle of such commits, at other places each time, and counts what is gone of what its
//! commits had answered for. A kill leaves the page cache: what a power cut takes is `cargo xtask chaos`'s to find.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use caregate_protocol::id::Lane;
use edge_gateway::spool::{Limits, Log, Position, Reader};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Map, Value, json};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const RECORD_BYTES: usize = 400;
const GROUP: u64 = 16;
const IN_FLIGHT: u64 = 1024;
/// Commits before anything is counted: three files of the log, after which it recycles them.
const WARMUP: u64 = 4000;
/// Records left behind, not acknowledged, for the recovery: 40 MB.
const BACKLOG: u64 = 100_000;
const BACKLOG_GROUP: u64 = 250;
/// Chain heads and duplicate filter of a home with a few patients.
const CHECKPOINT_BYTES: usize = 256 << 10;
/// redb and sled get the cache that a router could spare.
const CACHE_BYTES: usize = 8 << 20;
/// Kills of each store in a round.
const KILLS: usize = 4;
/// Commits before the first kill of a run, and how many more before each next one: twenty come as far as the log's second file.
const KILL_AFTER: (usize, usize) = (100, 97);
const STORES: [&str; 3] = ["log", "redb", "sled"];

/// A store in the spool's role.
trait Store: Sized {
    fn open(dir: &Path) -> Result<Self>;
    /// Stores the records from `first` on and forgets `acked`; durable when it returns.
    fn commit(&mut self, first: u64, records: &[Vec<u8>], acked: Range<u64>) -> Result<()>;
    /// Shows all records that are there, with their positions.
    fn read_all(&self, show: &mut dyn FnMut(u64, &[u8])) -> Result<()>;
}

struct OwnLog {
    log: Log,
    reader: Reader,
}

impl Store for OwnLog {
    fn open(dir: &Path) -> Result<Self> {
        let (log, recovery) = Log::open(&dir.join("spool"), Limits::with_budget(256 << 20))?;
        if !recovery.damaged.is_empty() {
            return Err(format!("{:?}", recovery.damaged).into());
        }
        let reader = log.reader();
        Ok(Self { log, reader })
    }

    fn commit(&mut self, first: u64, records: &[Vec<u8>], acked: Range<u64>) -> Result<()> {
        if self.log.rotation_due() {
            self.log.rotate(&vec![7; CHECKPOINT_BYTES])?;
        }
        if !acked.is_empty() {
            self.log.ack(RangeInclusive::new(acked.start, acked.end - 1))?;
        }
        for (i, record) in records.iter().enumerate() {
            let position = self.log.append(Lane::Vitals, record)?;
            if position.0 != first + i as u64 {
                return Err("positions don't follow".into());
            }
        }
        Ok(self.log.sync()?)
    }

    fn read_all(&self, show: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
        let mut from = Position(0);
        while let Some(position) = self.reader.next_unacked(Lane::Vitals, from) {
            if let Some((_, record)) = self.reader.read(position)? {
                show(position.0, &record);
            }
            from = Position(position.0 + 1);
        }
        Ok(())
    }
}

struct Redb(Database);

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("spool");

impl Store for Redb {
    fn open(dir: &Path) -> Result<Self> {
        Ok(Self(Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("spool.redb"))?))
    }

    fn commit(&mut self, first: u64, records: &[Vec<u8>], acked: Range<u64>) -> Result<()> {
        let transaction = self.0.begin_write()?; // Durability::Immediate
        {
            let mut table = transaction.open_table(TABLE)?;
            for (position, record) in (first..).zip(records) {
                table.insert(position, record.as_slice())?;
            }
            for position in acked {
                table.remove(position)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn read_all(&self, show: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        for row in table.iter()? {
            let (position, record) = row?;
            show(position.value(), record.value());
        }
        Ok(())
    }
}

struct Sled(sled::Db);

impl Store for Sled {
    fn open(dir: &Path) -> Result<Self> {
        let cache = CACHE_BYTES as u64;
        let config = sled::Config::new().path(dir.join("spool.sled")).cache_capacity(cache);
        Ok(Self(config.flush_every_ms(None).open()?))
    }

    fn commit(&mut self, first: u64, records: &[Vec<u8>], acked: Range<u64>) -> Result<()> {
        let mut batch = sled::Batch::default();
        for (position, record) in (first..).zip(records) {
            batch.insert(&position.to_be_bytes(), record.as_slice());
        }
        for position in acked {
            batch.remove(&position.to_be_bytes());
        }
        self.0.apply_batch(batch)?;
        self.0.flush()?;
        Ok(())
    }

    fn read_all(&self, show: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
        for row in self.0.iter() {
            let (position, record) = row?;
            show(u64::from_be_bytes(position.as_ref().try_into()?), &record);
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is all shell")]
fn now() -> Instant {
    Instant::now()
}

/// Bytes that don't compress and differ by position, as ciphertext does (xorshift).
fn record(position: u64) -> Vec<u8> {
    let mut x = position.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        Some(x)
    };
    std::iter::from_fn(next).flat_map(u64::to_le_bytes).take(RECORD_BYTES).collect()
}

fn group(first: u64, count: u64) -> Vec<Vec<u8>> {
    (first..first + count).map(record).collect()
}

/// The first position that is not acknowledged once the commit that begins at `first` is done.
fn unacked(first: u64) -> u64 {
    first.saturating_sub(IN_FLIGHT).max(1)
}

/// A commit of the role, which begins at `first`.
fn commit<S: Store>(store: &mut S, first: u64, records: &[Vec<u8>]) -> Result<()> {
    store.commit(first, records, unacked(first.saturating_sub(GROUP))..unacked(first))
}

/// What a process has used so far.
struct Used {
    at: Instant,
    device: u64,
    written: u64,
    cpu_s: f64,
}

impl Used {
    fn now(dir: &Path) -> Result<Self> {
        let (device, written) = (device_bytes(dir)?, proc_field("/proc/self/io", "write_bytes:")?);
        Ok(Self { at: now(), device, written, cpu_s: cpu_seconds()? })
    }
}

/// Commits in the role; the figures of this process after the warm-up.
fn work<S: Store>(dir: &Path, commits: u64) -> Result<Value> {
    let mut store = S::open(dir)?;
    let mut before = Used::now(dir)?;
    let mut waits = Vec::new();
    for number in 0..WARMUP + commits {
        if number == WARMUP {
            before = Used::now(dir)?;
            waits.clear();
        }
        let first = number * GROUP + 1;
        let records = group(first, GROUP);
        let started = now();
        commit(&mut store, first, &records)?;
        waits.push(started.elapsed());
    }
    let seconds = before.at.elapsed().as_secs_f64();
    drop(store);
    let after = Used::now(dir)?;
    let (count, payload) = (lossy(commits * GROUP), lossy(commits * GROUP * RECORD_BYTES as u64));
    let (p50, p99) = percentiles(waits);
    Ok(json!({
        "syncs_per_s": lossy(commits) / seconds,
        "records_per_s": count / seconds,
        "sync_ms_p50": p50,
        "sync_ms_p99": p99,
        "write_amplification": lossy(after.written - before.written) / payload,
        "write_amplification_device": lossy(after.device - before.device) / payload,
        "cpu_s_per_100k_records": (after.cpu_s - before.cpu_s) * 1e5 / count,
        "peak_rss_mib": lossy(proc_field("/proc/self/status", "VmHWM:")?) / 1024.0,
    }))
}

/// Leaves a backlog behind, says so, and waits to be killed.
fn fill<S: Store>(dir: &Path) -> Result<Value> {
    let mut store = S::open(dir)?;
    for first in (1..BACKLOG).step_by(usize::try_from(BACKLOG_GROUP)?) {
        store.commit(first, &group(first, BACKLOG_GROUP), 0..0)?;
    }
    writeln!(io::stdout(), "filled")?;
    io::stdin().read_line(&mut String::new())?;
    Err("nobody killed this process".into())
}

/// Opens after the kill and reads everything.
fn recover<S: Store>(dir: &Path) -> Result<Value> {
    let started = now();
    let store = S::open(dir)?;
    let opened = started.elapsed();
    let mut found = 0;
    store.read_all(&mut |_, record| found += u64::from(!record.is_empty()))?;
    if found != BACKLOG {
        return Err(format!("{found} of {BACKLOG} records are back").into());
    }
    Ok(json!({
        "recovery_ms_100k_records": ms(opened),
        "read_ms_100k_records": ms(started.elapsed() - opened),
        "recovery_peak_rss_mib": lossy(proc_field("/proc/self/status", "VmHWM:")?) / 1024.0,
    }))
}

/// Commits in the role until it is killed; after each it says the last record that it answers for.
fn answer<S: Store>(dir: &Path) -> Result<Value> {
    let mut store = S::open(dir)?;
    for first in (1..u64::MAX - GROUP).step_by(usize::try_from(GROUP)?) {
        commit(&mut store, first, &group(first, GROUP))?;
        writeln!(io::stdout(), "{}", first + GROUP - 1)?;
    }
    Err("nobody killed this process".into())
}

/// Opens after such a kill: how many of the records up to `last` are gone, or other than they were.
fn survivors<S: Store>(dir: &Path, last: u64) -> Result<Value> {
    let store = S::open(dir)?;
    // The commit that it was killed in may have deleted what it acknowledges.
    let wanted = unacked(last + 1)..last + 1;
    let mut whole = 0;
    store.read_all(&mut |position, bytes| {
        whole += u64::from(wanted.contains(&position) && bytes == record(position));
    })?;
    Ok(json!({ "lost": wanted.end - wanted.start - whole }))
}

fn child<S: Store>(what: &str, dir: &Path, commits: u64) -> Result<Value> {
    match what {
        "work" => work::<S>(dir, commits),
        "answer" => answer::<S>(dir),
        "survivors" => survivors::<S>(dir, commits),
        "fill" => fill::<S>(dir),
        "recover" => recover::<S>(dir),
        _ => Err(format!("unknown run {what}").into()),
    }
}

/// Appends of 4 KiB with fdatasync: to a file that grows, that has room allocated, and that is filled with zeroes.
fn disk(dir: &Path) -> Result<Value> {
    let mut figures = Map::new();
    for room in ["growing", "allocated", "zeroed"] {
        let path = dir.join(room);
        let file = File::create(&path)?;
        match room {
            "allocated" => rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 8 << 20)?,
            "zeroed" => file.write_all_at(&vec![0; 8 << 20], 0)?,
            _ => {}
        }
        file.sync_all()?;
        let bytes = record(1).repeat(11);
        let mut waits = Vec::new();
        for i in 0..1000 {
            file.write_all_at(&bytes[..4096], i * 4096)?;
            let before = now();
            file.sync_data()?;
            waits.push(before.elapsed());
        }
        let (p50, p99) = percentiles(waits);
        figures.insert(format!("fdatasync_{room}_ms_p50"), p50.into());
        figures.insert(format!("fdatasync_{room}_ms_p99"), p99.into());
        fs::remove_file(&path)?;
    }
    Ok(figures.into())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn lossy(number: u64) -> f64 {
    number as f64
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn percentiles(mut waits: Vec<Duration>) -> (f64, f64) {
    waits.sort_unstable();
    let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().map_or(0.0, ms);
    (at(50), at(99))
}

fn proc_field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)).ok_or("no such field")?;
    Ok(line.split_whitespace().next().ok_or("no value")?.parse()?)
}

/// User and system time of all threads. The kernel counts them in hundredths of a second for every program (`USER_HZ`).
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no name")?.1.split_whitespace().collect();
    let ticks = |i: usize| -> Result<u64> { Ok(fields.get(i).ok_or("no field")?.parse()?) };
    Ok(lossy(ticks(11)? + ticks(12)?) / 100.0)
}

/// Bytes written to the device beneath `dir` so far, by anybody, journal included.
fn device_bytes(dir: &Path) -> Result<u64> {
    let device = fs::metadata(dir)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    Ok(stat.split_whitespace().nth(6).ok_or("no field")?.parse::<u64>()? * 512)
}

/// A process of its own that does `what` on `store`, and what it says.
fn spawn(store: &str, what: &str, dir: &Path, commits: u64) -> Result<(Child, BufReader<ChildStdout>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--child", store, what])
        .arg(dir)
        .arg(commits.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(child.stdout.take().ok_or("no output")?);
    Ok((child, said))
}

/// Kills `store` some time after so many commits, and opens it again: how many records it has lost.
fn lost(store: &str, dir: &Path, commits: usize) -> Result<u64> {
    let (mut child, said) = spawn(store, "answer", dir, 0)?;
    let (mut last, mut is_killed) = (0, false);
    for (number, line) in (1..).zip(said.lines()) {
        last = line?.parse()?;
        if number == commits {
            child.kill()?;
            // What it said before it died counts too.
            is_killed = true;
        }
    }
    child.wait()?;
    if !is_killed {
        return Err(format!("{store} ended by itself").into());
    }
    let found = run(store, "survivors", dir, last)?;
    Ok(found["lost"].as_u64().ok_or("it did not count")?)
}

/// Runs `what` on `store`. `fill` is killed as soon as it is done.
fn run(store: &str, what: &str, dir: &Path, commits: u64) -> Result<Value> {
    let (mut child, mut said) = spawn(store, what, dir, commits)?;
    let mut line = String::new();
    said.read_line(&mut line)?;
    if what == "fill" && line.trim() == "filled" {
        child.kill()?;
        child.wait()?;
        return Ok(Value::Null);
    }
    if !child.wait()?.success() {
        return Err(format!("{what} of {store} failed").into());
    }
    Ok(serde_json::from_str(&line)?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of each figure over the rounds, to three decimals.
fn medians(rounds: &[Value]) -> Value {
    let names = rounds.first().and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let of = |name: &String| rounds.iter().filter_map(|r| r.get(name)?.as_f64()).collect();
    names
        .map(|name| (name.clone(), ((median(of(name)) * 1e3).round() / 1e3).into()))
        .collect::<Map<_, _>>()
        .into()
}

struct Arguments {
    dir: PathBuf,
    rounds: usize,
    commits: u64,
}

fn arguments(args: &[String]) -> Result<Arguments> {
    let mut parsed = Arguments { dir: std::env::temp_dir(), rounds: 3, commits: 4000 };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--bench" => {}
            "--dir" => parsed.dir = value()?.into(),
            "--rounds" => parsed.rounds = value()?.parse()?,
            "--commits" => parsed.commits = value()?.parse()?,
            _ => return Err(format!("unknown argument {arg}").into()),
        }
    }
    Ok(parsed)
}

fn bench(args: &Arguments) -> Result<Value> {
    let mut disks = Vec::new();
    let mut figures: [Vec<Value>; 3] = Default::default();
    let mut gone = [0; 3];
    for round in 1..=args.rounds {
        disks.push(disk(&args.dir)?);
        for ((store, rounds), gone) in STORES.into_iter().zip(&mut figures).zip(&mut gone) {
            eprintln!("round {round} of {}: {store}", args.rounds);
            let dir = tempfile::tempdir_in(&args.dir)?;
            let mut figures = run(store, "work", dir.path(), args.commits)?;
            let dir = tempfile::tempdir_in(&args.dir)?;
            run(store, "fill", dir.path(), 0)?;
            let recovery = run(store, "recover", dir.path(), 0)?;
            if let (Some(all), Value::Object(more)) = (figures.as_object_mut(), recovery) {
                all.extend(more);
            }
            rounds.push(figures);
            for kill in (round - 1) * KILLS..round * KILLS {
                let dir = tempfile::tempdir_in(&args.dir)?;
                *gone += lost(store, dir.path(), KILL_AFTER.0 + kill * KILL_AFTER.1)?;
            }
        }
    }
    let mut result = json!({
        "bench": "spool", "rounds": args.rounds, "commits": args.commits, "group": GROUP,
        "record_bytes": RECORD_BYTES, "disk": medians(&disks),
    });
    for ((store, rounds), gone) in STORES.into_iter().zip(&figures).zip(gone) {
        result[store] = medians(rounds);
        result[store]["kills"] = (args.rounds * KILLS).into();
        result[store]["records_lost"] = gone.into();
    }
    Ok(result)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--child", store, what, dir, commits] => {
            commits.parse().map_err(Into::into).and_then(|commits| match store {
                "log" => child::<OwnLog>(what, Path::new(dir), commits),
                "redb" => child::<Redb>(what, Path::new(dir), commits),
                _ => child::<Sled>(what, Path::new(dir), commits),
            })
        }
        _ => arguments(&args).and_then(|args| bench(&args)),
    };
    match result.and_then(|value| Ok(writeln!(io::stdout(), "{value}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spool bench: {error}");
            ExitCode::FAILURE
        }
    }
}
