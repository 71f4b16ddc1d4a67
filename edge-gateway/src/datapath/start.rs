//! Brings the datapath up with the daemon.

use anyhow::Context;
use prometheus::Registry;
use ring::rand::{SecureRandom, SystemRandom};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Datapath;
use super::metrics::{self, DatapathMetrics};
use crate::config::DatapathEntry;

/// Connects to the helper and says how each port is filtered; none where the configuration does without.
///
/// # Errors
/// Where the helper is not there: a gateway without its filter does not start.
pub async fn start(
    entry: &DatapathEntry,
    registry: &Registry,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Datapath>> {
    let DatapathEntry::Helper(path) = entry else {
        warn!("`datapath` is off: what reaches the gateway's ports is not filtered");
        return Ok(None);
    };
    let mut session = [0; 8];
    SystemRandom::new().fill(&mut session).map_err(|_unspecified| anyhow::anyhow!("no random numbers"))?;
    let session = u64::from_ne_bytes(session);
    let datapath = Datapath::connect(path, session, stop.clone()).await.context("datapath")?;
    for port in datapath.ports() {
        info!(
            interface = port.name,
            port = port.number,
            mode = port.mode.as_str(),
            up = port.up,
            "datapath port"
        );
    }
    let metrics = DatapathMetrics::register(registry)?;
    tokio::spawn(metrics::poll(datapath.clone(), metrics, stop.clone()));
    Ok(Some(datapath))
}
