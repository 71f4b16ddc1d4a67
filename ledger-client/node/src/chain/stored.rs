//! What is stored, read against the hashes that name it. redb looks at its own checksums only after a crash, and a disk may give back
//! other bytes at any time: so opening checks the chain's end, and whatever lies deeper is checked when it is read.

use alloy_consensus::Header;
use alloy_consensus::proofs::ordered_trie_root_with_encoder;
use alloy_primitives::{U256, keccak256};

use super::{ChainError, Deployment, SealedHeader};
use crate::block::StoredTransaction;
use crate::seal;
use crate::state::{KECCAK256_EMPTY, State};
use crate::store::Reader;
use crate::trie::EMPTY_ROOT;

/// Newest headers that opening reads: a day of an idle chain.
const HEADERS_CHECKED: u64 = 10_000;
/// Newest blocks whose seal, transactions and receipts opening reads: full ones hold 300 each and cost milliseconds.
const BODIES_CHECKED: u64 = 64;

/// A stored block's header; it is the one that its id names.
///
/// # Errors
/// [`ChainError`].
pub fn header(reader: &Reader, number: u64) -> Result<Option<SealedHeader>, ChainError> {
    Ok(sealed(reader, number)?.map(|(header, _)| header))
}

fn sealed(
    reader: &Reader,
    number: u64,
) -> Result<Option<(SealedHeader, [u8; seal::SEAL_BYTES])>, ChainError> {
    let Some((id, bytes)) = reader.header(number)? else { return Ok(None) };
    let damaged = || ChainError::Damaged { number, what: "its header is not the one that its id names" };
    let header: Header = alloy_rlp::decode_exact(&bytes).map_err(|_source| damaged())?;
    match seal::opened(&header) {
        Some((named, seal)) if named == id && header.number == number => {
            Ok(Some((SealedHeader { id, header }, seal)))
        }
        _ => Err(damaged()),
    }
}

/// A stored block's transactions.
///
/// # Errors
/// [`ChainError`].
pub fn transactions(reader: &Reader, number: u64) -> Result<Vec<StoredTransaction>, ChainError> {
    let sealed = header(reader, number)?;
    let missing = ChainError::Damaged { number, what: "its header is missing" };
    body(reader, &sealed.ok_or(missing)?.header)
}

/// The transactions of a block with this header; they and their receipts are those that its roots name.
///
/// # Errors
/// [`ChainError`].
pub fn body(reader: &Reader, header: &Header) -> Result<Vec<StoredTransaction>, ChainError> {
    let damaged = |what| ChainError::Damaged { number: header.number, what };
    let Some(bytes) = reader.block(header.number)? else {
        return match header.transactions_root == EMPTY_ROOT {
            true => Ok(Vec::new()),
            false => Err(damaged("its transactions are missing")),
        };
    };
    let stored: Vec<StoredTransaction> =
        alloy_rlp::decode_exact(&bytes).map_err(|_source| damaged("its transactions can't be read"))?;
    let transactions = ordered_trie_root_with_encoder(&stored, |one, out| out.extend_from_slice(&one.raw));
    if transactions != header.transactions_root {
        return Err(damaged("its transactions are not those that its header names"));
    }
    let receipts = ordered_trie_root_with_encoder(&stored, |one, out| out.extend_from_slice(&one.receipt));
    if receipts != header.receipts_root || gas_used(&stored) != Some(header.gas_used) {
        return Err(damaged("its receipts are not those that its header names"));
    }
    Ok(stored)
}

fn gas_used(stored: &[StoredTransaction]) -> Option<u64> {
    stored.iter().try_fold(0_u64, |sum, one| sum.checked_add(one.gas_used))
}

/// Checks the chain's end, its first block, and the contract; gives the newest header. What it costs does not grow with the chain.
///
/// # Errors
/// [`ChainError`].
pub(super) fn check(reader: &Reader, deployment: &Deployment) -> Result<SealedHeader, ChainError> {
    let number = reader.head()?.unwrap_or_default();
    if !reader.is_unbroken(number)? {
        return Err(ChainError::Damaged { number, what: "headers of blocks before it are missing" });
    }
    let missing = |number| ChainError::Damaged { number, what: "its header is missing" };
    let genesis = header(reader, 0)?.ok_or_else(|| missing(0))?;
    if genesis.id != deployment.genesis {
        return Err(ChainError::Damaged { number: 0, what: "it is not the chain's first" });
    }
    let mut newest = genesis;
    for at in number.saturating_sub(HEADERS_CHECKED)..=number {
        let (block, seal) = sealed(reader, at)?.ok_or_else(|| missing(at))?;
        if at == newest.header.number + 1 && block.header.parent_hash != newest.id {
            return Err(ChainError::Damaged { number: at, what: "its parent is not the block before it" });
        }
        if number - at < BODIES_CHECKED {
            check_seal(&block, &seal, deployment)?;
        }
        check_block(reader, &block, number - at < BODIES_CHECKED)?;
        newest = block;
    }
    check_contract(reader, &newest, deployment)?;
    Ok(newest)
}

fn check_seal(
    block: &SealedHeader,
    seal: &[u8; seal::SEAL_BYTES],
    deployment: &Deployment,
) -> Result<(), ChainError> {
    match deployment.validators.iter().any(|validator| seal::is_by(&block.id, seal, validator)) {
        true => Ok(()),
        false => {
            let what = "its seal is not the chain's";
            Err(ChainError::Damaged { number: block.header.number, what })
        }
    }
}

/// A block must be found by its id and have transactions where its header names some; also with what is in them, where that is asked.
fn check_block(reader: &Reader, block: &SealedHeader, with_body: bool) -> Result<(), ChainError> {
    let number = block.header.number;
    let damaged = |what| ChainError::Damaged { number, what };
    if reader.number(&block.id)? != Some(number) {
        return Err(damaged("it is not found by its id"));
    }
    if reader.has_block(number)? != (block.header.transactions_root != EMPTY_ROOT) {
        return Err(damaged("its transactions are missing, or are there where it has none"));
    }
    if !with_body {
        return Ok(());
    }
    for (index, stored) in (0_u32..).zip(body(reader, &block.header)?) {
        if reader.transaction(&keccak256(&stored.raw))? != Some((number, index)) {
            return Err(damaged("a transaction is not found by its hash"));
        }
    }
    Ok(())
}

/// The contract's account, code and first slot, each with the trie nodes that lead there.
fn check_contract(reader: &Reader, head: &SealedHeader, deployment: &Deployment) -> Result<(), ChainError> {
    let state = State::new(reader, head.header.number, head.header.state_root);
    let account =
        state.account(&deployment.contract)?.value.filter(|account| account.code_hash != KECCAK256_EMPTY);
    let missing =
        ChainError::Damaged { number: head.header.number, what: "the contract is not in its state" };
    let account = account.ok_or(missing)?;
    state.code(&account.code_hash)?;
    state.slot(&deployment.contract, &account.storage_root, &U256::ZERO)?;
    Ok(())
}
