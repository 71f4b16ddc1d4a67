//! That the model does lose what a disk may lose, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Disk, Image, Random, Syncs};

const FILE: &str = "file";

/// All that is found after a cut at step `cut_at`, over many choices.
fn found(syncs: Syncs, cut_at: u64, work: impl Fn(&mut Disk)) -> BTreeSet<BTreeMap<String, Vec<u8>>> {
    let cut = |seed| {
        let files = BTreeMap::from([(FILE.to_owned(), b"old".to_vec())]);
        let mut disk = Disk::new(&files, syncs, cut_at, Random::new(seed));
        work(&mut disk);
        disk.cut_now().files
    };
    (0..500).map(cut).collect()
}

fn contents(found: &BTreeSet<BTreeMap<String, Vec<u8>>>) -> BTreeSet<Option<Vec<u8>>> {
    found.iter().map(|files| files.get(FILE).cloned()).collect()
}

fn some(all: &[&[u8]]) -> BTreeSet<Option<Vec<u8>>> {
    all.iter().map(|bytes| Some(bytes.to_vec())).collect()
}

#[test]
fn what_is_synced_stays_and_what_is_not_may_go() {
    let work = |disk: &mut Disk| {
        disk.write(FILE, 0, b"new");
        disk.sync(FILE);
        disk.write(FILE, 0, b"odd");
    };
    assert_eq!(contents(&found(Syncs::Real, 0, work)), some(&[b"old"]));
    assert_eq!(contents(&found(Syncs::Real, 1, work)), some(&[b"old", b"new"]));
    assert_eq!(contents(&found(Syncs::Real, 2, work)), some(&[b"new"]));
    assert_eq!(contents(&found(Syncs::Real, 3, work)), some(&[b"new", b"odd"]));
    assert_eq!(contents(&found(Syncs::TakenOut, 3, work)), some(&[b"old", b"new", b"odd"]));
}

#[test]
fn sectors_of_one_write_come_in_any_order_and_lengths_too() {
    let long = vec![1; 1024];
    let found = contents(&found(Syncs::Real, 1, |disk| disk.write(FILE, 0, &long)));
    let torn = |first: &[u8], then: u8| Some([first, &vec![then; 1024 - first.len()]].concat());
    let first = [b"old".as_slice(), &[0; 509]].concat();
    assert!(found.contains(&torn(&first, 1)), "the second sector without the first");
    assert!(found.contains(&torn(&[1; 512], 0)), "the first without the second");
    assert!(found.contains(&Some(vec![1; 3])) && found.contains(&Some(b"old".to_vec())), "not lengthened");
}

#[test]
fn a_failed_sync_makes_the_next_one_lie() {
    let work = |disk: &mut Disk| {
        disk.write(FILE, 0, b"new");
        disk.fail_sync(FILE);
        disk.sync(FILE);
    };
    assert_eq!(contents(&found(Syncs::Real, 3, work)), some(&[b"old", b"new"]));
    let again = |disk: &mut Disk| {
        work(disk);
        disk.write(FILE, 1, b"xt");
        disk.sync(FILE);
    };
    assert_eq!(contents(&found(Syncs::Real, 9, again)), some(&[b"nxt"]), "the page was written again");
}

#[test]
fn names_wait_for_the_directory() {
    let work = |disk: &mut Disk| {
        disk.create("tmp");
        disk.write("tmp", 0, b"new");
        disk.sync("tmp");
        disk.rename("tmp", FILE);
        disk.sync_names();
        disk.remove(FILE);
    };
    assert_eq!(contents(&found(Syncs::Real, 4, work)), some(&[b"old", b"new"]), "one or the other, whole");
    assert_eq!(contents(&found(Syncs::Real, 5, work)), some(&[b"new"]));
    let removed = contents(&found(Syncs::Real, 6, work));
    assert!(removed.contains(&None) && removed.contains(&Some(b"new".to_vec())));
}

#[test]
fn cut_short_and_lengthened_again_a_file_has_zeroes() {
    let work = |disk: &mut Disk| {
        disk.set_len(FILE, 1);
        disk.allocate(FILE, 3);
        disk.sync(FILE);
    };
    assert_eq!(contents(&found(Syncs::Real, 3, work)), some(&[b"o\0\0"]));
    let mut disk = Disk::new(&BTreeMap::new(), Syncs::Real, u64::MAX, Random::new(1));
    disk.create(FILE);
    assert!(disk.is_empty(FILE));
    disk.write(FILE, 4095, b"ab");
    let mut bytes = [9; 4];
    disk.read(FILE, 4094, &mut bytes);
    assert_eq!((disk.len(FILE), bytes, disk.steps()), (4097, [0, b'a', b'b', 0], 2));
}

#[test]
fn an_image_becomes_files() {
    let dir = std::env::temp_dir().join(format!("caregate-crash-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    Image { files: BTreeMap::from([("a".to_owned(), b"b".to_vec())]) }.write_to(&dir).unwrap();
    assert_eq!(std::fs::read(dir.join("a")).unwrap(), b"b");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_folders_sync_is_of_its_own_names_alone() {
    let left = |seed| {
        let mut disk = Disk::new(&BTreeMap::new(), Syncs::Real, u64::MAX, Random::new(seed));
        disk.create("a/one");
        disk.create("two");
        disk.sync_names_in("a");
        disk.create("b/three");
        disk.rename("a/one", "a/four");
        disk.sync_names();
        disk.cut_now().files.into_keys().collect::<Vec<_>>()
    };
    let found: BTreeSet<Vec<String>> = (0..100).map(left).collect();
    let expected = [
        ["a/four", "b/three", "two"].as_slice(),
        &["a/four", "two"],
        &["a/one", "b/three", "two"],
        &["a/one", "two"],
    ];
    assert_eq!(
        found,
        expected.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect()
    );
}
