//! A wallet as bytes, inside the keystore: CBOR.
//!
//! ```text
//! wallet       [2, seed(32), ledger or null, [relationship, …], [home, …]]                 CBOR, inside the keystore
//!              [2, seed(32), ledger or null, [relationship, …], [home, …], [erased, …]]     after an erasure
//!              [2, seed(32), ledger or null, [relationship, …], [home, …], [erased, …], pseudonym]  with another pseudonym than the
//!              first, by its number ≥ 1; erased may be empty then
//! ledger       [chain id, contract(20), [validator(20), …]]
//! relationship [label, grantee(20), number, granted, revoked]                         with its first keys
//!              [label, grantee(20), number, granted, revoked, rotated, first or null] after them; rotated ≥ 1
//! first        grant key(20) ‖ revoke key(20)                                          of another wallet
//! home         [gateway, patient(16), emergency, [device, …], secret(32)]
//!              [gateway, patient(16), emergency, [device, …]]                          of before, whose salts the seed gives
//! erased       [gateway, patient(16)]
//! device       [id, mac(6), version, bound, classes]
//! classes      [row number, 2 bytes, big-endian, 0 for all others ‖ class, 1 byte], …, by rising number
//! ```

use caregate_protocol::cbor::{CborError, Cursor};
use caregate_protocol::id::{DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{Classes, DEVICES_MAX, GRANTS_MAX, Mac};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    Device, ERASED_MAX, ErasedHome, GATEWAY_BYTES_MAX, HOMES_MAX, Home, HomeSecret, Ledger, Relationship,
    Wallet,
};
use crate::verify::{Address, Domain, LABEL_BYTES_MAX, VALIDATORS_MAX};
use crate::wallet::PatientSeed;

const FORMAT: u8 = 2;

/// Why bytes are no wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WalletFormatError {
    /// Of another release.
    #[error("wallet format {0} is not {FORMAT}")]
    Format(u8),
    /// Malformed.
    #[error("wallet: {0}")]
    Cbor(#[from] CborError),
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

impl Wallet {
    /// The wallet's bytes: secrets, for [`crate::wallet::keystore::seal`].
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it from the start: a vector that grows leaves its old memory behind.
        let devices: usize = self.homes.iter().map(|home| home.devices.len()).sum();
        let homes = self.homes.len() + self.erased.len();
        let room = 4096 + 224 * self.relationships.len() + 192 * homes + 192 * devices;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        // Writing to memory can't fail.
        drop(self.put(&mut Encoder::new(&mut *bytes)));
        bytes
    }

    fn put(&self, out: &mut Encoder<&mut Vec<u8>>) -> Written {
        let elements = match (self.pseudonym, self.erased.is_empty()) {
            (0, true) => 5,
            (0, false) => 6,
            (_, _) => 7,
        };
        out.array(elements)?.u8(FORMAT)?.bytes(self.seed.as_bytes())?;
        match &self.ledger {
            None => {
                out.null()?;
            }
            Some(Ledger { domain, validators }) => {
                out.array(3)?.u64(domain.chain_id)?.bytes(&domain.verifying_contract.0)?;
                out.array(validators.len() as u64)?;
                for validator in validators {
                    out.bytes(&validator.0)?;
                }
            }
        }
        out.array(self.relationships.len() as u64)?;
        for Relationship { label, grantee, number, granted, revoked, rotated, first } in &self.relationships {
            out.array(if *rotated == 0 { 5 } else { 7 })?;
            out.str(label)?.bytes(&grantee.0)?.u32(*number)?.u64(*granted)?.u64(*revoked)?;
            if *rotated > 0 {
                out.u64(*rotated)?;
                match first {
                    None => out.null()?,
                    Some((grant, revoke)) => out.bytes([grant.0, revoke.0].as_flattened())?,
                };
            }
        }
        out.array(self.homes.len() as u64)?;
        for Home { gateway, patient, emergency, devices, secret } in &self.homes {
            out.array(if secret.is_none() { 4 } else { 5 })?
                .str(gateway)?
                .bytes(&patient.0)?
                .bool(*emergency)?;
            out.array(devices.len() as u64)?;
            for Device { device, mac, version, bound, classes } in devices {
                out.array(5)?.str(device.as_str())?.bytes(&mac.0)?.u64(*version)?.bool(*bound)?;
                out.bytes(&classes.to_bytes())?;
            }
            if let Some(HomeSecret(secret)) = secret {
                out.bytes(secret.as_slice())?;
            }
        }
        if elements > 5 {
            out.array(self.erased.len() as u64)?;
        }
        for ErasedHome { gateway, patient } in &self.erased {
            out.array(2)?.str(gateway)?.bytes(&patient.0)?;
        }
        if self.pseudonym > 0 {
            out.u32(self.pseudonym)?;
        }
        Ok(())
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`WalletFormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WalletFormatError> {
        let mut cursor = Cursor::new(bytes);
        let elements = one_of(&mut cursor, "wallet", &[5, 6, 7])?;
        match cursor.u8("format")? {
            FORMAT => {}
            other => return Err(WalletFormatError::Format(other)),
        }
        let seed = PatientSeed::from_bytes(cursor.fixed("seed")?);
        let ledger = if cursor.item("ledger", |decoder| decoder.datatype())? == Type::Null {
            cursor.item("ledger", Decoder::null)?;
            None
        } else {
            Some(take_ledger(&mut cursor)?)
        };
        let relationships = cursor.list("relationships", GRANTS_MAX, take_relationship)?;
        let homes = cursor.list("homes", HOMES_MAX, take_home)?;
        let erased = match elements {
            6 => {
                cursor.list("erased", ERASED_MAX, take_erased).and_then(|erased| match erased.is_empty() {
                    true => {
                        cursor.item("erased", |_| Err(minicbor::decode::Error::message("must not be empty")))
                    }
                    false => Ok(erased),
                })?
            }
            7 => cursor.list("erased", ERASED_MAX, take_erased)?,
            _ => Vec::new(),
        };
        let pseudonym = if elements == 7 { take_pseudonym(&mut cursor)? } else { 0 };
        cursor.finish()?;
        Ok(Self { seed, ledger, relationships, homes, erased, pseudonym })
    }
}

fn take_pseudonym(cursor: &mut Cursor<'_>) -> Result<u32, CborError> {
    cursor.item("pseudonym", |decoder| match decoder.u32()? {
        0 => Err(minicbor::decode::Error::message("must be at least 1")),
        number => Ok(number),
    })
}

/// The length of an array that has one of these.
fn one_of(cursor: &mut Cursor<'_>, path: &'static str, lengths: &[u64]) -> Result<u64, CborError> {
    cursor.item(path, |decoder| match decoder.array()? {
        Some(elements) if lengths.contains(&elements) => Ok(elements),
        _ => Err(minicbor::decode::Error::message("has another number of elements than it may have")),
    })
}

fn take_ledger(cursor: &mut Cursor<'_>) -> Result<Ledger, CborError> {
    cursor.array_of("ledger", 3)?;
    let chain_id = cursor.u64("ledger.chain_id")?;
    let verifying_contract = Address(cursor.fixed("ledger.contract")?);
    let validators = cursor
        .list("ledger.validators", VALIDATORS_MAX, |cursor| Ok(Address(cursor.fixed("ledger.validator")?)))?;
    Ok(Ledger { domain: Domain { chain_id, verifying_contract }, validators })
}

fn take_relationship(cursor: &mut Cursor<'_>) -> Result<Relationship, CborError> {
    let elements = one_of(cursor, "relationship", &[5, 7])?;
    let mut relationship = Relationship {
        label: cursor.text("relationship.label", LABEL_BYTES_MAX)?.to_owned(),
        grantee: RecipientId(cursor.fixed("relationship.grantee")?),
        number: cursor.u32("relationship.number")?,
        granted: cursor.u64("relationship.granted")?,
        revoked: cursor.u64("relationship.revoked")?,
        rotated: 0,
        first: None,
    };
    if elements == 7 {
        relationship.rotated = cursor.item("relationship.rotated", |decoder| match decoder.u64()? {
            0 => Err(minicbor::decode::Error::message("must be at least 1")),
            rotated => Ok(rotated),
        })?;
        relationship.first = take_first(cursor)?;
    }
    Ok(relationship)
}

fn take_first(cursor: &mut Cursor<'_>) -> Result<Option<(Address, Address)>, CborError> {
    if cursor.item("relationship.first", |decoder| decoder.datatype())? == Type::Null {
        cursor.item("relationship.first", Decoder::null)?;
        return Ok(None);
    }
    let both: [u8; 40] = cursor.fixed("relationship.first")?;
    let (mut grant, mut revoke) = ([0; 20], [0; 20]);
    grant.copy_from_slice(&both[..20]);
    revoke.copy_from_slice(&both[20..]);
    Ok(Some((Address(grant), Address(revoke))))
}

fn take_home(cursor: &mut Cursor<'_>) -> Result<Home, CborError> {
    let elements = one_of(cursor, "home", &[4, 5])?;
    let mut home = Home {
        gateway: cursor.text("home.gateway", GATEWAY_BYTES_MAX)?.to_owned(),
        patient: PatientId(cursor.fixed("home.patient")?),
        emergency: cursor.bool("home.emergency")?,
        devices: cursor.list("home.devices", DEVICES_MAX, take_device)?,
        secret: None,
    };
    if elements == 5 {
        home.secret = Some(HomeSecret(Zeroizing::new(cursor.fixed("home.secret")?)));
    }
    Ok(home)
}

fn take_erased(cursor: &mut Cursor<'_>) -> Result<ErasedHome, CborError> {
    cursor.array_of("erased", 2)?;
    Ok(ErasedHome {
        gateway: cursor.text("erased.gateway", GATEWAY_BYTES_MAX)?.to_owned(),
        patient: PatientId(cursor.fixed("erased.patient")?),
    })
}

fn take_device(cursor: &mut Cursor<'_>) -> Result<Device, CborError> {
    cursor.array_of("device", 5)?;
    Ok(Device {
        device: cursor.item("device.id", |decoder| {
            DeviceId::new(decoder.str()?).map_err(|_source| minicbor::decode::Error::message("no id"))
        })?,
        mac: Mac(cursor.fixed("device.mac")?),
        version: cursor.u64("device.version")?,
        bound: cursor.bool("device.bound")?,
        classes: cursor.item("device.classes", |decoder| {
            Classes::from_bytes(decoder.bytes()?).map_err(minicbor::decode::Error::message)
        })?,
    })
}
