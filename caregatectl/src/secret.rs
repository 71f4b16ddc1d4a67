//! Passphrases: from a file that nobody else may read, or typed at the terminal without being shown.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use caregate_host::key_file;
use clap::Args;
use ledger_client::wallet::keystore::PASSPHRASE_BYTES_MAX;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Where the passphrase comes from.
#[derive(Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// File with the passphrase in its first line (mode 0600); without it the terminal is asked
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    /// The passphrase of a keystore that is there.
    pub(crate) fn known(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        match &self.passphrase_file {
            Some(path) => first_line(path),
            None => typed("Passphrase: "),
        }
    }

    /// The passphrase of a keystore that is to be made; typed twice.
    pub(crate) fn chosen(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        if self.passphrase_file.is_some() {
            return self.known();
        }
        let first = typed("New passphrase: ")?;
        if *typed("Again: ")? != *first {
            bail!("the two passphrases differ");
        }
        Ok(first)
    }
}

/// The first line of a file that nobody else may read.
pub(crate) fn first_line(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let bytes = key_file::read(path)?;
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let line = &bytes[..end];
    Ok(Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec()))
}

/// Gives the terminal back as it was, also where reading failed.
struct Quiet<'a> {
    terminal: &'a std::fs::File,
    before: Termios,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs neither.
        if tcsetattr(self.terminal, OptionalActions::Now, &self.before).is_ok() {
            drop(writeln!(&*self.terminal));
        }
    }
}

fn typed(prompt: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("there is no terminal to ask for the passphrase: give --passphrase-file")?;
    let before = tcgetattr(&terminal).context("the terminal's settings")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    write!(&terminal, "{prompt}")?;
    tcsetattr(&terminal, OptionalActions::Flush, &silent).context("the terminal's settings")?;
    let quiet = Quiet { terminal: &terminal, before };
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX + 2));
    let mut reader = BufReader::new(std::io::Read::take(quiet.terminal, PASSPHRASE_BYTES_MAX as u64 + 2));
    reader.read_until(b'\n', &mut line).context("read the passphrase")?;
    while line.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use caregate_host::key_file::{Existing, write};

    use super::*;

    #[test]
    fn the_first_line_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        for (text, passphrase) in
            [("a b c", "a b c"), ("a b c\n", "a b c"), ("a b c\r\nnot this", "a b c"), ("", "")]
        {
            write(&path, text.as_bytes(), Existing::Replace).unwrap();
            assert_eq!(first_line(&path).unwrap().as_slice(), passphrase.as_bytes());
        }
    }
}
