//! A grant that begins in the past opens what was sealed since; a reader that keeps every key that it ever got opens nothing that was
//! sealed after the gateway had verified its revocation.

use std::collections::HashMap;

use caregate_host::clock;
use caregate_protocol::key::TreeNode;
use caregate_protocol::reading;
use caregate_protocol::record::Record;
use caregate_protocol::segment::SegmentHash;
use caregate_protocol::wrap::HpkePrivateKey;

use crate::called::until;
use crate::home::{Daemon, Home, device_key};
use crate::search::hits;

/// All that somebody holds who never deletes: every node, under whatever name.
pub(crate) struct Hoarder {
    nodes: Vec<TreeNode>,
}

impl Hoarder {
    /// `gateways`: who may have sealed.
    pub(crate) fn new(key: &HpkePrivateKey, gateways: &[&str], records: &[Vec<u8>]) -> Self {
        let devices: Vec<_> = gateways.iter().map(|name| device_key(name).verifying_key()).collect();
        let wraps = records.iter().filter_map(|record| match Record::decode(record) {
            Ok(Record::Wrap(wrap)) => devices.iter().find_map(|device| wrap.open(key, device).ok()),
            Ok(Record::Segment(_) | Record::Head(_) | Record::Gap(_) | Record::Tokens(_)) | Err(_) => None,
        });
        Self { nodes: wraps.collect() }
    }

    /// The readings' numbers of all segments that any key opens.
    pub(crate) fn opens(&self, records: &[Vec<u8>]) -> Vec<u64> {
        let mut numbers = Vec::new();
        for record in records {
            let Ok(Record::Segment(segment)) = Record::decode(record) else { continue };
            let keys = self.nodes.iter().filter_map(|node| node.epoch_key(segment.header.epoch));
            let plain = keys.into_iter().find_map(|key| segment.open(&key).ok());
            let readings = plain.into_iter().flat_map(|plain| reading::decode(&plain).unwrap());
            numbers.extend(readings.filter_map(|reading| reading.seq));
        }
        numbers
    }
}

fn ended(gateway: &Daemon) -> f64 {
    gateway.metric("caregate_gateway_epochs_closed_total").unwrap_or_default()
}

/// Segments as they lie at the core, by their hash.
fn segments(records: &[Vec<u8>]) -> HashMap<SegmentHash, Vec<u8>> {
    let mut segments = HashMap::new();
    for record in records {
        if let Ok(Record::Segment(segment)) = Record::decode(record) {
            segments.insert(segment.hash(), record.clone());
        }
    }
    segments
}

#[test]
fn the_past_is_given_by_wraps_alone_and_ends_with_its_revocation() {
    let home = Home::new(&["g-1"]);
    let (clinic, clinic_key) = home.second_hospital();
    let wallet = home.patient("g-1");
    wallet.call("relationship", &["--label", "Clinic", "--grantee", &clinic.to_string()]).done();
    let patient = home.enrol(&wallet, "g-1", &[]);
    let (core, _controller) = (home.core(), home.controller());
    let gateway = home.configure_gateway("g-1", "gateway", "");
    let running = gateway.start();
    home.knows_device(&running);
    let (_clinic, page) = home.feed("clinic", clinic, &clinic_key, "g-1");
    gateway.publish(0..10);
    gateway.event("fall");
    // The hospital goes and comes again, so that what is asked for was sealed by more than one generation.
    let before = ended(&running);
    wallet.call("revoke", &["--label", "City"]).done();
    running.reaches("caregate_gateway_epochs_closed_total", before + 1.0);
    gateway.publish(10..20);
    wallet.call("grant", &["--label", "City"]).done();
    running.delivers();
    assert_eq!(hits(page, &patient, "fall").map(|(found, _)| found), Some(0), "there is no grant yet");

    let day_before = (clock::now_ms() / 1000 - 86_400).to_string();
    let granted = wallet.call("grant", &["--label", "Clinic", "--from", &day_before]).done();
    assert!(granted["until"].as_u64().unwrap() > u64::try_from(clock::now_ms() / 1000).unwrap());
    running.reaches("caregate_gateway_past_wraps_total", 1.0);
    running.delivers();
    let (found, _) = until("the clinic finds the fall of before", || {
        hits(page, &patient, "fall").filter(|(found, _)| *found > 0)
    });
    assert!(found >= 1);
    gateway.publish(20..30);
    running.delivers();
    // A day is 1,440 epochs: 2·log₂ of it for each of two classes in each of three generations, and the live ones.
    let wraps = running.metric("caregate_gateway_past_wraps_total").unwrap();
    assert!((1.0..=132.0).contains(&wraps), "{wraps} wraps for a day");

    let before = ended(&running);
    wallet.call("revoke", &["--label", "Clinic"]).done();
    running.reaches("caregate_gateway_epochs_closed_total", before + 1.0);
    gateway.publish(30..40);
    running.delivers();
    running.stop();
    core.stop();

    let (theirs, all) = (home.records_of(clinic), home.records());
    let hoarder = Hoarder::new(&clinic_key, &["g-1"], &theirs);
    let of_clinic = hoarder.opens(&theirs).into_iter().filter(|n| *n < 40).collect::<Vec<_>>();
    let expected: Vec<_> = (0..30).collect();
    assert!(expected.iter().all(|n| of_clinic.contains(n)), "{of_clinic:?}");
    // Whatever it gets hold of, by whatever way: all that the core has.
    let everything: Vec<_> = all.iter().chain(&theirs).cloned().collect();
    let opened = hoarder.opens(&everything);
    assert!(!opened.iter().any(|n| (30..40).contains(n)), "{opened:?}");
    let hospital = Hoarder::new(&home.hospital, &["g-1"], &all);
    let again = hospital.opens(&all);
    assert!((30..40).all(|n| again.contains(&n)), "{again:?}");
    // The clinic's are the very bytes that were sealed before anybody thought of it.
    let (theirs, all) = (segments(&theirs), segments(&all));
    let shared = theirs.iter().filter(|(hash, record)| all.get(hash) == Some(record)).count();
    assert!(shared >= 3, "{shared} of {} and {}", theirs.len(), all.len());
}
