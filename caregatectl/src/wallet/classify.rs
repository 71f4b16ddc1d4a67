//! `wallet classify`: of which class a device's readings are.

use caregate_protocol::code::Quantity;
use caregate_protocol::id::{DataClass, DeviceId};
use caregate_protocol::policy::classes;
use clap::Args;
use serde_json::json;

use super::file::KeystoreArgs;
use crate::outcome::{Done, Outcome};

/// Say of which class a device's readings are, where it is to be another than the usual one
///
/// Such as the heart rate of the sensor that is worn in therapy: `--quantity heart-rate --class sensitive`. The rules are part of what the
/// patient signs when the device is bound, so nobody else can change them: a device that is bound is released first, and bound and enrolled
/// again afterwards. Alarms are neither moved nor made: whoever may see alarms is still told that a limit was passed, without the number, and
/// the early-warning score goes without it.
#[derive(Debug, Args)]
pub(super) struct ClassifyArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    /// The gateway's name, as in its certificate
    #[arg(long, value_name = "GATEWAY")]
    home: String,
    /// The device's id, as in its MQTT topics
    #[arg(long)]
    device: DeviceId,
    /// What it measures, as in its MQTT topics (heart-rate, glucose, ecg-ii, …); several with commas or repeated [default: all that no other rule names]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = quantity)]
    quantity: Vec<Named>,
    /// vitals, waveform, activity or sensitive
    #[arg(long, value_parser = class, required_unless_present = "usual")]
    class: Option<DataClass>,
    /// The usual class again: the rule goes
    #[arg(long, conflicts_with = "class")]
    usual: bool,
}

/// A row of the code table.
#[derive(Debug, Clone, Copy)]
struct Named(&'static Quantity);

fn quantity(text: &str) -> Result<Named, String> {
    let found = classes::quantity(text).map_err(|error| error.to_string())?;
    found.map(Named).ok_or_else(|| format!("leave out --quantity for `{text}`"))
}

fn class(text: &str) -> Result<DataClass, String> {
    DataClass::from_name(text).ok_or_else(|| "classes are vitals, waveform, activity, sensitive".to_owned())
}

pub(super) fn run(arguments: &ClassifyArgs) -> Outcome {
    let ClassifyArgs { keystore, home, device, quantity, class, usual: _ } = arguments;
    let mut open = keystore.open()?;
    if quantity.is_empty() {
        open.wallet.classify(home, device, None, *class)?;
    }
    for Named(row) in quantity {
        open.wallet.classify(home, device, Some(row), *class)?;
    }
    let rules = open.wallet.enrolled_device(home, device)?.classes;
    open.save()?;
    let text = match rules.is_empty() {
        true => format!("{device} has the usual classes"),
        false => format!("{device}: {}", said(&rules)),
    };
    Ok(Done::new(
        format!("{text}. It counts once the device is bound and the gateway enrolled anew"),
        json!({ "home": home, "device": device, "classes": rules }),
    ))
}

/// The rules in words.
pub(super) fn said(rules: &classes::Classes) -> String {
    let rules = rules.iter().map(|(name, class)| format!("{name} is {}", class.as_str()));
    rules.collect::<Vec<_>>().join(", ")
}
