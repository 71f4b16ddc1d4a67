//! Whose a pseudonym is, as the store keeps it.

use caregate_protocol::id::SignerId;
use redb::TableDefinition;

use super::rows::OwnerRow;
use super::*;

of_both! {
    a_pseudonym_is_whose_record_came_last,
    it_stays_so_when_the_records_are_gone,
    of_a_store_of_an_earlier_build_it_is_found_out,
}

fn device_of(gateway: u8) -> SigningKey {
    SigningKey::from_bytes(&[gateway; 32])
}

fn signer(gateway: u8) -> SignerId {
    signer_id(&device_of(gateway).verifying_key())
}

/// A segment by a gateway's key.
fn by(gateway: u8, patient: u8, sequence: u64) -> Vec<u8> {
    by_of(DataClass::Vitals, gateway, patient, sequence)
}

fn by_of(class: DataClass, gateway: u8, patient: u8, sequence: u64) -> Vec<u8> {
    let device = device_of(gateway);
    let header = Header {
        class,
        cipher: Cipher::Aes256Gcm,
        patient: PatientId([patient; 16]),
        signer: signer(gateway),
        generation: 0,
        epoch: EPOCH,
        sequence,
        prev: SegmentHash::NONE,
        salt: [9; 16],
        sealed_us: 0,
        readings: 0,
    };
    let key = PatientRoot::from_bytes([7; 32]).class_key(class, 0).epoch_key(EPOCH).unwrap();
    header.seal(b"readings", &key, &device).unwrap().0
}

fn wrap_by(gateway: u8, patient: u8, depth: u8) -> Vec<u8> {
    let (class, patient) = (DataClass::Vitals, PatientId([patient; 16]));
    let scope = WrapScope { class, patient, generation: 0, recipient: recipient(1) };
    let node = TreeNode::new(EPOCH, depth, [0; 32]).unwrap();
    scope.seal(&node, &public_key(), &device_of(gateway)).unwrap().to_vec()
}

fn head_by(gateway: u8, patient: u8, next: u64) -> Vec<u8> {
    let (class, patient) = (DataClass::Vitals, PatientId([patient; 16]));
    let head =
        Head { class, patient, generation: 0, epoch: EPOCH, made_us: 5, next, last: SegmentHash([8; 32]) };
    head.sign(&device_of(gateway)).to_vec()
}

/// Of each pseudonym the key that is its owner's, the lowest pseudonym first.
fn owners(store: &dyn Store) -> Vec<SignerId> {
    store.owners().unwrap().into_iter().map(|(_, signer)| signer).collect()
}

fn a_pseudonym_is_whose_record_came_last(kind: Kind) {
    let world = World::new(kind);
    assert!(owners(world.store()).is_empty());
    world.store().put(&[by(1, 1, 0), by(1, 2, 0), by(1, 1, 1)]).unwrap();
    assert_eq!(owners(world.store()), [signer(1); 2]);
    world.store().put(&[by(2, 1, 2), by(2, 1, 3)]).unwrap();
    let world = world.reopened();
    assert_eq!(owners(world.store()), [signer(2), signer(1)]);
    // What was there is nobody's anew.
    assert_eq!(world.put(&by(1, 1, 0)), Outcome::Known);
    assert_eq!(owners(world.store()), [signer(2), signer(1)]);
    // In one commit, in either order.
    world.store().put(&[by(2, 1, 4), by(1, 1, 5), by(1, 2, 5), by(2, 2, 6)]).unwrap();
    assert_eq!(owners(world.store()), [signer(1), signer(2)]);
    world.store().put(&[wrap_by(2, 1, TREE_DEPTH), head_by(1, 2, 9)]).unwrap();
    let world = world.reopened();
    assert_eq!(owners(world.store()), [signer(2), signer(1)]);
}

/// The first gateway's wrap outlives what the second stored.
fn it_stays_so_when_the_records_are_gone(kind: Kind) {
    let mut world = World::new(kind);
    let wrap = wrap_by(1, 1, TREE_DEPTH - 2);
    world.store().put(&[wrap.clone(), by(1, 1, 0)]).unwrap();
    world.put(&by(2, 1, 1));
    // The newest of all stays in any case.
    world.put(&by(1, 2, 0));
    assert_eq!(retention::expired(world.store(), EPOCH + 1), 2);
    if kind != Kind::Embedded {
        // Tables that are made anew know it too.
        world.store = None;
        std::fs::remove_file(world.dir.path().join("index.redb")).unwrap();
    }
    let world = world.reopened();
    let left = world.store().page(recipient(1), 0, u64::MAX, PAGE_BYTES).unwrap().records;
    assert_eq!(left, [(0, wrap)]);
    assert_eq!(owners(world.store()), [signer(2), signer(1)]);
}

fn of_a_store_of_an_earlier_build_it_is_found_out(kind: Kind) {
    let mut world = World::new(kind);
    let batch = [
        // By segments, in both orders of the keys; by a wrap; by a head; and of one gateway alone.
        [by(1, 1, 0), by(2, 1, 1), by(2, 2, 0), by(1, 2, 1)],
        [by(1, 3, 0), wrap_by(2, 3, TREE_DEPTH), by(2, 4, 0), wrap_by(1, 4, TREE_DEPTH)],
        [by(1, 5, 0), head_by(2, 5, 9), by(2, 6, 0), head_by(1, 6, 9)],
        [by(1, 7, 0), by(2, 8, 0), by(1, 7, 1), by(2, 8, 1)],
    ];
    batch.iter().flatten().for_each(|record| assert_eq!(world.put(record), Outcome::Stored));
    let expected = [2, 1, 2, 1, 2, 1, 1, 2].map(signer);
    assert_eq!(owners(world.store()), expected);
    world.store = None;
    let file = if kind == Kind::Embedded { "core.redb" } else { "index.redb" };
    let db = redb::Database::open(world.dir.path().join(file)).unwrap();
    let txn = db.begin_write().unwrap();
    assert!(txn.delete_table(TableDefinition::<&[u8], &[u8]>::new("owners")).unwrap());
    txn.commit().unwrap();
    drop(db);
    let world = world.reopened();
    assert_eq!(owners(world.store()), expected);
    world.put(&by(1, 1, 7));
    let world = world.reopened();
    assert_eq!(owners(world.store())[..2], [signer(1); 2]);
}

/// A commit has more messages than are read at once, and the last is of an older record by who had lost the pseudonym.
#[cfg(feature = "nats")]
#[test]
fn tables_that_are_made_of_parts_of_the_stream_come_to_the_same_owner() {
    const PATIENT: u8 = 255;
    let stream = nats::TestStream::new();
    let [first, behind, anew] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let open = |dir: &TempDir| jetstream::JetStream::open(dir.path(), &stream.settings()).unwrap();
    let owner = |store: &dyn Store| owners(store).pop();
    let store = open(&first);
    store.put(&[by(2, PATIENT, 0)]).unwrap();
    drop(open(&behind));
    // Alarms' messages are first, then vitals' by patient.
    let mut batch: Vec<_> = (0..PATIENT).map(|patient| by(3, patient, 0)).collect();
    batch.extend([by(1, PATIENT, 1), by_of(DataClass::Alarm, 2, PATIENT, 0)]);
    assert!(store.put(&batch).unwrap().iter().all(|outcome| *outcome == Outcome::Stored));
    assert_eq!(owner(&store), Some(signer(2)));
    for dir in [&behind, &anew] {
        assert_eq!(owner(&open(dir)), Some(signer(2)));
    }
    assert_eq!(store.messages(), 258);
}

#[test]
fn a_row_has_its_bytes() {
    let row = OwnerRow { since: 258, signer: SignerId([3; 8]) };
    assert_eq!(hex::encode(row.encode()), "00000000000001020303030303030303");
    assert_eq!(OwnerRow::decode(&row.encode()), Some(row));
    assert!((0..16).all(|cut| OwnerRow::decode(&row.encode()[..cut]).is_none()));
    assert_eq!(OwnerRow::decode(&[0; 17]), None);
}
