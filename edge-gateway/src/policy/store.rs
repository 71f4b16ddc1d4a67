//! What is kept of policy, beside the patient roots in `keys.redb`: floors, the last good bundle, revocations on their way to the
//! ledger, and the audit trail. All that one decision changes is one transaction, durable before the decision is acted on.

use std::collections::BTreeMap;
use std::sync::Arc;

use caregate_protocol::id::RecipientId;
use caregate_protocol::policy::{Floors, Pseudonym, RelationshipId, SignedEmergency, SignedRevocation};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use super::clock::KeptClock;
use super::trail::{Entry, Event};
use crate::audit::Audit;
use crate::keys::{KeyStoreError, failed};

const POLICY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("policy");
const FLOORS: &str = "floors";
const BUNDLE: &str = "bundle";
const CLOCK: &str = "clock";
const ANCHORS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("anchors");
/// Pseudonym ‖ domain → emergency, as it came.
const EMERGENCIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("emergencies");
const TRAIL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("trail");
const REFUSALS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("trail_refusals");

/// Most entries of the trail, refusals left out: years of a patient's grants, months of a busy ward's.
pub const TRAIL_MAX: u64 = 3584;
/// Most refusals in the trail. They are counted apart, so that whoever hands in rubbish can't push out what happened.
pub const REFUSALS_MAX: u64 = 512;

/// What a decision changes.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// Risen floors.
    pub floors: Option<&'a Floors>,
    /// A good bundle's bytes.
    pub bundle: Option<&'a [u8]>,
    /// A revocation that the ledger has yet to get; in place of an earlier one of its relationship.
    pub anchor: Option<&'a SignedRevocation>,
    /// Relationships whose revocation the ledger has shown.
    pub anchored: &'a [RelationshipId],
    /// An emergency that the ledger has yet to get; in place of an earlier one of its pseudonym and domain.
    pub emergency: Option<&'a SignedEmergency>,
    /// Emergencies that the ledger has shown.
    pub shown: &'a [(Pseudonym, RecipientId)],
    /// The time that is past for certain.
    pub clock: Option<KeptClock>,
    /// For the trail, with the time of each in Unix seconds.
    pub events: &'a [(u64, Event)],
}

/// The store; cheap to clone. Readers don't wait for the writer.
#[derive(Debug, Clone)]
pub struct PolicyStore {
    db: Arc<Database>,
    audit: Audit,
}

impl PolicyStore {
    pub(crate) fn new(db: Arc<Database>, audit: Audit) -> Self {
        Self { db, audit }
    }

    pub(crate) fn make_tables(txn: &WriteTransaction) -> Result<(), KeyStoreError> {
        txn.open_table(POLICY).map_err(failed("open policy"))?;
        txn.open_table(ANCHORS).map_err(failed("open anchors"))?;
        txn.open_table(EMERGENCIES).map_err(failed("open emergencies"))?;
        txn.open_table(TRAIL).map_err(failed("open trail"))?;
        txn.open_table(REFUSALS).map_err(failed("open trail"))?;
        Ok(())
    }

    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let policy = txn.open_table(POLICY).map_err(failed("open policy"))?;
        let value = policy.get(key).map_err(failed("read policy"))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    /// What has been seen of policy so far.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn floors(&self) -> Result<Floors, KeyStoreError> {
        match self.value(FLOORS)? {
            None => Ok(Floors::default()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|_json| KeyStoreError::Shape("floors")),
        }
    }

    /// What the process before has left of time, if there was one.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn clock(&self) -> Result<Option<KeptClock>, KeyStoreError> {
        let shape = |_json| KeyStoreError::Shape("policy clock");
        self.value(CLOCK)?.map(|bytes| serde_json::from_slice(&bytes).map_err(shape)).transpose()
    }

    /// The last good bundle, if there was one.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn bundle(&self) -> Result<Option<Vec<u8>>, KeyStoreError> {
        self.value(BUNDLE)
    }

    /// The revocations that the ledger has yet to get.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn anchors(&self) -> Result<BTreeMap<RelationshipId, SignedRevocation>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let table = txn.open_table(ANCHORS).map_err(failed("open anchors"))?;
        let mut anchors = BTreeMap::new();
        for entry in table.iter().map_err(failed("read anchors"))? {
            let (_, bytes) = entry.map_err(failed("read anchors"))?;
            let signed =
                SignedRevocation::decode(bytes.value()).map_err(|_cbor| KeyStoreError::Shape("anchor"))?;
            anchors.insert(signed.revocation.relationship, signed);
        }
        Ok(anchors)
    }

    /// The emergencies that were handed over here and that the ledger has yet to get.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn emergencies(&self) -> Result<Vec<SignedEmergency>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let table = txn.open_table(EMERGENCIES).map_err(failed("open emergencies"))?;
        let mut emergencies = Vec::new();
        for entry in table.iter().map_err(failed("read emergencies"))? {
            let (_, bytes) = entry.map_err(failed("read emergencies"))?;
            let shape = |_cbor| KeyStoreError::Shape("emergency");
            emergencies.push(SignedEmergency::decode(bytes.value()).map_err(shape)?);
        }
        Ok(emergencies)
    }

    /// The trail's newest entries, newest first, at most `most`.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn trail(&self, most: usize) -> Result<Vec<Entry>, KeyStoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        let mut entries = Vec::new();
        for table in [TRAIL, REFUSALS] {
            let table = txn.open_table(table).map_err(failed("open trail"))?;
            for entry in table.iter().map_err(failed("read trail"))?.rev().take(most) {
                let (_, bytes) = entry.map_err(failed("read trail"))?;
                let shape = |_json| KeyStoreError::Shape("trail");
                entries.push(serde_json::from_slice::<Entry>(bytes.value()).map_err(shape)?);
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        entries.truncate(most);
        Ok(entries)
    }

    /// Keeps what a decision changes, durably; the audit log has the events first, so that nothing is in force which it does not have.
    ///
    /// # Errors
    /// [`KeyStoreError`]; then nothing of it was kept.
    pub fn keep(&self, changes: &Changes<'_>) -> Result<(), KeyStoreError> {
        self.audit.note_events(changes.events);
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let mut policy = txn.open_table(POLICY).map_err(failed("open policy"))?;
            if let Some(floors) = changes.floors {
                let bytes = serde_json::to_vec(floors).map_err(|_json| KeyStoreError::Shape("floors"))?;
                policy.insert(FLOORS, bytes.as_slice()).map_err(failed("write floors"))?;
            }
            if let Some(clock) = changes.clock {
                let bytes = serde_json::to_vec(&clock).map_err(|_json| KeyStoreError::Shape("clock"))?;
                policy.insert(CLOCK, bytes.as_slice()).map_err(failed("write the policy's clock"))?;
            }
            if let Some(bundle) = changes.bundle {
                policy.insert(BUNDLE, bundle).map_err(failed("write a bundle"))?;
            }
            let mut anchors = txn.open_table(ANCHORS).map_err(failed("open anchors"))?;
            if let Some(signed) = changes.anchor {
                let key = signed.revocation.relationship.0;
                let bytes = signed.encode();
                anchors.insert(key.as_slice(), bytes.as_slice()).map_err(failed("write an anchor"))?;
            }
            for relationship in changes.anchored {
                anchors.remove(relationship.0.as_slice()).map_err(failed("remove an anchor"))?;
            }
        }
        keep_emergencies(&txn, changes)?;
        append(&txn, changes.events)?;
        txn.commit().map_err(failed("commit"))
    }
}

fn keep_emergencies(txn: &WriteTransaction, changes: &Changes<'_>) -> Result<(), KeyStoreError> {
    let mut emergencies = txn.open_table(EMERGENCIES).map_err(failed("open emergencies"))?;
    let key = |pseudonym: &Pseudonym, domain: &RecipientId| [&pseudonym.0[..], &domain.0].concat();
    if let Some(signed) = changes.emergency {
        let (key, bytes) = (key(&signed.emergency.pseudonym, &signed.emergency.domain), signed.encode());
        emergencies.insert(key.as_slice(), bytes.as_slice()).map_err(failed("write an emergency"))?;
    }
    for (pseudonym, domain) in changes.shown {
        let key = key(pseudonym, domain);
        emergencies.remove(key.as_slice()).map_err(failed("remove an emergency"))?;
    }
    Ok(())
}

/// Appends to the trail; the oldest entries make room, refusals for refusals.
fn append(txn: &WriteTransaction, events: &[(u64, Event)]) -> Result<(), KeyStoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut trail = txn.open_table(TRAIL).map_err(failed("open trail"))?;
    let mut refusals = txn.open_table(REFUSALS).map_err(failed("open trail"))?;
    let newest = |last: Option<u64>| last.map_or(0, |number| number + 1);
    let first = newest(trail.last().map_err(failed("read trail"))?.map(|(key, _)| key.value()))
        .max(newest(refusals.last().map_err(failed("read trail"))?.map(|(key, _)| key.value())));
    for (number, (time_s, event)) in (first..).zip(events) {
        let entry = Entry { number, time_s: *time_s, event: event.clone() };
        let bytes = serde_json::to_vec(&entry).map_err(|_json| KeyStoreError::Shape("trail"))?;
        let refusal = matches!(event, Event::Refused { .. });
        let (table, most) = if refusal { (&mut refusals, REFUSALS_MAX) } else { (&mut trail, TRAIL_MAX) };
        table.insert(number, bytes.as_slice()).map_err(failed("write trail"))?;
        while table.len().map_err(failed("read trail"))? > most {
            table.pop_first().map_err(failed("write trail"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use caregate_protocol::policy::{EcdsaSignature, Revocation};

    use super::*;
    use crate::keys::KeyStore;
    use crate::policy::trail::Origin;

    fn store(dir: &std::path::Path) -> PolicyStore {
        KeyStore::open(dir).unwrap().policy()
    }

    fn refused(times: u64) -> (u64, Event) {
        (7, Event::Refused { reason: "quorum".into(), origin: Origin::Controller, times })
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let floors = Floors { epoch: 9, ..Floors::default() };
        let revocation = Revocation { relationship: RelationshipId([1; 32]), version: 3 };
        let signed = SignedRevocation { revocation, signature: EcdsaSignature([2; 65]) };
        let events = [(5, Event::StalenessEntered { as_of: 4 })];
        let changes = Changes {
            floors: Some(&floors),
            bundle: Some(b"bundle"),
            anchor: Some(&signed),
            clock: Some(KeptClock { floor_s: 7, doubt_s: 8, is_whole: true }),
            events: &events,
            ..Changes::default()
        };
        store(dir.path()).keep(&changes).unwrap();
        let again = store(dir.path());
        assert_eq!(again.clock().unwrap(), changes.clock);
        assert_eq!((again.floors().unwrap(), again.bundle().unwrap()), (floors, Some(b"bundle".to_vec())));
        assert_eq!(again.anchors().unwrap(), BTreeMap::from([(RelationshipId([1; 32]), signed)]));
        let entry = Entry { number: 0, time_s: 5, event: events[0].1.clone() };
        assert_eq!(again.trail(9).unwrap(), [entry]);
        let anchored = [RelationshipId([1; 32])];
        again.keep(&Changes { anchored: &anchored, ..Changes::default() }).unwrap();
        assert!(again.anchors().unwrap().is_empty());
    }

    #[test]
    fn the_trail_is_bounded_and_refusals_push_out_refusals() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let keep = |events: &[(u64, Event)]| {
            store.keep(&Changes { events, ..Changes::default() }).unwrap();
        };
        keep(&[(1, Event::StalenessLeft)]);
        keep(&(0..REFUSALS_MAX + 5).map(refused).collect::<Vec<_>>());
        let trail = store.trail(usize::MAX).unwrap();
        assert_eq!(trail.len() as u64, REFUSALS_MAX + 1);
        assert_eq!(
            (trail[0].number, trail.last().unwrap().event.clone()),
            (REFUSALS_MAX + 5, Event::StalenessLeft)
        );
        keep(&vec![(2, Event::StalenessLeft); usize::try_from(TRAIL_MAX).unwrap()]);
        let trail = store.trail(usize::MAX).unwrap();
        assert_eq!(trail.len() as u64, REFUSALS_MAX + TRAIL_MAX);
        assert!(trail.windows(2).all(|pair| pair[0].number > pair[1].number));
        assert_eq!(store.trail(3).unwrap(), trail[..3]);
    }
}
