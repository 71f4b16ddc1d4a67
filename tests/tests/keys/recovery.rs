//! A gateway is destroyed; the patient's root comes again on another from shares, and the old one's identity is revoked.

use std::fs;

use caregate_host::{clock, key_file};
use caregate_protocol::id::RecipientId;
use caregate_protocol::key::PatientRoot;
use caregate_protocol::record::Record;
use caregate_protocol::wrap::HpkePrivateKey;
use ledger_client::shares::{self, Of, ROOT_SHARE_BYTES, Share};

use crate::called::{Wallet, until, write_private};
use crate::home::{Daemon, Gateway, Home};
use crate::past::Hoarder;

/// Two of three shares of the patient's root, and of another splitting.
pub(crate) fn split(home: &Home, gateway: &Gateway, patient: &str, names: [&str; 3]) -> [String; 3] {
    let files = names.map(|name| home.node.path(name));
    let mut arguments = vec!["--patient", patient, "--threshold", "2"];
    files.iter().for_each(|file| arguments.extend(["--out", file]));
    let (done, said) = gateway.root("share", &arguments);
    assert!(done && said.contains("3 shares, of which 2"), "{said}");
    files
}

fn restore(gateway: &Gateway, files: &[&str]) -> (bool, String) {
    let arguments: Vec<_> = files.iter().flat_map(|file| ["--share", file]).collect();
    gateway.root("restore", &arguments)
}

/// The root that the gateway holds, by shares of its own.
pub(crate) fn root_of(files: &[String]) -> PatientRoot {
    let read = |file: &String| key_file::read_hex::<ROOT_SHARE_BYTES>(file.as_ref()).unwrap();
    let shares: Vec<_> = files.iter().map(|file| Share::decode(read(file).as_slice()).unwrap()).collect();
    PatientRoot::from_bytes(*shares::combine(shares[0].of(), &shares).unwrap())
}

/// Each way in which shares can be wrong is told by its own sentence, and changes nothing.
fn wrong_shares_are_named(home: &Home, gateway: &Gateway, first: &[String; 3], second: &[String; 3]) {
    let [one, two, three] = first.each_ref().map(String::as_str);
    let mut text = fs::read_to_string(two).unwrap();
    let digit = if &text[40..41] == "0" { "1" } else { "0" };
    text.replace_range(40..41, digit);
    let changed = home.node.path("changed.share");
    write_private(changed.as_ref(), &text);
    let other = shares::split(
        Of::Root(home.recipient.0[..16].try_into().map(caregate_protocol::id::PatientId).unwrap()),
        &[9; 32],
        2,
        2,
    )
    .unwrap();
    let others = home.node.path("other.share");
    write_private(others.as_ref(), &hex::encode(other[0].encode().as_slice()));
    for (files, sentence) in [
        (vec![one], "1 shares, 2 are needed"),
        (vec![one, one], "share 1 is there twice"),
        (vec![one, &second[1]], "the shares are not of one splitting"),
        (vec![one, &changed], "one of them was changed"),
        (vec![one, &changed, three], "one of them was changed"),
        (vec![one, &others], "a share of something else"),
        (vec![&gateway_file(home)], "bytes in hexadecimal"),
    ] {
        let (done, said) = restore(gateway, &files);
        assert!(!done && said.contains(sentence), "{sentence}: {said}");
    }
}

/// A file that is no share.
fn gateway_file(home: &Home) -> String {
    home.node.path("governor.key")
}

/// To a clinic that the old gateway never knew: the core has told the new one under what the old one had sealed.
fn the_day_before_is_granted(wallet: &Wallet<'_>, gateway: &Daemon) {
    gateway.says("what another gateway has sealed is known");
    let day_before = (clock::now_ms() / 1000 - 86_400).to_string();
    wallet.call("grant", &["--label", "Clinic", "--from", &day_before]).done();
    gateway.reaches("caregate_gateway_past_wraps_total", 1.0);
}

/// Waits until somebody opens these readings of what is in their queue. What is given of a class follows what the core tells of it, one class
/// after the other; and the store is looked at while the core does not hold it.
fn opens(home: &Home, gateway: &Daemon, (who, key): (RecipientId, &HpkePrivateKey), numbers: &[u64]) {
    until("what the old gateway has sealed is opened by the new one's wraps", || {
        let records = home.records_of(who);
        let mut opened = Hoarder::new(key, &["g-1", "g-2"], &records).opens(&records);
        opened.sort_unstable();
        if opened == numbers {
            return Some(());
        }
        let core = home.core();
        core.reaches("caregate_core_connections{role=\"gateway\"}", 1.0);
        gateway.delivers();
        core.stop();
        None
    });
}

#[test]
fn history_outlives_its_gateway_and_the_old_one_is_refused() {
    let home = Home::new(&["g-1", "g-2"]);
    home.register_gateway("g-1", "active").done();
    home.register_gateway("g-2", "active").done();
    let (clinic, clinic_key) = home.second_hospital();
    let wallet = home.patient("g-1");
    wallet.call("relationship", &["--label", "Clinic", "--grantee", &clinic.to_string()]).done();
    let patient = home.enrol(&wallet, "g-1", &[]);
    let (core, controller) = (home.core(), home.controller());
    let old = home.configure_gateway("g-1", "old", "");
    let running = old.start();
    home.knows_device(&running);
    old.publish(0..20);
    running.delivers();
    let (done, said) =
        old.root("share", &["--patient", &patient, "--threshold", "2", "--out", "x", "--out", "y"]);
    assert!(!done && said.contains("stop the gateway first"), "{said}");
    running.stop();
    let first = split(&home, &old, &patient, ["a.share", "b.share", "c.share"]);
    let second = split(&home, &old, &patient, ["d.share", "e.share", "f.share"]);
    let lost = root_of(&first[..2]);
    // It burns; what a thief may have of it is its certificate and its device key.
    fs::remove_dir_all(home.node.dir.path().join("old")).unwrap();
    let suspended = home.register_gateway("g-1", "suspended").done();
    assert!(suspended["in_force"] == true, "{suspended}");

    home.enrol(&wallet, "g-2", &["--patient", &patient]);
    let new = home.configure_gateway("g-2", "new", "");
    wrong_shares_are_named(&home, &new, &first, &second);
    let (done, said) = restore(&new, &[&first[2], &first[0]]);
    assert!(done && said.contains("opens what was sealed under it"), "{said}");
    let (done, said) = restore(&new, &[&first[1], &first[0]]);
    assert!(done && said.contains("here already"), "{said}");
    let running = new.start();
    home.knows_device(&running);
    new.publish(100..120);
    running.delivers();
    the_day_before_is_granted(&wallet, &running);

    // The thief comes: with another data folder, for the old one is gone.
    let thief = home.configure_gateway("g-1", "thief", "").start();
    core.reaches("caregate_core_connections_refused_total{reason=\"revoked\"}", 1.0);
    controller.reaches("caregate_controller_policy_refused_total{reason=\"revoked\"}", 1.0);
    assert!(thief.metric("caregate_gateway_lane_connected").unwrap() < 1.0);
    thief.kill();
    core.stop();
    let expected: Vec<_> = (0..20).chain(100..120).collect();
    opens(&home, &running, (clinic, &clinic_key), &expected);
    running.stop();

    let (rates, refused) = home.found(&["g-1", "g-2"]);
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(rates, expected);
    let again = split(&home, &new, &patient, ["g.share", "h.share", "i.share"]);
    let root = root_of(&again[1..]);
    assert_eq!(root.as_bytes(), lost.as_bytes());
    for record in home.records() {
        if let Ok(Record::Segment(segment)) = Record::decode(&record) {
            let h = &segment.header;
            let key = root.class_key(h.class, h.generation).epoch_key(h.epoch).unwrap();
            assert!(segment.open(&key).is_ok(), "the restored root opens what either gateway has sealed");
        }
    }
    the_patient_has_it_erased(&new, &patient, &first);
}

/// The root goes, and comes back neither by itself nor from shares.
fn the_patient_has_it_erased(gateway: &Gateway, patient: &str, shares: &[String; 3]) {
    let (done, said) = gateway.root("erase", &["--patient", patient, "--confirm", &"0".repeat(32)]);
    assert!(!done && said.contains("nothing was done"), "{said}");
    let (done, said) = gateway.root("erase", &["--patient", patient, "--confirm", patient, "--json"]);
    let said: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(done && said["root_destroyed"] == true && said["beyond_reach"].as_array().unwrap().len() == 5);
    let (done, said) = restore(gateway, &[&shares[0], &shares[1]]);
    assert!(!done && said.contains("was erased on this gateway"), "{said}");
    // Its device is nobody's from then on, also where the enrolment names it still.
    let running = gateway.start();
    gateway.event("fall");
    running.reaches("caregate_gateway_quarantined_total{reason=\"unbound\"}", 1.0);
    running.stop();
}
