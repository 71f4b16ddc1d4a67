//! Puts the parts together: the daemon, and the export that shares its link and keys.

use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use caregate_host::identity::Identity;
use caregate_host::{admin, config, http, key_file, log, net, shutdown};
use caregate_protocol::wrap::HpkePrivateKey;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{ConfigFile, Domain, TlsFiles};
use crate::export;
use crate::feed::{self, EVENTS_MAX, Feed};
use crate::link::{Event, Link};
use crate::login::Login;
use crate::metrics::Metrics;
use crate::opener::Opener;
use crate::server::{self, App};

/// How often certificate files are looked at for rotation.
const ROTATION_INTERVAL: Duration = Duration::from_secs(2);
/// Time that streams have for their closing handshake.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(3);

struct Loaded {
    file: ConfigFile,
    domain: Domain,
    identity: Arc<Identity>,
    private_key: HpkePrivateKey,
}

fn load(path: &Path) -> anyhow::Result<Loaded> {
    let file: ConfigFile = config::load(path)?;
    log::init(file.log)?;
    let domain = Domain::try_from(&file).with_context(|| path.display().to_string())?;
    let identity = Identity::load(&file.identity)?;
    let private_key = HpkePrivateKey::from_bytes(*key_file::read_hex(&file.hpke_key)?);
    private_key.public_key().with_context(|| file.hpke_key.display().to_string())?;
    Ok(Loaded { file, domain, identity, private_key })
}

impl Loaded {
    fn link(&self, events: mpsc::Sender<Event>) -> Link {
        Link {
            core: self.file.core.address,
            core_name: Some(self.file.core.name.clone()),
            identity: Arc::clone(&self.identity),
            recipient: self.file.recipient,
            events,
        }
    }

    fn opener(&self) -> Opener {
        let keys = self.domain.device_keys.iter().copied();
        Opener::new(self.file.recipient, self.private_key.clone(), keys)
    }
}

/// The daemon, until a signal. With `check` only reads what it would need.
///
/// # Errors
/// What is wrong with the configuration, the keys or the sockets.
pub async fn run(path: &Path, check: bool) -> anyhow::Result<()> {
    let loaded = load(path)?;
    let tls = loaded.file.tls.as_ref().map(tls_config).transpose()?;
    if check {
        return Ok(());
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

    let feed = Arc::new(Feed::new(loaded.file.ring_bytes_max));
    let (events_out, events) = mpsc::channel(EVENTS_MAX);
    let (link, opener) = (loaded.link(events_out), loaded.opener());
    let opening = {
        let (feed, metrics, stop) = (Arc::clone(&feed), metrics.clone(), stop.clone());
        std::thread::Builder::new().name("opener".into()).spawn(move || {
            // Without an opener nothing is shown: the process must end, also when it panics.
            let _stop = stop.drop_guard();
            feed::run(events, opener, &feed, &metrics, &connected);
        })?
    };
    let linking = tokio::spawn(link.run(stop.clone()));
    tokio::spawn(admin::serve(admin_listener, registry, health, axum::Router::new(), stop.clone()));
    let Loaded { domain, .. } = loaded;
    let app = App::new(feed, Login::new(domain.users)?, domain.beds, metrics, tls.is_some(), stop.clone());
    let app = Arc::new(app);
    let options = http::Options { connections_max: server::CONNECTIONS_MAX, tls };
    http::serve(listener, server::router(Arc::clone(&app)), options, stop.clone()).await;
    drain(&app).await;
    linking.await?.context("link")?;
    tokio::task::spawn_blocking(move || opening.join())
        .await?
        .map_err(|_panic| anyhow::anyhow!("the opener failed"))?;
    info!("stopped");
    Ok(())
}

/// Waits until the streams have said goodbye.
pub async fn drain(app: &App) {
    app.running.close();
    if tokio::time::timeout(STREAMS_TIMEOUT, app.running.wait()).await.is_err() {
        warn!(open = app.running.len(), "dropped streams that did not close in time");
    }
}

/// The page's listener. A reading is a small packet that must not wait for the acknowledgement of the one before; accepted
/// sockets inherit the option.
///
/// # Errors
/// What the operating system says, naming the address.
pub fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let listener = net::listen(address)?;
    SockRef::from(&listener).set_tcp_nodelay(true).with_context(|| address.to_owned())?;
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

/// Writes the recipient's whole history to standard output.
///
/// # Errors
/// What is wrong with the configuration or the keys; [`export::ExportError`].
pub async fn export(path: &Path) -> anyhow::Result<()> {
    let loaded = load(path)?;
    let stop = CancellationToken::new();
    let (events_out, events) = mpsc::channel(EVENTS_MAX);
    let linking = tokio::spawn(loaded.link(events_out).run(stop.clone()));
    let opener = loaded.opener();
    let writing = tokio::task::spawn_blocking(move || {
        export::run(events, opener, BufWriter::new(std::io::stdout().lock()))
    });
    let written = writing.await?;
    stop.cancel();
    linking.await?.context("link")?;
    written?;
    Ok(())
}
