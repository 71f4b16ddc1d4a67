//! What policy costs: grants per second into the embedded ledger and how long one takes, its restart with 100,000 consents, and one grant's
//! proof at a gateway.
//!
//! `cargo bench -p ledger-node --bench policy -- [--consents N] [--grants N]`. The last line is one JSON object. docs/benchmarks.md says how
//! each figure is taken.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "real time is what is measured, and what fails ends the bench"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use alloy_primitives::{Address, Bytes};
use alloy_sol_types::SolCall as _;
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::key::TreeNode;
use caregate_protocol::policy::{
    Claims, EcdsaSignature, Floors, Grant, ParticipantClaim, PolicyBundle, RecipientKind, RecipientStatus,
    SignedGrant,
};
use caregate_protocol::wrap::{HpkePublicKey, WrapScope};
use ledger_client::fixture::Signer;
use ledger_client::fixture::header::HeaderParts;
use ledger_client::verify::{
    self, EnrolledPatient, EnrolledRelationship, Enrolment, LedgerPin, ParticipantChange, Pins, grant_digest,
    participant_key_digest, slots, verify_bundle,
};
use ledger_node::chain::{Chain, Wanted};
use ledger_node::request;
use ledger_node::seal::Sealer;
use serde_json::{Value, json};
use support::ledger::{Caregate, ICaregate, Ledger, address, council, header_rlp, key, sign, signed};
use support::process::Site;
use support::{Rpc, bytes};

const CHAIN_ID: u64 = 4711;
/// Numbers of keys, far apart: grant keys, revoke-only keys, senders.
const GRANT_KEYS: u64 = 1_000_000_000;
const REVOKE_KEYS: u64 = 2_000_000_000;
const SENDERS: u64 = 3_000_000_000;
/// Clients at once, each with one transaction under way.
const CLIENTS: u64 = 64;
/// Transactions of one client alone, one after the other.
const ALONE: u64 = 400;
const RESTARTS: usize = 5;
/// A verification takes milliseconds, a wrap some 0.1.
const VERIFICATIONS: usize = 400;
const WRAPS: usize = 4_000;
/// Validators of the sealed header, as across institutions.
const VALIDATORS: u8 = 4;
const HPKE: [u8; 32] = [7; 32];

struct Arguments {
    consents: u64,
    grants: u64,
}

impl Arguments {
    fn parse() -> Self {
        let mut parsed = Self { consents: 100_000, grants: 8_000 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|number| number.parse().ok()).expect("a number");
            match word.as_str() {
                "--consents" => parsed.consents = number(),
                "--grants" => parsed.grants = number(),
                // cargo's own.
                "--bench" => {}
                other => panic!("unknown argument {other}"),
            }
        }
        parsed
    }
}

fn main() {
    let Arguments { consents, grants } = Arguments::parse();
    let site = Site::new(&address(&key(1)).to_string());
    site.start().stop();
    let ledger = ledger(&site);
    let began = Instant::now();
    let per_s_inside = fill(&site, &ledger, consents);
    eprintln!("{consents} consents in {:?}, without JSON-RPC {per_s_inside:.0}/s", began.elapsed());
    let restarts: Vec<_> = (0..RESTARTS).map(|_| restart(&site)).collect();
    let node = site.start();
    let per_s = grants_per_s(&ledger, consents, grants);
    let mut durable = alone(&ledger, consents + grants);
    let proof = Proof::of(&ledger, consents / 2);
    let verified: Vec<_> = (0..VERIFICATIONS).map(|_| proof.verify()).collect();
    drop(node);
    let out = json!({
        "verify_ms_p50": rounded(median(verified) * 1e3, 3),
        "proof_bytes": proof.bundle.len(),
        "proof_header_bytes": proof.header_bytes,
        "proof_node_bytes": proof.node_bytes,
        "wrap_us": rounded(median(wraps()) * 1e6, 1),
        "grants_per_s_embedded": per_s.round(),
        "grants_clients": CLIENTS,
        "durable_ms_p50": rounded(percentile(&mut durable, 50) * 1e3, 3),
        "durable_ms_p99": rounded(percentile(&mut durable, 99) * 1e3, 3),
        "grants_per_s_without_rpc": per_s_inside.round(),
        "node_restart_s_100k": rounded(median(restarts), 3),
        "consents": consents,
    });
    println!("{out}");
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// In seconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// In seconds.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * percent / 100].as_secs_f64()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

fn ledger(site: &Site) -> Ledger {
    let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
    Ledger { rpc: Rpc(site.rpc), contract, chain_id: CHAIN_ID, governor: key(1), relay: key(2) }
}

fn hospital() -> RecipientId {
    RecipientId(address(&key(3)).into_array())
}

fn own(number: u64) -> verify::Address {
    verify::Address(address(&key(number)).into_array())
}

fn word65(signature: &Bytes) -> EcdsaSignature {
    EcdsaSignature(signature.as_ref().try_into().unwrap())
}

/// The grant of a patient's relationship: first version, ten years at most.
fn grant(ledger: &Ledger, number: u64) -> SignedGrant {
    let grant = Grant {
        relationship: slots::relationship(&own(GRANT_KEYS + number), &own(REVOKE_KEYS + number)),
        grantee: hospital(),
        classes: 31,
        purposes: 1,
        from: 1_700_000_000,
        until: 1_900_000_000,
        stale_bound_s: 3600,
        version: 1,
    };
    let signature = sign(&key(GRANT_KEYS + number), &grant_digest(&grant, &ledger.domain()));
    SignedGrant { grant, signature: word65(&signature) }
}

fn grant_data(ledger: &Ledger, number: u64) -> Vec<u8> {
    let SignedGrant { grant, signature } = grant(ledger, number);
    let g = ICaregate::Grant {
        relationship: grant.relationship.0.into(),
        grantee: grant.grantee.0.into(),
        classes: grant.classes,
        purposes: grant.purposes,
        from: grant.from,
        until: grant.until,
        staleBoundS: grant.stale_bound_s,
        version: grant.version,
    };
    let revoke_key = Address::from(own(REVOKE_KEYS + number).0);
    Caregate::grantCall { g, revokeKey: revoke_key, signature: Bytes::copy_from_slice(&signature.0) }
        .abi_encode()
}

/// The hospital's registration and key, as calls.
fn registration(ledger: &Ledger) -> [Vec<u8>; 2] {
    let domain = ledger.domain();
    let change = ParticipantChange {
        participant: hospital(),
        status: Some(RecipientStatus::Active),
        kind: RecipientKind::Treating,
        emergency: false,
        version: 1,
    };
    let participant = address(&key(3));
    let c = ICaregate::ParticipantChange { participant, status: 1, kind: 1, emergency: false, version: 1 };
    let approval = sign(&ledger.governor, &change.digest(&domain));
    let k = ICaregate::ParticipantKey { participant, hpkeKey: HPKE.into(), version: 1 };
    let signature = sign(&key(3), &participant_key_digest(&hospital(), &HPKE, 1, &domain));
    [
        Caregate::approveParticipantCall { c, signature: approval }.abi_encode(),
        Caregate::setParticipantKeyCall { k, signature }.abi_encode(),
    ]
}

/// Puts consents on the chain in its folder while no node runs: full blocks, each executed, sealed and synced as the node does it. Grants
/// per second of that, their making left out.
fn fill(site: &Site, ledger: &Ledger, consents: u64) -> f64 {
    let sealer = Sealer::read(&site.dir.path().join("sealing.key")).unwrap();
    let wanted = Wanted { chain_id: CHAIN_ID, council: council(&[&key(1)], 1, 0) };
    let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let chain = Chain::open(&site.dir.path().join("data"), sealer, wanted, now_s).unwrap();
    let mut nonce = 0;
    let mut tx = |data: Vec<u8>| {
        let tx = ledger.legacy(nonce, data);
        nonce += 1;
        request::transaction(&signed(tx, &ledger.relay), CHAIN_ID).unwrap()
    };
    let mut waiting: std::collections::VecDeque<_> = registration(ledger).map(&mut tx).into();
    let (mut made, mut took) = (0, Duration::ZERO);
    while made < consents || !waiting.is_empty() {
        while waiting.len() < 400 && made < consents {
            waiting.push_back(tx(grant_data(ledger, made)));
            made += 1;
        }
        let (taken, block_took) = timed(|| {
            let reader = chain.read().unwrap();
            let mut building = chain.begin(&reader, now_s);
            let mut taken = 0;
            while let Some(tx) = waiting.get(taken) {
                if building.push(tx.clone()).is_err() {
                    break;
                }
                taken += 1;
            }
            chain.commit(building).unwrap();
            taken
        });
        assert!(taken > 0, "a transaction that fits no block");
        waiting.drain(..taken);
        took += block_took;
    }
    consents as f64 / took.as_secs_f64()
}

/// From the program's start to its first answer of readiness, and then its stop, which is not counted.
fn restart(site: &Site) -> Duration {
    let (mut node, took) = timed(|| site.start());
    node.stop();
    took
}

/// One transaction each, made before; `eth_sendRawTransaction` answers when the block is durable.
fn grants_per_s(ledger: &Ledger, first: u64, grants: u64) -> f64 {
    let each = grants / CLIENTS;
    let of_client = |client: u64| -> Vec<Bytes> {
        let sender = key(SENDERS + client);
        (0..each)
            .map(|nonce| {
                let data = grant_data(ledger, first + client * each + nonce);
                signed(ledger.legacy(nonce, data), &sender).into()
            })
            .collect()
    };
    let clients: Vec<_> = (0..CLIENTS).map(of_client).collect();
    let before = ledger.epoch();
    let ((), took) = timed(|| {
        std::thread::scope(|scope| {
            for raw in clients {
                let rpc = ledger.rpc;
                scope.spawn(move || {
                    for raw in raw {
                        rpc.ask("eth_sendRawTransaction", json!([raw]));
                    }
                });
            }
        });
    });
    assert_eq!(ledger.epoch(), before + each * CLIENTS, "each grant is in force");
    (each * CLIENTS) as f64 / took.as_secs_f64()
}

/// The same of one client, which sends the next when the one before is answered: how long each takes.
fn alone(ledger: &Ledger, first: u64) -> Vec<Duration> {
    let sender = key(SENDERS + CLIENTS);
    let made =
        |nonce| -> Bytes { signed(ledger.legacy(nonce, grant_data(ledger, first + nonce)), &sender).into() };
    let made: Vec<_> = (0..ALONE).map(made).collect();
    let send = |raw: Bytes| timed(|| ledger.rpc.ask("eth_sendRawTransaction", json!([raw]))).1;
    let before = ledger.epoch();
    let took = made.into_iter().map(send).collect();
    assert_eq!(ledger.epoch(), before + ALONE, "each grant is in force");
    took
}

/// A gateway's pins, and the bundle of one grant.
struct Proof {
    pins: Pins,
    bundle: Vec<u8>,
    header_bytes: usize,
    node_bytes: usize,
}

impl Proof {
    /// The newest block of the ledger, sealed by four validators instead of its one, so that the header is what Besu's would be.
    fn of(ledger: &Ledger, number: u64) -> Self {
        let validators: Vec<_> = (0..VALIDATORS).map(|nth| Signer::of(0xa0 + nth)).collect();
        let block = ledger.rpc.ask("eth_getBlockByNumber", json!(["latest", false]));
        let mut header = HeaderParts::of(&header_rlp(&block));
        header.validators = validators.iter().map(Signer::address).collect();
        let digest = header.digest();
        header.seals = validators.iter().map(|validator| validator.seal(&digest)).collect();
        let signed = grant(ledger, number);
        let mut wanted = vec![slots::EPOCH];
        wanted.extend(slots::participant(&hospital()));
        wanted.extend(slots::consent(&signed.grant.relationship));
        let keys: Vec<_> = wanted.iter().map(|slot| Bytes::copy_from_slice(slot)).collect();
        let answer = ledger.rpc.ask("eth_getProof", json!([ledger.contract, keys, block["number"]]));
        let nodes = nodes(&answer);
        let digest = participant_key_digest(&hospital(), &HPKE, 1, &ledger.domain());
        let participant = ParticipantClaim {
            id: hospital(),
            hpke_public_key: HPKE,
            key_version: 1,
            status: RecipientStatus::Active,
            kind: RecipientKind::Treating,
            emergency: false,
            signature: word65(&sign(&key(3), &digest)),
        };
        let claims = Claims {
            epoch: ledger.epoch(),
            participants: vec![participant],
            consents: vec![signed],
            ..Claims::default()
        };
        let header = header.encode();
        let (header_bytes, node_bytes) = (header.len(), nodes.iter().map(Vec::len).sum());
        let domain = ledger.domain();
        let (chain_id, contract) = (domain.chain_id, domain.verifying_contract.0);
        let bundle = PolicyBundle { chain_id, contract, header, nodes, claims, handovers: Vec::new() };
        let (pins, bundle) = (pins(ledger, &validators, number), bundle.encode());
        Self { pins, bundle, header_bytes, node_bytes }
    }

    fn verify(&self) -> Duration {
        let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let (verified, took) = timed(|| verify_bundle(&self.bundle, &self.pins, &Floors::default(), now_s));
        assert_eq!(verified.unwrap().claims.consents.len(), 1);
        took
    }
}

/// Each once.
fn nodes(answer: &Value) -> Vec<Vec<u8>> {
    let storage = answer["storageProof"].as_array().unwrap().iter().map(|one| &one["proof"]);
    let lists = std::iter::once(&answer["accountProof"]).chain(storage);
    let nodes: std::collections::BTreeSet<_> =
        lists.flat_map(|list| list.as_array().unwrap().iter().map(bytes)).collect();
    nodes.into_iter().collect()
}

fn pins(ledger: &Ledger, validators: &[Signer], number: u64) -> Pins {
    let relationship = EnrolledRelationship {
        label: "City hospital".into(),
        grant_key: own(GRANT_KEYS + number),
        revoke_key: own(REVOKE_KEYS + number),
    };
    let patient = EnrolledPatient {
        patient: PatientId([0xe5; 16]),
        home_key: own(4),
        pseudonym: None,
        relationships: vec![relationship],
        devices: Vec::new(),
    };
    let pin = LedgerPin {
        chain_id: CHAIN_ID,
        contract: verify::Address(ledger.contract.into_array()),
        validators: validators.iter().map(Signer::address).collect(),
        staleness_max_s: 600,
    };
    Enrolment { ledger: pin, patients: vec![patient] }.pins().unwrap()
}

/// One epoch key to one recipient (HPKE base mode) and the gateway's signature on it.
fn wraps() -> Vec<Duration> {
    let device = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let scope = WrapScope {
        class: DataClass::Vitals,
        patient: PatientId([0xe5; 16]),
        generation: 0,
        recipient: hospital(),
    };
    // X25519's base point: what it is multiplied with costs the same.
    let mut point = [0; 32];
    point[0] = 9;
    let to = HpkePublicKey(point);
    let wrap = |epoch| {
        let node = TreeNode::new(epoch, 32, [5; 32]).unwrap();
        timed(|| scope.seal(&node, &to, &device).unwrap()).1
    };
    (0..WRAPS).map(|epoch| wrap(u32::try_from(epoch).unwrap())).collect()
}
