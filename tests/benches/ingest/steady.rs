//! While both ends are there: how much goes through, and how soon.

use std::time::Duration;

use anyhow::Context;
use caregate_host::clock;

use crate::contender::Contender;
use crate::load::{self, Body, End, Pace};
use crate::process::{device_bytes, metric, until};
use crate::site::{self, Site};
use crate::{Figures, disk, quantile};

pub(crate) const CLIENTS: usize = 50;
const WINDOW: usize = 20;
/// PUBLISHes a second of all clients together.
const RATE: u32 = 1000;
/// Between two alarms.
const ALARM_EVERY: Duration = Duration::from_millis(50);

/// As much as goes: 50 clients, then one. It counts as through when the far end has it: acknowledged by the core after its own sync,
/// or at the subscriber.
pub(crate) fn throughput(
    contender: &Contender,
    name: &str,
    span: Duration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    // A subscriber of the feed costs the feed, which is no part of what is compared; a broker has its queue to send to somebody.
    let subscriber = match contender {
        Contender::Ours(_) => None,
        Contender::Bridge(_) => Some(contender.subscribe(false)?),
    };
    for (clients, suffix) in [(CLIENTS, ""), (1, "_1")] {
        let cpu_s = contender.cpu_s()?;
        let begun = clock::monotonic();
        let clients = site::clients(clients, Body::Numeric);
        let report = load::run(contender.mqtt(), &clients, Pace::Window(WINDOW), End::After(span), false)?;
        until("the far end has it all", || match (contender, &subscriber) {
            (Contender::Ours(site), _) => site.waiting() == Some(0.0),
            (Contender::Bridge(_), Some(subscriber)) => subscriber.count() >= report.sent,
            (Contender::Bridge(_), None) => false,
        })?;
        let (took, sent) = (begun.elapsed().as_secs_f64(), report.sent as f64);
        figures.put(&format!("msgs_s{suffix}_{name}"), sent / took);
        if suffix.is_empty() {
            let cpu_s = contender.cpu_s()? - cpu_s;
            figures.put(&format!("cpu_s_per_100k_{name}"), cpu_s / sent * 100_000.0);
        }
        if let Some(subscriber) = &subscriber {
            subscriber.forget();
        }
    }
    subscriber.map_or(Ok(()), super::subscriber::Subscriber::stop)
}

/// 1,000 a second of 50 clients, and at ours twenty alarms a second beside them.
pub(crate) fn paced(
    contender: &Contender,
    name: &str,
    span: Duration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let subscriber = contender.subscribe(false)?;
    let every = Duration::from_secs(1) * u32::try_from(CLIENTS)? / RATE;
    let clients = site::clients(CLIENTS, Body::Numeric);
    let (to, alarm) = (contender.mqtt(), contender.alarm());
    let is_ours = matches!(contender, Contender::Ours(_));
    let (mut report, alarms) = std::thread::scope(|scope| {
        let alarms = is_ours.then(|| {
            scope.spawn(|| load::run(to, &alarm, Pace::Every(ALARM_EVERY), End::After(span), false))
        });
        let report = load::run(to, &clients, Pace::Every(every), End::After(span), false);
        let alarms =
            alarms.map(|thread| thread.join().map_err(|_panic| anyhow::anyhow!("the load panicked")));
        Ok::<_, anyhow::Error>((report?, alarms.transpose()?.transpose()?))
    })?;
    let sent = report.sent + alarms.map_or(0, |report| report.sent);
    until("it has all come", || subscriber.count() >= sent)?;
    let mut came = subscriber.taken();
    subscriber.stop()?;
    let mut put = |field: &str, values: &mut [f64], part: usize| {
        quantile(values, part, 100).context("nothing came").map(|value| figures.put(field, value))
    };
    put(&format!("p50_ms_{name}"), &mut came.numeric_ms, 50)?;
    put(&format!("p99_ms_{name}"), &mut came.numeric_ms, 99)?;
    put(&format!("puback_p50_ms_{name}"), &mut report.puback_ms, 50)?;
    put(&format!("puback_p99_ms_{name}"), &mut report.puback_ms, 99)?;
    if is_ours {
        put("alarm_p50_ms", &mut came.event_ms, 50)?;
        put("alarm_p99_ms", &mut came.event_ms, 99)?;
    }
    Ok(())
}

/// Bytes at the block device, by anybody, for each byte of a frame, at 1,000 a second: while the core takes them, and while it is away. The
/// gateway has a file system with a journal to itself (`write_fs` 1); who may not mount has that of the target folder (0).
pub(crate) fn written(span: Duration, figures: &mut Figures) -> anyhow::Result<()> {
    let disk =
        disk::Disk::mount().inspect_err(|error| eprintln!("  no file system of its own: {error:#}")).ok();
    let dir = disk.as_ref().map_or_else(site::target, |disk| Ok(disk.path()))?;
    let mut site = Site::start_apart(CLIENTS, &dir)?;
    // So that files have gone round, as they have from a gateway's first days on.
    let clients = site::clients(CLIENTS, Body::Numeric);
    load::run(site.mqtt, &clients, Pace::Window(WINDOW), End::After(span * 2), false)?;
    until("the core has it all", || site.waiting() == Some(0.0))?;
    figures.put("write_fs", if disk.is_some() { 1.0 } else { 0.0 });
    figures.put("write_amplification", amplification(&site, span)?);
    site.core.stop()?;
    figures.put("write_amplification_cut", amplification(&site, span)?);
    Ok(())
}

fn amplification(site: &Site, span: Duration) -> anyhow::Result<f64> {
    let every = Duration::from_secs(1) * u32::try_from(CLIENTS)? / RATE;
    let clients = site::clients(CLIENTS, Body::Numeric);
    let now = || -> anyhow::Result<(u64, f64)> {
        // What the file system delays belongs to the load before it.
        settle()?;
        let framed = metric(site.gateway_admin, "caregate_gateway_spool_framed_bytes_total ");
        Ok((device_bytes(site.dir.path())?, framed.context("metric")?))
    };
    let (device, framed) = now()?;
    load::run(site.mqtt, &clients, Pace::Every(every), End::After(span * 2), false)?;
    let (device_after, framed_after) = now()?;
    Ok((device_after - device) as f64 / (framed_after - framed))
}

fn settle() -> anyhow::Result<()> {
    let status = std::process::Command::new("sync").status()?;
    anyhow::ensure!(status.success(), "sync: {status}");
    Ok(())
}
