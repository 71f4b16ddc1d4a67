//! Gateways whose identity the governors have revoked: a gateway that was stolen or replaced is refused wherever it comes.
//!
//! A gateway takes part under an address that its SPIFFE id and its deployment's salt give ([`gateway_id`]); nobody has a key of it.
//! Registered when it is installed, it can be suspended by one governor at once, as any participant; the contract knows no difference. One
//! that the ledger does not know stands as the configuration says. Names of gateways are easily guessed; who has not the salt finds none
//! of them on the ledger. That a deployment's governors registered some addresses anybody sees.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy::primitives::keccak256;
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::RecipientStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use zeroize::Zeroizing;

use crate::follow::{Follower, Status};

/// What is kept beside a daemon's data, so that a restart without a ledger lets nobody in who was refused before.
const FILE: &str = "revoked-gateways.json";
/// Longest such file: as many addresses as the ledger's index has participants.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// A deployment's secret, without which nobody finds its gateways on the ledger. Cheap to clone.
#[derive(Clone)]
pub struct GatewaySalt(Arc<Zeroizing<[u8; 32]>>);

impl GatewaySalt {
    /// From what the operator keeps in a file.
    #[must_use]
    pub fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(Arc::new(secret))
    }
}

impl fmt::Debug for GatewaySalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewaySalt(…)")
    }
}

/// The participant as which a gateway stands on the ledger: the last 20 bytes of Keccak-256 over "caregate gateway 2", a zero byte, the
/// salt and its SPIFFE id.
#[must_use]
pub fn gateway_id(salt: &GatewaySalt, spiffe_id: &str) -> RecipientId {
    let message = Zeroizing::new([b"caregate gateway 2\0", salt.0.as_slice(), spiffe_id.as_bytes()].concat());
    let hash = keccak256(message.as_slice());
    let mut id = [0; 20];
    id.copy_from_slice(&hash[12..]);
    RecipientId(id)
}

/// Who is revoked, as far as the ledger was heard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RevokedGateways {
    /// Of what deployment the names are, and its salt; none where there is no ledger.
    names: Option<(Arc<str>, GatewaySalt)>,
    revoked: watch::Receiver<Arc<BTreeSet<RecipientId>>>,
}

impl RevokedGateways {
    /// Nobody, ever: there is no ledger.
    #[must_use]
    pub fn none() -> Self {
        let (_, revoked) = watch::channel(Arc::default());
        Self { names: None, revoked }
    }

    /// Follows the ledger until `shutdown`. `domain` is the trust domain of the gateways' certificates, `salt` what their names are
    /// salted with; `dir` is where to remember.
    ///
    /// # Errors
    /// If what was remembered can't be read: to go on without it could let somebody in.
    pub fn follow(
        follower: Arc<Follower>,
        domain: &str,
        salt: GatewaySalt,
        dir: &Path,
        shutdown: CancellationToken,
    ) -> std::io::Result<Self> {
        let file = dir.join(FILE);
        let (says, revoked) = watch::channel(Arc::new(remembered(&file)?));
        tokio::spawn(async move { shutdown.run_until_cancelled(run(follower, file, says)).await });
        Ok(Self { names: Some((domain.into(), salt)), revoked })
    }

    /// Whether the gateway of this name is refused.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let Some((domain, salt)) = &self.names else { return false };
        let id = gateway_id(salt, &format!("spiffe://{domain}/gateway/{name}"));
        self.revoked.borrow().contains(&id)
    }

    /// Waits until the gateway of this name is refused.
    pub async fn is_revoked(&self, name: &str) {
        let mut revoked = self.revoked.clone();
        loop {
            revoked.mark_unchanged();
            if self.contains(name) {
                return;
            }
            if revoked.changed().await.is_err() {
                // Nothing more will be heard.
                return std::future::pending().await;
            }
        }
    }
}

async fn run(follower: Arc<Follower>, file: PathBuf, says: watch::Sender<Arc<BTreeSet<RecipientId>>>) {
    let (mut heads, status) = (follower.heads(), follower.status());
    while heads.changed().await.is_ok() {
        let is_known = heads.borrow_and_update().is_some() && *status.borrow() != Status::Starting;
        if !is_known {
            continue;
        }
        let suspended: BTreeSet<_> = follower.with_index(|index| {
            let all = index.participants.iter();
            let suspended = all.filter(|(_, known)| known.status == Some(RecipientStatus::Suspended));
            suspended.map(|(id, _)| *id).collect()
        });
        if **says.borrow() == suspended {
            continue;
        }
        warn!(participants = suspended.len(), "the ledger's list of suspended participants has changed");
        if let Err(error) = remember(&file, &suspended) {
            error!(path = %file.display(), %error, "who is revoked could not be remembered");
        }
        says.send_replace(Arc::new(suspended));
    }
}

fn remembered(file: &Path) -> std::io::Result<BTreeSet<RecipientId>> {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            return Err(std::io::Error::other(format!("{}: too long", file.display())));
        }
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    serde_json::from_slice(&std::fs::read(file)?).map_err(std::io::Error::other)
}

/// In one step: a reader finds the old list or the new one.
fn remember(file: &Path, revoked: &BTreeSet<RecipientId>) -> std::io::Result<()> {
    let draft = file.with_extension("draft");
    let bytes = serde_json::to_vec(revoked)?;
    let mut out = std::fs::File::create(&draft)?;
    std::io::Write::write_all(&mut out, &bytes)?;
    out.sync_all()?;
    std::fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn salt(first: u8) -> GatewaySalt {
        GatewaySalt::new(Zeroizing::new(std::array::from_fn(|nth| first + u8::try_from(nth).unwrap())))
    }

    #[test]
    fn a_gateway_has_an_address_of_its_own_in_each_deployment() {
        let names = ["spiffe://home.example/gateway/g-1", "spiffe://home.example/gateway/g-2"];
        let of = |first| names.map(|name| gateway_id(&salt(first), name));
        let ids: BTreeSet<_> = of(0).into_iter().chain(of(1)).collect();
        assert_eq!(ids.len(), 4);
        // Computed apart from this code, by a Keccak written down in Python.
        assert_eq!(gateway_id(&salt(0), names[0]).to_string(), GOLDEN);
        assert_eq!(format!("{:?}", salt(0)), "GatewaySalt(…)");
    }
    const GOLDEN: &str = "557e9d056f796c16e021d3765935e06069ff3b61";

    #[test]
    fn a_revoked_gateway_is_found_by_its_name_and_the_salt_alone() {
        let id = gateway_id(&salt(0), "spiffe://home.example/gateway/g-1");
        let (_says, revoked) = watch::channel(Arc::new(BTreeSet::from([id])));
        let with = |domain: &str, first| RevokedGateways {
            names: Some((domain.into(), salt(first))),
            revoked: revoked.clone(),
        };
        assert!(with("home.example", 0).contains("g-1"));
        assert!(!with("home.example", 0).contains("g-2"));
        assert!(!with("home.example", 1).contains("g-1") && !with("other.example", 0).contains("g-1"));
        assert!(!RevokedGateways::none().contains("g-1"));
    }

    #[test]
    fn who_is_revoked_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        assert!(remembered(&file).unwrap().is_empty());
        let revoked = BTreeSet::from([RecipientId([1; 20]), RecipientId([2; 20])]);
        remember(&file, &revoked).unwrap();
        assert_eq!(remembered(&file).unwrap(), revoked);
        std::fs::write(&file, "[\"x\"]").unwrap();
        assert!(remembered(&file).is_err());
    }
}
