//! One deployment on loopback, all of it processes: ledger, core, controller, and gateways of one home.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use caregate_host::identity::{IdentityFiles, Role};
use caregate_protocol::id::{DeviceId, RecipientId};
use caregate_protocol::wrap::{HpkePrivateKey, generate_keypair};
use clinician_feed::opener::Opener;
use clinician_feed::password;
use core_cloud::store::{Embedded, Store as _};
use ed25519_dalek::SigningKey;
use edge_gateway::mqtt::credentials::Credential;

use crate::called::{Called, Node, Wallet, binary, call, until, write_private};
use crate::pki::Ca;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f";
const DEVICE: &str = "ecg-1";

fn free_tcp() -> SocketAddr {
    next_port(|address| TcpListener::bind(address).is_ok())
}

fn free_udp() -> SocketAddr {
    next_port(|address| UdpSocket::bind(address).is_ok())
}

/// The next that is free, below the range from which the kernel takes ports for sockets that do not care: daemons listen long after they
/// were configured, and a connection may have had it by then.
fn next_port(is_free: impl Fn(SocketAddr) -> bool) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = 20_000 + u16::try_from(std::process::id() % 240).unwrap() * 50;
    let next = || SocketAddr::from(([127, 0, 0, 1], from + NEXT.fetch_add(1, Ordering::Relaxed)));
    std::iter::repeat_with(next).find(|address| is_free(*address)).unwrap()
}

fn identity(files: &IdentityFiles) -> String {
    let IdentityFiles { certificate, key, ca } = files;
    format!("identity = {{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}\n")
}

/// The ledger, a hospital, a patient who grants everything to it, and where the daemons are.
pub(crate) struct Home {
    pub(crate) node: Node,
    pub(crate) recipient: RecipientId,
    pub(crate) hospital: HpkePrivateKey,
    ca: Ca,
    core: SocketAddr,
    core_admin: SocketAddr,
    policy: SocketAddr,
    controller_admin: SocketAddr,
    /// The block with the newest binding of a device.
    bound_at: Cell<u32>,
}

impl Home {
    /// With gateways of these names, whose device keys core and feed know.
    pub(crate) fn new(gateways: &[&str]) -> Self {
        let node = Node::start();
        let address = node.hospital("hospital", &[]);
        let (hospital, public) = generate_keypair();
        let (key, public) = (node.path("hospital.key"), hex::encode(public.0));
        node.ledger("participant key", &["--key", &key, "--hpke-public-key", &public]).done();
        let home = Self {
            recipient: address.parse().unwrap(),
            hospital,
            ca: Ca::new(),
            core: free_udp(),
            core_admin: free_tcp(),
            policy: free_udp(),
            controller_admin: free_tcp(),
            node,
            bound_at: Cell::new(0),
        };
        ctl(&["participant", "gateway-salt", "--out", &home.gateway_salt()]).done();
        home.configure_core(gateways);
        home.configure_controller();
        home
    }

    /// Another hospital that takes part; the core lets both subscribe as whom they are.
    pub(crate) fn second_hospital(&self) -> (RecipientId, HpkePrivateKey) {
        let address: RecipientId = self.node.hospital("clinic", &[]).parse().unwrap();
        let (private, public) = generate_keypair();
        let (key, public) = (self.node.path("clinic.key"), hex::encode(public.0));
        self.node.ledger("participant key", &["--key", &key, "--hpke-public-key", &public]).done();
        self.feeds(&[("hospital", self.recipient), ("clinic", address)]);
        (address, private)
    }

    /// Lets these subscribe at the core, as whom they are.
    pub(crate) fn feeds(&self, feeds: &[(&str, RecipientId)]) {
        let path = self.node.dir.path().join("core.toml");
        let mut text = fs::read_to_string(&path).unwrap();
        for (name, recipient) in feeds {
            text.push_str(&format!("[[feed]]\nname = \"{name}\"\nrecipients = [\"{recipient}\"]\n"));
        }
        fs::write(path, text).unwrap();
    }

    /// A hospital's feed, and where its page is.
    pub(crate) fn feed(
        &self,
        name: &str,
        recipient: RecipientId,
        key: &HpkePrivateKey,
        gateway: &str,
    ) -> (Daemon, SocketAddr) {
        let (dir, page, admin) = (self.node.dir.path(), free_tcp(), free_tcp());
        let hpke = dir.join(format!("{name}-hpke.key"));
        write_private(&hpke, &hex::encode(key.as_bytes()));
        let device_key = hex::encode(device_key(gateway).verifying_key().as_bytes());
        let text = format!(
            "listen = \"{page}\"\nadmin = \"{admin}\"\nrecipient = \"{recipient}\"\nhpke_key = {hpke:?}\njournal = {:?}\n{}\
             [core]\naddress = \"{}\"\nname = \"core-1\"\n\
             [[gateway]]\nname = \"{gateway}\"\ndevice_keys = [\"{device_key}\"]\n\
             [[user]]\nname = \"nurse\"\npassword_hash = \"{}\"\n",
            dir.join(format!("{name}-journal.jsonl")),
            identity(&self.ca.issue(dir, Role::Feed, name)),
            self.core,
            password::hash("correct horse").unwrap(),
        );
        fs::write(dir.join(format!("{name}.toml")), text).unwrap();
        (Daemon::start("clinician-feed", dir, name, admin), page)
    }

    /// Where the controller listens for gateways.
    pub(crate) fn policy(&self) -> SocketAddr {
        self.policy
    }

    /// A certificate of this deployment.
    pub(crate) fn issue(&self, role: Role, name: &str) -> IdentityFiles {
        self.ca.issue(self.node.dir.path(), role, name)
    }

    /// What this deployment's gateways are salted with on the ledger.
    fn gateway_salt(&self) -> String {
        self.node.path("gateway.salt")
    }

    fn ledger(&self) -> String {
        let Node { rpc, contract, .. } = &self.node;
        let salt = self.gateway_salt();
        format!(
            "[ledger]\nrpc = {rpc:?}\nchain_id = 4711\ncontract = {contract:?}\ngateway_salt = {salt:?}\n"
        )
    }

    fn configure_core(&self, gateways: &[&str]) {
        let dir = self.node.dir.path();
        let mut text = format!(
            "listen = \"{}\"\nadmin = \"{}\"\ndata = {:?}\n{}{}",
            self.core,
            self.core_admin,
            dir.join("core"),
            identity(&self.ca.issue(dir, Role::Core, "core-1")),
            self.ledger(),
        );
        for name in gateways {
            let key = hex::encode(device_key(name).verifying_key().as_bytes());
            text.push_str(&format!("[[gateway]]\nname = \"{name}\"\ndevice_keys = [\"{key}\"]\n"));
        }
        fs::write(dir.join("core.toml"), text).unwrap();
    }

    fn configure_controller(&self) {
        let dir = self.node.dir.path();
        let text = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"{}\"\ndata = {:?}\n{}[policy]\nlisten = \"{}\"\n{}",
            self.controller_admin,
            dir.join("controller"),
            identity(&self.ca.issue(dir, Role::Controller, "controller-1")),
            self.policy,
            self.ledger(),
        );
        fs::write(dir.join("controller.toml"), text).unwrap();
    }

    pub(crate) fn core(&self) -> Daemon {
        Daemon::start("core-cloud", self.node.dir.path(), "core", self.core_admin)
    }

    pub(crate) fn controller(&self) -> Daemon {
        Daemon::start("sdn-controller", self.node.dir.path(), "controller", self.controller_admin)
    }

    /// A patient with one device at the gateway of this name, who grants all to the hospital.
    pub(crate) fn patient(&self, gateway: &str) -> Wallet<'_> {
        let wallet = self.node.wallet("ann");
        let grantee = self.recipient.to_string();
        wallet.call("relationship", &["--label", "City", "--grantee", &grantee]).done();
        self.enrol(&wallet, gateway, &[]);
        wallet.call("grant", &["--label", "City"]).done();
        wallet
    }

    /// Binds the device at a gateway and writes its enrolment; the patient's pseudonym there.
    pub(crate) fn enrol(&self, wallet: &Wallet<'_>, gateway: &str, more: &[&str]) -> String {
        let device = ["--home", gateway, "--device", DEVICE, "--mac", "02:00:00:00:00:01"];
        let block = wallet.call("bind", &device).done()["ledger"]["block"].as_u64().unwrap();
        self.bound_at.set(u32::try_from(block).unwrap());
        let out = self.node.path(&format!("{gateway}-enrolment.toml"));
        let mut arguments = vec!["--home", gateway, "--out", &out];
        arguments.extend(more);
        wallet.call("enrol", &arguments).done()["patient"].as_str().unwrap().to_owned()
    }

    /// Waits until a gateway knows of the newest binding; what its device sends before goes to the quarantine.
    pub(crate) fn knows_device(&self, gateway: &Daemon) {
        gateway.reaches("caregate_gateway_policy_header_number ", self.bound_at.get().into());
    }

    /// Writes a gateway's configuration; `keys` is its table of that name.
    pub(crate) fn configure_gateway(&self, name: &str, data: &str, keys: &str) -> Gateway {
        let dir = self.node.dir.path();
        let (admin, mqtt) = (free_tcp(), free_tcp());
        let path = dir.join(format!("{name}-device.key"));
        write_private(&path, &hex::encode(device_key(name).as_bytes()));
        let device = DeviceId::new(DEVICE).unwrap();
        let Credential { device, username, salt, sha256 } =
            Credential::new(device, DEVICE, b"salt-of-the-test", SECRET);
        let text = format!(
            "data = {:?}\nadmin = \"{admin}\"\ndatapath = \"off\"\ndevice_key = {path:?}\n{}\
             [core]\naddress = \"{}\"\n[policy]\nenrolment = {:?}\ncontroller = {{ address = \"{}\" }}\n\
             [keys]\n{keys}\n[mqtt]\nlisten = \"{mqtt}\"\n\
             [[mqtt.credential]]\ndevice = \"{device}\"\nusername = \"{username}\"\nsalt = \"{salt}\"\nsha256 = \"{sha256}\"\n",
            dir.join(data),
            identity(&self.ca.issue(dir, Role::Gateway, name)),
            self.core,
            dir.join(format!("{name}-enrolment.toml")),
            self.policy,
        );
        let config = dir.join(format!("{name}.toml"));
        fs::write(&config, text).unwrap();
        Gateway { name: name.to_owned(), dir: dir.to_owned(), config, admin, mqtt }
    }

    /// The governors' word on a gateway.
    pub(crate) fn register_gateway(&self, name: &str, status: &str) -> Called {
        let governor = self.node.path("governor.key");
        let id = format!("spiffe://test.example/gateway/{name}");
        let salt = self.gateway_salt();
        let who = ["--gateway", &id, "--gateway-salt", &salt];
        let arguments = [&who[..], &["--governor-key", &governor, "--status", status]].concat();
        self.node.ledger("participant register", &arguments)
    }

    /// What the hospital finds in the core's store, which no daemon may hold: the readings' numbers, ascending, and what it refused.
    pub(crate) fn found(&self, gateways: &[&str]) -> (Vec<u64>, Vec<String>) {
        let keys = gateways.iter().map(|name| device_key(name).verifying_key());
        let mut opener = Opener::new(self.recipient, self.hospital.clone(), keys);
        let (mut rates, mut refused) = (Vec::new(), Vec::new());
        for record in self.records() {
            let taken = opener.take(&record);
            refused.extend(taken.refused.iter().map(|refused| format!("{refused:?}")));
            let readings = taken.opened.into_iter().flat_map(|opened| opened.readings);
            rates.extend(readings.filter_map(|reading| reading.seq));
        }
        // What waited while a connection was made comes as backlog, beside what is live.
        rates.sort_unstable();
        (rates, refused)
    }

    /// The hospital's queue at the core.
    pub(crate) fn records(&self) -> Vec<Vec<u8>> {
        self.records_of(self.recipient)
    }

    /// Anybody's.
    pub(crate) fn records_of(&self, recipient: RecipientId) -> Vec<Vec<u8>> {
        let store = Embedded::open(&self.node.dir.path().join("core")).unwrap();
        let (mut records, mut at) = (Vec::new(), 0);
        loop {
            let page = store.page(recipient, at, u64::MAX, 1 << 20).unwrap();
            if page.records.is_empty() {
                return records;
            }
            records.extend(page.records.into_iter().map(|(_, record)| record));
            at = page.next;
        }
    }
}

/// A local door for a gateway's configuration, and where it is. Nobody logs in.
pub(crate) fn door() -> (String, SocketAddr) {
    let address = free_tcp();
    let code = Credential::new(DeviceId::new(DEVICE).unwrap(), DEVICE, b"salt-of-the-test", SECRET);
    let Credential { salt, sha256, .. } = code;
    let code = format!("{{ salt = \"{salt}\", sha256 = \"{sha256}\" }}");
    (format!("[local]\nlisten = \"{address}\"\naccess_code = {code}"), address)
}

/// Each gateway's own, by its name.
pub(crate) fn device_key(name: &str) -> SigningKey {
    let mut seed = [3; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

/// A gateway that may be started.
pub(crate) struct Gateway {
    name: String,
    dir: PathBuf,
    config: PathBuf,
    admin: SocketAddr,
    mqtt: SocketAddr,
}

impl Gateway {
    pub(crate) fn start(&self) -> Daemon {
        Daemon::start("edge-gateway", &self.dir, &self.name, self.admin)
    }

    /// With a clock that is off by this, as `faketime` writes it.
    pub(crate) fn start_at(&self, offset: &str) -> Daemon {
        let library = fs::read_dir("/usr/lib").unwrap().find_map(|folder| {
            let path = folder.ok()?.path().join("faketime/libfaketime.so.1");
            path.is_file().then_some(path)
        });
        let library = library.expect("libfaketime is not there: apt-get install faketime");
        let environment = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        Daemon::start_with("edge-gateway", &self.dir, &self.name, self.admin, &environment)
    }

    /// `edge-gateway root …`: whether it was done, and what it said.
    pub(crate) fn root(&self, verb: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(binary("edge-gateway"));
        command.args(["root", verb, "--config"]).arg(&self.config).args(arguments);
        said(&command.stdin(Stdio::null()).output().unwrap())
    }

    /// `edge-gateway --check`.
    pub(crate) fn check(&self) -> (bool, String) {
        let mut command = Command::new(binary("edge-gateway"));
        command.arg("--check").arg("--config").arg(&self.config);
        said(&command.stdin(Stdio::null()).output().unwrap())
    }

    /// Publishes heart rates at QoS 1 with these numbers, and waits for each PUBACK; policy must be there by then.
    pub(crate) fn publish(&self, numbers: std::ops::Range<u64>) {
        let mut stream = until("the gateway admits the device", || self.connect());
        for number in numbers {
            let payload = format!(r#"{{"v":72,"seq":{number},"t":{}}}"#, 1_790_000_000_000 + number);
            until("a reading is acknowledged", || {
                let done = publish(&mut stream, &format!("vitals/v1/{DEVICE}/num/heart-rate"), &payload);
                if done.is_none() {
                    stream = until("the gateway admits the device", || self.connect());
                }
                done
            });
        }
    }

    /// Publishes an event, and waits for its PUBACK.
    pub(crate) fn event(&self, kind: &str) {
        until("an event is acknowledged", || {
            let topic = format!("vitals/v1/{DEVICE}/event/{kind}");
            publish(&mut self.connect()?, &topic, r#"{"seq":1}"#)
        });
    }

    /// Publishes an event that is not acknowledged: where nothing can be stored, MQTT 3.1.1 withholds the PUBACK.
    pub(crate) fn is_refused(&self, kind: &str) {
        let mut stream = until("the gateway admits the device", || self.connect());
        // Long enough for a PUBACK that should not come; the counter tells the rest.
        stream.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        let topic = format!("vitals/v1/{DEVICE}/event/{kind}");
        assert_eq!(publish(&mut stream, &topic, r#"{"seq":9}"#), None, "it was acknowledged");
    }

    fn connect(&self) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(self.mqtt).ok()?;
        let mut body = b"\0\x04MQTT\x04\xc2\0\x3c".to_vec();
        for text in [DEVICE, DEVICE, SECRET] {
            body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            body.extend(text.as_bytes());
        }
        stream.write_all(&[&[0x10, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()).ok()?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).ok()?;
        (answer == [0x20, 2, 0, 0]).then_some(stream)
    }
}

/// One PUBLISH, with the packet identifier 1.
fn publish(stream: &mut TcpStream, topic: &str, payload: &str) -> Option<()> {
    let length = u8::try_from(2 + topic.len() + 2 + payload.len()).unwrap();
    assert!(length < 128, "one byte of length");
    let head = [&[0x32, length, 0, u8::try_from(topic.len()).unwrap()], topic.as_bytes(), &[0, 1]].concat();
    stream.write_all(&[head.as_slice(), payload.as_bytes()].concat()).ok()?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).ok()?;
    assert_eq!(answer, [0x40, 2, 0, 1]);
    Some(())
}

fn said(output: &Output) -> (bool, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// A daemon; ended on drop.
pub(crate) struct Daemon {
    log: PathBuf,
    admin: SocketAddr,
    process: Child,
}

impl Daemon {
    fn start(program: &str, dir: &Path, name: &str, admin: SocketAddr) -> Self {
        Self::start_with(program, dir, name, admin, &[])
    }

    fn start_with(
        program: &str,
        dir: &Path,
        name: &str,
        admin: SocketAddr,
        environment: &[(&str, &str)],
    ) -> Self {
        let log = dir.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(binary(program));
        command.arg("--config").arg(dir.join(format!("{name}.toml"))).stdin(Stdio::null());
        command.envs(environment.iter().copied());
        let process = command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Self { log, admin, process }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn stop(mut self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let ended = self.process.wait().unwrap();
        assert!(ended.success(), "{ended}\n{}", self.tail());
    }

    fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }

    /// What its admin listener answers.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// The sum of a metric's series whose line begins with `series`; none while the daemon does not answer.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics")?;
        let values = text.lines().filter(|line| line.starts_with(series));
        Some(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits until the core has all that this gateway has spooled.
    pub(crate) fn delivers(&self) {
        until("the core has it all", || {
            let waiting = self.metric("caregate_gateway_spool_waiting ")?;
            let next = self.metric("caregate_gateway_spool_next ")?;
            (waiting < 1.0 && next > 0.0).then_some(())
        });
    }

    /// Waits until its log has these words.
    pub(crate) fn says(&self, words: &str) {
        until(words, || fs::read_to_string(&self.log).ok().filter(|text| text.contains(words)));
    }

    /// Waits until a metric has reached this.
    pub(crate) fn reaches(&self, series: &str, least: f64) {
        until(series, || self.metric(series).filter(|value| *value >= least));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if std::thread::panicking() {
            println!("--- {}\n{}", self.log.display(), self.tail());
        }
    }
}

/// So that this module's user needs one import.
pub(crate) fn ctl(arguments: &[&str]) -> Called {
    call(arguments)
}
