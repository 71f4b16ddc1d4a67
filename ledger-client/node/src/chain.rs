//! The chain: its store, what it is, and its newest block.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, keccak256};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::block::Building;
use crate::contract::{Artifact, ArtifactError, Council};
use crate::evm::{self, BlockContext, Overlay};
use crate::seal::{MIX_HASH, Sealer};
use crate::state::{State, StateError};
use crate::store::{BlockWrite, HISTORY_BLOCKS, Reader, Store, StoreError};
use crate::trie::EMPTY_ROOT;

mod stored;

pub use stored::{body, header, transactions};

/// What a chain is from its first block on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// EIP-155.
    pub chain_id: u64,
    /// The contract `Caregate`.
    pub contract: Address,
    /// Who seals: one.
    pub validators: Vec<Address>,
    /// Who said at first who takes part.
    pub council: Council,
    /// The first block's id.
    pub genesis: B256,
    /// Keccak-256 of the contract's creation code, without the council.
    pub contract_code_keccak256: B256,
    /// Said wherever the chain is described.
    pub notice: String,
}

/// The file beside the store that says what the chain is, for whoever enrols gateways. It is written after the first block.
pub const DEPLOYMENT: &str = "deployment.json";

/// Said in the banner, in the deployment's file and in the metrics' help.
pub const NOTICE: &str = "one party seals this chain; whoever holds its key can rewrite it";

/// What a configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// EIP-155.
    pub chain_id: u64,
    /// Who says at first who takes part.
    pub council: Council,
}

/// The chain can't be opened or read.
#[derive(Debug, Error)]
pub enum ChainError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The contract.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The constructor did not run.
    #[error("the contract could not be deployed: {0}")]
    Deploy(String),
    /// The configuration is another chain's.
    #[error("the chain in the data folder has {what} {stored}, the configuration says {wanted}")]
    Other {
        /// Of what.
        what: &'static str,
        /// In the data folder.
        stored: String,
        /// Configured.
        wanted: String,
    },
    /// The store is new, the folder is not: going on would make another chain with the same addresses.
    #[error(
        "ledger.redb: no block is in it, but {DEPLOYMENT} says that there was a chain; put the store back, or remove {DEPLOYMENT} to begin another"
    )]
    Gone,
    /// What is stored is not what its hash names, or is not there.
    #[error("ledger.redb: block {number}: {what}")]
    Damaged {
        /// Of which block.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// A block's header and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedHeader {
    /// The id: the hash without seals.
    pub id: B256,
    /// With seals.
    pub header: Header,
}

/// The chain.
#[derive(Debug)]
pub struct Chain {
    store: Store,
    sealer: Sealer,
    deployment: Deployment,
    head: Mutex<SealedHeader>,
    heads: watch::Sender<u64>,
}

impl Chain {
    /// Opens the chain in `dir` and checks its end; where there is none, makes its first block, which holds the contract.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn open(dir: &Path, sealer: Sealer, wanted: Wanted, now_s: u64) -> Result<Self, ChainError> {
        let store = Store::open(dir)?;
        if dir.join(DEPLOYMENT).exists() && store.read()?.head()?.is_none() {
            return Err(ChainError::Gone);
        }
        Self::of(store, sealer, wanted, now_s)
    }

    /// A chain that ends with the process, for tests and fuzzing.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn in_memory(sealer: Sealer, wanted: Wanted, now_s: u64) -> Result<Self, ChainError> {
        Self::of(Store::in_memory()?, sealer, wanted, now_s)
    }

    fn of(store: Store, sealer: Sealer, wanted: Wanted, now_s: u64) -> Result<Self, ChainError> {
        let reader = store.read()?;
        if reader.head()?.is_none() {
            let write = genesis(&reader, &sealer, &wanted, now_s)?;
            drop(reader);
            store.write(&write)?;
        }
        let reader = store.read()?;
        let damaged = |what| ChainError::Damaged { number: 0, what };
        let bytes = reader.genesis()?.ok_or_else(|| damaged("what the chain is, is missing"))?;
        let deployment: Deployment =
            serde_json::from_slice(&bytes).map_err(|_source| damaged("what the chain is, can't be read"))?;
        check(&deployment, &sealer, &wanted)?;
        let head = stored::check(&reader, &deployment)?;
        let number = head.header.number;
        Ok(Self { store, sealer, deployment, head: Mutex::new(head), heads: watch::Sender::new(number) })
    }

    /// What the chain is.
    #[must_use]
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The newest durable block.
    #[must_use]
    pub fn head(&self) -> SealedHeader {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest durable block's number, and its changes.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<u64> {
        self.heads.subscribe()
    }

    /// A consistent look at the chain.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(&self) -> Result<Reader, StoreError> {
        self.store.read()
    }

    /// Begins the next block.
    #[must_use]
    pub fn begin<'r>(&self, reader: &'r Reader, time_s: u64) -> Building<'r> {
        let head = self.head();
        let overlay = Overlay::new(State::new(reader, head.header.number, head.header.state_root));
        let context = self.context(head.header.number + 1, time_s);
        Building::new(overlay, context, head.id)
    }

    /// In what a block of this chain runs.
    #[must_use]
    pub fn context(&self, number: u64, time_s: u64) -> BlockContext {
        context(self.deployment.chain_id, &self.sealer, number, time_s)
    }

    /// Seals a block and makes it durable; from then on it is the head.
    ///
    /// # Errors
    /// [`ChainError`]; then the chain is what it was.
    pub fn commit(&self, building: Building<'_>) -> Result<SealedHeader, ChainError> {
        let (header, write) = building.seal(&self.sealer)?;
        self.store.write(&write)?;
        let head = SealedHeader { id: write.id, header };
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&head);
        self.heads.send_replace(head.header.number);
        Ok(head)
    }

    /// The first block whose state is still readable.
    #[must_use]
    pub fn history_begins(head: u64) -> u64 {
        head.saturating_sub(HISTORY_BLOCKS)
    }
}

fn context(chain_id: u64, sealer: &Sealer, number: u64, time_s: u64) -> BlockContext {
    BlockContext { chain_id, number, time_s, beneficiary: sealer.address(), mix_hash: MIX_HASH }
}

/// The first block: its state is the contract, made by its constructor, in the name of the sealing key. So the address differs from
/// deployment to deployment, and a patient's signature for one is none for another.
fn genesis(reader: &Reader, sealer: &Sealer, wanted: &Wanted, now_s: u64) -> Result<BlockWrite, ChainError> {
    let artifact = Artifact::embedded()?;
    let contract = sealer.address().create(0);
    let mut overlay = Overlay::new(State::new(reader, 0, EMPTY_ROOT));
    let context = context(wanted.chain_id, sealer, 0, now_s);
    let creation = evm::creation(sealer.address(), artifact.creation(&wanted.council), wanted.chain_id);
    let result =
        overlay.execute(&context, creation).map_err(|error| ChainError::Deploy(error.to_string()))?;
    if !result.is_success() || result.created_address() != Some(contract) {
        return Err(ChainError::Deploy(result.to_string()));
    }
    let (_header, mut write) = Building::new(overlay, context, B256::ZERO).seal(sealer)?;
    let deployment = Deployment {
        chain_id: wanted.chain_id,
        contract,
        validators: vec![sealer.address()],
        council: wanted.council.clone(),
        genesis: write.id,
        contract_code_keccak256: keccak256(&artifact.bytecode),
        notice: NOTICE.to_owned(),
    };
    write.genesis = Some(serde_json::to_vec(&deployment).map_err(ArtifactError::from)?);
    Ok(write)
}

fn check(deployment: &Deployment, sealer: &Sealer, wanted: &Wanted) -> Result<(), ChainError> {
    let other = |what, stored: String, wanted: String| match stored == wanted {
        true => Ok(()),
        false => Err(ChainError::Other { what, stored, wanted }),
    };
    other("chain_id", deployment.chain_id.to_string(), wanted.chain_id.to_string())?;
    other("council", deployment.council.to_string(), wanted.council.to_string())?;
    let validators: Vec<_> = deployment.validators.iter().map(ToString::to_string).collect();
    other("sealing key", validators.join(", "), sealer.address().to_string())
}
