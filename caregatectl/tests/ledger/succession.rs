//! Keys that hand on, by the patient and by custodians, and devices whose binding somebody else relays: on the embedded node and on anvil.

use crate::support::{Called, Node, call, until};

/// A command that knows its ledger by the file it is given.
fn relayed(node: &Node, words: &[&str], arguments: &[&str]) -> Called {
    call(&[words, &["--rpc", &node.rpc], &node.paid(), arguments].concat())
}

/// Signs and hands in with so many custodians.
fn recover(node: &Node, custody: &str, request: &str, keys: &[String]) -> Called {
    let mut arguments =
        vec!["--custodians".to_owned(), custody.to_owned(), "--request".into(), request.into()];
    for (at, key) in keys.iter().enumerate() {
        let out = node.path(&format!("signature-{at}"));
        drop(std::fs::remove_file(&out));
        call(&["custodian", "sign", "--key", key, "--request", request, "--out", &out]).done();
        arguments.extend(["--signature".into(), out]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    relayed(node, &["custodian", "recover"], &arguments)
}

fn rotate(node: &Node) {
    let hospital = node.hospital("hospital", &[]);
    let wallet = node.wallet("patient");
    wallet.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    let first = wallet.call("grant", &["--label", "City"]).done();
    let rotated = wallet.call("rotate", &["--label", "City"]).done();
    assert_eq!(rotated["keys_version"], 1);
    assert_eq!(rotated["relationship"], first["relationship"], "a relationship keeps its name");
    let granted = wallet.call("grant", &["--label", "City"]).done();
    assert_eq!((&granted["version"], &granted["relationship"]), (&2.into(), &first["relationship"]));
    let name = first["relationship"].as_str().unwrap();
    let shown = || node.ledger("consent show", &["--relationship", name]).done();
    assert_eq!((&shown()["keys_version"], &shown()["state"]), (&1.into(), &"stands".into()));
    assert_eq!(wallet.call("rotate", &["--label", "City"]).done()["keys_version"], 2);
    assert_eq!(wallet.call("show", &[]).done()["relationships"][0]["keys_version"], 2);
    wallet.call("revoke", &["--label", "City"]).done();
    assert_eq!(shown()["state"], "revoked");
    // A wallet that knows nothing of it learns it from the ledger.
    let seed = node.path("seed");
    let patient = node.wallet_at("backed");
    let cheap = ["--memory-mib", "8", "--passes", "1"];
    patient.call("new", &[&cheap[..], &["--backup", &seed]].concat()).done();
    let ledger = ["--chain-id", "4711", "--contract", &node.contract, "--validator", &node.validator];
    patient.call("ledger", &ledger).done();
    patient.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    patient.call("rotate", &["--label", "City"]).done();
    let again = node.wallet_at("again");
    again.call("new", &[&cheap[..], &["--seed-file", &seed]].concat()).done();
    again.call("ledger", &ledger).done();
    again.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    assert_eq!(again.call("grant", &["--label", "City"]).done()["version"], 1);
}

/// Three custodians' keys, and their addresses with commas.
fn custodian_keys(node: &Node) -> (Vec<String>, String) {
    let keys: Vec<String> = (0..3).map(|n| node.path(&format!("custodian-{n}"))).collect();
    let address = |key: &String| {
        call(&["custodian", "new", "--out", key]).done()["address"].as_str().unwrap().to_owned()
    };
    let addresses: Vec<String> = keys.iter().map(address).collect();
    (keys, addresses.join(","))
}

/// Completes a recovery as soon as its delay is over.
fn completed(node: &Node, request: &str, hospital: &str) {
    let governor = node.path("governor.key");
    until("the delay is over", || {
        let done = relayed(node, &["custodian", "complete"], &["--request", request]).status == 0;
        if !done {
            // Blocks' time goes on with blocks.
            node.ledger("participant register", &["--governor-key", &governor, "--participant", hospital])
                .done();
        }
        done.then_some(())
    });
}

fn custodians(node: &Node) {
    let hospital = node.hospital("hospital", &[]);
    let lost = node.wallet("lost");
    lost.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    let granted = lost.call("grant", &["--label", "City"]).done();
    let (keys, list) = custodian_keys(node);
    let custody = node.path("custody.json");
    let name = |delay: &str, custody: &str| {
        let arguments = [
            "--label",
            "City",
            "--custodian",
            &list,
            "--threshold",
            "2",
            "--delay-s",
            delay,
            "--out",
            custody,
        ];
        lost.call("custodians", &arguments)
    };
    let twice = format!("{list},{list}");
    let wrong = ["--label", "City", "--custodian", &twice, "--out", &custody];
    assert!(lost.call("custodians", &wrong).failed().contains("named twice"));
    assert_eq!(name("1", &custody).done()["custody_version"], 1);

    let found = node.wallet("found");
    let request = node.path("request.json");
    let ask = ["--label", "City", "--custodians", &custody, "--out", &request];
    let asked = found.call("succeed", &ask).done();
    assert_eq!((&asked["relationship"], &asked["keys_version"]), (&granted["relationship"], &1.into()));
    assert!(
        found
            .call("grant", &["--label", "City"])
            .failed()
            .contains("has not put this wallet's keys in place")
    );
    assert_eq!(recover(node, &custody, &request, &keys[..1]).refused(), "TooFewSignatures");
    let stranger = node.path("stranger");
    call(&["custodian", "new", "--out", &stranger]).done();
    let by_stranger = recover(node, &custody, &request, &[keys[0].clone(), stranger]);
    assert!(by_stranger.failed().contains("has not named this custodian"));
    let begun = recover(node, &custody, &request, &keys[1..]).done();
    assert!(begun["in_force"] == false && begun["ready_at"].as_u64() > Some(0), "{begun}");

    // The patient, who has the wallet after all, stops it; with the same custodians named anew it begins again.
    let anew = node.path("custody-2.json");
    name("1", &anew).done();
    let complete = || relayed(node, &["custodian", "complete"], &["--request", &request]);
    assert_eq!(complete().refused(), "NoSuchRecovery");
    recover(node, &anew, &request, &keys[..2]).done();
    completed(node, &request, &hospital);
    let again = found.call("grant", &["--label", "City"]).done();
    assert_eq!((&again["version"], &again["relationship"]), (&2.into(), &granted["relationship"]));
    assert!(lost.call("grant", &["--label", "City"]).failed().contains("replaced by keys of another wallet"));
    found.call("revoke", &["--label", "City"]).done();
    let relationship = granted["relationship"].as_str().unwrap();
    let shown = node.ledger("consent show", &["--relationship", relationship]).done();
    assert_eq!((&shown["state"], &shown["keys_version"]), (&"revoked".into(), &1.into()));
    assert_eq!(found.call("custodians", &["--label", "City", "--nobody"]).done()["custodians"], 0);
    assert_eq!(recover(node, &anew, &request, &keys[..2]).refused(), "NotTheCustodians");
}

fn device(node: &Node) {
    let wallet = node.wallet("worn");
    let (bound, released) = (node.path("bound.json"), node.path("released.json"));
    let device = ["--home", "gateway-1", "--device", "ecg-1"];
    let first = [&device[..], &["--mac", "02:00:00:00:00:01", "--out", &bound]].concat();
    assert_eq!(wallet.call("bind", &first).done()["version"], 1);
    let relay = |verb: &str, file: &str| relayed(node, &["device", verb], &[file]);
    assert!(relay("unbind", &bound).failed().contains("signed that the device is bound"));
    let sent = relay("bind", &bound).done();
    assert_eq!((&sent["bound"], &sent["version"]), (&true.into(), &1.into()));
    assert_eq!(relay("bind", &bound).refused(), "VersionNotRaised");
    wallet.call("bind", &[&device[..], &["--release", "--out", &released]].concat()).done();
    let forged = std::fs::read_to_string(&released).unwrap().replace("\"version\": 2", "\"version\": 3");
    let other = node.path("forged.json");
    std::fs::write(&other, forged).unwrap();
    assert_eq!(
        (relay("unbind", &other).status, relay("unbind", &other).json()["fault"].as_str()),
        (4, Some("signature"))
    );
    let sent = relay("unbind", &released).done();
    assert_eq!((&sent["bound"], &sent["version"]), (&false.into(), &2.into()));
}

#[test]
fn a_relationship_keeps_its_name_when_its_keys_are_rotated() {
    rotate(&Node::start());
}

#[test]
fn custodians_put_another_wallet_in_a_lost_ones_place_unless_the_patient_stops_them() {
    custodians(&Node::start());
}

#[test]
fn who_relays_a_binding_can_change_nothing_of_it() {
    device(&Node::start());
}

#[test]
fn keys_custodians_and_devices_on_anvil() {
    rotate(&Node::on_anvil());
    custodians(&Node::on_anvil());
    device(&Node::on_anvil());
}
