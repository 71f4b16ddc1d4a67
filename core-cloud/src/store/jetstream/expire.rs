//! Retention on a stream: what goes out of the tables, and then out of the stream.
//!
//! ```text
//!  tables: a step ─▶ message: how far ─▶ messages of which nothing is left are deleted ─▶ commit of the tables
//! ```
//! Cut off at any point the step is done again: what was deleted is gone, and what was not is there in the tables.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::DeleteMessageErrorKind;
use caregate_protocol::entry::Floor;
use caregate_protocol::id::{DataClass, PatientId};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{Failure, JetStream, Written, message, there};
use crate::store::index::{Keep, Tables};
use crate::store::{Expired, StoreError, failed};

/// Deletions that are under way at once.
const DELETES_MAX: usize = 64;

impl JetStream {
    /// One step: out of the tables, and messages of which nothing is left out of the stream. What the tables would not know from it any more
    /// is said in a message before those go: the chains' floors, queues' last numbers, and whose the pseudonym is.
    pub(super) fn try_expire(
        &self,
        written: &mut Written,
        patient: PatientId,
        before: u32,
    ) -> Result<Expired, Failure> {
        if written.behind {
            self.catch_up(written)?;
        }
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        let mut tables = Tables::open(&txn, Keep::Elsewhere)?;
        let step = tables.expire_some(patient, before)?;
        if step.records == 0 {
            return Ok(step);
        }
        let emptied = std::mem::take(&mut tables.emptied);
        let floors = DataClass::ALL
            .into_iter()
            .map(|class| Ok(Floor { patient, class, sequence: tables.floor(patient, class)? }))
            .filter(|floor: &Result<Floor, StoreError>| floor.as_ref().map_or(true, |f| f.sequence > 0))
            .collect::<Result<Vec<_>, _>>()?;
        let (last, owner) = (tables.last_places()?, tables.owner(patient)?);
        drop(tables);
        if !emptied.is_empty() {
            self.store_messages(written, &txn, vec![message::floors(patient, &floors, &last, owner)])?;
            self.delete(&emptied)?;
            self.supersede(&message::subject_of_floors(patient))?;
        }
        txn.commit().map_err(failed("commit"))?;
        written.behind = false;
        Ok(step)
    }

    /// Takes messages out of the stream; one that is not there is out.
    fn delete(&self, sequences: &[u64]) -> Result<(), Failure> {
        {
            let mut recent = self.recent();
            sequences.iter().for_each(|sequence| recent.remove(*sequence));
        }
        let one = |sequence: u64| async move {
            match self.stream.delete_message(sequence).await {
                Ok(_) => Ok(()),
                Err(error) if is_gone(&error.kind()) => Ok(()),
                Err(error) => Err(there("delete a message")(error)),
            }
        };
        let deleting = futures_util::stream::iter(sequences.iter().copied().map(one));
        self.wait(deleting.buffer_unordered(DELETES_MAX).try_collect::<()>())
    }

    /// Leaves of a subject the newest message.
    fn supersede(&self, subject: &str) -> Result<(), Failure> {
        let subject = format!("{}.{subject}", self.settings.stream);
        self.wait(async {
            let purged = self.stream.purge().filter(subject).keep(1).await;
            purged.map(drop).map_err(there("purge the stream"))
        })
    }
}

/// What the server says of a message that it does not have.
fn is_gone(kind: &DeleteMessageErrorKind) -> bool {
    let DeleteMessageErrorKind::JetStream(error) = kind else { return false };
    let text = error.to_string();
    match error.error_code() {
        ErrorCode::NO_MESSAGE_FOUND | ErrorCode::SEQUENCE_NOT_FOUND => true,
        ErrorCode::STREAM_MESSAGE_DELETE_FAILED => {
            ["no message found", "deleted message", "stream store EOF"].iter().any(|is| text.contains(is))
        }
        _ => false,
    }
}
