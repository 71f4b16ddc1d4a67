//! `cargo xtask policy`: a patient's wallet for evaluation deployments and for the demo.
//!
//! It makes a patient's seed, signs grants and revocations with the keys derived from it, and edits the policy file
//! that a gateway reads and the enrolment file that its configuration holds. The seed belongs to the patient's
//! wallet: keep its file away from the gateway and from whoever runs it. In a real deployment a phone does this.

#[cfg(test)]
mod demo;
mod edit;
mod files;
mod show;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use caregate_host::clock;
use caregate_protocol::id::{DataClass, DeviceId, PatientId, RecipientId};
use caregate_protocol::policy::{Purpose, RecipientEntry, RecipientKind, RecipientStatus, class_bit};
use clap::{Args, Subcommand};
use ledger_client::verify::{Address, Domain, FileEnrolment as Enrolment};

#[cfg(test)]
pub(crate) use demo::{DemoPatient, demo_document};
pub(crate) use edit::Terms;
pub(crate) use files::{create_seed, store_document, store_enrolment};

/// Make patients' keys, sign grants and revocations, look at a policy file.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a patient's seed, from which all keys of that patient come.
    NewPatientKey {
        /// New file for the seed (mode 0600). It belongs to the patient, not to the gateway.
        #[arg(long)]
        out: PathBuf,
    },
    /// Sign a grant and put it into the policy file; the latest version of a relationship counts.
    Grant(GrantArgs),
    /// Sign a revocation of every grant so far in a relationship and put it into the policy file.
    Revoke {
        #[command(flatten)]
        files: FileArgs,
        #[command(flatten)]
        relationship: RelationshipArgs,
    },
    /// Say what a policy file grants, and with an enrolment file what of it counts.
    Show {
        /// The policy file.
        #[arg(long)]
        policy: PathBuf,
        /// The gateway's enrolment file; without it no signature is checked.
        #[arg(long)]
        enrolment: Option<PathBuf>,
    },
}

/// The files that a wallet works on.
#[derive(Debug, Args)]
struct FileArgs {
    /// The patient's seed file; refused if others than its owner may read it.
    #[arg(long)]
    key: PathBuf,
    /// The policy file; made if there is none.
    #[arg(long)]
    policy: PathBuf,
    /// The gateway's enrolment file (ledger, patients' addresses); made if there is none.
    #[arg(long)]
    enrolment: PathBuf,
}

/// Which of a patient's relationships.
#[derive(Debug, Args)]
struct RelationshipArgs {
    /// The patient's pseudonym: 16 bytes in hexadecimal.
    #[arg(long)]
    patient: PatientId,
    /// The hospital domain: its 20-byte address in hexadecimal.
    #[arg(long)]
    grantee: RecipientId,
    /// Counts up when a relationship with the same domain begins anew.
    #[arg(long, default_value_t = 0)]
    relationship_number: u32,
}

/// What to grant.
#[derive(Debug, Args)]
struct GrantArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    relationship: RelationshipArgs,
    /// Data classes: alarm, vitals, waveform, activity, sensitive.
    #[arg(long, value_delimiter = ',', value_parser = parse_class, required = true)]
    classes: Vec<DataClass>,
    /// Purposes: treatment, research, patient-request.
    #[arg(long, value_delimiter = ',', value_parser = parse_purpose, default_value = "treatment")]
    purposes: Vec<Purpose>,
    /// First second at which it holds, Unix time; now, if left out.
    #[arg(long)]
    from: Option<u64>,
    /// For how many days it holds. There is no grant without an end.
    #[arg(long)]
    days: u32,
    /// For how many seconds it goes on when the policy can't be refreshed (treating recipients: at most a day).
    #[arg(long, default_value_t = 0)]
    stale_bound_s: u32,
    /// The grantee's X25519 public key in hexadecimal; needed when the policy file doesn't list the grantee yet.
    #[arg(long, value_parser = parse_key)]
    hpke_public_key: Option<[u8; 32]>,
    /// A grantee that the policy file doesn't list yet treats the patient.
    #[arg(long, requires = "hpke_public_key")]
    treating: bool,
    /// Devices that the patient wears, bound in the policy file.
    #[arg(long, value_delimiter = ',')]
    devices: Vec<DeviceId>,
    /// The ledger's chain id; needed when there is no enrolment file yet.
    #[arg(long, requires = "contract")]
    chain_id: Option<u64>,
    /// The consent contract's address; needed when there is no enrolment file yet.
    #[arg(long, requires = "chain_id")]
    contract: Option<Address>,
}

fn parse_class(text: &str) -> Result<DataClass, String> {
    DataClass::ALL
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or_else(|| "a class is one of alarm, vitals, waveform, activity, sensitive".to_owned())
}

fn parse_purpose(text: &str) -> Result<Purpose, String> {
    Purpose::ALL
        .into_iter()
        .find(|purpose| purpose.as_str() == text)
        .ok_or_else(|| "a purpose is one of treatment, research, patient-request".to_owned())
}

fn parse_key(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes)
        .map_err(|_source| "a key is 32 bytes in hexadecimal".to_owned())?;
    Ok(bytes)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("write to standard output")
}

/// Runs one command.
///
/// # Errors
/// What could not be read, signed or written, by file.
pub(crate) fn run(args: Arguments) -> anyhow::Result<()> {
    let now_s = u64::try_from(clock::now_ms().div_euclid(1000)).context("the clock is before 1970")?;
    run_at(args.command, now_s)
}

fn run_at(command: Command, now_s: u64) -> anyhow::Result<()> {
    match command {
        Command::NewPatientKey { out } => {
            create_seed(&out)?;
            say(&format!(
                "{} holds a new patient's seed. Whoever has it can grant in the patient's name.",
                out.display()
            ))
        }
        Command::Grant(args) => grant(&args, now_s),
        Command::Revoke { files, relationship } => revoke(&files, &relationship, now_s),
        Command::Show { policy, enrolment } => {
            let document = files::load_document(&policy)?;
            let enrolment = enrolment.as_deref().map(files::load_enrolment).transpose()?;
            say(&show::describe(&document, enrolment.as_ref(), now_s)?)
        }
    }
}

fn grant(args: &GrantArgs, now_s: u64) -> anyhow::Result<()> {
    let seed = files::load_seed(&args.files.key)?;
    let given = args.chain_id.zip(args.contract);
    let given = given.map(|(chain_id, verifying_contract)| Domain { chain_id, verifying_contract });
    let mut enrolment = match (args.files.enrolment.exists(), given) {
        (true, given) => {
            let enrolment = files::load_enrolment(&args.files.enrolment)?;
            if given.is_some_and(|domain| domain != enrolment.domain) {
                bail!(
                    "{} is for another ledger than --chain-id and --contract",
                    args.files.enrolment.display()
                );
            }
            enrolment
        }
        (false, Some(domain)) => Enrolment { domain, patients: Vec::new() },
        (false, None) => {
            bail!("{} isn't there: give --chain-id and --contract", args.files.enrolment.display())
        }
    };
    let mut document = if args.files.policy.exists() {
        files::load_document(&args.files.policy)?
    } else {
        edit::empty(now_s)
    };
    let RelationshipArgs { patient, grantee, relationship_number } = args.relationship;
    let entry = args.hpke_public_key.map(|hpke_public_key| RecipientEntry {
        id: grantee,
        hpke_public_key,
        status: RecipientStatus::Active,
        kind: if args.treating { RecipientKind::Treating } else { RecipientKind::Other },
    });
    edit::list_recipient(&mut document, grantee, entry)?;
    edit::bind_devices(&mut document, patient, &args.devices)?;
    let from = args.from.unwrap_or(now_s);
    let terms = Terms {
        classes: args.classes.iter().fold(0, |mask, class| mask | class_bit(*class)),
        purposes: args.purposes.iter().fold(0, |mask, purpose| mask | purpose.bit()),
        from,
        until: from.saturating_add(u64::from(args.days) * 86_400),
        stale_bound_s: args.stale_bound_s,
    };
    let version = edit::add_grant(
        &mut document,
        &mut enrolment,
        &seed,
        &edit::Relation { patient, grantee, number: relationship_number },
        &terms,
    )?;
    edit::touch(&mut document, now_s)?;
    // The enrolment first: a policy that names a key not yet pinned would be refused, the other way round opens nothing.
    store_enrolment(&args.files.enrolment, &enrolment)?;
    store_document(&args.files.policy, &document)?;
    say(&format!("granted: version {version} of this relationship, policy epoch {}", document.epoch))
}

fn revoke(files: &FileArgs, relationship: &RelationshipArgs, now_s: u64) -> anyhow::Result<()> {
    let seed = files::load_seed(&files.key)?;
    let enrolment = files::load_enrolment(&files.enrolment)?;
    let mut document = files::load_document(&files.policy)?;
    let relation = edit::Relation {
        patient: relationship.patient,
        grantee: relationship.grantee,
        number: relationship.relationship_number,
    };
    let version = edit::add_revocation(&mut document, &enrolment.domain, &seed, &relation)?;
    edit::touch(&mut document, now_s)?;
    store_document(&files.policy, &document)?;
    say(&format!("revoked: every version up to {version}, policy epoch {}", document.epoch))
}

#[cfg(test)]
mod tests;
