//! A whole deployment in one folder: authority, certificates, keys, the ledger's chain, wallets, and each part's configuration file.

mod configs;
mod ledger;
mod nats;
mod patient;

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use caregate_host::clock;
use caregate_host::identity::Role;
use caregate_host::key_file::{self, Existing};
use ring::rand::{SecureRandom, SystemRandom};

pub(super) use self::ledger::{Domain, Ledger};
pub(super) use self::patient::Patient;
use super::ctl::Ctl;
use super::network::{Network, Service};
use crate::pki::{Authority, DeviceKey, Issued, Request, SensorPassword};

/// The person who logs in at either hospital.
pub(super) const USER: &str = "clinician";
/// The gateway's name in its certificate.
pub(super) const GATEWAY: &str = "gateway-1";
/// The gateway's OpenFlow datapath id.
pub(super) const DATAPATH_ID: &str = "00000000ca7e0001";
/// How long the demo's certificates last, in days.
const DAYS: u32 = 2;

/// A simulated sensor.
#[derive(Debug, Clone)]
pub(super) struct Sensor {
    pub(super) device: String,
    /// Index of the patient who wears it.
    pub(super) patient: usize,
    /// TOML of `source`.
    pub(super) source: String,
    /// TOML of further keys.
    pub(super) more: String,
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) dir: &'a Path,
    pub(super) network: &'a Network,
    pub(super) sensors: &'a [Sensor],
    /// Faster than real time.
    pub(super) speed: f64,
    /// Where the binaries are.
    pub(super) binaries: &'a Path,
    /// Whether the core stores on a NATS server.
    pub(super) nats: bool,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) dir: PathBuf,
    /// Of [`USER`], at both hospitals.
    pub(super) password: String,
    pub(super) password_file: PathBuf,
    /// On the gateway's label, for the patient's page.
    pub(super) access_code: String,
    /// The public half of the gateway's, in hexadecimal.
    pub(super) device_key: String,
    pub(super) ledger: Ledger,
    pub(super) patients: Vec<Patient>,
    pub(super) sensors: Vec<Sensor>,
}

impl Deployment {
    pub(super) fn config(&self, part: &str) -> PathBuf {
        self.dir.join(format!("{part}.toml"))
    }

    /// Makes everything that needs no running process.
    pub(super) fn make(plan: Plan<'_>) -> anyhow::Result<Self> {
        let Plan { dir, network, sensors, binaries, .. } = plan;
        let program = binaries.join("caregatectl");
        let ctl = Ctl { program: &program, network };
        let ledger = Ledger::make(dir, network, ctl, &binaries.join("ledger-node"))?;
        let count = sensors.iter().map(|s| s.patient + 1).max().unwrap_or(1);
        let patients = (0..count)
            .map(|at| Patient::enrol(dir, at, ctl, &ledger, sensors))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (password, password_file) = (hex::encode(random::<8>()?), dir.join("clinician.password"));
        key_file::write(&password_file, password.as_bytes(), Existing::Keep)?;
        let (code, access_code) = SensorPassword::generate("label", "label")?;
        let device_key = DeviceKey::generate(&dir.join("gateway-1.device"), Existing::Keep)?;
        let deployment = Self {
            dir: dir.to_owned(),
            device_key: device_key.public.clone(),
            password,
            password_file,
            access_code: access_code.as_str().to_owned(),
            ledger,
            patients,
            sensors: sensors.to_vec(),
        };
        let identities = Identities::issue(dir, network)?;
        let credentials = deployment.write_sensors(plan)?;
        let password_hash = hash_password(&binaries.join("clinician-feed"), &deployment.password)?;
        deployment.write_configs(&configs::Inputs {
            network,
            identities: &identities,
            device_key,
            credentials: &credentials,
            access_code: (&code.salt, &code.sha256),
            password_hash: &password_hash,
            nats: if plan.nats { deployment.write_nats(network)? } else { String::new() },
        })?;
        Ok(deployment)
    }

    /// Writes `sensors.toml`; returns the gateway's side of it.
    fn write_sensors(&self, plan: Plan<'_>) -> anyhow::Result<String> {
        use std::fmt::Write as _;
        let Plan { network, sensors, speed, .. } = plan;
        let mut text = format!("broker = \"{}\"\nspeed = {speed:?}\n", network.listen(Service::Mqtt));
        let mut credentials = String::new();
        for (at, sensor) in sensors.iter().enumerate() {
            let (credential, secret) = SensorPassword::generate(&sensor.device, &sensor.device)?;
            write!(
                text,
                "\n[[device]]\nid = \"{0}\"\nusername = \"{0}\"\npassword = \"{1}\"\nsource = {2}\nseed = {3}\n{4}\n",
                sensor.device,
                secret.as_str(),
                sensor.source,
                sensor.patient + 1,
                sensor.more,
            )?;
            if let Some(wearable) = network.wearable(at) {
                writeln!(text, "interface = \"{}\"", wearable.interface)?;
            }
            write!(
                credentials,
                "\n[[mqtt.credential]]\ndevice = \"{}\"\nusername = \"{}\"\nsalt = \"{}\"\nsha256 = \"{}\"\n",
                credential.device, credential.username, credential.salt, credential.sha256
            )?;
        }
        self.write("sensors", &text)?;
        Ok(credentials)
    }

    fn write(&self, part: &str, text: &str) -> anyhow::Result<()> {
        // Some of them hold passwords or hashes.
        key_file::write(&self.config(part), text.as_bytes(), Existing::Keep).context(part.to_owned())
    }
}

/// Everybody's certificate.
#[derive(Debug)]
struct Identities {
    gateway: Issued,
    core: Issued,
    hospital: Issued,
    clinic: Issued,
    controller: Issued,
}

impl Identities {
    fn issue(dir: &Path, network: &Network) -> anyhow::Result<Self> {
        let now_s = clock::now_ms() / 1000;
        let authority = Authority::init(&dir.join("pki"), "demo.caregate", now_s, Existing::Keep)?;
        let issue = |role: Role, name: &str, ip: Vec<IpAddr>| {
            let request = Request { role, name: name.into(), dns: Vec::new(), ip, days: DAYS };
            authority.issue(&request, &dir.join("pki").join(name), now_s, Existing::Keep)
        };
        // For people's tools, which look for it in its place.
        issue(Role::Operator, "operator-1", Vec::new())?;
        Ok(Self {
            gateway: issue(Role::Gateway, GATEWAY, vec![network.listen(Service::Mqtt).ip()])?,
            core: issue(Role::Core, "core-1", Vec::new())?,
            hospital: issue(Role::Feed, "hospital-1", Vec::new())?,
            clinic: issue(Role::Feed, "clinic-1", Vec::new())?,
            controller: issue(Role::Controller, "controller-1", vec![network.listen(Service::Rest).ip()])?,
        })
    }
}

fn hash_password(feed: &Path, password: &str) -> anyhow::Result<String> {
    let mut child = Command::new(feed)
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| feed.display().to_string())?;
    child.stdin.take().context("no pipe")?.write_all(password.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("clinician-feed hash-password: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_unspecified| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}
