//! Opens the door: what the configuration names is read and checked, then the socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use caregate_host::http::{self, Options};
use caregate_host::identity::Identity;
use caregate_host::{config, key_file, net};
use ledger_client::revoke::{RevokeKeyFile, RevokeKeys};
use ledger_client::verify::Pins;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::door::CONNECTIONS_MAX;
use super::login::{AccessCodeEntry, Login};
use crate::inventory::oui::Vendors;

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
        let keys = match &entry.revoke_keys {
            Some(path) => {
                let bytes = key_file::read(path)?;
                let text = std::str::from_utf8(&bytes).with_context(|| path.display().to_string())?;
                let file: RevokeKeyFile = config::parse(path, text)?;
                RevokeKeys::new(&file).with_context(|| path.display().to_string())?
            }
            None => RevokeKeys::default(),
        };
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

/// The door's socket, before anybody is served.
#[derive(Debug)]
pub struct Socket {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
}

impl Socket {
    /// Listens. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the operating system says, naming the address.
    pub fn listen(entry: &LocalEntry) -> anyhow::Result<Self> {
        let listener = net::listen(&entry.listen).context("local.listen")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether others than this machine may connect, so that it must be HTTPS.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !self.address.ip().to_canonical().is_loopback()
    }

    /// Serves until `stop`.
    pub async fn serve(self, router: Router, identity: Arc<Identity>, stop: CancellationToken) {
        let is_public = self.is_public();
        info!(address = %self.address, tls = is_public, "the local door listens");
        let tls = is_public.then(|| Arc::new(identity.server_config_no_client(&[b"http/1.1"])));
        http::serve(self.listener, router, Options { connections_max: CONNECTIONS_MAX, tls }, stop).await;
    }
}
