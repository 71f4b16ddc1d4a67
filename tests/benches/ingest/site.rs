//! Ours, on loopback: a gateway, a core and a hospital's feed, each as a process.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use caregate_host::identity::{IdentityFiles, Role};
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::{DeviceId, RecipientId};
use caregate_protocol::policy::{Classes, Mac, RecipientKind, RecipientStatus};
use caregate_protocol::wrap::HpkePrivateKey;
use clinician_feed::password;
use ed25519_dalek::SigningKey;
use edge_gateway::local::AccessCodeEntry;
use edge_gateway::mqtt::credentials::Credential;
use ledger_client::fixture;
use ledger_client::verify::{EnrolledDevice, Salt};
use tempfile::TempDir;

use crate::load::{Body, Client};
use crate::pki::Ca;
use crate::process::{Process, free_tcp, free_udp, metric, until};

/// The secret of every device and person here.
pub(crate) const SECRET: &str = "000102030405060708090a0b0c0d0e0f";
pub(crate) const USER: &str = "bench";
/// Room for the backlog of 256 MiB below the share from which waveforms are refused.
const SPOOL_BYTES_MAX: u64 = 400 << 20;
/// Devices beyond those that publish numbers: one for alarms.
pub(crate) const ALARM: &str = "belt-1";

pub(crate) struct Site {
    pub(crate) dir: TempDir,
    /// Where core and feed keep what is theirs, where that is not `dir`.
    _elsewhere: Option<TempDir>,
    pub(crate) gateway: Process,
    pub(crate) core: Process,
    pub(crate) feed: Process,
    pub(crate) mqtt: SocketAddr,
    pub(crate) page: SocketAddr,
    pub(crate) gateway_admin: SocketAddr,
    feed_admin: SocketAddr,
    door: SocketAddr,
    bundle: Vec<u8>,
}

fn identity(files: &IdentityFiles) -> String {
    let IdentityFiles { certificate, key, ca } = files;
    format!("identity = {{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}\n")
}

/// The name of a device.
pub(crate) fn device(nth: usize) -> String {
    format!("monitor-{nth}")
}

/// So many clients that publish on this kind of topic.
pub(crate) fn clients(count: usize, body: Body) -> Vec<Client> {
    let client = |nth| {
        let id = device(nth);
        let topic = topic(&id, body);
        Client { id, password: SECRET, topic, body }
    };
    (0..count).map(client).collect()
}

pub(crate) fn topic(device: &str, body: Body) -> String {
    let kind = match body {
        Body::Numeric => "num/heart-rate",
        Body::Event => "event/fall",
        Body::Wave => "wave/ecg-ii",
    };
    format!("vitals/v1/{device}/{kind}")
}

impl Site {
    /// `devices` of them are worn by one patient, who grants everything to one hospital.
    pub(crate) fn start(devices: usize) -> anyhow::Result<Self> {
        Self::start_with(devices, &target()?, None)
    }

    /// The same on the gateway's own disk: core and feed write to memory, as if they were other hosts.
    pub(crate) fn start_apart(devices: usize, disk: &Path) -> anyhow::Result<Self> {
        Self::start_with(devices, disk, Some(TempDir::new_in("/dev/shm")?))
    }

    fn start_with(devices: usize, disk: &Path, elsewhere: Option<TempDir>) -> anyhow::Result<Self> {
        let dir = TempDir::new_in(disk)?;
        let path = |name: &str| dir.path().join(name);
        let far = |name: &str| elsewhere.as_ref().unwrap_or(&dir).path().join(name);
        let names: Vec<_> = (0..devices).map(device).chain([ALARM.to_owned()]).collect();
        let ca = Ca::new();
        let device_key = SigningKey::from_bytes(&[3; 32]);
        let signer = hex::encode(device_key.verifying_key().as_bytes());
        key_file::write_hex(&path("device.key"), device_key.as_bytes(), Existing::Keep)?;
        let hpke_key = [7; 32];
        key_file::write_hex(&path("hpke.key"), &hpke_key, Existing::Keep)?;
        let public = HpkePrivateKey::from_bytes(hpke_key).public_key()?;
        let (recipient, bundle) = enrol(dir.path(), &names, public.0)?;
        let (mqtt, core, door, page) = (free_tcp()?, free_udp()?, free_tcp()?, free_tcp()?);
        let (gateway_admin, core_admin, feed_admin) = (free_tcp()?, free_tcp()?, free_tcp()?);
        let AccessCodeEntry { salt, sha256 } = AccessCodeEntry::new(b"salt-of-the-bench", SECRET);
        let mut gateway = format!(
            "data = {:?}\nadmin = \"{gateway_admin}\"\nlog = \"text\"\ndatapath = \"off\"\ndevice_key = {:?}\n{}\
             [core]\naddress = \"{core}\"\nname = \"core-1\"\n[spool]\nbytes_max = {SPOOL_BYTES_MAX}\n\
             [policy]\nenrolment = {:?}\n[local]\nlisten = \"{door}\"\n\
             access_code = {{ salt = \"{salt}\", sha256 = \"{sha256}\" }}\n[mqtt]\nlisten = \"{mqtt}\"\nconnections_max = 128\npublishes_per_s = 1000000\n",
            path("gateway"),
            path("device.key"),
            identity(&ca.issue(dir.path(), Role::Gateway, "gateway-1")),
            path("enrolment.toml"),
        );
        gateway.push_str(&credentials(&names)?);
        fs::write(path("gateway.toml"), gateway)?;
        let text = format!(
            "listen = \"{core}\"\nadmin = \"{core_admin}\"\ndata = {:?}\n{}\
             [[gateway]]\nname = \"gateway-1\"\ndevice_keys = [\"{signer}\"]\n\
             [[feed]]\nname = \"hospital-1\"\nrecipients = [\"{recipient}\"]\n",
            far("core"),
            identity(&ca.issue(dir.path(), Role::Core, "core-1")),
        );
        fs::write(path("core.toml"), text)?;
        let text = format!(
            "listen = \"{page}\"\nadmin = \"{feed_admin}\"\nrecipient = \"{recipient}\"\nhpke_key = {:?}\njournal = {:?}\n{}\
             [core]\naddress = \"{core}\"\nname = \"core-1\"\n\
             [[gateway]]\nname = \"gateway-1\"\ndevice_keys = [\"{signer}\"]\n\
             [[user]]\nname = \"{USER}\"\npassword_hash = \"{}\"\n",
            path("hpke.key"),
            far("feed-journal.jsonl"),
            identity(&ca.issue(dir.path(), Role::Feed, "hospital-1")),
            password::hash(SECRET)?,
        );
        fs::write(path("feed.toml"), text)?;
        let start = |program: &str, name: &str| {
            let arguments = vec!["--config".into(), path(&format!("{name}.toml")).display().to_string()];
            Process::start(&binary(program)?, arguments, far(&format!("{name}.log")))
        };
        let (core, feed) = (start("core-cloud", "core")?, start("clinician-feed", "feed")?);
        let gateway = start("edge-gateway", "gateway")?;
        let site = Self {
            gateway,
            core,
            feed,
            mqtt,
            page,
            gateway_admin,
            feed_admin,
            door,
            bundle,
            dir,
            _elsewhere: elsewhere,
        };
        site.hand_in()?;
        site.connected()?;
        Ok(site)
    }

    /// Hands the policy in at the local door, once that is open. The gateway keeps it for its later lives.
    fn hand_in(&self) -> anyhow::Result<()> {
        until("the local door opens", || TcpStream::connect(self.door).is_ok())
            .with_context(|| self.gateway.tail())?;
        let mut stream = TcpStream::connect(self.door)?;
        let length = self.bundle.len();
        write!(
            stream,
            "POST /policy/bundle HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(&self.bundle)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.contains("\"refused\":null") {
            bail!("{answer}\n{}", self.gateway.tail());
        }
        Ok(())
    }

    /// Waits until gateway and feed are connected to the core.
    pub(crate) fn connected(&self) -> anyhow::Result<()> {
        let lanes = || metric(self.gateway_admin, "caregate_gateway_lane_connected") == Some(5.0);
        until("every lane is connected", lanes).with_context(|| self.gateway.tail())?;
        until("the feed is ready", || ready(self.feed_admin)).map(drop).with_context(|| self.feed.tail())
    }

    /// Records that the core has not acknowledged.
    pub(crate) fn waiting(&self) -> Option<f64> {
        metric(self.gateway_admin, "caregate_gateway_spool_waiting ")
    }
}

/// The devices' entries.
fn credentials(names: &[String]) -> anyhow::Result<String> {
    let mut entries = String::new();
    for name in names {
        let Credential { device, username, salt, sha256 } =
            Credential::new(DeviceId::new(name)?, name, b"salt-of-the-bench", SECRET);
        entries.push_str(&format!(
            "[[mqtt.credential]]\ndevice = \"{device}\"\nusername = \"{username}\"\nsalt = \"{salt}\"\nsha256 = \"{sha256}\"\n"
        ));
    }
    Ok(entries)
}

fn ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.starts_with("HTTP/1.1 200"))
}

/// Writes the enrolment of one patient with these devices. Returns the hospital to which everything is granted, and the ledger's word.
fn enrol(
    dir: &Path,
    devices: &[String],
    hpke_public_key: [u8; 32],
) -> anyhow::Result<(RecipientId, Vec<u8>)> {
    let mut ledger = fixture::Site::new(1);
    let hospital = fixture::Hospital::new(0x22, hpke_public_key);
    ledger.register(&hospital, RecipientStatus::Active, RecipientKind::Treating, false);
    ledger.grant(0, &hospital, 1, |grant| grant.stale_bound_s = 86_400);
    let enrolled = |(nth, name): (u8, &String)| -> anyhow::Result<EnrolledDevice> {
        Ok(EnrolledDevice {
            device: DeviceId::new(name)?,
            mac: Mac([2, 0, 0, 0, 1, nth]),
            salt: Salt([nth; 32]),
            classes: Classes::default(),
        })
    };
    ledger.enrolment.patients[0].devices = (0..).zip(devices).map(enrolled).collect::<anyhow::Result<_>>()?;
    for nth in 0..devices.len() {
        ledger.bind(nth, true, 1);
    }
    fs::write(dir.join("enrolment.toml"), toml::to_string(&ledger.enrolment)?)?;
    let now_s = u64::try_from(caregate_host::clock::now_us() / 1_000_000)?;
    Ok((hospital.id(), ledger.bytes(now_s)))
}

/// On the disk of the target folder, so that syncs count.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("this binary has no folder")?.to_owned())
}

/// A daemon's binary, which the same build has put two folders up from this one.
fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = target()?.parent().context("no target folder")?.join(name);
    if !path.is_file() {
        bail!(
            "{} is not there; build first: cargo build --release -p edge-gateway -p core-cloud -p clinician-feed",
            path.display()
        );
    }
    Ok(path)
}
