//! What the daemon and the switch without sensors bring up alike: the datapath in the kernel, and on it the controller's switch.

use std::collections::BTreeSet;
use std::sync::Arc;

use caregate_protocol::policy::Mac;
use prometheus::{IntGauge, Registry};
use tokio::sync::watch;
use tracing::warn;

use crate::config::{DatapathEntry, SwitchEntry};
use crate::datapath::policy::{Fixed, TCP};
use crate::datapath::{self, Datapath};
use crate::openflow::start::{self, Surroundings};
use crate::{GUARDED, VERSION};

/// The gateway's place in its network.
pub struct Network {
    /// The helper; none where the configuration does without.
    pub datapath: Option<Datapath>,
    /// Whom the controller has shut out, now and at each change.
    pub quarantined: watch::Receiver<Arc<BTreeSet<Mac>>>,
}

/// Connects to the helper, puts the kept flows in force and starts the switch.
///
/// # Errors
/// Where the helper is not there or refuses, or where the kept flows are damaged.
pub async fn start(
    datapath: &DatapathEntry,
    controller: Option<&SwitchEntry>,
    around: &Surroundings<'_>,
) -> anyhow::Result<Network> {
    say_guard(around.registry)?;
    let datapath = datapath::start(datapath, around.registry, around.stop).await?;
    let quarantined = start::start(controller, datapath.as_ref(), around).await?;
    Ok(Network { datapath, quarantined })
}

/// `caregate_switch_guard`: 1, or 0 in a build for conformance suites.
fn say_guard(registry: &Registry) -> anyhow::Result<()> {
    let guard = IntGauge::new(
        "caregate_switch_guard",
        "1 where table 0 and sensor ports are kept from the controller; 0 in a build for conformance suites",
    )?;
    guard.set(GUARDED.into());
    registry.register(Box::new(guard))?;
    if !GUARDED {
        warn!(
            version = VERSION,
            "THIS BUILD HAS NO GUARD: all tables are the controller's. It is for conformance suites, and for no network"
        );
    }
    Ok(())
}

/// What of table 0 the controller's connection needs: it stays, whatever the controller's rules say.
pub fn keep_controller(fixed: &mut Fixed, controller: &SwitchEntry) {
    fixed.keep(TCP, controller.address);
}
