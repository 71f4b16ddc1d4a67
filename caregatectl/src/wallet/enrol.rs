//! `wallet enrol`: what a gateway pins.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use caregate_host::config;
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::PatientId;
use clap::Args;
use ledger_client::revoke::{RevokeKeyEntry, RevokeKeyFile, RevokeKeys, RevokeSecret};
use ledger_client::verify::{Enrolment, LedgerPin, STALENESS_BOUNDS_S, STALENESS_MAX_S};
use serde_json::json;
use zeroize::Zeroizing;

use super::file::{KeystoreArgs, Open};
use crate::args::hex0x;
use crate::outcome::{Done, Outcome};

/// Write what a gateway pins: public values alone, and apart from them the revoke-only keys
///
/// A file that is there keeps its other patients; this patient's entry is replaced.
#[derive(Debug, Args)]
pub(super) struct EnrolArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    /// The gateway's name, as in its certificate
    #[arg(long, value_name = "GATEWAY")]
    home: String,
    /// The gateway's enrolment file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the revoke-only keys (mode 0600), for the button on the patient's page at the gateway
    #[arg(long, value_name = "FILE")]
    revoke_keys: Option<PathBuf>,
    /// The patient's pseudonym in this gateway's segments: 16 bytes in hexadecimal [default: one that the seed gives]
    #[arg(long, value_name = "HEX")]
    patient: Option<PatientId>,
    /// The gateway is not to watch the patient's pseudonym: no emergency access there
    #[arg(long)]
    no_emergency: bool,
    /// Age in seconds from which the gateway's policy is stale
    #[arg(long, value_name = "SECONDS", default_value_t = STALENESS_MAX_S, value_parser = staleness)]
    staleness_max_s: u64,
}

fn staleness(text: &str) -> Result<u64, String> {
    let (min, max) = (STALENESS_BOUNDS_S.start(), STALENESS_BOUNDS_S.end());
    text.parse()
        .ok()
        .filter(|age| STALENESS_BOUNDS_S.contains(age))
        .ok_or_else(|| format!("{min} to {max} seconds"))
}

pub(super) fn run(arguments: &EnrolArgs) -> Outcome {
    let mut open = arguments.keystore.open()?;
    let home = open.wallet.home_mut(&arguments.home)?;
    home.patient = arguments.patient.unwrap_or(home.patient);
    home.emergency = !arguments.no_emergency;
    let patient = open.wallet.enrolled(&arguments.home)?;
    let domain = open.ledger()?.domain;
    let ledger = LedgerPin {
        chain_id: domain.chain_id,
        contract: domain.verifying_contract,
        validators: open.validators()?.to_vec(),
        staleness_max_s: arguments.staleness_max_s,
    };
    let mut enrolment = match known(&arguments.out)? {
        Some(known)
            if (known.ledger.chain_id, known.ledger.contract) != (ledger.chain_id, ledger.contract) =>
        {
            return Err(anyhow!("{} is for another ledger", arguments.out.display()).into());
        }
        Some(known) => Enrolment { ledger, ..known },
        None => Enrolment { ledger, patients: Vec::new() },
    };
    // The one before was erased there, and has the same home key.
    enrolment.patients.retain(|known| !open.wallet.is_erased(&known.patient));
    match enrolment.patients.iter_mut().find(|known| known.patient == patient.patient) {
        Some(known) if known.home_key != patient.home_key => {
            let file = arguments.out.display();
            return Err(anyhow!("{file} has this patient with another wallet's keys").into());
        }
        Some(known) => *known = patient.clone(),
        None => enrolment.patients.push(patient.clone()),
    }
    enrolment.pins().with_context(|| arguments.out.display().to_string())?;
    open.save()?;
    if let Some(path) = &arguments.revoke_keys {
        write_revoke_keys(path, &open)?;
    }
    let text = toml::to_string(&enrolment).context("write the enrolment")?;
    key_file::write_public(&arguments.out, text.as_bytes(), Existing::Replace)?;
    let relationships: Vec<_> = patient
        .relationships
        .iter()
        .map(|known| json!({ "label": known.label, "relationship": known.relationship().to_string() }))
        .collect();
    Ok(Done::new(
        format!(
            "{}: {} relationships and {} devices of this patient",
            arguments.out.display(),
            relationships.len(),
            patient.devices.len()
        ),
        json!({
            "enrolment": arguments.out, "revoke_keys": arguments.revoke_keys, "home": arguments.home,
            "patient": patient.patient.to_string(), "home_key": hex0x(&patient.home_key.0),
            "pseudonym": patient.pseudonym.map(|pseudonym| hex::encode(pseudonym.0)),
            "relationships": relationships,
            "devices": patient.devices.iter().map(|known| known.device.to_string()).collect::<Vec<_>>(),
        }),
    ))
}

/// Largest enrolment and file of keys: 256 patients with 16 relationships and four devices each.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The enrolment that is there; public values.
fn known(path: &Path) -> anyhow::Result<Option<Enrolment>> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() || found.len() > FILE_BYTES_MAX => {
            bail!("{}: not a file of at most {FILE_BYTES_MAX} bytes", path.display())
        }
        Ok(_) => Ok(Some(config::load(path)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The revoke-only keys that are there; nobody else may have a right on them.
fn known_keys(path: &Path) -> anyhow::Result<RevokeKeyFile> {
    if !path.exists() {
        return Ok(RevokeKeyFile::default());
    }
    let bytes = key_file::read_up_to(path, FILE_BYTES_MAX)?;
    // A TOML error would show the line, and with it a secret.
    toml::from_slice(&bytes).map_err(|error| anyhow!("{}: {}", path.display(), error.message()))
}

/// The private halves of this wallet's revoke-only keys, beside those of other patients.
fn write_revoke_keys(path: &Path, open: &Open) -> anyhow::Result<()> {
    let mut file = known_keys(path)?;
    // Of one that was recovered the gateway has what the lost wallet gave it.
    for known in open.wallet.relationships.iter().filter(|known| known.first.is_none()) {
        let keys = open.wallet.seed.relationship_keys(&known.grantee, known.number)?;
        let grant_key = keys.grant.address();
        file.keys.retain(|entry| entry.grant_key != grant_key);
        file.keys.push(RevokeKeyEntry { grant_key, secret: RevokeSecret::from_bytes(*keys.revoke.secret()) });
    }
    RevokeKeys::new(&file).with_context(|| path.display().to_string())?;
    let text = Zeroizing::new(toml::to_string(&file).context("write the revoke-only keys")?);
    key_file::write(path, text.as_bytes(), Existing::Replace)?;
    Ok(())
}
