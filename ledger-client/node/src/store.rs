//! The chain on disk: one redb file, written by one thread, each block in one durable commit.
//!
//! ```text
//! meta          name                                   → genesis (JSON)
//! headers       number                                 → block id 32 ‖ header RLP with seals
//! numbers       block id                               → number
//! blocks        number                                 → RLP of the transactions with their receipts; none where there are none
//! transactions  hash                                   → (number, index)
//! codes         hash                                   → bytes
//! nodes         owner 32 ‖ length 1 ‖ path ‖ number 8  → trie node, or nothing where it went with that block
//! stale         (number, n)                            → key in nodes that block `number` replaced
//! ```
//! `owner` is zero for the trie of accounts, else the hashed address whose storage it is. A reader at a block takes the newest node
//! not above it, so the last [`HISTORY_BLOCKS`] states stay readable; what they don't need is removed as the chain goes on.

use std::path::Path;

use alloy_primitives::{B256, keccak256};
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
};
use thiserror::Error;

use crate::trie::{NodeSource, Writes};

type Bytes = &'static [u8];
const META: TableDefinition<'_, &str, Bytes> = TableDefinition::new("meta");
const HEADERS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("headers");
const NUMBERS: TableDefinition<'_, Bytes, u64> = TableDefinition::new("numbers");
const BLOCKS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("blocks");
const TRANSACTIONS: TableDefinition<'_, Bytes, (u64, u32)> = TableDefinition::new("transactions");
const CODES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("codes");
const NODES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("nodes");
const STALE: TableDefinition<'_, (u64, u32), Bytes> = TableDefinition::new("stale");

const GENESIS: &str = "genesis";
/// Blocks whose state stays readable: as many as Besu's Bonsai keeps; 77 minutes of an idle chain.
pub const HISTORY_BLOCKS: u64 = 512;
/// redb's page cache: the upper levels of a trie of 100,000 slots, and the newest blocks.
const CACHE_BYTES: usize = 32 << 20;

/// The store failed; nothing of what was to be written counts.
#[derive(Debug, Error)]
#[error("ledger.redb: {doing}: {source}")]
pub struct StoreError {
    doing: &'static str,
    source: Box<redb::Error>,
}

fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError { doing, source: Box::new(source.into()) }
}

/// An entry that redb gives and that can't be right.
fn damaged(doing: &'static str, what: &str) -> StoreError {
    failed(doing)(redb::Error::Corrupted(what.to_owned()))
}

/// What one block changes.
#[derive(Debug, Default)]
pub struct BlockWrite {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: B256,
    /// RLP with seals.
    pub header: Vec<u8>,
    /// Hashes of its transactions, in order.
    pub transactions: Vec<B256>,
    /// RLP of the transactions with their receipts; empty where there are none.
    pub block: Vec<u8>,
    /// New contracts' code.
    pub codes: Vec<Vec<u8>>,
    /// Changed nodes by owner.
    pub nodes: Vec<(B256, Writes)>,
    /// With the first block: what the chain is.
    pub genesis: Option<Vec<u8>>,
}

/// The chain's store.
#[derive(Debug)]
pub struct Store {
    db: Database,
}

impl Store {
    /// Opens or makes the store in `dir`.
    ///
    /// # Errors
    /// [`StoreError`], also where the file is damaged or another process holds it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let db = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(dir.join("ledger.redb"))
            .map_err(failed("open"))?;
        let store = Self::prepare(db)?;
        // The name too: a block that was served must not vanish with its file.
        std::fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| failed("sync the folder")(redb::StorageError::Io(e)))?;
        Ok(store)
    }

    /// A chain that ends with the process, for tests and fuzzing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn in_memory() -> Result<Self, StoreError> {
        let backend = redb::backends::InMemoryBackend::new();
        Self::prepare(redb::Builder::new().create_with_backend(backend).map_err(failed("open in memory"))?)
    }

    /// Makes the tables that are not there.
    fn prepare(db: Database) -> Result<Self, StoreError> {
        let txn = db.begin_write().map_err(failed("begin"))?;
        txn.open_table(META).map_err(failed("open meta"))?;
        txn.open_table(HEADERS).map_err(failed("open headers"))?;
        txn.open_table(NUMBERS).map_err(failed("open numbers"))?;
        txn.open_table(BLOCKS).map_err(failed("open blocks"))?;
        txn.open_table(TRANSACTIONS).map_err(failed("open transactions"))?;
        txn.open_table(CODES).map_err(failed("open codes"))?;
        txn.open_table(NODES).map_err(failed("open nodes"))?;
        txn.open_table(STALE).map_err(failed("open stale"))?;
        txn.commit().map_err(failed("commit"))?;
        Ok(Self { db })
    }

    /// Writes one block. When this returns, the block is durable; when it fails, nothing of it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write(&self, block: &BlockWrite) -> Result<(), StoreError> {
        let txn = self.db.begin_write().map_err(failed("begin"))?;
        {
            let entry = [block.id.as_slice(), &block.header].concat();
            let mut headers = txn.open_table(HEADERS).map_err(failed("open headers"))?;
            headers.insert(block.number, entry.as_slice()).map_err(failed("write a header"))?;
            let mut numbers = txn.open_table(NUMBERS).map_err(failed("open numbers"))?;
            numbers.insert(block.id.as_slice(), block.number).map_err(failed("write a number"))?;
            if !block.block.is_empty() {
                let mut blocks = txn.open_table(BLOCKS).map_err(failed("open blocks"))?;
                blocks.insert(block.number, block.block.as_slice()).map_err(failed("write a block"))?;
            }
            let mut transactions = txn.open_table(TRANSACTIONS).map_err(failed("open transactions"))?;
            for (index, hash) in (0_u32..).zip(&block.transactions) {
                transactions
                    .insert(hash.as_slice(), (block.number, index))
                    .map_err(failed("write a transaction"))?;
            }
            let mut codes = txn.open_table(CODES).map_err(failed("open codes"))?;
            for code in &block.codes {
                codes.insert(keccak256(code).as_slice(), code.as_slice()).map_err(failed("write a code"))?;
            }
            if let Some(genesis) = &block.genesis {
                let mut meta = txn.open_table(META).map_err(failed("open meta"))?;
                meta.insert(GENESIS, genesis.as_slice()).map_err(failed("write the genesis"))?;
            }
            let mut nodes = txn.open_table(NODES).map_err(failed("open nodes"))?;
            let mut stale = txn.open_table(STALE).map_err(failed("open stale"))?;
            write_nodes(&mut nodes, &mut stale, block)?;
            prune(&mut nodes, &mut stale, block.number)?;
        }
        txn.commit().map_err(failed("commit"))
    }

    /// A consistent look at everything that is durable now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(&self) -> Result<Reader, StoreError> {
        let txn = self.db.begin_read().map_err(failed("begin"))?;
        Ok(Reader {
            meta: txn.open_table(META).map_err(failed("open meta"))?,
            headers: txn.open_table(HEADERS).map_err(failed("open headers"))?,
            numbers: txn.open_table(NUMBERS).map_err(failed("open numbers"))?,
            blocks: txn.open_table(BLOCKS).map_err(failed("open blocks"))?,
            transactions: txn.open_table(TRANSACTIONS).map_err(failed("open transactions"))?,
            codes: txn.open_table(CODES).map_err(failed("open codes"))?,
            nodes: txn.open_table(NODES).map_err(failed("open nodes"))?,
        })
    }
}

fn node_key(owner: &B256, path: &[u8], number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(32 + 1 + 32 + 8);
    key.extend_from_slice(owner.as_slice());
    // At most 64 nibbles.
    key.push(u8::try_from(path.len()).unwrap_or(u8::MAX));
    key.extend(path.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)));
    key.extend_from_slice(&number.to_be_bytes());
    key
}

type Entry = (Vec<u8>, Vec<u8>);

/// Key and bytes of the newest version of a node not above `number`.
fn newest(
    nodes: &impl ReadableTable<Bytes, Bytes>,
    owner: &B256,
    path: &[u8],
    number: u64,
) -> Result<Option<Entry>, StoreError> {
    let (first, last) = (node_key(owner, path, 0), node_key(owner, path, number));
    let mut range =
        nodes.range::<&[u8]>(first.as_slice()..=last.as_slice()).map_err(failed("read a trie node"))?;
    let Some(entry) = range.next_back() else { return Ok(None) };
    let (key, value) = entry.map_err(failed("read a trie node"))?;
    Ok(Some((key.value().to_vec(), value.value().to_vec())))
}

fn write_nodes(
    nodes: &mut Table<'_, Bytes, Bytes>,
    stale: &mut Table<'_, (u64, u32), Bytes>,
    block: &BlockWrite,
) -> Result<(), StoreError> {
    let mut count = 0_u32;
    let mut replaced = |key: &[u8]| {
        let result = stale.insert((block.number, count), key).map(drop);
        count = count.saturating_add(1);
        result.map_err(failed("write a stale entry"))
    };
    for (owner, writes) in &block.nodes {
        for (path, node) in writes {
            if let Some((before, _)) = newest(nodes, owner, path, block.number)? {
                replaced(&before)?;
            }
            let key = node_key(owner, path, block.number);
            let value = node.as_deref().unwrap_or_default();
            nodes.insert(key.as_slice(), value).map_err(failed("write a trie node"))?;
            if node.is_none() {
                // The mark itself goes with what it marks.
                replaced(&key)?;
            }
        }
    }
    Ok(())
}

/// Removes what only states before the history need.
fn prune(
    nodes: &mut Table<'_, Bytes, Bytes>,
    stale: &mut Table<'_, (u64, u32), Bytes>,
    number: u64,
) -> Result<(), StoreError> {
    let Some(horizon) = number.checked_sub(HISTORY_BLOCKS) else { return Ok(()) };
    let gone =
        stale.extract_from_if(..=(horizon, u32::MAX), |_, _| true).map_err(failed("read stale entries"))?;
    for entry in gone {
        let (_, key) = entry.map_err(failed("read a stale entry"))?;
        nodes.remove(key.value()).map_err(failed("remove a trie node"))?;
    }
    Ok(())
}

/// A consistent look at the chain.
pub struct Reader {
    meta: ReadOnlyTable<&'static str, Bytes>,
    headers: ReadOnlyTable<u64, Bytes>,
    numbers: ReadOnlyTable<Bytes, u64>,
    blocks: ReadOnlyTable<u64, Bytes>,
    transactions: ReadOnlyTable<Bytes, (u64, u32)>,
    codes: ReadOnlyTable<Bytes, Bytes>,
    nodes: ReadOnlyTable<Bytes, Bytes>,
}

impl Reader {
    /// What the chain is, as it was written with the first block.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn genesis(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let entry = self.meta.get(GENESIS).map_err(failed("read the genesis"))?;
        Ok(entry.map(|entry| entry.value().to_vec()))
    }

    /// The newest block's number; `None` before the first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn head(&self) -> Result<Option<u64>, StoreError> {
        let last = self.headers.last().map_err(failed("read the last header"))?;
        Ok(last.map(|(number, _)| number.value()))
    }

    /// A block's id and its header's RLP.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn header(&self, number: u64) -> Result<Option<(B256, Vec<u8>)>, StoreError> {
        let entry = self.headers.get(number).map_err(failed("read a header"))?;
        let Some(entry) = entry else { return Ok(None) };
        let (id, header) =
            entry.value().split_at_checked(32).ok_or_else(|| damaged("read a header", "cut"))?;
        Ok(Some((B256::from_slice(id), header.to_vec())))
    }

    /// A block's number by its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn number(&self, id: &B256) -> Result<Option<u64>, StoreError> {
        let entry = self.numbers.get(id.as_slice()).map_err(failed("read a number"))?;
        let Some(number) = entry.map(|entry| entry.value()) else { return Ok(None) };
        let header = self.headers.get(number).map_err(failed("read a header"))?;
        match header.is_some_and(|header| header.value().starts_with(id.as_slice())) {
            true => Ok(Some(number)),
            false => Err(damaged("read a number", "the block at it has another id")),
        }
    }

    /// A block's transactions with their receipts, as they were written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn block(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let entry = self.blocks.get(number).map_err(failed("read a block"))?;
        Ok(entry.map(|entry| entry.value().to_vec()))
    }

    /// The blocks that have transactions, in order, without those that have none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn blocks(
        &self,
        first: u64,
        last: u64,
    ) -> Result<impl Iterator<Item = Result<(u64, Vec<u8>), StoreError>>, StoreError> {
        let range = self.blocks.range(first..=last).map_err(failed("read blocks"))?;
        Ok(range.map(|entry| {
            let (number, block) = entry.map_err(failed("read a block"))?;
            Ok((number.value(), block.value().to_vec()))
        }))
    }

    /// Block and index of a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn transaction(&self, hash: &B256) -> Result<Option<(u64, u32)>, StoreError> {
        let entry = self.transactions.get(hash.as_slice()).map_err(failed("read a transaction"))?;
        Ok(entry.map(|entry| entry.value()))
    }

    /// Code by its hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn code(&self, hash: &B256) -> Result<Option<Vec<u8>>, StoreError> {
        let entry = self.codes.get(hash.as_slice()).map_err(failed("read a code"))?;
        Ok(entry.map(|entry| entry.value().to_vec()))
    }

    /// Whether there is a header and an id for each number up to this one, and no more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_unbroken(&self, head: u64) -> Result<bool, StoreError> {
        let headers = self.headers.len().map_err(failed("count headers"))?;
        let numbers = self.numbers.len().map_err(failed("count numbers"))?;
        Ok([headers, numbers] == [head.saturating_add(1); 2])
    }

    /// Whether a block has transactions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_block(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.blocks.get(number).map_err(failed("read a block"))?.is_some())
    }

    /// How many trie nodes are stored, all versions of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn nodes_len(&self) -> Result<u64, StoreError> {
        self.nodes.len().map_err(failed("count trie nodes"))
    }

    /// The nodes of one trie at one block.
    #[must_use]
    pub fn nodes(&self, owner: B256, number: u64) -> NodesAt<'_> {
        NodesAt { reader: self, owner, number }
    }
}

/// The nodes of one trie at one block.
pub struct NodesAt<'r> {
    reader: &'r Reader,
    owner: B256,
    number: u64,
}

impl NodeSource for NodesAt<'_> {
    fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = newest(&self.reader.nodes, &self.owner, path, self.number)?;
        Ok(found.map(|(_, bytes)| bytes).filter(|bytes| !bytes.is_empty()))
    }
}
