//! A patient has everything at a gateway erased: root, salts, ciphertext, wraps and what feeds held; and holds receipts of it.

use std::fs;
use std::path::Path;

use caregate_protocol::erasure::{Issuer, Receipt};
use caregate_protocol::record::Record;
use serde_json::Value;

use crate::called::{Called, Wallet, until};
use crate::home::{Daemon, Gateway, Home, door};
use crate::recovery::{root_of, split};
use crate::search::hits;

/// Whether these bytes are in any file below a folder, as they are or in hexadecimal.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    let text = hex::encode(bytes);
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let file = fs::read(&path).unwrap();
        [bytes, text.as_bytes()].iter().any(|part| file.windows(part.len()).any(|window| window == *part))
    })
}

/// Who has answered, or has not.
fn by(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one["by"].as_str().unwrap()).collect()
}

fn erase(wallet: &Wallet<'_>, url: &str, more: &[&str]) -> Called {
    wallet.call("erase", &[&["--home", "g-1", "--gateway", url], more].concat())
}

/// Each verifies, is of this patient, and was signed by the key that is said.
fn are_good(done: &Value, patient: &str) {
    for one in done["erased"].as_array().unwrap() {
        let (receipt, key) =
            Receipt::verify(&hex::decode(one["receipt"].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(receipt.patient.to_string(), patient);
        assert_eq!(one["key"], hex::encode(key.as_bytes()));
        assert!(receipt.records > 0 || receipt.issuer != Issuer::Core, "{one}");
    }
}

/// Everybody has erased, the wallet too, and what is beyond reach is said.
fn is_whole(done: &Value, patient: &str) {
    assert_eq!(by(&done["erased"]), ["core", "feed", "gateway"], "{done}");
    assert_eq!((&done["complete"], &done["released"]), (&Value::from(true), &Value::from(1)));
    assert_eq!(done["erased"][1]["name"], "City");
    let salts = &done["salts_destroyed"];
    assert!(salts["wallet"] == true && salts["gateway"] == true, "{done}");
    assert_eq!(done["shares_out"][0]["shares"], 3, "{done}");
    assert_eq!(done["beyond_reach"].as_array().unwrap().len(), 6);
    are_good(done, patient);
}

/// In the process that was there before the erasure: its device is bound to nobody, and the controller is asked for nothing of the patient.
fn a_stranger_from_then_on(home: &Home, gateway: &Gateway, running: &Daemon) {
    gateway.publish(21..22);
    running.reaches("caregate_gateway_quarantined_total{reason=\"unbound\"}", 1.0);
    running.reaches("caregate_gateway_controller_failures_total{reason=\"enrolment\"}", 1.0);
    // The ledger goes on, and so does the policy of those who stay.
    let stranger = home.node.wallet("carol");
    let device = ["--home", "g-1", "--device", "belt-9", "--mac", "02:00:00:00:00:09"];
    let block = stranger.call("bind", &device).done()["ledger"]["block"].as_u64().unwrap();
    running.reaches("caregate_gateway_policy_header_number ", u32::try_from(block).unwrap().into());
}

#[test]
fn the_wallet_has_everything_erased_and_gets_receipts() {
    let home = Home::new(&["g-1"]);
    home.feeds(&[("hospital", home.recipient)]);
    let wallet = home.patient("g-1");
    let patient = home.enrol(&wallet, "g-1", &[]);
    let (core, controller) = (home.core(), home.controller());
    let (local, address) = door();
    let gateway = home.configure_gateway("g-1", "gateway", &local);
    let running = gateway.start();
    home.knows_device(&running);
    gateway.publish(0..20);
    running.delivers();
    running.stop();
    let shares = split(&home, &gateway, &patient, ["a.share", "b.share", "c.share"]);
    let root = root_of(&shares[..2]);
    let folder = home.node.dir.path().join("gateway");
    assert!(holds(&folder, root.as_bytes()));
    let running = gateway.start();
    home.knows_device(&running);
    let (hospital, page) = home.feed("hospital", home.recipient, &home.hospital, "g-1");
    gateway.event("fall");
    running.delivers();
    until("the hospital finds the fall", || hits(page, &patient, "fall").filter(|(found, _)| *found > 0));
    let enrolment = home.node.path("g-1-enrolment.toml");
    let enrolled = fs::read_to_string(&enrolment).unwrap();
    let salt = enrolled.lines().find_map(|line| line.strip_prefix("salt = ")).unwrap().to_owned();

    let url = format!("http://{address}");
    let (out, stranger) = (home.node.path("receipts.json"), home.node.wallet("bob"));
    assert!(erase(&wallet, &url, &["--confirm", "g-2"]).failed().contains("nothing was done"));
    let other = ["--confirm", "g-1", "--share", &home.node.path("governor.key")];
    erase(&wallet, &url, &other).failed();
    // Another patient's word does not count, whoever they say they are.
    let x = home.node.path("x.toml");
    stranger.call("enrol", &["--home", "g-1", "--out", &x, "--patient", &patient]).done();
    assert_eq!(erase(&stranger, &url, &["--confirm", "g-1"]).refused(), "erasure_signature");
    running.reaches("caregate_gateway_policy_refused_total{reason=\"erasure_signature\"}", 1.0);
    assert!(holds(&folder, root.as_bytes()));
    gateway.publish(20..21);

    let done = erase(&wallet, &url, &["--confirm", "g-1", "--out", &out, "--share", &shares[0]]).done();
    is_whole(&done, &patient);
    a_stranger_from_then_on(&home, &gateway, &running);
    assert!(!Path::new(&shares[0]).exists());
    let kept: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(kept["erased"], done["erased"]);
    // Nothing of it is at the gateway, nor at the core, nor at the feed.
    assert!(!holds(&folder, root.as_bytes()));
    let enrolled = fs::read_to_string(&enrolment).unwrap();
    assert!(!enrolled.contains(&salt) && !enrolled.contains(&patient), "{enrolled}");
    assert_eq!(hits(page, &patient, "fall").unwrap().0, 0);
    let journal = fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    assert!(journal.contains("erasure_ordered") && journal.contains("root_erased"));

    // The same after everybody has begun anew; asked again, it is the same.
    running.stop();
    drop(hospital);
    let running = gateway.start();
    let (hospital, page) = home.feed("hospital", home.recipient, &home.hospital, "g-1");
    hospital.reaches("caregate_feed_records_total{outcome=\"erased\"}", 1.0);
    assert!(hospital.metric("caregate_feed_records_total{outcome=\"opened\"}").unwrap() < 1.0);
    assert_eq!(hits(page, &patient, "fall").unwrap().0, 0);
    let again = erase(&wallet, &url, &["--confirm", "g-1"]).done();
    assert_eq!((&again["request"], &again["erased"]), (&done["request"], &done["erased"]));
    assert_eq!((&again["complete"], &again["released"]), (&Value::from(true), &Value::from(0)));
    running.stop();
    controller.stop();
    core.stop();
    drop(hospital);
    let (listed, said) = gateway.root("list", &[]);
    assert!(listed && !said.contains(&patient), "{said}");
    // Whoever kept every wrap gets nothing to open with it.
    for record in home.records() {
        let of_patient = Record::decode(&record).is_ok_and(|record| record.patient().to_string() == patient);
        assert!(!of_patient, "the core still has a record");
    }
    assert_eq!(home.found(&["g-1"]).0, Vec::<u64>::new());
}

#[test]
fn an_order_outlives_a_kill_and_says_who_has_not_answered() {
    let home = Home::new(&["g-1"]);
    home.feeds(&[("hospital", home.recipient)]);
    let wallet = home.patient("g-1");
    let patient = home.enrol(&wallet, "g-1", &[]);
    let (core, _controller) = (home.core(), home.controller());
    let (local, address) = door();
    let gateway = home.configure_gateway("g-1", "gateway", &local);
    let running = gateway.start();
    home.knows_device(&running);
    gateway.publish(0..20);
    running.delivers();
    running.stop();
    let root = root_of(&split(&home, &gateway, &patient, ["a.share", "b.share", "c.share"])[..2]);
    let running = gateway.start();
    home.knows_device(&running);
    // The core is away: what is sealed now waits in the spool.
    core.stop();
    gateway.publish(20..40);

    let url = format!("http://{address}");
    let done = erase(&wallet, &url, &["--confirm", "g-1", "--wait-s", "0"]).done();
    running.kill();
    assert_eq!((&done["root_destroyed"], &done["complete"]), (&Value::from(true), &Value::from(false)));
    let waiting = by(&done["waiting"]);
    assert!(waiting.contains(&"core") && waiting.contains(&"feed"), "{done}");
    let folder = home.node.dir.path().join("gateway");
    assert!(!holds(&folder, root.as_bytes()));

    let _core = home.core();
    let (_hospital, _page) = home.feed("hospital", home.recipient, &home.hospital, "g-1");
    let running = gateway.start();
    running.reaches("caregate_gateway_spool_next ", 1.0);
    let done = erase(&wallet, &url, &["--confirm", "g-1"]).done();
    assert_eq!(by(&done["erased"]), ["core", "feed", "gateway"], "{done}");
    assert_eq!(done["complete"], true);
    are_good(&done, &patient);
    // Nothing waits for a core that takes no more.
    running.delivers();
    running.stop();
}
