//! The ledger as policy delivery sees it: [`Followed`] is the chain, tests have one in memory.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use caregate_protocol::policy::delivery::{Anchor, Watch};
use caregate_protocol::policy::{PolicyBundle, RelationshipId, SignedEmergency};
use ledger_chain::{Chain, ChainConfig, ChainError, Follower, RelayKey, SendError};
use ledger_client::verify::{Address, Domain};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a ledger is asked for takes a while.
pub type LedgerFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Why the ledger did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For counters.
    pub reason: &'static str,
    /// For people.
    pub text: String,
    /// The same asked again has the same answer.
    pub is_final: bool,
}

/// The newest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Unix time in seconds.
    pub time_s: u64,
}

/// Whether the ledger answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Nothing has been heard of it yet.
    Starting,
    /// It is followed.
    Following,
    /// Why not.
    Down(String),
}

/// A ledger that is followed.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Which chain and contract messages are signed for.
    fn domain(&self) -> Domain;
    /// The newest block. Changes with each one.
    fn heads(&self) -> watch::Receiver<Option<Head>>;
    /// Whether it answers.
    fn status(&self) -> watch::Receiver<Status>;
    /// How many seal it, as its headers say; none where they don't, or none was heard.
    fn sealers(&self) -> Option<usize>;
    /// The block of the last change of what is watched.
    fn last_change(&self, watch: &Watch) -> u64;
    /// A bundle of the newest block for who watches this.
    fn bundle<'a>(&'a self, watch: &'a Watch) -> LedgerFuture<'a, PolicyBundle>;
    /// Sends a revocation; done when it is in a block.
    fn revoke<'a>(&'a self, anchor: &'a Anchor) -> LedgerFuture<'a, ()>;
    /// Sends an emergency; done when it is in a block.
    fn open_emergency<'a>(&'a self, signed: &'a SignedEmergency) -> LedgerFuture<'a, ()>;
    /// Whether this is one of the newest keys of a relationship that has handed on.
    fn has_handed_on_to(&self, relationship: &RelationshipId, key: &Address) -> bool;
}

/// The chain, through its client.
#[derive(Debug)]
pub struct Followed {
    follower: Arc<Follower>,
    heads: watch::Receiver<Option<Head>>,
    status: watch::Receiver<Status>,
}

impl Followed {
    /// Begins to follow; the node need not be there yet.
    ///
    /// # Errors
    /// A configuration that means nothing.
    pub fn start(config: ChainConfig, shutdown: &CancellationToken) -> Result<Arc<Self>, ChainError> {
        let follower = Follower::start(Chain::new(config)?, shutdown.clone());
        let heads = mapped(follower.heads(), shutdown, |head| {
            head.map(|head| Head { number: head.number, time_s: head.time_s })
        });
        let status = mapped(follower.status(), shutdown, |status| match status {
            ledger_chain::Status::Starting => Status::Starting,
            ledger_chain::Status::Following => Status::Following,
            ledger_chain::Status::Down(error) => Status::Down(error.to_string()),
        });
        Ok(Arc::new(Self { follower, heads, status }))
    }

    /// What follows the chain.
    #[must_use]
    pub fn follower(&self) -> Arc<Follower> {
        Arc::clone(&self.follower)
    }
}

/// The same in other words, for as long as there is one.
fn mapped<T, U>(
    mut from: watch::Receiver<T>,
    shutdown: &CancellationToken,
    map: fn(&T) -> U,
) -> watch::Receiver<U>
where
    T: Send + Sync + 'static,
    U: Send + Sync + 'static,
{
    let (to, mapped) = watch::channel(map(&from.borrow_and_update()));
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let follow = async {
            while from.changed().await.is_ok() {
                let value = map(&from.borrow_and_update());
                to.send_replace(value);
            }
        };
        shutdown.run_until_cancelled(follow).await
    });
    mapped
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        Self { reason: error.reason(), text: error.to_string(), is_final: false }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let (reason, is_final) = match &error {
            SendError::Refused(_) => ("refused", true),
            SendError::Signer => ("signer", true),
            SendError::Chain(chain) => (chain.reason(), false),
            SendError::NotMined { .. } => ("not_mined", false),
        };
        Self { reason, text: error.to_string(), is_final }
    }
}

impl Ledger for Followed {
    fn domain(&self) -> Domain {
        self.follower.chain().domain()
    }

    fn heads(&self) -> watch::Receiver<Option<Head>> {
        self.heads.clone()
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    fn sealers(&self) -> Option<usize> {
        self.follower.sealers()
    }

    fn last_change(&self, watch: &Watch) -> u64 {
        self.follower.last_change(watch)
    }

    fn bundle<'a>(&'a self, watch: &'a Watch) -> LedgerFuture<'a, PolicyBundle> {
        Box::pin(async move { self.follower.bundle(watch).await.map_err(Failure::from) })
    }

    fn revoke<'a>(&'a self, anchor: &'a Anchor) -> LedgerFuture<'a, ()> {
        Box::pin(async move {
            let (other, relay) = (Address(anchor.other_key), RelayKey::random());
            self.follower.chain().revoke(&anchor.revocation, &other, &relay).await?;
            Ok(())
        })
    }

    fn open_emergency<'a>(&'a self, signed: &'a SignedEmergency) -> LedgerFuture<'a, ()> {
        Box::pin(async move {
            self.follower.chain().open_emergency(signed, &RelayKey::random()).await?;
            Ok(())
        })
    }

    fn has_handed_on_to(&self, relationship: &RelationshipId, key: &Address) -> bool {
        self.follower
            .with_index(|index| index.newest_keys(relationship).is_some_and(|keys| keys.contains(key)))
    }
}
