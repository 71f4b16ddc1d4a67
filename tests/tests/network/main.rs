//! Gateway and core with a network between them that drops UDP, changes the gateway's address, or is cut: what was acknowledged is at
//! the core exactly once, and the better way is taken again.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "../gateway_to_core/found.rs"]
mod found;
mod ground;
#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;
#[path = "../gateway_to_core/publisher.rs"]
mod publisher;
#[expect(dead_code, reason = "of another test's helpers this one uses its part")]
#[path = "../gateway_to_core/sensors.rs"]
mod sensors;
#[expect(dead_code, reason = "of another test's helpers this one uses its part")]
#[path = "../gateway_to_core/site.rs"]
mod site;

use std::time::Duration;

use found::{Found, opened_at_core};
use ground::{Ground, Link};
use sensors::{DEVICES, Sensors, delivered, until};
use site::{Daemon, Site};

/// Runs a test in its own network, on this thread and those that it starts.
fn on_ground<F: Future<Output = ()>>(test: impl FnOnce(std::rc::Rc<Ground>) -> F) {
    let ground = std::rc::Rc::new(Ground::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(std::rc::Rc::clone(&ground)));
}

fn lanes(gateway: &Daemon, series: &str) -> Option<f64> {
    gateway.metric(&format!("caregate_gateway_{series}{{"))
}

async fn connected(gateway: &Daemon, tcp: f64) {
    until(&format!("every lane is connected, {tcp} by TCP"), || {
        lanes(gateway, "lane_connected") == Some(5.0) && lanes(gateway, "lane_tcp") == Some(tcp)
    })
    .await;
}

/// All that was published is acknowledged, and at the core once.
async fn exactly_once(site: &Site, sensors: Sensors, mut gateway: Daemon, mut core: Daemon) {
    let ledger = sensors.finish().await;
    delivered(&gateway).await;
    let refused = core.metric("caregate_core_records_total{outcome=\"refused\"}").unwrap();
    assert!(gateway.stop().success() && core.stop().success());
    let Found { readings, strange } = opened_at_core(site);
    let lost = ledger.acknowledged.iter().filter(|name| !readings.contains_key(*name)).count();
    let twice = readings.values().filter(|times| **times != 1).count();
    println!("{} acknowledged, {lost} lost, {twice} doubled", ledger.acknowledged.len());
    assert_eq!((lost, twice, strange, refused), (0, 0, Vec::<String>::new(), 0.0));
}

#[test]
fn where_udp_does_not_get_through_it_goes_by_tcp_and_back_when_it_does() {
    on_ground(|ground| async move {
        let site = Site::within(&DEVICES, &ground.surroundings());
        ground.drop_incoming("meta l4proto udp");
        let (gateway, mut core) = (site.gateway(), site.core());
        let sensors = Sensors::start(&site);
        connected(&gateway, 5.0).await;
        assert_eq!(core.metric("caregate_core_tcp_connections "), Some(5.0));
        sensors.acknowledges(300).await;
        // Lost and made again, while nothing but TCP gets through.
        core.kill();
        sensors.acknowledges(100).await;
        core.start();
        connected(&gateway, 5.0).await;
        let stored = core.metric("caregate_core_records_total{outcome=\"stored\"}").unwrap();
        until("records come by TCP", || {
            core.metric("caregate_core_records_total{outcome=\"stored\"}").is_some_and(|now| now > stored)
        })
        .await;
        ground.heal();
        connected(&gateway, 0.0).await;
        until("the core has let go of TCP", || core.metric("caregate_core_tcp_connections ") == Some(0.0))
            .await;
        sensors.acknowledges(200).await;
        exactly_once(&site, sensors, gateway, core).await;
    });
}

#[test]
fn connections_move_with_the_gateways_address() {
    on_ground(|ground| async move {
        let site = Site::within(&DEVICES, &ground.surroundings());
        let (core, gateway) = (site.core(), site.gateway());
        let sensors = Sensors::start(&site);
        connected(&gateway, 0.0).await;
        let lost = gateway.metric("caregate_gateway_uplink_failures_total").unwrap();
        for link in [Link::Lte, Link::Wan, Link::Lte] {
            ground.route(link);
            // What was sent before has been acknowledged by the new way.
            let sent = gateway.metric("caregate_gateway_spool_next ").unwrap();
            until("the core has acknowledged by the other link", || {
                gateway.metric("caregate_gateway_spool_oldest_waiting ").is_some_and(|oldest| oldest > sent)
            })
            .await;
        }
        assert_eq!(
            gateway.metric("caregate_gateway_uplink_failures_total"),
            Some(lost),
            "made anew, not moved"
        );
        assert_eq!(core.metric("caregate_core_connections{"), Some(5.0));
        exactly_once(&site, sensors, gateway, core).await;
    });
}

/// What a NAT has forgotten comes from another port when it goes on, and what the core sends until then gets nowhere. Lanes that carry
/// nothing must not be forgotten.
#[test]
fn idle_lanes_are_not_forgotten_by_a_nat() {
    const FORGETS_S: u32 = 5;
    on_ground(|ground| async move {
        let site = Site::within(&DEVICES, &ground.surroundings());
        ground.nat(FORGETS_S);
        let (core, gateway) = (site.core(), site.gateway());
        connected(&gateway, 0.0).await;
        let failures = gateway.metric("caregate_gateway_uplink_failures_total");
        let ports = ground.ports();
        assert!(ports.len() >= 5, "{ports:?}");
        // The length of the silence is what is tested.
        tokio::time::sleep(Duration::from_secs((3 * FORGETS_S).into())).await;
        let sensors = Sensors::start(&site);
        sensors.acknowledges(200).await;
        delivered(&gateway).await;
        assert_eq!(ground.ports(), ports, "another port: it was forgotten");
        assert_eq!(gateway.metric("caregate_gateway_uplink_failures_total"), failures);
        connected(&gateway, 0.0).await;
        exactly_once(&site, sensors, gateway, core).await;
    });
}

#[test]
fn an_uplink_that_is_cut_under_load_loses_nothing() {
    let cut = Duration::from_secs(60);
    on_ground(|ground| async move {
        let site = Site::within(&DEVICES, &ground.surroundings());
        let (core, gateway) = (site.core(), site.gateway());
        let sensors = Sensors::start(&site);
        connected(&gateway, 0.0).await;
        sensors.acknowledges(200).await;
        ground.drop_incoming("");
        let before = sensors.acknowledged();
        // The length of the cut is what is tested.
        tokio::time::sleep(cut).await;
        assert!(sensors.acknowledged() > before + 200, "sensors are served without a core");
        until("the gateway knows", || lanes(&gateway, "lane_connected") == Some(0.0)).await;
        ground.heal();
        connected(&gateway, 0.0).await;
        sensors.acknowledges(200).await;
        exactly_once(&site, sensors, gateway, core).await;
    });
}
