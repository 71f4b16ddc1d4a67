//! The story without a person, and what was seen of it. First the data path: the uplink is cut and returns, the gateway is killed and
//! restarted. Then the control path, step by step. The pages are open throughout; at the end everything is counted.

mod control;
mod data;
mod measure;
mod watch;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;

pub(super) use self::control::Seen as ControlSeen;
use super::deployment::USER;
use super::figures::{Figures, Sync, mib};
use super::pages::Pages;
use super::process::{Process, Start, wait_until};
use super::system::{Daemon, System};
use crate::stop;
use crate::{build, say};

/// Time for the backlog to drain after the cut, and for everything to arrive at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for the browser to show the first reading.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(90);

/// How the story is played.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script<'a> {
    /// From the first reading on the page.
    pub(super) seconds: u64,
    pub(super) records: &'a [PathBuf],
    pub(super) screenshot: Option<&'a Path>,
    /// In namespaces, with XDP.
    pub(super) root: bool,
}

/// What was seen to happen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) cut: bool,
    pub(super) returned: bool,
    pub(super) killed: bool,
    pub(super) recovered: bool,
    pub(super) backlog_s: f64,
    pub(super) peak_rss_mib: f64,
    pub(super) control: control::Seen,
    /// None where records are replayed, which may have no heart rate.
    pub(super) watch: Option<watch::Seen>,
    /// Unix milliseconds that latencies leave out.
    exclude: Vec<(i64, i64)>,
}

/// Who watches.
struct Audience {
    /// The independent reader of the hospital's stream.
    reader: Process,
    /// The same at the second hospital.
    clinic: Process,
    /// The hospital's page, with its clock.
    browser: Process,
    /// Everybody's pages.
    pages: Pages,
}

/// Plays it.
pub(super) fn play(system: &mut System<'_>, script: Script<'_>) -> anyhow::Result<Figures> {
    let sync = Sync::start(&system.deployment.dir)?;
    let mut audience = Audience::gather(system, script)?;
    system.start_sensors()?;
    say("story: sensors publish; waiting for the page to show it");
    let log = system.file("logs/browser.log");
    let processes = &mut [&mut audience.browser, &mut audience.reader];
    wait_until("the page shows a reading", BROWSER_TIMEOUT, processes, || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.lines().any(|line| line == "ready"))
    })?;
    let start = clock::monotonic();
    let at = |part: f64| start + Duration::from_secs(script.seconds).mul_f64(part);
    let mut seen = Seen::default();
    pause_until(system, at(0.1))?;
    if script.screenshot.is_some() {
        // Now, while traces run; the script takes one at its end otherwise.
        audience.browser.signal("-USR1")?;
    }
    data::cut(system, &mut seen)?;
    pause_until(system, at(0.25))?;
    system.sensors_alive()?;
    data::kill(system, &mut seen)?;
    audience.open_patients_page(system)?;
    pause_until(system, at(0.35))?;
    if script.records.is_empty() {
        let watched = seen.watch.insert(watch::Seen::default());
        watch::play(system, &mut audience.pages, watched)?;
    }
    control::play(system, &mut audience.pages, script, &mut seen)?;
    pause_until(system, at(1.0))?;
    data::finish(system, &mut seen)?;
    measure::wait_for_readers(system, &mut audience)?;
    for process in
        [&mut audience.reader, &mut audience.clinic, &mut audience.browser, &mut audience.pages.process]
    {
        process.end(None)?;
    }
    system.stop_all()?;
    say("story: opening the core's store, with the patients' roots and with the hospitals' keys");
    let report = measure::measure(system, script, &mut seen)?;
    let binary_mib = mib(std::fs::metadata(system.program("edge-gateway"))?.len());
    let root = script.root;
    Ok(Figures { report, seen, fdatasync_ms_p99: sync.stop()?, gateway_binary_mib: binary_mib, root })
}

impl Audience {
    fn gather(system: &System<'_>, script: Script<'_>) -> anyhow::Result<Self> {
        let hospital = system.page_url(Daemon::Hospital)?;
        let reader = reader(system, "feed-reader", &hospital, "feed.jsonl")?;
        let clinic = reader_at_clinic(system)?;
        let node = which("node")?;
        let browser = browser(system, &hospital, &node, script.screenshot)?;
        let mut pages = Pages::start(system.network, &system.deployment.dir, &node)?;
        let login = [("input[name=user]", USER), ("input[name=password]", &*system.deployment.password)];
        pages.open("hospital", &hospital, &login)?;
        pages.open("clinic", &system.page_url(Daemon::Clinic)?, &login)?;
        pages.open("dashboard", &system.page_url(Daemon::Controller)?, &[])?;
        let mut audience = Self { reader, clinic, browser, pages };
        audience.open_patients_page(system)?;
        Ok(audience)
    }

    /// The gateway's page; who was logged in there is logged out by its restart.
    fn open_patients_page(&mut self, system: &System<'_>) -> anyhow::Result<()> {
        let code = [("input[name=code]", &*system.deployment.access_code)];
        self.pages.open("patient", &system.page_url(Daemon::Gateway)?, &code)
    }
}

fn reader(system: &System<'_>, name: &'static str, url: &str, out: &str) -> anyhow::Result<Process> {
    let file = |path: PathBuf| path.display().to_string();
    let arguments = vec![
        "--url".into(),
        url.into(),
        "--user".into(),
        USER.into(),
        "--password-file".into(),
        file(system.deployment.password_file.clone()),
        "--out".into(),
        file(system.file(out)),
        "--from".into(),
        "0".into(),
    ];
    system.tool(name, "feed-reader", None, arguments)
}

fn reader_at_clinic(system: &System<'_>) -> anyhow::Result<Process> {
    reader(system, "clinic-reader", &system.page_url(Daemon::Clinic)?, "clinic.jsonl")
}

fn browser(
    system: &System<'_>,
    url: &str,
    node: &Path,
    screenshot: Option<&Path>,
) -> anyhow::Result<Process> {
    let script = build::root()?.join("clinician-feed/web/e2e/trace.mjs");
    let mut arguments = vec![
        script.display().to_string(),
        "--url".into(),
        url.into(),
        "--user".into(),
        USER.into(),
        "--password-file".into(),
        system.deployment.password_file.display().to_string(),
        "--out".into(),
        system.file("browser.jsonl").display().to_string(),
    ];
    if let Some(file) = screenshot {
        arguments.extend(["--screenshot".into(), std::path::absolute(file)?.display().to_string()]);
    }
    let logs = system.file("logs");
    let start = Start { name: "browser", place: None, program: node, arguments, listeners: &[], logs: &logs };
    Process::start(system.network, start)
}

fn which(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.exists())
        .with_context(|| format!("{program} is not on PATH"))
}

/// Lets time pass, while daemons and sensors live.
fn pause_until(system: &mut System<'_>, moment: std::time::Instant) -> anyhow::Result<()> {
    while clock::monotonic() < moment {
        system.daemons_alive()?;
        system.sensors_alive()?;
        if stop::requested() {
            bail!("stopped");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn pause(system: &mut System<'_>, time: Duration) -> anyhow::Result<()> {
    pause_until(system, clock::monotonic() + time)
}
