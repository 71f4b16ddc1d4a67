//! `caregatectl participant`: domains that take part, and who says so.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use caregate_host::identity::{IdentityError, Role, SpiffeId};
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{RecipientKind, RecipientStatus};
use clap::{Args, Subcommand, ValueEnum};
use ledger_chain::{GatewaySalt, SignedParticipantKey, gateway_id};
use ledger_client::verify::ParticipantChange;
use ledger_client::wallet::DomainKey;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use zeroize::Zeroizing;

use crate::args::{address, hex0x, parse_bytes, parse_kind};
use crate::governance::{governed, governor_keys};
use crate::ledger::{LedgerArgs, mined};
use crate::outcome::{Done, Outcome};

/// Domains that take part: hospitals, as patients' grants name them.
///
/// The governors say who takes part, and can suspend. A participant's HPKE key carries its own signature, so nobody can put another in
/// its place.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a domain's or a governor's ledger key (mode 0600), and say its address
    New {
        /// New file for the key
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Say the address of a ledger key
    Address {
        /// The key's file
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Make the salt of a deployment's gateways (mode 0600), without which nobody finds them on the ledger
    ///
    /// Once for a deployment: core and controller have the same (`gateway_salt` in their configuration), and whoever registers gateways. With
    /// another one those that are registered are not found any more.
    GatewaySalt {
        /// New file for the salt
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    Register(RegisterArgs),
    Key(KeyArgs),
    /// Say what the ledger has of a participant
    Show {
        #[command(flatten)]
        ledger: LedgerArgs,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    /// Takes part
    Active,
    /// Gets nothing, whatever patients granted
    Suspended,
    /// Is not known any more
    Unknown,
}

/// Whom it is about
#[derive(Debug, Args)]
struct Who {
    #[command(flatten)]
    named: Named,
    /// File with the salt of the deployment's gateways (mode 0600)
    #[arg(long, value_name = "FILE", requires = "gateway", conflicts_with = "participant")]
    gateway_salt: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Named {
    /// The participant's address
    #[arg(long, value_name = "ADDRESS")]
    participant: Option<RecipientId>,
    /// A gateway, by the SPIFFE id in its certificate; suspended, core and controller refuse it
    #[arg(long, value_name = "SPIFFE", value_parser = gateway, requires = "gateway_salt")]
    gateway: Option<String>,
}

impl Who {
    /// A gateway's is that of the participant as which it stands on the ledger.
    fn id(&self) -> anyhow::Result<RecipientId> {
        match (&self.named.gateway, &self.gateway_salt) {
            (Some(spiffe_id), Some(file)) => {
                Ok(gateway_id(&GatewaySalt::new(key_file::read_hex(file)?), spiffe_id))
            }
            (Some(_), None) => bail!("--gateway-salt, which --gateway needs"),
            (None, _) => self.named.participant.context("--participant or --gateway"),
        }
    }
}

fn gateway(text: &str) -> Result<String, String> {
    let id: SpiffeId = text.parse().map_err(|error: IdentityError| error.to_string())?;
    if id.peer().role != Role::Gateway {
        return Err(format!("{text} is no gateway's"));
    }
    Ok(text.to_owned())
}

/// Say who takes part, and as what; by governors
///
/// Each governor approves the same change, from wherever they are. What widens waits as long as the ledger says; the same command,
/// then without a key, puts it in force. A suspension doesn't wait.
#[derive(Debug, Args)]
struct RegisterArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// File with a governor's key (mode 0600); repeated for several, none where the change has waited
    #[arg(long, value_name = "FILE")]
    governor_key: Vec<PathBuf>,
    #[command(flatten)]
    who: Who,
    /// Whether it takes part
    #[arg(long, value_enum, default_value = "active")]
    status: Status,
    /// treating (a grant may outlive a fresh policy for a while) or other
    #[arg(long, default_value = "treating", value_parser = parse_kind)]
    kind: RecipientKind,
    /// It may break the glass
    #[arg(long)]
    emergency: bool,
}

/// Give a participant a new HPKE key, signed with its own ledger key
#[derive(Debug, Args)]
struct KeyArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// File with the participant's ledger key (mode 0600)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The HPKE public key (X25519): 32 bytes in hexadecimal, or the file that holds them
    #[arg(long, value_name = "HEX|FILE")]
    hpke_public_key: String,
    /// Its version [default: the next one]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::New { out } => new(&out),
        Command::Address { key } => {
            let id = domain_key(&key)?.id();
            Ok(Done::new(address(&id), json!({ "address": address(&id) })))
        }
        Command::GatewaySalt { out } => new_gateway_salt(&out),
        Command::Register(arguments) => register(&arguments).await,
        Command::Key(arguments) => set_key(&arguments).await,
        Command::Show { ledger, who } => show(&ledger, &who.id()?).await,
    }
}

/// A domain's ledger key, from its file.
pub(crate) fn domain_key(path: &Path) -> anyhow::Result<DomainKey> {
    let secret = key_file::read_hex::<32>(path)?;
    DomainKey::from_bytes(&secret).with_context(|| path.display().to_string())
}

fn new(out: &Path) -> Outcome {
    let key = DomainKey::generate();
    key_file::write_hex(out, key.secret().as_slice(), Existing::Keep)?;
    let id = address(&key.id());
    Ok(Done::new(format!("{} holds the key of {id}", out.display()), json!({ "key": out, "address": id })))
}

fn new_gateway_salt(out: &Path) -> Outcome {
    let mut salt = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(salt.as_mut_slice())
        .map_err(|_unspecified| anyhow!("the system gives no random bytes"))?;
    key_file::write_hex(out, salt.as_slice(), Existing::Keep)?;
    Ok(Done::new(
        format!("{} holds the salt of this deployment's gateways", out.display()),
        json!({ "salt": out }),
    ))
}

async fn register(arguments: &RegisterArgs) -> Outcome {
    let governors = governor_keys(&arguments.governor_key)?;
    let chain = arguments.ledger.connect().await?;
    let status = match arguments.status {
        Status::Active => Some(RecipientStatus::Active),
        Status::Suspended => Some(RecipientStatus::Suspended),
        Status::Unknown => None,
    };
    let RegisterArgs { kind, emergency, ledger, .. } = arguments;
    let participant = &arguments.who.id()?;
    let known = chain.participant_version(participant).await?;
    let version = known.checked_add(1).context("no change of this participant is left")?;
    let change =
        ParticipantChange { participant: *participant, status, kind: *kind, emergency: *emergency, version };
    let relay = ledger.node.relay()?;
    let mut sent = None;
    for key in &governors {
        let approval = key.approve_participant(&change, &ledger.domain());
        sent = Some(chain.approve_participant(&change, &approval, &relay).await?);
        if chain.participant_version(participant).await? >= version {
            break;
        }
    }
    if governors.is_empty() {
        sent = Some(chain.apply_participant(&change, &relay).await?);
    }
    let is_in_force = chain.participant_version(participant).await? >= version;
    let id = address(participant);
    let wanted = json!({ "participant": id, "status": status, "kind": kind, "emergency": emergency });
    let text = format!("{id} is {:?}", arguments.status).to_lowercase();
    governed(&chain, &change.digest(&ledger.domain()), is_in_force, sent.as_ref(), text, wanted).await
}

fn hpke_public_key(text: &str) -> anyhow::Result<[u8; 32]> {
    if let Ok(key) = parse_bytes(text) {
        return Ok(key);
    }
    let held = std::fs::read_to_string(text).with_context(|| text.to_owned())?;
    parse_bytes(held.trim()).map_err(|problem| anyhow::anyhow!("{text}: {problem}"))
}

async fn set_key(arguments: &KeyArgs) -> Outcome {
    let key = domain_key(&arguments.key)?;
    let hpke_public_key = hpke_public_key(&arguments.hpke_public_key)?;
    let chain = arguments.ledger.connect().await?;
    let version = match arguments.version {
        Some(version) => version,
        None => {
            let known = chain.participant(&key.id()).await?.key_version;
            known.checked_add(1).context("no version of this key is left")?
        }
    };
    let signature = key.sign_hpke_key(&hpke_public_key, version, &arguments.ledger.domain());
    let signed = SignedParticipantKey { participant: key.id(), hpke_public_key, version, signature };
    let sent = chain.set_participant_key(&signed, &arguments.ledger.node.relay()?).await?;
    let id = address(&key.id());
    Ok(Done::new(
        format!("{id} has HPKE key version {version} (block {})", sent.block),
        json!({
            "participant": id, "hpke_public_key": hex::encode(hpke_public_key), "version": version,
            "ledger": mined(&sent),
        }),
    ))
}

async fn show(ledger: &LedgerArgs, participant: &RecipientId) -> Outcome {
    let state = ledger.connect().await?.participant(participant).await?;
    let (id, key) = (address(participant), hex0x(&state.hpke_public_key));
    Ok(Done::new(
        format!(
            "{id}: {}, {}{}, HPKE key {} {key}",
            state.status.map_or_else(|| "unknown".to_owned(), |status| format!("{status:?}").to_lowercase()),
            format!("{:?}", state.kind).to_lowercase(),
            if state.emergency { ", may break the glass" } else { "" },
            state.key_version
        ),
        json!({
            "participant": id, "status": state.status, "kind": state.kind, "emergency": state.emergency,
            "key_version": state.key_version, "hpke_public_key": hex::encode(state.hpke_public_key),
        }),
    ))
}
