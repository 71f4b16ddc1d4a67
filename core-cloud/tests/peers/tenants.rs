//! A tenant that has used up its share waits; what it sends is not taken into memory, and others go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::records::Sealing;
use crate::support::{Core, Site, send, until};
use caregate_protocol::id::Lane;
use caregate_protocol::segment::signer_id;
use core_cloud::tenants::Quota;

/// Plaintext of each record.
const RECORD_BYTES: usize = 16 << 10;
/// Records that the first tenant sends: 32 MiB, eight times what a connection may have in flight.
const RECORDS: u64 = 2048;
/// What a stream and the core's tasks may hold of what is sent: the window, and a record on its way.
const HELD_BYTES_MAX: u64 = (1 << 20) + 4 * (RECORD_BYTES as u64);

fn waits(core: &Core, reason: &str) -> u64 {
    core.metrics.tenant_waits.with_label_values(&["clinic", reason]).get()
}

/// Sends all from a task of its own; counts the bytes that the transport took.
fn flood(
    mut lane: quinn::SendStream,
    sealing: Sealing,
) -> (Arc<AtomicU64>, tokio::task::JoinHandle<quinn::SendStream>) {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let sending = tokio::spawn(async move {
        for position in 0..RECORDS {
            let record = sealing.segment_of(position, RECORD_BYTES);
            send(&mut lane, position, &record).await;
            counted.fetch_add(record.len() as u64, Ordering::Relaxed);
        }
        lane
    });
    (taken, sending)
}

/// Another tenant's records are stored and acknowledged, as ever.
async fn others_go_on(site: &Site, core: &Core) {
    let mut other = site.gateway(core, "gateway-2").await;
    let mut lane = other.lane(Lane::Vitals, false).await;
    let sealing = Sealing::new(2);
    for position in 0..500 {
        send(&mut lane, position, &sealing.segment(position)).await;
    }
    other.acked(0..500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_stored_all_that_it_may_is_held_and_takes_no_memory_until_there_is_room() {
    let site = Site::new();
    let core = site.core_with(Quota { records_s: None, bytes_max: Some(64 << 10) });
    let sealing = Sealing::new(1);
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let lane = gateway.lane(Lane::Waveform, false).await;
    let (taken, sending) = flood(lane, sealing.clone());
    until("it waits for room", || waits(&core, "bytes") == 1).await;
    others_go_on(&site, &core).await;
    gateway.acked(0..4).await;
    // An alarm has its way.
    let mut alarms = gateway.lane(Lane::Alarm, false).await;
    send(&mut alarms, 9999, &sealing.alarm(0)).await;
    gateway.acked([9999]).await;
    let (held, stored) = (taken.load(Ordering::Relaxed), core.records("stored"));
    assert_eq!((stored, sending.is_finished()), (4 + 500 + 1, false));
    assert!(held <= HELD_BYTES_MAX + (64 << 10), "the core took {held} bytes of who had no room");
    // Erasure or retention made room for all.
    core.tenants.count(&HashMap::from([(signer_id(&sealing.device.verifying_key()), 0)]));
    until("it has sent on", || core.records("stored") >= 505 + 4).await;
    until("and waits again", || waits(&core, "bytes") == 2).await;
    assert!(!sending.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_fast_is_slowed_down_to_its_rate_and_loses_nothing() {
    let site = Site::new();
    let core = site.core_with(Quota { records_s: Some(400), bytes_max: None });
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let lane = gateway.lane(Lane::Waveform, false).await;
    let began = caregate_host::clock::monotonic();
    let (_taken, sending) = flood(lane, Sealing::new(1));
    until("it waits for its rate", || waits(&core, "rate") > 0).await;
    others_go_on(&site, &core).await;
    gateway.acked(0..RECORDS).await;
    drop(sending.await.unwrap());
    let least = std::time::Duration::from_secs((RECORDS - 400) / 400);
    assert!(began.elapsed() >= least, "{RECORDS} records in {:?}", began.elapsed());
}
