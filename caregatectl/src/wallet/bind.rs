//! `wallet bind`: which devices are the patient's.

use std::path::PathBuf;

use anyhow::Context as _;
use caregate_protocol::id::DeviceId;
use caregate_protocol::policy::Mac;
use clap::Args;
use serde_json::json;

use super::file::KeystoreArgs;
use crate::device::BindingFile;
use crate::ledger::{NodeArgs, mined};
use crate::outcome::{Done, Outcome};

/// Bind a device to this patient at a gateway, or release it
///
/// On the ledger is a salted commitment, which says nothing about the device. The gateway learns the device with `wallet enrol`.
#[derive(Debug, Args)]
pub(super) struct BindArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// The gateway's name, as in its certificate
    #[arg(long, value_name = "GATEWAY")]
    home: String,
    /// The device's id, as in its MQTT topics
    #[arg(long)]
    device: DeviceId,
    /// The device's MAC address; needed the first time
    #[arg(long)]
    mac: Option<Mac>,
    /// The device is the patient's no more
    #[arg(long)]
    release: bool,
    /// Only remember the device, for `wallet enrol`; nothing is signed or sent
    #[arg(long, conflicts_with = "release")]
    remember: bool,
    /// Sign into a new file, for who relays it (`device bind`, `device unbind`); nothing is sent
    #[arg(long, value_name = "FILE", conflicts_with = "remember")]
    out: Option<PathBuf>,
}

pub(super) async fn run(arguments: &BindArgs) -> Outcome {
    let BindArgs { home, device, .. } = arguments;
    let mut open = arguments.keystore.open()?;
    match arguments.mac {
        Some(mac) => open.wallet.add_device(home, device, mac)?,
        None => {
            let known = open.wallet.enrolled_device(home, device);
            known.map(|_| ()).context("a device that is new needs --mac")?;
        }
    }
    let mac = open.wallet.enrolled_device(home, device)?.mac;
    if arguments.remember {
        open.save()?;
        let text = format!("{device} is remembered for {home}");
        return Ok(Done::new(text, json!({ "device": device, "mac": mac, "home": home })));
    }
    let chain = arguments.node.connect(&open.ledger()?.domain).await?;
    let (version, _bound) = chain.binding(&open.wallet.binding_key(home, device)?).await?;
    open.wallet.note_binding(home, device, version);
    let signed = open.wallet.sign_binding(home, device, !arguments.release)?;
    open.save()?;
    if let Some(out) = &arguments.out {
        let home_key = open.wallet.seed.home_key(home)?.address();
        BindingFile::new(&open.ledger()?.domain, home_key, &signed).write(out)?;
        return Ok(Done::new(
            format!("{} is for who relays it", out.display()),
            json!({ "file": out, "device": device, "home": home, "bound": signed.bound, "version": signed.version }),
        ));
    }
    let sent = chain.bind_device(&signed, &arguments.node.relay()?).await?;
    let what = if signed.bound { "bound to" } else { "released from" };
    Ok(Done::new(
        format!("{device} is {what} {home} (version {}, block {})", signed.version, sent.block),
        json!({
            "device": device, "mac": mac, "home": home, "bound": signed.bound, "version": signed.version,
            "ledger": mined(&sent),
        }),
    ))
}
