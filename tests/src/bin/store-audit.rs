//! Says who can open what in a core's store.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use caregate_host::{key_file, log};
use caregate_protocol::wrap::HpkePrivateKey;
use caregate_tests::audit::Audit;
use clap::Parser;
use ed25519_dalek::VerifyingKey;

/// Opens every segment in a core's store with the patients' roots, and says for each reading which recipients' keys open it too,
/// with all the wraps that lie there.
///
/// For after the daemons have ended: it reads their files. Status 1 where a record is malformed or a patient's own root does not
/// open it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The core's `core.redb`, or the folder of the NATS server on which it stored.
    #[arg(long, value_name = "FILE")]
    core: PathBuf,
    /// The gateway's `keys.redb`.
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// A recipient's HPKE private key (hexadecimal, mode 0600). Repeatable; each line's `openable` has them in this order.
    #[arg(long, value_name = "FILE")]
    hpke_key: Vec<PathBuf>,
    /// A gateway's public device key (hexadecimal). Repeatable; wraps are opened as from these.
    #[arg(long, value_name = "HEX", required = true, value_parser = device_key)]
    gateway: Vec<VerifyingKey>,
    /// Written: one JSON line per reading.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn device_key(text: &str) -> anyhow::Result<VerifyingKey> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).context("a device key is 32 bytes in hexadecimal")?;
    Ok(VerifyingKey::from_bytes(&bytes)?)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    log::init(log::LogFormat::Text)?;
    let keys: Vec<_> = arguments
        .hpke_key
        .iter()
        .map(|path| Ok(HpkePrivateKey::from_bytes(*key_file::read_hex::<32>(path)?)))
        .collect::<anyhow::Result<_>>()?;
    let audit = Audit::open(&arguments.core, &arguments.keys)?;
    let file = File::create(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let readings = audit.write(&keys, &arguments.gateway, BufWriter::new(file))?;
    writeln!(std::io::stdout(), "{{\"readings\":{readings}}}")?;
    Ok(())
}
