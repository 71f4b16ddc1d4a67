//! Where the daemons may be told to die: each point with how many passes may go by first. A test holds the lists against the sources.

/// A point's name, and the most passes before the process dies there; 1 for what a short life meets once.
pub(crate) type Point = (&'static str, u64);

pub(crate) const GATEWAY: [Point; 33] = [
    ("commit.gathered", 40),
    ("commit.sorted", 40),
    ("commit.sealed", 60),
    ("commit.record-appended", 60),
    ("commit.wrap-appended", 2),
    ("commit.appended", 40),
    ("spool.written", 40),
    ("spool.synced", 40),
    ("commit.synced", 40),
    ("commit.answered-one", 80),
    ("commit.answered", 40),
    ("commit.rotating", 2),
    ("spool.made", 1),
    ("spool.allocating", 2),
    ("spool.head-written", 1),
    ("spool.head-synced", 1),
    ("spool.renamed", 1),
    ("spool.names-synced", 2),
    ("spool.hint-written", 1),
    ("spool.room-given-back", 1),
    ("commit.rotated", 2),
    ("spool.spare-kept", 1),
    ("spool.spare-taken", 1),
    ("spool.spare-written", 1),
    ("spool.spare-made", 1),
    ("spool.removed", 1),
    ("recover.opened", 1),
    ("recover.replayed", 1),
    ("uplink.welcomed", 5),
    ("uplink.early-sent", 60),
    ("uplink.record-read", 60),
    ("uplink.record-sent", 60),
    ("uplink.ack-read", 40),
];

pub(crate) const CORE: [Point; 29] = [
    ("store.opened", 1),
    ("store.tables-made", 1),
    ("store.prepared", 1),
    ("store.name-synced", 1),
    ("session.welcomed", 5),
    ("session.lane-opened", 5),
    ("session.early-read", 60),
    ("session.record-read", 60),
    ("session.record-checked", 60),
    ("session.record-handed-over", 60),
    ("writer.gathered", 30),
    ("store.begun", 30),
    ("store.record-put", 60),
    ("store.segment-named", 60),
    ("store.epoch-noted", 60),
    ("store.segment-queued", 60),
    ("store.wrap-queued", 1),
    ("store.wrap-put", 1),
    ("store.batch-put", 30),
    ("file.lengthened", 1),
    ("file.written", 90),
    ("file.syncing", 30),
    ("file.synced", 30),
    ("store.committed", 30),
    ("writer.stored", 30),
    ("writer.answered-one", 60),
    ("writer.answered", 30),
    ("session.answering", 30),
    ("session.answered", 30),
];

/// Passed right beside one of the above on the same thread, or only so seldom that no short life meets them.
pub(crate) const NOT_KILLED: [&str; 1] = ["uplink.ack-handed-over"];

/// All names in the sources of a crate, as `kill_point::pass("…")` and the spool's `step!(…, "…", …)` have them.
fn in_sources(folder: &std::path::Path, names: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_sources(&path, names);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (before, prefix) in
            [("kill_point::pass(\"", ""), ("step!(self, \"", "spool."), ("step!(disk, \"", "spool.")]
        {
            let named = text.split(before).skip(1).filter_map(|rest| rest.split_once('"'));
            names.extend(named.map(|(name, _)| format!("{prefix}{name}")));
        }
    }
}

#[test]
fn every_point_of_the_sources_is_killed_at() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = std::collections::BTreeSet::new();
    in_sources(&root.join("edge-gateway/src"), &mut names);
    in_sources(&root.join("core-cloud/src"), &mut names);
    let listed = GATEWAY.iter().chain(&CORE).map(|(name, _)| *name).chain(NOT_KILLED);
    assert_eq!(names.into_iter().collect::<Vec<_>>(), {
        let mut listed: Vec<_> = listed.map(str::to_owned).collect();
        listed.sort();
        listed
    });
}
