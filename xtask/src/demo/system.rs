//! The running system: which processes there are, in which order they start and stop, and what to ask them.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::deployment::{Deployment, Sensor};
use super::network::{Network, Place};
use super::process::{Process, Start, get, metric, wait_until};
use crate::{build, say};

/// Time for a daemon to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// All of it.
pub(super) struct System<'n> {
    network: &'n Network,
    pub(super) deployment: Deployment,
    binaries: PathBuf,
    listeners: Listeners,
    pub(super) gateway: Process,
    pub(super) core: Process,
    pub(super) feed: Process,
    pub(super) sensors: Option<Process>,
}

/// Sockets that outlive the daemons they are handed to.
struct Listeners {
    page: TcpListener,
    gateway: TcpListener,
    core: TcpListener,
    feed: TcpListener,
}

impl<'n> System<'n> {
    /// Starts core, feed and gateway, and waits until each is ready. Sensors are started by [`Self::start_sensors`].
    pub(super) fn start(
        network: &'n Network,
        dir: &Path,
        sensors: &[Sensor],
        speed: f64,
        port: u16,
    ) -> anyhow::Result<Self> {
        let binaries = build::binaries()?;
        let deployment = Deployment::make(dir, network, sensors, speed, &binaries.join("clinician-feed"))?;
        let any = || TcpListener::bind("127.0.0.1:0").context("listen on 127.0.0.1");
        let page = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("listen on 127.0.0.1:{port}; --port takes another"))?;
        let listeners = Listeners { page, gateway: any()?, core: any()?, feed: any()? };
        let start = |name: &'static str, place, sockets: &[&TcpListener]| -> anyhow::Result<Process> {
            daemon(network, &binaries, &deployment, name, place, sockets)
        };
        let core = start("core-cloud", Place::Core, &[&listeners.core])?;
        let feed = start("clinician-feed", Place::Hospital, &[&listeners.page, &listeners.feed])?;
        let gateway = start("edge-gateway", Place::Gateway, &[&listeners.gateway])?;
        let mut system =
            Self { network, deployment, binaries, listeners, gateway, core, feed, sensors: None };
        for (name, address) in [
            ("core-cloud", system.core_admin()?),
            ("clinician-feed", system.feed_admin()?),
            ("edge-gateway", system.gateway_admin()?),
        ] {
            let took = system.wait_ready(name, address)?;
            say(&format!("demo: {name} is ready ({} ms)", took.as_millis()));
        }
        Ok(system)
    }

    pub(super) fn wait_ready(&mut self, name: &str, address: SocketAddr) -> anyhow::Result<Duration> {
        wait_until(
            &format!("{name} is ready"),
            READY_TIMEOUT,
            &mut [&mut self.core, &mut self.feed, &mut self.gateway],
            || is_ready(address),
        )
    }

    pub(super) fn page_url(&self) -> String {
        match self.listeners.page.local_addr() {
            Ok(address) => format!("http://{address}"),
            Err(error) => error.to_string(),
        }
    }

    pub(super) fn gateway_admin(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listeners.gateway.local_addr()?)
    }

    fn core_admin(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listeners.core.local_addr()?)
    }

    fn feed_admin(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listeners.feed.local_addr()?)
    }

    /// Records that the gateway holds and the core has not acknowledged.
    pub(super) fn waiting(&self) -> Option<f64> {
        metric(self.gateway_admin().ok()?, "caregate_gateway_spool_waiting")
    }

    pub(super) fn start_sensors(&mut self) -> anyhow::Result<()> {
        let arguments = vec![
            "--config".into(),
            self.deployment.config("sensors").display().to_string(),
            "--journal".into(),
            self.file("sensors.jsonl").display().to_string(),
        ];
        self.sensors = Some(self.tool("sensor-sim", Some(Place::Home), arguments)?);
        Ok(())
    }

    /// Starts a program that is no daemon.
    pub(super) fn tool(
        &self,
        name: &'static str,
        place: Option<Place>,
        arguments: Vec<String>,
    ) -> anyhow::Result<Process> {
        let logs = self.deployment.dir.join("logs");
        let program = self.binaries.join(name);
        Process::start(
            self.network,
            Start { name, place, program: &program, arguments, listeners: &[], logs: &logs },
        )
    }

    /// The program of that name.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// A file of this run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.deployment.dir.join(name)
    }

    /// Starts the gateway again, after it was killed.
    pub(super) fn restart_gateway(&mut self) -> anyhow::Result<()> {
        self.gateway = daemon(
            self.network,
            &self.binaries,
            &self.deployment,
            "edge-gateway",
            Place::Gateway,
            &[&self.listeners.gateway],
        )?;
        Ok(())
    }

    /// Fails where a daemon has ended by itself.
    pub(super) fn daemons_alive(&mut self) -> anyhow::Result<()> {
        self.core.alive()?;
        self.feed.alive()?;
        self.gateway.alive()
    }

    /// Whether the sensors have ended since the last look; fails where they did not end well.
    pub(super) fn sensors_done(&mut self) -> anyhow::Result<bool> {
        let Some(status) = self.sensors.as_mut().map_or(Ok(None), Process::ended)? else { return Ok(false) };
        if !status.success() {
            anyhow::bail!("sensor-sim ended with {status}; see its log");
        }
        self.sensors = None;
        Ok(true)
    }

    /// What to put before a command so that it runs in the hospital.
    pub(super) fn in_hospital(&self) -> Vec<String> {
        self.network.prefix(Place::Hospital)
    }

    /// Stops in the order of the data's way, so that each part drains into the next.
    pub(super) fn stop_all(&mut self) -> anyhow::Result<()> {
        if let Some(mut sensors) = self.sensors.take() {
            sensors.end(None)?;
        }
        for part in [&mut self.gateway, &mut self.feed, &mut self.core] {
            let status = part.end(None)?;
            if !status.success() {
                anyhow::bail!("{} ended with {status}", part.name);
            }
        }
        Ok(())
    }
}

pub(super) fn is_ready(address: SocketAddr) -> bool {
    get(address, "/readyz").is_ok_and(|(status, _)| status == 200)
}

fn daemon(
    network: &Network,
    binaries: &Path,
    deployment: &Deployment,
    name: &'static str,
    place: Place,
    listeners: &[&TcpListener],
) -> anyhow::Result<Process> {
    let arguments = vec!["--config".into(), deployment.config(name).display().to_string()];
    let (program, logs) = (binaries.join(name), deployment.dir.join("logs"));
    Process::start(
        network,
        Start { name, place: Some(place), program: &program, arguments, listeners, logs: &logs },
    )
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
            format!("{{ record = {:?} }}", path.display().to_string()),
            "",
        )
    };
    records.iter().enumerate().map(record).collect()
}
