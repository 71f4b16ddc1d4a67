//! From transactions to a sealed block, without a clock and without writing anything.

use alloy_consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
use alloy_consensus::transaction::{Recovered, SignerRecoverable as _};
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Header, Receipt, ReceiptEnvelope, TxEnvelope, TxType, Typed2718 as _,
};
use alloy_eips::{Decodable2718 as _, Encodable2718 as _};
use alloy_primitives::{Address, B256, Bloom, Bytes, U256};
use alloy_rlp::{RlpDecodable, RlpEncodable};
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};

use crate::evm::{self, BlockContext, GAS_LIMIT, Overlay};
use crate::seal::{MIX_HASH, Sealer};
use crate::state::StateError;
use crate::store::BlockWrite;

/// How far a block's time may be ahead of the clock. The chain's time never goes back; when the clock does, by more than this,
/// nothing is sealed until it has caught up.
pub const AHEAD_MAX_S: u64 = 1;

/// The clock is behind the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the clock ({now_s}) is behind the chain ({head_s}); nothing is sealed until it has caught up")]
pub struct ClockBehind {
    /// The clock, Unix time in seconds.
    pub now_s: u64,
    /// The newest block's time.
    pub head_s: u64,
}

/// The next block's time.
///
/// # Errors
/// [`ClockBehind`].
pub fn block_time(head_s: u64, now_s: u64) -> Result<u64, ClockBehind> {
    if head_s > now_s.saturating_add(AHEAD_MAX_S) {
        return Err(ClockBehind { now_s, head_s });
    }
    Ok(now_s.max(head_s))
}

/// A transaction as it is stored, with what became of it.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct StoredTransaction {
    /// EIP-2718.
    pub raw: Bytes,
    /// Who signed it.
    pub sender: Address,
    /// Of this transaction alone.
    pub gas_used: u64,
    /// The contract that it made, or nothing.
    pub created: Bytes,
    /// EIP-2718.
    pub receipt: Bytes,
}

impl StoredTransaction {
    /// The transaction; `None` where the store is damaged.
    #[must_use]
    pub fn transaction(&self) -> Option<Recovered<TxEnvelope>> {
        let tx = TxEnvelope::decode_2718_exact(&self.raw).ok()?;
        Some(Recovered::new_unchecked(tx, self.sender))
    }

    /// Whether the sender signed it and the contract is the one that it made. The block's roots say nothing of both.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let Some(tx) = self.transaction() else { return false };
        let is_creation = alloy_consensus::Transaction::to(&*tx).is_none();
        let made = self.sender.create(alloy_consensus::Transaction::nonce(&*tx));
        let has_made = is_creation && self.receipt().is_some_and(|receipt| receipt.status());
        let created_fits = if has_made { *self.created == made.as_slice() } else { self.created.is_empty() };
        created_fits && tx.inner().recover_signer().is_ok_and(|signer| signer == self.sender)
    }

    /// Its receipt; `None` where the store is damaged.
    #[must_use]
    pub fn receipt(&self) -> Option<ReceiptEnvelope> {
        ReceiptEnvelope::decode_2718_exact(&self.receipt).ok()
    }
}

/// A block under way.
pub struct Building<'r> {
    overlay: Overlay<'r>,
    context: BlockContext,
    parent: B256,
    gas_used: u64,
    transactions: Vec<TxEnvelope>,
    receipts: Vec<ReceiptEnvelope>,
    stored: Vec<StoredTransaction>,
}

/// Why a transaction is not in the block.
#[derive(Debug)]
pub enum Refused {
    /// It may not run at all.
    Invalid(InvalidTransaction),
    /// It doesn't fit into what is left of the block.
    Full,
    /// The state can't be read.
    Fatal(StateError),
}

impl<'r> Building<'r> {
    /// Begins a block on a state.
    #[must_use]
    pub fn new(overlay: Overlay<'r>, context: BlockContext, parent: B256) -> Self {
        let (transactions, receipts, stored) = (Vec::new(), Vec::new(), Vec::new());
        Self { overlay, context, parent, gas_used: 0, transactions, receipts, stored }
    }

    /// An account's next nonce after what is in the block already.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn nonce(&self, address: &Address) -> Result<u64, StateError> {
        self.overlay.nonce(address)
    }

    /// How many transactions are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// Runs a transaction and takes it in; one that reverts is in the block as well, with status 0.
    ///
    /// # Errors
    /// [`Refused`]; then nothing is changed.
    pub fn push(&mut self, tx: Recovered<TxEnvelope>) -> Result<(), Refused> {
        let (tx, sender) = tx.into_parts();
        if alloy_consensus::Transaction::gas_limit(&tx) > GAS_LIMIT - self.gas_used {
            return Err(Refused::Full);
        }
        let environment = evm::environment(&tx, sender);
        let result = self.overlay.execute(&self.context, environment).map_err(|error| match error {
            EVMError::Transaction(invalid) => Refused::Invalid(invalid),
            EVMError::Database(error) => Refused::Fatal(error),
            EVMError::Header(_) | EVMError::Custom(_) | EVMError::CustomAny(_) => {
                Refused::Fatal(StateError::Damaged { what: "block environment" })
            }
        })?;
        self.record(tx, sender, result);
        Ok(())
    }

    fn record(&mut self, tx: TxEnvelope, sender: Address, result: ExecutionResult) {
        let gas_used = result.tx_gas_used();
        self.gas_used += gas_used;
        let created = result.created_address().map(|address| Bytes::copy_from_slice(address.as_slice()));
        let success = result.is_success();
        // What a failed transaction logged before it failed does not count.
        let logs = if success { result.into_logs() } else { Vec::new() };
        let receipt =
            Receipt { status: success.into(), cumulative_gas_used: self.gas_used, logs }.with_bloom();
        // Other types are refused before they come here.
        let receipt = match TxType::try_from(tx.ty()) {
            Ok(TxType::Eip2930) => ReceiptEnvelope::Eip2930(receipt),
            Ok(TxType::Eip1559) => ReceiptEnvelope::Eip1559(receipt),
            Ok(TxType::Legacy | TxType::Eip4844 | TxType::Eip7702) | Err(_) => {
                ReceiptEnvelope::Legacy(receipt)
            }
        };
        self.stored.push(StoredTransaction {
            raw: tx.encoded_2718().into(),
            sender,
            gas_used,
            created: created.unwrap_or_default(),
            receipt: receipt.encoded_2718().into(),
        });
        self.transactions.push(tx);
        self.receipts.push(receipt);
    }

    /// Computes the roots and seals.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn seal(self, sealer: &Sealer) -> Result<(Header, BlockWrite), StateError> {
        let mut write = BlockWrite { number: self.context.number, ..BlockWrite::default() };
        let state_root = self.overlay.state().apply(&self.overlay.changes, &mut write)?;
        let bloom = self
            .receipts
            .iter()
            .fold(Bloom::default(), |all, receipt| all | alloy_consensus::TxReceipt::bloom(receipt));
        let mut header = Header {
            parent_hash: self.parent,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: self.context.beneficiary,
            state_root,
            transactions_root: calculate_transaction_root(&self.transactions),
            receipts_root: calculate_receipt_root(&self.receipts),
            logs_bloom: bloom,
            difficulty: U256::ONE,
            number: self.context.number,
            gas_limit: GAS_LIMIT,
            gas_used: self.gas_used,
            timestamp: self.context.time_s,
            mix_hash: MIX_HASH,
            base_fee_per_gas: Some(0),
            ..Header::default()
        };
        write.id = sealer.seal(&mut header);
        write.header = alloy_rlp::encode(&header);
        write.transactions = self.transactions.iter().map(|tx| *tx.tx_hash()).collect();
        if !self.stored.is_empty() {
            write.block = alloy_rlp::encode(&self.stored);
        }
        Ok((header, write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_and_does_not_run_ahead() {
        assert_eq!(block_time(100, 105), Ok(105));
        assert_eq!(block_time(100, 100), Ok(100));
        assert_eq!(block_time(100, 99), Ok(100), "a step back of one second is ridden out");
        assert_eq!(block_time(100, 98), Err(ClockBehind { now_s: 98, head_s: 100 }));
        assert_eq!(block_time(u64::MAX, u64::MAX), Ok(u64::MAX));
    }
}
