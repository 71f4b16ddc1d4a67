//! The wallet, participants, emergencies and the audit, called as people call them, against the real node.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, too")]

mod audit;
mod succession;
mod support;

use std::os::unix::fs::MetadataExt as _;

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::policy::{Floors, SignedRevocation};
use ledger_chain::{Chain, ChainConfig, Follower};
use ledger_client::revoke::{RevokeKeyFile, RevokeKeys};
use ledger_client::verify::{Enrolment, NewestKeys, verify_bundle, verify_revocation};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use support::{Node, Wallet, call, call_at_once};

const DEVICE: [&str; 6] = ["--home", "gateway-1", "--device", "ecg-1", "--mac", "02:00:00:00:00:01"];

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

/// A patient with a relationship to a hospital and a device, enrolled at a gateway.
fn enrolled<'n>(node: &'n Node, name: &str, hospital: &str) -> (Wallet<'n>, Value) {
    let wallet = node.wallet(name);
    wallet.call("relationship", &["--label", "City", "--grantee", hospital]).done();
    let mut device = DEVICE.to_vec();
    let (id, mac) = (format!("ecg-{name}"), format!("02:00:00:00:01:{:02x}", name.len()));
    (device[3], device[5]) = (&id, &mac);
    device.push("--remember");
    wallet.call("bind", &device).done();
    let (out, keys) = (node.path("enrolment.toml"), node.path("revoke-keys.toml"));
    let enrolled = wallet.call("enrol", &["--home", "gateway-1", "--out", &out, "--revoke-keys", &keys]);
    let enrolled = enrolled.done();
    (wallet, enrolled)
}

fn enrolment(node: &Node) -> Enrolment {
    toml::from_str(&std::fs::read_to_string(node.path("enrolment.toml")).unwrap()).unwrap()
}

#[tokio::test]
async fn what_the_wallet_enrols_and_grants_is_what_a_gateway_verifies() {
    let node = Node::start();
    let hospital = node.hospital("hospital", &[]);
    let (wallet, enrolled) = enrolled(&node, "ann", &hospital);
    let bound = wallet.call("bind", &["--home", "gateway-1", "--device", "ecg-ann"]).done();
    assert_eq!((&bound["bound"], &bound["version"]), (&true.into(), &1.into()));
    let granted = wallet.call("grant", &["--label", "City", "--days", "1"]).done();
    assert_eq!(granted["version"], 1);
    assert_eq!(granted["until"].as_u64().unwrap() - granted["from"].as_u64().unwrap(), 86_400);

    let pins = enrolment(&node).pins().unwrap();
    let config = ChainConfig::new(&node.rpc, 4711, pins.domain.verifying_contract);
    let follower = Follower::start(Chain::connect(config).await.unwrap(), CancellationToken::new());
    let head = *follower.heads().wait_for(Option::is_some).await.unwrap();
    let bundle = follower.bundle(&pins.watch()).await.unwrap();
    let now = head.unwrap().time_s;
    let verified = verify_bundle(&bundle.encode(), &pins, &Floors::default(), now).unwrap();
    let (policy, _) = verified.admit(&Floors::default()).unwrap();
    let patient: PatientId = enrolled["patient"].as_str().unwrap().parse().unwrap();
    let open =
        |class| policy.recipients(&patient, class, now).map(|found| format!("0x{}", found.id)).collect();
    assert_eq!(open(DataClass::Waveform), std::slice::from_ref(&hospital));
    let none: Vec<String> = open(DataClass::Sensitive);
    assert!(none.is_empty(), "what is sensitive is granted by name alone");
    assert_eq!(policy.devices().map(|bound| bound.device.to_string()).collect::<Vec<_>>(), ["ecg-ann"]);
}

#[test]
fn two_patients_share_a_gateways_files_and_each_can_be_enrolled_anew() {
    let node = Node::start();
    let (hospital, clinic) = (node.hospital("hospital", &[]), node.hospital("clinic", &["--kind", "other"]));
    let (ann, first) = enrolled(&node, "ann", &hospital);
    let (_bob, second) = enrolled(&node, "bobby", &hospital);
    assert_ne!(first["patient"], second["patient"]);
    assert_eq!(enrolment(&node).patients.len(), 2);
    assert_eq!((mode(&node.path("revoke-keys.toml")), mode(&ann.keystore)), (0o600, 0o600));

    ann.call("relationship", &["--label", "Clinic", "--grantee", &clinic]).done();
    let (out, keys) = (node.path("enrolment.toml"), node.path("revoke-keys.toml"));
    let files = ["--home", "gateway-1", "--out", &out, "--revoke-keys", &keys];
    ann.call("enrol", &files).done();
    let enrolment = enrolment(&node);
    let counts: Vec<_> = enrolment.patients.iter().map(|patient| patient.relationships.len()).collect();
    assert_eq!(counts, [2, 1]);
    // The button's keys fit the pins.
    let file: RevokeKeyFile = toml::from_str(&std::fs::read_to_string(&keys).unwrap()).unwrap();
    let (pins, keys) = (enrolment.pins().unwrap(), RevokeKeys::new(&file).unwrap());
    assert!(pins.relationships.keys().all(|relationship| keys.holds(relationship)));
    assert_eq!(pins.relationships.len(), 3);

    // Another wallet can't take the patient's place, and another ledger's file is left alone.
    let patient = first["patient"].as_str().unwrap();
    let mut foreign = files.to_vec();
    foreign.extend(["--patient", patient]);
    let stranger = node.wallet("stranger");
    stranger.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    assert!(stranger.call("enrol", &foreign).failed().contains("another wallet's keys"));
    let other = node.wallet("other");
    let elsewhere = ["--chain-id", "1", "--contract", &node.contract, "--validator", &node.validator];
    other.call("ledger", &elsewhere).done();
    assert!(other.call("enrol", &files).failed().contains("for another ledger"));
}

#[test]
fn versions_are_never_used_twice_also_by_commands_at_once_and_after_a_restore() {
    let node = Node::start();
    let hospital = node.hospital("hospital", &[]);
    let wallet = node.wallet("ann");
    let relationship = wallet.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    let granted = call_at_once(4, &wallet.arguments("grant", &["--label", "City"]));
    let mut versions: Vec<_> =
        granted.iter().map(|called| called.done()["version"].as_u64().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
    assert_eq!(wallet.call("revoke", &["--label", "City"]).done()["version"], 4);

    // Where no node answers nothing is signed, and no version is taken.
    let mut lost = wallet.arguments("grant", &["--label", "City"]);
    let rpc = lost.iter().position(|word| *word == node.rpc).unwrap();
    lost[rpc] = "http://127.0.0.1:1";
    assert!(call(&lost).failed().contains("can't connect"));
    assert_eq!(wallet.call("grant", &["--label", "City"]).done()["version"], 5);

    let seed = node.path("seed");
    let backed_up = node.path("second.wallet");
    let arguments = ["wallet", "new", "--keystore", &backed_up, "--passphrase-file", &wallet.passphrase];
    let ledger = ["--chain-id", "4711", "--contract", &node.contract, "--memory-mib", "8", "--passes", "1"];
    call(&[&arguments[..], &ledger, &["--backup", &seed]].concat()).done();
    assert_eq!(mode(&seed), 0o600);
    let second = Wallet { node: &node, keystore: backed_up, passphrase: wallet.passphrase.clone() };
    let label = ["--label", "City", "--grantee", &hospital];
    let known = second.call("relationship", &label).done();
    assert_ne!(known["relationship"], relationship["relationship"], "another seed");
    second.call("grant", &["--label", "City"]).done();
    let restored = node.path("restored.wallet");
    let arguments = ["wallet", "new", "--keystore", &restored, "--passphrase-file", &wallet.passphrase];
    call(&[&arguments[..], &ledger, &["--seed-file", &seed]].concat()).done();
    let restored = Wallet { node: &node, keystore: restored, passphrase: wallet.passphrase.clone() };
    assert_eq!(restored.call("relationship", &label).done()["relationship"], known["relationship"]);
    // It knows nothing of the first grant; the ledger does.
    assert_eq!(restored.call("revoke", &["--label", "City"]).done()["version"], 1);
    assert_eq!(restored.call("grant", &["--label", "City"]).done()["version"], 2);
}

#[test]
fn a_signed_revocation_is_what_a_gateway_takes() {
    let node = Node::start();
    let hospital = node.hospital("hospital", &[]);
    let (wallet, _) = enrolled(&node, "ann", &hospital);
    wallet.call("grant", &["--label", "City"]).done();
    let (cbor, json) = (node.path("revocation.cbor"), node.path("revocation.json"));
    let signed = wallet.call("sign-revocation", &["--label", "City", "--out", &cbor]).done();
    let revocation = SignedRevocation::decode(&std::fs::read(&cbor).unwrap()).unwrap();
    let pins = enrolment(&node).pins().unwrap();
    verify_revocation(&revocation, &pins, &NewestKeys::default()).unwrap();
    assert_eq!(signed["version"], 1);
    wallet.call("sign-revocation", &["--label", "City", "--out", &json, "--format", "json"]).done();
    let file: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(file["other_key"], signed["other_key"]);
    assert_eq!(file["relationship"], signed["relationship"]);

    let ended = wallet.call("revoke", &["--label", "City", "--for-good"]).done();
    assert_eq!(ended["version"].as_u64(), Some(u64::MAX));
    assert!(wallet.call("grant", &["--label", "City"]).failed().contains("no version is left"));
    wallet.call("relationship", &["--label", "City, anew", "--grantee", &hospital]).done();
    let states = || {
        let listed = wallet.call("list", &[]).done();
        let state = |row: &Value| {
            (row["label"].as_str().unwrap().to_owned(), row["state"].as_str().unwrap().to_owned())
        };
        listed["relationships"].as_array().unwrap().iter().map(state).collect::<Vec<_>>()
    };
    let both = |anew: &str| {
        vec![("City".to_owned(), "revoked".to_owned()), ("City, anew".to_owned(), anew.to_owned())]
    };
    assert_eq!(states(), both("nothing granted yet"));
    assert_eq!(wallet.call("grant", &["--label", "City, anew"]).done()["version"], 1);
    assert_eq!(states(), both("granted"));
}

#[test]
fn the_ledgers_refusals_are_status_3_with_a_name() {
    let node = Node::start();
    let hospital = node.hospital("hospital", &[]);
    let key = node.path("hospital.key");
    let stranger = node.ledger("participant register", &["--governor-key", &key, "--participant", &hospital]);
    assert_eq!(stranger.refused(), "NotGovernor");
    let old = ["--key", &key, "--hpke-public-key", &"0b".repeat(32), "--version", "1"];
    assert_eq!(node.ledger("participant key", &old).refused(), "VersionNotRaised");
    let opening = node.path("opening.json");
    let pseudonym = "07".repeat(32);
    let emergency = [
        "--domain-key",
        &key,
        "--pseudonym",
        &pseudonym,
        "--clinician",
        "Dr A",
        "--reason",
        "collapse",
        "--opening",
        &opening,
    ];
    assert_eq!(node.ledger("emergency open", &emergency).refused(), "NotEmergencyParticipant");
    let again = node.ledger("emergency open", &emergency).failed();
    assert!(again.contains("exists already"), "an opening is never overwritten: {again}");
}

#[test]
fn an_emergency_keeps_what_opens_it_and_the_audit_shows_it() {
    let node = Node::start();
    let clinic = node.hospital("clinic", &["--emergency"]);
    let wallet = node.wallet("ann");
    let pseudonym = wallet.call("show", &[]).done()["pseudonym"].as_str().unwrap().to_owned();
    let (key, opening) = (node.path("clinic.key"), node.path("opening.json"));
    let arguments = [
        "--domain-key",
        &key,
        "--pseudonym",
        &pseudonym,
        "--clinician",
        "Dr A",
        "--reason",
        "found unconscious",
        "--minutes",
        "30",
        "--opening",
        &opening,
    ];
    let opened = node.ledger("emergency open", &arguments).done();
    assert_eq!(opened["number"], 1);
    assert_eq!(opened["until"].as_u64().unwrap() - opened["from"].as_u64().unwrap(), 1800);
    assert_eq!(mode(&opening), 0o600);
    let audit = node.ledger("audit events", &[]);
    let lines: Vec<Value> = audit.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["ChangeApproved", "ParticipantSet", "ParticipantKeySet", "EmergencyOpened"]);
    let event = &lines[3];
    assert_eq!((&event["domain"], &event["pseudonym"]), (&json!(clinic), &json!(pseudonym)));
    assert_eq!(audit.json()["events"], 4, "the last line says how many");
    // The commitment is opened by what was kept, and by nothing else.
    let kept: Value = serde_json::from_slice(&std::fs::read(&opening).unwrap()).unwrap();
    let salt = hex::decode(kept["reason_salt"].as_str().unwrap()).unwrap().try_into().unwrap();
    let commitment = |text| hex::encode(ledger_client::verify::slots::text_commitment(&salt, text).0);
    assert_eq!(event["reason"], format!("0x{}", commitment("found unconscious")));
    assert!(!audit.stdout.contains("unconscious") && !audit.stdout.contains("Dr A"));
    // A governor who is not the domain looks at it.
    let governor = node.path("governor.key");
    // The next one is opened with another pseudonym, which a gateway watches for once the patient is enrolled there again.
    let renewed = wallet.call("renew-pseudonym", &[]).done();
    assert_ne!(renewed["pseudonym"], json!(pseudonym));
    let shown = wallet.call("show", &[]).done();
    assert_eq!((&shown["pseudonym"], &shown["pseudonym_number"]), (&renewed["pseudonym"], &json!(1)));

    let review = ["--pseudonym", &pseudonym, "--domain", &clinic, "--governor-key"];
    let by = |key: &str| node.ledger("emergency review", &[&review[..], &[key]].concat());
    assert_eq!(by(&node.path("clinic.key")).refused(), "NotGovernor");
    assert_eq!(by(&governor).done()["number"], 1);
    let last = node.ledger("audit events", &[]).stdout;
    assert!(last.contains("EmergencyReviewed"), "{last}");
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_changed() {
    let node = Node::start();
    let wallet = node.wallet("ann");
    let before = std::fs::read(&wallet.keystore).unwrap();
    assert!(wallet.call("grant", &["--label", "City"]).failed().contains("no relationship is called `City`"));
    assert!(wallet.call("bind", &["--home", "g", "--device", "d"]).failed().contains("--mac"));
    assert!(wallet.call("enrol", &["--home", "g"]).status == 2, "clap's own");
    let wrong = node.path("wrong.passphrase");
    support::write_private(std::path::Path::new(&wrong), "another passphrase");
    let other = Wallet { node: &node, keystore: wallet.keystore.clone(), passphrase: wrong };
    assert!(other.call("show", &[]).failed().contains("wrong passphrase"));
    assert_eq!(std::fs::read(&wallet.keystore).unwrap(), before);
    let again = ["--memory-mib", "8", "--passes", "1"];
    assert!(wallet.call("new", &again).failed().contains("exists already"));
    assert_eq!(std::fs::read(&wallet.keystore).unwrap(), before);
    let mut truncated = before.clone();
    truncated.truncate(before.len() - 1);
    std::fs::write(&wallet.keystore, &truncated).unwrap();
    assert!(wallet.call("show", &[]).failed().contains("damaged"));
    let chain = node.ledger("audit events", &["--from-block", "0"]);
    assert_eq!(chain.done()["events"], 0);
    let elsewhere =
        call(&["audit", "events", "--rpc", &node.rpc, "--chain-id", "1", "--contract", &node.contract]);
    assert!(elsewhere.failed().contains("the node's chain is 4711, configured is 1"));
}

/// The wallet is lost, two of three people whom the patient trusts bring their shares, and the same keys revoke what the old one granted.
#[test]
fn a_lost_wallet_comes_again_from_shares() {
    let node = Node::start();
    let hospital = node.hospital("hospital", &[]);
    let wallet = node.wallet("patient");
    wallet.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    let granted = wallet.call("grant", &["--label", "City"]).done();
    let relationship = granted["relationship"].as_str().unwrap();
    let shown = || node.ledger("consent show", &["--relationship", relationship]).done();
    assert_eq!((&shown()["state"], &shown()["version"]), (&"stands".into(), &1.into()));
    let listed = node.ledger("consent list", &["--grantee", &hospital]).done();
    assert_eq!(listed["consents"].as_array().unwrap().len(), 1);
    let [one, two, three] = ["one", "two", "three"].map(|name| node.path(&format!("{name}.share")));
    wallet.call("share", &["--threshold", "2", "--out", &one, "--out", &two, "--out", &three]).done();
    let again = node.wallet_at("again");
    let cheap = ["--memory-mib", "8", "--passes", "1"];
    let recover = |shares: &[&str]| {
        let mut arguments = cheap.to_vec();
        shares.iter().for_each(|share| arguments.extend(["--share", share]));
        again.call("recover", &arguments)
    };
    assert!(recover(&[&three]).failed().contains("1 shares, 2 are needed"));
    assert!(recover(&[&three, &three]).failed().contains("share 3 is there twice"));
    recover(&[&three, &one]).done();
    assert!(recover(&[&two, &one]).failed().contains("exists already"));
    let ledger = ["--chain-id", "4711", "--contract", &node.contract, "--validator", &node.validator];
    again.call("ledger", &ledger).done();
    let known = again.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    assert_eq!(known["relationship"], granted["relationship"]);
    let revoked = again.call("revoke", &["--label", "City"]).done();
    assert_eq!(revoked["version"], granted["version"], "the ledger knows what was granted");
    assert_eq!(shown()["state"], "revoked");
}

/// Two of three govern: one alone changes nothing, a change that widens waits, and those against it stop it.
#[test]
fn governors_decide_together() {
    let node = Node::start();
    let keys = ["g1", "g2", "g3"].map(|name| {
        let path = node.path(&format!("{name}.key"));
        let made = call(&["participant", "new", "--out", &path]).done();
        (path, made["address"].as_str().unwrap().to_owned())
    });
    let governor = node.path("governor.key");
    let list = keys.iter().map(|(_, address)| address.as_str()).collect::<Vec<_>>().join(",");
    let council = ["--governor-key", &governor, "--governor", &list, "--threshold", "2", "--delay-s", "3600"];
    assert_eq!(node.ledger("governance change", &council).done()["in_force"], true);
    let shown = node.ledger("governance show", &[]).done();
    assert_eq!((&shown["threshold"], &shown["version"]), (&2.into(), &2.into()));

    let (hospital, _) = (keys[2].1.clone(), ());
    let register = |key: &str, status: &str| {
        let arguments =
            ["--governor-key", key, "--participant", &hospital, "--status", status, "--emergency"];
        node.ledger("participant register", &arguments)
    };
    assert_eq!(register(&governor, "active").refused(), "NotGovernor");
    let first = register(&keys[0].0, "active").done();
    assert_eq!(
        (&first["in_force"], &first["approvals"], &first["ready_at"]),
        (&false.into(), &1.into(), &0.into())
    );
    assert_eq!(register(&keys[0].0, "active").refused(), "SaidAlready");
    let second = register(&keys[1].0, "active").done();
    assert!(second["in_force"] == false && second["ready_at"].as_u64() > Some(0), "{second}");
    let apply = ["--participant", &hospital, "--status", "active", "--emergency"];
    assert_eq!(node.ledger("participant register", &apply).refused(), "TooEarly");
    let change = second["change"].as_str().unwrap();
    let oppose =
        |key: &str| node.ledger("governance oppose", &["--governor-key", key, "--change", change]).done();
    assert_eq!(oppose(&keys[2].0)["stopped"], false);
    assert_eq!(oppose(&keys[1].0)["stopped"], true);
    assert_eq!(node.ledger("participant register", &apply).refused(), "ChangeClosed");
    // A suspension needs two as well, and does not wait.
    register(&keys[0].0, "suspended").done();
    assert_eq!(register(&keys[1].0, "suspended").done()["in_force"], true);
}

/// What stands on the ledger comes out as FHIR, goes in again, and what a grant can't express is refused by its path.
#[test]
fn a_consent_goes_out_as_fhir_and_in_again() {
    let node = Node::start();
    let hospital = node.hospital("hospital", &[]);
    let wallet = node.wallet("patient");
    wallet.call("relationship", &["--label", "City", "--grantee", &hospital]).done();
    let classes =
        ["--classes", "alarm,sensitive", "--purposes", "treatment,research", "--stale-bound-s", "60"];
    let granted = wallet.call("grant", &[&["--label", "City", "--days", "7"], &classes[..]].concat()).done();
    let relationship = granted["relationship"].as_str().unwrap();
    let shown = || node.ledger("consent show", &["--relationship", relationship, "--fhir"]).done();
    let bundle = shown();
    let file = node.path("bundle.json");
    std::fs::write(&file, bundle.to_string()).unwrap();
    let (valid, told) = audit::validate(&file);
    assert!(valid && told.contains("2 valid"), "{told}");
    let listed = node.ledger("consent list", &["--grantee", &hospital, "--fhir"]).done();
    assert_eq!(listed, bundle);

    let mut consent = bundle["entry"][0]["resource"].clone();
    assert_eq!((&consent["resourceType"], &consent["status"]), (&"Consent".into(), &"active".into()));
    assert_eq!(
        bundle["entry"][1]["resource"]["target"][0]["reference"],
        format!("Consent/{}", &relationship[2..])
    );
    let file = node.path("consent.json");
    std::fs::write(&file, consent.to_string()).unwrap();
    let take = || wallet.call("grant", &["--label", "City", "--fhir-consent", &file]);
    let again = take().done();
    assert_eq!(again["version"], 2);
    for name in ["from", "until", "classes", "purposes"] {
        assert_eq!(again[name], granted[name], "{name}");
    }
    let mut same = shown()["entry"][0]["resource"].clone();
    assert_eq!(same["identifier"][0]["value"], "2");
    same["identifier"] = consent["identifier"].clone();
    assert_eq!(same, consent);

    // Said twice, and of two readers each takes another.
    let twice = consent.to_string().replacen('{', "{\"status\":\"inactive\",", 1);
    std::fs::write(&file, twice).unwrap();
    assert!(take().failed().contains("`status` is there twice"));

    consent["provision"]["provision"] = json!([{ "type": "deny" }]);
    std::fs::write(&file, consent.to_string()).unwrap();
    let refused = take();
    assert_eq!((refused.status, &refused.json()["path"]), (4, &"Consent.provision.provision[0]".into()));
    wallet.call("revoke", &["--label", "City"]).done();
    let over = shown()["entry"][0]["resource"].clone();
    assert_eq!(over["status"], "inactive");
    std::fs::write(&file, over.to_string()).unwrap();
    assert_eq!(take().json()["path"], "Consent.status");
}

#[test]
fn a_gateway_is_known_by_its_name_and_the_deployments_salt() {
    const GATEWAY: &str = "spiffe://home.example/gateway/g-1";
    let node = Node::start();
    let (salt, other) = (node.path("gateway.salt"), node.path("other.salt"));
    for path in [&salt, &other] {
        call(&["participant", "gateway-salt", "--out", path]).done();
        assert_eq!((mode(path), std::fs::read(path).unwrap().len()), (0o600, 65));
    }
    let made = std::fs::read(&salt).unwrap();
    assert_ne!(made, std::fs::read(&other).unwrap());
    assert!(call(&["participant", "gateway-salt", "--out", &salt]).failed().contains("exists already"));
    assert_eq!(std::fs::read(&salt).unwrap(), made);
    // By bytes 0 to 31: as a Keccak written down in Python has it.
    let counted: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    support::write_private(salt.as_ref(), &counted);

    let who = ["--gateway", GATEWAY, "--gateway-salt", &salt];
    let governor = node.path("governor.key");
    let register = [&who[..], &["--governor-key", &governor, "--kind", "other"]].concat();
    let registered = node.ledger("participant register", &register).done();
    assert_eq!(registered["participant"], "0x557e9d056f796c16e021d3765935e06069ff3b61");
    let shown = |arguments: &[&str]| node.ledger("participant show", arguments);
    assert_eq!(shown(&who).done()["status"], "active");
    // Who guesses the name finds nothing without the salt.
    assert_eq!(shown(&["--gateway", GATEWAY, "--gateway-salt", &other]).done()["status"], Value::Null);
    assert_eq!(shown(&["--gateway", GATEWAY]).status, 2);
    assert_eq!(
        shown(&["--participant", "0x557e9d056f796c16e021d3765935e06069ff3b61"]).done()["status"],
        "active"
    );
    let both = ["--participant", "0x557e9d056f796c16e021d3765935e06069ff3b61", "--gateway-salt", &salt];
    assert_eq!(shown(&both).status, 2, "a salt is a gateway's");
    support::write_private(other.as_ref(), "00");
    assert!(shown(&["--gateway", GATEWAY, "--gateway-salt", &other]).failed().contains("32 bytes"));
}
