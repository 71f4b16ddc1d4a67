//! What a gateway process refuses, line by line, each for its own reason: forged bundles from who stands in the controller's place, another
//! ledger's, and time that somebody stopped or set back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use caregate_host::identity::{IdentityFiles, Role};
use caregate_protocol::policy::PolicyBundle;
use edge_gateway::keys::KeyStore;
use serde_json::Value;

use crate::called::{Wallet, binary, until};
use crate::home::{Gateway, Home, door};

/// What must be refused, each forgery that is of it, and the reason that is the gateway's own word. A header of which a bit is flipped has
/// another hash, under which each seal is of some other key: no verifier can tell it from one that a stranger sealed.
const LINES: [(&str, &[(&str, &str)]); 12] = [
    (
        "forged value",
        &[
            ("grantee_replaced", "slot_mismatch"),
            ("grant_lengthened", "slot_mismatch"),
            ("grant_widened", "slot_mismatch"),
            ("consent_leaf_altered", "storage_proof"),
        ],
    ),
    ("too few seals", &[("seals_stripped", "quorum")]),
    ("duplicate seals", &[("seal_twice", "seal_duplicate")]),
    (
        "unknown validator",
        &[("seal_foreign", "validator_unknown"), ("validators_foreign", "validators_other")],
    ),
    (
        "truncated or bit-flipped header",
        &[
            ("header_cut", "header_rlp"),
            ("state_root_other", "validator_unknown"),
            ("time_later", "validator_unknown"),
            ("number_higher", "validator_unknown"),
        ],
    ),
    (
        "truncated or bit-flipped proof",
        &[
            ("nodes_stripped", "account_proof"),
            ("storage_node_removed", "storage_proof"),
            ("account_node_altered", "account_proof"),
            ("account_node_cut", "account_proof"),
        ],
    ),
    ("old epoch", &[("epoch_older", "epoch_mismatch"), ("older_bundle", "header_older")]),
    ("another chain", &[("chain_named_other", "other_chain")]),
    (
        "another contract",
        &[("contract_named_other", "other_contract"), ("account_of_nobody", "account_proof")],
    ),
    (
        "another recipient's key",
        &[
            ("hpke_key_swapped", "participant_mismatch"),
            ("hpke_key_signed_by_stranger", "participant_mismatch"),
        ],
    ),
    ("a grant that the patient never signed", &[("grant_signed_by_stranger", "grant_signature")]),
    ("an emergency by a stranger", &[("emergency_by_stranger", "emergency_stranger")]),
];

/// The newest bundle that a stopped gateway has kept.
fn kept(home: &Home, data: &str, name: &str) -> String {
    let keys = KeyStore::open(&home.node.dir.path().join(data)).unwrap();
    let path = home.node.path(name);
    fs::write(&path, keys.policy().bundle().unwrap().expect("a bundle was kept")).unwrap();
    path
}

/// Runs the gateway until it has a policy that shows this grant, and stops it.
pub(crate) fn learns(home: &Home, wallet: &Wallet<'_>, gateway: &Gateway, name: &str) -> String {
    let granted = wallet.call("grant", &["--label", "City", "--stale-bound-s", "0"]).done();
    let block = u32::try_from(granted["ledger"]["block"].as_u64().unwrap()).unwrap();
    let running = gateway.start();
    running.reaches("caregate_gateway_policy_header_number ", block.into());
    running.stop();
    kept(home, "gateway", name)
}

#[test]
fn every_forgery_is_refused_by_a_gateway_process_for_its_own_reason() {
    let home = Home::new(&["g-1"]);
    let wallet = home.patient("g-1");
    let (core, controller) = (home.core(), home.controller());
    let gateway = home.configure_gateway("g-1", "gateway", "");
    let older = learns(&home, &wallet, &gateway, "older.cbor");
    let good = learns(&home, &wallet, &gateway, "good.cbor");
    another_ledgers_bundles_are_refused(&home, &fs::read(&good).unwrap());
    controller.stop();

    let IdentityFiles { certificate, key, ca } = home.issue(Role::Controller, "controller-1");
    let running = gateway.start();
    let mut hostile = Command::new(binary("hostile-controller"));
    hostile.args(["--listen", &home.policy().to_string(), "--bundle", &good, "--older", &older]);
    hostile.args(["--chain-id", "4711", "--contract", &home.node.contract]);
    hostile.arg("--certificate").arg(certificate).arg("--key").arg(key).arg("--ca").arg(ca);
    let output = hostile.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{log}");
    let report: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let refused: BTreeMap<_, _> = report["forgeries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["kind"].as_str().unwrap(), one["refused"].as_str()))
        .collect();
    for (line, kinds) in LINES {
        for (kind, reason) in kinds {
            let refused = refused.get(kind).unwrap_or_else(|| panic!("{line}: {kind} was not tried"));
            assert_eq!(*refused, Some(*reason), "{line}: {kind}");
        }
    }
    running.stop();
    core.stop();
}

/// What a gateway's door answers to a bundle: the reason for which it was refused.
fn refused_at_the_door(door: SocketAddr, bundle: &[u8]) -> String {
    until("the door answers", || {
        let mut stream = TcpStream::connect(door).ok()?;
        let length = bundle.len();
        write!(
            stream,
            "POST /policy/bundle HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
        .ok()?;
        stream.write_all(bundle).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let said: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()?;
        said["refused"].as_str().map(str::to_owned)
    })
}

/// What the real controller brings is good, and not of the ledger that these gateways were enrolled with. Neither is it when it says that
/// it is of theirs.
fn another_ledgers_bundles_are_refused(home: &Home, good: &[u8]) {
    type Lie = fn(&mut PolicyBundle);
    let enrolment = fs::read_to_string(home.node.path("g-1-enrolment.toml")).unwrap();
    let stranger = format!("0x{}", "5e".repeat(20));
    let more = format!("\"{}\", \"{stranger}\"", home.node.validator);
    let quoted = |text: &str| format!("\"{text}\"");
    let none: Option<(Lie, &str)> = None;
    let chain: (Lie, _) = (|bundle| bundle.chain_id = 4712, "participant_signature");
    let contract: (Lie, _) = (|bundle| bundle.contract = [0x5e; 20], "account_proof");
    let cases = [
        ("other chain", "chain_id = 4711", "chain_id = 4712", "other_chain", Some(chain)),
        ("other contract", home.node.contract.as_str(), stranger.as_str(), "other_contract", Some(contract)),
        ("unknown validator", home.node.validator.as_str(), stranger.as_str(), "validators_other", none),
        ("other validator set", &quoted(&home.node.validator), &more, "validators_other", none),
    ];
    for (line, is, becomes, reason, lie) in cases {
        assert!(enrolment.contains(is), "{line}: {enrolment}");
        let (local, address) = door();
        let gateway = home.configure_gateway("g-1", &line.replace(' ', "-"), &local);
        fs::write(home.node.path("g-1-enrolment.toml"), enrolment.replace(is, becomes)).unwrap();
        let running = gateway.start();
        println!("{line}: {reason}");
        running.reaches(&format!("caregate_gateway_policy_refused_total{{reason=\"{reason}\"}}"), 1.0);
        if let Some((lie, shown)) = lie {
            let mut bundle = PolicyBundle::decode(good).unwrap();
            lie(&mut bundle);
            assert_eq!(refused_at_the_door(address, &bundle.encode()), shown, "{line}, and lies");
        }
        assert!(running.metric("caregate_gateway_policy_epoch ").unwrap() < 1.0, "{line}");
        running.stop();
    }
    fs::write(home.node.path("g-1-enrolment.toml"), enrolment).unwrap();
    home.configure_gateway("g-1", "gateway", "");
}

/// Whoever holds back a revocation holds back headers: they grow old, also where the clock is set back so that they would not.
#[test]
fn a_withheld_revocation_and_a_clock_that_was_set_back_end_access() {
    for offset in ["+1h", "-1d"] {
        let home = Home::new(&["g-1"]);
        let wallet = home.patient("g-1");
        let (core, controller) = (home.core(), home.controller());
        let gateway = home.configure_gateway("g-1", "gateway", "");
        drop(learns(&home, &wallet, &gateway, "good.cbor"));
        let running = gateway.start();
        home.knows_device(&running);
        gateway.publish(0..5);
        running.delivers();
        running.stop();
        // From now on nobody brings headers, and the patient revokes.
        controller.stop();
        wallet.call("revoke", &["--label", "City"]).done();
        let running = gateway.start_at(offset);
        gateway.publish(5..10);
        running.delivers();
        assert!(running.get("/readyz").unwrap().contains("policy_fresh"), "{offset}");
        // One is old by a clock that is believed; the other was set back, so nobody knows how old it is.
        let is_unknown = running.metric("caregate_gateway_policy_clock_unknown ").unwrap() > 0.5;
        assert_eq!(is_unknown, offset == "-1d", "{offset}");
        running.stop();
        // With the right time and headers that are young still, the grant goes on: it was their age, or that nobody knew it.
        let running = gateway.start();
        gateway.publish(10..15);
        running.delivers();
        running.stop();
        core.stop();
        let (rates, refused) = home.found(&["g-1"]);
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(rates, (0..5).chain(10..15).collect::<Vec<_>>(), "{offset}");
    }
}
