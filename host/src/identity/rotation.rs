//! Taking over replaced files while running.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::material::Material;
use super::{Identity, IdentityError, IdentityFiles};

/// What tells one state of a file from another. The change time is in it so that a `chmod` that repairs a key file counts.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}

pub(super) fn stamps(files: &IdentityFiles) -> [Stamp; 3] {
    [stamp(&files.certificate), stamp(&files.key), stamp(&files.ca)]
}

impl Identity {
    /// Reads the files again and takes them over when they are good; else the old material stays. Both are counted and logged.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn reload(&self) -> Result<(), IdentityError> {
        let metrics = &self.shared.metrics;
        match Material::read(&self.files, UnixTime::now()) {
            Ok(material) => {
                tracing::info!(id = %material.id, not_after_s = material.not_after_s, "identity files taken over");
                metrics.not_after.set(material.not_after_s);
                metrics.reloads.with_label_values(&["taken"]).inc();
                self.shared.current.store(Arc::new(material));
                self.generation.send_modify(|generation| *generation += 1);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "changed identity files refused, the old ones stay in use");
                metrics.reloads.with_label_values(&["refused"]).inc();
                Err(error)
            }
        }
    }

    /// Changes whenever new material was taken over; the number counts them. A daemon with long-lived connections may close
    /// those that a removed CA had vouched for.
    #[must_use]
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Starts a task that takes over changed files, looking every `interval` and at SIGHUP, until `shutdown`.
    ///
    /// Certificate and key are two files: when only one has been replaced, they don't fit, the old pair stays, and the second
    /// replacement completes the change.
    ///
    /// # Errors
    /// When the handler for SIGHUP can't be installed.
    pub fn watch(
        self: &Arc<Self>,
        interval: Duration,
        shutdown: CancellationToken,
    ) -> io::Result<JoinHandle<()>> {
        let mut hangup = signal(SignalKind::hangup())?;
        let identity = Arc::clone(self);
        let mut seen = identity.loaded;
        Ok(tokio::spawn(async move {
            loop {
                let asked = tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = hangup.recv() => true,
                    () = tokio::time::sleep(interval) => false,
                };
                let found = stamps(&identity.files);
                if asked || found != seen {
                    seen = found;
                    // A refusal is logged and counted; the next change is tried again.
                    drop(identity.reload());
                }
            }
        }))
    }
}
