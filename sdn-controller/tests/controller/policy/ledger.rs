//! A ledger in memory: real headers, seals and proofs; blocks when the test says so.

use std::sync::{Arc, Mutex};

use caregate_host::clock;
use caregate_protocol::policy::delivery::{Anchor, Watch};
use caregate_protocol::policy::{PolicyBundle, RelationshipId, SignedEmergency, SignedRevocation};
use ledger_client::fixture::{Hospital, Site};
use ledger_client::verify::{Address, Domain, Enrolment};
use sdn_controller::policy::{Failure, Head, Ledger, LedgerFuture, Status};
use tokio::sync::watch;

#[derive(Debug)]
struct State {
    site: Site,
    time_s: u64,
    changed: u64,
    revocations: usize,
}

#[derive(Debug)]
pub(super) struct MemoryLedger {
    state: Mutex<State>,
    heads: watch::Sender<Option<Head>>,
    status: watch::Sender<Status>,
    hangs: watch::Sender<bool>,
}

fn now_s() -> u64 {
    u64::try_from(clock::now_ms() / 1000).unwrap()
}

impl MemoryLedger {
    pub(super) fn new(site: Site) -> Arc<Self> {
        let ledger = Self {
            state: Mutex::new(State { site, time_s: 0, changed: 0, revocations: 0 }),
            heads: watch::Sender::new(None),
            status: watch::Sender::new(Status::Following),
            hangs: watch::Sender::new(false),
        };
        ledger.block(|_| {});
        Arc::new(ledger)
    }

    /// A block with this change.
    pub(super) fn block(&self, change: impl FnOnce(&mut Site)) {
        let mut state = self.state.lock().unwrap();
        let epoch = state.site.epoch;
        change(&mut state.site);
        state.site.number += 1;
        state.time_s = now_s();
        if state.site.epoch != epoch {
            state.changed = state.site.number;
        }
        let head = Head { number: state.site.number, time_s: state.time_s };
        drop(state);
        self.heads.send_replace(Some(head));
    }

    pub(super) fn enrolment(&self) -> Enrolment {
        self.state.lock().unwrap().site.enrolment.clone()
    }

    pub(super) fn signed_revocation(&self, version: u64) -> SignedRevocation {
        self.state.lock().unwrap().site.signed_revocation(0, version)
    }

    pub(super) fn signed_emergency(&self, by: &Hospital, from: u64, until: u64) -> SignedEmergency {
        self.state.lock().unwrap().site.signed_emergency(by, from, until, 1)
    }

    pub(super) fn revocations(&self) -> usize {
        self.state.lock().unwrap().revocations
    }

    /// Answers nothing, or what it is asked.
    pub(super) fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// Fails at once, or not.
    pub(super) fn down(&self, is_down: bool) {
        self.status.send_replace(if is_down { Status::Down("away".into()) } else { Status::Following });
    }

    async fn ready(&self) -> Result<(), Failure> {
        self.hangs.subscribe().wait_for(|hangs| !hangs).await.unwrap();
        match &*self.status.borrow() {
            Status::Down(text) => Err(Failure { reason: "unreachable", text: text.clone(), is_final: false }),
            Status::Starting | Status::Following => Ok(()),
        }
    }
}

impl Ledger for MemoryLedger {
    fn domain(&self) -> Domain {
        self.enrolment().pins().unwrap().domain
    }

    fn heads(&self) -> watch::Receiver<Option<Head>> {
        self.heads.subscribe()
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn sealers(&self) -> Option<usize> {
        Some(self.state.lock().unwrap().site.validators.len())
    }

    fn last_change(&self, _watch: &Watch) -> u64 {
        self.state.lock().unwrap().changed
    }

    fn bundle<'a>(&'a self, _watch: &'a Watch) -> LedgerFuture<'a, PolicyBundle> {
        Box::pin(async move {
            self.ready().await?;
            let state = self.state.lock().unwrap();
            Ok(state.site.bundle_of(state.site.number, state.time_s))
        })
    }

    fn revoke<'a>(&'a self, anchor: &'a Anchor) -> LedgerFuture<'a, ()> {
        Box::pin(async move {
            self.ready().await?;
            self.state.lock().unwrap().revocations += 1;
            self.block(|site| site.revoke(0, anchor.revocation.revocation.version));
            Ok(())
        })
    }

    fn open_emergency<'a>(&'a self, signed: &'a SignedEmergency) -> LedgerFuture<'a, ()> {
        Box::pin(async move {
            self.ready().await?;
            self.block(|site| site.put_emergency(signed.clone()));
            Ok(())
        })
    }

    /// Nobody does here; the real chain's test has one who does.
    fn has_handed_on_to(&self, _relationship: &RelationshipId, _key: &Address) -> bool {
        false
    }
}
