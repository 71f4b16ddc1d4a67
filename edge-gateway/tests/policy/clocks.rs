//! Clocks that stand still, are set back, or began wrong, in one life of a gateway and over several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caregate_protocol::id::DataClass;
use caregate_protocol::policy::VerifiedPolicy;
use edge_gateway::policy::trail::Event;
use ledger_client::fixture::Site;

use crate::{Home, Running, accepted, now_s};

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_opens_nothing_until_a_new_header_gives_the_time() {
    let mut home = Home::new();
    let clock = Arc::new(AtomicU64::new(now_s()));
    let running = home.start_at(Arc::clone(&clock));
    accepted(&running.offer(home.site.bytes(now_s())).await);
    running.tick().await;
    let may_open = |running: &Running, now_s| {
        running.policy().recipients(&Site::PATIENT, DataClass::Vitals, now_s).count()
    };
    assert!(running.fresh.holds() && may_open(&running, now_s()) == 1);
    // Set back by a day, and no header comes any more: whoever did both keeps no revocation from being noticed.
    let back = now_s() - 86_400;
    clock.store(back, Ordering::SeqCst);
    running.tick().await;
    assert!(!running.fresh.holds() && may_open(&running, back) == 0);
    assert_eq!(running.trail().iter().filter(|e| matches!(e, Event::StalenessEntered { .. })).count(), 1);
    running.stop().await;
    // Begun with that clock, it is the same.
    let running = home.start_at(clock);
    assert!(!running.fresh.holds() && may_open(&running, back) == 0);
}

/// Headers are held back, and the clock is set back to just behind the newest again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_stands_still_keeps_no_policy_young() {
    let mut home = Home::new();
    let start = now_s();
    let clock = Arc::new(AtomicU64::new(start));
    let running = home.start_at(Arc::clone(&clock));
    accepted(&running.offer(home.site.bytes(start)).await);
    let passed = |running: &Running, seconds: u64| {
        home.passed.fetch_add(seconds, Ordering::SeqCst);
        running.policy()
    };
    let may_open =
        |policy: &VerifiedPolicy| policy.recipients(&Site::PATIENT, DataClass::Vitals, start + 1).count();
    // What clocks differ by is added; beyond it nobody knows the time.
    clock.store(start + 1, Ordering::SeqCst);
    passed(&running, 40);
    running.tick().await;
    assert!((40..=42).contains(&running.policy().age_s(start + 1).unwrap()));
    assert!(running.fresh.holds() && may_open(&running.policy()) == 1);
    passed(&running, 25);
    running.tick().await;
    assert!(!running.fresh.holds() && may_open(&running.policy()) == 0);
    assert_eq!(running.metrics.policy.clock_unknown.get(), 1);
    assert_eq!(running.trail().iter().filter(|e| matches!(e, Event::StalenessEntered { .. })).count(), 1);
    // The clock is put right.
    clock.store(start + 66, Ordering::SeqCst);
    running.tick().await;
    assert!(running.fresh.holds() && may_open(&running.policy()) == 1);
    assert_eq!(running.metrics.policy.clock_unknown.get(), 0);
    running.stop().await;

    // Over restarts, each in order and each with a minute of its own: what has passed has passed.
    for life in 1..=9 {
        clock.store(start + 10 + 60 * life, Ordering::SeqCst);
        let running = home.start_at(Arc::clone(&clock));
        passed(&running, 60);
        running.tick().await;
        let age_s = running.policy().age_s(start + 10 + 60 * life).unwrap();
        assert!((65 + 60 * life..80 + 60 * life).contains(&age_s), "{life}: {age_s}");
        assert_eq!(running.fresh.holds(), age_s <= 600, "{life}");
        running.stop().await;
    }
    // Begun with the clock set back to the header: of no use either.
    clock.store(start + 2, Ordering::SeqCst);
    let running = home.start_at(Arc::clone(&clock));
    assert!(!running.fresh.holds() && running.metrics.policy.clock_unknown.get() == 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_again_and_again_keeps_no_policy_young() {
    let mut home = Home::new();
    let start = now_s();
    let clock = Arc::new(AtomicU64::new(start));
    let running = home.start_at(Arc::clone(&clock));
    accepted(&running.offer(home.site.bytes(start)).await);
    running.kill().await;
    // Each time two minutes may have passed that nobody has written down: after five the policy is stale.
    for life in 1..=5 {
        let running = home.start_at(Arc::clone(&clock));
        let age_s = running.policy().age_s(start).unwrap();
        assert!((120 * life..120 * life + 10).contains(&age_s), "{life}: {age_s}");
        running.kill().await;
    }
    let running = home.start_at(Arc::clone(&clock));
    assert!(!running.fresh.holds());
    // A newer header may have been held back for it. Once the gateway has run for as long as a policy lives, it ends the doubt.
    accepted(&running.offer(home.site.bytes(start + 1)).await);
    running.tick().await;
    assert!(!running.fresh.holds());
    home.passed.fetch_add(600, Ordering::SeqCst);
    clock.store(start + 601, Ordering::SeqCst);
    running.tick().await;
    accepted(&running.offer(home.site.bytes(start + 601)).await);
    running.tick().await;
    assert!(running.fresh.holds());
    running.kill().await;
    // One that was held back for each life.
    let held: Vec<_> = (1..=6).map(|life| home.site.bytes(start + 601 + life)).collect();
    for (life, bytes) in (1..).zip(held) {
        let running = home.start_at(Arc::clone(&clock));
        accepted(&running.offer(bytes).await);
        running.tick().await;
        let age_s = running.policy().age_s(start + 601).unwrap();
        assert!((120 * life..120 * life + 20).contains(&age_s), "{life}: {age_s}");
        assert_eq!(running.fresh.holds(), age_s <= 600, "{life}");
        running.kill().await;
    }
}

/// Its clock began wrong, or was set back while nobody was heard: a header gives it the time, however late that comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_gets_its_time_from_the_next_header() {
    let mut home = Home::new();
    let start = now_s();
    let clock = Arc::new(AtomicU64::new(start - 86_400));
    let running = home.start_at(Arc::clone(&clock));
    accepted(&running.offer(home.site.bytes(start)).await);
    running.tick().await;
    assert!(running.fresh.holds());
    // Set back by another day, and the link was down for five minutes.
    home.passed.fetch_add(300, Ordering::SeqCst);
    clock.store(start - 2 * 86_400, Ordering::SeqCst);
    running.tick().await;
    assert!(!running.fresh.holds());
    accepted(&running.offer(home.site.bytes(start + 300)).await);
    running.tick().await;
    assert!(running.fresh.holds());
    // One that is further ahead than clocks differ is not taken by a clock that is known.
    let verdict = running.offer(home.site.bytes(start + 300 + 600)).await;
    assert_eq!(verdict.refused.as_deref(), Some("header_future"));
    running.stop().await;
    // The box was off for an hour, and has no clock of its own.
    let running = home.start_at(clock);
    assert!(!running.fresh.holds());
    accepted(&running.offer(home.site.bytes(start + 300 + 3600)).await);
    running.tick().await;
    assert!(running.fresh.holds());
}
