//! Evaluation at every boundary of time and version.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::{DataClass, DeviceId, PatientId, RecipientId};

const PATIENT: PatientId = PatientId([0xe5; 16]);
const CLINIC: RecipientId = RecipientId([0xb2; 20]);
const FROM: u64 = 1_790_000_000;
const UNTIL: u64 = FROM + 7 * 86_400;
const STALENESS_MAX_S: u64 = 600;

fn clinic() -> RecipientEntry {
    RecipientEntry {
        id: CLINIC,
        hpke_public_key: [0xd4; 32],
        status: RecipientStatus::Active,
        kind: RecipientKind::Treating,
        emergency: true,
    }
}

/// With a recipient that is suspended beside the clinic, and one device.
fn authentic(freshness: Freshness, grants: &[Grant], revoked: &[u64]) -> Authentic {
    let suspended =
        RecipientEntry { id: RecipientId([0xb3; 20]), status: RecipientStatus::Suspended, ..clinic() };
    let device = DeviceId::new("monitor-1").expect("a name");
    let revocation = |version: &u64| Revocation { relationship: relationship(1), version: *version };
    Authentic {
        epoch: 7,
        freshness,
        recipients: vec![clinic(), suspended],
        devices: vec![BoundDevice { device, patient: PATIENT, classes: Classes::default(), station: None }],
        grants: grants.iter().map(|grant| (PATIENT, grant.clone())).collect(),
        revocations: revoked.iter().map(revocation).collect(),
        emergencies: Vec::new(),
    }
}

fn relationship(number: u8) -> RelationshipId {
    RelationshipId([number; 32])
}

fn grant(version: u64) -> Grant {
    Grant {
        relationship: relationship(1),
        grantee: CLINIC,
        classes: class_bit(DataClass::Vitals) | class_bit(DataClass::Alarm),
        purposes: Purpose::Treatment.bit(),
        from: FROM,
        until: UNTIL,
        stale_bound_s: 3600,
        version,
    }
}

fn policy_with(freshness: Freshness, grants: &[Grant], revoked: &[u64]) -> VerifiedPolicy {
    VerifiedPolicy::new(authentic(freshness, grants, revoked))
}

fn policy(grants: &[Grant], revoked: &[u64]) -> VerifiedPolicy {
    policy_with(Freshness::Unproven, grants, revoked)
}

fn opens(policy: &VerifiedPolicy, class: DataClass, now_s: u64) -> bool {
    let open: Vec<_> = policy.recipients(&PATIENT, class, now_s).collect();
    assert!(open.len() <= 1, "each recipient once");
    assert!(open.iter().all(|recipient| recipient.id == CLINIC && recipient.hpke_public_key == [0xd4; 32]));
    !open.is_empty()
}

fn opens_now(policy: &VerifiedPolicy) -> bool {
    opens(policy, DataClass::Vitals, FROM)
}

proptest! {
    #[test]
    fn nobody_opens_outside_the_window(now_s in any::<u64>(), from in any::<u64>(), until in any::<u64>()) {
        let policy = policy(&[Grant { from, until, ..grant(1) }], &[]);
        prop_assert_eq!(opens(&policy, DataClass::Vitals, now_s), from <= now_s && now_s < until);
    }

    #[test]
    fn whatever_the_order_the_highest_version_counts(
        versions in prop::collection::vec(0..20_u64, 1..8),
        revoked in prop::option::of(0..20_u64),
    ) {
        let grants: Vec<_> = versions.iter().map(|version| grant(*version)).collect();
        let highest = versions.iter().max().copied();
        let policy = policy(&grants, revoked.as_slice());
        prop_assert_eq!(opens_now(&policy), highest > revoked);
        prop_assert_eq!(policy.standing().map(|(_, grant)| grant.version).max(), highest.filter(|_| highest > revoked));
    }
}

#[test]
fn the_window_includes_from_and_excludes_until() {
    let policy = policy(&[grant(1)], &[]);
    for (now_s, open) in
        [(FROM - 1, false), (FROM, true), (UNTIL - 1, true), (UNTIL, false), (u64::MAX, false)]
    {
        assert_eq!(opens(&policy, DataClass::Vitals, now_s), open, "{now_s}");
    }
}

#[test]
fn masks_are_honoured() {
    let policy = policy(&[grant(1)], &[]);
    let open: Vec<_> = DataClass::ALL.into_iter().filter(|class| opens(&policy, *class, FROM)).collect();
    assert_eq!(open, [DataClass::Alarm, DataClass::Vitals]);
    let research = self::policy(&[Grant { purposes: Purpose::Research.bit(), ..grant(1) }], &[]);
    assert!(!opens_now(&research), "the live path serves treatment only");
    let by = |purpose| research.recipients_for(&PATIENT, DataClass::Vitals, purpose, FROM).count();
    assert_eq!(Purpose::ALL.map(by), [0, 1, 0]);
    assert!(!opens_now(&self::policy(&[Grant { purposes: 1 << 31, ..grant(1) }], &[])), "an unknown bit");
}

#[test]
fn only_the_patients_own_relationship_opens() {
    let policy = policy(&[grant(1)], &[]);
    assert_eq!(policy.recipients(&PatientId([0xe6; 16]), DataClass::Vitals, FROM).count(), 0);
    assert_eq!(policy.patient_of(&DeviceId::new("monitor-1").expect("a name")), Some(PATIENT));
    assert_eq!(policy.patient_of(&DeviceId::new("monitor-2").expect("a name")), None);
}

#[test]
fn suspended_and_unknown_recipients_get_nothing() {
    for grantee in [RecipientId([0xb3; 20]), RecipientId([0xb4; 20])] {
        let policy = policy(&[Grant { grantee, ..grant(1) }], &[]);
        assert!(!opens_now(&policy));
        assert_eq!(policy.standing().count(), 1, "it stands, but opens nothing");
    }
}

#[test]
fn a_useless_later_grant_still_supersedes() {
    let closed = Grant { until: FROM, ..grant(2) };
    assert!(!opens_now(&policy(&[grant(1), closed], &[])));
}

#[test]
fn two_grants_with_one_version_cancel_each_other() {
    let other = Grant { classes: u32::MAX, ..grant(2) };
    assert!(!opens_now(&policy(&[grant(2), other.clone(), grant(1)], &[])));
    assert!(opens_now(&policy(&[grant(2), grant(2)], &[])), "the same grant twice is one grant");
    assert!(opens_now(&policy(&[grant(2), other, grant(3)], &[])), "a later one settles it");
}

#[test]
fn two_relationships_with_one_recipient_give_it_once() {
    let second = Grant { relationship: relationship(2), classes: u32::MAX, ..grant(1) };
    let policy = policy(&[grant(1), second], &[1]);
    assert!(opens_now(&policy), "the second relationship isn't revoked");
    let both = self::policy(&[grant(1), Grant { relationship: relationship(2), ..grant(1) }], &[]);
    assert_eq!(both.standing().count(), 2);
    assert!(opens_now(&both));
}

#[test]
fn a_stale_policy_falls_back_on_signed_bounds() {
    let proven = Freshness::Proven { as_of: FROM + 1000, staleness_max_s: STALENESS_MAX_S };
    let as_of = FROM + 1000;
    let at = |policy: &VerifiedPolicy, now_s| opens(policy, DataClass::Vitals, now_s);

    let treating = policy_with(proven, &[grant(1)], &[]);
    assert!(at(&treating, as_of + 3600) && !at(&treating, as_of + 3601));
    assert!(!treating.is_stale(as_of + STALENESS_MAX_S) && treating.is_stale(as_of + STALENESS_MAX_S + 1));

    let short = policy_with(proven, &[Grant { stale_bound_s: 0, ..grant(1) }], &[]);
    assert!(at(&short, as_of + STALENESS_MAX_S) && !at(&short, as_of + STALENESS_MAX_S + 1));

    let long = policy_with(proven, &[Grant { stale_bound_s: u32::MAX, ..grant(1) }], &[]);
    let day = as_of + STALE_BOUND_TREATING_MAX_S;
    assert!(at(&long, day) && !at(&long, day + 1), "a day at most, whatever was signed");

    let starts = |from| policy_with(proven, &[Grant { from, ..grant(1) }], &[]);
    assert!(at(&starts(as_of + STALENESS_MAX_S), as_of + 700));
    assert!(!at(&starts(as_of + STALENESS_MAX_S + 1), as_of + 700), "nobody new comes in");

    let mut other = authentic(proven, &[grant(1)], &[]);
    other.recipients[0].kind = RecipientKind::Other;
    let other = VerifiedPolicy::new(other);
    assert!(at(&other, as_of + STALENESS_MAX_S) && !at(&other, as_of + STALENESS_MAX_S + 1));

    let unproven = policy(&[grant(1)], &[]);
    assert!(at(&unproven, UNTIL - 1) && !unproven.is_stale(u64::MAX));
}

#[test]
fn a_clock_that_is_behind_the_proof_is_not_believed() {
    let proven = Freshness::Proven { as_of: UNTIL, staleness_max_s: STALENESS_MAX_S };
    let ended = policy_with(proven, &[grant(1)], &[]);
    assert!(!opens_now(&ended), "the header proves that the grant's end has passed");
    let open = policy_with(Freshness::Proven { as_of: UNTIL - 1, staleness_max_s: 600 }, &[grant(1)], &[]);
    assert!(opens(&open, DataClass::Vitals, UNTIL - 1 - CLOCK_BEHIND_MAX_S));
}

const PRESENT: u64 = FROM + 1000;

fn with_emergency(from: u64, until: u64, status: RecipientStatus, grants: &[Grant]) -> VerifiedPolicy {
    let emergency = Emergency {
        pseudonym: Pseudonym([0xe1; 32]),
        domain: CLINIC,
        clinician: Commitment([1; 32]),
        reason: Commitment([2; 32]),
        from,
        until,
        number: 1,
    };
    let proven = Freshness::Proven { as_of: PRESENT, staleness_max_s: STALENESS_MAX_S };
    let mut found = authentic(proven, grants, &[]);
    found.recipients[0].status = status;
    found.emergencies = vec![EmergencyAccess { patient: PATIENT, emergency, is_direct: false }];
    VerifiedPolicy::new(found)
}

#[test]
fn an_emergency_opens_every_class_of_its_patient_within_its_window() {
    let policy = with_emergency(PRESENT, PRESENT + 60, RecipientStatus::Active, &[]);
    for (now_s, open) in [(PRESENT, true), (PRESENT + 59, true), (PRESENT + 60, false), (u64::MAX, false)] {
        assert!(DataClass::ALL.iter().all(|class| opens(&policy, *class, now_s) == open), "{now_s}");
    }
    assert_eq!(policy.recipients(&PatientId([0xe6; 16]), DataClass::Vitals, PRESENT).count(), 0);
    for purpose in [Purpose::Research, Purpose::PatientRequest] {
        assert_eq!(policy.recipients_for(&PATIENT, DataClass::Vitals, purpose, PRESENT).count(), 0);
    }
    let suspended = with_emergency(PRESENT, PRESENT + 60, RecipientStatus::Suspended, &[]);
    assert!(!opens(&suspended, DataClass::Vitals, PRESENT));
    // `opens` checks that a recipient comes once, whatever its access rests on.
    let both = with_emergency(PRESENT, PRESENT + 60, RecipientStatus::Active, &[grant(1)]);
    assert!(opens(&both, DataClass::Vitals, PRESENT) && opens(&both, DataClass::Vitals, PRESENT + 60));
}

#[test]
fn an_emergency_outlives_a_fresh_policy_and_none_begins_in_a_stale_one() {
    let stale_from = PRESENT + STALENESS_MAX_S;
    let open = with_emergency(stale_from, stale_from + 100, RecipientStatus::Active, &[]);
    assert!(
        opens(&open, DataClass::Alarm, stale_from + 99) && !opens(&open, DataClass::Alarm, stale_from + 100)
    );
    let late = with_emergency(stale_from + 1, stale_from + 100, RecipientStatus::Active, &[]);
    assert!(!opens(&late, DataClass::Alarm, stale_from + 1));
}

#[test]
fn a_floor_that_rises_ends_what_stands() {
    let (policy, mut floors) = policy(&[grant(2)], &[]).admit(&Floors::default()).expect("the first one");
    assert!(opens_now(&policy));
    floors.relationships.entry(relationship(1)).or_default().revoked = Some(2);
    assert!(!opens_now(&policy.under(&floors)));
    floors.relationships.entry(relationship(1)).or_default().revoked = Some(1);
    assert!(opens_now(&policy.under(&floors)), "version 2 is above it");
}

#[test]
fn an_old_policy_brings_nobody_back() {
    let (first, floors) = policy(&[grant(2)], &[]).admit(&Floors::default()).expect("the first one");
    assert!(opens_now(&first));
    let (revoked, floors) = policy(&[grant(2)], &[2]).admit(&floors).expect("the same epoch again");
    assert!(!opens_now(&revoked));
    assert_eq!(
        floors.relationships,
        BTreeMap::from([(relationship(1), Floor { granted: 2, revoked: Some(2) })])
    );

    let (replayed, _) = policy(&[grant(2)], &[]).admit(&floors).expect("not older by its epoch");
    assert!(!opens_now(&replayed), "a revocation that is left out still holds");
    let (renewed, floors) = policy(&[grant(3)], &[]).admit(&floors).expect("a new grant");
    assert!(opens_now(&renewed));
    let (downgraded, after) = policy(&[grant(1)], &[]).admit(&floors).expect("not older by its epoch");
    assert!(!opens_now(&downgraded), "a version below one seen");
    assert_eq!(after, floors, "floors never fall");

    let before_headers: Floors =
        serde_json::from_str(r#"{"epoch":3,"relationships":{}}"#).expect("as kept once");
    assert_eq!(before_headers, Floors { epoch: 3, ..Floors::default() });
    let json = serde_json::to_vec(&floors).expect("floors are kept as JSON");
    assert_eq!(serde_json::from_slice::<Floors>(&json).expect("and read again"), floors);
}

#[test]
fn the_epoch_never_goes_back() {
    let floors = Floors { epoch: 8, ..Floors::default() };
    let refused = policy(&[grant(1)], &[]).admit(&floors).expect_err("epoch 7 after 8");
    assert_eq!(refused, AdmissionError::EpochWentBack { epoch: 7, floor: 8 });
    let floors = Floors { epoch: 7, ..Floors::default() };
    assert!(policy(&[grant(1)], &[]).admit(&floors).is_ok());
}

#[test]
fn floors_are_bounded() {
    let relationships = (0..FLOORS_MAX)
        .map(|number| {
            let mut id = [0xff; 32];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            (RelationshipId(id), Floor::default())
        })
        .collect();
    let refused = policy(&[grant(1)], &[])
        .admit(&Floors { relationships, ..Floors::default() })
        .expect_err("one too many");
    assert_eq!(refused, AdmissionError::TooManyFloors { len: FLOORS_MAX + 1 });
}

#[test]
fn a_clock_that_was_set_back_leaves_no_time_and_opens_nothing() {
    let proven = Freshness::Proven { as_of: PRESENT, staleness_max_s: STALENESS_MAX_S };
    let policy = policy_with(proven, &[grant(1)], &[]);
    let opens = |policy: &VerifiedPolicy, now_s| opens(policy, DataClass::Vitals, now_s);
    // As far as clocks differ, the header's time counts.
    for behind_s in [0, 1, CLOCK_BEHIND_MAX_S] {
        assert!(opens(&policy, PRESENT - behind_s) && !policy.is_stale(PRESENT - behind_s));
        assert_eq!(policy.time(PRESENT - behind_s), Some(PRESENT));
    }
    for now_s in [PRESENT - CLOCK_BEHIND_MAX_S - 1, FROM, 0] {
        assert!(!opens(&policy, now_s) && policy.is_stale(now_s));
        assert_eq!(policy.time(now_s), None);
    }
    let emergency = with_emergency(PRESENT - 1000, PRESENT + 60, RecipientStatus::Active, &[]);
    assert!(opens(&emergency, PRESENT) && !opens(&emergency, PRESENT - CLOCK_BEHIND_MAX_S - 1));
}

#[test]
fn what_is_known_of_a_clock_corrects_it() {
    let proven = Freshness::Proven { as_of: PRESENT, staleness_max_s: STALENESS_MAX_S };
    let policy = policy_with(proven, &[grant(1)], &[]);
    let behind = policy.clone().with_clock(ClockOffset::Known { behind_s: 1_000_000, doubt_s: 0 });
    let clock = PRESENT - 1_000_000;
    assert_eq!((behind.time(clock), behind.age_s(clock + 7)), (Some(PRESENT), Some(7)));
    assert!(!behind.is_stale(clock + STALENESS_MAX_S) && behind.is_stale(clock + STALENESS_MAX_S + 1));
    // And is held against it as before.
    assert_eq!(behind.time(clock - CLOCK_BEHIND_MAX_S - 1), None);
    let unknown = policy.with_clock(ClockOffset::Unknown);
    assert_eq!((unknown.time(PRESENT), unknown.age_s(PRESENT)), (None, None));
    assert!(unknown.is_stale(PRESENT) && !opens(&unknown, DataClass::Vitals, PRESENT));
}

#[test]
fn what_may_have_passed_makes_a_policy_older_and_ends_what_ends_only_once_it_is_long() {
    const DOUBT_S: u64 = 100;
    let proven = |as_of| Freshness::Proven { as_of, staleness_max_s: STALENESS_MAX_S };
    let doubtful =
        |policy: VerifiedPolicy, doubt_s| policy.with_clock(ClockOffset::Known { behind_s: 0, doubt_s });
    let policy = doubtful(policy_with(proven(PRESENT), &[grant(1)], &[]), DOUBT_S);
    assert!(!policy.is_stale(PRESENT + STALENESS_MAX_S - DOUBT_S));
    assert!(policy.is_stale(PRESENT + STALENESS_MAX_S - DOUBT_S + 1));
    assert_eq!(policy.age_s(PRESENT), Some(DOUBT_S));
    let opens = |as_of, now_s, doubt_s| {
        let policy = doubtful(policy_with(proven(as_of), &[grant(1)], &[]), doubt_s);
        opens(&policy, DataClass::Vitals, now_s)
    };
    assert!(!opens(FROM - 1, FROM - 1, DOUBT_S) && opens(FROM, FROM, DOUBT_S));
    assert!(opens(UNTIL - 300, UNTIL - 1, DOUBT_S) && !opens(UNTIL - 300, UNTIL, DOUBT_S));
    // Of a gateway that is killed again and again.
    let long_s = STALENESS_MAX_S + DOUBT_S;
    assert!(opens(UNTIL - 300, UNTIL - 1 - DOUBT_S, long_s) && !opens(UNTIL - 300, UNTIL - DOUBT_S, long_s));
    let until = PRESENT + 1000;
    let holds = |now_s, doubt_s| {
        let emergency = with_emergency(PRESENT, until, RecipientStatus::Active, &[]);
        let emergency = doubtful(emergency, doubt_s);
        emergency.emergency_holds(&emergency.emergencies()[0], now_s)
    };
    assert!(holds(PRESENT, DOUBT_S) && holds(until - 1, DOUBT_S) && !holds(until, DOUBT_S));
    assert!(holds(until - 1 - DOUBT_S, long_s) && !holds(until - DOUBT_S, long_s));
}

#[test]
fn what_was_handed_over_opens_under_a_stale_policy_and_the_higher_number_counts() {
    let later = PRESENT + 10 * 86_400;
    let begun = with_emergency(later, later + 60, RecipientStatus::Active, &[]);
    assert!(!opens(&begun, DataClass::Vitals, later), "the ledger can't have shown it in time");
    let mut access = begun.emergencies()[0].clone();
    access.emergency.number = 2;
    let direct = begun.clone().with_direct([access.clone()]);
    assert!(opens(&direct, DataClass::Vitals, later) && !opens(&direct, DataClass::Vitals, later + 60));
    // The ledger shows a later one, and this one is nothing any more.
    let mut shown = begun.emergencies()[0].clone();
    shown.emergency.number = 3;
    let mut found = authentic(begun.freshness(), &[], &[]);
    found.emergencies = vec![shown];
    let newer = VerifiedPolicy::new(found.clone()).with_direct([access.clone()]);
    assert_eq!(newer.emergencies(), VerifiedPolicy::new(found.clone()).emergencies());
    // Who may no more, may no more by this either.
    found.emergencies.clear();
    found.recipients[0].emergency = false;
    assert!(!opens(&VerifiedPolicy::new(found).with_direct([access]), DataClass::Vitals, later));
}
