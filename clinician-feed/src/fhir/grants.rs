//! What patients granted to this domain, as the ledger has it: Consents (R4 §6.2), and whose word each is (Provenance, §6.3).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use caregate_host::clock;
use caregate_protocol::fhir::{consent, instant, provenance};
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{RelationshipId, SignedGrant};
use ledger_chain::{ChainError, Follower};
use serde_json::Value;

use super::search::GrantSearch;

/// Times of blocks that are remembered; when they are full it begins anew.
const TIMES_MAX: usize = 4096;

/// Which resource is wanted of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What was granted.
    Consent,
    /// Whose word it is.
    Provenance,
}

impl Wanted {
    /// The resource's type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consent => "Consent",
            Self::Provenance => "Provenance",
        }
    }

    /// The search parameter that names a grant, and its type.
    #[must_use]
    pub fn parameter(self) -> (&'static str, &'static str) {
        match self {
            Self::Consent => ("_id", "token"),
            Self::Provenance => ("target", "reference"),
        }
    }
}

/// One grant, and what else the resources need.
struct Granted {
    signed: SignedGrant,
    block: u64,
    /// Not revoked.
    stands: bool,
}

/// A page of a search.
#[derive(Debug, Default)]
pub struct Page {
    /// Matches, on this page and on others.
    pub total: usize,
    /// Resources, by relationship.
    pub resources: Vec<Value>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// The grants to one domain.
#[derive(Debug)]
pub struct Grants {
    follower: Arc<Follower>,
    me: RecipientId,
    times: Mutex<BTreeMap<u64, u64>>,
}

impl Grants {
    /// Out of what is followed.
    #[must_use]
    pub fn new(follower: Arc<Follower>, me: RecipientId) -> Self {
        Self { follower, me, times: Mutex::default() }
    }

    /// A page of what was granted to us.
    ///
    /// # Errors
    /// [`ChainError`] where the ledger does not say when a grant was made.
    pub async fn page(&self, wanted: Wanted, search: &GrantSearch) -> Result<Page, ChainError> {
        let (total, granted, next) = self.follower.with_index(|index| {
            let matching = || {
                let ours = index.consents_to(&self.me);
                let granted = ours.filter_map(|(id, consent)| Some((id, consent, consent.grant.as_ref()?)));
                granted.filter(|(id, ..)| search.relationships.iter().all(|wanted| wanted == *id))
            };
            let mut rest =
                matching().filter(|(id, ..)| search.after.as_ref().is_none_or(|after| *id > after));
            let granted: Vec<_> = rest
                .by_ref()
                .take(search.count)
                .map(|(_, consent, signed)| Granted {
                    signed: signed.clone(),
                    block: consent.granted,
                    stands: consent.standing().is_some(),
                })
                .collect();
            let last = granted.last().map(|granted| hex::encode(granted.signed.grant.relationship.0));
            (matching().count(), granted, rest.next().and(last))
        });
        let mut resources = Vec::with_capacity(granted.len());
        for granted in &granted {
            resources.extend(match wanted {
                Wanted::Consent => of_grant(granted),
                Wanted::Provenance => {
                    let recorded = instant(self.time_of(granted.block).await?);
                    recorded.map(|recorded| provenance::of_grant(&granted.signed, &recorded))
                }
            });
        }
        Ok(Page { total, resources, next })
    }

    /// The resource of one relationship.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn read(&self, wanted: Wanted, id: RelationshipId) -> Result<Option<Value>, ChainError> {
        let search = GrantSearch { relationships: vec![id], count: 1, after: None };
        Ok(self.page(wanted, &search).await?.resources.pop())
    }

    /// When a block was made.
    async fn time_of(&self, block: u64) -> Result<u64, ChainError> {
        let known = self.times.lock().unwrap_or_else(PoisonError::into_inner).get(&block).copied();
        if let Some(time) = known {
            return Ok(time);
        }
        let time = self.follower.chain().block_time(block).await?;
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() >= TIMES_MAX {
            times.clear();
        }
        times.insert(block, time);
        Ok(time)
    }
}

/// None where one of its times is none that FHIR can write.
fn of_grant(granted: &Granted) -> Option<Value> {
    let now_s = u64::try_from(clock::now_ms().div_euclid(1000)).unwrap_or(0);
    let grant = &granted.signed.grant;
    consent::of_grant(grant, granted.stands && now_s < grant.until).ok()
}
