//! The data path's part: the cut, the kill, and the end of everything that was published.

use std::time::Duration;

use anyhow::bail;
use caregate_host::clock;

use super::{DRAIN_TIMEOUT, Seen, pause};
use crate::demo::process::metric;
use crate::demo::system::{Daemon, System, is_ready};
use crate::say;

/// How long the uplink is cut: the gateway notices a dead path after 5 s.
const CUT: Duration = Duration::from_secs(8);
/// Time for sensors to get their last PUBACKs: as long as they wait by default, and a little more.
const SENSORS_TIMEOUT: Duration = Duration::from_secs(150);

/// Cuts the uplink for a while; waits until the backlog has drained.
pub(super) fn cut(system: &mut System<'_>, seen: &mut Seen) -> anyhow::Result<()> {
    let admin = system.admin(Daemon::Gateway)?;
    say(&format!("story: the uplink is cut for {} s", CUT.as_secs()));
    let from_ms = clock::now_ms();
    let back = clock::monotonic() + CUT;
    system.network.set_uplink(false)?;
    while clock::monotonic() < back {
        pause(system, Duration::from_millis(200))?;
        seen.cut |= !is_ready(admin);
    }
    let waiting = system.gateway_metric("caregate_gateway_spool_waiting").unwrap_or(0.0);
    system.network.set_uplink(true)?;
    say(&format!("story: the uplink is back; {waiting} records wait"));
    let returned = clock::monotonic();
    // The next position at the moment of the return: the backlog is below it.
    let target = system.gateway_metric("caregate_gateway_spool_next").unwrap_or(f64::MAX);
    let drained =
        || metric(admin, "caregate_gateway_spool_oldest_waiting").is_some_and(|oldest| oldest >= target);
    system.wait_until("the backlog has drained", DRAIN_TIMEOUT, || is_ready(admin) && drained())?;
    seen.backlog_s = returned.elapsed().as_secs_f64();
    seen.returned = true;
    seen.exclude.push((from_ms, clock::now_ms()));
    say(&format!("story: the backlog drained in {:.1} s", seen.backlog_s));
    Ok(())
}

/// Kills the gateway and starts it again.
pub(super) fn kill(system: &mut System<'_>, seen: &mut Seen) -> anyhow::Result<()> {
    let admin = system.admin(Daemon::Gateway)?;
    say("story: the gateway is killed (-9)");
    seen.peak_rss_mib = seen.peak_rss_mib.max(system.gateway_rss_mib());
    let at = clock::monotonic();
    seen.killed = system.kill(Daemon::Gateway)?;
    system.restart(Daemon::Gateway)?;
    system.wait_ready(Daemon::Gateway)?;
    let before = metric(admin, "caregate_gateway_commits_total").unwrap_or(0.0);
    system.wait_until("readings are stored again", DRAIN_TIMEOUT, || {
        metric(admin, "caregate_gateway_commits_total").is_some_and(|now| now > before)
    })?;
    seen.recovered = true;
    say(&format!("story: readings are stored again {} ms after the kill", at.elapsed().as_millis()));
    Ok(())
}

/// Ends the sensors, and waits until the core has everything.
pub(super) fn finish(system: &mut System<'_>, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: sensors stop and wait for their last PUBACKs");
    let Some(mut sensors) = system.sensors.take() else { bail!("the sensors were not started") };
    let status = sensors.end(Some(SENSORS_TIMEOUT))?;
    if !status.success() {
        bail!("sensor-sim ended with {status}: a PUBACK never came; see its log");
    }
    let admin = system.admin(Daemon::Gateway)?;
    system.wait_until("the core has everything", DRAIN_TIMEOUT, || {
        metric(admin, "caregate_gateway_spool_waiting") == Some(0.0)
    })?;
    seen.peak_rss_mib = seen.peak_rss_mib.max(system.gateway_rss_mib());
    Ok(())
}
