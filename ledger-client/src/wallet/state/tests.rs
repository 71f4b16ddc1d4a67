use caregate_protocol::cbor::CborError;
use caregate_protocol::id::DataClass;
use caregate_protocol::policy::DEVICES_MAX;
use proptest::prelude::*;

use super::*;
use crate::verify::{binding_digest, grant_digest, revocation_digest, signer};

const DOMAIN: Domain = Domain { chain_id: 4711, verifying_contract: Address([0xc0; 20]) };
const HOSPITAL: RecipientId = RecipientId([0xb2; 20]);
const TERMS: Terms = Terms { classes: 3, purposes: 1, from: 100, until: 200, stale_bound_s: 60 };
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn ecg() -> DeviceId {
    DeviceId::new("ecg-1").unwrap()
}

fn wallet() -> Wallet {
    let mut wallet = Wallet::new(PatientSeed::from_bytes([0x5e; 32]));
    wallet.ledger = Some(Ledger { domain: DOMAIN, validators: vec![Address([7; 20])] });
    wallet.add_relationship("City", HOSPITAL).unwrap();
    wallet.add_device("gateway-1", &ecg(), MAC).unwrap();
    wallet
}

#[test]
fn versions_rise_over_grants_and_revocations() {
    let mut wallet = wallet();
    let keys = wallet.keys("City").unwrap();
    let first = wallet.sign_grant("City", &TERMS).unwrap();
    assert_eq!((first.grant.version, first.grant.grantee), (1, HOSPITAL));
    assert_eq!(first.grant.relationship, keys.relationship());
    assert_eq!(signer(&grant_digest(&first.grant, &DOMAIN), &first.signature), Ok(keys.grant.address()));
    let revoked = wallet.sign_revocation("City").unwrap();
    assert_eq!(revoked.revocation.version, 1);
    let digest = revocation_digest(&revoked.revocation, &DOMAIN);
    assert_eq!(signer(&digest, &revoked.signature), Ok(keys.grant.address()));
    assert_eq!(wallet.sign_grant("City", &TERMS).unwrap().grant.version, 2);
    wallet.note_versions("City", 9, 4).unwrap();
    assert_eq!(wallet.sign_revocation("City").unwrap().revocation.version, 9);
    assert_eq!(wallet.sign_grant("City", &TERMS).unwrap().grant.version, 10);
    assert_eq!(wallet.sign_revocation_for_good("City").unwrap().revocation.version, u64::MAX);
    assert!(matches!(wallet.sign_grant("City", &TERMS), Err(WalletError::NoVersion(_))));
}

#[test]
fn a_revocation_before_any_grant_takes_the_first_version() {
    let mut wallet = wallet();
    assert_eq!(wallet.sign_revocation("City").unwrap().revocation.version, 1);
    assert_eq!(wallet.sign_grant("City", &TERMS).unwrap().grant.version, 2);
}

#[test]
fn a_grant_of_nothing_is_refused_and_takes_no_version() {
    let mut wallet = wallet();
    for terms in
        [Terms { classes: 0, ..TERMS }, Terms { purposes: 0, ..TERMS }, Terms { until: 100, ..TERMS }]
    {
        assert_eq!(wallet.sign_grant("City", &terms), Err(WalletError::EmptyGrant));
    }
    assert_eq!(wallet.sign_grant("County", &TERMS), Err(WalletError::NoRelationship("County".into())));
    assert_eq!(wallet.relationship("City").unwrap().granted, 0);
    wallet.ledger = None;
    assert_eq!(wallet.sign_grant("City", &TERMS), Err(WalletError::NoLedger));
}

#[test]
fn a_second_relationship_with_a_domain_shares_nothing_with_the_first() {
    let mut wallet = wallet();
    assert_eq!(wallet.add_relationship("City, again", HOSPITAL).unwrap().number, 1);
    assert_ne!(
        wallet.keys("City").unwrap().relationship(),
        wallet.keys("City, again").unwrap().relationship()
    );
    let twice = wallet.add_relationship("City", HOSPITAL).map(|_| ());
    assert!(matches!(twice, Err(WalletError::Duplicate { what: "relationship", .. })));
    for label in ["", "a\nb", &"x".repeat(LABEL_BYTES_MAX + 1)] {
        assert!(matches!(wallet.add_relationship(label, HOSPITAL), Err(WalletError::Name { .. })), "{label}");
    }
    for nth in 2..GRANTS_MAX {
        wallet.add_relationship(&format!("no {nth}"), HOSPITAL).unwrap();
    }
    assert!(matches!(wallet.add_relationship("one more", HOSPITAL), Err(WalletError::TooMany { .. })));
}

#[test]
fn rotated_keys_grant_and_the_first_ones_revoke() {
    let mut wallet = wallet();
    let (name, first) = (wallet.name("City").unwrap(), wallet.keys("City").unwrap());
    let (next, signature) = wallet.sign_rotation("City").unwrap();
    assert_eq!((next.relationship, next.version), (name, 1));
    assert_eq!(signer(&next.rotation_digest(&DOMAIN), &signature), Ok(first.grant.address()));
    let stranger = Address([7; 20]);
    assert_eq!(wallet.note_keys("City", 1, &stranger), Err(WalletError::OtherKeys("City".into())));
    wallet.note_keys("City", 1, &next.grant_key).unwrap();
    assert_eq!(wallet.name("City").unwrap(), name);
    let granted = wallet.sign_grant("City", &TERMS).unwrap();
    assert_eq!(granted.grant.relationship, name);
    assert_eq!(signer(&grant_digest(&granted.grant, &DOMAIN), &granted.signature), Ok(next.grant_key));
    let revoked = wallet.sign_revocation("City").unwrap();
    let digest = revocation_digest(&revoked.revocation, &DOMAIN);
    assert_eq!(signer(&digest, &revoked.signature), Ok(first.grant.address()));
    assert_eq!(wallet.next_keys("City").unwrap().version, 2);
    assert_ne!(wallet.next_keys("City").unwrap().grant_key, next.grant_key);
    assert_eq!(wallet.enrolled("gateway-1").unwrap().relationships[0].grant_key, first.grant.address());
}

#[test]
fn a_recovered_relationship_keeps_its_name_and_has_another_seeds_keys() {
    let lost = wallet();
    let (name, first) = (lost.name("City").unwrap(), lost.keys("City").unwrap());
    let mut wallet = Wallet::new(PatientSeed::generate());
    wallet.ledger = Some(Ledger { domain: DOMAIN, validators: Vec::new() });
    let addresses = (first.grant.address(), first.revoke.address());
    let zero = wallet.recover_relationship("City", HOSPITAL, addresses, 0);
    assert!(matches!(zero, Err(WalletError::NoVersion(_))));
    wallet.recover_relationship("City", HOSPITAL, addresses, 3).unwrap();
    assert_eq!(wallet.name("City").unwrap(), name);
    assert_eq!(wallet.note_keys("City", 2, &addresses.0), Err(WalletError::NotYet("City".into())));
    let keys = wallet.current_keys("City").unwrap();
    assert_eq!(wallet.note_keys("City", 3, &keys.grant.address()), Ok(()));
    let granted = wallet.sign_grant("City", &TERMS).unwrap();
    assert_eq!(granted.grant.relationship, name);
    let revoked = wallet.sign_revocation("City").unwrap();
    let digest = revocation_digest(&revoked.revocation, &DOMAIN);
    assert_eq!(signer(&digest, &revoked.signature), Ok(keys.grant.address()));
    wallet.add_device("gateway-1", &ecg(), MAC).unwrap();
    let enrolled = wallet.enrolled("gateway-1").unwrap();
    assert_eq!(enrolled.relationships[0], first.enrolled("City"), "gateways go on with what they pinned");
    let custody = wallet.sign_custody("City", &[9; 32], 2).unwrap();
    let digest = crate::verify::custody_digest(&name, &[9; 32], 2, &DOMAIN);
    assert_eq!(signer(&digest, &custody), Ok(keys.grant.address()));
    assert!(same(&Wallet::decode(&wallet.encode()).unwrap(), &wallet));
}

#[test]
fn devices_are_bound_by_the_home_key_under_a_salted_commitment() {
    let mut wallet = wallet();
    let commitment = wallet.enrolled_device("gateway-1", &ecg()).unwrap().commitment();
    let bound = wallet.sign_binding("gateway-1", &ecg(), true).unwrap();
    assert_eq!((bound.commitment, bound.bound, bound.version), (commitment, true, 1));
    let digest = binding_digest(&commitment, true, 1, &DOMAIN);
    let home = wallet.seed.home_key("gateway-1").unwrap().address();
    assert_eq!(signer(&digest, &bound.signature), Ok(home));
    assert_eq!(wallet.binding_key("gateway-1", &ecg()).unwrap(), slots::binding_key(&home, &commitment));
    assert_eq!(wallet.sign_binding("gateway-1", &ecg(), false).unwrap().version, 2);
    let elsewhere = wallet.add_device("gateway-2", &ecg(), MAC);
    assert_eq!(elsewhere, Ok(()));
    assert_ne!(wallet.enrolled_device("gateway-2", &ecg()).unwrap().commitment(), commitment);
    let group = Mac([1, 0, 0, 0, 0, 1]);
    assert_eq!(wallet.add_device("gateway-1", &ecg(), group), Err(WalletError::Mac(group)));
}

#[test]
fn a_bound_device_keeps_its_address_and_a_released_one_begins_anew() {
    let mut wallet = wallet();
    let other = Mac([2, 0, 0, 0, 0, 2]);
    wallet.sign_binding("gateway-1", &ecg(), true).unwrap();
    assert!(matches!(wallet.add_device("gateway-1", &ecg(), other), Err(WalletError::Duplicate { .. })));
    wallet.sign_binding("gateway-1", &ecg(), false).unwrap();
    wallet.add_device("gateway-1", &ecg(), other).unwrap();
    assert_eq!(wallet.sign_binding("gateway-1", &ecg(), true).unwrap().version, 1);
    wallet.note_binding("gateway-1", &ecg(), 7);
    assert_eq!(wallet.sign_binding("gateway-1", &ecg(), false).unwrap().version, 8);
}

#[test]
fn a_bound_device_keeps_its_classes_and_other_classes_are_another_commitment() {
    let mut wallet = wallet();
    let heart_rate = Some(caregate_protocol::code::by_name("heart-rate").unwrap());
    let commitment = |wallet: &Wallet| wallet.enrolled_device("gateway-1", &ecg()).unwrap().commitment();
    let plain = commitment(&wallet);
    wallet.sign_binding("gateway-1", &ecg(), true).unwrap();
    let refused = wallet.classify("gateway-1", &ecg(), heart_rate, Some(DataClass::Sensitive)).map(|_| ());
    assert_eq!(refused, Err(WalletError::Bound(ecg())), "the ledger would go on to vouch for the table");
    assert_eq!(commitment(&wallet), plain);
    wallet.classify("gateway-1", &ecg(), heart_rate, None).unwrap();
    wallet.sign_binding("gateway-1", &ecg(), false).unwrap();
    wallet.classify("gateway-1", &ecg(), heart_rate, Some(DataClass::Sensitive)).unwrap();
    let bound = wallet.sign_binding("gateway-1", &ecg(), true).unwrap();
    assert_eq!((bound.commitment, bound.version), (commitment(&wallet), 1));
    assert_ne!(bound.commitment, plain);
    let again = Wallet::decode(&wallet.encode()).unwrap();
    assert!(same(&again, &wallet) && commitment(&again) == bound.commitment);
    let fall = Some(caregate_protocol::code::by_name("fall").unwrap());
    let refused = wallet.classify("gateway-1", &ecg(), fall, Some(DataClass::Sensitive)).map(|_| ());
    assert_eq!(refused, Err(WalletError::Classes(ClassesError::Alarm("fall"))));
    let elsewhere = wallet.classify("gateway-2", &ecg(), heart_rate, None).map(|_| ());
    assert_eq!(elsewhere, Err(WalletError::NoGateway("gateway-2".into())));
}

#[test]
fn what_a_gateway_pins_fits_what_the_wallet_signs() {
    let mut wallet = wallet();
    let ledger = crate::verify::LedgerPin {
        chain_id: DOMAIN.chain_id,
        contract: DOMAIN.verifying_contract,
        validators: vec![Address([7; 20])],
        staleness_max_s: 600,
    };
    let patients = vec![wallet.enrolled("gateway-1").unwrap()];
    let pins = crate::verify::Enrolment { ledger, patients }.pins().unwrap();
    let grant = wallet.sign_grant("City", &TERMS).unwrap();
    assert_eq!(pins.relationships[&grant.grant.relationship].label, "City");
    let bound = wallet.sign_binding("gateway-1", &ecg(), true).unwrap();
    assert_eq!(pins.devices[&bound.commitment].mac, MAC);
    assert!(pins.pseudonyms.contains_key(&wallet.seed.pseudonym(0)));
    let first = wallet.emergency_pseudonym();
    wallet.renew_pseudonym().unwrap();
    let renewed = Wallet::decode(&wallet.encode()).unwrap();
    assert!(same(&renewed, &wallet));
    assert_eq!(renewed.enrolled("gateway-1").unwrap().pseudonym, Some(wallet.emergency_pseudonym()));
    assert_ne!(wallet.emergency_pseudonym(), first);
    wallet.pseudonym = u32::MAX;
    assert_eq!(wallet.renew_pseudonym(), Err(WalletError::Pseudonyms));
    wallet.home_mut("gateway-1").unwrap().emergency = false;
    assert_eq!(wallet.enrolled("gateway-1").unwrap().pseudonym, None);
    assert_eq!(wallet.enrolled("gateway-9"), Err(WalletError::NoGateway("gateway-9".into())));
}

fn same(left: &Wallet, right: &Wallet) -> bool {
    left.seed.as_bytes() == right.seed.as_bytes()
        && left.pseudonym == right.pseudonym
        && left.ledger == right.ledger
        && left.relationships == right.relationships
        && left.homes == right.homes
        && left.erased == right.erased
}

#[test]
fn a_wallet_is_read_as_it_was_written() {
    let mut full = wallet();
    full.sign_grant("City", &TERMS).unwrap();
    full.classify("gateway-1", &ecg(), None, Some(DataClass::Sensitive)).unwrap();
    full.sign_binding("gateway-1", &ecg(), true).unwrap();
    let mut rotated = wallet();
    let next = rotated.next_keys("City").unwrap();
    rotated.note_keys("City", 1, &next.grant_key).unwrap();
    rotated.recover_relationship("Lost", HOSPITAL, (Address([1; 20]), Address([2; 20])), 5).unwrap();
    for wallet in [full, rotated, Wallet::new(PatientSeed::generate())] {
        let bytes = wallet.encode();
        assert!(same(&Wallet::decode(&bytes).unwrap(), &wallet));
        for len in 0..bytes.len() {
            assert!(Wallet::decode(&bytes[..len]).is_err(), "{len}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        let trailing = WalletFormatError::Cbor(CborError::Trailing { extra: 1 });
        assert_eq!(Wallet::decode(&longer).map(|_| ()), Err(trailing));
    }
    let future = [0x85, 3];
    assert_eq!(Wallet::decode(&future).map(|_| ()), Err(WalletFormatError::Format(3)));
}

#[test]
fn the_largest_wallet_fits_a_keystore() {
    let mut wallet = wallet();
    for nth in 1..GRANTS_MAX {
        wallet.add_relationship(&format!("{nth:064}"), HOSPITAL).unwrap();
    }
    for nth in 0..DEVICES_MAX {
        let id = DeviceId::new(&format!("{nth:064}")).unwrap();
        wallet.add_device("gateway-2", &id, MAC).unwrap();
        for row in caregate_protocol::code::QUANTITIES.iter().filter(|row| row.class != DataClass::Alarm) {
            wallet.classify("gateway-2", &id, Some(row), Some(DataClass::Sensitive)).unwrap();
        }
    }
    let bytes = wallet.encode();
    assert!(bytes.len() < super::super::keystore::KEYSTORE_BYTES_MAX / 2, "{}", bytes.len());
    assert!(same(&Wallet::decode(&bytes).unwrap(), &wallet));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(wallet) = Wallet::decode(&bytes) {
            prop_assert!(same(&Wallet::decode(&wallet.encode()).unwrap(), &wallet));
        }
    }
}

#[test]
fn an_erased_home_leaves_name_and_pseudonym_and_nothing_that_makes_its_salts() {
    let mut wallet = wallet();
    let (patient, before) = (wallet.patient_at("gateway-1").unwrap(), wallet.enrolled("gateway-1").unwrap());
    assert_ne!(
        before.devices[0].salt,
        wallet.seed.device_salt("gateway-1", &ecg()),
        "the seed does not give it"
    );
    assert!(same(&Wallet::decode(&wallet.encode()).unwrap(), &wallet));
    assert_eq!(Wallet::decode(&wallet.encode()).unwrap().enrolled("gateway-1").unwrap(), before);
    let order = wallet.sign_erasure("gateway-1", 7).unwrap();
    assert!(wallet.erase_home("gateway-1") && !wallet.erase_home("gateway-1"));
    let again = Wallet::decode(&wallet.encode()).unwrap();
    assert!(same(&again, &wallet) && again.homes.is_empty() && again.is_erased(&patient));
    assert_eq!(again.sign_erasure("gateway-1", 7).unwrap(), order, "to ask for receipts");
    assert!(matches!(again.sign_erasure("gateway-2", 7), Err(WalletError::NoGateway(_))));
    wallet.add_device("gateway-1", &ecg(), MAC).unwrap();
    let anew = wallet.enrolled("gateway-1").unwrap();
    assert!(anew.patient != patient && anew.devices[0].salt != before.devices[0].salt);
    for nth in 0..=ERASED_MAX {
        let name = format!("gateway-{nth}");
        wallet.home_mut(&name).unwrap();
        assert!(wallet.erase_home(&name));
    }
    assert_eq!((wallet.erased.len(), wallet.is_erased(&patient)), (ERASED_MAX, false));
    assert!(same(&Wallet::decode(&wallet.encode()).unwrap(), &wallet));
}
