//! Follows the ledger for what concerns this domain, and keeps what it says for the pages. A ledger that is away changes
//! nothing of what is shown but the word that it is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caregate_host::clock;
use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{RecipientStatus, RelationshipId};
use ledger_chain::{Follower, Index, Status};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::{Consent, EmergencyAccess, View, Why, changes};
use crate::message::Bed;
use crate::metrics::Metrics;
use crate::trail::{Trail, line_of_change};

/// Whether what is known is the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing has been read yet.
    Starting,
    /// Up to the newest block.
    Following,
    /// The ledger does not answer since this time, Unix milliseconds.
    Away(i64),
}

/// What is known of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Whether it is the present.
    pub state: State,
    /// What it says about us, what it said last while it is away; and what gateways have said is in force.
    pub view: View,
    /// Whether the ledger was ever read.
    pub read: bool,
}

/// What the followed index says of one relationship.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    consent: Consent,
    /// The block of an end whose time is not known yet.
    ended: Option<(Why, u64)>,
}

/// Follows the ledger for one domain.
pub struct Watcher {
    follower: Arc<Follower>,
    me: RecipientId,
    beds: Vec<Bed>,
    trail: Arc<Trail>,
    metrics: Metrics,
    known: watch::Sender<Known>,
    /// What the ledger alone says.
    ledger: View,
    /// What gateways have said is in force.
    handed: watch::Receiver<Vec<EmergencyAccess>>,
    /// When blocks were made that ended something, by number.
    times: BTreeMap<u64, u64>,
}

impl Watcher {
    /// Has looked at nothing yet.
    #[must_use]
    pub fn new(
        follower: Arc<Follower>,
        me: RecipientId,
        beds: Vec<Bed>,
        trail: Arc<Trail>,
        metrics: Metrics,
        handed: watch::Receiver<Vec<EmergencyAccess>>,
    ) -> Self {
        let (ledger, times) = (View::default(), BTreeMap::new());
        let view = ledger.clone().with(&handed.borrow());
        let known = watch::Sender::new(Known { state: State::Starting, view, read: false });
        Self { follower, me, beds, trail, metrics, known, ledger, handed, times }
    }

    /// What is known, and its changes.
    #[must_use]
    pub fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Follows until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (mut heads, mut status) = (self.follower.heads(), self.follower.status());
        loop {
            let now = status.borrow_and_update().clone();
            self.note_status(&now);
            if heads.borrow_and_update().is_some() && now == Status::Following {
                self.look().await;
            }
            tokio::select! {
                changed = heads.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
                () = news(&mut self.handed) => self.tell(|_| {}),
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn note_status(&self, status: &Status) {
        self.metrics.ledger_up.set(i64::from(*status == Status::Following));
        self.known.send_if_modified(|known| {
            let state = match (status, known.state) {
                (Status::Down(_), State::Away(since)) => State::Away(since),
                (Status::Down(_), State::Starting | State::Following) => State::Away(clock::now_ms()),
                (Status::Starting, _) => State::Starting,
                // Said when the new state has been read.
                (Status::Following, before) => before,
            };
            let changed = state != known.state;
            known.state = state;
            changed
        });
    }

    async fn look(&mut self) {
        let wanted: Vec<_> = self.beds.iter().filter_map(|bed| bed.relationship).collect();
        let me = self.me;
        let (found, (mut view, suspended)) = self.follower.with_index(|index| {
            let found: Vec<_> = wanted.iter().filter_map(|id| Some((*id, found(index, id, &me)?))).collect();
            (found, about(index, &me))
        });
        let ends: BTreeSet<u64> =
            found.iter().filter_map(|(_, found)| Some(found.ended?.1)).chain(suspended).collect();
        self.times.retain(|block, _| ends.contains(block));
        for (id, Found { mut consent, ended }) in found {
            if let Some((why, block)) = ended {
                consent.ended = Some((self.time_of(block).await, why));
            }
            view.consents.insert(id, consent);
        }
        if let Some(block) = suspended {
            view.suspended = Some(self.time_of(block).await);
        }
        self.publish(view);
    }

    /// When a block was made. A ledger that does not say is asked again with the next block; until then it is now.
    async fn time_of(&mut self, block: u64) -> u64 {
        if let Some(time) = self.times.get(&block) {
            return *time;
        }
        match self.follower.chain().block_time(block).await {
            Ok(time) => {
                self.times.insert(block, time);
                time
            }
            Err(_) => now_s(),
        }
    }

    fn publish(&mut self, view: View) {
        if self.known.borrow().read {
            for change in changes(&self.ledger, &view) {
                self.trail.add(line_of_change(&change, clock::now_ms(), &self.beds));
            }
        }
        self.ledger = view;
        self.tell(|known| (known.state, known.read) = (State::Following, true));
    }

    fn tell(&self, change: impl FnOnce(&mut Known)) {
        let view = self.ledger.clone().with(&self.handed.borrow());
        self.known.send_if_modified(|known| {
            let before = known.clone();
            known.view = view;
            change(known);
            *known != before
        });
    }
}

/// Until there is another emergency; without end where there can't be one. Cancel-safe.
async fn news(handed: &mut watch::Receiver<Vec<EmergencyAccess>>) {
    if handed.changed().await.is_err() {
        std::future::pending().await
    }
}

fn now_s() -> u64 {
    u64::try_from(clock::now_ms().div_euclid(1000)).unwrap_or_default()
}

/// One relationship; none where it was never granted.
fn found(index: &Index, id: &RelationshipId, me: &RecipientId) -> Option<Found> {
    let consent = index.consent(id)?;
    let grant = &consent.grant.as_ref()?.grant;
    let why = if consent.standing().is_none() {
        Some(Why::Revoked)
    } else {
        (grant.grantee != *me).then_some(Why::Replaced)
    };
    Some(Found {
        consent: Consent { from: grant.from, until: grant.until, version: grant.version, ended: None },
        ended: why.map(|why| (why, consent.changed)),
    })
}

/// What is said about us apart from relationships, and the block that suspended us.
fn about(index: &Index, me: &RecipientId) -> (View, Option<u64>) {
    let myself = index.participant(me);
    let is = |status| myself.filter(|myself| myself.status == Some(status));
    let view = View {
        consents: BTreeMap::new(),
        emergencies: index.emergencies_by(me).map(|signed| (&signed.emergency).into()).collect(),
        suspended: None,
        may_break_glass: is(RecipientStatus::Active).is_some_and(|myself| myself.emergency),
    };
    (view, is(RecipientStatus::Suspended).map(|myself| myself.changed))
}
