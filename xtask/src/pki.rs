//! A deployment's secrets: one certificate authority, a certificate per daemon or sensor, device keys, recipients' HPKE keys and
//! sensors' passwords. The demo and the tests use the same functions as the commands.
//!
//! Private parts are written at 0600 in one step and never replaced unless asked; what is public stands beside them.

mod authority;
pub(crate) mod command;
mod keys;
mod show;

pub(crate) use authority::{Authority, Issued, Request};
pub(crate) use keys::{DeviceKey, HpkeKey, SensorPassword};

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Makes a directory (and those above it) at 0700. One that is there must not be writable for others, who could put their own CA
/// or key in place.
fn private_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("can't make the directory {}", path.display()))?;
    let mode = std::fs::metadata(path).with_context(|| path.display().to_string())?.mode() & 0o7777;
    ensure!(
        mode & 0o022 == 0,
        "{}: mode {mode:04o} lets others put files there; run chmod 700",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests;
