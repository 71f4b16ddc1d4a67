//! Policy from a file, as the first cut had it (ADR 4). Deprecated: it goes when nothing writes such a file any more.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caregate_host::admin::Condition;
use caregate_protocol::policy::{Freshness, PolicyDocument, PolicyError, VerifiedPolicy};
use ledger_client::verify::{Domain, PatientPins, verify_document};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::decide::{Change, DecisionError, Proposal};
use crate::metrics::Metrics;

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Largest document, as in the format.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a policy was not taken over; the one before stays in force.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The document is malformed.
    #[error("{}: {source}", path.display())]
    Document {
        /// Which file.
        path: PathBuf,
        /// What and where.
        source: PolicyError,
    },
    /// It would take back what has been seen, or that could not be kept.
    #[error(transparent)]
    Decision(#[from] DecisionError),
    /// A bug in what reads it. The next change of the file is looked at all the same: it may be a revocation.
    #[error("{}: the reader panicked", path.display())]
    Panic {
        /// Which file.
        path: PathBuf,
    },
}

impl LoadError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Document { source, .. } => source.reason(),
            Self::Decision(source) => source.reason(),
            Self::Panic { .. } => "panic",
        }
    }

    /// Whether the same file may be good at the next look: too many open files, a disk that was full.
    fn may_pass(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Decision(DecisionError::Keys(_)) => true,
            Self::Document { .. } | Self::Decision(_) | Self::Panic { .. } => false,
        }
    }
}

/// Reads and checks the policy file.
#[derive(Debug)]
pub struct Source {
    /// The document.
    pub file: PathBuf,
    /// The ledger and contract that grants must be signed for.
    pub domain: Domain,
    /// The patients' keys.
    pub pins: PatientPins,
    /// Counters.
    pub metrics: Metrics,
}

impl Source {
    /// Reads the file and verifies each grant; refused grants are logged by path and counted, the others hold.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(&self) -> Result<VerifiedPolicy, LoadError> {
        let bytes =
            read_bounded(&self.file).map_err(|source| LoadError::Read { path: self.file.clone(), source })?;
        let document = PolicyDocument::decode(&bytes)
            .map_err(|source| LoadError::Document { path: self.file.clone(), source })?;
        let (policy, refused) = verify_document(&document, &self.pins, &self.domain, Freshness::Unproven);
        for grant in refused {
            self.metrics.policy_refused.with_label_values(&[grant.reason.as_str()]).inc();
            warn!(path = %grant.path, reason = grant.reason.as_str(), "a grant does not count");
        }
        Ok(policy)
    }

    fn note_refused(&self, failure: &LoadError) {
        self.metrics.policy_refused.with_label_values(&[failure.reason()]).inc();
        error!(error = %failure, "policy not taken over; the one before stays in force");
    }

    /// Looks at the file until `shutdown`, and hands each change that verifies to the committer's thread.
    pub async fn watch(
        self,
        proposals: mpsc::Sender<Proposal>,
        in_force: Condition,
        shutdown: CancellationToken,
    ) {
        let source = Arc::new(self);
        let mut seen = None;
        loop {
            let found = stamp(&source.file);
            if seen != Some(found) {
                seen = Some(found);
                let reading = Arc::clone(&source);
                let outcome = match tokio::task::spawn_blocking(move || reading.load()).await {
                    Ok(Ok(policy)) => propose(policy, &proposals).await,
                    Ok(Err(failure)) => Err(failure),
                    Err(_panicked) => Err(LoadError::Panic { path: source.file.clone() }),
                };
                match outcome {
                    Ok(()) => in_force.set(true),
                    Err(failure) => {
                        source.note_refused(&failure);
                        if found.is_some() && failure.may_pass() {
                            seen = None;
                        }
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

async fn propose(policy: VerifiedPolicy, proposals: &mpsc::Sender<Proposal>) -> Result<(), LoadError> {
    let (proposal, decided) = Proposal::new(Change::File(Box::new(policy)));
    if proposals.send(proposal).await.is_err() {
        return Ok(());
    }
    Ok(decided.await.unwrap_or(Ok(()))?)
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What tells one state of the file from another. Inode and change time are in it because the modification time alone can be
/// set, and a document that revokes may be as long as the one that granted.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}
