use caregate_host::clock;
use caregate_protocol::id::DataClass;
use clinician_feed::feed::Chains;
use clinician_feed::opener::ChainState;
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{cookie, get, next_of, open, post, refusal, until_close};
use crate::{PATIENT, Site, heart_rate, start};

fn append(site: &Site, sequence: u64) {
    site.append(DataClass::Vitals, sequence, vec![heart_rate(72.0)]);
}

#[tokio::test]
async fn nobody_reads_without_a_session_or_from_another_page() {
    let site = start(1 << 20);
    let cookie = cookie(&site).await;
    assert_eq!(refusal(open(&site, "", &[]).await), 401);
    assert_eq!(refusal(open(&site, "", &[("Cookie", "caregate_session=00")]).await), 401);
    let evil = [("Cookie", cookie.as_str()), ("Origin", "http://evil")];
    assert_eq!(refusal(open(&site, "", &evil).await), 403);
    for query in ["?from=x", "?from=-1", "?form=1"] {
        assert_eq!(refusal(open(&site, query, &[("Cookie", &cookie)]).await), 400, "{query}");
    }
    let plain = get(&site, "/api/stream", &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!(plain.status, 400, "{plain:?}");
    // "nurse:correct horse"
    let basic = [("Authorization", "Basic bnVyc2U6Y29ycmVjdCBob3JzZQ=="), ("Origin", "http://feed")];
    next_of(&mut open(&site, "", &basic).await.unwrap(), "hello").await;
}

#[tokio::test]
async fn what_is_opened_arrives_at_once_and_can_be_resumed() {
    let site = start(1 << 20);
    let cookie = cookie(&site).await;
    let headers = [("Cookie", cookie.as_str()), ("Origin", "http://feed")];
    append(&site, 0);
    let mut socket = open(&site, "", &headers).await.unwrap();
    let hello = next_of(&mut socket, "hello").await;
    assert_eq!((&hello["next"], &hello["beds"][0]["bed"]), (&1.into(), &"Bed 1".into()));
    assert_eq!(next_of(&mut socket, "link").await["core"], "down");
    assert_eq!(next_of(&mut socket, "chain").await["verified"], 0);
    let mut delays_us = Vec::new();
    for sequence in 1..=200 {
        let before = clock::monotonic();
        append(&site, sequence);
        let reading = next_of(&mut socket, "reading").await;
        delays_us.push(before.elapsed().as_micros());
        assert_eq!((&reading["n"], &reading["segment"]), (&sequence.into(), &sequence.into()));
    }
    delays_us.sort_unstable();
    eprintln!("append to client: p50 {} µs, p99 {} µs", delays_us[100], delays_us[198]);
    assert!(delays_us[100] < 20_000, "p50 {} µs", delays_us[100]);
    let mut resumed = open(&site, "?from=150", &headers).await.unwrap();
    assert_eq!(next_of(&mut resumed, "hello").await["next"], 201);
    for n in 150..=200_u64 {
        assert_eq!(next_of(&mut resumed, "reading").await["n"], n);
    }
    // From an earlier run of the feed, which counted further: all that is held.
    let mut earlier = open(&site, "?from=100000", &headers).await.unwrap();
    assert_eq!(next_of(&mut earlier, "reading").await["n"], 0);
}

#[tokio::test]
async fn the_link_and_the_chains_are_told() {
    let site = start(1 << 20);
    let cookie = cookie(&site).await;
    let mut socket = open(&site, "", &[("Cookie", &cookie)]).await.unwrap();
    assert_eq!(next_of(&mut socket, "link").await["core"], "down");
    site.feed.set_link(true);
    assert_eq!(next_of(&mut socket, "link").await["core"], "up");
    let gap = ChainState { verified: 9, gap: Some((3, 4)), told: None };
    site.feed.append(Vec::new(), Chains::from([((PATIENT, DataClass::Alarm), gap)]), 0);
    let chain = next_of(&mut socket, "chain").await;
    assert_eq!((&chain["class"], &chain["gap"]), (&"alarm".into(), &serde_json::json!([3, 4])));
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_closed_and_may_resume() {
    let site = start(1 << 20);
    let cookie = cookie(&site).await;
    let headers = [("Cookie", cookie.as_str())];
    let mut slow = open(&site, "?from=0", &headers).await.unwrap();
    let mut quick = open(&site, "?from=0", &headers).await.unwrap();
    // More than the sockets' buffers and the ring hold together, so the slow one must fall off; the quick one keeps up.
    let mut n = 0_u64;
    for sequence in 0..400 {
        site.append(DataClass::Vitals, sequence, vec![heart_rate(72.0); 100]);
        for _ in 0..100 {
            assert_eq!(next_of(&mut quick, "reading").await["n"], n);
            n += 1;
        }
    }
    let (code, numbers) = until_close(&mut slow).await;
    assert_eq!(code, 1013);
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "no gap before the close");
    let from = format!("?from={}", numbers.len());
    let mut resumed = open(&site, &from, &headers).await.unwrap();
    let tail = site.feed.held().0;
    assert!(tail > numbers.len() as u64);
    assert_eq!(next_of(&mut resumed, "reading").await["n"], tail, "what was dropped is gone");
}

#[tokio::test]
async fn logout_closes_the_stream() {
    let site = start(1 << 20);
    let cookie = cookie(&site).await;
    let mut socket = open(&site, "", &[("Cookie", &cookie)]).await.unwrap();
    next_of(&mut socket, "hello").await;
    post(&site, "/api/logout", &format!("Cookie: {cookie}\r\n"), "").await;
    assert_eq!(until_close(&mut socket).await.0, 1008);
}

#[tokio::test]
async fn the_end_says_goodbye() {
    let site = start(1 << 20);
    let cookie = cookie(&site).await;
    let mut socket = open(&site, "", &[("Cookie", &cookie)]).await.unwrap();
    next_of(&mut socket, "hello").await;
    site.stop.cancel();
    assert_eq!(until_close(&mut socket).await.0, 1001);
    site.serving.await.unwrap();
}

#[tokio::test]
async fn a_reader_that_talks_too_much_is_dropped() {
    let site = start(1 << 20);
    let cookie = cookie(&site).await;
    let mut socket = open(&site, "", &[("Cookie", &cookie)]).await.unwrap();
    next_of(&mut socket, "hello").await;
    socket.send(Message::Text("x".repeat(4096).into())).await.unwrap();
    loop {
        match futures_util::StreamExt::next(&mut socket).await {
            Some(Ok(message)) if message.is_close() => break,
            Some(Err(_)) | None => break,
            Some(Ok(_)) => {}
        }
    }
}
