//! Puts the parts together: the daemon, and the export that shares its link and keys.

use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use caregate_host::identity::Identity;
use caregate_host::{admin, clock, config, http, key_file, log, net, shutdown};
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::uplink::{HistoryPlace, Question};
use caregate_protocol::wrap::HpkePrivateKey;
use ledger_chain::{Chain, Follower};
use ledger_client::verify as eip712;
use ledger_client::wallet::DomainKey;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::command::{COMMANDS_MAX, Commander};
use crate::config::{ConfigFile, Domain, TlsFiles};
use crate::emergency::{BreakGlass, Checked, EmergencyError, Opened, Request};
use crate::erasures;
use crate::export::{self, Account};
use crate::feed::{self, EVENTS_MAX, Feed, Inbox};
use crate::fhir::grants::Grants;
use crate::history::{Historian, Keys};
use crate::journal::{Entry, Journal, Part as NotedPart, What};
use crate::ledger::{Known, State, Watcher};
use crate::link::{Event, Link, Staff};
use crate::login::Login;
use crate::look;
use crate::metrics::Metrics;
use crate::offer::Offerer;
use crate::opener::Opener;
use crate::receipts;
use crate::record::Recorder;
use crate::search::Searcher;
use crate::server::{self, App, Oversight};

/// How often certificate files are looked at for rotation.
const ROTATION_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes that are read of a reason's or pseudonym's file: more than either may have.
const TEXT_BYTES_MAX: u64 = 4096;
/// Bytes of a stream that wait in the kernel beyond what is on the line (`TCP_NOTSENT_LOWAT`): two batches of readings.
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// Time that an export waits for the ledger, which reads its events from the beginning.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that streams have for their closing handshake.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(3);

struct Loaded {
    file: ConfigFile,
    domain: Domain,
    identity: Arc<Identity>,
    private_key: HpkePrivateKey,
    domain_key: Option<DomainKey>,
}

fn load(path: &Path) -> anyhow::Result<Loaded> {
    let file: ConfigFile = config::load(path)?;
    log::init(file.log)?;
    let domain = Domain::try_from(&file).with_context(|| path.display().to_string())?;
    let identity = Identity::load(&file.identity)?;
    let private_key = HpkePrivateKey::from_bytes(*key_file::read_hex(&file.hpke_key)?);
    private_key.public_key().with_context(|| file.hpke_key.display().to_string())?;
    let key = file.ledger.as_ref().and_then(|ledger| ledger.domain_key.as_deref());
    let domain_key = key.map(|path| domain_key(path, &file.recipient)).transpose()?;
    Ok(Loaded { file, domain, identity, private_key, domain_key })
}

fn domain_key(path: &Path, recipient: &RecipientId) -> anyhow::Result<DomainKey> {
    let key = DomainKey::from_bytes(&*key_file::read_hex::<32>(path)?)
        .with_context(|| path.display().to_string())?;
    if key.id() != *recipient {
        let id = key.id();
        anyhow::bail!("{}: the key's address is {id}, and recipient is {recipient}", path.display());
    }
    Ok(key)
}

impl Loaded {
    fn link(&self, events: mpsc::Sender<Event>, backlog: mpsc::Sender<Event>, staff: Option<Staff>) -> Link {
        Link {
            core: self.file.core.address,
            core_name: Some(self.file.core.name.clone()),
            identity: Arc::clone(&self.identity),
            recipient: self.file.recipient,
            events,
            backlog,
            staff,
        }
    }

    /// The journal, what it has, and who writes to it.
    fn recorder(&self, metrics: &Metrics) -> anyhow::Result<(Recorder, Vec<Entry>)> {
        let (journal, entries) = Journal::open(&self.file.journal)?;
        Ok((Recorder::new(journal, &entries, metrics.clone()), entries))
    }

    /// The ledger, followed in a task of its own until `stop`; and break-glass.
    fn oversight(
        &mut self,
        metrics: &Metrics,
        commands: &broadcast::Sender<Vec<u8>>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Oversight> {
        let (recorder, entries) = self.recorder(metrics)?;
        let Some(ledger) = &self.file.ledger else {
            return Ok(Oversight {
                recorder,
                ledger: None,
                break_glass: None,
                commander: None,
                grants: None,
            });
        };
        let chain = Chain::new(ledger.chain())?;
        let key = self.domain_key.take();
        let signs = eip712::Domain { chain_id: ledger.chain_id, verifying_contract: ledger.contract };
        let commander = key.clone().map(|key| Commander::new(key, signs, commands.clone()));
        let break_glass = key.map(|key| BreakGlass::new(chain.clone(), key, &entries));
        let follower = Follower::start(chain, stop.clone());
        let grants = Some(Grants::new(Arc::clone(&follower), self.file.recipient));
        let (beds, trail) = (self.domain.beds.clone(), Arc::clone(recorder.trail()));
        let handed = break_glass
            .as_ref()
            .map_or_else(|| watch::Sender::new(Vec::new()).subscribe(), BreakGlass::handed);
        let watcher = Watcher::new(follower, self.file.recipient, beds, trail, metrics.clone(), handed);
        let known = watcher.known();
        tokio::spawn(watcher.run(stop.clone()));
        Ok(Oversight { recorder, ledger: Some(known), break_glass, commander, grants })
    }

    fn keys(&self) -> Keys {
        let (recipient, private_key) = (self.file.recipient, self.private_key.clone());
        Keys { recipient, private_key, gateways: self.domain.device_keys().collect() }
    }

    fn opener(&self) -> Opener {
        let keys = self.domain.device_keys();
        Opener::new(self.file.recipient, self.private_key.clone(), keys)
    }
}

/// The daemon, until a signal. With `check` only reads what it would need.
///
/// # Errors
/// What is wrong with the configuration, the keys or the sockets.
pub async fn run(path: &Path, check: bool) -> anyhow::Result<()> {
    let mut loaded = load(path)?;
    let tls = loaded.file.tls.as_ref().map(tls_config).transpose()?;
    if check {
        return Ok(Journal::open(&loaded.file.journal).map(drop)?);
    }
    let stop = shutdown::token()?;
    let registry = admin::registry()?;
    let metrics = Metrics::register(&registry)?;
    loaded.identity.register(&registry)?;
    loaded.identity.watch(ROTATION_INTERVAL, stop.clone())?;
    let health = admin::Health::new();
    let connected = health.condition("core");
    let (listener, admin_listener) = (listen(&loaded.file.listen)?, net::listen(&loaded.file.admin)?);
    info!(page = %listener.local_addr()?, admin = %admin_listener.local_addr()?, tls = tls.is_some(), "listening");

    let commands = broadcast::Sender::new(COMMANDS_MAX);
    let oversight = loaded.oversight(&metrics, &commands, &stop)?;
    let feed = Arc::new(Feed::new(loaded.file.ring_bytes_max));
    feed.bedside().know(loaded.domain.device_keys());
    let receipt_key = erasures::receipt_key(&loaded.private_key);
    let public = hex::encode(receipt_key.verifying_key().as_bytes());
    info!(public, "receipts of erasures are signed with this key");
    feed.erasures().sign_with(receipt_key, loaded.file.recipient);
    let (core_out, core) = watch::channel(None);
    let staff = Staff { feed: Arc::clone(&feed), commands, core: core_out };
    let (events_out, backlog_out, inbox) = Inbox::new();
    let offerer = Offerer::new(core.clone(), loaded.domain.gateways.clone());
    let searcher = Searcher::new(events_out.downgrade(), core.clone(), loaded.file.recipient);
    let historian = Historian::new(core, loaded.keys());
    let (link, opener) = (loaded.link(events_out, backlog_out, Some(staff)), loaded.opener());
    let opening = {
        let (feed, metrics, stop) = (Arc::clone(&feed), metrics.clone(), stop.clone());
        std::thread::Builder::new().name("opener".into()).spawn(move || {
            // Without an opener nothing is shown: the process must end, also when it panics.
            let _stop = stop.drop_guard();
            feed::run(inbox, opener, &feed, &metrics, &connected)
        })?
    };
    let linking = tokio::spawn(link.run(stop.clone()));
    tokio::spawn(admin::serve(admin_listener, registry, health, axum::Router::new(), stop.clone()));
    let Loaded { domain, file: ConfigFile { recipient, .. }, identity, .. } = loaded;
    let name = identity.id().peer().name.clone();
    let recorder = oversight.recorder.clone();
    let (noted, no_more) = (Arc::clone(&feed), CancellationToken::new());
    let settling = tokio::spawn(recorder.clone().settle(stop.clone()));
    let noting = tokio::spawn(receipts::run(noted, recorder, recipient, no_more.clone()));
    let login = Login::new(domain.users)?;
    let mut app = App::new(feed, login, domain.beds, oversight, metrics, tls.is_some(), stop.clone());
    (app.searcher, app.offerer, app.name) = (Some(searcher), Some(offerer), name);
    app.historian = Some(historian);
    let app = Arc::new(app);
    let options = http::Options { connections_max: server::CONNECTIONS_MAX, tls };
    http::serve(listener, server::router(Arc::clone(&app)), options, stop.clone()).await;
    if let Err(failed) = settling.await {
        error!(%failed, "what programs read on was not noted in time; it is now");
    }
    drain(&app).await;
    linking.await?.context("link")?;
    tokio::task::spawn_blocking(move || opening.join())
        .await?
        .map_err(|_panic| anyhow::anyhow!("the opener failed"))?
        .context("opener")?;
    no_more.cancel();
    noting.await?;
    info!("stopped");
    Ok(())
}

/// Waits until the streams have said goodbye, and notes what programs read.
pub async fn drain(app: &App) {
    app.running.close();
    if tokio::time::timeout(STREAMS_TIMEOUT, app.running.wait()).await.is_err() {
        warn!(open = app.running.len(), "dropped streams that did not close in time");
    }
    app.oversight.recorder.settle_all().await;
}

/// The page's listener. A reading is a small packet that must not wait for the acknowledgement of the one before, nor behind more of a
/// backlog than the line needs to be busy; accepted sockets inherit the options.
///
/// # Errors
/// What the operating system says, naming the address.
pub fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let listener = net::listen(address)?;
    let socket = SockRef::from(&listener);
    socket.set_tcp_nodelay(true).with_context(|| address.to_owned())?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX).with_context(|| address.to_owned())?;
    Ok(listener)
}

fn tls_config(files: &TlsFiles) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let named = || files.certificate.display().to_string();
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect).with_context(named)?;
    let key = PrivateKeyDer::from_pem_slice(&key_file::read(&files.key)?)
        .with_context(|| files.key.display().to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .with_context(named)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A patient's class and time, of which the core gives whole minutes.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Whose.
    pub patient: PatientId,
    /// Which class.
    pub class: DataClass,
    /// Unix time in seconds.
    pub from_s: u32,
    /// Unix time in seconds.
    pub until_s: u32,
}

impl Part {
    /// The first minute of Unix time, and the first one behind the last.
    fn minutes(&self) -> (u32, u32) {
        (self.from_s / 60, self.until_s.div_ceil(60))
    }

    /// For the journal.
    fn noted(&self) -> NotedPart {
        let (from, until) = self.minutes();
        let [from_us, until_us] = [from, until].map(|minute| i64::from(minute) * 60_000_000);
        NotedPart { patient: self.patient, class: self.class, from_us, until_us }
    }
}

/// Until the ledger was read once or is found to be away. What an export rests on is noted as unknown then.
async fn read_once(ledger: &mut watch::Receiver<Known>) {
    let is_told = |known: &Known| known.read || matches!(known.state, State::Away(_));
    let told = tokio::time::timeout(LEDGER_TIMEOUT, ledger.wait_for(is_told)).await;
    if !told.is_ok_and(|known| known.is_ok_and(|known| known.read)) {
        warn!("the ledger was not read: what the export rests on is noted as unknown");
    }
}

/// Writes the recipient's history, or a part of it, to standard output.
///
/// # Errors
/// What is wrong with the configuration or the keys; [`export::ExportError`].
pub async fn export(path: &Path, part: Option<Part>) -> anyhow::Result<()> {
    let mut loaded = load(path)?;
    let uid = std::fs::metadata("/proc/self").context("/proc/self")?.uid();
    let (recipient, stop) = (loaded.file.recipient, CancellationToken::new());
    let metrics = Metrics::register(&admin::registry()?)?;
    let commands = broadcast::Sender::new(COMMANDS_MAX);
    let Oversight { recorder, mut ledger, .. } = loaded.oversight(&metrics, &commands, &stop)?;
    recorder.note(vec![What::Export { uid, of: part.as_ref().map(Part::noted) }]).await?;
    if let Some(ledger) = &mut ledger {
        read_once(ledger).await;
    }
    let beds = std::mem::take(&mut loaded.domain.beds);
    let basis = move |patient, until_us| {
        let known = ledger.as_ref().map(watch::Receiver::borrow);
        look::basis(known.as_deref(), &beds, patient, until_us)
    };
    let mut account = Account::new(recorder.journal(), recipient, uid, basis, clock::monotonic());
    let (events_out, events) = mpsc::channel(EVENTS_MAX);
    // An export has one order: nobody waits for what is live.
    let link = loaded.link(events_out.clone(), events_out, None);
    let linking = match part {
        None => tokio::spawn(link.run(stop.clone())),
        Some(part) => {
            let (Part { patient, class, .. }, (from, until)) = (part, part.minutes());
            let question = Question { recipient, patient, class, from, until, at: HistoryPlace::FIRST };
            tokio::spawn(link.history(question, stop.clone()))
        }
    };
    let opener = loaded.opener();
    let writing = tokio::task::spawn_blocking(move || {
        let written = export::run(events, opener, &mut account, BufWriter::new(std::io::stdout().lock()));
        // Also what came of an export that is not whole.
        (written, account.close(clock::now_ms()))
    });
    let (written, noted) = writing.await?;
    stop.cancel();
    linking.await?.context("link")?;
    written?;
    Ok(noted?)
}

/// What `clinician-feed emergency` was told.
#[derive(Debug)]
pub struct EmergencyArguments {
    /// File with the pseudonym of the patient's card.
    pub pseudonym_file: PathBuf,
    /// File with the reason.
    pub reason_file: PathBuf,
    /// For how long.
    pub minutes: u32,
    /// Who; must be a user of the configuration. The only one where nothing is said.
    pub clinician: Option<String>,
    /// One JSON object instead of a sentence.
    pub json: bool,
}

/// Opens an emergency without a page, beside the daemon or without it.
///
/// # Errors
/// What is wrong with the configuration or the files; [`EmergencyError`].
pub async fn emergency(path: &Path, arguments: &EmergencyArguments) -> anyhow::Result<()> {
    let mut loaded = load(path)?;
    let request = Request {
        pseudonym: short_text(&arguments.pseudonym_file)?,
        reason: short_text(&arguments.reason_file)?,
        minutes: arguments.minutes,
        // Whoever writes the command has read what it does.
        confirm: true,
        gateway: None,
    };
    let checked = Checked::try_from(request)?;
    let users = &loaded.domain.users;
    let clinician = match (&arguments.clinician, users.as_slice()) {
        (None, [(only, _)]) => only.clone(),
        (None, _) => anyhow::bail!("say who it is: --clinician NAME"),
        (Some(name), _) if users.iter().any(|(user, _)| user == name) => name.clone(),
        (Some(name), _) => anyhow::bail!("{name} is no user of {}", path.display()),
    };
    let (recorder, entries) = loaded.recorder(&Metrics::register(&admin::registry()?)?)?;
    let (Some(key), Some(ledger)) = (loaded.domain_key.take(), &loaded.file.ledger) else {
        return Err(EmergencyError::NoKey.into());
    };
    let break_glass = BreakGlass::new(Chain::new(ledger.chain())?, key, &entries);
    let Opened { number, from, until, block } =
        break_glass.open(&clinician, &checked, clock::now_ms(), &recorder).await?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(
            out,
            "{}",
            serde_json::json!({"number": number, "from": from, "until": until, "block": block})
        )?;
    } else {
        let block = block.map(|block| format!(" (block {block})")).unwrap_or_default();
        writeln!(out, "emergency {number} is open for {} minutes{block}", arguments.minutes)?;
    }
    Ok(())
}

/// A file of a few lines.
fn short_text(path: &Path) -> anyhow::Result<String> {
    let named = || path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .with_context(named)?
        .take(TEXT_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(named)?;
    Ok(text)
}
