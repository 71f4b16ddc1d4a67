//! `edge-gateway switch`: the OpenFlow switch and nothing else, for a box without sensors.
//!
//! Nobody is bound, so sensor ports, where the helper has any, let no device through; the controller has the rest.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::identity::Identity;
use caregate_host::{admin, dir, net, shutdown};
use prometheus::Registry;
use tokio::sync::watch;
use tracing::info;

use crate::config::{DatapathEntry, SwitchFile};
use crate::datapath::Datapath;
use crate::datapath::policy::{self, Fixed};
use crate::network;
use crate::openflow::start::Surroundings;
use crate::openflow::store::FlowStore;

/// How often certificate files are looked at for rotation.
const ROTATION_INTERVAL: Duration = Duration::from_secs(2);

/// What is on disk, opened and found good.
pub struct Parts {
    identity: Arc<Identity>,
    registry: Registry,
    kept: usize,
}

impl Parts {
    /// Says what was found.
    ///
    /// # Errors
    /// None: what can be wrong was found by [`open`].
    pub fn check(self) -> anyhow::Result<()> {
        info!(flows = self.kept, "configuration, certificate and kept flows are good");
        Ok(())
    }
}

/// Opens everything that the configuration names.
///
/// # Errors
/// The first thing that is wrong, with its file and key.
pub fn open(file: &SwitchFile) -> anyhow::Result<Parts> {
    if file.datapath == DatapathEntry::Off {
        bail!("`datapath`: \"off\" leaves no switch; name the helper's socket, [datapath] helper");
    }
    let identity = Identity::load(&file.identity)?;
    let registry = admin::registry()?;
    identity.register(&registry)?;
    dir::create_private(&file.data)?;
    let (_, flows) = FlowStore::open(&file.data).with_context(|| file.data.display().to_string())?;
    Ok(Parts { identity, registry, kept: flows.len() })
}

/// Runs until SIGTERM or SIGINT, or until the switch can't go on. What is in force in the kernel stays in force.
///
/// # Errors
/// What could not be started.
pub async fn run(file: &SwitchFile, parts: Parts) -> anyhow::Result<()> {
    let Parts { identity, registry, .. } = parts;
    let stop = shutdown::token()?;
    identity.watch(ROTATION_INTERVAL, stop.clone())?;
    let health = admin::Health::new();
    let there = health.condition("datapath");
    let around = Surroundings { data: &file.data, identity: &identity, registry: &registry, stop: &stop };
    let started = network::start(&file.datapath, Some(&file.controller), &around).await?;
    let datapath = started.datapath.context("no datapath")?;
    let mut fixed = Fixed::default();
    network::keep_controller(&mut fixed, &file.controller);
    let (_nobody, bound) = watch::channel(Arc::default());
    let policy = tokio::spawn(policy::run(datapath.clone(), bound, fixed, stop.clone()));
    let admin_listener = net::listen(&file.admin)?;
    info!(address = %admin_listener.local_addr()?, "admin listens");
    let serving = admin::serve(admin_listener, registry, health, axum::Router::new(), stop.clone());
    let serving = tokio::spawn(serving);
    tokio::spawn(watch_helper(datapath, there));
    serving.await?;
    policy.await?;
    // Whoever says who is shut out is the switch: when it has said goodbye to its controller, nobody says it any more.
    let mut quarantined = started.quarantined;
    while quarantined.changed().await.is_ok() {}
    Ok(())
}

/// Ready while the helper is there.
async fn watch_helper(datapath: Datapath, there: admin::Condition) {
    let mut welcome = datapath.welcome();
    loop {
        there.set(welcome.borrow_and_update().is_some());
        if welcome.changed().await.is_err() {
            return;
        }
    }
}
