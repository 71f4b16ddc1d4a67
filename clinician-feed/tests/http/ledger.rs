//! The binary with a real ledger: what access rests on, break-glass by page and by command, and what is kept of both.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use caregate_protocol::id::{DataClass, RecipientId};
use caregate_protocol::policy::{Pseudonym, RecipientStatus};
use caregate_protocol::reading::Reading;
use caregate_protocol::segment::SegmentHash;
use clinician_feed::journal::{AccessBasis, Entry, Journal, What};
use ledger_chain::Event;
use ledger_client::verify::slots::text_commitment;
use serde_json::{Value as Json, json};

use crate::binary::{BASIC, Daemon, command, export, own_uid};
use crate::client::{Answer, JSON, Socket, get_from, next_of, open_at, post_to};
use crate::core::{Core, write_private};
use crate::fhir::validate;
use crate::node::{Node, Patient, hospital, now_s};
use crate::{PASSWORD, PATIENT, T0_US, USER, heart_rate};

const PSEUDONYM: [u8; 32] = [0xe1; 32];
const REASON: &str = "found unconscious in the street";
const ACTIVE: Option<RecipientStatus> = Some(RecipientStatus::Active);

/// A feed's files: with a ledger and a key, and a bed where `relationship` is given.
fn configure(core: &Core, node: &Node, relationship: Option<&str>) -> PathBuf {
    let config = core.config();
    let folder = config.parent().unwrap();
    let key = write_private(folder.join("domain.key"), &hex::encode(*hospital().secret()));
    let text = std::fs::read_to_string(&config).unwrap();
    let (head, beds) = text.split_once("[[bed]]").unwrap();
    let bed = relationship.map_or_else(String::new, |r| format!("[[bed]]{beds}relationship = \"{r}\"\n"));
    let ledger = node.table(&format!("domain_key = {key:?}"));
    std::fs::write(&config, format!("{head}{ledger}{bed}")).unwrap();
    config
}

fn journal_path(config: &Path) -> PathBuf {
    config.with_file_name("journal.jsonl")
}

fn journal(config: &Path) -> Vec<Entry> {
    Journal::open(&journal_path(config)).unwrap().1
}

/// The next message of a kind that `holds`.
async fn until(socket: &mut Socket, kind: &str, holds: impl Fn(&Json) -> bool) -> Json {
    loop {
        let message = next_of(socket, kind).await;
        if holds(&message) {
            return message;
        }
    }
}

async fn basis(socket: &mut Socket, basis: &str) -> Json {
    until(socket, "access", |message| message["basis"] == basis).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_access_rests_on_follows_the_ledger() {
    let mut node = Node::start().await;
    let (chain, me) = (node.chain(), hospital().id());
    let (core, patient) = (Core::start_for(me), Patient::new());
    node.register(me, ACTIVE, false).await;
    let config = configure(&core, &node, Some(&patient.relationship.to_string()));
    let daemon = Daemon::start(&config);
    let mut socket = open_at(daemon.address, "", BASIC).await.unwrap();
    let following = until(&mut socket, "ledger", |m| m["state"] == "following").await;
    assert_eq!(following["break_glass"], "refused", "it is no emergency domain");
    basis(&mut socket, "none").await;

    let until_s = now_s() + 7_200;
    patient.grants(&chain, me, 1, until_s).await;
    let consent = basis(&mut socket, "consent").await;
    assert_eq!(consent, json!({"type":"access","patient":PATIENT,"basis":"consent","until":until_s}));
    let line = until(&mut socket, "audit", |m| m["what"] == "granted").await;
    assert_eq!((&line["patient"], &line["until"]), (&json!(PATIENT), &json!(until_s)));

    patient.revokes(&chain, 1).await;
    let ended = basis(&mut socket, "ended").await;
    assert_eq!(ended["why"], "revoked");
    assert!(now_s().abs_diff(ended["at"].as_u64().unwrap()) < 30, "{ended}");
    assert_eq!(until(&mut socket, "audit", |m| m["what"] == "ended").await["text"], "revoked");
    // Who comes later is told the same, with the time of the block and not of its own coming.
    let mut other = open_at(daemon.address, "", BASIC).await.unwrap();
    assert_eq!(basis(&mut other, "ended").await, ended);

    patient.grants(&chain, me, 2, until_s).await;
    basis(&mut socket, "consent").await;
    node.register(me, Some(RecipientStatus::Suspended), false).await;
    assert_eq!(basis(&mut socket, "ended").await["why"], "suspended");
    node.register(me, ACTIVE, true).await;
    basis(&mut socket, "consent").await;
    patient.grants(&chain, RecipientId([9; 20]), 3, until_s).await;
    assert_eq!(basis(&mut socket, "ended").await["why"], "replaced");

    node.stop().await;
    let away = until(&mut socket, "ledger", |m| m["state"] == "away").await;
    assert!(away["since_ms"].is_i64(), "{away}");
    core.segment(0, SegmentHash::NONE);
    next_of(&mut socket, "reading").await;
    node.resume().await;
    patient.grants(&chain, me, 4, until_s).await;
    until(&mut socket, "ledger", |m| m["state"] == "following").await;
    basis(&mut socket, "consent").await;
    let log = daemon.terminate();
    assert!(!log.contains(&hex::encode(patient.relationship.0)), "{log}");
}

/// What a command wrote out is noted with what access rests on, as the ledger says it; where that is away, it is not known.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_says_on_what_it_rests() {
    let mut node = Node::start().await;
    let (chain, me) = (node.chain(), hospital().id());
    let (core, patient) = (Core::start_for(me), Patient::new());
    node.register(me, ACTIVE, false).await;
    let config = configure(&core, &node, Some(&patient.relationship.to_string()));
    core.segment(0, SegmentHash::NONE);
    let (uid, class, from_us) = (own_uid(), DataClass::Vitals, T0_US + 1_000);
    let mut expected = Vec::new();
    for basis in [AccessBasis::Consent, AccessBasis::Ended, AccessBasis::Unknown] {
        match basis {
            AccessBasis::Consent => patient.grants(&chain, me, 1, now_s() + 7_200).await,
            AccessBasis::Ended => patient.revokes(&chain, 1).await,
            AccessBasis::Emergency | AccessBasis::Unknown => node.stop().await,
        }
        let exported = export(&config).await;
        assert!(exported.status.success() && !exported.stdout.is_empty(), "{exported:?}");
        let written = |until_us| What::Exported { uid, patient: PATIENT, class, from_us, until_us, basis };
        expected.extend([What::Export { uid, of: None }, written(None), written(Some(from_us))]);
    }
    let noted = journal(&config).into_iter().map(|entry| entry.what);
    let of_exports = noted.filter(|what| !matches!(what, What::Received { .. }));
    assert_eq!(of_exports.collect::<Vec<_>>(), expected);
}

/// What the daemon's FHIR server answers.
async fn fhir(daemon: &Daemon, path: &str) -> Answer {
    let login = format!("{}: {}\r\n", BASIC[0].0, BASIC[0].1);
    get_from(daemon.address, &format!("/fhir/{path}"), &login).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_is_served_as_consents_with_the_patients_signature() {
    let mut node = Node::start().await;
    let (chain, me) = (node.chain(), hospital().id());
    let (core, patient) = (Core::start_for(me), Patient::new());
    node.register(me, ACTIVE, false).await;
    let config = configure(&core, &node, Some(&patient.relationship.to_string()));
    let daemon = Daemon::start(&config);
    let mut socket = open_at(daemon.address, "", BASIC).await.unwrap();
    basis(&mut socket, "none").await;
    assert_eq!(fhir(&daemon, "Consent").await.json()["total"], 0);
    patient.grants(&chain, me, 1, now_s() + 7_200).await;
    basis(&mut socket, "consent").await;

    let id = hex::encode(patient.relationship.0);
    let consents = fhir(&daemon, "Consent").await;
    let provenances = fhir(&daemon, &format!("Provenance?target=Consent/{id}")).await;
    for (name, answer) in [("consents.json", &consents), ("provenances.json", &provenances)] {
        let (valid, told) = validate(Path::new(env!("CARGO_TARGET_TMPDIR")), name, &answer.body);
        assert!(valid, "{name}: {told}");
    }
    let consent = consents.json()["entry"][0]["resource"].clone();
    assert_eq!((&consent["id"], &consent["status"]), (&json!(id), &json!("active")));
    assert_eq!(fhir(&daemon, &format!("Consent/{id}")).await.json(), consent);
    let provenance = provenances.json()["entry"][0]["resource"].clone();
    assert_eq!(provenance["target"][0]["reference"], format!("Consent/{id}"));
    assert!(provenance["signature"][0]["data"].as_str().unwrap().len() >= 88, "{provenance}");
    let none = fhir(&daemon, &format!("Provenance?target=Consent/{}", "00".repeat(32))).await.json();
    assert_eq!((&none["total"], none.get("entry")), (&json!(0), None));
    let wrong = fhir(&daemon, "Provenance?target=Consent/1").await;
    assert_eq!(wrong.status, 400, "{wrong:?}");

    patient.revokes(&chain, 1).await;
    basis(&mut socket, "ended").await;
    assert_eq!(fhir(&daemon, &format!("Consent/{id}")).await.json()["status"], "inactive");
    // The time of the grant is known by now; of another one the ledger would have to be asked.
    node.stop().await;
    assert_eq!(fhir(&daemon, &format!("Provenance/{id}")).await.json(), provenance);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_starts_without_its_ledger_and_says_so() {
    let mut node = Node::start().await;
    let core = Core::start_for(hospital().id());
    let config = configure(&core, &node, None);
    node.stop().await;
    let daemon = Daemon::start(&config);
    let mut socket = open_at(daemon.address, "", BASIC).await.unwrap();
    until(&mut socket, "ledger", |m| m["state"] == "away").await;
    let answer = ask(&daemon, &request()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("was not opened"), "{answer:?}");
    core.segment(0, SegmentHash::NONE);
    next_of(&mut socket, "reading").await;
    node.resume().await;
    until(&mut socket, "ledger", |m| m["state"] == "following").await;
}

fn request() -> Json {
    json!({"pseudonym": hex::encode(PSEUDONYM), "reason": REASON, "minutes": 30, "confirm": true})
}

async fn ask(daemon: &Daemon, request: &Json) -> Answer {
    let more = format!("{JSON}{}: {}\r\n", BASIC[0].0, BASIC[0].1);
    post_to(daemon.address, "/api/emergency", &more, &request.to_string()).await
}

/// A reading that the gateway took now.
fn now(value: f64) -> Reading {
    Reading { gateway_time_us: caregate_host::clock::now_us(), ..heart_rate(value) }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_the_glass_is_shown_the_patient_and_accounts_for_it() {
    let node = Node::start().await;
    let (chain, me) = (node.chain(), hospital().id());
    let core = Core::start_for(me);
    let config = configure(&core, &node, None);
    let daemon = Daemon::start(&config);
    let refusals = [
        (None, false, "this hospital is not registered"),
        (ACTIVE, false, "this hospital is not registered for emergencies"),
        (Some(RecipientStatus::Suspended), true, "this hospital is suspended"),
    ];
    for (status, emergency, words) in refusals {
        node.register(me, status, emergency).await;
        let answer = ask(&daemon, &request()).await;
        assert_eq!(
            (answer.status, answer.json()),
            (409, json!({"error": format!("the ledger refuses: {words}")}))
        );
    }
    node.register(me, ACTIVE, true).await;
    let mut socket = open_at(daemon.address, "", BASIC).await.unwrap();
    until(&mut socket, "ledger", |m| m["break_glass"] == "ready").await;
    let answer = ask(&daemon, &request()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let opened = answer.json();
    let (from, end) = (opened["from"].as_u64().unwrap(), opened["until"].as_u64().unwrap());
    assert_eq!((opened["number"].as_u64(), end - from), (Some(1), 1800));
    assert_eq!(chain.emergency_number(&Pseudonym(PSEUDONYM), &me).await.unwrap(), 1);
    until(&mut socket, "audit", |m| m["what"] == "emergency_seen").await;
    // The patient's first segment comes: no bed names them.
    core.segment_of(0, SegmentHash::NONE, now(80.0));
    let access = basis(&mut socket, "emergency").await;
    assert_eq!(access, json!({"type":"access","patient":PATIENT,"basis":"emergency","until":end}));
    accounted_for(&chain, &config).await;

    for number in 2..=3_u64 {
        let before = caregate_host::clock::monotonic();
        assert_eq!(ask(&daemon, &request()).await.json()["number"], number);
        eprintln!("asked to in a block: {} ms", before.elapsed().as_millis());
    }
    let frequent = What::Frequent { user: USER.into(), count: 3 };
    assert!(journal(&config).iter().any(|entry| entry.what == frequent), "for review, and not refused");
    let looked = |what: &What| {
        let What::Look { user, patient, basis, .. } = what else { return None };
        (user == USER && *patient == PATIENT).then_some(*basis)
    };
    let looks: Vec<_> = journal(&config).iter().filter_map(|entry| looked(&entry.what)).collect();
    assert_eq!(looks, [AccessBasis::Emergency], "once, and why");
    let log = daemon.terminate();
    assert!(!log.contains("unconscious") && !log.contains("e1e1e1e1"), "{log}");
}

/// What is on the ledger can be shown to be what the journal says, and the journal is for its owner alone.
async fn accounted_for(chain: &ledger_chain::Chain, config: &Path) {
    let head = chain.head().await.unwrap().number;
    let events = chain.events(0, head).await.unwrap();
    let emergencies = events.into_iter().filter_map(|event| {
        let Event::EmergencyOpened(signed) = event.event else { return None };
        Some(signed.emergency)
    });
    let emergencies: Vec<_> = emergencies.collect();
    let salt = |text: &str| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
    let openings = journal(config).into_iter().filter_map(|entry| {
        let What::Emergency { user, reason, number, clinician_salt, reason_salt, .. } = entry.what else {
            return None;
        };
        Some((user, reason, number, salt(&clinician_salt), salt(&reason_salt)))
    });
    // Three were refused, the fourth is there; they all asked for number 1.
    let openings: Vec<_> = openings.collect();
    assert_eq!((openings.len(), emergencies.len()), (4, 1));
    let (user, reason, number, clinician_salt, reason_salt) = &openings[3];
    assert_eq!((user.as_str(), reason.as_str(), *number), (USER, REASON, 1));
    assert_eq!(emergencies[0].clinician, text_commitment(clinician_salt, USER));
    assert_eq!(emergencies[0].reason, text_commitment(reason_salt, REASON));
    let mode = std::fs::metadata(journal_path(config)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_opened_that_is_not_asked_for_properly_or_can_not_be_recorded() {
    let node = Node::start().await;
    let (chain, me) = (node.chain(), hospital().id());
    let core = Core::start_for(me);
    node.register(me, ACTIVE, true).await;
    let config = configure(&core, &node, None);
    let daemon = Daemon::start(&config);
    let path = "/api/emergency";
    let body = request().to_string();
    let basic = format!("{}: {}\r\n", BASIC[0].0, BASIC[0].1);
    let evil = format!("Content-Type: application/json\r\nOrigin: http://evil\r\n{basic}");
    assert_eq!(post_to(daemon.address, path, JSON, &body).await.status, 401);
    assert_eq!(post_to(daemon.address, path, &evil, &body).await.status, 403);
    let form = format!("Content-Type: text/plain\r\n{basic}");
    assert_eq!(post_to(daemon.address, path, &form, &body).await.status, 415);
    let mut more = request();
    more["more"] = json!(1);
    assert_eq!(ask(&daemon, &more).await.status, 400);
    for (key, wrong) in [
        ("pseudonym", json!("e1")),
        ("reason", json!("short")),
        ("minutes", json!(241)),
        ("minutes", json!(0)),
        ("confirm", json!(false)),
    ] {
        let mut request = request();
        request[key] = wrong;
        let answer = ask(&daemon, &request).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().starts_with(key), "{answer:?}");
    }
    let nobody = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(journal_path(&config), nobody).unwrap();
    let answer = ask(&daemon, &request()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("can't be recorded"), "{answer:?}");
    assert_eq!(chain.emergency_number(&Pseudonym(PSEUDONYM), &me).await.unwrap(), 0);
    let mut socket = open_at(daemon.address, "", BASIC).await.unwrap();
    core.segment(0, SegmentHash::NONE);
    next_of(&mut socket, "reading").await;
    assert_eq!(PASSWORD, "correct horse");
}

async fn by_command(config: &Path, more: &[&str]) -> std::process::Output {
    let mut command = command();
    command.arg("emergency").arg("--config").arg(config).args(more);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_does_the_same_beside_the_daemon() {
    let node = Node::start().await;
    let (chain, me) = (node.chain(), hospital().id());
    let core = Core::start_for(me);
    node.register(me, ACTIVE, true).await;
    let config = configure(&core, &node, None);
    let daemon = Daemon::start(&config);
    let mut socket = open_at(daemon.address, "", BASIC).await.unwrap();
    until(&mut socket, "ledger", |m| m["break_glass"] == "ready").await;
    let file = |name: &str, text: &str| {
        write_private(config.with_file_name(name), text).to_str().unwrap().to_owned()
    };
    let card = file("card", &format!("{}\n", hex::encode(PSEUDONYM)));
    let (reason, short) = (file("reason", REASON), file("short", "because"));
    let arguments = ["--pseudonym-file", &card, "--minutes", "5", "--json", "--reason-file"];
    let refused = by_command(&config, &[&arguments[..], &[&short]].concat()).await;
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && errors.contains("reason: must have at least 10"), "{errors}");
    let stranger =
        by_command(&config, &[&arguments[..], &[&reason, "--clinician", "mallory"]].concat()).await;
    assert!(!stranger.status.success() && stranger.stdout.is_empty());
    let opened = by_command(&config, &[&arguments[..], &[&reason]].concat()).await;
    assert!(opened.status.success(), "{opened:?}");
    let opened: Json = serde_json::from_slice(&opened.stdout).unwrap();
    assert_eq!(opened["number"], 1);
    assert_eq!(chain.emergency_number(&Pseudonym(PSEUDONYM), &me).await.unwrap(), 1);
    let seen = until(&mut socket, "audit", |m| m["what"] == "emergency_seen").await;
    assert_eq!((&seen["count"], &seen["until"]), (&json!(1), &opened["until"]));
    let entries = journal(&config);
    assert!(entries.iter().any(|e| matches!(&e.what, What::EmergencyOpened { user, .. } if user == USER)));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_tables_are_named_at_start() {
    let node = Node::start().await;
    let core = Core::start_for(hospital().id());
    let config = configure(&core, &node, None);
    let text = std::fs::read_to_string(&config).unwrap();
    let other = write_private(config.with_file_name("other.key"), &hex::encode([0x18; 32]));
    let cases = [
        (text.replace("domain.key", "other.key"), "the key's address is"),
        (text.replace("domain.key", "none.key"), "none.key"),
        (text.replace("journal = ", "# "), "missing field `journal`"),
        (text.replace("journal.jsonl", "nowhere/journal.jsonl"), "nowhere/journal.jsonl"),
    ];
    for (text, expected) in cases {
        std::fs::write(&config, text).unwrap();
        let refused = command().arg("--check").arg("--config").arg(&config).output().unwrap();
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && errors.contains(expected), "{errors}");
    }
    assert!(other.exists());
}
