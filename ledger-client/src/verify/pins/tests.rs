use caregate_protocol::id::DataClass;

use super::*;

const TEXT: &str = r#"
[ledger]
chain_id = 4711
contract = "0xc0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0"
validators = ["0x0101010101010101010101010101010101010101"]

[[patient]]
patient = "e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5"
home_key = "0x0202020202020202020202020202020202020202"
pseudonym = "0xe1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1"

[[patient.relationship]]
label = "City hospital"
grant_key = "0x1111111111111111111111111111111111111111"
revoke_key = "0x2222222222222222222222222222222222222222"

[[patient.device]]
device = "ecg-1"
mac = "02:00:00:00:00:01"
salt = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
"#;

fn file() -> Enrolment {
    toml::from_str(TEXT).unwrap()
}

fn refusal(change: impl FnOnce(&mut Enrolment)) -> String {
    let mut file = file();
    change(&mut file);
    file.pins().unwrap_err().to_string()
}

#[test]
fn the_file_is_read_as_it_is_written() {
    let file = file();
    assert_eq!(file.ledger.staleness_max_s, 600);
    assert_eq!(file.patients[0].devices[0].mac, Mac([2, 0, 0, 0, 0, 1]));
    let text = toml::to_string(&file).unwrap();
    assert_eq!(toml::from_str::<Enrolment>(&text).unwrap(), file);
    let unknown = TEXT.replace("revoke_key", "revocation_key");
    let error = toml::from_str::<Enrolment>(&unknown).unwrap_err();
    assert!(error.message().contains("unknown field `revocation_key`"), "{error}");
    let short = TEXT.replace("02:00:00:00:00:01", "02:00:00:00:01");
    assert!(toml::from_str::<Enrolment>(&short).unwrap_err().message().contains("MAC address"));
}

#[test]
fn rules_of_class_are_read_and_change_the_commitment_that_is_pinned() {
    let with =
        |rules: &str| toml::from_str::<Enrolment>(&format!("{TEXT}\n[patient.device.classes]\n{rules}\n"));
    let ruled = with("all = \"activity\"\nheart-rate = \"sensitive\"").unwrap();
    assert_eq!(toml::from_str::<Enrolment>(&toml::to_string(&ruled).unwrap()).unwrap(), ruled);
    let pins = ruled.pins().unwrap();
    let (id, pin) = pins.devices.first_key_value().unwrap();
    // As in `slots`.
    assert_eq!(hex::encode(id.0), "e47eb0d511bc13e419cbef25e5ead20842acb3ebd4e15d48d6cf8e005a07e179");
    assert_eq!(
        (pin.classes.class_of(1), pin.classes.class_of(2)),
        (DataClass::Sensitive, DataClass::Activity)
    );
    assert!(file().pins().unwrap().devices.keys().all(|other| other != id));
    for (rules, said) in [
        ("fall = \"activity\"", "`fall` is an alarm"),
        ("spo2 = \"alarm\"", "alarms are not made by rules"),
        ("heart = \"vitals\"", "`heart` is no quantity"),
    ] {
        let error = with(rules).unwrap_err();
        assert!(error.message().contains(said), "{error}");
    }
}

#[test]
fn pins_are_named_as_the_contract_names_them() {
    let pins = file().pins().unwrap();
    // As in `slots`: made with npm ethers 6.
    let relationship: RelationshipId =
        "0x1bbe365357fe28ec15df954baa1b29fb309dd0e8a21208d768bce9ab1c0c4fd0".parse().unwrap();
    assert_eq!(pins.relationships[&relationship].label, "City hospital");
    let commitment = "a04010adb0db941b6a56e7d7c6c4efc0c3ff81627b6e67108310421173afaaa2";
    let (id, device) = pins.devices.first_key_value().unwrap();
    assert_eq!((hex::encode(id.0).as_str(), device.index), (commitment, 0));
    assert_eq!(pins.domain, Domain { chain_id: 4711, verifying_contract: Address([0xc0; 20]) });
    let watch = pins.watch();
    assert_eq!(watch.relationships, [relationship]);
    assert_eq!(watch.bindings, [slots::binding_key(&Address([2; 20]), id)]);
    assert_eq!(watch.pseudonyms, [Pseudonym([0xe1; 32])]);
}

#[test]
fn what_is_wrong_is_named_by_its_key() {
    assert_eq!(
        refusal(|file| file.ledger.validators.clear()),
        "enrolment at ledger.validators: 0 entries, allowed are 1 to 64"
    );
    assert_eq!(
        refusal(|file| file.ledger.validators.push(Address([1; 20]))),
        "enrolment at ledger.validators[1]: an earlier entry has the same"
    );
    assert_eq!(
        refusal(|file| file.ledger.staleness_max_s = 0),
        "enrolment at ledger.staleness_max_s: must be 30 to 86400"
    );
    let again = |change: fn(&mut EnrolledPatient)| {
        refusal(|file| {
            let mut second = EnrolledPatient {
                patient: PatientId([7; 16]),
                home_key: Address([7; 20]),
                pseudonym: None,
                relationships: Vec::new(),
                devices: Vec::new(),
            };
            change(&mut second);
            file.patients.push(second);
        })
    };
    let of = |text: &str| format!("enrolment at patient[1].{text}: an earlier entry has the same");
    assert_eq!(again(|second| second.patient = PatientId([0xe5; 16])), of("patient"));
    assert_eq!(again(|second| second.home_key = Address([0x22; 20])), of("home_key"));
    assert_eq!(again(|second| second.pseudonym = Some(Pseudonym([0xe1; 32]))), of("pseudonym"));
    let relation = |grant, revoke| EnrolledRelationship {
        label: "Clinic".into(),
        grant_key: Address([grant; 20]),
        revoke_key: Address([revoke; 20]),
    };
    let with = |label: &str, grant, revoke| {
        let one = EnrolledRelationship { label: label.into(), ..relation(grant, revoke) };
        refusal(|file| file.patients[0].relationships.push(one))
    };
    let key = |name| format!("enrolment at patient[0].relationship[1].{name}: an earlier entry has the same");
    assert_eq!(with("Clinic", 0x11, 9), key("grant_key"), "a key is of one relationship");
    assert_eq!(with("Clinic", 9, 9), key("revoke_key"), "a revoke-only key that could grant is none");
    assert_eq!(
        with("", 8, 9),
        "enrolment at patient[0].relationship[1].label: must be 1 to 64 bytes of text"
    );
    assert_eq!(with("a\nb", 8, 9), with("", 8, 9));
    let device = |change: fn(&mut EnrolledDevice)| {
        refusal(|file| {
            let mut second = EnrolledDevice {
                device: DeviceId::new("b").unwrap(),
                mac: Mac([2; 6]),
                salt: Salt([1; 32]),
                classes: Classes::default(),
            };
            change(&mut second);
            file.patients[0].devices.push(second);
        })
    };
    let of = |text: &str| format!("enrolment at patient[0].device[1].{text}");
    assert_eq!(device(|d| d.mac = Mac([1; 6])), of("mac: must be a unicast address"));
    assert_eq!(device(|d| d.mac = Mac([2, 0, 0, 0, 0, 1])), of("mac: an earlier entry has the same"));
    assert_eq!(
        device(|d| d.device = DeviceId::new("ecg-1").unwrap()),
        of("device: an earlier entry has the same")
    );
}

#[test]
fn lists_are_bounded() {
    let crowd = |file: &mut Enrolment| file.patients = vec![file.patients[0].clone(); PATIENTS_MAX + 1];
    assert_eq!(refusal(crowd), "enrolment at patient: 257 entries, allowed are 0 to 256");
    let many = |file: &mut Enrolment| {
        file.patients[0].relationships = vec![file.patients[0].relationships[0].clone(); GRANTS_MAX + 1];
    };
    assert_eq!(refusal(many), "enrolment at patient[0].relationship: 65 entries, allowed are 0 to 64");
    let (mut wide, mut key) = (file(), 0_u32);
    let mut next = || {
        key += 1;
        let mut address = [3; 20];
        address[..4].copy_from_slice(&key.to_be_bytes());
        Address(address)
    };
    wide.patients = (0..17_u8)
        .map(|n| EnrolledPatient {
            patient: PatientId([n; 16]),
            home_key: next(),
            pseudonym: None,
            relationships: (0..61)
                .map(|_| EnrolledRelationship { label: "x".into(), grant_key: next(), revoke_key: next() })
                .collect(),
            devices: Vec::new(),
        })
        .collect();
    assert_eq!(
        wide.pins().unwrap_err().to_string(),
        "enrolment at patient.relationship: 1037 entries, allowed are 0 to 1024"
    );
}
