//! A grant of the past whose giving a power cut interrupts, at each step that the disk sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use caregate_crash::{Disk, Image, Random, Syncs};
use caregate_protocol::id::DataClass;
use caregate_protocol::policy::VerifiedPolicy;

use super::power::Life;
use super::support::{Hospital, MINUTE_US, NOW_US, Publish, policy};
use crate::faults::Faults;
use crate::ingest::Verdict;

/// Steps of a start and a giving at most.
const STEPS_MAX: u64 = 400;

fn on(disk: &Image, cut_at: u64) -> Arc<Faults> {
    let faults = Arc::new(Faults::default());
    let model = Disk::new(&disk.files, Syncs::Real, cut_at, Random::new(cut_at));
    *faults.model.lock().unwrap() = Some(model);
    faults
}

fn left(faults: &Faults) -> Image {
    faults.model.lock().unwrap().as_mut().unwrap().cut_now()
}

/// Gives all that is due. How many wraps it took, or none where the disk ended it.
fn give(life: &mut Life, policy: &VerifiedPolicy, now_us: i64) -> Option<usize> {
    let mut wraps = 0;
    loop {
        match life.gateway.committer.give_past(policy, now_us).ok()?.len() {
            0 => return Some(wraps),
            more => wraps += more,
        }
    }
}

#[test]
fn a_power_cut_at_any_step_of_the_giving_costs_none_of_a_past() {
    let (city, clinic) = (Hospital::new(1), Hospital::new(2));
    let second = |us: i64| u64::try_from(us / 1_000_000).unwrap();
    let of_clinic = clinic.grant(&[DataClass::Vitals], second(NOW_US), u64::MAX);
    let before = policy(&[&city], &[city.whole()], &[]);
    let granted = policy(&[&city, &clinic], &[city.whole(), of_clinic], &[]);
    let nothing = Image { files: BTreeMap::new() };
    let faults = on(&nothing, u64::MAX);
    let mut life = Life::open(&nothing, Arc::clone(&faults)).unwrap();
    for n in 1..10 {
        let at = NOW_US + i64::try_from(n).unwrap() * MINUTE_US;
        assert_eq!(life.gateway.commit_at(&[Publish::beat(n)], &before, at), [Verdict::Stored]);
    }
    drop(life);
    let sealed = left(&faults);
    let now_us = NOW_US + 9 * MINUTE_US + 1;

    let mut twice = 0;
    for cut_at in 0..STEPS_MAX {
        let faults = on(&sealed, cut_at);
        if let Ok(mut life) = Life::open(&sealed, Arc::clone(&faults)) {
            let _ended = give(&mut life, &granted, now_us);
        }
        let is_whole = faults.has_power();
        let cut = left(&faults);
        let faults = on(&cut, u64::MAX);
        let mut life = Life::open(&cut, Arc::clone(&faults)).unwrap();
        let wraps = give(&mut life, &granted, now_us).unwrap();
        assert_eq!(life.gateway.opened_with(&clinic), (1..10).collect::<Vec<_>>(), "cut at step {cut_at}");
        twice += u64::from(wraps > 0);
        if is_whole {
            assert_eq!(wraps, 0, "what is written down is not given again");
            assert!((1..cut_at).contains(&twice), "the cuts met no giving: {twice} of {cut_at}");
            return;
        }
    }
    panic!("a giving takes more than {STEPS_MAX} steps");
}
