//! From PUBLISH to the core's store with the real daemons, killed at any moment: what was acknowledged is in the store
//! exactly once and opens for its recipient, the chains are whole, and no segment was refused.
//!
//! `CAREGATE_LONG=1` runs the kills for about ten times as long; `CAREGATE_SEED` repeats a run's choices.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod found;
#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;
mod publisher;
mod sensors;
mod site;

use std::time::Duration;

use found::{Found, opened_at_core};
use publisher::Ledger;
use sensors::{DEVICES, Random, Sensors, delivered, seed, until};
use site::{Daemon, PATIENCE, Site, page};

fn is_ready(daemon: &Daemon) -> bool {
    page(daemon.admin, "/readyz").is_some_and(|text| text.starts_with("HTTP/1.1 200"))
}

fn assert_exactly_once(site: &Site, ledger: &Ledger) {
    let Found { readings: found, strange } = opened_at_core(site);
    assert!(strange.is_empty(), "{strange:?}");
    let lost: Vec<_> =
        ledger.acknowledged.iter().filter(|name| !found.contains_key(*name)).take(10).collect();
    assert!(lost.is_empty(), "acknowledged, but not at the core, among others: {lost:?}");
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times != 1).take(10).collect();
    assert!(twice.is_empty(), "more than once at the core, among others: {twice:?}");
    let unknown: Vec<_> = found
        .keys()
        .filter(|name| !ledger.acknowledged.contains(*name) && !ledger.open.contains(*name))
        .collect();
    assert!(unknown.is_empty(), "nobody published {unknown:?}");
    println!(
        "{} readings in {} PUBLISHes, {} acknowledged, all at the core once",
        found.len(),
        ledger.sent,
        ledger.acknowledged.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_any_kill_of_gateway_and_core() {
    let rounds = if std::env::var_os("CAREGATE_LONG").is_some() { 600 } else { 60 };
    let mut random = Random(seed());
    let site = Site::new(&DEVICES);
    let (mut gateway, mut core) = (site.gateway(), site.core());
    let sensors = Sensors::start(&site);
    sensors.acknowledges(100).await;
    let (mut kills, mut refused) = ((0, 0), 0.0);
    for _ in 0..rounds {
        sensors.acknowledges(random.below(400)).await;
        // Somewhere within a group commit, and not always just after its acknowledgements.
        tokio::time::sleep(Duration::from_micros(random.below(15_000))).await;
        refused += core.metric("caregate_core_records_total{outcome=\"refused\"}").unwrap_or(0.0);
        match random.below(4) {
            0 => {
                core.kill();
                kills.1 += 1;
                sensors.acknowledges(random.below(300)).await;
                if random.below(2) == 0 {
                    gateway.kill();
                    kills.0 += 1;
                    gateway.start();
                    sensors.acknowledges(random.below(100)).await;
                }
                core.start();
            }
            1 => {
                gateway.kill();
                core.kill();
                kills = (kills.0 + 1, kills.1 + 1);
                core.start();
                gateway.start();
            }
            _ => {
                gateway.kill();
                kills.0 += 1;
                gateway.start();
            }
        }
    }
    let ledger = sensors.finish().await;
    delivered(&gateway).await;
    refused += core.metric("caregate_core_records_total{outcome=\"refused\"}").unwrap();
    assert!(refused < 1.0, "{refused} records were refused");
    assert!(gateway.metric("caregate_gateway_quarantined_total").unwrap() < 1.0);
    assert!(gateway.stop().success() && core.stop().success());
    println!("{} kills of the gateway, {} of the core", kills.0, kills.1);
    assert!(ledger.open.is_empty());
    assert_exactly_once(&site, &ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_stopped_has_delivered_what_it_acknowledged() {
    let site = Site::new(&DEVICES);
    let (mut gateway, mut core) = (site.gateway(), site.core());
    let sensors = Sensors::start(&site);
    // The gateway is up before the core; without a connection it would stop with all of it in its spool, as the next test sees.
    let connected = || gateway.metric("caregate_gateway_lane_connected") == Some(5.0);
    until("every lane is connected", connected).await;
    until("the core is ready", || is_ready(&core)).await;
    sensors.acknowledges(500).await;
    // In the middle of publishing. It does not come back, so what it still had would be missing.
    let (mut gateway, status) = tokio::task::spawn_blocking(move || {
        let status = gateway.stop();
        (gateway, status)
    })
    .await
    .unwrap();
    assert!(status.success(), "{status}\n{}", gateway.tail());
    assert!(core.stop().success());
    {
        let ledger = sensors.ledger.lock().unwrap();
        let found = opened_at_core(&site).readings;
        let lost: Vec<_> = ledger.acknowledged.iter().filter(|name| !found.contains_key(*name)).collect();
        assert!(lost.is_empty(), "{} of {} are missing: {lost:?}", lost.len(), ledger.acknowledged.len());
    }
    // And the rest arrives when both are back.
    gateway.start();
    core.start();
    let ledger = sensors.finish().await;
    delivered(&gateway).await;
    assert!(gateway.stop().success() && core.stop().success());
    assert_exactly_once(&site, &ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_core_takes_readings_and_stops_at_once() {
    let site = Site::new(&DEVICES);
    let mut gateway = site.gateway();
    let sensors = Sensors::start(&site);
    sensors.acknowledges(200).await;
    let stopping = tokio::task::spawn_blocking(move || (gateway.stop(), gateway));
    let (status, mut gateway) = tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    assert!(status.success(), "{status}\n{}", gateway.tail());
    gateway.start();
    let mut core = site.core();
    sensors.acknowledges(200).await;
    let ledger = sensors.finish().await;
    delivered(&gateway).await;
    assert!(gateway.stop().success() && core.stop().success());
    assert_exactly_once(&site, &ledger);
}
