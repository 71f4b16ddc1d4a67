//! A patient's order: root and keys go at once, between two commits; then, some at a time, what of the patient waits in the spool, and at its
//! end the gateway signs a receipt as well.

use std::collections::BTreeMap;

use caregate_protocol::erasure::{Erasure, Issuer, NOBODY, Receipt, RequestHash, SignedOrder};
use caregate_protocol::id::{Lane, PatientId};
use caregate_protocol::record::Record;
use ledger_client::verify::{Address, ErasureRefusal};
use tracing::{info, warn};

use super::commit::{CommitError, Committer, seconds};
use crate::keys::KeyStoreError;
use crate::keys::erasures::{Erasures, Ordered};
use crate::policy::trail::Event;
use crate::policy::{Changes, DecisionError};
use crate::spool::Position;

/// Records looked at in one run: some 100 ms of a router's flash, and sensors wait no longer. What is left is for the next second.
const LOOKED_MAX: usize = 2048;

/// A walk through the spool for what is of erased patients.
#[derive(Debug)]
pub struct Walk {
    /// Where it is in each lane.
    at: [u64; Lane::ALL.len()],
    /// What was let go of each patient: records, bytes.
    gone: BTreeMap<PatientId, (u64, u64)>,
}

impl Walk {
    /// For those whose walk did not come to its end in the process before.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn left(erasures: &Erasures) -> Result<Option<Self>, KeyStoreError> {
        let mut left = Vec::new();
        let patients: Vec<_> = erasures.follow().borrow().keys().copied().collect();
        for patient in patients {
            let is_own = |bytes: &Vec<u8>| {
                Receipt::verify(bytes).is_ok_and(|(receipt, _)| receipt.issuer == Issuer::Gateway)
            };
            if !erasures.receipts(patient)?.iter().any(is_own) {
                left.push(patient);
            }
        }
        Ok(Self::of(left))
    }

    /// From the beginning, for these patients; none where there are none.
    #[must_use]
    pub fn of(patients: impl IntoIterator<Item = PatientId>) -> Option<Self> {
        let gone: BTreeMap<_, _> = patients.into_iter().map(|patient| (patient, (0, 0))).collect();
        (!gone.is_empty()).then_some(Self { at: [0; Lane::ALL.len()], gone })
    }
}

impl Committer {
    /// Destroys a patient's root and all that was derived from it, and has the core asked to erase what it has. Again where it was done: the
    /// request stays the first one, whose receipts may be here.
    pub(super) fn erase(
        &mut self,
        (home_key, order): (Address, SignedOrder),
        now_us: i64,
    ) -> Result<(), DecisionError> {
        let patient = order.patient;
        if let Some(before) = self.keys.erasures().ordered(&patient) {
            if before.by.is_some_and(|(_, before)| order.made_us <= before.made_us) {
                return Err(ErasureRefusal::Replayed.into());
            }
            self.keys.erasures().renew(patient, Ordered { by: Some((home_key, order)), ..before })?;
            return Ok(());
        }
        let now_s = seconds(now_us);
        let ordered = [(now_s, Event::ErasureOrdered { patient })];
        self.policy.store().keep(&Changes { events: &ordered, ..Changes::default() })?;
        let request = Erasure { patient, made_us: now_us }.sign(&self.sealer.device);
        let done = self.keys.erase(patient, &Ordered { request, by: Some((home_key, order)) }, now_s);
        // Where the store failed the root is there still, and its chains must go on where they are: no key seals two segments.
        if self.keys.is_erased(patient) {
            self.forget(patient);
            let forgotten = self.policy.erase(&patient);
            let event = [(now_s, Event::RootErased { patient })];
            self.policy.store().keep(&Changes { events: &event, ..Changes::default() })?;
            forgotten?;
        }
        done?;
        warn!("a patient's root was destroyed, as the patient had ordered");
        Ok(())
    }

    /// What is in memory of a patient without a root.
    fn forget(&mut self, patient: PatientId) {
        for device in self.policy.devices_of(&patient) {
            self.noted.remove(&device);
            self.hints.forget(&device);
        }
        self.said.remove(&patient);
        self.sealer.leaves.forget(patient);
        self.state.chains.retain(|(of, _), _| *of != patient);
        self.state.untold.retain(|(of, _), _| *of != patient);
        self.state.beginnings.remove(&patient);
        if let Some(expiry) = &mut self.expiry {
            expiry.told.retain(|(of, _), _| *of != patient);
        }
        let before = self.walk.take().into_iter().flat_map(|walk| walk.gone.into_keys());
        self.walk = Walk::of(before.chain([patient]));
    }

    /// Lets go of what waits for the core and is of erased patients: it opens for nobody new, and the core refuses it. Call about every second.
    /// The positions that went.
    ///
    /// # Errors
    /// [`CommitError`], as for [`Self::commit`].
    pub fn let_go_of_erased(&mut self, now_us: i64) -> Result<Vec<u64>, CommitError> {
        let Some(mut walk) = self.walk.take() else { return Ok(Vec::new()) };
        // What is not on disk yet can't be let go.
        self.log.sync()?;
        let reader = self.log.reader();
        let (mut looked, mut went) = (0, Vec::new());
        for lane in Lane::ALL {
            let at = &mut walk.at[lane as usize];
            while looked < LOOKED_MAX
                && let Some(position) = reader.next_unacked(lane, Position(*at))
            {
                (*at, looked) = (position.0 + 1, looked + 1);
                // One that can't be read stays, and is found as damage at the next start.
                let Ok(Some((_, record))) = reader.read(position) else { continue };
                let Ok(patient) = Record::decode(&record).map(|record| record.patient()) else { continue };
                if let Some((records, bytes)) = walk.gone.get_mut(&patient) {
                    *records += 1;
                    *bytes += record.len() as u64;
                    went.push(position.0);
                }
            }
        }
        for position in &went {
            self.log.ack(*position..=*position)?;
        }
        if looked < LOOKED_MAX {
            self.end_walk(&walk.gone, now_us)?;
        } else {
            self.walk = Some(walk);
        }
        Ok(went)
    }

    /// Nothing is left: the file with what was let go ends here, and the next one too, since the newest two checkpoints keep theirs; so it is
    /// written over when the others' records in it are through. Then the gateway's receipts.
    fn end_walk(&mut self, gone: &BTreeMap<PatientId, (u64, u64)>, now_us: i64) -> Result<(), CommitError> {
        if gone.values().any(|(records, _)| *records > 0) {
            // Where there is no room for two, it goes when there is.
            let _ended = self.rotate()? && self.rotate()?;
        }
        for (patient, (records, bytes)) in gone {
            let Some(ordered) = self.keys.erasures().ordered(patient) else { continue };
            let receipt = Receipt {
                issuer: Issuer::Gateway,
                patient: *patient,
                request: RequestHash::of(&ordered.request),
                records: *records,
                bytes: *bytes,
                erased_us: now_us,
                recipient: NOBODY,
            };
            self.keys.erasures().keep(&receipt.sign(&self.sealer.device))?;
        }
        info!(patients = gone.len(), "nothing of erased patients waits in the spool");
        Ok(())
    }
}
