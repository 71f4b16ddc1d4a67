//! How fast a signed message is in a durable block, and that the state's size hardly matters to it.

mod support;

use std::time::{Duration, Instant};

use alloy_primitives::Bytes;
use ledger_client::verify::{self, Domain};
use ledger_node::chain::{Chain, Wanted};
use ledger_node::request;
use ledger_node::seal::Sealer;
use serde_json::json;
use support::Rpc;
use support::ledger::{Ledger, address, council, key, key_call, signed};
use support::process::Site;

/// Of `revocation_ms` ≤ 1,000, what the ledger may take in the middle, on a machine that does other things as well.
const MEDIAN_MAX: Duration = Duration::from_millis(150);

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

fn set(domain: &Domain, number: u64) -> Vec<u8> {
    key_call(domain, 30_000 + number, 1)
}

fn percentiles(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort();
    [50, 90, 99].map(|percent| times[(times.len() - 1) * percent / 100])
}

#[test]
fn a_transaction_is_durable_within_milliseconds() {
    let site = Site::new(&address(&key(1)).to_string());
    let _node = site.start();
    let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
    let ledger = Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, governor: key(1), relay: key(2) };
    let send = |nonce: u64| {
        let raw = Bytes::from(signed(ledger.legacy(nonce, set(&ledger.domain(), nonce)), &ledger.governor));
        timed(|| ledger.rpc.ask("eth_sendRawTransaction", json!([raw]))).1
    };
    let alone: Vec<_> = (0..200).map(send).collect();
    let [p50, p90, p99] = percentiles(alone);
    println!("alone: p50 {p50:?}, p90 {p90:?}, p99 {p99:?}");
    assert!(p50 < MEDIAN_MAX, "{p50:?}");
    // 16 senders at once share the syncs.
    let each = 100;
    let (times, took) = timed(|| {
        let senders: Vec<_> = (0..16)
            .map(|sender| {
                let (ledger, by) =
                    (Ledger { governor: key(1), relay: key(2), ..ledger }, key(40_000 + sender));
                std::thread::spawn(move || {
                    let send = |nonce: u64| {
                        let raw =
                            Bytes::from(signed(ledger.legacy(nonce, vec![0x90, 0x0c, 0xf0, 0xcf]), &by));
                        timed(|| ledger.rpc.ask("eth_sendRawTransaction", json!([raw]))).1
                    };
                    (0..each).map(send).collect::<Vec<_>>()
                })
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect::<Vec<_>>()
    });
    let count = times.len();
    let [p50, p90, p99] = percentiles(times);
    println!("16 at once: p50 {p50:?}, p90 {p90:?}, p99 {p99:?}; {:.0}/s", count as f64 / took.as_secs_f64());
}

/// What a start may take of an outage, with the check of what is stored.
const REOPEN_MAX: Duration = Duration::from_secs(3);

/// 10,000 participants are 10,000 slots; a block on top of them must not cost much more than one on an empty chain, and a start that
/// checks the chain's end must not take long.
#[test]
fn a_large_state_costs_a_change_no_more() {
    let wanted = Wanted { chain_id: 4711, council: council(&[&key(1)], 1, 0) };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let open = || Chain::open(dir.path(), Sealer::from_bytes(&[7; 32]).unwrap(), wanted.clone(), 1).unwrap();
    let chain = open();
    let contract = chain.deployment().contract;
    let domain = Domain { chain_id: 4711, verifying_contract: verify::Address(contract.into_array()) };
    let tx = |nonce: u64| {
        let tx = alloy_consensus::TxLegacy {
            chain_id: Some(4711),
            nonce,
            gas_limit: 200_000,
            to: contract.into(),
            input: set(&domain, nonce).into(),
            ..alloy_consensus::TxLegacy::default()
        };
        request::transaction(&signed(tx, &key(1)), 4711).unwrap()
    };
    let block = |first: u64, most: usize| {
        let reader = chain.read().unwrap();
        let mut building = chain.begin(&reader, 1);
        while building.len() < most && building.push(tx(first + building.len() as u64)).is_ok() {}
        let count = building.len() as u64;
        chain.commit(building).unwrap();
        count
    };
    let (mut nonce, mut small) = (0, Vec::new());
    for _ in 0..30 {
        let (count, took) = timed(|| block(nonce, 1));
        nonce += count;
        small.push(took);
    }
    let (filled, took) = timed(|| {
        while nonce < 10_000 {
            nonce += block(nonce, usize::MAX);
        }
        nonce
    });
    println!("{filled} participants in {took:?}");
    let mut large = Vec::new();
    for _ in 0..30 {
        let (count, took) = timed(|| block(nonce, 1));
        nonce += count;
        large.push(took);
    }
    let ([small, ..], [large, ..]) = (percentiles(small), percentiles(large));
    println!("a block of one: {small:?} on an empty chain, {large:?} on {nonce} participants");
    assert!(large < small * 4 + Duration::from_millis(20), "{small:?} {large:?}");
    let head = chain.head();
    drop(chain);
    let (chain, took) = timed(open);
    println!("opened again in {took:?}, at block {}", chain.head().header.number);
    assert_eq!(chain.head(), head);
    assert!(took < REOPEN_MAX, "{took:?}");
}
