use caregate_protocol::id::{DeviceId, RecipientId, StreamName};
use caregate_protocol::reading::Value;
use caregate_protocol::segment::{Cipher, Header, SegmentHash, signer_id};
use caregate_protocol::wrap::{WrapScope, generate_keypair};
use ed25519_dalek::SigningKey;

use super::*;

const PATIENT: PatientId = PatientId([1; 16]);
const RECIPIENT: RecipientId = RecipientId([2; 20]);
const CLASS: DataClass = DataClass::Vitals;

fn root() -> PatientRoot {
    PatientRoot::from_bytes([3; 32])
}

fn device() -> SigningKey {
    SigningKey::from_bytes(&[4; 32])
}

fn segment(generation: u32, epoch: u32, sequence: u64) -> Vec<u8> {
    let reading = Reading {
        device: DeviceId::new("m").unwrap(),
        stream: StreamName::new("heart-rate").unwrap(),
        seq: Some(sequence),
        sensor_time_us: None,
        gateway_time_us: 5,
        flags: 0,
        value: Value::Numeric { quantity: 1, value: 60.0 },
    };
    let header = Header {
        class: CLASS,
        cipher: Cipher::ChaCha20Poly1305,
        patient: PATIENT,
        signer: signer_id(&device().verifying_key()),
        generation,
        epoch,
        sequence,
        prev: SegmentHash::NONE,
        salt: [6; 16],
        sealed_us: i64::from(epoch) * 60_000_000,
        readings: 1,
    };
    let key = root().class_key(CLASS, generation).epoch_key(epoch).unwrap();
    header.seal(&reading::encode(&[reading]), &key, &device()).unwrap().0
}

fn wrap(generation: u32, epoch: u32, to: &HpkePrivateKey) -> Vec<u8> {
    let scope = WrapScope { class: CLASS, patient: PATIENT, generation, recipient: RECIPIENT };
    let node = root().class_key(CLASS, generation).descend(epoch, 32).unwrap();
    scope.seal(&node, &to.public_key().unwrap(), &device()).unwrap().to_vec()
}

fn audit(records: Vec<Vec<u8>>, keys: &[HpkePrivateKey]) -> Vec<Line> {
    let audit = Audit { records: (0..).zip(records).collect(), roots: [(PATIENT, root())].into() };
    let mut out = Vec::new();
    let count = audit.write(keys, &[device().verifying_key()], &mut out).unwrap();
    let lines: Vec<Line> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, count);
    lines
}

#[test]
fn a_key_opens_the_epochs_that_it_has_wraps_of_and_no_other() {
    let (holder, stranger) = (generate_keypair().0, generate_keypair().0);
    let records = vec![
        // The wrap may come after its segment.
        segment(0, 10, 0),
        wrap(0, 10, &holder),
        segment(0, 11, 1),
        segment(1, 10, 2),
    ];
    let lines = audit(records, &[holder, stranger]);
    let found: Vec<_> = lines.iter().map(|line| (line.seq.unwrap(), line.openable.clone())).collect();
    assert_eq!(found, [(0, vec![true, false]), (1, vec![false, false]), (2, vec![false, false])]);
    assert!((lines[0].sealed_ms - 600_000.0).abs() < f64::EPSILON);
}

#[test]
fn what_the_root_does_not_open_is_an_error() {
    let mut bytes = segment(0, 10, 0);
    let at = bytes.len() - 70;
    bytes[at] ^= 1;
    let audit = Audit { records: vec![(7, bytes)], roots: [(PATIENT, root())].into() };
    let error = audit.write(&[], &[], Vec::new()).unwrap_err().to_string();
    assert!(error.starts_with("record 7:"), "{error}");
    let audit = Audit { records: vec![(8, b"rubbish".to_vec())], roots: HashMap::new() };
    assert!(matches!(audit.write(&[], &[], Vec::new()), Err(AuditError::Record { index: 8, .. })));
}
