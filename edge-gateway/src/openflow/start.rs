//! Starts the switch of a daemon's configuration.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use caregate_host::identity::Identity;
use caregate_host::memory;
use caregate_protocol::datapath::switch::Change;
use caregate_protocol::policy::Mac;
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::agent::{Part, Settings};
use super::metrics::Metrics;
use super::ports::Guard;
use super::store::FlowStore;
use super::switch::Switch;
use crate::config::SwitchEntry;
use crate::datapath::Datapath;

/// What full tables take: 4,096 flows, their journal while they come in, and the messages that are under way.
const TABLES_BYTES: usize = 8 * 1024 * 1024;

/// Where the daemon runs it.
pub struct Surroundings<'a> {
    /// Folder of the kept flows.
    pub data: &'a Path,
    /// Our certificate.
    pub identity: &'a Arc<Identity>,
    /// For its counters.
    pub registry: &'a Registry,
    /// Ends it, and is ended where it can't go on.
    pub stop: &'a CancellationToken,
}

/// Puts the kept flows in force and starts the switch; without a controller the tables are emptied. Says whom the controller has shut
/// out, now and at each change.
///
/// # Errors
/// Damaged flows, or a helper that refuses.
pub async fn start(
    entry: Option<&SwitchEntry>,
    datapath: Option<&Datapath>,
    around: &Surroundings<'_>,
) -> anyhow::Result<watch::Receiver<Arc<BTreeSet<Mac>>>> {
    let (quarantined, watched) = watch::channel(Arc::default());
    let (entry, datapath) = match (entry, datapath) {
        (Some(entry), Some(datapath)) => (entry, datapath),
        (None, Some(datapath)) => {
            datapath
                .change(Part::WHOLE, vec![Change::Clear])
                .await
                .context("the flows of a controller that is no more")?;
            return Ok(watched);
        }
        (Some(_), None) => {
            warn!("`datapath` is \"off\": there is no switch, and `controller` is left alone");
            return Ok(watched);
        }
        (None, None) => return Ok(watched),
    };
    memory::reserve(TABLES_BYTES);
    let (store, kept) = FlowStore::open(around.data)?;
    let switch = Switch {
        controller: entry.address,
        controller_name: entry.name.clone(),
        settings: Settings {
            datapath_id: entry.datapath_id.0,
            name: around.identity.id().peer().name.clone(),
            version: crate::VERSION,
            guard: Guard::built(),
        },
        identity: Arc::clone(around.identity),
        store,
        kept,
        helper: datapath.clone(),
        events: datapath.events(),
        metrics: Metrics::register(around.registry)?,
        quarantined,
    };
    let installed = switch.install().await?;
    let stop = around.stop.clone();
    tokio::spawn(async move {
        // A gateway that its network can't steer any more is started anew.
        let _guard = stop.clone().drop_guard();
        if let Err(failure) = installed.run(stop).await {
            error!(%failure, "the switch can't go on");
        }
    });
    Ok(watched)
}
