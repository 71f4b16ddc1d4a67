//! One home and one core on loopback: authority, keys, policy and configuration files, and the two daemons as processes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use caregate_host::identity::{IdentityFiles, Role};
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::{DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{Classes, Mac, RecipientKind, RecipientStatus};
use caregate_protocol::wrap::{HpkePrivateKey, generate_keypair};
use ed25519_dalek::SigningKey;
use edge_gateway::local::AccessCodeEntry;
use edge_gateway::mqtt::credentials::Credential;
use ledger_client::fixture;
use ledger_client::verify::{EnrolledDevice, Salt};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::pki::Ca;

/// The secret of every device here; enrolment would draw one for each.
pub(crate) const SECRET: &str = "000102030405060708090a0b0c0d0e0f";
/// How long any one condition may take: far above what it needs, so that only a fault runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const PATIENT: PatientId = fixture::Site::PATIENT;

/// Everything that the daemons' configuration names.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) recipient: RecipientId,
    pub(crate) hospital: HpkePrivateKey,
    pub(crate) device_key: SigningKey,
    pub(crate) mqtt: SocketAddr,
    pub(crate) gateway_admin: SocketAddr,
    core_admin: SocketAddr,
    core_prefix: Vec<String>,
    door: SocketAddr,
    bundle: Vec<u8>,
    data: PathBuf,
}

/// Where the core is, and what the daemons keep.
pub(crate) struct Surroundings {
    /// The folder of both daemons' data; else the site's own.
    pub(crate) data: Option<PathBuf>,
    pub(crate) core: SocketAddr,
    pub(crate) core_tcp: Option<SocketAddr>,
    pub(crate) core_admin: SocketAddr,
    /// What the core's command line begins with, where it is in another network.
    pub(crate) core_prefix: Vec<String>,
}

impl Surroundings {
    pub(crate) fn loopback() -> Self {
        Self { data: None, core: free_udp(), core_tcp: None, core_admin: free_tcp(), core_prefix: Vec::new() }
    }
}

/// An address that was free a moment ago.
fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The first of five UDP ports in a row that were free a moment ago: each life of the gateway takes them again at once.
fn free_lane_ports() -> u16 {
    // Below the range from which the kernel takes ports for sockets that do not care; other tests of this run look elsewhere.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = 12_000 + u16::try_from(std::process::id() % 140).unwrap() * 50;
    let free = |first: &u16| (*first..first + 5).all(|port| UdpSocket::bind(("0.0.0.0", port)).is_ok());
    std::iter::repeat_with(|| from + NEXT.fetch_add(5, Ordering::Relaxed)).find(free).unwrap()
}

fn identity(files: &IdentityFiles) -> String {
    let IdentityFiles { certificate, key, ca } = files;
    format!("identity = {{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}\n")
}

impl Site {
    /// `devices` are worn by one patient, who grants everything to one hospital.
    pub(crate) fn new(devices: &[&str]) -> Self {
        Self::within(devices, &Surroundings::loopback())
    }

    /// The same with the core elsewhere.
    pub(crate) fn within(devices: &[&str], around: &Surroundings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let ca = Ca::new();
        let device_key = SigningKey::from_bytes(&[3; 32]);
        key_file::write_hex(&path("device.key"), device_key.as_bytes(), Existing::Keep).unwrap();
        let (hospital, public) = generate_keypair();
        let (recipient, bundle) = enrol(dir.path(), devices, public.0);
        let (mqtt, gateway_admin) = (free_tcp(), free_tcp());
        let Surroundings { data, core, core_tcp, core_admin, core_prefix } = around;
        let data = data.clone().unwrap_or_else(|| dir.path().to_owned());
        let tcp = |key: &str| core_tcp.map(|address| format!("{key} = \"{address}\"\n")).unwrap_or_default();
        let door = free_tcp();
        let AccessCodeEntry { salt, sha256 } = AccessCodeEntry::new(b"salt-of-the-test", SECRET);
        let mut gateway = format!(
            "data = {:?}\nadmin = \"{gateway_admin}\"\nlog = \"text\"\ndatapath = \"off\"\ndevice_key = {:?}\n{}\
             [core]\naddress = \"{core}\"\n{}name = \"core-1\"\nlane_ports = {}\n\
             [policy]\nenrolment = {:?}\n[local]\nlisten = \"{door}\"\n\
             access_code = {{ salt = \"{salt}\", sha256 = \"{sha256}\" }}\n[mqtt]\nlisten = \"{mqtt}\"\n",
            data.join("gateway"),
            path("device.key"),
            identity(&ca.issue(dir.path(), Role::Gateway, "gateway-1")),
            tcp("tcp_address"),
            free_lane_ports(),
            path("enrolment.toml"),
        );
        for name in devices {
            let device = DeviceId::new(name).unwrap();
            let Credential { device, username, salt, sha256 } =
                Credential::new(device, name, b"salt-of-the-test", SECRET);
            gateway.push_str(&format!(
                "[[mqtt.credential]]\ndevice = \"{device}\"\nusername = \"{username}\"\nsalt = \"{salt}\"\nsha256 = \"{sha256}\"\n"
            ));
        }
        fs::write(path("gateway.toml"), gateway).unwrap();
        let core = format!(
            "listen = \"{core}\"\n{}admin = \"{core_admin}\"\ndata = {:?}\n{}\
             [[gateway]]\nname = \"gateway-1\"\ndevice_keys = [\"{}\"]\n",
            tcp("listen_tcp"),
            data.join("core"),
            identity(&ca.issue(dir.path(), Role::Core, "core-1")),
            hex::encode(device_key.verifying_key().as_bytes()),
        );
        fs::write(path("core.toml"), core).unwrap();
        let (core_admin, core_prefix) = (*core_admin, core_prefix.clone());
        Self {
            dir,
            recipient,
            hospital,
            device_key,
            mqtt,
            gateway_admin,
            core_admin,
            core_prefix,
            door,
            bundle,
            data,
        }
    }

    /// The gateway in a later life.
    pub(crate) fn gateway_again(&self) -> Daemon {
        Daemon::new("edge-gateway", self.dir.path(), "gateway", self.gateway_admin, &[])
    }

    /// The gateway, with its policy handed in. It keeps that: no later life of it is given any.
    pub(crate) fn gateway(&self) -> Daemon {
        let daemon = self.gateway_again();
        let begun = caregate_host::clock::monotonic();
        let answer = loop {
            match self.hand_in() {
                Ok(answer) => break answer,
                Err(error) => {
                    assert!(begun.elapsed() < PATIENCE, "the local door: {error}\n{}", daemon.tail())
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(answer.contains("\"refused\":null"), "{answer}\n{}", daemon.tail());
        daemon
    }

    fn hand_in(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.door)?;
        let length = self.bundle.len();
        write!(
            stream,
            "POST /policy/bundle HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(&self.bundle)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub(crate) fn core(&self) -> Daemon {
        Daemon::new("core-cloud", self.dir.path(), "core", self.core_admin, &self.core_prefix)
    }

    /// The folder of the core's store.
    pub(crate) fn store(&self) -> PathBuf {
        self.data.join("core")
    }
}

/// Writes the enrolment of one patient with these devices. Returns the hospital to which everything is granted, and the ledger's word.
fn enrol(dir: &Path, devices: &[&str], hpke_public_key: [u8; 32]) -> (RecipientId, Vec<u8>) {
    let mut ledger = fixture::Site::new(1);
    let hospital = fixture::Hospital::new(0x22, hpke_public_key);
    ledger.register(&hospital, RecipientStatus::Active, RecipientKind::Treating, false);
    ledger.grant(0, &hospital, 1, |grant| grant.stale_bound_s = 86_400);
    let device = |(nth, name): (u8, &&str)| EnrolledDevice {
        device: DeviceId::new(name).unwrap(),
        mac: Mac([2, 0, 0, 0, 1, nth]),
        salt: Salt([nth; 32]),
        classes: Classes::default(),
    };
    ledger.enrolment.patients[0].devices = (0..).zip(devices).map(device).collect();
    for nth in 0..devices.len() {
        ledger.bind(nth, true, 1);
    }
    fs::write(dir.join("enrolment.toml"), toml::to_string(&ledger.enrolment).unwrap()).unwrap();
    let now_s = u64::try_from(caregate_host::clock::now_us() / 1_000_000).unwrap();
    (hospital.id(), ledger.bytes(now_s))
}

/// A daemon's binary, which the same build has put beside this test's.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let beside = || test.ancestors().nth(2).unwrap().to_owned();
    let path = std::env::var_os("CAREGATE_BINARIES").map_or_else(beside, PathBuf::from).join(name);
    assert!(
        path.is_file(),
        "{} is not there; build first: cargo build --release -p edge-gateway -p core-cloud",
        path.display()
    );
    path
}

/// A daemon that may be killed and started again.
pub(crate) struct Daemon {
    prefix: Vec<String>,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    pub(crate) admin: SocketAddr,
    process: Option<Child>,
}

impl Daemon {
    fn new(program: &str, dir: &Path, name: &str, admin: SocketAddr, prefix: &[String]) -> Self {
        let (config, log) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.log")));
        let prefix = prefix.to_vec();
        let mut daemon = Self { prefix, program: binary(program), config, log, admin, process: None };
        daemon.start();
        daemon
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// With these environment variables.
    pub(crate) fn start_with(&mut self, variables: &[(&str, &str)]) {
        assert!(self.process.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut words = self.prefix.iter().map(OsStr::new).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .envs(variables.iter().copied());
        self.process = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// How it has ended by itself, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().unwrap()?;
        self.process = None;
        Some(status)
    }

    /// SIGKILL, at whatever it is doing. It must have been running.
    pub(crate) fn kill(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended by itself: {status}\n{}", self.program.display(), self.tail());
        }
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM; returns how it ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        let sent = kill_process(Pid::from_child(&process), Signal::TERM);
        assert!(sent.is_ok(), "{} ended by itself\n{}", self.program.display(), self.tail());
        process.wait().unwrap()
    }

    /// The last lines that it logged.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }

    /// [`metric`] of this daemon.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        metric(self.admin, series)
    }
}

/// An answer of the daemon behind this address; `None` while there is none.
pub(crate) fn page(admin: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The sum of a metric's series whose line begins with `series`; `None` while the daemon behind this address does not answer.
pub(crate) fn metric(admin: SocketAddr, series: &str) -> Option<f64> {
    let text = page(admin, "/metrics")?;
    let values = text.lines().filter(|line| line.starts_with(series));
    Some(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
        if std::thread::panicking() {
            println!("--- {}\n{}", self.log.display(), self.tail());
        }
    }
}
