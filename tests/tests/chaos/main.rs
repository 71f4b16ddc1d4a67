//! Gateway and core killed (-9) at every named point while sensors publish: what was acknowledged is at the core exactly once.
//!
//! `cargo xtask chaos` builds the daemons with kill points and runs it. `CAREGATE_SEED` repeats a run's choices.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "../gateway_to_core/found.rs"]
mod found;
#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;
mod points;
#[path = "../gateway_to_core/publisher.rs"]
mod publisher;
#[path = "../gateway_to_core/sensors.rs"]
mod sensors;
#[path = "../gateway_to_core/site.rs"]
mod site;

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use caregate_host::{clock, kill_point};
use found::{Found, opened_at_core};
use points::{CORE, GATEWAY, Point};
use sensors::{DEVICES, Random, Sensors, delivered, seed};
use site::{Daemon, Site};

/// How long a point may take to be reached: wraps are made once a minute, and the other daemon may be away for the first of them.
const REACHED_WITHIN: Duration = Duration::from_secs(150);

/// A daemon and where it is still to die.
struct Target {
    daemon: Daemon,
    points: VecDeque<Point>,
    armed: Option<(String, std::time::Instant)>,
    kills: u64,
    unreached: Vec<String>,
}

impl Target {
    fn new(daemon: Daemon, points: &[Point], times: u64) -> Self {
        let points = (0..times).flat_map(|_| points.iter().copied()).collect();
        Self { daemon, points, armed: None, kills: 0, unreached: Vec::new() }
    }

    /// Looks after it; false when it has died at every point and runs again.
    fn poll(&mut self, random: &mut Random) -> bool {
        if let Some(status) = self.daemon.ended() {
            let at = self.armed.take().map(|(at, _)| at);
            assert!(status.signal() == Some(9) && at.is_some(), "{status} at {at:?}\n{}", self.daemon.tail());
            self.kills += 1;
        } else if let Some((at, since)) = &self.armed {
            if since.elapsed() < REACHED_WITHIN {
                return true;
            }
            self.unreached.push(at.clone());
            self.daemon.kill();
            self.armed = None;
        } else if self.points.is_empty() {
            return false;
        } else {
            self.daemon.kill();
            self.kills += 1;
        }
        let Some((name, passes)) = self.points.pop_front() else {
            self.daemon.start();
            return false;
        };
        let at = format!("{name}@{}", 1 + random.below(passes));
        self.daemon.start_with(&[(kill_point::VARIABLE, &at)]);
        self.armed = Some((at, clock::monotonic()));
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_kill_at_every_point() {
    let times = std::env::var("CAREGATE_CHAOS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut random = Random(seed());
    let site = Site::new(&DEVICES);
    let (gateway, core) = (site.gateway(), site.core());
    let sensors = Sensors::start(&site);
    sensors.acknowledges(100).await;
    let mut targets = [Target::new(gateway, &GATEWAY, times), Target::new(core, &CORE, times)];
    loop {
        // Each has its turn, whether or not one before it goes on.
        let go_on = targets.each_mut().map(|target| target.poll(&mut random));
        if !go_on.contains(&true) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [mut gateway, mut core] = targets;
    let ledger = sensors.finish().await;
    delivered(&gateway.daemon).await;
    let refused = core.daemon.metric("caregate_core_records_total{outcome=\"refused\"}").unwrap();
    assert!(gateway.daemon.stop().success() && core.daemon.stop().success());
    let Found { readings, strange, .. } = opened_at_core(&site);
    let lost = ledger.acknowledged.iter().filter(|name| !readings.contains_key(*name)).count();
    let twice = readings.values().filter(|times| **times != 1).count();
    let unknown =
        readings.keys().filter(|name| !ledger.acknowledged.contains(*name) && !ledger.open.contains(*name));
    println!(
        "\nchaos: {{\"part\":\"kills\",\"acked\":{},\"lost\":{lost},\"duplicated\":{twice},\"undetected_corruptions\":{},\"kills\":{}}}",
        ledger.acknowledged.len(),
        unknown.count() + strange.len(),
        gateway.kills + core.kills,
    );
    println!("{} kills of the gateway, {} of the core", gateway.kills, core.kills);
    let unreached = [gateway.unreached, core.unreached].concat();
    assert!(unreached.is_empty(), "never reached: {unreached:?}");
    assert_eq!((lost, twice, strange, refused), (0, 0, Vec::<String>::new(), 0.0));
}
