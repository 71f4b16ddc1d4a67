//! The commands on real files, and what a gateway makes of the result.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use caregate_protocol::policy::Freshness;
use clap::Parser;
use ledger_client::verify::verify_document;

use super::*;

const NOW_S: u64 = 1_790_000_000;
const DAY_S: u64 = 86_400;
const PATIENT: PatientId = PatientId([0xe5; 16]);
const CLINIC: RecipientId = RecipientId([0xb2; 20]);
const DOMAIN: Domain = Domain { chain_id: 20_260, verifying_contract: Address([0xc0; 20]) };

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

/// Runs `policy LINE`, where `{d}` stands for the directory.
fn policy(directory: &Path, line: &str, now_s: u64) -> anyhow::Result<()> {
    let directory = directory.to_str().expect("a name in UTF-8");
    let words = line.split_whitespace().map(|word| word.replace("{d}", directory));
    let cli = Cli::try_parse_from(std::iter::once("policy".to_owned()).chain(words))?;
    run_at(cli.arguments.command, now_s)
}

fn files() -> &'static str {
    "--key {d}/patient.seed --policy {d}/policy.json --enrolment {d}/enrolment.toml"
}

fn relationship() -> String {
    format!("--patient {PATIENT} --grantee {CLINIC}")
}

fn grant_line(more: &str) -> String {
    format!("grant {} {} --classes vitals,alarm --days 30 {more}", files(), relationship())
}

fn first_grant() -> String {
    let contract = DOMAIN.verifying_contract;
    let key = "d4".repeat(32);
    grant_line(&format!(
        "--chain-id 20260 --contract {contract} --hpke-public-key {key} --treating --devices monitor-1,watch-1"
    ))
}

/// Which of the classes the clinic may open, as a gateway with these files sees it.
fn open(directory: &Path, now_s: u64) -> Vec<DataClass> {
    let document = files::load_document(&directory.join("policy.json")).expect("the policy file");
    let enrolment = files::load_enrolment(&directory.join("enrolment.toml")).expect("the enrolment file");
    let pins = enrolment.pins().expect("good pins");
    let (policy, refused) = verify_document(&document, &pins, &enrolment.domain, Freshness::Unproven);
    assert_eq!(refused, []);
    let opens = |class: &DataClass| policy.recipients(&PATIENT, *class, now_s).any(|one| one.id == CLINIC);
    DataClass::ALL.into_iter().filter(opens).collect()
}

fn refused(directory: &Path, line: &str) -> String {
    format!("{:#}", policy(directory, line, NOW_S).expect_err("to be refused"))
}

#[test]
fn a_patient_grants_narrows_revokes_and_grants_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    policy(directory, "new-patient-key --out {d}/patient.seed", NOW_S).expect("a seed");
    policy(directory, &first_grant(), NOW_S).expect("the first grant");
    assert_eq!(open(directory, NOW_S), [DataClass::Alarm, DataClass::Vitals]);
    assert!(open(directory, NOW_S - 1).is_empty() && open(directory, NOW_S + 30 * DAY_S).is_empty());

    let narrower = grant_line("").replace("vitals,alarm", "alarm");
    policy(directory, &narrower, NOW_S + 1).expect("a narrower grant");
    assert_eq!(open(directory, NOW_S + 1), [DataClass::Alarm]);

    policy(directory, &format!("revoke {} {}", files(), relationship()), NOW_S + 2).expect("a revocation");
    assert!(open(directory, NOW_S + 2).is_empty());
    let show = "show --policy {d}/policy.json --enrolment {d}/enrolment.toml";
    policy(directory, show, NOW_S + 2).expect("to be shown");

    policy(directory, &grant_line(""), NOW_S + 3).expect("a grant anew");
    assert_eq!(open(directory, NOW_S + 3), [DataClass::Alarm, DataClass::Vitals]);
    let document = files::load_document(&directory.join("policy.json")).expect("the policy file");
    assert_eq!((document.epoch, document.as_of), (4, NOW_S + 3));
    assert_eq!(document.patients[0].grants[0].grant.version, 3);
    assert_eq!(document.devices.len(), 2);
}

#[test]
fn the_seed_is_its_owners_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    policy(directory, "new-patient-key --out {d}/patient.seed", NOW_S).expect("a seed");
    let seed = directory.join("patient.seed");
    assert_eq!(fs::metadata(&seed).expect("metadata").mode() & 0o777, 0o600);
    assert!(refused(directory, "new-patient-key --out {d}/patient.seed").contains("exists already"));
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&seed, Permissions::from_mode(mode)).expect("a mode");
        let text = refused(directory, &first_grant());
        assert!(text.contains(&format!("mode {mode:04o}")), "{text}");
    }
    assert!(!directory.join("policy.json").exists(), "nothing was written");
    fs::set_permissions(&seed, Permissions::from_mode(0o600)).expect("a mode");
    fs::write(&seed, "00ff\n").expect("written");
    assert!(refused(directory, &first_grant()).contains("must hold 32 bytes in hexadecimal"));

    fs::remove_file(&seed).expect("removed");
    let secret = *create_seed(&seed).expect("a seed").as_bytes();
    policy(directory, &first_grant(), NOW_S).expect("a grant");
    for name in ["policy.json", "enrolment.toml"] {
        let path = directory.join(name);
        assert_eq!(fs::metadata(&path).expect("metadata").mode() & 0o007, 0, "{name} is not for everybody");
        let text = fs::read_to_string(&path).expect("text");
        assert!(!text.contains(&hex::encode(secret)), "{name} holds no secret");
    }
    assert_eq!(fs::read_dir(directory).expect("a listing").count(), 3, "no draft is left");
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    policy(directory, "new-patient-key --out {d}/patient.seed", NOW_S).expect("a seed");
    assert!(refused(directory, &grant_line("")).contains("give --chain-id and --contract"));
    let no_key = first_grant().replace(&format!("--hpke-public-key {} --treating", "d4".repeat(32)), "");
    assert!(refused(directory, &no_key).contains("give --hpke-public-key"));
    assert!(
        refused(directory, &first_grant().replace("--days 30", "--days 0")).contains("end after it begins")
    );
    assert!(refused(directory, &first_grant().replace("vitals", "vital")).contains("a class is one of"));

    policy(directory, &first_grant(), NOW_S).expect("a grant");
    let other_key = first_grant().replace(&"d4".repeat(32), &"d5".repeat(32));
    assert!(refused(directory, &other_key).contains("another HPKE key"));
    assert!(refused(directory, &first_grant().replace("20260", "20261")).contains("another ledger"));
    let other_patient = first_grant().replace(&PATIENT.to_string(), &"e6".repeat(16));
    assert!(refused(directory, &other_patient).contains("device monitor-1 is bound to another patient"));
    let revoke = format!("revoke {} --patient {PATIENT} --grantee {}", files(), "b9".repeat(20));
    assert!(refused(directory, &revoke).contains("has granted nothing"));
    let json = fs::read_to_string(directory.join("policy.json")).expect("text");
    fs::write(directory.join("policy.json"), json.replace("\"epoch\"", "\"era\"")).expect("written");
    assert!(refused(directory, "show --policy {d}/policy.json").contains("unknown field `era`"));
}

#[test]
fn the_demo_opens_for_every_recipient() {
    let seeds =
        [ledger_client::wallet::PatientSeed::generate(), ledger_client::wallet::PatientSeed::generate()];
    let device = |name| DeviceId::new(name).expect("a name");
    let patients = [
        DemoPatient { patient: PATIENT, seed: &seeds[0], devices: vec![device("a-1"), device("a-2")] },
        DemoPatient { patient: PatientId([0xe6; 16]), seed: &seeds[1], devices: vec![device("b-1")] },
    ];
    let recipient = |byte| RecipientEntry {
        id: RecipientId([byte; 20]),
        hpke_public_key: [byte; 32],
        status: RecipientStatus::Active,
        kind: RecipientKind::Treating,
    };
    let recipients = [recipient(1), recipient(2)];
    let terms = Terms::treatment(NOW_S, NOW_S + DAY_S);
    let (document, enrolment) =
        demo_document(&patients, &recipients, DOMAIN, &terms, NOW_S).expect("a policy");
    let pins = enrolment.pins().expect("good pins");
    let (policy, refused) = verify_document(&document, &pins, &DOMAIN, Freshness::Unproven);
    assert_eq!(refused, []);
    assert_eq!(policy.epoch(), 1);
    for DemoPatient { patient, devices, .. } in &patients {
        assert!(devices.iter().all(|device| policy.patient_of(device) == Some(*patient)));
        for class in DataClass::ALL {
            assert_eq!(policy.recipients(patient, class, NOW_S).count(), 2);
        }
    }
    let crossed = [
        DemoPatient { patient: PATIENT, seed: &seeds[0], devices: vec![device("a-1")] },
        DemoPatient { patient: PatientId([0xe6; 16]), seed: &seeds[1], devices: vec![device("a-1")] },
    ];
    assert!(demo_document(&crossed, &recipients, DOMAIN, &terms, NOW_S).is_err(), "one device, two patients");
}
