//! Puts the parts together: opens what is on disk, starts the doors, the committer and the uplink, and drains them in
//! that order when it is told to stop.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::identity::{Identity, Role, peer_id};
use caregate_host::{admin, clock, config, dir, key_file, kill_point, net, shutdown};
use caregate_protocol::id::{DeviceId, Lane};
use caregate_protocol::policy::BoundDevice;
use caregate_protocol::segment::Cipher;
use ed25519_dalek::SigningKey;
use ledger_client::verify::{Enrolment, Pins};
use prometheus::{IntCounter, Registry};
use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::audit::Displays;
use crate::config::{BrokerEntry, ConfigFile, MqttEntry};
use crate::datapath::policy::{Fixed, TCP, UDP};
use crate::datapath::{self, Datapath};
use crate::hints::Hints;
use crate::ingest::{self, Inlet, Intake};
use crate::keys::KeyStore;
use crate::local::LocalEntry;
use crate::metrics::Metrics;
use crate::mqtt::access::Access;
use crate::mqtt::broker::{self, BrokerConfig};
use crate::mqtt::credentials::Credentials;
use crate::mqtt::kept::SessionFile;
use crate::mqtt::limits::Limits as MqttLimits;
use crate::mqtt::metrics::{BrokerMetrics, ServerMetrics};
use crate::mqtt::publisher::Publisher;
use crate::mqtt::server::{CertificateRefused, Server, TlsDoor};
use crate::mqtt::tunnel::Tunnel;
use crate::network::{self, Network};
use crate::openflow::start::Surroundings;
use crate::pipeline::commit::Committer;
use crate::pipeline::erase::Walk;
use crate::pipeline::expiry::Expiry;
use crate::pipeline::front::Front;
use crate::pipeline::heads::Heads;
use crate::pipeline::leaves::Leaves;
use crate::pipeline::recover;
use crate::pipeline::seal::Sealer;
use crate::pipeline::thread::{self, ACKED_MAX, Inputs};
use crate::pipeline::unheard;
use crate::policy::enrolment::EnrolmentFiles;
use crate::policy::{ControllerLink, Decider, Now, PolicyHandle, Proposal, offers};
use crate::sockets::Sockets;
use crate::spool::{Limits, Position, Recovery};
use crate::uplink::Uplink;
use crate::uplink::connection::{Link, Staff};
use crate::{GUARDED, inventory, local, watch};

/// How often certificate files are looked at for rotation.
const ROTATION_INTERVAL: Duration = Duration::from_secs(2);

/// What is on disk, opened and found good.
pub struct Parts {
    identity: Arc<Identity>,
    committer: Committer,
    pins: Arc<Pins>,
    local: Option<local::Material>,
    watch: watch::start::Material,
    registry: Registry,
    metrics: Metrics,
}

impl Parts {
    /// Checks what [`open`] has not: that the policy verifies.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file and key.
    pub fn check(self) -> anyhow::Result<()> {
        let policy = self.committer.policy.policy();
        let (epoch, devices) = policy.map_or((0, 0), |policy| (policy.epoch(), policy.devices().len()));
        info!(epoch, devices, "configuration, keys, spool and policy are good");
        Ok(())
    }
}

/// Opens everything that the configuration names.
///
/// # Errors
/// The first thing that is wrong, with its file and key.
pub fn open(file: &ConfigFile) -> anyhow::Result<Parts> {
    if !GUARDED {
        bail!(
            "this build has no guard (cargo feature `conformance`): it runs as `edge-gateway switch` and nowhere near sensors"
        );
    }
    let identity = Identity::load(&file.identity)?;
    let registry = admin::registry()?;
    identity.register(&registry)?;
    let metrics = Metrics::register(&registry)?;
    let seed = key_file::read_hex::<32>(&file.device_key)?;
    let leaves = Leaves::default();
    let sealer = Sealer { device: SigningKey::from_bytes(&seed), cipher: cipher(), leaves };
    dir::create_private(&file.data)?;
    let mut keys = KeyStore::open_with(&file.data, file.keys.tpm.device())
        .with_context(|| file.data.display().to_string())?;
    info!(sealed = keys.is_sealed(), "patients' roots");
    keys.audit().register(&registry)?;
    // In a build with kill points, files so small that each life of it meets rotations and deletions.
    let limits = if kill_point::ARMABLE {
        warn!("THIS BUILD DIES WHEN TOLD TO (cargo feature `kill-points`): it is for tests, and for no home");
        Limits::new(256 << 10, file.spool.bytes_max, 64 << 10)
    } else {
        Limits::with_budget(file.spool.bytes_max)
    };
    let (log, state, recovery) = recover::open(&file.data.join("spool"), limits, &mut keys)?;
    report(&recovery);
    let key = keys.file_key("hints").context("keys")?;
    let hints = Hints::open(&file.data.join("hints"), &key).context("the rebuildable state can't be made")?;
    let enrolment: Enrolment = config::load(&file.policy.enrolment)?;
    let pins = enrolment.pins().with_context(|| file.policy.enrolment.display().to_string())?;
    let pins = Arc::new(pins);
    let local = file.local.as_ref().map(|entry| local::Material::open(entry, &pins)).transpose()?;
    let unix_s = clock::now_s();
    let now = Now { unix_s, at: clock::monotonic() };
    let policy = Decider::open(&keys, Some(Arc::clone(&pins)), metrics.clone(), now).context("keys")?;
    let device = SigningKey::from_bytes(&seed);
    let unheard = unheard::find(&log, &mut keys)?;
    let (tap, watch) = watch::start::open(&file.watch, keys.watch(), unheard, device, &registry)?;
    let random = SystemRandom::new();
    let (heads, noted) = (Heads::default(), BTreeMap::new());
    let next = log.stats().next.0;
    let expiry =
        file.spool.age_limit_s.map(|limit| Expiry::new(limit.0, next, clock::now_us(), clock::monotonic()));
    let walk = Walk::left(&keys.erasures()).context("keys")?;
    let committer = Committer {
        log,
        state,
        sealer,
        keys,
        policy,
        hints,
        metrics: metrics.clone(),
        random,
        heads,
        said: BTreeMap::new(),
        noted,
        tap,
        expiry,
        walk,
        giving: None,
    };
    Ok(Parts { identity, committer, pins, local, watch, registry, metrics })
}

/// AES-256-GCM where the processor has instructions for it; ChaCha20-Poly1305 is faster on the others.
fn cipher() -> Cipher {
    #[cfg(target_arch = "x86_64")]
    let fast = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let fast = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let fast = false;
    if fast { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 }
}

fn report(recovery: &Recovery) {
    if let Some(torn) = &recovery.torn {
        warn!(file = %torn.file.display(), bytes = ?torn.bytes, "the spool ended in a torn write, which was cut off");
    }
    for damage in &recovery.damaged {
        error!(
            what = ?damage.what,
            file = %damage.file.display(),
            bytes = ?damage.bytes,
            lost = damage.lost,
            "the spool is damaged; sequence numbers move on and readers are told of the gap"
        );
    }
}

/// Serves what came to `sockets` meanwhile, and runs until SIGTERM or SIGINT, or until the disk fails. Stops the doors first, commits what they took, then gives the
/// uplink a moment to send it.
///
/// # Errors
/// What could not be started, or what failed.
pub async fn run(file: &ConfigFile, parts: Parts, sockets: Sockets) -> anyhow::Result<()> {
    let Parts { identity, mut committer, pins, local, watch, registry, metrics } = parts;
    let stop = shutdown::token()?;
    identity.watch(ROTATION_INTERVAL, stop.clone())?;
    let health = admin::Health::new();
    let connected = health.condition("core");
    let (inbound, inbound_in) = ingest::queue();
    let (acked, acked_in) = mpsc::channel(ACKED_MAX);
    let (proposals, proposals_in) = mpsc::channel(1);
    let around = Surroundings { data: &file.data, identity: &identity, registry: &registry, stop: &stop };
    // Before policy admits anybody.
    let Network { datapath, quarantined } =
        network::start(&file.datapath, file.controller.as_ref(), &around).await?;
    let mut switch = quarantined.clone();
    let mut doors = Doors::new(inbound, &registry, &identity, stop.clone())?;
    let reader = committer.log.reader();
    let uplink = Arc::new(Uplink::new(unacked(&reader)));
    uplink.observe(&metrics);
    let policy = start_policy(&pins, file, &mut committer, proposals, &health, &identity, &stop);
    let sessions = SessionFile::new(&file.data, &*committer.keys.file_key("mqtt.sessions").context("keys")?);
    let displays = committer.keys.audit().displays();
    doors.mqtt(file.mqtt.as_ref(), sockets, sessions, policy.bound_devices(), displays).await?;
    doors.brokers(&file.brokers, &file.data)?;
    let publisher = doors.publisher.clone().map(|publisher| Arc::new(publisher) as Arc<dyn watch::Publish>);
    let watching = watch::start::start(watch, &policy, committer.policy.store(), publisher, &stop)?;
    let watch::start::Started { standings, commands, beats, views, early } = watching;
    let front = front(inbound_in, committer.tap.clone(), &policy, (early, &stop));
    let link = Link {
        staff: Some(Staff { beats, commands, questions: committer.keys.questions() }),
        offers: Some(offers::start(policy.clone(), committer.sealer.device.clone())),
        core: file.core.address,
        core_tcp: file.core.tcp_address,
        core_name: file.core.name.clone(),
        lane_ports: file.core.lane_ports,
        identity: Arc::clone(&identity),
        reader,
        uplink: Arc::clone(&uplink),
        acked,
        metrics,
        connected,
    };
    let admin_listener = net::listen(&file.admin)?;
    info!(address = %admin_listener.local_addr()?, "admin listens");
    let (hints, devices) = (committer.hints.clone(), policy.bound_devices());
    let inventory = inventory::start(&hints, &registry, devices, &stop)?;
    if let Some(datapath) = &datapath {
        admit(datapath, file, &doors.mqtt_ports, &policy, &stop);
        tokio::spawn(inventory::listen(datapath.clone(), inventory.clone(), stop.clone()));
    }
    let behind = local::Behind { policy, inventory, hints, quarantined, views };
    doors.local(file.local.as_ref().zip(local), behind, &registry)?;
    tokio::spawn(admin::serve(admin_listener, registry, health, axum::Router::new(), stop.clone()));
    let link_stop = CancellationToken::new();
    let link = {
        let (link_stop, stop) = (link_stop.clone(), stop.clone());
        tokio::spawn(async move {
            // A gateway whose uplink could not even start would spool until its disk is full.
            let _guard = stop.drop_guard();
            link.run(link_stop).await
        })
    };
    let linger = Duration::from_millis(file.spool.linger_ms);
    let inputs = Inputs { inbound: front, acked: acked_in, proposals: proposals_in, standings, linger };
    let thread = commit_thread(committer, inputs, uplink, stop.clone(), link_stop.clone())?;

    doors.closed().await;
    info!("doors closed");
    link.await?.context("uplink")?;
    // The switch, if there is one, has ended when it says no more who is shut out.
    while switch.changed().await.is_ok() {}
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_panic| anyhow::anyhow!("the committer panicked"))?
}

/// Where the commit thread takes from, with who looks out while it stands still.
fn front(
    intake: Intake,
    tap: watch::Tap,
    policy: &PolicyHandle,
    (early, stop): (IntCounter, &CancellationToken),
) -> Front {
    let front = Front::new(intake);
    let lookout = front.lookout(tap, policy.subscribe(), policy.erased(), early);
    tokio::spawn(lookout.run(stop.clone()));
    front
}

/// Lets bound sensors through to the MQTT ports, and keeps core and controller under the floor.
fn admit(
    datapath: &Datapath,
    file: &ConfigFile,
    mqtt_ports: &[u16],
    policy: &PolicyHandle,
    stop: &CancellationToken,
) {
    let mut fixed = Fixed::default();
    mqtt_ports.iter().for_each(|port| fixed.open_tcp(*port));
    fixed.keep(UDP, file.core.address);
    if let Some(address) = file.core.tcp_address {
        fixed.keep(TCP, address);
    }
    if let Some(controller) = &file.policy.controller {
        fixed.keep(UDP, controller.address);
    }
    if let Some(controller) = &file.controller {
        network::keep_controller(&mut fixed, controller);
    }
    let bound = policy.bound_devices();
    tokio::spawn(datapath::policy::run(datapath.clone(), bound, fixed, stop.clone()));
}

/// Starts what brings policy. Returns the policy side for those that hand it in or watch it.
fn start_policy(
    pins: &Arc<Pins>,
    file: &ConfigFile,
    committer: &mut Committer,
    proposals: mpsc::Sender<Proposal>,
    health: &admin::Health,
    identity: &Arc<Identity>,
    stop: &CancellationToken,
) -> PolicyHandle {
    let in_force = health.condition("policy");
    committer.policy.readiness(in_force, Some(health.condition("policy_fresh")));
    let handle = PolicyHandle::new(Arc::clone(pins), &committer.policy, proposals, committer.metrics.clone());
    let revoke_keys = file.local.as_ref().and_then(|local| local.revoke_keys.clone());
    handle.keep_files(EnrolmentFiles { enrolment: file.policy.enrolment.clone(), revoke_keys });
    if let Some(controller) = &file.policy.controller {
        let link = ControllerLink {
            controller: controller.address,
            name: controller.name.clone(),
            identity: Arc::clone(identity),
            policy: handle.clone(),
        };
        let stop = stop.clone();
        tokio::spawn(async move {
            if let Err(failure) = link.run(stop.clone()).await {
                error!(%failure, "the policy connection could not start");
                stop.cancel();
            }
        });
    }
    handle
}

/// What the spool held at start, by position and lane.
fn unacked(reader: &crate::spool::Reader) -> Vec<(u64, Lane)> {
    let mut all = Vec::new();
    for lane in Lane::ALL {
        let mut from = Position(0);
        while let Some(position) = reader.next_unacked(lane, from) {
            all.push((position.0, lane));
            from = Position(position.0 + 1);
        }
    }
    all
}

/// Starts the committer's thread. When it ends (doors closed and all committed, or the disk failed) everything stops.
fn commit_thread(
    committer: Committer,
    inputs: Inputs,
    uplink: Arc<Uplink>,
    stop: CancellationToken,
    link_stop: CancellationToken,
) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let spawned = std::thread::Builder::new().name("commit".into()).spawn(move || {
        // Also where it panics: a gateway that takes readings and never acknowledges one helps nobody.
        let _guards = (stop.drop_guard(), link_stop.clone().drop_guard());
        let ended = runtime.block_on(thread::run(committer, inputs, uplink, link_stop));
        if let Err(failure) = &ended {
            error!(%failure, "nothing more can be acknowledged; stopping");
        }
        ended.context("committer")
    })?;
    Ok(spawned)
}

/// Everything through which readings come in.
struct Doors {
    inbound: Inlet,
    server_metrics: ServerMetrics,
    broker_metrics: BrokerMetrics,
    identity: Arc<Identity>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// TCP ports of the MQTT server.
    mqtt_ports: Vec<u16>,
    /// For the gateway's own messages on the MQTT server, where there is one.
    publisher: Option<Publisher>,
    /// The MQTT server and where its sessions are kept, for the last time when all doors have closed.
    sessions: Option<(Arc<Server>, Arc<SessionFile>)>,
}

impl Doors {
    fn new(
        inbound: Inlet,
        registry: &Registry,
        identity: &Arc<Identity>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            inbound,
            server_metrics: ServerMetrics::register(registry)?,
            broker_metrics: BrokerMetrics::register(registry)?,
            identity: Arc::clone(identity),
            stop,
            tasks: JoinSet::new(),
            mqtt_ports: Vec::new(),
            publisher: None,
            sessions: None,
        })
    }

    async fn mqtt(
        &mut self,
        entry: Option<&MqttEntry>,
        sockets: Sockets,
        file: SessionFile,
        bound: tokio::sync::watch::Receiver<Arc<Vec<BoundDevice>>>,
        displays: Displays,
    ) -> anyhow::Result<()> {
        let Some(entry) = entry else { return Ok(()) };
        let mut limits = MqttLimits::default();
        limits.connections_max = entry.connections_max.unwrap_or(limits.connections_max);
        let credentials = Credentials::new(entry.credentials.clone()).context("mqtt.credential")?;
        limits.publishes_per_s = entry.publishes_per_s.map_or(limits.publishes_per_s, NonZeroU32::get);
        limits.keep_alive_s_max = entry.keep_alive_s_max.unwrap_or(limits.keep_alive_s_max);
        limits.overload_after_ms = entry.overload_after_ms.unwrap_or(limits.overload_after_ms);
        let access = Access::new(entry.readers.clone()).context("mqtt.reader")?;
        let (inbound, metrics) = (self.inbound.clone(), self.server_metrics.clone());
        let server = Server::new(limits, credentials, access, inbound, metrics);
        server.tell(displays);
        // In this order: what nobody may read any more neither comes back nor is written again.
        server.bind(bound, self.stop.clone());
        server.restore(&file);
        let file = Arc::new(file);
        self.tasks.spawn(Arc::clone(&server).keep(Arc::clone(&file), self.stop.clone()));
        self.sessions = Some((Arc::clone(&server), file));
        self.publisher = Some(server.publisher());
        let doors = [
            (sockets.plain, None, false),
            (sockets.tls, Some(self.tls_door()), false),
            (sockets.websocket, None, true),
            (sockets.websocket_tls, Some(self.tls_door()), true),
        ];
        for (listener, tls, websocket) in doors {
            let Some(listener) = listener else { continue };
            let address = listener.local_addr()?;
            info!(%address, tls = tls.is_some(), websocket, "MQTT listens");
            self.mqtt_ports.push(address.port());
            let (server, stop) = (Arc::clone(&server), self.stop.clone());
            if websocket {
                self.tasks.spawn(server.serve_websocket(listener, tls, stop));
            } else {
                self.tasks.spawn(server.serve(listener, tls, stop));
            }
        }
        Ok(())
    }

    /// The configuration is made once: rotated certificates are taken by the resolver behind it.
    fn tls_door(&self) -> TlsDoor {
        let config = Arc::new(self.identity.server_config_optional_client(&[Role::Sensor], &[]));
        let acceptor = TlsAcceptor::from(config);
        TlsDoor::new(move || acceptor.clone(), sensor_of)
    }

    fn brokers(&mut self, entries: &[BrokerEntry], data: &Path) -> anyhow::Result<()> {
        for (number, entry) in entries.iter().enumerate() {
            let tunnel = entry.tls.as_ref().map(|tls| {
                let path = data.join(format!("broker-{number}.sock"));
                Tunnel::open(path, &entry.host, entry.port, tls)
            });
            let tunnel = tunnel.transpose().with_context(|| format!("broker {}", entry.host))?;
            let config = BrokerConfig {
                host: entry.host.clone(),
                port: entry.port,
                client_id: entry.client_id.clone(),
                login: entry.username.clone().zip(entry.password_file.as_deref().map(password).transpose()?),
                devices: entry.devices.iter().cloned().collect(),
                socket: tunnel.as_ref().map(|tunnel| tunnel.path().to_owned()),
            };
            if let Some(tunnel) = tunnel {
                self.tasks.spawn(tunnel.run(self.stop.clone()));
            }
            let task =
                broker::run(config, self.inbound.clone(), self.broker_metrics.clone(), self.stop.clone());
            self.tasks.spawn(task);
        }
        Ok(())
    }

    fn local(
        &mut self,
        configured: Option<(&LocalEntry, local::Material)>,
        behind: local::Behind<PolicyHandle>,
        registry: &Registry,
    ) -> anyhow::Result<()> {
        let Some((entry, material)) = configured else { return Ok(()) };
        let stop = self.stop.clone();
        let (_, serving) = local::open(entry, material, behind, &self.identity, registry, stop)?;
        self.tasks.spawn(serving);
        Ok(())
    }

    /// Waits until every door has closed. Then the committer, whose last sender this was, commits what is left and ends.
    async fn closed(mut self) {
        self.stop.cancelled().await;
        while self.tasks.join_next().await.is_some() {}
        if let Some((server, file)) = self.sessions {
            let kept = tokio::task::spawn_blocking(move || server.keep_whole(&file));
            drop(kept.await);
        }
    }
}

fn password(path: &Path) -> anyhow::Result<String> {
    let bytes = key_file::read(path)?;
    let text = std::str::from_utf8(&bytes).with_context(|| path.display().to_string())?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn sensor_of(chain: &[CertificateDer<'_>]) -> Result<DeviceId, CertificateRefused> {
    let peer = peer_id(chain).map_err(|e| CertificateRefused(e.to_string()))?;
    if peer.role != Role::Sensor {
        return Err(CertificateRefused(format!("role {}", peer.role.as_str())));
    }
    DeviceId::new(&peer.name).map_err(|e| CertificateRefused(e.to_string()))
}
