//! A whole deployment in one folder: authority, certificates, keys, policy, and each part's configuration file.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use caregate_host::clock;
use caregate_host::identity::Role;
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::{DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{RecipientEntry, RecipientKind, RecipientStatus};
use ledger_client::verify::{Address, Domain};
use ledger_client::wallet::PatientSeed;
use ring::rand::{SecureRandom, SystemRandom};

use super::network::{Network, Service};
use crate::pki::{Authority, DeviceKey, HpkeKey, Issued, Request, SensorPassword};
use crate::policy::{DemoPatient, Terms, demo_document, store_document, store_enrolment};

/// The person who logs in.
pub(super) const USER: &str = "clinician";
/// How long the demo's certificates and grants last, in days.
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

/// The folder.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) dir: PathBuf,
    pub(super) password: String,
    pub(super) password_file: PathBuf,
}

impl Deployment {
    pub(super) fn config(&self, part: &str) -> PathBuf {
        self.dir.join(format!("{part}.toml"))
    }

    /// Makes everything. `feed` is the binary, which hashes the login's password.
    pub(super) fn make(
        dir: &Path,
        network: &Network,
        sensors: &[Sensor],
        speed: f64,
        feed: &Path,
    ) -> anyhow::Result<Self> {
        let now_s = clock::now_ms() / 1000;
        let authority = Authority::init(&dir.join("pki"), "demo.caregate", now_s, Existing::Keep)?;
        let issue = |role: Role, name: &str, ip: Vec<IpAddr>| -> anyhow::Result<String> {
            let request = Request { role, name: name.into(), dns: Vec::new(), ip, days: DAYS };
            Ok(identity(&authority.issue(&request, &dir.join("pki").join(name), now_s, Existing::Keep)?))
        };
        let gateway_identity = issue(Role::Gateway, "gateway-1", vec![network.listen(Service::Mqtt).ip()])?;
        let core_identity = issue(Role::Core, "core-1", Vec::new())?;
        let feed_identity = issue(Role::Feed, "hospital-1", Vec::new())?;
        let device_key = DeviceKey::generate(&dir.join("gateway-1.device"), Existing::Keep)?;
        let hpke = HpkeKey::generate(&dir.join("hospital-1.hpke"), Existing::Keep)?;
        let recipient = RecipientId(random()?);
        let patients = sensors.iter().map(|s| s.patient + 1).max().unwrap_or(1);
        let patients: Vec<_> = (0..patients)
            .map(|_| Ok((PatientId(random()?), PatientSeed::generate())))
            .collect::<anyhow::Result<_>>()?;
        policy(dir, &patients, sensors, recipient, &hpke)?;
        let (password, password_file) = (hex::encode(random::<8>()?), dir.join("clinician.password"));
        key_file::write(&password_file, password.as_bytes(), Existing::Keep)?;
        let hash = hash_password(feed, &password)?;
        let deployment = Self { dir: dir.to_owned(), password, password_file };
        let credentials = deployment.sensors(network, sensors, speed)?;
        let gateway = format!(
            "data = {data:?}\nadmin = \"systemd:0\"\ndevice_key = {device:?}\n{gateway_identity}\n\
             [core]\naddress = \"{core}\"\nname = \"core-1\"\n\n\
             [policy]\nfile = {policy:?}\nenrolment = {enrolment:?}\n\n\
             [mqtt]\nlisten = \"{mqtt}\"\n{credentials}",
            data = dir.join("gateway"),
            device = device_key.key,
            core = network.core_for_gateway(),
            policy = dir.join("policy.json"),
            enrolment = dir.join("enrolment.toml"),
            mqtt = network.listen(Service::Mqtt),
        );
        deployment.write("edge-gateway", &gateway)?;
        let signer = format!("device_keys = [\"{}\"]\n", device_key.public);
        let core = format!(
            "listen = \"{listen}\"\nadmin = \"systemd:0\"\ndata = {data:?}\n{core_identity}\n\
             [[gateway]]\nname = \"gateway-1\"\n{signer}\n\
             [[feed]]\nname = \"hospital-1\"\nrecipients = [\"{recipient}\"]\n",
            listen = network.listen(Service::Quic),
            data = dir.join("core"),
        );
        deployment.write("core-cloud", &core)?;
        let mut page = format!(
            "listen = \"systemd:0\"\nadmin = \"systemd:1\"\nrecipient = \"{recipient}\"\nhpke_key = {hpke:?}\n{feed_identity}\n\
             [core]\naddress = \"{core}\"\nname = \"core-1\"\n\n[[gateway]]\nname = \"gateway-1\"\n{signer}\n\
             [[user]]\nname = \"{USER}\"\npassword_hash = \"{hash}\"\n",
            hpke = hpke.key,
            core = network.listen(Service::Quic),
        );
        for (at, (patient, _)) in patients.iter().enumerate() {
            write!(
                page,
                "\n[[bed]]\npatient = \"{patient}\"\nbed = \"Bed {}\"\ncategory = \"adult\"\n",
                at + 1
            )?;
        }
        deployment.write("clinician-feed", &page)?;
        Ok(deployment)
    }

    /// Writes `sensors.toml`; returns the gateway's side of it.
    fn sensors(&self, network: &Network, sensors: &[Sensor], speed: f64) -> anyhow::Result<String> {
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

fn identity(issued: &Issued) -> String {
    format!(
        "identity = {{ certificate = {:?}, key = {:?}, ca = {:?} }}\n",
        issued.certificate, issued.key, issued.ca
    )
}

fn policy(
    dir: &Path,
    patients: &[(PatientId, PatientSeed)],
    sensors: &[Sensor],
    recipient: RecipientId,
    hpke: &HpkeKey,
) -> anyhow::Result<()> {
    let mut hpke_public_key = [0; 32];
    hex::decode_to_slice(&hpke.public, &mut hpke_public_key)?;
    let recipients = [RecipientEntry {
        id: recipient,
        hpke_public_key,
        status: RecipientStatus::Active,
        kind: RecipientKind::Treating,
    }];
    let now_s = u64::try_from(clock::now_ms() / 1000)?;
    let terms = Terms::treatment(now_s - 60, now_s + u64::from(DAYS) * 86_400);
    let worn = |patient: usize| -> anyhow::Result<Vec<DeviceId>> {
        let devices = sensors.iter().filter(|s| s.patient == patient);
        devices.map(|s| DeviceId::new(&s.device).with_context(|| s.device.clone())).collect()
    };
    let demo: Vec<_> = patients
        .iter()
        .enumerate()
        .map(|(at, (patient, seed))| Ok(DemoPatient { patient: *patient, seed, devices: worn(at)? }))
        .collect::<anyhow::Result<_>>()?;
    // No contract yet: the ledger of this first cut is a file, for which chain 0 and a random address stand.
    let domain = Domain { chain_id: 0, verifying_contract: Address(random()?) };
    let (document, enrolment) = demo_document(&demo, &recipients, domain, &terms, now_s)?;
    store_document(&dir.join("policy.json"), &document)?;
    store_enrolment(&dir.join("enrolment.toml"), &enrolment)
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
