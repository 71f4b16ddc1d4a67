//! Transactions that wait for their turn. A transaction whose nonce is next does not wait; the pool is for those that came before the
//! one ahead of them.

use std::collections::BTreeMap;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_primitives::{Address, B256};
use thiserror::Error;

/// Most transactions: with [`crate::request::TRANSACTION_BYTES_MAX`] each 128 MiB at the very worst, 4 MiB of usual ones.
pub const POOL_MAX: usize = 1024;
/// Most of one sender: nobody crowds out the others, and a wallet has few under way.
pub const SENDER_MAX: usize = 64;
/// How long one waits for the one ahead of it: a client that lost it sends it again within minutes.
pub const WAIT_MAX_S: u64 = 600;

/// Why a transaction is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PoolError {
    /// Its nonce was used.
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow {
        /// The sender's next.
        next: u64,
        /// The transaction's.
        nonce: u64,
    },
    /// The same one is waiting.
    #[error("already known")]
    Known,
    /// Another one with the same nonce is waiting; since gas costs nothing, none is worth more.
    #[error("replacement transaction underpriced")]
    Replacement,
    /// [`SENDER_MAX`].
    #[error("too many transactions of this sender are waiting ({SENDER_MAX})")]
    SenderFull,
    /// [`POOL_MAX`].
    #[error("txpool is full ({POOL_MAX})")]
    Full,
}

impl PoolError {
    /// A word for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NonceTooLow { .. } => "nonce_too_low",
            Self::Known => "already_known",
            Self::Replacement => "replacement",
            Self::SenderFull => "sender_full",
            Self::Full => "pool_full",
        }
    }
}

struct Waiting {
    tx: Recovered<TxEnvelope>,
    since_s: u64,
}

#[derive(Default)]
struct Sender {
    /// Its next nonce on the chain.
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// The pool. Invariant: `len` is the number of transactions in all queues, and no queue is empty.
#[derive(Default)]
pub struct Pool {
    senders: BTreeMap<Address, Sender>,
    len: usize,
}

impl Pool {
    /// Takes a transaction in. `next` is the sender's next nonce on the chain.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn insert(&mut self, tx: Recovered<TxEnvelope>, next: u64, now_s: u64) -> Result<(), PoolError> {
        let (address, nonce) = (tx.signer(), tx.nonce());
        if nonce < next {
            return Err(PoolError::NonceTooLow { next, nonce });
        }
        if let Some(sender) = self.senders.get(&address) {
            if let Some(other) = sender.waiting.get(&nonce) {
                let same = other.tx.tx_hash() == tx.tx_hash();
                return Err(if same { PoolError::Known } else { PoolError::Replacement });
            }
            if sender.waiting.len() >= SENDER_MAX {
                return Err(PoolError::SenderFull);
            }
        }
        if self.len >= POOL_MAX {
            return Err(PoolError::Full);
        }
        let sender = self.senders.entry(address).or_default();
        sender.next = next;
        sender.waiting.insert(nonce, Waiting { tx, since_s: now_s });
        self.len += 1;
        Ok(())
    }

    /// Takes out one transaction whose nonce is next.
    pub fn take_ready(&mut self) -> Option<Recovered<TxEnvelope>> {
        let address = self.senders.iter().find_map(|(address, sender)| {
            let (nonce, _) = sender.waiting.first_key_value()?;
            (*nonce <= sender.next).then_some(*address)
        })?;
        let sender = self.senders.get_mut(&address)?;
        let (_, waiting) = sender.waiting.pop_first()?;
        self.len -= 1;
        if sender.waiting.is_empty() {
            self.senders.remove(&address);
        }
        Some(waiting.tx)
    }

    /// A sender's nonce has risen: what waited for it may be next.
    pub fn advance(&mut self, address: &Address, next: u64) {
        if let Some(sender) = self.senders.get_mut(address) {
            sender.next = next;
        }
    }

    /// Drops what has waited too long; how many there were.
    pub fn expire(&mut self, now_s: u64) -> usize {
        let before = self.len;
        let waits = |waiting: &Waiting| now_s.saturating_sub(waiting.since_s) <= WAIT_MAX_S;
        for sender in self.senders.values_mut() {
            sender.waiting.retain(|_, waiting| waits(waiting));
        }
        self.senders.retain(|_, sender| !sender.waiting.is_empty());
        self.len = self.senders.values().map(|sender| sender.waiting.len()).sum();
        before - self.len
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The nonce after the unbroken row that begins with `next`.
    #[must_use]
    pub fn nonce_after(&self, address: &Address, next: u64) -> u64 {
        let Some(sender) = self.senders.get(address) else { return next };
        let row =
            sender.waiting.range(next..).zip(next..).take_while(|((nonce, _), expected)| *nonce == expected);
        next + row.count() as u64
    }

    /// A waiting transaction by its hash.
    #[must_use]
    pub fn find(&self, hash: &B256) -> Option<&Recovered<TxEnvelope>> {
        let mut all = self.senders.values().flat_map(|sender| sender.waiting.values());
        all.find(|waiting| waiting.tx.tx_hash() == hash).map(|waiting| &waiting.tx)
    }
}

#[cfg(test)]
mod tests;
