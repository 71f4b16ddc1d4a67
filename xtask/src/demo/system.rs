//! The running system: which processes there are, in which order they start and stop, and what to ask them.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use caregate_host::key_file::{self, Existing};

use super::ctl::{Ctl, Outcome};
use super::deployment::{Deployment, Plan, Sensor, USER};
use super::mount::BpfMount;
use super::network::{Network, Place, Service};
use super::process::{Process, Start, get, metric, wait_until};
use crate::{build, say};

/// Time for a daemon to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Lane, DSCP and queue: expedited forwarding, two classes of assured forwarding (RFC 4594), and what may be late.
const LANES: [(&str, u8, u32); 5] =
    [("alarm", 46, 7), ("vitals", 34, 5), ("waveform", 26, 3), ("activity", 10, 1), ("backlog", 8, 0)];

/// The daemons, in the order in which they start. Every one has a configuration file of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Daemon {
    Ledger,
    Core,
    Controller,
    Hospital,
    Clinic,
    /// The gateway's privileged helper; as root alone.
    Helper,
    Gateway,
}

impl Daemon {
    const ALL: [Self; 7] = [
        Self::Ledger,
        Self::Core,
        Self::Controller,
        Self::Hospital,
        Self::Clinic,
        Self::Helper,
        Self::Gateway,
    ];

    /// Its name in the output and of its log.
    fn name(self) -> &'static str {
        match self {
            Self::Ledger => "ledger-node",
            Self::Core => "core-cloud",
            Self::Controller => "sdn-controller",
            Self::Hospital => "clinician-feed",
            Self::Clinic => "clinic-feed",
            Self::Helper => "caregate-datapathd",
            Self::Gateway => "edge-gateway",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Clinic => Self::Hospital.name(),
            Self::Ledger | Self::Core | Self::Controller | Self::Hospital | Self::Helper | Self::Gateway => {
                self.name()
            }
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Helper => "datapathd",
            Self::Ledger | Self::Core | Self::Controller | Self::Hospital | Self::Clinic | Self::Gateway => {
                self.name()
            }
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Ledger | Self::Controller => Place::Operator,
            Self::Core => Place::Core,
            Self::Hospital => Place::Hospital,
            Self::Clinic => Place::Clinic,
            Self::Helper | Self::Gateway => Place::Gateway,
        }
    }
}

/// A daemon's process and the sockets that outlive it: first the admin port's, then its page's, or the other way round where the
/// configuration says so.
struct Running {
    daemon: Daemon,
    admin: TcpListener,
    page: Option<TcpListener>,
    /// None once it was killed for good.
    process: Option<Process>,
}

impl Running {
    /// The sockets as `systemd:0` and `systemd:1`.
    fn sockets(&self) -> Vec<&TcpListener> {
        match (&self.page, self.daemon) {
            (Some(page), Daemon::Hospital | Daemon::Clinic) => vec![page, &self.admin],
            (Some(page), _) => vec![&self.admin, page],
            (None, _) => vec![&self.admin],
        }
    }
}

/// What the caller wants of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    /// Faster than real time.
    pub(super) speed: f64,
    /// TCP port of the hospital's page.
    pub(super) port: u16,
    /// The NATS server on which the core stores; without it, in a file.
    pub(super) nats: Option<&'a Path>,
}

/// All of it.
pub(super) struct System<'n> {
    pub(super) network: &'n Network,
    pub(super) deployment: Deployment,
    binaries: PathBuf,
    running: Vec<Running>,
    pub(super) sensors: Option<Process>,
    /// The server on which the core stores; ends after it.
    nats: Option<Process>,
    // Last: what is pinned there is in use until the processes have ended.
    _bpf: Option<BpfMount>,
}

impl<'n> System<'n> {
    /// Makes the deployment and starts every daemon, each when those it needs are ready. Sensors are started by
    /// [`Self::start_sensors`].
    pub(super) fn start(
        network: &'n Network,
        dir: &Path,
        sensors: &[Sensor],
        Wish { speed, port, nats }: Wish<'_>,
    ) -> anyhow::Result<Self> {
        let binaries = build::binaries()?;
        let page = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("listen on 127.0.0.1:{port}; --port takes another"))?;
        let bpf = match network {
            Network::Namespaces { .. } => Some(BpfMount::make(&dir.join("bpf"))?),
            Network::Loopback { .. } => None,
        };
        let began = clock::monotonic();
        let deployment = {
            let nats = nats.is_some();
            Deployment::make(Plan { dir, network, sensors, speed, binaries: &binaries, nats })?
        };
        say(&format!("demo: keys, chain and wallets are made ({} ms)", began.elapsed().as_millis()));
        let mut system =
            Self { network, deployment, binaries, running: Vec::new(), sensors: None, nats: None, _bpf: bpf };
        system.start_nats(nats)?;
        let mut page = Some(page);
        for daemon in Daemon::ALL {
            if daemon == Daemon::Helper && matches!(network, Network::Loopback { .. }) {
                continue;
            }
            let page = if daemon == Daemon::Hospital { page.take() } else { None };
            let took = system.launch(daemon, page)?;
            say(&format!("demo: {} is ready ({} ms)", daemon.name(), took.as_millis()));
            if daemon == Daemon::Ledger {
                system.consent(sensors)?;
            }
        }
        if let Network::Namespaces { .. } = network {
            system.mark_lanes()?;
        }
        Ok(system)
    }

    /// Beside the core; that waits for it.
    fn start_nats(&mut self, program: Option<&Path>) -> anyhow::Result<()> {
        let Some(program) = program else { return Ok(()) };
        let arguments = vec!["--config".into(), self.file("nats.conf").display().to_string()];
        let (name, place, logs) = ("nats-server", Some(Daemon::Core.place()), self.file("logs"));
        let start = Start { name, place, program, arguments, listeners: &[], logs: &logs };
        self.nats = Some(Process::start(self.network, start)?);
        say("demo: the core stores on a NATS server, which syncs each message");
        Ok(())
    }

    /// The operator's wish for the lanes: each has a mark by which the network can tell it.
    fn mark_lanes(&self) -> anyhow::Result<()> {
        for (lane, dscp, queue) in LANES {
            let file = self.file(&format!("lane-{lane}.json"));
            let intent = serde_json::json!({ "kind": "lane", "lane": lane, "dscp": dscp, "queue": queue });
            std::fs::write(&file, intent.to_string())?;
            let name = format!("lane-{lane}");
            self.operator(&["intents"], &["put", &name, &file.display().to_string()])?.done()?;
        }
        say("demo: the controller has the gateway mark its lanes (DSCP)");
        Ok(())
    }

    /// What people do before the gateway is plugged in: the hospitals take part, the patients bind their sensors and grant.
    fn consent(&self, sensors: &[Sensor]) -> anyhow::Result<()> {
        let (program, began) = (self.program("caregatectl"), clock::monotonic());
        let ctl = self.ctl(&program);
        self.deployment.ledger.register(ctl)?;
        for (at, patient) in self.deployment.patients.iter().enumerate() {
            patient.bind(ctl, at, sensors)?;
            patient.grant(ctl)?;
        }
        let took = began.elapsed().as_millis();
        say(&format!("demo: on the ledger: two hospitals, the patients' devices and grants ({took} ms)"));
        Ok(())
    }

    /// `caregatectl`, whose path the caller keeps.
    pub(super) fn ctl<'c>(&'c self, program: &'c Path) -> Ctl<'c> {
        Ctl { program, network: self.network }
    }

    fn launch(&mut self, daemon: Daemon, page: Option<TcpListener>) -> anyhow::Result<Duration> {
        let any = || TcpListener::bind("127.0.0.1:0").context("listen on 127.0.0.1");
        let page = match daemon {
            Daemon::Hospital | Daemon::Clinic | Daemon::Controller | Daemon::Gateway => {
                Some(page.map_or_else(any, Ok)?)
            }
            Daemon::Ledger | Daemon::Core | Daemon::Helper => None,
        };
        self.running.push(Running { daemon, admin: any()?, page, process: None });
        self.restart(daemon)?;
        let admin = self.admin(daemon)?;
        self.wait_until(&format!("{} is ready", daemon.name()), READY_TIMEOUT, || is_ready(admin))
    }

    /// Starts a daemon again, after it was killed.
    pub(super) fn restart(&mut self, daemon: Daemon) -> anyhow::Result<()> {
        let running = self.running(daemon)?;
        let (program, logs) = (self.program(daemon.program()), self.file("logs"));
        let arguments = vec!["--config".into(), self.config(daemon).display().to_string()];
        let start = Start {
            name: daemon.name(),
            place: Some(daemon.place()),
            program: &program,
            arguments,
            listeners: &running.sockets(),
            logs: &logs,
        };
        let process = Process::start(self.network, start)?;
        self.running_mut(daemon)?.process = Some(process);
        Ok(())
    }

    fn running(&self, daemon: Daemon) -> anyhow::Result<&Running> {
        let found = self.running.iter().find(|running| running.daemon == daemon);
        found.with_context(|| format!("{} is no part of this run", daemon.name()))
    }

    fn running_mut(&mut self, daemon: Daemon) -> anyhow::Result<&mut Running> {
        let found = self.running.iter_mut().find(|running| running.daemon == daemon);
        found.with_context(|| format!("{} is no part of this run", daemon.name()))
    }

    /// Its admin port.
    pub(super) fn admin(&self, daemon: Daemon) -> anyhow::Result<SocketAddr> {
        Ok(self.running(daemon)?.admin.local_addr()?)
    }

    /// Its page.
    pub(super) fn page_url(&self, daemon: Daemon) -> anyhow::Result<String> {
        let page = self.running(daemon)?.page.as_ref().context("it has no page")?;
        Ok(format!("http://{}", page.local_addr()?))
    }

    /// SIGKILL; whether it ended by that.
    pub(super) fn kill(&mut self, daemon: Daemon) -> anyhow::Result<bool> {
        let process = self.running_mut(daemon)?.process.as_mut().context("it does not run")?;
        let killed = process.kill()?;
        self.running_mut(daemon)?.process = None;
        Ok(killed)
    }

    /// Peak resident memory of the gateway so far, in MiB.
    pub(super) fn gateway_rss_mib(&self) -> f64 {
        let gateway = self.running(Daemon::Gateway).ok().and_then(|running| running.process.as_ref());
        gateway.and_then(Process::peak_rss_mib).unwrap_or(0.0)
    }

    /// Waits until `holds`, while all daemons live.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        holds: impl FnMut() -> bool,
    ) -> anyhow::Result<Duration> {
        let mut processes: Vec<&mut Process> =
            self.running.iter_mut().filter_map(|running| running.process.as_mut()).collect();
        wait_until(what, timeout, &mut processes, holds)
    }

    /// Waits until a daemon that was started again is ready.
    pub(super) fn wait_ready(&mut self, daemon: Daemon) -> anyhow::Result<Duration> {
        let admin = self.admin(daemon)?;
        self.wait_until(&format!("{} is ready", daemon.name()), READY_TIMEOUT, || is_ready(admin))
    }

    /// A metric of the gateway without labels.
    pub(super) fn gateway_metric(&self, name: &str) -> Option<f64> {
        metric(self.admin(Daemon::Gateway).ok()?, name)
    }

    pub(super) fn start_sensors(&mut self) -> anyhow::Result<()> {
        let arguments = vec![
            "--config".into(),
            self.deployment.config("sensors").display().to_string(),
            "--journal".into(),
            self.file("sensors.jsonl").display().to_string(),
        ];
        self.sensors = Some(self.tool("sensor-sim", "sensor-sim", Some(Place::Home), arguments)?);
        Ok(())
    }

    /// Calls `caregatectl` as the operator does, on the controller. `verb` may have two words.
    pub(super) fn operator(&self, verb: &[&str], arguments: &[&str]) -> anyhow::Result<Outcome> {
        let program = self.program("caregatectl");
        let url = format!("https://{}", self.network.listen(Service::Rest));
        let identity = self.deployment.dir.join("pki/operator-1").display().to_string();
        let mut words = vec![];
        words.extend(verb.first());
        words.extend(["--controller", &url, "--identity", &identity, "--controller-name", "controller-1"]);
        words.extend(verb.iter().skip(1));
        words.extend(arguments);
        self.ctl(&program).call(Some(Place::Operator), &words)
    }

    /// Breaks the glass at the second hospital, in the first patient's need; answers with what its feed says.
    pub(super) fn emergency(&self, minutes: &str) -> anyhow::Result<serde_json::Value> {
        let patient = self.deployment.patients.first().context("no patient")?;
        let (pseudonym, reason) = (self.file("pseudonym"), self.file("reason"));
        key_file::write(&pseudonym, patient.pseudonym.as_bytes(), Existing::Replace)?;
        key_file::write(&reason, b"Found unconscious in the street", Existing::Replace)?;
        let mut words = self.prefix(Daemon::Clinic);
        words.push(self.program("clinician-feed").display().to_string());
        let mut command = Command::new(words.first().context("no program")?);
        command.args(words.iter().skip(1)).arg("--config").arg(self.config(Daemon::Clinic)).arg("emergency");
        command.arg("--pseudonym-file").arg(&pseudonym).arg("--reason-file").arg(&reason);
        let output = command
            .args(["--clinician", USER, "--minutes", minutes, "--json"])
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!(
                "clinician-feed emergency: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.lines().last().unwrap_or_default())
            .with_context(|| format!("clinician-feed emergency said: {text}"))
    }

    /// What to put before a command so that it runs where a daemon does.
    pub(super) fn prefix(&self, daemon: Daemon) -> Vec<String> {
        self.network.prefix(daemon.place())
    }

    /// A daemon's configuration file.
    pub(super) fn config(&self, daemon: Daemon) -> PathBuf {
        self.deployment.config(daemon.config())
    }

    /// Starts a program that is no daemon, under a name of its own.
    pub(super) fn tool(
        &self,
        name: &'static str,
        program: &str,
        place: Option<Place>,
        arguments: Vec<String>,
    ) -> anyhow::Result<Process> {
        let (logs, program) = (self.file("logs"), self.program(program));
        let start = Start { name, place, program: &program, arguments, listeners: &[], logs: &logs };
        Process::start(self.network, start)
    }

    /// The program of that name.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// A file of this run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.deployment.dir.join(name)
    }

    /// Fails where a daemon has ended by itself.
    pub(super) fn daemons_alive(&mut self) -> anyhow::Result<()> {
        let daemons = self.running.iter_mut().filter_map(|running| running.process.as_mut());
        daemons.chain(self.nats.as_mut()).try_for_each(Process::alive)
    }

    /// Fails where the sensors have ended, which by themselves they do not.
    pub(super) fn sensors_alive(&mut self) -> anyhow::Result<()> {
        match self.sensors.as_mut().map_or(Ok(None), Process::ended)? {
            None => Ok(()),
            Some(status) => bail!("sensor-sim ended with {status}; see its log"),
        }
    }

    /// Stops in the order of the data's way, so that each part drains into the next.
    pub(super) fn stop_all(&mut self) -> anyhow::Result<()> {
        if let Some(mut sensors) = self.sensors.take() {
            sensors.end(None)?;
        }
        for running in self.running.iter_mut().rev() {
            let Some(mut process) = running.process.take() else { continue };
            let status = process.end(None)?;
            if !status.success() {
                bail!("{} ended with {status}", process.name);
            }
        }
        if let Some(mut nats) = self.nats.take() {
            // It ends by the signal's number where it has drained.
            nats.end(None)?;
        }
        Ok(())
    }
}

impl Drop for System<'_> {
    /// Where the demo failed: the last started ends first, as in [`System::stop_all`].
    fn drop(&mut self) {
        drop(self.sensors.take());
        while let Some(running) = self.running.pop() {
            drop(running);
        }
    }
}

pub(super) fn is_ready(address: SocketAddr) -> bool {
    get(address, "/readyz").is_ok_and(|(status, _)| status == 200)
}

/// Two patients with an ECG and a monitor each; or one patient who wears what was recorded.
pub(super) fn sensors(records: &[PathBuf]) -> Vec<Sensor> {
    let sensor = |device: String, patient, source: String, more: &str| Sensor {
        device,
        patient,
        source,
        more: more.into(),
    };
    if records.is_empty() {
        return (0..2)
            .flat_map(|patient| {
                [
                    sensor(format!("ecg-{}", patient + 1), patient, "\"ecg\"".into(), ""),
                    sensor(format!("monitor-{}", patient + 1), patient, "\"numerics\"".into(), ""),
                ]
            })
            .collect();
    }
    let record = |(at, path): (usize, &PathBuf)| {
        sensor(
            format!("record-{}", at + 1),
            0,
            // A machine may be slow, and a short record played faster: the story goes on for as long as it takes.
            format!("{{ record = {:?}, repeat = true }}", path.display().to_string()),
            "",
        )
    };
    records.iter().enumerate().map(record).collect()
}
