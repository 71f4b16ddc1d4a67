//! While the far end is away: what is kept, what it costs, what a kill takes, and how it comes back.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use caregate_host::clock;

use crate::contender::Contender;
use crate::load::{self, Body, End, Pace};
use crate::process::{PATIENCE, metric, until};
use crate::site::{self, Site};
use crate::subscriber::Subscriber;
use crate::{Figures, quantile};

/// Sensors of which there is a backlog.
pub(crate) const SENSORS: usize = 100;
/// Chunks of each: 256 MiB in all.
const CHUNKS: u64 = (256 << 20) / (SENSORS * CHUNK_BYTES) as u64;
const CHUNK_BYTES: usize = 1040;
/// PUBLISHes a second while the link is cut, and clients.
const CUT_RATE: u32 = 750;
/// Leads that are worn while a backlog of real time comes into being, and between two chunks of each.
const LEADS: usize = 18;
const CHUNK: Duration = Duration::from_millis(250);
/// Numbers a second that go on while a backlog drains, and for how long: less than the drain takes.
const LIVE_RATE: u32 = 200;
const LIVE_SPAN: Duration = Duration::from_secs(10);
/// How long [`LEADS`] are worn until they have written the 256 MiB: an hour.
const WORN: Duration = Duration::from_secs(SENSORS as u64 * CHUNKS / LEADS as u64 / 4);
/// How long: drained at twenty times this pace it takes a second and a half.
const BACKLOG: Duration = Duration::from_secs(30);

/// The link is cut, the end in the home is killed in it and started again, and the link returns: of what was acknowledged, how much
/// never comes.
pub(crate) fn kill(
    mut contender: Contender,
    name: &str,
    cut: Duration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let subscriber = contender.subscribe(true)?;
    let clients = site::clients(10, Body::Numeric);
    let every = Duration::from_secs(1) * 10 / CUT_RATE;
    let to = contender.mqtt();
    let mut acked: HashSet<(String, i64)> = HashSet::new();
    let mut publish = |span: Duration, kill: Option<&mut Contender>| -> anyhow::Result<()> {
        let report = std::thread::scope(|scope| {
            let load = scope.spawn(|| load::run(to, &clients, Pace::Every(every), End::After(span), true));
            if let Some(contender) = kill {
                std::thread::sleep(span / 2);
                contender.ends_mut().0.kill()?;
            }
            load.join().map_err(|_panic| anyhow::anyhow!("the load panicked"))?
        })?;
        acked.extend(report.acked.into_iter().map(|(nth, counter)| (site::device(nth), counter)));
        Ok(())
    };
    publish(cut / 2, None)?;
    contender.ends().1.signal("-STOP")?;
    // Twice the cut's length is asked for; the kill in the middle ends it.
    publish(cut * 2, Some(&mut contender))?;
    contender.ends_mut().0.restart()?;
    contender.ends().1.signal("-CONT")?;
    answers(to).with_context(|| contender.ends().0.tail())?;
    publish(cut / 2, None)?;
    let mut came = HashSet::new();
    // What is lost never comes; so long after the last arrival nothing will.
    let mut quiet = clock::monotonic();
    until("nothing comes any more", || {
        let more = subscriber.taken().names.unwrap_or_default();
        if !more.is_empty() {
            quiet = clock::monotonic();
            came.extend(more);
        }
        acked.is_subset(&came) || quiet.elapsed() > PATIENCE / 8
    })?;
    figures.put(&format!("lost_after_kill_{name}"), acked.difference(&came).count() as f64);
    figures.put(&format!("acked_before_kill_{name}"), acked.len() as f64);
    subscriber.stop()
}

/// 256 MiB while the far end is stopped: memory; ours also its recovery after a kill.
pub(crate) fn backlog(mut contender: Contender, name: &str, figures: &mut Figures) -> anyhow::Result<()> {
    // So that the bridge has been up, and the peer knows whom it queues for.
    let subscriber = contender.subscribe(false)?;
    if let Contender::Ours(site) = &mut contender {
        return ours(site, subscriber, figures);
    }
    subscriber.stop()?;
    contender.ends_mut().1.stop()?;
    let clients = site::clients(SENSORS, Body::Wave);
    // A broker that writes its whole database for each change does not come to the end of it.
    let report = load::run(contender.mqtt(), &clients, Pace::Window(20), End::Count(CHUNKS), true)?;
    figures.put(&format!("rss_mib_{name}"), contender.ends().0.rss_mib()?);
    figures.put(&format!("rss_peak_mib_{name}"), contender.ends().0.rss_peak_mib()?);
    figures
        .put(&format!("backlog_mib_{name}"), (report.acked.len() * CHUNK_BYTES) as f64 / f64::from(1 << 20));
    Ok(())
}

fn ours(site: &mut Site, subscriber: Subscriber, figures: &mut Figures) -> anyhow::Result<()> {
    drain(site, figures)?;
    let alone = live(site, &subscriber, "alone", figures)?;
    site.core.stop()?;
    let clients = site::clients(SENSORS, Body::Wave);
    load::run(site.mqtt, &clients, Pace::Window(20), End::Count(CHUNKS), false)?;
    figures.put("rss_mib_ours", site.gateway.rss_mib()?);
    figures.put("rss_peak_mib_ours", site.gateway.rss_peak_mib()?);
    let bytes = metric(site.gateway_admin, "caregate_gateway_spool_bytes").context("metric")?;
    figures.put("spool_mib", bytes / f64::from(1 << 20));
    site.gateway.kill()?;
    site.gateway.restart()?;
    let recovery = answers(site.mqtt).with_context(|| site.gateway.tail())?;
    figures.put("recovery_s_256mb_spool", recovery.as_secs_f64());
    figures.put("rss_mib_recovered_ours", site.gateway.rss_mib()?);
    let begun = clock::monotonic();
    site.core.restart()?;
    let lanes = || metric(site.gateway_admin, "caregate_gateway_lane_connected") == Some(5.0);
    until("every lane is connected", lanes).with_context(|| site.gateway.tail())?;
    let draining = live(site, &subscriber, "draining", figures)?;
    figures.put("live_delay_while_draining", draining / alone - 1.0);
    until("the backlog is gone", || site.waiting() == Some(0.0))?;
    let took = begun.elapsed().as_secs_f64();
    figures.put("drain_s_256mb", took);
    figures.put("drain_hour_x_realtime", WORN.as_secs_f64() / took);
    subscriber.stop()
}

/// Numbers at [`LIVE_RATE`] a second: the median of their way to the subscriber in milliseconds.
fn live(site: &Site, subscriber: &Subscriber, when: &str, figures: &mut Figures) -> anyhow::Result<f64> {
    subscriber.forget();
    let clients = site::clients(10, Body::Numeric);
    let every = Duration::from_secs(1) * 10 / LIVE_RATE;
    let mut report = load::run(site.mqtt, &clients, Pace::Every(every), End::After(LIVE_SPAN), false)?;
    figures.put(&format!("left_{when}"), site.waiting().context("metric")?);
    until("the numbers have come", || subscriber.count() >= report.sent)?;
    let mut came = subscriber.taken();
    let mut put = |field: &str, values: &mut [f64], part: usize| {
        let value = quantile(values, part, 100).context("nothing came");
        value.inspect(|value| figures.put(&format!("{field}_{when}"), *value))
    };
    put("puback_p99_ms", &mut report.puback_ms, 99)?;
    put("live_p99_ms", &mut came.numeric_ms, 99)?;
    put("live_p50_ms", &mut came.numeric_ms, 50)
}

/// Waits until a PUBLISH is acknowledged; how long that took.
fn answers(mqtt: SocketAddr) -> anyhow::Result<Duration> {
    let one = site::clients(1, Body::Numeric);
    until("a PUBLISH is acknowledged", || {
        load::run(mqtt, &one, Pace::Window(1), End::Count(1), true).is_ok_and(|sent| sent.acked.len() == 1)
    })
}

/// A backlog that came in real time, and how much faster it goes.
fn drain(site: &mut Site, figures: &mut Figures) -> anyhow::Result<()> {
    site.core.stop()?;
    let clients = site::clients(LEADS, Body::Wave);
    load::run(site.mqtt, &clients, Pace::Every(CHUNK), End::After(BACKLOG), false)?;
    site.core.restart()?;
    let connected =
        || metric(site.gateway_admin, "caregate_gateway_lane_connected{lane=\"backlog\"}") == Some(1.0);
    until("the backlog's lane is connected", connected)?;
    let took = until("the backlog is gone", || site.waiting() == Some(0.0))?;
    figures.put("drain_x_realtime", BACKLOG.as_secs_f64() / took.as_secs_f64());
    site.connected()
}
