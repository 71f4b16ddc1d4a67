//! What one write has looked up: records of a commit are mostly of the same epoch and for the same recipients.

use std::collections::BTreeMap;
use std::sync::Arc;

use caregate_protocol::id::RecipientId;

use super::Tables;

/// Epochs of which it is known at a time who holds them: a commit has one or two of each chain.
const EPOCHS_MAX: usize = 64;

/// Who holds a wrap of any node above an epoch.
pub(super) type Holders = Arc<[RecipientId]>;

/// Holds for as long as the write does, and until it changes what was looked up.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By scope and epoch.
    holders: Vec<(Vec<u8>, u32, Holders)>,
    /// The next in each recipient's queue.
    numbers: BTreeMap<RecipientId, u64>,
    /// The next record's.
    pub(super) index: Option<u64>,
}

impl Known {
    pub(super) fn holders(&self, scope: &[u8], epoch: u32) -> Option<Holders> {
        let known = self.holders.iter().find(|(of, at, _)| *at == epoch && of == scope);
        known.map(|(.., holders)| Arc::clone(holders))
    }

    pub(super) fn hold(&mut self, scope: &[u8], epoch: u32, holders: &Holders) {
        if self.holders.len() >= EPOCHS_MAX {
            self.holders.clear();
        }
        self.holders.push((scope.to_vec(), epoch, Arc::clone(holders)));
    }

    /// A wrap was stored or taken out.
    pub(super) fn wraps_changed(&mut self) {
        self.holders.clear();
    }

    pub(super) fn number(&self, of: RecipientId) -> Option<u64> {
        self.numbers.get(&of).copied()
    }

    pub(super) fn numbered(&mut self, of: RecipientId, next: u64) {
        self.numbers.insert(of, next);
    }

    /// A queue was written to in another way.
    pub(super) fn queue_changed(&mut self, of: RecipientId) {
        self.numbers.remove(&of);
    }
}

impl Tables<'_> {
    /// A wrap was taken out.
    pub(in crate::store) fn wrap_taken_out(&mut self) {
        self.known.wraps_changed();
    }
}
