//! The state at one block: accounts, storage and code, read from the tries and nowhere else.

use alloy_consensus::TrieAccount;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::Decodable;
use thiserror::Error;

use crate::store::{BlockWrite, Reader, StoreError};
use crate::trie::{self, EMPTY_ROOT, Found, Trie, TrieError};

/// `keccak256` of nothing: the code hash of who has no code.
pub use alloy_primitives::KECCAK256_EMPTY;

/// The state can't be read.
#[derive(Debug, Error)]
pub enum StateError {
    /// A trie.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value is no RLP of what it should be.
    #[error("ledger.redb: the state's {what} is missing or damaged")]
    Damaged {
        /// `account`, `slot` or `code`.
        what: &'static str,
    },
}

impl revm::database_interface::DBErrorMarker for StateError {}

/// The trie of accounts has no owner.
const ACCOUNTS: B256 = B256::ZERO;

/// The state after one block.
pub struct State<'r> {
    reader: &'r Reader,
    number: u64,
    root: B256,
}

/// An account or a slot, and its proof.
#[derive(Debug, Clone)]
pub struct Proven<T> {
    /// `None` where there is none.
    pub value: Option<T>,
    /// Nodes from the root.
    pub proof: Vec<Vec<u8>>,
}

fn decoded<T: Decodable>(found: Found, what: &'static str) -> Result<Proven<T>, StateError> {
    let value = match found.value {
        None => None,
        Some(bytes) => Some(alloy_rlp::decode_exact(&bytes).map_err(|_source| StateError::Damaged { what })?),
    };
    Ok(Proven { value, proof: found.proof })
}

impl<'r> State<'r> {
    /// The state with this root after block `number`.
    #[must_use]
    pub fn new(reader: &'r Reader, number: u64, root: B256) -> Self {
        Self { reader, number, root }
    }

    /// An account and its proof.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn account(&self, address: &Address) -> Result<Proven<TrieAccount>, StateError> {
        let nodes = self.reader.nodes(ACCOUNTS, self.number);
        decoded(trie::find(&nodes, &self.root, &keccak256(address))?, "account")
    }

    /// A slot of an account's storage and its proof. `storage_root` is the account's.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn slot(
        &self,
        address: &Address,
        storage_root: &B256,
        slot: &U256,
    ) -> Result<Proven<U256>, StateError> {
        let nodes = self.reader.nodes(keccak256(address), self.number);
        decoded(trie::find(&nodes, storage_root, &keccak256(slot.to_be_bytes::<32>()))?, "slot")
    }

    /// Code by its hash.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn code(&self, hash: &B256) -> Result<Bytes, StateError> {
        if *hash == KECCAK256_EMPTY {
            return Ok(Bytes::new());
        }
        let code = self.reader.code(hash)?.filter(|code| keccak256(code) == *hash);
        Ok(code.ok_or(StateError::Damaged { what: "code" })?.into())
    }

    /// The id of a block before this state's.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn block_id(&self, number: u64) -> Result<Option<B256>, StateError> {
        Ok(self.reader.header(number)?.map(|(id, _)| id))
    }

    /// The root that the changes of one block give; what has to be written goes into `block`.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn apply(&self, changes: &Changes, block: &mut BlockWrite) -> Result<B256, StateError> {
        let source = self.reader.nodes(ACCOUNTS, self.number);
        let mut accounts = Trie::open(&source, self.root);
        for (address, change) in &changes.accounts {
            let key = keccak256(address);
            let Some(info) = &change.info else {
                accounts.set(&key, Vec::new())?;
                continue;
            };
            let before = match change.fresh {
                true => EMPTY_ROOT,
                false => self.account(address)?.value.map_or(EMPTY_ROOT, |account| account.storage_root),
            };
            let storage_root = self.apply_storage(key, before, change, block)?;
            let account = TrieAccount {
                nonce: info.nonce,
                balance: info.balance,
                storage_root,
                code_hash: info.code_hash,
            };
            accounts.set(&key, alloy_rlp::encode(account))?;
        }
        let (root, writes) = accounts.finish()?;
        if !writes.is_empty() {
            block.nodes.push((ACCOUNTS, writes));
        }
        block.codes.extend(changes.codes.values().map(|code| code.to_vec()));
        Ok(root)
    }

    fn apply_storage(
        &self,
        owner: B256,
        root: B256,
        change: &AccountChange,
        block: &mut BlockWrite,
    ) -> Result<B256, StateError> {
        if change.storage.is_empty() {
            return Ok(root);
        }
        let source = self.reader.nodes(owner, self.number);
        let mut storage = Trie::open(&source, root);
        for (slot, value) in &change.storage {
            let encoded = if value.is_zero() { Vec::new() } else { alloy_rlp::encode(value) };
            storage.set(&keccak256(slot.to_be_bytes::<32>()), encoded)?;
        }
        let (root, writes) = storage.finish()?;
        if !writes.is_empty() {
            block.nodes.push((owner, writes));
        }
        Ok(root)
    }
}

/// What an account is without its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Transactions sent, or 1 and more for a contract.
    pub nonce: u64,
    /// In wei.
    pub balance: U256,
    /// [`KECCAK256_EMPTY`] without code.
    pub code_hash: B256,
}

/// What a block's transactions changed of one account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountChange {
    /// As it is now; `None` where it is gone.
    pub info: Option<Info>,
    /// Made anew: nothing of an earlier storage counts. Since Cancun (EIP-6780) an account with stored slots can't go, so this
    /// leaves no node behind.
    pub fresh: bool,
    /// Slots by number.
    pub storage: std::collections::BTreeMap<U256, U256>,
}

/// What a block's transactions changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// By address.
    pub accounts: std::collections::BTreeMap<Address, AccountChange>,
    /// By hash.
    pub codes: std::collections::BTreeMap<B256, Bytes>,
}
