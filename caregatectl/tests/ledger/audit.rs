//! Audit logs as daemons write them, anchored on the real node, and what is done to them.

use std::path::Path;
use std::process::Command;

use caregate_host::journal::Journal;
use caregate_protocol::audit::{
    AccessBasis, Delivered, Ending, Entry, Head, Line, Part, Run, What, WrapRun, leaf_hash, verify,
};
use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::policy::Pseudonym;
use serde_json::{Value, json};

use crate::support::{Called, Node, call};

const PATIENT: PatientId = PatientId([1; 16]);
const HOSPITAL: RecipientId = RecipientId([5; 20]);
/// 2026-09-21T14:13:20Z.
const T0_MS: i64 = 1_790_000_000_000;

fn login(n: i64) -> What {
    What::Login { user: format!("nurse-{n}") }
}

fn write(path: &str, whats: impl IntoIterator<Item = What>) {
    let journal = Journal::open(Path::new(path)).unwrap().0;
    let entry = |(n, what): (i64, What)| Entry { at_ms: T0_MS + n * 1_000, what };
    journal.append(&(0..).zip(whats).map(entry).collect::<Vec<_>>()).unwrap();
}

fn lines(path: &str) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| format!("{line}\n")).collect()
}

/// What is wrong, and with which entry.
fn faulty(called: &Called) -> (String, u64) {
    assert_eq!(called.status, 4, "{called:?}");
    let json = called.json();
    (json["fault"].as_str().unwrap().to_owned(), json["entry"].as_u64().unwrap())
}

struct Anchored<'n> {
    node: &'n Node,
    log: String,
    key: String,
    address: String,
    anchors: String,
}

impl<'n> Anchored<'n> {
    /// A log of eleven entries, of which five and four are anchored.
    fn new(node: &'n Node) -> Self {
        let (log, key) = (node.path("journal.jsonl"), node.path("log.key"));
        let made = call(&["participant", "new", "--out", &key]).done();
        let address = made["address"].as_str().unwrap().to_owned();
        let site = Self { node, log, key, address, anchors: node.path("anchors.json") };
        write(&site.log, (1..=5).map(login));
        let first = site.anchor().done();
        assert_eq!((&first["first"], &first["last"]), (&1.into(), &5.into()));
        assert_eq!(site.anchor().done()["new"], 0);
        write(&site.log, (6..=9).map(login));
        let second = site.anchor().done();
        assert_eq!((&second["first"], &second["last"]), (&6.into(), &9.into()));
        write(&site.log, (10..=11).map(login));
        let out = ["--log-key", &site.address, "--out", &site.anchors];
        assert_eq!(node.ledger("audit anchors", &out).done()["anchored"], 9);
        site
    }

    fn anchor(&self) -> Called {
        self.node.ledger("audit anchor", &["--log", &self.log, "--key", &self.key])
    }

    fn verify(&self, log: &str) -> Called {
        call(&["audit", "verify", "--log", log, "--anchors", &self.anchors, "--log-key", &self.address])
    }

    /// Of a log with these lines.
    fn verify_lines(&self, lines: &[String]) -> Called {
        let path = self.node.path("changed.jsonl");
        std::fs::write(&path, lines.concat()).unwrap();
        self.verify(&path)
    }

    /// With anchors that were changed.
    fn verify_anchors(&self, change: impl FnOnce(&mut Value)) -> Called {
        let mut anchors: Value =
            serde_json::from_str(&std::fs::read_to_string(&self.anchors).unwrap()).unwrap();
        change(&mut anchors);
        let path = self.node.path("changed.json");
        std::fs::write(&path, anchors.to_string()).unwrap();
        call(&["audit", "verify", "--log", &self.log, "--anchors", &path, "--log-key", &self.address])
    }
}

/// An entry is changed and everything behind it written anew.
fn rewritten(lines: &[String], at: usize) -> Vec<String> {
    let mut head = Head::default();
    let mut written = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let mut entry = Line::decode(line.trim_end().as_bytes()).unwrap().entry;
        if n == at {
            entry.what = What::Login { user: "nobody".into() };
        }
        let mut text = Vec::new();
        head.append(&entry, &mut text).unwrap();
        written.push(String::from_utf8(text).unwrap());
    }
    written
}

#[test]
fn a_log_is_anchored_and_what_is_done_to_it_is_named() {
    let node = Node::start();
    let site = Anchored::new(&node);
    let whole = site.verify(&site.log).done();
    let figures =
        ["entries", "anchored", "not_anchored", "anchors"].map(|name| whole[name].as_u64().unwrap());
    assert_eq!(figures, [11, 9, 2, 2]);

    let good = lines(&site.log);
    let mut altered = good.clone();
    altered[2] = altered[2].replace("nurse", "nobody");
    assert_eq!(faulty(&site.verify_lines(&altered)), ("altered".into(), 3));
    let mut dropped = good.clone();
    dropped.remove(6);
    assert_eq!(faulty(&site.verify_lines(&dropped)), ("missing".into(), 7));
    let mut reordered = good.clone();
    reordered.swap(3, 4);
    assert_eq!(faulty(&site.verify_lines(&reordered)), ("reordered".into(), 4));
    assert_eq!(faulty(&site.verify_lines(&good[..7])), ("cut_off".into(), 8));
    assert_eq!(faulty(&site.verify_lines(&rewritten(&good, 7))), ("root".into(), 6));
    let mut rubbish = good.clone();
    rubbish[4] = "{\"n\":5}\n".into();
    assert_eq!(faulty(&site.verify_lines(&rubbish)), ("malformed".into(), 5));
    assert_eq!(site.verify_lines(&good[..9]).done()["not_anchored"], 0);

    // A gateway's older files are gone: what is here is held against its anchors, and anchoring goes on.
    let newer = node.path("newer.jsonl");
    std::fs::write(&newer, good[3..].concat()).unwrap();
    assert_eq!(faulty(&site.verify(&newer)), ("missing".into(), 1));
    let part = ["--anchors", &site.anchors, "--log-key", &site.address, "--part"];
    let part = |log: &str| call(&[&["audit", "verify", "--log", log][..], &part].concat());
    let done = part(&newer).done();
    assert_eq!((&done["first"], &done["entries"], &done["anchored"]), (&4.into(), &11.into(), &9.into()));
    std::fs::write(&newer, good[9..].concat()).unwrap();
    let done = part(&newer).done();
    let figures = ["first", "anchored", "not_anchored"].map(|name| done[name].as_u64().unwrap());
    assert_eq!((figures, &done["on_ledger_at"]), ([10, 0, 2], &Value::Null));
    std::fs::write(&newer, rewritten(&good, 7)[3..].concat()).unwrap();
    assert_eq!(faulty(&part(&newer)), ("root".into(), 6));
    std::fs::write(&newer, good[10..].concat()).unwrap();
    assert_eq!(faulty(&part(&newer)), ("missing".into(), 10));
    std::fs::write(&newer, good[8..].concat()).unwrap();
    let key = ["--log", &newer, "--key", &site.key];
    let third = node.ledger("audit anchor", &key).done();
    assert_eq!((&third["first"], &third["last"]), (&10.into(), &11.into()));

    let forged = |anchors: &mut Value| anchors["anchors"][1]["root"] = "ab".repeat(32).into();
    assert_eq!(faulty(&site.verify_anchors(forged)), ("anchor_forged".into(), 6));
    let gap = |anchors: &mut Value| drop(anchors["anchors"].as_array_mut().unwrap().remove(0));
    assert_eq!(faulty(&site.verify_anchors(gap)), ("anchor_gap".into(), 1));
    let elsewhere = |anchors: &mut Value| anchors["chain_id"] = 1.into();
    assert_eq!(faulty(&site.verify_anchors(elsewhere)), ("anchor_forged".into(), 1));
    let other = |anchors: &mut Value| anchors["log"] = format!("0x{}", "07".repeat(20)).into();
    assert_eq!(site.verify_anchors(other).json()["fault"], "another_log");

    with_the_ledger_pinned(&node, &site);
    forged_under_another_key(&node, &site);

    // The ledger has no gap either: a log that lost its end is not anchored on, and another key's is another log.
    std::fs::write(&site.log, good[..4].concat()).unwrap();
    assert_eq!(faulty(&site.anchor()), ("cut_off".into(), 5));
    std::fs::write(&site.log, rewritten(&good, 0).concat()).unwrap();
    site.anchor().done();
    let late = node.path("late.json");
    node.ledger("audit anchors", &["--log-key", &site.address, "--out", &late]).done();
    let arguments = ["audit", "verify", "--log", &site.log, "--anchors", &late];
    assert_eq!(faulty(&call(&arguments)), ("root".into(), 1));
    let no_file = call(&["audit", "verify", "--log", &node.path("none.jsonl")]);
    assert!(no_file.failed().contains("none.jsonl"));
}

/// With the validators pinned it takes more than the log's key to make anchors.
fn with_the_ledger_pinned(node: &Node, site: &Anchored<'_>) {
    let on = |file: &str, validator: &str, contract: &str, chain_id: &str| {
        let ledger = ["--validator", validator, "--contract", contract, "--chain-id", chain_id];
        let log = ["audit", "verify", "--log", &site.log, "--anchors", file, "--log-key", &site.address];
        call(&[&log[..], &ledger].concat())
    };
    let proven = |file: &str, validator: &str| on(file, validator, &node.contract, "4711");
    // Whoever has the log's key can anchor anything on a contract of their own.
    let stranger = format!("0x{}", "07".repeat(20));
    for (contract, chain_id) in [(&*stranger, "4711"), (&*node.contract, "1")] {
        let elsewhere = on(&site.anchors, &node.validator, contract, chain_id);
        assert_eq!(elsewhere.json()["fault"], "another_ledger");
    }
    let unpinned =
        ["audit", "verify", "--log", &site.log, "--anchors", &site.anchors, "--validator", &node.validator];
    let unpinned = call(&unpinned);
    assert!(unpinned.status == 2 && unpinned.stderr.contains("--contract"), "{unpinned:?}");
    let done = proven(&site.anchors, &node.validator).done();
    assert!(done["on_ledger_at"].is_string() && done["log_key"] == site.address, "{done}");
    assert_eq!(proven(&site.anchors, &stranger).json()["fault"], "validators_other");
    let mut fewer: Value = serde_json::from_str(&std::fs::read_to_string(&site.anchors).unwrap()).unwrap();
    fewer["anchors"].as_array_mut().unwrap().pop();
    let shorter = node.path("shorter.json");
    std::fs::write(&shorter, fewer.to_string()).unwrap();
    assert_eq!(proven(&shorter, &node.validator).json()["fault"], "not_on_ledger");
}

/// The contract takes a log of anybody's: one that was written anew is anchored there under a key that is not the log's.
fn forged_under_another_key(node: &Node, site: &Anchored<'_>) {
    let (log, key, anchors) = (node.path("forged.jsonl"), node.path("forger.key"), node.path("forged.json"));
    std::fs::write(&log, rewritten(&lines(&site.log), 3).concat()).unwrap();
    let made = call(&["participant", "new", "--out", &key]).done();
    let forger = made["address"].as_str().unwrap();
    node.ledger("audit anchor", &["--log", &log, "--key", &key]).done();
    node.ledger("audit anchors", &["--log-key", forger, "--out", &anchors]).done();
    let by = |key: &[&str]| {
        let ledger = ["--validator", &node.validator, "--contract", &node.contract, "--chain-id", "4711"];
        let log = ["audit", "verify", "--log", &log, "--anchors", &anchors];
        call(&[&log[..], &ledger, key].concat())
    };
    let unnamed = by(&[]);
    assert!(unnamed.status == 2 && unnamed.stderr.contains("--log-key"), "{unnamed:?}");
    let other = by(&["--log-key", &site.address]);
    assert_eq!((other.status, other.json()["fault"].as_str()), (4, Some("another_log")));
    // As the forger's it is whole, and that it is the forger's is told.
    assert_eq!(by(&["--log-key", forger]).done()["log_key"], forger);
}

fn delivered(segments: &[(u64, u64)], wraps: &[(u32, u32, u32)]) -> Delivered {
    Delivered {
        patient: PATIENT,
        class: DataClass::Vitals,
        segments: segments.iter().map(|(first, last)| Run(*first, *last)).collect(),
        wraps: wraps.iter().map(|(generation, first, last)| WrapRun(*generation, *first, *last)).collect(),
    }
}

fn received(segments: &[(u64, u64)], wraps: &[(u32, u32, u32)]) -> What {
    What::Received { recipient: HOSPITAL, delivered: delivered(segments, wraps) }
}

fn fetched(segments: &[(u64, u64)], wraps: &[(u32, u32, u32)]) -> What {
    What::Fetched { recipient: HOSPITAL, feed: "hospital-1".into(), delivered: delivered(segments, wraps) }
}

fn wrapped(epoch: u32) -> What {
    What::Wrapped {
        patient: PATIENT,
        class: DataClass::Vitals,
        generation: 0,
        epoch,
        depth: 32,
        recipients: vec![HOSPITAL],
    }
}

fn look() -> What {
    What::Look {
        user: "nurse".into(),
        patient: PATIENT,
        class: DataClass::Vitals,
        from_us: T0_MS * 1_000,
        until_us: Some(T0_MS * 1_000 + 5_000_000),
        basis: AccessBasis::Consent,
    }
}

/// Later than what is compared.
fn end(path: &str) {
    let journal = Journal::open(Path::new(path)).unwrap().0;
    journal.append(&[Entry { at_ms: T0_MS + 2 * verify::SLACK_MS, what: What::PolicyFresh }]).unwrap();
}

/// What comes of the feed's log beside the core's.
fn compared(feed: &str, core: &str, more: &[&str]) -> Called {
    let recipient = format!("0x{HOSPITAL}");
    let logs = ["audit", "verify", "--log", feed, "--recipient", &recipient, "--core-log", core];
    call(&[&logs[..], more].concat())
}

#[test]
fn the_logs_of_gateway_core_and_feed_are_held_against_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let feed_of = |name: &str, segments: &[(u64, u64)]| {
        let log = path(name);
        write(&log, [look(), received(segments, &[(0, 7, 8)])]);
        end(&log);
        log
    };
    let (core, leaves_out, gateway) = (path("core"), path("leaves-out"), path("gateway"));
    write(&core, [fetched(&[(0, 9)], &[(0, 7, 8)])]);
    write(&leaves_out, [fetched(&[(0, 9)], &[])]);
    write(&gateway, [wrapped(7)]);
    let check = |feed: &str, more: &[&str]| compared(feed, &core, more);
    end(&core);
    end(&leaves_out);
    let honest = feed_of("feed", &[(0, 9)]);
    assert_eq!(check(&honest, &[]).done()["compared_until"], "2026-09-21T14:15:20Z");
    let hides = feed_of("hides", &[(0, 4)]);
    assert_eq!(faulty(&check(&hides, &[])), ("unreceived".into(), 1));
    let more = feed_of("more", &[(0, 10)]);
    assert_eq!(faulty(&check(&more, &[])), ("undelivered".into(), 2));
    end(&gateway);
    let found = check(&honest, &["--gateway-log", &gateway]);
    assert_eq!((faulty(&found), found.json()["log"].as_str()), (("unwrapped".into(), 1), Some("core")));
    // A core that leaves out which keys it delivered hides no gateway: the feed received them.
    let found = compared(&honest, &leaves_out, &["--gateway-log", &gateway]);
    assert_eq!((faulty(&found), found.json()["log"].as_str()), (("unwrapped".into(), 2), Some("feed")));
    let whole = path("whole");
    write(&whole, [wrapped(7), wrapped(8)]);
    end(&whole);
    check(&honest, &["--gateway-log", &whole]).done();
    // A log that was rotated is in several files; another gateway's may stand between them.
    let (older, newer, other) = (path("older"), path("newer"), path("other"));
    let text = std::fs::read_to_string(&whole).unwrap();
    let cut = text.find('\n').unwrap() + 1;
    std::fs::write(&older, &text[..cut]).unwrap();
    std::fs::write(&newer, &text[cut..]).unwrap();
    write(&other, [wrapped(3)]);
    end(&other);
    let files = ["--gateway-log", &older, "--gateway-log", &other, "--gateway-log", &newer];
    check(&honest, &files).done();
    assert_eq!(faulty(&check(&honest, &files[2..])), ("missing".into(), 1));
}

#[test]
fn up_to_when_keys_are_compared_is_told_and_a_gateways_empty_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [feed, core, whole, cut, empty] = ["feed", "core", "whole", "cut", "empty"].map(path);
    write(&feed, [received(&[(0, 9)], &[])]);
    write(&core, [fetched(&[(0, 9)], &[(0, 7, 8)])]);
    write(&whole, [wrapped(7), wrapped(8)]);
    write(&cut, [wrapped(7)]);
    std::fs::write(&empty, "").unwrap();
    [&feed, &core, &whole].into_iter().for_each(|log| end(log));
    let told = |gateway: &str| {
        let done = compared(&feed, &core, &["--gateway-log", gateway]).done();
        assert_eq!(done["compared_until"], "2026-09-21T14:15:20Z");
        done["keys_until"].clone()
    };
    assert_eq!(told(&whole), "2026-09-21T14:15:20Z");
    // What it wrapped after the end of its log is not known, and nothing says that it was not in secret.
    assert_eq!(told(&cut), "2026-09-21T14:11:20Z");
    assert_eq!(compared(&feed, &core, &[]).done()["keys_until"], Value::Null);
    let found = compared(&feed, &core, &["--gateway-log", &whole, "--gateway-log", &empty]);
    assert_eq!((faulty(&found), found.json()["log"].as_str()), (("empty".into(), 1), Some("gateway")));
}

/// An entry that is far ahead of its time hides what stands behind it, and that it does is told.
#[test]
fn from_which_entry_on_a_log_is_not_held_against_the_others_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [feed, core, gateway] = ["feed", "core", "gateway"].map(path);
    write(&feed, [received(&[(0, 4)], &[(0, 7, 7)])]);
    write(&gateway, [wrapped(7)]);
    let hidden = fetched(&[(5, 9)], &[(0, 8, 8)]);
    let entries = [(0, fetched(&[(0, 4)], &[(0, 7, 7)])), (10_000_000, hidden), (0, What::PolicyFresh)];
    let entries = entries.map(|(ms, what)| Entry { at_ms: T0_MS + ms, what });
    Journal::open(Path::new(&core)).unwrap().0.append(&entries).unwrap();
    [&feed, &core, &gateway].into_iter().for_each(|log| end(log));
    let done = compared(&feed, &core, &["--gateway-log", &gateway]).done();
    let of = |what: &str| json!({ "log": "core", "what": what, "entry": 2, "of": 4, "older_behind": 1 });
    let mut keys = of("keys");
    keys["patient"] = PATIENT.to_string().into();
    assert_eq!(done["not_covered"], json!([of("deliveries"), keys]));
    assert_eq!(done["clock_wrong"], json!([{ "log": "core", "entry": 2 }]));
    assert_eq!(done["keys_until"], "2026-09-21T14:15:20Z");
    let honest = compared(&feed, &feed, &["--gateway-log", &gateway]).done();
    assert_eq!((&honest["not_covered"], &honest["clock_wrong"]), (&json!([]), &json!([])));
}

#[test]
fn a_gateways_log_is_held_against_the_others_also_where_its_older_files_are_gone() {
    /// The minute of `T0_MS`.
    const T0_EPOCH: u32 = 29_833_333;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (feed, whole, newer) = (path("feed"), path("whole"), path("newer"));
    write(&feed, [received(&[(0, 9)], &[])]);
    write(&whole, [wrapped(T0_EPOCH - 1), wrapped(T0_EPOCH), wrapped(T0_EPOCH + 4)]);
    end(&feed);
    end(&whole);
    std::fs::write(&newer, lines(&whole)[1..].concat()).unwrap();
    let check = |first: u32, last: u32, more: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let core = dir.path().join("core").to_str().unwrap().to_owned();
        write(&core, [fetched(&[(0, 9)], &[(0, first, last)])]);
        end(&core);
        compared(&feed, &core, &[&["--gateway-log"][..], more].concat())
    };
    let (older, later) = ((T0_EPOCH - 9, T0_EPOCH), (T0_EPOCH + 3, T0_EPOCH + 4));
    for (first, last) in [older, later] {
        assert_eq!(faulty(&check(first, last, &[&whole])), ("unwrapped".into(), 1));
        assert_eq!(faulty(&check(first, last, &[&newer])), ("missing".into(), 1));
    }
    let done = check(T0_EPOCH - 1, T0_EPOCH, &[&whole, "--gateway-part"]).done();
    assert_eq!(done["keys_from"], Value::Null, "it has its beginning");
    // What was wrapped before the log's beginning can't be known, and what must have been wrapped after it can.
    let done = check(older.0, older.1, &[&newer, "--gateway-part"]).done();
    assert_eq!(done["keys_from"], "2026-09-21T14:16:00Z");
    let found = check(later.0, later.1, &[&newer, "--gateway-part"]);
    assert_eq!((faulty(&found), found.json()["log"].as_str()), (("unwrapped".into(), 1), Some("core")));
}

fn exported(until_us: Option<i64>) -> What {
    What::Exported {
        uid: 1000,
        patient: PATIENT,
        class: DataClass::Vitals,
        from_us: T0_MS * 1_000,
        until_us,
        basis: AccessBasis::Emergency,
    }
}

/// One of each kind that has a shape of its own.
fn everything() -> Vec<What> {
    let (user, pseudonym, recipient) = ("dr".to_owned(), Pseudonym([7; 32]), HOSPITAL);
    vec![
        login(1),
        look(),
        What::LookEnded {
            user: user.clone(),
            patient: PATIENT,
            class: DataClass::Vitals,
            from_us: 1,
            until_us: 2_000_000,
        },
        What::Export { uid: 0, of: None },
        What::Export {
            uid: 1000,
            of: Some(Part { patient: PATIENT, class: DataClass::Vitals, from_us: 0, until_us: 60_000_000 }),
        },
        exported(None),
        exported(Some(T0_MS * 1_000 + 5_000_000)),
        What::EmergencyOpened { user: user.clone(), pseudonym, number: 1, until: 5, block: 9 },
        What::EmergencyFailed { user: user.clone(), pseudonym, number: 2, why: "no answer".into() },
        What::CommandDone {
            user: user.clone(),
            patient: PATIENT,
            action: "pause".into(),
            sequence: 1,
            why: Some("too late".into()),
        },
        What::Frequent { user, count: 3 },
        What::Gap { patient: PATIENT, class: DataClass::Alarm, first: 1, last: 2 },
        What::Received { recipient, delivered: delivered(&[(0, 4)], &[(0, 1, 1)]) },
        What::Fetched { recipient, feed: "f".into(), delivered: delivered(&[], &[(0, 1, 1)]) },
        What::PolicyInForce { epoch: 1, header: 2, origin: "door".into() },
        What::PolicyRefused { reason: "quorum".into(), origin: "door".into(), times: 2 },
        What::PolicyStale { as_of: 5 },
        What::PolicyFresh,
        What::GrantBegan { patient: PATIENT, recipient, version: 1, until: 5 },
        What::GrantEnded { patient: PATIENT, recipient, version: 1, why: Ending::Revoked },
        What::Revoked { patient: PATIENT, version: 1, by: "button".into() },
        What::EmergencyBegan { patient: PATIENT, recipient, number: 1, until: 5 },
        What::EmergencyEnded { patient: PATIENT, recipient, number: 1 },
    ]
}

/// Another's validator, with R4's own definitions.
pub(crate) fn validate(file: &str) -> (bool, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fhir");
    assert!(
        folder.join("node_modules/@medplum/core").is_dir(),
        "the FHIR validator is not installed: npm ci --ignore-scripts in tests/fhir"
    );
    let output = Command::new("node").arg(folder.join("validate.mjs")).arg(file).output().expect("node runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// What the events of exports say: of all, of a part, and of one that begins and ends.
fn of_exports(events: &[Value]) {
    for event in events {
        assert_eq!((&event["type"]["code"], &event["action"]), (&"110106".into(), &"R".into()));
    }
    let [all, part, begins, ends] = events else { panic!("{events:?}") };
    let about = |event: &Value| event["entity"][1].clone();
    assert_eq!((&all["period"], &about(all)["what"]), (&Value::Null, &Value::Null));
    assert_eq!(about(all)["detail"][0]["valueString"], "whole");
    assert_eq!(part["period"], json!({ "start": "1970-01-01T00:00:00Z", "end": "1970-01-01T00:01:00Z" }));
    for event in [part, begins, ends] {
        assert_eq!(event["agent"][0]["who"]["identifier"]["value"], "uid 1000");
        assert_eq!(about(event)["what"]["identifier"]["value"], PATIENT.to_string());
        assert_eq!(about(event)["detail"][0], json!({ "type": "class", "valueString": "vitals" }));
    }
    assert_eq!(begins["period"], json!({ "start": "2026-09-21T14:13:20Z" }));
    assert_eq!(ends["period"], json!({ "start": "2026-09-21T14:13:20Z", "end": "2026-09-21T14:13:25Z" }));
    assert_eq!(ends["purposeOfEvent"][0]["coding"][0]["code"], "ETREAT");
}

#[test]
fn another_validator_takes_every_audit_event_and_refuses_planted_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (log, out, bundle) = (path("log"), path("events.ndjson"), path("bundle.json"));
    write(&log, everything());
    let count = everything().len();
    let arguments = ["audit", "fhir", "--log", &log, "--source", "hospital-1", "--out", &out];
    assert_eq!(call(&arguments).done()["audit_events"], count);
    let text = std::fs::read_to_string(&out).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = lines(&log)[0].trim_end().to_owned();
    assert_eq!(events[0]["entity"][0]["detail"][0]["valueString"], leaf_hash(first.as_bytes()).to_string());
    assert_eq!(events[1]["purposeOfEvent"][0]["coding"][0]["code"], "TREAT");
    assert_eq!(events[1]["period"]["end"], "2026-09-21T14:13:25Z");
    of_exports(&events[3..7]);
    assert_eq!((&events[8]["outcome"], &events[8]["outcomeDesc"]), (&"4".into(), &"no answer".into()));
    let entries: Vec<_> = events.iter().map(|event| json!({ "resource": event })).collect();
    let whole = json!({ "resourceType": "Bundle", "type": "collection", "entry": entries }).to_string();
    std::fs::write(&bundle, &whole).unwrap();
    let (valid, told) = validate(&bundle);
    assert!(valid && told.contains(&format!("{count} valid")), "{told}");
    for (good, bad) in [
        ("\"recorded\"", "\"recordet\""),
        ("\"requestor\":true", "\"requestor\":1"),
        ("\"observer\"", "\"observes\""),
    ] {
        assert!(whole.contains(good), "{good}");
        std::fs::write(&bundle, whole.replacen(good, bad, 1)).unwrap();
        assert!(!validate(&bundle).0, "{bad} was taken");
    }
    assert!(call(&arguments).failed().contains("events.ndjson"), "it is not written over");
}
