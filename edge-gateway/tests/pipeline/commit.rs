//! The pipeline on a real spool: what is stored opens, what comes again is recognised, who may open it follows the policy.

use caregate_protocol::code;
use caregate_protocol::id::{DataClass, Lane};
use caregate_protocol::key::epoch_of;
use caregate_protocol::policy::Revocation;
use caregate_protocol::reading::Value;
use caregate_protocol::record::Record;
use edge_gateway::ingest::{Fault, Verdict};
use edge_gateway::pipeline::commit::Spooled;
use edge_gateway::spool::Limits;

use crate::pipeline_support::{
    Gateway, HEART_RATE, Home, Hospital, MINUTE_US, NOW_US, Opened, Publish, assert_whole, policy, small,
};

fn large() -> Limits {
    Limits::with_budget(64 << 20)
}

#[test]
fn what_is_stored_is_on_disk_and_opens_with_the_patients_root() {
    let home = Home::new(large());
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let mut gateway = home.start();
    let publishes = [
        Publish::beat(7),
        Publish::ecg(1, 90),
        Publish::new("belt-1", "event/fall", r#"{"seq":4}"#),
        Publish::new("belt-1", "num/steps", r#"{"v":12,"u":"{steps}","t":1790000000000}"#),
        Publish::new("monitor-1", "num/weight", r#"{"v":81.5,"u":"kg"}"#),
        Publish::new(
            "belt-1",
            "num/senml",
            r#"[{"bn":"spo2","v":97,"u":"%","t":1790000000},{"n":"","v":96,"t":1790000001}]"#,
        ),
    ];
    assert_eq!(gateway.commit(&publishes, &policy), [Verdict::Stored; 6]);
    let mut gateway = home.restart(gateway);
    for class in DataClass::ALL {
        assert!(!gateway.readings(class).is_empty(), "{class:?}");
    }
    let beat = &gateway.readings(DataClass::Vitals)[0];
    assert_eq!(
        (beat.device.as_str(), beat.seq, beat.sensor_time_us),
        ("monitor-1", Some(7), Some(NOW_US + 7_000))
    );
    assert_eq!(beat.gateway_time_us, NOW_US);
    let heart_rate = code::by_name("heart-rate").unwrap().number;
    assert_eq!(beat.value, Value::Numeric { quantity: heart_rate, value: 67.0 });
    assert!(
        matches!(&gateway.readings(DataClass::Waveform)[0].value, Value::Waveform { samples, .. } if samples.len() == 90)
    );
    let opened = gateway.opened();
    assert_whole(&opened);
    assert!(opened.windows(2).all(|pair| pair[0].lane <= pair[1].lane), "alarms are first in the log");
    assert_eq!(gateway.opened_by(&hospital).len(), opened.len());
}

#[test]
fn a_sensor_without_clock_that_was_reset_loses_nothing() {
    let home = Home::new(small());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    let beat = |value: u32, seq: u64| {
        Publish::new("monitor-1", HEART_RATE, format!(r#"{{"v":{value},"seq":{seq}}}"#))
    };
    let (before, after) = ([beat(60, 0), beat(61, 1)], [beat(90, 0), beat(91, 1)]);
    assert_eq!(gateway.commit(&before, &policy), [Verdict::Stored; 2]);
    assert_eq!(gateway.commit(&after, &policy), [Verdict::Stored; 2]);
    let mut gateway = home.restart(gateway);
    assert_eq!(gateway.seqs(DataClass::Vitals), [0, 1, 0, 1]);
    assert_eq!(gateway.committer.metrics.duplicates.get(), 0);
}

#[test]
fn no_verdict_comes_before_the_sync() {
    let home = Home::new(large());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    let reader = gateway.committer.log.reader();
    for round in 0..20 {
        let publishes: Vec<_> = (0..50).map(|n| Publish::beat(50 * round + n)).collect();
        let (batch, mut verdicts) = Gateway::inbound(&publishes, NOW_US);
        let position = gateway.committer.log.stats().next;
        std::thread::scope(|scope| {
            scope.spawn(|| gateway.committer.commit(batch, &policy, NOW_US).unwrap());
            let first = verdicts.remove(0).blocking_recv().unwrap();
            // A reader sees what is synced, and nothing else.
            let seen = reader.read(position).unwrap();
            assert!(first == Verdict::Stored && seen.is_some(), "acknowledged before it was synced");
        });
    }
}

#[test]
fn what_comes_again_is_acknowledged_and_stored_once() {
    let home = Home::new(small());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    let beat = Publish::beat;
    // In the same batch, in a later one, after a restart, after a rotation, after the core has it all.
    assert_eq!(gateway.commit(&[beat(0), beat(0), beat(1)], &policy), [Verdict::Stored; 3]);
    assert_eq!(gateway.commit(&[beat(1), beat(2)], &policy), [Verdict::Stored; 2]);
    assert_eq!(gateway.committer.metrics.duplicates.get(), 2);
    let mut gateway = home.restart(gateway);
    assert_eq!(gateway.commit(&[beat(2), beat(3), beat(0)], &policy), [Verdict::Stored; 3]);
    assert_eq!(gateway.seqs(DataClass::Vitals), [0, 1, 2, 3]);
    let serial = gateway.committer.log.stats().files;
    let mut filler = 0;
    while gateway.committer.log.stats().files < serial + 4 {
        filler += 1;
        assert_eq!(gateway.put(&Publish::ecg(filler, 400), &policy), Verdict::Stored);
    }
    gateway.ack_all();
    let mut gateway = home.restart(gateway);
    assert!(gateway.recovery.checkpoint.is_some());
    assert!(gateway.readings(DataClass::Vitals).is_empty(), "the core has them, and their files are gone");
    let before = gateway.committer.log.stats().next;
    assert_eq!(
        gateway.commit(&[beat(0), beat(1), beat(2), beat(3), Publish::ecg(filler, 400)], &policy),
        [Verdict::Stored; 5]
    );
    assert_eq!(gateway.committer.log.stats().next, before, "nothing new was stored");
    assert_eq!(gateway.put(&beat(4), &policy), Verdict::Stored);
    let opened = gateway.opened();
    let sequences: Vec<_> =
        opened.iter().filter(|o| o.header.class == DataClass::Vitals).map(|o| o.header.sequence).collect();
    assert_eq!(sequences, [3], "and the chain goes on where it was");
}

#[test]
fn readings_that_carry_nothing_to_recognise_them_by_are_all_kept() {
    let home = Home::new(large());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    let bare = Publish::new("monitor-1", HEART_RATE, r#"{"v":72}"#);
    assert_eq!(gateway.commit(&[bare.clone(), bare.clone()], &policy), [Verdict::Stored; 2]);
    assert_eq!(gateway.put(&bare, &policy), Verdict::Stored);
    assert_eq!(gateway.readings(DataClass::Vitals).len(), 3);
}

#[test]
fn what_cant_be_taken_is_quarantined_by_reason_and_leaves_no_trace_in_the_spool() {
    let home = Home::new(large());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    let foreign = Publish { topic: "vitals/v1/belt-1/num/heart-rate".into(), ..Publish::beat(1) };
    let elsewhere = Publish { topic: "home/kitchen/light".into(), ..Publish::beat(1) };
    let cases = [
        (Publish::new("stranger", HEART_RATE, r#"{"v":72}"#), "unbound"),
        (foreign, "device"),
        (elsewhere, "topic"),
        (Publish::new("monitor-1", "num/mood", r#"{"v":72}"#), "unknown_stream"),
        (Publish::new("monitor-1", HEART_RATE, "not JSON"), "format"),
        (Publish::new("monitor-1", HEART_RATE, r#"{"v":seventy}"#), "json"),
        (Publish::new("monitor-1", HEART_RATE, r#"{"v":72"#), "truncated"),
        (Publish::new("monitor-1", HEART_RATE, r#"{"v":7200}"#), "implausible"),
        (Publish::new("monitor-1", HEART_RATE, r#"{"v":72,"u":"furlong"}"#), "unit"),
        (Publish::new("monitor-1", "wave/ecg-ii", [0xff; 40]), "format"),
    ];
    for (publish, reason) in cases {
        let before = gateway.quarantined(reason);
        let fault = if matches!(reason, "unbound" | "device") { Fault::Device } else { Fault::Payload };
        assert_eq!(gateway.put(&publish, &policy), Verdict::Quarantined(fault), "{reason}");
        let newest = gateway.committer.hints.quarantined(1).remove(0);
        assert_eq!((newest.reason.as_str(), gateway.quarantined(reason)), (reason, before + 1), "{newest:?}");
        assert_eq!((&newest.topic, newest.bytes), (&publish.topic, publish.payload.len()));
    }
    // One bad PUBLISH costs its neighbours nothing.
    let batch = [Publish::beat(1), Publish::new("monitor-1", HEART_RATE, "x"), Publish::beat(2)];
    let quarantined = Verdict::Quarantined(Fault::Payload);
    assert_eq!(gateway.commit(&batch, &policy), [Verdict::Stored, quarantined, Verdict::Stored]);
    assert_eq!(gateway.seqs(DataClass::Vitals), [1, 2]);
}

#[test]
fn what_a_device_says_of_itself_is_noted_and_not_spooled() {
    let home = Home::new(large());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    let batch = [
        Publish::new("monitor-1", "status", "online"),
        Publish::new("monitor-1", "meta", r#"{"model":"M1"}"#),
        Publish::beat(1),
    ];
    assert_eq!(gateway.commit(&batch, &policy), [Verdict::Stored; 3]);
    assert_eq!(gateway.commit(&batch[..2], &policy), [Verdict::Stored; 2]);
    assert_eq!(gateway.opened().len(), 1);
    let devices = gateway.committer.hints.devices();
    let (name, device) = &devices[0];
    assert_eq!((devices.len(), name.as_str(), device.last_heard_us), (1, "monitor-1", NOW_US));
    assert_eq!(
        (device.status.as_deref(), device.meta.as_deref()),
        (Some("online"), Some(r#"{"model":"M1"}"#))
    );
}

#[test]
fn each_recipient_opens_what_it_was_granted_and_nothing_else() {
    let home = Home::new(large());
    let (clinic, coach, none) = (Hospital::new(1), Hospital::new(2), Hospital::new(3));
    let now_s = u64::try_from(NOW_US / 1_000_000).unwrap();
    let grants = [
        clinic.grant(&[DataClass::Vitals, DataClass::Alarm, DataClass::Waveform], 0, u64::MAX),
        coach.grant(&[DataClass::Activity], 0, now_s + 60),
        none.grant(&DataClass::ALL, now_s + 1, u64::MAX),
    ];
    let policy = policy(&[&clinic, &coach, &none], &grants, &[]);
    let mut gateway = home.start();
    let batch = |n: u64| {
        let walk = format!(r#"{{"seq":{n}}}"#);
        [
            Publish::beat(n),
            Publish::new("belt-1", "event/fall", &walk),
            Publish::new("belt-1", "event/walk", &walk),
            Publish::new("monitor-1", "num/weight", format!(r#"{{"v":80,"seq":{n}}}"#)),
        ]
    };
    gateway.commit(&batch(0), &policy);
    let classes =
        |opened: Vec<Opened>| -> Vec<DataClass> { opened.into_iter().map(|o| o.header.class).collect() };
    assert_eq!(classes(gateway.opened_by(&clinic)), [DataClass::Alarm, DataClass::Vitals]);
    assert_eq!(classes(gateway.opened_by(&coach)), [DataClass::Activity]);
    assert_eq!(classes(gateway.opened_by(&none)), []);
    // Time passes: one grant begins, another ends.
    gateway.commit_at(&batch(1), &policy, NOW_US + MINUTE_US);
    assert_eq!(classes(gateway.opened_by(&clinic)).len(), 4);
    assert_eq!(classes(gateway.opened_by(&coach)), [DataClass::Activity]);
    assert_eq!(classes(gateway.opened_by(&none)).len(), 4);
    assert_eq!(gateway.opened().len(), 8, "what nobody may open is kept all the same");
}

#[test]
fn one_publish_with_several_classes_is_sealed_apart() {
    let home = Home::new(large());
    let (clinic, dietician) = (Hospital::new(1), Hospital::new(2));
    let grants = [
        clinic.grant(&[DataClass::Vitals], 0, u64::MAX),
        dietician.grant(&[DataClass::Sensitive], 0, u64::MAX),
    ];
    let policy = policy(&[&clinic, &dietician], &grants, &[]);
    let mut gateway = home.start();
    let pack = r#"[{"n":"spo2","v":97,"u":"%","t":1790000000},{"n":"weight","v":81,"u":"kg","t":1790000000},
        {"n":"steps","v":12,"u":"{steps}","t":1790000000}]"#;
    assert_eq!(gateway.put(&Publish::new("belt-1", "num/senml", pack), &policy), Verdict::Stored);
    let classes =
        |opened: Vec<Opened>| -> Vec<DataClass> { opened.into_iter().map(|o| o.header.class).collect() };
    let all = [DataClass::Vitals, DataClass::Sensitive, DataClass::Activity];
    assert_eq!(classes(gateway.opened()), all, "a segment each");
    assert_eq!(classes(gateway.opened_by(&clinic)), [DataClass::Vitals]);
    assert_eq!(classes(gateway.opened_by(&dietician)), [DataClass::Sensitive]);
}

#[test]
fn revocation_in_the_middle_of_an_epoch_closes_it_at_once_also_over_a_restart() {
    let (stays, goes) = (Hospital::new(1), Hospital::new(2));
    let grants = [stays.whole(), goes.whole()];
    let hospitals = [&stays, &goes];
    let both = policy(&hospitals, &grants, &[]);
    let revocation = Revocation { relationship: grants[1].relationship, version: 1 };
    let one = policy(&hospitals, &grants, &[revocation]);
    for restarts in [false, true] {
        let home = Home::new(large());
        let mut gateway = home.start();
        gateway.put(&Publish::beat(0), &both);
        assert_eq!((gateway.opened_by(&stays).len(), gateway.opened_by(&goes).len()), (1, 1));
        if restarts {
            gateway = home.restart(gateway);
        }
        gateway.commit_at(&[Publish::beat(1)], &one, NOW_US + 1);
        gateway.commit_at(&[Publish::beat(2)], &one, NOW_US + MINUTE_US);
        let opened = gateway.opened();
        let places: Vec<_> =
            opened.iter().map(|o| (o.header.generation, o.header.epoch - opened[0].header.epoch)).collect();
        assert_eq!(places, [(0, 0), (1, 0), (1, 1)]);
        assert_whole(&opened);
        assert_eq!((gateway.opened_by(&stays).len(), gateway.opened_by(&goes).len()), (3, 1));
    }
}

#[test]
fn a_recipient_gets_one_wrap_an_epoch_and_one_more_after_a_restart_in_it() {
    let home = Home::new(large());
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let wraps = |gateway: &Gateway| {
        gateway.records().iter().filter(|(_, _, r)| matches!(Record::decode(r), Ok(Record::Wrap(_)))).count()
    };
    let mut gateway = home.start();
    for n in 0..5 {
        gateway.put(&Publish::beat(n), &policy);
    }
    assert_eq!(wraps(&gateway), 1);
    let mut gateway = home.restart(gateway);
    gateway.put(&Publish::beat(5), &policy);
    assert_eq!(wraps(&gateway), 2, "the spool does not say to which of its keys the first was");
    gateway.put(&Publish::beat(6), &policy);
    assert_eq!(wraps(&gateway), 2);
    gateway.commit_at(&[Publish::beat(7)], &policy, NOW_US + MINUTE_US);
    assert_eq!(wraps(&gateway), 3);
    assert_eq!(gateway.opened_by(&hospital).len(), 8);
}

#[test]
fn a_lane_that_comes_back_gets_its_wraps_again_with_the_next_segment() {
    let home = Home::new(large());
    let (hospital, other) = (Hospital::new(1), Hospital::new(2));
    let policy = policy(&[&hospital, &other], &[hospital.whole(), other.whole()], &[]);
    let mut gateway = home.start();
    let epoch = epoch_of(NOW_US);
    gateway.put(&Publish::beat(0), &policy);
    gateway.committer.state.reopen(Lane::Waveform, epoch);
    gateway.put(&Publish::beat(1), &policy);
    gateway.committer.state.reopen(Lane::Vitals, epoch);
    let before = gateway.spooled.len();
    gateway.put(&Publish::beat(2), &policy);
    let kinds = |spooled: &[Spooled]| -> Vec<bool> {
        spooled.iter().map(|s| matches!(Record::decode(&s.record), Ok(Record::Wrap(_)))).collect()
    };
    assert_eq!(kinds(&gateway.spooled[before..]), [true, true, false], "both wraps go before the segment");
    // Once in a minute, however often the lane comes and goes; a restart is as a lane that comes back.
    gateway.committer.state.reopen(Lane::Vitals, epoch);
    gateway.put(&Publish::beat(3), &policy);
    let mut gateway = home.restart(gateway);
    gateway.committer.state.reopen(Lane::Vitals, epoch);
    gateway.put(&Publish::beat(4), &policy);
    assert_eq!(kinds(&gateway.spooled), [true, true, false]);
    let opened = gateway.opened();
    assert_whole(&opened);
    assert_eq!(opened.iter().map(|o| o.header.generation).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
    assert_eq!((gateway.opened_by(&hospital).len(), gateway.opened_by(&other).len()), (5, 5));
}

#[test]
fn a_clock_that_goes_back_begins_another_generation_and_takes_no_sequence_with_it() {
    let home = Home::new(large());
    let hospital = Hospital::new(1);
    let policy = policy(&[&hospital], &[hospital.whole()], &[]);
    let mut gateway = home.start();
    gateway.commit_at(&[Publish::beat(0)], &policy, NOW_US);
    gateway.commit_at(&[Publish::beat(1)], &policy, NOW_US - 60 * MINUTE_US);
    let mut gateway = home.restart(gateway);
    gateway.commit_at(&[Publish::beat(2)], &policy, 0);
    gateway.commit_at(&[Publish::beat(3)], &policy, -1);
    gateway.commit_at(&[Publish::beat(4)], &policy, NOW_US + MINUTE_US);
    let opened = gateway.opened();
    assert_whole(&opened);
    let sealed_in: Vec<_> = opened.iter().map(|o| (o.header.generation, o.header.epoch)).collect();
    let first = epoch_of(NOW_US);
    assert_eq!(sealed_in, [(0, first), (1, first - 60), (2, first - 60), (2, first - 60), (2, first + 1)]);
    assert_eq!(
        opened[1].readings[0].gateway_time_us,
        NOW_US - 60 * MINUTE_US,
        "the reading says what the clock said"
    );
    assert_eq!(gateway.opened_by(&hospital).len(), 5);
}

#[test]
fn a_batch_larger_than_a_spool_file_is_stored_whole() {
    let home = Home::new(small());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    // 100 chunks of 3 kB: five files of 64 KiB, in one group commit.
    let batch: Vec<_> = (0..100).map(|n| Publish::ecg(n, 1500)).collect();
    assert_eq!(gateway.commit(&batch, &policy), [Verdict::Stored; 100]);
    let mut gateway = home.restart(gateway);
    assert_eq!(gateway.seqs(DataClass::Waveform), (0..100).collect::<Vec<_>>());
    assert_whole(&gateway.opened());
}

#[test]
fn what_no_record_can_hold_is_refused_and_the_gateway_goes_on() {
    let home = Home::new(small());
    let policy = policy(&[], &[], &[]);
    let mut gateway = home.start();
    let batch = [Publish::beat(0), Publish::ecg(0, 8000), Publish::beat(1)];
    assert_eq!(gateway.commit(&batch, &policy), [Verdict::Stored, Verdict::Refused, Verdict::Stored]);
    assert_eq!(gateway.refused("oversized"), 1);
    assert_eq!(gateway.seqs(DataClass::Vitals), [0, 1]);
}
