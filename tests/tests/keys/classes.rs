//! Of which class a sensor's readings are is the patient's word: through real processes, from the wallet to who opens what the core has.

use std::fs;

use caregate_protocol::id::{DataClass, RecipientId};
use caregate_protocol::wrap::HpkePrivateKey;
use clinician_feed::opener::Opener;
use serde_json::json;

use crate::home::{Home, device_key};

const DEVICE: [&str; 4] = ["--home", "g-1", "--device", "ecg-1"];

/// What somebody opens of the core's store: of which class, and the readings' numbers.
fn opened(home: &Home, who: RecipientId, key: &HpkePrivateKey) -> Vec<(DataClass, u64)> {
    let mut opener = Opener::new(who, key.clone(), [device_key("g-1").verifying_key()]);
    let records = home.records_of(who);
    let opened = records.iter().flat_map(|record| opener.take(record).opened);
    let numbers = opened.flat_map(|segment| {
        let class = segment.class;
        segment.readings.into_iter().filter_map(move |reading| Some((class, reading.seq?)))
    });
    numbers.collect()
}

fn of(class: DataClass, numbers: std::ops::Range<u64>) -> Vec<(DataClass, u64)> {
    numbers.map(|number| (class, number)).collect()
}

#[test]
fn nobody_but_the_patient_moves_a_sensors_readings_to_another_class() {
    let home = Home::new(&["g-1"]);
    let (clinic, clinic_key) = home.second_hospital();
    let wallet = home.patient("g-1");
    wallet.call("relationship", &["--label", "Clinic", "--grantee", &clinic.to_string()]).done();
    home.enrol(&wallet, "g-1", &[]);
    // The hospital gets all, the clinic vitals and alarms.
    wallet.call("grant", &["--label", "City", "--classes", "all"]).done();
    wallet.call("grant", &["--label", "Clinic", "--classes", "alarm,vitals"]).done();
    let (core, _controller) = (home.core(), home.controller());
    let gateway = home.configure_gateway("g-1", "gateway", "");
    let running = gateway.start();
    home.knows_device(&running);
    gateway.publish(0..10);
    running.delivers();
    running.stop();

    let classify = |more: &[&str]| wallet.call("classify", &[&DEVICE[..], more].concat());
    let heart_rate = ["--quantity", "heart-rate", "--class", "sensitive"];
    assert!(classify(&heart_rate).failed().contains("release it first"));
    assert!(classify(&["--quantity", "fall", "--class", "sensitive"]).failed().contains("is an alarm"));
    assert!(classify(&["--class", "alarm"]).failed().contains("not made by rules"));
    wallet.call("bind", &[&DEVICE[..], &["--release"]].concat()).done();
    assert_eq!(classify(&heart_rate).done()["classes"], json!({ "heart-rate": "sensitive" }));
    home.enrol(&wallet, "g-1", &[]);
    let running = gateway.start();
    home.knows_device(&running);
    gateway.publish(10..20);
    gateway.event("fall");
    running.delivers();
    running.stop();

    // The operator, who may write the file, takes the rule out of it: that device is bound by nobody.
    let path = home.node.path("g-1-enrolment.toml");
    let enrolment = fs::read_to_string(&path).unwrap();
    let without = enrolment.replace("heart-rate = \"sensitive\"\n", "");
    assert_ne!(without, enrolment);
    fs::write(&path, without).unwrap();
    let running = gateway.start();
    running.reaches("caregate_gateway_policy_offers_total{origin=\"controller\",outcome=\"in_force\"}", 1.0);
    gateway.publish(20..30);
    running.reaches("caregate_gateway_quarantined_total{reason=\"unbound\"}", 10.0);
    running.stop();
    core.stop();

    let (all, theirs) = (opened(&home, home.recipient, &home.hospital), opened(&home, clinic, &clinic_key));
    let expected = [of(DataClass::Vitals, 0..10), of(DataClass::Sensitive, 10..20)].concat();
    let rates = |opened: &[(DataClass, u64)]| {
        let rates = opened.iter().filter(|(class, _)| *class != DataClass::Alarm);
        rates.copied().collect::<Vec<_>>()
    };
    assert_eq!(rates(&all), expected);
    assert_eq!(rates(&theirs), of(DataClass::Vitals, 0..10), "of the therapy nothing");
    for opened in [&all, &theirs] {
        assert!(opened.contains(&(DataClass::Alarm, 1)), "the fall reaches whoever may see alarms");
    }
}
