//! The patients: each has a wallet of their own, in a keystore of their own, and calls `caregatectl` with it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use caregate_host::key_file::{self, Existing};
use serde_json::Value;

use super::ledger::Ledger;
use super::{GATEWAY, Sensor, random};
use crate::demo::ctl::{Ctl, text};
use crate::demo::network::{Place, mac};

/// The patient's name for the hospital that treats them.
pub(crate) const HOSPITAL_LABEL: &str = "City hospital";

/// A patient.
#[derive(Debug, Clone)]
pub(in crate::demo) struct Patient {
    keystore: String,
    passphrase: String,
    rpc: String,
    /// The pseudonym in segments.
    pub(in crate::demo) patient: String,
    /// The pseudonym for break-glass, as on a card in the wallet's other pocket.
    pub(in crate::demo) pseudonym: String,
    /// The relationship with the hospital.
    pub(in crate::demo) relationship: String,
}

impl Patient {
    /// Makes a wallet, a relationship with the hospital, and the gateway's enrolment.
    pub(super) fn enrol(
        dir: &Path,
        at: usize,
        ctl: Ctl<'_>,
        ledger: &Ledger,
        sensors: &[Sensor],
    ) -> anyhow::Result<Self> {
        let file = |name: &str| dir.join(format!("patient-{}.{name}", at + 1));
        let passphrase = file("passphrase");
        key_file::write(&passphrase, hex::encode(random::<16>()?).as_bytes(), Existing::Keep)?;
        let path = |path: PathBuf| path.display().to_string();
        let mut patient = Self {
            keystore: path(file("wallet")),
            passphrase: path(passphrase),
            rpc: ledger.rpc.clone(),
            patient: String::new(),
            pseudonym: String::new(),
            relationship: String::new(),
        };
        let chain_id = ledger.chain_id.to_string();
        // The least memory for a guess: the demo's passphrases are random, and it calls the wallet often.
        let new = patient.call(
            ctl,
            "new",
            &[
                "--chain-id",
                &chain_id,
                "--contract",
                &ledger.contract,
                "--validator",
                &ledger.validators.join(","),
                "--memory-mib",
                "8",
                "--passes",
                "1",
            ],
        )?;
        patient.pseudonym = text(&new, "pseudonym")?;
        let hospital = ["--label", HOSPITAL_LABEL, "--grantee", &ledger.hospital.address];
        patient.relationship = text(&patient.call(ctl, "relationship", &hospital)?, "relationship")?;
        for (mac, sensor) in worn(at, sensors) {
            patient.call(
                ctl,
                "bind",
                &["--home", GATEWAY, "--device", &sensor.device, "--mac", &mac, "--remember"],
            )?;
        }
        let (enrolment, keys) = (path(dir.join("enrolment.toml")), path(dir.join("revoke-keys.toml")));
        let enrolled =
            patient.call(ctl, "enrol", &["--home", GATEWAY, "--out", &enrolment, "--revoke-keys", &keys])?;
        patient.patient = text(&enrolled, "patient")?;
        Ok(patient)
    }

    /// Binds what the patient wears.
    pub(in crate::demo) fn bind(&self, ctl: Ctl<'_>, at: usize, sensors: &[Sensor]) -> anyhow::Result<()> {
        for (_, sensor) in worn(at, sensors) {
            self.call(ctl, "bind", &["--rpc", &self.rpc, "--home", GATEWAY, "--device", &sensor.device])?;
        }
        Ok(())
    }

    /// Lets the hospital see, for a day.
    pub(in crate::demo) fn grant(&self, ctl: Ctl<'_>) -> anyhow::Result<Value> {
        self.call(ctl, "grant", &["--rpc", &self.rpc, "--label", HOSPITAL_LABEL, "--days", "1"])
    }

    /// Lets the hospital see no more, by the ledger.
    pub(in crate::demo) fn revoke(&self, ctl: Ctl<'_>) -> anyhow::Result<Value> {
        self.call(ctl, "revoke", &["--rpc", &self.rpc, "--label", HOSPITAL_LABEL])
    }

    /// Lets the hospital see no more, straight at the gateway's door.
    pub(in crate::demo) fn revoke_at(&self, ctl: Ctl<'_>, door: &str) -> anyhow::Result<Value> {
        let arguments = ["--keystore", &self.keystore, "--passphrase-file", &self.passphrase];
        let mut words = vec!["wallet", "revoke"];
        words.extend(arguments);
        words.extend(["--label", HOSPITAL_LABEL, "--gateway", door]);
        // The door's page is handed out on loopback, so the wallet is there too.
        ctl.call(None, &words)?.done()
    }

    /// Signs once more that the hospital sees nothing, for whoever carries it.
    pub(in crate::demo) fn sign_revocation(&self, ctl: Ctl<'_>, out: &Path) -> anyhow::Result<()> {
        let out = out.display().to_string();
        self.call(ctl, "sign-revocation", &["--label", HOSPITAL_LABEL, "--out", &out]).map(drop)
    }

    fn call(&self, ctl: Ctl<'_>, verb: &str, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut words =
            vec!["wallet", verb, "--keystore", &self.keystore, "--passphrase-file", &self.passphrase];
        words.extend(arguments);
        ctl.call(Some(Place::Operator), &words)?.done().with_context(|| format!("wallet {verb}"))
    }
}

/// The sensors that a patient wears, with their MAC addresses.
fn worn(at: usize, sensors: &[Sensor]) -> impl Iterator<Item = (String, &Sensor)> {
    sensors
        .iter()
        .enumerate()
        .filter(move |(_, sensor)| sensor.patient == at)
        .map(|(nth, sensor)| (mac(nth), sensor))
}
