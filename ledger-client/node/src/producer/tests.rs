use caregate_host::admin;

use super::*;
use crate::chain::Wanted;
use crate::contract::Council;
use crate::seal::Sealer;

/// What is promised of an idle chain.
const PROMISED: Duration = Duration::from_secs(10);

/// The thread's own waits from one idle block to the next, each of which ends so much late.
fn until_due(late: Duration) -> (Duration, u32) {
    let began = clock::monotonic();
    let (idle, mut now, mut waits) = (Idle::sealed(began), began, 0);
    while !idle.is_due(now) {
        now += idle.wait(now) + late;
        waits += 1;
    }
    (now - began, waits)
}

#[test]
fn an_idle_chain_has_a_block_within_ten_seconds() {
    assert_eq!(until_due(Duration::ZERO), (IDLE_INTERVAL, 45));
    // A machine that is slow: each wait ends half a second late, and the sync takes as long again.
    let (took, _) = until_due(Duration::from_millis(499));
    assert!(took >= IDLE_INTERVAL && took + Duration::from_millis(500) < PROMISED, "{took:?}");
}

#[test]
fn what_was_refused_is_tried_again_soon_and_not_at_once() {
    let now = clock::monotonic();
    let idle = Idle::refused(now);
    assert!(!idle.is_due(now));
    assert_eq!(idle.wait(now), STOP_INTERVAL);
    assert!(idle.is_due(now + STOP_INTERVAL));
}

/// The chain's newest block is of a time that the clock reaches in an hour: nothing is sealed, nothing spins, and the thread can be ended.
#[test]
fn a_node_whose_clock_is_behind_waits_and_stops() {
    let council = Council { governors: vec![Address::repeat_byte(1)], threshold: 1, delay_s: 0 };
    let ahead_s = u64::try_from(clock::now_ms() / 1000).unwrap() + 3600;
    let sealer = Sealer::from_bytes(&[7; 32]).unwrap();
    let chain = Chain::in_memory(sealer, Wanted { chain_id: 4711, council }, ahead_s).unwrap();
    let registry = admin::registry().unwrap();
    let metrics = Metrics::register(&registry).unwrap();
    let (_queue, incoming) = queue();
    let stop = CancellationToken::new();
    let sealing = admin::Health::new().condition("sealing");
    let chain = Arc::new(chain);
    let producer = Producer {
        chain: Arc::clone(&chain),
        incoming,
        metrics: metrics.clone(),
        sealing: sealing.clone(),
        stop: stop.clone(),
    };
    let (ended, end) = mpsc::sync_channel(1);
    std::thread::spawn(move || ended.send(producer.run()));
    // It looks again, and no more often than it says.
    let began = clock::monotonic();
    while metrics.clock_behind.get() < 4 {
        assert!(clock::monotonic().duration_since(began) < Duration::from_secs(30), "it gave up");
        std::thread::yield_now();
    }
    assert!(clock::monotonic().duration_since(began) >= STOP_INTERVAL * 2, "it spins");
    stop.cancel();
    end.recv_timeout(Duration::from_secs(30)).expect("it does not stop").unwrap();
    assert_eq!((chain.head().header.number, sealing.holds()), (0, false));
}
