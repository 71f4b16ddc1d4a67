//! Files that somebody hands over: read up to a bound.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;

/// JSON of at most `bytes_max`.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> anyhow::Result<T> {
    let named = || path.display().to_string();
    let bytes = std::fs::metadata(path).with_context(named)?.len();
    ensure!(bytes <= bytes_max, "{}: has {bytes} bytes, allowed are {bytes_max}", named());
    serde_json::from_slice(&std::fs::read(path).with_context(named)?).with_context(named)
}
