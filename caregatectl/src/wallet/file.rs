//! The keystore on disk: one command at a time, replaced in one step.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use caregate_host::key_file::{self, Existing};
use clap::Args;
use ledger_client::wallet::Wallet;
use ledger_client::wallet::keystore::{self, Cost};
use zeroize::Zeroizing;

use crate::secret::PassphraseArgs;

/// Which wallet.
#[derive(Debug, Args)]
pub(crate) struct KeystoreArgs {
    /// The wallet's encrypted file
    #[arg(long, value_name = "FILE")]
    keystore: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// An opened wallet. No other command opens it meanwhile.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) wallet: Wallet,
    path: PathBuf,
    passphrase: Zeroizing<Vec<u8>>,
    cost: Cost,
    _lock: File,
}

/// Two commands at once would sign the same version twice, so the second waits.
fn lock(path: &Path) -> anyhow::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&name);
    let file = file.with_context(|| name.display().to_string())?;
    file.lock().with_context(|| name.display().to_string())?;
    Ok(file)
}

impl KeystoreArgs {
    pub(super) fn path(&self) -> &Path {
        &self.keystore
    }

    pub(super) fn create(&self, wallet: &Wallet, cost: Cost) -> anyhow::Result<()> {
        let _lock = lock(&self.keystore)?;
        if self.keystore.exists() {
            bail!("{}: exists already", self.keystore.display());
        }
        let bytes = keystore::seal(&wallet.encode(), &self.passphrase.chosen()?, cost)?;
        key_file::write(&self.keystore, &bytes, Existing::Keep)?;
        Ok(())
    }

    pub(super) fn open(&self) -> anyhow::Result<Open> {
        let there = || self.keystore.display().to_string();
        if !self.keystore.exists() {
            bail!("{}: no such wallet; `caregatectl wallet new` makes one", there());
        }
        let lock = lock(&self.keystore)?;
        let bytes = key_file::read_up_to(&self.keystore, keystore::KEYSTORE_BYTES_MAX as u64)?;
        let cost = keystore::cost(&bytes).with_context(there)?;
        let passphrase = self.passphrase.known()?;
        let opened = keystore::open(&bytes, &passphrase).with_context(there)?;
        let wallet = Wallet::decode(&opened).with_context(there)?;
        Ok(Open { wallet, path: self.keystore.clone(), passphrase, cost, _lock: lock })
    }
}

impl Open {
    /// Keeps what changed, durably.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let bytes = keystore::seal(&self.wallet.encode(), &self.passphrase, self.cost)?;
        key_file::write(&self.path, &bytes, Existing::Replace)?;
        Ok(())
    }

    /// The same, and overwrites the file before: it had secrets that nobody is to have, under the same passphrase.
    pub(super) fn save_wiping(&self) -> anyhow::Result<()> {
        let bytes = keystore::seal(&self.wallet.encode(), &self.passphrase, self.cost)?;
        key_file::replace_wiping(&self.path, &bytes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ledger_client::wallet::PatientSeed;
    use ledger_client::wallet::keystore::MEMORY_KIB;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        keystore: KeystoreArgs,
    }

    const CHEAP: Cost = Cost { memory_kib: MEMORY_KIB.0, passes: 1, lanes: 1 };

    fn args(dir: &Path, passphrase: &str) -> KeystoreArgs {
        let file = dir.join("passphrase");
        key_file::write(&file, passphrase.as_bytes(), Existing::Replace).unwrap();
        let (keystore, file) = (dir.join("wallet"), file.to_str().unwrap().to_owned());
        Line::parse_from(["x", "--keystore", keystore.to_str().unwrap(), "--passphrase-file", &file]).keystore
    }

    #[test]
    fn a_wallet_is_made_once_and_changed_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path(), "a good passphrase");
        let absent = args.open().unwrap_err().to_string();
        assert!(absent.contains("no such wallet"), "{absent}");
        let wallet = Wallet::new(PatientSeed::generate());
        args.create(&wallet, CHEAP).unwrap();
        assert!(args.create(&wallet, CHEAP).unwrap_err().to_string().contains("exists already"));
        let mut open = args.open().unwrap();
        open.wallet.home_mut("gateway-1").unwrap();
        open.save().unwrap();
        drop(open);
        assert_eq!(args.open().unwrap().wallet.homes.len(), 1);
        assert_eq!(keystore::cost(&std::fs::read(args.path()).unwrap()), Ok(CHEAP), "the cost is kept");
    }

    #[test]
    fn another_passphrase_and_a_readable_file_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let right = args(dir.path(), "a good passphrase");
        right.create(&Wallet::new(PatientSeed::generate()), CHEAP).unwrap();
        let wrong = format!("{:#}", args(dir.path(), "another passphrase").open().unwrap_err());
        assert!(wrong.contains("wrong passphrase"), "{wrong}");
        std::fs::set_permissions(right.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let open = args(dir.path(), "a good passphrase").open().unwrap_err().to_string();
        assert!(open.contains("chmod 600"), "{open}");
    }

    #[test]
    fn the_second_command_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path(), "a good passphrase");
        args.create(&Wallet::new(PatientSeed::generate()), CHEAP).unwrap();
        let open = args.open().unwrap();
        let name = dir.path().join("wallet.lock");
        let second = File::options().append(true).open(&name).unwrap();
        assert!(second.try_lock().is_err());
        drop(open);
        second.try_lock().unwrap();
    }
}
