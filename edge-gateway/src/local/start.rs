//! Opens the door: what the configuration names is read and checked, then the socket.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use anyhow::Context;
use caregate_host::http::{self, Options};
use caregate_host::identity::Identity;
use caregate_host::{config, key_file, net};
use caregate_protocol::policy::Mac;
use ledger_client::revoke::{RevokeKeyFile, RevokeKeys};
use ledger_client::verify::Pins;
use prometheus::Registry;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::door::{App, CONNECTIONS_MAX, PolicySide, router};
use super::login::{AccessCodeEntry, Login};
use super::metrics::LocalMetrics;
use super::offers::Offers;
use crate::hints::Hints;
use crate::inventory::Shared;
use crate::inventory::oui::Vendors;
use crate::watch::Standings;

/// `[local]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalEntry {
    /// TCP address, or `systemd:N`; HTTPS with the gateway's certificate wherever it is not loopback.
    pub listen: String,
    /// The code on the box's label.
    pub access_code: AccessCodeEntry,
    /// File of revoke-only keys (mode 0600), for the button; without it only the wallet can revoke.
    pub revoke_keys: Option<PathBuf>,
    /// A registry of vendors, for the device list; without it none is named.
    pub oui: Option<PathBuf>,
}

/// What the entry names, read and checked.
#[derive(Debug)]
pub struct Material {
    /// The access code.
    pub login: Login,
    /// What the button signs with.
    pub keys: RevokeKeys,
    /// Whose blocks addresses are in.
    pub vendors: Vendors,
}

impl Material {
    /// Reads it. Relationships without a key are logged by number: their button is not shown.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file and key.
    pub fn open(entry: &LocalEntry, pins: &Pins) -> anyhow::Result<Self> {
        let login = Login::new(&entry.access_code)?;
        let mut keys = match &entry.revoke_keys {
            Some(path) => {
                let bytes = key_file::read(path)?;
                let text = std::str::from_utf8(&bytes).with_context(|| path.display().to_string())?;
                let file: RevokeKeyFile = config::parse(path, text)?;
                RevokeKeys::new(&file).with_context(|| path.display().to_string())?
            }
            None => RevokeKeys::default(),
        };
        keys.retain(|relationship| pins.relationships.contains_key(relationship));
        let missing = pins.relationships.keys().filter(|relationship| !keys.holds(relationship)).count();
        if missing > 0 {
            warn!(
                missing,
                "relationships without a revoke-only key here; their patients revoke with the wallet"
            );
        }
        let vendors = match &entry.oui {
            Some(path) => Vendors::load(path).with_context(|| path.display().to_string())?,
            None => Vendors::default(),
        };
        Ok(Self { login, keys, vendors })
    }
}

/// What the door shows and hands on.
pub struct Behind<P> {
    /// The policy side.
    pub policy: P,
    /// Who was seen.
    pub inventory: Shared,
    /// Who was heard, and the quarantine.
    pub hints: Hints,
    /// Whose frames a controller's rule drops.
    pub quarantined: watch::Receiver<Arc<BTreeSet<Mac>>>,
    /// What the watch says.
    pub views: watch::Receiver<Arc<Standings>>,
}

/// Listens, and answers with what serves until `stop`. Must be called inside a tokio runtime.
///
/// # Errors
/// What the operating system says, naming the address; or a metric that is registered already.
pub fn open<P: PolicySide>(
    entry: &LocalEntry,
    material: Material,
    behind: Behind<P>,
    identity: &Identity,
    registry: &Registry,
    stop: CancellationToken,
) -> anyhow::Result<(SocketAddr, impl Future<Output = ()> + Send + 'static)> {
    let listener = net::listen(&entry.listen).context("local.listen")?;
    let address = listener.local_addr()?;
    let is_public = !address.ip().to_canonical().is_loopback();
    let tls = is_public.then(|| Arc::new(identity.server_config_no_client(&[b"http/1.1"])));
    let Material { login, keys, vendors } = material;
    let Behind { policy, inventory, hints, quarantined, views } = behind;
    let app = App {
        policy,
        keys: RwLock::new(keys),
        inventory,
        vendors,
        hints,
        quarantined,
        views,
        login,
        metrics: LocalMetrics::register(registry)?,
        secure: is_public,
        offers: Offers::default(),
    };
    info!(%address, tls = is_public, "the local door listens");
    let options = Options { connections_max: CONNECTIONS_MAX, tls };
    Ok((address, http::serve(listener, router(Arc::new(app)), options, stop)))
}
