//! Audit logs on the ledger: how far one is anchored, and its next batch.

use alloy::primitives::B256;
use ledger_client::verify::slots::audit_log;
use ledger_client::verify::{Address, SignedAnchor};

use crate::bundle::header_bytes;
use crate::client::Chain;
use crate::contract::Caregate;
use crate::convert::{bytes, word20};
use crate::error::ChainError;
use crate::send::{Mined, RelayKey, SendError};

/// How far a log is anchored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditLogState {
    /// Root of the newest batch; zeroes for none.
    pub root: [u8; 32],
    /// Its last entry; 0 for none.
    pub last: u64,
    /// How many batches there are.
    pub anchors: u64,
}

/// Proof of how far a log is anchored, for `ledger_client::verify::verify_log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// The header's RLP, seals included.
    pub header: Vec<u8>,
    /// Nodes of the state's and the storage's tries.
    pub nodes: Vec<Vec<u8>>,
}

impl Chain {
    /// Proof of how far the log of this key is anchored, under the newest header.
    ///
    /// # Errors
    /// No answer, or one that contradicts itself.
    pub async fn log_proof(&self, log: &Address) -> Result<LogProof, ChainError> {
        let block = self.block(None).await?;
        let proofs = self.proofs(&audit_log(log), block.head.number).await?;
        let mut nodes: Vec<_> = proofs.nodes.into_iter().map(|node| node.to_vec()).collect();
        nodes.sort();
        nodes.dedup();
        Ok(LogProof { header: header_bytes(&block)?, nodes })
    }

    /// How far the log of this key is anchored.
    ///
    /// # Errors
    /// No answer.
    pub async fn audit_log(&self, log: &Address) -> Result<AuditLogState, ChainError> {
        let state = self.view(Caregate::auditLogsCall(word20(log))).await?;
        Ok(AuditLogState { root: state.root.0, last: state.last, anchors: state.anchors })
    }

    /// Anchors a log's next batch.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn anchor(&self, signed: &SignedAnchor, relay: &RelayKey) -> Result<Mined, SendError> {
        let SignedAnchor { anchor, signature } = signed;
        let a = Caregate::Anchor {
            log: word20(&anchor.log),
            first: anchor.first,
            last: anchor.last,
            root: B256::from(anchor.root),
        };
        self.send(&Caregate::anchorCall { a, signature: bytes(signature) }, relay).await
    }
}
