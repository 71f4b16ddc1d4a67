//! The EVM (revm) on a state with changes in memory above it. The rules are Cancun's: all that current compilers emit runs. Blob and
//! set-code transactions are refused before they come here.

use alloy_consensus::{Transaction as _, TxEnvelope, Typed2718 as _};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use revm::bytecode::Bytecode;
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction, ResultAndState};
use revm::context::{BlockEnv, Context, TxEnv};
use revm::database_interface::Database;
use revm::primitives::hardfork::SpecId;
use revm::state::{AccountInfo, EvmState};
use revm::{ExecuteEvm, MainBuilder, MainContext};

use crate::state::{AccountChange, Changes, Info, State, StateError};

/// Most gas of a block, and so of a transaction or a call: some 300 grants, and a second of computing at worst.
pub const GAS_LIMIT: u64 = 30_000_000;

/// A state and the changes above it.
pub struct Overlay<'r> {
    state: State<'r>,
    /// What was changed since.
    pub changes: Changes,
}

/// The block in which something runs.
#[derive(Debug, Clone, Copy)]
pub struct BlockContext {
    /// EIP-155.
    pub chain_id: u64,
    /// Its number.
    pub number: u64,
    /// Unix time in seconds.
    pub time_s: u64,
    /// Who seals it.
    pub beneficiary: Address,
    /// Of the header.
    pub mix_hash: B256,
}

/// Why nothing ran.
pub type EvmError = EVMError<StateError, InvalidTransaction>;

impl<'r> Overlay<'r> {
    /// No changes yet.
    #[must_use]
    pub fn new(state: State<'r>) -> Self {
        Self { state, changes: Changes::default() }
    }

    /// The state below.
    #[must_use]
    pub fn state(&self) -> &State<'r> {
        &self.state
    }

    /// An account's next nonce.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn nonce(&self, address: &Address) -> Result<u64, StateError> {
        Ok(self.info(address)?.map_or(0, |info| info.nonce))
    }

    fn info(&self, address: &Address) -> Result<Option<Info>, StateError> {
        if let Some(change) = self.changes.accounts.get(address) {
            return Ok(change.info);
        }
        let account = self.state.account(address)?.value;
        Ok(account.map(|account| Info {
            nonce: account.nonce,
            balance: account.balance,
            code_hash: account.code_hash,
        }))
    }

    /// Runs a transaction; its changes stay here.
    ///
    /// # Errors
    /// [`EvmError::Transaction`] where it may not run at all; then nothing is changed.
    pub fn execute(&mut self, block: &BlockContext, tx: TxEnv) -> Result<ExecutionResult, EvmError> {
        let ResultAndState { result, state } = run(&mut *self, block, tx, false)?;
        self.commit(state);
        Ok(result)
    }

    /// Runs a call; it changes nothing. The sender needs neither a key nor the next nonce, and may be a contract.
    ///
    /// # Errors
    /// [`EvmError`].
    pub fn call(&mut self, block: &BlockContext, tx: TxEnv) -> Result<ExecutionResult, EvmError> {
        Ok(run(self, block, tx, true)?.result)
    }

    fn commit(&mut self, state: EvmState) {
        for (address, account) in state {
            if !account.is_touched() {
                continue;
            }
            let change = self.changes.accounts.entry(address).or_default();
            // EIP-161: an empty account is none.
            if account.is_selfdestructed() || account.is_empty() {
                *change = AccountChange { info: None, fresh: true, ..AccountChange::default() };
                continue;
            }
            if account.is_created() {
                *change = AccountChange { fresh: true, ..AccountChange::default() };
            }
            change.info = Some(Info {
                nonce: account.info.nonce,
                balance: account.info.balance,
                code_hash: account.info.code_hash,
            });
            let slots = account.changed_storage_slots();
            change.storage.extend(slots.map(|(slot, value)| (*slot, value.present_value())));
            if account.is_created()
                && let Some(code) = account.info.code.filter(|code| !code.is_empty())
            {
                self.changes.codes.insert(account.info.code_hash, code.original_bytes());
            }
        }
    }
}

fn run(
    overlay: &mut Overlay<'_>,
    block: &BlockContext,
    tx: TxEnv,
    call: bool,
) -> Result<ResultAndState, EvmError> {
    let env = BlockEnv {
        number: U256::from(block.number),
        beneficiary: block.beneficiary,
        timestamp: U256::from(block.time_s),
        gas_limit: GAS_LIMIT,
        basefee: 0,
        difficulty: U256::ONE,
        prevrandao: Some(block.mix_hash),
        ..BlockEnv::default()
    };
    let mut evm = Context::mainnet()
        .with_db(overlay)
        .with_block(env)
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(SpecId::CANCUN);
            cfg.chain_id = block.chain_id;
            cfg.disable_nonce_check = call;
            cfg.disable_eip3607 = call;
        })
        .build_mainnet();
    evm.transact(tx)
}

impl Database for Overlay<'_> {
    type Error = StateError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        let info = self.info(&address)?;
        Ok(info.map(|info| AccountInfo {
            balance: info.balance,
            nonce: info.nonce,
            code_hash: info.code_hash,
            code: None,
            ..AccountInfo::default()
        }))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, StateError> {
        let code = match self.changes.codes.get(&hash) {
            Some(code) => code.clone(),
            None => self.state.code(&hash)?,
        };
        Ok(Bytecode::new_raw(code))
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, StateError> {
        if let Some(change) = self.changes.accounts.get(&address) {
            if let Some(value) = change.storage.get(&slot) {
                return Ok(*value);
            }
            if change.fresh {
                return Ok(U256::ZERO);
            }
        }
        let Some(account) = self.state.account(&address)?.value else { return Ok(U256::ZERO) };
        Ok(self.state.slot(&address, &account.storage_root, &slot)?.value.unwrap_or_default())
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, StateError> {
        Ok(self.state.block_id(number)?.unwrap_or_default())
    }
}

/// A signed transaction as the EVM takes it.
#[must_use]
pub fn environment(tx: &TxEnvelope, sender: Address) -> TxEnv {
    TxEnv {
        tx_type: tx.ty(),
        caller: sender,
        gas_limit: tx.gas_limit(),
        gas_price: tx.max_fee_per_gas(),
        kind: tx.kind(),
        value: tx.value(),
        data: tx.input().clone(),
        nonce: tx.nonce(),
        chain_id: tx.chain_id(),
        access_list: tx.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: tx.max_priority_fee_per_gas(),
        ..TxEnv::default()
    }
}

/// A contract's creation, at genesis.
#[must_use]
pub fn creation(sender: Address, code: Bytes, chain_id: u64) -> TxEnv {
    TxEnv {
        caller: sender,
        gas_limit: GAS_LIMIT,
        kind: TxKind::Create,
        data: code,
        chain_id: Some(chain_id),
        gas_price: 0,
        ..TxEnv::default()
    }
}
