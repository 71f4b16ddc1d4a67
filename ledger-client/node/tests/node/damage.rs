//! A store that a disk or somebody has damaged, wherever: the node says which file it is and what of it, and does not run on half of it;
//! what lies deeper than a start looks is refused when it is asked for. It never serves another chain.

use std::path::PathBuf;
use std::process::Stdio;

use alloy_primitives::{Address, B256, U256, keccak256};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde_json::{Value, json};

use crate::support::ledger::{Ledger, address, key, key_call};
use crate::support::process::{Process, Site};
use crate::support::{Rpc, bytes, until};

type Bytes = &'static [u8];
const META: TableDefinition<'_, &str, Bytes> = TableDefinition::new("meta");
const HEADERS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("headers");
const NUMBERS: TableDefinition<'_, Bytes, u64> = TableDefinition::new("numbers");
const BLOCKS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("blocks");
const TRANSACTIONS: TableDefinition<'_, Bytes, (u64, u32)> = TableDefinition::new("transactions");
const CODES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("codes");
const NODES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("nodes");

/// More than a start reads the transactions of.
const BLOCKS_MADE: u64 = 70;
/// The node's answer to what it can't read.
const INTERNAL: i64 = -32603;

/// A chain that was stopped, and its store as it was.
struct Stopped {
    site: Site,
    whole: Vec<u8>,
    head: u64,
    /// The first block with a transaction, and that.
    first: u64,
    first_transaction: Value,
}

impl Stopped {
    fn new() -> Self {
        let site = Site::new(&address(&key(1)).to_string());
        let mut node = site.start();
        let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
        let ledger = Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, governor: key(1), relay: key(2) };
        let (mut first, mut first_transaction) = (0, Value::Null);
        for number in 0..BLOCKS_MADE {
            let receipt = ledger.send(&ledger.governor, key_call(&ledger.domain(), 10_000 + number, 1));
            assert!(receipt.success());
            if number == 0 {
                (first, first_transaction) = (receipt.block(), receipt.0["transactionHash"].clone());
            }
        }
        let head = ledger.rpc.number("eth_blockNumber", json!([]));
        node.stop();
        let whole = std::fs::read(site.dir.path().join("data/ledger.redb")).unwrap();
        Self { site, whole, head, first, first_transaction }
    }

    fn path(&self) -> PathBuf {
        self.site.dir.path().join("data/ledger.redb")
    }

    fn contract(&self) -> Address {
        self.site.deployment()["contract"].as_str().unwrap().parse().unwrap()
    }

    /// The store as it was, with one thing changed.
    fn damage(&self, change: impl FnOnce(&redb::WriteTransaction)) {
        std::fs::write(self.path(), &self.whole).unwrap();
        let db = Database::open(self.path()).unwrap();
        let txn = db.begin_write().unwrap();
        change(&txn);
        txn.commit().unwrap();
    }

    /// What the node says of its store.
    #[track_caller]
    fn refused(&self, says: &str) {
        self.refused_after("a damaged row", says);
    }

    #[track_caller]
    fn refused_after(&self, what: &str, says: &str) {
        let output = self.site.command().arg("--check").stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{what} was taken, not refused with: {says}");
        assert!(error.contains("data/ledger.redb") && error.contains(says), "{what}: {says}: {error}");
        assert!(!error.contains("panicked"), "{what}: {error}");
    }

    /// A start on the damaged store; its log is beside it.
    fn start(&self) -> (Process, Rpc) {
        let log = std::fs::File::create(self.site.dir.path().join("log")).unwrap();
        (self.site.start_with(log.into()), Rpc(self.site.rpc))
    }

    #[track_caller]
    fn logged(&self, text: &str) {
        let log = std::fs::read_to_string(self.site.dir.path().join("log")).unwrap();
        assert!(log.contains(text), "{text}: {log}");
    }
}

fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1;
    bytes
}

/// Flips a bit of one row of a table by number.
fn flip(txn: &redb::WriteTransaction, table: TableDefinition<'_, u64, Bytes>, number: u64, at: usize) {
    let mut rows = txn.open_table(table).unwrap();
    let row = rows.get(number).unwrap().unwrap().value().to_vec();
    rows.insert(number, flipped(row, at).as_slice()).unwrap();
}

fn remove(txn: &redb::WriteTransaction, table: TableDefinition<'_, u64, Bytes>, number: u64) {
    assert!(txn.open_table(table).unwrap().remove(number).unwrap().is_some());
}

/// Changes a row of a table by hash, or takes it out; the key says whether it is the one.
fn change(
    txn: &redb::WriteTransaction,
    table: TableDefinition<'_, Bytes, Bytes>,
    is_it: impl Fn(&[u8]) -> bool,
    to: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
) {
    let mut rows = txn.open_table(table).unwrap();
    let (key, row) = {
        let found = rows.iter().unwrap().map(Result::unwrap).filter(|(key, _)| is_it(key.value())).last();
        let (key, row) = found.expect("there is such a row");
        (key.value().to_vec(), row.value().to_vec())
    };
    match to(row) {
        Some(row) => drop(rows.insert(key.as_slice(), row.as_slice()).unwrap()),
        None => drop(rows.remove(key.as_slice()).unwrap()),
    }
}

#[test]
fn a_corrupt_store_is_refused_by_name() {
    let chain = Stopped::new();
    let (head, middle) = (chain.head, chain.head / 2);
    let not_named = "its header is not the one that its id names";
    // In the id, in the state's root, in the seal.
    for at in [0, 32 + 4, 32 + 100] {
        chain.damage(|txn| flip(txn, HEADERS, middle, at));
        chain.refused(&format!("block {middle}: {not_named}"));
    }
    let seal = chain_header_len(&chain, head) - 30;
    chain.damage(|txn| flip(txn, HEADERS, head, seal));
    chain.refused(&format!("block {head}: "));
    chain.damage(|txn| remove(txn, HEADERS, middle));
    chain.refused("headers of blocks before it are missing");
    chain.damage(|txn| remove(txn, HEADERS, head));
    chain.refused("headers of blocks before it are missing");
    chain.damage(|txn| {
        let mut headers = txn.open_table(HEADERS).unwrap();
        headers.insert(middle, [1; 20].as_slice()).unwrap();
    });
    chain.refused("read a header");
    chain.damage(|txn| flip_number(txn, &chain));
    chain.refused("the block at it has another id");
    // The last bytes of a body are its last receipt's, the first ones its first transaction's.
    chain.damage(|txn| flip(txn, BLOCKS, head, 40));
    chain.refused(&format!("block {head}: its transactions"));
    chain.damage(|txn| {
        let length = txn.open_table(BLOCKS).unwrap().get(head).unwrap().unwrap().value().len();
        flip(txn, BLOCKS, head, length - 1);
    });
    chain.refused(&format!("block {head}: its receipts are not those that its header names"));
    chain.damage(|txn| remove(txn, BLOCKS, chain.first));
    chain.refused(&format!("block {}: its transactions are missing", chain.first));
    chain.damage(|txn| {
        let mut transactions = txn.open_table(TRANSACTIONS).unwrap();
        transactions.retain(|_, (number, _)| number != head).unwrap();
    });
    chain.refused("a transaction is not found by its hash");
    state_damages(&chain);
    file_damages(&chain);
    std::fs::write(chain.path(), &chain.whole).unwrap();
    let (_node, rpc) = chain.start();
    until("whole, it goes on", || (rpc.number("eth_blockNumber", json!([])) > head).then_some(()));
}

fn chain_header_len(chain: &Stopped, number: u64) -> usize {
    std::fs::write(chain.path(), &chain.whole).unwrap();
    let db = Database::open(chain.path()).unwrap();
    let headers = db.begin_read().unwrap().open_table(HEADERS).unwrap();
    headers.get(number).unwrap().unwrap().value().len()
}

fn flip_number(txn: &redb::WriteTransaction, chain: &Stopped) {
    let id = txn.open_table(HEADERS).unwrap().get(chain.head).unwrap().unwrap().value()[..32].to_vec();
    txn.open_table(NUMBERS).unwrap().insert(id.as_slice(), chain.head - 1).unwrap();
}

fn state_damages(chain: &Stopped) {
    chain.damage(|txn| change(txn, CODES, |_| true, |code| Some(flipped(code, 1000))));
    chain.refused("the state's code is missing or damaged");
    chain.damage(|txn| change(txn, CODES, |_| true, |_| None));
    chain.refused("the state's code is missing or damaged");
    let owner = keccak256(chain.contract());
    // Owner, length of the path, path: the two roots in their newest version.
    for root in [[B256::ZERO.as_slice(), &[0]].concat(), [owner.as_slice(), &[0]].concat()] {
        chain.damage(|txn| change(txn, NODES, |key| key.starts_with(&root), |node| Some(flipped(node, 9))));
        chain.refused("the state's trie node at depth 0 is missing or damaged");
        chain.damage(|txn| change(txn, NODES, |key| key.starts_with(&root), |_| None));
        chain.refused("the state's trie node at depth 0 is missing or damaged");
    }
    chain.damage(|txn| drop(txn.open_table(META).unwrap().remove("genesis").unwrap()));
    chain.refused("block 0: what the chain is, is missing");
    chain.damage(|txn| drop(txn.open_table(META).unwrap().insert("genesis", b"{".as_slice()).unwrap()));
    chain.refused("block 0: what the chain is, can't be read");
}

fn file_damages(chain: &Stopped) {
    let whole = &chain.whole;
    let refused = |what: &str, bytes: &[u8]| {
        std::fs::write(chain.path(), bytes).unwrap();
        chain.refused_after(what, "ledger.redb");
    };
    refused("not one at all", b"no database");
    for (what, length) in
        [("a half", whole.len() / 2), ("a page less", whole.len() - 4096), ("its head", 4096)]
    {
        refused(what, &whole[..length]);
    }
    refused("its head is zeroes", &[&vec![0; 4096], &whole[4096..]].concat());
    // What is empty looks like a store that is about to be made.
    refused("nothing", b"");
    std::fs::remove_file(chain.path()).unwrap();
    let output = chain.site.command().stderr(Stdio::piped()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && error.contains("deployment.json says that there was a chain"),
        "{error}"
    );
}

/// The transactions of a block that is older than what a start reads: found when they are asked for.
#[test]
fn an_old_blocks_damage_is_found_at_use() {
    let chain = Stopped::new();
    let (first, number) = (chain.first, format!("{:#x}", chain.first));
    for at_end in [false, true] {
        chain.damage(|txn| {
            let length = txn.open_table(BLOCKS).unwrap().get(first).unwrap().unwrap().value().len();
            flip(txn, BLOCKS, first, if at_end { length - 1 } else { 40 });
        });
        let (_node, rpc) = chain.start();
        let error = |method: &str, params: Value| rpc.error(method, params)["code"].as_i64().unwrap();
        assert_eq!(error("eth_getBlockByNumber", json!([number, true])), INTERNAL);
        assert_eq!(error("eth_getTransactionReceipt", json!([chain.first_transaction])), INTERNAL);
        assert_eq!(error("eth_getTransactionByHash", json!([chain.first_transaction])), INTERNAL);
        assert_eq!(error("eth_getLogs", json!([{ "fromBlock": number, "toBlock": number }])), INTERNAL);
        assert!(
            !rpc.ask("eth_getBlockByNumber", json!([format!("{:#x}", first + 1), true])).is_null(),
            "others are served"
        );
        chain.logged(&format!("ledger.redb: block {first}: its "));
    }
}

/// Who sent a transaction is in none of the block's roots: whatever shows it holds it against the signature.
#[test]
fn a_sender_that_did_not_sign_is_found_at_use() {
    let chain = Stopped::new();
    let (first, number) = (chain.first, format!("{:#x}", chain.first));
    std::fs::write(chain.path(), &chain.whole).unwrap();
    let sender = {
        let (_node, rpc) = chain.start();
        bytes(&rpc.ask("eth_getTransactionByHash", json!([chain.first_transaction]))["from"])
    };
    chain.damage(|txn| {
        let row = txn.open_table(BLOCKS).unwrap().get(first).unwrap().unwrap().value().to_vec();
        let at = row.windows(20).rposition(|window| window == sender).expect("the row has the sender");
        flip(txn, BLOCKS, first, at);
    });
    let (_node, rpc) = chain.start();
    let error = |method: &str, params: Value| rpc.error(method, params)["code"].as_i64().unwrap();
    assert_eq!(error("eth_getBlockByNumber", json!([number, true])), INTERNAL);
    assert_eq!(error("eth_getBlockReceipts", json!([number])), INTERNAL);
    assert_eq!(error("eth_getTransactionReceipt", json!([chain.first_transaction])), INTERNAL);
    assert_eq!(error("eth_getTransactionByHash", json!([chain.first_transaction])), INTERNAL);
    assert!(!rpc.ask("eth_getBlockByNumber", json!([number, false])).is_null(), "which shows no sender");
}

/// A node of the contract's storage below its root, away from what a start reads: whatever leads over it is refused, whatever does not is
/// answered.
#[test]
fn a_deep_trie_nodes_damage_is_found_at_use() {
    let chain = Stopped::new();
    let contract = chain.contract();
    let owner = keccak256(contract);
    let first_nibble = |slot: u64| keccak256(U256::from(slot).to_be_bytes::<32>())[0] >> 4;
    // 70 participants have a slot below each nibble.
    let broken = (first_nibble(0) + 1) % 16;
    let prefix = [owner.as_slice(), &[1, broken << 4]].concat();
    for gone in [false, true] {
        let to = |node: Vec<u8>| (!gone).then(|| flipped(node, 9));
        chain.damage(|txn| change(txn, NODES, |key| key.starts_with(&prefix), to));
        let (_node, rpc) = chain.start();
        let (mut refused, mut answered) = (0, 0);
        for slot in 0..64 {
            let params = json!([contract, format!("{slot:#x}"), "latest"]);
            let proof = json!([contract, [format!("{slot:#x}")], "latest"]);
            if first_nibble(slot) == broken {
                assert_eq!(rpc.error("eth_getStorageAt", params)["code"], INTERNAL);
                assert_eq!(rpc.error("eth_getProof", proof)["code"], INTERNAL);
                refused += 1;
            } else {
                assert_eq!(bytes(&rpc.ask("eth_getStorageAt", params)).len(), 32);
                assert!(!rpc.ask("eth_getProof", proof).is_null());
                answered += 1;
            }
        }
        assert!(refused > 0 && answered > refused, "{refused} refused, {answered} answered");
        chain.logged("ledger.redb: the state's trie node at depth 1 is missing or damaged");
    }
}
