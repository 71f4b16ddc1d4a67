//! Sensitivity by context: what a patient says of a sensor decides under whose keys its readings are sealed.

use caregate_protocol::code;
use caregate_protocol::id::DataClass;
use caregate_protocol::policy::Classes;
use edge_gateway::ingest::Verdict;
use edge_gateway::spool::Limits;

use crate::pipeline_support::{
    HEART_RATE, Home, Hospital, MINUTE_US, NOW_US, Opened, Publish, assert_whole, classed, policy,
};

fn rules(rules: &[(&str, DataClass)]) -> Classes {
    let mut classes = Classes::default();
    for (name, class) in rules {
        classes.set(code::by_name(name), Some(*class)).unwrap();
    }
    classes
}

/// What somebody opens: class, device and stream of each reading.
fn streams(opened: &[Opened]) -> Vec<(DataClass, String)> {
    let named = opened.iter().flat_map(|segment| {
        segment.readings.iter().map(|r| (segment.header.class, format!("{}/{}", r.device, r.stream)))
    });
    let mut streams: Vec<_> = named.collect();
    streams.sort_unstable_by_key(|(class, name)| (*class as u8, name.clone()));
    streams
}

fn named(streams: &[(DataClass, &str)]) -> Vec<(DataClass, String)> {
    streams.iter().map(|(class, name)| (*class, (*name).to_owned())).collect()
}

#[test]
fn a_reader_of_vitals_opens_nothing_of_what_the_patient_keeps_and_one_of_sensitive_does() {
    use DataClass::{Alarm, Sensitive, Vitals, Waveform};
    let home = Home::new(Limits::with_budget(64 << 20));
    let (ward, therapist) = (Hospital::new(1), Hospital::new(2));
    let grants =
        [ward.grant(&[Alarm, Vitals, Waveform], 0, u64::MAX), therapist.grant(&[Sensitive], 0, u64::MAX)];
    let rules = rules(&[("heart-rate", Sensitive), ("ecg-ii", Sensitive), ("glucose", Vitals)]);
    let policy = classed(&[&ward, &therapist], &grants, &[], &rules);
    let mut gateway = home.start();
    let publishes = [
        Publish::beat(1),
        Publish::ecg(1, 90),
        Publish::new("monitor-1", "num/glucose", r#"{"v":99}"#),
        Publish::new("monitor-1", "event/fall", r#"{"seq":4}"#),
        Publish::new("belt-1", HEART_RATE, r#"{"v":71,"seq":1}"#),
        Publish::new("belt-1", "num/glucose", r#"{"v":98}"#),
    ];
    assert_eq!(gateway.commit(&publishes, &policy), [Verdict::Stored; 6]);
    let of_ward = [(Alarm, "monitor-1/fall"), (Vitals, "belt-1/heart-rate"), (Vitals, "monitor-1/glucose")];
    assert_eq!(streams(&gateway.opened_by(&ward)), named(&of_ward));
    let of_therapist =
        [(Sensitive, "belt-1/glucose"), (Sensitive, "monitor-1/ecg-ii"), (Sensitive, "monitor-1/heart-rate")];
    assert_eq!(streams(&gateway.opened_by(&therapist)), named(&of_therapist));
    assert_whole(&gateway.opened());
}

#[test]
fn quantities_of_several_classes_in_one_payload_are_sealed_apart() {
    use DataClass::{Activity, Sensitive, Vitals};
    let home = Home::new(Limits::with_budget(64 << 20));
    let readers = [Vitals, Sensitive, Activity].map(|class| (class, Hospital::new(class as u8)));
    let grants = readers.each_ref().map(|(class, reader)| reader.grant(&[*class], 0, u64::MAX));
    let hospitals = readers.each_ref().map(|(_, reader)| reader);
    let policy = classed(&hospitals, &grants, &[], &rules(&[("heart-rate", Sensitive), ("spo2", Activity)]));
    let mut gateway = home.start();
    let pack = r#"[{"bt":1790000000,"n":"heart-rate","v":72,"u":"/min"},{"n":"spo2","v":97,"u":"%"},{"n":"temperature","v":37,"u":"Cel"},
        {"n":"weight","v":81,"u":"kg"}]"#;
    assert_eq!(gateway.put(&Publish::new("monitor-1", "num/senml", pack), &policy), Verdict::Stored);
    let expected: [&[_]; 3] = [
        &[(Vitals, "monitor-1/temperature")],
        &[(Sensitive, "monitor-1/heart-rate"), (Sensitive, "monitor-1/weight")],
        &[(Activity, "monitor-1/spo2")],
    ];
    for ((class, reader), expected) in readers.iter().zip(expected) {
        let opened = gateway.opened_by(reader);
        assert_eq!((opened.len(), streams(&opened)), (1, named(expected)), "{class:?}");
    }
    assert_eq!(gateway.opened().len(), 3, "one segment for each class");
}

/// Rules count from when the patient bound the device with them: what was sealed before stays under the keys that it has.
#[test]
fn other_rules_change_what_comes_and_nothing_that_is_there() {
    use DataClass::{Sensitive, Vitals};
    let home = Home::new(Limits::with_budget(64 << 20));
    let ward = Hospital::new(1);
    let grants = [ward.grant(&[Vitals], 0, u64::MAX)];
    let mut gateway = home.start();
    let before = policy(&[&ward], &grants, &[]);
    assert_eq!(gateway.put(&Publish::beat(1), &before), Verdict::Stored);
    let mut gateway = home.restart(gateway);
    let after = classed(&[&ward], &grants, &[], &rules(&[("heart-rate", Sensitive)]));
    assert_eq!(gateway.commit_at(&[Publish::beat(2)], &after, NOW_US + MINUTE_US), [Verdict::Stored]);
    assert_eq!((gateway.seqs(Vitals), gateway.seqs(Sensitive)), (vec![1], vec![2]));
    let opened = gateway.opened_by(&ward);
    assert_eq!(opened.iter().flat_map(|o| &o.readings).map(|r| r.seq.unwrap()).collect::<Vec<_>>(), [1]);
    // What comes again is recognised, whatever its class is by now.
    assert_eq!(gateway.commit_at(&[Publish::beat(1)], &after, NOW_US + MINUTE_US), [Verdict::Stored]);
    assert_eq!(gateway.seqs(Sensitive), [2]);
}
