//! `wallet show`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::file::KeystoreArgs;
use crate::args::{address, hex0x};
use crate::outcome::{Done, Outcome};

pub(super) fn run(keystore: &KeystoreArgs) -> Outcome {
    let open = keystore.open()?;
    let wallet = &open.wallet;
    let pseudonym = hex::encode(wallet.emergency_pseudonym().0);
    let mut text = format!("pseudonym for emergencies: {pseudonym}");
    let mut relationships = Vec::new();
    for known in &wallet.relationships {
        let (keys, name) = (wallet.current_keys(&known.label)?, wallet.name(&known.label)?);
        let state = match (known.granted, known.revoked) {
            (0, 0) => "nothing granted yet".to_owned(),
            (granted, revoked) if granted > revoked => format!("granted, version {granted}"),
            (_, revoked) => format!("revoked up to version {revoked}"),
        };
        write!(text, "\n{}: {} ({state})", known.label, address(&known.grantee))?;
        relationships.push(json!({
            "label": known.label, "relationship": name.to_string(), "keys_version": known.rotated,
            "grantee": address(&known.grantee), "number": known.number,
            "grant_key": hex0x(&keys.grant.address().0), "revoke_key": hex0x(&keys.revoke.address().0),
            "granted": known.granted, "revoked": known.revoked,
        }));
    }
    let mut homes = Vec::new();
    for home in &wallet.homes {
        write!(text, "\n{}: patient {}", home.gateway, home.patient)?;
        for known in &home.devices {
            let state = if known.bound { "bound" } else { "not bound" };
            write!(text, "\n  {} {} ({state}, version {})", known.device, known.mac, known.version)?;
            if !known.classes.is_empty() {
                write!(text, ": {}", super::classify::said(&known.classes))?;
            }
        }
        homes.push(json!({
            "home": home.gateway, "patient": home.patient.to_string(), "emergency": home.emergency,
            "home_key": hex0x(&wallet.seed.home_key(&home.gateway)?.address().0),
            "devices": home.devices.iter().map(|known| json!({
                "device": known.device, "mac": known.mac, "bound": known.bound, "version": known.version,
                "classes": known.classes,
            })).collect::<Vec<_>>(),
        }));
    }
    let ledger = wallet.ledger.as_ref().map_or(Value::Null, |ledger| {
        json!({
            "chain_id": ledger.domain.chain_id,
            "contract": hex0x(&ledger.domain.verifying_contract.0),
            "validators": ledger.validators.iter().map(|validator| hex0x(&validator.0)).collect::<Vec<_>>(),
        })
    });
    Ok(Done::new(
        text,
        json!({ "pseudonym": pseudonym, "pseudonym_number": wallet.pseudonym, "ledger": ledger, "relationships": relationships, "homes": homes }),
    ))
}
