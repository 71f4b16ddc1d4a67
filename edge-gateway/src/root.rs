//! `edge-gateway root`: a patient's root in shares for people whom the patient chose, and back from them on another gateway (ADR 28).
//!
//! It works on the gateway's own folder while the gateway stands still: no door, local or not, gives a root away. What was done is in the
//! trail, on the patient's page.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use caregate_host::key_file::{self, Existing};
use caregate_host::{clock, config, dir};
use caregate_protocol::erasure::Erasure;
use caregate_protocol::id::PatientId;
use caregate_protocol::key::PatientRoot;
use clap::{Args, Subcommand};
use ed25519_dalek::SigningKey;
use ledger_client::shares::{self, Of, ROOT_SHARE_BYTES, Share};
use ledger_client::verify::{Enrolment, Pins};

use crate::config::ConfigFile;
use crate::keys::KeyStore;
use crate::keys::erasures::Ordered;
use crate::pipeline::chains::Beginning;
use crate::policy::Changes;
use crate::policy::trail::Event;

/// A clock that has not been set yet: 2026-01-01. A restored root's chains begin by the clock.
const CLOCK_MIN_US: i64 = 1_767_225_600_000_000;

/// Patients' roots: back them up in shares, restore them from shares, list them
///
/// Stop the gateway first. A root opens everything that was ever sealed for its patient, so shares are for people whom the patient
/// chose, one each, and not for whoever runs the gateway.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Share(ShareArgs),
    Restore(RestoreArgs),
    Erase(EraseArgs),
    List(Common),
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration file (TOML) of the gateway
    #[arg(long, default_value = "/etc/caregate/edge-gateway.toml")]
    config: PathBuf,
}

/// Split a patient's root into shares for people whom the patient trusts
///
/// As many of them as the threshold says can open all of the patient's history together; fewer know nothing. Shares can't be taken
/// back.
#[derive(Debug, Args)]
struct ShareArgs {
    #[command(flatten)]
    common: Common,
    /// The patient's pseudonym on this gateway: 16 bytes in hexadecimal
    #[arg(long, value_name = "HEX")]
    patient: PatientId,
    /// How many shares it takes; 2 at least
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=16))]
    threshold: u8,
    /// New file for each share (mode 0600), one for each person; 16 at most
    #[arg(long, value_name = "FILE", required = true)]
    out: Vec<PathBuf>,
}

/// Put a patient's root together from shares, on a gateway that has not begun to seal for the patient, or whose TPM is another now
///
/// The enrolment must name the patient under the same pseudonym (`caregatectl wallet enrol --patient`).
#[derive(Debug, Args)]
struct RestoreArgs {
    #[command(flatten)]
    common: Common,
    /// File with a share, as many as it takes
    #[arg(long, value_name = "FILE", required = true)]
    share: Vec<PathBuf>,
}

/// Destroy a patient's root here, for good
///
/// What this gateway has sealed for the patient opens for nobody new from then on, and it seals nothing for the pseudonym any more. From
/// its next start on it asks the core to erase what it has, and keeps the receipts. It says what is beyond its reach.
#[derive(Debug, Args)]
struct EraseArgs {
    #[command(flatten)]
    common: Common,
    /// The patient's pseudonym on this gateway: 16 bytes in hexadecimal
    #[arg(long, value_name = "HEX")]
    patient: PatientId,
    /// The pseudonym again: there is no way back
    #[arg(long, value_name = "HEX")]
    confirm: PatientId,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What no erasure here can recall.
const BEYOND: [&str; 5] = [
    "wraps and readings that recipients have: what they could open, they can open for ever",
    "ciphertext and wraps at a core, and what feeds hold, from which no receipt comes",
    "shares of the root, with the people who have them: ask them to destroy theirs",
    "backups of this gateway's folder, and what its flash keeps of blocks that were replaced",
    "salts and keys in the patient's wallet, and the ledger's entries, which say no more than before",
];

/// Does what was asked for; the sentence to say.
///
/// # Errors
/// What is wrong with configuration, keys or shares; nothing was changed then.
pub fn run(arguments: &Arguments) -> anyhow::Result<String> {
    match &arguments.command {
        Command::Share(arguments) => share(arguments),
        Command::Restore(arguments) => restore(arguments),
        Command::Erase(arguments) => erase(arguments),
        Command::List(common) => list(common),
    }
}

struct Opened {
    file: ConfigFile,
    pins: Pins,
}

impl Common {
    fn open(&self) -> anyhow::Result<Opened> {
        let file: ConfigFile = config::load(&self.config)?;
        let enrolment: Enrolment = config::load(&file.policy.enrolment)?;
        let pins = enrolment.pins().with_context(|| file.policy.enrolment.display().to_string())?;
        Ok(Opened { file, pins })
    }
}

impl Opened {
    fn keys(&self) -> anyhow::Result<KeyStore> {
        let tpm = self.file.keys.tpm.device();
        KeyStore::open_with(&self.file.data, tpm).with_context(|| self.file.data.display().to_string())
    }

    fn note(&self, keys: &KeyStore, event: Event) -> anyhow::Result<()> {
        let now_s = clock::now_s();
        keys.policy().keep(&Changes { events: &[(now_s, event)], ..Changes::default() }).context("keys")
    }
}

fn share(arguments: &ShareArgs) -> anyhow::Result<String> {
    let ShareArgs { common, patient, threshold, out } = arguments;
    let opened = common.open()?;
    let count = u8::try_from(out.len()).unwrap_or(u8::MAX);
    let mut keys = opened.keys()?;
    let Some(root) = keys.existing_root(*patient)? else {
        bail!("there is no root of that patient here: nothing was sealed for them yet");
    };
    let shares = shares::split(Of::Root(*patient), root.as_bytes(), *threshold, count)?;
    if let Some(there) = out.iter().find(|path| path.exists()) {
        bail!("{}: exists already", there.display());
    }
    // Said before there is a share, so that none is ever there without it.
    let event = Event::RootShared { patient: *patient, threshold: *threshold, shares: count };
    opened.note(&keys, event)?;
    for (path, share) in out.iter().zip(&shares) {
        key_file::write_hex(path, share.encode().as_slice(), Existing::Keep)?;
    }
    Ok(format!("{count} shares, of which {threshold} make the root again: give each to another person"))
}

fn restore(arguments: &RestoreArgs) -> anyhow::Result<String> {
    let mut shares = Vec::new();
    for path in &arguments.share {
        let bytes = key_file::read_hex::<ROOT_SHARE_BYTES>(path)?;
        shares.push(Share::decode(bytes.as_slice()).with_context(|| path.display().to_string())?);
    }
    let Some(Of::Root(patient)) = shares.first().map(Share::of) else {
        bail!("no share of a patient's root is among the files");
    };
    let root = shares::combine(Of::Root(patient), &shares)?;
    let opened = arguments.common.open()?;
    ensure!(
        opened.pins.patients.contains_key(&patient),
        "{}: does not enrol the patient of these shares, {patient}; enrol under that pseudonym: caregatectl wallet enrol --patient",
        opened.file.policy.enrolment.display()
    );
    let now_us = clock::now_us();
    ensure!(now_us >= CLOCK_MIN_US, "the clock is not set: chains of a restored root begin by it");
    dir::create_private(&opened.file.data)?;
    let named = || opened.file.data.display().to_string();
    let mut keys =
        KeyStore::open_to_restore(&opened.file.data, opened.file.keys.tpm.device()).with_context(named)?;
    let is_new =
        keys.restore(patient, &PatientRoot::from_bytes(*root), Beginning::at(now_us)).with_context(named)?;
    if !is_new {
        return Ok("that root is here already; nothing was changed".into());
    }
    opened.note(&keys, Event::RootRestored { patient })?;
    Ok(format!("the root of patient {patient} is here, and opens what was sealed under it"))
}

fn erase(arguments: &EraseArgs) -> anyhow::Result<String> {
    let EraseArgs { common, patient, confirm, json } = arguments;
    ensure!(patient == confirm, "--confirm names another pseudonym than --patient; nothing was done");
    let opened = common.open()?;
    // A root that another TPM has sealed goes as well.
    let mut keys =
        KeyStore::open_to_erase(&opened.file.data).with_context(|| opened.file.data.display().to_string())?;
    let device = SigningKey::from_bytes(&*key_file::read_hex::<32>(&opened.file.device_key)?);
    let made_us = clock::now_us();
    let mut was_there = false;
    if !keys.is_erased(*patient) {
        opened.note(&keys, Event::RootErased { patient: *patient })?;
        let request = Erasure { patient: *patient, made_us }.sign(&device);
        let ordered = Ordered { request, by: None };
        was_there = keys.erase(*patient, &ordered, u64::try_from(made_us / 1_000_000).unwrap_or(0))?;
    }
    if *json {
        let said =
            serde_json::json!({ "patient": patient, "root_destroyed": was_there, "beyond_reach": BEYOND });
        return Ok(said.to_string());
    }
    let done = if was_there { "the root is destroyed" } else { "there was no root; none will be made" };
    Ok(format!("{done}. Beyond reach are:\n- {}", BEYOND.join("\n- ")))
}

fn list(common: &Common) -> anyhow::Result<String> {
    let opened = common.open()?;
    let keys = opened.keys()?;
    let sealed = if keys.is_sealed() { "sealed to the TPM" } else { "in a file of mode 0600" };
    let mut lines = vec![format!("roots are {sealed}")];
    for (patient, opens) in keys.patients()? {
        lines.push(format!("{patient} {}", if opens { "good" } else { "sealed to another TPM" }));
    }
    Ok(lines.join("\n"))
}
