//! `wallet erase`: nothing of the patient is to stay at a gateway, its core and the feeds.

mod told;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use caregate_host::clock;
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::PatientId;
use clap::Args;
use ledger_client::shares::{Of, ROOT_SHARE_BYTES, Share};
use serde_json::json;
use told::Told;

use super::file::{KeystoreArgs, Open};
use crate::door::DoorArgs;
use crate::ledger::NodeArgs;
use crate::outcome::{Done, Failure, Outcome, say};

/// Between two questions for receipts.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// What no erasure recalls.
const BEYOND: [&str; 6] = [
    "what recipients have opened, exported, copied or written down, and keys that they have kept of what they were granted",
    "what a feed, a core or a backup of theirs holds from which no receipt came",
    "shares of the root, with the people who have them: ask them to destroy theirs (--share for those that you have)",
    "backups of the gateway's folder and of this wallet, and what flash or file systems keep of blocks that were replaced",
    "the ledger's entries: pseudonyms, salted commitments and the roots of audit logs, which say no more than before",
    "audit logs: that there was a pseudonym, who was given keys of it, and that it was erased",
];

/// Have everything of the patient at one gateway erased, for good
///
/// The gateway destroys the root of all keys, asks core and feeds to erase what they have, and takes the patient out of its enrolment; each
/// signs a receipt. The devices are released on the ledger, and the wallet destroys what it has of this gateway. There is no way back. Run it
/// again for receipts that were not there yet.
#[derive(Debug, Args)]
pub(super) struct EraseArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    door: DoorArgs,
    /// The gateway's name, as in its certificate
    #[arg(long, value_name = "GATEWAY")]
    home: String,
    /// The gateway's name again
    #[arg(long, value_name = "GATEWAY")]
    confirm: String,
    /// File for what was said, receipts in it (JSON); one that is there is replaced
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// File with a share of the patient's root at this gateway, to be destroyed too; repeat for several
    #[arg(long, value_name = "FILE")]
    share: Vec<PathBuf>,
    /// Public key of a receipt's signer that is known by another way: core, feed and gateway log theirs at their start; repeat for several
    #[arg(long, value_name = "HEX")]
    receipt_key: Vec<String>,
    /// For how long to wait for receipts
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait_s: u64,
}

/// Orders it, and waits for receipts. Each try is an order of its own: one that was handed in before does not count.
async fn order(arguments: &EraseArgs, open: &Open) -> Result<Told, Failure> {
    let until = clock::monotonic() + Duration::from_secs(arguments.wait_s);
    loop {
        let order =
            open.wallet.sign_erasure(&arguments.home, clock::now_us()).map_err(anyhow::Error::from)?;
        let answer = arguments.door.hand_over("erasure", order.encode().to_vec()).await?;
        let told = Told::new(&answer, order.patient, &open.wallet)?;
        if told.waiting(&arguments.home).is_empty() || clock::monotonic() >= until {
            return Ok(told);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Releases what was worn there; how many devices.
async fn release(arguments: &EraseArgs, open: &mut Open) -> Result<usize, Failure> {
    let home = &arguments.home;
    let Ok(known) = open.wallet.home(home) else { return Ok(0) };
    let devices: Vec<_> = known.devices.iter().map(|known| known.device.clone()).collect();
    if devices.is_empty() {
        return Ok(0);
    }
    let chain = arguments.node.connect(&open.ledger()?.domain).await?;
    let mut released = 0;
    for device in devices {
        let (version, bound) = chain.binding(&open.wallet.binding_key(home, &device)?).await?;
        if bound {
            open.wallet.note_binding(home, &device, version);
            let signed = open.wallet.sign_binding(home, &device, false)?;
            open.save()?;
            chain.bind_device(&signed, &arguments.node.relay()?).await?;
            released += 1;
        }
    }
    Ok(released)
}

/// Before anything is done: each is a share of that root.
fn check_shares(paths: &[PathBuf], patient: PatientId) -> anyhow::Result<()> {
    for path in paths {
        let bytes = key_file::read_hex::<ROOT_SHARE_BYTES>(path)?;
        let share = Share::decode(bytes.as_slice()).with_context(|| path.display().to_string())?;
        if share.of() != Of::Root(patient) {
            bail!("{}: not a share of the patient's root at this gateway; nothing was done", path.display());
        }
    }
    Ok(())
}

pub(super) async fn run(arguments: &EraseArgs) -> Outcome {
    let EraseArgs { home, confirm, out, door, share, .. } = arguments;
    if home != confirm {
        return Err(anyhow!("--confirm names another gateway than --home; nothing was done").into());
    }
    if !door.is_local() {
        return Err(anyhow!(
            "--gateway: an erasure is ordered at the gateway's local door; nothing was done"
        )
        .into());
    }
    let mut open = arguments.keystore.open()?;
    let patient = open.wallet.patient_at(home)?;
    check_shares(share, patient)?;
    let told = order(arguments, &open).await?;
    for path in share {
        key_file::destroy(path)?;
    }
    // The salts are needed to release a device; then they go.
    let released = match release(arguments, &mut open).await {
        Ok(released) => Some(released),
        Err(failure) => {
            let why = failure.sentence();
            say(format_args!(
                "warning: devices are not released on the ledger yet, and the wallet keeps their salts; run it again: {why}"
            ));
            None
        }
    };
    if released.is_some() {
        open.wallet.erase_home(home);
        open.save_wiping()?;
    }
    let waiting = told.waiting(home);
    let object = json!({
        "home": home, "patient": patient, "root_destroyed": true, "complete": waiting.is_empty(),
        "request": told.request(), "erased": told.erased(home, &arguments.receipt_key), "waiting": waiting,
        "released": released, "shares_destroyed": share, "shares_out": told.shares_out(),
        "salts_destroyed": { "wallet": released.is_some(), "gateway": told.salts_left().is_none() },
        "salts_left": told.salts_left(), "beyond_reach": BEYOND, "file": out,
    });
    if let Some(out) = out {
        key_file::write(out, format!("{object:#}\n").as_bytes(), Existing::Replace)?;
    }
    Ok(Done::new(told.text(home, &arguments.receipt_key, &BEYOND), object))
}
