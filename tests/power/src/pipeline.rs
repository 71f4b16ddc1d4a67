//! Gateway and core, both on the one disk: sensors publish by MQTT, readings are sealed, spooled, sent up and stored, and all the time a
//! client of the gateway's keeps a session with more and more subscriptions. At a point both lose power at once.
//!
//! What a sensor was acknowledged is at the core, or in the spool and not acknowledged by the core: so neither covers up for the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use caregate_guest::power::Report;
use caregate_host::journal::Journal;
use caregate_protocol::audit::verify;
use caregate_protocol::id::DeviceId;
use edge_gateway::keys::KeyStore;
use edge_gateway::mqtt::access::Access;
use edge_gateway::mqtt::hub::{Hub, SessionKey};
use edge_gateway::mqtt::kept::SessionFile;
use edge_gateway::mqtt::wire::Reason;
use edge_gateway::pipeline::recover;
use edge_gateway::spool::Limits;
use tokio::runtime::{Builder, Runtime};

use crate::PLACE;
use crate::found::{Found, opened_at_core};
use crate::publisher::{Ledger, Name};
use crate::segments::{Segments, at_core, in_spool};
use crate::sensors::{DEVICES, Sensors, delivered};
use crate::session::{self, CLIENT_ID, DEVICE};
use crate::site::{Site, Surroundings};
use crate::told::Told;
use crate::work::{Mark, Work};

/// As a gateway with kill points has them: so small that each run meets many rotations and deletions.
const FILE_BYTES: u64 = 256 << 10;
const RESERVE_BYTES: u64 = 64 << 10;
/// Between looks at what was acknowledged: a mark for each, where there is anything new.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// Acknowledged readings of daemons that go on after a power cut.
const RESUMED_READINGS: u64 = 40;

/// What holds from a mark on.
#[derive(Debug, Clone, Default)]
struct Promise {
    /// So many readings are acknowledged.
    acknowledged: usize,
    /// Published and not acknowledged.
    open: BTreeSet<Name>,
    /// So many subscriptions of the session are kept, and as many retained messages came before them.
    subscriptions: u64,
}

/// A run of both.
struct Lived {
    site: Site,
    /// In the order of their acknowledgements.
    acknowledged: Vec<Name>,
    /// The same, and at the end all that was ever published.
    published: BTreeSet<Name>,
    promises: Vec<Promise>,
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().context("a runtime")
}

/// Has sensors publish until so many readings are acknowledged.
pub(crate) fn live(told: &Told, mark: &Mark<'_>) -> anyhow::Result<Box<dyn Work>> {
    let around = Surroundings { data: Some(PLACE.into()), ..Surroundings::loopback() };
    let site = Site::within(&DEVICES, &around);
    let (mut gateway, mut core) = (site.gateway(), site.core());
    let mut lived =
        Lived { site, acknowledged: Vec::new(), published: BTreeSet::new(), promises: Vec::new() };
    runtime()?.block_on(async {
        let sensors = Sensors::start(&lived.site);
        let subscriptions = Arc::new(AtomicU64::new(0));
        let keeping = tokio::spawn(session::grow(
            lived.site.mqtt,
            lived.site.gateway_admin,
            Arc::clone(&subscriptions),
        ));
        while (lived.acknowledged.len() as u64) < told.amount {
            tokio::time::sleep(LOOK_EVERY).await;
            ensure!(!keeping.is_finished(), "the session's client has ended");
            lived.look(&sensors, subscriptions.load(Ordering::SeqCst), mark)?;
        }
        keeping.abort();
        let ledger = sensors.finish().await;
        lived.published.extend(ledger.acknowledged.into_iter().chain(ledger.open));
        anyhow::Ok(())
    })?;
    ensure!(gateway.stop().success() && core.stop().success(), "a daemon did not end well");
    Ok(Box::new(lived))
}

impl Lived {
    /// Notes what is new, and marks it.
    fn look(&mut self, sensors: &Sensors, subscriptions: u64, mark: &Mark<'_>) -> anyhow::Result<()> {
        let open = {
            let ledger = sensors.ledger.lock().map_err(|_poisoned| anyhow!("a sensor panicked"))?;
            if ledger.acknowledged.len() == self.acknowledged.len() {
                return Ok(());
            }
            for name in ledger.acknowledged.difference(&self.published) {
                self.acknowledged.push(name.clone());
            }
            self.published.extend(self.acknowledged.iter().skip(self.published.len()).cloned());
            ledger.open.clone()
        };
        mark(self.promises.len())?;
        self.promises.push(Promise { acknowledged: self.acknowledged.len(), open, subscriptions });
        Ok(())
    }

    fn promise(&self, mark: usize) -> anyhow::Result<&Promise> {
        self.promises.get(mark).context("a mark that nobody made")
    }

    fn readings(&self, promise: &Promise) -> &[Name] {
        self.acknowledged.get(..promise.acknowledged).unwrap_or_default()
    }

    /// What the files say, once recovery has opened them.
    fn files(&self, promise: &Promise) -> anyhow::Result<Report> {
        let folder = Path::new(PLACE).join("gateway");
        let mut report = Report::default();
        let mut keys = KeyStore::open(&folder).context("keys.redb")?;
        missing_of_session(&folder, &keys, promise.subscriptions, &mut report)?;
        for journal in [folder.join("journal.jsonl"), self.site.store().join("journal.jsonl")] {
            is_chained(&journal)?;
        }
        let limits = Limits::new(FILE_BYTES, 1 << 30, RESERVE_BYTES);
        let (log, state, recovery) = recover::open(&folder.join("spool"), limits, &mut keys)?;
        let told = recovery.damaged.iter().filter(|damage| !damage.positions.is_empty());
        report.false_alarms += told.count() as u64;
        let key = self.site.device_key.verifying_key();
        let (core, spool) = (at_core(&self.site.store(), &state.chains)?, in_spool(&log)?);
        let segments = Segments::open(core, spool, &key, &mut keys)?;
        report.undetected_corruptions += segments.faults(&state.chains);
        let times = segments.readings();
        for name in self.readings(promise).iter().filter(|name| !times.contains_key(name)) {
            report.lost += 1;
            report.notes.push(format!("{name:?} of {} acknowledged", promise.acknowledged));
        }
        report.duplicated += segments.twice();
        let unknown = times.keys().filter(|name| !self.published.contains(name));
        report.undetected_corruptions += unknown.count() as u64;
        Ok(report)
    }

    /// Starts both on what is left; sensors repeat what was not acknowledged, and go on.
    fn resume(&self, promise: &Promise) -> anyhow::Result<Report> {
        let (mut core, mut gateway) = (self.site.core(), self.site.gateway_again());
        let before: BTreeSet<Name> = self.readings(promise).iter().cloned().collect();
        let ledger = Ledger { open: promise.open.clone(), acknowledged: before, sent: 0 };
        let ledger = runtime()?.block_on(async {
            let sensors = Sensors::go_on(&self.site, ledger);
            sensors.acknowledges(RESUMED_READINGS).await;
            let ledger = sensors.finish().await;
            delivered(&gateway).await;
            ledger
        });
        let refused = core.metric("caregate_core_records_total{outcome=\"refused\"}");
        ensure!(refused == Some(0.0), "the core refused {refused:?} records");
        ensure!(gateway.stop().success() && core.stop().success(), "a daemon did not end well");
        let Found { readings, strange, .. } = opened_at_core(&self.site);
        ensure!(strange.is_empty(), "the recipient refuses {strange:?}");
        let lost = ledger.acknowledged.iter().filter(|name| !readings.contains_key(*name));
        Ok(Report {
            lost: lost.count() as u64,
            duplicated: readings.values().filter(|times| **times != 1).count() as u64,
            resumed: 1,
            ..Report::default()
        })
    }
}

impl Work for Lived {
    fn promised(&self) -> u64 {
        self.promises.last().map_or(0, |promise| promise.acknowledged as u64 + promise.subscriptions)
    }

    fn due(&self, mark: usize) -> u64 {
        self.promises.get(mark).map_or(0, |promise| promise.acknowledged as u64 + promise.subscriptions)
    }

    fn check(&self, mark: usize, resumes: bool) -> anyhow::Result<Report> {
        let promise = self.promise(mark)?;
        let mut report = self.files(promise)?;
        if resumes {
            report += self.resume(promise)?;
        }
        Ok(report)
    }
}

/// Counts those of the session's subscriptions that are not in its file, and whether the retained message is.
fn missing_of_session(
    folder: &Path,
    keys: &KeyStore,
    promised: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let key = keys.file_key("mqtt.sessions").context("the key of mqtt.sessions")?;
    let Some(bytes) = SessionFile::new(folder, &key).read()? else {
        report.lost += 2 * promised;
        report.notes.extend((promised > 0).then(|| "no mqtt.sessions".to_owned()));
        return Ok(());
    };
    let mut hub = Hub::new(1);
    hub.restore(&bytes, Duration::ZERO, 0, &Access::new([])?).context("mqtt.sessions")?;
    let key = SessionKey { device: DeviceId::new(DEVICE)?, client_id: CLIENT_ID.to_owned() };
    let filters: Vec<String> = (0..promised).map(session::filter).collect();
    let there = match hub.has_session(&key) {
        true => hub.unsubscribe(&key, &filters),
        false => vec![Reason::NO_SUBSCRIPTION_EXISTED; filters.len()],
    };
    for (filter, reason) in filters.iter().zip(there).filter(|(_, reason)| *reason != Reason::SUCCESS) {
        report.lost += 1;
        report.notes.push(format!("{filter} of {promised}: {reason:?}"));
    }
    let retained = session::retained_in(&bytes).map_or(0, |number| number + 1);
    if retained < promised {
        report.lost += 1;
        report.notes.push(format!("retained: {retained} of {promised}"));
    }
    Ok(())
}

/// The log opens, its torn end cut off, and is one chain.
pub(crate) fn is_chained(journal: &Path) -> anyhow::Result<()> {
    if !journal.exists() {
        return Ok(());
    }
    drop(Journal::open(journal).with_context(|| journal.display().to_string())?);
    let text = std::fs::read(journal)?;
    let log = verify::log(&text, &[]).map_err(|fault| anyhow!("{}: {fault:?}", journal.display()))?;
    ensure!(log.lines.windows(2).all(|pair| pair[0].n + 1 == pair[1].n), "{}: numbers", journal.display());
    Ok(())
}

/// Readings by name: how often each.
pub(crate) type Times = BTreeMap<Name, u64>;
