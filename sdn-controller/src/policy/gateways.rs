//! The gateways that policy goes to: what each watches, got and thinks.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caregate_protocol::policy::delivery::{Verdict, Watch};
use caregate_protocol::policy::{RelationshipId, SignedRevocation};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Gateways that are remembered: a fleet of a thousand, and as many that were there before. Beyond, those that are gone are forgotten
/// first.
pub const GATEWAYS_MAX: usize = 2048;
/// Revocations on their way down to one gateway. What doesn't fit comes with the bundle.
pub(super) const PUSHES_MAX: usize = 64;

/// A bundle that was sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) bytes: Arc<[u8]>,
    pub(super) number: u64,
    pub(super) time_s: u64,
    pub(super) epoch: u64,
    pub(super) at_ms: i64,
}

/// How others reach a connection.
#[derive(Debug)]
struct Connection {
    number: u64,
    replaced: CancellationToken,
    pushes: mpsc::Sender<SignedRevocation>,
}

#[derive(Debug, Default)]
struct Gateway {
    connection: Option<Connection>,
    since_ms: i64,
    relationships: HashSet<RelationshipId>,
    bindings: usize,
    pseudonyms: usize,
    sent: Option<Sent>,
    verdict: Option<(Verdict, i64)>,
    /// Time of the newest header that it took.
    accepted_time_s: Option<u64>,
}

#[derive(Debug, Default)]
struct Table {
    next_connection: u64,
    /// At most [`GATEWAYS_MAX`].
    gateways: BTreeMap<String, Gateway>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Gateways(Mutex<Table>);

/// What a session gets when it is entered.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) number: u64,
    pub(super) replaced: CancellationToken,
    pub(super) pushes: mpsc::Receiver<SignedRevocation>,
}

impl Gateways {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A gateway that has said what it watches; an older connection of its name ends. None where there is no place.
    pub(super) fn enter(&self, name: &str, watch: &Watch, now_ms: i64) -> Option<Entered> {
        let mut table = self.lock();
        if !table.gateways.contains_key(name) && table.gateways.len() >= GATEWAYS_MAX {
            let gone = table.gateways.iter().filter(|(_, gateway)| gateway.connection.is_none());
            let oldest = gone.min_by_key(|(_, gateway)| gateway.since_ms).map(|(name, _)| name.clone())?;
            table.gateways.remove(&oldest);
        }
        table.next_connection += 1;
        let number = table.next_connection;
        let (replaced, (pushes_out, pushes)) = (CancellationToken::new(), mpsc::channel(PUSHES_MAX));
        let gateway = table.gateways.entry(name.to_owned()).or_default();
        if let Some(older) = &gateway.connection {
            older.replaced.cancel();
        }
        gateway.connection = Some(Connection { number, replaced: replaced.clone(), pushes: pushes_out });
        gateway.since_ms = now_ms;
        gateway.relationships = watch.relationships.iter().copied().collect();
        (gateway.bindings, gateway.pseudonyms) = (watch.bindings.len(), watch.pseudonyms.len());
        Some(Entered { number, replaced, pushes })
    }

    /// The connection is gone, unless another has taken its place.
    pub(super) fn leave(&self, name: &str, number: u64, now_ms: i64) {
        if let Some(gateway) = self.lock().gateways.get_mut(name)
            && gateway.connection.as_ref().is_some_and(|connection| connection.number == number)
        {
            gateway.connection = None;
            gateway.since_ms = now_ms;
        }
    }

    pub(super) fn sent(&self, name: &str, sent: Sent) {
        if let Some(gateway) = self.lock().gateways.get_mut(name) {
            gateway.sent = Some(sent);
        }
    }

    /// Notes a verdict; true where it differs from the one before in epoch or refusal.
    pub(super) fn verdict(&self, name: &str, verdict: Verdict, now_ms: i64) -> bool {
        let mut table = self.lock();
        let Some(gateway) = table.gateways.get_mut(name) else { return false };
        if let Some(sent) = gateway.sent.as_ref().filter(|sent| sent.number == verdict.number)
            && verdict.refused.is_none()
        {
            gateway.accepted_time_s = Some(sent.time_s);
        }
        let before = gateway.verdict.as_ref().map(|(before, _)| (before.epoch, before.refused.clone()));
        let changed = before != Some((verdict.epoch, verdict.refused.clone()));
        gateway.verdict = Some((verdict, now_ms));
        changed
    }

    /// Hands a revocation to the gateways that watch its relationship, but for `from`; how many.
    pub(super) fn push(&self, revocation: &SignedRevocation, from: Option<&str>) -> usize {
        let table = self.lock();
        let relationship = revocation.revocation.relationship;
        let reached = table.gateways.iter().filter(|(name, gateway)| {
            from != Some(name.as_str())
                && gateway.relationships.contains(&relationship)
                && gateway
                    .connection
                    .as_ref()
                    .is_some_and(|connection| connection.pushes.try_send(revocation.clone()).is_ok())
        });
        reached.count()
    }

    pub(super) fn last_bundle(&self, name: &str) -> Option<Arc<[u8]>> {
        let table = self.lock();
        table.gateways.get(name)?.sent.as_ref().map(|sent| Arc::clone(&sent.bytes))
    }

    /// Age of the oldest policy in force at a gateway that is connected; 0 where there is none.
    pub(super) fn oldest_ms(&self, now_ms: i64) -> i64 {
        let table = self.lock();
        let connected = table.gateways.values().filter(|gateway| gateway.connection.is_some());
        connected.filter_map(|gateway| Some(age_ms(gateway.accepted_time_s?, now_ms))).max().unwrap_or(0)
    }

    /// All of them, by name.
    pub(super) fn shown(&self, now_ms: i64) -> Vec<Value> {
        let entry = |(name, gateway): (&String, &Gateway)| {
            json!({
                "name": name,
                "connected": gateway.connection.is_some(),
                "since_ms": gateway.since_ms,
                "watches": {
                    "relationships": gateway.relationships.len(),
                    "bindings": gateway.bindings,
                    "pseudonyms": gateway.pseudonyms,
                },
                "bundle": gateway.sent.as_ref().map(|sent| json!({
                    "number": sent.number,
                    "epoch": sent.epoch,
                    "time_s": sent.time_s,
                    "bytes": sent.bytes.len(),
                    "sent_ms": sent.at_ms,
                })),
                "verdict": gateway.verdict.as_ref().map(|(verdict, at_ms)| json!({
                    "number": verdict.number,
                    "epoch": verdict.epoch,
                    "refused": verdict.refused,
                    "at_ms": at_ms,
                })),
                "policy_age_ms": gateway.accepted_time_s.map(|time_s| age_ms(time_s, now_ms)),
            })
        };
        self.lock().gateways.iter().map(entry).collect()
    }
}

fn age_ms(time_s: u64, now_ms: i64) -> i64 {
    now_ms - i64::try_from(time_s).unwrap_or_default().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use caregate_protocol::policy::{EcdsaSignature, Revocation};

    use super::*;

    fn watch(relationship: u8) -> Watch {
        Watch { relationships: vec![RelationshipId([relationship; 32])], ..Watch::default() }
    }

    fn revocation(relationship: u8) -> SignedRevocation {
        let revocation = Revocation { relationship: RelationshipId([relationship; 32]), version: 1 };
        SignedRevocation { revocation, signature: EcdsaSignature([0; 65]) }
    }

    fn verdict(number: u64, epoch: u64, refused: Option<&str>) -> Verdict {
        Verdict { number, epoch, refused: refused.map(str::to_owned) }
    }

    #[test]
    fn a_revocation_reaches_those_who_watch_and_have_it_not() {
        let gateways = Gateways::default();
        let mut a = gateways.enter("a", &watch(1), 0).unwrap();
        let mut b = gateways.enter("b", &watch(1), 0).unwrap();
        let mut c = gateways.enter("c", &watch(2), 0).unwrap();
        assert_eq!(gateways.push(&revocation(1), Some("b")), 1);
        assert_eq!(a.pushes.try_recv().unwrap(), revocation(1));
        assert!(b.pushes.try_recv().is_err() && c.pushes.try_recv().is_err());
        for _ in 0..PUSHES_MAX {
            assert_eq!(gateways.push(&revocation(2), None), 1);
        }
        assert_eq!(gateways.push(&revocation(2), None), 0, "it does not read");
        gateways.leave("a", a.number, 1);
        assert_eq!(gateways.push(&revocation(1), None), 1, "b alone");
    }

    #[test]
    fn a_returning_gateway_replaces_its_older_connection() {
        let gateways = Gateways::default();
        let old = gateways.enter("a", &watch(1), 0).unwrap();
        let new = gateways.enter("a", &watch(1), 1).unwrap();
        assert!(old.replaced.is_cancelled() && !new.replaced.is_cancelled());
        gateways.leave("a", old.number, 2);
        assert_eq!(gateways.shown(2)[0]["connected"], true);
        gateways.leave("a", new.number, 3);
        assert_eq!(gateways.shown(3)[0]["connected"], false);
    }

    #[test]
    fn verdicts_count_as_news_when_they_say_something_else() {
        let gateways = Gateways::default();
        let _entered = gateways.enter("a", &watch(1), 0).unwrap();
        let bytes: Arc<[u8]> = Arc::from([1, 2].as_slice());
        gateways.sent("a", Sent { bytes, number: 7, time_s: 100, epoch: 2, at_ms: 0 });
        assert!(gateways.verdict("a", verdict(7, 2, None), 1));
        assert!(!gateways.verdict("a", verdict(8, 2, None), 2));
        assert!(gateways.verdict("a", verdict(9, 2, Some("quorum")), 3));
        assert!(!gateways.verdict("a", verdict(9, 2, Some("quorum")), 3));
        assert!(gateways.verdict("a", verdict(10, 3, None), 4));
        assert!(!gateways.verdict("b", verdict(1, 1, None), 4), "there is no b");
        let shown = &gateways.shown(103_000)[0];
        assert_eq!((&shown["policy_age_ms"], &shown["bundle"]["bytes"]), (&json!(3000), &json!(2)));
        assert_eq!(gateways.oldest_ms(103_000), 3000);
        assert_eq!(gateways.last_bundle("a").unwrap().as_ref(), [1, 2]);
        assert!(gateways.last_bundle("b").is_none());
    }

    #[test]
    fn the_one_gone_longest_makes_place() {
        let gateways = Gateways::default();
        for number in 0..GATEWAYS_MAX {
            gateways.enter(&format!("g-{number}"), &watch(1), 0).unwrap();
        }
        assert!(gateways.enter("new", &watch(1), 0).is_none(), "all are connected");
        gateways.leave("g-7", 8, 5);
        gateways.leave("g-3", 4, 6);
        gateways.enter("new", &watch(1), 7).unwrap();
        let names: Vec<_> = gateways.shown(0).iter().map(|shown| shown["name"].clone()).collect();
        assert!(
            names.len() == GATEWAYS_MAX && !names.contains(&json!("g-7")) && names.contains(&json!("g-3"))
        );
    }
}
