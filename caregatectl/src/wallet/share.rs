//! `wallet share` and `wallet recover`: the seed with people whom the patient trusts, of whom so many are needed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use caregate_host::key_file::{self, Existing};
use clap::Args;
use ledger_client::shares::{self, Of, SHARE_BYTES, Share};
use ledger_client::wallet::keystore::Cost;
use ledger_client::wallet::{PatientSeed, Wallet};
use serde_json::json;

use super::file::KeystoreArgs;
use crate::outcome::{Done, Outcome};

/// Split the wallet's seed into shares for people whom the patient trusts
///
/// As many of them as the threshold says can make the wallet again, and grant in the patient's name; fewer know nothing. To take shares
/// back is not possible: begin relationships anew with another wallet.
#[derive(Debug, Args)]
pub(super) struct ShareArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    /// How many shares it takes; 2 at least
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=16))]
    threshold: u8,
    /// New file for each share (mode 0600), one for each person; 16 at most
    #[arg(long, value_name = "FILE", required = true)]
    out: Vec<PathBuf>,
}

/// Make a wallet again from shares of its seed
///
/// Relationships are to be added again, in their old order; the ledger knows their versions. Then `wallet ledger` and `wallet enrol`.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    keystore: KeystoreArgs,
    /// File with a share, as many as it takes
    #[arg(long, value_name = "FILE", required = true)]
    share: Vec<PathBuf>,
    /// Memory that one guess of the passphrase takes (Argon2id), MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1024))]
    memory_mib: u32,
    /// Passes over that memory
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    passes: u32,
}

pub(super) fn share(arguments: &ShareArgs) -> Outcome {
    let ShareArgs { keystore, threshold, out } = arguments;
    let count = u8::try_from(out.len()).unwrap_or(u8::MAX);
    let open = keystore.open()?;
    let shares = shares::split(Of::Seed, open.wallet.seed.as_bytes(), *threshold, count)
        .map_err(anyhow::Error::from)?;
    for (path, share) in out.iter().zip(&shares) {
        key_file::write_hex(path, share.encode().as_slice(), Existing::Keep)?;
    }
    Ok(Done::new(
        format!("{count} shares, of which {threshold} make the wallet again: give each to another person"),
        json!({ "shares": out, "threshold": threshold }),
    ))
}

fn read(path: &Path) -> anyhow::Result<Share> {
    let bytes = key_file::read_hex::<SHARE_BYTES>(path)?;
    Share::decode(bytes.as_slice()).with_context(|| path.display().to_string())
}

pub(super) fn recover(arguments: &RecoverArgs) -> Outcome {
    let RecoverArgs { keystore, share, memory_mib, passes } = arguments;
    let shares = share.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let seed = shares::combine(Of::Seed, &shares).map_err(anyhow::Error::from)?;
    let wallet = Wallet::new(PatientSeed::from_bytes(*seed));
    let cost = Cost { memory_kib: memory_mib * 1024, passes: *passes, ..Cost::default() };
    keystore.create(&wallet, cost)?;
    let (path, pseudonym) =
        (keystore.path().display().to_string(), hex::encode(wallet.emergency_pseudonym().0));
    Ok(Done::new(
        format!("{path} is the wallet again; add its relationships in their old order"),
        json!({ "keystore": path, "pseudonym": pseudonym }),
    ))
}
